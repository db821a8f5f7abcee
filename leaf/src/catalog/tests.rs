use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<String, FileEntry>;

fn file(path: &str, version: u64) -> FileEntry {
    let content = ContentId(*blake3::hash(format!("{path} {version}").as_bytes()).as_bytes());
    FileEntry { path: path.into(), content, size: version + 1, modified_s: 7, tags: Tags::default() }
}

fn run(folder: u32, count: u32) -> Vec<Change> {
    (0..count).map(|at| Change::Upsert(file(&format!("share/{folder:03}/{at:05}.bin"), 0))).collect()
}

fn all(catalog: &Catalog) -> Vec<FileEntry> {
    catalog.rows_from("").map(Row::into_entry).collect()
}

fn apply_to_model(model: &mut Model, change: &Change) {
    match change {
        Change::Upsert(file) => drop(model.insert(file.path.clone(), file.clone())),
        Change::Remove(path) => drop(model.remove(path)),
        Change::RemoveFolder(folder) => model.retain(|path, _| !path.starts_with(&format!("{folder}/"))),
    }
}

fn assert_invariants(catalog: &Catalog, model: &Model) {
    assert_eq!(all(catalog), model.values().cloned().collect::<Vec<_>>());
    assert_eq!(catalog.files(), model.len() as u64);
    assert_eq!(catalog.bytes(), model.values().map(|file| file.size).sum::<u64>());
    for info in catalog.chunks() {
        assert!(info.files as usize <= limits::CHUNK_FILES && info.files > 0);
        assert!(info.bytes as usize <= limits::CHUNK_BYTES);
        let bytes = catalog.chunk_bytes(&info.hash).unwrap();
        assert_eq!(batch::decode_chunk(bytes).unwrap().len(), info.files as usize);
    }
    let stored = catalog.chunks().map(|info| (info.hash, catalog.chunk_bytes(&info.hash).unwrap().to_vec()));
    let restored = Catalog::restore(catalog.sequence(), stored.collect::<Vec<_>>()).unwrap();
    assert_eq!(restored.root(), catalog.root());
    assert_eq!((restored.files(), restored.bytes()), (catalog.files(), catalog.bytes()));
}

#[test]
fn an_empty_list_has_a_root_and_no_chunks() {
    let catalog = Catalog::new(9);
    assert_eq!((catalog.files(), catalog.sequence(), catalog.chunks().len()), (0, 9, 0));
    assert_eq!(catalog.find("a/b"), None);
    assert_eq!(catalog.browse("", false, None, 10), Some(Page { items: vec![], next: None }));
    assert_eq!(catalog.browse("a", false, None, 10), None);
}

#[test]
fn unlisted_files_are_counted_apart_and_shown_nowhere() {
    let mut catalog = Catalog::new(0);
    let unlisted: Vec<_> = (1..=3).map(|byte| FileEntry::unlisted(ContentId([byte; 32]), 5)).collect();
    // Names that sort before and behind those of unlisted files.
    let listed = ["!first/a", "+/b", "0/c", "music/d"].map(|path| file(path, 0));
    catalog.apply(unlisted.iter().chain(&listed).cloned().map(Change::Upsert).collect());
    assert_eq!((catalog.files(), catalog.bytes(), catalog.unlisted_files()), (4, 4, 3));
    assert_eq!(catalog.unlisted().collect::<Vec<_>>(), unlisted);
    assert_eq!(catalog.share_names(), ["!first", "+", "0", "music"]);
    for limit in [1, 2, 10] {
        for recursive in [true, false] {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let page = catalog.browse("", recursive, after.as_ref(), limit).unwrap();
                seen.extend(page.items.iter().map(|item| item.name().to_owned()));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let want = if recursive { ["a", "b", "c", "d"] } else { ["!first", "+", "0", "music"] };
            assert_eq!(seen, want, "{limit}");
        }
    }
    assert_eq!(catalog.browse(&unlisted[0].path, false, None, 10), None);
    let chunks = catalog.chunks().map(|info| (info.hash, catalog.chunk_bytes(&info.hash).unwrap().to_vec()));
    let restored = Catalog::restore(1, chunks.collect::<Vec<_>>()).unwrap();
    assert_eq!((restored.files(), restored.unlisted_files()), (4, 3));
    assert!(catalog.apply(vec![Change::RemoveFolder("music".into()), Change::Remove(unlisted[1].path.clone())]));
    assert_eq!((catalog.files(), catalog.unlisted_files()), (3, 2));
}

#[test]
fn changes_that_change_nothing_keep_sequence_and_root() {
    let mut catalog = Catalog::new(0);
    assert!(catalog.apply(run(1, 5000)));
    let (sequence, root) = (catalog.sequence(), catalog.root());
    assert!(!catalog.apply(run(1, 5000)));
    assert!(!catalog.apply(vec![Change::Remove("share/none".into()), Change::RemoveFolder("other".into())]));
    assert!(!catalog.apply(vec![Change::Upsert(file("no share", 0))]));
    assert_eq!((catalog.sequence(), catalog.root()), (sequence, root));
}

#[test]
fn one_changed_file_changes_one_chunk() {
    let mut catalog = Catalog::new(0);
    catalog.apply(run(1, 50_000));
    assert!(catalog.chunks().len() <= 50_000 / (limits::CHUNK_FILES / 2) + 1);
    for path in ["share/001/00000.bin", "share/001/25000.bin", "share/001/49999.bin", "share/001/25000x.bin"] {
        let before = catalog.clone();
        assert!(catalog.apply(vec![Change::Upsert(file(path, 1))]));
        assert_eq!(catalog.chunks_since(&before).len(), 1, "{path}");
    }
}

#[test]
fn borders_split_above_and_merge_below() {
    let mut catalog = Catalog::new(0);
    catalog.apply(run(1, limits::CHUNK_FILES as u32));
    assert_eq!(catalog.chunks().len(), 1);
    catalog.apply(vec![Change::Upsert(file("share/002", 0))]);
    assert_eq!(catalog.chunks().len(), 2);
    let removed = |from: u32, to: u32| (from..to).map(|at| Change::Remove(format!("share/001/{at:05}.bin"))).collect();
    catalog.apply(removed(0, 1000));
    assert_eq!(catalog.chunks().len(), 2);
    catalog.apply(removed(1000, 1100));
    assert_eq!(catalog.chunks().len(), 1, "948 and 2049 files fit into one");
    catalog.apply(removed(1100, 4096));
    assert_eq!(catalog.chunks().len(), 1);
    catalog.apply(vec![Change::Remove("share/002".into())]);
    assert_eq!((catalog.chunks().len(), catalog.files()), (0, 0));
}

#[test]
fn long_entries_split_by_bytes() {
    let mut catalog = Catalog::new(0);
    let long = "x".repeat(3000);
    let changes = (0..2000).map(|at| Change::Upsert(file(&format!("share/{at:05}{long}"), 0)));
    catalog.apply(changes.collect());
    assert!(catalog.chunks().len() >= 6);
    assert!(catalog.chunks().all(|info| info.bytes as usize <= limits::CHUNK_BYTES));
}

#[test]
fn a_removed_folder_takes_nothing_else() {
    let mut catalog = Catalog::new(0);
    catalog.apply((1..=9).flat_map(|folder| run(folder, 3000)).collect());
    catalog.apply(vec![Change::Upsert(file("share/005.bin", 0)), Change::Upsert(file("share2/a", 0))]);
    let before = catalog.clone();
    assert!(catalog.apply(vec![Change::RemoveFolder("share/005".into())]));
    assert_eq!(catalog.files(), 8 * 3000 + 2);
    assert!(catalog.find("share/005.bin").is_some());
    assert!(catalog.chunks_since(&before).len() <= 3);
    assert!(catalog.apply(vec![Change::RemoveFolder("share".into())]));
    assert_eq!(catalog.files(), 1);
}

#[test]
fn damaged_stores_are_refused() {
    let mut catalog = Catalog::new(0);
    catalog.apply(run(1, 6000));
    let with_bytes = |info: ChunkInfo| (info.hash, catalog.chunk_bytes(&info.hash).unwrap().to_vec());
    let mut chunks: Vec<_> = catalog.chunks().map(with_bytes).collect();
    chunks.swap(0, 1);
    assert_eq!(Catalog::restore(1, chunks.clone()).unwrap_err(), CatalogError::Order);
    chunks.swap(0, 1);
    chunks[0].1.truncate(1000);
    assert!(matches!(Catalog::restore(1, chunks), Err(CatalogError::Chunk(BatchError::WrongHash))));
    let restored = |bytes: Vec<u8>| Catalog::restore(1, [(batch::chunk_hash(&bytes), bytes)]).unwrap_err();
    assert_eq!(restored(vec![0]), CatalogError::Order);
    assert_eq!(restored(vec![3, 1, 2]), CatalogError::Chunk(BatchError::Malformed));
}

/// Names of a listing; folders end in `/`.
fn names(page: &Page) -> Vec<String> {
    page.items
        .iter()
        .map(|item| match item {
            Item::Folder(folder) => format!("{}/ {} {}", folder.path, folder.files, folder.bytes),
            Item::Entry(file) => file.path.clone(),
        })
        .collect()
}

fn pages(catalog: &Catalog, path: &str, recursive: bool, limit: usize) -> Option<Vec<String>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = catalog.browse(path, recursive, after.as_ref(), limit)?;
        assert!(page.items.len() <= limit);
        found.extend(names(&page));
        after = page.next;
        if after.is_none() {
            return Some(found);
        }
    }
}

#[test]
fn a_folder_lists_folders_first_whatever_the_page() {
    let mut catalog = Catalog::new(0);
    let paths = ["m/a b/1", "m/a.txt", "m/a/1", "m/a/2", "m/b", "m/c/d/e", "m/c/d/f", "n/x"];
    catalog.apply(paths.iter().map(|path| Change::Upsert(file(path, 0))).collect());
    for limit in 1..8 {
        assert_eq!(pages(&catalog, "", false, limit).unwrap(), ["m/ 7 7", "n/ 1 1"]);
        let listed = pages(&catalog, "m", false, limit).unwrap();
        assert_eq!(listed, ["m/a b/ 1 1", "m/a/ 2 2", "m/c/ 2 2", "m/a.txt", "m/b"], "{limit}");
        assert_eq!(pages(&catalog, "m/", true, limit).unwrap(), paths[..7]);
        assert_eq!(pages(&catalog, "", true, limit).unwrap(), paths);
        assert_eq!(pages(&catalog, "m/c", false, limit).unwrap(), ["m/c/d/ 2 2"]);
        assert_eq!(pages(&catalog, "m/b", false, limit).unwrap(), ["m/b"]);
    }
    for missing in ["x", "m/a/3", "m/d", "m/c/d/e/f", "m/a "] {
        assert_eq!(pages(&catalog, missing, false, 5), None, "{missing}");
    }
}

#[test]
fn large_folders_are_counted_across_chunks() {
    let mut catalog = Catalog::new(0);
    catalog.apply((1..=3).flat_map(|folder| run(folder, 9000)).collect());
    let listed = pages(&catalog, "share", false, 2).unwrap();
    assert_eq!(listed, ["share/001/ 9000 9000", "share/002/ 9000 9000", "share/003/ 9000 9000"]);
    assert_eq!(pages(&catalog, "share/002", false, 1000).unwrap().len(), 9000);
}

fn change() -> impl Strategy<Value = Change> {
    let path = (0u32..6, 0u32..3000).prop_map(|(folder, at)| format!("share/{folder:03}/{at:05}.bin"));
    prop_oneof![
        4 => (path.clone(), 0u64..3).prop_map(|(path, version)| Change::Upsert(file(&path, version))),
        3 => path.prop_map(Change::Remove),
        1 => (0u32..6).prop_map(|folder| Change::RemoveFolder(format!("share/{folder:03}"))),
    ]
}

/// A batch: loose changes, or a run of neighbours added or removed.
fn batch_of_changes() -> impl Strategy<Value = Vec<Change>> {
    prop_oneof![
        2 => proptest::collection::vec(change(), 1..20),
        2 => (0u32..6, 1u32..3000).prop_map(|(folder, count)| run(folder, count)),
        1 => (0u32..6, 0u32..3000, 1u32..2500).prop_map(|(folder, from, count)| {
            (from..from + count).map(|at| Change::Remove(format!("share/{folder:03}/{at:05}.bin"))).collect()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_list_is_that_of_a_naive_map(batches in proptest::collection::vec(batch_of_changes(), 1..8)) {
        let (mut catalog, mut model) = (Catalog::new(0), Model::new());
        for batch in batches {
            let before = (catalog.root(), catalog.sequence());
            for change in &batch {
                apply_to_model(&mut model, change);
            }
            let changed = catalog.apply(batch);
            prop_assert_eq!(changed, catalog.sequence() != before.1);
            prop_assert!(changed || catalog.root() == before.0);
            assert_invariants(&catalog, &model);
        }
    }

    #[test]
    fn a_single_change_moves_few_chunks(
        batches in proptest::collection::vec(batch_of_changes(), 1..5),
        changes in proptest::collection::vec(change(), 1..30),
    ) {
        let mut catalog = Catalog::new(0);
        for batch in batches {
            catalog.apply(batch);
        }
        for change in changes {
            let before = catalog.clone();
            // A file that is there keeps its chunk. One that comes or goes may split its chunk in two, or join
            // it to a neighbour and split again. A folder that goes may do that at both its ends.
            let most = match &change {
                Change::Upsert(file) if catalog.find(&file.path).is_some() => 1,
                Change::Upsert(_) | Change::Remove(_) => 2,
                Change::RemoveFolder(_) => 4,
            };
            catalog.apply(vec![change]);
            let new = catalog.chunks_since(&before).len();
            prop_assert!(new <= most, "{new} of at most {most}");
        }
    }
}
