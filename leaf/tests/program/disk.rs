//! Disks that are full, files that are damaged, and a daemon that is killed again and again.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use serde_json::Value;

use crate::{
    namespace,
    support::{Bed, Daemon, Program, awaited, bytes, content_of, eventually, list, number, of_type, text},
};

const MIB: usize = 1 << 20;

/// Writes until nothing fits any more, then makes the file so much shorter.
fn fill(path: &Path, but: u64) {
    let mut file = File::create(path).unwrap();
    let block = vec![7; 64 << 10];
    while file.write_all(&block).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(but)).unwrap();
}

fn has_problem(leaf: &Daemon, code: &str) -> bool {
    leaf.problems().iter().any(|problem| problem == code)
}

#[test]
fn a_full_disk_pauses_downloads_loses_nothing_and_needs_no_hand_when_there_is_room() {
    if !namespace::inside(
        "disk::a_full_disk_pauses_downloads_loses_nothing_and_needs_no_hand_when_there_is_room",
        &["--mount"],
    ) {
        return;
    }
    let bed = Bed::new();
    let large = bytes("large", 8 * MIB);
    bed.write(&[("pool/large.bin", &large), ("pool/small.txt", b"a small file"), ("mine/own.txt", b"my own")]);
    let disk = bed.path("disk");
    fs::create_dir(&disk).unwrap();
    namespace::system(&["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", disk.to_str().unwrap()]);
    let ballast = disk.join("ballast");

    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &[]);
    source.settled(1, 2);
    let start = || Daemon::start(Program::Leaf, &disk.join("leaf"), &["--join", &founder.quic()]);
    let leaf = start();
    leaf.finds(&["large"], &["large.bin"]);
    leaf.finds(&["small"], &["small.txt"]);

    // Room for the record of the download, but not for its bytes.
    fill(&ballast, 3 << 20);
    leaf.lines(&["get", "--detach", &content_of(&large)]);
    let job = awaited("it is paused", || Some(leaf.download()).filter(|job| job["state"] == "paused"));
    assert_eq!(job["reason"], "disk_full");
    eventually("the problem is told", || has_problem(&leaf, "disk_full"));
    let problem = list(&leaf.status()["problems"])[0].clone();
    assert!(text(&problem["message"]).contains("room on the disk") && problem["hint"].is_string(), "{problem}");

    // No room for anything.
    let more = disk.join("more");
    fill(&more, 0);
    leaf.run(&["get", "--detach", &content_of(b"a small file")]).error(1, "disk_full");
    assert_eq!(list(&leaf.api("downloads")["items"]).len(), 1, "what is not recorded is not there");
    let mine = bed.path("mine");
    leaf.run(&["shares", "add", mine.to_str().unwrap()]).error(1, "disk_full");
    leaf.finds(&["small"], &["small.txt"]);
    assert_eq!(leaf.probe("/healthz").0, 200);
    // Nobody can start there, and who tries is told why. With a little room a restart forgets nothing.
    let (peer, id) = (leaf.peer().to_owned(), text(&job["id"]).to_owned());
    assert_eq!(leaf.terminate(std::time::Duration::from_secs(20)).code(), Some(0));
    refused_at(&disk.join("leaf"), 1, "disk_full");
    fs::remove_file(&more).unwrap();
    let leaf = start();
    assert_eq!(leaf.peer(), peer);
    assert_eq!(text(&leaf.download()["id"]), id);
    assert_eq!(leaf.download()["state"], "paused");
    // Who waits for it is told so, and does not take it for a content that nobody has.
    let waited = leaf.run(&["get", "--timeout", "2", &content_of(&large)]);
    assert_eq!(waited.code, Some(1), "{waited:?}");
    let failed = waited.lines().pop().unwrap();
    assert_eq!((text(&failed["type"]), text(&failed["reason"])), ("failed", "timeout"));
    let paused = waited.lines().into_iter().find(|line| line["state"] == "paused").unwrap();
    assert_eq!((text(&paused["type"]), text(&paused["reason"])), ("progress", "disk_full"));
    assert!(waited.stderr.contains("waits for room on the disk"), "{waited:?}");

    // Room: everything goes on by itself, and who waits sees it to its end.
    let waiting = leaf.start_command(&["get", &content_of(&large)]);
    waiting.says("\"disk_full\"");
    fs::remove_file(&ballast).unwrap();
    let waited = waiting.end();
    assert_eq!((waited.code, of_type(&waited.lines(), "done").len()), (Some(0), 1), "{waited:?}");
    let job = awaited("it is done", || Some(leaf.download()).filter(|job| job["state"] == "done"));
    assert_eq!(text(&job["id"]), id);
    assert!(fs::read(text(&job["path"])).unwrap() == large, "the bytes are right");
    eventually("the problem is gone", || !has_problem(&leaf, "disk_full"));
    leaf.lines(&["shares", "add", "--wait", mine.to_str().unwrap()]);
    let small = leaf.lines(&["get", &content_of(b"a small file")]);
    assert_eq!(of_type(&small, "done").len(), 1, "{small:?}");
    source.finds(&["own"], &["own.txt"]);
}

/// Damages a file in one of several ways, which must all be survived.
fn damage(path: &Path, how: &str) {
    let mut data = fs::read(path).unwrap();
    let noise = bytes(how, data.len());
    match how {
        "truncated" => data.truncate(data.len() / 2),
        "empty" => data.clear(),
        "noise" => data = noise,
        "noise in the middle" => {
            let (from, to) = (data.len() / 4, data.len() * 3 / 4);
            data[from..to].copy_from_slice(&noise[from..to]);
        }
        _ => unreachable!("{how}"),
    }
    fs::write(path, data).unwrap();
}

#[test]
fn a_damaged_database_is_rebuilt_and_key_shares_and_downloads_survive() {
    let bed = Bed::new();
    let large = bytes("large", 4 * MIB);
    bed.write(&[("pool/large.bin", &large), ("one/a.txt", b"of one"), ("two/b.txt", b"of two")]);
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &["--upload-limit", "1MB"]);
    source.settled(1, 1);
    let mut leaf = bed.sharing("leaf", &founder, "one", &[]);
    let peer = leaf.peer().to_owned();
    let two = bed.path("two");
    leaf.lines(&["shares", "add", "--wait", two.to_str().unwrap()]);
    leaf.settled(1, 2);
    leaf.finds(&["large"], &["large.bin"]);
    leaf.lines(&["get", "--detach", &content_of(&large)]);
    eventually("a part is there", || number(&leaf.download()["bytes"]) >= 2 * MIB as u64);
    leaf.lines(&["downloads", "pause", "all"]);
    let before = leaf.download();
    for how in ["truncated", "empty", "noise", "noise in the middle"] {
        assert_eq!(leaf.terminate(std::time::Duration::from_secs(20)).code(), Some(0));
        damage(&bed.path("leaf/state.redb"), how);
        leaf = bed.sharing("leaf", &founder, "one", &[]);
        assert_eq!(leaf.peer(), peer, "{how}");
        leaf.settled(1, 2);
        let after = leaf.download();
        for field in ["id", "content", "name", "state", "reason", "size", "priority", "created_at"] {
            assert_eq!(after[field], before[field], "{how}: {after}");
        }
        assert!(!leaf.log().contains("ERROR"), "{how}: {}", leaf.log());
    }
    let aside = fs::read_dir(bed.path("leaf"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("state.redb.corrupt-"));
    assert!(aside.count() >= 3, "what was damaged is kept");
    source.finds(&["txt"], &["a.txt", "b.txt"]);
    // A job that was forgotten does not come back with a new database, and one that is ended does not either.
    let other = text(&leaf.lines(&["get", "--detach", &content_of(b"nobody has it")])[0]["id"]).to_owned();
    assert_eq!(list(&leaf.api("downloads")["items"]).len(), 2);
    leaf.lines(&["downloads", "cancel", &other]);
    leaf.lines(&["downloads", "clear"]);
    // The rest of the work goes on where it was.
    let sent_before = sent(&source);
    leaf.lines(&["downloads", "resume", "all"]);
    let lines = leaf.lines(&["get", &content_of(&large)]);
    let done = of_type(&lines, "done")[0];
    assert_eq!(done["id"], before["id"]);
    assert!(fs::read(text(&done["path"])).unwrap() == large, "the bytes are right");
    let (sent, missing) = (sent(&source) - sent_before, large.len() as u64 - number(&before["bytes"]));
    assert!(sent <= missing + MIB as u64, "{sent} bytes were sent for {missing} that were missing");
    assert_eq!(number(&done["bytes"]), large.len() as u64);
    assert_eq!(leaf.terminate(std::time::Duration::from_secs(20)).code(), Some(0));
    damage(&bed.path("leaf/state.redb"), "empty");
    leaf = bed.sharing("leaf", &founder, "one", &[]);
    assert_eq!(leaf.lines(&["downloads"]), [Value::Null; 0]);
}

#[test]
fn damaged_partial_files_cost_only_what_was_in_them() {
    let bed = Bed::new();
    let large = bytes("large", 4 * MIB);
    bed.write(&[("pool/large.bin", &large)]);
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &["--upload-limit", "400kB"]);
    source.settled(1, 1);
    let content = content_of(&large);
    let partial = bed.path("leaf/downloads/.partial");
    let mut leaf = bed.leaf("leaf", &founder, &[]);
    leaf.finds(&["large"], &["large.bin"]);
    leaf.lines(&["get", "--detach", &content]);
    for (file, how) in [(content.clone(), "noise in the middle"), (format!("{content}.values"), "noise")] {
        eventually("a part is there", || number(&leaf.download()["bytes"]) >= MIB as u64 / 2);
        leaf.lines(&["downloads", "pause", "all"]);
        assert_eq!(leaf.terminate(std::time::Duration::from_secs(20)).code(), Some(0));
        damage(&partial.join(file), how);
        leaf = bed.leaf("leaf", &founder, &[]);
        assert_eq!(leaf.download()["state"], "paused", "{how}");
        leaf.lines(&["downloads", "resume", "all"]);
    }
    // It need not be slow any more.
    source.kill();
    let source = bed.sharing("source", &founder, "pool", &[]);
    source.settled(1, 1);
    let job = awaited("it is done", || Some(leaf.download()).filter(|job| job["state"] == "done"));
    assert!(fs::read(text(&job["path"])).unwrap() == large, "the bytes are right");
}

/// Starts a leaf that must not start: what it said.
fn refused(bed: &Bed, exit: i32) -> (Value, String) {
    refused_in(&bed.path("leaf"), exit)
}

/// A start that must fail with this code.
fn refused_at(data: &Path, exit: i32, code: &str) {
    let (error, said) = refused_in(data, exit);
    assert_eq!(error["code"], code, "{error}");
    assert!(said.contains("hint: "), "{said}");
}

fn refused_in(data: &Path, exit: i32) -> (Value, String) {
    let ended = Program::Leaf.run(
        data,
        &["leaf", "--json", "--no-lan", "--no-dht", "--no-portmap", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"],
    );
    assert_eq!(ended.code, Some(exit), "{ended:?}");
    assert!(ended.stderr.contains("error: ") && !ended.stderr.contains("panicked"), "{ended:?}");
    (ended.lines().pop().unwrap(), ended.stderr)
}

#[test]
fn damaged_settings_and_keys_are_named_and_never_replaced() {
    let bed = Bed::new();
    let start = || Daemon::start(Program::Leaf, &bed.path("leaf"), &[]);
    let first = start();
    let peer = first.peer().to_owned();
    assert_eq!(first.terminate(std::time::Duration::from_secs(20)).code(), Some(0));

    let settings = bed.path("leaf/settings.toml");
    for damaged in ["upload_slots = \n", "upload_slot = 3\n", "upload_slots = \"many\"\n", "\u{0}\u{1}", "[["] {
        fs::write(&settings, damaged).unwrap();
        let (error, said) = refused(&bed, 2);
        assert_eq!(error["code"], "bad_config", "{damaged:?}: {error}");
        assert!(said.contains("settings.toml"), "{damaged:?}: {said}");
        assert_eq!(fs::read_to_string(&settings).unwrap(), damaged, "it is left to the user");
    }
    fs::write(&settings, [0xff, 0xfe, b'=']).unwrap();
    assert_eq!(refused(&bed, 2).0["code"], "bad_config");
    fs::remove_file(&settings).unwrap();

    let key = bed.path("leaf/identity.key");
    let good = fs::read(&key).unwrap();
    for damaged in [&b""[..], &good[..20], &[&good[..], &good[..]].concat(), &[0xff; 64], &[b'x'; 64]] {
        fs::write(&key, damaged).unwrap();
        let (error, said) = refused(&bed, 1);
        assert!(said.contains("identity.key"), "{error}: {said}");
        assert_eq!(fs::read(&key).unwrap(), damaged, "a key is never replaced");
    }
    fs::write(&key, &good).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&bed, 1).1.contains("chmod 600"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    let shared = bed.path("leaf/shares.json");
    for damaged in [&b""[..], b"[", &[0xff, 0]] {
        fs::write(&shared, damaged).unwrap();
        assert!(refused(&bed, 2).1.contains("shares.json"));
    }
    fs::remove_file(&shared).unwrap();

    // What can be made anew is.
    for token in ["api-token", "api-token-readonly"] {
        let path = bed.path("leaf").join(token);
        let good = fs::read(&path).unwrap();
        for damaged in [&b""[..], &good[..10], &[0xff; 40], &[0x1b; 40]] {
            fs::write(&path, damaged).unwrap();
            assert!(refused(&bed, 1).1.contains("remove it"), "{token}");
        }
        fs::write(&path, &good).unwrap();
    }
    for file in ["ultrapeers.json", "api.json"] {
        let path = bed.path("leaf").join(file);
        for damaged in [&b""[..], &[0xff, 0, 0x1b, b'['][..]] {
            fs::write(&path, damaged).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let daemon = start();
            assert_eq!(daemon.peer(), peer, "{file}");
            daemon.status();
            assert_eq!(daemon.terminate(std::time::Duration::from_secs(20)).code(), Some(0));
        }
    }
}

/// Whole numbers that look random and are the same in each run.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn hashed(leaf: &Daemon) -> u64 {
    leaf.counted("quictrack_hashed_bytes_total")
}

fn sent(leaf: &Daemon) -> u64 {
    leaf.counted("quictrack_transfer_bytes_total{direction=\"out\",via=\"direct\"}")
}

#[test]
fn a_daemon_that_is_killed_at_any_moment_loses_nothing_that_it_had() {
    let bed = Bed::new();
    let large = bytes("large", 4 * MIB);
    bed.write(&[("pool/large.bin", &large)]);
    let own: Vec<(String, Vec<u8>)> = (0..40)
        .map(|at| (format!("mine/{}/own {at}.bin", at % 5), bytes(&format!("own {at}"), 300_000 + at)))
        .collect();
    let own_bytes: u64 = own.iter().map(|(_, data)| data.len() as u64).sum();
    for (name, data) in &own {
        bed.write(&[(name, data)]);
    }
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &["--upload-limit", "2MB"]);
    source.settled(1, 1);

    let mut seeded = Seeded(20_261_122);
    let mut ids = BTreeSet::new();
    let (mut hashed_bytes, mut most) = (0, 0);
    let mut started = false;
    for _ in 0..6 {
        let leaf = bed.sharing("leaf", &founder, "mine", &[]);
        if !started {
            leaf.finds(&["large"], &["large.bin"]);
            leaf.lines(&["get", "--detach", &content_of(&large)]);
            started = true;
        }
        // What was verified lies in the file, and is found there whether or not it was recorded.
        let mut before = 0;
        eventually("what was there is there again", || {
            before = number(&leaf.download()["bytes"]);
            before >= most
        });
        ids.insert(text(&leaf.download()["id"]).to_owned());
        // Its own progress says when: after so many further bytes, or at once.
        let further = seeded.below(6) * 128 * 1024;
        eventually("it gets on", || {
            let job = leaf.download();
            most = number(&job["bytes"]);
            job["state"] == "done" || most >= before + further
        });
        hashed_bytes += hashed(&leaf);
        leaf.kill();
    }
    let leaf = bed.sharing("leaf", &founder, "mine", &[]);
    let job = awaited("it is done", || Some(leaf.download()).filter(|job| job["state"] == "done"));
    ids.insert(text(&job["id"]).to_owned());
    assert_eq!(ids.len(), 1, "it is one job all the time: {ids:?}");
    assert!(fs::read(text(&job["path"])).unwrap() == large, "the bytes are right");
    leaf.settled(1, own.len() as u64);
    hashed_bytes += hashed(&leaf);
    assert!(hashed_bytes <= 3 * own_bytes, "{hashed_bytes} bytes were hashed of {own_bytes}");
    for (name, data) in own.iter().step_by(13) {
        let found = leaf.search(&[&format!("\"{}\"", name.rsplit('/').next().unwrap())]);
        assert_eq!(found.hits.len(), 1, "{name}: {found:?}");
        assert_eq!(text(&found.hits[0]["content"]), content_of(data));
    }
    // A new job never gets the id of an old one; a restart after all that hashes nothing.
    leaf.lines(&["downloads", "clear"]);
    let again =
        leaf.lines(&["get", "--detach", "-o", &format!("{}/", bed.path("again").display()), &content_of(&large)]);
    assert!(!ids.contains(text(&again[0]["id"])));
    leaf.kill();
    let leaf = bed.sharing("leaf", &founder, "mine", &[]);
    leaf.settled(1, own.len() as u64);
    assert_eq!(hashed(&leaf), 0);
}
