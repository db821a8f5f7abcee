//! One chunk of a leaf's catalog, ready to be searched; immutable.
//!
//! A segment of a home's own leaf has both sides, [`Words`] and [`Files`]. One that came as a digest has
//! words alone: it can tell which of a leaf's files hold which words, and the rest is decided at a home.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, DefaultHasher},
    ops::Range,
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
    pub(super) files: Option<Files>,
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
        Ok(Self { words, files: Some(Files::build(files)) })
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
        self.files.as_ref().map_or(0, Files::memory)
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
/// folders, is cut into tokens once.
#[derive(Default)]
struct Collector<'a> {
    tokenizer: Tokenizer,
    ids: Ids,
    /// By token id: the run that may still grow.
    open: Vec<Range<u16>>,
    /// Finished runs with their token id.
    closed: Vec<(u32, Range<u16>)>,
    /// Folders of the last file, outermost first, with the end of their tokens in `folder_tokens`.
    folders: Vec<(&'a str, usize)>,
    folder_tokens: Vec<u32>,
}

impl<'a> Collector<'a> {
    fn add(&mut self, position: u16, file: &'a FileEntry) {
        let name = file_name(&file.path);
        self.enter_folders(file.path.strip_suffix(name).unwrap_or_default());
        for index in 0..self.folder_tokens.len() {
            self.mark(self.folder_tokens[index], position);
        }
        let tags = &file.tags;
        self.add_text(name, position);
        for text in [&tags.artist, &tags.album, &tags.title, &tags.genre].into_iter().flatten() {
            self.add_text(text, position);
        }
        self.add_token(&kind_token(file.kind()), position);
        if let Some(extension) = queryable_extension(name) {
            self.add_token(&extension_token(&extension), position);
        }
    }

    /// Makes `folders` those of `parents`, keeping what both have in common.
    fn enter_folders(&mut self, parents: &'a str) {
        let parts = || parents.split_terminator('/');
        let kept = self.folders.iter().zip(parts()).take_while(|((old, _), new)| old == new).count();
        self.folders.truncate(kept);
        self.folder_tokens.truncate(self.folders.last().map_or(0, |(_, end)| *end));
        for part in parts().skip(kept) {
            let Self { tokenizer, ids, open, folder_tokens, .. } = self;
            tokenizer.name_tokens(part, |token, _| folder_tokens.push(id_of(ids, open, token)));
            self.folders.push((part, self.folder_tokens.len()));
        }
    }

    fn add_text(&mut self, text: &str, position: u16) {
        let Self { tokenizer, ids, open, closed, .. } = self;
        tokenizer.name_tokens(text, |token, _| {
            let id = id_of(ids, open, token);
            mark(open, closed, id, position);
        });
    }

    fn add_token(&mut self, token: &str, position: u16) {
        let id = id_of(&mut self.ids, &mut self.open, token);
        self.mark(id, position);
    }

    fn mark(&mut self, id: u32, position: u16) {
        mark(&mut self.open, &mut self.closed, id, position);
    }

    fn finish(mut self, files: u16) -> Words {
        let mut tokens: Vec<(&str, u32)> = self.ids.iter().map(|(token, id)| (&**token, *id)).collect();
        tokens.sort_unstable();
        let mut rank = vec![0; tokens.len()];
        for (order, (_, id)) in tokens.iter().enumerate() {
            rank[*id as usize] = order as u32;
        }
        let open = self.open.into_iter().enumerate().map(|(id, run)| (id as u32, run));
        self.closed.extend(open);
        self.closed.sort_unstable_by_key(|(id, run)| (rank[*id as usize], run.start));
        let groups = self.closed.chunk_by(|a, b| a.0 == b.0);
        let runs = |(_, run): &(u32, Range<u16>)| (usize::from(run.start), usize::from(run.end));
        Words::build(files, tokens.iter().zip(groups).map(|((token, _), group)| (*token, group.iter().map(runs))))
    }
}

/// Ids by token. With SipHash, because others choose the tokens.
type Ids = HashMap<Box<str>, u32, BuildHasherDefault<DefaultHasher>>;

/// The id of a token; a new one starts with an empty run.
fn id_of(ids: &mut Ids, open: &mut Vec<Range<u16>>, token: &str) -> u32 {
    if let Some(id) = ids.get(token) {
        return *id;
    }
    let id = open.len() as u32;
    ids.insert(token.into(), id);
    open.push(0..0);
    id
}

/// Notes that the file at `position`, the last one so far, holds the token.
fn mark(open: &mut [Range<u16>], closed: &mut Vec<(u32, Range<u16>)>, id: u32, position: u16) {
    let run = &mut open[id as usize];
    let unused = run.start == run.end;
    if unused || run.end < position {
        if !unused {
            closed.push((id, run.clone()));
        }
        *run = position..position + 1;
    } else {
        // The last file again, or the one behind it.
        run.end = position + 1;
    }
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
