//! A small network in this process: ultrapeers and leaves on loopback, with temporary data.
//!
//! Every node is the real one, with its own UDP socket; only configuration and discovery are missing. The
//! first ultrapeer founds the network, everybody else joins through it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use leaf::{
    node::{Node, Start},
    store::{ShareSpec, SharesConfig},
    transfer::serve::UploadLimits,
};
use overlay::{
    address::JoinAddress,
    config::Origin,
    drive::{Clock, Tasks},
    election::Regime,
    identity::Identity,
    limits,
    transport::{Arrival, Arrivals, BindMode, CloseCode, Endpoint, Settings},
    wire::hello::RefuseReason,
};
use tempfile::TempDir;
use tokio::time::timeout;
use ultrapeer::{
    driver::{Service, Start as UltrapeerStart},
    ultrapeer::Terms,
};

/// The name of the network.
const NETWORK: &str = "bench";
/// Time for the network to form and for all shares to be searchable.
const FORMING: Duration = Duration::from_mins(2);
/// Time for the tasks to end.
const ENDING: Duration = Duration::from_secs(5);

/// A running network. Its data is removed when it is dropped.
#[derive(Debug)]
pub struct Bed {
    data: TempDir,
    ultrapeers: Vec<(Service, Endpoint)>,
    leaves: Vec<Node>,
    clock: Clock,
    tasks: Tasks,
}

impl Bed {
    /// Starts `ultrapeers` ultrapeers and a leaf for each element of `shares`, which names the folders that it
    /// shares. Returns when every list is searchable at every home that its leaf can have.
    pub async fn start(ultrapeers: usize, shares: Vec<Vec<PathBuf>>) -> Result<Self> {
        let data = tempfile::Builder::new().prefix("quictrack-bench-").tempdir()?;
        let (clock, tasks) = (Clock::new(), Tasks::new());
        let mut bed = Self { data, ultrapeers: Vec::new(), leaves: Vec::new(), clock, tasks };
        for _ in 0..ultrapeers {
            bed.add_ultrapeer()?;
        }
        for folders in shares {
            bed.add_leaf(folders)?;
        }
        timeout(FORMING, bed.formed()).await.context("the network did not form in time")?;
        Ok(bed)
    }

    /// The leaves, in the order in which their shares were named.
    pub fn leaves(&self) -> &[Node] {
        &self.leaves
    }

    /// The ultrapeers with their endpoints, the founder first.
    pub fn ultrapeers(&self) -> &[(Service, Endpoint)] {
        &self.ultrapeers
    }

    /// The name of the network.
    pub fn network(&self) -> &'static str {
        NETWORK
    }

    /// Tasks of all nodes that ended by a panic.
    pub fn panics(&self) -> u64 {
        self.tasks.panics()
    }

    /// Stops every node.
    pub async fn stop(self) {
        for node in &self.leaves {
            node.stop().await;
        }
        self.tasks.cancel();
        let endpoints = self.leaves.iter().map(Node::endpoint).chain(self.ultrapeers.iter().map(|(_, end)| end));
        for endpoint in endpoints {
            endpoint.close(CloseCode::Shutdown);
        }
        // What does not end in time ends with the process.
        let _ = self.tasks.shutdown(ENDING).await;
    }

    fn join(&self) -> Vec<JoinAddress> {
        let address = |at: SocketAddr| JoinAddress { peer: None, host: at.ip().to_string(), port: at.port() };
        let first = self.ultrapeers.first().map(|(_, endpoint)| endpoint.local_address());
        first.map(address).into_iter().collect()
    }

    fn add_ultrapeer(&mut self) -> Result<()> {
        let (endpoint, mut arrivals, identity) = bind()?;
        let start = UltrapeerStart {
            network: NETWORK.to_owned(),
            settings: ultrapeer::leaves::Settings::default(),
            terms: Terms::operated(NETWORK, false),
            join: self.join(),
            founder: self.ultrapeers.is_empty(),
            expects_names: false,
            advertise: None,
            remembered: Vec::new(),
            contacts: Vec::new(),
        };
        let service = Service::start(endpoint.clone(), identity, self.clock, start, &self.tasks)?;
        let receiver = service.clone();
        self.tasks.spawn("arrivals", async move {
            while let Some(arrival) = arrivals.next().await {
                match arrival {
                    Arrival::Leaf(offer) => receiver.leaf(offer),
                    Arrival::Mesh(offer) => receiver.mesh(offer),
                    Arrival::Transfer(offer) => offer.refuse(RefuseReason::NotServed, Vec::new()),
                }
            }
        });
        self.ultrapeers.push((service, endpoint));
        Ok(())
    }

    fn add_leaf(&mut self, folders: Vec<PathBuf>) -> Result<()> {
        let (endpoint, arrivals, identity) = bind()?;
        let data = self.data.path().join(format!("leaf-{}", self.leaves.len()));
        std::fs::create_dir_all(&data)?;
        let start = Start {
            network: NETWORK.to_owned(),
            regime: Regime::of(NETWORK, false),
            join: self.join(),
            seeks: false,
            shares: SharesConfig {
                shares: folders.into_iter().map(|path| ShareSpec { path, origin: Origin::CommandLine }).collect(),
                exclude: Vec::new(),
                rescan_interval: Duration::from_hours(1),
                hash_threads: 1,
                downloads: data.join("downloads"),
                share_downloads: false,
            },
            data,
            uploads: UploadLimits { slots: limits::UPLOAD_SLOTS, rate: None, quota: None },
            download_rate: None,
            role: leaf::role::Settings::default(),
        };
        self.leaves.push(Node::start(endpoint, arrivals, identity, self.clock, start, &self.tasks)?);
        Ok(())
    }

    /// Waits until every ultrapeer serves and every leaf's list is in the index of all its homes.
    async fn formed(&self) {
        for (service, _) in &self.ultrapeers {
            let mut admitted = service.admitted();
            // The sender lives in the service, so waiting cannot fail.
            let _ = admitted.wait_for(|admitted| *admitted).await;
        }
        let homes = self.ultrapeers.len().min(limits::HOMES);
        for node in &self.leaves {
            let sequence = node.shares().settled(None).await;
            let mut changes = node.network().watch();
            let listed = || {
                let homes = node.network().homes();
                homes.iter().filter(|home| home.sequence.is_some_and(|have| have >= sequence)).count()
            };
            while listed() < homes && changes.changed().await.is_ok() {}
        }
    }
}

/// An endpoint on a free port of loopback, with a new key.
pub fn bind() -> Result<(Endpoint, Arrivals, Arc<Identity>)> {
    let identity = Arc::new(Identity::generate()?);
    let agent = format!("quictrack-bench/{}", env!("CARGO_PKG_VERSION"));
    let settings = Settings { network: NETWORK.to_owned(), secret: None, agent };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (endpoint, arrivals) = Endpoint::bind(address, BindMode::Given, &identity, settings)?;
    Ok((endpoint, arrivals, identity))
}
