//! A real Prometheus watches a real network: every rule and every panel has data.

use std::{
    fmt::Write,
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    command, dashboards, deploy,
    support::{Bed, Daemon, awaited, bytes, content_of, eventually, list, looked_for, request, text, within},
    text_of,
};

/// Comparisons keep what they hold for, and so say nothing where all is well. With `bool` they say 0.
const COMPARISONS: [&str; 6] = [" == ", " != ", " > ", " < ", " >= ", " <= "];
/// A rate needs two scrapes; they come each second.
const INTERVAL: &str = "10s";
/// How long something must be wrong for an alert here: two evaluations.
const HASTE: &str = "2s";
/// Time in which Prometheus starts, scrapes twice and evaluates its rules twice, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A Prometheus; killed when it is dropped.
struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    /// Starts one that scrapes these, with the recording rules and these alerts.
    fn start(bed: &Bed, alerts: PathBuf, jobs: &[(&str, &[&Daemon])]) -> Self {
        let targets = |daemons: &[&Daemon]| -> Vec<String> {
            let address = |daemon: &&Daemon| text(&daemon.ready["metrics"])["http://".len()..].replace("/metrics", "");
            daemons.iter().map(address).collect()
        };
        let jobs: Vec<_> = jobs
            .iter()
            .map(|(name, daemons)| json!({"job_name": name, "static_configs": [{"targets": targets(daemons)}]}))
            .collect();
        let configuration = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [deploy("prometheus/recording.yml"), alerts],
            "scrape_configs": jobs,
        });
        // JSON is YAML.
        bed.write(&[("prometheus/prometheus.yml", configuration.to_string().as_bytes())]);
        let folder = bed.path("prometheus");
        awaited("Prometheus answers", || {
            // Another program may take the port in between: then it is another one.
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut child = command("prometheus")
                .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
                .arg(format!("--web.listen-address={free}"))
                .args(["--log.level=warn"])
                .stdout(Stdio::null())
                .stderr(fs::File::create(folder.join("log")).unwrap())
                .spawn()
                .unwrap_or_else(|error| panic!("`prometheus` cannot be run ({error}): `.ci/test` fetches it"));
            let started = awaited("Prometheus listens or gives up", || {
                let gave_up = child.try_wait().unwrap().is_some();
                let answers = std::net::TcpStream::connect(free).is_ok();
                (gave_up || answers).then_some(!gave_up)
            });
            started.then(|| {
                let url = format!("http://{free}");
                eventually("Prometheus is ready", || request(&url, "GET /-/ready", "", "").status == 200);
                Self { child, url }
            })
        })
    }

    fn get(&self, path: &str) -> Value {
        let answer = request(&self.url, &format!("GET /api/v1/{path}"), "", "");
        let answer: Value =
            serde_json::from_slice(&unchunked(&answer)).unwrap_or_else(|_| panic!("{path}: {answer:?}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// What an expression gives now.
    fn query(&self, expression: &str) -> Vec<Value> {
        let mut escaped = String::new();
        for byte in expression.bytes() {
            write!(escaped, "%{byte:02x}").unwrap();
        }
        list(&self.get(&format!("query?query={escaped}"))["result"]).to_vec()
    }

    /// The states and instances of the alerts of this name.
    fn alerts(&self, name: &str) -> Vec<(String, String)> {
        let alerts = self.get("alerts");
        let named = list(&alerts["alerts"]).iter().filter(|alert| alert["labels"]["alertname"] == name);
        named.map(|alert| (text(&alert["state"]).to_owned(), text(&alert["labels"]["instance"]).to_owned())).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Fails if it has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of an answer, put together where it came in chunks.
fn unchunked(answer: &crate::support::Answer) -> Vec<u8> {
    if answer.header("transfer-encoding") != Some("chunked") {
        return answer.body.clone();
    }
    let (mut body, mut rest) = (Vec::new(), &answer.body[..]);
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 4 + length..];
    }
    body
}

/// The committed alerts, which here need not hold for minutes before they fire.
fn hasty_alerts(bed: &Bed) -> PathBuf {
    let hasty: Vec<_> = text_of("prometheus/alerts.yml")
        .lines()
        .map(|line| {
            line.split_once("for: ")
                .filter(|(before, _)| before.trim().is_empty())
                .map_or_else(|| line.to_owned(), |(indent, _)| format!("{indent}for: {HASTE}"))
        })
        .collect();
    bed.write(&[("hasty/alerts.yml", hasty.join("\n").as_bytes())]);
    bed.path("hasty/alerts.yml")
}

/// An expression that says something where a comparison does not hold.
fn without_comparison(expression: &str) -> String {
    COMPARISONS.iter().fold(expression.to_owned(), |text, sign| text.replace(sign, &format!("{sign}bool ")))
}

#[test]
fn every_rule_and_every_panel_has_data() {
    let bed = Bed::new();
    let content = bytes("a pearl", 3 << 20);
    bed.write(&[("pool/pearl.bin", &content)]);
    let founder = bed.founder("u0");
    let second = bed.ultrapeer("u1", &["--join", &founder.quic()]);
    eventually("the second one is let in", || second.status()["ultrapeer"]["state"] == "admitted");
    let source = bed.sharing("source", &founder, "pool", &[]);
    let leaf = bed.leaf("leaf", &second, &[]);
    source.settled(2, 1);
    let prometheus = Prometheus::start(
        &bed,
        deploy("prometheus/alerts.yml"),
        &[("quictrack-ultrapeer", &[&founder, &second]), ("quictrack-leaf", &[&source, &leaf])],
    );
    leaf.finds(&["pearl"], &["pearl.bin"]);
    leaf.lines(&["get", &content_of(&content)]);

    let mut wanted: Vec<(String, String)> = Vec::new();
    let groups = prometheus.get("rules");
    for rule in list(&groups["groups"]).iter().flat_map(|group| list(&group["rules"])) {
        wanted.push((text(&rule["name"]).to_owned(), without_comparison(text(&rule["query"]))));
    }
    let rules = wanted.len();
    assert!(rules > 30, "{rules} rules");
    wanted.extend(dashboards::expressions().into_iter().map(|(name, expression)| {
        // Where a panel leaves something out by a comparison, what is left out would be data as well.
        (name, dashboards::filled(&expression, INTERVAL))
    }));
    // What happened must show, and not only be there.
    for moved in [
        r#"quictrack_queries_total{origin="leaf",outcome="answered"}"#,
        r#"quictrack_transfer_bytes_total{direction="in",via="direct"}"#,
        r#"quictrack_protocol_bytes_total{class="transfer",direction="out"}"#,
        r#"quictrack_protocol_bytes_total{class="catalog",direction="in"}"#,
        r#"quictrack_udp_bytes_total{direction="in",job="quictrack-ultrapeer"}"#,
        r#"quictrack_quic_sent_packets_total{kind="mesh"}"#,
        r#"quictrack_quic_sent_packets_total{kind="transfer"}"#,
        r#"quictrack_index_updates_total{op="add",job="quictrack-ultrapeer"}"#,
        "quictrack_index_update_duration_seconds_count",
        "quictrack_freshness_seconds_count",
        r#"quictrack_query_duration_seconds_count{origin="leaf"}"#,
        r#"quictrack_queue_capacity{queue="digests"}"#,
        r#"quictrack_known_ultrapeers{state="alive",job="quictrack-leaf"}"#,
        r#"quictrack_bootstrap_attempts_total{source="config",result="ok",job="quictrack-leaf"}"#,
        r#"quictrack_rtt_seconds_count{kind="leaf",job="quictrack-leaf"}"#,
        "quictrack_index_budget_bytes",
    ] {
        wanted.push((moved.to_owned(), format!("sum({moved}) > 0")));
    }
    let all = looked_for(PATIENCE, || {
        wanted.retain(|(_, expression)| prometheus.query(expression).is_empty());
        wanted.is_empty().then_some(())
    });
    assert!(all.is_some(), "without data: {wanted:#?}");
    let groups = prometheus.get("rules");
    for rule in list(&groups["groups"]).iter().flat_map(|group| list(&group["rules"])) {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
}

#[test]
fn an_alert_fires_when_an_ultrapeer_is_killed_and_clears_when_it_is_back() {
    // It comes back where it was: no other test uses this address.
    let metrics = "127.0.0.10:7790";
    let bed = Bed::new();
    bed.write(&[("pool/pearl.txt", b"white")]);
    let founder = bed.founder("u0");
    let join = founder.quic();
    let options = ["--join", &join, "--listen", "127.0.0.10:7791", "--metrics", metrics];
    let second = bed.ultrapeer("u1", &options);
    eventually("the second one is let in", || second.status()["ultrapeer"]["state"] == "admitted");
    let leaf = bed.sharing("leaf", &founder, "pool", &[]);
    leaf.settled(2, 1);
    let prometheus = Prometheus::start(&bed, hasty_alerts(&bed), &[("quictrack-ultrapeer", &[&founder, &second])]);
    let up = || prometheus.query(r#"sum(up{job="quictrack-ultrapeer"}) == 2"#);
    within(PATIENCE, "both are seen to be up", || (!up().is_empty()).then_some(()));
    assert_eq!(prometheus.alerts("UltrapeerDown"), []);

    let peer = second.peer().to_owned();
    second.kill();
    let down = [("firing".to_owned(), metrics.to_owned())];
    within(PATIENCE, "the alert fires", || (prometheus.alerts("UltrapeerDown") == down).then_some(()));
    // What the runbook promises: nothing is missing meanwhile.
    leaf.finds(&["pearl"], &["pearl.txt"]);

    let second = bed.ultrapeer("u1", &options);
    assert_eq!(second.peer(), peer);
    within(PATIENCE, "the alert clears", || prometheus.alerts("UltrapeerDown").is_empty().then_some(()));
    assert!(!up().is_empty(), "it clears because the ultrapeer is back");
    eventually("it is let in again", || second.status()["ultrapeer"]["state"] == "admitted");
}
