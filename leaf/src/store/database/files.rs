//! Records of files: by path, by content, by inode.
//!
//! A path stands in two tables and a content id in one, because a million files make of every byte a megabyte. Eight bytes
//! of the id lead to few records, and each is compared whole before it counts.
//!
//! Measured after a scan of 60,000 files with paths of 40 bytes: 308 bytes a file in pages, of which 60 are free room in
//! them, 35 the file list, and 28 what pages know of their entries. The file takes 385 on the disk, for pages that were
//! written anew lie beside the old ones, and seems to have 594, because it doubles when it grows and the rest is a hole.
//! Compaction would give back the difference in some 3 seconds for a million files, in which nothing else could be
//! recorded, so nobody calls it.

use std::collections::BTreeSet;

use overlay::{id::ContentId, limits};
use redb::{ReadableDatabase, ReadableTable};

use super::{Batch, CONTENTS, Database, DatabaseError, FILES, INODES, encode};
use crate::store::record::{Place, Record, Stamp, file_key};

/// The first bytes of a content id.
type Head = [u8; 8];

/// Some paths below a root, and after which one to go on; `None` at the end.
pub(in crate::store) type PathsPage = (Vec<Vec<u8>>, Option<Vec<u8>>);

impl Database {
    /// The records as they are now. They stay so for whoever holds this, and what is removed meanwhile keeps its place
    /// in the file: not to be held for long.
    pub(in crate::store) fn records(&self) -> Result<Records, DatabaseError> {
        self.with(|inner, _| {
            let transaction = inner.begin_read()?;
            Ok(Records {
                files: transaction.open_table(FILES)?,
                inodes: transaction.open_table(INODES)?,
                contents: transaction.open_table(CONTENTS)?,
            })
        })
    }

    /// The record of a file.
    pub(in crate::store) fn record(&self, place: &Place) -> Result<Option<Record>, DatabaseError> {
        self.value(FILES, &place.key())
    }

    /// Where a content lies, at most `limit` places.
    pub(in crate::store) fn places(&self, content: &ContentId, limit: usize) -> Result<Vec<Place>, DatabaseError> {
        let mut places = Vec::new();
        self.records()?.each_with_head(&head(content), |key, record| {
            if record.content == *content {
                places.extend(Place::from_key(key));
            }
            places.len() < limit
        })?;
        Ok(places)
    }

    /// The contents whose ids start with these bytes, ascending, at most `limit`.
    pub(in crate::store) fn contents_from(&self, prefix: &[u8], limit: usize) -> Result<Vec<ContentId>, DatabaseError> {
        let mut found = BTreeSet::new();
        let heads = &prefix[..prefix.len().min(size_of::<Head>())];
        self.records()?.each_with_head(heads, |_, record| {
            if record.content.0.starts_with(prefix) {
                found.insert(record.content);
            }
            // Those with one head come in the order of their files.
            found.len() <= limit
        })?;
        Ok(found.into_iter().take(limit).collect())
    }

    /// The paths on record at or below a path of a root that `choose` chooses, in order, after `after`; at most `limit`
    /// are looked at. The second value says where to go on.
    pub(in crate::store) fn paths_below(
        &self,
        root: u32,
        below: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        choose: impl Fn(&[u8], &Record) -> bool,
    ) -> Result<PathsPage, DatabaseError> {
        let (mut chosen, mut seen, mut last) = (Vec::new(), 0, None);
        self.records()?.each_after(root, below, after, |path, record| {
            if choose(path, &record) {
                chosen.push(path.to_vec());
            }
            seen += 1;
            last = (seen >= limit).then(|| path.to_vec());
            seen < limit
        })?;
        Ok((chosen, last))
    }

    /// Writes and removes records of a root in one transaction. Returns the contents that lie nowhere now.
    pub(in crate::store) fn update_files(
        &self,
        root: u32,
        puts: &[(Vec<u8>, &Record)],
        removes: &[Vec<u8>],
    ) -> Result<Vec<ContentId>, DatabaseError> {
        let batch = self.write()?;
        let mut dropped = Vec::new();
        batch.change_files(|tables| {
            let keyed = puts.iter().map(|(below, record)| (file_key(root, below), *record)).collect();
            tables.put_all(keyed, &mut dropped)?;
            for below in removes {
                dropped.extend(tables.remove(&file_key(root, below))?);
            }
            Ok(())
        })?;
        batch.commit()?;
        dropped.sort_unstable();
        dropped.dedup();
        let mut orphans = Vec::new();
        for content in dropped {
            if self.places(&content, 1)?.is_empty() {
                orphans.push(content);
            }
        }
        Ok(orphans)
    }
}

/// The records of one moment.
pub(in crate::store) struct Records {
    files: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
    inodes: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
    contents: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Records {
    /// The record of a file.
    pub(in crate::store) fn record(&self, place: &Place) -> Result<Option<Record>, DatabaseError> {
        self.under(&place.key())
    }

    /// The record of a file with this stamp, wherever it lay when it was hashed.
    pub(in crate::store) fn of_stamp(&self, stamp: &Stamp) -> Result<Option<Record>, DatabaseError> {
        if stamp.inode == 0 {
            return Ok(None);
        }
        let Some(head) = self.inodes.get(&inode_key(stamp)[..]).map_err(redb::Error::from)? else { return Ok(None) };
        let (mut found, mut tries) = (None, 0..limits::PLACES_TRIED);
        self.each_with_head(head.value(), |_, record| {
            found = Some(record).filter(|record| record.stamp == *stamp);
            found.is_none() && tries.next().is_some()
        })?;
        Ok(found)
    }

    /// Visits the records of contents whose ids start like this, by that start, until `visit` returns false.
    fn each_with_head(&self, heads: &[u8], mut visit: impl FnMut(&[u8], Record) -> bool) -> Result<(), DatabaseError> {
        for entry in self.contents.range(heads..).map_err(redb::Error::from)? {
            let (key, _) = entry.map_err(redb::Error::from)?;
            let Some((_, file)) = key.value().split_first_chunk::<8>().filter(|_| key.value().starts_with(heads))
            else {
                break;
            };
            let Some(record) = self.under(file)? else { continue };
            if !visit(file, record) {
                break;
            }
        }
        Ok(())
    }

    /// Visits all that is at or below a path of a root, in order, until `visit` returns false.
    pub(in crate::store) fn each_below(
        &self,
        root: u32,
        below: &[u8],
        visit: impl FnMut(&[u8], Record) -> bool,
    ) -> Result<(), DatabaseError> {
        self.each_after(root, below, None, visit)
    }

    /// Visits what comes after a path, too.
    fn each_after(
        &self,
        root: u32,
        below: &[u8],
        after: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], Record) -> bool,
    ) -> Result<(), DatabaseError> {
        if !below.is_empty()
            && after.is_none()
            && let Some(record) = self.under(&file_key(root, below))?
            && !visit(below, record)
        {
            return Ok(());
        }
        // Not "a b" and all the others that a file named "a" has beside it.
        let prefix = if below.is_empty() { file_key(root, below) } else { [&file_key(root, below)[..], b"/"].concat() };
        let start = after.map_or_else(|| prefix.clone(), |after| file_key(root, after).max(prefix.clone()));
        for entry in self.files.range(&start[..]..).map_err(redb::Error::from)? {
            let (key, value) = entry.map_err(redb::Error::from)?;
            if !key.value().starts_with(&prefix) {
                break;
            }
            let path = &key.value()[4..];
            let Some(record) = decode(value.value()).filter(|_| after != Some(path)) else { continue };
            if !visit(path, record) {
                break;
            }
        }
        Ok(())
    }

    fn under(&self, key: &[u8]) -> Result<Option<Record>, DatabaseError> {
        let value = self.files.get(key).map_err(redb::Error::from)?;
        Ok(value.and_then(|value| decode(value.value())))
    }
}

impl Batch<'_> {
    /// Changes records together.
    fn change_files(
        &self,
        change: impl FnOnce(&mut FileTables<'_>) -> Result<(), redb::StorageError>,
    ) -> Result<(), DatabaseError> {
        self.act(|inner| {
            let (files, inodes) = (inner.open_table(FILES)?, inner.open_table(INODES)?);
            Ok(change(&mut FileTables { files, inodes, contents: inner.open_table(CONTENTS)? })?)
        })
    }
}

type OpenTable<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

/// The tables that records lie in, to be changed together.
struct FileTables<'a> {
    files: OpenTable<'a>,
    inodes: OpenTable<'a>,
    contents: OpenTable<'a>,
}

impl FileTables<'_> {
    /// Writes records. Adds the contents that lie under their keys no more. Table by table, each in its own order, so
    /// that neighbours meet the same page.
    fn put_all(
        &mut self,
        mut puts: Vec<(Vec<u8>, &Record)>,
        dropped: &mut Vec<ContentId>,
    ) -> Result<(), redb::StorageError> {
        puts.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (key, record) in &puts {
            let old = self.files.insert(&key[..], &encode(record)[..])?.and_then(|old| decode(old.value()));
            dropped.extend(self.unlink(key, old, Some(record))?);
        }
        let mut inodes: Vec<_> = puts.iter().filter(|(_, record)| record.stamp.inode != 0).collect();
        inodes.sort_by_key(|(_, record)| inode_key(&record.stamp));
        for (_, record) in inodes {
            self.inodes.insert(&inode_key(&record.stamp)[..], &head(&record.content)[..])?;
        }
        let mut contents: Vec<_> = puts.iter().map(|(key, record)| content_key(&record.content, key)).collect();
        contents.sort_unstable();
        for key in contents {
            self.contents.insert(&key[..], &[][..])?;
        }
        Ok(())
    }

    /// Removes a record. Returns the content that lies under this key no more.
    fn remove(&mut self, key: &[u8]) -> Result<Option<ContentId>, redb::StorageError> {
        let old = self.files.remove(key)?.and_then(|old| decode(old.value()));
        self.unlink(key, old, None)
    }

    /// Removes what points at the record that was under `key`, unless the one that replaces it needs it.
    fn unlink(
        &mut self,
        key: &[u8],
        old: Option<Record>,
        new: Option<&Record>,
    ) -> Result<Option<ContentId>, redb::StorageError> {
        let Some(old) = old else { return Ok(None) };
        let stays = new.is_some_and(|new| new.content == old.content);
        if !stays {
            self.contents.remove(&content_key(&old.content, key)[..])?;
        }
        let inode = inode_key(&old.stamp);
        let leads_here = self.inodes.get(&inode[..])?.is_some_and(|at| at.value() == head(&old.content));
        // A file that was moved is already on record at its new place.
        if leads_here && !self.is_elsewhere(key, &old)? {
            self.inodes.remove(&inode[..])?;
        }
        Ok((!stays).then_some(old.content))
    }

    /// True if the same file is on record under another key, or may be.
    fn is_elsewhere(&self, key: &[u8], old: &Record) -> Result<bool, redb::StorageError> {
        let head = head(&old.content);
        for (tries, entry) in self.contents.range(&head[..]..)?.enumerate() {
            let (other, _) = entry?;
            let Some(file) = other.value().strip_prefix(&head) else { return Ok(false) };
            let record = self.files.get(file)?.filter(|_| file != key).and_then(|record| decode(record.value()));
            let is_same =
                |record: Record| (record.stamp.device, record.stamp.inode) == (old.stamp.device, old.stamp.inode);
            if tries >= limits::PLACES_TRIED || record.is_some_and(is_same) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A record; `None` if it was written by a version that this one cannot read.
fn decode(bytes: &[u8]) -> Option<Record> {
    postcard::from_bytes(bytes).ok()
}

fn inode_key(stamp: &Stamp) -> [u8; 16] {
    ((u128::from(stamp.device) << 64) | u128::from(stamp.inode)).to_be_bytes()
}

fn head(content: &ContentId) -> Head {
    *content.0.first_chunk().expect("an id is longer than its head")
}

fn content_key(content: &ContentId, file: &[u8]) -> Vec<u8> {
    [&head(content), file].concat()
}

#[cfg(test)]
pub(super) mod tests {
    use overlay::file::Tags;

    use super::*;

    pub(in crate::store::database) fn record(inode: u64, content: u8) -> Record {
        let stamp = Stamp { device: 1, inode, size: 5, modified_s: 6, modified_ns: 7 };
        Record { stamp, content: ContentId([content; 32]), tags: Tags::default() }
    }

    fn place(root: u32, below: &str) -> Place {
        Place { root, below: below.into() }
    }

    #[test]
    fn a_record_is_found_by_path_inode_and_content() {
        let folder = tempfile::tempdir().unwrap();
        let (database, aside) = Database::open(&folder.path().join("state.redb")).unwrap();
        assert_eq!(aside, None);
        database.update_files(1, &[(b"a".into(), &record(9, 1)), (b"b/c".into(), &record(8, 1))], &[]).unwrap();
        assert_eq!(database.record(&place(1, "a")).unwrap(), Some(record(9, 1)));
        assert_eq!(database.record(&place(2, "a")).unwrap(), None);
        assert_eq!(database.records().unwrap().of_stamp(&record(9, 0).stamp).unwrap(), Some(record(9, 1)));
        let touched = Stamp { modified_ns: 8, ..record(9, 0).stamp };
        assert_eq!(database.records().unwrap().of_stamp(&touched).unwrap(), None);
        assert_eq!(database.places(&ContentId([1; 32]), 9).unwrap(), [place(1, "a"), place(1, "b/c")]);
        assert_eq!(database.contents_from(&[1, 1], 9).unwrap(), [ContentId([1; 32])]);
        assert_eq!(database.contents_from(&[2], 9).unwrap(), []);
    }

    #[test]
    fn a_content_is_orphaned_with_its_last_place() {
        let folder = tempfile::tempdir().unwrap();
        let (database, _) = Database::open(&folder.path().join("state.redb")).unwrap();
        database.update_files(1, &[(b"a".into(), &record(9, 1)), (b"b".into(), &record(8, 1))], &[]).unwrap();
        assert_eq!(database.update_files(1, &[], &[b"a".into()]).unwrap(), []);
        // The file changed: the old content lies nowhere.
        assert_eq!(database.update_files(1, &[(b"b".into(), &record(8, 2))], &[]).unwrap(), [ContentId([1; 32])]);
        assert_eq!(database.update_files(1, &[], &[b"b".into()]).unwrap(), [ContentId([2; 32])]);
        assert_eq!(database.records().unwrap().of_stamp(&record(8, 0).stamp).unwrap(), None);
    }

    #[test]
    fn a_moved_file_is_found_at_its_new_place() {
        let folder = tempfile::tempdir().unwrap();
        let (database, _) = Database::open(&folder.path().join("state.redb")).unwrap();
        database.update_files(1, &[(b"old".into(), &record(9, 1))], &[]).unwrap();
        database.update_files(1, &[(b"new".into(), &record(9, 1))], &[]).unwrap();
        assert_eq!(database.update_files(1, &[], &[b"old".into()]).unwrap(), []);
        assert_eq!(database.records().unwrap().of_stamp(&record(9, 1).stamp).unwrap(), Some(record(9, 1)));
    }

    #[test]
    fn paths_below_a_folder_come_in_pages() {
        let folder = tempfile::tempdir().unwrap();
        let (database, _) = Database::open(&folder.path().join("state.redb")).unwrap();
        let record = record(0, 1);
        let puts: Vec<_> = ["a", "a b", "a/1", "a/2", "ab/3"].iter().map(|path| ((*path).into(), &record)).collect();
        database.update_files(1, &puts, &[]).unwrap();
        let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
        loop {
            let (page, next) = database.paths_below(1, b"a", after.as_deref(), 1, |_, _| true).unwrap();
            found.extend(page);
            let Some(next) = next else { break };
            after = Some(next);
        }
        assert_eq!(found, [b"a".to_vec(), b"a/1".to_vec(), b"a/2".to_vec()]);
        assert_eq!(database.paths_below(1, b"", None, 100, |_, _| true).unwrap().0.len(), 5);
    }
}
