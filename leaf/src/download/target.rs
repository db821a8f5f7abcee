//! How a finished file gets its name: nothing is overwritten, and nothing leads out of the folder that was asked for.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use overlay::{
    drive::random_name,
    id::ContentId,
    limits,
    verify::{PieceHasher, Value},
};

use super::{partial::if_there, record::Record};
use crate::{beneath::Folder, names};

/// Names that are tried for a finished file: `a`, `a (2)`, ...
const NAMES: u32 = 10_000;

/// Where a finished file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Into a folder below one that the user chose, under this name or a numbered one.
    Folder { root: PathBuf, below: PathBuf, name: String },
    /// To this very path.
    File(PathBuf),
}

impl Target {
    /// The target that a job asks for: its output, else the download folder.
    pub(super) fn of(record: &Record, downloads: &Path) -> Self {
        let (name, below) =
            (names::safe_name(&record.name), names::folder_below(Path::new(""), &format!("{}/", record.below)));
        let Some(output) = record.output.as_deref() else {
            return Self::Folder { root: downloads.to_owned(), below, name };
        };
        let path = PathBuf::from(output);
        if output.ends_with(std::path::is_separator) || path.is_dir() {
            Self::Folder { root: path, below, name }
        } else {
            Self::File(path)
        }
    }

    /// Gives the file `name` of a folder its name there without overwriting anything. On an error it stays.
    pub(super) fn place(&self, from: &Folder, source: &str) -> Result<PathBuf, FinishError> {
        match self {
            Self::File(path) => {
                let (folder, name) = split(path)?;
                if rename(from, source, &Folder::make_root(folder)?, name)? {
                    Ok(path.clone())
                } else {
                    Err(FinishError::Taken)
                }
            }
            Self::Folder { root, below, name } => {
                let folder = Folder::make_root(root)?.make(below)?;
                for number in 1..=NAMES {
                    let name = names::numbered(name, number);
                    if rename(from, source, &folder, &name)? {
                        return Ok(folder.path().join(name));
                    }
                }
                Err(FinishError::Taken)
            }
        }
    }

    /// Copies a file that is already on this machine there. The copy has its name only once it is complete.
    pub(super) fn place_copy(&self, source: File) -> Result<PathBuf, FinishError> {
        let folder = match self {
            Self::Folder { root, below, .. } => Folder::make_root(root)?.make(below)?,
            Self::File(path) => Folder::make_root(split(path)?.0)?,
        };
        let copy = copy_into(&folder, source)?;
        self.place(&folder, &copy).inspect_err(|_| {
            // The first error is the one that counts.
            let _ = folder.remove(&copy);
        })
    }

    /// The folder that finished files come to lie in; `None` if there is none yet, or this names a file.
    fn folder(&self) -> io::Result<Option<(Folder, &str)>> {
        let Self::Folder { root, below, name } = self else { return Ok(None) };
        let Some(root) = if_there(Folder::root(root))? else { return Ok(None) };
        Ok(if_there(root.folder(below))?.map(|folder| (folder, &**name)))
    }

    /// A file of this content that lies there under the name, or a numbered one, with its piece values: an earlier run
    /// did not live to record it. Blocks for as long as reading what has this size takes.
    pub(super) fn placed(&self, size: u64, content: ContentId) -> io::Result<Option<(PathBuf, Vec<Value>)>> {
        let Some((folder, name)) = self.folder()? else { return Ok(None) };
        for number in 1..=NAMES {
            let name = names::numbered(name, number);
            if !folder.has(&name)? {
                return Ok(None);
            }
            if folder.length(&name)? == Some(size)
                && let Some(pieces) = pieces_if(folder.open(Path::new(&name))?, size, content)?
            {
                return Ok(Some((folder.path().join(name), pieces)));
            }
        }
        Ok(None)
    }

    /// True if the first name that it would give is taken, or cannot be looked at.
    pub(super) fn is_taken(&self) -> bool {
        match (self, self.folder()) {
            (Self::File(_), _) | (_, Err(_)) => true,
            (_, Ok(None)) => false,
            (_, Ok(Some((folder, name)))) => folder.has(name).unwrap_or(true),
        }
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
pub(super) fn pieces_if(mut file: File, size: u64, content: ContentId) -> io::Result<Option<Vec<Value>>> {
    let Ok(mut hasher) = PieceHasher::new(size) else { return Ok(None) };
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

/// The folder and the name of a path that the user chose.
fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or(path), name))
}

/// Renames without overwriting; copies first if the target is on another file system. False if the name is taken.
fn rename(from: &Folder, source: &str, to: &Folder, name: &str) -> io::Result<bool> {
    match from.rename(source, to, name) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
        result => return result,
    }
    let copy = copy_into(to, from.open(Path::new(source))?)?;
    match to.rename(&copy, to, name) {
        Ok(true) => from.remove(source).map(|()| true),
        result => {
            // The first error is the one that counts.
            let _ = to.remove(&copy);
            result
        }
    }
}

/// Copies a file into a folder, whole and on the disk, under a name that nobody else has. Returns the name.
fn copy_into(folder: &Folder, mut source: File) -> io::Result<String> {
    let name = format!(".quictrack-{}", random_name()?);
    let mut copy = folder.create(&name)?;
    let mut fill = || {
        source.seek(SeekFrom::Start(0))?;
        io::copy(&mut source, &mut copy)?;
        copy.sync_all()
    };
    match fill() {
        Ok(()) => Ok(name),
        Err(error) => {
            // The first error is the one that counts.
            let _ = folder.remove(&name);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::download::{Request, record::Priority};

    fn target(output: Option<&Path>, below: &str, downloads: &Path, name: &str) -> Target {
        let request = Request {
            content: ContentId([1; 32]),
            name: name.into(),
            size: None,
            output: output.map(|output| output.to_str().unwrap().to_owned()),
            below: below.into(),
            priority: Priority::Normal,
            sources: vec![],
        };
        Target::of(&Record::new("id".into(), 0, request), downloads)
    }

    #[test]
    fn a_taken_name_gets_a_number_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let target = target(None, "", folder.path(), "../a.txt");
        let from = Folder::root(folder.path()).unwrap();
        for (number, name) in [(1, "_._a.txt"), (2, "_._a (2).txt")] {
            let source = folder.path().join("source");
            fs::write(&source, [number]).unwrap();
            assert_eq!(target.place(&from, "source").unwrap(), folder.path().join(name));
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
        let from = Folder::root(folder.path()).unwrap();
        let named = target(Some(&taken), "", folder.path(), "name");
        assert!(matches!(named.place(&from, "source"), Err(FinishError::Taken)));
        assert_eq!((fs::read(&source).unwrap(), fs::read(&taken).unwrap()), (b"new".to_vec(), b"old".to_vec()));
        let into = target(Some(folder.path()), "", folder.path(), "name");
        let (root, below) = (folder.path().to_owned(), PathBuf::new());
        assert_eq!(into, Target::Folder { root, below, name: "name".into() });
    }

    #[test]
    fn a_copy_has_its_name_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("source"), "data").unwrap();
        let open = || File::open(folder.path().join("source")).unwrap();
        let target = target(None, "x/y", &folder.path().join("downloads"), "copy");
        for name in ["copy", "copy (2)"] {
            let path = target.place_copy(open()).unwrap();
            assert_eq!(path, folder.path().join("downloads/x/y").join(name));
            assert_eq!(fs::read(path).unwrap(), b"data");
        }
        let named = Target::File(folder.path().join("source"));
        assert!(matches!(named.place_copy(open()), Err(FinishError::Taken)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left over");
    }

    #[cfg(unix)]
    #[test]
    fn nothing_gets_a_name_outside_of_the_folder_that_was_asked_for() {
        let place = tempfile::tempdir().unwrap();
        let (downloads, outside) = (place.path().join("downloads"), place.path().join("outside"));
        for folder in [&downloads, &outside] {
            fs::create_dir(folder).unwrap();
        }
        std::os::unix::fs::symlink(&outside, downloads.join("Music")).unwrap();
        fs::write(downloads.join("source"), "data").unwrap();
        let from = Folder::root(&downloads).unwrap();
        for output in [None, Some(&*downloads)] {
            let target = target(output, "Music/Artist/", &downloads, "a.flac");
            assert!(matches!(target.place(&from, "source"), Err(FinishError::Io(_))));
            assert!(target.is_taken(), "it cannot be looked at");
            assert!(target.placed(4, ContentId([1; 32])).is_err());
            assert!(target.place_copy(File::open(downloads.join("source")).unwrap()).is_err());
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read(downloads.join("source")).unwrap(), b"data");
        // A folder that the user names is where they say, links and all.
        let target = target(Some(&downloads.join("Music")), "", &downloads, "a.flac");
        target.place(&from, "source").unwrap();
        assert!(outside.join("a.flac").is_file());
    }
}
