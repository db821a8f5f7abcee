//! How long messages travel between two nodes, and what is lost on the way.
//!
//! The round trip of a pair follows from a hash of the seed and the two nodes: lognormal, with the median of 156 ms that
//! King measured between name servers, and never below 2 ms or above a second. Nothing is stored, so a million nodes
//! cost nothing. What QUIC does about loss is a delay here: each packet that is lost comes a round trip and
//! [`ACK_DELAY`] later, and messages of a stream keep their order.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::{draw, scenario::Paths};

/// How long a receiver may wait with an acknowledgement (RFC 9000, 18.2).
const ACK_DELAY: Duration = Duration::from_millis(25);
/// Bytes of a message that fit in one packet.
const PACKET_PAYLOAD: usize = 1_180;
/// Bytes around a packet's payload: IPv4 and UDP 28, QUIC's short header 11, its tag 16, a stream frame's header 5.
const PACKET_OVERHEAD: usize = 60;
/// Bytes of a packet that only acknowledges, or only keeps alive.
pub const BARE_PACKET: usize = 62;

/// The network below the overlay. See the module text.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    seed: u64,
    paths: Paths,
}

impl Links {
    /// Paths as the scenario describes them.
    pub fn new(seed: u64, paths: Paths) -> Self {
        Self { seed, paths }
    }

    /// The round trip between two nodes; the same in both directions.
    pub fn round_trip(&self, one: u32, other: u32) -> Duration {
        let hash = draw::mix(self.seed, u64::from(one.min(other)), u64::from(one.max(other)));
        let normal = draw::normal(draw::unit(hash), draw::unit(draw::mix(hash, 1, 2)));
        let milliseconds = self.paths.median_rtt_ms * (self.paths.rtt_sigma * normal).exp();
        Duration::from_micros((milliseconds.clamp(2.0, 1_000.0) * 1e3) as u64)
    }

    /// The time that a message of that many bytes takes, losses included.
    pub fn delay(&self, rng: &mut impl Rng, one: u32, other: u32, bytes: usize) -> Duration {
        let round_trip = self.round_trip(one, other);
        let mut delay = round_trip / 2;
        if self.paths.loss > 0.0 {
            let all_arrive = (1.0 - self.paths.loss).powi(packets(bytes) as i32);
            while rng.random_bool(1.0 - all_arrive) {
                delay += round_trip + ACK_DELAY;
            }
        }
        delay
    }
}

/// Packets of a message.
pub fn packets(bytes: usize) -> usize {
    bytes.div_ceil(PACKET_PAYLOAD).max(1)
}

/// Bytes on the line that a message costs: its packets, and the acknowledgements that come back, one for two. Every
/// message is counted as if it travelled alone, so busy lines cost less than this.
pub fn line_bytes(bytes: usize) -> (usize, usize) {
    let packets = packets(bytes);
    (bytes + packets * PACKET_OVERHEAD, packets.div_ceil(2) * BARE_PACKET)
}

#[cfg(test)]
mod tests {
    use rand_pcg::Pcg32;

    use super::*;

    #[test]
    fn round_trips_are_symmetric_and_have_the_published_median() {
        let links = Links::new(1, Paths::default());
        let mut all: Vec<_> = (1..10_001).map(|node| links.round_trip(0, node)).collect();
        assert_eq!(links.round_trip(3, 9), links.round_trip(9, 3));
        all.sort_unstable();
        let median = all[5_000].as_secs_f64() * 1e3;
        assert!((150.0..162.0).contains(&median), "{median} ms");
    }

    #[test]
    fn long_messages_are_delayed_by_loss_more_often() {
        let links = Links::new(1, Paths { loss: 0.01, ..Paths::default() });
        let mut rng = Pcg32::new(1, 1);
        let half = links.round_trip(1, 2) / 2;
        let mut late = |bytes| (0..2_000).filter(|_| links.delay(&mut rng, 1, 2, bytes) > half).count();
        let (short, long) = (late(100), late(100_000));
        assert!(short < 60 && long > 1_000, "{short} and {long} of 2,000");
    }
}
