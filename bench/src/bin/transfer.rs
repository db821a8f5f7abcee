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
    bare::now,
    contest::{Browsed, Contender, Fetch, Mesh, PLAY, Resident, What, python_with_libtorrent},
    library,
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
    /// Measure this many files of 4 KiB in a folder instead
    #[arg(long, value_name = "FILES", value_parser = clap::value_parser!(u32).range(1..))]
    small: Option<u32>,
    /// Measure what it costs to list this many files of a leaf instead
    #[arg(long, value_name = "FILES", value_parser = clap::value_parser!(u32).range(1..))]
    browse: Option<u32>,
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

/// Bytes of a small file.
const SMALL_BYTES: usize = 4 << 10;

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
    if let Some(files) = options.small {
        return small_files(options, files, folder.path());
    }
    if let Some(files) = options.browse {
        return browse(options, files, folder.path());
    }
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
    Ok(())
}

/// Measures a folder of small files, where round trips and the disk count and not bytes. Beside it the same files are
/// written by a plain loop, one after the other, each forced to the disk before it gets its name.
fn small_files(options: &Options, files: u32, folder: &Path) -> Result<()> {
    let share = folder.join("small");
    fs::create_dir_all(share.join(NAME))?;
    let data = |number: u32| {
        let (mut data, mut rng) = (vec![0; SMALL_BYTES], Pcg64Mcg::seed_from_u64(number.into()));
        rng.fill_bytes(&mut data);
        data
    };
    for number in 0..files {
        fs::write(share.join(NAME).join(format!("{number}")), data(number))?;
    }
    let own = |name: &str| folder.join(name);
    let place = share.join(NAME);
    let programs = Programs::new(options);
    let what = What::Folder(NAME);
    let makers: Vec<(&str, Maker<'_>)> = vec![
        ("sendme", Box::new(|| Contender::sendme(programs.sendme()?, &place, &own("sendme-small")))),
        ("rqbit", Box::new(|| Contender::rqbit(programs.rqbit()?, &place, &own("rqbit-small"), Mesh::PAIR))),
        ("quictrack", Box::new(|| Contender::quictrack(&share, what, &own("quictrack-small"), Mesh::PAIR))),
    ];
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()));
    let mut rows = Vec::new();
    for (name, maker) in makers.into_iter().filter(|(name, _)| wanted(name)) {
        match maker() {
            Ok(contender) => rows.push((name, contender, Vec::new(), Vec::new())),
            Err(error) => println!("{name} is left out: {error:#}"),
        }
    }
    let mut plain = Vec::new();
    for _ in 0..options.rounds {
        plain.push(write_plainly(files, &data, &own("plain"))?);
        for (name, contender, walls, cpus) in &mut rows {
            let (fetch, copies) = contender.fetch(NAME).with_context(|| (*name).to_owned())?;
            let copy = copies.first().context("there is one sink")?;
            for number in 0..files {
                ensure!(fs::read(copy.join(format!("{number}")))? == data(number), "{name}: file {number} is wrong");
            }
            walls.push(fetch.wall.as_secs_f64());
            cpus.push(fetch.cpu);
        }
    }
    println!("{files} files of {SMALL_BYTES} bytes, median of {} rounds", options.rounds);
    println!("{:<40}{:>9}{:>9}{:>9}", "", "wall s", "files/s", "CPU s");
    let wall = median(&mut plain);
    println!("{:<40}{wall:>9.2}{:>9.0}", "write, force to the disk, rename", f64::from(files) / wall);
    for (name, _, mut walls, mut cpus) in rows {
        let wall = median(&mut walls);
        println!("{name:<40}{wall:>9.2}{:>9.0}{:>9.2}", f64::from(files) / wall, median(&mut cpus));
    }
    Ok(())
}

/// Measures the memory of both sides while all files of a leaf are listed, page by page.
fn browse(options: &Options, files: u32, folder: &Path) -> Result<()> {
    let share = folder.join("share");
    library::make(&share.join(NAME), files as usize, files as usize / 5)?;
    let contender = Contender::quictrack(&share, What::Folder(NAME), &folder.join("quictrack"), Mesh::PAIR)?;
    println!("{files} files listed page by page; MiB resident, at first and at most");
    println!("{:>9}{:>9}{:>16}{:>16}{:>16}", "wall s", "files/s", "shares", "asks", "command");
    for _ in 0..options.rounds {
        let Browsed { wall, files: listed, resident } = contender.browse()?;
        ensure!(listed == u64::from(files), "{listed} files were listed");
        let mib = |bytes: u64| bytes >> 20;
        let shown = resident.map(|Resident { before, most }| format!("{} {}", mib(before), mib(most)));
        let [shares, asks, command] = shown;
        let wall = wall.as_secs_f64();
        println!("{wall:>9.2}{:>9.0}{shares:>16}{asks:>16}{command:>16}", f64::from(files) / wall);
    }
    Ok(())
}

/// Seconds that it takes to write files, each forced to the disk before it gets its name.
fn write_plainly(files: u32, data: &dyn Fn(u32) -> Vec<u8>, folder: &Path) -> Result<f64> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let all: Vec<Vec<u8>> = (0..files).map(data).collect();
    let begun = now();
    for (number, data) in all.iter().enumerate() {
        let partial = folder.join("partial");
        let mut file = fs::File::create(&partial)?;
        file.write_all(data)?;
        file.sync_all()?;
        fs::rename(partial, folder.join(format!("{number}")))?;
    }
    fs::File::open(folder)?.sync_all()?;
    Ok(begun.elapsed().as_secs_f64())
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
    let programs = Programs::new(options);
    let mut all: Vec<(String, Maker<'a>)> = Vec::new();
    if mesh == Mesh::PAIR {
        let (curl, sendme) = (programs.clone(), programs.clone());
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
                let nginx = curl.find("nginx", "Debian's package nginx-light")?;
                Contender::curl(&nginx, curl.find("curl", "Debian's package curl")?, file, &own("curl"))
            }),
        ));
        all.push(("sendme".into(), Box::new(move || Contender::sendme(sendme.sendme()?, file, &own("sendme")))));
    }
    let rqbit = programs.clone();
    all.push((
        "rqbit, SHA-1, not encrypted".into(),
        Box::new(move || Contender::rqbit(rqbit.rqbit()?, file, &own("rqbit"), mesh)),
    ));
    all.push((
        "libtorrent, SHA-1, not encrypted".into(),
        Box::new(move || {
            let python = python_with_libtorrent(programs.all("python3"))?;
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

/// Where the programs of others are.
#[derive(Clone, Debug)]
struct Programs(Vec<PathBuf>);

impl Programs {
    fn new(options: &Options) -> Self {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let given = options.rivals.iter().flat_map(|dir| [dir.clone(), dir.join("bin")]);
        let usual = ["/usr/bin".into(), "/usr/sbin".into()];
        Self(given.chain(std::env::split_paths(&paths)).chain(usual).collect())
    }

    /// All programs of that name, the first in the path first.
    fn all(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        self.0.iter().map(move |dir| dir.join(name)).filter(|path| path.is_file())
    }

    fn find(&self, name: &str, source: &str) -> Result<PathBuf> {
        self.all(name).next().with_context(|| format!("{name} is not found; {source} has it"))
    }

    fn sendme(&self) -> Result<PathBuf> {
        self.find("sendme", "`cargo install --locked sendme`")
    }

    fn rqbit(&self) -> Result<PathBuf> {
        self.find("rqbit", "`cargo install --locked rqbit`")
    }
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
