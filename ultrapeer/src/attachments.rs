//! Core: which leaf is attached to which ultrapeers, and with which list.
//!
//! What it decides: who must be asked so that every leaf of the network is searched once.
//!
//! Every home logs the leaves whose list is in its index, by a handle that is random for each session, and
//! tells all other ultrapeers of each change. Invariants:
//! - a leaf is logged only once its list is acknowledged, so who is asked also knows;
//! - a home's copy elsewhere is complete as soon as it says `caught_up`, and forgotten when the home is gone.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{
    id::PeerId,
    limits,
    time::Time,
    wire::{
        bounded::List,
        mesh::{AttachmentChange, Attachments as Frame},
    },
};
use rustc_hash::FxHashMap;

/// The leaves of the network and their homes, as this ultrapeer knows them.
#[derive(Debug)]
pub struct Attachments {
    me: PeerId,
    own: BTreeMap<u64, u64>,
    others: BTreeMap<PeerId, Copy>,
    /// Handle to homes with the sequence of the list that each has. Derived from `own` and `others`.
    homes: FxHashMap<u64, Vec<(PeerId, u64)>>,
}

/// What is known of another home's log.
#[derive(Debug, Default)]
struct Copy {
    leaves: BTreeMap<u64, u64>,
    caught_up: bool,
    /// When the copy stopped being current; `None` while it is.
    stale_since: Option<Time>,
}

/// Who must be asked, and whom nobody can answer for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cover {
    /// Homes to ask in addition, each with the number of leaves that it is asked for. Most leaves first.
    pub ask: Vec<(PeerId, usize)>,
    /// Leaves that no home can be asked for any more.
    pub lost: usize,
}

impl Attachments {
    /// No leaf yet.
    pub fn new(me: PeerId) -> Self {
        Self { me, own: BTreeMap::new(), others: BTreeMap::new(), homes: FxHashMap::default() }
    }

    /// Leaves attached anywhere, each counted once.
    pub fn leaves(&self) -> usize {
        self.homes.len()
    }

    /// Leaves that another home has logged.
    pub fn leaves_of(&self, home: &PeerId) -> usize {
        self.others.get(home).map_or(0, |copy| copy.leaves.len())
    }

    /// True if that other home has logged a leaf.
    pub fn is_home(&self, home: &PeerId, handle: u64) -> bool {
        self.others.get(home).is_some_and(|copy| copy.leaves.contains_key(&handle))
    }

    /// Logs that the list `sequence` of an own leaf is searchable here, or that the leaf left. Returns what
    /// must be told to all other ultrapeers; `None` if nothing changed.
    pub fn own_change(&mut self, handle: u64, sequence: Option<u64>) -> Option<Frame> {
        let before = match sequence {
            Some(sequence) => self.own.insert(handle, sequence),
            None => self.own.remove(&handle),
        };
        if before == sequence {
            return None;
        }
        self.place(handle, self.me, sequence);
        let changes = List::new([AttachmentChange { handle, sequence }]);
        Some(Frame { reset: false, caught_up: true, changes })
    }

    /// The own log, whole, for an ultrapeer that has just been linked.
    pub fn snapshot(&self) -> Vec<Frame> {
        let all: Vec<_> = self
            .own
            .iter()
            .map(|(handle, sequence)| AttachmentChange { handle: *handle, sequence: Some(*sequence) })
            .collect();
        let mut frames: Vec<_> = all
            .chunks(limits::ATTACHMENTS_PER_FRAME)
            .map(|part| Frame { reset: false, caught_up: false, changes: List::new(part.iter().copied()) })
            .collect();
        if frames.is_empty() {
            frames.push(Frame { reset: false, caught_up: false, changes: List::default() });
        }
        if let Some(first) = frames.first_mut() {
            first.reset = true;
        }
        if let Some(last) = frames.last_mut() {
            last.caught_up = true;
        }
        frames
    }

    /// Another home tells of its leaves. A home that claims more than a home can have is cut off there.
    pub fn heard(&mut self, home: PeerId, frame: Frame) {
        if frame.reset {
            self.forget(&home);
        }
        let copy = self.others.entry(home).or_default();
        if frame.caught_up {
            copy.caught_up = true;
            copy.stale_since = None;
        }
        for AttachmentChange { handle, sequence } in frame.changes {
            let copy = self.others.entry(home).or_default();
            match sequence {
                Some(_) if copy.leaves.len() >= limits::LEAVES_OF_HOME && !copy.leaves.contains_key(&handle) => {
                    continue;
                }
                Some(sequence) => copy.leaves.insert(handle, sequence),
                None => copy.leaves.remove(&handle),
            };
            self.place(handle, home, sequence);
        }
    }

    /// The link to a home is lost: its copy ages until the home is back or gone.
    pub fn unlinked(&mut self, now: Time, home: &PeerId) {
        if let Some(copy) = self.others.get_mut(home) {
            copy.stale_since.get_or_insert(now);
        }
    }

    /// A home is gone: its leaves are not attached there any more.
    pub fn forget(&mut self, home: &PeerId) {
        let Some(copy) = self.others.remove(home) else { return };
        for handle in copy.leaves.into_keys() {
            self.place(handle, *home, None);
        }
    }

    /// True if that home's copy is complete and current, or was until [`limits::DIGEST_LAG`] ago.
    pub fn is_current(&self, now: Time, home: &PeerId) -> bool {
        self.others.get(home).is_some_and(|copy| {
            copy.caught_up && copy.stale_since.is_none_or(|since| now.since(since) <= limits::DIGEST_LAG)
        })
    }

    /// Whom to ask so that every leaf is searched, given that this ultrapeer and those in `asked` are, and
    /// that those in `excluded` cannot be. Of several homes, the one with the newest list counts; the
    /// choice is greedy, most leaves first, which is within ln(n) of the smallest cover.
    pub fn cover(&self, asked: &BTreeSet<PeerId>, excluded: &BTreeSet<PeerId>) -> Cover {
        let mut cover = Cover::default();
        let mut open: BTreeMap<u64, Vec<PeerId>> = BTreeMap::new();
        for (handle, homes) in &self.homes {
            let usable = homes.iter().filter(|(home, _)| !excluded.contains(home));
            let newest = usable.clone().map(|(_, sequence)| *sequence).max();
            let best: Vec<_> =
                usable.filter(|(_, sequence)| Some(*sequence) == newest).map(|(home, _)| *home).collect();
            if best.is_empty() {
                cover.lost += 1;
            } else if !best.iter().any(|home| *home == self.me || asked.contains(home)) {
                open.insert(*handle, best);
            }
        }
        while !open.is_empty() {
            let mut counts: BTreeMap<PeerId, usize> = BTreeMap::new();
            for home in open.values().flatten() {
                *counts.entry(*home).or_default() += 1;
            }
            // The last maximum wins, so iterate downwards: ties go to the lowest key.
            let Some((home, count)) = counts.into_iter().rev().max_by_key(|(_, count)| *count) else { break };
            open.retain(|_, homes| !homes.contains(&home));
            cover.ask.push((home, count));
        }
        cover
    }

    fn place(&mut self, handle: u64, home: PeerId, sequence: Option<u64>) {
        let homes = self.homes.entry(handle).or_default();
        homes.retain(|(known, _)| *known != home);
        if let Some(sequence) = sequence {
            homes.push((home, sequence));
        }
        if homes.is_empty() {
            self.homes.remove(&handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn peer(byte: u8) -> PeerId {
        PeerId([byte; 32])
    }

    fn frame(reset: bool, changes: &[(u64, Option<u64>)]) -> Frame {
        let changes =
            changes.iter().map(|(handle, sequence)| AttachmentChange { handle: *handle, sequence: *sequence });
        Frame { reset, caught_up: true, changes: List::new(changes) }
    }

    fn none() -> BTreeSet<PeerId> {
        BTreeSet::new()
    }

    #[test]
    fn leaves_that_are_here_too_need_nobody_else() {
        let mut log = Attachments::new(peer(0));
        log.own_change(7, Some(1));
        log.heard(peer(1), frame(true, &[(7, Some(1))]));
        log.heard(peer(2), frame(true, &[(7, Some(1)), (8, Some(1))]));
        assert_eq!(log.leaves(), 2);
        assert_eq!(log.cover(&none(), &none()), Cover { ask: vec![(peer(2), 1)], lost: 0 });
    }

    #[test]
    fn the_home_with_the_newest_list_is_asked() {
        let mut log = Attachments::new(peer(0));
        log.own_change(7, Some(1));
        log.heard(peer(1), frame(true, &[(7, Some(2))]));
        assert_eq!(log.cover(&none(), &none()).ask, vec![(peer(1), 1)]);
        let excluded = BTreeSet::from([peer(1)]);
        assert_eq!(log.cover(&none(), &excluded), Cover::default(), "the older list is better than none");
    }

    #[test]
    fn a_home_that_is_gone_leaves_its_only_leaves_lost_then_forgotten() {
        let mut log = Attachments::new(peer(0));
        log.heard(peer(1), frame(true, &[(7, Some(2))]));
        assert_eq!(log.cover(&none(), &BTreeSet::from([peer(1)])).lost, 1);
        log.forget(&peer(1));
        assert_eq!(log.leaves(), 0);
    }

    #[test]
    fn a_copy_is_current_until_its_link_was_lost_for_three_seconds() {
        let mut log = Attachments::new(peer(0));
        assert!(!log.is_current(Time::ZERO, &peer(1)));
        log.heard(peer(1), frame(true, &[]));
        assert!(log.is_current(Time::ZERO, &peer(1)));
        log.unlinked(Time::ZERO, &peer(1));
        assert!(log.is_current(Time::ZERO + Duration::from_secs(3), &peer(1)));
        assert!(!log.is_current(Time::ZERO + Duration::from_secs(4), &peer(1)));
    }

    #[test]
    fn a_snapshot_carries_the_whole_log_whatever_its_length() {
        let mut log = Attachments::new(peer(0));
        for handle in 0..5_000 {
            log.own_change(handle, Some(1));
        }
        let mut other = Attachments::new(peer(1));
        other.heard(peer(0), frame(true, &[(99_999, Some(1))]));
        for part in log.snapshot() {
            other.heard(peer(0), part);
        }
        assert_eq!(other.leaves(), 5_000, "and what it said before the reset is forgotten");
    }

    proptest! {
        /// Whatever the homes say, in whatever order: the cover reaches every leaf that any home has.
        #[test]
        fn a_cover_reaches_every_leaf(
            changes in proptest::collection::vec((1_u8..6, 0_u64..12, proptest::option::of(0_u64..3)), 0..120),
            excluded in proptest::collection::btree_set(1_u8..6, 0..3),
        ) {
            let mut log = Attachments::new(peer(0));
            let mut model: BTreeMap<(u8, u64), u64> = BTreeMap::new();
            for (home, handle, sequence) in changes {
                log.heard(peer(home), frame(false, &[(handle, sequence)]));
                match sequence {
                    Some(sequence) => model.insert((home, handle), sequence),
                    None => model.remove(&(home, handle)),
                };
            }
            let banned: BTreeSet<_> = excluded.iter().map(|byte| peer(*byte)).collect();
            let cover = log.cover(&none(), &banned);
            let asked: BTreeSet<_> = cover.ask.iter().map(|(home, _)| *home).collect();
            prop_assert!(asked.is_disjoint(&banned));
            let all: BTreeSet<u64> = model.keys().map(|(_, handle)| *handle).collect();
            prop_assert_eq!(log.leaves(), all.len());
            let mut lost = 0;
            for handle in all {
                let homes: Vec<u8> = model.keys().filter(|(_, known)| *known == handle).map(|(home, _)| *home).collect();
                if homes.iter().all(|home| excluded.contains(home)) {
                    lost += 1;
                } else {
                    prop_assert!(homes.iter().any(|home| asked.contains(&peer(*home))));
                }
            }
            prop_assert_eq!(cover.lost, lost);
        }
    }
}
