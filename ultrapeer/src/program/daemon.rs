//! The daemon: an ultrapeer from the first socket to the last.
//!
//! ```text
//!   prepare ─> service ─> ready ─> (arrivals, settings, gauges) ─> drain ─> remember ─> close
//! ```

use std::{net::SocketAddr, sync::Arc, time::Duration};

use overlay::{
    admin::{
        common::Common,
        events::{Changes, EventRing, Roster},
    },
    commands::Surroundings,
    config::{Config, Layer, Program, Settings},
    console::{Exit, Failure},
    drive::{Stopped, random_token},
    id::PeerId,
    metrics::Role,
    remembered::Remembered,
    startup::{self, Daemon, Plan},
    transport::{Arrival, Arrivals, Endpoint},
    wire::{descriptor::SignedDescriptor, hello::RefuseReason},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    api::{self, App},
    capacity,
    view::View,
};
use crate::{
    driver::{self, Service, Snapshot, Start},
    metrics,
    ultrapeer::Terms,
    view,
};

/// Time between two looks at the ultrapeer for gauges, events and the remembered ultrapeers: fresh for a
/// person who watches, and a thousandth of a core with 10,000 leaves.
const LOOK: Duration = Duration::from_secs(2);

/// Runs until the daemon is told to drain and has drained.
///
/// # Errors
/// What keeps it from starting.
pub(super) async fn run(at: &Surroundings<'_>, options: Layer) -> Result<Exit, Failure> {
    let plan = Plan { program: Program::Ultrapeer, role: Role::Ultrapeer, families: &[metrics::FAMILIES], page: false };
    let (mut daemon, arrivals) = startup::prepare(plan, at.global, at.environment, options).await?;
    daemon.endpoint.expect_crowd();
    let (remembered, known) = Remembered::load(daemon.data_dir(), daemon.identity.peer_id());
    let cached = known.clone();
    let service = Service::start(
        daemon.endpoint.clone(),
        daemon.identity.clone(),
        daemon.clock,
        start(&daemon.config, known),
        &daemon.tasks,
    )?;
    let view = View::new(&daemon, service.clone(), &cached);
    capacity::warn(&view.advice());
    let events = Arc::new(EventRing::new(random_token()?));
    let common = Arc::new(Common {
        config: daemon.config.clone(),
        telemetry: daemon.telemetry.clone(),
        events: events.clone(),
        bans: daemon.bans.clone(),
    });
    daemon.bans.set_known(Arc::new(service.clone()));
    spawn(&daemon, &service, arrivals, &view, &common);
    let app = App { view: view.clone(), common, life: daemon.life.clone() };
    daemon.serve(at.console, |guard| api::router(app, guard)).await?;
    let remembered = live(&daemon, &service, &view, &events, remembered).await;
    tracing::info!("draining");
    daemon.readiness.set_draining();
    let kept = service.remember().await;
    service.drain().await;
    remember(remembered, kept).await;
    service.stop();
    daemon.close().await;
    Ok(Exit::Done)
}

fn start(config: &Config, remembered: Vec<SignedDescriptor>) -> Start {
    let settings = config.settings();
    Start {
        network: settings.network.to_string(),
        settings: driver::settings_of(config, &settings),
        terms: Terms::operated(settings.network.as_str(), settings.network_secret_file.is_some()),
        join: settings.join.clone(),
        founder: settings.founder,
        expects_names: !settings.dns.is_empty(),
        advertise: settings.advertise,
        remembered,
        contacts: Vec::new(),
    }
}

/// The tasks that only pass things on.
fn spawn(daemon: &Daemon, service: &Service, arrivals: Arrivals, view: &Arc<View>, common: &Arc<Common>) {
    daemon.tasks.spawn("arrivals", receive(arrivals, service.clone(), view.clone()));
    daemon.tasks.spawn("log events", common.clone().publish_log());
    let (readiness, mut admitted) = (daemon.readiness.clone(), service.admitted());
    daemon.tasks.spawn("readiness", async move {
        loop {
            readiness.set_network(*admitted.borrow_and_update());
            if admitted.changed().await.is_err() {
                return;
            }
        }
    });
    let follower = Follower {
        config: daemon.config.clone(),
        endpoint: daemon.endpoint.clone(),
        service: service.clone(),
        seen: daemon.config.settings(),
        mapped: view.mapped(),
        view: view.clone(),
    };
    daemon.tasks.spawn("settings", follower.run());
    daemon.look_around(Arc::new(service.clone()));
}

/// Gives those who dial this node to whom they want.
async fn receive(mut arrivals: Arrivals, service: Service, view: Arc<View>) {
    while let Some(arrival) = arrivals.next().await {
        view.was_reached();
        match arrival {
            Arrival::Leaf(offer) => service.leaf(offer),
            Arrival::Mesh(offer) => service.mesh(offer),
            // It shares nothing.
            Arrival::Transfer(offer) => offer.refuse(RefuseReason::NotServed, Vec::new()),
        }
    }
}

/// Looks at the ultrapeer every [`LOOK`] until the daemon must drain: gauges, events, remembered ultrapeers.
async fn live(
    daemon: &Daemon,
    service: &Service,
    view: &View,
    events: &EventRing,
    mut remembered: Remembered,
) -> Remembered {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut statuses, mut others, mut leaves) = (Changes::new("status"), Changes::new("peer"), Roster::new("peer"));
    let mut members = Vec::new();
    loop {
        tokio::select! {
            () = daemon.life.draining() => return remembered,
            _ = ticks.tick() => {}
        }
        let Ok(snapshot) = view.snapshot().await else { continue };
        view.collect(&snapshot);
        let status = view.status(&snapshot);
        statuses.publish(events, [(status.peer_id.clone(), status)], &["uptime_s"]);
        let rows = view.other_ultrapeers(&snapshot).map(|peer| (peer.peer.clone(), peer));
        others.publish(events, rows, &["rtt_ms"]);
        let attached = snapshot.attached.iter().map(|leaf| (leaf.peer, leaf.address));
        leaves.publish(events, attached, |peer, address| view::leaf(peer, *address, None));
        let now = keys(&snapshot);
        if now != members {
            members = now;
            remembered = remember(remembered, service.remember().await).await;
        }
    }
}

/// Who the members are and where.
fn keys(snapshot: &Snapshot) -> Vec<(PeerId, SocketAddr)> {
    let mut keys: Vec<_> = snapshot.members.iter().map(|member| (member.peer, member.address)).collect();
    keys.sort_unstable();
    keys
}

/// Writes the file, if there is something new, without holding up the runtime.
async fn remember(mut remembered: Remembered, kept: Vec<SignedDescriptor>) -> Remembered {
    let own = remembered.clone();
    let storing = tokio::task::spawn_blocking(move || {
        if let Err(error) = remembered.store(&kept) {
            tracing::warn!(%error, "the known ultrapeers cannot be kept");
        }
        remembered
    });
    // A store that panicked leaves the file as it was.
    storing.await.unwrap_or(own)
}

/// Carries changes of the configuration to the parts that can change.
struct Follower {
    config: Arc<Config>,
    endpoint: Endpoint,
    service: Service,
    /// The settings that are in force.
    seen: Arc<Settings>,
    /// Where a router says that it forwards packets to it.
    mapped: watch::Receiver<Option<SocketAddr>>,
    view: Arc<View>,
}

impl Follower {
    async fn run(mut self) {
        let mut changes = self.config.subscribe();
        loop {
            // An ultrapeer that stopped follows nothing.
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let settings = changes.borrow_and_update().clone();
                    let _ = self.follow(&settings).await;
                    self.seen = settings;
                }
                Ok(()) = self.mapped.changed() => {
                    let _ = self.announce(&self.seen.clone()).await;
                }
            }
        }
    }

    /// Announces the address that the settings name, or the port that a router forwards, if that is another one than the
    /// own. Nobody believes that until others dialled it back.
    async fn announce(&mut self, settings: &Settings) -> Result<(), Stopped> {
        let local = self.endpoint.local_address();
        let mapped = self.mapped.borrow_and_update().filter(|mapped| mapped.port() != local.port());
        self.service.set_address(settings.advertise.or(mapped), local).await
    }

    async fn follow(&mut self, settings: &Settings) -> Result<(), Stopped> {
        let old = self.seen.clone();
        if settings.join != old.join {
            self.service.set_join(settings.join.clone());
        }
        if settings.listen != old.listen
            && let Err(error) = self.endpoint.rebind(settings.listen)
        {
            tracing::error!(%error, "the node stays at its old address");
        }
        if (settings.listen, settings.advertise) != (old.listen, old.advertise) {
            self.announce(settings).await?;
        }
        let [before, now] = [&*old, settings].map(|settings| driver::settings_of(&self.config, settings));
        if before != now {
            capacity::warn(&self.view.advice());
        }
        self.service.reconfigure(now).await
    }
}
