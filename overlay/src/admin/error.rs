//! What a request is answered with when it fails: one shape, a closed list of codes.
//!
//! `{"error":{"code","message","hint","position"}}`. A code fixes its HTTP status, so no handler picks a
//! status by hand; the codes without a status are spoken by the command line alone. Extractors turn every
//! refusal of a body, a query string or a path into this shape too, and refuse fields that the request
//! type does not have: a misspelt option must not be ignored silently.

use std::{fmt, time::Duration};

use axum::{
    extract::{FromRequest, FromRequestParts, Request, rejection::PathRejection},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use serde::{
    Deserialize, Serialize,
    de::{self, DeserializeOwned, Visitor},
    forward_to_deserialize_any,
};

use crate::limits;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:expr;)+) => {
        /// Why something failed, as a word that programs can match.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $variant,)+ }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The HTTP status; `None` for the codes that only the command line speaks.
            pub const fn status(self) -> Option<StatusCode> {
                match self { $(Self::$variant => $status,)+ }
            }
        }
    };
}

codes! {
    /// The request is not understood.
    BadRequest = "bad_request", Some(StatusCode::BAD_REQUEST);
    /// The search query is malformed; the error carries the position.
    BadQuery = "bad_query", Some(StatusCode::BAD_REQUEST);
    /// No token, or a wrong one.
    Unauthorized = "unauthorized", Some(StatusCode::UNAUTHORIZED);
    /// The read-only token does not open this.
    ReadOnly = "read_only", Some(StatusCode::FORBIDDEN);
    /// The `Host` header names none of this server's names.
    HostRefused = "host_refused", Some(StatusCode::FORBIDDEN);
    /// The request comes from another site's page.
    OriginRefused = "origin_refused", Some(StatusCode::FORBIDDEN);
    /// No such route or thing.
    NotFound = "not_found", Some(StatusCode::NOT_FOUND);
    /// The route exists, but not with this method.
    MethodNotAllowed = "method_not_allowed", Some(StatusCode::METHOD_NOT_ALLOWED);
    /// It contradicts the present state.
    Conflict = "conflict", Some(StatusCode::CONFLICT);
    /// The body is too long.
    TooLarge = "too_large", Some(StatusCode::PAYLOAD_TOO_LARGE);
    /// The requested range lies outside the file.
    BadRange = "bad_range", Some(StatusCode::RANGE_NOT_SATISFIABLE);
    /// Too many requests; the answer says when to come back.
    RateLimited = "rate_limited", Some(StatusCode::TOO_MANY_REQUESTS);
    /// A fault of this program.
    Internal = "internal", Some(StatusCode::INTERNAL_SERVER_ERROR);
    /// The other node cannot be reached.
    PeerUnreachable = "peer_unreachable", Some(StatusCode::BAD_GATEWAY);
    /// No ultrapeer is connected.
    NoUltrapeer = "no_ultrapeer", Some(StatusCode::SERVICE_UNAVAILABLE);
    /// The daemon is shutting down.
    Draining = "draining", Some(StatusCode::SERVICE_UNAVAILABLE);
    /// The other node did not answer in time.
    Timeout = "timeout", Some(StatusCode::GATEWAY_TIMEOUT);
    /// No space is left on the disk.
    DiskFull = "disk_full", Some(StatusCode::INSUFFICIENT_STORAGE);
    /// No daemon answers.
    DaemonNotRunning = "daemon_not_running", None;
    /// The data folder is in use by another daemon.
    AlreadyRunning = "already_running", None;
    /// A listening address is taken.
    AddressInUse = "address_in_use", None;
    /// The configuration cannot be read.
    BadConfig = "bad_config", None;
    /// The system refuses access.
    PermissionDenied = "permission_denied", None;
    /// The data folder was written by a newer version.
    DataTooNew = "data_too_new", None;
}

impl Code {
    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    /// Codes of a newer daemon read as [`Code::Internal`]; message and hint say what they mean.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::from_name(&name).unwrap_or(Self::Internal))
    }
}

/// A failed request: what, why, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What programs match.
    pub code: Code,
    /// What failed and why, for people: lower case, no full stop.
    pub message: String,
    /// What to do next.
    #[serde(default)]
    pub hint: Option<String>,
    /// The offending character of a query, from 1.
    #[serde(default)]
    pub position: Option<u32>,
    /// When to come back; sent as `Retry-After` in whole seconds.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error without hint and position.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, position: None, retry_after: None }
    }

    /// The request is not understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// A fault of this program: the cause goes to the log, the caller learns that it is there.
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(Code::Internal, "internal error").hint("the log of the daemon has the cause")
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the offending character, counted from 1.
    #[must_use]
    pub fn position(mut self, position: u32) -> Self {
        self.position = Some(position);
        self
    }

    /// Adds when to come back.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

/// The body of a failed request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope<E> {
    pub(super) error: E,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.code.status().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(Envelope { error: &self })).into_response();
        let headers = response.headers_mut();
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.code == Code::RateLimited || self.retry_after.is_some() {
            let wait = self.retry_after.unwrap_or(Duration::from_secs(1));
            let whole_seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds.max(1)));
        }
        response
    }
}

/// The answer to a route that does not exist.
pub(super) async fn unknown_route(request: Request) -> ApiError {
    ApiError::not_found(format!("no such route: {}", request.uri().path())).hint("GET /api/v1 lists all routes")
}

/// The answer to a route that exists with other methods; `Allow` is set by the router.
pub(super) async fn unknown_method(request: Request) -> ApiError {
    ApiError::new(Code::MethodNotAllowed, format!("{} is not possible here", request.method()))
        .hint("GET /api/v1 lists all routes and their methods")
}

/// A JSON body of at most [`limits::HTTP_BODY_BYTES`], read as a `T`.
///
/// Refuses unknown fields of a struct (one that flattens another must say `deny_unknown_fields` itself),
/// wrong types and trailing text with `bad_request`, a longer body with `too_large`. The `Content-Type` is not looked at: requests are
/// authenticated by a header that no foreign page can set.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        match read(request.into_body()).await? {
            Some(bytes) => parse_body(&bytes).map(Self),
            None => Err(too_large()),
        }
    }
}

/// The answer to a body beyond [`limits::HTTP_BODY_BYTES`].
pub(super) fn too_large() -> ApiError {
    ApiError::new(Code::TooLarge, format!("the body is longer than {} bytes", limits::HTTP_BODY_BYTES))
}

/// The bytes of a body; `None` if there are more than [`limits::HTTP_BODY_BYTES`]; the rest is discarded then.
async fn read(mut body: axum::body::Body) -> Result<Option<Vec<u8>>, ApiError> {
    let mut kept = Vec::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if kept.len() + data.len() > limits::HTTP_BODY_BYTES {
                return Ok(false);
            }
            kept.extend_from_slice(&data);
        }
        Ok(true)
    };
    match tokio::time::timeout(limits::HTTP_BODY_TIMEOUT, reading).await {
        Ok(Ok(true)) => Ok(Some(kept)),
        Ok(Ok(false)) => {
            discard(body).await;
            Ok(None)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ApiError::bad_request("the body did not arrive in time")),
    }
}

/// Reads a body that is refused, up to [`limits::HTTP_DISCARDED_BYTES`] and as long as it keeps coming: a client
/// that writes reads its answer only afterwards, and a connection that is closed before takes the answer with it.
pub(super) async fn discard(mut body: axum::body::Body) {
    let mut left = limits::HTTP_DISCARDED_BYTES;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(limits::HTTP_DISCARD_PAUSE, body.frame()).await {
        match left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let value: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))?;
    match value.as_object() {
        Some(object) => refuse_unknown_fields::<T>(object.keys().map(String::as_str))?,
        // serde would take a list for the fields in their order.
        None if fields_of::<T>().is_some() => return Err(ApiError::bad_request("the body is no JSON object")),
        None => {}
    }
    // Read again from the text, so that the message has line and column.
    serde_json::from_slice(bytes).map_err(|error| ApiError::bad_request(format!("the body does not fit: {error}")))
}

/// The query string, read as a `T`, which must be a flat struct.
///
/// Refuses unknown, repeated and ill-typed parameters with `bad_request`.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let pairs = read_query::<Vec<(String, String)>>(parts)?;
        refuse_unknown_fields::<T>(pairs.iter().map(|(name, _)| name.as_str()))?;
        read_query(parts).map(Self)
    }
}

fn read_query<T: DeserializeOwned>(parts: &Parts) -> Result<T, ApiError> {
    match axum::extract::Query::try_from_uri(&parts.uri) {
        Ok(axum::extract::Query(query)) => Ok(query),
        Err(rejection) => Err(ApiError::bad_request(format!("bad query string: {}", cause(&rejection)))),
    }
}

/// The parameters of the route's path, percent-decoded.
///
/// What cannot be a `T` names nothing, so it is `not_found`.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                Err(ApiError::not_found(format!("no such thing: {}", error.body_text())))
            }
            Err(rejection) => Err(ApiError::internal(rejection)),
        }
    }
}

/// The innermost cause, without the generic words around it.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Refuses the first of `names` that is no field of `T`, if `T` is a struct.
fn refuse_unknown_fields<'a, T: DeserializeOwned>(mut names: impl Iterator<Item = &'a str>) -> Result<(), ApiError> {
    let Some(fields) = fields_of::<T>() else { return Ok(()) };
    let Some(unknown) = names.find(|name| !fields.contains(name)) else { return Ok(()) };
    Err(ApiError::bad_request(format!("unknown field `{unknown}`")).hint(format!("known are: {}", fields.join(", "))))
}

/// The field names of a struct that derives `Deserialize`; `None` for maps, enums and everything else.
///
/// Asks `T` to read itself from a deserializer that only notes which struct was wanted.
fn fields_of<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    struct Probe<'a>(&'a mut Option<&'static [&'static str]>);

    impl<'de> de::Deserializer<'de> for Probe<'_> {
        type Error = de::value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = Some(fields);
            Err(de::Error::custom("probed"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("probed"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields = None;
    let _probed = T::deserialize(Probe(&mut fields));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Job {
        content: String,
        #[serde(default)]
        priority: Option<u32>,
    }

    #[test]
    fn names_are_distinct_and_read_back() {
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.name()), Some(*code));
        }
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn an_unknown_code_reads_as_internal() {
        let read: ApiError = serde_json::from_str(r#"{"code":"melted","message":"m","future":1}"#).unwrap();
        assert_eq!(read, ApiError::new(Code::Internal, "m"));
    }

    #[test]
    fn absent_hint_and_position_are_null() {
        let text = serde_json::to_string(&Envelope { error: ApiError::not_found("no job x") }).unwrap();
        assert_eq!(text, r#"{"error":{"code":"not_found","message":"no job x","hint":null,"position":null}}"#);
    }

    #[test]
    fn bodies_are_strict_without_help_of_the_type() {
        assert_eq!(parse_body::<Job>(br#"{"content":"a"}"#).unwrap(), Job { content: "a".into(), priority: None });
        let unknown = parse_body::<Job>(br#"{"content":"a","prio":1}"#).unwrap_err();
        assert_eq!(unknown.code, Code::BadRequest);
        assert!(unknown.message.contains("`prio`"), "{unknown}");
        assert_eq!(unknown.hint.as_deref(), Some("known are: content, priority"));
        for bad in [
            &b"{"[..],
            b"",
            b"[]",
            b"[\"a\",1]",
            b"{\"content\":1}",
            b"{\"content\":\"a\"} x",
            b"{\"priority\":1}",
            b"\xff",
        ] {
            assert_eq!(parse_body::<Job>(bad).unwrap_err().code, Code::BadRequest, "{bad:?}");
        }
    }

    #[test]
    fn maps_take_every_key() {
        type Settings = std::collections::BTreeMap<String, serde_json::Value>;
        assert_eq!(parse_body::<Settings>(br#"{"a":1,"b":null}"#).unwrap().len(), 2);
    }

    #[test]
    fn retry_after_is_in_whole_seconds_and_never_zero() {
        let wait = |error: ApiError| error.into_response().headers()[header::RETRY_AFTER].to_str().unwrap().to_owned();
        assert_eq!(wait(ApiError::new(Code::RateLimited, "m")), "1");
        assert_eq!(wait(ApiError::new(Code::RateLimited, "m").retry_after(Duration::from_millis(2500))), "3");
    }
}
