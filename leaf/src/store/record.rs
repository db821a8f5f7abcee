//! What the leaf knows of a file that it hashed: the rows of [`super::database`].

use std::fs;

use overlay::{file::Tags, id::ContentId};
use serde::{Deserialize, Serialize};

/// What identifies a version of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Device it lies on; 0 where the system has none.
    pub device: u64,
    /// Number on that device; 0 where the system has none.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change, in seconds since 1970.
    pub modified_s: i64,
    /// Nanoseconds of the last change within its second.
    pub modified_ns: u32,
}

impl Stamp {
    /// The stamp of a file.
    #[cfg(unix)]
    pub fn of(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec().try_into().unwrap_or(0),
        }
    }

    /// The stamp of a file.
    #[cfg(not(unix))]
    pub fn of(metadata: &fs::Metadata) -> Self {
        let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let since = since.unwrap_or_default();
        let modified_s = since.as_secs().try_into().unwrap_or(i64::MAX);
        Self { device: 0, inode: 0, size: metadata.len(), modified_s, modified_ns: since.subsec_nanos() }
    }
}

/// A hashed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version that was hashed.
    pub stamp: Stamp,
    /// BLAKE3 of its bytes.
    pub content: ContentId,
    /// What it says about itself.
    pub tags: Tags,
}

/// A folder whose files are on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Short for its path in other tables; never reused while files refer to it.
    pub id: u32,
    /// The share's name.
    pub name: String,
    /// Device it was on when it was last scanned, to tell an emptied folder from an unmounted one.
    pub device: Option<u64>,
}

/// Where a content lies: a root's id and the bytes of the path below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The root's id.
    pub root: u32,
    /// The path below it, as the file system spells it.
    pub below: Vec<u8>,
}

impl Place {
    pub(super) fn key(&self) -> Vec<u8> {
        file_key(self.root, &self.below)
    }

    pub(super) fn from_key(key: &[u8]) -> Option<Self> {
        let (root, below) = key.split_first_chunk()?;
        Some(Self { root: u32::from_be_bytes(*root), below: below.to_vec() })
    }
}

/// The key of a file in tables: sorted by root, then by path.
pub(super) fn file_key(root: u32, below: &[u8]) -> Vec<u8> {
    [&root.to_be_bytes(), below].concat()
}
