//! Partial files: made, opened and removed in their folder and nowhere else, wherever links lead.
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
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use overlay::{
    id::ContentId,
    limits,
    verify::{self, Layout, SEGMENT_PIECES, Value},
};

use super::target::{FinishError, Target};
use crate::{beneath::Folder, steps::written, transfer::holding::Holding};

/// The folder of partial files, below the download folder.
const FOLDER: &str = ".partial";

/// The partial files of one content.
#[derive(Clone, Debug)]
pub(super) struct Partial {
    downloads: PathBuf,
    data: String,
    values: String,
    content: ContentId,
}

impl Partial {
    /// The partial files of `content` below a download folder, there or not.
    pub(super) fn new(downloads: &Path, content: ContentId) -> Self {
        let (data, values) = (content.to_string(), format!("{content}.values"));
        Self { downloads: downloads.to_owned(), data, values, content }
    }

    /// The download folder.
    pub(super) fn downloads(&self) -> &Path {
        &self.downloads
    }

    /// True if there is something of it.
    pub(super) fn is_begun(&self) -> bool {
        self.downloads.join(FOLDER).join(&self.data).symlink_metadata().is_ok()
    }

    /// The folder of partial files; `None` if there is none.
    fn folder(&self) -> io::Result<Option<Folder>> {
        let Some(downloads) = if_there(Folder::root(&self.downloads))? else { return Ok(None) };
        if_there(downloads.folder(Path::new(FOLDER)))
    }

    /// The same, made if it is not there.
    pub(super) fn make_folder(&self) -> io::Result<Folder> {
        Folder::make_root(&self.downloads)?.make(Path::new(FOLDER))
    }

    /// Begins anew: an allocated file for a content of this layout. What was there is gone. After an error
    /// nothing is there, so that a full disk is not filled by what cannot be completed.
    pub(super) fn create(&self, name: String, layout: Layout, tops: Vec<Value>) -> io::Result<Holding> {
        let folder = self.make_folder()?;
        self.remove_in(&folder)?;
        self.make(&folder, name, layout, tops).inspect_err(|_| {
            // The first error is the one that counts.
            let _ = self.remove_in(&folder);
        })
    }

    fn make(&self, folder: &Folder, name: String, layout: Layout, tops: Vec<Value>) -> io::Result<Holding> {
        let file = folder.create(&self.data)?;
        written();
        allocate(&file, layout.size())?;
        written();
        let mut values = folder.create(&self.values)?;
        written();
        values.write_all(&layout.size().to_le_bytes())?;
        written();
        values.write_all(tops.as_flattened())?;
        written();
        values.set_len(8 + 32 * (layout.segments() + layout.pieces()))?;
        written();
        Ok(Holding::part(self.content, name, file, layout, tops))
    }

    /// Begins anew with nothing but an empty file for the data, of which no values are kept.
    pub(super) fn create_data(&self, folder: &Folder) -> io::Result<File> {
        match folder.create(&self.data) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove_in(folder)?;
                folder.create(&self.data)
            }
            made => made,
        }
        .inspect(|_| written())
    }

    /// Opens what an earlier run left, if its values still prove themselves. No piece counts yet.
    pub(super) fn open(&self, name: String) -> io::Result<Option<Holding>> {
        let Some(folder) = self.folder()? else { return Ok(None) };
        let (file, values) = (folder.open_to_write(&self.data), folder.open_to_write(&self.values));
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
        let mut values = self.make_folder()?.open_to_write(&self.values)?;
        let before = holding.layout().segments() + segment * u64::from(SEGMENT_PIECES);
        values.seek(SeekFrom::Start(8 + 32 * before))?;
        values.write_all(pieces.as_flattened())?;
        written();
        Ok(())
    }

    /// Makes everything written so far durable.
    pub(super) fn flush(&self, holding: &Holding) -> io::Result<()> {
        self.make_folder()?.open_to_write(&self.values)?.sync_data()?;
        holding.file().sync_data()
    }

    /// Bytes that the data already takes on the disk.
    #[cfg(unix)]
    pub(super) fn allocated(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::symlink_metadata(self.downloads.join(FOLDER).join(&self.data)).map_or(0, |data| data.blocks() * 512)
    }

    /// Bytes that the data already takes on the disk, as far as the system tells.
    #[cfg(not(unix))]
    pub(super) fn allocated(&self) -> u64 {
        0
    }

    /// Removes the files, if they are there.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.folder()?.map_or(Ok(()), |folder| self.remove_in(&folder))
    }

    fn remove_in(&self, folder: &Folder) -> io::Result<()> {
        for name in [&self.data, &self.values] {
            folder.remove(name)?;
            written();
        }
        Ok(())
    }

    /// Gives complete data its name, and nothing else: the name is durable only with its folder. Returns the path.
    pub(super) fn name_data(&self, folder: &Folder, target: &Target) -> Result<PathBuf, FinishError> {
        let path = target.place(folder, &self.data)?;
        written();
        Ok(path)
    }

    /// Gives the complete data its name and removes the values. Returns the path.
    pub(super) fn finish(&self, target: &Target) -> Result<PathBuf, FinishError> {
        let folder = self.make_folder()?;
        let path = self.name_data(&folder, target)?;
        // The new name is durable with its folder.
        if let Some(parent) = path.parent().and_then(|parent| Folder::root(parent).ok()) {
            parent.force();
        }
        folder.remove(&self.values)?;
        written();
        Ok(path)
    }
}

/// Bytes that are free for this user where `folder` lies, or will lie; `None` if the system does not tell.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = folder.ancestors().find_map(|above| rustix::fs::statvfs(above).ok())?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
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

pub(super) fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use overlay::verify::PieceHasher;

    use super::*;

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
        fs::write(folder.path().join(FOLDER).join(&partial.values), "damaged").unwrap();
        assert!(partial.open("name".into()).unwrap().is_none());
    }
}
