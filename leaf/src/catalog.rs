//! The leaf's file list, cut into path-ordered chunks.
//!
//! Everything above the leaf works by chunk: upload, delta, index segment, digest. So the catalog decides
//! one thing, where the borders lie, and keeps them stable: **a border moves only when a chunk outgrows its
//! limits or shrinks below a quarter of them.** One changed file therefore changes one chunk, and a home that has
//! the others needs nothing but that one.
//!
//! Flow: the scan hands over [`Change`]s; [`Catalog::apply`] sorts them, decodes the chunks they fall into,
//! encodes these again, and splits and merges where needed. A chunk is kept as the very bytes that are
//! uploaded (about 100 bytes a file), so a million files take about 100 MB and nothing is encoded twice.
//! Chunks are shared between clones, which makes a published copy cheap.
//!
//! Order is by the bytes of the path. All paths below a folder are neighbours in it.
//!
//! Unlisted files, finished downloads that lie in no share, are below the share without a name: homes find them by
//! their content, and no listing shows them.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use overlay::{
    batch::{self, BatchError, ChunkHash},
    file::{FileEntry, Tags, UNLISTED, file_name, is_unlisted},
    id::ContentId,
    limits,
};
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

/// Files of two neighbours together up to which a small chunk is merged. A quarter below the cap, so that
/// the next added files do not split it again.
const MERGE_FILES: usize = limits::CHUNK_FILES / 4 * 3;
/// Encoded bytes of two neighbours together up to which a small chunk is merged.
const MERGE_BYTES: usize = limits::CHUNK_BYTES / 4 * 3;
/// Bytes that the count in front of a chunk's files can take, and an upper bound for it.
const COUNT_BYTES: usize = 3;

/// One change of the file list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This file is shared, in place of what its path named before.
    Upsert(FileEntry),
    /// The file with this path is not shared any more.
    Remove(String),
    /// Nothing below this folder is shared any more; a share's name removes the share.
    RemoveFolder(String),
}

/// What the upload of a chunk needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Its name: BLAKE3 of its bytes.
    pub hash: ChunkHash,
    /// Files in it.
    pub files: u32,
    /// Encoded bytes.
    pub bytes: u32,
}

/// The file list of a leaf. A clone shares all chunks with its original.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// By path; never an empty one.
    chunks: Vec<Arc<Chunk>>,
    sequence: u64,
    files: u64,
    bytes: u64,
    unlisted: (u64, u64),
}

impl Catalog {
    /// An empty list whose first change has a sequence above `sequence`. Homes believe the highest sequence,
    /// so a list without a past must start above all its pasts: from a wall clock, say.
    pub fn new(sequence: u64) -> Self {
        Self { sequence, ..Self::default() }
    }

    /// The list that had these chunks, each with its name, in order, and this sequence. Fails if they are not what
    /// [`Self::chunk_bytes`] gave out. Bytes that have their name were checked before they were encoded.
    pub fn restore(
        sequence: u64,
        chunks: impl IntoIterator<Item = (ChunkHash, Vec<u8>)>,
    ) -> Result<Self, CatalogError> {
        let mut catalog = Self::new(sequence);
        for (hash, bytes) in chunks {
            let chunk = Chunk::restore(hash, bytes)?;
            if catalog.chunks.last().is_some_and(|before| before.last >= chunk.first) {
                return Err(CatalogError::Order);
            }
            catalog.files += u64::from(chunk.files);
            catalog.bytes += chunk.size;
            catalog.chunks.push(Arc::new(chunk));
        }
        catalog.unlisted = catalog.totals_inside(UNLISTED);
        Ok(catalog)
    }

    /// Applies changes in their order; true if the list is another now, and then its sequence is higher.
    /// Files that [`FileEntry::check`] refuses are left out: no home would take their chunk.
    pub fn apply(&mut self, changes: Vec<Change>) -> bool {
        let mut by_path: BTreeMap<String, Option<FileEntry>> = BTreeMap::new();
        let mut changed = false;
        for change in changes {
            match change {
                Change::Upsert(file) if file.check().is_ok() => {
                    by_path.insert(file.path.clone(), Some(file));
                }
                Change::Upsert(_) => {}
                Change::Remove(path) => {
                    by_path.insert(path, None);
                }
                Change::RemoveFolder(folder) => {
                    changed |= self.apply_by_path(std::mem::take(&mut by_path));
                    changed |= self.remove_folder(&folder);
                }
            }
        }
        changed |= self.apply_by_path(by_path);
        if changed {
            self.sequence += 1;
            self.files = self.chunks.iter().map(|chunk| u64::from(chunk.files)).sum();
            self.bytes = self.chunks.iter().map(|chunk| chunk.size).sum();
            self.unlisted = self.totals_inside(UNLISTED);
        }
        changed
    }

    /// Number of shared files: all but the unlisted ones.
    pub fn files(&self) -> u64 {
        self.files - self.unlisted.0
    }

    /// Bytes of these files together.
    pub fn bytes(&self) -> u64 {
        self.bytes - self.unlisted.1
    }

    /// Number of unlisted files.
    pub fn unlisted_files(&self) -> u64 {
        self.unlisted.0
    }

    /// The unlisted files, by content.
    pub fn unlisted(&self) -> impl Iterator<Item = FileEntry> + '_ {
        self.rows_from(UNLISTED).take_while(|row| is_unlisted(&row.path)).map(Row::into_entry)
    }

    /// Rises with every change.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The name of the whole list: BLAKE3 over the names of its chunks.
    pub fn root(&self) -> [u8; 32] {
        root(self.chunks.iter().map(|chunk| &chunk.hash))
    }

    /// All chunks in path order.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = ChunkInfo> + '_ {
        self.chunks.iter().map(|chunk| ChunkInfo {
            hash: chunk.hash,
            files: chunk.files,
            bytes: chunk.bytes.len() as u32,
        })
    }

    /// The encoded bytes of a chunk.
    pub fn chunk_bytes(&self, hash: &ChunkHash) -> Option<&[u8]> {
        self.chunks.iter().find(|chunk| chunk.hash == *hash).map(|chunk| &*chunk.bytes)
    }

    /// The names of the chunks that `older` lacks.
    pub fn chunks_since(&self, older: &Self) -> Vec<ChunkHash> {
        let known: FxHashSet<_> = older.chunks.iter().map(|chunk| chunk.hash).collect();
        self.chunks.iter().map(|chunk| chunk.hash).filter(|hash| !known.contains(hash)).collect()
    }

    /// The file with this path.
    pub fn find(&self, path: &str) -> Option<FileEntry> {
        let chunk = self.chunks.get(self.chunk_of(path)?)?;
        chunk.rows().find(|row| row.path == path).map(Row::into_entry)
    }

    /// Files and bytes below a folder; the share's name is a folder.
    pub fn totals(&self, folder: &str) -> (u64, u64) {
        self.totals_inside(&format!("{folder}/"))
    }

    /// The shares that have files.
    pub fn share_names(&self) -> Vec<String> {
        let (mut names, mut from) = (Vec::new(), String::new());
        loop {
            let next = self.rows_from(&from).next();
            let Some((name, _)) = next.as_ref().and_then(|row| row.path.split_once('/')) else { return names };
            let name = name.to_owned();
            from = successor(&format!("{name}/"));
            if !name.is_empty() {
                names.push(name);
            }
        }
    }

    /// One page of what lies in a folder, or of all files below it. `None` if there is neither a folder nor
    /// a file of that path; the empty path is the folder of all shares and always exists.
    ///
    /// A folder's page has the folders first, each with what lies below it, then the files; a recursive one
    /// has files only, in path order. A file's page is the file.
    pub fn browse(&self, path: &str, recursive: bool, after: Option<&Cursor>, limit: usize) -> Option<Page> {
        let path = path.trim_end_matches('/');
        if is_unlisted(path) {
            return None;
        }
        if let Some(file) = self.find(path) {
            return Some(Page { items: vec![Item::Entry(file)], next: None });
        }
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        if !below.is_empty() && self.rows_from(&below).next().is_none_or(|row| !row.path.starts_with(&below)) {
            return None;
        }
        let mut page = PageBuilder { items: Vec::new(), limit: limit.max(1) };
        let complete = (recursive || self.list_folders(&below, after, &mut page))
            && self.list_files(&below, recursive, after, &mut page);
        let next = if complete { None } else { page.items.last().map(Item::cursor) };
        Some(Page { items: page.items, next })
    }

    /// Applies changes that are sorted and free of duplicates: `None` removes.
    fn apply_by_path(&mut self, changes: BTreeMap<String, Option<FileEntry>>) -> bool {
        let mut changed = false;
        let mut changes = changes.into_iter().peekable();
        // Chunks only grow, shrink or split behind the place that is looked at, so one pass suffices.
        let mut at = 0;
        while let Some((path, _)) = changes.peek() {
            at += self.chunks[at..].partition_point(|chunk| *chunk.first <= **path).saturating_sub(1);
            let border = self.chunks.get(at + 1).map(|next| next.first.clone());
            let mut group = Vec::new();
            while let Some(change) = changes.next_if(|(path, _)| border.as_ref().is_none_or(|border| **path < **border))
            {
                group.push(change);
            }
            let Some(files) = self.merged(at, group) else { continue };
            changed = true;
            let parts = split(files);
            let (start, count) = (at, parts.len());
            self.chunks.splice(at..(at + 1).min(self.chunks.len()), parts);
            at = (start + count).saturating_sub(1);
            at -= self.merge_small(start, count).min(at);
        }
        changed
    }

    /// The files of a chunk after a group of changes; `None` if they change nothing.
    fn merged(&self, at: usize, group: Vec<(String, Option<FileEntry>)>) -> Option<Vec<FileEntry>> {
        let old: Vec<FileEntry> =
            self.chunks.get(at).map(|chunk| chunk.rows().map(Row::into_entry).collect()).unwrap_or_default();
        let before = old.len();
        let mut changed = false;
        let mut files = Vec::with_capacity(before + group.len());
        let mut old = old.into_iter().peekable();
        for (path, new) in group {
            while let Some(file) = old.next_if(|file| file.path < path) {
                files.push(file);
            }
            let replaced = old.next_if(|file| file.path == path);
            changed |= replaced != new;
            files.extend(new);
        }
        files.extend(old);
        changed.then_some(files)
    }

    /// Merges chunks among `count` from `start` on that became small with a neighbour; returns by how many
    /// the list got shorter at or before the last of them.
    fn merge_small(&mut self, start: usize, count: usize) -> usize {
        let mut merged = 0;
        for at in (start..start + count).rev() {
            let Some(chunk) = self.chunks.get(at) else { continue };
            if chunk.files as usize >= limits::CHUNK_FILES_LOW {
                continue;
            }
            let fits = |other: usize| {
                self.chunks.get(other).is_some_and(|other| {
                    (chunk.files + other.files) as usize <= MERGE_FILES
                        && chunk.bytes.len() + other.bytes.len() <= MERGE_BYTES
                })
            };
            let left = if at > 0 && fits(at - 1) {
                at - 1
            } else if fits(at + 1) {
                at
            } else {
                continue;
            };
            let both = self.chunks[left..left + 2].iter().flat_map(|chunk| chunk.rows().map(Row::into_entry));
            let one = encode(&both.collect::<Vec<_>>());
            self.chunks.splice(left..left + 2, [one]);
            merged += 1;
        }
        merged
    }

    fn remove_folder(&mut self, folder: &str) -> bool {
        let below = format!("{}/", folder.trim_end_matches('/'));
        let end = successor(&below);
        let before = self.chunks.len();
        // Whole chunks go without being decoded; at most two remain that reach beyond the folder.
        self.chunks.retain(|chunk| !(*chunk.first >= *below && *chunk.last < *end));
        let whole = before != self.chunks.len();
        let rest = self.rows_from(&below).take_while(|row| *row.path < *end);
        let rest: BTreeMap<_, _> = rest.map(|row| (row.path.into_owned(), None)).collect();
        let part = self.apply_by_path(rest);
        whole || part
    }

    /// The files whose paths start with `prefix`, in order. Their text is borrowed: one look at a million files
    /// allocates little.
    #[cfg(feature = "net")]
    pub(crate) fn rows_below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = Row<'a>> + 'a {
        self.rows_from(prefix).take_while(move |row| row.path.starts_with(prefix))
    }

    /// The chunk in which a path lies, or would lie.
    fn chunk_of(&self, path: &str) -> Option<usize> {
        self.chunks.partition_point(|chunk| *chunk.first <= *path).checked_sub(1)
    }

    /// All rows from the first path that is not below `start`, in order.
    fn rows_from<'a>(&'a self, start: &'a str) -> impl Iterator<Item = Row<'a>> + 'a {
        let at = self.chunk_of(start).unwrap_or(0);
        self.chunks[at..].iter().flat_map(|chunk| chunk.rows()).skip_while(move |row| *row.path < *start)
    }

    /// Adds the folders right below a prefix; true if none is left.
    fn list_folders(&self, below: &str, after: Option<&Cursor>, page: &mut PageBuilder) -> bool {
        let mut from = match after {
            Some(Cursor::Entry(_)) => return true,
            Some(Cursor::Folder(folder)) => successor(&format!("{folder}/")).max(below.to_owned()),
            None => below.to_owned(),
        };
        loop {
            let next = self
                .rows_from(&from)
                .map_while(|row| row.path.strip_prefix(below).map(str::to_owned))
                .find_map(|rest| rest.split_once('/').map(|(name, _)| name.to_owned()));
            let Some(name) = next else { return true };
            if page.is_full() {
                return false;
            }
            let inside = format!("{below}{name}/");
            if is_unlisted(&inside) {
                from = successor(&inside);
                continue;
            }
            let (files, bytes) = self.totals_inside(&inside);
            from = successor(&inside);
            page.items.push(Item::Folder(Folder { path: format!("{below}{name}"), name, files, bytes }));
        }
    }

    /// Adds the files below a prefix, only those right below it unless recursive; true if none is left.
    fn list_files(&self, below: &str, recursive: bool, after: Option<&Cursor>, page: &mut PageBuilder) -> bool {
        let from = match after {
            // NUL is the lowest character: the first path that can follow.
            Some(Cursor::Entry(path)) => format!("{path}\0").max(below.to_owned()),
            _ => below.to_owned(),
        };
        for row in self.rows_from(&from) {
            let Some(rest) = row.path.strip_prefix(below) else { break };
            if (!recursive && rest.contains('/')) || is_unlisted(&row.path) {
                continue;
            }
            if page.is_full() {
                return false;
            }
            page.items.push(Item::Entry(row.into_entry()));
        }
        true
    }

    /// Files and bytes below a prefix. Chunks that lie wholly below it are not decoded.
    fn totals_inside(&self, inside: &str) -> (u64, u64) {
        let end = successor(inside);
        let start = self.chunk_of(inside).unwrap_or(0);
        let mut totals = (0, 0);
        for chunk in self.chunks[start..].iter().take_while(|chunk| *chunk.first < *end) {
            if *chunk.first >= *inside && *chunk.last < *end {
                totals = (totals.0 + u64::from(chunk.files), totals.1 + chunk.size);
                continue;
            }
            for row in chunk.rows().filter(|row| row.path.starts_with(inside)) {
                totals = (totals.0 + 1, totals.1 + row.size);
            }
        }
        totals
    }
}

/// The name of a file list with these chunks: what a leaf signs and a home compares.
pub fn root<'a>(hashes: impl IntoIterator<Item = &'a ChunkHash>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("quictrack/1 catalog root");
    for hash in hashes {
        hasher.update(hash);
    }
    *hasher.finalize().as_bytes()
}

/// One run of the list.
#[derive(Debug)]
struct Chunk {
    first: Box<str>,
    last: Box<str>,
    hash: ChunkHash,
    files: u32,
    /// Bytes of its files together.
    size: u64,
    /// Postcard of the sorted files.
    bytes: Box<[u8]>,
}

impl Chunk {
    fn new(first: &str, last: &str, files: usize, size: u64, bytes: Vec<u8>) -> Self {
        let hash = batch::chunk_hash(&bytes);
        Self { first: first.into(), last: last.into(), hash, files: files as u32, size, bytes: bytes.into() }
    }

    /// The chunk with this name, if these are its bytes.
    fn restore(hash: ChunkHash, bytes: Vec<u8>) -> Result<Self, CatalogError> {
        if batch::chunk_hash(&bytes) != hash {
            return Err(CatalogError::Chunk(BatchError::WrongHash));
        }
        let malformed = |_| CatalogError::Chunk(BatchError::Malformed);
        let (files, mut rest) = postcard::take_from_bytes::<u32>(&bytes).map_err(malformed)?;
        let (mut first, mut last, mut size) = (None, Box::default(), 0);
        for at in 1..=files {
            let (row, next) = postcard::take_from_bytes::<Row<'_>>(rest).map_err(malformed)?;
            rest = next;
            size += row.size;
            if first.is_none() {
                first = Some(Box::from(&*row.path));
            }
            if at == files {
                last = row.path.into();
            }
        }
        let first = first.ok_or(CatalogError::Order)?;
        Ok(Self { first, last, hash, files, size, bytes: bytes.into() })
    }

    /// Its files, decoded one by one without copying their text.
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let mut left = self.files;
        let mut rest: &[u8] = postcard::take_from_bytes::<u32>(&self.bytes).map_or(&[], |(_, rest)| rest);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let (row, next) =
                postcard::take_from_bytes(rest).expect("chunks hold what was encoded here or checked by restore");
            rest = next;
            Some(row)
        })
    }
}

/// A [`FileEntry`] that borrows its text from the chunk. Same fields, same order, same encoding.
#[derive(Debug, Deserialize)]
pub(crate) struct Row<'a> {
    #[serde(borrow)]
    pub(crate) path: Cow<'a, str>,
    pub(crate) content: ContentId,
    pub(crate) size: u64,
    pub(crate) modified_s: i64,
    pub(crate) tags: Tags,
}

impl Row<'_> {
    fn into_entry(self) -> FileEntry {
        let Row { path, content, size, modified_s, tags } = self;
        FileEntry { path: path.into_owned(), content, size, modified_s, tags }
    }
}

fn encode(files: &[FileEntry]) -> Arc<Chunk> {
    let (first, last) = (files.first().map_or("", |file| &file.path), files.last().map_or("", |file| &file.path));
    let size = files.iter().map(|file| file.size).sum();
    Arc::new(Chunk::new(first, last, files.len(), size, batch::encode_chunk(files)))
}

/// Cuts sorted files into chunks within the limits, halving until they fit.
fn split(files: Vec<FileEntry>) -> Vec<Arc<Chunk>> {
    let lengths: Vec<usize> = files.iter().map(encoded_length).collect();
    let mut chunks = Vec::new();
    let mut left = Vec::new();
    left.push(0..files.len());
    while let Some(range) = left.pop() {
        let bytes = COUNT_BYTES + lengths[range.clone()].iter().sum::<usize>();
        if range.len() > limits::CHUNK_FILES || (bytes > limits::CHUNK_BYTES && range.len() > 1) {
            let middle = range.start + range.len() / 2;
            left.push(middle..range.end);
            left.push(range.start..middle);
        } else if !range.is_empty() {
            chunks.push(encode(&files[range]));
        }
    }
    chunks
}

fn encoded_length(file: &FileEntry) -> usize {
    postcard::experimental::serialized_size(file).unwrap_or(limits::CHUNK_BYTES)
}

/// The lowest text above all that start with `prefix`, which ends in `/`.
fn successor(prefix: &str) -> String {
    let mut text = prefix.to_owned();
    if text.pop().is_some() {
        // The character after '/'.
        text.push('0');
    }
    text
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cursor {
    /// After the folder of this path; folders may follow, then all files.
    Folder(String),
    /// After the file of this path.
    Entry(String),
}

/// A folder in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// From the share's name on.
    pub path: String,
    /// Its last component.
    pub name: String,
    /// Files below it, at any depth.
    pub files: u64,
    /// Bytes of these files together.
    pub bytes: u64,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// A folder.
    Folder(Folder),
    /// A file.
    Entry(FileEntry),
}

impl Item {
    /// The last component of its path.
    pub fn name(&self) -> &str {
        match self {
            Self::Folder(folder) => &folder.name,
            Self::Entry(file) => file_name(&file.path),
        }
    }

    fn cursor(&self) -> Cursor {
        match self {
            Self::Folder(folder) => Cursor::Folder(folder.path.clone()),
            Self::Entry(file) => Cursor::Entry(file.path.clone()),
        }
    }
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What it lists.
    pub items: Vec<Item>,
    /// Where the next one goes on; `None` at the end.
    pub next: Option<Cursor>,
}

struct PageBuilder {
    items: Vec<Item>,
    limit: usize,
}

impl PageBuilder {
    fn is_full(&self) -> bool {
        self.items.len() >= self.limit
    }
}

/// Why a list could not be restored. What was stored is damaged; a scan makes it anew.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// A chunk is empty, or does not follow the one before it.
    #[error("stored chunks are not in order")]
    Order,
    /// A chunk cannot be read.
    #[error("stored chunk: {0}")]
    Chunk(#[from] BatchError),
}

#[cfg(test)]
mod tests;
