//! The task of the shares: decides what is looked at next, and when the catalog is published.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use overlay::{
    config::Origin,
    drive::{Clock, wall_clock_s},
    time::Time,
};
use tokio::{
    sync::mpsc,
    task::{self, JoinHandle},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Command, Share, ShareSpec, SharesConfig, SharesError,
    state::{Below, Shared, State, blocking},
};
use crate::{
    catalog::Change,
    metrics::{SCAN_DURATION, SCAN_LAST_SUCCESS},
    store::{
        SkipReason, StoreError,
        database::Root,
        pass::{self, PassRoot, Progress, Report},
        path, scan,
        watch::{Changes, Watch},
    },
};

/// Shortest time between two published catalogs.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// Files for each second between two published catalogs: a list of a million files changes every 50 s.
const FILES_PER_PUBLISH_SECOND: u64 = 20_000;
/// Time in which changes gather before they are published after a pause.
const GATHER: Duration = Duration::from_millis(100);
/// Time until a file that was written while it was hashed is tried again.
const RETRY_CHANGED: Duration = Duration::from_secs(5);
/// Time between two looks at a missing share.
const RETRY_MISSING: Duration = Duration::from_secs(30);
/// Time between two measurements of the hashing rate.
const MEASURE: Duration = Duration::from_secs(1);

/// The task.
pub(super) struct Driver {
    config: SharesConfig,
    shared: Arc<Shared>,
    watch: Watch,
    cancel: CancellationToken,
    running: Option<Running>,
    /// Files that were changed while they were hashed, by when they are tried again.
    retries: BTreeMap<Instant, Vec<Below>>,
    published_at: Option<Instant>,
}

struct Running {
    root: u32,
    parts: Vec<PathBuf>,
    cancel: CancellationToken,
    work: JoinHandle<Result<Outcome, StoreError>>,
}

/// How a pass ended.
enum Outcome {
    Missing,
    Done { real: PathBuf, device: Option<u64>, report: Report },
}

impl Driver {
    /// A task that looks after nothing yet: [`Self::reconcile`] takes the folders in.
    pub(super) fn new(config: SharesConfig, shared: Arc<Shared>, cancel: CancellationToken) -> Self {
        let (watch, retries) = (Watch::new(), BTreeMap::new());
        Self { config, shared, watch, cancel, running: None, retries, published_at: None }
    }

    /// Runs until it is cancelled, or the last handle is gone; then saves.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut rescanned = Instant::now();
        let mut missing = Instant::now() + RETRY_MISSING;
        let mut measure = Instant::now() + MEASURE;
        let mut publish: Option<Instant> = None;
        let cancel = self.cancel.clone();
        loop {
            self.start_pass();
            let retry = self.retries.keys().next().copied();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                outcome = finished(&mut self.running) => self.finish_pass(outcome),
                () = at(publish) => {
                    publish = None;
                    self.publish().await;
                }
                command = inbox.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => break,
                },
                () = self.shared.changed.notified(), if publish.is_none() => publish = Some(self.next_publish()),
                changes = self.watch.next() => self.note(changes),
                () = at(retry) => self.retry(),
                () = at(rescanned.checked_add(self.config.rescan_interval)) => {
                    rescanned = Instant::now();
                    self.mark_all(|_| true);
                }
                () = time::sleep_until(missing) => {
                    missing = Instant::now() + RETRY_MISSING;
                    self.mark_all(|state| state.missing);
                }
                () = time::sleep_until(measure) => {
                    measure = Instant::now() + MEASURE;
                    self.measure();
                }
            }
        }
        self.stop_pass().await;
        self.publish().await;
    }

    /// Makes the list of folders what the configuration says.
    pub(super) fn reconcile(&mut self) -> Result<(), StoreError> {
        let mut wanted: Vec<(PathBuf, Option<Origin>)> = Vec::new();
        let downloads = self.config.share_downloads.then_some(Origin::Default);
        let specs = self.config.shares.iter().map(|spec| (spec.path.clone(), Some(spec.origin)));
        for (folder, origin) in specs.chain([(self.config.downloads.clone(), downloads)]) {
            let folder = absolute(&folder);
            if !wanted.iter().any(|(other, _)| *other == folder) {
                wanted.push((folder, origin));
            }
        }
        let unwanted = |state: &State| {
            let same = wanted.iter().find(|(folder, _)| *folder == state.path);
            same.is_none_or(|(_, origin)| origin.is_some() != state.origin.is_some())
        };
        let gone: Vec<u32> =
            self.shared.states().iter().filter(|(_, state)| unwanted(state)).map(|(id, _)| *id).collect();
        for id in gone {
            self.forget(id);
        }
        for (folder, origin) in wanted {
            self.open_root(&folder, origin)?;
        }
        self.drop_unknown_names();
        Ok(())
    }

    /// Takes a folder into the list, if it is not there. Returns its id.
    fn open_root(&mut self, folder: &Path, origin: Option<Origin>) -> Result<u32, StoreError> {
        if let Some((id, state)) = self.shared.states().iter_mut().find(|(_, state)| state.path == folder) {
            state.origin = origin;
            return Ok(*id);
        }
        let key = path::to_bytes(folder);
        let roots = self.shared.database.roots()?;
        let known = roots.iter().find(|(path, _)| *path == key).map(|(_, root)| root.clone());
        let id = known.as_ref().map_or_else(|| roots.iter().map(|(_, root)| root.id + 1).max().unwrap_or(0), |r| r.id);
        let device = known.as_ref().and_then(|root| root.device);
        let wish = known.map_or_else(|| share_name(folder), |root| root.name);
        let name = self.free_name(&wish, folder, origin);
        self.shared.database.put_root(&key, &Root { id, name: name.clone(), device })?;
        let state = State {
            name,
            path: folder.to_owned(),
            real: None,
            device,
            origin,
            missing: false,
            dirty: BTreeSet::from([PathBuf::new()]),
            running: false,
            progress: Arc::default(),
            rate: 0,
            measured: 0,
            skipped: BTreeMap::new(),
            more_skipped: 0,
        };
        self.shared.states().insert(id, state);
        self.tell();
        Ok(id)
    }

    /// The wished name, or the folder's, made unique among the shares.
    fn free_name(&self, wish: &str, folder: &Path, origin: Option<Origin>) -> String {
        let states = self.shared.states();
        let is_free = |name: &str| origin.is_none() || !states.values().any(|state| state.is_share_named(name));
        if is_free(wish) {
            return wish.to_owned();
        }
        let base = share_name(folder);
        let numbered = (2u32..).map(|number| format!("{base} ({number})"));
        std::iter::once(base.clone()).chain(numbered).find(|name| is_free(name)).unwrap_or(base)
    }

    /// Takes a folder out of the list and its files out of the catalog. Its records stay.
    fn forget(&mut self, id: u32) {
        let Some(state) = self.shared.states().remove(&id) else { return };
        if let Some(real) = &state.real {
            let (watch, real) = (self.watch.clone(), real.clone());
            task::spawn_blocking(move || watch.remove(&real));
        }
        if state.origin.is_some() {
            self.shared.apply(vec![Change::RemoveFolder(state.name)]);
        }
        self.tell();
    }

    /// Removes from a restored catalog what belongs to no share any more.
    fn drop_unknown_names(&self) {
        let listed = self.shared.working().share_names();
        let unknown = {
            let states = self.shared.states();
            let known = |name: &String| states.values().any(|state| state.is_share_named(name));
            listed.into_iter().filter(|name| !known(name)).map(Change::RemoveFolder).collect()
        };
        self.shared.apply(unknown);
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Add(spec, reply) => {
                let _ = reply.send(self.add(spec));
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

    fn add(&mut self, spec: ShareSpec) -> Result<Share, SharesError> {
        let folder = absolute(&spec.path);
        match fs::read_dir(&folder) {
            Ok(_) => {}
            Err(error) => return Err(SharesError::NoFolder { path: folder, why: error.to_string() }),
        }
        let existing =
            self.shared.states().iter().find(|(_, state)| state.path == folder).map(|(id, state)| (*id, state.origin));
        let id = match existing {
            Some((id, Some(_))) => id,
            // The download folder becomes a share.
            Some((id, None)) => {
                self.forget(id);
                self.open_root(&folder, Some(spec.origin))?
            }
            None => self.open_root(&folder, Some(spec.origin))?,
        };
        self.config.shares.push(ShareSpec { path: folder, origin: spec.origin });
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
        if self.running.as_ref().is_some_and(|running| running.root == id) {
            self.stop_pass().await;
        }
        self.forget(id);
        self.config.shares.retain(|spec| absolute(&spec.path) != path);
        let root = PassRoot { id, name: shown.name.clone(), path: path.clone(), exclude: scan::exclude(&path, &[]).0 };
        let shared = self.shared.clone();
        blocking(move || {
            let (progress, cancel) = (Progress::default(), CancellationToken::new());
            shared.pass(&root, 1, &progress, &cancel, &|_| {}).remove_where(&[], |_| true)?;
            Ok(shared.database.remove_root(&path::to_bytes(&path))?)
        })
        .await?;
        // It may be the download folder as well.
        self.reconcile()?;
        Ok(shown)
    }

    async fn configure(&mut self, config: SharesConfig) -> Result<(), SharesError> {
        let rules_changed = config.exclude != self.config.exclude;
        self.stop_pass().await;
        self.config = config;
        self.reconcile()?;
        if rules_changed {
            self.mark_all(|_| true);
        }
        Ok(())
    }

    fn mark_all(&self, choose: impl Fn(&State) -> bool) {
        for state in self.shared.states().values_mut().filter(|state| choose(state)) {
            state.mark(PathBuf::new());
        }
        self.tell();
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
        self.tell();
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

    /// Starts the next pass, if none runs and there is something to look at.
    fn start_pass(&mut self) {
        if self.running.is_some() {
            return;
        }
        let mut states = self.shared.states();
        let Some((id, state)) = states.iter_mut().find(|(_, state)| !state.dirty.is_empty()) else { return };
        let parts = state.take_dirty();
        state.running = true;
        let is_share = state.origin.is_some();
        let (id, name, path, device) = (*id, state.name.clone(), state.path.clone(), state.device);
        let progress = state.progress.clone();
        let watched = state.real.clone().filter(|_| !state.missing);
        let watch = self.watch.clone();
        let (shared, cancel) = (self.shared.clone(), self.cancel.child_token());
        let (patterns, threads) = (self.config.exclude.clone(), self.config.hash_threads);
        let (stop, looked_at) = (cancel.clone(), parts.clone());
        let work = task::spawn_blocking(move || {
            let Ok(real) = fs::canonicalize(&path) else { return Ok(Outcome::Missing) };
            if !pass::is_present(&real, device) {
                return Ok(Outcome::Missing);
            }
            // Before the walk, so that no change falls between the two.
            if is_share && watched.as_ref() != Some(&real) {
                watch.add(&real);
            }
            let (exclude, bad) = scan::exclude(&real, &patterns);
            for error in bad {
                tracing::warn!(%error, "an exclude pattern is left out");
            }
            let root = PassRoot { id, name, path: real, exclude };
            let publish = |changes| shared.apply(changes);
            let pass = shared.pass(&root, threads, &progress, &stop, &publish);
            let watch = Clock::new();
            let report = if is_share { pass.run(&looked_at)? } else { pass.prune().map(|()| Report::default())? };
            if is_share && !report.cancelled {
                SCAN_DURATION.record_span((), watch.now().since(Time::ZERO));
                SCAN_LAST_SUCCESS.set((), wall_clock_s() as f64);
            }
            Ok(Outcome::Done { device: pass::device_of(&root.path), real: root.path.clone(), report })
        });
        self.running = Some(Running { root: id, parts, cancel, work });
        drop(states);
        self.tell();
    }

    fn finish_pass(&mut self, outcome: Finished) {
        let Finished { root, parts, result } = outcome;
        let mut states = self.shared.states();
        let Some(state) = states.get_mut(&root) else { return };
        state.running = false;
        state.rate = 0;
        let was_missing = state.missing;
        match result {
            Ok(Outcome::Missing) => {
                state.missing = state.origin.is_some();
                if !was_missing && state.missing {
                    tracing::warn!(share = state.name, "a share is missing; its files are withdrawn until it is back");
                    self.shared.apply(vec![Change::RemoveFolder(state.name.clone())]);
                }
            }
            Ok(Outcome::Done { real, device, report }) => {
                state.missing = false;
                if was_missing {
                    // Its files were withdrawn: look at all of it.
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
                if !changed.is_empty() {
                    self.retries.entry(Instant::now() + RETRY_CHANGED).or_default().extend(changed);
                }
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
            Err(error) => tracing::warn!(%error, "a scan failed; the next one tries again"),
        }
        drop(states);
        self.tell();
    }

    /// Cancels the running pass and waits for its end.
    async fn stop_pass(&mut self) {
        if let Some(running) = &self.running {
            running.cancel.cancel();
            let outcome = finished(&mut self.running).await;
            self.finish_pass(outcome);
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
        self.tell();
    }

    fn measure(&self) {
        let mut moved = false;
        for state in self.shared.states().values_mut() {
            let hashed = state.progress.hashed_bytes.load(Ordering::Relaxed);
            let last = hashed.saturating_sub(std::mem::replace(&mut state.measured, hashed));
            if state.running {
                state.rate = u64::midpoint(state.rate, last);
                moved = true;
            }
        }
        if moved {
            self.tell();
        }
    }

    fn tell(&self) {
        self.shared.activity.send_replace(());
    }
}

struct Finished {
    root: u32,
    parts: Vec<PathBuf>,
    result: Result<Outcome, StoreError>,
}

/// Waits for the end of the running pass; for ever if there is none. May be dropped at its await.
async fn finished(running: &mut Option<Running>) -> Finished {
    let Some(pass) = running else { return std::future::pending().await };
    let result = (&mut pass.work).await.unwrap_or(Err(StoreError::Panicked));
    let (root, parts) = (pass.root, std::mem::take(&mut pass.parts));
    *running = None;
    Finished { root, parts, result }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A path that does not depend on the working folder. Links stay: the user knows it by this name.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // Without a final separator.
    path.components().collect()
}

/// The last component of a folder's path.
fn share_name(folder: &Path) -> String {
    folder.file_name().map_or_else(|| "root".to_owned(), |name| name.to_string_lossy().into_owned())
}
