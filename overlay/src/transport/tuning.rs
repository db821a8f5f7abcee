//! QUIC's settings: timers, windows, packet sizes, and the keys that outlive a crash.
//!
//! One node serves ten thousand idle leaves and a few transfers from the same socket, and when a handshake
//! begins it is not known which it will be. So everyone begins small, and what needs more is raised after
//! it was welcomed (see [`Windows`]).
//!
//! In bulk the cost is in packets: measured on loopback, 1 GiB by plain quinn with a BLAKE3 takes 2.5 times as long
//! in packets of 1,452 bytes as in those of [`limits::UDP_PAYLOAD`], which discovery finds where the path lets them
//! through. A download takes as long as that stream. A runtime of one thread for the leaf, without wake-ups between
//! threads, was tried and changed nothing beyond noise, so QUIC shares the runtime with everything else.

use std::{sync::Arc, time::Duration};

use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt, crypto::CryptoError};
use quinn_proto::HashedConnectionIdGenerator;

use crate::{identity::Identity, limits, wire::Protocol};

/// How much the two sides may have under way on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Windows {
    /// Control frames only: what a connection begins with at the side that was dialled.
    Idle,
    /// A leaf's upload, or answers to a leaf.
    Active,
    /// Between ultrapeers.
    Mesh,
    /// Contents of files, in either direction.
    Bulk,
}

impl Windows {
    pub(super) const fn receive(self) -> u32 {
        match self {
            Self::Idle => limits::RECEIVE_WINDOW_IDLE,
            Self::Active => limits::RECEIVE_WINDOW_ACTIVE,
            Self::Mesh => limits::RECEIVE_WINDOW_MESH,
            Self::Bulk => limits::RECEIVE_WINDOW_BULK,
        }
    }

    pub(super) const fn send(self) -> u64 {
        match self {
            Self::Idle | Self::Active => limits::SEND_WINDOW,
            Self::Mesh => limits::RECEIVE_WINDOW_MESH as u64,
            Self::Bulk => limits::SEND_WINDOW_BULK,
        }
    }
}

/// Streams (in both directions, one-way) that the other side may have open once it was welcomed.
pub(super) const fn streams(protocol: Protocol) -> (u32, u32) {
    match protocol {
        Protocol::Leaf => (limits::LEAF_STREAMS, 0),
        Protocol::Mesh => (limits::MESH_STREAMS, limits::MESH_ONE_WAY_STREAMS),
        Protocol::Transfer => (limits::TRANSFER_STREAMS, 0),
    }
}

/// Settings of the whole socket. The two keys follow from the identity, so that after a crash the restarted
/// node recognises packets of its former connections and ends them at once (stateless reset), instead of
/// leaving the others to wait until they are idle.
pub(super) fn endpoint(identity: &Identity) -> EndpointConfig {
    let seed = identity.seed();
    let reset = blake3::derive_key("quictrack 2026-11-22 stateless reset", seed.as_slice());
    let ids = blake3::derive_key("quictrack 2026-11-22 connection ids", seed.as_slice());
    let ids = u64::from_le_bytes(*ids.first_chunk().expect("a key has 32 bytes"));
    let mut config = EndpointConfig::new(Arc::new(ResetKey(reset)));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config.max_udp_payload_size(limits::UDP_PAYLOAD).expect("over QUIC's minimum of 1200");
    config
}

/// Settings of connections that others dial.
pub(super) fn dialled() -> TransportConfig {
    let mut config = common();
    config.receive_window(Windows::Idle.receive().into());
    // One stream, for the hello; the rest is granted with the welcome.
    config.max_concurrent_bidi_streams(VarInt::from_u32(1));
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config
}

/// [`dialled`] at a node that sends no files. QUIC keeps for each connection a buffer of the largest send that it
/// ever made, and makes room for ten packets as soon as it sends two at once (quinn 0.11): 12 kB after a handshake, 65
/// kB once large packets pass. Without sends of many packets at once, and without looking for larger packets than the
/// smallest that QUIC allows, it is one packet. The search for the usual size makes that 2.4 kB (measured: heaptrack)
/// and sends probes to each newcomer; our messages are small, and leaves look for the size of theirs themselves.
pub(super) fn dialled_lean() -> TransportConfig {
    let mut config = dialled();
    config.enable_segmentation_offload(false).mtu_discovery_config(None);
    config
}

/// Settings of a connection that we dial. Only this side keeps it alive: a NAT in front of it remembers
/// the flow by outgoing packets alone.
pub(super) fn dialling(protocol: Protocol, jitter: u32) -> TransportConfig {
    let windows = match protocol {
        Protocol::Mesh => Windows::Mesh,
        Protocol::Leaf | Protocol::Transfer => Windows::Active,
    };
    let mut config = common();
    if protocol == Protocol::Leaf {
        // Packets of usual size will do for lists and hits. Each look for a larger one sends thousands of bytes of
        // padding, which quinn reads one by one: reading frames took a quarter of an ultrapeer's CPU while 1,500 leaves
        // attached and idled (measured: perf on bench/, --bin leaves).
        config.mtu_discovery_config(Some(MtuDiscoveryConfig::default()));
    }
    config.keep_alive_interval(Some(jittered(limits::KEEP_ALIVE, jitter)));
    config.receive_window(windows.receive().into());
    config.send_window(windows.send());
    let (streams, one_way) = streams(protocol);
    config.max_concurrent_bidi_streams(streams.into());
    config.max_concurrent_uni_streams(one_way.into());
    config
}

/// Settings of a connection whose packets are carried inside of a stream, of those of any other: no packet is lost there,
/// so there is no larger one to be found that passes.
pub(super) fn carried(mut config: TransportConfig) -> TransportConfig {
    config.mtu_discovery_config(None);
    config
}

/// Settings of a connection on which another node shows how fast it sends: it may send as fast as it can.
pub(super) fn measuring() -> TransportConfig {
    let mut config = common();
    config.receive_window(Windows::Bulk.receive().into());
    // It opens none.
    config.max_concurrent_bidi_streams(VarInt::from_u32(0)).max_concurrent_uni_streams(VarInt::from_u32(0));
    config
}

fn common() -> TransportConfig {
    let mut probing = MtuDiscoveryConfig::default();
    probing.upper_bound(limits::UDP_PAYLOAD);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::try_from(limits::IDLE_TIMEOUT).expect("far below QUIC's 2^62 ms")))
        .stream_receive_window(limits::RECEIVE_WINDOW_STREAM.into())
        .send_window(limits::SEND_WINDOW)
        .crypto_buffer_size(limits::CRYPTO_BYTES)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .mtu_discovery_config(Some(probing));
    config
}

/// `interval` changed by up to a tenth either way, so that many connections do not beat in step.
fn jittered(interval: Duration, jitter: u32) -> Duration {
    interval.mul_f64(0.9 + 0.2 * f64::from(jitter) / f64::from(u32::MAX))
}

/// Makes the tokens of stateless resets.
struct ResetKey([u8; 32]);

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0).update(data).finalize_xof().fill(signature);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // `blake3::Hash` compares in constant time.
        if blake3::keyed_hash(&self.0, data) == *signature { Ok(()) } else { Err(CryptoError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth() {
        let interval = Duration::from_secs(20);
        assert_eq!(jittered(interval, 0), Duration::from_secs(18));
        assert_eq!(jittered(interval, u32::MAX), Duration::from_secs(22));
    }

    #[test]
    fn reset_tokens_survive_a_restart_and_differ_between_nodes() {
        use quinn::crypto::HmacKey;
        let token = |key: &ResetKey| {
            let mut token = [0; 32];
            key.sign(b"connection", &mut token);
            token
        };
        let key = ResetKey([1; 32]);
        assert_eq!(token(&key), token(&ResetKey([1; 32])));
        assert_ne!(token(&key), token(&ResetKey([2; 32])));
        assert!(key.verify(b"connection", &token(&key)).is_ok());
        assert!(key.verify(b"other", &token(&key)).is_err());
    }
}
