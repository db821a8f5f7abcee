//! The downloading side: one session with one source, and one request to it.
//!
//! Both only talk: what they hear goes as events to the task of the download, which owns the swarm. Whatever
//! a source claims is checked here, before the swarm hears of it: segment values against the content id,
//! piece values against their segment, pieces against their value.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use overlay::{
    id::{ContentId, PeerId},
    limits,
    transport::{Connection, ReceiveError, Receiver},
    verify::{self, Layout, Value},
    wire::{
        Message,
        bounded::{Blob, List},
        transfer::{
            Appetite, DenyReason, Groups, Open, Opened, Spoiled, TransferMessage, Want, WantFiles, WantGroups,
            WantPart, WantSegment,
        },
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::{
    FoundSource,
    holding::Holding,
    pool::{Lease, Pool},
    throttle::Throttle,
};
use crate::swarm::{CloseReason, RequestId, Run};

/// Time in which a source must answer a request that needs no slot, and begin to answer one that does.
const ANSWER_TIMEOUT: Duration = limits::SOURCE_STALL;
/// Bytes after which progress is reported, if nothing else is.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Time after which it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Buffers that a download keeps for pieces to come. Chosen: more are rarely under way at once.
const SPARE_BUFFERS: usize = 8;

/// What the task of a download hears.
#[derive(Debug)]
pub enum Event {
    /// From a session.
    Session {
        /// Which one; a peer has several in the course of a download.
        session: u64,
        /// With whom.
        peer: PeerId,
        /// What happened.
        news: SessionNews,
    },
    /// From a request.
    Request {
        /// Which.
        id: RequestId,
        /// What happened.
        news: RequestNews,
    },
}

/// What happens in a session.
#[derive(Debug)]
pub enum SessionNews {
    /// It is open.
    Opened {
        /// The connection, for requests.
        lease: Arc<Lease>,
        /// The claimed size.
        size: u64,
        /// True if the source has everything.
        complete: bool,
        /// The segment values: they fit the content id under this size.
        tops: Vec<Value>,
    },
    /// The source's claims do not fit the content id.
    Lied,
    /// A part of a partial holder's bitmap.
    Have {
        /// The first piece.
        first: u64,
        /// Bits.
        bits: Vec<u8>,
    },
    /// Others who have something of the content, as the source says.
    Others(Vec<FoundSource>),
    /// Pieces that it would rather send.
    Suggested(Run),
    /// A place in its queue.
    Queued(u32),
    /// A slot.
    Granted,
    /// The slot is gone.
    Revoked,
    /// The session ended.
    Closed(CloseReason),
}

/// What happens to a request.
#[derive(Debug)]
pub enum RequestNews {
    /// Bytes arrived.
    Progress(u64),
    /// Piece values of a segment: they fit, and are in the holding.
    Segment(u64),
    /// A piece: verified and written.
    Piece {
        /// Which.
        piece: u64,
        /// True if nothing more follows.
        last: bool,
    },
    /// It ended early.
    Failed,
    /// The source sent something wrong.
    Corrupt(Corruption),
    /// The disk failed.
    Disk(std::io::Error),
}

/// What was wrong.
#[derive(Debug)]
pub enum Corruption {
    /// Values or lengths that do not fit.
    Answer,
    /// A piece, with the bytes that came for it.
    Piece {
        /// Which.
        piece: u64,
        /// What came.
        data: Vec<u8>,
    },
}

/// What the source of a session is told.
#[derive(Debug)]
pub struct Telling {
    /// The homes through which others may be introduced to this node.
    pub homes: Vec<PeerId>,
    /// Whether something is wanted of it.
    pub appetite: watch::Receiver<bool>,
}

/// Runs one session from the attempt to connect until it ends. It ends early when dropped.
pub async fn session(
    pool: Arc<Pool>,
    content: ContentId,
    (peer, homes): (PeerId, Vec<PeerId>),
    session: u64,
    telling: Telling,
    events: mpsc::Sender<Event>,
) {
    let listener = Listener { session, peer, events };
    let reason = match pool.connect(peer, homes).await {
        Ok(lease) => converse(&lease, content, telling, &listener).await,
        Err(error) => {
            tracing::debug!(?peer, %error, "a source cannot be reached");
            CloseReason::Lost
        }
    };
    listener.tell(SessionNews::Closed(reason)).await;
}

/// Where the news of a session go.
struct Listener {
    session: u64,
    peer: PeerId,
    events: mpsc::Sender<Event>,
}

impl Listener {
    /// False if nobody listens any more.
    async fn tell(&self, news: SessionNews) -> bool {
        let event = Event::Session { session: self.session, peer: self.peer, news };
        self.events.send(event).await.is_ok()
    }
}

async fn converse(lease: &Arc<Lease>, content: ContentId, mut telling: Telling, listener: &Listener) -> CloseReason {
    let Ok((mut sender, mut receiver)) = lease.connection().open::<TransferMessage>().await else {
        return CloseReason::Lost;
    };
    let homes = List::new(telling.homes.iter().copied());
    if sender.send(&Open { content, homes }.into()).await.is_err() {
        return CloseReason::Lost;
    }
    match timeout(ANSWER_TIMEOUT, receiver.next()).await {
        Ok(Ok(Some(TransferMessage::Opened(opened)))) => {
            let news = match judge(content, &opened) {
                Ok(()) => {
                    let Opened { size, complete, tops } = opened;
                    SessionNews::Opened { lease: Arc::clone(lease), size, complete, tops: tops.into_vec() }
                }
                Err(error) => {
                    tracing::warn!(peer = ?lease.connection().peer(), %error, "a source's claims are false");
                    SessionNews::Lied
                }
            };
            if !listener.tell(news).await {
                return CloseReason::Lost;
            }
        }
        Ok(Ok(Some(TransferMessage::NotHeld(refusal)))) => return reason_of(refusal.reason),
        _ => return CloseReason::Lost,
    }
    loop {
        let message = tokio::select! {
            message = receiver.next() => message,
            Ok(()) = telling.appetite.changed() => {
                let wants = *telling.appetite.borrow_and_update();
                match sender.send(&Appetite { wants }.into()).await {
                    Ok(()) => continue,
                    Err(_) => return CloseReason::Lost,
                }
            }
        };
        let news = match message {
            Ok(Some(TransferMessage::Have(have))) => SessionNews::Have { first: have.first, bits: have.bits.to_vec() },
            Ok(Some(TransferMessage::Others(told))) => {
                let found = |other: overlay::wire::transfer::Other| FoundSource {
                    peer: other.peer,
                    homes: other.homes.to_vec(),
                };
                SessionNews::Others(told.others.into_iter().map(found).collect())
            }
            Ok(Some(TransferMessage::Suggest(run))) => {
                SessionNews::Suggested(Run { first: run.first, count: run.count })
            }
            Ok(Some(TransferMessage::Queued(queued))) => SessionNews::Queued(queued.position),
            Ok(Some(TransferMessage::Granted(_))) => SessionNews::Granted,
            Ok(Some(TransferMessage::Revoked(_))) => SessionNews::Revoked,
            Ok(Some(TransferMessage::NotHeld(refusal))) => return reason_of(refusal.reason),
            Ok(Some(_)) => {
                lease.connection().reject();
                return CloseReason::Lost;
            }
            Ok(None) | Err(_) => return CloseReason::Lost,
        };
        if !listener.tell(news).await {
            return CloseReason::Lost;
        }
    }
}

/// A size is possible and its segment values give the content id.
fn judge(content: ContentId, opened: &Opened) -> Result<(), verify::VerifyError> {
    Layout::new(opened.size)?;
    verify::check_tops(content, opened.size, &opened.tops)
}

fn reason_of(reason: DenyReason) -> CloseReason {
    match reason {
        DenyReason::Busy | DenyReason::NotGranted | DenyReason::Quota => CloseReason::Busy,
        _ => CloseReason::NotHeld,
    }
}

/// Buffers of pieces that were written, for those to come. Fresh memory for each would cost a page fault for every
/// 4 KiB: measured, a tenth of the processor time of a download.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// An empty buffer with room for `bytes`.
    fn take(&self, bytes: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.reserve(bytes);
        buffer
    }

    /// Takes a buffer back. Those that nobody will need are freed.
    fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BUFFERS {
            spare.push(buffer);
        }
    }
}

/// What a request needs.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// The connection.
    pub lease: Arc<Lease>,
    /// Where values and pieces go.
    pub holding: Arc<Holding>,
    /// The download limit.
    pub throttle: Arc<Throttle>,
    /// Where pieces come to lie until they are written.
    pub buffers: Arc<Buffers>,
    /// Who listens.
    pub events: mpsc::Sender<Event>,
}

impl Request {
    /// Fetches the piece values of a segment. Ends early when dropped.
    pub async fn segment(self, segment: u64) {
        let want = WantSegment { content: self.holding.content(), segment };
        let news = match ask(self.lease.connection(), want).await {
            Ok(Some(TransferMessage::Segment(values))) => {
                match self.holding.add_segment(segment, values.pieces.into_vec()) {
                    Ok(()) => RequestNews::Segment(segment),
                    Err(_) => RequestNews::Corrupt(Corruption::Answer),
                }
            }
            other => self.denial(other),
        };
        self.tell(news).await;
    }

    /// Fetches, verifies and writes a run of pieces. Ends early when dropped.
    pub async fn pieces(self, run: Run) {
        let mut unreported = Unreported { bytes: 0, since: Instant::now() };
        if let Err(news) = self.receive(run, &mut unreported).await {
            self.report(&mut unreported).await;
            self.tell(news).await;
        }
    }

    /// Has the source name those groups of a piece that came wrong from `accused`, and fetches these alone.
    pub async fn repair(self, piece: u64, data: Vec<u8>, accused: PeerId) {
        let news = match self.mend(piece, data, accused).await {
            Ok(()) => RequestNews::Piece { piece, last: true },
            Err(news) => news,
        };
        self.tell(news).await;
    }

    async fn mend(&self, piece: u64, mut data: Vec<u8>, accused: PeerId) -> Result<(), RequestNews> {
        let wrong = || RequestNews::Corrupt(Corruption::Answer);
        let (content, layout) = (self.holding.content(), self.holding.layout());
        let answer = ask(self.lease.connection(), WantGroups { content, piece }).await;
        let Ok(Some(TransferMessage::Groups(Groups { groups }))) = answer else { return Err(self.denial(answer)) };
        let value = self.holding.value(piece).ok_or(RequestNews::Failed)?;
        let size = layout.size();
        verify::check_groups(size, piece, &value, &groups).map_err(|_| wrong())?;
        let bad = verify::bad_groups(size, piece, &groups, &data).map_err(|_| RequestNews::Failed)?;
        tracing::warn!(peer = ?accused, content = %content.short(), piece, groups = ?bad, "a source sent these groups of 16 KiB wrong");
        let start = layout.piece_range(piece).map_err(|_| RequestNews::Failed)?.start;
        for run in bad.chunk_by(|one, next| *next == *one + 1) {
            let (Some(first), count) = (run.first().copied(), run.len() as u32) else { continue };
            let bounds = (layout.group_range(piece, first), layout.group_range(piece, first + count - 1));
            let (Ok(from), Ok(to)) = bounds else { return Err(RequestNews::Failed) };
            let length = (to.end - from.start) as usize;
            let want = WantPart { content, piece, first, count };
            let (mut receiver, answer) = begin(self.lease.connection(), want).await.map_err(|_| RequestNews::Failed)?;
            let Some(TransferMessage::Pieces(head)) = answer else { return Err(self.denial(Ok(answer))) };
            if (head.first, head.count, head.bytes) != (piece, 1, length as u64) {
                return Err(wrong());
            }
            let mut part = Vec::with_capacity(length);
            while part.len() < length {
                let most = self.throttle.release(length - part.len()).await;
                let target = part.len() + most;
                receiver.receive_raw(&mut part, target).await.map_err(|_| RequestNews::Failed)?;
                self.tell(RequestNews::Progress(most as u64)).await;
            }
            let place = (from.start - start) as usize;
            data[place..place + length].copy_from_slice(&part);
        }
        let holding = Arc::clone(&self.holding);
        match spawn_blocking(move || holding.write_verified(piece, &data)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(wrong()),
            Ok(Err(error)) => Err(RequestNews::Disk(error)),
            // A panic there is a defect here; the piece is asked for again.
            Err(_) => Err(RequestNews::Failed),
        }
    }

    async fn receive(&self, run: Run, unreported: &mut Unreported) -> Result<(), RequestNews> {
        let layout = self.holding.layout();
        let last = run.first + u64::from(run.count) - 1;
        let bounds = (layout.piece_range(run.first), layout.piece_range(last));
        let (Ok(first), Ok(last)) = bounds else { return Err(RequestNews::Failed) };
        let want = Want { content: self.holding.content(), first: run.first, count: run.count };
        let (mut receiver, answer) = begin(self.lease.connection(), want).await.map_err(|_| RequestNews::Failed)?;
        let Some(TransferMessage::Pieces(head)) = answer else { return Err(self.denial(Ok(answer))) };
        if (head.first, head.count, head.bytes) != (run.first, run.count, last.end - first.start) {
            return Err(RequestNews::Corrupt(Corruption::Answer));
        }
        // The piece before is verified and written while the next one is received.
        let mut writing = None;
        for piece in run.first..run.first + u64::from(run.count) {
            let bytes = self.receive_piece(&mut receiver, piece, unreported).await?;
            self.written(writing.take(), false).await?;
            let (holding, buffers) = (Arc::clone(&self.holding), Arc::clone(&self.buffers));
            writing = Some(spawn_blocking(move || match holding.write_verified(piece, &bytes) {
                Ok(true) => {
                    buffers.give(bytes);
                    Ok(piece)
                }
                Ok(false) => Err(RequestNews::Corrupt(Corruption::Piece { piece, data: bytes })),
                Err(error) => Err(RequestNews::Disk(error)),
            }));
        }
        self.report(unreported).await;
        self.written(writing, true).await?;
        if let Err(error) = receiver.end().await {
            tracing::debug!(peer = ?self.lease.connection().peer(), %error, "a source does not end with what was asked for");
        }
        Ok(())
    }

    async fn receive_piece(
        &self,
        receiver: &mut Receiver<TransferMessage>,
        piece: u64,
        unreported: &mut Unreported,
    ) -> Result<Vec<u8>, RequestNews> {
        let range = self.holding.layout().piece_range(piece).map_err(|_| RequestNews::Failed)?;
        let length = (range.end - range.start) as usize;
        let mut data = self.buffers.take(length);
        while data.len() < length {
            let most = self.throttle.release(length - data.len()).await;
            let target = data.len() + most;
            receiver.receive_raw(&mut data, target).await.map_err(|_| RequestNews::Failed)?;
            unreported.bytes += most as u64;
            if unreported.bytes >= PROGRESS_BYTES || unreported.since.elapsed() >= PROGRESS_INTERVAL {
                self.report(unreported).await;
            }
        }
        Ok(data)
    }

    async fn report(&self, unreported: &mut Unreported) {
        if unreported.bytes > 0 {
            self.tell(RequestNews::Progress(unreported.bytes)).await;
        }
        *unreported = Unreported { bytes: 0, since: Instant::now() };
    }

    async fn written(
        &self,
        writing: Option<tokio::task::JoinHandle<Result<u64, RequestNews>>>,
        last: bool,
    ) -> Result<(), RequestNews> {
        let Some(writing) = writing else { return Ok(()) };
        // A panic there is a defect here; the piece is asked for again.
        let piece = writing.await.unwrap_or(Err(RequestNews::Failed))?;
        self.tell(RequestNews::Piece { piece, last }).await;
        Ok(())
    }

    /// An answer that is not the one that was asked for.
    fn denial(&self, answer: Result<Option<TransferMessage>, ReceiveError>) -> RequestNews {
        let answer = answer.map(|answer| answer.map(|message| message.name()));
        tracing::debug!(peer = ?self.lease.connection().peer(), ?answer, "a request was not answered");
        RequestNews::Failed
    }

    async fn tell(&self, news: RequestNews) {
        // Without a listener the download has ended.
        let _ = self.events.send(Event::Request { id: self.id, news }).await;
    }
}

/// What an uploader says when it is asked for small files.
#[derive(Debug)]
pub enum Answer {
    /// The next of them; `None` for what it does not send.
    Files(Vec<Option<Vec<u8>>>),
    /// Its place in the queue.
    Queued(u32),
    /// Nothing more.
    End,
}

/// The answers to a request for small files.
#[derive(Debug)]
pub struct Answers(Receiver<TransferMessage>);

impl Answers {
    /// The next one. Cancelling loses nothing.
    pub async fn next(&mut self) -> Answer {
        match self.0.next().await {
            Ok(Some(TransferMessage::Files(files))) => {
                Answer::Files(files.files.into_iter().map(|file| file.map(Blob::into_vec)).collect())
            }
            Ok(Some(TransferMessage::Queued(queued))) => Answer::Queued(queued.position),
            Ok(Some(TransferMessage::NotHeld(_) | TransferMessage::Denied(_)) | None) | Err(_) => Answer::End,
            Ok(Some(_)) => {
                self.0.connection().reject();
                Answer::End
            }
        }
    }
}

/// Asks for small files, which are not verified yet when they come; `None` if the connection is gone.
pub async fn files(connection: &Connection, contents: impl Iterator<Item = ContentId>) -> Option<Answers> {
    let work = async {
        let (mut sender, receiver) = connection.open::<TransferMessage>().await.ok()?;
        sender.send(&WantFiles { contents: List::new(contents) }.into()).await.ok()?;
        sender.finish().ok()?;
        Some(Answers(receiver))
    };
    timeout(ANSWER_TIMEOUT, work).await.ok().flatten()
}

/// Bytes that arrived and were not told yet, and since when.
struct Unreported {
    bytes: u64,
    since: Instant,
}

/// Tells a source that it sent something wrong, which may be its disk's fault.
pub async fn accuse(lease: Arc<Lease>, content: ContentId, piece: u64) {
    if let Err(error) = ask(lease.connection(), Spoiled { content, piece }).await {
        tracing::debug!(peer = ?lease.connection().peer(), %error, "a source does not hear that it sent something wrong");
    }
}

/// Sends a request on a stream of its own, and returns the stream with the first answer.
async fn begin(
    connection: &Connection,
    request: impl Into<TransferMessage>,
) -> Result<(Receiver<TransferMessage>, Option<TransferMessage>), ReceiveError> {
    let work = async {
        let (mut sender, mut receiver) = connection.open::<TransferMessage>().await?;
        let sent = async {
            sender.send(&request.into()).await?;
            sender.finish()
        };
        sent.await.map_err(|_| ReceiveError::Reset)?;
        let answer = receiver.next().await?;
        Ok((receiver, answer))
    };
    timeout(ANSWER_TIMEOUT, work).await.unwrap_or(Err(ReceiveError::Stalled))
}

/// Sends a request that has one answer.
pub async fn ask(
    connection: &Connection,
    request: impl Into<TransferMessage>,
) -> Result<Option<TransferMessage>, ReceiveError> {
    Ok(begin(connection, request).await?.1)
}
