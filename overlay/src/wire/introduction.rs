//! Bringing leaves together: introductions, dial-backs, relayed connections.
//!
//! ```text
//! asker ──Introduce──> its home ──MeshIntroduce──> target's homes ──Introduction──> target
//!       <─Introduced──          <─MeshIntroduced──                <─IntroductionReply─
//! asker ──Guest, RelayOpen──> a home of the target ──RelayOffer──> target ──Guest, RelayOpen──> that home
//!       <─────────── RelayReady, then Carried both ways between the two streams ───────────────>
//! leaf ──DialBackAsk──> home ──handshake from another socket──> leaf <──DialledBack── home
//! ```

use std::{net::SocketAddr, num::NonZeroU16};

use serde::{Deserialize, Serialize};

use super::{
    bounded::{Blob, List},
    descriptor::SignedDescriptor,
};
use crate::{
    id::PeerId,
    introduction::{Nature, Way},
    limits,
};

/// Bytes that a message with one [`Side`] may have.
pub const SIDE_CAP: usize = 512;
/// Bytes that an [`Introduced`] may have.
pub const INTRODUCED_CAP: usize = 512 + limits::RELAYS_NAMED * limits::DESCRIPTOR_BYTES;
/// Bytes that a `MeshIntroduced` may have.
pub const AGREED_CAP: usize = SIDE_CAP + limits::DESCRIPTOR_BYTES;

/// Addresses of a leaf in its own network.
pub type Local = List<SocketAddr, { limits::LOCAL_ADDRESSES }>;

/// One of the two that are introduced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Where a home sees it, on a path that is validated, or at a port of that address through which the home came.
    pub address: SocketAddr,
    /// What is in front of it, as it knows.
    pub nature: Nature,
    /// Where it is in its own network, as it says: of use only to who is seen at the same address.
    pub local: Local,
}

/// The leaf wants to reach another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduce {
    /// The other leaf.
    pub target: PeerId,
    /// Ultrapeers that it may be attached to, as a hit told; none means unknown.
    pub homes: List<PeerId, { limits::HOMES }>,
    /// What the target shall do; `None` leaves it to what is in front of the two.
    pub way: Option<Way>,
    /// Names the attempt to both sides, drawn at random; never 0.
    pub token: u64,
    /// What is in front of the asker, as it knows.
    pub nature: Nature,
    /// Where the asker is in its own network.
    pub local: Local,
}

/// Whether and where it can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Introduced {
    /// The target agreed.
    At(Box<Whereabouts>),
    /// It did not work out.
    Failed(IntroductionFailure),
}

/// What an asker learns of a target that agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// Addresses at which its homes see it.
    pub addresses: List<SocketAddr, { limits::CANDIDATES }>,
    /// What is in front of it, as it says.
    pub nature: Nature,
    /// Where it is in its own network, if both are seen at the same address.
    pub local: Local,
    /// Where the asker is seen itself.
    pub observed: SocketAddr,
    /// Homes of the target that would relay.
    pub relays: List<SignedDescriptor, { limits::RELAYS_NAMED }>,
}

/// Why an introduction failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum IntroductionFailure {
    /// No ultrapeer that was asked has the target.
    TargetGone,
    /// The target declined.
    Refused,
    /// The target or its home did not answer in time.
    Timeout,
    /// Too many introductions.
    Limited,
}

impl IntroductionFailure {
    /// The failure in words, for logs and messages.
    pub const fn text(self) -> &'static str {
        match self {
            Self::TargetGone => "no ultrapeer has it",
            Self::Refused => "it declined",
            Self::Timeout => "it did not answer its home in time",
            Self::Limited => "too many introductions are under way",
        }
    }
}

/// Another leaf wants to reach this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// Names it in the reply.
    pub session: u64,
    /// Who asks; its key was proven to its own home.
    pub peer: PeerId,
    /// Of the [`Introduce`].
    pub way: Option<Way>,
    /// Of the [`Introduce`].
    pub token: u64,
    /// Where it is, as its home says. It is in this leaf's own network if both are seen at the same address.
    pub side: Side,
    /// Where the home sees this leaf.
    pub observed: SocketAddr,
}

/// Whether it may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntroductionReply {
    /// Of the [`Introduction`].
    pub session: u64,
    /// True if the leaf lets itself be reached.
    pub accept: bool,
    /// What is in front of it, as it knows.
    pub nature: Nature,
    /// Where it is in its own network.
    pub local: Local,
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
    /// Of the [`Introduce`].
    pub way: Option<Way>,
    /// Of the [`Introduce`].
    pub token: u64,
    /// Where the sender sees the asker.
    pub side: Side,
}

/// Whether and where it can.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshIntroduced {
    /// Of the [`MeshIntroduce`].
    pub session: u64,
    /// What the target agreed to, or why not.
    pub answer: Result<Box<Agreed>, IntroductionFailure>,
}

/// A target agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// Where the sender sees it.
    pub side: Side,
    /// The sender itself, if it would relay for the two.
    pub relay: Option<SignedDescriptor>,
}

/// Dial me, where you see me, from a socket that I never sent anything to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialBackAsk {
    /// At this port of the address instead of the one that you see, because a router forwards it to me. Who gets through
    /// there brings others to me there, while I say that my port is mapped.
    pub port: Option<NonZeroU16>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialledBack {
    /// Whether the leaf answered there; `None` if it was not tried, because others are before it.
    pub reached: Option<bool>,
}

/// Another leaf, which was introduced just now, wants to be relayed to this one: come as a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayOffer {
    /// Of the [`Introduction`].
    pub token: u64,
    /// Who.
    pub peer: PeerId,
}

/// A guest wants to be relayed to the other one of an introduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayOpen {
    /// Of the introduction.
    pub token: u64,
    /// The other one.
    pub peer: PeerId,
}

/// Both are there: what is carried from now on goes to the other one. Or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayReady {
    /// Why not.
    pub refused: Option<RelayRefusal>,
}

/// Why an ultrapeer does not relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RelayRefusal {
    /// It introduced nobody by that token lately, or others.
    Unknown,
    /// It relays as much as it may, or is busy with other things.
    Full,
    /// It relays enough for one of the two.
    Quota,
    /// The other one did not come.
    Absent,
}

impl RelayRefusal {
    /// The reason in words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "it knows nothing of the introduction",
            Self::Full => "it relays as much as it may",
            Self::Quota => "it relays enough for one of the two",
            Self::Absent => "the other one did not come",
        }
    }
}

/// A packet of the connection between two that are relayed: QUIC, encrypted between these two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The packet.
    pub packet: Blob<{ limits::RELAY_PACKET }>,
}

impl Nature {
    /// True if others can dial a leaf of this nature.
    pub const fn is_open(self) -> bool {
        self.reachability.is_open()
    }
}

impl IntroductionReply {
    /// The reply of a leaf that knows nothing of what is in front of it.
    pub fn new(session: u64, accept: bool) -> Self {
        Self { session, accept, nature: Nature::default(), local: List::default() }
    }
}
