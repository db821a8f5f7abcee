//! What both daemons do before they serve, and the order in which they end.
//!
//! ```text
//!   prepare:  log ─> data folder (locked) ─> identity ─> metrics ─> sockets: QUIC with its bans, API, probes
//!                 ─> Daemon, Arrivals
//!   the program starts its node on `daemon.endpoint` and makes its router
//!   serve:    API and probes answer ─> api.json ─> ready line, READY=1
//!   the program works until `daemon.life` drains, and hands over
//!   close:    QUIC closed and silent ─> api.json gone ─> HTTP closed
//! ```
//!
//! ```no_run
//! # use overlay::{admin::index::Api, config::{Layer, Program}, console::{Console, Exit, Failure, GlobalOptions}};
//! # use overlay::{environment::Environment, metrics::Role, startup::{self, Plan}};
//! # async fn run(global: GlobalOptions, options: Layer, console: Console) -> Result<Exit, Failure> {
//! let plan = Plan { program: Program::Leaf, role: Role::Leaf, families: &[], page: true };
//! let (mut daemon, mut arrivals) =
//!     startup::prepare(plan, &global, &Environment::of_process(), options).await?;
//! // ... start the node with daemon.endpoint, daemon.identity, daemon.clock, daemon.tasks ...
//! daemon.serve(&console, |guard| Api::new("quictrack", "0.1.0").into_router((), guard)).await?;
//! daemon.life.draining().await;
//! daemon.readiness.set_draining();
//! // ... hand over ...
//! daemon.close().await;
//! # Ok(Exit::Done)
//! # }
//! ```
//!
//! Invariant: what [`prepare`] or [`Daemon::serve`] fail with leaves no socket, no lock and no `api.json`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use axum::Router;
use tokio::sync::watch;

use crate::{
    admin::{
        Code,
        auth::Guard,
        handoff::{ApiFile, TokenTexts},
        probes::{self, Readiness},
        server::{self, Listen, Listener},
    },
    bans::keeper::Bans,
    config::{self, Config, Layer, Program, Settings},
    console::{Console, Failure, GlobalOptions, revision},
    discovery::{self, Site},
    drive::{Clock, Tasks},
    environment::Environment,
    folders::DataFolder,
    identity::{Identity, KeyFileError},
    life::{self, Life, Ready, supervisor},
    limits,
    metrics::{self, Build, Family, Metrics, ROLE, Role},
    portmap,
    telemetry::{Telemetry, TelemetryError},
    transport::{self, Arrivals, BindMode, CloseCode, Endpoint, Secret},
};

/// What kind of daemon is prepared.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// The program.
    pub program: Program,
    /// What it is at the start.
    pub role: Role,
    /// Families of metrics beside those of this crate.
    pub families: &'a [&'static [&'static dyn Family]],
    /// True if its router serves a page at `/`.
    pub page: bool,
}

impl std::fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("program", &self.program).field("role", &self.role).finish_non_exhaustive()
    }
}

/// A daemon that holds everything it needs to serve: its folder, its key, its sockets.
#[derive(Debug)]
pub struct Daemon {
    /// The configuration; followed from [`Self::serve`] on.
    pub config: Arc<Config>,
    /// The data folder, locked.
    pub data: DataFolder,
    /// The node's key.
    pub identity: Arc<Identity>,
    /// The node's place in the network, bound.
    pub endpoint: Endpoint,
    /// Whom it does not deal with, and what is blocked.
    pub bans: Bans,
    /// What the daemon is told to do.
    pub life: Life,
    /// The log.
    pub telemetry: Telemetry,
    /// What `/readyz` says; `network` is the program's to set.
    pub readiness: Readiness,
    /// The clock of all drivers; it began with the daemon.
    pub clock: Clock,
    /// The daemon's tasks; they end in [`Self::close`].
    pub tasks: Tasks,
    program: Program,
    page: bool,
    tokens: TokenTexts,
    metrics: Metrics,
    api: Option<Listener>,
    probes: Option<Listener>,
    /// Tasks that answer until everything else has ended.
    http: Tasks,
}

/// Does what comes before serving: reads the configuration, opens the log, locks the data folder, loads or
/// makes the key, installs the metrics, heeds signals and binds every socket. Call it once, in a runtime.
///
/// # Errors
/// What the user must mend, as the command line tells it. Nothing is left open.
pub async fn prepare(
    plan: Plan<'_>,
    global: &GlobalOptions,
    environment: &Environment,
    command_line: Layer,
) -> Result<(Daemon, Arrivals), Failure> {
    let config = Arc::new(global.configuration(plan.program, environment, command_line)?);
    let settings = config.settings();
    let telemetry = Telemetry::install(settings.log.as_str(), settings.log_format, global.color)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let life = Life::of_process()?;
    let folders = global.folders(plan.program, environment)?;
    // This version is the first that has data, so there is nothing to migrate from.
    let data = DataFolder::open(&folders, |_, _| Ok(()))?;
    let identity = Arc::new(Identity::load_or_create(&folders.identity_file())?);
    let tokens = TokenTexts::load_or_make(&folders.data)?;
    let build = Build { version: env!("CARGO_PKG_VERSION"), revision: revision(), role: plan.role };
    let metrics = metrics::install(build, plan.families).map_err(internal)?;
    ROLE.set_only(plan.role);
    let readiness = Readiness::new();
    readiness.set_identity(true);
    let (endpoint, arrivals) = bind_endpoint(plan.program, &config, &settings, &data, &identity)?;
    let bans = Bans::load(&folders.data, &settings, endpoint.clone())?;
    let api = bind_http(&config, "api", settings.api).await?;
    let probes = bind_http(&config, "metrics", settings.metrics).await?;
    readiness.set_listening(true);
    let daemon = Daemon {
        config,
        data,
        identity,
        endpoint,
        bans,
        life,
        telemetry,
        readiness,
        clock: Clock::new(),
        tasks: Tasks::new(),
        program: plan.program,
        page: plan.page,
        tokens,
        metrics,
        api,
        probes,
        http: Tasks::new(),
    };
    Ok((daemon, arrivals))
}

impl Daemon {
    /// Answers from now on, and says so: `api.json`, the ready line, `READY=1`. Follows the configuration and
    /// feeds the watchdog. `router` makes the routes of the API; it is not called if the API is off.
    ///
    /// # Errors
    /// `api.json` cannot be written, or the reader of the ready line left.
    pub async fn serve(&mut self, console: &Console, router: impl FnOnce(Guard) -> Router) -> Result<(), Failure> {
        let settings = self.config.settings();
        let served = self.listen(&settings, router).and_then(|ready| {
            tracing::info!(peer = ready.peer_id, network = ready.network, quic = %ready.quic, "ready");
            ready.announce(console, Some(&self.tokens.full))
        });
        if served.is_err() {
            self.close().await;
            return served;
        }
        let (config, life, telemetry) = (self.config.clone(), self.life.clone(), self.telemetry.clone());
        self.tasks.spawn("configuration", async move { life::follow_configuration(&config, &life, &telemetry).await });
        self.tasks.spawn("bans", self.bans.clone().follow(self.config.subscribe()));
        self.tasks.spawn("watchdog", supervisor::feed_watchdog());
        self.tasks.spawn("connections", measure_connections(self.endpoint.clone()));
        Ok(())
    }

    /// Looks for others on behalf of the node, and shows it to them, until the daemon's tasks end.
    pub fn look_around(&self, site: Arc<dyn Site>) {
        let (endpoint, settings) = (self.endpoint.clone(), self.config.subscribe());
        let (tasks, token) = (self.tasks.child(), self.tasks.token());
        self.tasks.spawn_to_end("discovery", discovery::run(site, endpoint, self.clock, settings, tasks, token));
    }

    /// Has the router forward the node's port until the daemon's tasks end; where others should reach it then.
    pub fn map_port(&self) -> watch::Receiver<Option<SocketAddr>> {
        let (told, mapped) = watch::channel(None);
        let running =
            portmap::run(self.endpoint.clone(), self.clock, self.config.subscribe(), told, self.tasks.token());
        self.tasks.spawn_to_end("port mapping", running);
        mapped
    }

    /// Answers on the listeners that are on; returns what the ready line says.
    fn listen(&mut self, settings: &Settings, router: impl FnOnce(Guard) -> Router) -> Result<Ready, Failure> {
        let stop = self.http.token();
        let quic = usable(self.endpoint.local_address());
        let mut ready = Ready::new(self.program.role(), self.identity.peer_id(), &settings.network, quic);
        if let Some(listener) = self.probes.take() {
            ready = ready.metrics(Some(listener.url()));
            let router = probes::router(self.metrics.clone(), self.readiness.clone());
            self.http.spawn_to_end("probes", server::serve(listener, router, stop.clone()));
        }
        self.http.spawn_to_end("metrics upkeep", self.metrics.clone().upkeep(stop.clone()));
        // A daemon that was killed may have left one, and its address may be another program's by now.
        ApiFile::remove(self.data_dir())?;
        if let Some(listener) = self.api.take() {
            let url = listener.url();
            let guard = Guard::new(listener.address(), &settings.api_hosts, self.tokens.hashes());
            self.http.spawn_to_end("api", server::serve(listener, router(guard), stop));
            self.api_file(url.clone()).write(self.data_dir())?;
            ready = ready.api(Some(url), self.page);
        }
        Ok(ready)
    }

    /// Ends what [`prepare`] and [`Self::serve`] began, the API last, so that who waits for the end of its
    /// events knows that the node is gone. Bounded by [`limits::CLOSE_TIMEOUT`] twice.
    pub async fn close(&self) {
        self.tasks.cancel();
        self.endpoint.close(CloseCode::Shutdown);
        let silent = async {
            self.tasks.wait().await;
            self.endpoint.wait_idle().await;
        };
        if tokio::time::timeout(limits::CLOSE_TIMEOUT, silent).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "not everything ended in time");
        }
        if let Err(error) = ApiFile::remove(self.data_dir()) {
            tracing::warn!(%error, "api.json stays behind");
        }
        self.http.shutdown(limits::CLOSE_TIMEOUT).await;
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data.folders().data
    }

    fn api_file(&self, url: String) -> ApiFile {
        ApiFile {
            url,
            token: self.tokens.full.clone(),
            pid: std::process::id(),
            role: self.program.role().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Brings the connections of an endpoint up to date in the metrics, for ever.
pub async fn measure_connections(endpoint: Endpoint) {
    let mut ticks = tokio::time::interval(limits::METRICS_UPKEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        endpoint.measure_connections();
    }
}

/// The bound address as this machine can dial it: all addresses are written as IPv4 loopback, which sockets
/// of both families take too.
pub fn usable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port());
    }
    address
}

fn bind_endpoint(
    program: Program,
    config: &Config,
    settings: &Settings,
    data: &DataFolder,
    identity: &Identity,
) -> Result<(Endpoint, Arrivals), Failure> {
    let secret = match &settings.network_secret_file {
        Some(path) => Some(Secret::new(config::read_secret(path)?.as_bytes())),
        None => None,
    };
    let node = transport::Settings {
        network: settings.network.to_string(),
        secret,
        agent: format!("{}/{}", program.name(), env!("CARGO_PKG_VERSION")),
    };
    let is_set = config.is_set("listen");
    let bound = life::bind_node(settings.listen, is_set, data.remembered_port(), |address| {
        Ok(Endpoint::bind(address, BindMode::Given, identity, node.clone())?)
    })?;
    if !is_set {
        data.remember_port(bound.0.local_address().port())?;
    }
    Ok(bound)
}

async fn bind_http(config: &Config, key: &str, address: Option<SocketAddr>) -> Result<Option<Listener>, Failure> {
    let Some(address) = address else { return Ok(None) };
    let listen = if config.is_set(key) { Listen::Given(address) } else { Listen::Default(address) };
    Ok(Some(server::bind(listen).await?))
}

fn internal(error: impl std::fmt::Display) -> Failure {
    io::Error::other(error.to_string()).into()
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        match error {
            TelemetryError::Filter { .. } => Self::new(Code::BadConfig, error.to_string())
                .hint("a level such as `debug`, or targets with levels such as `info,quinn=debug`"),
            _ => internal(error),
        }
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        let code = match &error {
            KeyFileError::Read { source, .. } | KeyFileError::Write { source, .. } => {
                Self::from(io::Error::from(source.kind())).code
            }
            KeyFileError::Permissions { .. } => Code::PermissionDenied,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string()).hint(error.hint())
    }
}
