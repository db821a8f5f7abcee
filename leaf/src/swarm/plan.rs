//! The pieces of one content: which are here, which are on their way, and which to ask for next.
//!
//! Invariant: a piece is here, or on its way by one request (two in the end game), or missing; exactly one
//! of these. A piece is only asked for once the values of its segment are known, because without them it
//! could not be verified.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use overlay::{
    limits,
    time::Time,
    verify::{Layout, SEGMENT_PIECES},
};
use rand::Rng;

use super::{RequestId, Run, source::Source};
use crate::bitmap::Bitmap;

/// Pieces that are chosen at random before rarity counts: something to trade is needed soon, and the
/// rarest pieces are the slowest to come.
const RANDOM_PIECES: u64 = 4;
/// Segments with known values and missing pieces among which pieces are chosen. Chosen: enough that the
/// next segment's values arrive while the one before is still being fetched.
const OPEN_SEGMENTS: usize = 8;
/// Pieces in front of a reader that it waits for at once: those are asked twice if their source is slow. Chosen: four
/// MiB are some seconds of any film.
pub(super) const URGENT_PIECES: u64 = 4;

/// Time after which values that were asked for are asked of another source too: nothing goes on without them.
const VALUES_PATIENCE: Duration = Duration::from_secs(2);

/// The requests that carry a piece: never none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) first: RequestId,
    pub(super) second: Option<RequestId>,
}

/// The values of a segment that is not wholly unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// Asked for at that time.
    Asked(Time),
    Known,
}

/// See the module text.
#[derive(Debug)]
pub(super) struct Plan {
    layout: Layout,
    have: Bitmap,
    flights: BTreeMap<u64, Flight>,
    /// The pieces that are here or on their way.
    taken: Bitmap,
    /// For each piece, the sources that hold a part with it. Those that hold all change no order.
    copies: Vec<u16>,
    values: BTreeMap<u64, Values>,
    /// For each segment, the pieces that are neither here nor on their way.
    missing: Vec<u32>,
    /// Segments with known values and missing pieces.
    open: BTreeSet<u64>,
    /// The piece that somebody reads at.
    reading: Option<u64>,
}

impl Plan {
    /// A plan for a content of which `have` is here already. `have` has the layout's number of pieces.
    pub(super) fn new(layout: Layout, have: Bitmap) -> Self {
        let mut missing = vec![0; layout.segments() as usize];
        for piece in (0..layout.pieces()).filter(|piece| !have.contains(*piece)) {
            missing[segment_of(piece) as usize] += 1;
        }
        let copies = vec![0; layout.pieces() as usize];
        Self {
            layout,
            taken: have.clone(),
            have,
            flights: BTreeMap::new(),
            copies,
            values: BTreeMap::new(),
            missing,
            open: BTreeSet::new(),
            reading: None,
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn have(&self) -> &Bitmap {
        &self.have
    }

    /// True if `part` has a piece that is still to be asked of somebody; in the end game, of somebody else.
    pub(super) fn would_ask(&self, part: &Bitmap) -> bool {
        let covered = if self.is_end_game() { &self.have } else { &self.taken };
        part.offers(covered, 0..self.layout.pieces())
    }

    pub(super) fn flights(&self) -> impl Iterator<Item = (u64, Flight)> + '_ {
        self.flights.iter().map(|(piece, flight)| (*piece, *flight))
    }

    /// The last piece: it alone proves the size.
    pub(super) fn last_piece(&self) -> u64 {
        self.layout.pieces() - 1
    }

    pub(super) fn is_proven(&self) -> bool {
        self.have.contains(self.last_piece())
    }

    /// True if every piece is here or on its way.
    pub(super) fn is_end_game(&self) -> bool {
        self.have.count() + self.flights.len() as u64 == self.layout.pieces()
    }

    /// Somebody reads from this byte on, or nobody does (any more).
    pub(super) fn read(&mut self, offset: Option<u64>) {
        let piece = offset.map(|offset| offset / u64::from(self.layout.piece_bytes()));
        self.reading = piece.filter(|piece| *piece < self.layout.pieces());
    }

    /// The pieces that a reader waits for.
    pub(super) fn urgent(&self) -> Range<u64> {
        self.reading.map_or(0..0, |piece| piece..piece + URGENT_PIECES)
    }

    /// Bytes of `piece`, which is one of this content.
    pub(super) fn bytes_of(&self, piece: u64) -> u64 {
        self.layout.piece_range(piece).map_or(0, |range| range.end - range.start)
    }

    /// Counts or uncounts a range of a source's part in the rarity of its pieces.
    pub(super) fn count_copies(&mut self, part: &Bitmap, range: Range<u64>, present: bool) {
        for piece in part.iter_in(range) {
            if let Some(copies) = self.copies.get_mut(piece as usize) {
                *copies = if present { copies.saturating_add(1) } else { copies.saturating_sub(1) };
            }
        }
    }

    /// A segment whose values should be asked of `source`: the last one until the size is proven, else one
    /// with missing pieces that it holds, if it has nothing to do in those that are open.
    pub(super) fn next_segment(&self, source: &Source, now: Time) -> Option<u64> {
        let last = self.layout.segments() - 1;
        if !self.is_proven() {
            // Values of other segments would be spent on a size that may be false.
            return (self.may_ask_values(last, now) && source.holds(self.last_piece())).then_some(last);
        }
        if self.is_waiting_for_values(now) {
            return None;
        }
        let wanted = |segment: &u64| {
            self.missing[*segment as usize] > 0
                && self.may_ask_values(*segment, now)
                && source.partial.as_ref().is_none_or(|part| part.offers(&self.have, self.pieces_of(*segment)))
        };
        let read = self.reading.map(segment_of).and_then(|first| (first..=last).take(2).find(wanted));
        read.or_else(|| (0..=last).find(wanted).filter(|_| self.open.len() < OPEN_SEGMENTS))
    }

    fn may_ask_values(&self, segment: u64, now: Time) -> bool {
        match self.values.get(&segment) {
            None => true,
            Some(Values::Asked(at)) => *at + VALUES_PATIENCE <= now,
            Some(Values::Known) => false,
        }
    }

    /// True if values were asked for just now: those of one segment at a time are enough.
    fn is_waiting_for_values(&self, now: Time) -> bool {
        self.values.values().any(|values| matches!(values, Values::Asked(at) if *at + VALUES_PATIENCE > now))
    }

    /// When the values that were asked for last may be asked of another source.
    pub(super) fn values_deadline(&self) -> Option<Time> {
        let asked = self.values.values().filter_map(|values| match values {
            Values::Asked(at) => Some(*at + VALUES_PATIENCE),
            Values::Known => None,
        });
        asked.max()
    }

    pub(super) fn segment_asked(&mut self, segment: u64, now: Time) {
        self.values.insert(segment, Values::Asked(now));
    }

    /// The request for a segment's values failed.
    pub(super) fn segment_lost(&mut self, segment: u64) {
        if matches!(self.values.get(&segment), Some(Values::Asked(_))) {
            self.values.remove(&segment);
        }
    }

    pub(super) fn segment_known(&mut self, segment: u64) {
        self.values.insert(segment, Values::Known);
        self.update_open(segment);
    }

    /// The next pieces to ask of `source`: the one that proves the size first, then those that somebody reads, then those
    /// that the source suggests, then some at random, then the rarest, each extended by its missing neighbours to at most
    /// `max_pieces` within one segment.
    pub(super) fn next_run(&self, source: &Source, max_pieces: u64, rng: &mut dyn Rng) -> Option<Run> {
        let last = self.last_piece();
        if !self.is_proven() && self.is_missing(last) && source.holds(last) && self.is_known(segment_of(last)) {
            return Some(Run { first: last, count: 1 });
        }
        // What lies behind a suggestion was perhaps suggested to somebody else.
        let suggested = || self.next_suggested(source);
        let chosen = self.next_read(source).map(|piece| (piece, u64::MAX)).or_else(suggested);
        let (first, bound) = chosen.or_else(|| Some((self.next_rare(source, max_pieces, rng)?, u64::MAX)))?;
        let end = self.layout.segment_range(segment_of(first)).ok()?.end.min(first + max_pieces.max(1)).min(bound);
        let count = (first..end).take_while(|piece| self.is_missing(*piece) && source.holds(*piece)).count();
        Some(Run { first, count: count as u32 })
    }

    /// The first missing piece in front of the reader that `source` holds.
    fn next_read(&self, source: &Source) -> Option<u64> {
        let reading = self.reading?;
        let segments = self.open.range(segment_of(reading)..);
        let mut pieces = segments.flat_map(|segment| self.pieces_of(*segment)).filter(|piece| *piece >= reading);
        pieces.find(|piece| self.is_missing(*piece) && source.holds(*piece))
    }

    /// The first missing piece that `source` suggested, and where that suggestion ends.
    fn next_suggested(&self, source: &Source) -> Option<(u64, u64)> {
        let pieces = source.suggested.iter().flat_map(|run| {
            let end = run.first.saturating_add(run.count.into());
            (run.first..end).map(move |piece| (piece, end))
        });
        let is_next = |(piece, _): &(u64, u64)| {
            self.is_missing(*piece) && source.holds(*piece) && self.is_known(segment_of(*piece))
        };
        pieces.take(limits::RUN_PIECES as usize * 2).find(is_next)
    }

    /// A missing piece that `source` holds: any, or the rarest.
    fn next_rare(&self, source: &Source, max_pieces: u64, rng: &mut dyn Rng) -> Option<u64> {
        let skip = random_below(rng, self.open.len() as u64) as usize;
        let mut segments = self.open.iter().cycle().skip(skip).take(self.open.len());
        segments.find_map(|segment| self.next_piece(*segment, source, max_pieces, rng))
    }

    /// The rarest missing piece of a segment that `source` holds. Of equals, the first behind a random
    /// multiple of `max_pieces`, so that runs of several sources rarely cut each other short.
    fn next_piece(&self, segment: u64, source: &Source, max_pieces: u64, rng: &mut dyn Rng) -> Option<u64> {
        let range = self.layout.segment_range(segment).ok()?;
        let length = range.end - range.start;
        let stride = max_pieces.max(1);
        let start = random_below(rng, length.div_ceil(stride)) * stride;
        let by_chance = self.have.count() < RANDOM_PIECES;
        let mut best: Option<(u16, u64)> = None;
        for step in 0..length {
            let piece = range.start + (start + step) % length;
            if !self.is_missing(piece) || !source.holds(piece) {
                continue;
            }
            let copies = self.copies[piece as usize];
            if by_chance {
                return Some(piece);
            }
            if best.is_none_or(|(fewest, _)| copies < fewest) {
                best = Some((copies, piece));
            }
        }
        best.map(|(_, piece)| piece)
    }

    /// `request` now carries `piece`. False, and nothing changes, if it is here or carried twice already.
    pub(super) fn depart(&mut self, piece: u64, request: RequestId) -> bool {
        if self.have.contains(piece) {
            return false;
        }
        match self.flights.get_mut(&piece) {
            None => {
                self.flights.insert(piece, Flight { first: request, second: None });
                self.taken.insert(piece);
                self.missing[segment_of(piece) as usize] -= 1;
                self.update_open(segment_of(piece));
                true
            }
            Some(flight) if flight.second.is_none() => {
                flight.second = Some(request);
                true
            }
            Some(_) => false,
        }
    }

    /// `request` no longer carries `piece`; without another request for it, it is missing again.
    pub(super) fn abandon(&mut self, piece: u64, request: RequestId) {
        let Some(flight) = self.flights.get_mut(&piece) else { return };
        if flight.second == Some(request) {
            flight.second = None;
        } else if flight.first == request {
            match flight.second.take() {
                Some(other) => flight.first = other,
                None => {
                    self.flights.remove(&piece);
                    self.taken.remove(piece);
                    self.missing[segment_of(piece) as usize] += 1;
                    self.update_open(segment_of(piece));
                }
            }
        }
    }

    /// `piece` is here. Returns the requests that carried it, or `None` if it was here before.
    pub(super) fn arrive(&mut self, piece: u64) -> Option<[Option<RequestId>; 2]> {
        if !self.have.insert(piece) {
            return None;
        }
        let flight = self.flights.remove(&piece);
        self.taken.insert(piece);
        if flight.is_none() {
            self.missing[segment_of(piece) as usize] -= 1;
            self.update_open(segment_of(piece));
        }
        Some(flight.map(|flight| [Some(flight.first), flight.second]).unwrap_or_default())
    }

    /// True if a piece is neither here nor on its way.
    pub(super) fn is_missing(&self, piece: u64) -> bool {
        piece < self.layout.pieces() && !self.taken.contains(piece)
    }

    fn is_known(&self, segment: u64) -> bool {
        self.values.get(&segment) == Some(&Values::Known)
    }

    fn pieces_of(&self, segment: u64) -> Range<u64> {
        self.layout.segment_range(segment).unwrap_or(0..0)
    }

    fn update_open(&mut self, segment: u64) {
        if self.is_known(segment) && self.missing[segment as usize] > 0 {
            self.open.insert(segment);
        } else {
            self.open.remove(&segment);
        }
    }
}

/// The segment that a piece belongs to.
pub(super) fn segment_of(piece: u64) -> u64 {
    piece / u64::from(SEGMENT_PIECES)
}

/// A random number in `0..bound`, 0 if there is none. The bias is below 2^-40 for the bounds used here.
fn random_below(rng: &mut dyn Rng, bound: u64) -> u64 {
    if bound == 0 { 0 } else { rng.next_u64() % bound }
}

/// The layout of a size that is transferable: one whose segment values fit a frame.
pub(super) fn transferable(size: u64) -> Option<Layout> {
    Layout::new(size).ok().filter(|layout| layout.segments() <= limits::TOPS as u64)
}
