//! Binding and serving: limits on every connection, and a stop after which none is left.
//!
//! A connection has [`limits::HTTP_HEAD_TIMEOUT`] to send a request's head and at most
//! [`limits::HTTP_CONNECTIONS`] are served at a time. When `stop` is cancelled, the listener closes, idle
//! connections and event streams end at once, running answers have [`limits::HTTP_STOP_TIMEOUT`].

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use axum::{Router, body::Body, extract::State, http::header, middleware, response::Response};
use futures_util::StreamExt;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::error::Code,
    limits,
    metrics::{TASK_PANICS, Task},
};

/// Where to listen, and who chose that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// The user's choice: binds exactly or fails.
    Given(SocketAddr),
    /// The program's default: another port will do.
    Default(SocketAddr),
}

/// A bound socket that already queues connections.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// The address with the port that the system gave.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS` as this machine can use it: an unspecified address is written as loopback.
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            let loopback: std::net::IpAddr = match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            };
            address.set_ip(loopback);
        }
        format!("http://{address}")
    }
}

/// Why no socket could be bound. Nothing is left open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program listens there.
    #[error("the address {address} is in use")]
    InUse {
        /// The address that the user gave.
        address: SocketAddr,
    },
    /// Ports below 1024 need a privilege.
    #[error("not allowed to listen on {address}")]
    Denied {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else, such as an address that this machine does not have.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

impl BindError {
    /// The code for the command line.
    pub fn code(&self) -> Code {
        match self {
            Self::InUse { .. } => Code::AddressInUse,
            Self::Denied { .. } => Code::PermissionDenied,
            Self::Other { .. } => Code::BadConfig,
        }
    }

    /// What the user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "stop the program that listens there, or choose another port (`:0` picks a free one)",
            Self::Denied { .. } => "choose a port from 1024 on",
            Self::Other { .. } => "choose an address of this machine",
        }
    }
}

/// Binds a listener. A default whose port is taken becomes a free port, with a warning in the log; the
/// caller sees it at [`Listener::address`].
pub async fn bind(listen: Listen) -> Result<Listener, BindError> {
    match listen {
        Listen::Given(address) => bind_exactly(address).await,
        Listen::Default(address) => match bind_exactly(address).await {
            Err(BindError::InUse { .. }) => {
                let listener = bind_exactly(SocketAddr::new(address.ip(), 0)).await?;
                tracing::warn!(taken = %address, instead = %listener.address, "default port taken, using a free one");
                Ok(listener)
            }
            other => other,
        },
    }
}

async fn bind_exactly(address: SocketAddr) -> Result<Listener, BindError> {
    let bound = TcpListener::bind(address).await.and_then(|socket| {
        let address = socket.local_addr()?;
        Ok(Listener { socket, address })
    });
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        io::ErrorKind::PermissionDenied => BindError::Denied { address },
        _ => BindError::Other { address, source },
    })
}

/// Serves `router` until `stop` is cancelled; returns when the socket and all connections are closed.
///
/// Dropping the future also closes everything, at once.
pub async fn serve(listener: Listener, router: Router, stop: CancellationToken) {
    let router = router.layer(middleware::map_response_with_state(stop.clone(), end_event_stream));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => count_panic(ended),
            accepted = listener.socket.accept(), if connections.len() < limits::HTTP_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, router.clone(), limits::HTTP_HEAD_TIMEOUT, stop.clone()));
                }
                Err(error) => pause_after(&error, &stop).await,
            },
        }
    }
    drop(listener);
    let ending = async {
        while let Some(ended) = connections.join_next().await {
            count_panic(ended);
        }
    };
    if tokio::time::timeout(limits::HTTP_STOP_TIMEOUT, ending).await.is_err() {
        tracing::debug!(connections = connections.len(), "cutting answers that did not end in time");
    }
    connections.shutdown().await;
}

async fn serve_connection(stream: TcpStream, router: Router, head_timeout: Duration, stop: CancellationToken) {
    // Events are small and wanted at once.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_header_size(limits::HTTP_HEAD_BYTES)
        .max_buf_size(2 * limits::HTTP_HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection of the local HTTP ended");
    }
}

/// Event streams never end by themselves, so they end with the server.
async fn end_event_stream(State(stop): State<CancellationToken>, response: Response) -> Response {
    let is_event_stream = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
    if !is_event_stream {
        return response;
    }
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, Body::from_stream(body.into_data_stream().take_until(stop.cancelled_owned())))
}

fn count_panic(ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        TASK_PANICS.increment(Task::Api);
    }
}

/// Out of file descriptors: accepting again at once would spin.
async fn pause_after(error: &io::Error, stop: &CancellationToken) {
    const PAUSE: Duration = Duration::from_millis(100);
    tracing::warn!(%error, "cannot accept a connection of the local HTTP");
    let _stopped = tokio::time::timeout(PAUSE, stop.cancelled()).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What a client reads until the server closes, after it sent `request` and nothing more.
    async fn answer_to(request: &[u8]) -> String {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
        let (stream, _) = socket.accept().await.unwrap();
        let router = Router::new().fallback(async || "here");
        let serving = serve_connection(stream, router, Duration::from_millis(20), CancellationToken::new());
        let mut answer = String::new();
        let asking = async {
            client.write_all(request).await.unwrap();
            client.read_to_string(&mut answer).await.unwrap();
        };
        tokio::join!(serving, asking);
        answer
    }

    #[tokio::test]
    async fn connections_that_stall_are_closed() {
        assert!(!answer_to(b"").await.contains("200 OK"));
        assert!(!answer_to(b"GET / HTTP/1.1\r\nHost: x\r\n").await.contains("200 OK"));
        let idle = answer_to(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(idle.starts_with("HTTP/1.1 200 OK") && idle.ends_with("here"), "{idle}");
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(limits::HTTP_HEAD_BYTES + 1));
        let answer = answer_to(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test]
    async fn urls_can_be_opened_on_this_machine() {
        for (address, expected) in [("0.0.0.0:0", "http://127.0.0.1:"), ("127.0.0.1:0", "http://127.0.0.1:")] {
            let listener = bind(Listen::Given(address.parse().unwrap())).await.unwrap();
            assert_eq!(listener.url(), format!("{expected}{}", listener.address().port()));
        }
    }
}
