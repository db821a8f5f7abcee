//! The transport over real sockets on loopback.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::net::SocketAddr;

use bytes::Bytes;
use overlay::{
    bans::{Rules, Target},
    id::HandleSalt,
    identity::Identity,
    limits,
    metrics::{self, Build, Role},
    transport::{
        Arrival, Arrivals, BindError, BindMode, CloseCode, CloseReason, DialError, Dialled, Endpoint, Event, Greeting,
        Link, Offer, ReceiveError, Secret, SendError, Settings, Windows,
    },
    wire::{
        Conversation, Protocol,
        bounded::List,
        hello::{Contact, Goodbye, Refuse, RefuseReason, Situation},
        leaf::{LeafMessage, Ping, Pong},
        mesh::MeshMessage,
        transfer::TransferMessage,
    },
};

const LOOPBACK: &str = "127.0.0.1:0";

fn settings() -> Settings {
    Settings { network: "public".into(), secret: None, agent: "test/1".into() }
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

fn node(seed: u8, settings: Settings) -> (Endpoint, Arrivals) {
    Endpoint::bind(LOOPBACK.parse().unwrap(), BindMode::Given, &identity(seed), settings).unwrap()
}

async fn dial(from: &Endpoint, to: SocketAddr) -> Result<Dialled<LeafMessage>, DialError> {
    from.dial(to, None, Greeting::default()).await
}

/// A dialled and a dialling node, and the two ends of a welcomed leaf connection between them.
struct Pair {
    server: Endpoint,
    arrivals: Arrivals,
    client: Endpoint,
    theirs: Link<LeafMessage>,
    ours: Link<LeafMessage>,
}

async fn pair() -> Pair {
    let (server, mut arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    let address = server.local_address();
    let (dialled, theirs) = tokio::join!(dial(&client, address), welcome_leaf(&mut arrivals));
    Pair { server, arrivals, client, theirs, ours: dialled.unwrap().link }
}

async fn welcome_leaf(arrivals: &mut Arrivals) -> Link<LeafMessage> {
    match arrivals.next().await {
        Some(Arrival::Leaf(offer)) => offer.welcome(None).await.unwrap(),
        other => panic!("a leaf should arrive, not {other:?}"),
    }
}

async fn ping(link: &mut Link<LeafMessage>, token: u64) -> Result<(), SendError> {
    link.sender.send(&Ping { token }.into()).await
}

#[tokio::test]
async fn the_way_to_a_node_is_measured_without_a_connection_and_to_nobody_not_at_all() {
    let (server, _arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    assert!(client.measure(server.local_address()).await.is_some());
    assert_eq!((server.connections(), client.connections()), (0, 0));
    let (gone, _) = node(3, settings());
    let address = gone.local_address();
    gone.close(CloseCode::Done);
    gone.wait_idle().await;
    drop(gone);
    assert_eq!(client.measure(address).await, None);
    // It still works after the socket was exchanged.
    client.rebind("127.0.0.1:0".parse().unwrap()).unwrap();
    assert!(client.measure(server.local_address()).await.is_some());
}

#[tokio::test]
async fn both_sides_learn_each_others_key_and_address() {
    let (server, mut arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    let address = server.local_address();
    let greeting =
        Greeting { salt: HandleSalt([7; 16]), introduction: 9, insists: true, situation: Situation::Volunteer };
    let accept = async {
        let Some(Arrival::Leaf(offer)) = arrivals.next().await else { panic!("a leaf should arrive") };
        assert_eq!(offer.peer(), client.peer());
        assert_eq!(offer.address(), client.local_address());
        let hello = offer.hello();
        assert_eq!((hello.salt, hello.introduction, hello.insists), (HandleSalt([7; 16]), 9, true));
        assert_eq!(hello.situation, Situation::Volunteer);
        assert_eq!(&*offer.hello().agent, "test/1");
        offer.welcome(None).await.unwrap()
    };
    let (dialled, theirs) = tokio::join!(client.dial::<LeafMessage>(address, Some(server.peer()), greeting), accept);
    let Dialled { link: mut ours, welcome } = dialled.unwrap();
    assert_eq!(ours.connection.peer(), server.peer());
    assert_eq!(ours.connection.protocol(), Protocol::Leaf);
    assert_eq!(ours.connection.observed(), Some(client.local_address()));
    assert_eq!(theirs.connection.observed(), Some(address));
    assert_eq!(welcome.observed, client.local_address());
    assert_eq!(ours.connection.channel_binding(), theirs.connection.channel_binding());

    let mut theirs = theirs;
    ping(&mut ours, 5).await.unwrap();
    assert_eq!(theirs.receiver.next().await, Ok(Some(Ping { token: 5 }.into())));
    theirs.sender.send(&Pong { token: 5 }.into()).await.unwrap();
    assert_eq!(ours.receiver.next().await, Ok(Some(Pong { token: 5 }.into())));
    assert_eq!(server.stats().count(Event::HandshakeOffered), 1);
    assert_eq!(client.stats().count(Event::DialWelcomed), 1);
}

#[tokio::test]
async fn another_key_than_the_expected_one_is_not_told_ours() {
    let (server, _arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    let (address, expected) = (server.local_address(), identity(3).peer_id());
    let result = client.dial::<LeafMessage>(address, Some(expected), Greeting::default()).await;
    assert_eq!(result.unwrap_err(), DialError::WrongPeer { address, expected, found: server.peer() });
    assert_eq!(server.stats().count(Event::HandshakeOffered), 0);
}

#[tokio::test]
async fn networks_of_different_names_stay_apart() {
    let (server, _arrivals) = node(1, settings());
    let (client, _) = node(2, Settings { network: "other".into(), ..settings() });
    let address = server.local_address();
    assert_eq!(dial(&client, address).await.unwrap_err(), DialError::WrongNetwork { address });
    assert_eq!(server.stats().count(Event::HelloRefused), 1);
}

#[tokio::test]
async fn both_sides_must_know_the_secret() {
    let with =
        |secret: Option<&str>| Settings { secret: secret.map(|text| Secret::new(text.as_bytes())), ..settings() };
    let cases = [(None, Some("a")), (Some("a"), None), (Some("a"), Some("b"))];
    for (ours, theirs) in cases {
        let (server, _arrivals) = node(1, with(theirs));
        let (client, _) = node(2, with(ours));
        let address = server.local_address();
        assert_eq!(
            dial(&client, address).await.unwrap_err(),
            DialError::WrongSecret { address },
            "{ours:?} {theirs:?}"
        );
    }
    let (server, mut arrivals) = node(1, with(Some("a")));
    let (client, _) = node(2, with(Some("a")));
    let (dialled, _theirs) = tokio::join!(dial(&client, server.local_address()), welcome_leaf(&mut arrivals));
    assert!(dialled.is_ok());
}

#[tokio::test]
async fn a_refusal_arrives_with_its_reason() {
    let (server, mut arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    let address = server.local_address();
    let refuse = async {
        let Some(Arrival::Leaf(offer)) = arrivals.next().await else { panic!("a leaf should arrive") };
        offer.refuse(RefuseReason::Full, Vec::new());
    };
    let (result, ()) = tokio::join!(dial(&client, address), refuse);
    let expected = DialError::Refused {
        address,
        reason: RefuseReason::Full,
        alternatives: Vec::new(),
        peer: server.peer(),
        situation: Situation::Settled,
        contacts: Vec::new(),
    };
    assert_eq!(result.unwrap_err(), expected);
}

#[tokio::test]
async fn a_node_does_not_connect_to_itself() {
    let (node, _arrivals) = node(1, settings());
    let address = node.local_address();
    assert_eq!(dial(&node, address).await.unwrap_err(), DialError::SelfDial { address });
}

/// The leaf side of a node that is an ultrapeer attaches to it like any other leaf.
#[tokio::test]
async fn a_node_that_asks_for_itself_by_name_is_a_leaf_of_its_own_and_nothing_else() {
    let (node, mut arrivals) = node(1, settings());
    let (address, own) = (node.local_address(), Some(node.peer()));
    let dialling = node.dial::<LeafMessage>(address, own, Greeting::default());
    let (dialled, mut theirs) = tokio::join!(dialling, welcome_leaf(&mut arrivals));
    let mut ours = dialled.unwrap().link;
    assert_eq!((ours.connection.peer(), theirs.connection.peer()), (node.peer(), node.peer()));
    ping(&mut ours, 5).await.unwrap();
    assert_eq!(theirs.receiver.next().await, Ok(Some(Ping { token: 5 }.into())));
    theirs.sender.send(&Pong { token: 5 }.into()).await.unwrap();
    assert_eq!(ours.receiver.next().await, Ok(Some(Pong { token: 5 }.into())));

    let mesh = node.dial::<MeshMessage>(address, own, Greeting::default()).await;
    assert_eq!(mesh.unwrap_err(), DialError::SelfDial { address });
    let transfer = node.dial::<TransferMessage>(address, own, Greeting::default()).await;
    assert_eq!(transfer.unwrap_err(), DialError::SelfDial { address });
}

#[tokio::test]
async fn a_leaf_that_refuses_says_how_it_stands_and_whom_it_knows() {
    let (server, mut arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    let contact = Contact { peer: identity(3).peer_id(), address: "192.0.2.1:9".parse().unwrap() };
    let refuse = async {
        let Some(Arrival::Leaf(offer)) = arrivals.next().await else { panic!("a leaf should arrive") };
        let contacts = List::new([contact]);
        let situation = Situation::Homeless;
        offer.refuse_with(Refuse { situation, contacts, ..Refuse::new(RefuseReason::NotUltrapeer, Vec::new()) });
    };
    let address = server.local_address();
    let (refused, ()) = tokio::join!(dial(&client, address), refuse);
    let Err(DialError::Refused { peer, situation, contacts, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!((peer, situation, contacts), (server.peer(), Situation::Homeless, vec![contact]));
}

#[tokio::test]
async fn a_node_that_only_dials_is_no_server() {
    let loopback = "127.0.0.1".parse().unwrap();
    let (server, mut arrivals) = node(1, settings());
    let client = Endpoint::dial_only(loopback, &identity(2), settings()).unwrap();
    let (dialled, _theirs) = tokio::join!(dial(&client, server.local_address()), welcome_leaf(&mut arrivals));
    assert!(dialled.is_ok());
    let address = client.local_address();
    tokio::time::pause();
    assert_eq!(dial(&server, address).await.unwrap_err(), DialError::Timeout { address });
}

#[tokio::test]
async fn addresses_of_no_host_are_unreachable() {
    let (client, _arrivals) = node(1, settings());
    for address in ["127.0.0.1:0", "[::1]:7780"] {
        let address = address.parse().unwrap();
        assert_eq!(dial(&client, address).await.unwrap_err(), DialError::Unreachable { address });
    }
}

#[tokio::test]
async fn the_default_socket_speaks_both_families() {
    let (server, mut arrivals) =
        Endpoint::bind("[::]:0".parse().unwrap(), BindMode::Default, &identity(1), settings()).unwrap();
    let (client, _) = node(2, settings());
    let address = SocketAddr::new("127.0.0.1".parse().unwrap(), server.local_address().port());
    let (dialled, theirs) = tokio::join!(dial(&client, address), welcome_leaf(&mut arrivals));
    assert_eq!(dialled.unwrap().link.connection.remote_address(), address);
    assert_eq!(theirs.connection.remote_address(), client.local_address());
}

#[tokio::test]
async fn requests_have_streams_of_their_own_and_raw_bytes_follow_messages() {
    let mut pair = pair().await;
    pair.ours.connection.set_windows(Windows::Bulk);
    pair.theirs.connection.set_windows(Windows::Bulk);
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
    let serve = async {
        let (mut sender, mut receiver) = pair.theirs.connection.accept::<LeafMessage>().await.unwrap();
        assert_eq!(receiver.next().await, Ok(Some(Ping { token: 1 }.into())));
        assert_eq!(receiver.next().await, Ok(None));
        sender.send(&Pong { token: 1 }.into()).await.unwrap();
        for part in content.chunks(1 << 20) {
            sender.send_raw(Bytes::copy_from_slice(part)).await.unwrap();
        }
        sender.send(&Pong { token: 2 }.into()).await.unwrap();
        sender.finish().unwrap();
        sender.delivered().await.unwrap();
    };
    let ask = async {
        let (mut sender, mut receiver) = pair.ours.connection.open::<LeafMessage>().await.unwrap();
        sender.send(&Ping { token: 1 }.into()).await.unwrap();
        sender.finish().unwrap();
        assert_eq!(receiver.next().await, Ok(Some(Pong { token: 1 }.into())));
        let mut received = Vec::new();
        receiver.receive_raw(&mut received, content.len()).await.unwrap();
        assert!(received == content);
        assert_eq!(receiver.next().await, Ok(Some(Pong { token: 2 }.into())));
        assert_eq!(receiver.next().await, Ok(None));
    };
    tokio::join!(serve, ask);
    // The control stream is untouched.
    ping(&mut pair.ours, 9).await.unwrap();
    assert_eq!(pair.theirs.receiver.next().await, Ok(Some(Ping { token: 9 }.into())));
}

#[tokio::test]
async fn ultrapeers_open_one_way_streams() {
    let (server, mut arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    let accept = async {
        let Some(Arrival::Mesh(offer)) = arrivals.next().await else { panic!("an ultrapeer should arrive") };
        offer.welcome(None).await.unwrap()
    };
    let (dialled, theirs) =
        tokio::join!(client.dial::<MeshMessage>(server.local_address(), None, Greeting::default()), accept);
    let ours = dialled.unwrap().link;
    let goodbye = MeshMessage::from(Goodbye { alternatives: List::default() });
    for (from, to) in [(&ours.connection, &theirs.connection), (&theirs.connection, &ours.connection)] {
        let mut sender = from.open_one_way::<MeshMessage>().await.unwrap();
        sender.set_priority(5);
        sender.send(&goodbye).await.unwrap();
        let mut receiver = to.accept_one_way::<MeshMessage>().await.unwrap();
        assert_eq!(receiver.next().await, Ok(Some(goodbye.clone())));
    }
}

#[tokio::test]
async fn messages_of_later_releases_are_skipped() {
    let mut pair = pair().await;
    let unknown = |length: u32| [length.to_le_bytes().as_slice(), &[0xff, 0x7f], &vec![7; length as usize]].concat();
    let send = async {
        for length in [0, 1, 40_000] {
            pair.ours.sender.send_raw(unknown(length).into()).await.unwrap();
        }
        ping(&mut pair.ours, 4).await.unwrap();
    };
    let ((), received) = tokio::join!(send, pair.theirs.receiver.next());
    assert_eq!(received, Ok(Some(Ping { token: 4 }.into())));
}

/// A protocol, and who knocks for it.
trait Spoken: Conversation + PartialEq + std::fmt::Debug {
    fn offer(arrival: Arrival) -> Option<Offer<Self>>;
}

impl Spoken for LeafMessage {
    fn offer(arrival: Arrival) -> Option<Offer<Self>> {
        if let Arrival::Leaf(offer) = arrival { Some(offer) } else { None }
    }
}

impl Spoken for MeshMessage {
    fn offer(arrival: Arrival) -> Option<Offer<Self>> {
        if let Arrival::Mesh(offer) = arrival { Some(offer) } else { None }
    }
}

impl Spoken for TransferMessage {
    fn offer(arrival: Arrival) -> Option<Offer<Self>> {
        if let Arrival::Transfer(offer) = arrival { Some(offer) } else { None }
    }
}

/// A welcomed connection of any protocol: dialling end, dialled end.
async fn link<M: Spoken>(client: &Endpoint, server: &Endpoint, arrivals: &mut Arrivals) -> (Link<M>, Link<M>) {
    let welcome = async {
        let offer = arrivals.next().await.and_then(M::offer).expect("a dialler of this protocol arrives");
        offer.welcome(None).await.unwrap()
    };
    let (dialled, theirs) = tokio::join!(client.dial::<M>(server.local_address(), None, Greeting::default()), welcome);
    (dialled.unwrap().link, theirs)
}

fn frame(number: u16, length: usize, body: &[u8]) -> Vec<u8> {
    [&(length as u32).to_le_bytes()[..], &number.to_le_bytes(), body].concat()
}

/// What the process has counted in a series; counting begins with the first call.
fn counted(series: &str) -> f64 {
    let build = Build { version: "0.1.0", revision: "unknown", role: Role::Leaf };
    let text = metrics::install(build, &[]).unwrap().render();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {series}: {text}"))
}

/// Bytes that no message of any protocol begins with, after the hello.
fn hostile_frames() -> Vec<(&'static str, Vec<u8>)> {
    let noise: Vec<u8> = (1..=200_u8).map(|at| at.wrapping_mul(151) | 1).collect();
    vec![
        ("four billion bytes of an unknown message", vec![0xff; 6]),
        ("an unknown message over its cap", frame(0x7fff, limits::UNKNOWN_FRAME_BYTES + 1, &[])),
        ("a good-bye over its cap, judged before its body", frame(4, 1 << 20, &[])),
        ("a good-bye that ends early", frame(4, 0, &[])),
        ("a good-bye with bytes left over", frame(4, 2, &[0, 0])),
        ("a good-bye that counts to four billion", frame(4, 5, &[0xff, 0xff, 0xff, 0xff, 0x0f])),
        ("noise", noise),
    ]
}

async fn hostile_frames_close_only_their_connection<M: Spoken>() {
    let (server, mut arrivals) = node(1, settings());
    let (bystander, _) = node(3, settings());
    let (mut other, mut beside) = link::<LeafMessage>(&bystander, &server, &mut arrivals).await;
    for (at, (what, bytes)) in hostile_frames().into_iter().enumerate() {
        let (client, _) = node(2, settings());
        // On the control stream, and on one of its own.
        for own_stream in [false, true] {
            let (mut ours, mut theirs) = link::<M>(&client, &server, &mut arrivals).await;
            let before = server.stats().count(Event::MalformedFrame);
            counted("quictrack_message_errors_total{reason=\"decode\"}");
            let error = if own_stream && M::PROTOCOL != Protocol::Mesh {
                let (mut sender, _receiver) = ours.connection.open::<M>().await.unwrap();
                sender.send_raw(Bytes::copy_from_slice(&bytes)).await.unwrap();
                let (_, mut receiver) = theirs.connection.accept::<M>().await.unwrap();
                receiver.next().await.unwrap_err()
            } else {
                ours.sender.send_raw(Bytes::copy_from_slice(&bytes)).await.unwrap();
                theirs.receiver.next().await.unwrap_err()
            };
            assert!(matches!(error, ReceiveError::Malformed(_)), "{what}: {error}");
            assert_eq!(ours.connection.closed().await, CloseReason::Remote(CloseCode::Violation), "{what}");
            assert_eq!(theirs.connection.closed().await, CloseReason::Local(CloseCode::Violation), "{what}");
            assert_eq!(server.stats().count(Event::MalformedFrame), before + 1, "{what}");
            let reason = if what.contains("over its cap") || what.contains("four billion bytes") {
                "oversize"
            } else {
                "decode"
            };
            assert!(counted(&format!("quictrack_message_errors_total{{reason=\"{reason}\"}}")) > 0.0, "{what}");
        }
        let token = at as u64;
        ping(&mut other, token).await.unwrap();
        assert_eq!(beside.receiver.next().await, Ok(Some(Ping { token }.into())), "others go on");
    }
}

#[tokio::test]
async fn hostile_frames_of_a_leaf_close_only_its_connection() {
    hostile_frames_close_only_their_connection::<LeafMessage>().await;
}

#[tokio::test]
async fn hostile_frames_of_an_ultrapeer_close_only_its_connection() {
    hostile_frames_close_only_their_connection::<MeshMessage>().await;
}

#[tokio::test]
async fn hostile_frames_of_a_downloader_close_only_its_connection() {
    hostile_frames_close_only_their_connection::<TransferMessage>().await;
}

/// Many that stall inside of a frame: each is closed in bounded time, and meanwhile others are served.
#[tokio::test]
async fn many_that_stall_inside_of_a_frame_are_closed_and_hold_up_nobody() {
    let (server, mut arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    let mut stalled = Vec::new();
    for _ in 0..40 {
        let (mut ours, mut theirs) = link::<TransferMessage>(&client, &server, &mut arrivals).await;
        // A page that would be within its cap, of which hardly anything comes.
        ours.sender.send_raw(frame(4, 1000, &[1, 2, 3]).into()).await.unwrap();
        let reading = tokio::spawn(async move { (theirs.receiver.next().await, theirs.connection) });
        stalled.push((ours, reading));
    }
    let (honest, _) = node(3, settings());
    let (mut ours, mut theirs) = link::<LeafMessage>(&honest, &server, &mut arrivals).await;
    ping(&mut ours, 1).await.unwrap();
    assert_eq!(theirs.receiver.next().await, Ok(Some(Ping { token: 1 }.into())));
    tokio::time::pause();
    for (ours, reading) in stalled {
        let (result, connection) = reading.await.unwrap();
        assert_eq!(result, Err(ReceiveError::Stalled));
        assert_eq!(connection.closed().await, CloseReason::Local(CloseCode::Silent));
        assert_eq!(ours.connection.closed().await, CloseReason::Remote(CloseCode::Silent));
    }
    tokio::time::resume();
    assert_eq!(server.stats().count(Event::StalledFrame), 40);
    ping(&mut ours, 2).await.unwrap();
    assert_eq!(theirs.receiver.next().await, Ok(Some(Ping { token: 2 }.into())));
}

#[tokio::test]
async fn a_frame_that_is_not_finished_closes_its_connection() {
    let mut pair = pair().await;
    pair.ours.sender.send_raw(Bytes::from_static(&[1, 0, 0, 0, 19])).await.unwrap();
    tokio::time::pause();
    assert_eq!(pair.theirs.receiver.next().await, Err(ReceiveError::Stalled));
    assert_eq!(pair.theirs.connection.closed().await, CloseReason::Local(CloseCode::Silent));
    assert_eq!(pair.server.stats().count(Event::StalledFrame), 1);
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_closes_its_connection() {
    let mut pair = pair().await;
    tokio::time::pause();
    let more_than_the_window = Bytes::from(vec![0; 1 << 20]);
    assert_eq!(pair.ours.sender.send_raw(more_than_the_window).await, Err(SendError::Stalled));
    assert_eq!(pair.theirs.connection.closed().await, CloseReason::Remote(CloseCode::Silent));
}

#[tokio::test]
async fn a_cancelled_receive_loses_nothing() {
    let mut pair = pair().await;
    pair.ours.sender.send_raw(Bytes::from_static(&[1, 0, 0])).await.unwrap();
    for _ in 0..3 {
        tokio::select! {
            biased;
            received = pair.theirs.receiver.next() => panic!("a torn frame was read: {received:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    pair.ours.sender.send_raw(Bytes::from_static(&[0, 19, 0, 8])).await.unwrap();
    assert_eq!(pair.theirs.receiver.next().await, Ok(Some(Ping { token: 8 }.into())));
}

#[tokio::test]
async fn a_sender_dropped_inside_of_a_frame_abandons_its_stream() {
    let pair = pair().await;
    let (mut sender, _answers) = pair.ours.connection.open::<LeafMessage>().await.unwrap();
    sender.send(&Ping { token: 1 }.into()).await.unwrap();
    let (_, mut receiver) = pair.theirs.connection.accept::<LeafMessage>().await.unwrap();
    assert_eq!(receiver.next().await, Ok(Some(Ping { token: 1 }.into())));
    {
        let blocked = sender.send_raw(Bytes::from(vec![0; 1 << 20]));
        tokio::select! {
            biased;
            result = blocked => panic!("a closed window let a megabyte through: {result:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(sender);
    let mut buffer = Vec::new();
    assert_eq!(receiver.receive_raw(&mut buffer, 1 << 20).await, Err(ReceiveError::Reset));
    assert_eq!(pair.theirs.connection.close_reason(), None);
}

#[tokio::test]
async fn closing_says_why_and_leaves_nothing() {
    let mut pair = pair().await;
    pair.server.close(CloseCode::Shutdown);
    assert_eq!(pair.ours.connection.closed().await, CloseReason::Remote(CloseCode::Shutdown));
    assert_eq!(pair.theirs.connection.closed().await, CloseReason::Local(CloseCode::Shutdown));
    let closed = ReceiveError::Closed(CloseReason::Remote(CloseCode::Shutdown));
    assert_eq!(pair.ours.receiver.next().await, Err(closed));
    pair.client.close(CloseCode::Done);
    for endpoint in [&pair.server, &pair.client] {
        endpoint.wait_idle().await;
        assert_eq!((endpoint.tasks(), endpoint.connections()), (0, 0));
    }
    assert!(pair.arrivals.next().await.is_none());
    let address = pair.server.local_address();
    assert!(matches!(dial(&pair.client, address).await, Err(DialError::Closed { .. })));
}

#[tokio::test]
async fn a_connection_survives_rebinding() {
    let mut pair = pair().await;
    let before = pair.client.local_address();
    pair.client.rebind(LOOPBACK.parse().unwrap()).unwrap();
    assert_ne!(pair.client.local_address(), before);
    ping(&mut pair.ours, 1).await.unwrap();
    assert_eq!(pair.theirs.receiver.next().await, Ok(Some(Ping { token: 1 }.into())));
    assert_eq!(pair.theirs.connection.remote_address(), pair.client.local_address());
    let taken = pair.server.local_address();
    assert!(matches!(pair.client.rebind(taken), Err(BindError::AddressInUse { .. })));
    ping(&mut pair.ours, 2).await.unwrap();
    assert_eq!(pair.theirs.receiver.next().await, Ok(Some(Ping { token: 2 }.into())));
}

#[tokio::test]
async fn a_probe_is_not_taken_for_anything() {
    let mut pair = pair().await;
    pair.client.probe(pair.server.local_address());
    ping(&mut pair.ours, 1).await.unwrap();
    assert_eq!(pair.theirs.receiver.next().await, Ok(Some(Ping { token: 1 }.into())));
    assert_eq!(pair.server.stats().count(Event::HandshakeBegun), 1);
}

/// A server that ends without a word, as in a crash, and comes back on its port: its former peers learn it
/// from the first packet that they send, not by silence.
#[test]
fn a_restarted_server_resets_former_connections_at_once() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (first, second, clients) = (runtime(), runtime(), runtime());
    let (server, mut arrivals) = first.block_on(async { node(1, settings()) });
    let address = server.local_address();
    // All that the server has belongs to its runtime, and ends with it.
    first.spawn(async move {
        let _link = welcome_leaf(&mut arrivals).await;
        let _server = server;
        std::future::pending::<()>().await;
    });
    let (_client, mut link) = clients.block_on(async {
        let (client, _) = node(2, settings());
        let dialled = dial(&client, address).await.unwrap();
        (client, dialled.link)
    });
    drop(first);
    let _restarted =
        second.block_on(async { Endpoint::bind(address, BindMode::Given, &identity(1), settings()).unwrap() });
    clients.block_on(async {
        // Any packet does; this one makes sure that there is one.
        let _ = ping(&mut link, 1).await;
        assert_eq!(link.connection.closed().await, CloseReason::Reset);
    });
}

fn key(of: &Endpoint) -> Rules {
    Rules::new([Target::Peer(of.peer())])
}

#[tokio::test]
async fn a_banned_key_is_refused_at_its_hello_and_let_in_again() {
    let (server, mut arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    let address = server.local_address();
    server.set_bans(key(&client));
    let refused = dial(&client, address).await.unwrap_err();
    assert!(matches!(refused, DialError::Refused { reason: RefuseReason::Banned, .. }), "{refused}");
    let mesh = client.dial::<MeshMessage>(address, None, Greeting::default()).await.unwrap_err();
    assert!(matches!(mesh, DialError::Refused { reason: RefuseReason::Banned, .. }), "{mesh}");
    assert_eq!(server.stats().count(Event::LeafBanned), 1);
    assert_eq!(server.stats().count(Event::HelloRefused), 2);
    server.set_bans(Rules::default());
    let (dialled, _theirs) = tokio::join!(dial(&client, address), welcome_leaf(&mut arrivals));
    assert_eq!(dialled.unwrap().link.connection.peer(), server.peer());
}

#[tokio::test]
async fn a_banned_prefix_gets_no_handshake() {
    let (server, _arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    server.set_bans(Rules::new([Target::Prefix("127.0.0.0/8".parse().unwrap())]));
    let refused = dial(&client, server.local_address()).await.unwrap_err();
    assert!(matches!(refused, DialError::Closed { reason: CloseReason::Overload, .. }), "{refused}");
    assert_eq!(server.stats().count(Event::AddressBanned), 1);
    assert_eq!(server.stats().count(Event::HandshakeBegun), 0);
}

#[tokio::test]
async fn connections_to_one_who_becomes_banned_are_closed_and_others_stay() {
    for by_address in [false, true] {
        let Pair { server, arrivals: _arrivals, client, theirs, ours } = pair().await;
        server.set_bans(Rules::new([
            Target::Peer(identity(9).peer_id()),
            Target::Prefix("192.0.2.0/24".parse().unwrap()),
        ]));
        assert_eq!(theirs.connection.close_reason(), None);
        let loopback = Rules::new([Target::Prefix("127.0.0.1".parse().unwrap())]);
        server.set_bans(if by_address { loopback } else { key(&client) });
        assert_eq!(ours.connection.closed().await, CloseReason::Remote(CloseCode::Banned));
        assert_eq!(theirs.connection.closed().await, CloseReason::Local(CloseCode::Banned));
    }
}

#[tokio::test]
async fn who_is_banned_is_not_dialled() {
    let (server, _arrivals) = node(1, settings());
    let (client, _) = node(2, settings());
    let address = server.local_address();
    client.set_bans(key(&server));
    let known = client.dial::<LeafMessage>(address, Some(server.peer()), Greeting::default()).await;
    assert_eq!(known.unwrap_err(), DialError::Banned { address });
    client.set_bans(Rules::new([Target::Prefix("127.0.0.1".parse().unwrap())]));
    assert_eq!(dial(&client, address).await.unwrap_err(), DialError::Banned { address });
    assert_eq!(server.stats().count(Event::HandshakeBegun), 0);
    // Whose key is not known before shows it, and learns nothing more.
    client.set_bans(key(&server));
    assert_eq!(dial(&client, address).await.unwrap_err(), DialError::Banned { address });
    assert_eq!(server.stats().count(Event::HandshakeOffered), 0);
}
