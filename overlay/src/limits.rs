//! Every cap of the program, in one place: with its unit and where the number comes from.
//!
//! A cap protects the node that enforces it, so it holds whatever the other side believes. Numbers
//! marked *chosen* have no outside source: the sentence says what they trade.

mod discovery;
mod election;
mod founding;
mod reach;
mod transfers;
mod ultrapeers;

use std::time::Duration;

pub use self::{discovery::*, election::*, founding::*, reach::*, transfers::*, ultrapeers::*};

// --- files and catalogs ---------------------------------------------------------------------------

/// Bytes of a shared path. 4096 is `PATH_MAX` on Linux.
pub const PATH_BYTES: usize = 4096;
/// Bytes of one text tag. Chosen: the longest real titles are under 200 bytes.
pub const TAG_BYTES: usize = 256;
/// Bytes of a shared file: 2^53 - 1, so that every size is exact in JSON.
pub const FILE_BYTES: u64 = (1 << 53) - 1;
/// Files in one catalog chunk; a fuller one is split.
pub const CHUNK_FILES: usize = 4096;
/// Files below which a catalog chunk is merged with a neighbour. A quarter of [`CHUNK_FILES`], so that a
/// merge never makes a chunk that must be split at once.
pub const CHUNK_FILES_LOW: usize = 1024;
/// Encoded bytes of one catalog chunk, before compression; a larger one is split.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Files of one leaf that a home indexes by default; what lies beyond is reported as truncated.
pub const FILES_PER_LEAF: u64 = 1_000_000;
/// Chunks of one catalog: [`FILES_PER_LEAF`] in chunks of [`CHUNK_FILES_LOW`], with room for the byte cap.
pub const CHUNKS_PER_LEAF: usize = 2000;
/// Compressed bytes of one upload batch.
pub const BATCH_BYTES: usize = 256 << 10;
/// Uncompressed bytes cut into one upload batch: leaves room for the expansion of incompressible data.
pub const BATCH_RAW_BYTES: usize = 240 << 10;

// --- the store of a leaf --------------------------------------------------------------------------

/// Bytes of the database that are kept in memory. Chosen: the upper levels of all tables at a million files; the rest
/// is in the system's cache.
pub const DATABASE_CACHE_BYTES: usize = 32 << 20;

/// Names of one folder that a scan holds at a time. Chosen: 4 MiB for names of usual length.
pub const WALK_NAMES: usize = 1 << 16;
/// Files that wait to be hashed before a scan waits too. Chosen: a second of work, 1 MiB of paths.
pub const HASH_QUEUE: usize = 4096;
/// Hashed files that wait for the one thread that records them. Chosen: what is hashed during a commit.
pub const HASHED_QUEUE: usize = 4096;
/// Hashed files committed at once: with [`HASHED_QUEUE`] and tags some 5 MiB.
pub const COMMIT_FILES: usize = 8192;
/// Changed paths of a share that are looked at one by one; beyond, the share is scanned whole.
pub const DIRTY_PATHS: usize = 4096;
/// Files of one share that are listed as skipped; the rest is only counted.
pub const SKIPPED_LISTED: usize = 10_000;
/// Damaged databases that are kept under other names; the last name is used again.
pub const SET_ASIDE_FILES: u32 = 1000;
/// Places of one content that are tried before it counts as gone.
pub const PLACES_TRIED: usize = 16;
/// Shares that are looked at at the same time, each on a disk of its own. Chosen: more disks than a machine has, and
/// some of them may not answer.
pub const PASSES: usize = 16;
/// Contents that are read at the same time only for their piece values.
pub const PIECE_READERS: usize = 4;
/// Commands that wait for the shares' task.
pub const SHARE_COMMANDS: usize = 64;

// --- queries --------------------------------------------------------------------------------------

/// Characters of a query.
pub const QUERY_CHARS: usize = 512;
/// Bytes of a query: [`QUERY_CHARS`] characters of at most 4 bytes.
pub const QUERY_BYTES: usize = 4 * QUERY_CHARS;
/// Terms of a query.
pub const QUERY_TERMS: usize = 32;
/// Letters or digits before the `*` of a prefix, at least.
pub const PREFIX_CHARS: usize = 3;
/// Distinct contents that a search returns unless told otherwise.
pub const SEARCH_LIMIT: u32 = 60;
/// Distinct contents that a user may ask for with `--limit`.
pub const SEARCH_LIMIT_MAX: u32 = 1_000;
/// Distinct contents of a search for everything (`--all`).
pub const SEARCH_LIMIT_ALL: u32 = 10_000;
/// How long a search may take unless told otherwise.
pub const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a search may take, whatever its asker says.
pub const SEARCH_TIMEOUT_MAX: Duration = Duration::from_mins(2);
/// Bytes of a file name in a hit. 255 is `NAME_MAX` on Linux; U+FFFD for a stray byte takes three.
pub const NAME_BYTES: usize = 3 * 255;
/// Names of one content that a hit carries.
pub const HIT_NAMES: usize = 10;
/// Sources of one content that a hit names.
pub const HIT_PEERS: usize = 8;
/// Homes that a source of a hit names: a leaf has at most that many.
pub const HOMES: usize = 3;
/// Handles of holders that a hit between ultrapeers carries, so that a leaf known to several counts once.
/// Chosen: 2 KiB; beyond that many sources the exact number does not matter to anyone.
pub const HIT_HOLDERS: usize = 256;
/// Hits in one frame.
pub const HITS_PER_FRAME: usize = 50;

// --- index ----------------------------------------------------------------------------------------

/// Bytes of the words of one chunk, as a segment and as a digest. Plain text stays far below
/// [`CHUNK_BYTES`]; decomposition and bigrams can make more of it, at most about four times on real scripts.
pub const DIGEST_BYTES: usize = 4 * CHUNK_BYTES;
/// Steps of one look-up from one span of files to the next, at 20 to 100 nanoseconds each: some 5 ms of one core; a
/// file that must be read counts [`LOOKUP_FILE_WORK`]. Chosen: three common words are looked up whole among eight million files
/// (measured: bench/src/bin/index.rs), and a hostile query cannot hold a core.
pub const LOOKUP_WORK: u64 = 100_000;
/// Steps that reading and checking a file counts as: about a microsecond.
pub const LOOKUP_FILE_WORK: u64 = 16;
/// Files of digests that one look-up names by their contents; of more it names the leaf alone, which must be asked then.
/// Chosen: they are sorted in a millisecond, and more match only where the limit of a search is soon reached.
pub const LOOKUP_LISTED: usize = 16_384;
/// Files that one look-up gives to be ranked, at least; more if more contents are wanted. Chosen: ranking
/// that many takes some milliseconds.
pub const LOOKUP_MATCHES: usize = 4_096;
/// Ordinary upload slots unless told otherwise. Chosen: four transfers fill a home line and still move.
pub const UPLOAD_SLOTS: usize = 4;
/// Ordinary upload slots that may be configured: each may hold a few MiB of unsent bytes.
pub const UPLOAD_SLOTS_MAX: usize = 256;
/// Sessions that wait for a slot.
pub const UPLOAD_QUEUE: usize = 1024;
/// Sessions of one peer: half of [`TRANSFER_STREAMS`], so that requests always find a stream.
pub const UPLOAD_QUEUE_PER_PEER: usize = 32;
/// Bytes of a turn in an ordinary slot. Chosen: most files are done in one turn.
pub const TURN_BYTES: u64 = 256 << 20;
/// Time of a turn in an ordinary slot. Simulated (bench/src/bin/swarm.rs): turns even out who waits, so that the last of a crowd
/// of 64 is done 1 % after the median, with 20 s 10 %; 3 s save nothing more. A turn costs a round trip.
pub const TURN: Duration = Duration::from_secs(5);
/// Bytes of a turn in the optimistic slot.
pub const OPTIMISTIC_TURN_BYTES: u64 = 16 << 20;
/// Time of a turn in the optimistic slot. Simulated like [`TURN`].
pub const OPTIMISTIC_TURN: Duration = Duration::from_secs(5);
/// Time without a byte sent after which a turn ends. Chosen: longer than a lost packet takes to be sent again, and than a
/// downloader that was just given a slot takes to ask.
pub const TURN_IDLE: Duration = Duration::from_secs(2);
/// Time for which the place of a peer that left the queue is kept for it. Chosen: a router restarts in that time.
pub const PLACE_KEPT: Duration = Duration::from_mins(5);
/// Time over which the quota of a peer counts.
pub const QUOTA_PERIOD: Duration = Duration::from_hours(24);
/// Peers whose quota is counted; of more, those who had least are forgotten. 48 bytes each.
pub const QUOTA_PEERS: usize = 16_384;
/// Time between two records of what of their quotas peers had. Chosen: what a crash may give back to each.
pub const QUOTA_SAVED: Duration = Duration::from_secs(30);
/// Least time between two rounds of news about queue positions.
pub const QUEUE_NEWS_INTERVAL: Duration = Duration::from_secs(1);
/// Time after a slot was taken back in which requests that crossed the news are still answered.
pub const REVOKED_GRACE: Duration = Duration::from_secs(3);
/// Runs of pieces that are read and sent at once on one connection: one is read while the other is sent.
pub const RUNS_AT_ONCE: usize = 2;
/// Bytes that an upload reads at once. Measured: a tenth faster than 1 MiB, because they are still in the
/// processor's second cache when they are cut into packets.
pub const READ_BYTES: usize = 256 << 10;
/// Contents that may be open for reading before those nobody uses are forgotten.
pub const HOLDINGS: usize = 256;
/// Connections of others that a leaf serves at once: each costs some 50 kB while it does nothing. Chosen: as many as may
/// wait for a slot.
pub const TRANSFER_CONNECTIONS: usize = UPLOAD_QUEUE;
/// Those of them that one address prefix (/24, /48) may have: an eighth, so that nobody who has one network keeps all
/// others out.
pub const TRANSFER_CONNECTIONS_PER_PREFIX: usize = TRANSFER_CONNECTIONS / 8;
/// Time after which a connection of another leaf that asks for nothing is closed. Chosen: longer than a downloader
/// pauses between two requests; who comes back dials again.
pub const TRANSFER_IDLE: Duration = Duration::from_mins(1);
/// Peers to which downloads may be connected at once.
pub const TRANSFER_PEERS: usize = 512;
/// Time for which a connection stays that nobody uses, after a page or many small files were asked for on it. Chosen: longer
/// than it takes to ask for the next; far shorter than [`TRANSFER_IDLE`], so that others find room.
pub const LEASE_KEPT: Duration = Duration::from_secs(10);
/// Connections that stay like that at once.
pub const LEASES_KEPT: usize = 16;
/// Downloads that run at once; others wait in the order of priority and age. Chosen: each holds at most
/// [`JOB_IN_FLIGHT_BYTES`], and a peer is asked for at most [`UPLOAD_QUEUE_PER_PEER`] contents at once.
pub const ACTIVE_DOWNLOADS: usize = 16;
/// Downloads that are remembered, ended ones included.
pub const JOBS: usize = 100_000;
/// Bytes of the copy of a download beside the database. Chosen: 20 times what [`SOURCES_PER_JOB`] with their homes take.
pub const JOB_COPY_BYTES: u64 = 1 << 20;
/// Findings of sources that wait for the task of one download.
pub const SOURCE_NEWS: usize = 4;
/// Messages that wait for the task of one download.
pub const JOB_EVENTS: usize = 256;
/// Events of all downloads that a slow listener may be behind before it misses some.
pub const DOWNLOAD_EVENTS: usize = 1024;
/// Bytes after which written pieces are made durable and recorded, at the latest.
pub const FLUSH_BYTES: u64 = 64 << 20;
/// Time after which they are. Chosen: what a crash can cost in verified pieces.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(2);
/// Least time between two reports of a download's progress: at most 4 a second.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// First pause before a full disk is looked at again. Looking costs one system call.
pub const DISK_LOOK: Duration = Duration::from_secs(2);
/// Longest pause before a download goes on that found the disk full although the system says that there is room:
/// a quota, or an output folder elsewhere.
pub const DISK_LOOK_MAX: Duration = Duration::from_mins(5);
/// Bytes that a download needs besides those of its content: piece values, and the database's next transaction.
pub const DISK_MARGIN: u64 = 1 << 20;
/// Pause before a scan that met a failing disk or database is repeated.
pub const SCAN_RETRY: Duration = Duration::from_secs(10);
/// Pause before a download that met a failing disk is tried again.
pub const DISK_RETRY: Duration = Duration::from_secs(30);

// --- connections ----------------------------------------------------------------------------------

/// Silence after which a connection is dead. Between ultrapeers probes find that out sooner: there it is only what a
/// link costs when nothing is said on it, and hundreds of links must cost little.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Time between two keep-alive packets of the side that dialled. NATs forget a UDP flow after 30 s (RFC
/// 4787 asks for 2 minutes, many boxes do not comply).
pub const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// Time for a dial, up to `Welcome`. QUIC sends its first packets again after one second and after three, and would after
/// seven (RFC 9002 6.2): an address that somebody only claims gets three flights.
pub const DIAL_TIMEOUT: Duration = Duration::from_millis(6_900);
/// Time for the whole handshake with one that dialled, up to `Welcome`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a last frame (a refusal) must be delivered before its connection is closed.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a whole frame once its first byte came, and for any progress while sending. Chosen: the
/// largest frame (256 KiB) passes at 70 kbit/s, and a peer that stalls holds a buffer no longer.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// Handshakes under way above which a dialler must first prove its address (QUIC Retry). Chosen: they
/// take about 0.4 ms of CPU each, so this is a tenth of a second of work.
pub const HANDSHAKES_BEFORE_RETRY: usize = 256;
/// Handshakes under way above which further ones are ignored, until their diallers send again. Chosen: a fifth of a
/// second of work at 0.4 ms each, and more than two address prefixes can hold. Those that do not end within
/// [`HANDSHAKE_TIMEOUT`] are lost work: on a busy machine a third of those that 10,000 leaves at once began (measured:
/// bench/, --bin leaves).
pub const HANDSHAKES: usize = 512;
/// Handshakes that one address prefix (/24, /48) may begin at once. Chosen: a household or office restarts
/// together.
pub const HANDSHAKE_BURST: u32 = 64;
/// Time in which an address prefix regains one handshake: 16 a second, 0.6 % of a core.
pub const HANDSHAKE_INTERVAL: Duration = Duration::from_micros(62_500);
/// Time in which one more handshake is regained by all prefixes together that used up their own: 250 a second. Chosen:
/// [`LEAVES_PER_PREFIX`] behind one NAT are back in 10 s, and a flood from proven addresses costs a fifth of a core.
pub const HANDSHAKE_INTERVAL_SHARED: Duration = Duration::from_millis(4);
/// Handshakes that these prefixes together may begin at once. Chosen: a second's worth.
pub const HANDSHAKE_BURST_SHARED: u32 = 250;
/// Address prefixes whose handshakes are counted. When the table is full, others must prove their address.
pub const HANDSHAKE_PREFIXES: usize = 4096;
/// Time for which a node that broke the protocol or flooded is not let in again. Chosen: it costs a handshake and a
/// list a minute instead of as many as it likes, and a node that was updated is back soon.
pub const PENALTY: Duration = Duration::from_mins(1);
/// Nodes that wait for that at a time: 160 kB. Chosen: a key costs nothing, so more would keep out no one.
pub const PENALTIES: usize = 4096;
/// Accepted handshakes that wait for the program to answer them.
pub const OFFERS: usize = 256;
/// Bytes that QUIC keeps of datagrams for one handshake that was not judged yet.
pub const INCOMING_BYTES: u64 = 64 << 10;
/// Bytes that QUIC keeps of datagrams for all handshakes that were not judged yet.
pub const INCOMING_BYTES_TOTAL: u64 = 16 << 20;
/// Bytes of out-of-order handshake data. A handshake has under 4 KiB.
pub const CRYPTO_BYTES: usize = 8 << 10;
/// Bytes that a dialler may have under way towards us until it is granted more.
pub const RECEIVE_WINDOW_IDLE: u32 = 32 << 10;
/// Bytes that a node we dialled may have under way towards us, and a leaf whose upload was granted: one
/// frame of hits or one batch.
pub const RECEIVE_WINDOW_ACTIVE: u32 = 256 << 10;
/// Bytes that an ultrapeer may have under way towards another.
pub const RECEIVE_WINDOW_MESH: u32 = 1 << 20;
/// Bytes that the sender of a file may have under way: 16 MiB fill 1.3 Gbit/s at 100 ms.
pub const RECEIVE_WINDOW_BULK: u32 = 16 << 20;
/// Bytes under way on one stream; the connection's window is the tighter bound until it is raised.
pub const RECEIVE_WINDOW_STREAM: u32 = 8 << 20;
/// Bytes that we keep for retransmission on a connection without a transfer.
pub const SEND_WINDOW: u64 = 256 << 10;
/// Bytes that we keep for retransmission while sending files. Measured: 2 to 8 MiB are equally fast, below
/// 512 KiB it is slower, and 64 MiB overruns the socket's buffer.
pub const SEND_WINDOW_BULK: u64 = 4 << 20;
/// Streams that the other side may have open on a leaf connection: the control stream and its searches. Chosen: QUIC
/// keeps tables of them for each leaf, which double above 14.
pub const LEAF_STREAMS: u32 = 14;
/// Streams that the other side may have open on a mesh connection.
pub const MESH_STREAMS: u32 = 64;
/// One-way streams that an ultrapeer may have open: one for each class, and one spare.
pub const MESH_ONE_WAY_STREAMS: u32 = 4;
/// Streams that the other side may have open on a transfer connection.
pub const TRANSFER_STREAMS: u32 = 64;
/// Bytes of a UDP payload, at most. QUIC probes for the largest that passes; ten of this size are the most
/// that one segmented send of 64 KiB can carry (larger ones fail).
pub const UDP_PAYLOAD: u16 = 6500;
/// Bytes asked of the system for the socket's buffers. Measured: with the usual 208 KiB, bursts are lost.
pub const SOCKET_BUFFER: usize = 4 << 20;
/// Bytes of the line that says which versions a node speaks.
pub const VERSION_LINE_BYTES: usize = 128;
/// Inputs that wait for a core before its driver must wait.
pub const MACHINE_INPUTS: usize = 1024;
/// Inputs that a core takes before its deadline is looked at again.
pub const MACHINE_BATCH: usize = 64;
/// Time in which a drained ultrapeer's leaves must have left.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Leaves that a volunteer takes by default.
pub const LEAVES_OF_VOLUNTEER: u32 = 1_000;
/// Leaves that a headless ultrapeer takes by default.
pub const LEAVES_OF_ULTRAPEER: u32 = 10_000;
/// Bytes that index and digests of an ultrapeer may take by default (contract).
pub const INDEX_MEMORY: u64 = 512 << 20;
/// Leaves of one address prefix (/24, /48) that an ultrapeer takes: a quarter of [`LEAVES_OF_ULTRAPEER`], so that nobody
/// who has one network fills it.
pub const LEAVES_PER_PREFIX: usize = LEAVES_OF_ULTRAPEER as usize / 4;
/// Ultrapeer descriptors that a leaf remembers on disk.
pub const REMEMBERED_ULTRAPEERS: usize = 200;
/// Round trips that one endpoint measures at the same time without a connection.
pub const PINGS: usize = 64;
/// Time in which such a measurement must be answered. Chosen: who is further away is not worth measuring.
pub const PING_TIMEOUT: Duration = Duration::from_secs(1);

// --- frames ---------------------------------------------------------------------------------------

/// Bytes of a frame of unknown type that are skipped; a longer one closes the connection. As large as the
/// largest control frame of this version.
pub const UNKNOWN_FRAME_BYTES: usize = 64 << 10;
/// Bytes of an encoded, unsigned descriptor. It has at most 102.
pub const DESCRIPTOR_BODY_BYTES: usize = 128;
/// Bytes of a descriptor with its signatures.
pub const DESCRIPTOR_BYTES: usize = 512;
/// Endorsements of a descriptor: two, and two more of a network that met this one.
pub const ENDORSEMENTS: usize = 4;
/// Seconds for which a descriptor may claim to count: a day, so that a dead ultrapeer is forgotten.
pub const DESCRIPTOR_LIFETIME_MAX_S: u32 = 86_400;
/// Seconds for which our descriptors count: twice the refresh interval of an hour.
pub const DESCRIPTOR_LIFETIME_S: u32 = 7_200;
/// Descriptors in one `Members` frame.
pub const MEMBERS_PER_FRAME: usize = 64;
/// Descriptors that a refusal or a good-bye names.
pub const ALTERNATIVES: usize = 16;
/// Bytes of the signed part of a catalog root. It has at most 89.
pub const ROOT_STATEMENT_BYTES: usize = 96;
/// Bytes of a view's sketch.
pub const SKETCH_BYTES: usize = 512;
/// Changes in one `Attachments` frame. A leaf of one chunk takes some 25 bytes.
pub const ATTACHMENTS_PER_FRAME: usize = 1_000;
/// Bytes up to which an `Attachments` frame is filled: the largest change, of a leaf with [`CHUNKS_PER_LEAF`] chunks,
/// still fits into what its cap leaves.
pub const ATTACHMENTS_FRAME_BYTES: usize = 32 << 10;
/// Time for which changes of the own leaves are gathered after some were told. Chosen: a tenth of what the eye calls at
/// once, and a thousand leaves that come in a second cost each follower 20 frames instead of 1,000.
pub const LOG_PAUSE: Duration = Duration::from_millis(50);
/// Digests that one frame asks for.
pub const DIGESTS_PER_FRAME: usize = 256;
/// Bytes of an encoded digest: [`DIGEST_BYTES`] of words, two counts, and the keys of the contents.
pub const DIGEST_WIRE_BYTES: usize = DIGEST_BYTES + 16 + 8 * CHUNK_FILES;
/// Time between two looks at whether to cover less or more of the leaf space.
pub const EXTENT_INTERVAL: Duration = Duration::from_secs(10);
/// Longest wait before the first change of the part that is covered. Chosen: of a hundred mates with the same reason the
/// first are done, and known to be, while most still wait.
pub const EXTENT_SPREAD: Duration = Duration::from_mins(1);
/// Time between two changes of the part that is covered. Chosen: what changed hands has arrived by then.
pub const EXTENT_REST: Duration = Duration::from_mins(5);
/// One leaf in so many may be without its digest when a larger part of the leaf space is declared.
pub const EXTENT_UNCOVERED: usize = 20;
/// How long after covering less the digests of the part that was given up are held: its leaves are told of by the logs
/// that come anew, if they still have homes here.
pub const EXTENT_AFTERMATH: Duration = Duration::from_secs(30);
/// Members that each part of the leaf space keeps, so that a third of them may end at once.
pub const SHARD_MEMBERS: usize = 16;
/// Digests under way from one home. Chosen: of usual lists 50 kB, which pass in a moment on any line that an ultrapeer
/// has, and of the longest still fewer frames than [`MESH_QUEUE`] holds.
pub const DIGESTS_ASKED: usize = 32;
/// Silence after which another home is asked for the digests that one was to send.
pub const DIGEST_PATIENCE: Duration = Duration::from_secs(2);
/// Time after which a digest is asked for again that no home gave.
pub const DIGEST_RETRY: Duration = Duration::from_secs(10);
/// How long digests are kept of a leaf that is attached nowhere: a home that restarts has its leaves back by then.
pub const DIGEST_KEPT: Duration = Duration::from_mins(10);
/// Time for which digests are gathered before they become searchable together: each publication makes a run.
pub const DIGEST_PUBLISH_PAUSE: Duration = Duration::from_millis(100);
/// One part in so many of the budget for digests is the share of each home, however small the others are.
pub const DIGEST_SHARE: u64 = 20;
/// Bytes of encoded digests that a home keeps for other ultrapeers that will ask. Chosen: those of ten thousand
/// leaves of usual size, who all ask within a second.
pub const DIGEST_CACHE_BYTES: usize = 16 << 20;
/// Digests that a home has under way for other ultrapeers; of more it says that they are not there.
pub const DIGESTS_OWED: usize = 8_192;
/// Handles of one query to a home; if more of its leaves may match, all are searched. Chosen: 5 kB.
pub const QUERY_LEAVES: usize = 512;
/// Contents of one query that its asker knows already. Chosen: 2 kB, and four times what a usual search wants in all.
pub const QUERY_KNOWN: usize = 256;
/// Contents in one `Holdings` frame, as many changes at most: if each is of another leaf, 47 kB.
pub const HOLDINGS_PER_FRAME: usize = 2_048;
/// Leaves that an ultrapeer names as holders of a content: twice what a hit names, because some may have left.
pub const HOLDERS_TOLD: usize = 2 * HIT_PEERS;
/// Addresses at which a leaf may be tried: one for each home, and one spare.
pub const CANDIDATES: usize = 4;

// --- a leaf's work --------------------------------------------------------------------------------

/// Addresses that a leaf is told to join, after names were resolved.
pub const JOIN_TARGETS: usize = 64;
/// Time for which former homes are dialled alone, before join targets are as well. Chosen: a welcome takes less.
pub const HEAD_START: Duration = Duration::from_secs(1);
/// Ultrapeers that a leaf knows at a time: what two homes tell, and some more. With 200 bytes each 100 kB.
pub const KNOWN_ULTRAPEERS: usize = 512;
/// Descriptors that a leaf asks a home for: half of what it remembers, because it asks two of them. Some 18 kB.
pub const MEMBERS_ASKED: u16 = 100;
/// Time after which a leaf may ask the same home again.
pub const MEMBERS_ASK_PAUSE: Duration = Duration::from_mins(1);
/// Ultrapeers of which a leaf takes the nearest. The reasoning asks for 12; each costs a packet of 1.2 kB.
pub const MEASURED: usize = 12;
/// Measurements an hour: two samples, 29 kB.
pub const MEASURES_PER_HOUR: f64 = 24.0;
/// Time between two looks at whether a home is far worse than another ultrapeer. Chosen: an exchange costs the upload of
/// a list, so there is at most one in two looks.
pub const LOOK_AROUND: Duration = Duration::from_mins(30);
/// A home is far worse if its round trip is more than this above twice that of another. Chosen: what people notice.
pub const FAR_WORSE: Duration = Duration::from_millis(30);
/// Time over which the leaves of a home leave it when it covers another part of the leaf space: most of the half hour
/// for which it keeps their lists.
pub const MOVE_SPREAD: Duration = Duration::from_mins(20);
/// Pause before an ultrapeer that sent this leaf on, or was left, is tried again.
pub const REFUSED_PAUSE: Duration = Duration::from_mins(1);
/// Times that a leaf with a home is sent on before it insists.
pub const TIMES_SENT_ON: u32 = 3;
/// Failed dials in a row after which an ultrapeer of a large network is forgotten.
pub const DIALS_UNTIL_FORGOTTEN: u32 = 3;
/// Time between two leaves that come from a lost home to the same ultrapeer. A handshake takes 0.4 ms of a core.
pub const RETURN_SPACING: Duration = Duration::from_millis(1);
/// Longest pause before a leaf that has other homes replaces one. Chosen: with 5 s to notice an end, half of the leaves of
/// the fullest home in the smallest network have three homes again within 7 s, all within 9.
pub const RETURN_SPREAD: Duration = Duration::from_secs(3);
/// Time after the summary of a search for which homes are waited for that have not said whom they take for an
/// ultrapeer.
pub const VIEW_PATIENCE: Duration = Duration::from_millis(300);
/// Least time after a home has the list of a leaf until the leaf first searches there for a file of its own.
pub const CANARY_FIRST: Duration = Duration::from_secs(10);
/// Longest such time.
pub const CANARY_FIRST_MAX: Duration = Duration::from_mins(1);
/// Mean time between two such searches at one home: half of it to one and a half. With three homes three an hour.
pub const CANARY_EACH: Duration = Duration::from_hours(1);
/// Mean time until the next one after a file was not found. Chosen: no home drops something now and then unnoticed for
/// long, and no leaf spends the searches of its user.
pub const CANARY_FOLLOW_UP: Duration = Duration::from_mins(1);
/// Searches for own files that follow one in which a file was not found, if they do find theirs. Of a home that drops a
/// quarter another one is missed among them in nine cases of ten.
pub const CANARY_FOLLOW_UPS: u8 = 8;
/// Time after a file was not found in which the home may say that it has another list meanwhile. Chosen: ten times what an
/// answer takes on a slow line.
pub const CANARY_SETTLE: Duration = Duration::from_secs(10);
/// One search of the user in so many is asked of a second home as well.
pub const COMPARED_ONE_IN: u32 = 16;
/// Searches of the user that are compared with a home that is new, and with one that was in the minority lately.
pub const COMPARED_AT_FIRST: u8 = 2;
/// Searches of the user for one that may be made for comparisons, over time.
pub const COMPARED_SHARE: f64 = 0.1;
/// Searches for comparisons that may be made at once. Chosen: the first with three new homes, and one that is asked of all.
pub const COMPARED_BURST: f64 = 9.0;
/// Least time until all are asked again what two homes answered differently. Chosen: what was shared or withdrawn between
/// the two is known everywhere by then, in 3 s as the network promises.
pub const COMPARED_AGAIN: Duration = Duration::from_secs(6);
/// Longest such time.
pub const COMPARED_AGAIN_MAX: Duration = Duration::from_secs(12);
/// Comparisons under way.
pub const COMPARISONS: usize = 8;
/// Points for an own file that a home does not find: it has it in its index.
pub const POINTS_MISSED: u8 = 2;
/// Points for being in the minority twice with the same content. It may be the fault of another, whom the home asked.
pub const POINTS_MINORITY: u8 = 1;
/// Points within [`POINTS_WINDOW`] for which a home is left: two own files that were not found, or four minorities, which
/// in a network where one ultrapeer in five lies an honest home comes to once in days.
pub const POINTS_DISTRUST: u8 = 4;
/// For how long points count.
pub const POINTS_WINDOW: Duration = Duration::from_hours(24);
/// Comparisons after which it is judged whether a home is far slower than others; the last eight count.
pub const SLOW_COMPARISONS: u32 = 4;
/// A home is far slower in one search if it takes more than this above three times what another takes for the same.
pub const SLOW_SEARCH: Duration = Duration::from_millis(500);
/// For how long a home that was left for that is not chosen again while there are others. As long as ultrapeers distrust
/// each other.
pub const HOME_DISTRUST: Duration = Duration::from_hours(6);
/// Such homes that are remembered; the first are forgotten.
pub const HOMES_DISTRUSTED: usize = 64;
/// Searches a second that a leaf may make over time, unless its ultrapeer says otherwise: one in 2 s.
pub const QUERY_RATE: f64 = 0.5;
/// Searches that a leaf may make at once.
pub const QUERY_BURST: f64 = 10.0;
/// Contents of one standing query that a leaf remembers, the latest: they are shown, and not given again. One that is
/// told of more is too broad to be looked at.
pub const WISH_HITS: usize = 1_000;
/// Time between two tellings of a leaf's standing queries to its home, at least: half of what the home lets it.
pub const WISHES_TELL_PAUSE: Duration = Duration::from_secs(1);
/// Time after a home was told in which what is there already is not searched for. Chosen: by then the keepers know the
/// standing query, so that between the search and them nothing is missed.
pub const WISH_SEARCH_DELAY: Duration = Duration::from_secs(1);
/// Searches for standing queries a second over time: half of [`QUERY_RATE`], the other half is the user's.
pub const WISH_SEARCH_RATE: f64 = QUERY_RATE / 2.0;
/// Searches for standing queries at once: half of [`QUERY_BURST`].
pub const WISH_SEARCH_BURST: f64 = QUERY_BURST / 2.0;
/// Contents that such a search gives: as many as a standing query may be told at once.
pub const WISH_SEARCH_LIMIT: u32 = WISH_ASK_LIMIT;
/// Findings of standing queries that wait to be recorded: the full searches of twenty.
pub const WISH_NEWS: usize = 4_096;
/// Findings that are recorded at once.
pub const WISH_BATCH: usize = 256;
/// Time in which a home must accept a search before the next one is asked as well.
pub const ACCEPT_PATIENCE: Duration = Duration::from_millis(300);
/// Time without a word after which a home that accepted a search must show that it lives, and the next one is
/// asked as well. Chosen: a dozen times [`FORWARD_PATIENCE`], so a coordinator that is so quiet is dead.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// Time between two looks at whether a home still answers: one that leaves a keep-alive unanswered is pinged. Looking
/// costs no packet. Chosen: whoever has lost all homes at once, so that nobody tells, knows after a keep-alive of any of
/// them, this and [`LEAF_PATIENCE`]: 11 s in the mean, 30 s at most, instead of [`IDLE_TIMEOUT`].
pub const PULSE_INTERVAL: Duration = Duration::from_secs(2);

// --- local HTTP -----------------------------------------------------------------------------------

/// Bytes of a request's body.
pub const HTTP_BODY_BYTES: usize = 1 << 20;
/// Bytes of a refused body that are read before the answer. Chosen: what a client may send by mistake.
pub const HTTP_DISCARDED_BYTES: usize = 16 * HTTP_BODY_BYTES;
/// Longest wait for more of a refused body. Chosen: a client that writes does not pause so long.
pub const HTTP_DISCARD_PAUSE: Duration = Duration::from_secs(1);
/// Time for a request's body to arrive. Chosen: a full body at 35 kB/s.
pub const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head; room for a cursor of [`PATH_BYTES`] in base64.
pub const HTTP_HEAD_BYTES: usize = 32 << 10;
/// Time for a request's head to arrive, and between two requests of a connection. Chosen: above Prometheus'
/// usual interval of 15 s, so that its connection is used again, and short enough that idle connections do
/// not use up [`HTTP_CONNECTIONS`].
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of one local HTTP listener; more wait in the system's backlog. Chosen: a browser opens 6 for
/// each page, a script some; each costs two buffers.
pub const HTTP_CONNECTIONS: usize = 256;
/// Time that running answers have after the server is told to stop; then they are cut.
pub const HTTP_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Time that a daemon's connections and tasks have to end, once it has handed over: a lost packet's worth of
/// retransmissions, and short for whoever waits at the terminal.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Items on a page of a list unless told otherwise.
pub const LIST_LIMIT: usize = 100;
/// Items on a page of a list at most.
pub const LIST_LIMIT_MAX: usize = 1_000;
/// Items of a list that a command reads at most: the leaves and ultrapeers of the largest node many times.
pub const LIST_ITEMS: usize = 100_000;
/// Past events that a reconnecting follower can still get.
pub const EVENT_RING: usize = 1_024;
/// Distinct entries of one finite event stream: the contents of the largest search and its summary.
pub const EVENT_LOG: usize = SEARCH_LIMIT_ALL as usize + 1;
/// Time between two comments on a quiet event stream.
pub const EVENT_COMMENT_INTERVAL: Duration = Duration::from_secs(15);
/// Time for a daemon of this machine to take a connection.
pub const CLIENT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a daemon to answer a command: more than it waits itself, at most [`SEARCH_TIMEOUT_MAX`] for a home.
pub const CLIENT_ANSWER_TIMEOUT: Duration = Duration::from_secs(150);
/// Bytes of an answer that a command reads: a search of [`SEARCH_LIMIT_ALL`] hits with full lists of names.
pub const CLIENT_ANSWER_BYTES: usize = 128 << 20;
/// Downloads that one `get` asks for. Chosen: more than anybody writes into a file of targets.
pub const CLIENT_DOWNLOADS: usize = 10_000;
/// Downloads that one `get` watches at the same time: a quarter of [`HTTP_CONNECTIONS`], so that others get in.
pub const CLIENT_FOLLOWED: usize = 64;
/// Bytes of one server-sent event that a command reads.
pub const CLIENT_EVENT_BYTES: usize = 1 << 20;
/// Time between two upkeeps of the metrics, which fold raw histogram samples into buckets.
pub const METRICS_UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

// --- program ----------------------------------------------------------------------------------------

/// Bytes of a network name: the contract's 1 to 64 characters, all ASCII.
pub const NETWORK_NAME_BYTES: usize = 64;
/// Bytes of a configuration file. Chosen: thousands of lines, and a wrong path is noticed at once.
pub const CONFIG_BYTES: u64 = 1 << 20;
/// Values in one list of the configuration. Chosen: above any set of folders that a person writes down.
pub const CONFIG_LIST_ITEMS: usize = 4096;
/// Log lines that a daemon keeps in memory and gives out (contract).
pub const LOG_LINES: usize = 1000;
/// Bytes of one log line; the rest is cut. Chosen: [`LOG_LINES`] of them stay below 4 MiB.
pub const LOG_LINE_BYTES: usize = 4096;
/// Log lines that wait for a follower; a slower one loses the oldest. Chosen: a second of a busy log.
pub const LOG_FOLLOWER_LINES: usize = 256;

// --- a leaf's connections -------------------------------------------------------------------------

/// Seconds for which a signed file list counts: a week, so that a home never drops one of a leaf that is
/// attached and has nothing new to say.
pub const CATALOG_LIFETIME_S: u32 = 7 * 86_400;
/// News of one search that wait for its user: every hit of a search for everything, and room for better
/// knowledge of each.
pub const SEARCH_NEWS: usize = 2 * SEARCH_LIMIT_ALL as usize;
/// Time for a look-up of a content's holders.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// Time between the dials of two addresses of one node. RFC 8305 5 recommends 250 ms; chosen shorter,
/// because homes have just seen these addresses work.
pub const DIAL_STAGGER: Duration = Duration::from_millis(100);
/// Download folders that are remembered for their partial files. Chosen: nobody moves that often.
pub const DOWNLOAD_FOLDERS: usize = 64;
/// Links to contents that are out at the same time. Chosen: a page of videos has some dozens.
pub const FILE_LINKS: usize = 1024;
/// How long a link to a content works.
pub const FILE_LINK_LIFETIME: Duration = Duration::from_hours(24);
/// How long a request for the bytes of a content waits for a source that tells its size. Chosen: as long as `get` waits
/// for a source.
pub const FILE_PATIENCE: Duration = Duration::from_secs(30);
/// How long an ended search is kept.
pub const SEARCH_KEPT: Duration = Duration::from_hours(1);
/// Searches that a leaf keeps, running ones included. Chosen: a page that searches at each key press stays
/// below it for some minutes.
pub const SEARCHES_KEPT: usize = 256;
/// Time in which a cancelled search gives its summary.
pub const CANCEL_PATIENCE: Duration = Duration::from_secs(1);
/// Characters of an identifier's prefix that commands accept.
pub const ID_PREFIX: usize = 8;
/// Contents looked at to tell whether a prefix is unique.
pub const ID_CANDIDATES: usize = 16;
/// Shared folders of one leaf.
pub const SHARES: usize = 10_000;
/// Time for saying good-bye to the homes, and for the jobs to record what they have.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between a change of the homes and saving the list of ultrapeers.
pub const REMEMBER_PAUSE: Duration = Duration::from_secs(2);
/// Time between two looks at the node for gauges and events.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Length of a step in the history of rates. Chosen: an hour is 360 points, as many as a chart has pixels to show.
pub const HISTORY_STEP: Duration = Duration::from_secs(10);
/// Hours of rates that are kept. Chosen: a day, which is 140 kB.
pub const HISTORY_HOURS: u64 = 24;
/// Steps that are kept of the history of rates.
pub const HISTORY_STEPS: usize = (HISTORY_HOURS * 3600 / HISTORY_STEP.as_secs()) as usize;

// --- bans -----------------------------------------------------------------------------------------

/// Bans that are made at run time. Chosen: more than a person makes by hand; the rest belongs into a file.
pub const BANS: usize = 4096;
/// Targets of all lists of bans in files together. Chosen: the largest public lists of address ranges have some hundred
/// thousand lines; a million take some 50 MB.
pub const BANS_LISTED: usize = 1_000_000;
/// Bytes of one list of bans in a file: [`BANS_LISTED`] content ids with a line end, and as much of comments.
pub const BAN_LIST_BYTES: u64 = 128 << 20;
/// Lines of a list of bans that are told to be wrong; one that is wrong as a whole must not fill the log.
pub const BAD_LINES_TOLD: usize = 100;
/// Characters of the reason of a ban; more are cut. Chosen: two lines.
pub const BAN_REASON_CHARACTERS: usize = 160;
/// Time between two looks at the files of bans: as the configuration's.
pub const BAN_LIST_LOOK: Duration = Duration::from_secs(2);
