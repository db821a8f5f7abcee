//! How fast a download is, from one source and from three, beside the same bytes on a bare stream and on TCP.
//!
//! The clock of a download runs from the request, with sources that a search has just told, to the finished file:
//! connecting, the slot, pieces, their verification, writing, making durable, the final name. What it
//! is compared with reads, sends, writes and makes durable the same bytes, on a connection that is open.

#![expect(clippy::print_stdout, reason = "results are data")]

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bench::{
    bare::{self, now},
    bed::Bed,
    table::median,
};
use clap::Parser;
use leaf::{
    api::types::SearchRequest,
    download::{
        Event, Request,
        record::{Done, Priority},
    },
    node::Node,
};
use overlay::id::ContentId;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Measures downloads on loopback.
#[derive(Debug, Parser)]
struct Options {
    /// Size of the file, in MiB
    #[arg(default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    size: u32,
    /// Times that everything is measured; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Bytes of a MiB.
const MIB: usize = 1 << 20;
/// The file's name, which is also what is searched for.
const NAME: &str = "measured";
/// What is measured, in the order of one round.
const KINDS: [&str; 4] = ["TCP stream", "QUIC stream, BLAKE3", "download, 1 source", "download, 3 sources"];
/// The kind that the others are compared with: what a download cannot do without.
const UNIT: usize = 1;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let folder = tempfile::Builder::new().prefix("quictrack-bench-").tempdir()?;
    let share = folder.path().join("share");
    std::fs::create_dir(&share)?;
    let file = share.join(NAME);
    let content = make_file(&file, options.size)?;
    let mut rates = [const { Vec::new() }; KINDS.len()];
    for _ in 0..options.rounds {
        let copy = folder.path().join("copy");
        let times = [
            bare::tcp(&file, &copy).await?,
            bare::stream(&file, &copy, content).await?,
            download(&share, 1, content).await?,
            download(&share, 3, content).await?,
        ];
        for (rates, time) in rates.iter_mut().zip(times) {
            rates.push(f64::from(options.size) / time.as_secs_f64());
        }
    }
    println!("{} MiB, median of {} rounds", options.size, options.rounds);
    println!("{:<44}{:>9}{:>9}", "", "MiB/s", "ratio");
    let rates = rates.map(|mut rates| median(&mut rates));
    for (kind, rate) in KINDS.iter().zip(rates) {
        println!("{kind:<44}{rate:>9.0}{:>9.2}", rate / rates[UNIT]);
    }
    println!("ratio: to the QUIC stream");
    Ok(())
}

/// Makes a file of random bytes.
fn make_file(path: &Path, mebibytes: u32) -> Result<blake3::Hash> {
    let (mut file, mut hasher) = (std::fs::File::create(path)?, blake3::Hasher::new());
    let (mut rng, mut block) = (Pcg64Mcg::seed_from_u64(1), vec![0; MIB]);
    for _ in 0..mebibytes {
        rng.fill_bytes(&mut block);
        hasher.update(&block);
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(hasher.finalize())
}

/// Time of a download by a leaf that knows all sources from its search.
async fn download(share: &Path, sources: usize, content: blake3::Hash) -> Result<Duration> {
    let mut shares: Vec<Vec<PathBuf>> = vec![vec![share.to_owned()]; sources];
    shares.push(Vec::new());
    let bed = Bed::start(1, shares).await?;
    let sink = bed.leaves().last().context("a leaf downloads")?;
    let result = fetch(sink, ContentId(*content.as_bytes())).await;
    let (done, elapsed) = result?;
    ensure!(done.sources.len() == sources, "{} of {sources} sources were used", done.sources.len());
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(&done.path)?)?;
    ensure!(hasher.finalize() == content, "the downloaded bytes are wrong");
    bed.stop().await;
    Ok(elapsed)
}

async fn fetch(sink: &Node, content: ContentId) -> Result<(Done, Duration)> {
    let searches = sink.searches();
    let id = searches.start(SearchRequest { query: NAME.to_owned(), ..SearchRequest::default() }).await?;
    searches.finished(&id).await.context("the search was cut short")?;
    let known = searches.known(&content);
    let mut events = sink.downloads().subscribe();
    let request = Request {
        content,
        name: NAME.to_owned(),
        size: known.size,
        output: None,
        priority: Priority::Normal,
        sources: known.sources,
    };
    let begun = now();
    let (job, _) = sink.downloads().add(request).await?;
    loop {
        match events.recv().await? {
            Event::Done(done) if done.id == job.id => return Ok((done, begun.elapsed())),
            Event::Failed(failed) if failed.id == job.id => bail!("the download failed: {:?}", failed.reason),
            _ => {}
        }
    }
}
