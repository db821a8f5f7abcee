//! Which descriptors count: those of nodes that members let in.
//!
//! A descriptor counts with enough endorsements of members, of those that vote on it. Once it counts, later ones of the
//! same admission count too, also after the peer was found gone; who withdrew must be let in anew. What does not count
//! (yet) waits: its endorsers may be on their way. A node that does not serve itself, or gives up its own network for
//! another, believes whoever lets it in.

use std::collections::BTreeMap;

use super::{Alarm, Input, Membership, Output};
use crate::{
    address::network_prefix,
    election,
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    time::Time,
    wire::descriptor::{Descriptor, Endorsement, SignedDescriptor},
};

/// Descriptors whose endorsers are not known.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    known: BTreeMap<PeerId, Candidate>,
}

#[derive(Debug)]
struct Candidate {
    signed: SignedDescriptor,
    descriptor: Descriptor,
    from: PeerId,
    expires: Time,
}

/// Whose word is taken for who is a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adopted {
    until: Time,
}

impl Membership {
    /// The endorsements of this node's own descriptor, from now on.
    pub(super) fn set_endorsements(&mut self, now: Time, endorsements: Vec<Endorsement>) {
        if self.endorsements != endorsements {
            self.endorsements = endorsements;
            self.renew_own(now);
        }
    }

    /// What this node would say of itself: what others endorse. `None` while it does not know its address.
    pub fn candidate(&self) -> Option<Descriptor> {
        self.own_descriptor(limits::DESCRIPTOR_LIFETIME_S)
    }

    /// [`Self::candidate`], signed, with the endorsements that it has.
    pub fn application(&self) -> Option<SignedDescriptor> {
        let endorsements = self.endorsements.iter().copied();
        Some(self.candidate()?.sign_endorsed(&self.identity, endorsements))
    }

    /// True if that node was let in again and again, and each time answered nobody any more soon after.
    pub fn falls_silent(&self, now: Time, peer: &PeerId) -> bool {
        let tombstone = self.tombstones.get(peer).filter(|tombstone| now < tombstone.until);
        tombstone.is_some_and(|tombstone| tombstone.short_lives >= limits::SHORT_LIVES)
    }

    /// What its endorsers found a member to be worth: the lowest that they said, as far as they are known; `None` if
    /// they said nothing.
    pub fn score_of(&self, peer: &PeerId) -> Option<u16> {
        let endorsements = self.descriptor_of(peer)?.endorsements();
        endorsements.iter().map(|endorsement| endorsement.score).min()
    }

    /// When a member came into the view.
    pub fn member_since(&self, peer: &PeerId) -> Option<Time> {
        self.members.get(peer).map(|member| member.since)
    }

    /// How many members endorse this node.
    pub fn endorsers(&self) -> usize {
        self.candidate().map_or(0, |own| self.endorsers_of(&self.endorsements, &own))
    }

    /// True if that node is linked, and says that it serves, but does not count here.
    pub fn is_foreign(&self, peer: &PeerId) -> bool {
        self.links.contains_key(peer) && !self.members.contains_key(peer) && self.waiting.known.contains_key(peer)
    }

    /// Nodes that say that they serve, and do not count here: who they are, and where.
    pub fn foreigners(&self) -> impl Iterator<Item = &Descriptor> {
        self.waiting.known.values().map(|candidate| &candidate.descriptor)
    }

    /// The lowest key of the members, this node's own included.
    pub fn lowest(&self) -> PeerId {
        self.members.keys().next().map_or(self.me, |first| self.me.min(*first))
    }

    /// From now on for a while, whoever says that it serves is believed: this node gives up its own network.
    pub(super) fn adopt(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        self.adopted = Some(Adopted { until: cx.now + limits::ADOPTION });
        self.reconsider(cx, out);
    }

    /// True if a descriptor counts.
    pub(super) fn counts(&self, now: Time, signed: &SignedDescriptor, descriptor: &Descriptor) -> bool {
        if !self.regime.has_votes() || !self.serving || self.adopted.is_some_and(|adopted| now < adopted.until) {
            return true;
        }
        let same = |before: &Descriptor| {
            (before.address, before.admission, before.volunteer)
                == (descriptor.address, descriptor.admission, descriptor.volunteer)
        };
        if self.members.get(&descriptor.peer).is_some_and(|member| same(&member.descriptor)) {
            return true;
        }
        // Votes of before it withdrew are for what it withdrew from.
        let tombstone = self.tombstones.get(&descriptor.peer).filter(|tombstone| now < tombstone.until);
        if tombstone.is_some_and(|tombstone| tombstone.farewell && descriptor.admission <= tombstone.sequence) {
            return false;
        }
        let lasts = !self.falls_silent(now, &descriptor.peer);
        let buried = self.tombstones.get(&descriptor.peer).filter(|tombstone| !tombstone.farewell && lasts);
        let counted = buried.and_then(|tombstone| tombstone.signed.read().ok()).is_some_and(|before| same(&before));
        (counted || self.endorsers_of(signed.endorsements(), descriptor) >= election::needed(self.total()))
            && self.crowding(descriptor).is_some()
    }

    /// Members that would be too many in their part of the Internet with one that is to count; `None` if that one would
    /// be. Those with the lowest keys stay, so that all views agree, whatever came first: voters see to it that they are
    /// not too many, but some who each had their votes may hold them back and come all at once.
    pub(super) fn crowding(&self, newcomer: &Descriptor) -> Option<Vec<PeerId>> {
        let mut surplus = Vec::new();
        if !self.regime.is_strict(newcomer.address.ip()) {
            return Some(surplus);
        }
        for (most, v4_bits, v6_bits) in election::places(self.total()) {
            let part = |address| network_prefix(address, v4_bits, v6_bits);
            let own = part(newcomer.address);
            let others = self.members.values().map(|member| &member.descriptor);
            let near = others.filter(|other| other.peer != newcomer.peer && part(other.address) == own);
            let mut all: Vec<PeerId> = near.map(|other| other.peer).chain([newcomer.peer]).collect();
            all.sort_unstable();
            let beyond = all.split_off(all.len().min(most as usize));
            if beyond.contains(&newcomer.peer) {
                return None;
            }
            surplus.extend(beyond);
        }
        Some(surplus)
    }

    /// Members that endorse what a descriptor says, and may.
    fn endorsers_of(&self, endorsements: &[Endorsement], descriptor: &Descriptor) -> usize {
        let mut endorsers: Vec<PeerId> = Vec::new();
        for endorsement in endorsements {
            let Some(endorser) = self.member_by(endorsement.by).filter(|by| **by != descriptor.peer) else { continue };
            if !endorsers.contains(endorser)
                && endorsement.is_by(endorser, descriptor)
                && self.votes_on(endorser, descriptor)
            {
                endorsers.push(*endorser);
            }
        }
        endorsers.len()
    }

    /// The member, or this node, whose key begins with these bytes.
    fn member_by(&self, first: [u8; 8]) -> Option<&PeerId> {
        if self.me.first_bytes() == first {
            return self.serving.then_some(&self.me);
        }
        let mut lowest = [0; 32];
        lowest[..8].copy_from_slice(&first);
        let found = self.members.range(PeerId(lowest)..).next().map(|(peer, _)| peer);
        found.filter(|peer| peer.first_bytes() == first)
    }

    /// True if that member is among those that vote on a candidate, or nearly.
    fn votes_on(&self, voter: &PeerId, candidate: &Descriptor) -> bool {
        if !self.regime.is_strict(candidate.address.ip()) {
            return true;
        }
        let own = self.candidate();
        let of = |peer: &PeerId| self.get(peer).or_else(|| own.as_ref().filter(|own| own.peer == *peer));
        let Some(rank) = of(voter).map(|voter| election::rank(candidate, voter)) else { return false };
        let others = self.members.values().map(|member| &member.descriptor).chain(&own);
        let lower = others.filter(|other| other.peer != candidate.peer && election::rank(candidate, other) < rank);
        lower.count() < limits::VOTERS + limits::VOTERS_SLACK
    }

    /// Keeps a descriptor until it counts.
    pub(super) fn wait(
        &mut self,
        cx: &mut Context<'_>,
        from: PeerId,
        signed: SignedDescriptor,
        descriptor: Descriptor,
        expires: Time,
    ) {
        let peer = descriptor.peer;
        let known = self.waiting.known.get(&peer).map(|known| known.descriptor.sequence);
        if known.is_some_and(|known| known > descriptor.sequence) {
            self.refused.outdated += u64::from(peer != from);
            return;
        }
        if self.waiting.known.len() >= limits::WAITING_MEMBERS && !self.waiting.known.contains_key(&peer) {
            self.refused.full += 1;
            return;
        }
        let before = self.waiting.known.insert(peer, Candidate { signed, descriptor, from, expires });
        if before.is_none() {
            self.refused.unendorsed += 1;
            self.set_alarm(cx.now + limits::WAITING_LOOK, Alarm::Waiting);
        }
    }

    /// A member joined, or views changed otherwise: do some of those that wait count now?
    pub(super) fn reconsider(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        loop {
            self.waiting.known.retain(|_, candidate| cx.now < candidate.expires);
            let counts = |candidate: &&Candidate| self.counts(cx.now, &candidate.signed, &candidate.descriptor);
            let Some(peer) = self.waiting.known.values().find(counts).map(|candidate| candidate.descriptor.peer) else {
                return;
            };
            let Some(candidate) = self.waiting.known.remove(&peer) else { return };
            let left = candidate.expires.since(cx.now);
            let known = self.members.get(&peer).map(|member| member.descriptor.sequence);
            if known.is_none_or(|known| known < candidate.descriptor.sequence) {
                self.accept(cx, candidate.from, candidate.signed, candidate.descriptor, left, out);
            }
        }
    }

    /// Looks at those that wait, and again after a while if there are any.
    pub(super) fn look_at_waiting(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        self.reconsider(cx, out);
        if !self.waiting.known.is_empty() {
            self.set_alarm(cx.now + limits::WAITING_LOOK, Alarm::Waiting);
        }
    }

    /// That peer does not wait any more.
    pub(super) fn waits_no_more(&mut self, peer: &PeerId) {
        self.waiting.known.remove(peer);
    }

    /// What this node is let in for from now on: earlier endorsements speak of something else.
    pub(super) fn begin_admission(&mut self, volunteer: bool) {
        self.sequence = self.sequence.saturating_add(1);
        self.admission = self.sequence;
        self.volunteer = volunteer;
        self.endorsements.clear();
    }
}

impl Input {
    /// True of what can change who counts.
    pub(super) const fn changes_view(&self) -> bool {
        matches!(self, Self::Heard { .. } | Self::Message { .. } | Self::LinkUp(_))
    }
}
