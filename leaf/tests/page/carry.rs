//! Settings, shares, wishes and bans in a file: from node to node, by the page and by the command.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    address,
    browser::Tab,
    support::{Bed, Daemon, Program, awaited},
    visit,
};

/// Presses the button that saves, and reads what was saved.
fn saved(tab: &mut Tab, folder: &Path, name: &str) -> Value {
    let to = json!({ "behavior": "allow", "downloadPath": folder });
    tab.call("Browser.setDownloadBehavior", to);
    tab.click("#carry button", "Save to a file");
    // It has this name only when all of it is there.
    let bytes = awaited("the browser saves a file", || fs::read(folder.join(name)).ok());
    serde_json::from_slice(&bytes).unwrap()
}

/// Chooses a file to take over from.
fn take(tab: &mut Tab, file: &Path) {
    tab.until("document.querySelector('#carry input') && !document.querySelector('#carry input').disabled");
    let document = tab.call("DOM.getDocument", json!({}));
    let wanted = json!({ "nodeId": document["root"]["nodeId"], "selector": "#carry input" });
    let input = tab.call("DOM.querySelector", wanted);
    tab.call("DOM.setFileInputFiles", json!({ "nodeId": input["nodeId"], "files": [file] }));
}

/// What the command exports, with the wishes in alphabetical order.
fn exported(leaf: &Daemon, file: &Path) -> Value {
    assert_eq!(leaf.run(&["config", "export", file.to_str().unwrap()]).code, Some(0));
    sorted(serde_json::from_slice(&fs::read(file).unwrap()).unwrap())
}

fn sorted(mut export: Value) -> Value {
    export["wishes"].as_array_mut().unwrap().sort_by_key(|wish| wish["query"].as_str().unwrap().to_owned());
    export
}

#[test]
fn what_was_set_travels_in_a_file() {
    let bed = Bed::new();
    bed.write(&[("own/rose.txt", b"rose"), ("saved/x", b""), ("bad/x", b"")]);
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.settled(1, 0);
    leaf.lines(&["shares", "add", "--wait", bed.path("own").to_str().unwrap()]);
    leaf.lines(&["wish", "add", "--download", "--max-size", "5MB", "tulip"]);
    leaf.lines(&["wish", "add", "\"a rose\" kind:audio"]);
    leaf.lines(&["ban", "192.0.2.0/24"]);
    leaf.lines(&["ban", "198.51.100.0/24", "--for", "1d"]);
    let set = json!({ "upload_slots": 9, "exclude": ["*.part", "two words"], "upload_limit": "2MB" });
    assert_eq!(leaf.asks("PATCH config", &set.to_string()).status, 200);

    // The page and the command write the same.
    let mut tab = visit(&leaf);
    // What is above the button moves it when it comes.
    tab.page("settings");
    tab.until("document.querySelector('#option-log') && document.querySelectorAll('#bans tbody tr').length === 2");
    let by_page = saved(&mut tab, &bed.path("saved"), "quictrack-settings.json");
    let by_command = exported(&leaf, &bed.path("by-command.json"));
    assert_eq!(sorted(by_page), by_command);
    tab.page("wishes");
    tab.shows("a rose");
    let wishes = saved(&mut tab, &bed.path("saved"), "quictrack-wishes.json");
    assert_eq!(sorted(wishes)["wishes"], by_command["wishes"]);

    // The page takes over what either wrote.
    let other = bed.leaf("other", &founder, &[]);
    other.settled(1, 0);
    tab.go(&address(&other));
    tab.until("document.querySelector('form.search')");
    tab.page("wishes");
    take(&mut tab, &bed.path("saved/quictrack-wishes.json"));
    tab.shows("New here: 2 wishes.");
    tab.shows("downloads what it finds, up to 5.0 MB");
    tab.page("settings");
    take(&mut tab, &bed.path("by-command.json"));
    tab.shows("New here: 3 settings, 1 share, 0 wishes, 2 bans.");
    tab.until("document.querySelector('#option-upload_slots').value === '9'");
    tab.until("document.querySelectorAll('#bans tbody tr').length === 2");
    let taken = exported(&other, &bed.path("taken.json"));
    for part in ["settings", "shares", "wishes"] {
        assert_eq!(taken[part], by_command[part], "{part}");
    }
    take(&mut tab, &bed.path("saved/quictrack-settings.json"));
    tab.shows("New here: 3 settings, 0 shares, 0 wishes, 0 bans.");
    assert_eq!(tab.barriers(), Vec::<String>::new());
    // And the command takes over what the page wrote.
    let idle = bed.path("idle");
    let file = bed.path("saved/quictrack-settings.json");
    assert_eq!(Program::Leaf.run(&idle, &["config", "import", file.to_str().unwrap()]).code, Some(0));

    // What is no such file, or only in part, is told; what cannot be changed changes nothing.
    let expected = exported(&other, &bed.path("expected.json"));
    let refused = [
        ("no-json", "{", "it is no JSON"),
        ("later", r#"{"quictrack_export":2,"settings":{}}"#, "does not begin with"),
        ("unknown", r#"{"quictrack_export":1,"settings":{},"songs":[]}"#, "“songs” is not known"),
        ("shape", r#"{"quictrack_export":1,"settings":[]}"#, "“settings” is not known, or not what it should be"),
        ("held", r#"{"quictrack_export":1,"settings":{"upload_slots":3,"listen":"127.0.0.1:1"}}"#, "listen"),
        (
            "part",
            r#"{"quictrack_export":1,"settings":{},"shares":["/nowhere/<b>"],"wishes":[{"query":"\"open"}]}"#,
            "Left out:",
        ),
    ];
    for (name, content, why) in refused {
        let file = bed.path("bad").join(name);
        fs::write(&file, content).unwrap();
        take(&mut tab, &file);
        tab.until(&format!("document.querySelector('#carry .notice')?.innerText.includes({})", json!(why)));
    }
    assert_eq!(tab.value("document.querySelectorAll('#carry small').length"), 2, "each that was left out is told");
    assert_eq!(exported(&other, &bed.path("after.json")), expected);
    assert_eq!(tab.errors_beside(&["/api/v1/config", "/api/v1/shares", "/api/v1/wishes"]), Vec::<String>::new());
}
