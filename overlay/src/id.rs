//! Names of things: nodes, contents, queries.
//!
//! Every identifier has one text form (peer ids are base32, content ids are hex) and one
//! wire form (its bytes), and parsing accepts exactly what displaying prints, in either case.

use std::{fmt, str::FromStr};

use data_encoding::{BASE32_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

/// A node: its Ed25519 public key. Written as 52 characters of lower-case base32 without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub [u8; 32]);

impl PeerId {
    /// Characters in the text form.
    pub const TEXT_LEN: usize = 52;

    /// The first ten characters, enough to tell peers apart in logs.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }

    /// The first eight bytes: names a peer among those that are known, where a mistake is noticed by a signature.
    pub fn first_bytes(&self) -> [u8; 8] {
        *self.0.first_chunk().expect("a key has 32 bytes")
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for PeerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != Self::TEXT_LEN {
            return Err(IdError::Length { what: "peer id", want: Self::TEXT_LEN, have: text.chars().count() });
        }
        let bytes = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| IdError::Characters { what: "peer id", alphabet: "a-z and 2-7" })?;
        bytes.try_into().map(Self).map_err(|_| IdError::Characters { what: "peer id", alphabet: "a-z and 2-7" })
    }
}

/// A content: the BLAKE3 hash of its bytes, as `b3sum` prints it. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentId(pub [u8; 32]);

impl ContentId {
    /// Characters in the text form.
    pub const TEXT_LEN: usize = 64;

    /// The first eight digits, the shortest prefix that commands accept.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..4])
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for ContentId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != Self::TEXT_LEN {
            return Err(IdError::Length { what: "content id", want: Self::TEXT_LEN, have: text.chars().count() });
        }
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| IdError::Characters { what: "content id", alphabet: "0-9 and a-f" })?;
        bytes.try_into().map(Self).map_err(|_| IdError::Characters { what: "content id", alphabet: "0-9 and a-f" })
    }
}

/// What a leaf's handle is made of beside its key: random, and told to its homes alone until one of them must prove
/// whose the handle is. So who knows handles cannot tell which key is behind one, and nobody can make his key fit one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HandleSalt(pub [u8; 16]);

impl HandleSalt {
    /// One that nobody can guess. Fails only where the system has no randomness.
    #[cfg(feature = "net")]
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The handle of a leaf: names it among ultrapeers for one session.
    pub fn handle(&self, leaf: &PeerId) -> u64 {
        let mut hasher = blake3::Hasher::new_derive_key("quictrack 2026-11-28 leaf handle");
        hasher.update(&leaf.0).update(&self.0);
        u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

/// A search, chosen at random by the leaf that asks, so that a repeated request is recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueryId(pub u64);

/// Why a text is no identifier. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text is shorter or longer than the identifier.
    #[error("a {what} has {want} characters, this has {have}")]
    Length {
        /// Which identifier was expected.
        what: &'static str,
        /// Characters it has.
        want: usize,
        /// Characters that were given.
        have: usize,
    },
    /// The text holds a character outside the alphabet, or its last character is not canonical.
    #[error("this is no {what}: its characters are {alphabet}")]
    Characters {
        /// Which identifier was expected.
        what: &'static str,
        /// Its alphabet, in words.
        alphabet: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wrong_length_and_alphabet_are_told_apart() {
        assert!(matches!("abc".parse::<PeerId>(), Err(IdError::Length { have: 3, .. })));
        assert!(matches!("1".repeat(52).parse::<PeerId>(), Err(IdError::Characters { .. })));
        assert!(matches!("g".repeat(64).parse::<ContentId>(), Err(IdError::Characters { .. })));
    }

    #[test]
    fn a_last_character_with_stray_bits_is_refused() {
        // 52 characters carry 260 bits: the last four must be zero.
        let canonical = PeerId([0xff; 32]).to_string();
        let stray = format!("{}b", &canonical[..51]);
        assert_eq!(canonical.parse(), Ok(PeerId([0xff; 32])));
        assert!(matches!(stray.parse::<PeerId>(), Err(IdError::Characters { .. })));
    }

    proptest! {
        #[test]
        fn text_round_trips_in_either_case(bytes: [u8; 32]) {
            prop_assert_eq!(PeerId(bytes).to_string().parse(), Ok(PeerId(bytes)));
            prop_assert_eq!(PeerId(bytes).to_string().to_uppercase().parse(), Ok(PeerId(bytes)));
            prop_assert_eq!(ContentId(bytes).to_string().parse(), Ok(ContentId(bytes)));
            prop_assert_eq!(ContentId(bytes).to_string().to_uppercase().parse(), Ok(ContentId(bytes)));
        }
    }
}
