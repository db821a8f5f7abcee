//! Peers that send what they must not, or nothing, or ask for more than they may: each is contained, and downloads end with
//! the right bytes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use overlay::{
    identity::Identity,
    limits,
    metrics::{self, Build, Role},
    transport::{Arrival, Arrivals, BindMode, CloseCode, Connection, Endpoint, Greeting, Receiver, Sender, Settings},
    verify::{self, Hashed, Layout, PieceHasher},
    wire::{
        bounded::List,
        transfer::{Denied, DenyReason, Granted, Open, Opened, Pieces, Segment, TransferMessage, Want},
    },
};
use tokio::{task::JoinSet, time::timeout};

#[path = "support/transfer.rs"]
mod support;

use self::support::{MIB, Network, Node, PATIENCE, bytes, check, done, request};

/// What a source does when it is asked for pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It sends them, and then more.
    TooMuch,
    /// It sends the first of them and closes the connection.
    OneAndCloses,
    /// It says that it has none of what it said that it has.
    HasNot,
    /// It sends the head and nothing else.
    Stalls,
    /// It sends other bytes.
    Wrong,
}

/// A source that follows its script.
#[derive(Debug)]
struct Script {
    answer: Answer,
    data: Vec<u8>,
    hashed: Hashed,
    /// How often it was asked for pieces.
    asked: AtomicUsize,
}

impl Script {
    /// Starts one that is known to the network. It ends with the runtime.
    fn start(network: &Network, seed: u8, data: &[u8], answer: Answer) -> Arc<Self> {
        let mut hasher = PieceHasher::new(data.len() as u64).unwrap();
        hasher.update(data).unwrap();
        let hashed = hasher.finish().unwrap();
        let script = Arc::new(Self { answer, data: data.to_vec(), hashed, asked: AtomicUsize::new(0) });
        let identity = Identity::from_seed([seed; 32]);
        let settings = Settings { network: "test".into(), secret: None, agent: "test/1".into() };
        let bound = Endpoint::bind("127.0.0.1:0".parse().unwrap(), BindMode::Given, &identity, settings);
        let (endpoint, arrivals) = bound.unwrap();
        network.addresses.lock().unwrap().insert(endpoint.peer(), endpoint.local_address());
        network.sources.lock().unwrap().push(endpoint.peer());
        tokio::spawn(Arc::clone(&script).serve(endpoint, arrivals));
        script
    }

    async fn serve(self: Arc<Self>, _endpoint: Endpoint, mut arrivals: Arrivals) {
        while let Some(arrival) = arrivals.next().await {
            let Arrival::Transfer(offer) = arrival else { continue };
            let Ok(link) = offer.welcome(None).await else { continue };
            let script = Arc::clone(&self);
            tokio::spawn(async move {
                while let Ok((sender, receiver)) = link.connection.accept::<TransferMessage>().await {
                    let (script, connection) = (Arc::clone(&script), link.connection.clone());
                    tokio::spawn(async move { script.stream(&connection, sender, receiver).await });
                }
            });
        }
    }

    /// One stream. `None` when the other side has gone.
    async fn stream(
        &self,
        connection: &Connection,
        mut sender: Sender<TransferMessage>,
        mut receiver: Receiver<TransferMessage>,
    ) -> Option<()> {
        let layout = Layout::new(self.data.len() as u64).unwrap();
        match receiver.next().await.ok()?? {
            TransferMessage::Open(_) => {
                let tops = verify::segment_values(layout.size(), &self.hashed.pieces).unwrap();
                let opened = Opened { size: layout.size(), complete: true, tops: List::new(tops) };
                sender.send(&opened.into()).await.ok()?;
                sender.send(&Granted { turn_bytes: u64::MAX }.into()).await.ok()?;
                while receiver.next().await.ok()?.is_some() {}
            }
            TransferMessage::WantSegment(_) => {
                let pieces = List::new(self.hashed.pieces.iter().copied());
                sender.send(&Segment { pieces }.into()).await.ok()?;
            }
            TransferMessage::Want(want) => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                self.pieces(connection, layout, want, &mut sender).await?;
            }
            _ => sender.send(&Denied { reason: DenyReason::NotHeld }.into()).await.ok()?,
        }
        Some(())
    }

    async fn pieces(
        &self,
        connection: &Connection,
        layout: Layout,
        want: Want,
        sender: &mut Sender<TransferMessage>,
    ) -> Option<()> {
        if self.answer == Answer::HasNot {
            return sender.send(&Denied { reason: DenyReason::NotHeld }.into()).await.ok();
        }
        let first = layout.piece_range(want.first).unwrap();
        let last = layout.piece_range(want.first + u64::from(want.count) - 1).unwrap();
        let head = Pieces { first: want.first, count: want.count, bytes: last.end - first.start };
        sender.send(&head.into()).await.ok()?;
        let mut data = self.data[first.start as usize..last.end as usize].to_vec();
        match self.answer {
            Answer::TooMuch => data.resize(data.len() + 100_000, 7),
            Answer::OneAndCloses => data.truncate((first.end - first.start) as usize),
            Answer::Stalls => {
                connection.closed().await;
                return None;
            }
            Answer::Wrong | Answer::HasNot => data.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1),
        }
        sender.send_raw(Bytes::from(data)).await.ok()?;
        if self.answer == Answer::OneAndCloses {
            sender.finish().ok()?;
            // The piece arrives before the end does.
            sender.delivered().await.ok()?;
            connection.close(CloseCode::Done);
        }
        Some(())
    }
}

/// What the process has counted in a series; counting begins with the first call.
fn counted(series: &str) -> f64 {
    let build = Build { version: "0.1.0", revision: "unknown", role: Role::Leaf };
    let text = metrics::install(build, &[leaf::metrics::FAMILIES]).unwrap().render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("no {series}: {text}"));
    line.trim().parse().unwrap()
}

/// Waits for something that is counted a moment later.
async fn until_more(series: &str, before: f64) {
    let counting = async {
        while counted(series) <= before {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, counting).await.unwrap_or_else(|_| panic!("{series} stays at {before}"));
}

/// Downloads what the sources of a network have, and checks the bytes.
async fn ends_right(network: &Network, data: &[u8]) {
    let node = Node::new(network, 99, &[]).await;
    check(&done(node.get(request(data)).await), data);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_sends_too_much_is_closed_and_nothing_of_that_is_kept() {
    const UNEXPECTED: &str = "quictrack_message_errors_total{reason=\"unexpected\"}";
    let (network, data) = (Network::default(), bytes(32 * MIB));
    let before = counted(UNEXPECTED);
    let script = Script::start(&network, 1, &data, Answer::TooMuch);
    let _honest = Node::new(&network, 2, &[("a.bin", &data)]).await;
    ends_right(&network, &data).await;
    assert!(script.asked.load(Ordering::Relaxed) > 0);
    until_more(UNEXPECTED, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_closes_after_every_piece_costs_no_piece() {
    let (network, data) = (Network::default(), bytes(2 * MIB));
    let script = Script::start(&network, 1, &data, Answer::OneAndCloses);
    let _honest = Node::new(&network, 2, &[("a.bin", &data)]).await;
    ends_right(&network, &data).await;
    assert!(script.asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_has_nothing_of_what_it_claims_is_asked_seldom() {
    const DENIED: &str = "quictrack_messages_total{type=\"denied\",direction=\"in\"}";
    let (network, data) = (Network::default(), bytes(2 * MIB));
    let before = counted(DENIED);
    let script = Script::start(&network, 1, &data, Answer::HasNot);
    let _honest = Node::new(&network, 2, &[("a.bin", &data)]).await;
    ends_right(&network, &data).await;
    let asked = script.asked.load(Ordering::Relaxed);
    assert!((1..=8).contains(&asked), "{asked} requests for 8 pieces");
    until_more(DENIED, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_stalls_holds_nothing_up() {
    let (network, data) = (Network::default(), bytes(4 * MIB));
    let script = Script::start(&network, 1, &data, Answer::Stalls);
    let honest = Node::new(&network, 2, &[("a.bin", &data)]).await;
    ends_right(&network, &data).await;
    assert!(script.asked.load(Ordering::Relaxed) > 0);
    honest.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_sources_but_one_lie_the_bytes_are_right() {
    const CORRUPT: &str = "quictrack_verified_pieces_total{result=\"corrupt\"}";
    let (network, data) = (Network::default(), bytes(6 * MIB));
    let before = counted(CORRUPT);
    let liars: Vec<_> = (1..=6).map(|seed| Script::start(&network, seed, &data, Answer::Wrong)).collect();
    let honest = Node::new(&network, 50, &[("a.bin", &data)]).await;
    let node = Node::new(&network, 99, &[]).await;
    let finished = done(node.get(request(&data)).await);
    check(&finished, &data);
    let senders: Vec<_> = finished.sources.iter().map(|source| source.peer).collect();
    assert_eq!(senders, [honest.peer], "nothing of the others is in it");
    assert!(liars.iter().any(|liar| liar.asked.load(Ordering::Relaxed) > 0));
    assert!(counted(CORRUPT) > before);
}

/// A peer that does what it likes, with a granted session.
async fn granted(
    node: &Node,
    source: &Node,
    data: &[u8],
) -> (Connection, Sender<TransferMessage>, Receiver<TransferMessage>) {
    let (connection, sender, receiver, _) = suggested(node, source, data).await;
    (connection, sender, receiver)
}

/// The same, and what was suggested to it by then.
async fn suggested(
    node: &Node,
    source: &Node,
    data: &[u8],
) -> (Connection, Sender<TransferMessage>, Receiver<TransferMessage>, Vec<u64>) {
    let address = source.endpoint.local_address();
    let dialled = node.endpoint.dial::<TransferMessage>(address, Some(source.peer), Greeting::default()).await;
    let connection = dialled.unwrap().link.connection;
    let (mut sender, mut receiver) = connection.open::<TransferMessage>().await.unwrap();
    sender.send(&Open { content: request(data).content, homes: List::default() }.into()).await.unwrap();
    let mut pieces = Vec::new();
    loop {
        match receiver.next().await.unwrap().unwrap() {
            TransferMessage::Suggest(run) => pieces.extend(run.first..run.first + u64::from(run.count)),
            TransferMessage::Granted(_) => return (connection, sender, receiver, pieces),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_for_one_piece_for_ever_has_its_quota_and_keeps_nobody_out() {
    let (network, data) = (Network::default(), bytes(2 * MIB));
    let source = Node::new(&network, 1, &[("a.bin", &data)]).await;
    source.uploads.set_quota(Some(4 * MIB as u64)).await;
    let greedy = Node::new(&network, 2, &[]).await;
    let (connection, _session, _told) = granted(&greedy, &source, &data).await;
    let content = request(&data).content;
    let asking = tokio::spawn(async move {
        let mut sent = 0;
        loop {
            let (mut sender, mut receiver) = connection.open::<TransferMessage>().await.unwrap();
            sender.send(&Want { content, first: 0, count: 1 }.into()).await.unwrap();
            match receiver.next().await.unwrap().unwrap() {
                TransferMessage::Pieces(head) => {
                    let mut piece = Vec::new();
                    receiver.receive_raw(&mut piece, head.bytes as usize).await.unwrap();
                    sent += piece.len();
                }
                TransferMessage::Denied(_) => return sent,
                other => panic!("{other:?}"),
            }
        }
    });
    ends_right(&network, &data).await;
    let sent = timeout(PATIENCE, asking).await.expect("it is denied in the end").unwrap();
    // What was under way when the quota was reached is sent to its end.
    assert!((4 * MIB..5 * MIB).contains(&sent), "{sent}");
}

/// A source sends everything once before anything twice; who asks for a piece and goes does not keep it from others.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_asked_for_and_did_not_take_is_suggested_to_others() {
    let (network, data) = (Network::default(), bytes(3 * MIB));
    let source = Node::new(&network, 1, &[("a.bin", &data)]).await;
    let (fickle, other) = (Node::new(&network, 2, &[]).await, Node::new(&network, 3, &[]).await);
    source.uploads.set_rate(Some(10_000));
    // While nobody has a session, the source forgets what it has sent.
    let _stays = granted(&Node::new(&network, 4, &[]).await, &source, &data).await;
    let (connection, _session, _told) = granted(&fickle, &source, &data).await;
    let (mut sender, mut receiver) = connection.open::<TransferMessage>().await.unwrap();
    sender.send(&Want { content: request(&data).content, first: 1, count: 1 }.into()).await.unwrap();
    assert!(matches!(receiver.next().await.unwrap().unwrap(), TransferMessage::Pieces(_)));
    connection.close(CloseCode::Shutdown);
    let comes_up = async { while !suggested(&other, &source, &data).await.3.contains(&1) {} };
    timeout(PATIENCE, comes_up).await.expect("it is suggested again before everything was sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_opens_a_thousand_streams_has_as_many_as_it_may_and_keeps_nobody_out() {
    let (network, data) = (Network::default(), bytes(2 * MIB));
    let source = Node::new(&network, 1, &[("a.bin", &data)]).await;
    let greedy = Node::new(&network, 2, &[]).await;
    let (connection, _session, _told) = granted(&greedy, &source, &data).await;
    let opened = Arc::new(AtomicUsize::new(1));
    let mut streams = JoinSet::new();
    for _ in 0..1000 {
        let (connection, opened) = (connection.clone(), Arc::clone(&opened));
        streams.spawn(async move {
            let (mut sender, receiver) = connection.open::<TransferMessage>().await.unwrap();
            opened.fetch_add(1, Ordering::Relaxed);
            // Begun, and never ended.
            let want = Open { content: request(b"something else").content, homes: List::default() };
            let _ = sender.begin(&want.into());
            std::future::pending::<()>().await;
            drop((sender, receiver));
        });
    }
    ends_right(&network, &data).await;
    let opened = opened.load(Ordering::Relaxed);
    assert!(opened <= limits::TRANSFER_STREAMS as usize, "{opened}");
    assert!(opened > 1);
}
