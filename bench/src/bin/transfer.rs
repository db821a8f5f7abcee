//! How fast a download is, beside plain streams of QUIC and TCP, and beside `curl`, `sendme`, `rqbit` and libtorrent.
//!
//! See [`bench::contest`] for what the clock counts. All take turns, round by round, so that whatever else the
//! machine does meets all of them; every copy is compared with the original after the clock.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "results are data, and errors are told")]

use std::{
    ffi::OsString,
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use bench::{
    contest::{Contender, Fetch, Mesh, PLAY, What, python_with_libtorrent},
    plain::{self, Tuning},
    table::median,
};
use clap::Parser;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tempfile::TempDir;

/// Measures downloads on loopback.
#[derive(Debug, Parser)]
struct Options {
    /// Size of the file, in MiB
    #[arg(default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    size: u32,
    /// Times that everything is measured; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure only what has this in its name
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
    /// Nodes that have the file; if more than one has or fetches it, only who can fetch from many takes part
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    sources: u8,
    /// Nodes that fetch it at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    sinks: u8,
    /// Where `nginx`, `sendme`, `rqbit` and a `python3` with libtorrent are, if not in the PATH
    #[arg(long, value_name = "DIR")]
    rivals: Option<PathBuf>,
}

impl Options {
    fn mesh(&self) -> Mesh {
        Mesh { sources: self.sources.into(), sinks: self.sinks.into() }
    }
}

/// A part that this program plays in a process of its own.
#[derive(Debug, Parser)]
enum Part {
    SendTcp { file: PathBuf },
    ReceiveTcp { address: SocketAddr, copy: PathBuf },
    SendQuic { tuning: Tuning, file: PathBuf },
    ReceiveQuic { tuning: Tuning, address: SocketAddr, copy: PathBuf },
}

/// Bytes of a MiB.
const MIB: usize = 1 << 20;
/// The file's name, which is also what is searched for.
const NAME: &str = "measured";

/// Files of the folder of small files.
const SMALL_FILES: u64 = 1000;
/// Bytes of each of them.
const SMALL_BYTES: usize = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == PLAY) {
        return play(arguments);
    }
    if let Err(error) = measure(&Options::parse()) {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Plays one part: `arguments` are this program, [`PLAY`], the part, and its arguments.
fn play(mut arguments: Vec<OsString>) -> ExitCode {
    let mut part = arguments.split_off(2);
    match part.first().and_then(|name| name.to_str()) {
        Some("quictrack") => return leaf::cli::main(part),
        Some("quictrack-ultrapeer") => return ultrapeer::program::main(part),
        _ => part.splice(..0, arguments.into_iter().take(1)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let work = async {
        match Part::try_parse_from(part)? {
            Part::SendTcp { file } => plain::send_tcp(&file).await,
            Part::ReceiveTcp { address, copy } => plain::receive_tcp(address, &copy).await,
            Part::SendQuic { tuning, file } => plain::send_quic(&file, tuning).await,
            Part::ReceiveQuic { tuning, address, copy } => plain::receive_quic(address, &copy, tuning).await,
        }
    };
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    let folder = folder()?;
    let share = folder.path().join("share");
    fs::create_dir(&share)?;
    let file = share.join(NAME);
    let content = make_file(&file, options.size)?;
    let mut rows = Vec::new();
    for (name, contender) in contenders(options, &file, content, folder.path()) {
        match contender() {
            Ok(contender) => rows.push((name, contender, Vec::new())),
            Err(error) => println!("{name} is left out: {error:#}"),
        }
    }
    for _ in 0..options.rounds {
        for (name, contender, fetches) in &mut rows {
            let (fetch, copies) = contender.fetch(NAME).with_context(|| name.clone())?;
            for copy in copies {
                ensure!(hash(&copy)? == content, "{name}: the copy is wrong");
            }
            fetches.push(fetch);
        }
    }
    println!("{} MiB, {} to {}, median of {} rounds", options.size, options.sources, options.sinks, options.rounds);
    println!(
        "{:<40}{:>9}{:>9}{:>9}{:>9}{:>14}{:>14}",
        "", "wall s", "MiB/s", "time", "least s", "CPU s per GiB", "resident MiB"
    );
    let mebibytes = options.size * u32::from(options.sinks);
    let rows: Vec<(String, Row)> =
        rows.into_iter().map(|(name, _, fetches)| (name, Row::of(&fetches, mebibytes))).collect();
    let unit = rows.first().map_or(1.0, |(_, row)| row.wall);
    for (name, Row { wall, least, cpu, resident }) in rows {
        let rate = f64::from(mebibytes) / wall;
        let resident = resident >> 20;
        println!("{name:<40}{wall:>9.2}{rate:>9.0}{:>9.2}{least:>9.2}{cpu:>14.2}{resident:>14}", wall / unit);
    }
    println!(
        "time: as a multiple of the first line; MiB/s: of all sinks; CPU: of all sides; resident: the most that one \
         process had, with the pages of files that it maps"
    );
    if options.only.is_empty() && options.mesh() == Mesh::PAIR {
        small_files(options.rounds, folder.path())?;
    }
    Ok(())
}

/// Measures a folder of small files, where round trips count and not bytes.
fn small_files(rounds: u32, folder: &Path) -> Result<()> {
    let share = folder.join("small");
    fs::create_dir_all(share.join(NAME))?;
    for number in 0..SMALL_FILES {
        let (mut data, mut rng) = (vec![0; SMALL_BYTES], Pcg64Mcg::seed_from_u64(number));
        rng.fill_bytes(&mut data);
        fs::write(share.join(NAME).join(format!("{number}")), data)?;
    }
    let contender = Contender::quictrack(&share, What::Folder(NAME), &folder.join("quictrack-small"), Mesh::PAIR)?;
    let mut walls = Vec::new();
    for _ in 0..rounds {
        let (fetch, copies) = contender.fetch(NAME)?;
        let copy = copies.first().context("there is one sink")?;
        ensure!(fs::read_dir(copy)?.count() == SMALL_FILES as usize, "files are missing");
        walls.push(fetch.wall.as_secs_f64());
    }
    let wall = median(&mut walls);
    println!("quictrack, a folder of {SMALL_FILES} files of {SMALL_BYTES} bytes: {wall:.2} s");
    Ok(())
}

type Maker<'a> = Box<dyn FnOnce() -> Result<Contender> + 'a>;

/// Who takes part, with its name, in the order of one round; the first is what the others are compared with.
fn contenders<'a>(
    options: &Options,
    file: &'a Path,
    content: blake3::Hash,
    folder: &'a Path,
) -> Vec<(String, Maker<'a>)> {
    let own = move |name: &str| folder.join(name);
    let share = file.parent().unwrap_or(file);
    let mesh = options.mesh();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let given = options.rivals.iter().flat_map(|dir| [dir.clone(), dir.join("bin")]);
    let places: Vec<PathBuf> =
        given.chain(std::env::split_paths(&paths)).chain(["/usr/bin".into(), "/usr/sbin".into()]).collect();
    let find =
        move |name: &str| places.iter().map(|dir| dir.join(name)).filter(|path| path.is_file()).collect::<Vec<_>>();
    let one = {
        let find = find.clone();
        move |name: &str, source: &str| {
            find(name).into_iter().next().with_context(|| format!("{name} is not found; {source} has it"))
        }
    };
    let mut all: Vec<(String, Maker<'a>)> = Vec::new();
    if mesh == Mesh::PAIR {
        let (curl, sendme) = (one.clone(), one.clone());
        all.push((
            "QUIC stream, BLAKE3, our settings".into(),
            Box::new(move || Contender::quic(file, &own("ours"), Tuning::Ours)),
        ));
        all.push((
            "QUIC stream, BLAKE3, quinn's settings".into(),
            Box::new(move || Contender::quic(file, &own("stock"), Tuning::Stock)),
        ));
        all.push(("TCP stream, no hash, not encrypted".into(), Box::new(move || Contender::tcp(file, &own("tcp")))));
        all.push((
            "curl from nginx, TLS, no hash".into(),
            Box::new(move || {
                let nginx = curl("nginx", "Debian's package nginx-light")?;
                Contender::curl(&nginx, curl("curl", "Debian's package curl")?, file, &own("curl"))
            }),
        ));
        all.push((
            "sendme".into(),
            Box::new(move || {
                Contender::sendme(sendme("sendme", "`cargo install --locked sendme`")?, file, &own("sendme"))
            }),
        ));
    }
    all.push((
        "rqbit, SHA-1, not encrypted".into(),
        Box::new(move || Contender::rqbit(one("rqbit", "`cargo install --locked rqbit`")?, file, &own("rqbit"), mesh)),
    ));
    all.push((
        "libtorrent, SHA-1, not encrypted".into(),
        Box::new(move || {
            let python = python_with_libtorrent(find("python3").into_iter())?;
            Contender::libtorrent(python, file, &own("libtorrent"), mesh)
        }),
    ));
    // The last to begin, because others open the file to write, and what may have changed is hashed anew.
    all.push((
        "quictrack".into(),
        Box::new(move || Contender::quictrack(share, What::Content(content, NAME), &own("quictrack"), mesh)),
    ));
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()));
    all.retain(|(name, _)| wanted(name));
    all
}

/// What one contender's fetches took.
struct Row {
    wall: f64,
    least: f64,
    cpu: f64,
    resident: u64,
}

impl Row {
    fn of(fetches: &[Fetch], mebibytes: u32) -> Self {
        let mut walls: Vec<f64> = fetches.iter().map(|fetch| fetch.wall.as_secs_f64()).collect();
        let mut cpus: Vec<f64> = fetches.iter().map(|fetch| fetch.cpu).collect();
        let wall = median(&mut walls);
        let least = walls.first().copied().unwrap_or_default();
        let resident = fetches.iter().map(|fetch| fetch.resident).max().unwrap_or(0);
        Self { wall, least, cpu: median(&mut cpus) * 1024.0 / f64::from(mebibytes), resident }
    }
}

/// Where everything lies: in memory if there is such a place, so that no disk is measured.
fn folder() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("quictrack-bench-");
    let in_memory = std::env::var_os("TMPDIR").is_none() && memory.is_dir();
    let folder = if in_memory { builder.tempdir_in(memory) } else { builder.tempdir() };
    folder.context("no place for temporary files")
}

/// Makes a file of random bytes.
fn make_file(path: &Path, mebibytes: u32) -> Result<blake3::Hash> {
    let (mut file, mut hasher) = (fs::File::create(path)?, blake3::Hasher::new());
    let (mut rng, mut block) = (Pcg64Mcg::seed_from_u64(1), vec![0; MIB]);
    for _ in 0..mebibytes {
        rng.fill_bytes(&mut block);
        hasher.update(&block);
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(hasher.finalize())
}

fn hash(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path)?)?;
    Ok(hasher.finalize())
}
