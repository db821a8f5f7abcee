//! The query language against a model of its own: other tables, another parser, a scan in place of an index.
//!
//! The model knows nothing of `overlay::text`, `overlay::query` and `ultrapeer::index`; what it shares with them
//! is a file's entry. It counts Han and kana by characters where the index has bigrams, bounds where the parser
//! has operators, and so on. Both must give the same verdict on every text, with the same position, and the same
//! files for every query, however the files are spread over leaves and chunks, and after changes.

mod generate;
mod model;
mod parse;
mod ranking;
mod text;

use std::{collections::BTreeSet, sync::Arc};

use generate::{NOW_S, Share, any_share, any_text, good_query};
use model::File;
use overlay::{
    file::{FileEntry, Kind, Tags},
    id::ContentId,
    query::Query,
    wire::mesh::ContentKey,
};
use parse::Term;
use proptest::prelude::*;
use rustc_hash::FxHashSet;
use ultrapeer::index::{ChunkSlot, Index, LeafSlot, Lookup, Match, Scope, Segment, Snapshot};

/// Files of leaves in an index, in another one as digests only, and as the model knows them.
struct Bed {
    index: Index,
    digests: Index,
    chunks: Vec<Chunk>,
}

struct Chunk {
    slots: [ChunkSlot; 2],
    leaf: LeafSlot,
    files: Vec<File>,
}

impl Bed {
    fn new() -> Self {
        Self { index: Index::new(), digests: Index::new(), chunks: Vec::new() }
    }

    fn add(&mut self, leaf: u32, share: &Share) {
        for files in share.chunks() {
            self.add_files(leaf, files);
        }
    }

    /// Adds files as one chunk.
    fn add_files(&mut self, leaf: u32, mut files: Vec<FileEntry>) {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let segment = Segment::build(&files).expect("a good chunk");
        let digest = Segment::from_digest(&segment.digest()).expect("a good digest");
        let leaf = LeafSlot(leaf);
        let slots = [self.index.add(leaf, Arc::new(segment)), self.digests.add(leaf, Arc::new(digest))];
        self.chunks.push(Chunk { slots, leaf, files: files.into_iter().map(File::new).collect() });
    }

    fn remove(&mut self, leaf: u32) {
        for chunk in self.chunks.extract_if(.., |chunk| chunk.leaf == LeafSlot(leaf)) {
            self.index.remove(chunk.slots[0]);
            self.digests.remove(chunk.slots[1]);
        }
    }

    /// The last folders of what is found.
    fn found(&mut self, text: &str) -> String {
        self.index.publish();
        self.index.settle();
        let snapshot = self.index.reader().snapshot();
        let query = Query::parse(text).expect("a good query");
        let mut files = snapshot.files();
        let lookup = snapshot.lookup(&query, NOW_S, usize::MAX, u64::MAX);
        let folder = |found| files.read(found)?.path.rsplit('/').nth(1).map(str::to_owned);
        let mut folders: Vec<String> = lookup.matches.into_iter().filter_map(folder).collect();
        folders.sort();
        folders.join(" ")
    }

    /// Compares what is found now with what the model finds.
    fn check(&mut self, texts: &[String]) {
        self.index.publish();
        self.index.settle();
        self.digests.publish();
        self.digests.settle();
        let (whole, digests) = (self.index.reader().snapshot(), self.digests.reader().snapshot());
        for text in texts {
            let Some((query, terms)) = verdict(text) else { continue };
            let ask = |snapshot: &Snapshot, most, work| snapshot.lookup(&query, NOW_S, most, work);
            let all = ask(&whole, usize::MAX, u64::MAX);
            assert!(!all.full && !all.capped, "{text:?}");
            let want = |slot: usize| -> BTreeSet<_> {
                let found = self.chunks.iter().flat_map(|chunk| {
                    let files = chunk.files.iter().enumerate();
                    let found = files.filter(|(_, file)| file.matches(&terms, NOW_S));
                    found.map(move |(position, _)| (chunk.slots[slot].0, position as u16, chunk.leaf.0))
                });
                found.collect()
            };
            assert_eq!(places(&all), want(0), "{text:?}");
            self.check_paths(&whole, &all);
            // A digest may name too many leaves, never too few.
            let of_digests = ask(&digests, usize::MAX, u64::MAX);
            let candidates: BTreeSet<_> = of_digests.candidates.into_iter().collect();
            let holding: BTreeSet<_> = want(1).into_iter().map(|(_, _, leaf)| LeafSlot(leaf)).collect();
            assert!(holding.is_subset(&candidates), "{text:?}: {holding:?} of {candidates:?}");
            // Nor too few contents.
            let listed: BTreeSet<_> = of_digests.listed.into_iter().collect();
            let held = self.contents_of(&terms);
            assert!(held.is_subset(&listed), "{text:?}: {held:?} of {listed:?}");
            assert_eq!(listed.iter().map(|(leaf, _)| *leaf).collect::<BTreeSet<_>>(), candidates);
            check_known(&whole, &query, &all, &held);
            // Filters come before the limit, and what a cap leaves is right.
            let few = ask(&whole, 2, u64::MAX);
            assert_eq!(few.matches, all.matches[..all.matches.len().min(2)], "{text:?}");
            assert!(few.full || all.matches.len() <= 2, "{text:?}");
            let capped = ask(&whole, usize::MAX, all.work / 2);
            assert!(all.matches.starts_with(&capped.matches), "{text:?}");
            assert!(capped.capped || capped.matches == all.matches, "{text:?}");
        }
    }

    /// What each leaf has that matches.
    fn contents_of(&self, terms: &[Term]) -> BTreeSet<(LeafSlot, ContentKey)> {
        let of_chunk = |chunk: &Chunk| {
            let found = chunk.files.iter().filter(|file| file.matches(terms, NOW_S));
            found.map(|file| (chunk.leaf, ContentKey::of(&file.entry.content))).collect::<Vec<_>>()
        };
        self.chunks.iter().flat_map(of_chunk).collect()
    }

    /// The files that are read behind matches are those of the chunk.
    fn check_paths(&self, snapshot: &Snapshot, lookup: &Lookup) {
        let mut files = snapshot.files();
        for found in &lookup.matches {
            let chunk = self.chunks.iter().find(|chunk| chunk.slots[0] == found.chunk).expect("a chunk");
            let view = files.read(*found).expect("a file");
            assert_eq!(view.path, chunk.files[usize::from(found.position)].entry.path);
        }
    }
}

fn places(lookup: &Lookup) -> BTreeSet<(u64, u16, u32)> {
    lookup.matches.iter().map(|Match { chunk, position, leaf }| (chunk.0, *position, leaf.0)).collect()
}

/// Contents that are known are named instead of found.
fn check_known(snapshot: &Snapshot, query: &Query, all: &Lookup, held: &BTreeSet<(LeafSlot, ContentKey)>) {
    let known: FxHashSet<_> = held.iter().map(|(_, key)| *key).step_by(2).collect();
    let scope = Scope { now_s: NOW_S, max_matches: usize::MAX, work_cap: u64::MAX, leaves: None, known: Some(&known) };
    let rest = snapshot.lookup_within(query, scope);
    let mut files = snapshot.files();
    let is_new = |found: &&Match| !known.contains(&ContentKey::of(&files.read(**found).expect("a file").content));
    assert_eq!(rest.matches, all.matches.iter().filter(is_new).copied().collect::<Vec<_>>());
    let of_known = held.iter().filter(|(_, key)| known.contains(key)).copied();
    assert_eq!(rest.known, of_known.collect::<Vec<_>>());
}

/// Both readings of a text, which must agree; `None` if it is no query.
fn verdict(text: &str) -> Option<(Query, Vec<Term>)> {
    match (Query::parse(text), parse::parse(text)) {
        (Ok(query), Ok(terms)) => {
            assert_eq!(query.terms().len(), terms.len(), "{text:?}");
            Some((query, terms))
        }
        (Err(error), Err(position)) => {
            assert_eq!(error.position, position, "{text:?}: {error}");
            None
        }
        (found, want) => panic!("{text:?}: {found:?}, not {want:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6000))]

    #[test]
    fn every_text_is_judged_alike(text in any_text()) {
        verdict(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn the_index_finds_what_a_scan_finds(
        shares in prop::collection::vec(any_share(), 1..5),
        more in any_share(),
        texts in prop::collection::vec(prop_oneof![6 => good_query(), 1 => any_text()], 12),
    ) {
        let mut bed = Bed::new();
        let texts: Vec<String> = texts.into_iter().chain(shares[0].pasted()).collect();
        for (leaf, share) in shares.iter().enumerate() {
            bed.add(leaf as u32, share);
        }
        bed.check(&texts);
        bed.remove(0);
        bed.add(9, &more);
        bed.check(&texts);
        for leaf in 0..10 {
            bed.remove(leaf);
        }
        bed.check(&texts);
        assert_eq!((bed.index.stats().files, bed.index.stats().terms), (0, 0));
    }
}

/// One leaf with a share of everything that the contract speaks of. Each file is named by its last folder.
fn library() -> Bed {
    let file = |path: &str, size, day: i64, tags: Tags| {
        let content = ContentId(std::array::from_fn(|at| path.as_bytes()[at % path.len()]));
        FileEntry { path: path.to_owned(), content, size, modified_s: day * 86_400 + 43_200, tags }
    };
    let text = |text: &str| Some(text.into());
    let plain = |path: &str| file(path, 1000, 20_484, Tags::default());
    let heroes = Tags {
        artist: text("David Bowie"),
        album: text("Heroes"),
        title: text("\"Heroes\" (Live)"),
        genre: text("Art Rock"),
        year: Some(1977),
        track: Some(3),
        bitrate: Some(320),
        duration_s: Some(370),
    };
    let files = [
        file("Music/bowie/03 Heroes-Live.FLAC", 10_000_000, 20_484, heroes),
        file(
            "Music/acdc/AC∕DC - Back in Black.mp3",
            2_000_000_000,
            20_483,
            Tags { year: Some(1980), ..Tags::default() },
        ),
        file("Music/zero/Re：Zero - ep 1 (12\" mix).mp3", 1536, 20_485, Tags::default()),
        plain("Music/motor/Mo\u{308}torhead.ogg"),
        plain("Film/tokyo/東京都の歌 Track01.mkv"),
        plain("Film/gundam/ｶﾞﾝﾀﾞﾑ.mkv"),
        plain("Stuff/source/quictrack-0.1.tar.gz"),
        plain("Stuff/bare/README"),
        plain("Stuff/smile/😀 ﬁnally.txt"),
    ];
    let mut bed = Bed::new();
    bed.add_files(1, files.into());
    bed
}

#[test]
fn the_contract_by_example() {
    let mut bed = library();
    for (query, want) in [
        // text
        ("heroes live", "bowie"),
        ("live heroes", "bowie"),
        ("\"heroes live\"", "bowie"),
        ("\"live heroes\"", ""),
        ("hero", ""),
        ("her*", "bowie"),
        ("-her* kind:audio", "acdc motor zero"),
        ("MOTORHEAD", "motor"),
        ("motörhead", "motor"),
        ("mo\u{308}torhead", "motor"),
        ("music mkv", ""),
        ("film mkv", "gundam tokyo"),
        ("\"film tokyo\"", ""),
        ("rock", "bowie"),
        ("1977", ""),
        ("finally", "smile"),
        ("ﬁnal*", "smile"),
        ("😀 finally", "smile"),
        // Han and kana
        ("東京", "tokyo"),
        ("京都", "tokyo"),
        ("東", "tokyo"),
        ("歌", "tokyo"),
        ("の", "tokyo"),
        ("東都", ""),
        ("東京都の歌track01", "tokyo"),
        ("東京の歌track01", ""),
        ("\"東京都の歌 track01 mkv\"", "tokyo"),
        ("都の歌-track01*", "tokyo"),
        ("ガンダム", "gundam"),
        ("カンタム", "gundam"),
        ("ダム", "gundam"),
        // words of several tokens
        ("AC/DC", "acdc"),
        ("DC/AC", ""),
        ("ac\u{2215}dc", "acdc"),
        ("heroes-live.flac", "bowie"),
        ("-heroes-live kind:audio", "acdc motor zero"),
        ("--heroes kind:audio", "acdc motor zero"),
        ("track01.mk*", "tokyo"),
        // pasted names
        ("AC/DC - Back in Black.mp3", "acdc"),
        ("Re:Zero - ep 1 (12\" mix).mp3", "zero"),
        ("“Heroes” & David Bowie", "bowie"),
        ("\"title:x\" finally", ""),
        ("genre:rock", ""),
        // tags
        ("artist:bowie", "bowie"),
        ("artist:\"david bowie\" title:liv*", "bowie"),
        ("artist:\"bowie david\"", ""),
        ("title:david", ""),
        ("Title:heroes", "bowie"),
        ("-title:heroes kind:audio", "acdc motor zero"),
        // lists
        ("ext:flac,mp3", "acdc bowie zero"),
        ("ext:Flac", "bowie"),
        ("ext:gz", "source"),
        ("ext:tar.gz", ""),
        ("ext:tar", ""),
        ("kind:audio,video -ext:mkv", "acdc bowie motor zero"),
        ("KIND:Audio", "acdc bowie motor zero"),
        ("kind:other", "bare"),
        ("kind:archive", "source"),
        ("-kind:audio,video,document,archive readme", "bare"),
        // comparisons
        ("kind:audio size:>=10MB", "acdc bowie"),
        ("kind:audio size:10MB..", "acdc bowie"),
        ("kind:audio size:>10MB", "acdc"),
        ("kind:audio size:..2gb", "acdc bowie motor zero"),
        ("kind:audio size:<2GB", "bowie motor zero"),
        ("kind:audio size:=1.5KiB", "zero"),
        ("kind:audio size:1kB..1.5KiB", "motor zero"),
        ("kind:audio -size:..1.5KiB", "acdc bowie"),
        ("kind:audio year:1977..1980", "acdc bowie"),
        ("kind:audio -year:1977", "acdc motor zero"),
        ("kind:audio bitrate:>=256", "bowie"),
        ("kind:audio duration:6m..", "bowie"),
        ("kind:audio duration:370", "bowie"),
        ("kind:audio duration:0h6m10s", "bowie"),
        ("kind:audio modified:2026-01-31", "bowie motor"),
        ("kind:audio modified:>2026-01-31", "zero"),
        ("kind:audio modified:<2026-01-31", "acdc"),
        ("kind:audio modified:2026-01-31..", "bowie motor zero"),
        ("kind:audio modified:..2026-01-31", "acdc bowie motor"),
        ("kind:audio modified:<36h", "zero"),
        ("kind:audio modified:>2d", "acdc"),
        ("kind:audio modified:=1d", "bowie motor"),
        ("kind:audio modified:1d..2d", "bowie motor"),
    ] {
        assert_eq!(bed.found(query), want, "{query:?}");
        bed.check(&[query.to_owned()]);
    }
}

#[test]
fn the_table_of_kinds() {
    for (extension, kind) in model::extensions() {
        assert_eq!(Kind::of_name(&format!("x.{}", extension.to_uppercase())).name(), kind, "{extension}");
    }
    assert_eq!(Kind::of_name("mp3").name(), "other");
}
