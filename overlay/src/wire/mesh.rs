//! Messages between ultrapeers.
//!
//! One connection for each pair, dialled by either side. The control stream carries the hello, probes,
//! membership and introductions; each side opens one stream for its queries, one for the hits that it owes and one
//! for what it tells of its leaves, so that a slow list of hits never holds back a probe.

use serde::{Deserialize, Serialize};

pub use super::introduction::{Agreed, MeshIntroduce, MeshIntroduced};
use super::{
    bounded::{Blob, List, Text},
    descriptor::{ShardPrefix, SignedDescriptor},
    election::{Apply, Meeting, Verdict},
    hello::{Goodbye, HELLO_CAP, Hello, REFUSE_CAP, Refuse, Welcome},
    introduction::{AGREED_CAP, SIDE_CAP},
    leaf::SignedRoot,
    messages,
    possession::SourceComplaint,
    search::{HITS_CAP, Hit, IncompleteSet, Target},
};
use crate::{
    id::{ContentId, HandleSalt, PeerId, QueryId},
    limits,
};

/// Bytes of a list of [`Claim`]s.
const CLAIMS_CAP: usize = limits::MEMBERS_PER_FRAME * 42 + 2;
/// Bytes of [`News`].
const NEWS_CAP: usize = limits::MEMBERS_PER_FRAME * (limits::DESCRIPTOR_BYTES + 5) + 2 + CLAIMS_CAP;

messages! {
    /// What ultrapeers say to each other.
    pub enum MeshMessage {
        /// The first frame of the side that dialled.
        1 Hello(Hello) up to HELLO_CAP,
        /// It is let in.
        2 Welcome(Welcome) up to HELLO_CAP,
        /// It is not.
        3 Refuse(Refuse) up to REFUSE_CAP,
        /// The sender leaves in order.
        4 Goodbye(Goodbye) up to REFUSE_CAP,
        /// Ultrapeers that joined, changed, or are gone.
        5 News(News) up to NEWS_CAP,
        /// Leaves that came to or left the sender.
        6 Attachments(Attachments) up to 64 << 10,
        /// Search for me.
        7 Query(Query) up to 12 << 10,
        /// Some of the hits.
        8 QueryHits(QueryHits) up to HITS_CAP,
        /// There are no more.
        9 QueryDone(QueryDone) up to 64,
        /// A leaf of the sender wants to reach one of yours.
        10 Introduce(MeshIntroduce) up to SIDE_CAP,
        /// Whether and where it can.
        11 Introduced(MeshIntroduced) up to AGREED_CAP,
        /// Tell me of your leaves.
        12 Follow(Follow) up to 64,
        /// Send me digests of some of their chunks.
        13 DigestWant(DigestWant) up to 20 * limits::DIGESTS_PER_FRAME + 64,
        /// A part of a digest.
        14 DigestPart(DigestPart) up to limits::BATCH_BYTES + 64,
        /// The answer to a query is not needed any more.
        15 QueryCancel(QueryCancel) up to 64,
        /// Are you there?
        20 Probe(Probe) up to 16,
        /// Yes, and so busy.
        21 ProbeReply(ProbeReply) up to 32,
        /// Is that ultrapeer there? It does not answer me.
        22 ProbeFor(ProbeFor) up to 64,
        /// Whether it is.
        23 ProbeResult(ProbeResult) up to 64,
        /// Ultrapeers that do not answer, the receiver perhaps among them.
        24 Suspect(Suspect) up to CLAIMS_CAP,
        /// Do we know the same ultrapeers?
        25 Sync(Sync) up to 16,
        /// No: this is what the sender knows, in short.
        26 SyncBuckets(SyncBuckets) up to limits::SYNC_BUCKETS * 10 + 2,
        /// Send what you know in these buckets.
        27 SyncWant(SyncWant) up to limits::SYNC_BUCKETS / 8,
        /// Contents that leaves of the sender have.
        28 Holdings(Holdings) up to 64 << 10,
        /// Tell me all of them once more.
        29 HoldingsAsk(HoldingsAsk) up to 16,
        /// Who was said to have the content of a query.
        30 QueryHolders(QueryHolders) up to 1 << 10,
        /// Prove that a leaf gave you a list that you told of.
        31 ProofAsk(ProofAsk) up to 64,
        /// The proof, or why there is none.
        32 Proof(Proof) up to 32 * limits::CHUNKS_PER_LEAF + 512,
        /// A part of the chunk that was to be proven.
        33 ProofPart(ProofPart) up to limits::BATCH_BYTES + 64,
        /// Standing queries of leaves of the sender.
        34 Wishes(MeshWishes) up to 64 << 10,
        /// Somebody shares what one of the receiver's is for.
        35 WishHits(MeshWishHits) up to HITS_CAP,
        /// The sender wants to serve as an ultrapeer, or wants its right to it confirmed.
        36 Apply(Apply) up to limits::DESCRIPTOR_BYTES + limits::INVITATIONS * 256 + 16,
        /// Whether it may.
        37 Verdict(Verdict) up to limits::VOTERS_NAMED * limits::DESCRIPTOR_BYTES + 64,
        /// The receiver is no member of the network as the sender knows it.
        38 Meeting(Meeting) up to limits::VOTERS_NAMED * limits::DESCRIPTOR_BYTES + 64,
        /// A leaf of the receiver does not have what it lists, as one of the sender's says.
        39 SourceComplaint(SourceComplaint) up to 128,
    }
}

/// The streams of a mesh connection, in the order of their importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Hello, probes, membership, introductions.
    Control,
    /// Answers to queries.
    Hits,
    /// Queries.
    Queries,
    /// Attachments, digests, proofs, holdings and wishes.
    Digests,
}

impl MeshMessage {
    /// The stream that it belongs on.
    pub fn class(&self) -> Class {
        match self {
            Self::QueryHits(_) | Self::QueryHolders(_) | Self::QueryDone(_) | Self::WishHits(_) => Class::Hits,
            Self::Query(_) | Self::QueryCancel(_) => Class::Queries,
            Self::Attachments(_)
            | Self::Follow(_)
            | Self::DigestWant(_)
            | Self::DigestPart(_)
            | Self::ProofAsk(_)
            | Self::Proof(_)
            | Self::ProofPart(_)
            | Self::Holdings(_)
            | Self::HoldingsAsk(_)
            | Self::Wishes(_) => Class::Digests,
            _ => Class::Control,
        }
    }
}

/// What became of ultrapeers. Whoever learns something new of it passes that on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Descriptors: of those that joined, changed, or withdrew themselves.
    pub members: List<Aged, { limits::MEMBERS_PER_FRAME }>,
    /// Those that were found gone.
    pub gone: List<Claim, { limits::MEMBERS_PER_FRAME }>,
}

/// A descriptor and how old it is, so that passing it on does not renew it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aged {
    /// What the ultrapeer says of itself.
    pub descriptor: SignedDescriptor,
    /// Seconds since the ultrapeer itself presented it, rounded up at every step.
    pub age_s: u32,
}

/// What somebody says of an ultrapeer as it was with that descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Of whom.
    pub peer: PeerId,
    /// The sequence of the newest descriptor that the sender has of it.
    pub sequence: u64,
}

/// Are you there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// To be returned.
    pub token: u64,
}

/// Yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReply {
    /// Of the [`Probe`].
    pub token: u64,
    /// How busy the sender is.
    pub load: Load,
}

/// How busy an ultrapeer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Attached leaves.
    pub leaves: u32,
    /// Leaves that it takes.
    pub capacity: u32,
}

/// Probe another for the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFor {
    /// To be returned.
    pub token: u64,
    /// Whom.
    pub target: PeerId,
}

/// What a probe for another gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// Of the [`ProbeFor`].
    pub token: u64,
    /// Who was probed.
    pub target: PeerId,
    /// True if the target answered; false if the sender has no link to it.
    pub reached: bool,
}

/// Ultrapeers that do not answer the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Who.
    pub suspects: List<Claim, { limits::MEMBERS_PER_FRAME }>,
}

/// All that the sender knows in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// All buckets together.
    pub digest: u64,
}

/// All that the sender knows, in one number for each part of the key space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncBuckets {
    /// By the first byte of the members' keys.
    pub buckets: List<u64, { limits::SYNC_BUCKETS }>,
}

/// Where the sender knows something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncWant {
    /// One bit for each bucket, the lowest bit of a byte first.
    pub buckets: [u8; limits::SYNC_BUCKETS / 8],
}

/// Tell me of your leaves, all that are and then each change: of those whose place in the leaf space is covered by a
/// prefix. A later one replaces it and begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// The part of the leaf space that the sender is interested in.
    pub prefix: ShardPrefix,
}

/// Changes of who is attached to the sender, in order: those that the receiver follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachments {
    /// True if these begin anew: forget what was known of the sender.
    pub reset: bool,
    /// Given when nothing is left to send: the receiver's copy is now the sender's state, and this is its sum.
    pub caught_up: Option<AttachmentSum>,
    /// What changed.
    pub changes: List<AttachmentChange, { limits::ATTACHMENTS_PER_FRAME }>,
}

/// What the leaves of a home add up to, to be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentSum {
    /// How many there are.
    pub leaves: u32,
    /// The exclusive or of [`AttachedList::sum`] of all.
    pub sum: u64,
}

/// A leaf came, changed its list, or left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentChange {
    /// The leaf's handle.
    pub handle: u64,
    /// Its list in the sender's index; `None` if it left.
    pub list: Option<AttachedList>,
}

/// A leaf's list as ultrapeers tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedList {
    /// Its sequence.
    pub sequence: u64,
    /// The first eight bits of its leaf's place in the leaf space: enough to count the leaves of a part, and not to
    /// know the leaf again.
    pub place: u8,
    /// Names of its chunks, ascending.
    pub chunks: List<ChunkName, { limits::CHUNKS_PER_LEAF }>,
}

impl AttachedList {
    /// One number for it, in which another handle, sequence or chunk makes a difference.
    pub fn sum(handle: u64, sequence: u64, chunks: &[ChunkName]) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&handle.to_le_bytes()).update(&sequence.to_le_bytes());
        for chunk in chunks {
            hasher.update(&chunk.0.to_le_bytes());
        }
        u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

/// The first eight bytes of a chunk's hash: names it among the chunks of its leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkName(pub u64);

impl ChunkName {
    /// The name of the chunk with that hash. Names are ordered as hashes are.
    pub fn of(hash: &[u8; 32]) -> Self {
        Self(u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes")))
    }
}

/// A chunk of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DigestName {
    /// The leaf's handle.
    pub handle: u64,
    /// The chunk.
    pub chunk: ChunkName,
}

/// Digests that the sender lacks. Each is answered by its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestWant {
    /// Chunks of leaves that are attached to the receiver.
    pub digests: List<DigestName, { limits::DIGESTS_PER_FRAME }>,
}

/// A part of a digest: one zstd frame of at most [`limits::BATCH_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestPart {
    /// Of which chunk.
    pub name: DigestName,
    /// Bytes of the whole digest, at most [`limits::DIGEST_WIRE_BYTES`]; 0 if the sender does not have it (any more).
    pub bytes: u32,
    /// True for the last part.
    pub last: bool,
    /// Compressed bytes.
    pub data: Blob<{ limits::BATCH_BYTES }>,
}

/// Prove that a leaf gave you the list that you told of. Answered by a [`Proof`] on the same stream as the log of
/// leaves: what a home says is not there any more is not in its log any more, as the asker knows it by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofAsk {
    /// The leaf's handle.
    pub handle: u64,
    /// Its list.
    pub sequence: u64,
    /// The chunk whose files shall be sent, too.
    pub chunk: Option<ChunkName>,
}

/// The answer to a [`ProofAsk`]. If a chunk was asked for and the list is proven, its parts follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// To what it is the answer.
    pub ask: ProofAsk,
    /// What comes of it.
    pub answer: ProofAnswer,
}

/// Whether a home proves a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProofAnswer {
    /// It does.
    Proven(ListProof),
    /// The list is not there (any more).
    Gone,
    /// The sender does not know the asker yet, or was asked too often.
    NotNow,
}

/// That a leaf gave its list to a home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListProof {
    /// The leaf's key.
    pub leaf: PeerId,
    /// Makes its handle of it.
    pub salt: HandleSalt,
    /// What it signed for that home.
    pub signed: SignedRoot,
    /// The hashes of all its chunks, in any order: they give the root.
    pub chunks: List<[u8; 32], { limits::CHUNKS_PER_LEAF }>,
}

/// A part of a chunk's encoded files: one zstd frame of at most [`limits::BATCH_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofPart {
    /// Of which chunk.
    pub name: DigestName,
    /// Bytes of the whole chunk, at most [`limits::CHUNK_BYTES`]; 0 if it could not be made.
    pub bytes: u32,
    /// True for the last part.
    pub last: bool,
    /// Compressed bytes.
    pub data: Blob<{ limits::BATCH_BYTES }>,
}

/// Search for me.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The asker's name for it, one for each ultrapeer that it asks.
    pub id: QueryId,
    /// What is looked for.
    pub target: Target,
    /// Distinct contents wanted.
    pub limit: u32,
    /// Ask every home that holds a match, even when the limit is reached.
    pub all: bool,
    /// Where to look.
    pub scope: Scope,
    /// Contents that the sender knows already: they are not told again, and nobody need be asked for them. For a part of
    /// the leaf space it is told how many have them.
    pub known: List<ContentKey, { limits::QUERY_KNOWN }>,
}

/// Where an ultrapeer shall look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Among its own leaves, those with these handles.
    Leaves(List<u64, { limits::QUERY_LEAVES }>),
    /// Among all of its own leaves.
    Home,
    /// Among all leaves of a part of the leaf space: its own, and through their homes those whose digests it holds.
    Shard(ShardPrefix),
    /// Of a content: among all of its own leaves, and among what others told it of theirs, which a [`QueryHolders`]
    /// names.
    Holders,
    /// Among files of these chunks of its own leaves, and there among those that the leaf did not have before.
    News(List<DigestName, { limits::WISH_CHUNKS_ASKED }>),
}

/// Hits of a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryHits {
    /// Which query.
    pub id: QueryId,
    /// Contents that match, best first.
    pub hits: List<Hit, { limits::HITS_PER_FRAME }>,
    /// Leaves that have contents which the asker knows.
    pub known: List<KnownContent, { limits::QUERY_KNOWN }>,
}

/// A content that the asker of a query knows already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownContent {
    /// Which.
    pub key: ContentKey,
    /// Leaves of the part asked for that have it.
    pub sources: u32,
}

/// The end of the answer to a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryDone {
    /// Which query.
    pub id: QueryId,
    /// True if there are more contents than the limit.
    pub more: bool,
    /// Why something may be missing.
    pub incomplete: IncompleteSet,
    /// Contents held back by the operator's block list.
    pub withheld: u32,
    /// Ultrapeers that were asked on behalf of it, beside the sender.
    pub ultrapeers_asked: u32,
    /// Copies of the query that the sender sent on.
    pub messages: u32,
    /// Leaves of the shard whose lists were searched; 0 unless a shard was asked.
    pub leaves_covered: u64,
    /// Leaves of the shard.
    pub leaves_total: u64,
}

/// The answer to a query is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryCancel {
    /// Which query.
    pub id: QueryId,
}

/// The first eight bytes of a content: names it where a mistake costs a question more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentKey(pub [u8; 8]);

impl ContentKey {
    /// The key of a content. Keys are ordered as contents are.
    pub fn of(content: &ContentId) -> Self {
        Self(*content.0.first_chunk().expect("a content has 32 bytes"))
    }

    /// The same as a number.
    pub const fn number(self) -> u64 {
        u64::from_be_bytes(self.0)
    }
}

/// Contents that leaves of the sender have: those that the receiver shall know the holders of. Frames count in their
/// order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// True if these begin anew: forget what the sender told before.
    pub reset: bool,
    /// All that the sender told since it began, this frame included: the sum of [`Self::part`] of all that came minus
    /// those that went, modulo 2^64.
    pub sum: u64,
    /// What changed.
    pub changes: List<HoldingChange, { limits::HOLDINGS_PER_FRAME }>,
}

impl Holdings {
    /// What a leaf's content adds to [`Self::sum`].
    pub fn part(handle: u64, key: ContentKey) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&handle.to_le_bytes()).update(&key.0);
        u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

/// What one leaf got, or has not any more. All changes of a frame together have at most
/// [`limits::HOLDINGS_PER_FRAME`] contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingChange {
    /// The leaf's handle.
    pub handle: u64,
    /// Contents that it has.
    pub added: List<ContentKey, { limits::HOLDINGS_PER_FRAME }>,
    /// Contents that it has not any more, or that the receiver need not know the holders of.
    pub removed: List<ContentKey, { limits::HOLDINGS_PER_FRAME }>,
}

/// What the sender was told does not add up, or did not fit before: tell all of it once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingsAsk;

/// Who was said to have the content of a query. Comes before its [`QueryDone`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryHolders {
    /// Which query.
    pub id: QueryId,
    /// True if the sender was told all that it should know; false if it serves for too short a time.
    pub is_settled: bool,
    /// Leaves that are attached elsewhere: all, or some at random.
    pub holders: List<ToldHolder, { limits::HOLDERS_TOLD }>,
}

/// A leaf that was said to have a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ToldHolder {
    /// The leaf's handle.
    pub handle: u64,
    /// The home that said so.
    pub home: PeerId,
}

/// Standing queries of leaves of the sender, which the receiver shall compare with what is shared from now on. Frames
/// count in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshWishes {
    /// True if these begin anew: what the sender told before and tells neither here nor with the frames that follow, up
    /// to the one that is `whole`, is withdrawn.
    pub reset: bool,
    /// True if nothing is left to tell: the receiver has all of them now.
    pub whole: bool,
    /// Seconds for which all of the sender's count from now on, at most those of [`limits::WISHES_LIFETIME`].
    pub lifetime_s: u32,
    /// What changed.
    pub changes: List<WishChange, { limits::WISHES_PER_FRAME }>,
}

/// A standing query came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishChange {
    /// The sender's name for it, drawn at random: nobody else knows whose it is.
    pub name: u64,
    /// The source text of the query; `None` if it is withdrawn.
    pub query: Option<Text<{ limits::QUERY_BYTES }>>,
}

/// Somebody shares what a standing query of the receiver is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshWishHits {
    /// The receiver's name for it.
    pub name: u64,
    /// Contents that match.
    pub hits: List<Hit, { limits::HITS_PER_FRAME }>,
}
