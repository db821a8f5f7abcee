//! The bytes of pieces and of parts of them, and what becomes of those that a downloader found to be wrong.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use overlay::{
    limits,
    metrics::Direction,
    transport::Sender,
    wire::transfer::{DenyReason, Pieces, Spoiled, TransferMessage, Want, WantPart},
};
use tokio::task::spawn_blocking;

use super::{
    Client, Place, Session, Shared, StreamError, Turn,
    answers::{deny, find, judge, judge_part, read},
    lock,
};
use crate::{metrics::TRANSFER_BYTES, queue, swarm::Run, transfer::holding::Holding};

impl Shared {
    /// Some pieces.
    pub(super) async fn pieces(
        &self,
        client: &Client,
        want: Want,
        sender: &mut Sender<TransferMessage>,
    ) -> Result<(), StreamError> {
        let bytes = find(client, &want.content).and_then(|session| Ok((judge(&session.holding, want)?, session)));
        let (range, session) = match bytes {
            Ok(found) => found,
            Err(reason) => return deny(sender, reason).await,
        };
        let head = Pieces { first: want.first, count: want.count, bytes: range.end - range.start };
        let mut promise = session.turn.may_ask(self.clock.now()).then(|| {
            let promise = Promise::new(&session.holding, Run { first: want.first, count: want.count });
            // More is suggested now, and not these.
            session.asked.send_modify(|pieces| *pieces += u64::from(want.count));
            promise
        });
        if self.bytes(client, &session, head, range, sender).await? {
            if let Some(promise) = &mut promise {
                promise.is_kept = true;
            }
            // It has something of the content now: others may fetch that from it.
            self.holdings.heard(self.clock.now(), want.content, session.turn.peer, &session.homes);
        }
        Ok(())
    }

    /// Some groups of a piece.
    pub(super) async fn part(
        &self,
        client: &Client,
        want: WantPart,
        sender: &mut Sender<TransferMessage>,
    ) -> Result<(), StreamError> {
        let bytes = find(client, &want.content).and_then(|session| Ok((judge_part(&session.holding, want)?, session)));
        let (range, session) = match bytes {
            Ok(found) => found,
            Err(reason) => return deny(sender, reason).await,
        };
        let head = Pieces { first: want.piece, count: 1, bytes: range.end - range.start };
        self.bytes(client, &session, head, range, sender).await?;
        Ok(())
    }

    /// A downloader found a piece from here to be wrong: perhaps the disk gives other bytes than it did. One that was sent
    /// nothing does not know, and what was sent is worth one look.
    pub(super) async fn spoiled(&self, client: &Client, Spoiled { content, piece }: Spoiled) {
        if !lock(&client.served).remove(&content) {
            return;
        }
        let Ok(_permit) = client.runs.acquire().await else { return };
        let Ok(holding) = self.holding(content).await else { return };
        if !holding.is_whole() || !holding.is_unchanged() {
            return;
        }
        let checked = Arc::clone(&holding);
        if !matches!(spawn_blocking(move || checked.verify(piece)).await, Ok(Ok(false))) || !holding.has(piece) {
            return;
        }
        tracing::warn!(content = %content.short(), name = holding.name(), "a file is damaged and is hashed again");
        holding.set_damaged();
        self.holdings.remove(&content);
        if let Err(error) = self.library.damaged(content).await {
            tracing::warn!(%error, content = %content.short(), "a damaged file cannot be hashed again");
        }
    }

    /// Sends a head and the bytes of a range, if the session may ask. False if it was denied.
    async fn bytes(
        &self,
        client: &Client,
        session: &Session,
        head: Pieces,
        Range { start, end }: Range<u64>,
        sender: &mut Sender<TransferMessage>,
    ) -> Result<bool, StreamError> {
        let holding = &session.holding;
        if !session.turn.may_ask(self.clock.now()) {
            deny(sender, DenyReason::NotGranted).await?;
            return Ok(false);
        }
        let _permit = client.runs.acquire().await.map_err(|_| StreamError::Ending)?;
        let is_refused = matches!(*session.turn.place.borrow(), Place::Refused(_));
        if is_refused || !holding.is_unchanged() {
            if !is_refused {
                self.holdings.remove(&holding.content());
            }
            deny(sender, if is_refused { DenyReason::Quota } else { DenyReason::Changed }).await?;
            return Ok(false);
        }
        {
            let mut served = lock(&client.served);
            if served.len() < limits::UPLOAD_QUEUE_PER_PEER {
                served.insert(holding.content());
            }
        }
        // Announcements and lists of other sessions go before bulk, and bulk in the order in which it was asked for: what is
        // whole sooner is passed on sooner.
        sender.set_priority(client.next_priority.fetch_sub(1, Ordering::Relaxed));
        sender.send(&head.into()).await?;
        let mut next = Some(read(holding, start, end));
        let mut position = start;
        while let Some(reading) = next.take() {
            let data = match reading.await {
                Ok(Ok(data)) => Bytes::from(data),
                _ => {
                    sender.reset();
                    return Err(StreamError::Read);
                }
            };
            position += data.len() as u64;
            if position < end {
                next = Some(read(holding, position, end));
            }
            self.send_bytes(&session.turn, data, sender).await?;
        }
        Ok(true)
    }

    async fn send_bytes(
        &self,
        turn: &Turn,
        mut data: Bytes,
        sender: &mut Sender<TransferMessage>,
    ) -> Result<(), StreamError> {
        while !data.is_empty() {
            let part = data.split_to(self.throttle.release(data.len()).await);
            let bytes = part.len() as u64;
            sender.send_raw(part).await?;
            turn.sent.fetch_add(bytes, Ordering::Relaxed);
            self.count(turn, bytes);
        }
        Ok(())
    }

    /// Counts bytes that were sent.
    pub(super) fn count(&self, turn: &Turn, bytes: u64) {
        turn.served.store(true, Ordering::Relaxed);
        TRANSFER_BYTES.add((Direction::Out, turn.via.into()), bytes);
        lock(&turn.rate).add(self.clock.now(), bytes);
        // A full inbox only delays the end of the turn.
        let _ = self.queue.try_input(queue::Input::Sent { session: turn.id, bytes });
    }
}

/// Pieces that are being sent, so that others are suggested to the next. If they are not after all, because the downloader goes
/// or wants them no more, they are suggested again: a piece that nobody else has must not wait until everything was sent once.
struct Promise<'a> {
    holding: &'a Holding,
    run: Run,
    is_kept: bool,
}

impl<'a> Promise<'a> {
    fn new(holding: &'a Holding, run: Run) -> Self {
        holding.sent(run);
        Self { holding, run, is_kept: false }
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.holding.unsent(self.run);
        }
    }
}
