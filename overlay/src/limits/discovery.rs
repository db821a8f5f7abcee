//! How a node without friends looks around, and how little it sends to whoever is where somebody says that a node is.

use std::time::Duration;

use super::HOMES;

/// Time that a node gives to ultrapeers of earlier sessions and to what its user named, before DNS names are asked for.
pub const DNS_DELAY: Duration = Duration::from_secs(1);
/// The same before those in the local network are dialled.
pub const LAN_DELAY: Duration = Duration::from_secs(2);
/// The same before the public hash table is asked.
pub const DHT_DELAY: Duration = Duration::from_secs(3);
/// Ultrapeers that a leaf must be in touch with until it looks for no others: as many as it has homes.
pub const GOOD_ULTRAPEERS: usize = HOMES;
/// Time between two looks at one source while no ultrapeer is known; doubles up to [`LOOK_AROUND_MAX`]. Chosen: as long
/// as a question to the hash table takes, twice.
pub const LOOK_AROUND_MIN: Duration = Duration::from_secs(5);
/// See [`LOOK_AROUND_MIN`].
pub const LOOK_AROUND_MAX: Duration = Duration::from_mins(10);
/// The same while some are known but fewer than should be, and time between two dials of unproven addresses then is
/// [`UNPROVEN_PAUSE`].
pub const LOOK_AROUND_CALM: Duration = Duration::from_hours(1);
/// Addresses that anybody may have made up that are dialled in a minute. Chosen: with [`HINT_AGAIN`](super::HINT_AGAIN)
/// whoever poisons the hash table makes a node send 24 flights of first packets a minute, never more than three of them
/// to one address in an hour.
pub const UNPROVEN_PER_MINUTE: f64 = 8.0;
/// Time between two such dials while some ultrapeer is known.
pub const UNPROVEN_PAUSE: Duration = Duration::from_mins(1);
/// Such addresses that are remembered as dialled: those of an hour.
pub const UNPROVEN_TRIED: usize = 480;
/// Such addresses that wait to be dialled.
pub const UNPROVEN_WAITING: usize = 256;
/// Time between two looks at how many ultrapeers a node is in touch with.
pub const STANDING_LOOK: Duration = Duration::from_secs(1);
/// Nodes in the local network that are remembered.
pub const LAN_NODES: usize = 256;
/// Addresses of each of them that are tried: one of each family, and one more for a machine in two networks.
pub const LAN_ADDRESSES: usize = 3;
/// Time for the farewell to the local network, and for giving back a mapped port.
pub const LAN_FAREWELL: Duration = Duration::from_millis(500);
/// Time for an answer of the public hash table. Questions end after some 2 s.
pub const DHT_TIMEOUT: Duration = Duration::from_secs(20);
/// Addresses that are taken from one answer of it.
pub const DHT_ADDRESSES: usize = 256;
/// Time between two announcements there; others forget an address after half an hour or more.
pub const DHT_ANNOUNCE: Duration = Duration::from_mins(15);
/// The same after one that failed.
pub const DHT_ANNOUNCE_RETRY: Duration = Duration::from_mins(1);

// --- port mapping ---------------------------------------------------------------------------------

/// Time for which a router is asked to forward a port; it is asked again when half of it is over. Short, so that what is
/// left behind by a node that was killed goes by itself.
pub const MAPPING_LEASE: Duration = Duration::from_hours(1);
/// Time between two looks at whether the mapping is still the one that is needed.
pub const MAPPING_LOOK: Duration = Duration::from_secs(5);
/// Time after a vain attempt before the router is asked again.
pub const MAPPING_RETRY: Duration = Duration::from_mins(10);
/// Time for a router's first answer to PCP or NAT-PMP, which is a question to the next machine; doubles with each of two
/// repetitions.
pub const MAPPING_TIMEOUT: Duration = Duration::from_millis(250);
/// Time for routers to answer a search by UPnP.
pub const MAPPING_SEARCH: Duration = Duration::from_secs(3);
/// The lowest port at which a leaf may have itself dialled instead of where it is seen. Those below are of services, which
/// are to be left alone.
pub const NAMED_PORT_MIN: u16 = 1_024;
