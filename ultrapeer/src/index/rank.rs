//! From matches to contents, best first.
//!
//! Files with the same content are one [`Group`], whoever shares them and whatever they are called. A
//! group's score fuses three parts, each from 0 to 1:
//!
//! - *relevance*: how well the best of its names fits;
//! - *availability*: sources in distinct networks, and whether one has a free slot; a leaf that lists what it does not have
//!   is no source;
//! - *freshness*: how recently it changed.
//!
//! Of every match only what decides the score is kept; names, sources and the rest are put together for the best
//! contents alone, whose files are read once more. Measured (`bench/src/bin/index.rs`): of a query with a thousand
//! matches a millisecond, where groups of all of them took seven.
//!
//! ```text
//!   matches ─ read ─> relevance, content ─ sort ─> contents ─> score ─ best of them ─ read again ─> groups
//! ```
//!
//! Invariant: the result depends on the snapshot, matches, facts and `now` alone, not on the order of the matches;
//! ties go by content id.

mod relevance;

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use overlay::{
    file::{Tags, is_unlisted},
    id::ContentId,
    limits,
    query::Query,
};
use rustc_hash::FxHashMap;

use self::relevance::Relevance;
use super::{
    LeafSlot, Match, Snapshot,
    files::{FileView, TagsView},
};

/// The score of something perfect in every respect.
pub const SCORE_MAX: u32 = 1_000_000;

/// Shares of the parts in the score. Chosen: availability decides between names that fit alike, freshness
/// between contents that are alike in both: all of it is less than a second source, or one word
/// more in a short name.
const RELEVANCE: f64 = 0.70;
const AVAILABILITY: f64 = 0.28;
const FRESHNESS: f64 = 0.02;

/// Age at which freshness is a half.
const HALF_FRESH_S: f64 = 365.0 * 86_400.0;

/// What is known of a leaf as a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeafFacts {
    /// Its network: the address cut to /24 (v6 /48), as a number that means nothing else.
    pub prefix: u64,
    /// Upload slots that are free.
    pub free_slots: u16,
    /// Uploads that wait.
    pub queue: u32,
    /// True if it can be dialled without help.
    pub public: bool,
    /// True if it lists what it does not have: it counts as a source only after others, and adds nothing to a score.
    pub doubted: bool,
    /// The first eight bytes of its key: orders leaves that are alike in all the rest, at every ultrapeer alike.
    pub order: u64,
}

/// A content that matches, with all that this index knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// BLAKE3 of the bytes.
    pub content: ContentId,
    /// Bytes.
    pub size: u64,
    /// File names, most frequent first, at most [`limits::HIT_NAMES`].
    pub names: Vec<String>,
    /// The path at the best source; of several there the most relevant.
    pub path: String,
    /// The tags of the file that says most about itself.
    pub tags: Tags,
    /// Seconds since 1970 UTC of the last change of that file at the best source.
    pub modified_s: i64,
    /// Leaves that share it.
    pub sources: u32,
    /// Networks in which they are.
    pub networks: u32,
    /// They, ascending, each with the place in `names` of the name it has it under most often; at most
    /// [`limits::HIT_HOLDERS`].
    pub leaves: Vec<(LeafSlot, Option<u8>)>,
    /// The best of them, at most [`limits::HIT_PEERS`]: with a free slot, dialable, with a short queue;
    /// distinct networks first.
    pub best: Vec<LeafSlot>,
    /// 0 to [`SCORE_MAX`], comparable between ultrapeers.
    pub score: u32,
}

/// The best contents of some matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    /// Best first, no more than were asked for.
    pub groups: Vec<Group>,
    /// Contents among the matches.
    pub contents: usize,
}

/// The best `limit` contents among matches of a snapshot. `now_s` is in seconds since 1970 UTC.
pub fn rank(
    snapshot: &Snapshot,
    query: &Query,
    matches: &[Match],
    limit: usize,
    now_s: i64,
    facts: impl Fn(LeafSlot) -> LeafFacts,
) -> Ranking {
    rank_by(Relevance::new(snapshot, query.terms()), snapshot, matches, limit, now_s, facts)
}

/// As [`rank`], of holders of a content, as [`Snapshot::holders`] gives them.
pub fn rank_holders(
    snapshot: &Snapshot,
    matches: &[Match],
    limit: usize,
    now_s: i64,
    facts: impl Fn(LeafSlot) -> LeafFacts,
) -> Ranking {
    rank_by(Relevance::new(snapshot, &[]), snapshot, matches, limit, now_s, facts)
}

/// What of a match decides its content's score.
struct Seen {
    content: ContentId,
    found: Match,
    relevance: f64,
    modified_s: i64,
}

fn rank_by(
    mut relevance: Relevance<'_>,
    snapshot: &Snapshot,
    matches: &[Match],
    limit: usize,
    now_s: i64,
    facts: impl Fn(LeafSlot) -> LeafFacts,
) -> Ranking {
    let mut files = snapshot.files();
    let mut seen: Vec<Seen> = Vec::with_capacity(matches.len());
    for found in matches {
        if let Some(file) = files.read(*found) {
            let relevance = relevance.of(&file);
            seen.push(Seen { content: file.content, found: *found, relevance, modified_s: file.modified_s });
        }
    }
    seen.sort_unstable_by(|a, b| {
        a.content.cmp(&b.content).then(a.found.leaf.cmp(&b.found.leaf)).then(a.found.cmp(&b.found))
    });
    let facts = KnownFacts { known: RefCell::default(), facts };
    let mut order: Vec<(u32, &[Seen])> =
        seen.chunk_by(|a, b| a.content == b.content).map(|group| (score(group, now_s, &facts), group)).collect();
    let contents = order.len();
    let best_first = |a: &(u32, &[Seen]), b: &(u32, &[Seen])| b.0.cmp(&a.0).then(a.1[0].content.cmp(&b.1[0].content));
    if limit < contents {
        order.select_nth_unstable_by(limit, best_first);
        order.truncate(limit);
    }
    order.sort_unstable_by(best_first);
    let group = |(score, group): (u32, &[Seen])| {
        let mut draft = Draft::default();
        for Seen { found, relevance, .. } in group {
            if let Some(file) = files.read(*found) {
                draft.add(&file, found.leaf, *relevance);
            }
        }
        draft.finish(group[0].content, score, &facts)
    };
    Ranking { groups: order.into_iter().map(group).collect(), contents }
}

/// Facts are asked for once a leaf.
struct KnownFacts<F> {
    known: RefCell<FxHashMap<LeafSlot, LeafFacts>>,
    facts: F,
}

impl<F: Fn(LeafSlot) -> LeafFacts> KnownFacts<F> {
    fn of(&self, leaf: LeafSlot) -> LeafFacts {
        *self.known.borrow_mut().entry(leaf).or_insert_with(|| (self.facts)(leaf))
    }
}

/// The score of a content, of all that was seen of it.
fn score(group: &[Seen], now_s: i64, facts: &KnownFacts<impl Fn(LeafSlot) -> LeafFacts>) -> u32 {
    let relevance = group.iter().map(|seen| seen.relevance).fold(0.0, f64::max);
    let changed_s = group.iter().map(|seen| seen.modified_s).max().unwrap_or_default();
    let (networks, free) = match group {
        [only] => {
            let facts = facts.of(only.found.leaf);
            (u32::from(!facts.doubted), facts.free_slots > 0)
        }
        _ => {
            let sources = group.iter().map(|seen| facts.of(seen.found.leaf)).filter(|facts| !facts.doubted);
            let networks: BTreeSet<u64> = sources.clone().map(|facts| facts.prefix).collect();
            (networks.len() as u32, sources.clone().any(|facts| facts.free_slots > 0))
        }
    };
    points(RELEVANCE * relevance + FRESHNESS * freshness(changed_s, now_s)) + availability(networks, free)
}

/// A group in the making.
#[derive(Default)]
struct Draft {
    /// How often each size is claimed: a content has one, and the few who say otherwise are wrong.
    sizes: BTreeMap<u64, u32>,
    names: BTreeMap<String, u32>,
    tags: Tags,
    tags_known: usize,
    leaves: BTreeMap<LeafSlot, Holding>,
}

/// What one leaf has of a content.
#[derive(Default)]
struct Holding {
    names: BTreeMap<String, u32>,
    /// The most relevant file's relevance, path and time of change; of equals the first path.
    best: Option<(f64, String, i64)>,
}

impl Draft {
    fn add(&mut self, file: &FileView<'_>, leaf: LeafSlot, relevance: f64) {
        *self.sizes.entry(file.size).or_default() += 1;
        let holding = self.leaves.entry(leaf).or_default();
        if is_unlisted(file.path) {
            return;
        }
        count_name(&mut self.names, file.name());
        count_name(&mut holding.names, file.name());
        let better = |(best, path, _): &(f64, String, i64)| {
            relevance.total_cmp(best).is_gt() || relevance == *best && file.path < path.as_str()
        };
        if holding.best.as_ref().is_none_or(better) {
            holding.best = Some((relevance, file.path.to_owned(), file.modified_s));
        }
        self.take_tags(&file.tags);
    }

    fn take_tags(&mut self, tags: &TagsView<'_>) {
        if tags.known() > self.tags_known {
            self.tags = tags.to_tags();
            self.tags_known = tags.known();
        }
    }

    fn finish(mut self, content: ContentId, score: u32, facts: &KnownFacts<impl Fn(LeafSlot) -> LeafFacts>) -> Group {
        let sources: Vec<(LeafSlot, LeafFacts)> = self.leaves.keys().map(|leaf| (*leaf, facts.of(*leaf))).collect();
        let counted = sources.iter().filter(|(_, facts)| !facts.doubted);
        let networks = counted.map(|(_, facts)| facts.prefix).collect::<BTreeSet<_>>().len() as u32;
        let names: Vec<String> = most_frequent(&self.names).take(limits::HIT_NAMES).map(str::to_owned).collect();
        let leaves = self.leaves.iter().take(limits::HIT_HOLDERS).map(|(leaf, holding)| {
            let name = most_frequent(&holding.names).next();
            (*leaf, names.iter().position(|listed| Some(&**listed) == name).map(|place| place as u8))
        });
        let leaves = leaves.collect();
        let best = best_sources(sources);
        let holding = best.first().and_then(|leaf| self.leaves.remove(leaf)).unwrap_or_default();
        let (_, path, modified_s) = holding.best.unwrap_or_default();
        Group {
            content,
            size: self.sizes.iter().max_by_key(|(size, count)| (**count, Reverse(**size))).map_or(0, |(size, _)| *size),
            names,
            path,
            tags: self.tags,
            modified_s,
            sources: self.leaves.len() as u32 + u32::from(!best.is_empty()),
            networks,
            leaves,
            best,
            score,
        }
    }
}

fn count_name(names: &mut BTreeMap<String, u32>, name: &str) {
    match names.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            names.insert(name.to_owned(), 1);
        }
    }
}

/// Names, the most frequent first, equals in their own order.
fn most_frequent(names: &BTreeMap<String, u32>) -> impl Iterator<Item = &str> {
    let mut names: Vec<(&str, u32)> = names.iter().map(|(name, count)| (&**name, *count)).collect();
    names.sort_by_key(|(_, count)| Reverse(*count));
    names.into_iter().map(|(name, _)| name)
}

fn points(share: f64) -> u32 {
    (f64::from(SCORE_MAX) * share) as u32
}

/// What sources add to a score: nothing for nobody, half of [`AVAILABILITY`] for one network with a free slot,
/// towards all of it for many; half as much if no slot is free.
pub fn availability(networks: u32, free_slot: bool) -> u32 {
    let networks = f64::from(networks);
    let waiting = if free_slot { 1.0 } else { 0.5 };
    points(AVAILABILITY * waiting * networks / (1.0 + networks))
}

/// 1 for what changed now (or claims the future), falling to 0 with age.
fn freshness(modified_s: i64, now_s: i64) -> f64 {
    let age_s = now_s.saturating_sub(modified_s).max(0) as f64;
    HALF_FRESH_S / (HALF_FRESH_S + age_s)
}

fn best_sources(mut sources: Vec<(LeafSlot, LeafFacts)>) -> Vec<LeafSlot> {
    sources.sort_by_key(|(leaf, facts)| {
        (facts.doubted, facts.free_slots == 0, !facts.public, facts.queue, facts.order, *leaf)
    });
    let mut networks = BTreeSet::new();
    let (first, rest): (Vec<_>, Vec<_>) =
        sources.into_iter().partition(|(_, facts)| !facts.doubted && networks.insert(facts.prefix));
    first.into_iter().chain(rest).take(limits::HIT_PEERS).map(|(leaf, _)| leaf).collect()
}
