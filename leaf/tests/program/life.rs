//! The life of a daemon as systemd and Prometheus see it.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    namespace,
    support::{Bed, Daemon, Program, bytes, content_of, eventually, list, promtool, text, within},
};

#[test]
fn it_is_ready_when_attached_and_ends_in_order() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    let ready = &leaf.ready;
    assert_eq!(
        (&ready["event"], &ready["role"], &ready["network"]),
        (&"ready".into(), &"leaf".into(), &"public".into())
    );
    eventually("/readyz is 200", || leaf.probe("/readyz").0 == 200);
    assert_eq!(leaf.homes(), [founder.peer()]);
    assert_eq!(leaf.probe("/healthz").0, 200);
    assert_eq!(leaf.problems(), [""; 0]);

    let api = leaf.data().join("api.json");
    assert!(api.exists());
    assert_eq!(leaf.terminate(Duration::from_secs(5)).code(), Some(0));
    assert!(!api.exists());
    eventually("its home has forgotten it", || founder.status()["ultrapeer"]["leaves"] == 0);
}

#[test]
fn without_its_only_ultrapeer_it_is_not_ready_and_comes_back() {
    let bed = Bed::new();
    bed.write(&[("one/pearl.txt", b"white")]);
    let founder = bed.founder("u0");
    let quic = founder.quic();
    let leaf = bed.sharing("leaf", &founder, "one", &[]);
    leaf.settled(1, 1);
    founder.kill();
    // Whoever asks it notices that it is silent.
    eventually("/readyz is 503", || {
        leaf.run(&["search", "--timeout", "1", "pearl"]);
        leaf.probe("/readyz").0 == 503
    });
    assert_eq!(leaf.probe("/healthz").0, 200);
    assert!(leaf.problems().contains(&"no_ultrapeer".to_owned()));
    let _again = bed.ultrapeer("u0", &["--founder", "--listen", &quic]);
    leaf.settled(1, 1);
    leaf.finds(&["pearl"], &["pearl.txt"]);
}

#[test]
fn prometheus_accepts_the_metrics_and_they_move() {
    let bed = Bed::new();
    bed.write(&[("one/pearl.txt", b"white")]);
    let founder = bed.founder("u0");
    let leaf = bed.sharing("leaf", &founder, "one", &[]);
    leaf.settled(1, 1);
    leaf.finds(&["pearl"], &["pearl.txt"]);
    let moved = [
        "quictrack_homes 1",
        "quictrack_ready 1",
        "quictrack_shared_files 1",
        "quictrack_shared_bytes 5",
        r#"quictrack_role{role="leaf"} 1"#,
        r#"quictrack_searches_total{result="empty"} 0"#,
    ];
    for line in moved {
        eventually(line, || leaf.probe("/metrics").1.lines().any(|have| have == line));
    }
    for series in [
        "quictrack_catalog_sent_bytes_total",
        "quictrack_handshake_duration_seconds_count{direction=\"out\"}",
        "quictrack_http_request_duration_seconds_count",
    ] {
        assert!(leaf.counted(series) > 0, "{series}");
    }
    promtool(&leaf.probe("/metrics").1);
}

#[test]
fn a_leaf_moves_to_another_port_while_it_runs() {
    let bed = Bed::new();
    bed.write(&[
        ("pool/one.txt", b"one"),
        ("pool/two.txt", b"two"),
        ("source/leaf.toml", b"listen = \"127.0.0.1:0\"\n"),
    ]);
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &[]);
    source.settled(1, 2);
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.finds(&["txt"], &["one.txt", "two.txt"]);
    leaf.lines(&["get", &content_of(b"one")]);

    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let answer = source.asks("PATCH config", &format!(r#"{{"listen":"{free}"}}"#));
    assert_eq!(answer.status, 200, "{answer:?}");
    let changed = answer.json();
    let option = list(&changed["items"]).first().unwrap_or_else(|| panic!("{changed}"));
    assert_eq!((text(&option["key"]), text(&option["value"]), text(&option["origin"])), ("listen", &*free, "settings"));
    assert_eq!(option["restart"], false);
    eventually("it listens there", || source.status()["listen"] == free.as_str());
    // Its homes see it at the new address, and so does who fetches from it now.
    eventually("its home sees it there", || source.status()["observed"][0] == free.as_str());
    let second = bed.leaf("second", &founder, &[]);
    second.finds(&["two"], &["two.txt"]);
    second.lines(&["get", &content_of(b"two")]);
    source.settled(1, 2);

    // An address that is taken is refused, and nothing changes.
    let taken = source.asks("PATCH config", &format!(r#"{{"listen":"{}"}}"#, leaf.quic()));
    assert_eq!((taken.status, text(&taken.json()["error"]["code"])), (409, "conflict"));
    let options = source.api("config?limit=1000");
    let listen = list(&options["items"]).iter().find(|option| option["key"] == "listen").unwrap();
    assert_eq!((text(&listen["value"]), &source.status()["listen"]), (&*free, &free.as_str().into()));
    // What the command line holds is not changed over the local HTTP.
    let held = leaf.asks("PATCH config", &format!(r#"{{"listen":"{free}"}}"#));
    assert_eq!((held.status, text(&held.json()["error"]["code"])), (409, "conflict"));
}

#[test]
fn what_a_file_says_counts_as_soon_as_it_changes() {
    let bed = Bed::new();
    bed.write(&[("bans.txt", b"192.0.2.0/24\n"), ("blocks.txt", content_of(b"red").as_bytes())]);
    for (program, name, own) in [
        (Program::Ultrapeer, "u0/ultrapeer.toml", ""),
        (Program::Leaf, "leaf/leaf.toml", "upload_limit = \"50kB\"\nupload_slots = 2\npeer_quota = \"1GB\"\n"),
    ] {
        bed.write(&[(name, b"listen = \"127.0.0.1:0\"\nlog = \"info\"\n")]);
        let folder = bed.path(name.split('/').next().unwrap());
        let options: &[&str] = if program == Program::Ultrapeer { &["--founder"] } else { &[] };
        let daemon = Daemon::start(program, &folder, options);
        assert!(!daemon.log().contains("TRACE"), "{}", daemon.log());
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let file = format!(
            "listen = \"{free}\"\nlog = \"trace\"\nmax_leaves = 7\nmemory = \"64MiB\"\nquery_rate = 5\nquery_burst = 6\n\
             relay_circuits = 3\nrelay_rate = \"1MB\"\nban_list = [{:?}]\nblock_list = [{:?}]\nnetwork = \"other\"\n{own}",
            bed.path("bans.txt"),
            bed.path("blocks.txt"),
        );
        bed.write(&[(name, file.as_bytes())]);
        eventually("it listens there", || daemon.status()["listen"] == free.as_str());
        let mut wanted = vec![
            ("max_leaves", "7"),
            ("memory", "\"64MiB\""),
            ("query_rate", "5"),
            ("query_burst", "6"),
            ("relay_circuits", "3"),
        ];
        if program == Program::Leaf {
            wanted.extend([("upload_limit", "\"50kB\""), ("upload_slots", "2"), ("peer_quota", "\"1GB\"")]);
        } else {
            eventually("it takes so many", || daemon.status()["ultrapeer"]["max_leaves"] == 7);
        }
        let options = daemon.api("config?limit=1000");
        for (key, value) in wanted {
            let row = list(&options["items"]).iter().find(|row| row["key"] == key).unwrap();
            assert!(row["value"].to_string().starts_with(value), "{row}");
            assert_eq!((&row["origin"], &row["restart"]), (&"file".into(), &false.into()), "{row}");
        }
        eventually("both lists are in force", || daemon.lines(&["bans"]).len() == 2);
        eventually("the log tells more", || daemon.log().contains("TRACE"));
        let restart = daemon.log().lines().any(|line| line.contains("after a restart") && line.contains("network"));
        assert!(restart, "{}", daemon.log());
        assert_eq!(daemon.status()["network"], "public");
        // A file that is wrong changes nothing, and says where.
        bed.write(&[(name, b"max_leaves = 8\nlisten = 5\n")]);
        eventually("it is told", || daemon.log().contains("the configuration stays as it was"));
        assert!(daemon.log().contains(&format!("{}:2", name.split('/').next_back().unwrap())), "{}", daemon.log());
        assert_eq!(daemon.status()["listen"], free.as_str());
        // What it does not say any more is as it was by default.
        bed.write(&[(name, b"log = \"warn\"\nlisten = \"127.0.0.1:0\"\n")]);
        eventually("the bans are gone", || daemon.lines(&["bans"]).is_empty());
    }
}

/// Time in which others let in a node that is at another address now: they are asked every ten seconds. With a margin.
const VOTED_AGAIN: Duration = Duration::from_secs(90);

/// The threads of a daemon that give way to its others: those that hash.
fn hashing_threads(daemon: &Daemon) -> usize {
    let process = format!("/proc/{}", daemon.ready["pid"]);
    let nice = |folder: &Path| -> Option<i64> {
        // The name, which comes first, may have spaces.
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(16)?.parse().ok()
    };
    let usual = nice(Path::new(&process));
    let threads = fs::read_dir(format!("{process}/task")).unwrap();
    threads.filter(|thread| nice(&thread.as_ref().unwrap().path()) > usual).count()
}

#[test]
fn schedules_scans_and_names_change_while_the_daemon_runs() {
    let bed = Bed::new();
    let files = ["one", "two"].map(|name| (format!("pool/{name}.bin"), bytes(name, 4 << 20)));
    bed.write(&files.each_ref().map(|(name, data)| (name.as_str(), data.as_slice())));
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &[]);
    source.settled(1, 2);
    // Nobody told this one whom to join.
    let leaf = Daemon::start(Program::Leaf, &bed.path("leaf"), &[]);
    let set = |daemon: &Daemon, settings: Value| {
        let answer = daemon.asks("PATCH config", &settings.to_string());
        assert_eq!(answer.status, 200, "{settings}: {answer:?}");
    };
    assert!(leaf.homes().is_empty());
    set(&leaf, json!({ "dns": [founder.quic().replace("127.0.0.1", "localhost")] }));
    eventually("the name leads into the network", || leaf.homes() == [founder.peer()]);
    leaf.finds(&["bin"], &["one.bin", "two.bin"]);

    for ((_, data), (daemon, key)) in files.iter().zip([(&source, "upload_schedule"), (&leaf, "download_schedule")]) {
        set(daemon, json!({ key: ["daily 00:00-24:00 100kB"] }));
        let get = leaf.start_command(&["get", &content_of(data)]);
        get.says("progress");
        let slow = leaf.lines(&["downloads"]).into_iter().find(|job| job["content"] == content_of(data).as_str());
        assert_eq!(slow.unwrap()["state"], "active", "{key} holds it back");
        set(daemon, json!({ key: null }));
        assert_eq!(get.end().code, Some(0), "{key}");
    }

    let scans = || source.counted("quictrack_scan_duration_seconds_count");
    let before = scans();
    set(&source, json!({ "rescan_interval": "1s" }));
    eventually("it scans again and again", || scans() >= before + 2);

    set(&leaf, json!({ "hash_threads": 3 }));
    bed.write(&[("huge/zeros.bin", b"")]);
    // It takes no room, and longer to hash than this test runs.
    fs::File::options().write(true).open(bed.path("huge/zeros.bin")).unwrap().set_len(1 << 40).unwrap();
    leaf.lines(&["shares", "add", bed.path("huge").to_str().unwrap()]);
    eventually("as many threads hash as were set", || hashing_threads(&leaf) == 3);
}

#[test]
fn another_address_is_announced_while_the_daemon_runs() {
    if !namespace::inside("life::another_address_is_announced_while_the_daemon_runs", &["--net"]) {
        return;
    }
    namespace::system(&["ip", "link", "set", "lo", "up"]);
    let bed = Bed::new();
    let founder = bed.ultrapeer("u0", &["--founder", "--listen", "127.0.0.1:7780"]);
    let options = ["--listen", "0.0.0.0:7790", "--join", "127.0.0.1:7780"];
    let second = bed.ultrapeer("u1", &options);
    let leaf = bed.leaf("leaf", &founder, &["--listen", "0.0.0.0:7791", "--volunteer", "always"]);
    for (daemon, port) in [(&second, 7790), (&leaf, 7791)] {
        let seen = |address: &str| {
            let wanted = format!("{address}:{port}");
            let known = founder.lines(&["peers"]);
            known
                .iter()
                .any(|peer| peer["peer"] == daemon.peer() && peer["role"] == "ultrapeer" && peer["address"] == *wanted)
        };
        let serves = |address: &str| within(VOTED_AGAIN, address, || seen(address).then_some(()));
        serves("127.0.0.1");
        let answer = daemon.asks("PATCH config", &json!({ "advertise": format!("127.0.0.12:{port}") }).to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        serves("127.0.0.12");
    }
}
