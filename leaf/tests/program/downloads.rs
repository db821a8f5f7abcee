//! `get`: from several sources, again, under another name, over restarts and deaths.

use std::{fs, time::Duration};

use data_encoding::BASE64;
use serde_json::Value;

use crate::support::{Bed, Daemon, awaited, bytes, content_of, eventually, list, number, of_type, sources_of, text};

/// Bytes of the large file of these tests: several pieces for each source.
const LARGE: usize = 8 << 20;
/// Bytes a second of a source where the middle of a download must exist.
const SLOW: &str = "1MB";

/// Bytes of a piece of the large file.
const PIECE: u64 = 256 << 10;
/// The pieces that a process got from others, and that were right.
const FETCHED: &str = r#"quictrack_verified_pieces_total{result="ok"}"#;

/// The verified pieces of the only download, as bits.
fn pieces(leaf: &Daemon) -> Vec<u8> {
    let pieces = &leaf.api(&format!("downloads/{}", text(&leaf.download()["id"])))["pieces"];
    if pieces["size"].is_u64() {
        assert_eq!(number(&pieces["size"]), PIECE);
    }
    BASE64.decode(text(&pieces["done"]).as_bytes()).unwrap_or_default()
}

/// The line `done` of a download, which must have ended well.
fn done(leaf: &Daemon, arguments: &[&str]) -> Value {
    let lines = leaf.lines(&[&["get"], arguments].concat());
    let done = of_type(&lines, "done");
    assert_eq!(done.len(), 1, "{lines:?}");
    done[0].clone()
}

/// A network in which `sources` leaves share a large file, and a leaf that has nothing.
struct Swarm {
    large: Vec<u8>,
    content: String,
    founder: Daemon,
    sources: Vec<Daemon>,
}

impl Swarm {
    fn new(bed: &Bed, sources: usize, options: &[&str]) -> Self {
        let large = bytes("large", LARGE);
        bed.write(&[("pool/large.bin", &large)]);
        let founder = bed.founder("u0");
        let start = |number| bed.sharing(&format!("source-{number}"), &founder, "pool", options);
        let sources: Vec<_> = (0..sources).map(start).collect();
        for source in &sources {
            source.settled(1, 1);
        }
        Self { content: content_of(&large), large, founder, sources }
    }

    /// Starts the download and waits until a part of it, but not all, is there.
    fn begin(&self, leaf: &Daemon, part: usize) {
        leaf.finds(&["large"], &["large.bin"]);
        let queued = leaf.lines(&["get", "--detach", &self.content]).remove(0);
        assert_eq!((&queued["type"], &queued["content"]), (&"queued".into(), &self.content.as_str().into()));
        eventually("a part is there", || number(&leaf.download()["bytes"]) >= part as u64);
        assert_ne!(leaf.download()["state"], "done", "the sources are too fast for this test");
    }

    /// Waits until the download is complete, and compares the bytes.
    fn complete(&self, leaf: &Daemon) -> Value {
        let job = awaited("the download is complete", || Some(leaf.download()).filter(|job| job["state"] == "done"));
        assert_eq!(number(&job["bytes"]), LARGE as u64);
        assert!(fs::read(text(&job["path"])).is_ok_and(|got| got == self.large), "the bytes are wrong");
        job
    }
}

#[test]
fn several_sources_share_the_work() {
    let bed = Bed::new();
    // Three slots and no hurry: each has time to take part.
    let swarm = Swarm::new(&bed, 3, &["--upload-limit", "4MB"]);
    let leaf = bed.leaf("leaf", &swarm.founder, &[]);
    leaf.finds(&["large"], &["large.bin"]);
    let first = done(&leaf, &[&swarm.content]);
    assert_eq!(fs::read(text(&first["path"])).ok(), Some(swarm.large.clone()));
    assert_eq!(text(&first["path"]), bed.path("leaf/downloads/large.bin").to_string_lossy());
    assert_eq!(number(&first["bytes"]), LARGE as u64);
    let sources = sources_of(&first);
    assert_eq!(sources.values().sum::<u64>(), LARGE as u64);
    for source in &swarm.sources {
        assert!(sources.contains_key(source.peer()), "{first}");
    }
    assert!(list(&first["sources"]).iter().all(|source| source["via"] == "direct"), "{first}");

    // What is here is done at once, also for who has it in a share.
    let again = done(&leaf, &[&swarm.content.to_uppercase()]);
    assert_eq!(again["path"], first["path"]);
    let shared = done(&swarm.sources[0], &[&swarm.content]);
    assert_eq!(text(&shared["path"]), bed.path("pool/large.bin").to_string_lossy());
    let local = &list(&shared["sources"])[0];
    assert_eq!((text(&local["via"]), number(&local["bytes"])), ("local", LARGE as u64));
}

#[test]
fn the_output_is_a_folder_or_a_new_name_but_never_another_file() {
    let bed = Bed::new();
    let small = bytes("small", 300_000);
    bed.write(&[("pool/small.bin", &small), ("taken.bin", b"something else"), ("folder/x", b"x")]);
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &[]);
    source.settled(1, 1);
    let leaf = bed.leaf("leaf", &founder, &[]);
    let content = text(&leaf.finds(&["small"], &["small.bin"]).hits[0]["content"]).to_owned();
    let path = |name: &str| bed.path(name).to_string_lossy().into_owned();

    let taken = leaf.run(&["get", "-o", &path("taken.bin"), &content]);
    assert_eq!(taken.code, Some(1), "{taken:?}");
    let failed = taken.lines().pop().unwrap_or_default();
    assert_eq!((text(&failed["type"]), text(&failed["reason"])), ("failed", "conflict"));
    assert_eq!(fs::read(bed.path("taken.bin")).ok().as_deref(), Some(&b"something else"[..]));

    for (output, expected) in [
        ("new name.bin", path("new name.bin")),
        ("folder", path("folder/small.bin")),
        ("made/", path("made/small.bin")),
    ] {
        let output = if output.ends_with('/') { path(output) + "/" } else { path(output) };
        // The first digits are enough for a content that was found.
        let done = done(&leaf, &["-o", &output, &content[..10]]);
        assert_eq!(text(&done["path"]), expected);
        assert_eq!(fs::read(&expected).ok().as_ref(), Some(&small), "{expected}");
    }

    // Wherever it was put, it is here, also after a restart, and as long as one of them is there.
    let leaf = {
        drop((leaf, source));
        bed.leaf("leaf", &founder, &[])
    };
    let again = done(&leaf, &[&content]);
    let is_local = |done: &Value| list(&done["sources"]).iter().all(|source| source["via"] == "local");
    assert!(is_local(&again), "{again}");
    fs::remove_file(text(&again["path"])).unwrap_or_default();
    let other = done(&leaf, &[&content]);
    assert!(is_local(&other) && other["path"] != again["path"], "{other}");
}

#[test]
fn a_finished_download_is_found_by_its_content_alone() {
    let bed = Bed::new();
    let small = bytes("small", 300_000);
    bed.write(&[("pool/small.bin", &small)]);
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &[]);
    source.settled(1, 1);
    let second = bed.leaf("second", &founder, &[]);
    let content = text(&second.finds(&["small"], &["small.bin"]).hits[0]["content"]).to_owned();
    done(&second, &[&content]);
    source.terminate(Duration::from_secs(20));
    second.settled(1, 0);

    // Nobody's search shows it, and no listing; who knows the content gets it.
    let third = bed.leaf("third", &founder, &[]);
    third.finds(&["small"], &[]);
    assert_eq!(third.run(&["browse", "--recursive", second.peer()]).lines(), [Value::Null; 0]);
    let third = done(&third, &["--timeout", "30", "-o", &bed.path("third.bin").to_string_lossy(), &content]);
    assert_eq!(fs::read(text(&third["path"])).ok(), Some(small));
    assert_eq!(sources_of(&third).into_keys().collect::<Vec<_>>(), [second.peer()]);
}

#[test]
fn a_killed_downloader_goes_on_where_it_was() {
    let bed = Bed::new();
    let swarm = Swarm::new(&bed, 2, &["--upload-limit", SLOW]);
    let leaf = bed.leaf("leaf", &swarm.founder, &[]);
    swarm.begin(&leaf, LARGE * 5 / 8);
    let (id, before) = (text(&leaf.download()["id"]).to_owned(), pieces(&leaf));
    leaf.kill();

    let leaf = bed.leaf("leaf", &swarm.founder, &[]);
    eventually("what was verified is here", || {
        let now = pieces(&leaf);
        before.iter().zip(&now).all(|(before, now)| before & !now == 0) && !now.is_empty()
    });
    let job = swarm.complete(&leaf);
    assert_eq!(text(&job["id"]), id);
    assert_eq!(sources_of(&job).values().sum::<u64>(), LARGE as u64);
    let verified = before.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>() * PIECE;
    let (fetched, missing) = (leaf.counted(FETCHED) * PIECE, LARGE as u64 - verified);
    assert!(fetched <= missing, "{fetched} bytes were fetched for {missing} that were missing");
}

#[test]
fn the_death_of_one_source_is_survived() {
    let bed = Bed::new();
    let mut swarm = Swarm::new(&bed, 2, &["--upload-limit", SLOW]);
    let leaf = bed.leaf("leaf", &swarm.founder, &[]);
    swarm.begin(&leaf, LARGE / 2);
    let (victim, survivor) = (swarm.sources.remove(0), &swarm.sources[0]);
    victim.kill();
    let job = swarm.complete(&leaf);
    let sources = sources_of(&job);
    assert_eq!(sources.values().sum::<u64>(), LARGE as u64);
    assert!(sources[survivor.peer()] > LARGE as u64 / 4, "{job}");
}

#[test]
fn get_gives_up_after_half_a_minute_without_a_source_and_the_job_goes_on() {
    let bed = Bed::new();
    let late = bytes("late", 300_000);
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.settled(1, 0);
    // The one that has a time of its own gives up before the one that has none.
    let patient = leaf.start_command(&["get", &content_of(&late)]);
    patient.says("progress");
    let hasty = leaf.run(&["get", "--timeout", "1", &content_of(&late)]);
    for ended in [hasty, patient.end()] {
        let failed = ended.lines().pop().unwrap_or_default();
        assert_eq!((ended.code, text(&failed["type"]), text(&failed["reason"])), (Some(3), "failed", "no_source"));
        assert_eq!(text(&failed["content"]), content_of(&late));
        assert!(ended.stderr.contains("goes on"), "{ended:?}");
    }
    let id = text(&leaf.download()["id"]).to_owned();
    bed.write(&[("pool/late.bin", &late)]);
    let source = bed.sharing("source", &founder, "pool", &[]);
    source.settled(1, 1);
    let job = awaited("it is done", || Some(leaf.download()).filter(|job| job["state"] == "done"));
    assert_eq!((text(&job["id"]), fs::read(text(&job["path"])).ok()), (&*id, Some(late)));
}
