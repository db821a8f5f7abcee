use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{
    list::{ListKind, parse},
    *,
};
use crate::{
    file::Tags,
    wire::{
        bounded::{List, Text},
        search::{Hit, HitPeer, Reachability},
    },
};

fn peer(byte: u8) -> PeerId {
    PeerId([byte; 32])
}

fn content(byte: u8) -> ContentId {
    ContentId([byte; 32])
}

/// Addresses of a small part of each family, so that prefixes hold some of them.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..4, 0_u8..4).prop_map(|(c, d)| IpAddr::from([192, 0, c, d])),
        (0_u8..4, 0_u8..4).prop_map(|(c, d)| IpAddr::V6(Ipv4Addr::new(192, 0, c, d).to_ipv6_mapped())),
        (0_u16..4, 0_u16..4).prop_map(|(g, h)| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, g, h))),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (0_u8..4).prop_map(|byte| Target::Peer(peer(byte))),
        (0_u8..4).prop_map(|byte| Target::Content(content(byte))),
        (address(), 0_u8..=128)
            .prop_filter_map("fewer bits", |(address, bits)| { Prefix::new(address, bits).ok().map(Target::Prefix) }),
    ]
}

/// What may be done to a book.
#[derive(Clone, Debug)]
enum Step {
    Add(Target, Option<i64>),
    Lift(Target),
    Listed(Vec<Target>),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (target(), prop::option::of(1_i64..20)).prop_map(|(target, span)| Step::Add(target, span)),
        2 => target().prop_map(Step::Lift),
        1 => prop::collection::vec(target(), 0..4).prop_map(Step::Listed),
        2 => (1_i64..10).prop_map(Step::Wait),
    ]
}

fn ban(target: Target, created_s: i64, expires_s: Option<i64>) -> Ban {
    Ban { target, reason: None, created_s, expires_s }
}

proptest! {
    #[test]
    fn a_book_says_what_a_plain_list_says(
        steps in prop::collection::vec(step(), 0..40),
        asked in prop::collection::vec(address(), 8),
    ) {
        let mut book = Book::default();
        let (mut made, mut listed): (Vec<Ban>, Vec<Target>) = (Vec::new(), Vec::new());
        let mut now_s = 0;
        for step in steps {
            match step {
                Step::Add(target, span) => {
                    let expires_s = span.map(|span| now_s + span);
                    made.retain(|known| known.target != target);
                    made.push(ban(target, now_s, expires_s));
                    prop_assert!(book.add(ban(target, now_s, expires_s)));
                }
                Step::Lift(target) => {
                    let expected = if listed.contains(&target) {
                        Lifted::Listed
                    } else if made.iter().any(|known| known.target == target) {
                        made.retain(|known| known.target != target);
                        Lifted::Lifted
                    } else {
                        Lifted::Unknown
                    };
                    prop_assert_eq!(book.lift(&target), expected);
                }
                Step::Listed(targets) => {
                    prop_assert!(book.set_listed(targets.iter().map(|target| ban(*target, now_s, None))));
                    listed = targets;
                }
                Step::Wait(span) => {
                    let next = made.iter().filter_map(|known| known.expires_s).min();
                    prop_assert_eq!(book.next_expiry(), next);
                    now_s += span;
                    let before = made.len();
                    made.retain(|known| known.expires_s.is_none_or(|at| at > now_s));
                    prop_assert_eq!(book.expire(now_s), made.len() < before);
                }
            }
            let all: Vec<Target> = made.iter().map(|known| known.target).chain(listed.iter().copied()).collect();
            let rules = book.rules();
            for byte in 0..4 {
                prop_assert_eq!(rules.bans_peer(&peer(byte)), all.contains(&Target::Peer(peer(byte))));
                prop_assert_eq!(rules.blocks(&content(byte)), all.contains(&Target::Content(content(byte))));
            }
            for address in &asked {
                let holds = |target: &Target| matches!(target, Target::Prefix(prefix) if prefix.contains(*address));
                prop_assert_eq!(rules.bans_address(*address), all.iter().any(holds), "{}", address);
            }
            let shown: Vec<_> = book.iter().map(|(ban, origin)| (ban.target, origin)).collect();
            let mut expected: Vec<_> = all;
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(shown.iter().map(|(target, _)| *target).collect::<Vec<_>>(), expected);
            for (target, origin) in shown {
                prop_assert_eq!(origin == Origin::File, listed.contains(&target));
                prop_assert_eq!(book.get(&target).map(|(_, origin)| origin), Some(origin));
            }
        }
    }

    #[test]
    fn targets_are_read_as_they_are_shown(target in target()) {
        prop_assert_eq!(target.to_string().parse(), Ok(target));
    }

    #[test]
    fn any_text_is_a_list(text in "(?s).{0,200}") {
        let (bans, _) = parse(&text, ListKind::Bans);
        prop_assert!(bans.iter().all(|entry| entry.target.kind() != Kind::Content));
        let (blocks, _) = parse(&text, ListKind::Blocks);
        prop_assert!(blocks.iter().all(|entry| entry.target.kind() == Kind::Content));
    }
}

#[test]
fn a_book_has_room_for_so_many() {
    let number = |number: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        ban(Target::Peer(PeerId(bytes)), 0, Some(9))
    };
    let mut book = Book::new((0..limits::BANS).map(number));
    assert!(!book.add(number(limits::BANS)));
    assert!(book.add(number(1)), "it takes the place of another");
    assert_eq!(book.iter().count(), limits::BANS);
}

#[test]
fn what_a_list_said_before_keeps_its_time() {
    let mut book = Book::default();
    let [first, second] = [1, 2].map(|byte| Target::Peer(peer(byte)));
    assert!(book.set_listed([ban(first, 5, None)]));
    assert!(book.set_listed([first, second].map(|target| ban(target, 9, None))));
    assert_eq!([first, second].map(|target| book.get(&target).map(|(ban, _)| ban.created_s)), [Some(5), Some(9)]);
}

#[test]
fn a_bad_line_is_told_and_the_rest_counts() {
    let text = format!(
        "\u{feff}# who is not wanted\n{}  # floods\n\n 192.0.2.0/24\n2001:db8::/129\nnobody\n198.51.100.7#\n{}\n",
        peer(1),
        content(2)
    );
    let (entries, bad) = parse(&text, ListKind::Bans);
    let entry = |target: &str, reason: Option<&str>| list::Entry {
        target: target.parse().unwrap(),
        reason: reason.map(str::to_owned),
    };
    let expected =
        [entry(&peer(1).to_string(), Some("floods")), entry("192.0.2.0/24", None), entry("198.51.100.7/32", None)];
    assert_eq!(entries, expected);
    assert_eq!(bad.iter().map(|line| line.line).collect::<Vec<_>>(), [5, 6, 8]);
    assert!(bad[2].why.contains("content"), "{bad:?}");
    let (entries, bad) = parse(&text, ListKind::Blocks);
    assert_eq!(entries, [entry(&content(2).to_string(), None)]);
    assert_eq!(bad.len(), 5);
}

#[test]
fn a_hit_loses_banned_sources_and_is_withheld_with_its_last() {
    let source = |byte| HitPeer {
        peer: peer(byte),
        homes: List::default(),
        reachability: Reachability::Public,
        free_slots: 1,
        queue: 0,
    };
    let hit = |sources, peers: &[u8]| Hit {
        content: content(1),
        size: 1,
        score: 1,
        names: List::new([Text::new("a")]),
        path: Text::new("s/a"),
        modified_s: 0,
        tags: Tags::default(),
        sources,
        networks: sources,
        peers: List::new(peers.iter().copied().map(source)),
        holders: List::default(),
    };
    let rules = Rules::new([Target::Peer(peer(7)), Target::Content(content(9))]);
    for (sources, peers, left, expected) in [
        (1, &[1][..], 1, false),
        (2, &[7, 1][..], 1, false),
        (1, &[7][..], 0, true),
        // Others have it, who are not named.
        (3, &[7][..], 2, false),
    ] {
        let mut hit = hit(sources, peers);
        assert_eq!(rules.withholds(&mut hit), expected, "{sources} {peers:?}");
        assert_eq!(hit.sources, left);
        assert!(hit.peers.iter().all(|source| source.peer != peer(7)));
    }
    let mut blocked = Hit { content: content(9), ..hit(1, &[1]) };
    assert!(rules.withholds(&mut blocked));
}
