//! What a node says of itself, for people and programs: the objects `status`, `peer` and `ban` of the command line
//! and of HTTP, of both programs. One type serves the daemon that writes and the command that reads.
//!
//! Every field is always written: what is unknown, or a part that the program does not have, is null.

use std::{collections::BTreeMap, net::SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The object `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What stands between this leaf and serving as an ultrapeer.
    pub election: Option<Vec<Criterion>>,
    /// What this node does as an ultrapeer, if it is one.
    pub ultrapeer: Option<UltrapeerPart>,
}

/// Something that its operator should know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Problem {
    /// A word for programs.
    pub code: String,
    /// What is wrong and why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// Something that was looked at, and whether it is as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// What was looked at, in a word for programs.
    pub name: String,
    /// Whether it is as it should be; `None` if that could not be tried.
    pub ok: Option<bool>,
    /// What was found.
    pub message: String,
    /// What to do, or what could be better.
    pub hint: Option<String>,
}

/// An ultrapeer of a leaf.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Home {
    /// Its id.
    pub peer: String,
    /// Where it is reached.
    pub address: Option<SocketAddr>,
    /// The round trip.
    pub rtt_ms: Option<f64>,
    /// Since when this leaf is attached: RFC 3339.
    pub since_at: Option<String>,
    /// Files in its index.
    pub acknowledged: u64,
}

/// All shares together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SharesTotal {
    /// Files that are hashed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are not hashed yet.
    pub pending_files: u64,
}

/// The list of files, as others have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CatalogTotal {
    /// Files in the list.
    pub files: u64,
    /// Files that some home has.
    pub acknowledged: u64,
    /// True if some home has the list as it is now, as far as it takes lists.
    pub current: bool,
}

/// One condition for becoming an ultrapeer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// The object `ban`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Ban {
    /// A peer id, an address prefix or a content id.
    pub target: String,
    /// `peer prefix content`.
    pub kind: String,
    /// `settings` if it was made at run time, `file` if it stands in a list.
    pub origin: String,
    /// Why.
    pub reason: Option<String>,
    /// RFC 3339 UTC: when it was made, or first read.
    pub created_at: Option<String>,
    /// RFC 3339 UTC; null if it counts for good.
    pub expires_at: Option<String>,
}

/// The time as RFC 3339 in UTC; `None` beyond the year 9999.
pub fn timestamp(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    /// The same text comes out as went in, so names and order of the fields are as promised.
    fn assert_same<T: Serialize + DeserializeOwned>(json: &str) {
        let read: T = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }

    #[test]
    fn objects_have_the_promised_fields() {
        assert_same::<Status>(
            r#"{"version":"0.1.0","role":"leaf","peer_id":"aa","network":"public","uptime_s":1,"listen":"[::]:7780","observed":[],"reachability":"unknown","volunteer":"auto","ready":false,"problems":[{"code":"no_ultrapeer","message":"m","hint":null}],"homes":[{"peer":"bb","address":"127.0.0.1:1","rtt_ms":0.2,"since_at":null,"acknowledged":3}],"ultrapeers":0,"shards":0,"shard_prefix":null,"shares":{"files":1,"bytes":2,"pending_files":3},"catalog":{"files":1,"acknowledged":0,"current":false},"downloads":{"active":1},"uploads":{},"upload_rate":0,"download_rate":0,"election":[{"name":"uptime","met":false,"have":"1 s","want":"1 h"}],"ultrapeer":null}"#,
        );
        assert_same::<UltrapeerPart>(
            r#"{"state":"admitted","leaves":1,"max_leaves":2,"index_files":3,"index_bytes":4,"digest_leaves":5,"queries_per_s":0.5}"#,
        );
        assert_same::<Peer>(
            r#"{"peer":"bb","address":"127.0.0.1:1","role":"ultrapeer","state":"alive","home":true,"shard_prefix":"","rtt_ms":1.5,"connections":["leaf"]}"#,
        );
    }

    #[test]
    fn what_a_program_does_not_have_is_null_and_never_left_out() {
        let json = serde_json::to_value(Status::default()).unwrap();
        for part in ["homes", "shares", "catalog", "downloads", "uploads", "volunteer", "election", "ultrapeer"] {
            assert_eq!(json.get(part), Some(&serde_json::Value::Null), "{part}");
        }
    }
}
