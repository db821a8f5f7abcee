//! Caps of elections: who may be an ultrapeer, and how that is found out.

use std::time::Duration;

use super::{INDEX_MEMORY, LEAVES_OF_ULTRAPEER};

/// Members that vote on a candidate.
pub const VOTERS: usize = 3;
/// Members beyond them whose votes count, too, for those whose views differ by what happened in the last seconds.
pub const VOTERS_SLACK: usize = 2;
/// Votes with which a candidate is in.
pub const VOTES: usize = 2;
/// Ultrapeers from which on it takes that many; in a smaller network one is enough.
pub const VOTES_FROM: u32 = 3;
/// Voters that are named to a candidate that asked others.
pub const VOTERS_NAMED: usize = VOTERS + VOTERS_SLACK;
/// Descriptors that are kept until those who endorsed them are known.
pub const WAITING_MEMBERS: usize = 1_024;
/// Time between two looks at them. What makes them count is mostly seen at once.
pub const WAITING_LOOK: Duration = Duration::from_secs(10);
/// Time for which a node that gives up its network for another believes what it is told of that.
pub const ADOPTION: Duration = Duration::from_mins(1);
/// Time after which the end of an ultrapeer is nothing unusual.
pub const SHORT_LIFE: Duration = Duration::from_mins(10);
/// Ends before that in a row after which a node is not let in again for [`TOMBSTONE_LIFETIME`](super::TOMBSTONE_LIFETIME): it answers those who look
/// at it, and then nobody.
pub const SHORT_LIVES: u8 = 3;
/// Leaves that an ultrapeer is taken to have room for, whatever it says: who boasts must not draw all newcomers.
pub const CAPACITY_COUNTED: u32 = LEAVES_OF_ULTRAPEER;
/// Ultrapeers in one /24 (IPv6 /48).
pub const ULTRAPEERS_PER_PREFIX: u32 = 1;
/// Ultrapeers in one /16 (IPv6 /32), in networks of up to 200; see [`ULTRAPEERS_WIDE_SHARE`].
pub const ULTRAPEERS_PER_WIDE_PREFIX: u32 = 2;
/// One of so many ultrapeers may be in one /16: Heilman's eclipse of Bitcoin nodes had addresses in 32 of them, which makes
/// about a hundredth of 3,000 here.
pub const ULTRAPEERS_WIDE_SHARE: u32 = 100;
/// Upstream that an ultrapeer needs, in kbit/s: ten times what one has to send in a network of a million leaves.
pub const ELECTION_BANDWIDTH_KBIT: u32 = 10_000;
/// Packets of a million that it may not lose.
pub const ELECTION_LOSS_PPM: u32 = 10_000;
/// Time for which a volunteer must have been seen: the time that a node has been there is the best guess of the time
/// that it will stay.
pub const ELECTION_UPTIME: Duration = Duration::from_hours(2);
/// Memory that an ultrapeer needs for index and digests.
pub const ELECTION_MEMORY: u64 = INDEX_MEMORY;
/// Ultrapeers that a network wants in any case; see [`FLOOR_SMALL`].
pub const FLOOR: u32 = 5;
/// Ultrapeers that a network of under [`FLOOR_SMALL_NODES`] nodes wants in any case: one may go.
pub const FLOOR_SMALL: u32 = 2;
/// See [`FLOOR_SMALL`].
pub const FLOOR_SMALL_NODES: u64 = 100;
/// Median load over which more ultrapeers are wanted.
pub const DEMAND_LOAD: f64 = 0.8;
/// Time for which a reason to want more must last: twice that for load. Chosen: a flood of leaves waits a minute or two,
/// and a restart of an ultrapeer is over before.
pub const DEMAND_WINDOW: Duration = Duration::from_mins(1);
/// Ultrapeers that may join in a minute in any case.
pub const GROWTH_A_MINUTE: usize = 2;
/// One of so many may join in an hour.
pub const GROWTH_SHARE: usize = 10;
/// See [`GROWTH_A_MINUTE`].
pub const GROWTH_MINUTE: Duration = Duration::from_mins(1);
/// See [`GROWTH_SHARE`].
pub const GROWTH_HOUR: Duration = Duration::from_hours(1);
/// Joins that are noted: more than a tenth of the largest network.
pub const GROWTH_NOTED: usize = 4_096;
/// Of those, the ones that a voter wants: as many as there can be in a smaller network.
pub const INVITATIONS_NEEDED: usize = 2;
/// Time for which an invitation counts, and by which clocks may differ.
pub const INVITATION_LIFETIME: Duration = Duration::from_hours(2);
/// Candidates that are dialled back at the same time.
pub const DIAL_BACKS: usize = 8;
/// Candidates that wait for it.
pub const DIAL_BACKS_WAITING: usize = 64;
/// Time between two dial-backs into one /24 (IPv6 /48), and for which what they found counts.
pub const DIAL_BACK_PAUSE: Duration = Duration::from_mins(10);
/// Parts of the Internet whose last dial-back is remembered; while there are more, nobody is dialled back.
pub const DIAL_BACK_PREFIXES: usize = 4_096;
/// How many times as much as the worst volunteer a candidate must be worth to take its place.
pub const REPLACING_SCORE: u16 = 2;
/// Time after which a candidate may ask again that came at the wrong moment.
pub const APPLY_SOON: Duration = Duration::from_secs(10);
/// Time after which it may if nothing is wrong with it that lasts.
pub const APPLY_LATER: Duration = Duration::from_mins(1);
/// Time after which it may if something is.
pub const APPLY_MUCH_LATER: Duration = Duration::from_mins(10);
/// Time for an answer to an application: a dial-back and a measurement, and some waiting.
pub const APPLY_PATIENCE: Duration = Duration::from_secs(20);
/// Least time between two applications to one voter.
pub const APPLY_PATIENCE_MIN: Duration = Duration::from_secs(2);
/// Time between two looks of a candidate at whom to ask.
pub const CANDIDACY_PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks of one that has its votes: endorsers may have gone.
pub const CANDIDACY_REST: Duration = Duration::from_secs(10);
/// Voters that are asked, or known of another network.
pub const MET_VOTERS: usize = 32;
/// Time for the handshake of a dial-back: three flights of first packets (after 0, 1 and 3 s), each of at most two.
pub const DIAL_BACK_TIMEOUT: Duration = Duration::from_millis(3_500);
/// Bytes that a node sends to show how fast it is; the second half is timed.
pub const MEASURE_BYTES: u32 = 2_000_000;
/// Time for them: what has come by then is timed. At the rate that is asked for they take two seconds.
pub const MEASURE_TIMEOUT: Duration = Duration::from_secs(8);
/// Nodes that may measure this one.
pub const ASKERS: usize = 64;
/// Time for which a node may, since it was expected.
pub const ASKER_LIFETIME: Duration = Duration::from_hours(24);
/// Time between two measurements by one node.
pub const MEASURE_PAUSE: Duration = Duration::from_mins(1);
/// Packets below which nobody can tell how many are lost.
pub const LOSS_PACKETS: u64 = 100;
/// Own leaves that would serve of which a home finds out what they can do: more than one ultrapeer ever has need of.
pub const APPRAISED: usize = 1_024;
/// Time after the attachment of a leaf within which it is dialled back for the first time.
pub const APPRAISAL_DELAY: Duration = Duration::from_secs(10);
/// Time between two dial-backs of a leaf: what it can do changes rarely.
pub const APPRAISAL_INTERVAL: Duration = Duration::from_hours(1);
/// Leaves that are dialled back at the same time: each may send megabytes.
pub const APPRAISALS: usize = 2;
/// Time between two words to a leaf on what was found out: within it what it can show gets too old for nobody.
pub const APPRAISAL_TOLD: Duration = Duration::from_mins(10);
/// Time between two invitations by one home, of different leaves: the best first, and voters see what became of it.
pub const INVITATION_PAUSE: Duration = Duration::from_secs(10);
/// Time after which a leaf is invited again that did not come in.
pub const INVITATION_AGAIN: Duration = Duration::from_mins(5);
/// Leaves whose former sessions are remembered, for [`SESSIONS_LIFETIME`].
pub const SESSIONS_REMEMBERED: usize = 4_096;
/// See [`SESSIONS_REMEMBERED`].
pub const SESSIONS_LIFETIME: Duration = Duration::from_hours(24);
/// Time between two looks at whether more are wanted.
pub const DEMAND_LOOK: Duration = Duration::from_secs(5);
/// Load under which a volunteer may be one too many.
pub const SURPLUS_LOAD: f64 = 0.2;
/// Median load under which there may be one too many, and load that the others may have without it.
pub const SURPLUS_MEDIAN: f64 = 0.5;
/// Time for which there must be one too many, and in which somebody is new.
pub const SURPLUS_WINDOW: Duration = Duration::from_mins(5);
/// Least time for which a volunteer serves: it costs leaves a move each.
pub const DWELL: Duration = Duration::from_mins(15);
/// Links of nodes that are no members, and want to be. Chosen: each costs what a leaf costs.
pub const STRANGERS: usize = 256;
/// Time for which such a link stays: longer than any pause between two applications.
pub const STRANGER_PATIENCE: Duration = Duration::from_mins(30);
/// Time between two words to a node that it does not count here.
pub const MEETING_PAUSE: Duration = Duration::from_secs(20);
/// Time between two dials of nodes that are said to serve and do not count here.
pub const FOREIGN_DIAL_PAUSE: Duration = Duration::from_secs(2);
/// Time between two such dials into one /24 (IPv6 /48): whoever said so may lie.
pub const FOREIGN_DIAL_REST: Duration = Duration::from_hours(1);
/// Such dials in that time.
pub const FOREIGN_DIALS: usize = 256;
/// Invitations of an application.
pub const INVITATIONS: usize = 3;

/// One in so many places of an ultrapeer is kept, beyond those that it has, for leaves without any home: one with two
/// other homes leaves for each of them.
pub const RESERVE_SHARE: usize = 16;
