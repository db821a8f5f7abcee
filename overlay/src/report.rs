//! What a node says of itself, for people and programs: the objects `status` and `peer` of the command line
//! and of HTTP, of both programs. One type serves the daemon that writes and the command that reads.
//!
//! Every field is always written: what is unknown, or a part that the program does not have, is null.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// The object `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// `leaf` or `ultrapeer`.
    pub role: String,
    /// The node.
    pub peer_id: String,
    /// The network's name.
    pub network: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The bound UDP address.
    pub listen: Option<SocketAddr>,
    /// Where others see this node.
    pub observed: Vec<SocketAddr>,
    /// How others reach it: `public mapped natted unknown`.
    pub reachability: String,
    /// Whether this leaf volunteers: `never auto always`.
    pub volunteer: Option<String>,
    /// What `/readyz` says.
    pub ready: bool,
    /// What is wrong, and what to do about it.
    pub problems: Vec<Problem>,
    /// The ultrapeers of this leaf.
    pub homes: Option<Vec<Home>>,
    /// Ultrapeers that are known, this node included if it is one.
    pub ultrapeers: u64,
    /// Shards of the network.
    pub shards: u64,
    /// The prefix of the leaf space that this node covers, as binary digits; empty is everything.
    pub shard_prefix: Option<String>,
    /// What is shared.
    pub shares: Option<SharesTotal>,
    /// What others can find.
    pub catalog: Option<CatalogTotal>,
    /// Downloads by state.
    pub downloads: Option<BTreeMap<String, u64>>,
    /// Uploads by state.
    pub uploads: Option<BTreeMap<String, u64>>,
    /// Bytes a second.
    pub upload_rate: Option<u64>,
    /// Bytes a second.
    pub download_rate: Option<u64>,
    /// What is missing to become an ultrapeer.
    pub election: Vec<Criterion>,
    /// What this node does as an ultrapeer, if it is one.
    pub ultrapeer: Option<UltrapeerPart>,
}

/// Something that its operator should know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// A word for programs.
    pub code: String,
    /// What is wrong and why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// An ultrapeer of a leaf.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Home {
    /// Its id.
    pub peer: String,
    /// Where it is reached.
    pub address: Option<SocketAddr>,
    /// The round trip.
    pub rtt_ms: Option<f64>,
    /// Since when this leaf is attached: RFC 3339.
    pub since_at: String,
    /// Files in its index.
    pub acknowledged: u64,
}

/// All shares together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharesTotal {
    /// Files that are hashed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are not hashed yet.
    pub pending_files: u64,
    /// Their bytes.
    pub pending_bytes: u64,
}

/// The list of files, as others have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CatalogTotal {
    /// Files in the list.
    pub files: u64,
    /// Files that some home has.
    pub acknowledged: u64,
}

/// One condition for becoming an ultrapeer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Criterion {
    /// `volunteer reachable uptime bandwidth loss memory power prefix demand`.
    pub name: String,
    /// Whether it holds; null if it was not measured yet.
    pub met: Option<bool>,
    /// What is.
    pub have: Option<String>,
    /// What should be.
    pub want: Option<String>,
}

/// What a node does as an ultrapeer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UltrapeerPart {
    /// `candidate admitted founder draining`.
    pub state: String,
    /// Attached leaves.
    pub leaves: u64,
    /// Leaves that it takes.
    pub max_leaves: u64,
    /// Files in its index.
    pub index_files: u64,
    /// Memory of its index.
    pub index_bytes: u64,
    /// Leaves that it knows of anywhere.
    pub digest_leaves: u64,
    /// Queries answered lately, own leaves' and other ultrapeers'.
    pub queries_per_s: f64,
}

/// The object `peer`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Its id.
    pub peer: String,
    /// Where it is reached.
    pub address: Option<SocketAddr>,
    /// `leaf` or `ultrapeer`.
    pub role: String,
    /// `alive suspect cached`.
    pub state: String,
    /// True if it is a home of this leaf.
    pub home: bool,
    /// The prefix of the leaf space that it covers; null for leaves.
    pub shard_prefix: Option<String>,
    /// The round trip.
    pub rtt_ms: Option<f64>,
    /// What open connections to it are for: `leaf mesh transfer`.
    pub connections: Vec<String>,
}
