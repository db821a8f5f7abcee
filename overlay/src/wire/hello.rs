//! How every connection begins: the dialler says `Hello`, the other side `Welcome` or `Refuse`.
//!
//! TLS has proven both keys by then. The hello adds what TLS does not know: the network, the proof of a
//! private network's secret, and where each side sees the other. A dialler counts as accepted only
//! after `Welcome`: with TLS 1.3 its own handshake ends before the other side has judged its key.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{
    bounded::{List, Text},
    descriptor::SignedDescriptor,
};
use crate::{
    id::{HandleSalt, PeerId},
    limits,
};

/// Bytes that a `Hello` or `Welcome` may have.
pub const HELLO_CAP: usize = 1024;
/// Bytes that a `Refuse` or `Goodbye` may have: its alternatives are descriptors, its contacts keys with addresses.
pub const REFUSE_CAP: usize = limits::ALTERNATIVES * limits::DESCRIPTOR_BYTES + limits::CONTACTS_NAMED * 64 + 256;

/// The first frame of the side that dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The network that it wants to be in.
    pub network: Text<64>,
    /// Proof of the network's secret (see [`secret_proof`]); `None` on networks without one.
    pub proof: Option<[u8; 32]>,
    /// Name and version of the program, for logs.
    pub agent: Text<64>,
    /// What it can do beyond the major version; see [`capabilities`].
    pub capabilities: u64,
    /// The address at which it reached the other side.
    pub observed: SocketAddr,
    /// Makes a leaf's handle, with its key: random for each session of the process, the same at all its homes. Zeros in
    /// other protocols.
    pub salt: HandleSalt,
    /// The token of an introduction that this connection answers; 0 if it was not introduced.
    pub introduction: u64,
    /// True of a leaf that was sent on before and has no home: it is refused only where there is no room.
    pub insists: bool,
    /// How it stands, if it is a leaf.
    pub situation: Situation,
}

/// How a leaf stands that says who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Situation {
    /// It has a home, or it is no leaf.
    #[default]
    Settled,
    /// It has no home, and would not be one for others.
    Homeless,
    /// It has no home, and would be one for others.
    Volunteer,
    /// It comes only to be relayed to another leaf, and is none here.
    Guest,
}

/// A node, and where it can be dialled. A hint only: whoever tells it may be wrong or lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Contact {
    /// Its key.
    pub peer: PeerId,
    /// Where it was seen, or answered.
    pub address: SocketAddr,
}

/// The answer that lets the dialler in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Proof of the network's secret, by the side that was dialled.
    pub proof: Option<[u8; 32]>,
    /// Name and version of the program, for logs.
    pub agent: Text<64>,
    /// What it can do beyond the major version; see [`capabilities`].
    pub capabilities: u64,
    /// The address from which the dialler's packets come.
    pub observed: SocketAddr,
    /// Its own descriptor, if it is an ultrapeer.
    pub descriptor: Option<SignedDescriptor>,
}

/// The answer that does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// Why.
    pub reason: RefuseReason,
    /// Ultrapeers that may do instead.
    pub alternatives: List<SignedDescriptor, { limits::ALTERNATIVES }>,
    /// How the refusing node stands itself, if it is a leaf.
    pub situation: Situation,
    /// Other leaves without a home that would be one for others, as a leaf knows.
    pub contacts: List<Contact, { limits::CONTACTS_NAMED }>,
}

impl Refuse {
    /// The refusal of a node that knows of ultrapeers at most.
    pub fn new(reason: RefuseReason, alternatives: Vec<SignedDescriptor>) -> Self {
        let alternatives = List::new(alternatives);
        Self { reason, alternatives, situation: Situation::Settled, contacts: List::default() }
    }
}

/// The last frame of a side that leaves in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// Ultrapeers that may do instead.
    pub alternatives: List<SignedDescriptor, { limits::ALTERNATIVES }>,
}

/// Why a connection is refused after its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RefuseReason {
    /// The two are in networks of different names.
    WrongNetwork,
    /// The dialler did not prove the network's secret.
    WrongSecret,
    /// All slots are taken.
    Full,
    /// This node is a leaf; its alternatives are ultrapeers.
    NotUltrapeer,
    /// This node does not serve this protocol.
    NotServed,
    /// The dialler is banned here.
    Banned,
    /// This node is shutting down.
    Draining,
    /// The dialler connects or asks too often.
    RateLimited,
    /// There is room, but its alternatives have more.
    Busy,
}

impl RefuseReason {
    /// The reason in words, for logs and messages.
    pub const fn text(self) -> &'static str {
        match self {
            Self::WrongNetwork => "it belongs to another network",
            Self::WrongSecret => "the network's secret differs",
            Self::Full => "all its slots are taken",
            Self::NotUltrapeer => "it is not an ultrapeer",
            Self::NotServed => "it does not serve this",
            Self::Banned => "this node is banned there",
            Self::Draining => "it is shutting down",
            Self::RateLimited => "too many attempts",
            Self::Busy => "others have more room",
        }
    }
}

/// Bits of `capabilities`. None is defined in this version: all of major version 1 is understood.
pub mod capabilities {
    /// What this version can do.
    pub const OURS: u64 = 0;
}

/// The proof that the sender knows a private network's secret, good for one connection only.
///
/// `channel` is 32 bytes of keying material exported from the TLS session under the label
/// `quictrack network secret`, so a proof cannot be carried to another connection. Both keys are included
/// because raw-public-key TLS alone does not bind the identities (RFC 7250 6); the sender's comes first,
/// which also keeps a proof from being sent back to its maker.
pub fn secret_proof(secret: &[u8], channel: &[u8; 32], sender: &PeerId, receiver: &PeerId) -> [u8; 32] {
    let key = blake3::derive_key("quictrack 2026-11-22 network secret", secret);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(channel).update(&sender.0).update(&receiver.0);
    *hasher.finalize().as_bytes()
}

/// True if `proof` is what [`secret_proof`] gives. Takes the same time wherever the first difference is.
pub fn proof_is(proof: Option<[u8; 32]>, expected: &[u8; 32]) -> bool {
    // `blake3::Hash` compares in constant time.
    proof.is_some_and(|proof| blake3::Hash::from_bytes(proof) == blake3::Hash::from_bytes(*expected))
}
