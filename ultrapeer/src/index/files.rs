//! The file side of a segment: everything that answers need, in path order.
//!
//! Paths are front-coded in blocks of [`BLOCK`], each followed by the rest of the file's record; content
//! ids stand apart, because they do not compress and most files that are looked at are not answered.
//!
//! ```text
//!   record: shared with the previous path | rest of the path | size | modified | tags
//! ```
//!
//! These bytes are only ever written by [`Files::build`]; should one be unreadable all the same, the
//! file is treated as absent.

use overlay::{
    file::{FileEntry, Tags, file_name},
    id::ContentId,
};

use super::postings::{read_counted, read_varint, write_counted, write_varint};

/// Files of a block: front-coding restarts so often. 16 costs a quarter of a byte a file in offsets.
const BLOCK: usize = 16;
/// Bytes of a record for which room is made. Measured: most take fewer.
const RECORD_BYTES: usize = 48;

/// Files of a segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    coded: Box<[u8]>,
    /// Start of each block in `coded`.
    blocks: Box<[u32]>,
    contents: Box<[ContentId]>,
}

/// One file of a segment, borrowed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileView<'a> {
    /// From the share's name to the file.
    pub path: &'a str,
    /// BLAKE3 of the bytes.
    pub content: ContentId,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970 UTC of the last change.
    pub modified_s: i64,
    /// What the file says about itself.
    pub tags: TagsView<'a>,
}

impl FileView<'_> {
    /// The last component of the path.
    pub fn name(&self) -> &str {
        file_name(self.path)
    }
}

/// Media tags, borrowed. As [`Tags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagsView<'a> {
    /// Artist, album, title and genre.
    text: [Option<&'a str>; 4],
    /// Year, track, bitrate and duration.
    numbers: [Option<u32>; 4],
}

impl<'a> TagsView<'a> {
    /// Who performs it.
    pub const fn artist(&self) -> Option<&'a str> {
        self.text[0]
    }

    /// The collection it belongs to.
    pub const fn album(&self) -> Option<&'a str> {
        self.text[1]
    }

    /// Its title.
    pub const fn title(&self) -> Option<&'a str> {
        self.text[2]
    }

    /// Year of release.
    pub const fn year(&self) -> Option<u32> {
        self.numbers[0]
    }

    /// kbit/s.
    pub const fn bitrate(&self) -> Option<u32> {
        self.numbers[2]
    }

    /// Length in seconds.
    pub const fn duration_s(&self) -> Option<u32> {
        self.numbers[3]
    }

    /// The text tags that are known: each is a field that words match in.
    pub fn texts(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text.into_iter().flatten()
    }

    /// How many tags are known.
    pub fn known(&self) -> usize {
        self.text.iter().flatten().count() + self.numbers.iter().flatten().count()
    }

    /// A copy that owns its text.
    pub fn to_tags(&self) -> Tags {
        let [artist, album, title, genre] = self.text.map(|text| text.map(Into::into));
        let short = |number: Option<u32>| number.map(|number| number as u16);
        Tags {
            artist,
            album,
            title,
            genre,
            year: short(self.numbers[0]),
            track: short(self.numbers[1]),
            bitrate: self.numbers[2],
            duration_s: self.numbers[3],
        }
    }

    fn of(tags: &'a Tags) -> Self {
        let Tags { artist, album, title, genre, year, track, bitrate, duration_s } = tags;
        Self {
            text: [artist, album, title, genre].map(Option::as_deref),
            numbers: [year.map(u32::from), track.map(u32::from), *bitrate, *duration_s],
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let known = self.text.iter().map(Option::is_some).chain(self.numbers.iter().map(Option::is_some));
        out.push(known.enumerate().fold(0, |bits, (bit, known)| bits | u8::from(known) << bit));
        for text in self.text.iter().flatten() {
            write_counted(out, text.as_bytes());
        }
        for number in self.numbers.iter().flatten() {
            write_varint(out, u64::from(*number));
        }
    }

    fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let (&bits, rest) = bytes.split_first()?;
        *bytes = rest;
        let mut tags = Self::default();
        for (bit, text) in tags.text.iter_mut().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1) {
            debug_assert!(bit < 4);
            *text = Some(std::str::from_utf8(read_counted(bytes)?).ok()?);
        }
        for (_, number) in tags.numbers.iter_mut().enumerate().filter(|(bit, _)| bits >> (bit + 4) & 1 == 1) {
            *number = Some(u32::try_from(read_varint(bytes)?).ok()?);
        }
        Some(tags)
    }
}

impl Files {
    /// From entries sorted by path, each of which begins with so many bytes like the one before it.
    pub(super) fn build(entries: &[FileEntry], shared: &[u32]) -> Self {
        let (mut coded, mut blocks) = (Vec::with_capacity(entries.len() * RECORD_BYTES), Vec::new());
        for (index, (entry, shared)) in entries.iter().zip(shared).enumerate() {
            let mut shared = *shared as usize;
            if index.is_multiple_of(BLOCK) {
                blocks.push(coded.len() as u32);
                shared = 0;
            }
            while !entry.path.is_char_boundary(shared) {
                shared -= 1;
            }
            write_varint(&mut coded, shared as u64);
            write_counted(&mut coded, &entry.path.as_bytes()[shared..]);
            write_varint(&mut coded, entry.size);
            write_varint(&mut coded, zigzag(entry.modified_s));
            TagsView::of(&entry.tags).write(&mut coded);
        }
        let contents = entries.iter().map(|entry| entry.content).collect();
        Self { coded: coded.into(), blocks: blocks.into(), contents }
    }

    /// Content ids by position.
    pub(super) fn contents(&self) -> &[ContentId] {
        &self.contents
    }

    /// All files, as they were built from.
    pub(super) fn entries(&self) -> Vec<FileEntry> {
        let mut cursor = FileCursor::new(self, String::new());
        let entry = |position| {
            let FileView { path, content, size, modified_s, tags } = cursor.read(position)?;
            Some(FileEntry { path: path.to_owned(), content, size, modified_s, tags: tags.to_tags() })
        };
        (0..self.contents.len() as u16).map_while(entry).collect()
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.coded.len() + size_of_val(&*self.blocks) + size_of_val(&*self.contents)
    }
}

/// Reads files of one segment; cheapest in ascending order.
#[derive(Debug)]
pub(super) struct FileCursor<'a> {
    files: &'a Files,
    rest: &'a [u8],
    /// Position of the record at the front of `rest`.
    next: usize,
    path: String,
}

impl<'a> FileCursor<'a> {
    /// `path` is a buffer whose memory is kept.
    pub(super) fn new(files: &'a Files, path: String) -> Self {
        Self { files, rest: &[], next: usize::MAX, path }
    }

    /// Gives the buffer back.
    pub(super) fn into_buffer(self) -> String {
        self.path
    }

    /// The file at that position; `None` if there is none.
    pub(super) fn read(&mut self, position: u16) -> Option<FileView<'_>> {
        let position = usize::from(position);
        let content = *self.files.contents.get(position)?;
        if position < self.next || position / BLOCK > self.next / BLOCK {
            let start = *self.files.blocks.get(position / BLOCK)?;
            self.rest = self.files.coded.get(start as usize..)?;
            self.next = position / BLOCK * BLOCK;
        }
        loop {
            if self.next.is_multiple_of(BLOCK) {
                self.path.clear();
            }
            let shared = usize::try_from(read_varint(&mut self.rest)?).ok()?;
            if !self.path.is_char_boundary(shared) {
                return None;
            }
            self.path.truncate(shared);
            self.path.push_str(std::str::from_utf8(read_counted(&mut self.rest)?).ok()?);
            let size = read_varint(&mut self.rest)?;
            let modified_s = unzigzag(read_varint(&mut self.rest)?);
            let tags = TagsView::read(&mut self.rest)?;
            self.next += 1;
            if self.next > position {
                return Some(FileView { path: &self.path, content, size, modified_s, tags });
            }
        }
    }
}

/// Small for small numbers of either sign.
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::segment::shared_starts, *};

    proptest! {
        #[test]
        fn signs_fold_and_unfold(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn files_are_read_back_in_any_order(
            names in prop::collection::btree_set("[aä/b]{1,6}", 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
            title in prop::option::of("\\PC{0,5}"),
            year: Option<u16>, modified_s: i64, size: u64,
        ) {
            let entries: Vec<_> = names.into_iter().enumerate().map(|(index, path)| FileEntry {
                path,
                content: ContentId([index as u8; 32]),
                size: size >> (index % 60),
                modified_s,
                tags: Tags { title: title.as_deref().map(Into::into), year, ..Tags::default() },
            }).collect();
            let files = Files::build(&entries, &shared_starts(&entries).unwrap());
            let mut cursor = FileCursor::new(&files, String::new());
            for index in order {
                let at = index.index(entries.len());
                let view = cursor.read(at as u16).unwrap();
                let entry = &entries[at];
                prop_assert_eq!((view.path, view.content, view.size), (&*entry.path, entry.content, entry.size));
                prop_assert_eq!(view.modified_s, entry.modified_s);
                prop_assert_eq!(view.tags.to_tags(), entry.tags.clone());
            }
            prop_assert_eq!(&files.entries(), &entries);
            prop_assert_eq!(cursor.read(entries.len() as u16), None);
        }
    }
}
