//! Floor 2, what people run: shares, searches, transfers.
//!
//! | module | what it is |
//! |---|---|
//! | [`catalog`] | core: the file list, in chunks with stable borders |
//! | [`homes`], [`search`] | cores: choosing and keeping ultrapeers, a search as the leaf sees it |
//! | [`swarm`], [`queue`], [`bitmap`] | cores: which piece from which source, upload slots, sets of pieces |
//!
//! Without the feature `net` only the pure cores are built: no socket, no clock, no task.

pub mod bitmap;
pub mod catalog;
pub mod homes;
pub mod queue;
pub mod search;
pub mod swarm;
