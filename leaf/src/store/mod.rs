//! What the leaf keeps on the disk, and the shares it finds there.
//!
//! | module | what it is |
//! |---|---|
//! | [`database`] | `state.redb`: records of files, the catalog, tables of other modules |
//! | [`record`] | what is known of a file that was hashed |
//! | `scan` | walking a share: which files count |
//! | `hash`, `tags` | content ids and piece values; media tags |
//! | `pass` | one pass over a share: walk, compare, hash, record |
//! | `known` | what is on record, as the walk compares with it |
//! | `watch` | being told of changes |
//! | `shares` | the driver: keeps the catalog true to the folders |
//! | `check` | a slow look whether everything is still what was hashed |
//!
//! Order of writing: an outboard first, then the record that needs it; the catalog is saved before anybody is
//! told of it. So whatever was cut off by a crash is done again by the next pass, and nothing
//! refers to what is not there.

use std::{io, path::PathBuf};

mod check;
pub mod database;
mod hash;
mod known;
mod pass;
mod path;
pub mod record;
mod scan;
mod shares;
mod tags;
mod watch;

pub(crate) use check::check_slowly;
pub use database::{Batch, Database, DatabaseError, Table};
pub use hash::Outboards;
pub use pass::give_way;
pub use scan::SkipReason;
pub use shares::{Served, Share, ShareSpec, ShareState, Shares, SharesConfig, SharesError, Skipped};
pub use watch::LIMIT_HINT as WATCH_LIMIT_HINT;

/// Why the store failed. What was committed stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A share cannot be read.
    #[error("{path} cannot be read: {error}", path = path.display())]
    Share {
        /// The share's folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The data folder's disk failed.
    #[error("the data folder cannot be used: {0}")]
    Disk(#[from] io::Error),
    /// A thread of the store panicked: a defect of the program. Its file was not recorded.
    #[error("a thread of the store panicked")]
    Panicked,
}
