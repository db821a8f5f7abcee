//! The local HTTP as programs use it: bytes of contents, links to them, and what it refuses.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::support::{Bed, Daemon, bytes, content_of, request, text};

#[test]
fn contents_are_given_out_whole_in_ranges_and_by_links() {
    let bed = Bed::new();
    let song = bytes("song", 700_000);
    bed.write(&[("one/a song.mp3", &song)]);
    let founder = bed.founder("u0");
    let leaf = bed.sharing("leaf", &founder, "one", &[]);
    leaf.settled(1, 1);
    let content = content_of(&song);
    let path = format!("files/{content}");

    let whole = leaf.asks(&format!("GET files/{}", &content[..8]), "");
    assert_eq!((whole.status, &whole.body), (200, &song));
    assert_eq!((whole.header("content-type"), whole.header("accept-ranges")), (Some("audio/mpeg"), Some("bytes")));
    let some = leaf.asks_with(&format!("GET {path}"), "Range: bytes=699990-\r\n", "");
    assert_eq!((some.status, &some.body[..]), (206, &song[699_990..]));
    assert_eq!(some.header("content-range"), Some("bytes 699990-699999/700000"));
    let changed = "Range: bytes=0-9\r\nIf-Range: \"another\"\r\n";
    assert_eq!(leaf.asks_with(&format!("GET {path}"), changed, "").status, 200);
    let beyond = leaf.asks_with(&format!("GET {path}"), "Range: bytes=700000-\r\n", "");
    assert_eq!((beyond.code(416).as_str(), beyond.header("content-range")), ("bad_range", Some("bytes */700000")));
    let head = leaf.asks(&format!("HEAD {path}"), "");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("700000"), 0));
    assert_eq!(leaf.asks(&format!("GET files/{}", "0".repeat(64)), "").code(404), "not_found");

    let link = leaf.asks(&format!("POST {path}/link"), "");
    assert_eq!(link.status, 201, "{link:?}");
    let link = link.json();
    let url = text(&link["url"]);
    assert!(url.starts_with("/files/") && url.ends_with("/a%20song.mp3"), "{url}");
    assert!(text(&link["expires_at"]).ends_with('Z'), "{link}");
    let server = text(&leaf.ready["api"]);
    // A player has no token.
    let played = request(server, &format!("GET {url}"), "Range: bytes=5-9\r\n", "");
    assert_eq!((played.status, &played.body[..]), (206, &song[5..10]));
    assert_eq!(request(server, "GET /files/0123456789abcdef/x", "", "").status, 404);
}

#[test]
fn a_content_is_given_out_while_it_comes() {
    let bed = Bed::new();
    let film = bytes("film", 3 << 20);
    bed.write(&[("pool/film.bin", &film)]);
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &["--upload-limit", "2MB"]);
    source.settled(1, 1);
    let leaf = bed.leaf("leaf", &founder, &[]);
    let content = content_of(&film);
    leaf.finds(&["film"], &["film.bin"]);
    leaf.lines(&["get", "--detach", &content]);
    let given = leaf.asks(&format!("GET files/{content}"), "");
    assert!(given.status == 200 && given.body == film, "{} of {} bytes", given.body.len(), film.len());
}

#[test]
fn mistakes_are_refused_with_their_codes() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    let content = "0".repeat(64);
    for (asked, body, status, code) in [
        ("POST searches", json!({ "query": "  \"rose" }), 400, "bad_query"),
        ("POST searches", json!({ "query": "rose", "colour": "red" }), 400, "bad_request"),
        ("POST searches", json!({ "query": "rose", "timeout_ms": 0 }), 400, "bad_request"),
        ("POST downloads", json!({ "content": content, "output": "relative" }), 400, "bad_request"),
        ("POST downloads", json!({ "content": "00112233" }), 404, "not_found"),
        ("POST downloads", json!({ "peer": "a".repeat(51) + "b", "path": "x" }), 400, "bad_request"),
        ("PUT status", json!({}), 405, "method_not_allowed"),
        ("POST shares", json!({ "path": "relative" }), 400, "bad_request"),
        ("PATCH config", json!({ "listen": "127.0.0.1:0" }), 409, "conflict"),
        ("PATCH config", json!({ "uplod_slots": 1 }), 400, "bad_request"),
    ] {
        assert_eq!(leaf.asks(asked, &body.to_string()).code(status), code, "{asked} {body}");
    }
    let position = leaf.asks("POST searches", &json!({ "query": "  \"rose" }).to_string()).json();
    assert_eq!(position["error"]["position"], 3, "counted in the query as it was sent");
    // Whoever sends far too much still reads the answer.
    let long = json!({ "query": "x".repeat(5 << 20) }).to_string();
    assert_eq!(leaf.asks("POST searches", &long).code(413), "too_large");

    let job = leaf.asks("POST downloads", &json!({ "content": content.to_uppercase() }).to_string());
    assert_eq!(job.status, 201, "{job:?}");
    let id = text(&job.json()["id"]).to_owned();
    assert_eq!(leaf.asks("POST downloads", &json!({ "content": content }).to_string()).status, 200, "there is one");
    let change = |state: &str| leaf.asks(&format!("PATCH downloads/{id}"), &json!({ "state": state }).to_string());
    for state in ["paused", "queued", "cancelled", "cancelled"] {
        assert_eq!(change(state).status, 200, "{state}");
    }
    assert_eq!(change("paused").code(409), "conflict");
    assert_eq!(change("queued").status, 200, "it is tried again");
    assert_eq!(leaf.asks(&format!("DELETE downloads/{id}"), "").status, 204);
    assert_eq!(leaf.asks(&format!("GET downloads/{id}"), "").code(404), "not_found");
}

#[test]
fn a_player_gets_what_it_asks_for_first() {
    const PIECE: usize = 256 << 10;
    let bed = Bed::new();
    let film = bytes("film", 40 * PIECE);
    bed.write(&[("pool/film.mkv", &film)]);
    let founder = bed.founder("u0");
    let source = bed.sharing("source", &founder, "pool", &["--upload-limit", "1MB"]);
    source.settled(1, 1);
    let leaf = bed.leaf("leaf", &founder, &[]);
    leaf.finds(&["film"], &["film.mkv"]);
    let line = leaf.lines(&["stream", &content_of(&film)]).remove(0);
    assert_eq!((text(&line["type"]), text(&line["content"])), ("stream", content_of(&film).as_str()));
    let server = text(&leaf.ready["api"]);
    let path = text(&line["url"]).strip_prefix(server).expect("an address of this daemon").to_owned();
    let at = 30 * PIECE;
    let range = format!("Range: bytes={at}-{}\r\n", at + PIECE);
    let played = request(server, &format!("GET {path}"), &range, "");
    assert_eq!((played.status, &played.body[..]), (206, &film[at..=at + PIECE]));
    // All of it takes ten seconds, and most of what was there before the asked range was not waited for.
    let pieces = &leaf.api(&format!("downloads/{}", text(&line["id"])))["pieces"];
    let bits = data_encoding::BASE64.decode(text(&pieces["done"]).as_bytes()).unwrap();
    let before = bits[..3].iter().map(|byte| byte.count_ones()).sum::<u32>();
    assert!(before < 24, "{bits:?}");
}

#[test]
fn the_page_and_its_files_are_given_to_everybody_who_knows_the_name() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    let server = text(&leaf.ready["api"]);
    assert_eq!(text(&leaf.ready["web"]), format!("{server}/"));
    let page = request(server, "GET /", "", "");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let known = format!("If-None-Match: {}\r\n", page.header("etag").unwrap());
    assert_eq!(request(server, "GET /", &known, "").status, 304);

    let html = String::from_utf8(page.body).unwrap();
    let files: Vec<_> = html.split('"').filter(|part| part.starts_with("/page/")).collect();
    assert_eq!(files.len(), 4, "{html}");
    for path in &files {
        let file = request(server, &format!("GET {path}"), "", "");
        let caching = file.header("cache-control").unwrap();
        assert!(file.status == 200 && caching.contains("immutable"), "{path}: {caching}");
    }
    let script = files.iter().find(|path| path.ends_with("/app.js")).unwrap();
    let other = script.replacen(script.split('/').nth(2).unwrap(), "0", 1);
    let file = request(server, &format!("GET {other}"), "", "");
    assert_eq!((file.status, file.header("cache-control")), (200, Some("no-cache")), "that of another version");
    assert_eq!(file.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(request(server, "GET /page/0/../Cargo.toml", "", "").status, 404);
    assert_eq!(request(server, "POST /", "", "").status, 405);
    let foreign = request(server, "GET /", "Origin: http://example.com\r\n", "");
    assert_eq!(foreign.code(403), "origin_refused");
}

#[test]
fn rates_of_the_last_hours_are_told() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    let history = leaf.api("history?hours=6");
    assert_eq!(history["step_s"], 60);
    assert!(history["from_at"].is_string() && history["series"]["upload"].is_array());
    assert_eq!(
        history["series"]["download"].as_array().map(Vec::len),
        history["series"]["upload"].as_array().map(Vec::len)
    );
    assert_eq!(leaf.asks("GET history?hours=25", "").code(400), "bad_request");
}

/// A fuzzer reads the document that a program has of its own API, and asks everything that the document allows and
/// much that it does not: what is answered must be as the document says.
#[test]
fn the_api_is_as_its_document_says() {
    let bed = Bed::new();
    bed.write(&[("one/a song.mp3", b"a song")]);
    let founder = bed.founder("u0");
    let leaf = bed.sharing("leaf", &founder, "one", &[]);
    leaf.settled(1, 1);
    leaf.asks("POST searches", r#"{"query":"song"}"#);
    leaf.asks("POST wishes", r#"{"query":"symphony"}"#);
    leaf.asks("POST downloads", &format!(r#"{{"content":"{}"}}"#, content_of(b"another song")));
    for daemon in [&leaf, &founder] {
        fuzz(daemon);
    }
    assert_eq!(text(&leaf.status()["role"]), "leaf", "it goes on");
}

fn fuzz(daemon: &Daemon) {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/venv/bin/schemathesis");
    let fuzzer = if fetched.exists() { fetched } else { "schemathesis".into() };
    let mut command = Command::new(fuzzer);
    // It keeps what it found there.
    command.current_dir(daemon.data());
    command.args(["run", &format!("{}/api/v1/openapi.json", text(&daemon.ready["api"])), "--no-color"]);
    command.args(["--header", &format!("Authorization: Bearer {}", daemon.token())]);
    command.args(["--phases", "coverage,fuzzing", "--max-examples", "20", "--generation-deterministic"]);
    // A query, an id and a target have a form of their own, which schemas do not tell.
    command.args(["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--warnings", "off"]);
    // The one does not end, the others share any folder of this machine, or end the program.
    command.args(["--exclude-path-regex", "(events|shares|drain)$"]);
    let ended = command.output();
    let ended = ended.unwrap_or_else(|error| panic!("`schemathesis` is missing ({error}): `.ci/test` fetches it"));
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
}
