//! Partial files, and how a finished one gets its name.
//!
//! ```text
//! DOWNLOADS/.partial/CONTENT          the data, allocated in full from the start
//! DOWNLOADS/.partial/CONTENT.values   size, segment values, piece values: proves the data without the network
//! ```
//!
//! Order of writing: the values of a segment before its first piece is asked for; a piece only after it was
//! verified; both are flushed before the database counts the piece. So after a crash every counted piece is
//! in the file, and is still read and verified again before it is trusted.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use overlay::{
    id::ContentId,
    limits,
    verify::{self, Layout, PieceHasher, SEGMENT_PIECES, Value},
};
use tempfile::TempPath;

use crate::{names, steps::written, transfer::holding::Holding};

/// The folder of partial files, below the download folder.
const FOLDER: &str = ".partial";
/// Names that are tried for a finished file: `a`, `a (2)`, ...
const NAMES: u32 = 10_000;

/// The partial files of one content.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    data: PathBuf,
    values: PathBuf,
    content: ContentId,
}

impl Partial {
    /// The partial files of `content` below a download folder, there or not.
    pub(super) fn new(downloads: &Path, content: ContentId) -> Self {
        let folder = downloads.join(FOLDER);
        Self { data: folder.join(content.to_string()), values: folder.join(format!("{content}.values")), content }
    }

    /// The download folder.
    pub(super) fn downloads(&self) -> PathBuf {
        self.data.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default()
    }

    /// True if there is something of it.
    pub(super) fn is_begun(&self) -> bool {
        self.data.exists()
    }

    /// Begins anew: an allocated file for a content of this layout. What was there is gone. After an error
    /// nothing is there, so that a full disk is not filled by what cannot be completed.
    pub(super) fn create(&self, name: String, layout: Layout, tops: Vec<Value>) -> io::Result<Holding> {
        self.remove()?;
        self.make(name, layout, tops).inspect_err(|_| {
            // The first error is the one that counts.
            let _ = self.remove();
        })
    }

    fn make(&self, name: String, layout: Layout, tops: Vec<Value>) -> io::Result<Holding> {
        if let Some(folder) = self.data.parent() {
            fs::create_dir_all(folder)?;
        }
        written();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&self.data)?;
        written();
        allocate(&file, layout.size())?;
        written();
        let mut values = File::create(&self.values)?;
        written();
        values.write_all(&layout.size().to_le_bytes())?;
        written();
        values.write_all(tops.as_flattened())?;
        written();
        values.set_len(8 + 32 * (layout.segments() + layout.pieces()))?;
        written();
        Ok(Holding::part(self.content, name, file, layout, tops))
    }

    /// Opens what an earlier run left, if its values still prove themselves. No piece counts yet.
    pub(super) fn open(&self, name: String) -> io::Result<Option<Holding>> {
        let (file, values) = (OpenOptions::new().read(true).write(true).open(&self.data), File::open(&self.values));
        let (Some(file), Some(mut values)) = (if_there(file)?, if_there(values)?) else { return Ok(None) };
        let mut size = [0; 8];
        if values.read_exact(&mut size).is_err() {
            return Ok(None);
        }
        let Ok(layout) = Layout::new(u64::from_le_bytes(size)) else { return Ok(None) };
        if layout.segments() > limits::TOPS as u64 || file.metadata()?.len() != layout.size() {
            return Ok(None);
        }
        let Some(tops) = read_values(&mut values, layout.segments())? else { return Ok(None) };
        if verify::check_tops(self.content, layout.size(), &tops).is_err() {
            return Ok(None);
        }
        let holding = Holding::part(self.content, name, file, layout, tops);
        for segment in 0..layout.segments() {
            let range = layout.segment_range(segment).map_or(0, |range| range.end - range.start);
            let Some(pieces) = read_values(&mut values, range)? else { break };
            // A segment that was never written does not fit, and is fetched.
            let _ = holding.add_segment(segment, pieces);
        }
        Ok(Some(holding))
    }

    /// Writes the piece values of a segment.
    pub(super) fn save_segment(&self, holding: &Holding, segment: u64) -> io::Result<()> {
        let Some(pieces) = holding.segment(segment) else { return Ok(()) };
        let mut values = OpenOptions::new().write(true).open(&self.values)?;
        let before = holding.layout().segments() + segment * u64::from(SEGMENT_PIECES);
        values.seek(SeekFrom::Start(8 + 32 * before))?;
        values.write_all(pieces.as_flattened())?;
        written();
        Ok(())
    }

    /// Makes everything written so far durable.
    pub(super) fn flush(&self, holding: &Holding) -> io::Result<()> {
        File::open(&self.values)?.sync_data()?;
        holding.file().sync_data()
    }

    /// Bytes that the data already takes on the disk.
    #[cfg(unix)]
    pub(super) fn allocated(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&self.data).map_or(0, |data| data.blocks() * 512)
    }

    /// Bytes that the data already takes on the disk, as far as the system tells.
    #[cfg(not(unix))]
    pub(super) fn allocated(&self) -> u64 {
        0
    }

    /// Removes the files, if they are there.
    pub(super) fn remove(&self) -> io::Result<()> {
        for path in [&self.data, &self.values] {
            if_there(fs::remove_file(path))?;
            written();
        }
        Ok(())
    }

    /// Begins anew with nothing but an empty file for the data, of which no values are kept.
    pub(super) fn create_data(&self) -> io::Result<File> {
        let options = || OpenOptions::new().write(true).create_new(true).open(&self.data);
        match options() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = self.data.parent() {
                    fs::create_dir_all(folder)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.remove()?,
            file => return file,
        }
        written();
        options()
    }

    /// Gives complete data its name, and nothing else: the name is durable only with its folder. Returns the path.
    pub(super) fn name_data(&self, target: &Target) -> Result<PathBuf, FinishError> {
        let path = target.place(&self.data)?;
        written();
        Ok(path)
    }

    /// Gives the complete data its name and removes the values. Returns the path.
    pub(super) fn finish(&self, target: &Target) -> Result<PathBuf, FinishError> {
        let path = target.place(&self.data)?;
        written();
        // The new name is durable with its folder; where folders cannot be opened the system sees to it.
        if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
            let _ = folder.sync_all();
        }
        if_there(fs::remove_file(&self.values))?;
        written();
        Ok(path)
    }
}

/// Where a finished file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Into a folder, under this name or a numbered one.
    Folder(PathBuf, String),
    /// To this very path.
    File(PathBuf),
}

impl Target {
    /// The target that a job asks for: its output, else the download folder.
    pub(super) fn of(output: Option<&str>, downloads: &Path, name: &str) -> Self {
        let name = names::safe_name(name);
        let Some(output) = output else { return Self::Folder(downloads.to_owned(), name) };
        let path = PathBuf::from(output);
        if output.ends_with(std::path::is_separator) || path.is_dir() {
            Self::Folder(path, name)
        } else {
            Self::File(path)
        }
    }

    /// Moves `source` there without overwriting anything. On an error `source` stays.
    fn place(&self, source: &Path) -> Result<PathBuf, FinishError> {
        let (folder, name) = match self {
            Self::Folder(folder, name) => (folder.as_path(), name.as_str()),
            Self::File(path) => {
                create_parent(path)?;
                return if rename(source, path)? { Ok(path.clone()) } else { Err(FinishError::Taken) };
            }
        };
        fs::create_dir_all(folder)?;
        for number in 1..=NAMES {
            let path = folder.join(names::numbered(name, number));
            if rename(source, &path)? {
                return Ok(path);
            }
        }
        Err(FinishError::Taken)
    }

    /// Copies a file that is already on this machine there. The copy has its name only once it is complete.
    pub(super) fn place_copy(&self, mut source: File) -> Result<PathBuf, FinishError> {
        let folder = match self {
            Self::Folder(folder, _) => folder.as_path(),
            Self::File(path) => path.parent().unwrap_or(path),
        };
        fs::create_dir_all(folder)?;
        let mut copy = tempfile::Builder::new().prefix(".quictrack-").tempfile_in(folder)?;
        source.seek(SeekFrom::Start(0))?;
        io::copy(&mut source, &mut copy)?;
        copy.as_file().sync_all()?;
        let copy = copy.into_temp_path();
        let path = self.place(&copy)?;
        // It is no longer where its guard would remove it.
        let _ = copy.keep();
        Ok(path)
    }

    /// A file of this content that lies there under the name, or a numbered one, with its piece values: an earlier run
    /// did not live to record it. Blocks for as long as reading what has this size takes.
    pub(super) fn placed(&self, size: u64, content: ContentId) -> io::Result<Option<(PathBuf, Vec<Value>)>> {
        let Self::Folder(folder, name) = self else { return Ok(None) };
        for number in 1..=NAMES {
            let path = folder.join(names::numbered(name, number));
            let Some(found) = if_there(path.symlink_metadata())? else { return Ok(None) };
            if found.is_file()
                && found.len() == size
                && let Some(pieces) = pieces_if(&path, size, content)?
            {
                return Ok(Some((path, pieces)));
            }
        }
        Ok(None)
    }

    /// True if the first name that it would give is taken, or cannot be looked at.
    pub(super) fn is_taken(&self) -> bool {
        let path = match self {
            Self::Folder(folder, name) => folder.join(name),
            Self::File(path) => path.clone(),
        };
        !matches!(path.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// The existing file that this target names, if it names one.
    pub(super) fn existing(&self) -> Option<&Path> {
        match self {
            Self::File(path) if path.symlink_metadata().is_ok() => Some(path),
            _ => None,
        }
    }
}

/// Why a finished file did not get its name. The partial file is as before.
#[derive(Debug, thiserror::Error)]
pub(super) enum FinishError {
    #[error("the name is taken")]
    Taken,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The piece values of a file of `size` bytes, if it has this content. Blocks for as long as reading it takes.
pub(super) fn pieces_if(path: &Path, size: u64, content: ContentId) -> io::Result<Option<Vec<Value>>> {
    let Ok(mut hasher) = PieceHasher::new(size) else { return Ok(None) };
    let mut file = File::open(path)?;
    let mut buffer = vec![0; limits::READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            // It grows.
            read if hasher.update(&buffer[..read]).is_err() => return Ok(None),
            _ => {}
        }
    }
    Ok(hasher.finish().ok().filter(|hashed| hashed.content == content).map(|hashed| hashed.pieces))
}

/// Bytes that are free for this user where `folder` lies, or will lie; `None` if the system does not tell.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = folder.ancestors().find_map(|above| rustix::fs::statvfs(above).ok())?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Renames without overwriting; copies first if the target is on another file system. False if the name is
/// taken.
fn rename(source: &Path, target: &Path) -> io::Result<bool> {
    let error = match TempPath::try_from_path(source)?.persist_noclobber(target) {
        Ok(()) => return Ok(true),
        Err(failed) => {
            // Keeps the file: it is no temporary one.
            let _ = failed.path.keep();
            failed.error
        }
    };
    match error.kind() {
        io::ErrorKind::AlreadyExists => Ok(false),
        io::ErrorKind::CrossesDevices => {
            let folder = target.parent().unwrap_or(target);
            let mut copy = tempfile::Builder::new().prefix(".quictrack-").tempfile_in(folder)?;
            io::copy(&mut File::open(source)?, &mut copy)?;
            copy.as_file().sync_all()?;
            match copy.persist_noclobber(target) {
                Ok(_) => fs::remove_file(source).map(|()| true),
                Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(failed) => Err(failed.error),
            }
        }
        _ => Err(error),
    }
}

/// Reserves the space, so that a full disk shows at the start; where a file system cannot, the file is sparse.
///
/// In memory there are no extents: every page would be touched (measured: 0.35 s for 1 GiB, a quarter of the whole
/// download). There it is only compared with what is free.
#[cfg(unix)]
fn allocate(file: &File, size: u64) -> io::Result<()> {
    if is_memory(file) {
        let free = rustix::fs::fstatvfs(file)?;
        if free.f_bavail.saturating_mul(free.f_frsize) < size {
            return Err(io::ErrorKind::StorageFull.into());
        }
        return file.set_len(size);
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {}
        result => result?,
    }
    file.set_len(size)
}

/// True on a file system whose space is memory.
#[cfg(target_os = "linux")]
fn is_memory(file: &File) -> bool {
    // `TMPFS_MAGIC` of linux/magic.h.
    rustix::fs::fstatfs(file).is_ok_and(|system| system.f_type == 0x0102_1994)
}

/// True on a file system whose space is memory: not told apart here.
#[cfg(all(unix, not(target_os = "linux")))]
fn is_memory(_: &File) -> bool {
    false
}

/// Sets the length; the file is sparse.
#[cfg(not(unix))]
fn allocate(file: &File, size: u64) -> io::Result<()> {
    file.set_len(size)
}

/// The next `count` values of a file; `None` if it ends before.
fn read_values(file: &mut File, count: u64) -> io::Result<Option<Vec<Value>>> {
    let mut values = vec![[0; 32]; count as usize];
    match file.read_exact(values.as_flattened_mut()) {
        Ok(()) => Ok(Some(values)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_gets_a_number_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::of(None, folder.path(), "../a.txt");
        for (number, name) in [(1, "_._a.txt"), (2, "_._a (2).txt")] {
            let source = folder.path().join("source");
            fs::write(&source, [number]).unwrap();
            assert_eq!(target.place(&source).unwrap(), folder.path().join(name));
            assert_eq!(fs::read(folder.path().join(name)).unwrap(), [number]);
            assert!(!source.exists());
        }
    }

    #[test]
    fn a_named_output_that_exists_is_a_conflict_and_both_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (source, taken) = (folder.path().join("source"), folder.path().join("taken"));
        fs::write(&source, "new").unwrap();
        fs::write(&taken, "old").unwrap();
        let target = Target::of(taken.to_str(), folder.path(), "name");
        assert!(matches!(target.place(&source), Err(FinishError::Taken)));
        assert_eq!((fs::read(&source).unwrap(), fs::read(&taken).unwrap()), (b"new".to_vec(), b"old".to_vec()));
        let into = Target::of(folder.path().to_str(), folder.path(), "name");
        assert_eq!(into, Target::Folder(folder.path().to_owned(), "name".into()));
    }

    #[test]
    fn values_prove_themselves_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let data = vec![7; 600_000];
        let mut hasher = PieceHasher::new(data.len() as u64).unwrap();
        hasher.update(&data).unwrap();
        let hashed = hasher.finish().unwrap();
        let partial = Partial::new(folder.path(), hashed.content);
        let layout = Layout::new(data.len() as u64).unwrap();
        let tops = verify::segment_values(layout.size(), &hashed.pieces).unwrap();
        let holding = partial.create("name".into(), layout, tops).unwrap();
        assert!(partial.open("name".into()).unwrap().unwrap().known_segments().is_empty());
        holding.add_segment(0, hashed.pieces).unwrap();
        partial.save_segment(&holding, 0).unwrap();
        assert!(holding.write_verified(1, &data[262_144..524_288]).unwrap());
        assert!(!holding.write_verified(0, &vec![8; 262_144]).unwrap());
        partial.flush(&holding).unwrap();
        let again = partial.open("name".into()).unwrap().unwrap();
        assert_eq!(again.known_segments(), [0]);
        assert!(again.verify(1).unwrap() && !again.verify(0).unwrap() && !again.verify(2).unwrap());
        fs::write(&partial.values, "damaged").unwrap();
        assert!(partial.open("name".into()).unwrap().is_none());
    }
}
