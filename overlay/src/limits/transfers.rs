//! Caps of transfers: slots, queues, turns, sources and what waits between them.

use std::time::Duration;

use super::{CHUNK_FILES, CHUNKS_PER_LEAF};

/// Segment values of one content: 2048 segments of 1 GiB make 2 TiB, the largest content that is
/// transferred, in a frame of 64 KiB.
pub const TOPS: usize = 2048;
/// Group values of one piece: 1 MiB in groups of 16 KiB.
pub const GROUPS_PER_PIECE: usize = 64;
/// Bytes of one part of a bitmap of pieces: 32 KiB speak of 262,144 pieces.
pub const HAVE_PART_BYTES: usize = 32 << 10;
/// Pieces of one request. Chosen: 16 pieces of 256 KiB are 4 MiB; larger pieces are bounded by
/// [`RUN_BYTES`].
pub const RUN_PIECES: u32 = 16;
/// Bytes of one request. Chosen: enough that a request for each costs nothing, few enough that the loss
/// of a source gives little work back.
pub const RUN_BYTES: u64 = 4 << 20;
/// Bytes of a file that may be fetched together with others. Chosen: a file of that size takes as long as the round trips
/// that a session of its own costs, at 20 Mbit/s.
pub const SMALL_FILE_BYTES: usize = 64 << 10;
/// Small files of one request; together they have at most [`RUN_BYTES`]. Chosen: what becomes durable together, and in one
/// transaction each in two tables, at a few milliseconds a group on a slow disk.
pub const BUNDLE_FILES: usize = 512;
/// Requests for small files that one downloader sends one uploader at once: one is written to the disk while the other
/// comes.
pub const BUNDLES_AT_ONCE: usize = 2;
/// Bytes of one answer to a request for small files.
pub const FILES_BYTES: usize = 256 << 10;
/// Time for which a small file is not fetched together with others after it could not be had like that. Chosen: a folder
/// that is being hashed anew is there again by then, and comes quickly.
pub const ALONE: Duration = Duration::from_secs(30);
/// Bytes of a page of a listing.
pub const PAGE_BYTES: usize = 256 << 10;
/// Folders and files of a page of a listing. Chosen: usual entries have 100 to 200 bytes.
pub const PAGE_ENTRIES: usize = 1000;
/// Files and folders of one listing that a command prints. Chosen: the files of the largest catalog, and as many folders.
pub const LISTING_ITEMS: usize = 2 * CHUNKS_PER_LEAF * CHUNK_FILES;
/// Sources of one content that a download remembers. Chosen: more than can be used at once.
pub const SOURCES_PER_JOB: usize = 256;
/// Sessions that a download keeps open at once. Chosen: 32 waiting places find a free slot soon.
pub const SESSIONS_PER_JOB: usize = 32;
/// Time between two sessions without a slot that make room for untried sources, while all that may be are open. Simulated
/// (bench/src/bin/swarm.rs): without it a third of a crowd of 64 is never asked for anything. Each costs an introduction.
pub const SESSION_ROTATION: Duration = Duration::from_secs(2);
/// Time for which a session waits for a slot before it may have to make room.
pub const SESSION_PATIENCE: Duration = Duration::from_secs(10);
/// A place in a queue behind which a session has little hope. Chosen: twice what everybody has before them in a crowd that is
/// spread evenly ([`SESSIONS_PER_JOB`] sessions each).
pub const SESSION_FAR: u32 = 64;
/// [`SESSION_PATIENCE`] with such a place. Simulated (bench/src/bin/swarm.rs): a thousand who come at once would all wait ten
/// seconds for the first thirty that have something.
pub const SESSION_FAR_PATIENCE: Duration = Duration::from_secs(1);
/// [`SESSION_ROTATION`] with such a place. Chosen: ten seconds of that stay within
/// [`INTRODUCE_BURST`](crate::limits::INTRODUCE_BURST).
pub const SESSION_FAR_ROTATION: Duration = Duration::from_millis(250);
/// Time after which a source that had to make room is tried again.
pub const SESSION_PAUSE: Duration = Duration::from_mins(2);
/// Bytes asked of one source and not written yet: a second at 134 Mbit/s, more on shorter paths.
pub const SOURCE_IN_FLIGHT_BYTES: u64 = 16 << 20;
/// Bytes asked of all sources of one download and not written yet.
pub const JOB_IN_FLIGHT_BYTES: u64 = 64 << 20;
/// First pause after a source failed; doubles with each failure.
pub const SOURCE_RETRY: Duration = Duration::from_secs(2);
/// Longest pause before a source is tried again. Chosen: a source that comes back is used within minutes.
pub const SOURCE_RETRY_MAX: Duration = Duration::from_mins(5);
/// First pause after a source said that it does not have the content; doubles with each failure. Chosen: a file
/// that is being hashed anew is there again by then.
pub const SOURCE_RETRY_NOT_HELD: Duration = Duration::from_secs(10);
/// Bytes a second that are read of what lies here to see that it is still what it was. Chosen: a hundredth of what a hard
/// disk reads, and yet a terabyte in two weeks.
pub const CHECK_RATE: u64 = 1 << 20;
/// Contents that begin with one byte and are looked at in one round of that check: of 256 times as many in all.
pub const CHECK_CONTENTS: usize = 65_536;
/// Time after the last read of a content that comes in which it still comes in order. Chosen: a player reads ahead
/// for less.
pub const READ_LAPSE: Duration = Duration::from_secs(20);
/// Other holders of a content that one message names. Chosen: half of [`SESSIONS_PER_JOB`], so that two who tell are enough.
pub const OTHERS_TOLD: usize = 16;
/// Other holders of a content that a node remembers to tell of: as many as a download remembers.
pub const OTHERS_KNOWN: usize = SOURCES_PER_JOB;
/// Time between two tellings of other holders, of those that were not told yet. Chosen: short against the
/// seconds in which a crowd that comes at once has to find itself.
pub const OTHERS_INTERVAL: Duration = Duration::from_millis(250);
/// Other holders that a downloader is told of one telling after the other. Chosen: twice [`SESSIONS_PER_JOB`]; who learns of
/// as many from several has more than enough, and in a swarm of a thousand all would be told for ever.
pub const OTHERS_SOON: usize = 64;
/// Time between two tellings after that. Chosen: as often as sources are looked for elsewhere.
pub const OTHERS_PAUSE: Duration = SOURCE_SEARCH_INTERVAL;
/// Time after which another holder that was not heard of again is told of no more.
pub const OTHERS_LIFETIME: Duration = Duration::from_mins(10);
/// Least time between two reports of new pieces in one session. Chosen: half of what a piece of 1 MiB takes at 20 Mbit/s.
pub const HAVE_INTERVAL: Duration = Duration::from_millis(200);
/// Silence after which a source with outstanding requests is left. Chosen: longer than a lost path takes
/// to be noticed by an active sender, shorter than a user's patience.
pub const SOURCE_STALL: Duration = Duration::from_secs(30);
/// Time between two searches for further sources of an unfinished download.
pub const SOURCE_SEARCH_INTERVAL: Duration = Duration::from_secs(30);
