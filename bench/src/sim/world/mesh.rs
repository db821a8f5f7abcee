//! The world as the driver of ultrapeers: dials and links among them, chunks to build, answers to askers.

use std::time::Duration;

use overlay::{
    batch::{self, Assembler},
    id::PeerId,
    limits,
    time::Time,
    wire::{
        bounded::Blob,
        leaf::{ChunkRef, LeafMessage},
        mesh::{Class, MeshMessage, QueryDone},
    },
};
use rand::RngExt;
use ultrapeer::{
    audits::{self, Failure},
    digests::{DigestSum, owed::Packed},
    index::Segment,
    leaves::Closing,
    ultrapeer::{Input, Output, Phase},
};

use super::{BUILD_BASE, BUILD_FILE, CLASSES, Event, FIRST_LEAF, Link, Plan, World, shared_segment, traffic};

/// Compressed digests that are kept, because several homes make the same one.
const PACKED_DIGESTS: usize = 1 << 14;

impl World {
    pub(super) fn carry_out(&mut self, up: u32, output: Output) {
        match output {
            Output::ToLeaf(session, message) => self.up_says(session, message),
            Output::CloseLeaf(session, why) => {
                if let Closing::Protocol(why) = why {
                    self.defect(format!("an ultrapeer accuses a leaf: {why}"));
                }
                self.close_at_up(session);
            }
            Output::ToAsker(asking, message, last) => self.answer(asking, message, last),
            Output::RefuseAsker(asking, _) => self.refuse(asking),
            Output::ToMesh(peer, message) => self.mesh_says(up, &peer, message),
            Output::CloseMesh(peer) => self.close_mesh(up, &peer),
            Output::Dial(peer, address) => {
                self.dial_address(up, address, Some(peer), false);
            }
            Output::Retire(_) => self.retire(up),
            Output::DialBack { peer, address, measured } => self.dial_back(up, peer, address, measured),
            Output::Admitted => self.admitted(up),
            Output::Build { session, chunk, parts } => {
                let built = shared_segment(&mut self.segments, chunk.hash, || build(chunk, &parts));
                let after = BUILD_BASE + BUILD_FILE * u32::from(chunk.files);
                self.plan(self.now + after, Event::Up(up, Box::new(Input::Built(session, chunk.hash, built))));
            }
            Output::Rebuild { session, hash, kept } => {
                let built = shared_segment(&mut self.segments, hash, || Some(kept.build()));
                let after = BUILD_BASE + BUILD_FILE * built.as_ref().map_or(0, |segment| segment.files()) as u32;
                self.plan(self.now + after, Event::Up(up, Box::new(Input::Built(session, hash, built))));
            }
            Output::BuildDigest { name, bytes, parts } => {
                let built = shared_segment(&mut self.digests, name, || unpack(bytes, &parts));
                let after = BUILD_BASE + BUILD_FILE * built.as_ref().map_or(0, |segment| segment.files()) as u32;
                let unpacked = built.map(|segment| {
                    let sum = DigestSum::of(&segment);
                    (segment, sum)
                });
                self.plan(self.now + after, Event::Up(up, Box::new(Input::DigestBuilt(name, unpacked))));
            }
            Output::PackDigest { name, kept } => {
                if self.packed.len() >= PACKED_DIGESTS {
                    self.packed.clear();
                }
                let packed = self.packed.entry(name).or_insert_with(|| Packed::of(&kept.build().digest())).clone();
                self.plan(self.now + BUILD_BASE, Event::Up(up, Box::new(Input::DigestPacked(name, packed))));
            }
            Output::PackFiles { peer, name, kept } => {
                let packed = Packed::of(&batch::encode_chunk(&kept.files()));
                self.plan(self.now + BUILD_BASE, Event::Up(up, Box::new(Input::FilesPacked(peer, name, packed))));
            }
            Output::CheckProof(case) => {
                let checked = Input::ProofChecked(case.home, case.number, audits::check(&case));
                self.plan(self.now + BUILD_BASE, Event::Up(up, Box::new(checked)));
            }
            Output::CheckPossession(case) => {
                // Contents are made of names: whoever says that it has one, has it.
                let checked = Input::PossessionChecked(case.leaf, case.number, Ok(()));
                self.plan(self.now + BUILD_BASE, Event::Up(up, Box::new(checked)));
            }
            Output::PossessionFailed(_, fault) => {
                self.defect(format!("an ultrapeer does not believe a leaf: {}", fault.text()));
            }
            Output::LeafDropped(_) => self.defect("an ultrapeer drops a leaf".to_owned()),
            // All are honest here.
            Output::AuditFailed(Failure { fault, .. }) => self.defect(format!("an ultrapeer fails an audit: {fault}")),
            Output::Drained => self.stop_up(up, true),
            // Nobody is relayed here.
            Output::RelayJoin(..) | Output::RelayRefuse(..) => {}
            Output::Distrusted(_)
            | Output::SearchEnded(_)
            | Output::QueryAnswered { .. }
            | Output::Introduction(..)
            | Output::Limited(_) => {}
        }
    }

    fn mesh_says(&mut self, from: u32, peer: &PeerId, message: MeshMessage) {
        let Some(to) = self.by_peer.get(peer).copied() else { return };
        let Link { number, last, .. } = self.link(from, to);
        if number == 0 {
            return;
        }
        let bytes = self.traffic.mesh(&message);
        if let Ok([sender, receiver]) = self.ultrapeers.get_disjoint_mut([from as usize, to as usize]) {
            traffic::add(bytes, &mut sender.line, &mut receiver.line);
        }
        let class = match message.class() {
            Class::Control => 0,
            Class::Hits => 1,
            Class::Queries => 2,
            Class::Digests => 3,
        };
        let at = self.arrival(from, to, bytes, last[class]);
        self.ultrapeers[from as usize].links[to as usize].last[class] = at.as_micros();
        let message = Box::new(message);
        self.send(from, to, at, Event::Mesh { from, to, link: number, message });
    }

    pub(super) fn mesh_arrives(&mut self, from: u32, to: u32, link: u64, message: MeshMessage) {
        if self.link(to, from).number == link {
            let peer = self.ultrapeers[from as usize].peer;
            if let (true, MeshMessage::Query(query)) = (self.ultrapeers[to as usize].lies, &message) {
                return self.mesh_says(to, &peer, QueryDone { id: query.id, ..QueryDone::default() }.into());
            }
            self.up_input(to, Input::MeshMessage(peer, message));
        }
    }

    pub(super) fn link(&self, at: u32, peer: u32) -> Link {
        self.ultrapeers[at as usize].links.get(peer as usize).copied().unwrap_or_default()
    }

    /// `at` has a link to `peer`: one to an earlier life of that node counts no more.
    fn forget_earlier(&mut self, at: u32, peer: u32) {
        let mut earlier = self.ultrapeers[peer as usize].earlier;
        while let Some(number) = earlier {
            if self.link(at, number).number != 0 {
                self.set_link(at, number, Link::default());
            }
            earlier = self.ultrapeers[number as usize].earlier;
        }
    }

    fn set_link(&mut self, at: u32, peer: u32, link: Link) {
        let links = &mut self.ultrapeers[at as usize].links;
        if links.len() <= peer as usize {
            links.resize(peer as usize + 1, Link::default());
        }
        links[peer as usize] = link;
    }

    /// Dials from one ultrapeer to another. `joining` asks to be let in; whoever is there will do then.
    pub(super) fn dial_mesh(&mut self, from: u32, to: Option<u32>, expect: Option<PeerId>, joining: bool) {
        let Some(to) = to.filter(|to| *to != from) else {
            if let Some(peer) = expect {
                self.dial_failed(from, peer, self.now + limits::DIAL_TIMEOUT);
            }
            return;
        };
        if self.link(from, to).number != 0 {
            return;
        }
        let at = self.hello_arrives(from, to);
        self.plan(at, Event::MeshHello { from, to, expect, joining });
    }

    /// When the hello of one who dials is there: the first flight, the answer, and the hello with the last of the handshake.
    pub(super) fn hello_arrives(&mut self, from: u32, to: u32) -> Time {
        self.now + self.round_trip(from, to) + self.delay(from, to, 1_200)
    }

    pub(super) fn dial_failed(&mut self, from: u32, peer: PeerId, at: Time) {
        self.plan(at, Event::Up(from, Box::new(Input::DialFailed(peer))));
    }

    pub(super) fn mesh_hello(&mut self, from: u32, to: u32, expect: Option<PeerId>, joining: bool) {
        if !self.ultrapeers[from as usize].alive {
            return;
        }
        let half = self.round_trip(from, to) / 2;
        if !self.ultrapeers[to as usize].alive || !self.reachable(from, to) {
            let patience = limits::DIAL_TIMEOUT.saturating_sub(half * 3);
            if let Some(peer) = expect {
                self.dial_failed(from, peer, self.now + patience);
            }
            return;
        }
        let other = &self.ultrapeers[to as usize];
        let serves = matches!(other.machine.phase(), Phase::Admitted | Phase::Founder);
        if !serves || expect.is_some_and(|peer| peer != other.peer) {
            let named = other.machine.others_for(&self.ultrapeers[from as usize].peer);
            self.plan(self.now + half, Event::Up(from, Box::new(Input::Named(named))));
            if let Some(peer) = expect {
                self.dial_failed(from, peer, self.now + half);
            }
            return;
        }
        let by_lower = self.ultrapeers[from as usize].peer < self.ultrapeers[to as usize].peer;
        let old = self.link(to, from);
        // Who dials although it has had a link for long has lost it.
        let old_counts = old.number != 0 && self.now.since(old.since) < limits::HANDSHAKE_TIMEOUT;
        if old_counts && old.by_lower && !by_lower && !joining {
            return; // both dialled: the link that the lower key dialled stays
        }
        let number = self.number();
        self.forget_earlier(to, from);
        self.set_link(to, from, Link { number, by_lower, since: self.now, last: [0; CLASSES] });
        let peer = self.ultrapeers[from as usize].peer;
        self.plan(self.now + half, Event::MeshWelcome { from: to, to: from, link: number, by_lower });
        let address = self.ultrapeers[from as usize].address;
        self.up_input(to, Input::MeshUp { peer, address, descriptor: None });
    }

    /// The welcome of `from` arrives at `to`, which dialled.
    pub(super) fn mesh_welcome(&mut self, from: u32, to: u32, link: u64, by_lower: bool) {
        if !self.ultrapeers[to as usize].alive {
            self.plan(self.now + limits::IDLE_TIMEOUT, Event::MeshLost { at: from, peer: to, link, in_order: false });
            return;
        }
        if self.link(from, to).number != link {
            return; // replaced meanwhile
        }
        self.set_link(to, from, Link { number: link, by_lower, since: self.now, last: [0; CLASSES] });
        if !self.ultrapeers[from as usize].alive || !self.reachable(from, to) {
            let lost = Event::MeshLost { at: to, peer: from, link, in_order: false };
            self.plan(self.now + limits::IDLE_TIMEOUT, lost);
        }
        let other = &self.ultrapeers[from as usize];
        let (peer, address, descriptor) = (other.peer, other.address, other.machine.membership().own().cloned());
        self.up_input(to, Input::MeshUp { peer, address, descriptor });
    }

    pub(super) fn mesh_lost(&mut self, at: u32, peer: u32, link: u64, in_order: bool) {
        let is_current = self.link(at, peer).number == link;
        let other_lives = self.ultrapeers[peer as usize].alive && self.link(peer, at).number == link;
        // A link that was only cut lives on once packets pass again.
        if !is_current || (other_lives && self.reachable(at, peer)) {
            return;
        }
        self.set_link(at, peer, Link::default());
        let peer = self.ultrapeers[peer as usize].peer;
        self.up_input(at, Input::MeshDown { peer, in_order });
    }

    /// An ultrapeer closes a link and forgets it; the other side hears of that.
    fn close_mesh(&mut self, up: u32, peer: &PeerId) {
        let Some(peer) = self.by_peer.get(peer).copied() else { return };
        let link = self.link(up, peer).number;
        if link != 0 {
            self.set_link(up, peer, Link::default());
            let at = self.now + self.round_trip(up, peer) / 2;
            self.send(up, peer, at, Event::MeshLost { at: peer, peer: up, link, in_order: false });
        }
    }

    /// `at` hears nothing of `peer` any more: the link is lost when its timers say so. Keep-alives passed until now.
    pub(super) fn expire_link(&mut self, at: u32, peer: u32) {
        let link = self.link(at, peer).number;
        if link != 0 && self.ultrapeers[at as usize].alive {
            let heard = limits::KEEP_ALIVE.mul_f64(self.rng.random_range(0.0..1.0));
            let when = self.now + limits::IDLE_TIMEOUT.saturating_sub(heard);
            self.plan(when, Event::MeshLost { at, peer, link, in_order: false });
        }
    }

    /// An ultrapeer is gone: without a word, or after it said so to all.
    pub(super) fn stop_up(&mut self, up: u32, in_order: bool) {
        if !self.ultrapeers[up as usize].alive {
            return;
        }
        self.ultrapeers[up as usize].alive = false;
        self.role_ends(up);
        if in_order {
            for peer in 0..self.ultrapeers.len() as u32 {
                let link = self.link(peer, up).number;
                if link != 0 {
                    let at = self.now + self.round_trip(up, peer) / 2;
                    self.send(up, peer, at, Event::MeshLost { at: peer, peer: up, link, in_order: true });
                }
            }
        } else {
            (0..self.ultrapeers.len() as u32).for_each(|peer| self.expire_link(peer, up));
        }
        for session in self.sessions_of(up) {
            self.sessions[session as usize].at_up = false;
            if in_order {
                let leaf = FIRST_LEAF + self.sessions[session as usize].leaf;
                let at = self.now + self.round_trip(up, leaf) / 2;
                self.send(up, leaf, at, Event::LostAtLeaf(session));
            } else {
                self.expire_session(session);
            }
        }
    }

    /// Asks others to let `up` in, again and again until it serves.
    pub(super) fn join(&mut self, up: u32, pause: Duration) {
        let node = &self.ultrapeers[up as usize];
        if node.elected.is_some() {
            return self.join_targets(up, pause);
        }
        if !node.alive || node.machine.phase() != Phase::Candidate {
            return;
        }
        let serving: Vec<u32> = (0..self.ultrapeers.len() as u32)
            .filter(|other| {
                let other = &self.ultrapeers[*other as usize];
                other.alive && matches!(other.machine.phase(), Phase::Admitted | Phase::Founder)
            })
            .collect();
        if !serving.is_empty() {
            let to = serving[self.rng.random_range(0..serving.len())];
            self.dial_mesh(up, Some(to), None, true);
        }
        let next = (pause * 2).min(limits::REDIAL_MAX);
        self.plan(self.now + pause, Event::Plan(Plan::UpJoins(up, next)));
    }

    pub(super) fn answer(&mut self, number: u64, message: LeafMessage, last: bool) {
        let Some(asking) = self.asking.get(&number).copied() else { return };
        let session = self.sessions[asking.session as usize];
        let bytes = self.count(asking.session, &message, false);
        let (up, leaf) = (session.up, FIRST_LEAF + session.leaf);
        let at = self.arrival(up, leaf, bytes, asking.last);
        if let Some(asking) = self.asking.get_mut(&number) {
            asking.last = at.as_micros();
        }
        self.send(up, leaf, at, Event::Answer(number, Box::new(message)));
        if last {
            // The leaf's side forgets it when the summary is there.
            self.touch(asking.session);
        }
    }

    fn refuse(&mut self, number: u64) {
        let Some(asking) = self.asking.get(&number).copied() else { return };
        self.measures.refused += 1;
        let session = self.sessions[asking.session as usize];
        let (up, leaf) = (session.up, FIRST_LEAF + session.leaf);
        let at = self.arrival(up, leaf, 0, asking.last);
        self.send(up, leaf, at, Event::AnswerLost(number));
    }
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

/// What a worker makes of a digest's parts.
fn unpack<const N: usize>(bytes: u32, parts: &[Blob<N>]) -> Option<Segment> {
    let parts = parts.iter().map(|part| &part[..]);
    let digest = batch::join(parts, bytes as usize, limits::DIGEST_WIRE_BYTES).ok()?;
    Segment::from_digest(&digest).ok()
}
