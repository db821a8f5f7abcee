//! Which job runs, and what its end means.
//!
//! Invariant: at most [`limits::ACTIVE_DOWNLOADS`] jobs run, those of high priority and old age first; a job whose
//! task panicked is not lost but waits; none of a blocked content runs.

use std::sync::Arc;

use overlay::{drive::wall_clock_s, limits, time::Time};
use tokio::{sync::mpsc, task::spawn_blocking, time::sleep};

use super::{
    Downloads, Shared,
    job::Job,
    lock,
    partial::{Partial, free_bytes},
    record::{Reason, State},
    task::{self, Outcome, View},
};

impl Shared {
    /// Starts waiting jobs whenever something changed.
    pub(super) async fn schedule(self: Arc<Self>) {
        let downloads = Downloads { shared: Arc::clone(&self) };
        let mut bans = self.bans.clone();
        loop {
            downloads.fail_blocked().await;
            self.look_for_room().await;
            let next = self.start_waiting();
            let now = self.clock.now();
            tokio::select! {
                () = self.wake.notified() => {}
                Ok(()) = bans.changed() => {}
                () = sleep(next.map_or(limits::DISK_RETRY, |at| at.since(now))) => {}
            }
        }
    }

    /// Lets jobs go on that found the disk full once there is room for them, and saves what could not be saved.
    async fn look_for_room(self: &Arc<Self>) {
        let now = self.clock.now();
        let (due, unsaved) = {
            let jobs = self.jobs();
            let due = jobs.by_id.values().filter(|job| job.waits_for_room() && job.not_before <= now);
            let due: Vec<_> = due.map(|job| (job.record.id.clone(), job.record.content, job.record.size)).collect();
            let unsaved = jobs.by_id.values().filter(|job| job.unsaved).map(|job| job.record.id.clone());
            (due, unsaved.collect::<Vec<_>>())
        };
        if due.is_empty() && unsaved.is_empty() {
            return;
        }
        let (downloads, data) = (lock(&self.folders).current.clone(), self.database.folder().to_owned());
        let look = move || {
            let free = |folder: &std::path::Path| free_bytes(folder).unwrap_or(u64::MAX);
            if free(&data) < limits::DISK_MARGIN {
                return None;
            }
            let mut left = free(&downloads);
            let fits = |(id, content, size): (String, _, Option<u64>)| {
                let missing = size.unwrap_or(0).saturating_sub(Partial::new(&downloads, content).allocated());
                left = left.checked_sub(missing.saturating_add(limits::DISK_MARGIN))?;
                Some(id)
            };
            Some(due.into_iter().map_while(fits).collect::<Vec<_>>())
        };
        let Ok(Some(fitting)) = spawn_blocking(look).await else { return };
        for id in &fitting {
            if let Some(job) = self.jobs().by_id.get_mut(id).filter(|job| job.waits_for_room()) {
                job.enqueue();
            }
        }
        for id in fitting.iter().chain(&unsaved) {
            if let Err(error) = self.save(id).await {
                tracing::warn!(%error, "a download could not be saved yet");
            }
            self.changed(id);
        }
    }

    /// Starts what may run; returns when the next one may.
    fn start_waiting(self: &Arc<Self>) -> Option<Time> {
        let now = self.clock.now();
        let mut jobs = self.jobs();
        let running = jobs.by_id.values().filter(|job| job.stop.is_some()).count();
        let full = jobs.by_id.values().filter(|job| job.waits_for_room() || job.unsaved);
        let look = full.map(|job| job.not_before.max(now + limits::DISK_LOOK)).min();
        let rules = self.bans.borrow().clone();
        // One that has just come and is blocked has woken this up again.
        let may_run = |job: &&mut Job| job.is_waiting() && !rules.blocks(&job.record.content);
        let mut waiting: Vec<&mut Job> = jobs.by_id.values_mut().filter(may_run).collect();
        waiting.sort_unstable_by_key(|job| (std::cmp::Reverse(job.record.priority), job.record.order));
        let next = waiting.iter().map(|job| job.not_before).filter(|at| *at > now && *at < Time(u64::MAX)).min();
        let next = next.into_iter().chain(look).min();
        let free = limits::ACTIVE_DOWNLOADS.saturating_sub(running);
        for job in waiting.into_iter().filter(|job| job.not_before <= now).take(free) {
            let stop = self.tasks.token().child_token();
            let (teller, news) = mpsc::channel(limits::SOURCE_NEWS);
            (job.stop, job.news) = (Some(stop.clone()), Some(teller.clone()));
            *lock(&job.view) = View { state: Some(State::Active), ..View::default() };
            let (shared, record, view) = (Arc::clone(self), job.record.clone(), Arc::clone(&job.view));
            let (panicked, id) = (Arc::clone(self), record.id.clone());
            let task = async move {
                let (id, started) = (record.id.clone(), shared.clock.now());
                let outcome = task::run(Arc::clone(&shared), record, view, (teller, news), stop).await;
                shared.ended(&id, started, outcome).await;
            };
            // It must record what it has even when everything ends.
            let task = self.tasks.spawn_to_end("download", async move {
                let watch = AbortNotice { shared: panicked, id };
                task.await;
                watch.disarm();
            });
            drop(task);
        }
        next
    }

    /// A run ended: what it means for the job.
    async fn ended(self: &Arc<Self>, id: &str, started: Time, outcome: Outcome) {
        let now = self.clock.now();
        let (content, given_up) = {
            let mut jobs = self.jobs();
            let Some(job) = jobs.by_id.get_mut(id) else { return self.ended.notify_waiters() };
            job.record.elapsed_ms += now.since(started).as_millis() as u64;
            let record = &mut job.record;
            match outcome {
                Outcome::Done { path, size, sources } if !record.state.is_ended() => {
                    (record.state, record.reason) = (State::Done, None);
                    record.path = Some(path.to_string_lossy().into_owned());
                    (record.size, record.sources) = (Some(size), sources);
                    record.finished_at_s = Some(wall_clock_s());
                    job.bits = None;
                }
                Outcome::Conflict if record.state == State::Queued => {
                    (record.state, record.reason) = (State::Failed, Some(Reason::Conflict));
                    record.finished_at_s = Some(wall_clock_s());
                }
                Outcome::DiskFull if record.state == State::Queued => {
                    (record.state, record.reason) = (State::Paused, Some(Reason::DiskFull));
                    // An end for shutdown is no reason to look again.
                    job.not_before = job.not_before.max(now + job.full_pause);
                    job.full_pause = (job.full_pause * 2).min(limits::DISK_LOOK_MAX);
                }
                Outcome::Disk(error) => {
                    tracing::warn!(%error, "a download met a failing disk and is tried again later");
                    job.not_before = job.not_before.max(now + limits::DISK_RETRY);
                }
                _ => {}
            }
            (job.stop, job.news) = (None, None);
            *lock(&job.view) = View::default();
            (job.record.content, job.record.is_given_up())
        };
        if given_up {
            self.remove_partial(id, content).await;
        }
        if let Err(error) = self.save(id).await {
            tracing::error!(%error, "a download could not be saved");
        }
        self.changed(id);
        self.tell_outcome(id);
        self.wake.notify_one();
        self.ended.notify_waiters();
    }
}

/// Frees a job whose task panicked: it waits and is tried again later.
struct AbortNotice {
    shared: Arc<Shared>,
    id: String,
}

impl AbortNotice {
    fn disarm(mut self) {
        self.id.clear();
    }
}

impl Drop for AbortNotice {
    fn drop(&mut self) {
        if let Some(job) = self.shared.jobs().by_id.get_mut(&self.id) {
            (job.stop, job.news) = (None, None);
            job.not_before = self.shared.clock.now() + limits::DISK_RETRY;
        }
    }
}
