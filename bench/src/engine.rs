//! What is measured: the index as the ultrapeer uses it, and other engines behind the same few calls.

use std::sync::Arc;

use overlay::{file::FileEntry, limits, query::Query};
use ultrapeer::index::{
    ChunkSlot, Index, LeafSlot, Segment, Snapshot,
    rank::{Group, LeafFacts, rank},
};

use crate::mix::Asked;

/// 2026-02-02 in seconds since 1970 UTC.
pub const NOW_S: i64 = 1_770_000_000;

/// Something that finds files by words.
pub trait Engine {
    /// A query that is ready to run.
    type Prepared;

    /// How the engine is called in results.
    fn name(&self) -> &'static str;
    /// Adds the files of a leaf; visible after [`Self::publish`].
    fn add(&mut self, leaf: u32, files: &[FileEntry]);
    /// Removes a leaf; visible after [`Self::publish`].
    fn remove(&mut self, leaf: u32);
    /// Makes all changes visible.
    fn publish(&mut self);
    /// Does what changes leave to be done once they are visible.
    fn settle(&mut self) {}
    /// Bytes without names, sizes, times and content ids.
    fn bytes(&self) -> u64;
    /// Reads a query.
    fn prepare(&self, asked: &Asked) -> Self::Prepared;
    /// Finds files, at most that many, and returns how many it found.
    fn find(&self, query: &Self::Prepared, most: usize) -> usize;
}

/// The index of an ultrapeer.
#[derive(Debug, Default)]
pub struct Own {
    index: Index,
    /// By leaf.
    chunks: Vec<Vec<ChunkSlot>>,
}

impl Own {
    /// An empty index.
    pub fn new() -> Self {
        Self { index: Index::new(), chunks: Vec::new() }
    }

    /// The index itself.
    pub fn index(&mut self) -> &mut Index {
        &mut self.index
    }

    /// What searches see.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.index.reader().snapshot()
    }

    /// Cuts a leaf's files into chunks and makes segments of them, as the home's workers do.
    pub fn build(&self, files: &[FileEntry]) -> Vec<Arc<Segment>> {
        let build = |files| Segment::build(files).expect("a sorted chunk");
        files.chunks(limits::CHUNK_FILES).map(|files| Arc::new(build(files))).collect()
    }

    /// Adds segments that were built before.
    pub fn insert(&mut self, leaf: u32, segments: Vec<Arc<Segment>>) {
        let slots = segments.into_iter().map(|segment| self.index.add(LeafSlot(leaf), segment)).collect();
        let leaf = leaf as usize;
        if self.chunks.len() <= leaf {
            self.chunks.resize_with(leaf + 1, Vec::new);
        }
        self.chunks[leaf] = slots;
    }

    /// All that an ultrapeer does for an answer: reading the query, looking up, ranking.
    pub fn answer(snapshot: &Snapshot, source: &str, limit: usize) -> Vec<Group> {
        let query = Query::parse(source).expect("made queries are well formed");
        let most = limits::LOOKUP_MATCHES.max(limit * 4);
        let lookup = snapshot.lookup(&query, NOW_S, most, limits::LOOKUP_WORK);
        let facts = |leaf: LeafSlot| LeafFacts { prefix: leaf.0.into(), free_slots: 1, ..LeafFacts::default() };
        rank(snapshot, &query, &lookup.matches, limit, NOW_S, facts).groups
    }
}

impl Engine for Own {
    type Prepared = Query;

    fn name(&self) -> &'static str {
        "Quictrack"
    }

    fn add(&mut self, leaf: u32, files: &[FileEntry]) {
        let segments = self.build(files);
        self.insert(leaf, segments);
    }

    fn remove(&mut self, leaf: u32) {
        for slot in std::mem::take(&mut self.chunks[leaf as usize]) {
            self.index.remove(slot);
        }
    }

    fn publish(&mut self) {
        self.index.publish();
    }

    fn settle(&mut self) {
        self.index.settle();
    }

    fn bytes(&self) -> u64 {
        let stats = self.index.stats();
        stats.memory - stats.file_memory
    }

    fn prepare(&self, asked: &Asked) -> Query {
        Query::parse(&asked.source()).expect("made queries are well formed")
    }

    fn find(&self, query: &Query, most: usize) -> usize {
        // Who asks for all of them wants a count.
        let work_cap = if most == usize::MAX { u64::MAX } else { limits::LOOKUP_WORK };
        self.snapshot().lookup(query, NOW_S, most, work_cap).matches.len()
    }
}
