//! Core: a member that votes on others.
//!
//! ```text
//!   Apply ── checked: what it says, whose vote it is, places, growth, demand ──> refused, or others are named
//!     └── dialled back, from a socket of its own, at the IP that it was seen at ──> refused, or endorsed
//! ```
//!
//! Invariants:
//! - nobody is dialled at an address whose IP it did not prove by a connection of its own, except within this site;
//! - in each part of the Internet (/24, /48) somebody is dialled back once in [`limits::DIAL_BACK_PAUSE`];
//! - an endorsement is signed only for a node that was reached, at the address that it names, by this node itself;
//! - what a candidate says of itself decides nothing: uptime is what its homes signed, bandwidth what is measured here.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use super::{Demand, Growth, Pace, Regime, falls_short, has_place, score, voters};
use crate::{
    address::network_prefix,
    id::PeerId,
    identity::Identity,
    limits,
    machine::Outbox,
    membership::Membership,
    time::Time,
    wire::{
        bounded::List,
        descriptor::{Descriptor, Endorsement},
        election::{Apply, Hurdle, Measured, Verdict, VerdictAnswer},
    },
};

/// What a vote depends on.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// The current time.
    pub now: Time,
    /// Seconds since 1970 by this node's clock.
    pub now_s: u64,
    /// Who the members are.
    pub membership: &'a Membership,
    /// Whether more are wanted.
    pub demand: &'a Demand,
    /// What the network asks.
    pub regime: Regime,
    /// This node's key.
    pub identity: &'a Identity,
}

/// What a voter's driver must do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Dial a candidate back; answer with [`Ballots::measured`].
    DialBack {
        /// Who must be there.
        peer: PeerId,
        /// Where.
        address: SocketAddr,
        /// Whether to measure how fast it sends.
        measured: bool,
    },
    /// Tell a candidate what is decided.
    Answer(PeerId, Verdict),
}

/// What a dial-back found: `Err` if the candidate was not reached.
pub type Measurement = Result<Finding, Missed>;

/// Why a candidate was not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Nobody answered.
    Silent,
    /// Something else answered, or its network did.
    Refused,
}

/// What was found out about a node that was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// The rate at which it sends, in kbit/s; `None` if that was not measured.
    pub rate_kbit: Option<u32>,
    /// Of a million packets that were sent to it, those that were lost; `None` if they were too few to tell.
    pub loss_ppm: Option<u32>,
}

/// The votes of this node. See the module text.
#[derive(Debug, Default)]
pub struct Ballots {
    /// Candidates that are being dialled back.
    under_way: BTreeMap<PeerId, Case>,
    waiting: VecDeque<Case>,
    /// When a part of the Internet was dialled last.
    dialled: BTreeMap<u64, Time>,
    /// Who was reached lately, and where.
    reached: BTreeMap<PeerId, Fact>,
    growth: Growth,
    stats: Stats,
}

/// How votes went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Endorsements given.
    pub endorsed: u64,
    /// Applications refused.
    pub refused: u64,
    /// Dial-backs made.
    pub dialled: u64,
    /// Of those, the ones that reached the candidate.
    pub reached: u64,
    /// Of those, the ones that nobody answered.
    pub unreached: u64,
    /// Of those, the ones that something else answered.
    pub turned_away: u64,
    /// Dial-backs that were not made because there were too many, or one was made nearby.
    pub limited: u64,
    /// Candidates that left while they waited.
    pub expired: u64,
}

#[derive(Clone, Debug)]
struct Case {
    descriptor: Descriptor,
    invited: Option<Measured>,
    meeting: bool,
    measured: bool,
}

/// What was found out about a node.
#[derive(Clone, Copy, Debug)]
struct Fact {
    address: SocketAddr,
    at: Time,
    finding: Finding,
}

impl Ballots {
    /// How votes went so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// An ultrapeer came into the view.
    pub fn joined(&mut self, now: Time, descriptor: &Descriptor, regime: Regime) {
        if regime.is_strict(descriptor.address.ip()) {
            self.growth.note(now, descriptor.peer);
        }
    }

    /// A node that is linked from `observed` wants to serve, or wants its right to it confirmed.
    pub fn apply(
        &mut self,
        env: Environment<'_>,
        from: PeerId,
        observed: SocketAddr,
        apply: &Apply,
        out: &mut Outbox<Output>,
    ) {
        let Some(descriptor) = opened(env, from, apply) else {
            return self.refuse(from, 0, Hurdle::Protocol, out);
        };
        let admission = descriptor.admission;
        if !is_proven(observed, descriptor.address) {
            return self.refuse(from, admission, Hurdle::Reachable, out);
        }
        let strict = env.regime.is_strict(descriptor.address.ip());
        if strict && let Some(others) = not_ours(env, &descriptor) {
            return out.push(answer(from, admission, VerdictAnswer::Elsewhere(others)));
        }
        let case = Case {
            measured: strict && !is_member(env, &descriptor),
            invited: invited(env, from, apply),
            meeting: apply.meeting,
            descriptor,
        };
        if let Some(hurdle) = self.hurdle(env, &case) {
            return self.refuse(from, admission, hurdle, out);
        }
        if let Some(fact) = self.fresh(env.now, &case) {
            return self.decide(env, &case, Ok(fact.finding), out);
        }
        self.dial(env, case, out);
    }

    /// A dial-back ended.
    pub fn measured(&mut self, env: Environment<'_>, peer: PeerId, found: Measurement, out: &mut Outbox<Output>) {
        let Some(case) = self.under_way.remove(&peer) else { return };
        match found {
            Ok(finding) => {
                self.stats.reached += 1;
                self.learn(env.now, peer, case.descriptor.address, finding);
            }
            Err(Missed::Silent) => self.stats.unreached += 1,
            Err(Missed::Refused) => self.stats.turned_away += 1,
        }
        self.decide(env, &case, found, out);
        // Each once: those that still cannot be dialled wait again.
        for _ in 0..self.waiting.len() {
            if self.under_way.len() >= limits::DIAL_BACKS {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            self.dial(env, next, out);
        }
    }

    /// A candidate is not linked any more: what it gets from here would not reach it.
    pub fn gone(&mut self, peer: &PeerId) {
        let before = self.waiting.len();
        self.waiting.retain(|case| case.descriptor.peer != *peer);
        self.stats.expired += (before - self.waiting.len()) as u64;
    }

    fn dial(&mut self, env: Environment<'_>, case: Case, out: &mut Outbox<Output>) {
        let (peer, address, measured) = (case.descriptor.peer, case.descriptor.address, case.measured);
        let admission = case.descriptor.admission;
        if self.under_way.contains_key(&peer) {
            // The answer to what it asked before will do, or it asks once more.
            return;
        }
        // Who comes in masses from one address leaves room for others.
        let is_there = |case: &Case| case.descriptor.address.ip() == address.ip();
        let under_way = self.under_way.values().filter(|case| is_there(case)).count();
        if self.under_way.len() >= limits::DIAL_BACKS || under_way >= limits::DIAL_BACKS / 2 {
            self.waiting.retain(|waiting| waiting.descriptor.peer != peer);
            let waiting = self.waiting.iter().filter(|case| is_there(case)).count();
            if self.waiting.len() >= limits::DIAL_BACKS_WAITING || waiting >= limits::DIAL_BACKS_WAITING / 2 {
                return self.refuse(peer, admission, Hurdle::Busy, out);
            }
            return self.waiting.push_back(case);
        }
        if env.regime.is_strict(address.ip()) {
            let prefix = network_prefix(address, 24, 48);
            let rests = |last: &Time| env.now.since(*last) < limits::DIAL_BACK_PAUSE;
            self.dialled.retain(|_, last| rests(last));
            if self.dialled.contains_key(&prefix) || self.dialled.len() >= limits::DIAL_BACK_PREFIXES {
                return self.refuse(peer, admission, Hurdle::Busy, out);
            }
            self.dialled.insert(prefix, env.now);
        }
        self.stats.dialled += 1;
        self.under_way.insert(peer, case);
        out.push(Output::DialBack { peer, address, measured });
    }

    fn learn(&mut self, now: Time, peer: PeerId, address: SocketAddr, finding: Finding) {
        self.reached.retain(|_, fact| now.since(fact.at) < limits::DIAL_BACK_PAUSE);
        if self.reached.len() < limits::DIAL_BACK_PREFIXES {
            self.reached.insert(peer, Fact { address, at: now, finding });
        }
    }

    /// What was found out about a candidate not long ago, if that is enough.
    fn fresh(&self, now: Time, case: &Case) -> Option<Fact> {
        let fact = self.reached.get(&case.descriptor.peer)?;
        let enough = fact.address == case.descriptor.address
            && now.since(fact.at) < limits::DIAL_BACK_PAUSE
            && (fact.finding.rate_kbit.is_some() || !case.measured);
        enough.then_some(*fact)
    }

    /// What keeps a candidate from serving, as far as can be said without dialling it.
    fn hurdle(&self, env: Environment<'_>, case: &Case) -> Option<Hurdle> {
        let Case { descriptor, invited, meeting, .. } = case;
        if is_member(env, descriptor) {
            return None;
        }
        let (members, total) = (env.membership, env.membership.total());
        if members.falls_silent(env.now, &descriptor.peer) {
            return Some(Hurdle::Silent);
        }
        if env.regime.is_strict(descriptor.address.ip()) {
            let all = members.iter().map(|(member, _)| member);
            let own = members.candidate();
            if !has_place(&descriptor.peer, descriptor.address, all.chain(&own), total) {
                return Some(Hurdle::Prefix);
            }
            let pace = if *meeting { Pace::Meeting } else { Pace::Newcomers };
            if !self.growth.allows(env.now, total, pace) {
                return Some(Hurdle::Growth);
            }
            let needs_uptime = descriptor.volunteer && !meeting && !env.demand.is_below_floor();
            if needs_uptime && invited.is_none() {
                return Some(Hurdle::Uptime);
            }
        }
        if descriptor.volunteer && !meeting && !env.demand.allows_more() && !outshines(env, case) {
            return Some(Hurdle::Demand);
        }
        None
    }

    fn decide(&mut self, env: Environment<'_>, case: &Case, found: Measurement, out: &mut Outbox<Output>) {
        let Case { descriptor, .. } = case;
        let (peer, admission) = (descriptor.peer, descriptor.admission);
        let Ok(finding) = found else {
            return self.refuse(peer, admission, Hurdle::Reachable, out);
        };
        // Others may have come in while it was dialled.
        if let Some(hurdle) = self.hurdle(env, case) {
            return self.refuse(peer, admission, hurdle, out);
        }
        let invited = case.invited.unwrap_or_else(|| Measured { stability: 1000, ..Measured::default() });
        let measured = Measured {
            bandwidth_kbit: finding.rate_kbit.unwrap_or(invited.bandwidth_kbit),
            loss_ppm: finding.loss_ppm.map_or(invited.loss_ppm, |seen| seen.max(invited.loss_ppm)),
            ..invited
        };
        if case.measured {
            let needs_uptime = descriptor.volunteer && !case.meeting && !env.demand.is_below_floor();
            if let Some(hurdle) = falls_short(&measured, needs_uptime) {
                return self.refuse(peer, admission, hurdle, out);
            }
        }
        if env.regime.is_strict(descriptor.address.ip()) && !is_member(env, descriptor) {
            self.growth.note(env.now, peer);
        }
        self.stats.endorsed += 1;
        let endorsement = Endorsement::sign(env.identity, descriptor, score(&measured));
        out.push(answer(peer, admission, VerdictAnswer::Endorsed(endorsement)));
    }

    fn refuse(&mut self, peer: PeerId, admission: u64, hurdle: Hurdle, out: &mut Outbox<Output>) {
        self.stats.refused += 1;
        self.stats.limited += u64::from(hurdle == Hurdle::Busy);
        let again_s = match hurdle {
            Hurdle::Busy | Hurdle::Growth => limits::APPLY_SOON,
            Hurdle::Demand | Hurdle::Reachable => limits::APPLY_LATER,
            Hurdle::Uptime
            | Hurdle::Bandwidth
            | Hurdle::Loss
            | Hurdle::Prefix
            | Hurdle::Protocol
            | Hurdle::Silent
            | Hurdle::Untrue => limits::APPLY_MUCH_LATER,
        };
        out.push(answer(peer, admission, VerdictAnswer::Refused(hurdle, again_s.as_secs() as u32)));
    }
}

/// True if a candidate is worth twice the worst volunteer.
fn outshines(env: Environment<'_>, case: &Case) -> bool {
    let worst = worst_volunteer(env.membership).map(|(_, score)| score);
    let own = case.invited.map_or(0, |measured| score(&measured));
    worst.is_some_and(|worst| own > 0 && own / limits::REPLACING_SCORE >= worst)
}

/// The volunteer that its endorsers found to be worth least, and how much.
pub fn worst_volunteer(membership: &Membership) -> Option<(PeerId, u16)> {
    let volunteers = membership.iter().map(|(member, _)| member).filter(|member| member.volunteer);
    let scored = volunteers.filter_map(|member| Some((member.peer, membership.score_of(&member.peer)?)));
    scored.min_by_key(|(peer, score)| (*score, *peer))
}

fn answer(to: PeerId, admission: u64, answer: VerdictAnswer) -> Output {
    Output::Answer(to, Verdict { admission, answer })
}

/// What a candidate says of itself, if it says so itself and of this network.
fn opened(env: Environment<'_>, from: PeerId, apply: &Apply) -> Option<Descriptor> {
    let descriptor = apply.descriptor.open().ok()?;
    let ours = env.membership.candidate()?;
    (descriptor.peer == from && descriptor.network == ours.network && descriptor.lifetime_s > 0).then_some(descriptor)
}

/// True if a node that is linked from `observed` may be dialled at `address`: it has proven its IP, or is of this site.
fn is_proven(observed: SocketAddr, address: SocketAddr) -> bool {
    use crate::address::Reach;
    let (seen, named) = (observed.ip().to_canonical(), address.ip().to_canonical());
    seen == named || Reach::of(seen) != Reach::World
}

/// Those who vote on a candidate, if this node does not.
fn not_ours(
    env: Environment<'_>,
    candidate: &Descriptor,
) -> Option<List<crate::wire::descriptor::SignedDescriptor, { limits::VOTERS_NAMED }>> {
    let own = env.membership.candidate();
    let all = env.membership.iter().map(|(member, _)| member).chain(&own);
    let voters = voters(candidate, all, limits::VOTERS_NAMED);
    if voters.iter().any(|voter| Some(voter.peer) == own.as_ref().map(|own| own.peer)) {
        return None;
    }
    Some(List::new(voters.iter().filter_map(|voter| env.membership.descriptor_of(&voter.peer)).cloned()))
}

/// True if a candidate is a member already, as it says.
fn is_member(env: Environment<'_>, candidate: &Descriptor) -> bool {
    env.membership.get(&candidate.peer).is_some_and(|member| {
        (member.address, member.admission, member.volunteer)
            == (candidate.address, candidate.admission, candidate.volunteer)
    })
}

/// What homes found out about a candidate: what as many say as must, or better. A home that it found only lately has not
/// seen it for long. Homes are members; what they signed long ago does not count.
fn invited(env: Environment<'_>, from: PeerId, apply: &Apply) -> Option<Measured> {
    let network = env.membership.candidate()?.network;
    let own = env.identity.peer_id();
    let counts = apply.invitations.iter().filter(|invitation| {
        (env.membership.contains(&invitation.home) || invitation.home == own)
            && env.now_s.abs_diff(invitation.issued_s) <= limits::INVITATION_LIFETIME.as_secs()
            && invitation.is_for(network, &from)
    });
    let homes: BTreeMap<PeerId, Measured> = counts.map(|invitation| (invitation.home, invitation.measured)).collect();
    let enough = limits::INVITATIONS_NEEDED.min(env.membership.total() as usize);
    let mut found: Vec<Measured> = homes.into_values().collect();
    found.sort_by_key(|measured| Reverse(score(measured)));
    found.into_iter().nth(enough.max(1) - 1)
}

#[cfg(test)]
mod tests;
