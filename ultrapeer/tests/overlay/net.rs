//! A network in memory: ultrapeers as machines, leaves by script, and messages that travel as bytes, in
//! order on each way, with delays from a seeded generator. The same seed gives the same run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use overlay::{
    bans::{Rules, Target as BanTarget},
    batch::{self, Assembler},
    election::{Finding, Missed},
    file::{FileEntry, Tags},
    id::{ContentId, HandleSalt, PeerId, QueryId},
    identity::Identity,
    introduction::Nature,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
    wire::{
        Message,
        bounded::{Blob, List, Text},
        descriptor::SignedDescriptor,
        election::{Hurdle, VerdictAnswer},
        frame,
        leaf::{
            CatalogPart, CatalogRoot, CatalogWant, ChunkRef, Introduce, Introduced, IntroductionReply, LeafMessage,
            Pong, RootStatement, Wish, WishHits, Wishes, catalog_root,
        },
        mesh::{Aged, AttachedList, AttachmentChange, Attachments, MeshMessage, News},
        possession::{GroupProof, Possession, PossessionAnswer},
        search::{Hit, Search, Summary, Target},
    },
};
use rand::RngExt;
use rand_pcg::Pcg32;
use ultrapeer::{
    audits,
    digests::{DigestSum, owed::Packed},
    index::Segment,
    leaves::{Closing, Session, Settings},
    search::Ticket,
    ultrapeer::{Input, Output, Phase, Retirement, Terms, Ultrapeer},
};

/// Files of a chunk in these catalogs: few, so that small lists have several chunks. Of long lists more, so that they
/// have no more chunks than they may.
const CHUNK_FILES: usize = 3;
/// Microseconds that a message travels.
const DELAY: std::ops::Range<u64> = 1_000..60_000;
/// 2026-01-01, in seconds since 1970 UTC.
const EPOCH_S: i64 = 1_767_225_600;

/// The network. Leaves are named by their number, ultrapeers by their key.
pub(crate) struct Net {
    now: Time,
    delays: Pcg32,
    nodes: BTreeMap<PeerId, Node>,
    leaves: Vec<Leaf>,
    links: BTreeSet<(PeerId, PeerId)>,
    sessions: BTreeMap<Session, (usize, PeerId)>,
    answers: BTreeMap<Ticket, Vec<LeafMessage>>,
    /// What is on its way, by arrival; equal arrivals in the order of their sending.
    travelling: BTreeMap<(Time, u64), Parcel>,
    /// The last arrival on each way.
    arrivals: BTreeMap<(Place, Place), Time>,
    numbers: u64,
    settings: Settings,
    network: &'static str,
    /// Who answers dial-backs, and how fast it sends, of those that are special.
    reach: BTreeMap<PeerId, (bool, u32)>,
    /// Ultrapeers whose digests leave out all that their leaves have.
    omitting: BTreeSet<PeerId>,
    /// Ultrapeers that may fail audits.
    liars: BTreeSet<PeerId>,
    /// Ultrapeers that say of everybody that it lies.
    accusing: BTreeSet<PeerId>,
    /// Who stepped down, and why.
    retired: BTreeMap<PeerId, Retirement>,
}

struct Node {
    machine: Ultrapeer,
    rng: Pcg32,
    address: SocketAddr,
}

struct Leaf {
    identity: Identity,
    address: SocketAddr,
    files: Vec<FileEntry>,
    chunks: Vec<(ChunkRef, Vec<u8>)>,
    sequence: u64,
    homes: BTreeMap<PeerId, Session>,
    acknowledged: BTreeSet<PeerId>,
    /// What its homes said of ultrapeers, and which of them said it.
    told: Vec<(PeerId, LeafMessage)>,
    /// What its homes said of its wishes.
    wished: Vec<WishHits>,
    /// Bytes of the frames between it and its homes.
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Node(PeerId),
    Leaf(usize),
    /// The stream of a search or an introduction.
    Asker(Ticket),
    /// A worker that builds chunks.
    Builder,
}

/// What arrives.
enum Parcel {
    Node(PeerId, Box<Input>),
    Leaf(Session, LeafMessage),
    Asker(Ticket, LeafMessage),
}

/// The end of a search as its asker sees it.
pub(crate) struct Found {
    /// The last word on each content.
    pub(crate) hits: BTreeMap<ContentId, Hit>,
    /// How the search ended.
    pub(crate) summary: Summary,
}

/// A file whose bytes are named by `content`.
pub(crate) fn file(path: &str, content: &str) -> FileEntry {
    FileEntry {
        path: path.into(),
        content: ContentId(*blake3::hash(content.as_bytes()).as_bytes()),
        size: 1_000,
        modified_s: EPOCH_S - 86_400,
        tags: Tags::default(),
    }
}

impl Net {
    /// A network of `ultrapeers` that have found each other.
    pub(crate) fn new(seed: u64, ultrapeers: u8) -> Self {
        Self::with_memory(seed, ultrapeers, limits::INDEX_MEMORY)
    }

    /// The same, with so many bytes for index and digests at each.
    pub(crate) fn with_memory(seed: u64, ultrapeers: u8, memory: u64) -> Self {
        let mut net = Self::empty(seed, memory);
        net.found(seed, 1..=ultrapeers);
        net.run(Duration::from_secs(5));
        net
    }

    /// Two networks of one name, of so many ultrapeers each, that have not met.
    pub(crate) fn apart(seed: u64, one: u8, other: u8) -> (Self, [Vec<PeerId>; 2]) {
        let mut net = Self::empty(seed, limits::INDEX_MEMORY);
        let networks = [net.found(seed, 1..=one), net.found(seed, one + 1..=one + other)];
        net.run(Duration::from_secs(10));
        (net, networks)
    }

    fn found(&mut self, seed: u64, numbers: std::ops::RangeInclusive<u8>) -> Vec<PeerId> {
        let peers: Vec<_> = numbers.map(|number| self.add_ultrapeer(seed, number)).collect();
        self.input(peers[0], Input::Found);
        for peer in &peers[1..] {
            self.link(*peer, peers[0]);
        }
        peers
    }

    fn empty(seed: u64, memory: u64) -> Self {
        Self {
            now: Time::ZERO,
            delays: Pcg32::new(seed, 1),
            nodes: BTreeMap::new(),
            leaves: Vec::new(),
            links: BTreeSet::new(),
            sessions: BTreeMap::new(),
            answers: BTreeMap::new(),
            travelling: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            numbers: 0,
            omitting: BTreeSet::new(),
            liars: BTreeSet::new(),
            accusing: BTreeSet::new(),
            retired: BTreeMap::new(),
            settings: Settings { query_burst: 1_000.0, memory, ..Settings::default() },
            network: "test",
            reach: BTreeMap::new(),
        }
    }

    fn add_ultrapeer(&mut self, seed: u64, number: u8) -> PeerId {
        self.add_ultrapeer_at(seed, number, SocketAddr::from(([10, 0, 0, number], 7780)))
    }

    /// An ultrapeer of the public network that nobody let in yet.
    pub(crate) fn add_public(&mut self, number: u8, address: [u8; 4]) -> PeerId {
        self.add_ultrapeer_at(1, number, SocketAddr::from((address, 7780)))
    }

    /// An ultrapeer refuses its vote from now on to everybody, because they lie.
    pub(crate) fn accuse(&mut self, accuser: PeerId) {
        self.accusing.insert(accuser);
    }

    /// Why an ultrapeer wants to serve no more.
    pub(crate) fn retired(&self, peer: &PeerId) -> Option<Retirement> {
        self.retired.get(peer).copied()
    }

    /// A leaf that serves while it is needed, let in by `by`: there must be too few ultrapeers.
    pub(crate) fn add_volunteer(&mut self, number: u8, by: PeerId) -> PeerId {
        let address = SocketAddr::from(([10, 0, 0, number], 7780));
        let terms = Terms { volunteer: true, ..Terms::operated(self.network, false) };
        let peer = self.add_with(1, number, address, terms);
        self.link(peer, by);
        // That too few serve is noticed after a while.
        for _ in 0..900 {
            if self.machine(&peer).phase() == Phase::Admitted {
                return peer;
            }
            self.run(Duration::from_secs(1));
        }
        panic!("not let in: {:?}", self.machine(&peer).hurdle());
    }

    /// The public network, begun by a node at that address.
    pub(crate) fn public(address: [u8; 4]) -> (Self, PeerId) {
        let mut net = Self { network: "public", ..Self::empty(1, limits::INDEX_MEMORY) };
        let founder = net.add_public(1, address);
        net.input(founder, Input::Found);
        (net, founder)
    }

    /// From now on whether that node answers who dials it, and how fast it sends.
    pub(crate) fn set_reach(&mut self, peer: PeerId, answers: bool, rate_kbit: u32) {
        self.reach.insert(peer, (answers, rate_kbit));
    }

    fn add_ultrapeer_at(&mut self, seed: u64, number: u8, address: SocketAddr) -> PeerId {
        self.add_with(seed, number, address, Terms::operated(self.network, false))
    }

    fn add_with(&mut self, seed: u64, number: u8, address: SocketAddr, terms: Terms) -> PeerId {
        let identity = Arc::new(Identity::from_seed([number; 32]));
        let peer = identity.peer_id();
        let mut rng = Pcg32::new(seed, 1 + u64::from(number));
        let mut cx = Context::new(self.now, &mut rng);
        let machine = Ultrapeer::new(identity, self.network, self.settings, terms, EPOCH_S, &mut cx);
        self.nodes.insert(peer, Node { machine, rng, address });
        self.input(peer, Input::Address(address));
        peer
    }

    /// The ultrapeers that live.
    pub(crate) fn ultrapeers(&self) -> Vec<PeerId> {
        self.nodes.keys().copied().collect()
    }

    /// The machine of an ultrapeer.
    pub(crate) fn machine(&self, peer: &PeerId) -> &Ultrapeer {
        &self.nodes[peer].machine
    }

    /// A leaf that shares `files`, attached to no one.
    pub(crate) fn add_leaf(&mut self, files: Vec<FileEntry>) -> usize {
        let number = self.leaves.len();
        self.leaves.push(Leaf {
            identity: Identity::from_seed([100 + number as u8; 32]),
            address: SocketAddr::from(([198, 51, 100, number as u8], 7780)),
            files: Vec::new(),
            chunks: Vec::new(),
            sequence: 0,
            homes: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            told: Vec::new(),
            wished: Vec::new(),
            bytes: 0,
        });
        self.leaves[number].list(files);
        number
    }

    /// The leaf side of the ultrapeer that came as that number: it dials itself on this machine, over loopback.
    pub(crate) fn add_leaf_side(&mut self, ultrapeer: u8, files: Vec<FileEntry>) -> usize {
        let leaf = self.add_leaf(files);
        self.leaves[leaf].identity = Identity::from_seed([ultrapeer; 32]);
        self.leaves[leaf].address = SocketAddr::from(([127, 0, 0, 1], 7780));
        leaf
    }

    /// A leaf shares these files instead of others, and tells its homes.
    pub(crate) fn share_instead(&mut self, leaf: usize, files: Vec<FileEntry>) {
        self.leaves[leaf].list(files);
        self.leaves[leaf].acknowledged.clear();
        self.announce(leaf);
    }

    /// An ultrapeer sends digests from now on that leave out all that its leaves have.
    pub(crate) fn omit(&mut self, liar: PeerId) {
        self.omitting.insert(liar);
        self.liars.insert(liar);
    }

    /// An ultrapeer tells all others that it has every leaf that it heard of, with the very lists.
    pub(crate) fn copy_lists(&mut self, liar: PeerId) {
        self.liars.insert(liar);
        let log = self.machine(&liar).attachments();
        let mut handles: Vec<_> = log.handles().collect();
        handles.sort_unstable();
        let change = |handle: &u64| {
            let list = &log.homes(*handle)[0].1;
            let chunks = List::new(list.chunks.iter().copied());
            let list = AttachedList { sequence: list.sequence, place: list.place, chunks };
            AttachmentChange { handle: *handle, list: Some(list) }
        };
        let changes = List::new(handles.iter().map(change));
        let frame = Attachments { reset: false, caught_up: None, changes };
        for peer in self.ultrapeers().into_iter().filter(|peer| *peer != liar) {
            let told = Input::MeshMessage(liar, frame.clone().into());
            self.send(Place::Node(liar), Place::Node(peer), Parcel::Node(peer, Box::new(told)));
        }
    }

    /// A leaf shares these files as well from now on, and says so to its homes.
    pub(crate) fn share(&mut self, leaf: usize, files: impl IntoIterator<Item = FileEntry>) {
        let all = self.leaves[leaf].files.iter().cloned().chain(files).collect();
        self.leaves[leaf].list(all);
        self.announce(leaf);
    }

    fn announce(&mut self, leaf: usize) {
        for (home, session) in self.leaves[leaf].homes.clone() {
            let root = self.leaves[leaf].root(home);
            self.say_to_home(session, root);
        }
    }

    /// A leaf has these wishes at a home from now on, numbered from 0 on.
    pub(crate) fn wish(&mut self, leaf: usize, home: PeerId, queries: &[&str]) {
        let wish = |(number, query): (u32, &&str)| Wish { number, query: Text::new(query) };
        self.say(leaf, home, Wishes { wishes: List::new((0..).zip(queries).map(wish)) });
    }

    /// What a leaf was told of its wishes since this was last asked: number and path, each once, and how often it was
    /// told of one again.
    pub(crate) fn wished(&mut self, leaf: usize) -> (BTreeSet<(u32, String)>, usize) {
        let told = std::mem::take(&mut self.leaves[leaf].wished);
        assert!(told.iter().flat_map(|told| &*told.hits).all(|hit| hit.holders.is_empty()), "handles are secret");
        let hits = told.iter().flat_map(|told| told.hits.iter().map(|hit| (told.number, hit.path.to_string())));
        let all: Vec<_> = hits.collect();
        let count = all.len();
        let once: BTreeSet<_> = all.into_iter().collect();
        let again = count - once.len();
        (once, again)
    }

    /// One more ultrapeer comes.
    pub(crate) fn join(&mut self, seed: u64, number: u8) -> PeerId {
        let known = self.ultrapeers()[0];
        let peer = self.add_ultrapeer(seed, number);
        self.link(peer, known);
        peer
    }

    /// The key of a leaf.
    pub(crate) fn peer_of(&self, leaf: usize) -> PeerId {
        self.leaves[leaf].identity.peer_id()
    }

    /// Where others see a leaf.
    pub(crate) fn address_of(&self, leaf: usize) -> SocketAddr {
        self.leaves[leaf].address
    }

    /// The homes of a leaf.
    pub(crate) fn homes_of(&self, leaf: usize) -> Vec<PeerId> {
        self.leaves[leaf].homes.keys().copied().collect()
    }

    /// The homes that have the whole list of a leaf.
    pub(crate) fn acknowledged(&self, leaf: usize) -> &BTreeSet<PeerId> {
        &self.leaves[leaf].acknowledged
    }

    /// What a leaf's homes said of ultrapeers since this was last asked.
    pub(crate) fn told(&mut self, leaf: usize) -> Vec<(PeerId, LeafMessage)> {
        std::mem::take(&mut self.leaves[leaf].told)
    }

    /// Bytes of all frames between a leaf and its homes so far.
    pub(crate) fn bytes_of(&self, leaf: usize) -> usize {
        self.leaves[leaf].bytes
    }

    /// A leaf says something to one of its homes.
    pub(crate) fn say(&mut self, leaf: usize, home: PeerId, message: impl Into<LeafMessage>) {
        let session = self.leaves[leaf].homes[&home];
        self.say_to_home(session, message);
    }

    /// An ultrapeer hears from another of some that are nowhere.
    pub(crate) fn hear(&mut self, peer: PeerId, from: PeerId, descriptors: &[SignedDescriptor]) {
        for part in descriptors.chunks(limits::MEMBERS_PER_FRAME) {
            let members = part.iter().map(|descriptor| Aged { descriptor: descriptor.clone(), age_s: 0 });
            let news = News { members: List::new(members), gone: List::default() };
            self.input(peer, Input::MeshMessage(from, news.into()));
        }
    }

    /// An ultrapeer is told to end.
    pub(crate) fn drain(&mut self, peer: PeerId) {
        self.input(peer, Input::Drain);
    }

    /// This and nothing else is banned at an ultrapeer from now on. Connections stay: those end outside of the machines.
    pub(crate) fn ban(&mut self, peer: PeerId, targets: impl IntoIterator<Item = BanTarget>) {
        self.input(peer, Input::Bans(Arc::new(Rules::new(targets))));
    }

    /// Attaches a leaf to an ultrapeer and announces its list there.
    pub(crate) fn attach(&mut self, leaf: usize, home: PeerId) {
        let session = self.number();
        self.sessions.insert(session, (leaf, home));
        let Leaf { identity, address, homes, .. } = &mut self.leaves[leaf];
        homes.insert(home, session);
        let (peer, address, salt) = (identity.peer_id(), *address, HandleSalt([leaf as u8; 16]));
        let root = self.leaves[leaf].root(home);
        self.send(
            Place::Leaf(leaf),
            Place::Node(home),
            Parcel::Node(home, Box::new(Input::LeafAttached { session, peer, salt, address })),
        );
        self.say_to_home(session, root);
    }

    /// Every ultrapeer takes so many leaves from now on.
    pub(crate) fn set_max_leaves(&mut self, max_leaves: u32) {
        self.settings.max_leaves = max_leaves;
        for peer in self.ultrapeers() {
            self.input(peer, Input::Settings(self.settings));
        }
    }

    /// Every ultrapeer has so many bytes for index and digests from now on.
    pub(crate) fn set_memory(&mut self, memory: u64) {
        self.settings.memory = memory;
        for peer in self.ultrapeers() {
            self.input(peer, Input::Settings(self.settings));
        }
    }

    /// A leaf leaves one of its homes in order.
    pub(crate) fn leave(&mut self, leaf: usize, home: PeerId) {
        self.leaves[leaf].acknowledged.remove(&home);
        if let Some(session) = self.leaves[leaf].homes.remove(&home) {
            self.sessions.remove(&session);
            self.input(home, Input::LeafGone(session));
        }
    }

    /// A leaf says good-bye to nobody and is gone.
    pub(crate) fn kill_leaf(&mut self, leaf: usize) {
        self.leaves[leaf].acknowledged.clear();
        for (home, session) in std::mem::take(&mut self.leaves[leaf].homes) {
            self.sessions.remove(&session);
            self.input(home, Input::LeafGone(session));
        }
    }

    /// An ultrapeer is gone without a word; those that were linked to it notice at once.
    pub(crate) fn kill_ultrapeer(&mut self, peer: PeerId) {
        self.nodes.remove(&peer);
        let (cut, kept) = self.links.iter().partition(|(one, other)| *one == peer || *other == peer);
        self.links = kept;
        let cut: BTreeSet<(PeerId, PeerId)> = cut;
        for (one, other) in cut {
            let survivor = if one == peer { other } else { one };
            self.input(survivor, Input::MeshDown { peer, in_order: false });
        }
        self.sessions.retain(|_, (_, home)| *home != peer);
        for leaf in &mut self.leaves {
            leaf.homes.remove(&peer);
            leaf.acknowledged.remove(&peer);
        }
    }

    /// A leaf searches through one of its homes for everything that matches, until the summary is there.
    pub(crate) fn search(&mut self, leaf: usize, home: PeerId, query: &str) -> Found {
        self.find(leaf, home, Target::Query(Text::new(query)))
    }

    /// A leaf searches, by words or by content, through one of its homes until the summary is there.
    pub(crate) fn find(&mut self, leaf: usize, home: PeerId, target: Target) -> Found {
        let id = QueryId(self.number());
        let search = Search { id, target, limit: 1_000, timeout_ms: 10_000, all: true };
        let answers = self.ask(leaf, home, |ticket, session| Input::Search(ticket, session, search));
        assert!(matches!(answers.first(), Some(LeafMessage::Accepted(_))), "the search is accepted first");
        let mut hits = BTreeMap::new();
        let mut summary = None;
        for answer in answers {
            match answer {
                LeafMessage::Hits(frame) => hits.extend(frame.hits.into_iter().map(|hit| (hit.content, hit))),
                LeafMessage::Summary(last) => assert!(summary.replace(last).is_none(), "one summary"),
                _ => {}
            }
        }
        Found { hits, summary: summary.expect("a search ends with a summary") }
    }

    /// A leaf asks one of its homes to be introduced to another leaf.
    pub(crate) fn introduce(&mut self, leaf: usize, home: PeerId, target: PeerId, homes: &[PeerId]) -> Introduced {
        let (homes, local) = (List::new(homes.iter().copied()), List::default());
        let ask = Introduce { target, homes, way: None, token: 1, nature: Nature::default(), local };
        let mut answers = self.ask(leaf, home, |ticket, session| Input::Introduce(ticket, session, ask));
        match answers.pop() {
            Some(LeafMessage::Introduced(introduced)) if answers.is_empty() => introduced,
            other => panic!("one answer to an introduction, not {other:?}"),
        }
    }

    /// Where the leaf is told that it is, if it is told.
    pub(crate) fn addresses(introduced: Introduced) -> Option<Vec<SocketAddr>> {
        match introduced {
            Introduced::At(found) => Some(found.addresses.into_vec()),
            Introduced::Failed(_) => None,
        }
    }

    fn ask(&mut self, leaf: usize, home: PeerId, input: impl FnOnce(Ticket, Session) -> Input) -> Vec<LeafMessage> {
        let ticket = self.number();
        let session = self.leaves[leaf].homes[&home];
        self.answers.insert(ticket, Vec::new());
        self.input(home, input(ticket, session));
        self.run(Duration::from_secs(15));
        self.answers.remove(&ticket).unwrap_or_default()
    }

    /// Lets `span` pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let due = self.nodes.iter().filter_map(|(peer, node)| Some((node.machine.next_deadline()?, *peer))).min();
            let arrival = self.travelling.keys().next().copied();
            let next = due.map(|(at, _)| at).into_iter().chain(arrival.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            match (arrival, due) {
                (Some(arrival), _) if arrival.0 == next => self.arrive(arrival),
                (_, Some((_, peer))) => self.on_deadline(peer),
                _ => {}
            }
        }
        self.now = end;
    }

    fn arrive(&mut self, arrival: (Time, u64)) {
        match self.travelling.remove(&arrival) {
            Some(Parcel::Node(peer, input)) => self.input(peer, *input),
            Some(Parcel::Leaf(session, message)) => self.leaf_hears(session, message),
            Some(Parcel::Asker(ticket, message)) => {
                if let Some(answers) = self.answers.get_mut(&ticket) {
                    answers.push(message);
                }
            }
            None => {}
        }
    }

    fn input(&mut self, peer: PeerId, input: Input) {
        let Some(node) = self.nodes.get_mut(&peer) else { return };
        let mut out = Outbox::new();
        node.machine.handle(&mut Context::new(self.now, &mut node.rng), input, &mut out);
        self.carry_out(peer, &mut out);
    }

    fn on_deadline(&mut self, peer: PeerId) {
        let Some(node) = self.nodes.get_mut(&peer) else { return };
        let mut out = Outbox::new();
        node.machine.on_deadline(&mut Context::new(self.now, &mut node.rng), &mut out);
        let next = node.machine.next_deadline();
        assert!(next.is_none_or(|next| next > self.now), "a busy loop at {}", self.now);
        self.carry_out(peer, &mut out);
    }

    fn carry_out(&mut self, at: PeerId, out: &mut Outbox<Output>) {
        let from = Place::Node(at);
        for output in out.drain() {
            match output {
                Output::ToLeaf(session, message) => {
                    let Some(&(leaf, _)) = self.sessions.get(&session) else { continue };
                    let (message, bytes) = travelled(&message);
                    self.leaves[leaf].bytes += bytes;
                    self.send(from, Place::Leaf(leaf), Parcel::Leaf(session, message));
                }
                Output::ToAsker(ticket, message, _) => {
                    let (message, _) = travelled(&message);
                    self.send(from, Place::Asker(ticket), Parcel::Asker(ticket, message));
                }
                Output::ToMesh(peer, message) if self.links.contains(&pair(at, peer)) => {
                    let (mut message, _) = travelled(&message);
                    if let MeshMessage::Verdict(verdict) = &mut message
                        && self.accusing.contains(&at)
                    {
                        verdict.answer = VerdictAnswer::Refused(Hurdle::Untrue, 60);
                    }
                    self.send(from, Place::Node(peer), Parcel::Node(peer, Box::new(Input::MeshMessage(at, message))));
                }
                Output::Dial(peer, address) => self.dial(at, peer, address),
                Output::DialBack { peer, address, .. } => {
                    let (answers, rate_kbit) = self.reach.get(&peer).copied().unwrap_or((true, 100_000));
                    let found = self.nodes.get(&peer).filter(|node| node.address == address && answers);
                    let found =
                        found.map(|_| Finding { rate_kbit: Some(rate_kbit), loss_ppm: None }).ok_or(Missed::Silent);
                    self.send(
                        Place::Node(peer),
                        from,
                        Parcel::Node(at, Box::new(Input::DialledBack(peer, address, found))),
                    );
                }
                Output::CloseMesh(peer) if self.links.remove(&pair(at, peer)) => {
                    let down = Input::MeshDown { peer: at, in_order: false };
                    self.send(from, Place::Node(peer), Parcel::Node(peer, Box::new(down)));
                }
                Output::Build { session, chunk, parts } => {
                    let segment = build(chunk, &parts).map(Arc::new);
                    self.send(
                        Place::Builder,
                        from,
                        Parcel::Node(at, Box::new(Input::Built(session, chunk.hash, segment))),
                    );
                }
                Output::Rebuild { session, hash, kept } => {
                    let segment = Some(Arc::new(kept.build()));
                    self.send(Place::Builder, from, Parcel::Node(at, Box::new(Input::Built(session, hash, segment))));
                }
                Output::BuildDigest { name, bytes, parts } => {
                    let parts = parts.iter().map(|part| &part[..]);
                    let digest = batch::join(parts, bytes as usize, usize::MAX).expect("a whole digest");
                    let segment = Segment::from_digest(&digest).expect("a digest");
                    let sum = DigestSum::of(&segment);
                    let unpacked = Some((Arc::new(segment), sum));
                    self.send(Place::Builder, from, Parcel::Node(at, Box::new(Input::DigestBuilt(name, unpacked))));
                }
                Output::PackDigest { name, kept } => {
                    let other = Segment::build(&[file("Share/nothing.txt", "nothing")]).expect("a good chunk");
                    let segment = if self.omitting.contains(&at) { other } else { kept.build() };
                    let packed = Packed::of(&segment.digest());
                    self.send(Place::Builder, from, Parcel::Node(at, Box::new(Input::DigestPacked(name, packed))));
                }
                Output::PackFiles { peer, name, kept } => {
                    let packed = Packed::of(&batch::encode_chunk(&kept.files()));
                    self.send(Place::Builder, from, Parcel::Node(at, Box::new(Input::FilesPacked(peer, name, packed))));
                }
                Output::CheckProof(case) => {
                    let checked = Input::ProofChecked(case.home, case.number, audits::check(&case));
                    self.send(Place::Builder, from, Parcel::Node(at, Box::new(checked)));
                }
                Output::CheckPossession(case) => {
                    // Contents are made of names: whoever says that it has one, has it.
                    let checked = Input::PossessionChecked(case.leaf, case.number, Ok(()));
                    self.send(Place::Builder, from, Parcel::Node(at, Box::new(checked)));
                }
                Output::Retire(why) => {
                    self.retired.insert(at, why);
                }
                Output::AuditFailed(failure) => {
                    assert!(self.liars.contains(&failure.home), "an honest home fails an audit: {failure:?}");
                }
                Output::CloseLeaf(_, Closing::Protocol(why)) => panic!("{at:?} accuses a leaf: {why}"),
                Output::RefuseAsker(ticket, why) => panic!("{at:?} refuses {ticket}: {why:?}"),
                _ => {}
            }
        }
    }

    fn dial(&mut self, from: PeerId, to: PeerId, address: SocketAddr) {
        if self.nodes.get(&to).is_some_and(|node| node.address == address) {
            self.link(from, to);
        } else {
            self.send(Place::Node(to), Place::Node(from), Parcel::Node(from, Box::new(Input::DialFailed(to))));
        }
    }

    /// Another link takes the place of the one between two ultrapeers; what was on its way over that is lost.
    pub(crate) fn relink(&mut self, one: PeerId, other: PeerId) {
        let both = pair(one, other);
        self.travelling.retain(|_, parcel| match parcel {
            Parcel::Node(at, input) => !matches!(&**input, Input::MeshMessage(from, _) if pair(*at, *from) == both),
            _ => true,
        });
        self.links.remove(&both);
        self.link(one, other);
    }

    /// Links two ultrapeers; each learns what the other says of itself.
    pub(crate) fn link(&mut self, one: PeerId, other: PeerId) {
        if !self.links.insert(pair(one, other)) {
            return;
        }
        for (at, peer) in [(one, other), (other, one)] {
            let node = &self.nodes[&peer];
            let (address, descriptor) = (node.address, node.machine.membership().own().cloned());
            self.send(
                Place::Node(peer),
                Place::Node(at),
                Parcel::Node(at, Box::new(Input::MeshUp { peer, address, descriptor })),
            );
        }
    }

    fn leaf_hears(&mut self, session: Session, message: LeafMessage) {
        let Some((leaf, home)) = self.sessions.get(&session).copied() else { return };
        match message {
            LeafMessage::CatalogWant(want) => {
                for part in self.leaves[leaf].parts(&want) {
                    self.say_to_home(session, part);
                }
            }
            LeafMessage::CatalogAck(_) => {
                self.leaves[leaf].acknowledged.insert(home);
            }
            LeafMessage::Introduction(introduction) => {
                self.say_to_home(session, IntroductionReply::new(introduction.session, true));
            }
            LeafMessage::PossessionAsk(ask) => {
                let (tops, pieces, groups) = (List::default(), List::default(), List::default());
                let proof = GroupProof { tops, pieces, groups, data: Blob::default() };
                self.say_to_home(session, Possession { ask, answer: PossessionAnswer::Proven(Box::new(proof)) });
            }
            LeafMessage::Ping(ping) => self.say_to_home(session, Pong { token: ping.token }),
            LeafMessage::WishHits(hits) => self.leaves[leaf].wished.push(hits),
            LeafMessage::Members(_) | LeafMessage::View(_) | LeafMessage::Goodbye(_) | LeafMessage::Volunteers(_) => {
                self.leaves[leaf].told.push((home, message));
            }
            _ => {}
        }
    }

    fn say_to_home(&mut self, session: Session, message: impl Into<LeafMessage>) {
        let Some((leaf, home)) = self.sessions.get(&session).copied() else { return };
        let (message, bytes) = travelled(&message.into());
        self.leaves[leaf].bytes += bytes;
        self.send(
            Place::Leaf(leaf),
            Place::Node(home),
            Parcel::Node(home, Box::new(Input::LeafMessage(session, message))),
        );
    }

    /// Sends a parcel, which arrives after those that were sent on the same way before.
    fn send(&mut self, from: Place, to: Place, parcel: Parcel) {
        let delay = Duration::from_micros(self.delays.random_range(DELAY));
        let earliest = self.arrivals.get(&(from, to)).copied().unwrap_or_default();
        let arrival = earliest.max(self.now + delay);
        self.arrivals.insert((from, to), arrival);
        let number = self.number();
        self.travelling.insert((arrival, number), parcel);
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

impl Leaf {
    /// Makes these files its list.
    fn list(&mut self, files: Vec<FileEntry>) {
        self.chunks = chunks(files.clone());
        (self.files, self.sequence) = (files, self.sequence + 1);
    }

    fn root(&self, home: PeerId) -> CatalogRoot {
        let chunks: Vec<_> = self.chunks.iter().map(|(chunk, _)| *chunk).collect();
        let statement = RootStatement {
            root: catalog_root(chunks.iter().map(|chunk| &chunk.hash)),
            files: chunks.iter().map(|chunk| u64::from(chunk.files)).sum(),
            sequence: self.sequence,
            lifetime_s: 86_400,
            home,
        };
        CatalogRoot::sign(&self.identity, &statement, chunks)
    }

    fn parts(&self, want: &CatalogWant) -> Vec<CatalogPart> {
        let parts_of = |index: &u32| {
            let (chunk, bytes) = (*index, &self.chunks[*index as usize].1);
            let batches: Vec<_> = batch::cut(bytes).map(|batch| batch.expect("compression in memory")).collect();
            let last = batches.len() - 1;
            batches.into_iter().enumerate().map(move |(number, batch)| CatalogPart {
                sequence: want.sequence,
                chunk,
                last: number == last,
                data: Blob::new(batch).expect("a batch within its cap"),
            })
        };
        want.chunks.iter().flat_map(parts_of).collect()
    }
}

/// A list, cut into chunks.
fn chunks(mut files: Vec<FileEntry>) -> Vec<(ChunkRef, Vec<u8>)> {
    files.sort_by(|one, other| one.path.cmp(&other.path));
    let chunk = |files: &[FileEntry]| {
        let bytes = batch::encode_chunk(files);
        let hash = batch::chunk_hash(&bytes);
        (ChunkRef { hash, bytes: bytes.len() as u32, files: files.len() as u16 }, bytes)
    };
    files.chunks(CHUNK_FILES.max(files.len() / 1000)).map(chunk).collect()
}

/// What a worker makes of a chunk's parts.
fn build<const N: usize>(chunk: ChunkRef, parts: &[Blob<N>]) -> Option<Segment> {
    let mut assembler = Assembler::new(chunk.hash, chunk.bytes as usize).ok()?;
    for part in parts {
        assembler.push(part).ok()?;
    }
    let files = batch::decode_chunk(&assembler.finish().ok()?).ok()?;
    Segment::build(&files).ok()
}

/// The message as it comes out at the other end of a wire, and the bytes that it took.
fn travelled<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> (M, usize) {
    let mut bytes = Vec::new();
    frame::encode(message, &mut bytes).expect("a message within its cap");
    let (again, used) = frame::decode::<M>(&bytes).expect("a readable frame").expect("a whole frame");
    assert_eq!(used, bytes.len());
    (again.expect("a known message"), used)
}

fn pair(one: PeerId, other: PeerId) -> (PeerId, PeerId) {
    (one.min(other), one.max(other))
}
