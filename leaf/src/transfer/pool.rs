//! One connection to each peer, shared by all downloads that want something from it.
//!
//! Invariant: at most one attempt to reach a peer is under way, and a connection nobody uses is closed; at once, or after
//! [`limits::LEASE_KEPT`] where the next use is likely, since each new connection may cost an introduction. One that is
//! relayed is replaced by a better one as soon as there is one: who uses it finds it closed, and asks for it again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use overlay::{
    drive::Clock,
    id::PeerId,
    limits,
    time::Time,
    transport::{CloseCode, Connection, Windows},
};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, sleep_until, timeout},
};

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
    kept: Arc<Mutex<Kept>>,
}

/// Connections that stay for a while, the one that goes first in front.
#[derive(Debug, Default)]
struct Kept {
    leases: VecDeque<(Instant, Arc<Lease>)>,
    /// True while a task lets them go.
    is_watched: bool,
}

impl Pool {
    /// An empty pool over `reach`.
    pub fn new(reach: Arc<dyn Reach>) -> Self {
        Self { reach, peers: Mutex::new(BTreeMap::new()), kept: Arc::default() }
    }

    /// Keeps a connection for [`limits::LEASE_KEPT`] from now on, used or not. Of too many, the oldest goes.
    pub fn keep(&self, lease: &Arc<Lease>) {
        let mut kept = lock(&self.kept);
        kept.leases.retain(|(_, other)| !Arc::ptr_eq(other, lease));
        if kept.leases.len() >= limits::LEASES_KEPT {
            kept.leases.pop_front();
        }
        kept.leases.push_back((Instant::now() + limits::LEASE_KEPT, Arc::clone(lease)));
        if !std::mem::replace(&mut kept.is_watched, true) {
            tokio::spawn(let_go(Arc::clone(&self.kept)));
        }
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

/// Lets kept connections go when their time has come, until none is left.
async fn let_go(kept: Arc<Mutex<Kept>>) {
    loop {
        let next = {
            let mut kept = lock(&kept);
            let now = Instant::now();
            while kept.leases.front().is_some_and(|(until, _)| *until <= now) {
                kept.leases.pop_front();
            }
            kept.is_watched = !kept.leases.is_empty();
            kept.leases.front().map(|(until, _)| *until)
        };
        let Some(next) = next else { return };
        sleep_until(next).await;
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
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
