//! Who answers: SWIM (Das, Gupta, Motivala 2002) among mates, with the shorter suspicion of Lifeguard (Dadgar, Phillips,
//! Currey 2018) when several cannot reach a suspect, and one change: what others say is never believed of a member that
//! this node can ask itself.

use std::{ops::Bound, time::Duration};

use rand::RngExt;

use super::{Alarm, Member, Membership, Output, State, buckets::send_news, choose};
use crate::{
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    time::Time,
    wire::{
        bounded::List,
        descriptor::ShardPrefix,
        mesh::{Claim, Probe, ProbeFor, ProbeReply, ProbeResult, Suspect},
    },
};

/// A member that was probed and did not answer yet.
#[derive(Debug)]
pub(super) struct Doubt {
    stage: Stage,
    token: u64,
    /// When it was first probed.
    pub(super) sent: Time,
    /// When the stage is over.
    pub(super) due: Time,
    /// When it was first accused, or became suspect by this node's own probe.
    since: Time,
    /// Others who say that it does not answer, at most [`limits::SUSPICION_WITNESSES`].
    accusers: Vec<PeerId>,
    /// True if somebody holds it for gone already.
    held_gone: bool,
    /// How many were asked to probe it, and how many of them cannot.
    asked: usize,
    unable: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its own answer is awaited.
    Direct,
    /// Others probe it.
    Relayed,
    /// Nobody reaches it.
    Suspicion,
}

impl Doubt {
    /// True once the member is suspect.
    pub(super) fn is_suspicion(&self) -> bool {
        self.stage == Stage::Suspicion
    }

    fn accuse(&mut self, accuser: PeerId) {
        if self.accusers.len() < limits::SUSPICION_WITNESSES && !self.accusers.contains(&accuser) {
            self.accusers.push(accuser);
        }
    }
}

/// A probe that another asked for.
#[derive(Debug)]
pub(super) struct Relay {
    asker: PeerId,
    /// The asker's token.
    token: u64,
    target: PeerId,
    until: Time,
}

impl Member {
    /// Time for the answer to a probe on its own link.
    fn patience(&self) -> Duration {
        self.round_trip.map_or(limits::PROBE_TIMEOUT_MAX, |round_trip| {
            (round_trip * 3).clamp(limits::PROBE_TIMEOUT_MIN, limits::PROBE_TIMEOUT_MAX)
        })
    }
}

impl Membership {
    /// Probes the next member, in turn by order and at random, and all suspects.
    pub(super) fn probe_next(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        self.set_alarm(now + limits::PROBE_INTERVAL, Alarm::Probe);
        self.relays.retain(|_, relay| now < relay.until);
        for peer in self.suspects.iter().filter(|peer| self.links.contains_key(peer)) {
            Self::send(*peer, Probe { token: cx.rng.random() }, out);
        }
        self.turn = !self.turn;
        let next = if self.turn { self.next_in_order(now) } else { self.next_at_random(cx) };
        if let Some(peer) = next {
            self.check(cx, peer, None, out);
            self.reschedule(peer);
        }
    }

    /// The mate with the next higher key. So each has one that probes it in every turn, and a death is noticed in
    /// that time; only random choice leaves one in twenty alone for three turns.
    fn next_in_order(&self, now: Time) -> Option<PeerId> {
        let above = self.members.range((Bound::Excluded(self.me), Bound::Unbounded));
        let mut mates = above.chain(&self.members).filter(|(_, member)| self.is_mate(member));
        mates.next().map(|(peer, _)| *peer).filter(|peer| self.is_due(now, peer))
    }

    /// The next of a round of all, in an order that is shuffled for each round.
    fn next_at_random(&mut self, cx: &mut Context<'_>) -> Option<PeerId> {
        while let Some(peer) = self.round.pop() {
            if self.is_due(cx.now, &peer) {
                return Some(peer);
            }
        }
        self.round = self.members.keys().filter(|peer| self.is_due(cx.now, peer)).copied().collect();
        let everyone = self.round.len();
        choose(&mut self.round, everyone, cx.rng);
        self.round.pop()
    }

    /// True if a member is one to probe: it has a link, or had the time to get one.
    fn is_due(&self, now: Time, peer: &PeerId) -> bool {
        self.members.get(peer).is_some_and(|member| {
            let grown = now.since(member.since) >= limits::PROBE_GRACE;
            member.doubt.is_none() && (member.linked || (grown && self.is_mate(member)))
        })
    }

    /// Finds out whether a member lives, unless that is under way. It must be rescheduled afterwards.
    pub(super) fn check(
        &mut self,
        cx: &mut Context<'_>,
        peer: PeerId,
        accuser: Option<(PeerId, bool)>,
        out: &mut Outbox<Output>,
    ) {
        let now = cx.now;
        if self.leaving {
            return;
        }
        let Some(member) = self.members.get_mut(&peer) else { return };
        if member.doubt.as_ref().is_some_and(|doubt| member.linked || doubt.stage != Stage::Direct) {
            return;
        }
        let token = cx.rng.random();
        let linked = member.linked;
        let due = now + member.patience();
        let doubt = member.doubt.get_or_insert(Doubt {
            stage: Stage::Direct,
            token,
            sent: now,
            due,
            since: now,
            accusers: Vec::new(),
            held_gone: false,
            asked: 0,
            unable: 0,
        });
        if let Some((accuser, gone)) = accuser {
            doubt.accuse(accuser);
            doubt.held_gone = gone;
        }
        if linked {
            Self::send(peer, Probe { token }, out);
        }
        if !linked || accuser.is_some() {
            // Its own answer still counts when others are asked as well.
            self.ask_others(cx, peer, out);
        }
    }

    /// The next step of a doubt whose time is over.
    pub(super) fn doubt_due(&mut self, cx: &mut Context<'_>, peer: PeerId, out: &mut Outbox<Output>) {
        let now = cx.now;
        let Some(member) = self.members.get_mut(&peer) else { return };
        let patience = member.patience();
        let Some(doubt) = member.doubt.as_mut() else { return };
        if now.since(doubt.due) > limits::STALL {
            // This node hung: answers may have come that it did not read yet.
            doubt.due = now + patience;
            if member.linked {
                Self::send(peer, Probe { token: doubt.token }, out);
            }
            return;
        }
        match doubt.stage {
            Stage::Direct => self.ask_others(cx, peer, out),
            Stage::Relayed => self.suspect(cx, peer, out),
            Stage::Suspicion => self.give_up(cx, peer, out),
        }
    }

    /// Asks some of a member's mates to probe it.
    fn ask_others(&mut self, cx: &mut Context<'_>, peer: PeerId, out: &mut Outbox<Output>) {
        let mut others = self.linked_mates_of(peer);
        choose(&mut others, limits::PROBE_RELAYS, cx.rng);
        let Some(member) = self.members.get_mut(&peer) else { return };
        let patience = (member.patience() * 2).min(limits::PROBE_TIMEOUT_MAX);
        let Some(doubt) = member.doubt.as_mut() else { return };
        (doubt.stage, doubt.due, doubt.asked, doubt.unable) = (Stage::Relayed, cx.now + patience, others.len(), 0);
        let token = doubt.token;
        if others.is_empty() {
            return self.suspect(cx, peer, out);
        }
        for other in others {
            Self::send(other, ProbeFor { token, target: peer }, out);
        }
    }

    /// Trusted members with a link that cover leaves that a member covers, without that member.
    fn linked_mates_of(&self, peer: PeerId) -> Vec<PeerId> {
        let Some(part) = self.members.get(&peer).map(|member| member.descriptor.shard) else { return Vec::new() };
        let is_mate = |other: &Member| other.state() == State::Linked && other.descriptor.shard.overlaps(part);
        let links = self.links.keys().filter(|link| **link != peer);
        links.filter(|link| self.members.get(link).is_some_and(is_mate)).copied().collect()
    }

    /// Members that cover leaves of a part, this node included if it does.
    fn shard_size(&self, part: ShardPrefix) -> usize {
        let others: usize =
            self.parts.iter().filter(|(other, _)| other.overlaps(part)).map(|(_, peers)| peers.len()).sum();
        others + usize::from(self.shard.overlaps(part))
    }

    fn doubt_mut(&mut self, peer: &PeerId) -> Option<&mut Doubt> {
        self.members.get_mut(peer)?.doubt.as_mut()
    }

    /// When a suspect's time is over.
    fn suspicion_end(&self, peer: &PeerId) -> Option<Time> {
        let member = self.members.get(peer)?;
        let doubt = member.doubt.as_ref().filter(|doubt| doubt.is_suspicion())?;
        Some(doubt.since + time_to_object(self.shard_size(member.descriptor.shard), doubt.accusers.len()))
    }

    /// True if a member's mates hold it for gone, and this node is none that had to judge it.
    fn is_judged(&self, peer: &PeerId) -> bool {
        self.members
            .get(peer)
            .is_some_and(|member| !self.is_mate(member) && member.doubt.as_ref().is_some_and(|doubt| doubt.held_gone))
    }

    /// Nobody reaches a member: its mates look for themselves, and it may object.
    fn suspect(&mut self, cx: &mut Context<'_>, peer: PeerId, out: &mut Outbox<Output>) {
        let now = cx.now;
        if self.is_judged(&peer) {
            return self.give_up(cx, peer, out);
        }
        let Some(member) = self.members.get_mut(&peer) else { return };
        let claim = Claim { peer, sequence: member.descriptor.sequence };
        let linked = member.linked;
        let Some(doubt) = member.doubt.as_mut() else { return };
        let is_first = doubt.accusers.is_empty();
        doubt.stage = Stage::Suspicion;
        if is_first {
            doubt.since = now;
        }
        doubt.due = now + limits::PROBE_TIMEOUT_MIN;
        let until = self.suspicion_end(&peer).unwrap_or(now);
        if let Some(doubt) = self.doubt_mut(&peer) {
            doubt.due = doubt.due.max(until);
        }
        self.suspects.insert(peer);
        out.push(Output::Suspected(peer));
        let mut mates = self.linked_mates_of(peer);
        if !is_first {
            // All were told by the first; these only bear witness.
            choose(&mut mates, limits::NEWS_LINKS, cx.rng);
        }
        for to in mates.into_iter().chain(linked.then_some(peer)) {
            Self::send(to, Suspect { suspects: List::new([claim]) }, out);
        }
    }

    /// A suspect's time is over.
    fn give_up(&mut self, cx: &mut Context<'_>, peer: PeerId, out: &mut Outbox<Output>) {
        let Some(member) = self.members.get(&peer) else { return };
        if self.is_mate(member) || self.is_judged(&peer) {
            self.pronounce_gone(cx.now, peer, out);
            self.close(cx, peer, out);
        } else {
            // Whether it is gone is for its mates to say. This link is of no use.
            self.trust(peer, out);
            self.close(cx, peer, out);
        }
    }

    /// A member lives: all doubt is over.
    pub(super) fn trust(&mut self, peer: PeerId, out: &mut Outbox<Output>) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        let Some(doubt) = member.doubt.take() else { return };
        if self.suspects.remove(&peer) {
            out.push(Output::Trusted(peer));
        }
        if doubt.held_gone && self.links.contains_key(&peer) {
            // It must outbid what others hold of it.
            let claim = Claim { peer, sequence: member.descriptor.sequence };
            send_news(peer, Vec::new(), vec![claim], out);
        }
    }

    /// Somebody suspects a member.
    pub(super) fn hear_suspicion(
        &mut self,
        cx: &mut Context<'_>,
        from: PeerId,
        claim: Claim,
        out: &mut Outbox<Output>,
    ) {
        if self.disputes(cx.now, from, claim, out) {
            return;
        }
        let Some(member) = self.members.get(&claim.peer) else { return };
        if member.linked || self.is_mate(member) {
            self.accuse(cx, from, claim.peer, false, out);
        }
    }

    /// Somebody says that a member, which this node can ask itself or through others, is suspect or gone.
    pub(super) fn accuse(
        &mut self,
        cx: &mut Context<'_>,
        from: PeerId,
        peer: PeerId,
        gone: bool,
        out: &mut Outbox<Output>,
    ) {
        let now = cx.now;
        let Some(member) = self.members.get_mut(&peer) else { return };
        if let Some(doubt) = member.doubt.as_mut() {
            if doubt.accusers.is_empty() && !doubt.is_suspicion() {
                doubt.since = now;
            }
            doubt.accuse(from);
            doubt.held_gone |= gone;
            let until = self.suspicion_end(&peer).map(|until| if self.is_judged(&peer) { now } else { until });
            if let (Some(until), Some(doubt)) = (until, self.doubt_mut(&peer)) {
                doubt.due = doubt.due.min(until.max(now));
            }
        } else if !self.links.get_mut(&from).is_some_and(|link| link.claims.take(now)) {
            self.refused.claims += 1;
        } else if member.answered.is_some_and(|at| now.since(at) < limits::PROBE_TIMEOUT_MIN) {
            // It answered just now. Who holds it for gone nevertheless must hear from itself.
            if gone && member.linked {
                let claim = Claim { peer, sequence: member.descriptor.sequence };
                send_news(peer, Vec::new(), vec![claim], out);
            }
        } else if member.linked || now.since(member.since) >= limits::PROBE_GRACE {
            self.check(cx, peer, Some((from, gone)), out);
        }
        self.reschedule(peer);
    }

    pub(super) fn probe_reply(&mut self, now: Time, from: PeerId, reply: ProbeReply, out: &mut Outbox<Output>) {
        if let Some(relay) = self.relays.get(&reply.token).filter(|relay| relay.target == from) {
            Self::send(relay.asker, ProbeResult { token: relay.token, target: from, reached: true }, out);
            self.relays.remove(&reply.token);
        }
        let Some(member) = self.members.get_mut(&from) else { return };
        (member.answered, member.load, member.strikes) = (Some(now), Some(reply.load), 0);
        if let Some(doubt) = member.doubt.as_ref().filter(|doubt| doubt.token == reply.token) {
            member.round_trip = Some(now.since(doubt.sent));
        }
        // Whatever it answers: it lives.
        self.trust(from, out);
        self.reschedule(from);
    }

    /// Another cannot reach a member.
    pub(super) fn probe_for(&mut self, cx: &mut Context<'_>, from: PeerId, ask: ProbeFor, out: &mut Outbox<Output>) {
        let ProbeFor { token, target } = ask;
        if !self.links.contains_key(&target) || self.relays.len() >= limits::PROBES_RELAYED {
            return Self::send(from, ProbeResult { token, target, reached: false }, out);
        }
        let own = cx.rng.random();
        let until = cx.now + limits::PROBE_TIMEOUT_MAX;
        self.relays.insert(own, Relay { asker: from, token, target, until });
        Self::send(target, Probe { token: own }, out);
    }

    pub(super) fn probe_result(
        &mut self,
        cx: &mut Context<'_>,
        from: PeerId,
        result: ProbeResult,
        out: &mut Outbox<Output>,
    ) {
        let peer = result.target;
        let Some(member) = self.members.get_mut(&peer).filter(|_| from != peer) else { return };
        let Some(doubt) = member.doubt.as_mut().filter(|doubt| doubt.token == result.token) else { return };
        if result.reached {
            member.strikes = member.strikes.saturating_add(1);
            let useless = member.linked && member.strikes >= limits::PROBE_STRIKES;
            self.trust(peer, out);
            if useless {
                self.close(cx, peer, out);
            }
        } else if doubt.stage == Stage::Relayed {
            doubt.unable += 1;
            if doubt.unable >= doubt.asked {
                self.suspect(cx, peer, out);
            }
        }
        self.reschedule(peer);
    }
}

/// Time for which a suspect in a shard of `size` members may prove that it lives, when so many others cannot reach it
/// either.
fn time_to_object(size: usize, accusers: usize) -> Duration {
    let longest = limits::SUSPICION.max(Duration::from_secs_f64(4.0 * (size.max(1) as f64).log10()));
    // Those who could bear witness: all but the suspect and this node.
    let witnesses = limits::SUSPICION_WITNESSES.min(size.saturating_sub(2)).max(1);
    let share = (accusers.min(witnesses) as f64 + 1.0).ln() / (witnesses as f64 + 1.0).ln();
    longest.mul_f64(1.0 - share) + limits::SUSPICION_MIN.mul_f64(share)
}
