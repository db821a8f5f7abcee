//! What many leaves cost an ultrapeer: to attach, to keep, and when all of them come back at once.
//!
//! ```text
//!   bare      a bare QUIC server with as many idle connections, in a process of its own
//!   attach    a real quictrack-ultrapeer; all leaves join it and upload their lists
//!   idle      nothing but keep-alives, at their real rate: memory, CPU, who is still there
//!   drained   the ultrapeer ends in order and starts again at once
//!   killed    it is killed and starts again: leaves notice by themselves
//! ```
//!
//! Leaves run in this process (see [`bench::crowd`]) and share the cores with the ultrapeer, so a part of every
//! time is the leaves' own work. While leaves attach and return, some of them search. Fails only if leaves do
//! not attach or do not stay.

#![expect(clippy::print_stdout, reason = "results are data")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bench::{
    bare::now,
    crowd::Crowd,
    idle::{self, Idle},
    process::{Ultrapeer, Usage, ultrapeer_program},
    table::{Times, milliseconds},
};
use clap::Parser;
use overlay::wire::search::StopReason;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Measures what many leaves cost an ultrapeer.
#[derive(Debug, Parser)]
struct Options {
    /// Leaves
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    leaves: u32,
    /// Files in the list of each
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=4096))]
    files: u32,
    /// Seconds of idling that are measured; below 100 a lost keep-alive does not show
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    idle: u32,
    /// UDP sockets that the leaves share
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    sockets: u32,
    /// Seconds between the end of the ultrapeer and its next start
    #[arg(long, default_value_t = 0)]
    down: u32,
    /// Leave the bare QUIC server out
    #[arg(long)]
    no_bare: bool,
    /// Be the bare QUIC server
    #[arg(long, hide = true, exclusive = true)]
    bare_server: bool,
}

/// Time for all leaves to attach or to come back.
const ATTACHING: Duration = Duration::from_mins(5);
/// Time after the last attachment before idling is measured: what handshakes left behind is gone.
const SETTLING: Duration = Duration::from_secs(10);
/// Time between two searches, and what each may take.
const SEARCH_PAUSE: Duration = Duration::from_millis(200);
const SEARCH_PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if options.bare_server {
        return idle::serve(|address| println!("{address}")).await;
    }
    println!("{} leaves on {} sockets, {} files each", options.leaves, options.sockets, options.files);
    let bare = if options.no_bare { None } else { Some(measure_bare(&options).await?) };
    measure(&options, bare).await
}

/// What holding connections costs.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Time to set them up.
    attach: Duration,
    /// Bytes of memory of each, without what an index takes.
    memory: f64,
    /// Share of a core.
    cpu: f64,
}

async fn measure_bare(options: &Options) -> Result<Cost> {
    let program = std::env::current_exe()?;
    let (idle, before, attach) = Idle::start(&program, "--bare-server", options.leaves, options.sockets).await?;
    sleep(SETTLING).await;
    let (usage, cpu) = idling(options, || idle.usage()).await?;
    let alive = idle.alive();
    ensure!(alive == options.leaves as usize, "only {alive} bare connections stayed");
    Ok(Cost { attach, memory: (usage.resident - before) as f64 / f64::from(options.leaves), cpu })
}

/// Lets time pass; returns the usage at its end, and the share of a core that it took.
async fn idling(options: &Options, usage: impl Fn() -> Result<Usage>) -> Result<(Usage, f64)> {
    let (before, begun) = (usage()?, now());
    sleep(Duration::from_secs(options.idle.into())).await;
    let after = usage()?;
    Ok((after, (after.cpu_s - before.cpu_s) / begun.elapsed().as_secs_f64()))
}

async fn measure(options: &Options, bare: Option<Cost>) -> Result<()> {
    let program = ultrapeer_program().await?;
    let data = tempfile::Builder::new().prefix("quictrack-bench-").tempdir()?;
    let flags = vec!["--max-leaves".to_owned(), options.leaves.max(1).to_string()];
    let start = async |listen: SocketAddr| Ultrapeer::start(&program, &data.path().join("u"), listen, &flags).await;
    let mut ultrapeer = start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let listen = ultrapeer.quic();
    let before = ultrapeer.usage()?;

    let begun = now();
    let crowd = Arc::new(Crowd::start(options.leaves, options.sockets, options.files, listen)?);
    let made = begun.elapsed();
    let searches = Searching::start(crowd.clone());
    let times = crowd.all_since(begun, ATTACHING).await?;
    let searched = searches.stop().await?;
    let attached = ultrapeer.usage()?;
    let attach = times.last().copied().unwrap_or_default();
    let rate = f64::from(options.leaves) / attach.as_secs_f64();
    println!(
        "attach      {rate:>8.0} a second, all in {:.1} s (made in {:.1} s), {:.2} ms of the ultrapeer's CPU each",
        attach.as_secs_f64(),
        made.as_secs_f64(),
        (attached.cpu_s - before.cpu_s) * 1e3 / f64::from(options.leaves)
    );
    println!("            {}", counted(&ultrapeer.handshakes().await?));
    println!("            {searched}");

    sleep(SETTLING).await;
    let idle_begun = now();
    let (usage, cpu) = idling(options, || ultrapeer.usage()).await?;
    let report = ultrapeer.report().await?;
    let (alive, fresh) = (crowd.attached(), crowd.attached_since(idle_begun));
    let stayed = alive - fresh;
    let beside = usage.resident.saturating_sub(before.resident).saturating_sub(report.index_bytes);
    let memory = beside as f64 / f64::from(options.leaves);
    println!(
        "idle        {stayed} of {} stayed for {} s; the ultrapeer counts {}",
        options.leaves, options.idle, report.leaves
    );
    println!(
        "            {:.1} MB resident: {:.1} before, {:.1} of index, {:.1} kB for each leaf",
        megabytes(usage.resident),
        megabytes(before.resident),
        megabytes(report.index_bytes),
        memory / 1e3
    );
    println!("            {:.2} % of a core", cpu * 1e2);
    ensure!(stayed == options.leaves as usize, "leaves were lost while nothing happened");
    if let Some(bare) = bare {
        println!(
            "bare QUIC   {:>8.0} a second, {:.1} kB for each connection, {:.2} % of a core",
            f64::from(options.leaves) / bare.attach.as_secs_f64(),
            bare.memory / 1e3,
            bare.cpu * 1e2
        );
        println!(
            "ratio       {:.2} of its memory, {:.2} of its CPU, {:.2} of its rate",
            memory / bare.memory,
            cpu / bare.cpu,
            bare.attach.as_secs_f64() / attach.as_secs_f64()
        );
    }

    for kind in ["drained", "killed"] {
        let ended = now();
        if kind == "killed" {
            ultrapeer.kill().await?;
        } else {
            ultrapeer.drain().await?;
        }
        let searches = Searching::start(crowd.clone());
        sleep(Duration::from_secs(options.down.into())).await;
        ultrapeer = start(listen).await?;
        let ready = now();
        let before = ultrapeer.usage()?;
        let times = crowd.all_since(ended, ATTACHING).await?;
        let searched = searches.stop().await?;
        let offset = ready.duration_since(ended);
        let at = |percent| Times::new(times.clone()).percentile(percent).saturating_sub(offset).as_secs_f64();
        let usage = ultrapeer.usage()?;
        println!(
            "{kind:<12}all back {:.1} s after the ultrapeer was ready (half in {:.1} s, nine of ten in {:.1} s)",
            at(100),
            at(50),
            at(90)
        );
        if let Some(bare) = bare {
            let ratio = at(100) / bare.attach.as_secs_f64();
            println!("            {ratio:.2} of the time that as many bare handshakes took");
        }
        println!(
            "            {:.2} ms of the ultrapeer's CPU each, {:.1} MB resident",
            (usage.cpu_s - before.cpu_s) * 1e3 / f64::from(options.leaves),
            megabytes(usage.resident)
        );
        println!("            {}", counted(&ultrapeer.handshakes().await?));
        println!("            {searched}");
    }
    ultrapeer.drain().await?;
    if let Ok(crowd) = Arc::try_unwrap(crowd) {
        crowd.stop().await;
    }
    Ok(())
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn counted(handshakes: &[(String, u64)]) -> String {
    let all: Vec<_> = handshakes.iter().map(|(result, count)| format!("{count} {result}")).collect();
    format!("handshakes: {}", all.join(", "))
}

/// Some leaves search, one after the other, while something else happens.
struct Searching {
    task: tokio::task::JoinHandle<Result<Searched>>,
    stop: CancellationToken,
}

/// How they fared.
#[derive(Debug, Default)]
struct Searched {
    found: Vec<Duration>,
    complete_without: usize,
    incomplete: usize,
    homeless: usize,
}

impl Searching {
    fn start(crowd: Arc<Crowd>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(search(crowd, stop.clone()));
        Self { task, stop }
    }

    async fn stop(self) -> Result<Searched> {
        self.stop.cancel();
        timeout(SEARCH_PATIENCE * 2, self.task).await.context("a search does not end")??
    }
}

async fn search(crowd: Arc<Crowd>, stop: CancellationToken) -> Result<Searched> {
    let mut searched = Searched::default();
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let mut pick = || rng.random_range(0..crowd.len());
    while !stop.is_cancelled() {
        let begun: Instant = now();
        let end = crowd.search(pick(), pick(), SEARCH_PATIENCE).await?;
        match end {
            _ if end.hits > 0 => searched.found.push(begun.elapsed()),
            _ if end.no_ultrapeer => searched.homeless += 1,
            _ if end.summary.stopped == StopReason::Exhausted && end.summary.incomplete.is_empty() => {
                searched.complete_without += 1;
            }
            _ => searched.incomplete += 1,
        }
        tokio::select! {
            () = sleep(SEARCH_PAUSE) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(searched)
}

impl std::fmt::Display for Searched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let times = Times::new(self.found.clone());
        let [half, most] = [50, 99].map(|percent| milliseconds(times.percentile(percent)));
        let Self { found, complete_without, incomplete, homeless } = self;
        write!(
            f,
            "searches: {} found (p50 {half:.1} ms, p99 {most:.1} ms), {complete_without} complete without a hit, \
             {incomplete} incomplete, {homeless} without a home in time",
            found.len()
        )
    }
}
