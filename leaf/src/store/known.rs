//! What is on record of a share when a pass over it begins, small enough to compare a million files with it.
//!
//! Records and file list are read once, side by side, in their common order. A hash of its path and stamp is what stays
//! of each record. So a file that is as it was costs the walk one look into memory: no look-up in the database, and
//! nothing is said to the file list. What is left over in the end was not seen as recorded: it changed, or is gone.

use std::{
    hash::{BuildHasher, RandomState},
    path::Path,
};

use rustc_hash::FxHashSet;

use super::{
    StoreError,
    database::Records,
    pass::PassRoot,
    path,
    record::{Record, Stamp},
};
use crate::catalog::{Catalog, Row};

/// What is on record at or below some paths: 8 bytes a file, whatever the length of its path.
#[derive(Debug, Default)]
pub(super) struct OnRecord {
    hasher: RandomState,
    /// On record, and in the list as recorded.
    listed: FxHashSet<u64>,
    /// On record; whether the list has it so is not known.
    unlisted: FxHashSet<u64>,
    /// Folders that could not be read; what is on record below them stays.
    unknown: Vec<Vec<u8>>,
}

/// What is known of a file that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is on record and listed so: nothing is to be done.
    Listed,
    /// It is on record; whether the list has it so is not known.
    Unlisted,
    /// It was not on record at this place when the pass began, or not like this.
    New,
}

impl OnRecord {
    /// Adds what is at or below a path, until `goes_on` says no. The records of a whole share are compared with the
    /// file list; `unrecorded` is told what is listed without a record, because a crash came between the two.
    pub(super) fn load(
        &mut self,
        (records, list): (&Records, &Catalog),
        root: &PassRoot,
        below: &[u8],
        goes_on: impl Fn() -> bool,
        unrecorded: impl FnMut(String),
    ) -> Result<(), StoreError> {
        let share = format!("{}/", root.name);
        let is_whole = below.is_empty();
        let mut listed = Listed { rows: list.rows_below(&share).peekable(), share: &share, unrecorded };
        records.each_below(root.id, below, |below, record| {
            let is_listed = is_whole && listed.has(below, &record);
            let hash = self.hash(below, &record.stamp);
            if is_listed { &mut self.listed } else { &mut self.unlisted }.insert(hash);
            goes_on()
        })?;
        if is_whole && goes_on() {
            listed.end();
        }
        Ok(())
    }

    /// Notes that a file was seen like this.
    pub(super) fn settle(&mut self, below: &Path, stamp: &Stamp) -> Seen {
        let hash = self.hash(&path::to_bytes(below), stamp);
        if self.listed.remove(&hash) {
            Seen::Listed
        } else if self.unlisted.remove(&hash) {
            Seen::Unlisted
        } else {
            Seen::New
        }
    }

    /// Notes that nothing is known of what lies below a folder: its records stay.
    pub(super) fn keep_below(&mut self, folder: &Path) {
        self.unknown.push(path::to_bytes(folder));
    }

    /// True if everything was seen as recorded.
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.unlisted.is_empty()
    }

    /// True if what is on record like this was there at the begin, and was not seen.
    pub(super) fn is_left(&self, below: &[u8], stamp: &Stamp) -> bool {
        let hash = self.hash(below, stamp);
        let lies_in = |folder: &Vec<u8>| below.strip_prefix(&folder[..]).is_some_and(|rest| rest.starts_with(b"/"));
        (self.listed.contains(&hash) || self.unlisted.contains(&hash)) && !self.unknown.iter().any(lies_in)
    }

    fn hash(&self, below: &[u8], stamp: &Stamp) -> u64 {
        self.hasher.hash_one((below, stamp))
    }
}

/// The files of a share in the list, passed once.
struct Listed<'a, I: Iterator<Item = Row<'a>>, U> {
    rows: std::iter::Peekable<I>,
    /// What stands in front of every path.
    share: &'a str,
    unrecorded: U,
}

impl<'a, I: Iterator<Item = Row<'a>>, U: FnMut(String)> Listed<'a, I, U> {
    /// True if the list has a file as it is recorded; to be asked in the order of the paths. A path that is no UTF-8
    /// is listed under another.
    fn has(&mut self, below: &[u8], record: &Record) -> bool {
        let share = self.share.len();
        while let Some(row) = self.rows.next_if(|row| row.path.as_bytes()[share..] < *below) {
            self.pass(&row);
        }
        let row = self.rows.next_if(|row| row.path.as_bytes()[share..] == *below);
        row.is_some_and(|row| {
            let Stamp { size, modified_s, .. } = record.stamp;
            (row.content, row.size, row.modified_s) == (record.content, size, modified_s) && row.tags == record.tags
        })
    }

    fn end(mut self) {
        while let Some(row) = self.rows.next() {
            self.pass(&row);
        }
    }

    fn pass(&mut self, row: &Row<'_>) {
        if !row.path.contains(char::REPLACEMENT_CHARACTER) {
            (self.unrecorded)(row.path.clone().into_owned());
        }
    }
}
