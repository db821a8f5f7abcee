//! Queries: what the own index says, and searches under way.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{
    address::network_prefix,
    id::{ContentId, PeerId},
    limits,
    machine::{Context, Outbox},
    query::Query as ParsedQuery,
    time::Time,
    wire::{
        bounded::{List, Text},
        leaf::LeafMessage,
        mesh::{ContentKey, KnownContent, Query, QueryDone, QueryHits, Scope},
        search::{Hit, HitPeer, Holder, Incomplete, IncompleteSet, Search, Target},
    },
};
use rand::RngExt;
use rustc_hash::FxHashSet;

use super::{Denial, Output, Ultrapeer};
use crate::{
    digests::is_digest,
    index::{
        LeafSlot, Lookup, Match, Scope as LookupScope, Snapshot,
        rank::{self, LeafFacts},
    },
    leaves::Session,
    search::{self, Answer, Asker, Candidate, Environment, Searches, Ticket, Wanted},
};

impl Ultrapeer {
    /// What this node's own index says: of its own leaves, and of those whose digests it holds whom to ask. `None` if
    /// the query cannot be understood.
    /// `known` are contents that the asker has.
    pub fn answer(
        &self,
        now: Time,
        target: &Target,
        limit: u32,
        scope: &Scope,
        known: &FxHashSet<ContentKey>,
    ) -> Option<Answer> {
        let limit = limit.min(limits::SEARCH_LIMIT_ALL) as usize;
        if let (Target::Query(source), Scope::News(chunks)) = (target, scope) {
            return self.answer_news(now, source, limit, chunks);
        }
        let now_s = self.seconds(now);
        let snapshot = self.reader.snapshot();
        let facts = |slot: LeafSlot| self.facts(slot);
        let mut withheld = BTreeSet::new();
        let (ranking, found) = match target {
            Target::Query(source) => {
                let query = ParsedQuery::parse(source).ok()?;
                let most = limits::LOOKUP_MATCHES.max(limit * 4);
                let mut found = self.look_up(&snapshot, &query, now_s, most, scope, known);
                withheld = self.hold_back(&snapshot, &mut found.matches);
                (rank::rank(&snapshot, &query, &found.matches, limit, now_s, facts), found)
            }
            Target::Content(content) => {
                let mut found = Lookup { matches: snapshot.holders(content), ..Lookup::default() };
                if self.bans.blocks(content) && !found.matches.is_empty() {
                    found.matches.clear();
                    withheld.insert(*content);
                }
                (rank::rank_holders(&snapshot, &found.matches, limit, now_s, facts), found)
            }
        };
        let candidates = match scope {
            Scope::Leaves(_) | Scope::Home | Scope::Holders | Scope::News(_) => Vec::new(),
            Scope::Shard(_) => self.candidates(target, &found),
        };
        let known = match scope {
            Scope::Shard(_) => count_known(known, &found, &candidates),
            Scope::Leaves(_) | Scope::Home | Scope::Holders | Scope::News(_) => Vec::new(),
        };
        let rank::Ranking { groups, contents } = ranking;
        let mut incomplete = IncompleteSet::default();
        // Cut before as many contents as wanted were seen: matches are missing, not only left for later.
        if found.capped || (found.full && contents < limit) {
            incomplete.insert(Incomplete::WorkCap);
        }
        if matches!(scope, Scope::Shard(part) if !self.neighbours.own().contains(*part)) {
            incomplete.insert(Incomplete::ShardUncovered);
        }
        Some(Answer {
            hits: groups.into_iter().map(|group| self.hit(group)).collect(),
            more: found.full || contents > limit,
            incomplete,
            withheld,
            matches: found.matches.len() + candidates.len(),
            candidates,
            known,
            ..Answer::default()
        })
    }

    /// Takes files of blocked contents out of what was found. Returns those contents.
    pub(super) fn hold_back(&self, snapshot: &Snapshot, matches: &mut Vec<Match>) -> BTreeSet<ContentId> {
        let mut withheld = BTreeSet::new();
        if self.bans.blocks_any() {
            matches.retain(|found| match snapshot.content(*found) {
                Some(content) if self.bans.blocks(&content) => {
                    withheld.insert(content);
                    false
                }
                _ => true,
            });
        }
        withheld
    }

    /// Seconds since 1970 UTC.
    pub(super) fn seconds(&self, now: Time) -> i64 {
        self.epoch_s + (now.as_micros() / 1_000_000) as i64
    }

    fn look_up(
        &self,
        snapshot: &Snapshot,
        query: &ParsedQuery,
        now_s: i64,
        most: usize,
        scope: &Scope,
        known: &FxHashSet<ContentKey>,
    ) -> Lookup {
        let look_up = |leaves: Option<&dyn Fn(LeafSlot) -> bool>| {
            let known = Some(known).filter(|known| !known.is_empty());
            let scope = LookupScope { now_s, max_matches: most, work_cap: limits::LOOKUP_WORK, leaves, known };
            snapshot.lookup_within(query, scope)
        };
        match scope {
            Scope::Leaves(handles) => {
                let slots: FxHashSet<u32> = handles
                    .iter()
                    .filter_map(|handle| self.leaves.with_handle(*handle))
                    .map(|leaf| leaf.slot)
                    .collect();
                look_up(Some(&|slot| slots.contains(&slot.0)))
            }
            Scope::Home | Scope::Holders | Scope::News(_) => look_up(Some(&|slot| !is_digest(slot))),
            Scope::Shard(_) => look_up(None),
        }
    }

    /// Leaves elsewhere that may have what is looked for: by their digests, or because those are not here. Of contents
    /// digests say nothing.
    fn candidates(&self, target: &Target, found: &Lookup) -> Vec<Candidate> {
        let unknown = |handle| Candidate { handle, contents: Box::default() };
        let mut candidates: Vec<Candidate> = match target {
            Target::Query(_) => {
                let mut listed = found.listed.chunk_by(|(leaf, _), (next, _)| leaf == next).peekable();
                let by_digest = found.candidates.iter().filter_map(|slot| {
                    let contents = listed.next_if(|listed| listed[0].0 == *slot).unwrap_or_default();
                    let contents = contents.iter().map(|(_, key)| *key).collect();
                    self.digests.handle(*slot).map(|handle| Candidate { handle, contents })
                });
                // Of whom some of the words are not here it is not known what else may match.
                let uncovered: FxHashSet<_> = self.digests.uncovered().collect();
                let by_digest = by_digest.filter(|candidate| !uncovered.contains(&candidate.handle));
                by_digest.chain(uncovered.iter().copied().map(unknown)).collect()
            }
            Target::Content(_) => self.attachments.handles().map(unknown).collect(),
        };
        candidates.sort_unstable_by_key(|candidate| candidate.handle);
        candidates.dedup_by_key(|candidate| candidate.handle);
        // What is searched here need not be searched elsewhere, and whose digest is kept may be attached nowhere.
        candidates.retain(|leaf| {
            let mut homes = self.attachments.best(leaf.handle, |_| true).peekable();
            homes.peek().is_some() && homes.all(|home| home != self.me)
        });
        candidates
    }

    pub(super) fn facts(&self, slot: LeafSlot) -> LeafFacts {
        let Some(leaf) = self.leaves.at(slot.0) else { return LeafFacts::default() };
        LeafFacts {
            prefix: network_prefix(leaf.address, 24, 48),
            free_slots: leaf.state.free_slots,
            queue: leaf.state.queue,
            public: leaf.state.reachability.is_open(),
            doubted: self.possessions.is_doubted(&leaf.peer),
            order: leaf.peer.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first)),
        }
    }

    pub(super) fn hit(&self, group: rank::Group) -> Hit {
        let peers = group.best.iter().filter_map(|slot| self.leaves.at(slot.0)).map(|leaf| HitPeer {
            peer: leaf.peer,
            homes: List::new([self.me]),
            reachability: leaf.state.reachability,
            free_slots: leaf.state.free_slots,
            queue: leaf.state.queue,
        });
        let holders = group
            .leaves
            .iter()
            .filter_map(|(slot, name)| self.leaves.at(slot.0).map(|leaf| Holder { handle: leaf.handle, name: *name }));
        Hit {
            content: group.content,
            size: group.size,
            score: group.score,
            names: List::new(group.names.iter().map(|name| Text::new(name))),
            path: Text::new(&group.path),
            modified_s: group.modified_s,
            tags: group.tags,
            sources: group.sources,
            networks: group.networks,
            peers: List::new(peers),
            holders: List::new(holders),
        }
    }

    /// Runs `act` with what searches need to know, and carries out what they want.
    pub(super) fn with_searches(
        &mut self,
        now: Time,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Searches, Environment<'_>, &mut Outbox<search::Output>),
    ) {
        let environment = Environment {
            now,
            attachments: &self.attachments,
            neighbours: &self.neighbours,
            ultrapeers: self.membership.total().max(1),
            bans: &self.bans,
        };
        let mut inner = Outbox::new();
        act(&mut self.searches, environment, &mut inner);
        for output in inner.drain() {
            match output {
                search::Output::ToAsker(ticket, message) => {
                    let last = matches!(message, LeafMessage::Summary(_));
                    if last {
                        self.askers.remove(&ticket);
                    }
                    out.push(Output::ToAsker(ticket, message, last));
                }
                search::Output::ToMesh(peer, message) => out.push(Output::ToMesh(peer, message)),
            }
        }
        out.extend(self.searches.take_ended().into_iter().map(Output::SearchEnded));
    }

    /// A leaf searches.
    pub(super) fn search(
        &mut self,
        cx: &mut Context<'_>,
        ticket: Ticket,
        session: Session,
        mut search: Search,
        out: &mut Outbox<Output>,
    ) {
        let denial = if self.leaves.get(session).is_none() {
            Some(Denial::Gone)
        } else if self.searches.len() >= limits::SEARCHES {
            Some(Denial::Overload)
        } else {
            (!self.leaves.may_query(cx.now, session)).then_some(Denial::TooOften)
        };
        if let Some(why) = denial {
            return out.push(Output::RefuseAsker(ticket, why));
        }
        search.limit = search.limit.clamp(1, limits::SEARCH_LIMIT_ALL);
        let seed = cx.rng.random();
        let known = self.holders_of(cx.now, &search.target, seed);
        let scope = if known.is_some() { Scope::Holders } else { Scope::Shard(self.neighbours.own()) };
        let Some(mut answer) = self.answer(cx.now, &search.target, search.limit, &scope, &FxHashSet::default()) else {
            // The leaf's own check must have let it pass: a leaf of a later release, or a broken one.
            return out.push(Output::RefuseAsker(ticket, Denial::Invalid));
        };
        if let Some((owners, holders)) = known {
            (answer.owners, answer.holders) = (Some(owners), holders);
        }
        self.askers.insert(ticket, session);
        let wanted = Wanted::of(search, self.neighbours.own(), cx.now);
        self.with_searches(cx.now, out, |searches, environment, inner| {
            searches.start(environment, Asker::Leaf(ticket), seed, wanted, answer, inner);
        });
    }

    /// Another ultrapeer asks: of own leaves the answer is at hand, of a shard it takes a search.
    pub(super) fn answer_mesh(&mut self, cx: &mut Context<'_>, from: PeerId, query: Query, out: &mut Outbox<Output>) {
        let limit = query.limit.clamp(1, limits::FORWARD_LIMIT);
        let known: FxHashSet<_> = query.known.iter().copied().collect();
        let answer = self.answer(cx.now, &query.target, limit, &query.scope, &known);
        let invalid = answer.is_none();
        // A query that this release cannot read was not searched: say that something may be missing.
        let answer = answer.unwrap_or_else(|| {
            let mut incomplete = IncompleteSet::default();
            incomplete.insert(Incomplete::WorkCap);
            Answer { incomplete, ..Answer::default() }
        });
        if let Scope::Shard(part) = query.scope
            && !invalid
        {
            let asker = Asker::Mesh(from, query.id);
            if self.searches.len() >= limits::SEARCHES || self.searches.contains(asker) {
                return;
            }
            let deadline = cx.now + limits::SEARCH_TIMEOUT;
            let wanted = Wanted { target: query.target, limit, all: query.all, deadline, part, known };
            let seed = cx.rng.random();
            return self.with_searches(cx.now, out, |searches, environment, inner| {
                searches.start(environment, asker, seed, wanted, answer, inner);
            });
        }
        if let (Scope::Holders, Target::Content(content)) = (&query.scope, &query.target) {
            self.name_holders(cx.now, from, query.id, content, out);
        }
        let Answer { hits, more, incomplete, withheld, .. } = answer;
        out.push(Output::QueryAnswered { hits: hits.len(), invalid });
        for hits in search::frames(hits) {
            out.push(Output::ToMesh(from, QueryHits { id: query.id, hits, known: List::default() }.into()));
        }
        out.push(Output::ToMesh(
            from,
            QueryDone { id: query.id, more, incomplete, withheld: withheld.len() as u32, ..QueryDone::default() }
                .into(),
        ));
    }

    /// Another ultrapeer has hits for a query of this one.
    pub(super) fn query_hits(&mut self, now: Time, from: PeerId, told: QueryHits, out: &mut Outbox<Output>) {
        if self.is_question(told.id) {
            return self.question_answered(now, from, told.id, told.hits.into_vec(), out);
        }
        self.with_searches(now, out, |searches, environment, inner| {
            searches.hits(environment, from, told, inner);
        });
    }

    /// Another ultrapeer has no more.
    pub(super) fn query_done(&mut self, now: Time, from: PeerId, done: QueryDone, out: &mut Outbox<Output>) {
        if self.is_question(done.id) {
            return self.question_done(now, from, &done, out);
        }
        self.with_searches(now, out, |searches, environment, inner| searches.done(environment, from, done, inner));
    }

    /// The leaf behind a ticket does not wait any more.
    pub(super) fn cancel(&mut self, now: Time, ticket: Ticket, out: &mut Outbox<Output>) {
        self.askers.remove(&ticket);
        self.introductions.cancel(ticket);
        self.with_searches(now, out, |searches, environment, inner| {
            searches.cancel(environment.now, Asker::Leaf(ticket), inner);
        });
    }
}

/// How many leaves have each content that is known: own ones, and by the digests those of candidates.
fn count_known(known: &FxHashSet<ContentKey>, found: &Lookup, candidates: &[Candidate]) -> Vec<KnownContent> {
    if known.is_empty() {
        return Vec::new();
    }
    let mut counts: BTreeMap<ContentKey, u32> = BTreeMap::new();
    let elsewhere = candidates.iter().flat_map(|candidate| &candidate.contents);
    for key in found.known.iter().map(|(_, key)| key).chain(elsewhere.filter(|key| known.contains(*key))) {
        *counts.entry(*key).or_default() += 1;
    }
    counts.into_iter().map(|(key, sources)| KnownContent { key, sources }).collect()
}
