//! Core: a node that wants to serve, or whose right to it too few confirm.
//!
//! What it decides: which members to ask for their vote, and when again. It asks those that vote on it, as it sees the
//! network; they name others if they see it otherwise. Once enough have endorsed it, it rests, and asks again when
//! endorsers have gone.
//!
//! A network that met this one is asked too: those of its members that say so ([`Candidacy::meet`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{Regime, needed, voters};
use crate::{
    id::PeerId,
    limits,
    machine::Outbox,
    membership::Membership,
    time::Time,
    wire::{
        bounded::List,
        descriptor::{Endorsement, SignedDescriptor},
        election::{Apply, Hurdle, Invitation, Meeting, Verdict, VerdictAnswer},
    },
};

/// What a candidate's driver must do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Ask a linked node for its vote.
    Ask(PeerId, Apply),
    /// These endorse this node now.
    Endorsed(Vec<Endorsement>),
    /// These vote on this node, says whoever was asked.
    Named(PeerId, Vec<SignedDescriptor>),
    /// Link a node that votes on this one.
    Dial(PeerId, std::net::SocketAddr),
}

/// A candidate. See the module text.
#[derive(Debug, Default)]
pub struct Candidacy {
    /// Who was asked, and when they may be asked again.
    asked: BTreeMap<PeerId, Time>,
    /// Of those, who has not answered.
    unanswered: BTreeSet<PeerId>,
    endorsed: BTreeMap<PeerId, (Time, Endorsement)>,
    refused: BTreeMap<PeerId, Hurdle>,
    invitations: Vec<Invitation>,
    /// Another network that this one wants to be in.
    met: Option<Met>,
    look_at: Time,
}

/// A network that met this one.
#[derive(Clone, Debug)]
struct Met {
    /// Endorsements that its members ask for.
    needed: usize,
    /// Those of its members that are known to be asked.
    voters: BTreeMap<PeerId, Option<std::net::SocketAddr>>,
    endorsed: BTreeSet<PeerId>,
    until: Time,
}

impl Candidacy {
    /// Begins anew, with what homes found out about this node.
    pub fn begin(&mut self, invitations: Vec<Invitation>) {
        *self = Self { invitations, ..Self::default() };
    }

    /// When [`Self::look`] is due.
    pub fn next_deadline(&self) -> Time {
        self.look_at
    }

    /// What most of those who refused found.
    pub fn hurdle(&self) -> Option<Hurdle> {
        let mut counts: BTreeMap<Hurdle, usize> = BTreeMap::new();
        for hurdle in self.refused.values() {
            *counts.entry(*hurdle).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(hurdle, count)| (*count, std::cmp::Reverse(*hurdle))).map(|(hurdle, _)| hurdle)
    }

    /// How many refused because of that, since enough endorsed this node last.
    pub fn refusals(&self, hurdle: Hurdle) -> usize {
        self.refused.values().filter(|found| **found == hurdle).count()
    }

    /// `peer` and others of a network do not count this node: those that vote on it there are asked.
    pub fn meet(&mut self, now: Time, peer: PeerId, theirs: &Meeting) {
        let total = theirs.total;
        let met = self.met.get_or_insert_with(|| Met {
            needed: 0,
            voters: BTreeMap::new(),
            endorsed: BTreeSet::new(),
            until: Time::ZERO,
        });
        (met.needed, met.until) = (needed(total), now + limits::ADOPTION);
        let voters = theirs.voters.iter().filter_map(|voter| voter.open().ok());
        let voters = voters.map(|voter| (voter.peer, Some(voter.address)));
        for (voter, address) in voters.chain([(peer, None)]) {
            if met.voters.len() < limits::MET_VOTERS {
                met.voters.entry(voter).or_insert(address);
            }
        }
        self.look_at = now;
    }

    /// A node is linked anew: an answer that it owes went with the link that it had, so it is asked again.
    pub fn linked(&mut self, now: Time, peer: &PeerId) {
        if self.unanswered.remove(peer) {
            self.asked.remove(peer);
            self.look_at = now;
        }
    }

    /// Looks whom to ask: after something changed, and when due. `linked` tells who can be asked.
    pub fn look(&mut self, now: Time, membership: &Membership, regime: Regime, out: &mut Outbox<Output>) {
        self.look_at = now + limits::CANDIDACY_REST;
        let Some(own) = membership.candidate() else { return };
        self.asked.retain(|_, again| now < *again);
        self.unanswered.retain(|peer| self.asked.contains_key(peer));
        if self.met.as_ref().is_some_and(|met| met.until <= now || met.endorsed.len() >= met.needed) {
            self.met = None;
        }
        let mut asked = Vec::new();
        if let Some(met) = &self.met {
            for (voter, address) in &met.voters {
                if met.endorsed.contains(voter) || *voter == own.peer {
                    continue;
                }
                match address {
                    _ if membership.is_linked(voter) => asked.push((*voter, true)),
                    Some(address) => out.push(Output::Dial(*voter, *address)),
                    None => {}
                }
            }
        }
        if membership.endorsers() >= regime.needed(membership.total()) {
            // What was said before says nothing of what may be found next.
            self.refused.clear();
        } else {
            let strict = regime.is_strict(own.address.ip());
            let members = membership.iter().map(|(member, _)| member);
            let usable = members.filter(|member| strict || membership.is_linked(&member.peer));
            let most = if strict { limits::VOTERS + limits::VOTERS_SLACK } else { limits::VOTERS };
            for voter in voters(&own, usable, most) {
                if membership.is_linked(&voter.peer) {
                    asked.push((voter.peer, false));
                } else {
                    out.push(Output::Dial(voter.peer, voter.address));
                }
            }
        }
        if asked.is_empty() {
            return;
        }
        self.look_at = now + limits::CANDIDACY_PAUSE;
        let Some(descriptor) = membership.application() else { return };
        for (voter, meeting) in asked {
            if self.asked.len() < limits::MET_VOTERS && !self.asked.contains_key(&voter) {
                self.asked.insert(voter, now + limits::APPLY_PATIENCE);
                self.unanswered.insert(voter);
                let invitations = List::new(self.invitations.iter().copied());
                out.push(Output::Ask(voter, Apply { descriptor: descriptor.clone(), invitations, meeting }));
            }
        }
    }

    /// A voter decided.
    pub fn verdict(
        &mut self,
        now: Time,
        membership: &Membership,
        from: PeerId,
        verdict: Verdict,
        out: &mut Outbox<Output>,
    ) {
        let Some(own) = membership.candidate() else { return };
        // Whoever was not asked has nothing to say.
        let Some(again) = self.asked.get_mut(&from) else { return };
        self.unanswered.remove(&from);
        match verdict.answer {
            VerdictAnswer::Endorsed(endorsement) => {
                self.refused.remove(&from);
                if verdict.admission == own.admission && endorsement.is_by(&from, &own) {
                    self.endorse(now, membership, from, endorsement, out);
                }
            }
            VerdictAnswer::Elsewhere(others) => {
                // It is asked again only if nothing else comes of it.
                *again = now + limits::APPLY_LATER;
                if let Some(met) = self.met.as_mut().filter(|met| met.voters.contains_key(&from)) {
                    for other in others.iter().filter_map(|other| other.open().ok()) {
                        if met.voters.len() < limits::MET_VOTERS && other.peer != own.peer {
                            met.voters.entry(other.peer).or_insert(Some(other.address));
                        }
                    }
                }
                out.push(Output::Named(from, others.into_vec()));
                self.look_at = now;
            }
            VerdictAnswer::Refused(hurdle, after_s) => {
                let after = std::time::Duration::from_secs(after_s.into());
                *again = now + after.clamp(limits::APPLY_PATIENCE_MIN, limits::APPLY_MUCH_LATER);
                // That others are being measured says nothing of this node.
                let passing = hurdle == Hurdle::Busy && self.refused.contains_key(&from);
                if self.refused.len() < limits::MET_VOTERS && !passing {
                    self.refused.insert(from, hurdle);
                }
            }
        }
    }

    fn endorse(
        &mut self,
        now: Time,
        membership: &Membership,
        from: PeerId,
        endorsement: Endorsement,
        out: &mut Outbox<Output>,
    ) {
        if let Some(met) = self.met.as_mut().filter(|met| met.voters.contains_key(&from)) {
            met.endorsed.insert(from);
        }
        self.endorsed.insert(from, (now, endorsement));
        // The newest of those that are there, and of another network those that it needs.
        let counts = |peer: &PeerId| {
            membership.contains(peer) || self.met.as_ref().is_some_and(|met| met.endorsed.contains(peer))
        };
        self.endorsed.retain(|peer, _| *peer == from || counts(peer));
        let mut newest: Vec<_> = self.endorsed.iter().map(|(peer, (at, _))| (*at, *peer)).collect();
        newest.sort_unstable();
        while newest.len() > limits::ENDORSEMENTS {
            self.endorsed.remove(&newest.remove(0).1);
        }
        out.push(Output::Endorsed(self.endorsed.values().map(|(_, endorsement)| *endorsement).collect()));
        self.look_at = now;
    }
}
