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
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
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

/// Makes the JSON schema of a type.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A query parameter.
#[derive(Clone, Debug)]
struct Parameter {
    name: &'static str,
    meaning: &'static str,
    schema: SchemaOf,
}

/// The declaration of an endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    method: Method,
    path: &'static str,
    summary: &'static str,
    open_to_read_only: bool,
    request: Option<SchemaOf>,
    answers: Option<SchemaOf>,
    query: Vec<Parameter>,
    status: u16,
    may_exist: bool,
    answer: Answer,
}

impl Endpoint {
    /// `GET` of a path below `/api/v1`, without a leading slash, parameters as `{name}`. 200, and what [`Self::answers`],
    /// [`Self::list`], [`Self::events`] or [`Self::bytes`] says.
    pub const fn get(path: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Get, path, summary, 200, Answer::Json)
    }

    /// `POST`: 201, and what follows tells.
    pub const fn post(path: &'static str, summary: &'static str) -> Self {
        Self::new(Method::Post, path, summary, 201, Answer::Json)
    }

    /// `PATCH`: 200, and what follows tells.
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
            answers: None,
            query: Vec::new(),
            status,
            may_exist: false,
            answer,
        }
    }

    /// It answers a page of a list of `T`, see [`crate::admin::list`].
    #[must_use]
    pub fn list<T: JsonSchema>(self) -> Self {
        self.items::<T>()
            .query::<PageSize>("limit", "items wanted, 1 to 1000, default 100")
            .query::<String>("cursor", "`next` of the page before")
    }

    /// It answers all of a list of `T` as one page.
    #[must_use]
    pub fn items<T: JsonSchema>(mut self) -> Self {
        self.answer = Answer::List;
        self.answers::<T>()
    }

    /// It answers a `T`.
    #[must_use]
    pub fn answers<T: JsonSchema>(mut self) -> Self {
        self.answers = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// It takes a `T` as its body.
    #[must_use]
    pub fn request<T: JsonSchema>(mut self) -> Self {
        self.request = Some(SchemaGenerator::subschema_for::<T>);
        self
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

    /// It answers 200 instead, and the same, if what is wanted is there already.
    #[must_use]
    pub fn may_exist(mut self) -> Self {
        self.may_exist = true;
        self
    }

    /// The read-only token opens it although it is no `GET`.
    #[must_use]
    pub fn open_to_read_only(mut self) -> Self {
        self.open_to_read_only = true;
        self
    }

    /// A query parameter, which reads as a `T`, and its meaning, for the document.
    #[must_use]
    pub fn query<T: JsonSchema>(mut self, name: &'static str, meaning: &'static str) -> Self {
        self.query.push(Parameter { name, meaning, schema: SchemaGenerator::subschema_for::<T> });
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
        let mut schemas = Schemas::new();
        let mut paths = serde_json::Map::new();
        for endpoint in &self.endpoints {
            let methods = paths.entry(endpoint.full_path()).or_insert_with(|| json!({}));
            methods[endpoint.method.name().to_lowercase()] = operation(endpoint, &mut schemas);
        }
        json!({
            "openapi": "3.1.0",
            "info": { "title": self.name, "version": self.version },
            "security": [{ "token": [] }],
            "paths": paths,
            "components": {
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
                "schemas": schemas.into_definitions(),
            },
        })
        .to_string()
    }
}

/// A size of a page, see [`crate::admin::list`].
#[derive(JsonSchema)]
#[schemars(inline, transparent)]
struct PageSize(
    #[expect(dead_code, reason = "only its schema counts")]
    #[schemars(range(min = 1, max = 1000))]
    u32,
);

/// Where schemas of types come from, and what they refer to. What is read has other schemas than what is written: a
/// field with a default may be absent in the first and never is in the second.
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let settings =
            SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
        let read = settings.clone().into_generator();
        Self { read, written: settings.for_serialize().into_generator() }
    }

    /// All that was referred to, and the form of errors, by name.
    fn into_definitions(mut self) -> serde_json::Map<String, Value> {
        let mut definitions = self.read.take_definitions(true);
        // Where a type is both read and written, what is written is the stricter.
        definitions.extend(self.written.take_definitions(true));
        definitions.insert("Error".to_owned(), error_schema());
        definitions
    }
}

/// The form of all errors.
fn error_schema() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().filter(|code| code.status().is_some()).map(|code| code.name()).collect();
    json!({
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
    })
}

/// One method of one path in the OpenAPI document.
fn operation(endpoint: &Endpoint, schemas: &mut Schemas) -> Value {
    let in_path = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| {
        json!({ "name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": { "type": "string" } })
    });
    let mut parameters: Vec<Value> = in_path.collect();
    for Parameter { name, meaning, schema } in &endpoint.query {
        let schema = schema(&mut schemas.read);
        parameters.push(json!({ "name": name, "in": "query", "description": meaning, "schema": schema }));
    }
    let mut operation = json!({
        "summary": endpoint.summary,
        "operationId": operation_id(endpoint),
        "parameters": parameters,
        "responses": {
            endpoint.status.to_string(): success(endpoint, schemas),
            "default": {
                "description": "error",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            },
        },
    });
    if endpoint.may_exist {
        operation["responses"]["200"] = success(endpoint, schemas);
    }
    if let Some(schema) = endpoint.request {
        let schema = schema(&mut schemas.read);
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

fn success(endpoint: &Endpoint, schemas: &mut Schemas) -> Value {
    let schema = endpoint.answers.map_or_else(|| json!(true), |schema| schema(&mut schemas.written).to_value());
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
        Answer::Bytes => json!({ "*/*": {} }),
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
