//! Processes of their own, so that their memory and their CPU can be told from ours: a real
//! `quictrack-ultrapeer`, and what the system says of any process.
//!
//! Invariant: a child does not outlive its handle, and its data lie in a temporary folder.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// The name of the network.
pub const NETWORK: &str = "bench";
/// Time for a program to say that it is ready, to answer a command, or to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// Ticks of CPU time a second: what Linux tells programs, whatever its own clock.
const TICKS: f64 = 100.0;

/// What the system says of a process, now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident bytes.
    pub resident: u64,
    /// Seconds of CPU, all threads together, since it began.
    pub cpu_s: f64,
    /// The same of its children that have ended.
    pub children_cpu_s: f64,
}

impl Usage {
    /// Of the process with that number.
    ///
    /// # Errors
    /// There is none, or this is no Linux.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read: this needs Linux"))
        };
        Self::parse(&read("status")?, &read("stat")?).context("the system speaks of processes in an unknown form")
    }

    fn parse(status: &str, stat: &str) -> Option<Self> {
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.split_whitespace().next()?.parse().ok()?;
        // The name of the program comes in parentheses and may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let mut seconds = || Some((ticks.next()?.ok()? + ticks.next()?.ok()?) as f64 / TICKS);
        Some(Self { resident: kib << 10, cpu_s: seconds()?, children_cpu_s: seconds()? })
    }
}

/// What an ultrapeer says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Attached leaves.
    pub leaves: u64,
    /// Bytes of its index.
    pub index_bytes: u64,
}

/// A running `quictrack-ultrapeer` that began a network. Killed when it is dropped.
#[derive(Debug)]
pub struct Ultrapeer {
    program: PathBuf,
    data: PathBuf,
    child: Child,
    quic: SocketAddr,
    metrics: SocketAddr,
}

impl Ultrapeer {
    /// Starts `program` with the data folder `data` and these options; `listen` with port 0 takes a free port.
    ///
    /// # Errors
    /// It does not start, or is not ready in time.
    pub async fn start(program: &Path, data: &Path, listen: SocketAddr, options: &[String]) -> Result<Self> {
        let mut command = Command::new(program);
        let own =
            ["--json", "-q", "--founder", "--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--network", NETWORK];
        command.arg("--data-dir").arg(data).args(own).arg("--listen").arg(listen.to_string()).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        let stdout = child.stdout.take().context("its stdout was asked for")?;
        let line = first_line(stdout).await.context("the ultrapeer is not ready; see above")?;
        let ready: Value = serde_json::from_str(&line).context("its ready line is no JSON")?;
        let text = |name: &str| ready[name].as_str().with_context(|| format!("its ready line has no {name}"));
        let quic = text("quic")?.parse()?;
        let metrics = text("metrics")?.trim_start_matches("http://").trim_end_matches("/metrics").parse()?;
        Ok(Self { program: program.to_owned(), data: data.to_owned(), child, quic, metrics })
    }

    /// Where leaves dial it.
    pub fn quic(&self) -> SocketAddr {
        self.quic
    }

    /// Memory and CPU of it now.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id().context("the ultrapeer has ended")?)
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn report(&self) -> Result<Report> {
        let answer = self.command(&["--json", "status"]).await?;
        let status: Value = serde_json::from_slice(&answer).context("its status is no JSON")?;
        let number =
            |name: &str| status["ultrapeer"][name].as_u64().with_context(|| format!("its status has no {name}"));
        Ok(Report { leaves: number("leaves")?, index_bytes: number("index_bytes")? })
    }

    /// Handshakes of others by how they ended, as its metrics count them.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn handshakes(&self) -> Result<Vec<(String, u64)>> {
        let text = timeout(PATIENCE, get(self.metrics, "/metrics")).await.context("its metrics do not answer")??;
        let inbound = |line: &str| line.starts_with("quictrack_handshakes_total{") && line.contains("direction=\"in\"");
        Ok(text.lines().filter(|line| inbound(line)).filter_map(counter).filter(|(_, count)| *count > 0).collect())
    }

    /// Ends it at once, as a power failure would.
    ///
    /// # Errors
    /// The system does not let us.
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Tells it to drain, and waits until it has ended.
    ///
    /// # Errors
    /// It does not end in order.
    pub async fn drain(mut self) -> Result<()> {
        self.command(&["drain"]).await?;
        let ended = timeout(PATIENCE, self.child.wait()).await.context("the ultrapeer does not end")??;
        ensure!(ended.success(), "the ultrapeer ended with {ended}");
        Ok(())
    }

    async fn command(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        command.arg("--data-dir").arg(&self.data).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await.context("the ultrapeer does not answer")??;
        ensure!(
            output.status.success(),
            "`{}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(output.stdout)
    }
}

/// The program `quictrack-ultrapeer` that was built beside this one. Under cargo it is built first, so that it
/// is never an old one.
///
/// # Errors
/// It cannot be built, or there is none.
pub async fn ultrapeer_program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program lies in a folder")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", "quictrack-ultrapeer", "--bin", "quictrack-ultrapeer"]);
        if folder.ends_with("release") {
            command.arg("--release");
        }
        ensure!(command.status().await?.success(), "quictrack-ultrapeer cannot be built");
    }
    let program = folder.join("quictrack-ultrapeer");
    ensure!(program.exists(), "{} is missing: build it with `cargo build --release`", program.display());
    Ok(program)
}

/// The first line of a child's output. What it says later is read and dropped, so that it never waits for us.
///
/// # Errors
/// It ends, or says nothing in time.
pub async fn first_line(stdout: ChildStdout) -> Result<String> {
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.context("it says nothing")??;
    tokio::spawn(async move { while matches!(lines.next_line().await, Ok(Some(_))) {} });
    line.context("it ended")
}

/// The label `result` and the value of a counter's line.
fn counter(line: &str) -> Option<(String, u64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (_, rest) = series.split_once("result=\"")?;
    let (result, _) = rest.split_once('"')?;
    Some((result.to_owned(), value.parse().ok()?))
}

async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("{path} is answered with {}", answer.lines().next().unwrap_or_default());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_a_process_is_read_from_proc() {
        let stat = "17 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 120 30";
        let usage = Usage::parse("Name:\tx\nVmRSS:\t    36 kB\n", stat);
        assert_eq!(usage, Some(Usage { resident: 36 << 10, cpu_s: 3.0, children_cpu_s: 1.5 }));
        assert_eq!(Usage::parse("", stat), None);
    }

    #[test]
    fn a_counter_is_read_by_its_result() {
        let line = "quictrack_handshakes_total{direction=\"in\",result=\"ok\"} 12";
        assert_eq!(counter(line), Some(("ok".to_owned(), 12)));
        assert_eq!(counter("# HELP x y"), None);
    }
}
