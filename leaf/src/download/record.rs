//! A download as it is stored and as it is shown.

use clap::ValueEnum;
use overlay::id::{ContentId, PeerId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{file_id, transfer::Via};

/// Which of the waiting downloads is started first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// After all others.
    Low,
    /// In between.
    #[default]
    Normal,
    /// Before all others.
    High,
}

impl Priority {
    /// Its name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// What a download is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits: here for others to end, or in the queues of its sources.
    Queued,
    /// It fetches, or looks for sources.
    Active,
    /// It runs, and no source answers.
    Stalled,
    /// It was stopped and keeps what it has.
    Paused,
    /// It is complete.
    Done,
    /// The user gave it up.
    Cancelled,
    /// It cannot be completed as asked.
    Failed,
}

impl State {
    /// True if nothing will happen any more without the user.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }

    /// Its name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Active => "active",
            Self::Stalled => "stalled",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// Why a download is paused or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The user paused it.
    User,
    /// The disk is full.
    DiskFull,
    /// The user cancelled it.
    Cancelled,
    /// The content is blocked here.
    Blocked,
    /// The output names an existing file of other content.
    Conflict,
}

impl Reason {
    /// Its name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::DiskFull => "disk_full",
            Self::Cancelled => "cancelled",
            Self::Blocked => "blocked",
            Self::Conflict => "conflict",
        }
    }
}

/// What is stored of a download. Postcard: fields are only appended together with a new table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name, never used again.
    pub id: String,
    /// What it fetches.
    pub content: ContentId,
    /// The file name that was asked for or found, before it is made safe.
    pub name: String,
    /// Where it goes: an absolute path; a folder if it exists as one or ends with `/`.
    pub output: Option<String>,
    /// Folders below that, with `/` between them, as a peer named them; empty for none.
    pub below: String,
    /// Its rank among those that wait.
    pub priority: Priority,
    /// What it is doing. [`State::Active`] and [`State::Stalled`] are stored as queued.
    pub state: State,
    /// Why it is paused or failed.
    pub reason: Option<Reason>,
    /// Bytes of the content, once known or claimed.
    pub size: Option<u64>,
    /// Rises from job to job: the order of their creation.
    pub order: u64,
    /// Seconds since 1970 UTC.
    pub created_at_s: u64,
    /// Seconds since 1970 UTC.
    pub finished_at_s: Option<u64>,
    /// Milliseconds that it ran, over restarts.
    pub elapsed_ms: u64,
    /// The finished file.
    pub path: Option<String>,
    /// Verified bytes by source, by peer.
    pub sources: Vec<(PeerId, u64, Via)>,
    /// Sources that were named when it was created, with their homes.
    pub hints: Vec<(PeerId, Vec<PeerId>)>,
}

/// What is stored of a download's verified pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bits {
    /// The size under which they were verified.
    pub size: u64,
    /// One bit a piece, the first one highest.
    pub have: Vec<u8>,
}

/// A download as shown to the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Download {
    /// Its name.
    pub id: String,
    /// What it fetches.
    #[serde(with = "file_id::text")]
    #[schemars(with = "String")]
    pub content: ContentId,
    /// The file name.
    pub name: String,
    /// The finished file.
    pub path: Option<String>,
    /// What it is doing.
    pub state: State,
    /// Why it is paused or failed.
    pub reason: Option<Reason>,
    /// Bytes of the content.
    pub size: Option<u64>,
    /// Verified bytes.
    pub bytes: u64,
    /// Bytes a second now.
    pub rate: u64,
    /// Seconds until it is complete at that rate.
    pub eta_s: Option<u64>,
    /// Its rank among those that wait.
    pub priority: Priority,
    /// The best place in a source's queue, while it has no slot anywhere.
    pub queue_position: Option<u32>,
    /// RFC 3339 UTC.
    pub created_at: String,
    /// RFC 3339 UTC.
    pub finished_at: Option<String>,
    /// Where it comes from.
    pub sources: Vec<Source>,
}

/// A source of a download as shown to the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// Who.
    #[serde(with = "file_id::text")]
    #[schemars(with = "String")]
    pub peer: PeerId,
    /// How far it is.
    pub state: SourceState,
    /// Verified bytes from it.
    pub bytes: u64,
    /// Bytes a second now.
    pub rate: u64,
    /// How it is reached, once it was.
    pub via: Option<Via>,
    /// Our place in its queue.
    pub queue_position: Option<u32>,
}

/// How far a source is, as shown to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// It is being reached.
    Connecting,
    /// We wait for its slot.
    Queued,
    /// It sends.
    Active,
    /// It failed and is tried again.
    Waiting,
    /// It sent wrong data.
    Dropped,
}

/// How far a download is: the line `progress`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Its name.
    pub id: String,
    /// What it fetches.
    #[serde(with = "file_id::text")]
    pub content: ContentId,
    /// The file name.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Verified bytes.
    pub bytes: u64,
    /// Bytes of the content.
    pub size: Option<u64>,
    /// Bytes a second now.
    pub rate: u64,
    /// Seconds until it is complete at that rate.
    pub eta_s: Option<u64>,
    /// Sources that are known.
    pub sources: usize,
    /// The best place in a source's queue, while it has no slot anywhere.
    pub queue_position: Option<u32>,
    /// Why it is paused.
    #[serde(default)]
    pub reason: Option<Reason>,
}

/// A download began to wait: the line `queued`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queued {
    /// Its name.
    pub id: String,
    /// What it fetches.
    #[serde(with = "file_id::text")]
    pub content: ContentId,
}

/// A download is complete: the line `done`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Its name.
    pub id: String,
    /// What it fetched.
    #[serde(with = "file_id::text")]
    pub content: ContentId,
    /// The file.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// How long it ran.
    pub elapsed_ms: u64,
    /// Who sent how much; sums up to `bytes`.
    pub sources: Vec<Share>,
}

/// A source's part in a finished download.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Who.
    #[serde(with = "file_id::text")]
    pub peer: PeerId,
    /// Verified bytes.
    pub bytes: u64,
    /// How it was reached.
    pub via: Via,
}

/// A download ended without its file: the line `failed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// Its name.
    pub id: String,
    /// What it was to fetch.
    #[serde(with = "file_id::text")]
    pub content: ContentId,
    /// Why.
    pub reason: Reason,
}

impl Download {
    /// The line `progress`.
    pub fn progress(&self) -> Progress {
        Progress {
            id: self.id.clone(),
            content: self.content,
            name: self.name.clone(),
            state: self.state,
            bytes: self.bytes,
            size: self.size,
            rate: self.rate,
            eta_s: self.eta_s,
            sources: self.sources.len(),
            queue_position: self.queue_position,
            reason: self.reason,
        }
    }
}

impl Record {
    /// The line `done`, if it is.
    pub fn done(&self) -> Option<Done> {
        let path = self.path.clone().filter(|_| self.state == State::Done)?;
        let share = |(peer, bytes, via): &(PeerId, u64, Via)| Share { peer: *peer, bytes: *bytes, via: *via };
        let sources = self.sources.iter().filter(|(_, bytes, _)| *bytes > 0).map(share).collect();
        let bytes = self.size.unwrap_or(0);
        Some(Done { id: self.id.clone(), content: self.content, path, bytes, elapsed_ms: self.elapsed_ms, sources })
    }

    /// The line `failed`, if it did or was cancelled.
    pub fn failed(&self) -> Option<Failed> {
        let reason = match self.state {
            State::Cancelled => Reason::Cancelled,
            State::Failed => self.reason?,
            _ => return None,
        };
        Some(Failed { id: self.id.clone(), content: self.content, reason })
    }
}
