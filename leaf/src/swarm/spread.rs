//! What a holder does so that a content spreads: which pieces it suggests, and whom else it names.
//!
//! A whole holder walks through the pieces and suggests to each downloader others than to the one before, so that it sends
//! everything once before it sends anything twice, and downloaders have something to trade from the first piece on. Whoever
//! serves or fetches a content names to its downloaders others who do, so that a swarm holds together without a list of it
//! anywhere. Both are bounded and forget.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{id::PeerId, limits, time::Time};
use rand::Rng;

use super::Run;

/// The pieces of one content that were suggested last.
#[derive(Clone, Copy, Debug)]
pub struct Suggestions {
    pieces: u64,
    next: u64,
}

impl Suggestions {
    /// Suggestions among `pieces`, at least one, from any number on: holders that begin in different places send different
    /// pieces.
    pub fn new(pieces: u64, from: u64) -> Self {
        Self { pieces: pieces.max(1), next: from % pieces.max(1) }
    }

    /// The next pieces, at most `most` and at least one.
    pub fn next(&mut self, most: u32) -> Run {
        let first = self.next;
        let count = u64::from(most.max(1)).min(self.pieces - first);
        self.next = (first + count) % self.pieces;
        Run { first, count: count as u32 }
    }
}

/// Others who hold something of one content, with their homes.
#[derive(Clone, Debug, Default)]
pub struct Others {
    known: BTreeMap<PeerId, (Vec<PeerId>, Time)>,
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
        self.known.insert(peer, (homes[..homes.len().min(limits::HOMES)].to_vec(), now));
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
    /// from then on. After [`limits::OTHERS_KNOWN`] it is told of all again.
    pub fn sample(
        &mut self,
        now: Time,
        listener: &PeerId,
        told: &mut BTreeSet<PeerId>,
        rng: &mut dyn Rng,
    ) -> Vec<(PeerId, Vec<PeerId>)> {
        self.known.retain(|_, (_, at)| now < *at + limits::OTHERS_LIFETIME);
        let is_news = |peer: &PeerId| peer != listener && !told.contains(peer);
        let mut left: Vec<_> = self.known.iter().filter(|(peer, _)| is_news(peer)).collect();
        let mut chosen = Vec::new();
        while chosen.len() < limits::OTHERS_TOLD && !left.is_empty() {
            let (peer, (homes, _)) = left.swap_remove((rng.next_u64() % left.len() as u64) as usize);
            chosen.push((*peer, homes.clone()));
        }
        if told.len() + chosen.len() > limits::OTHERS_KNOWN {
            told.clear();
        }
        told.extend(chosen.iter().map(|(peer, _)| *peer));
        chosen
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(counts, [2, 2, 2, 2, 1, 1, 1, 2, 2, 2]);
        assert_eq!(Suggestions::new(0, 9).next(5), Run { first: 0, count: 1 });
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
        let mut known = BTreeSet::new();
        let told = others.sample(Time(1000), &listener, &mut known, rng);
        assert_eq!(told.len(), limits::OTHERS_TOLD);
        assert!(told.iter().all(|(peer, homes)| *peer != listener && homes.len() == limits::HOMES));
        let mut all = told.len();
        loop {
            let more = others.sample(Time(1000), &listener, &mut known, rng);
            assert!(more.iter().all(|other| !told.contains(other)));
            all += more.len();
            if more.is_empty() {
                break;
            }
        }
        assert_eq!((all, known.len()), (limits::OTHERS_KNOWN - 1, limits::OTHERS_KNOWN - 1));
        others.lost(&peer(998));
        assert_eq!(others.len(), limits::OTHERS_KNOWN - 1);
        assert!(others.sample(Time(2000) + limits::OTHERS_LIFETIME, &listener, &mut BTreeSet::new(), rng).is_empty());
    }
}
