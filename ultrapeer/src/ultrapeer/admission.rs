//! Getting in, and letting in: this node as a candidate, as a voter, and where its network meets another.
//!
//! ```text
//!   candidate ── links a member, learns of the others ── asks those that vote on it ── endorsed ──> serves
//!   member    ── asked ── dials back ── endorses, refuses, or names those that vote
//!             ── linked by one that serves and does not count ── Meeting ──> that one asks, or gives up its network
//! ```
//!
//! Two networks of one name become one: whoever hears that it does not count in the other asks its members for their
//! votes. A network of up to three dissolves instead, if it is the smaller one, or of equals not the one with the
//! lowest key: its members believe the other's, keep their leaves, and ask to be let in.

use std::{cmp::Reverse, collections::btree_map::Entry, net::SocketAddr};

use overlay::{
    election::{Measurement, Regime, Shard, ballots, candidacy, floor, has_place, voters, worst_volunteer},
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    membership,
    time::Time,
    wire::{
        bounded::List,
        descriptor::{Descriptor, SignedDescriptor},
        election::{Apply, Hurdle, Invitation, Meeting, Verdict, VerdictAnswer},
        leaf::DialledBack,
        mesh::Load,
    },
};
use rand::RngExt;

use super::{Output, Phase, Retirement, Ultrapeer};
use crate::appraisals;

/// On what terms a node serves.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What its network asks.
    pub regime: Regime,
    /// True of a leaf that serves while it is needed, false where an operator wants it always.
    pub volunteer: bool,
    /// What homes found out about it.
    pub invitations: Vec<Invitation>,
}

impl Terms {
    /// Those of an ultrapeer that its operator wants, in the network of this name.
    pub fn operated(network: &str, has_secret: bool) -> Self {
        let regime = Regime::of(network, has_secret);
        Self { regime, volunteer: false, invitations: Vec::new() }
    }
}

impl Ultrapeer {
    fn votes(&self, now: Time) -> ballots::Environment<'_> {
        ballots::Environment {
            now,
            now_s: self.clock_s(now),
            membership: &self.membership,
            demand: &self.demand,
            regime: self.regime,
            identity: &self.identity,
        }
    }

    /// Seconds since 1970 by this node's clock.
    pub(super) fn clock_s(&self, now: Time) -> u64 {
        self.epoch_s.max(0) as u64 + now.as_micros() / 1_000_000
    }

    fn with_ballots(
        &mut self,
        now: Time,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut ballots::Ballots, ballots::Environment<'_>, &mut Outbox<ballots::Output>),
    ) {
        let (mut ballots, mut inner) = (std::mem::take(&mut self.ballots), Outbox::new());
        act(&mut ballots, self.votes(now), &mut inner);
        self.ballots = ballots;
        out.append_mapped(&mut inner, |output| match output {
            ballots::Output::DialBack { peer, address, measured } => Output::DialBack { peer, address, measured },
            ballots::Output::Answer(peer, verdict) => Output::ToMesh(peer, verdict.into()),
        });
    }

    /// Another node wants to serve, or wants its right to it confirmed.
    pub(super) fn applied(&mut self, now: Time, peer: PeerId, apply: &Apply, out: &mut Outbox<Output>) {
        let Some((observed, _)) = self.linked_from.get(&peer).copied() else { return };
        if !self.membership.is_serving() {
            return;
        }
        if self.audits.is_distrusted(&peer) {
            let answer = VerdictAnswer::Refused(Hurdle::Untrue, limits::APPLY_MUCH_LATER.as_secs() as u32);
            return out.push(Output::ToMesh(peer, Verdict { admission: 0, answer }.into()));
        }
        self.with_ballots(now, out, |ballots, env, inner| ballots.apply(env, peer, observed, apply, inner));
    }

    /// A candidate was dialled back.
    pub(super) fn dialled_back(
        &mut self,
        now: Time,
        peer: PeerId,
        address: SocketAddr,
        found: Measurement,
        out: &mut Outbox<Output>,
    ) {
        if let Some(asked) = self.dial_backs.dialled(&peer, address, found.is_ok()) {
            out.push(Output::ToLeaf(asked.session, DialledBack { reached: Some(found.is_ok()) }.into()));
            if asked.port.is_some() {
                // It says nothing of where others look for it yet; who would serve is looked at there from now on.
                if found.is_ok() {
                    self.appraisals.moved(now, &peer, address);
                }
                return;
            }
        }
        self.with_ballots(now, out, |ballots, env, inner| ballots.measured(env, peer, found, inner));
        self.appraisals.measured(now, &peer, found);
        self.look_at_appraisals(now, out);
    }

    /// Finds out what own leaves are worth that would serve, and tells them.
    pub(super) fn look_at_appraisals(&mut self, now: Time, out: &mut Outbox<Output>) {
        if !self.membership.is_serving() || self.appraisals.next_deadline().is_none_or(|due| now < due) {
            return;
        }
        let mut appraisals = std::mem::take(&mut self.appraisals);
        let mut inner = Outbox::new();
        let now_s = self.clock_s(now);
        let network = self.membership.candidate().map(|own| own.network).unwrap_or_default();
        let has_place = |peer: &PeerId, address: SocketAddr| {
            let own = self.membership.candidate();
            let all = self.membership.iter().map(|(member, _)| member).chain(&own);
            has_place(peer, address, all, self.membership.total())
        };
        let sign = |leaf: &PeerId, measured| Invitation::sign(&self.identity, network, leaf, measured, now_s);
        let env = appraisals::Environment {
            now,
            regime: self.regime,
            demand: self.demand.wants_more(),
            below_floor: self.demand.is_below_floor(),
            has_place: &has_place,
            sign: &sign,
        };
        appraisals.look(env, &mut inner);
        self.appraisals = appraisals;
        out.append_mapped(&mut inner, |output| match output {
            appraisals::Output::DialBack(peer, address) => Output::DialBack { peer, address, measured: true },
            appraisals::Output::Tell(session, appraisal) => Output::ToLeaf(session, (*appraisal).into()),
        });
    }

    fn with_candidacy(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut candidacy::Candidacy, &membership::Membership, &mut Outbox<candidacy::Output>),
    ) {
        let mut inner = Outbox::new();
        act(&mut self.candidacy, &self.membership, &mut inner);
        for output in inner.drain() {
            match output {
                candidacy::Output::Ask(peer, apply) => out.push(Output::ToMesh(peer, apply.into())),
                candidacy::Output::Dial(peer, address) => out.push(Output::Dial(peer, address)),
                candidacy::Output::Named(peer, descriptors) => {
                    self.with_membership(cx, membership::Input::Heard { from: peer, descriptors }, out);
                }
                candidacy::Output::Endorsed(endorsements) => {
                    self.with_membership(cx, membership::Input::Endorsed(endorsements), out);
                }
            }
        }
        let enough = self.regime.needed(self.membership.total());
        if self.phase == Phase::Candidate && self.membership.endorsers() >= enough {
            self.serve(cx, Phase::Admitted, out);
        }
    }

    /// A voter decided on this node.
    pub(super) fn decided(&mut self, cx: &mut Context<'_>, peer: PeerId, verdict: Verdict, out: &mut Outbox<Output>) {
        let now = cx.now;
        self.with_candidacy(cx, out, |candidacy, members, inner| candidacy.verdict(now, members, peer, verdict, inner));
        self.look_for_votes(cx, out);
        self.look_at_refusals(out);
    }

    /// A volunteer serves no longer if too few confirm it, and as many as that say why it may not.
    fn look_at_refusals(&mut self, out: &mut Outbox<Output>) {
        let enough = self.regime.needed(self.membership.total());
        if !self.volunteer || self.phase != Phase::Admitted || self.membership.endorsers() >= enough {
            return;
        }
        let why = [(Hurdle::Reachable, Retirement::Unreachable), (Hurdle::Untrue, Retirement::Distrusted)];
        let why = why.into_iter().find(|(hurdle, _)| self.candidacy.refusals(*hurdle) >= enough.max(1));
        out.extend(why.map(|(_, why)| Output::Retire(why)));
    }

    /// Looks whom to ask for a vote, and tells those that do not count here.
    pub(super) fn look_for_votes(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        if matches!(self.phase, Phase::Draining { .. }) {
            return;
        }
        let (now, regime) = (cx.now, self.regime);
        self.with_candidacy(cx, out, |candidacy, members, inner| candidacy.look(now, members, regime, inner));
        if self.membership.is_serving() {
            self.tell_foreigners(cx, out);
        }
    }

    /// Tells linked nodes that serve and do not count here that they do not, and links one if none is.
    fn tell_foreigners(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        self.met_at.retain(|_, at| now.since(*at) < limits::MEETING_PAUSE);
        let (total, lowest) = (self.membership.total(), self.membership.lowest());
        let foreigners: Vec<Descriptor> = self.membership.foreigners().cloned().collect();
        let mut linked = false;
        for foreign in foreigners.iter().filter(|foreign| self.membership.is_foreign(&foreign.peer)) {
            linked = true;
            if let Entry::Vacant(entry) = self.met_at.entry(foreign.peer) {
                entry.insert(now);
                let voters = List::new(self.voters_on(foreign));
                out.push(Output::ToMesh(foreign.peer, Meeting { total, lowest, voters }.into()));
            }
        }
        if linked || foreigners.is_empty() || now < self.foreign_dial_at {
            return;
        }
        // Whoever passed that on may name an address of somebody who wants nothing of this.
        let Descriptor { peer, address, .. } = foreigners[cx.rng.random_range(0..foreigners.len())];
        self.foreign_dial_at = now + limits::FOREIGN_DIAL_PAUSE;
        let prefix = overlay::address::network_prefix(address, 24, 48);
        self.foreign_dials.retain(|_, at| now.since(*at) < limits::FOREIGN_DIAL_REST);
        if self.foreign_dials.len() < limits::FOREIGN_DIALS
            && let Entry::Vacant(entry) = self.foreign_dials.entry(prefix)
        {
            entry.insert(now);
            out.push(Output::Dial(peer, address));
        }
    }

    /// The members that vote on a node.
    fn voters_on(&self, candidate: &Descriptor) -> impl Iterator<Item = SignedDescriptor> {
        let own = self.membership.candidate();
        let all = self.membership.iter().map(|(member, _)| member).chain(&own);
        let voters = voters(candidate, all, limits::VOTERS_NAMED);
        let signed = |voter: &&Descriptor| {
            if voter.peer == self.me { self.membership.own() } else { self.membership.descriptor_of(&voter.peer) }
        };
        voters.iter().filter_map(signed).cloned().collect::<Vec<_>>().into_iter()
    }

    /// Another ultrapeer does not count this one.
    pub(super) fn met(&mut self, cx: &mut Context<'_>, peer: PeerId, theirs: Meeting, out: &mut Outbox<Output>) {
        if !self.membership.is_serving() {
            return;
        }
        let (total, lowest) = (self.membership.total(), self.membership.lowest());
        let (ours, other) = ((total, Reverse(lowest)), (theirs.total, Reverse(theirs.lowest)));
        let yields = total <= limits::SMALL_NETWORK && ours < other;
        if self.membership.is_foreign(&peer) {
            if yields {
                self.with_membership(cx, membership::Input::Adopt, out);
            } else if theirs.total <= limits::SMALL_NETWORK {
                // It gives up its network when it hears of this one.
                return self.look_for_votes(cx, out);
            }
        }
        self.candidacy.meet(cx.now, peer, &theirs);
        self.look_for_votes(cx, out);
    }

    /// True if a node may stay linked that is no member: a serving ultrapeer has room for some.
    pub(super) fn has_room_for_stranger(&self, peer: &PeerId) -> bool {
        let is_stranger = |peer: &PeerId| !self.membership.contains(peer);
        !self.membership.is_serving()
            || !is_stranger(peer)
            || self.linked_from.keys().filter(|known| *known != peer && is_stranger(known)).count() < limits::STRANGERS
    }

    /// Closes the links of those that wanted to be let in for long enough: they may come again.
    fn dismiss_strangers(&mut self, now: Time, out: &mut Outbox<Output>) {
        let is_stale = |peer: &PeerId, since: Time| {
            !self.membership.contains(peer)
                && !self.membership.is_foreign(peer)
                && now.since(since) >= limits::STRANGER_PATIENCE
        };
        let known = self.linked_from.iter();
        let stale: Vec<PeerId> =
            known.filter(|(peer, (_, since))| is_stale(peer, *since)).map(|(peer, _)| *peer).collect();
        for peer in stale {
            out.push(Output::CloseMesh(peer));
            self.unlinked(now, peer, out);
        }
    }

    /// Looks whether more ultrapeers are wanted, and whether this one is.
    pub(super) fn look_at_demand(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        if cx.now < self.demand_at || !self.membership.is_serving() {
            return;
        }
        self.demand_at = cx.now + limits::DEMAND_LOOK;
        self.dismiss_strangers(cx.now, out);
        let shard = self.shard_load();
        self.demand.look(cx.now, &shard);
        self.share_out(cx.now, out);
        let idle = self.is_surplus(cx.now, &shard);
        let since = match (idle, self.idle_since) {
            (false, _) => None,
            (true, since) => Some(since.unwrap_or(cx.now)),
        };
        self.idle_since = since;
        if since.is_some_and(|since| cx.now.since(since) >= limits::SURPLUS_WINDOW) {
            self.idle_since = None;
            out.push(Output::Retire(Retirement::Surplus));
        } else if self.is_outshone(cx.now, &shard) {
            out.push(Output::Retire(Retirement::Replaced));
        }
    }

    /// How busy the members are that cover what this one covers.
    fn shard_load(&self) -> Shard {
        let own = self.membership.load();
        let mates = self.neighbours.mates().filter_map(|(peer, _)| self.membership.load_of(&peer));
        let load = |load: Load| f64::from(load.leaves) / f64::from(load.capacity.max(1));
        let total = self.membership.total();
        Shard {
            loads: mates.chain([own]).map(load).collect(),
            total,
            nodes: u64::from(total) + self.attachments.leaves() as u64,
            is_cramped: self.digests.stats().bytes > self.digests.budget(),
        }
    }

    /// True if the network could do without this volunteer, and it is the first that it could do without.
    fn is_surplus(&self, now: Time, shard: &Shard) -> bool {
        let own = self.membership.load();
        let load = f64::from(own.leaves) / f64::from(own.capacity.max(1));
        if !self.volunteer
            || self.phase != Phase::Admitted
            || now.since(self.serving_since) < limits::DWELL
            || load >= limits::SURPLUS_LOAD
            || shard.median() >= limits::SURPLUS_MEDIAN
            || shard.total <= floor(shard.nodes)
        {
            return false;
        }
        // What the others take must be enough by far, or they would ask for it again.
        let mates: Vec<_> = self.neighbours.mates().filter_map(|(peer, _)| self.membership.load_of(&peer)).collect();
        let leaves: f64 = mates.iter().map(|load| f64::from(load.leaves)).sum::<f64>() + f64::from(own.leaves);
        let capacity: f64 = mates.iter().map(|load| f64::from(load.capacity)).sum();
        leaves < limits::SURPLUS_MEDIAN * capacity && self.is_worst()
    }

    /// True if this is the volunteer that is worth least.
    fn is_worst(&self) -> bool {
        let own = (self.own_score(), self.me);
        worst_volunteer(&self.membership).is_none_or(|(peer, score)| own < (score, peer))
    }

    fn own_score(&self) -> u16 {
        let own = self.membership.own().map(SignedDescriptor::endorsements).unwrap_or_default();
        own.iter().map(|endorsement| endorsement.score).min().unwrap_or(0)
    }

    /// True if somebody who is worth twice as much has come in place of this volunteer.
    fn is_outshone(&self, now: Time, shard: &Shard) -> bool {
        let better = |(member, _): (&Descriptor, membership::State)| {
            let since = self.membership.member_since(&member.peer);
            let score = self.membership.score_of(&member.peer).unwrap_or(0);
            member.volunteer
                && since.is_some_and(|since| now.since(since) < limits::SURPLUS_WINDOW)
                && score / limits::REPLACING_SCORE >= self.own_score().max(1)
        };
        self.volunteer
            && self.phase == Phase::Admitted
            && now.since(self.serving_since) >= limits::DWELL
            && shard.median() <= limits::DEMAND_LOAD
            && shard.total > floor(shard.nodes)
            && self.is_worst()
            && self.membership.iter().any(better)
    }
}
