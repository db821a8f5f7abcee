//! Faults below the level of messages: bytes that are none, frames that are too long or never end, other networks and
//! other versions. Each is tried on connections of its own, under a new key each.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use overlay::id::{HandleSalt, QueryId};
use overlay::{
    limits,
    transport::{BindMode, Dialled, Endpoint, Greeting, Receiver, Sender},
    wire::{
        Conversation, Message, Protocol,
        bounded::Text,
        encode_into,
        frame::HEADER_BYTES,
        leaf::LeafMessage,
        mesh::MeshMessage,
        search::{Search, Target},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Outcome, Report,
    conduct::FREQUENT,
    node::{anywhere, fresh, settings},
};

/// Whom to bother, and for how long at most.
#[derive(Clone, Debug)]
pub(super) struct Victim<'a> {
    pub(super) address: SocketAddr,
    pub(super) network: &'a str,
    pub(super) until: &'a CancellationToken,
}

/// Where bytes are written.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The control stream.
    Control,
    /// A stream of its own in one direction, as for digests.
    OneWay,
}

/// Number of [`MeshMessage::News`], whose cap is large.
const NEWS: u16 = 5;
/// Number of [`LeafMessage::Search`].
const SEARCH: u16 = 11;
/// Number of [`MeshMessage::Query`].
const QUERY: u16 = 7;
/// A number that no message has.
const UNKNOWN: u16 = 999;
/// Terms of a query that is too long for any frame.
const TERMS: usize = 10_000;

impl Victim<'_> {
    /// Random bytes where messages are expected.
    pub(super) async fn garbage(&self, report: &mut Report) -> Result<()> {
        let noise = noise(4 << 10);
        self.bytes::<MeshMessage>("noise on the control stream", Place::Control, noise.clone(), report).await?;
        self.bytes::<MeshMessage>("noise on another stream", Place::OneWay, noise.clone(), report).await?;
        self.bytes::<LeafMessage>("noise of a leaf", Place::Control, noise.clone(), report).await?;
        let body = frame(NEWS, 1000, &noise[..1000]);
        self.bytes::<MeshMessage>("noise as news", Place::Control, body, report).await
    }

    /// Frames that say that they are longer than theirs may be.
    pub(super) async fn oversized(&self, report: &mut Report) -> Result<()> {
        let cap = |protocol: Protocol, wanted: u16| {
            protocol.messages().iter().find(|(number, ..)| *number == wanted).map_or(0, |(.., cap)| *cap)
        };
        let news = cap(Protocol::Mesh, NEWS) + 1;
        let search = cap(Protocol::Leaf, SEARCH) + 1;
        self.bytes::<MeshMessage>("one byte too many", Place::Control, frame(NEWS, news, &[]), report).await?;
        self.bytes::<MeshMessage>("four gigabytes", Place::OneWay, frame(NEWS, u32::MAX as usize, &[]), report).await?;
        let unknown = frame(UNKNOWN, limits::UNKNOWN_FRAME_BYTES + 1, &[]);
        self.bytes::<MeshMessage>("too long to be skipped", Place::Control, unknown, report).await?;
        self.bytes::<LeafMessage>("a long search of a leaf", Place::Control, frame(SEARCH, search, &[]), report).await
    }

    /// Half of a frame, and then nothing more.
    pub(super) async fn stall(&self, report: &mut Report) -> Result<()> {
        let half = || frame(NEWS, 1000, &[0; 500]);
        let (mut first, mut second, mut third) = (report.empty(), report.empty(), report.empty());
        let (control, stream, leaf) = tokio::join!(
            self.bytes::<MeshMessage>("half a frame on the control stream", Place::Control, half(), &mut first),
            self.bytes::<MeshMessage>("half a frame on another stream", Place::OneWay, half(), &mut second),
            self.bytes::<LeafMessage>("half a frame of a leaf", Place::Control, half(), &mut third),
        );
        for (result, part) in [(control, first), (stream, second), (leaf, third)] {
            result?;
            report.absorb(part);
        }
        Ok(())
    }

    /// Queries of more terms than any may have, and searches of a leaf of the most frequent words.
    pub(super) async fn hard_query(&self, report: &mut Report) -> Result<()> {
        let terms: Vec<_> = (0..TERMS).map(|term| format!("word{term}")).collect();
        let terms = terms.join(" ");
        let mut body = Vec::new();
        // A query's id, that it is a text, and the text.
        encode_into(&(QueryId(1), 0_u8, terms.as_str()), &mut body);
        self.bytes::<MeshMessage>("a query of 10,000 terms", Place::OneWay, frame(QUERY, body.len(), &body), report)
            .await?;
        self.bytes::<LeafMessage>("a search of 10,000 terms", Place::Control, frame(SEARCH, body.len(), &body), report)
            .await?;
        let Some(dialled) = self.dial::<LeafMessage>("a leaf that asks", report).await? else { return Ok(()) };
        let letters = "a b c d e f g h i j k l m n o p q r s t u v w x y z ".repeat(limits::QUERY_BYTES / 52);
        for (what, text) in [("the most frequent words", FREQUENT), ("a thousand letters", letters.as_str())] {
            let target = Target::Query(Text::new(text));
            let search =
                Search { id: QueryId(2), target, limit: limits::SEARCH_LIMIT_ALL, timeout_ms: 10_000, all: true };
            let (mut sender, mut receiver) = dialled.link.connection.open::<LeafMessage>().await?;
            sender.send(&search.into()).await?;
            let mut answered = Vec::new();
            while let Ok(Some(message)) = receiver.next().await {
                answered.push(match &message {
                    LeafMessage::Summary(summary) => format!("{summary:?}"),
                    other => other.name().to_owned(),
                });
            }
            let answered = if answered.is_empty() { "refused".to_owned() } else { answered.join(", ") };
            report.notes.push(format!("{what}: {answered}"));
        }
        Ok(())
    }

    /// A hello to another network.
    pub(super) async fn other_network(&self, report: &mut Report) -> Result<()> {
        let elsewhere = Victim { network: "elsewhere", ..self.clone() };
        let welcomed = elsewhere.dial::<MeshMessage>("a hello to another network", report).await?;
        report.notes.extend(welcomed.map(|_| "it was let in".to_owned()));
        Ok(())
    }

    /// Protocols of an older and of a later major version.
    pub(super) async fn other_version(&self, report: &mut Report) -> Result<()> {
        for (what, majors) in [("version 2", 2..=3), ("version 0", 0..=0)] {
            let (identity, settings) = (fresh()?, settings(self.network));
            let (endpoint, _) = Endpoint::bind_speaking(majors, anywhere(), BindMode::Given, &identity, settings)?;
            let dialled = endpoint.dial::<MeshMessage>(self.address, None, Greeting::default()).await;
            report.outcome(what, dialled.err().map_or(Outcome::Kept, Outcome::Refused));
        }
        Ok(())
    }

    async fn dial<M: Conversation>(&self, what: &str, report: &mut Report) -> Result<Option<Dialled<M>>> {
        let endpoint = Endpoint::dial_only(anywhere().ip(), &*fresh()?, settings(self.network))?;
        let greeting = Greeting { salt: HandleSalt([1; 16]), ..Greeting::default() };
        match endpoint.dial(self.address, None, greeting).await {
            Ok(dialled) => Ok(Some(dialled)),
            Err(error) => {
                report.outcome(what, Outcome::Refused(error));
                Ok(None)
            }
        }
    }

    /// Writes bytes on a connection of its own and waits for its end.
    async fn bytes<M: Conversation>(
        &self,
        what: &str,
        place: Place,
        bytes: Vec<u8>,
        report: &mut Report,
    ) -> Result<()> {
        let Some(dialled) = self.dial::<M>(what, report).await? else { return Ok(()) };
        let (mut control, receiver) = (dialled.link.sender, dialled.link.receiver);
        let connection = dialled.link.connection;
        let hears = tokio::spawn(forget(receiver));
        let mut other: Option<Sender<M>> = None;
        let sent = match place {
            Place::Control => control.send_raw(Bytes::from(bytes)).await,
            Place::OneWay => {
                let stream = other.insert(connection.open_one_way().await?);
                stream.send_raw(Bytes::from(bytes)).await
            }
        };
        // What cannot be sent any more is told by the end of the connection.
        report.sent += u64::from(sent.is_ok());
        let outcome = tokio::select! {
            reason = connection.closed() => Outcome::Closed(reason),
            // An end that is on its way when the time is over still counts.
            () = async {
                self.until.cancelled().await;
                tokio::time::sleep(CLOSING).await;
            } => Outcome::Kept,
        };
        hears.abort();
        report.outcome(what, outcome);
        Ok(())
    }
}

/// How long an end that is on its way is awaited. Chosen: longer than a busy machine keeps a task waiting.
const CLOSING: std::time::Duration = std::time::Duration::from_secs(5);

/// Reads so that the other side is never held up.
async fn forget<M: Conversation>(mut receiver: Receiver<M>) {
    while let Ok(Some(_)) = receiver.next().await {}
}

/// The beginning of a frame: what its header says, and the bytes that follow.
fn frame(number: u16, length: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Bytes that look random, none of them 0.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
    bytes.iter().map(|byte| byte | 1).collect()
}
