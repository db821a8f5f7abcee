//! Transfers between leaves behind NATs: real processes in network namespaces, each pair by the way that it needs.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;

use crate::{
    namespace,
    support::{
        Bed, Daemon, Program, acquainted, awaited, bytes, content_of, eventually, list, looked_for, nats,
        nats::{Forwarder, Nat, address},
        text, within,
    },
};

/// Bytes of each file: over a relay, at its default rate, they take two seconds.
const FILE_BYTES: usize = 400_000;

/// Bytes of a file that takes longer over a relay than it takes until another way is tried.
const LARGE_BYTES: usize = 40_000_000;
/// Time in which a better way is tried, with a margin.
const MOVED_OVER: Duration = Duration::from_secs(90);

/// Ultrapeers and leaves of one network.
struct Internet {
    bed: Bed,
    ultrapeers: Vec<Daemon>,
}

impl Internet {
    /// With two ultrapeers, so that leaves are seen by two.
    fn new() -> Self {
        Self::configured(b"")
    }

    /// The same with settings of the ultrapeers.
    fn configured(settings: &[u8]) -> Self {
        nats::build();
        let bed = Bed::new();
        bed.write(&[("u1/ultrapeer.toml", settings), ("u2/ultrapeer.toml", settings)]);
        let mut ultrapeers: Vec<Daemon> = Vec::new();
        for (number, name) in [(1, "u1"), (2, "u2")] {
            nats::public(name, number);
            let begins = if ultrapeers.is_empty() { vec!["--founder"] } else { vec!["--join", "198.51.1.1:7780"] };
            let options = [&["--network", "bed", "--listen", "0.0.0.0:7780"], &begins[..]].concat();
            ultrapeers.push(Daemon::start_in(Some(name), Program::Ultrapeer, &bed.path(name), &options));
        }
        acquainted(&ultrapeers);
        Self { bed, ultrapeers }
    }

    /// A leaf in the namespace of its name, which shares a file for each of those that want one of it.
    fn leaf(&self, name: &str, askers: &[&str]) -> Daemon {
        self.leaf_with(name, askers, &[])
    }

    /// The same with more options.
    fn leaf_with(&self, name: &str, askers: &[&str], more: &[&str]) -> Daemon {
        for asker in askers {
            self.bed.write(&[(&format!("{name}-share/{name} for {asker}.bin"), &file(name, asker))]);
        }
        let share = self.bed.path(&format!("{name}-share"));
        let join = format!("{}:7780", address(1));
        let options = ["--network", "bed", "--listen", "0.0.0.0:7780", "--join", &join, "--volunteer", "never"];
        let share = ["--share", share.to_str().unwrap()];
        let options = [&options[..], if askers.is_empty() { &[] } else { &share }, more].concat();
        Daemon::start_in(Some(name), Program::Leaf, &self.bed.path(name), &options)
    }
}

/// A NAT's router that can be asked to forward ports.
fn router(nat: u8, folder: &Path, pcp: bool, upnp: bool) -> Forwarder {
    let mut router = nats::forwards(nat, folder, pcp, upnp);
    eventually("the router listens", || router.listens());
    router
}

/// Each is for one download only: whoever has downloaded it would be a source, too.
fn file(name: &str, asker: &str) -> Vec<u8> {
    bytes(&format!("{name} for {asker}"), FILE_BYTES)
}

/// Waits until a leaf knows what is in front of it.
fn knows_itself(leaf: &Daemon, files: usize, reachability: &str) {
    leaf.settled(2, files as u64);
    awaited(&format!("a leaf is {reachability}"), || {
        (text(&leaf.status()["reachability"]) == reachability).then_some(())
    });
}

/// Downloads what the leaf `target` shares for the leaf `name`, and checks the bytes. How the two came together.
fn way(leaf: &Daemon, name: &str, target: &str) -> String {
    let expected = file(target, name);
    let lines = leaf.lines(&["get", &content_of(&expected)]);
    let done = lines.last().unwrap();
    assert_eq!(done["type"], "done", "{lines:?}");
    assert!(std::fs::read(text(&done["path"])).unwrap() == expected, "other bytes");
    let sources = list(&done["sources"]);
    assert_eq!(sources.len(), 1, "{done}");
    text(&sources[0]["via"]).to_owned()
}

/// Who asks, of whom, and how they come together.
const PAIRS: [(&str, &str, &str); 13] = [
    ("home", "open", "direct"),
    ("hard", "open", "direct"),
    ("flat", "cone", "direct"),
    ("home", "brother", "direct"),
    ("open", "home", "push"),
    ("open", "hard", "push"),
    ("cone", "deep", "push"),
    ("home", "flat", "punch"),
    ("deep", "home", "punch"),
    ("lossy", "flat", "punch"),
    ("hard", "home", "relay"),
    ("flat", "harder", "relay"),
    ("harder", "hard", "relay"),
];

#[test]
fn every_pair_comes_together_by_the_way_that_its_nats_leave() {
    let name = "nat::every_pair_comes_together_by_the_way_that_its_nats_leave";
    if !namespace::inside(name, &["--net", "--mount"]) {
        return;
    }
    let internet = Internet::new();
    nats::public("open", 30);
    for (number, kind, name) in [
        (40, Nat::FullCone, "cone"),
        (41, Nat::Restricted, "home"),
        (42, Nat::Restricted, "flat"),
        (43, Nat::Symmetric, "hard"),
        (44, Nat::Symmetric, "harder"),
        (45, Nat::Double, "deep"),
        (46, Nat::Lossy, "lossy"),
    ] {
        nats::nat(number, kind);
        nats::host(name, number, 2);
    }
    nats::host("brother", 41, 3);
    let names = ["open", "cone", "home", "flat", "hard", "harder", "deep", "lossy", "brother"];
    let leaves: BTreeMap<_, _> = names
        .into_iter()
        .map(|name| {
            let askers: Vec<_> = PAIRS.iter().filter(|pair| pair.1 == name).map(|pair| pair.0).collect();
            (name, (internet.leaf(name, &askers), askers.len()))
        })
        .collect();
    for (name, (leaf, files)) in &leaves {
        knows_itself(leaf, *files, if ["open", "cone"].contains(name) { "public" } else { "natted" });
    }
    let leaf = |name| &leaves[name].0;
    let found = leaf("open").finds(&["brother"], &["brother for home.bin"]);
    assert_eq!(found.hits[0]["peers"][0]["reachability"], "natted");
    for (asker, target, expected) in PAIRS {
        assert_eq!(way(leaf(asker), asker, target), expected, "{asker} of {target}: {}", leaf(asker).log());
    }
    for (name, direction, via) in [
        ("home", "in", "direct"),
        ("brother", "out", "direct"),
        ("open", "in", "push"),
        ("deep", "out", "push"),
        ("home", "in", "punch"),
        ("flat", "out", "punch"),
        ("hard", "in", "relay"),
        ("harder", "out", "relay"),
    ] {
        let series = format!("quictrack_transfer_bytes_total{{direction=\"{direction}\",via=\"{via}\"}}");
        assert!(leaf(name).counted(&series) >= FILE_BYTES as u64, "{name}: {series}");
    }
    for via in ["direct", "punch"] {
        assert!(
            leaf("home").counted(&format!("quictrack_transfer_attempts_total{{via=\"{via}\",result=\"ok\"}}")) > 0,
            "{via}"
        );
    }
    let all = |series: &str| internet.ultrapeers.iter().map(|ultrapeer| ultrapeer.counted(series)).sum::<u64>();
    for kind in ["direct", "push", "punch", "relay"] {
        let series = format!("quictrack_introductions_total{{kind=\"{kind}\",result=\"ok\"}}");
        assert!(all(&series) > 0, "{series}");
    }
    let relayed = all("quictrack_relay_bytes_total");
    assert!(relayed > 3 * FILE_BYTES as u64, "{relayed}");
    assert_eq!(leaf("home").counted("quictrack_reachability{state=\"natted\"}"), 1);
}

/// Without a filter of its own a NAT gives the port of a host to whoever comes from outside first. Then no punch works, and
/// a relay stands in; who is first there is a matter of chance.
#[test]
fn nats_that_take_ports_away_keep_nobody_apart() {
    if !namespace::inside("nat::nats_that_take_ports_away_keep_nobody_apart", &["--net", "--mount"]) {
        return;
    }
    let internet = Internet::new();
    for (number, name) in [(41, "loose"), (42, "looser")] {
        nats::nat(number, Nat::Unguarded);
        nats::host(name, number, 2);
    }
    let (loose, looser) = (internet.leaf("loose", &["looser"]), internet.leaf("looser", &["loose"]));
    knows_itself(&loose, 1, "natted");
    knows_itself(&looser, 1, "natted");
    for (leaf, name, target) in [(&loose, "loose", "looser"), (&looser, "looser", "loose")] {
        let way = way(leaf, name, target);
        assert!(["punch", "relay"].contains(&&way[..]), "{way}");
    }
}

/// Operators decide whether their ultrapeers relay, while these run.
#[test]
fn nothing_is_relayed_where_the_operators_do_not_want_it_until_they_do() {
    let name = "nat::nothing_is_relayed_where_the_operators_do_not_want_it_until_they_do";
    if !namespace::inside(name, &["--net", "--mount"]) {
        return;
    }
    let internet = Internet::configured(b"relay_circuits = 0\n");
    for (number, kind, name) in [(41, Nat::Restricted, "home"), (42, Nat::Symmetric, "hard")] {
        nats::nat(number, kind);
        nats::host(name, number, 2);
    }
    let (home, hard) = (internet.leaf("home", &[]), internet.leaf("hard", &["home"]));
    knows_itself(&home, 0, "natted");
    knows_itself(&hard, 1, "natted");
    let content = content_of(&file("hard", "home"));
    let given_up = home.run(&["get", "--timeout", "6", &content]);
    assert_eq!(given_up.lines().pop().unwrap()["type"], "failed", "{given_up:?}");
    assert!(home.counted("quictrack_transfer_attempts_total{via=\"relay\",result=\"unreachable\"}") > 0);
    for ultrapeer in &internet.ultrapeers {
        std::fs::write(ultrapeer.data().join("ultrapeer.toml"), "relay_circuits = 1\n").unwrap();
        ultrapeer.signal("HUP");
    }
    assert_eq!(way(&home, "home", "hard"), "relay");
}

/// An ultrapeer hangs while it is to introduce, and dies: another home introduces.
#[test]
fn an_ultrapeer_that_dies_in_the_middle_of_an_introduction_costs_time_only() {
    let name = "nat::an_ultrapeer_that_dies_in_the_middle_of_an_introduction_costs_time_only";
    if !namespace::inside(name, &["--net", "--mount"]) {
        return;
    }
    let mut internet = Internet::new();
    for (number, name) in [(41, "home"), (42, "flat")] {
        nats::nat(number, Nat::Restricted);
        nats::host(name, number, 2);
    }
    let (home, flat) = (internet.leaf("home", &[]), internet.leaf("flat", &["home"]));
    knows_itself(&home, 0, "natted");
    knows_itself(&flat, 1, "natted");
    let content = content_of(&file("flat", "home"));
    // So that the source is known before nobody can be asked.
    home.finds(&["flat"], &["flat for home.bin"]);
    let victim = internet.ultrapeers.remove(0);
    victim.signal("STOP");
    let get = home.start_command(&["get", &content]);
    get.says("progress");
    victim.kill();
    let ended = get.end();
    let done = ended.lines().pop().unwrap();
    assert_eq!((&done["type"], &done["sources"][0]["via"]), (&"done".into(), &"punch".into()), "{ended:?}");
    assert!(std::fs::read(text(&done["path"])).unwrap() == file("flat", "home"), "other bytes");
}

/// Two that reach each other only over a relay move over as soon as there is another way, without losing a byte.
#[test]
fn what_is_relayed_moves_over_as_soon_as_there_is_a_better_way() {
    if !namespace::inside("nat::what_is_relayed_moves_over_as_soon_as_there_is_a_better_way", &["--net", "--mount"]) {
        return;
    }
    let internet = Internet::new();
    for (number, name) in [(41, "home"), (42, "flat")] {
        nats::nat(number, Nat::Restricted);
        nats::host(name, number, 2);
    }
    nats::cut(41, 42, true);
    let large = bytes("large", LARGE_BYTES);
    internet.bed.write(&[("flat-share/large.bin", &large)]);
    let (home, flat) = (internet.leaf("home", &[]), internet.leaf("flat", &["home"]));
    knows_itself(&home, 0, "natted");
    knows_itself(&flat, 2, "natted");
    let get = home.start_command(&["get", &content_of(&large)]);
    let relayed = "quictrack_transfer_bytes_total{direction=\"in\",via=\"relay\"}";
    eventually("bytes are relayed", || home.counted(relayed) > 0);
    assert_eq!(list(&home.download()["sources"])[0]["via"], "relay");
    let circuits = || internet.ultrapeers.iter().map(|up| up.counted("quictrack_relay_circuits")).sum::<u64>();
    assert_eq!(circuits(), 1);
    nats::cut(41, 42, false);
    let punched = "quictrack_transfer_bytes_total{direction=\"in\",via=\"punch\"}";
    within(MOVED_OVER, "bytes come through the NATs", || (home.counted(punched) > 0).then_some(()));
    let ended = get.end();
    let done = ended.lines().pop().unwrap();
    assert_eq!(done["type"], "done", "{ended:?}");
    assert!(std::fs::read(text(&done["path"])).unwrap() == large, "other bytes");
    eventually("nothing is relayed any more", || circuits() == 0);
}

/// Without a daemon it finds out by itself what is in front of it.
#[test]
fn a_doctor_tells_kinds_of_nat_apart() {
    if !namespace::inside("nat::a_doctor_tells_kinds_of_nat_apart", &["--net", "--mount"]) {
        return;
    }
    let internet = Internet::new();
    nats::public("open", 30);
    for (number, kind, name) in [(41, Nat::Restricted, "home"), (42, Nat::Symmetric, "hard")] {
        nats::nat(number, kind);
        nats::host(name, number, 2);
    }
    let configuration = b"network = \"bed\"\nlisten = \"0.0.0.0:7780\"\njoin = [\"198.51.1.1:7780\"]\n";
    for (name, code, nat, hint) in [
        ("open", 0, "there is no NAT", Value::Null),
        ("home", 0, "keeps one port", "forward it on the router".into()),
        ("hard", 1, "another port for each destination", "forward it on the router".into()),
    ] {
        internet.bed.write(&[(&format!("{name}/leaf.toml"), configuration)]);
        let ended = Program::Leaf.run_in(Some(name), &internet.bed.path(name), &["--json", "doctor"]);
        assert_eq!(ended.code, Some(code), "{name}: {ended:?}");
        let checks = ended.lines();
        let check = |wanted: &str| checks.iter().find(|check| check["name"] == wanted).unwrap();
        assert!(text(&check("nat")["message"]).contains(nat), "{name}: {ended:?}");
        let told = &check("reachable")["hint"];
        assert!(told == &hint || text(told).contains(text(&hint)), "{name}: {told}");
    }
}

/// Time in which a leaf that was not reached is dialled again, with a margin.
const DIALLED_AGAIN: Duration = Duration::from_secs(100);

#[test]
fn a_router_that_is_asked_forwards_the_port_and_is_told_when_that_ends() {
    let name = "nat::a_router_that_is_asked_forwards_the_port_and_is_told_when_that_ends";
    if !namespace::inside(name, &["--net", "--mount"]) {
        return;
    }
    let internet = Internet::new();
    let folder = internet.bed.path("");
    for (number, kind, name) in [(41, Nat::Asked, "pcp"), (42, Nat::Asked, "upnp"), (43, Nat::Restricted, "home")] {
        nats::nat(number, kind);
        nats::host(name, number, 2);
    }
    let routers = [router(41, &folder, true, false), router(42, &folder, false, true)];
    let leaves = ["pcp", "upnp"].map(|name| internet.leaf_with(name, &["home"], &["--portmap"]));
    let home = internet.leaf("home", &[]);
    for ((leaf, router), name) in leaves.into_iter().zip(&routers).zip(["pcp", "upnp"]) {
        leaf.settled(2, 1);
        within(DIALLED_AGAIN, name, || (text(&leaf.status()["reachability"]) == "mapped").then_some(()));
        assert!(router.rules().contains("7780"), "{}", router.rules());
        assert_eq!(way(&home, "home", name), "direct", "{}", home.log());
        assert!(leaf.terminate(Duration::from_secs(20)).success());
        assert!(!router.rules().contains("7780"), "it was given back: {}", router.rules());
    }
}

#[test]
fn an_ultrapeer_behind_a_router_that_is_asked_is_let_in() {
    let name = "nat::an_ultrapeer_behind_a_router_that_is_asked_is_let_in";
    if !namespace::inside(name, &["--net", "--mount"]) {
        return;
    }
    let internet = Internet::new();
    for (number, kind, name) in [(41, Nat::Asked, "u3"), (43, Nat::Restricted, "home")] {
        nats::nat(number, kind);
        nats::host(name, number, 2);
    }
    let router = router(41, &internet.bed.path(""), true, false);
    let join = format!("{}:7780", address(1));
    let options = ["--network", "bed", "--listen", "0.0.0.0:7780", "--join", &join, "--portmap"];
    let behind = Daemon::start_in(Some("u3"), Program::Ultrapeer, &internet.bed.path("u3"), &options);
    within(DIALLED_AGAIN, "it is let in", || (behind.status()["ultrapeer"]["state"] == "admitted").then_some(()));
    let says = || (behind.counted("quictrack_reachability{state=\"mapped\"}") == 1).then_some(());
    looked_for(DIALLED_AGAIN, says)
        .unwrap_or_else(|| panic!("{}, {}: {}", behind.status(), router.rules(), behind.log()));
    assert_eq!(behind.status()["reachability"], "mapped");
    assert!(router.rules().contains("7780"), "{}", router.rules());
    let home = internet.leaf("home", &[]);
    within(DIALLED_AGAIN, "a leaf has it as a home", || home.homes().contains(&behind.peer().to_owned()).then_some(()));
    assert!(behind.terminate(Duration::from_secs(40)).success());
    assert!(!router.rules().contains("7780"), "it was given back: {}", router.rules());
}

/// Where a router forwards to a host, by its rules: the public port.
fn forwarded(rules: &str, host: &str) -> Option<u16> {
    let rule = rules.lines().find(|rule| rule.contains(&format!("{host}:7780")))?;
    rule.split_once("dport ")?.1.split(' ').next()?.parse().ok()
}

/// Two behind one router cannot both have the port on which they listen.
#[test]
fn another_port_than_the_own_serves_as_well() {
    let name = "nat::another_port_than_the_own_serves_as_well";
    if !namespace::inside(name, &["--net", "--mount"]) {
        return;
    }
    let internet = Internet::new();
    let folder = internet.bed.path("");
    nats::nat(43, Nat::Restricted);
    nats::host("home", 43, 2);
    let home = internet.leaf("home", &[]);
    let mut sides = Vec::new();
    for (number, names, pcp) in [(41, ["pcp", "pcp-two"], true), (42, ["upnp", "upnp-two"], false)] {
        nats::nat(number, Nat::Asked);
        let router = router(number, &folder, pcp, !pcp);
        let leaves = [2, 3].map(|host| {
            let name = names[usize::from(host) - 2];
            nats::host(name, number, host);
            let leaf = internet.leaf_with(name, &["home"], &["--portmap"]);
            let address = format!("192.168.{number}.{host}");
            (leaf, awaited("the router forwards", || forwarded(&router.rules(), &address)))
        });
        assert!(leaves[0].1 == 7780 && leaves[1].1 != 7780, "{}", router.rules());
        sides.push((router, names, leaves));
    }
    for (router, names, leaves) in sides {
        for (name, (leaf, _)) in names.iter().zip(&leaves) {
            leaf.settled(2, 1);
            within(DIALLED_AGAIN, name, || (text(&leaf.status()["reachability"]) == "mapped").then_some(()));
            assert_eq!(way(&home, "home", name), "direct", "{}", home.log());
        }
        for (leaf, _) in leaves {
            assert!(leaf.terminate(Duration::from_secs(20)).success());
        }
        assert!(!router.rules().contains("7780"), "both were given back: {}", router.rules());
    }
}

#[test]
fn a_port_that_a_router_only_says_it_forwards_is_told_to_nobody() {
    let name = "nat::a_port_that_a_router_only_says_it_forwards_is_told_to_nobody";
    if !namespace::inside(name, &["--net", "--mount"]) {
        return;
    }
    let internet = Internet::new();
    for (number, kind) in [(41, Nat::Asked), (43, Nat::Restricted)] {
        nats::nat(number, kind);
    }
    nats::deafen(41);
    let router = router(41, &internet.bed.path(""), true, false);
    for (name, nat, number) in [("one", 41, 2), ("two", 41, 3), ("home", 43, 2)] {
        nats::host(name, nat, number);
    }
    let home = internet.leaf("home", &[]);
    // The second one is given another port.
    let leaves = [("one", 2), ("two", 3)].map(|(name, host)| {
        let leaf = internet.leaf_with(name, &["home"], &["--portmap"]);
        let forwarded = || forwarded(&router.rules(), &format!("192.168.41.{host}"));
        eventually("the router says that it forwards", || forwarded().is_some());
        (name, leaf)
    });
    for (name, leaf) in &leaves {
        leaf.settled(2, 1);
        within(DIALLED_AGAIN, name, || (text(&leaf.status()["reachability"]) == "natted").then_some(()));
        assert_eq!(way(&home, "home", name), "punch", "{}", home.log());
    }
}
