//! Nodes that break the rules, or speak another version: what the daemons do about them.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use overlay::{
    batch::{self, chunk_hash, encode_chunk},
    file::{FileEntry, Tags},
    id::{ContentId, HandleSalt, PeerId, QueryId},
    identity::Identity,
    limits,
    transport::{
        Arrival, Arrivals, BindMode, CloseCode, CloseReason, Connection, DialError, Endpoint, Greeting, Link, Sender,
        Settings,
    },
    wire::{
        bounded::{Blob, List as Bounded, Text},
        hello::RefuseReason,
        leaf::{
            CatalogPart, CatalogRoot, ChunkRef, IntroductionReply, LeafMessage, RootStatement, SignedRoot, catalog_root,
        },
        search::{Search, Target},
        transfer::{Browse, Cursor, Granted, Page, TransferMessage},
    },
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    namespace,
    support::{Bed, Daemon, Program, eventually, number, text},
};

/// Only against hanging for ever.
const PATIENCE: Duration = Duration::from_secs(40);

/// Makes its handle.
const SALT: HandleSalt = HandleSalt([7; 16]);

/// A node in this process that does what it likes.
struct Node {
    runtime: Runtime,
    identity: Identity,
    endpoint: Endpoint,
    arrivals: Option<Arrivals>,
}

impl Node {
    fn new(seed: u8) -> Self {
        Self::speaking(seed, 1..=1, "127.0.0.1:0")
    }

    fn speaking(seed: u8, majors: std::ops::RangeInclusive<u32>, address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let identity = Identity::from_seed([seed; 32]);
        let settings = Settings { network: "public".into(), secret: None, agent: "hostile/1 \u{1b}[31m".into() };
        let address = address.parse().unwrap();
        let bind = async { Endpoint::bind_speaking(majors, address, BindMode::Given, &identity, settings) };
        let (endpoint, arrivals) = runtime.block_on(bind).unwrap();
        Self { runtime, identity, endpoint, arrivals: Some(arrivals) }
    }

    fn attach(&self, to: &Daemon) -> Link<LeafMessage> {
        let address: SocketAddr = to.quic().parse().unwrap();
        let dial = self.endpoint.dial(address, None, Greeting { salt: SALT, ..Greeting::default() });
        self.runtime.block_on(dial).unwrap().link
    }

    /// Announces a list and sends `parts` for each chunk that is wanted, until the home takes the list or hangs up.
    fn upload(&self, link: &mut Link<LeafMessage>, root: &CatalogRoot, parts: &[Vec<u8>]) -> Result<u64, CloseReason> {
        let work = async {
            // What cannot be sent any more is told by the end of the connection.
            let _ = link.sender.send(&root.clone().into()).await;
            loop {
                let want = match link.receiver.next().await {
                    Ok(Some(LeafMessage::CatalogAck(ack))) => return Ok(ack.files),
                    Ok(Some(LeafMessage::CatalogWant(want))) => want,
                    Ok(Some(_)) => continue,
                    Ok(None) | Err(_) => return Err(link.connection.closed().await),
                };
                for chunk in want.chunks {
                    for (at, data) in parts.iter().enumerate() {
                        let (last, data) = (at + 1 == parts.len(), Blob::new(data.clone()).unwrap());
                        let part = CatalogPart { sequence: want.sequence, chunk, last, data };
                        let _ = link.sender.send(&part.into()).await;
                    }
                }
            }
        };
        self.runtime.block_on(timeout_of(work))
    }
}

async fn timeout_of<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it hangs")
}

fn entry(path: &str) -> FileEntry {
    let content = ContentId(*blake3::hash(path.as_bytes()).as_bytes());
    FileEntry { path: path.into(), content, size: 1000, modified_s: 0, tags: Tags::default() }
}

fn statement(home: PeerId, chunks: &[ChunkRef]) -> RootStatement {
    RootStatement {
        root: catalog_root(chunks.iter().map(|chunk| &chunk.hash)),
        files: chunks.iter().map(|chunk| u64::from(chunk.files)).sum(),
        sequence: 1,
        lifetime_s: 86_400,
        home,
    }
}

/// A list of one chunk: what is announced, and what is sent for it.
struct List {
    chunks: Vec<ChunkRef>,
    parts: Vec<Vec<u8>>,
}

impl List {
    fn new(files: &[FileEntry]) -> Self {
        Self::of_bytes(&encode_chunk(files), files.len() as u16)
    }

    fn of_bytes(bytes: &[u8], files: u16) -> Self {
        let chunk = ChunkRef { hash: chunk_hash(bytes), bytes: bytes.len() as u32, files };
        Self { chunks: vec![chunk], parts: batch::cut(bytes).map(Result::unwrap).collect() }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// Lists that no home may take, with what is wrong about them.
fn bad_lists() -> Vec<(&'static str, List)> {
    let good = || List::new(&[entry("Share/a.txt"), entry("Share/b.txt")]);
    let one = |file: FileEntry| List::new(&[entry("Share/a.txt"), file]);
    let noise: Vec<u8> = (0..5000_u32).map(|at| ((at * 7919) >> 3) as u8).collect();
    let bomb = zstd::bulk::compress(&vec![0; 32 << 20], 19).unwrap();
    let mut endless = vec![0xff; 9];
    endless.push(1);
    vec![
        ("more bytes than a chunk may have", good().with(|list| list.chunks[0].bytes = 1 << 31)),
        ("more files than a chunk may have", good().with(|list| list.chunks[0].files = u16::MAX)),
        ("no files", good().with(|list| list.chunks[0].files = 0)),
        ("a chunk twice", good().with(|list| list.chunks.extend(list.chunks.clone()))),
        ("another number of files", good().with(|list| list.chunks[0].files = 3)),
        ("another content", good().with(|list| list.chunks[0].hash = [9; 32])),
        ("other bytes", good().with(|list| list.chunks[0].bytes += 1)),
        ("no zstd", good().with(|list| list.parts = vec![noise])),
        ("nothing at all", good().with(|list| list.parts = vec![Vec::new()])),
        ("a bomb", good().with(|list| list.parts = vec![bomb])),
        ("too many parts", good().with(|list| list.parts = vec![list.parts[0].clone(); 9])),
        ("half of it", List::of_bytes(&vec![7; 300_000], 2).with(|list| list.parts.truncate(1))),
        ("no list of files", List::of_bytes(&[0xaa; 500], 2)),
        ("as many files as can be counted", List::of_bytes(&endless, 2)),
        ("left-over bytes", List::of_bytes(&[&encode_chunk(&[entry("Share/a.txt")])[..], &[0]].concat(), 1)),
        ("out of order", List::new(&[entry("Share/b.txt"), entry("Share/a.txt")])),
        ("a path twice", one(entry("Share/a.txt"))),
        ("a path that leads out", one(entry("Share/../../etc/passwd"))),
        ("a path from the root", List::new(&[entry("/etc/passwd"), entry("Share/a.txt")])),
        ("a path without a share", one(entry("passwd"))),
        ("a path with a zero byte", one(entry("Share/a\0b"))),
        ("a path that is too long", one(entry(&format!("Share/{}", "x".repeat(limits::PATH_BYTES))))),
        ("an empty file", one(FileEntry { size: 0, ..entry("Share/b.txt") })),
        ("a size that no file has", one(FileEntry { size: 1 << 63, ..entry("Share/b.txt") })),
    ]
}

#[test]
fn a_home_drops_leaves_with_false_lists_and_serves_the_others() {
    let bed = Bed::new();
    bed.write(&[("one/treasure.txt", b"gold")]);
    let founder = bed.ultrapeer("u0", &["--founder", "-v"]);
    let honest = bed.sharing("honest", &founder, "one", &[]);
    honest.settled(1, 1);
    let home: PeerId = founder.peer().parse().unwrap();
    let hostile = Node::new(66);
    let other = Identity::from_seed([67; 32]);
    let dropped = CloseReason::Remote(CloseCode::Violation);

    // What is announced is signed, and must be true.
    let good = List::new(&[entry("Share/a.txt")]);
    let sign = |identity, statement| CatalogRoot::sign(identity, &statement, good.chunks.clone());
    let signature = hostile.identity.sign(b"noise", &[]);
    let unreadable = SignedRoot { statement: Blob::new(vec![0xff; 40]).unwrap(), signature };
    let announced = [
        sign(&other, statement(home, &good.chunks)),
        sign(&hostile.identity, RootStatement { root: [0; 32], ..statement(home, &good.chunks) }),
        sign(&hostile.identity, RootStatement { files: 1_000_000_000, ..statement(home, &good.chunks) }),
        sign(&hostile.identity, statement(hostile.identity.peer_id(), &good.chunks)),
        CatalogRoot { signed: unreadable, ..sign(&other, statement(home, &good.chunks)) },
    ];
    for (at, root) in announced.iter().enumerate() {
        let mut link = hostile.attach(&founder);
        assert_eq!(hostile.upload(&mut link, root, &good.parts), Err(dropped.clone()), "announcement {at}");
    }
    for (what, list) in bad_lists() {
        let mut link = hostile.attach(&founder);
        let root = CatalogRoot::sign(&hostile.identity, &statement(home, &list.chunks), list.chunks);
        assert_eq!(hostile.upload(&mut link, &root, &list.parts), Err(dropped.clone()), "{what}");
    }
    let log = founder.log();
    assert!(founder.counted("quictrack_message_errors_total{reason=\"unexpected\"}") >= 20);
    for reason in ["unacceptable catalog", "unacceptable chunk", "too many parts"] {
        assert!(log.contains(reason), "{reason:?} is not in the log");
    }
    assert!(!log.contains("panicked"), "{log}");

    // Strange but true is taken, and harms nobody.
    let extreme = Tags {
        year: Some(0),
        track: Some(u16::MAX),
        bitrate: Some(u32::MAX),
        duration_s: Some(u32::MAX),
        ..Tags::default()
    };
    let files = [
        FileEntry {
            modified_s: i64::MIN,
            size: limits::FILE_BYTES,
            tags: extreme,
            ..entry("Share/relic one \u{1b}[2J.txt")
        },
        FileEntry { modified_s: i64::MAX, size: limits::FILE_BYTES, ..entry("Share/relic two \u{202e}txt.exe") },
    ];
    let list = List::new(&files);
    let mut link = hostile.attach(&founder);
    let root = CatalogRoot::sign(&hostile.identity, &statement(home, &list.chunks), list.chunks);
    assert_eq!(hostile.upload(&mut link, &root, &list.parts), Ok(2));
    for query in [
        "relic",
        "relic modified:<30d",
        "relic modified:>2026-01-31",
        "relic duration:>1h year:..2000",
        "relic size:>1TB",
    ] {
        let found = honest.search(&[query]);
        assert!(found.is_complete(), "{query}: {:?}", found.summary);
        for hit in &found.hits {
            assert_eq!(number(&hit["size"]), limits::FILE_BYTES);
        }
    }
    assert_eq!(honest.search(&["relic"]).hits.len(), 2);
    honest.finds(&["treasure"], &["treasure.txt"]);
}

#[test]
fn who_searches_too_often_is_refused_but_a_leaf_holds_its_own_searches_back() {
    let bed = Bed::new();
    bed.write(&[("one/treasure.txt", b"gold"), ("ultrapeer.toml", b"query_rate = 5\nquery_burst = 3\n")]);
    let config = bed.path("ultrapeer.toml");
    let founder = bed.ultrapeer("u0", &["--founder", "--config", config.to_str().unwrap()]);
    let leaf = bed.sharing("leaf", &founder, "one", &[]);
    leaf.settled(1, 1);
    let refused = || founder.counted("quictrack_queries_total{origin=\"leaf\",outcome=\"rate_limited\"}");
    // All at once, and more than there is credit for: each waits for its turn.
    std::thread::scope(|scope| {
        let searches: Vec<_> = (0..8).map(|_| scope.spawn(|| leaf.search(&["treasure"]))).collect();
        for search in searches {
            let found = search.join().unwrap();
            assert!(found.is_complete() && found.names() == ["treasure.txt"], "{found:?}");
        }
    });
    assert_eq!(refused(), 0, "the leaf knows how often it may ask");

    let hostile = Node::new(66);
    let link = hostile.attach(&founder);
    let mut answered = 0;
    for number in 0..12 {
        let target = Target::Query(Text::new("treasure"));
        let search = Search { id: QueryId(number), target, limit: 10, timeout_ms: 1000, all: false };
        let ask = async {
            let (mut sender, mut receiver) = link.connection.open::<LeafMessage>().await.unwrap();
            sender.send(&search.into()).await.unwrap();
            matches!(receiver.next().await, Ok(Some(LeafMessage::Accepted(_))))
        };
        answered += u64::from(hostile.runtime.block_on(timeout_of(ask)));
    }
    eventually("the refusals are counted", || answered + refused() == 12);
    assert!((3..12).contains(&answered), "{answered} of 12 were answered");
    assert!(leaf.search(&["treasure"]).is_complete(), "the others are served");
}

#[test]
fn nodes_of_other_versions_are_named_and_tried_again() {
    let bed = Bed::new();
    bed.write(&[("one/treasure.txt", b"gold")]);
    let newer = Node::speaking(66, 2..=3, "127.0.0.1:0");
    let older = Node::speaking(67, 0..=0, "127.0.0.1:0");
    let (newer_at, older_at) = (newer.endpoint.local_address().to_string(), older.endpoint.local_address().to_string());
    let share = bed.path("one");
    let options = ["--join", &newer_at, "--join", &older_at, "--share", share.to_str().unwrap()];
    let leaf = Daemon::start(Program::Leaf, &bed.path("leaf"), &options);
    let ultrapeer = bed.ultrapeer("u0", &["--join", &newer_at, "--join", &older_at]);
    for daemon in [&leaf, &ultrapeer] {
        for code in ["peer_newer", "peer_older"] {
            eventually(code, || daemon.problems().iter().any(|problem| problem == code));
        }
        assert_eq!(daemon.probe("/readyz").0, 503);
        let status = daemon.status();
        let problem =
            status["problems"].as_array().unwrap().iter().find(|problem| problem["code"] == "peer_newer").unwrap();
        assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("update")), "{problem}");
        let tried = "quictrack_bootstrap_attempts_total{source=\"config\",result=\"version\"}";
        assert!(daemon.counted(tried) > 0);
        assert!(daemon.counted("quictrack_handshakes_total{direction=\"out\",result=\"version\"}") > 0);
        // As text, too, nothing of what the other says moves the cursor.
        let text = daemon.text(&["status"]);
        assert!(text.contains("hostile/1") && !text.contains('\u{1b}'), "{text:?}");
    }
    // Where the newer one was, one of this version comes up: it is found without a restart.
    drop(newer);
    eventually("the port is free", || std::net::UdpSocket::bind(&newer_at).is_ok());
    let _founder = bed.ultrapeer("u1", &["--founder", "--listen", &newer_at]);
    eventually("the ultrapeer is let in", || ultrapeer.probe("/readyz").0 == 200);
    leaf.settled(2, 1);
    assert!(!leaf.problems().iter().any(|problem| problem == "peer_newer"), "{:?}", leaf.problems());
}

/// The first packets of so many handshakes, none of which goes on.
fn first_packets(from: &Node, handshakes: usize) -> Vec<Vec<u8>> {
    let hole = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    hole.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = hole.local_addr().unwrap();
    let mut packets = std::collections::BTreeMap::new();
    let mut dials = Vec::new();
    for wanted in 1..=handshakes {
        let endpoint = from.endpoint.clone();
        dials.push(from.runtime.spawn(async move {
            let _ = endpoint.dial::<LeafMessage>(address, None, Greeting::default()).await;
        }));
        // A handshake has further packets, under the same connection id. A dial that ended here, before its first packet,
        // would send one that closes.
        while packets.len() < wanted {
            let mut packet = vec![0; 2000];
            let length = hole.recv(&mut packet).unwrap();
            packet.truncate(length);
            let id = packet[6..6 + usize::from(packet[5])].to_vec();
            packets.entry(id).or_insert(packet);
        }
    }
    for dial in dials {
        dial.abort();
    }
    packets.into_values().collect()
}

fn resident_bytes(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", number(&daemon.ready["pid"]))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// An ultrapeer and a shared file, in a network of its own where addresses are not those of loopback, on which nobody is
/// sent away: 198.18.0.1 is its own, 198.18.1.2 and 198.18.2.2 are of others.
fn apart() -> (Bed, Daemon) {
    namespace::system(&["ip", "link", "set", "lo", "up"]);
    for address in ["198.18.0.1/32", "198.18.1.2/32", "198.18.2.2/32"] {
        namespace::system(&["ip", "address", "add", address, "dev", "lo"]);
    }
    let bed = Bed::new();
    bed.write(&[("one/treasure.txt", b"gold")]);
    let founder = bed.ultrapeer("u0", &["--founder", "--listen", "198.18.0.1:0"]);
    (bed, founder)
}

#[test]
fn a_flood_from_one_address_keeps_no_one_else_out() {
    if !namespace::inside("hostile::a_flood_from_one_address_keeps_no_one_else_out", &["--net"]) {
        return;
    }
    let (bed, founder) = apart();
    let target: SocketAddr = founder.quic().parse().unwrap();
    let attacker = Node::speaking(66, 1..=1, "198.18.1.2:0");
    let packets = first_packets(&Node::new(67), 200);
    // Connections that are open and say nothing: more than may come at once.
    let open = async {
        let dials = (0..80).map(|_| attacker.endpoint.dial::<LeafMessage>(target, None, Greeting::default()));
        futures_util::future::join_all(dials).await
    };
    let quiet = attacker.runtime.block_on(open);
    // And handshakes that begin and never go on, from ever other ports, without a pause.
    let sockets: Vec<_> = (0..50).map(|_| std::net::UdpSocket::bind("198.18.1.2:0").unwrap()).collect();
    let flood = attacker.runtime.spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_millis(2));
        let mut sent = 0_usize;
        loop {
            beat.tick().await;
            for _ in 0..10 {
                // A full buffer drops it, as it drops what others send.
                let _ = sockets[sent / packets.len() % sockets.len()].send_to(&packets[sent % packets.len()], target);
                sent += 1;
            }
        }
    });
    // Beyond its rate its address must be proven first, which nobody does for it.
    let retried = || founder.counted("quictrack_handshakes_total{direction=\"in\",result=\"retried\"}");
    eventually("the flood is turned away", || retried() > 1000);
    let honest = bed.sharing("honest", &founder, "one", &["--listen", "198.18.2.2:0"]);
    honest.settled(1, 1);
    honest.finds(&["treasure"], &["treasure.txt"]);
    assert!(!flood.is_finished());
    let resident = resident_bytes(&founder);
    assert!(resident < 256 << 20, "{resident} bytes are resident");
    flood.abort();
    drop(quiet);
}

#[test]
fn who_was_sent_away_is_not_let_in_again_at_once() {
    if !namespace::inside("hostile::who_was_sent_away_is_not_let_in_again_at_once", &["--net"]) {
        return;
    }
    let (bed, founder) = apart();
    let home: PeerId = founder.peer().parse().unwrap();
    let target: SocketAddr = founder.quic().parse().unwrap();
    let list = List::new(&[entry("Share/a.txt")]);
    let banned = |reason: &str| founder.counted(&format!("quictrack_bans_total{{scope=\"leaf\",reason=\"{reason}\"}}"));

    let liar = Node::speaking(66, 1..=1, "198.18.1.2:0");
    let mut link = liar.attach(&founder);
    let foreign =
        CatalogRoot::sign(&Identity::from_seed([67; 32]), &statement(home, &list.chunks), list.chunks.clone());
    assert_eq!(liar.upload(&mut link, &foreign, &list.parts), Err(CloseReason::Remote(CloseCode::Violation)));
    assert_eq!((banned("protocol"), banned("flood")), (1, 0));

    let flooder = Node::speaking(68, 1..=1, "198.18.1.2:0");
    let mut link = flooder.attach(&founder);
    let flood = async {
        for sequence in 1..=1_000 {
            let statement = RootStatement { sequence, ..statement(home, &list.chunks) };
            let root = CatalogRoot::sign(&flooder.identity, &statement, list.chunks.clone());
            if link.sender.send(&root.into()).await.is_err() {
                break;
            }
        }
        link.connection.closed().await
    };
    assert_eq!(flooder.runtime.block_on(timeout_of(flood)), CloseReason::Remote(CloseCode::Flood));
    assert_eq!(banned("flood"), 1);
    assert!(founder.counted("quictrack_rate_limited_total{action=\"catalog\"}") > 0);

    for node in [&liar, &flooder] {
        let again = node.endpoint.dial::<LeafMessage>(target, None, Greeting { salt: SALT, ..Greeting::default() });
        let refused = node.runtime.block_on(again).map(drop);
        assert!(
            matches!(refused, Err(DialError::Refused { reason: RefuseReason::Banned, .. })),
            "{refused:?}: it is let in again"
        );
    }
    let honest = bed.sharing("honest", &founder, "one", &["--listen", "198.18.2.2:0"]);
    honest.settled(1, 1);
    honest.finds(&["treasure"], &["treasure.txt"]);
}

#[test]
fn more_handshakes_than_can_be_under_way_are_ignored_and_counted() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let target = founder.quic();
    let packets = first_packets(&Node::new(67), limits::HANDSHAKES + 50);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let ignored = || founder.counted("quictrack_handshakes_total{direction=\"in\",result=\"ignored\"}");
    eventually("some are ignored", || {
        // A full buffer drops them: a few at a time, and those that were not heard once more.
        for some in packets.chunks(20) {
            for packet in some {
                let _ = socket.send_to(packet, &target);
            }
            founder.probe("/healthz");
        }
        ignored() > 0
    });
    assert!(founder.counted("quictrack_rate_limited_total{action=\"handshake\"}") > 0);
    assert_eq!(founder.probe("/healthz").0, 200);
}

/// Attaches as a leaf whose list has one file, agrees to every introduction, and answers each request of another leaf
/// as `answer` says.
fn listing<A>(
    node: &mut Node,
    founder: &Daemon,
    answer: impl Fn(Sender<TransferMessage>, Browse, Connection) -> A + Send + Sync + 'static,
) where
    A: Future<Output = ()> + Send,
{
    let list = List::new(&[entry("Share/treasure.txt")]);
    let mut link = node.attach(founder);
    let root = CatalogRoot::sign(&node.identity, &statement(link.connection.peer(), &list.chunks), list.chunks);
    assert_eq!(node.upload(&mut link, &root, &list.parts), Ok(1));
    node.runtime.spawn(async move {
        while let Ok(Some(message)) = link.receiver.next().await {
            if let LeafMessage::Introduction(introduction) = message {
                let reply = IntroductionReply::new(introduction.session, true);
                link.sender.send(&reply.into()).await.unwrap();
            }
        }
    });
    let (mut arrivals, answer) = (node.arrivals.take().unwrap(), Arc::new(answer));
    node.runtime.spawn(async move {
        while let Some(arrival) = arrivals.next().await {
            let Arrival::Transfer(offer) = arrival else { continue };
            let answer = answer.clone();
            tokio::spawn(async move {
                let Ok(link) = offer.welcome(None).await else { return };
                while let Ok((sender, mut receiver)) = link.connection.accept::<TransferMessage>().await {
                    if let Ok(Some(TransferMessage::Browse(browse))) = receiver.next().await {
                        answer(sender, browse, link.connection.clone()).await;
                    }
                }
            });
        }
    });
}

/// Pages of 100 files that go on and on, or that are empty.
fn page_after(browse: &Browse, files: usize) -> Page {
    let number = match &browse.after {
        Cursor::File(path) => path.rsplit('/').next().unwrap().parse().unwrap(),
        _ => 0_u64,
    };
    let path = |at: u64| format!("Share/{:012}", number + at);
    let entries = (1..=files as u64).map(|at| FileEntry { path: path(at), ..entry("Share/x") });
    Page { entries: Bounded::new(entries), next: Some(Cursor::File(Text::new(&path(100)))), ..Page::default() }
}

#[test]
fn a_peer_that_lists_nonsense_costs_an_error_and_nothing_else() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let victim = bed.leaf("victim", &founder, &[]);
    victim.settled(1, 0);
    let mut node = Node::new(66);
    let way = Arc::new(AtomicUsize::new(0));
    let chosen = way.clone();
    listing(&mut node, &founder, move |mut sender, browse, connection| {
        let way = chosen.load(Ordering::Relaxed);
        async move {
            let page = |page: Page| TransferMessage::from(page);
            let same = browse.after.clone();
            // What fails here is what the victim gave up.
            let _ = match way {
                0 => sender.send_raw(vec![0xff; 4096].into()).await,
                1 => sender.send_raw(frame_of(&[0xaa; 300])).await,
                2 => sender.send(&TransferMessage::from(Granted { turn_bytes: 9 })).await,
                3 => sender.finish(),
                4 => return connection.close(CloseCode::Violation),
                5 => sender.send(&page(Page { next: Some(same), ..page_after(&browse, 100) })).await,
                6 => sender.send(&page(page_after(&browse, 0))).await,
                _ => {
                    let mut files = page_after(&browse, 2);
                    let foreign = ["Other/x", "/etc/passwd", "Share/../../x", "Share//x", "Share/ok\u{1b}[2J.txt"];
                    let foreign = foreign.map(entry).into_iter().chain([FileEntry::unlisted(ContentId([3; 32]), 4)]);
                    files.entries = Bounded::new(files.entries.into_iter().chain(foreign));
                    sender.send(&page(Page { next: None, ..files })).await
                }
            };
            let _ = sender.finish();
        }
    });
    victim.finds(&["treasure"], &["treasure.txt"]);
    let peer = node.identity.peer_id().to_string();
    for chosen in 0..7 {
        way.store(chosen, Ordering::Relaxed);
        let browsed = victim.run(&["browse", &peer]).error(1, "peer_unreachable");
        assert!(browsed["hint"].is_string(), "{chosen}: {browsed}");
        victim.run(&["get", &format!("{peer}/Share")]).error(1, "peer_unreachable");
    }
    way.store(7, Ordering::Relaxed);
    let lines = victim.lines(&["browse", &peer, "Share"]);
    let names: Vec<_> = lines.iter().map(|line| text(&line["name"]).to_owned()).collect();
    assert_eq!(names, ["000000000001", "000000000002", "ok\u{1b}[2J.txt"]);
    assert!(!victim.text(&["browse", &peer, "Share"]).contains('\u{1b}'));
    // A listing without an end does not fill the table of downloads: it is printed page by page until its reader
    // has enough.
    assert_eq!(victim.lines(&["downloads"]).len(), 0);
    assert_eq!(victim.probe("/healthz").0, 200);
    assert!(!victim.log().contains("panicked"), "{}", victim.log());
}

/// A frame of no known type with this body.
fn frame_of(body: &[u8]) -> bytes::Bytes {
    let mut frame = Vec::new();
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(u16::MAX.to_le_bytes());
    frame.extend(body);
    frame.into()
}

#[test]
fn one_network_does_not_take_all_connections_of_a_leaf() {
    const MORE: usize = 12;
    if !namespace::inside("hostile::one_network_does_not_take_all_connections_of_a_leaf", &["--net"]) {
        return;
    }
    namespace::system(&["ip", "link", "set", "lo", "up"]);
    for address in ["198.18.0.1/32", "198.18.1.2/32", "198.18.2.2/32", "198.18.3.2/32"] {
        namespace::system(&["ip", "address", "add", address, "dev", "lo"]);
    }
    let bed = Bed::new();
    bed.write(&[("one/treasure.txt", b"gold")]);
    let founder = bed.ultrapeer("u0", &["--founder", "--listen", "198.18.0.1:0"]);
    let honest = bed.sharing("honest", &founder, "one", &["--listen", "198.18.2.2:0"]);
    honest.settled(1, 1);
    let attacker = Node::speaking(66, 1..=1, "198.18.1.2:0");
    let target: SocketAddr = honest.quic().parse().unwrap();
    let (mut open, mut refused) = (Vec::new(), 0);
    let dials = async {
        while refused < MORE {
            let dials = (0..20).map(|_| attacker.endpoint.dial::<TransferMessage>(target, None, Greeting::default()));
            for dialled in futures_util::future::join_all(dials).await {
                match dialled {
                    Ok(dialled) => open.push(dialled.link),
                    Err(DialError::Refused { reason: RefuseReason::Full, .. }) => refused += 1,
                    // So many at once are not let in as fast.
                    Err(DialError::Timeout { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    attacker.runtime.block_on(timeout_of(dials));
    // One whose dialler gave up may have taken a place for a moment.
    let most = limits::TRANSFER_CONNECTIONS_PER_PREFIX;
    assert!((most - MORE..=most).contains(&open.len()), "{} are open", open.len());
    // Others are served as ever.
    let other = bed.leaf("other", &founder, &["--listen", "198.18.3.2:0"]);
    let found = other.finds(&["treasure"], &["treasure.txt"]);
    other.lines(&["get", text(&found.hits[0]["content"])]);
    // Who lets go makes room.
    open.clear();
    let again = async {
        loop {
            let dialled = attacker.endpoint.dial::<TransferMessage>(target, None, Greeting::default()).await;
            let Ok(dialled) = dialled else { continue };
            let browse = Browse { path: Text::default(), recursive: false, after: Cursor::Start, limit: 1 };
            let Ok((mut sender, mut receiver)) = dialled.link.connection.open::<TransferMessage>().await else {
                continue;
            };
            if sender.send(&browse.into()).await.is_ok() && matches!(receiver.next().await, Ok(Some(_))) {
                return;
            }
        }
    };
    attacker.runtime.block_on(timeout_of(again));
}
