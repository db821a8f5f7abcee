//! The driver of the shares: keeps the catalog true to the folders.
//!
//! One task owns the decisions: which share is looked at next (one on each disk, the whole of it or the paths
//! that changed), when the catalog is published, and what is asked of the file watch. The work itself runs
//! on threads of its own (`run`, `pass`). Readers never wait for it: the published catalog is swapped atomically.
//!
//! Life of a change: event -> 0.3 s of silence -> pass over the changed paths -> catalog -> saved and published,
//! at most once in max(1 s, files / 20,000 s).
//!
//! A share whose folder vanishes is `missing`: its files leave the catalog, their records stay, and when the
//! folder is back nothing is hashed again. If what it lies on has vanished or does not answer, its files stay listed
//! for some minutes: drives come back, and a list of a million files is not uploaded twice for that.
//!
//! Finished downloads outside of the shares are in the catalog as unlisted files: whoever looks a content up finds
//! it here, and no search and no listing shows it.

use std::{
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use overlay::{config::Origin, drive, id::ContentId, limits, list_file::ListError, verify::Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use self::{
    driver::Driver,
    run::Lanes,
    state::{Below, Shared, blocking},
};
use super::{
    Database, DatabaseError, Outboards, SkipReason, StoreError,
    watch::{Coverage, Watch},
};
use crate::{
    catalog::Catalog,
    transfer::{Finished, SmallFile},
};

mod driver;
mod roots;
mod run;
mod state;

/// A folder to be shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareSpec {
    /// The folder.
    pub path: PathBuf,
    /// Where it was set; [`Origin::Settings`] if it was added while the program ran.
    pub origin: Origin,
}

/// What the user decides about shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharesConfig {
    /// The shared folders.
    pub shares: Vec<ShareSpec>,
    /// Patterns in gitignore syntax.
    pub exclude: Vec<String>,
    /// Time between two full scans.
    pub rescan_interval: Duration,
    /// Threads that hash, for each disk; at least 1.
    pub hash_threads: usize,
    /// Where downloads go: what is registered there is served.
    pub downloads: PathBuf,
    /// True if the download folder is a share like any other.
    pub share_downloads: bool,
}

/// What a share is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ShareState {
    /// Its folders are walked, or wait for it; what is found is hashed meanwhile.
    Scanning,
    /// All is found, not all is hashed and listed.
    Hashing,
    /// The catalog has everything.
    Watching,
    /// The folder is not there.
    Missing,
}

/// A share, as it is shown to the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// The first component of its files' paths.
    pub name: String,
    /// The folder.
    pub path: String,
    /// What it is doing.
    pub state: ShareState,
    /// Where it was set.
    pub origin: Origin,
    /// Files in the catalog.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files found that wait to be hashed.
    pub pending_files: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// Bytes hashed a second.
    pub rate: u64,
    /// Files that are not shared though they lie there.
    pub skipped: u64,
    /// True if the system tells of changes; others are found by the periodic rescan alone.
    pub watching: bool,
}

impl Share {
    /// Takes over how much of it a list holds.
    fn count(&mut self, catalog: &Catalog) {
        (self.files, self.bytes) = catalog.totals(&self.name);
    }
}

/// A file that is not shared, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// Where it lies on this machine.
    pub path: String,
    /// Why.
    pub reason: SkipReason,
}

/// A shared file, open, and found to be the version that was hashed.
#[derive(Debug)]
pub struct Served {
    /// The open file.
    pub file: File,
    /// Where it lies on this machine.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

/// A handle of the shares; clones are the same shares.
#[derive(Clone, Debug)]
pub struct Shares {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Add(ShareSpec, oneshot::Sender<Result<Share, SharesError>>),
    Remove(String, oneshot::Sender<Result<Share, SharesError>>),
    Configure(SharesConfig, oneshot::Sender<Result<(), SharesError>>),
    Rescan(oneshot::Sender<()>),
    /// Something at this path below a root is not as recorded.
    Look(u32, PathBuf),
}

impl Shares {
    /// Restores the catalog and starts the task. It ends in order once `cancel` is cancelled: the handle is to be
    /// awaited then. Blocks on the database; call it before there is anything to wait for.
    pub fn start(
        config: SharesConfig,
        database: Arc<Database>,
        outboards: Outboards,
        cancel: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), StoreError> {
        let catalog = database.load_catalog()?.unwrap_or_else(|| Catalog::new(sequence_of_a_new_list()));
        let shared = Arc::new(Shared {
            published: watch::Sender::new(catalog.sequence()),
            catalog: ArcSwap::from_pointee(catalog.clone()),
            working: Mutex::new(catalog),
            changed: Notify::new(),
            downloads: Mutex::default(),
            states: Mutex::default(),
            activity: watch::Sender::new(()),
            watch: Watch::new(),
            lanes: Lanes::default(),
            readers: Semaphore::new(limits::PIECE_READERS),
            database,
            outboards,
        });
        let (commands, inbox) = mpsc::channel(limits::SHARE_COMMANDS);
        shared.reconcile(&config)?;
        let task = tokio::spawn(Driver::new(config, shared.clone(), cancel).run(inbox));
        Ok((Self { shared, commands }, task))
    }

    /// Shares a folder. One that is shared already stays as it is. To last over a restart it must be in the
    /// next [`SharesConfig`].
    pub async fn add(&self, spec: ShareSpec) -> Result<Share, SharesError> {
        self.ask(|reply| Command::Add(spec, reply)).await?
    }

    /// Stops sharing a folder, named by the share's name or its path, and forgets its files.
    pub async fn remove(&self, share: &str) -> Result<Share, SharesError> {
        self.ask(|reply| Command::Remove(share.to_owned(), reply)).await?
    }

    /// Takes over changed decisions.
    pub async fn configure(&self, config: SharesConfig) -> Result<(), SharesError> {
        self.ask(|reply| Command::Configure(config, reply)).await?
    }

    /// Looks at everything again, soon.
    pub async fn rescan(&self) -> Result<(), SharesError> {
        self.ask(Command::Rescan).await
    }

    /// Waits until a share, or all, is hashed as it was when this was called, and published. Returns the sequence
    /// of that catalog: a home that acknowledged it has the files.
    pub async fn settled(&self, share: Option<&str>) -> u64 {
        self.until(|| !self.shared.is_busy(share)).await;
        self.catalog().sequence()
    }

    /// Waits until no share is looked at or waits for it: all is hashed and on record, though perhaps not published.
    pub async fn recorded(&self) {
        self.until(|| !self.shared.states().values().any(state::State::is_busy)).await;
    }

    /// Waits until something of the shares is so, or nothing is looked at any more.
    async fn until(&self, is_so: impl Fn() -> bool) {
        let mut activity = self.shared.activity.subscribe();
        // Not by `wait_for`: it judges under the lock of the channel, and who tells of a change may hold that of the
        // shares.
        while !is_so() {
            if activity.changed().await.is_err() {
                return;
            }
        }
    }

    /// All shares, by name.
    pub fn list(&self) -> Vec<Share> {
        self.shared.list()
    }

    /// What is not shared, share by share; at most [`limits::SKIPPED_LISTED`] of each.
    pub fn skipped(&self) -> Vec<Skipped> {
        let states = self.shared.states();
        let skipped = states.values().flat_map(|state| {
            state.skipped.iter().map(|(below, reason)| Skipped {
                path: state.path.join(below).to_string_lossy().into_owned(),
                reason: *reason,
            })
        });
        skipped.collect()
    }

    /// The shares that are not watched whole because the system watches no more folders, by name.
    pub fn beyond_watch_limit(&self) -> Vec<String> {
        let states = self.shared.states();
        let limited = states.values().filter(|state| state.origin.is_some() && state.coverage == Coverage::Limited);
        limited.map(|state| state.name.clone()).collect()
    }

    /// The published catalog.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.catalog.load_full()
    }

    /// Tells the sequence of each newly published catalog.
    pub fn watch_catalog(&self) -> watch::Receiver<u64> {
        self.shared.published.subscribe()
    }

    /// Tells that what [`Self::list`] returns has changed.
    pub fn watch_shares(&self) -> watch::Receiver<()> {
        self.shared.activity.subscribe()
    }

    /// Opens a file with this content, shared or downloaded. `None` if there is none, or none that is still as it
    /// was hashed; what is not is looked at again.
    pub async fn open(&self, content: ContentId) -> Result<Option<Served>, StoreError> {
        let shared = self.shared.clone();
        let (served, stale) = blocking(move || shared.open(content)).await?;
        self.look_at(stale);
        Ok(served)
    }

    /// The piece values of a content that lies here; a small one is read for them. `None` if there is none, or
    /// what is there is damaged; it is hashed again then.
    pub async fn pieces(&self, content: ContentId, size: u64) -> Result<Option<Vec<Value>>, StoreError> {
        let shared = self.shared.clone();
        // Never closed.
        let _turn = self.shared.readers.acquire().await;
        let (pieces, stale) = blocking(move || shared.pieces(content, size)).await?;
        self.look_at(stale);
        Ok(pieces)
    }

    /// What lies here of a content is not what was hashed, though nothing shows that it was changed: it is hashed again, and
    /// listed as what it is.
    pub async fn damaged(&self, content: ContentId) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let stale = blocking(move || shared.damaged(content)).await?;
        self.look_at(stale);
        Ok(())
    }

    /// Contents that lie here whose ids start with these bytes, ascending: what a shortened id may mean.
    pub async fn contents_from(&self, prefix: Vec<u8>, limit: usize) -> Result<Vec<ContentId>, StoreError> {
        let shared = self.shared.clone();
        blocking(move || Ok(shared.database.contents_from(&prefix, limit)?)).await
    }

    /// Reads small files, at most [`limits::RUN_BYTES`] in all; `None` for each that is not here, is too large or is one too
    /// many.
    pub async fn small_files(&self, contents: Vec<ContentId>) -> Result<Vec<Option<SmallFile>>, StoreError> {
        let shared = self.shared.clone();
        let (files, stale) = blocking(move || shared.small_files(&contents)).await?;
        self.look_at(stale);
        Ok(files)
    }

    /// Which of some contents lie here as they were hashed. Downloads that are gone are forgotten, all at once.
    pub async fn knows(&self, contents: Vec<ContentId>) -> Result<Vec<bool>, StoreError> {
        let shared = self.shared.clone();
        let (known, stale) = blocking(move || shared.knows(&contents)).await?;
        self.look_at(stale);
        Ok(known)
    }

    /// Registers finished, verified files, wherever they lie: each is served without being hashed again for as long as it
    /// stays what it is. What cannot be read is left out.
    pub async fn add_downloads(&self, files: Vec<Finished>) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let below = blocking(move || shared.add_downloads(&files)).await?;
        self.look_at(below);
        Ok(())
    }

    fn look_at(&self, stale: Vec<Below>) {
        for (root, below) in stale {
            // If the task is overwhelmed, the next scan finds it.
            let _ = self.commands.try_send(Command::Look(root, below));
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, SharesError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| SharesError::Stopped)?;
        answer.await.map_err(|_| SharesError::Stopped)
    }
}

/// Milliseconds since 1970: above every sequence that this leaf used before it lost its past, because a list
/// changes less than once a millisecond.
fn sequence_of_a_new_list() -> u64 {
    drive::wall_clock().as_millis() as u64
}

/// Why a command about shares failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharesError {
    /// The folder cannot be listed.
    #[error("{path} cannot be shared: {why}", path = path.display())]
    NoFolder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// No share has this name or path.
    #[error("no share is named {share}")]
    Unknown {
        /// What was given.
        share: String,
    },
    /// The share was set elsewhere.
    #[error("{share} cannot be removed here")]
    Conflict {
        /// The share's name.
        share: String,
        /// Where it was set.
        origin: Origin,
    },
    /// What was done is not kept over a restart: the list in the data folder cannot be written.
    #[error(transparent)]
    Record(#[from] ListError),
    /// The program is ending.
    #[error("the shares are closed")]
    Stopped,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DatabaseError> for SharesError {
    fn from(error: DatabaseError) -> Self {
        Self::Store(error.into())
    }
}

impl SharesError {
    /// What to do next.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoFolder { .. } => Some("name a folder that exists and that this program may read"),
            Self::Unknown { .. } => Some("`quictrack shares` lists the shares"),
            Self::Conflict { origin, .. } => Some(match origin {
                Origin::CommandLine => "it comes from --share: restart the daemon without it",
                Origin::Environment => "it comes from QUICTRACK_SHARE: restart the daemon without it",
                Origin::File => "it comes from the configuration file: remove it from `share` there",
                Origin::Default => "it is the download folder: set share_downloads to false",
                Origin::Settings => "try again",
            }),
            Self::Record(error) => Some(error.hint()),
            Self::Stopped | Self::Store(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
