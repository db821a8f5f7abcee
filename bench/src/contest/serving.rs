//! Processes that serve while others fetch, and what the system says of them.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// Ticks a second of the times in `/proc`, the same on all of Linux.
pub(super) const TICKS: f64 = 100.0;
/// How often the memory of processes that will be gone when they are done is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// The sum of some fields of `/proc/PROCESS/stat`, counted from 0.
pub(super) fn ticks(process: &str, fields: std::ops::Range<usize>) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("processor times are read from /proc")?;
    // The second field is a name that may hold anything; what follows it does not.
    let (_, rest) = stat.rsplit_once(") ").context("/proc has another form")?;
    let values: Vec<&str> = rest.split(' ').skip(fields.start - 2).take(fields.len()).collect();
    values.iter().map(|value| Ok(value.parse::<u64>()?)).sum()
}

/// A process that serves until this goes.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Server {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        let output = BufReader::new(child.stdout.take().context("the output is a pipe")?);
        Ok(Self { child, output })
    }

    /// Its number.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// The processor time that it has taken, in ticks.
    pub(super) fn ticks(&self) -> Result<u64> {
        ticks(&self.child.id().to_string(), 13..15)
    }

    /// The most bytes that it ever had resident.
    pub(super) fn resident(&self) -> u64 {
        most_resident(self.child.id())
    }

    /// The next line that it says.
    pub(super) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "a server ended early");
        Ok(line)
    }

    /// What follows `mark` in the first line that has it.
    pub(super) fn line_after(&mut self, mark: &str) -> Result<String> {
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

/// The most bytes that a process ever had resident; none of one that has ended.
fn most_resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    most.and_then(|most| most.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Looks at the memory of processes until it is asked for the most.
pub(super) fn watch_memory(processes: Vec<u32>) -> MemoryWatch {
    let (done, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (seen, ended) = (Arc::clone(&most), Arc::clone(&done));
    let thread = thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            for process in &processes {
                seen.fetch_max(most_resident(*process), Ordering::Relaxed);
            }
            thread::park_timeout(GLANCE);
        }
    });
    MemoryWatch { done, most, thread }
}

/// A look at the memory of processes that end by themselves.
pub(super) struct MemoryWatch {
    done: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl MemoryWatch {
    /// The most bytes that one of them had resident.
    pub(super) fn most(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        // It cannot panic; if it did, what it saw still counts.
        let _ = self.thread.join();
        self.most.load(Ordering::Relaxed)
    }
}
