//! The index of an ultrapeer: which files of which leaves match a query.
//!
//! Two levels. *Routes* lead from a token to the chunks that hold it; inside a chunk an immutable
//! *segment* leads from the token to its files, and holds all that an answer needs. A home's own leaves
//! and the digests of its shard go through the same structure.
//!
//! | module | what it is |
//! |---|---|
//! | `runs` | groups of chunks with their routes, and how they are merged |
//! | `routes` | token -> chunks, content -> files: immutable tables |
//! | `segment`, `words`, `files` | a chunk: tokens with their files, and the files |
//! | `postings` | run-coded lists of file positions, sets of them |
//! | `lookup`, `fields` | a query's evaluation |
//! | [`rank`] | matches to contents, best first |
//!
//! **Updates.** Everything that searches read is immutable and shared: a publication makes a new list of
//! runs and puts it in place through an atomic pointer. So a search never waits and holds no lock, sees
//! every change whole or not at all, and the writer waits for no search. An update costs in proportion to the
//! chunk's own tokens, whatever the size of the index: an addition writes a small run and its share of merging
//! it into larger ones, a removal a page of 64 chunks. A hash table in two copies that take
//! turns, measured on the same million files, answered no faster, took 48.7 bytes a file for words and routes
//! instead of 19.5, and an update changed it in a thousand places, twice: 1.6 ms for removing 1,000 files
//! instead of 0.1 to 0.25 (`bench/src/bin/index.rs`, on a machine at ten times its load).
//!
//! ```text
//!   add ─> pending ─┐
//!                   ├─ publish ─> runs ══ swap ══> front ─> Reader::snapshot ─> lookup
//!   remove ─────────┘              └── merged bit by bit
//! ```

mod fields;
mod files;
mod lookup;
mod postings;
pub mod rank;
mod routes;
mod runs;
mod segment;
mod words;

use std::sync::Arc;

use arc_swap::ArcSwap;
use overlay::{
    id::ContentId,
    query::{Query, TextToken},
};

use self::{
    files::FileCursor,
    routes::{Key, Keys},
    runs::{Chunk, Run, Runs},
    words::stem,
};
pub use self::{
    files::{FileView, TagsView},
    lookup::{Lookup, Match},
    segment::{Segment, SegmentError},
};

/// A leaf, as the index's owner numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafSlot(pub u32);

/// A chunk in the index. Numbers ascend and are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSlot(pub u64);

/// The writer. There is one; it owns no search.
#[derive(Debug)]
pub struct Index {
    front: Arc<ArcSwap<Snapshot>>,
    keys: Keys,
    /// What is published, and removals that are not yet.
    runs: Runs,
    /// Additions that are not published.
    pending: Vec<(ChunkSlot, Chunk)>,
    next: u64,
    held: Held,
}

impl Index {
    /// An empty index. `secret` keeps others from choosing tokens that meet: a random number of this
    /// process; look-ups do not depend on it otherwise.
    pub fn new(secret: u64) -> Self {
        let keys = Keys::new(secret);
        let empty = Snapshot { keys, runs: Box::default(), held: Held::default() };
        Self {
            front: Arc::new(ArcSwap::from_pointee(empty)),
            keys,
            runs: Runs::default(),
            pending: Vec::new(),
            next: 0,
            held: Held::default(),
        }
    }

    /// Adds a chunk of a leaf; searches see it after [`Self::publish`].
    pub fn add(&mut self, leaf: LeafSlot, segment: Arc<Segment>) -> ChunkSlot {
        let slot = ChunkSlot(self.next);
        self.next += 1;
        self.held.add(&segment);
        self.pending.push((slot, Chunk { leaf, segment }));
        slot
    }

    /// Removes a chunk that [`Self::add`] named and that was not removed since; searches miss it after
    /// [`Self::publish`].
    pub fn remove(&mut self, slot: ChunkSlot) {
        let pending = self.pending.binary_search_by_key(&slot, |(slot, _)| *slot);
        let removed = match pending {
            Ok(at) => Some(self.pending.remove(at).1),
            Err(_) => self.runs.remove(slot),
        };
        debug_assert!(removed.is_some(), "a chunk that is not there");
        if let Some(chunk) = removed {
            self.held.subtract(&chunk.segment);
        }
    }

    /// Makes all changes since the last time visible at once.
    pub fn publish(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.runs.push(Run::build(self.keys, pending));
        }
        self.front.store(Arc::new(Snapshot { keys: self.keys, runs: self.runs.snapshot(), held: self.held }));
    }

    /// A handle for searches.
    pub fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.front))
    }

    /// What is published.
    pub fn stats(&self) -> Stats {
        self.front.load().stats()
    }
}

/// Gives searches the current state. Cheap to clone, usable from every thread.
#[derive(Clone, Debug)]
pub struct Reader(Arc<ArcSwap<Snapshot>>);

impl Reader {
    /// The last published state; it does not change. Hold it for one search, not longer: it keeps what was
    /// removed since.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}

/// Sizes of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files.
    pub files: u64,
    /// Tokens, list filters and stems of prefixes among them; one counts once for each run that has it, so
    /// frequent ones count several times.
    pub terms: u64,
    /// Chunks.
    pub segments: u64,
    /// Bytes on the heap by own accounting.
    pub memory: u64,
    /// Bytes of `memory` that hold names, sizes, times, tags and content ids, or lead from a content id to its
    /// files; the rest leads from words to them.
    pub file_memory: u64,
}

/// A state of the index.
#[derive(Clone, Debug)]
pub struct Snapshot {
    keys: Keys,
    /// Oldest first.
    runs: Box<[Arc<Run>]>,
    held: Held,
}

/// Sums over all chunks.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    files: u64,
    segments: u64,
    memory: u64,
    file_memory: u64,
}

impl Snapshot {
    /// The files that match, until there are `max_matches`, or `work_cap` chunks, postings and files were
    /// looked at ([`overlay::limits::LOOKUP_WORK`] for an ordinary search). `now_s` is in seconds since 1970 UTC:
    /// ages are resolved against it.
    pub fn lookup(&self, query: &Query, now_s: i64, max_matches: usize, work_cap: u64) -> Lookup {
        lookup::lookup(self, query, now_s, max_matches, work_cap)
    }

    /// All files with that content, ascending by chunk and position.
    pub fn holders(&self, content: &ContentId) -> Vec<Match> {
        let mut matches = Vec::new();
        for run in &self.runs {
            for entry in run.contents().get(Key::content(&content.0)) {
                let Some((chunk, Chunk { leaf, segment })) = run.chunk(entry.number) else { continue };
                let held = segment.files.as_ref().and_then(|files| files.contents().get(entry.ordinal as usize));
                if held == Some(content) {
                    matches.push(Match { chunk, position: entry.ordinal as u16, leaf: *leaf });
                }
            }
        }
        matches
    }

    /// Reads the files behind matches of this snapshot.
    pub fn files(&self) -> FileReader<'_> {
        FileReader { snapshot: self, open: None, buffer: String::new() }
    }

    /// The segment of a chunk.
    pub fn segment(&self, slot: ChunkSlot) -> Option<&Arc<Segment>> {
        self.chunk(slot).map(|chunk| &chunk.segment)
    }

    /// Sizes of this state.
    pub fn stats(&self) -> Stats {
        let runs = self.runs.iter();
        let (words, contents): (usize, usize) =
            runs.clone().fold((0, 0), |sum, run| (sum.0 + run.memory(), sum.1 + run.contents().memory()));
        Stats {
            files: self.held.files,
            terms: runs.map(|run| run.words().len() as u64).sum(),
            segments: self.held.segments,
            memory: self.held.memory + (words + contents) as u64,
            file_memory: self.held.file_memory + contents as u64,
        }
    }

    /// How much a word of a query says: more than 0, the higher the fewer chunks hold it.
    fn rarity(&self, token: &TextToken) -> f64 {
        let chunks = self.held.segments.max(1) as f64;
        let key = match (token.prefix, stem(&token.text)) {
            (false, _) => Some(self.keys.token(token.text.as_bytes())),
            (true, stem) => stem.map(|stem| self.keys.stem(stem)),
        };
        let holding = |key| self.runs.iter().map(|run| run.holding(key)).sum::<usize>().max(1) as f64;
        let holding = key.map_or(chunks, holding);
        (1.0 + chunks / holding).ln()
    }

    fn chunk(&self, slot: ChunkSlot) -> Option<&Chunk> {
        let run = self.runs.partition_point(|run| run.first_slot() <= slot).checked_sub(1)?;
        self.runs[run].at(slot)
    }
}

impl Held {
    fn add(&mut self, segment: &Segment) {
        self.files += segment.files() as u64;
        self.segments += 1;
        self.memory += (size_of::<Segment>() + segment.memory()) as u64;
        self.file_memory += segment.file_memory() as u64;
    }

    fn subtract(&mut self, segment: &Segment) {
        self.files -= segment.files() as u64;
        self.segments -= 1;
        self.memory -= (size_of::<Segment>() + segment.memory()) as u64;
        self.file_memory -= segment.file_memory() as u64;
    }
}

/// Reads files of a snapshot; cheapest in the order of [`Lookup::matches`].
#[derive(Debug)]
pub struct FileReader<'a> {
    snapshot: &'a Snapshot,
    open: Option<(ChunkSlot, FileCursor<'a>)>,
    buffer: String,
}

impl<'a> FileReader<'a> {
    /// The file behind a match. `None` if it is of a digest, or not of this snapshot.
    pub fn read(&mut self, found: Match) -> Option<FileView<'_>> {
        if self.open.as_ref().is_none_or(|(slot, _)| *slot != found.chunk) {
            if let Some((_, cursor)) = self.open.take() {
                self.buffer = cursor.into_buffer();
            }
            let snapshot: &'a Snapshot = self.snapshot;
            let files = snapshot.chunk(found.chunk)?.segment.files.as_ref()?;
            self.open = Some((found.chunk, FileCursor::new(files, std::mem::take(&mut self.buffer))));
        }
        self.open.as_mut()?.1.read(found.position)
    }
}

#[cfg(test)]
mod tests;
