//! Catalog chunks on the wire: cut into compressed batches, and put together again.
//!
//! A chunk is the postcard encoding of its files, in path order, and is named by the BLAKE3 of those bytes.
//! Its sender cuts the bytes into runs of [`limits::BATCH_RAW_BYTES`] and compresses each on its own
//! ([`cut`]), so a batch can be decoded by any worker and never needs what came before. The receiver was
//! told length and hash of the chunk; [`Assembler`] accepts exactly that, then [`decode_chunk`] yields the
//! files.
//!
//! A decoder of hostile input needs three bounds, and has them: the compressed bytes
//! ([`limits::BATCH_BYTES`]); the output, because each batch is decoded straight into a buffer of the one
//! length it may have, which also makes a window unnecessary; and the number of files
//! ([`limits::CHUNK_FILES`]), which is read before any of them.

use std::io;

use crate::{
    file::{FileEntry, FileEntryError},
    limits,
};

/// BLAKE3 of a chunk's encoded bytes: its name.
pub type ChunkHash = [u8; 32];

/// zstd level. Chosen: on file lists, level 3 compresses to within a tenth of level 9 at four times its speed.
const COMPRESSION_LEVEL: i32 = 3;

/// The name of a chunk with these encoded bytes.
pub fn chunk_hash(bytes: &[u8]) -> ChunkHash {
    *blake3::hash(bytes).as_bytes()
}

/// Encodes files as a chunk. They must be sorted by path, without duplicates, and within the limits of a
/// chunk, or the receiver will refuse it.
pub fn encode_chunk(files: &[FileEntry]) -> Vec<u8> {
    postcard::to_stdvec(files).expect("file entries are encodable: no unsized sequence, no foreign serialiser")
}

/// Decodes a chunk and checks every file in it.
pub fn decode_chunk(bytes: &[u8]) -> Result<Vec<FileEntry>, BatchError> {
    if bytes.len() > limits::CHUNK_BYTES {
        return Err(BatchError::ChunkTooLong { bytes: bytes.len() });
    }
    // A sequence starts with its length; what follows is only decoded if that is in bounds.
    let (count, _) = postcard::take_from_bytes::<u64>(bytes).map_err(|_| BatchError::Malformed)?;
    if count > limits::CHUNK_FILES as u64 {
        return Err(BatchError::TooManyFiles { files: count });
    }
    let (files, rest) = postcard::take_from_bytes::<Vec<FileEntry>>(bytes).map_err(|_| BatchError::Malformed)?;
    if !rest.is_empty() {
        return Err(BatchError::Malformed);
    }
    for file in &files {
        file.check()?;
    }
    if files.windows(2).any(|pair| pair[0].path >= pair[1].path) {
        return Err(BatchError::NotSorted);
    }
    // Numbers can be written with leading zeros: who keeps the files alone must come to the same bytes, and name, again.
    if encode_chunk(&files) != bytes {
        return Err(BatchError::Malformed);
    }
    Ok(files)
}

/// The compressed batches of a chunk, in order, each at most [`limits::BATCH_BYTES`] long.
pub fn cut(bytes: &[u8]) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    bytes.chunks(limits::BATCH_RAW_BYTES).map(|run| zstd::bulk::compress(run, COMPRESSION_LEVEL))
}

/// Puts the batches of one chunk together.
#[derive(Debug)]
pub struct Assembler {
    hash: ChunkHash,
    joined: Joined,
}

impl Assembler {
    /// An assembler for a chunk of `length` bytes (1 to [`limits::CHUNK_BYTES`]) with the name `hash`.
    pub fn new(hash: ChunkHash, length: usize) -> Result<Self, BatchError> {
        if length == 0 || length > limits::CHUNK_BYTES {
            return Err(BatchError::ChunkTooLong { bytes: length });
        }
        Ok(Self { hash, joined: Joined { length, bytes: Vec::new() } })
    }

    /// Takes the next batch; true if it was the last. An error leaves the assembler as it was; the chunk
    /// should be given up, because its sender is broken or hostile.
    pub fn push(&mut self, batch: &[u8]) -> Result<bool, BatchError> {
        self.joined.push(batch)
    }

    /// The chunk's bytes, once all batches are there and the hash is right.
    pub fn finish(self) -> Result<Vec<u8>, BatchError> {
        let bytes = self.joined.finish()?;
        if chunk_hash(&bytes) != self.hash {
            return Err(BatchError::WrongHash);
        }
        Ok(bytes)
    }
}

/// The bytes that were [`cut`] into batches: `length` of them, at most `most`.
pub fn join<'a>(
    batches: impl IntoIterator<Item = &'a [u8]>,
    length: usize,
    most: usize,
) -> Result<Vec<u8>, BatchError> {
    if length > most {
        return Err(BatchError::ChunkTooLong { bytes: length });
    }
    let mut joined = Joined { length, bytes: Vec::new() };
    for batch in batches {
        joined.push(batch)?;
    }
    joined.finish()
}

/// Batches that follow each other.
#[derive(Debug)]
struct Joined {
    length: usize,
    bytes: Vec<u8>,
}

impl Joined {
    fn push(&mut self, batch: &[u8]) -> Result<bool, BatchError> {
        if batch.len() > limits::BATCH_BYTES {
            return Err(BatchError::BatchTooLong { bytes: batch.len() });
        }
        let want = limits::BATCH_RAW_BYTES.min(self.length - self.bytes.len());
        if want == 0 {
            return Err(BatchError::TooManyBatches);
        }
        let mut run = zstd::bulk::decompress(batch, want).map_err(|_| BatchError::Compression)?;
        if run.len() != want {
            return Err(BatchError::Compression);
        }
        self.bytes.append(&mut run);
        Ok(self.bytes.len() == self.length)
    }

    fn finish(self) -> Result<Vec<u8>, BatchError> {
        if self.bytes.len() == self.length { Ok(self.bytes) } else { Err(BatchError::Incomplete) }
    }
}

/// Why a chunk is refused. The fault is its sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The chunk is empty or longer than [`limits::CHUNK_BYTES`].
    #[error("a chunk cannot have {bytes} bytes")]
    ChunkTooLong {
        /// Bytes that were announced or given.
        bytes: usize,
    },
    /// The chunk holds more than [`limits::CHUNK_FILES`] files.
    #[error("a chunk cannot have {files} files")]
    TooManyFiles {
        /// Files that were announced.
        files: u64,
    },
    /// The batch is longer than [`limits::BATCH_BYTES`].
    #[error("a batch cannot have {bytes} bytes")]
    BatchTooLong {
        /// Bytes that were given.
        bytes: usize,
    },
    /// A batch follows after the chunk was complete.
    #[error("more batches than the chunk has")]
    TooManyBatches,
    /// The batch is no zstd data, or yields another length than it must.
    #[error("batch does not decompress to its length")]
    Compression,
    /// The chunk was finished before its last batch.
    #[error("batches are missing")]
    Incomplete,
    /// The bytes are not those of the announced hash.
    #[error("chunk does not match its hash")]
    WrongHash,
    /// The bytes are no encoded list of files.
    #[error("chunk is malformed")]
    Malformed,
    /// A file in it is unacceptable.
    #[error("chunk holds a bad file: {0}")]
    File(#[from] FileEntryError),
    /// The paths do not ascend strictly.
    #[error("chunk is not sorted by path, or names a path twice")]
    NotSorted,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{file::Tags, id::ContentId};

    fn file(path: String) -> FileEntry {
        let content = ContentId(*blake3::hash(path.as_bytes()).as_bytes());
        FileEntry { path, content, size: 1, modified_s: -5, tags: Tags::default() }
    }

    fn files(count: usize) -> Vec<FileEntry> {
        (0..count)
            .map(|at| {
                file(format!("Music/a folder of this artist {:04}/{at:07} - a title of usual length.flac", at / 12))
            })
            .collect()
    }

    fn batches(bytes: &[u8]) -> Vec<Vec<u8>> {
        cut(bytes).collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_full_chunk_goes_through_batches() {
        let files = files(limits::CHUNK_FILES);
        let bytes = encode_chunk(&files);
        let batches = batches(&bytes);
        assert!(batches.len() > 1);
        let mut assembler = Assembler::new(chunk_hash(&bytes), bytes.len()).unwrap();
        for (at, batch) in batches.iter().enumerate() {
            assert!(batch.len() <= limits::BATCH_BYTES);
            assert_eq!(assembler.push(batch), Ok(at + 1 == batches.len()));
        }
        assert_eq!(assembler.push(&batches[0]), Err(BatchError::TooManyBatches));
        assert_eq!(decode_chunk(&assembler.finish().unwrap()), Ok(files));
    }

    #[test]
    fn incompressible_bytes_fit_a_batch() {
        let mut bytes = vec![0; limits::CHUNK_BYTES];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        for batch in batches(&bytes) {
            assert!(batch.len() <= limits::BATCH_BYTES);
        }
    }

    #[test]
    fn a_bomb_is_refused_without_its_output() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        assert!(bomb.len() < limits::BATCH_BYTES);
        let mut assembler = Assembler::new([0; 32], limits::CHUNK_BYTES).unwrap();
        assert_eq!(assembler.push(&bomb), Err(BatchError::Compression));
        let two: Vec<u8> = batches(&vec![0; limits::BATCH_RAW_BYTES]).concat().repeat(2);
        assert_eq!(assembler.push(&two), Err(BatchError::Compression));
        assert_eq!(
            assembler.push(&vec![0; limits::BATCH_BYTES + 1]),
            Err(BatchError::BatchTooLong { bytes: limits::BATCH_BYTES + 1 })
        );
    }

    #[test]
    fn truncated_missing_and_foreign_batches_are_refused() {
        let bytes = encode_chunk(&files(4000));
        let batches = batches(&bytes);
        let new = || Assembler::new(chunk_hash(&bytes), bytes.len()).unwrap();
        let mut assembler = new();
        assert_eq!(assembler.push(&batches[0][..batches[0].len() - 1]), Err(BatchError::Compression));
        assert_eq!(assembler.push(&[]), Err(BatchError::Compression));
        // The short last batch in place of a full one.
        assert_eq!(assembler.push(batches.last().unwrap()), Err(BatchError::Compression));
        assert_eq!(assembler.push(&batches[0]), Ok(false));
        assert_eq!(assembler.finish(), Err(BatchError::Incomplete));
        let mut other = Assembler::new([7; 32], bytes.len()).unwrap();
        for batch in &batches {
            other.push(batch).unwrap();
        }
        assert_eq!(other.finish(), Err(BatchError::WrongHash));
        assert!(Assembler::new([0; 32], 0).is_err());
        assert!(Assembler::new([0; 32], limits::CHUNK_BYTES + 1).is_err());
    }

    #[test]
    fn a_chunk_has_one_encoding() {
        let files = [file("s/a".into())];
        let bytes = encode_chunk(&files);
        assert_eq!(bytes[0], 1, "it begins with the number of files");
        // The same number, in two bytes.
        let longer = [&[0x81, 0], &bytes[1..]].concat();
        assert_eq!(decode_chunk(&bytes), Ok(files.to_vec()));
        assert_eq!(decode_chunk(&longer), Err(BatchError::Malformed));
    }

    #[test]
    fn bad_lists_of_files_are_refused() {
        let (a, b) = (file("s/a".into()), file("s/b".into()));
        let decoded = |files: &[FileEntry]| decode_chunk(&encode_chunk(files));
        assert_eq!(decoded(&[b.clone(), a.clone()]), Err(BatchError::NotSorted));
        assert_eq!(decoded(&[a.clone(), a.clone()]), Err(BatchError::NotSorted));
        assert_eq!(decoded(&[file("s/../a".into())]), Err(BatchError::File(FileEntryError::PathNotPlain)));
        assert_eq!(decoded(&[FileEntry { size: 0, ..a.clone() }]), Err(BatchError::File(FileEntryError::Size)));
        let many = files(limits::CHUNK_FILES + 1);
        assert_eq!(decoded(&many), Err(BatchError::TooManyFiles { files: many.len() as u64 }));
        let mut left_over = encode_chunk(&[a, b]);
        left_over.push(0);
        assert_eq!(decode_chunk(&left_over), Err(BatchError::Malformed));
        // A list that announces as many files as a u64 can count.
        assert!(decode_chunk(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
        assert_eq!(decode_chunk(&[]), Err(BatchError::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(files) = decode_chunk(&bytes) {
                prop_assert!(files.iter().all(|file| file.check().is_ok()));
            }
            let _ = Assembler::new([0; 32], 400).unwrap().push(&bytes);
        }
    }
}
