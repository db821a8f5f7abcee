//! The world as the driver of leaves: dials, lists to upload, searches, and homes that fall silent.

use std::{net::SocketAddr, rc::Rc};

use leaf::{
    catalog::{Catalog, Change},
    home_audits::Picked,
    network::{self, Network},
};
use overlay::{
    batch,
    id::{HandleSalt, PeerId},
    limits,
    time::Time,
    verify::GROUP_BYTES,
    wire::{
        bounded::{Blob, List as WireList},
        descriptor::SignedDescriptor,
        hello::{Contact, Goodbye, Situation},
        leaf::{
            Accepted, CatalogPart, CatalogRoot, CatalogWant, ChunkRef, DialBackAsk, IntroductionReply, LeafMessage,
            LeafState, MembersAsk, Ping, Pong, RootStatement, Volunteer, catalog_root,
        },
        possession::{GroupProof, Possession, PossessionAnswer},
        search::Summary,
    },
};
use rand::{RngExt, seq::SliceRandom};
use ultrapeer::ultrapeer::{Input, Verdict};

use super::{Asking, Event, FIRST_LEAF, Line, List, Plan, Session, World, count_lines, traffic};

/// Join targets that a leaf's names resolve to.
const TARGETS: usize = 4;
/// Descriptors that a simulated leaf keeps for its next session; the program keeps more.
const REMEMBERED: usize = 16;
/// Bytes of a packet that measures a round trip without a connection: QUIC answers none smaller.
const MEASURE_BYTES: usize = 1_200;
/// Piece values, and group values, of the proof that a leaf has a file: those of a file of 4 MB.
const PROOF_VALUES: usize = 16;
/// The sequence of a leaf's first list.
const FIRST_SEQUENCE: u64 = 1_000;

impl World {
    pub(super) fn carry_out_for_leaf(&mut self, leaf: u32, output: network::Output) {
        match output {
            network::Output::Dial { address, peer: expect, insists } => {
                let life = self.leaves[leaf as usize].life;
                let Some(up) = self.up_for_leaves(address) else {
                    return self.dial_leaf(leaf, address, expect, limits::DIAL_TIMEOUT);
                };
                let at = self.hello_arrives(FIRST_LEAF + leaf, up);
                self.plan(at, Event::LeafHello { leaf, life, up, expect, insists, contact: false });
            }
            network::Output::Measure(peer, address) => self.measure(leaf, peer, address),
            network::Output::AskMembers(peer, most) => self.say_to_home(leaf, &peer, MembersAsk { most }),
            network::Output::AskView(peer, ask) => self.say_to_home(leaf, &peer, ask),
            network::Output::AskDialBack(peer, port) => self.say_to_home(leaf, &peer, DialBackAsk { port }),
            // Nobody transfers anything here.
            network::Output::Nature(..) => {}
            network::Output::Release(peer, _) => self.release(leaf, &peer),
            network::Output::Restored(_) => {}
            network::Output::HomesChanged | network::Output::Count(_) => {}
            network::Output::Pick(home, random) => {
                let Some((_, session)) = self.home_of(leaf, &home) else { return };
                let (life, sequence) = (self.leaves[leaf as usize].life, self.sessions[session as usize].announced);
                let files = self.library.files(leaf);
                let place = random.checked_rem(files.len() as u64).map(|place| place as usize);
                let picked = place.and_then(|place| files.into_iter().nth(place));
                let picked = picked.map(|file| Picked { content: file.content, path: file.path, sequence });
                self.plan(self.now, Event::Leaf(leaf, life, Box::new(network::Input::Picked(home, picked))));
            }
            network::Output::Suspect(peer) => {
                if let Some((_, session)) = self.home_of(leaf, &peer) {
                    self.suspect(session);
                }
            }
            network::Output::Ask(ticket, peer, search) => {
                let Some((_, number)) = self.home_of(leaf, &peer) else {
                    let life = self.leaves[leaf as usize].life;
                    let lost = Box::new(network::Input::AnswerLost(ticket, peer));
                    return self.plan(self.now, Event::Leaf(leaf, life, lost));
                };
                self.ask(leaf, number, ticket, search.into());
            }
            network::Output::Drop(ticket, peer) => {
                let asks = &self.leaves[leaf as usize].asks;
                let is_it =
                    |(own, home, _): &(u64, u32, u64)| *own == ticket && self.ultrapeers[*home as usize].peer == peer;
                if let Some(at) = asks.iter().position(is_it) {
                    let (_, up, number) = self.leaves[leaf as usize].asks.swap_remove(at);
                    let node = FIRST_LEAF + leaf;
                    let at = self.now + self.delay(node, up, 0);
                    self.send(node, up, at, Event::Withdrawn(number));
                }
            }
            network::Output::Show(ticket, hit) => self.measures.hit(self.now, leaf, ticket, &hit),
            network::Output::End(ticket, end) => self.search_ended(leaf, ticket, &end),
            network::Output::TellWishes(peer, wishes) => self.say_to_home(leaf, &peer, wishes),
            // Users of simulated leaves wish for nothing.
            network::Output::SearchWish(..) | network::Output::ShowWish(..) => {}
            network::Output::Contact(contact) => self.dial_contact(leaf, contact),
            network::Output::Begin(begin) => {
                let life = self.leaves[leaf as usize].life;
                self.plan(self.now, Event::Plan(Plan::Begins(leaf, life, begin)));
            }
        }
    }

    /// A leaf measures how far away an ultrapeer is, without a connection.
    fn measure(&mut self, leaf: u32, peer: PeerId, address: SocketAddr) {
        let (node, life) = (FIRST_LEAF + leaf, self.leaves[leaf as usize].life);
        let up = self.up_at(address).filter(|up| self.reachable(node, *up));
        self.measures.elections.sent_to(address, limits::PING_TIMEOUT, "one to be measured");
        let distance = up.map(|up| self.round_trip(node, up));
        let (leaf_line, up) =
            (&mut self.leaves[leaf as usize].line, up.map(|up| &mut self.ultrapeers[up as usize].line));
        let mut nowhere = Line::default();
        traffic::add(MEASURE_BYTES, leaf_line, up.unwrap_or(&mut nowhere));
        let measured = Box::new(network::Input::Measured(peer, distance));
        self.plan(self.now + distance.unwrap_or(limits::PING_TIMEOUT), Event::Leaf(leaf, life, measured));
    }

    fn say_to_home(&mut self, leaf: u32, peer: &PeerId, message: impl Into<LeafMessage>) {
        if let Some((_, session)) = self.home_of(leaf, peer) {
            self.leaf_says(session, message);
        }
    }

    /// A leaf says good-bye to a home, which closes the connection in answer.
    fn release(&mut self, leaf: u32, peer: &PeerId) {
        let Some((up, session)) = self.home_of(leaf, peer) else { return };
        self.leaf_says(session, Goodbye { alternatives: WireList::default() });
        let answered = self.round_trip(FIRST_LEAF + leaf, up).min(limits::LEAVE_TIMEOUT);
        self.plan(self.now + answered, Event::LostAtLeaf(session));
    }

    /// The home of that key, and the session with it, as the leaf sees it.
    fn home_of(&self, leaf: u32, peer: &PeerId) -> Option<(u32, u64)> {
        let is_it = |(home, _): &&(u32, u64)| self.ultrapeers[*home as usize].peer == *peer;
        self.leaves[leaf as usize].homes.iter().find(is_it).copied()
    }

    /// The sessions that an ultrapeer has, by their numbers.
    pub(super) fn sessions_of(&self, up: u32) -> Vec<u64> {
        let mut all: Vec<u64> = self
            .leaves
            .iter()
            .flat_map(|leaf| leaf.homes.iter())
            .filter(|(home, _)| *home == up)
            .map(|(_, session)| *session)
            .collect();
        all.sort_unstable();
        all
    }

    /// A leaf comes online.
    pub(super) fn start_leaf(&mut self, leaf: u32) {
        if self.leaves[leaf as usize].core.is_some() {
            return;
        }
        let place = self.online.len() as u32;
        self.online.push(leaf);
        self.measures.elections.leaf_came(self.now);
        let targets = self.targets();
        let asks = self.scenario.asks();
        let node = &mut self.leaves[leaf as usize];
        (node.life, node.place, node.since) = (node.life + 1, place, self.now);
        (node.advertised, node.due, node.salt) = (None, u64::MAX, HandleSalt(self.rng.random()));
        node.core = Some(Box::new(Network::new(node.identity.peer_id(), asks.network(), asks.regime())));
        let (life, remembered) = (node.life, std::mem::take(&mut node.remembered));
        node.targets.clone_from(&targets);
        if self.scenario.election.is_some() {
            self.tell_conditions(leaf);
        }
        if !remembered.is_empty() {
            self.leaf_input(leaf, life, network::Input::Remembered(remembered));
        }
        self.leaf_input(leaf, life, network::Input::Targets(targets));
    }

    /// Addresses that a leaf is told to join: of ultrapeers, or where there are too few, of leaves.
    fn targets(&mut self) -> Vec<SocketAddr> {
        let mut alive: Vec<_> = self.ultrapeers.iter().filter(|up| up.alive).map(|up| up.address).collect();
        let (targets, _) = alive.partial_shuffle(&mut self.rng, TARGETS);
        let mut targets = targets.to_vec();
        if self.scenario.election.is_some() {
            for _ in targets.len()..TARGETS {
                let other = self.rng.random_range(0..self.leaves.len());
                targets.push(self.leaves[other].address);
            }
        }
        targets
    }

    /// A leaf goes: with a good-bye, or without a word.
    pub(super) fn stop_leaf(&mut self, leaf: u32, orderly: bool) {
        self.host_stops(leaf, orderly);
        let node = &mut self.leaves[leaf as usize];
        let Some(core) = node.core.take() else { return };
        node.remembered = core.homes().remember().into_iter().take(REMEMBERED).collect();
        node.volunteers = core.founding().volunteers().copied().collect();
        (node.since, node.list) = (self.now, None);
        let (homes, asks, place) = (std::mem::take(&mut node.homes), std::mem::take(&mut node.asks), node.place);
        self.online.swap_remove(place as usize);
        if let Some(moved) = self.online.get(place as usize) {
            self.leaves[*moved as usize].place = place;
        }
        self.measures.leaf_went(leaf);
        for (_, _, number) in asks {
            self.asking.remove(&number);
        }
        for (_, session) in homes {
            if orderly {
                self.leaf_says(session, Goodbye { alternatives: WireList::default() });
            }
            self.sessions[session as usize].at_leaf = false;
            if !orderly {
                self.expire_session(session);
            }
        }
    }

    pub(super) fn leaf_hello(
        &mut self,
        (leaf, life): (u32, u32),
        up: u32,
        expect: Option<PeerId>,
        insists: bool,
        contact: bool,
    ) {
        let node = &self.leaves[leaf as usize];
        if node.life != life || node.core.is_none() {
            return;
        }
        let (number, half) = (FIRST_LEAF + leaf, self.round_trip(FIRST_LEAF + leaf, up) / 2);
        let (peer, salt, address) = (node.identity.peer_id(), node.salt, node.address);
        let homeless = node.homes.is_empty();
        let other = &self.ultrapeers[up as usize];
        let failed = Box::new(network::Input::DialFailed(other.address));
        if !other.alive || !self.reachable(number, up) {
            let patience = limits::DIAL_TIMEOUT.saturating_sub(half * 3);
            return self.plan(self.now + patience, Event::Leaf(leaf, life, failed));
        }
        if expect.is_some_and(|peer| peer != other.peer) {
            return self.plan(self.now + half, Event::Leaf(leaf, life, failed));
        }
        let named = match other.machine.judge(&peer, insists, homeless) {
            Verdict::Stays => None,
            Verdict::Elsewhere(named) => Some(named),
            Verdict::Refused => Some(Vec::new()),
            Verdict::Full => Some(other.machine.others_for(&peer)),
        };
        if let Some(named) = named {
            let (peer, address) = (other.peer, other.address);
            if contact {
                let contact = Contact { peer, address };
                let answered = network::Input::Answered { contact, situation: Situation::Settled, named: Vec::new() };
                self.plan(self.now + half, Event::Leaf(leaf, life, Box::new(answered)));
            }
            let refused = network::Input::Refused(address, named);
            return self.plan(self.now + half, Event::Leaf(leaf, life, Box::new(refused)));
        }
        let descriptor = other.machine.membership().own().cloned().map(Box::new);
        let session = self.sessions.len() as u64;
        self.sessions.push(Session {
            leaf,
            life,
            up,
            at_up: true,
            at_leaf: false,
            last: [0; 2],
            opened: self.now,
            active: self.now,
            announced: 0,
            acknowledged: 0,
            acknowledged_at: (Time::ZERO, Time::ZERO),
            pongs: 0,
        });
        self.plan(self.now + half, Event::LeafWelcome { session, descriptor });
        self.up_input(up, Input::LeafAttached { session, peer, salt, address });
    }

    pub(super) fn leaf_welcome(&mut self, session: u64, descriptor: Option<SignedDescriptor>) {
        let Session { leaf, life, up, .. } = self.sessions[session as usize];
        let node = &mut self.leaves[leaf as usize];
        if node.life != life || node.core.is_none() {
            return self.expire_session(session);
        }
        let peer = self.ultrapeers[up as usize].peer;
        let is_it = |(home, _): &(u32, u64)| self.ultrapeers[*home as usize].peer == peer;
        if let Some(at) = node.homes.iter().position(is_it) {
            // A second connection to the same home takes the place of the first.
            let (_, old) = node.homes.swap_remove(at);
            self.sessions[old as usize].at_leaf = false;
        }
        self.leaves[leaf as usize].homes.push((up, session));
        self.sessions[session as usize].at_leaf = true;
        if !self.ultrapeers[up as usize].alive || !self.reachable(FIRST_LEAF + leaf, up) {
            self.expire_session(session);
        }
        let other = &self.ultrapeers[up as usize];
        let (peer, address) = (other.peer, other.address);
        let observed = self.leaves[leaf as usize].address;
        let rtt = self.round_trip(FIRST_LEAF + leaf, up);
        self.leaf_input(leaf, life, network::Input::Attached { peer, address, descriptor, rtt, observed });
        self.leaf_says(session, LeafState { free_slots: 5, ..LeafState::default() });
        if self.leaves[leaf as usize].core.as_ref().is_some_and(|core| core.candidacy().is_willing()) {
            self.leaf_says(session, Volunteer { willing: true });
        }
        self.announce(session);
    }

    /// Tells a home of the leaf's list, if it was not told of this one.
    pub(super) fn announce(&mut self, session: u64) {
        let Session { leaf, up, announced, .. } = self.sessions[session as usize];
        let list = self.list(leaf);
        if announced < list.statement.sequence {
            self.sessions[session as usize].announced = list.statement.sequence;
            let statement = RootStatement { home: self.ultrapeers[up as usize].peer, ..list.statement.clone() };
            let root = CatalogRoot::sign(&self.leaves[leaf as usize].identity, &statement, list.refs.clone());
            self.leaf_says(session, root);
        }
    }

    fn list(&mut self, leaf: u32) -> Rc<List> {
        if let Some(list) = &self.leaves[leaf as usize].list {
            return list.clone();
        }
        let node = &self.leaves[leaf as usize];
        let mut catalog = Catalog::new(FIRST_SEQUENCE + node.sequence);
        catalog.apply(self.library.files(leaf).into_iter().map(Change::Upsert).collect());
        let refs =
            catalog.chunks().map(|chunk| ChunkRef { hash: chunk.hash, bytes: chunk.bytes, files: chunk.files as u16 });
        let refs: Vec<_> = refs.collect();
        let statement = RootStatement {
            root: catalog_root(refs.iter().map(|chunk| &chunk.hash)),
            files: refs.iter().map(|chunk| u64::from(chunk.files)).sum(),
            sequence: catalog.sequence(),
            lifetime_s: limits::CATALOG_LIFETIME_S,
            // Another for each home, as it is announced there.
            home: node.identity.peer_id(),
        };
        let chunks = refs.iter().map(|chunk| catalog.chunk_bytes(&chunk.hash).unwrap_or_default().to_vec()).collect();
        let list = Rc::new(List { statement, refs, chunks });
        self.leaves[leaf as usize].list = Some(list.clone());
        list
    }

    fn upload(&mut self, session: u64, want: &CatalogWant) {
        let list = self.list(self.sessions[session as usize].leaf);
        if list.statement.sequence != want.sequence {
            return; // of an older list: the home has been told of the newer one
        }
        for index in &*want.chunks {
            let Some(bytes) = list.chunks.get(*index as usize) else { continue };
            let mut parts = batch::cut(bytes).peekable();
            while let Some(part) = parts.next() {
                let data = part.ok().and_then(Blob::new).expect("a batch is compressed within its cap");
                let last = parts.peek().is_none();
                self.leaf_says(session, CatalogPart { sequence: want.sequence, chunk: *index, last, data });
            }
        }
    }

    /// Counts a message of a session; returns its bytes.
    pub(super) fn count(&mut self, session: u64, message: &LeafMessage, to_up: bool) -> usize {
        let Session { leaf, up, .. } = self.sessions[session as usize];
        let bytes = self.traffic.leaf(message);
        count_lines(bytes, &mut self.leaves[leaf as usize].line, &mut self.ultrapeers[up as usize].line, to_up);
        self.touch(session);
        bytes
    }

    pub(super) fn touch(&mut self, session: u64) {
        self.sessions[session as usize].active = self.now;
    }

    pub(super) fn leaf_says(&mut self, session: u64, message: impl Into<LeafMessage>) {
        let message = message.into();
        let Session { leaf, up, at_leaf, last, .. } = self.sessions[session as usize];
        if !at_leaf {
            return;
        }
        let bytes = self.count(session, &message, true);
        let at = self.arrival(FIRST_LEAF + leaf, up, bytes, last[0]);
        self.sessions[session as usize].last[0] = at.as_micros();
        self.send(FIRST_LEAF + leaf, up, at, Event::ToUp(session, Box::new(message)));
    }

    pub(super) fn up_hears(&mut self, session: u64, message: LeafMessage) {
        let Session { up, at_up, .. } = self.sessions[session as usize];
        if !at_up {
            return;
        }
        let last = matches!(message, LeafMessage::Goodbye(_));
        self.up_input(up, Input::LeafMessage(session, message));
        if last {
            self.lost_at_up(session);
        }
    }

    pub(super) fn up_says(&mut self, session: u64, message: LeafMessage) {
        let Session { leaf, up, at_up, last, .. } = self.sessions[session as usize];
        if !at_up {
            return;
        }
        let bytes = self.count(session, &message, false);
        let at = self.arrival(up, FIRST_LEAF + leaf, bytes, last[1]);
        self.sessions[session as usize].last[1] = at.as_micros();
        self.send(up, FIRST_LEAF + leaf, at, Event::ToLeaf(session, Box::new(message)));
    }

    pub(super) fn leaf_hears(&mut self, session: u64, message: LeafMessage) {
        let Session { leaf, life, up, at_leaf, .. } = self.sessions[session as usize];
        if !at_leaf {
            return;
        }
        let peer = self.ultrapeers[up as usize].peer;
        match message {
            LeafMessage::Members(members) => self.leaf_input(leaf, life, network::Input::Members(peer, members)),
            LeafMessage::Allowance(allowance) => {
                self.leaf_input(leaf, life, network::Input::Allowance(peer, allowance));
            }
            LeafMessage::CatalogWant(want) => self.upload(session, &want),
            LeafMessage::CatalogAck(ack) => self.acknowledged(session, ack.sequence),
            LeafMessage::Introduction(introduction) => {
                self.leaf_says(session, IntroductionReply::new(introduction.session, true));
            }
            LeafMessage::Ping(ping) => self.leaf_says(session, Pong { token: ping.token }),
            LeafMessage::Pong(_) => {
                self.sessions[session as usize].pongs += 1;
                self.leaf_input(leaf, life, network::Input::Alive(peer));
            }
            LeafMessage::Goodbye(goodbye) => {
                let named = goodbye.alternatives.into_vec();
                self.leaf_input(leaf, life, network::Input::Draining(peer, named));
            }
            LeafMessage::PossessionAsk(ask) => {
                // As long as that of a file of some MB.
                let data = Blob::new(vec![0; GROUP_BYTES as usize]).expect("as long as a group may be");
                let values = || (0..PROOF_VALUES).map(|_| [0; 32]);
                let proof = GroupProof {
                    tops: WireList::new([[0; 32]]),
                    pieces: WireList::new(values()),
                    groups: WireList::new(values()),
                    data,
                };
                self.leaf_says(session, Possession { ask, answer: PossessionAnswer::Proven(Box::new(proof)) });
            }
            LeafMessage::DialledBack(told) => {
                self.leaf_input(leaf, life, network::Input::DialledBack(peer, told.reached));
            }
            LeafMessage::View(view) => self.leaf_input(leaf, life, network::Input::View(peer, view)),
            LeafMessage::Appraisal(told) => self.leaf_input(leaf, life, network::Input::Appraised(peer, told)),
            LeafMessage::Volunteers(told) => {
                self.leaf_input(leaf, life, network::Input::Volunteers(told.leaves.into_vec()));
            }
            other => self.defect(format!("an ultrapeer sends a leaf what it does not expect: {other:?}")),
        }
    }

    fn acknowledged(&mut self, session: u64, sequence: u64) {
        let now = self.now;
        let known = &mut self.sessions[session as usize];
        let is_first = known.acknowledged == 0;
        if is_first {
            known.acknowledged_at = (now, now);
        } else if known.acknowledged < sequence {
            known.acknowledged_at.1 = now;
        }
        known.acknowledged = known.acknowledged.max(sequence);
        let Session { leaf, life, up, .. } = *known;
        self.leaves[leaf as usize].advertised.get_or_insert(now);
        let home = self.ultrapeers[up as usize].peer;
        self.leaf_input(leaf, life, network::Input::Acknowledged { home, sequence, whole: true });
        // Once all homes have it, the list is made again when it is needed; that saves most of the memory.
        let node = &self.leaves[leaf as usize];
        let current = |(_, session): &(u32, u64)| self.sessions[*session as usize].acknowledged >= sequence;
        if node.homes.len() >= limits::HOMES.min(self.ultrapeers.len()) && node.homes.iter().all(current) {
            self.leaves[leaf as usize].list = None;
        }
    }

    /// The leaf asks a home to show that it lives.
    pub(super) fn suspect(&mut self, session: u64) {
        let pongs = self.sessions[session as usize].pongs;
        self.leaf_says(session, Ping { token: session });
        self.plan(self.now + limits::LEAF_PATIENCE, Event::Suspected { session, pongs });
    }

    pub(super) fn suspicion_ends(&mut self, session: u64, pongs: u32) {
        let Session { at_leaf, pongs: now, .. } = self.sessions[session as usize];
        if at_leaf && now == pongs {
            self.close_at_leaf(session);
        }
    }

    /// The leaf closes a connection; the home hears of it.
    fn close_at_leaf(&mut self, session: u64) {
        let Session { leaf, up, .. } = self.sessions[session as usize];
        let at = self.arrival(FIRST_LEAF + leaf, up, 0, self.sessions[session as usize].last[0]);
        self.send(FIRST_LEAF + leaf, up, at, Event::LostAtUp(session));
        self.lost_at_leaf(session);
    }

    /// The home closes a connection; the leaf hears of it.
    pub(super) fn close_at_up(&mut self, session: u64) {
        let Session { leaf, up, .. } = self.sessions[session as usize];
        let at = self.arrival(up, FIRST_LEAF + leaf, 0, self.sessions[session as usize].last[1]);
        self.send(up, FIRST_LEAF + leaf, at, Event::LostAtLeaf(session));
        self.lost_at_up(session);
    }

    pub(super) fn lost_at_up(&mut self, session: u64) {
        let Session { up, at_up, .. } = self.sessions[session as usize];
        if !at_up {
            return;
        }
        self.sessions[session as usize].at_up = false;
        self.up_input(up, Input::LeafGone(session));
    }

    pub(super) fn lost_at_leaf(&mut self, session: u64) {
        let Session { leaf, life, up, at_leaf, .. } = self.sessions[session as usize];
        let node = &mut self.leaves[leaf as usize];
        if !at_leaf || node.life != life {
            return;
        }
        self.sessions[session as usize].at_leaf = false;
        node.homes.retain(|(_, number)| *number != session);
        let (lost, kept): (Vec<_>, Vec<_>) = node.asks.iter().partition(|(_, home, _)| *home == up);
        node.asks = kept;
        let peer = self.ultrapeers[up as usize].peer;
        for (ticket, _, number) in lost {
            self.asking.remove(&number);
            self.leaf_input(leaf, life, network::Input::AnswerLost(ticket, peer));
        }
        self.leaf_input(leaf, life, network::Input::Lost(peer));
    }

    /// The home heard nothing for so long that it gives the connection up, unless packets pass again.
    pub(super) fn idle_at_up(&mut self, session: u64) {
        let Session { leaf, life, up, at_leaf, .. } = self.sessions[session as usize];
        let node = &self.leaves[leaf as usize];
        let lives = at_leaf && node.life == life && node.core.is_some();
        if !lives || !self.reachable(FIRST_LEAF + leaf, up) {
            self.lost_at_up(session);
        }
    }

    /// A keep-alive stayed unanswered: the leaf suspects its home, unless packets pass again.
    pub(super) fn pulse(&mut self, session: u64) {
        let Session { leaf, up, at_up, .. } = self.sessions[session as usize];
        let lives = at_up && self.ultrapeers[up as usize].alive;
        if !lives || !self.reachable(FIRST_LEAF + leaf, up) {
            self.suspect(session);
        }
    }

    /// One end of a connection is gone or cannot be heard: the other notices when its timers say so. Keep-alives
    /// passed until now.
    pub(super) fn expire_session(&mut self, session: u64) {
        let Session { active, opened, leaf, life, .. } = self.sessions[session as usize];
        let quiet = self.now.since(active).as_micros() as u64 % limits::KEEP_ALIVE.as_micros() as u64;
        let heard = Time(self.now.as_micros() - quiet);
        self.plan(heard + limits::IDLE_TIMEOUT, Event::IdleAtUp(session));
        // The leaf's next keep-alive stays unanswered; the look after it notices, and its ping is not answered either.
        let sent = heard + limits::KEEP_ALIVE;
        let looks = sent.since(opened).as_micros() / limits::PULSE_INTERVAL.as_micros() + 1;
        let look = opened + limits::PULSE_INTERVAL * u32::try_from(looks).unwrap_or(u32::MAX);
        let node = &self.leaves[leaf as usize];
        if node.life == life && node.core.is_some() {
            self.plan(look, Event::Pulse(session));
        }
    }

    /// A leaf sends a search to a home.
    fn ask(&mut self, leaf: u32, session: u64, ticket: u64, search: LeafMessage) {
        let up = self.sessions[session as usize].up;
        let number = self.number();
        let bytes = self.count(session, &search, true);
        let at = self.arrival(FIRST_LEAF + leaf, up, bytes, 0);
        self.asking.insert(number, Asking { session, ticket, last: 0 });
        self.leaves[leaf as usize].asks.push((ticket, up, number));
        self.send(FIRST_LEAF + leaf, up, at, Event::Ask(number, Box::new(search)));
    }

    pub(super) fn ask_arrives(&mut self, number: u64, search: LeafMessage) {
        let Some(Asking { session, .. }) = self.asking.get(&number).copied() else { return };
        let Session { up, at_up, .. } = self.sessions[session as usize];
        if at_up && self.ultrapeers[up as usize].lies {
            let total = self.ultrapeers[up as usize].machine.membership().total();
            self.answer(number, Accepted { ultrapeers: total }.into(), false);
            let summary = Summary { ultrapeers_asked: total, ultrapeers_total: total, ..Summary::default() };
            return self.answer(number, summary.into(), true);
        }
        if let (true, LeafMessage::Search(search)) = (at_up, search) {
            self.up_input(up, Input::Search(number, session, search));
        }
    }

    pub(super) fn answer_arrives(&mut self, number: u64, message: LeafMessage) {
        let Some(Asking { session, ticket, .. }) = self.asking.get(&number).copied() else { return };
        let Session { leaf, life, up, .. } = self.sessions[session as usize];
        if matches!(message, LeafMessage::Summary(_)) {
            self.forget_ask(number);
        }
        let peer = self.ultrapeers[up as usize].peer;
        self.leaf_input(leaf, life, network::Input::Answer(ticket, peer, message));
    }

    pub(super) fn answer_lost(&mut self, number: u64) {
        let Some(Asking { session, ticket, .. }) = self.forget_ask(number) else { return };
        let Session { leaf, life, up, .. } = self.sessions[session as usize];
        let peer = self.ultrapeers[up as usize].peer;
        self.leaf_input(leaf, life, network::Input::AnswerLost(ticket, peer));
    }

    fn forget_ask(&mut self, number: u64) -> Option<Asking> {
        let asking = self.asking.remove(&number)?;
        let leaf = self.sessions[asking.session as usize].leaf;
        self.leaves[leaf as usize].asks.retain(|(_, _, known)| *known != number);
        Some(asking)
    }

    /// The home hears that nobody waits for a search any more.
    pub(super) fn withdrawn(&mut self, number: u64) {
        let Some(asking) = self.asking.remove(&number) else { return };
        let Session { up, at_up, .. } = self.sessions[asking.session as usize];
        if at_up {
            self.up_input(up, Input::Cancel(number));
        }
    }

    /// A user of that leaf searches.
    pub(super) fn user_asks(&mut self, leaf: u32, ticket: u64, request: leaf::search::Request) {
        let node = &mut self.leaves[leaf as usize];
        node.active = true;
        let life = node.life;
        self.leaf_input(leaf, life, network::Input::Search(ticket, request));
    }

    /// A leaf has another list now; returns its sequence.
    pub(super) fn list_changed(&mut self, leaf: u32) -> u64 {
        let node = &mut self.leaves[leaf as usize];
        (node.sequence, node.list, node.active) = (node.sequence + 1, None, true);
        let sequence = self.list(leaf).statement.sequence;
        for (_, session) in self.leaves[leaf as usize].homes.clone() {
            self.announce(session);
        }
        sequence
    }
}
