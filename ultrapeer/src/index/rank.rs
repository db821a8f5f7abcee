//! From matches to contents, best first.
//!
//! Files with the same content are one [`Group`], whoever shares them and whatever they are called. A
//! group's score fuses three parts, each from 0 to 1:
//!
//! - *relevance*: BM25F over the file name (counted twice) and the other fields, and whether the query's words
//!   stand next to each other; the best of its names;
//! - *availability*: sources in distinct networks, and whether one has a free slot;
//! - *freshness*: how recently it changed.
//!
//! A word counts once in a name: who repeats it is no better an answer. All words must match, so rarity only
//! weighs them against each other; it is taken from the share of chunks that hold a word, which is about the same
//! at every ultrapeer, and lengths are compared with constants: so scores of different ultrapeers can be merged.
//!
//! Invariant: the result depends on the snapshot, matches, facts and `now` alone, not on the order of the matches;
//! ties go by content id.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use overlay::{
    file::{Tags, is_unlisted},
    id::ContentId,
    limits,
    query::{Condition, Query, Term, TextToken},
};

use super::{
    LeafSlot, Match, Snapshot,
    fields::FieldTokens,
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

/// Share of nearness in relevance. Chosen: the words side by side in a name outweigh any number of sources of a
/// content that has them apart in its folders, and no more than a few of one that has them in its name.
const NEARNESS: f64 = 0.2;
/// What two words of one field count that are not side by side, and what those of a folder or a tag count against
/// those of a name.
const NEAR_APART: f64 = 0.5;
const NEAR_ELSEWHERE: f64 = 0.5;

/// BM25's usual saturation (Robertson and Zaragoza, 2009).
const SATURATION: f64 = 1.2;
/// How much a field's length counts against its words. Chosen below BM25's usual 0.75: long names are
/// mostly precise ones, and a short path must not outdo a name.
const NAME_LENGTH: f64 = 0.5;
const OTHER_LENGTH: f64 = 0.25;
/// How often a word in the name counts; elsewhere it counts once.
const NAME_WEIGHT: f64 = 2.0;
/// Mean tokens of a file name, and of all other fields together, in 7.9 million paths of Debian packages
/// and music data sets.
const NAME_TOKENS: f64 = 3.4;
const OTHER_TOKENS: f64 = 7.0;
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

/// Groups matches of a snapshot by content, best first. `now_s` is in seconds since 1970 UTC.
pub fn rank(
    snapshot: &Snapshot,
    query: &Query,
    matches: &[Match],
    now_s: i64,
    facts: impl Fn(LeafSlot) -> LeafFacts,
) -> Vec<Group> {
    rank_by(Relevance::new(snapshot, query.terms()), snapshot, matches, now_s, facts)
}

/// Groups the holders of a content, as [`Snapshot::holders`] gives them.
pub fn rank_holders(
    snapshot: &Snapshot,
    matches: &[Match],
    now_s: i64,
    facts: impl Fn(LeafSlot) -> LeafFacts,
) -> Vec<Group> {
    rank_by(Relevance::new(snapshot, &[]), snapshot, matches, now_s, facts)
}

fn rank_by(
    mut relevance: Relevance<'_>,
    snapshot: &Snapshot,
    matches: &[Match],
    now_s: i64,
    facts: impl Fn(LeafSlot) -> LeafFacts,
) -> Vec<Group> {
    let mut drafts: BTreeMap<ContentId, Draft> = BTreeMap::new();
    let mut files = snapshot.files();
    for found in matches {
        if let Some(file) = files.read(*found) {
            let relevance = relevance.of(&file);
            drafts.entry(file.content).or_default().add(&file, found.leaf, relevance);
        }
    }
    let mut groups: Vec<Group> =
        drafts.into_iter().map(|(content, draft)| draft.finish(content, now_s, &facts)).collect();
    groups.sort_by(|a, b| b.score.cmp(&a.score).then(a.content.cmp(&b.content)));
    groups
}

/// A group in the making.
#[derive(Default)]
struct Draft {
    /// How often each size is claimed: a content has one, and the few who say otherwise are wrong.
    sizes: BTreeMap<u64, u32>,
    names: BTreeMap<String, u32>,
    relevance: f64,
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
        self.relevance = self.relevance.max(relevance);
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

    fn finish(mut self, content: ContentId, now_s: i64, facts: &impl Fn(LeafSlot) -> LeafFacts) -> Group {
        let sources: Vec<(LeafSlot, LeafFacts)> = self.leaves.keys().map(|leaf| (*leaf, facts(*leaf))).collect();
        let networks = sources.iter().map(|(_, facts)| facts.prefix).collect::<BTreeSet<_>>().len() as u32;
        let free = sources.iter().any(|(_, facts)| facts.free_slots > 0);
        let names: Vec<String> = most_frequent(&self.names).take(limits::HIT_NAMES).map(str::to_owned).collect();
        let leaves = self.leaves.iter().take(limits::HIT_HOLDERS).map(|(leaf, holding)| {
            let name = most_frequent(&holding.names).next();
            (*leaf, names.iter().position(|listed| Some(&**listed) == name).map(|place| place as u8))
        });
        let leaves = leaves.collect();
        let changed_s = self.leaves.values().filter_map(|holding| Some(holding.best.as_ref()?.2)).max();
        let best = best_sources(sources);
        let holding = best.first().and_then(|leaf| self.leaves.remove(leaf)).unwrap_or_default();
        let (_, path, modified_s) = holding.best.unwrap_or_default();
        let fit = RELEVANCE * self.relevance + FRESHNESS * freshness(changed_s.unwrap_or_default(), now_s);
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
            score: points(fit) + availability(networks, free),
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
    sources.sort_by_key(|(leaf, facts)| (facts.free_slots == 0, !facts.public, facts.queue, facts.order, *leaf));
    let mut networks = BTreeSet::new();
    let (first, rest): (Vec<_>, Vec<_>) = sources.into_iter().partition(|(_, facts)| networks.insert(facts.prefix));
    first.into_iter().chain(rest).take(limits::HIT_PEERS).map(|(leaf, _)| leaf).collect()
}

/// BM25F of the positive words of a query, and their nearness.
struct Relevance<'a> {
    words: Vec<Word<'a>>,
    weights: f64,
    field: FieldTokens,
}

/// A word of the query, and where a file has it.
struct Word<'a> {
    token: &'a TextToken,
    /// How many positions before the next word of the query it stands, if they are side by side.
    gap: usize,
    weight: f64,
    in_name: bool,
    /// Other fields that hold it.
    elsewhere: usize,
    /// How near the next word is: 1 if side by side in the name, less in another field or apart.
    near: f64,
}

impl<'a> Relevance<'a> {
    fn new(snapshot: &Snapshot, terms: &'a [Term]) -> Self {
        let mut words: Vec<Word<'a>> = Vec::new();
        for term in terms.iter().filter(|term| !term.negated) {
            let (Condition::Text(text) | Condition::Tag(_, text)) = &term.condition else { continue };
            let tokens = text.tokens();
            for (at, token) in tokens.iter().enumerate() {
                let next = tokens.get(at + 1).map_or_else(|| text.positions(), |next| next.position);
                let weight = snapshot.rarity(token);
                let gap = (next - token.position) as usize;
                words.push(Word { token, gap, weight, in_name: false, elsewhere: 0, near: 0.0 });
            }
        }
        Self { weights: words.iter().map(|word| word.weight).sum(), words, field: FieldTokens::default() }
    }

    /// 0 to 1; 0 if the query has no words.
    fn of(&mut self, file: &FileView<'_>) -> f64 {
        if self.words.is_empty() {
            return 0.0;
        }
        for word in &mut self.words {
            (word.in_name, word.elsewhere, word.near) = (false, 0, 0.0);
        }
        let name = file.name();
        let folders = file.path[..file.path.len() - name.len()].split_terminator('/');
        let name_tokens = self.look_into(name, true);
        let other_tokens: usize = folders.chain(file.tags.texts()).map(|text| self.look_into(text, false)).sum();
        let length = |share: f64, tokens: usize, mean: f64| 1.0 - share + share * tokens as f64 / mean;
        let name_length = length(NAME_LENGTH, name_tokens, NAME_TOKENS);
        let other_length = length(OTHER_LENGTH, other_tokens, OTHER_TOKENS);
        let saturated = self.words.iter().map(|word| {
            let in_name = if word.in_name { NAME_WEIGHT / name_length } else { 0.0 };
            let frequency = in_name + word.elsewhere as f64 / other_length;
            word.weight * frequency / (frequency + SATURATION)
        });
        let fit = saturated.sum::<f64>() / self.weights;
        (1.0 - NEARNESS) * fit + NEARNESS * self.nearness()
    }

    /// 0 to 1: the mean over neighbouring words of the query. A single word is as near as it stands in the name.
    fn nearness(&self) -> f64 {
        match &*self.words {
            [word] => {
                if word.in_name {
                    1.0
                } else {
                    NEAR_ELSEWHERE
                }
            }
            [pairs @ .., _] => pairs.iter().map(|word| word.near).sum::<f64>() / pairs.len() as f64,
            [] => 0.0,
        }
    }

    /// Notes which words a field holds, and returns the field's tokens.
    fn look_into(&mut self, text: &str, is_name: bool) -> usize {
        self.field.load(text);
        let field = &self.field;
        let mut rest = &mut self.words[..];
        while let [word, after @ ..] = rest {
            if field.has(word.token) {
                word.in_name |= is_name;
                word.elsewhere += usize::from(!is_name);
                let field_value = if is_name { 1.0 } else { NEAR_ELSEWHERE };
                let near = match after.first() {
                    Some(next) if field.has_pair(word.token, word.gap, next.token) => field_value,
                    Some(next) if field.has(next.token) => field_value * NEAR_APART,
                    _ => 0.0,
                };
                word.near = word.near.max(near);
            }
            rest = after;
        }
        field.len()
    }
}
