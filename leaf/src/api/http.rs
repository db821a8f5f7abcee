//! The endpoints of a leaf's local HTTP API, on top of `overlay::admin`.
//!
//! | module | endpoints |
//! |---|---|
//! | `searches` | `searches` |
//! | `downloads` | `downloads` |
//! | `files` | `files`, and links to them |
//! | `shares` | `shares`, `browse` |
//! | `wishes` | `wishes` |
//! | `state` | `status`, `peers`, `uploads`, `history` |
//! | `page` | none: the web page |
//!
//! Handlers translate: they read a request, call the node, and shape the answer. Whatever takes a decision
//! lies elsewhere.

mod downloads;
mod files;
mod page;
mod searches;
mod shares;
mod state;
mod wishes;

use std::sync::Arc;

use axum::{Router, extract::FromRef};
use overlay::{
    admin::{
        auth::Guard,
        common::{self, Common},
        error::ApiError,
        index::{Api, Endpoint},
        probes::Readiness,
    },
    id::{ContentId, PeerId},
    limits,
    report::{Peer, Status},
};

pub use self::files::Tickets;
use crate::{
    api::types::{History, Listed, NewShare, Share, Skipped, Upload},
    node::Node,
};

/// What handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct State {
    /// The leaf.
    pub node: Node,
    /// Whether it is in the network, or leaves it.
    pub readiness: Readiness,
    /// Links to contents that are out.
    pub tickets: Tickets,
    /// Configuration, log, bans and events.
    pub common: Arc<Common>,
}

impl FromRef<State> for Arc<Common> {
    fn from_ref(state: &State) -> Self {
        state.common.clone()
    }
}

/// The routes, behind `guard`.
pub fn router(state: State, guard: Guard) -> Router {
    let api = Api::new("quictrack", env!("CARGO_PKG_VERSION"))
        .endpoint(Endpoint::get("status", "how the node is doing").answers::<Status>(), state::status)
        .endpoint(Endpoint::get("peers", "ultrapeers and leaves that it knows").list::<Peer>(), state::peers)
        .endpoint(Endpoint::get("uploads", "what others fetch from here").list::<Upload>(), state::uploads)
        .endpoint(
            Endpoint::get("history", "what was uploaded and downloaded a second in the last hours")
                .query::<state::Hours>("hours", "1 to 24, default 1")
                .answers::<History>(),
            state::history,
        )
        .endpoint(Endpoint::get("shares", "shared folders").list::<Share>(), shares::list)
        .endpoint(Endpoint::post("shares", "share a folder").request::<NewShare>().answers::<Share>(), shares::add)
        .endpoint(
            Endpoint::get("shares/skipped", "files that lie in a share and are not shared").list::<Skipped>(),
            shares::skipped,
        )
        .endpoint(Endpoint::post("shares/rescan", "look at all folders again").accepted(), shares::rescan)
        .endpoint(Endpoint::delete("shares/{name}", "stop sharing a folder"), shares::remove)
        .endpoint(
            Endpoint::get("browse/{peer}", "what a peer shares")
                .list::<Listed>()
                .query::<String>("path", "the folder, from the share's name down")
                .query::<bool>("recursive", "true for everything below it"),
            shares::browse,
        );
    let api = wishes::routes(searches::routes(files::routes(downloads::routes(api))));
    page::routes(common::add(api)).into_router(state, guard)
}

/// The content of a full id, or of a prefix of 8 or more digits that only one known content has.
async fn resolve_content(state: &State, text: &str) -> Result<ContentId, ApiError> {
    let digits = text.to_ascii_lowercase();
    if digits.len() == ContentId::TEXT_LEN {
        return digits.parse().map_err(|error: overlay::id::IdError| ApiError::bad_request(error.to_string()));
    }
    let shape = "a content id has 64 hex digits; a prefix needs 8 or more";
    if digits.len() < limits::ID_PREFIX || digits.len() > ContentId::TEXT_LEN || !is_hex(&digits) {
        return Err(ApiError::bad_request(format!("{text} is no content id")).hint(shape));
    }
    let mut found = state.node.contents_from(&digits).await;
    found.sort_unstable();
    found.dedup();
    match found[..] {
        [content] => Ok(content),
        [] => Err(ApiError::not_found(format!("no known content begins with {digits}"))
            .hint("prefixes are looked up among recent hits, downloads and shares")),
        _ => Err(ApiError::bad_request(format!("{} known contents begin with {digits}", found.len()))
            .hint("give more digits")),
    }
}

/// The peer of a full id, or of a prefix of 8 or more characters that only one known peer has.
async fn resolve_peer(state: &State, text: &str) -> Result<PeerId, ApiError> {
    let lower = text.to_ascii_lowercase();
    if lower.len() == PeerId::TEXT_LEN {
        return lower.parse().map_err(|error: overlay::id::IdError| ApiError::bad_request(error.to_string()));
    }
    let is_base32 = lower.bytes().all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte));
    if lower.len() < limits::ID_PREFIX || lower.len() > PeerId::TEXT_LEN || !is_base32 {
        return Err(ApiError::bad_request(format!("{text} is no peer id"))
            .hint("a peer id has 52 characters; a prefix needs 8 or more"));
    }
    let known = state.node.known_peers().await;
    let found: Vec<_> = known.into_iter().filter(|peer| peer.to_string().starts_with(&lower)).collect();
    match found[..] {
        [peer] => Ok(peer),
        [] => Err(ApiError::not_found(format!("no known peer begins with {lower}"))
            .hint("prefixes are looked up among peers of recent hits and `quictrack peers`")),
        _ => Err(ApiError::bad_request(format!("{} known peers begin with {lower}", found.len()))
            .hint("give more characters")),
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
