//! From a content to the files of a run that have it.
//!
//! Contents are known here by their first four bytes alone; what they lead to is compared by who asks. Records of
//! one width stand in ascending order in buckets of about [`BUCKET_RECORDS`], found by the content's first bits; a
//! record is the rest of the four bytes and the file's number in the run.
//!
//! ```text
//!   buckets ─> record{8}    record: rest of the key | file
//! ```

use overlay::id::ContentId;

use super::postings::END;

/// Records of a bucket. Chosen: half a byte a record for its start, and a bucket lies in one or two cache lines.
const BUCKET_RECORDS: usize = 8;
/// First bits of a key that may choose a bucket: 16 million buckets.
const BUCKET_BITS_MAX: u32 = 24;

/// The first four bytes of a content.
pub(super) type Key = u32;

/// The key of a content.
pub(super) const fn key_of(content: &ContentId) -> Key {
    let [a, b, c, d, ..] = content.0;
    u32::from_be_bytes([a, b, c, d])
}

/// A key with its file, as a number: one comparison sorts both.
pub(super) const fn sortable(content: &ContentId, file: u32) -> u64 {
    (key_of(content) as u64) << 32 | file as u64
}

/// Sorted keys with their files.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    records: Box<[u8]>,
    /// Number of the first record of each bucket.
    buckets: Box<[u32]>,
    shape: Shape,
}

/// How a record is cut.
#[derive(Clone, Copy, Debug)]
struct Shape {
    bucket_bits: u32,
    key_bytes: usize,
    file_bytes: usize,
}

impl Shape {
    /// For about that many records of files below `files`.
    fn new(records: usize, files: u32) -> Self {
        let bucket_bits = (records / BUCKET_RECORDS).next_power_of_two().trailing_zeros().min(BUCKET_BITS_MAX);
        let key_bytes = (Key::BITS - bucket_bits).div_ceil(8) as usize;
        let file_bytes = (u32::BITS - files.leading_zeros()).div_ceil(8).max(1) as usize;
        Self { bucket_bits, key_bytes, file_bytes }
    }

    const fn width(self) -> usize {
        self.key_bytes + self.file_bytes
    }

    fn bucket(self, key: Key) -> usize {
        key.checked_shr(Key::BITS - self.bucket_bits).unwrap_or_default() as usize
    }

    fn rest(self, key: Key) -> u32 {
        key & u32::MAX.checked_shr(self.bucket_bits).unwrap_or_default()
    }

    fn read(self, record: &[u8]) -> (u32, u32) {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let (key, file) = record.split_at(self.key_bytes);
        (number(key), number(file))
    }
}

impl Contents {
    /// From what [`sortable`] made, ascending, of files below `files`.
    pub(super) fn build(sorted: &[u64], files: u32) -> Self {
        let mut builder = Builder::new(sorted.len(), files);
        for record in sorted {
            builder.push((record >> 32) as Key, *record as u32);
        }
        builder.finish()
    }

    /// Files that perhaps have a content, ascending.
    pub(super) fn get(&self, content: &ContentId) -> impl Iterator<Item = u32> {
        let key = key_of(content);
        let (bucket, wanted) = (self.shape.bucket(key), self.shape.rest(key));
        let start = self.buckets.get(bucket).map_or(0, |start| *start as usize);
        let end = self.buckets.get(bucket + 1).map_or(self.len(), |end| *end as usize);
        let records = (start..end).map(|record| self.record(record));
        records
            .skip_while(move |(key, _)| *key < wanted)
            .take_while(move |(key, _)| *key == wanted)
            .map(|(_, file)| file)
    }

    /// Records.
    pub(super) fn len(&self) -> usize {
        self.records.len() / self.shape.width()
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.records.len() + size_of_val(&*self.buckets)
    }

    fn record(&self, record: usize) -> (u32, u32) {
        let width = self.shape.width();
        self.shape.read(&self.records[record * width..(record + 1) * width])
    }
}

/// Writes a table, record by record.
#[derive(Debug)]
pub(super) struct Builder {
    shape: Shape,
    records: Vec<u8>,
    buckets: Vec<u32>,
    count: u32,
}

impl Builder {
    /// For that many records at most, of files below `files`.
    pub(super) fn new(records: usize, files: u32) -> Self {
        let shape = Shape::new(records, files);
        let buckets = Vec::with_capacity(1 << shape.bucket_bits);
        Self { shape, records: Vec::with_capacity(records * shape.width()), buckets, count: 0 }
    }

    /// Appends a record; keys ascend, and files of one key.
    pub(super) fn push(&mut self, key: Key, file: u32) {
        let bucket = self.shape.bucket(key);
        while self.buckets.len() <= bucket {
            self.buckets.push(self.count);
        }
        let Shape { key_bytes, file_bytes, .. } = self.shape;
        self.records.extend_from_slice(&self.shape.rest(key).to_be_bytes()[4 - key_bytes..]);
        self.records.extend_from_slice(&file.to_be_bytes()[4 - file_bytes..]);
        self.count += 1;
    }

    pub(super) fn finish(mut self) -> Contents {
        self.buckets.resize(1 << self.shape.bucket_bits, self.count);
        Contents { records: self.records.into(), buckets: self.buckets.into(), shape: self.shape }
    }
}

/// Where somebody is who reads a table from its first record to the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    record: usize,
    bucket: usize,
    /// The key and the file; [`END`] behind the last one.
    head: (u64, u32),
}

impl Walk {
    /// At the first record.
    pub(super) fn new(contents: &Contents) -> Self {
        let mut walk = Self { record: 0, bucket: 0, head: (0, 0) };
        walk.read(contents);
        walk
    }

    /// The key and the file; `None` behind the last record.
    pub(super) fn head(&self) -> Option<(Key, u32)> {
        (self.head.1 != END).then_some((self.head.0 as Key, self.head.1))
    }

    /// Goes to the next record of that same table.
    pub(super) fn advance(&mut self, contents: &Contents) {
        self.record += 1;
        self.read(contents);
    }

    fn read(&mut self, contents: &Contents) {
        if self.record >= contents.len() {
            self.head = (u64::MAX, END);
            return;
        }
        while contents.buckets.get(self.bucket + 1).is_some_and(|start| *start as usize <= self.record) {
            self.bucket += 1;
        }
        let (rest, file) = contents.record(self.record);
        let first = (self.bucket as u64) << (Key::BITS - contents.shape.bucket_bits);
        self.head = (first | u64::from(rest), file);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn content(key: Key) -> ContentId {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&key.to_be_bytes());
        ContentId(id)
    }

    proptest! {
        #[test]
        fn records_are_found_and_walked(
            records in prop::collection::btree_set((prop_oneof![0u32..40, any::<u32>()], 0u32..70_000), 0..300),
            others in prop::collection::vec(any::<u32>(), 10),
        ) {
            let sorted: Vec<_> = records.iter().copied().collect();
            let made: Vec<_> = sorted.iter().map(|(key, file)| sortable(&content(*key), *file)).collect();
            let contents = Contents::build(&made, 70_000);
            prop_assert_eq!(contents.len(), sorted.len());
            let mut walk = Walk::new(&contents);
            for record in &sorted {
                prop_assert_eq!(walk.head(), Some(*record));
                walk.advance(&contents);
            }
            prop_assert_eq!(walk.head(), None);
            for key in sorted.iter().map(|(key, _)| *key).chain(others) {
                let found: BTreeSet<u32> = contents.get(&content(key)).collect();
                prop_assert_eq!(found, records.iter().filter(|(held, _)| *held == key).map(|(_, file)| *file).collect());
            }
        }
    }
}
