//! `DATA_DIR/state.redb`: what the leaf remembers, in one transactional file.
//!
//! | table | key | value |
//! |---|---|---|
//! | roots | path of a folder | [`Root`] |
//! | files | root, path below it | [`Record`](super::record::Record) |
//! | contents | begin of the content id, key in files | nothing: finds what to serve |
//! | inodes | device, inode | begin of the content id: finds what was moved, through contents |
//! | chunks, catalog | chunk hash; nothing | encoded chunk, compressed; sequence and order |
//! | others | by their owner | through [`Table`]: jobs, searches, wishes, ... |
//!
//! Everything but jobs can be made anew from the file system, and jobs that are not ended have copies beside the
//! database. So a damaged file is set aside and a new one started; keys, shares and partial files lie elsewhere and
//! survive. Damage that shows only later is noted in
//! `state.redb.damaged`, and the next start sets the file aside.
//!
//! A full disk fails the transaction that met it, and nothing else: the library refuses all work after a failed
//! write, so the file is opened again when it is needed next.
//!
//! All calls block on the disk: never from an async task. One write transaction runs at a time.

mod files;

use std::{
    fmt, fs, io,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use overlay::{batch::ChunkHash, limits};
use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError, TableHandle};
use rustc_hash::FxHashSet;
use serde::{Serialize, de::DeserializeOwned};

pub(super) use self::files::Records;
use super::record::Root;
use crate::{catalog::Catalog, steps::written};

type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

const ROOTS: Bytes = TableDefinition::new("roots");
const FILES: Bytes = TableDefinition::new("files");
const INODES: Bytes = TableDefinition::new("inodes");
const CONTENTS: Bytes = TableDefinition::new("contents");
const CHUNKS: Bytes = TableDefinition::new("chunks");
const CATALOG: Bytes = TableDefinition::new("catalog");

/// The open database.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    /// `None` while it cannot be opened again after a failure.
    inner: RwLock<Option<redb::Database>>,
    full: AtomicBool,
}

impl Database {
    /// Opens the database, or makes a new one. A damaged one is renamed to `state.redb.corrupt-N`; its new
    /// path is returned, for the user to be told.
    pub fn open(path: &Path) -> Result<(Self, Option<PathBuf>), DatabaseError> {
        let opened = if damage_note(path).exists() {
            Err(DatabaseError::Damaged("an earlier run met damage".into()))
        } else {
            Self::try_open(path)
        };
        match opened {
            Err(error) if error.is_damage() => {
                let aside = free_name(path);
                let access = |error: io::Error| DatabaseError::Access(error.to_string());
                match fs::rename(path, &aside) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(access(error)),
                    _ => {}
                }
                match fs::remove_file(damage_note(path)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(access(error)),
                    _ => {}
                }
                Ok((Self::try_open(path)?, Some(aside)))
            }
            other => Ok((other?, None)),
        }
    }

    fn try_open(path: &Path) -> Result<Self, DatabaseError> {
        let inner = guarded(|| with_tables(create(path)?))?;
        Ok(Self { path: path.to_owned(), inner: RwLock::new(Some(inner)), full: AtomicBool::new(false) })
    }

    /// True if the last transaction found the disk full.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// The folder that it lies in.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Runs `act` on the open database. After a failed write the library refuses everything: then it is opened
    /// again, once.
    fn with<'a, T>(
        &'a self,
        act: impl Fn(&redb::Database, RwLockReadGuard<'a, Option<redb::Database>>) -> Result<T, redb::Error>,
    ) -> Result<T, DatabaseError> {
        let attempt = || {
            let lock = || self.inner.read().unwrap_or_else(PoisonError::into_inner);
            guarded(|| match &*lock() {
                Some(inner) => act(inner, lock()),
                None => Err(redb::Error::PreviousIo),
            })
        };
        let result = match attempt() {
            Err(DatabaseError::Refused) => self.reopen().and_then(|()| attempt()),
            other => other,
        };
        self.noted(result)
    }

    /// Opens the file again, unless somebody is still at work with it: then the next attempt does.
    fn reopen(&self) -> Result<(), DatabaseError> {
        let Ok(mut inner) = self.inner.try_write() else { return Err(DatabaseError::Refused) };
        // Its lock on the file must be gone first.
        *inner = None;
        *inner = Some(guarded(|| create(&self.path))?);
        Ok(())
    }

    /// Remembers what a failure says of the disk and the file.
    fn noted<T>(&self, result: Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        match &result {
            Err(DatabaseError::Full) => self.full.store(true, Ordering::Relaxed),
            Err(error) if error.is_damage() => {
                tracing::error!(%error, "the database is damaged; the next start sets it aside and makes a new one");
                if let Err(error) = fs::write(damage_note(&self.path), []) {
                    tracing::warn!(%error, "that cannot be noted");
                }
            }
            _ => {}
        }
        result
    }

    /// The value under a key; `None` also if it was written by a version that this one cannot read.
    pub fn get<V: DeserializeOwned>(&self, table: &Table<V>, key: &[u8]) -> Result<Option<V>, DatabaseError> {
        self.read(table.definition, |table| {
            Ok(table.get(key)?.and_then(|value| postcard::from_bytes(value.value()).ok()))
        })
        .map(Option::flatten)
    }

    /// All readable entries of a table, by key, at most `limit`.
    pub fn all<V: DeserializeOwned>(&self, table: &Table<V>, limit: usize) -> Result<Vec<(Vec<u8>, V)>, DatabaseError> {
        let entries = self.read(table.definition, |table| {
            let mut entries = Vec::new();
            for entry in table.iter()?.take(limit) {
                let (key, value) = entry?;
                if let Ok(value) = postcard::from_bytes(value.value()) {
                    entries.push((key.value().to_vec(), value));
                }
            }
            Ok(entries)
        })?;
        Ok(entries.unwrap_or_default())
    }

    /// Starts a transaction. It waits for the one before, and counts only once it is committed.
    pub fn write(&self) -> Result<Batch<'_>, DatabaseError> {
        let (inner, open) = self.with(|inner, open| Ok((inner.begin_write()?, open)))?;
        Ok(Batch { inner, database: self, _open: open })
    }

    /// Runs `read` on a table; `None` if nothing was ever written to it.
    fn read<T>(
        &self,
        table: Bytes,
        read: impl Fn(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T, redb::StorageError>,
    ) -> Result<Option<T>, DatabaseError> {
        self.with(|inner, _| match inner.begin_read()?.open_table(table) {
            Ok(table) => Ok(Some(read(&table)?)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    fn value<V: DeserializeOwned>(&self, table: Bytes, key: &[u8]) -> Result<Option<V>, DatabaseError> {
        self.get(&Table { definition: table, value: PhantomData }, key)
    }

    /// All roots, by path.
    pub(super) fn roots(&self) -> Result<Vec<(Vec<u8>, Root)>, DatabaseError> {
        self.all(&Table { definition: ROOTS, value: PhantomData }, usize::MAX)
    }

    /// Writes a root.
    pub(super) fn put_root(&self, path: &[u8], root: &Root) -> Result<(), DatabaseError> {
        let mut batch = self.write()?;
        batch.insert(ROOTS, path, &encode(root))?;
        batch.commit()
    }

    /// Forgets a root, which must have no records any more.
    pub(super) fn remove_root(&self, path: &[u8]) -> Result<(), DatabaseError> {
        let mut batch = self.write()?;
        batch.delete(ROOTS, path)?;
        batch.commit()
    }

    /// The catalog as it was last saved; `None` if there is none, or it is damaged.
    pub(super) fn load_catalog(&self) -> Result<Option<Catalog>, DatabaseError> {
        let Some((sequence, hashes)) = self.value::<(u64, Vec<ChunkHash>)>(CATALOG, b"")? else { return Ok(None) };
        let chunks = self.read(CHUNKS, |table| {
            let mut chunks = Vec::with_capacity(hashes.len());
            for hash in &hashes {
                let bytes = table.get(&hash[..])?.and_then(|bytes| unpack(bytes.value()));
                chunks.extend(bytes.map(|bytes| (*hash, bytes)));
            }
            Ok(chunks)
        })?;
        let chunks = chunks.unwrap_or_default();
        if chunks.len() != hashes.len() {
            return Ok(None);
        }
        Ok(Catalog::restore(sequence, chunks).ok())
    }

    /// Saves the catalog. Only chunks that changed since it was last saved are touched, not the hundred megabytes of
    /// a large list.
    pub(super) fn save_catalog(&self, catalog: &Catalog) -> Result<(), DatabaseError> {
        let hashes: Vec<ChunkHash> = catalog.chunks().map(|chunk| chunk.hash).collect();
        let saved = self.value::<(u64, Vec<ChunkHash>)>(CATALOG, b"")?.map_or_else(Vec::new, |(_, hashes)| hashes);
        let wanted: FxHashSet<&ChunkHash> = hashes.iter().collect();
        let mut batch = self.write()?;
        batch.act(|inner| {
            let mut table = inner.open_table(CHUNKS)?;
            for hash in saved.iter().filter(|hash| !wanted.contains(hash)) {
                table.remove(&hash[..])?;
            }
            let known: FxHashSet<&ChunkHash> = saved.iter().collect();
            for hash in hashes.iter().filter(|hash| !known.contains(hash)) {
                if let Some(bytes) = catalog.chunk_bytes(hash) {
                    table.insert(&hash[..], &pack(bytes)?[..])?;
                }
            }
            Ok(())
        })?;
        batch.insert(CATALOG, b"", &encode(&(catalog.sequence(), hashes)))?;
        batch.commit()
    }
}

/// A table of another module: postcard values under byte keys.
pub struct Table<V> {
    definition: Bytes,
    value: PhantomData<fn() -> V>,
}

impl<V> fmt::Debug for Table<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.definition.name()).finish()
    }
}

impl<V> Table<V> {
    /// The table of this name; each name has one owner.
    pub const fn new(name: &'static str) -> Self {
        Self { definition: TableDefinition::new(name), value: PhantomData }
    }
}

/// A write transaction. Dropped without [`Self::commit`], it changes nothing.
pub struct Batch<'a> {
    inner: redb::WriteTransaction,
    database: &'a Database,
    /// Keeps the file from being opened again under the transaction.
    _open: RwLockReadGuard<'a, Option<redb::Database>>,
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

impl Batch<'_> {
    /// Writes a value.
    pub fn put<V: Serialize>(&mut self, table: &Table<V>, key: &[u8], value: &V) -> Result<(), DatabaseError> {
        self.insert(table.definition, key, &encode(value))
    }

    /// Removes a value, if there is one.
    pub fn remove<V>(&mut self, table: &Table<V>, key: &[u8]) -> Result<(), DatabaseError> {
        self.delete(table.definition, key)
    }

    /// Writes values.
    pub fn put_all<'b, V: Serialize + 'b>(
        &mut self,
        table: &Table<V>,
        values: impl Iterator<Item = (&'b [u8], &'b V)>,
    ) -> Result<(), DatabaseError> {
        self.act(|inner| {
            let mut table = inner.open_table(table.definition)?;
            for (key, value) in values {
                table.insert(key, &encode(value)[..])?;
            }
            Ok(())
        })
    }

    /// Removes values, those that there are.
    pub fn remove_all<'b, V>(
        &mut self,
        table: &Table<V>,
        keys: impl Iterator<Item = &'b [u8]>,
    ) -> Result<(), DatabaseError> {
        self.act(|inner| {
            let mut table = inner.open_table(table.definition)?;
            for key in keys {
                table.remove(key)?;
            }
            Ok(())
        })
    }

    /// Makes it so, on the disk.
    pub fn commit(self) -> Result<(), DatabaseError> {
        let Self { inner, database, _open } = self;
        written();
        let committed = guarded(move || Ok(inner.commit()?));
        written();
        if committed.is_ok() {
            database.full.store(false, Ordering::Relaxed);
        }
        database.noted(committed)
    }

    fn act<T>(&self, act: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>) -> Result<T, DatabaseError> {
        self.database.noted(guarded(|| act(&self.inner)))
    }

    fn insert(&mut self, table: Bytes, key: &[u8], value: &[u8]) -> Result<(), DatabaseError> {
        self.act(|inner| inner.open_table(table)?.insert(key, value).map(|_| ()).map_err(redb::Error::from))
    }

    fn delete(&mut self, table: Bytes, key: &[u8]) -> Result<(), DatabaseError> {
        self.act(|inner| inner.open_table(table)?.remove(key).map(|_| ()).map_err(redb::Error::from))
    }
}

/// Runs what the library may answer with a panic: it asserts what a damaged file may violate.
fn guarded<T>(act: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, DatabaseError> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(result) => result.map_err(DatabaseError::from),
        Err(_) => Err(DatabaseError::Damaged("the file violates its format".into())),
    }
}

fn create(path: &Path) -> Result<redb::Database, redb::Error> {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(limits::DATABASE_CACHE_BYTES);
    Ok(builder.create(path)?)
}

/// The same, with all tables.
fn with_tables(inner: redb::Database) -> Result<redb::Database, redb::Error> {
    if !looks_sound(&inner)? {
        let write = inner.begin_write()?;
        for table in [ROOTS, FILES, INODES, CONTENTS, CHUNKS, CATALOG] {
            write.open_table(table)?;
        }
        write.commit()?;
    }
    Ok(inner)
}

/// True if all tables are there and both ends of each can be read; false if one is missing.
fn looks_sound(inner: &redb::Database) -> Result<bool, redb::Error> {
    let read = inner.begin_read()?;
    for table in [ROOTS, FILES, INODES, CONTENTS, CHUNKS, CATALOG] {
        match read.open_table(table) {
            Ok(table) => {
                table.first()?;
                table.last()?;
            }
            Err(TableError::TableDoesNotExist(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// The file whose presence says that the database beside it is damaged.
fn damage_note(path: &Path) -> PathBuf {
    path.with_extension("redb.damaged")
}

fn encode<V: Serialize>(value: &V) -> Vec<u8> {
    postcard::to_stdvec(value).expect("values of the store are plain structs, which postcard encodes")
}

/// A chunk as it is stored: it is written seldom, read once, and half of it is paths that repeat one another.
fn pack(chunk: &[u8]) -> Result<Vec<u8>, redb::Error> {
    zstd::bulk::compress(chunk, zstd::DEFAULT_COMPRESSION_LEVEL).map_err(redb::Error::Io)
}

/// A stored chunk; `None` if it is damaged.
fn unpack(stored: &[u8]) -> Option<Vec<u8>> {
    zstd::bulk::decompress(stored, limits::CHUNK_BYTES).ok()
}

/// The first free name beside a damaged database.
fn free_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (1..limits::SET_ASIDE_FILES)
        .map(|at| path.with_file_name(format!("{name}.corrupt-{at}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| path.with_file_name(format!("{name}.corrupt-{}", limits::SET_ASIDE_FILES)))
}

/// Why the database failed. The state on disk is that of the last committed transaction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The file breaks its format: the disk or a foreign program is at fault.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// Another process holds it.
    #[error("the database is in use by another process")]
    InUse,
    /// The disk is full.
    #[error("the disk of the data folder is full")]
    Full,
    /// A write failed earlier, and the file cannot be opened again just now.
    #[error("the database waits for its disk")]
    Refused,
    /// The disk or its rights are at fault.
    #[error("the database cannot be used: {0}")]
    Access(String),
}

impl DatabaseError {
    fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

impl From<DatabaseError> for io::Error {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Full => Self::new(io::ErrorKind::StorageFull, error),
            other => Self::other(other),
        }
    }
}

impl From<redb::Error> for DatabaseError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(why) => Self::Damaged(why),
            redb::Error::UpgradeRequired(_) | redb::Error::RepairAborted => Self::Damaged(error.to_string()),
            redb::Error::TableTypeMismatch { .. } | redb::Error::TypeDefinitionChanged { .. } => {
                Self::Damaged(error.to_string())
            }
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            redb::Error::PreviousIo => Self::Refused,
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Self::Full
            }
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Damaged(error.to_string())
            }
            other => Self::Access(other.to_string()),
        }
    }
}

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let table: Table<u32> = Table::new("numbers");
        for round in 1..3 {
            fs::write(&path, b"this is no database".repeat(1000)).unwrap();
            let (database, aside) = Database::open(&path).unwrap();
            assert_eq!(aside, Some(folder.path().join(format!("state.redb.corrupt-{round}"))));
            assert_eq!(database.get(&table, b"x").unwrap(), None);
            let mut batch = database.write().unwrap();
            batch.put(&table, b"x", &7).unwrap();
            batch.commit().unwrap();
            drop(database);
            let (database, aside) = Database::open(&path).unwrap();
            assert_eq!((aside, database.get(&table, b"x").unwrap()), (None, Some(7)));
            assert_eq!(database.all(&table, 9).unwrap(), [(b"x".to_vec(), 7)]);
        }
    }
}
