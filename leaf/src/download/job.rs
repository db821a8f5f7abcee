//! A job as it is remembered and runs, and what is shown of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use overlay::{drive::wall_clock_s, id::PeerId, limits, time::Time, verify::Layout};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Event, Request, lock,
    record::{self, Bits, Download, Reason, Record, State},
    task::{View, bytes_in},
};
use crate::{
    bitmap::Bitmap,
    transfer::{FoundSource, Via},
};

/// What the task of a job is told while it runs.
#[derive(Debug)]
pub(super) enum News {
    /// These have the content.
    Found(Vec<FoundSource>),
    /// Somebody reads it from this byte on.
    Read(u64),
}

#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) by_id: BTreeMap<String, Job>,
    pub(super) next_order: u64,
    /// Bundles that run, by the peer that they come from.
    pub(super) bundles: BTreeMap<PeerId, usize>,
    /// Jobs that ended since the start, by the number of their last end.
    pub(super) ends: BTreeMap<u64, String>,
    /// The number of the last end.
    pub(super) last_end: u64,
}

impl Jobs {
    /// Forgets a job.
    pub(super) fn remove(&mut self, id: &str) -> Option<Job> {
        let job = self.by_id.remove(id)?;
        job.ended_as.and_then(|number| self.ends.remove(&number));
        Some(job)
    }
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) record: Record,
    /// Verified pieces, while it does not run.
    pub(super) bits: Option<Bits>,
    pub(super) view: Arc<Mutex<View>>,
    /// Stops the task, while it runs.
    pub(super) stop: Option<CancellationToken>,
    /// Tells the task what it may use.
    pub(super) news: Option<mpsc::Sender<News>>,
    /// Not started again before.
    pub(super) not_before: Time,
    /// Pause before the disk is looked at again, while it is full.
    pub(super) full_pause: Duration,
    /// True if the database lacks its last state.
    pub(super) unsaved: bool,
    /// True while it runs in a bundle.
    pub(super) bundled: bool,
    /// In no bundle before.
    pub(super) alone_until: Time,
    /// The number of its last end in this run of the program.
    pub(super) ended_as: Option<u64>,
}

impl Job {
    pub(super) fn is_waiting(&self) -> bool {
        self.record.state == State::Queued && self.stop.is_none()
    }

    pub(super) fn new(record: Record, bits: Option<Bits>) -> Self {
        Self {
            record,
            bits,
            view: Arc::default(),
            stop: None,
            news: None,
            not_before: Time::ZERO,
            full_pause: limits::DISK_LOOK,
            unsaved: false,
            bundled: false,
            alone_until: Time::ZERO,
            ended_as: None,
        }
    }

    /// The source from which it may be fetched together with others: it is small, nothing of it is here, and the name of
    /// its file is not its user's choice.
    pub(super) fn bundle_source(&self, now: Time) -> Option<&(PeerId, Vec<PeerId>)> {
        let record = &self.record;
        let is_small = record.size.is_some_and(|size| (1..=limits::SMALL_FILE_BYTES as u64).contains(&size));
        let in_folder = record.output.as_deref().is_none_or(|output| output.ends_with(std::path::is_separator));
        let may = is_small && in_folder && self.bits.is_none() && record.sources.is_empty() && self.alone_until <= now;
        record.hints.first().filter(|_| may)
    }

    /// True if it waits for room on the disk.
    pub(super) fn waits_for_room(&self) -> bool {
        self.record.state == State::Paused && self.record.reason == Some(Reason::DiskFull) && self.stop.is_none()
    }

    /// Remembers sources, and tells the task if it runs.
    pub(super) fn add_sources(&mut self, sources: &[FoundSource]) {
        self.record.add_hints(sources);
        // A task that is behind finds them with its next search.
        self.tell(News::Found(sources.to_vec()));
    }

    /// Tells the task, if it runs and is not behind.
    pub(super) fn tell(&self, news: News) {
        if let Some(task) = &self.news {
            let _ = task.try_send(news);
        }
    }

    pub(super) fn stop(&self) {
        if let Some(stop) = &self.stop {
            stop.cancel();
        }
    }

    pub(super) fn enqueue(&mut self) {
        self.record.state = State::Queued;
        self.record.reason = None;
        self.record.finished_at_s = None;
        self.not_before = Time::ZERO;
    }

    pub(super) fn show(&self, now: Time) -> Download {
        let record = &self.record;
        let view = lock(&self.view).clone();
        let running = self.stop.is_some() && record.state == State::Queued && self.not_before <= now;
        let state = view.state.filter(|_| running).unwrap_or(record.state);
        let size = view.size.filter(|_| running).or(record.size);
        let bytes = match (&view.holding, state) {
            (_, State::Done) => size.unwrap_or(0),
            (Some(_), _) => view.bytes,
            (None, _) => self.bytes_recorded(),
        };
        let rate = if running { view.rate } else { 0 };
        Download {
            id: record.id.clone(),
            content: record.content,
            name: record.name.clone(),
            path: record.path.clone(),
            state,
            reason: record.reason,
            size,
            bytes,
            rate,
            eta_s: eta_s(size, bytes, rate),
            priority: record.priority,
            queue_position: view.queue_position.filter(|_| running),
            created_at: timestamp(record.created_at_s),
            finished_at: record.finished_at_s.map(timestamp),
            sources: if running { view.sources } else { record.shown_sources() },
        }
    }

    pub(super) fn bytes_recorded(&self) -> u64 {
        let Some(bits) = &self.bits else { return 0 };
        let Ok(layout) = Layout::new(bits.size) else { return 0 };
        bytes_in(layout, &Bitmap::from_bytes(layout.pieces(), &bits.have))
    }
}

impl Record {
    pub(super) fn new(id: String, order: u64, request: Request) -> Self {
        let name = if request.name.is_empty() { request.content.to_string() } else { request.name };
        let mut record = Self {
            id,
            content: request.content,
            name,
            output: request.output,
            below: request.below,
            priority: request.priority,
            state: State::Queued,
            reason: None,
            size: request.size,
            order,
            created_at_s: wall_clock_s(),
            finished_at_s: None,
            elapsed_ms: 0,
            path: None,
            sources: Vec::new(),
            hints: Vec::new(),
        };
        record.add_hints(&request.sources);
        record
    }

    pub(super) fn add_hints(&mut self, sources: &[FoundSource]) {
        for source in sources {
            let room = self.hints.len() < limits::SOURCES_PER_JOB;
            match self.hints.iter_mut().find(|(peer, _)| *peer == source.peer) {
                Some((_, homes)) => homes.clone_from(&source.homes),
                None if room => self.hints.push((source.peer, source.homes.clone())),
                None => {}
            }
        }
    }

    /// The sources of a job that does not run: who sent what.
    pub(super) fn shown_sources(&self) -> Vec<record::Source> {
        let shown = |(peer, bytes, via): &(PeerId, u64, Via)| record::Source {
            peer: *peer,
            state: record::SourceState::Waiting,
            bytes: *bytes,
            rate: 0,
            via: Some(*via),
            queue_position: None,
        };
        self.sources.iter().map(shown).collect()
    }

    /// True if nobody wants its partial data any more. After a conflict they may still be wanted elsewhere.
    pub(super) fn is_given_up(&self) -> bool {
        self.state == State::Cancelled || self.reason == Some(Reason::Blocked)
    }

    pub(super) fn outcome(&self) -> Option<Event> {
        self.done().map(Event::Done).or_else(|| self.failed().map(Event::Failed))
    }
}

fn eta_s(size: Option<u64>, bytes: u64, rate: u64) -> Option<u64> {
    Some(size?.saturating_sub(bytes).div_ceil(Some(rate).filter(|rate| *rate > 0)?))
}

/// RFC 3339 UTC.
fn timestamp(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
