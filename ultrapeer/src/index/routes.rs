//! The routing level: which chunks hold a token, and where in their segments it stands.
//!
//! A token is known here by a keyed hash alone: its text stands in the segments that hold it. The key is the
//! node's own secret, so nobody can make two tokens meet; by chance two of ten million do once in a thousand
//! networks, and then one shows files of the other. Contents are routed in the same way by their first four
//! bytes, and compared in the segment.
//!
//! A *table* is immutable: keys ascending in buckets of about [`BUCKET_KEYS`], found by the key's first bits;
//! in each record the rest of the key, then the entries, which are a chunk's number in its run and an ordinal.
//!
//! ```text
//!   buckets ─> record{8}    record: rest of the key | bytes of the entries | entries
//!                           entry:  number - that of the previous one | ordinal
//! ```
//!
//! So most tokens, which live in one chunk, take nine bytes. Tables are made from sorted keys, or from
//! other tables by a [`Merge`] that goes on for as long as it is told to, and leaves out what is gone.

use std::{
    hash::{DefaultHasher, Hasher},
    sync::Arc,
};

use super::postings::{read_bytes, read_varint, write_varint};

/// Keys of a bucket. Chosen: half a byte a key for its start, and a bucket lies in one or two cache lines.
const BUCKET_KEYS: usize = 8;
/// First bits of a key that may choose a bucket: 16 million buckets.
const BUCKET_BITS_MAX: u32 = 24;
/// Bits of the keys of words and stems.
pub(super) const WORD_BITS: u32 = 56;
/// Bits of the keys of contents: what they lead to is compared, so they may meet.
pub(super) const CONTENT_BITS: u32 = 32;

/// A token, the stem of prefixes, or a content, as the routing level knows it: the first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64);

impl Key {
    /// The key of a content in a table of contents.
    pub(super) const fn content(id: &[u8; 32]) -> Self {
        let [a, b, c, d, ..] = *id;
        Self(u64::from_be_bytes([a, b, c, d, 0, 0, 0, 0]))
    }
}

/// Makes keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    secret: u64,
}

impl Keys {
    pub(super) const fn new(secret: u64) -> Self {
        Self { secret }
    }

    /// The key of a token.
    pub(super) fn token(self, token: &[u8]) -> Key {
        self.key(0, token)
    }

    /// The key of a stem.
    pub(super) fn stem(self, stem: &str) -> Key {
        self.key(1, stem.as_bytes())
    }

    fn key(self, sort: u64, text: &[u8]) -> Key {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.secret ^ sort);
        hasher.write(text);
        Key(hasher.finish() >> (64 - WORD_BITS) << (64 - WORD_BITS))
    }
}

/// Where a chunk holds a token: the chunk's number in its run, and the token's ordinal in its segment; of a
/// content, the file's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) ordinal: u32,
}

/// Entries of one key, ascending, in coded form.
#[derive(Clone, Debug, Default)]
pub(super) struct List<'a> {
    rest: &'a [u8],
    number: u32,
}

impl List<'_> {
    /// Bytes that are left to read: at least two an entry.
    pub(super) const fn bytes(&self) -> usize {
        self.rest.len()
    }
}

impl Iterator for List<'_> {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        let gap = read_varint(&mut self.rest)? as u32;
        let ordinal = read_varint(&mut self.rest)? as u32;
        self.number = self.number.wrapping_add(gap);
        Some(Entry { number: self.number, ordinal })
    }
}

/// Keys with their entries.
#[derive(Clone, Debug)]
pub(super) struct Table {
    coded: Box<[u8]>,
    /// Start of each bucket in `coded`.
    buckets: Box<[u32]>,
    shape: Shape,
    keys: usize,
}

/// How keys are cut.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// First bits, which choose the bucket.
    bucket_bits: u32,
    /// Bytes of the rest.
    width: usize,
}

impl Shape {
    /// For about that many keys of that many bits.
    fn new(keys: usize, bits: u32) -> Self {
        let bucket_bits = (keys / BUCKET_KEYS).next_power_of_two().trailing_zeros().min(BUCKET_BITS_MAX);
        Self { bucket_bits, width: (bits - bucket_bits).div_ceil(8) as usize }
    }

    const fn bucket(self, key: Key) -> usize {
        if self.bucket_bits == 0 { 0 } else { (key.0 >> (64 - self.bucket_bits)) as usize }
    }

    /// The rest of a key as a number of `width` bytes.
    const fn rest(self, key: Key) -> u64 {
        (key.0 << self.bucket_bits) >> (64 - 8 * self.width)
    }

    const fn key(self, bucket: usize, rest: u64) -> Key {
        let first = if self.bucket_bits == 0 { 0 } else { (bucket as u64) << (64 - self.bucket_bits) };
        Key(first | (rest << (64 - 8 * self.width)) >> self.bucket_bits)
    }

    #[inline]
    fn read_rest(self, bytes: &[u8]) -> Option<u64> {
        Some(bytes.get(..self.width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

impl Table {
    /// From entries sorted by key and entry, of keys with that many bits.
    pub(super) fn build(sorted: &[(Key, Entry)], bits: u32) -> Self {
        let mut builder = Builder::new(sorted.len(), bits);
        for group in sorted.chunk_by(|a, b| a.0 == b.0) {
            for (_, entry) in group {
                builder.entry(*entry);
            }
            builder.end_key(group[0].0);
        }
        builder.finish()
    }

    /// The entries of a key.
    pub(super) fn get(&self, key: Key) -> List<'_> {
        self.find(key).unwrap_or_default()
    }

    fn find(&self, key: Key) -> Option<List<'_>> {
        let (bucket, wanted) = (self.shape.bucket(key), self.shape.rest(key));
        let start = *self.buckets.get(bucket)? as usize;
        let end = self.buckets.get(bucket + 1).map_or(self.coded.len(), |end| *end as usize);
        let mut rest = self.coded.get(start..end)?;
        loop {
            let held = self.shape.read_rest(rest)?;
            rest = &rest[self.shape.width..];
            let bytes = read_varint(&mut rest)? as usize;
            let entries = read_bytes(&mut rest, bytes)?;
            if held >= wanted {
                return (held == wanted).then_some(List { rest: entries, number: 0 });
            }
        }
    }

    /// Distinct keys.
    pub(super) const fn len(&self) -> usize {
        self.keys
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.coded.len() + size_of_val(&*self.buckets)
    }
}

/// Writes a table, key by key.
#[derive(Debug)]
struct Builder {
    shape: Shape,
    coded: Vec<u8>,
    buckets: Vec<u32>,
    keys: usize,
    /// Entries of the key that is being written, and the number of the last one.
    entries: Vec<u8>,
    number: u32,
}

impl Builder {
    fn new(keys: usize, bits: u32) -> Self {
        let shape = Shape::new(keys, bits);
        let buckets = Vec::with_capacity(1 << shape.bucket_bits);
        Self { shape, coded: Vec::new(), buckets, keys: 0, entries: Vec::new(), number: 0 }
    }

    fn entry(&mut self, entry: Entry) {
        write_varint(&mut self.entries, u64::from(entry.number - self.number));
        write_varint(&mut self.entries, u64::from(entry.ordinal));
        self.number = entry.number;
    }

    /// Ends the entries of a key, which must be above the last one; without entries it is left out.
    fn end_key(&mut self, key: Key) {
        if self.entries.is_empty() {
            return;
        }
        let bucket = self.shape.bucket(key);
        while self.buckets.len() <= bucket {
            self.buckets.push(self.coded.len() as u32);
        }
        let rest = self.shape.rest(key).to_be_bytes();
        self.coded.extend_from_slice(&rest[8 - self.shape.width..]);
        write_varint(&mut self.coded, self.entries.len() as u64);
        self.coded.extend_from_slice(&self.entries);
        self.entries.clear();
        (self.number, self.keys) = (0, self.keys + 1);
    }

    fn finish(mut self) -> Table {
        self.buckets.resize(1 << self.shape.bucket_bits, self.coded.len() as u32);
        Table { coded: self.coded.into(), buckets: self.buckets.into(), shape: self.shape, keys: self.keys }
    }
}

/// A table in the making, from others that do not change meanwhile.
#[derive(Debug)]
pub(super) struct Merge {
    /// In the order of their chunks' new numbers.
    sources: Vec<Source>,
    builder: Builder,
}

#[derive(Debug)]
struct Source {
    table: Arc<Table>,
    /// New numbers by the old ones; [`GONE`] for chunks that are left out.
    numbers: Arc<[u32]>,
    at: usize,
    bucket: usize,
    /// The key at the front, and where its entries are.
    head: Option<(Key, usize, usize)>,
}

/// In place of a new number: the chunk is left out.
pub(super) const GONE: u32 = u32::MAX;

impl Merge {
    /// Of tables whose keys have that many bits, each with the new numbers of its chunks; all numbers of a
    /// table are below those of the next.
    pub(super) fn new(sources: impl IntoIterator<Item = (Arc<Table>, Arc<[u32]>)>, bits: u32) -> Self {
        let sources = sources.into_iter().map(|(table, numbers)| {
            let mut source = Source { table, numbers, at: 0, bucket: 0, head: None };
            source.advance();
            source
        });
        let sources: Vec<Source> = sources.collect();
        let keys = sources.iter().map(|source| source.table.len()).sum();
        Self { sources, builder: Builder::new(keys, bits) }
    }

    /// Goes on for about that many entries, and returns how many of them are left unspent: none unless it
    /// is done.
    pub(super) fn step(&mut self, mut entries: usize) -> usize {
        while entries > 0 {
            let heads = self.sources.iter().filter_map(|source| source.head);
            let Some(key) = heads.map(|(key, ..)| key).min() else { break };
            for source in &mut self.sources {
                let Some((head, start, end)) = source.head else { continue };
                if head != key {
                    continue;
                }
                for entry in (List { rest: &source.table.coded[start..end], number: 0 }) {
                    let number = source.numbers[entry.number as usize];
                    if number != GONE {
                        self.builder.entry(Entry { number, ..entry });
                    }
                    entries = entries.saturating_sub(1);
                }
                source.advance();
            }
            self.builder.end_key(key);
        }
        entries
    }

    /// True if everything was merged.
    pub(super) fn is_done(&self) -> bool {
        self.sources.iter().all(|source| source.head.is_none())
    }

    /// The new table.
    pub(super) fn finish(self) -> Table {
        debug_assert!(self.is_done(), "a merge that was not carried to its end");
        self.builder.finish()
    }
}

impl Source {
    /// Goes to the next key.
    fn advance(&mut self) {
        self.head = self.read_head();
    }

    fn read_head(&mut self) -> Option<(Key, usize, usize)> {
        let Table { coded, buckets, shape, .. } = &*self.table;
        while buckets.get(self.bucket + 1).is_some_and(|start| *start as usize <= self.at) {
            self.bucket += 1;
        }
        let mut rest = coded.get(self.at..)?;
        let key = shape.key(self.bucket, shape.read_rest(rest)?);
        rest = &rest[shape.width..];
        let bytes = read_varint(&mut rest)? as usize;
        let start = coded.len() - rest.len();
        self.at = start + bytes;
        Some((key, start, self.at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<u64, BTreeMap<u32, u32>>;

    fn any_model(chunks: u32) -> impl Strategy<Value = Model> {
        let entries = prop::collection::btree_map(0..chunks, 0u32..100_000, 1..5);
        // Few first bits, so that buckets differ in length.
        let key = prop_oneof![0u64..40, any::<u64>().prop_map(|key| key >> 8)];
        prop::collection::btree_map(key.prop_map(|key| key << 8), entries, 0..200)
    }

    fn table(model: &Model) -> Table {
        let entries = model.iter().flat_map(|(key, entries)| {
            entries.iter().map(|(number, ordinal)| (Key(*key), Entry { number: *number, ordinal: *ordinal }))
        });
        Table::build(&entries.collect::<Vec<_>>(), WORD_BITS)
    }

    fn check(table: &Table, model: &Model) -> Result<(), TestCaseError> {
        prop_assert_eq!(table.len(), model.len());
        for (key, entries) in model {
            let want = entries.iter().map(|(number, ordinal)| Entry { number: *number, ordinal: *ordinal });
            prop_assert!(table.get(Key(*key)).eq(want));
            prop_assert!(model.contains_key(&(key + 256)) || table.get(Key(key + 256)).next().is_none());
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn tables_hold_what_they_were_made_of(model in any_model(1000)) {
            check(&table(&model), &model)?;
        }

        #[test]
        fn merging_joins_and_leaves_out(
            a in any_model(6), b in any_model(6), gone in prop::collection::vec(any::<bool>(), 12), step in 1usize..50,
        ) {
            let mut next = 0;
            let numbers: Vec<u32> = gone.iter().map(|gone| {
                let number = next;
                next += u32::from(!gone);
                if *gone { GONE } else { number }
            }).collect();
            let mut want = Model::new();
            for (model, numbers) in [(&a, &numbers[..6]), (&b, &numbers[6..])] {
                for (key, entries) in model {
                    for (number, ordinal) in entries {
                        let number = numbers[*number as usize];
                        if number != GONE {
                            want.entry(*key).or_default().insert(number, *ordinal);
                        }
                    }
                }
            }
            let sources = [(Arc::new(table(&a)), numbers[..6].into()), (Arc::new(table(&b)), numbers[6..].into())];
            let mut merge = Merge::new(sources, WORD_BITS);
            while !merge.is_done() {
                merge.step(step);
            }
            check(&merge.finish(), &want)?;
        }
    }
}
