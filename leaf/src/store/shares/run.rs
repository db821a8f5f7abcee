//! One pass over a share, on threads of its own: is it there, then the walk, which has what it enters watched.
//!
//! Any step may hang for as long as the drive pleases. Nobody waits for it: the outcome is sent when it is there.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use overlay::{
    drive::{Clock, guarded, wall_clock_s},
    metrics::Task,
    time::Time,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::state::Shared;
use crate::{
    metrics::{SCAN_DURATION, SCAN_LAST_SUCCESS},
    store::{
        StoreError,
        pass::{self, Pass, PassRoot, Presence, Progress, Report},
        scan,
    },
};

/// Time between two looks whether a pass that waits for its disk was cancelled.
const LANE_LOOK: Duration = Duration::from_millis(200);

/// What a pass is to do.
pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) root: u32,
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) device: Option<u64>,
    pub(super) is_share: bool,
    pub(super) parts: Vec<PathBuf>,
    pub(super) patterns: Vec<String>,
    pub(super) threads: usize,
    pub(super) progress: Arc<Progress>,
    pub(super) cancel: CancellationToken,
    /// Set once nothing that is found counts any more.
    pub(super) void: Arc<AtomicBool>,
}

/// How a pass ended.
pub(super) enum Outcome {
    /// The folder is not there; `is_gone` if it was removed, otherwise what it lies on may be missing.
    Missing { is_gone: bool },
    /// It was looked at.
    Done { real: PathBuf, device: Option<u64>, report: Report },
}

/// The end of a pass.
pub(super) struct Finished {
    pub(super) root: u32,
    pub(super) result: Result<Outcome, StoreError>,
}

/// Starts a pass, which sends its outcome.
pub(super) fn start(work: Work, outcomes: mpsc::Sender<Finished>) {
    let (root, failed) = (work.root, outcomes.clone());
    let run = move || {
        let result = guarded(Task::Scan, || work.run()).unwrap_or(Err(StoreError::Panicked));
        // Without a receiver the program is ending.
        let _ = outcomes.blocking_send(Finished { root, result });
    };
    if let Err(error) = thread::Builder::new().name("share scan".to_owned()).spawn(run) {
        // There is room for one outcome of each pass.
        let _ = failed.try_send(Finished { root, result: Err(StoreError::Disk(error)) });
    }
}

impl Work {
    fn run(&self) -> Result<Outcome, StoreError> {
        match pass::presence(&self.path, self.device) {
            Presence::Here => {}
            Presence::Gone => return Ok(Outcome::Missing { is_gone: true }),
            Presence::Away => return Ok(Outcome::Missing { is_gone: false }),
        }
        let Ok(real) = fs::canonicalize(&self.path) else { return Ok(Outcome::Missing { is_gone: false }) };
        let device = pass::device_of(&real);
        let lane = self.patiently(|| self.shared.lanes.enter(device, &self.cancel));
        if lane.is_none() {
            let report = Report { cancelled: true, ..Report::default() };
            return Ok(Outcome::Done { real, device, report });
        }
        let (exclude, bad) = scan::exclude(&real, &self.patterns);
        for error in bad {
            tracing::warn!(%error, "an exclude pattern is left out");
        }
        let root = PassRoot { id: self.root, name: self.name.clone(), path: real.clone(), exclude };
        let report = self.look(&root)?;
        Ok(Outcome::Done { device, real, report })
    }

    fn look(&self, root: &PassRoot) -> Result<Report, StoreError> {
        let clock = Clock::new();
        let publish = |changes| {
            if !self.void.load(Ordering::Relaxed) {
                self.shared.apply(changes);
            }
        };
        let pass = self.shared.pass(root, self.threads, &self.progress, &self.cancel, &publish);
        if !self.is_share {
            return pass.prune().map(|()| Report::default());
        }
        let follower = self.shared.watch.follow(&root.path);
        let pass = Pass { follower: Some(&follower), ..pass };
        let report = pass.run(&self.parts)?;
        if !report.cancelled {
            SCAN_DURATION.record_span((), clock.now().since(Time::ZERO));
            SCAN_LAST_SUCCESS.set((), wall_clock_s() as f64);
        }
        Ok(report)
    }

    /// Does something that may take long without any progress to be seen.
    fn patiently<T>(&self, work: impl FnOnce() -> T) -> T {
        self.progress.waits.store(true, Ordering::Relaxed);
        let result = work();
        self.progress.waits.store(false, Ordering::Relaxed);
        result
    }
}

/// The disks that passes work on, one pass each: a disk whose head moves between two shares is slow for both.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    busy: Mutex<BTreeSet<u64>>,
    left: Condvar,
}

/// A disk, for as long as a pass works on it.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    lanes: &'a Lanes,
    device: Option<u64>,
}

impl Lanes {
    /// Waits until nobody works on a disk; `None` if it was cancelled before.
    pub(super) fn enter(&self, device: Option<u64>, cancel: &CancellationToken) -> Option<Lane<'_>> {
        let mut busy = self.lock();
        while device.is_some_and(|device| busy.contains(&device)) {
            if cancel.is_cancelled() {
                return None;
            }
            busy = self.left.wait_timeout(busy, LANE_LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        busy.extend(device);
        Some(Lane { lanes: self, device })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        if let Some(device) = &self.device {
            self.lanes.lock().remove(device);
            self.lanes.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_for_one_pass_at_a_time() {
        let (lanes, cancel) = (Lanes::default(), CancellationToken::new());
        let first = lanes.enter(Some(1), &cancel).unwrap();
        assert!(lanes.enter(Some(2), &cancel).is_some() && lanes.enter(None, &cancel).is_some());
        thread::scope(|scope| {
            let second = scope.spawn(|| lanes.enter(Some(1), &cancel).is_some());
            drop(first);
            assert!(second.join().unwrap());
        });
        let held = lanes.enter(Some(1), &cancel).unwrap();
        cancel.cancel();
        assert!(lanes.enter(Some(1), &cancel).is_none());
        drop(held);
    }
}
