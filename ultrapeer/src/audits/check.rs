//! Whether what a home sent proves what it told. Takes as long as building a chunk: for workers.

use std::sync::Arc;

use overlay::{
    batch::{self, chunk_hash},
    id::PeerId,
    limits,
    shards::leaf_hash,
    wire::{
        leaf::catalog_root,
        mesh::{ChunkName, ListProof},
    },
};

use crate::{
    attachments::LeafList,
    digests::{DigestSum, Parts},
    index::Segment,
};

/// What a home told, and what it sent to prove it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Names the audit.
    pub number: u64,
    /// Who told it.
    pub home: PeerId,
    /// Of which leaf.
    pub handle: u64,
    /// What its list is said to be.
    pub list: Arc<LeafList>,
    /// The chunk that was to be proven, with its digest as it came from the home.
    pub chunk: Option<(ChunkName, DigestSum)>,
    /// What the leaf is said to have signed.
    pub proof: ListProof,
    /// Bytes of the chunk.
    pub bytes: u32,
    /// Its compressed files.
    pub parts: Parts,
}

/// What was wrong about a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The handle is not that leaf's.
    #[error("it names a leaf whose handle is another")]
    Handle,
    /// The place is not that leaf's.
    #[error("it tells another place of a leaf")]
    Place,
    /// The leaf did not sign it for this home.
    #[error("no leaf signed that list for it")]
    Signature,
    /// The leaf signed another list.
    #[error("the leaf signed another list")]
    List,
    /// The files are not those of the chunk.
    #[error("the files are not those of the leaf's list")]
    Files,
    /// The digest is not that of the files.
    #[error("it sent a digest that is not that of the leaf's files")]
    Digest,
    /// It says that the list is not there, and goes on telling of it.
    #[error("it denies a list that it tells of")]
    Denied,
    /// It does not answer.
    #[error("it does not prove a list that it tells of")]
    Silent,
    /// What it must prove is gone whenever it must.
    #[error("what it must prove is always gone")]
    Evading,
}

/// Looks at a case.
pub fn check(case: &Case) -> Result<(), Fault> {
    let Case { proof, list, .. } = case;
    if proof.salt.handle(&proof.leaf) != case.handle {
        return Err(Fault::Handle);
    }
    if (leaf_hash(&proof.leaf) >> 24) as u8 != list.place {
        return Err(Fault::Place);
    }
    let statement = proof.signed.open(&proof.leaf, &case.home).map_err(|_| Fault::Signature)?;
    let names_one = |name: &ChunkName| proof.chunks.iter().any(|hash| ChunkName::of(hash) == *name);
    if statement.sequence != list.sequence
        || statement.root != catalog_root(proof.chunks.iter())
        || !list.chunks.iter().all(names_one)
    {
        return Err(Fault::List);
    }
    let Some((name, sum)) = case.chunk else { return Ok(()) };
    let parts = case.parts.iter().map(|part| &part[..]);
    let bytes = batch::join(parts, case.bytes as usize, limits::CHUNK_BYTES).map_err(|_| Fault::Files)?;
    let hash = chunk_hash(&bytes);
    if ChunkName::of(&hash) != name || !proof.chunks.contains(&hash) {
        return Err(Fault::Files);
    }
    let files = batch::decode_chunk(&bytes).map_err(|_| Fault::Files)?;
    let segment = Segment::build(&files).map_err(|_| Fault::Files)?;
    if DigestSum::of(&segment) == sum { Ok(()) } else { Err(Fault::Digest) }
}
