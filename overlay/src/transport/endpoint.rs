//! The endpoint: one UDP socket on which a node dials and is dialled.
//!
//! Accepting never waits for a handshake: each has a task of its own, under one deadline up to its hello,
//! and what comes out of it goes through a bounded channel ([`Arrivals`]). What the doorkeeper
//! ([`super::admission`]) does not let through costs no cryptography.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quinn::{ClientConfig, ConnectError, ConnectionError, Runtime, ServerConfig, TokioRuntime, TransportConfig};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::DropGuard;

use super::{
    admission::{Admission, Verdict},
    carried,
    connection::{CloseCode, CloseReason, Connection, Link},
    dial_back::{self, Askers, Reached, Unreached},
    dial_error::DialError,
    gate::Gate,
    handshake::{self, Arrival, Greeting, MeetError, Offer, Settings},
    ping::{self, Pings, Watched},
    socket::{self, BindError, BindMode, canonical, for_family},
    stats::{self, Event, Stats},
    streams::{Receiver, Sender},
    tls::{self, Credentials},
    tuning,
    version::{self, Versions},
};
use crate::{
    bans::Rules,
    discovery::Rendezvous,
    drive::{Clock, Tasks},
    id::PeerId,
    identity::Identity,
    limits,
    metrics::{self, HandshakeResult},
    wire::{Conversation, MAJOR, MEASURE_ALPN, Protocol, VERSION_ALPN, hello::Welcome, leaf::LeafMessage},
};

/// A node's place in the network: one socket, one key. Cheap to clone. When the last clone is dropped, or
/// after [`Self::close`], nothing is accepted any more.
#[derive(Clone, Debug)]
pub struct Endpoint {
    shared: Arc<Shared>,
    _guard: Arc<DropGuard>,
}

/// What the endpoint's tasks share.
pub(super) struct Shared {
    quic: quinn::Endpoint,
    pub(super) credentials: Credentials,
    versions: Versions,
    /// A second handle of the socket, for packets that are not QUIC.
    socket: Arc<Mutex<UdpSocket>>,
    pings: Arc<Pings>,
    askers: Askers,
    handshakes: Arc<Semaphore>,
    pub(super) gate: Arc<Gate>,
    pub(super) own: PeerId,
    pub(super) settings: Settings,
    pub(super) stats: Arc<Stats>,
    pub(super) tasks: Tasks,
}

/// Those who dialled this node and wait for an answer.
#[derive(Debug)]
pub struct Arrivals {
    queue: mpsc::Receiver<Arrival>,
}

impl Arrivals {
    /// The next one; `None` after the endpoint was closed. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.queue.recv().await
    }
}

/// A welcomed dial: the connection and what the other side said.
#[derive(Debug)]
pub struct Dialled<M: Conversation> {
    /// The connection and its control stream.
    pub link: Link<M>,
    /// What the other side said.
    pub welcome: Welcome,
}

/// How patiently an address is dialled that does not answer: whoever else is there shall not get much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// For as long as a handshake may take.
    Usual,
    /// Others named the address: three flights of first packets, for [`limits::NAMED_DIAL_TIMEOUT`].
    Named,
    /// The other side opens its NAT just now: three flights, soon after each other, for [`limits::PUNCH_TIMEOUT`].
    Punch,
}

impl Endpoint {
    /// Binds `address` and begins to accept. Must be called inside of a runtime.
    pub fn bind(
        address: SocketAddr,
        mode: BindMode,
        identity: &Identity,
        settings: Settings,
    ) -> Result<(Self, Arrivals), BindError> {
        Self::bind_speaking(MAJOR..=MAJOR, address, mode, identity, settings)
    }

    /// Binds a free port of `ip` only to dial from it: whoever dials it gets no answer.
    pub fn dial_only(ip: IpAddr, identity: &Identity, settings: Settings) -> Result<Self, BindError> {
        let versions = Versions { majors: MAJOR..=MAJOR, agent: settings.agent.clone() };
        Self::open(SocketAddr::new(ip, 0), BindMode::Given, identity, settings, versions)
    }

    /// [`Self::bind`] as a node of other major versions would: what it says in the version exchange.
    pub fn bind_speaking(
        majors: std::ops::RangeInclusive<u32>,
        address: SocketAddr,
        mode: BindMode,
        identity: &Identity,
        settings: Settings,
    ) -> Result<(Self, Arrivals), BindError> {
        let versions = Versions { majors, agent: settings.agent.clone() };
        let endpoint = Self::open(address, mode, identity, settings, versions)?;
        let shared = &endpoint.shared;
        shared.quic.set_server_config(Some(shared.server_config(tuning::dialled())));
        let (sender, queue) = mpsc::channel(limits::OFFERS);
        shared.tasks.spawn("accept", accept(Arc::downgrade(shared), shared.quic.clone(), sender));
        Ok((endpoint, Arrivals { queue }))
    }

    fn open(
        address: SocketAddr,
        mode: BindMode,
        identity: &Identity,
        settings: Settings,
        versions: Versions,
    ) -> Result<Self, BindError> {
        let socket = socket::bind(address, mode)?;
        let system = |source| BindError::System { address, source };
        let probe = socket.try_clone().map_err(system)?;
        let pings = Arc::<Pings>::default();
        let watched = TokioRuntime.wrap_udp_socket(socket).map_err(system)?;
        let watched = Watched::new(watched, Arc::clone(&pings));
        let (config, runtime) = (tuning::endpoint(identity), Arc::new(TokioRuntime));
        let quic = quinn::Endpoint::new_with_abstract_socket(config, None, watched, runtime).map_err(system)?;
        let socket = Arc::new(Mutex::new(probe));
        Ok(Self::assemble(quic, socket, pings, identity, settings, versions))
    }

    /// Another identity that dials from this endpoint's socket, so that a load program gets along with few
    /// sockets. Nobody can dial it; [`Self::close`] and [`Self::rebind`] of either concern both.
    pub fn beside(&self, identity: &Identity, settings: Settings) -> Self {
        let versions = Versions { majors: MAJOR..=MAJOR, agent: settings.agent.clone() };
        let shared = &self.shared;
        let (socket, pings) = (Arc::clone(&shared.socket), Arc::clone(&shared.pings));
        Self::assemble(shared.quic.clone(), socket, pings, identity, settings, versions)
    }

    fn assemble(
        quic: quinn::Endpoint,
        socket: Arc<Mutex<UdpSocket>>,
        pings: Arc<Pings>,
        identity: &Identity,
        settings: Settings,
        versions: Versions,
    ) -> Self {
        let tasks = Tasks::new();
        let guard = Arc::new(tasks.token().drop_guard());
        let shared = Shared {
            quic,
            credentials: Credentials::new(identity),
            versions,
            socket,
            pings,
            askers: Askers::default(),
            handshakes: Arc::new(Semaphore::new(limits::HANDSHAKES)),
            gate: Arc::default(),
            own: identity.peer_id(),
            settings,
            stats: Arc::default(),
            tasks,
        };
        Self { shared: Arc::new(shared), _guard: guard }
    }

    /// The address that is bound, with the port that was chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.shared.local_address()
    }

    /// The key of this node.
    pub fn peer(&self) -> PeerId {
        self.shared.own
    }

    /// Under which names the nodes of this network find each other.
    pub fn rendezvous(&self) -> Rendezvous {
        self.shared.settings.rendezvous()
    }

    /// Moves to another address. Connections that this node dialled move along; those that others dialled
    /// survive if they reach the new address. On an error the old socket stays.
    pub fn rebind(&self, address: SocketAddr) -> Result<(), BindError> {
        let socket = socket::bind(address, BindMode::Given)?;
        let system = |source| BindError::System { address, source };
        let probe = socket.try_clone().map_err(system)?;
        let watched = TokioRuntime.wrap_udp_socket(socket).map_err(system)?;
        self.shared.quic.rebind_abstract(Watched::new(watched, Arc::clone(&self.shared.pings))).map_err(system)?;
        *self.shared.socket.lock().unwrap_or_else(PoisonError::into_inner) = probe;
        Ok(())
    }

    /// Dials `address`: TLS, hello, welcome, all within [`limits::DIAL_TIMEOUT`]. With `expect`, the
    /// node there must have that key, or it does not even learn ours; with its own key a node dials itself, as a leaf
    /// only. Cancelling ends the attempt.
    pub async fn dial<M: Conversation>(
        &self,
        address: SocketAddr,
        expect: Option<PeerId>,
        greeting: Greeting,
    ) -> Result<Dialled<M>, DialError> {
        self.dial_as(Attempt::Usual, address, expect, greeting).await
    }

    /// [`Self::dial`], with care for whoever is at the address if it is another.
    pub async fn dial_as<M: Conversation>(
        &self,
        attempt: Attempt,
        address: SocketAddr,
        expect: Option<PeerId>,
        greeting: Greeting,
    ) -> Result<Dialled<M>, DialError> {
        let address = canonical(address);
        self.counted(address, self.shared.dial(attempt, address, expect, greeting)).await
    }

    /// Dials a leaf over a relay, whose stream was joined with that of the leaf. Everything is encrypted between the
    /// two: the relay sees packets.
    pub async fn dial_carried<M: Conversation>(
        &self,
        sender: Sender<LeafMessage>,
        receiver: Receiver<LeafMessage>,
        peer: PeerId,
        greeting: Greeting,
    ) -> Result<Dialled<M>, DialError> {
        let address = sender.connection().remote_address();
        self.counted(address, self.shared.dial_carried(sender, receiver, peer, greeting)).await
    }

    /// The other side of [`Self::dial_carried`]: waits for that leaf.
    pub async fn accept_carried<M: Conversation>(
        &self,
        sender: Sender<LeafMessage>,
        receiver: Receiver<LeafMessage>,
        peer: PeerId,
    ) -> Result<Offer<M>, CloseReason> {
        let accepted = carried::accept(&self.shared, sender, receiver, peer);
        let idle = |_| Err(CloseReason::Idle);
        timeout(limits::HANDSHAKE_TIMEOUT, accepted).await.unwrap_or_else(idle)
    }

    async fn counted<M: Conversation>(
        &self,
        address: SocketAddr,
        dialling: impl Future<Output = Result<Dialled<M>, DialError>>,
    ) -> Result<Dialled<M>, DialError> {
        let begun = Instant::now();
        let result = timeout(limits::DIAL_TIMEOUT, dialling).await;
        let result = result.unwrap_or(Err(DialError::Timeout { address }));
        self.shared.stats.event(if result.is_ok() { Event::DialWelcomed } else { Event::DialFailed });
        stats::handshake_out(result.as_ref().err());
        if result.is_ok() {
            metrics::HANDSHAKE_DURATION.record(metrics::Direction::Out, begun.elapsed().as_secs_f64());
        }
        result
    }

    /// Sends one meaningless byte to `address` from this endpoint's port, so that a NAT in front of it lets
    /// packets from there in. Nothing is expected back, and a full socket drops it.
    pub fn probe(&self, address: SocketAddr) {
        let address = for_family(canonical(address), &self.local_address());
        let socket = self.shared.socket.lock().unwrap_or_else(PoisonError::into_inner);
        // A lost probe is repeated by whoever wants it.
        let _ = socket.send_to(&[0], address);
    }

    /// Where this node is in its own network, as the system sends towards `address`; `None` if it does not.
    pub fn local_towards(&self, address: SocketAddr) -> Option<SocketAddr> {
        socket::source_towards(canonical(address)).map(|ip| SocketAddr::new(ip, self.local_address().port()))
    }

    /// The round trip to whoever listens at `address`, without a connection; `None` if no ultrapeer or leaf answers in
    /// [`limits::PING_TIMEOUT`], or too much is measured at once. Cancelling ends it.
    pub async fn measure(&self, address: SocketAddr) -> Option<Duration> {
        let address = canonical(address);
        let token = getrandom::u64().ok()?;
        let mut waiting = self.shared.pings.wait(token, address)?;
        let begun = Instant::now();
        {
            let socket = self.shared.socket.lock().unwrap_or_else(PoisonError::into_inner);
            socket.send_to(&ping::question(token), for_family(address, &self.local_address())).ok()?;
        }
        let answered = timeout(limits::PING_TIMEOUT, &mut waiting.answered).await.ok()?.ok()?;
        Some(answered.duration_since(begun))
    }

    /// Dials `peer` from a socket of its own, which the peer never sent anything to, to see whether it is reached from
    /// outside; and, unless `measured` is false, how fast it sends. At most [`limits::DIAL_BACK_TIMEOUT`] and
    /// [`limits::MEASURE_TIMEOUT`]. An address where nobody is receives three flights of first packets.
    pub async fn dial_back(&self, address: SocketAddr, peer: PeerId, measured: bool) -> Result<Reached, Unreached> {
        let bytes = if measured { limits::MEASURE_BYTES } else { 0 };
        dial_back::dial(&self.shared.credentials, address, peer, bytes).await
    }

    /// That node may measure how fast this one sends, for a while.
    pub fn expect_measure(&self, peer: PeerId) {
        self.shared.askers.expect(peer);
    }

    /// Closes everything: connections with `code`, the door, tasks. [`Self::wait_idle`] waits for the end.
    pub fn close(&self, code: CloseCode) {
        self.shared.tasks.cancel();
        self.shared.quic.close(code.to_wire(), b"");
    }

    /// Waits, after [`Self::close`], until the other sides were told and no task or connection is left.
    /// Callers bound it: quinn keeps a connection whose very first packet closed it until its idle timeout.
    pub async fn wait_idle(&self) {
        self.shared.tasks.wait().await;
        self.shared.quic.wait_idle().await;
    }

    /// Those who dial from now on will send and get messages only, no files, and may be ten thousand: each is set
    /// up to cost as little as possible. Not for an endpoint that only dials.
    pub fn expect_crowd(&self) {
        self.shared.quic.set_server_config(Some(self.shared.server_config(tuning::dialled_lean())));
    }

    /// These are banned from now on: they are refused and not dialled, and connections to them are closed.
    pub fn set_bans(&self, rules: Rules) {
        for connection in self.shared.gate.set(Arc::new(rules)) {
            tracing::info!(peer = ?connection.peer(), "a connection ends, because the peer is banned");
            connection.close(CloseCode::Banned);
        }
    }

    /// What is banned now.
    pub fn bans(&self) -> Arc<Rules> {
        self.shared.gate.rules()
    }

    /// What is banned, and changes of that.
    pub fn watch_bans(&self) -> watch::Receiver<Arc<Rules>> {
        self.shared.gate.watch()
    }

    /// Connections that are open, those in handshake included.
    pub fn connections(&self) -> usize {
        self.shared.quic.open_connections()
    }

    /// Tasks of the endpoint itself: the door, handshakes under way, refusals being delivered.
    pub fn tasks(&self) -> usize {
        self.shared.tasks.len()
    }

    /// Brings what its connections sent and received up to date in the metrics, and notes their round trips. Those that
    /// end count what is left themselves.
    pub fn measure_connections(&self) {
        for connection in self.shared.gate.open() {
            connection.measure();
        }
    }

    /// What it counted so far.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }
}

impl Shared {
    fn local_address(&self) -> SocketAddr {
        self.quic.local_addr().unwrap_or_else(|_| (IpAddr::from([0, 0, 0, 0]), 0).into())
    }

    pub(super) fn server_config(&self, transport: TransportConfig) -> ServerConfig {
        let mut protocols: Vec<Vec<u8>> =
            Protocol::ALL.iter().flat_map(|protocol| self.versions.alpns(*protocol)).collect();
        protocols.extend([VERSION_ALPN, MEASURE_ALPN].map(<[u8]>::to_vec));
        let mut config = ServerConfig::with_crypto(self.credentials.server(protocols));
        config
            .transport_config(Arc::new(transport))
            .max_incoming(limits::HANDSHAKES)
            .incoming_buffer_size(limits::INCOMING_BYTES)
            .incoming_buffer_size_total(limits::INCOMING_BYTES_TOTAL);
        config
    }

    async fn dial<M: Conversation>(
        &self,
        attempt: Attempt,
        address: SocketAddr,
        expect: Option<PeerId>,
        greeting: Greeting,
    ) -> Result<Dialled<M>, DialError> {
        let rules = self.gate.rules();
        if rules.bans_address(address.ip()) || expect.is_some_and(|peer| rules.bans_peer(&peer)) {
            return Err(DialError::Banned { address });
        }
        let alpn = self.versions.alpns(M::PROTOCOL).next().unwrap_or_default();
        let quic = match self.connect(attempt, address, expect, M::PROTOCOL, &alpn).await {
            Err(DialError::Closed { reason: CloseReason::Version, .. }) => {
                return Err(self.ask_version(address, expect).await);
            }
            result => result?,
        };
        self.meet(quic, address, expect, greeting).await
    }

    async fn dial_carried<M: Conversation>(
        &self,
        sender: Sender<LeafMessage>,
        receiver: Receiver<LeafMessage>,
        peer: PeerId,
        greeting: Greeting,
    ) -> Result<Dialled<M>, DialError> {
        let address = sender.connection().remote_address();
        if self.gate.rules().bans_peer(&peer) {
            return Err(DialError::Banned { address });
        }
        let alpn = self.versions.alpns(M::PROTOCOL).next().unwrap_or_default();
        let quic = carried::connect(self, sender, receiver, peer, &alpn).await;
        let quic = quic.map_err(|reason| DialError::Closed { address, reason })?;
        self.meet(quic, address, Some(peer), greeting).await
    }

    /// A handshake has ended well: who is it, and is this node welcome?
    async fn meet<M: Conversation>(
        &self,
        quic: quinn::Connection,
        address: SocketAddr,
        expect: Option<PeerId>,
        greeting: Greeting,
    ) -> Result<Dialled<M>, DialError> {
        let peer = tls::peer_of(&quic).ok_or(DialError::Violation { address })?;
        let connection = Connection::new(quic, peer, M::PROTOCOL, Arc::clone(&self.stats), Arc::clone(&self.gate));
        // Who asks for itself by name is an ultrapeer whose own leaf side attaches to it; who did not mean itself is told.
        if peer == self.own && (expect != Some(self.own) || M::PROTOCOL != Protocol::Leaf) {
            connection.close(CloseCode::SelfDial);
            return Err(DialError::SelfDial { address });
        }
        if connection.is_banned() {
            connection.close(CloseCode::Banned);
            return Err(DialError::Banned { address });
        }
        let (link, welcome) = handshake::greet(self, connection, greeting).await?;
        Ok(Dialled { link, welcome })
    }

    async fn connect(
        &self,
        attempt: Attempt,
        address: SocketAddr,
        expect: Option<PeerId>,
        protocol: Protocol,
        alpn: &[u8],
    ) -> Result<quinn::Connection, DialError> {
        let (crypto, seen) = self.credentials.client(alpn, expect);
        let mut config = ClientConfig::new(crypto);
        // Without randomness the beat is merely regular.
        let jitter = getrandom::u32().unwrap_or(u32::MAX / 2);
        let mut transport = tuning::dialling(protocol, jitter);
        if attempt == Attempt::Punch {
            transport.initial_rtt(limits::PUNCH_RTT);
        }
        config.transport_config(Arc::new(transport));
        let mut connecting =
            self.quic.connect_with(config, address, tls::SERVER_NAME).map_err(|error| match error {
                ConnectError::InvalidRemoteAddress(_) => DialError::Unreachable { address },
                ConnectError::EndpointStopping => {
                    DialError::Closed { address, reason: CloseReason::Local(CloseCode::Shutdown) }
                }
                error => DialError::Closed { address, reason: CloseReason::Transport(error.to_string()) },
            })?;
        let patience = match attempt {
            Attempt::Usual => limits::HANDSHAKE_TIMEOUT,
            Attempt::Named => limits::NAMED_DIAL_TIMEOUT,
            Attempt::Punch => limits::PUNCH_TIMEOUT,
        };
        // What fails here fails below, with its reason.
        if timeout(patience, connecting.handshake_data()).await.is_err() {
            return Err(DialError::Timeout { address });
        }
        connecting.await.map_err(|error| match (expect, seen.get()) {
            (Some(expected), Some(&found)) if expected != found => DialError::WrongPeer { address, expected, found },
            _ if matches!(error, ConnectionError::TimedOut) => DialError::Timeout { address },
            _ => DialError::Closed { address, reason: CloseReason::of(error, CloseCode::Shutdown) },
        })
    }

    /// The other side has no protocol of ours: which of the two is older?
    async fn ask_version(&self, address: SocketAddr, expect: Option<PeerId>) -> DialError {
        let Ok(quic) = self.connect(Attempt::Usual, address, expect, Protocol::Leaf, VERSION_ALPN).await else {
            return DialError::OtherProtocol { address };
        };
        match version::ask(&quic, &self.versions).await {
            Some(theirs) if theirs.majors.end() < self.versions.majors.start() => {
                DialError::PeerOlder { address, agent: theirs.agent }
            }
            Some(theirs) if theirs.majors.start() > self.versions.majors.end() => {
                DialError::PeerNewer { address, agent: theirs.agent }
            }
            _ => DialError::OtherProtocol { address },
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.own, self.local_address())
    }
}

/// The door. It does not keep the endpoint alive.
async fn accept(shared: std::sync::Weak<Shared>, quic: quinn::Endpoint, arrivals: mpsc::Sender<Arrival>) {
    let (clock, mut admission) = (Clock::new(), Admission::default());
    while let Some(incoming) = quic.accept().await {
        let Some(shared) = shared.upgrade() else { return };
        if shared.gate.bans_address(incoming.remote_address().ip()) {
            shared.stats.event(Event::AddressBanned);
            stats::handshake_in(HandshakeResult::Refused);
            incoming.refuse();
            continue;
        }
        let permit = Arc::clone(&shared.handshakes).try_acquire_owned();
        let under_way = limits::HANDSHAKES - shared.handshakes.available_permits() - usize::from(permit.is_ok());
        let proven = incoming.remote_address_validated() || !incoming.may_retry();
        let verdict = admission.judge(clock.now(), incoming.remote_address().ip(), proven, under_way);
        match (verdict, permit) {
            (Verdict::Accept, Ok(permit)) => {
                shared.stats.event(Event::HandshakeBegun);
                let task = handshake(Arc::clone(&shared), incoming, permit, arrivals.clone());
                shared.tasks.spawn("handshake", task);
            }
            (Verdict::Retry, _) => {
                shared.stats.event(Event::HandshakeRetried);
                stats::handshake_in(HandshakeResult::Retried);
                if let Err(error) = incoming.retry() {
                    error.into_incoming().ignore();
                }
            }
            (Verdict::Ignore, _) | (Verdict::Accept, Err(_)) => {
                shared.stats.event(Event::HandshakeIgnored);
                stats::handshake_in(HandshakeResult::Ignored);
                metrics::RATE_LIMITED.increment(metrics::LimitedAction::Handshake);
                incoming.ignore();
            }
        }
    }
}

/// One handshake of a dialler, up to the offer of its hello.
async fn handshake(
    shared: Arc<Shared>,
    incoming: quinn::Incoming,
    _permit: OwnedSemaphorePermit,
    arrivals: mpsc::Sender<Arrival>,
) {
    let (address, begun) = (canonical(incoming.remote_address()), Instant::now());
    let work = async {
        if let Some(arrival) = receive(&shared, incoming).await? {
            shared.stats.event(Event::HandshakeOffered);
            stats::handshake_in(HandshakeResult::Ok);
            metrics::HANDSHAKE_DURATION.record(metrics::Direction::In, begun.elapsed().as_secs_f64());
            // Nobody takes arrivals any more: dropping this one closes it.
            let _ = arrivals.send(arrival).await;
        }
        Ok::<(), MeetError>(())
    };
    match timeout(limits::HANDSHAKE_TIMEOUT, work).await {
        Ok(Ok(())) => {}
        Ok(Err(MeetError::Refused(reason))) => {
            stats::handshake_in(HandshakeResult::Refused);
            tracing::debug!(%address, reason = reason.text(), "hello refused");
        }
        Ok(Err(error)) => {
            shared.stats.event(Event::HandshakeFailed);
            stats::handshake_in(error.result());
            tracing::debug!(%address, %error, "handshake failed");
        }
        Err(_) => {
            shared.stats.event(Event::HandshakeFailed);
            stats::handshake_in(HandshakeResult::Timeout);
            tracing::debug!(%address, "handshake took too long");
        }
    }
}

/// `None` if it only asked for our versions.
async fn receive(shared: &Arc<Shared>, incoming: quinn::Incoming) -> Result<Option<Arrival>, MeetError> {
    let closed = |error| MeetError::Closed(CloseReason::of(error, CloseCode::Shutdown));
    let quic = incoming.accept().map_err(closed)?.await.map_err(closed)?;
    let alpn = tls::protocol_of(&quic).unwrap_or_default();
    if alpn == VERSION_ALPN {
        shared.stats.event(Event::VersionAsked);
        version::answer(&quic, &shared.versions).await;
        return Ok(None);
    }
    if alpn == MEASURE_ALPN {
        // It may take longer than a handshake.
        let answering = Arc::clone(shared);
        shared.tasks.spawn("measure", async move { dial_back::answer(&quic, &answering.askers).await });
        return Ok(None);
    }
    let (Some(peer), Some(protocol)) = (tls::peer_of(&quic), Protocol::from_alpn(&alpn)) else {
        return Err(CloseReason::Version.into());
    };
    let connection = Connection::new(quic, peer, protocol, Arc::clone(&shared.stats), Arc::clone(&shared.gate));
    Ok(Some(match protocol {
        Protocol::Leaf => Arrival::Leaf(handshake::meet(shared, connection).await?),
        Protocol::Mesh => Arrival::Mesh(handshake::meet(shared, connection).await?),
        Protocol::Transfer => Arrival::Transfer(handshake::meet(shared, connection).await?),
    }))
}
