//! One search: its candidates, whom it asked for them, and what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use overlay::{
    id::{ContentId, PeerId, QueryId},
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::List,
        descriptor::ShardPrefix,
        leaf::LeafMessage,
        mesh::{ContentKey, KnownContent, Query, QueryCancel, QueryDone, QueryHits, QueryHolders, Scope, ToldHolder},
        search::{Hit, Hits, Incomplete, IncompleteSet, StopReason, Summary},
    },
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Answer, Asker, Ended, Environment, Output, Wanted,
    cover::{Open, Pick, cover},
    frames,
    merged::Merged,
    pace::Pace,
    work::{About, Ask, Candidate, Owners, Part, State},
};
use crate::holders::mix;

/// Contents that others need not tell.
type Known = List<ContentKey, { limits::QUERY_KNOWN }>;

/// A search. See the module text.
#[derive(Debug)]
pub(super) struct Active {
    asker: Asker,
    seed: u64,
    wanted: Wanted,
    began: Time,
    first_hit: Option<Time>,
    merged: FxHashMap<ContentId, Merged>,
    /// Keys of those, and of what the asker knows.
    known: FxHashSet<ContentKey>,
    /// Contents of which more is known than the asker was told.
    better: BTreeSet<ContentId>,
    /// By content: leaves elsewhere whose digest names it.
    named: FxHashMap<ContentKey, Vec<u64>>,
    /// Leaves attached elsewhere that may have matches and were not searched to the end.
    open: BTreeMap<u64, Candidate>,
    /// Other parts of the leaf space.
    parts: Vec<Part>,
    /// Those who know the holders of the content, if they are asked.
    owners: Option<Owners>,
    asks: Vec<Ask>,
    /// Parts that may be asked so far; grows with each wave.
    wave: usize,
    more: bool,
    incomplete: IncompleteSet,
    /// Contents that match and are not given here.
    withheld: BTreeSet<ContentId>,
    /// How many others say that they do not give. Two of them may mean the same one.
    withheld_elsewhere: u32,
    false_hits: u32,
    /// What gateways did on behalf of it.
    elsewhere: QueryDone,
    leaves: (u64, u64),
    /// Leaves elsewhere that were searched.
    searched: u64,
}

/// The first waves in which other parts of the leaf space are asked, by how many were asked by then.
const WAVES: [usize; 3] = [1, 4, 13];

impl Active {
    pub(super) fn new(environment: Environment<'_>, asker: Asker, seed: u64, wanted: Wanted, answer: &Answer) -> Self {
        // Who asks for a shard asks others for the rest; holders are known wherever they are attached.
        let parts = match asker {
            Asker::Leaf(_) if answer.owners.is_none() => environment.neighbours.others(),
            _ => Vec::new(),
        };
        let owners = answer.owners.clone().map(|owners| Owners {
            is_done: owners.is_empty(),
            order: owners.into_iter(),
            pending: 0,
        });
        let mut named: FxHashMap<ContentKey, Vec<u64>> = FxHashMap::default();
        let mut open = BTreeMap::new();
        for super::Candidate { handle, contents } in &answer.candidates {
            for key in contents {
                named.entry(*key).or_default().push(*handle);
            }
            let own = environment.attachments.own_sequence(*handle);
            open.insert(*handle, Candidate { own, contents: contents.clone(), ..Candidate::default() });
        }
        let rare = answer.matches * (1 + parts.len()) < limits::RARE_MATCHES;
        let mut active = Self {
            asker,
            seed,
            began: environment.now,
            first_hit: None,
            merged: FxHashMap::default(),
            // What is not given here need not be told by others either.
            known: wanted.known.iter().copied().chain(answer.withheld.iter().map(ContentKey::of)).collect(),
            better: BTreeSet::new(),
            named,
            open,
            wave: if rare || wanted.all { WAVES.len() } else { 0 },
            parts: parts.into_iter().map(Part::new).collect(),
            owners,
            wanted,
            asks: Vec::new(),
            more: answer.more,
            incomplete: answer.incomplete,
            withheld: answer.withheld.clone(),
            withheld_elsewhere: 0,
            false_hits: 0,
            elsewhere: QueryDone::default(),
            leaves: (0, 0),
            searched: 0,
        };
        active.name(environment, &answer.holders);
        active
    }

    /// Leaves that were said to have the content must be asked, unless they were searched here.
    fn name(&mut self, environment: Environment<'_>, holders: &[ToldHolder]) {
        for ToldHolder { handle, home } in holders {
            if !environment.attachments.is_own(*handle) {
                self.open.entry(*handle).or_default().teller.get_or_insert(*home);
            }
        }
    }

    /// Another ultrapeer, which was heard of before, names holders of the content.
    pub(super) fn take_holders(&mut self, environment: Environment<'_>, told: QueryHolders) {
        let was_asked = self.asks.iter().any(|ask| ask.id == told.id && matches!(ask.about, About::Holders));
        if let Some(owners) = self.owners.as_mut().filter(|owners| was_asked && !owners.is_done) {
            owners.is_done = told.is_settled;
            self.name(environment, &told.holders);
        }
    }

    /// The names under which others were asked.
    pub(super) fn ids(&self) -> impl Iterator<Item = QueryId> + '_ {
        self.asks.iter().map(|ask| ask.id)
    }

    /// True if its time is over.
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.wanted.deadline <= now
    }

    /// A word of another ultrapeer, with that many hits: false if none is awaited.
    pub(super) fn hears(&mut self, now: Time, from: PeerId, id: QueryId, hits: usize, pace: &mut Pace) -> bool {
        let Some(ask) = self.asks.iter_mut().find(|ask| ask.id == id && ask.peer == from) else { return false };
        match ask.state {
            State::Waiting(_) => ask.state = State::Waiting(now + limits::ANSWER_PATIENCE),
            State::Late(_) => ask.state = State::Late(now + limits::ANSWER_PATIENCE),
            State::Done | State::Failed => return false,
        }
        if let Some(since) = ask.since.take() {
            pace.note(now.since(since));
        }
        ask.hits += hits;
        true
    }

    /// An ultrapeer has no more. It was heard of before.
    pub(super) fn done(&mut self, environment: Environment<'_>, mut done: QueryDone) -> Asker {
        // A member that covers the part no more is no better than a silent one: the next is asked.
        let is_about_part = self.asks.iter().any(|ask| ask.id == done.id && matches!(ask.about, About::Part(_)));
        let covers_no_more = is_about_part && done.incomplete.remove(Incomplete::ShardUncovered);
        self.more |= done.more;
        self.withheld_elsewhere = self.withheld_elsewhere.saturating_add(done.withheld);
        self.incomplete.extend(done.incomplete);
        if let Some(at) = self.asks.iter().position(|ask| ask.id == done.id) {
            self.close(at, if covers_no_more { State::Failed } else { State::Done });
            let ask = &self.asks[at];
            match &ask.about {
                About::Leaves(leaves) => {
                    self.false_hits += u32::from(ask.hits == 0);
                    for handle in leaves {
                        // Homes that have another list of it are asked as well: this one may be behind, or lie.
                        let homes = environment.attachments.homes(*handle);
                        let list = homes.iter().find(|(home, _)| *home == ask.peer).map(|(_, list)| list.clone());
                        let Some(candidate) = self.open.get_mut(handle) else { continue };
                        // What a distrusted home finds is shown, and proves nothing.
                        candidate.searched.extend(list.filter(|_| environment.attachments.is_trusted(&ask.peer)));
                        if !candidate.is_open(environment, *handle) {
                            self.open.remove(handle);
                            self.searched += 1;
                        }
                    }
                }
                About::Part(part) => {
                    let part = &mut self.parts[*part];
                    if !part.is_done && !covers_no_more {
                        part.is_done = true;
                        self.leaves.0 += done.leaves_covered;
                        self.leaves.1 += done.leaves_total;
                    }
                    self.elsewhere.ultrapeers_asked += done.ultrapeers_asked;
                    self.elsewhere.messages += done.messages;
                }
                About::Holders => {}
            }
        }
        self.asker
    }

    /// An ultrapeer will not answer. True if anything was awaited of it.
    pub(super) fn fail(&mut self, peer: PeerId) -> bool {
        let open: Vec<_> = (0..self.asks.len())
            .filter(|at| {
                self.asks[*at].peer == peer && matches!(self.asks[*at].state, State::Waiting(_) | State::Late(_))
            })
            .collect();
        for at in &open {
            self.close(*at, State::Failed);
        }
        !open.is_empty()
    }

    /// Notes who has been silent for too long.
    pub(super) fn lose_patience(&mut self, now: Time) {
        for at in 0..self.asks.len() {
            match self.asks[at].state {
                State::Waiting(until) if until <= now => self.close(at, State::Late(now + limits::ANSWER_PATIENCE)),
                State::Late(until) if until <= now => self.close(at, State::Failed),
                _ => {}
            }
        }
    }

    /// Ends the wait for an ask: what it was about is open again, unless it was done.
    fn close(&mut self, at: usize, state: State) {
        let ask = &mut self.asks[at];
        let was_waiting = matches!(ask.state, State::Waiting(_));
        ask.state = state;
        if !was_waiting {
            return;
        }
        match &ask.about {
            About::Leaves(leaves) => {
                for handle in leaves {
                    if let Some(candidate) = self.open.get_mut(handle) {
                        candidate.pending -= 1;
                        candidate.tried.push(ask.peer);
                    }
                }
            }
            About::Part(part) => {
                let part = &mut self.parts[*part];
                part.pending -= 1;
                part.tried.push(ask.peer);
            }
            About::Holders => {
                if let Some(owners) = &mut self.owners {
                    owners.pending -= 1;
                }
            }
        }
    }

    /// When something must be given up.
    pub(super) fn next_deadline(&self) -> Time {
        let patience = self.asks.iter().filter_map(|ask| match ask.state {
            State::Waiting(until) | State::Late(until) => Some(until),
            State::Done | State::Failed => None,
        });
        patience.fold(self.wanted.deadline, Time::min)
    }

    /// Asks whom must be asked now. Returns the names of the new queries, and why the search ends if it does.
    pub(super) fn go_on(
        &mut self,
        environment: Environment<'_>,
        patience: Duration,
        out: &mut Outbox<Output>,
    ) -> (Vec<QueryId>, Option<StopReason>) {
        self.shrink(environment);
        let is_full = self.merged.len() >= self.wanted.limit as usize;
        let homes = self.next_homes(environment);
        let parts = self.next_parts(environment);
        let owner = self.next_owner(environment);
        let is_waiting = self.asks.iter().any(|ask| matches!(ask.state, State::Waiting(_)));
        let unknown = self.more
            || is_waiting
            || !homes.is_empty()
            || owner.is_some()
            || self.parts.iter().any(|part| !part.is_done);
        if is_full && unknown && !self.wanted.all {
            return (Vec::new(), Some(StopReason::Limit));
        }
        let asked_before = self.asks.len();
        let known = self.known();
        for Pick { home, leaves, whole } in homes {
            let known = if whole { List::default() } else { known.clone() };
            self.ask(environment.now, patience, home, About::Leaves(leaves), known, out);
        }
        for (peer, part) in parts {
            self.ask(environment.now, patience, peer, About::Part(part), known.clone(), out);
        }
        if let Some(peer) = owner {
            self.ask(environment.now, patience, peer, About::Holders, List::default(), out);
        }
        let new: Vec<_> = self.asks[asked_before..].iter().map(|ask| ask.id).collect();
        let is_waiting = self.asks.iter().any(|ask| matches!(ask.state, State::Waiting(_)));
        // Who is late is awaited only for what nobody else has told.
        let may_come = self.asks.iter().any(|ask| match &ask.about {
            _ if !matches!(ask.state, State::Late(_)) => false,
            About::Leaves(leaves) => leaves.iter().any(|handle| self.open.contains_key(handle)),
            About::Part(part) => !self.parts[*part].is_done,
            About::Holders => self.owners.as_ref().is_some_and(|owners| !owners.is_done),
        });
        if is_waiting || may_come {
            return (new, None);
        }
        // A list that was cut at the limit, here or elsewhere, is no exhaustion.
        let stopped = if is_full && self.more { StopReason::Limit } else { StopReason::Exhausted };
        (new, Some(stopped))
    }

    /// What this ultrapeer covers no more since the search began, it cannot answer for: a leaf's search asks others for
    /// it, and whoever asked for a shard is told.
    fn shrink(&mut self, environment: Environment<'_>) {
        let own = environment.neighbours.own();
        if own.contains(self.wanted.part) {
            return;
        }
        match self.asker {
            Asker::Leaf(_) if self.owners.is_none() => {
                let others = environment.neighbours.others().into_iter();
                let is_asked = |other: ShardPrefix| self.parts.iter().any(|part| part.prefix.overlaps(other));
                let given_up = others.filter(|other| self.wanted.part.contains(*other) && !is_asked(*other));
                let given_up: Vec<_> = given_up.map(Part::new).collect();
                self.parts.extend(given_up);
            }
            Asker::Leaf(_) => {}
            Asker::Mesh(..) => self.incomplete.insert(Incomplete::ShardUncovered),
        }
        if self.wanted.part.contains(own) {
            self.wanted.part = own;
        }
    }

    /// Homes to ask now, with the leaves that each is asked for. See [`cover`].
    fn next_homes(&mut self, environment: Environment<'_>) -> Vec<Pick> {
        let waiting = self.asks.iter().filter(|ask| matches!(ask.state, State::Waiting(_))).count();
        let round = if self.wanted.all { usize::MAX } else { limits::FORWARDS_PER_ROUND };
        let room = round.saturating_sub(waiting);
        // Of other parts of the leaf space whoever asks wants contents; sources are counted.
        let asked = self.asks.iter().filter(|ask| matches!(ask.about, About::Leaves(_))).count();
        let whole = match self.asker {
            Asker::Mesh(..) if !self.wanted.all => 0,
            _ if self.wanted.all => usize::MAX,
            _ => limits::FORWARDS_PER_ROUND.saturating_sub(asked),
        };
        let Environment { attachments, neighbours, .. } = environment;
        let is_whole_space = neighbours.own() == ShardPrefix::ALL;
        let is_told_of = |handle: u64, candidate: &Candidate| {
            let teller = candidate.teller.filter(|_| attachments.homes(handle).is_empty() && !is_whole_space);
            teller.is_some_and(|home| neighbours.get(&home).is_some())
        };
        let known = &self.known;
        let all_known =
            |contents: &[ContentKey]| !contents.is_empty() && contents.iter().all(|key| known.contains(key));
        // Who is attached nowhere any more has left. Who has come here since the beginning, and has no other home any
        // more, was not searched by anyone.
        let mut missed = false;
        self.open.retain(|handle, candidate| {
            let stays =
                candidate.pending > 0 || candidate.is_open(environment, *handle) || is_told_of(*handle, candidate);
            missed |= !stays && candidate.has_come(environment, *handle);
            let is_asked_anyway = candidate.pending > 0 || (whole > 0 && candidate.tried.is_empty());
            stays && (is_asked_anyway || !all_known(&candidate.contents))
        });
        if missed {
            self.incomplete.insert(Incomplete::HomeSilent);
        }
        if room == 0 {
            return Vec::new();
        }
        let mut open = Vec::new();
        for (handle, candidate) in self.open.iter().filter(|(_, candidate)| candidate.pending == 0) {
            let usable = |home: &PeerId| neighbours.is_usable(home) && !candidate.tried.contains(home);
            let unsearched =
                || attachments.unsearched(*handle, candidate.own, &candidate.searched).filter(|(home, _)| usable(home));
            let newest = unsearched().map(|(_, list)| list.sequence).max();
            let mut homes: Vec<_> =
                unsearched().filter(|(_, list)| Some(list.sequence) == newest).map(|(home, _)| *home).collect();
            if attachments.homes(*handle).is_empty() {
                homes.extend(candidate.teller.filter(usable));
            }
            open.push(Open { handle: *handle, homes, contents: &candidate.contents });
        }
        let asked_for = self.open.values().filter(|candidate| candidate.pending > 0);
        let mut sought = self.known.clone();
        sought.extend(asked_for.flat_map(|candidate| &candidate.contents));
        cover(&open, sought, room, whole)
    }

    /// Members of other parts of the leaf space to ask now.
    fn next_parts(&mut self, environment: Environment<'_>) -> Vec<(PeerId, usize)> {
        let allowed = |wave: usize| WAVES.get(wave).copied().unwrap_or(usize::MAX);
        // The next wave comes when all of the last have answered, or were silent.
        while self.wave < WAVES.len()
            && self
                .parts
                .iter()
                .take(allowed(self.wave))
                .all(|part| part.is_done || (part.pending == 0 && !part.tried.is_empty()))
        {
            self.wave += 1;
        }
        let mut asked = Vec::new();
        for (at, part) in self.parts.iter().enumerate().take(allowed(self.wave)) {
            if part.is_done || part.pending > 0 {
                continue;
            }
            let members: Vec<_> =
                environment.neighbours.covering(part.prefix).filter(|peer| !part.tried.contains(peer)).collect();
            // Any of them, another for each search.
            let pick = mix(self.seed, at as u64) as usize % members.len().max(1);
            asked.extend(members.get(pick).map(|peer| (*peer, at)));
        }
        asked
    }

    /// Who is to be asked for holders now: one at a time.
    fn next_owner(&mut self, environment: Environment<'_>) -> Option<PeerId> {
        let owners = self.owners.as_mut().filter(|owners| !owners.is_done && owners.pending == 0)?;
        owners.order.by_ref().find(|owner| environment.neighbours.is_usable(owner))
    }

    fn ask(
        &mut self,
        now: Time,
        patience: Duration,
        peer: PeerId,
        about: About,
        known: Known,
        out: &mut Outbox<Output>,
    ) {
        let scope = match &about {
            About::Leaves(leaves) => {
                for handle in leaves {
                    self.open.entry(*handle).or_default().pending += 1;
                }
                let listed = (leaves.len() <= limits::QUERY_LEAVES).then(|| List::new(leaves.iter().copied()));
                listed.map_or(Scope::Home, Scope::Leaves)
            }
            About::Part(part) => {
                let part = &mut self.parts[*part];
                part.pending += 1;
                Scope::Shard(part.prefix)
            }
            About::Holders => {
                if let Some(owners) = &mut self.owners {
                    owners.pending += 1;
                }
                Scope::Holders
            }
        };
        let id = QueryId(mix(self.seed, (1 << 32) + self.asks.len() as u64));
        self.asks.push(Ask { id, peer, about, state: State::Waiting(now + patience), since: Some(now), hits: 0 });
        let Wanted { target, limit, all, .. } = &self.wanted;
        let query = Query { id, target: target.clone(), limit: *limit, all: *all, scope, known };
        out.push(Output::ToMesh(peer, query.into()));
    }

    /// Contents that others need not tell; none if every home shall.
    fn known(&self) -> Known {
        let known: BTreeSet<_> = if self.wanted.all { BTreeSet::new() } else { self.known.iter().copied().collect() };
        List::new(known.into_iter().take(limits::QUERY_KNOWN))
    }

    /// Tells those that are still at work that they need not be.
    pub(super) fn call_off(&mut self, out: &mut Outbox<Output>) {
        for ask in &self.asks {
            if matches!(ask.state, State::Waiting(_) | State::Late(_)) {
                out.push(Output::ToMesh(ask.peer, QueryCancel { id: ask.id }.into()));
            }
        }
    }

    /// What can be said of how complete it is, now that it ends.
    pub(super) fn judge(&mut self, environment: Environment<'_>, stopped: StopReason) {
        let own = environment.attachments.leaves_under(self.wanted.part) as u64;
        let missed = self.open.len() as u64;
        self.leaves.0 += match self.owners {
            None => own.saturating_sub(missed),
            Some(_) => own.min(environment.attachments.own_leaves() as u64 + self.searched),
        };
        self.leaves.1 += own;
        if stopped != StopReason::Exhausted {
            return;
        }
        // Not every home was asked, because that would cost too much.
        if self.owners.is_some() {
            self.incomplete.insert(Incomplete::WorkCap);
        }
        if missed > 0 {
            self.incomplete.insert(Incomplete::HomeSilent);
        }
        // Members that did not answer cover a part no better than none.
        if self.parts.iter().any(|part| !part.is_done) {
            self.incomplete.insert(Incomplete::ShardUncovered);
        }
        if environment.lagging() {
            self.incomplete.insert(Incomplete::DigestLag);
        }
    }

    /// An ultrapeer, which was heard of before, counts who has what is known.
    pub(super) fn take_known(&mut self, id: QueryId, known: &[KnownContent]) {
        // Of leaves that it was asked for by their handles the digests tell.
        if known.is_empty() || !self.asks.iter().any(|ask| ask.id == id && matches!(ask.about, About::Part(_))) {
            return;
        }
        let sources: FxHashMap<_, _> = known.iter().map(|known| (known.key, known.sources)).collect();
        for (content, merged) in &mut self.merged {
            if let Some(sources) = sources.get(&ContentKey::of(content)).filter(|sources| **sources > 0) {
                merged.add_counted(*sources);
                self.better.insert(*content);
            }
        }
    }

    /// Merges hits of the own index or of another ultrapeer, and sends the asker contents that are new to it. Better knowledge of others waits for the end, see
    /// [`Self::tell_better`]: each home has some, and each time all of a hit would be sent again.
    pub(super) fn take_hits(
        &mut self,
        environment: Environment<'_>,
        from: Option<PeerId>,
        hits: Vec<Hit>,
        out: &mut Outbox<Output>,
    ) {
        // What a distrusted home tells is shown, and asked of others as well.
        let is_trusted = from.is_none_or(|from| environment.attachments.is_trusted(&from));
        let mut news = Vec::new();
        for mut hit in hits {
            let content = hit.content;
            let key = ContentKey::of(&content);
            if self.wanted.known.contains(&key) {
                continue;
            }
            if environment.bans.withholds(&mut hit) {
                // Of one that only banned leaves have here, others may know another source.
                if environment.bans.blocks(&content) {
                    self.known.insert(key);
                }
                if self.withheld.len() < limits::SEARCH_LIMIT_ALL as usize {
                    self.withheld.insert(content);
                }
                continue;
            }
            self.withheld.remove(&content);
            if let Some(known) = self.merged.get_mut(&content) {
                if known.merge(hit) {
                    self.better.insert(content);
                }
                self.known.extend(is_trusted.then_some(key));
            } else if self.merged.len() < self.wanted.limit as usize {
                let named = self.named.get(&key).map_or(&[][..], |handles| handles);
                self.merged.insert(content, Merged::new(hit, named));
                self.known.extend(is_trusted.then_some(key));
                news.push(content);
            } else {
                self.more = true;
            }
        }
        if !news.is_empty() {
            self.first_hit.get_or_insert(environment.now);
        }
        self.tell(&news, out);
    }

    /// Sends the asker what is known better than when it was told.
    pub(super) fn tell_better(&mut self, out: &mut Outbox<Output>) {
        let better: Vec<_> = std::mem::take(&mut self.better).into_iter().collect();
        self.tell(&better, out);
    }

    /// Sends the asker what is known of these contents.
    fn tell(&self, news: &[ContentId], out: &mut Outbox<Output>) {
        let known = news.iter().filter_map(|content| self.merged.get(content));
        match self.asker {
            Asker::Leaf(ticket) => {
                for hits in frames(known.map(Merged::for_asker)) {
                    out.push(Output::ToAsker(ticket, LeafMessage::from(Hits { hits })));
                }
            }
            Asker::Mesh(peer, id) => {
                for hits in frames(known.map(Merged::for_mesh)) {
                    out.push(Output::ToMesh(peer, QueryHits { id, hits, known: List::default() }.into()));
                }
            }
        }
    }

    /// Contents that match and were not given: no fewer, and more only where several ultrapeers hold back the same.
    fn withheld(&self) -> u32 {
        (self.withheld.len() as u32).saturating_add(self.withheld_elsewhere)
    }

    fn messages(&self) -> u32 {
        self.asks.len() as u32 + self.elsewhere.messages
    }

    fn ultrapeers_asked(&self) -> u32 {
        let peers: BTreeSet<_> = self.asks.iter().map(|ask| ask.peer).collect();
        peers.len() as u32 + self.elsewhere.ultrapeers_asked
    }

    /// The end, for another ultrapeer that asked.
    pub(super) fn report(&self, id: QueryId, stopped: StopReason) -> QueryDone {
        let mut incomplete = self.incomplete;
        if stopped == StopReason::Timeout {
            incomplete.insert(Incomplete::HomeSilent);
        }
        QueryDone {
            id,
            more: self.more || stopped == StopReason::Limit,
            incomplete,
            withheld: self.withheld(),
            ultrapeers_asked: self.ultrapeers_asked(),
            messages: self.messages(),
            leaves_covered: self.leaves.0,
            leaves_total: self.leaves.1,
        }
    }

    /// How it ended.
    pub(super) fn ended(&self, now: Time, stopped: StopReason) -> Ended {
        debug_assert!(now >= self.began, "time does not run backwards");
        let ultrapeers_asked = 1 + self.ultrapeers_asked();
        let parts_asked =
            self.parts.iter().filter(|part| part.is_done || part.pending > 0 || !part.tried.is_empty()).count();
        let summary = Summary {
            stopped,
            incomplete: self.incomplete,
            ultrapeers_asked,
            ultrapeers_total: ultrapeers_asked,
            shards_asked: 1 + parts_asked as u32,
            shards_total: 1 + self.parts.len() as u32,
            leaves_covered: self.leaves.0,
            leaves_total: self.leaves.1,
            messages: self.messages(),
            withheld: self.withheld(),
        };
        Ended {
            asker: self.asker,
            summary,
            hits: self.merged.len() as u32,
            false_hits: self.false_hits,
            began: self.began,
            first_hit: self.first_hit,
        }
    }
}
