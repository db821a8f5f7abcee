//! One source of a content as the swarm sees it: how far its session is, what it holds, how fast it is.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use overlay::{limits, time::Time};

use super::{RequestId, Run};
use crate::{bitmap::Bitmap, rate::Rate};

/// Silence after which a source with outstanding requests counts as one that sends nothing.
const QUIET: Duration = Duration::from_secs(2);

/// See [`Source::ahead`].
const AHEAD: Duration = Duration::from_secs(1);
/// Bytes that a source whose rate is not known is asked for at first.
const FIRST_BYTES: u64 = 1 << 20;

/// Suggestions of one source that are remembered. Chosen: more are overtaken before they are used.
const SUGGESTIONS: usize = 8;

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
    /// Pieces that it would rather send than others.
    pub(super) suggested: VecDeque<Run>,
    /// When it last opened a session or took a slot back.
    pub(super) waits_since: Time,
    /// False if it was told that nothing is wanted of it now.
    pub(super) wanted: bool,
    /// True if there was nothing to ask of it, and nothing has changed since that could alter it.
    pub(super) is_fed: bool,
    pub(super) requests: BTreeSet<RequestId>,
    /// Bytes asked for and not here yet.
    pub(super) outstanding: u64,
    /// Attempts in a row that failed.
    pub(super) failures: u32,
    pub(super) last_progress: Time,
    pub(super) rate: Rate,
    /// Bytes that came before there was a rate.
    early: u64,
}

impl Source {
    /// A source that was never tried, due at once.
    pub(super) fn new(now: Time) -> Self {
        Self {
            state: SourceState::Idle { retry_at: now },
            size: None,
            partial: None,
            suggested: VecDeque::new(),
            waits_since: now,
            wanted: true,
            is_fed: false,
            requests: BTreeSet::new(),
            outstanding: 0,
            failures: 0,
            last_progress: now,
            rate: Rate::default(),
            early: 0,
        }
    }

    /// It would rather send these.
    pub(super) fn suggest(&mut self, run: Run) {
        if self.suggested.len() >= SUGGESTIONS {
            self.suggested.pop_front();
        }
        self.suggested.push_back(run);
    }

    /// `bytes` came from it.
    pub(super) fn received(&mut self, now: Time, bytes: u64) {
        self.last_progress = now;
        self.rate.add(now, bytes);
        if self.rate.bytes_per_second().is_none() {
            self.early = self.early.saturating_add(bytes);
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

    /// When its session, which has no slot, may have to make room for another, after the last one did; `None` if it has one,
    /// or still sends what was asked for. A place that is far behind is worth little: a crowd that comes at once must not wait
    /// for the few it met first.
    pub(super) fn makes_room_at(&self, last: Option<Time>) -> Option<Time> {
        let SourceState::Waiting { position } = self.state else { return None };
        if !self.requests.is_empty() {
            return None;
        }
        let is_far = self.wanted && position.is_some_and(|position| position > limits::SESSION_FAR);
        let (patience, pause) = if is_far {
            (limits::SESSION_FAR_PATIENCE, limits::SESSION_FAR_ROTATION)
        } else {
            (limits::SESSION_PATIENCE, limits::SESSION_ROTATION)
        };
        Some((self.waits_since + patience).max(last.map_or(Time::ZERO, |last| last + pause)))
    }

    /// True if it said that it has the content.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, SourceState::Waiting { .. } | SourceState::Granted)
    }

    /// Bytes that may be outstanding when another piece is asked for: what it sends in [`AHEAD`], so that a round trip of that
    /// length does not leave it idle, and no more, because others may send sooner what waits here. Before its rate is known
    /// they grow by what it sends.
    fn ahead(&self, piece_bytes: u64) -> u64 {
        match self.rate.bytes_per_second() {
            Some(rate) => (rate * AHEAD.as_secs_f64()) as u64,
            None => FIRST_BYTES.saturating_add(self.early).saturating_sub(piece_bytes),
        }
    }

    /// Bytes that it may be asked for now: none, or at least a piece.
    pub(super) fn room(&self, piece_bytes: u64) -> u64 {
        let most = limits::SOURCE_IN_FLIGHT_BYTES.max(piece_bytes);
        let room = (self.ahead(piece_bytes) + piece_bytes).min(most).saturating_sub(self.outstanding);
        if room < piece_bytes { 0 } else { room }
    }

    /// Bytes of one request: half of what may be outstanding, so that two requests overlap.
    pub(super) fn run_bytes(&self, piece_bytes: u64) -> u64 {
        u64::midpoint(self.ahead(piece_bytes), piece_bytes).clamp(piece_bytes, limits::RUN_BYTES.max(piece_bytes))
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

    /// Time until the next attempt: `first`, doubled with each failure, with jitter, so that the losers of one
    /// event do not come back together.
    pub(super) fn back_off(&self, first: Duration, random: u64) -> Duration {
        let doubled = first.saturating_mul(1 << self.failures.min(16));
        let span = doubled.min(limits::SOURCE_RETRY_MAX);
        span.mul_f64(0.5 + (random % 1024) as f64 / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_grows_with_what_comes_and_then_follows_the_rate() {
        const MIB: u64 = 1 << 20;
        let mut source = Source::new(Time::ZERO);
        assert_eq!(source.room(MIB), MIB);
        source.received(Time(1_000), 2 * MIB);
        assert_eq!((source.room(MIB), source.room(MIB / 4)), (3 * MIB, 3 * MIB));
        source.received(Time(2_000), 1000 * MIB);
        assert_eq!(source.room(MIB), limits::SOURCE_IN_FLIGHT_BYTES);
        // Half a second is a sample: from then on the rate counts.
        let mut slow = Source::new(Time::ZERO);
        slow.received(Time(100_000), MIB / 4);
        slow.received(Time(500_000), 0);
        assert_eq!(slow.room(MIB), MIB + MIB / 2);
        slow.outstanding = MIB / 2;
        assert_eq!(slow.room(MIB), MIB, "the next one is asked for before this one is here");
        slow.outstanding += 1;
        assert_eq!(slow.room(MIB), 0);
    }

    #[test]
    fn a_place_far_behind_makes_room_soon_and_what_is_under_way_stays() {
        let (mut source, start) = (Source::new(Time::ZERO), Time::ZERO);
        assert_eq!(source.makes_room_at(None), None, "it has no session");
        let waits = |place: u32| SourceState::Waiting { position: Some(place) };
        source.state = waits(limits::SESSION_FAR);
        assert_eq!(source.makes_room_at(None), Some(start + limits::SESSION_PATIENCE));
        let last = start + limits::SESSION_PATIENCE;
        assert_eq!(source.makes_room_at(Some(last)), Some(last + limits::SESSION_ROTATION));
        source.state = waits(limits::SESSION_FAR + 1);
        assert_eq!(source.makes_room_at(None), Some(start + limits::SESSION_FAR_PATIENCE));
        assert_eq!(source.makes_room_at(Some(last)), Some(last + limits::SESSION_FAR_ROTATION));
        source.wanted = false;
        assert_eq!(source.makes_room_at(None), Some(start + limits::SESSION_PATIENCE), "it is told when it has more");
        source.wanted = true;
        source.requests.insert(RequestId(1));
        assert_eq!(source.makes_room_at(None), None, "what it still sends would be asked for in vain");
        source.state = SourceState::Granted;
        assert_eq!(source.makes_room_at(None), None);
    }

    #[test]
    fn back_off_doubles_up_to_its_bound() {
        let mut source = Source::new(Time::ZERO);
        let mut last = Duration::ZERO;
        for failures in 0..40 {
            source.failures = failures;
            let next = source.back_off(limits::SOURCE_RETRY, 512);
            assert!(next >= last && next <= limits::SOURCE_RETRY_MAX);
            last = next;
        }
        assert_eq!(last, limits::SOURCE_RETRY_MAX);
    }
}
