//! Whom to dial: all mates, some members of each other part of the leaf space, and now and then those that are gone
//! or were remembered from an earlier session.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use rand::RngExt;

use super::{Alarm, Member, Membership, Output, buckets::send_news, choose};
use crate::{
    address::network_prefix,
    credit::TokenBucket,
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    time::Time,
    wire::{
        descriptor::{ShardPrefix, SignedDescriptor},
        hello::Contact,
        mesh::Sync,
    },
};

/// A link that is up.
#[derive(Debug)]
pub(super) struct Link {
    since: Time,
    /// Credit for claims that others are suspect or gone.
    pub(super) claims: TokenBucket,
    /// Credit for comparisons.
    pub(super) comparisons: TokenBucket,
}

/// What is done to link a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    /// Nothing: it is linked, or needs not be.
    Idle,
    /// It is dialled then.
    Due(Time),
    /// It is being dialled.
    UnderWay,
}

/// Addresses to try now and then.
#[derive(Debug, Default)]
pub(super) struct Hints {
    known: BTreeMap<PeerId, Hint>,
    /// Those to try soon, while no link is up.
    waiting: VecDeque<PeerId>,
    /// Nodes that may know others, the next one first.
    contacts: VecDeque<Contact>,
    /// Networks into which a node was dialled that somebody named, and when.
    tried: BTreeMap<u64, Time>,
    alarm: Option<Time>,
}

#[derive(Debug)]
struct Hint {
    address: SocketAddr,
    /// How long it was a member. Who stayed long is likely to be there again, and is forgotten last. `None` of one that
    /// somebody named: it is dialled once.
    stayed: Option<Duration>,
}

impl Hints {
    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.known.remove(peer);
    }

    /// Where to dial that one, if it may be dialled now. One that somebody named is forgotten, and for
    /// [`limits::HINT_AGAIN`] nobody else is dialled in its network who is only named.
    fn take(&mut self, now: Time, peer: PeerId) -> Option<SocketAddr> {
        let hint = self.known.get(&peer)?;
        let (address, stayed) = (hint.address, hint.stayed);
        if stayed.is_none() {
            self.known.remove(&peer);
            return self.try_once(now, address).then_some(address);
        }
        Some(address)
    }

    /// True if nobody was dialled in that network for [`limits::HINT_AGAIN`] who is only named; one is now.
    fn try_once(&mut self, now: Time, address: SocketAddr) -> bool {
        self.tried.retain(|_, at| now.since(*at) < limits::HINT_AGAIN);
        let network = network_prefix(address, 24, 48);
        let may = self.tried.len() < limits::HINTS_FAILED && !self.tried.contains_key(&network);
        if may {
            self.tried.insert(network, now);
        }
        may
    }

    /// The next of the nodes that may know others and may be dialled now. Who may not now keeps its place.
    fn next_contact(&mut self, now: Time) -> Option<Contact> {
        for place in 0..self.contacts.len() {
            let contact = self.contacts[place];
            if self.try_once(now, contact.address) {
                self.contacts.remove(place);
                self.contacts.push_back(contact);
                return Some(contact);
            }
        }
        None
    }
}

impl Membership {
    /// Descriptors without a living witness: `kept` from an earlier session, or named by one that refused this node.
    pub(super) fn hear_hints(
        &mut self,
        cx: &mut Context<'_>,
        descriptors: &[SignedDescriptor],
        kept: bool,
        out: &mut Outbox<Output>,
    ) {
        for signed in descriptors {
            let descriptor = match signed.open() {
                Ok(descriptor) if descriptor.network == self.network => descriptor,
                Ok(_) => {
                    self.refused.other_network += 1;
                    continue;
                }
                Err(_) => {
                    self.refused.forged += 1;
                    continue;
                }
            };
            let peer = descriptor.peer;
            if peer != self.me && !self.members.contains_key(&peer) && !self.hints.known.contains_key(&peer) {
                // As if it had stayed as long as its descriptor counts.
                let stayed = kept.then(|| descriptor.lifetime());
                self.add_hint(cx.now, peer, Hint { address: descriptor.address, stayed });
                self.hints.waiting.push_back(peer);
                self.hints.waiting.truncate(limits::GONE_MEMBERS);
            }
        }
        for _ in 0..limits::HINTS_AT_ONCE {
            self.dial_waiting(cx.now, out);
        }
        if !self.hints.waiting.is_empty() {
            self.set_hint_alarm(cx.now + limits::HINT_PAUSE);
        }
    }

    /// Nodes that may know others.
    pub(super) fn keep_contacts(&mut self, now: Time, contacts: Vec<Contact>) {
        self.hints.contacts = contacts.into_iter().take(limits::CONTACTS_KEPT).collect();
        if self.hints.alarm.is_none() && !self.hints.contacts.is_empty() {
            self.set_hint_alarm(now + limits::REDIAL_MAX);
        }
    }

    /// A member is gone: it is looked for now and then.
    pub(super) fn look_for(&mut self, now: Time, peer: PeerId, address: SocketAddr, stayed: Duration) {
        self.add_hint(now, peer, Hint { address, stayed: Some(stayed) });
    }

    fn add_hint(&mut self, now: Time, peer: PeerId, hint: Hint) {
        self.hints.known.insert(peer, hint);
        if self.hints.known.len() > limits::GONE_MEMBERS {
            let shortest = self.hints.known.iter().min_by_key(|(_, hint)| hint.stayed).map(|(peer, _)| *peer);
            shortest.and_then(|peer| self.hints.known.remove(&peer));
        }
        if self.hints.alarm.is_none() {
            self.set_hint_alarm(now + limits::GONE_REDIAL);
        }
    }

    fn set_hint_alarm(&mut self, at: Time) {
        if let Some(before) = self.hints.alarm.replace(at) {
            self.agenda.remove(&(before, Alarm::Hint));
        }
        self.set_alarm(at, Alarm::Hint);
    }

    fn dial_waiting(&mut self, now: Time, out: &mut Outbox<Output>) {
        while let Some(peer) = self.hints.waiting.pop_front() {
            if let Some(address) = self.hints.take(now, peer) {
                return out.push(Output::Dial { peer, address });
            }
        }
    }

    /// Dials one that is gone or was remembered, or one that may know others; in a small network, which may be a part of
    /// another, rather these.
    pub(super) fn dial_hint(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        self.hints.alarm = None;
        if self.links.is_empty() && !self.hints.waiting.is_empty() {
            self.dial_waiting(cx.now, out);
            return self.set_hint_alarm(cx.now + limits::HINT_PAUSE);
        }
        self.hints.waiting.clear();
        if self.hints.known.is_empty() && self.hints.contacts.is_empty() {
            return;
        }
        let is_small = self.total() <= limits::SMALL_NETWORK;
        let asks_contact = is_small || self.hints.known.is_empty() || cx.rng.random_bool(0.5);
        let contact = if asks_contact { self.hints.next_contact(cx.now) } else { None };
        let dialled = contact.map(|contact| (contact.peer, contact.address)).or_else(|| {
            let pick = cx.rng.random_range(0..self.hints.known.len().max(1));
            let peer = self.hints.known.keys().nth(pick).copied()?;
            Some((peer, self.hints.take(cx.now, peer)?))
        });
        if let Some((peer, address)) = dialled.filter(|(peer, _)| !self.links.contains_key(peer)) {
            out.push(Output::Dial { peer, address });
        }
        let pause = if self.links.is_empty() || is_small { limits::REDIAL_MAX } else { limits::GONE_REDIAL };
        self.set_hint_alarm(cx.now + pause.mul_f64(cx.rng.random_range(0.75..1.25)));
    }

    pub(super) fn link_up(&mut self, cx: &mut Context<'_>, peer: PeerId, out: &mut Outbox<Output>) {
        let now = cx.now;
        let claims = (self.members.len() + limits::CLAIMS) as f64;
        let link = Link {
            since: now,
            claims: TokenBucket::new(now, limits::CLAIMS_RATE, claims),
            comparisons: TokenBucket::new(now, limits::SYNC_RATE, limits::SYNC_BURST),
        };
        if let Some(Member { descriptor, .. }) = self.members.get(&peer) {
            self.hints.tried.remove(&network_prefix(descriptor.address, 24, 48));
        }
        // Who makes a new link in place of the old gets no new credit.
        let before = self.links.remove(&peer);
        self.links.insert(peer, before.map_or(link, |before| Link { since: now, ..before }));
        if let Some(member) = self.members.get_mut(&peer) {
            (member.linked, member.dial, member.strikes, member.round_trip) = (true, Dial::Idle, 0, None);
            self.trust(peer, out);
        }
        // How far it is and how busy.
        self.check(cx, peer, None, out);
        self.reschedule(peer);
        self.start_alarms(cx);
        send_news(peer, self.own_aged().into_iter().collect(), Vec::new(), out);
        if self.me < peer {
            Self::send(peer, Sync { digest: self.buckets.digest() }, out);
        }
    }

    pub(super) fn link_down(&mut self, cx: &mut Context<'_>, peer: PeerId, in_order: bool, out: &mut Outbox<Output>) {
        let Some(link) = self.links.remove(&peer) else { return };
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.linked = false;
        let part = member.descriptor.shard;
        // A link that lasted is made anew at once. Others are not given up either, but cost some patience.
        let lasted = cx.now.since(link.since) >= limits::REDIAL_MAX;
        member.pause = if lasted { Duration::ZERO } else { limits::REDIAL_MIN };
        if in_order {
            self.pronounce_gone(cx.now, peer, out);
        } else if self.shard.overlaps(part) {
            member.dial = Dial::Due(cx.now + member.pause.mul_f64(cx.rng.random_range(0.75..1.25)));
            self.check(cx, peer, None, out);
            self.reschedule(peer);
        } else {
            self.trust(peer, out);
            self.untended.insert(part);
            self.reschedule(peer);
        }
    }

    /// A link on which nothing comes is given up. No `LinkDown` follows.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, peer: PeerId, out: &mut Outbox<Output>) {
        if self.links.contains_key(&peer) {
            out.push(Output::Close(peer));
            self.link_down(cx, peer, false, out);
        }
    }

    pub(super) fn dial_failed(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        let Some(member) = self.members.get_mut(&peer).filter(|member| member.dial == Dial::UnderWay) else { return };
        member.pause = longer(member.pause);
        if self.shard.overlaps(member.descriptor.shard) {
            member.dial = Dial::Due(cx.now + member.pause.mul_f64(cx.rng.random_range(0.75..1.25)));
        } else {
            member.dial = Dial::Idle;
            self.untended.insert(member.descriptor.shard);
        }
        self.reschedule(peer);
    }

    /// Sees to it that a mate gets linked.
    pub(super) fn dial_if_mate(&mut self, now: Time, peer: PeerId) {
        // Of a node that does not serve yet the other knows nothing.
        let dials = self.me < peer || !self.serving;
        let courtesy = if dials { Duration::ZERO } else { limits::DIAL_COURTESY };
        let Some(member) = self.members.get_mut(&peer) else { return };
        if !member.linked && member.dial == Dial::Idle && self.shard.overlaps(member.descriptor.shard) {
            member.dial = Dial::Due(now + courtesy);
        }
    }

    /// Sees to it that the parts that changed are linked.
    pub(super) fn tend_parts(&mut self, cx: &mut Context<'_>) {
        for part in std::mem::take(&mut self.untended) {
            self.tend(cx, part);
        }
    }

    /// Sees to it that some members of another part are linked.
    fn tend(&mut self, cx: &mut Context<'_>, part: ShardPrefix) {
        let Some(peers) = self.parts.get(&part).filter(|_| !self.shard.overlaps(part)) else { return };
        let members = || peers.iter().filter_map(|peer| self.members.get(peer));
        let have = members().filter(|member| member.linked || member.dial != Dial::Idle).count();
        let free = members().filter(|member| !member.linked && member.dial == Dial::Idle);
        let mut free: Vec<_> = free.map(|member| (member.descriptor.peer, member.pause)).collect();
        // At random, but rather those that did not fail lately.
        let everyone = free.len();
        choose(&mut free, everyone, cx.rng);
        free.sort_by_key(|(_, pause)| *pause);
        for (peer, pause) in free.into_iter().take(limits::LINKS_PER_PART.saturating_sub(have)) {
            if let Some(member) = self.members.get_mut(&peer) {
                member.dial = Dial::Due(cx.now + pause);
            }
            self.reschedule(peer);
        }
    }

    pub(super) fn set_shard(&mut self, now: Time, shard: ShardPrefix, out: &mut Outbox<Output>) {
        if self.shard == shard || !shard.is_canonical() {
            return;
        }
        self.shard = shard;
        self.renew_own(now);
        self.untended = self.parts.keys().copied().collect();
        for peer in self.members.keys().copied().collect::<Vec<_>>() {
            let Some(member) = self.members.get_mut(&peer) else { continue };
            let is_mate = shard.overlaps(member.descriptor.shard);
            if !is_mate && !member.linked {
                if matches!(member.dial, Dial::Due(_)) {
                    member.dial = Dial::Idle;
                }
                self.trust(peer, out);
            }
            self.dial_if_mate(now, peer);
            self.reschedule(peer);
        }
    }

    /// A member declares that part no more.
    pub(super) fn leave_part(&mut self, peer: &PeerId, part: ShardPrefix) {
        if let Some(peers) = self.parts.get_mut(&part) {
            peers.remove(peer);
            if peers.is_empty() {
                self.parts.remove(&part);
            }
        }
    }
}

/// The next pause after one.
fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(limits::REDIAL_MIN, limits::REDIAL_MAX)
}
