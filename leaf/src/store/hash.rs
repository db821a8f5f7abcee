//! Hashing a file, and keeping the piece values of large ones.
//!
//! A file is hashed in one pass of 1 MiB reads. Its stamp is compared before and after: a file that was
//! written meanwhile is `changed`, and nobody learns a content id that fits no bytes. The piece values of a
//! content of more than one piece, its *outboard*, go to `DATA_DIR/outboards/ab/abcd...`: 32 bytes a piece,
//! in order. They are checked against the content id whenever they are loaded, so a damaged outboard is
//! worth as much as none.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use overlay::{
    id::ContentId,
    verify::{self, Layout, PIECE_BYTES, PieceHasher, Value},
};
use tokio_util::sync::CancellationToken;

use super::{
    database::{Record, Stamp},
    tags,
};
use crate::metrics::HASHED_BYTES;

/// What became of a file that was to be hashed.
#[derive(Debug)]
pub(super) enum Hashing {
    /// Its record; the outboard is on the disk.
    Done(Record),
    /// It is being written, or was replaced.
    Changed,
    /// It cannot be opened or read.
    Unreadable,
    /// The pass was cancelled.
    Cancelled,
}

/// Hashes the version of a file that has this stamp. `hashed` counts the bytes as they are read.
/// An error is the outboard's: the disk of the data folder is at fault.
pub(super) fn hash(
    path: &Path,
    stamp: &Stamp,
    outboards: &Outboards,
    hashed: &AtomicU64,
    cancel: &CancellationToken,
) -> io::Result<Hashing> {
    let unchanged = |file: &File| file.metadata().is_ok_and(|metadata| Stamp::of(&metadata) == *stamp);
    let Ok(mut file) = File::open(path) else {
        return Ok(if path.exists() { Hashing::Unreadable } else { Hashing::Changed });
    };
    let Ok(mut hasher) = PieceHasher::new(stamp.size) else { return Ok(Hashing::Unreadable) };
    if !unchanged(&file) {
        return Ok(Hashing::Changed);
    }
    let mut buffer = vec![0; (PIECE_BYTES as usize).min(stamp.size as usize)];
    loop {
        if cancel.is_cancelled() {
            return Ok(Hashing::Cancelled);
        }
        let length = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Ok(Hashing::Unreadable),
        };
        // Asked after each run: a growing file is given up at once, not after all its gigabytes.
        if hasher.update(&buffer[..length]).is_err() || !unchanged(&file) {
            return Ok(Hashing::Changed);
        }
        hashed.fetch_add(length as u64, Ordering::Relaxed);
        HASHED_BYTES.add((), length as u64);
    }
    let Ok(result) = hasher.finish() else { return Ok(Hashing::Changed) };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let tags = tags::read(&name, &mut file);
    if !unchanged(&file) {
        return Ok(Hashing::Changed);
    }
    outboards.store(result.content, &result.pieces)?;
    Ok(Hashing::Done(Record { stamp: *stamp, content: result.content, tags }))
}

/// The folder of outboards.
#[derive(Clone, Debug)]
pub struct Outboards {
    folder: PathBuf,
}

impl Outboards {
    /// The outboards below `folder`, which is made when the first is stored.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Stores the piece values of a content. Contents of one piece need none: the content id is the value.
    /// What is already there stays.
    pub fn store(&self, content: ContentId, pieces: &[Value]) -> io::Result<()> {
        let path = self.path(content);
        let length = pieces.as_flattened().len() as u64;
        if pieces.len() < 2 || fs::metadata(&path).is_ok_and(|there| there.len() == length) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(pieces.as_flattened())?;
        file.as_file().sync_data()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// The piece values of a content of `size` bytes; `None` if they are missing or damaged.
    pub fn load(&self, content: ContentId, size: u64) -> io::Result<Option<Vec<Value>>> {
        let Ok(layout) = Layout::new(size) else { return Ok(None) };
        if layout.pieces() == 1 {
            return Ok(Some(vec![content.0]));
        }
        let bytes = match File::open(self.path(content)) {
            Ok(mut file) if file.metadata()?.len() == layout.pieces() * 32 => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                bytes
            }
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let pieces = bytes.as_chunks().0.to_vec();
        Ok((verify::content_of_pieces(size, &pieces) == Ok(content)).then_some(pieces))
    }

    /// Removes the piece values of a content, if there are any.
    pub fn remove(&self, content: ContentId) -> io::Result<()> {
        match fs::remove_file(self.path(content)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, content: ContentId) -> PathBuf {
        let name = content.to_string();
        self.folder.join(&name[..2]).join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_file(path: &Path, stamp: &Stamp, outboards: &Outboards) -> Hashing {
        hash(path, stamp, outboards, &AtomicU64::new(0), &CancellationToken::new()).unwrap()
    }

    #[test]
    fn a_file_gets_its_blake3_and_its_outboard() {
        let folder = tempfile::tempdir().unwrap();
        let outboards = Outboards::new(folder.path().join("outboards"));
        for size in [1, 256 << 10, (256 << 10) + 1, 3_000_000] {
            let path = folder.path().join("file");
            let data: Vec<u8> = (0..size).map(|at: u32| (at / 7) as u8).collect();
            fs::write(&path, &data).unwrap();
            let stamp = Stamp::of(&fs::metadata(&path).unwrap());
            let Hashing::Done(record) = hash_file(&path, &stamp, &outboards) else { panic!("not hashed") };
            assert_eq!(record.content.0, *blake3::hash(&data).as_bytes());
            let pieces = outboards.load(record.content, u64::from(size)).unwrap().unwrap();
            assert_eq!(verify::content_of_pieces(size.into(), &pieces), Ok(record.content));
            assert_eq!(outboards.load(record.content, u64::from(size) + (1 << 20)).unwrap(), None);
        }
    }

    #[test]
    fn another_version_is_changed_and_a_missing_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let outboards = Outboards::new(folder.path().join("outboards"));
        let path = folder.path().join("file");
        fs::write(&path, b"one").unwrap();
        let stamp = Stamp::of(&fs::metadata(&path).unwrap());
        fs::write(&path, b"longer").unwrap();
        assert!(matches!(hash_file(&path, &stamp, &outboards), Hashing::Changed));
        fs::remove_file(&path).unwrap();
        assert!(matches!(hash_file(&path, &stamp, &outboards), Hashing::Changed));
        fs::create_dir(&path).unwrap();
        let stamp = Stamp { size: 5, ..Stamp::of(&fs::metadata(&path).unwrap()) };
        assert!(!matches!(hash_file(&path, &stamp, &outboards), Hashing::Done(_)));
    }

    #[test]
    fn a_damaged_outboard_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let outboards = Outboards::new(folder.path());
        let pieces = vec![[1; 32], [2; 32]];
        let size = (256 << 10) + 1;
        let content = verify::content_of_pieces(size, &pieces).unwrap();
        assert_eq!(outboards.load(content, size).unwrap(), None);
        outboards.store(content, &pieces).unwrap();
        assert_eq!(outboards.load(content, size).unwrap(), Some(pieces));
        fs::write(outboards.path(content), [0; 64]).unwrap();
        assert_eq!(outboards.load(content, size).unwrap(), None);
        outboards.remove(content).unwrap();
        outboards.remove(content).unwrap();
    }
}
