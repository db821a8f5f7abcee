//! A connection to another node whose key is proven, and why it ended.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use quinn::{ConnectionError, TransportErrorCode, VarInt};

use super::{
    gate::Gate,
    socket::canonical,
    stats::{self, Stats},
    streams::{Receiver, Sender},
    tuning::{self, Windows},
};
use crate::{
    id::PeerId,
    limits,
    metrics::{BANS, BanReason, Direction, Label, MESSAGE_ERRORS, MessageError, OpenConnection, RTT, Traffic},
    wire::{Conversation, Protocol},
};

/// The TLS alert `no_application_protocol` (RFC 7301).
const ALERT_NO_PROTOCOL: u8 = 120;
/// The label under which keying material for [`secret_proof`](crate::wire::hello::secret_proof) is exported.
const CHANNEL_LABEL: &[u8] = b"quictrack network secret";

/// What a side says when it closes a connection in order. The numbers are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum CloseCode {
    /// Nothing more to say.
    Done = 0,
    /// The node ends.
    Shutdown = 1,
    /// The hello was refused.
    Refused = 2,
    /// The other side broke the protocol.
    Violation = 3,
    /// Too much to do.
    Overload = 4,
    /// A newer connection of the same node takes its place.
    Replaced = 5,
    /// The other side was banned.
    Banned = 6,
    /// The other side did not answer in time.
    Silent = 7,
    /// A defect at this side; only this connection suffers.
    Failure = 8,
    /// Both ends are the same node.
    SelfDial = 9,
    /// The other side did far more often what it may do seldom.
    Flood = 10,
}

impl CloseCode {
    /// All codes.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::Shutdown,
        Self::Refused,
        Self::Violation,
        Self::Overload,
        Self::Replaced,
        Self::Banned,
        Self::Silent,
        Self::Failure,
        Self::SelfDial,
        Self::Flood,
    ];

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Shutdown => "shutdown",
            Self::Refused => "refused",
            Self::Violation => "violation",
            Self::Overload => "overload",
            Self::Replaced => "replaced",
            Self::Banned => "banned",
            Self::Silent => "silent",
            Self::Failure => "failure",
            Self::SelfDial => "self_dial",
            Self::Flood => "flood",
        }
    }

    /// Why a node to which this is said is not let in again for a while; `None` if it is.
    const fn penalty(self) -> Option<BanReason> {
        match self {
            Self::Violation => Some(BanReason::Protocol),
            Self::Flood => Some(BanReason::Flood),
            _ => None,
        }
    }

    pub(super) const fn to_wire(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// Codes of later releases read as [`Self::Done`]: the connection ended in order.
    fn from_wire(code: VarInt) -> Self {
        Self::ALL.into_iter().find(|known| known.to_wire() == code).unwrap_or(Self::Done)
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed here ({})", .0.name())]
    Local(CloseCode),
    /// The other side closed it.
    #[error("closed by the other side ({})", .0.name())]
    Remote(CloseCode),
    /// Nothing was heard for too long.
    #[error("the other side fell silent")]
    Idle,
    /// The other side knows nothing of it: it was restarted.
    #[error("the other side was restarted")]
    Reset,
    /// The two sides have no version of the protocol in common.
    #[error("no common version of the protocol")]
    Version,
    /// A side did not accept the other's key.
    #[error("the keys did not fit: {0}")]
    Auth(String),
    /// The other side has no capacity for a handshake.
    #[error("the other side is overloaded")]
    Overload,
    /// The other side broke QUIC, or says that we did.
    #[error("QUIC failed: {0}")]
    Transport(String),
}

impl CloseReason {
    /// Its name in metrics and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::Remote(CloseCode::Shutdown) => "shutdown",
            Self::Remote(CloseCode::Overload) | Self::Overload => "overload",
            Self::Remote(_) => "remote",
            Self::Idle => "idle",
            Self::Reset => "reset",
            Self::Version => "version",
            Self::Auth(_) => "auth",
            Self::Transport(_) => "transport",
        }
    }

    pub(super) fn of(error: ConnectionError, local: CloseCode) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Remote(CloseCode::from_wire(close.error_code)),
            ConnectionError::LocallyClosed => Self::Local(local),
            ConnectionError::TimedOut => Self::Idle,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::VersionMismatch => Self::Version,
            ConnectionError::CidsExhausted => Self::Overload,
            ConnectionError::ConnectionClosed(close) => Self::of_quic(close.error_code),
            ConnectionError::TransportError(error) => Self::of_quic(error.code),
        }
    }

    fn of_quic(code: TransportErrorCode) -> Self {
        if code == TransportErrorCode::crypto(ALERT_NO_PROTOCOL) {
            Self::Version
        } else if (0x100..0x200).contains(&u64::from(code)) {
            Self::Auth(format!("TLS alert {}", u64::from(code) & 0xff))
        } else if code == TransportErrorCode::CONNECTION_REFUSED {
            Self::Overload
        } else {
            Self::Transport(code.to_string())
        }
    }
}

/// A connection whose other end is proven and welcomed. Cheap to clone; it stays open while a clone or one
/// of its streams exists, unless [`Self::close`] is called.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

/// What the handles of a connection share.
pub(super) struct Inner {
    quic: quinn::Connection,
    peer: PeerId,
    protocol: Protocol,
    closed_with: OnceLock<CloseCode>,
    /// Where the other side sees us; known once it said so.
    observed: OnceLock<SocketAddr>,
    stats: Arc<Stats>,
    gate: Arc<Gate>,
    /// Its number there.
    entered: u64,
    /// In the metrics, once it was welcomed.
    counted: OnceLock<OpenConnection>,
    /// What of its traffic is in the metrics.
    traffic: Mutex<Traffic>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.gate.leave(self.entered);
        self.count_traffic();
        if let Some(counted) = self.counted.take() {
            // Open until the last handle went: nobody here had a use for it any more.
            let done = self.closed_with.get().copied().unwrap_or(CloseCode::Done);
            let reason = self.quic.close_reason().map_or(CloseReason::Local(done), |error| self.reason(error));
            counted.close(stats::closed(&reason));
        }
    }
}

impl Inner {
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(super) fn remote_address(&self) -> SocketAddr {
        canonical(self.quic.remote_address())
    }

    /// Brings it in the metrics up to date.
    pub(super) fn measure(&self) {
        self.count_traffic();
        if self.counted.get().is_some() && self.quic.close_reason().is_none() {
            RTT.record_span(stats::kind(self.protocol), self.quic.rtt());
        }
    }

    /// Brings its traffic in the metrics up to date.
    fn count_traffic(&self) {
        let stats = self.quic.stats();
        let now = Traffic {
            bytes: [stats.udp_rx.bytes, stats.udp_tx.bytes],
            datagrams: [stats.udp_rx.datagrams, stats.udp_tx.datagrams],
            sent: stats.path.sent_packets,
            lost: stats.path.lost_packets,
            congestions: stats.path.congestion_events,
        };
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.advance(stats::kind(self.protocol), now);
    }

    pub(super) fn close(&self, code: CloseCode) {
        if self.closed_with.set(code).is_ok() {
            if let Some(why) = code.penalty() {
                self.penalise(why);
            }
            self.quic.close(code.to_wire(), b"");
        }
    }

    /// The other side is not let in again for a while. That of a connection which was never in use, or broke by itself,
    /// may have had no part in what went wrong.
    fn penalise(&self, why: BanReason) {
        let Some(counted) = self.counted.get().filter(|_| self.quic.close_reason().is_none()) else { return };
        if self.gate.penalise(self.peer, self.remote_address()) {
            BANS.increment((counted.scope(), why));
            let seconds = limits::PENALTY.as_secs();
            tracing::info!(peer = ?self.peer, why = why.value(), seconds, "a node is not let in again for a while");
        }
    }

    fn reason(&self, error: ConnectionError) -> CloseReason {
        // Closed here without a word for this connection: the whole endpoint was closed.
        CloseReason::of(error, self.closed_with.get().copied().unwrap_or(CloseCode::Shutdown))
    }
}

/// What a connection measured so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// The smoothed round trip.
    pub rtt: Duration,
    /// Bytes sent, UDP payloads.
    pub sent_bytes: u64,
    /// Bytes received, UDP payloads.
    pub received_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Of those, packets lost.
    pub lost_packets: u64,
    /// Bytes of a UDP payload that pass.
    pub packet_bytes: u16,
}

impl Connection {
    /// The proven key of the other side.
    pub fn peer(&self) -> PeerId {
        self.inner.peer
    }

    /// What it is for.
    pub fn protocol(&self) -> Protocol {
        self.inner.protocol
    }

    /// Where the other side's packets come from now. It changes when a NAT rebinds or the other side moves.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// Where the other side saw us when the connection began.
    pub fn observed(&self) -> Option<SocketAddr> {
        self.inner.observed.get().copied()
    }

    /// The smoothed round trip.
    pub fn rtt(&self) -> Duration {
        self.inner.quic.rtt()
    }

    /// What it measured so far.
    pub fn stats(&self) -> ConnectionStats {
        let stats = self.inner.quic.stats();
        ConnectionStats {
            rtt: stats.path.rtt,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            sent_packets: stats.path.sent_packets,
            lost_packets: stats.path.lost_packets,
            packet_bytes: stats.path.current_mtu,
        }
    }

    /// 32 bytes that only the two ends of this connection know, under the label of network secrets.
    pub fn channel_binding(&self) -> [u8; 32] {
        let mut binding = [0; 32];
        let exported = self.inner.quic.export_keying_material(&mut binding, CHANNEL_LABEL, b"");
        exported.expect("32 bytes are far below TLS's limit");
        binding
    }

    /// Opens a stream in both directions. Waits while the other side grants no further stream. It learns of
    /// the stream with the first frame. Cancelling loses nothing.
    pub async fn open<M: Conversation>(&self) -> Result<(Sender<M>, Receiver<M>), CloseReason> {
        let (send, receive) = self.inner.quic.open_bi().await.map_err(|error| self.reason(error))?;
        Ok((Sender::new(send, self.clone()), Receiver::new(receive, self.clone())))
    }

    /// The next stream that the other side opened in both directions. Cancelling loses nothing.
    pub async fn accept<M: Conversation>(&self) -> Result<(Sender<M>, Receiver<M>), CloseReason> {
        let (send, receive) = self.inner.quic.accept_bi().await.map_err(|error| self.reason(error))?;
        Ok((Sender::new(send, self.clone()), Receiver::new(receive, self.clone())))
    }

    /// Opens a stream towards the other side only. Cancelling loses nothing.
    pub async fn open_one_way<M: Conversation>(&self) -> Result<Sender<M>, CloseReason> {
        let send = self.inner.quic.open_uni().await.map_err(|error| self.reason(error))?;
        Ok(Sender::new(send, self.clone()))
    }

    /// The next stream that the other side opened towards us only. Cancelling loses nothing.
    pub async fn accept_one_way<M: Conversation>(&self) -> Result<Receiver<M>, CloseReason> {
        let receive = self.inner.quic.accept_uni().await.map_err(|error| self.reason(error))?;
        Ok(Receiver::new(receive, self.clone()))
    }

    /// Sets how much may be under way, in both directions. What was granted before stays granted.
    pub fn set_windows(&self, windows: Windows) {
        self.inner.quic.set_receive_window(windows.receive().into());
        self.inner.quic.set_send_window(windows.send());
    }

    /// Sets how many streams in both directions the other side may have open: its credit for concurrent
    /// requests. What was granted before stays granted.
    pub fn set_streams(&self, streams: u32) {
        self.inner.quic.set_max_concurrent_bi_streams(streams.into());
    }

    /// Closes it, telling the other side why. Streams fail at once on both sides; a second call is ignored.
    pub fn close(&self, code: CloseCode) {
        self.inner.close(code);
    }

    /// Closes it, because the other side sent a message that does not belong there.
    pub fn reject(&self) {
        MESSAGE_ERRORS.increment(MessageError::Unexpected);
        self.inner.close(CloseCode::Violation);
    }

    /// Waits until it is closed, by whichever side. Cancelling loses nothing.
    pub async fn closed(&self) -> CloseReason {
        let error = self.inner.quic.closed().await;
        self.reason(error)
    }

    /// Why it is closed; `None` while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.inner.quic.close_reason().map(|error| self.reason(error))
    }

    /// A number that no other connection of this process has, as long as this one lives.
    pub fn id(&self) -> u64 {
        self.inner.quic.stable_id() as u64
    }

    pub(super) fn new(
        quic: quinn::Connection,
        peer: PeerId,
        protocol: Protocol,
        stats: Arc<Stats>,
        gate: Arc<Gate>,
    ) -> Self {
        let (closed_with, observed, counted) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (entered, traffic) = (gate.number(), Mutex::default());
        let inner =
            Arc::new(Inner { quic, peer, protocol, closed_with, observed, stats, gate, entered, counted, traffic });
        inner.gate.enter(entered, &inner);
        Self { inner }
    }

    /// True if the other side is banned here.
    pub(super) fn is_banned(&self) -> bool {
        self.inner.gate.bans(&self.peer(), self.remote_address())
    }

    /// True if the other side was sent away, and must wait.
    pub(super) fn is_penalised(&self) -> bool {
        self.inner.gate.penalises(&self.peer())
    }

    /// Grants what a welcomed dialler needs.
    pub(super) fn grant(&self) {
        if self.protocol() == Protocol::Mesh {
            self.set_windows(Windows::Mesh);
        }
        let (streams, one_way) = tuning::streams(self.protocol());
        self.set_streams(streams);
        self.inner.quic.set_max_concurrent_uni_streams(one_way.into());
    }

    pub(super) fn set_observed(&self, observed: SocketAddr) {
        // The first word counts; there is only one.
        let _ = self.inner.observed.set(canonical(observed));
    }

    pub(super) fn counters(&self) -> &Stats {
        &self.inner.stats
    }

    pub(super) fn reason(&self, error: ConnectionError) -> CloseReason {
        self.inner.reason(error)
    }

    /// Counts it as open in the metrics, from now until its last handle goes.
    pub(super) fn count(&self, direction: Direction) {
        self.inner.counted.get_or_init(|| OpenConnection::begin(stats::kind(self.protocol()), direction));
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {:?} at {}", self.protocol().name(), self.peer(), self.remote_address())
    }
}

/// A connection with its control stream: what every conversation begins with.
#[derive(Debug)]
pub struct Link<M: Conversation> {
    /// The connection.
    pub connection: Connection,
    /// To the other side, on the control stream.
    pub sender: Sender<M>,
    /// From the other side, on the control stream.
    pub receiver: Receiver<M>,
}
