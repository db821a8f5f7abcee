//! The index of an ultrapeer: which files of which leaves match a query.
//!
//! Chunks are put together in *runs*: the files of a run are numbered through, and its dictionary leads from each
//! token to the numbers of the files that hold it. The files themselves, all that an answer needs, stay with their
//! chunk. A home's own leaves and the digests of its shard go through the same structure.
//!
//! | module | what it is |
//! |---|---|
//! | `runs`, `merge` | groups of chunks, and how they are merged |
//! | `dictionary`, `postings` | token -> files: sorted tokens, run-coded lists that can be read from anywhere |
//! | `contents` | content -> files |
//! | `segment`, `collect`, `words`, `files` | a chunk before it is in a run: tokens with their positions; and its files |
//! | `lookup`, `sources`, `fields` | a query's evaluation |
//! | `alone` | chunks on their own, for standing queries |
//! | [`rank`] | matches to contents, best first |
//!
//! **Updates.** Everything that searches read is immutable and shared: a publication makes a new list of
//! runs and puts it in place through an atomic pointer. So a search never waits and holds no lock, sees
//! every change whole or not at all, and the writer waits for no search. An update costs in proportion to the
//! chunk's own tokens, whatever the size of the index: an addition writes a small run and its share of merging
//! it into larger ones, a removal a page of 64 chunks. Merging is put off until what changed is visible.
//!
//! ```text
//!   add ─> pending ─┐
//!                   ├─ publish ─> runs ══ swap ══> front ─> Reader::snapshot ─> lookup
//!   remove ─────────┘              └── settle: merged bit by bit
//! ```
//!
//! **Measured** (`bench/src/bin/index.rs`, a million real file names, one machine under load): words take 8.4 bytes
//! a file, 104,000 mixed look-ups a second with a p99 of 0.08 ms, 0.02 ms to remove 1,000 files. Words that stay in
//! their chunk, with routes from token to chunk, took 19.5 bytes, 27,000 a second, 0.36 ms and 0.24 ms in the same
//! hour: a candidate chunk costs four cache misses, and each chunk had its own copy of every token. A hash table in
//! two copies that take turns took 48.7 bytes and 1.6 ms for a removal.

mod alone;
mod collect;
mod contents;
mod dictionary;
mod fields;
mod files;
mod lookup;
mod merge;
mod postings;
pub mod rank;
mod runs;
mod segment;
mod sources;
mod words;

use std::sync::Arc;

use arc_swap::ArcSwap;
use overlay::{
    id::ContentId,
    query::{Query, TextToken},
};

pub use self::{
    alone::Key,
    files::{FileView, TagsView},
    lookup::{Lookup, Match, Scope},
    segment::{KeptSegment, Segment, SegmentError},
};
use self::{
    files::FileCursor,
    runs::{Chunk, Run, Runs},
};

/// A leaf, as the index's owner numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafSlot(pub u32);

/// A chunk in the index. Numbers ascend and are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSlot(pub u64);

/// The writer. There is one; it owns no search.
#[derive(Debug, Default)]
pub struct Index {
    front: Arc<ArcSwap<Snapshot>>,
    /// What is published, and removals that are not yet.
    runs: Runs,
    /// Additions that are not published.
    pending: Vec<(ChunkSlot, LeafSlot, Arc<Segment>)>,
    next: u64,
    removed: u64,
    held: Held,
}

impl Index {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a chunk of a leaf; searches see it after [`Self::publish`].
    pub fn add(&mut self, leaf: LeafSlot, segment: Arc<Segment>) -> ChunkSlot {
        let slot = ChunkSlot(self.next);
        self.next += 1;
        self.held.add(segment.files(), segment.file_memory(), segment.side.is_digest());
        self.pending.push((slot, leaf, segment));
        slot
    }

    /// Removes a chunk that [`Self::add`] named and that was not removed since; searches miss it after
    /// [`Self::publish`].
    pub fn remove(&mut self, slot: ChunkSlot) {
        let removed = match self.pending.binary_search_by_key(&slot, |(slot, ..)| *slot) {
            Ok(at) => {
                let (.., segment) = self.pending.remove(at);
                Some((segment.files(), segment.file_memory(), segment.side.is_digest()))
            }
            Err(_) => self.runs.remove(slot).map(|removed| (removed.files, removed.memory, removed.digest)),
        };
        debug_assert!(removed.is_some(), "a chunk that is not there");
        if let Some((files, memory, digest)) = removed {
            self.removed += 1;
            self.held.subtract(files, memory, digest);
        }
    }

    /// Chunks that were added and removed since it was made.
    pub const fn changes(&self) -> (u64, u64) {
        (self.next, self.removed)
    }

    /// Makes all changes since the last time visible at once.
    pub fn publish(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.runs.push(Run::build(&pending));
        }
        self.show();
    }

    /// Goes on with putting runs together, by about four times as much as was published since the last time; nothing
    /// that searches find changes. Call it after each publication: without it memory and searches grow.
    pub fn settle(&mut self) {
        if self.runs.merge() {
            self.show();
        }
    }

    fn show(&self) {
        self.front.store(Arc::new(Snapshot { runs: self.runs.snapshot(), held: self.held }));
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
    /// Files, without those of digests.
    pub files: u64,
    /// Files of digests.
    pub digest_files: u64,
    /// Tokens, list filters among them; one counts once for each run that has it, so frequent ones count several
    /// times.
    pub terms: u64,
    /// Chunks, digests among them.
    pub segments: u64,
    /// Chunks that are digests.
    pub digests: u64,
    /// Bytes on the heap by own accounting.
    pub memory: u64,
    /// Bytes of `memory` that hold names, sizes, times, tags and content ids or their keys, or lead from a content id to its
    /// files; the rest leads from words to them.
    pub file_memory: u64,
}

/// A state of the index.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Oldest first.
    runs: Box<[Arc<Run>]>,
    held: Held,
}

/// Tokens of a prefix that its rarity is taken from: more would make a rare word of none.
const RARITY_TOKENS: usize = 256;

/// Sums over all chunks: their files, they, and bytes of their files on the heap; and over those that are digests.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    files: u64,
    segments: u64,
    memory: u64,
    digest_files: u64,
    digests: u64,
}

impl Snapshot {
    /// The files that match, and the leaves whose digests say that they may have some. Of all leaves; see [`Scope`]
    /// for the rest.
    pub fn lookup(&self, query: &Query, now_s: i64, max_matches: usize, work_cap: u64) -> Lookup {
        self.lookup_within(query, Scope { now_s, max_matches, work_cap, leaves: None, known: None })
    }

    /// The same of the leaves that count in `scope`.
    pub fn lookup_within(&self, query: &Query, scope: Scope<'_>) -> Lookup {
        lookup::lookup(self, query, scope)
    }

    /// All files with that content, ascending by chunk and position.
    pub fn holders(&self, content: &ContentId) -> Vec<Match> {
        let in_run = |run: &'_ Arc<Run>| {
            let found = run.holders(content).filter_map(|(number, position)| {
                let (chunk, Chunk { leaf, .. }) = run.chunk(number)?;
                Some(Match { chunk, position, leaf: *leaf })
            });
            found.collect::<Vec<_>>()
        };
        self.runs.iter().flat_map(in_run).collect()
    }

    /// The content of a match of this snapshot. `None` if it is of a digest.
    pub fn content(&self, found: Match) -> Option<ContentId> {
        let files = self.chunk(found.chunk)?.side.files()?;
        files.contents().get(usize::from(found.position)).copied()
    }

    /// Reads the files behind matches of this snapshot.
    pub fn files(&self) -> FileReader<'_> {
        FileReader { snapshot: self, open: None, buffer: String::new() }
    }

    /// Sizes of this state.
    pub fn stats(&self) -> Stats {
        let runs = self.runs.iter();
        let (words, contents): (usize, usize) =
            runs.clone().fold((0, 0), |sum, run| (sum.0 + run.memory(), sum.1 + run.contents_memory()));
        Stats {
            files: self.held.files - self.held.digest_files,
            digest_files: self.held.digest_files,
            terms: runs.map(|run| run.words().len() as u64).sum(),
            segments: self.held.segments,
            digests: self.held.digests,
            memory: self.held.memory + (words + contents) as u64,
            file_memory: self.held.memory + contents as u64,
        }
    }

    /// How much a word of a query says: more than 0, the higher the fewer files hold it.
    fn rarity(&self, token: &TextToken) -> f64 {
        let text = token.text.as_bytes();
        let holding = self.runs.iter().map(|run| {
            let words = run.words();
            if token.prefix { words.holding_prefixed(text, RARITY_TOKENS) } else { words.holding(text) }
        });
        let (files, holding) = (self.held.files.max(1), holding.sum::<u64>());
        (1.0 + files as f64 / holding.clamp(1, files) as f64).ln()
    }

    fn chunk(&self, slot: ChunkSlot) -> Option<&Chunk> {
        let run = self.runs.partition_point(|run| run.first_slot() <= slot).checked_sub(1)?;
        self.runs[run].at(slot)
    }
}

impl Held {
    fn add(&mut self, files: usize, memory: usize, digest: bool) {
        self.files += files as u64;
        self.segments += 1;
        self.memory += memory as u64;
        if digest {
            self.digest_files += files as u64;
            self.digests += 1;
        }
    }

    fn subtract(&mut self, files: usize, memory: usize, digest: bool) {
        self.files -= files as u64;
        self.segments -= 1;
        self.memory -= memory as u64;
        if digest {
            self.digest_files -= files as u64;
            self.digests -= 1;
        }
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
            let files = snapshot.chunk(found.chunk)?.side.files()?;
            self.open = Some((found.chunk, FileCursor::new(files, std::mem::take(&mut self.buffer))));
        }
        self.open.as_mut()?.1.read(found.position)
    }
}

#[cfg(test)]
mod tests;
