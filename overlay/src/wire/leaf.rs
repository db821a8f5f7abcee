//! Messages between a leaf and an ultrapeer.
//!
//! ```text
//! control stream   leaf: Hello, CatalogRoot, CatalogPart.., LeafState, Volunteer, MembersAsk, ViewAsk, Wishes,
//!                        Goodbye, IntroductionReply, Possession, Complaint, DialBackAsk
//!                  ultrapeer: Welcome | Refuse, Allowance, Members, CatalogWant, CatalogAck, Volunteers, View,
//!                        WishHits, Introduction, PossessionAsk, DialledBack, RelayOffer, Goodbye
//! one stream each  leaf: Search              ultrapeer: Accepted, Hits.., Summary
//!                  leaf: Introduce           ultrapeer: Introduced
//! of a guest       leaf: RelayOpen           ultrapeer: RelayReady      both: Carried..
//! ```

use serde::{Deserialize, Serialize};

pub use super::introduction::{
    Carried, DialBackAsk, DialledBack, Introduce, Introduced, Introduction, IntroductionFailure, IntroductionReply,
    RelayOffer, RelayOpen, RelayReady, RelayRefusal, Side, Whereabouts,
};
use super::{
    bounded::{Blob, List, Text},
    descriptor::SignedDescriptor,
    election::{Invitation, Measured},
    hello::{Contact, Goodbye, HELLO_CAP, Hello, REFUSE_CAP, Refuse, Welcome},
    introduction::{INTRODUCED_CAP, SIDE_CAP},
    messages,
    possession::{Complaint, POSSESSION_CAP, Possession, PossessionAsk},
    search::{HITS_CAP, Hit, Hits, Reachability, Search, Summary},
};
use crate::{
    id::PeerId,
    identity::{Identity, Signature},
    limits,
};

/// Domain separation of catalog signatures.
const CATALOG_CONTEXT: &[u8] = b"quictrack/1 catalog\0";

messages! {
    /// What a leaf and an ultrapeer say to each other.
    pub enum LeafMessage {
        /// The leaf's first frame.
        1 Hello(Hello) up to HELLO_CAP,
        /// It is attached.
        2 Welcome(Welcome) up to HELLO_CAP,
        /// It is not.
        3 Refuse(Refuse) up to REFUSE_CAP,
        /// The sender leaves in order.
        4 Goodbye(Goodbye) up to REFUSE_CAP,
        /// The ultrapeers that the sender knows.
        5 Members(Members) up to limits::MEMBERS_PER_FRAME * limits::DESCRIPTOR_BYTES + 64,
        /// The leaf's list, by the hashes of its chunks.
        6 CatalogRoot(CatalogRoot) up to 128 << 10,
        /// Chunks that the ultrapeer lacks.
        7 CatalogWant(CatalogWant) up to 16 << 10,
        /// A part of a chunk.
        8 CatalogPart(CatalogPart) up to limits::BATCH_BYTES + 64,
        /// The list is in the ultrapeer's index.
        9 CatalogAck(CatalogAck) up to 64,
        /// How busy the leaf is.
        10 LeafState(LeafState) up to 64,
        /// A search, on a stream of its own.
        11 Search(Search) up to 4 << 10,
        /// The search is under way.
        12 Accepted(Accepted) up to 64,
        /// Some of its hits.
        13 Hits(Hits) up to HITS_CAP,
        /// Its end.
        14 Summary(Summary) up to 256,
        /// The leaf wants to reach another, on a stream of its own.
        15 Introduce(Introduce) up to SIDE_CAP,
        /// Whether and where it can.
        16 Introduced(Introduced) up to INTRODUCED_CAP,
        /// Another leaf wants to reach this one.
        17 Introduction(Introduction) up to SIDE_CAP,
        /// Whether it may.
        18 IntroductionReply(IntroductionReply) up to SIDE_CAP,
        /// Are you there?
        19 Ping(Ping) up to 64,
        /// Yes.
        20 Pong(Pong) up to 64,
        /// How often the leaf may search here.
        21 Allowance(Allowance) up to 64,
        /// The leaf wants to know of more ultrapeers.
        22 MembersAsk(MembersAsk) up to 64,
        /// The leaf wants to know whom its home takes for an ultrapeer.
        23 ViewAsk(ViewAsk) up to 64,
        /// In short.
        24 View(View) up to 64 + limits::SKETCH_BYTES,
        /// Leaves that would be ultrapeers.
        25 Volunteers(Volunteers) up to limits::CONTACTS_NAMED * 64 + 8,
        /// Whether the leaf would be an ultrapeer.
        26 Volunteer(Volunteer) up to 64,
        /// What the leaf wants to be told of when somebody shares it.
        27 Wishes(Wishes) up to limits::WISHES_OF_LEAF * (limits::QUERY_BYTES + 8) + 8,
        /// Somebody does.
        28 WishHits(WishHits) up to HITS_CAP,
        /// What the home found out about the leaf as one that would be an ultrapeer.
        29 Appraisal(Appraisal) up to 512,
        /// Show that you have what you list.
        30 PossessionAsk(PossessionAsk) up to 64,
        /// This is a part of it, or why there is none.
        31 Possession(Possession) up to POSSESSION_CAP,
        /// A source does not have what it lists.
        32 Complaint(Complaint) up to 256,
        /// The leaf wants to know whether it can be dialled.
        33 DialBackAsk(DialBackAsk) up to 16,
        /// Whether it can.
        34 DialledBack(DialledBack) up to 16,
        /// Another leaf wants to be relayed to this one.
        35 RelayOffer(RelayOffer) up to 64,
        /// A guest wants to be relayed, on a stream of its own.
        36 RelayOpen(RelayOpen) up to 64,
        /// Whether it is.
        37 RelayReady(RelayReady) up to 16,
        /// A packet between two that are relayed.
        38 Carried(Carried) up to limits::RELAY_PACKET + 8,
    }
}

/// The ultrapeers that the sender knows: all of them, or those that are new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Their descriptors.
    pub descriptors: List<SignedDescriptor, { limits::MEMBERS_PER_FRAME }>,
    /// Ultrapeers that are gone.
    pub gone: List<PeerId, { limits::MEMBERS_PER_FRAME }>,
    /// How many are alive in the sender's view, itself included.
    pub total: u32,
    /// The sender's view in one number: equal views have equal numbers.
    pub view: u64,
}

/// A leaf's list: the chunks it is made of, under one signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogRoot {
    /// What the leaf signed of it.
    pub signed: SignedRoot,
    /// The chunks, in path order; their hashes give the root.
    pub chunks: List<ChunkRef, { limits::CHUNKS_PER_LEAF }>,
}

/// A leaf's signature over its list: proves to others that the home to which it was given has that leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRoot {
    /// What is signed: a [`RootStatement`].
    pub statement: Blob<{ limits::ROOT_STATEMENT_BYTES }>,
    /// By the leaf.
    pub signature: Signature,
}

/// One chunk of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
    /// Bytes, at most [`limits::CHUNK_BYTES`].
    pub bytes: u32,
    /// Files, at most [`limits::CHUNK_FILES`].
    pub files: u16,
}

/// What a leaf signs of its list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootStatement {
    /// Over the chunk hashes; see [`catalog_root`].
    pub root: [u8; 32],
    /// Files in it.
    pub files: u64,
    /// Grows with each change, over restarts too.
    pub sequence: u64,
    /// Seconds for which it counts after it was received.
    pub lifetime_s: u32,
    /// The home that it is given to: what one home can prove with it, no other can.
    pub home: PeerId,
}

/// The root of a list: one hash over those of its chunks, in ascending order, so that it can be computed by whoever
/// keeps the chunks in another order than that of their paths.
pub fn catalog_root<'a>(chunk_hashes: impl IntoIterator<Item = &'a [u8; 32]>) -> [u8; 32] {
    let mut hashes: Vec<_> = chunk_hashes.into_iter().collect();
    hashes.sort_unstable();
    let mut hasher = blake3::Hasher::new_derive_key("quictrack 2026-11-28 catalog root");
    for hash in hashes {
        hasher.update(hash);
    }
    *hasher.finalize().as_bytes()
}

impl CatalogRoot {
    /// Signs a list.
    pub fn sign(identity: &Identity, statement: &RootStatement, chunks: Vec<ChunkRef>) -> Self {
        Self { signed: SignedRoot::sign(identity, statement), chunks: List::new(chunks) }
    }

    /// Reads and checks it: encoding, bounds, the leaf's signature for that home, and that the chunks give the root.
    pub fn open(&self, leaf: &PeerId, home: &PeerId) -> Result<RootStatement, CatalogError> {
        let statement = self.signed.open(leaf, home)?;
        let fits = self.chunks.iter().all(|chunk| {
            chunk.bytes as usize <= limits::CHUNK_BYTES && (1..=limits::CHUNK_FILES).contains(&usize::from(chunk.files))
        });
        let files: u64 = self.chunks.iter().map(|chunk| u64::from(chunk.files)).sum();
        // A chunk names its paths, and a path is only once in a list.
        let mut hashes: Vec<_> = self.chunks.iter().map(|chunk| &chunk.hash).collect();
        hashes.sort_unstable();
        let unique = hashes.windows(2).all(|pair| pair[0] != pair[1]);
        if !fits || !unique || files != statement.files {
            return Err(CatalogError::Malformed);
        }
        if catalog_root(self.chunks.iter().map(|chunk| &chunk.hash)) != statement.root {
            return Err(CatalogError::Root);
        }
        Ok(statement)
    }
}

impl SignedRoot {
    /// Signs a statement.
    pub fn sign(identity: &Identity, statement: &RootStatement) -> Self {
        let mut bytes = Vec::new();
        super::encode_into(statement, &mut bytes);
        let signature = identity.sign(CATALOG_CONTEXT, &bytes);
        Self { statement: Blob::new(bytes).expect("a statement is shorter than its cap"), signature }
    }

    /// Reads and checks it: encoding, and that the leaf signed it for that home.
    pub fn open(&self, leaf: &PeerId, home: &PeerId) -> Result<RootStatement, CatalogError> {
        let statement: RootStatement =
            super::decode_exact("RootStatement", &self.statement).map_err(|_| CatalogError::Malformed)?;
        if !self.signature.verify(leaf, CATALOG_CONTEXT, &self.statement) {
            return Err(CatalogError::Signature);
        }
        if statement.home == *home { Ok(statement) } else { Err(CatalogError::OtherHome) }
    }
}

/// Why a list is unacceptable. The fault is the leaf's; its earlier list stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// It cannot be read, or its sizes are absurd.
    #[error("malformed catalog")]
    Malformed,
    /// The signature is not the leaf's.
    #[error("wrong signature on a catalog")]
    Signature,
    /// It was signed for another home.
    #[error("a catalog for another home")]
    OtherHome,
    /// The chunks do not give the root.
    #[error("the chunks of a catalog do not give its root")]
    Root,
}

/// Chunks that the ultrapeer lacks and is ready to take now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogWant {
    /// The list they belong to.
    pub sequence: u64,
    /// Their positions in [`CatalogRoot::chunks`].
    pub chunks: List<u32, { limits::CHUNKS_PER_LEAF }>,
}

/// A part of a chunk: one zstd frame of at most [`limits::BATCH_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogPart {
    /// The list that it belongs to.
    pub sequence: u64,
    /// The chunk's position in [`CatalogRoot::chunks`].
    pub chunk: u32,
    /// True for the chunk's last part.
    pub last: bool,
    /// Compressed bytes.
    pub data: Blob<{ limits::BATCH_BYTES }>,
}

/// The list with this sequence is in the ultrapeer's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogAck {
    /// Which list.
    pub sequence: u64,
    /// Files of it that are searchable; fewer than it has if the ultrapeer takes no more from one leaf.
    pub files: u64,
}

/// How busy the leaf is, and how it can be reached. Sent when it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafState {
    /// Upload slots that are free.
    pub free_slots: u16,
    /// Downloaders that wait.
    pub queue: u32,
    /// Whether others can dial it, as it knows.
    pub reachability: Reachability,
}

/// The coordinator took the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Ultrapeers that the coordinator knows to be alive, itself included.
    pub ultrapeers: u32,
}

/// Are you there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in the answer.
    pub token: u64,
}

/// Yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Of the [`Ping`].
    pub token: u64,
}

/// How often the leaf may search through this ultrapeer. Sent with the attachment and when it changes, so that a
/// leaf can hold its searches back instead of being refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Microseconds in which it regains one search; 0: it is not limited.
    pub interval_us: u64,
    /// Searches that it may make at once.
    pub burst: u32,
}

/// The leaf wants to know of more ultrapeers; `Members` frames answer. One that asks too often gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersAsk {
    /// Descriptors wanted; at most [`limits::MEMBERS_TOLD`] are sent.
    pub most: u16,
}

/// The leaf wants to know whom its home takes for an ultrapeer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewAsk {
    /// Comes back in the answer.
    pub token: u64,
    /// The number of a view whose sketch the leaf has; of another it wants the sketch.
    pub known: Option<u64>,
}

/// Whom the sender takes for an ultrapeer, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Of the [`ViewAsk`].
    pub token: u64,
    /// How many, the sender included.
    pub total: u32,
    /// The view in one number: equal views have equal numbers.
    pub view: u64,
    /// The view's sketch, unless the leaf has it; absent also of a leaf that asks too often.
    pub sketch: Option<Blob<{ limits::SKETCH_BYTES }>>,
}

/// What a home found out about a leaf that would be an ultrapeer, and whether the network wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appraisal {
    /// Whether it was reached from outside; `None` if that was not tried yet.
    pub reached: Option<bool>,
    /// What was measured.
    pub measured: Measured,
    /// True if its part of the Internet may have one more.
    pub has_place: bool,
    /// True if more ultrapeers are wanted at all.
    pub demand: bool,
    /// True if it should ask to be let in now.
    pub invited: bool,
    /// What it can show to those who vote on it.
    pub invitation: Option<Invitation>,
}

/// Leaves of the sender that would be ultrapeers, where it sees them: so that they find each other when no ultrapeer is
/// left. In place of those that it told before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volunteers {
    /// Some of them.
    pub leaves: List<Contact, { limits::CONTACTS_NAMED }>,
}

/// What the leaf offers to the network besides its files. Sent with the attachment and when it changes; who never sends
/// it offers nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volunteer {
    /// True if it would be an ultrapeer.
    pub willing: bool,
}

/// The leaf's standing queries at this home: all that it has there, in place of those that it told before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// Each with a number of its own.
    pub wishes: List<Wish, { limits::WISHES_OF_LEAF }>,
}

/// A standing query of a leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Chosen by the leaf, and not used for another query while it is attached to the home.
    pub number: u32,
    /// The source text of the query.
    pub query: Text<{ limits::QUERY_BYTES }>,
}

/// Somebody shares what a standing query is for. Files that were there before are not told of, but some may be told of
/// more than once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishHits {
    /// Of the [`Wish`].
    pub number: u32,
    /// Contents that match.
    pub hits: List<Hit, { limits::HITS_PER_FRAME }>,
}
