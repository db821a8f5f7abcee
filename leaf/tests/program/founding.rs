//! Leaves that become ultrapeers: alone, by election when there is none, and back again.

use std::{fs, time::Duration};

use crate::support::{Bed, Daemon, Program, content_of, eventually, list, number, of_type, text, within};

/// Time in which leaves that have no ultrapeer must have one of their own: half a minute to look for one, some seconds
/// until all have found it, and as much again because the machine may be busy.
const ELECTED: Duration = Duration::from_secs(90);

/// Time in which a leaf is at a new ultrapeer: one that was asked a moment before it served is asked again after a minute.
const ASKED_AGAIN: Duration = Duration::from_secs(100);

/// Time in which a leaf is invited: a minute in which there are too few, and as much again for what comes after.
const INVITED: Duration = Duration::from_secs(150);

fn state(leaf: &Daemon) -> String {
    leaf.status()["ultrapeer"]["state"].as_str().unwrap_or("none").to_owned()
}

/// Starts a leaf whose configuration says when it serves, so that it can be changed while it runs.
fn volunteer(bed: &Bed, name: &str, when: &str, options: &[&str]) -> Daemon {
    let data = bed.path(name);
    fs::create_dir_all(&data).expect("a data folder");
    let settings = format!("volunteer = \"{when}\"\nlisten = \"127.0.0.1:0\"\n");
    fs::write(data.join("leaf.toml"), settings).expect("a configuration");
    Daemon::start(Program::Leaf, &data, options)
}

fn set(leaf: &Daemon, key: &str, value: &str) {
    let answer = leaf.asks("PATCH config", &format!("{{\"{key}\":\"{value}\"}}"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn gets(leaf: &Daemon, bytes: &[u8]) {
    let done = leaf.lines(&["get", &content_of(bytes)]);
    assert_eq!(number(&of_type(&done, "done")[0]["bytes"]), bytes.len() as u64);
}

/// It serves alone, finds what it shares itself, and is a home for others; told to stop, it hands them over; told to
/// serve again, it is let in.
#[test]
fn a_leaf_that_always_serves_is_a_network_by_itself_and_steps_down_when_it_is_told_to() {
    let bed = Bed::new();
    bed.write(&[("one/alpha song.txt", b"alpha"), ("two/beta song.txt", b"beta")]);
    let share = bed.path("one");
    let one = volunteer(&bed, "a", "always", &["--share", share.to_str().unwrap_or_default()]);
    eventually("it founds a network", || state(&one) == "founder");
    one.settled(1, 1);
    one.finds(&["song"], &["alpha song.txt"]);
    assert_eq!((one.homes(), one.probe("/readyz").0), (vec![one.peer().to_owned()], 200));
    assert!(one.problems().is_empty());

    let two = bed.sharing("b", &one, "two", &["--volunteer", "never"]);
    two.settled(1, 1);
    for leaf in [&one, &two] {
        leaf.finds(&["song"], &["alpha song.txt", "beta song.txt"]);
    }
    gets(&one, b"beta");
    gets(&two, b"alpha");
    let status = one.status();
    assert_eq!((text(&status["role"]), number(&status["ultrapeers"])), ("ultrapeer", 1));
    assert_eq!((text(&status["shard_prefix"]), number(&status["ultrapeer"]["leaves"])), ("", 2));
    let peers = one.lines(&["peers"]);
    let ours: Vec<_> = peers.iter().filter(|peer| peer["peer"] == two.peer() && peer["role"] == "leaf").collect();
    assert!(ours.len() == 1 && ours[0]["state"] == "alive" && peers.iter().all(|peer| peer["peer"] != one.peer()));
    eventually("gauges of both roles", || one.counted("quictrack_leaves") == 2 && one.counted("quictrack_homes") == 1);
    assert_eq!(one.counted("quictrack_role{role=\"ultrapeer\"}"), 1);
    assert_eq!(one.counted("quictrack_role_changes_total{to=\"ultrapeer\",reason=\"founding\"}"), 1);

    let other = bed.ultrapeer("u", &["--join", &one.quic()]);
    one.settled(2, 1);
    two.settled(2, 1);
    set(&one, "volunteer", "never");
    eventually("it is a leaf again", || state(&one) == "none");
    for leaf in [&one, &two] {
        leaf.settled(1, 1);
        assert_eq!(leaf.homes(), [other.peer()]);
        leaf.finds(&["song"], &["alpha song.txt", "beta song.txt"]);
    }
    assert_eq!((text(&one.status()["role"]), one.counted("quictrack_leaves")), ("leaf", 0));
    assert_eq!(one.counted("quictrack_role_changes_total{to=\"leaf\",reason=\"operator\"}"), 1);

    set(&one, "volunteer", "always");
    eventually("it is let in", || state(&one) == "admitted");
    within(ASKED_AGAIN, "both have two homes", || (one.homes().len() + two.homes().len() == 4).then_some(()));
    for leaf in [&one, &two] {
        leaf.settled(2, 1);
        assert_eq!(leaf.finds(&["song"], &["alpha song.txt", "beta song.txt"]).summary["ultrapeers_total"], 2);
    }
    set(&one, "listen", "127.0.0.2:0");
    eventually("it is its own home where it is now", || {
        let status = one.status();
        list(&status["homes"]).iter().any(|home| {
            home["peer"] == one.peer() && text(&home["address"]).starts_with("127.0.0.2:") && home["acknowledged"] == 1
        })
    });
    assert_eq!(one.terminate(Duration::from_secs(40)).code(), Some(0));
    two.finds(&["song"], &["beta song.txt"]);
}

/// Five leaves that serve when needed, and nobody who serves: one of them does, within a minute. It dies without a word,
/// and another one takes its place.
#[test]
fn leaves_without_an_ultrapeer_elect_one_and_another_when_it_dies() {
    let bed = Bed::new();
    let names: Vec<_> = (0..5).map(|number| format!("song {number}.txt")).collect();
    for (number, name) in names.iter().enumerate() {
        bed.write(&[(&format!("share {number}/{name}"), name.as_bytes())]);
    }
    let share = |number: usize| bed.path(&format!("share {number}")).to_string_lossy().into_owned();
    let auto = ["--volunteer", "auto"];
    let first = Daemon::start(Program::Leaf, &bed.path("0"), &[&["--share", &share(0)], &auto[..]].concat());
    let mut leaves: Vec<_> =
        (1..5).map(|number| bed.sharing(&number.to_string(), &first, &format!("share {number}"), &auto)).collect();
    leaves.push(first);
    leaves.rotate_right(1);

    let serving = |leaves: &[Daemon]| leaves.iter().position(|leaf| state(leaf) == "founder");
    let elected = within(ELECTED, "one of them serves", || serving(&leaves));
    let home = leaves[elected].peer().to_owned();
    for leaf in &leaves {
        leaf.settled(1, 1);
        assert_eq!(leaf.homes(), [home.as_str()]);
        let all: Vec<_> = names.iter().map(String::as_str).collect();
        leaf.finds(&["song"], &all);
    }
    assert!(leaves[elected].log().contains("this node founds the network, because no ultrapeer is left"));
    eventually("leaves that would serve are kept on disk", || {
        leaves.iter().filter(|leaf| leaf.peer() != home).all(|leaf| leaf.data().join("volunteers").exists())
    });

    leaves.remove(elected).kill();
    let left: Vec<_> = names.iter().enumerate().filter(|(number, _)| *number != elected).collect();
    let left: Vec<_> = left.into_iter().map(|(_, name)| name.as_str()).collect();
    within(ELECTED, "searches work again", || {
        let ended = leaves[0].run(&["search", "--timeout", "2", "song"]);
        let lines = ended.lines();
        let hits = of_type(&lines, "hit").len();
        (ended.code == Some(0) && hits == left.len()).then_some(())
    });
    let elected = within(ELECTED, "another one serves", || serving(&leaves));
    for leaf in &leaves {
        leaf.settled(1, 1);
        assert_eq!(list(&leaf.status()["homes"])[0]["peer"], leaves[elected].peer());
        leaf.finds(&["song"], &left);
    }
}

/// One ultrapeer is too few for any network, since it may go: after a minute it invites a leaf that serves when needed.
#[test]
fn a_leaf_is_invited_to_serve_when_there_are_too_few_ultrapeers() {
    let bed = Bed::new();
    bed.write(&[("one/alpha song.txt", b"alpha"), ("two/beta song.txt", b"beta")]);
    let founder = bed.founder("u");
    let auto = bed.sharing("a", &founder, "one", &["--volunteer", "auto"]);
    let never = bed.sharing("b", &founder, "two", &["--volunteer", "never"]);
    let told = |name: &str| {
        let status = auto.status();
        list(&status["election"]).iter().find(|row| row["name"] == name).cloned().unwrap_or_default()
    };
    within(INVITED, "it is let in", || (state(&auto) == "admitted").then_some(()));
    assert_eq!(auto.counted("quictrack_role_changes_total{to=\"ultrapeer\",reason=\"demand\"}"), 1);
    assert_eq!((state(&never), text(&auto.status()["reachability"])), ("none".to_owned(), "public"));
    assert_eq!(told("reachable")["met"], true, "{:?}", told("reachable"));
    within(ASKED_AGAIN, "both leaves have two homes", || (auto.homes().len() + never.homes().len() == 4).then_some(()));
    founder.kill();
    for leaf in [&auto, &never] {
        within(ASKED_AGAIN, "the one that is left finds everything", || {
            let lines = leaf.run(&["search", "--timeout", "2", "song"]).lines();
            (of_type(&lines, "hit").len() == 2 && of_type(&lines, "summary")[0]["complete"] == true).then_some(())
        });
    }
}
