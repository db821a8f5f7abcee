//! Many downloaders of one file, on a virtual clock: the program's own [`Swarm`], [`Queue`] and [`spread`](leaf::swarm::spread),
//! and rate-limited lines between them.
//!
//! ```text
//!   Swarm ── Open, Want, Appetite ──> Queue, Suggestions, Others ── Granted, Have, Others, Suggest, blocks ──> Swarm
//!                 half a round trip                       uplink, half a round trip, downlink
//! ```
//!
//! What stands for the drivers here does as they do: it serves what it has once the size is proven, tells new pieces every
//! [`limits::HAVE_INTERVAL`] and others every [`limits::OTHERS_INTERVAL`], and sends at most [`limits::RUNS_AT_ONCE`] runs at
//! once to each peer. A line carries blocks one after the other, turn by turn for all who are sent something, the runs of each in
//! their order; of each request at most
//! [`WINDOW`] bytes are under way, so that a sender does not fill the queue before a slower line. There is no loss, and
//! verification costs nothing.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use leaf::{
    bitmap::Bitmap,
    queue::{self, Queue, SessionId},
    swarm::{
        CloseReason, Input, Output, RequestId, Run, Swarm, Work,
        spread::{Others, Suggestions, Told, suggested_ahead},
    },
};
use overlay::{
    id::PeerId,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
    verify::Layout,
};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::sim::{links::Links, scenario::Paths};

/// Bytes that a line carries at once. Chosen: 50 ms at 20 Mbit/s.
const BLOCK: u64 = 128 << 10;
/// Bytes of one request that are under way at most.
pub const WINDOW: u64 = 512 << 10;
/// Round trips until a session with somebody new is open: an introduction, a handshake, the question itself.
const SETUP_ROUND_TRIPS: u32 = 3;

/// A node and its line.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Bytes a second.
    pub up: u64,
    /// Bytes a second.
    pub down: u64,
    /// When it comes; `None` has the file from the beginning.
    pub comes: Option<Time>,
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Seconds that each downloader took, by its number among the members; `None` if it was not done in time.
    pub took: Vec<Option<f64>>,
    /// Seconds until each of them had its first piece, so that it could give something.
    pub began: Vec<Option<f64>>,
    /// Bytes that were sent for each byte of the file and each downloader.
    pub sent: f64,
    /// Seconds until every piece was asked of the first member; `None` if some never were.
    pub first_copy: Option<f64>,
    /// The part of the file that it was asked for again until then; below zero if it was not asked for all.
    pub repeated: f64,
    /// For each second, the part of what all lines can send that they sent.
    pub sending: Vec<f64>,
}

enum Message {
    Open,
    Opened { complete: bool, have: Option<Bitmap> },
    Have { first: u64, bits: Vec<u8> },
    Queued(u32),
    Granted,
    Revoked,
    Closed(CloseReason),
    Others(Vec<PeerId>),
    Suggested(Run),
    Found(Vec<PeerId>),
    Appetite(bool),
    Close,
    Want(RequestId, Run),
    WantSegment(RequestId),
    Segment(RequestId),
    Failed(RequestId),
    Cancel(RequestId),
}

enum Event {
    Comes,
    Message {
        from: usize,
        message: Message,
    },
    /// The uplink is free.
    Sent,
    /// A block is through the downlink.
    Arrived {
        from: usize,
        request: RequestId,
        bytes: u64,
    },
    SwarmDue,
    QueueDue,
    TellHave,
    TellOthers,
}

struct Scheduled {
    at: Time,
    sequence: u64,
    node: usize,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// A run of pieces that is being sent.
struct Sending {
    to: usize,
    request: RequestId,
    run: Run,
    left: u64,
    in_transit: u64,
}

/// A session of somebody who downloads from here.
struct Served {
    session: SessionId,
    told: Option<Bitmap>,
    /// Others that it was told of.
    named: Told,
    granted: bool,
    revoked_at: Option<Time>,
}

/// A request of ours that is under way.
struct Asked {
    run: Run,
    got: u64,
}

struct Node {
    peer: PeerId,
    member: Member,
    swarm: Option<Swarm>,
    have: Bitmap,
    queue: Queue,
    suggestions: Suggestions,
    others: Others,
    served: BTreeMap<usize, Served>,
    by_session: BTreeMap<SessionId, usize>,
    next_session: u64,
    sending: VecDeque<Sending>,
    uplink_busy: bool,
    downlink_free: Time,
    asked: BTreeMap<(usize, RequestId), Asked>,
    have_due: bool,
    swarm_due: Time,
    queue_due: Time,
    began: Option<Time>,
    done: Option<Time>,
    out: Outbox<Output>,
    queue_out: Outbox<queue::Output>,
}

impl Node {
    /// What was asked for and not sent yet is suggested again.
    fn stop_sending(&mut self, ends: impl Fn(&Sending) -> bool) {
        let (ended, goes_on): (VecDeque<_>, _) = self.sending.drain(..).partition(ends);
        self.sending = goes_on;
        for sending in ended.into_iter().filter(|sending| sending.left > 0) {
            self.suggestions.unsent(sending.run);
        }
    }
}

/// The simulation. See the module text.
pub struct World {
    layout: Layout,
    links: Links,
    now: Time,
    rng: Pcg64Mcg,
    sequence: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    nodes: Vec<Node>,
    homes: [PeerId; 1],
    sent: u64,
    /// Bytes sent in each second.
    sent_in: Vec<u64>,
    left: usize,
    first_copy: FirstCopy,
}

/// What the first member has given of the file until every piece of it was asked for once.
struct FirstCopy {
    given: Bitmap,
    pieces: u64,
    at: Option<Time>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("now", &self.now).field("left", &self.left).finish_non_exhaustive()
    }
}

const NEVER: Time = Time(u64::MAX);

impl World {
    /// A file of `size` bytes, 1 or more, and its members. The same seed gives the same run.
    pub fn new(size: u64, members: &[Member], seed: u64) -> anyhow::Result<Self> {
        let layout = Layout::new(size)?;
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let nodes = members.iter().enumerate().map(|(number, member)| {
            let mut id = [0; 32];
            rng.fill_bytes(&mut id);
            id[28..].copy_from_slice(&(number as u32).to_be_bytes());
            let is_source = member.comes.is_none();
            Node {
                peer: PeerId(id),
                member: *member,
                swarm: None,
                have: if is_source { Bitmap::full(layout.pieces()) } else { Bitmap::new(layout.pieces()) },
                queue: Queue::new(limits::UPLOAD_SLOTS, None),
                suggestions: Suggestions::new(layout.pieces(), rng.next_u64()),
                others: Others::default(),
                served: BTreeMap::new(),
                by_session: BTreeMap::new(),
                next_session: 0,
                sending: VecDeque::new(),
                uplink_busy: false,
                downlink_free: Time::ZERO,
                asked: BTreeMap::new(),
                have_due: false,
                swarm_due: NEVER,
                queue_due: NEVER,
                began: None,
                done: None,
                out: Outbox::new(),
                queue_out: Outbox::new(),
            }
        });
        let nodes: Vec<Node> = nodes.collect();
        let mut world = Self {
            layout,
            links: Links::new(seed, Paths::default()),
            now: Time::ZERO,
            rng,
            sequence: 0,
            events: BinaryHeap::new(),
            left: members.iter().filter(|member| member.comes.is_some()).count(),
            nodes,
            homes: [PeerId([1; 32])],
            sent: 0,
            sent_in: Vec::new(),
            first_copy: FirstCopy { given: Bitmap::new(layout.pieces()), pieces: 0, at: None },
        };
        for (node, member) in members.iter().enumerate() {
            if let Some(at) = member.comes {
                world.schedule(at, node, Event::Comes);
            }
            world.schedule(
                Time::ZERO + limits::OTHERS_INTERVAL.mul_f64((node % 100) as f64 / 100.0),
                node,
                Event::TellOthers,
            );
        }
        Ok(world)
    }

    /// Runs until everybody has the file, or `span` has passed.
    pub fn run(mut self, span: Duration) -> Outcome {
        let end = Time::ZERO + span;
        while self.left > 0
            && let Some(Reverse(next)) = self.events.pop()
            && next.at <= end
        {
            self.now = next.at;
            self.happen(next.node, next.event);
        }
        let downloaders = self.nodes.iter().filter_map(|node| Some((node.member.comes?, node.done)));
        let took: Vec<_> = downloaders.map(|(came, done)| done.map(|done| done.since(came).as_secs_f64())).collect();
        let beginners = self.nodes.iter().filter_map(|node| Some((node.member.comes?, node.began)));
        let began = beginners.map(|(came, began)| began.map(|began| began.since(came).as_secs_f64())).collect();
        let sent = self.sent as f64 / self.layout.size() as f64 / took.len().max(1) as f64;
        let first_copy = self.first_copy.at.map(|at| at.since(Time::ZERO).as_secs_f64());
        let repeated = self.first_copy.pieces as f64 / self.layout.pieces() as f64 - 1.0;
        let able: u64 = self.nodes.iter().map(|node| node.member.up).sum();
        let sending = self.sent_in.iter().map(|bytes| *bytes as f64 / able as f64).collect();
        Outcome { took, began, sent, first_copy, repeated, sending }
    }

    fn schedule(&mut self, at: Time, node: usize, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse(Scheduled { at, sequence: self.sequence, node, event }));
    }

    /// A message arrives half a round trip later, and `more` round trips.
    fn say(&mut self, from: usize, to: usize, more: u32, message: Message) {
        let round_trip = self.links.round_trip(from as u32, to as u32);
        let delay = round_trip / 2 + round_trip * more;
        self.schedule(self.now + delay, to, Event::Message { from, message });
    }

    fn number(peer: &PeerId) -> usize {
        u32::from_be_bytes([peer.0[28], peer.0[29], peer.0[30], peer.0[31]]) as usize
    }

    fn happen(&mut self, node: usize, event: Event) {
        match event {
            Event::Comes => {
                self.nodes[node].swarm = Some(Swarm::new());
                self.wake(node);
            }
            Event::Message { from, message } => self.heard(node, from, message),
            Event::Sent => {
                self.nodes[node].uplink_busy = false;
                self.send(node);
            }
            Event::Arrived { from, request, bytes } => self.arrived(node, from, request, bytes),
            Event::SwarmDue => {
                self.nodes[node].swarm_due = NEVER;
                self.wake(node);
            }
            Event::QueueDue => {
                self.nodes[node].queue_due = NEVER;
                self.queue(node, None);
            }
            Event::TellHave => self.tell_have(node),
            Event::TellOthers => self.tell_others(node),
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        let state = &mut self.nodes[node];
        let Some(swarm) = &mut state.swarm else { return };
        swarm.handle(&mut Context::new(self.now, &mut self.rng), input, &mut state.out);
        self.carry_out(node);
    }

    fn wake(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        let Some(swarm) = &mut state.swarm else { return };
        if swarm.next_deadline().is_some_and(|at| at <= self.now) {
            swarm.on_deadline(&mut Context::new(self.now, &mut self.rng), &mut state.out);
        }
        self.carry_out(node);
    }

    fn carry_out(&mut self, node: usize) {
        for output in self.nodes[node].out.drain().collect::<Vec<_>>() {
            match output {
                Output::Open(peer) => self.say(node, Self::number(&peer), SETUP_ROUND_TRIPS - 1, Message::Open),
                Output::Close(peer) => {
                    let to = Self::number(&peer);
                    self.nodes[node].asked.retain(|(from, _), _| *from != to);
                    self.say(node, to, 0, Message::Close);
                }
                Output::Sized(_) | Output::Finished => {}
                Output::Request { id, peer, work } => {
                    let to = Self::number(&peer);
                    match work {
                        Work::Segment(_) | Work::Repair(_) => self.say(node, to, 0, Message::WantSegment(id)),
                        Work::Pieces(run) => {
                            self.nodes[node].asked.insert((to, id), Asked { run, got: 0 });
                            self.say(node, to, 0, Message::Want(id, run));
                        }
                    }
                }
                Output::Cancel(id) => {
                    let of = self.nodes[node].asked.keys().find(|(_, request)| *request == id).copied();
                    if let Some(key) = of {
                        self.nodes[node].asked.remove(&key);
                        self.say(node, key.0, 0, Message::Cancel(id));
                    }
                }
                Output::Appetite { peer, wants } => {
                    self.say(node, Self::number(&peer), 0, Message::Appetite(wants));
                }
                Output::FindSources => {
                    let whole =
                        |(other, state): (usize, &Node)| (other != node && state.have.is_full()).then_some(state.peer);
                    let found = self.nodes.iter().enumerate().filter_map(whole).collect();
                    self.say(node, node, 1, Message::Found(found));
                }
            }
        }
        let state = &mut self.nodes[node];
        if state.done.is_none() && state.swarm.as_ref().is_some_and(Swarm::is_finished) {
            state.done = Some(self.now);
            self.left -= 1;
        }
        let deadline = state.swarm.as_ref().and_then(Machine::next_deadline);
        if let Some(at) = deadline.filter(|at| *at < state.swarm_due) {
            state.swarm_due = at;
            self.schedule(at, node, Event::SwarmDue);
        }
    }

    fn queue(&mut self, node: usize, input: Option<queue::Input>) {
        let state = &mut self.nodes[node];
        let cx = &mut Context::new(self.now, &mut self.rng);
        match input {
            Some(input) => state.queue.handle(cx, input, &mut state.queue_out),
            None => state.queue.on_deadline(cx, &mut state.queue_out),
        }
        for output in state.queue_out.drain().collect::<Vec<_>>() {
            let (session, message) = match output {
                queue::Output::Grant { session, .. } => (session, Message::Granted),
                queue::Output::Revoke { session, .. } => (session, Message::Revoked),
                queue::Output::Position { session, position } => (session, Message::Queued(position)),
                queue::Output::Refuse { session, .. } => (session, Message::Closed(CloseReason::Busy)),
            };
            let Some(to) = self.nodes[node].by_session.get(&session).copied() else { continue };
            let suggestion = matches!(message, Message::Granted) && self.nodes[node].have.is_full();
            if let Some(served) = self.nodes[node].served.get_mut(&to) {
                match message {
                    Message::Granted => served.granted = true,
                    Message::Revoked => (served.granted, served.revoked_at) = (false, Some(self.now)),
                    _ => {}
                }
            }
            if suggestion {
                let ahead = suggested_ahead(self.layout.piece_bytes());
                let run = self.nodes[node].suggestions.next(ahead);
                self.say(node, to, 0, Message::Suggested(run));
            }
            self.say(node, to, 0, message);
        }
        let state = &mut self.nodes[node];
        if let Some(at) = state.queue.next_deadline().filter(|at| *at < state.queue_due) {
            state.queue_due = at;
            self.schedule(at.max(self.now), node, Event::QueueDue);
        }
    }

    /// True once others may fetch what is verified.
    fn serves(&self, node: usize) -> bool {
        let state = &self.nodes[node];
        state.have.is_full() || state.have.contains(self.layout.pieces() - 1)
    }

    fn heard(&mut self, node: usize, from: usize, message: Message) {
        let peer = self.nodes[from].peer;
        match message {
            Message::Open => self.open(node, from),
            Message::Opened { complete, have } => {
                self.input(node, Input::Opened { peer, size: self.layout.size(), complete });
                if let Some(have) = have {
                    self.input(node, Input::Have { peer, first: 0, bits: have.as_bytes().to_vec() });
                }
            }
            Message::Have { first, bits } => {
                self.nodes[node].others.heard(self.now, peer, &self.homes);
                self.input(node, Input::Have { peer, first, bits });
            }
            Message::Queued(position) => self.input(node, Input::Queued { peer, position }),
            Message::Granted => self.input(node, Input::Granted(peer)),
            Message::Revoked => self.input(node, Input::Revoked(peer)),
            Message::Closed(reason) => {
                self.nodes[node].asked.retain(|(other, _), _| *other != from);
                self.input(node, Input::Closed { peer, reason });
            }
            Message::Others(found) | Message::Found(found) => self.input(node, Input::SourcesFound(found)),
            Message::Suggested(run) => self.input(node, Input::Suggested { peer, run }),
            Message::Segment(id) => self.input(node, Input::SegmentArrived(id)),
            Message::Failed(id) => {
                if self.nodes[node].asked.remove(&(from, id)).is_some() {
                    self.input(node, Input::RequestFailed(id));
                }
            }
            Message::Appetite(wants) => self.rest(node, from, !wants),
            Message::Close => {
                self.nodes[node].stop_sending(|sending| sending.to == from);
                if let Some(served) = self.nodes[node].served.remove(&from) {
                    self.nodes[node].by_session.remove(&served.session);
                    self.queue(node, Some(queue::Input::Leave(served.session)));
                }
            }
            Message::WantSegment(id) => self.say(node, from, 0, Message::Segment(id)),
            Message::Want(request, run) => self.want(node, from, request, run),
            Message::Cancel(id) => {
                self.nodes[node].stop_sending(|sending| sending.to == from && sending.request == id);
            }
        }
    }

    fn open(&mut self, node: usize, from: usize) {
        if !self.serves(node) || self.nodes[node].served.contains_key(&from) {
            return self.say(node, from, 0, Message::Closed(CloseReason::NotHeld));
        }
        let state = &mut self.nodes[node];
        let session = SessionId(state.next_session);
        state.next_session += 1;
        let told = (!state.have.is_full()).then(|| state.have.clone());
        let opened = Message::Opened { complete: told.is_none(), have: told.clone() };
        state.served.insert(from, Served { session, told, named: Told::default(), granted: false, revoked_at: None });
        state.by_session.insert(session, from);
        let copies = state.others.len() as u32;
        self.say(node, from, 0, opened);
        self.name_others(node, from);
        let peer = self.nodes[from].peer;
        self.queue(node, Some(queue::Input::Join { session, peer, copies }));
    }

    fn rest(&mut self, node: usize, from: usize, rests: bool) {
        let peer = self.nodes[from].peer;
        let copies = self.nodes[node].others.len() as u32;
        let Some(served) = self.nodes[node].served.get_mut(&from) else { return };
        let session = served.session;
        if rests {
            if std::mem::take(&mut served.granted) {
                served.revoked_at = Some(self.now);
                self.say(node, from, 0, Message::Revoked);
            }
            self.queue(node, Some(queue::Input::Leave(session)));
        } else {
            self.queue(node, Some(queue::Input::Join { session, peer, copies }));
        }
    }

    fn want(&mut self, node: usize, from: usize, request: RequestId, run: Run) {
        let now = self.now;
        let may_ask = self.nodes[node].served.get(&from).is_some_and(|served| {
            served.granted || served.revoked_at.is_some_and(|at| now < at + limits::REVOKED_GRACE)
        });
        let (first, last) = (run.first, run.first + u64::from(run.count) - 1);
        if !may_ask || !(first..=last).all(|piece| self.nodes[node].have.contains(piece)) {
            return self.say(node, from, 0, Message::Failed(request));
        }
        let bounds = (self.layout.piece_range(first), self.layout.piece_range(last));
        let (Ok(first), Ok(last)) = bounds else { return };
        let left = last.end - first.start;
        self.nodes[node].sending.push_back(Sending { to: from, request, run, left, in_transit: 0 });
        self.nodes[node].suggestions.sent(run);
        if node == 0 && self.first_copy.at.is_none() {
            for piece in run.first..run.first + u64::from(run.count) {
                self.first_copy.given.insert(piece);
            }
            self.first_copy.pieces += u64::from(run.count);
            self.first_copy.at = self.first_copy.given.is_full().then_some(self.now);
        }
        if self.nodes[node].have.is_full() {
            let more = self.nodes[node].suggestions.next(run.count);
            self.say(node, from, 0, Message::Suggested(more));
        }
        self.send(node);
    }

    /// Sends the next block, if the uplink is free and there is one.
    fn send(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        if state.uplink_busy {
            return;
        }
        // Of each connection the first run goes that can, and those beyond the first ones are not read yet.
        let mut at_once: BTreeMap<usize, usize> = BTreeMap::new();
        let next = state.sending.iter().position(|sending| {
            let place = at_once.entry(sending.to).or_default();
            *place += 1;
            *place <= limits::RUNS_AT_ONCE && sending.left > 0 && sending.in_transit < WINDOW
        });
        let Some(next) = next else { return };
        let Some(mut sending) = state.sending.remove(next) else { return };
        let bytes = sending.left.min(BLOCK);
        sending.left -= bytes;
        sending.in_transit += bytes;
        self.sent += bytes;
        let second = self.now.since(Time::ZERO).as_secs() as usize;
        if self.sent_in.len() <= second {
            self.sent_in.resize(second + 1, 0);
        }
        self.sent_in[second] += bytes;
        let (to, request, is_last) = (sending.to, sending.request, sending.left == 0);
        state.sending.insert(next, sending);
        // The connection is at the end of its turn, its runs in their order.
        let (of_connection, mut others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut state.sending).into_iter().partition(|sending| sending.to == to);
        others.extend(of_connection);
        state.sending = others;
        state.uplink_busy = true;
        let gone = self.now + Duration::from_secs_f64(bytes as f64 / state.member.up as f64);
        let session = state.served.get(&to).map(|served| served.session);
        self.schedule(gone, node, Event::Sent);
        let lands = gone + self.links.round_trip(node as u32, to as u32) / 2;
        let receiver = &mut self.nodes[to];
        let span = Duration::from_secs_f64(bytes as f64 / receiver.member.down as f64);
        receiver.downlink_free = receiver.downlink_free.max(lands) + span;
        let at = receiver.downlink_free;
        self.schedule(at, to, Event::Arrived { from: node, request, bytes });
        if let Some(session) = session {
            self.queue(node, Some(queue::Input::Sent { session, bytes }));
        }
        if is_last {
            let peer = self.nodes[to].peer;
            self.nodes[node].others.heard(self.now, peer, &self.homes);
        }
    }

    fn arrived(&mut self, node: usize, from: usize, request: RequestId, bytes: u64) {
        let sender = &mut self.nodes[from];
        if let Some(sending) = sender.sending.iter_mut().find(|other| other.to == node && other.request == request) {
            sending.in_transit -= bytes;
        }
        sender.sending.retain(|sending| sending.left > 0 || sending.in_transit > 0);
        self.send(from);
        let peer = self.nodes[from].peer;
        let piece_bytes = u64::from(self.layout.piece_bytes());
        let Some(asked) = self.nodes[node].asked.get_mut(&(from, request)) else { return };
        let before = asked.got / piece_bytes;
        asked.got += bytes;
        let run = asked.run;
        let start = run.first * piece_bytes;
        let end = (start + u64::from(run.count) * piece_bytes).min(self.layout.size());
        let whole = if start + asked.got == end { run.count.into() } else { asked.got / piece_bytes };
        if whole == u64::from(run.count) {
            self.nodes[node].asked.remove(&(from, request));
        }
        self.input(node, Input::Progress { peer, bytes });
        for piece in run.first + before..run.first + whole {
            self.nodes[node].have.insert(piece);
            self.nodes[node].began = self.nodes[node].began.or(Some(self.now));
            self.nodes[node].others.heard(self.now, peer, &self.homes);
            self.input(node, Input::PieceArrived { request, piece });
            if !std::mem::replace(&mut self.nodes[node].have_due, true) {
                self.schedule(self.now + limits::HAVE_INTERVAL, node, Event::TellHave);
            }
        }
    }

    fn tell_have(&mut self, node: usize) {
        self.nodes[node].have_due = false;
        let have = self.nodes[node].have.clone();
        let mut news = Vec::new();
        for (to, served) in &mut self.nodes[node].served {
            let Some(told) = &mut served.told else { continue };
            let differs = |at: &usize| told.as_bytes()[*at] != have.as_bytes()[*at];
            let mut changed = (0..have.as_bytes().len()).filter(differs);
            if let Some(first) = changed.next() {
                let last = changed.next_back().unwrap_or(first);
                news.push((*to, first as u64 * 8, have.as_bytes()[first..=last].to_vec()));
                *told = have.clone();
            }
        }
        for (to, first, bits) in news {
            self.say(node, to, 0, Message::Have { first, bits });
        }
    }

    fn name_others(&mut self, node: usize, to: usize) {
        let listener = self.nodes[to].peer;
        let state = &mut self.nodes[node];
        let Some(served) = state.served.get_mut(&to) else { return };
        let others = state.others.sample(self.now, &listener, &mut served.named, &mut self.rng);
        if !others.is_empty() {
            self.say(node, to, 0, Message::Others(others.into_iter().map(|(peer, _)| peer).collect()));
        }
    }

    fn tell_others(&mut self, node: usize) {
        for to in self.nodes[node].served.keys().copied().collect::<Vec<_>>() {
            self.name_others(node, to);
        }
        self.schedule(self.now + limits::OTHERS_INTERVAL, node, Event::TellOthers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_who_come_at_once_are_done_within_the_bound() {
        let (size, rate, count) = (256 << 20, 2_500_000, 8u32);
        let line = |comes| Member { up: rate, down: rate, comes };
        let mut members = vec![line(None)];
        members.extend((0..count).map(|_| line(Some(Time::ZERO))));
        let pieces = Layout::new(size).unwrap().pieces() as f64;
        let bound = (1.0 + f64::from(count).log2() / pieces) * size as f64 / rate as f64;
        for seed in 1..3 {
            let outcome = World::new(size, &members, seed).unwrap().run(Duration::from_mins(10));
            let last = outcome.took.iter().map(|took| took.unwrap()).fold(0.0, f64::max);
            assert!(last < 1.15 * bound, "{last} of {bound} s, seed {seed}: {outcome:?}");
            assert!(outcome.repeated < 0.1, "seed {seed}: {outcome:?}");
        }
    }
}
