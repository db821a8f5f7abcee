//! Each page as it looks: in both colour schemes, on wide and narrow screens, to assistive technology, and to others.

use std::{path::Path, process::Command, time::Duration};

use crate::{
    address, search,
    support::{Bed, Daemon, Program, bytes, text},
    visit,
};

pub(crate) const PAGES: [&str; 9] =
    ["search", "transfers", "transfers/up", "shared", "wishes", "browse", "network", "settings", "logs"];
/// Time in which a daemon ends in order.
const END: Duration = Duration::from_secs(25);

#[test]
fn every_page_is_readable_by_everybody_and_asks_nobody_else() {
    let bed = Bed::new();
    let songs: Vec<_> = (1..=12).map(|number| format!("pool/Rose Garden/{number:02} a rose song.flac")).collect();
    for song in &songs {
        bed.write(&[(song, &bytes(song, 20_000))]);
    }
    bed.write(&[
        ("pool/Rose Garden/roses.pdf", &bytes("pdf", 900_000)),
        ("own/mine.txt", b"mine"),
        ("own/empty.txt", b""),
    ]);
    let founder = bed.founder("u0");
    let sharer = bed.sharing("sharer", &founder, "pool", &[]);
    let leaf = bed.sharing("leaf", &founder, "own", &[]);
    sharer.settled(1, 13);
    leaf.settled(1, 1);
    leaf.finds(&["roses"], &["roses.pdf"]);
    let mut tab = visit(&leaf);
    assert_eq!(tab.value("location.hash"), "#/search", "the token is not left in the address bar");
    search(&mut tab, "rose");
    tab.until("document.querySelector('#outcome')");
    leaf.lines(&["wish", "add", "rose"]);
    let roses = leaf.finds(&["roses"], &["roses.pdf"]);
    leaf.lines(&["get", text(&roses.hits[0]["content"])]);
    leaf.lines(&["ban", "192.0.2.0/24"]);
    let pages =
        PAGES.iter().map(|page| (*page).to_owned()).chain([format!("browse/{}/pool/Rose Garden", sharer.peer())]);
    for page in pages {
        tab.page(&page);
        tab.until("!document.querySelector('main').innerText.includes('…')");
        for (scheme, width) in [("light", 1200), ("dark", 1200), ("dark", 360), ("light", 360)] {
            tab.prefer(scheme);
            tab.resize(width, 800);
            let name = format!("{} {scheme} {width}", page.split('/').take(2).collect::<Vec<_>>().join("-"));
            tab.photograph(&name.replace(' ', "-"));
            assert_eq!(tab.value("document.documentElement.scrollWidth"), width, "{name} is too wide");
            assert_eq!(tab.barriers(), Vec::<String>::new(), "{name}");
        }
    }
    for (page, title) in [("search", "a rose song"), ("transfers", "roses.pdf")] {
        tab.page(page);
        tab.click("button.title", title);
        tab.until("document.querySelector('dialog[open]')");
        tab.resize(1200, 800);
        tab.photograph(&format!("{page}-dialog"));
        assert_eq!(tab.barriers(), Vec::<String>::new(), "the window of {page}");
        tab.press("Escape");
        tab.until("!document.querySelector('dialog')");
    }
    let own = text(&leaf.ready["web"]);
    let foreign: Vec<_> = tab.requests().into_iter().filter(|url| !url.starts_with(own)).collect();
    assert_eq!(foreign, Vec::<String>::new());
    assert!(tab.requests().iter().all(|url| !url.contains("token")), "the token is in no address");
    assert_eq!(tab.errors(), Vec::<String>::new());
}

#[test]
fn the_page_says_that_the_daemon_is_gone_and_goes_on_when_it_is_back() {
    let bed = Bed::new();
    bed.write(&[("pool/rose.txt", b"rose")]);
    let founder = bed.founder("u0");
    let sharer = bed.sharing("sharer", &founder, "pool", &[]);
    sharer.settled(1, 1);
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.settled(1, 0);
    let api = text(&leaf.ready["api"]).strip_prefix("http://").unwrap().to_owned();
    let mut tab = visit(&leaf);
    tab.page("network");
    tab.shows("1 home");
    assert_eq!(leaf.terminate(END).code(), Some(0));
    tab.shows("The daemon does not answer");
    tab.photograph("gone");
    let data = bed.path("leaf");
    let again = Daemon::start(Program::Leaf, &data, &["--join", &founder.quic(), "--api", &api]);
    tab.until("!document.querySelector('#gone')");
    again.settled(1, 0);
    search(&mut tab, "rose");
    tab.shows("complete: 1 hit");
    // What the browser says of a server that is away is all that it says.
    assert_eq!(
        tab.errors_beside(&["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_RESET"]),
        Vec::<String>::new()
    );
}

#[test]
fn a_tab_without_the_token_asks_for_it() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    let printed = leaf.lines(&["open"]).remove(0);
    assert_eq!((text(&printed["type"]), text(&printed["url"])), ("page", address(&leaf).as_str()));
    let mut tab = crate::Tab::open();
    tab.go(text(&leaf.ready["web"]));
    tab.shows("needs the daemon's token");
    assert_eq!(tab.barriers(), Vec::<String>::new());
    tab.fill("#token input", "0123456789abcdef");
    tab.press("Enter");
    tab.shows("needs the daemon's token");
    tab.fill("#token input", text(&printed["url"]));
    tab.press("Enter");
    tab.until("document.querySelector('form.search')");
    // Another tab gets it from this one.
    tab.open_another();
    tab.go(text(&leaf.ready["web"]));
    tab.until("document.querySelector('form.search')");
}

#[test]
fn the_code_of_others_is_as_they_published_it() {
    for folder in ["page/vendor", "tests/page/vendor"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let output =
            Command::new("sha256sum").args(["--check", "--strict", "SHA256"]).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stdout));
        let listed = std::fs::read_to_string(folder.join("SHA256")).unwrap().lines().count();
        let is_code = |name: &str| matches!(name.rsplit('.').next(), Some("js" | "css"));
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(files.filter(|name| is_code(name)).count(), listed, "{}", folder.display());
    }
}
