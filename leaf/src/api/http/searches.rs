//! `searches`: start, show, follow, cancel.

use axum::{
    Json,
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use overlay::admin::{
    error::{ApiError, Body, Path, Query},
    events::{LastEventId, respond},
    index::{Api, Endpoint},
    list::{ListQuery, Page},
};

use super::State;
use crate::api::types::{Created, Search, SearchRequest};

pub(super) fn routes(api: Api<State>) -> Api<State> {
    api.endpoint(Endpoint::get("searches", "searches of the last hour").list::<Search>(), list)
        .endpoint(
            Endpoint::post("searches", "start a search")
                .request::<SearchRequest>()
                .answers::<Created>()
                .open_to_read_only(),
            start,
        )
        .endpoint(Endpoint::get("searches/{id}", "a search as it stands").answers::<Search>(), show)
        .endpoint(Endpoint::delete("searches/{id}", "cancel and forget a search").open_to_read_only(), remove)
        .endpoint(
            Endpoint::get("searches/{id}/events", "its hits and its summary, from the beginning").events(),
            events,
        )
}

async fn list(Shared(state): Shared<State>, Query(query): Query<ListQuery>) -> Result<Json<Page<Search>>, ApiError> {
    query.page(state.node.searches().list(), |search| search).map(Json)
}

async fn start(
    Shared(state): Shared<State>,
    Body(request): Body<SearchRequest>,
) -> Result<(StatusCode, Json<Created>), ApiError> {
    let id = state.node.searches().start(request).await?;
    Ok((StatusCode::CREATED, Json(Created { id })))
}

async fn show(Shared(state): Shared<State>, Path(id): Path<String>) -> Result<Json<Search>, ApiError> {
    state.node.searches().get(&id).map(Json).ok_or_else(unknown)
}

async fn remove(Shared(state): Shared<State>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    if state.node.searches().remove(&id).await { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}

async fn events(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    LastEventId(last): LastEventId,
) -> Result<Response, ApiError> {
    let log = state.node.searches().events(&id).ok_or_else(unknown)?;
    Ok(respond(log.follow(last.as_deref())).into_response())
}

fn unknown() -> ApiError {
    ApiError::not_found("there is no such search").hint("searches are kept for an hour")
}
