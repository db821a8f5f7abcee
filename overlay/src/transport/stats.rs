//! What the transport counts. Plain atomics: the program's metrics sample them.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::wire::{Conversation, Protocol};

/// Message numbers that are counted one by one; the rare higher ones share slot 0 with unknown ones.
const NUMBERS: usize = 64;

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the other side.
    Sent,
    /// From the other side.
    Received,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sent, Self::Received];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// How something that the transport tried ended, or a fault that it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A handshake of a dialler was begun.
    HandshakeBegun,
    /// A dialler was asked to prove its address.
    HandshakeRetried,
    /// A dialler got no answer: too many handshakes under way, or from its prefix.
    HandshakeIgnored,
    /// A handshake ended with a hello that the program was asked to answer.
    HandshakeOffered,
    /// A handshake failed or took too long.
    HandshakeFailed,
    /// A hello was refused: other network or secret.
    HelloRefused,
    /// A dial was welcomed.
    DialWelcomed,
    /// A dial failed, for whatever reason.
    DialFailed,
    /// A frame was no message of its protocol, or over its cap.
    MalformedFrame,
    /// A frame was begun and not finished in time.
    StalledFrame,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 10] = [
        Self::HandshakeBegun,
        Self::HandshakeRetried,
        Self::HandshakeIgnored,
        Self::HandshakeOffered,
        Self::HandshakeFailed,
        Self::HelloRefused,
        Self::DialWelcomed,
        Self::DialFailed,
        Self::MalformedFrame,
        Self::StalledFrame,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HandshakeBegun => "handshake_begun",
            Self::HandshakeRetried => "handshake_retried",
            Self::HandshakeIgnored => "handshake_ignored",
            Self::HandshakeOffered => "handshake_offered",
            Self::HandshakeFailed => "handshake_failed",
            Self::HelloRefused => "hello_refused",
            Self::DialWelcomed => "dial_welcomed",
            Self::DialFailed => "dial_failed",
            Self::MalformedFrame => "malformed_frame",
            Self::StalledFrame => "stalled_frame",
        }
    }
}

/// The transport's counters since the endpoint was bound. They only grow.
#[derive(Debug)]
pub struct Stats {
    events: [AtomicU64; Event::ALL.len()],
    messages: [[[Count; NUMBERS]; 2]; Protocol::ALL.len()],
}

#[derive(Debug, Default)]
struct Count {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// How often a message went which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageCount {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its name; `unknown` for messages of later releases.
    pub name: &'static str,
    /// Which way.
    pub direction: Direction,
    /// How many.
    pub messages: u64,
    /// Their bytes, frame headers included.
    pub bytes: u64,
}

impl Stats {
    /// Of one event.
    pub fn count(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    /// Of every message of every protocol, those at zero included.
    pub fn messages(&self) -> impl Iterator<Item = MessageCount> + '_ {
        Protocol::ALL.into_iter().flat_map(move |protocol| {
            Direction::ALL.into_iter().flat_map(move |direction| {
                let names = protocol.messages().iter().map(|(number, name, _)| (*number, *name));
                std::iter::once((0, "unknown")).chain(names).map(move |(number, name)| {
                    let count = self.slot(protocol, direction, number);
                    let messages = count.messages.load(Ordering::Relaxed);
                    let bytes = count.bytes.load(Ordering::Relaxed);
                    MessageCount { protocol, name, direction, messages, bytes }
                })
            })
        })
    }

    pub(super) fn new() -> Self {
        Self {
            events: Default::default(),
            messages: array::from_fn(|_| array::from_fn(|_| array::from_fn(|_| Count::default()))),
        }
    }

    pub(super) fn event(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn message<M: Conversation>(&self, direction: Direction, number: u16, bytes: usize) {
        let count = self.slot(M::PROTOCOL, direction, number);
        count.messages.fetch_add(1, Ordering::Relaxed);
        count.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn slot(&self, protocol: Protocol, direction: Direction, number: u16) -> &Count {
        let slots = &self.messages[protocol as usize][direction as usize];
        slots.get(usize::from(number)).unwrap_or(&slots[0])
    }
}
