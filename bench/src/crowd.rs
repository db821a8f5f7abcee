//! Many leaves in one process: each with its own key, file list, connection and the leaf's own network code.
//!
//! What is real: [`leaf::network`] with its cores and driver, so back-off, upload, keep-alive and searches are
//! those of `quictrack leaf`. What is not: shares on a disk, the local HTTP, and a socket each. QUIC tells
//! connections apart by their ids, so some hundred leaves share one UDP socket, which is what several leaves
//! behind one NAT look like.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures_util::future::BoxFuture;
use leaf::{
    catalog::{Catalog, Change},
    founding::Willing,
    network::{FileList, HomeStatus, SearchNews, Service, Start},
    search::{End, Request},
};
use overlay::{
    address::JoinAddress,
    drive::{Clock, Tasks},
    election::Regime,
    file::FileEntry,
    id::ContentId,
    identity::Identity,
    transport::{BindMode, CloseCode, Endpoint, Settings},
    wire::{
        bounded::Text,
        possession::{PossessionAnswer, PossessionAsk},
        search::Target,
    },
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{bare::now, corpus::Corpus, process::NETWORK};

/// Time between two looks at whether all are attached.
const LOOK: Duration = Duration::from_millis(20);

/// The leaves.
#[derive(Debug)]
pub struct Crowd {
    leaves: Vec<Service>,
    /// The sequence of each one's list.
    sequences: Vec<u64>,
    sockets: Vec<Endpoint>,
    board: Arc<Board>,
    tasks: Tasks,
}

/// Since when each leaf's list has been searchable at its home; `None` while it is not.
#[derive(Debug)]
struct Board {
    since: Mutex<Vec<Option<Instant>>>,
}

/// A made-up list that never changes.
#[derive(Debug)]
struct FixedList {
    catalog: Arc<Catalog>,
    sequence: watch::Sender<u64>,
}

impl FileList for FixedList {
    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.clone()
    }

    fn watch_catalog(&self) -> watch::Receiver<u64> {
        self.sequence.subscribe()
    }

    /// There are no files behind the list; homes put up with that for hours.
    fn prove(&self, _: PossessionAsk) -> BoxFuture<'_, PossessionAnswer> {
        Box::pin(async { PossessionAnswer::NotNow })
    }
}

impl Crowd {
    /// Makes `leaves` leaves on `sockets` sockets of loopback, with `files` files each; they begin to join
    /// through `join` at once.
    ///
    /// # Errors
    /// The system has no sockets or random numbers left.
    pub fn start(leaves: u32, sockets: u32, files: u32, join: SocketAddr) -> Result<Self> {
        let (clock, tasks) = (Clock::new(), Tasks::new());
        let since = Mutex::new(vec![None; leaves as usize]);
        let mut crowd = Self {
            leaves: Vec::new(),
            sequences: Vec::new(),
            sockets: Vec::new(),
            board: Arc::new(Board { since }),
            tasks,
        };
        let mut corpus = Corpus::new(1);
        for number in 0..leaves {
            let identity = Arc::new(Identity::generate()?);
            let agent = format!("quictrack-bench/{}", env!("CARGO_PKG_VERSION"));
            let settings = Settings { network: NETWORK.to_owned(), secret: None, agent };
            let endpoint = if number < sockets {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                // Whoever dials a leaf of the crowd is let fall.
                let (endpoint, _) = Endpoint::bind(address, BindMode::Given, &identity, settings)?;
                crowd.sockets.push(endpoint.clone());
                endpoint
            } else {
                let socket = &crowd.sockets[(number % sockets) as usize];
                socket.beside(&identity, settings)
            };
            let list = list(&mut corpus, number, files);
            let sequence = list.sequence();
            let list = FixedList { catalog: Arc::new(list), sequence: watch::Sender::new(sequence) };
            let join = vec![JoinAddress { peer: None, host: join.ip().to_string(), port: join.port() }];
            let start = Start {
                network: NETWORK.to_owned(),
                regime: Regime::of(NETWORK, false),
                join,
                seeks: false,
                remembered: Vec::new(),
                volunteers: Vec::new(),
                willing: Willing::Never,
            };
            let network = Service::start(endpoint, identity, Arc::new(list), clock, start, &crowd.tasks)?;
            crowd.tasks.spawn("look", follow(network.clone(), sequence, crowd.board.clone(), number as usize));
            crowd.leaves.push(network);
            crowd.sequences.push(sequence);
        }
        Ok(crowd)
    }

    /// How many have been searchable since `begun` or later.
    pub fn attached_since(&self, begun: Instant) -> usize {
        self.board.since().iter().flatten().filter(|since| **since >= begun).count()
    }

    /// How many are searchable.
    pub fn attached(&self) -> usize {
        self.board.since().iter().flatten().count()
    }

    /// Waits until all have become searchable after `begun`. Returns when each did, in order of time.
    ///
    /// # Errors
    /// Some are not after `limit`.
    pub async fn all_since(&self, begun: Instant, limit: Duration) -> Result<Vec<Duration>> {
        let all = async {
            while self.attached_since(begun) < self.leaves.len() {
                sleep(LOOK).await;
            }
        };
        if timeout(limit, all).await.is_err() {
            let count = self.attached_since(begun);
            bail!("only {count} of {} leaves were attached within {} s", self.leaves.len(), limit.as_secs());
        }
        let mut times: Vec<_> = self.board.since().iter().flatten().map(|since| since.duration_since(begun)).collect();
        times.sort_unstable();
        Ok(times)
    }

    /// A leaf searches for the file that only leaf `of` has.
    ///
    /// # Errors
    /// The leaf has ended.
    pub async fn search(&self, from: usize, of: usize, patience: Duration) -> Result<End> {
        let target = Target::Query(Text::new(&word(of as u32)));
        let request = Request { target, limit: 10, timeout: patience, all: false };
        let leaf = self.leaves.get(from).context("there is such a leaf")?;
        let (_, mut news) = leaf.search(request).await?;
        while let Some(news) = news.recv().await {
            if let SearchNews::End(end) = news {
                return Ok(end);
            }
        }
        bail!("a search ended without a summary")
    }

    /// How many homes have the list of each, without those in `gone`.
    pub fn homes(&self, gone: &[SocketAddr]) -> Vec<usize> {
        let count = |(leaf, list): (&Service, &u64)| {
            let homes = leaf.homes();
            let has =
                |home: &&HomeStatus| home.sequence.is_some_and(|have| have >= *list) && !gone.contains(&home.address);
            homes.iter().filter(has).count()
        };
        self.leaves.iter().zip(&self.sequences).map(count).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Ends all of them.
    pub async fn stop(self) {
        for socket in &self.sockets {
            socket.close(CloseCode::Shutdown);
        }
        // What does not end in time ends with the process.
        let _ = self.tasks.shutdown(Duration::from_secs(5)).await;
    }
}

impl Board {
    fn since(&self) -> MutexGuard<'_, Vec<Option<Instant>>> {
        // Every change is one assignment, so a panic elsewhere does not spoil it.
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes when a leaf's list becomes searchable, and when it is no more.
async fn follow(network: Service, sequence: u64, board: Arc<Board>, place: usize) {
    let mut changes = network.watch();
    let mut last: Option<Duration> = None;
    loop {
        let listed = network.homes().into_iter().find(|home| home.sequence.is_some_and(|have| have >= sequence));
        let age = listed.map(|home| home.age);
        // A connection only grows older: one that was lost and is back between two looks is younger.
        if age.is_none() || last.is_none() || age < last {
            board.since()[place] = age.map(|_| now());
        }
        last = age;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The list of a leaf: made-up files, and one that is its own.
fn list(corpus: &mut Corpus, number: u32, files: u32) -> Catalog {
    let mut changes: Vec<_> =
        corpus.leaf_of(files.saturating_sub(1) as usize).into_iter().map(Change::Upsert).collect();
    let content = ContentId(*blake3::hash(&number.to_le_bytes()).as_bytes());
    let path = format!("crowd/{}.txt", word(number));
    changes.push(Change::Upsert(FileEntry { path, content, size: 1, modified_s: 1_700_000_000, tags: <_>::default() }));
    let mut catalog = Catalog::new(1);
    catalog.apply(changes);
    catalog
}

/// A word that only this leaf's list has.
fn word(leaf: u32) -> String {
    format!("leaf{leaf}only")
}
