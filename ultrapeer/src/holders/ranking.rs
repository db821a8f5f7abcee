//! Who must know the holders of a content: rendezvous hashing (highest random weight).
//!
//! Networks (address prefixes) are ranked for each content, and the first [`limits::HOLDERS`] of them give one
//! ultrapeer each: whoever runs many nodes in one network has no more of the contents than who runs one. If there are
//! fewer networks, the rest is filled with further nodes.
//!
//! Invariants: everyone who knows the same ultrapeers ranks alike; and who comes takes over its own contents and moves
//! no others, who goes leaves the rest where they are (as long as there are enough networks).

use std::collections::BTreeMap;

use overlay::{id::PeerId, limits, wire::mesh::ContentKey};

/// Ultrapeers that must know a content, first the one to ask first.
pub(super) type Owners = [Option<PeerId>; limits::HOLDERS];

/// The ultrapeers at one moment.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    networks: Vec<Network>,
    members: usize,
}

#[derive(Debug)]
struct Network {
    seed: u64,
    members: Vec<(u64, PeerId)>,
}

impl Ranking {
    /// Of ultrapeers, each with the number of its network.
    pub(super) fn new(members: impl IntoIterator<Item = (PeerId, u64)>) -> Self {
        let mut networks: BTreeMap<u64, Vec<(u64, PeerId)>> = BTreeMap::new();
        for (peer, network) in members {
            networks.entry(network).or_default().push((seed_of(&peer.0), peer));
        }
        let members = networks.values().map(Vec::len).sum();
        let network = |(number, members): (u64, Vec<_>)| Network { seed: seed_of(&number.to_le_bytes()), members };
        Self { networks: networks.into_iter().map(network).collect(), members }
    }

    /// Ultrapeers in it.
    pub(super) fn members(&self) -> usize {
        self.members
    }

    /// Those that must know a content.
    pub(super) fn owners(&self, key: ContentKey) -> Owners {
        let key = key.number();
        let mut best = [None; limits::HOLDERS];
        for (place, network) in self.networks.iter().enumerate() {
            rank(&mut best, mix(network.seed, key), place);
        }
        let mut owners = [None; limits::HOLDERS];
        for (owner, place) in owners.iter_mut().zip(best.iter().flatten().map(|(_, place)| *place)) {
            let first = self.networks[place].members.iter().max_by_key(|(seed, peer)| (mix(*seed, key), *peer));
            *owner = first.map(|(_, peer)| *peer);
        }
        if self.networks.len() < limits::HOLDERS {
            self.fill(key, &mut owners);
        }
        owners
    }

    fn fill(&self, key: u64, owners: &mut Owners) {
        let chosen = *owners;
        let mut best = [None; limits::HOLDERS];
        for (seed, peer) in self.networks.iter().flat_map(|network| &network.members) {
            if !chosen.contains(&Some(*peer)) {
                rank(&mut best, mix(*seed, key), *peer);
            }
        }
        let free = owners.iter_mut().filter(|owner| owner.is_none());
        for (owner, (_, peer)) in free.zip(best.into_iter().flatten()) {
            *owner = Some(peer);
        }
    }
}

/// Puts an item in its place among the best, best first.
fn rank<T: Copy>(best: &mut [Option<(u64, T)>], weight: u64, item: T) {
    if best.last().is_some_and(|last| last.is_some_and(|(lightest, _)| lightest >= weight)) {
        return;
    }
    let mut moved = Some((weight, item));
    for place in best {
        if place.is_none_or(|(known, _)| moved.is_some_and(|(new, _)| new > known)) {
            std::mem::swap(place, &mut moved);
        }
    }
}

/// Which of the homes of a leaf tells of its contents. All of them agree on it.
pub fn teller(handle: u64, homes: impl IntoIterator<Item = PeerId>) -> Option<PeerId> {
    homes.into_iter().max_by_key(|home| (mix(seed_of(&home.0), handle), *home))
}

/// A number for a node or a network, fixed for ever: every node must compute the same.
pub(super) fn seed_of(name: &[u8]) -> u64 {
    let hash = blake3::derive_key("quictrack 2027-01-15 rank of a holder", name);
    u64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
}

/// A number of a seed's own sequence, as good as random (the finaliser of SplitMix64).
pub const fn mix(seed: u64, number: u64) -> u64 {
    let mut value = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn ranking(networks: &[u8]) -> Ranking {
        Ranking::new((0..).zip(networks).map(|(number, network)| (peer(number), u64::from(*network))))
    }

    fn owners(ranking: &Ranking, key: u64) -> Vec<PeerId> {
        ranking.owners(ContentKey(key.to_be_bytes())).into_iter().flatten().collect()
    }

    #[test]
    fn ranks_are_fixed_for_ever() {
        let ranking = ranking(&[0, 1, 2, 3, 4, 5, 6, 7]);
        let firsts = |key| owners(&ranking, key).iter().map(|peer| peer.0[0]).collect::<Vec<_>>();
        assert_eq!([firsts(0), firsts(1), firsts(u64::MAX)], [[7, 0, 2], [4, 5, 2], [3, 7, 2]]);
        assert_eq!(teller(7, (0..9).map(peer)), Some(peer(8)));
    }

    #[test]
    fn everyone_has_its_share() {
        let ranking = ranking(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 8]);
        let mut contents = [0; 10];
        for owner in (0..9_000).flat_map(|key| owners(&ranking, key)) {
            contents[usize::from(owner.0[0])] += 1;
        }
        // Nine networks with a third of the contents each; the last has two nodes.
        assert!(contents[..8].iter().all(|count| (2_700..3_300).contains(count)), "{contents:?}");
        assert!(contents[8..].iter().all(|count| (1_300..1_700).contains(count)), "{contents:?}");
    }

    proptest! {
        #[test]
        fn owners_are_of_distinct_networks_as_far_as_there_are(
            networks in proptest::collection::vec(0_u8..6, 0..12), key: u64,
        ) {
            let ranking = ranking(&networks);
            let owners = owners(&ranking, key);
            prop_assert_eq!(owners.len(), networks.len().min(limits::HOLDERS));
            let distinct: BTreeSet<_> = owners.iter().collect();
            prop_assert_eq!(distinct.len(), owners.len());
            let of_owners: BTreeSet<_> = owners.iter().map(|owner| networks[usize::from(owner.0[0])]).collect();
            let all: BTreeSet<_> = networks.iter().collect();
            prop_assert_eq!(of_owners.len(), all.len().min(limits::HOLDERS));
        }

        #[test]
        fn who_goes_moves_no_others(count in 4_u8..20, gone: prop::sample::Index, key: u64) {
            let gone = peer(gone.index(usize::from(count)) as u8);
            let members = || (0..count).map(|number| (peer(number), u64::from(number)));
            let before = owners(&Ranking::new(members()), key);
            let after = owners(&Ranking::new(members().filter(|(peer, _)| *peer != gone)), key);
            let rest: Vec<_> = before.into_iter().filter(|owner| *owner != gone).collect();
            prop_assert_eq!(&after[..rest.len()], &rest[..], "those that stay keep their order");
        }
    }
}
