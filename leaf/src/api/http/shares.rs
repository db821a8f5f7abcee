//! `shares` and `browse`.

use std::io::ErrorKind;

use axum::{Json, extract::State as Shared, http::StatusCode};
use overlay::{
    admin::{
        error::{ApiError, Body, Code, Path, Query},
        list::{ListQuery, Page},
    },
    limits,
    wire::{
        bounded::Text,
        transfer::{Browse, Cursor},
    },
};
use serde::Deserialize;

use super::{State, resolve_peer};
use crate::{
    api::types::{Entry, Folder, Listed, NewShare},
    store::{DatabaseError, Share, SharesError, Skipped, StoreError},
};

pub(super) async fn list(
    Shared(state): Shared<State>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Share>>, ApiError> {
    let shares = state.node.shares().list().into_iter().map(|share| (share.name.clone(), share));
    query.page(shares, |share| share).map(Json)
}

pub(super) async fn add(
    Shared(state): Shared<State>,
    Body(request): Body<NewShare>,
) -> Result<(StatusCode, Json<Share>), ApiError> {
    let path = std::path::PathBuf::from(&request.path);
    if !path.is_absolute() {
        return Err(ApiError::bad_request(format!("{} is not an absolute path", request.path)));
    }
    let share = state.node.add_share(path).await.map_err(refused)?;
    Ok((StatusCode::CREATED, Json(share)))
}

pub(super) async fn remove(Shared(state): Shared<State>, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    state.node.remove_share(&name).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn rescan(Shared(state): Shared<State>) -> Result<StatusCode, ApiError> {
    state.node.shares().rescan().await.map_err(refused)?;
    Ok(StatusCode::ACCEPTED)
}

pub(super) async fn skipped(
    Shared(state): Shared<State>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Skipped>>, ApiError> {
    let skipped = state.node.shares().skipped().into_iter().map(|skipped| (skipped.path.clone(), skipped));
    query.page(skipped, |skipped| skipped).map(Json)
}

fn refused(error: SharesError) -> ApiError {
    let code = match &error {
        SharesError::Unknown { .. } => Code::NotFound,
        SharesError::Conflict { .. } => Code::Conflict,
        SharesError::NoFolder { .. } => Code::BadRequest,
        SharesError::Stopped => Code::Draining,
        SharesError::Store(StoreError::Database(DatabaseError::Full)) => Code::DiskFull,
        SharesError::Store(StoreError::Disk(error)) if error.kind() == ErrorKind::StorageFull => Code::DiskFull,
        SharesError::Record(error) => error.code(),
        _ => Code::Internal,
    };
    let refused = ApiError::new(code, error.to_string());
    match (&error, error.hint()) {
        (SharesError::Conflict { origin, .. }, _) => {
            refused.hint(format!("it comes from the {}; remove it there", origin.name()))
        }
        (_, Some(hint)) => refused.hint(hint),
        (_, None) => refused,
    }
}

/// What `browse` takes beside the peer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct BrowseQuery {
    path: Option<String>,
    recursive: Option<bool>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn browse(
    Shared(state): Shared<State>,
    Path(peer): Path<String>,
    Query(query): Query<BrowseQuery>,
) -> Result<Json<Page<Listed>>, ApiError> {
    let peer = resolve_peer(&state, &peer).await?;
    let limit = query.limit.unwrap_or(limits::LIST_LIMIT);
    if !(1..=limits::LIST_LIMIT_MAX).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit must be 1 to {}", limits::LIST_LIMIT_MAX)));
    }
    let path = query.path.unwrap_or_default();
    let path = path.trim_matches('/');
    if path.len() > limits::PATH_BYTES {
        return Err(ApiError::bad_request("the path is too long"));
    }
    let request = Browse {
        path: Text::new(path),
        recursive: query.recursive.unwrap_or(false),
        after: query.cursor.as_deref().map(read_cursor).transpose()?.unwrap_or_default(),
        limit: limit as u16,
    };
    let page = state.node.browse(peer, request).await?;
    let page = page.ok_or_else(|| ApiError::not_found(format!("the peer shares no {path}")))?;
    let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let folders = page.folders.iter().map(|folder| {
        let path = folder.path.to_string();
        Listed::Folder(Folder { name: name(&path), path, files: folder.files, bytes: folder.bytes })
    });
    let entries = page.entries.iter().map(|entry| Listed::Entry(Entry::from(entry)));
    let items = folders.chain(entries).collect();
    Ok(Json(Page { items, next: page.next.as_ref().map(write_cursor) }))
}

/// A cursor is `d` or `f` for folder or file, then the path in hexadecimal.
fn write_cursor(cursor: &Cursor) -> String {
    let (kind, path) = match cursor {
        Cursor::Start => ('s', ""),
        Cursor::Folder(path) => ('d', &**path),
        Cursor::File(path) => ('f', &**path),
    };
    format!("{kind}{}", data_encoding::HEXLOWER.encode(path.as_bytes()))
}

fn read_cursor(text: &str) -> Result<Cursor, ApiError> {
    let malformed = || ApiError::bad_request("malformed cursor").hint("give the `next` of the page before");
    let rest = text.get(1..).ok_or_else(malformed)?;
    let bytes = data_encoding::HEXLOWER.decode(rest.as_bytes()).map_err(|_| malformed())?;
    let path = String::from_utf8(bytes).map_err(|_| malformed())?;
    match text.as_bytes().first() {
        Some(b's') => Ok(Cursor::Start),
        Some(b'd') => Ok(Cursor::Folder(Text::new(&path))),
        Some(b'f') => Ok(Cursor::File(Text::new(&path))),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_the_way_to_the_client_and_back() {
        for cursor in [Cursor::Start, Cursor::Folder(Text::new("Music/ä b")), Cursor::File(Text::new("x/y"))] {
            assert_eq!(read_cursor(&write_cursor(&cursor)), Ok(cursor));
        }
        for text in ["", "x", "d0", "f\u{e4}", "dff"] {
            assert!(read_cursor(text).is_err(), "{text:?}");
        }
    }
}
