//! How well a file fits the words of a query.
//!
//! BM25F over the file name (counted twice) and the other fields, and whether the query's words stand next to each
//! other. A word counts once in a name: who repeats it is no better an answer. All words must match, so rarity only
//! weighs them against each other; it is taken from the share of files that hold a word, which is about the same
//! at every ultrapeer, and lengths are compared with constants: so scores of different ultrapeers can be merged.
//!
//! Matches come in path order, so most have the folders of the one before: what those hold is remembered.

use overlay::query::{Condition, Term, TextToken};

use crate::index::{Snapshot, fields::FieldTokens, files::FileView};

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

/// The positive words of a query, and where the file under consideration has them.
pub(super) struct Relevance<'a> {
    words: Vec<Word<'a>>,
    weights: f64,
    /// What the name and the tags hold.
    held: Held,
    /// The folders of the last file, and what they hold.
    folders: String,
    folders_held: Held,
    field: FieldTokens,
}

/// A word of the query.
struct Word<'a> {
    token: &'a TextToken,
    /// How many positions before the next word of the query it stands, if they are side by side.
    gap: usize,
    weight: f64,
}

/// What some fields hold.
#[derive(Default)]
struct Held {
    /// Tokens of the fields.
    tokens: usize,
    /// By word of the query.
    words: Vec<HeldWord>,
}

#[derive(Clone, Copy, Default)]
struct HeldWord {
    /// Fields that hold it.
    fields: usize,
    /// How near the next word is: 1 if side by side, less if apart.
    near: f64,
}

impl Held {
    fn clear(&mut self, words: usize) {
        self.tokens = 0;
        self.words.clear();
        self.words.resize(words, HeldWord::default());
    }

    /// Adds what a field holds.
    fn add(&mut self, text: &str, words: &[Word<'_>], field: &mut FieldTokens) {
        field.load(text);
        self.tokens += field.len();
        for (at, (word, held)) in words.iter().zip(&mut self.words).enumerate() {
            if field.has(word.token) {
                held.fields += 1;
                let near = match words.get(at + 1) {
                    Some(next) if field.has_pair(word.token, word.gap, next.token) => 1.0,
                    Some(next) if field.has(next.token) => NEAR_APART,
                    _ => 0.0,
                };
                held.near = held.near.max(near);
            }
        }
    }
}

impl<'a> Relevance<'a> {
    pub(super) fn new(snapshot: &Snapshot, terms: &'a [Term]) -> Self {
        let mut words: Vec<Word<'a>> = Vec::new();
        for term in terms.iter().filter(|term| !term.negated) {
            let (Condition::Text(text) | Condition::Tag(_, text)) = &term.condition else { continue };
            let tokens = text.tokens();
            for (at, token) in tokens.iter().enumerate() {
                let next = tokens.get(at + 1).map_or_else(|| text.positions(), |next| next.position);
                words.push(Word { token, gap: (next - token.position) as usize, weight: snapshot.rarity(token) });
            }
        }
        Self {
            weights: words.iter().map(|word| word.weight).sum(),
            words,
            held: Held::default(),
            folders: String::new(),
            folders_held: Held::default(),
            field: FieldTokens::default(),
        }
    }

    /// 0 to 1; 0 if the query has no words.
    pub(super) fn of(&mut self, file: &FileView<'_>) -> f64 {
        if self.words.is_empty() {
            return 0.0;
        }
        let Self { words, held, folders, folders_held, field, .. } = self;
        let name = file.name();
        let parents = &file.path[..file.path.len() - name.len()];
        if parents != folders || folders.is_empty() {
            parents.clone_into(folders);
            folders_held.clear(words.len());
            for folder in parents.split_terminator('/') {
                folders_held.add(folder, words, field);
            }
        }
        held.clear(words.len());
        let mut tags = file.tags.texts().peekable();
        let tags_held = tags.peek().is_some().then(|| {
            let mut tags_held = Held::default();
            tags_held.clear(words.len());
            for text in tags {
                tags_held.add(text, words, field);
            }
            tags_held
        });
        held.add(name, words, field);
        self.fuse(tags_held.as_ref())
    }

    /// Puts together what the name, the folders and the tags hold.
    fn fuse(&self, tags: Option<&Held>) -> f64 {
        let length = |share: f64, tokens: usize, mean: f64| 1.0 - share + share * tokens as f64 / mean;
        let other_tokens = self.folders_held.tokens + tags.map_or(0, |tags| tags.tokens);
        let name_length = length(NAME_LENGTH, self.held.tokens, NAME_TOKENS);
        let other_length = length(OTHER_LENGTH, other_tokens, OTHER_TOKENS);
        let (mut fit, mut nearness) = (0.0, 0.0);
        let pairs = self.words.len() - 1;
        for (at, word) in self.words.iter().enumerate() {
            let (name, folders) = (self.held.words[at], self.folders_held.words[at]);
            let tags = tags.map_or_else(HeldWord::default, |tags| tags.words[at]);
            let in_name = if name.fields > 0 { NAME_WEIGHT / name_length } else { 0.0 };
            let frequency = in_name + (folders.fields + tags.fields) as f64 / other_length;
            fit += word.weight * frequency / (frequency + SATURATION);
            if at < pairs {
                nearness += name.near.max(NEAR_ELSEWHERE * folders.near.max(tags.near)) / pairs as f64;
            } else if pairs == 0 {
                // A single word is as near as it stands in the name.
                nearness = if name.fields > 0 { 1.0 } else { NEAR_ELSEWHERE };
            }
        }
        (1.0 - NEARNESS) * fit / self.weights + NEARNESS * nearness
    }
}
