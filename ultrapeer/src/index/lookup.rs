//! From a query to the files that match it.
//!
//! Every term becomes one of three things. *Required* and *excluded* sources are answered by postings:
//! words, prefixes, extensions, kinds. *Checks* read the file itself: phrases, tags, comparisons; what a
//! positive check implies of words is required as well, so few files are read.
//!
//! ```text
//!   run after run:
//!   the shortest required list names the chunks ─> chunks that all other lists name too
//!     ─> positions: intersect required, subtract excluded ─> check each file ─> match
//! ```
//!
//! A list can only be read from its start. So a list that is very much longer than the one that names the
//! chunks is not read: its token is looked for in each of these chunks ([`READ_PER_CANDIDATE`]).
//!
//! Invariants: matches come in ascending order of (chunk, position); every match fulfils the whole query,
//! except in a digest, where checks are left to a home; work is counted and ends at the caller's cap.

use overlay::query::{Condition, Query, Term, Text, TextTag};

use super::{
    ChunkSlot, LeafSlot, Snapshot,
    fields::{FieldTokens, fields_of},
    files::{FileCursor, FileView},
    postings::Positions,
    routes::{Entry, Key, Keys, List},
    runs::{Chunk, Run},
    segment::{Segment, extension_token, kind_token},
    words::stem,
};

/// Tokens walked by a prefix that cost as much as one chunk visited.
const TOKENS_PER_WORK: usize = 8;
/// Bytes of a list that take as long to read as its token to be found in a segment: about half a microsecond
/// for five cache misses.
const BYTES_PER_SEARCH: usize = 256;
/// Bytes of one entry of a list, mostly.
const ENTRY_BYTES: usize = 3;
/// Bytes of a list that are read for each byte of the list that names the chunks, at most.
const READ_PER_CANDIDATE: usize = BYTES_PER_SEARCH / ENTRY_BYTES;

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
    let plan = Plan::new(snapshot.keys, query);
    let mut search = Search {
        limits: Limits { max_matches, work_cap, now_s },
        scratch: Scratch::default(),
        found: Lookup::default(),
    };
    for run in &snapshot.runs {
        plan.search(run, &mut search);
        if search.found.full || search.found.capped {
            break;
        }
    }
    search.found
}

/// A look-up under way.
struct Search {
    limits: Limits,
    scratch: Scratch,
    found: Lookup,
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

/// A query, prepared for one index.
struct Plan<'a> {
    required: Vec<Source<'a>>,
    excluded: Vec<Source<'a>>,
    checks: Vec<&'a Term>,
}

impl<'a> Plan<'a> {
    fn new(keys: Keys, query: &'a Query) -> Self {
        let mut plan = Self { required: Vec::new(), excluded: Vec::new(), checks: Vec::new() };
        for term in query.terms() {
            plan.add(keys, term);
        }
        plan.checks.sort_by_key(|term| matches!(term.condition, Condition::Text(_) | Condition::Tag(..)));
        plan
    }

    fn add(&mut self, keys: Keys, term: &'a Term) {
        let (words, exact) = match &term.condition {
            Condition::Text(words) => (Some(words), words.tokens().len() == 1),
            Condition::Tag(_, words) => (Some(words), false),
            Condition::Extension(list) => {
                let tokens = list.iter().map(|extension| extension_token(extension));
                return self.add_source(term.negated, Source::any_of(keys, tokens));
            }
            Condition::Kind(list) => {
                let tokens = list.iter().map(|kind| kind_token(*kind));
                return self.add_source(term.negated, Source::any_of(keys, tokens));
            }
            _ => (None, false),
        };
        if !exact {
            self.checks.push(term);
        }
        if let Some(words) = words.filter(|_| exact || !term.negated) {
            for token in words.tokens() {
                self.add_source(term.negated, Source::of_token(keys, &token.text, token.prefix));
            }
        }
    }

    fn add_source(&mut self, negated: bool, source: Source<'a>) {
        if negated { self.excluded.push(source) } else { self.required.push(source) }
    }

    /// Appends the matches of a run.
    fn search(&self, run: &Run, search: &mut Search) {
        let mut required = Vec::with_capacity(self.required.len());
        for source in &self.required {
            let cursor = Cursor::new(source, run);
            if cursor.length() == 0 {
                return;
            }
            required.push(cursor);
        }
        required.sort_by_key(Cursor::length);
        let mut excluded: Vec<Cursor<'_>> = self.excluded.iter().map(|source| Cursor::new(source, run)).collect();
        let Some((first, others)) = required.split_first_mut() else { return };
        let most = first.length().saturating_mul(READ_PER_CANDIDATE);
        for cursor in others.iter_mut().chain(&mut excluded) {
            cursor.search_segments_beyond(most);
        }
        while let Some(number) = first.front() {
            if search.found.matches.len() >= search.limits.max_matches {
                search.found.full = true;
                return;
            }
            if search.found.work >= search.limits.work_cap {
                search.found.capped = true;
                return;
            }
            search.found.work += 1;
            if others.iter_mut().all(|cursor| cursor.locate(number))
                && let Some((slot, chunk)) = run.chunk(number)
            {
                self.visit(number, (slot, chunk), (first, others, &mut excluded), search);
            }
            first.pass(number);
        }
    }

    /// Appends the matches of a chunk that all required sources name.
    fn visit(
        &self,
        number: u32,
        (slot, chunk): (ChunkSlot, &Chunk),
        (first, others, excluded): (&Cursor<'_>, &[Cursor<'_>], &mut [Cursor<'_>]),
        search: &mut Search,
    ) {
        let segment = &*chunk.segment;
        let (Scratch { found, other, .. }, work) = (&mut search.scratch, &mut search.found.work);
        found.reset(segment.files());
        *work += first.insert_positions(number, segment, found);
        for cursor in others {
            other.reset(segment.files());
            *work += cursor.insert_positions(number, segment, other);
            found.intersect(other);
            if found.is_empty() {
                return;
            }
        }
        for cursor in excluded {
            if cursor.locate(number) {
                other.reset(segment.files());
                *work += cursor.insert_positions(number, segment, other);
                found.subtract(other);
            }
        }
        self.emit((slot, chunk.leaf), segment, &mut search.scratch, &search.limits, &mut search.found);
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

/// Where the positions of one word, prefix or list filter come from.
enum Source<'a> {
    /// A token.
    Token(Key, &'a str),
    /// All tokens that begin so; the key is that of their stem.
    Prefix(Key, &'a str),
    /// As [`Self::Prefix`], but too short for a stem: only ever beside another word of a phrase.
    ShortPrefix(&'a str),
    /// Any of several tokens.
    AnyOf(Vec<Key>),
}

impl<'a> Source<'a> {
    fn of_token(keys: Keys, token: &'a str, prefix: bool) -> Self {
        match (prefix, stem(token)) {
            (false, _) => Self::Token(keys.token(token.as_bytes()), token),
            (true, Some(stem)) => Self::Prefix(keys.stem(stem), token),
            (true, None) => Self::ShortPrefix(token),
        }
    }

    fn any_of(keys: Keys, tokens: impl Iterator<Item = String>) -> Self {
        Self::AnyOf(tokens.map(|token| keys.token(token.as_bytes())).collect())
    }
}

/// A list of chunks, read in ascending order.
struct Head<'a> {
    list: List<'a>,
    /// The first entry that was not passed.
    entry: Option<Entry>,
}

impl<'a> Head<'a> {
    fn new(mut list: List<'a>) -> Self {
        let entry = list.next();
        Self { list, entry }
    }

    /// Goes to the first entry not below that chunk, and returns its ordinal if it is of that chunk.
    #[inline]
    fn locate(&mut self, number: u32) -> Option<u32> {
        while self.entry.is_some_and(|entry| entry.number < number) {
            self.entry = self.list.next();
        }
        self.ordinal(number)
    }

    fn ordinal(&self, number: u32) -> Option<u32> {
        self.entry.filter(|entry| entry.number == number).map(|entry| entry.ordinal)
    }
}

/// A source in one run.
struct Cursor<'a> {
    source: &'a Source<'a>,
    head: Head<'a>,
    /// Further lists of [`Source::AnyOf`].
    heads: Vec<Head<'a>>,
    /// Bytes of the lists.
    length: usize,
    /// True if the lists are not read, and each segment is searched instead.
    searches: bool,
}

impl<'a> Cursor<'a> {
    fn new(source: &'a Source<'a>, run: &'a Run) -> Self {
        let empty = Head { list: List::default(), entry: None };
        let mut cursor = Self { source, head: empty, heads: Vec::new(), length: 0, searches: false };
        let mut head = |key: Key| {
            let list = run.words().get(key);
            cursor.length += list.bytes();
            Head::new(list)
        };
        match source {
            Source::Token(key, _) | Source::Prefix(key, _) => cursor.head = head(*key),
            Source::AnyOf(tokens) => cursor.heads = tokens.iter().map(|key| head(*key)).collect(),
            Source::ShortPrefix(_) => (cursor.length, cursor.searches) = (usize::MAX, true),
        }
        cursor
    }

    /// How long it takes to read. 0 if no chunk has any of it.
    const fn length(&self) -> usize {
        self.length
    }

    /// From now on searches segments if its list has more than that many bytes.
    fn search_segments_beyond(&mut self, bytes: usize) {
        self.searches |= self.length > bytes && !matches!(self.source, Source::AnyOf(_));
    }

    fn heads(&self) -> impl Iterator<Item = &Head<'a>> {
        std::iter::once(&self.head).chain(&self.heads)
    }

    /// The lowest chunk that was not passed.
    fn front(&self) -> Option<u32> {
        self.heads().filter_map(|head| head.entry).map(|entry| entry.number).min()
    }

    /// Passes that chunk, the front.
    fn pass(&mut self, number: u32) {
        for head in std::iter::once(&mut self.head).chain(&mut self.heads) {
            while head.entry.is_some_and(|entry| entry.number == number) {
                head.entry = head.list.next();
            }
        }
    }

    /// Goes to a chunk, not below the last one; false if the chunk certainly holds nothing of it.
    fn locate(&mut self, number: u32) -> bool {
        let first = self.searches || self.head.locate(number).is_some();
        self.heads.iter_mut().fold(first, |any, head| head.locate(number).is_some() | any)
    }

    /// Adds its positions in the located chunk, and returns the work that took.
    fn insert_positions(&self, number: u32, segment: &Segment, out: &mut Positions) -> u64 {
        match self.source {
            Source::Token(_, token) if self.searches => {
                segment.words.insert_token(token.as_bytes(), out);
                2
            }
            Source::Token(..) => insert_token(&self.head, number, segment, out),
            Source::Prefix(_, prefix) => insert_prefix(prefix, self.head.ordinal(number), segment, out),
            Source::ShortPrefix(prefix) => insert_prefix(prefix, None, segment, out),
            Source::AnyOf(_) => self.heads.iter().map(|head| insert_token(head, number, segment, out)).sum(),
        }
    }
}

fn insert_token(head: &Head<'_>, number: u32, segment: &Segment, out: &mut Positions) -> u64 {
    let Some(ordinal) = head.ordinal(number) else { return 0 };
    segment.words.insert_positions(ordinal, out);
    1
}

fn insert_prefix(prefix: &str, from: Option<u32>, segment: &Segment, out: &mut Positions) -> u64 {
    let walked = segment.words.insert_prefixed(prefix, from, out);
    1 + (walked / TOKENS_PER_WORK) as u64
}
