//! The listener for monitoring: `GET /metrics`, `/healthz`, `/readyz`.
//!
//! It has no token and no `Host` check, because Prometheus and Kubernetes come with neither; it tells
//! nothing about peers, contents or queries. Alive and ready are two things: a daemon without a network is
//! alive (a restart would not help) and not ready.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};

use crate::{
    admin::error::{unknown_method, unknown_route},
    metrics::{DRAINING, Metrics, READY},
};

const LISTENING: u8 = 1;
const IDENTITY: u8 = 2;
const NETWORK: u8 = 4;
const DRAINING_BIT: u8 = 8;

/// What a node has got so far; shared by the driver that sets it and the probes that tell it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

/// The body of `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyReport {
    /// All checks hold.
    pub ready: bool,
    /// What is checked.
    pub checks: Checks,
}

/// The checks of `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// The sockets are bound.
    pub listening: bool,
    /// The key is loaded.
    pub identity: bool,
    /// A leaf has a home; an ultrapeer is admitted or a founder. False while draining.
    pub network: bool,
}

impl Readiness {
    /// A node that has nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sockets are bound, or not any more.
    pub fn set_listening(&self, listening: bool) {
        self.set(LISTENING, listening);
    }

    /// The key is loaded.
    pub fn set_identity(&self, identity: bool) {
        self.set(IDENTITY, identity);
    }

    /// The node came into the network or fell out of it.
    pub fn set_network(&self, network: bool) {
        self.set(NETWORK, network);
    }

    /// The node leaves in order; it is not ready from now on.
    pub fn set_draining(&self) {
        self.set(DRAINING_BIT, true);
        DRAINING.set_flag((), true);
    }

    /// True while the node leaves in order.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) & DRAINING_BIT != 0
    }

    /// What `/readyz` says.
    pub fn report(&self) -> ReadyReport {
        report(self.0.load(Ordering::Acquire))
    }

    fn set(&self, bit: u8, value: bool) {
        let now = if value {
            self.0.fetch_or(bit, Ordering::AcqRel) | bit
        } else {
            self.0.fetch_and(!bit, Ordering::AcqRel) & !bit
        };
        READY.set_flag((), report(now).ready);
    }
}

fn report(bits: u8) -> ReadyReport {
    let has = |bit: u8| bits & bit != 0;
    let checks =
        Checks { listening: has(LISTENING), identity: has(IDENTITY), network: has(NETWORK) && !has(DRAINING_BIT) };
    ReadyReport { ready: checks.listening && checks.identity && checks.network, checks }
}

/// The routes of the listener; serve them with [`crate::admin::server::serve`], and run
/// [`Metrics::upkeep`] beside.
pub fn router(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(render))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .with_state((metrics, readiness))
}

async fn render(State((metrics, _)): State<(Metrics, Readiness)>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], metrics.render()).into_response()
}

async fn ready(State((_, readiness)): State<(Metrics, Readiness)>) -> Response {
    let report = readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::watching::raises;

    #[test]
    fn ready_needs_everything_and_ends_with_draining() {
        let readiness = Readiness::new();
        assert!(!readiness.report().ready);
        readiness.set_listening(true);
        readiness.set_identity(true);
        assert!(!readiness.report().ready);
        readiness.set_network(true);
        let text = serde_json::to_string(&readiness.report()).unwrap();
        assert_eq!(text, r#"{"ready":true,"checks":{"listening":true,"identity":true,"network":true}}"#);
        readiness.set_network(false);
        assert!(!readiness.report().ready);
        readiness.set_network(true);
        raises("quictrack_draining", || readiness.set_draining());
        assert_eq!(readiness.report().checks, Checks { listening: true, identity: true, network: false });
        assert!(!readiness.report().ready && readiness.is_draining());
    }
}
