//! Standing queries: what is new in own leaves' lists and in what others tell of theirs, and what it is compared with.

use std::sync::Arc;

use overlay::{
    id::{ContentId, PeerId, QueryId},
    limits,
    machine::{Context, Outbox},
    query::Query as ParsedQuery,
    time::Time,
    wire::{
        bounded::List,
        leaf::Wishes,
        mesh::{Attachments as Frame, ChunkName, DigestName, MeshWishHits, MeshWishes, QueryDone},
        search::Hit,
    },
};
use rustc_hash::FxHashMap;

use super::{Output, Ultrapeer};
use crate::{
    index::{ChunkSlot, KeptSegment, LeafSlot, Lookup, Match, Scope, Segment, Snapshot, rank},
    leaves::{Closing, Session},
    search::{Answer, Environment},
    standing::{self, Standing},
};

/// What changed in the list of one own leaf.
#[derive(Debug, Default)]
pub(super) struct ListChange {
    /// Chunks that came.
    came: Vec<([u8; 32], Arc<Segment>)>,
    /// Contents of those that went.
    went: Vec<ContentId>,
}

impl ListChange {
    /// A chunk came.
    pub(super) fn came(&mut self, hash: [u8; 32], segment: Arc<Segment>) {
        self.came.push((hash, segment));
    }

    /// A chunk that is published went. Of a list that only loses chunks nothing is new.
    pub(super) fn went(&mut self, published: &Snapshot, chunk: ChunkSlot) {
        if !self.came.is_empty() {
            self.went.extend(published.kept(chunk).iter().flat_map(KeptSegment::contents));
        }
    }
}

impl Ultrapeer {
    /// Runs `act` on the standing queries and carries out what they want.
    fn with_standing(
        &mut self,
        now: Time,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Standing, Environment<'_>, &mut Outbox<standing::Output>),
    ) {
        let environment = Environment {
            now,
            attachments: &self.attachments,
            neighbours: &self.neighbours,
            ultrapeers: self.membership.total().max(1),
            bans: &self.bans,
        };
        let mut inner = Outbox::new();
        act(&mut self.standing, environment, &mut inner);
        out.append_mapped(&mut inner, |output| match output {
            standing::Output::ToLeaf(session, hits) => Output::ToLeaf(session, hits.into()),
            standing::Output::ToMesh(peer, message) => Output::ToMesh(peer, message),
        });
    }

    /// A leaf tells its wishes.
    pub(super) fn wishes_told(
        &mut self,
        cx: &mut Context<'_>,
        session: Session,
        wishes: Wishes,
        out: &mut Outbox<Output>,
    ) {
        if self.leaves.get(session).is_none() {
            return;
        }
        if let Err(why) = self.standing.told_by_leaf(cx.now, cx.rng, session, wishes) {
            out.push(Output::CloseLeaf(session, Closing::Protocol(why)));
        }
    }

    /// Another ultrapeer tells of wishes of its leaves.
    pub(super) fn wishes_heard(&mut self, now: Time, home: PeerId, frame: MeshWishes) {
        if self.neighbours.get(&home).is_some() {
            let snapshot = self.reader.snapshot();
            self.standing.told_by_home(now, home, frame, |query| snapshot.keys(query));
        }
    }

    /// Another ultrapeer tells what wishes of own leaves found.
    pub(super) fn wish_hits_heard(&mut self, now: Time, from: PeerId, told: MeshWishHits, out: &mut Outbox<Output>) {
        let given = told.hits.into_iter().filter_map(|mut hit| (!self.bans.withholds(&mut hit)).then_some(hit));
        let told = MeshWishHits { name: told.name, hits: List::new(given) };
        self.with_standing(now, out, |standing, environment, inner| {
            standing.hits(environment.now, from, told, inner);
        });
    }

    /// True if a question of standing queries has this name.
    pub(super) fn is_question(&self, id: QueryId) -> bool {
        self.standing.has_asked(id)
    }

    /// A home that was asked about a wish has hits.
    pub(super) fn question_answered(
        &mut self,
        now: Time,
        from: PeerId,
        id: QueryId,
        mut hits: Vec<Hit>,
        out: &mut Outbox<Output>,
    ) {
        hits.retain_mut(|hit| !self.bans.withholds(hit));
        self.with_standing(now, out, |standing, environment, inner| {
            standing.answered(environment.now, from, id, hits, inner);
        });
    }

    /// It has no more.
    pub(super) fn question_done(&mut self, now: Time, from: PeerId, done: &QueryDone, out: &mut Outbox<Output>) {
        self.with_standing(now, out, |standing, environment, inner| standing.done(environment, from, done, inner));
    }

    /// Another ultrapeer cannot be asked any more.
    pub(super) fn wishes_unlinked(&mut self, now: Time, peer: PeerId, out: &mut Outbox<Output>) {
        self.with_standing(now, out, |standing, environment, inner| standing.unlinked(environment, &peer, inner));
    }

    /// Tells, asks and forgets what it is time for.
    pub(super) fn attend_wishes(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.standing.must_choose(now) {
            let own = self.neighbours.own();
            let with_me = [self.me].into_iter().chain(self.neighbours.covering(own)).collect();
            let others = self.neighbours.others().into_iter().map(|part| self.neighbours.covering(part).collect());
            let parts: Vec<Vec<PeerId>> = [with_me].into_iter().chain(others).collect();
            self.standing.choose(now, parts);
        }
        if self.standing.next_deadline().is_some_and(|at| at <= now) {
            let snapshot = self.reader.snapshot();
            self.with_standing(now, out, |standing, environment, inner| {
                standing.on_deadline(environment, |query| snapshot.keys(query), inner);
            });
        }
    }

    /// What of the lists of leaves a frame of another home tells for the first time, once `act` has taken the frame. Of a
    /// home that tells all of its leaves from the beginning nothing is new.
    pub(super) fn noting_news<T>(
        &mut self,
        now: Time,
        home: &PeerId,
        frame: Frame,
        act: impl FnOnce(&mut Self, Frame) -> T,
    ) -> T {
        let may_be_new = self.attachments.is_caught_up(home) && !frame.reset;
        let mut handles: Vec<u64> = Vec::new();
        if may_be_new {
            handles.extend(frame.changes.iter().filter(|change| change.list.is_some()).map(|change| change.handle));
            handles.sort_unstable();
            handles.dedup();
        }
        let before: Vec<(u64, Vec<ChunkName>)> =
            handles.into_iter().map(|handle| (handle, self.listed(handle))).collect();
        let result = act(self, frame);
        for (handle, before) in before {
            for chunk in self.listed(handle) {
                if before.binary_search(&chunk).is_err() {
                    self.standing.is_new(now, DigestName { handle, chunk });
                }
            }
        }
        result
    }

    /// Chunks of all lists of a leaf, ascending.
    fn listed(&self, handle: u64) -> Vec<ChunkName> {
        let lists = self.attachments.homes(handle).iter();
        let mut chunks: Vec<ChunkName> = lists.flat_map(|(_, list)| list.chunks.iter().copied()).collect();
        chunks.sort_unstable();
        chunks.dedup();
        chunks
    }

    /// A digest is about to be in the index.
    pub(super) fn compare_digest(&mut self, now: Time, name: DigestName, leaf: LeafSlot, segment: &Arc<Segment>) {
        let now_s = self.seconds(now);
        self.standing.digest(now, now_s, name, leaf, segment);
    }

    /// The list of an own leaf changed, is published, and was not logged yet.
    pub(super) fn new_in_list(
        &mut self,
        now: Time,
        handle: u64,
        change: ListChange,
    ) -> Vec<(DigestName, Arc<Segment>)> {
        let ListChange { came, mut went } = change;
        went.sort_unstable();
        let (had_list, listed) = (self.attachments.is_own(handle), self.listed(handle));
        let mut new = Vec::new();
        for (hash, segment) in came {
            let name = DigestName { handle, chunk: ChunkName::of(&hash) };
            // Another home may have told of it before, and if the leaf has just come here, long before.
            let is_new = self.standing.was_new(&name) || had_list || listed.binary_search(&name.chunk).is_err();
            let places = if went.is_empty() { None } else { segment.kept().without(&went) };
            let has_new = places.as_ref().is_none_or(|places| !places.is_empty());
            if let Some(places) = places {
                self.standing.new_files(now, name, places);
            }
            if is_new && has_new {
                new.push((name, segment));
            }
        }
        new
    }

    /// Compares new chunks of own leaves.
    pub(super) fn compare_own(&mut self, now: Time, new: &[(DigestName, Arc<Segment>)], out: &mut Outbox<Output>) {
        for (name, segment) in new {
            for (number, query) in self.standing.own_chunk(now, *name, segment) {
                let answer = self.answer_news(now, &query, limits::WISH_ASK_LIMIT as usize, &[*name]);
                let hits = answer.map(|answer| answer.hits).unwrap_or_default();
                self.with_standing(now, out, |standing, environment, inner| {
                    standing.own_hits(environment.now, number, *name, hits, inner);
                });
            }
        }
    }

    /// The new files of chunks of own leaves that match a query. `None` if it cannot be understood.
    pub(super) fn answer_news(&self, now: Time, query: &str, limit: usize, chunks: &[DigestName]) -> Option<Answer> {
        let query = ParsedQuery::parse(query).ok()?;
        let now_s = self.seconds(now);
        let wanted: FxHashMap<ChunkSlot, (DigestName, LeafSlot)> = chunks
            .iter()
            .filter_map(|name| {
                let leaf = self.leaves.with_handle(name.handle)?;
                let place = self.chunks.get(&(leaf.slot, *leaf.chunk_hash(name.chunk)?))?;
                Some((*place, (*name, LeafSlot(leaf.slot))))
            })
            .collect();
        let snapshot = self.reader.snapshot();
        let is_leaf = |slot: LeafSlot| wanted.values().any(|(_, leaf)| *leaf == slot);
        let work_cap = limits::LOOKUP_WORK;
        let scope = Scope { now_s, max_matches: limits::WISH_MATCHES, work_cap, leaves: Some(&is_leaf), known: None };
        let found = snapshot.lookup_within(&query, scope);
        if !found.capped && !found.full {
            let is_new = |found: &Match| {
                let chunk = wanted.get(&found.chunk);
                chunk.is_some_and(|(name, _)| {
                    self.standing.files_of(name).is_none_or(|places| places.binary_search(&found.position).is_ok())
                })
            };
            let matches = found.matches.into_iter().filter(is_new).collect();
            return Some(self.answer_of(&snapshot, &query, Lookup { matches, ..Lookup::default() }, limit, now_s));
        }
        // A query for what nearly everybody has: the files are looked at on their own.
        let mut answer = Answer::default();
        let mut names: Vec<_> = wanted.into_values().collect();
        names.sort_unstable();
        for (name, slot) in names {
            let leaf = self.leaves.with_handle(name.handle);
            let Some(kept) = leaf.and_then(|leaf| leaf.kept_chunk(name.chunk)) else { continue };
            let alone = Snapshot::of(slot, Arc::new(kept.build_some(self.standing.files_of(&name))));
            let scope = Scope { now_s, max_matches: limits::CHUNK_FILES, work_cap, leaves: None, known: None };
            let found = alone.lookup_within(&query, scope);
            let part = self.answer_of(&alone, &query, found, limit - answer.hits.len(), now_s);
            answer.hits.extend(part.hits);
            answer.more |= part.more;
        }
        Some(answer)
    }

    fn answer_of(
        &self,
        snapshot: &Snapshot,
        query: &ParsedQuery,
        mut found: Lookup,
        limit: usize,
        now_s: i64,
    ) -> Answer {
        self.hold_back(snapshot, &mut found.matches);
        let ranking = rank::rank(snapshot, query, &found.matches, limit, now_s, |slot| self.facts(slot));
        let more = found.full || ranking.contents > limit;
        Answer { hits: ranking.groups.into_iter().map(|group| self.hit(group)).collect(), more, ..Answer::default() }
    }
}
