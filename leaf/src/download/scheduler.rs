//! Which job runs, and what its end means.
//!
//! Invariant: at most [`limits::ACTIVE_DOWNLOADS`] jobs run, those of high priority and old age first; a bundle of small
//! files counts as one, and of each peer at most [`limits::BUNDLES_AT_ONCE`] run; a job whose task panicked is not lost but
//! waits; none of a blocked content runs.

use std::{collections::BTreeMap, sync::Arc};

use overlay::{drive::wall_clock_s, id::PeerId, limits, time::Time};
use tokio::{sync::mpsc, task::spawn_blocking, time::sleep};

use super::{
    Downloads, Shared,
    bundle::{self, Bundle, End, Item},
    job::Job,
    lock,
    partial::{Partial, free_bytes},
    record::{Reason, State},
    task::{self, Outcome, View},
};
use crate::transfer::FoundSource;

/// Jobs that are looked at when some may start: enough to fill the bundles of a peer and all other places.
const STARTED_AT_ONCE: usize = limits::BUNDLES_AT_ONCE * limits::BUNDLE_FILES + limits::ACTIVE_DOWNLOADS;

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
        let alone = jobs.by_id.values().filter(|job| job.stop.is_some() && !job.bundled).count();
        let mut bundles = jobs.bundles.clone();
        let running = alone + bundles.values().sum::<usize>();
        let full = jobs.by_id.values().filter(|job| job.waits_for_room() || job.unsaved);
        let look = full.map(|job| job.not_before.max(now + limits::DISK_LOOK)).min();
        let rules = self.bans.borrow().clone();
        // One that has just come and is blocked has woken this up again.
        let may_run = |job: &&mut Job| job.is_waiting() && !rules.blocks(&job.record.content);
        let (mut due, mut next) = (Vec::new(), None);
        for job in jobs.by_id.values_mut().filter(may_run) {
            if job.not_before > now {
                next = next.into_iter().chain(Some(job.not_before).filter(|at| *at < Time(u64::MAX))).min();
            } else if job.bundle_source(now).is_none_or(|(peer, _)| bundles.get(peer) < Some(&limits::BUNDLES_AT_ONCE))
            {
                due.push(job);
            }
        }
        let next = next.into_iter().chain(look).min();
        // Of thousands, the first are all that can start.
        let rank = |job: &&mut Job| (std::cmp::Reverse(job.record.priority), job.record.order);
        let is_part = due.len() > STARTED_AT_ONCE;
        if is_part {
            due.select_nth_unstable_by_key(STARTED_AT_ONCE, rank);
            due.truncate(STARTED_AT_ONCE);
        }
        due.sort_unstable_by_key(rank);
        let mut free = limits::ACTIVE_DOWNLOADS.saturating_sub(running);
        let mut plans: Vec<Plan> = Vec::new();
        // The plan that still takes files of a peer.
        let mut open: BTreeMap<PeerId, usize> = BTreeMap::new();
        let mut companions: BTreeMap<PeerId, usize> = BTreeMap::new();
        for (peer, _) in due.iter().filter_map(|job| job.bundle_source(now)) {
            *companions.entry(*peer).or_default() += 1;
        }
        for job in due {
            let source =
                job.bundle_source(now).filter(|(peer, _)| companions.get(peer).is_some_and(|count| *count > 1));
            let Some((peer, homes)) = source.cloned() else {
                if free > 0 {
                    free -= 1;
                    self.start(job);
                }
                continue;
            };
            let size = job.record.size.unwrap_or(0);
            let fits = |plan: &Plan| plan.items.len() < limits::BUNDLE_FILES && plan.bytes + size <= limits::RUN_BYTES;
            let at = match open.get(&peer).filter(|at| plans.get(**at).is_some_and(fits)) {
                Some(at) => *at,
                None if free > 0 && bundles.get(&peer).copied().unwrap_or(0) < limits::BUNDLES_AT_ONCE => {
                    free -= 1;
                    *bundles.entry(peer).or_default() += 1;
                    open.insert(peer, plans.len());
                    plans.push(Plan { source: FoundSource { peer, homes }, items: Vec::new(), bytes: 0 });
                    plans.len() - 1
                }
                // It waits for a bundle of the peer to end.
                None => continue,
            };
            if let Some(plan) = plans.get_mut(at) {
                plan.bytes += size;
                plan.items.push(self.bundled(job));
            }
        }
        jobs.bundles = bundles;
        drop(jobs);
        if is_part && free > 0 && !plans.is_empty() {
            // Those behind may come from others.
            self.wake.notify_one();
        }
        for plan in plans {
            self.start_bundle(plan);
        }
        next
    }

    /// Starts a job alone.
    fn start(self: &Arc<Self>, job: &mut Job) {
        let stop = self.tasks.token().child_token();
        let (teller, news) = mpsc::channel(limits::SOURCE_NEWS);
        (job.stop, job.news) = (Some(stop.clone()), Some(teller.clone()));
        *lock(&job.view) = View { state: Some(State::Active), ..View::default() };
        let (shared, record, view) = (Arc::clone(self), job.record.clone(), Arc::clone(&job.view));
        let notice = AbortNotice { shared: Arc::clone(self), ids: vec![record.id.clone()], bundle_of: None };
        let task = async move {
            let (id, started) = (record.id.clone(), shared.clock.now());
            let outcome = task::run(Arc::clone(&shared), record, view, (teller, news), stop).await;
            shared.ended(&id, started, outcome).await;
        };
        // It must record what it has even when everything ends.
        let task = self.tasks.spawn_to_end("download", async move {
            let notice = notice;
            task.await;
            notice.disarm();
        });
        drop(task);
    }

    /// Makes a job one of a bundle.
    fn bundled(&self, job: &mut Job) -> Item {
        let stop = self.tasks.token().child_token();
        (job.stop, job.bundled) = (Some(stop.clone()), true);
        *lock(&job.view) = View { state: Some(State::Active), ..View::default() };
        Item { record: job.record.clone(), stop }
    }

    fn start_bundle(self: &Arc<Self>, plan: Plan) {
        let Plan { source, items, .. } = plan;
        let ids = items.iter().map(|item| item.record.id.clone()).collect();
        let notice = AbortNotice { shared: Arc::clone(self), ids, bundle_of: Some(source.peer) };
        let (shared, stop) = (Arc::clone(self), self.tasks.token().child_token());
        let task = self.tasks.spawn_to_end("download bundle", async move {
            let notice = notice;
            bundle::run(Arc::clone(&shared), Bundle { source, items }, stop).await;
            notice.disarm();
        });
        drop(task);
    }

    /// The place of a job of a bundle in the queue of its source; `None` while it is served.
    pub(super) fn show_place(&self, ids: impl Iterator<Item = String>, position: Option<u32>) {
        let jobs = self.jobs();
        for job in ids.filter_map(|id| jobs.by_id.get(&id)) {
            let state = if position.is_some() { State::Queued } else { State::Active };
            *lock(&job.view) = View { state: Some(state), queue_position: position, ..View::default() };
        }
    }

    /// Files of a bundle have come to their ends.
    pub(super) async fn bundle_ended(self: &Arc<Self>, started: Time, ends: Vec<(String, End)>) {
        let now = self.clock.now();
        let (mut given_up, mut ids) = (Vec::new(), Vec::with_capacity(ends.len()));
        {
            let mut jobs = self.jobs();
            for (id, end) in ends {
                let Some(job) = jobs.by_id.get_mut(&id) else { continue };
                job.record.elapsed_ms += now.since(started).as_millis() as u64;
                match end {
                    End::Outcome(outcome) => job.take(now, outcome),
                    End::Alone => job.alone_until = now + limits::ALONE,
                }
                (job.stop, job.news, job.bundled) = (None, None, false);
                *lock(&job.view) = View::default();
                if job.record.is_given_up() {
                    given_up.push((id.clone(), job.record.content));
                }
                ids.push(id);
            }
        }
        for (id, content) in given_up {
            self.remove_partial(&id, content).await;
        }
        // Those that go on are recorded as they are.
        let ended = |id: &String| self.jobs().by_id.get(id).is_some_and(|job| job.record.state != State::Queued);
        let changed: Vec<String> = ids.iter().filter(|id| ended(id)).cloned().collect();
        if !changed.is_empty()
            && let Err(error) = self.save_all(changed).await
        {
            tracing::error!(%error, "downloads could not be saved");
        }
        for id in &ids {
            self.changed(id);
            self.tell_outcome(id);
        }
        self.wake.notify_one();
        self.ended.notify_waiters();
    }

    /// A run ended: what it means for the job.
    async fn ended(self: &Arc<Self>, id: &str, started: Time, outcome: Outcome) {
        let now = self.clock.now();
        let (content, given_up) = {
            let mut jobs = self.jobs();
            let Some(job) = jobs.by_id.get_mut(id) else { return self.ended.notify_waiters() };
            job.record.elapsed_ms += now.since(started).as_millis() as u64;
            job.take(now, outcome);
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

impl Job {
    /// What the end of a run means for it.
    fn take(&mut self, now: Time, outcome: Outcome) {
        let record = &mut self.record;
        match outcome {
            Outcome::Done { path, size, sources } if !record.state.is_ended() => {
                (record.state, record.reason) = (State::Done, None);
                record.path = Some(path.to_string_lossy().into_owned());
                (record.size, record.sources) = (Some(size), sources);
                record.finished_at_s = Some(wall_clock_s());
                self.bits = None;
            }
            Outcome::Conflict if record.state == State::Queued => {
                (record.state, record.reason) = (State::Failed, Some(Reason::Conflict));
                record.finished_at_s = Some(wall_clock_s());
            }
            Outcome::DiskFull if record.state == State::Queued => {
                (record.state, record.reason) = (State::Paused, Some(Reason::DiskFull));
                // An end for shutdown is no reason to look again.
                self.not_before = self.not_before.max(now + self.full_pause);
                self.full_pause = (self.full_pause * 2).min(limits::DISK_LOOK_MAX);
            }
            Outcome::Disk(error) => {
                tracing::warn!(%error, "a download met a failing disk and is tried again later");
                self.not_before = self.not_before.max(now + limits::DISK_RETRY);
            }
            _ => {}
        }
    }
}

/// A bundle that is being put together.
struct Plan {
    source: FoundSource,
    items: Vec<Item>,
    bytes: u64,
}

/// Frees jobs whose task panicked: they wait and are tried again later. Gives the place of a bundle back in any case.
struct AbortNotice {
    shared: Arc<Shared>,
    ids: Vec<String>,
    bundle_of: Option<PeerId>,
}

impl AbortNotice {
    fn disarm(mut self) {
        self.ids.clear();
    }
}

impl Drop for AbortNotice {
    fn drop(&mut self) {
        let mut jobs = self.shared.jobs();
        for id in &self.ids {
            if let Some(job) = jobs.by_id.get_mut(id).filter(|job| job.stop.is_some()) {
                (job.stop, job.news, job.bundled) = (None, None, false);
                job.not_before = self.shared.clock.now() + limits::DISK_RETRY;
            }
        }
        if let Some(peer) = self.bundle_of
            && let Some(count) = jobs.bundles.get_mut(&peer)
        {
            *count -= 1;
            if *count == 0 {
                jobs.bundles.remove(&peer);
            }
            drop(jobs);
            self.shared.wake.notify_one();
        }
    }
}
