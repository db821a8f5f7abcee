//! Why a dial failed, and what can be done about it.

use std::net::SocketAddr;

use super::connection::CloseReason;
use crate::{
    id::PeerId,
    limits,
    wire::{
        descriptor::SignedDescriptor,
        hello::{Contact, Refuse, RefuseReason, Situation},
    },
};

/// Why a dial failed. Nothing is left of the attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No answer, or no complete handshake, in time.
    #[error("no answer from {address} within {} s", limits::DIAL_TIMEOUT.as_secs_f64())]
    Timeout {
        /// What was dialled.
        address: SocketAddr,
    },
    /// This node cannot send there: no IPv6 here, or no address of a host.
    #[error("{address} cannot be reached from here")]
    Unreachable {
        /// What was dialled.
        address: SocketAddr,
    },
    /// Another node answered.
    #[error("at {address} is {found}, not {expected}")]
    WrongPeer {
        /// What was dialled.
        address: SocketAddr,
        /// Who was looked for.
        expected: PeerId,
        /// Who was found.
        found: PeerId,
    },
    /// The other side turned us away.
    #[error("{address} refused: {}", .reason.text())]
    Refused {
        /// What was dialled.
        address: SocketAddr,
        /// Why.
        reason: RefuseReason,
        /// Ultrapeers that may do instead; not checked yet.
        alternatives: Vec<SignedDescriptor>,
        /// Who refused.
        peer: PeerId,
        /// How it stands, if it is a leaf.
        situation: Situation,
        /// Leaves without a home that it knows, and that would be one for others; not checked.
        contacts: Vec<Contact>,
    },
    /// The other side is in a network of another name.
    #[error("{address} belongs to another network")]
    WrongNetwork {
        /// What was dialled.
        address: SocketAddr,
    },
    /// One side did not prove that it knows the network's secret.
    #[error("{address} does not share this network's secret")]
    WrongSecret {
        /// What was dialled.
        address: SocketAddr,
    },
    /// The other side speaks older versions of the protocols only.
    #[error("{address} runs an older version ({agent}) that this one cannot talk to")]
    PeerOlder {
        /// What was dialled.
        address: SocketAddr,
        /// Its program.
        agent: String,
    },
    /// The other side speaks newer versions of the protocols only.
    #[error("{address} runs a newer version ({agent}) that this one cannot talk to")]
    PeerNewer {
        /// What was dialled.
        address: SocketAddr,
        /// Its program.
        agent: String,
    },
    /// It is banned here.
    #[error("{address} is banned here")]
    Banned {
        /// What was to be dialled.
        address: SocketAddr,
    },
    /// What answers there is no node of this kind.
    #[error("{address} does not speak this protocol")]
    OtherProtocol {
        /// What was dialled.
        address: SocketAddr,
    },
    /// This node answered itself.
    #[error("{address} is this node itself")]
    SelfDial {
        /// What was dialled.
        address: SocketAddr,
    },
    /// The other side answered against the protocol.
    #[error("{address} answered nonsense")]
    Violation {
        /// What was dialled.
        address: SocketAddr,
    },
    /// The connection ended before the welcome.
    #[error("the connection to {address} failed: {reason}")]
    Closed {
        /// What was dialled.
        address: SocketAddr,
        /// Why.
        reason: CloseReason,
    },
}

impl DialError {
    /// What the user can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "check the address, that the node runs, and that firewalls let UDP through",
            Self::Unreachable { .. } => "check the address, or use one of a family that this machine has",
            Self::WrongPeer { .. } => "the node may have a new key: ask for its current id, or leave the id out",
            Self::Refused { .. } => "try another node",
            Self::WrongNetwork { .. } => "use the same network name on both sides",
            Self::WrongSecret { .. } => "use the same network secret on both sides",
            Self::PeerOlder { .. } => "ask its operator to update it, or join another node",
            Self::PeerNewer { .. } => "update this program",
            Self::OtherProtocol { .. } => "check the address and the port",
            Self::SelfDial { .. } => "join another node",
            Self::Banned { .. } => "lift the ban, or join another node",
            Self::Violation { .. } => "try another node; if it is your own, check its version",
            Self::Closed { .. } => "try again later",
        }
    }

    /// What it is called among the problems of a node that was told to join there; `None` if it is none: who is
    /// full names others, and to dial itself harms nobody.
    pub const fn problem(&self) -> Option<&'static str> {
        match self {
            Self::WrongNetwork { .. } => Some("wrong_network"),
            Self::WrongSecret { .. } => Some("wrong_secret"),
            Self::PeerOlder { .. } => Some("peer_older"),
            Self::PeerNewer { .. } => Some("peer_newer"),
            Self::Refused { .. } | Self::SelfDial { .. } => None,
            Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::WrongPeer { .. }
            | Self::Banned { .. }
            | Self::OtherProtocol { .. }
            | Self::Violation { .. }
            | Self::Closed { .. } => Some("unreachable"),
        }
    }

    /// Its name in metrics and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Unreachable { .. } => "unreachable",
            Self::WrongPeer { .. } => "wrong_peer",
            Self::Refused { .. } => "refused",
            Self::WrongNetwork { .. } => "wrong_network",
            Self::WrongSecret { .. } => "wrong_secret",
            Self::PeerOlder { .. } => "peer_older",
            Self::PeerNewer { .. } => "peer_newer",
            Self::OtherProtocol { .. } => "other_protocol",
            Self::SelfDial { .. } => "self_dial",
            Self::Banned { .. } => "banned",
            Self::Violation { .. } => "violation",
            Self::Closed { .. } => "closed",
        }
    }

    pub(super) fn refused(address: SocketAddr, peer: PeerId, refuse: Refuse) -> Self {
        match refuse.reason {
            RefuseReason::WrongNetwork => Self::WrongNetwork { address },
            RefuseReason::WrongSecret => Self::WrongSecret { address },
            reason => Self::Refused {
                address,
                reason,
                alternatives: refuse.alternatives.into_vec(),
                peer,
                situation: refuse.situation,
                contacts: refuse.contacts.into_vec(),
            },
        }
    }
}
