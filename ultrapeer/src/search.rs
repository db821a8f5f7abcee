//! Core: searches that this ultrapeer coordinates: for its leaves, and of its shard for other coordinators.
//!
//! What it decides: whom to ask and when, what the asker gets, when a search ends, and what may be said of
//! its completeness.
//!
//! ```text
//! start    the own index, which names the leaves elsewhere that may match (by their digests, or because their digest
//!          is not here yet); that is often all
//! homes    of those leaves: a minimum cover of their homes, each told the leaves it is asked for, a round at a time;
//!          after the first eight homes only for contents that are not known yet
//! shards   that this ultrapeer does not cover: one member of each (gateway) does the same there, in waves of 1, 3, 9,
//!          and the rest; all at once if the query is rare
//! holders  of a content, in a larger network: one of the ultrapeers that were told of them is asked instead, and names
//!          leaves to ask; another if it does not answer, or serves for too short a time to know
//! hits     merged by content; new contents go to the asker as they come, better knowledge of them at the end
//! silence  the next home of the same leaves, or another member of the shard, is asked as well
//! end      limit reached, all candidates asked, time over, or cancelled: one summary, and whoever is still at it is told
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `active` | one search: its candidates, whom it asked, what came of it |
//! | `cover` | which homes are asked for its candidates |
//! | `merged` | what several homes tell of one content |
//! | `neighbours` | which ultrapeers can be asked, and which part of the leaf space each covers |
//! | `pace` | how long others take to answer |
//! | `work` | what is asked of whom, and how far that is |
//!
//! Invariants:
//! - the asker gets at most `limit` distinct contents, none of which is blocked here, and exactly one summary, last;
//! - `exhausted` without a reason means: every leaf of the view that may have a match was searched by some home of it,
//!   or all its contents that may match were told by another; and the logs that say who they are were current. What was
//!   looked up with those who were told has a reason.

mod active;
mod cover;
mod merged;
pub mod neighbours;
mod pace;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use overlay::{
    bans::Rules,
    id::{ContentId, PeerId, QueryId},
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::List,
        descriptor::ShardPrefix,
        leaf::{Accepted, LeafMessage},
        mesh::{ContentKey, KnownContent, MeshMessage, QueryDone, QueryHits, QueryHolders, ToldHolder},
        search::{Hit, IncompleteSet, Search, StopReason, Summary, Target},
    },
};

use rustc_hash::FxHashSet;

pub use self::merged::frames;
use self::{active::Active, neighbours::Neighbours, pace::Pace};
use crate::attachments::Attachments;

/// A search of an own leaf, numbered by the driver: where its answer goes. Never reused.
pub type Ticket = u64;

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    /// An own leaf.
    Leaf(Ticket),
    /// Another ultrapeer, under its name for the query.
    Mesh(PeerId, QueryId),
}

/// What must be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send to the leaf that asked. After a summary the ticket is closed.
    ToAsker(Ticket, LeafMessage),
    /// Send to another ultrapeer.
    ToMesh(PeerId, MeshMessage),
}

/// What the rest of the ultrapeer knows and a search needs.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// The current time.
    pub now: Time,
    /// Who has which leaf.
    pub attachments: &'a Attachments,
    /// Whom to ask, and for what.
    pub neighbours: &'a Neighbours,
    /// Ultrapeers in the view, this one included.
    pub ultrapeers: u32,
    /// What is not given, and whom nobody is sent to.
    pub bans: &'a Rules,
}

impl Environment<'_> {
    /// True if a log is not current: of a live ultrapeer of the own shard, or of another that has leaves of it.
    fn lagging(&self) -> bool {
        let is_behind = |home: &PeerId| !self.attachments.is_current(self.now, home);
        self.neighbours.mates().any(|(mate, _)| is_behind(&mate))
            || self.attachments.homes_with_leaves().any(|home| is_behind(&home))
    }
}

/// What is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What is looked for.
    pub target: Target,
    /// Distinct contents wanted.
    pub limit: u32,
    /// Ask every home that holds a match, even when the limit is reached.
    pub all: bool,
    /// When it must have ended.
    pub deadline: Time,
    /// The part of the leaf space that this ultrapeer answers for; for a leaf it asks others for the rest.
    pub part: ShardPrefix,
    /// Contents that the asker knows already.
    pub known: FxHashSet<ContentKey>,
}

impl Wanted {
    /// What a leaf wants of an ultrapeer that covers `part`.
    pub fn of(search: Search, part: ShardPrefix, now: Time) -> Self {
        let timeout = std::time::Duration::from_millis(u64::from(search.timeout_ms)).min(limits::SEARCH_TIMEOUT_MAX);
        Self {
            target: search.target,
            limit: search.limit,
            all: search.all,
            deadline: now + timeout,
            part,
            known: FxHashSet::default(),
        }
    }
}

/// What an ultrapeer's own index says to a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Contents that match, best first, at most as many as were wanted.
    pub hits: Vec<Hit>,
    /// True if more match than were wanted.
    pub more: bool,
    /// Why something may be missing.
    pub incomplete: IncompleteSet,
    /// Contents that match and are blocked here.
    pub withheld: BTreeSet<ContentId>,
    /// Leaves attached elsewhere that may have matches, each once, ascending by handle.
    pub candidates: Vec<Candidate>,
    /// Contents that the asker knows, and how many leaves have each.
    pub known: Vec<KnownContent>,
    /// Leaves attached elsewhere that were said to have the content.
    pub holders: Vec<ToldHolder>,
    /// Ultrapeers that know more of them, first the one to ask first; `None` if nobody does, and all candidates are
    /// there. If this ultrapeer knows them itself, nobody need be asked.
    pub owners: Option<Vec<PeerId>>,
    /// Files and leaves that match, as far as they were counted: tells how rare it is.
    pub matches: usize,
}

/// A leaf attached elsewhere that may have matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// The leaf.
    pub handle: u64,
    /// The contents that may match; none if they are not known.
    pub contents: Box<[ContentKey]>,
}

/// How searches ended, for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Who asked.
    pub asker: Asker,
    /// The summary that the asker got.
    pub summary: Summary,
    /// Distinct contents that the asker got.
    pub hits: u32,
    /// Answers of homes that had nothing, although a digest said that they may.
    pub false_hits: u32,
    /// When it began.
    pub began: Time,
    /// When its first hit was sent.
    pub first_hit: Option<Time>,
}

/// All searches under way. See the module text.
#[derive(Debug, Default)]
pub struct Searches {
    active: BTreeMap<Asker, Active>,
    /// Searches by the names under which others were asked.
    by_id: BTreeMap<QueryId, Asker>,
    pace: Pace,
    ended: Vec<Ended>,
}

impl Searches {
    /// Searches under way.
    pub fn len(&self) -> usize {
        self.active.len()
    }

    /// True if none is under way.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// True if a search of that asker is under way.
    pub fn contains(&self, asker: Asker) -> bool {
        self.active.contains_key(&asker)
    }

    /// How searches ended since this was last called.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Begins a search with what the own index says. `seed` names its queries to others.
    pub fn start(
        &mut self,
        environment: Environment<'_>,
        asker: Asker,
        seed: u64,
        wanted: Wanted,
        answer: Answer,
        out: &mut Outbox<Output>,
    ) {
        if let Asker::Leaf(ticket) = asker {
            out.push(Output::ToAsker(ticket, Accepted { ultrapeers: environment.ultrapeers }.into()));
        }
        if let Asker::Mesh(peer, id) = asker {
            for known in answer.known.chunks(limits::QUERY_KNOWN) {
                let known = List::new(known.iter().copied());
                out.push(Output::ToMesh(peer, QueryHits { id, known, hits: List::default() }.into()));
            }
        }
        let mut active = Active::new(environment, asker, seed, wanted, &answer);
        active.take_hits(environment, None, answer.hits, out);
        self.active.insert(asker, active);
        self.go_on(environment, asker, out);
    }

    /// Hits came from another ultrapeer.
    pub fn hits(&mut self, environment: Environment<'_>, from: PeerId, told: QueryHits, out: &mut Outbox<Output>) {
        let Some(active) = find(&self.by_id, &mut self.active, told.id) else { return };
        if active.hears(environment.now, from, told.id, told.hits.len(), &mut self.pace) {
            active.take_known(told.id, &told.known);
            active.take_hits(environment, Some(from), told.hits.into_vec(), out);
        }
    }

    /// Another ultrapeer names holders of the content that is looked for.
    pub fn holders(&mut self, environment: Environment<'_>, from: PeerId, told: QueryHolders) {
        let Some(active) = find(&self.by_id, &mut self.active, told.id) else { return };
        if active.hears(environment.now, from, told.id, 0, &mut self.pace) {
            active.take_holders(environment, told);
        }
    }

    /// Another ultrapeer has no more.
    pub fn done(&mut self, environment: Environment<'_>, from: PeerId, done: QueryDone, out: &mut Outbox<Output>) {
        let Some(active) = find(&self.by_id, &mut self.active, done.id) else { return };
        if active.hears(environment.now, from, done.id, 0, &mut self.pace) {
            let asker = active.done(environment, done);
            self.go_on(environment, asker, out);
        }
    }

    /// Another ultrapeer answers no query any more: the link to it is lost, or it is not heard of.
    pub fn unlinked(&mut self, environment: Environment<'_>, peer: PeerId, out: &mut Outbox<Output>) {
        // Whoever asked is not there to be answered.
        let orphans: Vec<_> = self
            .active
            .keys()
            .filter(|asker| matches!(asker, Asker::Mesh(from, _) if *from == peer))
            .copied()
            .collect();
        for asker in orphans {
            self.cancel(environment.now, asker, out);
        }
        let waiting: Vec<_> =
            self.active.iter_mut().filter_map(|(asker, active)| active.fail(peer).then_some(*asker)).collect();
        for asker in waiting {
            self.go_on(environment, asker, out);
        }
    }

    /// The asker withdrew its search. No answer is sent any more, and all that are at work for it are told.
    pub fn cancel(&mut self, now: Time, asker: Asker, out: &mut Outbox<Output>) {
        if let Some(mut active) = self.remove(asker) {
            active.call_off(out);
            self.ended.push(active.ended(now, StopReason::Cancelled));
        }
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.active.values().map(Active::next_deadline).min()
    }

    /// Gives up on what takes too long.
    pub fn on_deadline(&mut self, environment: Environment<'_>, out: &mut Outbox<Output>) {
        let now = environment.now;
        let due: Vec<_> =
            self.active.iter().filter(|(_, active)| active.next_deadline() <= now).map(|(asker, _)| *asker).collect();
        for asker in due {
            let Some(active) = self.active.get_mut(&asker) else { continue };
            if active.is_over(now) {
                self.finish(environment, asker, StopReason::Timeout, out);
            } else {
                active.lose_patience(now);
                self.go_on(environment, asker, out);
            }
        }
    }

    fn remove(&mut self, asker: Asker) -> Option<Active> {
        let active = self.active.remove(&asker)?;
        for id in active.ids() {
            self.by_id.remove(&id);
        }
        Some(active)
    }

    /// Asks whom must be asked next, or ends the search.
    fn go_on(&mut self, environment: Environment<'_>, asker: Asker, out: &mut Outbox<Output>) {
        let Some(active) = self.active.get_mut(&asker) else { return };
        let (asked, stopped) = active.go_on(environment, self.pace.patience(), out);
        self.by_id.extend(asked.into_iter().map(|id| (id, asker)));
        if let Some(stopped) = stopped {
            self.finish(environment, asker, stopped, out);
        }
    }

    fn finish(&mut self, environment: Environment<'_>, asker: Asker, stopped: StopReason, out: &mut Outbox<Output>) {
        let Some(mut active) = self.remove(asker) else { return };
        active.call_off(out);
        active.tell_better(out);
        active.judge(environment, stopped);
        let mut ended = active.ended(environment.now, stopped);
        ended.summary.ultrapeers_total = environment.ultrapeers.max(ended.summary.ultrapeers_asked);
        match asker {
            Asker::Leaf(ticket) => out.push(Output::ToAsker(ticket, ended.summary.clone().into())),
            Asker::Mesh(peer, id) => out.push(Output::ToMesh(peer, active.report(id, stopped).into())),
        }
        self.ended.push(ended);
    }
}

fn find<'a>(
    by_id: &BTreeMap<QueryId, Asker>,
    active: &'a mut BTreeMap<Asker, Active>,
    id: QueryId,
) -> Option<&'a mut Active> {
    active.get_mut(by_id.get(&id)?)
}

#[cfg(test)]
mod tests;
