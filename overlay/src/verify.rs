//! Pieces of a content, and their proof under its BLAKE3.
//!
//! Plain BLAKE3 is a binary tree over chunks of 1 KiB, so every aligned run of 2^n chunks has a value of
//! its own: the *chaining value* of its subtree. A content is cut on three levels of that tree:
//!
//! | unit | bytes | what it is for |
//! |---|---|---|
//! | segment | [`SEGMENT_PIECES`] pieces | blaming the sender of a wrong list of piece values |
//! | piece | 1 MiB, or 256 KiB in files under 64 MiB | what is asked for, checked and written |
//! | group | 16 KiB | naming the bad part of a bad piece |
//!
//! A receiver that knows only the content id and a claimed size fetches the segment values
//! ([`check_tops`]), then the piece values of the segments it needs ([`check_segment`]), then pieces from
//! anyone ([`check_piece`]). After a mismatch it fetches the piece's group values from another source
//! ([`check_groups`]) and names the bad groups ([`bad_groups`]).
//!
//! Invariants:
//! - A unit that is the whole content is the root of the tree, so its value is the content id itself; that
//!   holds on each level and is decided by the size alone.
//! - Every list's length follows from the size. Otherwise the nodes of an upper level could be presented
//!   as a shorter list that merges to the same root, and no data would ever fit it.
//! - The size is a claim until the last piece has been verified; nothing here believes more than that.
//! - Every length and index is checked before it reaches `blake3::hazmat`, which asserts.

use std::ops::Range;

use blake3::{
    Hasher,
    hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use crate::{id::ContentId, limits};

/// The value of a unit: the chaining value of its subtree, or the content id if the unit is the content.
pub type Value = [u8; 32];

/// Bytes of a group. `blake3` is at full speed from runs of this size on, and a quarter of it below 4 KiB.
pub const GROUP_BYTES: u32 = 16 << 10;
/// Bytes of a piece of a large file.
pub const PIECE_BYTES: u32 = 1 << 20;
/// Bytes of a piece of a small file: a swarm needs some dozens of pieces to have something to trade.
pub const SMALL_PIECE_BYTES: u32 = 256 << 10;
/// Size from which on a file counts as large, in bytes.
pub const LARGE_FILE_BYTES: u64 = 64 << 20;
/// Pieces of a segment: 32 KiB of piece values, the most that one wrong answer can waste.
pub const SEGMENT_PIECES: u32 = 1024;

/// How a content of a certain size is cut. Holds nothing but the size, which is in
/// `1..=`[`limits::FILE_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    size: u64,
}

impl Layout {
    /// The layout of a content of `size` bytes. Empty contents have none: they are neither shared nor asked
    /// for.
    pub fn new(size: u64) -> Result<Self, VerifyError> {
        if size == 0 || size > limits::FILE_BYTES {
            return Err(VerifyError::Size { size });
        }
        Ok(Self { size })
    }

    /// Bytes of the content.
    pub fn size(self) -> u64 {
        self.size
    }

    /// Bytes of every piece but the last.
    pub fn piece_bytes(self) -> u32 {
        if self.size < LARGE_FILE_BYTES { SMALL_PIECE_BYTES } else { PIECE_BYTES }
    }

    /// Number of pieces, at least 1.
    pub fn pieces(self) -> u64 {
        self.size.div_ceil(u64::from(self.piece_bytes()))
    }

    /// Number of segments, at least 1.
    pub fn segments(self) -> u64 {
        self.pieces().div_ceil(u64::from(SEGMENT_PIECES))
    }

    /// The bytes of a piece.
    pub fn piece_range(self, piece: u64) -> Result<Range<u64>, VerifyError> {
        if piece >= self.pieces() {
            return Err(VerifyError::Index { index: piece, count: self.pieces() });
        }
        let start = piece * u64::from(self.piece_bytes());
        Ok(start..self.size.min(start + u64::from(self.piece_bytes())))
    }

    /// The pieces of a segment.
    pub fn segment_range(self, segment: u64) -> Result<Range<u64>, VerifyError> {
        if segment >= self.segments() {
            return Err(VerifyError::Index { index: segment, count: self.segments() });
        }
        let start = segment * u64::from(SEGMENT_PIECES);
        Ok(start..self.pieces().min(start + u64::from(SEGMENT_PIECES)))
    }

    /// Number of groups of a piece, at least 1 and at most 64.
    pub fn groups(self, piece: u64) -> Result<u32, VerifyError> {
        let bytes = self.piece_range(piece)?;
        Ok((bytes.end - bytes.start).div_ceil(u64::from(GROUP_BYTES)) as u32)
    }

    /// The bytes of a group of a piece, counted from the start of the content.
    pub fn group_range(self, piece: u64, group: u32) -> Result<Range<u64>, VerifyError> {
        let (bytes, count) = (self.piece_range(piece)?, self.groups(piece)?);
        if group >= count {
            return Err(VerifyError::Index { index: group.into(), count: count.into() });
        }
        let start = bytes.start + u64::from(group) * u64::from(GROUP_BYTES);
        Ok(start..bytes.end.min(start + u64::from(GROUP_BYTES)))
    }

    /// The value of an aligned unit of this content: a piece or a group.
    fn unit_value(self, bytes: Range<u64>, data: &[u8]) -> Result<Value, VerifyError> {
        expect_length(bytes.end - bytes.start, data.len())?;
        if bytes == (0..self.size) {
            return Ok(*blake3::hash(data).as_bytes());
        }
        let mut hasher = Hasher::new();
        hasher.set_input_offset(bytes.start).update(data);
        Ok(hasher.finalize_non_root())
    }
}

/// What hashing a content yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// BLAKE3 of the bytes.
    pub content: ContentId,
    /// The value of every piece, in order.
    pub pieces: Vec<Value>,
}

/// Hashes a content of known size in one pass, without holding it.
///
/// Feed it runs of at least 16 KiB: packet-sized ones are up to five times slower.
#[derive(Debug)]
pub struct PieceHasher {
    layout: Layout,
    current: Hasher,
    /// Bytes taken so far.
    position: u64,
    pieces: Vec<Value>,
}

impl PieceHasher {
    /// A hasher for a content of `size` bytes, which must be exact: it decides where pieces end.
    pub fn new(size: u64) -> Result<Self, VerifyError> {
        Ok(Self { layout: Layout::new(size)?, current: Hasher::new(), position: 0, pieces: Vec::new() })
    }

    /// Takes the next bytes. If they go beyond the size, nothing is taken and the error says so.
    pub fn update(&mut self, mut data: &[u8]) -> Result<(), VerifyError> {
        let left = self.layout.size - self.position;
        if data.len() as u64 > left {
            return Err(VerifyError::Length { want: left, have: data.len() as u64 });
        }
        while !data.is_empty() {
            let piece = self.layout.piece_range(self.pieces.len() as u64)?;
            let run = data.len().min((piece.end - self.position) as usize);
            self.current.update(&data[..run]);
            self.position += run as u64;
            data = &data[run..];
            if self.position == piece.end {
                self.end_piece();
            }
        }
        Ok(())
    }

    /// Content id and piece values, if exactly `size` bytes were taken.
    pub fn finish(self) -> Result<Hashed, VerifyError> {
        if self.position != self.layout.size {
            return Err(VerifyError::Length { want: self.layout.size, have: self.position });
        }
        let content = content_of_pieces(self.layout.size, &self.pieces)?;
        Ok(Hashed { content, pieces: self.pieces })
    }

    /// Stores the value of the piece that just ended. A new `Hasher` follows, because a reset one keeps its
    /// offset and refuses another.
    fn end_piece(&mut self) {
        if self.layout.pieces() == 1 {
            self.pieces.push(*self.current.finalize().as_bytes());
            return;
        }
        self.pieces.push(self.current.finalize_non_root());
        self.current = Hasher::new();
        // Behind the last piece the offset need not be a chunk's border, and nothing follows.
        if self.position < self.layout.size {
            self.current.set_input_offset(self.position);
        }
    }
}

/// The content id that a complete list of piece values stands for.
pub fn content_of_pieces(size: u64, pieces: &[Value]) -> Result<ContentId, VerifyError> {
    expect_length(Layout::new(size)?.pieces(), pieces.len())?;
    Ok(ContentId(merge(pieces, true)))
}

/// The segment values of a complete list of piece values: what a receiver fetches first.
pub fn segment_values(size: u64, pieces: &[Value]) -> Result<Vec<Value>, VerifyError> {
    let layout = Layout::new(size)?;
    expect_length(layout.pieces(), pieces.len())?;
    let is_root = layout.segments() == 1;
    Ok(pieces.chunks(SEGMENT_PIECES as usize).map(|segment| merge(segment, is_root)).collect())
}

/// Checks a list of segment values against the content id.
pub fn check_tops(content: ContentId, size: u64, tops: &[Value]) -> Result<(), VerifyError> {
    expect_length(Layout::new(size)?.segments(), tops.len())?;
    expect_value(&content.0, &merge(tops, true))
}

/// Checks the piece values of one segment against its verified segment value.
pub fn check_segment(size: u64, segment: u64, expected: &Value, pieces: &[Value]) -> Result<(), VerifyError> {
    let layout = Layout::new(size)?;
    let range = layout.segment_range(segment)?;
    expect_length(range.end - range.start, pieces.len())?;
    expect_value(expected, &merge(pieces, layout.segments() == 1))
}

/// Checks a whole piece against its verified value.
pub fn check_piece(size: u64, piece: u64, expected: &Value, data: &[u8]) -> Result<(), VerifyError> {
    expect_value(expected, &piece_value(size, piece, data)?)
}

/// The value of a whole piece: pieces of one content can be hashed in any order, by any thread.
pub fn piece_value(size: u64, piece: u64, data: &[u8]) -> Result<Value, VerifyError> {
    let layout = Layout::new(size)?;
    layout.unit_value(layout.piece_range(piece)?, data)
}

/// The group values of a whole piece: what its sender computes when a receiver saw it fail.
pub fn group_values(size: u64, piece: u64, data: &[u8]) -> Result<Vec<Value>, VerifyError> {
    let layout = Layout::new(size)?;
    let bytes = layout.piece_range(piece)?;
    expect_length(bytes.end - bytes.start, data.len())?;
    (0u32..)
        .zip(data.chunks(GROUP_BYTES as usize))
        .map(|(group, data)| layout.unit_value(layout.group_range(piece, group)?, data))
        .collect()
}

/// Checks the group values of a piece against its verified value.
pub fn check_groups(size: u64, piece: u64, expected: &Value, groups: &[Value]) -> Result<(), VerifyError> {
    let layout = Layout::new(size)?;
    expect_length(layout.groups(piece)?.into(), groups.len())?;
    expect_value(expected, &merge(groups, layout.pieces() == 1))
}

/// Checks one group against its verified value.
pub fn check_group(size: u64, piece: u64, group: u32, expected: &Value, data: &[u8]) -> Result<(), VerifyError> {
    let layout = Layout::new(size)?;
    expect_value(expected, &layout.unit_value(layout.group_range(piece, group)?, data)?)
}

/// The groups of a whole piece that do not fit their verified values, ascending.
pub fn bad_groups(size: u64, piece: u64, groups: &[Value], data: &[u8]) -> Result<Vec<u32>, VerifyError> {
    let found = group_values(size, piece, data)?;
    expect_length(found.len() as u64, groups.len())?;
    Ok((0u32..).zip(found.iter().zip(groups)).filter(|(_, (found, want))| found != want).map(|(at, _)| at).collect())
}

/// Merges the values of neighbouring units, all full but perhaps the last, to the value of their subtree.
/// A lone value is its own subtree; whether it is a root was decided when it was made.
fn merge(values: &[Value], is_root: bool) -> Value {
    match values {
        // Lists are as long as their layout says, which is never empty.
        [] => Value::default(),
        [only] => *only,
        _ => {
            // BLAKE3 fills the left side: it holds the largest power of two that leaves something right.
            let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
            let (left, right) = (merge(left, false), merge(right, false));
            if is_root {
                *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
            } else {
                merge_subtrees_non_root(&left, &right, Mode::Hash)
            }
        }
    }
}

fn expect_length(want: u64, have: usize) -> Result<(), VerifyError> {
    let have = have as u64;
    if want == have { Ok(()) } else { Err(VerifyError::Length { want, have }) }
}

fn expect_value(want: &Value, have: &Value) -> Result<(), VerifyError> {
    if want == have { Ok(()) } else { Err(VerifyError::Mismatch) }
}

/// Why something is not part of a content. The fault is its sender's, except for a [`Self::Size`] or
/// [`Self::Index`] that this node asked for. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The size is 0 or above [`limits::FILE_BYTES`].
    #[error("a content cannot have {size} bytes")]
    Size {
        /// The size that was given, in bytes.
        size: u64,
    },
    /// There is no such segment, piece or group.
    #[error("index {index} out of {count}")]
    Index {
        /// The index that was given, from 0.
        index: u64,
        /// How many there are.
        count: u64,
    },
    /// The data or the list is shorter or longer than the size demands.
    #[error("length {have} where the size demands {want}")]
    Length {
        /// Bytes or values that belong here.
        want: u64,
        /// Bytes or values that were given.
        have: u64,
    },
    /// The value is another: the data or the list is wrong.
    #[error("does not match its hash")]
    Mismatch,
}

#[cfg(test)]
mod tests {
    use bao_tree::{
        BlockSize,
        io::{outboard::PreOrderMemOutboard, sync::Outboard},
    };
    use proptest::prelude::*;

    use super::*;

    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;

    /// Sizes around every border: chunk, group, small piece, large piece, large file.
    fn sizes() -> Vec<usize> {
        let borders = [KIB, 16 * KIB, 256 * KIB, MIB, 64 * MIB];
        let mut sizes = vec![1, 48 * KIB + 5, MIB + 16 * KIB, 2 * MIB, 5 * MIB + 7, 37 * MIB + 12_345];
        sizes.extend(borders.into_iter().flat_map(|border| [border - 1, border, border + 1]));
        sizes
    }

    /// Bytes without repetition at any unit's length.
    fn bytes(size: usize) -> Vec<u8> {
        let mut data = vec![0; size];
        Hasher::new_derive_key("quictrack tests verify").finalize_xof().fill(&mut data);
        data
    }

    fn hashed(data: &[u8], run: usize) -> Hashed {
        let mut hasher = PieceHasher::new(data.len() as u64).unwrap();
        for run in data.chunks(run) {
            hasher.update(run).unwrap();
        }
        hasher.finish().unwrap()
    }

    #[test]
    fn content_id_is_plain_blake3_and_every_unit_verifies() {
        for size in sizes() {
            let data = bytes(size);
            let Hashed { content, pieces } = hashed(&data, 100_000);
            assert_eq!(content.0, *blake3::hash(&data).as_bytes(), "{size}");
            let size = size as u64;
            let tops = segment_values(size, &pieces).unwrap();
            check_tops(content, size, &tops).unwrap();
            check_segment(size, 0, &tops[0], &pieces).unwrap();
            let layout = Layout::new(size).unwrap();
            for (at, value) in (0u64..).zip(&pieces) {
                let range = layout.piece_range(at).unwrap();
                let data = &data[range.start as usize..range.end as usize];
                check_piece(size, at, value, data).unwrap();
                let groups = group_values(size, at, data).unwrap();
                check_groups(size, at, value, &groups).unwrap();
                assert_eq!(bad_groups(size, at, &groups, data).unwrap(), Vec::<u32>::new());
            }
        }
    }

    #[test]
    fn values_are_those_of_bao() {
        for size in [256 * KIB + 1, 3 * MIB, 5 * MIB + 7, 64 * MIB + 1] {
            let data = bytes(size);
            let layout = Layout::new(size as u64).unwrap();
            let block = BlockSize::from_bytes(layout.piece_bytes().into()).unwrap();
            let oracle = PreOrderMemOutboard::create(&data, block);
            let Hashed { content, pieces } = hashed(&data, MIB);
            assert_eq!(content.0, *oracle.root.as_bytes());
            let mut leaves = Vec::new();
            for node in oracle.tree.post_order_nodes_iter() {
                // The lowest parents hold the values of two pieces each; an odd last piece has none there.
                if node.level() == u32::from(block.chunk_log())
                    && let Some((left, right)) = oracle.load(node).unwrap()
                {
                    leaves.extend([*left.as_bytes(), *right.as_bytes()]);
                }
            }
            assert_eq!(leaves[..], pieces[..leaves.len()], "{size}");
            assert!(pieces.len() - leaves.len() <= 1);
        }
    }

    #[test]
    fn a_flipped_bit_in_any_group_is_named() {
        for size in [1, KIB + 1, 16 * KIB + 1, 48 * KIB + 5, 256 * KIB, MIB + 16 * KIB + 1, 64 * MIB + 40 * KIB] {
            let mut data = bytes(size);
            let pieces = hashed(&data, MIB).pieces;
            let size = size as u64;
            let layout = Layout::new(size).unwrap();
            // The pieces that differ in kind: first, second, last.
            let mut chosen = vec![0, 1, layout.pieces() - 1];
            chosen.retain(|piece| *piece < layout.pieces());
            for piece in chosen {
                let range = layout.piece_range(piece).unwrap();
                let data = &mut data[range.start as usize..range.end as usize];
                let groups = group_values(size, piece, data).unwrap();
                for group in 0..layout.groups(piece).unwrap() {
                    let bytes = layout.group_range(piece, group).unwrap();
                    let flipped = (bytes.end - 1 - range.start) as usize;
                    data[flipped] ^= 0x80;
                    let value = &pieces[piece as usize];
                    assert_eq!(check_piece(size, piece, value, data), Err(VerifyError::Mismatch));
                    assert_eq!(bad_groups(size, piece, &groups, data), Ok(vec![group]));
                    let part = &data[(bytes.start - range.start) as usize..=flipped];
                    let expected = &groups[group as usize];
                    assert_eq!(check_group(size, piece, group, expected, part), Err(VerifyError::Mismatch));
                    data[flipped] ^= 0x80;
                    let part = &data[(bytes.start - range.start) as usize..=flipped];
                    assert_eq!(check_group(size, piece, group, expected, part), Ok(()));
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_any_list_is_caught() {
        let size = 3 * MIB + 5;
        let data = bytes(size);
        let Hashed { content, mut pieces } = hashed(&data, MIB);
        let size = size as u64;
        for at in 0..pieces.len() {
            pieces[at][31] ^= 1;
            assert_eq!(check_segment(size, 0, &content.0, &pieces), Err(VerifyError::Mismatch));
            pieces[at][31] ^= 1;
        }
        let mut groups = group_values(size, 0, &data[..256 * KIB]).unwrap();
        for at in 0..groups.len() {
            groups[at][0] ^= 1;
            assert_eq!(check_groups(size, 0, &pieces[0], &groups), Err(VerifyError::Mismatch));
            groups[at][0] ^= 1;
        }
    }

    #[test]
    fn right_data_in_the_wrong_place_is_refused() {
        let data = vec![7; 600 * KIB];
        let pieces = hashed(&data, MIB).pieces;
        let first = &data[..256 * KIB];
        assert_eq!(check_piece(data.len() as u64, 0, &pieces[0], first), Ok(()));
        assert_eq!(check_piece(data.len() as u64, 1, &pieces[0], first), Err(VerifyError::Mismatch));
    }

    #[test]
    fn interior_nodes_are_no_shorter_list() {
        let data = bytes(MIB);
        let Hashed { content, pieces } = hashed(&data, MIB);
        let halves: Vec<Value> = pieces.chunks(2).map(|pair| merge(pair, false)).collect();
        assert_eq!(merge(&halves, true), content.0);
        let refused = Err(VerifyError::Length { want: 4, have: 2 });
        assert_eq!(check_segment(MIB as u64, 0, &content.0, &halves), refused);
    }

    #[test]
    fn nothing_a_peer_sends_panics() {
        let value = [0; 32];
        for size in [0, 1, 5 * MIB as u64, limits::FILE_BYTES, limits::FILE_BYTES + 1, u64::MAX] {
            for index in [0, 1, 4, u64::from(u32::MAX), u64::MAX] {
                for data in [&[][..], &[0], &vec![0; 300_000]] {
                    let lists = vec![value; data.len().min(70)];
                    assert!(check_piece(size, index, &value, data).is_err());
                    assert!(group_values(size, index, data).is_err() || !data.is_empty());
                    assert!(bad_groups(size, index, &lists, data).is_err() || !data.is_empty());
                    assert!(check_group(size, index, index as u32, &value, data).is_err());
                    // A lone value is compared, not hashed: it may fit.
                    assert!(check_groups(size, index, &value, &lists).is_err() || lists.len() == 1);
                    assert!(check_segment(size, index, &value, &lists).is_err() || lists.len() == 1);
                    assert!(check_tops(ContentId([1; 32]), size, &lists).is_err());
                }
            }
        }
    }

    #[test]
    fn a_hasher_takes_exactly_its_size() {
        let mut hasher = PieceHasher::new(300_000).unwrap();
        hasher.update(&vec![0; 299_999]).unwrap();
        assert_eq!(hasher.update(&[0; 2]), Err(VerifyError::Length { want: 1, have: 2 }));
        assert_eq!(hasher.finish(), Err(VerifyError::Length { want: 300_000, have: 299_999 }));
        assert!(PieceHasher::new(0).is_err());
    }

    proptest! {
        #[test]
        fn two_levels_merge_to_the_same_root(count in 65u64..5000, seed: [u8; 32]) {
            let mut block = vec![0; count as usize * 32];
            Hasher::new_keyed(&seed).finalize_xof().fill(&mut block);
            let pieces: Vec<Value> = block.chunks(32).map(|value| value.try_into().unwrap()).collect();
            let size = (count - 1) * u64::from(PIECE_BYTES) + 1;
            let content = content_of_pieces(size, &pieces).unwrap();
            let tops = segment_values(size, &pieces).unwrap();
            prop_assert_eq!(check_tops(content, size, &tops), Ok(()));
            for (at, top) in (0u64..).zip(&tops) {
                let range = Layout::new(size).unwrap().segment_range(at).unwrap();
                let pieces = &pieces[range.start as usize..range.end as usize];
                prop_assert_eq!(check_segment(size, at, top, pieces), Ok(()));
            }
        }

        #[test]
        fn runs_of_any_length_hash_alike(size in 1usize..2_000_000, run in 1usize..300_000) {
            let data = bytes(size);
            prop_assert_eq!(hashed(&data, run), hashed(&data, size));
        }
    }
}
