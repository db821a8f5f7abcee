//! Parts of the leaf space: which leaves an ultrapeer holds the digests of.
//!
//! A leaf's place is a hash of its key, 32 bits wide. A [`ShardPrefix`] names all places that begin with its
//! bits, so the prefixes are the nodes of a binary tree: the root is everything, two children halve their
//! parent, and of two prefixes one is a part of the other or they share no place.

use std::{fmt, str::FromStr};

use crate::{id::PeerId, wire::descriptor::ShardPrefix};

/// Where a leaf stands in the leaf space: the first 32 bits of a hash of its key.
pub fn leaf_hash(peer: &PeerId) -> u32 {
    let hash = blake3::derive_key("quictrack 2026-12-04 place of a leaf", &peer.0);
    u32::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
}

impl ShardPrefix {
    /// The whole leaf space.
    pub const ALL: Self = Self { bits: 0, length: 0 };

    /// The most bits of a prefix: then it names one place.
    pub const LENGTH_MAX: u8 = 32;

    /// The prefix of that length (at most [`Self::LENGTH_MAX`]) that covers a place.
    pub const fn of(place: u32, length: u8) -> Self {
        let length = if length > Self::LENGTH_MAX { Self::LENGTH_MAX } else { length };
        Self { bits: place & Self::mask(length), length }
    }

    /// True if it is written as it must be: no more bits than there are, and none set beyond its length.
    pub const fn is_canonical(self) -> bool {
        self.length <= Self::LENGTH_MAX && self.bits & !Self::mask(self.length) == 0
    }

    /// True if leaves at that place belong to it.
    pub const fn covers(self, place: u32) -> bool {
        (self.bits ^ place) & Self::mask(self.length) == 0
    }

    /// True if the other is a part of it, or equal.
    pub const fn contains(self, other: Self) -> bool {
        self.length <= other.length && self.covers(other.bits)
    }

    /// True if some place belongs to both: one contains the other.
    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// The prefix of which it is one half; `None` of everything.
    pub const fn parent(self) -> Option<Self> {
        match self.length {
            0 => None,
            length => Some(Self::of(self.bits, length - 1)),
        }
    }

    /// The other half of its parent; `None` of everything.
    pub const fn sibling(self) -> Option<Self> {
        match self.length {
            0 => None,
            length => Some(Self { bits: self.bits ^ Self::lowest(length), length }),
        }
    }

    /// One of its halves: the one whose next bit is 1, or the one whose next bit is 0. `None` of a single place.
    pub const fn child(self, bit: bool) -> Option<Self> {
        if self.length >= Self::LENGTH_MAX {
            return None;
        }
        let length = self.length + 1;
        Some(Self { bits: self.bits | if bit { Self::lowest(length) } else { 0 }, length })
    }

    /// The bits that a prefix of that length decides.
    const fn mask(length: u8) -> u32 {
        match length {
            0 => 0,
            1..Self::LENGTH_MAX => u32::MAX << (Self::LENGTH_MAX - length),
            _ => u32::MAX,
        }
    }

    /// The last bit that a prefix of that length, at least 1, decides.
    const fn lowest(length: u8) -> u32 {
        1 << (Self::LENGTH_MAX - length)
    }
}

/// Its bits as digits; nothing for everything.
impl fmt::Display for ShardPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = u32::from(self.length.min(Self::LENGTH_MAX));
        (0..length).try_for_each(|bit| write!(f, "{}", self.bits >> (31 - bit) & 1))
    }
}

impl FromStr for ShardPrefix {
    type Err = ShardPrefixError;

    fn from_str(text: &str) -> Result<Self, ShardPrefixError> {
        let mut prefix = Self::ALL;
        for digit in text.chars() {
            let bit = match digit {
                '0' => false,
                '1' => true,
                _ => return Err(ShardPrefixError::Digit),
            };
            prefix = prefix.child(bit).ok_or(ShardPrefixError::Length)?;
        }
        Ok(prefix)
    }
}

/// Why a text is no shard prefix. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShardPrefixError {
    /// It holds another character than 0 and 1.
    #[error("a shard prefix is written in the digits 0 and 1")]
    Digit,
    /// It has more digits than the leaf space has bits.
    #[error("a shard prefix has at most 32 digits")]
    Length,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> ShardPrefix {
        text.parse().expect("a prefix")
    }

    fn prefixes() -> impl Strategy<Value = ShardPrefix> {
        (any::<u32>(), 0..=ShardPrefix::LENGTH_MAX).prop_map(|(place, length)| ShardPrefix::of(place, length))
    }

    /// Pairs that are often related, which two random prefixes seldom are.
    fn pairs() -> impl Strategy<Value = (ShardPrefix, ShardPrefix)> {
        (prefixes(), any::<u32>(), 0..=ShardPrefix::LENGTH_MAX, any::<bool>())
            .prop_map(|(one, place, length, near)| (one, ShardPrefix::of(if near { one.bits } else { place }, length)))
    }

    #[test]
    fn the_tree_of_prefixes() {
        assert_eq!(ShardPrefix::ALL.parent(), None);
        assert_eq!(ShardPrefix::ALL.sibling(), None);
        assert_eq!(ShardPrefix::ALL.child(true), Some(prefix("1")));
        assert_eq!(prefix("101").parent(), Some(prefix("10")));
        assert_eq!(prefix("101").sibling(), Some(prefix("100")));
        assert_eq!(prefix("101").child(false), Some(prefix("1010")));
        assert_eq!(ShardPrefix::of(7, 32).child(false), None);
        assert!(prefix("10").overlaps(prefix("101")) && !prefix("10").overlaps(prefix("11")));
        assert!(prefix("10").covers(0xbfff_ffff) && !prefix("10").covers(0xc000_0000));
    }

    #[test]
    fn texts_that_are_no_prefix() {
        assert_eq!("12".parse::<ShardPrefix>(), Err(ShardPrefixError::Digit));
        assert_eq!("0".repeat(33).parse::<ShardPrefix>(), Err(ShardPrefixError::Length));
        assert_eq!(ShardPrefix { bits: 0b101 << 29, length: 3 }.to_string(), "101");
        assert_eq!(ShardPrefix::ALL.to_string(), "");
    }

    #[test]
    fn places_do_not_follow_the_key() {
        let place = |byte: u8| leaf_hash(&PeerId([byte; 32]));
        let ones: u32 = (0..=255).map(|byte| (place(byte) ^ place(byte ^ 1)).count_ones()).sum();
        assert!((15 * 256..17 * 256).contains(&ones), "half of the bits differ");
        // Fixed for ever: every node must compute the same.
        assert_eq!(place(1), 4_281_290_288);
    }

    proptest! {
        #[test]
        fn bits_are_as_in_text(prefix in prefixes(), place: u32) {
            let text = prefix.to_string();
            prop_assert!(prefix.is_canonical());
            prop_assert_eq!(text.parse(), Ok(prefix));
            prop_assert_eq!(prefix.covers(place), format!("{place:032b}").starts_with(&text));
        }

        #[test]
        fn relations_are_as_in_text((one, other) in pairs()) {
            let (a, b) = (one.to_string(), other.to_string());
            prop_assert_eq!(one.contains(other), b.starts_with(&a));
            prop_assert_eq!(one.overlaps(other), a.starts_with(&b) || b.starts_with(&a));
        }

        #[test]
        fn halves_make_the_whole(prefix in prefixes(), place: u32) {
            if let (Some(low), Some(high)) = (prefix.child(false), prefix.child(true)) {
                prop_assert_eq!((low.parent(), low.sibling()), (Some(prefix), Some(high)));
                prop_assert_eq!((high.parent(), high.sibling()), (Some(prefix), Some(low)));
                prop_assert_eq!(prefix.covers(place), low.covers(place) ^ high.covers(place));
            } else {
                prop_assert_eq!(prefix.length, 32);
            }
        }

        #[test]
        fn a_stray_bit_is_not_canonical(prefix in prefixes(), bit in 0_u32..32) {
            let stray = ShardPrefix { bits: prefix.bits ^ 1 << bit, ..prefix };
            prop_assert_eq!(stray.is_canonical(), bit + u32::from(prefix.length) >= 32);
        }
    }
}
