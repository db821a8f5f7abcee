//! The ground floor of Quictrack: what leaves and ultrapeers share.
//!
//! | module | what it is |
//! |---|---|
//! | [`time`], [`id`], [`limits`], [`machine`] | the cores' clock, names of things, every cap, what a core is |
//! | [`file`](mod@file), [`text`], [`query`] | a shared file, how text becomes tokens, the query language |
//! | [`credit`] | token buckets |
//! | [`identity`] | a node's key pair |
//! | `drive` | what every driver needs: clock, random numbers, the loop of a core, tasks |
//! | `transport` | QUIC connections between proven keys, and framed streams on them |
//! | [`wire`] | everything that travels between nodes |
//! | [`shards`] | parts of the leaf space |
//! | [`membership`] | core: who the ultrapeers are |
//! | [`election`] | who may be one: votes, limits, demand |
//! | [`discovery`] | how the network is found: DNS, the local network, the BitTorrent DHT |
//! | `portmap` | asking the router to forward the port |
//! | [`introduction`] | by which ways two leaves come together |
//! | [`bans`] | who is not dealt with, and which contents are blocked |
//! | [`units`], [`address`] | sizes, rates and durations as people write them; addresses, prefixes, network names |
//! | [`batch`] | catalog chunks on the wire |
//! | [`verify`] | pieces of a content and their proof under its BLAKE3 |
//! | `admin`, `metrics` | the local HTTP of both programs, what Prometheus sees |
//! | `config`, `environment`, `folders` | the configuration and its sources, and where everything lies |
//! | `remembered`, `list_file`, `shared_folders`, `wish_list` | on disk: ultrapeers of earlier sessions, and lists made at run time: folders that are shared, standing queries |
//! | `console` | the only place that prints; failures and exit codes |
//! | `telemetry`, `life` | the log; signals, readiness and the end of a daemon |
//! | `startup`, `commands` | what both daemons do before they serve, and commands that both programs have |
//! | `report` | what a node says of itself |
//!
//! Without the feature `net` only the pure part is built: no socket, no clock, no task.

pub mod address;
#[cfg(feature = "net")]
pub mod admin;
pub mod bans;
pub mod batch;
#[cfg(feature = "net")]
pub mod commands;
#[cfg(feature = "net")]
pub mod config;
#[cfg(feature = "net")]
pub mod console;
pub mod credit;
pub mod discovery;
#[cfg(feature = "net")]
pub mod drive;
pub mod election;
#[cfg(feature = "net")]
pub mod environment;
pub mod file;
#[cfg(feature = "net")]
pub mod folders;
pub mod id;
pub mod identity;
pub mod introduction;
#[cfg(feature = "net")]
pub mod life;
pub mod limits;
#[cfg(feature = "net")]
pub mod list_file;
pub mod machine;
pub mod membership;
#[cfg(feature = "net")]
pub mod metrics;
#[cfg(feature = "net")]
pub mod portmap;
pub mod query;
#[cfg(feature = "net")]
pub mod remembered;
#[cfg(feature = "net")]
pub mod report;
pub mod shards;
#[cfg(feature = "net")]
pub mod shared_folders;
#[cfg(feature = "net")]
pub mod startup;
#[cfg(feature = "net")]
pub mod telemetry;
pub mod text;
pub mod time;
#[cfg(feature = "net")]
pub mod transport;
pub mod units;
pub mod verify;
pub mod wire;
#[cfg(feature = "net")]
pub mod wish_list;
