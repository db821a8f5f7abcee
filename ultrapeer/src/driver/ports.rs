//! The bounded queues that lead to peers.
//!
//! A message for a peer is put into its queue or, if that is full, the peer loses its connection: what it
//! is owed is in order and must not have gaps. Only queries to other ultrapeers are dropped instead: a
//! coordinator asks another home when no answer comes.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use overlay::{
    id::PeerId,
    limits,
    transport::{CloseCode, Connection, Windows},
    wire::{
        leaf::LeafMessage,
        mesh::{Class, MeshMessage},
    },
};
use rustc_hash::FxHashMap;
use tokio::{sync::mpsc, time::Instant};

use crate::{leaves::Session, metrics as counted, search::Ticket};

/// A message that waits for a leaf. A queue holds room for 32 elements as soon as it is made: boxed, that is 0.3 kB
/// for each leaf instead of 6.7 kB.
pub(crate) type Queued = Box<LeafMessage>;

/// All queues. Locked for moments only, never across an `await`.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    leaves: FxHashMap<Session, LeafPort>,
    askers: FxHashMap<Ticket, mpsc::Sender<LeafMessage>>,
    mesh: FxHashMap<PeerId, MeshPort>,
}

#[derive(Debug)]
struct LeafPort {
    queue: mpsc::Sender<Queued>,
    connection: Connection,
    /// When it told of a list that is not searchable yet.
    announced: Option<Instant>,
}

/// The queues of a mesh link, one for each class of messages.
#[derive(Debug, Clone)]
pub(crate) struct MeshPort {
    /// Names this link among those that the pair had.
    pub(crate) link: u64,
    /// True if this node dialled.
    pub(crate) dialled: bool,
    pub(crate) since: Instant,
    pub(crate) connection: Connection,
    pub(crate) control: mpsc::Sender<MeshMessage>,
    pub(crate) hits: mpsc::Sender<MeshMessage>,
    pub(crate) queries: mpsc::Sender<MeshMessage>,
    pub(crate) digests: mpsc::Sender<MeshMessage>,
}

impl Ports {
    pub(crate) fn open_leaf(&self, session: Session, connection: Connection) -> mpsc::Receiver<Queued> {
        let (queue, receiver) = mpsc::channel(limits::LEAF_QUEUE);
        self.lock().leaves.insert(session, LeafPort { queue, connection, announced: None });
        receiver
    }

    pub(crate) fn has_leaf(&self, session: Session) -> bool {
        self.lock().leaves.contains_key(&session)
    }

    pub(crate) fn close_leaf(&self, session: Session, code: CloseCode) {
        if let Some(port) = self.lock().leaves.remove(&session) {
            port.connection.close(code);
        }
    }

    pub(crate) fn to_leaf(&self, session: Session, message: LeafMessage) {
        let mut inner = self.lock();
        let Some(port) = inner.leaves.get_mut(&session) else { return };
        // An upload gets room when it is granted, and gives it back when it is done.
        match message {
            LeafMessage::CatalogWant(_) => port.connection.set_windows(Windows::Active),
            LeafMessage::CatalogAck(_) => {
                port.connection.set_windows(Windows::Idle);
                if let Some(announced) = port.announced.take() {
                    counted::FRESHNESS.record_span((), announced.elapsed());
                }
            }
            _ => {}
        }
        if port.queue.try_send(Box::new(message)).is_err() {
            counted::queue_dropped(counted::Queue::Control);
            port.connection.close(CloseCode::Overload);
            inner.leaves.remove(&session);
        }
    }

    /// A leaf tells of a list; it waits from the first such word until its list is searchable.
    pub(crate) fn list_announced(&self, session: Session) {
        if let Some(port) = self.lock().leaves.get_mut(&session) {
            port.announced.get_or_insert_with(Instant::now);
        }
    }

    /// Brings the fill of the queues up to date in the metrics.
    pub(crate) fn count_queues(&self) {
        let inner = self.lock();
        let fullest = |queue: fn(&MeshPort) -> &mpsc::Sender<MeshMessage>| {
            inner.mesh.values().map(|port| limits::MESH_QUEUE - queue(port).capacity()).max().unwrap_or(0)
        };
        for (name, length) in [
            (counted::Queue::Control, fullest(|port| &port.control)),
            (counted::Queue::Queries, fullest(|port| &port.queries)),
            (counted::Queue::Digests, fullest(|port| &port.digests)),
            (counted::Queue::Hits, fullest(|port| &port.hits)),
        ] {
            counted::queue_filled(name, length, limits::MESH_QUEUE);
        }
        // A list waits from its announcement on.
        let waiting = inner.leaves.values().filter(|port| port.announced.is_some()).count();
        counted::queue_filled(counted::Queue::Catalog, waiting, inner.leaves.len());
    }

    pub(crate) fn leaf_rtts(&self) -> FxHashMap<PeerId, Duration> {
        let inner = self.lock();
        inner.leaves.values().map(|port| (port.connection.peer(), port.connection.rtt())).collect()
    }

    pub(crate) fn open_asker(&self, ticket: Ticket) -> mpsc::Receiver<LeafMessage> {
        let (queue, receiver) = mpsc::channel(limits::ASKER_QUEUE);
        self.lock().askers.insert(ticket, queue);
        receiver
    }

    pub(crate) fn drop_asker(&self, ticket: Ticket) {
        self.lock().askers.remove(&ticket);
    }

    pub(crate) fn to_asker(&self, ticket: Ticket, message: LeafMessage, last: bool) {
        let mut inner = self.lock();
        let Some(queue) = inner.askers.get(&ticket) else { return };
        let full = queue.try_send(message).is_err();
        if full {
            counted::queue_dropped(counted::Queue::Hits);
        }
        if full || last {
            inner.askers.remove(&ticket);
        }
    }

    /// Registers a link, unless a better one to the same peer is open. Two nodes that dial each other at
    /// once end up with the link that the lower key dialled, on both sides.
    pub(crate) fn open_mesh(&self, own: &PeerId, port: MeshPort) -> bool {
        let mut inner = self.lock();
        let peer = port.connection.peer();
        if let Some(old) = inner.mesh.get(&peer) {
            let dialled_by_lower = |port: &MeshPort| port.dialled == (*own < peer);
            // Who dials although it has had a link for long has lost it, with an earlier life perhaps.
            let old_counts = old.connection.close_reason().is_none() && old.since.elapsed() < limits::HANDSHAKE_TIMEOUT;
            if old_counts && dialled_by_lower(old) && !dialled_by_lower(&port) {
                return false;
            }
            old.connection.close(CloseCode::Replaced);
        }
        inner.mesh.insert(peer, port);
        true
    }

    /// Closes a link and forgets it at once: nobody is told of its end.
    pub(crate) fn close_mesh(&self, peer: &PeerId) {
        if let Some(port) = self.lock().mesh.remove(peer) {
            port.connection.close(CloseCode::Done);
        }
    }

    /// Forgets a link. False if another has taken its place, so that the peer is still linked.
    pub(crate) fn forget_mesh(&self, peer: &PeerId, link: u64) -> bool {
        let mut inner = self.lock();
        let is_current = inner.mesh.get(peer).is_some_and(|port| port.link == link);
        if is_current {
            inner.mesh.remove(peer);
        }
        is_current
    }

    pub(crate) fn is_linked(&self, peer: &PeerId) -> bool {
        self.lock().mesh.get(peer).is_some_and(|port| port.connection.close_reason().is_none())
    }

    /// True if a link leads to that address.
    pub(crate) fn is_linked_at(&self, address: SocketAddr) -> bool {
        self.lock().mesh.values().any(|port| port.connection.remote_address() == address)
    }

    pub(crate) fn mesh_rtt(&self, peer: &PeerId) -> Option<Duration> {
        self.lock().mesh.get(peer).map(|port| port.connection.rtt())
    }

    /// Of a million packets that were sent to a linked ultrapeer or an own leaf, those that were lost; `None` if it is
    /// neither, or they are too few to tell.
    pub(crate) fn loss_of(&self, peer: &PeerId) -> Option<u32> {
        let inner = self.lock();
        let leaf = || inner.leaves.values().map(|port| &port.connection).find(|connection| connection.peer() == *peer);
        let connection = inner.mesh.get(peer).map(|port| &port.connection).or_else(leaf)?;
        let stats = connection.stats();
        let ppm = stats.lost_packets.saturating_mul(1_000_000).checked_div(stats.sent_packets)?;
        (stats.sent_packets >= limits::LOSS_PACKETS).then(|| u32::try_from(ppm).unwrap_or(u32::MAX))
    }

    pub(crate) fn to_mesh(&self, peer: &PeerId, message: MeshMessage) {
        let inner = self.lock();
        let Some(port) = inner.mesh.get(peer) else { return };
        let (queue, name, may_drop) = match message.class() {
            Class::Control => (&port.control, counted::Queue::Control, false),
            Class::Hits => (&port.hits, counted::Queue::Hits, false),
            Class::Queries => (&port.queries, counted::Queue::Queries, true),
            Class::Digests => (&port.digests, counted::Queue::Digests, false),
        };
        if queue.try_send(message).is_err() {
            counted::queue_dropped(name);
            if !may_drop {
                port.connection.close(CloseCode::Overload);
            }
        }
    }

    pub(crate) fn close_all(&self, code: CloseCode) {
        let inner = std::mem::take(&mut *self.lock());
        for port in inner.leaves.values() {
            port.connection.close(code);
        }
        for port in inner.mesh.values() {
            port.connection.close(code);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every operation leaves the maps whole, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
