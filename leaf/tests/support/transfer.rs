//! Leaves as far as transfers go, over real QUIC on loopback: for tests of the crate, from inside and outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "no user needs all of it")]

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use leaf::{
    download::{
        Downloads, Event, Options, Parts, Request,
        record::{Done, Priority},
    },
    store::{Database, Outboards, ShareSpec, Shares, SharesConfig},
    transfer::{
        FoundSource, Library, Reach, ReachError, SourceFinder, Via,
        holding::Holdings,
        pool::Pool,
        serve::{UploadLimits, Uploads},
    },
};
use overlay::{
    config::Origin,
    drive::{Clock, Tasks},
    id::{ContentId, PeerId},
    identity::Identity,
    transport::{Arrival, Arrivals, BindMode, CloseCode, Connection, Endpoint, Greeting, Settings},
    wire::transfer::TransferMessage,
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) const MIB: usize = 1 << 20;
/// Only against hanging for ever.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Who listens where, and who shares what: stands for the network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    pub(crate) addresses: Arc<Mutex<BTreeMap<PeerId, SocketAddr>>>,
    pub(crate) sources: Arc<Mutex<Vec<PeerId>>>,
    /// Who was complained about.
    pub(crate) accused: Arc<Mutex<Vec<PeerId>>>,
}

impl SourceFinder for Network {
    fn find(&self, _: ContentId) -> BoxFuture<'_, Vec<FoundSource>> {
        let found =
            self.sources.lock().unwrap().iter().map(|peer| FoundSource { peer: *peer, homes: vec![] }).collect();
        Box::pin(async move { found })
    }

    fn homes(&self) -> Vec<PeerId> {
        vec![PeerId([9; 32])]
    }

    fn complain(&self, source: FoundSource, _: ContentId) {
        self.accused.lock().unwrap().push(source.peer);
    }
}

/// Dials directly.
#[derive(Debug)]
pub(crate) struct Dial {
    endpoint: Endpoint,
    network: Network,
}

impl Reach for Dial {
    fn connect(&self, peer: PeerId, _: Vec<PeerId>) -> BoxFuture<'_, Result<(Connection, Via), ReachError>> {
        let address = self.network.addresses.lock().unwrap().get(&peer).copied();
        Box::pin(async move {
            let address = address.ok_or(ReachError::Gone)?;
            let dialled = self.endpoint.dial::<TransferMessage>(address, Some(peer), Greeting::default()).await;
            let dialled = dialled.map_err(|error| ReachError::Unreachable(error.to_string()))?;
            Ok((dialled.link.connection, Via::Direct))
        })
    }
}

/// A leaf as far as transfers go.
pub(crate) struct Node {
    pub(crate) peer: PeerId,
    pub(crate) endpoint: Endpoint,
    pub(crate) shares: Shares,
    pub(crate) uploads: Uploads,
    pub(crate) downloads: Downloads,
    pub(crate) parts: Parts,
    pub(crate) tasks: Tasks,
    pub(crate) stop: CancellationToken,
    pub(crate) scanner: JoinHandle<()>,
    /// Where its data lies.
    pub(crate) folder: PathBuf,
    /// Removes the folder at the end, if it is its own.
    pub(crate) guard: Option<TempDir>,
}

impl Node {
    /// A node with a folder of its own that shares `files`.
    pub(crate) async fn new(network: &Network, seed: u8, files: &[(&str, &[u8])]) -> Self {
        Self::with_library(network, seed, files, |shares, _| Arc::new(shares)).await
    }

    /// The same, which answers from another library than its shares.
    pub(crate) async fn with_library(
        network: &Network,
        seed: u8,
        files: &[(&str, &[u8])],
        library: impl FnOnce(Shares, &Path) -> Arc<dyn Library>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, data) in files {
            let path = folder.path().join("Share").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        }
        let mut node = Self::open(network, seed, folder.path(), library).await;
        node.guard = Some(folder);
        if !files.is_empty() {
            network.sources.lock().unwrap().push(node.peer);
        }
        node
    }

    /// A node on a folder that stays, as it was left there.
    pub(crate) async fn at(network: &Network, seed: u8, folder: &Path) -> Self {
        Self::open(network, seed, folder, |shares, _| Arc::new(shares)).await
    }

    async fn open(
        network: &Network,
        seed: u8,
        folder: &Path,
        library: impl FnOnce(Shares, &Path) -> Arc<dyn Library>,
    ) -> Self {
        let share = folder.join("Share");
        fs::create_dir_all(&share).unwrap();
        let (database, _) = Database::open(&folder.join("state.redb")).unwrap();
        let database = Arc::new(database);
        let (clock, tasks, stop) = (Clock::new(), Tasks::new(), CancellationToken::new());
        let config = SharesConfig {
            shares: vec![ShareSpec { path: share, origin: Origin::CommandLine }],
            exclude: vec![],
            rescan_interval: Duration::from_hours(1),
            hash_threads: 1,
            downloads: folder.join("downloads"),
            share_downloads: false,
        };
        let outboards = Outboards::new(folder.join("outboards"));
        let (shares, scanner) = Shares::start(config, Arc::clone(&database), outboards, stop.clone()).unwrap();
        timeout(PATIENCE, shares.settled(None)).await.unwrap();
        let library = library(shares.clone(), folder);
        let identity = Identity::from_seed([seed; 32]);
        let settings = Settings { network: "test".into(), secret: None, agent: "test/1".into() };
        let bound = Endpoint::bind("127.0.0.1:0".parse().unwrap(), BindMode::Given, &identity, settings);
        let (endpoint, arrivals) = bound.unwrap();
        let peer = endpoint.peer();
        network.addresses.lock().unwrap().insert(peer, endpoint.local_address());
        let holdings = Holdings::default();
        let bans = endpoint.watch_bans();
        let allowance = UploadLimits { slots: 4, rate: None, quota: None };
        let (kept, held) = (Arc::clone(&database), holdings.clone());
        let started = Uploads::start(kept, Arc::clone(&library), held, bans.clone(), allowance, clock, tasks.clone());
        let uploads = started.unwrap();
        tasks.spawn("door", welcome(arrivals, uploads.clone()));
        let reach = Dial { endpoint: endpoint.clone(), network: network.clone() };
        let parts = Parts {
            own: peer,
            database,
            library,
            holdings,
            pool: Arc::new(Pool::new(Arc::new(reach))),
            finder: Arc::new(network.clone()),
            bans,
            clock,
            tasks: tasks.clone(),
        };
        let downloads = Downloads::start(parts.clone(), options(folder)).unwrap();
        let folder = folder.to_owned();
        Self { peer, endpoint, shares, uploads, downloads, parts, tasks, stop, scanner, folder, guard: None }
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) {
        self.downloads.shutdown().await;
        self.stop.cancel();
        self.endpoint.close(CloseCode::Shutdown);
        self.tasks.cancel();
        self.tasks.wait().await;
        self.scanner.await.unwrap();
    }

    /// Downloads and waits for the end.
    pub(crate) async fn get(&self, request: Request) -> Event {
        let mut events = self.downloads.subscribe();
        let (download, _) = self.downloads.add(request).await.unwrap();
        self.outcome(&download.id, &mut events).await
    }

    pub(crate) async fn outcome(&self, id: &str, events: &mut tokio::sync::broadcast::Receiver<Event>) -> Event {
        let wait = async {
            loop {
                if let Some(outcome) = self.downloads.outcome(id) {
                    return outcome;
                }
                let _ = events.recv().await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not done: {:#?}", self.downloads.list()))
    }

    /// Waits until so many bytes of a download are verified.
    pub(crate) async fn reach_bytes(&self, id: &str, bytes: u64) {
        let mut events = self.downloads.subscribe();
        let wait = async {
            while self.downloads.get(id).unwrap().bytes < bytes {
                let _ = events.recv().await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("stuck: {:#?}", self.downloads.list()));
    }

    /// As when the machine loses power, for those on the other side.
    pub(crate) fn die(&self) {
        self.endpoint.close(CloseCode::Shutdown);
        self.tasks.cancel();
        self.stop.cancel();
    }
}

pub(crate) fn options(folder: &Path) -> Options {
    Options { downloads: folder.join("downloads"), rate: None }
}

async fn welcome(mut arrivals: Arrivals, uploads: Uploads) {
    while let Some(arrival) = arrivals.next().await {
        if let Arrival::Transfer(offer) = arrival
            && let Some(room) = uploads.room(offer.address().ip())
            && let Ok(link) = offer.welcome(None).await
        {
            uploads.serve(link.connection, Via::Direct, room);
        }
    }
}

/// Bytes without repetition.
pub(crate) fn bytes(size: usize) -> Vec<u8> {
    let mut data = vec![0; size];
    blake3::Hasher::new_derive_key("quictrack tests transfer").finalize_xof().fill(&mut data);
    data
}

pub(crate) fn request(data: &[u8]) -> Request {
    Request {
        content: ContentId(*blake3::hash(data).as_bytes()),
        name: "a file.bin".into(),
        size: None,
        output: None,
        below: String::new(),
        priority: Priority::Normal,
        sources: vec![],
    }
}

pub(crate) fn done(event: Event) -> Done {
    match event {
        Event::Done(done) => done,
        other => panic!("not done: {other:?}"),
    }
}

/// The file is there and right, and the sources sum up.
pub(crate) fn check(done: &Done, data: &[u8]) {
    assert!(fs::read(&done.path).unwrap() == data, "the bytes are right");
    assert_eq!(done.bytes, data.len() as u64);
    assert_eq!(done.sources.iter().map(|source| source.bytes).sum::<u64>(), done.bytes);
}
