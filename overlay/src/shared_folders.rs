//! Folders that were shared while the program ran: `DATA_DIR/shares.json`, a JSON list of absolute paths.
//!
//! It lies beside the database, not in it, so that it survives when the database is lost. It is written whole or not at
//! all.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use crate::{
    admin::Code,
    console::Failure,
    folders::{PRIVATE_FILE, read_json, write_json},
    limits,
};

const FILE: &str = "shares.json";

/// The list and its file.
#[derive(Clone, Debug)]
pub struct SharedFolders {
    file: PathBuf,
    paths: BTreeSet<PathBuf>,
}

/// Why the list cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedFoldersError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The list.
        file: PathBuf,
        /// What the system says, or what is wrong with it.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// The list.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It has [`limits::SHARES`] folders already.
    #[error("{} folders are shared already", limits::SHARES)]
    TooMany,
}

impl SharedFolders {
    /// Reads the list of a data folder; absent is empty. Blocking.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn load(data_dir: &Path) -> Result<Self, SharedFoldersError> {
        let file = data_dir.join(FILE);
        match read_json(&file) {
            Ok(paths) => Ok(Self { file, paths: paths.unwrap_or_default() }),
            Err(source) => Err(SharedFoldersError::Read { file, source }),
        }
    }

    /// The folders, by path.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }

    /// Takes a folder into the list, or out of it, and writes it if that changes it. Blocking.
    ///
    /// # Errors
    /// If it is full or cannot be written; then it is as before.
    pub fn set(&mut self, folder: &Path, shared: bool) -> Result<(), SharedFoldersError> {
        let mut paths = self.paths.clone();
        let changed = if shared { paths.insert(folder.to_owned()) } else { paths.remove(folder) };
        if !changed {
            return Ok(());
        }
        if paths.len() > limits::SHARES {
            return Err(SharedFoldersError::TooMany);
        }
        let written = write_json(&self.file, &paths, PRIVATE_FILE);
        written.map_err(|source| SharedFoldersError::Write { file: self.file.clone(), source })?;
        self.paths = paths;
        Ok(())
    }
}

impl SharedFoldersError {
    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "mend the file, or remove it and share its folders anew",
            Self::Write { .. } => "check the owner of the data folder and the space on its disk",
            Self::TooMany => "share a folder above them instead",
        }
    }
}

impl From<SharedFoldersError> for Failure {
    fn from(error: SharedFoldersError) -> Self {
        let code = match &error {
            SharedFoldersError::Read { source, .. } | SharedFoldersError::Write { source, .. } => match source.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Code::BadConfig,
                kind => Self::from(io::Error::from(kind)).code,
            },
            SharedFoldersError::TooMany => Code::Conflict,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_shared_is_read_again_and_a_damaged_list_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut shared = SharedFolders::load(folder.path()).unwrap();
        for path in ["/b", "/a \"x\"", "/c"] {
            shared.set(Path::new(path), true).unwrap();
        }
        shared.set(Path::new("/c"), false).unwrap();
        let again = SharedFolders::load(folder.path()).unwrap();
        assert_eq!(again.paths().collect::<Vec<_>>(), [Path::new("/a \"x\""), Path::new("/b")]);
        fs::write(folder.path().join(FILE), "[1").unwrap();
        let failure = Failure::from(SharedFolders::load(folder.path()).unwrap_err());
        assert_eq!((failure.code, failure.exit.number()), (Code::BadConfig, 2));
        assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), b"[1");
    }
}
