//! Exits and error lines of the commands, which scripts rely on.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::support::{Bed, Daemon, Ended, Program, awaited, content_of, number, text};

/// Digits of a content that nobody has.
const UNKNOWN: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn what_is_not_found_or_malformed_is_told_apart() {
    let bed = Bed::new();
    bed.write(&[("one/rose.txt", b"red")]);
    let founder = bed.founder("u0");
    let leaf = bed.sharing("leaf", &founder, "one", &[]);
    leaf.settled(1, 1);

    let empty = leaf.run(&["search", "tulip"]);
    assert_eq!(empty.code, Some(3), "{empty:?}");
    assert_eq!(empty.lines()[0]["type"], "summary", "{empty:?}");
    assert_eq!(empty.lines()[0]["complete"], true);

    for (query, position) in
        [(&["rose", "\"unclosed"][..], 6), (&["ab*"], 3), (&["rose", "size:big"], 11), (&["rose", "kind:poem"], 11)]
    {
        let refused = leaf.run(&[&["search"], query].concat()).error(2, "bad_query");
        assert_eq!(number(&refused["position"]), position, "{query:?}: {refused}");
    }
    for broad in [&["-rose"][..], &["size:>1GB"]] {
        let refused = leaf.run(&[&["search"], broad].concat()).error(2, "bad_query");
        assert!(refused["position"].is_u64(), "{refused}");
    }

    leaf.run(&["get", &UNKNOWN[..8]]).error(3, "not_found");
    leaf.run(&["get", "xyz"]).error(2, "bad_request");
    leaf.run(&["get", "nobody/one/rose.txt"]).error(2, "bad_request");
    leaf.run(&["browse", "!"]).error(2, "bad_request");
    leaf.run(&["browse", leaf.peer(), "one/thorns"]).error(3, "not_found");
    leaf.run(&["downloads", "pause", "nosuchjob"]).error(3, "not_found");
    leaf.run(&["shares", "remove", "nothing"]).error(3, "not_found");
    leaf.run(&["shares", "remove", "one"]).error(1, "conflict");

    // Nobody has it: the command gives up, its download waits on.
    let missing = leaf.run(&["get", "--timeout", "1", UNKNOWN]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
    let failed = missing.lines().pop().unwrap_or_default();
    assert_eq!((text(&failed["type"]), text(&failed["reason"])), ("failed", "no_source"));
    assert_eq!(text(&leaf.download()["id"]), text(&failed["id"]));
}

#[test]
fn a_command_without_its_daemon_says_how_to_start_one() {
    let bed = Bed::new();
    let data = bed.path("leaf");
    for command in [&["search", "rose"][..], &["get", UNKNOWN], &["downloads"], &["shares"], &["status"], &["peers"]] {
        let ended = Program::Leaf.run(&data, &[&["--json"], command].concat());
        let error = ended.error(1, "daemon_not_running");
        assert!(text(&error["hint"]).contains("quictrack leaf --data-dir"), "{error}");
    }
    // A file that a crash left behind names a daemon that does not answer.
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.kill();
    assert!(data.join("api.json").exists());
    Program::Leaf.run(&data, &["--json", "status"]).error(1, "daemon_not_running");
}

#[test]
fn a_data_folder_serves_one_daemon_at_a_time() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    let options = ["leaf", "--json", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--no-lan", "--no-dht"];
    Program::Leaf.run(leaf.data(), &options).error(1, "already_running");
    assert_eq!(leaf.status()["peer_id"], leaf.ready["peer_id"], "the first one does not mind");
}

#[test]
fn usage_and_configuration_are_checked_before_anything_starts() {
    let bed = Bed::new();
    let run = |arguments: &[&str]| -> Ended { Program::Leaf.run(&bed.path("leaf"), arguments) };
    for wrong in [&["--json", "leaf", "--bogus"][..], &["--json", "serach"], &["--json", "search"]] {
        run(wrong).error(2, "bad_request");
    }
    let short_help = run(&[]);
    assert_eq!(short_help.code, Some(2), "{short_help:?}");

    let misspelt = b"# mine\nvolunteer = \"never\"\n  uplod_limit = \"1MB\"\n";
    bed.write(&[("leaf/leaf.toml", misspelt), ("good.toml", b"upload_slots = 2\n")]);
    let wrong = bed.path("leaf/leaf.toml");
    let check = ["--json", "config", "check", wrong.to_str().unwrap_or_default()];
    for command in [&["--json", "leaf"][..], &check] {
        let error = run(command).error(2, "bad_config");
        let message = text(&error["message"]);
        assert!(message.contains("leaf.toml:3:3") && message.contains("`uplod_limit`"), "{error}");
        assert!(text(&error["hint"]).contains("`upload_limit`"), "{error}");
    }
    fs::remove_file(&wrong).unwrap_or_default();
    let good = bed.path("good.toml");
    let checked = run(&["--json", "config", "check", good.to_str().unwrap_or_default()]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let missing = run(&["--json", "--config", "/nonexistent/leaf.toml", "config", "show"]);
    missing.error(2, "bad_config");

    let shown = run(&["--json", "config", "show"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let slots = shown.lines().into_iter().find(|row| row["key"] == "upload_slots").unwrap_or_default();
    assert_eq!((&slots["type"], &slots["origin"]), (&"option".into(), &"default".into()));

    let id = run(&["--json", "id"]);
    assert_eq!(text(&id.lines()[0]["peer_id"]).len(), 52);
    assert_eq!(run(&["--json", "id"]).stdout, id.stdout, "the key is kept");
}

#[test]
fn a_command_that_is_told_to_end_says_what_it_has_and_what_goes_on() {
    let bed = Bed::new();
    // Nobody is there to be asked, so both wait.
    let leaf = Daemon::start(Program::Leaf, &bed.path("leaf"), &[]);
    let content = content_of(b"nobody has it");
    for signal in ["INT", "TERM"] {
        let search = leaf.start_command(&["search", "--timeout", "100", "anything"]);
        search.heeds_signals();
        search.signal(signal);
        let ended = search.end();
        assert_eq!(ended.code, Some(130), "{signal}: {ended:?}");
        let summary = ended.lines().pop().unwrap();
        assert_eq!((text(&summary["type"]), text(&summary["stopped"])), ("summary", "cancelled"), "{signal}");
        assert_eq!((&summary["complete"], &summary["hits"]), (&false.into(), &0.into()));
        let get = leaf.start_command(&["get", &content]);
        get.says("progress");
        get.signal(signal);
        let ended = get.end();
        assert_eq!(ended.code, Some(130), "{signal}: {ended:?}");
        let queued = ended.lines().pop().unwrap();
        let job = leaf.download();
        assert_eq!(
            (&queued["type"], &queued["id"], &queued["content"]),
            (&"queued".into(), &job["id"], &job["content"])
        );
        assert!(ended.stderr.contains("goes on") && job["state"] != "cancelled", "{ended:?}");
    }
}

#[test]
fn the_page_is_opened_without_its_token_among_the_arguments() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    let token = leaf.token();
    let url = format!("{}#token={}", text(&leaf.ready["web"]), token);
    let without = leaf.text(&["open"]);
    assert!(without.contains(&url) && without.contains("no browser here"), "{without}");

    bed.write(&[("bin/xdg-open", b"#!/bin/sh\necho \"$@\" >\"$HOME/opened\"\n")]);
    let browser = bed.path("bin/xdg-open");
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = Program::Leaf.command(None, leaf.data(), &["open"]);
    let opened = command.env("DISPLAY", ":0").env("PATH", bed.path("bin")).output().unwrap();
    assert_eq!(String::from_utf8(opened.stdout).unwrap().trim(), url);
    let file = awaited("the browser is started", || {
        fs::read_to_string(bed.path("opened")).ok().filter(|file| !file.is_empty())
    });
    assert!(!file.contains(token.trim()), "{file}");
    let lead = Path::new(file.trim());
    assert!(fs::read_to_string(lead).unwrap().contains(&url));
    assert_eq!(fs::metadata(lead).unwrap().permissions().mode() & 0o777, 0o600);
}
