//! Members in a network of simulated links: messages take time, dials take longer, ways can be cut in one direction,
//! and who is killed says nothing. The same seed gives the same run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use rand_pcg::Pcg32;

use super::super::{Input, Membership, Output, State};
use crate::{
    election::Regime,
    id::PeerId,
    identity::Identity,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
    wire::{frame, mesh::MeshMessage},
};

/// Microseconds that a packet travels.
const DELAY: std::ops::Range<u64> = 5_000..60_000;

pub(super) struct Net {
    pub(super) now: Time,
    pub(super) nodes: BTreeMap<PeerId, Node>,
    rng: Pcg32,
    links: BTreeMap<(PeerId, PeerId), Link>,
    /// Ways on which nothing passes.
    blocked: BTreeSet<(PeerId, PeerId)>,
    events: BTreeMap<(Time, u64), Event>,
    /// The last arrival on each way: streams are in order.
    arrivals: BTreeMap<(PeerId, PeerId), Time>,
    numbers: u64,
    /// When, who, what: joined and left, suspected and trusted.
    pub(super) log: Vec<(Time, PeerId, Output)>,
    /// Where somebody was dialled because a machine asked for it.
    pub(super) dials: Vec<(Time, SocketAddr)>,
    /// Frames by name, and all their bytes.
    pub(super) sent: BTreeMap<&'static str, (u64, u64)>,
}

pub(super) struct Node {
    pub(super) machine: Membership,
    pub(super) alive: bool,
    /// Counts its lives.
    life: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Link {
    number: u64,
    /// The lives that it connects, of the lower key and of the higher.
    lives: (u64, u64),
}

enum Event {
    /// A dial arrives, or its time is over.
    Dialled {
        from: PeerId,
        life: u64,
        to: PeerId,
    },
    DialFailed {
        from: PeerId,
        life: u64,
        to: PeerId,
    },
    Up {
        at: PeerId,
        life: u64,
        peer: PeerId,
    },
    Message {
        from: PeerId,
        to: PeerId,
        link: u64,
        message: Box<MeshMessage>,
    },
    /// The other end closed, or did not know the link.
    Down {
        at: PeerId,
        life: u64,
        peer: PeerId,
    },
    /// Silence may have lasted long enough.
    Idle {
        one: PeerId,
        other: PeerId,
        link: u64,
    },
}

impl Net {
    /// `count` nodes that serve and know nobody.
    pub(super) fn new(seed: u64, count: u8) -> Self {
        let mut net = Self {
            now: Time::ZERO,
            nodes: BTreeMap::new(),
            rng: Pcg32::new(seed, 1),
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            events: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            numbers: 0,
            log: Vec::new(),
            dials: Vec::new(),
            sent: BTreeMap::new(),
        };
        for number in 1..=count {
            net.start(number, 1_000);
        }
        net
    }

    /// `count` nodes that joined through the first of them.
    pub(super) fn joined(seed: u64, count: u8) -> Self {
        let mut net = Self::new(seed, count);
        let ids = net.ids();
        for peer in &ids[1..] {
            net.dial(*peer, ids[0]);
        }
        net.run(Duration::from_secs(10));
        net
    }

    /// Starts a node, perhaps again, and returns its key.
    pub(super) fn start(&mut self, number: u8, first_sequence: u64) -> PeerId {
        let identity = Arc::new(Identity::from_seed([number; 32]));
        let peer = identity.peer_id();
        let machine = Membership::new(identity, "test", Regime::Secret, 100, first_sequence);
        let address = SocketAddr::from(([192, 0, 2, number], 7780));
        let life = self.number();
        self.nodes.insert(peer, Node { machine, alive: true, life });
        self.input(peer, Input::Address(address));
        self.input(peer, Input::Join);
        peer
    }

    /// All nodes, by key, dead ones too.
    pub(super) fn ids(&self) -> Vec<PeerId> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn alive(&self) -> Vec<PeerId> {
        self.nodes.iter().filter(|(_, node)| node.alive).map(|(peer, _)| *peer).collect()
    }

    pub(super) fn machine(&self, peer: PeerId) -> &Membership {
        &self.nodes[&peer].machine
    }

    /// Whom a node has in its view, itself included.
    pub(super) fn view_of(&self, peer: PeerId) -> BTreeSet<PeerId> {
        let machine = self.machine(peer);
        let own = machine.is_serving().then_some(peer);
        machine.iter().map(|(member, _)| member.peer).chain(own).collect()
    }

    /// Every one of these has exactly these in its view, none of them suspect.
    pub(super) fn agree(&self, peers: &[PeerId]) -> bool {
        let expected: BTreeSet<_> = peers.iter().copied().collect();
        peers.iter().all(|peer| self.view_of(*peer) == expected && self.machine(*peer).stats().suspect == 0)
    }

    /// As [`Self::agree`], and all that stands for the view is equal too, and every mate is linked.
    pub(super) fn assert_agreed(&self, peers: &[PeerId]) {
        for peer in peers {
            let missing: Vec<_> = peers.iter().filter(|other| !self.view_of(*peer).contains(other)).collect();
            let surplus: Vec<_> = self.view_of(*peer).into_iter().filter(|other| !peers.contains(other)).collect();
            assert!(missing.is_empty() && surplus.is_empty(), "{peer:?} misses {missing:?} and has {surplus:?}");
            let machine = self.machine(*peer);
            let mut mates = machine.iter().filter(|(member, _)| member.shard.overlaps(machine.shard()));
            assert!(mates.all(|(_, state)| state == State::Linked), "{peer:?} is linked to all mates");
            let first = self.machine(peers[0]);
            assert_eq!((machine.view(), machine.sketch()), (first.view(), first.sketch()));
            assert_eq!(machine.buckets.digest(), first.buckets.digest(), "{peer:?} has the same descriptors");
        }
    }

    /// Removes a node without a word.
    pub(super) fn kill(&mut self, peer: PeerId) {
        self.nodes.get_mut(&peer).expect("a node").alive = false;
        self.watch_silence(|one, other| one == peer || other == peer);
    }

    /// Cuts the ways for which `cut` says so, from one to the other.
    pub(super) fn cut(&mut self, cut: impl Fn(PeerId, PeerId) -> bool) {
        for from in self.ids() {
            for to in self.ids() {
                if from != to && cut(from, to) {
                    self.blocked.insert((from, to));
                }
            }
        }
        let blocked = self.blocked.clone();
        self.watch_silence(|one, other| blocked.contains(&(one, other)) || blocked.contains(&(other, one)));
    }

    pub(super) fn heal(&mut self) {
        self.blocked.clear();
    }

    /// Both ends notice that their link is lost.
    pub(super) fn drop_link(&mut self, one: PeerId, other: PeerId) {
        if self.links.remove(&pair(one, other)).is_some() {
            self.input(one, Input::LinkDown { peer: other, in_order: false });
            self.input(other, Input::LinkDown { peer: one, in_order: false });
        }
    }

    pub(super) fn are_linked(&self, one: PeerId, other: PeerId) -> bool {
        self.links.contains_key(&pair(one, other))
    }

    fn watch_silence(&mut self, is_silent: impl Fn(PeerId, PeerId) -> bool) {
        let silent: Vec<_> = self.links.iter().filter(|((one, other), _)| is_silent(*one, *other)).collect();
        let silent: Vec<_> = silent.into_iter().map(|((one, other), link)| (*one, *other, link.number)).collect();
        for (one, other, link) in silent {
            self.at(self.now + limits::IDLE_TIMEOUT, Event::Idle { one, other, link });
        }
    }

    /// A node dials another, as if told to by its operator.
    pub(super) fn dial(&mut self, from: PeerId, to: PeerId) {
        let life = self.nodes[&from].life;
        let reachable = self.nodes.get(&to).is_some_and(|node| node.alive) && self.passes(from, to);
        if reachable {
            let delay = self.delay();
            self.at(self.now + delay, Event::Dialled { from, life, to });
        } else {
            self.at(self.now + limits::DIAL_TIMEOUT, Event::DialFailed { from, life, to });
        }
    }

    fn passes(&self, one: PeerId, other: PeerId) -> bool {
        !self.blocked.contains(&(one, other)) && !self.blocked.contains(&(other, one))
    }

    pub(super) fn input(&mut self, at: PeerId, input: Input) {
        let mut out = Outbox::new();
        let Some(node) = self.nodes.get_mut(&at).filter(|node| node.alive) else { return };
        node.machine.handle(&mut Context::new(self.now, &mut self.rng), input, &mut out);
        self.carry_out(at, &mut out);
    }

    /// A node says something that its machine does not, to all whom it is linked to.
    pub(super) fn say_to_all(&mut self, from: PeerId, message: &MeshMessage) {
        for peer in self.ids() {
            self.message(from, peer, message.clone());
        }
    }

    fn carry_out(&mut self, at: PeerId, out: &mut Outbox<Output>) {
        for output in out.drain().collect::<Vec<_>>() {
            match output {
                Output::Dial { peer, address } => {
                    self.dials.push((self.now, address));
                    self.dial(at, peer);
                }
                Output::Close(peer) => {
                    if let Some(link) = self.links.remove(&pair(at, peer)) {
                        self.reset(at, peer, link);
                    }
                }
                Output::Send { to, message } => self.message(at, to, message),
                event => self.log.push((self.now, at, event)),
            }
        }
    }

    /// The other end learns that the link is closed, if that can reach it; else it waits in silence.
    fn reset(&mut self, from: PeerId, to: PeerId, link: Link) {
        let life = if from < to { link.lives.1 } else { link.lives.0 };
        let wait = if self.blocked.contains(&(from, to)) { limits::IDLE_TIMEOUT } else { self.delay() };
        self.at(self.now + wait, Event::Down { at: to, life, peer: from });
    }

    fn message(&mut self, from: PeerId, to: PeerId, message: MeshMessage) {
        let Some(link) = self.links.get(&pair(from, to)).copied() else { return };
        let mut bytes = Vec::new();
        frame::encode(&message, &mut bytes).expect("a message within its cap");
        let sent = self.sent.entry(crate::wire::Message::name(&message)).or_default();
        *sent = (sent.0 + 1, sent.1 + bytes.len() as u64);
        if self.blocked.contains(&(from, to)) {
            return;
        }
        let arrival = self.arrivals.get(&(from, to)).copied().unwrap_or_default().max(self.now + self.delay());
        self.arrivals.insert((from, to), arrival);
        self.at(arrival, Event::Message { from, to, link: link.number, message: Box::new(message) });
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(self.rng.random_range(DELAY))
    }

    fn at(&mut self, time: Time, event: Event) {
        let number = self.number();
        self.events.insert((time, number), event);
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Lets `span` pass.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.run_while(end, |_| true);
        self.now = end;
    }

    /// Lets time pass until something holds, at most `span`. Returns how long it took.
    pub(super) fn run_until(&mut self, span: Duration, holds: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        self.run_while(start + span, |net| !holds(net));
        holds(self).then(|| self.now.since(start))
    }

    fn run_while(&mut self, end: Time, goes_on: impl Fn(&Self) -> bool) {
        while goes_on(self) {
            let alive = self.nodes.iter().filter(|(_, node)| node.alive);
            let due = alive.filter_map(|(peer, node)| Some((node.machine.next_deadline()?, *peer))).min();
            let event = self.events.keys().next().copied();
            let next = due.map(|(at, _)| at).into_iter().chain(event.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            match (event, due) {
                (Some(key), _) if key.0 == next => {
                    let event = self.events.remove(&key).expect("it was just seen");
                    self.happen(event);
                }
                (_, Some((_, peer))) => {
                    let mut out = Outbox::new();
                    let node = self.nodes.get_mut(&peer).expect("a node");
                    node.machine.on_deadline(&mut Context::new(self.now, &mut self.rng), &mut out);
                    let next = node.machine.next_deadline();
                    assert!(next.is_none_or(|next| next > self.now), "a busy loop at {}", self.now);
                    self.carry_out(peer, &mut out);
                }
                _ => {}
            }
        }
    }

    fn lives(&self, peer: PeerId, life: u64) -> bool {
        self.nodes.get(&peer).is_some_and(|node| node.alive && node.life == life)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Dialled { from, life, to } => {
                let Some(node) = self.nodes.get(&to).filter(|node| node.alive) else { return };
                let (theirs, is_old) = (node.life, self.links.get(&pair(from, to)).copied());
                let lives = if from < to { (life, theirs) } else { (theirs, life) };
                // Two that dial each other at once get one link; one of an earlier life is replaced.
                if !self.lives(from, life) || is_old.is_some_and(|link| link.lives == lives) {
                    return;
                }
                let number = self.number();
                self.links.insert(pair(from, to), Link { number, lives });
                let delay = self.delay();
                self.at(self.now, Event::Up { at: to, life: theirs, peer: from });
                self.at(self.now + delay, Event::Up { at: from, life, peer: to });
            }
            Event::DialFailed { from, life, to } => {
                if self.lives(from, life) {
                    self.input(from, Input::DialFailed(to));
                }
            }
            Event::Up { at, life, peer } => {
                if self.lives(at, life) && self.are_linked(at, peer) {
                    let descriptors = self.machine(peer).own().cloned().into_iter().collect();
                    self.input(at, Input::Heard { from: peer, descriptors });
                    self.input(at, Input::LinkUp(peer));
                }
            }
            Event::Message { from, to, link, message } => match self.links.get(&pair(from, to)).copied() {
                Some(known) if known.number == link && self.nodes[&to].alive => {
                    let life = if to < from { known.lives.0 } else { known.lives.1 };
                    if self.lives(to, life) {
                        self.input(to, Input::Message { from, message: *message });
                    } else {
                        // A new life does not know the link.
                        self.links.remove(&pair(from, to));
                        self.reset(to, from, known);
                    }
                }
                _ => {}
            },
            Event::Down { at, life, peer } => {
                if self.lives(at, life) && !self.are_linked(at, peer) {
                    self.input(at, Input::LinkDown { peer, in_order: false });
                }
            }
            Event::Idle { one, other, link } => {
                let is_silent = !self.passes(one, other) || !self.nodes[&one].alive || !self.nodes[&other].alive;
                if is_silent && self.links.get(&pair(one, other)).is_some_and(|known| known.number == link) {
                    self.drop_link(one, other);
                }
            }
        }
    }
}

fn pair(one: PeerId, other: PeerId) -> (PeerId, PeerId) {
    (one.min(other), one.max(other))
}
