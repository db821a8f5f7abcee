//! Uploads: answers what other leaves ask on their connections.
//!
//! ```text
//!   connection ─ accept ─> stream task ─ Open ──> session: registered with the queue, told of its slot
//!                                      ─ Want ──> pieces: slot checked, file checked, read and sent
//!                                      ─ WantFiles ─> one slot for many small files, which are sent whole
//!                                      ─ WantSegment, WantGroups, Browse ──> one answer
//! ```
//!
//! The sender hashes nothing and believes nothing: a request is judged by its session's slot, the content's
//! layout and the pieces that are here. The file must still be as it was hashed, else it is denied.
//! Invariant: on each connection at most [`limits::RUNS_AT_ONCE`] runs and [`limits::BUNDLES_AT_ONCE`] bundles of small
//! files are in memory.

mod answers;
mod files;
mod pieces;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
};

use overlay::{
    bans::Rules,
    drive::{Clock, Driver, Handle, Tasks, random_token, system_rng},
    id::{ContentId, PeerId},
    limits,
    metrics::{self, QUEUE_DROPPED},
    time::Time,
    transport::{
        CloseCode, CloseReason, Connection, Occupancy, Occupant, ReceiveError, Receiver, SendError, Sender, Windows,
    },
    verify::Layout,
    wire::{
        Message,
        bounded::List,
        transfer::{
            Appetite, Browse, Denied, DenyReason, Granted, NotHeld, Open, Opened, Other, Others, Page, Queued, Revoked,
            Suggest, TransferMessage,
        },
    },
};
use rand_pcg::Pcg64Mcg;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, watch},
    time::{interval, timeout},
};

use self::answers::{groups, segment, send_have};
use super::{
    FoundSource, Library, Via,
    holding::{Holding, Holdings},
    quotas::{Quotas, keep, save},
    throttle::Throttle,
};
use crate::{
    bitmap::Bitmap,
    file_id,
    metrics::{UPLOAD_QUEUE, UPLOADS_FINISHED, UploadResult},
    queue::{self, Queue, Refusal, SessionId},
    rate::Rate,
    store::Database,
    swarm::spread::{Told, suggested_ahead},
};

/// An upload as shown to the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Upload {
    /// Its name, never used again.
    pub id: String,
    /// Who downloads.
    #[serde(with = "file_id::text")]
    #[schemars(with = "String")]
    pub peer: PeerId,
    /// What.
    #[serde(with = "file_id::text")]
    #[schemars(with = "String")]
    pub content: ContentId,
    /// The file's name.
    pub name: String,
    /// Bytes of the content.
    pub size: u64,
    /// Bytes sent in this session.
    pub bytes: u64,
    /// Bytes a second now.
    pub rate: u64,
    /// Whether it has a slot.
    pub state: UploadState,
    /// How the peer is connected.
    pub via: Via,
    /// Its place in the queue, from 1; `None` with a slot.
    pub queue_position: Option<u32>,
}

/// Whether an upload has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UploadState {
    /// It waits for one.
    Queued,
    /// It has one.
    Active,
}

/// How busy the uploads are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Slots that are free.
    pub free_slots: usize,
    /// Sessions that wait.
    pub queue: usize,
}

/// Where a session stands in the queue, as its task last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting { position: u32, revoked_at: Option<Time> },
    Granted { turn_bytes: u64 },
    Refused(Refusal),
}

/// A content that somebody fetches.
#[derive(Debug)]
struct Session {
    turn: Arc<Turn>,
    homes: Vec<PeerId>,
    holding: Arc<Holding>,
    /// Pieces that were asked for.
    asked: watch::Sender<u64>,
}

/// What stands in the queue for a slot: the session of one content, or a bundle of small files.
#[derive(Debug)]
struct Turn {
    id: SessionId,
    name: String,
    peer: PeerId,
    via: Via,
    /// What is sent, or was last.
    shown: Mutex<Shown>,
    place: watch::Sender<Place>,
    /// Bytes of that which were sent.
    sent: AtomicU64,
    /// True once anything was.
    served: AtomicBool,
    rate: Mutex<Rate>,
}

/// A content as it is shown to the user.
#[derive(Debug)]
struct Shown {
    content: ContentId,
    name: String,
    size: u64,
}

impl Turn {
    /// True if requests are answered now.
    fn may_ask(&self, now: Time) -> bool {
        match *self.place.borrow() {
            Place::Granted { .. } => true,
            Place::Waiting { revoked_at: Some(at), .. } => now < at + limits::REVOKED_GRACE,
            Place::Waiting { .. } | Place::Refused(_) => false,
        }
    }

    fn show(&self, now: Time) -> Upload {
        let (state, queue_position) = match *self.place.borrow() {
            Place::Granted { .. } => (UploadState::Active, None),
            Place::Waiting { position, .. } => (UploadState::Queued, (position > 0).then_some(position)),
            Place::Refused(_) => (UploadState::Queued, None),
        };
        let shown = lock(&self.shown);
        Upload {
            id: self.name.clone(),
            peer: self.peer,
            content: shown.content,
            name: shown.name.clone(),
            size: shown.size,
            bytes: self.sent.load(Ordering::Relaxed),
            rate: lock(&self.rate).shown(now),
            state,
            via: self.via,
            queue_position,
        }
    }
}

/// What the user gives to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// Uploads at the same time, besides the optimistic one.
    pub slots: usize,
    /// Bytes a second for all together; `None` is no limit.
    pub rate: Option<u64>,
    /// Bytes that one peer may have in a day; `None` is no limit.
    pub quota: Option<u64>,
}

/// Serves contents and pages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Uploads {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    library: Arc<dyn Library>,
    holdings: Holdings,
    bans: watch::Receiver<Arc<Rules>>,
    queue: Handle<Queue>,
    throttle: Throttle,
    clock: Clock,
    tasks: Tasks,
    next_session: AtomicU64,
    turns: Mutex<BTreeMap<SessionId, Arc<Turn>>>,
    places: Occupancy,
    load: watch::Sender<Load>,
}

/// What the streams of one connection share.
#[derive(Debug)]
struct Client {
    connection: Connection,
    via: Via,
    sessions: Mutex<BTreeMap<ContentId, Arc<Session>>>,
    /// Contents that it was sent something of since it last complained of them.
    served: Mutex<BTreeSet<ContentId>>,
    runs: Semaphore,
    bundles: Semaphore,
    /// The priority of the next run, below those before it. It would wrap after 2^31 runs.
    next_priority: AtomicI32,
}

impl Uploads {
    /// Starts the queue, sending no more than is `given`, and nothing that `bans` block. `holdings` are shared with the
    /// downloads; what peers have of their quotas is kept in `database`. Fails only where the system has no randomness.
    pub fn start(
        database: Arc<Database>,
        library: Arc<dyn Library>,
        holdings: Holdings,
        bans: watch::Receiver<Arc<Rules>>,
        given: UploadLimits,
        clock: Clock,
        tasks: Tasks,
    ) -> io::Result<Self> {
        let UploadLimits { slots, rate, quota } = given;
        let mut queue = Queue::new(slots, quota);
        let quotas = Quotas::restore(database, clock.now(), &mut queue);
        let (handle, driver) = Driver::new(queue);
        let shared = Arc::new(Shared {
            library,
            holdings,
            bans,
            queue: handle,
            throttle: Throttle::new(clock, rate),
            clock,
            tasks: tasks.clone(),
            next_session: AtomicU64::new(0),
            turns: Mutex::new(BTreeMap::new()),
            places: Occupancy::new(limits::TRANSFER_CONNECTIONS, limits::TRANSFER_CONNECTIONS_PER_PREFIX),
            load: watch::Sender::new(Load { free_slots: slots + 1, queue: 0 }),
        });
        let (rng, token) = (system_rng()?, tasks.token());
        let carrier = Arc::clone(&shared);
        tasks.spawn("upload quotas", keep(quotas.clone(), shared.queue.clone(), clock));
        // It must record what was used even when everything ends.
        tasks.spawn_to_end("upload queue", async move {
            let queue = driver.run(clock, rng, token, |now, output| carrier.carry_out(now, output)).await;
            save(quotas, queue.used(clock.now())).await;
        });
        Ok(Self { shared })
    }

    /// Room for one more connection from `address`; `None` if there are too many, in all or of its prefix.
    pub fn room(&self, address: IpAddr) -> Option<Occupant> {
        self.shared.places.take(address)
    }

    /// Answers everything on a welcomed transfer connection, for which there was `room`, until it ends, or asks for
    /// nothing for [`limits::TRANSFER_IDLE`].
    pub fn serve(&self, connection: Connection, via: Via, room: Occupant) {
        let shared = Arc::clone(&self.shared);
        let failed = connection.clone();
        connection.set_windows(Windows::Bulk);
        self.shared.tasks.spawn_guarded("uploads to a peer", shared.accept(connection, via, room), move || {
            failed.close(CloseCode::Failure);
        });
    }

    /// The uploads, oldest first.
    pub fn list(&self) -> Vec<Upload> {
        let now = self.shared.clock.now();
        lock(&self.shared.turns).values().map(|turn| turn.show(now)).collect()
    }

    /// How busy the uploads are, and changes of that.
    pub fn watch(&self) -> watch::Receiver<Load> {
        self.shared.load.subscribe()
    }

    /// Changes the number of slots.
    pub async fn set_slots(&self, slots: usize) {
        // Without a queue the node is ending.
        let _ = self.shared.queue.input(queue::Input::SetSlots(slots)).await;
        self.shared.update_load();
    }

    /// Changes the bytes that one peer may have in a day.
    pub async fn set_quota(&self, quota: Option<u64>) {
        // Without a queue the node is ending.
        let _ = self.shared.queue.input(queue::Input::SetQuota(quota)).await;
        self.shared.update_load();
    }

    /// Changes the rate limit, in bytes a second.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.shared.throttle.set_rate(rate);
    }
}

impl Shared {
    fn carry_out(self: &Arc<Self>, now: Time, output: queue::Output) {
        let (session, place) = match output {
            queue::Output::Grant { session, turn_bytes } => (session, Place::Granted { turn_bytes }),
            queue::Output::Revoke { session, position } => {
                (session, Place::Waiting { position, revoked_at: Some(now) })
            }
            queue::Output::Position { session, position } => (session, Place::Waiting { position, revoked_at: None }),
            queue::Output::Refuse { session, why } => (session, Place::Refused(why)),
        };
        if let Some(turn) = lock(&self.turns).get(&session) {
            turn.place.send_modify(|current| {
                *current = match (*current, place) {
                    // A new position keeps the grace of a slot that was just taken back.
                    (Place::Waiting { revoked_at, .. }, Place::Waiting { position, revoked_at: None }) => {
                        Place::Waiting { position, revoked_at }
                    }
                    _ => place,
                };
            });
        }
        self.update_load();
    }

    /// Looks at the queue soon: its driver is not waited for here.
    fn update_load(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        self.tasks.spawn("upload load", async move {
            let look = |queue: &Queue| Load { free_slots: queue.free_slots(), queue: queue.len() };
            if let Ok(load) = shared.queue.inspect(look).await {
                shared.load.send_if_modified(|last| std::mem::replace(last, load) != load);
            }
        });
    }

    async fn accept(self: Arc<Self>, connection: Connection, via: Via, _room: Occupant) {
        let client = Arc::new(Client {
            connection: connection.clone(),
            via,
            sessions: Mutex::new(BTreeMap::new()),
            served: Mutex::default(),
            runs: Semaphore::new(limits::RUNS_AT_ONCE),
            bundles: Semaphore::new(limits::BUNDLES_AT_ONCE),
            next_priority: AtomicI32::new(-1),
        });
        loop {
            let (sender, receiver) = match timeout(limits::TRANSFER_IDLE, connection.accept::<TransferMessage>()).await
            {
                Ok(Ok(stream)) => stream,
                Ok(Err(_)) => return,
                // Each stream that is being answered holds the client as well.
                Err(_) if Arc::strong_count(&client) > 1 => continue,
                Err(_) => return connection.close(CloseCode::Done),
            };
            let (shared, client) = (Arc::clone(&self), Arc::clone(&client));
            let failed = connection.clone();
            let task = async move {
                if let Err(error) = shared.answer(&client, sender, receiver).await {
                    tracing::debug!(peer = ?client.connection.peer(), %error, "an upload stream ended");
                }
            };
            self.tasks.spawn_guarded("upload stream", task, move || failed.close(CloseCode::Failure));
        }
    }

    async fn answer(
        self: &Arc<Self>,
        client: &Arc<Client>,
        mut sender: Sender<TransferMessage>,
        mut receiver: Receiver<TransferMessage>,
    ) -> Result<(), StreamError> {
        let Some(request) = receiver.next().await? else { return Ok(()) };
        match request {
            TransferMessage::Open(open) => return self.session(client, open, sender, receiver).await,
            TransferMessage::Want(want) => self.pieces(client, want, &mut sender).await?,
            TransferMessage::WantPart(want) => self.part(client, want, &mut sender).await?,
            TransferMessage::WantFiles(want) => self.files(client, want, &mut sender).await?,
            TransferMessage::Spoiled(spoiled) => self.spoiled(client, spoiled).await,
            TransferMessage::WantSegment(want) => sender.send(&segment(client, want)).await?,
            TransferMessage::WantGroups(want) => sender.send(&groups(client, want).await).await?,
            TransferMessage::Browse(browse) => sender.send(&self.page(browse).await).await?,
            _ => {
                client.connection.reject();
                return Ok(());
            }
        }
        sender.finish()?;
        Ok(())
    }

    async fn session(
        self: &Arc<Self>,
        client: &Arc<Client>,
        open: Open,
        mut sender: Sender<TransferMessage>,
        mut receiver: Receiver<TransferMessage>,
    ) -> Result<(), StreamError> {
        let registered = match self.holding(open.content).await {
            Ok(holding) => self.register(client, holding, open.homes.into_vec()),
            Err(reason) => Err(reason),
        };
        let registration = match registered {
            Ok(registration) => registration,
            Err(reason) => {
                sender.send(&NotHeld { reason }.into()).await?;
                sender.finish()?;
                return Ok(());
            }
        };
        let (session, turn) = (&registration.session, &registration.session.turn);
        let asked_at = self.clock.now();
        let mut waited = false;
        let mut bans = self.bans.clone();
        let mut place = turn.place.subscribe();
        let copies = self.holdings.copies(&open.content);
        let join = queue::Input::Join { session: turn.id, peer: turn.peer, copies };
        self.queue.input(join).await.map_err(|_| StreamError::Ending)?;
        let holding = &session.holding;
        let (mut news, mut others) = (interval(limits::HAVE_INTERVAL), interval(limits::OTHERS_INTERVAL));
        let (mut asked, mut suggested) = (session.asked.subscribe(), 0);
        let mut named = Told::default();
        let mut rng = system_rng().map_err(|_| StreamError::Ending)?;
        let mut told = holding.have();
        let complete = told.is_full();
        let tops = List::new(holding.tops().iter().copied());
        sender.send(&Opened { size: holding.layout().size(), complete, tops }.into()).await?;
        if !complete {
            send_have(&mut sender, &Bitmap::new(told.len()), &told, true).await?;
        }
        // What was told last: position 0 is nothing yet.
        let mut last = Place::Waiting { position: 0, revoked_at: None };
        loop {
            let current = *place.borrow_and_update();
            match (last, current) {
                (_, Place::Refused(why)) => {
                    if why == Refusal::Full {
                        QUEUE_DROPPED.increment(metrics::Queue::Upload);
                    }
                    let reason = if why == Refusal::Quota { DenyReason::Quota } else { DenyReason::Busy };
                    sender.send(&NotHeld { reason }.into()).await?;
                    sender.finish()?;
                    return Ok(());
                }
                (Place::Waiting { .. }, Place::Granted { turn_bytes }) => {
                    if !std::mem::replace(&mut waited, true) {
                        UPLOAD_QUEUE.record_span((), self.clock.now().since(asked_at));
                    }
                    // Before the slot, or the first requests would not know it.
                    suggest(&mut sender, holding, suggested_ahead(holding.layout().piece_bytes())).await?;
                    sender.send(&Granted { turn_bytes }.into()).await?;
                }
                (Place::Granted { .. }, Place::Waiting { position, .. }) => {
                    sender.send(&Revoked { position }.into()).await?;
                }
                (Place::Waiting { position: old, .. }, Place::Waiting { position, .. }) if old != position => {
                    sender.send(&Queued { position }.into()).await?;
                }
                _ => {}
            }
            last = current;
            let growing = !told.is_full();
            tokio::select! {
                // The registration holds the other end.
                _ = place.changed() => {}
                Ok(()) = bans.changed() => if bans.borrow_and_update().blocks(&holding.content()) {
                    sender.send(&NotHeld { reason: DenyReason::Blocked }.into()).await?;
                    sender.finish()?;
                    return Ok(());
                },
                _ = news.tick(), if growing => {
                    let now = holding.have();
                    if now != told {
                        send_have(&mut sender, &told, &now, false).await?;
                        told = now;
                    }
                }
                _ = others.tick() => self.send_others(&mut sender, session, &mut named, &mut rng).await?,
                // Ahead of the next request, so that it need not choose by itself.
                Ok(()) = asked.changed() => {
                    let total = *asked.borrow_and_update();
                    let more = (total - std::mem::replace(&mut suggested, total)).min(limits::RUN_PIECES.into());
                    suggest(&mut sender, holding, more as u32).await?;
                }
                message = receiver.next() => match message? {
                    None => return Ok(()),
                    Some(TransferMessage::Appetite(Appetite { wants })) => self.rest(session, !wants).await?,
                    Some(_) => {
                        client.connection.reject();
                        return Ok(());
                    }
                },
            }
        }
    }

    /// The holding of a content: one that is open already, or a file of the library.
    async fn holding(&self, content: ContentId) -> Result<Arc<Holding>, DenyReason> {
        if self.bans.borrow().blocks(&content) {
            return Err(DenyReason::Blocked);
        }
        if let Some(holding) = self.holdings.find(&content).filter(|holding| holding.is_unchanged()) {
            return Ok(holding);
        }
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, content = %content.short(), "a shared file cannot be served");
            DenyReason::NotHeld
        };
        let local = self.library.open(content).await.map_err(|error| failed(&error))?.ok_or(DenyReason::NotHeld)?;
        let size = local.file.metadata().map_err(|error| failed(&error))?.len();
        let layout = Layout::new(size).map_err(|error| failed(&error))?;
        if layout.segments() > limits::TOPS as u64 {
            return Err(DenyReason::NotHeld);
        }
        let pieces = self.library.pieces(content, size).await.map_err(|error| failed(&error))?;
        // The file is here; its values were lost or damaged, and are made anew now.
        let pieces = pieces.ok_or(DenyReason::Busy)?;
        let name = local.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let holding = Holding::whole(content, name, local.file, &pieces).map_err(|error| failed(&error))?;
        let holding = Arc::new(holding);
        self.holdings.add(&holding);
        Ok(holding)
    }

    /// A session that wants nothing for now gives its slot or its turn to others; one that wants again lines up again.
    async fn rest(&self, session: &Session, rests: bool) -> Result<(), StreamError> {
        let (id, peer) = (session.turn.id, session.turn.peer);
        let input = if rests {
            queue::Input::Leave(id)
        } else {
            queue::Input::Join { session: id, peer, copies: self.holdings.copies(&session.holding.content()) }
        };
        self.queue.input(input).await.map_err(|_| StreamError::Ending)?;
        if rests {
            // What the queue decided before it heard of this has been told then.
            self.queue.inspect(|_| ()).await.map_err(|_| StreamError::Ending)?;
            let revoked_at = Some(self.clock.now());
            session.turn.place.send_replace(Place::Waiting { position: 0, revoked_at });
        }
        Ok(())
    }

    /// Names others who have something of the content, if there are any.
    async fn send_others(
        &self,
        sender: &mut Sender<TransferMessage>,
        session: &Session,
        told: &mut Told,
        rng: &mut Pcg64Mcg,
    ) -> Result<(), StreamError> {
        let others =
            self.holdings.others_for(self.clock.now(), &session.holding.content(), &session.turn.peer, told, rng);
        if !others.is_empty() {
            let named = |other: FoundSource| Other { peer: other.peer, homes: List::new(other.homes) };
            sender.send(&Others { others: List::new(others.into_iter().map(named)) }.into()).await?;
        }
        Ok(())
    }

    fn register(
        self: &Arc<Self>,
        client: &Arc<Client>,
        holding: Arc<Holding>,
        homes: Vec<PeerId>,
    ) -> Result<Registration, DenyReason> {
        let mut sessions = lock(&client.sessions);
        if sessions.len() >= limits::UPLOAD_QUEUE_PER_PEER || sessions.contains_key(&holding.content()) {
            return Err(DenyReason::Busy);
        }
        let (content, name) = (holding.content(), holding.name().to_owned());
        let entry = self.enter(client, Shown { content, name, size: holding.layout().size() })?;
        let turn = Arc::clone(&entry.turn);
        let session = Arc::new(Session { turn, homes, holding, asked: watch::Sender::new(0) });
        sessions.insert(content, Arc::clone(&session));
        Ok(Registration { client: Arc::clone(client), session, _entry: entry })
    }

    /// Enters somebody in the table who will stand in the queue.
    fn enter(self: &Arc<Self>, client: &Arc<Client>, shown: Shown) -> Result<Entry, DenyReason> {
        let name = random_token().map_err(|_| DenyReason::Busy)?;
        let turn = Arc::new(Turn {
            id: SessionId(self.next_session.fetch_add(1, Ordering::Relaxed)),
            name: file_id::short_id(name),
            peer: client.connection.peer(),
            via: client.via,
            shown: Mutex::new(shown),
            place: watch::Sender::new(Place::Waiting { position: 0, revoked_at: None }),
            sent: AtomicU64::new(0),
            served: AtomicBool::new(false),
            rate: Mutex::default(),
        });
        lock(&self.turns).insert(turn.id, Arc::clone(&turn));
        Ok(Entry { shared: Arc::clone(self), client: Arc::clone(client), turn })
    }

    /// A page that fits its frame.
    async fn page(&self, browse: Browse) -> TransferMessage {
        let mut limit = usize::from(browse.limit).clamp(1, limits::PAGE_ENTRIES);
        loop {
            let request = Browse { limit: limit as u16, ..browse.clone() };
            let Some(page) = self.library.browse(request).await else {
                return Denied { reason: DenyReason::NotHeld }.into();
            };
            let message = TransferMessage::from(page);
            let mut body = Vec::new();
            message.encode_body(&mut body);
            if body.len() <= limits::PAGE_BYTES {
                return message;
            }
            if limit == 1 {
                // One entry alone is far below the cap; an empty page ends the listing.
                return Page::default().into();
            }
            // Entries have similar sizes: this share of them should fit.
            limit = (limit * limits::PAGE_BYTES / body.len() * 9 / 10).max(1);
        }
    }
}

/// A session in the table of its connection. Dropping it takes it out.
#[derive(Debug)]
struct Registration {
    client: Arc<Client>,
    session: Arc<Session>,
    _entry: Entry,
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.client.sessions).remove(&self.session.holding.content());
    }
}

/// Somebody who stands in the queue or has a slot. Dropping it takes them out of the table and of the queue.
#[derive(Debug)]
struct Entry {
    shared: Arc<Shared>,
    client: Arc<Client>,
    turn: Arc<Turn>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let broken = self.client.connection.close_reason();
        let in_order = matches!(broken, None | Some(CloseReason::Remote(CloseCode::Done)));
        let served = in_order && self.turn.served.load(Ordering::Relaxed);
        UPLOADS_FINISHED.increment(if served { UploadResult::Ok } else { UploadResult::Aborted });
        lock(&self.shared.turns).remove(&self.turn.id);
        let (shared, session) = (Arc::clone(&self.shared), self.turn.id);
        self.shared.tasks.spawn("upload leave", async move {
            // Without a queue the node is ending.
            let _ = shared.queue.input(queue::Input::Leave(session)).await;
            shared.update_load();
        });
    }
}

/// Suggests pieces, if there is anything to choose.
async fn suggest(sender: &mut Sender<TransferMessage>, holding: &Holding, most: u32) -> Result<(), StreamError> {
    if let Some(run) = holding.suggest(most) {
        sender.send(&Suggest { first: run.first, count: run.count }.into()).await?;
    }
    Ok(())
}

/// Why a stream ended early.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("the file cannot be read")]
    Read,
    #[error("this node is ending")]
    Ending,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
