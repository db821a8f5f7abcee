//! Caps of what ultrapeers do: among themselves, and for their leaves.

use std::time::Duration;

use super::{DESCRIPTOR_LIFETIME_MAX_S, SEARCH_LIMIT_ALL};

// --- membership -----------------------------------------------------------------------------------

/// Ultrapeers in one network that a node keeps in memory: 30,000 of 512 bytes are 15 MB.
pub const MEMBERS: usize = 30_000;
/// Ultrapeers that are gone of which old news is recognised, 300 bytes each. Chosen: at 3,000 ultrapeers that stay for
/// 8 hours, those of half a day.
pub const TOMBSTONES: usize = 4_096;
/// Time for which it is recognised: the longest that a descriptor may count.
pub const TOMBSTONE_LIFETIME: Duration = Duration::from_secs(DESCRIPTOR_LIFETIME_MAX_S as u64);
/// Addresses of ultrapeers that are gone, or of an earlier session, and still tried now and then, so that a healed
/// partition is noticed.
pub const GONE_MEMBERS: usize = 200;
/// Time between two refreshes of our own descriptor.
pub const DESCRIPTOR_REFRESH: Duration = Duration::from_hours(1);
/// Descriptors of one member that are passed on at once; see [`RENEWAL_RATE`].
pub const RENEWAL_BURST: f64 = 8.0;
/// Descriptors of one member a second that are passed on over time; more are left to the exchange of buckets. Chosen:
/// each costs every member eight frames, and a member that has no reason renews once in [`DESCRIPTOR_REFRESH`].
pub const RENEWAL_RATE: f64 = 0.1;
/// Times that this node denies its own death at once.
pub const DENIAL_BURST: f64 = 5.0;
/// Times a second that it does over time: a liar makes it speak to all no more than once a minute.
pub const DENIAL_RATE: f64 = 1.0 / 60.0;
/// Claims of one link that a member is suspect or gone which are looked into at once, besides one for each member: as
/// many as an honest one makes when many die or a partition heals. Each costs up to four probes.
pub const CLAIMS: usize = 64;
/// Such claims a second over time. More are ignored.
pub const CLAIMS_RATE: f64 = 1.0;
/// Links on which news is passed on, chosen anew each time: it misses one member in 3,000, whom the exchange of buckets
/// reaches (1 - e^-8 = 99.97 %).
pub const NEWS_LINKS: usize = 8;
/// Links that are kept to each other part of the leaf space: one to use and one to fall back to.
pub const LINKS_PER_PART: usize = 2;
/// Time between two probes, to the next member in order and to a random one by turns: each is probed once a second by
/// the one before it, and about once by some other. Measured with one random probe a second instead: one death in
/// twenty was noticed only after three seconds.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Least time for the answer to a probe. Chosen: a busy machine answers in that, also after a lost packet.
pub const PROBE_TIMEOUT_MIN: Duration = Duration::from_millis(400);
/// Longest time for it. Between, it is three round trips.
pub const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(1);
/// Members that are asked to probe one that does not answer: as in SWIM.
pub const PROBE_RELAYS: usize = 3;
/// Probes for others that are under way. Chosen: everyone asks at once when a third of a full shard dies.
pub const PROBES_RELAYED: usize = 1_024;
/// Probes of a link in a row that only others could deliver before the link is made anew.
pub const PROBE_STRIKES: u8 = 3;
/// Time for which a member that was just heard of is not judged: that of dialling it.
pub const PROBE_GRACE: Duration = Duration::from_secs(3);
/// Time for which a suspect may prove that it lives, at most, in a shard of up to five; 4 log10 R seconds in larger
/// ones (SWIM: news reaches everyone in logarithmic time).
pub const SUSPICION: Duration = Duration::from_secs(3);
/// Time for which it may if [`SUSPICION_WITNESSES`] others cannot reach it either (as in Lifeguard). Chosen: a machine
/// that hung for so long loses its leaves anyway.
pub const SUSPICION_MIN: Duration = Duration::from_secs(2);
/// Others that cannot reach a suspect after whose word nothing more is to be expected of it.
pub const SUSPICION_WITNESSES: usize = 3;
/// Delay of this node's own deadline beyond which it judges nobody: it hung itself.
pub const STALL: Duration = Duration::from_secs(1);
/// Parts of the key space that are compared on their own.
pub const SYNC_BUCKETS: usize = 256;
/// Time between two comparisons with a random member.
pub const SYNC_INTERVAL: Duration = Duration::from_mins(1);
/// Answers to comparisons that one link may ask for at once.
pub const SYNC_BURST: f64 = 6.0;
/// Answers to comparisons a second that one link may ask for over time.
pub const SYNC_RATE: f64 = 0.1;
/// Time for which the node with the higher key leaves the dialling to the other.
pub const DIAL_COURTESY: Duration = Duration::from_secs(1);
/// First pause between two attempts to dial a member; doubles up to [`REDIAL_MAX`].
pub const REDIAL_MIN: Duration = Duration::from_millis(500);
/// Longest pause between two attempts to dial a member or a join target.
pub const REDIAL_MAX: Duration = Duration::from_secs(30);
/// Time between two attempts to reach an ultrapeer that is gone.
pub const GONE_REDIAL: Duration = Duration::from_mins(1);
/// Nodes that an ultrapeer which was a leaf asks now and then whom they know: those that a leaf keeps, and is in touch with.
pub const CONTACTS_KEPT: usize = super::VOLUNTEERS_KEPT + super::CONTACTS;
/// Time between two attempts to reach one of an earlier session while no link is up.
pub const HINT_PAUSE: Duration = Duration::from_secs(1);
/// Ultrapeers of earlier sessions that are dialled at once.
pub const HINTS_AT_ONCE: usize = 3;

// --- an ultrapeer's work --------------------------------------------------------------------------

/// Leaves that one home may claim to have: ten times the default of a headless ultrapeer.
pub const LEAVES_OF_HOME: usize = 100_000;
/// Chunks that the leaves of one home may have together, as it claims: each costs 100 bytes. Chosen: leaves of 16,000
/// files each, which is more than its index holds.
pub const CHUNKS_OF_HOME: usize = 4 * LEAVES_OF_HOME;
/// How often a home is asked for its whole list of leaves because its sums are wrong, a second and at once. Chosen: a
/// gap is closed at once, and one that never gets them right costs little.
pub const LOG_ANEW_RATE: f64 = 0.1;
/// See [`LOG_ANEW_RATE`].
pub const LOG_ANEW_BURST: f64 = 3.0;
/// Age up to which another home's list of leaves counts as current.
pub const DIGEST_LAG: Duration = Duration::from_secs(3);
/// Leaves that upload their lists at the same time.
pub const UPLOADS: usize = 64;
/// Chunks of one list that are under way at a time. With [`UPLOADS`] and compressed chunks of some 150 KiB
/// this bounds the memory of all uploads to about 40 MiB.
pub const WANTED_CHUNKS: usize = 4;
/// Time for the next chunk of a list that a home asked for. Chosen: the largest chunk passes at 170 kbit/s, the
/// usual one at 20, and a leaf that announces a list and does not send it is gone soon.
pub const UPLOAD_PATIENCE: Duration = Duration::from_mins(1);
/// Time after which a leaf that uploads lets others go first, if any wait.
pub const UPLOAD_TURN: Duration = Duration::from_secs(10);
/// File lists a second that a leaf may announce over time. An honest one publishes at most one a second.
pub const LIST_RATE: f64 = 2.0;
/// File lists that a leaf may announce at once.
pub const LIST_BURST: f64 = 20.0;
/// Time in which a leaf that someone failed to reach must answer its home.
pub const LEAF_PATIENCE: Duration = Duration::from_secs(3);
/// How long the list of a leaf that went away is kept.
pub const KEPT_LIST_LIFETIME: Duration = Duration::from_hours(24);
/// Files in all lists that are kept for leaves that went away. Chosen: about 50 MiB at 50 bytes a file.
pub const KEPT_FILES: u64 = 1_000_000;
/// Searches that one ultrapeer coordinates at the same time; more are answered `overload`.
pub const SEARCHES: usize = 4_096;
/// Queries of another ultrapeer that wait to be looked up, at most: the hardest ones hold the others up for 80 ms, which
/// is below what a probe may take. Queries beyond wait in its stream.
pub const QUERIES_AHEAD: usize = 16;
/// Ultrapeers that one search waits for at the same time, unless it asks for everything.
pub const FORWARDS_PER_ROUND: usize = 8;
/// Time without a first frame after which another home of the same leaves is asked as well.
pub const FORWARD_PATIENCE: Duration = Duration::from_millis(150);
/// Longest such time, however slowly others answer: a fifth of the usual patience of a user.
pub const FORWARD_PATIENCE_MAX: Duration = Duration::from_secs(2);
/// Matches below which a query is rare: everyone who may know is asked at once.
pub const RARE_MATCHES: usize = 20;
/// Contents that one ultrapeer gives to a query from another.
pub const FORWARD_LIMIT: u32 = SEARCH_LIMIT_ALL;
/// Ultrapeers that know the holders of a content. As many as a leaf has homes: what is lost with one is there with two.
pub const HOLDERS: usize = 3;
/// Ultrapeers above which a content is looked up with those that know its holders. Chosen: up to here a look-up asks all
/// homes of leaves that are not attached here, at most seven, in one round trip, and is complete.
pub const HOLDERS_ASKED_ABOVE: usize = 8;
/// Ultrapeers from which on holders are told. Chosen: a network that grows past [`HOLDERS_ASKED_ABOVE`] has told them
/// already, and one that stays small never does.
pub const HOLDERS_TOLD_FROM: usize = 6;
/// Time after a change of a leaf's list or homes in which others are waited for before its contents are told. Chosen: a
/// leaf's homes have its list within a moment of each other, and then agree on who tells.
pub const HOLDINGS_PAUSE: Duration = Duration::from_millis(500);
/// Time between two steps of telling contents.
pub const HOLDINGS_STEP: Duration = Duration::from_millis(50);
/// Contents told in one step, each to [`HOLDERS`] ultrapeers: 1 MB/s. A list of 60,000 files is told in 1.5 s, one of
/// [`FILES_PER_LEAF`](super::FILES_PER_LEAF) in 25 s.
pub const HOLDINGS_PER_STEP: usize = 2_048;
/// Numbers computed in one step to find out who must know: some 3 ms. Chosen: a twentieth of a core, while there is
/// anything to tell.
pub const HOLDINGS_WORK: usize = 1_000_000;
/// Time after a change of the ultrapeers in which contents are told to those who must know them now, at least; at random
/// up to three times as long.
pub const HOLDERS_SETTLE: Duration = Duration::from_millis(500);
/// Time between two such rounds for each ultrapeer that there is: a minute at 3,000, when one costs half a second of
/// computing and an ultrapeer comes or goes every 5 s.
pub const HOLDERS_SETTLE_EACH: Duration = Duration::from_millis(20);
/// Time between two repetitions for one ultrapeer that says that it misses something.
pub const HOLDINGS_AGAIN: Duration = Duration::from_mins(5);
/// Time between two requests for such a repetition.
pub const HOLDINGS_ASK: Duration = Duration::from_mins(1);
/// Time between two messages that confirm what was told.
pub const HOLDINGS_REFRESH: Duration = Duration::from_hours(1);
/// Time without one after which what a home told is forgotten: one may be lost with its link.
pub const HOLDINGS_LIFETIME: Duration = Duration::from_mins(150);
/// How long what a home told is kept when it is gone. Chosen: another home of its leaves has told it by then.
pub const HOLDINGS_KEPT: Duration = Duration::from_mins(1);
/// Time between two looks for what must be forgotten.
pub const HOLDINGS_LOOK: Duration = Duration::from_secs(30);
/// Bytes of a content that a home told, in memory: a key and a handle in a tree whose nodes are two thirds full.
pub const HOLDING_BYTES: u64 = 28;
/// One part in so many of the memory of index and digests is the room for what homes told.
pub const HOLDINGS_MEMORY_SHARE: u64 = 8;
/// One part in so many of that room is the share of each home, however little the others told.
pub const HOLDINGS_SHARE: usize = 20;
/// Holders of one content that are looked at to name some of them.
pub const HOLDERS_SEEN: usize = 1_024;
/// Standing queries of one leaf. As many as a person keeps an eye on.
pub const WISHES_OF_LEAF: usize = 50;
/// Standing queries of all leaves of one home; those of more leaves are not kept. Chosen: two for each of 10,000 leaves,
/// of which most have none.
pub const WISHES_OF_HOME: usize = 20_000;
/// Standing queries that an ultrapeer keeps for all homes. Chosen: ten full homes; with 250 bytes for one of usual length
/// 50 MB.
pub const WISHES_KEPT: usize = 10 * WISHES_OF_HOME;
/// Members of each part of the leaf space that keep a standing query: one may die.
pub const WISH_KEEPERS: usize = 2;
/// How long a home's standing queries are kept after it last told of them.
pub const WISHES_LIFETIME: Duration = Duration::from_mins(10);
/// Time between two tellings of all of them: one may be lost with its link.
pub const WISHES_RENEWAL: Duration = Duration::from_mins(4);
/// Time in which changes of standing queries are gathered before they are told. Chosen: the leaves of a home that came
/// back are told of in few frames, and a person does not notice.
pub const WISHES_PAUSE: Duration = Duration::from_millis(100);
/// Time after a change of the ultrapeers in which the keepers are chosen anew. Chosen: what comes together is one change.
pub const WISHES_SETTLE: Duration = Duration::from_secs(1);
/// Changes of standing queries in one frame.
pub const WISHES_PER_FRAME: usize = 500;
/// Bytes of a frame of such changes after which it is not filled any more: half of the frame.
pub const WISHES_FRAME_BYTES: usize = 32 << 10;
/// Sets of standing queries a second that a leaf may tell over time. An honest one tells at most one a second.
pub const WISHES_RATE: f64 = 2.0;
/// Sets of standing queries that a leaf may tell at once.
pub const WISHES_BURST: f64 = 20.0;
/// Contents a second that one standing query is told over time; beyond that it is too broad, and the rest is dropped.
pub const WISH_HITS_RATE: f64 = 1.0;
/// Contents that one standing query is told at once. Chosen: a collection that somebody shares.
pub const WISH_HITS_BURST: f64 = 200.0;
/// Frames of hits a second for all standing queries of one leaf, or at one keeper of one home, over time.
pub const WISH_FRAMES_RATE: f64 = 20.0;
/// Such frames at once. Chosen: half of [`LEAF_QUEUE`], so that no leaf loses its connection for its standing queries.
pub const WISH_FRAMES_BURST: f64 = 250.0;
/// Leaves a second with which one standing query is compared further at one keeper, over time, once its rarest word is
/// among what they share.
pub const WISH_CHECKS_RATE: f64 = 1.0;
/// Such leaves at once.
pub const WISH_CHECKS_BURST: f64 = 100.0;
/// Standing queries with which one chunk is compared beyond their rarest word: some 20 ms of one core. Homes share them.
pub const WISH_LOOKUPS: usize = 1_000;
/// Standing queries of each home with which it is compared in any case.
pub const WISH_LOOKUPS_OF_HOME: usize = 16;
/// Chunks of one leaf that are asked for at once.
pub const WISH_CHUNKS_ASKED: usize = 64;
/// Chunks that wait to be asked for, for all standing queries; 40 bytes each.
pub const WISH_CHUNKS_WAITING: usize = 1 << 14;
/// Time in which chunks of one leaf that may match are gathered before its home is asked. Chosen: digests of one list are
/// published together.
pub const WISH_ASK_PAUSE: Duration = Duration::from_millis(50);
/// Homes that are asked at the same time. Each answers within a round trip or two.
pub const WISH_ASKS: usize = 256;
/// Time in which a home must answer before another home of the leaf is asked.
pub const WISH_ANSWER: Duration = Duration::from_secs(2);
/// Contents that a home is asked for of one leaf: as many as a standing query may be told at once.
pub const WISH_ASK_LIMIT: u32 = WISH_HITS_BURST as u32;
/// Files of one leaf that are looked at in the whole index for that, before its chunks are looked at alone.
pub const WISH_MATCHES: usize = 1 << 14;
/// Chunks that one standing query was told of, and is not again. Chosen: a leaf that comes back is recognised, at eight
/// bytes each.
pub const WISH_CHUNKS_TOLD: usize = 32;
/// Chunks elsewhere that are new and whose digests are awaited; 40 bytes each. Chosen: a tenth of what one home may have.
pub const NEW_CHUNKS: usize = 1 << 15;
/// How long they are awaited.
pub const NEW_CHUNKS_AWAITED: Duration = Duration::from_mins(10);
/// Files by which own leaves' new chunks differ from those that they replaced, in all; two bytes each.
pub const NEW_FILES: usize = 1 << 20;
/// How long that is known. Chosen: digests arrive and are asked for within seconds.
pub const NEW_FILES_KEPT: Duration = Duration::from_mins(2);
/// Introductions that one ultrapeer has under way.
pub const INTRODUCTIONS: usize = 4_096;
/// Time in which a target must answer its home.
pub const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for which further homes' answers are awaited after the first good one, so that the asker gets more
/// than one address to try.
pub const INTRODUCTION_GATHER: Duration = Duration::from_millis(50);

/// Ultrapeers up to which a leaf is told of each that joins or leaves; in a larger network, of its own homes only, and
/// it asks for a fresh sample when it needs one. Chosen: at 64 ultrapeers that stay for 8 hours each, three homes
/// tell of 48 changes an hour, 11 kB of the 80 that an idle leaf may cost.
pub const MEMBERS_PUSHED: u32 = 64;
/// Descriptors that a home gives at most to a leaf that asks: some 35 kB.
pub const MEMBERS_TOLD: usize = 200;
/// Times a second that a leaf may ask for members over time; more are not answered. With [`MEMBERS_TOLD`] at most
/// 3.5 kB/s.
pub const MEMBERS_ASK_RATE: f64 = 0.1;
/// Times that it may ask at once.
pub const MEMBERS_ASK_BURST: f64 = 4.0;
/// Sketches of the view a second that a leaf is given over time: one for each search that it may make.
pub const SKETCH_RATE: f64 = 0.5;
/// Sketches that it is given at once.
pub const SKETCH_BURST: f64 = 10.0;
/// How far above its share a home's leaves may be, as a factor, before it sends newcomers on and asks others to move.
/// Measured: `bench/scenarios/elected-flash.toml` and `diurnal.toml`; loads then stay within a seventh of each other.
pub const BUSY_RATIO: f64 = 1.1;
/// Leaves by which a home's load may exceed its share in any case: below that nobody is sent on.
pub const BUSY_SLACK: f64 = 3.0;
/// Time between two looks of a home at whether it has more than its share.
pub const SHARE_OUT_EACH: Duration = Duration::from_mins(1);
/// The part of its leaves that it asks to move at each: each brings its list to another home. Chosen: after a crowd came
/// the load is even within a quarter of an hour.
pub const SHARE_OUT_PART: f64 = 0.05;

// --- audits ---------------------------------------------------------------------------------------

/// One list in so many that a home tells of must be proven: its leaf's key, what it signed, and the hashes of its chunks.
pub const AUDIT_LISTS: u32 = 200;
/// One digest in so many must be proven with the files of its chunk. What audits cost is measured against the digests: of
/// a list of 200 files a digest takes 3,400 bytes, the compressed chunk 11,000, and the rest of a proof 260 with its
/// question. That is (11,000 + 260) / 500 = 22.5 bytes for the digest, and 3 x 260 / 200 = 3.9 for the lists that three
/// homes tell of: 0.8 %. Longer lists cost no more (a chunk of 4,000 files takes 3.6 times its digest: 0.7 %). With one
/// digest in 200 it would be 1.8 %.
pub const AUDIT_DIGESTS: u32 = 500;
/// One list and one digest in so many of a home that failed an audit within [`AUDIT_WINDOW`].
pub const AUDIT_SUSPECTS: u32 = 4;
/// Least time between the arrival of what is audited and the question. Lists that change faster are not asked for: nobody
/// could tell their change from an evasion.
pub const AUDIT_DELAY: Duration = Duration::from_secs(2);
/// Longest such time, so that nobody knows of what he tells whether it will be audited.
pub const AUDIT_DELAY_MAX: Duration = Duration::from_secs(10);
/// Audits under way. Chosen: each holds one compressed chunk, 4 MB together.
pub const AUDITS: usize = 4;
/// Audits that wait; of more nothing is drawn. Chosen: those of 50,000 leaves that come at once.
pub const AUDITS_WAITING: usize = 1_024;
/// Audits of one home that wait.
pub const AUDITS_WAITING_OF_HOME: usize = 64;
/// Time between two audits of one home, and before one is tried again that could not begin.
pub const AUDIT_PAUSE: Duration = Duration::from_secs(1);
/// Time in which a home must answer with what a leaf signed. It needs no work for that: it is ten times what its stream
/// may be behind.
pub const AUDIT_PATIENCE: Duration = Duration::from_secs(30);
/// Time in which the files must follow. Chosen: a home that builds ten thousand lists at once comes to it.
pub const AUDIT_PARTS_PATIENCE: Duration = Duration::from_mins(2);
/// Time after which the log of a home that denies a list is looked at again: it must not tell of it any more.
pub const AUDIT_GRACE: Duration = Duration::from_secs(5);
/// Audits in a row that a home may evade: lists that go, and links that end, just when they must be proven. Chosen: a list
/// stays for hours and an answer takes a second, so an honest home evades one in thousands.
pub const AUDIT_EVASIONS: u8 = 8;
/// Failed audits within [`AUDIT_WINDOW`] after which a home is distrusted.
pub const AUDIT_STRIKES: usize = 3;
/// For how long a failed audit counts.
pub const AUDIT_WINDOW: Duration = Duration::from_hours(24);
/// For how long a home is distrusted. Chosen: longer than most sessions, and shorter than [`AUDIT_WINDOW`], so that one
/// more failure soon afterwards is enough to distrust it again.
pub const AUDIT_DISTRUST: Duration = Duration::from_hours(6);
/// Audits in a row that a home which failed one must pass, one after the other, until it is audited at random again. One
/// that lies in a twentieth of what it tells fails one of them in twelve cases of thirteen.
pub const AUDIT_FOLLOW_UPS: u32 = 50;
/// Homes of which failed and evaded audits are remembered, some 150 bytes each.
pub const AUDIT_RECORDS: usize = 4_096;
/// Lists that a home may be asked to prove by one ultrapeer a second, over time: twice what an honest one asks.
pub const PROOF_RATE: f64 = 2.0;
/// Lists that it may be asked to prove at once.
pub const PROOF_BURST: f64 = 8.0;
/// Chunks that a home makes ready for proofs at a time; the others wait, one for each ultrapeer.
pub const PROOFS_MADE: usize = 4;

// --- whether leaves have what they list -------------------------------------------------------------

/// Files that a leaf must prove when it comes with a list that was not sampled before, or its list has doubled. One whose
/// list is half made up is caught by them in seven cases of eight.
pub const POSSESSION_SAMPLES: u8 = 3;
/// Least time between a list and the first question.
pub const POSSESSION_DELAY: Duration = Duration::from_secs(1);
/// Longest such time, so that the leaves that come together are not asked together: 10,000 in this time, with 18 kB for
/// each answer, are the 9 MB/s of a home that is asked for its lists as well.
pub const POSSESSION_DELAY_MAX: Duration = Duration::from_secs(20);
/// Mean time between two questions to a leaf in good standing: half of it to one and a half.
pub const POSSESSION_EACH: Duration = Duration::from_hours(24);
/// Time in which a leaf must answer. It reads a piece from its disk, which may have to wake up, and sends 50 kB at most.
pub const POSSESSION_PATIENCE: Duration = Duration::from_mins(1);
/// Time after which the list of a leaf that says that it has not got a file any more must leave it out. Chosen: the change
/// is noticed, the rest of its list hashed, and the list uploaded, over a slow line and after others.
pub const POSSESSION_GRACE: Duration = Duration::from_mins(10);
/// Time until a leaf is asked again that did not answer, or not with a proof.
pub const POSSESSION_RETRY: Duration = Duration::from_mins(15);
/// Questions in a row without a proof that count as a file that failed. Chosen: two hours in which a leaf is connected and
/// cannot read any of its files, or each that it is asked for has just gone.
pub const POSSESSION_EVASIONS: u8 = 8;
/// Time between questions to a leaf of which a file failed.
pub const POSSESSION_FOLLOW_UP: Duration = Duration::from_mins(10);
/// Files in a row that such a leaf must prove. Of one whose list is half made up [`POSSESSION_STRIKES`] fail in 96 of 100
/// cases, of one with a file in a hundred that cannot be read in one of 400.
pub const POSSESSION_FOLLOW_UPS: u8 = 8;
/// Different files that failed within [`POSSESSION_WINDOW`] for which a leaf is dropped. One may lie on a bad sector.
pub const POSSESSION_STRIKES: usize = 3;
/// For how long a file that failed counts.
pub const POSSESSION_WINDOW: Duration = Duration::from_hours(24);
/// For how long a leaf is turned away that was dropped. Shorter than [`POSSESSION_WINDOW`], so that one more file that
/// fails is enough to drop it again.
pub const POSSESSION_REFUSAL: Duration = Duration::from_hours(6);
/// Questions to one leaf a second, over time: six an hour.
pub const POSSESSION_RATE: f64 = 6.0 / 3_600.0;
/// Questions to one leaf at once.
pub const POSSESSION_BURST: f64 = 4.0;
/// Questions that a leaf answers to one home a second, over time: a little more than a home may ask, as their clocks
/// differ. At 115 kB for the largest answer, 250 bytes a second.
pub const POSSESSION_ANSWER_RATE: f64 = 8.0 / 3_600.0;
/// Questions that a leaf answers to one home at once.
pub const POSSESSION_ANSWER_BURST: f64 = 5.0;
/// Homes whose questions a leaf counts: the three of now, and those before them.
pub const POSSESSION_ASKERS: usize = 64;
/// Questions that one home has under way: as answers wait for a worker, 4 MB at most.
pub const POSSESSION_UNDER_WAY: usize = 32;
/// Leaves of which a home remembers how they stood, some 200 bytes each: five times those that it takes by default.
pub const POSSESSION_RECORDS: usize = 50_000;
/// Complaints about sources a second that count of one leaf, over time.
pub const COMPLAINT_RATE: f64 = 6.0 / 3_600.0;
/// Complaints that count of one leaf at once.
pub const COMPLAINT_BURST: f64 = 3.0;
/// Complaints a second that count of one other home, for all its leaves, over time.
pub const COMPLAINT_RATE_OF_HOME: f64 = 60.0 / 3_600.0;
/// Complaints that count of one other home at once.
pub const COMPLAINT_BURST_OF_HOME: f64 = 20.0;
/// Leaves and homes whose complaints are counted; of more none count. Their credit is back after an hour.
pub const COMPLAINERS: usize = 4_096;
/// Time in which one leaf is asked once because of complaints, however many complain.
pub const COMPLAINT_PAUSE: Duration = Duration::from_hours(1);

// --- an ultrapeer's queues ------------------------------------------------------------------------

/// Messages that wait for one leaf; a leaf that is further behind loses its connection.
pub const LEAF_QUEUE: usize = 512;
/// Frames that wait for the asker of one search: 10,000 hits in frames of
/// [`HITS_PER_FRAME`](super::HITS_PER_FRAME), with room.
pub const ASKER_QUEUE: usize = 512;
/// Messages of each class that wait for one ultrapeer.
pub const MESH_QUEUE: usize = 1024;
/// Time in which a stream that was opened must say what it is for.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Ultrapeers up to which a network keeps looking for another of its name.
pub const SMALL_NETWORK: u32 = 3;
