//! Everything that travels between nodes: frames, bounded types, and the messages of each protocol.
//!
//! | module | what it is |
//! |---|---|
//! | [`frame`] | length, type, body; caps are checked before a body is read |
//! | [`bounded`] | lists, texts and byte strings that refuse to grow beyond their cap |
//! | [`hello`] | how every connection begins, whatever its protocol |
//! | [`descriptor`] | what an ultrapeer says of itself, signed |
//! | [`election`] | how it is let in |
//! | [`search`] | queries, hits, summaries: the same for leaves and ultrapeers |
//! | [`introduction`] | bringing leaves together |
//! | [`leaf`], [`mesh`], [`transfer`] | the messages of the three protocols |
//!
//! Rules that keep two releases of one major version compatible and a hostile sender harmless:
//! - Within a major version, messages and enum variants are only appended. A message never changes: its
//!   successor gets a new number. Unknown numbers are skipped.
//! - A body is postcard, decoded whole, and left-over bytes are an error.
//! - No recursion, no zero-sized elements, no floats, no maps, no `usize`; every list has a cap.
//! - Signatures cover the bytes that were received, never a second encoding (varints are not canonical).

pub mod bounded;
pub mod descriptor;
pub mod election;
pub mod frame;
pub mod hello;
pub mod introduction;
pub mod leaf;
pub mod mesh;
pub mod possession;
pub mod search;
pub mod transfer;

use serde::{Serialize, de::DeserializeOwned};

/// The major version of the protocols; part of every protocol name.
pub const MAJOR: u32 = 1;

/// What a connection is for. Named in the TLS handshake (ALPN), so that both sides agree before a byte
/// of ours is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// A leaf to its ultrapeer.
    Leaf,
    /// An ultrapeer to another.
    Mesh,
    /// A leaf to another.
    Transfer,
}

impl Protocol {
    /// All protocols, in the order in which a node offers them.
    pub const ALL: [Self; 3] = [Self::Leaf, Self::Mesh, Self::Transfer];

    /// The name in the TLS handshake.
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Leaf => b"quictrack/1 leaf",
            Self::Mesh => b"quictrack/1 mesh",
            Self::Transfer => b"quictrack/1 transfer",
        }
    }

    /// The protocol of that name, if it is one of ours in this major version.
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.alpn() == name)
    }

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Mesh => "mesh",
            Self::Transfer => "transfer",
        }
    }

    /// Number, name and cap in bytes of each of its messages.
    pub const fn messages(self) -> &'static [(u16, &'static str, usize)] {
        match self {
            Self::Leaf => leaf::LeafMessage::TABLE,
            Self::Mesh => mesh::MeshMessage::TABLE,
            Self::Transfer => transfer::TransferMessage::TABLE,
        }
    }
}

/// The name of the protocol that never changes: after a mismatch the dialler asks with it which versions
/// the other side speaks, so that the error can say who is older. Both sides send one frame-less line
/// `quictrack <lowest major> <highest major> <agent>` and close.
pub const VERSION_ALPN: &[u8] = b"quictrack version";

/// The protocol under which a node is dialled to see whether it is reached from outside, and how fast it sends.
pub const MEASURE_ALPN: &[u8] = b"quictrack/1 measure";

/// A protocol's set of messages, made by [`messages!`].
pub trait Message: Sized + Send + Sync + 'static {
    /// The message's number on the wire.
    fn number(&self) -> u16;

    /// Its name, for logs and metrics.
    fn name(&self) -> &'static str;

    /// The most body bytes that message `number` may have; `None` if the number is unknown.
    fn cap(number: u16) -> Option<usize>;

    /// The body of message `number`. The number must be one for which [`Self::cap`] gives a cap.
    fn decode(number: u16, body: &[u8]) -> Result<Self, DecodeError>;

    /// Appends the body to `buffer`.
    fn encode_body(&self, buffer: &mut Vec<u8>);
}

/// The messages of one [`Protocol`]. All protocols begin alike, with the same numbers.
pub trait Conversation: Message + From<hello::Hello> + From<hello::Welcome> + From<hello::Refuse> {
    /// Which protocol they belong to.
    const PROTOCOL: Protocol;

    /// The message as one that begins a connection; `None` if it is another.
    fn into_opening(self) -> Option<Opening>;
}

/// How a connection begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The dialler introduces itself.
    Hello(hello::Hello),
    /// It is let in.
    Welcome(hello::Welcome),
    /// It is not.
    Refuse(hello::Refuse),
}

impl Opening {
    /// The highest number of a message that begins a connection, in every protocol.
    pub const LAST_NUMBER: u16 = 3;
}

macro_rules! conversation {
    ($($messages:ty => $protocol:ident),+ $(,)?) => { $(
        impl Conversation for $messages {
            const PROTOCOL: Protocol = Protocol::$protocol;

            fn into_opening(self) -> Option<Opening> {
                match self {
                    Self::Hello(hello) => Some(Opening::Hello(hello)),
                    Self::Welcome(welcome) => Some(Opening::Welcome(welcome)),
                    Self::Refuse(refuse) => Some(Opening::Refuse(refuse)),
                    _ => None,
                }
            }
        }
    )+ };
}
conversation! {
    leaf::LeafMessage => Leaf,
    mesh::MeshMessage => Mesh,
    transfer::TransferMessage => Transfer,
}

/// Why bytes are no message. The fault is the sender's; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body is not what its type says, or breaks a bound.
    #[error("malformed {message}")]
    Malformed {
        /// The message's name.
        message: &'static str,
    },
    /// Bytes follow the body.
    #[error("{bytes} bytes too many after {message}")]
    LeftOver {
        /// The message's name.
        message: &'static str,
        /// How many bytes.
        bytes: usize,
    },
    /// The frame says that it is longer than its type allows.
    #[error("message {number} of {length} bytes is over its cap")]
    Oversized {
        /// The message's number.
        number: u16,
        /// The length that the frame claims.
        length: usize,
    },
    /// The type is not known to this version. The frame can be skipped.
    #[error("unknown message {number}")]
    Unknown {
        /// The message's number.
        number: u16,
    },
}

/// Decodes one postcard value that must fill `body` exactly.
pub fn decode_exact<T: DeserializeOwned>(message: &'static str, body: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(DecodeError::LeftOver { message, bytes: rest.len() }),
        Err(_) => Err(DecodeError::Malformed { message }),
    }
}

/// Appends the postcard encoding of `value` to `buffer`.
pub fn encode_into<T: Serialize>(value: &T, buffer: &mut Vec<u8>) {
    let taken = std::mem::take(buffer);
    *buffer = postcard::to_extend(value, taken).expect("growing a vector does not fail");
}

/// Declares a protocol's messages: an enum with one variant for each message, its number, and the most
/// bytes its body may have.
macro_rules! messages {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$doc:meta])* $number:literal $variant:ident($body:ty) up to $cap:expr, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$doc])* $variant($body), )+
        }

        impl $name {
            /// Number, name and cap in bytes of every message.
            pub const TABLE: &'static [(u16, &'static str, usize)] =
                &[$( ($number, stringify!($variant), $cap), )+];
        }

        impl $crate::wire::Message for $name {
            fn number(&self) -> u16 {
                match self { $( Self::$variant(_) => $number, )+ }
            }

            fn name(&self) -> &'static str {
                match self { $( Self::$variant(_) => stringify!($variant), )+ }
            }

            fn cap(number: u16) -> Option<usize> {
                match number { $( $number => Some($cap), )+ _ => None }
            }

            fn decode(number: u16, body: &[u8]) -> Result<Self, $crate::wire::DecodeError> {
                match number {
                    $( $number if body.len() > $cap =>
                        Err($crate::wire::DecodeError::Oversized { number, length: body.len() }), )+
                    $( $number => $crate::wire::decode_exact(stringify!($variant), body).map(Self::$variant), )+
                    _ => Err($crate::wire::DecodeError::Unknown { number }),
                }
            }

            fn encode_body(&self, buffer: &mut Vec<u8>) {
                match self { $( Self::$variant(body) => $crate::wire::encode_into(body, buffer), )+ }
            }
        }

        $( impl From<$body> for $name { fn from(body: $body) -> Self { Self::$variant(body) } } )+
    };
}
pub(crate) use messages;
