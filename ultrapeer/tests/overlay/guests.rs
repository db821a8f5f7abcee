//! What leaves are told of ultrapeers, and where they are sent.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use overlay::{
    id::PeerId,
    identity::Identity,
    limits,
    wire::{
        descriptor::{Descriptor, Endorsement, ShardPrefix, SignedDescriptor, network_tag},
        leaf::{LeafMessage, Members, MembersAsk, ViewAsk},
    },
};
use ultrapeer::ultrapeer::Verdict;

use crate::net::{Net, file};

/// The frames of members among what a leaf was told.
fn members(told: Vec<(PeerId, LeafMessage)>) -> Vec<(PeerId, Members)> {
    let members = told.into_iter().filter_map(|(home, message)| match message {
        LeafMessage::Members(members) => Some((home, members)),
        _ => None,
    });
    members.collect()
}

/// Whom a leaf is told of when it asks for `most`.
fn asked(net: &mut Net, leaf: usize, home: PeerId, most: u16) -> BTreeSet<PeerId> {
    net.told(leaf);
    net.say(leaf, home, MembersAsk { most });
    net.run(Duration::from_secs(1));
    let frames = members(net.told(leaf));
    let all = frames.iter().flat_map(|(_, members)| members.descriptors.iter());
    all.map(|signed| signed.open().expect("it is sound").peer).collect()
}

/// A leaf attached to some of the ultrapeers, which have its list.
fn leaf_at(net: &mut Net, homes: &[PeerId]) -> usize {
    let leaf = net.add_leaf(vec![file("Share/a tune.ogg", "a tune")]);
    for home in homes {
        net.attach(leaf, *home);
    }
    net.run(Duration::from_secs(2));
    leaf
}

#[test]
fn an_attachment_tells_how_many_ultrapeers_there_are_and_who_asks_learns_of_them() {
    let mut net = Net::new(1, 5);
    let all = net.ultrapeers();
    let leaf = leaf_at(&mut net, &all[..1]);
    let [(home, first)] = &members(net.told(leaf))[..] else { panic!("one frame") };
    assert_eq!((*home, first.total, first.descriptors.len()), (all[0], 5, 0));
    assert_eq!(asked(&mut net, leaf, all[0], 200), all.iter().copied().collect());
    assert_eq!(asked(&mut net, leaf, all[0], 3).len(), 3);
    // Whoever asks all the time is not answered all the time.
    let answered = (0..20).filter(|_| !asked(&mut net, leaf, all[0], 3).is_empty()).count();
    assert!((2..=5).contains(&answered), "{answered}");
}

#[test]
fn a_leaf_that_returns_with_its_list_costs_its_home_hardly_anything() {
    let mut net = Net::new(1, 9);
    let home = net.ultrapeers()[0];
    let leaf = leaf_at(&mut net, &[home]);
    // Until it has proven that it has what it lists.
    net.run(Duration::from_mins(1));
    net.kill_leaf(leaf);
    net.run(Duration::from_secs(1));
    let before = net.bytes_of(leaf);
    net.attach(leaf, home);
    net.run(Duration::from_mins(1));
    assert!(net.acknowledged(leaf).contains(&home), "its list is searchable again");
    let spent = net.bytes_of(leaf) - before;
    assert!((100..=300).contains(&spent), "{spent} bytes");
}

#[test]
fn in_a_small_network_leaves_are_told_of_each_end_and_not_of_renewals() {
    let mut net = Net::new(1, 5);
    let all = net.ultrapeers();
    let leaf = leaf_at(&mut net, &all[..2]);
    net.told(leaf);
    net.run(limits::DESCRIPTOR_REFRESH * 2);
    assert_eq!(net.told(leaf), [], "nothing happened");
    net.kill_ultrapeer(all[4]);
    net.run(Duration::from_secs(30));
    let told = members(net.told(leaf));
    assert_eq!(told.iter().map(|(home, _)| *home).collect::<BTreeSet<_>>(), all[..2].iter().copied().collect());
    assert!(told.iter().all(|(_, members)| *members.gone == [all[4]] && members.total == 4), "{told:?}");
}

#[test]
fn in_a_large_network_leaves_are_told_of_the_end_of_their_own_homes_only() {
    let mut net = Net::new(1, 4);
    let all = net.ultrapeers();
    let (one, other) = (leaf_at(&mut net, &all[..3]), leaf_at(&mut net, &[all[0], all[3]]));
    // Nobody has looked yet whether these are there.
    let strangers: Vec<_> = (0..limits::MEMBERS_PUSHED as u8).map(stranger).collect();
    for (peer, from) in all.iter().zip(all.iter().rev()) {
        net.hear(*peer, *from, &strangers);
    }
    assert_eq!(asked(&mut net, one, all[0], 200).len(), 4 + strangers.len());
    net.told(other);
    net.kill_ultrapeer(all[2]);
    let mut told = Vec::new();
    for _ in 0..10 {
        net.run(Duration::from_secs(1));
        told.extend(members(net.told(one)));
        if told.len() == 2 {
            break;
        }
    }
    assert_eq!(told.iter().map(|(home, _)| *home).collect::<BTreeSet<_>>(), all[..2].iter().copied().collect());
    assert!(told.iter().all(|(_, members)| *members.gone == [all[2]] && members.descriptors.is_empty()));
    assert!(told.iter().all(|(_, members)| members.total > limits::MEMBERS_PUSHED));
    assert_eq!(net.told(other), []);
}

/// An ultrapeer that nobody can reach, let in by the first two.
fn stranger(number: u8) -> SignedDescriptor {
    let identity = Identity::from_seed(*blake3::hash(&[number]).as_bytes());
    let descriptor = Descriptor {
        peer: identity.peer_id(),
        network: network_tag("test"),
        address: SocketAddr::from(([203, 0, 113, number], 7780)),
        shard: ShardPrefix::ALL,
        capacity: 100,
        sequence: 1,
        lifetime_s: 7_200,
        admission: 0,
        volunteer: false,
    };
    let endorsements = [1, 2].map(|voter| Endorsement::sign(&Identity::from_seed([voter; 32]), &descriptor, 0));
    descriptor.sign_endorsed(&identity, endorsements)
}

#[test]
fn homes_say_whom_they_take_for_an_ultrapeer() {
    let mut net = Net::new(1, 4);
    let all = net.ultrapeers();
    let leaf = leaf_at(&mut net, &all[..2]);
    net.told(leaf);
    for home in &all[..2] {
        net.say(leaf, *home, ViewAsk { token: 5, known: None });
    }
    net.run(Duration::from_secs(1));
    let told = net.told(leaf);
    let [(_, LeafMessage::View(one)), (_, LeafMessage::View(other))] = &told[..] else { panic!("{told:?}") };
    assert_eq!((one.token, one.total, one.view), (5, 4, net.machine(&all[0]).membership().view()));
    assert_eq!((one.total, one.view), (other.total, other.view));
    assert!(one.sketch.is_some() && one.sketch == other.sketch);
    let view = one.view;
    net.say(leaf, all[0], ViewAsk { token: 6, known: Some(view) });
    net.run(Duration::from_secs(1));
    let told = net.told(leaf);
    let [(_, LeafMessage::View(again))] = &told[..] else { panic!("{told:?}") };
    assert_eq!((again.token, &again.sketch), (6, &None), "the leaf has it");
}

#[test]
fn a_home_with_more_than_its_share_sends_newcomers_to_those_with_less() {
    let mut net = Net::new(1, 5);
    let all = net.ultrapeers();
    let leaves: Vec<_> = (0..60).map(|_| net.add_leaf(Vec::new())).collect();
    for (number, leaf) in leaves.iter().enumerate() {
        // The first has 60, the second 10, the others none.
        net.attach(*leaf, all[0]);
        if number < 10 {
            net.attach(*leaf, all[1]);
        }
    }
    net.run(Duration::from_secs(5));
    let newcomer = PeerId([9; 32]);
    let Verdict::Elsewhere(others) = net.machine(&all[0]).judge(&newcomer, false, false) else { panic!("it is busy") };
    let others: Vec<_> = others.iter().map(|signed| signed.open().expect("it is sound").peer).collect();
    assert_eq!(others.len(), 4);
    assert_eq!(others[3], all[1], "least loaded first");
    let stays =
        |net: &Net, home: PeerId, leaf, insists| net.machine(&home).judge(&leaf, insists, false) == Verdict::Stays;
    assert!(stays(&net, all[0], newcomer, true), "it has nowhere else to go");
    assert!(stays(&net, all[1], newcomer, false), "it is hardly above its share");
    let own = net.peer_of(leaves[0]);
    assert!(stays(&net, all[0], own, false));
    net.kill_leaf(leaves[0]);
    assert!(stays(&net, all[0], own, false), "its list is kept here");
}

#[test]
fn a_home_with_more_than_its_share_asks_those_that_have_enough_to_move_and_few_at_a_time() {
    let mut net = Net::new(1, 6);
    let all = net.ultrapeers();
    let leaves: Vec<_> = (0..60).map(|_| net.add_leaf(Vec::new())).collect();
    for (number, leaf) in leaves.iter().enumerate() {
        // Ten of them have but two homes.
        for home in &all[..if number < 10 { 2 } else { 3 }] {
            net.attach(*leaf, *home);
        }
    }
    let mut asked = BTreeSet::new();
    for minute in 1..=20 {
        net.run(Duration::from_mins(1));
        for (number, leaf) in leaves.iter().enumerate() {
            for (home, told) in net.told(*leaf) {
                let LeafMessage::Goodbye(goodbye) = told else { continue };
                if home == all[0] {
                    assert!(number >= 10 && asked.insert(number), "{number} cannot go");
                }
                let named = goodbye.alternatives.iter().map(|signed| signed.open().expect("it is sound").peer);
                assert!(all[3..].contains(&named.clone().next().expect("there are others")));
                assert!(named.clone().all(|peer| all[3..].contains(&peer)));
            }
        }
        assert!(asked.len() <= 3 * (minute * 4 / 3 + 1), "{} in {minute} min", asked.len());
    }
    // Its share is 170 / 6, with a tenth and three more.
    assert_eq!(asked.len(), 60 - 34);
}

#[test]
fn who_has_no_home_takes_the_place_of_one_that_has_enough() {
    let mut net = Net::new(1, 4);
    let all = net.ultrapeers();
    let leaves: Vec<_> = (0..4).map(|number| net.add_leaf(vec![file(&format!("a/{number}"), "x")])).collect();
    // The first home is one of three of each leaf but the last, whose only one it is.
    for (number, leaf) in leaves.iter().enumerate() {
        for home in &all[..if number == 3 { 1 } else { 3 }] {
            net.attach(*leaf, *home);
        }
    }
    net.set_max_leaves(4);
    net.run(Duration::from_secs(5));
    let newcomer = net.add_leaf(Vec::new());
    let peer = net.peer_of(newcomer);
    let judged = |net: &Net, insists, homeless| net.machine(&all[0]).judge(&peer, insists, homeless);
    assert_eq!(judged(&net, true, false), Verdict::Full, "it has another home");
    assert_eq!(judged(&net, false, true), Verdict::Full, "others may have room");
    assert_eq!(judged(&net, true, true), Verdict::Stays);
    for leaf in &leaves {
        net.told(*leaf);
    }
    net.attach(newcomer, all[0]);
    net.run(Duration::from_secs(1));
    let asked = |net: &mut Net, leaf| {
        net.told(leaf).iter().filter(|(home, told)| *home == all[0] && matches!(told, LeafMessage::Goodbye(_))).count()
    };
    let counts: Vec<_> = leaves.iter().map(|leaf| asked(&mut net, *leaf)).collect();
    assert_eq!((counts[..3].iter().sum::<usize>(), counts[3]), (1, 0), "one that has two others is asked to leave");
    let next = net.machine(&all[0]).judge(&PeerId([9; 32]), true, true);
    assert_eq!(next, Verdict::Full, "the reserve is used up until it has left");
}

#[test]
fn nobody_is_sent_on_where_every_leaf_needs_every_ultrapeer() {
    let mut net = Net::new(1, 3);
    let all = net.ultrapeers();
    for _ in 0..60 {
        let leaf = net.add_leaf(Vec::new());
        net.attach(leaf, all[0]);
    }
    net.run(Duration::from_secs(5));
    assert_eq!(net.machine(&all[0]).judge(&PeerId([9; 32]), false, false), Verdict::Stays);
}

#[test]
fn who_ends_names_others_that_are_no_homes_yet_and_serves_until_its_leaves_are_gone() {
    let mut net = Net::new(1, 5);
    let all = net.ultrapeers();
    let leaf = leaf_at(&mut net, &all[..3]);
    net.told(leaf);
    net.drain(all[0]);
    net.run(Duration::from_secs(1));
    let told = net.told(leaf);
    let goodbye = told.iter().find_map(|(home, message)| match message {
        LeafMessage::Goodbye(goodbye) if *home == all[0] => Some(goodbye),
        _ => None,
    });
    let named = goodbye.expect("it says good-bye").alternatives.iter();
    let named: BTreeSet<_> = named.map(|signed| signed.open().expect("it is sound").peer).collect();
    assert_eq!(named, all[3..].iter().copied().collect());
    let hits = net.search(leaf, all[0], "tune").hits;
    assert_eq!(hits.len(), 1, "it still answers");
}
