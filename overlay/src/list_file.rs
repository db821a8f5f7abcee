//! Small lists that were made at run time and lie in the data folder, each a file of JSON.
//!
//! They lie beside the database, not in it, so that they survive when that is lost and travel with the settings. A list
//! is written whole or not at all, and one that cannot be read is left alone: whoever made it mends it.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    admin::Code,
    console::Failure,
    folders::{PRIVATE_FILE, read_json, write_atomically},
    limits,
};

/// What a list is: where it lies, how much it holds, and how people are told.
#[derive(Debug)]
pub struct ListKind {
    /// The file's name in the data folder.
    pub file: &'static str,
    /// Items that it has at most.
    pub most: usize,
    /// What it has too many of, behind a number: `wishes are there already`.
    pub full: &'static str,
    /// What to do when it is full.
    pub make_room: &'static str,
    /// What to do when it cannot be read.
    pub mend: &'static str,
}

/// A list and its file.
#[derive(Clone, Debug)]
pub struct ListFile<T> {
    kind: &'static ListKind,
    file: PathBuf,
    items: Vec<T>,
}

/// Why a list cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The list.
        file: PathBuf,
        /// What the system says, or what is wrong with it.
        source: io::Error,
        /// What to do next.
        hint: &'static str,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// The list.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is full.
    #[error("{number} {what}")]
    TooMany {
        /// Items that it has.
        number: usize,
        /// What they are.
        what: &'static str,
        /// What to do next.
        hint: &'static str,
    },
}

impl<T: Serialize + DeserializeOwned> ListFile<T> {
    /// Reads the list of a data folder; absent is empty. Blocking.
    ///
    /// # Errors
    /// If it is there and cannot be read, or has more items than it may have.
    pub fn load(data_dir: &Path, kind: &'static ListKind) -> Result<Self, ListError> {
        let file = data_dir.join(kind.file);
        let read = read_json::<Vec<T>>(&file).map(Option::unwrap_or_default).and_then(|items| {
            let fits = items.len() <= kind.most;
            fits.then_some(items).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is too long"))
        });
        match read {
            Ok(items) => Ok(Self { kind, file, items }),
            Err(source) => Err(ListError::Read { file, source, hint: kind.mend }),
        }
    }

    /// What it holds, in its order.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// Holds these instead, and writes them. Blocking.
    ///
    /// # Errors
    /// If they are too many or cannot be written; then it is as before.
    pub fn store(&mut self, items: Vec<T>) -> Result<(), ListError> {
        let Self { kind, file, .. } = self;
        let text = serde_json::to_string_pretty(&items).map_err(io::Error::from).map(|text| text + "\n");
        let text = text.map_err(|source| ListError::Write { file: file.clone(), source })?;
        // What is longer would not be read again.
        if items.len() > kind.most || text.len() as u64 > limits::CONFIG_BYTES {
            return Err(ListError::TooMany { number: self.items.len(), what: kind.full, hint: kind.make_room });
        }
        let written = write_atomically(file, text.as_bytes(), PRIVATE_FILE);
        written.map_err(|source| ListError::Write { file: file.clone(), source })?;
        self.items = items;
        Ok(())
    }
}

impl ListError {
    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Write { .. } => "check the owner of the data folder and the space on its disk",
            Self::Read { hint, .. } | Self::TooMany { hint, .. } => hint,
        }
    }

    /// What the system said, if it could not be read or written.
    pub fn system(&self) -> Option<&io::Error> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => Some(source),
            Self::TooMany { .. } => None,
        }
    }

    /// What a request is answered that could not be carried out.
    pub fn code(&self) -> Code {
        match self {
            Self::TooMany { .. } => Code::Conflict,
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::DiskFull,
            _ => Code::Internal,
        }
    }
}

impl From<ListError> for Failure {
    fn from(error: ListError) -> Self {
        let code = match error.system().map(io::Error::kind) {
            None => Code::Conflict,
            Some(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => Code::BadConfig,
            Some(kind) => Self::from(io::Error::from(kind)).code,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    static NUMBERS: ListKind = ListKind {
        file: "numbers.json",
        most: 3,
        full: "numbers are there already",
        make_room: "remove one",
        mend: "mend it",
    };

    #[test]
    fn a_list_is_read_again_and_has_no_more_than_it_may_have() {
        let folder = tempfile::tempdir().unwrap();
        let mut list = ListFile::<u64>::load(folder.path(), &NUMBERS).unwrap();
        assert!(list.items().is_empty());
        list.store(vec![3, 1, 2]).unwrap();
        let failure = Failure::from(list.store(vec![1, 2, 3, 4]).unwrap_err());
        assert_eq!((failure.code, failure.exit.number()), (Code::Conflict, 1));
        assert_eq!(failure.message, "3 numbers are there already");
        assert_eq!(ListFile::<u64>::load(folder.path(), &NUMBERS).unwrap().items(), [3, 1, 2]);
        fs::write(folder.path().join(NUMBERS.file), "[1,2,3,4]").unwrap();
        let failure = Failure::from(ListFile::<u64>::load(folder.path(), &NUMBERS).unwrap_err());
        assert_eq!(failure.code, Code::BadConfig);
    }

    #[test]
    fn what_would_not_be_read_again_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut list = ListFile::<String>::load(folder.path(), &NUMBERS).unwrap();
        let long = "x".repeat(limits::CONFIG_BYTES as usize);
        assert!(matches!(list.store(vec![long]), Err(ListError::TooMany { .. })));
        assert!(!folder.path().join(NUMBERS.file).exists());
    }

    #[test]
    fn a_damaged_list_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NUMBERS.file), "[1").unwrap();
        let failure = Failure::from(ListFile::<u64>::load(folder.path(), &NUMBERS).unwrap_err());
        assert_eq!((failure.code, failure.exit.number()), (Code::BadConfig, 2));
        assert_eq!(fs::read(folder.path().join(NUMBERS.file)).unwrap(), b"[1");
    }
}
