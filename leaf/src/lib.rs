//! Floor 2, what people run: shares, searches, transfers.
//!
//! | module | what it is |
//! |---|---|
//! | [`catalog`] | core: the file list, in chunks with stable borders |
//! | [`homes`], [`search`] | cores: choosing and keeping ultrapeers, a search as the leaf sees it |
//! | [`home_audits`] | core: whether homes answer searches truly, and as fast as others |
//! | [`founding`] | core: how leaves without a home find each other, and which of them begins a network |
//! | [`wishes`] | core: standing queries; with `net` also the book of them |
//! | [`outlook`], [`approach`] | cores: whether others can dial this leaf, and how it comes to others |
//! | [`network`] | core: these composed; with `net` also its driver |
//! | [`swarm`], [`queue`], [`bitmap`] | cores: which piece from which source, upload slots, sets of pieces |
//! | `cli`, `cmd`, `doctor` | the command line and its commands; what one of them makes of what it saw |
//! | [`names`], [`rate`] | pure: names made safe, bytes a second |
//! | `store` | shares on the disk: scan, hash, watch, database |
//! | `transfer`, `download` | contents on the wire; downloads as jobs that last |
//! | `role` | the ultrapeer inside this process: started, served by, stepped down |
//! | `node` | the leaf, whole: owns the parts and their order |
//! | `seeking` | what is done for it with whom others name |
//! | `daemon`, `demo` | the programs around it: one leaf for real, a small network to look at |
//! | `searches`, `status`, `api`, `metrics` | searches that users started, what a leaf says of itself, its local HTTP |
//!
//! Without the feature `net` only the pure cores are built: no socket, no clock, no task.

// The support of the tests from outside serves those inside, too.
#[cfg(all(test, feature = "net"))]
extern crate self as leaf;

#[cfg(feature = "net")]
pub mod api;
pub mod approach;
#[cfg(feature = "net")]
mod beneath;
pub mod bitmap;
pub mod candidacy;
pub mod catalog;
#[cfg(feature = "net")]
pub mod cli;
#[cfg(feature = "net")]
pub mod cmd;
#[cfg(feature = "net")]
pub mod daemon;
#[cfg(feature = "net")]
pub mod demo;
#[cfg(feature = "net")]
pub mod doctor;
#[cfg(feature = "net")]
pub mod download;
#[cfg(feature = "net")]
mod file_id;
#[cfg(feature = "net")]
mod file_io;
pub mod founding;
pub mod history;
pub mod home_audits;
pub mod homes;
#[cfg(feature = "net")]
mod machinery;
#[cfg(feature = "net")]
pub mod metrics;
pub mod names;
pub mod network;
#[cfg(feature = "net")]
pub mod node;
pub mod outlook;
#[cfg(feature = "net")]
mod possession;
pub mod queue;
pub mod rate;
#[cfg(feature = "net")]
pub mod role;
pub mod search;
#[cfg(feature = "net")]
pub mod searches;
#[cfg(feature = "net")]
mod seeking;
#[cfg(feature = "net")]
pub mod status;
#[cfg(feature = "net")]
mod steps;
#[cfg(feature = "net")]
pub mod store;
pub mod swarm;
#[cfg(feature = "net")]
pub mod transfer;
pub mod views;
pub mod wishes;
