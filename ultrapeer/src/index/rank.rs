//! From matches to contents, best first.
//!
//! Files with the same content are one [`Group`], whoever shares them and whatever they are called. A
//! group's score fuses three parts, each from 0 to 1:
//!
//! - *relevance*: BM25F over the file name (counted twice) and the other fields, the best of its names;
//! - *availability*: sources in distinct networks, and whether one has a free slot;
//! - *freshness*: how recently it changed.
//!
//! All words of a query must match, so rarity would only weigh words against each other, and differently
//! at every ultrapeer. It is left out, and lengths are compared with constants: so scores of different
//! ultrapeers can be merged as they are, the higher one counting for a content that both know.
//!
//! Invariant: the result depends on matches, files, facts and `now` alone; ties go by content id.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{
    file::Tags,
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
/// between contents that are alike in both.
const RELEVANCE: f64 = 0.70;
const AVAILABILITY: f64 = 0.25;
const FRESHNESS: f64 = 0.05;

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
    /// The most relevant path.
    pub path: String,
    /// The tags of the file that says most about itself.
    pub tags: Tags,
    /// Seconds since 1970 UTC of the latest change that a source reports.
    pub modified_s: i64,
    /// Leaves that share it.
    pub sources: u32,
    /// They, ascending, at most [`limits::HIT_HOLDERS`].
    pub leaves: Vec<LeafSlot>,
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
    rank_by(Relevance::new(query.terms()), snapshot, matches, now_s, facts)
}

/// Groups the holders of a content, as [`Snapshot::holders`] gives them.
pub fn rank_holders(
    snapshot: &Snapshot,
    matches: &[Match],
    now_s: i64,
    facts: impl Fn(LeafSlot) -> LeafFacts,
) -> Vec<Group> {
    rank_by(Relevance::new(&[]), snapshot, matches, now_s, facts)
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
    size: u64,
    names: BTreeMap<String, u32>,
    /// The most relevant file's relevance and path; of equals the first path.
    best: Option<(f64, String)>,
    tags: Tags,
    tags_known: usize,
    modified_s: Option<i64>,
    leaves: BTreeSet<LeafSlot>,
}

impl Draft {
    fn add(&mut self, file: &FileView<'_>, leaf: LeafSlot, relevance: f64) {
        self.size = file.size;
        match self.names.get_mut(file.name()) {
            Some(count) => *count += 1,
            None => {
                self.names.insert(file.name().to_owned(), 1);
            }
        }
        let better = |(best, path): &(f64, String)| {
            relevance.total_cmp(best).is_gt() || relevance == *best && file.path < path.as_str()
        };
        if self.best.as_ref().is_none_or(better) {
            self.best = Some((relevance, file.path.to_owned()));
        }
        self.take_tags(&file.tags);
        self.modified_s = self.modified_s.max(Some(file.modified_s));
        self.leaves.insert(leaf);
    }

    fn take_tags(&mut self, tags: &TagsView<'_>) {
        if tags.known() > self.tags_known {
            self.tags = tags.to_tags();
            self.tags_known = tags.known();
        }
    }

    fn finish(self, content: ContentId, now_s: i64, facts: &impl Fn(LeafSlot) -> LeafFacts) -> Group {
        let sources: Vec<(LeafSlot, LeafFacts)> = self.leaves.iter().map(|leaf| (*leaf, facts(*leaf))).collect();
        let (relevance, path) = self.best.unwrap_or_default();
        let modified_s = self.modified_s.unwrap_or_default();
        let parts =
            RELEVANCE * relevance + AVAILABILITY * availability(&sources) + FRESHNESS * freshness(modified_s, now_s);
        let mut names: Vec<(String, u32)> = self.names.into_iter().collect();
        names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Group {
            content,
            size: self.size,
            names: names.into_iter().take(limits::HIT_NAMES).map(|(name, _)| name).collect(),
            path,
            tags: self.tags,
            modified_s,
            sources: sources.len() as u32,
            leaves: self.leaves.into_iter().take(limits::HIT_HOLDERS).collect(),
            best: best_sources(sources),
            score: (f64::from(SCORE_MAX) * parts) as u32,
        }
    }
}

/// 0 for nobody, a half for one network with a free slot, towards 1 for many.
fn availability(sources: &[(LeafSlot, LeafFacts)]) -> f64 {
    let networks = sources.iter().map(|(_, facts)| facts.prefix).collect::<BTreeSet<_>>().len() as f64;
    let waiting = if sources.iter().any(|(_, facts)| facts.free_slots > 0) { 1.0 } else { 0.5 };
    waiting * networks / (1.0 + networks)
}

/// 1 for what changed now (or claims the future), falling to 0 with age.
fn freshness(modified_s: i64, now_s: i64) -> f64 {
    let age_s = now_s.saturating_sub(modified_s).max(0) as f64;
    HALF_FRESH_S / (HALF_FRESH_S + age_s)
}

fn best_sources(mut sources: Vec<(LeafSlot, LeafFacts)>) -> Vec<LeafSlot> {
    sources.sort_by_key(|(leaf, facts)| (facts.free_slots == 0, !facts.public, facts.queue, *leaf));
    let mut networks = BTreeSet::new();
    let (first, rest): (Vec<_>, Vec<_>) = sources.into_iter().partition(|(_, facts)| networks.insert(facts.prefix));
    first.into_iter().chain(rest).take(limits::HIT_PEERS).map(|(leaf, _)| leaf).collect()
}

/// BM25F of the positive words of a query.
struct Relevance<'a> {
    words: Vec<&'a TextToken>,
    field: FieldTokens,
    /// By word: how often it is in the name, and elsewhere.
    counts: Vec<(usize, usize)>,
}

impl<'a> Relevance<'a> {
    fn new(terms: &'a [Term]) -> Self {
        let positive = terms.iter().filter(|term| !term.negated);
        let words = positive.filter_map(|term| match &term.condition {
            Condition::Text(words) | Condition::Tag(_, words) => Some(words.tokens()),
            _ => None,
        });
        Self { words: words.flatten().collect(), field: FieldTokens::default(), counts: Vec::new() }
    }

    /// 0 to 1; 0 if the query has no words.
    fn of(&mut self, file: &FileView<'_>) -> f64 {
        if self.words.is_empty() {
            return 0.0;
        }
        self.counts.clear();
        self.counts.resize(self.words.len(), (0, 0));
        let name = file.name();
        let folders = file.path[..file.path.len() - name.len()].split_terminator('/');
        let name_tokens = self.count(name, |(in_name, _), more| *in_name += more);
        let mut other_tokens = 0;
        for text in folders.chain(file.tags.texts()) {
            other_tokens += self.count(text, |(_, elsewhere), more| *elsewhere += more);
        }
        let length = |share: f64, tokens: usize, mean: f64| 1.0 - share + share * tokens as f64 / mean;
        let name_length = length(NAME_LENGTH, name_tokens, NAME_TOKENS);
        let other_length = length(OTHER_LENGTH, other_tokens, OTHER_TOKENS);
        let saturated = self.counts.iter().map(|(in_name, elsewhere)| {
            let weight = NAME_WEIGHT * *in_name as f64 / name_length + *elsewhere as f64 / other_length;
            weight / (weight + SATURATION)
        });
        saturated.sum::<f64>() / self.words.len() as f64
    }

    /// Counts the words in a field, and returns the field's tokens.
    fn count(&mut self, text: &str, add: impl Fn(&mut (usize, usize), usize)) -> usize {
        self.field.load(text);
        for (word, counts) in self.words.iter().zip(&mut self.counts) {
            add(counts, self.field.count(word));
        }
        self.field.len()
    }
}
