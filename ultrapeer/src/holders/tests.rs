//! Many of these cores together against a plain model: who must know what is known there, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use overlay::{
    file::{FileEntry, Tags},
    wire::{
        bounded::List,
        mesh::{ChunkName, HoldingChange},
    },
};
use proptest::prelude::*;

use super::*;
use crate::index::{KeptSegment, Segment};

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

/// Two ultrapeers each are in one network.
fn network(peer: &PeerId) -> u64 {
    u64::from(peer.0[0] / 2)
}

fn content(number: u64) -> ContentId {
    ContentId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn key(number: u64) -> ContentKey {
    ContentKey::of(&content(number))
}

fn chunk(contents: &[u64]) -> (ChunkName, KeptSegment) {
    let file = |(place, number): (usize, &u64)| FileEntry {
        path: format!("share/{place:05}"),
        content: content(*number),
        size: 1,
        modified_s: 0,
        tags: Tags::default(),
    };
    let files: Vec<_> = contents.iter().enumerate().map(file).collect();
    let name = contents.iter().fold(0, |name: u64, number| name.wrapping_mul(1_000_003).wrapping_add(number + 1));
    (ChunkName(name), Segment::build(&files).expect("a good chunk").kept())
}

/// A list of these contents in chunks of neighbours. Every third content stands in one more chunk; with content 14 in
/// that one alone.
fn list(contents: &BTreeSet<u64>) -> Chunks {
    let mut groups: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for number in contents {
        let is_twice = number % 3 == 0;
        if !is_twice || !contents.contains(&14) {
            groups.entry(number / 4).or_default().push(*number);
        }
        if is_twice {
            groups.entry(u64::MAX).or_default().push(*number);
        }
    }
    let mut chunks: Vec<_> = groups.values().map(|group| chunk(group)).collect();
    chunks.sort_by_key(|(name, _)| *name);
    chunks
}

enum Message {
    Tell(Holdings),
    Ask,
}

#[derive(Default)]
struct World {
    now: Time,
    cores: BTreeMap<PeerId, Holders>,
    /// The list that each home is to tell of a leaf, and the contents in it.
    lists: BTreeMap<(PeerId, u64), (Chunks, BTreeSet<u64>)>,
    links: BTreeSet<(PeerId, PeerId)>,
    under_way: BTreeMap<(PeerId, PeerId), VecDeque<Message>>,
    /// Contents told, each time to each.
    told: usize,
}

impl World {
    fn new(members: u8) -> Self {
        let mut world = Self { now: Time(1), ..Self::default() };
        for number in 0..members {
            world.join(peer(number));
        }
        world.run(Duration::from_secs(10));
        world
    }

    fn act(&mut self, at: PeerId, act: impl FnOnce(&mut Holders, &mut Outbox<(PeerId, Holdings)>)) {
        let Some(core) = self.cores.get_mut(&at) else { return };
        let mut out = Outbox::new();
        act(core, &mut out);
        for (to, frame) in out.drain() {
            assert!(
                frame.changes.iter().map(|change| change.added.len() + change.removed.len()).sum::<usize>() <= 2_048
            );
            self.told += frame.changes.iter().map(|change| change.added.len() + change.removed.len()).sum::<usize>();
            self.send(at, to, Message::Tell(frame));
        }
    }

    fn send(&mut self, from: PeerId, to: PeerId, message: Message) {
        if self.links.contains(&(from, to)) {
            self.under_way.entry((from, to)).or_default().push_back(message);
        }
    }

    /// An ultrapeer that knows nothing comes.
    fn join(&mut self, peer: PeerId) {
        if self.cores.contains_key(&peer) {
            return;
        }
        let now = self.now;
        self.cores.insert(peer, Holders::new(peer, 64 << 20));
        let all: Vec<_> = self.cores.keys().copied().collect();
        for other in all {
            self.act(other, |core, _| core.set_member(now, peer, Some(network(&peer))));
            self.act(peer, |core, _| core.set_member(now, other, Some(network(&other))));
            self.link(peer, other);
        }
    }

    fn leave(&mut self, peer: PeerId) {
        self.cores.remove(&peer);
        self.lists.retain(|(home, _), _| *home != peer);
        let all: Vec<_> = self.cores.keys().copied().collect();
        let now = self.now;
        for other in all {
            self.cut(peer, other);
            self.act(other, |core, _| core.set_member(now, peer, None));
        }
    }

    fn link(&mut self, one: PeerId, other: PeerId) {
        if one == other || !self.cores.contains_key(&one) || !self.cores.contains_key(&other) {
            return;
        }
        let now = self.now;
        for (at, to) in [(one, other), (other, one)] {
            if self.links.insert((at, to)) {
                self.act(at, |core, out| core.set_linked(now, to, true, out));
            }
        }
    }

    /// What is under way is lost.
    fn cut(&mut self, one: PeerId, other: PeerId) {
        let now = self.now;
        for (at, to) in [(one, other), (other, one)] {
            self.under_way.remove(&(at, to));
            if self.links.remove(&(at, to)) {
                self.act(at, |core, out| core.set_linked(now, to, false, out));
            }
        }
    }

    /// From now on that home is to tell that list of a leaf, and no other home tells of it.
    fn share(&mut self, home: PeerId, handle: u64, contents: BTreeSet<u64>) {
        let now = self.now;
        let before: Vec<_> = self.lists.keys().filter(|(_, known)| *known == handle).map(|(home, _)| *home).collect();
        self.lists.retain(|(_, known), _| *known != handle);
        if self.cores.contains_key(&home) && !contents.is_empty() {
            self.lists.insert((home, handle), (list(&contents), contents));
        }
        for home in before.into_iter().chain([home]) {
            self.act(home, |core, _| core.mark(now, handle));
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to)) = self.under_way.keys().next().copied() {
            for message in self.under_way.remove(&(from, to)).into_iter().flatten() {
                let now = self.now;
                let Some(core) = self.cores.get_mut(&to) else { continue };
                match message {
                    Message::Tell(frame) => {
                        if core.heard(now, from, frame) {
                            self.send(to, from, Message::Ask);
                        }
                    }
                    Message::Ask => core.again(now, from),
                }
            }
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.deliver();
            let due = self.cores.iter().filter_map(|(peer, core)| Some((core.next_deadline()?, *peer))).min();
            let Some((at, peer)) = due.filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            self.step(peer);
        }
        self.now = end;
    }

    fn step(&mut self, peer: PeerId) {
        let (now, lists) = (self.now, std::mem::take(&mut self.lists));
        self.act(peer, |core, out| {
            core.on_deadline(now, |handle| lists.get(&(peer, handle)).map(|(chunks, _)| chunks.clone()), out);
            assert!(core.next_deadline().is_none_or(|at| at > now), "a busy loop");
        });
        self.lists = lists;
    }

    /// Which home told whom that a leaf has a content.
    fn known(&self) -> BTreeSet<(PeerId, PeerId, u64, ContentKey)> {
        let told_to = |(owner, core): (&PeerId, &Holders)| {
            let owner = *owner;
            core.store.told().map(move |(home, handle, key)| (home, owner, handle, key)).collect::<Vec<_>>()
        };
        self.cores.iter().flat_map(told_to).collect()
    }

    fn expected(&self) -> BTreeSet<(PeerId, PeerId, u64, ContentKey)> {
        if self.cores.len() < limits::HOLDERS_TOLD_FROM {
            return BTreeSet::new();
        }
        let ranking = Ranking::new(self.cores.keys().map(|peer| (*peer, network(peer))));
        let mut expected = BTreeSet::new();
        for ((home, handle), (_, contents)) in &self.lists {
            for number in contents {
                let owners = ranking.owners(key(*number)).into_iter().flatten().filter(|owner| owner != home);
                expected.extend(owners.map(|owner| (*home, owner, *handle, key(*number))));
            }
        }
        expected
    }
}

fn numbers(range: std::ops::Range<u64>) -> BTreeSet<u64> {
    range.collect()
}

#[test]
fn owners_are_told_soon_and_only_what_changed() {
    let mut world = World::new(9);
    world.share(peer(1), 7, numbers(0..100));
    world.run(Duration::from_secs(1));
    assert_eq!(world.known(), world.expected());
    let told = std::mem::take(&mut world.told);
    assert!((200..=300).contains(&told), "each to three, except to the home itself: {told}");

    // One content comes and one goes; chunks that hold it are new, and hold others too.
    world.share(peer(1), 7, numbers(1..101));
    world.run(Duration::from_secs(1));
    assert_eq!(world.known(), world.expected());
    assert!((4..=6).contains(&std::mem::take(&mut world.told)));

    // Another home tells of the leaf, and then it leaves.
    world.share(peer(2), 7, numbers(1..101));
    world.run(Duration::from_secs(1));
    assert_eq!(world.known(), world.expected());
    world.share(peer(2), 7, BTreeSet::new());
    world.run(Duration::from_secs(1));
    assert!(world.known().is_empty());
}

#[test]
fn only_what_moved_is_told_when_an_ultrapeer_comes_or_goes() {
    let mut world = World::new(12);
    world.share(peer(1), 7, numbers(0..1_000));
    world.run(Duration::from_secs(5));
    world.told = 0;
    world.join(peer(12));
    world.run(Duration::from_secs(5));
    assert_eq!(world.known(), world.expected());
    let told = std::mem::take(&mut world.told);
    // The seventh network takes over three sevenths of the contents: each is told to one and withdrawn from another.
    assert!((650..=1_000).contains(&told), "{told}");

    world.leave(peer(12));
    world.run(Duration::from_mins(2));
    assert_eq!(world.known(), world.expected());
    assert!((300..=500).contains(&world.told), "{}", world.told);
}

#[test]
fn what_a_home_that_is_gone_told_is_kept_for_a_while() {
    let mut world = World::new(9);
    world.share(peer(1), 7, numbers(0..10));
    world.run(Duration::from_secs(2));
    let before = world.known().len();
    world.leave(peer(1));
    world.run(Duration::from_secs(30));
    assert_eq!(world.known().len(), before, "another home has had no time to tell it");
    world.run(Duration::from_mins(2));
    assert!(world.known().is_empty());
}

#[test]
fn what_was_lost_with_a_link_is_told_again() {
    let mut world = World::new(9);
    world.share(peer(1), 7, numbers(0..100));
    world.run(Duration::from_secs(2));
    world.share(peer(1), 7, numbers(50..150));
    let due = world.now + limits::HOLDINGS_PAUSE;
    world.run(Duration::from_millis(499));
    world.now = due;
    world.step(peer(1));
    assert!(!world.under_way.is_empty() && world.known() != world.expected());
    world.cut(peer(1), peer(0));
    world.link(peer(1), peer(0));
    world.run(Duration::from_secs(5));
    assert_eq!(world.known(), world.expected());

    // One that restarted, so soon that nobody missed it.
    world.cores.remove(&peer(2));
    world.cut(peer(1), peer(2));
    let now = world.now;
    let mut core = Holders::new(peer(2), 64 << 20);
    (0..9).for_each(|number| core.set_member(now, peer(number), Some(network(&peer(number)))));
    world.cores.insert(peer(2), core);
    world.link(peer(1), peer(2));
    world.run(Duration::from_secs(5));
    assert_eq!(world.known(), world.expected());
}

#[test]
fn who_asks_again_and_again_is_told_once() {
    let mut world = World::new(9);
    world.share(peer(1), 7, numbers(0..100));
    world.run(Duration::from_secs(2));
    world.told = 0;
    for _ in 0..30 {
        let now = world.now;
        world.act(peer(1), |core, _| core.again(now, peer(0)));
        world.run(Duration::from_secs(5));
    }
    assert!((20..=60).contains(&world.told), "a third of a hundred: {}", world.told);
}

#[test]
fn long_lists_are_told_bit_by_bit() {
    let mut world = World::new(6);
    world.share(peer(1), 7, numbers(0..4_000));
    world.share(peer(1), 8, numbers(4_000..5_000));
    world.run(limits::HOLDINGS_PAUSE);
    let mut steps = Vec::new();
    for _ in 0..4 {
        steps.push(std::mem::take(&mut world.told));
        world.run(limits::HOLDINGS_STEP);
    }
    assert!(steps[..2].iter().all(|told| (2_048..=3 * 2_048).contains(told)) && steps[3] == 0, "{steps:?}");
    assert_eq!(world.known(), world.expected());
}

#[test]
fn small_networks_tell_nothing_and_forget_it_when_they_become_small() {
    let mut world = World::new(5);
    world.share(peer(1), 7, numbers(0..50));
    world.run(Duration::from_secs(5));
    assert_eq!((world.told, world.cores[&peer(0)].owners(&content(1))), (0, None));
    world.join(peer(5));
    world.run(Duration::from_secs(5));
    assert!(!world.known().is_empty());
    assert_eq!(world.known(), world.expected());
    world.leave(peer(5));
    world.told = 0;
    world.run(Duration::from_secs(5));
    assert!(world.known().is_empty());
    assert_eq!(world.told, 0, "they are told so in one word");
}

#[test]
fn a_newcomer_does_not_say_that_it_knows_all() {
    let mut world = World::new(9);
    assert!(world.cores.values().all(|core| core.is_settled(world.now)));
    world.join(peer(9));
    assert!(!world.cores[&peer(9)].is_settled(world.now) && world.cores[&peer(0)].is_settled(world.now));
    world.run(Duration::from_secs(8));
    assert!(world.cores[&peer(9)].is_settled(world.now));
}

fn frame(handle: u64, keys: std::ops::Range<u64>) -> Holdings {
    let added = List::new(keys.map(key));
    let sum = added.iter().fold(0_u64, |sum, key| sum.wrapping_add(Holdings::part(handle, *key)));
    let change = HoldingChange { handle, added, removed: List::default() };
    Holdings { reset: true, sum, changes: List::new([change]) }
}

#[test]
fn a_home_that_tells_more_than_its_share_is_cut_and_counted() {
    let memory = 2_000 * limits::HOLDING_BYTES * limits::HOLDINGS_MEMORY_SHARE;
    let mut core = Holders::new(peer(0), memory);
    for home in 1..=3 {
        assert!(!core.heard(Time(1), peer(home), frame(u64::from(home), 0..50)), "it adds up");
    }
    // A twentieth of the room is 100, four times what the others told 200.
    assert!(!core.heard(Time(1), peer(4), frame(4, 0..1_000)), "what was not kept adds up too");
    assert_eq!(core.stats(), Stats { holdings: 350, refused: 800 });
    let holders = |core: &Holders, number| core.holders(&content(number), 5).len();
    assert_eq!((holders(&core, 10), holders(&core, 199), holders(&core, 200)), (4, 1, 0));

    // With less told it fits, and the home is asked for the rest once it is known that there is room, but not for a place
    // or two.
    let withdrawal = |gone: std::ops::Range<u64>| {
        let end = gone.end;
        let gone = HoldingChange { handle: 4, added: List::default(), removed: List::new(gone.map(key)) };
        let sum = (end..1_000).fold(0_u64, |sum, number| sum.wrapping_add(Holdings::part(4, key(number))));
        Holdings { reset: false, sum, changes: List::new([gone]) }
    };
    assert!(!core.heard(Time(2), peer(4), withdrawal(0..2)));
    let withdrawal = withdrawal(2..500);
    assert!(core.heard(Time(2), peer(4), withdrawal.clone()));
    assert!(!core.heard(Time(3), peer(4), Holdings { changes: List::default(), ..withdrawal }), "not all the time");
}

#[test]
fn some_holders_of_a_popular_content_are_named_at_random() {
    let mut core = Holders::new(peer(0), 64 << 20);
    let changes =
        (0..1_000).map(|handle| HoldingChange { handle, added: List::new([key(1)]), removed: List::default() });
    core.heard(Time(1), peer(1), Holdings { reset: true, sum: 0, changes: List::new(changes) });
    let named = |seed| core.holders(&content(1), seed).iter().map(|holder| holder.handle).collect::<BTreeSet<_>>();
    assert_eq!((named(1).len(), named(1) == named(1)), (limits::HOLDERS_TOLD, true));
    assert_ne!(named(1), named(2));
}

#[test]
fn what_is_not_confirmed_is_forgotten() {
    let mut core = Holders::new(peer(0), 64 << 20);
    core.set_member(Time(1), peer(1), Some(1));
    core.heard(Time(1), peer(1), frame(7, 0..5));
    let mut now = Time(1);
    let mut look = |core: &mut Holders, span| {
        now += span;
        core.on_deadline(now, |_| None, &mut Outbox::new());
        core.stats().holdings
    };
    assert_eq!(look(&mut core, Duration::from_mins(149)), 5);
    assert_eq!(look(&mut core, Duration::from_mins(2)), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Share(u8, u64, u16),
    Join(u8),
    Leave(u8),
    Cut(u8, u8),
    Link(u8, u8),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let member = || 0_u8..10;
    let step = prop_oneof![
        6 => (member(), 0_u64..6, any::<u16>()).prop_map(|(home, leaf, bits)| Step::Share(home, leaf, bits)),
        1 => member().prop_map(Step::Join),
        1 => member().prop_map(Step::Leave),
        2 => (member(), member()).prop_map(|(one, other)| Step::Cut(one, other)),
        2 => (member(), member()).prop_map(|(one, other)| Step::Link(one, other)),
        4 => (0_u64..3_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever happens, once it is quiet and all are linked, owners know all and nobody else knows anything.
    #[test]
    fn nothing_is_lost_once_settled(steps in steps()) {
        let mut world = World::new(8);
        for step in steps {
            match step {
                Step::Share(home, leaf, bits) => {
                    world.share(peer(home), leaf, (0..16).filter(|bit| bits >> bit & 1 == 1).collect());
                }
                Step::Join(number) => world.join(peer(number)),
                Step::Leave(number) => world.leave(peer(number)),
                Step::Cut(one, other) => world.cut(peer(one), peer(other)),
                Step::Link(one, other) => world.link(peer(one), peer(other)),
                // What is under way stays so: it is lost if the link is cut before the next wait.
                Step::Wait(span) => {
                    world.run(Duration::from_millis(span));
                    let due: Vec<_> = world.cores.keys().copied().collect();
                    for peer in due {
                        world.step(peer);
                    }
                }
            }
        }
        let all: Vec<_> = world.cores.keys().copied().collect();
        for one in &all {
            for other in &all {
                world.link(*one, *other);
            }
        }
        // An hour until what was lost at last is noticed, and some minutes until it was told again.
        world.run(Duration::from_mins(80));
        prop_assert_eq!(world.known(), world.expected());
    }
}
