//! What is found while a third of all ultrapeers dies at once, on real QUIC.
//!
//! ```text
//!   ultrapeers   real quictrack-ultrapeer processes, one network
//!   leaves       in this process (see [`bench::crowd`]), each with a file that is its own
//!   searches     by leaves at random for the one file of another at random, all the time
//!   killed       a part of the ultrapeers, with SIGKILL, at one moment
//! ```
//!
//! Told for each second: how many searches found what is there, how many said that they are complete, and how many said
//! so although it was missing, of leaves that had a home which lives: of these there must be none. Fails if there is one.

#![expect(clippy::print_stdout, reason = "results are data")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bench::{
    bare::now,
    crowd::Crowd,
    process::{Ultrapeer, ultrapeer_program},
    table::Times,
};
use clap::Parser;
use overlay::wire::search::StopReason;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Measures what is found while ultrapeers die.
#[derive(Debug, Parser)]
struct Options {
    /// Ultrapeers, each a process
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=100))]
    ultrapeers: u32,
    /// Leaves
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    leaves: u32,
    /// Files in the list of each
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=4096))]
    files: u32,
    /// Ultrapeers to kill, in percent
    #[arg(long, default_value_t = 33, value_parser = clap::value_parser!(u32).range(1..=90))]
    kill: u32,
    /// Seconds of searching after that
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Of all that is drawn at random
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Time for all leaves to attach, and to have their homes.
const ATTACHING: Duration = Duration::from_mins(5);
/// What a search may take.
const SEARCH_PATIENCE: Duration = Duration::from_secs(5);
/// Leaves that search at the same time, one after the other each.
const SEARCHERS: usize = 8;
/// Time between two looks at the homes, and between two searches of one searcher.
const PAUSE: Duration = Duration::from_millis(50);

/// How searches of one second fared.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    searches: u32,
    found: u32,
    complete: u32,
    wrong: u32,
    messages: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let program = ultrapeer_program().await?;
    let data = tempfile::Builder::new().prefix("quictrack-bench-").tempdir()?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let first = Ultrapeer::start(&program, &data.path().join("0"), listen, &[]).await?;
    let join = first.quic();
    let mut others = Vec::new();
    for number in 1..options.ultrapeers {
        let flags = ["--join".to_owned(), join.to_string()];
        others.push(Ultrapeer::start(&program, &data.path().join(number.to_string()), listen, &flags).await?);
    }
    let begun = now();
    let crowd = Arc::new(Crowd::start(options.leaves, options.leaves.min(50), options.files, join)?);
    let wanted = 3.min(options.ultrapeers as usize);
    until_homes(&crowd, &[], wanted).await?;
    println!(
        "{} ultrapeers, {} leaves with {} files and {wanted} homes each after {:.1} s",
        options.ultrapeers,
        options.leaves,
        options.files,
        begun.elapsed().as_secs_f64()
    );

    let mut rng = Pcg64Mcg::seed_from_u64(options.seed);
    others.shuffle(&mut rng);
    let count = (options.ultrapeers * options.kill / 100).min(options.ultrapeers - 1) as usize;
    let survivors = others.split_off(count);
    let gone: Vec<_> = others.iter().map(Ultrapeer::quic).collect();
    let searching = Searching::start(crowd.clone(), gone.clone(), options.seed);
    sleep(Duration::from_secs(3)).await;
    let killed = now();
    for ultrapeer in others {
        ultrapeer.kill().await?;
    }
    let left = crowd.homes(&gone);
    let bereft = left.iter().filter(|homes| **homes == 0).count();
    let hit = left.iter().filter(|homes| **homes < wanted).count();
    println!("{count} killed at once: {hit} leaves lost homes, {bereft} of them all");
    let restored = tokio::spawn(restore(crowd.clone(), gone, wanted, killed));
    sleep(Duration::from_secs(options.seconds.into())).await;
    let seconds = searching.stop(killed).await?;
    print(&seconds);
    let times = Times::new(timeout(ATTACHING, restored).await.context("some leaves found no new homes")??);
    let at = |percent| times.percentile(percent).as_secs_f64();
    println!(
        "homes restored: half of the leaves that lost some in {:.1} s, p95 {:.1} s, all in {:.1} s",
        at(50),
        at(95),
        at(100)
    );
    let wrong: u32 = seconds.values().map(|second| second.wrong).sum();
    drop(survivors);
    ensure!(wrong == 0, "{wrong} searches said that they are complete and missed a file that was there");
    Ok(())
}

fn print(seconds: &BTreeMap<i64, Second>) {
    println!("{:>8} {:>9} {:>8} {:>9} {:>6} {:>9}", "second", "searches", "found", "complete", "wrong", "messages");
    for (second, of) in seconds {
        let share = |count: u32| f64::from(count) * 100.0 / f64::from(of.searches.max(1));
        println!(
            "{second:>8} {:>9} {:>6.1} % {:>7.1} % {:>6} {:>9.1}",
            of.searches,
            share(of.found),
            share(of.complete),
            of.wrong,
            f64::from(of.messages) / f64::from(of.searches.max(1))
        );
    }
}

/// Waits until every leaf has that many homes with its list.
async fn until_homes(crowd: &Crowd, gone: &[SocketAddr], wanted: usize) -> Result<()> {
    let all = async {
        while crowd.homes(gone).iter().any(|homes| *homes < wanted) {
            sleep(PAUSE).await;
        }
    };
    timeout(ATTACHING, all).await.context("some leaves have too few homes")
}

/// When each leaf that lost homes had all again.
async fn restore(crowd: Arc<Crowd>, gone: Vec<SocketAddr>, wanted: usize, since: Instant) -> Vec<Duration> {
    let mut open: Vec<_> =
        (0..).zip(crowd.homes(&gone)).filter(|(_, homes)| *homes < wanted).map(|(leaf, _)| leaf).collect();
    let mut times: Vec<Duration> = Vec::new();
    while !open.is_empty() {
        sleep(PAUSE).await;
        let homes = crowd.homes(&gone);
        let before = open.len();
        open.retain(|leaf: &usize| homes[*leaf] < wanted);
        times.extend(std::iter::repeat_n(since.elapsed(), before - open.len()));
    }
    times
}

/// Leaves that search, all the time.
struct Searching {
    tasks: Vec<tokio::task::JoinHandle<Result<()>>>,
    stop: CancellationToken,
    log: Arc<Mutex<Vec<(Instant, Second)>>>,
}

impl Searching {
    fn start(crowd: Arc<Crowd>, gone: Vec<SocketAddr>, seed: u64) -> Self {
        let (stop, log) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let task = |number: usize| {
            let rng = Pcg64Mcg::seed_from_u64(seed.wrapping_mul(1_000) + number as u64);
            tokio::spawn(search(crowd.clone(), gone.clone(), rng, stop.clone(), log.clone()))
        };
        Self { tasks: (0..SEARCHERS).map(task).collect(), stop, log }
    }

    /// What came of them, by the second before or after `moment`.
    async fn stop(self, moment: Instant) -> Result<BTreeMap<i64, Second>> {
        self.stop.cancel();
        for task in self.tasks {
            timeout(SEARCH_PATIENCE * 2, task).await.context("a search does not end")???;
        }
        let mut seconds: BTreeMap<i64, Second> = BTreeMap::new();
        for (at, one) in self.log.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let after = at.saturating_duration_since(moment).as_secs() as i64;
            let second = if *at < moment { -1 - moment.duration_since(*at).as_secs() as i64 } else { after };
            let sum = seconds.entry(second).or_default();
            sum.searches += one.searches;
            sum.found += one.found;
            sum.complete += one.complete;
            sum.wrong += one.wrong;
            sum.messages += one.messages;
        }
        Ok(seconds)
    }
}

async fn search(
    crowd: Arc<Crowd>,
    gone: Vec<SocketAddr>,
    mut rng: Pcg64Mcg,
    stop: CancellationToken,
    log: Arc<Mutex<Vec<(Instant, Second)>>>,
) -> Result<()> {
    while !stop.is_cancelled() {
        let (from, of) = (rng.random_range(0..crowd.len()), rng.random_range(0..crowd.len()));
        let begun = now();
        let before = crowd.homes(&gone)[of];
        let end = crowd.search(from, of, SEARCH_PATIENCE).await?;
        let found = end.hits > 0;
        let complete = end.summary.stopped == StopReason::Exhausted && end.summary.incomplete.is_empty();
        // Only what a living home had before and after must be found.
        let there = before > 0 && crowd.homes(&gone)[of] > 0;
        let one = Second {
            searches: 1,
            found: found.into(),
            complete: complete.into(),
            wrong: u32::from(complete && !found && there),
            messages: end.summary.messages,
        };
        log.lock().unwrap_or_else(PoisonError::into_inner).push((begun, one));
        sleep(PAUSE.mul_f64(rng.random_range(0.5..1.5))).await;
    }
    Ok(())
}
