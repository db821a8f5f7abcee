//! The driver: runs the ultrapeer machine on tokio and QUIC.
//!
//! ```text
//!   arrivals ──> leaf link, mesh link (tasks of one connection) ──inputs──> machine
//!   machine  ──outputs──> ports (bounded queues of those tasks), builders, dials
//! ```
//!
//! Decides nothing about the protocol. What it bounds: every queue to a peer has a cap, and a peer that
//! does not take what it is owed loses its connection, never the node.

mod join;
mod leaf_link;
mod mesh_link;
mod ports;
mod relay;
mod snapshot;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, ready};
use overlay::{
    address::JoinAddress,
    bans::keeper::Known,
    batch::{self, Assembler, BatchError},
    config::{self, Config},
    discovery::{Hint, Site, Standing},
    drive::{Clock, Driver, Handle, Stopped, Tasks, system_rng, wall_clock_s},
    election::{Finding, Missed},
    file::FileEntry,
    id::{ContentId, HandleSalt, PeerId},
    identity::Identity,
    limits,
    machine::Context,
    metrics::{BootstrapResult, BootstrapSource, MESSAGE_ERRORS, MessageError, Role},
    time::Time,
    transport::{CloseCode, DialError, Endpoint, Greeting, Occupancy, Offer, Reached, Unreached},
    wire::{
        bounded::Blob,
        descriptor::SignedDescriptor,
        hello::{Contact, RefuseReason, Situation},
        leaf::{ChunkRef, LeafMessage},
        mesh::MeshMessage,
    },
};
use rand::Rng;
use tokio::sync::{Semaphore, watch};

use self::ports::Ports;
use crate::{
    audits::{self, Failure},
    digests::{DigestSum, Parts, Unpacked, owed::Packed},
    index::Segment,
    leaves::{Closing, Settings},
    metrics as counted, possession, relays,
    search::Ticket,
    ultrapeer::{Input, Output, Phase, Retirement, Terms, Ultrapeer},
    view,
};

pub use self::{
    join::{JoinError, JoinStatus},
    snapshot::{Attached, Member, Snapshot},
};

/// What an ultrapeer is started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// The name of its network.
    pub network: String,
    /// How much it takes.
    pub settings: Settings,
    /// On what terms it serves.
    pub terms: Terms,
    /// Nodes to join through.
    pub join: Vec<JoinAddress>,
    /// Whether it begins a network if nobody is found.
    pub founder: bool,
    /// Whether names will follow, too, that are nodes to join through: a founder waits for what they lead to.
    pub expects_names: bool,
    /// The address to announce instead of the one that others observe.
    pub advertise: Option<SocketAddr>,
    /// Ultrapeers of earlier sessions.
    pub remembered: Vec<SignedDescriptor>,
    /// Nodes that may know ultrapeers of a network of the same name that was begun elsewhere.
    pub contacts: Vec<Contact>,
}

/// A running ultrapeer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Service {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    pub(crate) machine: Handle<Ultrapeer>,
    pub(crate) ports: Ports,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Clock,
    pub(crate) admitted: watch::Sender<bool>,
    pub(crate) drained: watch::Sender<bool>,
    retired: watch::Sender<Option<Retirement>>,
    pub(crate) join: join::Joining,
    numbers: AtomicU64,
    queries: AtomicU64,
    builders: Arc<Semaphore>,
    /// How many leaves may come from where.
    pub(crate) places: Occupancy,
    address: join::OwnAddress,
    pub(crate) relay: relay::Relaying,
    /// Where ultrapeers of earlier sessions were.
    pub(crate) remembered: BTreeSet<SocketAddr>,
    /// What of its totals is in the metrics.
    told: Mutex<counted::Told>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Service {
    /// Starts an ultrapeer on `endpoint`. Fails only if the system has no random numbers.
    pub fn start(
        endpoint: Endpoint,
        identity: Arc<Identity>,
        clock: Clock,
        start: Start,
        tasks: &Tasks,
    ) -> std::io::Result<Self> {
        let mut rng = system_rng()?;
        let now = clock.now();
        let epoch_s = wall_clock_s() as i64 - (now.as_micros() / 1_000_000) as i64;
        let machine = Ultrapeer::new(
            identity,
            &start.network,
            start.settings,
            start.terms,
            epoch_s,
            &mut Context::new(now, &mut rng),
        );
        let (machine, driver) = Driver::new(machine);
        let remembered = start.remembered.iter().filter_map(|known| Some(known.open().ok()?.address)).collect();
        let shared = Arc::new(Shared {
            address: join::OwnAddress::new(start.advertise, endpoint.local_address()),
            endpoint,
            machine,
            ports: Ports::default(),
            tasks: tasks.child(),
            clock,
            admitted: watch::Sender::new(false),
            drained: watch::Sender::new(false),
            retired: watch::Sender::new(None),
            join: join::Joining::new(start.join.clone()),
            numbers: AtomicU64::new(1),
            queries: AtomicU64::new(0),
            builders: Arc::new(Semaphore::new(builders())),
            places: Occupancy::new(usize::MAX, limits::LEAVES_PER_PREFIX),
            relay: relay::Relaying::new(start.settings.relay),
            remembered,
            told: Mutex::default(),
        });
        shared.run(driver, rng);
        shared.tasks.spawn("bans", follow_bans(shared.clone()));
        let founding = start.founder.then(|| {
            let alone = start.join.is_empty() && !start.expects_names;
            if alone { Duration::ZERO } else { limits::FOUNDING_PATIENCE }
        });
        shared.tasks.spawn("join", join::run(shared.clone(), founding, start.remembered, start.contacts));
        Ok(Self { shared })
    }

    /// A leaf knocks.
    pub fn leaf(&self, offer: Offer<LeafMessage>) {
        let shared = self.shared.clone();
        self.shared.tasks.spawn("leaf", async move { leaf_link::serve(shared, offer).await });
    }

    /// Another ultrapeer knocks, or a node that wants to be one.
    pub fn mesh(&self, offer: Offer<MeshMessage>) {
        let shared = self.shared.clone();
        self.shared.tasks.spawn("mesh", async move { mesh_link::serve(shared, offer).await });
    }

    /// True if it serves. Changes are signalled.
    pub fn admitted(&self) -> watch::Receiver<bool> {
        self.shared.admitted.subscribe()
    }

    /// Says when this volunteer need not serve any more, and why.
    pub fn retired(&self) -> watch::Receiver<Option<Retirement>> {
        self.shared.retired.subscribe()
    }

    /// Hands over the leaves; returns when they have left or [`limits::DRAIN_TIMEOUT`] is over.
    pub async fn drain(&self) {
        let mut drained = self.shared.drained.subscribe();
        if self.shared.machine.input(Input::Drain).await.is_err() {
            return;
        }
        // The sender lives in `self`, so waiting cannot fail.
        let _ = drained.wait_for(|drained| *drained).await;
    }

    /// Stops without handing over: closes all connections and tells all that it started to end.
    pub fn stop(&self) {
        self.shared.ports.close_all(CloseCode::Shutdown);
        self.shared.tasks.cancel();
    }

    /// Other settings count from now on.
    pub async fn reconfigure(&self, settings: Settings) -> Result<(), Stopped> {
        self.shared.relay.reconfigure(settings.relay);
        self.shared.machine.input(Input::Settings(settings)).await
    }

    /// Other nodes to join through count from now on.
    pub fn set_join(&self, join: Vec<JoinAddress>) {
        self.shared.join.set(BootstrapSource::Config, join);
    }

    /// These names are nodes to join through, too, from now on.
    pub fn set_names(&self, names: Vec<JoinAddress>) {
        self.shared.join.set(BootstrapSource::Dns, names);
    }

    /// Dials an address where somebody says that a node of the network is; what came of it.
    pub async fn try_hint(&self, hint: Hint) -> BootstrapResult {
        join::try_hint(&self.shared, hint).await
    }

    /// Other ultrapeers that it knows, and how many it should know before it looks for no others: as many as a leaf,
    /// and while it serves as many as a network has that was not founded twice.
    pub async fn standing(&self) -> Standing {
        let serves = *self.shared.admitted.borrow();
        let wanted = if serves { limits::SMALL_NETWORK as usize } else { limits::GOOD_ULTRAPEERS };
        let total = self.shared.machine.inspect(|machine| machine.membership().total()).await;
        // One that stopped needs nobody.
        let good = total.map_or(wanted, |total| total.saturating_sub(u32::from(serves)) as usize);
        Standing { good, wanted }
    }

    /// Where others reach it, or where it listens if it does not know; `None` unless it serves.
    pub fn serves_at(&self) -> Option<SocketAddr> {
        let address = || self.shared.address.current().unwrap_or_else(|| self.shared.endpoint.local_address());
        self.shared.admitted.borrow().then(address)
    }

    /// The node moved to the address `bound`, or its operator names another one to announce.
    pub async fn set_address(&self, advertise: Option<SocketAddr>, bound: SocketAddr) -> Result<(), Stopped> {
        match self.shared.address.fix(advertise, bound) {
            Some(address) => self.shared.machine.input(Input::Address(address)).await,
            None => Ok(()),
        }
    }

    /// What went wrong with the join targets lately.
    pub fn join_status(&self) -> Vec<JoinStatus> {
        self.shared.join.status()
    }

    /// Descriptors to keep for the next session and to name to those who ask.
    pub async fn remember(&self) -> Vec<SignedDescriptor> {
        let look = |machine: &Ultrapeer| {
            let members = machine.membership();
            let all = members.iter().filter_map(|(member, _)| members.descriptor_of(&member.peer)).cloned();
            let own = members.own().cloned();
            own.into_iter().chain(all).take(limits::REMEMBERED_ULTRAPEERS).collect()
        };
        self.shared.machine.inspect(look).await.unwrap_or_default()
    }

    /// Where it stands.
    pub async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        let mut snapshot = self.shared.machine.inspect(Snapshot::of).await?;
        for member in &mut snapshot.members {
            member.rtt = self.shared.ports.mesh_rtt(&member.peer);
        }
        self.shared.ports.count_queues();
        let rtts = self.shared.ports.leaf_rtts();
        for leaf in &mut snapshot.attached {
            leaf.rtt = rtts.get(&leaf.peer).copied();
        }
        snapshot.queries = self.shared.queries.load(Ordering::Relaxed);
        snapshot.address = self.shared.address.current();
        Ok(snapshot)
    }

    /// Brings its metrics up to date. To be called every few seconds.
    pub fn collect(&self, snapshot: &Snapshot) {
        // Whole after every statement, so a panic elsewhere does not spoil it.
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        view::collect(snapshot, self.shared.endpoint.stats(), &mut told);
    }
}

impl Known for Service {
    fn peers(&self) -> BoxFuture<'_, Vec<(PeerId, Role)>> {
        Box::pin(async move {
            let look = |machine: &Ultrapeer| {
                let members = machine.membership().iter().map(|(member, _)| (member.peer, Role::Ultrapeer));
                members.chain(machine.leaves().iter().map(|(_, leaf)| (leaf.peer, Role::Leaf))).collect()
            };
            self.shared.machine.inspect(look).await.unwrap_or_default()
        })
    }

    /// It keeps lists of others and looks at none of them by name.
    fn contents_from<'a>(&'a self, _digits: &'a str) -> BoxFuture<'a, Vec<ContentId>> {
        Box::pin(ready(Vec::new()))
    }
}

impl Site for Service {
    fn standing(&self) -> BoxFuture<'_, Standing> {
        Box::pin(Self::standing(self))
    }

    fn use_names(&self, names: Vec<JoinAddress>) {
        self.set_names(names);
    }

    fn dial(&self, hint: Hint) -> BoxFuture<'_, BootstrapResult> {
        Box::pin(self.try_hint(hint))
    }

    fn serves_at(&self) -> BoxFuture<'_, Option<SocketAddr>> {
        Box::pin(ready(Self::serves_at(self)))
    }
}

/// Tells the machine what is banned, at the start and whenever that changes. Connections are closed by the endpoint.
async fn follow_bans(shared: Arc<Shared>) {
    let mut changes = shared.endpoint.watch_bans();
    loop {
        let rules = changes.borrow_and_update().clone();
        if shared.machine.input(Input::Bans(rules)).await.is_err() || changes.changed().await.is_err() {
            return;
        }
    }
}

impl Shared {
    /// A number that was not used before: names a session, a ticket or a link.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the machine where this node is reached, if that is news.
    pub(crate) async fn observed(&self, address: SocketAddr) {
        if let Some(better) = self.address.observed(address) {
            // A machine that stopped needs no address.
            let _ = self.machine.input(Input::Address(better)).await;
        }
    }

    /// Ultrapeers to name to those who cannot stay here, and why they cannot.
    pub(crate) async fn refusal(&self, peer: PeerId, full: bool) -> (RefuseReason, Vec<SignedDescriptor>) {
        let look = move |machine: &Ultrapeer| (machine.phase(), machine.others_for(&peer));
        match self.machine.inspect(look).await {
            Ok((Phase::Draining { .. }, named)) => (RefuseReason::Draining, named),
            Ok((Phase::Candidate, named)) => (RefuseReason::NotUltrapeer, named),
            Ok((_, named)) if full => (RefuseReason::Full, named),
            Ok((_, named)) => (RefuseReason::NotServed, named),
            Err(Stopped) => (RefuseReason::Draining, Vec::new()),
        }
    }

    fn run(self: &Arc<Self>, driver: Driver<Ultrapeer>, rng: impl Rng + Send + 'static) {
        let (shared, token, clock) = (self.clone(), self.tasks.token(), self.clock);
        self.tasks.spawn_to_end("ultrapeer", async move {
            driver.run(clock, rng, token, |began, output| shared.carry_out(began, output)).await;
        });
    }

    /// Carries out what the machine wants since an input that it got at `began`.
    fn carry_out(self: &Arc<Self>, began: Time, output: Output) {
        match output {
            Output::ToLeaf(session, message) => self.ports.to_leaf(session, message),
            Output::CloseLeaf(session, why) => self.ports.close_leaf(session, close_code(why)),
            Output::ToAsker(ticket, message, last) => self.ports.to_asker(ticket, message, last),
            Output::RefuseAsker(ticket, why) => {
                counted::asker_refused(why);
                self.ports.drop_asker(ticket);
            }
            Output::ToMesh(peer, message) => {
                if matches!(message, MeshMessage::Apply(_)) {
                    self.endpoint.expect_measure(peer);
                }
                self.ports.to_mesh(&peer, message);
            }
            Output::CloseMesh(peer) => self.ports.close_mesh(&peer),
            Output::Dial(peer, address) => {
                self.tasks.spawn("dial", mesh_link::dial(self.clone(), peer, address));
            }
            Output::Build { session, chunk, parts } => {
                let built = measured(self.clock, move || build_segment(&chunk, &parts));
                self.build(
                    move |shared| shared.ports.has_leaf(session),
                    built,
                    move |segment| Input::Built(session, chunk.hash, segment),
                );
            }
            Output::Rebuild { session, hash, kept } => {
                let built = move || Some(Arc::new(kept.build()));
                self.build(
                    move |shared| shared.ports.has_leaf(session),
                    built,
                    move |segment| Input::Built(session, hash, segment),
                );
            }
            Output::BuildDigest { name, bytes, parts } => {
                let built = measured(self.clock, move || unpack_digest(bytes, &parts));
                self.build(|_| true, built, move |unpacked| Input::DigestBuilt(name, unpacked));
            }
            Output::PackDigest { name, kept } => {
                let packed = move || Packed::of(&kept.build().digest());
                self.build(|_| true, packed, move |packed| Input::DigestPacked(name, packed));
            }
            Output::PackFiles { peer, name, kept } => {
                let packed = move || Packed::of(&batch::encode_chunk(&kept.files()));
                self.build(|_| true, packed, move |packed| Input::FilesPacked(peer, name, packed));
            }
            Output::CheckProof(case) => {
                let (home, number) = (case.home, case.number);
                // If the check itself fails, that is no fault of the home.
                let checked = move || Some(audits::check(&case));
                self.build(
                    |_| true,
                    checked,
                    move |result| Input::ProofChecked(home, number, result.unwrap_or(Ok(()))),
                );
            }
            Output::CheckPossession(case) => {
                let (leaf, number) = (case.leaf, case.number);
                let checked = move || Some(possession::check(&case));
                // If the check itself fails, that is no fault of the leaf.
                self.build(
                    |_| true,
                    checked,
                    move |result| Input::PossessionChecked(leaf, number, result.unwrap_or(Ok(()))),
                );
            }
            Output::PossessionFailed(peer, fault) => {
                tracing::debug!(?peer, fault = fault.text(), "a leaf did not prove that it has a file");
            }
            Output::LeafDropped(peer) => {
                let hours = limits::POSSESSION_REFUSAL.as_secs() / 3_600;
                tracing::info!(
                    ?peer,
                    hours,
                    "a leaf lists files that it does not have, and is turned away for a while"
                );
                counted::leaf_dropped();
            }
            Output::DialBack { peer, address, measured } => {
                let shared = self.clone();
                self.tasks.spawn("dial back", async move {
                    let found = shared.endpoint.dial_back(address, peer, measured).await;
                    tracing::debug!(?peer, %address, ?found, "a candidate was dialled back");
                    let loss_ppm = shared.ports.loss_of(&peer);
                    let finding = |reached: Reached| Finding { rate_kbit: reached.rate_kbit, loss_ppm };
                    let found = found.map(finding).map_err(|missed| match missed {
                        Unreached::Silent => Missed::Silent,
                        _ => Missed::Refused,
                    });
                    // A machine that stopped votes on nobody.
                    let _ = shared.machine.input(Input::DialledBack(peer, address, found)).await;
                });
            }
            Output::Retire(why) => {
                self.retired.send_replace(Some(why));
            }
            Output::AuditFailed(Failure { home, fault, .. }) => {
                tracing::warn!(peer = ?home, %fault, "an ultrapeer failed an audit");
            }
            Output::Distrusted(peer) => {
                let hours = limits::AUDIT_DISTRUST.as_secs() / 3_600;
                tracing::warn!(?peer, hours, "an ultrapeer failed too many audits, and is not believed for a while");
                counted::ultrapeer_distrusted();
            }
            Output::Admitted => {
                self.admitted.send_replace(true);
            }
            Output::Drained => {
                self.drained.send_replace(true);
            }
            Output::SearchEnded(ended) => {
                self.queries.fetch_add(1, Ordering::Relaxed);
                counted::search_ended(&ended, self.clock.now());
            }
            Output::QueryAnswered { hits, invalid } => {
                self.queries.fetch_add(1, Ordering::Relaxed);
                counted::query_looked_up(hits, invalid, self.clock.now().since(began));
            }
            Output::Introduction(way, result) => counted::introduction(way, result),
            Output::RelayJoin(one, other) => relay::join(self, one, other),
            Output::RelayRefuse(guest, why) => relay::turn_away(self, guest, why),
            Output::Limited(kind) => counted::limited(kind),
        }
    }

    fn build<T: Send + 'static>(
        self: &Arc<Self>,
        is_needed: impl Fn(&Self) -> bool + Send + 'static,
        built: impl FnOnce() -> Option<T> + Send + 'static,
        input: impl FnOnce(Option<T>) -> Input + Send + 'static,
    ) {
        self.tasks.spawn("build", build(self.clone(), is_needed, built, input));
    }

    /// Gives up the stream of a search or an introduction.
    pub(crate) async fn cancel(&self, ticket: Ticket) {
        self.ports.drop_asker(ticket);
        // A machine that stopped has no searches.
        let _ = self.machine.input(Input::Cancel(ticket)).await;
    }
}

/// Makes something for the machine on a worker thread, as many at a time as there are cores; `None` if that fails.
async fn build<T: Send + 'static>(
    shared: Arc<Shared>,
    is_needed: impl Fn(&Shared) -> bool,
    built: impl FnOnce() -> Option<T> + Send + 'static,
    input: impl FnOnce(Option<T>) -> Input,
) {
    let Ok(_permit) = shared.builders.clone().acquire_owned().await else { return };
    if !is_needed(&shared) {
        return;
    }
    let built = match tokio::task::spawn_blocking(built).await {
        Ok(built) => built,
        Err(panic) => {
            tracing::error!(%panic, "a file list could not be built");
            None
        }
    };
    // A machine that stopped needs nothing.
    let _ = shared.machine.input(input(built)).await;
}

/// Work on the index that tells the metrics how long it took.
fn measured<T>(clock: Clock, built: impl FnOnce() -> Option<T>) -> impl FnOnce() -> Option<T> {
    move || {
        let began = clock.now();
        let done = built();
        counted::index_built(clock.now().since(began));
        done
    }
}

/// Checks a digest of another ultrapeer's leaf.
fn unpack_digest(bytes: u32, parts: &Parts) -> Option<Unpacked> {
    let parts = parts.iter().map(|part| &part[..]);
    let digest = batch::join(parts, bytes as usize, limits::DIGEST_WIRE_BYTES)
        .inspect_err(|error| tracing::debug!(%error, "an ultrapeer sent an unacceptable digest"));
    let segment = Segment::from_digest(&digest.ok()?)
        .inspect_err(|error| tracing::debug!(%error, "an ultrapeer sent an unacceptable digest"));
    let segment = segment.ok()?;
    let sum = DigestSum::of(&segment);
    Some((Arc::new(segment), sum))
}

fn build_segment(chunk: &ChunkRef, parts: &[Blob<{ limits::BATCH_BYTES }>]) -> Option<Arc<Segment>> {
    let files = match decode(chunk, parts) {
        Ok(files) => files,
        Err(error) => {
            tracing::debug!(%error, "a leaf sent an unacceptable chunk");
            return None;
        }
    };
    Segment::build(&files).ok().map(Arc::new)
}

fn decode(chunk: &ChunkRef, parts: &[Blob<{ limits::BATCH_BYTES }>]) -> Result<Vec<FileEntry>, BatchError> {
    let mut assembler = Assembler::new(chunk.hash, chunk.bytes as usize)?;
    for part in parts {
        assembler.push(part)?;
    }
    let files = batch::decode_chunk(&assembler.finish()?)?;
    // What was signed is the count, too.
    if files.len() == usize::from(chunk.files) { Ok(files) } else { Err(BatchError::Malformed) }
}

fn builders() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn close_code(why: Closing) -> CloseCode {
    match why {
        Closing::Protocol(reason) => {
            tracing::debug!(reason, "a leaf broke the protocol");
            MESSAGE_ERRORS.increment(MessageError::Unexpected);
            CloseCode::Violation
        }
        Closing::TooManyLists => {
            tracing::debug!("a leaf announced lists far too often");
            counted::list_refused();
            CloseCode::Flood
        }
        Closing::Replaced => CloseCode::Replaced,
        Closing::Silent => CloseCode::Silent,
        Closing::Stalled => {
            tracing::debug!("a leaf did not send the list that it announced");
            counted::queue_dropped(counted::Queue::Catalog);
            CloseCode::Silent
        }
        Closing::Full => CloseCode::Overload,
        Closing::Untrue => CloseCode::Banned,
    }
}

/// What an ultrapeer takes, by the configuration.
pub fn settings_of(config: &Config, settings: &config::Settings) -> Settings {
    Settings {
        max_leaves: settings.max_leaves.get(),
        max_files_per_leaf: settings.max_files_per_leaf.get().into(),
        memory: settings.memory.bytes().unwrap_or(u64::MAX),
        query_rate: settings.query_rate.per_second(),
        query_burst: settings.query_burst.get().into(),
        limit_loopback: config.is_set("query_rate") || config.is_set("query_burst"),
        relay: relays::Settings { circuits: settings.relay_circuits, rate: settings.relay_rate.bytes_per_second() },
    }
}

/// What a failed dial means for the log: those that name others are no failure.
pub(crate) fn alternatives(error: DialError) -> Vec<SignedDescriptor> {
    match error {
        DialError::Refused { alternatives, .. } => alternatives,
        _ => Vec::new(),
    }
}

pub(crate) const fn greeting() -> Greeting {
    Greeting { salt: HandleSalt([0; 16]), introduction: 0, insists: false, situation: Situation::Settled }
}
