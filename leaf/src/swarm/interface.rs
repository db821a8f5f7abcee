//! What a download is told, and what it wants done.

use overlay::id::PeerId;

use super::SourceState;

/// Names a request to a source; never used twice in one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Neighbouring pieces of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub first: u64,
    /// How many, in `1..=`[`overlay::limits::RUN_PIECES`].
    pub count: u32,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The piece values of a segment.
    Segment(u64),
    /// Pieces whose values are known.
    Pieces(Run),
    /// A piece that came wrong from elsewhere: the groups of it that are wrong.
    Repair(u64),
}

/// Why a session ended or could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It cannot be reached, or the connection broke.
    Lost,
    /// It does not have the content (any more).
    NotHeld,
    /// It has no place in its queue, or declines for now.
    Busy,
}

/// What can happen to a download.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody says that these peers have the content.
    SourcesFound(Vec<PeerId>),
    /// The peer is gone from the network or banned; it may be found again.
    SourceLost(PeerId),
    /// The session is open, and the segment values fit the content id under this size.
    Opened {
        /// With whom.
        peer: PeerId,
        /// The size it claims, in bytes.
        size: u64,
        /// False if it has only a part, which [`Self::Have`] tells.
        complete: bool,
    },
    /// A part of the bitmap of a partial holder.
    Have {
        /// Whose.
        peer: PeerId,
        /// The first piece, a multiple of 8.
        first: u64,
        /// Bits, the first piece highest.
        bits: Vec<u8>,
    },
    /// We wait for a slot at this place.
    Queued {
        /// Where.
        peer: PeerId,
        /// From 1.
        position: u32,
    },
    /// The source would rather send these pieces than others.
    Suggested {
        /// Which source.
        peer: PeerId,
        /// Which pieces; nothing about them is believed.
        run: Run,
    },
    /// Somebody reads the content from this byte on: it is wanted in order for [`overlay::limits::READ_LAPSE`].
    Read(u64),
    /// We have a slot.
    Granted(PeerId),
    /// The slot was taken back. What was asked may still come.
    Revoked(PeerId),
    /// The session ended or did not open.
    Closed {
        /// With whom.
        peer: PeerId,
        /// Why.
        reason: CloseReason,
    },
    /// Bytes of a request arrived, verified or not.
    Progress {
        /// From whom.
        peer: PeerId,
        /// How many since the last time.
        bytes: u64,
    },
    /// The values of a segment arrived and were found right.
    SegmentArrived(RequestId),
    /// A piece was verified and written.
    PieceArrived {
        /// The request that brought it.
        request: RequestId,
        /// Which.
        piece: u64,
    },
    /// A request ended before it brought everything.
    RequestFailed(RequestId),
    /// A request brought something wrong.
    Corrupt {
        /// Which request.
        request: RequestId,
        /// The piece that was wrong, if what came of it is still there to be repaired.
        piece: Option<u64>,
    },
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Reach the peer and open a session. Answered by `Opened` or `Closed`.
    Open(PeerId),
    /// End the session, if there is one.
    Close(PeerId),
    /// The job works with this size from now on. Everything from another size is void.
    Sized(u64),
    /// Send a request.
    Request {
        /// Its name.
        id: RequestId,
        /// To whom.
        peer: PeerId,
        /// For what.
        work: Work,
    },
    /// Tell the source whether we would ask it for something: what is on its way from others does not count before the end
    /// game.
    Appetite {
        /// Which.
        peer: PeerId,
        /// True if we would; so it is when a session opens.
        wants: bool,
    },
    /// End a request. Its result does not matter any more.
    Cancel(RequestId),
    /// Look for sources.
    FindSources,
    /// All pieces are here. Nothing follows.
    Finished,
}

/// A source as shown to the user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceView {
    /// Who.
    pub peer: PeerId,
    /// How far its session is.
    pub state: SourceState,
    /// Bytes a second, 0 if nothing was measured.
    pub rate: u64,
}
