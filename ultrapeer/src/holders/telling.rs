//! What this home tells of the contents of its leaves, and whom.
//!
//! ```text
//!   list or homes of a leaf change ─> due after a pause ─┐
//!   ultrapeers change ─> a round over all told leaves ───┴─> a leaf's contents, some at each step ─> frames
//! ```
//!
//! What was told of a leaf is known by its chunks and by the ranking of ultrapeers under which it was told, so nothing
//! is kept for each content: who knew it before and who must know it now are computed from both.
//!
//! Invariants:
//! - a round begins when the last one has ended, so each leaf was told under the ranking in force or the one before;
//! - an ultrapeer that could not be told something, or forgot it, is *lost*: with the next round it begins anew;
//! - in one step at most [`limits::HOLDINGS_PER_STEP`] contents are told, and about [`limits::HOLDINGS_WORK`] numbers
//!   computed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use overlay::{
    id::PeerId,
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::List,
        mesh::{ChunkName, ContentKey, HoldingChange, Holdings},
    },
};

use super::ranking::{Owners, Ranking, mix, seed_of};
use crate::index::KeptSegment;

/// The chunks of a leaf's list, ascending.
pub type Chunks = Vec<(ChunkName, KeptSegment)>;

/// What this home tells. See the module text.
#[derive(Debug)]
pub(super) struct Telling {
    me: PeerId,
    /// The ultrapeers, this one included if it serves, with their networks.
    members: BTreeMap<PeerId, u64>,
    linked: BTreeSet<PeerId>,
    /// In force since the last round began.
    ranking: Arc<Ranking>,
    /// Those that know nothing of what was told before that.
    forgot: BTreeSet<PeerId>,
    lost: BTreeSet<PeerId>,
    round_at: Option<Time>,
    next_round: Time,
    /// Leaves that the round has not reached.
    stale: BTreeSet<u64>,
    /// Leaves that changed, by when they are looked at.
    due: BTreeSet<(Time, u64)>,
    due_at: BTreeMap<u64, Time>,
    told: BTreeMap<u64, Told>,
    job: Option<Job>,
    step_at: Time,
    /// What each ultrapeer was told, summed up.
    sums: BTreeMap<PeerId, u64>,
    /// When one may ask for it again.
    again_at: BTreeMap<PeerId, Time>,
    refresh_at: Option<Time>,
}

#[derive(Debug)]
struct Told {
    chunks: Chunks,
    ranking: Arc<Ranking>,
}

/// A leaf that is being told.
#[derive(Debug)]
struct Job {
    handle: u64,
    keys: Vec<(ContentKey, Change)>,
    next: usize,
    before: Arc<Ranking>,
    /// What will have been told; `None`: nothing.
    chunks: Option<Chunks>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Added,
    Removed,
    Kept,
}

/// What one ultrapeer is told in a step: leaves and contents, `true` if they have them.
type Batches = BTreeMap<PeerId, Vec<(u64, ContentKey, bool)>>;

impl Telling {
    pub(super) fn new(me: PeerId) -> Self {
        Self {
            me,
            members: BTreeMap::new(),
            linked: BTreeSet::new(),
            ranking: Arc::default(),
            forgot: BTreeSet::new(),
            lost: BTreeSet::new(),
            round_at: None,
            next_round: Time::ZERO,
            stale: BTreeSet::new(),
            due: BTreeSet::new(),
            due_at: BTreeMap::new(),
            told: BTreeMap::new(),
            job: None,
            step_at: Time::ZERO,
            sums: BTreeMap::new(),
            again_at: BTreeMap::new(),
            refresh_at: None,
        }
    }

    /// The ultrapeers, with their networks.
    pub(super) fn members(&self) -> &BTreeMap<PeerId, u64> {
        &self.members
    }

    /// An ultrapeer is in the view, in that network, or is not. True if that is news.
    pub(super) fn set_member(&mut self, now: Time, peer: PeerId, network: Option<u64>) -> bool {
        let before = match network {
            Some(network) => self.members.insert(peer, network),
            None => self.members.remove(&peer),
        };
        if before == network {
            return false;
        }
        if network.is_none() {
            self.sums.remove(&peer);
            self.again_at.remove(&peer);
        }
        if before.is_none() || network.is_none() {
            // Should it return, nobody knows what it still has.
            self.lost.insert(peer);
        }
        self.plan_round(now);
        true
    }

    /// A link to an ultrapeer is up, or is not.
    pub(super) fn set_linked(
        &mut self,
        now: Time,
        peer: PeerId,
        is_linked: bool,
        out: &mut Outbox<(PeerId, Holdings)>,
    ) {
        if !is_linked {
            self.linked.remove(&peer);
        } else if self.linked.insert(peer) {
            if self.lost.contains(&peer) {
                self.plan_round(now);
            }
            // What was under way when the link was lost may be missing, and it may have restarted.
            out.extend(self.confirmation(&peer));
        }
    }

    /// An ultrapeer misses something of what it was told. It is told anew, but not as often as it likes.
    pub(super) fn again(&mut self, now: Time, peer: PeerId) {
        let is_allowed = self.again_at.get(&peer).is_none_or(|at| *at <= now);
        if is_allowed && self.members.contains_key(&peer) {
            self.again_at.insert(peer, now + limits::HOLDINGS_AGAIN);
            self.lost.insert(peer);
            self.plan_round(now);
        }
    }

    /// The list or the homes of a leaf changed.
    pub(super) fn mark(&mut self, now: Time, handle: u64) {
        self.due_at.entry(handle).or_insert_with(|| {
            let at = now + limits::HOLDINGS_PAUSE;
            self.due.insert((at, handle));
            at
        });
    }

    /// True if something was told of that leaf.
    pub(super) fn has_told(&self, handle: u64) -> bool {
        self.told.contains_key(&handle) || self.job.as_ref().is_some_and(|job| job.handle == handle)
    }

    fn plan_round(&mut self, now: Time) {
        // All homes hear of a change at about the same time, and each has another place in it.
        let least = limits::HOLDERS_SETTLE;
        let spread = mix(seed_of(&self.me.0), now.as_micros()) % (2 * least.as_micros() as u64);
        let at = now + least + Duration::from_micros(spread);
        let at = at.max(self.next_round);
        self.round_at.get_or_insert(at);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let is_busy = self.job.is_some() || !self.stale.is_empty();
        let work = if is_busy { Some(self.step_at) } else { self.round_at };
        let due = self.due.first().map(|(at, _)| *at);
        let step = work.into_iter().chain(due).min().map(|at| at.max(self.step_at));
        step.into_iter().chain(self.refresh_at).min()
    }

    /// Tells what is to be told now. `list` gives the list of a leaf that this home is to tell of.
    pub(super) fn on_deadline(
        &mut self,
        now: Time,
        list: impl Fn(u64) -> Option<Chunks>,
        out: &mut Outbox<(PeerId, Holdings)>,
    ) {
        if self.refresh_at.is_some_and(|at| at <= now) {
            let confirmations: Vec<_> = self.linked.iter().filter_map(|peer| self.confirmation(peer)).collect();
            self.refresh_at = (!confirmations.is_empty()).then(|| now + limits::HOLDINGS_REFRESH);
            out.extend(confirmations);
        }
        if self.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        let is_idle = self.job.is_none() && self.stale.is_empty();
        if is_idle && self.round_at.is_some_and(|at| at <= now) {
            self.begin_round(now, out);
        }
        let mut batches = Batches::new();
        let (mut contents, mut work) = (limits::HOLDINGS_PER_STEP, limits::HOLDINGS_WORK);
        while contents > 0 && work > 0 {
            let Some(mut job) = self.job.take().or_else(|| self.next_job(now, &list)) else { break };
            while contents > 0
                && work > 0
                && let Some((key, change)) = job.keys.get(job.next).copied()
            {
                job.next += 1;
                let told = self.tell(&job, key, change, &mut batches);
                contents -= usize::from(told);
                work = work.saturating_sub(1 + self.ranking.members());
            }
            if job.next < job.keys.len() {
                self.job = Some(job);
            } else if let Some(chunks) = job.chunks {
                self.told.insert(job.handle, Told { chunks, ranking: self.ranking.clone() });
            }
            work = work.saturating_sub(1);
        }
        self.step_at = now + limits::HOLDINGS_STEP;
        self.send(now, batches, out);
    }

    fn begin_round(&mut self, now: Time, out: &mut Outbox<(PeerId, Holdings)>) {
        self.round_at = None;
        self.next_round = now + limits::HOLDERS_SETTLE_EACH * self.members.len() as u32;
        let is_large = self.members.len() >= limits::HOLDERS_TOLD_FROM;
        let members = self.members.iter().filter(|_| is_large);
        self.ranking = Arc::new(Ranking::new(members.map(|(peer, network)| (*peer, *network))));
        if !is_large {
            // Who need not know anything is told so at once.
            self.lost.extend(self.sums.keys());
        }
        self.forgot = std::mem::take(&mut self.lost);
        let others = self.forgot.iter().filter(|peer| **peer != self.me && self.members.contains_key(*peer));
        for peer in others {
            if self.linked.contains(peer) {
                self.sums.remove(peer);
                out.push((*peer, Holdings { reset: true, sum: 0, changes: List::default() }));
            } else {
                self.lost.insert(*peer);
            }
        }
        self.stale = self.told.keys().copied().collect();
    }

    /// The next leaf that must be told: those that changed go first.
    fn next_job(&mut self, now: Time, list: &impl Fn(u64) -> Option<Chunks>) -> Option<Job> {
        let due = self.due.first().copied().filter(|(at, _)| *at <= now);
        let (handle, chunks) = if let Some((at, handle)) = due {
            self.due.remove(&(at, handle));
            self.due_at.remove(&handle);
            (handle, list(handle))
        } else {
            let handle = self.stale.pop_first()?;
            (handle, self.told.get(&handle).map(|told| told.chunks.clone()))
        };
        self.stale.remove(&handle);
        let told = self.told.remove(&handle);
        let before = told.as_ref().map_or_else(|| self.ranking.clone(), |told| told.ranking.clone());
        let was = told.map_or_else(Vec::new, |told| told.chunks);
        let is = chunks.as_deref().unwrap_or_default();
        let is_empty = before.members() == 0 && self.ranking.members() == 0;
        let keys = match is_empty {
            true => Vec::new(),
            false if Arc::ptr_eq(&before, &self.ranking) => changed(&was, is),
            false => compared(&keys_of(was.iter()), &keys_of(is.iter())),
        };
        Some(Job { handle, keys, next: 0, before, chunks })
    }

    /// Notes for whom a content is news. True if it is for any.
    fn tell(&mut self, job: &Job, key: ContentKey, change: Change, batches: &mut Batches) -> bool {
        let now = if change == Change::Removed { Owners::default() } else { self.ranking.owners(key) };
        let is_current = Arc::ptr_eq(&job.before, &self.ranking);
        let mut before = if change == Change::Added { Owners::default() } else { job.before.owners(key) };
        if !is_current {
            before = before.map(|owner| owner.filter(|owner| !self.forgot.contains(owner)));
        }
        let gains = now.iter().filter(|owner| !before.contains(owner)).map(|owner| (*owner, true));
        let losses = before.iter().filter(|owner| !now.contains(owner)).map(|owner| (*owner, false));
        let mut is_news = false;
        for (owner, has) in gains.chain(losses) {
            let Some(owner) = owner.filter(|owner| *owner != self.me && self.members.contains_key(owner)) else {
                continue;
            };
            if self.linked.contains(&owner) {
                batches.entry(owner).or_default().push((job.handle, key, has));
                is_news = true;
            } else {
                self.lost.insert(owner);
            }
        }
        is_news
    }

    fn send(&mut self, now: Time, batches: Batches, out: &mut Outbox<(PeerId, Holdings)>) {
        for (peer, batch) in batches {
            self.refresh_at.get_or_insert(now + limits::HOLDINGS_REFRESH);
            let sum = self.sums.entry(peer).or_default();
            for part in batch.chunks(limits::HOLDINGS_PER_FRAME) {
                for (handle, key, has) in part {
                    let part = Holdings::part(*handle, *key);
                    *sum = if *has { sum.wrapping_add(part) } else { sum.wrapping_sub(part) };
                }
                let changes = part.chunk_by(|(one, ..), (other, ..)| one == other).map(|of_leaf| {
                    let keys = |wanted| of_leaf.iter().filter(move |(.., has)| *has == wanted).map(|(_, key, _)| *key);
                    HoldingChange {
                        handle: of_leaf[0].0,
                        added: List::new(keys(true)),
                        removed: List::new(keys(false)),
                    }
                });
                out.push((peer, Holdings { reset: false, sum: *sum, changes: List::new(changes) }));
            }
        }
    }

    fn confirmation(&self, peer: &PeerId) -> Option<(PeerId, Holdings)> {
        let sum = *self.sums.get(peer)?;
        Some((*peer, Holdings { reset: false, sum, changes: List::default() }))
    }
}

/// The contents of chunks, ascending, each once.
fn keys_of<'a>(chunks: impl Iterator<Item = &'a (ChunkName, KeptSegment)>) -> Vec<ContentKey> {
    let mut keys: Vec<_> = chunks.flat_map(|(_, kept)| kept.contents()).map(ContentKey::of).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Contents that one of two lists has and the other has not. Of chunks that both have nothing is looked at, unless
/// others changed.
fn changed(was: &[(ChunkName, KeptSegment)], is: &[(ChunkName, KeptSegment)]) -> Vec<(ContentKey, Change)> {
    let has = |list: &[(ChunkName, KeptSegment)], name: ChunkName| {
        list.binary_search_by_key(&name, |(known, _)| *known).is_ok()
    };
    let gone = keys_of(was.iter().filter(|(name, _)| !has(is, *name)));
    let new = keys_of(is.iter().filter(|(name, _)| !has(was, *name)));
    let mut keys = compared(&gone, &new);
    keys.retain(|(_, change)| *change != Change::Kept);
    let mut stays = BTreeSet::new();
    for (_, kept) in is.iter().filter(|(name, _)| !keys.is_empty() && has(was, *name)) {
        let known = kept.contents().iter().map(ContentKey::of);
        stays.extend(known.filter(|known| keys.binary_search_by_key(known, |(key, _)| *key).is_ok()));
    }
    keys.retain(|(key, _)| !stays.contains(key));
    keys
}

/// The contents of two ascending lists, ascending.
fn compared(was: &[ContentKey], is: &[ContentKey]) -> Vec<(ContentKey, Change)> {
    let mut keys = Vec::with_capacity(was.len().max(is.len()));
    let (mut was, mut is) = (was.iter().copied().peekable(), is.iter().copied().peekable());
    loop {
        let change = match (was.peek(), is.peek()) {
            (Some(old), Some(new)) if old == new => Change::Kept,
            (Some(old), Some(new)) if old < new => Change::Removed,
            (_, Some(_)) => Change::Added,
            (Some(_), None) => Change::Removed,
            (None, None) => return keys,
        };
        let old = if change == Change::Added { None } else { was.next() };
        let new = if change == Change::Removed { None } else { is.next() };
        keys.extend(old.or(new).map(|key| (key, change)));
    }
}
