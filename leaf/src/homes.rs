//! Core: which ultrapeers this leaf is attached to.
//!
//! What it decides: whom to dial and when, which homes to keep, and when one may be left.
//!
//! ```text
//! known ──measured──> chosen ──dialled──> home, serving once it has the list ──> lost
//!   ^                                       │ gone, as others say, or it drains or another is nearer
//!   └── asked for, pushed, named instead    └──> replaced first, then left in order
//! ```
//!
//! Invariants:
//! - the leaf keeps `min(3, U)` homes, U being the ultrapeers that it knows and that cover its place; any node that it
//!   is told to join is enough to learn of others;
//! - a home is left in order only when as many others as there can be have the list;
//! - join targets are tried for ever, with growing pauses, while the leaf has no home;
//! - pauses are jittered, so that leaves that lost the same home do not return in step;
//! - an address that no home told of, and where nobody answers, is dialled once in [`limits::HINT_AGAIN`]: whoever refuses
//!   may name a victim's under any number of keys;
//! - what it knows is bounded, and what it asks and measures is too, whatever homes say.

mod choice;
mod hearsay;
mod records;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use overlay::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    machine::{Context, Machine, Outbox},
    shards::leaf_hash,
    time::Time,
    wire::{
        descriptor::{Descriptor, ShardPrefix, SignedDescriptor, network_tag},
        leaf::Members,
    },
};
use rand::RngExt;

use self::records::{Attempts, Distance, Home, Known, Vain};

/// What can happen to the homes.
#[derive(Debug)]
pub enum Input {
    /// Addresses that the leaf is told to join, as they resolve now. Replaces the earlier ones.
    Targets(Vec<SocketAddr>),
    /// Descriptors from earlier sessions, its homes first.
    Remembered(Vec<SignedDescriptor>),
    /// A home tells which ultrapeers there are.
    Members {
        /// The home.
        from: PeerId,
        /// What it tells.
        members: Members,
    },
    /// A dial ended in a welcome.
    Attached {
        /// The ultrapeer.
        peer: PeerId,
        /// Where it was dialled.
        address: SocketAddr,
        /// Its descriptor, if it knows its own address already.
        descriptor: Option<SignedDescriptor>,
    },
    /// A dial ended in a refusal that names others, the best first.
    Refused {
        /// Where.
        address: SocketAddr,
        /// The others.
        alternatives: Vec<SignedDescriptor>,
    },
    /// Somebody who cannot be a home names others, the best first.
    Named(Vec<SignedDescriptor>),
    /// A dial ended otherwise.
    DialFailed(SocketAddr),
    /// How far away an ultrapeer is that was to be measured; `None` if it does not answer.
    Measured(PeerId, Option<Duration>),
    /// How far away a home is.
    RoundTrip(PeerId, Duration),
    /// A home has this leaf's list.
    Acknowledged(PeerId),
    /// A home answers.
    Alive(PeerId),
    /// A home is about to end, and names others.
    Draining {
        /// The home.
        peer: PeerId,
        /// The others, the best first.
        alternatives: Vec<SignedDescriptor>,
    },
    /// A home is gone.
    Lost(PeerId),
    /// A home lies, or is far slower than the others with what it is asked: it is left, and not chosen again for
    /// [`limits::HOME_DISTRUST`] while there are others.
    Distrust(PeerId),
    /// This very node serves as an ultrapeer, or does not any more.
    Own(Option<Own>),
    /// The leaf says good-bye: nobody is dialled from now on.
    Leave,
}

/// The ultrapeer in this very node: a home like any other, and always wanted where it covers the leaf's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Where this node dials itself.
    pub address: SocketAddr,
    /// The part of the leaf space that it covers.
    pub shard: ShardPrefix,
}

/// What the driver must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial an ultrapeer; answer with `Attached`, `Refused` or `DialFailed`.
    Dial {
        /// Where.
        address: SocketAddr,
        /// Who must be there; `None` for a join target, where anyone will do.
        peer: Option<PeerId>,
        /// Whether to say that there is nowhere else to go.
        insists: bool,
    },
    /// Measure how far away an ultrapeer is; answer with `Measured`.
    Measure(PeerId, SocketAddr),
    /// Ask a home for that many descriptors.
    AskMembers(PeerId, u16),
    /// Say good-bye to a home; `Lost` follows.
    Release(PeerId, Why),
    /// There are as many homes with the list as there should be again, so long after one was lost.
    Restored(Duration),
    /// The set of homes changed.
    Changed,
}

/// Why a home is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is about to end.
    Drained,
    /// Another is better.
    Better,
    /// It lies, or is far slower than the others with what it is asked.
    Distrusted,
}

/// The homes. See the module text.
#[derive(Debug)]
pub struct Homes {
    me: PeerId,
    /// This leaf's place in the leaf space.
    place: u32,
    network: [u8; 8],
    targets: BTreeMap<SocketAddr, Attempts>,
    known: BTreeMap<PeerId, Known>,
    vain: Vain,
    /// The ultrapeer in this node, while it serves.
    own: Option<(Own, Attempts)>,
    homes: BTreeMap<PeerId, Home>,
    /// Who is not to be a home for now, and until when.
    distrusted: BTreeMap<PeerId, Time>,
    /// Whom to dial first, the best first: former homes, and those that were named instead of others.
    preferred: VecDeque<PeerId>,
    /// The home that was chosen at random, so that nobody can be sure to be chosen.
    wild: Option<PeerId>,
    /// Refusals that named others since the last welcome.
    sent_on: u32,
    /// Nobody is dialled in place of a lost home before.
    seek_at: Time,
    measures: TokenBucket,
    exchange: choice::Exchange,
    /// Since when there are fewer homes with the list than there should be, because one was lost.
    short_since: Option<Time>,
    /// True if this session began without knowing the network: then more than one home is asked for it.
    cold: bool,
    leaving: bool,
    /// The time of the last input.
    seen: Time,
}

impl Homes {
    /// No home yet, in the network of that name.
    pub fn new(me: PeerId, network: &str) -> Self {
        let per_second = limits::MEASURES_PER_HOUR / 3_600.0;
        Self {
            me,
            place: leaf_hash(&me),
            network: network_tag(network),
            targets: BTreeMap::new(),
            known: BTreeMap::new(),
            vain: Vain::default(),
            own: None,
            homes: BTreeMap::new(),
            distrusted: BTreeMap::new(),
            preferred: VecDeque::new(),
            wild: None,
            sent_on: 0,
            seek_at: Time::ZERO,
            measures: TokenBucket::new(Time::ZERO, per_second, limits::MEASURES_PER_HOUR),
            exchange: choice::Exchange::default(),
            short_since: None,
            cold: true,
            leaving: false,
            seen: Time::ZERO,
        }
    }

    /// The homes by key: where they were dialled, and since when they are homes.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, SocketAddr, Time)> {
        self.homes.iter().map(|(peer, home)| (*peer, home.address, home.since))
    }

    /// True if that home is neither about to end nor gone as others say: it is asked before those that are.
    pub fn serves(&self, now: Time, peer: &PeerId) -> bool {
        self.homes.get(peer).is_some_and(|home| home.serves(now))
    }

    /// How many homes there are.
    pub fn len(&self) -> usize {
        self.homes.len()
    }

    /// True if the leaf is not in the network.
    pub fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    /// Ultrapeers in the network, as the homes tell: the largest of their counts.
    pub fn ultrapeers(&self) -> u32 {
        self.homes.values().map(|home| home.total).max().unwrap_or(0)
    }

    /// All ultrapeers that are known: descriptor, and whether it is a home.
    pub fn known(&self) -> impl Iterator<Item = (&Descriptor, bool)> {
        self.known.values().map(|known| (&known.descriptor, self.homes.contains_key(&known.descriptor.peer)))
    }

    /// Descriptors to keep for the next session, and to name to those who ask: homes first, and nothing that may be made up.
    pub fn remember(&self) -> Vec<SignedDescriptor> {
        let vouched = self.known.iter().filter(|(_, known)| known.vouched);
        let (homes, others): (Vec<_>, Vec<_>) = vouched.partition(|(peer, _)| self.homes.contains_key(*peer));
        let all = homes.into_iter().chain(others).map(|(_, known)| known.signed.clone());
        all.take(limits::REMEMBERED_ULTRAPEERS).collect()
    }

    /// Homes that count now.
    fn serving(&self, now: Time) -> usize {
        self.homes.values().filter(|home| home.serves(now)).count()
    }

    /// Homes that count now and have the list.
    fn holding(&self, now: Time) -> usize {
        self.homes.values().filter(|home| home.serves(now) && home.has_list).count()
    }

    fn dialling(&self) -> usize {
        let attempts = self.known.values().map(|known| &known.attempts).chain(self.targets.values());
        let attempts = attempts.chain(self.own.iter().map(|(_, attempts)| attempts));
        attempts.filter(|attempts| attempts.dialling.is_some()).count()
    }

    /// How many homes to keep: three, or as many as there can be. Those that end or are gone do not count.
    fn wanted(&self, now: Time) -> usize {
        if self.leaving {
            return 0;
        }
        let can_serve = |peer: &PeerId| self.homes.get(peer).is_none_or(|home| home.serves(now));
        let may_serve = |peer: &PeerId| can_serve(peer) && !self.is_distrusted(now, peer);
        let known = self.known.values().filter(|known| self.covers(known) && may_serve(&known.descriptor.peer)).count();
        let own = usize::from(self.covering_own().is_some() && can_serve(&self.me));
        limits::HOMES.min((known + own).max(self.serving(now)).max(1))
    }

    /// The ultrapeer in this node, if it covers this leaf's place.
    fn covering_own(&self) -> Option<&(Own, Attempts)> {
        self.own.as_ref().filter(|(own, _)| own.shard.covers(self.place))
    }

    /// This node serves, or covers something else, or does not serve any more.
    fn set_own(&mut self, cx: &mut Context<'_>, own: Option<Own>) {
        let me = self.me;
        match own {
            Some(own) => {
                let attempts = self.own.filter(|(known, _)| known.address == own.address);
                self.own = Some((own, attempts.map_or_else(|| Attempts::new(cx.now), |(_, attempts)| attempts)));
                self.place_home(cx, &me);
            }
            None if self.own.take().is_some() => {
                let ends = Some((cx.now, Why::Drained));
                self.falls_short(cx, &me, |home| home.ends = ends);
            }
            None => {}
        }
    }

    /// True if somebody is dialled there now.
    pub fn is_dialling(&self, address: SocketAddr) -> bool {
        let attempts = self.known.values().map(|known| &known.attempts).chain(self.targets.values());
        attempts.into_iter().any(|attempts| attempts.dialling == Some(address))
    }

    /// True if ultrapeers are known from whoever told of them.
    pub fn knows_some(&self) -> bool {
        !self.known.is_empty()
    }

    /// True if that ultrapeer is not to be a home for now, while there are others.
    pub fn is_distrusted(&self, now: Time, peer: &PeerId) -> bool {
        self.distrusted.get(peer).is_some_and(|until| now < *until)
    }

    /// A home is to be left, once there are others.
    fn distrust(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        let now = cx.now;
        self.distrusted.retain(|_, until| now < *until);
        if self.distrusted.len() >= limits::HOMES_DISTRUSTED {
            let first = self.distrusted.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            first.map(|peer| self.distrusted.remove(&peer));
        }
        self.distrusted.insert(peer, now + limits::HOME_DISTRUST);
        if self.wild == Some(peer) {
            self.wild = None;
        }
        self.falls_short(cx, &peer, |home| home.ends = Some((now, Why::Distrusted)));
    }

    fn covers(&self, known: &Known) -> bool {
        known.descriptor.shard.covers(self.place)
    }

    /// A home that covers another part of the leaf space now keeps this leaf's list until the leaf has moved: not all of
    /// its leaves move at once. One that never covered this leaf only tells it of others.
    fn place_home(&mut self, cx: &mut Context<'_>, peer: &PeerId) {
        let covered = if *peer == self.me {
            self.own.is_none() || self.covering_own().is_some()
        } else {
            self.known.get(peer).is_none_or(|known| self.covers(known))
        };
        let Some(home) = self.homes.get_mut(peer) else { return };
        match home.ends {
            Some((_, Why::Better)) if covered => home.ends = None,
            None if !covered => {
                let spread = if home.since == cx.now { Duration::ZERO } else { limits::MOVE_SPREAD };
                let at = cx.now + spread.mul_f64(cx.rng.random_range(0.0..1.0));
                home.ends = Some((at, Why::Better));
            }
            _ => {}
        }
    }

    /// A home does not count any more.
    fn falls_short(&mut self, cx: &mut Context<'_>, peer: &PeerId, why: impl FnOnce(&mut Home)) {
        let now = cx.now;
        let was_whole = self.holding(now) >= self.wanted(now);
        let sequence = self.known.get(peer).map_or(0, |known| known.descriptor.sequence);
        let Some(home) = self.homes.get_mut(peer) else { return };
        home.gone_with = sequence;
        if home.serves(now) {
            if was_whole {
                self.short_since.get_or_insert(now);
            }
            why(home);
            self.spread(cx, peer);
        } else {
            why(home);
        }
    }

    fn attached(
        &mut self,
        cx: &mut Context<'_>,
        peer: PeerId,
        address: SocketAddr,
        descriptor: Option<SignedDescriptor>,
    ) {
        let now = cx.now;
        if let Some(target) = self.targets.get_mut(&address) {
            *target = Attempts::new(now);
            // Whoever told of the target chose it: as good as random.
            self.wild.get_or_insert(peer);
        }
        let home = Home {
            address,
            since: now,
            total: 1,
            rtt: None,
            has_list: false,
            suspected: false,
            gone_with: 0,
            // Who is dialled all the same, for want of others, is left when these come.
            ends: self.is_distrusted(now, &peer).then_some((now, Why::Distrusted)),
            released: false,
            asked: None,
            slow: false,
        };
        if self.homes.is_empty() && std::mem::take(&mut self.sent_on) > 0 {
            // With a home there is time to find near ones.
            self.preferred.clear();
        }
        self.sent_on = 0;
        self.homes.insert(peer, home);
        self.exchange.begin(cx);
        if let Some(signed) = descriptor {
            self.learn(cx, signed, true);
        }
        if let Some(known) = self.known.get_mut(&peer) {
            known.attempts = Attempts::new(now);
            known.vouched |= known.descriptor.address == address;
        }
        if let Some((_, attempts)) = self.own.as_mut().filter(|_| peer == self.me) {
            *attempts = Attempts::new(now);
        }
        self.place_home(cx, &peer);
    }

    fn dial_failed(&mut self, cx: &mut Context<'_>, address: SocketAddr) {
        if let Some(target) = self.targets.get_mut(&address) {
            target.failed(cx);
        }
        if let Some((_, attempts)) = self.own.as_mut().filter(|(_, attempts)| attempts.dialling == Some(address)) {
            attempts.failed(cx);
        }
        for (peer, known) in &mut self.known {
            if known.attempts.dialling == Some(address) {
                known.attempts.failed(cx);
                if self.wild == Some(*peer) {
                    self.wild = None;
                }
                self.exchange.failed(peer);
            }
        }
        // In a large network nobody says who is gone, but there are enough others.
        let large = self.known.len() > limits::MEMBERS_PUSHED as usize;
        if large && !self.homes.is_empty() {
            let homes = &self.homes;
            self.known.retain(|peer, known| {
                homes.contains_key(peer) || known.attempts.failures < limits::DIALS_UNTIL_FORGOTTEN
            });
        }
    }

    fn refused(&mut self, cx: &mut Context<'_>, address: SocketAddr, alternatives: Vec<SignedDescriptor>) {
        let refusing = self.known.iter().find(|(_, known)| known.attempts.dialling == Some(address));
        let refusing = refusing.map(|(peer, _)| *peer);
        self.dial_failed(cx, address);
        if alternatives.is_empty() {
            return;
        }
        self.sent_on += 1;
        self.prefer(cx, alternatives, false);
        // It will not have more room in a moment, unless there is nobody else.
        if let Some(known) = refusing.filter(|_| !self.homes.is_empty()).and_then(|peer| self.known.get_mut(&peer)) {
            known.attempts.at = cx.now + limits::REFUSED_PAUSE.mul_f64(cx.rng.random_range(0.75..1.25));
        }
    }

    fn lost(&mut self, cx: &mut Context<'_>, peer: PeerId, out: &mut Outbox<Output>) {
        let gone_with = self.homes.get(&peer).map_or(0, |home| home.gone_with);
        self.falls_short(cx, &peer, |_| ());
        let Some(home) = self.homes.remove(&peer) else { return };
        out.push(Output::Changed);
        if self.wild == Some(peer) {
            self.wild = None;
        }
        if let Some((_, attempts)) = self.own.as_mut().filter(|_| peer == self.me) {
            attempts.failed(cx);
        }
        let drained = matches!(home.ends, Some((_, Why::Drained)));
        // A home that was lost is tried again after a moment, as it may only have restarted, unless others have found
        // it gone, or it said so itself.
        let is_back = self.known.get(&peer).is_some_and(|known| known.descriptor.sequence > gone_with);
        if home.suspected || drained {
            if !is_back {
                self.known.remove(&peer);
            }
        } else if let Some(known) = self.known.get_mut(&peer) {
            known.attempts.failed(cx);
            if home.released {
                known.attempts.at = cx.now + limits::REFUSED_PAUSE;
            }
        }
        if self.homes.is_empty() {
            self.targets.values_mut().for_each(|target| target.postpone(cx));
        }
    }

    /// Those who lose a home together do not all dial at once, if they can be many for each ultrapeer that is left: at
    /// most as many as the home takes, over all others. Whoever has no other home waits for a moment only.
    fn spread(&mut self, cx: &mut Context<'_>, lost: &PeerId) {
        let others = self.ultrapeers().saturating_sub(1).max(1);
        let capacity = self.known.get(lost).map_or(0, |known| known.descriptor.capacity);
        let has_other = self.homes.iter().any(|(peer, home)| peer != lost && home.serves(cx.now));
        let most = if has_other { limits::RETURN_SPREAD } else { limits::REDIAL_MIN };
        let span = (limits::RETURN_SPACING * (capacity / others)).min(most);
        self.seek_at = cx.now + span.mul_f64(cx.rng.random_range(0.0..1.0));
    }

    /// Dials as many as are needed and due: known ultrapeers, and join targets while homeless.
    fn seek(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        if self.leaving {
            return;
        }
        let now = cx.now;
        self.dial_own(now, out);
        let mut room = self.wanted(now).saturating_sub(self.serving(now) + self.dialling());
        if self.homes.is_empty() && self.sent_on > 0 {
            room = room.min(1);
        }
        while room > 0 && self.seek_at <= now {
            let Some(peer) = self.choose(cx, room, out) else { break };
            self.dial(peer, out);
            room -= 1;
        }
        if room > 0 {
            self.ask_for_others(now, out);
        }
        if !self.homes.is_empty() {
            return;
        }
        // A target where a known ultrapeer is dialled already would be dialled twice: the second connection would
        // only replace the first.
        let under_way: BTreeSet<_> = self.known.values().filter_map(|known| known.attempts.dialling).collect();
        let insists = self.insists();
        for (address, target) in &mut self.targets {
            if target.is_due(now) && !under_way.contains(address) {
                target.dialling = Some(*address);
                out.push(Output::Dial { address: *address, peer: None, insists });
            }
        }
    }

    /// The ultrapeer in this node is a home first of all: nobody is nearer, and what it lacks is seen here first.
    fn dial_own(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.homes.contains_key(&self.me) || self.covering_own().is_none() {
            return;
        }
        if let Some((own, attempts)) = self.own.as_mut().filter(|(_, attempts)| attempts.is_due(now)) {
            attempts.dialling = Some(own.address);
            out.push(Output::Dial { address: own.address, peer: Some(self.me), insists: true });
        }
    }

    /// When it is dialled next.
    fn own_deadline(&self) -> Option<Time> {
        let (_, attempts) = self.covering_own().filter(|_| !self.homes.contains_key(&self.me))?;
        attempts.dialling.is_none().then_some(attempts.at)
    }

    /// Asks a home for others when none of those that are known can be dialled, or too few are known.
    fn ask_for_others(&mut self, now: Time, out: &mut Outbox<Output>) {
        let total = self.ultrapeers();
        let enough = self.known.len() >= total.min(limits::MEMBERS_PUSHED) as usize;
        let usable = self
            .known
            .iter()
            .any(|(peer, known)| !self.homes.contains_key(peer) && self.covers(known) && known.attempts.failures == 0);
        // In a small network a home tells of all by itself.
        if enough && (usable || total <= limits::MEMBERS_PUSHED) {
            return;
        }
        let longest = self.homes.iter().filter(|(_, home)| home.serves(now)).min_by_key(|(_, home)| home.asked);
        if let Some(peer) = longest.map(|(peer, _)| *peer) {
            self.ask_members(now, peer, out);
        }
    }

    fn dial(&mut self, peer: PeerId, out: &mut Outbox<Output>) {
        let insists = self.insists();
        if let Some(known) = self.known.get_mut(&peer) {
            let address = known.descriptor.address;
            known.attempts.dialling = Some(address);
            out.push(Output::Dial { address, peer: Some(peer), insists });
        }
    }

    /// Whoever has no home is sent on once; others a few times, then they have seen enough.
    fn insists(&self) -> bool {
        self.sent_on >= if self.homes.is_empty() { 1 } else { limits::TIMES_SENT_ON }
    }

    /// Leaves homes that end, and those that are too many, once others have the list.
    fn release(&mut self, now: Time, out: &mut Outbox<Output>) {
        let holding = self.holding(now);
        let reachable = |(peer, known): &(&PeerId, &Known)| {
            let is_fit = self.covers(known) && !self.is_distrusted(now, peer);
            is_fit && known.attempts.failures == 0 && !self.homes.contains_key(*peer)
        };
        let possible = self.serving(now) + self.known.iter().filter(reachable).count();
        if holding == 0 || holding < limits::HOMES.min(possible) {
            return;
        }
        for (peer, home) in &mut self.homes {
            if let Some((_, why)) = home.ends.filter(|(at, _)| *at <= now && !home.released) {
                home.released = true;
                out.push(Output::Release(*peer, why));
            }
        }
        if holding > limits::HOMES {
            let old = self.exchange.replaced().filter(|old| self.serves(now, old));
            if let Some(peer) = old.or_else(|| self.worst(now))
                && let Some(home) = self.homes.get_mut(&peer)
            {
                home.released = true;
                self.exchange.done();
                out.push(Output::Release(peer, Why::Better));
            }
        }
    }

    /// Leaves homes that are not needed, and says when none is missing any more.
    fn settle(&mut self, now: Time, out: &mut Outbox<Output>) {
        self.release(now, out);
        if self.holding(now) > 0 && self.holding(now) >= self.wanted(now) {
            out.extend(self.short_since.take().map(|since| Output::Restored(now.since(since))));
        }
    }
}

impl Machine for Homes {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        self.seen = cx.now;
        match input {
            Input::Targets(addresses) => {
                self.targets.retain(|address, _| addresses.contains(address));
                // Those who were homes before are as good, and already dialled.
                let head_start = if self.dialling() > 0 { limits::HEAD_START } else { Duration::ZERO };
                for address in addresses.into_iter().take(limits::JOIN_TARGETS) {
                    self.targets.entry(address).or_insert_with(|| Attempts::new(cx.now + head_start));
                }
            }
            Input::Remembered(descriptors) => self.remembered(cx, descriptors),
            Input::Members { from, members } => self.members(cx, from, members, out),
            Input::Attached { peer, address, descriptor } => {
                self.attached(cx, peer, address, descriptor);
                out.push(Output::Changed);
            }
            Input::Refused { address, alternatives } => self.refused(cx, address, alternatives),
            Input::Named(alternatives) => self.prefer(cx, alternatives, false),
            Input::DialFailed(address) => {
                self.dial_failed(cx, address);
                self.forget_named(cx.now, address);
            }
            Input::Measured(peer, distance) => self.measured(cx, peer, distance, out),
            Input::RoundTrip(peer, rtt) => {
                if let Some(home) = self.homes.get_mut(&peer) {
                    home.rtt = Some(rtt);
                }
            }
            Input::Acknowledged(peer) => {
                if let Some(home) = self.homes.get_mut(&peer) {
                    home.has_list = true;
                }
            }
            Input::Alive(peer) => {
                if let Some(home) = self.homes.get_mut(&peer) {
                    home.suspected = false;
                }
            }
            Input::Draining { peer, alternatives } => {
                let ends = Some((cx.now, Why::Drained));
                self.falls_short(cx, &peer, |home| home.ends = ends);
                self.prefer(cx, alternatives, true);
            }
            Input::Lost(peer) => self.lost(cx, peer, out),
            Input::Distrust(peer) => self.distrust(cx, peer),
            Input::Own(own) => self.set_own(cx, own),
            Input::Leave => self.leaving = true,
        }
        self.settle(cx.now, out);
        self.seek(cx, out);
    }

    fn next_deadline(&self) -> Option<Time> {
        if self.leaving {
            return None;
        }
        let ends = self.homes.values().filter(|home| !home.released).filter_map(|home| home.ends);
        let ends = ends.map(|(at, _)| at).filter(|at| *at > self.seen).min();
        [self.seek_deadline(), self.own_deadline(), ends, self.exchange.next_deadline()].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        self.seen = cx.now;
        self.end_measuring(cx.now);
        self.look(cx, out);
        self.settle(cx.now, out);
        self.seek(cx, out);
        // As in `seek_deadline`: without a home nobody waits for measurements.
        if self.is_measuring() && !self.homes.is_empty() {
            return; // and then dials
        }
        // Whatever is due and was not dialled, for want of room or because somebody is dialled there, is looked at
        // again after a moment.
        let later = cx.now + limits::REDIAL_MIN;
        let known = self.known.values_mut().map(|known| &mut known.attempts);
        for attempts in known.chain(self.targets.values_mut()).filter(|attempts| attempts.is_due(cx.now)) {
            attempts.at = later;
        }
    }
}
