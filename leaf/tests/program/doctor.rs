//! `doctor`: what it finds with and without a daemon, and that scripts can tell.

use std::fs;

use serde_json::Value;

use crate::support::{Bed, Program, text};

/// The checks of a `doctor` on a data folder, by their names, which must end with `code`.
fn examined(data: &std::path::Path, code: i32) -> Vec<(String, Value)> {
    let ended = Program::Leaf.run(data, &["--json", "doctor"]);
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let lines = ended.lines();
    for line in &lines {
        assert_eq!(line["type"], "check", "{line}");
        for field in ["name", "ok", "message", "hint"] {
            assert!(line.get(field).is_some(), "{field}: {line}");
        }
    }
    lines.into_iter().map(|line| (text(&line["name"]).to_owned(), line["ok"].clone())).collect()
}

fn ok(checks: &[(String, Value)], name: &str) -> Value {
    let check = checks.iter().find(|(known, _)| known == name);
    check.unwrap_or_else(|| panic!("no check {name}: {checks:?}")).1.clone()
}

#[test]
fn it_goes_into_the_network_by_itself_or_asks_the_daemon() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    bed.write(&[("data/leaf.toml", format!("join = [\"{}\"]\n", founder.quic()).as_bytes())]);
    let data = bed.path("data");
    let alone = examined(&data, 0);
    let all = ["config", "data", "downloads", "disk", "clock", "port", "udp", "join", "ultrapeer", "addresses", "nat"];
    for name in all.into_iter().chain(["reachable"]) {
        assert_eq!(ok(&alone, name), true, "{name}: {alone:?}");
    }
    assert_eq!(ok(&alone, "daemon"), Value::Null);
    assert!(!data.join("identity.key").exists(), "it leaves nothing behind");
    let said = Program::Leaf.run(&data, &["doctor"]);
    assert!(said.stdout.contains("ok      reachable"), "{said:?}");

    let leaf = bed.leaf("data", &founder, &[]);
    leaf.settled(1, 0);
    let beside = examined(&data, 0);
    for name in ["daemon", "port", "ultrapeer"] {
        assert_eq!(ok(&beside, name), true, "{name}: {beside:?}");
    }
}

#[test]
fn what_is_wrong_is_named_and_ends_with_one() {
    let bed = Bed::new();
    bed.write(&[
        ("broken/leaf.toml", b"jion = []\n"),
        ("lost/leaf.toml", b"join = [\"127.0.0.1:9\", \"no.such.name.invalid:1\"]\n"),
        ("mute/leaf.toml", b"\n"),
    ]);
    let broken = examined(&bed.path("broken"), 1);
    assert_eq!((broken.len(), ok(&broken, "config")), (1, false.into()), "nothing else can be tried");
    let lost = examined(&bed.path("lost"), 1);
    assert!(lost.iter().filter(|(name, _)| name == "join").all(|(_, ok)| *ok == false), "{lost:?}");
    assert_eq!((ok(&lost, "ultrapeer"), ok(&lost, "nat")), (false.into(), Value::Null));
    // With nobody to join nothing is wrong, but nothing could be found out.
    let mute = examined(&bed.path("mute"), 0);
    assert_eq!((ok(&mute, "join"), ok(&mute, "ultrapeer")), (Value::Null, Value::Null));
    fs::write(bed.path("mute/downloads"), b"a file where the folder should be").expect("the bed can be written to");
    assert_eq!(ok(&examined(&bed.path("mute"), 1), "downloads"), false);
}
