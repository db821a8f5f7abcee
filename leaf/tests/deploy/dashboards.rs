//! The dashboards of Grafana: whole, readable, and asking only for what can be asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Value, json};

use crate::{
    json_of,
    support::{list, number, text},
    text_of, tool,
};

const DASHBOARDS: [&str; 3] = ["fleet", "ultrapeer", "leaf"];
/// Columns of a dashboard.
const COLUMNS: u64 = 24;

/// The panels of a dashboard that show something.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["panels"]).iter().filter(|panel| panel["type"] != "row")
}

/// Every expression of every panel, with what names it.
pub(crate) fn expressions() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for name in DASHBOARDS {
        let dashboard = json_of(&format!("grafana/dashboards/{name}.json"));
        for panel in panels(&dashboard) {
            for target in list(&panel["targets"]) {
                all.push((format!("{name}: {}", text(&panel["title"])), text(&target["expr"]).to_owned()));
            }
        }
    }
    all
}

/// An expression as Grafana sends it.
pub(crate) fn filled(expression: &str, interval: &str) -> String {
    let filled = expression.replace("$__rate_interval", interval).replace("$job", ".*").replace("$instance", ".*");
    assert!(!filled.contains('$'), "an unknown variable: {expression}");
    filled
}

/// The names of metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && !"_:".contains(letter));
    let is_metric = |word: &&str| word.starts_with("quictrack_") || word.starts_with("process_");
    words.filter(is_metric).collect()
}

#[test]
fn dashboards_are_whole() {
    let mut uids = BTreeSet::new();
    for name in DASHBOARDS {
        let dashboard = json_of(&format!("grafana/dashboards/{name}.json"));
        assert!(uids.insert(text(&dashboard["uid"]).to_owned()), "{name} has the uid of another one");
        assert_eq!(dashboard["editable"], false, "{name} is changed in the repository only");
        for key in ["title", "description"] {
            assert!(!text(&dashboard[key]).is_empty(), "{name} has no {key}");
        }
        let variables: Vec<_> = list(&dashboard["templating"]["list"]).iter().map(|item| text(&item["name"])).collect();
        assert_eq!(variables, ["datasource", "job", "instance"], "{name}");
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeMap::new());
        for panel in list(&dashboard["panels"]) {
            let title = format!("{name}: {}", text(&panel["title"]));
            assert!(ids.insert(number(&panel["id"])), "{title} has the id of another one");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| number(&panel["gridPos"][key]));
            assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{title} does not fit");
            for (column, line) in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
                let before = taken.insert((column, line), title.clone());
                assert!(before.is_none(), "{title} lies on {before:?}");
            }
        }
        for panel in panels(&dashboard) {
            let title = format!("{name}: {}", text(&panel["title"]));
            assert!(text(&panel["description"]).ends_with('.'), "{title} is not described");
            assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{title} has no unit");
            assert!(!list(&panel["targets"]).is_empty(), "{title} shows nothing");
            let mut letters = BTreeSet::new();
            for target in list(&panel["targets"]) {
                assert!(letters.insert(text(&target["refId"])), "{title} names two queries alike");
                for datasource in [&panel["datasource"], &target["datasource"]] {
                    assert_eq!(datasource["uid"], "${datasource}", "{title} asks a fixed source");
                }
            }
        }
    }
}

#[test]
fn every_expression_heeds_the_variables_and_the_kinds_of_metrics() {
    let table = text_of("prometheus/metrics.md");
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`'), cells.next()?))
    });
    let kinds: BTreeMap<_, _> = rows.collect();
    for (title, expression) in expressions() {
        assert!(expression.contains("job=~\"$job\""), "{title}: {expression}");
        let recorded = expression.starts_with("job:");
        assert!(recorded || expression.contains("instance=~\"$instance\""), "{title}: {expression}");
        if recorded {
            continue;
        }
        for metric in metrics(&expression) {
            let parts = ["_bucket", "_sum", "_count"].into_iter().filter_map(|part| metric.strip_suffix(part));
            let family = parts.into_iter().find(|family| kinds.get(family) == Some(&"histogram")).unwrap_or(metric);
            let kind = kinds.get(family).unwrap_or_else(|| panic!("{title}: there is no {metric}"));
            // What only rises says something as a rate.
            let rises = *kind != "gauge";
            let is_rate = expression.contains(&format!("rate({metric}{{"))
                || expression.contains(&format!("rate ({metric}{{"))
                || expression.contains(&format!("increase({metric}{{"));
            assert_eq!(rises, is_rate, "{title}: {metric} is a {kind}: {expression}");
        }
    }
}

#[test]
fn every_expression_is_one() {
    let rules: Vec<_> = expressions()
        .iter()
        .enumerate()
        .map(|(number, (title, expression))| {
            json!({"record": format!("panel_{number}"), "expr": filled(expression, "5m"), "labels": {"title": title}})
        })
        .collect();
    // JSON is YAML.
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    fs::write(file.path(), json!({"groups": [{"name": "panels", "rules": rules}]}).to_string()).unwrap();
    tool("promtool", &["check", "rules", file.path().to_str().unwrap()]);
}
