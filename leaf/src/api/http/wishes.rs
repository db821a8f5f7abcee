//! `wishes`: make, list, remove, and what they found.

use axum::{Json, extract::State as Shared, http::StatusCode};
use overlay::{
    admin::{
        error::{ApiError, Body, Path, Query},
        index::{Api, Endpoint},
        list::{ListQuery, Page},
    },
    wish_list,
};

use super::State;
use crate::api::types::{Hit, Wish, WishRequest};

pub(super) fn routes(api: Api<State>) -> Api<State> {
    api.endpoint(Endpoint::get("wishes", "standing queries").list::<Wish>(), list)
        .endpoint(
            Endpoint::post("wishes", "be told when somebody shares what matches a query")
                .request::<WishRequest>()
                .answers::<Wish>(),
            add,
        )
        .endpoint(Endpoint::delete("wishes/{id}", "remove a standing query and what it found, never a file"), remove)
        .endpoint(
            Endpoint::get("wishes/{id}/hits", "what a standing query found, the oldest first").list::<Hit>(),
            hits,
        )
}

async fn list(Shared(state): Shared<State>, Query(query): Query<ListQuery>) -> Result<Json<Page<Wish>>, ApiError> {
    let wishes = state.node.wishes().list().into_iter();
    query.page(wishes.map(|wish| ((wish.created_at.clone(), wish.id.clone()), wish)), |wish| wish).map(Json)
}

async fn add(
    Shared(state): Shared<State>,
    Body(request): Body<WishRequest>,
) -> Result<(StatusCode, Json<Wish>), ApiError> {
    let WishRequest { query, download, max_size } = request;
    let wished = wish_list::Wish { query, download: download.unwrap_or(false), max_size };
    Ok((StatusCode::CREATED, Json(state.node.wishes().add(wished).await?)))
}

async fn remove(Shared(state): Shared<State>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    if state.node.wishes().remove(&id).await? { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}

async fn hits(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Hit>>, ApiError> {
    let wishes = state.node.wishes();
    let page = query.page(wishes.found(&id).ok_or_else(unknown)?, |hit| hit)?;
    let mut items = Vec::with_capacity(page.items.len());
    for hit in &page.items {
        // Looks at the disk, so only for those that are shown.
        items.push(wishes.show(hit).await);
    }
    Ok(Json(Page { items, next: page.next }))
}

fn unknown() -> ApiError {
    ApiError::not_found("there is no such wish").hint("`quictrack wish list` shows them")
}
