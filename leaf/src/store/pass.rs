//! One pass over a share, or over a part of it: walk, compare, hash, record.
//!
//! The walk compares each file's stamp with the records. What is on record costs one look-up; what was only
//! moved is recognised by its inode; the rest goes through a bounded queue to the hashing threads. One
//! collector writes records in batches and hands the changes to the catalog, so what is hashed becomes
//! searchable while the pass goes on. Last, after all hashing, records whose files were not seen are removed:
//! in this order a moved file is never hashed again.
//!
//! A pass may be cancelled at any time. What was committed stays, and the next pass hashes only the rest.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use ignore::gitignore::Gitignore;
use overlay::{file::FileEntry, limits};
use rustc_hash::FxHashSet;
use tokio_util::sync::CancellationToken;

use super::{
    StoreError,
    database::{Database, Place, Record, Stamp},
    hash::{self, Hashing, Outboards},
    path,
    scan::{Found, SkipReason, Step, Walk},
};
use crate::catalog::Change;

/// Longest time that a hashed file waits for its commit.
const COMMIT_AFTER: Duration = Duration::from_millis(500);

/// What a pass tells while it runs.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Files found that must be hashed.
    pub(super) pending_files: AtomicU64,
    /// Their bytes.
    pub(super) pending_bytes: AtomicU64,
    /// Bytes hashed since the start of the program.
    pub(super) hashed_bytes: AtomicU64,
    /// Files hashed since the start of the program.
    pub(super) hashed_files: AtomicU64,
    /// True while the walk goes on.
    pub(super) walking: std::sync::atomic::AtomicBool,
}

/// A share, as a pass needs it.
#[derive(Clone, Debug)]
pub(super) struct PassRoot {
    pub(super) id: u32,
    pub(super) name: String,
    /// Free of links.
    pub(super) path: PathBuf,
    pub(super) exclude: Gitignore,
}

/// What a pass found besides files.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What is not shared, by path below the root; at most [`limits::SKIPPED_LISTED`].
    pub(super) skipped: Vec<(PathBuf, SkipReason)>,
    /// What did not fit into the list.
    pub(super) more_skipped: u64,
    /// The pass ended before its end.
    pub(super) cancelled: bool,
}

impl Report {
    fn skip(&mut self, below: PathBuf, reason: SkipReason) {
        if self.skipped.len() < limits::SKIPPED_LISTED {
            self.skipped.push((below, reason));
        } else {
            self.more_skipped += 1;
        }
    }
}

/// Everything that a pass works with.
pub(super) struct Pass<'a> {
    pub(super) root: &'a PassRoot,
    pub(super) database: &'a Database,
    pub(super) outboards: &'a Outboards,
    pub(super) threads: usize,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a CancellationToken,
    /// Takes the changes of the catalog.
    pub(super) publish: &'a (dyn Fn(Vec<Change>) + Sync),
}

/// What the collector is told.
enum Message {
    /// The file is on record.
    Known(FileEntry),
    /// The file was hashed, or recognised as moved.
    Put(PathBuf, Record),
    /// The file must not be served or listed.
    Gone(PathBuf, SkipReason),
}

impl Pass<'_> {
    /// Looks at everything at or below `parts`; the empty path is the whole share.
    pub(super) fn run(&self, parts: &[PathBuf]) -> Result<Report, StoreError> {
        self.progress.walking.store(true, Ordering::Relaxed);
        let (jobs, queue) = sync_channel::<Found>(limits::HASH_QUEUE);
        let (messages, inbox) = sync_channel::<Message>(limits::COMMIT_FILES);
        let queue = &Mutex::new(queue);
        let (walked, collected) = thread::scope(|scope| {
            let collector = scope.spawn(move || self.collect(inbox));
            for _ in 0..self.threads.max(1) {
                let messages = messages.clone();
                scope.spawn(move || self.hash_all(queue, messages));
            }
            let walked = self.walk(parts, jobs, messages);
            self.progress.walking.store(false, Ordering::Relaxed);
            (walked, collector.join())
        });
        // Whatever ended the pass, nothing waits any more.
        self.progress.pending_files.store(0, Ordering::Relaxed);
        self.progress.pending_bytes.store(0, Ordering::Relaxed);
        let (mut report, seen) = walked?;
        for (below, reason) in collected.map_err(|_| StoreError::Panicked)?? {
            report.skip(below, reason);
        }
        report.cancelled = self.cancel.is_cancelled();
        if !report.cancelled {
            for part in parts {
                self.remove_where(&path::to_bytes(part), |path| !seen.covers(path))?;
            }
        }
        Ok(report)
    }

    /// Removes the records whose files are not as they were, without looking for others.
    pub(super) fn prune(&self) -> Result<(), StoreError> {
        let unchanged = |below: &[u8]| {
            let place = Place { root: self.root.id, below: below.to_vec() };
            let stamp = fs::metadata(self.root.path.join(path::from_bytes(below))).map(|file| Stamp::of(&file));
            matches!((self.database.record(&place), stamp), (Ok(Some(record)), Ok(stamp)) if record.stamp == stamp)
        };
        self.remove_where(&[], |below| !unchanged(below))
    }

    /// Walks the parts; returns what was skipped, and what was seen.
    fn walk(
        &self,
        parts: &[PathBuf],
        jobs: SyncSender<Found>,
        messages: SyncSender<Message>,
    ) -> Result<(Report, Seen), StoreError> {
        let (mut report, mut seen) = (Report::default(), Seen::default());
        for part in parts {
            let mut walk = Walk::new(&self.root.path, &self.root.name, &self.root.exclude, part)
                .map_err(|error| StoreError::Share { path: self.root.path.clone(), error })?;
            for step in &mut walk {
                if self.cancel.is_cancelled() {
                    return Ok((report, seen));
                }
                match step {
                    Step::Skipped(below, reason) => report.skip(below, reason),
                    Step::File(found) => {
                        seen.paths.insert(hash_of(&path::to_bytes(&found.below)));
                        self.compare(found, &jobs, &messages)?;
                    }
                }
            }
            seen.unknown.extend(walk.unknown().iter().map(|below| path::to_bytes(below)));
        }
        Ok((report, seen))
    }

    /// Sends a file the shortest way: to the collector, or to be hashed. A closed channel means that the
    /// other end failed, and that its error is the pass's.
    fn compare(
        &self,
        found: Found,
        jobs: &SyncSender<Found>,
        messages: &SyncSender<Message>,
    ) -> Result<(), StoreError> {
        let record = self.database.record(&self.place(&found.below))?;
        if let Some(record) = record.filter(|record| record.stamp == found.stamp) {
            let _ = messages.send(Message::Known(self.entry(&found.below, record)));
        } else if let Some(record) = self.database.record_of_stamp(&found.stamp)? {
            let _ = messages.send(Message::Put(found.below, record));
        } else {
            self.progress.pending_files.fetch_add(1, Ordering::Relaxed);
            self.progress.pending_bytes.fetch_add(found.stamp.size, Ordering::Relaxed);
            let _ = jobs.send(found);
        }
        Ok(())
    }

    /// One hashing thread.
    fn hash_all(&self, queue: &Mutex<Receiver<Found>>, messages: SyncSender<Message>) {
        loop {
            // The lock is held while waiting, so the others wait for the lock: the order is the same.
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Found { below, stamp }) = next else { return };
            let path = self.root.path.join(&below);
            let hashed = &self.progress.hashed_bytes;
            let message = match hash::hash(&path, &stamp, self.outboards, hashed, self.cancel) {
                Ok(Hashing::Done(record)) => {
                    self.progress.hashed_files.fetch_add(1, Ordering::Relaxed);
                    Message::Put(below, record)
                }
                Ok(Hashing::Changed) => Message::Gone(below, SkipReason::Changed),
                Ok(Hashing::Unreadable) => Message::Gone(below, SkipReason::Unreadable),
                // The rest of the queue is drained, so that the walk never waits for it.
                Ok(Hashing::Cancelled) => continue,
                // Without its outboard a file cannot be served; the next scan tries again.
                Err(error) => {
                    tracing::warn!(%error, "piece values cannot be stored");
                    Message::Gone(below, SkipReason::Unreadable)
                }
            };
            lower(&self.progress.pending_files, 1);
            lower(&self.progress.pending_bytes, stamp.size);
            if messages.send(message).is_err() {
                // The collector failed: drain, so that the walk never waits.
                while queue.lock().unwrap_or_else(PoisonError::into_inner).recv().is_ok() {}
                return;
            }
        }
    }

    /// Writes what the others found, until they are done. Returns what could not be hashed.
    fn collect(&self, inbox: Receiver<Message>) -> Result<Vec<(PathBuf, SkipReason)>, StoreError> {
        let mut failed = Vec::new();
        let (mut known, mut puts, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let message = inbox.recv_timeout(COMMIT_AFTER);
            let quiet = matches!(message, Err(RecvTimeoutError::Timeout));
            let end = matches!(message, Err(RecvTimeoutError::Disconnected));
            match message {
                Ok(Message::Known(entry)) => known.push(Change::Upsert(entry)),
                Ok(Message::Put(below, record)) => puts.push((below, record)),
                Ok(Message::Gone(below, reason)) => {
                    gone.push(below.clone());
                    if failed.len() < limits::SKIPPED_LISTED {
                        failed.push((below, reason));
                    }
                }
                Err(_) => {}
            }
            if known.len() >= limits::CHUNK_FILES || ((quiet || end) && !known.is_empty()) {
                (self.publish)(std::mem::take(&mut known));
            }
            let waiting = puts.len() + gone.len();
            if waiting >= limits::COMMIT_FILES || ((quiet || end) && waiting > 0) {
                self.commit(std::mem::take(&mut puts), &std::mem::take(&mut gone))?;
            }
            if end {
                return Ok(failed);
            }
        }
    }

    fn commit(&self, puts: Vec<(PathBuf, Record)>, gone: &[PathBuf]) -> Result<(), StoreError> {
        let records: Vec<_> = puts.iter().map(|(below, record)| (path::to_bytes(below), record.clone())).collect();
        let removes: Vec<_> = gone.iter().map(|below| path::to_bytes(below)).collect();
        let orphans = self.database.update_files(self.root.id, &records, &removes)?;
        self.drop_outboards(orphans);
        let gone = gone.iter().map(|below| Change::Remove(self.shown(below)));
        let changes = puts.into_iter().map(|(below, record)| Change::Upsert(self.entry(&below, record))).chain(gone);
        (self.publish)(changes.collect());
        Ok(())
    }

    /// Removes the records at or below a path that `choose` chooses.
    pub(super) fn remove_where(&self, below: &[u8], choose: impl Fn(&[u8]) -> bool) -> Result<(), StoreError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let (chosen, next) =
                self.database.paths_below(self.root.id, below, after.as_deref(), limits::CHUNK_FILES, &choose)?;
            if !chosen.is_empty() {
                let gone: Vec<_> = chosen.iter().map(|path| path::from_bytes(path)).collect();
                self.commit(Vec::new(), &gone)?;
            }
            let Some(next) = next else { return Ok(()) };
            after = Some(next);
        }
    }

    fn drop_outboards(&self, orphans: Vec<overlay::id::ContentId>) {
        for content in orphans {
            if let Err(error) = self.outboards.remove(content) {
                tracing::debug!(%error, "piece values of a content that is gone stay on the disk");
            }
        }
    }

    fn place(&self, below: &Path) -> Place {
        Place { root: self.root.id, below: path::to_bytes(below) }
    }

    fn shown(&self, below: &Path) -> String {
        format!("{}/{}", self.root.name, path::shown(below))
    }

    fn entry(&self, below: &Path, record: Record) -> FileEntry {
        entry(self.shown(below), record)
    }
}

/// A record as the catalog lists it.
pub(super) fn entry(path: String, record: Record) -> FileEntry {
    let Record { stamp: Stamp { size, modified_s, .. }, content, tags } = record;
    FileEntry { path, content, size, modified_s, tags }
}

/// What a walk saw.
#[derive(Debug, Default)]
struct Seen {
    /// Hashes of the paths: 8 bytes a file, whatever the length of its path.
    paths: FxHashSet<u64>,
    /// Folders that could not be read; what is on record below them stays.
    unknown: Vec<Vec<u8>>,
}

impl Seen {
    fn covers(&self, path: &[u8]) -> bool {
        self.paths.contains(&hash_of(path))
            || self
                .unknown
                .iter()
                .any(|folder| path.strip_prefix(&folder[..]).is_some_and(|rest| rest.starts_with(b"/")))
    }
}

fn hash_of(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Lowers a counter, never below 0: a cancelled pass resets it under its workers.
fn lower(counter: &AtomicU64, by: u64) {
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_sub(by)));
}

/// True if a root is there and can be listed. An empty folder on another device than before is the place
/// where something is mounted, without it.
pub(super) fn is_present(root: &Path, device: Option<u64>) -> bool {
    let Ok(mut entries) = fs::read_dir(root) else { return false };
    match device {
        Some(device) if device_of(root) != Some(device) => entries.next().is_some(),
        _ => true,
    }
}

/// The device that a path lies on.
pub(super) fn device_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata).device)
}
