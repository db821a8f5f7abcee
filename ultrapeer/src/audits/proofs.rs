//! Proofs that this home owes to others: what its leaves signed for it, at once, and the files of a chunk when a worker
//! has made them ready.
//!
//! Invariant: at most [`limits::PROOFS_MADE`] chunks are made at a time, one for each ultrapeer that asks; who asks more
//! often than an honest one is put off.

use std::collections::{BTreeMap, VecDeque};

use overlay::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::Blob,
        mesh::{DigestName, ProofPart},
    },
};

use crate::{digests::owed::Packed, index::KeptSegment};

/// What must be done.
#[derive(Debug)]
pub enum Output {
    /// Encode the files of a chunk on a worker; answer with [`Proofs::packed`].
    Pack(PeerId, DigestName, KeptSegment),
    /// Send a part.
    Part(PeerId, ProofPart),
}

/// What is owed. See the module text.
#[derive(Debug, Default)]
pub struct Proofs {
    /// Who asked lately.
    askers: BTreeMap<PeerId, Asker>,
    /// Who waits for a chunk that is not being made yet.
    waiting: VecDeque<PeerId>,
    making: usize,
}

#[derive(Debug)]
struct Asker {
    credit: TokenBucket,
    /// The chunk that it waits for.
    chunk: Option<(DigestName, KeptSegment)>,
}

impl Proofs {
    /// True if that ultrapeer may ask now; spends its credit.
    pub fn may_ask(&mut self, now: Time, peer: PeerId) -> bool {
        let credit = TokenBucket::new(now, limits::PROOF_RATE, limits::PROOF_BURST);
        let asker = self.askers.entry(peer).or_insert(Asker { credit, chunk: None });
        asker.chunk.is_none() && asker.credit.take(now)
    }

    /// An ultrapeer that may ask wants the files of a chunk.
    pub fn want(&mut self, peer: PeerId, name: DigestName, kept: KeptSegment, out: &mut Outbox<Output>) {
        if let Some(asker) = self.askers.get_mut(&peer) {
            asker.chunk = Some((name, kept));
            self.waiting.push_back(peer);
            self.go_on(out);
        }
    }

    /// A chunk was encoded; `None` if that failed.
    pub fn packed(&mut self, peer: PeerId, name: DigestName, packed: Option<Packed>, out: &mut Outbox<Output>) {
        self.making = self.making.saturating_sub(1);
        let waits = |asker: &&mut Asker| asker.chunk.as_ref().is_some_and(|(wanted, _)| *wanted == name);
        if let Some(asker) = self.askers.get_mut(&peer).filter(|asker| waits(asker)) {
            asker.chunk = None;
            let nothing = || Packed { bytes: 0, parts: vec![Blob::default()] };
            let Packed { bytes, parts } = packed.unwrap_or_else(nothing);
            let last = parts.len().saturating_sub(1);
            for (number, data) in parts.into_iter().enumerate() {
                out.push(Output::Part(peer, ProofPart { name, bytes, last: number == last, data }));
            }
        }
        self.go_on(out);
    }

    /// The link to an ultrapeer is gone.
    pub fn unlinked(&mut self, peer: &PeerId) {
        self.askers.remove(peer);
        self.waiting.retain(|waiting| waiting != peer);
    }

    fn go_on(&mut self, out: &mut Outbox<Output>) {
        while self.making < limits::PROOFS_MADE
            && let Some(peer) = self.waiting.pop_front()
        {
            if let Some((name, kept)) = self.askers.get(&peer).and_then(|asker| asker.chunk.clone()) {
                self.making += 1;
                out.push(Output::Pack(peer, name, kept));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay::{
        file::{FileEntry, Tags},
        id::ContentId,
        wire::mesh::ChunkName,
    };

    use super::*;
    use crate::index::Segment;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn kept() -> KeptSegment {
        let (path, content) = ("share/a.txt".into(), ContentId([1; 32]));
        let file = FileEntry { path, content, size: 1, modified_s: 0, tags: Tags::default() };
        Segment::build(&[file]).expect("a good chunk").kept()
    }

    fn name(chunk: u64) -> DigestName {
        DigestName { handle: 7, chunk: ChunkName(chunk) }
    }

    fn want(proofs: &mut Proofs, number: u8, out: &mut Outbox<Output>) {
        assert!(proofs.may_ask(Time(1), peer(number)));
        proofs.want(peer(number), name(number.into()), kept(), out);
    }

    /// Who a chunk is made for, and the parts that are sent.
    fn said(out: &mut Outbox<Output>) -> (Vec<u8>, Vec<(u8, u32, bool)>) {
        let (mut made, mut sent) = (Vec::new(), Vec::new());
        for output in out.drain() {
            match output {
                Output::Pack(peer, ..) => made.push(peer.0[0]),
                Output::Part(peer, part) => sent.push((peer.0[0], part.bytes, part.last)),
            }
        }
        (made, sent)
    }

    #[test]
    fn a_few_chunks_are_made_at_a_time_and_one_for_each_asker() {
        let (mut proofs, mut out) = (Proofs::default(), Outbox::new());
        for number in 1..=6 {
            want(&mut proofs, number, &mut out);
        }
        assert_eq!(said(&mut out), (vec![1, 2, 3, 4], vec![]));
        assert!(!proofs.may_ask(Time(1), peer(6)), "one at a time");
        let packed = Packed { bytes: 9, parts: vec![Blob::default(); 2] };
        proofs.packed(peer(2), name(2), Some(packed.clone()), &mut out);
        assert_eq!(said(&mut out), (vec![5], vec![(2, 9, false), (2, 9, true)]));
        // Who is gone gets nothing, and holds nobody up.
        proofs.unlinked(&peer(1));
        proofs.unlinked(&peer(6));
        proofs.packed(peer(1), name(1), Some(packed), &mut out);
        proofs.packed(peer(3), name(3), None, &mut out);
        assert_eq!(said(&mut out), (vec![], vec![(3, 0, true)]));
        want(&mut proofs, 6, &mut out);
        assert_eq!(said(&mut out), (vec![6], vec![]));
    }

    #[test]
    fn who_asks_too_often_is_put_off_for_a_while() {
        let mut proofs = Proofs::default();
        let asked = (0..100).filter(|_| proofs.may_ask(Time(1), peer(1))).count();
        assert_eq!(asked, limits::PROOF_BURST as usize);
        assert!(proofs.may_ask(Time(1), peer(2)), "the others are");
        assert!(proofs.may_ask(Time(1) + std::time::Duration::from_secs(1), peer(1)));
    }
}
