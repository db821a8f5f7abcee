//! One source of a content as the swarm sees it: how far its session is, what it holds, how fast it is.

use std::{collections::BTreeSet, time::Duration};

use overlay::{limits, time::Time};

use super::RequestId;
use crate::bitmap::Bitmap;

/// Time over which a rate is sampled. Chosen: long against round trips, short against a user's patience.
const SAMPLE: Duration = Duration::from_millis(500);
/// Share of the newest sample in a rate. Chosen: three samples make up two thirds.
const SAMPLE_WEIGHT: f64 = 0.3;
/// Silence after which a source with outstanding requests counts as one that sends nothing.
const QUIET: Duration = Duration::from_secs(2);

/// How far the session with a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// No session; one is tried again at that time.
    Idle {
        /// When.
        retry_at: Time,
    },
    /// The driver was asked to open a session.
    Opening,
    /// It has the content, and no slot for us yet.
    Waiting {
        /// Our place in its queue, from 1; `None` before it told.
        position: Option<u32>,
    },
    /// It answers requests.
    Granted,
    /// It sent wrong data, and is not used for this content again.
    Dropped,
}

/// A source and its measurements.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) state: SourceState,
    /// The size that it claims; `None` before its session opened.
    pub(super) size: Option<u64>,
    /// The pieces it has: `None` is all of them.
    pub(super) partial: Option<Bitmap>,
    pub(super) requests: BTreeSet<RequestId>,
    /// Bytes asked for and not here yet.
    pub(super) outstanding: u64,
    /// Attempts in a row that failed.
    pub(super) failures: u32,
    pub(super) last_progress: Time,
    pub(super) rate: Rate,
}

impl Source {
    /// A source that was never tried, due at once.
    pub(super) fn new(now: Time) -> Self {
        Self {
            state: SourceState::Idle { retry_at: now },
            size: None,
            partial: None,
            requests: BTreeSet::new(),
            outstanding: 0,
            failures: 0,
            last_progress: now,
            rate: Rate::default(),
        }
    }

    /// True if it has `piece`.
    pub(super) fn holds(&self, piece: u64) -> bool {
        self.partial.as_ref().is_none_or(|pieces| pieces.contains(piece))
    }

    /// True while a session is open or being opened.
    pub(super) fn is_engaged(&self) -> bool {
        matches!(self.state, SourceState::Opening | SourceState::Waiting { .. } | SourceState::Granted)
    }

    /// True if it said that it has the content.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, SourceState::Waiting { .. } | SourceState::Granted)
    }

    /// Bytes that may be outstanding: what it sends in a second, so that a round trip of that length does
    /// not leave it idle, but never less than two pieces nor more than a bounded amount of memory.
    pub(super) fn budget(&self, piece_bytes: u64) -> u64 {
        let by_rate = match self.rate.bytes_per_second() {
            Some(rate) => rate as u64,
            None => limits::RUN_BYTES,
        };
        by_rate.clamp(2 * piece_bytes, limits::SOURCE_IN_FLIGHT_BYTES)
    }

    /// Bytes of one request: half the budget, so that two requests overlap.
    pub(super) fn run_bytes(&self, piece_bytes: u64) -> u64 {
        (self.budget(piece_bytes) / 2).clamp(piece_bytes, limits::RUN_BYTES.max(piece_bytes))
    }

    /// Seconds until everything outstanding is here; infinite if nothing moves.
    pub(super) fn backlog_s(&self, now: Time) -> f64 {
        if self.outstanding == 0 {
            return 0.0;
        }
        match self.rate.bytes_per_second() {
            Some(rate) if now.since(self.last_progress) < QUIET && rate >= 1.0 => self.outstanding as f64 / rate,
            None if now.since(self.last_progress) < QUIET => self.outstanding as f64 / limits::RUN_BYTES as f64,
            _ => f64::INFINITY,
        }
    }

    /// Time until the next attempt: doubles with each failure, with jitter, so that the losers of one event
    /// do not come back together.
    pub(super) fn back_off(&self, random: u64) -> Duration {
        let doubled = limits::SOURCE_RETRY.saturating_mul(1 << self.failures.min(16));
        let span = doubled.min(limits::SOURCE_RETRY_MAX);
        span.mul_f64(0.5 + (random % 1024) as f64 / 1024.0)
    }
}

/// A rate as an exponentially weighted mean of samples.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    mean: Option<f64>,
    bytes: u64,
    since: Time,
}

impl Rate {
    /// Begins a sample; called when the first request goes out after a rest, so that rest does not count.
    pub(super) fn start(&mut self, now: Time) {
        self.bytes = 0;
        self.since = now;
    }

    /// `bytes` arrived.
    pub(super) fn add(&mut self, now: Time, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        let span = now.since(self.since);
        if span >= SAMPLE {
            let sample = self.bytes as f64 / span.as_secs_f64();
            self.mean = Some(self.mean.map_or(sample, |mean| mean + SAMPLE_WEIGHT * (sample - mean)));
            self.start(now);
        }
    }

    /// Bytes a second, once there is a sample.
    pub(super) fn bytes_per_second(self) -> Option<f64> {
        self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_arrived_over_time() {
        let mut rate = Rate::default();
        for step in 1..=100 {
            rate.add(Time(step * 100_000), 50_000);
        }
        let mean = rate.bytes_per_second().unwrap();
        assert!((mean - 500_000.0).abs() < 1.0, "{mean}");
    }

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let mut source = Source::new(Time::ZERO);
        let mut last = Duration::ZERO;
        for failures in 0..40 {
            source.failures = failures;
            let next = source.back_off(512);
            assert!(next >= last && next <= limits::SOURCE_RETRY_MAX);
            last = next;
        }
        assert_eq!(last, limits::SOURCE_RETRY_MAX);
    }
}
