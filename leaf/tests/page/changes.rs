//! What is changed with the page: shares, wishes, bans, settings.

use crate::{
    support::{Bed, awaited, list},
    visit,
};

#[test]
fn shares_wishes_bans_and_settings_are_changed() {
    let bed = Bed::new();
    bed.write(&[("own/rose.txt", b"rose"), ("own/empty.txt", b""), ("other/a tulip.txt", b"tulip")]);
    let founder = bed.founder("u0");
    let other = bed.leaf("other-leaf", &founder, &[]);
    other.settled(1, 0);
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.settled(1, 0);
    let mut tab = visit(&leaf);

    tab.page("shared");
    tab.fill("input[name=path]", "relative");
    tab.press("Enter");
    tab.shows("not an absolute path");
    tab.fill("input[name=path]", bed.path("own").to_str().unwrap());
    tab.press("Enter");
    tab.shows("1 of 1 can be found by others");
    tab.shows("1 skipped");
    leaf.settled(1, 1);
    tab.click("button", "Show them");
    tab.shows("has no bytes");
    tab.click("button", "Look at all again");
    tab.click("button", "Stop sharing");
    tab.click("button", "Stop sharing it?");
    tab.shows("Nothing is shared");
    leaf.settled(1, 0);

    tab.page("wishes");
    tab.click("input[type=checkbox]", "");
    tab.fill("input[name=most]", "many");
    tab.fill("input[name=query]", "tulip");
    tab.press("Enter");
    tab.shows("is no size");
    tab.fill("input[name=most]", "1.5 MB");
    tab.press("Enter");
    tab.shows("downloads what it finds, up to 1.5 MB");
    assert_eq!(leaf.lines(&["wish"])[0]["max_size"], 1_500_000);
    other.lines(&["shares", "add", "--wait", bed.path("other").to_str().unwrap()]);
    tab.click("button", "Show hits");
    tab.shows("a tulip.txt");
    awaited("it is fetched", || Some(leaf.download()).filter(|job| job["state"] == "done"));
    tab.click("button", "Remove");
    tab.click("button", "Remove this wish?");
    tab.shows("You wish for nothing yet");
    assert!(leaf.lines(&["wish"]).is_empty());

    tab.page("settings");
    tab.fill("#option-upload_slots", "9");
    tab.press("Enter");
    tab.shows("Saved.");
    assert_eq!(slots(&leaf), (9.into(), "settings".into()));
    tab.click("form", "upload_slots");
    tab.click("button", "Reset upload_slots");
    awaited("the default counts again", || (slots(&leaf).1 == "default").then_some(()));
    tab.fill("#option-upload_limit", "fast");
    tab.press("Enter");
    tab.until("document.querySelector('.option .bad')");
    assert_eq!(tab.value("document.querySelector('#option-listen').disabled"), true, "the command line holds it");

    tab.fill("input[name=target]", "192.0.2.0/24");
    tab.press("Enter");
    tab.until("document.querySelector('#bans td')");
    assert_eq!(list(&leaf.api("bans")["items"])[0]["target"], "192.0.2.0/24");
    tab.click("button", "Lift");
    tab.click("button", "Lift it?");
    tab.shows("Nobody is banned");
    assert!(list(&leaf.api("bans")["items"]).is_empty());

    tab.page("logs");
    tab.fill("main input[type=search]", "setting changed");
    tab.shows("setting changed");

    // What was refused is all that went wrong.
    assert_eq!(tab.errors_beside(&["/api/v1/shares", "/api/v1/config"]), Vec::<String>::new());
}

/// The value of a setting and its origin.
fn slots(leaf: &crate::support::Daemon) -> (serde_json::Value, serde_json::Value) {
    let options = leaf.api("config?limit=1000");
    let option = list(&options["items"]).iter().find(|option| option["key"] == "upload_slots").unwrap();
    (option["value"].clone(), option["origin"].clone())
}
