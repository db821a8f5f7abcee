//! A node that says what an ultrapeer says, as far as others must hear it to keep it: who it is, that it lives, that it
//! has no leaves and finds nothing. What a misbehaving one does differently is told it by the caller.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use overlay::{
    drive::{Tasks, wall_clock_s},
    election,
    id::PeerId,
    identity::Identity,
    limits,
    transport::{
        Arrival, Arrivals, BindMode, CloseCode, CloseReason, Connection, DialError, Endpoint, Greeting, Link,
        ReceiveError, Receiver, Sender, Settings,
    },
    wire::{
        Message,
        bounded::{Blob, List},
        descriptor::{Descriptor, Endorsement, ShardPrefix, SignedDescriptor, network_tag},
        election::{Apply, Verdict, VerdictAnswer},
        hello::RefuseReason,
        leaf::IntroductionFailure,
        mesh::{
            Aged, AttachmentSum, Attachments, Class, DigestPart, Follow, Load, MeshIntroduced, MeshMessage, News,
            ProbeReply, ProbeResult, Proof, ProofAnswer, QueryDone, SyncWant,
        },
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

/// Things heard that may wait to be looked at.
const INBOX: usize = 1024;
/// Time for another to take a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds for which its descriptors count.
pub(super) const LIFETIME_S: u32 = 7_200;

/// See the module text.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) identity: Arc<Identity>,
    pub(super) network: String,
    pub(super) sequence: u64,
    /// The sequence at which it asked to be let in.
    admission: u64,
    endorsements: Vec<Endorsement>,
    /// How often each kind of message came.
    pub(super) heard: BTreeMap<&'static str, u64>,
    /// Messages that were sent.
    pub(super) sent: u64,
    endpoint: Endpoint,
    links: BTreeMap<u64, Wire>,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    tasks: Tasks,
}

/// Something happened.
#[derive(Debug)]
pub(super) enum Event {
    /// Another ultrapeer is linked.
    Up(Link<MeshMessage>),
    /// A linked ultrapeer said something.
    Heard(u64, Box<MeshMessage>),
    /// A link ended.
    Down(u64, CloseReason),
}

/// A link: the streams on which this side sends, each opened when it is first needed.
#[derive(Debug)]
struct Wire {
    connection: Connection,
    control: Sender<MeshMessage>,
    others: BTreeMap<Class, Sender<MeshMessage>>,
}

/// A key made for this run.
pub(super) fn fresh() -> Result<Arc<Identity>> {
    Ok(Arc::new(Identity::generate()?))
}

/// What a node of that name is bound with.
pub(super) fn settings(network: &str) -> Settings {
    let agent = format!("quictrack-fault/{}", env!("CARGO_PKG_VERSION"));
    Settings { network: network.to_owned(), secret: None, agent }
}

/// A free port of loopback.
pub(super) fn anywhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Another address of loopback.
pub(super) fn elsewhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 2], 0))
}

/// A port there at which nobody listens.
pub(super) fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 2], 9))
}

impl Node {
    /// A node with a new key on a free port of loopback. Others who dial it are let in.
    pub(super) fn new(network: &str) -> Result<Self> {
        Self::of(fresh()?, anywhere(), network)
    }

    /// A node with that key and address.
    pub(super) fn of(identity: Arc<Identity>, address: SocketAddr, network: &str) -> Result<Self> {
        let (endpoint, arrivals) = Endpoint::bind(address, BindMode::Given, &identity, settings(network))?;
        let (events, inbox) = mpsc::channel(INBOX);
        let (tasks, network) = (Tasks::new(), network.to_owned());
        let sequence = wall_clock_s() << 16;
        let node = Self {
            identity,
            network,
            sequence,
            admission: sequence,
            endorsements: Vec::new(),
            heard: BTreeMap::new(),
            sent: 0,
            endpoint,
            links: BTreeMap::new(),
            events,
            inbox,
            tasks,
        };
        node.tasks.spawn("arrivals", welcome(arrivals, node.describe(), node.events.clone()));
        Ok(node)
    }

    /// Dials an ultrapeer. It is linked once [`Self::next`] says so.
    pub(super) async fn dial(&self, victim: SocketAddr) -> Result<(), DialError> {
        let dialled = self.endpoint.dial(victim, None, Greeting::default()).await?;
        // The receiver lives in this node.
        let _ = self.events.send(Event::Up(dialled.link)).await;
        Ok(())
    }

    pub(super) fn peer(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// Its own descriptor as it is now.
    pub(super) fn describe(&self) -> SignedDescriptor {
        self.own().sign_endorsed(&self.identity, self.endorsements.iter().copied())
    }

    /// That it withdraws, and after that what it would say with the votes that it had.
    pub(super) fn withdraw_and_return(&mut self) -> (SignedDescriptor, SignedDescriptor) {
        self.sequence += 1;
        let farewell = Descriptor { lifetime_s: 0, ..self.own() }.sign(&self.identity);
        self.sequence += 1;
        (farewell, self.describe())
    }

    fn own(&self) -> Descriptor {
        Descriptor { admission: self.admission, ..self.descriptor(&self.identity, self.sequence) }
    }

    /// Gets in as an honest node does: asks the ultrapeer at `victim`, and as many others as it takes, for their votes.
    ///
    /// # Errors
    /// The victim is not reached, or nobody votes for this node in time.
    pub(super) async fn enter(&mut self, victim: SocketAddr) -> Result<Result<(), DialError>> {
        if let Err(error) = self.dial(victim).await {
            return Ok(Err(error));
        }
        let (mut known, mut again) = (BTreeSet::new(), Instant::now() + limits::APPLY_SOON);
        let asked = async {
            // Of a network of one or two, one vote is enough.
            while known.is_empty() || self.endorsements.len() < election::needed(known.len() as u32) {
                let Ok(event) = timeout_at(again, self.next()).await else {
                    again += limits::APPLY_SOON;
                    // A voter that did not get through to it says so, and is asked again.
                    for link in self.links.keys().copied().collect::<Vec<_>>() {
                        self.send(link, [self.application().into()]).await;
                    }
                    continue;
                };
                match event.context("the node lives as long as this")? {
                    Event::Up(link) => {
                        known.insert(link.connection.peer());
                        let link = self.open(link);
                        // It tells of the others before it answers.
                        let all = SyncWant { buckets: [0xff; limits::SYNC_BUCKETS / 8] };
                        self.send(link, [all.into(), self.application().into()]).await;
                    }
                    Event::Heard(link, message) => {
                        if let MeshMessage::News(news) = &*message {
                            for member in news.members.iter().filter_map(|member| member.descriptor.open().ok()) {
                                if member.lifetime_s > 0 && member.peer != self.peer() && known.insert(member.peer) {
                                    // Who cannot be reached is not asked.
                                    let _ = self.dial(member.address).await;
                                }
                            }
                        }
                        self.take_vote(link, &message);
                        let said = self.honest(&message);
                        self.send(link, said).await;
                    }
                    Event::Down(link, reason) => {
                        self.forget(link);
                        ensure!(!self.links.is_empty(), "nobody lets it in: {reason}");
                    }
                }
            }
            Ok(())
        };
        timeout(PATIENCE, asked).await.context("nobody votes for it")??;
        self.sequence += 1;
        Ok(Ok(()))
    }

    fn application(&self) -> Apply {
        Apply { descriptor: self.describe(), invitations: List::default(), meeting: false }
    }

    /// Asks to be let in at an address that is not its own.
    pub(super) async fn apply_from(&mut self, link: u64, address: SocketAddr) {
        let descriptor = Descriptor { address, ..self.own() }.sign(&self.identity);
        self.send(link, [Apply { descriptor, invitations: List::default(), meeting: false }.into()]).await;
    }

    /// Answers nobody until somebody says that it is gone, or nobody talks to it any more.
    pub(super) async fn is_held_for_gone(&mut self) {
        let me = self.peer();
        while let Some(event) = self.next().await {
            match event {
                Event::Up(link) => drop(self.open(link)),
                Event::Down(link, _) => drop(self.forget(link)),
                Event::Heard(_, message) => {
                    let gone =
                        matches!(&*message, MeshMessage::News(news) if news.gone.iter().any(|claim| claim.peer == me));
                    if gone {
                        return;
                    }
                }
            }
            if self.links.is_empty() {
                return;
            }
        }
    }

    fn take_vote(&mut self, link: u64, message: &MeshMessage) {
        let MeshMessage::Verdict(Verdict { answer: VerdictAnswer::Endorsed(endorsement), .. }) = message else {
            return;
        };
        let voter = self.peer_at(link).filter(|voter| endorsement.is_by(voter, &self.own()));
        if voter.is_some() && self.endorsements.iter().all(|known| known.by != endorsement.by) {
            self.endorsements.push(*endorsement);
        }
    }

    /// What a node of that key would say of itself, at this node's address.
    pub(super) fn descriptor(&self, identity: &Identity, sequence: u64) -> Descriptor {
        Descriptor {
            peer: identity.peer_id(),
            network: network_tag(&self.network),
            address: self.endpoint.local_address(),
            shard: ShardPrefix::ALL,
            capacity: 1000,
            sequence,
            lifetime_s: LIFETIME_S,
            admission: 0,
            volunteer: false,
        }
    }

    /// What it is about: its own descriptor, and that it wants to be told of leaves.
    pub(super) fn introduction(&self) -> Vec<MeshMessage> {
        vec![news([aged(self.describe(), 0)]), Follow { prefix: ShardPrefix::ALL }.into()]
    }

    /// The next thing that happens. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Option<Event> {
        let event = self.inbox.recv().await?;
        if let Event::Heard(_, message) = &event {
            *self.heard.entry(message.name()).or_default() += 1;
        }
        Some(event)
    }

    /// Takes a link into use; its number.
    pub(super) fn open(&mut self, link: Link<MeshMessage>) -> u64 {
        let Link { connection, sender, receiver } = link;
        let id = connection.id();
        self.tasks.spawn("control", listen(id, receiver, self.events.clone()));
        self.tasks.spawn("streams", streams(id, connection.clone(), self.events.clone(), self.tasks.clone()));
        self.links.insert(id, Wire { connection, control: sender, others: BTreeMap::new() });
        id
    }

    /// Forgets a link that ended. False if it was forgotten before.
    pub(super) fn forget(&mut self, link: u64) -> bool {
        self.links.remove(&link).is_some()
    }

    /// The links, oldest first.
    pub(super) fn links(&self) -> Vec<u64> {
        self.links.keys().copied().collect()
    }

    /// Who is at the other end.
    pub(super) fn peer_at(&self, link: u64) -> Option<PeerId> {
        self.links.get(&link).map(|wire| wire.connection.peer())
    }

    /// Sends over a link, on the stream where the message belongs. A link that takes nothing ends, which
    /// [`Self::next`] tells.
    pub(super) async fn send(&mut self, link: u64, messages: impl IntoIterator<Item = MeshMessage>) {
        for message in messages {
            let Some(wire) = self.links.get_mut(&link) else { return };
            let connection = wire.connection.clone();
            match timeout(PATIENCE, wire.send(&message)).await {
                Ok(Ok(())) => self.sent += 1,
                Ok(Err(_)) => return,
                Err(_) => return connection.close(CloseCode::Silent),
            }
        }
    }

    /// What an honest node answers.
    pub(super) fn honest(&mut self, message: &MeshMessage) -> Vec<MeshMessage> {
        let (me, sequence) = (self.peer(), self.sequence);
        match message {
            MeshMessage::Probe(probe) => {
                vec![ProbeReply { token: probe.token, load: Load { leaves: 0, capacity: 1000 } }.into()]
            }
            MeshMessage::ProbeFor(ask) => {
                vec![ProbeResult { token: ask.token, target: ask.target, reached: false }.into()]
            }
            MeshMessage::Follow(_) => vec![log(true, [], AttachmentSum::default())],
            MeshMessage::DigestWant(want) => want.digests.iter().map(|name| not_there(*name)).collect(),
            MeshMessage::ProofAsk(ask) => vec![Proof { ask: *ask, answer: ProofAnswer::Gone }.into()],
            MeshMessage::Query(query) => vec![QueryDone { id: query.id, ..QueryDone::default() }.into()],
            MeshMessage::Introduce(ask) => {
                vec![MeshIntroduced { session: ask.session, answer: Err(IntroductionFailure::TargetGone) }.into()]
            }
            // Who holds it for gone or suspects it is told better.
            MeshMessage::News(News { gone: claims, .. }) if claims.iter().any(|claim| claim.peer == me) => {
                let newest = claims.iter().filter(|claim| claim.peer == me).map(|claim| claim.sequence).max();
                self.sequence = sequence.max(newest.unwrap_or(0)).saturating_add(1);
                vec![news([aged(self.describe(), 0)])]
            }
            MeshMessage::Suspect(suspect) if suspect.suspects.iter().any(|claim| claim.peer == me) => {
                self.sequence = sequence.saturating_add(1);
                vec![news([aged(self.describe(), 0)])]
            }
            _ => Vec::new(),
        }
    }

    /// Ends all links without a word.
    pub(super) fn vanish(&self) {
        self.tasks.cancel();
        self.endpoint.close(CloseCode::Done);
    }

    /// Ends all links as a node that stops in order.
    pub(super) fn leave(&self) {
        self.tasks.cancel();
        self.endpoint.close(CloseCode::Shutdown);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.vanish();
    }
}

impl Wire {
    async fn send(&mut self, message: &MeshMessage) -> Result<()> {
        let class = message.class();
        let stream = match class {
            Class::Control => &mut self.control,
            _ => {
                if !self.others.contains_key(&class) {
                    let stream = self.connection.open_one_way().await?;
                    self.others.insert(class, stream);
                }
                self.others.get_mut(&class).context("a stream that was just opened")?
            }
        };
        Ok(stream.send(message).await?)
    }
}

/// News of these descriptors.
pub(super) fn news(members: impl IntoIterator<Item = Aged>) -> MeshMessage {
    News { members: List::new(members), gone: List::default() }.into()
}

/// A descriptor and the age that is claimed of it.
pub(super) fn aged(descriptor: SignedDescriptor, age_s: u32) -> Aged {
    Aged { descriptor, age_s }
}

/// A log that is at its end with a sum.
pub(super) fn log(
    reset: bool,
    changes: impl IntoIterator<Item = overlay::wire::mesh::AttachmentChange>,
    sum: AttachmentSum,
) -> MeshMessage {
    Attachments { reset, caught_up: Some(sum), changes: List::new(changes) }.into()
}

/// That a digest is not there.
pub(super) fn not_there(name: overlay::wire::mesh::DigestName) -> MeshMessage {
    DigestPart { name, bytes: 0, last: true, data: Blob::default() }.into()
}

async fn welcome(mut arrivals: Arrivals, descriptor: SignedDescriptor, events: mpsc::Sender<Event>) {
    while let Some(arrival) = arrivals.next().await {
        match arrival {
            Arrival::Mesh(offer) => {
                if let Ok(link) = offer.welcome(Some(descriptor.clone())).await {
                    // Nobody listens: the node ends.
                    let _ = events.send(Event::Up(link)).await;
                }
            }
            Arrival::Leaf(offer) => offer.refuse(RefuseReason::NotServed, Vec::new()),
            Arrival::Transfer(offer) => offer.refuse(RefuseReason::NotServed, Vec::new()),
        }
    }
}

async fn streams(id: u64, connection: Connection, events: mpsc::Sender<Event>, tasks: Tasks) {
    while let Ok(receiver) = connection.accept_one_way().await {
        tasks.spawn("stream", listen(id, receiver, events.clone()));
    }
}

async fn listen(id: u64, mut receiver: Receiver<MeshMessage>, events: mpsc::Sender<Event>) {
    loop {
        let event = match receiver.next().await {
            Ok(Some(message)) => Event::Heard(id, Box::new(message)),
            Err(ReceiveError::Closed(reason)) => Event::Down(id, reason),
            Ok(None) | Err(_) => return,
        };
        let is_end = matches!(event, Event::Down(..));
        if events.send(event).await.is_err() || is_end {
            return;
        }
    }
}
