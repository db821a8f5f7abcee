//! Framed streams: messages, and raw bytes that follow a message.
//!
//! Both ends keep what is unfinished in themselves, so every method here can be cancelled (in a `select!`)
//! and called again: no frame is torn, none is read twice. A peer that sends what is no message, or begins
//! a frame and does not finish it in [`limits::FRAME_TIMEOUT`], loses its connection.

use std::{fmt, marker::PhantomData, slice};

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, VarInt, WriteError};
use tokio::time::{Instant, error::Elapsed, timeout_at};

use super::{
    connection::{CloseCode, CloseReason, Connection},
    stats::Event,
};
use crate::{
    limits, metrics,
    wire::{
        Conversation, DecodeError, Opening,
        frame::{self, HEADER_BYTES, Header},
    },
};

/// Bytes that a stream may read ahead of the frame that it is asked for.
const READ_AHEAD: usize = 16 << 10;
/// Bytes of buffer that a stream keeps while nothing is under way.
const IDLE_BUFFER: usize = 1 << 10;
/// What raw bytes are in the metrics: pieces of contents.
const RAW: metrics::ByteClass = metrics::ByteClass::Transfer;
/// The code of streams that end out of order. No meaning is attached to it.
const ABANDONED: VarInt = VarInt::from_u32(0);

/// Why a message was not sent. Part of it may have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The receiver wants no more of this stream.
    #[error("the receiver stopped the stream")]
    Stopped,
    /// The receiver takes nothing for [`limits::FRAME_TIMEOUT`]. Its connection was closed.
    #[error("the receiver takes nothing")]
    Stalled,
    /// The message is over its cap: a defect at this side. Nothing was sent.
    #[error(transparent)]
    Oversized(DecodeError),
    /// The stream was finished or reset here.
    #[error("the stream was finished before")]
    Finished,
    /// The connection ended.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}

/// Why nothing more comes from a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The sender abandoned the stream.
    #[error("the sender abandoned the stream")]
    Reset,
    /// The stream ended inside of a frame, or before the raw bytes that were announced.
    #[error("the stream ended early")]
    Truncated,
    /// A frame was begun and not finished in time, or announced raw bytes did not come. The connection was
    /// closed.
    #[error("the sender stalled")]
    Stalled,
    /// The bytes are no message. The connection was closed.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The message may not stand here. The connection was closed.
    #[error("unexpected message")]
    Unexpected,
    /// The connection ended.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}

/// The sending side of a framed stream. Dropping it finishes the stream, or abandons it inside of a frame.
pub struct Sender<M: Conversation> {
    stream: quinn::SendStream,
    connection: Connection,
    /// The frame under way, and how much of it is sent.
    frame: Vec<u8>,
    sent: usize,
    /// Raw bytes under way, after the frame.
    raw: Bytes,
    /// When something of what is under way must have been taken.
    deadline: Option<Instant>,
    conversation: PhantomData<fn(M)>,
}

impl<M: Conversation> Sender<M> {
    /// Sends a message; waits while the receiver grants no space.
    ///
    /// If cancelled, the message was either not begun, or the rest of it goes out before whatever is sent
    /// next: a stream is never torn, but a caller that must know should not cancel.
    pub async fn send(&mut self, message: &M) -> Result<(), SendError> {
        self.flush().await?;
        self.begin(message)?;
        self.flush().await
    }

    /// Takes a message to be sent by [`Self::flush`], for whoever does other things meanwhile.
    /// [`Self::is_pending`] must be false.
    pub fn begin(&mut self, message: &M) -> Result<(), SendError> {
        debug_assert!(!self.is_pending(), "one frame at a time");
        frame::encode(message, &mut self.frame).map_err(SendError::Oversized)?;
        metrics::MESSAGES.count(message, self.frame.len(), metrics::Direction::Out);
        Ok(())
    }

    /// True while something is left to [`Self::flush`].
    pub fn is_pending(&self) -> bool {
        self.sent < self.frame.len() || !self.raw.is_empty()
    }

    /// Sends bytes without a frame: the receiver must expect them, from an earlier message. They are not
    /// copied. If cancelled, as [`Self::send`].
    pub async fn send_raw(&mut self, bytes: Bytes) -> Result<(), SendError> {
        self.flush().await?;
        self.raw = bytes;
        self.flush().await
    }

    /// Sends the rest of what a cancelled call left. Cancelling loses nothing.
    pub async fn flush(&mut self) -> Result<(), SendError> {
        while self.sent < self.frame.len() {
            let deadline = self.deadline();
            let write = timeout_at(deadline, self.stream.write(&self.frame[self.sent..])).await;
            self.sent += self.progress(write)?;
        }
        self.sent = 0;
        self.frame.clear();
        self.frame.shrink_to(IDLE_BUFFER);
        while !self.raw.is_empty() {
            let deadline = self.deadline();
            let before = self.raw.len();
            let write = timeout_at(deadline, self.stream.write_chunks(slice::from_mut(&mut self.raw))).await;
            self.progress(write)?;
            metrics::PROTOCOL_BYTES.add((RAW, metrics::Direction::Out), (before - self.raw.len()) as u64);
        }
        Ok(())
    }

    /// Ends the stream in order. The receiver sees its end after everything that was sent.
    pub fn finish(&mut self) -> Result<(), SendError> {
        self.stream.finish().map_err(|_| SendError::Finished)
    }

    /// Waits until the receiver has everything of a finished stream, or wants no more of it.
    pub async fn delivered(&mut self) -> Result<(), SendError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(SendError::Stopped),
            Err(error) => Err(self.error(error.into())),
        }
    }

    /// Abandons the stream: what is under way is lost.
    pub fn reset(&mut self) {
        // Finished or reset before: nothing is left to abandon.
        let _ = self.stream.reset(ABANDONED);
    }

    /// Streams of higher priority are sent first; 0 is the default.
    pub fn set_priority(&mut self, priority: i32) {
        // The stream ended: it has no order any more.
        let _ = self.stream.set_priority(priority);
    }

    /// The connection that it is a part of.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn new(stream: quinn::SendStream, connection: Connection) -> Self {
        let (frame, raw, deadline) = (Vec::new(), Bytes::new(), None);
        Self { stream, connection, frame, sent: 0, raw, deadline, conversation: PhantomData }
    }

    /// When the receiver counts as stalled; the same over cancelled calls.
    fn deadline(&mut self) -> Instant {
        *self.deadline.get_or_insert_with(|| Instant::now() + limits::FRAME_TIMEOUT)
    }

    fn progress<T>(&mut self, write: Result<Result<T, WriteError>, Elapsed>) -> Result<T, SendError> {
        self.deadline = None;
        match write {
            Ok(Ok(written)) => Ok(written),
            Ok(Err(error)) => Err(self.error(error)),
            Err(_) => {
                self.connection.close(CloseCode::Silent);
                Err(SendError::Stalled)
            }
        }
    }

    fn error(&self, error: WriteError) -> SendError {
        match error {
            WriteError::Stopped(_) => SendError::Stopped,
            WriteError::ConnectionLost(error) => SendError::Closed(self.connection.reason(error)),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => SendError::Finished,
        }
    }
}

impl<M: Conversation> Drop for Sender<M> {
    fn drop(&mut self) {
        if self.sent < self.frame.len() || !self.raw.is_empty() {
            self.reset();
        }
    }
}

impl<M: Conversation> fmt::Debug for Sender<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({:?})", self.connection)
    }
}

/// The receiving side of a framed stream. Dropping it tells the sender to stop.
pub struct Receiver<M: Conversation> {
    stream: quinn::RecvStream,
    connection: Connection,
    /// What came and was not taken yet: at most one frame and [`READ_AHEAD`].
    buffer: BytesMut,
    /// Bytes of an unknown frame that are still to be forgotten.
    skip: usize,
    /// When the frame under way must be whole.
    deadline: Option<Instant>,
    conversation: PhantomData<fn() -> M>,
}

impl<M: Conversation> Receiver<M> {
    /// The next message; `None` after the last. Messages of later releases are skipped. Cancelling loses
    /// nothing.
    pub async fn next(&mut self) -> Result<Option<M>, ReceiveError> {
        self.next_up_to(u16::MAX).await
    }

    /// The next message of those that begin a connection. Others are refused before they are read, so that
    /// a dialler that is not welcome yet cannot make us keep more than they may have.
    pub(super) async fn opening(&mut self) -> Result<Opening, ReceiveError> {
        let message = self.next_up_to(Opening::LAST_NUMBER).await?.ok_or(ReceiveError::Truncated)?;
        message.into_opening().ok_or(ReceiveError::Unexpected)
    }

    /// Appends raw bytes to `buffer` until it has `length`. What came before an error or a cancelled call
    /// is in `buffer`.
    pub async fn receive_raw(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<(), ReceiveError> {
        while buffer.len() < length {
            let bytes = self.raw_chunk(length - buffer.len()).await?;
            buffer.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// The next raw bytes, at least one and at most `most`, as they come and without a copy. Cancelling
    /// loses nothing.
    pub async fn raw_chunk(&mut self, most: usize) -> Result<Bytes, ReceiveError> {
        if !self.buffer.is_empty() {
            let bytes = self.buffer.split_to(most.min(self.buffer.len())).freeze();
            metrics::PROTOCOL_BYTES.add((RAW, metrics::Direction::In), bytes.len() as u64);
            return Ok(bytes);
        }
        self.deadline.get_or_insert_with(|| Instant::now() + limits::FRAME_TIMEOUT);
        let chunk = self.read(most).await?.ok_or(ReceiveError::Truncated)?;
        self.deadline = None;
        metrics::PROTOCOL_BYTES.add((RAW, metrics::Direction::In), chunk.len() as u64);
        Ok(chunk)
    }

    /// Waits for the end of a stream of which everything was received. A sender that sends more loses its connection.
    pub async fn end(&mut self) -> Result<(), ReceiveError> {
        self.deadline.get_or_insert_with(|| Instant::now() + limits::FRAME_TIMEOUT);
        if !self.buffer.is_empty() || self.read(1).await?.is_some() {
            return Err(self.violation(ReceiveError::Unexpected));
        }
        Ok(())
    }

    /// Tells the sender to stop. Nothing more is received.
    pub fn stop(&mut self) {
        // Ended before: there is nobody to tell.
        let _ = self.stream.stop(ABANDONED);
    }

    /// The connection that it is a part of.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn new(stream: quinn::RecvStream, connection: Connection) -> Self {
        let (buffer, skip, deadline) = (BytesMut::new(), 0, None);
        Self { stream, connection, buffer, skip, deadline, conversation: PhantomData }
    }

    async fn next_up_to(&mut self, last: u16) -> Result<Option<M>, ReceiveError> {
        loop {
            if let Some(message) = self.take(last).map_err(|error| self.violation(error))? {
                return Ok(Some(message));
            }
            let partial = self.skip > 0 || !self.buffer.is_empty();
            if partial {
                self.deadline.get_or_insert_with(|| Instant::now() + limits::FRAME_TIMEOUT);
            }
            match self.read(READ_AHEAD).await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if partial => return Err(ReceiveError::Truncated),
                None => return Ok(None),
            }
        }
    }

    /// Takes the next whole message off the buffer, if there is one.
    fn take(&mut self, last: u16) -> Result<Option<M>, ReceiveError> {
        loop {
            let forgotten = self.skip.min(self.buffer.len());
            self.buffer.advance(forgotten);
            self.skip -= forgotten;
            let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>().filter(|_| self.skip == 0) else {
                self.rest();
                return Ok(None);
            };
            match Header::parse::<M>(*header)? {
                Header::Known { number, .. } if number > last => return Err(ReceiveError::Unexpected),
                Header::Skip { .. } if last != u16::MAX => return Err(ReceiveError::Unexpected),
                Header::Known { length, .. } if self.buffer.len() < HEADER_BYTES + length => return Ok(None),
                Header::Known { number, length } => {
                    let frame = self.buffer.split_to(HEADER_BYTES + length);
                    self.deadline = None;
                    let message = M::decode(number, &frame[HEADER_BYTES..])?;
                    metrics::MESSAGES.count(&message, frame.len(), metrics::Direction::In);
                    return Ok(Some(message));
                }
                Header::Skip { length } => {
                    self.skip = HEADER_BYTES + length;
                }
            }
        }
    }

    /// Gives memory back when nothing is under way.
    fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            if self.skip == 0 {
                self.deadline = None;
            }
        }
    }

    async fn read(&mut self, most: usize) -> Result<Option<Bytes>, ReceiveError> {
        let read = self.stream.read_chunk(most, true);
        let read = match self.deadline {
            Some(deadline) => timeout_at(deadline, read).await,
            None => Ok(read.await),
        };
        match read {
            Ok(Ok(chunk)) => Ok(chunk.map(|chunk| chunk.bytes)),
            Ok(Err(ReadError::ConnectionLost(error))) => Err(ReceiveError::Closed(self.connection.reason(error))),
            Ok(Err(_)) => Err(ReceiveError::Reset),
            Err(_) => Err(self.violation(ReceiveError::Stalled)),
        }
    }

    fn violation(&self, error: ReceiveError) -> ReceiveError {
        let (event, code) = match error {
            ReceiveError::Stalled => (Event::StalledFrame, CloseCode::Silent),
            _ => (Event::MalformedFrame, CloseCode::Violation),
        };
        if event == Event::MalformedFrame {
            metrics::MESSAGE_ERRORS.increment(match error {
                ReceiveError::Malformed(DecodeError::Oversized { .. }) => metrics::MessageError::Oversize,
                ReceiveError::Unexpected => metrics::MessageError::Unexpected,
                _ => metrics::MessageError::Decode,
            });
        }
        self.connection.counters().event(event);
        self.connection.close(code);
        error
    }
}

impl<M: Conversation> fmt::Debug for Receiver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({:?})", self.connection)
    }
}
