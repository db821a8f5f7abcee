//! Proof that a leaf has what it lists, and complaints about those that have not.
//!
//! ```text
//!   home: PossessionAsk ──> leaf: Possession with a GroupProof, or why there is none
//!   downloader: Complaint ──> its home: SourceComplaint ──> a home of the source, which asks that
//! ```
//!
//! A proof is what a downloader would fetch, for one group: the segment values, the piece values of one segment, the group
//! values of one piece, and the bytes of one group. See [`crate::verify`].

use serde::{Deserialize, Serialize};

use super::bounded::{Blob, List};
use crate::{
    id::{ContentId, PeerId},
    limits,
    verify::{self, GROUP_BYTES, Layout, SEGMENT_PIECES, Value, VerifyError},
};

/// Bytes of a [`Possession`]: the largest proof there is, and its frame.
pub(super) const POSSESSION_CAP: usize =
    (limits::TOPS + SEGMENT_PIECES as usize + limits::GROUPS_PER_PIECE) * 32 + GROUP_BYTES as usize + 128;

/// A home asks a leaf for one group of a content that it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PossessionAsk {
    /// Which content.
    pub content: ContentId,
    /// Which piece of it, from 0.
    pub piece: u64,
    /// Which group of the piece, from 0.
    pub group: u32,
}

/// What the leaf says to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Possession {
    /// What it was asked.
    pub ask: PossessionAsk,
    /// Its answer.
    pub answer: PossessionAnswer,
}

/// The answer of a leaf that must show that it has a content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PossessionAnswer {
    /// It has it.
    Proven(Box<GroupProof>),
    /// It does not have it, or not as it was: its next list leaves it out.
    Gone,
    /// It cannot look now, or was asked too often.
    NotNow,
}

/// One group of a content, and all that shows that it belongs there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupProof {
    /// The segment values.
    pub tops: List<Value, { limits::TOPS }>,
    /// The piece values of the piece's segment.
    pub pieces: List<Value, { SEGMENT_PIECES as usize }>,
    /// The group values of the piece.
    pub groups: List<Value, { limits::GROUPS_PER_PIECE }>,
    /// The bytes of the group.
    pub data: Blob<{ GROUP_BYTES as usize }>,
}

impl GroupProof {
    /// Proves what `ask` asks for, of a content of `size` bytes with these piece values, from the bytes of the whole
    /// piece. What is returned was checked.
    pub fn new(ask: &PossessionAsk, size: u64, pieces: &[Value], piece: &[u8]) -> Result<Self, VerifyError> {
        let layout = Layout::new(size)?;
        let tops = verify::segment_values(size, pieces)?;
        let segment = layout.segment_range(ask.piece / u64::from(SEGMENT_PIECES))?;
        // Within the list, whose length was compared with the layout.
        let pieces = &pieces[segment.start as usize..segment.end as usize];
        let groups = verify::group_values(size, ask.piece, piece)?;
        let bytes = layout.group_range(ask.piece, ask.group)?;
        let start = layout.piece_range(ask.piece)?.start;
        let data = piece[(bytes.start - start) as usize..(bytes.end - start) as usize].to_vec();
        let data = Blob::new(data).ok_or(VerifyError::Mismatch)?;
        let pieces = List::new(pieces.iter().copied());
        let proof = Self { tops: List::new(tops), pieces, groups: List::new(groups), data };
        proof.check(ask, size)?;
        Ok(proof)
    }

    /// Checks that this is what `ask` asks for, of a content of `size` bytes.
    pub fn check(&self, ask: &PossessionAsk, size: u64) -> Result<(), VerifyError> {
        let missing = |index: u64, count: usize| VerifyError::Index { index, count: count as u64 };
        verify::check_tops(ask.content, size, &self.tops)?;
        let per_segment = u64::from(SEGMENT_PIECES);
        let segment = ask.piece / per_segment;
        let top = self.tops.get(segment as usize).ok_or_else(|| missing(segment, self.tops.len()))?;
        verify::check_segment(size, segment, top, &self.pieces)?;
        let place = (ask.piece % per_segment) as usize;
        let piece = self.pieces.get(place).ok_or_else(|| missing(ask.piece, self.pieces.len()))?;
        verify::check_groups(size, ask.piece, piece, &self.groups)?;
        let group = self.groups.get(ask.group as usize).ok_or_else(|| missing(ask.group.into(), self.groups.len()))?;
        verify::check_group(size, ask.piece, ask.group, group, &self.data)
    }
}

/// A leaf tells its home that a source does not have what it lists, or sends something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// The source.
    pub source: PeerId,
    /// Of what.
    pub content: ContentId,
    /// Ultrapeers that the source may be attached to, as a hit told.
    pub homes: List<PeerId, { limits::HOMES }>,
}

/// A home passes a complaint of one of its leaves to a home of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceComplaint {
    /// The source.
    pub source: PeerId,
    /// Of what.
    pub content: ContentId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        verify::PieceHasher,
        wire::{frame, leaf::LeafMessage},
    };

    fn bytes(size: usize) -> Vec<u8> {
        let mut data = vec![0; size];
        blake3::Hasher::new_derive_key("quictrack tests possession").finalize_xof().fill(&mut data);
        data
    }

    #[test]
    fn every_group_is_proven_and_no_other_passes_for_it() {
        for size in [1, 16 << 10, (16 << 10) + 1, 300_000, (1 << 20) + 5] {
            let data = bytes(size);
            let mut hasher = PieceHasher::new(size as u64).expect("a size");
            hasher.update(&data).expect("as many");
            let hashed = hasher.finish().expect("whole");
            let layout = Layout::new(size as u64).expect("a size");
            for piece in 0..layout.pieces() {
                let range = layout.piece_range(piece).expect("a piece");
                let whole = &data[range.start as usize..range.end as usize];
                for group in 0..layout.groups(piece).expect("a piece") {
                    let ask = PossessionAsk { content: hashed.content, piece, group };
                    let proof = GroupProof::new(&ask, size as u64, &hashed.pieces, whole).expect("it is there");
                    assert_eq!(proof.check(&ask, size as u64), Ok(()));
                    let mut bad = proof.clone();
                    let mut flipped = bad.data.to_vec();
                    flipped[0] ^= 1;
                    bad.data = Blob::new(flipped).expect("as long");
                    assert_eq!(bad.check(&ask, size as u64), Err(VerifyError::Mismatch));
                    let other = PossessionAsk { content: ContentId([7; 32]), ..ask };
                    assert!(proof.check(&other, size as u64).is_err());
                    // As ever, the size is a claim until the last group is verified.
                    let is_last = layout.group_range(piece, group).expect("a group").end == size as u64;
                    assert_eq!(proof.check(&ask, size as u64 + 1).is_err(), is_last, "{size}");
                    for other in [PossessionAsk { group: group + 1, ..ask }, PossessionAsk { piece: piece + 1, ..ask }]
                    {
                        assert!(proof.check(&other, size as u64).is_err(), "{size} {other:?}");
                    }
                }
            }
            let ask = PossessionAsk { content: hashed.content, piece: 0, group: 0 };
            let mut changed = data[..layout.piece_range(0).expect("a piece").end as usize].to_vec();
            *changed.last_mut().expect("not empty") ^= 1;
            assert!(GroupProof::new(&ask, size as u64, &hashed.pieces, &changed).is_err(), "a file that has changed");
            for piece in [1 << 40, u64::MAX] {
                let ask = PossessionAsk { piece, ..ask };
                assert!(GroupProof::new(&ask, size as u64, &hashed.pieces, &changed).is_err());
            }
        }
    }

    #[test]
    fn the_largest_fits_its_cap() {
        let proof = GroupProof {
            tops: List::new(vec![[0xff; 32]; limits::TOPS]),
            pieces: List::new(vec![[0xff; 32]; SEGMENT_PIECES as usize]),
            groups: List::new(vec![[0xff; 32]; limits::GROUPS_PER_PIECE]),
            data: Blob::new(vec![0xff; GROUP_BYTES as usize]).expect("fits"),
        };
        let ask = PossessionAsk { content: ContentId([0xff; 32]), piece: u64::MAX, group: u32::MAX };
        let message: LeafMessage = Possession { ask, answer: PossessionAnswer::Proven(Box::new(proof)) }.into();
        let mut bytes = Vec::new();
        assert!(frame::encode(&message, &mut bytes).is_ok());
    }
}
