//! `downloads`: start, list, follow, change.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State as Shared,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use futures_util::{StreamExt, stream};
use overlay::{
    admin::{
        error::{ApiError, Body, Code, Path, Query},
        events::{EventLog, Frame, respond},
        index::{Api, Endpoint},
        list::{ListQuery, Page},
    },
    limits,
    wire::{
        bounded::Text,
        transfer::{Browse, Cursor},
    },
};
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;

use super::{State, resolve_content, resolve_peer};
use crate::{
    api::types::{DownloadChange, NewDownload},
    download::{
        DownloadError, Event, Request,
        record::{Download, Priority, State as JobState},
    },
    store::DatabaseError,
    transfer::FoundSource,
};

pub(super) fn routes(api: Api<State>) -> Api<State> {
    api.endpoint(Endpoint::get("downloads", "all downloads").list::<Download>(), list)
        .endpoint(
            Endpoint::post("downloads", "download a content, or what a peer shares")
                .request::<NewDownload>()
                .answers::<Started>()
                .may_exist(),
            start,
        )
        .endpoint(Endpoint::get("downloads/ends", "how downloads end from now on").events(), ends)
        .endpoint(Endpoint::get("downloads/{id}", "a download and its pieces").answers::<Detailed>(), show)
        .endpoint(
            Endpoint::patch("downloads/{id}", "pause, queue, cancel, or give another priority")
                .request::<DownloadChange>()
                .answers::<Download>(),
            change,
        )
        .endpoint(Endpoint::delete("downloads/{id}", "cancel and forget a download, never its finished file"), remove)
        .endpoint(Endpoint::get("downloads/{id}/events", "its progress, and how it ends").events(), events)
}

async fn list(Shared(state): Shared<State>, Query(query): Query<ListQuery>) -> Result<Json<Page<Download>>, ApiError> {
    let downloads = state.node.downloads().list().into_iter();
    query
        .page(downloads.map(|download| ((download.created_at.clone(), download.id.clone()), download)), |job| job)
        .map(Json)
}

/// One job, or all jobs of a folder.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Started {
    One(Box<Download>),
    Many { items: Vec<Download> },
}

async fn start(
    Shared(state): Shared<State>,
    Body(request): Body<NewDownload>,
) -> Result<(StatusCode, Json<Started>), ApiError> {
    let priority = priority(request.priority.as_deref())?.unwrap_or_default();
    if let Some(output) = &request.output
        && !std::path::Path::new(output).is_absolute()
    {
        return Err(ApiError::bad_request(format!("the output `{output}` is no absolute path"))
            .hint("give a folder (with a `/` at the end if it is to be made) or a new file name, from `/` on"));
    }
    match (&request.content, &request.peer, &request.path) {
        (Some(content), None, None) => {
            let content = resolve_content(&state, content).await?;
            let known = state.node.searches().known(&content).or(state.node.wishes().known(&content));
            let job = Request {
                content,
                name: request.name.or(known.name).unwrap_or_default(),
                size: known.size,
                output: request.output,
                below: String::new(),
                priority,
                sources: others(&state, known.sources),
            };
            let (job, is_new) = state.node.downloads().add(job).await?;
            Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(Started::One(Box::new(job)))))
        }
        (None, Some(peer), Some(path)) => {
            let peer = resolve_peer(&state, peer).await?;
            start_from_peer(&state, peer, path, request.output, priority).await
        }
        _ => Err(ApiError::bad_request("a download needs either `content`, or `peer` and `path`")),
    }
}

fn others(state: &State, sources: Vec<FoundSource>) -> Vec<FoundSource> {
    sources.into_iter().filter(|source| source.peer != state.node.peer()).collect()
}

/// A file of a peer's share, or every file below a folder of it, each into the same folders below the output.
async fn start_from_peer(
    state: &State,
    peer: overlay::id::PeerId,
    path: &str,
    output: Option<String>,
    priority: Priority,
) -> Result<(StatusCode, Json<Started>), ApiError> {
    let path = path.trim_matches('/');
    let mut items = Vec::new();
    let mut after = Cursor::Start;
    loop {
        let request = Browse { path: Text::new(path), recursive: true, after, limit: limits::PAGE_ENTRIES as u16 };
        let page = state.node.browse(peer, request).await?;
        let page = page.ok_or_else(|| ApiError::not_found(format!("the peer shares no {path}")))?;
        let before = items.len();
        for entry in page.entries.iter() {
            if items.len() >= limits::JOBS {
                return Err(ApiError::new(Code::TooLarge, "the folder has more files than there can be downloads"));
            }
            items.push((entry.content, entry.size, entry.path.clone()));
        }
        match page.next {
            Some(_) if items.len() == before => {
                return Err(ApiError::new(Code::PeerUnreachable, "the peer's listing has no end"));
            }
            Some(next) => after = next,
            None => break,
        }
    }
    if let [(content, size, file)] = &items[..]
        && file == path
    {
        let request = Request {
            content: *content,
            name: overlay::file::file_name(file).to_owned(),
            size: Some(*size),
            output,
            below: String::new(),
            priority,
            sources: vec![FoundSource { peer, homes: Vec::new() }],
        };
        let (job, is_new) = state.node.downloads().add(request).await?;
        return Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(Started::One(Box::new(job)))));
    }
    if items.is_empty() {
        return Err(ApiError::not_found(format!("the peer shares nothing below {path}")));
    }
    let parent = path.rfind('/').map_or(0, |end| end + 1);
    let output = format!("{}/", state.node.output_folder(output.as_deref()).display());
    let request = |(content, size, file): (_, _, String)| {
        // All of them begin with the path.
        let below = file.get(parent..).unwrap_or(&file);
        let below = below.rsplit_once('/').map_or("", |(folders, _)| folders).to_owned();
        Request {
            content,
            name: overlay::file::file_name(&file).to_owned(),
            size: Some(size),
            output: Some(output.clone()),
            below,
            priority,
            sources: vec![FoundSource { peer, homes: Vec::new() }],
        }
    };
    let jobs = state.node.downloads().add_all(items.into_iter().map(request).collect()).await?;
    Ok((StatusCode::CREATED, Json(Started::Many { items: jobs.into_iter().map(|(job, _)| job).collect() })))
}

/// A job and its pieces.
#[derive(Serialize, JsonSchema)]
struct Detailed {
    #[serde(flatten)]
    job: Download,
    pieces: Pieces,
}

#[derive(Serialize, JsonSchema)]
struct Pieces {
    size: u32,
    done: String,
}

async fn show(Shared(state): Shared<State>, Path(id): Path<String>) -> Result<Json<Detailed>, ApiError> {
    let downloads = state.node.downloads();
    let id = job_id(&state, &id).await;
    let job = downloads.get(&id).ok_or_else(unknown)?;
    let pieces = downloads.pieces(&id);
    let pieces = pieces.map_or(Pieces { size: 0, done: String::new() }, |(size, have)| Pieces {
        size,
        done: BASE64.encode(have.as_bytes()),
    });
    Ok(Json(Detailed { job, pieces }))
}

async fn change(
    Shared(state): Shared<State>,
    Path(id): Path<String>,
    Body(change): Body<DownloadChange>,
) -> Result<Json<Download>, ApiError> {
    let downloads = state.node.downloads();
    let id = job_id(&state, &id).await;
    let mut job = downloads.get(&id).ok_or_else(unknown)?;
    if let Some(priority) = priority(change.priority.as_deref())? {
        job = downloads.set_priority(&id, priority).await?;
    }
    match change.state.as_deref() {
        None => {}
        Some("paused") if job.state.is_ended() => return Err(ended(&job)),
        Some("cancelled" | "queued") if job.state == JobState::Done => return Err(ended(&job)),
        Some("paused") => job = downloads.pause(&id).await?,
        Some("cancelled") => job = downloads.cancel(&id).await?,
        Some("queued") if job.state == JobState::Paused => job = downloads.resume(&id).await?,
        Some("queued") => job = downloads.retry(&id).await?,
        Some(other) => {
            return Err(ApiError::bad_request(format!("{other} is no state to ask for"))
                .hint("ask for `paused`, `queued` or `cancelled`"));
        }
    }
    Ok(Json(job))
}

async fn remove(Shared(state): Shared<State>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let id = job_id(&state, &id).await;
    state.node.downloads().remove(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The ends of all downloads that are still to come, for whoever waits for many.
async fn ends(Shared(state): Shared<State>) -> Response {
    let told = stream::unfold(state.node.downloads().ends(), |mut ends| async move {
        let part = ends.next().await?;
        Some((stream::iter(part.into_iter().filter_map(|end| frame(&end))), ends))
    });
    respond(told.flatten()).into_response()
}

fn frame(end: &Event) -> Option<Frame> {
    match end {
        Event::Done(done) => Frame::of("done", done),
        Event::Failed(failed) => Frame::of("failed", failed),
        _ => None,
    }
}

async fn events(Shared(state): Shared<State>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let downloads = state.node.downloads().clone();
    let id = job_id(&state, &id).await;
    let mut news = downloads.subscribe();
    let job = downloads.get(&id).ok_or_else(unknown)?;
    let log = Arc::new(EventLog::new());
    let follow = log.follow(None);
    if put_end(&log, downloads.outcome(&job.id)) {
        return Ok(respond(follow).into_response());
    }
    log.put("progress", "progress", &job.progress());
    tokio::spawn(async move {
        // Who listens keeps the other half of the log; when it is gone, so is the reason to go on.
        while Arc::strong_count(&log) > 1 {
            match news.recv().await {
                Ok(Event::Progress(progress)) if progress.id == job.id => {
                    log.put("progress", "progress", &progress);
                }
                // What does not run gets on no more, but its state changes.
                Ok(Event::Changed(changed)) if changed.id == job.id => {
                    log.put("progress", "progress", &changed.progress());
                }
                Ok(Event::Done(done)) if done.id == job.id => {
                    put_end(&log, Some(Event::Done(done)));
                    return;
                }
                Ok(Event::Failed(failed)) if failed.id == job.id => {
                    put_end(&log, Some(Event::Failed(failed)));
                    return;
                }
                Ok(Event::Removed(gone)) if gone == job.id => return log.close(),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) if put_end(&log, downloads.outcome(&job.id)) => return,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return log.close(),
            }
        }
    });
    Ok(respond(follow).into_response())
}

/// Writes how a job ended and closes the log. False if it has not.
fn put_end(log: &EventLog, event: Option<Event>) -> bool {
    match event {
        Some(Event::Done(done)) => log.put("end", "done", &done),
        Some(Event::Failed(failed)) => log.put("end", "failed", &failed),
        _ => return false,
    };
    log.close();
    true
}

/// A job is named by its id or by its content, of which a prefix will do.
async fn job_id(state: &State, text: &str) -> String {
    if state.node.downloads().get(text).is_some() {
        return text.to_owned();
    }
    match resolve_content(state, text).await {
        Ok(content) => content.to_string(),
        Err(_) => text.to_owned(),
    }
}

fn priority(text: Option<&str>) -> Result<Option<Priority>, ApiError> {
    let named = BTreeMap::from([("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)]);
    match text {
        None => Ok(None),
        Some(text) => named.get(text).copied().map(Some).ok_or_else(|| {
            ApiError::bad_request(format!("{text} is no priority")).hint("priorities are `low`, `normal` and `high`")
        }),
    }
}

fn ended(job: &Download) -> ApiError {
    let hint = match job.state {
        JobState::Done => "`quictrack get` finds it here, or fetches it again if its file is gone",
        _ => "`quictrack downloads retry` starts it again",
    };
    ApiError::new(Code::Conflict, format!("the download {} is {}", job.id, job.state.name())).hint(hint)
}

fn unknown() -> ApiError {
    ApiError::not_found("there is no such download").hint("`quictrack downloads` lists them")
}

impl From<DownloadError> for ApiError {
    fn from(error: DownloadError) -> Self {
        let code = match &error {
            DownloadError::NotFound => Code::NotFound,
            DownloadError::TooMany => Code::Conflict,
            DownloadError::Database(DatabaseError::Full) => Code::DiskFull,
            _ => Code::Internal,
        };
        let refused = Self::new(code, error.to_string());
        match error.hint() {
            Some(hint) => refused.hint(hint),
            None => refused,
        }
    }
}
