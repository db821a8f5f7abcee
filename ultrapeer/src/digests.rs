//! Core: digests of the leaves that are attached elsewhere, so that one look-up here tells which homes to ask.
//!
//! What it decides: which digests are needed, which home is asked for them, and of which leaves nothing is known yet.
//!
//! ```text
//!   attachments of a leaf change ─> chunks of its lists ─> needed, no longer needed
//!   needed ─> asked of a home that has it, a few at a time ─> parts ─> built on a worker ─> in the index
//!   silence, or not there ─> the next home that has it; all were asked: again after a while
//! ```
//!
//! Every chunk is held once, however many homes its leaf has. It is *pulled*: whoever hears of a chunk that it lacks
//! asks the home that told of it. Pushing it would save that question, and send it from two or three homes at once
//! to everyone, for they cannot know who was first.
//!
//! Invariants:
//! - a leaf that is attached elsewhere, with a newer list than here or not here at all, is *covered* (the index has
//!   all of each list that a home has of it) or among the [`Digests::uncovered`], whom searches ask for in any case: so a digest that
//!   is late costs messages, never a file;
//! - at most [`limits::DIGESTS_ASKED`] are under way from one home;
//! - one home fills at most the larger of [`limits::DIGEST_SHARE`] of the budget and four times the median of all;
//!   leaves beyond stay uncovered;
//! - nothing is asked of a home that is distrusted, nor once more of one whose digest of that leaf was wrong.

mod homes;
pub mod owed;

use std::{
    collections::{BTreeSet, hash_map::Entry},
    sync::Arc,
};

use overlay::{
    id::PeerId,
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::{Blob, List},
        mesh::{ChunkName, DigestName, DigestPart, DigestWant},
    },
};
use rustc_hash::FxHashMap;

use self::homes::Homes;
use crate::{
    attachments::Attachments,
    index::{ChunkSlot, LeafSlot, Segment},
};

/// Parts of a digest, as they came.
pub type Parts = Vec<Blob<{ limits::BATCH_BYTES }>>;

/// A digest in one number: the first eight bytes of its BLAKE3. Another digest with the same number cannot be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestSum(u64);

impl DigestSum {
    /// Of the digest of a segment. Takes as long as reading it: for workers.
    pub fn of(segment: &Segment) -> Self {
        let hash = blake3::hash(&segment.digest());
        Self(u64::from_be_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")))
    }
}

/// A digest that was unpacked and checked, and its sum.
pub type Unpacked = (Arc<Segment>, DigestSum);

/// What must be done.
#[derive(Debug)]
pub enum Output {
    /// Ask a home.
    Want(PeerId, DigestWant),
    /// Unpack and check a digest of that many bytes on a worker; answer with [`Digests::built`].
    Build(DigestName, u32, Parts),
    /// Put a digest into the index; answer with [`Digests::placed`] before anything else.
    Insert(DigestName, LeafSlot, Arc<Segment>),
    /// Take a digest out of the index.
    Remove(ChunkSlot),
    /// Take a digest of a leaf that is gone out of the index.
    Expire(ChunkSlot),
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Leaves with digests.
    pub leaves: usize,
    /// Leaves whose digests are not all there.
    pub uncovered: usize,
    /// Bytes of all digests.
    pub bytes: u64,
    /// Digests that homes did not send, or that were no digests.
    pub failed: u64,
}

/// The digests. See the module text.
#[derive(Debug)]
pub struct Digests {
    me: PeerId,
    leaves: FxHashMap<u64, Leaf>,
    /// Handles by their place among the leaf slots of digests.
    by_slot: Vec<Option<u64>>,
    free_slots: Vec<u32>,
    uncovered: BTreeSet<u64>,
    homes: Homes,
    /// Homes whose digests of a leaf were wrong.
    wrong: BTreeSet<(PeerId, u64)>,
    /// Digests that no home gave, by when they are asked for again.
    later: BTreeSet<(Time, DigestName)>,
    /// Leaves that are attached nowhere, by when their digests are forgotten.
    idle: BTreeSet<(Time, u64)>,
    /// In the index since the last publication: searches do not see them yet.
    unpublished: BTreeSet<u64>,
    /// When they must be published.
    publish_at: Option<Time>,
    bytes: u64,
    failed: u64,
}

#[derive(Debug)]
struct Leaf {
    slot: u32,
    chunks: Vec<(ChunkName, Body)>,
    idle_until: Option<Time>,
}

#[derive(Debug)]
enum Body {
    /// A home is asked for it, or will be; those in `tried` were in vain.
    Wanted { home: PeerId, tried: Vec<PeerId> },
    /// No home has given it.
    Later(Time),
    /// It came, and is built.
    Building { home: PeerId, tried: Vec<PeerId> },
    /// It is in the index.
    Held { slot: ChunkSlot, home: PeerId, bytes: u32, sum: DigestSum },
}

/// The lowest leaf slot of digests: own leaves have those below.
const FIRST_SLOT: u32 = 1 << 31;

/// True if the slot is that of a leaf whose digest is held.
pub const fn is_digest(slot: LeafSlot) -> bool {
    slot.0 >= FIRST_SLOT
}

impl Digests {
    /// No digest, and room for `budget` bytes.
    pub fn new(me: PeerId, budget: u64) -> Self {
        Self {
            me,
            leaves: FxHashMap::default(),
            by_slot: Vec::new(),
            free_slots: Vec::new(),
            uncovered: BTreeSet::new(),
            homes: Homes::new(budget),
            wrong: BTreeSet::new(),
            later: BTreeSet::new(),
            idle: BTreeSet::new(),
            unpublished: BTreeSet::new(),
            publish_at: None,
            bytes: 0,
            failed: 0,
        }
    }

    /// Another budget counts from now on.
    pub fn set_budget(&mut self, budget: u64) {
        self.homes.set_budget(budget);
    }

    /// Bytes that they may take.
    pub fn budget(&self) -> u64 {
        self.homes.budget()
    }

    /// Leaves of whose lists the index does not have all: only their homes know.
    pub fn uncovered(&self) -> impl Iterator<Item = u64> + '_ {
        self.uncovered.iter().copied()
    }

    /// The handle behind a leaf slot of a digest.
    pub fn handle(&self, slot: LeafSlot) -> Option<u64> {
        self.by_slot.get(slot.0.checked_sub(FIRST_SLOT)? as usize).copied().flatten()
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> Stats {
        Stats { leaves: self.leaves.len(), uncovered: self.uncovered.len(), bytes: self.bytes, failed: self.failed }
    }

    /// Homes or lists of a leaf changed.
    pub fn update(&mut self, now: Time, handle: u64, attachments: &Attachments, out: &mut Outbox<Output>) {
        if attachments.homes(handle).is_empty() {
            return self.rest(now, handle, out);
        }
        // What is in the own index needs no digest. Of others every list counts, not only the newest: else one home that
        // claims to have a newer one would hide what all others have.
        let lists = attachments.unsearched(handle, attachments.own_sequence(handle), &[]);
        let mut needed: Vec<ChunkName> = lists.flat_map(|(_, list)| list.chunks.iter().copied()).collect();
        needed.sort_unstable();
        needed.dedup();
        if needed.is_empty() {
            self.forget(handle, out);
            return;
        }
        let leaf = match self.leaves.entry(handle) {
            Entry::Occupied(leaf) => leaf.into_mut(),
            Entry::Vacant(vacant) => {
                let slot = self.free_slots.pop().unwrap_or_else(|| {
                    self.by_slot.push(None);
                    (self.by_slot.len() - 1) as u32
                });
                self.by_slot[slot as usize] = Some(handle);
                vacant.insert(Leaf { slot, chunks: Vec::new(), idle_until: None })
            }
        };
        if let Some(until) = leaf.idle_until.take() {
            self.idle.remove(&(until, handle));
        }
        // What no home gave may be had of another now.
        let stays =
            |(chunk, body): &(ChunkName, Body)| needed.binary_search(chunk).is_ok() && !matches!(body, Body::Later(_));
        let (kept, gone) = std::mem::take(&mut leaf.chunks).into_iter().partition::<Vec<_>, _>(stays);
        leaf.chunks = kept;
        let missing: Vec<_> =
            needed.into_iter().filter(|chunk| leaf.chunks.iter().all(|(known, _)| known != chunk)).collect();
        for (chunk, body) in gone {
            self.drop_body(DigestName { handle, chunk }, body, out);
        }
        for chunk in missing {
            self.want(now, DigestName { handle, chunk }, Vec::new(), attachments, out);
        }
        self.judge(handle);
    }

    /// A part of a digest came from a home.
    pub fn part(
        &mut self,
        now: Time,
        from: PeerId,
        part: DigestPart,
        attachments: &Attachments,
        out: &mut Outbox<Output>,
    ) {
        let name = part.name;
        let Some(arrived) = self.homes.part(now, &from, part) else { return };
        let Some(body) = self.body_mut(name) else { return };
        let Body::Wanted { home, tried } = body else { return };
        let (home, mut tried) = (*home, std::mem::take(tried));
        match arrived {
            homes::Arrived::Whole(bytes, parts) => {
                *body = Body::Building { home, tried };
                out.push(Output::Build(name, bytes, parts));
            }
            homes::Arrived::NotThere => {
                self.failed += 1;
                tried.push(home);
                self.want(now, name, tried, attachments, out);
            }
        }
        self.ask(now, &from, out);
    }

    /// A digest was built; `None` if it was none.
    pub fn built(
        &mut self,
        now: Time,
        name: DigestName,
        unpacked: Option<Unpacked>,
        attachments: &Attachments,
        out: &mut Outbox<Output>,
    ) {
        let slot = self.leaves.get(&name.handle).map(|leaf| LeafSlot(FIRST_SLOT + leaf.slot));
        let Some((slot, body)) = slot.zip(self.body_mut(name)) else { return };
        let Body::Building { home, tried } = body else { return };
        let (home, mut tried) = (*home, std::mem::take(tried));
        // A home may have come to be distrusted meanwhile.
        let Some((segment, sum)) = unpacked.filter(|_| self.may_give(attachments, &home, name.handle)) else {
            self.failed += 1;
            tried.push(home);
            return self.want(now, name, tried, attachments, out);
        };
        let bytes = segment.memory() as u32;
        // Its place follows at once, see `placed`.
        if let Some(body) = self.body_mut(name) {
            *body = Body::Held { slot: ChunkSlot(u64::MAX), home, bytes, sum };
        }
        self.bytes += u64::from(bytes);
        self.homes.holds(home, i64::from(bytes));
        out.push(Output::Insert(name, slot, segment));
        self.unpublished.insert(name.handle);
        self.changed(now);
    }

    /// Where a digest is in the index.
    pub fn placed(&mut self, name: DigestName, place: ChunkSlot) {
        if let Some(Body::Held { slot, .. }) = self.body_mut(name) {
            *slot = place;
        }
    }

    /// The index changed and must be published soon.
    pub fn changed(&mut self, now: Time) {
        self.publish_at.get_or_insert(now + limits::DIGEST_PUBLISH_PAUSE);
    }

    /// The index was published: searches see all that was inserted.
    pub fn published(&mut self) {
        self.publish_at = None;
        for handle in std::mem::take(&mut self.unpublished) {
            self.judge(handle);
        }
    }

    /// True if the index must be published now for the digests that it got.
    pub fn must_publish(&self, now: Time) -> bool {
        self.publish_at.is_some_and(|at| at <= now)
    }

    /// The home that a digest came from which is held, and its sum.
    pub fn held(&self, name: DigestName) -> Option<(PeerId, DigestSum)> {
        let leaf = self.leaves.get(&name.handle)?;
        leaf.chunks.iter().find(|(chunk, _)| *chunk == name.chunk).and_then(|(_, body)| match body {
            Body::Held { home, sum, .. } => Some((*home, *sum)),
            _ => None,
        })
    }

    /// A chunk of a leaf whose digest came from that home.
    pub fn chunk_from(&self, handle: u64, home: &PeerId) -> Option<ChunkName> {
        let leaf = self.leaves.get(&handle)?;
        let is_from = |body: &Body| matches!(body, Body::Held { home: from, .. } if from == home);
        leaf.chunks.iter().find(|(_, body)| is_from(body)).map(|(chunk, _)| *chunk)
    }

    /// What a home sent of a leaf is wrong: it is dropped, and asked of others.
    pub fn wrong(&mut self, now: Time, home: PeerId, handle: u64, attachments: &Attachments, out: &mut Outbox<Output>) {
        if self.wrong.len() >= limits::AUDIT_RECORDS {
            self.wrong.pop_first();
        }
        self.wrong.insert((home, handle));
        self.replace(now, home, handle, attachments, out);
    }

    /// A home is distrusted from now on: what it sent is dropped, and asked of others.
    pub fn distrust(&mut self, now: Time, home: PeerId, attachments: &Attachments, out: &mut Outbox<Output>) {
        let mut handles: Vec<_> = self.leaves.keys().copied().collect();
        handles.sort_unstable();
        for handle in handles {
            self.replace(now, home, handle, attachments, out);
        }
    }

    /// Asks others for what a home sent of a leaf, or was to send.
    fn replace(&mut self, now: Time, home: PeerId, handle: u64, attachments: &Attachments, out: &mut Outbox<Output>) {
        let Some(leaf) = self.leaves.get_mut(&handle) else { return };
        let is_from = |(_, body): &(ChunkName, Body)| match body {
            Body::Wanted { home: from, .. } | Body::Held { home: from, .. } => *from == home,
            Body::Later(_) | Body::Building { .. } => false,
        };
        let (of_it, others) = std::mem::take(&mut leaf.chunks).into_iter().partition::<Vec<_>, _>(is_from);
        leaf.chunks = others;
        let is_idle = leaf.idle_until.is_some();
        for (chunk, body) in of_it {
            let name = DigestName { handle, chunk };
            self.drop_body(name, body, out);
            if !is_idle {
                self.want(now, name, vec![home], attachments, out);
            }
        }
        self.judge(handle);
    }

    /// False for a home that may not be believed what words a leaf has.
    fn may_give(&self, attachments: &Attachments, home: &PeerId, handle: u64) -> bool {
        attachments.is_trusted(home) && !self.wrong.contains(&(*home, handle))
    }

    /// A home can be asked no more: what it was to send others must.
    pub fn lost(&mut self, now: Time, home: &PeerId, attachments: &Attachments, out: &mut Outbox<Output>) {
        for name in self.homes.forget(home) {
            self.failed_by(now, name, attachments, out);
        }
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let later = self.later.first().map(|(at, _)| *at);
        let idle = self.idle.first().map(|(at, _)| *at);
        [self.homes.next_deadline(), later, idle, self.publish_at].into_iter().flatten().min()
    }

    /// Gives up on homes that are silent, asks again for what none gave, and forgets leaves that did not return.
    pub fn on_deadline(&mut self, now: Time, attachments: &Attachments, out: &mut Outbox<Output>) {
        for name in self.homes.overdue(now) {
            self.failed_by(now, name, attachments, out);
        }
        while let Some(&(at, name)) = self.later.first()
            && at <= now
        {
            self.later.pop_first();
            self.want(now, name, Vec::new(), attachments, out);
        }
        while let Some(&(at, handle)) = self.idle.first()
            && at <= now
        {
            self.forget(handle, out);
        }
    }

    /// Forgets leaves that are attached nowhere, at once.
    pub fn forget_idle(&mut self, out: &mut Outbox<Output>) {
        for (_, handle) in std::mem::take(&mut self.idle) {
            self.forget(handle, out);
        }
    }

    fn failed_by(&mut self, now: Time, name: DigestName, attachments: &Attachments, out: &mut Outbox<Output>) {
        let Some(Body::Wanted { home, tried }) = self.body_mut(name) else { return };
        let (home, mut tried) = (*home, std::mem::take(tried));
        tried.push(home);
        self.failed += 1;
        self.want(now, name, tried, attachments, out);
    }

    /// Asks the next home that has a chunk; those that have fewer to send come first.
    fn want(
        &mut self,
        now: Time,
        name: DigestName,
        tried: Vec<PeerId>,
        attachments: &Attachments,
        out: &mut Outbox<Output>,
    ) {
        let has = |home: &PeerId| {
            *home != self.me
                && !tried.contains(home)
                && self.homes.may_fill(home)
                && self.may_give(attachments, home, name.handle)
        };
        let with_it =
            attachments.homes(name.handle).iter().filter(|(_, list)| list.chunks.binary_search(&name.chunk).is_ok());
        let home = with_it.map(|(home, _)| *home).filter(has).min_by_key(|home| (self.homes.queued(home), *home));
        let Some(leaf) = self.leaves.get_mut(&name.handle) else { return };
        let body = match home {
            Some(home) => Body::Wanted { home, tried },
            None => {
                let at = now + limits::DIGEST_RETRY;
                self.later.insert((at, name));
                Body::Later(at)
            }
        };
        match leaf.chunks.iter_mut().find(|(chunk, _)| *chunk == name.chunk) {
            Some((_, known)) => *known = body,
            None => leaf.chunks.push((name.chunk, body)),
        }
        if let Some(home) = home {
            self.homes.queue(home, name);
            self.ask(now, &home, out);
        }
    }

    fn ask(&mut self, now: Time, home: &PeerId, out: &mut Outbox<Output>) {
        let digests = self.homes.ask(now, home);
        for digests in digests.chunks(limits::DIGESTS_PER_FRAME) {
            out.push(Output::Want(*home, DigestWant { digests: List::new(digests.iter().copied()) }));
        }
    }

    /// Nobody has the leaf: what is held of it may be of use when it returns.
    fn rest(&mut self, now: Time, handle: u64, out: &mut Outbox<Output>) {
        self.uncovered.remove(&handle);
        let Some(leaf) = self.leaves.get_mut(&handle) else { return };
        if leaf.idle_until.is_some() {
            return;
        }
        let (held, open) = std::mem::take(&mut leaf.chunks)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, body)| matches!(body, Body::Held { .. }));
        // A leaf of which nothing is held is not worth a place: a home could name any number of them.
        let is_empty = held.is_empty();
        leaf.chunks = held;
        for (chunk, body) in open {
            self.drop_body(DigestName { handle, chunk }, body, out);
        }
        if is_empty {
            return self.forget(handle, out);
        }
        let until = now + limits::DIGEST_KEPT;
        if let Some(leaf) = self.leaves.get_mut(&handle) {
            leaf.idle_until = Some(until);
            self.idle.insert((until, handle));
        }
    }

    /// Gives up the place of a leaf and all that is held of it.
    fn forget(&mut self, handle: u64, out: &mut Outbox<Output>) {
        self.uncovered.remove(&handle);
        let Some(leaf) = self.leaves.remove(&handle) else { return };
        if let Some(until) = leaf.idle_until {
            self.idle.remove(&(until, handle));
        }
        self.by_slot[leaf.slot as usize] = None;
        self.free_slots.push(leaf.slot);
        let mut gone = Outbox::new();
        for (chunk, body) in leaf.chunks {
            self.drop_body(DigestName { handle, chunk }, body, &mut gone);
        }
        out.append_mapped(&mut gone, |output| match output {
            Output::Remove(place) => Output::Expire(place),
            other => other,
        });
    }

    fn drop_body(&mut self, name: DigestName, body: Body, out: &mut Outbox<Output>) {
        match body {
            Body::Wanted { home, .. } => self.homes.drop_digest(&home, name),
            Body::Later(at) => drop(self.later.remove(&(at, name))),
            Body::Building { .. } => {}
            Body::Held { slot, home, bytes, .. } => {
                self.bytes -= u64::from(bytes);
                self.homes.holds(home, -i64::from(bytes));
                out.push(Output::Remove(slot));
            }
        }
    }

    /// Notes whether all of a leaf's lists can be looked up.
    fn judge(&mut self, handle: u64) {
        let Some(leaf) = self.leaves.get(&handle).filter(|leaf| leaf.idle_until.is_none()) else { return };
        let is_held = leaf.chunks.iter().all(|(_, body)| matches!(body, Body::Held { .. }));
        if is_held && !self.unpublished.contains(&handle) {
            self.uncovered.remove(&handle);
        } else {
            self.uncovered.insert(handle);
        }
    }

    fn body_mut(&mut self, name: DigestName) -> Option<&mut Body> {
        let leaf = self.leaves.get_mut(&name.handle)?;
        leaf.chunks.iter_mut().find(|(chunk, _)| *chunk == name.chunk).map(|(_, body)| body)
    }
}

#[cfg(test)]
mod tests;
