//! The configuration and the rules of Prometheus, by its own tools.

use std::collections::BTreeMap;

use crate::{deploy, text_of, tool};

/// The alerts that there must be.
const ALERTS: [&str; 18] = [
    "CanaryRecallLow",
    "CorruptPieces",
    "DiskLow",
    "ElectionFlapping",
    "FdExhaustion",
    "HandshakeFailures",
    "IndexMemoryHigh",
    "LeafSlotsSaturated",
    "NotReady",
    "OverlayPartition",
    "PacketLossHigh",
    "QueryErrorBudgetBurn",
    "QueryLatencyHigh",
    "QueueDropping",
    "Restarting",
    "ScanStale",
    "UltrapeerDown",
    "VersionSkew",
];

/// The values of a key in a file of YAML, one for each line that has it.
fn values<'a>(yaml: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    yaml.lines().filter_map(move |line| line.trim().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(": "))
}

#[test]
fn rules_are_accepted_and_alerts_fire_when_they_must() {
    tool("promtool", &["check", "rules", "prometheus/recording.yml", "prometheus/alerts.yml"]);
    tool("promtool", &["test", "rules", "prometheus/alerts_test.yml"]);
}

#[test]
fn every_alert_is_documented_and_tested_both_ways() {
    let (alerts, tests, runbook) =
        (text_of("prometheus/alerts.yml"), text_of("prometheus/alerts_test.yml"), text_of("README.md"));
    let mut names: Vec<_> = values(&alerts, "alert").collect();
    let rules = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ALERTS);
    for key in ["severity", "summary", "description", "runbook_url"] {
        assert_eq!(values(&alerts, key).count(), rules, "each alert has its {key}");
    }
    // Each expectation is the name of an alert, and whether there must be none.
    let mut expected: BTreeMap<&str, [bool; 2]> = BTreeMap::new();
    let mut lines = tests.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("alertname: ") {
            let none = lines.next() == Some("exp_alerts: []");
            expected.entry(name).or_default()[usize::from(none)] = true;
        }
    }
    for name in ALERTS {
        assert_eq!(expected.get(name), Some(&[true, true]), "{name} is tested to fire, and not to");
        assert!(runbook.lines().any(|line| line == format!("### {name}")), "{name} has no section in README.md");
        let link = format!("deploy/README.md#{}", name.to_lowercase());
        assert!(values(&alerts, "runbook_url").any(|url| url.ends_with(&link)), "{link}");
    }
}

#[test]
fn configurations_are_accepted() {
    for name in ["prometheus.yml", "prometheus-compose.yml", "prometheus-file-sd.yml"] {
        tool("promtool", &["check", "config", &format!("prometheus/{name}")]);
    }
    tool("amtool", &["check-config", "prometheus/alertmanager.yml"]);
    // Debian's Prometheus is built without Kubernetes: all but the discovery itself is judged.
    let folder = tempfile::tempdir().unwrap();
    let discovery = "kubernetes_sd_configs:\n      - role: pod\n";
    let text = text_of("prometheus/prometheus-kubernetes.yml");
    assert!(text.contains(discovery));
    let text = text.replace(discovery, "static_configs:\n      - targets: [\"127.0.0.1:1\"]\n");
    for rules in ["recording.yml", "alerts.yml"] {
        std::fs::copy(deploy("prometheus").join(rules), folder.path().join(rules)).unwrap();
    }
    let path = folder.path().join("prometheus.yml");
    std::fs::write(&path, text).unwrap();
    tool("promtool", &["check", "config", path.to_str().unwrap()]);
}
