//! Contents on the wire: serving them to other leaves, and fetching them. Drivers of [`crate::queue`] and
//! [`crate::swarm`].
//!
//! | module | what it is |
//! |---|---|
//! | [`holding`] | a content that lies here, whole or in part |
//! | [`serve`] | uploads: sessions, slots, pieces, pages |
//! | [`pool`] | one connection to each peer, shared by all downloads |
//! | [`session`] | the downloading side of one session and of one request |
//! | `quotas` | what each peer had today, over restarts |
//! | [`throttle`] | rate limits |
//!
//! What lies elsewhere comes in through three traits: how a peer is reached ([`Reach`]), who has a content
//! ([`SourceFinder`]), and what is shared here ([`Library`]).

pub mod holding;
mod library;
pub mod pool;
mod quotas;
pub mod serve;
pub mod session;
pub mod throttle;

use std::{fmt::Debug, fs::File, path::PathBuf};

use futures_util::future::BoxFuture;
use overlay::{
    id::{ContentId, PeerId},
    transport::Connection,
    verify::Value,
    wire::transfer::{Browse, Page},
};
use serde::{Deserialize, Serialize};

/// How a peer was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "net", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// It was dialled.
    Direct,
    /// It dialled, asked through its home.
    Push,
    /// Both dialled at once through their NATs.
    Punch,
    /// Over a home.
    Relay,
    /// It is this node: the content lies here.
    Local,
}

impl Via {
    /// Its name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Push => "push",
            Self::Punch => "punch",
            Self::Relay => "relay",
            Self::Local => "local",
        }
    }
}

/// Why a peer was not reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReachError {
    /// This leaf has no ultrapeer that could introduce it.
    #[error("this leaf is attached to no ultrapeer, which could introduce it to the peer")]
    NoHome,
    /// No ultrapeer knows it any more.
    #[error("the peer is gone")]
    Gone,
    /// It does not want to be reached.
    #[error("the peer declined")]
    Refused,
    /// It is banned here.
    #[error("the peer is banned here")]
    Banned,
    /// It was dialled and did not answer.
    #[error("the peer did not answer in time")]
    Timeout,
    /// Its release does not fit this one.
    #[error("the peer cannot be talked to: {0}")]
    Version(String),
    /// Every way failed.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
}

/// Reaches peers.
pub trait Reach: Debug + Send + Sync + 'static {
    /// A welcomed transfer connection to `peer`, which may be attached to `homes` (none: unknown), and the way
    /// that worked. Dropping the future ends the attempt.
    fn connect(&self, peer: PeerId, homes: Vec<PeerId>) -> BoxFuture<'_, Result<(Connection, Via), ReachError>>;

    /// The same without a relay, for a peer that is reached over one; whoever knows no relay knows nothing better.
    fn improve(&self, _peer: PeerId, _homes: Vec<PeerId>) -> BoxFuture<'_, Result<(Connection, Via), ReachError>> {
        Box::pin(std::future::ready(Err(ReachError::Unreachable("there is no other way".to_owned()))))
    }
}

/// Somebody who is said to have a content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundSource {
    /// Who.
    pub peer: PeerId,
    /// Ultrapeers that it may be attached to.
    pub homes: Vec<PeerId>,
}

/// Finds out who has a content.
pub trait SourceFinder: Debug + Send + Sync + 'static {
    /// Those who have `content` now, as far as can be found. Never this node.
    fn find(&self, content: ContentId) -> BoxFuture<'_, Vec<FoundSource>>;

    /// The homes of this node, through which others may be introduced to it.
    fn homes(&self) -> Vec<PeerId>;

    /// A source that was found sends something else, or does not have `content`.
    fn complain(&self, source: FoundSource, content: ContentId);
}

/// A file of this node that was found to be as it was hashed.
#[derive(Debug)]
pub struct LocalFile {
    /// Open for reading.
    pub file: File,
    /// Where it lies.
    pub path: PathBuf,
}

/// A small file of this node that was found to be as it was hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallFile {
    /// Its file name.
    pub name: String,
    /// All of it, at most [`overlay::limits::SMALL_FILE_BYTES`].
    pub data: Vec<u8>,
}

/// A finished, verified download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is.
    pub content: ContentId,
    /// Its piece values.
    pub pieces: Vec<Value>,
}

/// The library failed; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the library failed: {0}")]
pub struct LibraryError(pub String);

/// What is shared here, and where finished downloads are entered.
pub trait Library: Debug + Send + Sync + 'static {
    /// Opens a file with this content; `None` if there is none.
    fn open(&self, content: ContentId) -> BoxFuture<'_, Result<Option<LocalFile>, LibraryError>>;

    /// The piece values of a content of `size` bytes that lies here.
    fn pieces(&self, content: ContentId, size: u64) -> BoxFuture<'_, Result<Option<Vec<Value>>, LibraryError>>;

    /// What lies here of a content is not what was hashed: it is listed no more, and hashed again.
    fn damaged(&self, content: ContentId) -> BoxFuture<'_, Result<(), LibraryError>>;

    /// Reads small files, each `None` if it is not here, is larger than [`overlay::limits::SMALL_FILE_BYTES`], or is one too many
    /// for [`overlay::limits::RUN_BYTES`].
    fn small_files(&self, contents: Vec<ContentId>) -> BoxFuture<'_, Result<Vec<Option<SmallFile>>, LibraryError>>;

    /// Which of some contents lie here as they were hashed.
    fn knows(&self, contents: Vec<ContentId>) -> BoxFuture<'_, Result<Vec<bool>, LibraryError>>;

    /// Enters finished, verified downloads. Those that cannot be read are left out.
    fn add_downloads(&self, files: Vec<Finished>) -> BoxFuture<'_, Result<(), LibraryError>>;

    /// A page of what is shared; `None` if there is no such folder or file. It may have more than the wire takes:
    /// the caller cuts it.
    fn browse(&self, request: Browse) -> BoxFuture<'_, Option<Page>>;
}
