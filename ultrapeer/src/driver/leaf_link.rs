//! The task of one leaf's connection, and one more for each search or introduction.
//!
//! A leaf costs what it keeps while it does nothing, so everything that lasts as long as its connection is in one
//! task: writing, reading and accepting streams take turns, and each can be left half done. What a leaf costs is
//! measured by `bench/`, `--bin leaves`.

use std::sync::Arc;

use overlay::{
    transport::{CloseCode, CloseReason, Connection, Link, Occupant, Offer, ReceiveError, Receiver, Sender},
    wire::{
        hello::{RefuseReason, Situation},
        leaf::LeafMessage,
    },
};
use tokio::{sync::mpsc, time::timeout};

use super::{Shared, ports::Queued, relay};
use crate::{
    leaves::Session,
    metrics as counted,
    ultrapeer::{Input, Ultrapeer, Verdict},
};

/// Welcomes a leaf or names others to it, and begins to serve it.
pub(super) async fn serve(shared: Arc<Shared>, offer: Offer<LeafMessage>) {
    if offer.hello().situation == Situation::Guest {
        return relay::receive(&shared, offer).await;
    }
    let (peer, salt, observed) = (offer.peer(), offer.hello().salt, offer.hello().observed);
    let insists = offer.hello().insists;
    let homeless = offer.hello().situation != Situation::Settled;
    let look =
        move |machine: &Ultrapeer| (machine.judge(&peer, insists, homeless), machine.membership().own().cloned());
    let (verdict, descriptor) = shared.machine.inspect(look).await.unwrap_or((Verdict::Full, None));
    if let Verdict::Elsewhere(alternatives) = verdict {
        counted::leaf_refused(RefuseReason::Busy);
        return offer.refuse(RefuseReason::Busy, alternatives);
    }
    if verdict == Verdict::Refused {
        counted::leaf_refused(RefuseReason::Banned);
        return offer.refuse(RefuseReason::Banned, Vec::new());
    }
    // The machine counts all of them.
    let place = shared.places.take(offer.address().ip());
    let crowded = place.is_none();
    let Some(place) = place.filter(|_| verdict == Verdict::Stays) else {
        let (reason, alternatives) = shared.refusal(peer, true).await;
        if crowded && verdict == Verdict::Stays {
            counted::leaf_limited();
        } else {
            counted::leaf_refused(reason);
        }
        return offer.refuse(reason, alternatives);
    };
    // The leaf side of this very node tells nothing of where others reach it.
    if peer != shared.endpoint.peer() {
        shared.observed(observed).await;
    }
    let Ok(Link { connection, sender, receiver }) = offer.welcome(descriptor).await else { return };
    counted::leaf_accepted();
    let session = shared.number();
    let queue = shared.ports.open_leaf(session, connection.clone());
    let attached = Input::LeafAttached { session, peer, salt, address: connection.remote_address() };
    // A machine that stopped has no leaves.
    let _ = shared.machine.input(attached).await;
    let (after_panic, began) = (shared.clone(), shared.clock.now());
    let mut conversation =
        Conversation { shared: shared.clone(), session, connection, queue, sender, receiver, _place: place };
    let attended = async move {
        let shared = conversation.shared.clone();
        conversation.run().await;
        drop(conversation);
        shared.ports.close_leaf(session, CloseCode::Done);
        // As above.
        let _ = shared.machine.input(Input::LeafGone(session)).await;
        counted::leaf_session(shared.clock.now().since(began));
    };
    shared.tasks.spawn_guarded("leaf", attended, move || {
        after_panic.ports.close_leaf(session, CloseCode::Failure);
        let shared = after_panic.clone();
        after_panic.tasks.spawn("leaf gone", async move {
            // As above.
            let _ = shared.machine.input(Input::LeafGone(session)).await;
        });
    });
}

/// The connection of an attached leaf.
struct Conversation {
    shared: Arc<Shared>,
    session: Session,
    connection: Connection,
    queue: mpsc::Receiver<Queued>,
    sender: Sender<LeafMessage>,
    receiver: Receiver<LeafMessage>,
    _place: Occupant,
}

impl Conversation {
    /// Until the leaf leaves, or is sent away.
    ///
    /// What is rare is boxed: otherwise every leaf's task keeps room for it.
    async fn run(&mut self) {
        let Self { shared, session, connection, queue, sender, receiver, _place } = self;
        loop {
            let writing = sender.is_pending();
            tokio::select! {
                flushed = async { Box::pin(sender.flush()).await }, if writing => {
                    if let Err(error) = flushed {
                        tracing::debug!(peer = ?connection.peer(), %error, "a leaf takes no messages");
                        return connection.close(CloseCode::Overload);
                    }
                }
                message = queue.recv(), if !writing => {
                    let Some(message) = message else { return };
                    if let Err(error) = sender.begin(&message) {
                        tracing::error!(%error, "a message to a leaf cannot be sent");
                        return connection.close(CloseCode::Failure);
                    }
                }
                message = receiver.next() => {
                    if !Box::pin(take(shared, *session, connection, message)).await {
                        return;
                    }
                }
                stream = connection.accept() => {
                    if !begin_request(shared, *session, stream) {
                        return;
                    }
                }
            }
        }
    }
}

/// Hands a leaf's message to the machine. False if the leaf says nothing more.
async fn take(
    shared: &Shared,
    session: Session,
    connection: &Connection,
    message: Result<Option<LeafMessage>, ReceiveError>,
) -> bool {
    match message {
        Ok(Some(message)) => {
            if matches!(message, LeafMessage::CatalogRoot(_)) {
                shared.ports.list_announced(session);
            }
            shared.machine.input(Input::LeafMessage(session, message)).await.is_ok()
        }
        Ok(None) | Err(ReceiveError::Closed(_)) => false,
        Err(error) => {
            tracing::debug!(peer = ?connection.peer(), %error, "a leaf's control stream failed");
            connection.close(CloseCode::Violation);
            false
        }
    }
}

/// Serves a stream that the leaf opened, in a task of its own. False if the connection has ended.
fn begin_request(
    shared: &Arc<Shared>,
    session: Session,
    stream: Result<(Sender<LeafMessage>, Receiver<LeafMessage>), CloseReason>,
) -> bool {
    let Ok((sender, receiver)) = stream else { return false };
    shared.tasks.spawn("leaf request", request(shared.clone(), session, sender, receiver));
    true
}

async fn request(
    shared: Arc<Shared>,
    session: Session,
    mut sender: Sender<LeafMessage>,
    mut receiver: Receiver<LeafMessage>,
) {
    let ticket = shared.number();
    let first = timeout(overlay::limits::REQUEST_TIMEOUT, receiver.next()).await;
    let input = match first {
        Ok(Ok(Some(LeafMessage::Search(search)))) => Input::Search(ticket, session, search),
        Ok(Ok(Some(LeafMessage::Introduce(ask)))) => Input::Introduce(ticket, session, ask),
        _ => return sender.reset(),
    };
    let mut queue = shared.ports.open_asker(ticket);
    if shared.machine.input(input).await.is_err() {
        return sender.reset();
    }
    loop {
        tokio::select! {
            biased;
            message = queue.recv() => match message {
                Some(message) => {
                    let last = matches!(message, LeafMessage::Summary(_) | LeafMessage::Introduced(_));
                    if sender.send(&message).await.is_err() {
                        return shared.cancel(ticket).await;
                    }
                    if last {
                        // Dropping the sender finishes the stream in order.
                        return;
                    }
                }
                // The machine refused it, or the asker did not take its answer.
                None => {
                    sender.reset();
                    return shared.cancel(ticket).await;
                }
            },
            // The asker says nothing more on this stream: anything else is its end.
            _ = receiver.next() => return shared.cancel(ticket).await,
        }
    }
}
