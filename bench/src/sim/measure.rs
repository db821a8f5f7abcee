//! What is measured while a world runs: searches against the truth, and what faults do.

use std::time::Duration;

use leaf::search::End;
use overlay::{
    id::ContentId,
    time::Time,
    wire::search::{Hit, StopReason},
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    elections::Elections,
    workload::{Class, Library, Query},
};

/// When a search belongs to a burst after a fault: which fault, and milliseconds after it.
pub type Burst = (u32, u32);

/// All measurements of a run.
#[derive(Debug)]
pub struct Measures {
    settled: Duration,
    under_way: FxHashMap<(u32, u64), UnderWay>,
    /// Searches that ended.
    pub done: Vec<Done>,
    /// Searches whose leaf went before they ended.
    pub abandoned: u64,
    /// Contents shown that do not match: must not happen.
    pub strange: u64,
    /// Searches that a home refused.
    pub refused: u64,
    /// For each ultrapeer that died and each that lived on: seconds until the death was known there.
    pub detected_s: Vec<f64>,
    /// For each leaf that lost a home: seconds until it had all of them again, with its list.
    pub restored_s: Vec<f64>,
    /// Leaves that had not all homes again when the next fault or the end came.
    pub unrestored: u64,
    /// How ultrapeers were elected.
    pub elections: Elections,
}

#[derive(Debug)]
struct UnderWay {
    query: Query,
    began: Time,
    burst: Option<Burst>,
    /// Ultrapeers that the asker's homes know of at that moment, ascending.
    view: Vec<u32>,
    found: FxHashMap<u32, u32>,
    first_hit: Option<Time>,
    /// Contents that are not in the library: must not happen.
    strange: u32,
}

/// A search that ended, beside the truth.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// How it was made.
    pub class: Class,
    /// When it began.
    pub began: Time,
    /// The burst that it belongs to.
    pub burst: Option<Burst>,
    /// Contents that it had to find: held by a leaf that was online all the time and advertised its list before.
    pub expected: u32,
    /// Those of them that it found; never more than its limit.
    pub found: u32,
    /// The most of them that its limit allows.
    pub possible: u32,
    /// Copies of the contents it found, or had to find.
    pub expected_copies: u64,
    /// Those of them that it counted.
    pub found_copies: u64,
    /// Leaves that hold something it had to find.
    pub holders: u32,
    /// Contents shown that no leaf online holds.
    pub stale: u32,
    /// It said that nothing is missing.
    pub complete: bool,
    /// It said so, and missed a content that a home in its view had listed for long enough. Must not happen.
    pub falsely_complete: bool,
    /// It said so, and missed a content of a leaf whose homes were not in its view (any more).
    pub missed_homeless: bool,
    /// It said so, and counted fewer sources than homes in its view had listed. Must not happen.
    pub short_sources: bool,
    /// Queries and forwards sent.
    pub messages: u32,
    /// From the start to the first hit.
    pub first_hit: Option<Duration>,
    /// From the start to the end.
    pub elapsed: Duration,
    /// Why it ended.
    pub stopped: StopReason,
}

/// What a search said that is not so, to be looked into.
#[derive(Clone, Debug)]
pub struct Lie {
    /// When the search began.
    pub began: Time,
    /// What was asked.
    pub query: String,
    /// The content that is missing, or of which sources are.
    pub content: u32,
    /// Sources that were counted.
    pub counted: u32,
    /// Leaves that homes in the view had listed.
    pub listed: u32,
}

/// Where the copies of the contents of a search are, as the world knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// Its leaf is offline, came after the search began, or was not listed yet.
    Absent,
    /// Its leaf is online, and its list was at some home long before the search began.
    Advertised,
    /// Besides, a home that lives and is in the view of the asker's homes has had it for long enough.
    Listed,
}

impl Measures {
    /// Nothing measured yet; searches count that begin after `settled`.
    pub fn new(settled: Duration) -> Self {
        Self {
            settled,
            under_way: FxHashMap::default(),
            done: Vec::new(),
            abandoned: 0,
            strange: 0,
            refused: 0,
            detected_s: Vec::new(),
            restored_s: Vec::new(),
            unrestored: 0,
            elections: Elections::default(),
        }
    }

    /// Takes over what was measured in another run.
    pub fn extend(&mut self, other: Self) {
        self.done.extend(other.done);
        self.abandoned += other.abandoned;
        self.strange += other.strange;
        self.refused += other.refused;
        self.detected_s.extend(other.detected_s);
        self.restored_s.extend(other.restored_s);
        self.unrestored += other.unrestored;
        self.elections.extend(other.elections);
    }

    /// A search begins.
    pub fn begin(&mut self, now: Time, leaf: u32, ticket: u64, query: Query, view: Vec<u32>, burst: Option<Burst>) {
        let found = FxHashMap::default();
        let under_way = UnderWay { query, began: now, burst, view, found, first_hit: None, strange: 0 };
        self.under_way.insert((leaf, ticket), under_way);
    }

    /// A user sees a hit.
    pub fn hit(&mut self, now: Time, leaf: u32, ticket: u64, hit: &Hit) {
        let Some(search) = self.under_way.get_mut(&(leaf, ticket)) else { return };
        search.first_hit.get_or_insert(now);
        let content = Library::content(&ContentId(hit.content.0));
        if search.query.contents.binary_search(&content).is_err() {
            search.strange += 1;
        }
        let sources = search.found.entry(content).or_default();
        *sources = (*sources).max(hit.sources);
    }

    /// A leaf went; nobody waits for its searches.
    pub fn leaf_went(&mut self, leaf: u32) {
        let before = self.under_way.len();
        self.under_way.retain(|(asker, _), _| *asker != leaf);
        self.abandoned += (before - self.under_way.len()) as u64;
    }

    /// A search ends: it is judged by where the copies of its contents are, by a function of the holder, the content,
    /// the moment of the begin and the view then. Returns what was not so.
    pub fn end(
        &mut self,
        leaf: u32,
        ticket: u64,
        end: &End,
        limit: u32,
        library: &Library,
        mut copy: impl FnMut(u32, u32, Time, &[u32]) -> Copy,
    ) -> Option<Lie> {
        let search = self.under_way.remove(&(leaf, ticket))?;
        let mut lie = None;
        let complete = end.summary.stopped == StopReason::Exhausted && end.summary.incomplete.is_empty();
        let mut done = Done {
            class: search.query.class,
            began: search.began,
            burst: search.burst,
            expected: 0,
            found: 0,
            possible: 0,
            expected_copies: 0,
            found_copies: 0,
            holders: 0,
            stale: 0,
            complete,
            falsely_complete: false,
            missed_homeless: false,
            short_sources: false,
            messages: end.summary.messages,
            first_hit: search.first_hit.map(|at| at.since(search.began)),
            elapsed: end.elapsed,
            stopped: end.summary.stopped,
        };
        let mut holders = FxHashSet::default();
        let mut alive = |content: u32| {
            let mut counts = (0_u32, 0_u32);
            for leaf in library.holders(content) {
                let copy = copy(*leaf, content, search.began, &search.view);
                counts.0 += u32::from(copy != Copy::Absent);
                counts.1 += u32::from(copy == Copy::Listed);
                if copy != Copy::Absent {
                    holders.insert(*leaf);
                }
            }
            counts
        };
        for &content in &search.query.contents {
            let (advertised, listed) = alive(content);
            let shown = search.found.get(&content).copied();
            if advertised == 0 {
                continue;
            }
            done.expected += 1;
            done.found += u32::from(shown.is_some());
            if shown.is_some() || end.summary.stopped != StopReason::Limit {
                done.expected_copies += u64::from(advertised);
                done.found_copies += u64::from(shown.unwrap_or(0).min(advertised));
            }
            if complete {
                done.falsely_complete |= shown.is_none() && listed > 0;
                done.missed_homeless |= shown.is_none() && listed == 0;
                // Holders are told one by one up to a cap; beyond it their number is not exact.
                let exact = advertised < overlay::limits::HIT_HOLDERS as u32;
                done.short_sources |= exact && shown.is_some_and(|sources| sources < listed);
                if lie.is_none() && exact && shown.unwrap_or(0) < listed {
                    let (began, query, counted) = (search.began, search.query.text.clone(), shown.unwrap_or(0));
                    lie = Some(Lie { began, query, content, counted, listed });
                }
            }
        }
        done.holders = holders.len() as u32;
        done.possible = if end.summary.stopped == StopReason::Limit { done.expected.min(limit) } else { done.expected };
        done.found = done.found.min(done.possible);
        let known: FxHashSet<u32> = search.query.contents.iter().copied().collect();
        let stale = search.found.keys().filter(|content| known.contains(content));
        done.stale = stale
            .filter(|content| {
                library
                    .holders(**content)
                    .iter()
                    .all(|leaf| copy(*leaf, **content, Time(u64::MAX), &[]) == Copy::Absent)
            })
            .count() as u32;
        if search.began.since(Time::ZERO) >= self.settled {
            self.done.push(done);
        }
        self.strange += u64::from(search.strange);
        lie
    }
}
