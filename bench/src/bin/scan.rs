//! How fast a leaf takes in what it shares, beside plain reading and `b3sum`; and what a large library costs.
//!
//! The first two tables compare the leaf's own path (walk, hash, records on the disk, file list) with the same files
//! read by as many threads, and hashed by `b3sum` with as many. The leaf's hashing threads give way to other work
//! (nice 10), so what they are compared with does, too. All is hashed and on record when the clock stops; the list is
//! published a little later. On a busy machine, read the times on cores. The third starts the real programs, beside a plain walk that looks at every file once.

#![expect(clippy::print_stdout, reason = "results are data")]

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bench::{bare::now, library, process::Usage, table::median};
use clap::Parser;
use leaf::store::{Database, Outboards, ShareSpec, Shares, SharesConfig};
use overlay::config::Origin;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio_util::sync::CancellationToken;

/// Measures the scan of made-up files.
#[derive(Debug, Parser)]
struct Options {
    /// Size of all large files together, in MiB; 0 leaves them out
    #[arg(long, default_value_t = 2048)]
    large: usize,
    /// Number of small files; 0 leaves them out
    #[arg(long, default_value_t = 100_000)]
    small: usize,
    /// Number of files in the large library; 0 leaves it out. Needs `cargo build --release` before
    #[arg(long, default_value_t = 0)]
    library: usize,
    /// Percentage of them that lies in one folder
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(..=100))]
    one_folder: u8,
    /// Folder for the files, which stays with them; what it has of an earlier run is used again. Else a temporary one
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Empty the system's cache of files before each measurement, as it is before a first scan. Only on Linux, as root
    #[arg(long)]
    cold: bool,
    /// Threads that hash
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Times that everything is measured; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Bytes of a large file.
const LARGE_BYTES: usize = 256 << 20;
/// Bytes of a small file, about: covers, texts, thumbnails.
const SMALL_BYTES: usize = 8 << 10;
/// Small files of a folder.
const FOLDER_FILES: usize = 50;

fn main() -> Result<()> {
    let options = Options::parse();
    let temporary = tempfile::Builder::new().prefix("quictrack-bench-").tempdir()?;
    let folder = options.folder.as_deref().unwrap_or_else(|| temporary.path());
    if options.large > 0 {
        let share = folder.join("large");
        let count = (options.large << 20).div_ceil(LARGE_BYTES);
        make_files(&share, count, LARGE_BYTES)?;
        compare(&format!("{count} files of 256 MiB"), &share, folder, &options)?;
        fs::remove_dir_all(share)?;
    }
    if options.small > 0 {
        let share = folder.join("small");
        make_files(&share, options.small, SMALL_BYTES)?;
        compare(&format!("{} files of some 8 KiB", options.small), &share, folder, &options)?;
        fs::remove_dir_all(share)?;
    }
    if options.library > 0 {
        let (share, one_folder) = (folder.join("library"), options.library * usize::from(options.one_folder) / 100);
        if !share.exists() {
            library::make(&share, options.library, one_folder)?;
        }
        let data = tempfile::Builder::new().prefix("data-").tempdir_in(folder)?;
        let report = tokio::runtime::Runtime::new()?.block_on(library::measure(&share, data.path()))?;
        println!("{} files, one folder of {one_folder} among them", options.library);
        print!("{report}");
    }
    Ok(())
}

/// Makes random files of about that size, in folders.
fn make_files(root: &Path, count: usize, bytes: usize) -> Result<()> {
    let (mut rng, mut block) = (Pcg64Mcg::seed_from_u64(1), vec![0; bytes]);
    for at in 0..count {
        let folder = root.join(format!("folder {:05}", at / FOLDER_FILES));
        if at % FOLDER_FILES == 0 {
            fs::create_dir_all(&folder)?;
        }
        // Not all alike, or the sizes would fit the blocks of the disk too well.
        let length = if bytes == LARGE_BYTES { bytes } else { bytes / 2 + rng.next_u32() as usize % bytes };
        block.resize(length.max(bytes), 0);
        rng.fill_bytes(&mut block[..length.min(1 << 20)]);
        fs::write(folder.join(format!("{at:07} some usual name.bin")), &block[..length])?;
    }
    Ok(())
}

fn compare(what: &str, share: &Path, folder: &Path, options: &Options) -> Result<()> {
    let files = list(share)?;
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let names = ["plain read", "b3sum", "leaf: first scan", "leaf: scan after a restart"];
    let mut times = [const { (Vec::new(), Vec::new()) }; 4];
    for round in 0..=options.rounds {
        let data = folder.join("data");
        for (what, times) in times.iter_mut().enumerate() {
            if options.cold {
                forget_files()?;
            }
            let before = cpu_time()?;
            let time = match what {
                0 => read_all(&files, options.threads)?,
                1 => b3sum(&files, options.threads)?,
                _ => scan(share, &data, options.threads)?,
            };
            // The first round only fills the system's cache.
            if round > 0 {
                times.0.push(time.as_secs_f64());
                times.1.push(cpu_time()? - before);
            }
        }
        fs::remove_dir_all(data)?;
    }
    let cache = if options.cold { "not cached" } else { "cached" };
    println!("{what}, {cache}, {} threads, median of {} rounds", options.threads, options.rounds);
    println!(
        "{:<28}{:>9}{:>11}{:>10}{:>9}{:>9}{:>12}{:>9}{:>9}",
        "", "s", "files/s", "MiB/s", "of read", "of b3sum", "s on cores", "of read", "of b3sum"
    );
    let times = times.map(|(mut times, mut on_cores)| (median(&mut times), median(&mut on_cores)));
    let [read, b3sum, ..] = times;
    for (name, (time, on_cores)) in names.iter().zip(times) {
        let (rate, mebibytes) = (files.len() as f64 / time, bytes as f64 / f64::from(1 << 20) / time);
        let (of_read, of_b3sum) = (read.0 / time, b3sum.0 / time);
        print!("{name:<28}{time:>9.2}{rate:>11.0}{mebibytes:>10.0}{of_read:>9.2}{of_b3sum:>9.2}");
        println!("{on_cores:>12.2}{:>9.2}{:>9.2}", read.1 / on_cores, b3sum.1 / on_cores);
    }
    Ok(())
}

/// Makes the system forget what it has read of disks.
fn forget_files() -> Result<()> {
    ensure!(Command::new("sync").status()?.success(), "`sync` failed");
    fs::write("/proc/sys/vm/drop_caches", "3").context("only root can empty the cache of files, on Linux")
}

/// Seconds on cores of this program and of the ones that it ran.
fn cpu_time() -> Result<f64> {
    let usage = Usage::of(std::process::id())?;
    Ok(usage.cpu_s + usage.children_cpu_s)
}

/// All files below a folder, with their sizes.
fn list(root: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let (path, metadata) = {
                let entry = entry?;
                (entry.path(), entry.metadata()?)
            };
            if metadata.is_dir() {
                folders.push(path);
            } else {
                files.push((path, metadata.len()));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads every file from its begin to its end.
fn read_all(files: &[(PathBuf, u64)], threads: usize) -> Result<Duration> {
    let (next, begun) = (AtomicUsize::new(0), now());
    let read = || -> std::io::Result<()> {
        leaf::store::give_way();
        let mut buffer = vec![0; 256 << 10];
        while let Some((path, _)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut file = File::open(path)?;
            while file.read(&mut buffer)? > 0 {}
        }
        Ok(())
    };
    thread::scope(|scope| -> Result<()> {
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        for reader in readers {
            reader.join().ok().context("a reader panicked")??;
        }
        Ok(())
    })?;
    Ok(begun.elapsed())
}

/// Hashes every file with the program `b3sum`, in calls of some thousand names.
fn b3sum(files: &[(PathBuf, u64)], threads: usize) -> Result<Duration> {
    let begun = now();
    for names in files.chunks(5000) {
        let names = names.iter().map(|(path, _)| path);
        let mut command = Command::new("nice");
        command.args(["-n", "10", "b3sum", "--num-threads", &threads.to_string()]).args(names);
        let status = command.stdout(Stdio::null()).status().context("`b3sum` is needed: cargo install b3sum")?;
        ensure!(status.success(), "b3sum failed; it may be missing: cargo install b3sum");
    }
    Ok(begun.elapsed())
}

/// Takes a share in as a leaf does, until everything is hashed and on record.
fn scan(share: &Path, data: &Path, threads: usize) -> Result<Duration> {
    fs::create_dir_all(data)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let begun = now();
    runtime.block_on(async {
        let (database, _) = Database::open(&data.join("state.redb"))?;
        let cancel = CancellationToken::new();
        let config = SharesConfig {
            shares: vec![ShareSpec { path: share.to_owned(), origin: Origin::CommandLine }],
            exclude: Vec::new(),
            rescan_interval: Duration::from_hours(1),
            hash_threads: threads,
            downloads: data.join("downloads"),
            share_downloads: false,
        };
        let outboards = Outboards::new(data.join("outboards"));
        let (shares, task) = Shares::start(config, Arc::new(database), outboards, cancel.clone())?;
        shares.recorded().await;
        let elapsed = begun.elapsed();
        shares.settled(None).await;
        ensure!(shares.list().iter().all(|share| share.files > 0), "nothing was listed");
        cancel.cancel();
        task.await?;
        Ok(elapsed)
    })
}
