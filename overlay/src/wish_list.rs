//! Standing queries of a leaf: `DATA_DIR/wishes.json`, a JSON list. What a wish found lies in the database.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    limits,
    list_file::{ListError, ListFile, ListKind},
};

static KIND: ListKind = ListKind {
    file: "wishes.json",
    most: limits::WISHES_OF_LEAF,
    full: "wishes are there already",
    make_room: "remove one first: `quictrack wish list` shows them, `quictrack wish remove ID` removes one",
    mend: "mend the file, or remove it and make its wishes anew",
};

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
    /// In the order in which they were made.
    list: ListFile<ListedWish>,
}

impl WishList {
    /// Reads the list of a data folder; absent is empty. Blocking.
    ///
    /// # Errors
    /// If it is there and cannot be read, or has more wishes than there may be.
    pub fn load(data_dir: &Path) -> Result<Self, ListError> {
        ListFile::load(data_dir, &KIND).map(|list| Self { list })
    }

    /// The wishes, in the order in which they were made.
    pub fn wishes(&self) -> &[ListedWish] {
        self.list.items()
    }

    /// Takes a wish into the list and writes it. Blocking.
    ///
    /// # Errors
    /// If it is full or cannot be written; then it is as before.
    pub fn add(&mut self, wish: ListedWish) -> Result<(), ListError> {
        let mut wishes = self.wishes().to_vec();
        wishes.push(wish);
        self.list.store(wishes)
    }

    /// Takes a wish out of the list and writes it. False if there is none of that name. Blocking.
    ///
    /// # Errors
    /// If it cannot be written; then it is as before.
    pub fn remove(&mut self, id: &str) -> Result<bool, ListError> {
        let wishes: Vec<_> = self.wishes().iter().filter(|wish| wish.id != id).cloned().collect();
        let is_there = wishes.len() < self.wishes().len();
        if is_there {
            self.list.store(wishes)?;
        }
        Ok(is_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::Code, console::Failure};

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
}
