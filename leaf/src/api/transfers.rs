//! The objects of downloads and uploads, as a client reads them.

use overlay::id::{ContentId, PeerId};
use serde::{Deserialize, Serialize};

use super::types::text;

/// Which of the waiting downloads is started first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DownloadState {
    /// It waits for others to end, or for a source.
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

impl DownloadState {
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

/// A download.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Download {
    /// Its name.
    pub id: String,
    /// What it fetches.
    #[serde(with = "text")]
    pub content: ContentId,
    /// The file name.
    pub name: String,
    /// The finished file.
    pub path: Option<String>,
    /// What it is doing.
    pub state: DownloadState,
    /// Why it is paused or failed.
    pub reason: Option<String>,
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
    /// When it was asked for.
    pub created_at: String,
    /// When it ended.
    pub finished_at: Option<String>,
    /// Where it comes from.
    pub sources: Vec<DownloadSource>,
}

/// A source of a download.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DownloadSource {
    /// Who.
    #[serde(with = "text")]
    pub peer: PeerId,
    /// How far it is.
    pub state: String,
    /// Verified bytes from it.
    pub bytes: u64,
    /// Bytes a second now.
    pub rate: u64,
    /// `direct push punch relay local`, once it was reached.
    pub via: Option<String>,
    /// Our place in its queue.
    pub queue_position: Option<u32>,
}

/// The answer to `POST downloads`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NewDownloads {
    /// One job for each file of a folder.
    Folder {
        /// The jobs.
        items: Vec<Download>,
    },
    /// The job of one content.
    One(Box<Download>),
}

/// How far a download is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Its name.
    pub id: String,
    /// What it fetches.
    #[serde(with = "text")]
    pub content: ContentId,
    /// The file name.
    pub name: String,
    /// What it is doing.
    pub state: DownloadState,
    /// Verified bytes.
    pub bytes: u64,
    /// Bytes of the content.
    pub size: Option<u64>,
    /// Bytes a second now.
    pub rate: u64,
    /// Seconds until it is complete at that rate.
    pub eta_s: Option<u64>,
    /// Sources that are known.
    pub sources: u64,
    /// The best place in a source's queue, while it has no slot anywhere.
    pub queue_position: Option<u32>,
}

/// A download that was asked for and is not watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Its name.
    pub id: String,
    /// What it fetches.
    #[serde(with = "text")]
    pub content: ContentId,
}

/// A download that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Its name.
    pub id: String,
    /// What it fetched.
    #[serde(with = "text")]
    pub content: ContentId,
    /// The file.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// How long it ran.
    pub elapsed_ms: u64,
    /// Who sent how much.
    pub sources: Vec<DoneSource>,
}

/// A source's part in a finished download.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneSource {
    /// Who.
    #[serde(with = "text")]
    pub peer: PeerId,
    /// Verified bytes.
    pub bytes: u64,
    /// How it was reached.
    pub via: String,
}

/// A download that ended without its file, or that its command stopped waiting for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its name.
    pub id: String,
    /// What it was to fetch.
    #[serde(with = "text")]
    pub content: ContentId,
    /// `cancelled blocked conflict`, or of the command: `timeout no_source`.
    pub reason: String,
}

/// A file that another node fetches here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    /// Its name.
    pub id: String,
    /// Who downloads.
    #[serde(with = "text")]
    pub peer: PeerId,
    /// What.
    #[serde(with = "text")]
    pub content: ContentId,
    /// The file's name.
    pub name: String,
    /// Bytes of the content.
    pub size: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Bytes a second now.
    pub rate: u64,
    /// `queued` or `active`.
    pub state: String,
    /// How the peer is connected.
    pub via: String,
    /// Its place in the queue, from 1.
    pub queue_position: Option<u32>,
}
