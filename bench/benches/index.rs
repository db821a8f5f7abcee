//! The index on a made-up corpus: look-ups, and adding and removing a leaf of 1,000 files.
//!
//! `QUICTRACK_BENCH_FILES` sets the number of files (200,000). Sizes and latencies of single queries,
//! which the harness does not give, go to stderr first.

#![allow(missing_docs, reason = "the harness's macros make undocumented functions")]
#![expect(clippy::print_stderr, reason = "a measurement talks to who runs it")]

use std::{env, hint::black_box, sync::Arc, time::Instant};

use bench::corpus::Corpus;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use overlay::{file::FileEntry, limits, query::Query};
use ultrapeer::index::{ChunkSlot, Index, LeafSlot, Segment, Snapshot};

/// 2026-02-02 in seconds since 1970 UTC.
const NOW_S: i64 = 1_770_000_000;
/// Matches of one look-up.
const MATCHES: usize = 200;

struct World {
    index: Index,
    corpus: Corpus,
    mix: Vec<Query>,
    hard: Vec<Query>,
}

fn world() -> World {
    let files: usize = env::var("QUICTRACK_BENCH_FILES").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000);
    let (mut corpus, mut index) = (Corpus::new(1), Index::new(7));
    let (mut sample, mut count, mut leaf): (Vec<FileEntry>, _, _) = (Vec::new(), 0, 0);
    while count < files {
        let list = corpus.leaf();
        count += list.len();
        sample.extend(list.iter().step_by(37).cloned());
        add(&mut index, leaf, &list);
        leaf += 1;
    }
    index.publish();
    let parse = |text: String| Query::parse(&text).expect("made queries are well formed");
    let mix = (0..10_000).map(|_| parse(corpus.query(&sample))).collect();
    let hard = (0..1_000).map(|_| parse(corpus.hard_query())).collect();
    report_sizes(&index);
    World { index, corpus, mix, hard }
}

fn add(index: &mut Index, leaf: u32, files: &[FileEntry]) -> Vec<ChunkSlot> {
    let chunks = files.chunks(limits::CHUNK_FILES);
    chunks.map(|files| index.add(LeafSlot(leaf), Arc::new(Segment::build(files).expect("a sorted chunk")))).collect()
}

fn report_sizes(index: &Index) {
    let stats = index.stats();
    let per_file = |bytes: u64| bytes as f64 / stats.files as f64;
    eprintln!(
        "{} files, {} segments, {} terms: {:.1} bytes a file, {:.1} of them words and routes",
        stats.files,
        stats.segments,
        stats.terms,
        per_file(stats.memory),
        per_file(stats.memory - stats.file_memory),
    );
}

fn look_up(snapshot: &Snapshot, query: &Query) -> usize {
    snapshot.lookup(query, NOW_S, MATCHES, limits::LOOKUP_WORK).matches.len()
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn report_latencies(name: &str, snapshot: &Snapshot, queries: &[Query]) {
    let mut times: Vec<_> = queries
        .iter()
        .map(|query| {
            let start = Instant::now();
            black_box(look_up(snapshot, query));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    eprintln!("{name}: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}", at(50), at(90), at(99), at(100));
}

fn index(criterion: &mut Criterion) {
    let World { mut index, mut corpus, mix, hard } = world();
    for (name, queries) in [("mix", &mix), ("hard", &hard)] {
        let snapshot = index.reader().snapshot();
        report_latencies(name, &snapshot, queries);
        let mut next = (0..queries.len()).cycle();
        criterion.bench_function(&format!("index/lookup {name}"), |bencher| {
            bencher.iter(|| look_up(&snapshot, &queries[next.next().expect("endless")]));
        });
    }
    let list = corpus.leaf_of(1_000);
    criterion.bench_function("index/build 1000 files", |bencher| {
        bencher.iter(|| Segment::build(black_box(&list)));
    });
    let segment = Arc::new(Segment::build(&list).expect("a sorted chunk"));
    criterion.bench_function("index/add and remove 1000 files", |bencher| {
        bencher.iter_batched(
            || Arc::clone(&segment),
            |segment| {
                let slot = index.add(LeafSlot(0), segment);
                index.publish();
                index.remove(slot);
                index.publish();
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, index);
criterion_main!(benches);
