//! `files`: the bytes of a content, for players and scripts, and links to them that need no token.
//!
//! What lies here is read. Of what is being downloaded, each byte is given out once its piece is verified, and a
//! missing one is waited for; the download then fetches in order from there on. A link names a random ticket that stands for one content and ends after
//! [`limits::FILE_LINK_LIFETIME`]; links do not outlive the daemon.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json,
    body::Body,
    extract::State as Shared,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use overlay::{
    admin::{
        auth::UNTRUSTED_CONTENT_SECURITY_POLICY,
        client::segment,
        error::{ApiError, Code, Path},
        index::{Api, Endpoint},
    },
    drive::{random_token, wall_clock_s},
    id::ContentId,
    limits,
    time::Time,
};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    task::spawn_blocking,
    time::timeout,
};

use super::{State, resolve_content};
use crate::{api::types::timestamp, download::Event, file_io::read_exact_at, transfer::holding::Holding};

pub(super) fn routes(api: Api<State>) -> Api<State> {
    api.endpoint(
        Endpoint::get("files/{content}", "the bytes of a content, or of a range of it, as they are verified").bytes(),
        show,
    )
    .endpoint(
        Endpoint::post("files/{content}/link", "an address of it that needs no token, for a day").answers::<Link>(),
        link,
    )
    .page("/files/{ticket}/{name}", follow)
}

async fn show(
    Shared(state): Shared<State>,
    Path(content): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let content = resolve_content(&state, &content).await?;
    answer(&state, content, &headers).await
}

/// The answer to `POST files/{content}/link`.
#[derive(Serialize, JsonSchema)]
struct Link {
    url: String,
    expires_at: Option<String>,
}

async fn link(Shared(state): Shared<State>, Path(content): Path<String>) -> Result<(StatusCode, Json<Link>), ApiError> {
    let content = resolve_content(&state, &content).await?;
    let name = match open(&state, content).await? {
        Some(source) => source.name,
        None => {
            // A player will come for it.
            state.node.downloads().read_from(&content, 0);
            state
                .node
                .downloads()
                .get(&content.to_string())
                .filter(|job| !job.state.is_ended())
                .ok_or_else(unknown)?
                .name
        }
    };
    let ticket = state.tickets.issue(content, state.node.clock().now()).map_err(ApiError::internal)?;
    let lifetime = limits::FILE_LINK_LIFETIME.as_secs();
    let expires_at = i64::try_from(wall_clock_s() + lifetime).ok().and_then(timestamp);
    Ok((StatusCode::CREATED, Json(Link { url: format!("/files/{ticket}/{}", segment(&name)), expires_at })))
}

async fn follow(
    Shared(state): Shared<State>,
    Path((ticket, _)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let content = state.tickets.content(&ticket, state.node.clock().now());
    let content = content.ok_or_else(|| {
        ApiError::not_found("there is no such link, or its time is over").hint("POST files/{content}/link makes one")
    })?;
    answer(&state, content, &headers).await
}

/// The links that are out. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tickets {
    issued: Arc<Mutex<BTreeMap<String, (ContentId, Time)>>>,
}

impl Tickets {
    /// A new ticket; in place of the oldest if there are [`limits::FILE_LINKS`].
    fn issue(&self, content: ContentId, now: Time) -> io::Result<String> {
        let ticket = format!("{:016x}{:016x}", random_token()?, random_token()?);
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.retain(|_, (_, ends)| *ends > now);
        while issued.len() >= limits::FILE_LINKS {
            let Some(oldest) = issued.iter().min_by_key(|(_, (_, ends))| *ends).map(|(ticket, _)| ticket.clone())
            else {
                break;
            };
            issued.remove(&oldest);
        }
        issued.insert(ticket.clone(), (content, now + limits::FILE_LINK_LIFETIME));
        Ok(ticket)
    }

    /// What a ticket stands for, while it lives.
    fn content(&self, ticket: &str, now: Time) -> Option<ContentId> {
        let issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        issued.get(ticket).filter(|(_, ends)| *ends > now).map(|(content, _)| *content)
    }
}

/// Where bytes come from, as far as they are verified.
struct Source {
    name: String,
    size: u64,
    bytes: Reading,
}

#[derive(Clone)]
enum Reading {
    /// A file that is as it was hashed.
    Whole(Arc<File>),
    /// A download under way.
    Part(Arc<Holding>),
}

impl Reading {
    /// Where the verified bytes from `offset` on end; `offset` itself if it is not verified.
    fn readable_to(&self, offset: u64, end: u64) -> u64 {
        let end = end.min(offset + limits::READ_BYTES as u64);
        match self {
            Self::Whole(_) => end,
            Self::Part(holding) => {
                let piece = offset / u64::from(holding.layout().piece_bytes());
                let range = holding.layout().piece_range(piece).ok().filter(|_| holding.has(piece));
                range.map_or(offset, |range| range.end.min(end))
            }
        }
    }

    async fn read(self, range: Range<u64>) -> io::Result<Bytes> {
        let read = move || {
            let length = (range.end - range.start) as usize;
            match self {
                Self::Whole(file) => {
                    let mut buffer = vec![0; length];
                    read_exact_at(&file, &mut buffer, range.start).map(|()| buffer)
                }
                Self::Part(holding) => holding.read(range.start, length),
            }
        };
        spawn_blocking(read).await.map_err(io::Error::other)?.map(Bytes::from)
    }
}

/// What can be read of a content now; `None` if nothing is here of it.
async fn open(state: &State, content: ContentId) -> Result<Option<Source>, ApiError> {
    if let Some(served) = state.node.shares().open(content).await.map_err(ApiError::internal)? {
        let name = served.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(Some(Source { name, size: served.size, bytes: Reading::Whole(Arc::new(served.file)) }));
    }
    let holding = state.node.downloads().holding(&content);
    Ok(holding.map(|holding| Source {
        name: holding.name().to_owned(),
        size: holding.layout().size(),
        bytes: Reading::Part(holding),
    }))
}

/// As [`open`], and waits for a download that does not know its size yet, which is told that `first` is read first.
async fn open_soon(state: &State, content: ContentId, first: u64) -> Result<Source, ApiError> {
    let mut events = state.node.downloads().subscribe();
    let opening = async {
        loop {
            if let Some(source) = open(state, content).await? {
                return Ok(source);
            }
            state.node.downloads().read_from(&content, first);
            if !wait(state, content, &mut events).await {
                return Err(unknown());
            }
        }
    };
    timeout(limits::FILE_PATIENCE, opening).await.unwrap_or_else(|_| {
        Err(ApiError::new(Code::Timeout, "no source of the content was found in time")
            .hint("the download goes on; `quictrack downloads` shows it"))
    })
}

/// Waits until a download of the content may have got on. False if there is none, or it will not get on.
async fn wait(state: &State, content: ContentId, events: &mut Receiver<Event>) -> bool {
    let job = state.node.downloads().get(&content.to_string());
    if job.is_none_or(|job| job.state.is_ended()) {
        return false;
    }
    loop {
        match events.recv().await {
            Ok(Event::Progress(progress)) if progress.content == content => return true,
            Ok(Event::Changed(job)) if job.content == content => return true,
            Ok(Event::Done(done)) if done.content == content => return true,
            Ok(Event::Failed(failed)) if failed.content == content => return true,
            Ok(Event::Removed(_)) | Err(RecvError::Lagged(_)) => return true,
            Ok(_) => {}
            Err(RecvError::Closed) => return false,
        }
    }
}

async fn answer(state: &State, content: ContentId, headers: &HeaderMap) -> Result<Response, ApiError> {
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    // Under any size; a range from the end is known with the size.
    let first = asked_range(range, u64::MAX).ok().flatten().map_or(0, |range| range.start);
    let source = open_soon(state, content, first).await?;
    let etag = format!("\"{content}\"");
    let same = headers.get(header::IF_RANGE).is_none_or(|wanted| wanted.as_bytes() == etag.as_bytes());
    let range = headers.get(header::RANGE).filter(|_| same).and_then(|range| range.to_str().ok());
    let (status, range) = match asked_range(range, source.size) {
        Ok(None) => (StatusCode::OK, 0..source.size),
        Ok(Some(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Err(Unsatisfiable) => {
            let error = ApiError::new(Code::BadRange, format!("the content has {} bytes", source.size));
            let mut response = error.hint("leave the header Range out for all of it").into_response();
            response.headers_mut().insert(header::CONTENT_RANGE, text(format!("bytes */{}", source.size)));
            return Ok(response);
        }
    };
    let mut response = Response::new(body(state.clone(), content, source.bytes, range.clone()));
    *response.status_mut() = status;
    let answer = response.headers_mut();
    if status == StatusCode::PARTIAL_CONTENT {
        let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, source.size);
        answer.insert(header::CONTENT_RANGE, text(shown));
    }
    answer.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(&source.name)));
    answer.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer.insert(header::ETAG, text(etag));
    // Strangers made these bytes.
    let policy = HeaderValue::from_static(UNTRUSTED_CONTENT_SECURITY_POLICY);
    answer.insert(header::CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

/// The bytes of a range, each as soon as it is verified. The body breaks off if the download is given up.
fn body(state: State, content: ContentId, reading: Reading, range: Range<u64>) -> Body {
    let events = state.node.downloads().subscribe();
    let chunks = stream::try_unfold((state, reading, events, range), move |(state, mut reading, mut events, range)| {
        async move {
            if range.start >= range.end {
                return Ok(None);
            }
            let end = loop {
                let end = reading.readable_to(range.start, range.end);
                if end > range.start {
                    break end;
                }
                state.node.downloads().read_from(&content, range.start);
                // The download may have begun a new run, or be done.
                match open(&state, content).await {
                    Ok(Some(now)) if now.bytes.readable_to(range.start, range.end) > range.start => reading = now.bytes,
                    _ if !wait(&state, content, &mut events).await => {
                        return Err(io::Error::other("the download was given up"));
                    }
                    _ => {}
                }
            };
            let chunk = reading.clone().read(range.start..end).await?;
            Ok(Some((chunk, (state, reading, events, end..range.end))))
        }
    });
    Body::from_stream(chunks)
}

/// No byte of the content lies in the range.
#[derive(Debug, PartialEq, Eq)]
struct Unsatisfiable;

/// The bytes that a `Range` header asks for. `None` for all: without a header, with one that is not understood, and
/// with several ranges, which RFC 9110 lets a server ignore.
fn asked_range(header: Option<&str>, size: u64) -> Result<Option<Range<u64>>, Unsatisfiable> {
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let Some((first, last)) = header.and_then(|header| header.trim().strip_prefix("bytes=")?.split_once('-')) else {
        return Ok(None);
    };
    let range = match (number(first), number(last), first, last) {
        (Some(first), Some(last), _, _) if first > last => return Ok(None),
        (Some(first), Some(last), _, _) => first..last.saturating_add(1).min(size),
        (Some(first), _, _, "") => first..size,
        (_, Some(last), "", _) => size.saturating_sub(last)..size,
        _ => return Ok(None),
    };
    if range.start >= range.end { Err(Unsatisfiable) } else { Ok(Some(range)) }
}

/// What a browser or player takes the bytes for, by the extension; what it could run or mistake is plain bytes.
fn media_type(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "mp3" => "audio/mpeg",
        "m4a" | "m4b" => "audio/mp4",
        "aac" => "audio/aac",
        "flac" => "audio/flac",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "wav" => "audio/wav",
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        "mkv" => "video/x-matroska",
        "mov" => "video/quicktime",
        "ogv" => "video/ogg",
        "avi" => "video/x-msvideo",
        "mpg" | "mpeg" => "video/mpeg",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "pdf" => "application/pdf",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).expect("hex digits and numbers are a header")
}

fn unknown() -> ApiError {
    ApiError::not_found("this content is not here, and no download fetches it")
        .hint("POST downloads starts one, and `quictrack get` does")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_http() {
        for (header, expected) in [
            (None, Ok(None)),
            (Some("bytes=0-"), Ok(Some(0..10))),
            (Some("bytes=3-5"), Ok(Some(3..6))),
            (Some("bytes=9-9"), Ok(Some(9..10))),
            (Some("bytes=9-99"), Ok(Some(9..10))),
            (Some("bytes=-3"), Ok(Some(7..10))),
            (Some("bytes=-30"), Ok(Some(0..10))),
            (Some("bytes=10-"), Err(Unsatisfiable)),
            (Some("bytes=10-12"), Err(Unsatisfiable)),
            (Some("bytes=-0"), Err(Unsatisfiable)),
            (Some("bytes=5-3"), Ok(None)),
            (Some("bytes=0-1,3-4"), Ok(None)),
            (Some("bytes=+1-2"), Ok(None)),
            (Some("bytes=-"), Ok(None)),
            (Some("lines=1-2"), Ok(None)),
            (Some("bytes=99999999999999999999-"), Ok(None)),
            (Some("bytes=0-18446744073709551615"), Ok(Some(0..10))),
        ] {
            assert_eq!(asked_range(header, 10), expected, "{header:?}");
        }
    }

    #[test]
    fn links_end_after_a_day_and_the_oldest_makes_room() {
        let tickets = Tickets::default();
        let content = |number: usize| ContentId([number as u8; 32]);
        let at = |second: u64| Time(second * 1_000_000);
        let first = tickets.issue(content(1), at(0)).unwrap();
        let second = tickets.issue(content(2), at(10)).unwrap();
        assert_eq!(tickets.content(&first, at(86_399)), Some(content(1)));
        assert_eq!((tickets.content(&first, at(86_400)), tickets.content("", at(0))), (None, None));
        for number in 1..limits::FILE_LINKS {
            tickets.issue(content(number), at(20)).unwrap();
        }
        assert_eq!((tickets.content(&first, at(20)), tickets.content(&second, at(20))), (None, Some(content(2))));
    }

    #[test]
    fn what_a_browser_could_run_is_plain_bytes() {
        for name in ["a.html", "a.svg", "a.js", "a", "a.xml", ".html"] {
            assert_eq!(media_type(name), "application/octet-stream", "{name}");
        }
        assert_eq!(media_type("Song.MP3"), "audio/mpeg");
    }
}
