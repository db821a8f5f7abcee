//! Many small files for one request: a bundle. It waits for one slot as if it were one content, and is sent whole.
//!
//! Everything is read before anything is sent, in one go: a bundle has at most [`limits::RUN_BYTES`].

use std::sync::{Arc, atomic::Ordering};

use overlay::{
    limits,
    transport::Sender,
    wire::{
        bounded::Blob,
        transfer::{Denied, DenyReason, Files, NotHeld, Queued, TransferMessage, WantFiles},
    },
};

use super::{Client, Place, Shared, Shown, StreamError, Turn, lock};
use crate::{
    metrics::UPLOAD_QUEUE,
    queue::{self, Refusal},
    transfer::SmallFile,
};

/// Bytes that a file takes of a message besides its own: whether it is there, and its length.
const FILE_OVERHEAD: usize = 8;
/// Bytes of a message that are no files.
const MESSAGE_OVERHEAD: usize = 16;

impl Shared {
    /// The files of a bundle.
    pub(super) async fn files(
        self: &Arc<Self>,
        client: &Arc<Client>,
        want: WantFiles,
        sender: &mut Sender<TransferMessage>,
    ) -> Result<(), StreamError> {
        let Some(first) = want.contents.first().copied() else {
            return Ok(sender.send(&Denied { reason: DenyReason::Malformed }.into()).await?);
        };
        let _permit = client.bundles.acquire().await.map_err(|_| StreamError::Ending)?;
        let shown = Shown { content: first, name: String::new(), size: 0 };
        let entry = match self.enter(client, shown) {
            Ok(entry) => entry,
            Err(reason) => return Ok(sender.send(&NotHeld { reason }.into()).await?),
        };
        if let Err(why) = self.slot(client, &entry.turn, sender).await? {
            let reason = if why == Refusal::Quota { DenyReason::Quota } else { DenyReason::Busy };
            return Ok(sender.send(&NotHeld { reason }.into()).await?);
        }
        let bans = self.bans.borrow().clone();
        let contents: Vec<_> =
            want.contents.iter().map(|content| (!bans.blocks(content)).then_some(*content)).collect();
        let mut found = match self.library.small_files(contents.iter().copied().flatten().collect()).await {
            Ok(found) => found.into_iter(),
            Err(error) => {
                tracing::warn!(%error, "small files cannot be served");
                return Ok(sender.send(&NotHeld { reason: DenyReason::NotHeld }.into()).await?);
            }
        };
        // Announcements and lists of other sessions go before bulk.
        sender.set_priority(-1);
        let (mut message, mut bytes) = (Files::default(), MESSAGE_OVERHEAD);
        for content in contents {
            let file = content.and_then(|content| Some((content, found.next().flatten()?)));
            let length = file.as_ref().map_or(0, |(_, file)| file.data.len());
            if bytes + length + FILE_OVERHEAD > limits::FILES_BYTES {
                sender.send(&std::mem::take(&mut message).into()).await?;
                bytes = MESSAGE_OVERHEAD;
            }
            bytes += length + FILE_OVERHEAD;
            let data = match file {
                Some((content, SmallFile { name, data })) => {
                    *lock(&entry.turn.shown) = Shown { content, name, size: length as u64 };
                    entry.turn.sent.store(length as u64, Ordering::Relaxed);
                    let mut left = length;
                    while left > 0 {
                        left -= self.throttle.release(left).await;
                    }
                    self.count(&entry.turn, length as u64);
                    Blob::new(data)
                }
                None => None,
            };
            message.files.push(data);
        }
        Ok(sender.send(&message.into()).await?)
    }

    /// Waits for a slot, and tells the place in the queue meanwhile.
    async fn slot(
        &self,
        client: &Client,
        turn: &Turn,
        sender: &mut Sender<TransferMessage>,
    ) -> Result<Result<(), Refusal>, StreamError> {
        let asked_at = self.clock.now();
        let mut place = turn.place.subscribe();
        let join = queue::Input::Join { session: turn.id, peer: turn.peer, copies: 0 };
        self.queue.input(join).await.map_err(|_| StreamError::Ending)?;
        let mut told = 0;
        loop {
            let current = *place.borrow_and_update();
            match current {
                Place::Granted { .. } => {
                    UPLOAD_QUEUE.record_span((), self.clock.now().since(asked_at));
                    return Ok(Ok(()));
                }
                Place::Refused(why) => return Ok(Err(why)),
                Place::Waiting { position, .. } if position != told => {
                    told = position;
                    sender.send(&Queued { position }.into()).await?;
                }
                Place::Waiting { .. } => {}
            }
            tokio::select! {
                // The entry holds the other end.
                _ = place.changed() => {}
                reason = client.connection.closed() => return Err(overlay::transport::SendError::Closed(reason).into()),
            }
        }
    }
}
