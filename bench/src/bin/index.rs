//! The ultrapeer's index on real file names: size, look-ups, and leaves that come and go, beside tantivy and
//! SQLite's FTS5 with the same files, words and queries in one run.
//!
//! Times are CPU time, so that other programs on the machine do not count: of one thread for look-ups, of the
//! whole process for changes, because tantivy writes on threads of its own. Queries find the first 200 files
//! in the engine's own order, without ranking; they were read before. Bytes are without names, sizes, times
//! and content ids, which only the index of the ultrapeer holds: counted by the allocator for it, and by the
//! other engines' own accounting for them, after all was merged into one segment.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measurement talks to who runs it")]

use std::{
    alloc::System,
    hint::black_box,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use bench::{
    clock::{overhead, process_time, thread_time},
    engine::{Engine, NOW_S, Own},
    mix::{Asked, Mix, scan},
    packages::{LISTS, Leaf, Packages, save_sample},
    table::{Times, median},
};
use cap::Cap;
use clap::Parser;
use overlay::{file::FileEntry, limits};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Measures the index on the file lists of Debian's packages (`apt-file update` fetches them), or on a
/// sample of them
#[derive(Debug, Parser)]
struct Options {
    /// Files to index, at least as far as there are so many
    #[arg(long, default_value_t = 1_000_000)]
    files: usize,
    /// Folder with the Contents indexes
    #[arg(long, default_value = LISTS)]
    lists: PathBuf,
    /// Use the sample that comes with the program, even if there are indexes
    #[arg(long)]
    sample: bool,
    /// Queries of the mix
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..))]
    queries: u32,
    /// Leaves of about 1,000 files that are added and removed
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    leaves: u32,
    /// Only Quictrack, without the other engines
    #[arg(long)]
    alone: bool,
    /// Queries that are compared with a scan of all files
    #[arg(long, default_value_t = 200)]
    checked: usize,
    /// Write the corpus as a sample and end
    #[arg(long)]
    write_sample: Option<PathBuf>,
}

/// Files that a query finds at most.
const MOST: usize = 200;
/// Contents of an answer, as a search asks for them.
const LIMIT: usize = limits::SEARCH_LIMIT as usize;

struct World {
    corpus: Packages,
    held_out: Vec<Leaf>,
    mix: Vec<Asked>,
    hard: Vec<Asked>,
    checked: Vec<(Asked, usize)>,
}

/// What was measured of one engine.
struct Row {
    name: &'static str,
    bytes: f64,
    build_s: f64,
    sets: Vec<Set>,
    changes: Changes,
    wrong: usize,
}

/// Microseconds of adding and of removing 1,000 files until that is visible, and of what either leaves to be done.
struct Changes {
    add_us: f64,
    remove_us: f64,
    settle_us: [f64; 2],
}

/// Look-ups of one set of queries.
struct Set {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let world = world(&options)?;
    let Some(world) = world else { return Ok(()) };
    let mut own = Own::new();
    let before = ALLOCATOR.allocated();
    let build_s = fill(&mut own, &world.corpus);
    let whole = (ALLOCATOR.allocated() - before) as u64;
    // What the files are is kept beside the words, and none of the others keeps it.
    let bytes = whole.saturating_sub(own.index().stats().file_memory);
    let stated = own.bytes();
    print_header();
    let row = measure(&mut own, &world, bytes as f64, build_s);
    print_row(&row);
    let [added, removed] = row.changes.settle_us;
    println!("{:<12}merging afterwards: {added:.0} us for each 1,000 files added, {removed:.0} removed", "");
    drop(own);
    #[cfg(feature = "rivals")]
    if !options.alone {
        use bench::rivals::{Fts5, Tantivy};
        let mut rows = vec![row];
        let mut tantivy = Tantivy::new()?;
        let build_s = fill(&mut tantivy, &world.corpus);
        tantivy.settle()?;
        let bytes = tantivy.bytes();
        rows.push(measure(&mut tantivy, &world, bytes as f64, build_s));
        print_row(&rows[1]);
        drop(tantivy);
        let mut fts5 = Fts5::new()?;
        let build_s = fill(&mut fts5, &world.corpus);
        fts5.settle()?;
        let bytes = fts5.bytes();
        rows.push(measure(&mut fts5, &world, bytes as f64, build_s));
        print_row(&rows[2]);
        print_ratios(&rows);
    }
    #[cfg(not(feature = "rivals"))]
    if !options.alone {
        eprintln!("built without the feature `rivals`: no other engines");
    }
    measure_whole(&world, stated);
    Ok(())
}

fn world(options: &Options) -> Result<Option<World>> {
    let mut corpus = Packages::load(&options.lists, options.sample)?;
    if let Some(path) = &options.write_sample {
        corpus.truncate(options.files);
        save_sample(&corpus, path)?;
        return Ok(None);
    }
    let held_out = corpus.hold_out(options.leaves as usize);
    ensure!(!held_out.is_empty(), "no leaf has about 1,000 files");
    corpus.truncate(options.files);
    let files = corpus.files();
    println!("{files} files of {} leaves: {}", corpus.leaves().len(), corpus.origin);
    if files < options.files {
        eprintln!(
            "fewer than {} files: `apt-get install apt-file` and `apt-file update` fetch the lists of all packages \
             into {LISTS}",
            options.files
        );
    }
    let mut mix = Mix::new(&corpus, 1);
    let ordinary: Vec<Asked> = (0..options.queries).map(|_| mix.ordinary()).collect();
    let hard = mix.hard(1_000);
    let some = ordinary.iter().take(options.checked).chain(hard.iter().take(options.checked / 4));
    let some: Vec<Asked> = some.cloned().collect();
    let counts = scan(&corpus, &some);
    let checked = some.into_iter().zip(counts).collect();
    Ok(Some(World { corpus, held_out, mix: ordinary, hard, checked }))
}

/// Adds all leaves and returns the seconds of CPU that took.
fn fill(engine: &mut impl Engine, corpus: &Packages) -> f64 {
    let mut spent = Duration::ZERO;
    for (number, leaf) in corpus.leaves().iter().enumerate() {
        let entries = leaf.entries();
        let start = process_time();
        engine.add(number as u32, &entries);
        if number % 1000 == 999 {
            engine.publish();
            engine.settle();
        }
        spent += process_time().saturating_sub(start);
    }
    let start = process_time();
    engine.publish();
    engine.settle();
    (spent + process_time().saturating_sub(start)).as_secs_f64()
}

fn measure<E: Engine>(engine: &mut E, world: &World, bytes: f64, build_s: f64) -> Row {
    let prepare = |queries: &mut dyn Iterator<Item = &Asked>| -> Vec<E::Prepared> {
        queries.map(|asked| engine.prepare(asked)).collect()
    };
    let plain = |asked: &&Asked| asked.prefix.is_none() && asked.without.is_none();
    let sets = [
        prepare(&mut world.mix.iter()),
        prepare(&mut world.mix.iter().filter(plain)),
        prepare(&mut world.mix.iter().filter(|asked| asked.prefix.is_some())),
        prepare(&mut world.hard.iter()),
    ];
    let wrong = world.checked.iter().filter(|(asked, want)| {
        let found = engine.find(&engine.prepare(asked), usize::MAX);
        if found != *want {
            eprintln!("{}: {:?} finds {found} files instead of {want}", engine.name(), asked.source());
        }
        found != *want
    });
    let wrong = wrong.count();
    let sets = sets.iter().map(|queries| look_up(queries, |query| engine.find(query, MOST))).collect();
    let changes = change(engine, world);
    Row { name: engine.name(), bytes: bytes / world.corpus.files() as f64, build_s, sets, changes, wrong }
}

/// Runs queries twice: one by one for the percentiles, then all for the rate.
fn look_up<Q>(queries: &[Q], find: impl Fn(&Q) -> usize) -> Set {
    let overhead = overhead();
    let times = queries.iter().map(|query| {
        let start = thread_time();
        black_box(find(query));
        thread_time().saturating_sub(start).saturating_sub(overhead)
    });
    let times = Times::new(times.collect());
    let start = thread_time();
    for query in queries {
        black_box(find(query));
    }
    let spent = thread_time().saturating_sub(start);
    Set {
        per_second: queries.len() as f64 / spent.as_secs_f64(),
        p50_us: microseconds(times.percentile(50)),
        p99_us: microseconds(times.percentile(99)),
    }
}

/// Adds the leaves that were held out, then removes them: medians of what a leaf takes, scaled to 1,000 files; what is
/// left to be done comes in large and small pieces, so of that the mean.
fn change(engine: &mut impl Engine, world: &World) -> Changes {
    let first = world.corpus.leaves().len() as u32;
    let files: usize = world.held_out.iter().map(Leaf::len).sum();
    let (mut adds, mut removes, mut settles) = (Vec::new(), Vec::new(), [Duration::ZERO; 2]);
    let per_thousand = |time: Duration, files: usize| microseconds(time) * 1e3 / files as f64;
    for (number, leaf) in (first..).zip(&world.held_out) {
        let entries = leaf.entries();
        let start = process_time();
        engine.add(number, &entries);
        engine.publish();
        let visible = process_time();
        engine.settle();
        settles[0] += process_time().saturating_sub(visible);
        adds.push(per_thousand(visible.saturating_sub(start), leaf.len()));
    }
    for (number, leaf) in (first..).zip(&world.held_out) {
        let start = process_time();
        engine.remove(number);
        engine.publish();
        let visible = process_time();
        engine.settle();
        settles[1] += process_time().saturating_sub(visible);
        removes.push(per_thousand(visible.saturating_sub(start), leaf.len()));
    }
    let settle_us = settles.map(|spent| per_thousand(spent, files));
    Changes { add_us: median(&mut adds), remove_us: median(&mut removes), settle_us }
}

/// What only the index of the ultrapeer does: names and the rest, ranking, look-ups by content, churn.
fn measure_whole(world: &World, stated: u64) {
    let before = ALLOCATOR.allocated();
    let mut own = Own::new();
    fill(&mut own, &world.corpus);
    let bytes = ALLOCATOR.allocated() - before;
    let stats = own.index().stats();
    let per_file = |bytes: u64| bytes as f64 / stats.files as f64;
    println!(
        "\nwith names, sizes, times and content ids: {:.1} bytes a file ({:.1} without content ids); by own accounting \
         {:.1}, and {:.1} for words alone",
        per_file(bytes as u64),
        per_file(bytes as u64) - 32.0,
        per_file(stats.memory),
        per_file(stated),
    );
    let snapshot = own.snapshot();
    let sources: Vec<String> = world.mix.iter().take(1_000).map(Asked::source).collect();
    let answers = look_up(&sources, |source| Own::answer(&snapshot, source, LIMIT).len());
    println!(
        "query read, looked up and ranked, {LIMIT} contents: {:.0} a second, p50 {:.1} us, p99 {:.1} us",
        answers.per_second, answers.p50_us, answers.p99_us
    );
    let leaves = world.corpus.leaves();
    let contents: Vec<_> = (0..1_000)
        .map(|n| {
            let entries = leaves[n * 7919 % leaves.len()].entries();
            entries[n % entries.len()].content
        })
        .collect();
    let holders = look_up(&contents, |content| snapshot.holders(content).len());
    let missed = contents.iter().filter(|content| snapshot.holders(content).is_empty()).count();
    println!(
        "holders of a content: p50 {:.2} us, p99 {:.2} us; {missed} of {} missed",
        holders.p50_us,
        holders.p99_us,
        contents.len()
    );
    drop(snapshot);
    churn(own, world);
}

/// Look-ups while another thread adds and removes leaves as fast as it can.
fn churn(mut own: Own, world: &World) {
    let reader = own.index().reader();
    let queries: Vec<_> = world.mix.iter().map(|asked| own.prepare(asked)).collect();
    let find = |query: &_| reader.snapshot().lookup(query, NOW_S, MOST, limits::LOOKUP_WORK).matches.len();
    let still = look_up(&queries, find);
    let (done, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    let lists: Vec<Vec<FileEntry>> = world.held_out.iter().map(Leaf::entries).collect();
    let first = world.corpus.leaves().len() as u32;
    let moving = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for (number, files) in lists.iter().enumerate() {
                    own.add(first + number as u32, files);
                    own.publish();
                    own.settle();
                    changes.fetch_add(1, Ordering::Relaxed);
                }
                for number in 0..lists.len() {
                    own.remove(first + number as u32);
                    own.publish();
                    own.settle();
                    changes.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let moving = look_up(&queries, find);
        done.store(true, Ordering::Release);
        moving
    });
    println!(
        "look-ups while leaves come and go ({} changes): {:.0} a second, p50 {:.1} us, p99 {:.1} us: {:.2} times the p99 \
         of a still index ({:.1} us)",
        changes.load(Ordering::Relaxed),
        moving.per_second,
        moving.p50_us,
        moving.p99_us,
        moving.p99_us / still.p99_us,
        still.p99_us,
    );
}

fn print_header() {
    println!(
        "\n{:<12}{:>7}{:>8}{:>9}{:>7}{:>8}{:>9}{:>7}{:>9}{:>7}{:>9}{:>8}{:>9}{:>10}{:>7}",
        "",
        "B/file",
        "build",
        "mix",
        "p50",
        "p99",
        "AND",
        "p99",
        "prefix",
        "p99",
        "hard",
        "p99",
        "add",
        "remove",
        "wrong"
    );
    println!(
        "{:<12}{:>7}{:>8}{:>9}{:>7}{:>8}{:>9}{:>7}{:>9}{:>7}{:>9}{:>8}{:>9}{:>10}{:>7}",
        "", "", "s", "1/s", "us", "us", "1/s", "us", "1/s", "us", "1/s", "us", "us", "us", ""
    );
}

fn print_row(row: &Row) {
    let Row { name, bytes, build_s, sets, changes: Changes { add_us, remove_us, .. }, wrong } = row;
    let [mix, and, prefix, hard] = &sets[..] else { return };
    println!(
        "{name:<12}{bytes:>7.1}{build_s:>8.2}{:>9.0}{:>7.1}{:>8.1}{:>9.0}{:>7.1}{:>9.0}{:>7.0}{:>9.0}{:>8.1}{add_us:>9.0}{remove_us:>10.1}{wrong:>7}",
        mix.per_second,
        mix.p50_us,
        mix.p99_us,
        and.per_second,
        and.p99_us,
        prefix.per_second,
        prefix.p99_us,
        hard.per_second,
        hard.p99_us,
    );
}

/// How many times better the first row is.
#[cfg(feature = "rivals")]
fn print_ratios(rows: &[Row]) {
    let Some((own, rivals)) = rows.split_first() else { return };
    if !rivals.is_empty() {
        println!("\nQuictrack is so many times better (smaller, faster):");
    }
    for rival in rivals {
        let (a, b) = (&own.sets, &rival.sets);
        println!(
            "than {:<12} bytes {:.2}, mix {:.1} (p99 {:.1}), AND {:.1} (p99 {:.1}), hard {:.1} (p99 {:.1}), add {:.1}, remove {:.1}",
            rival.name,
            rival.bytes / own.bytes,
            a[0].per_second / b[0].per_second,
            b[0].p99_us / a[0].p99_us,
            a[1].per_second / b[1].per_second,
            b[1].p99_us / a[1].p99_us,
            a[3].per_second / b[3].per_second,
            b[3].p99_us / a[3].p99_us,
            rival.changes.add_us / own.changes.add_us,
            rival.changes.remove_us / own.changes.remove_us,
        );
    }
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
