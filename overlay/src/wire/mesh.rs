//! Messages between ultrapeers.
//!
//! One connection for each pair, dialled by either side. The control stream carries the hello,
//! membership, attachments and introductions; each side opens one stream for its queries and one for the
//! hits that it owes, so that a slow list of hits never holds back a probe.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{
    bounded::List,
    hello::{Goodbye, HELLO_CAP, Hello, REFUSE_CAP, Refuse, Welcome},
    leaf::{IntroductionFailure, Members},
    messages,
    search::{HITS_CAP, Hit, Target},
};
use crate::{
    id::{PeerId, QueryId},
    limits,
};

messages! {
    /// What ultrapeers say to each other.
    pub enum MeshMessage {
        /// The first frame of the side that dialled.
        1 Hello(Hello) up to HELLO_CAP,
        /// It is let in.
        2 Welcome(Welcome) up to HELLO_CAP,
        /// It is not.
        3 Refuse(Refuse) up to REFUSE_CAP,
        /// The sender leaves in order.
        4 Goodbye(Goodbye) up to REFUSE_CAP,
        /// Descriptors that the other side may not know.
        5 Members(Members) up to limits::MEMBERS_PER_FRAME * limits::DESCRIPTOR_BYTES + 64,
        /// Leaves that came to or left the sender.
        6 Attachments(Attachments) up to 64 << 10,
        /// Search your own leaves.
        7 Query(Query) up to 4 << 10,
        /// Some of the hits.
        8 QueryHits(QueryHits) up to HITS_CAP,
        /// There are no more.
        9 QueryDone(QueryDone) up to 64,
        /// A leaf of the sender wants to reach one of yours.
        10 Introduce(MeshIntroduce) up to 512,
        /// Whether and where it can.
        11 Introduced(MeshIntroduced) up to 512,
    }
}

/// The streams of a mesh connection, in the order of their importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Hello, membership, attachments, introductions.
    Control,
    /// Answers to queries.
    Hits,
    /// Queries.
    Queries,
}

impl MeshMessage {
    /// The stream that it belongs on.
    pub fn class(&self) -> Class {
        match self {
            Self::QueryHits(_) | Self::QueryDone(_) => Class::Hits,
            Self::Query(_) => Class::Queries,
            _ => Class::Control,
        }
    }
}

/// Changes of who is attached to the sender, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachments {
    /// True if these begin anew: forget what was known of the sender.
    pub reset: bool,
    /// True if nothing is left to send: the receiver's copy is now the sender's state.
    pub caught_up: bool,
    /// What changed.
    pub changes: List<AttachmentChange, { limits::ATTACHMENTS_PER_FRAME }>,
}

/// A leaf came, changed its list, or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentChange {
    /// The leaf's handle.
    pub handle: u64,
    /// The sequence of its list in the sender's index; `None` if it left.
    pub sequence: Option<u64>,
}

/// Search your own leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The coordinator's name for it.
    pub id: QueryId,
    /// What is looked for.
    pub target: Target,
    /// Distinct contents wanted.
    pub limit: u32,
}

/// Hits of a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryHits {
    /// Which query.
    pub id: QueryId,
    /// Contents that match, best first.
    pub hits: List<Hit, { limits::HITS_PER_FRAME }>,
}

/// The end of the answer to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryDone {
    /// Which query.
    pub id: QueryId,
    /// True if there are more contents than the limit.
    pub more: bool,
    /// True if the look-up was cut because it cost too much.
    pub capped: bool,
    /// Contents held back by the operator's block list.
    pub withheld: u32,
}

/// A leaf of the sender wants to reach one of yours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshIntroduce {
    /// The sender's name for it.
    pub session: u64,
    /// Who asks.
    pub asker: PeerId,
    /// Whom it wants to reach.
    pub target: PeerId,
}

/// Whether and where it can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshIntroduced {
    /// Of the [`MeshIntroduce`].
    pub session: u64,
    /// Addresses at which the target agreed to be dialled, or why not.
    pub answer: Result<List<SocketAddr, { limits::CANDIDATES }>, IntroductionFailure>,
}
