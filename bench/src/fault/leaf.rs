//! A leaf that lists files which it does not have. What it sends to show that it has one is something else.

use anyhow::{Context, Result, bail};
use overlay::{
    batch,
    id::HandleSalt,
    transport::{CloseReason, Endpoint, Greeting, ReceiveError},
    wire::{
        bounded::{Blob, List},
        leaf::{CatalogPart, CatalogRoot, ChunkRef, LeafMessage, RootStatement, catalog_root},
        possession::{GroupProof, Possession, PossessionAnswer, PossessionAsk},
    },
};

use super::{
    Outcome, Report,
    made::file,
    node::{anywhere, fresh, settings},
    raw::Victim,
};

/// Files that it makes up.
const FILES: u64 = 100;
/// The sequence of its list.
const SEQUENCE: u64 = 1;

impl Victim<'_> {
    /// Attaches, uploads a list of what it does not have, and says that it has all of it. When its home has had enough, it
    /// comes again.
    pub(super) async fn made_up_list(&self, report: &mut Report) -> Result<()> {
        let identity = fresh()?;
        let endpoint = Endpoint::dial_only(anywhere().ip(), &identity, settings(self.network))?;
        let greeting = Greeting { salt: HandleSalt([1; 16]), ..Greeting::default() };
        let dialled = match endpoint.dial::<LeafMessage>(self.address, None, greeting).await {
            Ok(dialled) => dialled,
            Err(error) => {
                report.outcome("a leaf with a made-up list", Outcome::Refused(error));
                return Ok(());
            }
        };
        let (mut sender, mut receiver) = (dialled.link.sender, dialled.link.receiver);
        let connection = dialled.link.connection;
        let mut files: Vec<_> = (0..FILES).map(file).collect();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        let bytes = batch::encode_chunk(&files);
        let chunk = ChunkRef { hash: batch::chunk_hash(&bytes), bytes: bytes.len() as u32, files: files.len() as u16 };
        let statement = RootStatement {
            root: catalog_root([&chunk.hash]),
            files: FILES,
            sequence: SEQUENCE,
            lifetime_s: 86_400,
            home: connection.peer(),
        };
        sender.send(&CatalogRoot::sign(&identity, &statement, vec![chunk]).into()).await?;
        let outcome = loop {
            let message = tokio::select! {
                message = receiver.next() => message,
                () = self.until.cancelled() => break Outcome::Kept,
            };
            let answers: Vec<LeafMessage> = match message {
                Ok(Some(LeafMessage::CatalogWant(_))) => {
                    let data = batch::cut(&bytes).next().context("a chunk has a part")??;
                    let data = Blob::new(data).context("a small chunk is one part")?;
                    vec![CatalogPart { sequence: SEQUENCE, chunk: 0, last: true, data }.into()]
                }
                Ok(Some(LeafMessage::PossessionAsk(ask))) => {
                    *report.heard.entry("PossessionAsk").or_default() += 1;
                    vec![Possession { ask, answer: PossessionAnswer::Proven(Box::new(forged(&ask))) }.into()]
                }
                Ok(Some(_)) => Vec::new(),
                Ok(None) => break Outcome::Closed(connection.closed().await),
                Err(ReceiveError::Closed(reason)) => break Outcome::Closed(reason),
                Err(error) => bail!("the home says what it must not: {error}"),
            };
            for answer in answers {
                report.sent += u64::from(sender.send(&answer).await.is_ok());
            }
        };
        let was_closed = matches!(outcome, Outcome::Closed(CloseReason::Remote(_)));
        report.outcome("a leaf with a made-up list", outcome);
        if was_closed {
            let again = endpoint.dial::<LeafMessage>(self.address, None, greeting).await;
            report.outcome("the same leaf again", again.err().map_or(Outcome::Kept, Outcome::Refused));
        }
        Ok(())
    }
}

/// All that fits the content id, and bytes that do not.
fn forged(ask: &PossessionAsk) -> GroupProof {
    // Of a content of one group that is the value of each.
    let value = ask.content.0;
    let data = Blob::new(vec![0]).expect("a byte is shorter than a group");
    GroupProof { tops: List::new([value]), pieces: List::new([value]), groups: List::new([value]), data }
}
