//! How a network begins, and begins again: who waits for whom, and how often strangers are dialled for it.

use std::time::Duration;

/// Time for which whoever means to begin a network tries the nodes that it knows before it does so alone; also for which
/// a volunteer tries them that was in the network before.
pub const FOUNDING_PATIENCE: Duration = Duration::from_secs(10);
/// Time for which a volunteer that has never been in the network tries all nodes that it knows. Chosen: the network is
/// there far more often than not, and two that were begun by mistake cost more than half a minute.
pub const FOUNDING_PATIENCE_NEW: Duration = Duration::from_secs(30);
/// Time that a volunteer leaves to each one that goes before it, once its own patience is over. As long as the patience of
/// one that started just now.
pub const FOUNDING_YIELD: Duration = FOUNDING_PATIENCE_NEW;
/// The same of one that serves in any case. Chosen: two that start together see each other, and a person who waits for
/// one does not notice.
pub const FOUNDING_YIELD_ALWAYS: Duration = Duration::from_secs(3);
/// Those who go before it that a volunteer waits for, at most: whoever makes keys at will cannot keep a network from
/// beginning for longer than two minutes.
pub const FOUNDING_YIELDS: usize = 4;
/// Time that a leaf without a home takes to find the one that another has just found.
pub const FOUNDING_HOPE: Duration = Duration::from_secs(10);
/// Leaves without a home that one of them keeps in touch with: the first of those that it knows. Chosen: the first of all
/// is among them, and with a handshake each in [`CONTACT_PAUSE`] they cost 1 % of a core.
pub const CONTACTS: usize = 16;
/// Such leaves that are named to others at a time.
pub const CONTACTS_NAMED: usize = 16;
/// Leaves that would be ultrapeers, as homes told, that a leaf remembers (also on disk).
pub const VOLUNTEERS_KEPT: usize = 50;
/// Time between two dials of such a leaf.
pub const CONTACT_PAUSE: Duration = Duration::from_secs(5);
/// Time between two dials of the one that is to begin the network, once patience is over: the others are attached to it
/// within seconds.
pub const CONTACT_PAUSE_FIRST: Duration = Duration::from_secs(2);
/// Time for which a leaf counts as being in contact after it answered, or was dialled. Two failed dials, and a little.
pub const CONTACT_FRESH: Duration = Duration::from_secs(15);
/// Dials in a row that may fail until such a leaf is forgotten.
pub const CONTACT_FAILURES: u32 = 3;
/// Time for a dial of such a leaf. QUIC sends its first packet again after one second and after three: an address that
/// somebody only claims gets three flights at most, and more only after [`HINT_AGAIN`].
pub const CONTACT_TIMEOUT: Duration = Duration::from_secs(4);
/// Time for which an address that only somebody else named, and where nobody answered, is not dialled again.
pub const HINT_AGAIN: Duration = Duration::from_hours(1);
/// Such addresses that are remembered; those that are named beyond them are not dialled.
pub const HINTS_FAILED: usize = 256;
/// Addresses that only somebody else named that are dialled in an hour over time.
pub const HINTS_PER_HOUR: f64 = 60.0;
/// Such addresses that may be dialled at once. Chosen: what two others name, and what homes told.
pub const HINTS_BURST: f64 = 64.0;
/// Such addresses that wait to be dialled.
pub const HINTS: usize = 64;
/// Dials of leaves without a home under way.
pub const CONTACT_DIALS: usize = 8;
/// Time between two questions to a home whether it lives, because somebody is without a home. Chosen: a stranger can cause
/// a packet for each home in that time, and a dead one is noticed in little more than [`LEAF_PATIENCE`](super::LEAF_PATIENCE).
pub const DOUBT_PAUSE: Duration = Duration::from_secs(5);
/// Times that an ultrapeer tells a leaf of others that would be ultrapeers, a second over time.
pub const VOLUNTEERS_RATE: f64 = 1.0 / 60.0;
/// Times that it does so at once. Chosen: leaves that come together soon know of each other.
pub const VOLUNTEERS_BURST: f64 = 3.0;
/// Time in which changes of who would be an ultrapeer are gathered before leaves are told.
pub const VOLUNTEERS_GATHER: Duration = Duration::from_secs(2);
/// The same for each leaf of the ultrapeer: of 10,000 each is looked at, in some 5 us, every 12 s.
pub const VOLUNTEERS_GATHER_EACH: Duration = Duration::from_millis(1);
/// Time for which a node that was an ultrapeer does not offer itself again. As long as it serves at least.
pub const ROLE_REST: Duration = Duration::from_mins(15);

// --- candidates -----------------------------------------------------------------------------------

/// Homes whose word on this leaf is kept.
pub const APPRAISALS_KEPT: usize = 8;
/// Time for which a leaf that was invited waits to be let in: voters dial back, and others are let in first.
pub const CANDIDATE_PATIENCE: Duration = Duration::from_mins(2);
/// Time after a vain attempt before the next.
pub const CANDIDATE_REST: Duration = Duration::from_mins(10);
/// Time for which a volunteer that served rests: its role changes twice in any day at most. Half a day allows it to serve
/// twice in a day, which is four changes (measured: bench/scenarios/diurnal.toml).
pub const RETIRED_REST: Duration = Duration::from_hours(24);
/// Time between two looks at what the machine runs on.
pub const CONDITIONS_LOOK: Duration = Duration::from_secs(10);
