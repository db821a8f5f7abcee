//! Hashing files, and keeping the piece values of large ones.
//!
//! A file's stamp is compared before, while and after it is read: a file that was written meanwhile is `changed`,
//! and nobody learns a content id that fits no bytes.
//!
//! Small files are hashed by one thread each ([`Hands::hash`]). A large one is hashed by all threads together
//! ([`Large`]), piece by piece in order: that is as fast as the disk or all threads, and a disk that must move its
//! head reads one file at a time.
//!
//! The piece values of a large content, its *outboard*, go to `DATA_DIR/outboards/ab/abcd...`: 32 bytes a piece,
//! in order. They are checked against the content id whenever they are loaded, so a damaged outboard is worth as
//! much as none. Those of a smaller content are made again when somebody wants it ([`pieces_of`]): that
//! takes milliseconds, and a million small files need no million of outboards.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use overlay::{
    id::ContentId,
    verify::{self, LARGE_FILE_BYTES, Layout, PIECE_BYTES, PieceHasher, Value},
};
use tokio_util::sync::CancellationToken;

use super::{
    SkipReason,
    record::{Record, Stamp},
    tags,
};
use crate::file_io::read_exact_at;

/// Bytes read at a time of a small file: they stay in a core's cache until they are hashed.
const RUN_BYTES: usize = 256 << 10;

/// What became of a file that was to be hashed.
#[derive(Debug)]
pub(super) enum Hashing {
    /// Its record; the outboard is on the disk.
    Done(Record),
    /// It was written or replaced meanwhile, or cannot be read.
    Skipped(SkipReason),
    /// The pass was cancelled.
    Cancelled,
}

/// What a hashing thread works with.
pub(super) struct Hands<'a> {
    outboards: &'a Outboards,
    cancel: &'a CancellationToken,
    /// Is told the length of each run that was read and hashed.
    read: &'a dyn Fn(u64),
    buffer: Vec<u8>,
}

impl<'a> Hands<'a> {
    /// Hands that did nothing yet. `read` is told the length of each run that was hashed.
    pub(super) fn new(outboards: &'a Outboards, cancel: &'a CancellationToken, read: &'a dyn Fn(u64)) -> Self {
        Self { outboards, cancel, read, buffer: Vec::new() }
    }

    /// Hashes the version of a file that has this stamp. An error is the outboard's: the disk of the data folder is
    /// at fault.
    pub(super) fn hash(&mut self, path: &Path, stamp: &Stamp) -> io::Result<Hashing> {
        let mut file = match open(path, stamp) {
            Ok(file) => file,
            Err(why) => return Ok(Hashing::Skipped(why)),
        };
        let Ok(mut hasher) = PieceHasher::new(stamp.size) else { return Ok(Hashing::Skipped(SkipReason::Unreadable)) };
        self.buffer.resize(PIECE_BYTES as usize, 0);
        let mut left = stamp.size;
        while left > 0 {
            if self.cancel.is_cancelled() {
                return Ok(Hashing::Cancelled);
            }
            let run = RUN_BYTES.min(usize::try_from(left).unwrap_or(RUN_BYTES));
            let length = match file.read(&mut self.buffer[..run]) {
                Ok(0) => return Ok(Hashing::Skipped(SkipReason::Changed)),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Ok(Hashing::Skipped(SkipReason::Unreadable)),
            };
            left -= length as u64;
            // Asked after each run: a growing file is given up at once, not after all its gigabytes.
            if hasher.update(&self.buffer[..length]).is_err() || (left > 0 && !is_unchanged(&file, stamp)) {
                return Ok(Hashing::Skipped(SkipReason::Changed));
            }
            (self.read)(length as u64);
        }
        let Ok(result) = hasher.finish() else { return Ok(Hashing::Skipped(SkipReason::Changed)) };
        self.finish(path, &file, stamp, result.content, &result.pieces)
    }

    /// Works on a large file until nothing of it is left to be begun. The thread that ends it, well or not, gets
    /// the result; the others get nothing.
    pub(super) fn help(&mut self, path: &Path, large: &Large) -> Option<io::Result<Hashing>> {
        let file = match large.file.get_or_init(|| open(path, &large.stamp)) {
            Ok(file) => file,
            Err(why) => return large.end().then_some(Ok(Hashing::Skipped(*why))),
        };
        let Ok(layout) = Layout::new(large.stamp.size) else {
            return large.end().then_some(Ok(Hashing::Skipped(SkipReason::Unreadable)));
        };
        self.buffer.resize(PIECE_BYTES as usize, 0);
        loop {
            let piece = large.next.fetch_add(1, Ordering::Relaxed);
            let range = layout.piece_range(piece).ok()?;
            if self.cancel.is_cancelled() {
                return large.end().then_some(Ok(Hashing::Cancelled));
            }
            let buffer = &mut self.buffer[..(range.end - range.start) as usize];
            if let Err(error) = read_exact_at(file, buffer, range.start) {
                let short = error.kind() == io::ErrorKind::UnexpectedEof;
                return large.end().then_some(Ok(if short {
                    Hashing::Skipped(SkipReason::Changed)
                } else {
                    Hashing::Skipped(SkipReason::Unreadable)
                }));
            }
            if !is_unchanged(file, &large.stamp) {
                return large.end().then_some(Ok(Hashing::Skipped(SkipReason::Changed)));
            }
            let Ok(value) = verify::piece_value(large.stamp.size, piece, buffer) else {
                return large.end().then_some(Ok(Hashing::Skipped(SkipReason::Changed)));
            };
            (self.read)(range.end - range.start);
            if let Some(pieces) = large.put(piece, value, layout.pieces()) {
                let Ok(content) = verify::content_of_pieces(large.stamp.size, &pieces) else {
                    return Some(Ok(Hashing::Skipped(SkipReason::Changed)));
                };
                return Some(self.finish(path, file, &large.stamp, content, &pieces));
            }
        }
    }

    fn finish(
        &self,
        path: &Path,
        file: &File,
        stamp: &Stamp,
        content: ContentId,
        pieces: &[Value],
    ) -> io::Result<Hashing> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let tags = tags::read(&name, file);
        if !is_unchanged(file, stamp) {
            return Ok(Hashing::Skipped(SkipReason::Changed));
        }
        self.outboards.store(content, stamp.size, pieces)?;
        Ok(Hashing::Done(Record { stamp: *stamp, content, tags }))
    }
}

/// A file that several threads hash together.
#[derive(Debug)]
pub(super) struct Large {
    pub(super) below: PathBuf,
    pub(super) stamp: Stamp,
    file: OnceLock<Result<File, SkipReason>>,
    /// The piece that is begun next.
    next: AtomicU64,
    state: Mutex<LargeState>,
}

#[derive(Debug, Default)]
struct LargeState {
    values: Vec<Value>,
    done: u64,
    ended: bool,
}

impl Large {
    /// The version of the file at `below` with this stamp, of which nothing is hashed yet.
    pub(super) fn new(below: PathBuf, stamp: Stamp) -> Self {
        Self { below, stamp, file: OnceLock::new(), next: AtomicU64::new(0), state: Mutex::default() }
    }

    /// True for files that are worth the work of several threads.
    pub(super) fn is_large(size: u64) -> bool {
        size >= LARGE_FILE_BYTES
    }

    /// Takes the value of a piece; all values if it was the last.
    fn put(&self, piece: u64, value: Value, pieces: u64) -> Option<Vec<Value>> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        state.values.resize(pieces as usize, Value::default());
        state.values[piece as usize] = value;
        state.done += 1;
        state.ended = state.done == pieces;
        state.ended.then(|| std::mem::take(&mut state.values))
    }

    /// Gives the file up; true for the first that does.
    fn end(&self) -> bool {
        // Nobody begins another piece.
        self.next.store(u64::MAX / 2, Ordering::Relaxed);
        let mut state = self.lock();
        state.values = Vec::new();
        !std::mem::replace(&mut state.ended, true)
    }

    fn lock(&self) -> MutexGuard<'_, LargeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The piece values of a whole file, read anew. Fails if it has not this size. Blocks on the disk.
pub(super) fn pieces_of(mut file: &File, size: u64) -> io::Result<Vec<Value>> {
    let unfit = |_| io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut hasher = PieceHasher::new(size).map_err(unfit)?;
    let mut buffer = vec![0; RUN_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => hasher.update(&buffer[..length]).map_err(unfit)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.finish().map_err(unfit)?.pieces)
}

fn open(path: &Path, stamp: &Stamp) -> Result<File, SkipReason> {
    let Ok(file) = File::open(path) else {
        return Err(if path.exists() { SkipReason::Unreadable } else { SkipReason::Changed });
    };
    // One that is read at once is compared when it was read.
    if stamp.size > RUN_BYTES as u64 {
        if !is_unchanged(&file, stamp) {
            return Err(SkipReason::Changed);
        }
        advise(&file);
    }
    Ok(file)
}

fn is_unchanged(file: &File, stamp: &Stamp) -> bool {
    file.metadata().is_ok_and(|metadata| Stamp::of(&metadata) == *stamp)
}

/// Tells the system that a file is read once and in order: it reads further ahead, and what it read pushes nothing
/// out of its cache that somebody uses.
#[cfg(target_os = "linux")]
fn advise(file: &File) {
    use rustix::fs::{Advice, fadvise};
    for advice in [Advice::Sequential, Advice::NoReuse] {
        // An advice that is not understood changes nothing.
        let _ = fadvise(file, 0, None, advice);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &File) {}

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

    /// Stores the piece values of a content, unless it is too small to need that. What is already there stays.
    pub fn store(&self, content: ContentId, size: u64, pieces: &[Value]) -> io::Result<()> {
        if size < LARGE_FILE_BYTES {
            return Ok(());
        }
        let path = self.path(content);
        let length = pieces.as_flattened().len() as u64;
        if fs::metadata(&path).is_ok_and(|there| there.len() == length) {
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
        Hands::new(outboards, &CancellationToken::new(), &|_| {}).hash(path, stamp).unwrap()
    }

    /// What several threads get that hash a file together.
    fn hash_together(large: &Large, path: &Path, outboards: &Outboards, cancel: &CancellationToken) -> Vec<Hashing> {
        std::thread::scope(|scope| {
            let work = || Hands::new(outboards, cancel, &|_| {}).help(path, large);
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).map(Result::unwrap).collect()
        })
    }

    /// A file of one byte more than a large one has at least, mostly a hole.
    fn large_file(folder: &Path) -> (PathBuf, Stamp) {
        let path = folder.join("large");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"begin").unwrap();
        file.set_len(LARGE_FILE_BYTES + 1).unwrap();
        let stamp = Stamp::of(&fs::metadata(&path).unwrap());
        (path, stamp)
    }

    #[test]
    fn a_file_gets_its_blake3() {
        let folder = tempfile::tempdir().unwrap();
        let outboards = Outboards::new(folder.path().join("outboards"));
        for size in [1, 256 << 10, (256 << 10) + 1, 3_000_000] {
            let path = folder.path().join("file");
            let data: Vec<u8> = (0..size).map(|at: u32| (at / 7) as u8).collect();
            fs::write(&path, &data).unwrap();
            let stamp = Stamp::of(&fs::metadata(&path).unwrap());
            let Hashing::Done(record) = hash_file(&path, &stamp, &outboards) else { panic!("not hashed") };
            assert_eq!(record.content.0, *blake3::hash(&data).as_bytes());
            let pieces = pieces_of(&File::open(&path).unwrap(), size.into()).unwrap();
            assert_eq!(verify::content_of_pieces(size.into(), &pieces), Ok(record.content));
            assert!(pieces_of(&File::open(&path).unwrap(), u64::from(size) + 1).is_err());
        }
        assert!(!folder.path().join("outboards").exists(), "small files need no outboard");
    }

    #[test]
    fn threads_hash_a_large_file_together_and_one_of_them_tells() {
        let folder = tempfile::tempdir().unwrap();
        let outboards = Outboards::new(folder.path().join("outboards"));
        let (path, stamp) = large_file(folder.path());
        let cancel = CancellationToken::new();
        let large = Large::new("large".into(), stamp);
        let told = hash_together(&large, &path, &outboards, &cancel);
        let [Hashing::Done(record)] = &told[..] else { panic!("{told:?}") };
        let whole = fs::read(&path).unwrap();
        assert_eq!(record.content.0, *blake3::hash(&whole).as_bytes());
        let pieces = outboards.load(record.content, stamp.size).unwrap().unwrap();
        assert_eq!((pieces.len(), pieces), (65, pieces_of(&File::open(&path).unwrap(), stamp.size).unwrap()));
        // A copy of the job that comes late finds nothing to do.
        assert!(Hands::new(&outboards, &cancel, &|_| {}).help(&path, &large).is_none());
    }

    #[test]
    fn a_large_file_that_is_changed_missing_or_cancelled_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let outboards = Outboards::new(folder.path().join("outboards"));
        let (path, stamp) = large_file(folder.path());
        let hash = |path: &Path, stamp: Stamp, cancel: &CancellationToken| {
            hash_together(&Large::new("large".into(), stamp), path, &outboards, cancel)
        };
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        assert!(matches!(hash(&path, stamp, &cancelled)[..], [Hashing::Cancelled]));
        let goes_on = CancellationToken::new();
        let grown = Stamp { size: stamp.size - 1, ..stamp };
        assert!(matches!(hash(&path, grown, &goes_on)[..], [Hashing::Skipped(SkipReason::Changed)]));
        assert!(matches!(
            hash(&folder.path().join("none"), stamp, &goes_on)[..],
            [Hashing::Skipped(SkipReason::Changed)]
        ));
        let directory = Stamp { size: stamp.size, ..Stamp::of(&fs::metadata(folder.path()).unwrap()) };
        assert!(matches!(hash(folder.path(), directory, &goes_on)[..], [Hashing::Skipped(_)]));
    }

    #[test]
    fn another_version_is_changed_and_a_missing_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let outboards = Outboards::new(folder.path().join("outboards"));
        let path = folder.path().join("file");
        fs::write(&path, b"one").unwrap();
        let stamp = Stamp::of(&fs::metadata(&path).unwrap());
        fs::write(&path, b"longer").unwrap();
        assert!(matches!(hash_file(&path, &stamp, &outboards), Hashing::Skipped(SkipReason::Changed)));
        fs::remove_file(&path).unwrap();
        assert!(matches!(hash_file(&path, &stamp, &outboards), Hashing::Skipped(SkipReason::Changed)));
        fs::create_dir(&path).unwrap();
        let stamp = Stamp { size: 5, ..Stamp::of(&fs::metadata(&path).unwrap()) };
        assert!(!matches!(hash_file(&path, &stamp, &outboards), Hashing::Done(_)));
    }

    #[test]
    fn a_damaged_outboard_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let outboards = Outboards::new(folder.path());
        let size = LARGE_FILE_BYTES;
        let pieces = vec![[1; 32]; 64];
        let content = verify::content_of_pieces(size, &pieces).unwrap();
        assert_eq!(outboards.load(content, size).unwrap(), None);
        outboards.store(content, size, &pieces).unwrap();
        assert_eq!(outboards.load(content, size).unwrap(), Some(pieces));
        fs::write(outboards.path(content), [0; 64]).unwrap();
        assert_eq!(outboards.load(content, size).unwrap(), None);
        outboards.remove(content).unwrap();
        outboards.remove(content).unwrap();
    }
}
