//! `doctor`: looks at everything that a leaf needs, and says what is wrong and what to do. Needs no daemon.
//!
//! Without one it goes into the network as a leaf with a key of its own, that nobody sees again: where do ultrapeers see
//! this machine, and can they dial it? With one, that knows all of this already, it asks it.

use std::{collections::BTreeSet, io, net::SocketAddr, path::Path, time::Duration};

use overlay::{
    address::JoinAddress,
    config::{self, Config, Layer, Program, Settings},
    console::{Exit, Failure, harmless},
    drive::wall_clock_s,
    folders::Folders,
    id::PeerId,
    identity::Identity,
    introduction::Mapping,
    limits,
    remembered::Remembered,
    report::{Check, Status},
    transport::{
        self, Arrivals, BindError, BindMode, CloseCode, Connection, DialError, Endpoint, Greeting, Link, Secret,
    },
    wire::{
        descriptor::SignedDescriptor,
        leaf::{DialBackAsk, LeafMessage, MembersAsk},
    },
};
use tokio::time::timeout;

use super::Context;
use crate::{
    doctor::{self, Seen, bad, good, untried},
    outlook::Outlook,
};

/// Ultrapeers that are asked: two tell what kind of NAT there is, a third stands in.
const ASKED: usize = 3;
/// Dials in all.
const DIALS: usize = 12;

/// Runs it.
///
/// # Errors
/// Only if there is no place for data, or nothing can be printed: what is wrong otherwise is what it prints.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let checks = examine(context).await?;
    for check in &checks {
        show(context, check)?;
    }
    let failed = checks.iter().any(|check| check.ok == Some(false));
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn show(context: &Context, check: &Check) -> Result<(), Failure> {
    let console = &context.console;
    if console.is_json() {
        return console.typed_line("check", check);
    }
    let word = match check.ok {
        Some(true) => "ok",
        Some(false) => "FAILED",
        None => "?",
    };
    console.text(format_args!("{:<7} {:<10} {}", word, check.name, harmless(&check.message)))?;
    match &check.hint {
        Some(hint) => console.text(format_args!("{:<18} hint: {}", "", harmless(hint))),
        None => Ok(()),
    }
}

async fn examine(context: &Context) -> Result<Vec<Check>, Failure> {
    let folders = context.surroundings().folders()?;
    let config = match Config::load(Program::Leaf, &folders, &context.environment, Layer::default()) {
        Ok(config) => config,
        Err(error) => {
            let failure = Failure::from(error);
            let hint = failure.hint.unwrap_or_else(|| "`quictrack config check FILE` tells more".to_owned());
            return Ok(vec![bad("config", failure.message, hint)]);
        }
    };
    let settings = config.settings();
    let free = |folder: &Path| crate::download::free_bytes(folder);
    let mut checks = vec![
        configuration(&config, &folders),
        writable("data", &folders.data),
        writable("downloads", &settings.downloads),
        doctor::of_disk(
            "disk",
            &settings.downloads.display().to_string(),
            free(&settings.downloads),
            limits::DISK_MARGIN,
        ),
        doctor::of_clock(wall_clock_s()),
    ];
    let daemon: Option<Status> = match context.client() {
        Ok(client) => client.get("status").await.ok(),
        Err(_) => None,
    };
    match daemon {
        Some(status) => with_daemon(&status, &mut checks),
        None => {
            checks.push(untried("daemon", "no daemon runs; `quictrack leaf` starts one"));
            without_daemon(&config, &settings, &folders, &mut checks).await;
        }
    }
    Ok(checks)
}

fn configuration(config: &Config, folders: &Folders) -> Check {
    let file = &folders.configuration;
    let read = if file.exists() {
        format!("{} is read", file.display())
    } else {
        "there is no file; defaults hold".to_owned()
    };
    match config.warnings().first() {
        None => good("config", read),
        Some(warning) => Check { hint: Some(warning.clone()), ..good("config", read) },
    }
}

/// A folder of this node, or the first one above it that is there.
fn writable(name: &str, folder: &Path) -> Check {
    let there = folder.ancestors().find(|above| above.exists()).unwrap_or(folder);
    match tempfile_in(there) {
        Ok(()) => good(name, format!("{} can be written to", folder.display())),
        Err(error) => bad(
            name,
            format!("{} cannot be written to: {error}", folder.display()),
            "give this user the right to write there, or choose another folder",
        ),
    }
}

fn tempfile_in(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".quictrack-doctor-{}", overlay::drive::random_name()?));
    std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)
}

/// The daemon has the port, and knows the rest.
fn with_daemon(status: &Status, checks: &mut Vec<Check>) {
    checks.push(doctor::of_daemon(status));
    let listen = status.listen.map(|address| address.to_string()).unwrap_or_default();
    checks.push(good("port", format!("UDP {listen} is in use by the daemon")));
    checks.push(buffers());
    let homes = status.homes.as_ref().map_or(0, Vec::len);
    checks.push(match homes {
        0 => bad("ultrapeer", "the daemon is attached to no ultrapeer", "name a node to join with --join ADDRESS"),
        homes => good("ultrapeer", format!("the daemon is attached to {homes} of {} ultrapeers", status.ultrapeers)),
    });
    let seen = Seen {
        observed: status.observed.clone(),
        own: own_addresses(status.observed.iter().copied()),
        mapping: mapping_of(&status.observed, homes),
        reached: match status.reachability.as_str() {
            "public" | "mapped" => Some(true),
            "natted" => Some(false),
            _ => None,
        },
        port: status.listen.map_or(0, |address| address.port()),
    };
    checks.extend(seen.checks());
}

/// One address for all homes is one mapping.
fn mapping_of(observed: &[SocketAddr], homes: usize) -> Mapping {
    let of_family = |v4: bool| observed.iter().filter(|address| address.is_ipv4() == v4).count();
    match (of_family(true).max(of_family(false)), homes) {
        (2.., _) => Mapping::Changing,
        (1, 2..) => Mapping::Steady,
        _ => Mapping::Unknown,
    }
}

fn own_addresses(towards: impl Iterator<Item = SocketAddr>) -> Vec<std::net::IpAddr> {
    towards.filter_map(transport::source_towards).collect()
}

fn buffers() -> Check {
    match transport::socket_buffer() {
        Err(error) => bad("udp", format!("no UDP socket can be had: {error}"), "allow this user to use the network"),
        Ok(bytes) if bytes < limits::SOCKET_BUFFER => Check {
            hint: Some(format!(
                "if fast transfers stall: sysctl -w net.core.rmem_max={0} net.core.wmem_max={0}",
                limits::SOCKET_BUFFER
            )),
            ..good("udp", format!("sockets work; the system grants buffers of {bytes} bytes"))
        },
        Ok(_) => good("udp", "sockets work, with buffers as large as wanted"),
    }
}

async fn without_daemon(config: &Config, settings: &Settings, folders: &Folders, checks: &mut Vec<Check>) {
    let identity = match random_identity() {
        Ok(identity) => identity,
        Err(error) => {
            return checks.push(bad("port", format!("there are no random numbers: {error}"), "check the system"));
        }
    };
    let secret = match settings.network_secret_file.as_ref().map(|path| config::read_secret(path)).transpose() {
        Ok(secret) => secret.map(|secret| Secret::new(secret.as_bytes())),
        Err(error) => {
            let failure = Failure::from(error);
            return checks.push(bad("secret", failure.message, "check the file of the network's secret"));
        }
    };
    let agent = format!("quictrack/{}", env!("CARGO_PKG_VERSION"));
    let node = transport::Settings { network: settings.network.to_string(), secret, agent };
    let mode = if config.is_set("listen") { BindMode::Given } else { BindMode::Default };
    let (endpoint, arrivals) = match Endpoint::bind(settings.listen, mode, &identity, node) {
        Ok(bound) => bound,
        Err(error) => return checks.push(not_bound(&error)),
    };
    let port = endpoint.local_address().port();
    checks.push(if port == settings.listen.port() || settings.listen.port() == 0 {
        good("port", format!("UDP port {port} is free"))
    } else {
        good("port", format!("UDP port {} is taken; a leaf would take a free one", settings.listen.port()))
    });
    checks.push(buffers());
    let (targets, join) = resolved(&[&settings.join[..], &settings.dns].concat(), &endpoint).await;
    checks.extend(join);
    // Its key is new, so it is none of those.
    let (_, remembered) = Remembered::load(&folders.data, identity.peer_id());
    checks.extend(Visit::new(&endpoint).run(targets, remembered).await);
    endpoint.close(CloseCode::Shutdown);
    // What was not heard of the end within that time does not matter.
    let _ = timeout(limits::FAREWELL_TIMEOUT, endpoint.wait_idle()).await;
    drop::<Arrivals>(arrivals);
}

fn random_identity() -> io::Result<Identity> {
    let mut seed = [0; 32];
    for part in seed.chunks_mut(8) {
        part.copy_from_slice(&overlay::drive::random_token()?.to_le_bytes());
    }
    Ok(Identity::from_seed(seed))
}

fn not_bound(error: &BindError) -> Check {
    let hint = match error {
        BindError::AddressInUse { .. } => "another program has it: end that, or choose another port with --listen",
        _ => "choose another address with --listen",
    };
    bad("port", error.to_string(), hint)
}

/// The addresses of the nodes to join through, and what became of each name.
async fn resolved(targets: &[JoinAddress], endpoint: &Endpoint) -> (Vec<(SocketAddr, Option<PeerId>)>, Vec<Check>) {
    let (mut all, mut checks) = (Vec::new(), Vec::new());
    for target in targets.iter().take(limits::JOIN_TARGETS) {
        let found = match tokio::net::lookup_host((target.host.as_str(), target.port)).await {
            Ok(found) => found.collect::<Vec<_>>(),
            Err(error) => {
                checks.push(bad(
                    "join",
                    format!("{target} does not resolve: {error}"),
                    "check the name, and that this machine can ask a name server",
                ));
                continue;
            }
        };
        let answers = futures_util::future::join_all(found.iter().map(|address| endpoint.measure(*address))).await;
        checks.push(match answers.into_iter().flatten().min() {
            Some(rtt) => good("join", format!("{target} answers in {:.1} ms", rtt.as_secs_f64() * 1e3)),
            None => bad(
                "join",
                format!("{target} does not answer"),
                "check the address, that the node runs, and that firewalls let UDP through",
            ),
        });
        all.extend(found.into_iter().map(|address| (address, target.peer)));
    }
    if targets.is_empty() {
        checks.push(untried("join", "no node to join is named"));
    }
    (all, checks)
}

/// A leaf that goes from one ultrapeer to the next.
struct Visit<'a> {
    endpoint: &'a Endpoint,
    outlook: Outlook,
    links: Vec<(PeerId, Link<LeafMessage>)>,
    own: Vec<std::net::IpAddr>,
    observed: BTreeSet<SocketAddr>,
    clock: overlay::drive::Clock,
    last: Option<DialError>,
}

impl<'a> Visit<'a> {
    fn new(endpoint: &'a Endpoint) -> Self {
        let (links, own, observed) = (Vec::new(), Vec::new(), BTreeSet::new());
        let clock = overlay::drive::Clock::new();
        Self { endpoint, outlook: Outlook::default(), links, own, observed, clock, last: None }
    }

    async fn run(
        mut self,
        targets: Vec<(SocketAddr, Option<PeerId>)>,
        remembered: Vec<SignedDescriptor>,
    ) -> Vec<Check> {
        let known = remembered.iter().filter_map(|descriptor| descriptor.open().ok());
        let mut queue: std::collections::VecDeque<_> = targets.into();
        queue.extend(known.map(|descriptor| (descriptor.address, Some(descriptor.peer))));
        let has_any = !queue.is_empty();
        let mut dialled = BTreeSet::new();
        while let Some((address, peer)) = queue.pop_front() {
            if self.links.len() >= ASKED || dialled.len() >= DIALS {
                break;
            }
            if dialled.insert(address) && !self.links.iter().any(|(known, _)| Some(*known) == peer) {
                let named = self.attach(address, peer).await;
                queue.extend(named);
            }
        }
        let mut checks = vec![self.reached_any(has_any)];
        let reached = self.dialled_back().await;
        let (mapping, port) = (self.outlook.nature().mapping, self.endpoint.local_address().port());
        let observed = self.observed.into_iter().collect();
        checks.extend(Seen { observed, own: self.own, mapping, reached, port }.checks());
        checks
    }

    fn reached_any(&self, has_any: bool) -> Check {
        match (self.links.len(), &self.last) {
            (0, Some(error)) => bad("ultrapeer", format!("no ultrapeer lets this machine in: {error}"), error.hint()),
            (0, None) if has_any => {
                bad("ultrapeer", "no ultrapeer was reached", "name another node with --join ADDRESS")
            }
            (0, None) => untried("ultrapeer", "no node is known through which the network could be joined"),
            (reached, _) => good("ultrapeer", format!("{reached} ultrapeers were reached")),
        }
    }

    /// Attaches to an ultrapeer; others that it names.
    async fn attach(&mut self, address: SocketAddr, peer: Option<PeerId>) -> Vec<(SocketAddr, Option<PeerId>)> {
        let greeting = Greeting { insists: true, ..Greeting::default() };
        let dialled = match self.endpoint.dial::<LeafMessage>(address, peer, greeting).await {
            Ok(dialled) => dialled,
            Err(DialError::Refused { alternatives, .. }) if !alternatives.is_empty() => {
                return addresses(&alternatives);
            }
            Err(error) => {
                self.last = Some(error);
                return Vec::new();
            }
        };
        let observed = dialled.welcome.observed;
        self.observed.insert(observed);
        self.own.extend(transport::source_towards(address));
        let mut link = dialled.link;
        let peer = link.connection.peer();
        self.outlook.attached(self.clock.now(), peer, address, observed);
        let named = others(&mut link).await;
        self.links.push((peer, link));
        named
    }

    /// Has the ultrapeers dial this machine, until one of them is answered.
    async fn dialled_back(&mut self) -> Option<bool> {
        let mut reached = None;
        for (_, link) in &mut self.links {
            if reached == Some(true) {
                break;
            }
            let asked = async {
                link.sender.send(&DialBackAsk { port: None }.into()).await.ok()?;
                loop {
                    match link.receiver.next().await {
                        Ok(Some(LeafMessage::DialledBack(told))) => return told.reached,
                        Ok(Some(_)) => {}
                        _ => return None,
                    }
                }
            };
            reached = timeout(limits::DIAL_BACK_PATIENCE, asked).await.ok().flatten().or(reached);
        }
        for (_, link) in &self.links {
            Connection::close(&link.connection, CloseCode::Shutdown);
        }
        reached
    }
}

/// Other ultrapeers that one knows.
async fn others(link: &mut Link<LeafMessage>) -> Vec<(SocketAddr, Option<PeerId>)> {
    let asked = async {
        link.sender.send(&MembersAsk { most: ASKED as u16 * 2 }.into()).await.ok()?;
        loop {
            match link.receiver.next().await {
                Ok(Some(LeafMessage::Members(members))) if !members.descriptors.is_empty() => {
                    return Some(addresses(&members.descriptors));
                }
                // The first says how many there are, and names none.
                Ok(Some(LeafMessage::Members(members))) if members.total <= 1 => return None,
                Ok(Some(_)) => {}
                _ => return None,
            }
        }
    };
    timeout(Duration::from_secs(2), asked).await.ok().flatten().unwrap_or_default()
}

fn addresses(descriptors: &[SignedDescriptor]) -> Vec<(SocketAddr, Option<PeerId>)> {
    let opened = descriptors.iter().filter_map(|descriptor| descriptor.open().ok());
    opened.map(|descriptor| (descriptor.address, Some(descriptor.peer))).collect()
}
