//! Caps of introductions, of what they may make a leaf send, and of relays.

use std::time::Duration;

// --- whether a leaf can be dialled ----------------------------------------------------------------

/// Dial-backs of plain leaves that an ultrapeer has under way, each with a socket of its own. Chosen: one that is not
/// reached takes 3.5 s, so nine a second are told.
pub const LEAF_DIAL_BACKS: usize = 32;
/// Least time between two dial-backs of one leaf by one ultrapeer.
pub const LEAF_DIAL_BACK_PAUSE: Duration = Duration::from_mins(1);
/// Time after which a leaf that was reached asks again. Chosen: routers are set up otherwise seldom.
pub const REACHED_LIFETIME: Duration = Duration::from_hours(1);
/// Time after which a leaf that was not reached, or not told, asks again.
pub const UNREACHED_LIFETIME: Duration = Duration::from_mins(10);
/// Time for an answer: that of a dial-back, and the way.
pub const DIAL_BACK_PATIENCE: Duration = Duration::from_secs(10);

// --- introductions --------------------------------------------------------------------------------

/// Addresses in its own network that a leaf names. Chosen: one of each family.
pub const LOCAL_ADDRESSES: usize = 2;
/// Homes of a target that are named as relays: the second stands in for the first.
pub const RELAYS_NAMED: usize = 2;
/// Introductions that a leaf asks for in a second, and how many at once, where that is limited. Chosen: a download with
/// a hundred sources asks for each once, and for some again.
pub const INTRODUCE_RATE: f64 = 2.0;
/// See [`INTRODUCE_RATE`].
pub const INTRODUCE_BURST: f64 = 120.0;
/// Introductions of one peer that a target takes in a second, and how many at once. Chosen: who looks through a share by
/// one command after the other is introduced for each; what an introduction makes a leaf send is bounded by itself.
pub const INTRODUCTION_RATE: f64 = 1.0;
/// See [`INTRODUCTION_RATE`].
pub const INTRODUCTION_BURST: f64 = 60.0;
/// Peers whose introductions a leaf remembers.
pub const INTRODUCED_PEERS: usize = 1_024;
/// Time for which an agreement holds: the other one comes within it, by the slowest way.
pub const INTRODUCTION_LIFETIME: Duration = Duration::from_mins(1);

/// Addresses that others named and to which something was sent in the last [`NAMED_LIFETIME`]. If there are more, others
/// are not tried: 64 bytes each.
pub const NAMED_ADDRESSES: usize = 4_096;
/// How long what was sent to an address that did not answer counts.
pub const NAMED_LIFETIME: Duration = Duration::from_hours(1);
/// Flights of first packets that one address gets in that time, if it does not answer: 3 datagrams of 1200 bytes, or 6
/// with large keys. What a web server sends to whoever names it to a browser is more.
pub const NAMED_FLIGHTS: u8 = 3;
/// Single bytes that one address gets in that time.
pub const NAMED_PROBES: u8 = 12;

/// When the bytes of a punch are sent, in milliseconds from its beginning: often at first, and as long as the other side
/// dials. The first opens the NAT; the others find the moment at which the other one is open, too.
pub const PROBE_TIMES_MS: [u64; NAMED_PROBES as usize] = [0, 20, 40, 80, 160, 320, 480, 640, 960, 1_280, 1_600, 1_920];
/// The round trip that a punch assumes at first: its first packets are repeated after 0.3 and 0.9 s instead of 1 and 3.
pub const PUNCH_RTT: Duration = Duration::from_millis(100);
/// Time for the first answer to a punch: three flights, the fourth would leave after 2.1 s.
pub const PUNCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the first answer to a dial of an address that others named: three flights, the fourth would leave after 7 s.
pub const NAMED_DIAL_TIMEOUT: Duration = Duration::from_millis(3_500);
/// Time for the other side to dial: the way of the introduction, and [`NAMED_DIAL_TIMEOUT`].
pub const PUSH_TIMEOUT: Duration = Duration::from_secs(4);
/// Leaves that this one waits for to dial it.
pub const PUSHES_AWAITED: usize = 1_024;

// --- relays ---------------------------------------------------------------------------------------

/// Bytes of a packet between two that are relayed: QUIC's smallest largest packet (RFC 9000 14).
pub const RELAY_PACKET: usize = 1_200;
/// Packets that wait at each side for their way to the relay. Chosen: 77 kB, a third of a second at the default rate.
pub const RELAY_QUEUE: usize = 64;
/// Relayed connections of one leaf at one ultrapeer.
pub const RELAYS_PER_PEER: usize = 2;
/// Bytes of one relayed connection, both ways together. Chosen: an hour at the default rate. Whoever needs more is
/// introduced again.
pub const RELAY_BYTES: u64 = 1 << 30;
/// Time for the other side to come to the relay: a dial.
pub const RELAY_PATIENCE: Duration = Duration::from_secs(5);
/// Introductions that an ultrapeer would relay for, in the [`INTRODUCTION_LIFETIME`] after the target agreed.
pub const RELAYS_AGREED: usize = 4_096;
/// Bytes that pass at once: ten packets.
pub const RELAY_BURST: usize = 10 * RELAY_PACKET;
/// Time for all of getting to a relay: dial, the other side's dial, handshake.
pub const RELAY_TIMEOUT: Duration = Duration::from_secs(12);
/// Time between two attempts to do without the relay.
pub const RELAY_UPGRADE: Duration = Duration::from_mins(1);
/// Time for which a better connection stays open although nobody uses it yet: a source that was lost is tried again
/// after [`super::SOURCE_RETRY`].
pub const RELAY_HANDOVER: Duration = Duration::from_secs(10);
/// Guests, who come only to be relayed, that may wait at an ultrapeer.
pub const RELAY_GUESTS: usize = 256;
/// Share of its upstream that a volunteer gives to all that it relays, in percent.
pub const RELAY_SHARE: u64 = 20;
/// Share of its places that an ultrapeer gives away before it relays no more, in percent.
pub const RELAY_LOAD: u64 = 90;
