//! Being reached by other leaves: agrees to introductions, helps to come through NATs, and takes those that come.
//!
//! What is done for whom is decided by [`crate::approach`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use overlay::{
    id::PeerId,
    introduction::{Way, may_try_local},
    limits,
    transport::{Attempt, CloseCode, Connection, Offer},
    wire::{
        bounded::List,
        hello::RefuseReason,
        leaf::{Introduction, IntroductionReply, RelayOffer},
        transfer::TransferMessage,
    },
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    driver::{Network, Shared, lock},
    home_link::HomePort,
    reach::dial_any,
    relayed,
};
use crate::{
    approach::Help,
    transfer::{ReachError, Via, serve::Uploads},
};

/// A leaf that was asked to dial this one. Dropping it ends the wait.
pub(super) struct Awaited {
    shared: Arc<Shared>,
    name: (PeerId, u64),
    arrives: oneshot::Receiver<Connection>,
}

impl Awaited {
    /// Its connection.
    pub(super) async fn arrived(&mut self, patience: Duration) -> Result<Connection, ReachError> {
        match timeout(patience, &mut self.arrives).await {
            Ok(Ok(connection)) => Ok(connection),
            _ => Err(ReachError::Timeout),
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        lock(&self.shared.pushes).remove(&self.name);
        // One that came too late is wanted by nobody.
        if let Ok(connection) = self.arrives.try_recv() {
            connection.close(CloseCode::Done);
        }
    }
}

/// From now on that leaf may dial this one, with that token.
pub(super) fn expect(shared: &Arc<Shared>, peer: PeerId, token: u64) -> Result<Awaited, ReachError> {
    let (arrived, arrives) = oneshot::channel();
    let mut pushes = lock(&shared.pushes);
    if pushes.len() >= limits::PUSHES_AWAITED {
        return Err(ReachError::Unreachable("too many leaves are being reached at once".to_owned()));
    }
    pushes.insert((peer, token), arrived);
    Ok(Awaited { shared: shared.clone(), name: (peer, token), arrives })
}

/// Another leaf wants to reach this one. False if the home that says so is gone.
pub(super) async fn introduced(shared: &Arc<Shared>, home: &HomePort, introduction: Introduction) -> bool {
    let Introduction { session, peer, token, .. } = introduction;
    let nature = *shared.nature.borrow();
    let help = if shared.endpoint.bans().bans_peer(&peer) {
        Help::Refuse
    } else {
        lock(&shared.approaches).introduced(shared.clock.now(), &introduction, nature)
    };
    let local = shared.endpoint.local_towards(home.address()).filter(|address| may_try_local(*address));
    let reply = IntroductionReply { session, accept: help != Help::Refuse, nature, local: List::new(local) };
    let heard = home.answer(reply.into()).await;
    match help {
        Help::Refuse | Help::Wait => {}
        Help::Dial(addresses) => {
            let dialler = shared.clone();
            shared.tasks.spawn("push", async move { push(&dialler, peer, token, addresses).await });
        }
        Help::Probe(addresses) => {
            // The other one hears of this in about that time, and dials then: neither NAT shall see a packet from
            // outside before one from inside.
            let (prober, pause) = (shared.clone(), home.connection.rtt().min(limits::PUNCH_TIMEOUT));
            shared.tasks.spawn("punch", async move {
                sleep(pause).await;
                probe(&prober, addresses).await;
            });
        }
    }
    heard
}

async fn push(shared: &Shared, peer: PeerId, token: u64, addresses: Vec<SocketAddr>) {
    let Some(uploads) = shared.uploads.get() else { return };
    match dial_any(shared, peer, token, addresses, Attempt::Named).await {
        Ok(connection) => match uploads.room(connection.remote_address().ip()) {
            Some(room) => uploads.serve(connection, Via::Push, room),
            None => connection.close(CloseCode::Overload),
        },
        Err(error) => tracing::debug!(?peer, %error, "a leaf that wants something could not be dialled"),
    }
}

/// Opens the NAT in front of this leaf towards these addresses.
pub(super) async fn probe(shared: &Shared, addresses: Vec<SocketAddr>) {
    if addresses.is_empty() {
        return;
    }
    let begun = Instant::now();
    for at in limits::PROBE_TIMES_MS {
        sleep_until(begun + Duration::from_millis(at)).await;
        for address in &addresses {
            shared.endpoint.probe(*address);
        }
    }
}

/// Another leaf waits at a relay.
pub(super) fn offered(shared: &Arc<Shared>, home: &HomePort, offer: RelayOffer) {
    let RelayOffer { token, peer } = offer;
    let agreed = lock(&shared.approaches).agreed(shared.clock.now(), &peer, token);
    if agreed.is_none() || shared.uploads.get().is_none() {
        return;
    }
    let (shared, relay) = (shared.clone(), (home.connection.peer(), home.address()));
    shared.tasks.clone().spawn("relayed", async move {
        match relayed::accept(&shared, relay, peer, token).await {
            Ok(offer) => shared.serve(offer, Via::Relay).await,
            Err(error) => tracing::debug!(?peer, %error, "a leaf could not be met at a relay"),
        }
    });
}

impl Network {
    /// Contents are served by `uploads` to whoever is introduced. To be called once.
    pub fn serve_by(&self, uploads: Uploads) {
        // A second one would serve the same.
        let _ = self.shared.uploads.set(uploads);
    }

    /// Another leaf has dialled this one: because it was asked to, or to ask for something.
    pub fn arrived(&self, offer: Offer<TransferMessage>) {
        let shared = self.shared.clone();
        let (peer, token) = (offer.peer(), offer.hello().introduction);
        let awaited = lock(&shared.pushes).remove(&(peer, token));
        if let Some(awaited) = awaited {
            self.shared.tasks.spawn("pushed", async move {
                if let Ok(link) = offer.welcome(None).await {
                    // Nobody waits any more: dropping the connection ends it.
                    let _ = awaited.send(link.connection);
                }
            });
            return;
        }
        let via = match lock(&shared.approaches).agreed(shared.clock.now(), &peer, token) {
            Some(Way::Punch) => Via::Punch,
            None if token != 0 => return offer.refuse(RefuseReason::NotServed, Vec::new()),
            _ => Via::Direct,
        };
        self.shared.tasks.spawn("welcome", async move { shared.serve(offer, via).await });
    }
}

impl Shared {
    async fn serve(&self, offer: Offer<TransferMessage>, via: Via) {
        let Some(uploads) = self.uploads.get() else { return offer.refuse(RefuseReason::NotServed, Vec::new()) };
        let Some(room) = uploads.room(offer.address().ip()) else {
            return offer.refuse(RefuseReason::Full, Vec::new());
        };
        if let Ok(link) = offer.welcome(None).await {
            uploads.serve(link.connection, via, room);
        }
    }
}
