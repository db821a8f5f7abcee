//! Members among themselves, in a simulated network.

mod net;
mod random;
mod standing;

use std::time::Duration;

use rand_pcg::Pcg32;

use self::net::Net;
use super::*;
use crate::{
    address::network_prefix,
    wire::mesh::{Aged, Claim, News, Suspect},
};

const SECOND: Duration = Duration::from_secs(1);

impl Net {
    /// All of these stay in all views of these, whatever they are suspected of.
    fn assert_nobody_left(&self, peers: &[PeerId]) {
        let left = |(_, at, event): &&(Time, PeerId, Output)| {
            peers.contains(at) && matches!(event, Output::Left(peer) if peers.contains(peer))
        };
        assert_eq!(self.log.iter().find(left), None);
    }

    fn descriptor(&self, peer: PeerId) -> SignedDescriptor {
        self.machine(peer).own().cloned().expect("it serves")
    }

    fn sequence(&self, at: PeerId, peer: PeerId) -> u64 {
        let signed = self.machine(at).descriptor_of(&peer).expect("a member");
        signed.open().expect("a good one").sequence
    }

    fn news(&mut self, from: PeerId, to: PeerId, descriptor: SignedDescriptor, age_s: u32) {
        let news = News { members: List::new([Aged { descriptor, age_s }]), gone: List::default() };
        self.input(to, Input::Message { from, message: news.into() });
    }
}

#[test]
fn joining_any_one_is_enough_to_know_all() {
    for count in [2, 3, 8, 20, 50] {
        let mut net = Net::new(1, count);
        let ids = net.ids();
        for pair in ids.windows(2) {
            net.dial(pair[0], pair[1]);
        }
        net.run(10 * SECOND);
        net.assert_agreed(&ids);
        assert!(ids.iter().all(|peer| net.machine(*peer).stats().alive == usize::from(count)));
    }
}

#[test]
fn nobody_is_suspected_while_all_is_well() {
    let mut net = Net::joined(2, 12);
    net.log.clear();
    net.run(Duration::from_mins(70));
    net.assert_agreed(&net.ids());
    let troubles: Vec<_> = net.log.iter().filter(|(_, _, event)| !matches!(event, Output::Joined(_))).collect();
    assert!(troubles.is_empty(), "{troubles:?}");
    let renewed = net.log.iter().filter(|(_, _, event)| matches!(event, Output::Joined(_))).count();
    assert_eq!(renewed, 12 * 11, "every descriptor was renewed everywhere, once");
}

#[test]
fn a_dead_member_is_noticed_and_leaves_every_view() {
    for (count, seeds) in [(2, 6), (3, 6), (6, 6), (25, 3), (50, 1)] {
        for seed in 0..seeds {
            let mut net = Net::joined(seed, count);
            let victim = net.ids()[seed as usize % usize::from(count)];
            net.kill(victim);
            let alive = net.alive();
            let is_noticed = |net: &Net| {
                let state = |peer: &PeerId| net.machine(*peer).state_of(&victim);
                alive.iter().all(|peer| state(peer).is_none_or(|state| state == State::Suspect))
            };
            let start = net.now;
            net.run_until(Duration::from_millis(3_500), is_noticed).expect("all suspect it");
            net.run_until(5 * SECOND, |net| net.agree(&alive)).expect("it is gone");
            assert!(net.now.since(start) <= 5 * SECOND, "{:?}", net.now.since(start));
            net.assert_nobody_left(&alive);
            net.run(Duration::from_mins(3));
            net.assert_agreed(&alive);
        }
    }
}

#[test]
fn a_lost_link_to_a_dead_member_is_noticed_sooner() {
    let mut net = Net::joined(3, 10);
    let victim = net.ids()[4];
    net.kill(victim);
    for peer in net.alive() {
        net.drop_link(peer, victim);
    }
    let alive = net.alive();
    let is_noticed = |net: &Net| alive.iter().all(|peer| net.machine(*peer).state_of(&victim) == Some(State::Suspect));
    net.run_until(SECOND, is_noticed).expect("nobody can reach it, and all know");
    net.run_until(3 * SECOND, |net| net.agree(&alive)).expect("it is gone");
}

#[test]
fn a_third_that_dies_at_once_leaves_every_view() {
    for seed in 0..3 {
        let mut net = Net::joined(seed, 24);
        let victims: Vec<_> = net.ids().into_iter().skip(seed as usize).step_by(3).collect();
        for victim in victims {
            net.kill(victim);
        }
        let alive = net.alive();
        net.run_until(8 * SECOND, |net| net.agree(&alive)).expect("all are gone");
        net.assert_nobody_left(&alive);
    }
}

#[test]
fn who_withdraws_is_gone_at_once_and_may_come_back() {
    let mut net = Net::joined(4, 9);
    let leaver = net.ids()[3];
    net.input(leaver, Input::Withdraw);
    let rest: Vec<_> = net.ids().into_iter().filter(|peer| *peer != leaver).collect();
    net.run_until(SECOND, |net| net.agree(&rest)).expect("told is enough");
    net.run(Duration::from_mins(5));
    net.assert_agreed(&rest);
    assert_eq!(net.machine(leaver).total(), 8, "it still knows the others");
    net.input(leaver, Input::Join);
    net.run(10 * SECOND);
    net.assert_agreed(&net.ids());
}

#[test]
fn a_partition_heals_after_any_time() {
    // Shorter than it takes to notice, than descriptors count, and longer than all that is remembered of who is gone.
    for (count, minutes) in [(20, 1), (8, 130), (3, 25 * 60)] {
        let mut net = Net::joined(5, count);
        let ids = net.ids();
        let (one, other) = ids.split_at(ids.len() / 2);
        net.cut(|from, to| one.contains(&from) != one.contains(&to));
        net.run(Duration::from_mins(minutes));
        net.assert_agreed(one);
        net.assert_agreed(other);
        net.heal();
        net.run_until(Duration::from_mins(3), |net| {
            ids.iter().any(|peer| net.machine(*peer).total() > ids.len() as u32 / 2 + 1)
        })
        .expect("two meet");
        net.run_until(15 * SECOND, |net| net.agree(&ids)).expect("then all know each other");
        net.run(5 * SECOND);
        net.assert_agreed(&ids);
    }
}

#[test]
fn flapping_links_remove_nobody() {
    let mut net = Net::joined(6, 12);
    let ids = net.ids();
    let mut rng = Pcg32::new(6, 6);
    for _ in 0..300 {
        let (one, other) = (rng.random_range(0..ids.len()), rng.random_range(0..ids.len()));
        if one != other {
            net.drop_link(ids[one], ids[other]);
        }
        net.run(Duration::from_millis(100));
    }
    net.assert_nobody_left(&ids);
    net.run(Duration::from_mins(1));
    net.assert_agreed(&ids);
}

#[test]
fn one_liar_removes_nobody() {
    let mut net = Net::joined(7, 12);
    let ids = net.ids();
    let liar = ids[5];
    let claims: Vec<_> = ids.iter().map(|peer| Claim { peer: *peer, sequence: u64::MAX - 1 }).collect();
    let gone = News { members: List::default(), gone: List::new(claims.clone()) }.into();
    let suspects = Suspect { suspects: List::new(claims) }.into();
    net.run(Duration::from_mins(1));
    let before = net.sent.clone();
    for _ in 0..600 {
        net.say_to_all(liar, &gone);
        net.say_to_all(liar, &suspects);
        net.run(Duration::from_millis(100));
    }
    net.assert_nobody_left(&ids);
    assert!(!net.log.iter().any(|(_, _, event)| matches!(event, Output::Suspected(_))), "nor is anybody suspected");
    let honest = || ids.iter().filter(|peer| **peer != liar);
    assert!(honest().all(|peer| net.machine(*peer).stats().refused.claims > 1_000), "it is not listened to any more");
    assert!(honest().all(|peer| net.sequence(liar, *peer) <= 1_000 + 10), "nor does it make the others shout");
    let probes = net.sent["Probe"].0 - before["Probe"].0;
    let looked_into = (12 + limits::CLAIMS as u64 + 60) * 11 * (1 + limits::PROBE_RELAYS as u64);
    assert!(probes < 12 * 2 * 60 + looked_into, "{probes} probes");
    net.run(5 * SECOND);
    net.assert_agreed(&ids);
}

#[test]
fn whom_others_reach_stays() {
    let mut net = Net::joined(8, 8);
    let ids = net.ids();
    let (one, other) = (ids[1], ids[6]);
    net.cut(|from, to| (from, to) == (one, other));
    net.run(Duration::from_mins(10));
    net.assert_nobody_left(&ids);
    assert!(!net.log.iter().any(|(_, _, event)| matches!(event, Output::Suspected(_))));
    assert_eq!(net.machine(one).state_of(&other), Some(State::Unlinked), "the link on which nothing came was given up");
    net.heal();
    net.run(Duration::from_mins(1));
    net.assert_agreed(&ids);
}

#[test]
fn a_suspect_that_lives_is_trusted_again() {
    let mut net = Net::joined(9, 6);
    let ids = net.ids();
    let silent = ids[2];
    net.cut(|from, _| from == silent);
    let others: Vec<_> = ids.iter().copied().filter(|peer| *peer != silent).collect();
    let suspected = |net: &Net| others.iter().all(|peer| net.machine(*peer).state_of(&silent) == Some(State::Suspect));
    net.run_until(10 * SECOND, suspected).expect("it does not answer");
    net.heal();
    net.run(2 * SECOND);
    net.assert_nobody_left(&others);
    let trusted = |(_, at, event): &&(Time, PeerId, Output)| *event == Output::Trusted(silent) && others.contains(at);
    assert_eq!(net.log.iter().filter(trusted).count(), others.len());
    net.run(Duration::from_mins(3));
    net.assert_agreed(&ids);
}

#[test]
fn a_clock_that_was_set_back_is_outbid() {
    // Back before anybody noticed, while it is suspect, and long after it is gone.
    for pause in [0, 3, 300] {
        let mut net = Net::joined(10, 7);
        let (ids, peer) = (net.ids(), net.start(99, 5_000));
        net.dial(peer, ids[0]);
        net.run(10 * SECOND);
        net.kill(peer);
        net.run(pause * SECOND);
        net.start(99, 5_000 - 3_600);
        net.dial(peer, ids[1]);
        net.run(Duration::from_mins(1));
        net.assert_agreed(&net.ids());
        assert!(ids.iter().all(|at| net.sequence(*at, peer) > 5_000));
    }
}

#[test]
fn old_news_resurrects_nobody() {
    let mut net = Net::joined(11, 5);
    let ids = net.ids();
    let victim = ids[3];
    let last_words = net.descriptor(victim);
    net.kill(victim);
    let alive = net.alive();
    net.run_until(10 * SECOND, |net| net.agree(&alive)).expect("it is gone");
    net.log.clear();
    net.news(ids[1], ids[0], last_words.clone(), 0);
    net.run(Duration::from_mins(130));
    net.news(ids[1], ids[0], last_words, 0);
    net.run(Duration::from_mins(1));
    let joined = net.log.iter().find(|(_, _, event)| *event == Output::Joined(victim));
    assert_eq!(joined, None);
    net.assert_agreed(&alive);
    assert!(net.machine(ids[0]).stats().refused.outdated > 0);
}

#[test]
fn who_is_remembered_is_dialled_and_no_member() {
    let mut old = Net::joined(12, 4);
    let remembered: Vec<_> = old.ids().iter().map(|peer| old.descriptor(*peer)).collect();
    old.run(Duration::from_mins(130));
    let newcomer = old.start(99, 1_000);
    old.input(newcomer, Input::Remembered(remembered));
    assert_eq!(old.machine(newcomer).total(), 1);
    old.run(10 * SECOND);
    old.assert_agreed(&old.ids());
    // All are dead: nobody is ever believed to be there.
    let remembered: Vec<_> = old.ids().iter().map(|peer| old.descriptor(*peer)).collect();
    let mut net = Net::new(12, 1);
    let alone = net.ids()[0];
    net.input(alone, Input::Remembered(remembered));
    net.run(Duration::from_mins(30));
    assert_eq!((net.machine(alone).total(), net.log.len()), (1, 0));
}

/// Of one that is in no network of these tests.
fn descriptor_at(identity: &Identity, address: &str) -> Descriptor {
    Descriptor {
        peer: identity.peer_id(),
        network: network_tag("test"),
        address: address.parse().expect("an address"),
        shard: ShardPrefix::ALL,
        capacity: 1,
        sequence: 7,
        lifetime_s: 7_200,
        admission: 0,
        volunteer: false,
    }
}

#[test]
fn who_is_only_named_is_dialled_once_an_hour_whatever_keys_are_named_there() {
    let mut net = Net::new(14, 1);
    let alone = net.ids()[0];
    let victim: SocketAddr = "192.0.2.7:7780".parse().expect("an address");
    let named = |key: u8, address: &str| {
        let identity = Identity::from_seed([key; 32]);
        descriptor_at(&identity, address).sign(&identity)
    };
    for minute in 0..150_u8 {
        // Another key and port each time, and somebody else.
        let port = 7_000 + u16::from(minute);
        let lies = [named(100 + minute % 100, &format!("192.0.2.7:{port}")), named(1 + minute % 50, "192.0.2.9:7780")];
        net.input(alone, Input::Named(lies.into()));
        net.input(alone, Input::Named(vec![named(60, "198.51.100.1:7780")]));
        net.run(Duration::from_mins(1));
    }
    let network = |address: SocketAddr| network_prefix(address, 24, 48);
    let times = |of: SocketAddr| net.dials.iter().filter(|(_, address)| network(*address) == network(of)).count();
    assert_eq!(times(victim), 3, "{:?}", net.dials);
    assert_eq!(times("198.51.100.1:1".parse().expect("an address")), 3);
}

#[test]
fn a_small_network_asks_those_it_knew_one_after_the_other_and_each_of_their_networks_once_an_hour() {
    let mut net = Net::new(15, 1);
    let alone = net.ids()[0];
    let contact = |key: u8, address: &str| Contact {
        peer: Identity::from_seed([key; 32]).peer_id(),
        address: address.parse().expect("an address"),
    };
    let known = [contact(90, "192.0.2.1:1"), contact(91, "192.0.2.2:1"), contact(92, "198.51.100.1:1")];
    net.input(alone, Input::Contacts(known.into()));
    net.run(Duration::from_mins(2));
    let networks = |net: &Net| {
        let of = |(_, address): &(Time, SocketAddr)| network_prefix(*address, 24, 48);
        let all: Vec<_> = net.dials.iter().map(of).collect();
        let distinct = all.iter().collect::<BTreeSet<_>>().len();
        (all.len(), distinct)
    };
    assert_eq!(networks(&net), (2, 2), "{:?}", net.dials);
    net.run(Duration::from_mins(58 + 4));
    assert_eq!(networks(&net), (4, 2), "{:?}", net.dials);
    // In the end the two that share a network have had their turns.
    net.run(Duration::from_hours(2));
    let asked: BTreeSet<_> = net.dials.iter().map(|(_, address)| *address).collect();
    assert_eq!(asked.len(), 3, "{:?}", net.dials);
}

#[test]
fn what_is_refused_is_counted_by_reason() {
    let mut net = Net::joined(13, 3);
    let ids = net.ids();
    let (at, from) = (ids[0], ids[1]);
    let identity = Identity::from_seed([99; 32]);
    let good = descriptor_at(&identity, "192.0.2.99:7780");
    let other = Descriptor { network: network_tag("other"), ..good };
    let impossible = Descriptor { lifetime_s: u32::MAX, ..good };
    let strange = Identity::from_seed([98; 32]);
    net.news(from, at, other.sign(&identity), 0);
    net.news(from, at, impossible.sign(&identity), 0);
    net.news(from, at, good.sign(&strange), 0);
    net.news(from, at, good.sign(&identity), 7_200);
    let own = net.descriptor(at).open().expect("a good one");
    net.news(from, at, Descriptor { sequence: u64::MAX, ..own }.sign(&strange), 0);
    let refused = Refused { malformed: 1, forged: 2, other_network: 1, expired: 1, ..Refused::default() };
    assert_eq!(net.machine(at).stats().refused, refused);
    assert!(!net.view_of(at).contains(&good.peer));
    net.news(from, at, good.sign(&identity), 7_000);
    net.news(from, at, Descriptor { sequence: 6, ..good }.sign(&identity), 0);
    assert_eq!(net.machine(at).stats().refused, Refused { outdated: 1, ..refused });
    assert!(net.view_of(at).contains(&good.peer));
    net.run(Duration::from_mins(5));
    assert!(!net.view_of(at).contains(&good.peer), "it never was there, and its time is over");
    net.assert_agreed(&ids);
}

#[test]
fn a_descriptor_grows_old_on_its_way() {
    let mut net = Net::new(14, 4);
    let ids = net.ids();
    net.cut(|from, to| from.min(to) == ids[0] && from.max(to) == ids[2]);
    net.dial(ids[0], ids[1]);
    net.run(Duration::from_mins(30));
    net.dial(ids[2], ids[1]);
    net.run(10 * SECOND);
    // What the newcomer has of the first, by another, is as old as it is.
    let age = net.machine(ids[2]).members[&ids[0]].age_s(net.now);
    assert!((1_800..1_900).contains(&age), "{age}");
}

#[test]
fn how_busy_members_are_is_known() {
    let mut net = Net::joined(15, 3);
    let ids = net.ids();
    let load = Load { leaves: 77, capacity: 200 };
    net.input(ids[1], Input::Load(load));
    net.run(5 * SECOND);
    assert_eq!(net.machine(ids[0]).load_of(&ids[1]), Some(load));
    let descriptor = net.machine(ids[2]).descriptor_of(&ids[1]).expect("a member").open();
    assert_eq!(descriptor.expect("a good one").capacity, 200, "another capacity is announced");
}

#[test]
fn a_node_that_hung_judges_nobody() {
    let mut net = Net::joined(16, 6);
    let at = net.ids()[0];
    let later = net.now + Duration::from_mins(10);
    let node = net.nodes.get_mut(&at).expect("a node");
    let mut rng = Pcg32::new(1, 1);
    let mut out = Outbox::new();
    // It probes somebody, hangs, and looks at its deadlines before it reads the answer.
    let due = node.machine.next_deadline().expect("a probe");
    node.machine.on_deadline(&mut Context::new(due, &mut rng), &mut out);
    out.drain().for_each(drop);
    node.machine.on_deadline(&mut Context::new(later, &mut rng), &mut out);
    assert!(out.drain().all(|event| !matches!(event, Output::Suspected(_) | Output::Left(_))));
    assert_eq!(node.machine.stats().suspect, 0);
}

/// Four parts of the leaf space with as many members each.
fn sharded(seed: u64, each: u8) -> (Net, Vec<(PeerId, ShardPrefix)>) {
    let mut net = Net::new(seed, 4 * each);
    let parts = ["00", "01", "10", "11"].map(|text| text.parse::<ShardPrefix>().expect("a prefix"));
    let placed: Vec<_> = net.ids().into_iter().zip(parts.into_iter().cycle()).collect();
    for (peer, part) in &placed {
        net.input(*peer, Input::Shard(*part));
    }
    for pair in placed.windows(2) {
        net.dial(pair[1].0, pair[0].0);
    }
    net.run(Duration::from_mins(1));
    (net, placed)
}

#[test]
fn parts_of_the_leaf_space_are_linked_and_hear_of_each_other() {
    let (mut net, placed) = sharded(17, 6);
    let part_of = |peer: &PeerId| placed.iter().find(|(other, _)| other == peer).expect("one of them").1;
    let links = |net: &Net, at: PeerId, part: ShardPrefix| {
        net.machine(at).linked().filter(|peer| part_of(peer) == part).count()
    };
    let all_linked = |net: &Net| {
        net.alive().iter().all(|at| {
            let mates = net.alive().iter().filter(|peer| part_of(peer) == part_of(at)).count() - 1;
            placed.iter().all(|(_, part)| {
                links(net, *at, *part) >= if *part == part_of(at) { mates } else { limits::LINKS_PER_PART }
            })
        })
    };
    assert!(net.agree(&net.ids()), "everybody knows everybody");
    assert!(all_linked(&net));
    let total: usize = net.ids().iter().map(|at| net.machine(*at).linked().count()).sum();
    assert!(total < 24 * 18, "{total} ends of links: not everybody is linked to everybody");

    // Deaths are noticed by the mates, heard of by the others, and links are replaced.
    for victim in [placed[0].0, placed[4].0, placed[1].0, placed[6].0] {
        net.kill(victim);
    }
    let alive = net.alive();
    net.run_until(10 * SECOND, |net| net.agree(&alive)).expect("all are gone everywhere");
    net.run(Duration::from_mins(1));
    assert!(all_linked(&net));
    net.assert_nobody_left(&alive);
}

#[test]
fn who_widens_gets_links_to_its_new_mates() {
    let (mut net, placed) = sharded(18, 3);
    let wide = placed[0].0;
    net.input(wide, Input::Shard("0".parse().expect("a prefix")));
    net.run(10 * SECOND);
    let shard =
        |at: PeerId| net.machine(at).iter().find(|(member, _)| member.peer == wide).map(|(member, _)| member.shard);
    assert!(placed[1..].iter().all(|(peer, _)| shard(*peer).is_some_and(|shard| shard.to_string() == "0")));
    let mates = placed[1..].iter().filter(|(_, part)| part.to_string().starts_with('0'));
    assert!(
        mates.clone().count() == 5
            && mates.clone().all(|(peer, _)| net.machine(wide).state_of(peer) == Some(State::Linked))
    );
    net.kill(wide);
    let alive = net.alive();
    net.run_until(8 * SECOND, |net| net.agree(&alive)).expect("it is gone everywhere");
}
