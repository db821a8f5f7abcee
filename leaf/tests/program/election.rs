//! Who is let in as an ultrapeer of the public network, on addresses of the whole Internet.

use serde_json::Value;

use crate::{
    namespace,
    support::{Bed, Daemon, awaited, eventually, list, text},
};

fn state(ultrapeer: &Daemon) -> String {
    ultrapeer.status()["ultrapeer"]["state"].as_str().unwrap_or("none").to_owned()
}

fn criterion(status: &Value, name: &str) -> Value {
    let criteria = list(&status["election"]);
    criteria.iter().find(|known| known["name"] == name).cloned().unwrap_or_default()
}

/// Each in a /24 of its own is measured and let in; one in a /24 that has its ultrapeer is told so; and a leaf is told
/// what it lacks.
#[test]
fn on_the_public_network_nodes_are_measured_and_a_prefix_has_one_place() {
    if !namespace::inside("election::on_the_public_network_nodes_are_measured_and_a_prefix_has_one_place", &["--net"]) {
        return;
    }
    namespace::system(&["ip", "link", "set", "lo", "up"]);
    for address in ["60.1.1.1", "61.1.1.1", "62.1.1.1", "60.1.1.77", "63.1.1.1"] {
        namespace::system(&["ip", "address", "add", &format!("{address}/32"), "dev", "lo"]);
    }
    let bed = Bed::new();
    let founder = bed.ultrapeer("u0", &["--founder", "--listen", "60.1.1.1:7780"]);
    let join = |name, listen| bed.ultrapeer(name, &["--listen", listen, "--join", "60.1.1.1:7780"]);
    let others = [join("u1", "61.1.1.1:7780"), join("u2", "62.1.1.1:7780")];
    for other in &others {
        awaited("it is let in", || (state(other) == "admitted").then_some(()));
    }
    let neighbour = join("u3", "60.1.1.77:7780");
    let problem = awaited("it is told why not", || {
        let status = neighbour.status();
        list(&status["problems"]).iter().find(|problem| problem["code"] == "not_admitted").cloned()
    });
    assert!(text(&problem["message"]).contains("part of the Internet"), "{problem}");
    assert_eq!(state(&neighbour), "candidate");
    for series in [
        "quictrack_elections_total{result=\"elected\"}",
        "quictrack_elections_total{result=\"refused\"}",
        "quictrack_dialbacks_total{result=\"ok\"}",
    ] {
        eventually(series, || founder.counted(series) > 0);
    }

    let leaf = bed.leaf("leaf", &founder, &["--listen", "63.1.1.1:7780", "--volunteer", "auto"]);
    let status = awaited("its homes have looked at it", || {
        let status = leaf.status();
        let known = ["reachable", "bandwidth", "uptime", "loss", "prefix", "demand"];
        known.iter().all(|name| criterion(&status, name)["met"].is_boolean()).then_some(status)
    });
    for (name, met) in [
        ("volunteer", true),
        ("reachable", true),
        ("bandwidth", true),
        ("loss", true),
        ("memory", true),
        ("prefix", true),
        ("uptime", false),
        ("demand", false),
    ] {
        assert_eq!(criterion(&status, name)["met"], met, "{name} in {}", status["election"]);
    }
    assert_eq!((text(&status["role"]), text(&status["reachability"])), ("leaf", "public"));
    assert!(leaf.text(&["status"]).contains("uptime    no:"), "{}", leaf.text(&["status"]));
}
