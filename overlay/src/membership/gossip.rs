//! What is news, what is old, what is refused, and to whom news goes.

use std::time::Duration;

use super::{Alarm, Member, Membership, Output, State, buckets::send_news, choose, links::Dial};
use crate::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    time::Time,
    wire::{
        descriptor::{Descriptor, DescriptorError, SignedDescriptor},
        mesh::{Aged, Claim, News},
    },
};

/// Something that others should know.
#[derive(Debug)]
pub(super) enum Fresh {
    /// The own descriptor was renewed.
    Own,
    /// A member joined or renewed its descriptor.
    Member(PeerId),
    /// A member was found gone.
    Gone(Claim),
    /// A member withdrew itself.
    Farewell(SignedDescriptor),
}

/// What is remembered of a member that is gone, so that old news of it is recognised.
#[derive(Debug)]
pub(super) struct Tombstone {
    /// Its last descriptor: the proof of its sequence, for itself after its clock was set back.
    pub(super) signed: SignedDescriptor,
    pub(super) sequence: u64,
    /// True if it withdrew itself by that descriptor.
    pub(super) farewell: bool,
    /// How often in a row it was found gone soon after it came.
    pub(super) short_lives: u8,
    pub(super) until: Time,
}

impl Aged {
    /// One whose age does not matter.
    pub(super) fn ageless(signed: &SignedDescriptor) -> Self {
        Self { descriptor: signed.clone(), age_s: 0 }
    }
}

impl Member {
    /// As it is passed on.
    pub(super) fn aged(&self, now: Time) -> Aged {
        Aged { descriptor: self.signed.clone(), age_s: self.age_s(now) }
    }

    fn claim(&self) -> Claim {
        Claim { peer: self.descriptor.peer, sequence: self.descriptor.sequence }
    }
}

impl Membership {
    /// Signs and spreads a new descriptor, if this node serves and knows its address.
    pub(super) fn renew_own(&mut self, now: Time) {
        let (true, Some(_)) = (self.serving, self.address) else { return };
        self.toggle_own_bucket();
        self.sequence = self.sequence.saturating_add(1);
        self.own = self.describe(limits::DESCRIPTOR_LIFETIME_S);
        self.toggle_own_bucket();
        self.fresh.push((None, Fresh::Own));
        let before = std::mem::replace(&mut self.renewed, now);
        self.agenda.remove(&(before + limits::DESCRIPTOR_REFRESH, Alarm::Refresh));
        self.set_alarm(now + limits::DESCRIPTOR_REFRESH, Alarm::Refresh);
    }

    /// The own descriptor as it is sent: this node itself vouches for it now.
    pub(super) fn own_aged(&self) -> Option<Aged> {
        self.own.as_ref().map(Aged::ageless)
    }

    /// Tells all that this node does not serve any more.
    pub(super) fn bury_own(&mut self, now: Time) {
        self.toggle_own_bucket();
        self.own = None;
        self.sequence = self.sequence.saturating_add(1);
        if let Some(farewell) = self.describe(0) {
            self.bury(now, self.me, farewell.clone(), self.sequence, true);
            self.fresh.push((None, Fresh::Farewell(farewell)));
        }
    }

    fn toggle_own_bucket(&mut self) {
        if self.own.is_some() {
            self.buckets.toggle(&self.me, self.sequence);
        }
    }

    fn describe(&self, lifetime_s: u32) -> Option<SignedDescriptor> {
        let endorsements = self.endorsements.iter().copied();
        Some(self.own_descriptor(lifetime_s)?.sign_endorsed(&self.identity, endorsements))
    }

    /// What this node says of itself.
    pub(super) fn own_descriptor(&self, lifetime_s: u32) -> Option<Descriptor> {
        Some(Descriptor {
            peer: self.me,
            network: self.network,
            address: self.address?,
            shard: self.shard,
            capacity: self.load.capacity,
            sequence: self.sequence,
            lifetime_s,
            admission: self.admission,
            volunteer: self.volunteer,
        })
    }

    pub(super) fn hear_news(&mut self, cx: &mut Context<'_>, from: PeerId, news: News, out: &mut Outbox<Output>) {
        for aged in news.members {
            self.hear(cx, from, aged.descriptor, aged.age_s, out);
        }
        for claim in news.gone {
            self.hear_gone(cx, from, claim, out);
        }
    }

    /// A descriptor came over a link, `age_s` seconds after it was signed.
    pub(super) fn hear(
        &mut self,
        cx: &mut Context<'_>,
        from: PeerId,
        signed: SignedDescriptor,
        age_s: u32,
        out: &mut Outbox<Output>,
    ) {
        let Ok(descriptor) = signed.read() else {
            self.refused.malformed += 1;
            return;
        };
        let (peer, sequence) = (descriptor.peer, descriptor.sequence);
        if descriptor.network != self.network {
            self.refused.other_network += 1;
        } else if peer == self.me {
            self.hear_own(cx.now, &signed, sequence);
        } else if self.is_old(cx.now, from, &descriptor, out) {
            // Whoever sent it was told better, if that was due.
        } else if descriptor.lifetime_s > 0 && age_s >= descriptor.lifetime_s {
            self.refused.expired += 1;
        } else if let Err(error) = signed.open() {
            match error {
                DescriptorError::Signature => self.refused.forged += 1,
                DescriptorError::Malformed => self.refused.malformed += 1,
            }
        } else if descriptor.lifetime_s == 0 {
            self.remove(cx.now, peer, out);
            self.bury(cx.now, peer, signed.clone(), sequence, true);
            self.fresh.push((Some(from), Fresh::Farewell(signed)));
        } else if !self.counts(cx.now, &signed, &descriptor) {
            let left = Duration::from_secs((descriptor.lifetime_s - age_s).into());
            self.wait(cx, from, signed, descriptor, cx.now + left);
        } else if !self.members.contains_key(&peer) && self.members.len() >= limits::MEMBERS {
            self.refused.full += 1;
        } else {
            let left = Duration::from_secs((descriptor.lifetime_s - age_s).into());
            self.accept(cx, from, signed, descriptor, left, out);
        }
    }

    /// True if that descriptor says nothing new. Who sends one that is behind is told what is known.
    fn is_old(&mut self, now: Time, from: PeerId, descriptor: &Descriptor, out: &mut Outbox<Output>) -> bool {
        let (peer, sequence) = (descriptor.peer, descriptor.sequence);
        if let Some(member) = self.members.get(&peer).filter(|member| sequence <= member.descriptor.sequence) {
            if sequence < member.descriptor.sequence {
                self.refused.outdated += 1;
                send_news(from, vec![member.aged(now)], Vec::new(), out);
            }
            return true;
        }
        let buried = self.tombstones.get(&peer).filter(|tombstone| now < tombstone.until);
        let Some(tombstone) = buried.filter(|tombstone| sequence <= tombstone.sequence) else { return false };
        self.refused.outdated += u64::from(peer != from);
        if sequence < tombstone.sequence && (tombstone.farewell || peer == from) {
            // Perhaps its clock was set back, or it lives in a restored backup: this proves which sequence to outbid.
            send_news(from, vec![Aged::ageless(&tombstone.signed)], Vec::new(), out);
        } else if !tombstone.farewell {
            send_news(from, Vec::new(), vec![Claim { peer, sequence: tombstone.sequence }], out);
        }
        true
    }

    pub(super) fn accept(
        &mut self,
        cx: &mut Context<'_>,
        from: PeerId,
        signed: SignedDescriptor,
        descriptor: Descriptor,
        left: Duration,
        out: &mut Outbox<Output>,
    ) {
        let (now, peer, expires) = (cx.now, descriptor.peer, cx.now + left);
        if self.serving && !self.members.contains_key(&peer) {
            for surplus in self.crowding(&descriptor).unwrap_or_default() {
                self.remove(now, surplus, out);
            }
        }
        let short_lives = self.tombstones.remove(&peer).map_or(0, |tombstone| tombstone.short_lives);
        self.waits_no_more(&peer);
        self.hints.remove(&peer);
        self.buckets.toggle(&peer, descriptor.sequence);
        let part = descriptor.shard;
        if let Some(member) = self.members.get_mut(&peer) {
            self.buckets.toggle(&peer, member.descriptor.sequence);
            let before = std::mem::replace(&mut member.descriptor, descriptor);
            (member.signed, member.expires) = (signed, expires);
            if before.address != member.descriptor.address && matches!(member.dial, Dial::Due(_)) {
                member.dial = Dial::Due(now);
            }
            if before.shard != part {
                self.leave_part(&peer, before.shard);
                self.untended.insert(before.shard);
            }
            // That it renewed its descriptor refutes a suspicion.
            if self.suspects.contains(&peer) {
                self.trust(peer, out);
            }
        } else {
            let linked = self.links.contains_key(&peer);
            let renewals = TokenBucket::new(now, limits::RENEWAL_RATE, limits::RENEWAL_BURST);
            let member = Member {
                signed,
                descriptor,
                since: now,
                expires,
                linked,
                dial: Dial::Idle,
                pause: Duration::ZERO,
                doubt: None,
                answered: None,
                round_trip: None,
                strikes: 0,
                short_lives,
                load: None,
                renewals,
                alarm: None,
            };
            self.members.insert(peer, member);
            self.toggle_view(peer);
            if linked {
                self.check(cx, peer, None, out);
            }
        }
        self.parts.entry(part).or_default().insert(peer);
        self.untended.insert(part);
        self.dial_if_mate(now, peer);
        self.reschedule(peer);
        if self.members.get_mut(&peer).is_some_and(|member| member.renewals.take(now)) {
            self.fresh.push((Some(from), Fresh::Member(peer)));
        }
        out.push(Output::Joined(peer));
    }

    /// A descriptor of this node came: if it is not the current one, it is from an earlier life of this key, or a
    /// later one of which this life knows nothing. It is outbid, so that the current one counts.
    fn hear_own(&mut self, now: Time, signed: &SignedDescriptor, sequence: u64) {
        if sequence < self.sequence || self.own.as_ref() == Some(signed) || (self.leaving && sequence == self.sequence)
        {
            return;
        }
        if signed.open().is_err() {
            self.refused.forged += 1;
            return;
        }
        self.toggle_own_bucket();
        self.sequence = sequence;
        self.toggle_own_bucket();
        self.renew_own(now);
    }

    /// True if what is known speaks against a claim, which is told to whoever claims.
    pub(super) fn disputes(&mut self, now: Time, from: PeerId, claim: Claim, out: &mut Outbox<Output>) -> bool {
        if claim.peer == self.me {
            self.deny(now, from, claim, out);
            return true;
        }
        let newer = self.members.get(&claim.peer).filter(|member| member.descriptor.sequence > claim.sequence);
        if let Some(member) = newer {
            send_news(from, vec![member.aged(now)], Vec::new(), out);
        }
        newer.is_some()
    }

    /// Somebody holds a member for gone.
    fn hear_gone(&mut self, cx: &mut Context<'_>, from: PeerId, claim: Claim, out: &mut Outbox<Output>) {
        if self.disputes(cx.now, from, claim, out) {
            return;
        }
        let Some(member) = self.members.get(&claim.peer) else { return };
        if member.linked || self.is_mate(member) {
            self.accuse(cx, from, claim.peer, true, out);
        } else {
            // What it was known by counts, not what the claim says, which nobody signed.
            let gone = member.claim();
            self.remove(cx.now, claim.peer, out);
            self.fresh.push((Some(from), Fresh::Gone(gone)));
        }
    }

    /// Somebody holds this node for gone or suspects it: what it has of it is outbid, and it is told so.
    pub(super) fn deny(&mut self, now: Time, from: PeerId, claim: Claim, out: &mut Outbox<Output>) {
        if claim.sequence >= self.sequence && self.denials.take(now) {
            self.renew_own(now);
        }
        send_news(from, self.own_aged().into_iter().collect(), Vec::new(), out);
    }

    /// A member was found gone by this node: it leaves the view, and others are told.
    pub(super) fn pronounce_gone(&mut self, now: Time, peer: PeerId, out: &mut Outbox<Output>) {
        let Some(member) = self.members.get(&peer) else { return };
        self.fresh.push((None, Fresh::Gone(member.claim())));
        self.remove(now, peer, out);
    }

    /// Takes a member out of the view and remembers its end.
    pub(super) fn remove(&mut self, now: Time, peer: PeerId, out: &mut Outbox<Output>) {
        let Some(member) = self.members.remove(&peer) else { return };
        if let Some(at) = member.alarm {
            self.agenda.remove(&(at, Alarm::Member(peer)));
        }
        self.suspects.remove(&peer);
        self.leave_part(&peer, member.descriptor.shard);
        self.untended.insert(member.descriptor.shard);
        self.buckets.toggle(&peer, member.descriptor.sequence);
        self.toggle_view(peer);
        self.look_for(now, peer, member.descriptor.address, now.since(member.since));
        let is_short = now.since(member.since) < limits::SHORT_LIFE;
        let short_lives = if is_short { member.short_lives.saturating_add(1) } else { 0 };
        self.bury(now, peer, member.signed, member.descriptor.sequence, false);
        self.tombstones.entry(peer).and_modify(|tombstone| tombstone.short_lives = short_lives);
        out.push(Output::Left(peer));
    }

    fn bury(&mut self, now: Time, peer: PeerId, signed: SignedDescriptor, sequence: u64, farewell: bool) {
        let until = now + limits::TOMBSTONE_LIFETIME;
        self.tombstones.insert(peer, Tombstone { signed, sequence, farewell, short_lives: 0, until });
        if self.tombstones.len() > limits::TOMBSTONES {
            let oldest = self.tombstones.iter().min_by_key(|(_, tombstone)| tombstone.until).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.tombstones.remove(&peer));
        }
    }

    /// Sends what is new to some links, never back to where it came from.
    pub(super) fn pass_on(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh.is_empty() {
            return;
        }
        let mut links: Vec<_> = self.links.keys().filter(|peer| self.state_of(peer) != Some(State::Suspect)).collect();
        choose(&mut links, limits::NEWS_LINKS, cx.rng);
        for to in links {
            let (mut members, mut gone) = (Vec::new(), Vec::new());
            for (_, fresh) in fresh.iter().filter(|(from, _)| *from != Some(*to)) {
                match fresh {
                    Fresh::Own => members.extend(self.own_aged()),
                    Fresh::Member(peer) if peer != to => {
                        members.extend(self.members.get(peer).map(|member| member.aged(cx.now)));
                    }
                    Fresh::Member(_) => {}
                    Fresh::Gone(claim) => gone.push(*claim),
                    Fresh::Farewell(signed) => members.push(Aged::ageless(signed)),
                }
            }
            send_news(*to, members, gone, out);
        }
    }
}
