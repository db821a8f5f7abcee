//! Joining, searching, and what happens when ultrapeers and networks are not as one wishes.

use std::{fs, time::Duration};

use crate::{
    namespace,
    support::{Bed, Daemon, Program, acquainted, awaited, content_of, eventually, list, number, text, within},
};

/// Time within which leaves and ultrapeers notice that an ultrapeer died.
const NOTICED: Duration = Duration::from_secs(15);

#[test]
fn every_leaf_finds_every_file_whoever_it_joined_through() {
    let bed = Bed::new();
    let files: [(&str, &[u8]); 6] = [
        ("one/Nebula/first light.txt", b"light of the first"),
        ("one/second light.md", b"light of the second"),
        ("two/light bulb.txt", b"light of the third"),
        ("two/same light.txt", b"the same"),
        ("three/same light.txt", b"the same"),
        ("three/dark.txt", b"no match"),
    ];
    bed.write(&files);
    let first = bed.founder("u0");
    let second = bed.ultrapeer("u1", &["--join", &first.quic()]);
    let one = bed.sharing("one-leaf", &first, "one", &[]);
    let two = bed.sharing("two-leaf", &second, "two", &[]);
    // A leaf names the ultrapeers that it knows.
    let three = bed.sharing("three-leaf", &one, "three", &[]);
    let nothing = bed.leaf("nothing-leaf", &first, &[]);
    for (leaf, files) in [(&one, 2), (&two, 2), (&three, 2), (&nothing, 0)] {
        leaf.settled(2, files);
    }
    let share = two.lines(&["shares"]).remove(0);
    assert_eq!((&share["type"], &share["name"], &share["state"]), (&"share".into(), &"two".into(), &"watching".into()));
    assert_eq!((&share["files"], &share["pending_files"]), (&2.into(), &0.into()));
    assert_eq!(number(&share["bytes"]), 26);

    for leaf in [&one, &two, &three, &nothing] {
        let found = leaf.finds(&["light"], &["first light.txt", "light bulb.txt", "same light.txt", "second light.md"]);
        for hit in &found.hits {
            let path = text(&hit["path"]);
            let bytes = files.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes);
            let bytes = bytes.unwrap_or_else(|| panic!("{path} is no file"));
            assert_eq!(text(&hit["content"]), content_of(bytes));
            assert_eq!(number(&hit["size"]), bytes.len() as u64);
            let is_shared_twice = text(&hit["name"]) == "same light.txt";
            assert_eq!(number(&hit["sources"]), if is_shared_twice { 2 } else { 1 });
        }
        assert_eq!(found.summary["stopped"], "exhausted");
        assert_eq!(found.summary["leaves_covered"], 4);
        assert_eq!(found.summary["leaves_total"], 4);
    }
    // Folders below the share are searched too, and filters narrow.
    nothing.finds(&["nebula", "ext:txt"], &["first light.txt"]);
    nothing.finds(&["light", "-same", "ext:txt"], &["first light.txt", "light bulb.txt"]);
    let mine = one.finds(&["second"], &["second light.md"]);
    assert_eq!(mine.hits[0]["have"], "yes");
}

#[test]
fn a_killed_ultrapeer_takes_nothing_with_it_and_is_rejoined() {
    let bed = Bed::new();
    bed.write(&[("one/alpha song.txt", b"alpha"), ("two/beta song.txt", b"beta")]);
    let first = bed.founder("u0");
    let second = bed.ultrapeer("u1", &["--join", &first.quic()]);
    let third = bed.ultrapeer("u2", &["--join", &first.quic()]);
    let one = bed.sharing("one-leaf", &first, "one", &[]);
    let two = bed.sharing("two-leaf", &third, "two", &[]);
    one.settled(3, 1);
    two.settled(3, 1);
    let names = ["alpha song.txt", "beta song.txt"];
    one.finds(&["song"], &names);

    let killed = second.peer().to_owned();
    eventually("ultrapeers are kept on disk", || second.data().join("ultrapeers").exists());
    second.kill();
    for leaf in [&one, &two] {
        // Nobody has noticed yet, and nothing is missing.
        assert_eq!(leaf.search(&["song"]).names(), names);
    }
    for leaf in [&one, &two] {
        within(NOTICED, "the dead home is gone", || {
            assert_eq!(leaf.search(&["song"]).names(), names);
            let homes = leaf.homes();
            (homes.len() == 2 && !homes.contains(&killed)).then_some(())
        });
        leaf.finds(&["song"], &names);
    }

    // It remembers those whom it served with.
    let again = bed.ultrapeer("u1", &[]);
    assert_eq!(again.peer(), killed);
    eventually("it is let in again", || again.status()["ultrapeer"]["state"] == "admitted");
    for leaf in [&one, &two] {
        eventually("it is a home again", || leaf.homes().contains(&killed));
        leaf.settled(3, 1);
        leaf.finds(&["song"], &names);
    }
}

/// A third of nine ultrapeers is killed while leaves search: every leaf keeps a home, so nothing is missed at any time,
/// whatever a search says of its completeness, and soon it says that it is complete again.
#[test]
fn a_third_of_all_ultrapeers_is_killed_during_searches() {
    const LEAVES: usize = 4;
    let bed = Bed::new();
    let names: Vec<_> = (0..LEAVES).map(|number| format!("song {number}.txt")).collect();
    for (number, name) in names.iter().enumerate() {
        bed.write(&[(&format!("share {number}/{name}"), name.as_bytes())]);
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let founder = bed.founder("u0");
    let mut ultrapeers: Vec<_> =
        (1..9).map(|number| bed.ultrapeer(&format!("u{number}"), &["--join", &founder.quic()])).collect();
    ultrapeers.push(founder);
    let share = |number| bed.sharing(&format!("leaf {number}"), &ultrapeers[number], &format!("share {number}"), &[]);
    let leaves: Vec<_> = (0..LEAVES).map(share).collect();
    for leaf in &leaves {
        leaf.settled(3, 1);
        leaf.finds(&["song"], &names);
    }
    within(NOTICED, "nine ultrapeers that know each other", || {
        (leaves[0].finds(&["song"], &names).summary["ultrapeers_total"] == 9).then_some(())
    });

    let homes: Vec<_> = leaves.iter().map(Daemon::homes).collect();
    let mut killed: Vec<String> = Vec::new();
    // Those that are homes of most leaves first.
    ultrapeers.sort_by_key(|ultrapeer| homes.iter().filter(|homes| homes.contains(&ultrapeer.peer().into())).count());
    let mut survivors = Vec::new();
    while let Some(ultrapeer) = ultrapeers.pop() {
        let peer = ultrapeer.peer().to_owned();
        let is_last = |homes: &Vec<String>| homes.iter().all(|home| *home == peer || killed.contains(home));
        if killed.len() == 3 || homes.iter().any(is_last) {
            survivors.push(ultrapeer);
        } else {
            killed.push(peer);
            ultrapeer.kill();
            for leaf in &leaves {
                assert_eq!(leaf.search(&["song"]).names(), names);
            }
        }
    }
    assert_eq!((killed.len(), survivors.len()), (3, 6));
    for leaf in &leaves {
        within(NOTICED, "three living homes, and a complete search", || {
            let found = leaf.search(&["song"]);
            assert_eq!(found.names(), names);
            let homes = leaf.homes();
            let whole = homes.len() == 3 && !homes.iter().any(|home| killed.contains(home));
            (whole && found.is_complete()).then_some(())
        });
        leaf.settled(3, 1);
    }
    let lost = |homes: &&Vec<String>| homes.iter().any(|home| killed.contains(home));
    let hit = homes.iter().position(|homes| lost(&homes)).expect("some leaf has lost a home");
    assert!(leaves[hit].counted("quictrack_home_switches_total{reason=\"lost\"}") > 0);
    assert!(leaves[hit].counted("quictrack_failover_seconds_count") > 0);

    // One that ends in order waits for its leaves, which go where there is room first.
    let ending = survivors.iter().position(|ultrapeer| leaves[0].homes().contains(&ultrapeer.peer().into()));
    let ending = survivors.swap_remove(ending.expect("a home of the first leaf"));
    let peer = ending.peer().to_owned();
    assert_eq!(ending.terminate(NOTICED).code(), Some(0));
    let homes = leaves[0].homes();
    assert!(homes.len() == 3 && !homes.contains(&peer), "{homes:?}");
    assert_eq!(leaves[0].counted("quictrack_home_switches_total{reason=\"drained\"}"), 1);
    for leaf in &leaves {
        leaf.finds(&["song"], &names);
    }
}

#[test]
fn only_who_knows_the_secret_joins_a_private_network() {
    let bed = Bed::new();
    bed.write(&[("secret", b"open sesame\n"), ("other-secret", b"open barley"), ("one/treasure.txt", b"gold")]);
    let (secret, other) = (bed.path("secret"), bed.path("other-secret"));
    let private = ["--network", "cave", "--network-secret-file", secret.to_str().unwrap_or_default()];
    let founder = bed.ultrapeer("u0", &[&["--founder"], &private[..]].concat());
    let insider = bed.sharing("inside", &founder, "one", &private);
    insider.settled(1, 1);
    insider.finds(&["treasure"], &["treasure.txt"]);

    let guessing = ["--network", "cave", "--network-secret-file", other.to_str().unwrap_or_default()];
    let guesser = bed.leaf("guesser", &founder, &guessing);
    let outsider = bed.leaf("outsider", &founder, &["--network", "hut"]);
    for (leaf, code) in [(&guesser, "wrong_secret"), (&outsider, "wrong_network")] {
        eventually(code, || leaf.problems().iter().any(|problem| problem == code));
        assert_eq!(leaf.probe("/readyz").0, 503);
        assert!(list(&leaf.status()["homes"]).is_empty());
        leaf.run(&["search", "--timeout", "1", "treasure"]).error(1, "no_ultrapeer");
    }
    // It is let in as soon as it knows.
    assert_eq!(guesser.terminate(Duration::from_secs(5)).code(), Some(0));
    fs::copy(&secret, &other).expect("the right secret is copied");
    let knowing = bed.leaf("guesser", &founder, &guessing);
    knowing.settled(1, 0);
    knowing.finds(&["treasure"], &["treasure.txt"]);
}

#[test]
fn the_demonstration_searches_and_downloads() {
    let bed = Bed::new();
    bed.write(&[("mine/a note.txt", b"of mine")]);
    let mine = bed.path("mine");
    let options = ["demo", "--once", "--json", "--share", mine.to_str().unwrap_or_default()];
    let ended = Program::Leaf.run(&bed.path("unused"), &options);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.lines();
    let types: Vec<_> = lines.iter().map(|line| text(&line["type"])).collect();
    assert_eq!(types[..2], ["hit", "summary"]);
    assert_eq!(types.last(), Some(&"done"));
    assert!(types[2..types.len() - 1].iter().all(|name| *name == "progress"), "{types:?}");
    assert!(types.contains(&"progress"), "{types:?}");
    assert_eq!(lines[0]["sources"], 3);
    assert_eq!(lines[1]["complete"], true);
    let done = &lines[lines.len() - 1];
    assert_eq!(done["content"], lines[0]["content"]);
    assert_eq!((number(&done["bytes"]), list(&done["sources"]).len()), (32 << 20, 3));
    assert_eq!(crate::support::sources_of(done).values().sum::<u64>(), 32 << 20);
    assert!(!bed.path("unused").exists(), "the configured data folder is left alone");
}

/// Time within which two halves of a network that can reach each other again are one: they look for each other once a
/// minute.
const HEALED: Duration = Duration::from_mins(4);

/// A network is cut in two, by the routes of a network namespace: each half goes on with what it has and says so, and
/// when the cut is mended they are one again by themselves.
#[test]
fn a_partition_is_survived_on_both_sides_and_heals_by_itself() {
    if !namespace::inside("network::a_partition_is_survived_on_both_sides_and_heals_by_itself", &["--net"]) {
        return;
    }
    namespace::system(&["ip", "link", "set", "lo", "up"]);
    for side in 1..=2 {
        for host in 1..=3 {
            namespace::system(&["ip", "address", "add", &format!("10.77.{side}.{host}/32"), "dev", "lo"]);
        }
    }
    // Rules of ours come before the one for addresses of this machine.
    namespace::system(&["ip", "rule", "add", "pref", "100", "lookup", "local"]);
    namespace::system(&["ip", "rule", "del", "pref", "0"]);
    let between = |act: &str| {
        for (from, to) in [(1, 2), (2, 1)] {
            let (from, to) = (format!("10.77.{from}.0/24"), format!("10.77.{to}.0/24"));
            namespace::system(&["ip", "rule", act, "pref", "50", "from", &from, "to", &to, "blackhole"]);
        }
    };

    let bed = Bed::new();
    bed.write(&[("one/north song.txt", b"north"), ("two/south song.txt", b"south")]);
    let first = bed.ultrapeer("u0", &["--founder", "--listen", "10.77.1.1:7780"]);
    let join = ["--join", "10.77.1.1:7780"];
    let ultrapeer = |name, listen| bed.ultrapeer(name, &[&["--listen", listen], &join[..]].concat());
    let others =
        [ultrapeer("u1", "10.77.1.2:7780"), ultrapeer("u2", "10.77.2.1:7780"), ultrapeer("u3", "10.77.2.2:7780")];
    acquainted(others.iter().chain([&first]));
    let one = bed.sharing("one-leaf", &first, "one", &["--listen", "10.77.1.3:7780"]);
    let two = bed.sharing("two-leaf", &others[1], "two", &["--listen", "10.77.2.3:7780"]);
    for (leaf, own) in [(&one, "one"), (&two, "two")] {
        leaf.settled(3, 1);
        let found = leaf.finds(&["song"], &["north song.txt", "south song.txt"]);
        assert_eq!(found.summary["ultrapeers_total"], 4, "{own}");
    }

    between("add");
    for (leaf, own) in [(&one, "north song.txt"), (&two, "south song.txt")] {
        awaited("a half of two ultrapeers that searches its own", || {
            let found = leaf.search(&["song"]);
            assert!(found.names().contains(&own), "{}", found.summary);
            (found.summary["ultrapeers_total"] == 2 && found.is_complete()).then_some(())
        });
    }

    between("del");
    for leaf in [&one, &two] {
        within(HEALED, "one network again, and all is found in it", || {
            let found = leaf.search(&["song"]);
            let whole = found.names() == ["north song.txt", "south song.txt"] && found.is_complete();
            (whole && found.summary["ultrapeers_total"] == 4).then_some(())
        });
        leaf.settled(3, 1);
    }
}
