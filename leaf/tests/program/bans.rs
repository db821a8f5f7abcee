//! Bans and blocked contents, at an ultrapeer and at a leaf.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bed, Daemon, Program, bytes, content_of, eventually, list, number, text};

/// The targets of all bans, with their origins.
fn bans(daemon: &Daemon) -> Vec<(String, String)> {
    let lines = daemon.lines(&["bans"]);
    let pair = |ban: &Value| (text(&ban["target"]).to_owned(), text(&ban["origin"]).to_owned());
    lines.iter().map(pair).collect()
}

/// Makes a ban and returns its line.
fn ban(daemon: &Daemon, arguments: &[&str]) -> Value {
    let line = daemon.lines(&[&["ban"], arguments].concat()).remove(0);
    assert_eq!(line["type"], "ban", "{line}");
    for field in ["target", "kind", "origin", "reason", "created_at", "expires_at"] {
        assert!(line.as_object().is_some_and(|ban| ban.contains_key(field)), "{field}: {line}");
    }
    line
}

/// Waits until a complete search finds these names and says that so many contents are withheld.
fn withheld(leaf: &Daemon, words: &[&str], names: &[&str], count: u64) {
    eventually(&format!("{words:?} finds {names:?}, {count} withheld\n{}", leaf.log()), || {
        let found = leaf.search(words);
        found.is_complete() && found.names() == names && number(&found.summary["withheld"]) == count
    });
}

#[test]
fn a_leaf_that_an_ultrapeer_bans_is_out_with_its_files_over_restarts() {
    let bed = Bed::new();
    bed.write(&[("one/red rose.txt", b"red"), ("two/white rose.txt", b"white")]);
    let founder = bed.founder("u0");
    let one = bed.sharing("one-leaf", &founder, "one", &[]);
    let two = bed.sharing("two-leaf", &founder, "two", &[]);
    one.settled(1, 1);
    two.settled(1, 1);
    two.finds(&["rose"], &["red rose.txt", "white rose.txt"]);

    let line = ban(&founder, &[&one.peer()[..12], "--reason", "spam"]);
    assert_eq!((text(&line["target"]), text(&line["kind"])), (one.peer(), "peer"));
    assert_eq!((text(&line["origin"]), text(&line["reason"])), ("settings", "spam"));
    assert!(line["expires_at"].is_null());
    two.finds(&["rose"], &["white rose.txt"]);
    eventually("it has no home", || one.homes().is_empty());
    assert_eq!(founder.counted("quictrack_bans_total{scope=\"leaf\",reason=\"operator\"}"), 1);
    eventually("it is refused", || founder.counted("quictrack_leaf_admissions_total{result=\"banned\"}") > 0);
    assert!(founder.text(&["bans"]).contains("spam"));

    // That is on the disk when the command returns.
    let quic = founder.quic();
    founder.kill();
    let founder = bed.ultrapeer("u0", &["--founder", "--listen", &quic]);
    assert_eq!(bans(&founder), [(one.peer().to_owned(), "settings".to_owned())]);
    two.finds(&["rose"], &["white rose.txt"]);
    one.kill();
    let one = bed.sharing("one-leaf", &founder, "one", &[]);
    eventually("it is refused again", || founder.counted("quictrack_leaf_admissions_total{result=\"banned\"}") > 0);
    assert!(one.homes().is_empty());

    founder.run(&["unban", two.peer()]).error(3, "not_found");
    assert_eq!(founder.run(&["unban", &one.peer()[..8]]).code, Some(0));
    assert_eq!(bans(&founder), []);
    one.kill();
    let one = bed.sharing("one-leaf", &founder, "one", &[]);
    one.settled(1, 1);
    two.finds(&["rose"], &["red rose.txt", "white rose.txt"]);

    // A range of addresses gets not even a handshake.
    ban(&founder, &["127.0.0.0/8"]);
    eventually("nobody is left", || one.homes().is_empty() && two.homes().is_empty());
    assert_eq!(founder.status()["ultrapeer"]["leaves"], 0);
    assert_eq!(founder.counted("quictrack_bans_total{scope=\"prefix\",reason=\"operator\"}"), 1);
}

#[test]
fn what_an_ultrapeer_blocks_is_withheld_and_its_lists_are_read_again() {
    let bed = Bed::new();
    bed.write(&[("one/red rose.txt", b"red"), ("one/white rose.txt", b"white"), ("one/black rose.txt", b"black")]);
    let (blocks, refused) = (bed.path("blocks.txt"), bed.path("refused.txt"));
    let [red, white] = [content_of(b"red"), content_of(b"white")];
    fs::write(&blocks, format!("# not here\n{red} # stolen\nnonsense\n")).unwrap_or_default();
    fs::write(&refused, "192.0.2.0/24\n").unwrap_or_default();
    let configuration = format!("block_list = [{blocks:?}]\nban_list = [{refused:?}]\n");
    bed.write(&[("u0/ultrapeer.toml", configuration.as_bytes())]);
    let founder = bed.founder("u0");
    assert!(founder.log().contains("blocks.txt:3"), "{}", founder.log());
    let one = bed.sharing("one-leaf", &founder, "one", &[]);
    let two = bed.leaf("two-leaf", &founder, &[]);
    one.settled(1, 3);
    two.settled(1, 0);
    withheld(&two, &["rose"], &["black rose.txt", "white rose.txt"], 1);
    assert!(two.text(&["search", "rose"]).contains("1 withheld"));
    let lines = founder.lines(&["bans"]);
    let of_red = lines.iter().find(|ban| ban["target"] == red.as_str()).unwrap_or(&Value::Null);
    assert_eq!(
        (text(&of_red["kind"]), text(&of_red["origin"]), text(&of_red["reason"])),
        ("content", "file", "stolen")
    );
    let conflict = founder.run(&["unban", &red[..8]]).error(1, "conflict");
    assert!(text(&conflict["hint"]).contains("file"), "{conflict}");

    ban(&founder, &[&white]);
    withheld(&two, &["rose"], &["black rose.txt"], 2);
    // Who looks it up by its content finds nobody either.
    let missing = two.run(&["get", "--timeout", "2", &red]);
    assert_eq!(missing.code, Some(3), "{missing:?}");

    fs::write(&blocks, "").unwrap_or_default();
    withheld(&two, &["rose"], &["black rose.txt", "red rose.txt"], 1);
    // A list that goes is told, and what it said counts on.
    fs::remove_file(&refused).unwrap_or_default();
    eventually("it is told", || founder.log().contains("refused.txt"));
    founder.signal("HUP");
    let listed = ("192.0.2.0/24".to_owned(), "file".to_owned());
    assert!(bans(&founder).contains(&listed));
    // Its key counts while it runs.
    assert_eq!(founder.asks("PATCH config", &json!({ "ban_list": [] }).to_string()).status, 200);
    eventually("it is not banned any more", || !bans(&founder).contains(&listed));
}

#[test]
fn a_banned_ultrapeer_is_no_home_and_no_neighbour() {
    let bed = Bed::new();
    let first = bed.founder("u0");
    let second = bed.ultrapeer("u1", &["--join", &first.quic()]);
    let leaf = bed.leaf("leaf", &first, &[]);
    leaf.settled(2, 0);
    let links = || {
        let open =
            |direction| first.counted(&format!("quictrack_connections{{kind=\"mesh\",direction=\"{direction}\"}}"));
        open("in") + open("out")
    };
    eventually("they are linked", || links() == 1);

    ban(&leaf, &[second.peer()]);
    eventually("it is no home", || leaf.homes() == [first.peer()]);
    assert_eq!(ban(&first, &[&second.peer()[..8]])["kind"], "peer");
    assert_eq!(first.counted("quictrack_bans_total{scope=\"ultrapeer\",reason=\"operator\"}"), 1);
    eventually("they are linked no more", || links() == 0);
    // It tries to come back, and is refused each time.
    let refusals = || first.counted("quictrack_handshakes_total{direction=\"in\",result=\"refused\"}");
    let before = refusals();
    eventually("it is refused", || refusals() > before);
    assert_eq!((links(), leaf.homes()), (0, vec![first.peer().to_owned()]));
    assert_eq!(first.run(&["unban", second.peer()]).code, Some(0));
    eventually("they are linked again", || links() == 1);
}

#[test]
fn a_list_that_is_not_there_keeps_a_daemon_from_starting() {
    let bed = Bed::new();
    bed.write(&[("leaf/leaf.toml", b"ban_list = [\"/nowhere/at all\"]\n"), ("other/bans.json", b"[{")]);
    let options = ["--json", "leaf", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--no-lan", "--no-dht"];
    let refused = Program::Leaf.run(&bed.path("leaf"), &options).error(2, "bad_config");
    assert!(text(&refused["message"]).contains("/nowhere/at all"), "{refused}");
    let damaged = Program::Leaf.run(&bed.path("other"), &options).error(2, "bad_config");
    assert!(text(&damaged["message"]).contains("bans.json"), "{damaged}");
    assert_eq!(fs::read(bed.path("other/bans.json")).unwrap_or_default(), b"[{");
}

#[test]
fn a_leaf_shows_fetches_and_serves_nothing_that_it_blocks() {
    let bed = Bed::new();
    let large = bytes("large", 4_000_000);
    bed.write(&[("one/red rose.txt", b"red"), ("one/large rose.bin", &large), ("two/white rose.txt", b"white")]);
    let founder = bed.founder("u0");
    let one = bed.sharing("one-leaf", &founder, "one", &["--upload-limit", "50kB"]);
    let two = bed.sharing("two-leaf", &founder, "two", &[]);
    let third = bed.leaf("third-leaf", &founder, &[]);
    one.settled(1, 2);
    two.settled(1, 1);
    third.settled(1, 0);
    let (red, white, large) = (content_of(b"red"), content_of(b"white"), content_of(&large));
    third.finds(&["rose"], &["large rose.bin", "red rose.txt", "white rose.txt"]);

    // A job that runs ends when its content is blocked.
    third.lines(&["get", "--detach", &large]);
    eventually("it runs", || number(&third.download()["bytes"]) > 0);
    assert_eq!(text(&ban(&third, &[&large[..10], "--for", "1h"])["target"]), large);
    eventually("it fails", || third.download()["state"] == "failed");
    assert_eq!(third.download()["reason"], "blocked");
    let failed = third.run(&["get", &large]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let last = failed.lines().into_iter().find(|line| line["type"] == "failed").unwrap_or_default();
    assert_eq!((text(&last["reason"]), text(&last["content"])), ("blocked", large.as_str()));
    withheld(&third, &["rose"], &["red rose.txt", "white rose.txt"], 1);

    // What only a banned peer has is not shown.
    ban(&third, &[&one.peer()[..8]]);
    withheld(&third, &["rose"], &["white rose.txt"], 2);
    let nothing = third.search(&["red"]);
    assert_eq!((number(&nothing.summary["withheld"]), &nothing.summary["first_hit_ms"]), (1, &Value::Null));
    third.run(&["browse", one.peer()]).error(1, "conflict");

    // What is blocked is not served.
    ban(&two, &[&white]);
    let unserved = third.run(&["get", "--timeout", "2", &white]);
    assert!(matches!(unserved.code, Some(1 | 3)), "{unserved:?}");
    assert_eq!(two.run(&["unban", &white]).code, Some(0));
    let third = {
        third.kill();
        bed.leaf("third-leaf", &founder, &[])
    };
    third.settled(1, 0);
    let done = third.lines(&["get", &white]).pop().unwrap_or_default();
    assert_eq!(text(&done["type"]), "done", "{done}");
    // The bans have outlived that.
    withheld(&third, &["rose"], &["white rose.txt"], 2);
    assert_eq!(third.run(&["unban", one.peer()]).code, Some(0));
    third.finds(&["red"], &["red rose.txt"]);
    assert_eq!(third.run(&["get", &red]).code, Some(0));
}

#[test]
fn bans_are_made_and_lifted_over_http_and_travel_with_the_settings() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.settled(1, 0);
    let content = content_of(b"red");
    for daemon in [&founder, &leaf] {
        let made =
            daemon.asks("POST bans", &json!({ "target": "192.0.2.77/24", "for_s": 3600, "reason": "x" }).to_string());
        assert_eq!(made.status, 201, "{made:?}");
        let made = made.json();
        assert_eq!((text(&made["target"]), text(&made["kind"])), ("192.0.2.0/24", "prefix"));
        assert!(made["expires_at"].is_string(), "{made}");
        assert_eq!(daemon.asks("POST bans", &json!({ "target": content }).to_string()).status, 201);
        let listed = daemon.api("bans?limit=1");
        assert_eq!(list(&listed["items"]).len(), 1);
        assert!(listed["next"].is_string());
        for (body, status) in [
            (json!({ "target": "nothing at all" }), 400),
            (json!({ "target": "192.0.2.0/33" }), 400),
            (json!({ "target": daemon.peer() }), 400),
            (json!({ "target": "192.0.2.1", "for_s": 0 }), 400),
            (json!({ "target": "abcdefgh" }), 404),
        ] {
            let refused = daemon.asks("POST bans", &body.to_string());
            assert_eq!(refused.status, status, "{body}: {refused:?}");
        }
        assert_eq!(daemon.asks("DELETE bans/198.51.100.0%2F24", "").code(404), "not_found");
        let paths = &daemon.api("openapi.json")["paths"];
        assert!(paths["/api/v1/bans"]["get"].is_object() && paths["/api/v1/bans"]["post"].is_object(), "{paths}");
        assert!(paths["/api/v1/bans/{target}"]["delete"].is_object(), "{paths}");
    }
    let itself = leaf.run(&["ban", leaf.peer()]).error(2, "bad_request");
    assert!(text(&itself["message"]).contains("itself"), "{itself}");
    leaf.run(&["ban", "192.0.2.0/24", "--for", "never"]).error(2, "bad_request");
    // One that is for a moment is over then.
    ban(&leaf, &["203.0.113.0/24", "--for", "1s"]);
    let both = [("192.0.2.0/24", "settings"), (content.as_str(), "settings")];
    let both = both.map(|(target, origin)| (target.to_owned(), origin.to_owned()));
    eventually("it is over", || bans(&leaf) == both);

    // With the settings to another, whether it runs or not.
    let exported = bed.path("exported.json");
    let file = exported.to_str().unwrap_or_default();
    assert_eq!(leaf.run(&["config", "export", file]).code, Some(0));
    let idle = bed.path("idle");
    assert_eq!(Program::Leaf.run(&idle, &["config", "import", file]).code, Some(0));
    let other = bed.leaf("idle", &founder, &[]);
    assert_eq!(bans(&other), both);
    let running = bed.leaf("running", &founder, &[]);
    for _ in 0..2 {
        assert_eq!(running.run(&["config", "import", file]).code, Some(0));
        assert_eq!(bans(&running), both);
    }
    assert_eq!(founder.run(&["config", "import", file]).code, Some(0));
    assert_eq!(leaf.asks("DELETE bans/192.0.2.0%2F24", "").status, 204);
    assert_eq!(leaf.asks(&format!("DELETE bans/{}", &content[..8]), "").status, 204);
    assert_eq!(bans(&leaf), []);
}
