//! What a holder does so that a content spreads: which pieces it suggests, and whom else it names.
//!
//! A whole holder suggests to each downloader what it has not sent yet and suggested to nobody else, so that it sends
//! everything once before it sends anything twice, and downloaders have something to trade from the first piece on. Whoever
//! serves or fetches a content names to its downloaders others who do, so that a swarm holds together without a list of it
//! anywhere. Both are bounded and forget.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{id::PeerId, limits, time::Time};
use rand::Rng;

use super::Run;
use crate::bitmap::Bitmap;

/// Pieces to suggest to a session that begins, and to have suggested ahead of its requests: what one may ask of a source whose
/// rate it does not know.
pub fn suggested_ahead(piece_bytes: u32) -> u32 {
    (limits::RUN_BYTES / u64::from(piece_bytes.max(1))).clamp(1, limits::RUN_PIECES.into()) as u32
}

/// Which pieces of one content to suggest: in each round every piece until it is sent, those first that were suggested to
/// nobody yet. Takes two bits for each piece.
#[derive(Clone, Debug)]
pub struct Suggestions {
    /// Asked for in this round. Never full.
    sent: Bitmap,
    /// Suggested in this round, and perhaps never asked for.
    suggested: Bitmap,
    next: u64,
}

impl Suggestions {
    /// Suggestions among `pieces`, at least one, from any number on: holders that begin in different places send different
    /// pieces.
    pub fn new(pieces: u64, from: u64) -> Self {
        let pieces = pieces.max(1);
        Self { sent: Bitmap::new(pieces), suggested: Bitmap::new(pieces), next: from % pieces }
    }

    /// The next pieces, at most `most` and at least one.
    pub fn next(&mut self, most: u32) -> Run {
        let first = self.first_fresh().unwrap_or_else(|| {
            // What is left was suggested to somebody who has not asked for it: somebody else may.
            self.suggested = Bitmap::new(self.sent.len());
            self.first_fresh().unwrap_or(self.next)
        });
        let end = self.sent.len().min(first + u64::from(most.max(1)));
        let count = (first..end).take_while(|piece| self.is_fresh(*piece)).count().max(1);
        self.next = (first + count as u64) % self.sent.len();
        for piece in first..first + count as u64 {
            self.suggested.insert(piece);
        }
        Run { first, count: count as u32 }
    }

    /// These are asked for, suggested or not. After everything was, a new round begins.
    pub fn sent(&mut self, run: Run) {
        for piece in (run.first..self.sent.len()).take(run.count as usize) {
            self.sent.insert(piece);
        }
        if self.sent.is_full() {
            self.sent = Bitmap::new(self.sent.len());
            self.suggested = self.sent.clone();
        }
    }

    /// These were asked for, and then were not sent after all.
    pub fn unsent(&mut self, run: Run) {
        for piece in (run.first..self.sent.len()).take(run.count as usize) {
            self.sent.remove(piece);
            self.suggested.remove(piece);
        }
    }

    fn is_fresh(&self, piece: u64) -> bool {
        !self.sent.contains(piece) && !self.suggested.contains(piece)
    }

    fn first_fresh(&self) -> Option<u64> {
        (self.next..self.sent.len()).chain(0..self.next).find(|piece| self.is_fresh(*piece))
    }
}

/// Others who hold something of one content, with their homes.
#[derive(Clone, Debug, Default)]
pub struct Others {
    known: BTreeMap<PeerId, (Vec<PeerId>, Time)>,
    /// How many were added in all.
    added: u64,
}

/// Whom one listener was told of.
#[derive(Clone, Debug, Default)]
pub struct Told {
    peers: BTreeSet<PeerId>,
    /// What [`Others`] had added when there was nobody left to tell of.
    all_of: Option<u64>,
    /// How many times it was told of somebody.
    times: usize,
    /// It is told of nobody before.
    next: Time,
}

impl Others {
    /// `peer` has something of the content. It takes the place of the one that was not heard of for longest if there are
    /// [`limits::OTHERS_KNOWN`]. One without homes cannot be reached, and is not remembered.
    pub fn heard(&mut self, now: Time, peer: PeerId, homes: &[PeerId]) {
        if homes.is_empty() {
            return;
        }
        if self.known.len() >= limits::OTHERS_KNOWN && !self.known.contains_key(&peer) {
            let oldest = self.known.iter().min_by_key(|(_, (_, at))| *at).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| self.known.remove(&oldest));
        }
        let homes = homes[..homes.len().min(limits::HOMES)].to_vec();
        if self.known.insert(peer, (homes, now)).is_none() {
            self.added += 1;
        }
    }

    /// `peer` has nothing (any more).
    pub fn lost(&mut self, peer: &PeerId) {
        self.known.remove(peer);
    }

    /// When somebody was heard of last; the beginning of time if nobody was.
    pub fn heard_at(&self) -> Time {
        self.known.values().map(|(_, at)| *at).max().unwrap_or(Time::ZERO)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Some of them for `listener` that are not among those that it was `told` of, at most [`limits::OTHERS_TOLD`]; they are
    /// from then on. After [`limits::OTHERS_SOON`] it is told of some every [`limits::OTHERS_PAUSE`], after
    /// [`limits::OTHERS_KNOWN`] of all again.
    pub fn sample(
        &mut self,
        now: Time,
        listener: &PeerId,
        told: &mut Told,
        rng: &mut dyn Rng,
    ) -> Vec<(PeerId, Vec<PeerId>)> {
        if told.all_of == Some(self.added) || now < told.next {
            return Vec::new();
        }
        self.known.retain(|_, (_, at)| now < *at + limits::OTHERS_LIFETIME);
        let is_news = |peer: &PeerId| peer != listener && !told.peers.contains(peer);
        let mut left: Vec<_> = self.known.iter().filter(|(peer, _)| is_news(peer)).collect();
        let mut chosen = Vec::new();
        while chosen.len() < limits::OTHERS_TOLD && !left.is_empty() {
            let (peer, (homes, _)) = left.swap_remove((rng.next_u64() % left.len() as u64) as usize);
            chosen.push((*peer, homes.clone()));
        }
        told.all_of = left.is_empty().then_some(self.added);
        if told.peers.len() + chosen.len() > limits::OTHERS_KNOWN {
            told.peers.clear();
        }
        told.peers.extend(chosen.iter().map(|(peer, _)| *peer));
        told.times += chosen.len();
        if told.times >= limits::OTHERS_SOON {
            told.next = now + limits::OTHERS_PAUSE;
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_pcg::Pcg32;

    use super::*;

    #[test]
    fn everything_is_suggested_once_before_anything_is_twice() {
        let mut suggestions = Suggestions::new(10, 27);
        let mut counts = [0; 10];
        for most in [3, 1, 0, 16, 4] {
            let run = suggestions.next(most);
            (run.first..run.first + u64::from(run.count)).for_each(|piece| counts[piece as usize] += 1);
        }
        assert_eq!(counts, [1, 1, 1, 1, 1, 1, 1, 2, 2, 2]);
        assert_eq!(Suggestions::new(0, 9).next(5), Run { first: 0, count: 1 });
    }

    proptest! {
        #[test]
        fn what_is_not_sent_is_suggested_and_first_what_was_suggested_to_nobody(
            pieces in 1u64..40, from: u64, steps in prop::collection::vec((0..5, 0u64..44, 0u32..9), 1..80),
        ) {
            let mut suggestions = Suggestions::new(pieces, from);
            let (mut sent, mut suggested) = (BTreeSet::new(), BTreeSet::new());
            for (kind, first, count) in steps {
                let of_run = (first..first + u64::from(count)).filter(|piece| *piece < pieces);
                if kind < 2 {
                    suggestions.sent(Run { first, count });
                    sent.extend(of_run);
                    if sent.len() as u64 == pieces {
                        sent.clear();
                        suggested.clear();
                    }
                    continue;
                }
                if kind == 2 {
                    suggestions.unsent(Run { first, count });
                    of_run.for_each(|piece| {
                        sent.remove(&piece);
                        suggested.remove(&piece);
                    });
                    continue;
                }
                let run = suggestions.next(count);
                let of_run = run.first..run.first + u64::from(run.count);
                prop_assert!(run.count >= 1 && run.count <= count.max(1) && of_run.end <= pieces);
                if (0..pieces).all(|piece| sent.contains(&piece) || suggested.contains(&piece)) {
                    suggested.clear();
                }
                prop_assert!(of_run.clone().all(|piece| !sent.contains(&piece) && suggested.insert(piece)));
            }
        }
    }

    #[test]
    fn others_are_told_to_each_but_themselves_until_they_are_not_heard_of() {
        let peer = |number: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_le_bytes());
            PeerId(id)
        };
        let (mut others, rng) = (Others::default(), &mut Pcg32::seed_from_u64(1));
        others.heard(Time::ZERO, peer(1), &[]);
        assert!(others.is_empty());
        for number in 0..1000 {
            others.heard(Time(number), peer(number), &[peer(7); 9]);
        }
        assert_eq!(others.len(), limits::OTHERS_KNOWN);
        let listener = peer(999);
        let mut known = Told::default();
        let told = others.sample(Time(1000), &listener, &mut known, rng);
        assert_eq!(told.len(), limits::OTHERS_TOLD);
        assert!(told.iter().all(|(peer, homes)| *peer != listener && homes.len() == limits::HOMES));
        let (mut all, mut pauses, mut now) = (told.len(), Vec::new(), Time(1000));
        loop {
            let more = others.sample(now, &listener, &mut known, rng);
            assert!(more.iter().all(|other| !told.contains(other)));
            all += more.len();
            if more.is_empty() && known.all_of.is_some() {
                break;
            }
            if more.is_empty() {
                pauses.push(all);
                now += limits::OTHERS_PAUSE;
            }
        }
        assert_eq!(pauses[0], limits::OTHERS_SOON);
        assert!(pauses.windows(2).all(|pair| pair[1] - pair[0] == limits::OTHERS_TOLD), "{pauses:?}");
        assert_eq!((all, known.peers.len()), (limits::OTHERS_KNOWN - 1, limits::OTHERS_KNOWN - 1));
        others.lost(&peer(998));
        assert_eq!(others.len(), limits::OTHERS_KNOWN - 1);
        assert!(others.sample(Time(2000) + limits::OTHERS_LIFETIME, &listener, &mut Told::default(), rng).is_empty());
    }
}
