//! How leaves behind NATs of every kind come together, and how long that takes.
//!
//! A small Internet of network namespaces, real processes in it. For each pair of NATs one leaf fetches a file of one
//! byte from the other: the way that led there, and the time from the wish to the byte, as the downloader tells. Nothing
//! lies between the namespaces but the NATs, so the times are those of handshakes and of waiting, not of distance. Needs
//! `ip`, `nft`, and root or user namespaces.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "results are data, the rest is talk")]

#[expect(dead_code, reason = "its other half is used by tests")]
#[path = "../../../leaf/tests/support/nats.rs"]
mod nats;

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::Value;

use self::nats::{Nat, PORT, address};

/// Measures how leaves behind NATs come together.
#[derive(Debug, Parser)]
struct Options {
    /// Times that each pair is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    repeat: u8,
}

/// The first argument of this program as one of the two that are measured.
const PLAY: &str = "play";
/// Set in the process that runs inside of namespaces of its own.
const INSIDE: &str = "QUICTRACK_BENCH_INSIDE";
/// Time for leaves to find out what is in front of them.
const SETTLING: Duration = Duration::from_mins(1);

/// What a leaf can be behind. Of each kind there are two, so that each meets itself.
const KINDS: [(&str, Option<Nat>); 6] = [
    ("open", None),
    ("full cone", Some(Nat::FullCone)),
    ("restricted", Some(Nat::Restricted)),
    ("unguarded", Some(Nat::Unguarded)),
    ("double", Some(Nat::Double)),
    ("symmetric", Some(Nat::Symmetric)),
];

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == PLAY) {
        let part = arguments.split_off(2);
        return match part.first().and_then(|name| name.to_str()) {
            Some("quictrack-ultrapeer") => ultrapeer::program::main(part),
            _ => leaf::cli::main(part),
        };
    }
    let options = Options::parse();
    let result = if std::env::var_os(INSIDE).is_some() { measure(&options) } else { go_inside(&arguments) };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn go_inside(arguments: &[OsString]) -> Result<ExitCode> {
    let is_root = fs::metadata("/proc/self")?.uid() == 0;
    let as_root: &[&str] = if is_root { &[] } else { &["--user", "--map-root-user"] };
    let mut command = Command::new("unshare");
    command.args(as_root).args(["--net", "--mount"]).arg(std::env::current_exe()?).args(&arguments[1..]);
    let status = command.env(INSIDE, "1").status().context("`unshare` comes with util-linux")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(options: &Options) -> Result<ExitCode> {
    nats::build();
    let folder = tempfile::tempdir()?;
    let mut ultrapeers = Vec::new();
    for (number, name) in [(1, "u1"), (2, "u2")] {
        nats::public(name, number);
        let join = format!("{}:{PORT}", address(1));
        let begins: &[&str] = if number == 1 { &["--founder"] } else { &["--join", &join] };
        ultrapeers.push(Node::start(name, "quictrack-ultrapeer", &folder.path().join(name), begins)?);
    }
    let askers = leaves(folder.path(), 'a', 40, 0)?;
    let targets = leaves(folder.path(), 'b', 80, options.repeat)?;
    for node in askers.iter().chain(&targets) {
        node.settle()?;
    }
    println!("{:<12}{:<12}{:<9}{:>10}{:>10}", "from", "of", "way", "least ms", "most ms");
    for (asker, (from, _)) in askers.iter().zip(KINDS) {
        for (target, (of, _)) in targets.iter().zip(KINDS) {
            let (mut ways, mut times) = (Vec::new(), Vec::new());
            for round in 0..options.repeat {
                let content = blake3::hash(&file(&target.name, &asker.name, round)).to_hex().to_string();
                let done = asker.ask(&["get", &content])?.pop().context("a download says how it ended")?;
                ensure!(done["type"] == "done", "{from} of {of}: {done}");
                ways.push(done["sources"][0]["via"].as_str().unwrap_or("?").to_owned());
                times.push(done["elapsed_ms"].as_f64().unwrap_or(f64::NAN));
            }
            ways.dedup();
            let (least, most) =
                (times.iter().copied().fold(f64::MAX, f64::min), times.iter().copied().fold(0.0, f64::max));
            println!("{from:<12}{of:<12}{:<9}{least:>10.0}{most:>10.0}", ways.join(","));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One leaf of each kind; those that are asked share what is asked for.
fn leaves(folder: &Path, side: char, first: u8, files: u8) -> Result<Vec<Node>> {
    let mut all = Vec::new();
    for (number, (kind, nat)) in (first..).zip(KINDS) {
        let name = format!("{side}{number}");
        match nat {
            None => nats::public(&name, number),
            Some(nat) => {
                nats::nat(number, nat);
                nats::host(&name, number, 2);
            }
        }
        let share = folder.join(format!("{name}-share"));
        fs::create_dir_all(&share)?;
        for (asker, round) in (40..).take(KINDS.len()).flat_map(|asker| (0..files).map(move |round| (asker, round))) {
            let asker = format!("a{asker}");
            fs::write(share.join(format!("{asker} {round}.bin")), file(&name, &asker, round))?;
        }
        let join = format!("{}:{PORT}", address(1));
        let share = share.to_str().context("temporary folders have names of text")?.to_owned();
        let options = ["--join", &join, "--share", &share, "--volunteer", "never"];
        all.push(Node::start(&name, "quictrack", &folder.join(&name), &options).context(kind)?);
    }
    Ok(all)
}

/// A few bytes that are in no other file.
fn file(target: &str, asker: &str, round: u8) -> Vec<u8> {
    format!("{target} {asker} {round}").into_bytes()
}

/// A daemon in a network namespace; killed when it is dropped.
struct Node {
    name: String,
    program: &'static str,
    data: PathBuf,
    child: Child,
}

impl Node {
    fn start(name: &str, program: &'static str, data: &Path, options: &[&str]) -> Result<Self> {
        let mut command = part(name, program, data)?;
        if program == "quictrack" {
            command.arg("leaf");
        }
        command.args(["--json", "--network", "bench", "--listen", &format!("0.0.0.0:{PORT}")]);
        command
            .args(["--api", "127.0.0.1:0", "--metrics", "off", "--no-lan", "--no-dht", "--no-portmap"])
            .args(options);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("the output is a pipe")?).read_line(&mut line)?;
        ensure!(line.contains("ready"), "{name} does not begin: {line}");
        Ok(Self { name: name.to_owned(), program, data: data.to_owned(), child })
    }

    /// The lines of a command.
    fn ask(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let output = part(&self.name, self.program, &self.data)?.arg("--json").args(arguments).output()?;
        let text = String::from_utf8(output.stdout)?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Waits until it has both homes, they have its files, and it knows what is in front of it.
    #[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
    fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLING;
        while Instant::now() < deadline {
            let status = self.ask(&["status"])?.pop().unwrap_or_default();
            let homes = status["homes"].as_array().map_or(0, Vec::len);
            let listed = status["catalog"]["files"] == status["catalog"]["acknowledged"];
            if homes == 2 && listed && status["shares"]["pending_files"] == 0 && status["reachability"] != "unknown" {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("{} does not settle", self.name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended before; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program in another part, in a network namespace.
fn part(namespace: &str, program: &str, data: &Path) -> Result<Command> {
    let [ip, words @ ..] = nats::inside(namespace);
    let mut command = Command::new(ip);
    command.args(words).arg(std::env::current_exe()?).args([PLAY, program]);
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("QUICTRACK_")) {
        command.env_remove(key);
    }
    command.arg("--data-dir").arg(data);
    Ok(command)
}
