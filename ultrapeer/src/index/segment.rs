//! One chunk of a leaf's catalog, ready to be searched; immutable.
//!
//! A segment of a home's own leaf has both sides, [`Words`] and [`Files`]. One that came as a digest has keys of
//! contents in place of files: it can tell which contents of a leaf hold which words, and the rest is decided at a
//! home. The index takes the words over into a run and keeps the other side, so a segment lives no longer than its
//! addition.
//!
//! ```text
//!   digest   words | key of each file's content, in path order
//! ```

use std::sync::Arc;

use overlay::{file::FileEntry, id::ContentId, limits, wire::mesh::ContentKey};

use super::{
    collect::collect_words,
    files::{FileCursor, Files},
    postings::shared_bytes,
    words::Words,
};

/// A searchable chunk.
#[derive(Clone, Debug)]
pub struct Segment {
    pub(super) words: Words,
    pub(super) side: Side,
}

/// What is known of a chunk's files beside their words.
#[derive(Clone, Debug)]
pub(super) enum Side {
    /// Of an own leaf all.
    Own(Arc<Files>),
    /// Of a digest what they hold, in short, in path order.
    Digest(Arc<[ContentKey]>),
}

impl Side {
    /// The files, unless it is a digest.
    pub(super) const fn files(&self) -> Option<&Arc<Files>> {
        match self {
            Self::Own(files) => Some(files),
            Self::Digest(_) => None,
        }
    }

    /// True if it came as a digest.
    pub(super) const fn is_digest(&self) -> bool {
        matches!(self, Self::Digest(_))
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Own(files) => files.memory(),
            Self::Digest(keys) => size_of_val(&**keys),
        }
    }
}

/// Why there is no segment. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// More than [`limits::CHUNK_FILES`] files. The fault is the sender's.
    #[error("a chunk of more than {} files", limits::CHUNK_FILES)]
    TooManyFiles,
    /// The paths do not ascend. The fault is the sender's.
    #[error("the paths of a chunk are not in ascending order")]
    Unordered,
    /// The words take more than [`limits::DIGEST_BYTES`]. The fault is the sender's.
    #[error("the words of a chunk take more than {} bytes", limits::DIGEST_BYTES)]
    TooManyWords,
    /// The bytes are no digest. The fault is the sender's.
    #[error("malformed digest")]
    MalformedDigest,
}

impl Segment {
    /// Indexes the files of a chunk: at most [`limits::CHUNK_FILES`], sorted by path.
    pub fn build(files: &[FileEntry]) -> Result<Self, SegmentError> {
        if files.len() > limits::CHUNK_FILES {
            return Err(SegmentError::TooManyFiles);
        }
        let shared = shared_starts(files).ok_or(SegmentError::Unordered)?;
        let words = collect_words(files, &shared);
        if words.memory() > limits::DIGEST_BYTES {
            return Err(SegmentError::TooManyWords);
        }
        Ok(Self { words, side: Side::Own(Arc::new(Files::build(files, &shared))) })
    }

    /// The segment without names and sizes, and with a key for each content id, in the form that other ultrapeers get.
    pub fn digest(&self) -> Vec<u8> {
        let mut digest = self.words.encode();
        match &self.side {
            Side::Own(files) => digest.extend(files.contents().iter().flat_map(|id| ContentKey::of(id).0)),
            Side::Digest(keys) => digest.extend(keys.iter().flat_map(|key| key.0)),
        }
        digest
    }

    /// A segment with words and keys alone, from what [`Self::digest`] gave. Everything in it is checked.
    pub fn from_digest(bytes: &[u8]) -> Result<Self, SegmentError> {
        let (words, keys) = Words::decode(bytes).map_err(|_| SegmentError::MalformedDigest)?;
        let (keys, rest) = keys.as_chunks();
        if keys.len() != words.files() || !rest.is_empty() {
            return Err(SegmentError::MalformedDigest);
        }
        Ok(Self { words, side: Side::Digest(keys.iter().map(|key| ContentKey(*key)).collect()) })
    }

    /// The segment without its words; of a digest nothing.
    pub fn kept(&self) -> KeptSegment {
        KeptSegment(self.side.files().cloned().unwrap_or_default())
    }

    /// Files in it.
    pub fn files(&self) -> usize {
        self.words.files()
    }

    /// Distinct tokens in it.
    pub fn tokens(&self) -> usize {
        self.words.len()
    }

    /// Bytes on the heap.
    pub fn memory(&self) -> usize {
        self.words.memory() + self.file_memory()
    }

    /// Bytes of [`Self::memory`] that hold files rather than words.
    pub fn file_memory(&self) -> usize {
        self.side.memory()
    }
}

/// The files of a segment without its words, which the index holds: what is kept of a leaf's list.
#[derive(Clone, Debug)]
pub struct KeptSegment(Arc<Files>);

impl KeptSegment {
    /// The contents of its files, in path order.
    pub fn contents(&self) -> &[ContentId] {
        self.0.contents()
    }

    /// Content and bytes of the file at that place, in path order.
    pub fn file(&self, place: usize) -> Option<(ContentId, u64)> {
        let place = u16::try_from(place).ok()?;
        FileCursor::new(&self.0, String::new()).read(place).map(|file| (file.content, file.size))
    }

    /// These files.
    pub(super) fn of(files: Arc<Files>) -> Self {
        Self(files)
    }

    /// Its files, in path order, as the leaf named them.
    pub fn files(&self) -> Vec<FileEntry> {
        self.0.entries()
    }

    /// The segment once more. Takes as long as [`Segment::build`], most of a millisecond for 1,000 files: for workers.
    pub fn build(&self) -> Segment {
        let files = self.files();
        let shared = shared_starts(&files).expect("the files of a segment are in order");
        Segment { words: collect_words(&files, &shared), side: Side::Own(Arc::clone(&self.0)) }
    }
}

/// How many bytes each path begins with like the one before it, which is none for the first; `None` if they do not
/// ascend.
pub(super) fn shared_starts(files: &[FileEntry]) -> Option<Vec<u32>> {
    let following = files.windows(2).map(|pair| {
        let (before, path) = (pair[0].path.as_bytes(), pair[1].path.as_bytes());
        let shared = shared_bytes(before, path);
        (before.get(shared) < path.get(shared)).then_some(shared as u32)
    });
    files.first().map(|_| Some(0)).into_iter().chain(following).collect()
}
