//! How far away a node is, without a connection.
//!
//! A packet of a QUIC version that does not exist is answered at once by whoever listens there, with the versions that
//! it speaks (RFC 9000 6): one round trip, no cryptography, nothing kept at either end, and an answer that is smaller
//! than the question. The packet names its connection with a random token, which the answer repeats. No key is proven,
//! so this tells distances and nothing else.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use rustc_hash::FxHashMap;
use tokio::{sync::oneshot, time::Instant};

use super::socket::canonical;
use crate::limits;

/// Bytes of the question: a shorter one gets no answer (RFC 9000 5.2.2).
const QUESTION_BYTES: usize = 1200;
/// A version that is reserved for this (RFC 9000 15).
const NO_VERSION: u32 = 0x1a2a_3a4a;
/// Long header, fixed bit.
const FIRST_BYTE: u8 = 0xc0;
/// First byte, version, and two connection ids of 8 bytes, each with its length.
const HEAD_BYTES: usize = 1 + 4 + 2 * (1 + 8);

/// The questions of one socket that wait for their answer.
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// How many there are, so that nothing is looked at while there is none.
    count: AtomicUsize,
    waiting: Mutex<FxHashMap<u64, (SocketAddr, oneshot::Sender<Instant>)>>,
}

/// A question that waits. Dropping it forgets it.
#[derive(Debug)]
pub(super) struct Waiting {
    pings: Arc<Pings>,
    token: u64,
    /// When the answer came.
    pub(super) answered: oneshot::Receiver<Instant>,
}

impl Pings {
    /// Waits for the answer of `address` to [`question`] with that token; `None` if too many wait.
    pub(super) fn wait(self: &Arc<Self>, token: u64, address: SocketAddr) -> Option<Waiting> {
        let mut waiting = self.lock();
        if waiting.len() >= limits::PINGS {
            return None;
        }
        let (sender, answered) = oneshot::channel();
        waiting.insert(token, (address, sender));
        self.count.store(waiting.len(), Ordering::Relaxed);
        Some(Waiting { pings: Arc::clone(self), token, answered })
    }

    fn came(&self, from: SocketAddr, datagram: &[u8]) {
        let Some(token) = answer(datagram) else { return };
        let mut waiting = self.lock();
        if waiting.get(&token).is_some_and(|(address, _)| *address == canonical(from))
            && let Some((_, asker)) = waiting.remove(&token)
        {
            self.count.store(waiting.len(), Ordering::Relaxed);
            // Who asked may have given up just now.
            let _ = asker.send(Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<u64, (SocketAddr, oneshot::Sender<Instant>)>> {
        // Every operation leaves the map whole, so a panic elsewhere does not spoil it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.pings.lock();
        waiting.remove(&self.token);
        self.pings.count.store(waiting.len(), Ordering::Relaxed);
    }
}

/// The packet that is answered.
pub(super) fn question(token: u64) -> Vec<u8> {
    let mut packet = Vec::with_capacity(QUESTION_BYTES);
    packet.push(FIRST_BYTE);
    packet.extend(NO_VERSION.to_be_bytes());
    for _ in 0..2 {
        packet.push(8);
        packet.extend(token.to_be_bytes());
    }
    packet.resize(QUESTION_BYTES, 0);
    packet
}

/// The token of a packet that answers [`question`]; `None` of any other.
fn answer(datagram: &[u8]) -> Option<u64> {
    let head: &[u8; HEAD_BYTES] = datagram.first_chunk()?;
    let (one, other) = (&head[6..14], &head[15..]);
    let fits = head[0] & 0x80 != 0 && head[1..5] == [0; 4] && (head[5], head[14]) == (8, 8) && one == other;
    fits.then(|| one.iter().fold(0, |token, byte| token << 8 | u64::from(*byte)))
}

/// A socket that sees answers on their way to QUIC, which ignores them.
pub(super) struct Watched {
    inner: Arc<dyn AsyncUdpSocket>,
    pings: Arc<Pings>,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, pings: Arc<Pings>) -> Arc<Self> {
        Arc::new(Self { inner, pings })
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl AsyncUdpSocket for Watched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(cx, buffers, metas))?;
        if self.pings.count.load(Ordering::Relaxed) > 0 {
            for (buffer, meta) in buffers.iter().zip(metas.iter()).take(received) {
                for datagram in buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1)) {
                    self.pings.came(meta.addr, datagram);
                }
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What RFC 9000 17.2.1 says of the answer to a packet.
    fn answered(question: &[u8]) -> Vec<u8> {
        let ids = &question[5..HEAD_BYTES];
        [&[0xf3, 0, 0, 0, 0], &ids[9..], &ids[..9], &[0, 0, 0, 1, 0x0a, 0x1a, 0x2a, 0x3a]].concat()
    }

    #[test]
    fn an_answer_counts_once_and_only_from_where_it_was_asked() {
        let pings = Arc::new(Pings::default());
        let (there, elsewhere) = ("192.0.2.1:7780".parse().unwrap(), "192.0.2.2:7780".parse().unwrap());
        let mut waiting = pings.wait(7, there).unwrap();
        let datagram = answered(&question(7));
        pings.came(elsewhere, &datagram);
        pings.came(there, &answered(&question(8)));
        assert!(waiting.answered.try_recv().is_err());
        pings.came("[::ffff:192.0.2.1]:7780".parse().unwrap(), &datagram);
        assert!(waiting.answered.try_recv().is_ok());
        assert!(pings.lock().is_empty());
    }

    #[test]
    fn those_that_are_given_up_are_forgotten_and_there_are_never_too_many() {
        let pings = Arc::new(Pings::default());
        let there = "192.0.2.1:7780".parse().unwrap();
        let waiting: Vec<_> = (0..2 * limits::PINGS as u64).filter_map(|token| pings.wait(token, there)).collect();
        assert_eq!((waiting.len(), pings.count.load(Ordering::Relaxed)), (limits::PINGS, limits::PINGS));
        drop(waiting);
        assert_eq!((pings.lock().len(), pings.count.load(Ordering::Relaxed)), (0, 0));
    }

    proptest! {
        #[test]
        fn every_token_comes_back(token: u64) {
            let question = question(token);
            prop_assert_eq!(question.len(), QUESTION_BYTES);
            prop_assert_eq!(answer(&question), None, "a question is no answer");
            prop_assert_eq!(answer(&answered(&question)), Some(token));
        }

        #[test]
        fn other_packets_are_no_answer(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if bytes.get(1..5) != Some(&[0; 4]) {
                prop_assert_eq!(answer(&bytes), None);
            }
        }
    }
}
