//! Programs that move a file from one process to another: Quictrack, what it is compared with, and rivals.
//!
//! Every contender has its file ready and served before the clock runs. The clock of a fetch runs from the start of
//! the fetching program to its end: for Quictrack that is the command `get`, with the daemons of both sides running,
//! as its users have them; the file that it writes is complete and has its final name then.
//! All processes are started here; what they write lies below one folder that goes with them.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{bare::now, plain::Tuning};

/// The first argument of this program when it plays a part; the second says which.
pub const PLAY: &str = "play";
/// Ticks a second of the times in `/proc`, the same on all of Linux.
const TICKS: f64 = 100.0;

/// What a fetch took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fetch {
    /// From the start of the fetching program to its end.
    pub wall: Duration,
    /// Processor time of all processes of both sides, in seconds.
    pub cpu: f64,
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
    Quictrack { sink: PathBuf, target: String },
    Sendme { program: PathBuf, ticket: String },
    Rqbit { program: PathBuf, magnet: String, peer: String },
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

    /// Quictrack: an ultrapeer, `sources` leaves that share the folder `share`, and one that fetches `what`.
    pub fn quictrack(share: &Path, what: What<'_>, folder: &Path, sources: usize) -> Result<Self> {
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
        for source in 0..sources {
            let data = folder.join(format!("source-{source}"));
            let (leaf, ready) = daemon("quictrack", &data, &["leaf", "--join", &at.quic])?;
            servers.push(leaf);
            holder = ready.peer_id;
            // Returns once everything is hashed and searchable.
            run(quictrack(&data).args(["shares", "add", "--wait"]).arg(share))?;
        }
        let sink = folder.join("sink");
        servers.push(daemon("quictrack", &sink, &["leaf", "--join", &at.quic])?.0);
        // As users find it: from then on the sources are known.
        run(quictrack(&sink).args(["search", "--json"]).arg(what.name()))?;
        let target = match what {
            What::Content(content, _) => content.to_string(),
            What::Folder(name) => {
                format!("{holder}/{}/{name}", share.file_name().unwrap_or_default().to_string_lossy())
            }
        };
        Self::new(folder, servers, Kind::Quictrack { sink, target })
    }

    /// `sendme`, which serves and verifies by iroh; without relays.
    pub fn sendme(program: PathBuf, file: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut command = Command::new(&program);
        command.current_dir(folder).args(["send", "--no-progress", "--relay", "disabled"]).arg(file);
        let mut server = Server::start(&mut command)?;
        let ticket = server.line_after("sendme receive ")?;
        Self::new(folder, vec![server], Kind::Sendme { program, ticket })
    }

    /// `rqbit`, a BitTorrent client, with nothing but the one peer to ask. Not encrypted, checked by SHA-1.
    pub fn rqbit(program: PathBuf, file: &Path, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut server =
            Server::start(rqbit(&program, port).args(["--http-api-listen-addr", "127.0.0.1:0", "share"]).arg(file))?;
        let magnet = server.line_after("share this magnet link: ")?;
        Self::new(folder, vec![server], Kind::Rqbit { program, magnet, peer: format!("127.0.0.1:{port}") })
    }

    /// Fetches into a new folder. Returns what it took, and where the file or folder lies now.
    pub fn fetch(&self, name: &str) -> Result<(Fetch, PathBuf)> {
        let target = self.folder.join("fetched");
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        fs::create_dir_all(&target)?;
        let copy = target.join(name);
        let mut command = match &self.kind {
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
            Kind::Quictrack { sink, target: what } => {
                let mut command = quictrack(sink);
                command.arg("get").arg("-o").arg(&target).arg(what);
                command
            }
            Kind::Sendme { program, ticket } => {
                let mut command = Command::new(program);
                command.current_dir(&target).args(["receive", "--no-progress", "--relay", "disabled", ticket]);
                command
            }
            Kind::Rqbit { program, magnet, peer } => {
                let mut command = rqbit(program, free_port()?);
                command.args(["download", "--disable-http-api", "-e", "--initial-peers", peer, "-o"]);
                command.arg(&target).arg(magnet);
                command
            }
        };
        let (cpu, begun) = (self.cpu()?, now());
        run(&mut command)?;
        let fetch = Fetch { wall: begun.elapsed(), cpu: self.cpu()? - cpu };
        if let Kind::Quictrack { sink, .. } = &self.kind {
            run(quictrack(sink).args(["downloads", "clear"]))?;
        }
        ensure!(copy.exists(), "{} is not there", copy.display());
        Ok((fetch, copy))
    }

    fn new(folder: &Path, servers: Vec<Server>, kind: Kind) -> Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { servers, kind, folder: folder.to_owned() })
    }

    /// Seconds of processor time so far: of the servers, and of all children that ended.
    fn cpu(&self) -> Result<f64> {
        let mut ticks = ticks("self", 15..17)?;
        for server in &self.servers {
            ticks += self::ticks(&server.child.id().to_string(), 13..15)?;
        }
        Ok(ticks as f64 / TICKS)
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

/// `rqbit`, which listens on `port` and looks for nobody.
fn rqbit(program: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.args(["-v", "error", "--disable-dht", "--disable-trackers", "--disable-lsd"]);
    command.args(["--disable-upnp-port-forward", "--listen-ip", "127.0.0.1", "--listen-port", &port.to_string()]);
    command
}

/// A TCP port that nobody has now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
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

/// The sum of some fields of `/proc/PROCESS/stat`, counted from 0.
fn ticks(process: &str, fields: std::ops::Range<usize>) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("processor times are read from /proc")?;
    // The second field is a name that may hold anything; what follows it does not.
    let (_, rest) = stat.rsplit_once(") ").context("/proc has another form")?;
    let values: Vec<&str> = rest.split(' ').skip(fields.start - 2).take(fields.len()).collect();
    values.iter().map(|value| Ok(value.parse::<u64>()?)).sum()
}

/// A process that serves until this goes.
#[derive(Debug)]
struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Server {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        let output = BufReader::new(child.stdout.take().context("the output is a pipe")?);
        Ok(Self { child, output })
    }

    /// The next line that it says.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "a server ended early");
        Ok(line)
    }

    /// What follows `mark` in the first line that has it.
    fn line_after(&mut self, mark: &str) -> Result<String> {
        loop {
            if let Some((_, rest)) = self.line()?.split_once(mark) {
                return Ok(rest.trim().to_owned());
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
