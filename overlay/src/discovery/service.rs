//! Runs the core: asks the sources, dials by way of the node, shows the node to others.
//!
//! ```text
//!   configuration, own address ──> which sources, LAN on or off ─┐
//!   Site::standing, every second ────────────────────────────────┴─> machine ──Look──> names, LAN, DHT
//!   Site::serves_at ──> announced in the DHT                            └─────Dial──> Site::dial
//! ```
//!
//! Invariant: a node that listens on loopback or at one private address sends nothing to the public DHT, and one on
//! loopback nothing to the local network.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Discovery, Hint, Input, Output, Rendezvous, Source, Standing,
    dht::{self, Table},
    lan::{Lan, Shown},
};
use crate::{
    address::{JoinAddress, Reach},
    config::Settings,
    drive::{Clock, Driver, Handle, Tasks, system_rng},
    limits,
    metrics::{BOOTSTRAP_ATTEMPTS, BootstrapResult, BootstrapSource},
    transport::Endpoint,
};

/// The node for which others are looked for.
pub trait Site: Debug + Send + Sync + 'static {
    /// How it stands.
    fn standing(&self) -> BoxFuture<'_, Standing>;

    /// These names are nodes to join through, too, from now on.
    fn use_names(&self, names: Vec<JoinAddress>);

    /// Dials an address where a node of the network may be, and makes use of it if it is; what came of it.
    fn dial(&self, hint: Hint) -> BoxFuture<'_, BootstrapResult>;

    /// Where others reach it, while it serves as an ultrapeer; where it listens, if it does not know.
    fn serves_at(&self) -> BoxFuture<'_, Option<SocketAddr>>;
}

/// What follows from the configuration and from where the node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    lan: Option<Shown>,
    dht: Option<Table>,
    names: Vec<JoinAddress>,
}

impl Plan {
    fn new(settings: &Settings, endpoint: &Endpoint) -> Self {
        let listen = endpoint.local_address();
        let table = Table { bootstrap: settings.dht_bootstrap.clone() };
        let shown = || Shown { rendezvous: endpoint.rendezvous(), peer: endpoint.peer(), listen };
        let is_beyond = dht::reach_of(listen.ip()) > Reach::Host;
        Self {
            lan: (settings.lan && is_beyond).then(shown),
            dht: Some(table).filter(|table| settings.dht && table.is_for(listen.ip())),
            names: settings.dns.clone(),
        }
    }

    fn sources(&self) -> BTreeSet<Source> {
        let has = [!self.names.is_empty(), self.lan.is_some(), self.dht.is_some()];
        Source::ALL.into_iter().zip(has).filter(|(_, has)| *has).map(|(source, _)| source).collect()
    }
}

/// True if such a node is looked for, or looks for others, in other ways than by what it is told to join.
pub fn is_seeking(settings: &Settings, endpoint: &Endpoint) -> bool {
    !Plan::new(settings, endpoint).sources().is_empty()
}

struct Shared {
    site: Arc<dyn Site>,
    rendezvous: Rendezvous,
    machine: Handle<Discovery>,
    tasks: Tasks,
    plan: Mutex<Plan>,
    lan: Mutex<Option<Lan>>,
    /// The names were asked for, and count from then on.
    names: AtomicBool,
    /// The table is asked one question at a time.
    asking: AtomicBool,
    announce_at: Mutex<Instant>,
}

/// Looks for others on behalf of `site` until `shutdown`, as the latest settings say.
pub async fn run(
    site: Arc<dyn Site>,
    endpoint: Endpoint,
    clock: Clock,
    settings: watch::Receiver<Arc<Settings>>,
    tasks: Tasks,
    shutdown: CancellationToken,
) {
    let Ok(rng) = system_rng() else {
        return tracing::error!("the system has no random numbers: nobody is looked for");
    };
    let (machine, driver) = Driver::new(Discovery::default());
    let shared = Arc::new(Shared {
        site,
        rendezvous: endpoint.rendezvous(),
        machine,
        tasks: tasks.child(),
        plan: Mutex::new(Plan { lan: None, dht: None, names: Vec::new() }),
        lan: Mutex::default(),
        names: AtomicBool::new(false),
        asking: AtomicBool::new(false),
        announce_at: Mutex::new(Instant::now()),
    });
    let (carrier, token) = (shared.clone(), shutdown.clone());
    shared.tasks.spawn("discovery", async move {
        driver.run(clock, rng, token, |_, output| carrier.carry_out(output)).await;
    });
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follow(&shared, &endpoint, settings) => {}
    }
    shared.tasks.cancel();
    let lan = lock(&shared.lan).take();
    if let Some(lan) = lan {
        lan.end().await;
    }
}

async fn follow(shared: &Arc<Shared>, endpoint: &Endpoint, mut settings: watch::Receiver<Arc<Settings>>) {
    let mut ticks = interval(limits::STANDING_LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut listening: Option<(Shown, Tasks)> = None;
    loop {
        ticks.tick().await;
        let plan = Plan::new(&settings.borrow_and_update(), endpoint);
        let before = std::mem::replace(&mut *lock(&shared.plan), plan.clone());
        if listening.as_ref().map(|(shown, _)| shown) != plan.lan.as_ref() {
            if let Some((_, tasks)) = listening.take() {
                tasks.cancel();
            }
            let old = lock(&shared.lan).take();
            if let Some(old) = old {
                old.end().await;
            }
            listening = plan.lan.clone().map(|shown| (shown.clone(), shared.listen(&shown)));
        }
        if plan != before {
            // A core that stopped looks for nobody.
            let _ = shared.machine.input(Input::Sources(plan.sources())).await;
            if shared.names.load(Ordering::Relaxed) && plan.names != before.names {
                shared.site.use_names(plan.names.clone());
            }
        }
        let standing = shared.site.standing().await;
        let _ = shared.machine.input(Input::Standing(standing)).await;
        if let Some(table) = plan.dht.filter(|_| *lock(&shared.announce_at) <= Instant::now())
            && let Some(address) = shared.site.serves_at().await
            && (address.ip().to_canonical().is_ipv4() || address.ip().is_unspecified())
            && table.is_for(address.ip())
        {
            *lock(&shared.announce_at) = Instant::now() + limits::DHT_ANNOUNCE;
            let announcing = shared.clone();
            shared.tasks.spawn("announce", async move {
                if let Err(error) = table.announce(&announcing.rendezvous, address.port()).await {
                    tracing::debug!(%error, "this ultrapeer could not be announced in the DHT");
                    *lock(&announcing.announce_at) = Instant::now() + limits::DHT_ANNOUNCE_RETRY;
                }
            });
        }
    }
}

impl Shared {
    /// Shows the node in the local network, and hears of others there, until the tasks are cancelled.
    fn listen(self: &Arc<Self>, shown: &Shown) -> Tasks {
        let tasks = self.tasks.child();
        match Lan::start(shown) {
            Ok(lan) => {
                *lock(&self.lan) = Some(lan.clone());
                tasks.spawn("local network", lan.hear(self.machine.clone()));
            }
            Err(error) => tracing::warn!(%error, "nodes in the local network cannot be found"),
        }
        tasks
    }

    fn carry_out(self: &Arc<Self>, output: Output) {
        let shared = self.clone();
        match output {
            Output::Look(source) => self.tasks.spawn("look", async move { shared.look(source).await }),
            Output::Dial(source, hint) => self.tasks.spawn("dial", async move { shared.dial(source, hint).await }),
        };
    }

    async fn look(&self, source: Source) {
        let hints = match source {
            Source::Dns => {
                // Whoever keeps the join targets looks them up again and again, and counts that.
                if !self.names.swap(true, Ordering::Relaxed) {
                    let names = lock(&self.plan).names.clone();
                    self.site.use_names(names);
                }
                return;
            }
            Source::Lan => lock(&self.lan).as_ref().map(Lan::all).unwrap_or_default(),
            Source::Dht => {
                let table = lock(&self.plan).dht.clone();
                let Some(table) = table else { return };
                if self.asking.swap(true, Ordering::Relaxed) {
                    return;
                }
                let found = table.look(&self.rendezvous).await;
                self.asking.store(false, Ordering::Relaxed);
                found.inspect_err(|error| tracing::debug!(%error, "the DHT cannot be asked")).unwrap_or_default()
            }
        };
        tracing::debug!(?source, count = hints.len(), "looked for ultrapeers");
        if hints.is_empty() {
            BOOTSTRAP_ATTEMPTS.increment((source.into(), BootstrapResult::Empty));
        }
        // A core that stopped needs nobody.
        let _ = self.machine.input(Input::Found(source, hints)).await;
    }

    async fn dial(&self, source: Source, hint: Hint) {
        let result = self.site.dial(hint).await;
        tracing::debug!(?source, address = %hint.address, ?result, "dialled whom somebody named");
        BOOTSTRAP_ATTEMPTS.increment((source.into(), result));
        // As above.
        let _ = self.machine.input(Input::Dialled(hint.address)).await;
    }
}

impl From<Source> for BootstrapSource {
    fn from(source: Source) -> Self {
        match source {
            Source::Dns => Self::Dns,
            Source::Lan => Self::Lan,
            Source::Dht => Self::Dht,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every operation leaves the value whole, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
