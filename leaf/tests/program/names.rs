//! Names of others: on the terminal, in JSON and on this disk they are labels, nothing more.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::{collections::BTreeSet, ffi::OsStr, fs, os::unix::ffi::OsStrExt};

use crate::support::{Bed, awaited, bytes, content_of, list, of_type, text};

/// File names that a disk may hold, each of which some program has stumbled over.
const NAMES: [&[u8]; 13] = [
    b"relic plain.txt",
    b"relic \x1b[2J\x1b]0;title\x07.txt",
    b"relic \xc2\x9b31m.txt",
    b"relic\nnew\rline\tand\x7fmore.txt",
    b"relic ..\\..\\windows\\system32.txt",
    b"relic \xe2\x80\xaetxt.exe",
    b"relic \xe2\x81\xa6isolate\xe2\x80\xa8line.txt",
    b"relic \xff\xfe no text.txt",
    b"relic '; touch stolen; '.txt",
    b"relic $(touch stolen) `id`.txt",
    b"relic ends with a dot.",
    b"NUL.relic",
    b"relic -rf --help.txt",
];

/// True for what must not reach a terminal.
fn is_harmful(character: char) -> bool {
    (character.is_control() && character != '\n')
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[test]
fn names_of_others_move_no_cursor_and_leave_no_folder() {
    let bed = Bed::new();
    let evil = bed.path("Evil\u{1b}[31m\u{202e}");
    fs::create_dir_all(evil.join("deep\\..")).unwrap();
    let long = [b"relic ".to_vec(), vec![b'x'; 245], b".txt".to_vec()].concat();
    let names: Vec<&[u8]> = NAMES.into_iter().chain([&long[..]]).collect();
    let content = |at: usize| bytes(&format!("relic {at}"), 100 + at);
    for (at, name) in names.iter().enumerate() {
        fs::write(evil.join("deep\\..").join(OsStr::from_bytes(name)), content(at)).unwrap();
    }
    let founder = bed.founder("u0");
    let owner = bed.sharing("owner", &founder, evil.file_name().unwrap().to_str().unwrap(), &[]);
    owner.settled(1, names.len() as u64);
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.settled(1, 0);
    let found =
        awaited("all are found", || Some(leaf.search(&["relic"])).filter(|found| found.hits.len() == names.len()));
    let given: BTreeSet<_> = found.hits.iter().map(|hit| text(&hit["name"]).to_owned()).collect();
    let on_disk: BTreeSet<_> = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(given, on_disk, "JSON tells the names as they are");

    let contents: Vec<_> = (0..names.len()).map(|at| content_of(&content(at))).collect();
    let peer = owner.peer();
    let folder = format!("{}/deep\\..", evil.file_name().unwrap().to_str().unwrap());
    let gets = [&["get"], &contents.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat();
    let missing = ["get", "--timeout", "1", "\u{1b}[2J"];
    for command in [
        &["search", "relic"][..],
        &["search", "--sort", "found", "relic"],
        &["browse", peer],
        &["browse", "--recursive", peer],
        &["browse", peer, &folder],
        &gets,
        &missing,
        &["downloads"],
        &["status"],
        &["peers"],
    ] {
        let said = leaf.text(command);
        assert!(!said.contains(is_harmful), "{command:?}: {said:?}");
    }
    for command in [&["shares"][..], &["shares", "skipped"], &["status"], &["uploads"]] {
        let said = owner.text(command);
        assert!(!said.contains(is_harmful), "{command:?}: {said:?}");
    }
    for command in [&["downloads"][..], &["search", "relic"], &["browse", "--recursive", peer]] {
        let said = leaf.run(command);
        assert!(!said.stdout.contains(is_harmful), "{command:?}: {said:?}");
        assert!(said.lines().len() >= names.len());
    }

    // Single components of the download folder, whose bytes are right.
    let downloads = bed.path("leaf/downloads");
    check_folder(&downloads, names.len(), &content);
    // A folder of a share comes into folders below the output.
    let into = bed.path("into");
    let lines = leaf.lines(&["get", "-o", &format!("{}/", into.display()), &format!("{peer}/{folder}")]);
    let done = of_type(&lines, "done");
    assert_eq!(done.len(), names.len(), "{lines:?}");
    assert!(done.iter().all(|done| text(&done["path"]).starts_with(into.to_str().unwrap())), "{done:?}");
    let below: Vec<_> = fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(below.len(), 1, "{below:?}");
    check_folder(&below[0], names.len(), &content);
    assert!(list(&leaf.status()["problems"]).is_empty());
    for log in [leaf.log(), owner.log(), founder.log()] {
        assert!(!log.contains(is_harmful) && !log.contains("relic"), "{log:?}");
    }
}

fn check_folder(folder: &std::path::Path, files: usize, content: &dyn Fn(usize) -> Vec<u8>) {
    let mut left: BTreeSet<_> = (0..files).map(content).collect();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name == ".partial" {
            continue;
        }
        assert!(entry.metadata().unwrap().is_file(), "{name:?}");
        assert!(!name.contains(is_harmful) && !name.contains(['/', '\\', '\n']), "{name:?}");
        assert!(name.len() <= 255 && !name.ends_with(['.', ' ']) && !name.starts_with("NUL"), "{name:?}");
        assert!(left.remove(&fs::read(entry.path()).unwrap()), "{name:?} holds something else");
    }
    assert!(left.is_empty(), "{} files are missing", left.len());
}
