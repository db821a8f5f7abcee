//! From a query to the files that match it.
//!
//! Every term becomes one of three things. *Required* and *excluded* sources are answered by lists of files:
//! words, prefixes, extensions, kinds. *Checks* read the file itself: phrases, tags, comparisons; what a
//! positive check implies of words is required as well, so few files are read.
//!
//! ```text
//!   run after run:
//!   from a file on, each required source in turn says which span of its files comes next ─> spans that all have
//!     ─> less what the excluded ones have ─> less chunks that are gone ─> check each file ─> match
//! ```
//!
//! The source with the shortest list leads, the others follow by skipping. Unions are made when all words agree on a
//! first file: mostly that never happens in a run.
//!
//! Of a digest it only matters which of its files may match, for its home decides: its leaf becomes a *candidate*,
//! and the contents of those files are listed.
//!
//! Invariants: matches come in ascending order of (chunk, position), and every one fulfils the whole query; whose
//! digest may hold a match is a candidate, listed with all contents that may or with none; work is counted and ends
//! at the caller's cap.

use overlay::{
    id::ContentId,
    limits,
    query::{Condition, Query, Term, Text, TextTag},
    text::is_cjk,
    wire::mesh::ContentKey,
};
use rustc_hash::FxHashSet;

use super::{
    ChunkSlot, LeafSlot, Snapshot,
    collect::{extension_token, kind_token},
    fields::{FieldTokens, fields_of},
    files::{FileCursor, FileView},
    postings::END,
    runs::{Chunk, Run},
    segment::Side,
    sources::{Source, Union},
};

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
    /// Leaves whose digest says that some of their files may match: words and prefixes do, the rest is for a home to
    /// decide. Ascending, each once.
    pub candidates: Vec<LeafSlot>,
    /// Contents of the files of candidates that may match. Ascending, each once; of a candidate all or none: it has none
    /// if there are too many.
    pub listed: Vec<(LeafSlot, ContentKey)>,
    /// Matches that the caller knows already, as far as [`limits::LOOKUP_LISTED`] goes, ascending.
    pub known: Vec<(LeafSlot, ContentKey)>,
    /// True if work ended at its cap: there may be more matches and candidates.
    pub capped: bool,
    /// True if the caller's number of matches was reached: there may be more.
    pub full: bool,
    /// Work done, in steps from span to span of some 20 to 100 nanoseconds; a file that is checked counts
    /// [`limits::LOOKUP_FILE_WORK`].
    pub work: u64,
}

/// What a look-up is bounded by, and whose files it is about.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Seconds since 1970 UTC: ages are resolved against it.
    pub now_s: i64,
    /// Matches wanted, at most.
    pub max_matches: usize,
    /// Chunks, postings and files that may be looked at; [`limits::LOOKUP_WORK`] for an ordinary search.
    pub work_cap: u64,
    /// Leaves whose files count; `None`: all.
    pub leaves: Option<&'a dyn Fn(LeafSlot) -> bool>,
    /// Contents whose files are no matches, because the caller has them.
    pub known: Option<&'a FxHashSet<ContentKey>>,
}

impl std::fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope")
            .field("max_matches", &self.max_matches)
            .field("work_cap", &self.work_cap)
            .finish_non_exhaustive()
    }
}

/// Looks a query up. See [`Snapshot::lookup`].
pub(super) fn lookup(snapshot: &Snapshot, query: &Query, scope: Scope<'_>) -> Lookup {
    let plan = Plan::new(query);
    let mut search = Search {
        scope,
        digests: snapshot.held.digests > 0,
        path: String::new(),
        field: FieldTokens::default(),
        found: Lookup::default(),
        unlisted: FxHashSet::default(),
    };
    for run in &snapshot.runs {
        plan.search(run, &mut search);
        if search.ended() {
            break;
        }
    }
    let Search { mut found, unlisted, .. } = search;
    found.candidates.sort_unstable();
    found.candidates.dedup();
    found.listed.retain(|(leaf, _)| !unlisted.contains(leaf));
    for contents in [&mut found.listed, &mut found.known] {
        contents.sort_unstable();
        contents.dedup();
    }
    found
}

/// A look-up under way.
struct Search<'a> {
    scope: Scope<'a>,
    /// Whether there are digests to look at when no more matches are wanted.
    digests: bool,
    /// Memory that is kept from chunk to chunk.
    path: String,
    field: FieldTokens,
    found: Lookup,
    /// Candidates with contents that are not listed.
    unlisted: FxHashSet<LeafSlot>,
}

impl Search<'_> {
    /// Takes files of a digest. True if others of the same chunk are wanted as well.
    fn take_digest(&mut self, leaf: LeafSlot, keys: &[ContentKey]) -> bool {
        self.found.candidates.push(leaf);
        // With all matches that are wanted the search is over, so nobody asks what else there is.
        let room = if self.found.full { 0 } else { limits::LOOKUP_LISTED.saturating_sub(self.found.listed.len()) };
        if keys.len() > room {
            self.unlisted.insert(leaf);
            return false;
        }
        self.found.listed.extend(keys.iter().map(|key| (leaf, *key)));
        true
    }

    /// True if the caller has that content; notes whose it is.
    fn is_known(&mut self, leaf: LeafSlot, content: &ContentId) -> bool {
        let Some(known) = self.scope.known else { return false };
        let key = ContentKey::of(content);
        let is_known = known.contains(&key);
        if is_known && self.found.known.len() < limits::LOOKUP_LISTED {
            self.found.known.push((leaf, key));
        }
        is_known
    }

    /// Notes that a limit was reached, if one was. True if there is nothing more to do.
    fn is_over(&mut self) -> bool {
        self.found.full |= self.found.matches.len() >= self.scope.max_matches;
        self.found.capped |= !self.ended() && self.found.work >= self.scope.work_cap;
        self.ended()
    }

    /// True if a limit that was reached ends the look-up.
    fn ended(&self) -> bool {
        self.found.capped || (self.found.full && !self.digests)
    }

    /// True if files of the chunk may still be of use.
    fn wants(&self, chunk: &Chunk) -> bool {
        (chunk.side.is_digest() || !self.found.full) && self.scope.leaves.is_none_or(|counts| counts(chunk.leaf))
    }
}

/// What a term asks the dictionary for.
pub(super) enum Wanted<'a> {
    Token(&'a str),
    /// All words that begin so.
    Prefix(&'a str),
    /// Any of several tokens.
    AnyOf(Vec<String>),
}

/// A query, prepared.
pub(super) struct Plan<'a> {
    required: Vec<Wanted<'a>>,
    excluded: Vec<Wanted<'a>>,
    checks: Vec<&'a Term>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(query: &'a Query) -> Self {
        let mut plan = Self { required: Vec::new(), excluded: Vec::new(), checks: Vec::new() };
        for term in query.terms() {
            plan.add(term);
        }
        plan.checks.sort_by_key(|term| matches!(term.condition, Condition::Text(_) | Condition::Tag(..)));
        plan
    }

    /// What every file that matches holds.
    pub(super) fn required(&self) -> &[Wanted<'a>] {
        &self.required
    }

    fn add(&mut self, term: &'a Term) {
        let (words, exact) = match &term.condition {
            Condition::Text(words) => (Some(words), words.tokens().len() == 1),
            Condition::Tag(_, words) => (Some(words), false),
            Condition::Extension(list) => {
                return self.want(term.negated, Wanted::AnyOf(list.iter().map(|item| extension_token(item)).collect()));
            }
            Condition::Kind(list) => {
                return self.want(term.negated, Wanted::AnyOf(list.iter().map(|kind| kind_token(*kind)).collect()));
            }
            _ => (None, false),
        };
        if !exact {
            self.checks.push(term);
        }
        for token in words.filter(|_| exact || !term.negated).into_iter().flat_map(Text::tokens) {
            match token.prefix {
                false => self.want(term.negated, Wanted::Token(&token.text)),
                // Stands beside another word, and half of all words may begin with it: left to the check.
                true if is_short(&token.text) => {}
                true => self.want(term.negated, Wanted::Prefix(&token.text)),
            }
        }
    }

    fn want(&mut self, negated: bool, wanted: Wanted<'a>) {
        if negated { self.excluded.push(wanted) } else { self.required.push(wanted) }
    }

    /// Appends the matches of a run.
    fn search(&'a self, run: &'a Run, search: &mut Search<'_>) {
        let Some(mut sources) = Sources::open(self, run, search) else { return };
        let mut place = Place::new(run, std::mem::take(&mut search.path));
        let mut from = 0;
        while let Some(span) = sources.next(from, search)
            && !search.is_over()
        {
            from = self.take(&mut sources, &mut place, span, search);
        }
        search.path = place.into_buffer();
    }

    /// Appends those of a span of files that are not excluded, not gone and pass the checks. Returns where to go on.
    fn take(&self, sources: &mut Sources<'_>, place: &mut Place<'_>, span: (u32, u32), search: &mut Search<'_>) -> u32 {
        let (mut from, end) = span;
        while from < end {
            let chunk_end = place.go_to(from);
            let Some(chunk) = place.chunk.filter(|(_, chunk)| search.wants(chunk)) else {
                from = chunk_end;
                continue;
            };
            let (free, until) = sources.not_excluded(from, end.min(chunk_end));
            from = until.max(free);
            let leaf = chunk.1.leaf;
            let files = match &chunk.1.side {
                Side::Own(files) => files,
                Side::Digest(keys) => {
                    let span = (free - place.start) as usize..(until - place.start) as usize;
                    let keys = keys.get(span).unwrap_or_default();
                    if !keys.is_empty() && !search.take_digest(leaf, keys) {
                        from = chunk_end;
                    }
                    continue;
                }
            };
            for file in free..until {
                if search.is_over() || search.found.full {
                    return chunk_end;
                }
                let position = (file - place.start) as u16;
                if self.passes(place, file, search)
                    && !files.contents().get(usize::from(position)).is_some_and(|id| search.is_known(leaf, id))
                {
                    search.found.matches.push(Match { chunk: chunk.0, position, leaf });
                }
            }
        }
        from
    }

    /// True if a file of the chunk that `place` is at passes the checks.
    fn passes(&self, place: &mut Place<'_>, file: u32, search: &mut Search<'_>) -> bool {
        if self.checks.is_empty() {
            return true;
        }
        let start = place.start;
        let Some(cursor) = place.cursor() else { return true };
        search.found.work += limits::LOOKUP_FILE_WORK;
        let Search { field, scope: Scope { now_s, .. }, .. } = search;
        let passes = |file: FileView<'_>| {
            self.checks.iter().all(|term| holds(&term.condition, &file, *now_s, field) != term.negated)
        };
        cursor.read((file - start) as u16).is_some_and(passes)
    }
}

/// The sources of a query in one run.
struct Sources<'a> {
    run: &'a Run,
    required: Vec<Source<'a>>,
    /// Prefixes among the required that were not opened yet.
    closed: Vec<&'a str>,
    excluded: Vec<Source<'a>>,
}

impl<'a> Sources<'a> {
    /// `None` if nothing of the run can match.
    fn open(plan: &'a Plan<'_>, run: &'a Run, search: &mut Search<'_>) -> Option<Self> {
        let words = run.words();
        let (mut required, mut closed) = (Vec::with_capacity(plan.required.len()), Vec::new());
        for wanted in &plan.required {
            match wanted {
                Wanted::Token(token) => {
                    let list = words.get(token.as_bytes())?;
                    required.push((list.bytes(), Source::List(list)));
                }
                Wanted::AnyOf(tokens) => {
                    let union = Union::of_tokens(words, tokens);
                    if union.is_empty() {
                        return None;
                    }
                    required.push((union.bytes(), Source::Union(union)));
                }
                Wanted::Prefix(prefix) => closed.push(*prefix),
            }
        }
        required.sort_unstable_by_key(|(bytes, _)| *bytes);
        let required = required.into_iter().map(|(_, source)| source).collect();
        let mut sources = Self { run, required, closed, excluded: Vec::new() };
        if sources.required.is_empty() && !sources.open_prefixes(search) {
            return None;
        }
        for wanted in &plan.excluded {
            sources.exclude(wanted, search)?;
        }
        Some(sources)
    }

    fn exclude(&mut self, wanted: &'a Wanted<'_>, search: &mut Search<'_>) -> Option<()> {
        let words = self.run.words();
        match wanted {
            Wanted::Token(token) => self.excluded.extend(words.get(token.as_bytes()).map(Source::List)),
            Wanted::AnyOf(tokens) => self.excluded.push(Source::Union(Union::of_tokens(words, tokens))),
            Wanted::Prefix(prefix) => self.excluded.push(self.prefixed(prefix, search)?),
        }
        Some(())
    }

    /// Opens what was not opened yet; false if nothing of the run can match.
    fn open_prefixes(&mut self, search: &mut Search<'_>) -> bool {
        for prefix in std::mem::take(&mut self.closed) {
            match self.prefixed(prefix, search) {
                Some(Source::Union(union)) if union.is_empty() => return false,
                Some(source) => self.required.push(source),
                None => return false,
            }
        }
        true
    }

    /// `None` if that would be too much work, which is noted.
    fn prefixed(&self, prefix: &'a str, search: &mut Search<'_>) -> Option<Source<'a>> {
        let (work, work_cap) = (&mut search.found.work, search.scope.work_cap);
        let union = Union::of_prefix(self.run.words(), prefix.as_bytes(), self.run.files(), work, work_cap);
        search.found.capped |= union.is_none();
        union.map(Source::Union)
    }

    /// The next span from `from` on that all required sources have.
    fn next(&mut self, mut from: u32, search: &mut Search<'_>) -> Option<(u32, u32)> {
        'again: while search.found.work < search.scope.work_cap {
            let (first, others) = self.required.split_first_mut()?;
            search.found.work += 1;
            let (start, mut end) = first.seek(from);
            if start == END {
                return None;
            }
            from = from.max(start);
            for source in others {
                let (start, until) = source.seek(from);
                if start >= end {
                    if start == END {
                        return None;
                    }
                    from = start;
                    continue 'again;
                }
                (from, end) = (from.max(start), end.min(until));
            }
            if self.closed.is_empty() {
                return Some((from, end));
            }
            if !self.open_prefixes(search) {
                return None;
            }
        }
        search.found.capped = true;
        None
    }

    /// The first part of a span that no excluded source has; empty if there is none.
    fn not_excluded(&mut self, mut from: u32, mut end: u32) -> (u32, u32) {
        'again: loop {
            for source in &mut self.excluded {
                let (start, until) = source.seek(from);
                if start <= from && from < end {
                    from = until;
                    continue 'again;
                }
                end = end.min(start);
            }
            return (from, end.max(from));
        }
    }
}

/// The chunk that a look-up is at.
struct Place<'a> {
    run: &'a Run,
    number: u32,
    /// Its first file, and the end of its files; nothing at first.
    start: u32,
    end: u32,
    /// `None` if it is gone.
    chunk: Option<(ChunkSlot, &'a Chunk)>,
    cursor: Option<FileCursor<'a>>,
    path: String,
}

impl<'a> Place<'a> {
    /// `path` is a buffer whose memory is kept.
    fn new(run: &'a Run, path: String) -> Self {
        Self { run, number: 0, start: 0, end: 0, chunk: None, cursor: None, path }
    }

    /// Goes to the chunk of a file, which is not below the last one, and returns the end of its files.
    fn go_to(&mut self, file: u32) -> u32 {
        if file >= self.end {
            self.number = self.run.chunk_of(file, self.number);
            (self.start, self.end) = (self.run.start(self.number), self.run.start(self.number + 1));
            self.chunk = self.run.chunk(self.number);
            self.close();
        }
        self.end
    }

    /// Reads files of the chunk; `None` if it came as a digest.
    fn cursor(&mut self) -> Option<&mut FileCursor<'a>> {
        if self.cursor.is_none() {
            let files = self.chunk?.1.side.files()?;
            self.cursor = Some(FileCursor::new(files, std::mem::take(&mut self.path)));
        }
        self.cursor.as_mut()
    }

    fn close(&mut self) {
        if let Some(cursor) = self.cursor.take() {
            self.path = cursor.into_buffer();
        }
    }

    fn into_buffer(mut self) -> String {
        self.close();
        self.path
    }
}

/// True if a prefix cannot be asked for on its own.
fn is_short(prefix: &str) -> bool {
    prefix.chars().count() < limits::PREFIX_CHARS && !prefix.starts_with(is_cjk)
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
