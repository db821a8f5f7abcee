//! The HTTP of the daemon: its own endpoints, and those that both programs have.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRef, State},
    http::StatusCode,
};
use overlay::{
    admin::{
        ApiError,
        auth::Guard,
        common::{self, Common},
        error::Query,
        index::{Api, Endpoint},
        list::{ListQuery, Page},
    },
    config::Program,
    life::Life,
    report::{Peer, Status},
};

use super::view::View;

/// What the handlers need.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) view: Arc<View>,
    pub(super) common: Arc<Common>,
    pub(super) life: Life,
}

impl FromRef<App> for Arc<Common> {
    fn from_ref(app: &App) -> Self {
        app.common.clone()
    }
}

/// The routes.
pub(super) fn router(app: App, guard: Guard) -> Router {
    let api = Api::new(Program::Ultrapeer.name(), env!("CARGO_PKG_VERSION"))
        .endpoint(Endpoint::get("status", "how the daemon is doing").answers::<Status>(), status)
        .endpoint(Endpoint::get("peers", "other ultrapeers, then the leaves of this one").list::<Peer>(), peers)
        .endpoint(Endpoint::post("drain", "hands over the leaves and ends the daemon").accepted(), drain);
    common::add(api).into_router(app, guard)
}

async fn status(State(app): State<App>) -> Result<Json<Status>, ApiError> {
    let snapshot = app.view.snapshot().await.map_err(ApiError::internal)?;
    Ok(Json(app.view.status(&snapshot)))
}

async fn peers(State(app): State<App>, Query(query): Query<ListQuery>) -> Result<Json<Page<Peer>>, ApiError> {
    let snapshot = app.view.snapshot().await.map_err(ApiError::internal)?;
    let keyed = app.view.peers(&snapshot).into_iter().map(|peer| ((peer.role == "leaf", peer.peer.clone()), peer));
    Ok(Json(query.page(keyed, |peer| peer)?))
}

async fn drain(State(app): State<App>) -> StatusCode {
    app.life.drain();
    StatusCode::ACCEPTED
}
