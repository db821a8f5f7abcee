//! What only a node of another kind would do: other versions, silence, nonsense instead of a hello.

use super::*;
use crate::{
    transport::ReceiveError,
    wire::leaf::{LeafMessage, Ping},
};

fn node(seed: u8, majors: std::ops::RangeInclusive<u32>) -> (Endpoint, Arrivals) {
    let settings = Settings { network: "public".into(), secret: None, agent: format!("test/{seed}") };
    let address = "127.0.0.1:0".parse().unwrap();
    Endpoint::bind_speaking(majors, address, BindMode::Given, &Identity::from_seed([seed; 32]), settings).unwrap()
}

/// A connection whose keys are proven, without a hello.
async fn silent(client: &Endpoint, server: &Endpoint) -> Connection {
    let (shared, address) = (&client.shared, server.local_address());
    let quic = shared.connect(Attempt::Usual, address, None, Protocol::Leaf, Protocol::Leaf.alpn()).await.unwrap();
    let peer = tls::peer_of(&quic).unwrap();
    Connection::new(quic, peer, Protocol::Leaf, Arc::clone(&shared.stats), Arc::clone(&shared.gate))
}

#[tokio::test]
async fn the_error_says_which_side_is_older() {
    let (first, _first) = node(1, 1..=1);
    let (third, _third) = node(3, 2..=3);
    let dial = async |from: &Endpoint, to: &Endpoint| {
        from.dial::<LeafMessage>(to.local_address(), None, Greeting::default()).await.unwrap_err()
    };
    let newer = DialError::PeerNewer { address: third.local_address(), agent: "test/3".into() };
    assert_eq!(dial(&first, &third).await, newer);
    let older = DialError::PeerOlder { address: first.local_address(), agent: "test/1".into() };
    assert_eq!(dial(&third, &first).await, older);
}

#[tokio::test]
async fn a_dialler_without_a_hello_is_dropped_after_a_while() {
    let (server, mut arrivals) = node(1, 1..=1);
    let (client, _) = node(2, 1..=1);
    let connection = silent(&client, &server).await;
    tokio::time::pause();
    connection.closed().await;
    assert_eq!(server.stats().count(Event::HandshakeFailed), 1);
    assert!(arrivals.queue.try_recv().is_err());
}

#[tokio::test]
async fn only_a_hello_begins_a_conversation() {
    let (server, _arrivals) = node(1, 1..=1);
    let (client, _) = node(2, 1..=1);
    let connection = silent(&client, &server).await;
    let (mut sender, mut receiver) = connection.open::<LeafMessage>().await.unwrap();
    sender.send(&Ping { token: 1 }.into()).await.unwrap();
    let closed = CloseReason::Remote(CloseCode::Violation);
    assert_eq!(receiver.next().await, Err(ReceiveError::Closed(closed)));
}

/// A connection of any protocol whose keys are proven, with `bytes` in place of a hello.
async fn knock(client: &Endpoint, server: &Endpoint, protocol: Protocol, bytes: &[u8]) -> Connection {
    let (shared, address) = (&client.shared, server.local_address());
    let quic = shared.connect(Attempt::Usual, address, None, protocol, protocol.alpn()).await.unwrap();
    let (mut send, receive) = quic.open_bi().await.unwrap();
    // A server that hangs up first is told by the end of the connection.
    let _ = send.write_all(bytes).await;
    let connection =
        Connection::new(quic, server.peer(), protocol, Arc::clone(&shared.stats), Arc::clone(&shared.gate));
    // The stream stays open as long as the connection.
    tokio::spawn({
        let connection = connection.clone();
        async move {
            connection.closed().await;
            drop((send, receive));
        }
    });
    connection
}

#[tokio::test]
async fn what_is_no_hello_ends_the_connection_in_every_protocol() {
    let (server, mut arrivals) = node(1, 1..=1);
    let (client, _) = node(2, 1..=1);
    let header = |number: u16, length: u32| [&length.to_le_bytes()[..], &number.to_le_bytes()].concat();
    let knocks = [
        ("noise", vec![0xa5; 300]),
        ("another message than a hello", header(4, 1)),
        ("an unknown message, which may be skipped only later", header(0x7fff, 4)),
        ("a hello of four billion bytes", header(1, u32::MAX)),
        ("a hello over its cap", header(1, 1 << 16)),
        ("an empty hello", header(1, 0)),
    ];
    for protocol in Protocol::ALL {
        for (what, bytes) in &knocks {
            let connection = knock(&client, &server, protocol, bytes).await;
            assert_eq!(connection.closed().await, CloseReason::Remote(CloseCode::Violation), "{protocol:?}: {what}");
        }
    }
    assert!(arrivals.queue.try_recv().is_err());
}

#[tokio::test]
async fn those_that_stall_inside_of_their_hello_are_dropped_and_keep_nobody_out() {
    let (server, mut arrivals) = node(1, 1..=1);
    let (client, _) = node(2, 1..=1);
    let (honest, _) = node(3, 1..=1);
    let mut stalled = Vec::new();
    for at in 0..60_usize {
        let protocol = Protocol::ALL[at % Protocol::ALL.len()];
        stalled.push(knock(&client, &server, protocol, &[200, 0, 0, 0, 1, 0, 6, b'p', b'u']).await);
    }
    let welcome = async {
        let Some(Arrival::Leaf(offer)) = arrivals.next().await else { panic!("a leaf should arrive") };
        offer.welcome(None).await.unwrap()
    };
    let address = server.local_address();
    let (dialled, _theirs) = tokio::join!(honest.dial::<LeafMessage>(address, None, Greeting::default()), welcome);
    let _ours = dialled.unwrap();
    tokio::time::pause();
    for connection in stalled {
        connection.closed().await;
    }
    assert_eq!(server.stats().count(Event::HandshakeFailed), 60);
    assert!(arrivals.queue.try_recv().is_err());
}

#[tokio::test]
async fn nothing_is_granted_before_the_welcome() {
    let (server, _arrivals) = node(1, 1..=1);
    let (client, _) = node(2, 1..=1);
    let connection = silent(&client, &server).await;
    let _control = connection.open::<LeafMessage>().await.unwrap();
    let second = timeout(Duration::ZERO, connection.open::<LeafMessage>()).await;
    assert!(second.is_err(), "a second stream was granted");
}
