//! What a crowd does to a download: the more there are, the more of them can send.
//!
//! See [`bench::swarm`] for what is simulated. The bound is what nobody can beat when one node has the file and all lines carry as much
//! in both directions: the last piece to leave the source must still be doubled until all have it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "results are data, and errors are told")]

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use bench::{
    swarm::{Member, World},
    table::median,
};
use clap::Parser;
use overlay::{time::Time, verify::Layout};

/// Simulates swarms.
#[derive(Debug, Parser)]
struct Options {
    /// Size of the file, in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    size: u64,
    /// What each line carries in each direction, in Mbit/s
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
    /// Downloaders that come at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    downloaders: Vec<usize>,
    /// What the line of one who comes when the others are half done takes, in Mbit/s; 0 is nobody, in half of the time
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    late: u64,
    /// Tells how busy the lines were, each tenth of the bound, and when everybody had something to give
    #[arg(long)]
    busy: bool,
    /// Where random numbers begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Bytes a second of a Mbit/s.
const MEGABIT: u64 = 125_000;

fn main() -> ExitCode {
    if let Err(error) = measure(&Options::parse()) {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn measure(options: &Options) -> Result<()> {
    let (size, rate) = (options.size << 20, options.rate * MEGABIT);
    let pieces = Layout::new(size)?.pieces();
    println!("{} MiB in {pieces} pieces, one source, {} Mbit/s each way", options.size, options.rate);
    println!(
        "{:>12}{:>9}{:>9}{:>9}{:>9}{:>8}{:>13}{:>9}{:>10}{:>9}{:>10}",
        "downloaders",
        "median s",
        "p95 s",
        "last s",
        "bound s",
        "ratio",
        "sent/needed",
        "copy s",
        "repeated",
        "late s",
        "late rate"
    );
    for &count in &options.downloaders {
        ensure!(count > 0, "a swarm needs a downloader");
        let line = |comes| Member { up: rate, down: rate, comes };
        let mut members = vec![line(None)];
        members.extend((0..count).map(|_| line(Some(Time::ZERO))));
        let alone = size as f64 / rate as f64;
        let patience = Duration::from_secs_f64(alone * (20.0 + count as f64));
        let outcome = World::new(size, &members, options.seed)?.run(patience);
        let mut took: Vec<f64> = outcome.took.iter().flatten().copied().collect();
        ensure!(took.len() == count, "{} of {count} are not done", count - took.len());
        let bound = (1.0 + (count as f64).log2() / pieces as f64) * alone;
        let middle = median(&mut took);
        let last = took.last().copied().unwrap_or_default();
        let p95 = took[(took.len() - 1) * 95 / 100];
        if options.busy {
            let span = (bound / 10.0).ceil() as usize;
            let tenths = outcome.sending.chunks(span).map(|part| part.iter().sum::<f64>() / part.len() as f64);
            let shown: Vec<_> = tenths.map(|part| format!("{:.0}%", 100.0 * part)).collect();
            println!("{count:>12} lines busy, each {span} s: {}", shown.join(" "));
            let mut began: Vec<f64> = outcome.began.iter().flatten().copied().collect();
            let (half, last) = (median(&mut began), began.last().copied().unwrap_or_default());
            println!("{count:>12} half of them have a piece after {half:.1} s, all after {last:.1} s");
        }
        let late = if options.late > 0 {
            let half = Time::ZERO + Duration::from_secs_f64(middle / 2.0);
            members.push(Member { down: options.late * MEGABIT, ..line(Some(half)) });
            let late = World::new(size, &members, options.seed)?.run(patience);
            let late = late.took.last().copied().flatten().unwrap_or(f64::INFINITY);
            format!("{late:>9.1}{:>10}", format!("{:.0} Mbit/s", size as f64 / late / MEGABIT as f64))
        } else {
            String::new()
        };
        println!(
            "{count:>12}{middle:>9.1}{p95:>9.1}{last:>9.1}{bound:>9.1}{:>8.2}{:>13.3}{:>9.1}{:>10.3}{late}",
            last / bound,
            outcome.sent,
            outcome.first_copy.unwrap_or(f64::INFINITY),
            outcome.repeated,
        );
    }
    println!(
        "ratio: of the last to the bound; copy: until the source was asked for all pieces; repeated: what it was asked for again \
         until then, as a part of the file"
    );
    if options.late > 0 {
        println!("late: one with a line of {} Mbit/s that comes at half time", options.late);
    }
    Ok(())
}
