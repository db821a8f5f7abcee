//! What nodes send and receive, counted by the encoded size of messages.

use overlay::wire::{Message, frame::HEADER_BYTES, leaf::LeafMessage, mesh::MeshMessage};

use super::links;

/// Message numbers that are told apart, in each of the two protocols.
const NUMBERS: usize = 64;

/// Messages and bytes of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Messages.
    pub messages: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// Bytes on the line of one node, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

/// Counts of the whole network. Bytes are those of frames; on the line each message costs its packets besides
/// ([`links::line_bytes`]).
#[derive(Debug)]
pub struct Traffic {
    leaf: [Count; NUMBERS],
    mesh: [Count; NUMBERS],
    /// Hits, in messages between a leaf and an ultrapeer, and between ultrapeers.
    hits: [u64; 2],
    buffer: Vec<u8>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { leaf: [Count::default(); NUMBERS], mesh: [Count::default(); NUMBERS], hits: [0; 2], buffer: Vec::new() }
    }
}

impl Traffic {
    /// Counts a message between a leaf and an ultrapeer; returns the bytes of its frame.
    pub fn leaf(&mut self, message: &LeafMessage) -> usize {
        if let LeafMessage::Hits(told) = message {
            self.hits[0] += told.hits.len() as u64;
        }
        let bytes = self.size(message);
        count(&mut self.leaf, message.number(), bytes)
    }

    /// Counts a message between ultrapeers; returns the bytes of its frame.
    pub fn mesh(&mut self, message: &MeshMessage) -> usize {
        if let MeshMessage::QueryHits(told) = message {
            self.hits[1] += told.hits.len() as u64;
        }
        let bytes = self.size(message);
        count(&mut self.mesh, message.number(), bytes)
    }

    fn size(&mut self, message: &impl Message) -> usize {
        self.buffer.clear();
        message.encode_body(&mut self.buffer);
        self.buffer.len() + HEADER_BYTES
    }

    /// Hits told to leaves, and between ultrapeers.
    pub fn hits(&self) -> [u64; 2] {
        self.hits
    }

    /// All kinds that occurred, by protocol and name.
    pub fn kinds(&self) -> Vec<(&'static str, &'static str, Count)> {
        let named = |protocol, table: &'static [(u16, &'static str, usize)], counts: &[Count; NUMBERS]| {
            let rows = table.iter().map(|(number, name, _)| (protocol, *name, counts[usize::from(*number) % NUMBERS]));
            rows.filter(|(_, _, count)| count.messages > 0).collect::<Vec<_>>()
        };
        let mut all = named("leaf", LeafMessage::TABLE, &self.leaf);
        all.extend(named("mesh", MeshMessage::TABLE, &self.mesh));
        all
    }
}

fn count(counts: &mut [Count; NUMBERS], number: u16, bytes: usize) -> usize {
    let count = &mut counts[usize::from(number) % NUMBERS];
    count.messages += 1;
    count.bytes += bytes as u64;
    bytes
}

/// Adds what a message of that many bytes costs the line of its sender and its receiver.
pub fn add(bytes: usize, sender: &mut Line, receiver: &mut Line) {
    let (there, back) = links::line_bytes(bytes);
    sender.sent += there as u64;
    sender.received += back as u64;
    receiver.received += there as u64;
    receiver.sent += back as u64;
}

#[cfg(test)]
mod tests {
    use overlay::wire::{frame, leaf::Ping, mesh::QueryDone};

    use super::*;

    #[test]
    fn sizes_are_those_of_frames() {
        let mut traffic = Traffic::default();
        let ping = LeafMessage::from(Ping { token: 300 });
        let mut frame = Vec::new();
        frame::encode(&ping, &mut frame).expect("a small message");
        assert_eq!(traffic.leaf(&ping), frame.len());
        traffic.mesh(&QueryDone::default().into());
        let kinds = traffic.kinds();
        assert_eq!(kinds.iter().map(|(_, name, _)| *name).collect::<Vec<_>>(), ["Ping", "QueryDone"]);
        assert_eq!(kinds[0].2, Count { messages: 1, bytes: frame.len() as u64 });
    }

    #[test]
    fn both_ends_see_the_same_bytes() {
        let (mut one, mut other) = (Line::default(), Line::default());
        add(10_000, &mut one, &mut other);
        assert_eq!((one.sent, one.received), (other.received, other.sent));
        assert!(one.sent > 10_000 && one.received > 0);
    }
}
