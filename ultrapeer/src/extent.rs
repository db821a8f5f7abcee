//! Core: which part of the leaf space this ultrapeer covers.
//!
//! What it decides: when to cover half as much, because the digests of all leaves under the prefix take more than their
//! budget; and when to cover twice as much, because they take little, or because too few are left for the other half.
//!
//! ```text
//!   everything ── digests over their budget, and both halves keep enough members ──> one half
//!   one half ── digests under a quarter of it, or the other half is short of members ──> fetch the other half's
//!     logs and digests ── all there ──> declare the whole
//! ```
//!
//! Nobody has to agree: each declares what it covers, and whoever searches picks some who together cover everything.
//! Which half one keeps follows from the hash of its network address, so it cannot be chosen cheaply.
//!
//! Invariants:
//! - changes are a while apart, and begin after a random wait, so that not all mates move at once: who waited sees what
//!   the others have done meanwhile;
//! - who over its budget cannot cover less stays over it: a part of the leaf space that too few cover is worse.

use overlay::{address::network_prefix, limits, time::Time, wire::descriptor::ShardPrefix};
use rand::{Rng, RngExt};

/// What the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Bytes of all digests.
    pub bytes: u64,
    /// Bytes that they may take.
    pub budget: u64,
    /// Other members that can be asked for all of the half that this one would keep, and of the half that it would
    /// give up.
    pub halves: [usize; 2],
    /// Other members that can be asked for all of the other half of the part that this one is a half of.
    pub sibling: usize,
    /// True if all logs and digests are here that the part which it makes ready for needs.
    pub is_ready: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Declare to cover less.
    Narrow(ShardPrefix),
    /// Fetch what covering more needs.
    Prepare(ShardPrefix),
    /// Declare to cover more, what was prepared.
    Widen(ShardPrefix),
}

/// The part. See the module text.
#[derive(Debug)]
pub struct Extent {
    declared: ShardPrefix,
    /// What it makes ready for.
    preparing: Option<ShardPrefix>,
    /// Where in the leaf space this ultrapeer stands: the bits of its prefix, as far as it has one.
    place: u32,
    look_at: Time,
    /// Before that time nothing changes.
    rest_until: Time,
}

impl Extent {
    /// Everything.
    pub fn new() -> Self {
        Self { declared: ShardPrefix::ALL, preparing: None, place: 0, look_at: Time::ZERO, rest_until: Time::ZERO }
    }

    /// This ultrapeer is reached there now: by that it stands at another place of the leaf space.
    pub fn set_address(&mut self, network: &str, address: std::net::SocketAddr) {
        let mut hasher = blake3::Hasher::new_derive_key("quictrack 2026-11-28 place of an ultrapeer");
        hasher.update(network.as_bytes()).update(&network_prefix(address, 24, 48).to_le_bytes());
        self.place = u32::from_be_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"));
    }

    /// What it declares to cover.
    pub const fn declared(&self) -> ShardPrefix {
        self.declared
    }

    /// The part whose logs it follows: what it declares, or makes ready for.
    pub fn followed(&self) -> ShardPrefix {
        self.preparing.unwrap_or(self.declared)
    }

    /// The half that it would keep, and the one that it would give up. `None` of a single place.
    pub fn halves(&self) -> Option<[ShardPrefix; 2]> {
        let kept = ShardPrefix::of(self.place, self.declared.length.checked_add(1)?);
        // It may stand elsewhere since its address changed: what it covers then is half of what it covered.
        let kept = if self.declared.contains(kept) { kept } else { self.declared.child(false)? };
        Some([kept, kept.sibling()?])
    }

    /// When [`Self::look`] is due.
    pub const fn next_deadline(&self) -> Time {
        self.look_at
    }

    /// Looks whether to cover less or more. What it returns is done from then on.
    pub fn look(&mut self, now: Time, rng: &mut dyn Rng, facts: Facts) -> Option<Step> {
        if now < self.look_at {
            return None;
        }
        self.look_at = now + limits::EXTENT_INTERVAL;
        if let Some(part) = self.preparing {
            return facts.is_ready.then(|| self.settle(now, part, Step::Widen(part)));
        }
        let step = self.wanted(facts)?;
        if self.rest_until == Time::ZERO || now < self.rest_until {
            // The first reason to move starts the wait, unless one is over already.
            if self.rest_until == Time::ZERO {
                self.rest_until = now + limits::EXTENT_SPREAD.mul_f64(rng.random_range(0.0..1.0));
            }
            return None;
        }
        match step {
            Step::Narrow(part) => Some(self.settle(now, part, step)),
            Step::Prepare(part) | Step::Widen(part) => {
                self.preparing = Some(part);
                Some(Step::Prepare(part))
            }
        }
    }

    fn settle(&mut self, now: Time, part: ShardPrefix, step: Step) -> Step {
        self.declared = part;
        self.preparing = None;
        self.rest_until = now + limits::EXTENT_REST;
        step
    }

    fn wanted(&self, facts: Facts) -> Option<Step> {
        let [kept, left] = facts.halves;
        if let Some([half, _]) = self.halves().filter(|_| facts.bytes > facts.budget)
            && kept + 1 >= limits::SHARD_MEMBERS
            && left >= limits::SHARD_MEMBERS
        {
            return Some(Step::Narrow(half));
        }
        let whole = self.declared.parent()?;
        let short = facts.sibling < limits::SHARD_MEMBERS;
        (short || facts.bytes < facts.budget / 4).then_some(Step::Prepare(whole))
    }
}

impl Default for Extent {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand_pcg::Pcg32;

    use super::*;

    const FULL: Facts = Facts { bytes: 101, budget: 100, halves: [40, 40], sibling: 20, is_ready: false };
    const EMPTY: Facts = Facts { bytes: 24, ..FULL };

    struct Bed {
        extent: Extent,
        rng: Pcg32,
        now: Time,
    }

    impl Bed {
        fn new() -> Self {
            let mut extent = Extent::new();
            extent.set_address("test", "203.0.113.9:7780".parse().expect("an address"));
            Self { extent, rng: Pcg32::new(1, 1), now: Time(1) }
        }

        /// The first step within a time, and when it came.
        fn step_within(&mut self, span: Duration, facts: Facts) -> Option<Step> {
            let end = self.now + span;
            while self.now < end {
                self.now = self.now.max(self.extent.next_deadline());
                let step = self.extent.look(self.now, &mut self.rng, facts);
                assert!(self.extent.next_deadline() > self.now, "busy loop");
                if step.is_some() {
                    return step;
                }
            }
            None
        }
    }

    #[test]
    fn who_is_over_budget_keeps_the_half_that_its_address_says() {
        let mut bed = Bed::new();
        let [half, other] = bed.extent.halves().expect("two halves");
        assert_eq!((half.sibling(), half.length), (Some(other), 1));
        let step = bed.step_within(limits::EXTENT_SPREAD + limits::EXTENT_INTERVAL, FULL);
        assert_eq!((step, bed.extent.declared()), (Some(Step::Narrow(half)), half));
        assert_eq!(
            bed.step_within(limits::EXTENT_REST.saturating_sub(limits::EXTENT_INTERVAL), FULL),
            None,
            "it rests"
        );
        let Some(Step::Narrow(quarter)) = bed.step_within(limits::EXTENT_REST, FULL) else { panic!("a quarter") };
        assert!(half.contains(quarter) && quarter.length == 2);
    }

    #[test]
    fn no_half_is_left_with_few_members() {
        for halves in [[15, 15], [14, 40], [40, 15]] {
            let mut bed = Bed::new();
            assert_eq!(bed.step_within(limits::EXTENT_REST * 3, Facts { halves, ..FULL }), None, "{halves:?}");
        }
        let mut bed = Bed::new();
        assert!(bed.step_within(limits::EXTENT_REST, Facts { halves: [15, 16], ..FULL }).is_some());
    }

    #[test]
    fn who_has_room_makes_ready_before_it_declares() {
        let mut bed = Bed::new();
        bed.step_within(limits::EXTENT_REST, FULL).expect("a half");
        let half = bed.extent.declared();
        assert_eq!(bed.step_within(limits::EXTENT_REST * 2, EMPTY), Some(Step::Prepare(ShardPrefix::ALL)));
        assert_eq!((bed.extent.declared(), bed.extent.followed()), (half, ShardPrefix::ALL));
        assert_eq!(bed.step_within(limits::EXTENT_REST, EMPTY), None, "not all is there");
        let ready = Facts { is_ready: true, ..EMPTY };
        assert_eq!(bed.step_within(limits::EXTENT_INTERVAL * 2, ready), Some(Step::Widen(ShardPrefix::ALL)));
        assert_eq!(bed.extent.declared(), ShardPrefix::ALL);
    }

    #[test]
    fn a_half_that_is_short_of_members_is_helped_and_else_nothing_flaps() {
        let mut bed = Bed::new();
        bed.step_within(limits::EXTENT_REST, FULL).expect("a half");
        // Half of what was just over the budget.
        let half = Facts { bytes: 51, ..FULL };
        assert_eq!(bed.step_within(limits::EXTENT_REST * 5, half), None);
        let short = Facts { sibling: 15, ..half };
        assert_eq!(bed.step_within(limits::EXTENT_REST, short), Some(Step::Prepare(ShardPrefix::ALL)));
    }
}
