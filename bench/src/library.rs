//! A leaf with a large library, as its user meets it: the shipped programs, their local HTTP, and what the system says
//! of their memory.

use std::{
    fmt, fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use leaf::{api::types::Share, store::ShareState};
use overlay::{admin::client::Client, report::Status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::{bare::now, clock::thread_time};

/// Words of which names are made.
const WORDS: [&str; 16] = [
    "night", "river", "stone", "golden", "silent", "dream", "winter", "summer", "road", "fire", "ocean", "light",
    "shadow", "moon", "city", "heart",
];
/// Files of a folder, but for one folder.
const FOLDER_FILES: usize = 50;
/// Time between two looks at the leaf.
const LOOK: Duration = Duration::from_millis(100);
/// Time for anything to happen.
const PATIENCE: Duration = Duration::from_mins(30);

/// Makes small files, each with a content of its own: `in_one` of them in one folder, the rest like music.
pub fn make(root: &Path, files: usize, in_one: usize) -> Result<()> {
    let single = root.join("one folder");
    fs::create_dir_all(&single)?;
    let word = |at: usize| WORDS[at % WORDS.len()];
    for at in 0..in_one {
        fs::write(single.join(format!("{at:06} {} {}.jpg", word(at * 7), word(at / 11))), format!("{at} one"))?;
    }
    for at in in_one..files {
        let (album, track) = (at / FOLDER_FILES, at % FOLDER_FILES);
        let (artist, album) = (album / 10, album % 10);
        let folder = root.join(format!("Artist {artist:04} {}/Album {album} {}", word(artist), word(artist + album)));
        if track == 0 || at == in_one {
            fs::create_dir_all(&folder)?;
        }
        let name = format!("{track:02} - {} {} {}.flac", word(track * artist), word(track + album), at % 97);
        fs::write(folder.join(name), format!("{at} other"))?;
    }
    Ok(())
}

/// What was measured.
#[derive(Debug)]
pub struct Report {
    files: u64,
    first_searchable: Duration,
    scanned: Duration,
    slowest_answer: Duration,
    peak: u64,
    after: u64,
    changed: Duration,
    changed_parts: u64,
    changed_bytes: u64,
    database: u64,
    plain_walk: Duration,
    plain_walk_cpu: Duration,
    restart_cpu: Duration,
    restart_ready: Duration,
    restart: Duration,
    restart_peak: u64,
    restart_hashed: u64,
    restart_parts: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let ratio = |time: Duration, other: Duration| time.as_secs_f64() / other.as_secs_f64();
        let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
        let rows = [
            ("first files are searchable", seconds(self.first_searchable)),
            ("all files are hashed and searchable", seconds(self.scanned)),
            ("slowest answer of the local HTTP meanwhile", format!("{} ms", self.slowest_answer.as_millis())),
            ("resident memory of the leaf, at most", mebibytes(self.peak)),
            ("resident memory of the leaf, afterwards", mebibytes(self.after)),
            ("one changed file is searchable after", seconds(self.changed)),
            ("batches sent for it (240 KiB of list each)", self.changed_parts.to_string()),
            ("bytes of list sent for it, compressed", format!("{} KiB", self.changed_bytes >> 10)),
            ("database on the disk, bytes a file", (self.database / self.files.max(1)).to_string()),
            ("a plain walk that looks at each file once", seconds(self.plain_walk)),
            ("restart: ready", seconds(self.restart_ready)),
            ("restart: everything compared, list acknowledged", seconds(self.restart)),
            ("restart: times the plain walk", format!("{:.1}", ratio(self.restart, self.plain_walk))),
            (
                "the same of the time on cores",
                format!("{:.1} ({})", ratio(self.restart_cpu, self.plain_walk_cpu), seconds(self.restart_cpu)),
            ),
            ("restart: resident memory, at most", mebibytes(self.restart_peak)),
            ("restart: bytes hashed, batches sent", format!("{}, {}", self.restart_hashed, self.restart_parts)),
        ];
        rows.iter().try_for_each(|(what, value)| writeln!(f, "{what:<50}{value:>12}"))
    }
}

/// A running program, killed when it is dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    client: Client,
    metrics: SocketAddr,
}

impl Program {
    /// Starts a program of this build with its own data folder, and waits until it is ready.
    ///
    /// # Errors
    /// It was not built, or does not start.
    pub async fn start(name: &str, data: &Path, arguments: &[&str]) -> Result<Self> {
        let folder = std::env::current_exe()?.parent().map(Path::to_owned).context("this program lies nowhere")?;
        let program = folder.join(name);
        ensure!(program.exists(), "{} is missing: run `cargo build --release` first", program.display());
        let mut command = Command::new(program);
        command.args(arguments).arg("--data-dir").arg(data).stdout(Stdio::null()).stderr(Stdio::null());
        command.args(["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--metrics"]);
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = command.arg(port.to_string()).spawn()?;
        let begun = now();
        loop {
            if let Ok(client) = Client::of_data_dir(data) {
                return Ok(Self { child, client, metrics: port });
            }
            ensure!(begun.elapsed() < PATIENCE, "{name} does not start");
            sleep(LOOK).await;
        }
    }

    /// What asks its local HTTP.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How it is doing.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self) -> Result<Status> {
        Ok(self.client.get("status").await?)
    }

    /// True if the share is hashed, and a home has the list.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn is_settled(&self) -> Result<bool> {
        let page: Page = self.client.get("shares").await?;
        let settled = |share: &Share| share.state == ShareState::Watching && share.pending_files == 0;
        let status = self.status().await?;
        let current = status.catalog.is_some_and(|catalog| catalog.current);
        Ok(current && status.ready && !page.items.is_empty() && page.items.iter().all(settled))
    }

    /// Resident bytes now, and at most.
    fn memory(&self) -> Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let of = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
        };
        of("VmRSS").zip(of("VmHWM")).context("the system does not tell memory")
    }

    /// Time that its threads have spent on cores.
    fn cpu_time(&self) -> Result<Duration> {
        let status = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in parentheses, may contain anything.
        let fields = status.rsplit_once(") ").map(|(_, fields)| fields.split(' ')).context("a stat without a name")?;
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        // A hundred a second on every Linux.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// The sum of all series of a metric whose labels contain `label`.
    async fn metric(&self, name: &str, label: &str) -> Result<u64> {
        let mut stream = TcpStream::connect(self.metrics).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
    }

    /// Batches of the list that were sent.
    async fn parts(&self) -> Result<u64> {
        self.metric("quictrack_messages_total{", "catalog_part").await
    }

    /// Bytes of the list that were sent.
    async fn list_bytes(&self) -> Result<u64> {
        self.metric("quictrack_catalog_sent_bytes_total", "").await
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn stop(mut self) -> Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "the program cannot be stopped");
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(serde::Deserialize)]
struct Page {
    items: Vec<Share>,
}

/// Takes a library in with the shipped programs, changes one file, and starts again.
pub async fn measure(share: &Path, folder: &Path) -> Result<Report> {
    let ultrapeer = folder.join("ultrapeer");
    let home = Program::start("quictrack-ultrapeer", &ultrapeer, &["--founder", "--memory", "4GiB"]).await?;
    let quic = home.status().await?.listen.context("the ultrapeer listens nowhere")?.to_string();
    let (data, path) = (folder.join("leaf"), share.to_string_lossy().into_owned());
    let arguments = ["leaf", "--join", &quic, "--share", &path];

    let begun = now();
    let leaf = Program::start("quictrack", &data, &arguments).await?;
    let (mut first_searchable, mut slowest_answer) = (None, Duration::ZERO);
    loop {
        let asked = now();
        let status = leaf.status().await?;
        slowest_answer = slowest_answer.max(asked.elapsed());
        if status.catalog.is_some_and(|catalog| catalog.acknowledged > 0) {
            first_searchable.get_or_insert_with(|| begun.elapsed());
        }
        if leaf.is_settled().await? {
            break;
        }
        wait(begun).await?;
    }
    let scanned = begun.elapsed();
    let (after, peak) = leaf.memory()?;

    let (parts, bytes) = (leaf.parts().await?, leaf.list_bytes().await?);
    let size = |status: &Status| status.shares.as_ref().map(|shares| shares.bytes);
    let before = size(&leaf.status().await?);
    let begun = now();
    change_one(share)?;
    loop {
        let status = leaf.status().await?;
        if size(&status) != before && status.catalog.is_some_and(|catalog| catalog.current) {
            break;
        }
        wait(begun).await?;
    }
    let changed = begun.elapsed();
    let (changed_parts, changed_bytes) = (leaf.parts().await? - parts, leaf.list_bytes().await? - bytes);
    leaf.stop()?;
    ensure!(changed_parts > 0 && changed_bytes > 0, "the change cost nothing: the counters are wrong");
    // Not its length, much of which is a hole.
    let database = fs::metadata(data.join("state.redb"))?.blocks() * 512;

    // Twice: the first fills the system's cache for both.
    plain_walk(share)?;
    let (begun, cpu) = (now(), thread_time());
    let walked = plain_walk(share)?;
    let (plain, plain_cpu) = (begun.elapsed(), thread_time().saturating_sub(cpu));

    let begun = now();
    let leaf = Program::start("quictrack", &data, &arguments).await?;
    let restart_ready = begun.elapsed();
    while !leaf.is_settled().await? {
        wait(begun).await?;
    }
    let (restart, restart_cpu) = (begun.elapsed(), leaf.cpu_time()?);
    let report = Report {
        files: walked,
        first_searchable: first_searchable.unwrap_or(scanned),
        scanned,
        slowest_answer,
        peak,
        after,
        changed,
        changed_parts,
        changed_bytes,
        database,
        plain_walk: plain,
        plain_walk_cpu: plain_cpu,
        restart_cpu,
        restart_ready,
        restart,
        restart_peak: leaf.memory()?.1,
        restart_hashed: leaf.metric("quictrack_hashed_bytes_total", "").await?,
        restart_parts: leaf.parts().await?,
    };
    leaf.stop()?;
    home.stop()?;
    Ok(report)
}

/// Lengthens a file of the first folder that is found.
fn change_one(share: &Path) -> Result<()> {
    let mut folder = share.to_owned();
    loop {
        let entry = fs::read_dir(&folder)?.next().context("an empty folder")??;
        if entry.file_type()?.is_dir() {
            folder = entry.path();
            continue;
        }
        std::io::Write::write_all(&mut fs::File::options().append(true).open(entry.path())?, b"more")?;
        return Ok(());
    }
}

/// Looks at every file below a folder, one after the other; returns how many there are.
fn plain_walk(root: &Path) -> Result<u64> {
    let (mut files, mut folders) = (0, vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.metadata()?.is_dir() {
                folders.push(entry.path());
            } else {
                files += 1;
            }
        }
    }
    Ok(files)
}

async fn wait(begun: Instant) -> Result<()> {
    if begun.elapsed() > PATIENCE {
        bail!("nothing came of it in {} minutes", PATIENCE.as_secs() / 60);
    }
    sleep(LOOK).await;
    Ok(())
}
