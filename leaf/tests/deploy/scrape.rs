//! A real Prometheus watches a real network: every rule and every panel has data.

use std::{
    fmt::Write,
    fs,
    net::TcpListener,
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    command, dashboards, deploy,
    support::{Bed, Daemon, awaited, bytes, content_of, eventually, list, looked_for, request, text},
};

/// Comparisons keep what they hold for, and so say nothing where all is well. With `bool` they say 0.
const COMPARISONS: [&str; 6] = [" == ", " != ", " > ", " < ", " >= ", " <= "];
/// A rate needs two scrapes; they come each second.
const INTERVAL: &str = "10s";
/// Time in which Prometheus starts, scrapes twice and evaluates its rules twice, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A Prometheus; killed when it is dropped.
struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    /// Starts one that scrapes these.
    fn start(bed: &Bed, jobs: &[(&str, &[&Daemon])]) -> Self {
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
            "rule_files": [deploy("prometheus/recording.yml"), deploy("prometheus/alerts.yml")],
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
            started.then(|| Self { child, url: format!("http://{free}") })
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
