//! The ultrapeer inside this process: when it is started, who it answers to, how it ends.
//!
//! ```text
//!   network core ──Begin──> started ──admitted──> serves: leaves and ultrapeers that knock are its own, and the leaf
//!        ^                     │                   side of this node attaches to it like any other leaf
//!        └──── Role ───────────┴── steps down: hands over its leaves, stops ──> a leaf again
//! ```
//!
//! Whether and when is decided by [`crate::founding`] and [`crate::candidacy`]; this carries it out. One ultrapeer at most runs at a time, on the
//! leaf's own endpoint, key and clock.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use overlay::{
    address::JoinAddress,
    drive::{Clock, Tasks},
    election::Regime,
    identity::Identity,
    limits,
    metrics::{ROLE, Role as Shown},
    startup,
    transport::{Arrival, Endpoint},
    wire::{descriptor::SignedDescriptor, election::Hurdle},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use ultrapeer::{
    driver::{Service, Snapshot, Start},
    leaves,
    metrics::{NewRole, ROLE_CHANGES, RoleReason},
    ultrapeer::{Phase, Retirement, Terms},
    view::{self, Rate},
};

use crate::{
    founding::{Begin, Role as Standing, Willing},
    homes::Own,
    machinery,
    network::Service as Network,
};

/// What a user sets of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// When this node serves.
    pub willing: Willing,
    /// What it takes when it does.
    pub takes: leaves::Settings,
    /// The address to announce then instead of the one that others observe. Others dial it before it counts.
    pub advertise: Option<SocketAddr>,
}

/// What a node needs for an ultrapeer of its own.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) endpoint: Endpoint,
    pub(crate) identity: Arc<Identity>,
    pub(crate) clock: Clock,
    pub(crate) network: Network,
    pub(crate) network_name: String,
    pub(crate) regime: Regime,
    pub(crate) join: Vec<JoinAddress>,
    pub(crate) settings: Settings,
    pub(crate) tasks: Tasks,
}

/// Whether this node is an ultrapeer, too. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Role {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    identity: Arc<Identity>,
    clock: Clock,
    network: Network,
    network_name: String,
    regime: Regime,
    tasks: Tasks,
    join: Mutex<Vec<JoinAddress>>,
    /// Names that are nodes to join through, too.
    names: Mutex<Vec<JoinAddress>>,
    settings: Mutex<Settings>,
    running: watch::Sender<Option<Running>>,
    serves: watch::Sender<bool>,
    /// Held while an ultrapeer is started or ends.
    change: tokio::sync::Mutex<()>,
    /// The node ends: nothing is started any more.
    ended: AtomicBool,
    rate: Mutex<Rate>,
}

/// The ultrapeer that runs.
#[derive(Clone, Debug)]
struct Running {
    service: Service,
    /// It was let in, or began the network.
    admitted: bool,
    /// What it covers, as the leaf side was told.
    own: Option<Own>,
    /// What is done for it.
    tasks: Tasks,
}

impl Role {
    /// A leaf that becomes an ultrapeer when its network core says so.
    pub(crate) fn start(parts: Parts) -> Self {
        let Parts { endpoint, identity, clock, network, network_name, regime, join, settings, tasks } = parts;
        let inner = Inner {
            endpoint,
            identity,
            clock,
            network,
            network_name,
            regime,
            tasks,
            join: Mutex::new(join),
            names: Mutex::default(),
            settings: Mutex::new(settings),
            running: watch::Sender::new(None),
            serves: watch::Sender::new(false),
            change: tokio::sync::Mutex::default(),
            ended: AtomicBool::new(false),
            rate: Mutex::default(),
        };
        let role = Self { inner: Arc::new(inner) };
        role.inner.tasks.spawn("role", role.clone().follow());
        role.inner.tasks.spawn("conditions", role.clone().follow_conditions());
        role.inner.tasks.spawn("mapped port", role.clone().follow_elsewhere());
        role
    }

    /// True from when it is let in or begins the network until it has handed over its leaves.
    pub fn is_ultrapeer(&self) -> bool {
        *self.inner.serves.borrow()
    }

    /// Signalled when that changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.inner.serves.subscribe()
    }

    /// Where the ultrapeer stands; `None` if there is none.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let service = self.service()?;
        // One that stopped is none.
        service.snapshot().await.ok()
    }

    /// The part `ultrapeer` of `status`.
    pub fn part(&self, snapshot: &Snapshot) -> overlay::report::UltrapeerPart {
        view::part(snapshot, &lock(&self.inner.rate))
    }

    /// Hands over an arrival that the ultrapeer answers; gives back one that it does not: of another leaf, or while there
    /// is none. A candidate has no place for leaves, so these are told what a leaf tells.
    pub(crate) fn take(&self, arrival: Arrival) -> Option<Arrival> {
        let running = self.inner.running.borrow();
        let Some(running) = running.as_ref() else { return Some(arrival) };
        match arrival {
            Arrival::Leaf(offer) if running.admitted => running.service.leaf(offer),
            Arrival::Mesh(offer) => running.service.mesh(offer),
            other => return Some(other),
        }
        None
    }

    /// Looks at the ultrapeer: gauges, and what it covers. Called every few seconds.
    pub(crate) async fn look(&self) {
        let Some(service) = self.service() else { return };
        // One that stopped is none.
        let Ok(snapshot) = service.snapshot().await else { return };
        lock(&self.inner.rate).sample(self.inner.clock.now(), snapshot.queries);
        service.collect(&snapshot);
        if matches!(snapshot.phase, Phase::Admitted | Phase::Founder) {
            self.serves(&snapshot).await;
        }
    }

    /// Other settings count from now on. One that shall not serve any more hands over its leaves in the background.
    pub async fn configure(&self, settings: Settings) {
        let before = std::mem::replace(&mut *lock(&self.inner.settings), settings);
        if let Some(service) = self.service() {
            // One that stopped takes nothing.
            let _ = service.reconfigure(self.affordable(settings).await).await;
            if settings.advertise != before.advertise {
                let _ = service.set_address(self.announced(), self.inner.endpoint.local_address()).await;
            }
        }
        if settings.willing == before.willing {
            return;
        }
        self.inner.network.set_willing(settings.willing).await;
        if settings.willing == Willing::Never {
            let role = self.clone();
            self.inner.tasks.spawn("step down", async move { role.step_down(RoleReason::Operator).await });
        }
    }

    /// Other nodes to join through count from now on.
    pub fn set_join(&self, join: Vec<JoinAddress>) {
        if let Some(service) = self.service() {
            service.set_join(join.clone());
        }
        *lock(&self.inner.join) = join;
    }

    /// These names are nodes to join through, too, from now on.
    pub fn set_names(&self, names: Vec<JoinAddress>) {
        if let Some(service) = self.service() {
            service.set_names(names.clone());
        }
        *lock(&self.inner.names) = names;
    }

    /// This node listens elsewhere now.
    pub async fn moved(&self) {
        if let Some(service) = self.service() {
            // One that stopped is reached nowhere.
            let _ = service.set_address(self.announced(), self.inner.endpoint.local_address()).await;
            if let Ok(snapshot) = service.snapshot().await {
                self.serves(&snapshot).await;
            }
        }
    }

    /// The address to announce instead of the one that others observe.
    fn announced(&self) -> Option<SocketAddr> {
        let set = lock(&self.inner.settings).advertise;
        set.or_else(|| *self.inner.network.elsewhere().borrow())
    }

    /// Follows the port that a router forwards, once somebody came through it.
    async fn follow_elsewhere(self) {
        let mut elsewhere = self.inner.network.elsewhere();
        while elsewhere.changed().await.is_ok() {
            if let Some(service) = self.service() {
                // One that stopped is reached nowhere.
                let _ = service.set_address(self.announced(), self.inner.endpoint.local_address()).await;
            }
        }
    }

    /// Ultrapeers that it knows, itself included; none while there is none.
    pub async fn remember(&self) -> Vec<SignedDescriptor> {
        match self.service() {
            Some(service) => service.remember().await,
            None => Vec::new(),
        }
    }

    /// Hands over the leaves and is a leaf again.
    pub async fn step_down(&self, reason: RoleReason) {
        let _change = self.inner.change.lock().await;
        self.end(reason).await;
    }

    /// Hands over the leaves, because the node ends.
    pub(crate) async fn stop(&self) {
        self.inner.ended.store(true, Ordering::Relaxed);
        self.step_down(RoleReason::Operator).await;
    }

    /// The ultrapeer, while it runs.
    pub(crate) fn service(&self) -> Option<Service> {
        self.inner.running.borrow().as_ref().map(|running| running.service.clone())
    }

    /// Starts the ultrapeer when the network core says so.
    async fn follow(self) {
        let mut begins = self.inner.network.begins();
        loop {
            let begin = *begins.borrow_and_update();
            if let Some(begin) = begin {
                self.begin(begin).await;
            }
            if begins.changed().await.is_err() {
                return;
            }
        }
    }

    async fn begin(&self, begin: Begin) {
        let _change = self.inner.change.lock().await;
        let willing = lock(&self.inner.settings).willing;
        if self.inner.ended.load(Ordering::Relaxed) || willing == Willing::Never || self.is_ultrapeer() {
            return;
        }
        // A candidate whose network is gone begins anew.
        self.end(RoleReason::Founding).await;
        announce(begin);
        match self.launch(begin).await {
            Ok(service) => {
                let tasks = self.inner.tasks.child();
                let running = Running { service: service.clone(), admitted: false, own: None, tasks: tasks.clone() };
                self.inner.running.send_replace(Some(running));
                self.inner.network.set_role(Standing::Candidate, None).await;
                tasks.spawn("admission", self.clone().follow_admission(service, begin, tasks.clone()));
            }
            Err(error) => {
                tracing::error!(%error, "this node cannot be an ultrapeer");
                self.inner.network.set_role(Standing::Leaf, None).await;
            }
        }
    }

    /// What it takes when it serves; of what leaves send each other it relays what its line can bear, unless it serves in
    /// any case.
    async fn affordable(&self, Settings { willing, mut takes, .. }: Settings) -> leaves::Settings {
        if willing != Willing::Always {
            takes.relay = takes.relay.within(self.inner.network.upstream_kbit().await);
        }
        takes
    }

    async fn launch(&self, begin: Begin) -> std::io::Result<Service> {
        let inner = &self.inner;
        let offered = !begin.founds();
        let configured = *lock(&inner.settings);
        let willing = configured.willing;
        let invitations = inner.network.invitations().await;
        let start = Start {
            network: inner.network_name.clone(),
            settings: self.affordable(configured).await,
            terms: Terms { regime: inner.regime, volunteer: willing == Willing::Auto, invitations },
            // Whoever begins a network has just tried them; they are looked for again once it serves.
            join: if offered { lock(&inner.join).clone() } else { Vec::new() },
            founder: !offered,
            expects_names: false,
            advertise: self.announced(),
            remembered: inner.network.remember().await,
            contacts: inner.network.contacts().await,
        };
        Service::start(inner.endpoint.clone(), inner.identity.clone(), inner.clock, start, &inner.tasks)
    }

    /// Waits until the ultrapeer was let in, and has the leaf side attach to it.
    async fn follow_admission(self, service: Service, begin: Begin, tasks: Tasks) {
        let mut admitted = service.admitted();
        let patience = begin.patience().unwrap_or(Duration::MAX);
        match timeout(patience, admitted.wait_for(|admitted| *admitted)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(_) => return self.give_up(&service),
        }
        let change = self.inner.change.lock().await;
        let Ok(snapshot) = service.snapshot().await else { return };
        if tasks.token().is_cancelled() {
            return; // it ended before it began
        }
        self.inner.running.send_modify(|running| {
            if let Some(running) = running.as_mut() {
                running.admitted = true;
            }
        });
        let reason = match begin {
            Begin::Offered => RoleReason::Operator,
            Begin::Invited => RoleReason::Demand,
            Begin::Alone | Begin::First(_) => RoleReason::Founding,
        };
        tracing::info!("this node is an ultrapeer now: it serves other leaves, and stays a leaf as well");
        self.inner.serves.send_replace(true);
        ROLE.set_only(Shown::Ultrapeer);
        ROLE_CHANGES.increment((NewRole::Ultrapeer, reason));
        self.serves(&snapshot).await;
        if begin.founds() {
            service.set_join(lock(&self.inner.join).clone());
        }
        service.set_names(lock(&self.inner.names).clone());
        drop(change);
        self.follow_retirement(&service).await;
    }

    /// A candidate was not let in: it is a leaf again, and may be invited another time.
    fn give_up(&self, service: &Service) {
        let (role, service) = (self.clone(), service.clone());
        // In a task of its own: that of the candidate ends with it.
        self.inner.tasks.spawn("give up", async move {
            let hurdle = service.snapshot().await.ok().and_then(|snapshot| snapshot.hurdle);
            let why = hurdle.map_or("nobody answered", Hurdle::text);
            tracing::info!(why, "this node was not let in as an ultrapeer, and stays a leaf");
            role.inner.network.set_hurdle(hurdle).await;
            role.step_down(RoleReason::Surplus).await;
        });
    }

    /// Steps down when the network can do without this volunteer.
    async fn follow_retirement(&self, service: &Service) {
        let mut retired = service.retired();
        let Ok(why) = retired.wait_for(Option::is_some).await.map(|why| *why) else { return };
        match why {
            Some(Retirement::Replaced) => tracing::info!("somebody better serves now in place of this node"),
            Some(Retirement::Unreachable) => {
                tracing::warn!("others do not reach this node any more: it does not serve. Is its UDP port open?");
            }
            Some(Retirement::Distrusted) => {
                tracing::warn!("what this node told of its leaves was not so, others say: it does not serve");
            }
            Some(Retirement::Surplus) | None => {
                tracing::info!("there are more ultrapeers than are needed: this node need not serve any more");
            }
        }
        let reason = why.map_or(RoleReason::Surplus, RoleReason::from);
        let role = self.clone();
        // As above.
        self.inner.tasks.spawn("step down", async move { role.step_down(reason).await });
    }

    /// Tells the network core what this node runs on.
    async fn follow_conditions(self) {
        let mut ticks = interval(limits::CONDITIONS_LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = None;
        loop {
            ticks.tick().await;
            let memory = lock(&self.inner.settings).takes.memory;
            // Files of the system are read: at once, as a rule.
            let machinery = tokio::task::spawn_blocking(move || machinery::look(memory)).await.unwrap_or_default();
            if known.replace(machinery) != Some(machinery) {
                self.inner.network.set_machinery(machinery).await;
            }
        }
    }

    /// Tells the leaf side what the ultrapeer covers, if that is news.
    async fn serves(&self, snapshot: &Snapshot) {
        let address = own_address(&self.inner.endpoint);
        let own = Own { address, shard: snapshot.shard };
        let is_news = self.inner.running.send_if_modified(|running| {
            let Some(running) = running.as_mut().filter(|running| running.admitted) else { return false };
            running.own.replace(own) != Some(own)
        });
        if is_news {
            self.inner.network.set_role(Standing::Ultrapeer, Some(own)).await;
        }
    }

    /// Ends what runs. To be called while `change` is held.
    async fn end(&self, reason: RoleReason) {
        let Some(running) = self.inner.running.borrow().clone() else { return };
        // From now on the leaf side looks for other homes; the ultrapeer still answers those that knock.
        self.inner.network.set_role(Standing::Leaf, None).await;
        if running.admitted {
            tracing::info!("this node is an ultrapeer no more: it hands over its leaves");
            running.service.drain().await;
        }
        self.inner.serves.send_replace(false);
        self.inner.running.send_replace(None);
        running.tasks.cancel();
        running.service.stop();
        view::collect_nothing();
        if running.admitted {
            ROLE.set_only(Shown::Leaf);
            ROLE_CHANGES.increment((NewRole::Leaf, reason));
        }
    }
}

/// Says to whoever reads the log what is about to happen, and why.
fn announce(begin: Begin) {
    match begin {
        Begin::Alone => {
            tracing::info!("this node founds the network, because it found no ultrapeer and serves in any case");
        }
        Begin::First(others) => tracing::info!(
            others,
            "this node founds the network, because no ultrapeer is left and it comes first among those that miss one"
        ),
        Begin::Offered => tracing::info!("this node offers itself to the network as an ultrapeer"),
        Begin::Invited => tracing::info!("the network wants more ultrapeers, and invited this node"),
    }
}

/// Where this node dials itself.
fn own_address(endpoint: &Endpoint) -> SocketAddr {
    startup::usable(endpoint.local_address())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every operation leaves the value whole, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
