//! A connection inside of a stream: two leaves talk over a relay that joined a stream of each.
//!
//! What is carried are the packets of a QUIC connection between the two, a frame for each. That needs more bytes than TLS
//! on the joined stream would (40 in 1,200), and saves a second kind of connection: streams, keys, limits and everything
//! that works with a [`Connection`] are what they are elsewhere, and the relay sees nothing but encrypted packets. The
//! packets are as small as QUIC allows, whatever passes outside.
//!
//! Nothing is lost on the way, so nothing is sent twice. When the way is full the socket says so, as a real one does:
//! the connection waits, and the relay slows down both by not reading. The queues at each side hold
//! [`limits::RELAY_QUEUE`] packets.
//!
//! ```text
//!   QUIC ── try_send ──> outgoing ── Carried ──> the relay's stream
//!   QUIC <── poll_recv ── incoming <── Carried ── the relay's stream
//! ```

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use quinn::{
    AsyncUdpSocket, ClientConfig, EndpointConfig, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use tokio::time::timeout;

use super::{
    connection::{CloseCode, CloseReason, Connection},
    endpoint::Shared,
    handshake::{self, MeetError, Offer},
    socket::canonical,
    streams::{Receiver, Sender},
    tls, tuning,
};
use crate::{
    id::PeerId,
    limits,
    wire::{
        Conversation, Protocol,
        bounded::Blob,
        leaf::{Carried, LeafMessage},
    },
};

/// Dials the node at the other end of the joined streams.
pub(super) async fn connect(
    shared: &Shared,
    sender: Sender<LeafMessage>,
    receiver: Receiver<LeafMessage>,
    peer: PeerId,
    alpn: &[u8],
) -> Result<quinn::Connection, CloseReason> {
    let (quic, address) = endpoint(shared, None, sender, receiver)?;
    let (crypto, _) = shared.credentials.client(alpn, Some(peer));
    let mut config = ClientConfig::new(crypto);
    let jitter = getrandom::u32().unwrap_or(u32::MAX / 2);
    config.transport_config(Arc::new(tuning::carried(tuning::dialling(Protocol::Transfer, jitter))));
    let failed = |error: quinn::ConnectError| CloseReason::Transport(error.to_string());
    let connecting = quic.connect_with(config, address, tls::SERVER_NAME).map_err(failed)?;
    connecting.await.map_err(|error| CloseReason::of(error, CloseCode::Shutdown))
}

/// Waits for the node at the other end of the joined streams, up to its hello.
pub(super) async fn accept<M: Conversation>(
    shared: &Arc<Shared>,
    sender: Sender<LeafMessage>,
    receiver: Receiver<LeafMessage>,
    peer: PeerId,
) -> Result<Offer<M>, CloseReason> {
    let closed = |error| CloseReason::of(error, CloseCode::Shutdown);
    let config = shared.server_config(tuning::carried(tuning::dialled()));
    let (quic, _) = endpoint(shared, Some(config), sender, receiver)?;
    let incoming = quic.accept().await.ok_or(CloseReason::Idle)?;
    let connection = incoming.accept().map_err(closed)?.await.map_err(closed)?;
    let protocol = tls::protocol_of(&connection).and_then(|alpn| Protocol::from_alpn(&alpn));
    if tls::peer_of(&connection) != Some(peer) || protocol != Some(M::PROTOCOL) {
        connection.close(CloseCode::Violation.to_wire(), b"");
        return Err(CloseReason::Auth("another one than was announced".to_owned()));
    }
    let (stats, gate) = (Arc::clone(&shared.stats), Arc::clone(&shared.gate));
    let connection = Connection::new(connection, peer, M::PROTOCOL, stats, gate);
    handshake::meet(shared, connection).await.map_err(|error| match error {
        MeetError::Closed(reason) => reason,
        other => CloseReason::Transport(other.to_string()),
    })
}

/// An endpoint of its own, which has one connection. It ends with it, and so do the streams.
fn endpoint(
    shared: &Shared,
    config: Option<quinn::ServerConfig>,
    sender: Sender<LeafMessage>,
    receiver: Receiver<LeafMessage>,
) -> Result<(quinn::Endpoint, SocketAddr), CloseReason> {
    let address = canonical(sender.connection().remote_address());
    let socket = Arc::new(Socket { address, way: Arc::default() });
    let way = Arc::clone(&socket.way);
    let quic = quinn::Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        config,
        socket as Arc<dyn AsyncUdpSocket>,
        Arc::new(TokioRuntime),
    );
    let quic = quic.map_err(|error| CloseReason::Transport(error.to_string()))?;
    shared.tasks.spawn("carried", carry(way, sender, receiver));
    Ok((quic, address))
}

/// Moves packets between the queues and the stream until either side is gone.
async fn carry(way: Arc<Way>, mut sender: Sender<LeafMessage>, mut receiver: Receiver<LeafMessage>) {
    let out = async {
        while let Some(packet) = way.outgoing.next().await {
            let Some(packet) = Blob::new(packet) else { continue };
            if sender.send(&Carried { packet }.into()).await.is_err() {
                return;
            }
        }
    };
    let into = async {
        while let Ok(Some(LeafMessage::Carried(carried))) = receiver.next().await {
            if !way.incoming.put(carried.packet.to_vec()).await {
                return;
            }
        }
    };
    tokio::select! {
        () = out => {}
        () = into => {}
    }
    way.incoming.end();
    way.outgoing.end();
    // The last packet says why the connection inside has ended.
    let told = async {
        sender.finish()?;
        sender.delivered().await
    };
    let _ = timeout(limits::FAREWELL_TIMEOUT, told).await;
    sender.connection().close(CloseCode::Done);
}

/// Packets on their way, in both directions.
#[derive(Debug, Default)]
struct Way {
    outgoing: Queue,
    incoming: Queue,
}

/// The socket of an endpoint whose packets are carried.
struct Socket {
    /// The relay: where packets go to and come from, as QUIC sees it.
    address: SocketAddr,
    way: Arc<Way>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.way.outgoing.end();
        self.way.incoming.end();
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "carried by {}", self.address)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room(Arc::clone(&self.way)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.way.outgoing.try_put(transmit.contents)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buffer), Some(meta)) = (buffers.first_mut(), metas.first_mut()) else { return Poll::Ready(Ok(0)) };
        self.way.incoming.poll_next(cx).map(|packet| {
            let packet = packet.ok_or(io::ErrorKind::NotConnected)?;
            let len = packet.len().min(buffer.len());
            buffer[..len].copy_from_slice(&packet[..len]);
            *meta = RecvMeta { addr: self.address, len, stride: len, ecn: None, dst_ip: None };
            Ok(1)
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Waits for room in the outgoing queue.
#[derive(Debug)]
struct Room(Arc<Way>);

impl UdpPoller for Room {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.outgoing.poll_room(cx).map(Ok)
    }
}

/// At most [`limits::RELAY_QUEUE`] packets, with one that takes and several that put.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<Vec<u8>>,
    ended: bool,
    taker: Option<Waker>,
    /// Those that wait for room; each is woken whenever there is some. One connection has one driver.
    putters: Vec<Waker>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every operation leaves the state whole, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `WouldBlock` if it is full. What is put after the end is lost, as with a real socket.
    fn try_put(&self, packet: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        if state.ended {
            return Ok(());
        }
        if state.packets.len() >= limits::RELAY_QUEUE {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.packets.push_back(packet.to_vec());
        let taker = state.taker.take();
        drop(state);
        taker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Waits for room. False after the end.
    async fn put(&self, packet: Vec<u8>) -> bool {
        std::future::poll_fn(|cx| self.poll_room(cx)).await;
        self.try_put(&packet).is_ok() && !self.lock().ended
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.ended || state.packets.len() < limits::RELAY_QUEUE {
            return Poll::Ready(());
        }
        if !state.putters.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.putters.push(cx.waker().clone());
        }
        Poll::Pending
    }

    async fn next(&self) -> Option<Vec<u8>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// `None` after the end.
    fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut state = self.lock();
        if let Some(packet) = state.packets.pop_front() {
            let putters = std::mem::take(&mut state.putters);
            drop(state);
            putters.into_iter().for_each(Waker::wake);
            return Poll::Ready(Some(packet));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.taker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let (taker, putters) = (state.taker.take(), std::mem::take(&mut state.putters));
        drop(state);
        taker.into_iter().chain(putters).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_queue_keeps_order_says_when_it_is_full_and_gives_what_it_has_before_its_end() {
        let queue = Queue::default();
        for number in 0..limits::RELAY_QUEUE {
            queue.try_put(&[number as u8]).unwrap();
        }
        assert_eq!(queue.try_put(&[0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (put, first) = tokio::join!(queue.put(vec![99]), queue.next());
        assert_eq!((put, first), (true, Some(vec![0])));
        queue.end();
        assert!(!queue.put(vec![1]).await);
        let mut rest = Vec::new();
        while let Some(packet) = queue.next().await {
            rest.extend(packet);
        }
        let expected: Vec<u8> = (1..limits::RELAY_QUEUE as u8).chain([99]).collect();
        assert_eq!(rest, expected);
    }

    #[test]
    fn packets_are_no_larger_than_the_smallest_that_quic_allows() {
        // The value of RFC 9000 14, which quinn begins with and keeps without discovery.
        assert_eq!(limits::RELAY_PACKET, 1200);
        assert!(Blob::<{ limits::RELAY_PACKET }>::new(vec![0; 1200]).is_some());
    }
}
