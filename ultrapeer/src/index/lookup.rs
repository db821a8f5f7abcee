//! From a query to the files that match it.
//!
//! Every term becomes one of three things. *Required* and *excluded* sources are answered by postings:
//! words, prefixes, extensions, kinds. *Checks* read the file itself: phrases, tags, comparisons; what a
//! positive check implies of words is required as well, so few files are read.
//!
//! ```text
//!   the shortest required list names the chunks ─> chunks that all other lists name too
//!     ─> positions: intersect required, subtract excluded ─> check each file ─> match
//! ```
//!
//! Invariants: matches come in ascending order of (chunk, position); every match fulfils the whole query,
//! except in a digest, where checks are left to a home; work is counted and ends at the caller's cap.

use overlay::query::{Condition, Query, Term, Text, TextTag};

use super::{
    ChunkSlot, LeafSlot, Snapshot,
    fields::{FieldTokens, fields_of},
    files::{FileCursor, FileView},
    postings::Positions,
    routes::Entry,
    segment::{Segment, extension_token, kind_token},
    words::stem,
};

/// Tokens walked by a prefix that cost as much as one chunk visited.
const TOKENS_PER_WORK: usize = 8;

/// A file that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match {
    /// Its chunk.
    pub chunk: ChunkSlot,
    /// Its place in the chunk, in path order.
    pub position: u16,
    /// The chunk's owner.
    pub leaf: LeafSlot,
}

/// What a look-up found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// Ascending by chunk and position.
    pub matches: Vec<Match>,
    /// True if work ended at its cap: there may be more matches.
    pub capped: bool,
    /// True if the caller's number of matches was reached: there may be more.
    pub full: bool,
    /// Work done: chunks visited, postings decoded and files read.
    pub work: u64,
}

/// Looks a query up. See [`Snapshot::lookup`].
pub(super) fn lookup(snapshot: &Snapshot, query: &Query, now_s: i64, max_matches: usize, work_cap: u64) -> Lookup {
    let mut lookup = Lookup::default();
    let Some(mut plan) = Plan::new(snapshot, query) else { return lookup };
    let mut scratch = Scratch::default();
    for chunk in plan.candidates() {
        if lookup.matches.len() >= max_matches {
            lookup.full = true;
            break;
        }
        if lookup.work >= work_cap {
            lookup.capped = true;
            break;
        }
        lookup.work += 1;
        let Some(held) = snapshot.chunk(ChunkSlot(chunk)) else { continue };
        if !plan.required.iter_mut().all(|source| source.locate(chunk)) {
            continue;
        }
        if !plan.positions(chunk, &held.segment, &mut scratch, &mut lookup.work) {
            continue;
        }
        let limits = Limits { max_matches, work_cap, now_s };
        plan.emit((ChunkSlot(chunk), held.leaf), &held.segment, &mut scratch, &limits, &mut lookup);
    }
    lookup
}

struct Limits {
    max_matches: usize,
    work_cap: u64,
    now_s: i64,
}

/// Memory that is kept from chunk to chunk.
struct Scratch {
    found: Positions,
    other: Positions,
    path: String,
    field: FieldTokens,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            found: Positions::none(0),
            other: Positions::none(0),
            path: String::new(),
            field: FieldTokens::default(),
        }
    }
}

/// A query, prepared for one snapshot.
struct Plan<'a> {
    /// By ascending length of their lists; not empty, and the first has one.
    required: Vec<Source<'a>>,
    excluded: Vec<Source<'a>>,
    checks: Vec<&'a Term>,
}

impl<'a> Plan<'a> {
    /// `None` if nothing can match.
    fn new(snapshot: &'a Snapshot, query: &'a Query) -> Option<Self> {
        let mut plan = Self { required: Vec::new(), excluded: Vec::new(), checks: Vec::new() };
        for term in query.terms() {
            plan.add(snapshot, term);
        }
        plan.required.sort_by_key(Source::length);
        plan.checks.sort_by_key(|term| matches!(term.condition, Condition::Text(_) | Condition::Tag(..)));
        (plan.required.first()?.length() > 0).then_some(plan)
    }

    fn add(&mut self, snapshot: &'a Snapshot, term: &'a Term) {
        let (words, exact) = match &term.condition {
            Condition::Text(words) => (Some(words), words.tokens().len() == 1),
            Condition::Tag(_, words) => (Some(words), false),
            Condition::Extension(list) => {
                let tokens = list.iter().map(|extension| extension_token(extension));
                return self.add_source(term.negated, Source::any_of(snapshot, tokens));
            }
            Condition::Kind(list) => {
                let tokens = list.iter().map(|kind| kind_token(*kind));
                return self.add_source(term.negated, Source::any_of(snapshot, tokens));
            }
            _ => (None, false),
        };
        if !exact {
            self.checks.push(term);
        }
        if let Some(words) = words.filter(|_| exact || !term.negated) {
            for token in words.tokens() {
                self.add_source(term.negated, Source::of_token(snapshot, &token.text, token.prefix));
            }
        }
    }

    fn add_source(&mut self, negated: bool, source: Source<'a>) {
        if negated { self.excluded.push(source) } else { self.required.push(source) }
    }

    /// The lists that name the candidates: those of the shortest required source.
    fn candidates(&self) -> Candidates<'a> {
        Candidates { rest: self.required.first().map(Source::lists).unwrap_or_default() }
    }

    /// Leaves in `scratch.found` what sources allow, after all required ones were located; false if nothing.
    fn positions(&mut self, chunk: u32, segment: &Segment, scratch: &mut Scratch, work: &mut u64) -> bool {
        let Scratch { found, other, .. } = scratch;
        for (index, source) in self.required.iter().enumerate() {
            let target = if index == 0 { &mut *found } else { &mut *other };
            target.reset(segment.files());
            *work += source.insert_positions(segment, target);
            if index > 0 {
                found.intersect(other);
            }
            if found.is_empty() {
                return false;
            }
        }
        for source in &mut self.excluded {
            if source.locate(chunk) {
                other.reset(segment.files());
                *work += source.insert_positions(segment, other);
                found.subtract(other);
            }
        }
        !found.is_empty()
    }

    /// Appends the files of `scratch.found` that pass the checks.
    fn emit(
        &self,
        (chunk, leaf): (ChunkSlot, LeafSlot),
        segment: &Segment,
        scratch: &mut Scratch,
        limits: &Limits,
        lookup: &mut Lookup,
    ) {
        let Scratch { found, path, field, .. } = scratch;
        let files = segment.files.as_ref().filter(|_| !self.checks.is_empty());
        let mut cursor = files.map(|files| FileCursor::new(files, std::mem::take(path)));
        for position in found.iter() {
            if lookup.matches.len() >= limits.max_matches {
                lookup.full = true;
                break;
            }
            if let Some(cursor) = &mut cursor {
                if lookup.work >= limits.work_cap {
                    lookup.capped = true;
                    break;
                }
                lookup.work += 1;
                let passes = |file: FileView<'_>| {
                    self.checks.iter().all(|term| holds(&term.condition, &file, limits.now_s, field) != term.negated)
                };
                if !cursor.read(position).is_some_and(passes) {
                    continue;
                }
            }
            lookup.matches.push(Match { chunk, position, leaf });
        }
        if let Some(cursor) = cursor {
            *path = cursor.into_buffer();
        }
    }
}

/// True if the file fulfils a condition that is checked on files.
fn holds(condition: &Condition, file: &FileView<'_>, now_s: i64, field: &mut FieldTokens) -> bool {
    let number = |value: Option<u32>| value.map(u64::from);
    match condition {
        Condition::Text(words) => fields_of(file).any(|text| field.text_holds(text, words)),
        Condition::Tag(tag, words) => tag_holds(*tag, words, file, field),
        Condition::Size(compare) => compare.holds(file.size),
        Condition::Year(compare) => number(file.tags.year()).is_some_and(|value| compare.holds(value)),
        Condition::Bitrate(compare) => number(file.tags.bitrate()).is_some_and(|value| compare.holds(value)),
        Condition::Duration(compare) => number(file.tags.duration_s()).is_some_and(|value| compare.holds(value)),
        Condition::Modified(modified) => modified.holds(file.modified_s, now_s),
        // Sources decide these exactly, so they are never among the checks.
        Condition::Extension(_) | Condition::Kind(_) => true,
    }
}

fn tag_holds(tag: TextTag, words: &Text, file: &FileView<'_>, field: &mut FieldTokens) -> bool {
    let text = match tag {
        TextTag::Artist => file.tags.artist(),
        TextTag::Album => file.tags.album(),
        TextTag::Title => file.tags.title(),
    };
    text.is_some_and(|text| field.text_holds(text, words))
}

/// A list of chunks, read in ascending order.
struct List<'a> {
    entries: &'a [Entry],
    /// Entries before this one are below every chunk still to come.
    at: usize,
    /// The ordinal at the chunk that was last located.
    ordinal: Option<u32>,
}

impl<'a> List<'a> {
    const fn new(entries: &'a [Entry]) -> Self {
        Self { entries, at: 0, ordinal: None }
    }

    /// Goes to a chunk, not below the last one; true if the list names it. Gallops, so a pass over all
    /// chunks of a short list costs the logarithm of the gaps in a long one.
    fn locate(&mut self, chunk: u32) -> bool {
        let rest = &self.entries[self.at..];
        let mut bound = 1;
        while rest.get(bound - 1).is_some_and(|entry| entry.chunk() < chunk) {
            bound *= 2;
        }
        let (low, high) = (bound / 2, rest.len().min(bound));
        self.at += low + rest[low.min(high)..high].partition_point(|entry| entry.chunk() < chunk);
        self.ordinal = self.entries.get(self.at).filter(|entry| entry.chunk() == chunk).map(|entry| entry.ordinal());
        self.ordinal.is_some()
    }
}

/// The chunks that any of some lists name, ascending, each once.
struct Candidates<'a> {
    rest: Vec<&'a [Entry]>,
}

impl Iterator for Candidates<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let chunk = self.rest.iter().filter_map(|list| list.first()).map(|entry| entry.chunk()).min()?;
        for list in &mut self.rest {
            if let [first, rest @ ..] = list
                && first.chunk() == chunk
            {
                *list = rest;
            }
        }
        Some(chunk)
    }
}

/// Where the positions of one word, prefix or list filter come from.
enum Source<'a> {
    /// A token.
    Token(List<'a>),
    /// All tokens that begin so; the list is that of their stem.
    Prefix(List<'a>, &'a str),
    /// As [`Self::Prefix`], but too short for a stem: only ever beside another word of a phrase.
    ShortPrefix(&'a str),
    /// Any of several tokens.
    AnyOf(Vec<List<'a>>),
}

impl<'a> Source<'a> {
    fn of_token(snapshot: &'a Snapshot, token: &'a str, prefix: bool) -> Self {
        let list = |key| List::new(snapshot.routes.get(key));
        match (prefix, stem(token)) {
            (false, _) => Self::Token(list(snapshot.keys.token(token.as_bytes()))),
            (true, Some(stem)) => Self::Prefix(list(snapshot.keys.stem(stem)), token),
            (true, None) => Self::ShortPrefix(token),
        }
    }

    fn any_of(snapshot: &'a Snapshot, tokens: impl Iterator<Item = String>) -> Self {
        let list = |token: String| List::new(snapshot.routes.get(snapshot.keys.token(token.as_bytes())));
        Self::AnyOf(tokens.map(list).collect())
    }

    /// Chunks that it names, at most. A short prefix may be anywhere.
    fn length(&self) -> usize {
        match self {
            Self::Token(list) | Self::Prefix(list, _) => list.entries.len(),
            Self::ShortPrefix(_) => usize::MAX,
            Self::AnyOf(lists) => lists.iter().map(|list| list.entries.len()).sum(),
        }
    }

    /// The lists that name its chunks.
    fn lists(&self) -> Vec<&'a [Entry]> {
        match self {
            Self::Token(list) | Self::Prefix(list, _) => vec![list.entries],
            Self::ShortPrefix(_) => Vec::new(),
            Self::AnyOf(lists) => lists.iter().map(|list| list.entries).collect(),
        }
    }

    /// Goes to a chunk, not below the last one; false if the chunk certainly holds nothing of it.
    fn locate(&mut self, chunk: u32) -> bool {
        match self {
            Self::Token(list) | Self::Prefix(list, _) => list.locate(chunk),
            Self::ShortPrefix(_) => true,
            Self::AnyOf(lists) => lists.iter_mut().fold(false, |any, list| list.locate(chunk) | any),
        }
    }

    /// Adds its positions in the located chunk, and returns the work that took.
    fn insert_positions(&self, segment: &Segment, out: &mut Positions) -> u64 {
        match self {
            Self::Token(list) => insert_token(list, segment, out),
            Self::Prefix(list, prefix) => insert_prefix(prefix, list.ordinal, segment, out),
            Self::ShortPrefix(prefix) => insert_prefix(prefix, None, segment, out),
            Self::AnyOf(lists) => lists.iter().map(|list| insert_token(list, segment, out)).sum(),
        }
    }
}

fn insert_token(list: &List<'_>, segment: &Segment, out: &mut Positions) -> u64 {
    let Some(ordinal) = list.ordinal else { return 0 };
    segment.words.insert_positions(ordinal, out);
    1
}

fn insert_prefix(prefix: &str, from: Option<u32>, segment: &Segment, out: &mut Positions) -> u64 {
    let walked = segment.words.insert_prefixed(prefix, from, out);
    1 + (walked / TOKENS_PER_WORK) as u64
}
