//! The commands against a server that plays the daemon: exits, lines, events, interrupts.

use std::{
    convert::Infallible,
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use clap::{CommandFactory, Parser};
use futures_util::{StreamExt, stream};
use overlay::{
    admin::{
        error::ApiError,
        handoff::ApiFile,
        server::{self, Listen},
    },
    console::Exit,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::cli::{self, Cli};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const PEER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// What a command did.
struct Outcome {
    exit: ExitCode,
    out: String,
    err: String,
}

impl Outcome {
    /// The JSON lines.
    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn types(&self) -> Vec<String> {
        self.lines().iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect()
    }
}

#[derive(Clone, Default)]
struct Written {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Told at the first line.
    first: Option<CancellationToken>,
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(first) = &self.first {
            first.cancel();
        }
        self.bytes.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A daemon that answers as the router says; it ends when this is dropped.
struct Daemon {
    folder: TempDir,
    _stop: DropGuard,
}

impl Daemon {
    async fn start(api: Router) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = server::bind(Listen::Given("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let (url, role, version) = (listener.url(), "leaf".to_owned(), "0".to_owned());
        ApiFile { url, token: "t".repeat(64), pid: 1, role, version }.write(folder.path()).unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(server::serve(listener, Router::new().nest("/api/v1", api), stop.clone()));
        Self { folder, _stop: stop.drop_guard() }
    }

    async fn run(&self, line: &[&str]) -> Outcome {
        run(self.folder.path(), line, CancellationToken::new(), None).await
    }

    /// Runs a command and interrupts it at its first line.
    async fn run_and_interrupt(&self, line: &[&str]) -> Outcome {
        let interrupt = CancellationToken::new();
        run(self.folder.path(), line, interrupt.clone(), Some(interrupt)).await
    }
}

async fn run(folder: &Path, line: &[&str], interrupt: CancellationToken, first: Option<CancellationToken>) -> Outcome {
    let start = ["quictrack", "--data-dir", folder.to_str().unwrap()];
    let arguments = start.iter().chain(line).map(OsString::from).collect();
    let cli = Cli::try_parse_from(cli::query_behind_dashes(&Cli::command(), arguments)).unwrap();
    let (out, err) = (Written { first, ..Written::default() }, Written::default());
    let console = Console::to_writers(&cli.global, out.clone(), err.clone());
    let environment = Environment::of([("HOME", "/nowhere")]);
    let context = Context::new(cli.global, console.clone(), environment).interrupted_by(interrupt);
    let result = Box::pin(cli::run(&context, cli.command)).await;
    Outcome { exit: console.finish(result), out: out.text(), err: err.text() }
}

fn exit(exit: Exit) -> ExitCode {
    exit.into()
}

fn hit(content: &str, name: &str, size: u64, score: u32) -> Value {
    json!({ "content": content, "size": size, "name": name, "path": format!("Music/{name}"), "names": [name],
        "kind": "audio", "tags": {}, "modified_at": null, "sources": 1, "free_slots": 1,
        "peers": [{ "peer": PEER, "reachability": "public", "free_slots": 1, "queue": 0 }], "have": "no", "score": score })
}

fn summary(hits: u32) -> Value {
    json!({ "hits": hits, "complete": true, "stopped": "exhausted", "incomplete_reasons": [], "ultrapeers_asked": 1,
        "ultrapeers_total": 1, "shards_asked": 1, "shards_total": 1, "leaves_covered": 1, "leaves_total": 1,
        "messages": 1, "withheld": 0, "first_hit_ms": null, "elapsed_ms": 1.5 })
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn events(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
}

/// Events that do not end.
fn endless_events(text: String) -> Response {
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from(text))]);
    let body = Body::from_stream(first.chain(stream::pending()));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// A daemon whose only search has these events, and the requests that it got.
async fn searching(told: fn() -> Response) -> (Daemon, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (started, ended) = (asked.clone(), asked.clone());
    let start = move |Json(request): Json<Value>| async move {
        started.lock().unwrap().push(request);
        (StatusCode::CREATED, Json(json!({ "id": "s1" })))
    };
    let end = move || async move {
        ended.lock().unwrap().push(json!("deleted"));
        StatusCode::NO_CONTENT
    };
    let api = Router::new()
        .route("/searches", post(start))
        .route("/searches/s1", axum::routing::delete(end))
        .route("/searches/s1/events", get(move || async move { told() }));
    (Daemon::start(api).await, asked)
}

fn two_contents() -> Response {
    events(
        event("hit", &hit(A, "b.mp3", 10, 1))
            + &event("hit", &hit(B, "a.mp3", 5, 2))
            + &event("hit", &hit(A, "b.mp3", 10, 3))
            + &event("summary", &summary(2)),
    )
}

#[tokio::test]
async fn a_search_prints_each_content_once_and_then_the_summary() {
    let (daemon, asked) = searching(two_contents).await;
    for (sort, order) in [("rank", [A, B]), ("size", [A, B]), ("name", [B, A]), ("found", [A, B])] {
        let outcome = daemon.run(&["search", "beatles", "-live", "--json", "--sort", sort]).await;
        assert_eq!(outcome.exit, exit(Exit::Done), "{}", outcome.err);
        assert_eq!(outcome.types(), ["hit", "hit", "summary"], "{sort}");
        let contents: Vec<_> = outcome.lines()[..2].iter().map(|line| line["content"].clone()).collect();
        assert_eq!(contents, order, "{sort}");
    }
    let request = json!({ "query": "beatles -live", "timeout_ms": 10_000 });
    assert_eq!(asked.lock().unwrap()[0], request);
    let all = daemon.run(&["search", "--all", "--timeout", "0.5", "--limit", "7", "--", "--json"]).await;
    assert_eq!(asked.lock().unwrap()[4], json!({ "query": "--json", "timeout_ms": 500, "all": true, "limit": 7 }));
    assert!(all.out.contains("b.mp3") && all.err.contains("quictrack get"), "{} {}", all.out, all.err);
}

#[tokio::test]
async fn every_order_goes_by_its_value_and_equals_by_name_and_content() {
    let hits = || {
        // Content, name, size, sources, score.
        let all = [
            ("1", "c", 5, 2, 3),
            ("2", "b", 9, 1, 1),
            ("3", "a", 9, 3, 1),
            ("4", "d", 1, 3, 3),
            ("6", "a", 9, 3, 1),
            ("5", "a", 9, 3, 1),
        ];
        let events = all.map(|(digit, name, size, sources, score)| {
            let mut hit = hit(&digit.repeat(64), name, size, score);
            hit["sources"] = json!(sources);
            event("hit", &hit)
        });
        self::events(events.concat() + &event("summary", &summary(6)))
    };
    let (daemon, _) = searching(hits).await;
    for (sort, order) in
        [("rank", "143562"), ("size", "356214"), ("sources", "356412"), ("name", "356214"), ("found", "123465")]
    {
        let outcome = daemon.run(&["search", "x", "--json", "--sort", sort]).await;
        let lines = outcome.lines();
        let contents: String = lines[..6].iter().map(|line| &line["content"].as_str().unwrap()[..1]).collect();
        assert_eq!(contents, order, "{sort}");
    }
    let default = daemon.run(&["search", "x", "--json"]).await;
    assert_eq!(default.out, daemon.run(&["search", "x", "--json", "--sort", "rank"]).await.out);
}

#[tokio::test]
async fn a_search_without_hits_prints_its_summary_and_exits_3() {
    let (daemon, _) = searching(|| events(event("summary", &summary(0)))).await;
    let outcome = daemon.run(&["search", "x", "--json"]).await;
    assert_eq!((outcome.exit, outcome.types()), (exit(Exit::NothingFound), vec!["summary".to_owned()]));
}

#[tokio::test]
async fn an_interrupted_search_is_withdrawn_and_prints_its_summary() {
    let (daemon, asked) = searching(|| endless_events(event("hit", &hit(A, "a.mp3", 1, 1)))).await;
    let outcome = daemon.run_and_interrupt(&["search", "x", "--json", "--sort", "found"]).await;
    assert_eq!(
        (outcome.exit, outcome.types()),
        (exit(Exit::Interrupted), vec!["hit".to_owned(), "summary".to_owned()])
    );
    let last = outcome.lines().pop().unwrap();
    assert_eq!((&last["stopped"], &last["complete"], &last["hits"]), (&json!("cancelled"), &json!(false), &json!(1)));
    assert_eq!(asked.lock().unwrap().last(), Some(&json!("deleted")));
}

#[tokio::test]
async fn refusals_reach_the_user_with_their_exit() {
    for (refusal, number, position) in [
        (ApiError::new(Code::BadQuery, "unclosed quote").position(3), Exit::Usage, json!(3)),
        (ApiError::new(Code::NoUltrapeer, "none"), Exit::Failed, Value::Null),
    ] {
        let code = refusal.code.name();
        let api = Router::new().route("/searches", post(move || async move { refusal.into_response() }));
        let daemon = Daemon::start(api).await;
        let outcome = daemon.run(&["search", "ab\"", "--json"]).await;
        assert_eq!(outcome.exit, exit(number));
        let error = outcome.lines().pop().unwrap();
        assert_eq!((&error["type"], &error["code"], &error["position"]), (&json!("error"), &json!(code), &position));
        assert!(outcome.err.starts_with("error: "));
    }
}

#[tokio::test]
async fn without_a_daemon_the_command_that_starts_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for line in [&["status"][..], &["search", "x"], &["get", "abcdef01"], &["downloads", "pause", "all"], &["shares"]] {
        let outcome = run(folder.path(), line, CancellationToken::new(), None).await;
        assert_eq!(outcome.exit, exit(Exit::Failed), "{line:?}");
        assert!(outcome.err.contains("quictrack leaf --data-dir"), "{}", outcome.err);
    }
}

fn job(id: &str, content: &str) -> Value {
    json!({ "id": id, "content": content, "name": "a.mp3", "path": null, "state": "queued", "reason": null,
        "size": 10, "bytes": 0, "rate": 0, "eta_s": null, "priority": "normal", "queue_position": null,
        "created_at": "2026-01-31T10:00:00Z", "finished_at": null, "sources": [] })
}

fn progress(bytes: u64, sources: u64) -> Value {
    json!({ "id": "j1", "content": A, "name": "a.mp3", "state": "active", "bytes": bytes, "size": 10, "rate": 1,
        "eta_s": 1, "sources": sources, "queue_position": null })
}

/// A daemon whose only download has these events, and what was asked for.
async fn downloading(told: fn() -> Response) -> (Daemon, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let started = asked.clone();
    let start = move |Json(request): Json<Value>| async move {
        let unknown = request["content"] == json!("00000000");
        started.lock().unwrap().push(request);
        if unknown {
            return ApiError::not_found("no such content").into_response();
        }
        (StatusCode::CREATED, Json(job("j1", A))).into_response()
    };
    let api = Router::new()
        .route("/downloads", post(start))
        .route("/downloads/j1/events", get(move || async move { told() }));
    (Daemon::start(api).await, asked)
}

fn done() -> Value {
    json!({ "id": "j1", "content": A, "path": "/d/a.mp3", "bytes": 10, "elapsed_ms": 5,
        "sources": [{ "peer": PEER, "bytes": 10, "via": "direct" }] })
}

#[tokio::test]
async fn a_download_is_followed_to_its_end() {
    let told = || {
        let news: String = (0..9).map(|bytes| event("progress", &progress(bytes, 1))).collect();
        events(news + &event("done", &done()))
    };
    let (daemon, asked) = downloading(told).await;
    let outcome = daemon.run(&["get", "AAAAAAAA", "--json", "-o", "music/", "--priority", "high"]).await;
    assert_eq!(outcome.exit, exit(Exit::Done), "{}", outcome.err);
    let types = outcome.types();
    assert!(types.len() < 9 && types.first().unwrap() == "progress" && types.last().unwrap() == "done", "{types:?}");
    let request = json!({ "content": "aaaaaaaa", "output": "/music/", "priority": "high" });
    assert_eq!(asked.lock().unwrap()[0], request);

    let text = daemon.run(&["get", &format!("{PEER}/Music/x/")]).await;
    assert_eq!(text.out, "/d/a.mp3\n");
    let request = json!({ "peer": PEER, "path": "Music/x", "priority": "normal" });
    assert_eq!(asked.lock().unwrap()[1], request);
}

#[tokio::test]
async fn failures_of_downloads_have_their_exits() {
    let conflict = || events(event("failed", &json!({ "id": "j1", "content": A, "reason": "conflict" })));
    let (daemon, _) = downloading(conflict).await;
    let outcome = daemon.run(&["get", A, "--json"]).await;
    assert_eq!((outcome.exit, outcome.types()), (exit(Exit::Failed), vec!["failed".to_owned()]));
    assert!(outcome.err.contains("error: "));

    let (daemon, _) = downloading(|| endless_events(event("progress", &progress(0, 0)))).await;
    let outcome = daemon.run(&["get", A, "--json", "--timeout", "0.05"]).await;
    assert_eq!(
        (outcome.exit, &outcome.lines().pop().unwrap()["reason"]),
        (exit(Exit::NothingFound), &json!("no_source"))
    );

    let (daemon, _) = downloading(|| endless_events(event("progress", &progress(4, 1)))).await;
    let outcome = daemon.run(&["get", A, "--json", "--timeout", "0.5"]).await;
    assert_eq!((outcome.exit, &outcome.lines().pop().unwrap()["reason"]), (exit(Exit::Failed), &json!("timeout")));

    let outcome = daemon.run_and_interrupt(&["get", A, "--json"]).await;
    assert_eq!((outcome.exit, outcome.types()), (exit(Exit::Interrupted), vec!["progress".into(), "queued".into()]));
    assert!(outcome.err.contains("goes on"));
}

#[tokio::test]
async fn who_waits_for_room_on_the_disk_is_told_so() {
    let full = || {
        let mut full = progress(0, 0);
        (full["state"], full["reason"]) = (json!("paused"), json!("disk_full"));
        endless_events(event("progress", &progress(0, 0)) + &event("progress", &full))
    };
    let (daemon, _) = downloading(full).await;
    let outcome = daemon.run(&["get", A, "--json", "--timeout", "0.5"]).await;
    assert_eq!(outcome.types(), ["progress", "progress", "failed"], "the last state is printed, if a little later");
    let lines = outcome.lines();
    assert_eq!((&lines[1]["state"], &lines[1]["reason"]), (&json!("paused"), &json!("disk_full")));
    assert_eq!((outcome.exit, &lines[2]["reason"]), (exit(Exit::Failed), &json!("timeout")));
    assert!(outcome.err.contains("room on the disk") && !outcome.err.contains("no source"), "{}", outcome.err);
}

#[tokio::test]
async fn targets_are_checked_and_one_that_is_not_known_stops_no_other() {
    let (daemon, asked) = downloading(|| events(event("done", &done()))).await;
    for wrong in ["abc", "xyzxyzxyz", "short/path", &format!("{A}0")] {
        assert_eq!(daemon.run(&["get", wrong]).await.exit, exit(Exit::Usage), "{wrong}");
    }
    assert_eq!(daemon.run(&["get", A, B, "-o", "file"]).await.exit, exit(Exit::Usage));
    assert!(asked.lock().unwrap().is_empty());

    let list = daemon.folder.path().join("list");
    std::fs::write(&list, format!("00000000\n\n {A} \n")).unwrap();
    let outcome = daemon.run(&["get", "--json", "--from", list.to_str().unwrap()]).await;
    assert_eq!(
        (outcome.exit, outcome.types()),
        (exit(Exit::NothingFound), vec!["done".to_owned(), "error".to_owned()])
    );
    let detached = daemon.run(&["get", "--detach", A, "--json"]).await;
    assert_eq!(detached.lines(), [json!({ "type": "queued", "id": "j1", "content": A })]);
}

#[tokio::test]
async fn lists_are_read_to_the_end_and_acted_on() {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let noted = changes.clone();
    let change = move |axum::extract::Path(id): axum::extract::Path<String>, Json(change): Json<Value>| async move {
        noted.lock().unwrap().push((id.clone(), change));
        Json(job(&id, A))
    };
    let list = |uri: axum::http::Uri| async move {
        let is_second = uri.query().is_some_and(|query| query.contains("cursor=c1"));
        let (id, next) = if is_second { ("j2", Value::Null) } else { ("j1", json!("c1")) };
        Json(json!({ "items": [job(id, A)], "next": next }))
    };
    let api = Router::new().route("/downloads", get(list)).route("/downloads/{id}", patch(change));
    let daemon = Daemon::start(api).await;
    let outcome = daemon.run(&["downloads", "--json"]).await;
    let ids: Vec<_> = outcome.lines().iter().map(|line| line["id"].clone()).collect();
    assert_eq!((ids, outcome.types()), (vec![json!("j1"), json!("j2")], vec!["download".to_owned(); 2]));
    assert_eq!(daemon.run(&["downloads", "pause", "all"]).await.exit, exit(Exit::Done));
    assert_eq!(daemon.run(&["downloads", "resume", "all"]).await.exit, exit(Exit::Done));
    assert_eq!(daemon.run(&["downloads", "priority", "j2", "high"]).await.exit, exit(Exit::Done));
    assert_eq!(daemon.run(&["downloads", "cancel", "no/id"]).await.exit, exit(Exit::Usage));
    let expected = [
        ("j1", json!({ "state": "paused" })),
        ("j2", json!({ "state": "paused" })),
        ("j2", json!({ "priority": "high" })),
    ];
    let expected = expected.map(|(id, change)| (id.to_owned(), change));
    assert_eq!(*changes.lock().unwrap(), expected);
}

#[tokio::test]
async fn shares_are_waited_for_until_the_network_has_them() {
    let rounds = Arc::new(Mutex::new(0));
    let share = |state: &str, pending: u64| {
        json!({ "name": "m", "path": "/m", "state": state, "origin": "settings", "files": 2, "bytes": 3,
            "pending_files": pending, "pending_bytes": pending, "rate": 0, "skipped": 0, "watching": true })
    };
    let status = |acknowledged: u64| {
        json!({ "version": "0", "role": "leaf", "peer_id": PEER, "network": "n", "uptime_s": 1, "listen": "[::]:1",
            "observed": [], "reachability": "unknown", "volunteer": "auto", "ready": true, "problems": [],
            "homes": [], "ultrapeers": 1, "shards": 1, "shard_prefix": null,
            "shares": { "files": 2, "bytes": 3, "pending_files": 0 },
            "catalog": { "files": 2, "acknowledged": acknowledged, "current": acknowledged == 2 }, "downloads": {}, "uploads": {},
            "upload_rate": 0, "download_rate": 0, "election": [], "ultrapeer": null })
    };
    let (look, removed) = (rounds.clone(), Arc::new(Mutex::new(None)));
    let list = move || async move {
        let mut round = look.lock().unwrap();
        *round += 1;
        let now = if *round == 1 { share("hashing", 1) } else { share("watching", 0) };
        Json(json!({ "items": [now], "next": null }))
    };
    let add = move |Json(request): Json<Value>| async move {
        assert_eq!(request, json!({ "path": "/m" }));
        (StatusCode::CREATED, Json(share("scanning", 0)))
    };
    let tell = move || async move { Json(status(if *rounds.lock().unwrap() < 3 { 1 } else { 2 })) };
    let gone = removed.clone();
    let remove = move |axum::extract::Path(name): axum::extract::Path<String>| async move {
        *gone.lock().unwrap() = Some(name);
        StatusCode::NO_CONTENT
    };
    let api = Router::new()
        .route("/shares", get(list).post(add))
        .route("/shares/{name}", axum::routing::delete(remove))
        .route("/status", get(tell));
    let daemon = Daemon::start(api).await;
    let outcome = daemon.run(&["shares", "add", "--wait", "m", "--json"]).await;
    assert_eq!(outcome.exit, exit(Exit::Done), "{}", outcome.err);
    assert_eq!((outcome.lines().len(), &outcome.lines()[0]["state"]), (1, &json!("watching")));
    let shown = daemon.run(&["status"]).await;
    assert!(shown.out.contains(PEER) && shown.out.contains("2 of 2 files"), "{}", shown.out);
    assert_eq!(daemon.run(&["shares", "remove", "/m/"]).await.exit, exit(Exit::Done));
    assert_eq!(removed.lock().unwrap().as_deref(), Some("m"));
    assert_eq!(daemon.run(&["shares", "remove", "other"]).await.exit, exit(Exit::NothingFound));
}

#[tokio::test]
async fn a_browse_prints_folders_and_entries_with_their_type() {
    let list = |uri: axum::http::Uri| async move {
        assert!(uri.query().unwrap().starts_with("path=Music%2Fx&recursive=true&limit="), "{uri}");
        let folder = json!({ "type": "folder", "path": "Music/x/y", "name": "y", "files": 1, "bytes": 1 });
        let entry = json!({ "type": "entry", "path": "Music/x/a", "name": "a", "content": A, "size": 1,
            "modified_at": null, "kind": "other", "tags": {} });
        Json(json!({ "items": [folder, entry], "next": null }))
    };
    let daemon = Daemon::start(Router::new().route("/browse/{peer}", get(list))).await;
    let outcome = daemon.run(&["browse", "--recursive", &PEER.to_uppercase(), "/Music/x/", "--json"]).await;
    assert_eq!((outcome.exit, outcome.types()), (exit(Exit::Done), vec!["folder".to_owned(), "entry".to_owned()]));
    assert_eq!(daemon.run(&["browse", "zz"]).await.exit, exit(Exit::Usage));
}

#[tokio::test]
async fn what_needs_no_daemon_runs_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("new");
    let print = |line: &'static [&'static str]| {
        let here = here.clone();
        async move { run(&here, line, CancellationToken::new(), None).await }
    };
    let first = print(&["id", "--json"]).await;
    assert_eq!((first.exit, first.types()), (exit(Exit::Done), vec!["id".to_owned()]));
    assert_eq!(first.lines()[0]["peer_id"], print(&["id"]).await.out.trim_end());
    let shown = print(&["config", "show", "--origin", "--json"]).await;
    assert_eq!(shown.exit, exit(Exit::Done));
    assert!(shown.types().iter().all(|kind| kind == "option") && shown.lines().len() > 20);
    std::fs::write(here.join("bad.toml"), "shares = 1\n").unwrap();
    let bad = here.join("bad.toml");
    let checked =
        run(&here, &["config", "check", bad.to_str().unwrap(), "--json"], CancellationToken::new(), None).await;
    assert_eq!((checked.exit, &checked.lines()[0]["code"]), (exit(Exit::Usage), &json!("bad_config")));
    for line in [&["man"][..], &["completions", "bash"], &["completions", "fish"]] {
        let printed = run(&here, line, CancellationToken::new(), None).await;
        assert!(printed.exit == exit(Exit::Done) && printed.out.contains("quictrack"), "{line:?}");
    }
}
