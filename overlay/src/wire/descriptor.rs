//! A descriptor: what an ultrapeer says of itself, signed by its key and endorsed by others.
//!
//! Descriptors travel as the bytes that were signed. They carry a relative lifetime and a sequence, so no
//! clocks need to agree: of two descriptors of one peer, the one with the higher sequence counts.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::bounded::{Blob, List};
use crate::{
    id::PeerId,
    identity::{Identity, Signature},
    limits,
};

/// Domain separation of descriptor signatures.
const CONTEXT: &[u8] = b"quictrack/1 descriptor\0";
/// Domain separation of endorsements.
const ENDORSEMENT_CONTEXT: &[u8] = b"quictrack/1 endorsement\0";

/// What an ultrapeer says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Descriptor {
    /// Its key.
    pub peer: PeerId,
    /// The first 8 bytes of BLAKE3 of the network's name, so that gossip does not cross networks.
    pub network: [u8; 8],
    /// Where it is reached.
    pub address: SocketAddr,
    /// The part of the leaf space whose digests it holds.
    pub shard: ShardPrefix,
    /// Leaves that it takes.
    pub capacity: u32,
    /// Grows with each new descriptor of this peer, over restarts too.
    pub sequence: u64,
    /// Seconds for which it counts after it was first heard of; 0 withdraws the peer.
    pub lifetime_s: u32,
    /// The sequence that it had reached when it last asked to be let in: endorsements speak of that.
    pub admission: u64,
    /// True of a leaf that serves while it is needed; false of one that its operator wants to serve always.
    pub volunteer: bool,
}

impl Descriptor {
    /// How long it counts after it was first heard of.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(u64::from(self.lifetime_s))
    }

    /// Signs it. `identity` must be that of `self.peer`, or nobody accepts it.
    pub fn sign(&self, identity: &Identity) -> SignedDescriptor {
        self.sign_endorsed(identity, [])
    }

    /// Signs it, with the endorsements of others: at most [`limits::ENDORSEMENTS`].
    pub fn sign_endorsed(
        &self,
        identity: &Identity,
        endorsements: impl IntoIterator<Item = Endorsement>,
    ) -> SignedDescriptor {
        let mut body = Vec::new();
        super::encode_into(self, &mut body);
        let signature = identity.sign(CONTEXT, &body);
        let body = Blob::new(body).expect("a descriptor has under 110 bytes");
        SignedDescriptor { body, signature, endorsements: List::new(endorsements) }
    }

    /// What an endorsement is about: who may serve where, since which admission, and what that is worth.
    fn endorsed(&self, score: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        super::encode_into(&(self.network, self.peer, self.address, self.admission, self.volunteer, score), &mut bytes);
        bytes
    }
}

/// The tag that binds a descriptor to a network.
pub fn network_tag(name: &str) -> [u8; 8] {
    let hash = blake3::hash(name.as_bytes());
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// A part of the leaf space: all leaves whose hash begins with these bits. No bits means everything. What can be
/// asked of it is in [`crate::shards`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardPrefix {
    /// The bits, from the highest down; those beyond `length` are 0.
    pub bits: u32,
    /// How many bits count, at most 32.
    pub length: u8,
}

/// A descriptor with its signature and its endorsements, as it travels and is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SignedDescriptor {
    /// The encoded [`Descriptor`], exactly as it was signed.
    body: Blob<{ limits::DESCRIPTOR_BODY_BYTES }>,
    /// By the peer it describes.
    signature: Signature,
    /// By the ultrapeers that admitted it, where the network asks for that.
    endorsements: List<Endorsement, { limits::ENDORSEMENTS }>,
}

/// An ultrapeer's word that another was measured and may serve. It holds for all descriptors with the same address that
/// follow from the same admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endorsement {
    /// The first eight bytes of the endorser's key.
    pub by: [u8; 8],
    /// What the endorser found it to be worth, in tenths; see [`crate::election`].
    pub score: u16,
    /// By the endorser.
    pub signature: Signature,
}

impl Endorsement {
    /// Endorses what `descriptor` says of its peer, address and admission.
    pub fn sign(identity: &Identity, descriptor: &Descriptor, score: u16) -> Self {
        let signature = identity.sign(ENDORSEMENT_CONTEXT, &descriptor.endorsed(score));
        Self { by: identity.peer_id().first_bytes(), score, signature }
    }

    /// True if `by` endorsed what `descriptor` says.
    pub fn is_by(&self, by: &PeerId, descriptor: &Descriptor) -> bool {
        self.by == by.first_bytes() && self.signature.verify(by, ENDORSEMENT_CONTEXT, &descriptor.endorsed(self.score))
    }
}

impl SignedDescriptor {
    /// The endorsements under it, not checked.
    pub fn endorsements(&self) -> &[Endorsement] {
        &self.endorsements
    }

    /// Reads and checks it: the encoding, the bounds and the peer's own signature.
    pub fn open(&self) -> Result<Descriptor, DescriptorError> {
        let descriptor = self.read()?;
        if !self.signature.verify(&descriptor.peer, CONTEXT, &self.body) {
            return Err(DescriptorError::Signature);
        }
        Ok(descriptor)
    }

    /// Reads what it claims and checks everything but the signature, which costs the most: enough to see that
    /// it is nothing new.
    pub fn read(&self) -> Result<Descriptor, DescriptorError> {
        let descriptor: Descriptor =
            super::decode_exact("Descriptor", &self.body).map_err(|_| DescriptorError::Malformed)?;
        let plausible = descriptor.address.port() != 0
            && !descriptor.address.ip().is_unspecified()
            && !descriptor.address.ip().is_multicast()
            && descriptor.shard.is_canonical()
            && descriptor.lifetime_s <= limits::DESCRIPTOR_LIFETIME_MAX_S;
        if !plausible {
            return Err(DescriptorError::Malformed);
        }
        Ok(descriptor)
    }
}

/// Why a descriptor is unacceptable. The fault is that of whoever made it; who passed it on is at fault
/// too, because everyone checks before passing on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// It cannot be read, or names an impossible address, shard or lifetime.
    #[error("malformed descriptor")]
    Malformed,
    /// The signature is not that of the peer it describes.
    #[error("wrong signature on a descriptor")]
    Signature,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(identity: &Identity) -> Descriptor {
        Descriptor {
            peer: identity.peer_id(),
            network: network_tag("public"),
            address: "192.0.2.1:7780".parse().expect("an address"),
            shard: ShardPrefix::ALL,
            capacity: 1000,
            sequence: 7,
            lifetime_s: 7200,
            admission: 7,
            volunteer: true,
        }
    }

    #[test]
    fn an_endorsement_is_for_one_address_and_one_admission() {
        let [ours, voter, other] = [1, 2, 3].map(|seed| Identity::from_seed([seed; 32]));
        let good = descriptor(&ours);
        let endorsement = Endorsement::sign(&voter, &good, 25);
        let later = Descriptor { sequence: 9, capacity: 5, lifetime_s: 0, ..good };
        assert!(endorsement.is_by(&voter.peer_id(), &good) && endorsement.is_by(&voter.peer_id(), &later));
        assert!(!endorsement.is_by(&other.peer_id(), &good));
        assert!(!Endorsement { score: 26, ..endorsement }.is_by(&voter.peer_id(), &good));
        let moved = Descriptor { address: "192.0.2.2:7780".parse().expect("an address"), ..good };
        let again = Descriptor { admission: 8, ..good };
        let operated = Descriptor { volunteer: false, ..good };
        for others in [moved, again, operated] {
            assert!(!endorsement.is_by(&voter.peer_id(), &others));
        }
    }

    #[test]
    fn only_the_peer_itself_can_sign() {
        let ours = Identity::from_seed([1; 32]);
        let other = Identity::from_seed([2; 32]);
        let good = descriptor(&ours);
        assert_eq!(good.sign(&ours).open(), Ok(good.clone()));
        assert_eq!(good.sign(&other).open(), Err(DescriptorError::Signature));
    }

    #[test]
    fn impossible_claims_are_malformed() {
        let ours = Identity::from_seed([1; 32]);
        let mut bad = descriptor(&ours);
        bad.address = "0.0.0.0:7780".parse().expect("an address");
        assert_eq!(bad.sign(&ours).open(), Err(DescriptorError::Malformed));
        let mut bad = descriptor(&ours);
        bad.shard = ShardPrefix { bits: 1, length: 3 };
        assert_eq!(bad.sign(&ours).open(), Err(DescriptorError::Malformed));
        let mut bad = descriptor(&ours);
        bad.lifetime_s = u32::MAX;
        assert_eq!(bad.sign(&ours).open(), Err(DescriptorError::Malformed));
    }
}
