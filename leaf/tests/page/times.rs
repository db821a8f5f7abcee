//! A page that is open for long: in several tabs, over a sleep of the machine, with another clock, before a daemon that hangs.

use serde_json::{Value, json};

use crate::{
    address,
    browser::Tab,
    support::{Bed, Daemon, eventually, text},
    visit,
};

/// Errors of the browser about a daemon that does not answer.
const AWAY: [&str; 3] = ["ERR_INTERNET_DISCONNECTED", "ERR_ABORTED", "ERR_NETWORK_CHANGED"];

/// A leaf without a share, in a network.
fn leaf(bed: &Bed) -> (Daemon, Daemon) {
    bed.write(&[("roses/rose.txt", b"rose"), ("tulips/tulip.txt", b"tulip")]);
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.settled(1, 0);
    (founder, leaf)
}

/// Shares another folder, and waits until the page has learned of it.
fn shows_another(tab: &mut Tab, bed: &Bed, leaf: &Daemon, folder: &str) {
    leaf.lines(&["shares", "add", "--wait", bed.path(folder).to_str().unwrap()]);
    tab.page("shared");
    tab.shows(&format!("/{folder}"));
    tab.until("!document.querySelector('#gone')");
}

/// From now on the page's clock shows `hours` more than it did.
fn set_clock(tab: &mut Tab, hours: f64) {
    tab.value("window.realNow ??= Date.now, window.ahead ??= 0, Date.now = () => realNow() + ahead, undefined");
    tab.value(&format!("ahead += {hours} * 3600e3, undefined"));
}

/// The event ids, if any, after which the page asked for events, one for each connection.
fn connections(tab: &Tab) -> Vec<Value> {
    let streams = tab.asked().into_iter().filter(|request| text(&request["url"]).ends_with("/api/v1/events"));
    streams.map(|request| request["headers"]["Last-Event-ID"].clone()).collect()
}

#[test]
fn what_one_tab_changes_another_shows_and_tabs_that_nobody_sees_take_no_connection() {
    let bed = Bed::new();
    let (_founder, leaf) = leaf(&bed);
    let mut tab = visit(&leaf);
    tab.page("shared");
    let first = tab.open_another();
    tab.go(&address(&leaf));
    tab.page("shared");
    tab.fill("input[name=path]", bed.path("roses").to_str().unwrap());
    tab.press("Enter");
    tab.shows("1 of 1 can be found by others");
    let second = tab.turn_to(first.clone());
    tab.shows("1 of 1 can be found by others");
    tab.click("button", "Stop sharing");
    tab.click("button", "Stop sharing it?");
    tab.shows("Nothing is shared");
    tab.turn_to(second);
    tab.shows("Nothing is shared");

    // A browser has six connections to a daemon. Tabs out of sight leave theirs after half a minute, here at once.
    let see = |tab: &mut Tab, is_seen: bool| {
        tab.value(&format!(
            "Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }}), \
             document.dispatchEvent(new Event('visibilitychange')), undefined",
            !is_seen
        ));
    };
    let soon = "const later = setTimeout; window.setTimeout = (act, time) => later(act, time === 30000 ? 0 : time);";
    for _ in 0..7 {
        tab.open_another();
        tab.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": soon }));
        tab.go(&address(&leaf));
        tab.page("shared");
        tab.shows("Nothing is shared");
        see(&mut tab, false);
    }
    // They know again what is so when they are seen.
    leaf.lines(&["shares", "add", "--wait", bed.path("tulips").to_str().unwrap()]);
    see(&mut tab, true);
    tab.shows("1 of 1 can be found by others");
    tab.turn_to(first);
    tab.shows("1 of 1 can be found by others");
    assert_eq!(tab.errors_beside(&AWAY), Vec::<String>::new());
}

#[test]
fn a_sleep_of_the_machine_and_another_clock_are_passed_over() {
    let bed = Bed::new();
    let (_founder, leaf) = leaf(&bed);
    let mut tab = visit(&leaf);
    tab.page("shared");
    tab.value(
        "window.complaints = 0, new MutationObserver(() => { complaints += document.querySelectorAll('#gone').length; }) \
         .observe(document.body, { childList: true, subtree: true }), undefined",
    );
    // After an hour nothing of the connection can be relied on: the page begins another one by itself.
    shows_another(&mut tab, &bed, &leaf, "roses");
    set_clock(&mut tab, 1.0);
    eventually("the page goes on after the last event", || connections(&tab).last().is_some_and(Value::is_string));
    leaf.lines(&["shares", "remove", bed.path("roses").to_str().unwrap()]);
    tab.shows("Nothing is shared");
    // A clock that is set back breaks nothing.
    let before = connections(&tab).len();
    set_clock(&mut tab, -3.0);
    shows_another(&mut tab, &bed, &leaf, "tulips");
    assert_eq!(connections(&tab).len(), before);
    assert_eq!(tab.value("complaints"), 0, "the daemon was there all the time");
    assert_eq!(tab.errors_beside(&AWAY), Vec::<String>::new());
}

#[test]
fn a_daemon_that_hangs_and_a_lost_network_are_told_and_got_over() {
    let bed = Bed::new();
    let (_founder, leaf) = leaf(&bed);
    let mut tab = visit(&leaf);
    tab.page("shared");
    leaf.signal("STOP");
    // A minute of silence, and a minute in which a new connection is not answered.
    for _ in 0..2 {
        let before = connections(&tab).len();
        set_clock(&mut tab, 1.0 / 60.0);
        eventually("the page tries again", || {
            connections(&tab).len() > before || tab.value("Boolean(document.querySelector('#gone'))") == true
        });
    }
    tab.shows("The daemon does not answer");
    leaf.signal("CONT");
    tab.until("!document.querySelector('#gone')");
    shows_another(&mut tab, &bed, &leaf, "roses");

    let network = |tab: &mut Tab, is_off: bool| {
        let conditions = json!({ "offline": is_off, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        tab.call("Network.emulateNetworkConditions", conditions);
    };
    network(&mut tab, true);
    tab.shows("The daemon does not answer");
    network(&mut tab, false);
    tab.until("!document.querySelector('#gone')");
    shows_another(&mut tab, &bed, &leaf, "tulips");
    assert_eq!(tab.errors_beside(&AWAY), Vec::<String>::new());
}
