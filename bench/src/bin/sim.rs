//! Simulates networks of the program's own cores, and compares them with models of other systems.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement talks to who runs it")]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bench::{
    bare::now,
    packages::{LISTS, Packages},
    process::Usage,
    sim::{
        baselines, flow,
        plot::{Plot, Scale},
        report::Report,
        scenario::{Fault, FaultKind, Scenario},
        validate,
        workload::Library,
        world::World,
    },
};
use clap::{Args, Parser, Subcommand};
use overlay::time::Time;

/// Simulates a network on a virtual clock: the same scenario with the same seed gives the same run
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare the models with published results
    Validate {
        /// Another seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Also the largest graphs, which take a minute
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// A model of a network too large for the cores, with the costs of a run of theirs: at flow level
    Flow {
        /// A quiet scenario from whose run the costs are taken
        scenario: PathBuf,
        /// Leaves of the large network
        #[arg(long, default_value_t = 1_000_000)]
        leaves: u32,
        /// Its ultrapeers
        #[arg(long, default_value_t = 3_000)]
        ultrapeers: u32,
        /// Times that a leaf joins in an hour
        #[arg(long, default_value_t = 1.0)]
        joins: f64,
        /// Searches
        #[arg(long, default_value_t = 2_000)]
        searches: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        names: Names,
    },
    /// Run scenarios and print the messages of their searches by size
    Sizes {
        /// Scenarios, smallest first
        #[arg(required = true)]
        scenarios: Vec<PathBuf>,
        /// Write the curves into that SVG
        #[arg(long)]
        plot: Option<PathBuf>,
        #[command(flatten)]
        names: Names,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// What to simulate: a file in bench/scenarios, or one like them
    scenario: Option<PathBuf>,
    /// Another seed than the scenario's
    #[arg(long)]
    seed: Option<u64>,
    /// Run it with that many seeds, one after the other, and report all searches together
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// Compare with models of other systems on the same leaves, files and searches; faults of the scenario do not
    /// happen, but 30 % of the ultrapeers die in further runs
    #[arg(long)]
    baselines: bool,
    /// Write recall over time after the faults into that SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// At the end ask the index of every ultrapeer that many queries and print what it did not name
    #[arg(long, default_value_t = 0)]
    audit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    names: Names,
}

#[derive(Debug, Args)]
struct Names {
    /// Folder with the Contents indexes of Debian, which give more names than the sample that comes with the program
    #[arg(long, default_value = LISTS)]
    lists: PathBuf,
    /// Use the sample even if there are indexes
    #[arg(long)]
    sample: bool,
}

/// Lines that an audit prints.
const AUDIT_LINES: usize = 40;
/// Searches of a comparison.
const COMPARED: usize = 500;
/// Runs of a comparison in which 30 % of the ultrapeers die.
const KILLS: u64 = 5;

fn main() -> Result<()> {
    let options = Options::parse();
    match options.command {
        Some(Command::Validate { seed, all, json }) => {
            let checks = validate::checks(seed, all);
            if json {
                print_json(&checks)?;
            } else {
                print!("{}", validate::text(&checks));
            }
            ensure!(checks.iter().all(validate::Check::agrees), "the models differ from what was published");
            Ok(())
        }
        Some(Command::Flow { scenario, leaves, ultrapeers, joins, searches, json, names }) => {
            let scenario = read(&scenario)?;
            let costs = flow::Costs::of(&simulate(scenario.clone(), &names)?);
            let size = flow::Size {
                leaves,
                ultrapeers,
                shards: flow::shards(leaves, &costs),
                queries_per_hour: scenario.workload.queries_per_hour,
                joins_per_hour: joins,
            };
            let large = Scenario { leaves, ultrapeers, ..scenario };
            let begun = now();
            let mut library = library(&large, &names)?;
            let asked = baselines::searches(&large, &mut library, searches);
            let report = flow::run(large.seed, size, costs, &asked);
            let resident = Usage::of(std::process::id()).map_or(0, |usage| usage.resident) as f64 / 1e6;
            eprintln!("flow level: {:.1} s, {resident:.0} MB of memory", begun.elapsed().as_secs_f64());
            if json {
                return print_json(&report);
            }
            print!("{}", report.text());
            Ok(())
        }
        Some(Command::Sizes { scenarios, plot, names }) => sizes(&scenarios, plot.as_deref(), &names),
        None => {
            let path = options.run.scenario.as_deref().context("which scenario? See bench/scenarios")?;
            let mut scenario = read(path)?;
            scenario.seed = options.run.seed.unwrap_or(scenario.seed);
            if options.run.baselines { compare(scenario, &options.run) } else { run(scenario, &options.run) }
        }
    }
}

fn read(path: &Path) -> Result<Scenario> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Scenario::parse(&text).with_context(|| format!("{} is no scenario", path.display()))
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

fn library(scenario: &Scenario, names: &Names) -> Result<Library> {
    let corpus = Packages::load(&names.lists, names.sample)?;
    Ok(Library::new(scenario.seed, scenario.population(), &scenario.workload, corpus))
}

/// Runs a scenario to its end.
fn simulate(scenario: Scenario, names: &Names) -> Result<World> {
    let begun = now();
    let library = library(&scenario, names)?;
    let end = scenario.end();
    let mut world = World::new(scenario, library);
    world.run(Time((end * 1e6) as u64));
    let resident = Usage::of(std::process::id()).map_or(0, |usage| usage.resident) as f64 / 1e6;
    eprintln!("seed {}: {:.1} s, {resident:.0} MB of memory", world.scenario().seed, begun.elapsed().as_secs_f64());
    Ok(world)
}

fn run(scenario: Scenario, options: &Run) -> Result<()> {
    let end = scenario.end();
    let mut all: Option<World> = None;
    for number in 0..options.repeat {
        let seed = scenario.seed + number;
        let mut world = simulate(Scenario { seed, ..scenario.clone() }, &options.names)?;
        let missing = world.audit(options.audit);
        missing.iter().take(AUDIT_LINES).for_each(|line| println!("MISSING {line}"));
        ensure!(missing.is_empty(), "the indexes did not name {} copies", missing.len());
        match &mut all {
            Some(all) => all.take_measures(world),
            None => all = Some(world),
        }
    }
    let report = Report::new(&all.context("nothing was run")?, end);
    if options.json {
        print_json(&report)?;
    } else {
        print!("{}", report.text());
    }
    if let Some(path) = &options.plot {
        std::fs::write(path, recall_plot(&report).svg())?;
    }
    let is_true = report.lies.is_empty() || scenario.has_liars();
    ensure!(is_true && report.strange == 0, "searches said that they are complete and were not");
    ensure!(report.defects.is_empty(), "{} defects", report.defects.len());
    Ok(())
}

fn recall_plot(report: &Report) -> Plot {
    let curve = |value: fn(&bench::sim::report::BurstRow) -> f64| {
        report.bursts.iter().map(|burst| (f64::from(burst.after_ms) / 1e3, value(burst) * 100.0)).collect()
    };
    Plot {
        title: format!("{}: searches after the fault", report.name),
        across: ("seconds after the fault".to_owned(), Scale::Logarithmic),
        up: ("per cent".to_owned(), Scale::Linear),
        curves: vec![
            ("recall".to_owned(), curve(|burst| burst.recall)),
            ("said to be complete".to_owned(), curve(|burst| burst.complete)),
        ],
    }
}

fn compare(mut scenario: Scenario, options: &Run) -> Result<()> {
    scenario.faults.clear();
    let quiet = Report::new(&simulate(scenario.clone(), &options.names)?, scenario.end());
    let mut killed = Vec::new();
    for number in 0..KILLS {
        let mut scenario = Scenario { seed: scenario.seed + number, measure_s: 10.0, ..scenario.clone() };
        scenario.faults.push(Fault { at_s: 1.0, kind: FaultKind::Kill, share: baselines::KILLED, lasts_s: 0.0 });
        let end = scenario.end();
        killed.push(Report::new(&simulate(scenario, &options.names)?, end));
    }
    let mut library = library(&scenario, &options.names)?;
    let asked = baselines::searches(&scenario, &mut library, COMPARED);
    let mut lines = vec![baselines::own_line(&quiet, &killed)];
    lines.extend(baselines::compare(&scenario, &asked));
    if options.json {
        print_json(&lines)
    } else {
        println!(
            "{}: {} leaves, {} ultrapeers, seed {}\n",
            scenario.name, scenario.leaves, scenario.ultrapeers, scenario.seed
        );
        print!("{}", baselines::text(&lines));
        Ok(())
    }
}

fn sizes(scenarios: &[PathBuf], plot: Option<&Path>, names: &Names) -> Result<()> {
    let mut curves: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    println!(
        "{:<24}{:>9}{:>12}{:<14}{:>9}{:>8}{:>8}{:>10}",
        "", "leaves", "ultrapeers", "  searches", "messages", "p50", "p99", "recall"
    );
    for path in scenarios {
        let scenario = read(path)?;
        let (leaves, end) = (f64::from(scenario.leaves), scenario.end());
        let report = Report::new(&simulate(scenario, names)?, end);
        for row in &report.searches {
            let [mean, p50, p99] = row.messages;
            println!(
                "{:<24}{leaves:>9}{:>12}  {:<12}{mean:>9.1}{p50:>8.0}{p99:>8.0}{:>9.2}%",
                report.name,
                report.ultrapeers,
                row.class,
                row.recall * 100.0
            );
            match curves.iter_mut().find(|(name, _)| *name == row.class) {
                Some((_, points)) => points.push((leaves, mean)),
                None => curves.push((row.class.clone(), vec![(leaves, mean)])),
            }
        }
    }
    if let Some(path) = plot {
        let plot = Plot {
            title: "queries and forwards of a search".to_owned(),
            across: ("leaves".to_owned(), Scale::Logarithmic),
            up: ("messages".to_owned(), Scale::Linear),
            curves,
        };
        std::fs::write(path, plot.svg())?;
    }
    Ok(())
}
