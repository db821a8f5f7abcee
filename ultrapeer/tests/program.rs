//! The program from outside: real processes on loopback, their files, their output and their HTTP.

mod support;

use std::fs;

use serde_json::Value;
use support::{Program, Scratch, eventually};

/// The options of a daemon of a test: free ports of loopback.
const FREE_PORTS: &[&str] = &["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];

fn start(scratch: &Scratch, name: &str, options: &[&str]) -> Program {
    Program::start(&scratch.path().join(name), &[FREE_PORTS, options].concat())
}

fn founder(scratch: &Scratch, name: &str) -> Program {
    start(scratch, name, &["--founder"])
}

fn listed(program: &Program) -> Vec<String> {
    program.lines(&["peers"]).iter().map(|peer| peer["peer"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_founder_is_ready_and_says_where_it_is() {
    let scratch = Scratch::new();
    let program = founder(&scratch, "a");
    let ready = &program.ready;
    assert_eq!(ready["event"], "ready");
    assert_eq!((&ready["role"], &ready["network"]), (&"ultrapeer".into(), &"public".into()));
    assert_eq!(ready["pid"], program.pid());
    assert!(ready["web"].is_null());
    eventually("/readyz is 200", || program.probe("/readyz").0 == 200);
    let report: Value = serde_json::from_str(&program.probe("/readyz").1).unwrap();
    assert_eq!(report["checks"]["network"], true);
    assert_eq!(program.probe("/healthz").0, 200);

    let status = program.status();
    assert_eq!(status["type"], "status");
    assert_eq!(status["peer_id"], ready["peer_id"]);
    assert_eq!(status["ultrapeer"]["state"], "founder");
    assert_eq!(status["problems"], Value::Array(Vec::new()));
    for leaf_only in ["volunteer", "homes", "shares", "catalog", "downloads", "uploads", "upload_rate", "download_rate"]
    {
        assert!(status.as_object().unwrap().contains_key(leaf_only) && status[leaf_only].is_null(), "{leaf_only}");
    }
}

#[test]
fn a_second_one_is_let_in_and_both_list_each_other() {
    let scratch = Scratch::new();
    let first = founder(&scratch, "a");
    let second = start(&scratch, "b", &["--join", first.ready["quic"].as_str().unwrap()]);
    eventually("the second one is admitted", || second.status()["ultrapeer"]["state"] == "admitted");
    assert_eq!(second.probe("/readyz").0, 200);
    eventually("both list each other", || listed(&first) == [second.peer()] && listed(&second) == [first.peer()]);
    let peer = &first.lines(&["peers"])[0];
    assert_eq!((&peer["type"], &peer["role"]), (&"peer".into(), &"ultrapeer".into()));
    assert_eq!(first.status()["ultrapeers"], 2);

    eventually("ultrapeers are kept on disk", || scratch.path().join("b/ultrapeers").exists());
    let (status, said) = second.terminate();
    assert!(status.success(), "{said}");
    let again = start(&scratch, "b", &[]);
    eventually("it is let in by those it remembers", || again.status()["ultrapeer"]["state"] == "admitted");
    assert_eq!(listed(&again), [first.peer()]);
}

#[test]
fn one_that_hangs_is_left_out_and_comes_back() {
    let scratch = Scratch::new();
    let first = founder(&scratch, "a");
    let join = ["--join", first.ready["quic"].as_str().unwrap()];
    let (second, third) = (start(&scratch, "b", &join), start(&scratch, "c", &join));
    let knows = |program: &Program, others: &[&Program]| {
        let mut peers: Vec<_> = others.iter().map(|other| other.peer()).collect();
        peers.sort();
        listed(program) == peers
    };
    eventually("all know each other", || {
        knows(&first, &[&second, &third]) && knows(&second, &[&first, &third]) && knows(&third, &[&first, &second])
    });
    third.signal("STOP");
    eventually("the others leave it out", || knows(&first, &[&second]) && knows(&second, &[&first]));
    third.signal("CONT");
    eventually("it is back", || {
        knows(&first, &[&second, &third]) && knows(&second, &[&first, &third]) && knows(&third, &[&first, &second])
    });
}

#[test]
fn another_network_is_named_among_the_problems() {
    let scratch = Scratch::new();
    let first = founder(&scratch, "a");
    let quic = first.ready["quic"].as_str().unwrap();
    let stranger = start(&scratch, "b", &["--join", quic, "--network", "elsewhere"]);
    let codes = |program: &Program| -> Vec<Value> {
        let status = program.status();
        status["problems"].as_array().unwrap().iter().map(|problem| problem["code"].clone()).collect()
    };
    eventually("the network is wrong", || codes(&stranger) == ["wrong_network"]);
    assert_eq!(stranger.probe("/readyz").0, 503);

    let secret = scratch.path().join("secret");
    fs::write(&secret, "something\n").unwrap();
    let spy = start(&scratch, "c", &["--join", quic, "--network-secret-file", secret.to_str().unwrap()]);
    eventually("the secret is wrong", || codes(&spy) == ["wrong_secret"]);

    let alone = start(&scratch, "d", &[]);
    eventually("nobody is known", || codes(&alone) == ["no_ultrapeer"]);
}

#[test]
fn the_id_stays_over_restarts_and_a_clean_end_leaves_no_api_file() {
    let scratch = Scratch::new();
    let first = founder(&scratch, "a");
    let (peer, data) = (first.peer(), scratch.path().join("a"));
    assert!(data.join("api.json").exists());
    let (status, said) = first.terminate();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!data.join("api.json").exists());
    let id = Program::run(&data, &["id", "--json"]);
    assert_eq!(id.json()["peer_id"], peer.as_str());
    assert_eq!(founder(&scratch, "a").peer(), peer);
}

#[test]
fn a_folder_serves_one_daemon_at_a_time() {
    let scratch = Scratch::new();
    let _first = founder(&scratch, "a");
    let second = Program::run(&scratch.path().join("a"), &[FREE_PORTS, &["--json"]].concat());
    assert_eq!(second.code, Some(1));
    assert_eq!(second.json()["code"], "already_running");
    assert!(second.stderr.contains("hint: "), "{}", second.stderr);
}

#[test]
fn an_address_that_was_asked_for_is_not_replaced() {
    let scratch = Scratch::new();
    let first = founder(&scratch, "a");
    let http =
        |key: &str| first.ready[key].as_str().unwrap()["http://".len()..].trim_end_matches("/metrics").to_owned();
    for (option, taken) in [("--listen", first.quic()), ("--api", http("api")), ("--metrics", http("metrics"))] {
        let mut options = FREE_PORTS.to_vec();
        let place = options.iter().position(|given| *given == option).unwrap();
        options[place + 1] = &taken;
        let second = Program::run(&scratch.path().join("b"), &[&options, &["--json"][..]].concat());
        assert_eq!(second.code, Some(1), "{option}: {}", second.stderr);
        assert_eq!(second.json()["code"], "address_in_use", "{option}");
    }
}

#[test]
fn a_misspelt_key_is_named_with_its_place_and_the_nearest_one() {
    let scratch = Scratch::new();
    let data = scratch.path().join("a");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("ultrapeer.toml"), "# mine\nnetwrk = \"x\"\n").unwrap();
    for command in [&[][..], &["run"], &["config", "show"]] {
        let refused = Program::run(&data, command);
        assert_eq!(refused.code, Some(2), "{command:?}");
        assert!(refused.stderr.contains("ultrapeer.toml:2:1"), "{}", refused.stderr);
        assert!(refused.stderr.contains("`network`"), "{}", refused.stderr);
    }
}

#[test]
fn drain_ends_the_daemon_and_without_one_says_how_to_start_it() {
    let scratch = Scratch::new();
    let mut first = founder(&scratch, "a");
    let data = scratch.path().join("a");
    assert_eq!(Program::run(&data, &["drain"]).code, Some(0));
    assert_eq!(first.end().0.code(), Some(0));
    for command in ["status", "peers", "drain"] {
        let missing = Program::run(&data, &[command, "--json"]);
        assert_eq!(missing.code, Some(1), "{command}");
        assert_eq!(missing.json()["code"], "daemon_not_running");
        assert!(missing.stderr.contains("`quictrack-ultrapeer --data-dir "), "{}", missing.stderr);
    }
}

#[test]
fn a_hang_up_reads_the_configuration_again() {
    let scratch = Scratch::new();
    let first = founder(&scratch, "a");
    let capacity = || first.status()["ultrapeer"]["max_leaves"].clone();
    assert_eq!(capacity(), 10_000);
    let file = scratch.path().join("a/ultrapeer.toml");
    fs::write(&file, "max_leaves = 7\nnetwork = \"other\"\n").unwrap();
    first.signal("HUP");
    eventually("the new capacity is in force", || capacity() == 7);
    assert_eq!(first.status()["network"], "public", "a network needs a restart");
    fs::write(&file, "max_leaves = \"many\"\n").unwrap();
    first.signal("HUP");
    eventually("the wrong file is reported", || first.log().contains("the configuration stays as it was"));
    assert_eq!(capacity(), 7);
}

#[test]
fn who_offers_more_than_there_is_starts_and_is_told() {
    let scratch = Scratch::new();
    let boaster = start(&scratch, "a", &["--founder", "--max-leaves", "1000000000"]);
    let said = || {
        let status = boaster.status();
        let problems = status["problems"].as_array().unwrap().iter();
        problems.filter(|problem| problem["code"] == "capacity").cloned().collect::<Vec<_>>()
    };
    assert!(said()[0]["message"].as_str().unwrap().starts_with("1000000000 leaves"), "{:?}", said());
    assert!(said()[0]["hint"].as_str().unwrap().contains("`max_leaves`"), "{:?}", said());
    assert!(boaster.log().contains("1000000000 leaves and "), "{}", boaster.log());
    assert_eq!(boaster.status()["ultrapeer"]["max_leaves"], 1_000_000_000);
    // None at all is no offer.
    let none = Program::run(&scratch.path().join("b"), &["--founder", "--max-leaves", "0"]);
    assert_eq!(none.code, Some(2), "{}", none.stderr);
    assert!(none.stderr.contains("max-leaves") && none.stderr.contains("hint: "), "{}", none.stderr);
}

#[test]
fn settings_travel_from_node_to_node() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.path().join("a"), scratch.path().join("b"));
    let file = scratch.path().join("exported.json");
    let settings = r#"{"quictrack_export":1,"settings":{"max_leaves":77}}"#;
    fs::write(&file, settings).unwrap();
    let path = file.to_str().unwrap();
    let running = founder(&scratch, "a");
    assert_eq!(Program::run(&first, &["config", "import", path]).code, Some(0));
    eventually("a running daemon follows", || running.status()["ultrapeer"]["max_leaves"] == 77);
    assert_eq!(Program::run(&first, &["config", "export", path]).code, Some(0));
    assert_eq!(Program::run(&second, &["config", "import", path]).code, Some(0));
    let shown = Program::run(&second, &["config", "show", "--json"]);
    let row = shown.all_json().into_iter().find(|row| row["key"] == "max_leaves").unwrap();
    assert_eq!((&row["value"], &row["origin"]), (&77.into(), &"settings".into()));
}

#[test]
fn prometheus_accepts_the_metrics_and_they_move() {
    let scratch = Scratch::new();
    let first = founder(&scratch, "a");
    let second = start(&scratch, "b", &["--join", first.ready["quic"].as_str().unwrap()]);
    let moved = [
        r#"quictrack_connections{kind="mesh",direction="in"} 1"#,
        r#"quictrack_known_ultrapeers{state="alive"} 1"#,
        "quictrack_ultrapeers 2",
        "quictrack_ready 1",
        r#"quictrack_role{role="ultrapeer"} 1"#,
        r#"quictrack_reachability{state="public"} 1"#,
        "quictrack_leaf_slots 10000",
    ];
    eventually("the gauges tell of the second one", || {
        let text = first.probe("/metrics").1;
        moved.iter().all(|line| text.lines().any(|have| have == *line))
    });
    for series in
        [r#"quictrack_rtt_seconds_count{kind="mesh"}"#, r#"quictrack_handshakes_total{direction="in",result="ok"}"#]
    {
        eventually(series, || support::sample(&first.probe("/metrics").1, series) > 0.0);
    }
    let joined = r#"quictrack_bootstrap_attempts_total{source="config",result="ok"}"#;
    eventually(joined, || support::sample(&second.probe("/metrics").1, joined) > 0.0);
    support::promtool(&first.probe("/metrics").1);
    // One that hangs is suspected before it is taken for dead.
    second.signal("STOP");
    let suspected = r#"quictrack_known_ultrapeers{state="suspect"}"#;
    eventually(suspected, || support::sample(&first.probe("/metrics").1, suspected) > 0.0);
}

#[test]
fn without_a_command_it_is_the_daemon_and_help_and_texts_need_none() {
    let scratch = Scratch::new();
    for (arguments, part) in [
        (&["--version"][..], "quictrack-ultrapeer 0."),
        (&["--help"], "--founder"),
        (&["completions", "bash"], "quictrack-ultrapeer"),
        (&["man"], ".TH"),
    ] {
        let said = Program::run(scratch.path(), arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
        assert!(said.stdout.contains(part), "{arguments:?}: {}", said.stdout);
    }
    let before = Program::run(scratch.path(), &["--founder", "status"]);
    assert_eq!(before.code, Some(2), "{}", before.stderr);
}
