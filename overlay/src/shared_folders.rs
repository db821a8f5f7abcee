//! Folders that were shared while the program ran: `DATA_DIR/shares.json`, a JSON list of absolute paths.

use std::path::{Path, PathBuf};

use crate::{
    limits,
    list_file::{ListError, ListFile, ListKind},
};

static KIND: ListKind = ListKind {
    file: "shares.json",
    most: limits::SHARES,
    full: "folders are shared already",
    make_room: "share a folder above them instead",
    mend: "mend the file, or remove it and share its folders anew",
};

/// The list and its file.
#[derive(Clone, Debug)]
pub struct SharedFolders {
    /// Sorted, each once.
    list: ListFile<PathBuf>,
}

impl SharedFolders {
    /// Reads the list of a data folder; absent is empty. Blocking.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn load(data_dir: &Path) -> Result<Self, ListError> {
        ListFile::load(data_dir, &KIND).map(|list| Self { list })
    }

    /// The folders, by path.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.list.items().iter().map(PathBuf::as_path)
    }

    /// Takes a folder into the list, or out of it, and writes it if that changes it. Blocking.
    ///
    /// # Errors
    /// If it is full or cannot be written; then it is as before.
    pub fn set(&mut self, folder: &Path, shared: bool) -> Result<(), ListError> {
        if self.paths().any(|path| path == folder) == shared {
            return Ok(());
        }
        let mut paths = self.list.items().to_vec();
        if shared {
            paths.push(folder.to_owned());
        } else {
            paths.retain(|path| path != folder);
        }
        paths.sort_unstable();
        self.list.store(paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut shared = SharedFolders::load(folder.path()).unwrap();
        for path in ["/b", "/a \"x\"", "/c", "/b"] {
            shared.set(Path::new(path), true).unwrap();
        }
        shared.set(Path::new("/c"), false).unwrap();
        let again = SharedFolders::load(folder.path()).unwrap();
        assert_eq!(again.paths().collect::<Vec<_>>(), [Path::new("/a \"x\""), Path::new("/b")]);
    }
}
