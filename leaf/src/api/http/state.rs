//! `status`, `peers`, `uploads`, `history`: how the node is doing.

use axum::{Json, extract::State as Shared};
use overlay::{
    admin::{
        error::{ApiError, Query},
        list::{ListQuery, Page},
    },
    drive::wall_clock_s,
    limits,
    report::{Peer, Status, timestamp},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::State;
use crate::{
    api::types::{History, Series},
    transfer::serve::Upload,
};

pub(super) async fn status(Shared(state): Shared<State>) -> Json<Status> {
    Json(crate::status::status(&state).await)
}

pub(super) async fn peers(
    Shared(state): Shared<State>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Peer>>, ApiError> {
    let peers = crate::status::peers(&state.node).await;
    query.page(peers.into_iter().map(|peer| (peer.peer.clone(), peer)), |peer| peer).map(Json)
}

pub(super) async fn uploads(
    Shared(state): Shared<State>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Upload>>, ApiError> {
    let uploads = state.node.uploads().list().into_iter().map(|upload| (upload.id.clone(), upload));
    query.page(uploads, |upload| upload).map(Json)
}

/// What `history` can look back.
#[derive(JsonSchema)]
#[schemars(inline, transparent)]
pub(super) struct Hours(
    #[expect(dead_code, reason = "only its schema counts")]
    #[schemars(range(min = 1, max = 24))]
    u64,
);

/// What `history` takes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HistoryQuery {
    hours: Option<u64>,
}

pub(super) async fn history(
    Shared(state): Shared<State>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<History>, ApiError> {
    let hours = query.hours.unwrap_or(1);
    if !(1..=limits::HISTORY_HOURS).contains(&hours) {
        return Err(ApiError::bad_request(format!("hours must be 1 to {}, not {hours}", limits::HISTORY_HOURS)));
    }
    let chart = state.node.chart(hours);
    let from_s = wall_clock_s().saturating_sub(chart.began_s);
    Ok(Json(History {
        step_s: chart.step_s,
        from_at: i64::try_from(from_s).ok().and_then(timestamp),
        series: Series {
            upload: chart.steps.iter().map(|rates| rates.upload).collect(),
            download: chart.steps.iter().map(|rates| rates.download).collect(),
        },
    }))
}
