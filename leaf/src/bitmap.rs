//! A set of pieces as bits, the first piece highest: the form that is stored, sent and shown.

use std::ops::Range;

/// A set of pieces `0..len`. The bits behind `len` are always zero, so equal sets have equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    len: u64,
    ones: u64,
}

impl Bitmap {
    /// The empty set of `len` possible pieces. The caller bounds `len`.
    pub fn new(len: u64) -> Self {
        Self { bytes: vec![0; len.div_ceil(8) as usize], len, ones: 0 }
    }

    /// The set of all `len` pieces.
    pub fn full(len: u64) -> Self {
        let mut bitmap = Self::new(len);
        bitmap.replace(0, &vec![0xff; bitmap.bytes.len()]);
        bitmap
    }

    /// The set that `bytes` stand for; bytes that are missing count as zero, bits beyond `len` are dropped.
    pub fn from_bytes(len: u64, bytes: &[u8]) -> Self {
        let mut bitmap = Self::new(len);
        bitmap.replace(0, bytes);
        bitmap
    }

    /// The bits, first piece highest.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many pieces there are, in the set or not.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if no piece is in the set.
    pub fn is_empty(&self) -> bool {
        self.ones == 0
    }

    /// Pieces in the set.
    pub fn count(&self) -> u64 {
        self.ones
    }

    /// True if every piece is in the set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// True if `piece` is in the set; pieces beyond the end are not.
    pub fn contains(&self, piece: u64) -> bool {
        piece < self.len && self.bytes[(piece / 8) as usize] & bit(piece) != 0
    }

    /// Adds `piece`; false if it was in the set before or lies beyond the end.
    pub fn insert(&mut self, piece: u64) -> bool {
        if piece >= self.len || self.contains(piece) {
            return false;
        }
        self.bytes[(piece / 8) as usize] |= bit(piece);
        self.ones += 1;
        true
    }

    /// Takes `piece` out; false if it was not in the set.
    pub fn remove(&mut self, piece: u64) -> bool {
        if !self.contains(piece) {
            return false;
        }
        self.bytes[(piece / 8) as usize] &= !bit(piece);
        self.ones -= 1;
        true
    }

    /// Replaces the bits from piece `8 * first_byte` on by `bytes`; what lies beyond the end is dropped.
    pub fn replace(&mut self, first_byte: u64, bytes: &[u8]) {
        let start = usize::try_from(first_byte).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = start.saturating_add(bytes.len()).min(self.bytes.len());
        self.bytes[start..end].copy_from_slice(&bytes[..end - start]);
        if end == self.bytes.len()
            && let Some(last) = self.bytes.last_mut()
            && !self.len.is_multiple_of(8)
        {
            *last &= 0xff << (8 - self.len % 8);
        }
        self.ones = self.bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
    }

    /// True if this set has a piece that `other` lacks, among the bytes that hold the bits of `range`.
    pub fn offers(&self, other: &Self, range: Range<u64>) -> bool {
        let bytes = (range.start / 8) as usize..(range.end.div_ceil(8) as usize).min(self.bytes.len());
        bytes.into_iter().any(|at| self.bytes[at] & !other.bytes.get(at).copied().unwrap_or(0) != 0)
    }

    /// The pieces of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.iter_in(0..self.len)
    }

    /// The pieces of the set within `range`, ascending.
    pub fn iter_in(&self, range: Range<u64>) -> impl Iterator<Item = u64> + '_ {
        (range.start..range.end.min(self.len)).filter(|piece| self.contains(*piece))
    }
}

/// The bit of a piece within its byte.
fn bit(piece: u64) -> u8 {
    0x80 >> (piece % 8)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_piece_is_the_highest_bit() {
        let mut bitmap = Bitmap::new(10);
        assert!(bitmap.insert(0) && bitmap.insert(9) && !bitmap.insert(10) && !bitmap.insert(9));
        assert_eq!(bitmap.as_bytes(), [0x80, 0x40]);
        assert_eq!(Bitmap::full(10).as_bytes(), [0xff, 0xc0]);
        assert!(Bitmap::full(10).is_full());
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(len in 0u64..100, steps in prop::collection::vec((any::<bool>(), 0u64..110), 0..200)) {
            let (mut bitmap, mut model) = (Bitmap::new(len), BTreeSet::new());
            for (add, piece) in steps {
                let changed = if add { piece < len && model.insert(piece) } else { model.remove(&piece) };
                prop_assert_eq!(if add { bitmap.insert(piece) } else { bitmap.remove(piece) }, changed);
            }
            prop_assert_eq!(bitmap.count(), model.len() as u64);
            prop_assert_eq!(bitmap.iter().collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(Bitmap::from_bytes(len, bitmap.as_bytes()), bitmap);
        }

        #[test]
        fn replacing_never_leaves_bits_behind_the_end(
            len in 0u64..100, at in 0u64..20, bytes in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bitmap = Bitmap::full(len);
            bitmap.replace(at, &bytes);
            prop_assert_eq!(bitmap.iter().count() as u64, bitmap.count());
            prop_assert!(bitmap.count() <= len);
        }
    }
}
