//! The daemon: a leaf from the first socket to the last.
//!
//! ```text
//!   prepare ─> node ─> ready ─> (settings, readiness, log) ─> drain ─> good-bye ─> close
//! ```

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Zoned;
use overlay::{
    admin::common::Common,
    commands::Surroundings,
    config::{Config, Layer, Program, Rate, ScheduleLine, Settings, Volunteer},
    console::{Console, Exit, Failure},
    discovery,
    election::Regime,
    limits,
    metrics::Role,
    report::Status,
    startup::{self, Daemon, Plan},
    transport::Endpoint,
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    api::http::{self, State, Tickets},
    metrics,
    node::{Node, Start},
    role,
    store::{ShareSpec, SharesConfig},
    transfer::serve::UploadLimits,
};

/// How often a schedule of rate limits is looked at.
const SCHEDULE_TICK: Duration = Duration::from_secs(20);

/// Runs until the daemon is told to drain and has said good-bye.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(at: &Surroundings<'_>, options: Layer) -> Result<Exit, Failure> {
    let families = &[metrics::FAMILIES, ultrapeer::metrics::FAMILIES];
    let plan = Plan { program: Program::Leaf, role: Role::Leaf, families, page: true };
    let (mut daemon, arrivals) = startup::prepare(plan, at.global, at.environment, options).await?;
    metrics::begin();
    let seeks = discovery::is_seeking(&daemon.config.settings(), &daemon.endpoint);
    let start = start(&daemon.config, daemon.data_dir(), seeks);
    let node =
        Node::start(daemon.endpoint.clone(), arrivals, daemon.identity.clone(), daemon.clock, start, &daemon.tasks)?;
    let common = Arc::new(Common {
        config: daemon.config.clone(),
        telemetry: daemon.telemetry.clone(),
        events: node.events().clone(),
        bans: daemon.bans.clone(),
    });
    daemon.bans.set_known(Arc::new(node.clone()));
    let state = State {
        node: node.clone(),
        readiness: daemon.readiness.clone(),
        tickets: Tickets::default(),
        common: common.clone(),
    };
    spawn(&daemon, &node, &common);
    daemon.tasks.spawn("status events", publish_status(state.clone()));
    daemon.serve(at.console, |guard| http::router(state, guard)).await?;
    greet(at.console, &daemon, &node);
    daemon.life.draining().await;
    tracing::info!("leaving the network");
    daemon.readiness.set_draining();
    node.stop().await;
    daemon.close().await;
    Ok(Exit::Done)
}

/// What a leaf of this configuration begins with. `seeks`: it looks for others by itself.
pub(crate) fn start(config: &Config, data: &Path, seeks: bool) -> Start {
    let settings = config.settings();
    Start {
        network: settings.network.to_string(),
        regime: Regime::of(settings.network.as_str(), settings.network_secret_file.is_some()),
        join: settings.join.clone(),
        seeks,
        data: data.to_owned(),
        shares: shares(config, &settings),
        uploads: UploadLimits {
            slots: settings.upload_slots.get() as usize,
            rate: rate_now(&settings.upload_schedule, settings.upload_limit),
            quota: settings.peer_quota.bytes(),
        },
        download_rate: rate_now(&settings.download_schedule, settings.download_limit),
        role: role(config, &settings),
    }
}

/// What to do next, for somebody who has just started a leaf for the first time.
fn greet(console: &Console, daemon: &Daemon, node: &Node) {
    console.note(format_args!("data: {}", daemon.data_dir().display()));
    console.note(format_args!("downloads: {}", node.output_folder(None).display()));
    if node.shares().list().is_empty() {
        console.note("nothing is shared yet; to share a folder: quictrack shares add DIR");
    }
    let settings = daemon.config.settings();
    let is_alone = settings.join.is_empty() && !node.is_in_network();
    if is_alone && discovery::is_seeking(&settings, node.endpoint()) {
        console.note("looking for others; to name one: --join ADDRESS");
    } else if is_alone && settings.volunteer != Volunteer::Always {
        console.note("no node to join is set; name one with --join ADDRESS");
    } else {
        console.note("to search: quictrack search WORDS");
    }
}

fn role(config: &Config, settings: &Settings) -> role::Settings {
    role::Settings {
        willing: settings.volunteer.into(),
        takes: ultrapeer::driver::settings_of(config, settings),
        advertise: settings.advertise,
    }
}

fn shares(config: &Config, settings: &Settings) -> SharesConfig {
    let origin = config.origin("share");
    SharesConfig {
        shares: settings.share.iter().map(|path| ShareSpec { path: path.clone(), origin }).collect(),
        exclude: settings.exclude.clone(),
        // Never is as good as every ten years.
        rescan_interval: settings.rescan_interval.duration().unwrap_or(Duration::from_hours(10 * 365 * 24)),
        hash_threads: settings.hash_threads.get() as usize,
        downloads: settings.downloads.clone(),
        share_downloads: settings.share_downloads,
    }
}

/// The limit that the schedule sets at this hour, in bytes a second.
fn rate_now(schedule: &[ScheduleLine], otherwise: Rate) -> Option<u64> {
    let now = Zoned::now();
    let weekday = now.weekday().to_monday_zero_offset() as u8;
    let minute = u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs());
    ScheduleLine::rate_at(schedule, weekday, minute, otherwise).bytes_per_second()
}

/// The tasks that only pass things on.
fn spawn(daemon: &Daemon, node: &Node, common: &Arc<Common>) {
    daemon.tasks.spawn("log events", common.clone().publish_log());
    let (readiness, watched) = (daemon.readiness.clone(), node.clone());
    daemon.tasks.spawn("readiness", async move {
        let (mut homes, mut role) = (watched.network().watch(), watched.role().watch());
        loop {
            readiness.set_network(watched.is_in_network());
            let changed = tokio::select! {
                changed = homes.changed() => changed,
                changed = role.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    });
    daemon.tasks.spawn("settings", follow(daemon.config.clone(), daemon.endpoint.clone(), node.clone()));
    daemon.look_around(Arc::new(node.clone()));
    let (network, mut mapped) = (node.network().clone(), daemon.map_port());
    daemon.tasks.spawn("mapped port", async move {
        while mapped.changed().await.is_ok() {
            let address = *mapped.borrow_and_update();
            network.set_mapped(address).await;
        }
    });
}

/// Puts the status among the events whenever it is another one.
pub(crate) async fn publish_status(state: State) {
    let mut ticks = interval(limits::LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Status::default();
    loop {
        ticks.tick().await;
        let status = crate::status::status(&state).await;
        metrics::show_reachability(&status.reachability);
        // What never rests is no news.
        let mut calm = Status { uptime_s: 0, ..status.clone() };
        calm.homes.iter_mut().flatten().for_each(|home| home.rtt_ms = None);
        if calm != known {
            state.common.events.publish("status", &status);
            known = calm;
        }
    }
}

/// Has the parts of a node that can change follow the configuration, until they are dropped.
pub(crate) async fn follow(config: Arc<Config>, endpoint: Endpoint, node: Node) {
    let seen = config.settings();
    Follower { config, endpoint, node, seen }.run().await;
}

/// Carries changes of the configuration to the parts that can change, and the schedule of the rate limits.
struct Follower {
    config: Arc<Config>,
    endpoint: Endpoint,
    node: Node,
    /// The settings that are in force.
    seen: Arc<Settings>,
}

impl Follower {
    async fn run(mut self) {
        let mut changes = self.config.subscribe();
        let mut ticks = interval(SCHEDULE_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let settings = changes.borrow_and_update().clone();
                    self.follow(&settings).await;
                    self.seen = settings;
                }
                _ = ticks.tick() => {}
            }
            let settings = &self.seen;
            self.node.set_rates(
                rate_now(&settings.upload_schedule, settings.upload_limit),
                rate_now(&settings.download_schedule, settings.download_limit),
            );
        }
    }

    async fn follow(&self, settings: &Settings) {
        let old = &*self.seen;
        if settings.join != old.join {
            self.node.set_join(settings.join.clone());
        }
        if settings.listen != old.listen {
            match self.endpoint.rebind(settings.listen) {
                Ok(()) => self.node.moved().await,
                Err(error) => tracing::error!(%error, "the node stays at its old address"),
            }
        }
        self.node.role().configure(role(&self.config, settings)).await;
        if settings.upload_slots != old.upload_slots {
            self.node.set_upload_slots(settings.upload_slots.get() as usize).await;
        }
        if settings.peer_quota != old.peer_quota {
            self.node.set_peer_quota(settings.peer_quota.bytes()).await;
        }
        if let Err(error) = self.node.configure_shares(shares(&self.config, settings)).await {
            tracing::error!(%error, "the shares stay as they were");
        }
    }
}
