//! Meeting another leaf at a relay: both come to it as guests, and it joins their streams.
//!
//! The connection to the relay is one of its own, also where the relay is a home: what is throttled there must not hold
//! back what this leaf says to its home.

use std::net::SocketAddr;

use overlay::{
    id::PeerId,
    limits,
    transport::{Connection, DialError, Greeting, Offer, Receiver, Sender, Windows},
    wire::{
        hello::Situation,
        leaf::{LeafMessage, RelayOpen, RelayReady},
        transfer::TransferMessage,
    },
};
use tokio::time::timeout;

use super::{
    driver::Shared,
    home_link::HomePort,
    reach::{Meeting, why},
};
use crate::transfer::ReachError;

/// Why two do not meet at a relay.
#[derive(Debug, thiserror::Error)]
pub(super) enum RelayError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the relay declined: {0}")]
    Refused(&'static str),
    #[error("the relay did not answer")]
    Silent,
    #[error("the other one did not answer: {0}")]
    Other(String),
}

/// Reaches a leaf over one of its homes that would relay.
pub(super) async fn reach(shared: &Shared, peer: PeerId, meeting: &Meeting) -> Result<Connection, ReachError> {
    let mut last = ReachError::Unreachable("no home of the peer relays".to_owned());
    for descriptor in meeting.found.relays.iter() {
        // Its address is signed by itself.
        let Ok(descriptor) = descriptor.open() else { continue };
        let known = shared.homes().get(&descriptor.peer).map(HomePort::address);
        let relay = (descriptor.peer, known.unwrap_or(descriptor.address));
        match timeout(limits::RELAY_TIMEOUT, dial(shared, relay, peer, meeting.token)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(RelayError::Dial(error))) => last = why(error),
            Ok(Err(error)) => last = ReachError::Unreachable(error.to_string()),
            Err(_) => last = ReachError::Timeout,
        }
    }
    Err(last)
}

async fn dial(
    shared: &Shared,
    relay: (PeerId, SocketAddr),
    peer: PeerId,
    token: u64,
) -> Result<Connection, RelayError> {
    let (sender, receiver) = join(shared, relay, peer, token).await?;
    let greeting = Greeting { introduction: token, ..Greeting::default() };
    let dialled = shared.endpoint.dial_carried::<TransferMessage>(sender, receiver, peer, greeting).await?;
    Ok(dialled.link.connection)
}

/// Meets a leaf that waits at a relay.
pub(super) async fn accept(
    shared: &Shared,
    relay: (PeerId, SocketAddr),
    peer: PeerId,
    token: u64,
) -> Result<Offer<TransferMessage>, RelayError> {
    let (sender, receiver) = join(shared, relay, peer, token).await?;
    let accepted = shared.endpoint.accept_carried(sender, receiver, peer).await;
    accepted.map_err(|reason| RelayError::Other(reason.to_string()))
}

/// A stream of the relay, joined with that of the other leaf.
async fn join(
    shared: &Shared,
    relay: (PeerId, SocketAddr),
    peer: PeerId,
    token: u64,
) -> Result<(Sender<LeafMessage>, Receiver<LeafMessage>), RelayError> {
    let (relay, address) = relay;
    let greeting = Greeting { situation: Situation::Guest, ..Greeting::default() };
    let dialled = shared.endpoint.dial::<LeafMessage>(address, Some(relay), greeting).await?;
    let connection = dialled.link.connection;
    connection.set_windows(Windows::Active);
    let opened = async {
        let (mut sender, mut receiver) = connection.open::<LeafMessage>().await.ok()?;
        sender.send(&RelayOpen { token, peer }.into()).await.ok()?;
        match receiver.next().await {
            Ok(Some(LeafMessage::RelayReady(RelayReady { refused }))) => Some((refused, sender, receiver)),
            _ => None,
        }
    };
    match timeout(limits::RELAY_PATIENCE + limits::REQUEST_TIMEOUT, opened).await {
        Ok(Some((None, sender, receiver))) => Ok((sender, receiver)),
        Ok(Some((Some(why), ..))) => Err(RelayError::Refused(why.text())),
        _ => Err(RelayError::Silent),
    }
}
