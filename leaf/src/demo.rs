//! `demo`: a small network in one process, which searches and downloads, and stays to be looked at.
//!
//! Three ultrapeers and four leaves, each with sockets of its own on loopback, temporary data that is gone
//! afterwards, no discovery, nothing of the user's configuration. Everything else is the real thing: the same nodes, over
//! QUIC, and the leaf that downloads can be looked at and set as any other.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use overlay::{
    address::JoinAddress,
    admin::{
        auth::Guard,
        common::Common,
        error::Code,
        handoff::TokenTexts,
        probes::{self, Readiness},
        server::{self, Listen},
    },
    bans::keeper::Bans,
    config::{Config, Layer, LogFormat, Origin, Program},
    console::{Console, Exit, Failure, GlobalOptions, revision},
    drive::{Clock, Tasks},
    environment::Environment,
    folders::Folders,
    id::ContentId,
    identity::Identity,
    life::{self, Life, Ready},
    metrics::{self, Build, Role},
    startup,
    telemetry::Telemetry,
    transport::{Arrival, BindMode, CloseCode, Endpoint, Settings},
    wire::hello::RefuseReason,
};
use rand::Rng;
use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng};
use tokio::time::timeout;
use ultrapeer::{
    driver::{Service, Start as UltrapeerStart},
    ultrapeer::Terms,
};

use crate::{
    api::{
        http::{self, State, Tickets},
        types::{Hit, SearchRequest, Summary},
    },
    daemon,
    download::{Event, Request, record::Done},
    node::Node,
    store::ShareSpec,
};

/// What `demo` is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The folder to share; `/usr/share/doc` if none is given.
    pub share: Option<PathBuf>,
    /// What to search for; the made file if nothing is given.
    pub query: Option<String>,
    /// End after the download.
    pub once: bool,
}

/// What a leaf uploads at most. Chosen: the download takes about a second, so all three sources are at work before one
/// alone could have sent everything.
const UPLOAD_LIMIT: &str = "12MB";
/// What is logged if `-v` and `-q` say nothing: what the demonstration tells by itself is not to be lost among it.
const LOG: &str = "warn";
/// Bytes of the made file.
const MADE_BYTES: usize = 32 << 20;
/// Its name, which the default query finds.
const MADE_NAME: &str = "quictrack demo file.bin";
/// What is searched for if the user has no wish.
const MADE_QUERY: &str = "quictrack demo";
/// Leaves that have the made file.
const HOLDERS: usize = 3;
const ULTRAPEERS: usize = 3;
const LEAVES: usize = 4;
/// Time for the network to form, and for the shares to become searchable.
const FORMING: Duration = Duration::from_secs(30);
/// Time for the download: 32 MiB on loopback take well under a second.
const FETCHING: Duration = Duration::from_secs(30);

/// Runs the demonstration. The exit is `Done` only if the downloaded bytes are right.
///
/// # Errors
/// What went wrong, for the user.
pub async fn run(console: &Console, global: &GlobalOptions, wish: Wish) -> Result<Exit, Failure> {
    let folder = wish.share.clone().unwrap_or_else(|| PathBuf::from("/usr/share/doc"));
    if !folder.is_dir() {
        return Err(Failure::new(Code::BadRequest, format!("{} is not a folder", folder.display()))
            .hint("name a folder with --share DIR"));
    }
    let life = Life::of_process()?;
    let bed = Bed::build(&folder, global)?;
    let outcome = tokio::select! {
        biased;
        () = life.draining() => Ok(Exit::Interrupted),
        outcome = bed.show(console, &wish) => outcome,
    };
    let outcome = match outcome {
        Ok(Exit::Done) if !wish.once => bed.stay(console, &life).await,
        outcome => outcome,
    };
    bed.tear_down().await;
    outcome
}

/// The network of the demonstration.
struct Bed {
    data: tempfile::TempDir,
    made: ContentId,
    ultrapeers: Vec<(Service, Endpoint)>,
    leaves: Vec<Leaf>,
    clock: Clock,
    tasks: Tasks,
    metrics: metrics::Metrics,
    telemetry: Telemetry,
    /// The filter of the log.
    log: &'static str,
}

/// A leaf, and what it was started with.
struct Leaf {
    node: Node,
    config: Arc<Config>,
}

impl Bed {
    fn build(folder: &Path, global: &GlobalOptions) -> Result<Self, Failure> {
        let log = global.log_filter().unwrap_or(LOG);
        let telemetry = Telemetry::install(log, LogFormat::Text, global.color)?;
        let data = tempfile::Builder::new().prefix("quictrack-demo-").tempdir()?;
        let made = make_file(data.path())?;
        let build = Build { version: env!("CARGO_PKG_VERSION"), revision: revision(), role: Role::Leaf };
        let families = &[crate::metrics::FAMILIES, ultrapeer::metrics::FAMILIES];
        let metrics = metrics::install(build, families).map_err(internal)?;
        crate::metrics::begin();
        let mut bed = Self {
            data,
            made,
            ultrapeers: Vec::new(),
            leaves: Vec::new(),
            clock: Clock::new(),
            tasks: Tasks::new(),
            metrics,
            telemetry,
            log,
        };
        for number in 0..ULTRAPEERS {
            bed.add_ultrapeer(number)?;
        }
        for number in 0..LEAVES {
            bed.add_leaf(number, folder)?;
        }
        Ok(bed)
    }

    /// The first ultrapeer founds the network, the others and the leaves join through it.
    fn join(&self) -> Vec<JoinAddress> {
        let first = self.ultrapeers.first().map(|(_, endpoint)| endpoint.local_address());
        let address = |at: SocketAddr| JoinAddress { peer: None, host: at.ip().to_string(), port: at.port() };
        first.map(address).into_iter().collect()
    }

    fn bind() -> Result<(Endpoint, overlay::transport::Arrivals, Arc<Identity>), Failure> {
        let identity = Arc::new(Identity::generate()?);
        let settings = Settings { network: "demo".to_owned(), secret: None, agent: agent() };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bound = Endpoint::bind(address, BindMode::Given, &identity, settings);
        let (endpoint, arrivals) = bound.map_err(internal)?;
        Ok((endpoint, arrivals, identity))
    }

    fn add_ultrapeer(&mut self, number: usize) -> Result<(), Failure> {
        let (endpoint, mut arrivals, identity) = Self::bind()?;
        let start = UltrapeerStart {
            network: "demo".to_owned(),
            settings: ultrapeer::leaves::Settings::default(),
            terms: Terms::operated("demo", false),
            join: self.join(),
            founder: number == 0,
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

    fn add_leaf(&mut self, number: usize, folder: &Path) -> Result<(), Failure> {
        let (endpoint, arrivals, identity) = Self::bind()?;
        let data = data_of(self.data.path(), number);
        std::fs::create_dir_all(&data)?;
        let config = Arc::new(self.configuration(&data)?);
        let mut start = daemon::start(&config, &data, false);
        let mut share = |path| start.shares.shares.push(ShareSpec { path, origin: Origin::CommandLine });
        if number == 0 {
            share(folder.to_owned());
        }
        if number < HOLDERS {
            share(self.data.path().join("shared"));
        }
        let node = Node::start(endpoint, arrivals, identity, self.clock, start, &self.tasks)?;
        self.leaves.push(Leaf { node, config });
        Ok(())
    }

    /// The configuration of a leaf, written to its data folder. It can be changed as any other.
    fn configuration(&self, data: &Path) -> Result<Config, Failure> {
        let folders = Folders::within(Program::Leaf, data);
        let join: Vec<_> = self.join().iter().map(ToString::to_string).collect();
        let text = format!(
            "network = \"demo\"\njoin = {join:?}\nvolunteer = \"never\"\nlan = false\ndht = false\nportmap = false\n\
             listen = \"127.0.0.1:0\"\napi = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n\
             hash_threads = 1\nupload_limit = \"{UPLOAD_LIMIT}\"\nlog = \"{log}\"\n",
            log = self.log,
        );
        std::fs::write(&folders.configuration, text)?;
        Ok(Config::load(Program::Leaf, &folders, &Environment::default(), Layer::default())?)
    }

    /// The leaf that searches and downloads: the one that has nothing.
    fn seeker(&self) -> &Leaf {
        &self.leaves[LEAVES - 1]
    }

    async fn show(&self, console: &Console, wish: &Wish) -> Result<Exit, Failure> {
        console.note(format_args!("starting {ULTRAPEERS} ultrapeers and {LEAVES} leaves"));
        let formed = timeout(FORMING, self.formed()).await;
        formed.map_err(|_| Failure::new(Code::Timeout, "the network did not form in time"))?;
        let files: u64 = self.leaves.iter().map(|leaf| leaf.node.shares().catalog().files()).sum();
        console.note(format_args!("{files} files are shared and searchable"));
        let query = wish.query.clone().unwrap_or_else(|| MADE_QUERY.to_owned());
        self.search(console, &query).await?;
        let done = self.fetch(console).await?;
        let sources = done.sources.len();
        if sources < HOLDERS {
            console.warn(format_args!("only {sources} of {HOLDERS} holders were needed"));
        }
        let right = hash_of(Path::new(&done.path)).await? == self.made;
        if !right {
            return Err(Failure::new(Code::Internal, "the downloaded bytes are wrong"));
        }
        console.note(format_args!("the bytes are right: BLAKE3 {}", self.made));
        Ok(Exit::Done)
    }

    /// Waits until every ultrapeer knows all others and every leaf's list is in the index of all its homes.
    async fn formed(&self) {
        for (service, _) in &self.ultrapeers {
            let mut admitted = service.admitted();
            // The sender lives in the service, so waiting cannot fail.
            let _ = admitted.wait_for(|admitted| *admitted).await;
        }
        for Leaf { node, .. } in &self.leaves {
            let sequence = node.shares().settled(None).await;
            let network = node.network();
            let mut changes = network.watch();
            let is_home = |home: &crate::network::HomeStatus| home.sequence.is_some_and(|have| have >= sequence);
            while network.homes().iter().filter(|home| is_home(home)).count() < ULTRAPEERS {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        }
    }

    async fn search(&self, console: &Console, query: &str) -> Result<(), Failure> {
        console.note(format_args!("searching for {query}"));
        let searches = self.seeker().node.searches();
        let request = SearchRequest { query: query.to_owned(), ..SearchRequest::default() };
        let id = searches.start(request).await?;
        let (hits, summary) = searches.finished(&id).await.ok_or_else(|| internal("the search was forgotten"))?;
        for hit in &hits {
            if console.is_json() {
                console.typed_line("hit", hit)?;
            } else {
                console.text(describe(hit))?;
            }
        }
        if console.is_json() { console.typed_line("summary", &summary) } else { console.text(conclude(&summary)) }
    }

    async fn fetch(&self, console: &Console) -> Result<Done, Failure> {
        let node = &self.seeker().node;
        let known = node.searches().known(&self.made);
        let mut events = node.downloads().subscribe();
        let request = Request {
            content: self.made,
            name: MADE_NAME.to_owned(),
            size: known.size,
            output: None,
            below: String::new(),
            priority: crate::download::record::Priority::Normal,
            sources: known.sources,
        };
        let (job, _) = node.downloads().add(request).await.map_err(internal)?;
        console.note(format_args!("downloading {MADE_NAME}"));
        let fetching = async {
            loop {
                match events.recv().await {
                    Ok(Event::Progress(progress)) if console.is_json() => console.typed_line("progress", &*progress)?,
                    Ok(Event::Done(done)) if done.id == job.id => return Ok(done),
                    Ok(Event::Failed(failed)) if failed.id == job.id => {
                        return Err(internal(format!("the download failed: {:?}", failed.reason)));
                    }
                    Ok(_) => {}
                    Err(error) => return Err(internal(error)),
                }
            }
        };
        let done = timeout(FETCHING, fetching).await;
        let done = done.map_err(|_| Failure::new(Code::Timeout, "the download did not end in time"))??;
        if console.is_json() {
            console.typed_line("done", &done)?;
        } else {
            for source in &done.sources {
                console.text(format_args!("{} bytes from {}", source.bytes, source.peer))?;
            }
        }
        Ok(done)
    }

    /// Serves the seeker's API and everybody's metrics until the user ends it.
    async fn stay(&self, console: &Console, life: &Life) -> Result<Exit, Failure> {
        let Leaf { node, config } = self.seeker();
        let any = || Listen::Given(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let api = server::bind(any()).await?;
        let scraped = server::bind(any()).await?;
        let tokens = TokenTexts::load_or_make(self.data.path())?;
        let readiness = Readiness::new();
        readiness.set_identity(true);
        readiness.set_listening(true);
        readiness.set_network(true);
        let ready = Ready::new("demo", node.peer(), "demo", node.endpoint().local_address())
            .api(Some(api.url()), true)
            .metrics(Some(scraped.url()));
        let bans = Bans::load(&data_of(self.data.path(), LEAVES - 1), &config.settings(), node.endpoint().clone())?;
        bans.set_known(Arc::new(node.clone()));
        let common = Arc::new(Common {
            config: config.clone(),
            telemetry: self.telemetry.clone(),
            bans,
            events: node.events().clone(),
        });
        let state = State { node: node.clone(), readiness: readiness.clone(), tickets: Tickets::default(), common };
        self.follow(&state, life);
        let router = http::router(state, Guard::new(api.address(), &config.settings().api_hosts, tokens.hashes()));
        let stop = self.tasks.token();
        self.tasks.spawn_to_end("api", server::serve(api, router, stop.clone()));
        let probes = probes::router(self.metrics.clone(), readiness);
        self.tasks.spawn_to_end("probes", server::serve(scraped, probes, stop.clone()));
        self.tasks.spawn_to_end("metrics upkeep", self.metrics.clone().upkeep(stop));
        for endpoint in self.endpoints() {
            self.tasks.spawn("connections", startup::measure_connections(endpoint.clone()));
        }
        ready.announce(console, Some(&tokens.full))?;
        console.note("the network stays until you press Ctrl-C");
        life.draining().await;
        Ok(Exit::Done)
    }

    /// Has the seeker follow what is set, banned and logged, as a daemon does.
    fn follow(&self, state: &State, life: &Life) {
        let (node, common) = (state.node.clone(), state.common.clone());
        let (config, telemetry, life) = (common.config.clone(), self.telemetry.clone(), life.clone());
        self.tasks.spawn("settings", daemon::follow(config.clone(), node.endpoint().clone(), node));
        self.tasks.spawn("bans", common.bans.clone().follow(config.subscribe()));
        self.tasks.spawn("configuration", async move { life::follow_configuration(&config, &life, &telemetry).await });
        self.tasks.spawn("log events", common.publish_log());
        self.tasks.spawn("status events", daemon::publish_status(state.clone()));
    }

    /// Those of all nodes.
    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.leaves.iter().map(|leaf| leaf.node.endpoint()).chain(self.ultrapeers.iter().map(|(_, endpoint)| endpoint))
    }

    async fn tear_down(self) {
        for Leaf { node, .. } in &self.leaves {
            node.stop().await;
        }
        self.tasks.cancel();
        for endpoint in self.endpoints() {
            endpoint.close(CloseCode::Shutdown);
        }
        // What does not end in time ends with the process.
        let _ = self.tasks.shutdown(Duration::from_secs(5)).await;
    }
}

fn agent() -> String {
    format!("quictrack/{}", env!("CARGO_PKG_VERSION"))
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Internal, error.to_string())
}

/// The data folder of a leaf.
fn data_of(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("leaf-{number}"))
}

/// Makes the file that three leaves share; its bytes are the same in each demonstration.
fn make_file(data: &Path) -> std::io::Result<ContentId> {
    let folder = data.join("shared");
    std::fs::create_dir_all(&folder)?;
    let mut bytes = vec![0; MADE_BYTES];
    Pcg64Mcg::seed_from_u64(1).fill_bytes(&mut bytes);
    std::fs::File::create(folder.join(MADE_NAME))?.write_all(&bytes)?;
    Ok(ContentId(*blake3::hash(&bytes).as_bytes()))
}

async fn hash_of(path: &Path) -> std::io::Result<ContentId> {
    let path = path.to_owned();
    let hash = tokio::task::spawn_blocking(move || {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(path)?)?;
        Ok(ContentId(*hasher.finalize().as_bytes()))
    });
    hash.await.map_err(std::io::Error::other)?
}

fn describe(hit: &Hit) -> String {
    let sources = if hit.sources == 1 { "1 source".to_owned() } else { format!("{} sources", hit.sources) };
    format!("{}  {} bytes  {sources}  {}", hit.content, hit.size, overlay::console::harmless(&hit.path))
}

fn conclude(summary: &Summary) -> String {
    let complete = if summary.complete { "complete" } else { "incomplete" };
    format!(
        "{complete}: {} hit{} in {:.1} ms, asked {} of {} ultrapeers, {} of {} leaves covered",
        summary.hits,
        if summary.hits == 1 { "" } else { "s" },
        summary.elapsed_ms,
        summary.ultrapeers_asked,
        summary.ultrapeers_total,
        summary.leaves_covered,
        summary.leaves_total,
    )
}
