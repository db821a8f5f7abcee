use std::{fs, sync::atomic::Ordering};

use super::*;
use crate::store::{
    pass::{self, Pass, PassRoot, Progress},
    scan,
};

/// A leaf's folders, and its shares while they run.
struct Leaf {
    folder: tempfile::TempDir,
    config: SharesConfig,
    running: Option<(Shares, JoinHandle<()>, CancellationToken)>,
}

impl Leaf {
    fn new(shares: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = SharesConfig {
            shares: Vec::new(),
            exclude: vec!["*.part".into()],
            rescan_interval: Duration::from_hours(1),
            hash_threads: 2,
            downloads: folder.path().join("downloads"),
            share_downloads: false,
        };
        let mut leaf = Self { folder, config, running: None };
        for share in shares {
            fs::create_dir_all(leaf.at(share)).unwrap();
            let spec = ShareSpec { path: leaf.at(share), origin: Origin::Settings };
            leaf.config.shares.push(spec);
        }
        leaf
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    async fn start(&mut self) -> Shares {
        let (database, _) = Database::open(&self.at("state.redb")).unwrap();
        let cancel = CancellationToken::new();
        let outboards = Outboards::new(self.at("outboards"));
        let (shares, task) = Shares::start(self.config.clone(), Arc::new(database), outboards, cancel.clone()).unwrap();
        self.running = Some((shares.clone(), task, cancel));
        shares.settled(None).await;
        shares
    }

    async fn stop(&mut self) {
        let (shares, task, cancel) = self.running.take().unwrap();
        cancel.cancel();
        task.await.unwrap();
        drop(shares);
    }
}

fn paths(shares: &Shares) -> Vec<String> {
    let page = shares.catalog().browse("", true, None, 1000).unwrap();
    page.items
        .into_iter()
        .map(|item| match item {
            crate::catalog::Item::Entry(file) => file.path,
            crate::catalog::Item::Folder(folder) => folder.path,
        })
        .collect()
}

fn hashed_files(shares: &Shares) -> u64 {
    shares.shared.states().values().map(|state| state.progress.hashed_files.load(Ordering::Relaxed)).sum()
}

fn id(text: &str) -> ContentId {
    ContentId(*blake3::hash(text.as_bytes()).as_bytes())
}

/// What is found by its content without being in a search.
fn unlisted(shares: &Shares) -> Vec<ContentId> {
    shares.catalog().unlisted().map(|file| file.content).collect()
}

/// Waits for a published catalog with these unlisted files.
async fn until_unlisted(shares: &Shares, wanted: &[ContentId]) {
    let mut published = shares.watch_catalog();
    let become_so = async {
        while unlisted(shares) != wanted {
            published.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), become_so).await.unwrap();
}

async fn rescan(shares: &Shares) {
    shares.rescan().await.unwrap();
    shares.settled(None).await;
}

fn finished(path: PathBuf, content: ContentId, pieces: Vec<Value>) -> Finished {
    Finished { path, content, pieces }
}

#[tokio::test]
async fn files_are_hashed_listed_and_served() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/a/one", "1");
    leaf.write("music/two", "22");
    leaf.write("music/empty", "");
    leaf.write("music/x.part", "p");
    let shares = leaf.start().await;
    assert_eq!(paths(&shares), ["music/a/one", "music/two"]);
    let list = shares.list();
    assert_eq!(list.len(), 1);
    assert_eq!((&*list[0].name, list[0].state, list[0].files, list[0].bytes), ("music", ShareState::Watching, 2, 3));
    assert_eq!(list[0].skipped, 2);
    let skipped = shares.skipped();
    assert!(skipped.iter().any(|file| file.path.ends_with("empty") && file.reason == SkipReason::Empty));
    assert!(skipped.iter().any(|file| file.path.ends_with("x.part") && file.reason == SkipReason::Excluded));
    let served = shares.open(id("22")).await.unwrap().unwrap();
    assert_eq!((served.size, served.path), (2, leaf.at("music/two")));
    assert_eq!(shares.pieces(id("22"), 2).await.unwrap(), Some(vec![id("22").0]));
    assert!(shares.open(id("other")).await.unwrap().is_none());
    let json = serde_json::to_value(&list[0]).unwrap();
    assert_eq!((json["state"].as_str(), json["origin"].as_str()), (Some("watching"), Some("settings")));
    leaf.stop().await;
}

#[tokio::test]
async fn a_restart_hashes_nothing_and_keeps_the_list() {
    let mut leaf = Leaf::new(&["music"]);
    for at in 0..50 {
        leaf.write(&format!("music/{}/{at}", at % 3), &format!("text {at}"));
    }
    let shares = leaf.start().await;
    let (root, sequence) = (shares.catalog().root(), shares.catalog().sequence());
    assert_eq!(hashed_files(&shares), 50);
    drop(shares);
    leaf.stop().await;
    let shares = leaf.start().await;
    assert_eq!(hashed_files(&shares), 0);
    assert_eq!((shares.catalog().root(), shares.catalog().sequence()), (root, sequence));
    rescan(&shares).await;
    assert_eq!((hashed_files(&shares), shares.catalog().sequence()), (0, sequence));
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn changes_renames_and_deletions_are_found() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/a/one", "1");
    leaf.write("music/a/two", "2");
    leaf.write("music/keep", "k");
    let shares = leaf.start().await;
    leaf.write("music/a/two", "changed");
    fs::rename(leaf.at("music/a"), leaf.at("music/b")).unwrap();
    fs::remove_file(leaf.at("music/keep")).unwrap();
    rescan(&shares).await;
    assert_eq!(paths(&shares), ["music/b/one", "music/b/two"]);
    assert_eq!(hashed_files(&shares), 4, "a renamed file is not hashed again");
    assert!(shares.open(id("2")).await.unwrap().is_none());
    assert!(shares.open(id("changed")).await.unwrap().is_some());
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn a_new_file_is_found_without_a_rescan() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/one", "1");
    let shares = leaf.start().await;
    let mut published = shares.watch_catalog();
    published.borrow_and_update();
    leaf.write("music/new/two", "2");
    published.changed().await.unwrap();
    assert_eq!(paths(&shares), ["music/new/two", "music/one"]);
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn what_is_compared_is_scanned_and_not_hashed() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/one", "1");
    leaf.write("music/two", "2");
    let shares = leaf.start().await;
    // Another pass works on the disk.
    let lane = shares.shared.lanes.enter(pass::device_of(&leaf.at("music")), &CancellationToken::new());
    shares.rescan().await.unwrap();
    shares.until(|| shares.shared.states().values().any(|state| state.running)).await;
    assert_eq!(shares.list()[0].state, ShareState::Scanning);
    drop(lane);
    shares.settled(None).await;
    assert_eq!(shares.list()[0].state, ShareState::Watching);
    // The pass has seen everything, and cannot record that something is gone.
    fs::remove_file(leaf.at("music/two")).unwrap();
    let blocked = shares.shared.database.write().unwrap();
    let beats = |state: &state::State| state.progress.beats.load(Ordering::Relaxed);
    let before: u64 = shares.shared.states().values().map(beats).sum();
    shares.rescan().await.unwrap();
    let has_walked = || {
        let states = shares.shared.states();
        let walks = states.values().any(|state| state.progress.walking.load(Ordering::Relaxed));
        !walks && states.values().map(beats).sum::<u64>() > before
    };
    while !has_walked() {
        tokio::task::yield_now().await;
    }
    assert_eq!(shares.list()[0].state, ShareState::Scanning);
    drop(blocked);
    shares.settled(None).await;
    assert_eq!((shares.list()[0].state, paths(&shares)), (ShareState::Watching, vec!["music/one".into()]));
    // What is new is hashed.
    leaf.write("music/three", "3");
    let blocked = shares.shared.database.write().unwrap();
    shares.rescan().await.unwrap();
    while shares.list()[0].state != ShareState::Hashing {
        tokio::task::yield_now().await;
    }
    drop(blocked);
    shares.settled(None).await;
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn a_drive_that_does_not_answer_costs_its_share_and_is_taken_back() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/one", "1");
    let shares = leaf.start().await;
    leaf.write("music/two", "2");
    // The pass hangs where it writes: for the driver that is any step that never ends.
    let blocked = shares.shared.database.write().unwrap();
    shares.rescan().await.unwrap();
    tokio::time::pause();
    shares.until(|| shares.list()[0].state == ShareState::Missing).await;
    assert!(shares.shared.states().values().any(|state| state.stuck && state.running), "the pass is still there");
    // The task lives and takes commands.
    shares.rescan().await.unwrap();
    tokio::time::resume();
    drop(blocked);
    shares.until(|| shares.list()[0].state == ShareState::Watching).await;
    shares.settled(None).await;
    assert_eq!(paths(&shares), ["music/one", "music/two"]);
    assert_eq!(hashed_files(&shares), 2);
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn what_is_listed_without_a_record_leaves_the_list() {
    let mut leaf = Leaf::new(&["music"]);
    for file in ["a", "b/c", "z"] {
        leaf.write(&format!("music/{file}"), file);
    }
    let shares = leaf.start().await;
    drop(shares);
    leaf.stop().await;
    // As if the program had ended between the record and the list.
    let (database, _) = Database::open(&leaf.at("state.redb")).unwrap();
    let id = database.roots().unwrap().into_iter().find(|(_, root)| root.name == "music").unwrap().1.id;
    database.update_files(id, &[], &[b"b/c".to_vec(), b"z".to_vec()]).unwrap();
    drop(database);
    fs::remove_file(leaf.at("music/b/c")).unwrap();
    let shares = leaf.start().await;
    assert_eq!(paths(&shares), ["music/a", "music/z"]);
    assert_eq!(hashed_files(&shares), 1, "what is still there is hashed again");
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn a_share_beyond_the_limit_of_watches_says_so_until_it_is_watched() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/one", "1");
    let shares = leaf.start().await;
    assert!(shares.list()[0].watching && shares.beyond_watch_limit().is_empty());
    let report = |coverage| pass::Report { coverage, ..pass::Report::default() };
    let take = |parts: &[&str], coverage| {
        let parts: Vec<_> = parts.iter().map(PathBuf::from).collect();
        let mut states = shares.shared.states();
        states.values_mut().find(|state| state.origin.is_some()).unwrap().take_report(&parts, report(coverage));
    };
    take(&["part"], Coverage::Limited);
    take(&["other"], Coverage::Whole);
    assert!(!shares.list()[0].watching);
    assert_eq!(shares.beyond_watch_limit(), ["music"]);
    rescan(&shares).await;
    assert!(shares.list()[0].watching && shares.beyond_watch_limit().is_empty());
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn a_folder_that_comes_and_moves_is_followed() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/a/b/one", "1");
    let shares = leaf.start().await;
    let mut published = shares.watch_catalog();
    let mut listed = async |wanted: &[&str]| {
        while paths(&shares) != wanted {
            published.changed().await.unwrap();
        }
    };
    fs::rename(leaf.at("music/a"), leaf.at("music/x")).unwrap();
    listed(&["music/x/b/one"]).await;
    leaf.write("music/x/b/two", "2");
    listed(&["music/x/b/one", "music/x/b/two"]).await;
    leaf.write("music/new/deep/three", "3");
    listed(&["music/new/deep/three", "music/x/b/one", "music/x/b/two"]).await;
    leaf.write("music/new/deep/four", "4");
    listed(&["music/new/deep/four", "music/new/deep/three", "music/x/b/one", "music/x/b/two"]).await;
    fs::remove_dir_all(leaf.at("music/x")).unwrap();
    listed(&["music/new/deep/four", "music/new/deep/three"]).await;
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn a_share_that_vanishes_comes_back_unhashed() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/one", "1");
    let shares = leaf.start().await;
    fs::rename(leaf.at("music"), leaf.at("elsewhere")).unwrap();
    rescan(&shares).await;
    assert_eq!(paths(&shares), [""; 0]);
    assert_eq!(shares.list()[0].state, ShareState::Missing);
    assert!(shares.open(id("1")).await.unwrap().is_none());
    fs::rename(leaf.at("elsewhere"), leaf.at("music")).unwrap();
    rescan(&shares).await;
    assert_eq!((paths(&shares), hashed_files(&shares)), (vec!["music/one".into()], 1));
    assert_eq!(shares.list()[0].state, ShareState::Watching);
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn a_share_whose_drive_is_away_keeps_its_list() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/one", "1");
    let shares = leaf.start().await;
    let sequence = shares.catalog().sequence();
    // As if it had lain on another device, which is not mounted now.
    for state in shares.shared.states().values_mut() {
        state.device = Some(u64::MAX);
    }
    fs::rename(leaf.at("music"), leaf.at("elsewhere")).unwrap();
    rescan(&shares).await;
    assert_eq!((shares.list()[0].state, paths(&shares)), (ShareState::Missing, vec!["music/one".into()]));
    fs::rename(leaf.at("elsewhere"), leaf.at("music")).unwrap();
    rescan(&shares).await;
    assert_eq!((shares.list()[0].state, shares.catalog().sequence()), (ShareState::Watching, sequence));
    assert_eq!(hashed_files(&shares), 1);
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn one_changed_file_changes_one_chunk() {
    let mut leaf = Leaf::new(&["music"]);
    fs::create_dir_all(leaf.at("music/all")).unwrap();
    for at in 0..limits::CHUNK_FILES + 200 {
        fs::write(leaf.at(&format!("music/all/{at}")), at.to_string()).unwrap();
    }
    let shares = leaf.start().await;
    let before = shares.catalog();
    assert!(before.chunks().len() > 1);
    leaf.write("music/all/77", "changed");
    rescan(&shares).await;
    let after = shares.catalog();
    assert_eq!((after.chunks_since(&before).len(), before.chunks_since(&after).len()), (1, 1));
    assert_eq!(hashed_files(&shares), before.files() + 1);
    drop((shares, before, after));
    leaf.stop().await;
}

#[tokio::test]
async fn shares_are_added_named_and_removed() {
    let mut leaf = Leaf::new(&["x/music"]);
    leaf.write("x/music/one", "1");
    leaf.write("y/music/two", "2");
    leaf.config.shares[0].origin = Origin::CommandLine;
    let shares = leaf.start().await;
    let spec = ShareSpec { path: leaf.at("y/music/"), origin: Origin::Settings };
    let added = shares.add(spec.clone()).await.unwrap();
    assert_eq!((&*added.name, added.state), ("music (2)", ShareState::Scanning));
    assert_eq!(shares.add(spec).await.unwrap().name, "music (2)");
    shares.settled(Some("music (2)")).await;
    assert_eq!(paths(&shares), ["music (2)/two", "music/one"]);
    let missing = ShareSpec { path: leaf.at("none"), origin: Origin::Settings };
    assert!(matches!(shares.add(missing).await, Err(SharesError::NoFolder { .. })));
    assert!(matches!(shares.remove("music").await, Err(SharesError::Conflict { .. })));
    assert!(matches!(shares.remove("none").await, Err(SharesError::Unknown { .. })));
    let path = leaf.at("y/music").to_string_lossy().into_owned();
    assert_eq!(shares.remove(&path).await.unwrap().name, "music (2)");
    shares.settled(None).await;
    assert_eq!(paths(&shares), ["music/one"]);
    assert!(shares.open(id("2")).await.unwrap().is_none());
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn a_damaged_database_costs_a_scan_and_nothing_else() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/one", "1");
    let shares = leaf.start().await;
    let (root, sequence) = (shares.catalog().root(), shares.catalog().sequence());
    drop(shares);
    leaf.stop().await;
    fs::write(leaf.at("state.redb"), b"broken".repeat(1000)).unwrap();
    let shares = leaf.start().await;
    assert_eq!(shares.catalog().root(), root);
    assert!(shares.catalog().sequence() > sequence, "homes believe the higher sequence");
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn a_download_is_served_but_listed_only_on_demand() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("downloads/got", "got");
    leaf.write("downloads/stranger", "s");
    let shares = leaf.start().await;
    shares.add_downloads(vec![finished(leaf.at("downloads/got"), id("got"), vec![id("got").0])]).await.unwrap();
    assert!(shares.open(id("got")).await.unwrap().is_some());
    assert!(shares.open(id("s")).await.unwrap().is_none());
    shares.settled(None).await;
    assert_eq!((paths(&shares), shares.list().len()), (vec![], 1));
    assert_eq!(unlisted(&shares), [id("got")]);
    leaf.config.share_downloads = true;
    shares.configure(leaf.config.clone()).await.unwrap();
    shares.settled(None).await;
    until_unlisted(&shares, &[]).await;
    assert_eq!(paths(&shares), ["downloads/got", "downloads/stranger"]);
    assert_eq!(hashed_files(&shares), 1, "only what was not downloaded is hashed");
    leaf.config.share_downloads = false;
    shares.configure(leaf.config.clone()).await.unwrap();
    shares.settled(None).await;
    assert_eq!(paths(&shares), [""; 0]);
    until_unlisted(&shares, &[id("got")]).await;
    assert!(shares.open(id("got")).await.unwrap().is_some());
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn a_download_is_served_from_wherever_it_was_put_until_it_is_another_file() {
    let mut leaf = Leaf::new(&["music"]);
    let large = "x".repeat(300_000);
    let (elsewhere, changed) = (leaf.at("else/where"), leaf.at("else/changed"));
    leaf.write("else/where", &large);
    leaf.write("else/changed", "old");
    let shares = leaf.start().await;
    let pieces = |text: &str| {
        let mut hasher = overlay::verify::PieceHasher::new(text.len() as u64).unwrap();
        hasher.update(text.as_bytes()).unwrap();
        hasher.finish().unwrap().pieces
    };
    shares.add_downloads(vec![finished(elsewhere.clone(), id(&large), pieces(&large))]).await.unwrap();
    shares.add_downloads(vec![finished(changed.clone(), id("old"), pieces("old"))]).await.unwrap();
    drop(shares);
    leaf.stop().await;

    let shares = leaf.start().await;
    assert_eq!(shares.open(id(&large)).await.unwrap().map(|served| served.path), Some(elsewhere.clone()));
    assert_eq!(shares.pieces(id(&large), 300_000).await.unwrap(), Some(pieces(&large)));
    assert_eq!(paths(&shares), [""; 0], "it is in no list");
    let mut both = [id(&large), id("old")];
    both.sort_unstable();
    assert_eq!(unlisted(&shares), both);
    fs::write(&changed, "new!").unwrap();
    assert!(shares.open(id("old")).await.unwrap().is_none());
    until_unlisted(&shares, &[id(&large)]).await;
    assert_eq!(shares.contents_from(Vec::new(), 9).await.unwrap(), [id(&large)]);
    // A disk that is not mounted comes back; a file that was removed does not.
    fs::rename(leaf.at("else"), leaf.at("away")).unwrap();
    assert!(shares.open(id(&large)).await.unwrap().is_none());
    fs::rename(leaf.at("away"), leaf.at("else")).unwrap();
    assert!(shares.open(id(&large)).await.unwrap().is_some());
    fs::remove_file(&elsewhere).unwrap();
    drop(shares);
    leaf.stop().await;
    let shares = leaf.start().await;
    assert!(shares.open(id(&large)).await.unwrap().is_none());
    until_unlisted(&shares, &[]).await;
    assert!(!leaf.at("outboards").join(&id(&large).to_string()[..2]).join(id(&large).to_string()).exists());
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn piece_values_of_small_files_are_read_when_wanted() {
    let mut leaf = Leaf::new(&["music"]);
    let text = "x".repeat(300_000);
    leaf.write("music/small", &text);
    let shares = leaf.start().await;
    assert!(!leaf.at("outboards").exists());
    let pieces = shares.pieces(id(&text), 300_000).await.unwrap().unwrap();
    assert_eq!(overlay::verify::content_of_pieces(300_000, &pieces), Ok(id(&text)));
    assert_eq!(shares.pieces(id(&text), 300_001).await.unwrap(), None);
    // Other bytes of the same size and time: the values do not fit, and the file is hashed again.
    let modified = fs::metadata(leaf.at("music/small")).unwrap().modified().unwrap();
    let other = "y".repeat(300_000);
    leaf.write("music/small", &other);
    File::options().write(true).open(leaf.at("music/small")).unwrap().set_modified(modified).unwrap();
    assert_eq!(shares.pieces(id(&text), 300_000).await.unwrap(), None);
    rescan(&shares).await;
    assert_eq!(shares.pieces(id(&other), 300_000).await.unwrap().map(|pieces| pieces.len()), Some(2));
    drop(shares);
    leaf.stop().await;
}

#[tokio::test]
async fn a_damaged_outboard_of_a_large_file_is_made_again() {
    let mut leaf = Leaf::new(&["music"]);
    leaf.write("music/large", "x");
    let size = overlay::verify::LARGE_FILE_BYTES;
    File::options().write(true).open(leaf.at("music/large")).unwrap().set_len(size).unwrap();
    let shares = leaf.start().await;
    let content = shares.catalog().find("music/large").unwrap().content;
    let outboards = Outboards::new(leaf.at("outboards"));
    assert!(outboards.load(content, size).unwrap().is_some());
    outboards.remove(content).unwrap();
    assert_eq!(shares.pieces(content, size).await.unwrap(), None);
    rescan(&shares).await;
    assert_eq!(shares.pieces(content, size).await.unwrap().map(|pieces| pieces.len()), Some(64));
    drop(shares);
    leaf.stop().await;
}

#[test]
fn a_cancelled_pass_keeps_what_it_committed() {
    let leaf = Leaf::new(&["music"]);
    for at in 0..40 {
        leaf.write(&format!("music/{at:02}"), &format!("text {at}"));
    }
    let (database, _) = Database::open(&leaf.at("state.redb")).unwrap();
    let outboards = Outboards::new(leaf.at("outboards"));
    let path = fs::canonicalize(leaf.at("music")).unwrap();
    let root = PassRoot { id: 1, name: "music".into(), exclude: scan::exclude(&path, &[]).0, path };
    let run = |parts: &[PathBuf], cancel: &CancellationToken| {
        let progress = Progress::default();
        // The first commit cancels the pass.
        let publish = |_| cancel.cancel();
        let pass = Pass {
            root: &root,
            database: &database,
            outboards: &outboards,
            threads: 1,
            progress: &progress,
            cancel,
            follower: None,
            list: &Mutex::default(),
            publish: &publish,
        };
        let report = pass.run(parts).unwrap();
        (report.cancelled, progress.hashed_files.load(Ordering::Relaxed))
    };
    let on_record = || database.paths_below(1, b"", None, 100, |_, _| true).unwrap().0.len() as u64;
    let all = [PathBuf::new()];
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    assert_eq!((run(&all, &cancelled), on_record()), ((true, 0), 0));
    let some: Vec<_> = (0..15).map(|at| PathBuf::from(format!("{at:02}"))).collect();
    assert!(run(&some, &CancellationToken::new()).0);
    assert_eq!(on_record(), 15);
    assert_eq!(run(&all, &CancellationToken::new()).1, 25, "only the rest is hashed");
    assert_eq!(on_record(), 40);
    // A cancelled pass removes nothing: it has not seen everything.
    fs::remove_file(leaf.at("music/03")).unwrap();
    assert_eq!((run(&all, &cancelled), on_record()), ((true, 0), 40));
}
