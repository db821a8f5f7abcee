//! A node's identity: its Ed25519 key pair. The public key is the node's name.

#[cfg(feature = "net")]
mod key_file;

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

#[cfg(feature = "net")]
pub use self::key_file::KeyFileError;
use crate::id::PeerId;

/// The secret half of a node's name. Never leaves the process; [`fmt::Debug`] shows the public half only.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// The identity made of 32 secret bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(&seed) }
    }

    /// The public name.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.key.verifying_key().to_bytes())
    }

    /// The 32 secret bytes. Only for the key file and the TLS stack.
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.key.to_bytes())
    }

    /// Signs `context` followed by `message`. Each kind of statement has a context of its own, so that one
    /// can never be taken for another.
    pub fn sign(&self, context: &[u8], message: &[u8]) -> Signature {
        let bytes = self.key.sign(&[context, message].concat()).to_bytes();
        let (r, s) = bytes.split_at(32);
        Signature(r.try_into().expect("32 of 64 bytes"), s.try_into().expect("32 of 64 bytes"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.peer_id())
    }
}

/// An Ed25519 signature: its two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl Signature {
    /// True if `peer` signed `context` followed by `message`. Strict: keys of small order are refused.
    pub fn verify(&self, peer: &PeerId, context: &[u8], message: &[u8]) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&peer.0) else { return false };
        let signature = ed25519_dalek::Signature::from_components(self.0, self.1);
        key.verify_strict(&[context, message].concat(), &signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_bound_to_key_context_and_message() {
        let identity = Identity::from_seed([7; 32]);
        let signature = identity.sign(b"a", b"message");
        assert!(signature.verify(&identity.peer_id(), b"a", b"message"));
        assert!(!signature.verify(&identity.peer_id(), b"b", b"message"));
        assert!(!signature.verify(&identity.peer_id(), b"a", b"messagf"));
        assert!(!signature.verify(&Identity::from_seed([8; 32]).peer_id(), b"a", b"message"));
    }
}
