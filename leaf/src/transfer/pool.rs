//! One connection to each peer, shared by all downloads that want something from it.
//!
//! Invariant: at most one attempt to reach a peer is under way, and a connection nobody uses is closed.

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
use tokio::sync::Mutex as AsyncMutex;

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
        let reached = self.reach.connect(peer, homes).await;
        let span = watch.now().since(Time::ZERO);
        metrics::attempted(reached.as_ref().map(|(_, via)| *via), span);
        let (connection, via) = reached?;
        connection.set_windows(Windows::Bulk);
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
