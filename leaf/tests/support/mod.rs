//! Real processes of both programs on loopback: starting and ending them, asking them, waiting for what they do.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

pub(crate) mod nats;
pub(crate) mod processes;
#[path = "../../../overlay/tests/support/promtool.rs"]
mod promtool;

pub(crate) use self::{
    processes::{looked_for, send_signal},
    promtool::promtool,
};

/// Time after which something that should happen within seconds counts as not happening.
const PATIENCE: Duration = Duration::from_secs(40);
/// The address options of a daemon of a test, each of which gets a free port of loopback unless the test names one.
const ADDRESSES: [&str; 3] = ["--listen", "--api", "--metrics"];
/// The other options: nobody is found by itself.
const ALONE: [&str; 4] = ["--no-lan", "--no-dht", "--no-portmap", "--json"];

/// Looks until something is there, and fails when it is not for [`PATIENCE`].
pub(crate) fn awaited<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// Looks until something is there, and fails when it is not for `patience`.
pub(crate) fn within<T>(patience: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    looked_for(patience, look).unwrap_or_else(|| panic!("not in time: {what}"))
}

/// Looks until `holds`, and fails when it does not for [`PATIENCE`].
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    awaited(what, || holds().then_some(()));
}

/// Waits until all of these ultrapeers know each other.
pub(crate) fn acquainted<'a>(ultrapeers: impl IntoIterator<Item = &'a Daemon>) {
    let ultrapeers: Vec<_> = ultrapeers.into_iter().collect();
    for ultrapeer in &ultrapeers {
        eventually("all ultrapeers know each other", || ultrapeer.status()["ultrapeers"] == ultrapeers.len());
    }
}

/// Bytes that look random and are the same in each run.
pub(crate) fn bytes(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The content id of these bytes.
pub(crate) fn content_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// A string of JSON, which must be one.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no string: {value}"))
}

/// A number of JSON, which must be one.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no whole number: {value}"))
}

/// The elements of an array of JSON, which must be one.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no array: {value}"))
}

/// Lines of one type.
pub(crate) fn of_type<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == name).collect()
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The lines, all of which must be JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line:?}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The last line, which must be that of an error with this code.
    pub(crate) fn error(&self, exit: i32, code: &str) -> Value {
        assert_eq!(self.code, Some(exit), "{self:?}");
        let last = self.lines().pop().unwrap_or_else(|| panic!("no line: {self:?}"));
        assert_eq!((&last["type"], &last["code"]), (&"error".into(), &code.into()), "{last}");
        for field in ["message", "hint", "position"] {
            assert!(last.as_object().unwrap().contains_key(field), "{field}: {last}");
        }
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        last
    }
}

/// What a search found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) hits: Vec<Value>,
    pub(crate) summary: Value,
}

impl Found {
    /// The names of the hits, in order.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.hits.iter().map(|hit| text(&hit["name"])).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.summary["complete"] == true
    }
}

/// One of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Leaf,
    Ultrapeer,
}

impl Program {
    /// Where it is.
    pub(crate) fn path(self) -> PathBuf {
        let leaf = PathBuf::from(env!("CARGO_BIN_EXE_quictrack"));
        let Self::Ultrapeer = self else { return leaf };
        let path = leaf.with_file_name("quictrack-ultrapeer");
        assert!(path.exists(), "{} is missing: run `cargo build -p quictrack-ultrapeer`", path.display());
        path
    }

    /// A command on a data folder, without anything of the caller's environment; in a network namespace if one is named.
    pub(crate) fn command(self, namespace: Option<&str>, data: &Path, arguments: &[&str]) -> Command {
        let mut command = within_namespace(namespace, &self.path());
        // Nothing of the developer's own node may leak in.
        command.env_clear().env("HOME", data.parent().unwrap_or(data)).stdin(Stdio::null());
        command.arg("--data-dir").arg(data).args(arguments);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(self, data: &Path, arguments: &[&str]) -> Ended {
        self.run_in(None, data, arguments)
    }

    /// The same in a network namespace of [`nats`].
    pub(crate) fn run_in(self, namespace: Option<&str>, data: &Path, arguments: &[&str]) -> Ended {
        let output = self.command(namespace, data, arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A command that runs in a network namespace, if one is named.
fn within_namespace(namespace: Option<&str>, program: &Path) -> Command {
    let Some(namespace) = namespace else { return Command::new(program) };
    let [ip, words @ ..] = nats::inside(namespace);
    let mut command = Command::new(ip);
    command.args(words).arg(program);
    command
}

/// A folder that goes with the test; daemons and shares lie in it.
pub(crate) struct Bed(tempfile::TempDir);

impl Bed {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        // Paths are compared with what the programs say, who resolve links.
        self.0.path().canonicalize().unwrap().join(name)
    }

    /// Writes files; makes the folders that they lie in.
    pub(crate) fn write(&self, files: &[(&str, &[u8])]) {
        for (name, bytes) in files {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    /// Starts an ultrapeer that founds a network.
    pub(crate) fn founder(&self, name: &str) -> Daemon {
        self.ultrapeer(name, &["--founder"])
    }

    /// Starts an ultrapeer.
    pub(crate) fn ultrapeer(&self, name: &str, options: &[&str]) -> Daemon {
        Daemon::start(Program::Ultrapeer, &self.path(name), options)
    }

    /// Starts a leaf that joins through a node.
    pub(crate) fn leaf(&self, name: &str, join: &Daemon, options: &[&str]) -> Daemon {
        Daemon::start(Program::Leaf, &self.path(name), &[&["--join", &join.quic()], options].concat())
    }

    /// Starts a leaf that shares one folder of the bed.
    pub(crate) fn sharing(&self, name: &str, join: &Daemon, share: &str, options: &[&str]) -> Daemon {
        let share = self.path(share);
        self.leaf(name, join, &[&["--share", share.to_str().unwrap()], options].concat())
    }
}

/// A running daemon; killed when it is dropped.
pub(crate) struct Daemon {
    program: Program,
    /// The network namespace in which it runs, if that is another one than the test's.
    namespace: Option<String>,
    child: Child,
    data: PathBuf,
    log: PathBuf,
    /// Its ready line.
    pub(crate) ready: Value,
}

impl Daemon {
    /// Starts a daemon on a data folder and waits for its ready line.
    pub(crate) fn start(program: Program, data: &Path, options: &[&str]) -> Self {
        Self::start_in(None, program, data, options)
    }

    /// The same in a network namespace of [`nats`].
    pub(crate) fn start_in(namespace: Option<&str>, program: Program, data: &Path, options: &[&str]) -> Self {
        let log = data.with_extension("log");
        let mut arguments = if matches!(program, Program::Leaf) { vec!["leaf"] } else { Vec::new() };
        // Those that the configuration sets are left to it.
        let file = if matches!(program, Program::Leaf) { "leaf.toml" } else { "ultrapeer.toml" };
        let configured = fs::read_to_string(data.join(file)).unwrap_or_default();
        let is_configured = |key: &str| configured.lines().any(|line| line.starts_with(&format!("{key} =")));
        let is_set = |option: &&&str| options.contains(*option) || is_configured(&option[2..]);
        let free = ADDRESSES.iter().filter(|option| !is_set(option));
        arguments.extend(free.flat_map(|option| [*option, "127.0.0.1:0"]));
        let alone = ALONE.iter().filter(|option| !is_configured(option.trim_start_matches("--no-")));
        arguments.extend(alone.chain(options));
        let mut child = program
            .command(namespace, data, &arguments)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_default();
        assert_eq!(ready["event"], "ready", "{line:?}: {}", fs::read_to_string(&log).unwrap());
        Self { program, namespace: namespace.map(str::to_owned), child, data: data.into(), log, ready }
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn peer(&self) -> &str {
        text(&self.ready["peer_id"])
    }

    pub(crate) fn quic(&self) -> String {
        text(&self.ready["quic"]).to_owned()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Runs a command of this daemon to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.program.run_in(self.namespace.as_deref(), &self.data, &[&["--json"], arguments].concat())
    }

    /// Starts a command of this daemon.
    pub(crate) fn start_command(&self, arguments: &[&str]) -> Running {
        let arguments = [&["--json"], arguments].concat();
        let mut command = self.program.command(self.namespace.as_deref(), &self.data, &arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (heard, stdout) = (said.clone(), BufReader::new(child.stdout.take().unwrap()));
        let reader = thread::spawn(move || {
            for line in stdout.lines() {
                *heard.lock().unwrap() += &(line.unwrap() + "\n");
            }
        });
        Running { child, said, reader }
    }

    /// What a command says to a person, on both streams.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let ended = self.program.run_in(self.namespace.as_deref(), &self.data, arguments);
        format!("{}{}", ended.stdout, ended.stderr)
    }

    /// The lines of a command, which must succeed.
    pub(crate) fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}\n{}", self.log());
        ended.lines()
    }

    pub(crate) fn status(&self) -> Value {
        self.lines(&["status"]).remove(0)
    }

    /// The codes of what is wrong.
    pub(crate) fn problems(&self) -> Vec<String> {
        list(&self.status()["problems"]).iter().map(|problem| text(&problem["code"]).to_owned()).collect()
    }

    /// The peer ids of its homes.
    pub(crate) fn homes(&self) -> Vec<String> {
        let status = self.status();
        let mut homes: Vec<_> = list(&status["homes"]).iter().map(|home| text(&home["peer"]).to_owned()).collect();
        homes.sort_unstable();
        homes
    }

    /// Waits until this leaf has `homes`, all of which have its `files`.
    pub(crate) fn settled(&self, homes: usize, files: u64) {
        let mut seen = Value::Null;
        let settled = looked_for(PATIENCE, || {
            seen = self.status();
            let counts = [&seen["shares"]["files"], &seen["catalog"]["files"], &seen["catalog"]["acknowledged"]];
            let attached = list(&seen["homes"]);
            let is_settled = attached.len() == homes
                && attached.iter().all(|home| home["acknowledged"] == files)
                && counts.iter().all(|count| **count == files)
                && seen["shares"]["pending_files"] == 0;
            is_settled.then_some(())
        });
        assert!(settled.is_some(), "not {files} files at {homes} homes: {seen}\n{}", self.log());
    }

    /// Searches; finding nothing is no failure here.
    pub(crate) fn search(&self, words: &[&str]) -> Found {
        let ended = self.run(&[&["search"], words].concat());
        assert!(matches!(ended.code, Some(0 | 3)), "{words:?}: {ended:?}\n{}", self.log());
        let mut hits = ended.lines();
        // Behind the summary of a search without hits there is the error.
        hits.retain(|line| line["type"] != "error");
        let summary = hits.pop().unwrap();
        assert_eq!(summary["type"], "summary", "{ended:?}");
        assert_eq!(hits.is_empty(), ended.code == Some(3), "{ended:?}");
        Found { hits, summary }
    }

    /// Waits until a complete search finds these names, in alphabetical order, and nothing else.
    pub(crate) fn finds(&self, words: &[&str], names: &[&str]) -> Found {
        awaited(&format!("{words:?} finds {names:?}"), || {
            Some(self.search(words)).filter(|found| found.is_complete() && found.names() == names)
        })
    }

    /// The only download.
    pub(crate) fn download(&self) -> Value {
        let mut jobs = self.lines(&["downloads"]);
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0)
    }

    /// Status and body of a path beside the metrics.
    pub(crate) fn probe(&self, path: &str) -> (u16, String) {
        let server = text(&self.ready["metrics"]).trim_end_matches("/metrics");
        let answer = request(server, &format!("GET {path}"), "", "");
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    fn metrics(&self) -> String {
        let Some(namespace) = &self.namespace else { return self.probe("/metrics").1 };
        let server = text(&self.ready["metrics"]).trim_start_matches("http://").trim_end_matches("/metrics");
        let ask = format!(
            "exec 3<>/dev/tcp/{}; printf 'GET /metrics HTTP/1.0\\r\\nHost: {server}\\r\\n\\r\\n' >&3; cat <&3",
            server.replace(':', "/"),
        );
        let output = within_namespace(Some(namespace), Path::new("/bin/bash")).args(["-c", &ask]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a counter stands at.
    pub(crate) fn counted(&self, series: &str) -> u64 {
        let metrics = self.metrics();
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<f64>().ok();
        metrics.lines().find_map(value).unwrap_or_else(|| panic!("no {series}: {metrics}")) as u64
    }

    /// The answer of the local API to a `GET`.
    pub(crate) fn api(&self, path: &str) -> Value {
        let answer = self.asks(&format!("GET {path}"), "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// What opens the local API.
    pub(crate) fn token(&self) -> String {
        fs::read_to_string(self.data.join("api-token")).unwrap().trim().to_owned()
    }

    /// The answer of the local API to a request such as `GET status`.
    pub(crate) fn asks(&self, asked: &str, body: &str) -> Answer {
        self.asks_with(asked, "", body)
    }

    /// The same with headers, which end with a line break each.
    pub(crate) fn asks_with(&self, asked: &str, headers: &str, body: &str) -> Answer {
        let (method, path) = asked.split_once(' ').unwrap();
        let headers = format!("Authorization: Bearer {}\r\n{headers}", self.token());
        request(text(&self.ready["api"]), &format!("{method} /api/v1/{path}"), &headers, body)
    }

    /// Sends a signal, by the name that `kill` knows.
    pub(crate) fn signal(&self, name: &str) {
        send_signal(&self.child, name);
    }

    /// Ends it without a warning.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to end as systemd does, and waits until it has: at most `patience`.
    pub(crate) fn terminate(mut self, patience: Duration) -> ExitStatus {
        self.signal("TERM");
        within(patience, "the daemon ends", || self.child.try_wait().unwrap())
    }
}

/// A command that runs.
pub(crate) struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: thread::JoinHandle<()>,
}

impl Running {
    /// Waits until its lines hold this text.
    pub(crate) fn says(&self, text: &str) {
        eventually(&format!("the command says {text}"), || self.said.lock().unwrap().contains(text));
    }

    /// Waits until it listens to SIGINT and SIGTERM.
    pub(crate) fn heeds_signals(&self) {
        let ends = 1 << (2 - 1) | 1 << (15 - 1);
        eventually("the command listens to signals", || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & ends == ends)
        });
    }

    /// Sends a signal, by the name that `kill` knows.
    pub(crate) fn signal(&self, name: &str) {
        send_signal(&self.child, name);
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let status = awaited("the command ends", || self.child.try_wait().unwrap());
        self.reader.join().unwrap();
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let stdout = std::mem::take(&mut *self.said.lock().unwrap());
        Ended { code: status.code(), stdout, stderr }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails if it has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The code of a refusal with this status.
    pub(crate) fn code(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        text(&self.json()["error"]["code"]).to_owned()
    }

    /// A header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

/// Sends a request such as `GET /` to a server such as `http://127.0.0.1:1`; `headers` end with a line break each.
pub(crate) fn request(server: &str, request: &str, headers: &str, body: &str) -> Answer {
    let host = server.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}{headers}\r\n");
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer.split_off(end + 4) }
}

/// Verified bytes by source of a line `done`.
pub(crate) fn sources_of(done: &Value) -> BTreeMap<&str, u64> {
    list(&done["sources"]).iter().map(|source| (text(&source["peer"]), number(&source["bytes"]))).collect()
}
