//! The order that people expect, and what is told of a content that many have.

use std::sync::Arc;

use overlay::{
    file::{FileEntry, Tags},
    id::ContentId,
    limits,
    query::Query,
};
use ultrapeer::index::{
    Index, LeafSlot, Match, Segment, Snapshot,
    rank::{Group, LeafFacts, SCORE_MAX, rank},
};

use super::generate::NOW_S;

const YEAR_S: i64 = 365 * 86_400;

fn file(path: &str, content: u8) -> FileEntry {
    FileEntry {
        path: path.to_owned(),
        content: ContentId([content; 32]),
        size: 1000,
        modified_s: NOW_S - YEAR_S,
        tags: Tags::default(),
    }
}

/// A leaf of a network of its own with a free slot.
fn usual(leaf: LeafSlot) -> LeafFacts {
    LeafFacts { prefix: u64::from(leaf.0), free_slots: 1, ..LeafFacts::default() }
}

fn published(leaves: Vec<Vec<FileEntry>>) -> Arc<Snapshot> {
    let mut index = Index::new();
    for (leaf, mut files) in leaves.into_iter().enumerate() {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        index.add(LeafSlot(leaf as u32), Arc::new(Segment::build(&files).expect("a good chunk")));
    }
    index.publish();
    index.reader().snapshot()
}

fn ranked(query: &str, leaves: Vec<Vec<FileEntry>>, facts: impl Fn(LeafSlot) -> LeafFacts) -> Vec<Group> {
    let snapshot = published(leaves);
    let query = Query::parse(query).expect("a good query");
    let mut matches = snapshot.lookup(&query, NOW_S, usize::MAX, u64::MAX).matches;
    let groups = rank(&snapshot, &query, &matches, usize::MAX, NOW_S, &facts).groups;
    assert!(groups.is_sorted_by_key(|group| (std::cmp::Reverse(group.score), group.content)));
    assert!(groups.iter().all(|group| group.score <= SCORE_MAX));
    // Fewer are the best of them.
    let few = rank(&snapshot, &query, &matches, 2, NOW_S, &facts);
    assert_eq!((&few.groups[..], few.contents), (&groups[..groups.len().min(2)], groups.len()));
    // The order of the matches means nothing.
    matches.reverse();
    assert_eq!(rank(&snapshot, &query, &matches, usize::MAX, NOW_S, &facts).groups, groups);
    matches.sort_by_key(|Match { chunk, position, .. }| (*position, *chunk));
    assert_eq!(rank(&snapshot, &query, &matches, usize::MAX, NOW_S, &facts).groups, groups);
    groups
}

/// The contents found, best first; each file is a leaf's.
fn order(query: &str, files: Vec<FileEntry>) -> Vec<u8> {
    let leaves = files.into_iter().map(|file| vec![file]).collect();
    ranked(query, leaves, usual).iter().map(|group| group.content.0[0]).collect()
}

#[test]
fn a_name_that_is_the_query_comes_before_longer_names_and_those_before_folders() {
    let names = [("m/ace and some more words.mp3", 1), ("ace/other.mp3", 2), ("m/ace.mp3", 3)];
    let mut files: Vec<_> = names.map(|(path, content)| file(path, content)).into();
    assert_eq!(order("ace", files.clone()), [3, 1, 2]);
    files.extend((0..50).map(|_| file("ace/other.mp3", 2)));
    assert_eq!(order("ace", files)[0], 3, "however many have the other");
    assert_eq!(
        order("ace", vec![file("m/ace ace ace ace.mp3", 1), file("m/ace x.mp3", 2)]),
        [2, 1],
        "repeating helps not"
    );
}

#[test]
fn words_side_by_side_come_before_the_same_words_apart() {
    let names = [("m/black old night.mp3", 1), ("m/old black night.mp3", 2), ("black night/old old.mp3", 3)];
    assert_eq!(order("black night", names.map(|(path, content)| file(path, content)).into()), [2, 1, 3]);
    assert_eq!(order("東京 black", vec![file("m/東京x black.mp3", 1), file("m/x東京black.mp3", 2)]), [2, 1]);
}

#[test]
fn a_rarer_word_weighs_more() {
    let mut files: Vec<_> = (0..20).map(|n| file(&format!("m/the {n}.mp3"), 100 + n)).collect();
    files.extend([file("zanzibar/the x.mp3", 1), file("the/zanzibar x.mp3", 2)]);
    assert_eq!(order("the zanzibar", files), [2, 1]);
}

#[test]
fn more_networks_and_free_slots_come_first_among_equals() {
    let contents = [1, 2, 2, 2, 3, 3, 3, 4, 4, 4];
    let leaves = contents.map(|content| vec![file("m/ace.mp3", content)]).into();
    let groups = ranked("ace", leaves, |leaf| match leaf.0 {
        4..=6 => LeafFacts { prefix: 0, ..usual(leaf) },
        7..=9 => LeafFacts { free_slots: 0, ..usual(leaf) },
        _ => usual(leaf),
    });
    assert_eq!(groups.iter().map(|group| group.content.0[0]).collect::<Vec<_>>(), [2, 1, 3, 4]);
    assert_eq!(
        groups.iter().map(|group| (group.sources, group.networks)).collect::<Vec<_>>(),
        [(3, 3), (1, 1), (3, 1), (3, 3)]
    );
}

#[test]
fn freshness_decides_between_equals_only() {
    let aged = |path, content, years: i64| FileEntry { modified_s: NOW_S - years * YEAR_S, ..file(path, content) };
    assert_eq!(order("ace", vec![aged("m/ace.mp3", 1, 10), aged("m/ace.mp3", 2, 0)]), [2, 1]);
    let old = || aged("m/ace.mp3", 1, 30);
    assert_eq!(order("ace", vec![old(), old(), aged("m/ace.mp3", 2, 0)]), [1, 2], "a second source weighs more");
    assert_eq!(order("ace", vec![old(), aged("m/ace x.mp3", 2, 0)]), [1, 2], "so does a better name");
    assert_eq!(order("ace", vec![aged("m/ace.mp3", 2, 0), aged("m/ace.mp3", 1, -5)]), [1, 2], "the future is only new");
}

#[test]
fn a_content_is_told_once_with_its_names_and_its_best_sources() {
    let tagged = Tags { artist: Some("x".into()), year: Some(1999), ..Tags::default() };
    let mut leaves: Vec<Vec<FileEntry>> =
        (0..12).map(|n| vec![file(&format!("m/ace {n:02}.mp3"), 1), file("copy/ace 11.mp3", 1)]).collect();
    leaves.push(vec![FileEntry { size: 1, tags: tagged.clone(), ..file("z/ace.ogg", 1) }, file("n/ace.ogg", 1)]);
    let best = LeafSlot(12);
    let groups = ranked("ace", leaves, |leaf| match leaf {
        LeafSlot(12) => LeafFacts { public: true, ..usual(leaf) },
        LeafSlot(3) => LeafFacts { free_slots: 0, public: true, ..usual(leaf) },
        LeafSlot(5) => LeafFacts { prefix: 12, ..usual(leaf) },
        LeafSlot(7) => LeafFacts { queue: 4, ..usual(leaf) },
        LeafSlot(n) => LeafFacts { order: u64::from(100 - n), ..usual(leaf) },
    });
    let [group] = &groups[..] else { panic!("{groups:?}") };
    assert_eq!((group.sources, group.networks, group.size), (13, 12, 1000), "one liar does not set the size");
    assert_eq!(group.names.len(), limits::HIT_NAMES);
    assert_eq!(group.names[..3], ["ace 11.mp3", "ace.ogg", "ace 00.mp3"]);
    assert_eq!(group.best.len(), limits::HIT_PEERS);
    assert_eq!(group.best[..4], [best, LeafSlot(11), LeafSlot(10), LeafSlot(9)]);
    assert!(!group.best.contains(&LeafSlot(3)) && !group.best.contains(&LeafSlot(5)), "busy, and of a known network");
    assert_eq!(group.path, "n/ace.ogg", "at the best source, the first of equals");
    assert_eq!(group.tags, tagged);
    assert_eq!(group.leaves.len(), 13);
    assert_eq!((group.leaves[0], group.leaves[12]), ((LeafSlot(0), Some(2)), (best, Some(1))));
}
