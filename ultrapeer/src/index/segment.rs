//! One chunk of a leaf's catalog, ready to be searched; immutable.
//!
//! A segment of a home's own leaf has both sides, [`Words`] and [`Files`]. One that came as a digest has
//! words alone: it can tell which of a leaf's files hold which words, and the rest is decided at a home. The index
//! takes the words over into a run and keeps the files, so a segment lives no longer than its addition.

use std::{
    hash::{DefaultHasher, Hasher},
    ops::Range,
    sync::Arc,
};

use overlay::{
    file::{FileEntry, Kind, extension, file_name},
    limits,
    text::Tokenizer,
};

use super::{
    files::Files,
    words::{Words, filter_token},
};

/// A searchable chunk.
#[derive(Clone, Debug)]
pub struct Segment {
    pub(super) words: Words,
    /// `None` if the segment came as a digest.
    pub(super) files: Option<Arc<Files>>,
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
        if !files.is_sorted_by(|a, b| a.path < b.path) {
            return Err(SegmentError::Unordered);
        }
        let words = collect_words(files);
        if words.memory() > limits::DIGEST_BYTES {
            return Err(SegmentError::TooManyWords);
        }
        Ok(Self { words, files: Some(Arc::new(Files::build(files))) })
    }

    /// The segment without names, sizes and content ids, in the form that other ultrapeers get.
    pub fn digest(&self) -> Vec<u8> {
        self.words.encode()
    }

    /// A segment with words alone, from what [`Self::digest`] gave. Everything in it is checked.
    pub fn from_digest(bytes: &[u8]) -> Result<Self, SegmentError> {
        let words = Words::decode(bytes).map_err(|_| SegmentError::MalformedDigest)?;
        Ok(Self { words, files: None })
    }

    /// The segment without its words; of a digest nothing.
    pub fn kept(&self) -> KeptSegment {
        KeptSegment(self.files.clone().unwrap_or_default())
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
        self.files.as_ref().map_or(0, |files| files.memory())
    }
}

/// The files of a segment without its words, which the index holds: what is kept of a leaf's list.
#[derive(Clone, Debug)]
pub struct KeptSegment(Arc<Files>);

impl KeptSegment {
    /// The segment once more. Takes as long as [`Segment::build`], most of a millisecond for 1,000 files: for workers.
    pub fn build(&self) -> Segment {
        let files = self.0.entries();
        Segment { words: collect_words(&files), files: Some(Arc::clone(&self.0)) }
    }
}

fn collect_words(files: &[FileEntry]) -> Words {
    let mut collector = Collector::default();
    for (position, file) in files.iter().enumerate() {
        collector.add(position as u16, file);
    }
    collector.finish(files.len() as u16)
}

/// Gathers the tokens of files that come in path order. What consecutive files have in common, their
/// folders, is cut into tokens once, and so are their extensions.
#[derive(Default)]
struct Collector<'a> {
    tokenizer: Tokenizer,
    tokens: Tokens,
    /// Folders of the last file.
    parents: &'a str,
    /// They one by one, outermost first, with the end of their tokens in `folder_tokens`.
    folders: Vec<(&'a str, usize)>,
    folder_tokens: Vec<u32>,
    /// Extensions as they are written, with the tokens of their kind and of themselves.
    extensions: Vec<(Option<&'a str>, u32, Option<u32>)>,
}

/// Extensions that are remembered. Chosen: most leaves have fewer.
const EXTENSIONS: usize = 16;

impl<'a> Collector<'a> {
    fn add(&mut self, position: u16, file: &'a FileEntry) {
        // Every query needs a token, so what has none is found by its content alone.
        if file.is_unlisted() {
            return;
        }
        let name = file_name(&file.path);
        self.enter_folders(file.path.strip_suffix(name).unwrap_or_default());
        for id in &self.folder_tokens {
            self.tokens.mark(*id, position);
        }
        let tags = &file.tags;
        self.add_text(name, position);
        for text in [&tags.artist, &tags.album, &tags.title, &tags.genre].into_iter().flatten() {
            self.add_text(text, position);
        }
        let (kind, extension) = self.filters(name);
        self.tokens.mark(kind, position);
        if let Some(extension) = extension {
            self.tokens.mark(extension, position);
        }
    }

    /// Makes `folders` those of `parents`, keeping what both have in common.
    fn enter_folders(&mut self, parents: &'a str) {
        if parents == self.parents {
            return;
        }
        self.parents = parents;
        let parts = || parents.split_terminator('/');
        let kept = self.folders.iter().zip(parts()).take_while(|((old, _), new)| old == new).count();
        self.folders.truncate(kept);
        self.folder_tokens.truncate(self.folders.last().map_or(0, |(_, end)| *end));
        for part in parts().skip(kept) {
            let Self { tokenizer, tokens, folder_tokens, .. } = self;
            tokenizer.name_tokens(part, |token, _| folder_tokens.push(tokens.id(token)));
            self.folders.push((part, self.folder_tokens.len()));
        }
    }

    fn add_text(&mut self, text: &str, position: u16) {
        let Self { tokenizer, tokens, .. } = self;
        tokenizer.name_tokens(text, |token, _| {
            let id = tokens.id(token);
            tokens.mark(id, position);
        });
    }

    /// The tokens of the filters that the name passes: its kind's, and its extension's.
    fn filters(&mut self, name: &'a str) -> (u32, Option<u32>) {
        let written = extension(name);
        if let Some((_, kind, extension)) = self.extensions.iter().find(|(known, ..)| *known == written) {
            return (*kind, *extension);
        }
        let kind = self.tokens.id(&kind_token(Kind::of_name(name)));
        let extension = queryable_extension(name).map(|extension| self.tokens.id(&extension_token(&extension)));
        if self.extensions.len() < EXTENSIONS {
            self.extensions.push((written, kind, extension));
        }
        (kind, extension)
    }

    fn finish(self, files: u16) -> Words {
        self.tokens.finish(files)
    }
}

/// Distinct tokens, by the order in which they came, and the files that hold them.
///
/// A table of our own, because the tokens lie in one buffer: a thousand files have some hundred different ones,
/// and as many small allocations took a third of the time.
#[derive(Default)]
struct Tokens {
    text: String,
    tokens: Vec<Token>,
    /// Hash and id of a token, its id plus one in the lower half; 0 is free. A power of two of places, at
    /// least half of them free.
    table: Vec<u64>,
    /// Finished runs with their token.
    closed: Vec<(u32, Range<u16>)>,
}

struct Token {
    start: u32,
    end: u32,
    /// The run that may still grow; empty at first.
    open: Range<u16>,
    /// Finished runs.
    closed: u32,
}

impl Tokens {
    /// The id of a token; a new one starts with an empty run.
    fn id(&mut self, token: &str) -> u32 {
        if self.tokens.len() * 2 >= self.table.len() {
            self.grow();
        }
        let hash = hash(token);
        let mut place = hash as usize & (self.table.len() - 1);
        loop {
            let held = self.table[place];
            if held == 0 {
                let (start, id) = (self.text.len() as u32, self.tokens.len() as u32);
                self.text.push_str(token);
                self.tokens.push(Token { start, end: self.text.len() as u32, open: 0..0, closed: 0 });
                self.table[place] = hash & HASH_HALF | u64::from(id + 1);
                return id;
            }
            let id = held as u32 - 1;
            if held & HASH_HALF == hash & HASH_HALF && self.token(id) == token {
                return id;
            }
            place = (place + 1) & (self.table.len() - 1);
        }
    }

    fn grow(&mut self) {
        self.table = vec![0; (self.table.len() * 2).max(256)];
        let places = self.table.len() - 1;
        for id in 0..self.tokens.len() as u32 {
            let hash = hash(self.token(id));
            let mut place = hash as usize & places;
            while self.table[place] != 0 {
                place = (place + 1) & places;
            }
            self.table[place] = hash & HASH_HALF | u64::from(id + 1);
        }
    }

    fn token(&self, id: u32) -> &str {
        let Token { start, end, .. } = self.tokens[id as usize];
        &self.text[start as usize..end as usize]
    }

    /// Notes that the file at `position`, the last one so far, holds the token.
    fn mark(&mut self, id: u32, position: u16) {
        let Token { open, closed, .. } = &mut self.tokens[id as usize];
        let unused = open.start == open.end;
        if unused || open.end < position {
            if !unused {
                self.closed.push((id, open.clone()));
                *closed += 1;
            }
            *open = position..position + 1;
        } else {
            // The last file again, or the one behind it.
            open.end = position + 1;
        }
    }

    fn finish(self, files: u16) -> Words {
        // Finished runs side by side for each token, in their order.
        let mut starts = Vec::with_capacity(self.tokens.len());
        let mut runs = 0;
        for token in &self.tokens {
            starts.push(runs as usize);
            runs += token.closed;
        }
        let mut sorted = vec![0..0; runs as usize];
        let mut next = starts.clone();
        for (id, run) in &self.closed {
            sorted[next[*id as usize]] = run.clone();
            next[*id as usize] += 1;
        }
        // Compared by their first eight bytes, mostly.
        let first = |token: &str| {
            let mut bytes = [0; 8];
            let count = token.len().min(8);
            bytes[..count].copy_from_slice(&token.as_bytes()[..count]);
            u64::from_be_bytes(bytes)
        };
        let mut order: Vec<(u64, u32)> = (0..self.tokens.len() as u32).map(|id| (first(self.token(id)), id)).collect();
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| self.token(a.1).cmp(self.token(b.1))));
        let entry = |(_, id): (u64, u32)| {
            let at = id as usize;
            let runs = sorted[starts[at]..next[at]].iter().chain([&self.tokens[at].open]);
            (self.token(id), runs.map(|run| (u32::from(run.start), u32::from(run.end))))
        };
        Words::build(files, order.into_iter().map(entry))
    }
}

/// The half of an entry of the table that holds the hash.
const HASH_HALF: u64 = !(u32::MAX as u64);

/// SipHash, because others choose the tokens.
fn hash(token: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(token.as_bytes());
    hasher.finish()
}

/// The extension of a name in lower case, unless it holds a space, which no query can ask for.
fn queryable_extension(name: &str) -> Option<String> {
    extension(name).filter(|extension| !extension.contains(char::is_whitespace)).map(str::to_lowercase)
}

/// The tokens of the filter `kind`.
pub(super) fn kind_token(kind: Kind) -> String {
    filter_token("kind", kind.name())
}

/// The tokens of the filter `ext`, its item in lower case.
pub(super) fn extension_token(extension: &str) -> String {
    filter_token("ext", extension)
}
