//! The tasks of one leaf's connection: control stream in both directions, and one task for each search or
//! introduction.

use std::sync::Arc;

use overlay::{
    drive::Tasks,
    transport::{CloseCode, Connection, Link, Offer, ReceiveError, Receiver, Sender},
    wire::leaf::LeafMessage,
};
use tokio::{sync::mpsc, time::timeout};

use super::Shared;
use crate::{leaves::Session, metrics as counted, ultrapeer::Input};

/// Welcomes a leaf or names others to it, and serves it until it leaves.
pub(super) async fn serve(shared: Arc<Shared>, offer: Offer<LeafMessage>) {
    let (peer, handle, observed) = (offer.peer(), offer.hello().handle, offer.hello().observed);
    let look =
        move |machine: &crate::ultrapeer::Ultrapeer| (machine.takes_leaf(&peer), machine.membership().own().cloned());
    let (takes, descriptor) = shared.machine.inspect(look).await.unwrap_or((false, None));
    if !takes {
        let (reason, alternatives) = shared.refusal(true).await;
        counted::leaf_refused(reason);
        return offer.refuse(reason, alternatives);
    }
    shared.observed(observed).await;
    let Ok(Link { connection, sender, receiver }) = offer.welcome(descriptor).await else { return };
    counted::leaf_accepted();
    let session = shared.number();
    let queue = shared.ports.open_leaf(session, connection.clone());
    let address = connection.remote_address();
    let began = shared.clock.now();
    let tasks = shared.tasks.child();
    let on_panic = connection.clone();
    tasks.spawn_guarded("leaf writer", write(queue, sender, connection.clone()), move || {
        on_panic.close(CloseCode::Failure);
    });
    let on_panic = connection.clone();
    tasks.spawn_guarded(
        "leaf requests",
        requests(shared.clone(), tasks.clone(), session, connection.clone()),
        move || {
            on_panic.close(CloseCode::Failure);
        },
    );
    if shared.machine.input(Input::LeafAttached { session, peer, handle, address }).await.is_ok() {
        read(&shared, session, receiver, &connection).await;
    }
    tasks.cancel();
    connection.close(CloseCode::Done);
    shared.ports.forget_leaf(session);
    // A machine that stopped has no leaves.
    let _ = shared.machine.input(Input::LeafGone(session)).await;
    counted::leaf_session(shared.clock.now().since(began));
}

async fn read(shared: &Shared, session: Session, mut receiver: Receiver<LeafMessage>, connection: &Connection) {
    loop {
        match receiver.next().await {
            Ok(Some(message)) => {
                if shared.machine.input(Input::LeafMessage(session, message)).await.is_err() {
                    return;
                }
            }
            Ok(None) | Err(ReceiveError::Closed(_)) => return,
            Err(error) => {
                tracing::debug!(peer = ?connection.peer(), %error, "a leaf's control stream failed");
                return connection.close(CloseCode::Violation);
            }
        }
    }
}

async fn write(mut queue: mpsc::Receiver<LeafMessage>, mut sender: Sender<LeafMessage>, connection: Connection) {
    while let Some(message) = queue.recv().await {
        if let Err(error) = sender.send(&message).await {
            tracing::debug!(peer = ?connection.peer(), %error, "a leaf takes no messages");
            return connection.close(CloseCode::Overload);
        }
    }
}

async fn requests(shared: Arc<Shared>, tasks: Tasks, session: Session, connection: Connection) {
    while let Ok((sender, receiver)) = connection.accept::<LeafMessage>().await {
        tasks.spawn("leaf request", request(shared.clone(), session, sender, receiver));
    }
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
