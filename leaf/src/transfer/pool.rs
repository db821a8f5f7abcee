//! One connection to each peer, shared by all downloads that want something from it.
//!
//! Invariant: at most one attempt to reach a peer is under way, and a connection nobody uses is closed. One that is
//! relayed is replaced by a better one as soon as there is one: who uses it finds it closed, and asks for it again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use overlay::{
    drive::Clock,
    id::PeerId,
    limits,
    time::Time,
    transport::{CloseCode, Connection, Windows},
};
use tokio::{sync::Mutex as AsyncMutex, time::timeout};

use super::{Reach, ReachError, Via};
use crate::metrics;

/// A use of a connection. When the last one is dropped, the connection is closed.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    via: Via,
}

impl Lease {
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How the peer was reached.
    pub fn via(&self) -> Via {
        self.via
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Done);
    }
}

type Slot = Arc<AsyncMutex<Weak<Lease>>>;

/// See the module text.
#[derive(Debug)]
pub struct Pool {
    reach: Arc<dyn Reach>,
    peers: Mutex<BTreeMap<PeerId, Slot>>,
}

impl Pool {
    /// An empty pool over `reach`.
    pub fn new(reach: Arc<dyn Reach>) -> Self {
        Self { reach, peers: Mutex::new(BTreeMap::new()) }
    }

    /// The connection to `peer`: the one that is open, or a new one. Dropping the future ends the attempt, if
    /// it began it.
    pub async fn connect(&self, peer: PeerId, homes: Vec<PeerId>) -> Result<Arc<Lease>, ReachError> {
        let slot = self.slot(peer)?;
        let mut open = slot.lock().await;
        if let Some(lease) = open.upgrade().filter(|lease| lease.connection.close_reason().is_none()) {
            return Ok(lease);
        }
        let watch = Clock::new();
        let (connection, via) = self.reach.connect(peer, homes.clone()).await?;
        metrics::reached(via, watch.now().since(Time::ZERO));
        connection.set_windows(Windows::Bulk);
        if via == Via::Relay {
            let (reach, slot, relayed) = (Arc::clone(&self.reach), Arc::clone(&slot), connection.clone());
            tokio::spawn(improve(reach, slot, (peer, homes), relayed));
        }
        let lease = Arc::new(Lease { connection, via });
        *open = Arc::downgrade(&lease);
        Ok(lease)
    }

    fn slot(&self, peer: PeerId) -> Result<Slot, ReachError> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= limits::TRANSFER_PEERS && !peers.contains_key(&peer) {
            // A slot that is being tried is locked, and held by more than this map.
            peers.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|lease| lease.strong_count() > 0)
            });
            if peers.len() >= limits::TRANSFER_PEERS {
                return Err(ReachError::Unreachable("too many peers at once".into()));
            }
        }
        Ok(Arc::clone(peers.entry(peer).or_default()))
    }
}

/// Looks for a better connection to a peer as long as the relayed one is open.
async fn improve(reach: Arc<dyn Reach>, slot: Slot, (peer, homes): (PeerId, Vec<PeerId>), relayed: Connection) {
    while timeout(limits::RELAY_UPGRADE, relayed.closed()).await.is_err() {
        let watch = Clock::new();
        let Ok((connection, via)) = reach.improve(peer, homes.clone()).await else { continue };
        metrics::reached(via, watch.now().since(Time::ZERO));
        tracing::debug!(?peer, via = via.name(), "a relay is not needed any more");
        connection.set_windows(Windows::Bulk);
        let lease = Arc::new(Lease { connection, via });
        *slot.lock().await = Arc::downgrade(&lease);
        relayed.close(CloseCode::Replaced);
        // It stays open until those who used the other one had time to ask again.
        let _ = timeout(limits::RELAY_HANDOVER, lease.connection.closed()).await;
        return;
    }
}
