//! Core: standing queries (wishes), so that a leaf is told when somebody shares what it looks for.
//!
//! What it decides: who keeps the standing queries of own leaves, which of those that this ultrapeer keeps match what is
//! new, whom to ask whether they do, and what is passed on.
//!
//! ```text
//!   own leaf ── its wishes ──> home ──> two keepers in each part of the leaf space, this home among them where it covers it
//!   keeper   a chunk is new ──> wishes filed under one of its words ──> compared with that chunk alone
//!              of an own leaf: that is the answer        elsewhere: a home of its leaf is asked for the new files
//!   keeper ── hits ──> home ──> leaf, which knows what it was told before
//! ```
//!
//! Only what is new is compared: a chunk that no home of its leaf had before ([`news`]). What was there when the wish was
//! made the leaf finds by an ordinary search. So a keeper that has just come, and fetches the digests of everybody, tells
//! of nothing; and of a chunk that replaced others only the files count that were not in those.
//!
//! A wish may be told of a file more than once: by two keepers, when the leaf that has it comes back, when a keeper forgot
//! it. It is told at least once while one of the keepers lives and the limits hold ([`limits::WISH_HITS_RATE`] and those
//! around it); what exceeds them is dropped and counted.
//!
//! | module | what it is |
//! |---|---|
//! | `own` | wishes of own leaves, and whom they were told |
//! | `kept` | wishes that are kept, by their rarest word |
//! | `news` | which chunks and files are new |
//! | `checks` | homes that are asked whether a wish matches |
//!
//! Invariants:
//! - everything is soft: a home that is gone, or is silent for [`limits::WISHES_LIFETIME`], has no wishes here;
//! - a home is believed only of its own wishes, and a keeper only of those that it was told;
//! - keepers know a wish's home and not its leaf; leaves learn handles of nobody.

mod checks;
mod kept;
mod news;
mod own;

use std::sync::Arc;

use overlay::{
    id::{PeerId, QueryId},
    limits,
    machine::Outbox,
    query::Query,
    time::Time,
    wire::{
        bounded::List,
        leaf::{WishHits, Wishes},
        mesh::{DigestName, MeshMessage, MeshWishHits, MeshWishes, QueryDone},
        search::Hit,
    },
};
use rand::Rng;

use self::{
    checks::Checks,
    kept::Kept,
    news::News,
    own::{Own, number_of},
};
use crate::{
    holders::mix,
    index::{Key, LeafSlot, Scope, Segment, Snapshot},
    leaves::Session,
    search::{Environment, frames},
};

/// A wish that is kept here. Never reused.
pub type WishNumber = u64;

/// What must be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Tell a leaf.
    ToLeaf(Session, WishHits),
    /// Send to another ultrapeer.
    ToMesh(PeerId, MeshMessage),
}

/// Numbers for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Wishes of own leaves.
    pub own: usize,
    /// Wishes that are kept, own ones among them.
    pub kept: usize,
    /// Wishes that are not kept because there are too many, or that cannot be understood.
    pub refused: u64,
    /// Times that a home was asked about a wish.
    pub asked: u64,
    /// Times that nobody answered such a question.
    pub unanswered: u64,
    /// Contents and comparisons that were dropped because a wish is too broad, or there is too much to compare.
    pub dropped: u64,
}

/// The standing queries. See the module text.
#[derive(Debug)]
pub struct Standing {
    me: PeerId,
    own: Own,
    kept: Kept,
    news: News,
    checks: Checks,
    dropped: u64,
}

impl Standing {
    /// None. `life` is another number for each life of this ultrapeer, so that its questions have names of their own.
    pub fn new(me: PeerId, life: u64) -> Self {
        Self {
            me,
            own: Own::new(me),
            kept: Kept::default(),
            news: News::default(),
            checks: Checks::new(mix(number_of(&me), life)),
            dropped: 0,
        }
    }

    /// Numbers for the operator.
    pub fn stats(&self) -> Stats {
        let (asked, unanswered) = self.checks.counts();
        let dropped = self.dropped + self.checks.dropped();
        let refused = self.own.refused() + self.kept.refused();
        Stats { own: self.own.len(), kept: self.kept.len(), refused, asked, unanswered, dropped }
    }

    /// An own leaf tells all of its wishes.
    ///
    /// # Errors
    /// If it does so too often; nothing was changed.
    pub fn told_by_leaf(
        &mut self,
        now: Time,
        rng: &mut dyn Rng,
        session: Session,
        wishes: Wishes,
    ) -> Result<(), &'static str> {
        self.own.set(now, rng, session, wishes.wishes.into_vec())
    }

    /// An own leaf left.
    pub fn leaf_left(&mut self, now: Time, session: Session) {
        self.own.left(now, session);
    }

    /// Another ultrapeer tells of wishes of its leaves. `keys` says what a query is filed under.
    pub fn told_by_home(&mut self, now: Time, home: PeerId, frame: MeshWishes, keys: impl Fn(&Query) -> Vec<Key>) {
        self.kept.take(now, home, frame, keys);
    }

    /// Another ultrapeer tells what a wish of this home found.
    pub fn hits(&mut self, now: Time, from: PeerId, told: MeshWishHits, out: &mut Outbox<Output>) {
        if self.own.is_keeper(&from) {
            self.tell_leaf(now, told.name, told.hits.into_vec(), out);
        }
    }

    /// The ultrapeers changed, or what they cover.
    pub fn members_changed(&mut self, now: Time) {
        self.own.members_changed(now);
    }

    /// An ultrapeer is gone: its wishes are, too.
    pub fn forget(&mut self, home: &PeerId) {
        self.kept.forget(home);
    }

    /// No link leads to an ultrapeer any more: what it was told may be lost, and it answers nothing.
    pub fn unlinked(&mut self, environment: Environment<'_>, peer: &PeerId, out: &mut Outbox<Output>) {
        self.own.unlinked(environment.now, peer);
        self.checks.fail(environment, &self.kept, peer, out);
    }

    /// A chunk is in the list that a home told of a leaf, and was in none before.
    pub fn is_new(&mut self, now: Time, chunk: DigestName) {
        self.news.await_digest(now, chunk);
    }

    /// True if the digest of that chunk was awaited as new; it is not any more.
    pub fn was_new(&mut self, chunk: &DigestName) -> bool {
        self.news.arrived(chunk)
    }

    /// Only these files of an own leaf's chunk are new, by their places.
    pub fn new_files(&mut self, now: Time, chunk: DigestName, places: Vec<u16>) {
        self.news.note_files(now, chunk, places);
    }

    /// Which files of an own leaf's chunk are new: `None` if all are, as far as is known.
    pub fn files_of(&self, chunk: &DigestName) -> Option<&[u16]> {
        self.news.files(chunk)
    }

    /// A digest came. If its chunk is new, homes of its leaf will be asked about wishes that it may match.
    pub fn digest(&mut self, now: Time, now_s: i64, chunk: DigestName, leaf: LeafSlot, segment: &Arc<Segment>) {
        if !self.news.arrived(&chunk) {
            return;
        }
        let candidates = self.candidates(segment, chunk);
        if candidates.is_empty() {
            return;
        }
        let alone = Snapshot::of(leaf, Arc::clone(segment));
        let may_match = |number: &WishNumber| {
            let query = self.kept.query(*number).and_then(|query| Query::parse(query).ok());
            let scope = Scope { now_s, max_matches: 1, work_cap: limits::LOOKUP_WORK, leaves: None, known: None };
            query.is_some_and(|query| !alone.lookup_within(&query, scope).candidates.is_empty())
        };
        let matching: Vec<_> = candidates.into_iter().filter(may_match).collect();
        for number in matching {
            self.checks.wait(now, number, chunk, &mut self.kept);
        }
    }

    /// Wishes that a new chunk of an own leaf may match, with their queries: to be looked up in it.
    pub fn own_chunk(&mut self, now: Time, chunk: DigestName, segment: &Segment) -> Vec<(WishNumber, String)> {
        let mut found = Vec::new();
        for number in self.candidates(segment, chunk) {
            if !self.kept.may_check(now, number) {
                self.dropped += 1;
            } else if let Some(query) = self.kept.query(number) {
                found.push((number, query.to_owned()));
            }
        }
        found
    }

    /// What a chunk of an own leaf gave.
    pub fn own_hits(
        &mut self,
        now: Time,
        number: WishNumber,
        chunk: DigestName,
        hits: Vec<Hit>,
        out: &mut Outbox<Output>,
    ) {
        self.kept.note_told(number, &[chunk.chunk]);
        self.deliver(now, number, hits, out);
    }

    /// True if a question of that name was asked here.
    pub fn has_asked(&self, id: QueryId) -> bool {
        self.checks.has(id)
    }

    /// A home that was asked has hits.
    pub fn answered(&mut self, now: Time, from: PeerId, id: QueryId, hits: Vec<Hit>, out: &mut Outbox<Output>) {
        if let Some((number, hits)) = self.checks.answered(from, id, hits) {
            self.deliver(now, number, hits, out);
        }
    }

    /// A home that was asked has no more.
    pub fn done(&mut self, environment: Environment<'_>, from: PeerId, done: &QueryDone, out: &mut Outbox<Output>) {
        if let Some((number, chunks)) = self.checks.done(from, done.id) {
            self.kept.note_told(number, &chunks);
        }
        self.checks.go_on(environment, &self.kept, out);
    }

    /// True if the keepers must be chosen now, by [`Self::choose`].
    pub fn must_choose(&self, now: Time) -> bool {
        self.own.must_choose(now)
    }

    /// Who can keep wishes: of each part of the leaf space the ultrapeers that cover it, this one first if it does.
    pub fn choose(&mut self, now: Time, parts: impl IntoIterator<Item = Vec<PeerId>>) {
        self.own.choose(now, parts);
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let all = [
            self.own.next_deadline(),
            self.kept.next_deadline(),
            self.news.next_deadline(),
            self.checks.next_deadline(),
        ];
        all.into_iter().flatten().min()
    }

    /// Tells keepers, forgets what is over, and asks homes. `keys` says what a query is filed under.
    pub fn on_deadline(
        &mut self,
        environment: Environment<'_>,
        keys: impl Fn(&Query) -> Vec<Key>,
        out: &mut Outbox<Output>,
    ) {
        let now = environment.now;
        for (keeper, frame) in self.own.flush(now) {
            if keeper == self.me {
                self.kept.take(now, keeper, frame, &keys);
            } else {
                out.push(Output::ToMesh(keeper, frame.into()));
            }
        }
        self.kept.expire(now);
        self.news.expire(now);
        self.checks.on_deadline(environment, &self.kept, out);
    }

    fn candidates(&mut self, segment: &Segment, chunk: DigestName) -> Vec<WishNumber> {
        let (candidates, dropped) = self.kept.candidates(segment, chunk.chunk);
        self.dropped += dropped;
        candidates
    }

    /// Passes hits of a wish that is kept here to its home.
    fn deliver(&mut self, now: Time, number: WishNumber, hits: Vec<Hit>, out: &mut Outbox<Output>) {
        let Some((home, name)) = self.kept.owner(number) else { return };
        if hits.is_empty() {
            return;
        }
        if home == self.me {
            return self.tell_leaf(now, name, hits, out);
        }
        for hits in frames(hits) {
            if self.kept.may_tell(now, &home) {
                out.push(Output::ToMesh(home, MeshWishHits { name, hits }.into()));
            } else {
                self.dropped += hits.len() as u64;
            }
        }
    }

    /// Passes hits of an own wish to its leaf, as far as it may have them.
    fn tell_leaf(&mut self, now: Time, name: u64, hits: Vec<Hit>, out: &mut Outbox<Output>) {
        let all = hits.len();
        let Some((session, number, hits)) = self.own.admit(now, name, hits) else { return };
        let mut told = 0;
        // Handles are for ultrapeers only.
        let shown = hits.into_iter().map(|hit| Hit { holders: List::default(), ..hit });
        for hits in frames(shown) {
            if self.own.may_tell(now, session) {
                told += hits.len();
                out.push(Output::ToLeaf(session, WishHits { number, hits }));
            }
        }
        self.dropped += (all - told) as u64;
    }
}

#[cfg(test)]
mod tests;
