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
    let quic = shared.connect(address, None, Protocol::Leaf, Protocol::Leaf.alpn()).await.unwrap();
    let peer = tls::peer_of(&quic).unwrap();
    Connection::new(quic, peer, Protocol::Leaf, Arc::clone(&shared.stats))
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

#[tokio::test]
async fn nothing_is_granted_before_the_welcome() {
    let (server, _arrivals) = node(1, 1..=1);
    let (client, _) = node(2, 1..=1);
    let connection = silent(&client, &server).await;
    let _control = connection.open::<LeafMessage>().await.unwrap();
    let second = timeout(std::time::Duration::ZERO, connection.open::<LeafMessage>()).await;
    assert!(second.is_err(), "a second stream was granted");
}
