//! One pass over a share, or over a part of it: walk, compare, hash, record.
//!
//! The walk compares each file's stamp with what is on record (`known`). What is as it was costs a look into memory;
//! what was only moved is recognised by its inode; the rest goes through a bounded queue to the hashing threads, small
//! files several at a time. One collector writes records in batches and hands the changes to the catalog, so what is
//! hashed becomes searchable while the pass goes on. Last, after all hashing, records whose files were not seen are removed:
//! in this order a moved file is never hashed again.
//!
//! The walk waits while the queue is full, so memory does not grow with the share. A second walk that only counts
//! then runs ahead, so that the user knows how much is left.
//!
//! Measured on 20,000 files of 8 KiB in the system's cache (`bench/src/bin/scan.rs`): 18 microseconds on cores for each,
//! where a plain read takes 5.5 and `b3sum` 12. An eighth of it is looking at the file in the walk and after it was
//! read, a seventh reading, a thirteenth opening and closing, a seventh the BLAKE3, a seventh the records and their
//! way to the disk; the rest is paths, comparison with what is known, and the file list.
//!
//! A pass may be cancelled at any time. What was committed stays, and the next pass hashes only the rest.
//! Hashing threads give way to everything else that this machine does ([`give_way`]).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use ignore::gitignore::Gitignore;
use overlay::{
    drive::{Clock, guarded},
    file::FileEntry,
    limits,
    metrics::Task,
    time::Time,
};
use tokio_util::sync::CancellationToken;

use super::{
    StoreError,
    database::{Database, Records},
    hash::{Hands, Hashing, Large, Outboards},
    known::{OnRecord, Seen},
    path,
    record::{Place, Record, Stamp},
    scan::{Found, SkipReason, Step, Walk},
    watch::{Coverage, Follower},
};
use crate::{
    catalog::{Catalog, Change},
    metrics::HASHED_BYTES,
};

/// Shortest time that hashed files gather before they are committed.
const COMMIT_AFTER: Duration = Duration::from_millis(500);
/// Longest time that a hashed file waits for its commit. Chosen: what a crash makes us hash again.
const COMMIT_AFTER_MAX: Duration = Duration::from_secs(10);
/// Small files that one thread hashes at a time: handing them over one by one took a tenth of the processor time.
const BATCH_FILES: usize = 32;
/// Bytes of them, at most, but for one file.
const BATCH_BYTES: u64 = 1 << 20;
/// Longest time that a hashed file waits for the others of its batch: on a slow drive, records come one by one.
const BATCH_PATIENCE: Duration = Duration::from_millis(100);
/// Time until a second walk counts how much is left: it costs as much as the first, and nobody asks before.
const COUNT_AFTER: Duration = Duration::from_secs(2);
/// How much longer than the last commit took files gather for the next, so that commits take a tenth of the time.
const COMMIT_SHARE: u32 = 9;

/// What a pass tells while it runs.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Files found that must be hashed.
    queued_files: AtomicU64,
    /// Their bytes.
    queued_bytes: AtomicU64,
    /// Files that the walk has judged.
    walked_files: AtomicU64,
    /// Their bytes.
    walked_bytes: AtomicU64,
    /// Files that the counting walk has seen.
    counted_files: AtomicU64,
    /// Their bytes.
    counted_bytes: AtomicU64,
    /// Bytes hashed since the start of the program.
    pub(super) hashed_bytes: AtomicU64,
    /// Files hashed since the start of the program.
    pub(super) hashed_files: AtomicU64,
    /// True until one of the walks has seen everything.
    pub(super) walking: AtomicBool,
    /// True once this pass found something to hash.
    pub(super) hashing: AtomicBool,
    /// Rises with everything that is done: one that stands still is stuck.
    pub(super) beats: AtomicU64,
    /// True while it does something that may take long: standing still means nothing then.
    pub(super) waits: AtomicBool,
    /// True once piece values could not be stored: the pass is worth repeating.
    pub(super) disk_failed: AtomicBool,
}

impl Progress {
    /// Files that wait to be hashed, and their bytes. What the counting walk saw ahead of the other counts whole,
    /// though some of it may turn out to be on record.
    pub(super) fn pending(&self) -> (u64, u64) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let files = get(&self.counted_files).saturating_sub(get(&self.walked_files));
        let bytes = get(&self.counted_bytes).saturating_sub(get(&self.walked_bytes));
        match get(&self.queued_files) + files {
            // Of a file that was given up, not all bytes were read.
            0 => (0, 0),
            files => (files, get(&self.queued_bytes) + bytes),
        }
    }

    /// True once all is found, if some of it has to be hashed.
    pub(super) fn is_hashing(&self) -> bool {
        self.hashing.load(Ordering::Relaxed) && !self.walking.load(Ordering::Relaxed)
    }

    fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of a file were hashed.
    fn read(&self, bytes: u64) {
        self.beat();
        self.hashed_bytes.fetch_add(bytes, Ordering::Relaxed);
        lower(&self.queued_bytes, bytes);
        HASHED_BYTES.add((), bytes);
    }

    /// Nothing is under way.
    fn clear(&self) {
        let counters = [
            &self.queued_files,
            &self.queued_bytes,
            &self.walked_files,
            &self.walked_bytes,
            &self.counted_files,
            &self.counted_bytes,
        ];
        for counter in counters {
            counter.store(0, Ordering::Relaxed);
        }
        self.hashing.store(false, Ordering::Relaxed);
    }
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
    /// How much of what was walked is watched now.
    pub(super) coverage: Coverage,
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
    /// Watches what the walk enters.
    pub(super) follower: Option<&'a Follower<'a>>,
    /// The file list that the changes go to.
    pub(super) list: &'a Mutex<Catalog>,
    /// Takes the changes of the catalog.
    pub(super) publish: &'a (dyn Fn(Vec<Change>) + Sync),
}

/// Work for the hashing threads.
enum Job {
    /// Files for one thread.
    Small(Vec<Found>),
    /// A file for all of them; each gets this once.
    Together(Arc<Large>),
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
        self.progress.clear();
        self.progress.walking.store(true, Ordering::Relaxed);
        let (jobs, queue) = sync_channel::<Job>(limits::HASH_QUEUE / BATCH_FILES);
        let (messages, inbox) = sync_channel::<Vec<Message>>(limits::HASHED_QUEUE / BATCH_FILES);
        let queue = &Mutex::new(queue);
        let (ended, broken) = (&AtomicBool::new(false), &AtomicBool::new(false));
        let (walked, collected) = thread::scope(|scope| {
            let collector = scope.spawn(move || self.collect(inbox));
            for _ in 0..self.threads.max(1) {
                let messages = messages.clone();
                scope.spawn(move || {
                    if guarded(Task::Hash, || self.hash_all(queue, messages)).is_none() {
                        broken.store(true, Ordering::Relaxed);
                        // The walk never waits for a thread that is gone.
                        drain(queue);
                    }
                });
            }
            let (mut counting, clock) = (false, Clock::new());
            let mut count_ahead = || {
                if !counting && clock.now() >= Time::ZERO + COUNT_AFTER {
                    counting = true;
                    scope.spawn(move || self.count(parts, ended));
                }
            };
            let feed = Feed { jobs, messages, small: Vec::new(), small_bytes: 0, is_full: &mut count_ahead };
            let walked = self.walk(parts, feed);
            ended.store(true, Ordering::Relaxed);
            self.progress.walking.store(false, Ordering::Relaxed);
            (walked, collector.join())
        });
        // Whatever ended the pass, nothing waits any more.
        self.progress.clear();
        if broken.load(Ordering::Relaxed) {
            return Err(StoreError::Panicked);
        }
        let (mut report, on_record) = walked?;
        for (below, reason) in collected.map_err(|_| StoreError::Panicked)?? {
            report.skip(below, reason);
        }
        report.cancelled = self.cancel.is_cancelled();
        report.coverage = self.follower.map_or(Coverage::Nothing, Follower::coverage);
        if !report.cancelled && !on_record.is_empty() {
            for part in parts {
                self.remove_where(&path::to_bytes(part), |below, record| on_record.is_left(below, &record.stamp))?;
            }
        }
        Ok(report)
    }

    /// Removes the records whose files are not as they were, without looking for others.
    pub(super) fn prune(&self) -> Result<(), StoreError> {
        self.remove_where(&[], |below, record| {
            let now = fs::metadata(self.root.path.join(path::from_bytes(below)));
            now.map_or(true, |now| Stamp::of(&now) != record.stamp)
        })
    }

    /// Walks the parts; returns what was skipped, and what is on record and was not seen.
    fn walk(&self, parts: &[PathBuf], mut feed: Feed<'_>) -> Result<(Report, OnRecord), StoreError> {
        let mut report = Report::default();
        let mut known = Known { database: self.database, records: None, uses: 0 };
        let mut on_record = self.on_record(parts)?;
        for part in parts {
            let mut walk = self.start_walk(part, self.follower)?;
            for step in &mut walk {
                self.progress.beat();
                if self.cancel.is_cancelled() {
                    return Ok((report, on_record));
                }
                match step {
                    Step::Skipped(below, reason) => report.skip(below, reason),
                    Step::File(found) => {
                        let size = found.stamp.size;
                        match on_record.settle(&found.below, &found.stamp) {
                            Seen::Listed => {}
                            seen => self.compare(found, seen, &mut known, &mut feed)?,
                        }
                        self.progress.walked_files.fetch_add(1, Ordering::Relaxed);
                        self.progress.walked_bytes.fetch_add(size, Ordering::Relaxed);
                    }
                }
            }
            walk.unknown().iter().for_each(|below| on_record.keep_below(below));
        }
        send_small(&mut known, &mut feed);
        Ok((report, on_record))
    }

    /// What is on record of the parts. What is listed without a record leaves the list.
    fn on_record(&self, parts: &[PathBuf]) -> Result<OnRecord, StoreError> {
        let (mut on_record, mut unrecorded) = (OnRecord::default(), Vec::new());
        let goes_on = || {
            self.progress.beat();
            !self.cancel.is_cancelled()
        };
        let records = self.database.records()?;
        // Not for longer than this takes: chunks that change meanwhile would stay in memory.
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for part in parts {
            on_record.load((&records, &list), self.root, &path::to_bytes(part), goes_on, |path| {
                unrecorded.push(Change::Remove(path));
                if unrecorded.len() >= limits::CHUNK_FILES {
                    (self.publish)(std::mem::take(&mut unrecorded));
                }
            })?;
        }
        if !unrecorded.is_empty() {
            (self.publish)(unrecorded);
        }
        Ok(on_record)
    }

    fn start_walk<'b>(&'b self, part: &Path, follower: Option<&'b Follower<'b>>) -> Result<Walk<'b>, StoreError> {
        Walk::new(&self.root.path, &self.root.name, &self.root.exclude, follower, part)
            .map_err(|error| StoreError::Share { path: self.root.path.clone(), error })
    }

    /// Counts what there is, until the other walk has ended. What it cannot read, the other one reports.
    fn count(&self, parts: &[PathBuf], ended: &AtomicBool) {
        give_way();
        for part in parts {
            let Ok(walk) = self.start_walk(part, None) else { continue };
            for step in walk {
                if ended.load(Ordering::Relaxed) || self.cancel.is_cancelled() {
                    return;
                }
                if let Step::File(found) = step {
                    self.progress.counted_files.fetch_add(1, Ordering::Relaxed);
                    self.progress.counted_bytes.fetch_add(found.stamp.size, Ordering::Relaxed);
                }
            }
        }
        self.progress.walking.store(false, Ordering::Relaxed);
    }

    /// Sends a file the shortest way: to the collector, or to be hashed. A closed channel means that the
    /// other end failed, and that its error is the pass's.
    fn compare(&self, found: Found, seen: Seen, known: &mut Known<'_>, feed: &mut Feed<'_>) -> Result<(), StoreError> {
        let records = known.records()?;
        if seen == Seen::Unlisted
            && let Some(record) = records.record(&self.place(&found.below))?
            && record.stamp == found.stamp
        {
            let _ = feed.messages.send(vec![Message::Known(self.entry(&found.below, record))]);
            return Ok(());
        }
        if let Some(record) = records.of_stamp(&found.stamp)? {
            let _ = feed.messages.send(vec![Message::Put(found.below, record)]);
            return Ok(());
        }
        self.progress.hashing.store(true, Ordering::Relaxed);
        self.progress.queued_files.fetch_add(1, Ordering::Relaxed);
        self.progress.queued_bytes.fetch_add(found.stamp.size, Ordering::Relaxed);
        if Large::is_large(found.stamp.size) {
            send_small(known, feed);
            let large = Arc::new(Large::new(found.below, found.stamp));
            for _ in 0..self.threads.max(1) {
                send_job(Job::Together(large.clone()), known, feed);
            }
        } else {
            feed.small_bytes += found.stamp.size;
            feed.small.push(found);
            if feed.small.len() >= BATCH_FILES || feed.small_bytes >= BATCH_BYTES {
                send_small(known, feed);
            }
        }
        Ok(())
    }

    /// One hashing thread.
    fn hash_all(&self, queue: &Mutex<Receiver<Job>>, messages: SyncSender<Vec<Message>>) {
        give_way();
        let read = |bytes| self.progress.read(bytes);
        let mut hands = Hands::new(self.outboards, self.cancel, &read);
        let clock = Clock::new();
        loop {
            // The lock is held while waiting, so the others wait for the lock: the order is the same.
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = next else { return };
            let (mut done, begun) = (Vec::new(), clock.now());
            let mut is_heard = true;
            match job {
                Job::Small(files) => {
                    for Found { below, stamp } in files {
                        let result = hands.hash(&self.root.path.join(&below), &stamp);
                        done.extend(self.judge(below, result));
                        if clock.now().since(begun) >= BATCH_PATIENCE && !done.is_empty() {
                            is_heard = messages.send(std::mem::take(&mut done)).is_ok();
                        }
                    }
                }
                Job::Together(large) => {
                    let result = hands.help(&self.root.path.join(&large.below), &large);
                    done.extend(result.and_then(|result| self.judge(large.below.clone(), result)));
                }
            }
            if !done.is_empty() {
                is_heard = messages.send(done).is_ok();
            }
            if !is_heard {
                // The collector failed: drain, so that the walk never waits.
                return drain(queue);
            }
        }
    }

    /// What the collector is told of a file; nothing of one that was cancelled: the rest of the queue is drained then,
    /// so that the walk never waits for it.
    fn judge(&self, below: PathBuf, result: io::Result<Hashing>) -> Option<Message> {
        let message = match result {
            Ok(Hashing::Done(record)) => {
                self.progress.hashed_files.fetch_add(1, Ordering::Relaxed);
                Message::Put(below, record)
            }
            Ok(Hashing::Skipped(why)) => Message::Gone(below, why),
            Ok(Hashing::Cancelled) => return None,
            // Without its outboard a file cannot be served.
            Err(error) => {
                self.progress.disk_failed.store(true, Ordering::Relaxed);
                tracing::warn!(%error, "piece values cannot be stored");
                Message::Gone(below, SkipReason::Unreadable)
            }
        };
        lower(&self.progress.queued_files, 1);
        self.progress.beat();
        Some(message)
    }

    /// Writes what the others found, until they are done. Returns what could not be hashed.
    fn collect(&self, inbox: Receiver<Vec<Message>>) -> Result<Vec<(PathBuf, SkipReason)>, StoreError> {
        let mut failed = Vec::new();
        let (mut known, mut puts, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let (clock, mut due, mut pause) = (Clock::new(), None::<Time>, COMMIT_AFTER);
        loop {
            let patience = due.map_or(COMMIT_AFTER_MAX, |due| due.since(clock.now()));
            let received = inbox.recv_timeout(patience);
            let end = matches!(received, Err(RecvTimeoutError::Disconnected));
            for message in received.into_iter().flatten() {
                match message {
                    Message::Known(entry) => known.push(Change::Upsert(entry)),
                    Message::Put(below, record) => puts.push((below, record)),
                    Message::Gone(below, reason) => {
                        gone.push(below.clone());
                        if failed.len() < limits::SKIPPED_LISTED {
                            failed.push((below, reason));
                        }
                    }
                }
            }
            let late = end || due.is_some_and(|due| due <= clock.now());
            if known.len() >= limits::CHUNK_FILES || (late && !known.is_empty()) {
                (self.publish)(std::mem::take(&mut known));
            }
            let waiting = puts.len() + gone.len();
            if waiting >= limits::COMMIT_FILES || (late && waiting > 0) {
                let began = clock.now();
                self.commit(std::mem::take(&mut puts), &std::mem::take(&mut gone))?;
                self.progress.beat();
                pause = (clock.now().since(began) * COMMIT_SHARE).clamp(COMMIT_AFTER, COMMIT_AFTER_MAX);
            }
            if end {
                return Ok(failed);
            }
            let waits = !known.is_empty() || !puts.is_empty() || !gone.is_empty();
            due = waits.then(|| due.filter(|_| !late).unwrap_or_else(|| clock.now() + pause));
        }
    }

    fn commit(&self, puts: Vec<(PathBuf, Record)>, gone: &[PathBuf]) -> Result<(), StoreError> {
        let records: Vec<_> = puts.iter().map(|(below, record)| (path::to_bytes(below), record)).collect();
        let removes: Vec<_> = gone.iter().map(|below| path::to_bytes(below)).collect();
        let orphans = self.database.update_files(self.root.id, &records, &removes)?;
        self.drop_outboards(orphans);
        let gone = gone.iter().map(|below| Change::Remove(self.shown(below)));
        let changes = puts.into_iter().map(|(below, record)| Change::Upsert(self.entry(&below, record))).chain(gone);
        (self.publish)(changes.collect());
        Ok(())
    }

    /// Removes the records at or below a path that `choose` chooses.
    pub(super) fn remove_where(&self, below: &[u8], choose: impl Fn(&[u8], &Record) -> bool) -> Result<(), StoreError> {
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

/// Where a walk sends what it finds.
struct Feed<'a> {
    jobs: SyncSender<Job>,
    messages: SyncSender<Vec<Message>>,
    /// Small files of the next job, and their bytes.
    small: Vec<Found>,
    small_bytes: u64,
    /// Called when a job has to wait.
    is_full: &'a mut dyn FnMut(),
}

/// The records as they were a moment ago: opening them for each file would take longer than the look-up.
struct Known<'a> {
    database: &'a Database,
    records: Option<Records>,
    uses: usize,
}

impl Known<'_> {
    /// Look-ups in one state of the database.
    const USES: usize = 1024;

    fn records(&mut self) -> Result<&Records, StoreError> {
        self.uses += 1;
        if self.uses.is_multiple_of(Self::USES) {
            self.records = None;
        }
        if self.records.is_none() {
            self.records = Some(self.database.records()?);
        }
        Ok(self.records.as_ref().expect("set above"))
    }
}

/// Takes jobs until there are no more, and does none of them.
fn drain(queue: &Mutex<Receiver<Job>>) {
    while queue.lock().unwrap_or_else(PoisonError::into_inner).recv().is_ok() {}
}

/// Hands on the small files that have gathered.
fn send_small(known: &mut Known<'_>, feed: &mut Feed<'_>) {
    feed.small_bytes = 0;
    let small = std::mem::take(&mut feed.small);
    if !small.is_empty() {
        send_job(Job::Small(small), known, feed);
    }
}

/// Hands a job on; waits while the queue is full.
fn send_job(job: Job, known: &mut Known<'_>, feed: &mut Feed<'_>) {
    if let Err(TrySendError::Full(job)) = feed.jobs.try_send(job) {
        // For as long as somebody looks at an old state, its place in the file is not used again.
        known.records = None;
        (feed.is_full)();
        let _ = feed.jobs.send(job);
    }
}

/// Lets the calling thread do its work in time that nobody else wants: the system also reads for it last.
#[cfg(target_os = "linux")]
pub fn give_way() {
    /// Between the usual 0 and the lowest 19, which would starve beside any other background work.
    const NICE: i32 = 10;
    // A system that does not know it hashes at full speed.
    let _ = rustix::process::nice(NICE);
}

/// Lets the calling thread do its work in time that nobody else wants, where the system knows that of threads.
#[cfg(not(target_os = "linux"))]
pub fn give_way() {}

/// Lowers a counter, never below 0: a cancelled pass resets it under its workers.
fn lower(counter: &AtomicU64, by: u64) {
    let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_sub(by)));
}

/// Whether a share's folder is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It can be listed.
    Here,
    /// It was removed: the disk that it lay on is there, without it.
    Gone,
    /// It cannot be listed, and what it lies on may be the reason: not mounted, not connected.
    Away,
}

/// Looks for a share's folder, which lay on `device` when it was last seen. An empty folder on another device is the
/// place where something is mounted, without it.
pub(super) fn presence(folder: &Path, device: Option<u64>) -> Presence {
    let mut entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            let above = folder.parent().and_then(device_of);
            let on_its_disk = device.is_none_or(|device| above == Some(device));
            return if on_its_disk { Presence::Gone } else { Presence::Away };
        }
        Err(_) => return Presence::Away,
    };
    match device {
        Some(device) if device_of(folder) != Some(device) && entries.next().is_none() => Presence::Away,
        _ => Presence::Here,
    }
}

/// The device that a path lies on.
pub(super) fn device_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata).device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_counting_walk_saw_ahead_is_pending() {
        let progress = Progress::default();
        progress.queued_files.store(2, Ordering::Relaxed);
        progress.queued_bytes.store(20, Ordering::Relaxed);
        progress.walked_files.store(5, Ordering::Relaxed);
        progress.walked_bytes.store(50, Ordering::Relaxed);
        assert_eq!(progress.pending(), (2, 20), "nothing was counted");
        progress.counted_files.store(9, Ordering::Relaxed);
        progress.counted_bytes.store(80, Ordering::Relaxed);
        assert_eq!(progress.pending(), (6, 50));
        progress.read(15);
        assert_eq!((progress.pending(), progress.hashed_bytes.load(Ordering::Relaxed)), ((6, 35), 15));
        progress.clear();
        progress.queued_bytes.store(7, Ordering::Relaxed);
        assert_eq!(progress.pending(), (0, 0), "the rest of a file that was given up");
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_gone_only_if_its_disk_is_there() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("share");
        let device = device_of(above.path());
        let other = device.map(|device| device + 1);
        assert_eq!(
            [None, device, other].map(|was| presence(&folder, was)),
            [Presence::Gone, Presence::Gone, Presence::Away]
        );
        fs::create_dir(&folder).unwrap();
        // Empty, where something else was mounted.
        assert_eq!(
            [None, device, other].map(|was| presence(&folder, was)),
            [Presence::Here, Presence::Here, Presence::Away]
        );
        fs::write(folder.join("file"), "x").unwrap();
        assert_eq!(presence(&folder, other), Presence::Here, "the files were moved to another disk");
    }
}
