//! The ultrapeer as one machine: composes the cores, and is the only file that knows them all.
//!
//! ```text
//!            leaves ── chunks ──> index <── look-ups ── search ──> other ultrapeers
//!              │ logged             ^                     │ homes
//!              │                    └── digests           │
//!              │                          │ needed        │
//!              └──────────> attachments <─┴───────────────┘
//!   membership ── joined, left ──> leaves are told, logs followed or forgotten
//!   audits     ── some of what homes tell must be proven; who lies is distrusted
//!   possession ── leaves must prove that they have some of what they list; who has not is dropped
//!   holders    ── contents of leaves ──> told to, and asked of, three other ultrapeers each
//!   standing   ── what is new, compared with wishes ──> homes of those who wish
//!   introduce  ── asks leaves and other ultrapeers
//!   ballots    ── who else may serve; candidacy ── whether this node may; demand ── whether more should
//! ```
//!
//! Invariant: whatever a leaf is told to be searchable (`CatalogAck`) was published in the index before,
//! and logged to the other ultrapeers in the same step or a moment later.

mod admission;
mod audits;
mod guests;
mod holders;
mod interface;
mod links;
mod meetings;
mod possession;
mod queries;
mod shard;
mod standing;
mod volunteers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use overlay::{
    bans::Rules,
    election::{Ballots, Candidacy, Demand, Regime},
    id::PeerId,
    identity::Identity,
    limits,
    machine::{Context, Machine, Outbox},
    membership::{self, Membership},
    time::Time,
    wire::{
        descriptor::ShardPrefix,
        hello::Contact,
        leaf::{LeafMessage, Pong},
        mesh::Load,
    },
};
use rustc_hash::FxHashMap;

pub use self::{
    admission::Terms,
    guests::Verdict,
    interface::{Denial, Input, LimitedKind, Output, Retirement},
};
use crate::{
    appraisals::Appraisals,
    attachments::Attachments,
    audits::{Audits, proofs::Proofs},
    dial_backs::DialBacks,
    digests::{Digests, owed::Owed},
    extent::Extent,
    holders::Holders,
    index::{ChunkSlot, Index, KeptSegment, LeafSlot, Reader, Segment},
    introduce::Introductions,
    leaves::{self, Built, Closing, Leaves, Session, Settings, Slot},
    possession::Possessions,
    relays::Relays,
    search::{Searches, Ticket, neighbours::Neighbours},
    standing::Standing,
};

/// Chunks that came into an index and left it since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexChanges {
    /// Those that came.
    pub added: u64,
    /// Those that left because their leaf shares them no more, or nobody here needs them.
    pub removed: u64,
    /// Those that left because their leaf is gone.
    pub expired: u64,
}

/// Whether this node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It looks for an ultrapeer that lets it in.
    Candidate,
    /// Another let it in.
    Admitted,
    /// The network began here.
    Founder,
    /// It hands over its leaves.
    Draining {
        /// When it stops waiting for them.
        until: Time,
    },
}

/// An ultrapeer. See the module text.
#[derive(Debug)]
pub struct Ultrapeer {
    me: PeerId,
    /// Seconds since 1970 UTC at [`Time::ZERO`].
    epoch_s: i64,
    phase: Phase,
    drained: bool,
    identity: Arc<Identity>,
    regime: Regime,
    volunteer: bool,
    candidacy: Candidacy,
    ballots: Ballots,
    appraisals: Appraisals,
    demand: Demand,
    /// When demand is looked at next.
    demand_at: Time,
    /// Since when this node serves.
    serving_since: Time,
    /// Since when the network could do without it.
    idle_since: Option<Time>,
    /// From where linked nodes come, or where they were dialled, and since when.
    linked_from: BTreeMap<PeerId, (SocketAddr, Time)>,
    /// Who was told that it does not count here, and when.
    met_at: BTreeMap<PeerId, Time>,
    /// Where somebody was looked for who serves and does not count here, and when.
    foreign_dials: BTreeMap<u64, Time>,
    foreign_dial_at: Time,
    membership: Membership,
    neighbours: Neighbours,
    /// The name of the network.
    network: String,
    extent: Extent,
    /// When the digests of the part that was given up are forgotten.
    aftermath: Option<Time>,
    attachments: Attachments,
    digests: Digests,
    owed: Owed,
    audits: Audits,
    proofs: Proofs,
    possessions: Possessions,
    /// Leaves whose lists were put in place in this step, by handle.
    lists_changed: Vec<u64>,
    /// Chunks that left the index with their leaves.
    expired: u64,
    holders: Holders,
    standing: Standing,
    bans: Arc<Rules>,
    /// Where this node is reached.
    address: Option<SocketAddr>,
    /// Ultrapeers whose log this one was told to be told, over the link that is up.
    followed: BTreeSet<PeerId>,
    /// What linked nodes that do not serve yet want to be told.
    wishes: BTreeMap<PeerId, ShardPrefix>,
    leaves: Leaves<Segment>,
    index: Index,
    reader: Reader,
    chunks: FxHashMap<(Slot, [u8; 32]), ChunkSlot>,
    searches: Searches,
    introductions: Introductions,
    dial_backs: DialBacks,
    relays: Relays,
    volunteers: volunteers::Volunteers,
    /// Searches by their asker, so that a leaf that leaves takes its searches along.
    askers: FxHashMap<Ticket, Session>,
    /// Leaves that were asked to leave, as this home has more than its share, or to make room for others without a home.
    asked_to_leave: BTreeSet<Session>,
    /// When it is looked again whether this home has more than its share.
    share_out_at: Time,
    /// What leaves were told of each member: at most [`limits::MEMBERS_PUSHED`].
    told: BTreeMap<PeerId, (SocketAddr, ShardPrefix)>,
}

impl Built for Segment {
    type Kept = KeptSegment;

    fn kept(&self) -> KeptSegment {
        Self::kept(self)
    }
}

impl Ultrapeer {
    /// An ultrapeer that does not serve yet. `epoch_s` is the wall clock, in seconds since 1970 UTC, at
    /// [`Time::ZERO`].
    pub fn new(
        identity: Arc<Identity>,
        network: &str,
        settings: Settings,
        terms: Terms,
        epoch_s: i64,
        cx: &mut Context<'_>,
    ) -> Self {
        let me = identity.peer_id();
        let sequence = (epoch_s.max(0) as u64).saturating_add(cx.now.as_micros() / 1_000_000) << 16;
        let index = Index::new();
        let Terms { regime, volunteer, invitations } = terms;
        let mut membership = Membership::new(identity.clone(), network, regime, settings.max_leaves, sequence);
        membership.handle(cx, membership::Input::Apply { volunteer }, &mut Outbox::new());
        let mut candidacy = Candidacy::default();
        candidacy.begin(invitations);
        Self {
            me,
            epoch_s,
            phase: Phase::Candidate,
            drained: false,
            identity,
            regime,
            volunteer,
            candidacy,
            ballots: Ballots::default(),
            appraisals: Appraisals::default(),
            demand: Demand::default(),
            demand_at: Time::ZERO,
            serving_since: Time::ZERO,
            idle_since: None,
            linked_from: BTreeMap::new(),
            met_at: BTreeMap::new(),
            foreign_dials: BTreeMap::new(),
            foreign_dial_at: Time::ZERO,
            membership,
            neighbours: Neighbours::new(ShardPrefix::ALL),
            network: network.to_owned(),
            extent: Extent::new(),
            aftermath: None,
            attachments: Attachments::new(me),
            digests: Digests::new(me, settings.memory / 2),
            owed: Owed::default(),
            audits: Audits::default(),
            proofs: Proofs::default(),
            possessions: Possessions::default(),
            lists_changed: Vec::new(),
            expired: 0,
            holders: Holders::new(me, settings.memory),
            standing: Standing::new(me, sequence),
            bans: Arc::default(),
            address: None,
            followed: BTreeSet::new(),
            wishes: BTreeMap::new(),
            leaves: Leaves::new(me, settings),
            reader: index.reader(),
            index,
            chunks: FxHashMap::default(),
            searches: Searches::default(),
            introductions: Introductions::default(),
            dial_backs: DialBacks::default(),
            relays: Relays::new(settings.relay),
            volunteers: volunteers::Volunteers::default(),
            askers: FxHashMap::default(),
            asked_to_leave: BTreeSet::new(),
            share_out_at: Time::ZERO,
            told: BTreeMap::new(),
        }
    }

    /// Whether it serves.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Who the ultrapeers are.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The attached leaves.
    pub fn leaves(&self) -> &Leaves<Segment> {
        &self.leaves
    }

    /// What keeps this node from serving, as others say.
    pub fn hurdle(&self) -> Option<overlay::wire::election::Hurdle> {
        (self.phase == Phase::Candidate).then(|| self.candidacy.hurdle())?
    }

    /// Its votes on others, for their numbers.
    pub fn ballots(&self) -> &Ballots {
        &self.ballots
    }

    /// What own leaves are worth that would serve.
    pub fn appraisals(&self) -> &Appraisals {
        &self.appraisals
    }

    /// Whether more ultrapeers are wanted, as this one sees it.
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Who is attached where.
    pub fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    /// Whom it can ask for which part of the leaf space.
    pub fn neighbours(&self) -> &Neighbours {
        &self.neighbours
    }

    /// The digests, for their numbers.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// The audits of other homes, for their numbers.
    pub fn audits(&self) -> &Audits {
        &self.audits
    }

    /// Whether leaves have what they list, for its numbers.
    pub fn possessions(&self) -> &Possessions {
        &self.possessions
    }

    /// Who has which content, for its numbers.
    pub fn holders(&self) -> &Holders {
        &self.holders
    }

    /// The standing queries, for their numbers.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The index, for its numbers.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// How often something came into the index and left it.
    pub fn index_changes(&self) -> IndexChanges {
        let (added, gone) = self.index.changes();
        IndexChanges { added, removed: gone - self.expired, expired: self.expired }
    }

    /// Searches under way.
    pub fn searches(&self) -> usize {
        self.searches.len()
    }

    fn with_leaves(
        &mut self,
        now: Time,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Leaves<Segment>, &mut Outbox<leaves::Output<Segment>>),
    ) {
        let mut inner = Outbox::new();
        act(&mut self.leaves, &mut inner);
        let mut change = standing::ListChange::default();
        for output in inner.drain() {
            match output {
                leaves::Output::Send(session, message) => out.push(Output::ToLeaf(session, message)),
                leaves::Output::Close(session, why) => out.push(Output::CloseLeaf(session, why)),
                leaves::Output::Build { session, chunk, parts } => {
                    out.push(Output::Build { session, chunk, parts });
                }
                leaves::Output::Rebuild { session, hash, kept } => out.push(Output::Rebuild { session, hash, kept }),
                leaves::Output::Insert(slot, hash, segment) => {
                    change.came(hash, Arc::clone(&segment));
                    let chunk = self.index.add(LeafSlot(slot), segment);
                    self.chunks.insert((slot, hash), chunk);
                }
                leaves::Output::Remove(slot, hash) => {
                    if let Some(chunk) = self.chunks.remove(&(slot, hash)) {
                        change.went(&self.reader.snapshot(), chunk);
                        self.index.remove(chunk);
                        self.expired += u64::from(self.leaves.at(slot).is_none());
                    }
                }
                leaves::Output::Publish => self.publish(),
                leaves::Output::Left(peer) => self.possessions.left(now, peer),
                leaves::Output::Logged(handle, sequence) => {
                    if sequence.is_some() {
                        self.lists_changed.push(handle);
                    }
                    let new = self.new_in_list(now, handle, std::mem::take(&mut change));
                    self.logged(now, handle, sequence, out);
                    self.compare_own(now, &new, out);
                }
            }
        }
        self.settle_drain(now, out);
    }

    fn with_membership(&mut self, cx: &mut Context<'_>, input: membership::Input, out: &mut Outbox<Output>) {
        let mut inner = Outbox::new();
        let shard = self.membership.shard();
        self.membership.handle(cx, input, &mut inner);
        if self.membership.shard() != shard {
            self.tell_of_own(out);
        }
        self.carry_out_membership(cx.now, &mut inner, out);
        self.rank_self(cx.now);
    }

    fn carry_out_membership(&mut self, now: Time, inner: &mut Outbox<membership::Output>, out: &mut Outbox<Output>) {
        for output in inner.drain() {
            match output {
                membership::Output::Dial { peer, address } => out.push(Output::Dial(peer, address)),
                membership::Output::Close(peer) => {
                    out.push(Output::CloseMesh(peer));
                    self.unlinked(now, peer, out);
                }
                membership::Output::Send { to, message } => out.push(Output::ToMesh(to, message)),
                membership::Output::Suspected(peer) => {
                    let since = self.membership.silent_since(&peer).unwrap_or(now);
                    self.attachments.doubt(since, &peer);
                    self.refresh(now, peer, out);
                }
                membership::Output::Trusted(peer) => {
                    self.attachments.trust(&peer);
                    self.refresh(now, peer, out);
                }
                membership::Output::Joined(peer) => {
                    if self.membership.is_serving() && self.membership.member_since(&peer) == Some(now) {
                        let joined = self.membership.get(&peer);
                        joined.inspect(|joined| self.ballots.joined(now, joined, self.regime));
                    }
                    self.tell_of_member(&peer, out);
                    self.refresh(now, peer, out);
                }
                membership::Output::Left(peer) => {
                    self.tell_of_end(&peer, out);
                    self.refresh(now, peer, out);
                }
            }
        }
    }

    fn tell_allowance(&self, session: Session, out: &mut Outbox<Output>) {
        let allowance = self.leaves.allowance(session);
        out.extend(allowance.map(|allowance| Output::ToLeaf(session, allowance.into())));
    }

    fn serve(&mut self, cx: &mut Context<'_>, phase: Phase, out: &mut Outbox<Output>) {
        if self.phase == Phase::Candidate {
            self.phase = phase;
            self.serving_since = cx.now;
            self.demand_at = cx.now;
            self.with_membership(cx, membership::Input::Join, out);
            out.push(Output::Admitted);
        }
    }

    fn drain(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        if matches!(self.phase, Phase::Draining { .. }) {
            return;
        }
        // Without another ultrapeer there is nobody to hand the leaves to.
        let alone = self.membership.linked().next().is_none();
        let patience = if alone { std::time::Duration::ZERO } else { limits::DRAIN_TIMEOUT };
        self.phase = Phase::Draining { until: cx.now + patience };
        self.with_membership(cx, membership::Input::Withdraw, out);
        self.dismiss_leaves(out);
        self.settle_drain(cx.now, out);
    }

    fn settle_drain(&mut self, now: Time, out: &mut Outbox<Output>) {
        if let Phase::Draining { until } = self.phase
            && !self.drained
            && (self.leaves.is_empty() || until <= now)
        {
            self.drained = true;
            out.push(Output::Drained);
        }
    }

    fn leaf_message(&mut self, cx: &mut Context<'_>, session: Session, message: LeafMessage, out: &mut Outbox<Output>) {
        let now = cx.now;
        self.leaves.alive(session);
        match message {
            LeafMessage::CatalogRoot(root) => {
                self.with_leaves(now, out, |leaves, inner| leaves.root(now, session, &root, inner));
            }
            LeafMessage::CatalogPart(part) => {
                self.with_leaves(now, out, |leaves, inner| leaves.part(now, session, part, inner));
            }
            LeafMessage::LeafState(state) => self.leaves.state(session, state),
            LeafMessage::Goodbye(_) => self.leaf_gone(now, session, true, out),
            LeafMessage::IntroductionReply(reply) => {
                self.introduction_replied(now, session, reply, out);
            }
            LeafMessage::DialBackAsk(ask) => self.dial_back_asked(now, session, ask, out),
            LeafMessage::Ping(ping) => out.push(Output::ToLeaf(session, Pong { token: ping.token }.into())),
            LeafMessage::Pong(_) => {}
            LeafMessage::MembersAsk(ask) => self.members_asked(cx, session, ask.most, out),
            LeafMessage::ViewAsk(ask) => self.view_asked(now, session, ask, out),
            LeafMessage::Wishes(wishes) => self.wishes_told(cx, session, wishes, out),
            LeafMessage::Volunteer(offer) => {
                // The leaf side of this very node ends with it.
                if let Some(leaf) = self.leaves.get(session).filter(|leaf| leaf.peer != self.me) {
                    self.appraisals.willing(now, cx.rng, session, (leaf.peer, leaf.address), offer.willing);
                    self.volunteers.offered(now, session, offer);
                }
            }
            LeafMessage::Possession(answer) => self.possession_told(cx, session, answer, out),
            LeafMessage::Complaint(complaint) => self.leaf_complains(cx, session, &complaint, out),
            _ => out.push(Output::CloseLeaf(session, Closing::Protocol("a message that leaves do not send"))),
        }
    }

    fn leaf_gone(&mut self, now: Time, session: Session, in_order: bool, out: &mut Outbox<Output>) {
        if let Some(leaf) = self.leaves.get(session) {
            self.appraisals.left(now, &leaf.peer, session, in_order);
        }
        self.leaf_gone_with(now, session, out, |leaves, inner| leaves.detach(now, session, inner));
    }

    /// A leaf is gone once `act` has taken it out.
    fn leaf_gone_with(
        &mut self,
        now: Time,
        session: Session,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Leaves<Segment>, &mut Outbox<leaves::Output<Segment>>),
    ) {
        self.dial_backs.left(session);
        let tickets: Vec<_> =
            self.askers.iter().filter(|(_, asker)| **asker == session).map(|(ticket, _)| *ticket).collect();
        for ticket in tickets {
            self.cancel(now, ticket, out);
        }
        self.standing.leaf_left(now, session);
        self.volunteers.left(session);
        self.with_leaves(now, out, act);
    }

    /// Probes are answered with how busy this node is.
    fn report_load(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let load = Load { leaves: self.leaves.len() as u32, capacity: self.leaves.capacity() };
        if self.membership.load() != load {
            self.with_membership(cx, membership::Input::Load(load), out);
        }
    }
}

impl Machine for Ultrapeer {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        let now = cx.now;
        match input {
            Input::Address(address) => {
                self.extent.set_address(&self.network, address);
                self.address = Some(address);
                self.with_membership(cx, membership::Input::Address(address), out);
            }
            Input::Found => self.serve(cx, Phase::Founder, out),
            Input::Drain => self.drain(cx, out),
            Input::Settings(settings) => {
                self.leaves.reconfigure(now, settings);
                self.relays.reconfigure(settings.relay);
                self.digests.set_budget(settings.memory / 2);
                self.holders.set_memory(settings.memory);
                let sessions: Vec<_> = self.leaves.iter().map(|(session, _)| session).collect();
                for session in sessions {
                    self.tell_allowance(session, out);
                }
            }
            Input::Bans(rules) => self.bans = rules,
            // Others took the last place meanwhile.
            Input::LeafAttached { session, peer, .. } if !self.has_place_for(&peer) => {
                out.push(Output::CloseLeaf(session, Closing::Full));
            }
            Input::LeafAttached { session, peer, salt, address } => {
                self.with_leaves(now, out, |leaves, inner| {
                    leaves.attach(now, session, peer, salt, address, inner);
                });
                self.make_room(out);
                self.tell_allowance(session, out);
                out.push(Output::ToLeaf(session, self.membership.frame([], []).into()));
                let told = self.volunteers.attached(now, session, Contact { peer, address });
                out.extend(told.map(|told| Output::ToLeaf(session, told.into())));
            }
            Input::LeafMessage(session, message) => self.leaf_message(cx, session, message, out),
            Input::LeafGone(session) => self.leaf_gone(now, session, false, out),
            Input::DigestBuilt(name, unpacked) => self.digest_built(cx, name, unpacked, out),
            Input::FilesPacked(peer, name, packed) => {
                self.with_proofs(out, |proofs, inner| proofs.packed(peer, name, packed, inner));
            }
            Input::ProofChecked(home, number, result) => {
                self.with_audits(now, out, |audits, environment, inner| {
                    audits.checked(environment, home, number, result, inner);
                });
            }
            Input::PossessionChecked(leaf, number, result) => {
                self.with_possessions(now, out, |possessions, leaves, inner| {
                    possessions.checked(cx, leaves, leaf, number, result, inner);
                });
            }
            Input::DigestPacked(name, packed) => self.with_owed(out, |owed, inner| owed.packed(name, packed, inner)),
            Input::Built(session, hash, segment) => {
                self.with_leaves(now, out, |leaves, inner| leaves.built(now, session, hash, segment, inner));
            }
            Input::Search(ticket, session, search) => self.search(cx, ticket, session, search, out),
            Input::Introduce(ticket, session, ask) => self.introduce(now, ticket, session, ask, out),
            Input::RelayOpen(guest, peer, open) => self.relay_asked(now, guest, peer, open, out),
            Input::RelayLeft(guest) => self.relays.left(guest),
            Input::Cancel(ticket) => self.cancel(now, ticket, out),
            Input::MeshUp { peer, address, descriptor } => self.mesh_up(cx, peer, address, descriptor, out),
            Input::DialledBack(peer, address, found) => self.dialled_back(now, peer, address, found, out),
            Input::MeshMessage(peer, message) => self.mesh_message(cx, peer, message, out),
            Input::MeshDown { peer, in_order } => self.mesh_down(cx, peer, in_order, out),
            Input::DialFailed(peer) => self.with_membership(cx, membership::Input::DialFailed(peer), out),
            Input::Remembered(descriptors) => {
                self.with_membership(cx, membership::Input::Remembered(descriptors), out);
            }
            Input::Contacts(contacts) => self.with_membership(cx, membership::Input::Contacts(contacts), out),
            Input::Named(descriptors) => self.with_membership(cx, membership::Input::Named(descriptors), out),
        }
        self.look_at_lists(cx, out);
        self.report_load(cx, out);
    }

    fn next_deadline(&self) -> Option<Time> {
        let drain = match self.phase {
            Phase::Draining { until } if !self.drained => Some(until),
            _ => None,
        };
        let cores = [
            self.membership.next_deadline(),
            self.leaves.next_deadline(),
            self.searches.next_deadline(),
            self.introductions.next_deadline(),
            self.relays.next_deadline(),
            self.attachments.next_deadline(),
            self.digests.next_deadline(),
            self.audits.next_deadline(),
            self.possessions.next_deadline(),
            self.membership.is_serving().then(|| self.extent.next_deadline()),
            self.holders.next_deadline(),
            self.standing.next_deadline(),
            (!matches!(self.phase, Phase::Draining { .. })).then(|| self.candidacy.next_deadline()),
            self.membership.is_serving().then_some(self.demand_at),
            self.appraisals.next_deadline().filter(|_| self.membership.is_serving()),
            self.volunteers.next_deadline(),
            drain,
        ];
        cores.into_iter().flatten().min()
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        let mut inner = Outbox::new();
        self.membership.on_deadline(cx, &mut inner);
        self.carry_out_membership(now, &mut inner, out);
        self.with_leaves(now, out, |leaves, inner| leaves.on_deadline(now, inner));
        self.flush_log(now, out);
        self.with_digests(now, out, |digests, attachments, inner| digests.on_deadline(now, attachments, inner));
        let rng = &mut *cx.rng;
        self.with_audits(now, out, |audits, environment, inner| audits.on_deadline(rng, environment, inner));
        if self.digests.must_publish(now) {
            self.publish();
        }
        // May let this node in, which then has an extent to look at.
        if self.candidacy.next_deadline() <= now {
            self.look_for_votes(cx, out);
        }
        if self.membership.is_serving() {
            self.look_at_extent(cx, out);
        }
        self.look_at_demand(cx, out);
        self.look_at_appraisals(now, out);
        self.tell_holdings(now, out);
        self.attend_wishes(now, out);
        self.tell_volunteers(now, out);
        self.with_searches(now, out, Searches::on_deadline);
        self.with_introductions(now, out, |introductions, inner| introductions.on_deadline(now, inner));
        self.with_relays(out, |relays, inner| relays.on_deadline(now, inner));
        self.with_possessions(now, out, |possessions, leaves, inner| possessions.on_deadline(cx, leaves, inner));
        self.look_at_lists(cx, out);
        self.report_load(cx, out);
    }
}
