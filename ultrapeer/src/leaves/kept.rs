//! Lists of leaves that went away, for when they return: nothing is uploaded again then.
//!
//! Invariant: at most [`limits::KEPT_FILES`] files, none older than [`limits::KEPT_LIST_LIFETIME`]; who went away
//! first is forgotten first. Every call costs the logarithm of their number, so a mass of leaves that go at once
//! is no burden.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{id::PeerId, limits, time::Time};

/// The chunks of a list, sorted by their hash. Most lists have one: a map would take ten times its room.
pub(super) type Chunks<K> = Box<[([u8; 32], K)]>;

/// The lists. See the module text.
#[derive(Debug)]
pub(super) struct KeptLists<K> {
    lists: BTreeMap<PeerId, Kept<K>>,
    by_age: BTreeSet<(Time, PeerId)>,
    files: u64,
}

#[derive(Debug)]
struct Kept<K> {
    chunks: Chunks<K>,
    files: u64,
    since: Time,
}

impl<K> KeptLists<K> {
    /// No list yet.
    pub(super) fn new() -> Self {
        Self { lists: BTreeMap::new(), by_age: BTreeSet::new(), files: 0 }
    }

    /// Keeps the list of `peer`, in place of an earlier one, and forgets the oldest while there are too many files.
    pub(super) fn put(&mut self, now: Time, peer: PeerId, chunks: Chunks<K>, files: u64) {
        self.take(&peer);
        self.files += files;
        self.by_age.insert((now, peer));
        self.lists.insert(peer, Kept { chunks, files, since: now });
        while self.files > limits::KEPT_FILES
            && let Some(&(_, oldest)) = self.by_age.first()
        {
            self.take(&oldest);
        }
    }

    /// True if the list of that leaf is kept.
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.lists.contains_key(peer)
    }

    /// Takes the list of a leaf that has returned.
    pub(super) fn take(&mut self, peer: &PeerId) -> Option<Chunks<K>> {
        let kept = self.lists.remove(peer)?;
        self.by_age.remove(&(kept.since, *peer));
        self.files -= kept.files;
        Some(kept.chunks)
    }

    /// When the oldest list must be forgotten.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.by_age.first().map(|(since, _)| *since + limits::KEPT_LIST_LIFETIME)
    }

    /// Forgets the lists that nobody came back for.
    pub(super) fn on_deadline(&mut self, now: Time) {
        while let Some(&(since, peer)) = self.by_age.first()
            && since + limits::KEPT_LIST_LIFETIME <= now
        {
            self.take(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn list(number: u8) -> Chunks<u8> {
        Box::new([([number; 32], number)])
    }

    #[test]
    fn who_returns_finds_its_last_list_once() {
        let mut kept = KeptLists::new();
        kept.put(Time(1), peer(1), list(1), 10);
        kept.put(Time(2), peer(1), list(2), 20);
        assert_eq!((kept.files, kept.by_age.len()), (20, 1));
        assert_eq!(kept.take(&peer(1)), Some(list(2)));
        assert_eq!((kept.take(&peer(1)), kept.files, kept.next_deadline()), (None, 0, None));
    }

    #[test]
    fn the_oldest_are_forgotten_by_age_and_for_want_of_room() {
        let mut kept = KeptLists::new();
        for number in 1..=3 {
            kept.put(Time(number.into()), peer(number), list(number), limits::KEPT_FILES / 3);
        }
        kept.put(Time(4), peer(4), list(4), limits::KEPT_FILES / 3);
        assert!(kept.take(&peer(1)).is_none(), "four thirds do not fit");
        let due = Time(2) + limits::KEPT_LIST_LIFETIME;
        assert_eq!(kept.next_deadline(), Some(due));
        kept.on_deadline(due);
        assert_eq!(kept.next_deadline(), Some(Time(3) + limits::KEPT_LIST_LIFETIME));
        assert!(kept.take(&peer(2)).is_none() && kept.take(&peer(4)).is_some());
    }
}
