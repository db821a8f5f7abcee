//! Which other ultrapeers can be asked, and which parts of the leaf space they cover.

use std::collections::BTreeMap;

use overlay::{id::PeerId, wire::descriptor::ShardPrefix};

/// The other ultrapeers of the view.
#[derive(Debug)]
pub struct Neighbours {
    own: ShardPrefix,
    members: BTreeMap<PeerId, Neighbour>,
}

/// What is known of another ultrapeer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The part of the leaf space that it declares to cover.
    pub prefix: ShardPrefix,
    /// True if a link leads to it and it is not suspected: it can be asked.
    pub is_usable: bool,
}

impl Neighbours {
    /// Nobody, around an ultrapeer that covers `own`.
    pub fn new(own: ShardPrefix) -> Self {
        Self { own, members: BTreeMap::new() }
    }

    /// The part of the leaf space that this ultrapeer covers.
    pub fn own(&self) -> ShardPrefix {
        self.own
    }

    /// This ultrapeer covers another part from now on.
    pub fn set_own(&mut self, own: ShardPrefix) {
        self.own = own;
    }

    /// What is known of an ultrapeer; `None`: it is gone. Returns what was known before.
    pub fn set(&mut self, peer: PeerId, neighbour: Option<Neighbour>) -> Option<Neighbour> {
        match neighbour {
            Some(neighbour) => self.members.insert(peer, neighbour),
            None => self.members.remove(&peer),
        }
    }

    /// What is known of an ultrapeer.
    pub fn get(&self, peer: &PeerId) -> Option<Neighbour> {
        self.members.get(peer).copied()
    }

    /// True if it can be asked.
    pub fn is_usable(&self, peer: &PeerId) -> bool {
        self.members.get(peer).is_some_and(|neighbour| neighbour.is_usable)
    }

    /// Those whose leaves may be in the part of the leaf space that this ultrapeer covers.
    pub fn mates(&self) -> impl Iterator<Item = (PeerId, Neighbour)> + '_ {
        self.overlapping(self.own)
    }

    /// Those whose leaves may be in a part of the leaf space.
    pub fn overlapping(&self, part: ShardPrefix) -> impl Iterator<Item = (PeerId, Neighbour)> + '_ {
        self.members.iter().filter(move |(_, known)| known.prefix.overlaps(part)).map(|(peer, known)| (*peer, *known))
    }

    /// Those that can be asked for a whole part of the leaf space.
    pub fn covering(&self, part: ShardPrefix) -> impl Iterator<Item = PeerId> + '_ {
        let able = self.members.iter().filter(move |(_, known)| known.is_usable && known.prefix.contains(part));
        able.map(|(peer, _)| *peer)
    }

    /// The parts of the leaf space that this ultrapeer does not cover, as few as those that can be asked allow. A part
    /// that nobody covers is among them.
    pub fn others(&self) -> Vec<ShardPrefix> {
        let mut parts = Vec::new();
        self.divide(ShardPrefix::ALL, &mut parts);
        parts
    }

    fn divide(&self, part: ShardPrefix, parts: &mut Vec<ShardPrefix>) {
        if self.own.contains(part) {
            return;
        }
        let is_whole = !part.contains(self.own) && self.covering(part).next().is_some();
        let divided = self.own.overlaps(part)
            || self
                .members
                .values()
                .any(|known| known.is_usable && part.contains(known.prefix) && part != known.prefix);
        match part.child(false).zip(part.child(true)) {
            Some((low, high)) if !is_whole && divided => {
                self.divide(low, parts);
                self.divide(high, parts);
            }
            _ => parts.push(part),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn neighbours(own: &str, others: &[&str]) -> Neighbours {
        let mut neighbours = Neighbours::new(own.parse().expect("a prefix"));
        for (number, prefix) in (1..).zip(others) {
            let neighbour = Neighbour { prefix: prefix.parse().expect("a prefix"), is_usable: true };
            neighbours.set(PeerId([number; 32]), Some(neighbour));
        }
        neighbours
    }

    fn parts(own: &str, others: &[&str]) -> Vec<String> {
        neighbours(own, others).others().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn who_covers_everything_needs_nobody() {
        assert!(parts("", &["", "0", "1"]).is_empty());
    }

    #[test]
    fn the_rest_is_divided_as_little_as_possible() {
        assert_eq!(parts("0", &["1", "1"]), ["1"]);
        assert_eq!(parts("01", &["1", "00", "10"]), ["00", "1"]);
        assert_eq!(parts("01", &["00", "10", "11", "110"]), ["00", "10", "11"]);
        assert_eq!(parts("01", &["", "11"]), ["00", "1"], "who covers everything covers each part");
        assert_eq!(parts("0", &["10", "110"]), ["10", "110", "111"], "a part that nobody covers is told");
        assert_eq!(parts("0", &["00"]), ["1"]);
    }

    proptest! {
        /// Every place is covered by this ultrapeer or belongs to exactly one part, and a part that anybody covers is
        /// one that somebody can be asked for.
        #[test]
        fn parts_are_the_rest(
            own in (any::<u32>(), 0_u8..5),
            others in proptest::collection::vec((any::<u32>(), 0_u8..6), 0..20),
            place in any::<u32>(),
        ) {
            let mut neighbours = Neighbours::new(ShardPrefix::of(own.0, own.1));
            for (number, (bits, length)) in (0..).zip(&others) {
                let neighbour = Neighbour { prefix: ShardPrefix::of(*bits, *length), is_usable: true };
                neighbours.set(PeerId([number; 32]), Some(neighbour));
            }
            let parts = neighbours.others();
            let count = parts.iter().filter(|part| part.covers(place)).count();
            prop_assert_eq!(count + usize::from(neighbours.own().covers(place)), 1);
            let covered = others.iter().any(|(bits, length)| ShardPrefix::of(*bits, *length).covers(place));
            if let Some(part) = parts.iter().find(|part| part.covers(place)) {
                prop_assert_eq!(neighbours.covering(*part).next().is_some(), covered);
            }
        }
    }
}
