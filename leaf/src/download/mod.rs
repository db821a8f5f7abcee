//! Downloads: jobs that last over restarts and never just fail.
//!
//! | module | what it is |
//! |---|---|
//! | [`record`] | a job as it is stored and shown |
//! | `job` | a job as it is remembered and runs |
//! | `saved`, `copies` | jobs in the database, and beside it, where they outlive it |
//! | `scheduler` | which job runs, and what its end means |
//! | `task` | the driver of one running job |
//! | `bundle` | many small files for one request |
//! | `partial`, `target`, `here` | its files, how a finished one gets its name, and what is here already |
//!
//! ```text
//!   start ─> queued ─> running (active, queued at sources, stalled) ─> done
//!               ^         │ pause, cancel, shutdown, full disk          └> failed: conflict, blocked
//!               └─────────┴─ paused ─ resume, retry
//! ```
//!
//! Invariants: the table in memory and the database hold the same jobs; at most
//! [`limits::ACTIVE_DOWNLOADS`] run at once (a bundle counts as one), those of high priority and old age first; one content has at
//! most one job that is not ended.

mod bundle;
mod copies;
mod durable;
mod ends;
mod here;
mod job;
#[cfg(test)]
mod kills;
mod partial;
pub mod record;
mod saved;
mod scheduler;
#[cfg(test)]
#[path = "../../tests/support/transfer.rs"]
mod support;
mod target;
mod task;

pub use self::ends::Ends;
pub(crate) use self::partial::free_bytes;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use overlay::{
    bans::Rules,
    drive::{Clock, Tasks, random_token, wall_clock_s},
    id::{ContentId, PeerId},
    limits,
    time::Time,
    verify::Layout,
};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::{
    sync::{Notify, broadcast, watch},
    task::spawn_blocking,
};

use self::{
    copies::Copies,
    job::{Job, Jobs, News},
    partial::Partial,
    record::{Bits, Done, Download, Failed, Priority, Progress, Reason, Record, State},
    saved::{BITS, FOLDERS, JOBS, keep_if_missing, record_folder, take_back},
};
use crate::{
    bitmap::Bitmap,
    file_id, metrics,
    store::{Database, DatabaseError},
    transfer::{
        FoundSource, Library, SourceFinder,
        holding::{Holding, Holdings},
        pool::Pool,
        throttle::Throttle,
    },
};

/// What the user decides about downloads.
#[derive(Clone, Debug)]
pub struct Options {
    /// The download folder; partial files lie in `.partial` below it.
    pub downloads: PathBuf,
    /// Bytes a second for all downloads together.
    pub rate: Option<u64>,
}

/// What downloads need from the rest of the node.
#[derive(Clone, Debug)]
pub struct Parts {
    /// This node.
    pub own: PeerId,
    /// Where jobs are stored.
    pub database: Arc<Database>,
    /// What is here already.
    pub library: Arc<dyn Library>,
    /// What is open, shared with the uploads.
    pub holdings: Holdings,
    /// How peers are reached.
    pub pool: Arc<Pool>,
    /// Who has a content.
    pub finder: Arc<dyn SourceFinder>,
    /// What is not downloaded.
    pub bans: watch::Receiver<Arc<Rules>>,
    /// The node's clock.
    pub clock: Clock,
    /// The group of the node's tasks.
    pub tasks: Tasks,
}

/// What to download.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which content.
    pub content: ContentId,
    /// Its file name; the content id if it is empty.
    pub name: String,
    /// Its size, if a hit or listing told.
    pub size: Option<u64>,
    /// Where it goes: an absolute path; into that folder if it exists as one or the text ends with `/`.
    pub output: Option<String>,
    /// The folders below that, with `/` between them, which a peer named: each is made safe, and nothing leads out.
    pub below: String,
    /// Its rank.
    pub priority: Priority,
    /// Who is known to have it.
    pub sources: Vec<FoundSource>,
}

/// What happens to downloads.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A job is new or changed.
    Changed(Box<Download>),
    /// A running job got on.
    Progress(Box<Progress>),
    /// A job is complete.
    Done(Done),
    /// A job ended without its file.
    Failed(Failed),
    /// A job was forgotten.
    Removed(String),
}

/// The downloads of this node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Downloads {
    shared: Arc<Shared>,
}

/// What the handle and the tasks share.
#[derive(Debug)]
struct Shared {
    own: PeerId,
    folders: Mutex<Folders>,
    database: Arc<Database>,
    /// Locked for as long as a copy is written, so that the last one written is of the last state.
    copies: Mutex<Copies>,
    library: Arc<dyn Library>,
    holdings: Holdings,
    pool: Arc<Pool>,
    finder: Arc<dyn SourceFinder>,
    bans: watch::Receiver<Arc<Rules>>,
    throttle: Arc<Throttle>,
    clock: Clock,
    tasks: Tasks,
    jobs: Mutex<Jobs>,
    wake: Notify,
    /// Told when a task has ended.
    ended: Notify,
    events: broadcast::Sender<Event>,
    /// Told when another job has ended, or is forgotten.
    ends: watch::Sender<()>,
}

impl Downloads {
    /// Loads the jobs and goes on with those that were not ended. Blocks on the database; call it before
    /// there is anything to wait for.
    pub fn start(parts: Parts, options: Options) -> Result<Self, DatabaseError> {
        let copies = Copies::new(parts.database.folder());
        take_back(&parts.database, &copies)?;
        let mut jobs = Jobs::default();
        let mut bits: BTreeMap<Vec<u8>, Bits> = parts.database.all(&BITS, limits::JOBS)?.into_iter().collect();
        for (key, record) in parts.database.all(&JOBS, limits::JOBS)? {
            jobs.next_order = jobs.next_order.max(record.order + 1);
            keep_if_missing(&copies, &record, &options.downloads);
            let job = Job::new(record.clone(), bits.remove(&key));
            jobs.by_id.insert(record.id, job);
        }
        let mut folders = Folders { current: options.downloads, earlier: Vec::new() };
        let known = parts.database.all(&FOLDERS, limits::DOWNLOAD_FOLDERS)?.into_iter().map(|(_, path)| path.into());
        folders.earlier.extend(known.filter(|path| *path != folders.current));
        record_folder(&parts.database, &folders.current)?;
        let Parts { own, database, library, holdings, pool, finder, bans, clock, tasks } = parts;
        let throttle = Arc::new(Throttle::new(clock, options.rate));
        let shared = Arc::new(Shared {
            own,
            folders: Mutex::new(folders),
            database,
            copies: Mutex::new(copies),
            library,
            holdings,
            pool,
            finder,
            bans,
            throttle,
            clock,
            tasks,
            jobs: Mutex::new(jobs),
            wake: Notify::new(),
            ended: Notify::new(),
            events: broadcast::Sender::new(limits::DOWNLOAD_EVENTS),
            ends: watch::Sender::new(()),
        });
        let scheduler = Arc::clone(&shared);
        shared.tasks.spawn("downloads", async move { scheduler.schedule().await });
        Ok(Self { shared })
    }

    /// Starts a download. If one of the content is not ended, it is returned instead, and the second value is
    /// false. It is durable when this returns.
    pub async fn add(&self, request: Request) -> Result<(Download, bool), DownloadError> {
        self.add_all(vec![request]).await?.pop().ok_or(DownloadError::NotFound)
    }

    /// Starts downloads, as if one after the other. All are durable when this returns, or none was added.
    pub async fn add_all(&self, requests: Vec<Request>) -> Result<Vec<(Download, bool)>, DownloadError> {
        let mut added = Vec::with_capacity(requests.len());
        for _ in &requests {
            let token = random_token().map_err(|error| DownloadError::System(error.to_string()))?;
            added.push((file_id::short_id(token), true));
        }
        {
            let mut jobs = self.shared.jobs();
            let mut wanted: FxHashMap<ContentId, String> = jobs
                .by_id
                .values()
                .filter(|job| !job.record.state.is_ended())
                .map(|job| (job.record.content, job.record.id.clone()))
                .collect();
            let new: FxHashSet<ContentId> = requests.iter().map(|request| request.content).collect();
            let new = new.iter().filter(|content| !wanted.contains_key(content)).count();
            if jobs.by_id.len() + new > limits::JOBS {
                return Err(DownloadError::TooMany);
            }
            for (request, (id, is_new)) in requests.into_iter().zip(&mut added) {
                if let Some(known) = wanted.get(&request.content) {
                    (*id, *is_new) = (known.clone(), false);
                    if let Some(job) = jobs.by_id.get_mut(known) {
                        job.add_sources(&request.sources);
                    }
                    continue;
                }
                wanted.insert(request.content, id.clone());
                let record = Record::new(id.clone(), jobs.next_order, request);
                jobs.next_order += 1;
                jobs.by_id.insert(id.clone(), Job::new(record, None));
            }
        }
        if let Err(error) = self.shared.save_all(added.iter().map(|(id, _)| id.clone()).collect()).await {
            // They would be gone after a restart, so they were never there.
            let mut jobs = self.shared.jobs();
            for (id, _) in added.iter().filter(|(_, is_new)| *is_new) {
                jobs.by_id.remove(id);
            }
            return Err(error);
        }
        self.shared.wake.notify_one();
        let now = self.shared.clock.now();
        let shown: Vec<(Download, bool)> = {
            let jobs = self.shared.jobs();
            let show = |(id, is_new): &(String, bool)| Some((jobs.by_id.get(id)?.show(now), *is_new));
            added.iter().filter_map(show).collect()
        };
        for (download, _) in &shown {
            self.shared.tell(Event::Changed(Box::new(download.clone())));
        }
        Ok(shown)
    }

    /// All jobs, in the order of their creation.
    pub fn list(&self) -> Vec<Download> {
        let now = self.shared.clock.now();
        let jobs = self.shared.jobs();
        let mut ordered: Vec<&Job> = jobs.by_id.values().collect();
        ordered.sort_unstable_by_key(|job| job.record.order);
        ordered.into_iter().map(|job| job.show(now)).collect()
    }

    /// A job by its id, or the newest of a content by the content's 64 digits.
    pub fn get(&self, id: &str) -> Option<Download> {
        let id = self.shared.resolve(id)?;
        self.shared.jobs().by_id.get(&id).map(|job| job.show(self.shared.clock.now()))
    }

    /// Bytes of a piece, and the verified pieces of a job; `None` if it is not known or its size is not.
    pub fn pieces(&self, id: &str) -> Option<(u32, Bitmap)> {
        let id = self.shared.resolve(id)?;
        let jobs = self.shared.jobs();
        let job = jobs.by_id.get(&id)?;
        if let Some(holding) = &lock(&job.view).holding {
            return Some((holding.layout().piece_bytes(), holding.have()));
        }
        let layout = Layout::new(job.record.size?).ok()?;
        if job.record.state == State::Done {
            return Some((layout.piece_bytes(), Bitmap::full(layout.pieces())));
        }
        let have = job.bits.as_ref().filter(|bits| bits.size == layout.size()).map_or(&[][..], |bits| &bits.have);
        Some((layout.piece_bytes(), Bitmap::from_bytes(layout.pieces(), have)))
    }

    /// What a running job of a content has, once it knows the size.
    pub fn holding(&self, content: &ContentId) -> Option<Arc<Holding>> {
        let jobs = self.shared.jobs();
        let mut wanted = jobs.by_id.values().filter(|job| job.record.content == *content);
        wanted.find_map(|job| lock(&job.view).holding.clone())
    }

    /// The last line of an ended job.
    pub fn outcome(&self, id: &str) -> Option<Event> {
        let id = self.shared.resolve(id)?;
        self.shared.jobs().by_id.get(&id).and_then(|job| job.record.outcome())
    }

    /// Everything that happens from now on. A listener that is too slow misses some, and is told so.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Stops a job and keeps what it has. Ended jobs stay as they are.
    pub async fn pause(&self, id: &str) -> Result<Download, DownloadError> {
        self.change(id, |job| {
            if !job.record.state.is_ended() {
                (job.record.state, job.record.reason) = (State::Paused, Some(Reason::User));
                job.stop();
            }
        })
        .await
    }

    /// Goes on with a paused job.
    pub async fn resume(&self, id: &str) -> Result<Download, DownloadError> {
        self.change(id, |job| {
            if job.record.state == State::Paused {
                job.enqueue();
            }
        })
        .await
    }

    /// Gives a job up; its partial data is removed.
    pub async fn cancel(&self, id: &str) -> Result<Download, DownloadError> {
        let mut untold = false;
        let download = self
            .change(id, |job| {
                if !job.record.state.is_ended() {
                    untold = job.stop.is_none();
                    (job.record.state, job.record.reason) = (State::Cancelled, Some(Reason::Cancelled));
                    job.record.finished_at_s = Some(wall_clock_s());
                    job.bits = None;
                    job.stop();
                }
            })
            .await?;
        if download.state == State::Cancelled {
            self.shared.remove_partial(&download.id, download.content).await;
        }
        // A task that runs tells it when it has ended.
        if untold {
            self.shared.tell_outcome(&download.id);
        }
        Ok(download)
    }

    /// Tries again: at once if it waits, from the beginning of its life if it failed or was cancelled.
    pub async fn retry(&self, id: &str) -> Result<Download, DownloadError> {
        self.change(id, |job| {
            if job.record.state != State::Done {
                job.enqueue();
            }
        })
        .await
    }

    /// Changes the rank of a job.
    pub async fn set_priority(&self, id: &str, priority: Priority) -> Result<Download, DownloadError> {
        self.change(id, |job| job.record.priority = priority).await
    }

    /// Cancels a job if it is not ended, and forgets it. The finished file stays.
    pub async fn remove(&self, id: &str) -> Result<(), DownloadError> {
        let id = self.cancel(id).await?.id;
        self.shared.jobs().remove(&id);
        self.shared.forget(vec![id]).await
    }

    /// Forgets all ended jobs, never files. Returns how many.
    pub async fn clear(&self) -> Result<usize, DownloadError> {
        let ended: Vec<String> = {
            let mut jobs = self.shared.jobs();
            let is_over = |job: &&Job| job.record.state.is_ended() && job.stop.is_none();
            let ended: Vec<String> = jobs.by_id.values().filter(is_over).map(|job| job.record.id.clone()).collect();
            for id in &ended {
                jobs.remove(id);
            }
            ended
        };
        let count = ended.len();
        self.shared.forget(ended).await?;
        Ok(count)
    }

    /// The download folder.
    pub fn folder(&self) -> PathBuf {
        lock(&self.shared.folders).current.clone()
    }

    /// Finished downloads go to another folder from now on. What is half there stays where it is until it is whole.
    ///
    /// # Errors
    /// If the database cannot be written; nothing changed.
    pub async fn set_folder(&self, folder: PathBuf) -> Result<(), DownloadError> {
        if self.folder() == folder {
            return Ok(());
        }
        let (database, recorded) = (Arc::clone(&self.shared.database), folder.clone());
        let record = spawn_blocking(move || record_folder(&database, &recorded)).await;
        record.map_err(|error| DownloadError::System(error.to_string()))??;
        let mut folders = lock(&self.shared.folders);
        folders.earlier.retain(|earlier| *earlier != folder);
        let before = std::mem::replace(&mut folders.current, folder);
        folders.earlier.push(before);
        Ok(())
    }

    /// Changes the rate limit of all downloads together, in bytes a second.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.shared.throttle.set_rate(rate);
    }

    /// Jobs of blocked contents fail, and their partial data is removed.
    async fn fail_blocked(&self) {
        let rules = self.shared.bans.borrow().clone();
        if !rules.blocks_any() {
            return;
        }
        let blocked: Vec<(String, ContentId)> = {
            let jobs = self.shared.jobs();
            let wanted = |job: &&Job| rules.blocks(&job.record.content) && !job.record.state.is_ended();
            jobs.by_id.values().filter(wanted).map(|job| (job.record.id.clone(), job.record.content)).collect()
        };
        for (id, content) in blocked {
            let mut untold = false;
            let failed = self.change(&id, |job| {
                untold = job.stop.is_none();
                (job.record.state, job.record.reason) = (State::Failed, Some(Reason::Blocked));
                job.record.finished_at_s = Some(wall_clock_s());
                job.bits = None;
                job.stop();
            });
            if let Err(error) = failed.await {
                tracing::warn!(%error, "a download of a blocked content could not be recorded as failed");
            }
            self.shared.remove_partial(&id, content).await;
            if untold {
                self.shared.tell_outcome(&id);
            }
        }
    }

    /// These peers are known to have a content: jobs that want it use them.
    pub fn add_sources(&self, content: ContentId, sources: &[FoundSource]) {
        for job in self.shared.jobs().by_id.values_mut().filter(|job| job.record.content == content) {
            job.add_sources(sources);
        }
    }

    /// Somebody reads a content from this byte on: jobs that want it fetch it in order for [`limits::READ_LAPSE`].
    pub fn read_from(&self, content: &ContentId, offset: u64) {
        for job in self.shared.jobs().by_id.values().filter(|job| job.record.content == *content) {
            job.tell(News::Read(offset));
        }
    }

    /// Stops all jobs, which go on at the next start, and waits until what they have is recorded.
    pub async fn shutdown(&self) {
        for job in self.shared.jobs().by_id.values_mut() {
            job.not_before = Time(u64::MAX);
            job.stop();
        }
        loop {
            let ended = self.shared.ended.notified();
            tokio::pin!(ended);
            // Registered before the look, so that an end between the two is not missed.
            ended.as_mut().enable();
            if self.shared.jobs().by_id.values().all(|job| job.stop.is_none()) {
                return;
            }
            ended.await;
        }
    }

    async fn change(&self, id: &str, change: impl FnOnce(&mut Job)) -> Result<Download, DownloadError> {
        let id = self.shared.resolve(id).ok_or(DownloadError::NotFound)?;
        {
            let mut jobs = self.shared.jobs();
            change(jobs.by_id.get_mut(&id).ok_or(DownloadError::NotFound)?);
        }
        self.shared.save(&id).await?;
        self.shared.wake.notify_one();
        self.shared.changed(&id);
        self.get(&id).ok_or(DownloadError::NotFound)
    }
}

impl Shared {
    /// Tells the last line of a job, if it is ended.
    fn tell_outcome(&self, id: &str) {
        let outcome = self.note_end(id);
        if let Some(outcome) = outcome {
            metrics::download_ended(&outcome);
            self.tell(outcome);
        }
    }

    /// Removes the partial files of a cancelled job that does not run (any more).
    async fn remove_partial(&self, id: &str, content: ContentId) {
        let wanted = self
            .jobs()
            .by_id
            .values()
            .any(|job| job.record.content == content && (job.stop.is_some() || !job.record.state.is_ended()));
        if wanted {
            return;
        }
        let partial = self.partial(content);
        if let Err(error) = task::blocking(move || partial.remove()).await {
            tracing::warn!(%error, id, "a partial file could not be removed");
        }
    }

    /// The partial files of a content: where they are, or else where they will be.
    fn partial(&self, content: ContentId) -> Partial {
        let folders = lock(&self.folders);
        let all = std::iter::once(&folders.current).chain(&folders.earlier);
        let begun = all.map(|folder| Partial::new(folder, content)).find(Partial::is_begun);
        begun.unwrap_or_else(|| Partial::new(&folders.current, content))
    }

    /// Verified pieces of a job, as recorded.
    fn bits(&self, id: &str) -> Option<Bits> {
        self.jobs().by_id.get(id).and_then(|job| job.bits.clone())
    }

    fn resolve(&self, id: &str) -> Option<String> {
        let jobs = self.jobs();
        if jobs.by_id.contains_key(id) {
            return Some(id.to_owned());
        }
        let content: ContentId = id.parse().ok()?;
        let of_content = jobs.by_id.values().filter(|job| job.record.content == content);
        of_content.max_by_key(|job| job.record.order).map(|job| job.record.id.clone())
    }

    fn report(&self, id: &str) {
        let now = self.clock.now();
        let shown = self.jobs().by_id.get(id).map(|job| job.show(now));
        if let Some(download) = shown {
            self.tell(Event::Progress(Box::new(download.progress())));
        }
    }

    fn changed(&self, id: &str) {
        let now = self.clock.now();
        let shown = self.jobs().by_id.get(id).map(|job| job.show(now));
        if let Some(download) = shown {
            self.tell(Event::Changed(Box::new(download)));
        }
    }

    fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        lock(&self.jobs)
    }
}

/// Where downloads go, and where they went before.
#[derive(Debug)]
struct Folders {
    current: PathBuf,
    earlier: Vec<PathBuf>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a command about downloads failed. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// There is no such job.
    #[error("there is no such download")]
    NotFound,
    /// [`limits::JOBS`] are remembered already.
    #[error("{} downloads are remembered already", limits::JOBS)]
    TooMany,
    /// The database failed: what changed is not durable.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The system failed.
    #[error("the system failed: {0}")]
    System(String),
}

impl DownloadError {
    /// What to do next.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotFound => Some("list the downloads for their ids"),
            Self::TooMany => Some("clear the ended ones"),
            Self::Database(DatabaseError::Full) => Some("make room on the disk of the data folder"),
            Self::Database(_) => Some("check the disk of the data folder"),
            Self::System(_) => None,
        }
    }
}
