//! Core: connections between leaves that this ultrapeer relays.
//!
//! ```text
//!   introduced, the target agreed ──> asker comes as a guest ──Offer──> target
//!                                          │ waits                        │ comes as a guest, too
//!                                          └──────────── Join ────────────┘ until one of them goes
//! ```
//!
//! Invariants:
//! - only those are joined whom this ultrapeer introduced within [`limits::INTRODUCTION_LIFETIME`], and the target
//!   agreed: both keys are proven to this node, so nobody is relayed to anywhere else;
//! - at most as many at a time as the operator allows, none while this node is busy with its leaves, and at most
//!   [`limits::RELAYS_PER_PEER`] of one leaf;
//! - what passes is encrypted between the two; this node sees its length only.

use std::{collections::BTreeMap, time::Duration};

use overlay::{
    id::PeerId,
    limits,
    machine::Outbox,
    time::Time,
    wire::leaf::{RelayOffer, RelayOpen, RelayRefusal},
};

use crate::leaves::Session;

/// The stream of a guest, numbered by the driver. Never reused.
pub type Guest = u64;

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections at the same time; 0 relays none.
    pub circuits: u32,
    /// Bytes a second of each, both ways together; `None` is no limit.
    pub rate: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { circuits: 8, rate: Some(256_000) }
    }
}

impl Settings {
    /// So little that all of it together stays under [`limits::RELAY_SHARE`] percent of what this node was seen to send,
    /// in kbit/s; unchanged where nobody has measured that.
    #[must_use]
    pub fn within(self, upstream_kbit: Option<u32>) -> Self {
        let Some(kbit) = upstream_kbit.filter(|kbit| *kbit > 0) else { return self };
        let share = u64::from(kbit) * 1_000 / 8 * limits::RELAY_SHARE / 100;
        let rate = self.rate.unwrap_or(share).clamp(1, share.max(1));
        Self { circuits: self.circuits.min(u32::try_from(share / rate).unwrap_or(u32::MAX)), rate: Some(rate) }
    }
}

/// What must be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell a leaf that another one wants to be relayed to it.
    Offer(Session, RelayOffer),
    /// Tell both that they are joined, and carry between them until one of them goes: then [`Relays::left`].
    Join(Guest, Guest),
    /// Turn a guest away.
    Refuse(Guest, RelayRefusal),
}

/// Relayed connections. See the module text.
#[derive(Debug)]
pub struct Relays {
    settings: Settings,
    agreed: BTreeMap<(PeerId, u64), Agreement>,
    /// By the guest that asked.
    circuits: BTreeMap<Guest, Circuit>,
}

#[derive(Debug)]
struct Agreement {
    target: PeerId,
    session: Session,
    until: Time,
}

#[derive(Debug)]
struct Circuit {
    asker: PeerId,
    target: PeerId,
    token: u64,
    /// Until then the target must come; `None` once it did.
    waits_until: Option<Time>,
}

impl Relays {
    /// No connection yet.
    pub const fn new(settings: Settings) -> Self {
        Self { settings, agreed: BTreeMap::new(), circuits: BTreeMap::new() }
    }

    /// Other limits hold from now on. What is relayed stays.
    pub const fn reconfigure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Connections that are relayed, or for which one side waits.
    pub fn len(&self) -> usize {
        self.circuits.len()
    }

    /// True if nothing is relayed.
    pub fn is_empty(&self) -> bool {
        self.circuits.is_empty()
    }

    /// Why one more connection between the two is not relayed; `busy` says that this node has other things to do.
    fn refusal(&self, one: &PeerId, other: &PeerId, busy: bool) -> Option<RelayRefusal> {
        let of = |peer: &PeerId| {
            let has = |circuit: &&Circuit| circuit.asker == *peer || circuit.target == *peer;
            self.circuits.values().filter(has).count()
        };
        if busy || self.circuits.len() >= self.settings.circuits as usize {
            Some(RelayRefusal::Full)
        } else if of(one).max(of(other)) >= limits::RELAYS_PER_PEER {
            Some(RelayRefusal::Quota)
        } else {
            None
        }
    }

    /// True if one more connection between the two would be relayed now.
    pub fn would_join(&self, one: &PeerId, other: &PeerId, busy: bool) -> bool {
        self.refusal(one, other, busy).is_none()
    }

    /// A leaf that was introduced to the own leaf of a session agreed.
    pub fn agreed(&mut self, now: Time, asker: PeerId, token: u64, target: (PeerId, Session)) {
        self.agreed.retain(|_, agreement| now < agreement.until);
        if self.agreed.len() < limits::RELAYS_AGREED {
            let (target, session) = target;
            let until = now + limits::INTRODUCTION_LIFETIME;
            self.agreed.insert((asker, token), Agreement { target, session, until });
        }
    }

    /// A guest with a proven key wants to be relayed.
    pub fn open(
        &mut self,
        now: Time,
        guest: Guest,
        peer: PeerId,
        open: RelayOpen,
        busy: bool,
        out: &mut Outbox<Output>,
    ) {
        let RelayOpen { token, peer: other } = open;
        if let Some(first) = self.awaits(&other, &peer, token) {
            return self.join(first, guest, out);
        }
        let agreement = self.agreed.get(&(peer, token)).filter(|found| found.target == other && now < found.until);
        let Some(session) = agreement.map(|agreement| agreement.session) else {
            return out.push(Output::Refuse(guest, RelayRefusal::Unknown));
        };
        if let Some(refusal) = self.refusal(&peer, &other, busy) {
            return out.push(Output::Refuse(guest, refusal));
        }
        self.agreed.remove(&(peer, token));
        let waits_until = Some(now + limits::RELAY_PATIENCE);
        self.circuits.insert(guest, Circuit { asker: peer, target: other, token, waits_until });
        out.push(Output::Offer(session, RelayOffer { token, peer }));
    }

    /// The guest that waits for this one.
    fn awaits(&self, asker: &PeerId, target: &PeerId, token: u64) -> Option<Guest> {
        let fits = |circuit: &Circuit| {
            circuit.waits_until.is_some() && (circuit.asker, circuit.target, circuit.token) == (*asker, *target, token)
        };
        self.circuits.iter().find(|(_, circuit)| fits(circuit)).map(|(guest, _)| *guest)
    }

    fn join(&mut self, first: Guest, second: Guest, out: &mut Outbox<Output>) {
        if let Some(circuit) = self.circuits.get_mut(&first) {
            circuit.waits_until = None;
            out.push(Output::Join(first, second));
        }
    }

    /// The connection that began with that guest has ended.
    pub fn left(&mut self, guest: Guest) {
        self.circuits.remove(&guest);
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.circuits.values().filter_map(|circuit| circuit.waits_until).min()
    }

    /// Gives up those who wait in vain.
    pub fn on_deadline(&mut self, now: Time, out: &mut Outbox<Output>) {
        let late = |circuit: &Circuit| circuit.waits_until.is_some_and(|until| until <= now);
        let late: Vec<_> = self.circuits.iter().filter(|(_, circuit)| late(circuit)).map(|(guest, _)| *guest).collect();
        for guest in late {
            self.circuits.remove(&guest);
            out.push(Output::Refuse(guest, RelayRefusal::Absent));
        }
    }
}

/// Holds what is relayed to a rate: who may not send yet is not read from, and so sends no more.
#[derive(Debug)]
pub struct Pace {
    free_at: Time,
}

impl Pace {
    /// Nothing has passed yet.
    pub const fn new(now: Time) -> Self {
        Self { free_at: now }
    }

    /// How long `bytes` must wait at `rate` bytes a second. [`limits::RELAY_BURST`] bytes pass at once.
    pub fn wait(&mut self, now: Time, bytes: usize, rate: Option<u64>) -> Duration {
        let Some(rate) = rate.filter(|rate| *rate > 0) else { return Duration::ZERO };
        let span = |bytes: usize| Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.free_at = self.free_at.max(now) + span(bytes);
        self.free_at.since(now).saturating_sub(span(limits::RELAY_BURST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    struct Bench {
        core: Relays,
        out: Outbox<Output>,
    }

    impl Bench {
        fn new(circuits: u32) -> Self {
            Self { core: Relays::new(Settings { circuits, rate: None }), out: Outbox::new() }
        }

        fn agreed(&mut self, asker: u8, token: u64, target: u8) {
            self.core.agreed(Time(0), peer(asker), token, (peer(target), u64::from(target)));
        }

        fn open(&mut self, guest: Guest, from: u8, to: u8, token: u64) -> Vec<Output> {
            self.core.open(Time(1), guest, peer(from), RelayOpen { token, peer: peer(to) }, false, &mut self.out);
            self.out.drain().collect()
        }
    }

    #[test]
    fn two_that_were_introduced_are_joined() {
        let mut bench = Bench::new(8);
        bench.agreed(1, 50, 2);
        assert_eq!(bench.open(10, 1, 2, 50), [Output::Offer(2, RelayOffer { token: 50, peer: peer(1) })]);
        assert_eq!(bench.open(11, 2, 1, 50), [Output::Join(10, 11)]);
        assert_eq!((bench.core.len(), bench.core.next_deadline()), (1, None));
        assert_eq!(bench.open(12, 2, 1, 50), [Output::Refuse(12, RelayRefusal::Unknown)], "a place is for one");
        assert_eq!(bench.open(13, 1, 2, 50), [Output::Refuse(13, RelayRefusal::Unknown)], "a token is for once");
        bench.core.left(10);
        assert!(bench.core.is_empty());
    }

    #[test]
    fn nobody_is_relayed_to_whom_he_was_not_introduced() {
        let mut bench = Bench::new(8);
        bench.agreed(1, 50, 2);
        for (from, to, token) in [(1, 2, 51), (1, 3, 50), (3, 2, 50), (2, 1, 50)] {
            assert_eq!(bench.open(10, from, to, token), [Output::Refuse(10, RelayRefusal::Unknown)]);
        }
        bench.open(10, 1, 2, 50);
        assert_eq!(bench.open(11, 3, 1, 50), [Output::Refuse(11, RelayRefusal::Unknown)], "a third one comes");
        let late = Time(0) + limits::INTRODUCTION_LIFETIME;
        bench.agreed(1, 52, 2);
        bench.core.open(late, 12, peer(1), RelayOpen { token: 52, peer: peer(2) }, false, &mut bench.out);
        assert_eq!(bench.out.drain().collect::<Vec<_>>(), [Output::Refuse(12, RelayRefusal::Unknown)], "too late");
    }

    #[test]
    fn one_leaf_gets_two_and_all_get_as_many_as_the_operator_allows() {
        let mut bench = Bench::new(3);
        for (token, target) in [(1, 2), (2, 3), (3, 4)] {
            bench.agreed(1, token, target);
        }
        assert!(matches!(bench.open(10, 1, 2, 1)[..], [Output::Offer(..)]));
        assert!(matches!(bench.open(11, 1, 3, 2)[..], [Output::Offer(..)]));
        assert!(!bench.core.would_join(&peer(1), &peer(9), false));
        assert_eq!(bench.open(12, 1, 4, 3), [Output::Refuse(12, RelayRefusal::Quota)]);
        bench.agreed(5, 4, 6);
        assert!(matches!(bench.open(13, 5, 6, 4)[..], [Output::Offer(..)]));
        bench.agreed(7, 5, 8);
        assert_eq!(bench.open(14, 7, 8, 5), [Output::Refuse(14, RelayRefusal::Full)]);
        bench.core.reconfigure(Settings { circuits: 4, rate: None });
        assert!(bench.core.would_join(&peer(7), &peer(8), false), "an operator allows more");
        assert!(!bench.core.would_join(&peer(7), &peer(8), true), "but not while the node is busy");
    }

    #[test]
    fn who_waits_in_vain_is_told_so_and_frees_the_place() {
        let mut bench = Bench::new(1);
        bench.agreed(1, 50, 2);
        bench.open(10, 1, 2, 50);
        let due = bench.core.next_deadline().expect("somebody waits");
        bench.core.on_deadline(due, &mut bench.out);
        assert_eq!(bench.out.drain().collect::<Vec<_>>(), [Output::Refuse(10, RelayRefusal::Absent)]);
        assert!(bench.core.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut bench = Bench::new(8);
        for token in 0..2 * limits::RELAYS_AGREED as u64 {
            bench.agreed(1, token, 2);
        }
        assert_eq!(bench.core.agreed.len(), limits::RELAYS_AGREED);
    }

    #[test]
    fn a_part_of_the_upstream_is_enough() {
        let of = |circuits, rate| Settings { circuits, rate };
        assert_eq!(of(8, Some(256_000)).within(None), of(8, Some(256_000)));
        assert_eq!(of(8, Some(256_000)).within(Some(1_000_000)), of(8, Some(256_000)));
        assert_eq!(of(8, Some(256_000)).within(Some(40_000)), of(3, Some(256_000)), "1 MB/s is a fifth of 40 Mbit/s");
        assert_eq!(of(8, Some(256_000)).within(Some(8_000)), of(1, Some(200_000)));
        assert_eq!(of(8, None).within(Some(8_000)), of(1, Some(200_000)));
        assert_eq!(of(0, None).within(Some(8_000)).circuits, 0);
    }

    #[test]
    fn bytes_pass_at_the_rate() {
        let mut pace = Pace::new(Time(0));
        let (mut now, mut passed) = (Time(0), 0);
        while now < Time(10_000_000) {
            now = now + pace.wait(now, limits::RELAY_PACKET, Some(100_000));
            passed += limits::RELAY_PACKET;
        }
        assert!((1_000_000..=1_000_000 + 2 * limits::RELAY_BURST).contains(&passed), "{passed}");
        assert_eq!(pace.wait(now, 1 << 20, None), Duration::ZERO);
    }
}
