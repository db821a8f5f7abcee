//! The endpoints that both programs have: `bans`, `config`, `logs`, `events`.
//!
//! ```text
//!   let api = common::add(Api::new(name, version));   // its state gives an Arc<Common> by FromRef
//!   tasks.spawn("log events", common.clone().publish_log());
//! ```

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use axum::{
    Json,
    extract::{FromRef, State},
    response::Response,
};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;

use crate::{
    admin::{
        bans,
        error::{ApiError, Body, Code, Query},
        events::{self, EventRing, LastEventId},
        index::{Api, Endpoint},
        list::{ListQuery, Page},
    },
    bans::keeper::Bans,
    config::{Config, OptionRow},
    telemetry::{LogLine, Telemetry},
};

/// What these endpoints need.
#[derive(Debug)]
pub struct Common {
    /// The configuration.
    pub config: Arc<Config>,
    /// The log.
    pub telemetry: Telemetry,
    /// The bans.
    pub bans: Bans,
    /// Everything that happens, for `GET events`.
    pub events: Arc<EventRing>,
}

impl Common {
    /// Puts every line of the log among the events. Runs until it is dropped.
    pub async fn publish_log(self: Arc<Self>) {
        let mut lines = self.telemetry.follow();
        loop {
            match lines.recv().await {
                Ok(line) => self.events.publish("log", &*line),
                // What a burst pushed out is still in `GET logs`.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// Adds the endpoints.
#[must_use]
pub fn add<S>(api: Api<S>) -> Api<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Common>: FromRef<S>,
{
    bans::add(api)
        .endpoint(Endpoint::get("config", "all settings with value, default and origin").list::<OptionRow>(), options)
        .endpoint(
            Endpoint::patch("config", "changes settings for good; null gives one back to the origin below")
                .items::<OptionRow>()
                .request::<BTreeMap<String, Value>>(),
            change,
        )
        .endpoint(Endpoint::get("logs", "the last lines of the log, oldest first").list::<LogLine>(), logs)
        .endpoint(Endpoint::get("events", "everything that happens, as it happens").events(), follow)
}

async fn options(
    State(common): State<Arc<Common>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<OptionRow>>, ApiError> {
    Ok(Json(query.page_by_index(common.config.rows(), |row| row)?))
}

async fn change(
    State(common): State<Arc<Common>>,
    Body(changes): Body<BTreeMap<String, Value>>,
) -> Result<Json<Page<OptionRow>>, ApiError> {
    let changing = tokio::task::spawn_blocking(move || {
        refuse_taken(&common.config, &changes)?;
        Ok::<_, ApiError>(common.config.change(&changes)?)
    });
    let changes = changing.await.map_err(ApiError::internal)??;
    for row in &changes.rows {
        tracing::info!(key = row.key, "setting changed");
    }
    let waiting: Vec<_> = changes.waiting_for_restart().collect();
    if !waiting.is_empty() {
        tracing::warn!(keys = waiting.join(","), "these changes take effect after a restart");
    }
    Ok(Json(Page { items: changes.rows, next: None }))
}

/// An address that cannot be bound now is refused: the node would stay where it is, and not start the next time.
fn refuse_taken(config: &Config, changes: &BTreeMap<String, Value>) -> Result<(), ApiError> {
    let listen = changes.get("listen").and_then(Value::as_str).and_then(|text| text.parse::<SocketAddr>().ok());
    let Some(listen) = listen.filter(|listen| *listen != config.settings().listen) else { return Ok(()) };
    UdpSocket::bind(listen).map(drop).map_err(|error| {
        ApiError::new(Code::Conflict, format!("this node cannot listen on {listen}: {error}"))
            .hint("name an address of this machine and a free port; nothing was changed")
    })
}

async fn logs(
    State(common): State<Arc<Common>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<LogLine>>, ApiError> {
    Ok(Json(query.page_by_index(common.telemetry.lines(), |line| (*line).clone())?))
}

async fn follow(State(common): State<Arc<Common>>, LastEventId(last): LastEventId) -> Response {
    events::respond(common.events.follow(last.as_deref()))
}
