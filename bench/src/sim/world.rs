//! The simulated world: a virtual clock, a network, and the program's own cores on it.
//!
//! Ultrapeers are [`ultrapeer::ultrapeer::Ultrapeer`], leaves are [`leaf::network::Network`] with a real
//! [`leaf::catalog::Catalog`]: the very machines that the programs run. The world plays their drivers, which decide
//! nothing: it dials, carries messages, builds chunks, and notices lost connections when QUIC's timers would.
//!
//! ```text
//!   wheel ──event──> world ──input──> core ──outputs──> world ──planned arrival──> wheel
//! ```
//!
//! Invariants:
//! - one thread, one order of events, every random number from a seeded generator: the same scenario with the same
//!   seed gives the same [`World::trace`];
//! - messages pass typed and shared, but each is counted by the size of its encoding;
//! - a node that is dead hears nothing and says nothing; what is on its way to it is lost.
//!
//! What differs from the programs: handshakes and acknowledgements are times and bytes, not packets; a chunk that
//! several homes build is built once and takes [`BUILD_BASE`] and [`BUILD_FILE`] at each; hosts have endless CPU.

mod audit;
mod leaves;
mod mesh;
mod plan;
mod roles;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

use leaf::network::{self, Network};
use overlay::{
    batch::ChunkHash,
    id::{HandleSalt, PeerId},
    identity::Identity,
    machine::{Context, Machine, Outbox},
    time::Time,
    wire::{
        Message,
        descriptor::SignedDescriptor,
        hello::Contact,
        leaf::{ChunkRef, LeafMessage, RootStatement},
        mesh::{DigestName, MeshMessage},
    },
};
use rand::SeedableRng;
use rand_pcg::{Pcg32, Pcg64Mcg};
use rustc_hash::{FxHashMap, FxHashSet};
use ultrapeer::{
    digests::owed::Packed,
    index::Segment,
    ultrapeer::{Input, Output, Ultrapeer},
};

pub use self::plan::{Load, Plan};
use super::{
    draw,
    links::Links,
    measure::Measures,
    scenario::Scenario,
    traffic::{self, Line, Traffic},
    wheel::Wheel,
    workload::Library,
};

/// What the worker takes for any chunk.
const BUILD_BASE: Duration = Duration::from_millis(1);
/// What it takes for each file: a leaf of 1,000 files takes about a millisecond (the README's figures).
const BUILD_FILE: Duration = Duration::from_micros(1);
/// Half a round trip from a node to itself.
const WITHIN: Duration = Duration::from_micros(50);
/// Streams between two ultrapeers in each direction.
const CLASSES: usize = 4;
/// Leaves are numbered from here on where they and ultrapeers share one space of numbers.
const FIRST_LEAF: u32 = 1 << 20;

/// The world. See the module text.
#[derive(Debug)]
pub struct World {
    now: Time,
    wheel: Wheel<Event>,
    links: Links,
    rng: Pcg64Mcg,
    scenario: Scenario,
    library: Library,
    ultrapeers: Vec<Up>,
    by_address: FxHashMap<SocketAddr, u32>,
    by_peer: FxHashMap<PeerId, u32>,
    leaf_at: FxHashMap<SocketAddr, u32>,
    leaves: Vec<Leaf>,
    /// Leaves that are online, in no order.
    online: Vec<u32>,
    sessions: Vec<Session>,
    asking: FxHashMap<u64, Asking>,
    /// Chunks that some home holds: built once for all of them.
    segments: FxHashMap<ChunkHash, Weak<Segment>>,
    /// Digests that some ultrapeer holds, and those that homes made lately.
    digests: FxHashMap<DigestName, Weak<Segment>>,
    packed: FxHashMap<DigestName, Option<Packed>>,
    /// While the network is parted: the part of nodes on one side.
    parted: Option<f64>,
    held: Vec<(u32, u32, Event)>,
    /// When the next departure is followed by searches for what went.
    next_gone: Time,
    numbers: u64,
    trace: u64,
    events: u64,
    traffic: Traffic,
    /// What was counted before counting began anew.
    joining: Traffic,
    measures: Measures,
    /// Who the machines accused of breaking the protocol, and other things that must not happen.
    defects: Vec<String>,
    told: FxHashSet<String>,
    lies: Vec<String>,
    /// Contents that were added later, with the sequence of the list that has them first.
    fresh: FxHashMap<u32, u64>,
}

/// An ultrapeer and its place in the network.
#[derive(Debug)]
struct Up {
    machine: Ultrapeer,
    rng: Pcg32,
    peer: PeerId,
    address: SocketAddr,
    alive: bool,
    /// True if it answers every search with nothing, and says that this is all.
    lies: bool,
    /// By the other's number; the number 0 is no link.
    links: Vec<Link>,
    /// When the one entry of the wheel that counts is due.
    due: u64,
    line: Line,
    since: Time,
    /// Where it is in the network: the number of the node itself, or of the leaf that it is.
    place: u32,
    /// What became of a leaf.
    elected: Option<roles::Elected>,
    /// The same node's number when it served before.
    earlier: Option<u32>,
    /// True of those that one owner has made.
    of_crowd: bool,
}

/// One direction of a link between ultrapeers.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    number: u64,
    /// True if the lower key dialled it.
    by_lower: bool,
    since: Time,
    /// The last arrival on the stream of each class.
    last: [u64; CLASSES],
}

/// A leaf and its place in the network.
#[derive(Debug)]
struct Leaf {
    /// While it is online.
    core: Option<Box<Network>>,
    rng: Pcg32,
    identity: Box<Identity>,
    /// Counts its sessions in the network.
    life: u32,
    salt: HandleSalt,
    /// When it came online, or left.
    since: Time,
    /// Since when some home has had its list, in this life.
    advertised: Option<Time>,
    /// Place in [`World::online`].
    place: u32,
    due: u64,
    homes: Vec<(u32, u64)>,
    /// Searches that are asked of homes: its own ticket, the home, and the world's number for it.
    asks: Vec<(u64, u32, u64)>,
    list: Option<Rc<List>>,
    sequence: u64,
    remembered: Vec<SignedDescriptor>,
    /// What homes told of leaves that would serve, in earlier sessions.
    volunteers: Vec<Contact>,
    /// What it is told to join.
    targets: Vec<SocketAddr>,
    address: SocketAddr,
    nature: roles::Nature,
    /// The ultrapeer that it is, or wants to be.
    own: Option<u32>,
    line: Line,
    /// Searches and changes since counting began.
    active: bool,
}

/// A file list that is ready to be uploaded.
#[derive(Debug)]
struct List {
    statement: RootStatement,
    refs: Vec<ChunkRef>,
    chunks: Vec<Vec<u8>>,
}

/// A connection between a leaf and an ultrapeer.
#[derive(Clone, Copy, Debug)]
struct Session {
    leaf: u32,
    life: u32,
    up: u32,
    at_up: bool,
    at_leaf: bool,
    /// The last arrival in each direction: at the ultrapeer, at the leaf.
    last: [u64; 2],
    opened: Time,
    /// When something last passed.
    active: Time,
    announced: u64,
    acknowledged: u64,
    /// When it had acknowledged a list at all, and the newest one.
    acknowledged_at: (Time, Time),
    pongs: u32,
}

/// A search on its way between a leaf and a home.
#[derive(Clone, Copy, Debug)]
struct Asking {
    session: u64,
    /// The leaf's own number for it.
    ticket: u64,
    last: u64,
}

/// What happens at a time.
#[derive(Debug)]
enum Event {
    UpDue(u32),
    LeafDue(u32),
    Up(u32, Box<Input>),
    Leaf(u32, u32, Box<network::Input>),
    Mesh {
        from: u32,
        to: u32,
        link: u64,
        message: Box<MeshMessage>,
    },
    /// The hello of a dialling ultrapeer arrives.
    MeshHello {
        from: u32,
        to: u32,
        expect: Option<PeerId>,
        joining: bool,
    },
    MeshWelcome {
        from: u32,
        to: u32,
        link: u64,
        by_lower: bool,
    },
    MeshLost {
        at: u32,
        peer: u32,
        link: u64,
        in_order: bool,
    },
    /// The hello of a dialling leaf arrives.
    LeafHello {
        leaf: u32,
        life: u32,
        up: u32,
        expect: Option<PeerId>,
        insists: bool,
        /// It may be a leaf only, so not much is sent before it answers.
        contact: bool,
    },
    /// The hello of a leaf arrives at another that is no ultrapeer.
    Knock(Box<roles::Knock>),
    LeafWelcome {
        session: u64,
        descriptor: Option<Box<SignedDescriptor>>,
    },
    ToUp(u64, Box<LeafMessage>),
    ToLeaf(u64, Box<LeafMessage>),
    LostAtUp(u64),
    LostAtLeaf(u64),
    /// The idle timer of a home; the keep-alive of a leaf.
    IdleAtUp(u64),
    Pulse(u64),
    /// A leaf looks whether a home that it suspects has answered.
    Suspected {
        session: u64,
        pongs: u32,
    },
    Ask(u64, Box<LeafMessage>),
    Answer(u64, Box<LeafMessage>),
    /// The stream of a search ends without a summary: at the leaf, at the home.
    AnswerLost(u64),
    Withdrawn(u64),
    Plan(Plan),
}

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(scenario: Scenario, library: Library) -> Self {
        let seed = scenario.seed;
        let mut world = Self {
            now: Time::ZERO,
            wheel: Wheel::new(),
            links: Links::new(draw::mix(seed, 1, 1), scenario.paths),
            rng: Pcg64Mcg::seed_from_u64(draw::mix(seed, 2, 2)),
            library,
            ultrapeers: Vec::new(),
            by_address: FxHashMap::default(),
            by_peer: FxHashMap::default(),
            leaf_at: FxHashMap::default(),
            leaves: Vec::new(),
            online: Vec::new(),
            sessions: Vec::new(),
            asking: FxHashMap::default(),
            segments: FxHashMap::default(),
            digests: FxHashMap::default(),
            packed: FxHashMap::default(),
            parted: None,
            held: Vec::new(),
            next_gone: Time::ZERO + scenario.settled(),
            numbers: 0,
            trace: seed,
            events: 0,
            traffic: Traffic::default(),
            joining: Traffic::default(),
            measures: Measures::new(scenario.settled()),
            defects: Vec::new(),
            told: FxHashSet::default(),
            lies: Vec::new(),
            fresh: FxHashMap::default(),
            scenario,
        };
        world.begin();
        world
    }

    /// Lets time pass until `end`.
    pub fn run(&mut self, end: Time) {
        while let Some((at, event)) = self.wheel.next(end) {
            self.now = self.now.max(at);
            self.events += 1;
            self.note(event.kind(), event.whom());
            self.happen(event);
        }
        self.now = end;
    }

    /// All that happened, in one number.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Events that happened.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What was measured.
    pub fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Takes over what was measured in another run of the same scenario.
    pub fn take_measures(&mut self, other: Self) {
        self.measures.extend(other.measures);
        self.defects.extend(other.defects);
        self.lies.extend(other.lies);
    }

    /// Messages and bytes by kind since counting began.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Messages and bytes by kind until then, while nodes joined.
    pub fn joining_traffic(&self) -> &Traffic {
        &self.joining
    }

    /// What the cores must never do, each told once.
    pub fn defects(&self) -> &[String] {
        &self.defects
    }

    /// Searches that said what is not so, explained.
    pub fn lies(&self) -> &[String] {
        &self.lies
    }

    /// What is shared.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// The scenario.
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    fn note(&mut self, kind: u64, whom: u64) {
        self.trace = draw::mix(self.trace, self.now.as_micros() << 8 | kind, whom);
    }

    fn defect(&mut self, what: String) {
        if self.told.insert(what.clone()) && self.defects.len() < 100 {
            self.defects.push(format!("{} {what}", self.now));
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn plan(&mut self, at: Time, event: Event) {
        self.wheel.plan(at, event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::UpDue(up) => self.up_due(up),
            Event::LeafDue(leaf) => self.leaf_due(leaf),
            Event::Up(up, input) => self.up_input(up, *input),
            Event::Leaf(leaf, life, input) => self.leaf_input(leaf, life, *input),
            Event::Mesh { from, to, link, message } => self.mesh_arrives(from, to, link, *message),
            Event::MeshHello { from, to, expect, joining } => self.mesh_hello(from, to, expect, joining),
            Event::MeshWelcome { from, to, link, by_lower } => self.mesh_welcome(from, to, link, by_lower),
            Event::MeshLost { at, peer, link, in_order } => self.mesh_lost(at, peer, link, in_order),
            Event::LeafHello { leaf, life, up, expect, insists, contact } => {
                self.leaf_hello((leaf, life), up, expect, insists, contact);
            }
            Event::Knock(knock) => self.knocked(*knock),
            Event::LeafWelcome { session, descriptor } => self.leaf_welcome(session, descriptor.map(|signed| *signed)),
            Event::ToUp(session, message) => self.up_hears(session, *message),
            Event::ToLeaf(session, message) => self.leaf_hears(session, *message),
            Event::LostAtUp(session) => self.lost_at_up(session),
            Event::LostAtLeaf(session) => self.lost_at_leaf(session),
            Event::IdleAtUp(session) => self.idle_at_up(session),
            Event::Pulse(session) => self.pulse(session),
            Event::Suspected { session, pongs } => self.suspicion_ends(session, pongs),
            Event::Ask(asking, message) => self.ask_arrives(asking, *message),
            Event::Answer(asking, message) => self.answer_arrives(asking, *message),
            Event::AnswerLost(asking) => self.answer_lost(asking),
            Event::Withdrawn(asking) => self.withdrawn(asking),
            Event::Plan(plan) => self.carry_out_plan(plan),
        }
    }

    /// Gives an input to an ultrapeer that lives.
    fn up_input(&mut self, up: u32, input: Input) {
        let node = &mut self.ultrapeers[up as usize];
        if !node.alive {
            return;
        }
        let mut out = Outbox::new();
        node.machine.handle(&mut Context::new(self.now, &mut node.rng), input, &mut out);
        self.carry_out_up(up, &mut out);
    }

    fn up_due(&mut self, up: u32) {
        let node = &mut self.ultrapeers[up as usize];
        // Only the entry that was planned last counts; earlier ones were for deadlines that have moved.
        if !node.alive || node.due != self.now.as_micros() {
            return;
        }
        node.due = u64::MAX;
        let mut out = Outbox::new();
        if node.machine.next_deadline().is_some_and(|due| due <= self.now) {
            node.machine.on_deadline(&mut Context::new(self.now, &mut node.rng), &mut out);
            if node.machine.next_deadline().is_some_and(|due| due <= self.now) {
                self.defect("an ultrapeer wants to be woken at the moment in which it was woken".to_owned());
            }
        }
        self.carry_out_up(up, &mut out);
    }

    fn carry_out_up(&mut self, up: u32, out: &mut Outbox<Output>) {
        for output in out.drain() {
            self.carry_out(up, output);
        }
        let node = &mut self.ultrapeers[up as usize];
        let Some(due) = node.machine.next_deadline() else { return };
        // A core that is due at once again is a defect, and must not stop the clock.
        let due = due.as_micros().max(self.now.as_micros() + 1);
        if node.alive && due < node.due {
            node.due = due;
            self.plan(Time(due), Event::UpDue(up));
        }
        self.tell_own(up);
    }

    fn leaf_input(&mut self, leaf: u32, life: u32, input: network::Input) {
        let node = &mut self.leaves[leaf as usize];
        let (true, Some(core)) = (node.life == life, node.core.as_mut()) else { return };
        let mut out = Outbox::new();
        core.handle(&mut Context::new(self.now, &mut node.rng), input, &mut out);
        self.carry_out_leaf(leaf, &mut out);
    }

    fn leaf_due(&mut self, leaf: u32) {
        let node = &mut self.leaves[leaf as usize];
        let Some(core) = node.core.as_mut().filter(|_| node.due == self.now.as_micros()) else { return };
        node.due = u64::MAX;
        let mut out = Outbox::new();
        if core.next_deadline().is_some_and(|due| due <= self.now) {
            core.on_deadline(&mut Context::new(self.now, &mut node.rng), &mut out);
            if core.next_deadline().is_some_and(|due| due <= self.now) {
                self.defect("a leaf wants to be woken at the moment in which it was woken".to_owned());
            }
        }
        self.carry_out_leaf(leaf, &mut out);
    }

    fn carry_out_leaf(&mut self, leaf: u32, out: &mut Outbox<network::Output>) {
        for output in out.drain() {
            self.carry_out_for_leaf(leaf, output);
        }
        let node = &mut self.leaves[leaf as usize];
        let Some(due) = node.core.as_ref().and_then(|core| core.next_deadline()) else { return };
        let due = due.as_micros().max(self.now.as_micros() + 1);
        if due < node.due {
            node.due = due;
            self.plan(Time(due), Event::LeafDue(leaf));
        }
    }

    /// True if packets pass between two nodes.
    fn reachable(&self, one: u32, other: u32) -> bool {
        self.parted.is_none_or(|part| self.side(one, part) == self.side(other, part))
    }

    fn side(&self, node: u32, part: f64) -> bool {
        draw::unit(draw::mix(self.scenario.seed, 3, u64::from(self.place(node)))) < part
    }

    /// Plans an arrival, or holds it while nothing passes: QUIC sends again until the connection is given up.
    fn send(&mut self, from: u32, to: u32, at: Time, event: Event) {
        if self.reachable(from, to) {
            self.plan(at, event);
        } else {
            self.held.push((from, to, event));
        }
    }

    /// When a message arrives that must not overtake the one before it.
    fn arrival(&mut self, from: u32, to: u32, bytes: usize, last: u64) -> Time {
        let at = self.now + self.delay(from, to, bytes);
        at.max(Time(last))
    }

    /// The time that so many bytes take.
    fn delay(&mut self, from: u32, to: u32, bytes: usize) -> Duration {
        let (from, to) = (self.place(from), self.place(to));
        if from == to { WITHIN } else { self.links.delay(&mut self.rng, from, to, bytes) }
    }

    fn round_trip(&self, one: u32, other: u32) -> Duration {
        let (one, other) = (self.place(one), self.place(other));
        if one == other { 2 * WITHIN } else { self.links.round_trip(one, other) }
    }

    /// Where a node is in the network: an ultrapeer that is a leaf, too, where that is.
    fn place(&self, node: u32) -> u32 {
        self.ultrapeers.get(node as usize).map_or(node, |up| up.place)
    }
}

impl Event {
    fn kind(&self) -> u64 {
        match self {
            Self::UpDue(_) => 0,
            Self::LeafDue(_) => 1,
            Self::Up(..) => 2,
            Self::Leaf(..) => 3,
            Self::Mesh { message, .. } => 32 + u64::from(message.number()) * 2,
            Self::MeshHello { .. } => 4,
            Self::MeshWelcome { .. } => 5,
            Self::MeshLost { .. } => 6,
            Self::LeafHello { .. } => 7,
            Self::LeafWelcome { .. } => 8,
            Self::ToUp(_, message) | Self::ToLeaf(_, message) => 33 + u64::from(message.number()) * 2,
            Self::LostAtUp(_) => 9,
            Self::LostAtLeaf(_) => 10,
            Self::Suspected { .. } => 11,
            Self::Ask(..) => 12,
            Self::Answer(_, message) => 33 + u64::from(message.number()) * 2,
            Self::AnswerLost(_) => 13,
            Self::Withdrawn(_) => 14,
            Self::Plan(_) => 15,
            Self::IdleAtUp(_) => 16,
            Self::Pulse(_) => 17,
            Self::Knock(_) => 18,
        }
    }

    fn whom(&self) -> u64 {
        match self {
            Self::UpDue(node) | Self::LeafDue(node) | Self::Up(node, _) | Self::Leaf(node, ..) => u64::from(*node),
            Self::Mesh { from, to, .. } | Self::MeshHello { from, to, .. } | Self::MeshWelcome { from, to, .. } => {
                u64::from(*from) << 32 | u64::from(*to)
            }
            Self::MeshLost { at, peer, .. } => u64::from(*at) << 32 | u64::from(*peer),
            Self::LeafHello { leaf, up, .. } => u64::from(*leaf) << 32 | u64::from(*up),
            Self::Knock(knock) => knock.whom(),
            Self::LeafWelcome { session, .. }
            | Self::ToUp(session, _)
            | Self::ToLeaf(session, _)
            | Self::LostAtUp(session)
            | Self::LostAtLeaf(session)
            | Self::IdleAtUp(session)
            | Self::Pulse(session)
            | Self::Suspected { session, .. } => *session,
            Self::Ask(asking, _) | Self::Answer(asking, _) | Self::AnswerLost(asking) | Self::Withdrawn(asking) => {
                *asking
            }
            Self::Plan(plan) => plan.whom(),
        }
    }
}

/// Adds what a message costs the lines of two nodes, one of each kind.
fn count_lines(bytes: usize, leaf: &mut Line, up: &mut Line, to_up: bool) {
    if to_up { traffic::add(bytes, leaf, up) } else { traffic::add(bytes, up, leaf) }
}

/// A segment that is built only if nobody holds it.
fn shared_segment<K: std::hash::Hash + Eq>(
    held: &mut FxHashMap<K, Weak<Segment>>,
    name: K,
    build: impl FnOnce() -> Option<Segment>,
) -> Option<Arc<Segment>> {
    if let Some(segment) = held.get(&name).and_then(Weak::upgrade) {
        return Some(segment);
    }
    let segment = Arc::new(build()?);
    held.insert(name, Arc::downgrade(&segment));
    Some(segment)
}
