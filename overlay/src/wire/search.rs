//! Queries, hits and summaries: what a search is made of on the wire, the same between a leaf and its
//! coordinator and between ultrapeers.

use serde::{Deserialize, Serialize};

use super::bounded::{List, Text};
use crate::{
    file::Tags,
    id::{ContentId, PeerId, QueryId},
    limits,
};

/// Bytes that a frame of hits may have. Its writer fills frames up to half of it.
pub const HITS_CAP: usize = 256 << 10;

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// Files that match a query, as its source text.
    Query(Text<{ limits::QUERY_BYTES }>),
    /// Holders of a content.
    Content(ContentId),
}

/// A leaf's search, sent to the home that shall coordinate it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// Chosen by the leaf; the same if it must be sent to another home.
    pub id: QueryId,
    /// What is looked for.
    pub target: Target,
    /// Distinct contents wanted, at most [`limits::SEARCH_LIMIT_ALL`].
    pub limit: u32,
    /// Milliseconds after which the coordinator gives up.
    pub timeout_ms: u32,
    /// Ask every home that holds a match, even when the limit is reached.
    pub all: bool,
}

/// One content that matches, with everything a user needs to choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// What it is.
    pub content: ContentId,
    /// Bytes.
    pub size: u64,
    /// How well it matches and how easily it is had; higher is better, comparable between ultrapeers.
    pub score: u32,
    /// File names under which it is shared: those of most files first, among several ultrapeers those of most leaves.
    pub names: List<Text<{ limits::NAME_BYTES }>, { limits::HIT_NAMES }>,
    /// The path of the best source, from its share's name to the file.
    pub path: Text<{ limits::PATH_BYTES }>,
    /// Seconds since 1970 UTC of the last change, at the best source.
    pub modified_s: i64,
    /// Media tags, from the file that tells most.
    pub tags: Tags,
    /// Live leaves that hold it whole.
    pub sources: u32,
    /// Networks in which they are, as far as known.
    pub networks: u32,
    /// The best of them.
    pub peers: List<HitPeer, { limits::HIT_PEERS }>,
    /// All of them, between ultrapeers only: so that a leaf which two of them know counts once.
    /// Cut at [`limits::HIT_HOLDERS`]; beyond that, `sources` is the larger count.
    pub holders: List<Holder, { limits::HIT_HOLDERS }>,
}

/// A leaf that holds a content, as ultrapeers tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The leaf's handle.
    pub handle: u64,
    /// Place in the hit's names of the one that it has most files under; `None` if that is not listed.
    pub name: Option<u8>,
}

/// A source of a hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitPeer {
    /// The leaf.
    pub peer: PeerId,
    /// Ultrapeers that it is attached to, as far as they answered.
    pub homes: List<PeerId, { limits::HOMES }>,
    /// Whether others can dial it.
    pub reachability: Reachability,
    /// Upload slots that are free.
    pub free_slots: u16,
    /// Downloaders that wait.
    pub queue: u32,
}

/// Whether others can dial a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "net", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    /// Not known yet.
    #[default]
    Unknown,
    /// At its own address.
    Public,
    /// At an address that its router maps for it.
    Mapped,
    /// Only with the help of a home.
    Natted,
}

impl Reachability {
    /// True if others can dial such a node.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Public | Self::Mapped)
    }
}

/// Hits of a search, in one of several frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hits {
    /// New contents, or better knowledge of contents that were sent before.
    pub hits: List<Hit, { limits::HITS_PER_FRAME }>,
}

/// The end of a search, as its coordinator saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Why it ended.
    pub stopped: StopReason,
    /// Why it may miss something, although it ended by exhaustion. A set of [`Incomplete`].
    pub incomplete: IncompleteSet,
    /// Ultrapeers that received the query, the coordinator included.
    pub ultrapeers_asked: u32,
    /// Ultrapeers alive in the coordinator's membership, itself included.
    pub ultrapeers_total: u32,
    /// Parts of the leaf space that were asked.
    pub shards_asked: u32,
    /// Parts of the leaf space that there are.
    pub shards_total: u32,
    /// Leaves whose lists were searched.
    pub leaves_covered: u64,
    /// Leaves attached anywhere, as the coordinator knows.
    pub leaves_total: u64,
    /// Copies of the query sent from node to node, without the leaf's own.
    pub messages: u32,
    /// Contents held back by an operator's block list.
    pub withheld: u32,
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "net", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum StopReason {
    /// Enough contents were found.
    Limit,
    /// Everyone who could know was asked.
    #[default]
    Exhausted,
    /// The time was over.
    Timeout,
    /// The asker withdrew it.
    Cancelled,
}

/// Why an exhausted search may have missed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Incomplete {
    /// No live ultrapeer covers a part of the leaf space.
    ShardUncovered,
    /// An ultrapeer's list of attached leaves is more than 3 s behind.
    DigestLag,
    /// No home of some leaf answered.
    HomeSilent,
    /// A look-up was cut because it cost too much.
    WorkCap,
    /// The homes of the asking leaf do not agree on who the ultrapeers are.
    ViewsDiffer,
}

impl Incomplete {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::ShardUncovered, Self::DigestLag, Self::HomeSilent, Self::WorkCap, Self::ViewsDiffer];

    /// Its name in JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ShardUncovered => "shard_uncovered",
            Self::DigestLag => "digest_lag",
            Self::HomeSilent => "home_silent",
            Self::WorkCap => "work_cap",
            Self::ViewsDiffer => "views_differ",
        }
    }
}

/// A set of [`Incomplete`], one bit each. Bits of later releases are kept and make a search incomplete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IncompleteSet(u32);

impl IncompleteSet {
    /// Adds a reason.
    pub fn insert(&mut self, reason: Incomplete) {
        self.0 |= 1 << reason as u32;
    }

    /// Takes a reason out; true if it was there.
    pub fn remove(&mut self, reason: Incomplete) -> bool {
        let before = *self;
        self.0 &= !(1 << reason as u32);
        *self != before
    }

    /// Adds all reasons of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// True if `reason` is in it.
    pub fn contains(self, reason: Incomplete) -> bool {
        self.0 & (1 << reason as u32) != 0
    }

    /// True if there is no reason, known or unknown.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The reasons that this version knows.
    pub fn iter(self) -> impl Iterator<Item = Incomplete> {
        Incomplete::ALL.into_iter().filter(move |reason| self.contains(*reason))
    }
}
