//! The task of the shares: decides what is looked at next, and when the catalog is published.
//!
//! Everything that touches a share's folder runs on threads of its own (`run`), because a network drive that does not
//! answer holds whoever asks it. Such a share counts as missing; the others go on. Shares on one disk are looked at
//! one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use overlay::{config::Origin, limits};
use tokio::{
    sync::mpsc,
    task,
    time::{self, Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Command, Share, ShareSpec, SharesConfig, SharesError,
    roots::absolute,
    run::{self, Finished, Outcome},
    state::{Below, Missing, Shared, State, blocking},
};
use crate::store::{
    SkipReason, StoreError,
    pass::{PassRoot, Progress},
    path,
    record::Root,
    scan,
    watch::Changes,
};

/// Shortest time between two published catalogs.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// Files for each second between two published catalogs: a list of a million files changes every 50 s.
const FILES_PER_PUBLISH_SECOND: u64 = 20_000;
/// Time in which changes gather before they are published after a pause.
const GATHER: Duration = Duration::from_millis(100);
/// Time until a file that was written while it was hashed is tried again; doubles with each attempt in vain.
const RETRY_CHANGED: Duration = Duration::from_secs(5);
/// Doublings of [`RETRY_CHANGED`]: a file that is always being written is read every 11 minutes.
const RETRY_DOUBLINGS: u32 = 7;
/// Time between two looks at a missing share.
const RETRY_MISSING: Duration = Duration::from_secs(30);
/// Time between two measurements of the hashing rate.
const MEASURE: Duration = Duration::from_secs(1);
/// Measurements between two lines of the log about a scan that takes long.
const TELL_EVERY: u32 = 15;
/// Time without any progress after which a pass counts as stuck on a drive that does not answer. Chosen: a disk that
/// has to spin up, or reads a bad block, takes less.
const STUCK: Duration = Duration::from_mins(1);
/// Time for which the files of a share stay listed whose drive is not there or does not answer. Chosen: a network
/// drive that is remounted, or a disk that was pulled by mistake.
const MISSING_GRACE: Duration = Duration::from_mins(5);
/// Time in which cancelled passes end. Those that do not are stuck.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Time for a folder that is to be shared to answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// The task.
pub(super) struct Driver {
    config: SharesConfig,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    running: BTreeMap<u32, Running>,
    outcomes: (mpsc::Sender<Finished>, mpsc::Receiver<Finished>),
    /// Files that were changed while they were hashed, by when they are tried again.
    retries: BTreeMap<Instant, Vec<Below>>,
    /// How often each was tried in vain.
    attempts: BTreeMap<Below, u32>,
    published_at: Option<Instant>,
    measurements: u32,
}

struct Running {
    parts: Vec<PathBuf>,
    cancel: CancellationToken,
    /// Set once nothing that the pass finds counts any more.
    void: Arc<AtomicBool>,
    progress: Arc<Progress>,
    /// Its progress when it was last seen to go on, and when that was.
    seen: (u64, Instant),
}

impl Driver {
    /// A task that looks after the folders that [`Shared::reconcile`] took in.
    pub(super) fn new(config: SharesConfig, shared: Arc<Shared>, cancel: CancellationToken) -> Self {
        Self {
            config,
            shared,
            cancel,
            running: BTreeMap::new(),
            outcomes: mpsc::channel(limits::PASSES),
            retries: BTreeMap::new(),
            attempts: BTreeMap::new(),
            published_at: None,
            measurements: 0,
        }
    }

    /// Runs until it is cancelled, or the last handle is gone; then saves.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut rescanned = Instant::now();
        let mut missing = Instant::now() + RETRY_MISSING;
        let mut measure = Instant::now() + MEASURE;
        let mut publish: Option<Instant> = None;
        let (cancel, shared) = (self.cancel.clone(), self.shared.clone());
        self.settle_downloads();
        loop {
            self.start_passes();
            let retry = self.retries.keys().next().copied();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(outcome) = self.outcomes.1.recv() => self.finish_pass(outcome),
                () = at(publish) => {
                    publish = None;
                    self.publish().await;
                }
                command = inbox.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => break,
                },
                () = shared.changed.notified(), if publish.is_none() => publish = Some(self.next_publish()),
                changes = shared.watch.next() => self.note(changes),
                () = at(retry) => self.retry(),
                () = at(rescanned.checked_add(self.config.rescan_interval)) => {
                    rescanned = Instant::now();
                    self.mark_all(|_| true);
                }
                () = time::sleep_until(missing) => {
                    missing = Instant::now() + RETRY_MISSING;
                    self.mark_all(|state| state.missing.is_some());
                }
                () = time::sleep_until(measure) => {
                    measure = Instant::now() + MEASURE;
                    self.measure();
                    self.look_for_stuck();
                }
            }
        }
        self.stop_passes(|_| true).await;
        self.publish().await;
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Add(spec, reply) => {
                let _ = reply.send(self.add(spec).await);
            }
            Command::Remove(share, reply) => {
                let _ = reply.send(self.remove(&share).await);
            }
            Command::Rescan(reply) => {
                self.mark_all(|_| true);
                let _ = reply.send(());
            }
            Command::Look(root, below) => {
                if let Some(state) = self.shared.states().get_mut(&root) {
                    state.mark(below);
                }
            }
            Command::Configure(config, reply) => {
                let _ = reply.send(self.configure(config).await);
            }
        }
    }

    async fn add(&mut self, spec: ShareSpec) -> Result<Share, SharesError> {
        let folder = absolute(&spec.path);
        let looked_at = folder.clone();
        let look = task::spawn_blocking(move || fs::read_dir(&looked_at).map(drop).map_err(|error| error.to_string()));
        let answer = time::timeout(LOOK_PATIENCE, look).await;
        if let Err(why) = answer.unwrap_or_else(|_| Ok(Err("it does not answer".to_owned()))).unwrap_or(Ok(())) {
            return Err(SharesError::NoFolder { path: folder, why });
        }
        let (shared, origin) = (self.shared.clone(), spec.origin);
        self.config.shares.push(ShareSpec { path: folder.clone(), origin });
        let add = move || {
            let existing =
                shared.states().iter().find(|(_, state)| state.path == folder).map(|(id, state)| (*id, state.origin));
            match existing {
                Some((id, Some(_))) => return Ok(id),
                // The download folder becomes a share.
                Some((id, None)) => shared.forget(id),
                None => {}
            }
            shared.open_root(&folder, Some(origin))
        };
        let id = blocking(add).await?;
        self.settle_downloads();
        let states = self.shared.states();
        let mut share = states.get(&id).map(State::share).ok_or(SharesError::Stopped)?;
        share.count(&self.shared.catalog.load());
        Ok(share)
    }

    async fn remove(&mut self, share: &str) -> Result<Share, SharesError> {
        let folder = absolute(Path::new(share));
        let found = {
            let states = self.shared.states();
            let mut shares = states.iter().filter(|(_, state)| state.origin.is_some());
            shares
                .find(|(_, state)| state.name == share || state.path == folder)
                .map(|(id, state)| (*id, state.path.clone(), state.share()))
        };
        let Some((id, path, mut shown)) = found else { return Err(SharesError::Unknown { share: share.to_owned() }) };
        shown.count(&self.shared.catalog.load());
        if shown.origin != Origin::Settings {
            return Err(SharesError::Conflict { share: shown.name, origin: shown.origin });
        }
        self.stop_passes(|root| root == id).await;
        if let Some(stuck) = self.running.get(&id) {
            stuck.void.store(true, Ordering::Relaxed);
        }
        self.config.shares.retain(|spec| absolute(&spec.path) != path);
        let root = PassRoot { id, name: shown.name.clone(), path: path.clone(), exclude: scan::exclude(&path, &[]).0 };
        let (shared, config) = (self.shared.clone(), self.config.clone());
        let forget = move || {
            shared.forget(id);
            // It may be the download folder as well.
            shared.reconcile(&config)
        };
        blocking(forget).await?;
        self.settle_downloads();
        // A million records take a while, and nobody waits for it. What an end of the program leaves of them is found
        // again if the folder is shared again.
        let shared = self.shared.clone();
        task::spawn_blocking(move || {
            if let Err(error) = shared.drop_records(&root) {
                tracing::warn!(%error, "records of a removed share stay in the database");
            }
        });
        Ok(shown)
    }

    async fn configure(&mut self, config: SharesConfig) -> Result<(), SharesError> {
        let rules_changed = config.exclude != self.config.exclude;
        self.stop_passes(|_| true).await;
        self.config = config;
        let (shared, config) = (self.shared.clone(), self.config.clone());
        blocking(move || shared.reconcile(&config)).await?;
        self.settle_downloads();
        if rules_changed {
            self.mark_all(|_| true);
        }
        Ok(())
    }

    /// Brings the unlisted files in line with shares and records. Nobody waits for it.
    fn settle_downloads(&self) {
        let shared = self.shared.clone();
        task::spawn_blocking(move || {
            if let Err(error) = shared.settle_downloads() {
                tracing::warn!(%error, "finished downloads that were removed are still on record");
            }
        });
    }

    fn mark_all(&self, choose: impl Fn(&State) -> bool) {
        for state in self.shared.states().values_mut().filter(|state| choose(state)) {
            state.mark(PathBuf::new());
        }
        self.shared.tell();
    }

    /// Notes what the watch told.
    fn note(&self, changes: Changes) {
        let paths = match changes {
            Changes::None => return,
            Changes::Everything => return self.mark_all(|_| true),
            Changes::Paths(paths) => paths,
        };
        let mut states = self.shared.states();
        for path in paths {
            for state in states.values_mut().filter(|state| state.origin.is_some()) {
                let Some(below) = state.real.as_ref().and_then(|real| path.strip_prefix(real).ok()) else { continue };
                if scan::is_ignore_file(below) {
                    state.mark(below.parent().map(Path::to_owned).unwrap_or_default());
                } else if !below.components().any(|part| scan::is_hidden(part.as_os_str())) {
                    state.mark(below.to_owned());
                }
            }
        }
        drop(states);
        self.shared.tell();
    }

    fn retry(&mut self) {
        let Some((_, paths)) = self.retries.pop_first() else { return };
        let mut states = self.shared.states();
        for (root, below) in paths {
            if let Some(state) = states.get_mut(&root) {
                state.mark(below);
            }
        }
    }

    /// Starts passes over what is to be looked at, one for each share.
    fn start_passes(&mut self) {
        let mut states = self.shared.states();
        for (id, state) in states.iter_mut().filter(|(_, state)| !state.dirty.is_empty()) {
            if self.running.len() >= limits::PASSES {
                break;
            }
            if self.running.contains_key(id) {
                continue;
            }
            let (cancel, void) = (self.cancel.child_token(), Arc::new(AtomicBool::new(false)));
            let work = run::Work {
                shared: self.shared.clone(),
                root: *id,
                name: state.name.clone(),
                path: state.path.clone(),
                device: state.device,
                is_share: state.origin.is_some(),
                parts: state.take_dirty(),
                patterns: self.config.exclude.clone(),
                threads: self.config.hash_threads,
                progress: state.progress.clone(),
                cancel: cancel.clone(),
                void: void.clone(),
            };
            let (parts, progress) = (work.parts.clone(), state.progress.clone());
            state.running = true;
            let seen = (progress.beats.load(Ordering::Relaxed), Instant::now());
            self.running.insert(*id, Running { parts, cancel, void, progress, seen });
            run::start(work, self.outcomes.0.clone());
            self.shared.tell();
        }
    }

    fn finish_pass(&mut self, Finished { root, result }: Finished) {
        let Some(Running { parts, void, .. }) = self.running.remove(&root) else { return };
        let mut states = self.shared.states();
        let Some(state) = states.get_mut(&root).filter(|_| !void.load(Ordering::Relaxed)) else { return };
        state.running = false;
        state.rate = 0;
        // Then all of it is looked at again, when the disk may have recovered.
        let mut disk_failed = state.progress.disk_failed.swap(false, Ordering::Relaxed);
        match result {
            Ok(Outcome::Missing { is_gone }) => {
                if state.origin.is_some() && state.missing.is_none() {
                    state.missing = Some(Missing { since: Instant::now(), withdrawn: false });
                    if !is_gone {
                        tracing::warn!(
                            share = state.name,
                            "a share is missing; its files stay listed for some minutes"
                        );
                    }
                }
                if is_gone {
                    self.shared.withdraw(state);
                }
            }
            Ok(Outcome::Done { real, device, report }) => {
                let was_withdrawn = state.missing.take().is_some_and(|missing| missing.withdrawn);
                if was_withdrawn && !parts.iter().any(|part| part.as_os_str().is_empty()) {
                    state.mark(PathBuf::new());
                }
                state.real = Some(real);
                if report.cancelled {
                    for part in &parts {
                        state.mark(part.clone());
                    }
                }
                let changed = report.skipped.iter().filter(|(_, reason)| *reason == SkipReason::Changed);
                let changed: Vec<_> = changed.map(|(below, _)| (root, below.clone())).collect();
                plan_retries(&mut self.retries, &mut self.attempts, &parts, root, changed);
                state.take_report(&parts, report);
                if state.device != device {
                    state.device = device;
                    let row = Root { id: root, name: state.name.clone(), device };
                    let (shared, key) = (self.shared.clone(), path::to_bytes(&state.path));
                    task::spawn_blocking(move || {
                        if let Err(error) = shared.database.put_root(&key, &row) {
                            tracing::warn!(%error, "a share's device is not remembered");
                        }
                    });
                }
            }
            Err(StoreError::Share { path, error }) => {
                // It was there a moment ago: the next look tells.
                tracing::warn!(path = %path.display(), %error, "a share cannot be read");
                state.missing.get_or_insert_with(|| Missing { since: Instant::now(), withdrawn: false });
            }
            Err(error) => {
                tracing::warn!(%error, "a scan failed and is repeated soon");
                disk_failed = true;
            }
        }
        drop(states);
        if disk_failed {
            let parts = parts.into_iter().map(|part| (root, part));
            self.retries.entry(Instant::now() + limits::SCAN_RETRY).or_default().extend(parts);
        }
        self.shared.tell();
    }

    /// Cancels the passes of some roots and waits for their end, but not for those that are stuck.
    async fn stop_passes(&mut self, choose: impl Fn(u32) -> bool) {
        for (_, pass) in self.running.iter().filter(|(root, _)| choose(**root)) {
            pass.cancel.cancel();
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.running.keys().any(|root| choose(*root)) {
            let Ok(Some(outcome)) = timeout_at(deadline, self.outcomes.1.recv()).await else { return };
            self.finish_pass(outcome);
        }
    }

    /// Tells which passes stand still, and withdraws the files of shares that are missing for long.
    fn look_for_stuck(&mut self) {
        let now = Instant::now();
        let mut states = self.shared.states();
        for (root, pass) in &mut self.running {
            let Some(state) = states.get_mut(root) else { continue };
            let beats = pass.progress.beats.load(Ordering::Relaxed);
            let waits = pass.progress.waits.load(Ordering::Relaxed);
            if beats != pass.seen.0 || waits {
                pass.seen = (beats, now);
                if state.stuck {
                    tracing::info!(share = state.name, "a share answers again");
                    state.stuck = false;
                    if state.missing.take().is_some_and(|missing| missing.withdrawn) {
                        state.mark(PathBuf::new());
                    }
                }
            } else if now - pass.seen.1 >= STUCK && !state.stuck && state.origin.is_some() {
                tracing::warn!(share = state.name, "the drive of a share does not answer");
                state.stuck = true;
                state.missing.get_or_insert(Missing { since: now, withdrawn: false });
            }
        }
        let late = |missing: Missing| now - missing.since >= MISSING_GRACE;
        for state in states.values_mut().filter(|state| state.missing.is_some_and(late)) {
            self.shared.withdraw(state);
        }
    }

    fn next_publish(&self) -> Instant {
        let files = self.shared.working().files();
        let pause = PUBLISH_EVERY.max(Duration::from_millis(files * 1000 / FILES_PER_PUBLISH_SECOND));
        let soon = Instant::now() + GATHER;
        self.published_at.map_or(soon, |last| soon.max(last + pause))
    }

    /// Saves the catalog, then shows it. In this order a home never knows a list that a crash makes us forget.
    async fn publish(&mut self) {
        let catalog = self.shared.working().clone();
        if catalog.sequence() == self.shared.catalog.load().sequence() {
            return;
        }
        let (shared, saved) = (self.shared.clone(), catalog.clone());
        if let Err(error) = blocking(move || Ok(shared.database.save_catalog(&saved)?)).await {
            tracing::warn!(%error, "the file list is not saved; after a restart it is made anew");
        }
        let sequence = catalog.sequence();
        self.shared.catalog.store(Arc::new(catalog));
        self.shared.published.send_replace(sequence);
        self.published_at = Some(Instant::now());
        self.shared.tell();
    }

    fn measure(&mut self) {
        self.measurements = self.measurements.wrapping_add(1);
        let tells = self.measurements.is_multiple_of(TELL_EVERY);
        let mut moved = false;
        for state in self.shared.states().values_mut() {
            let hashed = state.progress.hashed_bytes.load(Ordering::Relaxed);
            let last = hashed.saturating_sub(std::mem::replace(&mut state.measured, hashed));
            if state.running {
                state.rate = u64::midpoint(state.rate, last);
                moved = true;
            }
            if let (true, (files_left @ 1.., bytes_left)) = (tells, state.progress.pending()) {
                tracing::info!(share = state.name, files_left, bytes_left, bytes_a_second = state.rate, "hashing");
            }
        }
        if moved {
            self.shared.tell();
        }
    }
}

/// Plans when files are tried again that were written while they were hashed.
fn plan_retries(
    retries: &mut BTreeMap<Instant, Vec<Below>>,
    attempts: &mut BTreeMap<Below, u32>,
    parts: &[PathBuf],
    root: u32,
    changed: Vec<Below>,
) {
    let still: BTreeSet<&Below> = changed.iter().collect();
    let looked_at = |file: &Below| file.0 == root && parts.iter().any(|part| file.1.starts_with(part));
    attempts.retain(|file, _| !looked_at(file) || still.contains(file));
    for file in changed {
        // Without a count it is tried as if it were the first time.
        let attempt = attempts.get(&file).copied().unwrap_or(0);
        if attempt > 0 || attempts.len() < limits::DIRTY_PATHS {
            attempts.insert(file.clone(), (attempt + 1).min(RETRY_DOUBLINGS));
        }
        retries.entry(Instant::now() + RETRY_CHANGED * 2u32.pow(attempt)).or_default().push(file);
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
