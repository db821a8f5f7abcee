//! Searching and downloading with the page.

use std::fs;

use crate::{
    search,
    support::{Bed, awaited, bytes, eventually, text},
    visit,
};

#[test]
fn what_a_search_finds_is_downloaded_with_the_keyboard_alone() {
    let bed = Bed::new();
    let song = bytes("song", 300_000);
    bed.write(&[("pool/rose.flac", &song), ("pool/rose.txt", b"rose"), ("pool/daisy.txt", b"daisy")]);
    let founder = bed.founder("u0");
    let sharer = bed.sharing("sharer", &founder, "pool", &[]);
    sharer.settled(1, 3);
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.finds(&["rose"], &["rose.flac", "rose.txt"]);
    let mut tab = visit(&leaf);

    // What is wrong with a query is shown where it is.
    search(&mut tab, "rose \"thorn");
    tab.until("document.querySelector('.query mark')?.textContent === '\"'");
    assert_eq!(tab.value("document.querySelector('form.search input').selectionStart"), 5);
    tab.enter("-");
    tab.press("Enter");
    tab.shows("complete: 2 hits in ");
    tab.shows(", asked 1 of 1 ultrapeer");

    // Chips change the query.
    tab.click(".chip", "audio");
    tab.shows("complete: 1 hit ");
    assert_eq!(tab.value("document.querySelector('form.search input').value"), "rose -thorn kind:audio");

    tab.value("document.querySelector('form.search input').focus()");
    let at_download = "document.activeElement.matches('.download')";
    awaited("the keyboard reaches the download", || {
        tab.press("Tab");
        (tab.value(at_download) == true).then_some(())
    });
    tab.press("Enter");
    tab.until("document.querySelector('.hit .state')?.textContent === 'downloaded'");
    let job = leaf.download();
    assert_eq!(fs::read(text(&job["path"])).ok(), Some(song), "{job}");

    // Searches before are kept, and what they found is seen when one comes back.
    tab.page("logs");
    tab.page("search");
    tab.shows("complete: 1 hit ");
    tab.reload();
    tab.shows("complete: 1 hit ");
    tab.go(&crate::address(&leaf));
    assert_eq!(tab.errors_beside(&["searches"]), Vec::<String>::new());
}

#[test]
fn a_download_is_paused_goes_on_and_ends() {
    let bed = Bed::new();
    let film = bytes("film", 6 << 20);
    bed.write(&[("pool/film.mkv", &film)]);
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &["--upload-limit", "1MB"]);
    source.settled(1, 1);
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.finds(&["film"], &["film.mkv"]);
    let mut tab = visit(&leaf);
    search(&mut tab, "film");
    tab.click(".download", "Download");
    tab.page("transfers");
    tab.click(".job button", "Pause");
    tab.until("document.querySelector('.job .state')?.textContent === 'paused'");
    assert_eq!((&leaf.download()["state"], &leaf.download()["reason"]), (&"paused".into(), &"user".into()));
    tab.click("button.title", "film.mkv");
    tab.until("document.querySelector('dialog .pieces rect')");
    tab.photograph("download");
    tab.press("Escape");
    // What is selected is changed together.
    tab.click(".tools input", "");
    tab.click(".tools button", "Resume");
    tab.until("document.querySelector('.job .state')?.textContent === 'active'");
    tab.shows("source");
    tab.until("document.querySelector('.job .state')?.textContent === 'done'");
    assert_eq!(fs::read(text(&leaf.download()["path"])).ok(), Some(film));
    tab.click(".tools button", "Forget ended");
    tab.shows("Nothing is downloaded.");
    eventually("the job is forgotten", || leaf.lines(&["downloads"]).is_empty());
    assert_eq!(tab.errors(), Vec::<String>::new());
}

#[test]
fn of_thousands_of_rows_only_those_in_sight_are_in_the_document() {
    const FILES: usize = 5000;
    const JOBS: usize = 1000;
    let bed = Bed::new();
    for number in 0..FILES {
        let folder = if number < JOBS { "some" } else { "more" };
        bed.write(&[(&format!("pool/{folder}/petal {number:04}.txt"), number.to_string().as_bytes())]);
    }
    let founder = bed.founder("u0");
    let sharer = bed.sharing("sharer", &founder, "pool", &[]);
    sharer.settled(1, FILES as u64);
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.settled(1, 0);
    let mut tab = visit(&leaf);
    search(&mut tab, "petal");
    tab.shows("incomplete: 1,000 hits");
    tab.shows("narrow the query, or find all");
    tab.click(".outcome button", "Find all");
    tab.shows("complete: 5,000 hits");
    let rows = "document.querySelectorAll('main li').length";
    let at_end = "document.querySelector('main li:last-child').ariaPosInSet";
    tab.until(&format!("{rows} < 60"));
    tab.value("scrollTo(0, document.documentElement.scrollHeight)");
    tab.until(&format!("{at_end} === '5000'"));
    tab.until(&format!("{rows} < 60"));

    tab.page(&format!("browse/{}/pool/some", sharer.peer()));
    let all = "document.querySelector('main li')?.ariaSetSize";
    tab.until(&format!("{all} === '200' && {rows} < 60"));
    tab.click(".tools button", "Next page");
    tab.shows("petal 0200.txt");
    tab.until(&format!("{all} === '200' && {rows} < 60"));
    tab.click(".tools button", "Download this folder");
    tab.shows("1,000 files");
    tab.page("transfers");
    tab.until("document.querySelector('.tabs .badge').textContent === '1000'");
    tab.until(&format!("{rows} < 60"));
    tab.value("scrollTo(0, document.documentElement.scrollHeight)");
    tab.until(&format!("{at_end} === '1000'"));
    assert_eq!(tab.errors(), Vec::<String>::new());
}
