//! How long a search takes: to its first hit, and to its summary, beside one round trip on an open connection.
//!
//! Each search asks for one word that one file of one other leaf has. Times are those of whoever calls the
//! leaf's searches, as the local HTTP does: parsing, the home, the other ultrapeers, the answer.

#![expect(clippy::print_stdout, reason = "results are data")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Write, stdin},
    path::{Path, PathBuf},
    pin::pin,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bench::{
    bare::{self, now},
    bed::Bed,
    clock::process_time,
    table::{Times, median},
};
use clap::Parser;
use futures_util::StreamExt;
use leaf::{
    api::types::SearchRequest,
    metrics::{SEARCH_HITS, SEARCHES, SearchResult},
    searches::Searches,
};
use overlay::{
    metrics::{self, Build, Metrics, Role},
    wire::leaf::{LeafMessage, Ping},
};

/// Measures searches in a network on loopback.
#[derive(Debug, Parser)]
struct Options {
    /// Sizes of the networks that are measured, in ultrapeers
    #[arg(long, value_delimiter = ',', default_values_t = [2, 3])]
    ultrapeers: Vec<usize>,
    /// Leaves that share files
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    leaves: u16,
    /// Files of each of them
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    files: u32,
    /// Searches of each network
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    searches: u32,
    /// Tell what part of a search's processor time the metrics take, in the last of the networks
    #[arg(long)]
    metrics: bool,
    /// For that: search whenever a line is read, with metrics or without
    #[arg(long, hide = true)]
    rounds_with: Option<bool>,
}

/// Searches before the measured ones: they bring code and windows into their usual state.
const WARM_UP: u32 = 20;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let folders = tempfile::Builder::new().prefix("quictrack-bench-").tempdir()?;
    let shares = make_files(folders.path(), &options)?;
    if let Some(with_metrics) = options.rounds_with {
        return answer_rounds(&options, shares, with_metrics).await;
    }
    println!("{} leaves of {} files, {} searches; ms", options.leaves, options.files, options.searches);
    println!("{:<44}{:>9}{:>9}{:>9}{:>9}", "", "p50", "p90", "p99", "ratio");
    let count = options.searches as usize;
    let unit = Times::new(bare::requests(count).await?);
    print("UDP round trip", &Times::new(bare::datagrams(count).await?), &unit);
    print("QUIC request on an open connection", &unit, &unit);
    for &ultrapeers in &options.ultrapeers {
        // The last leaf shares nothing: it searches.
        let shares = shares.iter().cloned().chain([Vec::new()]).collect();
        let bed = Bed::start(ultrapeers, shares).await?;
        let (first, end) = measure(&bed, &options).await?;
        print(&format!("first hit, {ultrapeers} ultrapeers"), &first, &unit);
        print(&format!("summary, {ultrapeers} ultrapeers"), &end, &unit);
        if options.metrics && options.ultrapeers.last() == Some(&ultrapeers) {
            println!("ratio: p50 to that of a QUIC request");
            cost(&bed, &options).await?;
        }
        bed.stop().await;
    }
    if !options.metrics {
        println!("ratio: p50 to that of a QUIC request");
    }
    Ok(())
}

fn print(what: &str, times: &Times, unit: &Times) {
    println!("{what:<44}{}", times.line(unit));
}

/// Recordings whose time is measured, of each kind.
const RECORDINGS: u32 = 1_000_000;
/// Processes that are compared, of each kind: where one lies in memory makes a few hundredths of difference.
const PROCESSES: usize = 6;
/// Rounds of each of them, in turns, so that whatever else the machine does meets all of them.
const ROUNDS: usize = 12;

/// What part of a search's processor time, of all nodes together, the metrics take: what is recorded for each search, as
/// the metrics themselves tell, and what a recording takes. Comparing processes with them and without says it as well, as far as
/// it is more than what two processes without them differ by.
async fn cost(bed: &Bed, options: &Options) -> Result<()> {
    let metrics = install()?;
    let before = Recorded::read(&metrics.render());
    measure(bed, options).await?;
    let after = Recorded::read(&metrics.render());
    let searches = f64::from(options.searches + WARM_UP);
    let off = compare(options)?;
    let ping = LeafMessage::from(Ping { token: 1 });
    let mut taken = 0.0;
    for (what, count, each) in [
        (
            "messages",
            after.messages - before.messages,
            time(|| metrics::MESSAGES.count(&ping, 9, metrics::Direction::In)),
        ),
        ("counts", after.counts - before.counts, time(|| SEARCHES.increment(SearchResult::Hits))),
        ("samples", after.samples - before.samples, {
            let sampling = time(|| SEARCH_HITS.record((), 1.0));
            // What was sampled is put into its buckets later, by the upkeep of the registry.
            let begun = process_time();
            drop(metrics.render());
            sampling + process_time().saturating_sub(begun).as_secs_f64() * 1e6 / f64::from(RECORDINGS)
        }),
    ] {
        let each_search = count / searches;
        taken += each_search * each;
        println!("  {each_search:>5.1} {what} of {:.0} ns", each * 1e3);
    }
    println!("  {taken:.2} us, {:.2} % of it", 100.0 * taken / off);
    Ok(())
}

/// Processor time of a recording, in microseconds, while two threads do nothing else.
fn time(record: impl Fn() + Sync) -> f64 {
    let begun = process_time();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..RECORDINGS / 2).for_each(|_| record()));
        }
    });
    process_time().saturating_sub(begun).as_secs_f64() * 1e6 / f64::from(RECORDINGS)
}

fn install() -> Result<Metrics> {
    let build = Build { version: "bench", revision: "unknown", role: Role::Leaf };
    Ok(metrics::install(build, &[leaf::metrics::FAMILIES, ultrapeer::metrics::FAMILIES])?)
}

/// Prints what searches take in processes with metrics, beside those without and others without; returns that of those without,
/// in microseconds.
fn compare(options: &Options) -> Result<f64> {
    let mut taken: [Vec<f64>; 3] = Default::default();
    for _ in 0..PROCESSES {
        let started = [false, false, true].into_iter().map(|with_metrics| Rounds::start(options, with_metrics));
        let mut processes = started.collect::<Result<Vec<_>>>()?;
        let mut times = [const { Vec::new() }; 3];
        for round in 0..ROUNDS * 3 {
            times[round % 3].push(processes[round % 3].next()?);
        }
        for (all, own) in taken.iter_mut().zip(&mut times) {
            all.push(median(own));
        }
    }
    let [off, other, on] = taken.map(|times| times.iter().sum::<f64>() / times.len() as f64);
    println!("processor time of a search, without metrics {off:.0} us and {other:.0} us, with {on:.0} us");
    let percent = |of: f64| 100.0 * (of / f64::midpoint(off, other) - 1.0);
    println!(
        "  with them {:+.1} %, where two without are {:.1} % apart",
        percent(on),
        100.0 * (other / off - 1.0).abs()
    );
    Ok(f64::midpoint(off, other))
}

/// A process that searches when it is told.
struct Rounds {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Rounds {
    fn start(options: &Options, with_metrics: bool) -> Result<Self> {
        let ultrapeers = options.ultrapeers.last().context("there is a network")?;
        let mut child = Command::new(env::current_exe()?)
            .args(["--rounds-with", &with_metrics.to_string(), "--ultrapeers", &ultrapeers.to_string()])
            .args(["--leaves", &options.leaves.to_string(), "--files", &options.files.to_string()])
            .args(["--searches", &options.searches.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let told = BufReader::new(child.stdout.take().context("it was asked for")?);
        Ok(Self { child, told })
    }

    /// Processor time of a search in the next round, in microseconds.
    fn next(&mut self) -> Result<f64> {
        self.child.stdin.as_mut().context("it was asked for")?.write_all(b"\n")?;
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        line.trim().parse().with_context(|| format!("a process that searches said {line:?}"))
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        // Without more lines it ends, and removes its folder.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What such a process does: for each line that it reads it tells the processor time of a search, of all its threads. Its metrics
/// are read once in each round.
async fn answer_rounds(options: &Options, mut shares: Vec<Vec<PathBuf>>, with_metrics: bool) -> Result<()> {
    let metrics = with_metrics.then(install).transpose()?;
    shares.push(Vec::new());
    let bed = Bed::start(*options.ultrapeers.last().context("there is a network")?, shares).await?;
    for line in stdin().lines() {
        line?;
        let begun = process_time();
        measure(&bed, options).await?;
        drop(metrics.as_ref().map(Metrics::render));
        let taken = process_time().saturating_sub(begun).as_secs_f64() * 1e6;
        println!("{}", taken / f64::from(options.searches + WARM_UP));
    }
    bed.stop().await;
    Ok(())
}

/// How much has been recorded.
#[derive(Default)]
struct Recorded {
    /// Messages with their bytes.
    messages: f64,
    /// Other counts.
    counts: f64,
    /// Values in histograms.
    samples: f64,
}

impl Recorded {
    /// What an exposition tells of. Totals that are taken over from elsewhere are no recordings.
    fn read(text: &str) -> Self {
        let mut recorded = Self::default();
        for line in text.lines().filter(|line| line.starts_with("quictrack_")) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let name = series.split('{').next().unwrap_or_default();
            let value: f64 = value.parse().unwrap_or(0.0);
            let elsewhere = ["_runtime_", "_udp_", "_quic_", "_bytes_"].iter().any(|part| name.contains(part));
            if name == "quictrack_messages_total" {
                recorded.messages += value;
            } else if name.ends_with("_total") && !elsewhere {
                recorded.counts += value;
            } else if name.ends_with("_count") {
                recorded.samples += value;
            }
        }
        recorded
    }
}

/// Times to the first hit and to the summary.
async fn measure(bed: &Bed, options: &Options) -> Result<(Times, Times)> {
    let seeker = bed.leaves().last().context("a leaf searches")?;
    let (mut first, mut end) = (Vec::new(), Vec::new());
    for search in 0..options.searches + WARM_UP {
        let leaf = search % u32::from(options.leaves);
        // A stride without a divisor in common with usual numbers: neighbours lie apart.
        let file = search.wrapping_mul(7_919) % options.files;
        let times = search_once(seeker.searches(), word(leaf as u16, file)).await?;
        if search >= WARM_UP {
            first.push(times.0);
            end.push(times.1);
        }
    }
    Ok((Times::new(first), Times::new(end)))
}

async fn search_once(searches: &Searches, query: String) -> Result<(Duration, Duration)> {
    let begun = now();
    let id = searches.start(SearchRequest { query: query.clone(), ..SearchRequest::default() }).await?;
    let mut events = pin!(searches.events(&id).context("a search that was just started is known")?.follow(None));
    let mut first = None;
    while let Some(event) = events.next().await {
        match event.event {
            "hit" => first = first.or_else(|| Some(begun.elapsed())),
            _ => break,
        }
    }
    let end = begun.elapsed();
    let Some((hits, summary)) = searches.finished(&id).await else { bail!("the search was cut short") };
    ensure!(hits.len() == 1 && summary.complete, "searching for {query} gave {} hits: {summary:?}", hits.len());
    ensure!(searches.remove(&id).await, "a search that has ended is known");
    Ok((first.context("a hit came")?, end))
}

/// A word that only this file has.
fn word(leaf: u16, file: u32) -> String {
    format!("w{leaf}x{file}")
}

/// Makes the folders of the leaves that share.
fn make_files(folder: &Path, options: &Options) -> Result<Vec<Vec<PathBuf>>> {
    let mut shares = Vec::new();
    for leaf in 0..options.leaves {
        let share = folder.join(format!("share-{leaf}"));
        fs::create_dir(&share)?;
        for file in 0..options.files {
            let name = format!("some common words and {}.txt", word(leaf, file));
            fs::write(share.join(name), format!("file {file} of leaf {leaf}"))?;
        }
        shares.push(vec![share]);
    }
    Ok(shares)
}
