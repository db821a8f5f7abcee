//! The local HTTP over real sockets on loopback: what programs, browsers and monitoring see of it.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{Method, StatusCode},
    response::Response,
};
use futures_util::StreamExt;
use overlay::{
    admin::{
        ApiError, Code,
        auth::{Guard, TokenHash, Tokens},
        client::{Client, ClientError, ServerEvent, segment},
        error::{Body, Path, Query},
        events::{EventLog, EventRing, LastEventId, RESET, respond},
        index::{Api, Endpoint},
        list::{ListQuery, Page},
        probes::{self, Readiness},
        server::{BindError, Listen, Listener, bind, serve},
    },
    limits,
    metrics::{self, Build, Role},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

#[path = "support/promtool.rs"]
mod promtool;

use self::promtool::promtool;

const FULL: &str = "full-token-of-the-test";
const READ_ONLY: &str = "read-only-token-of-the-test";
const BUILD: Build = Build { version: "0.1.0", revision: "unknown", role: Role::Leaf };

/// A served API with an endpoint of each kind.
struct Daemon {
    address: SocketAddr,
    ring: Arc<EventRing>,
    log: Arc<EventLog>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    ring: Arc<EventRing>,
    log: Arc<EventLog>,
}

#[derive(Deserialize)]
struct NewSearch {
    query: String,
    #[serde(default)]
    limit: Option<u32>,
}

impl Daemon {
    async fn start(hosts: &[&str]) -> Self {
        metrics::install(BUILD, &[]).unwrap();
        let listener = listen().await;
        let address = listener.address();
        let (ring, log) = (Arc::new(EventRing::new(0xb007)), Arc::new(EventLog::new()));
        let tokens = Tokens { full: TokenHash::of(FULL), read_only: TokenHash::of(READ_ONLY) };
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let shared = Shared { ring: Arc::clone(&ring), log: Arc::clone(&log) };
        let router = api().into_router(shared, Guard::new(address, &hosts, tokens));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, stop.clone()));
        Self { address, ring, log, stop, serving }
    }

    fn client(&self, token: &str) -> Client {
        Client::new(&format!("http://{}", self.address), token).unwrap()
    }

    /// Sends a request as it is and returns status, headers in lower case, and body.
    async fn raw(&self, head: &str, body: &str) -> (u16, BTreeMap<String, String>, String) {
        raw(self.address, head, body).await
    }

    /// A request with a good `Host` and the full token.
    async fn plain(&self, method: &str, path: &str) -> (u16, BTreeMap<String, String>, String) {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {FULL}\r\n", self.address);
        self.raw(&head, "").await
    }

    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

fn api() -> Api<Shared> {
    Api::new("test", "0.1.0")
        .endpoint(Endpoint::get("numbers", "numbers from 0").list::<u32>(), numbers)
        .endpoint(Endpoint::post("searches", "starts a search").open_to_read_only(), search)
        .endpoint(Endpoint::delete("searches/{id}", "forgets a search").open_to_read_only(), forget)
        .endpoint(Endpoint::get("searches/{id}/events", "a search from the beginning").events(), search_events)
        .endpoint(Endpoint::patch("config", "changes the configuration"), configure)
        .endpoint(Endpoint::delete("bans/{target}", "lifts a ban"), forget)
        .endpoint(Endpoint::get("events", "everything that happens").events(), all_events)
        .endpoint(Endpoint::get("panic", "panics"), panic)
        .page("/", async || "the page")
}

async fn numbers(Query(list): Query<ListQuery>) -> Result<Json<Page<u32>>, ApiError> {
    list.page((0..250_u32).map(|number| (number, number)), |number| number).map(Json)
}

async fn search(Body(search): Body<NewSearch>) -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, Json(json!({ "id": search.query, "limit": search.limit })))
}

async fn forget(Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    match id.as_str() {
        "known" | "10.0.0.0/8" => Ok(StatusCode::NO_CONTENT),
        _ => Err(ApiError::not_found("no such thing").hint("list them")),
    }
}

async fn configure(Body(settings): Body<BTreeMap<String, Value>>) -> Json<BTreeMap<String, Value>> {
    Json(settings)
}

async fn search_events(State(shared): State<Shared>, LastEventId(last): LastEventId) -> Response {
    respond(shared.log.follow(last.as_deref()))
}

async fn all_events(State(shared): State<Shared>, LastEventId(last): LastEventId) -> Response {
    respond(shared.ring.follow(last.as_deref()))
}

async fn panic() -> StatusCode {
    panic!("a handler that panics on purpose")
}

async fn listen() -> Listener {
    bind(Listen::Given(SocketAddr::from(([127, 0, 0, 1], 0)))).await.unwrap()
}

async fn raw(address: SocketAddr, head: &str, body: &str) -> (u16, BTreeMap<String, String>, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Connection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    (status, lines.filter_map(header).collect(), body.to_owned())
}

fn error_code(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn tokens_open_what_the_contract_says() {
    let daemon = Daemon::start(&[]).await;
    let host = format!("Host: {}\r\n", daemon.address);
    let search = r#"{"query":"x"}"#;
    for (token, method, path, body, expected) in [
        (None, "GET", "/api/v1", "", (401, "unauthorized")),
        (None, "GET", "/api/v1/nothing", "", (401, "unauthorized")),
        (None, "PUT", "/api/v1/config", "", (401, "unauthorized")),
        (Some("wrong"), "GET", "/api/v1", "", (401, "unauthorized")),
        (Some(READ_ONLY), "GET", "/api/v1", "", (200, "")),
        (Some(READ_ONLY), "HEAD", "/api/v1/numbers", "", (200, "")),
        (Some(READ_ONLY), "POST", "/api/v1/searches", search, (201, "")),
        (Some(READ_ONLY), "DELETE", "/api/v1/searches/known", "", (204, "")),
        (Some(READ_ONLY), "PATCH", "/api/v1/config", "{}", (403, "read_only")),
        (Some(READ_ONLY), "DELETE", "/api/v1/bans/known", "", (403, "read_only")),
        (Some(FULL), "PATCH", "/api/v1/config", r#"{"log":null}"#, (200, "")),
        (Some(FULL), "DELETE", "/api/v1/bans/10.0.0.0%2F8", "", (204, "")),
        (None, "GET", "/", "", (200, "")),
    ] {
        let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let head = format!("{method} {path} HTTP/1.1\r\n{host}{token}Content-Length: {}\r\n", body.len());
        let (status, headers, body) = daemon.raw(&head, body).await;
        let code = if expected.1.is_empty() { String::new() } else { error_code(&body) };
        assert_eq!((status, code.as_str()), expected, "{head}");
        assert_eq!(headers.get("www-authenticate").map(String::as_str), (status == 401).then_some("Bearer"), "{head}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn other_names_and_other_sites_are_refused() {
    let daemon = Daemon::start(&["nas.lan"]).await;
    let port = daemon.address.port();
    for (headers, expected) in [
        (format!("Host: 127.0.0.1:{port}"), None),
        (format!("Host: localhost:{port}"), None),
        (format!("Host: nas.lan:{port}"), None),
        (format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}"), None),
        (format!("Host: evil.example:{port}"), Some("host_refused")),
        ("Host: 127.0.0.1".to_owned(), Some("host_refused")),
        ("X: y".to_owned(), Some("host_refused")),
        (format!("Host: localhost:{port}\r\nOrigin: http://evil.example"), Some("origin_refused")),
        (format!("Host: localhost:{port}\r\nOrigin: null"), Some("origin_refused")),
    ] {
        for path in ["/", "/api/v1", "/nothing"] {
            let head = format!("GET {path} HTTP/1.1\r\n{headers}\r\nAuthorization: Bearer {FULL}\r\n");
            let (status, answered, body) = daemon.raw(&head, "").await;
            match expected {
                None => assert_eq!(status, if path == "/nothing" { 404 } else { 200 }, "{head}"),
                Some(code) => assert_eq!((status, error_code(&body).as_str()), (403, code), "{head}"),
            }
            if expected == Some("host_refused") && headers.starts_with("Host") {
                assert!(body.contains("api_hosts"), "{body}");
            }
            assert!(!answered.contains_key("access-control-allow-origin"));
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let daemon = Daemon::start(&[]).await;
    for (path, status) in [("/", 200), ("/api/v1", 200), ("/api/v1/nothing", 404), ("/nothing", 404)] {
        let (have, headers, _) = daemon.plain("GET", path).await;
        assert_eq!(have, status, "{path}");
        let policy = &headers["content-security-policy"];
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert!(!headers.contains_key("set-cookie"));
        assert_eq!(headers.get("cache-control").is_some_and(|value| value == "no-store"), path.starts_with("/api"));
    }
    daemon.stop().await;
}

#[tokio::test]
async fn unknown_routes_and_methods_are_answered_in_json() {
    let daemon = Daemon::start(&[]).await;
    let (status, _, body) = daemon.plain("GET", "/api/v1/nothing").await;
    assert_eq!((status, error_code(&body).as_str()), (404, "not_found"));
    let (status, headers, body) = daemon.plain("PUT", "/api/v1/searches").await;
    assert_eq!((status, error_code(&body).as_str()), (405, "method_not_allowed"));
    assert_eq!(headers["allow"], "POST");
    daemon.stop().await;
}

#[tokio::test]
async fn a_panicking_handler_answers_internal_and_is_counted() {
    let daemon = Daemon::start(&[]).await;
    let (status, _, body) = daemon.plain("GET", "/api/v1/panic").await;
    assert_eq!((status, error_code(&body).as_str()), (500, "internal"));
    let text = metrics::install(BUILD, &[]).unwrap().render();
    assert!(text.contains("quictrack_task_panics_total{task=\"api\"} 1"), "{text}");
    assert!(
        text.contains(r#"quictrack_http_requests_total{route="/api/v1/panic",method="GET",code="5xx"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"quictrack_http_requests_total{route="/api/v1/panic",method="GET",code="2xx"} 0"#),
        "{text}"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn bodies_are_bounded_and_strict() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client(FULL);
    let answer: Value = client.post("searches", &json!({ "query": "abc", "limit": 5 })).await.unwrap();
    assert_eq!(answer, json!({ "id": "abc", "limit": 5 }));
    for bad in [json!({}), json!({ "query": 1 }), json!({ "query": "a", "limmit": 5 }), json!([]), json!(null)] {
        match client.post::<Value>("searches", &bad).await {
            Err(ClientError::Refused(error)) => assert_eq!(error.code, Code::BadRequest, "{bad}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
    // At the limit, announced beyond it, and beyond it without being announced.
    let query = "q".repeat(limits::HTTP_BODY_BYTES - r#"{"query":""}"#.len());
    client.post::<Value>("searches", &json!({ "query": query })).await.unwrap();
    let head =
        format!("POST /api/v1/searches HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {FULL}\r\n", daemon.address);
    let announced = format!("{head}Content-Length: {}\r\n", limits::HTTP_BODY_BYTES + 1);
    let (status, _, body) = daemon.raw(&announced, "").await;
    assert_eq!((status, error_code(&body).as_str()), (413, "too_large"));
    let body = format!("{:x}\r\n{}\r\n0\r\n\r\n", limits::HTTP_BODY_BYTES + 1, " ".repeat(limits::HTTP_BODY_BYTES + 1));
    let (status, _, body) = daemon.raw(&format!("{head}Transfer-Encoding: chunked\r\n"), &body).await;
    assert_eq!((status, error_code(&body).as_str()), (413, "too_large"));
    daemon.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client(READ_ONLY);
    let (mut seen, mut path) = (Vec::new(), "numbers".to_owned());
    loop {
        let page: Page<u32> = client.get(&path).await.unwrap();
        assert!(page.items.len() <= 100);
        seen.extend(page.items);
        let Some(next) = page.next else { break };
        path = format!("numbers?cursor={}", segment(&next));
    }
    assert_eq!(seen, (0..250).collect::<Vec<u32>>());
    let all: Page<u32> = client.get("numbers?limit=1000").await.unwrap();
    assert_eq!((all.items.len(), all.next), (250, None));
    for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1", "cursor=%21", "limits=5", "limit=5&limit=6"] {
        match client.get::<Value>(&format!("numbers?{bad}")).await {
            Err(ClientError::Refused(error)) => assert_eq!(error.code, Code::BadRequest, "{bad}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn the_list_of_endpoints_is_the_routes() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client(FULL);
    let index: Value = client.get("").await.unwrap();
    assert_eq!((&index["name"], &index["version"]), (&json!("test"), &json!("0.1.0")));
    let endpoints = index["endpoints"].as_array().unwrap();
    assert!(
        endpoints
            .contains(&json!({ "method": "GET", "path": "/api/v1", "summary": "name, version and all endpoints" }))
    );
    assert_eq!(endpoints.len(), 8 + 2);
    let document: Value = client.get("openapi.json").await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let page =
        &document["paths"]["/api/v1/numbers"]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(page["properties"]["items"]["items"]["type"], "integer");
    for endpoint in endpoints {
        let (method, path) = (endpoint["method"].as_str().unwrap(), endpoint["path"].as_str().unwrap());
        let operation = &document["paths"][path][method.to_lowercase()];
        assert_eq!(operation["summary"], endpoint["summary"], "{path}");
        let path = path.replace("{id}", "x").replace("{target}", "x");
        let known = !path.ends_with("events");
        if known {
            let (status, _, _) = daemon.plain(method, &path).await;
            assert_ne!(status, 405, "{method} {path}");
        }
    }
    daemon.stop().await;
}

async fn next(stream: &mut (impl StreamExt<Item = Result<ServerEvent, ClientError>> + Unpin)) -> ServerEvent {
    stream.next().await.expect("the stream goes on").expect("an event")
}

#[tokio::test]
async fn events_resume_where_they_broke_off() {
    let daemon = Daemon::start(&[]).await;
    let client = daemon.client(READ_ONLY);
    let mut first = client.events("events", None).await.unwrap();
    daemon.ring.publish("peer", &json!({ "peer": "a" }));
    daemon.ring.publish("log", &"line\nbreak");
    let peer = next(&mut first).await;
    assert_eq!((peer.event.as_str(), peer.data.as_str()), ("peer", r#"{"peer":"a"}"#));
    assert_eq!(next(&mut first).await.data, r#""line\nbreak""#);
    drop(first);
    let mut second = client.events("events", peer.id.as_deref()).await.unwrap();
    assert_eq!(next(&mut second).await.event, "log");
    let mut foreign = client.events("events", Some("1234-0")).await.unwrap();
    assert_eq!(next(&mut foreign).await.event, RESET);
    daemon.ring.publish("share", &1);
    assert_eq!(next(&mut foreign).await.event, "share");
    daemon.stop().await;
}

#[tokio::test]
async fn a_search_is_told_from_the_beginning_and_ends() {
    let daemon = Daemon::start(&[]).await;
    daemon.log.put("a", "hit", &1);
    let mut events = daemon.client(FULL).events("searches/x/events", None).await.unwrap();
    assert_eq!(next(&mut events).await.data, "1");
    daemon.log.put("", "summary", &2);
    daemon.log.close();
    assert_eq!(next(&mut events).await.event, "summary");
    assert!(events.next().await.is_none());
    daemon.stop().await;
}

#[tokio::test]
async fn a_follower_that_goes_away_is_let_go() {
    let daemon = Daemon::start(&[]).await;
    let followers = Arc::strong_count(&daemon.ring);
    let mut events = daemon.client(FULL).events("events", None).await.unwrap();
    daemon.ring.publish("peer", &1);
    next(&mut events).await;
    assert_eq!(Arc::strong_count(&daemon.ring), followers + 1);
    drop(events);
    while Arc::strong_count(&daemon.ring) > followers {
        tokio::task::yield_now().await;
    }
    daemon.stop().await;
}

#[tokio::test]
async fn stopping_leaves_no_connection() {
    let daemon = Daemon::start(&[]).await;
    let address = daemon.address;
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut events = daemon.client(FULL).events("events", None).await.unwrap();
    daemon.ring.publish("peer", &1);
    next(&mut events).await;
    daemon.stop().await;
    assert!(events.next().await.is_none());
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let refused = Client::new(&format!("http://{address}"), FULL).unwrap().get::<Value>("").await.unwrap_err();
    assert_eq!(refused.code(), Code::DaemonNotRunning);
}

#[tokio::test]
async fn a_taken_address_is_an_error_only_if_the_user_gave_it() {
    let first = listen().await;
    let taken = first.address();
    let error = bind(Listen::Given(taken)).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { address } if address == taken));
    assert_eq!(error.code(), Code::AddressInUse);
    let moved = bind(Listen::Default(taken)).await.unwrap();
    assert_eq!(moved.address().ip(), taken.ip());
    assert_ne!(moved.address().port(), taken.port());
}

#[tokio::test]
async fn probes_need_no_token_and_promtool_finds_nothing_to_say() {
    let daemon = Daemon::start(&[]).await;
    let metrics = metrics::install(BUILD, &[]).unwrap();
    let readiness = Readiness::new();
    let listener = listen().await;
    let address = listener.address();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, probes::router(metrics.clone(), readiness.clone()), stop.clone()));
    let upkeep = tokio::spawn(metrics.upkeep(stop.clone()));
    let get = async |path: &str| raw(address, &format!("GET {path} HTTP/1.1\r\nHost: anything\r\n"), "").await;

    assert_eq!(get("/healthz").await.0, 200);
    let (status, _, body) = get("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(body, r#"{"ready":false,"checks":{"listening":false,"identity":false,"network":false}}"#);
    readiness.set_listening(true);
    readiness.set_identity(true);
    readiness.set_network(true);
    assert_eq!(get("/readyz").await.0, 200);
    assert_eq!(get("/nothing").await.0, 404);

    let (status, headers, text) = get("/metrics").await;
    assert_eq!(status, 200);
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let series = text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{")).count();
    assert!(series <= 1000, "{series} series");
    promtool(&text);
    stop.cancel();
    serving.await.unwrap();
    upkeep.await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn the_client_tells_the_three_failures_apart() {
    let daemon = Daemon::start(&[]).await;
    let wrong = daemon.client("wrong").get::<Value>("").await.unwrap_err();
    assert_eq!(wrong.code(), Code::Unauthorized);
    let unknown = daemon.client(FULL).delete("searches/unknown").await.unwrap_err();
    assert!(matches!(&unknown, ClientError::Refused(error) if error.hint.as_deref() == Some("list them")), "{unknown}");
    daemon.client(FULL).delete("searches/known").await.unwrap();
    daemon.client(FULL).delete(&format!("bans/{}", segment("10.0.0.0/8"))).await.unwrap();
    let changed: Value = daemon.client(FULL).patch("config", &json!({ "log": "debug" })).await.unwrap();
    assert_eq!(changed, json!({ "log": "debug" }));
    let answer = daemon.client(FULL).send(Method::POST, "searches", Some(&json!({ "query": "x" }))).await.unwrap();
    assert_eq!(answer.status, StatusCode::CREATED);
    daemon.stop().await;

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&format!("http://{}", silent.local_addr().unwrap()), FULL).unwrap();
    let closing = async {
        let (mut stream, _) = silent.accept().await.unwrap();
        stream.write_all(b"not http\r\n\r\n").await.unwrap();
    };
    let (answer, ()) = tokio::join!(client.get::<Value>(""), closing);
    assert!(matches!(answer, Err(ClientError::Broken(_))), "{answer:?}");
}
