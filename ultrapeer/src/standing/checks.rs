//! Homes that are asked whether a wish matches what a leaf of theirs has new.
//!
//! Chunks of one leaf are gathered for a moment, then one of its homes is asked about all of them; another, if it does
//! not answer. Questions beyond what may be under way wait in the order in which they came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use overlay::{
    id::{PeerId, QueryId},
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::{List, Text},
        mesh::{ChunkName, DigestName, Query, Scope},
        search::{Hit, Target},
    },
};

use super::{Output, WishNumber, kept::Kept};
use crate::{holders::mix, search::Environment};

#[derive(Debug)]
pub(super) struct Checks {
    seed: u64,
    next: u64,
    /// Chunks by wish and leaf, and the order in which these came.
    waiting: BTreeMap<(WishNumber, u64), Vec<ChunkName>>,
    order: VecDeque<(Time, WishNumber, u64)>,
    /// Chunks that wait.
    chunks: usize,
    asks: BTreeMap<QueryId, Ask>,
    due: BTreeSet<(Time, QueryId)>,
    asked: u64,
    unanswered: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Ask {
    wish: WishNumber,
    handle: u64,
    chunks: Vec<ChunkName>,
    home: PeerId,
    tried: Vec<PeerId>,
    until: Time,
    /// Contents that may still come.
    room: usize,
}

impl Checks {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            next: 0,
            waiting: BTreeMap::new(),
            order: VecDeque::new(),
            chunks: 0,
            asks: BTreeMap::new(),
            due: BTreeSet::new(),
            asked: 0,
            unanswered: 0,
            dropped: 0,
        }
    }

    /// Questions asked, and those that nobody answered.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.asked, self.unanswered)
    }

    /// Questions and contents that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// A home must be asked about a chunk.
    pub(super) fn wait(&mut self, now: Time, wish: WishNumber, name: DigestName, kept: &mut Kept) {
        let key = (wish, name.handle);
        if self.chunks >= limits::WISH_CHUNKS_WAITING {
            self.dropped += 1;
            return;
        }
        if let Some(chunks) = self.waiting.get_mut(&key) {
            if chunks.contains(&name.chunk) {
                return;
            }
            chunks.push(name.chunk);
        } else if kept.may_check(now, wish) {
            self.waiting.insert(key, vec![name.chunk]);
            self.order.push_back((now + limits::WISH_ASK_PAUSE, wish, name.handle));
        } else {
            self.dropped += 1;
            return;
        }
        self.chunks += 1;
    }

    pub(super) fn has(&self, id: QueryId) -> bool {
        self.asks.contains_key(&id)
    }

    /// Hits came: the wish that they are for, and as many of them as were asked for.
    pub(super) fn answered(&mut self, from: PeerId, id: QueryId, mut hits: Vec<Hit>) -> Option<(WishNumber, Vec<Hit>)> {
        let ask = self.asks.get_mut(&id).filter(|ask| ask.home == from)?;
        self.dropped += hits.len().saturating_sub(ask.room) as u64;
        hits.truncate(ask.room);
        ask.room -= hits.len();
        Some((ask.wish, hits))
    }

    /// A home has no more: the wish, and the chunks that it was told of.
    pub(super) fn done(&mut self, from: PeerId, id: QueryId) -> Option<(WishNumber, Vec<ChunkName>)> {
        let ask = self.asks.get(&id).filter(|ask| ask.home == from)?;
        self.due.remove(&(ask.until, id));
        self.asks.remove(&id).map(|ask| (ask.wish, ask.chunks))
    }

    /// A home answers nothing any more.
    pub(super) fn fail(&mut self, environment: Environment<'_>, kept: &Kept, home: &PeerId, out: &mut Outbox<Output>) {
        let lost: Vec<_> = self.asks.iter().filter(|(_, ask)| ask.home == *home).map(|(id, _)| *id).collect();
        for id in lost {
            self.ask_next(environment, kept, id, out);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let may_ask = self.asks.len() < limits::WISH_ASKS;
        let waiting = self.order.front().filter(|_| may_ask).map(|(at, ..)| *at);
        self.due.first().map(|(at, _)| *at).into_iter().chain(waiting).min()
    }

    pub(super) fn on_deadline(&mut self, environment: Environment<'_>, kept: &Kept, out: &mut Outbox<Output>) {
        while let Some(&(at, id)) = self.due.first()
            && at <= environment.now
        {
            self.ask_next(environment, kept, id, out);
        }
        self.go_on(environment, kept, out);
    }

    /// Asks about what has waited long enough, as far as there is room.
    pub(super) fn go_on(&mut self, environment: Environment<'_>, kept: &Kept, out: &mut Outbox<Output>) {
        while self.asks.len() < limits::WISH_ASKS
            && let Some(&(at, wish, handle)) = self.order.front()
            && at <= environment.now
        {
            self.order.pop_front();
            let mut chunks = self.waiting.remove(&(wish, handle)).unwrap_or_default();
            self.chunks -= chunks.len();
            if chunks.len() > limits::WISH_CHUNKS_ASKED {
                let rest = chunks.split_off(limits::WISH_CHUNKS_ASKED);
                self.chunks += rest.len();
                self.waiting.insert((wish, handle), rest);
                self.order.push_back((at, wish, handle));
            }
            self.ask(environment, kept, wish, handle, chunks, Vec::new(), out);
        }
    }

    /// The home that was asked does not answer: asks another.
    fn ask_next(&mut self, environment: Environment<'_>, kept: &Kept, id: QueryId, out: &mut Outbox<Output>) {
        let Some(ask) = self.asks.remove(&id) else { return };
        self.due.remove(&(ask.until, id));
        let mut tried = ask.tried;
        tried.push(ask.home);
        self.ask(environment, kept, ask.wish, ask.handle, ask.chunks, tried, out);
    }

    #[expect(clippy::too_many_arguments, reason = "all parts of one question")]
    fn ask(
        &mut self,
        environment: Environment<'_>,
        kept: &Kept,
        wish: WishNumber,
        handle: u64,
        chunks: Vec<ChunkName>,
        tried: Vec<PeerId>,
        out: &mut Outbox<Output>,
    ) {
        let Environment { now, attachments, neighbours, .. } = environment;
        // Withdrawn meanwhile.
        let Some(query) = kept.query(wish) else { return };
        let name = mix(self.seed, self.next);
        self.next += 1;
        let able: Vec<PeerId> = attachments
            .homes(handle)
            .iter()
            .filter(|(home, list)| {
                neighbours.is_usable(home)
                    && !tried.contains(home)
                    && chunks.iter().any(|chunk| list.chunks.binary_search(chunk).is_ok())
            })
            .map(|(home, _)| *home)
            .collect();
        // Any of them, another for each question.
        let Some(home) = able.get(name as usize % able.len().max(1)).copied() else {
            self.unanswered += 1;
            return;
        };
        self.asked += 1;
        let (id, until) = (QueryId(name), now + limits::WISH_ANSWER);
        let scope = Scope::News(List::new(chunks.iter().map(|chunk| DigestName { handle, chunk: *chunk })));
        let query = Query {
            id,
            target: Target::Query(Text::new(query)),
            limit: limits::WISH_ASK_LIMIT,
            all: false,
            scope,
            known: List::default(),
        };
        out.push(Output::ToMesh(home, query.into()));
        self.due.insert((until, id));
        let room = limits::WISH_ASK_LIMIT as usize;
        self.asks.insert(id, Ask { wish, handle, chunks, home, tried, until, room });
    }
}
