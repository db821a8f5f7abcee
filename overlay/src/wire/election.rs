//! How a node gets in as an ultrapeer, and how networks of one name find out that they are two. What is decided by it is in
//! [`crate::election`].

use serde::{Deserialize, Serialize};

use super::{
    bounded::List,
    descriptor::{Endorsement, SignedDescriptor},
};
use crate::{
    id::PeerId,
    identity::{Identity, Signature},
    limits,
};

/// Let the sender serve, or confirm that it may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// What the sender says of itself, with the endorsements that it has.
    pub descriptor: SignedDescriptor,
    /// What its homes found, if it is a leaf that volunteers.
    pub invitations: List<Invitation, { limits::INVITATIONS }>,
    /// True if the sender serves another network of the same name, which has met this one.
    pub meeting: bool,
}

/// The answer to [`Apply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The admission of the descriptor that it is about.
    pub admission: u64,
    /// What is decided.
    pub answer: VerdictAnswer,
}

/// What an ultrapeer decides of one that wants to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerdictAnswer {
    /// It may.
    Endorsed(Endorsement),
    /// The vote is not the sender's, but theirs.
    Elsewhere(List<SignedDescriptor, { limits::VOTERS_NAMED }>),
    /// It may not (yet), and may ask again after so many seconds.
    Refused(Hurdle, u32),
}

/// What keeps a node from serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Hurdle {
    /// It was not reached at the address that it names, by a connection of its own.
    Reachable,
    /// It was not seen for long enough.
    Uptime,
    /// It sends too slowly.
    Bandwidth,
    /// It loses too many packets.
    Loss,
    /// Its part of the Internet has as many ultrapeers as it may have.
    Prefix,
    /// The network has enough.
    Demand,
    /// The network grows as fast as it may.
    Growth,
    /// Others are being measured.
    Busy,
    /// It said something that nobody says who keeps to the protocol.
    Protocol,
    /// It was let in before, and answered nobody any more soon after.
    Silent,
    /// It told of its leaves what is not so.
    Untrue,
}

/// What a home found out about a leaf that volunteers, signed: good for an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Who measured.
    pub home: PeerId,
    /// What.
    pub measured: Measured,
    /// Seconds since 1970 by the clock of the home.
    pub issued_s: u64,
    /// By the home, over the leaf's key and the fields above.
    pub signature: Signature,
}

/// What others found out about a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Seconds for which it has been seen without a break.
    pub uptime_s: u32,
    /// The rate at which it sends, in kbit/s; 0 if that was not measured.
    pub bandwidth_kbit: u32,
    /// Lost of a million packets sent to it.
    pub loss_ppm: u32,
    /// Of a thousand sessions, those that did not end by surprise.
    pub stability: u16,
}

/// Domain separation of invitations.
const INVITATION_CONTEXT: &[u8] = b"quictrack/1 invitation\0";

impl Invitation {
    /// Signs what `home` found out about `leaf` in that network.
    pub fn sign(home: &Identity, network: [u8; 8], leaf: &PeerId, measured: Measured, issued_s: u64) -> Self {
        let peer = home.peer_id();
        let signature = home.sign(INVITATION_CONTEXT, &Self::signed(network, leaf, &measured, issued_s));
        Self { home: peer, measured, issued_s, signature }
    }

    /// True if its home signed it, for that leaf in that network.
    pub fn is_for(&self, network: [u8; 8], leaf: &PeerId) -> bool {
        let signed = Self::signed(network, leaf, &self.measured, self.issued_s);
        self.signature.verify(&self.home, INVITATION_CONTEXT, &signed)
    }

    fn signed(network: [u8; 8], leaf: &PeerId, measured: &Measured, issued_s: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        super::encode_into(&(network, leaf, measured, issued_s), &mut bytes);
        bytes
    }
}

/// The receiver is no member of the network as the sender knows it: perhaps each serves a network of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meeting {
    /// Ultrapeers of the sender's network, itself included.
    pub total: u32,
    /// The lowest of their keys.
    pub lowest: PeerId,
    /// Those of them that vote on the receiver.
    pub voters: List<SignedDescriptor, { limits::VOTERS_NAMED }>,
}
