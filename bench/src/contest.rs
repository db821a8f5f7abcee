//! Programs that move a file from one process to another: Quictrack, what it is compared with, and rivals.
//!
//! Every contender has its file ready and served before the clock runs. The clock of a fetch runs from the start of
//! the fetching program to its end: for Quictrack that is the command `get`, with the daemons of both sides running,
//! as its users have them; the file that it writes is complete and has its final name then. Where several fetch at once,
//! it runs from the start of the first to the end of the last.
//! All processes are started here; what they write lies below one folder that goes with them.

mod browse;
mod rivals;
mod serving;

pub use self::{
    browse::{Browsed, Resident},
    rivals::python_with_libtorrent,
};

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    bare::now,
    contest::serving::{Server, ticks, watch_memory},
    plain::Tuning,
};

/// The first argument of this program when it plays a part; the second says which.
pub const PLAY: &str = "play";

/// What a fetch took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fetch {
    /// From the start of the fetching program to its end.
    pub wall: Duration,
    /// Processor time of all processes of both sides, in seconds.
    pub cpu: f64,
    /// The most resident bytes that one process had until now, of whichever side. Pages of files that are mapped count.
    pub resident: u64,
}

/// How many have the file, and how many fetch it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Nodes that have the whole file.
    pub sources: usize,
    /// Nodes that fetch it, and send each other what they have if their program can.
    pub sinks: usize,
}

impl Mesh {
    /// One to one.
    pub const PAIR: Self = Self { sources: 1, sinks: 1 };
}

/// Somebody who fetches files, with the processes that serve.
#[derive(Debug)]
pub struct Contender {
    servers: Vec<Server>,
    kind: Kind,
    folder: PathBuf,
}

#[derive(Debug)]
enum Kind {
    Tcp { address: String },
    Quic { tuning: Tuning, address: String },
    Quictrack { sinks: Vec<PathBuf>, target: String },
    Curl { program: PathBuf, address: String },
    Sendme { program: PathBuf, ticket: String },
    Rqbit { program: PathBuf, magnet: String, sources: Vec<u16>, sinks: usize },
    Libtorrent { python: PathBuf, torrent: PathBuf, sources: Vec<u16>, sinks: usize },
}

impl Contender {
    /// A TCP stream.
    pub fn tcp(file: &Path, folder: &Path) -> Result<Self> {
        let mut server = Server::start(part("send-tcp").arg(file))?;
        let address = server.line()?.trim().to_owned();
        Self::new(folder, vec![server], Kind::Tcp { address })
    }

    /// A stream of plain quinn, with a BLAKE3 of the whole.
    pub fn quic(file: &Path, folder: &Path, tuning: Tuning) -> Result<Self> {
        let mut server = Server::start(part("send-quic").arg(tuning_name(tuning)).arg(file))?;
        let kind = Kind::Quic { tuning, address: server.line()?.trim().to_owned() };
        Self::new(folder, vec![server], kind)
    }

    /// Quictrack: an ultrapeer, leaves that share the folder `share`, and leaves that fetch `what`.
    pub fn quictrack(share: &Path, what: What<'_>, folder: &Path, mesh: Mesh) -> Result<Self> {
        let daemon = |program: &str, data: &Path, arguments: &[&str]| {
            let mut command = part(program);
            command.args(["--json", "--data-dir"]).arg(data).args(arguments);
            command.args(["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--metrics", "off"]);
            command.args(["--no-lan", "--no-dht", "--no-portmap"]);
            let mut server = Server::start(&mut command)?;
            let ready: Ready = serde_json::from_str(&server.line()?).context("a daemon tells that it is ready")?;
            Ok::<_, anyhow::Error>((server, ready))
        };
        let (ultrapeer, at) = daemon("quictrack-ultrapeer", &folder.join("ultrapeer"), &["--founder"])?;
        let (mut servers, mut holder) = (vec![ultrapeer], String::new());
        for source in 0..mesh.sources {
            let data = folder.join(format!("source-{source}"));
            let (leaf, ready) = daemon("quictrack", &data, &["leaf", "--join", &at.quic])?;
            servers.push(leaf);
            holder = ready.peer_id;
            // Returns once everything is hashed and searchable.
            run(quictrack(&data).args(["shares", "add", "--wait"]).arg(share))?;
        }
        let sinks: Vec<PathBuf> = (0..mesh.sinks).map(|sink| folder.join(format!("sink-{sink}"))).collect();
        for sink in &sinks {
            servers.push(daemon("quictrack", sink, &["leaf", "--join", &at.quic])?.0);
            // As users find it: from then on the sources are known.
            run(quictrack(sink).args(["search", "--json"]).arg(what.name()))?;
        }
        let target = match what {
            What::Content(content, _) => content.to_string(),
            What::Folder(name) => {
                format!("{holder}/{}/{name}", share.file_name().unwrap_or_default().to_string_lossy())
            }
        };
        Self::new(folder, servers, Kind::Quictrack { sinks, target })
    }

    /// Fetches into new folders, one of each sink. Returns what it took, and where the files or folders lie now.
    pub fn fetch(&self, name: &str) -> Result<(Fetch, Vec<PathBuf>)> {
        let targets = self.targets()?;
        let commands = self.commands(name, &targets)?;
        let (cpu, begun) = (self.cpu()?, now());
        let mut running = Vec::new();
        for mut command in commands {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            running.push(
                command.spawn().with_context(|| format!("{} cannot be started", command.get_program().display()))?,
            );
        }
        let memory = watch_memory(running.iter().map(std::process::Child::id).collect());
        // All are waited for before one failure ends the whole.
        let ended: Vec<_> = running.into_iter().map(std::process::Child::wait_with_output).collect();
        let mut fetch = Fetch { wall: begun.elapsed(), ..Fetch::default() };
        fetch.resident = self.servers.iter().map(Server::resident).fold(memory.most(), u64::max);
        for output in ended {
            let output = output?;
            ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        fetch.cpu = self.cpu()? - cpu;
        if let Kind::Quictrack { sinks, .. } = &self.kind {
            for sink in sinks {
                run(quictrack(sink).args(["downloads", "clear"]))?;
            }
        }
        let copies: Vec<PathBuf> = targets.iter().map(|target| target.join(name)).collect();
        for copy in &copies {
            ensure!(copy.exists(), "{} is not there", copy.display());
        }
        Ok((fetch, copies))
    }

    /// New, empty folders, one of each sink.
    fn targets(&self) -> Result<Vec<PathBuf>> {
        let sinks = match &self.kind {
            Kind::Quictrack { sinks, .. } => sinks.len(),
            Kind::Rqbit { sinks, .. } | Kind::Libtorrent { sinks, .. } => *sinks,
            Kind::Tcp { .. } | Kind::Quic { .. } | Kind::Curl { .. } | Kind::Sendme { .. } => 1,
        };
        let fetched = self.folder.join("fetched");
        if fetched.exists() {
            fs::remove_dir_all(&fetched)?;
        }
        let targets: Vec<PathBuf> = (0..sinks).map(|sink| fetched.join(sink.to_string())).collect();
        for target in &targets {
            fs::create_dir_all(target)?;
        }
        Ok(targets)
    }

    /// What fetches into `targets`.
    fn commands(&self, name: &str, targets: &[PathBuf]) -> Result<Vec<Command>> {
        let target = targets.first().context("somebody fetches")?;
        let copy = target.join(name);
        let command = match &self.kind {
            Kind::Tcp { address } => {
                let mut command = part("receive-tcp");
                command.arg(address).arg(&copy);
                command
            }
            Kind::Quic { tuning, address } => {
                let mut command = part("receive-quic");
                command.arg(tuning_name(*tuning)).arg(address).arg(&copy);
                command
            }
            Kind::Quictrack { sinks, target: what } => {
                let get = |(sink, target): (&PathBuf, &PathBuf)| {
                    let mut command = quictrack(sink);
                    command.arg("get").arg("-o").arg(target).arg(what);
                    command
                };
                return Ok(sinks.iter().zip(targets).map(get).collect());
            }
            Kind::Curl { program, address } => rivals::curl_fetch(program, address, name, &copy),
            Kind::Sendme { program, ticket } => rivals::sendme_fetch(program, ticket, target),
            Kind::Rqbit { program, magnet, sources, .. } => {
                return rivals::rqbit_fetches(program, magnet, sources, targets);
            }
            Kind::Libtorrent { python, torrent, sources, .. } => {
                return rivals::libtorrent_fetches(python, torrent, sources, targets);
            }
        };
        Ok(vec![command])
    }

    fn new(folder: &Path, servers: Vec<Server>, kind: Kind) -> Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { servers, kind, folder: folder.to_owned() })
    }

    /// Seconds of processor time so far: of the servers, and of all children that ended.
    fn cpu(&self) -> Result<f64> {
        let mut ticks = ticks("self", 15..17)?;
        for server in &self.servers {
            ticks += server.ticks()?;
        }
        Ok(ticks as f64 / serving::TICKS)
    }
}

/// What a daemon says once it is ready.
#[derive(Debug, serde::Deserialize)]
struct Ready {
    peer_id: String,
    quic: String,
}

/// What Quictrack fetches.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A file, by its content and name.
    Content(blake3::Hash, &'a str),
    /// A folder of the share.
    Folder(&'a str),
}

impl What<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Content(_, name) | Self::Folder(name) => name,
        }
    }
}

/// A command to the daemon that has this data folder.
fn quictrack(data: &Path) -> Command {
    let mut command = part("quictrack");
    command.arg("--data-dir").arg(data);
    command
}

/// This program in another part.
fn part(name: &str) -> Command {
    let program = std::env::current_exe().unwrap_or_else(|_| std::env::args_os().next().unwrap_or_default().into());
    let mut command = Command::new(program);
    // What is set for the user's own nodes does not count here.
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("QUICTRACK_")) {
        command.env_remove(key);
    }
    command.args([PLAY, name]);
    command
}

fn tuning_name(tuning: Tuning) -> &'static str {
    match tuning {
        Tuning::Stock => "stock",
        Tuning::Ours => "ours",
    }
}

/// Runs a program to its end, which must be good.
fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {error}", command.get_program().display(), output.status);
    Ok(())
}
