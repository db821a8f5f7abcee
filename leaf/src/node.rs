//! A leaf, whole: shares, network, searches, uploads and downloads on one endpoint.
//!
//! ```text
//!   shares ──catalog──> network (homes) <──searches, wishes
//!     └──── library ──> uploads <── other leaves
//!                       downloads ── reach, find ──> network
//! ```
//!
//! The node owns the parts and their order: nothing is announced before it can be served, and at the end
//! the homes hear good-bye before the sockets close.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use overlay::{
    address::JoinAddress,
    admin::{
        error::{ApiError, Code},
        events::{Changes, EventRing},
    },
    bans::keeper::Known,
    config::Origin,
    console::Failure,
    drive::{Clock, Tasks, random_token},
    election::Regime,
    id::{ContentId, PeerId},
    identity::Identity,
    limits,
    list_file::ListError,
    metrics::Role as NodeRole,
    remembered::{Remembered, Volunteers},
    shared_folders::SharedFolders,
    time::Time,
    transport::{Arrival, Arrivals, Endpoint},
    wire::{
        descriptor::SignedDescriptor,
        hello::{Contact, RefuseReason},
        transfer::{Browse, Page, TransferMessage},
    },
    wish_list::WishList,
};
use tokio::task::JoinHandle;

use crate::{
    download::{self, Downloads},
    history::{Chart, History, Rates},
    network::{self, Service as Network},
    role::{self, Role},
    searches::Searches,
    store::{
        Database, DatabaseError, Outboards, Share, ShareSpec, Shares, SharesConfig, SharesError, StoreError,
        check_slowly,
    },
    transfer::{
        ReachError,
        holding::Holdings,
        pool::Pool,
        serve::{UploadLimits, Uploads},
        session,
    },
    wishes::book::{self, Book as Wishes},
};

/// What a leaf is started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// The name of the network.
    pub network: String,
    /// What it asks of its ultrapeers.
    pub regime: Regime,
    /// Nodes to join through.
    pub join: Vec<JoinAddress>,
    /// Whether nodes are looked for in other ways, too: by names, in the local network, in the DHT.
    pub seeks: bool,
    /// Where the database, the outboards and the list of ultrapeers lie.
    pub data: PathBuf,
    /// What is shared, and where downloads go.
    pub shares: SharesConfig,
    /// What is given to others.
    pub uploads: UploadLimits,
    /// Bytes a second for all downloads.
    pub download_rate: Option<u64>,
    /// When it is an ultrapeer, too, and what it takes then.
    pub role: role::Settings,
}

/// Why a leaf does not start. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database, or what it says, cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no random numbers.
    #[error("the system has no random numbers: {0}")]
    Random(#[from] std::io::Error),
    /// The list of folders that were shared at run time, or that of wishes, cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::List(error) => error.into(),
            StartError::Store(StoreError::Database(DatabaseError::Full)) => {
                Self::new(Code::DiskFull, error.to_string()).hint("make room on the disk of the data folder")
            }
            other => Self::new(Code::Internal, other.to_string()).hint("check the data folder and its disk"),
        }
    }
}

/// A running leaf. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    network_name: String,
    network: Network,
    role: Role,
    shares: Shares,
    searches: Searches,
    wishes: Wishes,
    uploads: Uploads,
    downloads: Downloads,
    pool: Arc<Pool>,
    events: Arc<EventRing>,
    clock: Clock,
    started: Time,
    history: Mutex<History>,
    tasks: Tasks,
    remembered: Mutex<(Remembered, Volunteers)>,
    scanner: Mutex<Option<JoinHandle<()>>>,
    data_folder: PathBuf,
    database: Arc<Database>,
    /// Folders that were shared at run time.
    shared_at_run_time: tokio::sync::Mutex<SharedFolders>,
}

/// Records that a folder is shared, or no more. If that fails, what was recorded stays.
async fn record_share(recorded: &mut SharedFolders, path: PathBuf, shared: bool) -> Result<(), SharesError> {
    let mut changed = recorded.clone();
    let record = move || changed.set(&path, shared).map(|()| changed);
    *recorded = tokio::task::spawn_blocking(record).await.map_err(|_| SharesError::Stopped)??;
    Ok(())
}

/// The folders shared at run time that are not configured as well.
fn run_time_shares(recorded: &SharedFolders, configured: &[ShareSpec]) -> Vec<ShareSpec> {
    let new = recorded.paths().filter(|path| configured.iter().all(|share| share.path != *path));
    new.map(|path| ShareSpec { path: path.to_owned(), origin: Origin::Settings }).collect()
}

impl Node {
    /// Starts a leaf on `endpoint`. Blocks on the database for a moment; must be called inside a runtime.
    pub fn start(
        endpoint: Endpoint,
        arrivals: Arrivals,
        identity: Arc<Identity>,
        clock: Clock,
        start: Start,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let tasks = tasks.child();
        let (database, set_aside) = Database::open(&start.data.join("state.redb")).map_err(StoreError::from)?;
        if let Some(path) = set_aside {
            tracing::warn!(path = %path.display(), "the database was damaged and is made anew; the old one was set aside");
        }
        let database = Arc::new(database);
        let kept = database.clone();
        let outboards = Outboards::new(start.data.join("outboards"));
        let folder = start.shares.downloads.clone();
        let mut configured = start.shares;
        let shared_at_run_time = SharedFolders::load(&start.data)?;
        let wished = WishList::load(&start.data)?;
        configured.shares.extend(run_time_shares(&shared_at_run_time, &configured.shares));
        let (shares, scanner) = Shares::start(configured, database.clone(), outboards, tasks.token())?;
        let (remembered, known) = Remembered::load(&start.data, endpoint.peer());
        let (volunteers, others) = Volunteers::load(&start.data);
        let entering = network::Start {
            network: start.network.clone(),
            regime: start.regime,
            join: start.join.clone(),
            seeks: start.seeks,
            remembered: known,
            volunteers: others,
            willing: start.role.willing,
        };
        let list = Arc::new(shares.clone());
        let network = Network::start(endpoint.clone(), identity.clone(), list, clock, entering, &tasks)?;
        let role = Role::start(role::Parts {
            endpoint: endpoint.clone(),
            identity,
            clock,
            network: network.clone(),
            network_name: start.network.clone(),
            regime: start.regime,
            join: start.join,
            settings: start.role,
            tasks: tasks.child(),
        });
        let holdings = Holdings::default();
        let library = Arc::new(shares.clone());
        let uploads = Uploads::start(
            Arc::clone(&database),
            library.clone(),
            holdings.clone(),
            endpoint.watch_bans(),
            start.uploads,
            clock,
            tasks.child(),
        )?;
        network.serve_by(uploads.clone());
        let pool = Arc::new(Pool::new(Arc::new(network.clone())));
        let parts = download::Parts {
            own: endpoint.peer(),
            database,
            library,
            holdings,
            pool: pool.clone(),
            finder: Arc::new(network.clone()),
            bans: endpoint.watch_bans(),
            clock,
            tasks: tasks.child(),
        };
        let options = download::Options { downloads: folder, rate: start.download_rate };
        let downloads = Downloads::start(parts, options).map_err(StoreError::from)?;
        let searches = Searches::new(network.clone(), shares.clone(), downloads.clone(), clock, &tasks);
        let parts = book::Parts {
            network: network.clone(),
            searches: searches.clone(),
            downloads: downloads.clone(),
            database: kept.clone(),
        };
        let wishes = Wishes::start(parts, wished, &tasks).map_err(StoreError::from)?;
        let inner = Inner {
            endpoint,
            network_name: start.network,
            network,
            role,
            shares,
            searches,
            wishes,
            uploads,
            downloads,
            pool,
            events: Arc::new(EventRing::new(random_token()?)),
            clock,
            started: clock.now(),
            history: Mutex::default(),
            tasks,
            remembered: Mutex::new((remembered, volunteers)),
            scanner: Mutex::new(Some(scanner)),
            data_folder: start.data,
            database: kept,
            shared_at_run_time: tokio::sync::Mutex::new(shared_at_run_time),
        };
        let node = Self { inner: Arc::new(inner) };
        node.spawn_all(arrivals);
        Ok(node)
    }

    /// What it moved in the last `hours`.
    pub fn chart(&self, hours: u64) -> Chart {
        self.history().chart(self.inner.clock.now(), hours)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.inner.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node's key.
    pub fn peer(&self) -> PeerId {
        self.inner.endpoint.peer()
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// The name of its network.
    pub fn network_name(&self) -> &str {
        &self.inner.network_name
    }

    /// True if the database found its disk full, and it still is.
    pub fn is_data_disk_full(&self) -> bool {
        let free = || download::free_bytes(&self.inner.data_folder);
        self.inner.database.is_full() && free().is_none_or(|free| free < limits::DISK_MARGIN)
    }

    /// Homes and known ultrapeers.
    pub fn network(&self) -> &Network {
        &self.inner.network
    }

    /// Whether it is an ultrapeer, too.
    pub fn role(&self) -> &Role {
        &self.inner.role
    }

    /// True if it is in the network: it has a home, or is one.
    pub fn is_in_network(&self) -> bool {
        self.inner.role.is_ultrapeer() || !self.inner.network.homes().is_empty()
    }

    /// Other nodes to join through count from now on.
    pub fn set_join(&self, join: Vec<JoinAddress>) {
        self.inner.role.set_join(join.clone());
        self.inner.network.set_join(join);
    }

    /// This node listens elsewhere now.
    pub async fn moved(&self) {
        self.inner.role.moved().await;
        self.inner.network.moved();
    }

    /// Shared folders and the file list.
    pub fn shares(&self) -> &Shares {
        &self.inner.shares
    }

    /// Searches.
    pub fn searches(&self) -> &Searches {
        &self.inner.searches
    }

    /// Standing queries.
    pub fn wishes(&self) -> &Wishes {
        &self.inner.wishes
    }

    /// Uploads.
    pub fn uploads(&self) -> &Uploads {
        &self.inner.uploads
    }

    /// Downloads.
    pub fn downloads(&self) -> &Downloads {
        &self.inner.downloads
    }

    /// What happens, for followers of the local HTTP.
    pub fn events(&self) -> &Arc<EventRing> {
        &self.inner.events
    }

    /// How long it runs.
    pub fn uptime(&self) -> Duration {
        self.inner.clock.now().since(self.inner.started)
    }

    /// The node's clock.
    pub fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// Shares a folder, also after a restart.
    pub async fn add_share(&self, path: PathBuf) -> Result<Share, SharesError> {
        // Held until it is recorded: what is configured meanwhile would not know of it, and take it away.
        let mut recorded = self.inner.shared_at_run_time.lock().await;
        let share = self.inner.shares.add(ShareSpec { path, origin: Origin::Settings }).await?;
        if share.origin != Origin::Settings {
            return Ok(share);
        }
        if let Err(error) = record_share(&mut recorded, PathBuf::from(&share.path), true).await {
            // It would be gone after a restart: it is not shared, then. The first error counts.
            let _ = self.inner.shares.remove(&share.path).await;
            return Err(error);
        }
        Ok(share)
    }

    /// Stops sharing a folder that was shared at run time, named by its name or path.
    pub async fn remove_share(&self, share: &str) -> Result<(), SharesError> {
        let mut recorded = self.inner.shared_at_run_time.lock().await;
        let removed = self.inner.shares.remove(share).await?;
        record_share(&mut recorded, PathBuf::from(removed.path), false).await
    }

    /// Takes over other configured shares and rules, and the download folder; those shared at run time stay.
    pub async fn configure_shares(&self, mut config: SharesConfig) -> Result<(), SharesError> {
        let recorded = self.inner.shared_at_run_time.lock().await;
        config.shares.extend(run_time_shares(&recorded, &config.shares));
        if let Err(error) = self.inner.downloads.set_folder(config.downloads.clone()).await {
            tracing::error!(%error, "downloads go on to the folder before");
        }
        self.inner.shares.configure(config).await
    }

    /// Contents that this leaf knows of whose ids begin with these hex digits: of hits, also of wishes, downloads and
    /// shares.
    pub async fn contents_from(&self, digits: &str) -> Vec<ContentId> {
        let mut found = self.inner.searches.contents_from(digits);
        found.extend(self.inner.wishes.contents_from(digits));
        let jobs = self.inner.downloads.list();
        found.extend(jobs.iter().map(|job| job.content).filter(|content| content.to_string().starts_with(digits)));
        // The store looks for whole bytes; an odd digit is compared here.
        let whole = &digits[..digits.len() / 2 * 2];
        if let Ok(prefix) = data_encoding::HEXLOWER.decode(whole.as_bytes())
            && let Ok(shared) = self.inner.shares.contents_from(prefix, limits::ID_CANDIDATES).await
        {
            found.extend(shared.into_iter().filter(|content| content.to_string().starts_with(digits)));
        }
        found
    }

    /// Peers that this leaf knows: itself, ultrapeers, and leaves that recent hits named.
    pub async fn known_peers(&self) -> Vec<PeerId> {
        let found = self.inner.searches.peers().into_iter().chain(self.inner.wishes.peers());
        let mut peers: std::collections::BTreeSet<_> = found.map(|source| source.peer).collect();
        peers.extend(self.inner.network.known().await.into_iter().map(|(descriptor, _)| descriptor.peer));
        peers.extend(self.inner.network.homes().into_iter().map(|home| home.peer));
        peers.insert(self.peer());
        peers.into_iter().collect()
    }

    /// The folder that an output names; the download folder without one.
    pub fn output_folder(&self, output: Option<&str>) -> PathBuf {
        output.map_or_else(|| self.inner.downloads.folder(), PathBuf::from)
    }

    /// Changes how many uploads run at the same time, besides the optimistic one.
    pub async fn set_upload_slots(&self, slots: usize) {
        self.inner.uploads.set_slots(slots).await;
    }

    /// Changes how many bytes one peer may have in a day; `None` is unlimited.
    pub async fn set_peer_quota(&self, quota: Option<u64>) {
        self.inner.uploads.set_quota(quota).await;
    }

    /// Changes how fast uploads and downloads may be together, in bytes a second; `None` is unlimited.
    pub fn set_rates(&self, upload: Option<u64>, download: Option<u64>) {
        self.inner.uploads.set_rate(upload);
        self.inner.downloads.set_rate(download);
    }

    /// A page of a peer's share, of which only what was asked for is believed; `None` if it has no such folder.
    pub async fn browse(&self, peer: PeerId, request: Browse) -> Result<Option<Page>, BrowseError> {
        if peer == self.peer() {
            return Ok(crate::transfer::Library::browse(&self.inner.shares, request).await);
        }
        let known = self.inner.searches.peers().into_iter().chain(self.inner.wishes.peers());
        let known = known.into_iter().find(|known| known.peer == peer);
        let homes = known.map(|known| known.homes).unwrap_or_default();
        let lease = self.inner.pool.connect(peer, homes).await?;
        self.inner.pool.keep(&lease);
        match session::ask(lease.connection(), request.clone()).await {
            Ok(Some(TransferMessage::Page(page))) => match page.answering(&request) {
                Some(page) => Ok(Some(page)),
                None => Err(BrowseError::Failed("its listing has no end".to_owned())),
            },
            Ok(Some(TransferMessage::Denied(_))) => Ok(None),
            Ok(_) => Err(BrowseError::Failed("it answered nonsense".to_owned())),
            Err(error) => Err(BrowseError::Failed(error.to_string())),
        }
    }

    /// Hands over the leaves of an ultrapeer, says good-bye to the homes, stops the jobs so that they go on at the next
    /// start, and ends every task. At most some seconds, and [`limits::DRAIN_TIMEOUT`] of an ultrapeer; the endpoint stays
    /// open for the caller to close.
    pub async fn stop(&self) {
        let inner = &self.inner;
        self.save_remembered().await;
        inner.role.stop().await;
        let leave = inner.network.leave(limits::LEAVE_TIMEOUT);
        let jobs = tokio::time::timeout(limits::LEAVE_TIMEOUT, inner.downloads.shutdown());
        // A job that does not stop in time is found by the next start as it was last recorded.
        let ((), _) = tokio::join!(leave, jobs);
        inner.tasks.cancel();
        let scanner = lock(&inner.scanner).take();
        if let Some(scanner) = scanner {
            // It ends by the cancelled token; a panic in it was reported where it happened.
            let _ = tokio::time::timeout(limits::LEAVE_TIMEOUT, scanner).await;
        }
    }

    fn spawn_all(&self, arrivals: Arrivals) {
        let tasks = &self.inner.tasks;
        tasks.spawn("arrivals", self.clone().take_arrivals(arrivals));
        tasks.spawn("load", self.clone().follow_load());
        tasks.spawn("remember", self.clone().follow_homes());
        tasks.spawn("look around", self.clone().look_around());
        tasks.spawn("slow check", check_slowly(self.inner.shares.clone()));
    }

    async fn take_arrivals(self, mut arrivals: Arrivals) {
        while let Some(arrival) = arrivals.next().await {
            let Some(arrival) = self.inner.role.take(arrival) else { continue };
            match arrival {
                Arrival::Transfer(offer) => self.inner.network.arrived(offer),
                Arrival::Leaf(offer) => {
                    let contact = Contact { peer: offer.peer(), address: offer.address() };
                    let refusal = self.inner.network.refusal(contact, offer.hello().situation).await;
                    offer.refuse_with(refusal);
                }
                Arrival::Mesh(offer) => offer.refuse(RefuseReason::NotUltrapeer, self.alternatives().await),
            }
        }
    }

    async fn alternatives(&self) -> Vec<SignedDescriptor> {
        let mut known = self.inner.network.remember().await;
        known.truncate(limits::ALTERNATIVES);
        known
    }

    /// Tells the homes how busy the uploads are.
    async fn follow_load(self) {
        let mut load = self.inner.uploads.watch();
        loop {
            let now = *load.borrow_and_update();
            let free_slots = u16::try_from(now.free_slots).unwrap_or(u16::MAX);
            self.inner.network.set_load(free_slots, u32::try_from(now.queue).unwrap_or(u32::MAX));
            if load.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps the list of ultrapeers on the disk while homes come and go.
    async fn follow_homes(self) {
        let mut changes = self.inner.network.watch();
        while changes.changed().await.is_ok() {
            tokio::time::sleep(limits::REMEMBER_PAUSE).await;
            self.save_remembered().await;
        }
    }

    async fn save_remembered(&self) {
        let mut known = self.inner.network.remember().await;
        if known.is_empty() {
            // One that has no other home than itself may know others.
            known = self.inner.role.remember().await;
        }
        let others = self.inner.network.volunteers().await;
        let inner = self.inner.clone();
        let store = move || {
            let mut remembered = lock(&inner.remembered);
            let ultrapeers = remembered.0.store(&known);
            remembered.1.store(&others).and(ultrapeers)
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(store).await {
            tracing::warn!(%error, "the lists of ultrapeers and volunteers could not be saved");
        }
    }

    /// Looks at everything now and then: gauges for Prometheus, events for followers of the local HTTP.
    async fn look_around(self) {
        let mut ticks = tokio::time::interval(limits::LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let [mut peers, mut jobs, mut uploads, mut shares, mut wishes] =
            ["peer", "download", "upload", "share", "wish"].map(Changes::new);
        let mut disk: Option<JoinHandle<()>> = None;
        loop {
            ticks.tick().await;
            let inner = &self.inner;
            let (share_list, job_list, upload_list) =
                (inner.shares.list(), inner.downloads.list(), inner.uploads.list());
            // A drive that does not answer holds whoever asks it.
            if disk.as_ref().is_none_or(JoinHandle::is_finished) {
                let (downloads, data) = (inner.downloads.folder(), inner.data_folder.clone());
                let look = move || crate::metrics::collect_disk(&downloads, &data);
                disk = Some(tokio::task::spawn_blocking(look));
            }
            inner.role.look().await;
            if !inner.role.is_ultrapeer() {
                let known = inner.network.known().await;
                let homes = known.iter().filter(|(_, is_home)| *is_home).count();
                crate::metrics::collect_known(homes, known.len() - homes);
            }
            crate::metrics::collect(&share_list, inner.network.homes().len(), &job_list, &upload_list);
            let rates = Rates {
                upload: upload_list.iter().map(|upload| upload.rate).sum(),
                download: job_list.iter().map(|job| job.rate).sum(),
            };
            self.history().record(inner.clock.now(), rates);
            let ring = &inner.events;
            let known = crate::status::peers(&self).await;
            peers.publish(ring, known.into_iter().map(|peer| (peer.peer.clone(), peer)), &["rtt_ms"]);
            jobs.publish(ring, job_list.into_iter().map(|job| (job.id.clone(), job)), &[]);
            uploads.publish(ring, upload_list.into_iter().map(|upload| (upload.id.clone(), upload)), &[]);
            shares.publish(ring, share_list.into_iter().map(|share| (share.name.clone(), share)), &[]);
            let wish_list = inner.wishes.list();
            wishes.publish(ring, wish_list.into_iter().map(|wish| (wish.id.clone(), wish)), &[]);
        }
    }
}

impl Known for Node {
    fn peers(&self) -> BoxFuture<'_, Vec<(PeerId, NodeRole)>> {
        Box::pin(async move {
            let mut ultrapeers: Vec<_> = self.inner.network.homes().into_iter().map(|home| home.peer).collect();
            ultrapeers.extend(self.inner.network.known().await.into_iter().map(|(descriptor, _)| descriptor.peer));
            let role = |peer: &PeerId| if ultrapeers.contains(peer) { NodeRole::Ultrapeer } else { NodeRole::Leaf };
            self.known_peers().await.into_iter().map(|peer| (peer, role(&peer))).collect()
        })
    }

    fn contents_from<'a>(&'a self, digits: &'a str) -> BoxFuture<'a, Vec<ContentId>> {
        Box::pin(Self::contents_from(self, digits))
    }
}

/// Why a peer's share cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrowseError {
    /// It was not reached.
    #[error(transparent)]
    Reach(#[from] ReachError),
    /// It was reached and did not answer as it must.
    #[error("the peer did not answer: {0}")]
    Failed(String),
}

impl From<BrowseError> for ApiError {
    fn from(error: BrowseError) -> Self {
        match &error {
            BrowseError::Reach(ReachError::Gone) => Self::not_found("no ultrapeer knows that peer")
                .hint("it may have left the network; a search tells who is there now"),
            BrowseError::Reach(ReachError::NoHome) => Self::new(Code::NoUltrapeer, error.to_string())
                .hint("`quictrack status` shows what keeps this leaf from the network"),
            BrowseError::Reach(ReachError::Banned) => {
                Self::new(Code::Conflict, error.to_string()).hint("`quictrack unban PEER` lifts the ban")
            }
            BrowseError::Reach(ReachError::Timeout) => {
                Self::new(Code::Timeout, error.to_string()).hint("it may be busy or just gone; try again later")
            }
            _ => Self::new(Code::PeerUnreachable, error.to_string())
                .hint("it may be gone, or behind a router that lets nobody in; try again later"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every operation leaves the value whole, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
