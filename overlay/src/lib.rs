//! The ground floor of Quictrack: what leaves and ultrapeers share.
//!
//! | module | what it is |
//! |---|---|
//! | [`time`], [`id`], [`limits`], [`machine`] | the cores' clock, names of things, every cap, what a core is |
//! | [`file`], [`text`], [`query`] | a shared file, how text becomes tokens, the query language |
//! | [`credit`] | token buckets |
//! | [`identity`] | a node's key pair |
//! | [`wire`] | everything that travels between nodes |
//! | [`membership`] | core: who the ultrapeers are |
//! | [`verify`] | pieces of a content and their proof under its BLAKE3 |
//! | `admin`, `metrics` | the local HTTP of both programs, what Prometheus sees |
//!
//! Without the feature `net` only the pure part is built: no socket, no clock, no task.

#[cfg(feature = "net")]
pub mod admin;
pub mod credit;
pub mod file;
pub mod id;
pub mod identity;
pub mod limits;
pub mod machine;
pub mod membership;
#[cfg(feature = "net")]
pub mod metrics;
pub mod query;
pub mod text;
pub mod time;
pub mod verify;
pub mod wire;
