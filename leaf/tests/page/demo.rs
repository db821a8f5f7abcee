//! The page of the demonstration: all of it is there.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::{
    pages::PAGES,
    search,
    support::{Bed, Program, awaited, send_signal, text},
    visit_at,
};

/// A demonstration; killed with the value.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // Fails if it has ended, which is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_page_of_the_demonstration_works() {
    let bed = Bed::new();
    bed.write(&[("mine/a note.txt", b"of mine"), ("temporary/x", b"")]);
    let (mine, temporary) = (bed.path("mine"), bed.path("temporary"));
    let arguments = ["demo", "--json", "--share", mine.to_str().unwrap()];
    let mut command = Program::Leaf.command(None, &bed.path("unused"), &arguments);
    let mut child = command.env("TMPDIR", &temporary).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut demo = Demo(child);
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let ready = lines.find(|line| line["event"] == "ready").unwrap();
    let mut folders = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path());
    let data = folders.find(|path| path.is_dir()).unwrap();
    let token = fs::read_to_string(data.join("api-token")).unwrap();

    let mut tab = visit_at(&format!("{}#token={}", text(&ready["web"]), token.trim()));
    search(&mut tab, "note");
    tab.shows("complete: 1 hit");
    for page in PAGES {
        tab.page(page);
        tab.until("!document.querySelector('main').innerText.includes('…')");
    }
    tab.page("transfers");
    tab.shows("quictrack demo file.bin");
    tab.page("settings");
    tab.fill("#option-log", "info");
    tab.press("Enter");
    tab.shows("Saved.");
    tab.fill("#option-upload_slots", "7");
    tab.press("Enter");
    tab.until("document.querySelector('#option-upload_slots').closest('.row').innerText.includes('set here')");
    tab.fill("input[name=target]", "192.0.2.0/24");
    tab.press("Enter");
    tab.until("document.querySelector('#bans td')");
    tab.page("logs");
    tab.shows("setting changed key=upload_slots");
    assert_eq!(tab.errors(), Vec::<String>::new());

    send_signal(&demo.0, "TERM");
    let ended = awaited("the demonstration ends", || demo.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    assert!(!data.exists(), "what it made is gone");
}
