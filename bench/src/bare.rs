//! What Quictrack is compared with: round trips and bulk with nothing around them.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use overlay::{
    limits,
    transport::{Arrival, CloseCode, Connection, Endpoint, Greeting, Windows},
    wire::transfer::{Queued, TransferMessage},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

use crate::bed;

/// Blocks that lie between the network and the disk.
const BLOCKS: usize = 4;

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

/// Copies the file `from` to `to` over one stream of one connection, the receiver hashing it with BLAKE3 as it
/// comes. Returns the time until the copy is on the disk.
pub async fn stream(from: &Path, to: &Path, content: blake3::Hash) -> Result<Duration> {
    let Pair { near, far, _endpoints } = Pair::new().await?;
    near.set_windows(Windows::Bulk);
    far.set_windows(Windows::Bulk);
    let size = from.metadata()?.len();
    let mut blocks = read(from.to_owned());
    let begun = now();
    let sending: JoinHandle<Result<()>> = tokio::spawn(async move {
        let (mut sender, mut receiver) = far.accept::<TransferMessage>().await?;
        receiver.next().await?.context("nothing was asked for")?;
        while let Some(block) = blocks.recv().await {
            sender.send_raw(block?).await?;
        }
        sender.finish()?;
        Ok(sender.delivered().await?)
    });
    let (mut sender, mut receiver) = near.open::<TransferMessage>().await?;
    sender.send(&Queued { position: 0 }.into()).await?;
    let (blocks, writing) = write(to.to_owned(), true);
    let mut left = size;
    while left > 0 {
        let length = left.min(limits::READ_BYTES as u64) as usize;
        let mut block = Vec::with_capacity(length);
        receiver.receive_raw(&mut block, length).await?;
        left -= length as u64;
        blocks.send(block).await?;
    }
    drop(blocks);
    let hash = writing.await??;
    let elapsed = begun.elapsed();
    sending.await??;
    near.close(CloseCode::Done);
    ensure!(hash == content, "the copy is wrong");
    Ok(elapsed)
}

/// Copies the file `from` to `to` over TCP, in the clear and without a hash. Returns the time until the copy is
/// on the disk.
pub async fn tcp(from: &Path, to: &Path) -> Result<Duration> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut near = TcpStream::connect(listener.local_addr()?).await?;
    let (mut far, _) = listener.accept().await?;
    let size = from.metadata()?.len();
    let mut blocks = read(from.to_owned());
    let begun = now();
    let sending: JoinHandle<Result<()>> = tokio::spawn(async move {
        while let Some(block) = blocks.recv().await {
            far.write_all(&block?).await?;
        }
        Ok(far.shutdown().await?)
    });
    let (blocks, writing) = write(to.to_owned(), false);
    let mut left = size;
    while left > 0 {
        let mut block = vec![0; left.min(limits::READ_BYTES as u64) as usize];
        near.read_exact(&mut block).await?;
        left -= block.len() as u64;
        blocks.send(block).await?;
    }
    drop(blocks);
    writing.await??;
    let elapsed = begun.elapsed();
    sending.await??;
    Ok(elapsed)
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
        let greeting = Greeting { handle: 0, introduction: 0 };
        let dialled = near.dial::<TransferMessage>(far.local_address(), None, greeting).await?;
        let accepted = welcome.await??;
        Ok(Self { near: dialled.link.connection, far: accepted, _endpoints: [near, far] })
    }
}

/// Reads a file ahead, block by block.
fn read(path: PathBuf) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, blocks) = mpsc::channel(BLOCKS);
    spawn_blocking(move || {
        let next = |file: &mut File| {
            let mut block = Vec::with_capacity(limits::READ_BYTES);
            file.take(limits::READ_BYTES as u64).read_to_end(&mut block).map(|_| Bytes::from(block))
        };
        let mut file = match File::open(path) {
            Ok(file) => file,
            // The error is a block; without a receiver nobody wants it.
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        loop {
            let block = next(&mut file);
            if block.as_ref().is_ok_and(Bytes::is_empty) || sender.blocking_send(block).is_err() {
                return;
            }
        }
    });
    blocks
}

/// Writes blocks to a new file until the sender is dropped, makes them durable, and returns their hash, or that
/// of nothing if it is not wanted.
fn write(path: PathBuf, hashed: bool) -> (mpsc::Sender<Vec<u8>>, JoinHandle<io::Result<blake3::Hash>>) {
    let (sender, mut blocks) = mpsc::channel::<Vec<u8>>(BLOCKS);
    let writing = spawn_blocking(move || {
        let (mut file, mut hasher) = (File::create(path)?, blake3::Hasher::new());
        while let Some(block) = blocks.blocking_recv() {
            if hashed {
                hasher.update(&block);
            }
            file.write_all(&block)?;
        }
        file.sync_data()?;
        Ok(hasher.finalize())
    });
    (sender, writing)
}
