//! What searches are compared with: round trips with nothing around them.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use overlay::{
    transport::{Arrival, CloseCode, Connection, Endpoint, Greeting},
    wire::transfer::{Queued, TransferMessage},
};
use tokio::{net::UdpSocket, task::JoinHandle};

use crate::bed;

/// Reads the clock of a measurement.
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Times of `count` round trips of one small datagram between two tasks.
pub async fn datagrams(count: usize) -> Result<Vec<Duration>> {
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    near.connect(far.local_addr()?).await?;
    far.connect(near.local_addr()?).await?;
    let echo = tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok(length) = far.recv(&mut buffer).await {
            if far.send(&buffer[..length]).await.is_err() {
                return;
            }
        }
    });
    let (mut times, mut buffer) = (Vec::with_capacity(count), [0; 64]);
    for _ in 0..count {
        let begun = now();
        near.send(&[7; 64]).await?;
        near.recv(&mut buffer).await?;
        times.push(begun.elapsed());
    }
    echo.abort();
    Ok(times)
}

/// Times of `count` requests with one answer, each on a stream of its own on one open connection.
pub async fn requests(count: usize) -> Result<Vec<Duration>> {
    let Pair { near, far, _endpoints } = Pair::new().await?;
    let echo: JoinHandle<Result<()>> = tokio::spawn(async move {
        loop {
            let (mut sender, mut receiver) = far.accept::<TransferMessage>().await?;
            tokio::spawn(async move {
                if let Ok(Some(message)) = receiver.next().await {
                    // An asker that went away shows at its side.
                    let _ = sender.send(&message).await;
                }
            });
        }
    });
    let mut times = Vec::with_capacity(count);
    for position in 0..count as u32 {
        let begun = now();
        let (mut sender, mut receiver) = near.open::<TransferMessage>().await?;
        sender.send(&Queued { position }.into()).await?;
        let answer = receiver.next().await?;
        times.push(begun.elapsed());
        ensure!(answer == Some(Queued { position }.into()), "another answer came");
    }
    near.close(CloseCode::Done);
    echo.abort();
    Ok(times)
}

/// Two nodes and the connection between them.
struct Pair {
    near: Connection,
    far: Connection,
    _endpoints: [Endpoint; 2],
}

impl Pair {
    async fn new() -> Result<Self> {
        let (near, _, _) = bed::bind()?;
        let (far, mut arrivals, _) = bed::bind()?;
        let welcome = tokio::spawn(async move {
            match arrivals.next().await {
                Some(Arrival::Transfer(offer)) => Ok(offer.welcome(None).await?.connection),
                _ => bail!("nobody dialled"),
            }
        });
        let greeting = Greeting::default();
        let dialled = near.dial::<TransferMessage>(far.local_address(), None, greeting).await?;
        let accepted = welcome.await??;
        Ok(Self { near: dialled.link.connection, far: accepted, _endpoints: [near, far] })
    }
}
