//! Names and tags of strangers: of any length, with anything in them.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{
    browser::Tab,
    search,
    support::{Bed, awaited, list, text},
    visit,
};

/// Bytes of the longest path that is listed, from the share's name down.
const PATH_BYTES: usize = 4096;
/// Bytes of the longest name that a file system takes.
const NAME_BYTES: usize = 255;
/// Bytes of the longest tag that is listed.
const TAG_BYTES: usize = 256;
/// Markup, a change of direction, an emoji of several, a letter with marks.
const NASTY: &str = "<img src=x onerror=alert(1)> \u{202e}gpj \u{1f468}\u{200d}\u{1f469} z\u{35c}\u{361}\u{489} &lt; ";

/// As much of [`NASTY`] as goes into that many bytes, filled up.
fn nasty(bytes: usize) -> String {
    let long = NASTY.repeat(bytes / NASTY.len() + 1);
    let cut = &long[..long.floor_char_boundary(bytes)];
    format!("{cut}{}", "w".repeat(bytes - cut.len()))
}

/// A folder that is `shown` bytes long when it is shown. Most of it is bytes that are no text: on the disk these take one
/// byte instead of three, so that the system's own limit is kept.
fn deep(mut shown: usize) -> PathBuf {
    let mut folder = PathBuf::new();
    // The first ones are the longest that there are: 255 bytes, shown as 765.
    while shown > 3 * 765 {
        folder.push(OsStr::from_bytes(&[0xff; NAME_BYTES]));
        shown -= 765 + 1;
    }
    while shown > NAME_BYTES {
        // What is left must hold a name.
        let part = if shown - NAME_BYTES < 2 { NAME_BYTES - 2 } else { NAME_BYTES };
        folder.push(nasty(part));
        shown -= part + 1;
    }
    folder.join("w".repeat(shown))
}

/// One second of silence with these texts as its title, artist, album and genre.
fn song(tag: &str) -> Vec<u8> {
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let padding = vec![0; body.len() % 2];
        [name, &(body.len() as u32).to_le_bytes()[..], body, &padding].concat()
    };
    let texts = [b"INAM", b"IART", b"IPRD", b"IGNR"].map(|name| chunk(name, &[tag.as_bytes(), b"\0"].concat()));
    let info = [&b"INFO"[..], &texts.concat()].concat();
    let format = b"\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0";
    let body = [&b"WAVE"[..], &chunk(b"fmt ", format), &chunk(b"LIST", &info), &chunk(b"data", &[0x80; 8000])].concat();
    chunk(b"RIFF", &body)
}

/// Nothing sticks out of a narrow page, and no name became a part of it.
fn is_tidy(tab: &mut Tab, what: &str) {
    assert_eq!(tab.value("document.documentElement.scrollWidth"), 360, "{what}");
    assert_eq!(tab.value("document.querySelectorAll('main img, main script, main b').length"), 0, "{what}");
    let rows = "[...document.querySelectorAll('main li')].every(row => row.scrollWidth <= document.documentElement.clientWidth)";
    assert_eq!(tab.value(rows), true, "{what}");
}

#[test]
fn names_of_strangers_are_text_and_nothing_else() {
    let bed = Bed::new();
    let deep: Vec<_> = (0..12).map(|level| format!("{level}{}", "x".repeat(200))).collect();
    let names = [
        "hostile <img src=x onerror=alert(1)>.txt".to_owned(),
        "hostile <script>window.broken = 1<|script>.txt".replace('|', "\u{2215}"),
        "hostile \u{202e}gpj.exe".to_owned(),
        "hostile \u{5d0}\u{5d1} \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{1f3f4}.txt".to_owned(),
        "hostile \u{1b}[31m\ttab.txt".to_owned(),
        "hostile ${alert(1)} {{7*7}} &lt;b&gt; ' \".txt".to_owned(),
        format!("hostile {}.txt", "w".repeat(240)),
        format!("{}/hostile deep.txt", deep.join("/")),
    ];
    for (number, name) in names.iter().enumerate() {
        bed.write(&[(&format!("pool/{name}"), number.to_string().as_bytes())]);
    }
    let founder = bed.founder("u0");
    let sharer = bed.sharing("sharer", &founder, "pool", &[]);
    sharer.settled(1, names.len() as u64);
    let leaf = bed.leaf("leaf", &founder, &[]);
    awaited("all are found", || (leaf.search(&["hostile"]).hits.len() == names.len()).then_some(()));
    let mut tab = visit(&leaf);
    search(&mut tab, "hostile");
    tab.shows(&format!("complete: {} hits", names.len()));
    tab.resize(360, 740);
    tab.photograph("hostile");
    tab.shows("hostile <img src=x onerror=alert(1)>.txt");
    tab.shows("hostile U+202Egpj.exe");
    tab.shows("\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}");
    tab.shows("\u{241b}[31m\u{2409}tab.txt");
    assert_eq!(tab.value("document.querySelectorAll('main img, main script, main b').length"), 0);
    for title in ["wwww", "hostile deep", "gpj"] {
        tab.click("button.title", title);
        tab.until("document.querySelector('dialog[open]')");
        let inside = "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth";
        assert_eq!(tab.value(inside), true, "{title} is wrapped");
        assert_eq!(tab.value("document.documentElement.scrollWidth"), 360);
        tab.photograph(&format!("hostile-{}", title.replace(' ', "-")));
        tab.press("Escape");
        tab.until("!document.querySelector('dialog')");
    }
    tab.page(&format!("browse/{}/pool", sharer.peer()));
    tab.shows("hostile <img src=x");
    assert_eq!(tab.value("document.documentElement.scrollWidth"), 360);
    assert_eq!(tab.value("window.broken ?? null"), serde_json::Value::Null);
    assert_eq!(tab.errors(), Vec::<String>::new());
}

#[test]
fn the_longest_names_and_tags_are_shown_and_downloaded_under_shorter_ones() {
    let bed = Bed::new();
    let path = bed.path("pool");
    let write = |file: &Path, bytes: &[u8]| {
        fs::create_dir_all(path.join(file).parent().unwrap()).unwrap();
        fs::write(path.join(file), bytes).unwrap();
    };
    let longest = deep(PATH_BYTES - "pool/".len() - "/hostile deep.txt".len());
    write(&longest.join("hostile deep.txt"), b"deep");
    // A byte more is not listed.
    write(&longest.join("hostile deeper.txt"), b"deeper");
    let name = format!("hostile {}.txt", nasty(NAME_BYTES - "hostile .txt".len()));
    write(Path::new(&name), b"name");
    let stray = [b"hostile ", &[0xff; NAME_BYTES - 12][..], b".txt"].concat();
    write(Path::new(OsStr::from_bytes(&stray)), b"stray");
    let tag = nasty(2 * TAG_BYTES);
    write(Path::new("hostile.wav"), &song(&tag));

    let founder = bed.founder("u0");
    let sharer = bed.sharing("sharer", &founder, "pool", &[]);
    sharer.settled(1, 4);
    let leaf = bed.leaf("leaf", &founder, &[]);
    let found = awaited("all are found", || Some(leaf.search(&["hostile"])).filter(|found| found.hits.len() == 4));
    let lengths = |key: &str| found.hits.iter().map(|hit| text(&hit[key]).len()).max();
    assert_eq!((lengths("path"), lengths("name")), (Some(PATH_BYTES), Some(stray.len() + 2 * (NAME_BYTES - 12))));
    let tags = found.hits.iter().find(|hit| hit["kind"] == "audio").unwrap();
    let cut = &tag[..tag.floor_char_boundary(TAG_BYTES)];
    assert_eq!(text(&tags["tags"]["artist"]), cut.trim_end());

    let mut tab = visit(&sharer);
    tab.resize(360, 740);
    tab.page("shared");
    tab.click("button", "Show them");
    tab.shows("its path is too long");
    is_tidy(&mut tab, "skipped");
    tab.photograph("long-skipped");

    tab.go(&crate::address(&leaf));
    tab.until("document.querySelector('form.search')");
    search(&mut tab, "hostile");
    tab.shows("complete: 4 hits");
    is_tidy(&mut tab, "results");
    for (number, hit) in found.hits.iter().enumerate() {
        let title = format!("main li:nth-child({}) button.title", number + 1);
        tab.click(&title, "");
        tab.until("document.querySelector('dialog[open]')");
        let inside = "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth";
        assert_eq!(tab.value(inside), true, "{hit}");
        is_tidy(&mut tab, "a result");
        tab.photograph(&format!("long-{number}"));
        tab.click("dialog .download", "Download");
        tab.until("document.querySelector('dialog .state')?.textContent === 'downloaded'");
        tab.press("Escape");
        tab.until("!document.querySelector('dialog')");
    }
    tab.page("transfers");
    tab.until("document.querySelectorAll('.job').length === 4");
    is_tidy(&mut tab, "transfers");
    tab.photograph("long-transfers");
    let downloads = leaf.data().join("downloads");
    let jobs = leaf.lines(&["downloads"]);
    for (content, bytes) in [(b"deep".as_slice(), 4), (b"name", 4), (b"stray", 5)] {
        let id = crate::support::content_of(content);
        let job = jobs.iter().find(|job| job["content"] == id.as_str()).unwrap();
        let path = Path::new(text(&job["path"]));
        assert_eq!((path.parent(), job["bytes"].as_u64()), (Some(&*downloads), Some(bytes)), "{job}");
        let name = path.file_name().unwrap();
        assert!(name.len() <= NAME_BYTES && !name.to_str().unwrap().contains(['<', '\u{202e}']), "{job}");
        assert_eq!(fs::read(path).unwrap(), content, "{job}");
    }

    let folder = found.hits.iter().find_map(|hit| text(&hit["path"]).strip_suffix("/hostile deep.txt")).unwrap();
    let address = tab.value(&format!("{}.split('/').map(encodeURIComponent).join('/')", serde_json::json!(folder)));
    tab.page(&format!("browse/{}/{}", sharer.peer(), text(&address)));
    tab.shows("hostile deep.txt");
    is_tidy(&mut tab, "browse");
    tab.photograph("long-browse");
    assert_eq!(list(&leaf.api("downloads")["items"]).len(), 4);
    assert_eq!(tab.errors(), Vec::<String>::new());
}
