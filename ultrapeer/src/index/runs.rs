//! Runs: groups of chunks that were added one after the other, each with a dictionary of its own.
//!
//! The files of a run are numbered through, chunk after chunk, in the order of their paths. What is added becomes a
//! small run; neighbours of like size are merged, so there are few runs, and each entry is written again a few times
//! in its life. What is removed is taken off the run's list of chunks at once, with all its files; its entries in
//! the dictionary, which searches pass over, go with the next merge, at the latest when half of a run is gone.
//!
//! ```text
//!   oldest  [ 4,000 chunks ][ 900 ][ 800 ][ 700 ][ 60 ][ 50 ][ 4 ][ 1 ][ 1 ]  newest
//!                           └── merged bit by bit ──┘
//! ```
//!
//! Invariants: chunks ascend in number within a run and from run to run; a run's dictionary never changes, so
//! searches read it while others are made; merges go on by as much as was added or removed, so no update
//! waits for a large one.

use std::sync::Arc;

use overlay::id::ContentId;

use super::{
    ChunkSlot, LeafSlot,
    contents::{self, Contents},
    dictionary::{self, Dictionary},
    merge::Merging,
    segment::{Segment, Side},
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

/// A chunk whose words are in a run.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) leaf: LeafSlot,
    pub(super) side: Side,
    /// Entries it makes: spans of positions, contents, and one for itself, so that a run without weight is one
    /// without chunks.
    weight: u32,
}

impl Chunk {
    fn new(leaf: LeafSlot, segment: &Segment) -> Self {
        let contents = segment.side.files().map_or(0, |_| segment.files());
        let weight = (segment.words.spans() + contents + 1) as u32;
        Self { leaf, side: segment.side.clone(), weight }
    }

    pub(super) const fn weight(&self) -> usize {
        self.weight as usize
    }
}

/// What went away with a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Removed {
    pub(super) files: usize,
    /// Bytes on the heap of its files.
    pub(super) memory: usize,
    /// True if it was a digest.
    pub(super) digest: bool,
    weight: usize,
}

/// Chunks with their words.
#[derive(Clone, Debug)]
pub(super) struct Run {
    fixed: Arc<Fixed>,
    pages: Vec<Arc<Page>>,
    /// Weight of the chunks that are gone.
    gone: usize,
}

type Page = [Option<Chunk>; PAGE];

/// What of a run never changes.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) words: Dictionary,
    pub(super) contents: Contents,
    /// By number, ascending.
    pub(super) slots: Box<[ChunkSlot]>,
    /// The first file of each chunk, and the end of the last one.
    pub(super) starts: Box<[u32]>,
    /// Weight of all chunks.
    pub(super) weight: usize,
}

impl Run {
    /// From segments in ascending order of their slots, at least one.
    pub(super) fn build(added: &[(ChunkSlot, LeafSlot, Arc<Segment>)]) -> Self {
        let mut starts = vec![0];
        let mut contents = Vec::new();
        for (.., segment) in added {
            let start = starts[starts.len() - 1];
            if let Some(files) = segment.side.files() {
                contents.extend((start..).zip(files.contents()).map(|(file, id)| contents::sortable(id, file)));
            }
            starts.push(start + segment.files() as u32);
        }
        contents.sort_unstable();
        let contents = Contents::build(&contents, starts[added.len()]);
        let chunks: Vec<_> = added.iter().map(|(_, leaf, segment)| Some(Chunk::new(*leaf, segment))).collect();
        let weight = chunks.iter().flatten().map(Chunk::weight).sum();
        let words = build_dictionary(added, &starts);
        let slots = added.iter().map(|(slot, ..)| *slot).collect();
        Self::new(Fixed { words, contents, slots, starts: starts.into(), weight }, chunks)
    }

    /// Those of the chunks that are there.
    pub(super) fn new(fixed: Fixed, chunks: Vec<Option<Chunk>>) -> Self {
        let gone = fixed.weight - chunks.iter().flatten().map(Chunk::weight).sum::<usize>();
        let mut chunks = chunks.into_iter();
        let page = |_| Arc::new(std::array::from_fn(|_| chunks.next().flatten()));
        let pages = (0..fixed.slots.len().div_ceil(PAGE)).map(page).collect();
        Self { fixed: Arc::new(fixed), pages, gone }
    }

    /// Tokens with their files.
    pub(super) fn words(&self) -> &Dictionary {
        &self.fixed.words
    }

    /// Files that perhaps have a content: chunk, position and leaf.
    pub(super) fn holders(&self, content: &ContentId) -> impl Iterator<Item = (u32, u16)> {
        let holds = move |number: u32, position: u16| {
            let files = self.chunk(number)?.1.side.files()?;
            files.contents().get(usize::from(position)).filter(|held| *held == content)
        };
        self.fixed.contents.get(content).filter_map(move |file| {
            let number = self.chunk_of(file, 0);
            let position = (file - self.start(number)) as u16;
            holds(number, position).map(|_| (number, position))
        })
    }

    /// The number of the chunk that a file is in; at least `from`.
    pub(super) fn chunk_of(&self, file: u32, from: u32) -> u32 {
        let ends = &self.fixed.starts[from as usize + 1..];
        // Mostly it is not far.
        let mut reach = 1;
        while ends.get(reach).is_some_and(|end| *end <= file) {
            reach *= 2;
        }
        let (sure, limit) = (reach / 2, (reach + 1).min(ends.len()));
        from + (sure + ends[sure..limit].partition_point(|end| *end <= file)) as u32
    }

    /// The first file of a chunk.
    pub(super) fn start(&self, number: u32) -> u32 {
        self.fixed.starts[number as usize]
    }

    /// The chunk with that number, and its slot; `None` if it is gone.
    pub(super) fn chunk(&self, number: u32) -> Option<(ChunkSlot, &Chunk)> {
        let chunk = self.pages.get(number as usize / PAGE)?[number as usize % PAGE].as_ref()?;
        Some((*self.fixed.slots.get(number as usize)?, chunk))
    }

    /// The chunk in a slot.
    pub(super) fn at(&self, slot: ChunkSlot) -> Option<&Chunk> {
        let number = self.fixed.slots.binary_search(&slot).ok()?;
        self.chunk(number as u32).map(|(_, chunk)| chunk)
    }

    /// Files of all chunks, also of those that are gone.
    pub(super) fn files(&self) -> u32 {
        self.start(self.fixed.slots.len() as u32)
    }

    /// Takes the chunk in a slot away.
    fn remove(&mut self, slot: ChunkSlot) -> Option<Removed> {
        let number = self.fixed.slots.binary_search(&slot).ok()?;
        let page = self.pages.get_mut(number / PAGE)?;
        page[number % PAGE].as_ref()?;
        let chunk = Arc::make_mut(page)[number % PAGE].take()?;
        self.gone += chunk.weight();
        let files = (self.start(number as u32 + 1) - self.start(number as u32)) as usize;
        let (memory, digest) = (chunk.side.memory(), chunk.side.is_digest());
        Some(Removed { files, memory, digest, weight: chunk.weight() })
    }

    /// The lowest slot of its chunks.
    pub(super) fn first_slot(&self) -> ChunkSlot {
        self.fixed.slots[0]
    }

    pub(super) const fn fixed(&self) -> &Arc<Fixed> {
        &self.fixed
    }

    /// Weight of the chunks that are there.
    pub(super) fn live(&self) -> usize {
        self.fixed.weight - self.gone
    }

    /// Bytes on the heap without files and without contents.
    pub(super) fn memory(&self) -> usize {
        let Fixed { words, slots, starts, .. } = &*self.fixed;
        let pages = self.pages.len() * (size_of::<Page>() + size_of::<Arc<Page>>());
        size_of::<Self>() + size_of::<Fixed>() + words.memory() + size_of_val(&**slots) + size_of_val(&**starts) + pages
    }

    /// Bytes on the heap that lead from a content to its files.
    pub(super) fn contents_memory(&self) -> usize {
        self.fixed.contents.memory()
    }
}

/// The dictionary of chunks whose first files are `starts`.
fn build_dictionary(added: &[(ChunkSlot, LeafSlot, Arc<Segment>)], starts: &[u32]) -> Dictionary {
    let mut builder = dictionary::Builder::default();
    if let [(.., segment)] = added {
        segment.words.each_token(|token, positions| builder.copy_token(token, positions));
        return builder.finish();
    }
    // Tokens of all chunks in one buffer; equal ones in the order of their chunks, which is that of their places.
    let mut text = Vec::new();
    let mut entries = Vec::new();
    for ((.., segment), first) in added.iter().zip(starts) {
        segment.words.each_token(|token, positions| {
            let start = text.len();
            text.extend_from_slice(token);
            entries.push((start..text.len(), positions, *first));
        });
    }
    entries.sort_unstable_by(|(a, ..), (b, ..)| text[a.clone()].cmp(&text[b.clone()]).then(a.start.cmp(&b.start)));
    for group in entries.chunk_by(|(a, ..), (b, ..)| text[a.clone()] == text[b.clone()]) {
        for (_, positions, first) in group {
            positions.clone().for_each(|(start, end)| builder.push(first + start, first + end));
        }
        builder.end_token(&text[group[0].0.clone()]);
    }
    builder.finish()
}

/// All runs, oldest first, and the merges under way.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Arc<Run>>,
    merges: Vec<Merging>,
    /// Entries by which merges should go on.
    owed: usize,
}

impl Runs {
    /// As they are now.
    pub(super) fn snapshot(&self) -> Box<[Arc<Run>]> {
        self.runs.iter().cloned().collect()
    }

    /// Adds the newest run.
    pub(super) fn push(&mut self, run: Run) {
        self.owed += run.fixed.weight * MERGE_PACE;
        self.runs.push(Arc::new(run));
    }

    /// Takes a chunk away.
    pub(super) fn remove(&mut self, slot: ChunkSlot) -> Option<Removed> {
        let index = self.runs.partition_point(|run| run.first_slot() <= slot).checked_sub(1)?;
        let removed = Arc::make_mut(&mut self.runs[index]).remove(slot)?;
        self.owed += removed.weight * MERGE_PACE / 2;
        Some(removed)
    }

    /// Goes on with each merge by as much as was added and removed since the last time. True if runs changed.
    pub(super) fn merge(&mut self) -> bool {
        let entries = std::mem::take(&mut self.owed);
        let before = self.runs.len();
        // A run of which nothing is left needs no merge.
        let merges = &self.merges;
        self.runs.retain(|run| run.live() > 0 || merges.iter().any(|merge| merge.has(run)));
        let mut changed = self.runs.len() < before;
        self.begin();
        let mut at = 0;
        while let Some(merge) = self.merges.get_mut(at) {
            if merge.step(entries) {
                let merge = self.merges.swap_remove(at);
                self.end(merge);
                self.begin();
                changed = true;
            } else {
                at += 1;
            }
        }
        changed
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
        let range = first..first + merge.runs();
        let chunk = |(run, number): (usize, u32)| self.runs[first + run].chunk(number).map(|(_, chunk)| chunk.clone());
        let chunks = merge.kept().map(chunk).collect();
        let run = Run::new(merge.finish(), chunks);
        self.runs.splice(range, (run.live() > 0).then(|| Arc::new(run)));
    }
}
