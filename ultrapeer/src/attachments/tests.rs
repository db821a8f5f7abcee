//! Logs and copies of them against a plain model.

use std::time::Duration;

use overlay::wire::{
    bounded::List,
    mesh::{AttachmentChange, Attachments as Frame},
};
use proptest::prelude::*;

use super::*;

fn peer(byte: u8) -> PeerId {
    PeerId([byte; 32])
}

fn list(sequence: u64) -> LeafList {
    LeafList { sequence, place: 0, chunks: [ChunkName(sequence), ChunkName(sequence + 1)].into() }
}

/// What a home with these leaves says after `changes`.
fn frame(reset: bool, leaves: &[(u64, u64)], changes: &[(u64, Option<u64>)]) -> Frame {
    let told = |sequence: u64| AttachedList { sequence, place: 0, chunks: List::new(list(sequence).chunks) };
    let changes =
        changes.iter().map(|(handle, sequence)| AttachmentChange { handle: *handle, list: sequence.map(told) });
    let sum = leaves.iter().fold(0, |sum, (handle, sequence)| sum ^ list(*sequence).sum(*handle));
    let caught_up = Some(AttachmentSum { leaves: leaves.len() as u32, sum });
    Frame { reset, caught_up, changes: List::new(changes) }
}

/// A home tells all its leaves.
fn tell(log: &mut Attachments, home: u8, leaves: &[(u64, u64)]) -> Heard {
    log.following(Time::ZERO, peer(home));
    let changes: Vec<_> = leaves.iter().map(|(handle, sequence)| (*handle, Some(*sequence))).collect();
    log.heard(peer(home), frame(true, leaves, &changes))
}

fn best(log: &Attachments, handle: u64) -> Vec<PeerId> {
    log.best(handle, |_| true).collect()
}

#[test]
fn the_homes_with_the_newest_list_are_the_best() {
    let mut log = Attachments::new(peer(0));
    log.own_change(Time::ZERO, 7, Some((0, list(1))));
    tell(&mut log, 1, &[(7, 2), (8, 1)]);
    tell(&mut log, 2, &[(7, 2)]);
    assert_eq!((log.leaves(), log.leaves_of(&peer(1)), log.is_home(&peer(2), 8)), (2, 2, false));
    assert_eq!((best(&log, 7), best(&log, 8), best(&log, 9)), (vec![peer(1), peer(2)], vec![peer(1)], vec![]));
    let reachable: Vec<_> = log.best(7, |home| *home == peer(0)).collect();
    assert_eq!(reachable, [peer(0)], "an older list is better than none");
    assert_eq!(log.forget(&peer(1)), [7, 8]);
    assert_eq!((log.leaves(), best(&log, 7)), (1, vec![peer(2)]));
}

#[test]
fn a_distrusted_home_counts_only_where_there_is_no_other() {
    let mut log = Attachments::new(peer(0));
    log.own_change(Time::ZERO, 9, Some((0, list(1))));
    tell(&mut log, 1, &[(7, 2), (8, 1), (9, 2)]);
    tell(&mut log, 2, &[(7, 1)]);
    assert_eq!(log.set_distrusted(peer(1), true), [7, 8, 9]);
    assert_eq!((best(&log, 7), best(&log, 8), best(&log, 9)), (vec![peer(2)], vec![peer(1)], vec![peer(0)]));
    let unsearched =
        |log: &Attachments, handle| log.unsearched(handle, None, &[]).map(|(home, _)| *home).collect::<Vec<_>>();
    assert_eq!((unsearched(&log, 7), unsearched(&log, 8), unsearched(&log, 9)), (vec![peer(2)], vec![peer(1)], vec![]));
    // What is known of it stays, and counts again when it is trusted.
    log.forget(&peer(2));
    assert_eq!(best(&log, 7), [peer(1)]);
    tell(&mut log, 2, &[(7, 1)]);
    assert_eq!(log.set_distrusted(peer(1), false), [7, 8, 9]);
    assert_eq!((best(&log, 7), best(&log, 9)), (vec![peer(1)], vec![peer(1)]));
}

#[test]
fn any_leaf_of_a_home_is_one_that_it_told_of() {
    let mut log = Attachments::new(peer(0));
    assert_eq!(log.leaf_of(&peer(1), 5), None);
    tell(&mut log, 1, &[(7, 2), (8, 1)]);
    assert_eq!([0, 7, 8, 9].map(|at| log.leaf_of(&peer(1), at)), [Some(7), Some(7), Some(8), Some(7)]);
}

#[test]
fn a_copy_is_current_until_its_home_was_silent_for_three_seconds() {
    let mut log = Attachments::new(peer(0));
    let late = Time::ZERO + Duration::from_secs(4);
    assert!(!log.is_current(Time::ZERO, &peer(1)));
    assert_eq!(log.heard(peer(1), frame(true, &[(1, 1)], &[(1, Some(1))])), Heard::default(), "it is not followed");
    tell(&mut log, 1, &[(1, 1)]);
    assert!(log.is_current(late, &peer(1)));
    log.doubt(Time::ZERO, &peer(1));
    assert!(log.is_current(Time::ZERO + Duration::from_secs(3), &peer(1)) && !log.is_current(late, &peer(1)));
    log.trust(&peer(1));
    assert!(log.is_current(late, &peer(1)));
    // A lost link leaves a gap, which only the whole log closes.
    log.unlinked(Time::ZERO, &peer(1));
    log.trust(&peer(1));
    assert!(!log.is_current(late, &peer(1)));
    tell(&mut log, 1, &[(1, 1)]);
    assert!(log.is_current(late, &peer(1)));
}

#[test]
fn a_copy_that_is_not_what_its_home_has_is_noticed() {
    let mut log = Attachments::new(peer(0));
    assert!(!tell(&mut log, 1, &[(1, 1), (2, 1)]).differs);
    let heard = log.heard(peer(1), frame(false, &[(1, 1), (2, 1), (3, 1)], &[(4, Some(1))]));
    assert_eq!(heard, Heard { changed: vec![4], differs: true });
    assert!(!log.is_current(Time::ZERO + Duration::from_secs(4), &peer(1)));
    assert!(!tell(&mut log, 1, &[(1, 1)]).differs, "it begins anew");
    assert_eq!(log.leaves(), 1);
}

#[test]
fn a_home_that_claims_too_many_leaves_is_cut_and_not_followed_for_ever() {
    let mut log = Attachments::new(peer(0));
    log.following(Time::ZERO, peer(1));
    let mut next = 0..;
    for _ in 0..=limits::LEAVES_OF_HOME / limits::ATTACHMENTS_PER_FRAME {
        let changes: Vec<_> =
            next.by_ref().take(limits::ATTACHMENTS_PER_FRAME).map(|handle| (handle, Some(1))).collect();
        log.heard(peer(1), Frame { caught_up: None, ..frame(false, &[], &changes) });
    }
    assert_eq!(log.leaves(), limits::LEAVES_OF_HOME);
    assert!(!log.heard(peer(1), frame(false, &[], &[])).differs);
}

#[test]
fn a_long_log_goes_out_in_frames_that_fit() {
    let mut log = Attachments::new(peer(0));
    for handle in 0..3_000 {
        let chunks = if handle % 500 == 0 { limits::CHUNKS_PER_LEAF } else { 1 };
        let chunks = (0..chunks as u64).map(|chunk| ChunkName(u64::MAX - chunk)).collect();
        log.own_change(Time::ZERO, handle, Some((handle as u32, LeafList { sequence: 1, place: 0, chunks })));
    }
    let mut other = Attachments::new(peer(1));
    other.following(Time::ZERO, peer(0));
    for (to, frame) in log.follow(Time::ZERO, peer(1), ShardPrefix::ALL) {
        assert_eq!(to, peer(1));
        let mut buffer = Vec::new();
        let message = overlay::wire::mesh::MeshMessage::from(frame.clone());
        overlay::wire::frame::encode(&message, &mut buffer).expect("below its cap");
        assert!(!other.heard(peer(0), frame).differs);
    }
    assert_eq!(other.leaves(), 3_000);
    assert!(other.is_current(Time::ZERO + Duration::from_secs(9), &peer(0)));
}

#[test]
fn a_home_whose_sums_are_never_right_is_asked_less_and_less() {
    let mut log = Attachments::new(peer(0));
    let mut asked = 0;
    for second in 0..60 {
        let now = Time::ZERO + Duration::from_secs(second);
        let due = log.due_anew(now);
        assert!(due.is_empty() || due == [peer(1)]);
        asked += due.len();
        log.following(now, peer(1));
        // A hundred wrong answers a second.
        for _ in 0..100 {
            let heard = log.heard(peer(1), frame(true, &[(1, 1)], &[]));
            assert!(heard.differs && !log.is_current(now + limits::DIGEST_LAG * 2, &peer(1)));
            asked += usize::from(log.may_ask_anew(now, &peer(1)));
        }
        assert!(log.next_deadline().is_some_and(|at| at > now));
    }
    assert!((4..=9).contains(&asked), "three at once and then one in ten seconds: {asked}");
    assert!(!tell(&mut log, 1, &[(1, 1)]).differs);
    assert_eq!(log.next_deadline(), None);
}

#[test]
fn a_home_cannot_have_any_number_of_chunks() {
    let mut log = Attachments::new(peer(0));
    log.following(Time::ZERO, peer(1));
    let chunks = || List::new((0..limits::CHUNKS_PER_LEAF as u64).map(ChunkName));
    let change = |handle, list| AttachmentChange { handle, list };
    let claim = |handle| change(handle, Some(AttachedList { sequence: 1, place: 0, chunks: chunks() }));
    let fit = (limits::CHUNKS_OF_HOME / limits::CHUNKS_PER_LEAF) as u64;
    for handle in 0..2 * fit {
        log.heard(peer(1), Frame { reset: false, caught_up: None, changes: List::new([claim(handle)]) });
    }
    assert_eq!(log.leaves_of(&peer(1)) as u64, fit);
    // What left makes room.
    let changes = List::new([change(0, None), claim(2 * fit)]);
    log.heard(peer(1), Frame { reset: false, caught_up: None, changes });
    assert!(log.is_home(&peer(1), 2 * fit) && !log.is_home(&peer(1), 0));
}

#[derive(Clone, Debug)]
enum Step {
    Change(u64, Option<u64>),
    Follow(u8, u8),
    Flush,
    Unlink(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u64..12, proptest::option::of(0_u64..3)).prop_map(|(handle, sequence)| Step::Change(handle, sequence)),
        2 => (1_u8..4, 0_u8..3).prop_map(|(follower, length)| Step::Follow(follower, length)),
        3 => Just(Step::Flush),
        1 => (1_u8..4).prop_map(Step::Unlink),
    ]
}

proptest! {
    /// Whatever happens: once all is told, every follower has the leaves of its prefix, and knows it.
    #[test]
    fn followers_have_what_they_follow(steps in proptest::collection::vec(step(), 0..60)) {
        // Leaves are spread over the eight parts of the leaf space.
        let place = |handle: u64| (handle as u32) << 29;
        let mut log = Attachments::new(peer(0));
        let mut leaves: BTreeMap<u64, u64> = BTreeMap::new();
        let mut followers: BTreeMap<u8, (ShardPrefix, Attachments)> = BTreeMap::new();
        let deliver = |told: Vec<(PeerId, Frame)>, followers: &mut BTreeMap<u8, (ShardPrefix, Attachments)>| {
            for (to, frame) in told {
                let (_, copy) = followers.get_mut(&to.0[0]).expect("a follower");
                assert!(!copy.heard(peer(0), frame).differs);
            }
        };
        for step in steps.into_iter().chain([Step::Flush]) {
            match step {
                Step::Change(handle, sequence) => {
                    let list = |sequence| LeafList { place: (place(handle) >> 24) as u8, ..list(sequence) };
                    log.own_change(Time::ZERO, handle, sequence.map(|sequence| (place(handle), list(sequence))));
                    match sequence {
                        Some(sequence) => leaves.insert(handle, sequence),
                        None => leaves.remove(&handle),
                    };
                }
                Step::Follow(follower, length) => {
                    let prefix = ShardPrefix::of(u32::from(follower) << 30, length);
                    let mut copy = Attachments::new(peer(follower));
                    copy.following(Time::ZERO, peer(0));
                    followers.insert(follower, (prefix, copy));
                    let told = log.follow(Time::ZERO, peer(follower), prefix);
                    deliver(told, &mut followers);
                }
                Step::Flush => {
                    let told = log.flush(Time::ZERO);
                    deliver(told, &mut followers);
                    prop_assert_eq!(log.next_deadline(), None);
                }
                Step::Unlink(follower) => {
                    log.unlinked(Time::ZERO, &peer(follower));
                    followers.remove(&follower);
                }
            }
        }
        prop_assert_eq!(log.leaves(), leaves.len());
        for (prefix, copy) in followers.values() {
            let want: Vec<_> = leaves.iter().filter(|(handle, _)| prefix.covers(place(**handle))).collect();
            prop_assert_eq!((copy.leaves(), copy.leaves_under(*prefix)), (want.len(), want.len()));
            prop_assert_eq!(log.leaves_under(*prefix), want.len());
            prop_assert!(copy.is_current(Time::ZERO + Duration::from_secs(9), &peer(0)));
            for (handle, sequence) in want {
                let newest = copy.homes(*handle).iter().map(|(_, list)| list.sequence).max();
                prop_assert_eq!(newest, Some(*sequence));
            }
        }
    }
}
