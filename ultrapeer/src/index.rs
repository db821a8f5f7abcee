//! The index of an ultrapeer: which files of which leaves match a query.
//!
//! Two levels. *Routes* lead from a token to the chunks that hold it; inside a chunk an immutable
//! *segment* leads from the token to its files, and holds all that an answer needs. A home's own leaves
//! and the digests of its shard go through the same structure.
//!
//! | module | what it is |
//! |---|---|
//! | `routes` | token -> chunks, the only part that changes in place |
//! | `segment`, `words`, `files` | a chunk: tokens with their files, and the files |
//! | `postings` | run-coded lists of file positions, sets of them |
//! | `lookup`, `fields` | a query's evaluation |
//! | [`rank`] | matches to contents, best first |
//!
//! **Updates.** Routes exist twice. Searches read one copy through an atomic pointer; the writer changes
//! the other, swaps them, and repeats the changes on the copy that searches have left. So a search never
//! waits and holds no lock, an update costs in proportion to the chunk's own tokens, whatever the size
//! of the index, and a search sees every change whole or not at all. (A persistent map would share the
//! copies, but copies a path of nodes for each of a chunk's hundreds of tokens; tombstones would leave
//! the cost to the searches.) Segments, the larger part, exist once.
//!
//! ```text
//!   add / remove ─> pending ─ publish ─> back copy ══ swap ══> front copy ─> Reader::snapshot ─> lookup
//!                                            ^── replayed once its last reader has left ──┘
//! ```

mod fields;
mod files;
mod lookup;
mod postings;
pub mod rank;
mod routes;
mod segment;
mod words;

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use arc_swap::ArcSwap;
use overlay::{
    id::ContentId,
    limits,
    query::{Query, TextToken},
};

use self::{
    files::FileCursor,
    routes::{Entry, Keys, Routes},
    words::{is_filter, stem},
};
pub use self::{
    files::{FileView, TagsView},
    lookup::{Lookup, Match},
    segment::{Segment, SegmentError},
};

/// A leaf, as the index's owner numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafSlot(pub u32);

/// A chunk in the index. Numbers of removed chunks are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkSlot(pub u32);

/// The writer. There is one; it owns no search.
#[derive(Debug)]
pub struct Index {
    front: Arc<ArcSwap<Snapshot>>,
    /// The copy that no new search sees; old ones may still read it.
    back: Arc<Snapshot>,
    /// What the front copy has and the back copy lacks.
    replay: Vec<Change>,
    /// What neither copy has.
    pending: Vec<Change>,
    /// Slots below `next` that are free, lowest first.
    free: BinaryHeap<Reverse<u32>>,
    next: u32,
}

#[derive(Clone, Debug)]
enum Change {
    Add { slot: ChunkSlot, chunk: Chunk },
    Remove { slot: ChunkSlot },
}

impl Index {
    /// An empty index. `secret` keeps others from choosing tokens that meet: a random number of this
    /// process; look-ups do not depend on it otherwise.
    pub fn new(secret: u64) -> Self {
        let empty =
            Snapshot { keys: Keys::new(secret), routes: Routes::default(), chunks: Vec::new(), held: Held::default() };
        Self {
            front: Arc::new(ArcSwap::from_pointee(empty.clone())),
            back: Arc::new(empty),
            replay: Vec::new(),
            pending: Vec::new(),
            free: BinaryHeap::new(),
            next: 0,
        }
    }

    /// Adds a chunk of a leaf; searches see it after [`Self::publish`].
    pub fn add(&mut self, leaf: LeafSlot, segment: Arc<Segment>) -> ChunkSlot {
        let slot = self.free.pop().map_or(self.next, |Reverse(slot)| slot);
        self.next = self.next.max(slot + 1);
        let slot = ChunkSlot(slot);
        self.pending.push(Change::Add { slot, chunk: Chunk { leaf, segment } });
        slot
    }

    /// Removes a chunk that [`Self::add`] named and that was not removed since; searches miss it after
    /// [`Self::publish`].
    pub fn remove(&mut self, slot: ChunkSlot) {
        debug_assert!(slot.0 < self.next, "a slot that was never given");
        self.free.push(Reverse(slot.0));
        self.pending.push(Change::Remove { slot });
    }

    /// Makes all changes since the last time visible at once. False if an old snapshot is still read:
    /// nothing is lost, call again soon. Once [`limits::INDEX_PENDING`] changes wait it no longer waits
    /// for that reader but copies the routes, so it always succeeds in the end.
    pub fn publish(&mut self) -> bool {
        if self.pending.is_empty() {
            self.catch_up();
            return true;
        }
        if !self.catch_up() {
            if self.pending.len() < limits::INDEX_PENDING {
                return false;
            }
            self.back = Arc::new(Snapshot::clone(&self.front.load()));
            self.replay.clear();
        }
        let Some(back) = Arc::get_mut(&mut self.back) else { return false };
        for change in &self.pending {
            back.apply(change);
        }
        self.back = self.front.swap(Arc::clone(&self.back));
        self.replay = std::mem::take(&mut self.pending);
        // Mostly nobody reads the old copy at this moment: then what was removed is freed at once.
        self.catch_up();
        true
    }

    /// Brings the back copy to the state of the front copy; false if it is still read.
    fn catch_up(&mut self) -> bool {
        let Some(back) = Arc::get_mut(&mut self.back) else { return false };
        for change in self.replay.drain(..) {
            back.apply(&change);
        }
        true
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
    /// The last published state; it does not change. Hold it for one search, not longer: the writer
    /// waits for it before the next but one publication.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }
}

/// Sizes of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files.
    pub files: u64,
    /// Distinct tokens, list filters and stems of prefixes among them.
    pub terms: u64,
    /// Chunks.
    pub segments: u64,
    /// Bytes on the heap by own accounting, both copies of the routes included.
    pub memory: u64,
    /// Bytes of `memory` that hold names, sizes, times, tags and content ids; the rest leads to them.
    pub file_memory: u64,
}

/// A state of the index.
#[derive(Clone, Debug)]
pub struct Snapshot {
    keys: Keys,
    routes: Routes,
    /// By slot.
    chunks: Vec<Option<Chunk>>,
    held: Held,
}

/// A segment and whose it is.
#[derive(Clone, Debug)]
struct Chunk {
    leaf: LeafSlot,
    segment: Arc<Segment>,
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
    /// looked at ([`limits::LOOKUP_WORK`] for an ordinary search). `now_s` is in seconds since 1970 UTC:
    /// ages are resolved against it.
    pub fn lookup(&self, query: &Query, now_s: i64, max_matches: usize, work_cap: u64) -> Lookup {
        lookup::lookup(self, query, now_s, max_matches, work_cap)
    }

    /// All files with that content, ascending by chunk and position.
    pub fn holders(&self, content: &ContentId) -> Vec<Match> {
        let chunks = self.chunks.iter().enumerate();
        let chunks = chunks.filter_map(|(slot, chunk)| Some((ChunkSlot(slot as u32), chunk.as_ref()?)));
        let mut matches = Vec::new();
        for (slot, chunk) in chunks {
            let files = chunk.segment.files.as_ref();
            let positions = files.into_iter().flat_map(|files| files.holding(content));
            matches.extend(positions.map(|position| Match { chunk: slot, position, leaf: chunk.leaf }));
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
        let copies = 2 * (self.routes.memory() + self.chunks.capacity() * size_of::<Option<Chunk>>());
        Stats {
            files: self.held.files,
            terms: self.routes.len() as u64,
            segments: self.held.segments,
            memory: self.held.memory + copies as u64,
            file_memory: self.held.file_memory,
        }
    }

    /// How much a word of a query says: more than 0, the higher the fewer chunks hold it.
    fn rarity(&self, token: &TextToken) -> f64 {
        let chunks = self.held.segments.max(1) as f64;
        let key = match (token.prefix, stem(&token.text)) {
            (false, _) => Some(self.keys.token(token.text.as_bytes())),
            (true, stem) => stem.map(|stem| self.keys.stem(stem)),
        };
        let holding = key.map_or(chunks, |key| self.routes.get(key).len().max(1) as f64);
        (1.0 + chunks / holding).ln()
    }

    fn chunk(&self, slot: ChunkSlot) -> Option<&Chunk> {
        self.chunks.get(slot.0 as usize)?.as_ref()
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Add { slot, chunk } => {
                let index = slot.0 as usize;
                if self.chunks.len() <= index {
                    self.chunks.resize(index + 1, None);
                }
                self.chunks[index] = Some(chunk.clone());
                self.held.add(&chunk.segment);
                let Self { keys, routes, .. } = self;
                each_key(*keys, &chunk.segment, |key, ordinal| routes.insert(key, Entry::new(slot.0, ordinal)));
            }
            Change::Remove { slot } => {
                let Some(chunk) = self.chunks.get_mut(slot.0 as usize).and_then(Option::take) else { return };
                self.held.subtract(&chunk.segment);
                let Self { keys, routes, .. } = self;
                each_key(*keys, &chunk.segment, |key, _| routes.remove(key, slot.0));
            }
        }
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

/// Calls `each` with the key of every token and every stem of a segment, each once, and its (first) ordinal.
fn each_key(keys: Keys, segment: &Segment, mut each: impl FnMut(routes::Key, u32)) {
    let mut last_stem = String::new();
    segment.words.each_token(|ordinal, token| {
        each(keys.token(token), ordinal);
        let word = std::str::from_utf8(token).ok().filter(|_| !is_filter(token));
        if let Some(stem) = word.and_then(stem).filter(|stem| *stem != last_stem) {
            each(keys.stem(stem), ordinal);
            last_stem.clear();
            last_stem.push_str(stem);
        }
    });
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
