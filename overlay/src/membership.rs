//! Core: who the ultrapeers are. Every ultrapeer knows every other by its signed descriptor.
//!
//! What it decides: which descriptors count, whom to dial and probe, who is suspect and who is gone, and what
//! to tell others.
//!
//! | module | what it decides |
//! |---|---|
//! | [`links`] | whom to dial: all mates, some members of each other part, and now and then who is gone |
//! | [`probing`] | who answers: probes, probes through others, suspicion |
//! | [`gossip`] | what is news, what is old, what is refused, and to whom news goes |
//! | [`buckets`] | what differs between two members' knowledge |
//! | [`standing`] | which descriptors count: whom members let in |
//! | [`sketch`] | how much differs between two views |
//!
//! Invariants:
//! - a member is in the view only with a descriptor whose signature was checked, of this network, not
//!   expired, let in by members (see [`standing`]), and the newest heard of (highest sequence);
//! - a member that was found gone returns only with a newer descriptor, so old news resurrects nobody; who is
//!   told that others hold it for gone renews its own;
//! - nobody is removed on another's word while this node can reach it itself;
//! - a claim that others are gone costs its speaker credit, and without credit it is not even looked into.
//!
//! Flow: a link comes up, both sides compare what they know and exchange what differs. Whatever is new is
//! passed on to [`limits::NEWS_LINKS`] random links, once. Mates (members that cover the same leaves) are
//! probed, a second the next in key order and a random one; one that answers neither this node nor others on its behalf is suspect, all its
//! mates are told and look for themselves, and if nobody reaches it, it is gone. Who is gone is dialled now and
//! then, which is how a partition heals.
//!
//! ```text
//!            answers, or a link comes up                    higher sequence
//!          ┌───────────────────────────────┐      ┌─────────────────────────────────┐
//!   trusted ── probe unanswered ──> in doubt ── others cannot reach it ──> suspect ─┴─ time is over ──> gone
//! ```
//!
//! Why not the library `foca` (SWIM without input and output): its members carry an incarnation of its own
//! beside our signed sequence, and it believes every rumour, while here each node first looks for itself; it
//! probes all members it knows, while here shards decide who probes whom; its messages are datagrams of its
//! own encoding that it fills by itself, while ours are frames of typed messages on links that exist anyway and
//! whose loss is a signal. What would be left of it is a shuffled round and three timers.

mod buckets;
mod gossip;
mod links;
mod probing;
mod sketch;
mod standing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rand::{Rng, RngExt};

pub use self::sketch::{Sketch, differing_share};
use self::{
    buckets::Buckets,
    gossip::{Fresh, Tombstone},
    links::{Dial, Hints, Link},
    probing::{Doubt, Relay},
    standing::{Adopted, Waiting},
};
use crate::{
    credit::TokenBucket,
    election::Regime,
    id::PeerId,
    identity::Identity,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
    wire::{
        bounded::List,
        descriptor::{Descriptor, Endorsement, ShardPrefix, SignedDescriptor, network_tag},
        hello::Contact,
        leaf::Members,
        mesh::{Load, MeshMessage, ProbeReply},
    },
};

/// What can happen to the membership.
#[derive(Debug)]
pub enum Input {
    /// This node is reached at this address: as set by its operator, as bound, or as others observe it.
    Address(SocketAddr),
    /// This node covers that part of the leaf space from now on.
    Shard(ShardPrefix),
    /// How busy this node is. Another capacity is announced to all.
    Load(Load),
    /// This node asks to be let in from now on: as a leaf that volunteers, or as its operator wants. What it had of
    /// endorsements speaks of something else.
    Apply {
        /// See [`Descriptor::volunteer`].
        volunteer: bool,
    },
    /// These endorse this node.
    Endorsed(Vec<Endorsement>),
    /// This node gives up its network for one that it met: for a while it believes whoever says that it serves.
    Adopt,
    /// This node serves as an ultrapeer from now on.
    Join,
    /// This node stops serving; others are told.
    Withdraw,
    /// Descriptors came from a linked node.
    Heard {
        /// Who sent them.
        from: PeerId,
        /// What came.
        descriptors: Vec<SignedDescriptor>,
    },
    /// Descriptors that this node kept from an earlier session: addresses that are dialled now and then.
    Remembered(Vec<SignedDescriptor>),
    /// Nodes that were in touch with this one, or that homes told of: one may know ultrapeers that do not count here. They
    /// are dialled now and then.
    Contacts(Vec<Contact>),
    /// Descriptors that came with a refusal: addresses that are dialled once, as whoever named them may lie.
    Named(Vec<SignedDescriptor>),
    /// Another node sent one of the messages that [`is_message`] names.
    Message {
        /// Over which link.
        from: PeerId,
        /// What came.
        message: MeshMessage,
    },
    /// A link to another node is up, perhaps in place of an earlier one.
    LinkUp(PeerId),
    /// The link to another node is gone.
    LinkDown {
        /// The node.
        peer: PeerId,
        /// True if it said good-bye.
        in_order: bool,
    },
    /// A dial that this core asked for failed.
    DialFailed(PeerId),
}

/// What the driver must do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Dial a member; answer with `LinkUp` or `DialFailed`.
    Dial {
        /// Whom.
        peer: PeerId,
        /// Where.
        address: SocketAddr,
    },
    /// Close a link on which nothing comes any more. It counts as gone at once: no `LinkDown` follows.
    Close(PeerId),
    /// Send over a link.
    Send {
        /// The link.
        to: PeerId,
        /// What to send.
        message: MeshMessage,
    },
    /// A member joined the view, or its descriptor changed.
    Joined(PeerId),
    /// A member does not answer: what is known of its leaves may be out of date.
    Suspected(PeerId),
    /// A suspect answers again, or others proved that it lives.
    Trusted(PeerId),
    /// A member left the view.
    Left(PeerId),
}

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A link to it is up, and it answers.
    Linked,
    /// It lives as far as is known, and no link to it is up.
    Unlinked,
    /// It does not answer.
    Suspect,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Members that are not suspect, this node included if it serves.
    pub alive: usize,
    /// Members that do not answer.
    pub suspect: usize,
    /// What was refused.
    pub refused: Refused,
}

/// What was refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Descriptors that cannot be read or name something impossible.
    pub malformed: u64,
    /// Descriptors that the peer did not sign.
    pub forged: u64,
    /// Descriptors of another network.
    pub other_network: u64,
    /// Descriptors that do not count any more.
    pub expired: u64,
    /// Descriptors older than one that is known, or than its peer's end: replayed, or overtaken.
    pub outdated: u64,
    /// Descriptors for which there was no room.
    pub full: u64,
    /// Descriptors of nodes that too few members endorse, as far as this one knows.
    pub unendorsed: u64,
    /// Claims that somebody is suspect or gone, by a peer that claims too much.
    pub claims: u64,
}

/// The membership. See the module text.
#[derive(Debug)]
pub struct Membership {
    identity: Arc<Identity>,
    me: PeerId,
    network: [u8; 8],
    regime: Regime,
    shard: ShardPrefix,
    load: Load,
    /// The sequence at which it asked to be let in.
    admission: u64,
    volunteer: bool,
    endorsements: Vec<Endorsement>,
    waiting: Waiting,
    adopted: Option<Adopted>,
    serving: bool,
    /// True once it withdrew: it dials, probes and judges nobody.
    leaving: bool,
    /// True while the alarms that recur are set.
    ticking: bool,
    address: Option<SocketAddr>,
    sequence: u64,
    own: Option<SignedDescriptor>,
    /// When it was signed.
    renewed: Time,
    denials: TokenBucket,
    members: BTreeMap<PeerId, Member>,
    /// The members by the part that they declare.
    parts: BTreeMap<ShardPrefix, BTreeSet<PeerId>>,
    /// Parts to which there may be too few links since this step began.
    untended: BTreeSet<ShardPrefix>,
    suspects: BTreeSet<PeerId>,
    /// Links that are up, also to nodes that do not serve (yet).
    links: BTreeMap<PeerId, Link>,
    tombstones: BTreeMap<PeerId, Tombstone>,
    hints: Hints,
    /// True if the last probe went to the next in order.
    turn: bool,
    /// Whom to probe next, last first.
    round: Vec<PeerId>,
    /// Probes for others, by their token.
    relays: BTreeMap<u64, Relay>,
    /// News of this step that was not passed on yet, with the link by which it came.
    fresh: Vec<(Option<PeerId>, Fresh)>,
    buckets: Buckets,
    sketch: Sketch,
    view: u64,
    agenda: BTreeSet<(Time, Alarm)>,
    refused: Refused,
}

/// What is due at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// Renew the own descriptor.
    Refresh,
    /// Probe the next member.
    Probe,
    /// Compare with a random member.
    Compare,
    /// Dial one that is gone or was remembered.
    Hint,
    /// Look at those that do not count yet.
    Waiting,
    /// The earliest that is due of a member.
    Member(PeerId),
}

#[derive(Debug)]
struct Member {
    signed: SignedDescriptor,
    descriptor: Descriptor,
    /// When it was first heard of since it last joined.
    since: Time,
    expires: Time,
    linked: bool,
    dial: Dial,
    /// Pause before the next dial.
    pause: Duration,
    doubt: Option<Doubt>,
    /// When it last answered a probe on its own link.
    answered: Option<Time>,
    round_trip: Option<Duration>,
    /// Probes in a row that only others could deliver.
    strikes: u8,
    /// How often in a row it was found gone soon after it came, before this time.
    short_lives: u8,
    load: Option<Load>,
    /// How many of its descriptors are passed on.
    renewals: TokenBucket,
    /// Its place in the agenda.
    alarm: Option<Time>,
}

impl Member {
    fn state(&self) -> State {
        match &self.doubt {
            Some(doubt) if doubt.is_suspicion() => State::Suspect,
            _ if self.linked => State::Linked,
            _ => State::Unlinked,
        }
    }

    /// Seconds since it was presented by its peer itself, rounded up.
    fn age_s(&self, now: Time) -> u32 {
        let left = u32::try_from(self.expires.since(now).as_secs()).unwrap_or(u32::MAX);
        self.descriptor.lifetime_s.saturating_sub(left)
    }

    fn due(&self) -> Time {
        let dial = match self.dial {
            Dial::Due(at) => Some(at),
            Dial::Idle | Dial::UnderWay => None,
        };
        let doubt = self.doubt.as_ref().map(|doubt| doubt.due);
        [dial, doubt].into_iter().flatten().fold(self.expires, Time::min)
    }
}

/// True if a message is one for [`Input::Message`].
pub const fn is_message(message: &MeshMessage) -> bool {
    matches!(
        message,
        MeshMessage::News(_)
            | MeshMessage::Probe(_)
            | MeshMessage::ProbeReply(_)
            | MeshMessage::ProbeFor(_)
            | MeshMessage::ProbeResult(_)
            | MeshMessage::Suspect(_)
            | MeshMessage::Sync(_)
            | MeshMessage::SyncBuckets(_)
            | MeshMessage::SyncWant(_)
    )
}

impl Membership {
    /// An empty view of the network of that name.
    ///
    /// `first_sequence` should be larger than any that this identity used before: seconds since 1970 do. If it
    /// is not, because a clock was set back, others tell, and the next descriptor outbids the old.
    pub fn new(identity: Arc<Identity>, network: &str, regime: Regime, capacity: u32, first_sequence: u64) -> Self {
        Self {
            me: identity.peer_id(),
            identity,
            network: network_tag(network),
            regime,
            shard: ShardPrefix::ALL,
            load: Load { leaves: 0, capacity },
            admission: first_sequence,
            volunteer: false,
            endorsements: Vec::new(),
            waiting: Waiting::default(),
            adopted: None,
            serving: false,
            leaving: false,
            ticking: false,
            address: None,
            sequence: first_sequence,
            own: None,
            renewed: Time::ZERO,
            denials: TokenBucket::new(Time::ZERO, limits::DENIAL_RATE, limits::DENIAL_BURST),
            members: BTreeMap::new(),
            parts: BTreeMap::new(),
            untended: BTreeSet::new(),
            suspects: BTreeSet::new(),
            links: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            hints: Hints::default(),
            turn: false,
            round: Vec::new(),
            relays: BTreeMap::new(),
            fresh: Vec::new(),
            buckets: Buckets::default(),
            sketch: Sketch::default(),
            view: 0,
            agenda: BTreeSet::new(),
            refused: Refused::default(),
        }
    }

    /// True if this node serves as an ultrapeer.
    pub fn is_serving(&self) -> bool {
        self.serving
    }

    /// This node's own descriptor, once it serves and knows its address.
    pub fn own(&self) -> Option<&SignedDescriptor> {
        self.own.as_ref()
    }

    /// The part of the leaf space that this node covers.
    pub fn shard(&self) -> ShardPrefix {
        self.shard
    }

    /// Ultrapeers in the view, this node included if it serves.
    pub fn total(&self) -> u32 {
        self.members.len() as u32 + u32::from(self.serving)
    }

    /// The view in one number: equal views have equal numbers.
    pub fn view(&self) -> u64 {
        self.view
    }

    /// The view in short, to tell how much it differs from another; see [`differing_share`].
    pub fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    /// True if that ultrapeer is in the view.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.members.contains_key(peer)
    }

    /// True if a link leads to that node, whether it answers or not.
    pub fn is_linked(&self, peer: &PeerId) -> bool {
        self.links.contains_key(peer)
    }

    /// What a member says of itself.
    pub fn get(&self, peer: &PeerId) -> Option<&Descriptor> {
        self.members.get(peer).map(|member| &member.descriptor)
    }

    /// When a member was first probed in vain; `None` if it answered since.
    pub fn silent_since(&self, peer: &PeerId) -> Option<Time> {
        self.members.get(peer)?.doubt.as_ref().map(|doubt| doubt.sent)
    }

    /// How a member stands; `None` if it is not in the view.
    pub fn state_of(&self, peer: &PeerId) -> Option<State> {
        self.members.get(peer).map(Member::state)
    }

    /// How busy this node is, as it was last told.
    pub fn load(&self) -> Load {
        self.load
    }

    /// How busy a member was when it last answered a probe.
    pub fn load_of(&self, peer: &PeerId) -> Option<Load> {
        self.members.get(peer)?.load
    }

    /// All members other than this node, by key: descriptor, and how it stands.
    pub fn iter(&self) -> impl Iterator<Item = (&Descriptor, State)> {
        self.members.values().map(|member| (&member.descriptor, member.state()))
    }

    /// Members with a link that answer, by key.
    pub fn linked(&self) -> impl Iterator<Item = PeerId> {
        self.iter().filter(|(_, state)| *state == State::Linked).map(|(member, _)| member.peer)
    }

    /// A frame of news for leaves under the current view.
    pub fn frame(
        &self,
        descriptors: impl IntoIterator<Item = SignedDescriptor>,
        gone: impl IntoIterator<Item = PeerId>,
    ) -> Members {
        Members { descriptors: List::new(descriptors), gone: List::new(gone), total: self.total(), view: self.view }
    }

    /// The signed descriptor of a member.
    pub fn descriptor_of(&self, peer: &PeerId) -> Option<&SignedDescriptor> {
        self.members.get(peer).map(|member| &member.signed)
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> Stats {
        let suspect = self.members.values().filter(|member| member.state() == State::Suspect).count();
        Stats { alive: self.total() as usize - suspect, suspect, refused: self.refused }
    }

    /// True if a member covers leaves that this node covers.
    fn is_mate(&self, member: &Member) -> bool {
        self.shard.overlaps(member.descriptor.shard)
    }

    /// A member came into the view (or leaves it): the numbers that stand for the view change.
    fn toggle_view(&mut self, peer: PeerId) {
        self.view ^= view_bits(&peer);
        self.sketch.toggle(&peer);
    }

    fn send(to: PeerId, message: impl Into<MeshMessage>, out: &mut Outbox<Output>) {
        out.push(Output::Send { to, message: message.into() });
    }

    fn set_alarm(&mut self, at: Time, alarm: Alarm) {
        if !self.leaving {
            self.agenda.insert((at, alarm));
        }
    }

    /// Puts a member to its right place in the agenda. After every change of it.
    fn reschedule(&mut self, peer: PeerId) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        let due = (!self.leaving).then(|| member.due());
        if due == member.alarm {
            return;
        }
        if let Some(at) = std::mem::replace(&mut member.alarm, due) {
            self.agenda.remove(&(at, Alarm::Member(peer)));
        }
        self.agenda.extend(due.map(|at| (at, Alarm::Member(peer))));
    }

    fn join(&mut self, cx: &mut Context<'_>) {
        if self.serving {
            return;
        }
        (self.serving, self.leaving) = (true, false);
        self.toggle_view(self.me);
        self.renew_own(cx.now);
        self.start_alarms(cx);
        for peer in self.members.keys().copied().collect::<Vec<_>>() {
            self.reschedule(peer);
        }
    }

    /// Sets the alarms that recur, unless they are set.
    fn start_alarms(&mut self, cx: &mut Context<'_>) {
        if self.ticking || self.leaving {
            return;
        }
        self.ticking = true;
        for (alarm, interval) in [(Alarm::Probe, limits::PROBE_INTERVAL), (Alarm::Compare, limits::SYNC_INTERVAL)] {
            // Those who start together do not act together.
            self.set_alarm(cx.now + interval.mul_f64(cx.rng.random_range(0.1..1.0)), alarm);
        }
    }

    fn withdraw(&mut self, now: Time) {
        if !self.serving {
            return;
        }
        self.bury_own(now);
        (self.serving, self.leaving) = (false, true);
        self.toggle_view(self.me);
        self.ticking = false;
        self.agenda.clear();
        for member in self.members.values_mut() {
            member.alarm = None;
        }
    }

    fn set_load(&mut self, now: Time, load: Load) {
        let before = std::mem::replace(&mut self.load, load);
        if before.capacity != load.capacity {
            self.renew_own(now);
        }
    }

    fn message(&mut self, cx: &mut Context<'_>, from: PeerId, message: MeshMessage, out: &mut Outbox<Output>) {
        match message {
            MeshMessage::News(news) => self.hear_news(cx, from, news, out),
            MeshMessage::Probe(probe) => {
                Self::send(from, ProbeReply { token: probe.token, load: self.load }, out);
            }
            MeshMessage::ProbeReply(reply) => self.probe_reply(cx.now, from, reply, out),
            MeshMessage::ProbeFor(ask) => self.probe_for(cx, from, ask, out),
            MeshMessage::ProbeResult(result) => self.probe_result(cx, from, result, out),
            MeshMessage::Suspect(suspect) => {
                for claim in suspect.suspects {
                    self.hear_suspicion(cx, from, claim, out);
                }
            }
            MeshMessage::Sync(sync) => self.compare(cx.now, from, sync, out),
            MeshMessage::SyncBuckets(theirs) => self.compare_buckets(cx.now, from, &theirs, out),
            MeshMessage::SyncWant(want) => self.answer_want(cx.now, from, want, out),
            _ => {}
        }
    }

    fn member_due(&mut self, cx: &mut Context<'_>, peer: PeerId, out: &mut Outbox<Output>) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.alarm = None;
        if member.expires <= cx.now {
            self.remove(cx.now, peer, out);
            return;
        }
        if matches!(member.dial, Dial::Due(at) if at <= cx.now) {
            member.dial = Dial::UnderWay;
            out.push(Output::Dial { peer, address: member.descriptor.address });
        }
        if member.doubt.as_ref().is_some_and(|doubt| doubt.due <= cx.now) {
            self.doubt_due(cx, peer, out);
        }
        self.reschedule(peer);
    }
}

/// A member's part in [`Membership::view`]. Keys are as good as random, so a part of one will do.
fn view_bits(peer: &PeerId) -> u64 {
    u64::from_le_bytes(*peer.0.first_chunk().expect("a key has 32 bytes"))
}

/// Leaves `count` of `items`, chosen at random.
fn choose<T>(items: &mut Vec<T>, count: usize, rng: &mut dyn Rng) {
    let count = count.min(items.len());
    for place in 0..count {
        let pick = rng.random_range(place..items.len());
        items.swap(place, pick);
    }
    items.truncate(count);
}

impl Machine for Membership {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        let (total, may_change) = (self.total(), input.changes_view());
        match input {
            Input::Apply { volunteer } => self.begin_admission(volunteer),
            Input::Endorsed(endorsements) => self.set_endorsements(cx.now, endorsements),
            Input::Adopt => self.adopt(cx, out),
            Input::Address(address) => {
                if self.address.replace(address) != Some(address) {
                    self.renew_own(cx.now);
                }
            }
            Input::Shard(shard) => self.set_shard(cx.now, shard, out),
            Input::Load(load) => self.set_load(cx.now, load),
            Input::Join => self.join(cx),
            Input::Withdraw => self.withdraw(cx.now),
            Input::Heard { from, descriptors } => {
                for signed in descriptors {
                    self.hear(cx, from, signed, 0, out);
                }
            }
            Input::Remembered(descriptors) => self.hear_hints(cx, &descriptors, true, out),
            Input::Named(descriptors) => self.hear_hints(cx, &descriptors, false, out),
            Input::Contacts(contacts) => self.keep_contacts(cx.now, contacts),
            Input::Message { from, message } => self.message(cx, from, message, out),
            Input::LinkUp(peer) => self.link_up(cx, peer, out),
            Input::LinkDown { peer, in_order } => self.link_down(cx, peer, in_order, out),
            Input::DialFailed(peer) => self.dial_failed(cx, peer),
        }
        if may_change && self.total() != total {
            self.reconsider(cx, out);
        }
        self.tend_parts(cx);
        self.pass_on(cx, out);
    }

    fn next_deadline(&self) -> Option<Time> {
        self.agenda.first().map(|(at, _)| *at)
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        while let Some((at, alarm)) = self.agenda.first().copied()
            && at <= cx.now
        {
            self.agenda.pop_first();
            match alarm {
                Alarm::Refresh => self.renew_own(cx.now),
                Alarm::Probe => self.probe_next(cx, out),
                Alarm::Compare => self.compare_with_one(cx, out),
                Alarm::Hint => self.dial_hint(cx, out),
                Alarm::Waiting => self.look_at_waiting(cx, out),
                Alarm::Member(peer) => self.member_due(cx, peer, out),
            }
            self.tend_parts(cx);
        }
        self.pass_on(cx, out);
    }
}
