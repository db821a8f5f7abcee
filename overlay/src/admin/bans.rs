//! The endpoints `bans`: list, ban, lift; and which target somebody means who gives the beginning of an id.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRef, State},
    http::StatusCode,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::Common,
    error::{ApiError, Body, Code, Path, Query},
    index::{Api, Endpoint},
    list::{ListQuery, Page},
};
use crate::{
    bans::{
        Ban, Lifted, Origin, Target,
        keeper::{AddError, Bans, now_s},
        list::shortened,
    },
    id::{ContentId, PeerId},
    limits,
    report::{self, timestamp},
};

/// The body of `POST bans`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    /// A peer id, a content id, the beginning of one that is known here, an address, or a range of addresses.
    pub target: String,
    /// Seconds for which it counts; for good if absent.
    #[serde(default)]
    pub for_s: Option<u64>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Adds the endpoints.
pub(super) fn add<S>(api: Api<S>) -> Api<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Common>: FromRef<S>,
{
    api.endpoint(
        Endpoint::get("bans", "who is not dealt with, and which contents are blocked").list::<report::Ban>(),
        all,
    )
    .endpoint(
        Endpoint::post("bans", "ban a peer or a range of addresses, or block a content")
            .request::<BanRequest>()
            .answers::<report::Ban>(),
        make,
    )
    .endpoint(Endpoint::delete("bans/{target}", "lift a ban that was made at run time"), lift)
}

async fn all(
    State(common): State<Arc<Common>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<report::Ban>>, ApiError> {
    let bans = common.bans.all().into_iter().map(|(ban, origin)| (ban.target.to_string(), (ban, origin)));
    query.page(bans, |(ban, origin)| shown(&ban, origin)).map(Json)
}

async fn make(
    State(common): State<Arc<Common>>,
    Body(request): Body<BanRequest>,
) -> Result<(StatusCode, Json<report::Ban>), ApiError> {
    let BanRequest { target, for_s, reason } = request;
    let created_s = now_s();
    let expires_s = match for_s {
        Some(0) => return Err(ApiError::bad_request("`for_s` is at least one second").hint("leave it out for good")),
        Some(span) => Some(i64::try_from(span).ok().and_then(|span| created_s.checked_add(span)).unwrap_or(i64::MAX)),
        None => None,
    };
    let target = meant(&common.bans, &target).await?;
    let reason = reason.filter(|reason| !reason.trim().is_empty()).map(|reason| shortened(reason.trim()));
    let (ban, origin) = common.bans.add(Ban { target, reason, created_s, expires_s }).await?;
    tracing::info!(kind = target.kind().name(), %target, "banned");
    Ok((StatusCode::CREATED, Json(shown(&ban, origin))))
}

async fn lift(State(common): State<Arc<Common>>, Path(text): Path<String>) -> Result<StatusCode, ApiError> {
    let target = banned(&common.bans, &text)?;
    match common.bans.lift(&target).await? {
        Lifted::Lifted => {
            tracing::info!(kind = target.kind().name(), %target, "ban lifted");
            Ok(StatusCode::NO_CONTENT)
        }
        Lifted::Listed => Err(ApiError::new(
            Code::Conflict,
            format!("{target} stands in a file that `ban_list` or `block_list` names"),
        )
        .hint("its origin is `file`: take it out of that file, which is read again by itself")),
        Lifted::Unknown => Err(unknown(&text)),
    }
}

fn unknown(text: &str) -> ApiError {
    ApiError::not_found(format!("there is no ban of {text}")).hint("`bans` lists them")
}

/// The target that a text names: a whole one, or the one known peer or content that begins like it.
async fn meant(bans: &Bans, text: &str) -> Result<Target, ApiError> {
    let Some(beginning) = beginning(text)? else { return whole(text) };
    let mut found = Vec::new();
    if let Some(known) = bans.known() {
        let peers = known.peers().await.into_iter().map(|(peer, _)| peer);
        found.extend(peers.filter(|peer| peer.to_string().starts_with(&beginning)).map(Target::Peer));
        if is_hex(&beginning) {
            found.extend(known.contents_from(&beginning).await.into_iter().map(Target::Content));
        }
    }
    let hint = "looked up among the peers of recent hits and `peers`, and the contents of hits, downloads and shares";
    only(found, &beginning)?
        .ok_or_else(|| ApiError::not_found(format!("no known peer or content begins with {beginning}")).hint(hint))
}

/// The target of the ban that a text names.
fn banned(bans: &Bans, text: &str) -> Result<Target, ApiError> {
    let Some(beginning) = beginning(text)? else { return whole(text) };
    let targets = bans.all().into_iter().map(|(ban, _)| ban.target);
    let found = targets.filter(|target| !matches!(target, Target::Prefix(_)));
    only(found.filter(|target| target.to_string().starts_with(&beginning)).collect(), &beginning)?
        .ok_or_else(|| unknown(text))
}

fn only(mut found: Vec<Target>, beginning: &str) -> Result<Option<Target>, ApiError> {
    found.sort_unstable();
    found.dedup();
    match found[..] {
        [] => Ok(None),
        [target] => Ok(Some(target)),
        _ => {
            Err(ApiError::bad_request(format!("{} ids begin with {beginning}", found.len()))
                .hint("give more characters"))
        }
    }
}

fn whole(text: &str) -> Result<Target, ApiError> {
    text.parse().map_err(|error: crate::bans::TargetError| ApiError::bad_request(error.to_string()).hint(SHAPE))
}

const SHAPE: &str = "a target is a peer id (52 characters), a content id (64 hex digits), 8 or more first characters of \
                     one, an address, or a range such as 192.0.2.0/24";

/// The text in lower case, if it is the beginning of an id; `None` if it is a whole target.
fn beginning(text: &str) -> Result<Option<String>, ApiError> {
    if text.parse::<Target>().is_ok() || text.contains('/') {
        return Ok(None);
    }
    let lower = text.to_ascii_lowercase();
    let is_of =
        |most: usize, is: fn(u8) -> bool| (limits::ID_PREFIX..most).contains(&lower.len()) && lower.bytes().all(is);
    let is_base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
    if is_of(PeerId::TEXT_LEN, is_base32) || is_of(ContentId::TEXT_LEN, |byte| byte.is_ascii_hexdigit()) {
        return Ok(Some(lower));
    }
    Err(ApiError::bad_request(format!("`{text}` names nothing that can be banned")).hint(SHAPE))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl From<AddError> for ApiError {
    fn from(error: AddError) -> Self {
        let message = error.to_string();
        match error {
            AddError::Itself(_) => Self::bad_request(message).hint("a node cannot ban itself; stop it instead"),
            AddError::List(error) => Self::new(error.code(), message).hint(error.hint()),
            AddError::Stopped => Self::new(Code::Draining, message),
        }
    }
}

/// A ban as it is shown.
fn shown(ban: &Ban, origin: Origin) -> report::Ban {
    report::Ban {
        target: ban.target.to_string(),
        kind: ban.target.kind().name().to_owned(),
        origin: origin.name().to_owned(),
        reason: ban.reason.clone(),
        created_at: timestamp(ban.created_s),
        expires_at: ban.expires_s.and_then(timestamp),
    }
}
