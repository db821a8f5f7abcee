//! The tasks of a link to another ultrapeer: control, hits, queries and digests each have a stream of their own in
//! each direction, so that a long answer never holds back a probe.

use std::{net::SocketAddr, sync::Arc};

use overlay::{
    drive::Tasks,
    id::PeerId,
    limits,
    metrics::{BOOTSTRAP_ATTEMPTS, BootstrapResult, BootstrapSource},
    transport::{CloseCode, CloseReason, Connection, Link, Offer, ReceiveError, Receiver, Sender},
    wire::{descriptor::SignedDescriptor, mesh::MeshMessage},
};
use tokio::{sync::mpsc, time::Instant};

use super::{Shared, alternatives, greeting, ports::MeshPort};
use crate::ultrapeer::{Input, Phase};

/// Priorities of the streams: higher goes first.
const CONTROL: i32 = 10;
const HITS: i32 = 5;
const QUERIES: i32 = 0;
const DIGESTS: i32 = -5;

/// Another ultrapeer knocks, or a node that wants to become one.
pub(super) async fn serve(shared: Arc<Shared>, offer: Offer<MeshMessage>) {
    let look = |machine: &crate::ultrapeer::Ultrapeer| {
        let serves = matches!(machine.phase(), Phase::Admitted | Phase::Founder);
        (serves, machine.membership().own().cloned())
    };
    shared.observed(offer.hello().observed).await;
    let (serves, descriptor) = shared.machine.inspect(look).await.unwrap_or((false, None));
    if !serves {
        let (reason, alternatives) = shared.refusal(offer.peer(), false).await;
        return offer.refuse(reason, alternatives);
    }
    let Ok(link) = offer.welcome(descriptor).await else { return };
    run(shared, link, false, None).await;
}

/// Dials a member of the view.
pub(super) async fn dial(shared: Arc<Shared>, peer: PeerId, address: SocketAddr) {
    if shared.ports.is_linked(&peer) {
        return;
    }
    let dialled = shared.endpoint.dial::<MeshMessage>(address, Some(peer), greeting()).await;
    // Who serves has found the network.
    if !*shared.admitted.borrow() {
        let source = if shared.remembered.contains(&address) { BootstrapSource::Cache } else { BootstrapSource::Peer };
        let result = dialled.as_ref().map_or_else(BootstrapResult::from, |_| BootstrapResult::Ok);
        BOOTSTRAP_ATTEMPTS.increment((source, result));
    }
    match dialled {
        Ok(dialled) => {
            shared.observed(dialled.welcome.observed).await;
            run(shared, dialled.link, true, dialled.welcome.descriptor).await;
        }
        Err(error) => {
            tracing::debug!(?peer, %error, "an ultrapeer could not be dialled");
            // A machine that stopped dials nobody.
            let _ = shared.machine.input(Input::DialFailed(peer)).await;
            let _ = shared.machine.input(Input::Named(alternatives(error))).await;
        }
    }
}

/// Runs a link until it ends.
pub(super) async fn run(
    shared: Arc<Shared>,
    link: Link<MeshMessage>,
    dialled: bool,
    descriptor: Option<SignedDescriptor>,
) {
    let Link { connection, sender, receiver } = link;
    let (peer, address) = (connection.peer(), connection.remote_address());
    let tasks = shared.tasks.child();
    let (control, control_queue) = mpsc::channel(limits::MESH_QUEUE);
    let (hits, hits_queue) = mpsc::channel(limits::MESH_QUEUE);
    let (queries, queries_queue) = mpsc::channel(limits::MESH_QUEUE);
    let (digests, digests_queue) = mpsc::channel(limits::MESH_QUEUE);
    let link = shared.number();
    let since = Instant::now();
    let port = MeshPort { link, dialled, since, connection: connection.clone(), control, hits, queries, digests };
    if !shared.ports.open_mesh(&shared.endpoint.peer(), port) {
        return connection.close(CloseCode::Replaced);
    }
    let guard = |connection: &Connection| {
        let connection = connection.clone();
        move || connection.close(CloseCode::Failure)
    };
    tasks.spawn_guarded("mesh control", write(control_queue, sender, CONTROL), guard(&connection));
    tasks.spawn_guarded("mesh hits", write_class(hits_queue, connection.clone(), HITS), guard(&connection));
    tasks.spawn_guarded("mesh queries", write_class(queries_queue, connection.clone(), QUERIES), guard(&connection));
    tasks.spawn_guarded("mesh digests", write_class(digests_queue, connection.clone(), DIGESTS), guard(&connection));
    if shared.machine.input(Input::MeshUp { peer, address, descriptor }).await.is_ok() {
        let streams = streams(shared.clone(), tasks.clone(), connection.clone());
        tasks.spawn_guarded("mesh streams", streams, guard(&connection));
        read(&shared, receiver, &connection).await;
    }
    tasks.cancel();
    connection.close(CloseCode::Done);
    if shared.ports.forget_mesh(&peer, link) {
        let in_order = matches!(connection.close_reason(), Some(CloseReason::Remote(CloseCode::Shutdown)));
        // A machine that stopped has no links.
        let _ = shared.machine.input(Input::MeshDown { peer, in_order }).await;
    }
}

/// Takes the streams that the other side opens: one each for hits, queries and digests.
async fn streams(shared: Arc<Shared>, tasks: Tasks, connection: Connection) {
    while let Ok(receiver) = connection.accept_one_way::<MeshMessage>().await {
        let (shared, connection) = (shared.clone(), connection.clone());
        tasks.spawn("mesh stream", async move { read(&shared, receiver, &connection).await });
    }
}

async fn read(shared: &Shared, mut receiver: Receiver<MeshMessage>, connection: &Connection) {
    let (peer, mut ahead) = (connection.peer(), 0);
    loop {
        match receiver.next().await {
            Ok(Some(message)) => {
                ahead += usize::from(matches!(message, MeshMessage::Query(_)));
                if shared.machine.input(Input::MeshMessage(peer, message)).await.is_err() {
                    return;
                }
                // One that floods waits for its own queries, and others only for a few of them.
                if ahead == limits::QUERIES_AHEAD {
                    ahead = 0;
                    if shared.machine.inspect(|_| ()).await.is_err() {
                        return;
                    }
                }
            }
            Ok(None) | Err(ReceiveError::Closed(_)) => return,
            Err(error) => {
                tracing::debug!(?peer, %error, "an ultrapeer's stream failed");
                return connection.close(CloseCode::Violation);
            }
        }
    }
}

async fn write_class(queue: mpsc::Receiver<MeshMessage>, connection: Connection, priority: i32) {
    if let Ok(sender) = connection.open_one_way().await {
        write(queue, sender, priority).await;
    }
}

async fn write(mut queue: mpsc::Receiver<MeshMessage>, mut sender: Sender<MeshMessage>, priority: i32) {
    sender.set_priority(priority);
    while let Some(message) = queue.recv().await {
        if let Err(error) = sender.send(&message).await {
            tracing::debug!(%error, "an ultrapeer takes no messages");
            return sender.connection().close(CloseCode::Overload);
        }
    }
}
