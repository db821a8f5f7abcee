//! Leaves that a misbehaving home made itself: their lists are signed for it, so it can prove them. What it tells of their
//! words is another matter.

use overlay::{
    batch::{self, ChunkHash},
    file::{FileEntry, Tags},
    id::{ContentId, HandleSalt, PeerId},
    identity::Identity,
    shards::leaf_hash,
    wire::{
        bounded::{Blob, List},
        leaf::{RootStatement, SignedRoot, catalog_root},
        mesh::{
            AttachedList, AttachmentChange, ChunkName, DigestName, ListProof, MeshMessage, Proof, ProofAnswer,
            ProofAsk, ProofPart,
        },
    },
};

use super::node::Node;

/// A leaf with so many chunks of one file each.
#[derive(Debug)]
pub(super) struct MadeLeaf {
    identity: Identity,
    salt: HandleSalt,
    /// The name of each chunk, and the number of its word.
    chunks: Vec<(ChunkHash, u64)>,
}

/// A file with a word that no other file has.
pub(super) fn file(word: u64) -> FileEntry {
    FileEntry {
        path: format!("share/word{word}.txt"),
        content: ContentId(*blake3::hash(&word.to_le_bytes()).as_bytes()),
        size: 1,
        modified_s: 0,
        tags: Tags::default(),
    }
}

impl MadeLeaf {
    /// The leaf of that number of a node; no two have a word in common.
    pub(super) fn new(node: &Node, number: u64, chunks: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        let seed = *hasher.update(&node.peer().0).update(&number.to_le_bytes()).finalize().as_bytes();
        let words = number * chunks..(number + 1) * chunks;
        let chunk = |word| (batch::chunk_hash(&batch::encode_chunk(&[file(word)])), word);
        Self { identity: Identity::from_seed(seed), salt: HandleSalt([1; 16]), chunks: words.map(chunk).collect() }
    }

    fn peer(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// Its handle.
    pub(super) fn handle(&self) -> u64 {
        self.salt.handle(&self.peer())
    }

    /// How its home tells of it.
    pub(super) fn claim(&self) -> AttachmentChange {
        let mut chunks: Vec<_> = self.chunks.iter().map(|(hash, _)| ChunkName::of(hash)).collect();
        chunks.sort_unstable();
        let place = (leaf_hash(&self.peer()) >> 24) as u8;
        let list = AttachedList { sequence: 1, place, chunks: List::new(chunks) };
        AttachmentChange { handle: self.handle(), list: Some(list) }
    }

    /// Proves that `home` has it, with the files of a chunk if that is asked for.
    pub(super) fn prove(&self, home: PeerId, ask: ProofAsk) -> Vec<MeshMessage> {
        let hashes: Vec<_> = self.chunks.iter().map(|(hash, _)| *hash).collect();
        let statement = RootStatement {
            root: catalog_root(&hashes),
            files: hashes.len() as u64,
            sequence: 1,
            lifetime_s: 86_400,
            home,
        };
        let signed = SignedRoot::sign(&self.identity, &statement);
        let proof = ListProof { leaf: self.peer(), salt: self.salt, signed, chunks: List::new(hashes) };
        let files = ask.chunk.and_then(|chunk| {
            let (_, word) = self.chunks.iter().find(|(hash, _)| ChunkName::of(hash) == chunk)?;
            let bytes = batch::encode_chunk(&[file(*word)]);
            let data = batch::cut(&bytes).next()?.ok().and_then(Blob::new)?;
            let name = DigestName { handle: ask.handle, chunk };
            Some(ProofPart { name, bytes: bytes.len() as u32, last: true, data }.into())
        });
        [Proof { ask, answer: ProofAnswer::Proven(proof) }.into()].into_iter().chain(files).collect()
    }
}
