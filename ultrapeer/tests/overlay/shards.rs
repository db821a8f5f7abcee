//! Many ultrapeers that cover parts of the leaf space: searches ask one member of each, and find all while parts shrink
//! and grow.

use std::{collections::BTreeSet, time::Duration};

use overlay::{
    id::PeerId,
    shards::leaf_hash,
    wire::{descriptor::ShardPrefix, search::StopReason},
};

use super::{expected, files, net::Net};

const ULTRAPEERS: u8 = 40;
const LEAVES: usize = 16;
/// Bytes of memory with which digests of all leaves are too many and those of a half are not.
pub(crate) const SCARCE: u64 = 6_000;

/// Ultrapeers that cover everything, and leaves with three homes anywhere.
pub(crate) fn crowded(seed: u64) -> Net {
    let mut net = Net::new(seed, ULTRAPEERS);
    let homes = net.ultrapeers();
    for number in 0..LEAVES {
        let leaf = net.add_leaf(files(number));
        for home in homes.iter().cycle().skip(number * 5).take(3) {
            net.attach(leaf, *home);
        }
    }
    net.run(Duration::from_secs(5));
    net
}

fn parts(net: &Net) -> BTreeSet<String> {
    net.ultrapeers().iter().map(|peer| net.machine(peer).membership().shard().to_string()).collect()
}

/// Every file is found from here, and the summary says so.
fn all_is_found(net: &mut Net, leaf: usize, when: &str) -> u32 {
    let all: Vec<_> = (0..LEAVES).collect();
    let home = net.homes_of(leaf)[0];
    let found = net.search(leaf, home, "tune");
    let sources: std::collections::BTreeMap<_, _> =
        found.hits.iter().map(|(content, hit)| (*content, hit.sources)).collect();
    assert_eq!(sources, expected(&all), "{when}: {:?}", found.summary);
    assert_eq!((found.summary.stopped, found.summary.incomplete.is_empty()), (StopReason::Exhausted, true), "{when}");
    assert_eq!((found.summary.leaves_covered, found.summary.leaves_total), (LEAVES as u64, LEAVES as u64), "{when}");
    found.summary.shards_asked
}

/// Leaves go to homes that cover them, one home at a time.
pub(crate) fn move_leaves(net: &mut Net) {
    let prefixes: Vec<(PeerId, ShardPrefix)> =
        net.ultrapeers().iter().map(|peer| (*peer, net.machine(peer).membership().shard())).collect();
    for leaf in 0..LEAVES {
        let place = leaf_hash(&net.peer_of(leaf));
        let covering: Vec<_> =
            prefixes.iter().filter(|(_, prefix)| prefix.covers(place)).map(|(peer, _)| *peer).collect();
        let old: Vec<_> = net.homes_of(leaf).into_iter().filter(|home| !covering.contains(home)).collect();
        for home in old {
            let new = covering.iter().find(|peer| !net.homes_of(leaf).contains(peer)).expect("enough members");
            net.attach(leaf, *new);
            net.run(Duration::from_secs(1));
            net.leave(leaf, home);
        }
    }
    net.run(Duration::from_secs(2));
}

#[test]
fn parts_shrink_and_grow_while_searches_find_everything() {
    let mut net = crowded(1);
    assert_eq!(parts(&net), BTreeSet::from([String::new()]));
    assert_eq!(all_is_found(&mut net, 0, "at first"), 1);

    net.set_memory(SCARCE);
    for step in 0..6 {
        net.run(Duration::from_secs(1));
        all_is_found(&mut net, step * 2, "while parts shrink");
    }
    net.run(Duration::from_secs(30));
    let shrunk = parts(&net);
    assert!(shrunk.contains("0") && shrunk.contains("1"), "{shrunk:?}");
    // Their leaves did not move yet, and are told of in the part where they belong. Not all ultrapeers had reason to
    // cover less, so some searches still ask one alone.
    let asked = [1, 4, 9].map(|leaf| all_is_found(&mut net, leaf, "before leaves move"));
    assert!(asked.iter().any(|shards| *shards > 1), "{asked:?}");
    move_leaves(&mut net);
    let asked = [0, 7, 13].map(|leaf| all_is_found(&mut net, leaf, "after leaves moved"));
    assert!(asked.iter().any(|shards| *shards > 1), "{asked:?}");

    net.set_memory(1 << 30);
    for step in 0..8 {
        net.run(Duration::from_secs(30));
        all_is_found(&mut net, step * 2 + 1, "while parts grow");
    }
    net.run(Duration::from_mins(8));
    assert_eq!(parts(&net), BTreeSet::from([String::new()]));
    assert_eq!(all_is_found(&mut net, 2, "at last"), 1);
}
