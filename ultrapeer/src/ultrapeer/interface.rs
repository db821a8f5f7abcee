//! What an ultrapeer is told, and what it wants done.

use std::{net::SocketAddr, sync::Arc};

use overlay::{
    bans::Rules,
    election::Measurement,
    id::{HandleSalt, PeerId},
    introduction::Way,
    limits,
    verify::VerifyError,
    wire::{
        bounded::Blob,
        descriptor::SignedDescriptor,
        hello::Contact,
        leaf::{ChunkRef, Introduce, IntroductionFailure, LeafMessage, RelayOpen, RelayRefusal},
        mesh::{DigestName, MeshMessage},
        search::Search,
    },
};

use crate::{
    audits::{Case, Failure, Fault},
    digests::{Parts, Unpacked, owed::Packed},
    index::{KeptSegment, Segment},
    leaves::{Closing, Session, Settings},
    possession,
    relays::Guest,
    search::{self, Ticket},
};

/// What can happen to an ultrapeer.
#[derive(Debug)]
pub enum Input {
    /// This node is reached at this address: set by its operator, bound, or observed by others.
    Address(SocketAddr),
    /// Serve without being let in by another: the network begins here.
    Found,
    /// Hand over the leaves and stop serving.
    Drain,
    /// Other settings count from now on.
    Settings(Settings),
    /// This is banned and blocked from now on. Connections of those who are banned end by themselves.
    Bans(Arc<Rules>),
    /// A leaf was welcomed.
    LeafAttached {
        /// Its connection.
        session: Session,
        /// Its key.
        peer: PeerId,
        /// Makes its handle.
        salt: HandleSalt,
        /// Where its packets come from.
        address: SocketAddr,
    },
    /// A leaf sent something on its control stream.
    LeafMessage(Session, LeafMessage),
    /// A leaf's connection is gone.
    LeafGone(Session),
    /// A chunk was built; `None` if its parts were not what they had to be.
    Built(Session, [u8; 32], Option<Arc<Segment>>),
    /// A digest was unpacked and checked; `None` if it was none.
    DigestBuilt(DigestName, Option<Unpacked>),
    /// A digest of an own leaf was made; `None` if that failed.
    DigestPacked(DigestName, Option<Packed>),
    /// The files of a chunk were encoded for another ultrapeer; `None` if that failed.
    FilesPacked(PeerId, DigestName, Option<Packed>),
    /// What another home sent to prove what it told was looked at: the home, and the number of the case.
    ProofChecked(PeerId, u64, Result<(), Fault>),
    /// What a leaf sent to show that it has a file was looked at: the leaf, and the number of the question.
    PossessionChecked(PeerId, u64, Result<(), VerifyError>),
    /// A leaf searches.
    Search(Ticket, Session, Search),
    /// A leaf wants to reach another.
    Introduce(Ticket, Session, Introduce),
    /// A guest with that key wants to be relayed.
    RelayOpen(Guest, PeerId, RelayOpen),
    /// The relayed connection that began with that guest has ended.
    RelayLeft(Guest),
    /// The asker of a ticket does not wait any more.
    Cancel(Ticket),
    /// A link to another ultrapeer is up.
    MeshUp {
        /// Its key.
        peer: PeerId,
        /// Where its packets come from.
        address: SocketAddr,
        /// Its descriptor, if it was dialled, serves, and knows its address.
        descriptor: Option<SignedDescriptor>,
    },
    /// A candidate, or a leaf that asked for it, was dialled back there.
    DialledBack(PeerId, SocketAddr, Measurement),
    /// Another ultrapeer sent something.
    MeshMessage(PeerId, MeshMessage),
    /// The link to another ultrapeer is gone.
    MeshDown {
        /// Its key.
        peer: PeerId,
        /// True if it said good-bye.
        in_order: bool,
    },
    /// A dial to another ultrapeer failed.
    DialFailed(PeerId),
    /// Descriptors from an earlier session.
    Remembered(Vec<SignedDescriptor>),
    /// Nodes that may know ultrapeers which do not count here.
    Contacts(Vec<Contact>),
    /// Descriptors that came with a refusal.
    Named(Vec<SignedDescriptor>),
}

/// Why a search or an introduction is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Its leaf searches more often than it may.
    TooOften,
    /// Too many searches are under way.
    Overload,
    /// The query cannot be understood.
    Invalid,
    /// Its leaf is attached no more.
    Gone,
}

/// What the driver must do.
#[derive(Debug)]
pub enum Output {
    /// Send on a leaf's control stream.
    ToLeaf(Session, LeafMessage),
    /// Close a leaf's connection.
    CloseLeaf(Session, Closing),
    /// Answer on the stream of a search or an introduction; `true` if that was the last.
    ToAsker(Ticket, LeafMessage, bool),
    /// Refuse the search or the introduction of a ticket.
    RefuseAsker(Ticket, Denial),
    /// Send to another ultrapeer.
    ToMesh(PeerId, MeshMessage),
    /// Close the link to another ultrapeer, on which nothing comes any more. No `MeshDown` follows.
    CloseMesh(PeerId),
    /// Dial another ultrapeer.
    Dial(PeerId, SocketAddr),
    /// Decode and build a chunk on a worker; answer with `Built`.
    Build {
        /// Whose it is.
        session: Session,
        /// What it must turn out to be.
        chunk: ChunkRef,
        /// Its compressed parts.
        parts: Vec<Blob<{ limits::BATCH_BYTES }>>,
    },
    /// Build a chunk again, of what was kept of it, on a worker; answer with `Built`.
    Rebuild {
        /// Whose it is.
        session: Session,
        /// Its name.
        hash: [u8; 32],
        /// What was kept of it.
        kept: KeptSegment,
    },
    /// Unpack and check a digest of that many bytes on a worker; answer with `DigestBuilt`.
    BuildDigest {
        /// Of which chunk.
        name: DigestName,
        /// Bytes before compression.
        bytes: u32,
        /// Its compressed parts.
        parts: Parts,
    },
    /// Dial a candidate back, from a socket of its own; answer with `DialledBack`.
    DialBack {
        /// Who must be there.
        peer: PeerId,
        /// Where.
        address: SocketAddr,
        /// Whether to measure how fast it sends.
        measured: bool,
    },
    /// This volunteer need not serve any more: hand over the leaves and stop.
    Retire(Retirement),
    /// Make the digest of an own leaf's chunk on a worker; answer with `DigestPacked`.
    PackDigest {
        /// Of which chunk.
        name: DigestName,
        /// What is kept of it.
        kept: KeptSegment,
    },
    /// Encode the files of an own leaf's chunk for another ultrapeer, on a worker; answer with `FilesPacked`.
    PackFiles {
        /// Who wants them.
        peer: PeerId,
        /// Of which chunk.
        name: DigestName,
        /// What is kept of it.
        kept: KeptSegment,
    },
    /// Look on a worker at what another home sent to prove what it told; answer with `ProofChecked`.
    CheckProof(Box<Case>),
    /// Look on a worker at what a leaf sent to show that it has a file; answer with `PossessionChecked`.
    CheckPossession(Box<possession::Case>),
    /// A leaf does not have a file that it lists.
    PossessionFailed(PeerId, possession::Fault),
    /// A leaf does not have several of the files that it lists: its list is withdrawn, and it is turned away for
    /// [`limits::POSSESSION_REFUSAL`].
    LeafDropped(PeerId),
    /// Another home failed an audit.
    AuditFailed(Failure),
    /// Another home failed too many, and is distrusted for [`limits::AUDIT_DISTRUST`].
    Distrusted(PeerId),
    /// This node serves now.
    Admitted,
    /// All leaves have left, or the time for that is over: the node may stop.
    Drained,
    /// A search ended.
    SearchEnded(search::Ended),
    /// A query of another ultrapeer was answered.
    QueryAnswered {
        /// Contents given.
        hits: usize,
        /// True if the query could not be understood.
        invalid: bool,
    },
    /// An introduction ended, by which the two were to come together in that way; or they asked to be relayed.
    Introduction(Way, Result<(), IntroductionFailure>),
    /// Tell two guests that they are joined, and carry between them; answer with `RelayLeft` of the first.
    RelayJoin(Guest, Guest),
    /// Turn a guest away.
    RelayRefuse(Guest, RelayRefusal),
    /// Something of a leaf was refused, because it came too often.
    Limited(LimitedKind),
}

/// What leaves may do so often only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedKind {
    /// Ask to be introduced.
    Introduction,
    /// Ask to be dialled back.
    DialBack,
    /// Ask to be relayed.
    Relay,
}

/// Why a volunteer need not, or may not, serve any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// There are more than enough.
    Surplus,
    /// Somebody better has come.
    Replaced,
    /// Others do not reach it any more.
    Unreachable,
    /// It failed the audits of others.
    Distrusted,
}
