//! Core: which leaf is attached to which ultrapeers, and with which list.
//!
//! What it decides: what other ultrapeers are told of the own leaves, and which homes can answer for a leaf.
//!
//! ```text
//!   own leaves ── changes, gathered for a moment ──> frames for each follower, of the part of the leaf space it follows
//!   homes that are followed ── frames ──> a copy of each home's log ──> homes of a leaf
//! ```
//!
//! Every home logs the leaves whose list is in its index, by a handle that is random for each session of the leaf and
//! the same at all its homes. Invariants:
//! - a leaf is logged only once its list is in the index, so who is named can answer;
//! - a copy is complete when its home says `caught_up` and the sum of what was said is the home's own; otherwise it is
//!   followed anew;
//! - what a home said is forgotten when the home is gone;
//! - what a *distrusted* home says of a leaf counts only if no other home has that leaf, and then the leaf cannot be
//!   searched to the end.

mod log;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use overlay::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    time::Time,
    wire::{
        descriptor::ShardPrefix,
        mesh::{AttachedList, AttachmentSum, Attachments as Frame, ChunkName},
    },
};
use rustc_hash::FxHashMap;

use self::log::Log;

/// A leaf's list: its sequence and the names of its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafList {
    /// Grows with each change.
    pub sequence: u64,
    /// The first eight bits of its leaf's place in the leaf space.
    pub place: u8,
    /// Ascending.
    pub chunks: Box<[ChunkName]>,
}

/// The leaves of the network and their homes, as this ultrapeer knows them.
#[derive(Debug)]
pub struct Attachments {
    me: PeerId,
    log: Log,
    copies: BTreeMap<PeerId, Copy>,
    distrusted: BTreeSet<PeerId>,
    /// Handle to homes with the list that each has. Derived from the log and the copies.
    homes: FxHashMap<u64, Vec<(PeerId, Arc<LeafList>)>>,
    /// Leaves by the first eight bits of their place.
    counts: Box<[u32; 256]>,
}

/// What is known of another home's log.
#[derive(Debug)]
struct Copy {
    leaves: BTreeSet<u64>,
    sum: u64,
    /// Chunks of all its leaves.
    chunks: usize,
    caught_up: bool,
    /// True if it has more leaves or chunks than a home can have: the rest is not kept, and sums differ.
    cut: bool,
    /// When the copy stopped being current; `None` while it is.
    stale_since: Option<Time>,
    /// Credit to ask for it anew because it differs.
    credit: TokenBucket,
    /// When there is credit for what must be asked.
    anew_at: Option<Time>,
}

impl Default for Copy {
    fn default() -> Self {
        Self {
            leaves: BTreeSet::new(),
            sum: 0,
            chunks: 0,
            caught_up: false,
            cut: false,
            stale_since: None,
            credit: TokenBucket::new(Time::ZERO, limits::LOG_ANEW_RATE, limits::LOG_ANEW_BURST),
            anew_at: None,
        }
    }
}

/// What a frame of another home changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Leaves whose homes or lists changed, each at least once.
    pub changed: Vec<u64>,
    /// True if the copy is not what the home says it is: it must be followed anew, when [`Attachments::may_ask_anew`].
    pub differs: bool,
}

impl LeafList {
    fn sum(&self, handle: u64) -> u64 {
        AttachedList::sum(handle, self.sequence, &self.chunks)
    }
}

impl Attachments {
    /// No leaf yet.
    pub fn new(me: PeerId) -> Self {
        Self {
            me,
            log: Log::default(),
            copies: BTreeMap::new(),
            distrusted: BTreeSet::new(),
            homes: FxHashMap::default(),
            counts: Box::new([0; 256]),
        }
    }

    /// Leaves attached anywhere, each counted once.
    pub fn leaves(&self) -> usize {
        self.homes.len()
    }

    /// Leaves of a part of the leaf space, each counted once. Of a smaller part than an eighth bit divides, those of
    /// the larger one.
    pub fn leaves_under(&self, part: ShardPrefix) -> usize {
        let part = ShardPrefix::of(part.bits, part.length.min(8));
        let first = (part.bits >> 24) as usize;
        let counts = &self.counts[first..first + (1 << (8 - part.length))];
        counts.iter().map(|count| *count as usize).sum()
    }

    /// The handles of all leaves, in no order.
    pub fn handles(&self) -> impl Iterator<Item = u64> + '_ {
        self.homes.keys().copied()
    }

    /// Leaves that another home has logged.
    pub fn leaves_of(&self, home: &PeerId) -> usize {
        self.copies.get(home).map_or(0, |copy| copy.leaves.len())
    }

    /// Other homes that have logged leaves.
    pub fn homes_with_leaves(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.copies.iter().filter(|(_, copy)| !copy.leaves.is_empty()).map(|(home, _)| *home)
    }

    /// True if that other home has logged a leaf.
    pub fn is_home(&self, home: &PeerId, handle: u64) -> bool {
        self.copies.get(home).is_some_and(|copy| copy.leaves.contains(&handle))
    }

    /// True if the list of that leaf is searchable here.
    pub fn is_own(&self, handle: u64) -> bool {
        self.homes(handle).iter().any(|(home, _)| *home == self.me)
    }

    /// Leaves whose lists are searchable here.
    pub fn own_leaves(&self) -> usize {
        self.log.len()
    }

    /// The homes of a leaf, this ultrapeer among them, each with the list that it has.
    pub fn homes(&self, handle: u64) -> &[(PeerId, Arc<LeafList>)] {
        self.homes.get(&handle).map_or(&[], |homes| homes)
    }

    /// Any leaf of another home: the one at or after `at` among its handles.
    pub fn leaf_of(&self, home: &PeerId, at: u64) -> Option<u64> {
        let leaves = &self.copies.get(home)?.leaves;
        leaves.range(at..).chain(leaves).next().copied()
    }

    /// Other homes are believed what they say of their leaves, unless they are distrusted.
    pub fn is_trusted(&self, home: &PeerId) -> bool {
        !self.distrusted.contains(home)
    }

    /// Another home is distrusted from now on, or not any more. Returns the leaves that it has logged.
    pub fn set_distrusted(&mut self, home: PeerId, is_distrusted: bool) -> Vec<u64> {
        if is_distrusted {
            self.distrusted.insert(home);
        } else {
            self.distrusted.remove(&home);
        }
        self.copies.get(&home).map_or_else(Vec::new, |copy| copy.leaves.iter().copied().collect())
    }

    /// The homes of a leaf that are trusted; all if none is.
    fn believed(&self, handle: u64) -> impl Iterator<Item = &(PeerId, Arc<LeafList>)> + '_ {
        let homes = self.homes(handle);
        let has_trusted = homes.iter().any(|(home, _)| self.is_trusted(home));
        homes.iter().filter(move |(home, _)| !has_trusted || self.is_trusted(home))
    }

    /// Of the homes of a leaf that are `usable`, those with the newest list.
    pub fn best(&self, handle: u64, usable: impl Fn(&PeerId) -> bool) -> impl Iterator<Item = PeerId> + '_ {
        let homes: Vec<_> = self.believed(handle).filter(|(home, _)| usable(home)).collect();
        let newest = homes.iter().map(|(_, list)| list.sequence).max();
        homes.into_iter().filter(move |(_, list)| Some(list.sequence) == newest).map(|(home, _)| *home)
    }

    /// The sequence of the list of an own leaf.
    pub fn own_sequence(&self, handle: u64) -> Option<u64> {
        self.homes(handle).iter().find(|(home, _)| *home == self.me).map(|(_, list)| list.sequence)
    }

    /// Other homes of a leaf whose lists are not among those that were `searched`, and newer than the `own` one if there
    /// is one. They are more than the newest: nobody signed that it is one.
    pub fn unsearched<'a>(
        &'a self,
        handle: u64,
        own: Option<u64>,
        searched: &'a [Arc<LeafList>],
    ) -> impl Iterator<Item = &'a (PeerId, Arc<LeafList>)> + 'a {
        let is_new = move |list: &LeafList| own.is_none_or(|own| list.sequence > own);
        self.believed(handle).filter(move |(home, list)| *home != self.me && is_new(list) && !searched.contains(list))
    }

    /// Logs the list of an own leaf at a place of the leaf space, which is searchable here from now on, or that it
    /// left. Followers are told with the next [`Self::flush`].
    pub fn own_change(&mut self, now: Time, handle: u64, list: Option<(u32, LeafList)>) {
        let entry = list.map(|(place, list)| (place, self.shared(handle, list)));
        if self.log.change(now, handle, entry.clone()) {
            self.put(handle, self.me, entry.map(|(_, list)| list));
        }
    }

    /// Another ultrapeer wants to be told of the own leaves under a prefix: what followers must be told now.
    pub fn follow(&mut self, now: Time, follower: PeerId, prefix: ShardPrefix) -> Vec<(PeerId, Frame)> {
        self.log.follow(now, follower, prefix)
    }

    /// What followers must be told now.
    pub fn flush(&mut self, now: Time) -> Vec<(PeerId, Frame)> {
        self.log.flush(now)
    }

    /// When [`Self::flush`] or [`Self::due_anew`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.copies.values().filter_map(|copy| copy.anew_at).chain(self.log.next_deadline()).min()
    }

    /// True if a home whose copy differs may be asked for all of it now. If not, because that happened too often
    /// lately, [`Self::due_anew`] tells when: a home whose sums are never right must not keep both sides busy.
    pub fn may_ask_anew(&mut self, now: Time, home: &PeerId) -> bool {
        let Some(copy) = self.copies.get_mut(home) else { return false };
        let may = copy.credit.take(now);
        copy.anew_at = if may { None } else { copy.credit.wait(now).map(|wait| now + wait) };
        may
    }

    /// Homes whose copies differ and that may be asked for all of them now.
    pub fn due_anew(&mut self, now: Time) -> Vec<PeerId> {
        let is_due = |copy: &Copy| copy.anew_at.is_some_and(|at| at <= now);
        let due: Vec<_> = self.copies.iter().filter(|(_, copy)| is_due(copy)).map(|(home, _)| *home).collect();
        due.into_iter().filter(|home| self.may_ask_anew(now, home)).collect()
    }

    /// Another home is asked for its log from now on: until it has told all of it, its copy is not current.
    pub fn following(&mut self, now: Time, home: PeerId) {
        let copy = self.copies.entry(home).or_default();
        (copy.caught_up, copy.anew_at) = (false, None);
        copy.stale_since.get_or_insert(now);
    }

    /// Another home tells of its leaves. A home that claims more than a home can have is cut off there, and one that
    /// is not followed is not listened to.
    pub fn heard(&mut self, home: PeerId, frame: Frame) -> Heard {
        let mut heard = Heard::default();
        if !self.copies.contains_key(&home) {
            return heard;
        }
        if frame.reset {
            heard.changed = self.clear(&home);
        }
        for change in frame.changes {
            let list = change.list.map(|list| LeafList {
                sequence: list.sequence,
                place: list.place,
                chunks: list.chunks.into_vec().into(),
            });
            self.take(home, change.handle, list);
            heard.changed.push(change.handle);
        }
        if let (Some(sum), Some(copy)) = (frame.caught_up, self.copies.get_mut(&home)) {
            let own = AttachmentSum { leaves: copy.leaves.len() as u32, sum: copy.sum };
            heard.differs = sum != own && !copy.cut;
            copy.caught_up = !heard.differs;
            copy.stale_since = copy.stale_since.filter(|_| heard.differs);
        }
        heard
    }

    /// Nothing is heard of a home since `since`: its copy ages until it is trusted again.
    pub fn doubt(&mut self, since: Time, home: &PeerId) {
        if let Some(copy) = self.copies.get_mut(home) {
            copy.stale_since.get_or_insert(since);
        }
    }

    /// A home that was doubted is heard of again, over the link that it had.
    pub fn trust(&mut self, home: &PeerId) {
        if let Some(copy) = self.copies.get_mut(home).filter(|copy| copy.caught_up) {
            copy.stale_since = None;
        }
    }

    /// The link to another ultrapeer is gone: it is told nothing any more.
    pub fn unlinked(&mut self, now: Time, peer: &PeerId) {
        self.log.unfollow(peer);
        self.doubt(now, peer);
        if let Some(copy) = self.copies.get_mut(peer) {
            (copy.caught_up, copy.anew_at) = (false, None);
        }
    }

    /// A home is gone or not followed any more: its leaves are not attached there, as far as is known. Returns the
    /// leaves that were.
    pub fn forget(&mut self, home: &PeerId) -> Vec<u64> {
        let changed = self.clear(home);
        self.copies.remove(home);
        changed
    }

    /// True if that home's copy is complete and current, or was until [`limits::DIGEST_LAG`] ago.
    pub fn is_current(&self, now: Time, home: &PeerId) -> bool {
        self.copies.get(home).is_some_and(|copy| match copy.stale_since {
            None => copy.caught_up,
            Some(since) => now.since(since) <= limits::DIGEST_LAG,
        })
    }

    /// True if that home has told all of its leaves, so that what it tells now is new.
    pub fn is_caught_up(&self, home: &PeerId) -> bool {
        self.copies.get(home).is_some_and(|copy| copy.caught_up)
    }

    fn take(&mut self, home: PeerId, handle: u64, list: Option<LeafList>) {
        let list = list.map(|list| self.shared(handle, list));
        let before = self.homes(handle).iter().find(|(known, _)| *known == home);
        let before = before.map(|(_, list)| (list.sum(handle), list.chunks.len()));
        let Some(copy) = self.copies.get_mut(&home) else { return };
        let chunks =
            copy.chunks - before.map_or(0, |(_, chunks)| chunks) + list.as_ref().map_or(0, |list| list.chunks.len());
        let too_many = (before.is_none() && copy.leaves.len() >= limits::LEAVES_OF_HOME)
            || (chunks > limits::CHUNKS_OF_HOME && chunks > copy.chunks);
        match &list {
            Some(_) if too_many => {
                copy.cut = true;
                return;
            }
            Some(list) => {
                copy.leaves.insert(handle);
                copy.sum ^= list.sum(handle);
            }
            None => {
                copy.leaves.remove(&handle);
            }
        }
        copy.chunks = chunks;
        copy.sum ^= before.map_or(0, |(sum, _)| sum);
        self.put(handle, home, list);
    }

    /// Empties a home's copy.
    fn clear(&mut self, home: &PeerId) -> Vec<u64> {
        let Some(copy) = self.copies.get_mut(home) else { return Vec::new() };
        let leaves = std::mem::take(&mut copy.leaves);
        (copy.sum, copy.chunks, copy.cut) = (0, 0, false);
        for handle in &leaves {
            self.put(*handle, *home, None);
        }
        leaves.into_iter().collect()
    }

    /// The same list at another home of the leaf, so that it is in memory once.
    fn shared(&self, handle: u64, list: LeafList) -> Arc<LeafList> {
        let known = self.homes(handle).iter().find(|(_, known)| **known == list);
        known.map_or_else(|| Arc::new(list), |(_, known)| Arc::clone(known))
    }

    fn put(&mut self, handle: u64, home: PeerId, list: Option<Arc<LeafList>>) {
        let homes = self.homes.entry(handle).or_default();
        let before = homes.first().map(|(_, list)| list.place);
        homes.retain(|(known, _)| *known != home);
        homes.extend(list.map(|list| (home, list)));
        let now = homes.first().map(|(_, list)| list.place);
        if now.is_none() {
            self.homes.remove(&handle);
        }
        if let Some(place) = before {
            self.counts[usize::from(place)] -= 1;
        }
        if let Some(place) = now {
            self.counts[usize::from(place)] += 1;
        }
    }
}

#[cfg(test)]
mod tests;
