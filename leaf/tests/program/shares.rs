//! What is shared: how it appears, vanishes, and is looked at.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::support::{Bed, Daemon, Program, bytes, eventually, list, number, of_type, text, within};

/// Time within which a change of a watched folder reaches the network.
const CHANGE: Duration = Duration::from_secs(10);
/// Time within which a leaf that left in order is withdrawn.
const WITHDRAWN: Duration = Duration::from_secs(1);

fn within_change(leaf: &Daemon, what: &str, names: &[&str]) {
    within(CHANGE, what, || {
        let found = leaf.search(&["flower"]);
        (found.is_complete() && found.names() == names).then_some(())
    });
}

#[test]
fn files_come_and_go_and_so_do_their_hits() {
    let bed = Bed::new();
    bed.write(&[("garden/old flower.txt", b"old")]);
    let founder = bed.founder("u0");
    let owner = bed.sharing("owner", &founder, "garden", &[]);
    let other = bed.leaf("other", &founder, &[]);
    owner.settled(1, 1);
    other.finds(&["flower"], &["old flower.txt"]);

    bed.write(&[("garden/bed/new flower.txt", b"new")]);
    within_change(&other, "an added file is found", &["new flower.txt", "old flower.txt"]);
    fs::rename(bed.path("garden/bed"), bed.path("garden/meadow")).unwrap_or_default();
    within(CHANGE, "a renamed folder is found", || other.search(&["meadow"]).hits.pop());
    fs::remove_file(bed.path("garden/old flower.txt")).unwrap_or_default();
    within_change(&other, "a removed file vanishes", &["new flower.txt"]);

    // A share of the command line of the other kind: added while the daemon runs, and kept.
    bed.write(&[("hall/dried flower.txt", b"dried")]);
    let hall = bed.path("hall");
    let added = other.lines(&["shares", "add", "--wait", hall.to_str().unwrap_or_default()]).remove(0);
    assert_eq!((&added["type"], &added["files"]), (&"share".into(), &1.into()));
    owner.finds(&["flower"], &["dried flower.txt", "new flower.txt"]);
    assert_eq!(other.terminate(CHANGE).code(), Some(0));
    let other = bed.leaf("other", &founder, &[]);
    owner.finds(&["flower"], &["dried flower.txt", "new flower.txt"]);
    assert_eq!(other.run(&["shares", "remove", hall.to_str().unwrap_or_default()]).code, Some(0));
    within_change(&owner, "a removed share vanishes", &["new flower.txt"]);
}

#[test]
fn a_restart_hashes_nothing_and_uploads_nothing() {
    let bed = Bed::new();
    let large = bytes("kept", 4 << 20);
    bed.write(&[("shelf/kept book.pdf", &large), ("shelf/thin book.txt", b"thin")]);
    let founder = bed.founder("u0");
    let owner = bed.sharing("owner", &founder, "shelf", &[]);
    owner.settled(1, 2);
    let reader = bed.leaf("reader", &founder, &[]);
    let names = ["kept book.pdf", "thin book.txt"];
    reader.finds(&["book"], &names);
    assert_eq!(owner.terminate(CHANGE).code(), Some(0));

    let owner = bed.sharing("owner", &founder, "shelf", &[]);
    owner.settled(1, 2);
    reader.finds(&["book"], &names);
    assert_eq!(owner.counted("quictrack_hashed_bytes_total"), 0);
}

#[test]
fn who_leaves_in_order_is_withdrawn_at_once() {
    let bed = Bed::new();
    bed.write(&[("one/song of one.txt", b"one"), ("one/song.txt", b"both"), ("two/song.txt", b"both")]);
    let founder = bed.founder("u0");
    let second = bed.ultrapeer("u1", &["--join", &founder.quic()]);
    let one = bed.sharing("one-leaf", &founder, "one", &[]);
    let two = bed.sharing("two-leaf", &second, "two", &[]);
    let seeker = bed.leaf("seeker", &second, &[]);
    one.settled(2, 2);
    two.settled(2, 1);
    seeker.settled(2, 0);
    let found = seeker.finds(&["song"], &["song of one.txt", "song.txt"]);
    let sources: u64 = found.hits.iter().map(|hit| number(&hit["sources"])).sum();
    assert_eq!(sources, 3);

    assert_eq!(one.terminate(Duration::from_secs(5)).code(), Some(0));
    let left = within(WITHDRAWN, "the leaf is withdrawn", || {
        Some(seeker.search(&["song"])).filter(|found| found.names() == ["song.txt"])
    });
    assert_eq!(number(&left.hits[0]["sources"]), 1);
    assert_eq!(text(&left.hits[0]["peers"][0]["peer"]), two.peer());
}

/// Paths of the lines of a type.
fn paths(lines: &[Value], name: &str) -> Vec<String> {
    of_type(lines, name).iter().map(|line| text(&line["path"]).to_owned()).collect()
}

#[test]
fn shares_of_others_are_browsed_and_fetched_by_path() {
    let bed = Bed::new();
    bed.write(&[
        ("attic/chest/map.txt", b"here be dragons"),
        ("attic/chest/deep/coin.txt", b"of gold"),
        ("attic/zither.txt", b"out of tune"),
        ("attic/apple.txt", b"dry"),
    ]);
    for number in 0..150 {
        bed.write(&[(&format!("many/{number:03}.txt"), format!("number {number}").as_bytes())]);
    }
    let founder = bed.founder("u0");
    let many = bed.path("many");
    let owner = bed.sharing("owner", &founder, "attic", &["--share", many.to_str().unwrap_or_default()]);
    let guest = bed.leaf("guest", &founder, &[]);
    owner.settled(1, 154);
    // A hit tells who there is.
    guest.finds(&["zither"], &["zither.txt"]);
    let peer = owner.peer();

    let top = guest.lines(&["browse", &peer[..12]]);
    assert_eq!(paths(&top, "folder"), ["attic", "many"]);
    assert_eq!((number(&top[0]["files"]), number(&top[1]["files"])), (4, 150));
    let attic = guest.lines(&["browse", peer, "attic"]);
    let kinds: Vec<_> = attic.iter().map(|line| text(&line["type"])).collect();
    assert_eq!(kinds, ["folder", "entry", "entry"]);
    assert_eq!(paths(&attic, "folder"), ["attic/chest"]);
    assert_eq!(paths(&attic, "entry"), ["attic/apple.txt", "attic/zither.txt"]);
    let all = guest.lines(&["browse", "--recursive", peer, "attic"]);
    assert_eq!(paths(&all, "entry").len(), 4);

    let expected: Vec<_> = (0..150).map(|number| format!("many/{number:03}.txt")).collect();
    assert_eq!(paths(&guest.lines(&["browse", peer, "many"]), "entry"), expected);
    let (mut paged, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = guest.api(&format!("browse/{peer}?path=many&limit=60{cursor}"));
        let items = page["items"].as_array().cloned().unwrap_or_default();
        assert!(items.len() <= 60, "a page is too long");
        paged.extend(paths(&items, "entry"));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((paged, pages), (expected, 3));

    let fetched = guest.lines(&["get", &format!("{peer}/attic/chest")]);
    assert_eq!(of_type(&fetched, "done").len(), 2, "{fetched:?}");
    eventually("both files are there", || {
        let names = ["map.txt", "coin.txt"];
        names.iter().all(|name| is_below(&guest.data().join("downloads"), name))
    });
    let one = guest.lines(&["get", &format!("{peer}/attic/zither.txt")]);
    let path = text(&of_type(&one, "done")[0]["path"]).to_owned();
    assert_eq!(fs::read(path).ok().as_deref(), Some(&b"out of tune"[..]));
    guest.run(&["get", &format!("{peer}/attic/nothing.txt")]).error(3, "not_found");
}

/// True if a file of that name lies in a folder or below it.
fn is_below(folder: &std::path::Path, name: &str) -> bool {
    fs::read_dir(folder)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name() == name || is_below(&entry.path(), name)))
}

#[test]
fn what_was_set_and_shared_at_run_time_outlives_the_database_and_travels() {
    let bed = Bed::new();
    bed.write(&[("hall/vase.txt", b"vase"), ("hall/bowl.txt", b"bowl")]);
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    let hall = bed.path("hall");
    leaf.lines(&["shares", "add", "--wait", hall.to_str().unwrap_or_default()]);
    assert_eq!(leaf.asks("PATCH config", r#"{"upload_slots":7}"#).status, 200);
    assert_eq!(leaf.terminate(CHANGE).code(), Some(0));
    let database = bed.path("leaf/state.redb");
    fs::write(&database, b"no database".repeat(1000)).unwrap_or_default();
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.settled(1, 2);
    assert!(bed.path("leaf/state.redb.corrupt-1").exists());
    let exported = bed.path("exported.json");
    let exported = exported.to_str().unwrap_or_default();
    leaf.lines(&["config", "export", exported]);

    // Into the files of a leaf that does not run, and through one that does.
    let idle = Program::Leaf.run(&bed.path("idle"), &["config", "import", exported]);
    assert_eq!(idle.code, Some(0), "{idle:?}");
    let other = bed.leaf("other", &founder, &[]);
    other.lines(&["config", "import", exported]);
    for leaf in [bed.leaf("idle", &founder, &[]), other] {
        leaf.settled(1, 2);
        let share = leaf.lines(&["shares"]).remove(0);
        assert_eq!((&share["name"], &share["origin"]), (&"hall".into(), &"settings".into()));
        let shown = leaf.api("config?limit=1000");
        let slots = list(&shown["items"]).iter().find(|row| row["key"] == "upload_slots");
        assert_eq!(slots.map(|row| (&row["value"], &row["origin"])), Some((&7.into(), &"settings".into())));
    }
}

#[test]
fn settings_change_while_the_daemon_runs() {
    let bed = Bed::new();
    bed.write(&[("pool/shell.bin", b"shell"), ("pool/stone.bin", b"stone")]);
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &[]);
    source.settled(1, 2);
    let leaf = bed.leaf("leaf", &founder, &[]);
    let first = leaf.finds(&["shell"], &["shell.bin"]);
    let got = leaf.lines(&["get", text(&first.hits[0]["content"])]).pop().unwrap_or_default();
    assert_eq!(text(&got["path"]), bed.path("leaf/downloads/shell.bin").to_string_lossy());

    let file = b"downloads = 'else where'\nshare = ['../hall']\nvolunteer = 'never'\nnetwork = 'other'\n";
    bed.write(&[("leaf/leaf.toml", file), ("hall/x.txt", b"x")]);
    leaf.signal("HUP");
    eventually("the file is in force", || leaf.lines(&["shares"]).len() == 1);
    assert_eq!(leaf.status()["volunteer"], "never");
    assert_eq!(leaf.status()["network"], "public", "a network needs a restart");
    let second = leaf.finds(&["stone"], &["stone.bin"]);
    let got = leaf.lines(&["get", text(&second.hits[0]["content"])]).pop().unwrap_or_default();
    assert_eq!(text(&got["path"]), bed.path("leaf/else where/stone.bin").to_string_lossy());
    // What went to the folder before is still here.
    let again = leaf.lines(&["get", text(&first.hits[0]["content"])]).pop().unwrap_or_default();
    assert_eq!((&again["type"], &again["sources"][0]["via"]), (&"done".into(), &"local".into()), "{again}");
}
