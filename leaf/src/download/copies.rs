//! Copies of the jobs beside the database, for the day on which it is damaged.
//!
//! ```text
//! DATA_DIR/jobs/ID    BLAKE3 of what follows | the job and the download folder of its partial files, in postcard
//! ```
//!
//! A job has a copy from its creation until it is ended; verified pieces are not copied, because the partial file
//! shows them. A job that has a copy and is not in the database was lost with an earlier database, and is taken back.
//! So a job that is forgotten loses its copy first.
//!
//! A copy takes its name whole, but is not forced to the disk: the database is, and both are lost together only when
//! the power fails within seconds of the last change.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use overlay::limits;
use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::steps::written;

/// Bytes of the hash in front of a copy.
const HASH_BYTES: usize = 32;

/// The folder of the copies.
#[derive(Debug)]
pub(super) struct Copies {
    folder: PathBuf,
}

/// What is copied of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copy {
    /// The job.
    pub(super) record: Record,
    /// The download folder that its partial files lie in, or will lie in.
    pub(super) downloads: PathBuf,
}

impl Copies {
    /// The copies below a data folder.
    pub(super) fn new(data: &Path) -> Self {
        Self { folder: data.join("jobs") }
    }

    /// All copies that can be read, at most [`limits::JOBS`]. Those that cannot are left where they are, and told in
    /// the log. Blocking.
    pub(super) fn all(&self) -> io::Result<Vec<Copy>> {
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut copies = Vec::new();
        for file in files.take(limits::JOBS) {
            let path = file?.path();
            match read(&path) {
                Some(copy) if path.file_name().is_some_and(|name| *name == *copy.record.id) => copies.push(copy),
                // A write that was cut short.
                _ if path.extension().is_some() => remove(&path)?,
                _ => tracing::warn!(path = %path.display(), "the copy of a download cannot be read"),
            }
        }
        Ok(copies)
    }

    /// Writes the copy of a job, or removes it if the job is ended. Blocking.
    pub(super) fn keep(&self, record: &Record, downloads: impl FnOnce() -> PathBuf) -> io::Result<()> {
        if record.state.is_ended() {
            return self.remove(&record.id);
        }
        let copy = Copy { record: record.clone(), downloads: downloads() };
        let bytes = postcard::to_stdvec(&copy).map_err(io::Error::other)?;
        let path = self.path(&record.id);
        let writing = path.with_extension("new");
        let bytes = [&blake3::hash(&bytes).as_bytes()[..], &bytes].concat();
        if let Err(error) = fs::write(&writing, &bytes) {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            fs::create_dir_all(&self.folder)?;
            written();
            fs::write(&writing, &bytes)?;
        }
        written();
        fs::rename(writing, path)?;
        written();
        Ok(())
    }

    /// Removes the copy of a job, if it has one. Blocking.
    pub(super) fn remove(&self, id: &str) -> io::Result<()> {
        remove(&self.path(id))
    }

    /// True if the job has a copy. Blocking.
    pub(super) fn has(&self, id: &str) -> bool {
        self.path(id).exists()
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }
}

fn read(path: &Path) -> Option<Copy> {
    if fs::metadata(path).ok()?.len() > limits::JOB_COPY_BYTES {
        return None;
    }
    let file = fs::read(path).ok()?;
    let (hash, bytes) = file.split_at_checked(HASH_BYTES)?;
    (blake3::hash(bytes).as_bytes() == hash).then(|| postcard::from_bytes(bytes).ok())?
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => written(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use overlay::id::{ContentId, PeerId};

    use super::*;
    use crate::{
        download::{
            Request,
            record::{Priority, State},
        },
        transfer::{FoundSource, Via},
    };

    fn record(id: &str) -> Record {
        let sources = vec![FoundSource { peer: PeerId([1; 32]), homes: vec![PeerId([2; 32])] }];
        let request = Request {
            content: ContentId([3; 32]),
            name: "ä b.bin".into(),
            size: Some(9),
            output: Some("/x/".into()),
            below: String::new(),
            priority: Priority::High,
            sources,
        };
        Record { sources: vec![(PeerId([1; 32]), 5, Via::Direct)], ..Record::new(id.into(), 7, request) }
    }

    #[test]
    fn what_is_not_ended_has_a_copy_and_what_is_damaged_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let copies = Copies::new(folder.path());
        assert_eq!(copies.all().unwrap(), []);
        let (one, two) = (record("one"), record("two"));
        for job in [&one, &two] {
            copies.keep(job, || "/downloads".into()).unwrap();
        }
        let copy = |record: &Record| Copy { record: record.clone(), downloads: "/downloads".into() };
        let mut all = copies.all().unwrap();
        all.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        assert_eq!(all, [copy(&one), copy(&two)]);

        let whole = fs::read(copies.path("one")).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(copies.path("one"), &damaged).unwrap();
            assert_eq!(copies.all().unwrap(), [copy(&two)], "byte {at}");
            fs::write(copies.path("one"), &whole[..at]).unwrap();
            assert_eq!(copies.all().unwrap(), [copy(&two)], "cut at {at}");
        }
        fs::write(copies.path("one.new"), &whole[..9]).unwrap();
        fs::rename(copies.path("one"), copies.path("other")).unwrap();
        assert_eq!(copies.all().unwrap(), [copy(&two)]);
        assert!(!copies.has("one.new"), "the rest of a write that was cut short");

        copies.keep(&Record { state: State::Done, ..two }, || "/downloads".into()).unwrap();
        assert_eq!(copies.all().unwrap(), []);
        copies.remove("two").unwrap();
    }
}
