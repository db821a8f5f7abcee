//! How nodes reach each other: QUIC connections between proven keys, and framed streams on them.
//!
//! | module | what it is |
//! |---|---|
//! | `endpoint` | the socket, dialling, being dialled |
//! | `admission` | pure: which handshakes to begin at all |
//! | `gate` | who is banned, and the connections that are open |
//! | `occupancy` | how many connections may stay, in all and of one address prefix |
//! | `tls` | keys: everything of rustls |
//! | `handshake` | hello and welcome; network name and secret |
//! | `dial_error` | why a dial failed |
//! | `dial_back` | whether a node is reached from outside, and how fast it sends |
//! | `carried` | connections inside of streams: what is relayed |
//! | `version` | after a mismatch: which side is older |
//! | `connection` | a welcomed peer, and why connections end |
//! | `streams` | messages and raw bytes |
//! | `ping` | round trips without a connection |
//! | `tuning`, `socket` | QUIC's settings, UDP |
//! | `stats` | what is counted |
//!
//! Invariant: whoever holds a [`Connection`] knows the other side's key, and both sides have proven that
//! they are in the same network. No type of the QUIC or TLS library leaves this module.

mod admission;
mod carried;
mod connection;
mod dial_back;
mod dial_error;
mod endpoint;
mod gate;
mod handshake;
mod occupancy;
mod penalties;
mod ping;
mod socket;
mod stats;
mod streams;
mod tls;
mod tuning;
mod version;

pub use connection::{CloseCode, CloseReason, Connection, ConnectionStats, Link};
pub use dial_back::{Reached, Unreached};
pub use dial_error::DialError;
pub use endpoint::{Arrivals, Attempt, Dialled, Endpoint};
pub use handshake::{Arrival, Greeting, Offer, Secret, Settings};
pub use occupancy::{Occupancy, Occupant};
pub use socket::{BindError, BindMode, socket_buffer, source_towards};
pub use stats::{Event, Stats};
pub use streams::{ReceiveError, Receiver, SendError, Sender};
pub use tuning::Windows;
