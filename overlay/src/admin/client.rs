//! The command line's side: talks to the daemon of this machine over HTTP/1.
//!
//! One connection for each request: the daemon is on this machine, and a command asks a few times at most.
//! Every failure is one of three: no daemon answers, the daemon refuses ([`ApiError`] as it sent it), or
//! what came back makes no sense.

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::http::{Method, Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    admin::{
        error::{ApiError, Code, Envelope},
        handoff::ApiFile,
    },
    limits,
};

/// Why the daemon gave no answer to use. Whether the daemon's state changed is unknown after
/// [`ClientError::Broken`], it did not after the others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No daemon runs on this data folder, or it does not take connections.
    #[error("no daemon is running: {0}")]
    NotRunning(String),
    /// The daemon refused.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The answer broke off, did not come in time, or is no answer of this API.
    #[error("the daemon gave no usable answer: {0}")]
    Broken(String),
}

impl ClientError {
    /// The code for the command line.
    pub fn code(&self) -> Code {
        match self {
            Self::NotRunning(_) => Code::DaemonNotRunning,
            Self::Refused(error) => error.code,
            Self::Broken(_) => Code::Internal,
        }
    }

    fn broken(cause: impl std::fmt::Display) -> Self {
        Self::Broken(cause.to_string())
    }
}

/// An answer that is no refusal.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 2xx or 3xx.
    pub status: StatusCode,
    /// At most [`limits::CLIENT_ANSWER_BYTES`].
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(ClientError::broken)
    }
}

/// Talks to one daemon.
#[derive(Clone)]
pub struct Client {
    authority: String,
    token: String,
}

impl Client {
    /// A client of the daemon at `url` (`http://ADDRESS`). Connects to nothing yet.
    pub fn new(url: &str, token: &str) -> Result<Self, ClientError> {
        let uri: Uri = url.parse().map_err(ClientError::broken)?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) => Ok(Self { authority: authority.to_string(), token: token.to_owned() }),
            _ => Err(ClientError::Broken(format!("`{url}` is no address of a daemon"))),
        }
    }

    /// A client of the daemon that runs on a data folder, by its `api.json`.
    pub fn of_data_dir(data_dir: &Path) -> Result<Self, ClientError> {
        match ApiFile::read(data_dir) {
            Ok(Some(file)) => Self::new(&file.url, &file.token),
            Ok(None) => Err(ClientError::NotRunning(format!("{} has no api.json", data_dir.display()))),
            Err(error) => Err(ClientError::broken(format!("cannot read api.json: {error}"))),
        }
    }

    /// The address of a page that the daemon serves outside of `/api/v1`; `path` begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }

    /// `GET` of a path below `/api/v1/`; write its parts with [`segment`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None::<&()>).await?.json()
    }

    /// `POST` with a JSON body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.send(Method::POST, path, Some(body)).await?.json()
    }

    /// `PATCH` with a JSON body.
    pub async fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.send(Method::PATCH, path, Some(body)).await?.json()
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, None::<&()>).await.map(drop)
    }

    /// Any request, when the status matters or there is no body.
    pub async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Answer, ClientError> {
        let body = body.map(serde_json::to_vec).transpose().map_err(ClientError::broken)?;
        let request = self.request(method, path, body)?;
        let asking = async {
            let response = self.exchange(request).await?;
            let status = response.status();
            let limited = Limited::new(response.into_body(), limits::CLIENT_ANSWER_BYTES);
            let body = limited.collect().await.map_err(|error| match error.downcast::<LengthLimitError>() {
                Ok(_) => ClientError::broken("the answer is too long"),
                Err(error) => ClientError::broken(error),
            })?;
            accept(status, body.to_bytes())
        };
        timeout(limits::CLIENT_ANSWER_TIMEOUT, asking).await.map_err(|_| ClientError::broken("no answer in time"))?
    }

    /// Follows server-sent events, after `last_event_id` if the caller saw some before.
    pub async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<EventStream, ClientError> {
        let mut request = self.request(Method::GET, path, None)?;
        if let Some(id) = last_event_id {
            let id = id.parse().map_err(ClientError::broken)?;
            request.headers_mut().insert("last-event-id", id);
        }
        let exchange = timeout(limits::CLIENT_ANSWER_TIMEOUT, self.exchange(request));
        let response = exchange.await.map_err(|_| ClientError::broken("no answer in time"))??;
        let status = response.status();
        if !status.is_success() {
            let limited = Limited::new(response.into_body(), limits::CLIENT_EVENT_BYTES);
            let refused = accept(status, limited.collect().await.map_err(ClientError::broken)?.to_bytes());
            return Err(refused.err().unwrap_or_else(|| ClientError::broken(status)));
        }
        Ok(EventStream { body: response.into_body(), parser: EventParser::default() })
    }

    fn request(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Request<Full<Bytes>>, ClientError> {
        let slash = if path.is_empty() || path.starts_with('?') { "" } else { "/" };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{slash}{path}"))
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body.unwrap_or_default().into())).map_err(ClientError::broken)
    }

    /// Sends on a connection of its own, which ends with the body of the response.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        let not_running = |error: io::Error| ClientError::NotRunning(format!("{}: {error}", self.authority));
        let connecting = timeout(limits::CLIENT_CONNECT_TIMEOUT, TcpStream::connect(&self.authority));
        let stream = connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(not_running)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::broken)?;
        // Its errors reach the request or the body as well.
        tokio::spawn(async { connection.await.unwrap_or_default() });
        sender.send_request(request).await.map_err(ClientError::broken)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// Splits answers from refusals.
fn accept(status: StatusCode, body: Bytes) -> Result<Answer, ClientError> {
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(Answer { status, body });
    }
    match serde_json::from_slice::<Envelope<ApiError>>(&body) {
        Ok(refusal) => Err(ClientError::Refused(refusal.error)),
        Err(_) => Err(ClientError::broken(format!("status {status} without an error that can be read"))),
    }
}

/// Text as one segment of a path: everything but letters, digits and `-._~` is percent-encoded.
pub fn segment(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _written = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// What to send as `Last-Event-ID` to continue behind it.
    pub id: Option<String>,
    /// Its name.
    pub event: String,
    /// One line of JSON.
    pub data: String,
}

impl ServerEvent {
    /// The data as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_str(&self.data).map_err(ClientError::broken)
    }
}

/// The events of a stream until the daemon ends it. Dropping it closes the connection.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    parser: EventParser,
}

impl Stream for EventStream {
    type Item = Result<ServerEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.parser.next() {
                Ok(Some(event)) => return Poll::Ready(Some(Ok(event))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.parser.push(&bytes);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(ClientError::broken(error)))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Cuts bytes into events, wherever the pieces break.
#[derive(Debug, Default)]
struct EventParser {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are used up.
    read: usize,
    event: ServerEvent,
}

impl EventParser {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, `None` if more bytes are needed. Comments and events without data are skipped.
    fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        while let Some(length) = self.buffer[self.read..].iter().position(|byte| *byte == b'\n') {
            let line = &self.buffer[self.read..self.read + length];
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
            self.read += length + 1;
            if !line.is_empty() {
                self.take_field(&line);
                continue;
            }
            let event = std::mem::take(&mut self.event);
            if !event.data.is_empty() {
                return Ok(Some(event));
            }
        }
        if self.buffer.len() - self.read + self.event.data.len() > limits::CLIENT_EVENT_BYTES {
            return Err(ClientError::broken("an event is too long"));
        }
        Ok(None)
    }

    fn take_field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event.event),
            "data" => self.event.data.push_str(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<ServerEvent> {
        let (mut parser, mut events) = (EventParser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece);
            while let Some(event) = parser.next().unwrap() {
                events.push(event);
            }
        }
        events
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_where_the_bytes_break(cut in 0_usize..70, second in 0_usize..70) {
            let text = b":\n\nid: 1-2\nevent: hit\ndata: {\"a\":1}\n\n: note\n\r\nevent:x\r\ndata:\xc3\xa9\r\n\r\nid: 9\n".as_slice();
            let (first, second) = (cut.min(second).min(text.len()), cut.max(second).min(text.len()));
            let expected = [
                ServerEvent { id: Some("1-2".into()), event: "hit".into(), data: "{\"a\":1}".into() },
                ServerEvent { id: None, event: "x".into(), data: "é".into() },
            ];
            prop_assert_eq!(events(&[&text[..first], &text[first..second], &text[second..]]), expected);
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut parser = EventParser::default();
        parser.push(&vec![b'x'; limits::CLIENT_EVENT_BYTES + 1]);
        assert!(parser.next().is_err());
    }

    #[test]
    fn segments_are_encoded() {
        assert_eq!(segment("10.0.0.0/8"), "10.0.0.0%2F8");
        assert_eq!(segment("a b?é%"), "a%20b%3F%C3%A9%25");
    }

    #[test]
    fn a_folder_without_a_daemon_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = Client::of_data_dir(dir.path()).unwrap_err();
        assert_eq!(error.code(), Code::DaemonNotRunning);
        for url in ["", "https://x", "127.0.0.1:1", "http://"] {
            assert!(Client::new(url, "t").is_err(), "{url}");
        }
    }
}
