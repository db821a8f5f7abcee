//! `status`, `peers`, `uploads`: how the node is doing.

use axum::{Json, extract::State as Shared};
use overlay::{
    admin::{
        error::{ApiError, Query},
        list::{ListQuery, Page},
    },
    report::{Peer, Status},
};

use super::State;
use crate::transfer::serve::Upload;

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
