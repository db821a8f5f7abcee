//! Wishes of own leaves: who keeps them, and what of it they were told.
//!
//! All wishes of a home have the same keepers, by rendezvous over the members of each part: so what is told is a frame for
//! each keeper and not for each wish, and who comes or goes moves only what is theirs. Where this home covers a part
//! itself, it is one of the two: that costs nothing, and with it the wish would be gone anyway.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    time::Time,
    wire::{
        bounded::{List, Text},
        leaf::Wish,
        mesh::{MeshWishes, WishChange},
        search::Hit,
    },
};
use rand::{Rng, RngExt};

use crate::{holders::teller, leaves::Session};

type Source = Text<{ limits::QUERY_BYTES }>;

#[derive(Debug)]
pub(super) struct Own {
    me: PeerId,
    leaves: BTreeMap<Session, Leaf>,
    /// By the name under which keepers know it.
    names: BTreeMap<u64, (Session, u32)>,
    keepers: BTreeSet<PeerId>,
    /// Keepers, and those that were, which know all but the changes.
    told: BTreeSet<PeerId>,
    /// Since keepers were last told.
    changes: BTreeMap<u64, Option<Source>>,
    flush_at: Option<Time>,
    renew_at: Option<Time>,
    choose_at: Option<Time>,
    refused: u64,
}

#[derive(Debug)]
struct Leaf {
    wishes: BTreeMap<u32, OwnWish>,
    sets: TokenBucket,
    frames: TokenBucket,
}

#[derive(Debug)]
struct OwnWish {
    name: u64,
    query: Source,
    hits: TokenBucket,
}

impl Own {
    pub(super) fn new(me: PeerId) -> Self {
        Self {
            me,
            leaves: BTreeMap::new(),
            names: BTreeMap::new(),
            keepers: BTreeSet::new(),
            told: BTreeSet::new(),
            changes: BTreeMap::new(),
            flush_at: None,
            renew_at: None,
            choose_at: None,
            refused: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// A leaf has these wishes from now on.
    pub(super) fn set(
        &mut self,
        now: Time,
        rng: &mut dyn Rng,
        session: Session,
        wishes: Vec<Wish>,
    ) -> Result<(), &'static str> {
        let leaf = self.leaves.entry(session).or_insert_with(|| Leaf {
            wishes: BTreeMap::new(),
            sets: TokenBucket::new(now, limits::WISHES_RATE, limits::WISHES_BURST),
            frames: TokenBucket::new(now, limits::WISH_FRAMES_RATE, limits::WISH_FRAMES_BURST),
        });
        if !leaf.sets.take(now) {
            return Err("too many sets of wishes");
        }
        let wanted: BTreeMap<u32, Source> = wishes.into_iter().map(|wish| (wish.number, wish.query)).collect();
        let is_gone = |number: &u32, wish: &OwnWish| wanted.get(number) != Some(&wish.query);
        let gone: Vec<u32> =
            leaf.wishes.iter().filter(|(number, wish)| is_gone(number, wish)).map(|(number, _)| *number).collect();
        for wish in gone.iter().filter_map(|number| leaf.wishes.remove(number)) {
            self.names.remove(&wish.name);
            self.changes.insert(wish.name, None);
        }
        for (number, query) in wanted {
            if leaf.wishes.contains_key(&number) {
                continue;
            }
            let name = rng.random();
            if self.names.len() >= limits::WISHES_OF_HOME || self.names.contains_key(&name) {
                self.refused += 1;
                continue;
            }
            self.names.insert(name, (session, number));
            self.changes.insert(name, Some(query.clone()));
            let hits = TokenBucket::new(now, limits::WISH_HITS_RATE, limits::WISH_HITS_BURST);
            leaf.wishes.insert(number, OwnWish { name, query, hits });
        }
        self.changed(now);
        Ok(())
    }

    /// A leaf left.
    pub(super) fn left(&mut self, now: Time, session: Session) {
        let Some(leaf) = self.leaves.remove(&session) else { return };
        for wish in leaf.wishes.into_values() {
            self.names.remove(&wish.name);
            self.changes.insert(wish.name, None);
        }
        self.changed(now);
    }

    fn changed(&mut self, now: Time) {
        if self.changes.is_empty() {
            return;
        }
        if self.keepers.is_empty() {
            self.choose_at = Some(now);
        }
        self.flush_soon(now);
    }

    fn flush_soon(&mut self, now: Time) {
        self.flush_at.get_or_insert(now + limits::WISHES_PAUSE);
    }

    pub(super) fn members_changed(&mut self, now: Time) {
        self.choose_at.get_or_insert(now + limits::WISHES_SETTLE);
    }

    pub(super) fn must_choose(&self, now: Time) -> bool {
        self.choose_at.is_some_and(|at| at <= now)
    }

    /// Chooses the keepers among those that cover each part.
    pub(super) fn choose(&mut self, now: Time, parts: impl IntoIterator<Item = Vec<PeerId>>) {
        self.choose_at = None;
        let seed = number_of(&self.me);
        self.keepers.clear();
        for mut able in parts {
            for _ in 0..limits::WISH_KEEPERS {
                let own = able.iter().copied().find(|peer| *peer == self.me);
                let Some(chosen) = own.or_else(|| teller(seed, able.iter().copied())) else { break };
                able.retain(|peer| *peer != chosen);
                self.keepers.insert(chosen);
            }
        }
        if self.keepers != self.told {
            self.flush_soon(now);
        }
    }

    /// True if a peer keeps wishes of this home, or was told to until a moment ago.
    pub(super) fn is_keeper(&self, peer: &PeerId) -> bool {
        self.keepers.contains(peer) || self.told.contains(peer)
    }

    /// The link to a keeper is gone, and perhaps with it what it was told last.
    pub(super) fn unlinked(&mut self, now: Time, peer: &PeerId) {
        if self.told.remove(peer) {
            self.flush_soon(now);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        [self.flush_at, self.renew_at, self.choose_at].into_iter().flatten().min()
    }

    /// What keepers must be told now.
    pub(super) fn flush(&mut self, now: Time) -> Vec<(PeerId, MeshWishes)> {
        let renew = self.renew_at.is_some_and(|at| at <= now);
        if !renew && self.flush_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.flush_at = None;
        if renew {
            self.told.clear();
        }
        let keepers = if self.names.is_empty() { BTreeSet::new() } else { self.keepers.clone() };
        let changes = std::mem::take(&mut self.changes);
        let changes = frames(false, changes.into_iter().map(|(name, query)| WishChange { name, query }));
        let query = |(session, number): &(Session, u32)| self.leaves.get(session)?.wishes.get(number);
        let all = || {
            let known = self.names.iter().filter_map(|(name, place)| Some((*name, query(place)?.query.clone())));
            frames(true, known.map(|(name, query)| WishChange { name, query: Some(query) }))
        };
        let mut told = Vec::new();
        for peer in self.told.union(&keepers) {
            let news = match (self.told.contains(peer), keepers.contains(peer)) {
                (true, true) => changes.clone(),
                (false, _) => all(),
                (true, false) => frames(true, std::iter::empty()),
            };
            told.extend(news.into_iter().map(|frame| (*peer, frame)));
        }
        self.renew_at = match self.renew_at {
            _ if keepers.is_empty() => None,
            Some(at) if !renew => Some(at),
            _ => Some(now + limits::WISHES_RENEWAL),
        };
        self.told = keepers;
        told
    }

    /// The leaf whose wish a keeper speaks of, its number for it, and those of the hits that it may have.
    pub(super) fn admit(&mut self, now: Time, name: u64, mut hits: Vec<Hit>) -> Option<(Session, u32, Vec<Hit>)> {
        let (session, number) = *self.names.get(&name)?;
        let wish = self.leaves.get_mut(&session)?.wishes.get_mut(&number)?;
        hits.retain(|_| wish.hits.take(now));
        Some((session, number, hits))
    }

    /// True if the leaf may have one more frame now.
    pub(super) fn may_tell(&mut self, now: Time, session: Session) -> bool {
        self.leaves.get_mut(&session).is_some_and(|leaf| leaf.frames.take(now))
    }
}

/// A number for an ultrapeer, as good as random: keys are.
pub(super) fn number_of(peer: &PeerId) -> u64 {
    u64::from_le_bytes(*peer.0.first_chunk().expect("a key has 32 bytes"))
}

/// Changes in frames, the last of which is whole. Without changes there is one if they begin anew, else none.
fn frames(reset: bool, changes: impl Iterator<Item = WishChange>) -> Vec<MeshWishes> {
    let mut parts: Vec<(Vec<WishChange>, usize)> = Vec::new();
    for change in changes {
        let bytes = 16 + change.query.as_ref().map_or(0, |query| query.len());
        match parts.last_mut() {
            Some((part, sum))
                if part.len() < limits::WISHES_PER_FRAME && *sum + bytes <= limits::WISHES_FRAME_BYTES =>
            {
                part.push(change);
                *sum += bytes;
            }
            _ => parts.push((vec![change], bytes)),
        }
    }
    if parts.is_empty() && reset {
        parts.push((Vec::new(), 0));
    }
    let last = parts.len().saturating_sub(1);
    let lifetime_s = limits::WISHES_LIFETIME.as_secs() as u32;
    let frame = |(place, (changes, _))| MeshWishes {
        reset: reset && place == 0,
        whole: place == last,
        lifetime_s,
        changes: List::new(changes),
    };
    parts.into_iter().enumerate().map(frame).collect()
}
