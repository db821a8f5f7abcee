//! Who counts, of those who say that they serve.

use super::*;
use crate::{election::Regime, identity::Identity, wire::descriptor::Endorsement};

/// One member of a public network, and what it hears.
struct Ear {
    machine: Membership,
    now: Time,
    rng: Pcg32,
}

fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

fn key(number: u8) -> PeerId {
    identity(number).peer_id()
}

/// Of the node with that number; it is in a network of its own on the Internet.
fn descriptor(number: u8) -> Descriptor {
    Descriptor {
        peer: key(number),
        network: network_tag("public"),
        address: SocketAddr::from(([20 + number, 1, 1, 1], 7780)),
        shard: ShardPrefix::ALL,
        capacity: 100,
        sequence: 10,
        lifetime_s: 7_200,
        admission: 9,
        volunteer: false,
    }
}

fn endorsed(descriptor: &Descriptor, number: u8, by: &[u8]) -> SignedDescriptor {
    let by = by.iter().map(|by| Endorsement::sign(&identity(*by), descriptor, 0));
    descriptor.sign_endorsed(&identity(number), by)
}

impl Ear {
    /// The node 100, which serves, and to which 1 is linked.
    fn new(regime: Regime) -> Self {
        let machine = Membership::new(Arc::new(identity(100)), "public", regime, 100, 1);
        let mut ear = Self { machine, now: Time::ZERO, rng: Pcg32::new(1, 1) };
        ear.input(Input::Address(descriptor(100).address));
        ear.input(Input::LinkUp(key(1)));
        ear
    }

    /// In whose view are already these, because it believed all when it joined.
    fn joined(regime: Regime, members: &[u8]) -> Self {
        let mut ear = Self::new(regime);
        for number in members {
            ear.hear(descriptor(*number).sign(&identity(*number)));
        }
        ear.input(Input::Join);
        ear
    }

    fn input(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.machine.handle(&mut Context::new(self.now, &mut self.rng), input, &mut out);
    }

    fn hear(&mut self, signed: SignedDescriptor) {
        self.input(Input::Heard { from: key(1), descriptors: vec![signed] });
    }

    fn counts(&self, number: u8) -> bool {
        self.machine.contains(&key(number))
    }
}

#[test]
fn who_does_not_serve_itself_believes_whom_it_asks() {
    let ear = Ear::joined(Regime::Named, &[1, 2, 3]);
    assert!([1, 2, 3].iter().all(|number| ear.counts(*number)));
}

#[test]
fn a_descriptor_counts_by_two_members_and_in_a_tiny_network_by_one() {
    let mut ear = Ear::joined(Regime::Named, &[1, 2, 3]);
    let stranger = descriptor(9);
    for too_few in [&[][..], &[1], &[1, 1], &[1, 50], &[9, 1], &[50, 51]] {
        ear.hear(endorsed(&stranger, 9, too_few));
        assert!(!ear.counts(9), "{too_few:?}");
    }
    assert_eq!(ear.machine.stats().refused.unendorsed, 1, "it waits only once");
    ear.hear(endorsed(&stranger, 9, &[1, 3]));
    assert!(ear.counts(9));
    let mut tiny = Ear::joined(Regime::Named, &[1]);
    tiny.hear(endorsed(&stranger, 9, &[50]));
    assert!(!tiny.counts(9));
    tiny.hear(endorsed(&stranger, 9, &[100]));
    assert!(tiny.counts(9), "by the node itself");
}

#[test]
fn a_network_with_a_secret_needs_no_votes() {
    let mut ear = Ear::joined(Regime::Secret, &[1, 2, 3]);
    ear.hear(endorsed(&descriptor(9), 9, &[]));
    assert!(ear.counts(9));
}

#[test]
fn endorsements_are_not_carried_to_another_address_admission_or_peer() {
    let mut ear = Ear::joined(Regime::Named, &[1, 2, 3]);
    let stranger = descriptor(9);
    let good: Vec<_> = [1, 2].map(|by| Endorsement::sign(&identity(by), &stranger, 0)).into();
    let elsewhere = Descriptor { address: "198.51.100.1:1".parse().unwrap(), ..stranger };
    let again = Descriptor { admission: 10, ..stranger };
    for other in [elsewhere, again] {
        ear.hear(other.sign_endorsed(&identity(9), good.clone()));
        assert!(!ear.counts(9));
    }
    ear.hear(descriptor(8).sign_endorsed(&identity(8), good));
    assert!(!ear.counts(8));
}

#[test]
fn who_counts_goes_on_to_count_until_it_withdraws() {
    let mut ear = Ear::joined(Regime::Named, &[1, 2, 3]);
    let stranger = descriptor(9);
    ear.hear(endorsed(&stranger, 9, &[1, 2]));
    ear.hear(Descriptor { sequence: 11, capacity: 7, ..stranger }.sign(&identity(9)));
    assert_eq!(ear.machine.get(&key(9)).unwrap().capacity, 7, "what it says of itself changes without votes");
    ear.hear(Descriptor { sequence: 12, address: descriptor(8).address, ..stranger }.sign(&identity(9)));
    assert_eq!(ear.machine.get(&key(9)).unwrap().address, stranger.address, "where it is does not");
    // Found gone, by mistake or not, it returns with what it had.
    let gone = News { members: List::default(), gone: List::new([Claim { peer: key(9), sequence: 11 }]) };
    ear.machine.remove(ear.now, key(9), &mut Outbox::new());
    ear.input(Input::Message { from: key(1), message: gone.into() });
    assert!(!ear.counts(9));
    ear.hear(Descriptor { sequence: 13, ..stranger }.sign(&identity(9)));
    assert!(ear.counts(9));
    // Once it withdrew, it must be let in anew.
    ear.hear(Descriptor { sequence: 14, lifetime_s: 0, ..stranger }.sign(&identity(9)));
    assert!(!ear.counts(9));
    ear.hear(Descriptor { sequence: 15, ..stranger }.sign(&identity(9)));
    assert!(!ear.counts(9));
    ear.hear(endorsed(&Descriptor { sequence: 15, ..stranger }, 9, &[1, 2, 3]));
    assert!(!ear.counts(9), "with votes of before either");
    let anew = Descriptor { sequence: 16, admission: 15, ..stranger };
    ear.hear(endorsed(&anew, 9, &[2, 3]));
    assert!(ear.counts(9));
}

#[test]
fn who_comes_before_those_who_endorsed_it_waits_for_them() {
    let mut ear = Ear::joined(Regime::Named, &[1, 2, 3]);
    ear.hear(endorsed(&descriptor(11), 11, &[10, 9]));
    ear.hear(endorsed(&descriptor(10), 10, &[9, 1]));
    assert!(!ear.counts(10) && !ear.counts(11));
    ear.hear(endorsed(&descriptor(9), 9, &[1, 2]));
    assert!(ear.counts(9) && ear.counts(10) && ear.counts(11), "each brings the next");
}

#[test]
fn where_places_are_scarce_only_those_vote_who_are_drawn() {
    let members: Vec<u8> = (1..=20).collect();
    let mut ear = Ear::joined(Regime::Public, &members);
    let stranger = descriptor(60);
    let all: Vec<_> = members.iter().map(|number| descriptor(*number)).chain(ear.machine.candidate()).collect();
    let ranked = crate::election::voters(&stranger, all.iter(), all.len());
    let number = |peer: PeerId| members.iter().copied().find(|number| key(*number) == peer).unwrap_or(100);
    let numbers: Vec<u8> = ranked.iter().map(|voter| number(voter.peer)).collect();
    let allowed = limits::VOTERS + limits::VOTERS_SLACK;
    ear.hear(endorsed(&stranger, 60, &numbers[allowed..allowed + 4]));
    assert!(!ear.counts(60), "four that are not");
    ear.hear(endorsed(&stranger, 60, &numbers[..2]));
    assert!(ear.counts(60));
}

#[test]
fn those_who_come_at_once_with_votes_for_one_place_leave_one_in_every_view() {
    let crowd: Vec<_> = (1..=5)
        .map(|last| {
            let number = 60 + last;
            let address = SocketAddr::from(([90, 1, 1, last], 7780));
            let descriptor = Descriptor { address, ..descriptor(number) };
            endorsed(&descriptor, number, &[1, 2, 3, 100])
        })
        .collect();
    let lowest = (61..=65).map(key).min();
    for turn in 0..crowd.len() {
        let mut ear = Ear::joined(Regime::Public, &[1, 2, 3]);
        crowd.iter().cycle().skip(turn).take(crowd.len()).for_each(|signed| ear.hear(signed.clone()));
        let there: Vec<_> = (61..=65).map(key).filter(|peer| ear.machine.contains(peer)).collect();
        assert_eq!(there.first().copied(), lowest);
        assert_eq!(there.len(), 1);
    }
    // Where nobody is known by his address all of them count.
    let mut ear = Ear::joined(Regime::Named, &[1, 2, 3]);
    for signed in crowd {
        ear.hear(signed);
    }
    assert!((61..=65).all(|number| ear.counts(number)));
}

#[test]
fn who_gives_up_its_network_believes_the_other_for_a_while() {
    let mut ear = Ear::joined(Regime::Named, &[1, 2, 3]);
    ear.hear(descriptor(9).sign(&identity(9)));
    assert!(!ear.counts(9));
    ear.input(Input::LinkUp(key(9)));
    assert!(ear.machine.is_foreign(&key(9)));
    ear.input(Input::Adopt);
    assert!(ear.counts(9) && !ear.machine.is_foreign(&key(9)));
    ear.now += limits::ADOPTION;
    ear.hear(descriptor(10).sign(&identity(10)));
    assert!(!ear.counts(10));
}
