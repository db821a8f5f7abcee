//! Processes of the program, and waiting for what they do.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

#[path = "../../../overlay/tests/support/promtool.rs"]
mod promtool;

pub(crate) use self::promtool::promtool;

/// Time after which something that should happen within seconds counts as not happening.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until `holds`, and fails when it does not for [`PATIENCE`].
#[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(LOOK);
    }
}

/// A folder that goes with the test.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// What a command left behind.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The only line of JSON.
    pub(crate) fn json(&self) -> Value {
        let mut lines = self.all_json();
        assert_eq!(lines.len(), 1, "{}", self.stdout);
        lines.remove(0)
    }

    pub(crate) fn all_json(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A running daemon; killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    data: PathBuf,
    log: PathBuf,
    /// Its ready line.
    pub(crate) ready: Value,
}

impl Program {
    /// Starts a daemon on a data folder and waits for its ready line.
    pub(crate) fn start(data: &Path, options: &[&str]) -> Self {
        let log = data.with_extension("log");
        let mut child = command(data, options)
            .arg("--json")
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("no ready line but {line:?}: {}", fs::read_to_string(&log).unwrap()));
        Self { child, data: data.into(), log, ready }
    }

    /// Runs a command to its end.
    pub(crate) fn run(data: &Path, arguments: &[&str]) -> Ended {
        let output = command(data, arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn peer(&self) -> String {
        self.ready["peer_id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn quic(&self) -> String {
        self.ready["quic"].as_str().unwrap().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The lines of a command of this daemon, which must succeed.
    pub(crate) fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let ended = Self::run(&self.data, &[arguments, &["--json"]].concat());
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        ended.all_json()
    }

    pub(crate) fn status(&self) -> Value {
        self.lines(&["status"]).remove(0)
    }

    /// Status and body of a path beside the metrics.
    pub(crate) fn probe(&self, path: &str) -> (u16, String) {
        let url = self.ready["metrics"].as_str().unwrap();
        let host = url["http://".len()..].trim_end_matches("/metrics");
        let mut stream = TcpStream::connect(host).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Sends a signal, by the name that `kill` knows.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Tells it to end as systemd does; how it ended, and its log.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        self.end()
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails if it has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quictrack-ultrapeer"));
    // Nothing of the developer's own node may leak in.
    command.env_clear().env("HOME", data.parent().unwrap_or(data)).stdin(Stdio::null());
    command.arg("--data-dir").arg(data).args(arguments);
    command
}

/// The value of a series of an exposition, 0 if it is absent.
pub(crate) fn sample(text: &str, series: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.unwrap_or(0.0)
}
