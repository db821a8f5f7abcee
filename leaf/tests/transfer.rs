//! Transfers between leaves over real QUIC on loopback: shares on disk, uploads, downloads.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use leaf::{
    download::{
        Downloads, Event, Request,
        record::{Priority, Reason, SourceState, State},
    },
    store::Shares,
    swarm::RequestId,
    transfer::{
        Finished, Library, LibraryError, LocalFile, SmallFile, Via,
        holding::Holding,
        session::{self, RequestNews, ask},
        throttle::Throttle,
    },
};
use overlay::{
    bans::{Rules, Target},
    id::ContentId,
    identity::Identity,
    limits,
    metrics::{self, Build, Role},
    transport::{Arrival, Arrivals, BindMode, CloseCode, CloseReason, Endpoint, Greeting, Settings},
    verify::{Layout, Value},
    wire::{
        bounded::{List, Text},
        transfer::{Browse, Cursor, Denied, DenyReason, NotHeld, Open, Opened, Page, TransferMessage, Want, WantPart},
    },
};
use tokio::time::timeout;

#[path = "support/transfer.rs"]
mod support;

use self::support::{MIB, Network, Node, PATIENCE, bytes, check, done, options, request};

/// A library that gives out other bytes than it hashed.
#[derive(Debug)]
struct Liar {
    honest: Shares,
    folder: PathBuf,
}

impl Library for Liar {
    fn open(&self, content: ContentId) -> BoxFuture<'_, Result<Option<LocalFile>, LibraryError>> {
        Box::pin(async move {
            let Some(local) = Library::open(&self.honest, content).await? else { return Ok(None) };
            let mut data = fs::read(&local.path).unwrap();
            // One bit in the middle of every second piece.
            data.chunks_mut(256 << 10).step_by(2).for_each(|piece| {
                let middle = piece.len() / 2;
                piece[middle] ^= 1;
            });
            let path = self.folder.join("forged");
            fs::write(&path, data).unwrap();
            Ok(Some(LocalFile { file: File::open(&path).unwrap(), path }))
        })
    }

    fn pieces(&self, content: ContentId, size: u64) -> BoxFuture<'_, Result<Option<Vec<Value>>, LibraryError>> {
        Library::pieces(&self.honest, content, size)
    }

    fn damaged(&self, content: ContentId) -> BoxFuture<'_, Result<(), LibraryError>> {
        Library::damaged(&self.honest, content)
    }

    fn small_files(&self, _: Vec<ContentId>) -> BoxFuture<'_, Result<Vec<Option<SmallFile>>, LibraryError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn knows(&self, contents: Vec<ContentId>) -> BoxFuture<'_, Result<Vec<bool>, LibraryError>> {
        Library::knows(&self.honest, contents)
    }

    fn add_downloads(&self, _: Vec<Finished>) -> BoxFuture<'_, Result<(), LibraryError>> {
        Box::pin(async { Ok(()) })
    }

    fn browse(&self, request: Browse) -> BoxFuture<'_, Option<Page>> {
        self.honest.browse(request)
    }
}

/// What the process has counted in a series; counting begins with the first call.
fn counted(series: &str) -> f64 {
    let build = Build { version: "0.1.0", revision: "unknown", role: Role::Leaf };
    let text = metrics::install(build, &[leaf::metrics::FAMILIES]).unwrap().render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("no {series}: {text}"));
    line.trim().parse().unwrap()
}

/// Waits for something that a peer does a moment later.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, held).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

async fn until_counted(series: &str) {
    until(series, || counted(series) > 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_sends_it_all_and_the_result_is_served_on() {
    counted("quictrack_homes");
    let network = Network::default();
    let data = bytes(3 * MIB + 77);
    let source = Node::new(&network, 1, &[("x/a.bin", &data)]).await;
    let node = Node::new(&network, 2, &[]).await;
    let result = done(node.get(request(&data)).await);
    check(&result, &data);
    assert_eq!(result.sources.iter().map(|s| (s.peer, s.via)).collect::<Vec<_>>(), [(source.peer, Via::Direct)]);
    assert_eq!(Path::new(&result.path), node.folder.join("downloads/a file.bin"));
    assert_eq!(fs::read_dir(node.folder.join("downloads/.partial")).unwrap().count(), 0);
    let json = serde_json::to_value(&result).unwrap();
    assert_eq!(json["sources"][0]["via"], "direct");
    assert_eq!(json["content"], request(&data).content.to_string());
    for series in [
        r#"quictrack_downloads_finished_total{result="ok"}"#,
        r#"quictrack_transfer_bytes_total{direction="in",via="direct"}"#,
        r#"quictrack_transfer_bytes_total{direction="out",via="direct"}"#,
        r#"quictrack_transfer_attempts_total{via="direct",result="ok"}"#,
        r#"quictrack_verified_pieces_total{result="ok"}"#,
        r#"quictrack_transfer_connect_seconds_count{via="direct"}"#,
        "quictrack_download_sources_count",
        "quictrack_upload_queue_seconds_count",
        "quictrack_hashed_bytes_total",
        "quictrack_scan_duration_seconds_count",
        "quictrack_scan_last_success_timestamp_seconds",
    ] {
        assert!(counted(series) > 0.0, "{series}");
    }
    until_counted(r#"quictrack_uploads_finished_total{result="ok"}"#).await;
    // The first source goes; the second one serves what it downloaded.
    source.die();
    network.sources.lock().unwrap().retain(|peer| *peer != source.peer);
    network.sources.lock().unwrap().push(node.peer);
    let third = Node::new(&network, 3, &[]).await;
    let result = done(third.get(request(&data)).await);
    check(&result, &data);
    assert_eq!(result.sources[0].peer, node.peer);
    // What is here is done at once, and its file is the same.
    let again = done(third.get(request(&data)).await);
    assert_eq!((again.sources[0].via, again.sources[0].peer), (Via::Local, third.peer));
    assert_eq!(again.path, result.path);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_sources_share_a_download() {
    let network = Network::default();
    let data = bytes(24 * MIB + 1);
    let mut sources = Vec::new();
    for seed in 1..=4 {
        let source = Node::new(&network, seed, &[("a.bin", &data)]).await;
        source.uploads.set_rate(Some(8 << 20));
        sources.push(source);
    }
    let node = Node::new(&network, 9, &[]).await;
    let result = done(node.get(request(&data)).await);
    check(&result, &data);
    assert_eq!(result.sources.len(), 4, "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_names_others_who_have_fetched_the_content() {
    let network = Network::default();
    let data = bytes(12 * MIB);
    let seed = Node::new(&network, 1, &[("a.bin", &data)]).await;
    let (early, late) = (Node::new(&network, 2, &[]).await, Node::new(&network, 3, &[]).await);
    check(&done(early.get(request(&data)).await), &data);
    // No search finds the early one, and the seed alone would take a minute.
    assert_eq!(*network.sources.lock().unwrap(), [seed.peer]);
    seed.uploads.set_rate(Some(200_000));
    let finished = done(late.get(request(&data)).await);
    check(&finished, &data);
    let of = |peer| finished.sources.iter().find(|source| source.peer == peer).map_or(0, |source| source.bytes);
    assert!(of(early.peer) > of(seed.peer), "{:?}", finished.sources);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_had_its_quota_gets_no_more_until_there_is_more() {
    let network = Network::default();
    let data = bytes(24 * MIB);
    let source = Node::new(&network, 1, &[("a.bin", &data)]).await;
    source.uploads.set_quota(Some(2 * MIB as u64)).await;
    // Slower than the news of what was sent.
    source.uploads.set_rate(Some(8 * MIB as u64));
    let downloader = Node::new(&network, 2, &[]).await;
    let mut events = downloader.downloads.subscribe();
    let (download, _) = downloader.downloads.add(request(&data)).await.unwrap();
    let refused = async {
        while downloader.downloads.get(&download.id).unwrap().bytes == 0 || !source.uploads.list().is_empty() {
            let _ = events.recv().await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    // What was asked for before is still sent.
    let had = downloader.downloads.get(&download.id).unwrap().bytes;
    assert!(had < data.len() as u64, "{had}");
    source.uploads.set_quota(None).await;
    check(&done(downloader.outcome(&download.id, &mut events).await), &data);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_source_takes_over_when_one_dies() {
    let network = Network::default();
    let data = bytes(12 * MIB);
    let first = Node::new(&network, 1, &[("a.bin", &data)]).await;
    let second = Node::new(&network, 2, &[("a.bin", &data)]).await;
    first.uploads.set_rate(Some(4 << 20));
    second.uploads.set_rate(Some(4 << 20));
    let node = Node::new(&network, 3, &[]).await;
    let mut events = node.downloads.subscribe();
    let (download, new) = node.downloads.add(request(&data)).await.unwrap();
    assert!(new && !node.downloads.add(request(&data)).await.unwrap().1);
    node.reach_bytes(&download.id, 2 << 20).await;
    first.die();
    second.uploads.set_rate(None);
    check(&done(node.outcome(&download.id, &mut events).await), &data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_sends_wrong_bytes_is_dropped_and_nothing_of_it_stays() {
    counted("quictrack_homes");
    let network = Network::default();
    let data = bytes(8 * MIB);
    let liar = |honest, folder: &Path| -> Arc<dyn Library> { Arc::new(Liar { honest, folder: folder.to_owned() }) };
    let liar = Node::with_library(&network, 1, &[("a.bin", &data)], liar).await;
    let honest = Node::new(&network, 2, &[("a.bin", &data)]).await;
    honest.uploads.set_rate(Some(2 << 20));
    let node = Node::new(&network, 3, &[]).await;
    let mut events = node.downloads.subscribe();
    let (download, _) = node.downloads.add(request(&data)).await.unwrap();
    let dropped = async {
        loop {
            let sources = node.downloads.get(&download.id).unwrap().sources;
            if sources.iter().any(|source| source.peer == liar.peer && source.state == SourceState::Dropped) {
                return;
            }
            let _ = events.recv().await;
        }
    };
    timeout(PATIENCE, dropped).await.expect("the liar is named");
    assert_eq!(*network.accused.lock().unwrap(), [liar.peer], "and its homes are told");
    assert!(counted(r#"quictrack_verified_pieces_total{result="corrupt"}"#) > 0.0);
    assert!(counted(r#"quictrack_bans_total{scope="leaf",reason="corrupt"}"#) > 0.0);
    honest.uploads.set_rate(None);
    check(&done(node.outcome(&download.id, &mut events).await), &data);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_groups_that_are_wrong_are_fetched_again() {
    let network = Network::default();
    let data = bytes(MIB);
    let content = request(&data).content;
    let honest = Node::new(&network, 1, &[("a.bin", &data)]).await;
    let node = Node::new(&network, 2, &[]).await;
    let lease = node.parts.pool.connect(honest.peer, vec![]).await.unwrap();
    let (mut sender, mut receiver) = lease.connection().open::<TransferMessage>().await.unwrap();
    sender.send(&Open { content, homes: List::default() }.into()).await.unwrap();
    while !matches!(receiver.next().await.unwrap(), Some(TransferMessage::Granted(_))) {}
    let layout = Layout::new(data.len() as u64).unwrap();
    let values = Library::pieces(&honest.shares, content, layout.size()).await.unwrap().unwrap();
    let tops = overlay::verify::segment_values(layout.size(), &values).unwrap();
    let holding = Arc::new(Holding::part(content, "a".into(), tempfile::tempfile().unwrap(), layout, tops));
    holding.add_segment(0, values).unwrap();

    // Of the second piece of 256 KiB, the groups 0, 1 and 9 came wrong.
    let piece = layout.piece_range(1).unwrap();
    let mut spoiled = data[piece.start as usize..piece.end as usize].to_vec();
    for at in [0, (16 << 10) + 5, (9 << 14) + 16_383] {
        spoiled[at] ^= 0x10;
    }
    let (events, mut inbox) = tokio::sync::mpsc::channel(64);
    let asked = session::Request {
        id: RequestId(7),
        lease: Arc::clone(&lease),
        holding: Arc::clone(&holding),
        throttle: Arc::new(Throttle::new(node.parts.clock, None)),
        buffers: Arc::default(),
        events,
    };
    asked.repair(1, spoiled, node.peer).await;
    let mut last = None;
    while let Some(session::Event::Request { news, .. }) = inbox.recv().await {
        last = Some(news);
    }
    assert!(matches!(last, Some(RequestNews::Piece { piece: 1, last: true })), "{last:?}");
    assert!(holding.verify(1).unwrap());
    // It counts what it has sent, which may be here before.
    until("three groups are counted", || honest.uploads.list()[0].bytes >= 3 * (16 << 10)).await;
    assert_eq!(honest.uploads.list()[0].bytes, 3 * (16 << 10));
    for want in [(1, 0, 0), (1, 16, 1), (1, 15, u32::MAX), (u64::MAX, 0, 1)] {
        let want = WantPart { content, piece: want.0, first: want.1, count: want.2 };
        let denied = ask(lease.connection(), want).await.unwrap();
        assert_eq!(denied, Some(Denied { reason: DenyReason::Malformed }.into()), "{want:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_told_of_wrong_bytes_looks_at_its_disk() {
    let network = Network::default();
    // Larger than what is hashed anew whenever its values are wanted.
    let data = bytes(66 * MIB);
    let source = Node::new(&network, 1, &[("a.bin", &data)]).await;
    let node = Node::new(&network, 2, &[]).await;
    let path = source.folder.join("Share/a.bin");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let mut rotten = data.clone();
    rotten[33 * MIB] ^= 1;
    let file = File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[rotten[33 * MIB]], 33 * MIB as u64).unwrap();
    file.set_modified(modified).unwrap();
    node.downloads.add(request(&data)).await.unwrap();
    let rotten = ContentId(*blake3::hash(&rotten).as_bytes());
    let found = async {
        let mut catalog = source.shares.watch_catalog();
        while source.shares.open(rotten).await.unwrap().is_none() {
            catalog.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, found).await.expect("it is listed as what it is");
    assert!(source.shares.open(request(&data).content).await.unwrap().is_none());
}

/// What may happen to a shared file while it is served.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Truncated,
    Emptied,
    Rewritten,
    Replaced,
    Removed,
    /// The whole share, as when its disk is unplugged.
    Gone,
}

fn befall(share: &Path, fate: Fate) {
    let path = share.join("a.bin");
    match fate {
        Fate::Truncated => File::options().write(true).open(&path).unwrap().set_len(MIB as u64 + 5).unwrap(),
        Fate::Emptied => File::create(&path).map(drop).unwrap(),
        Fate::Rewritten => fs::write(&path, vec![7; fs::metadata(&path).unwrap().len() as usize]).unwrap(),
        Fate::Replaced => {
            fs::write(share.join("b.bin"), b"another file").unwrap();
            fs::rename(share.join("b.bin"), &path).unwrap();
        }
        Fate::Removed => fs::remove_file(&path).unwrap(),
        Fate::Gone => fs::remove_dir_all(share).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_served_spoils_nothing() {
    for fate in [Fate::Truncated, Fate::Emptied, Fate::Rewritten, Fate::Replaced, Fate::Removed, Fate::Gone] {
        let network = Network::default();
        let data = bytes(6 * MIB + 3);
        let first = Node::new(&network, 1, &[("a.bin", &data)]).await;
        let second = Node::new(&network, 2, &[("a.bin", &data)]).await;
        first.uploads.set_rate(Some(2 << 20));
        second.uploads.set_rate(Some(2 << 20));
        let node = Node::new(&network, 3, &[]).await;
        let mut events = node.downloads.subscribe();
        let (download, _) = node.downloads.add(request(&data)).await.unwrap();
        node.reach_bytes(&download.id, MIB as u64).await;
        befall(&first.folder.join("Share"), fate);
        first.uploads.set_rate(None);
        second.uploads.set_rate(None);
        check(&done(node.outcome(&download.id, &mut events).await), &data);
        // Asked anew, the first source says what it has, or that it has nothing: it never sends other bytes.
        let dialled = node.endpoint.dial::<TransferMessage>(first.endpoint.local_address(), None, Greeting::default());
        let connection = dialled.await.unwrap().link.connection;
        let open = Open { content: request(&data).content, homes: List::default() };
        match ask(&connection, open).await {
            Ok(Some(TransferMessage::NotHeld(_) | TransferMessage::Opened(_))) => {}
            other => panic!("{fate:?}: {other:?}"),
        }
        [first, second, node].iter().for_each(Node::die);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_download_fetches_only_what_is_missing() {
    let network = Network::default();
    let data = bytes(16 * MIB);
    let first = Node::new(&network, 1, &[("a.bin", &data)]).await;
    first.uploads.set_rate(Some(8 << 20));
    let node = Node::new(&network, 3, &[]).await;
    let (download, _) = node.downloads.add(request(&data)).await.unwrap();
    node.reach_bytes(&download.id, 4 << 20).await;
    timeout(PATIENCE, node.downloads.shutdown()).await.unwrap();
    let had = node.downloads.get(&download.id).unwrap().bytes;
    assert!(had >= 4 << 20);
    // One of the pieces rots meanwhile: it is fetched again.
    let (_, pieces) = node.downloads.pieces(&download.id).unwrap();
    let rotten = pieces.iter().next().unwrap();
    let partial = node.folder.join("downloads/.partial").join(download.content.to_string());
    let mut stored = fs::read(&partial).unwrap();
    stored[(rotten as usize) * (256 << 10)] ^= 1;
    fs::write(&partial, stored).unwrap();
    first.die();
    let second = Node::new(&network, 2, &[("a.bin", &data)]).await;
    let downloads = Downloads::start(node.parts.clone(), options(&node.folder)).unwrap();
    let node = Node { downloads, ..node };
    let mut events = node.downloads.subscribe();
    let result = done(node.outcome(&download.id, &mut events).await);
    check(&result, &data);
    let from_second = result.sources.iter().find(|source| source.peer == second.peer).unwrap().bytes;
    // No counted piece is fetched again but the rotten one. Those that were under way when the download stopped
    // may lie on the disk already, and are found there.
    let piece = 256 << 10;
    assert!((piece..=data.len() as u64 - had + piece).contains(&from_second), "{from_second} after {had}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_cancelling_and_outputs() {
    let network = Network::default();
    let data = bytes(6 * MIB);
    let source = Node::new(&network, 1, &[("a.bin", &data)]).await;
    source.uploads.set_rate(Some(1 << 20));
    let node = Node::new(&network, 2, &[]).await;
    let (download, _) = node.downloads.add(request(&data)).await.unwrap();
    node.reach_bytes(&download.id, 1).await;
    let paused = node.downloads.pause(&download.id).await.unwrap();
    assert_eq!((paused.state, paused.reason), (State::Paused, Some(Reason::User)));
    // Named by its content, too.
    node.downloads.set_priority(&download.content.to_string(), Priority::High).await.unwrap();
    assert_eq!(node.downloads.resume(&download.id).await.unwrap().priority, Priority::High);
    let cancelled = node.downloads.cancel(&download.id).await.unwrap();
    assert_eq!(cancelled.state, State::Cancelled);
    source.uploads.set_rate(None);
    // An existing file of other content is a conflict; one of the same is done at once.
    let output = node.folder.join("named.bin");
    fs::write(&output, "other").unwrap();
    let named = Request { output: Some(output.to_str().unwrap().into()), ..request(&data) };
    match node.get(named.clone()).await {
        Event::Failed(failed) => assert_eq!(failed.reason, Reason::Conflict),
        other => panic!("{other:?}"),
    }
    fs::remove_file(&output).unwrap();
    check(&done(node.get(named.clone()).await), &data);
    assert_eq!(done(node.get(named).await).sources[0].via, Via::Local);
    let into = Request { output: Some(format!("{}/new/", node.folder.display())), ..request(&data) };
    assert_eq!(Path::new(&done(node.get(into).await).path), node.folder.join("new/a file.bin"));
    let other = bytes(2 * MIB);
    let (waiting, _) = node.downloads.add(request(&other)).await.unwrap();
    let mut events = node.downloads.subscribe();
    node.endpoint.set_bans(Rules::new([Target::Content(waiting.content)]));
    match node.outcome(&waiting.id, &mut events).await {
        Event::Failed(failed) => assert_eq!(failed.reason, Reason::Blocked),
        other => panic!("{other:?}"),
    }
    // Neither is a new one begun, nor this one again.
    match node.get(request(&other)).await {
        Event::Failed(failed) => assert_eq!(failed.reason, Reason::Blocked),
        other => panic!("{other:?}"),
    }
    let mut events = node.downloads.subscribe();
    node.downloads.retry(&waiting.id).await.unwrap();
    match node.outcome(&waiting.id, &mut events).await {
        Event::Failed(failed) => assert_eq!(failed.reason, Reason::Blocked),
        other => panic!("{other:?}"),
    }
    assert_eq!(timeout(PATIENCE, node.downloads.shutdown()).await, Ok(()));
    assert_eq!(node.downloads.clear().await.unwrap(), 7);
    assert!(node.downloads.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_becomes_blocked_is_served_no_more() {
    let network = Network::default();
    let data = bytes(6 * MIB);
    let source = Node::new(&network, 1, &[("a.bin", &data)]).await;
    source.uploads.set_rate(Some(1 << 20));
    let node = Node::new(&network, 2, &[]).await;
    let (download, _) = node.downloads.add(request(&data)).await.unwrap();
    node.reach_bytes(&download.id, 1).await;
    source.endpoint.set_bans(Rules::new([Target::Content(download.content)]));
    source.uploads.set_rate(None);
    timeout(PATIENCE, async {
        let mut load = source.uploads.watch();
        while !source.uploads.list().is_empty() {
            load.changed().await.unwrap();
        }
    })
    .await
    .unwrap();
    // Not by a request without a session either, and not to who comes now.
    let lease = node.parts.pool.connect(source.peer, vec![]).await.unwrap();
    let asked = ask(lease.connection(), Open { content: download.content, homes: List::default() }).await;
    assert!(matches!(asked, Ok(Some(TransferMessage::NotHeld(NotHeld { reason: DenyReason::Blocked })))), "{asked:?}");
    source.endpoint.set_bans(Rules::default());
    let asked = ask(lease.connection(), Open { content: download.content, homes: List::default() }).await;
    assert!(matches!(asked, Ok(Some(TransferMessage::Opened(_)))), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_folder_is_browsed_page_by_page() {
    let network = Network::default();
    let names: Vec<String> = (0..2500).map(|n| format!("folder/{n:05}.txt")).collect();
    let mut files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    files.push(("folder/deep/inner.txt", b"inner"));
    let source = Node::new(&network, 1, &files).await;
    let node = Node::new(&network, 2, &[]).await;
    let lease = node.parts.pool.connect(source.peer, vec![]).await.unwrap();
    let (mut after, mut found, mut folders) = (Cursor::Start, Vec::new(), Vec::new());
    loop {
        let browse = Browse { path: Text::new("Share/folder"), recursive: false, after, limit: u16::MAX };
        let Ok(Some(TransferMessage::Page(page))) = ask(lease.connection(), browse).await else { panic!("no page") };
        assert!(page.entries.len() + page.folders.len() <= limits::PAGE_ENTRIES);
        folders.extend(page.folders.iter().map(|folder| (folder.path.to_string(), folder.files, folder.bytes)));
        found.extend(page.entries.iter().map(|entry| entry.path.clone()));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(folders, [("Share/folder/deep".to_owned(), 1, 5)]);
    assert_eq!(found, names.iter().map(|name| format!("Share/{name}")).collect::<Vec<_>>());
    let nowhere = Browse { path: Text::new("nowhere"), recursive: false, after: Cursor::Start, limit: 1 };
    let answer = ask(lease.connection(), nowhere).await;
    assert!(matches!(answer, Ok(Some(TransferMessage::Denied(denied))) if denied.reason == DenyReason::NotHeld));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_kept_is_there_for_the_next_and_one_that_is_not_is_closed() {
    let network = Network::default();
    let source = Node::new(&network, 1, &[("a.bin", b"a")]).await;
    let node = Node::new(&network, 2, &[]).await;
    let pool = &node.parts.pool;
    let connect = async || pool.connect(source.peer, vec![]).await.unwrap();
    let dropped = connect().await.connection().clone();
    dropped.closed().await;
    let lease = connect().await;
    let connection = lease.connection().clone();
    // Kept twice is kept once.
    (0..2).for_each(|_| pool.keep(&lease));
    drop(lease);
    assert_eq!(connection.close_reason(), None);
    assert_eq!(connect().await.connection().id(), connection.id());
    assert_eq!(connection.close_reason(), None, "it stays, whoever uses it meanwhile");
    source.stop().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_session_or_out_of_range_are_denied() {
    let network = Network::default();
    let data = bytes(MIB);
    let source = Node::new(&network, 1, &[("a.bin", &data)]).await;
    let node = Node::new(&network, 2, &[]).await;
    let lease = node.parts.pool.connect(source.peer, vec![]).await.unwrap();
    let content = request(&data).content;
    let denied = async |want: Want| match ask(lease.connection(), want).await {
        Ok(Some(TransferMessage::Denied(denied))) => Some(denied.reason),
        _ => None,
    };
    assert_eq!(denied(Want { content, first: 0, count: 1 }).await, Some(DenyReason::NotHeld));
    let (mut sender, mut receiver) = lease.connection().open::<TransferMessage>().await.unwrap();
    sender.send(&Open { content, homes: List::default() }.into()).await.unwrap();
    while !matches!(receiver.next().await.unwrap(), Some(TransferMessage::Granted(_))) {}
    assert_eq!(denied(Want { content, first: 0, count: 1 }).await, None);
    for (first, count) in [(0, 0), (3, 2), (0, 17), (u64::MAX, 2), (4, 1)] {
        assert_eq!(denied(Want { content, first, count }).await, Some(DenyReason::Malformed), "{first} {count}");
    }
    assert_eq!(source.uploads.list().len(), 1);
    let json = serde_json::to_value(&source.uploads.list()[0]).unwrap();
    assert_eq!((json["state"].as_str(), json["via"].as_str()), (Some("active"), Some("direct")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_the_queue_full_is_told_and_counted_and_so_is_who_breaks_off() {
    counted("quictrack_homes");
    let network = Network::default();
    // As many as one peer may have in the queue come over each connection.
    let files: Vec<_> =
        (0..limits::UPLOAD_QUEUE_PER_PEER).map(|number| (format!("{number}.bin"), bytes(1_000 + number))).collect();
    let shared: Vec<_> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let source = Node::new(&network, 1, &shared).await;
    let node = Node::new(&network, 2, &[]).await;
    let address = source.endpoint.local_address();
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let dialled = node.endpoint.dial::<TransferMessage>(address, Some(source.peer), Greeting::default()).await;
        let link = dialled.unwrap().link;
        for (_, data) in &files {
            let (mut sender, mut receiver) = link.connection.open::<TransferMessage>().await.unwrap();
            sender.send(&Open { content: request(data).content, homes: List::default() }.into()).await.unwrap();
            let first = receiver.next().await;
            assert!(matches!(first, Ok(Some(TransferMessage::Opened(_)))), "{first:?}");
            sessions.push((sender, receiver, link.connection.clone()));
        }
    }
    let (_, last, connection) = sessions.last_mut().unwrap();
    let told = timeout(PATIENCE, last.next()).await.unwrap();
    assert!(matches!(told, Ok(Some(TransferMessage::NotHeld(NotHeld { reason: DenyReason::Busy })))), "{told:?}");
    assert!(counted(r#"quictrack_queue_dropped_total{queue="upload"}"#) > 0.0);
    connection.close(CloseCode::Failure);
    until_counted(r#"quictrack_uploads_finished_total{result="aborted"}"#).await;
}

/// A source that claims whatever it is told to.
async fn claim(mut arrivals: Arrivals, size: u64, tops: Vec<Value>) {
    while let Some(arrival) = arrivals.next().await {
        let Arrival::Transfer(offer) = arrival else { continue };
        let connection = offer.welcome(None).await.unwrap().connection;
        let (mut sender, mut receiver) = connection.accept::<TransferMessage>().await.unwrap();
        let _ = receiver.next().await;
        let opened = Opened { size, complete: true, tops: List::new(tops.clone()) };
        sender.send(&opened.into()).await.unwrap();
        // The downloader leaves.
        let _ = receiver.next().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_sizes_are_refused() {
    for (seed, size) in [(11, 0), (12, u64::MAX), (13, limits::FILE_BYTES), (14, 300 << 20)] {
        let network = Network::default();
        let data = bytes(MIB);
        let settings = Settings { network: "test".into(), secret: None, agent: "test/1".into() };
        let identity = Identity::from_seed([seed; 32]);
        let bound = Endpoint::bind("127.0.0.1:0".parse().unwrap(), BindMode::Given, &identity, settings);
        let (endpoint, arrivals) = bound.unwrap();
        network.addresses.lock().unwrap().insert(endpoint.peer(), endpoint.local_address());
        network.sources.lock().unwrap().push(endpoint.peer());
        // For the last size, values that do not give the content id.
        let liar = tokio::spawn(claim(arrivals, size, vec![[1; 32]]));
        let node = Node::new(&network, 2, &[]).await;
        let (download, _) = node.downloads.add(request(&data)).await.unwrap();
        let mut events = node.downloads.subscribe();
        let dropped = async {
            while !node.downloads.get(&download.id).unwrap().sources.iter().any(|s| s.state == SourceState::Dropped) {
                let _ = events.recv().await;
            }
        };
        timeout(PATIENCE, dropped).await.expect("the liar is dropped");
        assert!(!node.folder.join("downloads/.partial").exists(), "nothing is allocated");
        liar.abort();
    }
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_is_closed_after_a_while() {
    let network = Network::default();
    let data = bytes(300_000);
    let source = Node::new(&network, 1, &[("x/a.bin", &data)]).await;
    let node = Node::new(&network, 2, &[]).await;
    let content = request(&data).content;
    let begun = tokio::time::Instant::now();
    let [quiet, busy] = [1, 2].map(|_| {
        node.endpoint.dial::<TransferMessage>(source.endpoint.local_address(), Some(source.peer), Greeting::default())
    });
    let (quiet, busy) = (quiet.await.unwrap().link, busy.await.unwrap().link);
    // A session is open on this one, although it asks for nothing either.
    let (mut sender, mut receiver) = busy.connection.open::<TransferMessage>().await.unwrap();
    sender.send(&Open { content, homes: List::default() }.into()).await.unwrap();
    assert!(matches!(receiver.next().await, Ok(Some(TransferMessage::Opened(_)))));
    // From here on the clock jumps to whatever comes next.
    tokio::time::pause();
    assert_eq!(quiet.connection.closed().await, CloseReason::Remote(CloseCode::Done));
    assert!(begun.elapsed() >= limits::TRANSFER_IDLE, "not before its time");
    assert_eq!(busy.connection.close_reason(), None);
}
