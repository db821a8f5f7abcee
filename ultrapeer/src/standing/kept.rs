//! Wishes that this ultrapeer keeps, for its own leaves and for other homes, filed under their rarest words.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use overlay::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    query::Query,
    time::Time,
    wire::mesh::{ChunkName, MeshWishes, WishChange},
};
use rustc_hash::FxHashMap;

use super::WishNumber;
use crate::index::{Key, Segment};

#[derive(Debug, Default)]
pub(super) struct Kept {
    homes: BTreeMap<PeerId, Home>,
    wishes: BTreeMap<WishNumber, Wish>,
    by_token: FxHashMap<Box<str>, BTreeSet<WishNumber>>,
    by_prefix: FxHashMap<Box<str>, BTreeSet<WishNumber>>,
    /// How many prefixes there are of each length in bytes.
    prefix_lengths: BTreeMap<usize, usize>,
    /// Homes by when their wishes are forgotten.
    ends: BTreeSet<(Time, PeerId)>,
    next: WishNumber,
    refused: u64,
}

#[derive(Debug)]
struct Home {
    names: BTreeMap<u64, WishNumber>,
    until: Time,
    /// Grows with each time that it begins anew.
    generation: u64,
    /// True while it does.
    is_resetting: bool,
    frames: TokenBucket,
}

#[derive(Debug)]
struct Wish {
    home: PeerId,
    name: u64,
    query: Box<str>,
    keys: Vec<Key>,
    /// When its home last told of it.
    generation: u64,
    checks: TokenBucket,
    /// Chunks that it was told of, the latest last.
    told: VecDeque<ChunkName>,
}

impl Kept {
    pub(super) fn len(&self) -> usize {
        self.wishes.len()
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// A home tells of its wishes.
    pub(super) fn take(&mut self, now: Time, home: PeerId, frame: MeshWishes, keys: impl Fn(&Query) -> Vec<Key>) {
        let known = self.homes.entry(home).or_insert_with(|| Home {
            names: BTreeMap::new(),
            until: now,
            generation: 0,
            is_resetting: false,
            frames: TokenBucket::new(now, limits::WISH_FRAMES_RATE, limits::WISH_FRAMES_BURST),
        });
        self.ends.remove(&(known.until, home));
        known.until = now + Duration::from_secs(frame.lifetime_s.into()).min(limits::WISHES_LIFETIME);
        self.ends.insert((known.until, home));
        if frame.reset {
            known.generation += 1;
            known.is_resetting = true;
        }
        let generation = known.generation;
        for WishChange { name, query } in frame.changes {
            match query {
                None => self.remove(&home, name),
                Some(query) => self.put(now, home, name, &query, generation, &keys),
            }
        }
        self.end_reset(&home, frame.whole);
    }

    fn end_reset(&mut self, home: &PeerId, is_whole: bool) {
        let Some(known) = self.homes.get_mut(home) else { return };
        let mut old = Vec::new();
        if is_whole && std::mem::take(&mut known.is_resetting) {
            let is_old =
                |number: &WishNumber| self.wishes.get(number).is_none_or(|wish| wish.generation != known.generation);
            old.extend(known.names.iter().filter(|(_, number)| is_old(number)).map(|(name, _)| *name));
        }
        for name in old {
            self.remove(home, name);
        }
        if self.homes.get(home).is_some_and(|known| known.names.is_empty()) {
            self.forget(home);
        }
    }

    fn put(
        &mut self,
        now: Time,
        home: PeerId,
        name: u64,
        query: &str,
        generation: u64,
        keys: &impl Fn(&Query) -> Vec<Key>,
    ) {
        let number = self.homes.get(&home).and_then(|known| known.names.get(&name)).copied();
        if let Some(wish) = number.and_then(|number| self.wishes.get_mut(&number)).filter(|wish| *wish.query == *query)
        {
            wish.generation = generation;
            return;
        }
        self.remove(&home, name);
        // What this release cannot read it does not keep.
        let keys = Query::parse(query).map(|query| keys(&query)).unwrap_or_default();
        let Some(known) = self.homes.get_mut(&home) else { return };
        if keys.is_empty() || known.names.len() >= limits::WISHES_OF_HOME || self.wishes.len() >= limits::WISHES_KEPT {
            self.refused += 1;
            return;
        }
        let number = self.next;
        self.next += 1;
        known.names.insert(name, number);
        for key in &keys {
            match key {
                Key::Token(token) => self.by_token.entry(token.clone()).or_default().insert(number),
                Key::Prefix(prefix) => {
                    let filed = self.by_prefix.entry(prefix.clone()).or_default();
                    if filed.is_empty() {
                        *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
                    }
                    filed.insert(number)
                }
            };
        }
        let checks = TokenBucket::new(now, limits::WISH_CHECKS_RATE, limits::WISH_CHECKS_BURST);
        let wish = Wish { home, name, query: query.into(), keys, generation, checks, told: VecDeque::new() };
        self.wishes.insert(number, wish);
    }

    fn remove(&mut self, home: &PeerId, name: u64) {
        let number = self.homes.get_mut(home).and_then(|known| known.names.remove(&name));
        if let Some(number) = number {
            self.unfile(number);
        }
    }

    fn unfile(&mut self, number: WishNumber) {
        let Some(wish) = self.wishes.remove(&number) else { return };
        for key in wish.keys {
            let (filed, text) = match &key {
                Key::Token(token) => (&mut self.by_token, token),
                Key::Prefix(prefix) => (&mut self.by_prefix, prefix),
            };
            let is_empty = filed.get_mut(text).is_some_and(|numbers| {
                numbers.remove(&number);
                numbers.is_empty()
            });
            if !is_empty {
                continue;
            }
            filed.remove(text);
            if let Key::Prefix(prefix) = &key
                && let Some(count) = self.prefix_lengths.get_mut(&prefix.len())
            {
                *count -= 1;
                if *count == 0 {
                    self.prefix_lengths.remove(&prefix.len());
                }
            }
        }
    }

    /// A home is gone, with all of its wishes.
    pub(super) fn forget(&mut self, home: &PeerId) {
        let Some(known) = self.homes.remove(home) else { return };
        self.ends.remove(&(known.until, *home));
        for number in known.names.into_values() {
            self.unfile(number);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Forgets the wishes of homes that did not tell of them again.
    pub(super) fn expire(&mut self, now: Time) {
        while let Some(&(at, home)) = self.ends.first()
            && at <= now
        {
            self.forget(&home);
        }
    }

    /// Wishes that may match a chunk, because it holds the rarest word of theirs, and that were not told of it; and how
    /// many more there are than can be compared. Each home has the same share of that.
    pub(super) fn candidates(&self, segment: &Segment, chunk: ChunkName) -> (Vec<WishNumber>, u64) {
        if self.wishes.is_empty() {
            return (Vec::new(), 0);
        }
        let mut filed: Vec<&BTreeSet<WishNumber>> = Vec::new();
        segment.each_token(|token| {
            filed.extend(self.by_token.get(token));
            for length in self.prefix_lengths.keys() {
                filed.extend(token.get(..*length).and_then(|prefix| self.by_prefix.get(prefix)));
            }
        });
        let numbers: BTreeSet<WishNumber> = filed.into_iter().flatten().copied().collect();
        let share = (limits::WISH_LOOKUPS / self.homes.len().max(1)).max(limits::WISH_LOOKUPS_OF_HOME);
        let mut of_home: BTreeMap<PeerId, usize> = BTreeMap::new();
        let (mut candidates, mut dropped) = (Vec::new(), 0);
        for number in numbers {
            let Some(wish) = self.wishes.get(&number).filter(|wish| !wish.told.contains(&chunk)) else { continue };
            let count = of_home.entry(wish.home).or_default();
            *count += 1;
            if *count <= share {
                candidates.push(number);
            } else {
                dropped += 1;
            }
        }
        (candidates, dropped)
    }

    /// The source text of a wish's query.
    pub(super) fn query(&self, number: WishNumber) -> Option<&str> {
        self.wishes.get(&number).map(|wish| &*wish.query)
    }

    /// Whose wish it is: its home, and the home's name for it.
    pub(super) fn owner(&self, number: WishNumber) -> Option<(PeerId, u64)> {
        self.wishes.get(&number).map(|wish| (wish.home, wish.name))
    }

    /// True if a wish may be compared with one more leaf now; spends its credit.
    pub(super) fn may_check(&mut self, now: Time, number: WishNumber) -> bool {
        self.wishes.get_mut(&number).is_some_and(|wish| wish.checks.take(now))
    }

    /// True if a home may be sent one more frame of hits now; spends its credit.
    pub(super) fn may_tell(&mut self, now: Time, home: &PeerId) -> bool {
        self.homes.get_mut(home).is_some_and(|known| known.frames.take(now))
    }

    /// A wish was told what these chunks have for it.
    pub(super) fn note_told(&mut self, number: WishNumber, chunks: &[ChunkName]) {
        let Some(wish) = self.wishes.get_mut(&number) else { return };
        wish.told.extend(chunks);
        while wish.told.len() > limits::WISH_CHUNKS_TOLD {
            wish.told.pop_front();
        }
    }
}
