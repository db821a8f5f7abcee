//! Standing queries of a leaf: `DATA_DIR/wishes.json`, a JSON list.
//!
//! It lies beside the database, not in it, so that it survives when the database is lost and travels with the settings.
//! What a wish found lies in the database.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    admin::Code,
    console::Failure,
    folders::{PRIVATE_FILE, read_json, write_json},
    limits,
};

const FILE: &str = "wishes.json";

/// What somebody wishes for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The query, as it was given.
    pub query: String,
    /// Whether what is found is downloaded.
    #[serde(default)]
    pub download: bool,
    /// Bytes above which it is not downloaded; `None` is unlimited.
    #[serde(default)]
    pub max_size: Option<u64>,
}

/// A wish in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedWish {
    /// Its name, `[a-z0-9]{1,16}`, never used again.
    pub id: String,
    /// What it is for.
    #[serde(flatten)]
    pub wish: Wish,
    /// When it was made, in seconds since 1970 UTC.
    pub created_s: i64,
}

/// The list and its file.
#[derive(Clone, Debug)]
pub struct WishList {
    file: PathBuf,
    /// In the order in which they were made.
    wishes: Vec<ListedWish>,
}

/// Why the list cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WishListError {
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
    /// It has [`limits::WISHES_OF_LEAF`] wishes already.
    #[error("there are {} wishes already", limits::WISHES_OF_LEAF)]
    TooMany,
}

impl WishList {
    /// Reads the list of a data folder; absent is empty. Blocking.
    ///
    /// # Errors
    /// If it is there and cannot be read, or has more wishes than there may be.
    pub fn load(data_dir: &Path) -> Result<Self, WishListError> {
        let file = data_dir.join(FILE);
        let too_many = || io::Error::new(io::ErrorKind::InvalidData, WishListError::TooMany);
        match read_json::<Vec<ListedWish>>(&file).map(Option::unwrap_or_default) {
            Ok(wishes) if wishes.len() <= limits::WISHES_OF_LEAF => Ok(Self { file, wishes }),
            Ok(_) => Err(WishListError::Read { file, source: too_many() }),
            Err(source) => Err(WishListError::Read { file, source }),
        }
    }

    /// The wishes, in the order in which they were made.
    pub fn wishes(&self) -> &[ListedWish] {
        &self.wishes
    }

    /// Takes a wish into the list and writes it. Blocking.
    ///
    /// # Errors
    /// If it is full or cannot be written; then it is as before.
    pub fn add(&mut self, wish: ListedWish) -> Result<(), WishListError> {
        if self.wishes.len() >= limits::WISHES_OF_LEAF {
            return Err(WishListError::TooMany);
        }
        let mut wishes = self.wishes.clone();
        wishes.push(wish);
        self.store(wishes)
    }

    /// Takes a wish out of the list and writes it. False if there is none of that name. Blocking.
    ///
    /// # Errors
    /// If it cannot be written; then it is as before.
    pub fn remove(&mut self, id: &str) -> Result<bool, WishListError> {
        let wishes: Vec<_> = self.wishes.iter().filter(|wish| wish.id != id).cloned().collect();
        let is_there = wishes.len() < self.wishes.len();
        if is_there {
            self.store(wishes)?;
        }
        Ok(is_there)
    }

    fn store(&mut self, wishes: Vec<ListedWish>) -> Result<(), WishListError> {
        let written = write_json(&self.file, &wishes, PRIVATE_FILE);
        written.map_err(|source| WishListError::Write { file: self.file.clone(), source })?;
        self.wishes = wishes;
        Ok(())
    }
}

impl WishListError {
    /// What to do next.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "mend the file, or remove it and make its wishes anew",
            Self::Write { .. } => "check the owner of the data folder and the space on its disk",
            Self::TooMany => {
                "remove one first: `quictrack wish list` shows them, `quictrack wish remove ID` removes one"
            }
        }
    }
}

impl From<WishListError> for Failure {
    fn from(error: WishListError) -> Self {
        let code = match &error {
            WishListError::Read { source, .. } | WishListError::Write { source, .. } => match source.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Code::BadConfig,
                kind => Self::from(io::Error::from(kind)).code,
            },
            WishListError::TooMany => Code::Conflict,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn wish(number: usize) -> ListedWish {
        let wish = Wish { query: format!("\"the {number}\" ext:txt"), download: number == 1, max_size: Some(7) };
        ListedWish { id: format!("w{number}"), wish, created_s: 5 }
    }

    #[test]
    fn wishes_are_read_again_in_their_order_and_are_no_more_than_there_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let mut list = WishList::load(folder.path()).unwrap();
        for number in 0..limits::WISHES_OF_LEAF {
            list.add(wish(number)).unwrap();
        }
        let failure = Failure::from(list.add(wish(99)).unwrap_err());
        assert_eq!((failure.code, failure.exit.number()), (Code::Conflict, 1));
        assert_eq!((list.remove("w3").unwrap(), list.remove("w3").unwrap()), (true, false));
        let again = WishList::load(folder.path()).unwrap();
        assert_eq!(again.wishes(), list.wishes());
        assert_eq!((again.wishes().len(), &again.wishes()[3]), (limits::WISHES_OF_LEAF - 1, &wish(4)));
    }

    #[test]
    fn a_damaged_list_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "[{}]").unwrap();
        let failure = Failure::from(WishList::load(folder.path()).unwrap_err());
        assert_eq!((failure.code, failure.exit.number()), (Code::BadConfig, 2));
        assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), b"[{}]");
    }
}
