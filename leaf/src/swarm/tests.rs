//! The swarm against simulated sources that are slow, partial, silent, dying or lying.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg32;

use super::*;

const SIZE: u64 = 20 * 256 * 1024 + 77;

/// How a simulated source behaves.
#[derive(Clone, Debug)]
enum Kind {
    Honest,
    /// Holds every second piece.
    Partial,
    /// Sends wrong pieces.
    Corrupt,
    /// Claims another size, and has nothing that fits it.
    WrongSize(u64),
    /// Grants, and never sends anything.
    Silent,
    /// Breaks down after that many pieces, for ever.
    Dies(u32),
    /// Breaks down after that many pieces, and comes back.
    Flaky(u32),
    NotHeld,
    /// Takes the slot back after each piece and grants it again later.
    Revokes,
}

#[derive(Debug)]
struct Peer {
    kind: Kind,
    /// Bytes a second.
    rate: u64,
    open: bool,
    sent: u32,
    dead: bool,
    queue: VecDeque<(RequestId, Work)>,
    busy: bool,
}

#[derive(Debug)]
enum Event {
    Input(Input),
    Step(PeerId),
}

struct World {
    swarm: Swarm,
    rng: Pcg32,
    now: Time,
    sequence: u64,
    events: BTreeMap<(Time, u64), Event>,
    peers: BTreeMap<PeerId, Peer>,
    /// Pieces that live requests have not brought.
    live: BTreeMap<RequestId, (PeerId, BTreeSet<u64>)>,
    have: BTreeSet<u64>,
    size: Option<u64>,
    searches: u32,
    /// What each source was told last of what is wanted of it.
    appetites: BTreeMap<PeerId, bool>,
    /// Pieces of which something wrong came.
    spoiled: BTreeSet<u64>,
    /// Pieces in the order in which they were asked for.
    asked: Vec<u64>,
    /// The piece that somebody reads at.
    reading: Option<u64>,
    finished: bool,
}

fn peer(number: usize) -> PeerId {
    let [high, low] = (number as u16 + 1).to_be_bytes();
    let mut id = [low; 32];
    id[0] = high;
    PeerId(id)
}

impl World {
    fn new(kinds: Vec<(Kind, u64)>, seed: u64) -> Self {
        let peers = kinds.into_iter().enumerate().map(|(at, (kind, rate))| {
            let queue = VecDeque::new();
            (peer(at), Peer { kind, rate, open: false, sent: 0, dead: false, queue, busy: false })
        });
        Self {
            swarm: Swarm::new(),
            rng: Pcg32::seed_from_u64(seed),
            now: Time::ZERO,
            sequence: 0,
            events: BTreeMap::new(),
            peers: peers.collect(),
            live: BTreeMap::new(),
            have: BTreeSet::new(),
            size: None,
            searches: 0,
            appetites: BTreeMap::new(),
            spoiled: BTreeSet::new(),
            asked: Vec::new(),
            reading: None,
            finished: false,
        }
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    /// Runs until the download is complete, or `span` has passed. Returns whether it is complete.
    fn run(&mut self, span: Duration) -> bool {
        self.run_until(span, |_| false);
        self.finished
    }

    /// The same, but also until `enough`.
    fn run_until(&mut self, span: Duration, enough: impl Fn(&Self) -> bool) {
        let end = self.now + span;
        let mut out = Outbox::new();
        self.call(None, &mut out);
        while !self.finished && !enough(self) {
            let event = self.events.keys().next().copied();
            let deadline = self.swarm.next_deadline();
            let next = event.map(|(at, _)| at).into_iter().chain(deadline).min().expect("a search is always due");
            if next > end {
                return;
            }
            assert!(next >= self.now);
            self.now = next;
            match event.filter(|(at, _)| *at == next).and_then(|key| self.events.remove(&key)) {
                Some(Event::Input(input)) => self.input(input, &mut out),
                Some(Event::Step(peer)) => self.step(peer),
                None => {
                    self.call(None, &mut out);
                    assert!(self.swarm.next_deadline().is_none_or(|at| at > self.now), "busy loop");
                }
            }
        }
    }

    fn input(&mut self, input: Input, out: &mut Outbox<Output>) {
        if let Input::PieceArrived { request, piece } = input {
            // As the driver does: only what a live request brings counts.
            let Some((_, pending)) = self.live.get_mut(&request) else { return };
            assert!(pending.remove(&piece));
            assert!(self.have.insert(piece), "a piece counts once");
            for (_, pending) in self.live.values_mut() {
                pending.remove(&piece);
            }
        }
        if let Input::RequestFailed(id) | Input::SegmentArrived(id) | Input::Corrupt { request: id, .. } = input
            && !self.live.contains_key(&id)
        {
            return;
        }
        self.call(Some(input), out);
    }

    fn call(&mut self, input: Option<Input>, out: &mut Outbox<Output>) {
        let cx = &mut Context::new(self.now, &mut self.rng);
        match input {
            Some(input) => self.swarm.handle(cx, input, out),
            None => self.swarm.on_deadline(cx, out),
        }
        for output in out.drain().collect::<Vec<_>>() {
            self.carry_out(output);
        }
        self.check();
    }

    /// What must hold at all times, seen from outside.
    fn check(&mut self) {
        assert!(self.swarm.outstanding() <= limits::JOB_IN_FLIGHT_BYTES);
        if let Some(have) = self.swarm.have() {
            assert_eq!(have.iter().collect::<BTreeSet<_>>(), self.have);
        }
    }

    /// How many requests carry each piece.
    fn carried(&self) -> BTreeMap<u64, u32> {
        let mut carried = BTreeMap::new();
        for piece in self.live.values().flat_map(|(_, pending)| pending) {
            *carried.entry(*piece).or_default() += 1;
        }
        carried
    }

    /// A piece is asked for once, or twice if everything else is here or on its way.
    fn check_request(&self, pieces: &BTreeSet<u64>) {
        let carried = self.carried();
        let total = Layout::new(self.size.unwrap()).unwrap().pieces();
        let end_game = (self.have.len() + carried.len()) as u64 == total;
        let is_urgent = |piece: &u64| self.reading.is_some_and(|at| (at..at + plan::URGENT_PIECES).contains(piece));
        for piece in pieces {
            assert!(!self.have.contains(piece), "piece {piece} is here");
            let requests = carried.get(piece).copied().unwrap_or(0);
            assert!(
                requests == 0 || (requests == 1 && (end_game || *piece == total - 1 || is_urgent(piece))),
                "piece {piece} was carried {requests} times"
            );
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Open(peer) => self.open(peer),
            Output::Close(peer) => {
                let state = self.peers.get_mut(&peer).unwrap();
                state.open = false;
                state.queue.clear();
            }
            Output::Sized(size) => {
                self.size = Some(size);
                self.have.clear();
            }
            Output::Request { id, peer, work } => {
                let pending = match work {
                    Work::Segment(_) => BTreeSet::new(),
                    Work::Repair(piece) => {
                        assert!(self.spoiled.contains(&piece), "nothing of it came");
                        BTreeSet::from([piece])
                    }
                    Work::Pieces(run) => (run.first..run.first + u64::from(run.count)).collect(),
                };
                self.check_request(&pending);
                self.asked.extend(&pending);
                assert!(self.live.insert(id, (peer, pending)).is_none());
                let state = self.peers.get_mut(&peer).unwrap();
                assert!(state.open, "requests need a session");
                state.queue.push_back((id, work));
                self.wake(peer);
            }
            Output::Appetite { peer, wants } => drop(self.appetites.insert(peer, wants)),
            Output::Cancel(id) => {
                self.live.remove(&id).expect("only live requests are cancelled");
            }
            Output::FindSources => {
                self.searches += 1;
                let found = self.peers.keys().copied().collect();
                self.at(Duration::from_millis(20), Event::Input(Input::SourcesFound(found)));
            }
            Output::Finished => self.finished = true,
        }
    }

    fn open(&mut self, peer: PeerId) {
        let latency = Duration::from_millis(30);
        let state = self.peers.get_mut(&peer).unwrap();
        let closed = |reason| Event::Input(Input::Closed { peer, reason });
        if state.dead {
            return self.at(latency, closed(CloseReason::Lost));
        }
        let (mut size, mut complete) = (SIZE, true);
        match state.kind {
            Kind::NotHeld => return self.at(latency, closed(CloseReason::NotHeld)),
            Kind::WrongSize(claim) => size = claim,
            Kind::Partial => complete = false,
            _ => {}
        }
        state.open = true;
        self.at(latency, Event::Input(Input::Opened { peer, size, complete }));
        if !complete {
            self.at(latency, Event::Input(Input::Have { peer, first: 0, bits: vec![0xaa; 3] }));
        }
        self.at(latency, Event::Input(Input::Queued { peer, position: 1 }));
        self.at(2 * latency, Event::Input(Input::Granted(peer)));
    }

    fn wake(&mut self, peer: PeerId) {
        let state = self.peers.get_mut(&peer).unwrap();
        if !state.busy && !state.queue.is_empty() {
            state.busy = true;
            let after = Duration::from_micros(1_000 + 256 * 1024 * 1_000_000 / state.rate);
            self.at(after, Event::Step(peer));
        }
    }

    /// The source serves one unit of its first request.
    fn step(&mut self, peer: PeerId) {
        let state = self.peers.get_mut(&peer).unwrap();
        state.busy = false;
        let Some((id, work)) = state.queue.front().copied() else { return };
        let broken = match state.kind {
            Kind::Silent => return,
            Kind::Dies(after) => state.sent >= after,
            Kind::Flaky(after) => state.sent % (after + 1) == after,
            _ => false,
        };
        state.sent += 1;
        if broken {
            state.dead = matches!(state.kind, Kind::Dies(_));
            state.open = false;
            state.queue.clear();
            return self.at(Duration::ZERO, Event::Input(Input::Closed { peer, reason: CloseReason::Lost }));
        }
        let lies = matches!(state.kind, Kind::Corrupt | Kind::WrongSize(_));
        let kind = state.kind.clone();
        self.at(Duration::ZERO, Event::Input(Input::Progress { peer, bytes: 256 * 1024 }));
        let next = self.live.get(&id).and_then(|(_, pending)| pending.first().copied());
        match (work, next) {
            (Work::Segment(_), _) => {
                // A liar about the size has values that fit the content id, made of inner nodes.
                self.at(Duration::ZERO, Event::Input(Input::SegmentArrived(id)));
                self.done(peer);
            }
            (Work::Pieces(_) | Work::Repair(_), None) => self.done(peer),
            (Work::Pieces(_) | Work::Repair(_), Some(piece)) if lies => {
                self.spoiled.insert(piece);
                self.at(Duration::ZERO, Event::Input(Input::Corrupt { request: id, piece: Some(piece) }));
                self.done(peer);
            }
            (Work::Pieces(_) | Work::Repair(_), Some(piece)) => {
                self.at(Duration::ZERO, Event::Input(Input::PieceArrived { request: id, piece }));
                if matches!(kind, Kind::Revokes) {
                    self.at(Duration::ZERO, Event::Input(Input::Revoked(peer)));
                    self.at(Duration::from_secs(3), Event::Input(Input::Granted(peer)));
                }
            }
        }
        self.wake(peer);
    }

    fn done(&mut self, peer: PeerId) {
        self.peers.get_mut(&peer).unwrap().queue.pop_front();
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Honest),
        Just(Kind::Partial),
        Just(Kind::Corrupt),
        (1u64..40 * 256 * 1024).prop_map(Kind::WrongSize),
        Just(Kind::Silent),
        (0u32..8).prop_map(Kind::Dies),
        (1u32..8).prop_map(Kind::Flaky),
        Just(Kind::NotHeld),
        Just(Kind::Revokes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn one_honest_source_is_enough(
        others in prop::collection::vec((kinds(), 20_000u64..20_000_000), 0..7), rate in 50_000u64..5_000_000, at: usize, seed: u64,
    ) {
        let mut sources = others;
        sources.insert(at % (sources.len() + 1), (Kind::Honest, rate));
        let mut world = World::new(sources, seed);
        prop_assert!(world.run(Duration::from_hours(1)), "not complete: {:?}", world.swarm);
        prop_assert_eq!(world.have.len() as u64, Layout::new(SIZE).unwrap().pieces());
        prop_assert_eq!(world.size, Some(SIZE));
        prop_assert_eq!(world.swarm.outstanding(), 0);
    }

    #[test]
    fn a_resumed_download_asks_only_for_what_is_missing(mask: u32, seed: u64) {
        let pieces = Layout::new(SIZE).unwrap().pieces();
        let mut have = Bitmap::new(pieces);
        have.insert(pieces - 1);
        (0..pieces).filter(|piece| mask >> piece & 1 == 1).for_each(|piece| { have.insert(piece); });
        let mut world = World::new(vec![(Kind::Honest, 1_000_000), (Kind::Partial, 1_000_000)], seed);
        world.swarm = Swarm::resume(SIZE, have.clone(), []);
        world.have = have.iter().collect();
        world.size = Some(SIZE);
        prop_assert!(world.run(Duration::from_mins(10)));
    }

    #[test]
    fn any_input_is_survived(seed: u64, steps in 1usize..300) {
        let mut rng = Pcg32::seed_from_u64(seed);
        let mut swarm = Swarm::new();
        let mut out = Outbox::new();
        let mut now = Time::ZERO;
        for _ in 0..steps {
            let random = rng.next_u64();
            let peer = peer((random % 5) as usize);
            let id = RequestId(random >> 8 & 31);
            let input = match random >> 32 & 15 {
                0 | 1 => Input::SourcesFound(vec![peer]),
                2 => Input::SourceLost(peer),
                3 | 4 => Input::Opened { peer, size: SIZE + (random >> 48 & 1) * SIZE, complete: random >> 40 & 1 == 0 },
                5 if random >> 44 & 3 == 2 => Input::Read(random >> 30),
                5 if random >> 44 & 3 == 1 => Input::Suggested { peer, run: Run { first: random >> 50, count: random as u32 } },
                5 => Input::Have { peer, first: random >> 20, bits: vec![random as u8; (random % 9) as usize] },
                6 => Input::Queued { peer, position: random as u32 },
                7 | 8 => Input::Granted(peer),
                9 => Input::Revoked(peer),
                10 => Input::Closed { peer, reason: CloseReason::Busy },
                11 => Input::Progress { peer, bytes: random },
                12 => Input::SegmentArrived(id),
                13 => Input::PieceArrived { request: id, piece: random % 50 },
                14 => Input::RequestFailed(id),
                _ => Input::Corrupt { request: id, piece: (random >> 50 & 1 == 0).then_some(random % 50) },
            };
            now += Duration::from_millis(random % 3000);
            let cx = &mut Context::new(now, &mut rng);
            swarm.handle(cx, input, &mut out);
            if swarm.next_deadline().is_some_and(|at| at <= now) {
                swarm.on_deadline(cx, &mut out);
                prop_assert!(swarm.next_deadline().is_none_or(|at| at > now));
            }
            prop_assert!(swarm.outstanding() <= limits::JOB_IN_FLIGHT_BYTES);
            out.drain().for_each(drop);
        }
    }
}

#[test]
fn four_sources_share_the_work() {
    let mut world = World::new(vec![(Kind::Honest, 1_000_000); 4], 1);
    assert!(world.run(Duration::from_mins(1)));
    for state in world.peers.values() {
        assert!(state.sent >= 3, "{state:?}");
    }
    assert!(world.now < Time(3_000_000), "{}", world.now);
}

#[test]
fn a_slow_source_does_not_hold_up_the_end() {
    let mut world = World::new(vec![(Kind::Honest, 20_000), (Kind::Honest, 5_000_000)], 1);
    assert!(world.run(Duration::from_mins(1)));
    // The slow one alone would take 13 s for a single piece.
    assert!(world.now < Time(8_000_000), "{}", world.now);
}

#[test]
fn sources_are_looked_for_until_there_are_some() {
    let mut world = World::new(vec![], 1);
    assert!(!world.run(Duration::from_secs(301)));
    assert_eq!(world.searches, 11);
}

#[test]
fn while_somebody_reads_pieces_come_in_order_from_there_on() {
    let piece_bytes = u64::from(Layout::new(SIZE).unwrap().piece_bytes());
    let mut world = World::new(vec![(Kind::Honest, 5_000_000), (Kind::Honest, 3_000_000)], 1);
    world.reading = Some(9);
    world.call(Some(Input::Read(9 * piece_bytes + 5)), &mut Outbox::new());
    assert!(world.run(Duration::from_mins(1)));
    // First what proves the size, then what is read and behind it, then the rest; a source that is slower than the other
    // may have been asked twice for the first ones.
    let mut order = world.asked.clone();
    order.retain({
        let mut seen = BTreeSet::new();
        move |piece| seen.insert(*piece)
    });
    assert_eq!(order[..12], [20, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19], "{order:?}");
}

#[test]
fn a_slow_source_does_not_hold_up_a_reader() {
    let mut world = World::new(vec![(Kind::Honest, 20_000), (Kind::Honest, 2_000_000)], 3);
    world.reading = Some(0);
    world.call(Some(Input::Read(0)), &mut Outbox::new());
    world.run_until(Duration::from_mins(1), |world| world.have.contains(&0));
    assert!(world.have.contains(&0));
    // The slow one alone takes 13 s for one piece.
    assert!(world.now < Time(5_000_000), "{}", world.now);
}

#[test]
fn what_a_source_suggests_is_asked_of_it_first() {
    let mut world = World::new(vec![(Kind::Honest, 1_000_000)], 1);
    world.run_until(Duration::from_mins(1), |world| world.peers.values().any(|source| source.open));
    for first in [7, 1_000_000, u64::MAX] {
        let suggested = Input::Suggested { peer: peer(0), run: Run { first, count: u32::MAX } };
        world.at(Duration::from_millis(50), Event::Input(suggested));
    }
    assert!(world.run(Duration::from_mins(1)));
    assert_eq!(world.asked[..3], [20, 7, 8]);
}

#[test]
fn a_source_without_anything_that_is_missing_is_told_so_and_told_again_when_it_has() {
    let mut world = World::new(vec![(Kind::Partial, 1_000_000)], 1);
    assert!(!world.run(Duration::from_mins(1)));
    assert_eq!(world.have.len(), 11, "every second piece");
    assert_eq!(world.appetites, BTreeMap::from([(peer(0), false)]));
    world.call(Some(Input::Have { peer: peer(0), first: 0, bits: vec![0xab, 0xaa, 0xaa] }), &mut Outbox::new());
    assert_eq!(world.appetites, BTreeMap::from([(peer(0), true)]));
    assert!(!world.run(Duration::from_mins(1)));
    assert!(world.have.contains(&7));
    assert_eq!(world.appetites, BTreeMap::from([(peer(0), false)]));
}

#[test]
fn sessions_are_opened_with_any_of_many_sources() {
    let open = |seed| {
        let mut world = World::new((0..100).map(|_| (Kind::Silent, 1)).collect(), seed);
        world.run(Duration::from_secs(1));
        world.peers.iter().filter(|(_, peer)| peer.open).map(|(id, _)| *id).collect::<BTreeSet<_>>()
    };
    let (one, other) = (open(1), open(2));
    assert_eq!((one.len(), other.len()), (limits::SESSIONS_PER_JOB, limits::SESSIONS_PER_JOB));
    assert_ne!(one, other);
}

#[test]
fn of_more_sources_than_are_remembered_any_may_be_opened() {
    let many = 4 * limits::SOURCES_PER_JOB;
    let mut opened = Vec::new();
    for seed in 0..8 {
        let mut world = World::new((0..many).map(|_| (Kind::Silent, 1)).collect(), seed);
        world.run(Duration::from_secs(1));
        opened.extend((0..many).filter(|number| world.peers[&peer(*number)].open));
    }
    let late = opened.iter().filter(|number| **number >= limits::SOURCES_PER_JOB).count();
    assert_eq!(opened.len(), 8 * limits::SESSIONS_PER_JOB);
    // Three of four came when there were as many as are remembered.
    assert!((opened.len() * 3 / 5..opened.len() * 9 / 10).contains(&late), "{late} of {}", opened.len());
}

#[test]
fn what_came_wrong_is_repaired_by_another_source_and_only_if_it_still_is_missing() {
    let size = 200 << 20;
    let layout = Layout::new(size).unwrap();
    let mut have = Bitmap::new(layout.pieces());
    have.insert(layout.pieces() - 1);
    let mut swarm = Swarm::resume(size, have, [0]);
    let (mut rng, mut out) = (Pcg32::seed_from_u64(1), Outbox::new());
    let mut tell = |swarm: &mut Swarm, input| {
        swarm.handle(&mut Context::new(Time(1), &mut rng), input, &mut out);
        out.drain().collect::<Vec<_>>()
    };
    let (liar, honest) = (peer(0), peer(1));
    tell(&mut swarm, Input::SourcesFound(vec![liar, honest]));
    let mut asked = BTreeMap::new();
    for peer in [liar, honest] {
        tell(&mut swarm, Input::Opened { peer, size, complete: true });
        for output in tell(&mut swarm, Input::Granted(peer)) {
            if let Output::Request { id, peer, work: Work::Pieces(run) } = output {
                asked.entry(peer).or_insert((id, run));
            }
        }
    }
    let (request, Run { first: piece, .. }) = asked[&liar];
    let outputs = tell(&mut swarm, Input::Corrupt { request, piece: Some(piece) });
    assert!(outputs.contains(&Output::Close(liar)));
    let repair = outputs.iter().find_map(|output| match output {
        Output::Request { id, peer, work: Work::Repair(repaired) } if (*peer, *repaired) == (honest, piece) => {
            Some(*id)
        }
        _ => None,
    });
    // Nobody else is asked for it meanwhile, and if that fails it is missing as before.
    let is_asked = |outputs: &[Output]| {
        outputs.iter().any(|output| match output {
            Output::Request { work: Work::Pieces(run), .. } => {
                (run.first..run.first + u64::from(run.count)).contains(&piece)
            }
            _ => false,
        })
    };
    assert!(!is_asked(&outputs));
    let outputs = tell(&mut swarm, Input::PieceArrived { request: repair.unwrap(), piece });
    assert!(swarm.have().unwrap().contains(piece) && !is_asked(&outputs));
    // What is here needs no repair.
    let (request, _) = asked[&honest];
    let outputs = tell(&mut swarm, Input::Corrupt { request, piece: Some(piece) });
    assert!(!outputs.iter().any(|output| matches!(output, Output::Request { work: Work::Repair(_), .. })));
}

#[test]
fn a_swarm_of_liars_does_not_keep_the_honest_one_from_being_found() {
    for seed in 0..20 {
        let mut sources: Vec<_> = (0..60).map(|_| (Kind::Corrupt, 5_000_000)).collect();
        sources.insert(seed as usize * 3, (Kind::Honest, 500_000));
        let mut world = World::new(sources, seed);
        assert!(world.run(Duration::from_mins(5)), "{seed}");
        assert_eq!(world.size, Some(SIZE));
    }
}

#[test]
fn as_many_liars_as_are_remembered_leave_room_for_an_honest_one() {
    let mut swarm = Swarm::new();
    let (mut rng, mut out) = (Pcg32::seed_from_u64(1), Outbox::new());
    let cx = &mut Context::new(Time(1), &mut rng);
    swarm.handle(cx, Input::SourcesFound((0..limits::SOURCES_PER_JOB).map(peer).collect()), &mut out);
    let mut dropped = 0;
    let mut outputs: VecDeque<_> = out.drain().collect();
    while let Some(output) = outputs.pop_front() {
        match output {
            Output::Open(peer) => {
                swarm.handle(cx, Input::Opened { peer, size: SIZE, complete: true }, &mut out);
                swarm.handle(cx, Input::Granted(peer), &mut out);
            }
            Output::Request { id, .. } => swarm.handle(cx, Input::Corrupt { request: id, piece: None }, &mut out),
            Output::Close(_) => dropped += 1,
            _ => {}
        }
        outputs.extend(out.drain());
    }
    assert_eq!(dropped, limits::SOURCES_PER_JOB);
    let honest = peer(limits::SOURCES_PER_JOB);
    swarm.handle(cx, Input::SourcesFound(vec![honest]), &mut out);
    assert!(out.drain().any(|output| output == Output::Open(honest)));
}

#[test]
fn sessions_that_wait_make_room_for_sources_that_were_never_tried() {
    let mut swarm = Swarm::new();
    let (mut rng, mut out) = (Pcg32::seed_from_u64(1), Outbox::new());
    let all: Vec<PeerId> = (0..2 * limits::SESSIONS_PER_JOB).map(peer).collect();
    let mut now = Time(1);
    swarm.handle(&mut Context::new(now, &mut rng), Input::SourcesFound(all.clone()), &mut out);
    let (mut tried, mut open) = (BTreeSet::new(), BTreeSet::new());
    let mut granted = None;
    for _ in 0..200 {
        for output in out.drain().collect::<Vec<_>>() {
            match output {
                Output::Open(peer) => {
                    assert!(tried.insert(peer), "none is tried twice while others were not");
                    open.insert(peer);
                    let cx = &mut Context::new(now, &mut rng);
                    swarm.handle(cx, Input::Opened { peer, size: SIZE, complete: true }, &mut out);
                    if *granted.get_or_insert(peer) == peer {
                        swarm.handle(cx, Input::Granted(peer), &mut out);
                    } else {
                        swarm.handle(cx, Input::Queued { peer, position: 9 }, &mut out);
                    }
                }
                Output::Close(peer) => assert!(open.remove(&peer)),
                _ => {}
            }
        }
        assert!(open.len() <= limits::SESSIONS_PER_JOB);
        now += Duration::from_millis(500);
        // The one with a slot keeps sending.
        let progress = Input::Progress { peer: granted.unwrap(), bytes: 1 };
        let cx = &mut Context::new(now, &mut rng);
        swarm.handle(cx, progress, &mut out);
        if swarm.next_deadline().is_some_and(|at| at <= now) {
            swarm.on_deadline(cx, &mut out);
        }
    }
    assert_eq!(tried.len(), all.len());
    assert!(open.contains(&granted.unwrap()), "who sends stays");
}
