//! Nodes that nobody told of each other: in one local network, by the DHT, by names. Real processes, and nothing leaves this
//! machine: the local network is one of namespaces, and the DHT one of loopback.

use std::net::Ipv4Addr;

use mainline::Testnet;

use crate::{
    namespace,
    support::{
        Bed, Daemon, Program, eventually,
        nats::{self, Nat},
    },
};

/// What a node counted of a source.
fn attempts(node: &Daemon, source: &str, result: &str) -> u64 {
    node.counted(&format!(r#"quictrack_bootstrap_attempts_total{{source="{source}",result="{result}"}}"#))
}

/// How many addresses from a source a node dialled.
fn dials(node: &Daemon, source: &str) -> u64 {
    let results = ["ok", "refused", "timeout", "wrong_network", "wrong_secret", "version"];
    results.iter().map(|result| attempts(node, source, result)).sum()
}

#[test]
fn two_leaves_of_one_local_network_find_each_other() {
    let name = "discovery::two_leaves_of_one_local_network_find_each_other";
    if !namespace::inside(name, &["--net", "--mount"]) {
        return;
    }
    nats::build();
    nats::nat(41, Nat::Restricted);
    let bed = Bed::new();
    bed.write(&[("share/A hello from anna.txt", b"hello"), ("secret", b"nobody guesses this one")]);
    let (share, secret) = (bed.path("share"), bed.path("secret"));
    let hosts = [("anna", 2), ("ben", 3), ("carl", 4), ("dora", 5)];
    for (name, number) in hosts {
        nats::host(name, 41, number);
    }
    let private = ["--network-secret-file", secret.to_str().unwrap()];
    let start = |name: &str, network: &str, more: &[&str]| {
        let options = ["--lan", "--network", network, "--listen", "0.0.0.0:7780"];
        Daemon::start_in(Some(name), Program::Leaf, &bed.path(name), &[&options[..], more].concat())
    };
    let anna = [&private[..], &["--volunteer", "always", "--share", share.to_str().unwrap()]].concat();
    let anna = start("anna", "one", &anna);
    let carl = start("carl", "other", &["--volunteer", "never"]);
    let dora = start("dora", "one", &["--volunteer", "never"]);
    let ben = start("ben", "one", &[&private[..], &["--volunteer", "never"]].concat());
    eventually("the two have met", || ben.homes() == [anna.peer()]);
    ben.finds(&["hello"], &["A hello from anna.txt"]);
    assert!(attempts(&ben, "lan", "ok") + attempts(&ben, "lan", "refused") > 0, "{}", ben.log());
    for (other, why) in [(&carl, "another network"), (&dora, "no secret")] {
        eventually("it has looked around", || attempts(other, "lan", "empty") > 0);
        assert_eq!(dials(other, "lan"), 0, "{why}");
    }
    assert!(dials(&anna, "lan") <= 1 && dials(&ben, "lan") <= 1, "an address once an hour");
}

#[test]
fn a_leaf_finds_an_ultrapeer_by_the_dht_alone_as_soon_as_it_may() {
    let table = Testnet::builder(10).bind_address(Ipv4Addr::LOCALHOST).build().unwrap();
    let bed = Bed::new();
    let bootstrap = format!("dht_bootstrap = {:?}\n", table.bootstrap);
    bed.write(&[
        ("u/ultrapeer.toml", format!("{bootstrap}dht = true\n").as_bytes()),
        ("leaf/leaf.toml", format!("{bootstrap}dht = false\n").as_bytes()),
        ("share/a song.mp3", b"la la"),
    ]);
    let founder = bed.founder("u");
    let share = bed.path("share");
    let leaf = Daemon::start(Program::Leaf, &bed.path("leaf"), &["--share", share.to_str().unwrap()]);
    assert!(leaf.homes().is_empty());
    assert_eq!(leaf.asks("PATCH config", r#"{"dht": true}"#).status, 200);
    eventually("the leaf has found it", || leaf.homes() == [founder.peer()]);
    leaf.finds(&["song"], &["a song.mp3"]);
    assert_eq!(attempts(&leaf, "dht", "ok"), 1);
}

#[test]
fn all_addresses_of_a_name_are_tried() {
    let name = "discovery::all_addresses_of_a_name_are_tried";
    if !namespace::inside(name, &["--net", "--mount"]) {
        return;
    }
    namespace::system(&["ip", "link", "set", "lo", "up"]);
    let bed = Bed::new();
    bed.write(&[("hosts", b"127.0.0.7 nodes.test\n127.0.0.8 nodes.test\n127.0.0.9 nodes.test\n")]);
    namespace::system(&["mount", "--bind", bed.path("hosts").to_str().unwrap(), "/etc/hosts"]);
    let founder = bed.ultrapeer("u", &["--founder", "--listen", "127.0.0.8:7780"]);
    for (name, file) in [("leaf", "leaf.toml"), ("other", "ultrapeer.toml")] {
        bed.write(&[(&format!("{name}/{file}"), b"dns = [\"nodes.test\"]\n")]);
    }
    let leaf = Daemon::start(Program::Leaf, &bed.path("leaf"), &[]);
    eventually("the leaf has found it", || leaf.homes() == [founder.peer()]);
    assert_eq!((attempts(&leaf, "dns", "ok"), attempts(&leaf, "config", "ok")), (1, 0));
    let other = bed.ultrapeer("other", &[]);
    eventually("the ultrapeer was let in", || other.status()["ultrapeers"] == 2);
    assert!(attempts(&other, "dns", "ok") > 0);
}

#[test]
fn where_ultrapeers_were_looked_for_and_what_came_of_it_is_counted() {
    let bed = Bed::new();
    bed.write(&[("secret", b"nobody guesses this one")]);
    let founder = bed.ultrapeer("u0", &["--founder"]);
    let anna = bed.leaf("anna", &founder, &[]);
    anna.settled(1, 0);
    // A leaf names the ultrapeers that it knows; after a restart that is remembered.
    let ben = bed.leaf("ben", &anna, &[]);
    ben.settled(1, 0);
    assert!(attempts(&ben, "peer", "ok") > 0, "{}", ben.log());
    assert!(ben.terminate(std::time::Duration::from_secs(20)).success());
    let ben = Daemon::start(Program::Leaf, &bed.path("ben"), &[]);
    ben.settled(1, 0);
    assert!(attempts(&ben, "cache", "ok") > 0, "{}", ben.log());
    let second = bed.ultrapeer("u1", &["--join", &founder.quic()]);
    eventually("it is let in", || second.status()["ultrapeers"] == 2);
    assert!(second.terminate(std::time::Duration::from_secs(30)).success());
    let second = bed.ultrapeer("u1", &[]);
    eventually("it is let in again", || second.status()["ultrapeers"] == 2);
    assert!(attempts(&second, "cache", "ok") > 0, "{}", second.log());

    let secret = bed.path("secret");
    let hole = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let hole = hole.local_addr().unwrap().to_string();
    for (name, result, join, options) in [
        ("other", "wrong_network", founder.quic(), vec!["--network", "other"]),
        ("secretive", "wrong_secret", founder.quic(), vec!["--network-secret-file", secret.to_str().unwrap()]),
        ("lost", "timeout", hole, Vec::new()),
    ] {
        let options = [&["--join", &join][..], &options].concat();
        let leaf = Daemon::start(Program::Leaf, &bed.path(name), &options);
        eventually(result, || attempts(&leaf, "config", result) > 0);
    }
}
