//! The endpoints of an API: declared once, from which come the routes, `GET /api/v1`, the OpenAPI document,
//! the labels of the HTTP metrics and what the read-only token opens. So none of them can differ.

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{MatchedPath, Request, State},
    handler::Handler,
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use futures_util::FutureExt;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    admin::{
        auth::{API_ROOT, Guard, is_api, set_security_headers},
        error::{ApiError, Code, discard, unknown_method, unknown_route},
    },
    limits,
    metrics::{HttpRequests, TASK_PANICS, Task},
};

/// A method of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Method {
    Get,
    Post,
    Patch,
    Delete,
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// What an endpoint answers when all is well.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Json,
    List,
    Events,
    Bytes,
    Nothing,
}

/// The declaration of an endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    method: Method,
    path: &'static str,
    summary: &'static str,
    open_to_read_only: bool,
    request: Option<fn() -> Value>,
    item: Option<fn() -> Value>,
    query: Vec<(&'static str, &'static str)>,
    status: u16,
    answer: Answer,
}

impl Endpoint {
    /// `GET` of a path below `/api/v1`, without a leading slash, parameters as `{name}`. 200 and an object.
    pub const fn get(path: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Get, path, summary, 200, Answer::Json)
    }

    /// `POST`: 201 and an object.
    pub const fn post(path: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Post, path, summary, 201, Answer::Json)
    }

    /// `PATCH`: 200 and an object.
    pub const fn patch(path: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Patch, path, summary, 200, Answer::Json)
    }

    /// `DELETE`: 204 and nothing.
    pub const fn delete(path: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Delete, path, summary, 204, Answer::Nothing)
    }

    const fn new(method: Method, path: &'static str, summary: &'static str, status: u16, answer: Answer) -> Self {
        Self {
            method,
            path,
            summary,
            open_to_read_only: false,
            request: None,
            item: None,
            query: Vec::new(),
            status,
            answer,
        }
    }

    /// It answers a page of a list, see [`crate::admin::list`].
    #[must_use]
    pub fn list(mut self) -> Self {
        self.answer = Answer::List;
        self.query("limit", "items wanted, 1 to 1000, default 100").query("cursor", "`next` of the page before")
    }

    /// It answers server-sent events.
    #[must_use]
    pub fn events(mut self) -> Self {
        self.answer = Answer::Events;
        self
    }

    /// It answers the bytes of a file.
    #[must_use]
    pub fn bytes(mut self) -> Self {
        self.answer = Answer::Bytes;
        self
    }

    /// It takes the work on and answers 202 and nothing.
    #[must_use]
    pub fn accepted(mut self) -> Self {
        (self.status, self.answer) = (202, Answer::Nothing);
        self
    }

    /// The read-only token opens it although it is no `GET`.
    #[must_use]
    pub fn open_to_read_only(mut self) -> Self {
        self.open_to_read_only = true;
        self
    }

    /// A query parameter and its meaning, for the document.
    #[must_use]
    pub fn query(mut self, name: &'static str, meaning: &'static str) -> Self {
        self.query.push((name, meaning));
        self
    }

    /// The JSON schema of the request's body, for the document.
    #[must_use]
    pub fn request(mut self, schema: fn() -> Value) -> Self {
        self.request = Some(schema);
        self
    }

    /// The JSON schema of the answer, of a list the schema of an item, for the document.
    #[must_use]
    pub fn answers(mut self, schema: fn() -> Value) -> Self {
        self.item = Some(schema);
        self
    }

    fn full_path(&self) -> String {
        if self.path.is_empty() { API_ROOT.to_owned() } else { format!("{API_ROOT}/{}", self.path) }
    }
}

/// An API in the making: endpoints below `/api/v1` and pages outside it.
#[derive(Debug)]
pub struct Api<S> {
    name: &'static str,
    version: &'static str,
    endpoints: Vec<Endpoint>,
    pages: Vec<&'static str>,
    router: Router<S>,
}

impl<S: Clone + Send + Sync + 'static> Api<S> {
    /// An API with nothing but its own list and document.
    pub fn new(name: &'static str, version: &'static str) -> Self {
        Self { name, version, endpoints: Vec::new(), pages: Vec::new(), router: Router::new() }
    }

    /// Adds an endpoint. Declaring the same method and path twice is a mistake in the program and panics
    /// at start.
    #[must_use]
    pub fn endpoint<H: Handler<T, S>, T: 'static>(mut self, endpoint: Endpoint, handler: H) -> Self {
        self.router = self.router.route(&endpoint.full_path(), on(endpoint.method.filter(), handler));
        self.endpoints.push(endpoint);
        self
    }

    /// Adds a `GET` route outside `/api/v1`, which needs no token: the web page, its files, links with a
    /// ticket. It is not listed.
    #[must_use]
    pub fn page<H: Handler<T, S>, T: 'static>(mut self, path: &'static str, handler: H) -> Self {
        debug_assert!(!is_api(path), "what lies under the API is an endpoint");
        self.router = self.router.route(path, on(MethodFilter::GET, handler));
        self.pages.push(path);
        self
    }

    /// The routes, behind `guard`, with everything that surrounds them: security headers, errors in JSON
    /// for unknown routes and methods, metrics, and 500 instead of a dead connection when a handler panics.
    ///
    /// The metrics should be installed before, see [`crate::metrics::install`].
    pub fn into_router(self, state: S, mut guard: Guard) -> Router {
        let mut api = self
            .endpoint(Endpoint::get("", "name, version and all endpoints"), list_endpoints)
            .endpoint(Endpoint::get("openapi.json", "this API as an OpenAPI document"), openapi_document);
        api.endpoints.sort_by_key(|endpoint| (endpoint.path, endpoint.method));
        for endpoint in api.endpoints.iter().filter(|endpoint| endpoint.open_to_read_only) {
            guard.open_to_read_only(endpoint.method.name(), endpoint.full_path());
        }
        let labels = api.endpoints.iter().map(|endpoint| (endpoint.method.name(), endpoint.full_path()));
        let pages = api.pages.iter().map(|path| ("GET", (*path).to_owned()));
        let surroundings = Arc::new(Surroundings {
            guard,
            requests: HttpRequests::register(labels.chain(pages)),
            list: api.list().into(),
            document: api.document().into(),
        });
        api.router
            .fallback(unknown_route)
            .method_not_allowed_fallback(unknown_method)
            .layer(middleware::from_fn_with_state(surroundings, surround))
            .with_state(state)
    }

    fn list(&self) -> String {
        #[derive(Serialize)]
        struct Line {
            method: &'static str,
            path: String,
            summary: &'static str,
        }
        let line = |endpoint: &Endpoint| Line {
            method: endpoint.method.name(),
            path: endpoint.full_path(),
            summary: endpoint.summary,
        };
        let endpoints: Vec<Line> = self.endpoints.iter().map(line).collect();
        json!({ "name": self.name, "version": self.version, "endpoints": endpoints }).to_string()
    }

    fn document(&self) -> String {
        let mut paths = serde_json::Map::new();
        for endpoint in &self.endpoints {
            let methods = paths.entry(endpoint.full_path()).or_insert_with(|| json!({}));
            methods[endpoint.method.name().to_lowercase()] = operation(endpoint);
        }
        let codes: Vec<&str> =
            Code::ALL.iter().filter(|code| code.status().is_some()).map(|code| code.name()).collect();
        json!({
            "openapi": "3.1.0",
            "info": { "title": self.name, "version": self.version },
            "security": [{ "token": [] }],
            "paths": paths,
            "components": {
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
                "schemas": { "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": { "error": {
                        "type": "object",
                        "required": ["code", "message", "hint", "position"],
                        "properties": {
                            "code": { "type": "string", "enum": codes },
                            "message": { "type": "string" },
                            "hint": { "type": ["string", "null"] },
                            "position": { "type": ["integer", "null"], "minimum": 1 },
                        },
                    } },
                } },
            },
        })
        .to_string()
    }
}

/// One method of one path in the OpenAPI document.
fn operation(endpoint: &Endpoint) -> Value {
    let in_path = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| {
        json!({ "name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": { "type": "string" } })
    });
    let in_query = endpoint.query.iter().map(|(name, meaning)| {
        json!({ "name": name, "in": "query", "description": meaning, "schema": { "type": "string" } })
    });
    let mut operation = json!({
        "summary": endpoint.summary,
        "operationId": operation_id(endpoint),
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": {
            endpoint.status.to_string(): success(endpoint),
            "default": {
                "description": "error",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            },
        },
    });
    if let Some(schema) = endpoint.request {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema() } } });
    }
    operation
}

fn success(endpoint: &Endpoint) -> Value {
    let schema = endpoint.item.map_or_else(|| json!({ "type": "object" }), |schema| schema());
    let content = match endpoint.answer {
        Answer::Json => json!({ "application/json": { "schema": schema } }),
        Answer::List => json!({ "application/json": { "schema": {
            "type": "object",
            "required": ["items", "next"],
            "properties": {
                "items": { "type": "array", "maxItems": limits::LIST_LIMIT_MAX, "items": schema },
                "next": { "type": ["string", "null"] },
            },
        } } }),
        Answer::Events => json!({ "text/event-stream": { "schema": { "type": "string" } } }),
        Answer::Bytes => json!({ "application/octet-stream": {} }),
        Answer::Nothing => return json!({ "description": "done" }),
    };
    json!({ "description": "done", "content": content })
}

/// `get_searches_id_events`.
fn operation_id(endpoint: &Endpoint) -> String {
    let words = endpoint.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(endpoint.method.name().to_lowercase()).chain(words.map(str::to_owned)).collect::<Vec<_>>().join("_")
}

/// What surrounds every handler.
#[derive(Debug)]
struct Surroundings {
    guard: Guard,
    requests: HttpRequests,
    list: Bytes,
    document: Bytes,
}

/// The list and the document, for their handlers, which know no state.
#[derive(Clone)]
struct Texts(Arc<Surroundings>);

async fn surround(State(surroundings): State<Arc<Surroundings>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let template = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let counters = surroundings.requests.of(request.method().as_str(), template.as_deref());
    let under_api = is_api(request.uri().path());
    let mut response = match surroundings.guard.check(&request) {
        Err(refusal) => {
            // Whoever asks first whether it may send the body is told before it does.
            if !request.headers().contains_key(header::EXPECT) {
                discard(request.into_body()).await;
            }
            refusal.into_response()
        }
        Ok(()) => {
            request.extensions_mut().insert(Texts(Arc::clone(&surroundings)));
            AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
                TASK_PANICS.increment(Task::Api);
                ApiError::internal("a handler panicked").into_response()
            })
        }
    };
    set_security_headers(under_api, &mut response);
    counters.record(response.status().as_u16(), started.elapsed());
    response
}

async fn list_endpoints(request: Request) -> Response {
    prepared_json(&request, |surroundings| &surroundings.list)
}

async fn openapi_document(request: Request) -> Response {
    prepared_json(&request, |surroundings| &surroundings.document)
}

fn prepared_json(request: &Request, text: impl Fn(&Surroundings) -> &Bytes) -> Response {
    match request.extensions().get::<Texts>() {
        Some(Texts(surroundings)) => {
            let kind = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, kind)], text(surroundings).clone()).into_response()
        }
        None => ApiError::internal("the API's own texts are missing").into_response(),
    }
}
