//! Whom to dial: all mates, some members of each other part of the leaf space, and now and then those that are gone
//! or were remembered from an earlier session.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use rand::RngExt;

use super::{Alarm, Membership, Output, buckets::send_news, choose};
use crate::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    time::Time,
    wire::{
        descriptor::{ShardPrefix, SignedDescriptor},
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
    alarm: Option<Time>,
}

#[derive(Debug)]
struct Hint {
    address: SocketAddr,
    /// How long it was a member. Who stayed long is likely to be there again, and is forgotten last.
    stayed: Duration,
}

impl Hints {
    pub(super) fn remove(&mut self, peer: &PeerId) {
        self.known.remove(peer);
    }
}

impl Membership {
    /// Descriptors without a living witness: of an earlier session, or named by one that refused this node.
    pub(super) fn hear_hints(
        &mut self,
        cx: &mut Context<'_>,
        descriptors: &[SignedDescriptor],
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
                self.add_hint(cx.now, peer, descriptor.address, descriptor.lifetime());
                self.hints.waiting.push_back(peer);
                self.hints.waiting.truncate(limits::GONE_MEMBERS);
            }
        }
        for _ in 0..limits::HINTS_AT_ONCE {
            self.dial_waiting(out);
        }
        if !self.hints.waiting.is_empty() {
            self.set_hint_alarm(cx.now + limits::HINT_PAUSE);
        }
    }

    pub(super) fn add_hint(&mut self, now: Time, peer: PeerId, address: SocketAddr, stayed: Duration) {
        self.hints.known.insert(peer, Hint { address, stayed });
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

    fn dial_waiting(&mut self, out: &mut Outbox<Output>) {
        while let Some(peer) = self.hints.waiting.pop_front() {
            if let Some(hint) = self.hints.known.get(&peer) {
                return out.push(Output::Dial { peer, address: hint.address });
            }
        }
    }

    /// Dials one that is gone or was remembered.
    pub(super) fn dial_hint(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        self.hints.alarm = None;
        if self.links.is_empty() && !self.hints.waiting.is_empty() {
            self.dial_waiting(out);
            return self.set_hint_alarm(cx.now + limits::HINT_PAUSE);
        }
        self.hints.waiting.clear();
        if self.hints.known.is_empty() {
            return;
        }
        let pick = cx.rng.random_range(0..self.hints.known.len());
        if let Some((peer, hint)) = self.hints.known.iter().nth(pick) {
            out.push(Output::Dial { peer: *peer, address: hint.address });
        }
        let pause = if self.links.is_empty() { limits::REDIAL_MAX } else { limits::GONE_REDIAL };
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
