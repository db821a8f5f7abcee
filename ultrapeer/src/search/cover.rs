//! Which homes are asked for the leaves that are open.
//!
//! The first homes of a search are asked *whole*: for every open leaf that they have, so that what many leaves have is
//! told with good sources and names. From then on only what is *new* counts: leaves of which some content is not known
//! and nobody is asked for it, and leaves of which nothing is known. So a popular search does not ask nearly all
//! homes for the same contents over and over.
//!
//! Chosen greedily, which is within ln(n) of the smallest cover: the home of most that is new, then of most leaves,
//! then the lowest key.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{id::PeerId, wire::mesh::ContentKey};
use rustc_hash::FxHashSet;

/// A leaf that nobody is asked for at the moment.
#[derive(Debug)]
pub(super) struct Open<'a> {
    pub(super) handle: u64,
    /// Who can be asked for it.
    pub(super) homes: Vec<PeerId>,
    /// Contents that may match; none if they are not known.
    pub(super) contents: &'a [ContentKey],
}

/// A home to ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) home: PeerId,
    /// Ascending.
    pub(super) leaves: Vec<u64>,
    /// True if it shall tell all that matches, false if what is known need not be told.
    pub(super) whole: bool,
}

/// At most `room` homes, the first `whole` of them for all of their leaves. `sought` are contents that are known or
/// asked for.
pub(super) fn cover(
    open: &[Open<'_>],
    mut sought: FxHashSet<ContentKey>,
    mut room: usize,
    mut whole: usize,
) -> Vec<Pick> {
    let mut of_home: BTreeMap<PeerId, BTreeSet<usize>> = BTreeMap::new();
    for (at, leaf) in open.iter().enumerate() {
        for home in &leaf.homes {
            of_home.entry(*home).or_default().insert(at);
        }
    }
    let mut picks = Vec::new();
    while room > 0 {
        // With more homes than that everybody is asked whatever is new.
        let counts = whole < usize::MAX;
        let rank = |leaves: &BTreeSet<usize>| (if counts { new(open, leaves, &sought) } else { 0 }, leaves.len());
        // The last maximum wins, so look downwards: ties go to the lowest key.
        let best = of_home.iter().rev().map(|(home, leaves)| (rank(leaves), *home)).max_by_key(|(rank, _)| *rank);
        let Some((_, home)) = best.filter(|((new, count), _)| *count > 0 && (whole > 0 || *new > 0)) else {
            break;
        };
        let mut leaves = of_home.remove(&home).unwrap_or_default();
        if whole == 0 {
            leaves.retain(|at| is_new(&open[*at], &sought));
        }
        for at in &leaves {
            sought.extend(open[*at].contents);
            for other in &open[*at].homes {
                if let Some(of_other) = of_home.get_mut(other) {
                    of_other.remove(at);
                }
            }
        }
        picks.push(Pick { home, leaves: leaves.iter().map(|at| open[*at].handle).collect(), whole: whole > 0 });
        (room, whole) = (room - 1, whole.saturating_sub(1));
    }
    picks
}

/// What the leaves have that nobody else is asked for: contents, and leaves whose contents are not known.
fn new(open: &[Open<'_>], leaves: &BTreeSet<usize>, sought: &FxHashSet<ContentKey>) -> usize {
    let unknown = leaves.iter().filter(|at| open[**at].contents.is_empty()).count();
    let contents = leaves.iter().flat_map(|at| open[*at].contents);
    contents.filter(|key| !sought.contains(*key)).collect::<FxHashSet<_>>().len() + unknown
}

fn is_new(leaf: &Open<'_>, sought: &FxHashSet<ContentKey>) -> bool {
    leaf.contents.is_empty() || leaf.contents.iter().any(|key| !sought.contains(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> ContentKey {
        ContentKey(number.to_be_bytes())
    }

    fn home(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    proptest! {
        #[test]
        fn what_is_new_is_asked_for_once_and_what_is_sought_is_not(
            leaves in prop::collection::vec(
                (prop::collection::btree_set(0u8..12, 0..4), prop::collection::vec(0u64..20, 0..6)), 0..40),
            sought in prop::collection::btree_set(0u64..20, 0..10),
            room in 0usize..14,
            whole in 0usize..9,
        ) {
            let contents: Vec<Vec<_>> = leaves.iter().map(|(_, held)| held.iter().copied().map(key).collect()).collect();
            let open: Vec<_> = leaves.iter().zip(&contents).enumerate().map(|(at, ((homes, _), contents))| Open {
                handle: at as u64, homes: homes.iter().copied().map(home).collect(), contents }).collect();
            let known: FxHashSet<_> = sought.iter().copied().map(key).collect();
            let picks = cover(&open, known.clone(), room, whole);
            prop_assert!(picks.len() <= room);
            let mut asked = BTreeSet::new();
            let mut told = known;
            for (at, pick) in picks.iter().enumerate() {
                prop_assert_eq!(pick.whole, at < whole);
                prop_assert!(!pick.leaves.is_empty());
                for handle in &pick.leaves {
                    let leaf = &open[*handle as usize];
                    prop_assert!(asked.insert(*handle), "asked twice");
                    prop_assert!(leaf.homes.contains(&pick.home));
                    prop_assert!(pick.whole || is_new(leaf, &told));
                }
                told.extend(pick.leaves.iter().flat_map(|handle| open[*handle as usize].contents));
            }
            if picks.len() < room {
                // There was room for more, so nothing that can be asked for is left.
                for leaf in open.iter().filter(|leaf| !asked.contains(&leaf.handle) && !leaf.homes.is_empty()) {
                    prop_assert!(!is_new(leaf, &told) && picks.len() >= whole, "{leaf:?}");
                }
            }
        }
    }

    #[test]
    fn the_home_of_most_that_is_new_comes_first() {
        let same = [key(1)];
        let other = [key(2), key(3)];
        let open = [
            Open { handle: 1, homes: vec![home(1)], contents: &same },
            Open { handle: 2, homes: vec![home(1)], contents: &same },
            Open { handle: 3, homes: vec![home(1)], contents: &same },
            Open { handle: 4, homes: vec![home(2)], contents: &other },
            Open { handle: 5, homes: vec![home(3)], contents: &same },
        ];
        let pick = |number, leaves: &[u64], whole| Pick { home: home(number), leaves: leaves.to_vec(), whole };
        let of = |room, whole| cover(&open, FxHashSet::default(), room, whole);
        assert_eq!(of(9, 9), [pick(2, &[4], true), pick(1, &[1, 2, 3], true), pick(3, &[5], true)]);
        assert_eq!(of(9, 1), [pick(2, &[4], true), pick(1, &[1, 2, 3], false)]);
        assert_eq!(of(1, 0), [pick(2, &[4], false)]);
    }
}
