//! Honest candidates, and others.

use std::{sync::Arc, time::Duration};

use rand_pcg::Pcg32;

use super::*;
use crate::{
    election::Shard,
    machine::{Context, Machine},
    membership,
    wire::{
        descriptor::{ShardPrefix, network_tag},
        election::Invitation,
    },
};

const NOW_S: u64 = 1_800_000_000;

/// One voter of a public network of five, in which everybody votes on everybody.
struct Voter {
    identity: Arc<Identity>,
    membership: Membership,
    ballots: Ballots,
    demand: Demand,
    now: Time,
}

fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([20_u8.wrapping_add(number), 1, 1, 1], 7780))
}

fn descriptor(number: u8) -> Descriptor {
    Descriptor {
        peer: identity(number).peer_id(),
        network: network_tag("public"),
        address: address(number),
        shard: ShardPrefix::ALL,
        capacity: 100,
        sequence: 10,
        lifetime_s: 7_200,
        admission: 9,
        volunteer: false,
    }
}

fn volunteer(number: u8) -> Descriptor {
    Descriptor { volunteer: true, ..descriptor(number) }
}

fn application(descriptor: &Descriptor, number: u8, invitations: Vec<Invitation>) -> Apply {
    Apply { descriptor: descriptor.sign(&identity(number)), invitations: List::new(invitations), meeting: false }
}

fn good() -> Measured {
    Measured { uptime_s: 3 * 3_600, bandwidth_kbit: 40_000, loss_ppm: 0, stability: 1000 }
}

/// What a home signed about the node of that number.
fn invitation(home: u8, of: u8, measured: Measured, issued_s: u64) -> Invitation {
    Invitation::sign(&identity(home), network_tag("public"), &identity(of).peer_id(), measured, issued_s)
}

impl Voter {
    fn new() -> Self {
        let identity = Arc::new(identity(100));
        let mut membership = Membership::new(Arc::clone(&identity), "public", Regime::Public, 100, 1);
        let mut rng = Pcg32::new(1, 1);
        let mut cx = Context::new(Time::ZERO, &mut rng);
        let members = (1..=4).map(|number| descriptor(number).sign(&self::identity(number))).collect();
        let heard = membership::Input::Heard { from: descriptor(1).peer, descriptors: members };
        for input in [membership::Input::Address(address(100)), heard, membership::Input::Join] {
            membership.handle(&mut cx, input, &mut Outbox::new());
        }
        Self { identity, membership, ballots: Ballots::default(), demand: Demand::default(), now: Time::ZERO }
    }

    /// One that has seen for long that more are wanted.
    fn in_need() -> Self {
        let mut voter = Self::new();
        let busy = Shard { loads: vec![0.9; 5], total: 5, nodes: 50, is_cramped: false };
        voter.demand.look(Time::ZERO, &busy);
        voter.pass(Duration::from_mins(3));
        voter.demand.look(voter.now, &busy);
        voter
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
    }

    fn act(&mut self, act: impl FnOnce(&mut Ballots, Environment<'_>, &mut Outbox<Output>)) -> Vec<Output> {
        let mut out = Outbox::new();
        let env = Environment {
            now: self.now,
            now_s: NOW_S,
            membership: &self.membership,
            demand: &self.demand,
            regime: Regime::Public,
            identity: &self.identity,
        };
        act(&mut self.ballots, env, &mut out);
        out.drain().collect()
    }

    fn apply(&mut self, from: u8, observed: SocketAddr, apply: &Apply) -> Vec<Output> {
        let from = identity(from).peer_id();
        self.act(|ballots, env, out| ballots.apply(env, from, observed, apply, out))
    }

    /// What comes of an application whose sender is found to send so fast, if it is dialled.
    fn verdict(&mut self, number: u8, apply: &Apply, found: Measurement) -> VerdictAnswer {
        let mut said = self.apply(number, address(number), apply);
        if let [Output::DialBack { peer, .. }] = said[..] {
            said = self.act(|ballots, env, out| ballots.measured(env, peer, found, out));
        }
        match said.pop() {
            Some(Output::Answer(_, verdict)) if said.is_empty() => verdict.answer,
            other => panic!("{other:?} and {said:?}"),
        }
    }
}

fn fast() -> Measurement {
    Ok(Finding { rate_kbit: Some(50_000), loss_ppm: Some(0) })
}

fn hurdle(answer: &VerdictAnswer) -> Option<Hurdle> {
    match answer {
        VerdictAnswer::Refused(hurdle, _) => Some(*hurdle),
        _ => None,
    }
}

#[test]
fn who_an_operator_offers_is_dialled_back_measured_and_endorsed() {
    let mut voter = Voter::new();
    let apply = application(&descriptor(9), 9, Vec::new());
    let said = voter.apply(9, address(9), &apply);
    assert_eq!(said, [Output::DialBack { peer: descriptor(9).peer, address: address(9), measured: true }]);
    let said = voter.act(|ballots, env, out| ballots.measured(env, descriptor(9).peer, fast(), out));
    let [Output::Answer(to, Verdict { admission: 9, answer: VerdictAnswer::Endorsed(endorsement) })] = &said[..] else {
        panic!("{said:?}");
    };
    assert_eq!(*to, descriptor(9).peer);
    assert!(endorsement.is_by(&identity(100).peer_id(), &descriptor(9)));
    // What was found counts for a while: it is not dialled once more.
    assert!(matches!(voter.verdict(9, &apply, Err(Missed::Silent)), VerdictAnswer::Endorsed(_)));
    assert_eq!(voter.ballots.stats(), Stats { endorsed: 2, dialled: 1, reached: 1, ..Stats::default() });
}

#[test]
fn nobody_is_dialled_at_an_address_that_is_not_its_own() {
    let mut voter = Voter::new();
    let victim = Descriptor { address: address(77), ..descriptor(9) };
    let said = voter.apply(9, address(9), &application(&victim, 9, Vec::new()));
    assert!(matches!(said[..], [Output::Answer(..)]), "{said:?}");
    assert_eq!(hurdle(&voter.verdict(9, &application(&victim, 9, Vec::new()), fast())), Some(Hurdle::Reachable));
    // Another port of the same address is its own; and within a site all may be.
    let port = SocketAddr::new(address(9).ip(), 9_999);
    let other_port = Descriptor { address: port, ..descriptor(9) };
    let said = voter.apply(9, address(9), &application(&other_port, 9, Vec::new()));
    assert_eq!(said, [Output::DialBack { peer: descriptor(9).peer, address: port, measured: true }]);
    let behind = Descriptor { address: address(78), ..descriptor(10) };
    let said = voter.apply(10, "10.0.0.7:1".parse().unwrap(), &application(&behind, 10, Vec::new()));
    assert!(matches!(said[..], [Output::DialBack { .. }]), "{said:?}");
}

#[test]
fn what_a_candidate_says_of_others_or_another_network_is_no_application() {
    let mut voter = Voter::new();
    let foreign = Descriptor { network: network_tag("other"), ..descriptor(9) };
    let withdrawn = Descriptor { lifetime_s: 0, ..descriptor(9) };
    let forged = Apply { descriptor: descriptor(9).sign(&identity(8)), ..application(&descriptor(9), 9, Vec::new()) };
    let of_another = application(&descriptor(8), 8, Vec::new());
    for apply in [application(&foreign, 9, Vec::new()), application(&withdrawn, 9, Vec::new()), forged, of_another] {
        assert_eq!(hurdle(&voter.verdict(9, &apply, fast())), Some(Hurdle::Protocol));
    }
    assert_eq!(voter.ballots.stats().dialled, 0);
}

#[test]
fn a_volunteer_is_let_in_by_what_its_homes_signed_and_only_when_wanted() {
    let two =
        |of, measured, issued_s| vec![invitation(1, of, measured, issued_s), invitation(2, of, measured, issued_s)];
    let ask = |voter: &mut Voter, invitations| voter.verdict(9, &application(&volunteer(9), 9, invitations), fast());
    assert_eq!(hurdle(&ask(&mut Voter::new(), two(9, good(), NOW_S))), Some(Hurdle::Demand));
    let mut wanted = Voter::in_need();
    assert!(matches!(ask(&mut wanted, two(9, good(), NOW_S)), VerdictAnswer::Endorsed(_)));
    let hour = 3_600;
    for off in [NOW_S - hour, NOW_S + hour] {
        assert!(matches!(ask(&mut Voter::in_need(), two(9, good(), off)), VerdictAnswer::Endorsed(_)), "clocks differ");
    }
    let lately = Measured { uptime_s: 60, ..good() };
    let with_a_new_home = [two(9, good(), NOW_S), vec![invitation(3, 9, lately, NOW_S)]].concat();
    assert!(matches!(ask(&mut Voter::in_need(), with_a_new_home), VerdictAnswer::Endorsed(_)));
    let young = Measured { uptime_s: 7_000, ..good() };
    let lossy = Measured { loss_ppm: 20_000, ..good() };
    for (worthless, why) in [
        (Vec::new(), Hurdle::Uptime),
        (two(9, young, NOW_S), Hurdle::Uptime),
        (two(9, lossy, NOW_S), Hurdle::Loss),
        (two(8, good(), NOW_S), Hurdle::Uptime),
        (two(9, good(), NOW_S - 3 * hour), Hurdle::Uptime),
        (vec![invitation(1, 9, good(), NOW_S); 3], Hurdle::Uptime),
        (vec![invitation(1, 9, good(), NOW_S), invitation(60, 9, good(), NOW_S)], Hurdle::Uptime),
        (vec![invitation(1, 9, young, NOW_S), invitation(2, 9, good(), NOW_S)], Hurdle::Uptime),
    ] {
        assert_eq!(hurdle(&ask(&mut Voter::in_need(), worthless.clone())), Some(why), "{worthless:?}");
    }
}

#[test]
fn what_is_measured_counts_and_not_what_is_claimed() {
    let boast = vec![1, 2].into_iter().map(|home| invitation(home, 9, good(), NOW_S)).collect::<Vec<_>>();
    for (found, why) in [
        (Err(Missed::Silent), Hurdle::Reachable),
        (Ok(Finding { rate_kbit: Some(9_999), loss_ppm: None }), Hurdle::Bandwidth),
        (Ok(Finding { rate_kbit: Some(50_000), loss_ppm: Some(30_000) }), Hurdle::Loss),
    ] {
        let mut voter = Voter::in_need();
        let answer = voter.verdict(9, &application(&volunteer(9), 9, boast.clone()), found);
        assert_eq!(hurdle(&answer), Some(why));
    }
}

#[test]
fn a_flood_from_one_prefix_is_dialled_once_and_growth_is_limited() {
    let mut voter = Voter::new();
    let mut dialled = 0;
    for number in 101..=220 {
        let at = SocketAddr::from(([90, 1, 1, number], 7780));
        let of_flood = Descriptor { address: at, ..descriptor(number) };
        let said = voter.apply(number, at, &application(&of_flood, number, Vec::new()));
        dialled += said.iter().filter(|output| matches!(output, Output::DialBack { .. })).count();
    }
    assert_eq!(dialled, 1);
    // Many prefixes, all of them good: two a minute.
    let mut voter = Voter::new();
    let answers: Vec<_> = (10..40)
        .map(|number| voter.verdict(number, &application(&descriptor(number), number, Vec::new()), fast()))
        .collect();
    let endorsed = answers.iter().filter(|answer| matches!(answer, VerdictAnswer::Endorsed(_))).count();
    assert_eq!(endorsed, limits::GROWTH_A_MINUTE);
    assert!(answers[2..].iter().all(|answer| hurdle(answer) == Some(Hurdle::Growth)));
}

#[test]
fn dial_backs_under_way_and_waiting_are_few() {
    let mut voter = Voter::new();
    let (mut dialled, mut busy) = (Vec::new(), 0);
    // All but the voter itself.
    for number in (10..=250).filter(|number| *number != 100) {
        for output in voter.apply(number, address_of(number), &application(&at(number), number, Vec::new())) {
            match output {
                Output::DialBack { peer, .. } => dialled.push(peer),
                Output::Answer(_, verdict) => busy += usize::from(hurdle(&verdict.answer) == Some(Hurdle::Busy)),
            }
        }
    }
    assert_eq!(dialled.len(), limits::DIAL_BACKS);
    assert_eq!(busy, 240 - limits::DIAL_BACKS - limits::DIAL_BACKS_WAITING);
    // Each that ends lets one of those begin that wait.
    let said = voter.act(|ballots, env, out| ballots.measured(env, dialled[0], Err(Missed::Silent), out));
    assert!(said.iter().any(|output| matches!(output, Output::DialBack { .. })));
    let nobody = voter.act(|ballots, env, out| ballots.measured(env, descriptor(99).peer, fast(), out));
    assert_eq!(nobody, [], "nobody asked for that");
}

fn address_of(number: u8) -> SocketAddr {
    SocketAddr::from(([100, number, 1, 1], 7780))
}

fn at(number: u8) -> Descriptor {
    // Each in a /16 of its own.
    Descriptor { address: address_of(number), ..descriptor(number) }
}

#[test]
fn members_get_their_right_confirmed_without_demand_or_measurement() {
    let mut voter = Voter::new();
    let member = descriptor(2);
    let apply = application(&member, 2, Vec::new());
    let said = voter.apply(2, address(2), &apply);
    assert_eq!(said, [Output::DialBack { peer: member.peer, address: member.address, measured: false }]);
    let answer = voter.act(|ballots, env, out| {
        ballots.measured(env, member.peer, Ok(Finding::default()), out);
    });
    assert!(matches!(&answer[..], [Output::Answer(_, Verdict { answer: VerdictAnswer::Endorsed(_), .. })]));
    // One that does not answer any more is not confirmed, whatever it answered before.
    voter.pass(limits::DIAL_BACK_PAUSE);
    assert_eq!(hurdle(&voter.verdict(2, &apply, Err(Missed::Silent))), Some(Hurdle::Reachable));
}
