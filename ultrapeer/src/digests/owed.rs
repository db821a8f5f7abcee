//! Digests of the own leaves, for other ultrapeers that ask: made when the first asks, and kept for a while, because
//! the others ask at about the same time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use overlay::{
    batch,
    id::PeerId,
    limits,
    machine::Outbox,
    wire::{
        bounded::Blob,
        mesh::{DigestName, DigestPart, DigestWant},
    },
};
use rustc_hash::FxHashMap;

use super::Parts;
use crate::index::KeptSegment;

/// A digest, or the files of a chunk, as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Bytes before compression.
    pub bytes: u32,
    /// Compressed, at least one part.
    pub parts: Parts,
}

impl Packed {
    /// Compresses bytes that shall travel; `None` if that fails. For workers.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let parts: Option<Parts> = batch::cut(bytes).map(|part| part.ok().and_then(Blob::new)).collect();
        Some(Self { bytes: bytes.len() as u32, parts: parts? })
    }
}

/// What must be done.
#[derive(Debug)]
pub enum Output {
    /// Make the digest of a chunk on a worker; answer with [`Owed::packed`].
    Pack(DigestName, KeptSegment),
    /// Send a part.
    Part(PeerId, DigestPart),
}

/// What is owed. See the module text.
#[derive(Debug, Default)]
pub struct Owed {
    /// Who waits for what is being made.
    making: BTreeMap<DigestName, Vec<PeerId>>,
    waiting: usize,
    made: FxHashMap<DigestName, Arc<Packed>>,
    /// Oldest first.
    order: VecDeque<DigestName>,
    bytes: usize,
}

impl Owed {
    /// An ultrapeer asks. `kept` gives the chunk of an own leaf.
    pub fn want(
        &mut self,
        peer: PeerId,
        want: DigestWant,
        kept: impl Fn(DigestName) -> Option<KeptSegment>,
        out: &mut Outbox<Output>,
    ) {
        for name in want.digests {
            if let Some(packed) = self.made.get(&name) {
                send(peer, name, packed, out);
            } else if let Some(waiting) = self.making.get_mut(&name).filter(|_| self.waiting < limits::DIGESTS_OWED) {
                waiting.push(peer);
                self.waiting += 1;
            } else if let Some(kept) = kept(name).filter(|_| self.waiting < limits::DIGESTS_OWED) {
                self.making.insert(name, vec![peer]);
                self.waiting += 1;
                out.push(Output::Pack(name, kept));
            } else {
                not_there(peer, name, out);
            }
        }
    }

    /// A digest was made; `None` if that failed.
    pub fn packed(&mut self, name: DigestName, packed: Option<Packed>, out: &mut Outbox<Output>) {
        let waiting = self.making.remove(&name).unwrap_or_default();
        self.waiting -= waiting.len();
        let Some(packed) = packed.map(Arc::new) else {
            for peer in waiting {
                not_there(peer, name, out);
            }
            return;
        };
        for peer in waiting {
            send(peer, name, &packed, out);
        }
        self.bytes += size(&packed);
        self.made.insert(name, packed);
        self.order.push_back(name);
        while self.bytes > limits::DIGEST_CACHE_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.made.remove(&oldest).map_or(0, |packed| size(&packed));
        }
    }
}

fn size(packed: &Packed) -> usize {
    packed.parts.iter().map(|part| part.len()).sum()
}

fn send(peer: PeerId, name: DigestName, packed: &Packed, out: &mut Outbox<Output>) {
    let last = packed.parts.len().saturating_sub(1);
    for (number, data) in packed.parts.iter().enumerate() {
        let part = DigestPart { name, bytes: packed.bytes, last: number == last, data: data.clone() };
        out.push(Output::Part(peer, part));
    }
}

fn not_there(peer: PeerId, name: DigestName, out: &mut Outbox<Output>) {
    let data = Blob::new(Vec::new()).expect("nothing fits");
    out.push(Output::Part(peer, DigestPart { name, bytes: 0, last: true, data }));
}
