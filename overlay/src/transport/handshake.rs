//! From a proven key to a welcomed peer: hello, welcome, refusal, on both sides.
//!
//! ```text
//! dialler                                dialled
//! TLS: both keys proven
//! Hello ───────────────────────────────> network and secret are checked here,
//!                                        the rest is the program's decision (Offer)
//!       <──────────────────────── Welcome | Refuse
//! the other side's proof of the secret is checked here
//! ```

use std::{net::SocketAddr, sync::Arc};

use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{
    connection::{CloseCode, CloseReason, Connection, Link},
    dial_error::DialError,
    endpoint::Shared,
    stats::{self, Event},
    streams::{ReceiveError, SendError},
};
use crate::{
    discovery::Rendezvous,
    id::{HandleSalt, PeerId},
    limits,
    metrics::{Direction, HandshakeResult},
    wire::{
        Conversation, Opening, Protocol,
        bounded::Text,
        descriptor::SignedDescriptor,
        hello::{Hello, Refuse, RefuseReason, Situation, Welcome, capabilities, proof_is, secret_proof},
        leaf::LeafMessage,
        mesh::MeshMessage,
        transfer::TransferMessage,
    },
};

/// What a node says of itself in every hello and welcome.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The network that it is in.
    pub network: String,
    /// The secret of a private network.
    pub secret: Option<Secret>,
    /// Name and version of the program.
    pub agent: String,
}

/// A private network's secret. Not shown by [`std::fmt::Debug`], wiped from memory when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Of any bytes; a text's UTF-8 usually.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Settings {
    /// Under which names the nodes of this network find each other.
    pub(super) fn rendezvous(&self) -> Rendezvous {
        Rendezvous::new(&self.network, self.secret.as_ref().map(|secret| &secret.0[..]))
    }

    /// The proof that `from` gives `to` on `connection`; `None` on networks without a secret.
    fn proof(&self, connection: &Connection, from: &PeerId, to: &PeerId) -> Option<[u8; 32]> {
        let secret = self.secret.as_ref()?;
        Some(secret_proof(&secret.0, &connection.channel_binding(), from, to))
    }

    /// True if `proof` is what `from` must give `to`. Where one side has a secret and the other has none,
    /// they are not in the same network, whatever its name.
    fn accepts(&self, proof: Option<[u8; 32]>, connection: &Connection, from: &PeerId, to: &PeerId) -> bool {
        match self.proof(connection, from, to) {
            Some(expected) => proof_is(proof, &expected),
            None => proof.is_none(),
        }
    }
}

/// What a dialler says beyond [`Settings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// Makes a leaf's handle; zeros in other protocols.
    pub salt: HandleSalt,
    /// The token of an introduction that this dial answers; 0 if none.
    pub introduction: u64,
    /// True of a leaf that wants to stay here although others have more room.
    pub insists: bool,
    /// How a leaf stands.
    pub situation: Situation,
}

/// A dialler that waits for an answer to its hello. Its key, network and secret are proven.
#[derive(Debug)]
pub enum Arrival {
    /// A leaf, or a node that wants to be one here.
    Leaf(Offer<LeafMessage>),
    /// An ultrapeer.
    Mesh(Offer<MeshMessage>),
    /// Another leaf.
    Transfer(Offer<TransferMessage>),
}

/// A dialler that waits for [`Self::welcome`] or [`Self::refuse`]. Dropping it closes the connection.
#[derive(Debug)]
pub struct Offer<M: Conversation> {
    link: Link<M>,
    hello: Hello,
    shared: Arc<Shared>,
}

impl<M: Conversation> Offer<M> {
    /// The dialler's proven key.
    pub fn peer(&self) -> PeerId {
        self.link.connection.peer()
    }

    /// Where its packets come from.
    pub fn address(&self) -> SocketAddr {
        self.link.connection.remote_address()
    }

    /// What it said.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Lets it in: windows and streams are granted and the welcome is sent. `descriptor` is our own, if we are
    /// an ultrapeer. To be called in the peer's own task: a dialler that takes nothing delays it.
    pub async fn welcome(mut self, descriptor: Option<SignedDescriptor>) -> Result<Link<M>, SendError> {
        let (ours, settings) = (self.shared.own, &self.shared.settings);
        let connection = &self.link.connection;
        let welcome = Welcome {
            proof: settings.proof(connection, &ours, &connection.peer()),
            agent: Text::new(&settings.agent),
            capabilities: capabilities::OURS,
            observed: connection.remote_address(),
            descriptor,
        };
        connection.grant();
        self.link.sender.send(&welcome.into()).await?;
        self.link.connection.count(Direction::In);
        Ok(self.link)
    }

    /// Turns it away. The refusal is delivered in the background, then the connection is closed.
    pub fn refuse(self, reason: RefuseReason, alternatives: Vec<SignedDescriptor>) {
        self.refuse_with(Refuse::new(reason, alternatives));
    }

    /// [`Self::refuse`] of a leaf, which says how it stands itself.
    pub fn refuse_with(self, refusal: Refuse) {
        let Self { link, shared, .. } = self;
        shared.tasks.spawn_to_end("refusal", refuse(link, refusal));
    }
}

/// Why a handshake came to nothing. Only counted and logged: the dialler knows its own side of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeetError {
    #[error(transparent)]
    Closed(#[from] CloseReason),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("refused: {}", .0.text())]
    Refused(RefuseReason),
    #[error("the dialler is this node")]
    SelfDial,
}

impl MeetError {
    pub(super) fn result(&self) -> HandshakeResult {
        match self {
            Self::Closed(reason) | Self::Receive(ReceiveError::Closed(reason)) => stats::handshake_result(reason),
            _ => HandshakeResult::Refused,
        }
    }
}

/// The dialled side: reads the hello and checks network, secret and bans.
pub(super) async fn meet<M: Conversation>(shared: &Arc<Shared>, connection: Connection) -> Result<Offer<M>, MeetError> {
    // Only the leaf side of this very node has something to say to it.
    if connection.peer() == shared.own && M::PROTOCOL != Protocol::Leaf {
        connection.close(CloseCode::SelfDial);
        return Err(MeetError::SelfDial);
    }
    let (sender, mut receiver) = connection.accept::<M>().await?;
    let opening = receiver.opening().await.inspect_err(|_| connection.close(CloseCode::Violation))?;
    let Opening::Hello(hello) = opening else {
        connection.close(CloseCode::Violation);
        return Err(ReceiveError::Unexpected.into());
    };
    connection.set_observed(hello.observed);
    let link = Link { connection, sender, receiver };
    match judge(shared, &link.connection, &hello) {
        None => Ok(Offer { link, hello, shared: Arc::clone(shared) }),
        Some(reason) => {
            shared.stats.event(Event::HelloRefused);
            if reason == RefuseReason::Banned && M::PROTOCOL == Protocol::Leaf {
                shared.stats.event(Event::LeafBanned);
            }
            refuse(link, Refuse::new(reason, Vec::new())).await;
            Err(MeetError::Refused(reason))
        }
    }
}

fn judge(shared: &Shared, connection: &Connection, hello: &Hello) -> Option<RefuseReason> {
    let settings = &shared.settings;
    if *hello.network != *settings.network {
        return Some(RefuseReason::WrongNetwork);
    }
    if !settings.accepts(hello.proof, connection, &connection.peer(), &shared.own) {
        return Some(RefuseReason::WrongSecret);
    }
    (connection.is_banned() || connection.is_penalised()).then_some(RefuseReason::Banned)
}

async fn refuse<M: Conversation>(mut link: Link<M>, refuse: Refuse) {
    let farewell = async {
        link.sender.send(&refuse.into()).await?;
        link.sender.finish()?;
        link.sender.delivered().await
    };
    // Whether it arrived or not, the connection ends now.
    let _ = timeout(limits::FAREWELL_TIMEOUT, farewell).await;
    link.connection.close(CloseCode::Refused);
}

/// The dialling side: says hello and judges the answer.
pub(super) async fn greet<M: Conversation>(
    shared: &Shared,
    connection: Connection,
    greeting: Greeting,
) -> Result<(Link<M>, Welcome), DialError> {
    let address = connection.remote_address();
    let (ours, theirs, settings) = (shared.own, connection.peer(), &shared.settings);
    let (mut sender, mut receiver) =
        connection.open::<M>().await.map_err(|reason| DialError::Closed { address, reason })?;
    let hello = Hello {
        network: Text::new(&settings.network),
        proof: settings.proof(&connection, &ours, &theirs),
        agent: Text::new(&settings.agent),
        capabilities: capabilities::OURS,
        observed: address,
        salt: greeting.salt,
        introduction: greeting.introduction,
        insists: greeting.insists,
        situation: greeting.situation,
    };
    // If this fails the other side closed the connection, and reading says why.
    let _ = sender.send(&hello.into()).await;
    match receiver.opening().await {
        Ok(Opening::Welcome(welcome)) => {
            if !settings.accepts(welcome.proof, &connection, &theirs, &ours) {
                connection.close(CloseCode::Refused);
                return Err(DialError::WrongSecret { address });
            }
            connection.set_observed(welcome.observed);
            connection.count(Direction::Out);
            Ok((Link { connection, sender, receiver }, welcome))
        }
        Ok(Opening::Refuse(refuse)) => {
            connection.close(CloseCode::Done);
            Err(DialError::refused(address, theirs, refuse))
        }
        Ok(Opening::Hello(_)) => {
            connection.close(CloseCode::Violation);
            Err(DialError::Violation { address })
        }
        Err(ReceiveError::Closed(CloseReason::Remote(CloseCode::SelfDial))) => Err(DialError::SelfDial { address }),
        Err(ReceiveError::Closed(reason)) => Err(DialError::Closed { address, reason }),
        Err(_) => {
            connection.close(CloseCode::Violation);
            Err(DialError::Violation { address })
        }
    }
}
