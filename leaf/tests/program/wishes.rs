//! Standing queries: what is wished for is told, and fetched, when somebody shares it.

use std::{fs, time::Duration};

use serde_json::Value;

use crate::support::{Bed, Daemon, Program, awaited, bytes, content_of, eventually, list, number, of_type, text};

/// Time in which a daemon ends in order.
const END: Duration = Duration::from_secs(25);

/// The wish with that id.
fn wish(leaf: &Daemon, id: &str) -> Value {
    let wishes = leaf.lines(&["wish", "list"]);
    assert_eq!(of_type(&wishes, "wish").len(), wishes.len());
    wishes.into_iter().find(|wish| wish["id"] == id).unwrap_or_else(|| panic!("no wish {id}"))
}

/// Makes a wish and returns its id.
fn add(leaf: &Daemon, arguments: &[&str]) -> String {
    let line = leaf.lines(&[&["wish", "add"], arguments].concat()).remove(0);
    assert_eq!(line["type"], "wish", "{line}");
    for field in ["id", "query", "download", "max_size", "hits", "created_at", "last_hit_at"] {
        assert!(line.as_object().is_some_and(|wish| wish.contains_key(field)), "{field}: {line}");
    }
    let id = text(&line["id"]).to_owned();
    assert!((1..=16).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    id
}

/// The names of what a wish found, in order.
fn names(leaf: &Daemon, id: &str) -> Vec<String> {
    let page = leaf.api(&format!("wishes/{id}/hits"));
    let mut names: Vec<_> = list(&page["items"]).iter().map(|hit| text(&hit["name"]).to_owned()).collect();
    names.sort_unstable();
    names
}

fn finds(leaf: &Daemon, id: &str, expected: &[&str]) {
    let mut seen = Vec::new();
    awaited(&format!("the wish finds {expected:?}"), || {
        seen = names(leaf, id);
        (seen == expected).then_some(())
    });
    assert_eq!(number(&wish(leaf, id)["hits"]), expected.len() as u64);
}

#[test]
fn what_is_wished_for_is_told_and_fetched_when_somebody_shares_it() {
    let bed = Bed::new();
    bed.write(&[("pool/old rose.txt", b"old"), ("pool/daisy.txt", b"daisy")]);
    let founder = bed.founder("u0");
    let others: Vec<_> =
        (1..5).map(|number| bed.ultrapeer(&format!("u{number}"), &["--join", &founder.quic()])).collect();
    let sharer = bed.sharing("sharer", &founder, "pool", &[]);
    sharer.settled(3, 2);
    let wisher = bed.leaf("wisher", &others[0], &[]);
    wisher.settled(3, 0);

    // What is there already is searched for.
    let roses = add(&wisher, &["rose", "-thorn", "ext:txt"]);
    finds(&wisher, &roses, &["old rose.txt"]);
    assert!(wish(&wisher, &roses)["last_hit_at"].is_string());
    let tulips = add(&wisher, &["--download", "--max-size", "1MB", "tulip"]);
    assert_eq!(wish(&wisher, &tulips)["max_size"], 1_000_000);

    let (tulip, large) = (bytes("tulip", 100_000), bytes("large tulip", 1_500_000));
    bed.write(&[
        ("pool/new rose.txt", b"new"),
        ("pool/rose with thorn.txt", b"thorn"),
        ("pool/rose.mp3", b"music"),
        ("pool/tulip.bin", &tulip),
        ("pool/large tulip.bin", &large),
    ]);
    finds(&wisher, &roses, &["new rose.txt", "old rose.txt"]);
    finds(&wisher, &tulips, &["large tulip.bin", "tulip.bin"]);
    let job = awaited("the small one is fetched", || Some(wisher.download()).filter(|job| job["state"] == "done"));
    assert_eq!(fs::read(text(&job["path"])).ok(), Some(tulip), "{job}");
    let hits = wisher.lines(&["wish", "hits", &tulips]);
    let have: Vec<_> = hits.iter().map(|hit| (text(&hit["name"]), text(&hit["have"]))).collect();
    assert!(have.contains(&("tulip.bin", "yes")) && have.contains(&("large tulip.bin", "no")), "{have:?}");
    // What a wish found is known like what a search found.
    let done = wisher.lines(&["get", &content_of(&large)[..10]]).pop().unwrap_or_default();
    assert_eq!((text(&done["type"]), fs::read(text(&done["path"])).ok()), ("done", Some(large)), "{done}");

    // Nothing of that is forgotten, and nothing is told again.
    assert_eq!(wisher.terminate(END).code(), Some(0));
    let wisher = bed.leaf("wisher", &others[1], &[]);
    let kept = wisher.lines(&["wish"]);
    assert_eq!(kept.iter().map(|wish| number(&wish["hits"])).collect::<Vec<_>>(), [2, 2], "{kept:?}");
    bed.write(&[("pool/a rose by night.txt", b"night")]);
    finds(&wisher, &roses, &["a rose by night.txt", "new rose.txt", "old rose.txt"]);
    assert_eq!(wisher.lines(&["downloads"]).len(), 2);

    // A wish that is removed is gone, with all that it found.
    assert_eq!(wisher.run(&["wish", "remove", &roses]).code, Some(0));
    wisher.run(&["wish", "remove", &roses]).error(3, "not_found");
    assert_eq!(wisher.asks(&format!("GET wishes/{roses}/hits"), "").code(404), "not_found");
    assert_eq!(wisher.terminate(END).code(), Some(0));
    let wisher = bed.leaf("wisher", &others[1], &[]);
    assert_eq!(wisher.lines(&["wish", "list"]).len(), 1);
    let again = add(&wisher, &["rose", "-thorn", "ext:txt"]);
    assert_ne!(again, roses);
    finds(&wisher, &again, &["a rose by night.txt", "new rose.txt", "old rose.txt"]);
}

#[test]
fn wishes_outlive_ultrapeers() {
    let bed = Bed::new();
    bed.write(&[("pool/daisy.txt", b"daisy")]);
    let founder = bed.founder("u0");
    let start = |number: usize, join: &Daemon| bed.ultrapeer(&format!("u{number}"), &["--join", &join.quic()]);
    let mut ultrapeers = vec![start(1, &founder), start(2, &founder)];
    ultrapeers.push(founder);
    let sharer = bed.sharing("sharer", &ultrapeers[0], "pool", &[]);
    let wisher = bed.leaf("wisher", &ultrapeers[0], &[]);
    sharer.settled(3, 1);
    wisher.settled(3, 0);
    let id = add(&wisher, &["rose"]);
    let mut expected = Vec::new();
    // Each of them dies once, so the home that has the wishes does, too; and comes back having forgotten all.
    for (round, number) in [1, 2, 0].into_iter().enumerate() {
        let killed = ultrapeers.remove(0);
        let peer = killed.peer().to_owned();
        killed.kill();
        let name = format!("rose {round} a.txt");
        bed.write(&[(&format!("pool/{name}"), name.as_bytes())]);
        expected.push(name);
        finds(&wisher, &id, &expected.iter().map(String::as_str).collect::<Vec<_>>());
        eventually("it is missed", || [&wisher, &sharer].iter().all(|leaf| !leaf.homes().contains(&peer)));
        let back = start(number, &ultrapeers[0]);
        ultrapeers.push(back);
        wisher.settled(3, 0);
        sharer.settled(3, 1 + expected.len() as u64);
        let name = format!("rose {round} b.txt");
        bed.write(&[(&format!("pool/{name}"), name.as_bytes())]);
        expected.push(name);
        finds(&wisher, &id, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn wishes_that_cannot_be_are_refused_and_told_apart() {
    let bed = Bed::new();
    // Nobody need be there for a wish.
    let leaf = Daemon::start(Program::Leaf, &bed.path("leaf"), &[]);
    for (query, position) in [(&["rose", "\"unclosed"][..], 6), (&["ab*"], 3), (&["-rose"], 1)] {
        let refused = leaf.run(&[&["wish", "add"], query].concat()).error(2, "bad_query");
        assert_eq!(number(&refused["position"]), position, "{query:?}: {refused}");
    }
    assert_eq!(leaf.asks("POST wishes", r#"{"query":"size:>1GB"}"#).code(400), "bad_query");
    assert_eq!(leaf.asks("POST wishes", r#"{"query":"rose","max_size":0}"#).code(400), "bad_request");
    assert_eq!(leaf.asks("POST wishes", r#"{"query":"rose","maxsize":1}"#).code(400), "bad_request");
    assert!(leaf.lines(&["wish"]).is_empty());

    let made = leaf.asks("POST wishes", r#"{"query":"rose -live","download":true,"max_size":5}"#);
    assert_eq!(made.status, 201, "{made:?}");
    let first = made.json();
    assert_eq!(
        (&first["query"], &first["download"], &first["max_size"]),
        (&"rose -live".into(), &true.into(), &5.into())
    );
    for number in 1..50 {
        add(&leaf, &[&format!("rose{number}")]);
    }
    let full = leaf.run(&["wish", "add", "tulip"]).error(1, "conflict");
    assert!(text(&full["hint"]).contains("wish remove"), "{full}");
    assert_eq!(leaf.lines(&["wish", "list"]).len(), 50);
    leaf.run(&["wish", "remove", "no such"]).error(2, "bad_request");
    leaf.run(&["wish", "hits", "nosuch"]).error(3, "not_found");
    assert_eq!(leaf.asks(&format!("DELETE wishes/{}", text(&first["id"])), "").status, 204);
    assert_eq!(leaf.asks(&format!("DELETE wishes/{}", text(&first["id"])), "").code(404), "not_found");
    add(&leaf, &["tulip", "-live"]);
}

#[test]
fn wishes_travel_with_the_configuration_and_survive_a_lost_database() {
    let bed = Bed::new();
    let leaf = Daemon::start(Program::Leaf, &bed.path("leaf"), &[]);
    add(&leaf, &["--download", "\"red rose\"", "ext:txt"]);
    add(&leaf, &["tulip"]);
    let wished = |leaf: &Daemon| -> Vec<(String, bool)> {
        let wish = |wish: &Value| (text(&wish["query"]).to_owned(), wish["download"] == true);
        leaf.lines(&["wish", "list"]).iter().map(wish).collect()
    };
    let mut expected = wished(&leaf);
    expected.sort_unstable();
    assert_eq!(expected.len(), 2);
    let file = bed.path("exported.json");
    let file = file.to_str().unwrap_or_default();
    assert_eq!(leaf.run(&["config", "export", file]).code, Some(0));

    // Without a daemon, then with one; what is there is not made twice.
    let other = bed.path("other");
    assert_eq!(Program::Leaf.run(&other, &["config", "import", file]).code, Some(0));
    let other = Daemon::start(Program::Leaf, &other, &[]);
    for _ in 0..2 {
        let mut all = wished(&other);
        all.sort_unstable();
        assert_eq!(all, expected);
        assert_eq!(other.run(&["config", "import", file]).code, Some(0));
    }
    let ids = |leaf: &Daemon| leaf.lines(&["wish"]).iter().map(|wish| text(&wish["id"]).to_owned()).collect::<Vec<_>>();
    assert!(ids(&leaf).iter().all(|id| !ids(&other).contains(id)));

    let before = ids(&other);
    assert_eq!(other.terminate(END).code(), Some(0));
    fs::write(bed.path("other/state.redb"), b"damaged").unwrap_or_default();
    let other = Daemon::start(Program::Leaf, &bed.path("other"), &[]);
    assert_eq!(ids(&other), before);
}
