//! Runs: groups of chunks that were added one after the other, each with routes of its own.
//!
//! What is added becomes a small run; neighbours of like size are merged, so there are few runs, and each
//! entry is written again a few times in its life. What is removed is taken off the run's list of chunks at
//! once, with all its memory but its routes, which searches pass over; they go with the next merge, at the
//! latest when half of a run is gone.
//!
//! ```text
//!   oldest  [ 4,000 chunks ][ 900 ][ 800 ][ 700 ][ 60 ][ 50 ][ 4 ][ 1 ][ 1 ]  newest
//!                           └── merged bit by bit ──┘
//! ```
//!
//! Invariants: chunks ascend in number within a run and from run to run; a run's routes never change, so
//! searches read them while others are made; merges go on by as much as was added or removed, so no update
//! waits for a large one.

use std::sync::Arc;

use super::{
    ChunkSlot, LeafSlot,
    routes::{CONTENT_BITS, Entry, GONE, Key, Keys, Merge, Table, WORD_BITS},
    segment::Segment,
    words::{is_filter, stem},
};

/// Chunks of a page: a removal copies one page and the list of pages.
const PAGE: usize = 64;
/// Runs that are merged at once: so often is an entry written again in each order of magnitude.
const MERGED: usize = 4;
/// Runs beyond which any neighbours are merged. Chosen: each costs a search a look at each of its words.
const RUNS: usize = 16;
/// Entries by which each merge under way goes on for each entry that is added: more than two, so that it ends
/// before as much again has come. A removed entry counts half.
const MERGE_PACE: usize = 4;

/// A segment and whose it is.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) leaf: LeafSlot,
    pub(super) segment: Arc<Segment>,
}

impl Chunk {
    /// Its tokens, and one for itself, so that a run without weight is one without chunks.
    fn weight(&self) -> usize {
        self.segment.tokens() + 1
    }
}

/// Chunks with their routes.
#[derive(Clone, Debug)]
pub(super) struct Run {
    routes: Arc<Routes>,
    pages: Vec<Arc<Page>>,
    /// Weight of the chunks that are gone.
    gone: usize,
}

type Page = [Option<Chunk>; PAGE];

/// What of a run never changes.
#[derive(Debug)]
struct Routes {
    words: Arc<Table>,
    contents: Arc<Table>,
    /// By number, ascending.
    slots: Arc<[ChunkSlot]>,
    /// Weight of all chunks.
    weight: usize,
}

impl Run {
    /// From chunks in ascending order, at least one.
    pub(super) fn build(keys: Keys, chunks: Vec<(ChunkSlot, Chunk)>) -> Self {
        let (mut words, mut contents) = (Vec::new(), Vec::new());
        for (number, (_, chunk)) in chunks.iter().enumerate() {
            let number = number as u32;
            each_key(keys, &chunk.segment, |key, ordinal| words.push((key, Entry { number, ordinal })));
            if let Some(files) = &chunk.segment.files {
                let ids = files.contents().iter().zip(0..);
                contents.extend(ids.map(|(id, ordinal)| (Key::content(&id.0), Entry { number, ordinal })));
            }
        }
        words.sort_unstable();
        contents.sort_unstable();
        let tables = (Table::build(&words, WORD_BITS), Table::build(&contents, CONTENT_BITS));
        let (slots, chunks): (Vec<_>, Vec<_>) = chunks.into_iter().unzip();
        let weight = chunks.iter().map(Chunk::weight).sum();
        Self::new(tables, slots, chunks.into_iter().map(Some).collect(), weight, 0)
    }

    fn new(
        (words, contents): (Table, Table),
        slots: Vec<ChunkSlot>,
        chunks: Vec<Option<Chunk>>,
        weight: usize,
        gone: usize,
    ) -> Self {
        let mut chunks = chunks.into_iter();
        let pages = (0..slots.len().div_ceil(PAGE)).map(|_| Arc::new(std::array::from_fn(|_| chunks.next().flatten())));
        let pages = pages.collect();
        let routes = Routes { words: Arc::new(words), contents: Arc::new(contents), slots: slots.into(), weight };
        Self { routes: Arc::new(routes), pages, gone }
    }

    /// Routes of words and stems.
    pub(super) fn words(&self) -> &Table {
        &self.routes.words
    }

    /// Routes of contents.
    pub(super) fn contents(&self) -> &Table {
        &self.routes.contents
    }

    /// The chunk with that number, and its slot; `None` if it is gone.
    pub(super) fn chunk(&self, number: u32) -> Option<(ChunkSlot, &Chunk)> {
        let chunk = self.pages.get(number as usize / PAGE)?[number as usize % PAGE].as_ref()?;
        Some((*self.routes.slots.get(number as usize)?, chunk))
    }

    /// Chunks that hold a token or a stem.
    pub(super) fn holding(&self, key: Key) -> usize {
        let list = self.words().get(key);
        if self.gone == 0 { list.count() } else { list.filter(|entry| self.chunk(entry.number).is_some()).count() }
    }

    /// The chunk in a slot.
    pub(super) fn at(&self, slot: ChunkSlot) -> Option<&Chunk> {
        let number = self.routes.slots.binary_search(&slot).ok()?;
        self.chunk(number as u32).map(|(_, chunk)| chunk)
    }

    /// Takes the chunk in a slot away.
    fn remove(&mut self, slot: ChunkSlot) -> Option<Chunk> {
        let number = self.routes.slots.binary_search(&slot).ok()?;
        let page = self.pages.get_mut(number / PAGE)?;
        page[number % PAGE].as_ref()?;
        let chunk = Arc::make_mut(page)[number % PAGE].take()?;
        self.gone += chunk.weight();
        Some(chunk)
    }

    /// The lowest slot of its chunks.
    pub(super) fn first_slot(&self) -> ChunkSlot {
        self.routes.slots[0]
    }

    /// Weight of the chunks that are there.
    fn live(&self) -> usize {
        self.routes.weight - self.gone
    }

    /// Bytes on the heap without segments and without routes of contents.
    pub(super) fn memory(&self) -> usize {
        let pages = self.pages.len() * (size_of::<Page>() + size_of::<Arc<Page>>());
        size_of::<Self>() + size_of::<Routes>() + self.words().memory() + size_of_val(&*self.routes.slots) + pages
    }
}

/// Calls `each` with the key of every token and every stem of a segment, each once, and its (first) ordinal.
fn each_key(keys: Keys, segment: &Segment, mut each: impl FnMut(Key, u32)) {
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

/// All runs, oldest first, and the merges under way.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Arc<Run>>,
    merges: Vec<Merging>,
}

/// A merge of neighbouring runs.
#[derive(Debug)]
struct Merging {
    /// The routes of the runs that are merged, which tell which ones these are, and the new numbers.
    sources: Vec<(Arc<Routes>, Arc<[u32]>)>,
    words: Merge,
    contents: Merge,
    /// Weight of the chunks that are taken over.
    weight: usize,
}

impl Runs {
    /// As they are now.
    pub(super) fn snapshot(&self) -> Box<[Arc<Run>]> {
        self.runs.iter().cloned().collect()
    }

    /// Adds the newest run.
    pub(super) fn push(&mut self, run: Run) {
        let weight = run.routes.weight;
        self.runs.push(Arc::new(run));
        self.merge(weight * MERGE_PACE);
    }

    /// Takes a chunk away.
    pub(super) fn remove(&mut self, slot: ChunkSlot) -> Option<Chunk> {
        let index = self.runs.partition_point(|run| run.first_slot() <= slot).checked_sub(1)?;
        let chunk = Arc::make_mut(&mut self.runs[index]).remove(slot)?;
        self.merge(chunk.weight() * MERGE_PACE / 2);
        Some(chunk)
    }

    /// Goes on with each merge, by about that many tokens.
    fn merge(&mut self, tokens: usize) {
        // A run of which nothing is left needs no merge.
        let merges = &self.merges;
        self.runs.retain(|run| run.live() > 0 || merges.iter().any(|merge| merge.has(run)));
        self.begin();
        // About two entries a token: its own, and those of stems and contents.
        let mut at = 0;
        while let Some(merge) = self.merges.get_mut(at) {
            let left = merge.words.step(2 * tokens);
            merge.contents.step(left);
            if merge.words.is_done() && merge.contents.is_done() {
                let merge = self.merges.swap_remove(at);
                self.end(merge);
                self.begin();
            } else {
                at += 1;
            }
        }
    }

    /// Begins the merges that are due.
    fn begin(&mut self) {
        while let Some(range) = self.due() {
            self.merges.push(Merging::new(&self.runs[range]));
        }
    }

    /// Neighbours that should be merged and are not yet: of like size, too much of them gone, or too many.
    fn due(&self) -> Option<std::ops::Range<usize>> {
        let busy: Vec<bool> = self.runs.iter().map(|run| self.merges.iter().any(|merge| merge.has(run))).collect();
        let idle = |range: &std::ops::Range<usize>| !busy[range.clone()].contains(&true);
        let live = |range: std::ops::Range<usize>| self.runs[range].iter().map(|run| run.live()).sum::<usize>();
        let windows = |length: usize| {
            let last = self.runs.len().checked_sub(length);
            last.into_iter().flat_map(move |last| (0..=last).rev().map(move |start| start..start + length))
        };
        let alike = |range: &std::ops::Range<usize>| {
            let largest = self.runs[range.clone()].iter().map(|run| run.live()).max().unwrap_or_default();
            largest * 2 <= live(range.clone())
        };
        let stale = |range: &std::ops::Range<usize>| self.runs[range.start].gone > self.runs[range.start].live();
        let due = windows(MERGED).find(|range| idle(range) && alike(range));
        let due = due.or_else(|| windows(1).find(|range| idle(range) && stale(range)));
        due.or_else(|| {
            let many = self.runs.len() > RUNS;
            windows(2).filter(|range| many && idle(range)).min_by_key(|range| live(range.clone()))
        })
    }

    /// Puts what was merged in the place of its runs. Chunks that went away meanwhile are passed over.
    fn end(&mut self, merge: Merging) {
        let Some(first) = self.runs.iter().position(|run| merge.has(run)) else { return };
        let range = first..first + merge.sources.len();
        let (mut slots, mut chunks, mut live) = (Vec::new(), Vec::new(), 0);
        for (run, (_, numbers)) in self.runs[range.clone()].iter().zip(&merge.sources) {
            for number in (0..).zip(numbers.iter()).filter(|(_, new)| **new != GONE).map(|(number, _)| number) {
                slots.push(run.routes.slots[number as usize]);
                let chunk = run.chunk(number).map(|(_, chunk)| chunk.clone());
                live += chunk.as_ref().map_or(0, Chunk::weight);
                chunks.push(chunk);
            }
        }
        let tables = (merge.words.finish(), merge.contents.finish());
        let run = Run::new(tables, slots, chunks, merge.weight, merge.weight - live);
        self.runs.splice(range, (live > 0).then(|| Arc::new(run)));
    }
}

impl Merging {
    fn new(runs: &[Arc<Run>]) -> Self {
        let mut next = 0;
        let mut numbers = |run: &Arc<Run>| -> Arc<[u32]> {
            let number = |number: usize| {
                let new = if run.chunk(number as u32).is_some() { next } else { GONE };
                next += u32::from(new != GONE);
                new
            };
            (0..run.routes.slots.len()).map(number).collect()
        };
        let sources: Vec<_> = runs.iter().map(|run| (Arc::clone(&run.routes), numbers(run))).collect();
        let tables = |table: fn(&Routes) -> &Arc<Table>| {
            sources.iter().map(move |(routes, numbers)| (Arc::clone(table(routes)), Arc::clone(numbers)))
        };
        let words = Merge::new(tables(|routes| &routes.words), WORD_BITS);
        let contents = Merge::new(tables(|routes| &routes.contents), CONTENT_BITS);
        Self { words, contents, weight: runs.iter().map(|run| run.live()).sum(), sources }
    }

    /// True if it takes that run in.
    fn has(&self, run: &Run) -> bool {
        self.sources.iter().any(|(routes, _)| Arc::ptr_eq(routes, &run.routes))
    }
}
