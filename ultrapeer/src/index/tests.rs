//! The index against a model that cuts, scans and compares, and shares no code with it.

mod model;

use std::sync::atomic::{AtomicBool, Ordering};

use overlay::{
    file::{FileEntry, Tags},
    id::ContentId,
    limits,
};
use proptest::prelude::*;

use super::{
    rank::{self, LeafFacts, SCORE_MAX, rank},
    *,
};

const NOW_S: i64 = 1_770_000_000;
const DAY_S: i64 = 86_400;

pub(super) fn file(path: &str) -> FileEntry {
    let content = ContentId(std::array::from_fn(|i| path.as_bytes()[i % path.len()]));
    FileEntry { path: path.to_owned(), content, size: 1000, modified_s: NOW_S, tags: Tags::default() }
}

fn segment(files: &mut Vec<FileEntry>) -> Arc<Segment> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Arc::new(Segment::build(files).unwrap())
}

fn index_of(paths: &[&str]) -> (Index, ChunkSlot) {
    let mut index = Index::new();
    let slot = index.add(LeafSlot(7), segment(&mut paths.iter().map(|path| file(path)).collect()));
    index.publish();
    index.settle();
    (index, slot)
}

fn paths(snapshot: &Snapshot, query: &str) -> Vec<String> {
    let query = Query::parse(query).unwrap();
    let lookup = snapshot.lookup(&query, NOW_S, usize::MAX, u64::MAX);
    assert!(!lookup.capped && !lookup.full);
    let mut files = snapshot.files();
    lookup.matches.iter().map(|found| files.read(*found).unwrap().path.to_owned()).collect()
}

#[test]
fn words_phrases_prefixes_and_filters_find_what_they_should() {
    let (index, _) = index_of(&[
        "music/Motörhead/01 Ace of Spades.mp3",
        "music/Motörhead/02 Love Me Like a Reptile.flac",
        "docs/ace/spades of.txt",
        "日本/東京都の歌.ogg",
        "misc/AC_DC.tar.gz",
        "misc/v1. some note",
    ]);
    let snapshot = index.reader().snapshot();
    for (query, want) in [
        ("ace spades", &["docs/ace/spades of.txt", "music/Motörhead/01 Ace of Spades.mp3"][..]),
        ("\"ace of spades\"", &["music/Motörhead/01 Ace of Spades.mp3"]),
        ("ace/spades", &[]),
        ("motorh*", &["music/Motörhead/01 Ace of Spades.mp3", "music/Motörhead/02 Love Me Like a Reptile.flac"]),
        ("motorhead -ace", &["music/Motörhead/02 Love Me Like a Reptile.flac"]),
        ("ace -\"ace of\"", &["docs/ace/spades of.txt"]),
        ("ac/d*", &["misc/AC_DC.tar.gz"]),
        ("ac/dc*", &["misc/AC_DC.tar.gz"]),
        ("ext:gz,txt", &["docs/ace/spades of.txt", "misc/AC_DC.tar.gz"]),
        ("kind:audio -ext:mp3,ogg", &["music/Motörhead/02 Love Me Like a Reptile.flac"]),
        ("kind:other", &["misc/v1. some note"]),
        ("都", &["日本/東京都の歌.ogg"]),
        ("歌", &["日本/東京都の歌.ogg"]),
        ("京都", &["日本/東京都の歌.ogg"]),
        ("東都", &[]),
        ("\"都の歌 ogg\"", &["日本/東京都の歌.ogg"]),
        ("\"spades mp3\"", &["music/Motörhead/01 Ace of Spades.mp3"]),
        ("\"motorhead 01\"", &[]),
        ("ext", &[]),
        ("kin*", &[]),
        ("mot* size:>1000", &[]),
    ] {
        assert_eq!(paths(&snapshot, query), want, "{query}");
    }
}

#[test]
fn a_snapshot_keeps_its_state_and_a_new_one_has_the_change() {
    let (mut index, slot) = index_of(&["a/one.txt", "a/two.txt"]);
    let reader = index.reader();
    let old = reader.snapshot();
    index.remove(slot);
    index.add(LeafSlot(8), segment(&mut vec![file("a/three.txt")]));
    assert_eq!(paths(&reader.snapshot(), "txt").len(), 2, "not yet published");
    index.publish();
    index.settle();
    assert_eq!(paths(&old, "txt").len(), 2);
    assert_eq!(paths(&reader.snapshot(), "txt"), ["a/three.txt"]);
    // The old state is still read, and no publication waits for that.
    index.add(LeafSlot(9), segment(&mut vec![file("a/four.txt")]));
    index.publish();
    index.settle();
    assert_eq!(paths(&reader.snapshot(), "txt").len(), 2);
    assert_eq!(paths(&old, "txt").len(), 2);
}

#[test]
fn many_small_additions_and_removals_leave_few_runs_and_no_memory() {
    let mut index = Index::new();
    let reader = index.reader();
    let mut slots = std::collections::VecDeque::new();
    let mut most = 0;
    for round in 0..3000 {
        slots.push_back(index.add(LeafSlot(round), segment(&mut vec![file(&format!("a/y{round} {}.txt", round % 7))])));
        if slots.len() > 500 {
            index.remove(slots.pop_front().unwrap());
        }
        index.publish();
        index.settle();
        most = most.max(reader.snapshot().runs.len());
    }
    assert!(most < 40, "{most} runs");
    assert_eq!(paths(&reader.snapshot(), "txt").len(), 500);
    assert_eq!(paths(&reader.snapshot(), "y2997"), ["a/y2997 1.txt"]);
    assert!(index.stats().memory < 500 * 1000);
    for slot in slots {
        index.remove(slot);
        index.publish();
        index.settle();
    }
    assert_eq!((index.stats().files, index.stats().terms, reader.snapshot().runs.len()), (0, 0, 0));
}

#[test]
fn an_emptied_index_holds_nothing() {
    let (mut index, slot) = index_of(&["a/one.txt", "b/東京.txt"]);
    assert_eq!(index.stats().files, 2);
    assert!(index.stats().terms > 5 && index.stats().memory > 100);
    index.remove(slot);
    index.publish();
    index.settle();
    let stats = index.stats();
    assert_eq!((stats.files, stats.terms, stats.segments), (0, 0, 0));
    assert_ne!(index.add(LeafSlot(0), segment(&mut vec![file("a/b")])), slot, "slots are not used again");
}

#[test]
fn work_and_matches_end_at_their_caps() {
    let mut index = Index::new();
    for leaf in 0..100 {
        index.add(LeafSlot(leaf), segment(&mut (0..10).map(|n| file(&format!("a/{leaf} {n}.txt"))).collect()));
    }
    index.publish();
    index.settle();
    let snapshot = index.reader().snapshot();
    let query = Query::parse("txt").unwrap();
    let full = snapshot.lookup(&query, NOW_S, 95, u64::MAX);
    assert!((full.matches.len(), full.full, full.capped) == (95, true, false));
    let read = Query::parse("txt size:>1").unwrap();
    let capped = snapshot.lookup(&read, NOW_S, usize::MAX, 1000);
    assert!(capped.capped && !capped.full && (40..=80).contains(&capped.matches.len()));
    let capped = snapshot.lookup(&Query::parse("txt*").unwrap(), NOW_S, usize::MAX, 0);
    assert!(capped.capped && capped.matches.is_empty());
    let all = snapshot.lookup(&query, NOW_S, 1000, u64::MAX);
    assert!((all.matches.len(), all.full, all.capped) == (1000, false, false));
    assert!(all.matches.is_sorted());
}

#[test]
fn malformed_chunks_are_refused() {
    let build = |paths: &[&str]| Segment::build(&paths.iter().map(|path| file(path)).collect::<Vec<_>>()).err();
    assert_eq!(build(&["a/b", "a/a"]), Some(SegmentError::Unordered));
    assert_eq!(build(&["a/a", "a/a"]), Some(SegmentError::Unordered));
    let many: Vec<_> = (0..=limits::CHUNK_FILES).map(|n| file(&format!("a/{n:05}"))).collect();
    assert_eq!(Segment::build(&many).err(), Some(SegmentError::TooManyFiles));
    assert_eq!(Segment::build(&many[..limits::CHUNK_FILES]).unwrap().files(), limits::CHUNK_FILES);
    assert_eq!(build(&[]), None);
}

#[test]
fn a_digest_finds_words_and_leaves_the_rest_to_a_home() {
    let mut files = vec![file("a/ace of spades.mp3"), file("a/spades ace.mp3"), file("a/other.txt")];
    let whole = segment(&mut files);
    let digest = Segment::from_digest(&whole.digest()).unwrap();
    assert_eq!((digest.files(), digest.tokens(), digest.digest()), (3, whole.tokens(), whole.digest()));
    let mut index = Index::new();
    index.add(LeafSlot(3), Arc::new(digest));
    index.add(LeafSlot(4), segment(&mut vec![file("b/ace of base.mp3"), file("b/ace.mp3")]));
    index.publish();
    index.settle();
    let stats = index.stats();
    assert_eq!((stats.files, stats.digest_files, stats.segments, stats.digests), (2, 3, 2, 1));
    let snapshot = index.reader().snapshot();
    for (query, candidate, own) in [
        ("ace", true, 2),
        ("\"ace of\"", true, 1),
        ("\"ace spades\"", true, 0),
        ("title:ace size:>1TB", true, 0),
        ("ext:mp3 -of", true, 1),
        ("spa* -\"ace of\"", true, 0),
        ("ace -spades", false, 2),
        ("base", false, 1),
    ] {
        let query = Query::parse(query).unwrap();
        let lookup = snapshot.lookup(&query, NOW_S, 100, u64::MAX);
        let candidates: &[LeafSlot] = if candidate { &[LeafSlot(3)] } else { &[] };
        assert_eq!((&lookup.candidates[..], lookup.matches.len()), (candidates, own), "{query:?}");
        // Candidates are told even where no more matches are wanted.
        let none = snapshot.lookup(&query, NOW_S, 0, u64::MAX);
        assert_eq!((&none.candidates[..], none.matches.len(), none.full), (candidates, 0, true), "{query:?}");
        let leaves: &dyn Fn(LeafSlot) -> bool = &|leaf| leaf.0 == 4;
        let scope = Scope { now_s: NOW_S, max_matches: 100, work_cap: u64::MAX, leaves: Some(leaves), known: None };
        let of_one = snapshot.lookup_within(&query, scope);
        assert_eq!((of_one.candidates.len(), of_one.matches.len()), (0, own), "{query:?}");
    }
}

#[test]
fn readers_on_other_threads_see_whole_states() {
    // Each round replaces one chunk by another of the same words; a search must always see exactly one.
    let mut index = Index::new();
    let chunk = |round: u32| segment(&mut vec![file(&format!("a/left right {round}.txt"))]);
    let mut slot = index.add(LeafSlot(0), chunk(0));
    index.publish();
    index.settle();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, done) = (index.reader(), &done);
            scope.spawn(move || {
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let snapshot = reader.snapshot();
                    let lookup = snapshot.lookup(&Query::parse("left txt rig*").unwrap(), NOW_S, 10, u64::MAX);
                    assert_eq!(lookup.matches.len(), 1);
                    assert!(lookup.matches[0].leaf.0 >= last, "time runs forward");
                    last = lookup.matches[0].leaf.0;
                }
            });
        }
        for round in 1..2000 {
            index.remove(slot);
            slot = index.add(LeafSlot(round), chunk(round));
            index.publish();
            index.settle();
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(index.stats().files, 1);
}

#[test]
fn contents_are_ranked_by_fit_then_by_sources() {
    let same = |path: &str, content: u8| FileEntry { content: ContentId([content; 32]), ..file(path) };
    let mut index = Index::new();
    let lists: [&[(&str, u8)]; 3] = [
        &[("m/ace.mp3", 1), ("m/x/ace and some more.mp3", 2), ("ace/other.mp3", 3)],
        &[("m/ace.mp3", 1), ("m/ace.flac", 4)],
        &[("n/the ace.mp3", 1)],
    ];
    for (leaf, list) in lists.iter().enumerate() {
        index.add(LeafSlot(leaf as u32), segment(&mut list.iter().map(|(path, id)| same(path, *id)).collect()));
    }
    index.publish();
    index.settle();
    let snapshot = index.reader().snapshot();
    let query = Query::parse("ace").unwrap();
    let lookup = snapshot.lookup(&query, NOW_S, 100, u64::MAX);
    let facts =
        |leaf: LeafSlot| LeafFacts { prefix: u64::from(leaf.0 % 2), free_slots: leaf.0 as u16, ..LeafFacts::default() };
    let groups = rank(&snapshot, &query, &lookup.matches, 100, NOW_S, facts).groups;
    assert_eq!(groups.iter().map(|group| group.content.0[0]).collect::<Vec<_>>(), [1, 4, 2, 3]);
    let best = &groups[0];
    assert_eq!(
        (best.sources, &*best.path, &best.names[..]),
        (3, "m/ace.mp3", &["ace.mp3".to_owned(), "the ace.mp3".to_owned()][..])
    );
    assert_eq!(best.best, [LeafSlot(1), LeafSlot(2), LeafSlot(0)]);
    assert!(groups.iter().all(|group| group.score <= SCORE_MAX));

    // A leaf that lists what it does not have counts as a source after all others, and adds nothing to a score.
    let doubted = |leaf: LeafSlot| LeafFacts { doubted: leaf.0 == 1, ..facts(leaf) };
    let ranked = rank(&snapshot, &query, &lookup.matches, 100, NOW_S, doubted).groups;
    let of =
        |groups: &[rank::Group], content| groups.iter().find(|group| group.content.0[0] == content).unwrap().clone();
    assert_eq!(of(&ranked, 1).best, [LeafSlot(2), LeafSlot(0), LeafSlot(1)]);
    assert_eq!((of(&ranked, 1).networks, of(&ranked, 1).sources), (1, 3));
    assert!(of(&ranked, 4).score < of(&groups, 4).score, "it has only this source");
    assert_eq!(of(&ranked, 2).score, of(&groups, 2).score);
}

/// Words of few letters, so that queries hit.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["ace", "acer", "ac", "a", "spade", "spades", "live", "東京都", "東京", "都", "Élan", "x1"]).prop_map(str::to_owned),
        1 => "[ab]{1,3}",
    ]
}

fn component() -> impl Strategy<Value = String> {
    (prop::collection::vec((word(), prop::sample::select(vec![" ", "-", "_", "."])), 0..3), word())
        .prop_map(|(parts, last)| parts.into_iter().fold(String::new(), |text, (word, gap)| text + &word + gap) + &last)
}

fn text_tag() -> impl Strategy<Value = Option<Box<str>>> {
    prop::option::weighted(0.3, component().prop_map(Into::into))
}

fn any_file() -> impl Strategy<Value = FileEntry> {
    let name = (component(), prop::sample::select(vec!["", ".mp3", ".MP3", ".flac", ".txt", ".a b"]));
    let path = (prop::collection::vec(component(), 1..3), name);
    let tags = (text_tag(), text_tag(), text_tag(), prop::option::of(1998u16..2002), prop::option::of(1u32..4));
    (path, tags, 1u64..5000, 0i64..40, 0u8..6).prop_map(|((folders, (name, extension)), tags, size, age, content)| {
        FileEntry {
            path: format!("{}/{name}{extension}", folders.join("/")),
            content: ContentId([content; 32]),
            size,
            modified_s: NOW_S - age * DAY_S,
            tags: Tags {
                artist: tags.0,
                album: tags.1,
                title: tags.2,
                genre: None,
                year: tags.3,
                track: None,
                bitrate: tags.4.map(|bitrate| bitrate * 100),
                duration_s: tags.4.map(|minutes| minutes * 60),
            },
        }
    })
}

fn any_term() -> impl Strategy<Value = String> {
    let fixed = vec![
        "ext:mp3",
        "ext:mp3,txt",
        "ext:flac",
        "kind:audio",
        "kind:document,other",
        "size:>2500",
        "size:1000..3kB",
        "size:..2000",
        "year:1999",
        "year:>=2000",
        "bitrate:<250",
        "duration:2m..",
        "modified:<10d",
        "modified:5d..20d",
        "modified:>2026-01-20",
        "modified:2026-01-31",
        "ac/d*",
        "a/sp*",
    ];
    let positive = prop_oneof![
        5 => word(),
        2 => (word(), word()).prop_map(|(a, b)| format!("\"{a} {b}\"")),
        1 => (word(), word()).prop_map(|(a, b)| format!("{a}_{b}")),
        1 => prop::sample::select(vec!["ace*", "spa*", "elan*", "ace_spa*"]).prop_map(str::to_owned),
        3 => prop::sample::select(fixed).prop_map(str::to_owned),
        2 => (prop::sample::select(vec!["artist", "album", "title"]), word()).prop_map(|(tag, word)| format!("{tag}:{word}")),
        1 => (word(), word()).prop_map(|(a, b)| format!("title:\"{a} {b}\"")),
    ];
    (prop::bool::weighted(0.25), positive)
        .prop_map(|(negated, term)| format!("{}{term}", if negated { "-" } else { "" }))
}

fn any_query() -> impl Strategy<Value = Query> {
    prop::collection::vec(any_term(), 1..4).prop_filter_map("too broad", |terms| Query::parse(&terms.join(" ")).ok())
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<FileEntry>),
    Remove(prop::sample::Index),
    Publish,
    Ask(Query),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(any_file(), 0..40).prop_map(Step::Add),
        2 => any::<prop::sample::Index>().prop_map(Step::Remove),
        2 => Just(Step::Publish),
        8 => any_query().prop_map(Step::Ask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_index_finds_what_a_scan_finds(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut index = Index::new();
        let reader = index.reader();
        let mut chunks: Vec<(ChunkSlot, LeafSlot, Vec<FileEntry>)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Add(mut files) => {
                    let leaf = LeafSlot(number as u32);
                    let slot = index.add(leaf, segment(&mut files));
                    chunks.push((slot, leaf, files));
                }
                Step::Remove(_) if chunks.is_empty() => {}
                Step::Remove(which) => {
                    let (slot, ..) = chunks.swap_remove(which.index(chunks.len()));
                    index.remove(slot);
                }
                Step::Publish => {
                    index.publish();
                    index.settle();
                }
                Step::Ask(query) => {
                    index.publish();
                    index.settle();
                    let snapshot = reader.snapshot();
                    let lookup = snapshot.lookup(&query, NOW_S, usize::MAX, u64::MAX);
                    prop_assert!(lookup.matches.is_sorted() && !lookup.capped && !lookup.full);
                    let mut files = snapshot.files();
                    let mut found: Vec<(LeafSlot, String)> =
                        lookup.matches.iter().map(|found| (found.leaf, files.read(*found).unwrap().path.to_owned())).collect();
                    found.sort();
                    let mut want: Vec<(LeafSlot, String)> = chunks
                        .iter()
                        .flat_map(|(_, leaf, files)| files.iter().map(move |file| (*leaf, file)))
                        .filter(|(_, file)| model::matches(&query, file, NOW_S))
                        .map(|(leaf, file)| (leaf, file.path.clone()))
                        .collect();
                    want.sort();
                    prop_assert_eq!(found, want, "{}", query);
                }
            }
        }
        index.publish();
        index.settle();
        prop_assert_eq!(index.stats().files, chunks.iter().map(|(.., files)| files.len() as u64).sum::<u64>());
    }

    #[test]
    fn digests_round_trip_and_damaged_ones_never_panic(
        mut files in prop::collection::vec(any_file(), 0..60), at: prop::sample::Index, byte: u8, query in any_query(),
    ) {
        let whole = segment(&mut files);
        let mut bytes = whole.digest();
        prop_assert_eq!(Segment::from_digest(&bytes).unwrap().digest(), bytes.clone());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(damaged) = Segment::from_digest(&bytes) {
            let mut index = Index::new();
            let slot = index.add(LeafSlot(0), Arc::new(damaged));
            index.publish();
            index.settle();
            let _ = index.reader().snapshot().lookup(&query, NOW_S, 100, u64::MAX);
            index.remove(slot);
            index.publish();
            index.settle();
            prop_assert_eq!(index.stats().terms, 0);
        }
    }
}
