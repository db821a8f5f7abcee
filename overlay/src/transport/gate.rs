//! Who is not dealt with: judged before a handshake by address, at the hello and before a dial also by key. And who is
//! not let in just now, because it was sent away for what it did.
//!
//! Invariant: a connection enters the gate before it is judged, and other rules are in force before the connections that
//! are open are judged anew. So no connection of one who is banned stays open, whichever came first.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use rustc_hash::FxHashMap;
use tokio::sync::watch;

use super::{connection::Inner, penalties::Penalties};
use crate::{bans::Rules, drive::Clock, id::PeerId};

/// The rules, and every connection of the endpoint.
#[derive(Default)]
pub(super) struct Gate {
    rules: watch::Sender<Arc<Rules>>,
    open: Mutex<Open>,
    clock: Clock,
    penalties: Mutex<Penalties>,
}

/// Connections by number. As many as there are: they are bounded where they are welcomed.
#[derive(Default)]
struct Open {
    next: u64,
    connections: FxHashMap<u64, Weak<Inner>>,
}

impl Gate {
    pub(super) fn rules(&self) -> Arc<Rules> {
        self.rules.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.subscribe()
    }

    pub(super) fn bans_address(&self, address: IpAddr) -> bool {
        self.rules.borrow().bans_address(address)
    }

    pub(super) fn bans(&self, peer: &PeerId, address: SocketAddr) -> bool {
        let rules = self.rules.borrow();
        rules.bans_peer(peer) || rules.bans_address(address.ip())
    }

    /// A node was sent away for what it did. True if it waits from now on and did not before.
    pub(super) fn penalise(&self, peer: PeerId, address: SocketAddr) -> bool {
        self.penalties().note(self.clock.now(), peer, address.ip())
    }

    /// True if a node waits for that to be over.
    pub(super) fn penalises(&self, peer: &PeerId) -> bool {
        self.penalties().holds(self.clock.now(), peer)
    }

    /// Other rules are in force from now on. Returns the connections that they ban.
    pub(super) fn set(&self, rules: Arc<Rules>) -> Vec<Arc<Inner>> {
        self.rules.send_replace(rules);
        let mut open = self.open();
        open.retain(|connection| self.bans(&connection.peer(), connection.remote_address()));
        open
    }

    /// All connections, to be looked at outside of the lock, which the end of a connection takes.
    pub(super) fn open(&self) -> Vec<Arc<Inner>> {
        self.lock().connections.values().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn number(&self) -> u64 {
        let mut open = self.lock();
        open.next += 1;
        open.next
    }

    pub(super) fn enter(&self, number: u64, connection: &Arc<Inner>) {
        self.lock().connections.insert(number, Arc::downgrade(connection));
    }

    pub(super) fn leave(&self, number: u64) {
        self.lock().connections.remove(&number);
    }

    fn penalties(&self) -> MutexGuard<'_, Penalties> {
        // Whole after every statement, as below.
        self.penalties.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Both fields are whole after every statement, so a panic elsewhere does not spoil them.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
