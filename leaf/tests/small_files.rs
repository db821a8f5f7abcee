//! Many small files at once, over real QUIC on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::BoxFuture;
use leaf::{
    download::{
        Request,
        record::{Done, SourceState},
    },
    store::Shares,
    transfer::{Finished, FoundSource, Library, LibraryError, LocalFile, SmallFile, Via},
};
use overlay::{
    id::ContentId,
    limits,
    verify::Value,
    wire::transfer::{Browse, Page},
};

#[path = "support/transfer.rs"]
mod support;

use self::support::{Network, Node, PATIENCE, check, done, request};

/// A library that counts what is asked of it, and may give out small files otherwise than they are.
#[derive(Debug)]
struct Watched {
    shares: Shares,
    opened: Arc<AtomicUsize>,
    bundles: Arc<AtomicUsize>,
    /// What it makes of the small file of that number in a bundle.
    spoil: fn(usize, SmallFile) -> Option<SmallFile>,
}

impl Library for Watched {
    fn open(&self, content: ContentId) -> BoxFuture<'_, Result<Option<LocalFile>, LibraryError>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Library::open(&self.shares, content)
    }

    fn pieces(&self, content: ContentId, size: u64) -> BoxFuture<'_, Result<Option<Vec<Value>>, LibraryError>> {
        Library::pieces(&self.shares, content, size)
    }

    fn damaged(&self, content: ContentId) -> BoxFuture<'_, Result<(), LibraryError>> {
        Library::damaged(&self.shares, content)
    }

    fn small_files(&self, contents: Vec<ContentId>) -> BoxFuture<'_, Result<Vec<Option<SmallFile>>, LibraryError>> {
        self.bundles.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let files = Library::small_files(&self.shares, contents).await?;
            Ok(files.into_iter().enumerate().map(|(at, file)| (self.spoil)(at, file?)).collect())
        })
    }

    fn knows(&self, contents: Vec<ContentId>) -> BoxFuture<'_, Result<Vec<bool>, LibraryError>> {
        Library::knows(&self.shares, contents)
    }

    fn add_downloads(&self, files: Vec<Finished>) -> BoxFuture<'_, Result<(), LibraryError>> {
        Library::add_downloads(&self.shares, files)
    }

    fn browse(&self, request: Browse) -> BoxFuture<'_, Option<Page>> {
        self.shares.browse(request)
    }
}

/// A node that shares so many small files, and what was asked of its library.
struct Source {
    node: Node,
    files: Vec<(String, Vec<u8>)>,
    opened: Arc<AtomicUsize>,
    bundles: Arc<AtomicUsize>,
}

impl Source {
    async fn new(network: &Network, count: usize, spoil: fn(usize, SmallFile) -> Option<SmallFile>) -> Self {
        let files: Vec<(String, Vec<u8>)> =
            (0..count).map(|at| (format!("{at}.txt"), at.to_string().repeat(1 + at % 50).into_bytes())).collect();
        let (opened, bundles) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counters = (Arc::clone(&opened), Arc::clone(&bundles));
        let shared: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (&**name, &**data)).collect();
        let library = |shares, _: &_| -> Arc<dyn Library> {
            Arc::new(Watched { shares, opened: counters.0, bundles: counters.1, spoil })
        };
        let node = Node::with_library(network, 1, &shared, library).await;
        Self { node, files, opened, bundles }
    }

    fn requests(&self) -> Vec<Request> {
        let request = |(name, data): &(String, Vec<u8>)| Request {
            name: name.clone(),
            size: Some(data.len() as u64),
            sources: vec![FoundSource { peer: self.node.peer, homes: vec![] }],
            ..request(data)
        };
        self.files.iter().map(request).collect()
    }
}

/// Downloads all of it, in the order of the requests.
async fn get_all(node: &Node, requests: Vec<Request>) -> Vec<Done> {
    let mut events = node.downloads.subscribe();
    let jobs = node.downloads.add_all(requests).await.unwrap();
    let mut all = Vec::new();
    for (job, is_new) in jobs {
        assert!(is_new);
        all.push(done(node.outcome(&job.id, &mut events).await));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_come_many_at_a_time_and_each_is_a_download_of_its_own() {
    let network = Network::default();
    let source = Source::new(&network, limits::BUNDLE_FILES + 100, |_, file| Some(file)).await;
    let node = Node::new(&network, 2, &[]).await;
    let mut ends = node.downloads.ends();
    let all = get_all(&node, source.requests()).await;
    for (done, (name, data)) in all.iter().zip(&source.files) {
        check(done, data);
        assert!(done.path.ends_with(name), "{}", done.path);
        assert_eq!(done.sources.iter().map(|source| source.via).collect::<Vec<_>>(), [Via::Direct]);
    }
    assert_eq!(source.bundles.load(Ordering::Relaxed), 2);
    assert_eq!(source.opened.load(Ordering::Relaxed), 0, "nothing was asked for alone");
    let mut told = 0;
    while told < all.len() {
        told += ends.next().await.unwrap().len();
    }
    assert_eq!(told, all.len());
    let partial = node.folder.join("downloads/.partial");
    assert_eq!(fs::read_dir(partial).unwrap().count(), 0);
    // They are served on.
    let content = source.requests().pop().unwrap().content;
    assert!(node.shares.open(content).await.unwrap().is_some());
    source.node.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_since_comes_again_many_at_a_time() {
    let network = Network::default();
    let source = Source::new(&network, 40, |_, file| Some(file)).await;
    let node = Node::new(&network, 2, &[]).await;
    for round in 1..=2 {
        for (done, (_, data)) in get_all(&node, source.requests()).await.iter().zip(&source.files) {
            check(done, data);
            fs::remove_file(&done.path).unwrap();
        }
        assert_eq!(source.bundles.load(Ordering::Relaxed), round);
    }
    assert_eq!(source.opened.load(Ordering::Relaxed), 0, "nothing was asked for alone");
    source.node.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_wrong_or_not_at_all_is_fetched_alone() {
    let network = Network::default();
    let source = Source::new(&network, 30, |at, mut file| match at % 3 {
        0 => Some(file),
        1 => {
            file.data[0] ^= 1;
            Some(file)
        }
        _ => None,
    })
    .await;
    let node = Node::new(&network, 2, &[]).await;
    let all = get_all(&node, source.requests()).await;
    for (done, (_, data)) in all.iter().zip(&source.files) {
        check(done, data);
    }
    assert_eq!(source.bundles.load(Ordering::Relaxed), 1);
    assert_eq!(network.accused.lock().unwrap().len(), 10, "one complaint for each file that came wrong");
    source.node.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_lies_there_is_not_fetched_and_none_is_overwritten() {
    let network = Network::default();
    let source = Source::new(&network, 20, |_, file| Some(file)).await;
    let node = Node::new(&network, 2, &[]).await;
    let downloads = node.folder.join("downloads");
    fs::create_dir_all(&downloads).unwrap();
    // As an earlier run may have left it, and a file of the user's own.
    fs::write(downloads.join(&source.files[3].0), &source.files[3].1).unwrap();
    fs::write(downloads.join(&source.files[4].0), "mine").unwrap();
    let all = get_all(&node, source.requests()).await;
    for (done, (_, data)) in all.iter().zip(&source.files) {
        check(done, data);
    }
    assert_eq!(all[3].sources.iter().map(|source| source.via).collect::<Vec<_>>(), [Via::Local]);
    assert!(all[4].path.ends_with("4 (2).txt"), "{}", all[4].path);
    assert_eq!(fs::read(downloads.join(&source.files[4].0)).unwrap(), b"mine");
    source.node.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_counts_for_the_quota_of_its_peer() {
    let network = Network::default();
    let source = Source::new(&network, 20, |_, file| Some(file)).await;
    source.node.uploads.set_quota(Some(1)).await;
    let node = Node::new(&network, 2, &[]).await;
    let mut requests = source.requests();
    let last = requests.split_off(10);
    // The first bundle is begun within the quota.
    for (done, (_, data)) in get_all(&node, requests).await.iter().zip(&source.files) {
        check(done, data);
    }
    let sent = source.bundles.load(Ordering::Relaxed);
    let mut events = node.downloads.subscribe();
    let waiting = node.downloads.add_all(last).await.unwrap();
    // Those that were refused go on alone, and are refused there until there is more.
    source.node.uploads.set_quota(None).await;
    for ((job, _), (_, data)) in waiting.iter().zip(&source.files[10..]) {
        check(&done(node.outcome(&job.id, &mut events).await), data);
    }
    assert_eq!(sent, 1);
    source.node.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_had_of_its_quota_is_known_after_a_restart() {
    let network = Network::default();
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("Share");
    fs::create_dir_all(&share).unwrap();
    let files: Vec<Vec<u8>> = (0..2).map(|at| format!("file {at}").into_bytes()).collect();
    for (at, data) in files.iter().enumerate() {
        fs::write(share.join(at.to_string()), data).unwrap();
    }
    let source = Node::at(&network, 1, folder.path()).await;
    let wanted =
        |at: usize| Request { sources: vec![FoundSource { peer: source.peer, homes: vec![] }], ..request(&files[at]) };
    let (first, second) = (wanted(0), wanted(1));
    let node = Node::new(&network, 2, &[]).await;
    check(&done(node.get(first).await), &files[0]);
    source.stop().await;

    let source = Node::at(&network, 1, folder.path()).await;
    source.uploads.set_quota(Some(files[0].len() as u64)).await;
    let (job, _) = node.downloads.add(second).await.unwrap();
    let refused = async {
        let mut events = node.downloads.subscribe();
        while node.downloads.get(&job.id).unwrap().sources.iter().all(|source| source.state != SourceState::Waiting) {
            let _ = events.recv().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(node.downloads.get(&job.id).unwrap().bytes, 0);
    source.uploads.set_quota(None).await;
    let mut events = node.downloads.subscribe();
    check(&done(node.outcome(&job.id, &mut events).await), &files[1]);
    source.stop().await;
    node.stop().await;
}
