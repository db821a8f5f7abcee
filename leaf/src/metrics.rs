//! What Prometheus sees of a leaf.

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use overlay::{
    limits,
    metrics::{
        BANS, BanReason, BanScope, Counters, Direction, Gauges, Histograms, KNOWN_ULTRAPEERS, KnownState, Label,
        QUEUE_CAPACITY, QUEUE_LENGTH, Queue, REACHABILITY, Reachability, SECONDS,
    },
};

use crate::{
    download::{
        Event,
        record::{Download, Reason, State},
    },
    home_audits::Count,
    homes::Why,
    search::End,
    store::Share,
    transfer::{
        ReachError, Via,
        serve::{self, Upload},
    },
};

/// Buckets of a search as its user sees it.
const SEARCH_SECONDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Buckets of small counts.
const COUNTS: &[f64] = &[0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 200.0, 1_000.0, 10_000.0];
/// Buckets of a pass over a share: a few files to millions of them.
const SCAN_SECONDS: &[f64] = &[0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0];
/// Buckets of the wait for an upload slot.
const WAIT_SECONDS: &[f64] = &[0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];

overlay::labels! {
    /// What became of a search.
    pub enum SearchResult as "result" {
        /// Something was found.
        Hits = "hits",
        /// Nothing matched.
        Empty = "empty",
        /// No ultrapeer was there.
        NoUltrapeer = "no_ultrapeer",
        /// Time was over.
        Timeout = "timeout",
    }

    /// What a download is doing.
    pub enum DownloadState as "state" {
        /// It waits for its turn.
        Queued = "queued",
        /// Bytes come.
        Active = "active",
        /// Its user stopped it for now.
        Paused = "paused",
        /// No source gives it.
        Stalled = "stalled",
    }

    /// What an upload is doing.
    pub enum UploadState as "state" {
        /// It waits for a slot.
        Queued = "queued",
        /// It has one.
        Active = "active",
    }

    /// Why a home was left.
    pub enum HomeSwitch as "reason" {
        /// Its connection broke.
        Lost = "lost",
        /// It said good-bye.
        Drained = "drained",
        /// Another one is better.
        Better = "better",
        /// It turned this leaf away.
        Refused = "refused",
        /// It lied, or was far slower than the others.
        Distrusted = "distrusted",
    }

    /// What a search for an own file at a home found.
    pub enum Canary as "result" {
        /// The file.
        Found = "found",
        /// Not the file, although the home has it in its index.
        Missed = "missed",
        /// Nothing that says anything: the home did not answer, or lists changed.
        Failed = "failed",
    }

    /// What came of asking two homes the same.
    pub enum Comparison as "result" {
        /// They found the same.
        Same = "same",
        /// They did not; a third was asked.
        Differ = "differ",
        /// A home was in the minority again.
        Minority = "minority",
    }

    /// How a download ended.
    pub enum DownloadResult as "result" {
        /// With its file.
        Ok = "ok",
        /// Its user gave it up.
        Cancelled = "cancelled",
        /// It could not be completed as asked.
        Failed = "failed",
    }

    /// How an upload ended.
    pub enum UploadResult as "result" {
        /// Bytes were sent, and the downloader had no more wishes.
        Ok = "ok",
        /// Nothing was sent, or the connection broke.
        Aborted = "aborted",
    }

    /// How the other leaf is connected.
    pub enum TransferVia as "via" {
        /// It was dialled.
        Direct = "direct",
        /// It dialled, asked through its home.
        Push = "push",
        /// Both dialled at once through their NATs.
        Punch = "punch",
        /// Over a home.
        Relay = "relay",
        /// It is this node: the content lies here.
        Local = "local",
    }

    /// What came of an attempt to reach a leaf.
    pub enum AttemptResult as "result" {
        /// It is connected.
        Ok = "ok",
        /// It did not answer.
        Timeout = "timeout",
        /// It declined.
        Refused = "refused",
        /// No way leads to it.
        Unreachable = "unreachable",
        /// Its release does not fit this one.
        Version = "version",
    }

    /// What a piece turned out to be.
    pub enum PieceResult as "result" {
        /// Right.
        Ok = "ok",
        /// Something else than its content has there.
        Corrupt = "corrupt",
    }

    /// A folder of this leaf.
    pub enum DiskFolder as "dir" {
        /// Where downloads go.
        Downloads = "downloads",
        /// The data folder.
        State = "state",
    }
}

impl From<Why> for HomeSwitch {
    fn from(why: Why) -> Self {
        match why {
            Why::Drained => Self::Drained,
            Why::Better => Self::Better,
            Why::Distrusted => Self::Distrusted,
        }
    }
}

impl From<Via> for TransferVia {
    fn from(via: Via) -> Self {
        match via {
            Via::Direct => Self::Direct,
            Via::Push => Self::Push,
            Via::Punch => Self::Punch,
            Via::Relay => Self::Relay,
            Via::Local => Self::Local,
        }
    }
}

overlay::families! {
    /// Homes.
    pub static HOMES: Gauges<()> = "quictrack_homes", "Ultrapeers that this leaf is attached to.";
    /// Shared files.
    pub static SHARED_FILES: Gauges<()> = "quictrack_shared_files", "Files in this leaf's catalog.";
    /// Their bytes.
    pub static SHARED_BYTES: Gauges<()> = "quictrack_shared_bytes", "Bytes of the files in this leaf's catalog.";
    /// Searches by outcome.
    pub static SEARCHES: Counters<SearchResult> = "quictrack_searches_total", "Searches of this leaf, by outcome.";
    /// How long the first hit took.
    pub static SEARCH_FIRST_HIT: Histograms<()> =
        "quictrack_search_first_hit_seconds", "Time of a search to its first hit.", SEARCH_SECONDS;
    /// How long searches took.
    pub static SEARCH_DURATION: Histograms<()> =
        "quictrack_search_duration_seconds", "Time of a search to its summary.", SEARCH_SECONDS;
    /// Contents that searches found.
    pub static SEARCH_HITS: Histograms<()> = "quictrack_search_hits", "Contents that a search found.", COUNTS;
    /// Downloads by state.
    pub static DOWNLOADS: Gauges<DownloadState> = "quictrack_downloads", "Downloads by state.";
    /// Uploads by state.
    pub static UPLOADS: Gauges<UploadState> = "quictrack_uploads", "Uploads by state.";
    /// Searches for own files.
    pub static CANARY_QUERIES: Counters<Canary> =
        "quictrack_canary_queries_total", "Searches for an own file at a home that must find it, by outcome.";
    /// What came of them.
    pub static CANARY_RECALL: Gauges<()> =
        "quictrack_canary_recall_ratio", "Of the searches for an own file that say something, the part that found it; 1 before the first.";
    /// Searches that two homes were asked.
    pub static COMPARISONS: Counters<Comparison> =
        "quictrack_search_comparisons_total", "Searches that two homes were asked, by what came of comparing them.";
    /// Homes that are no more.
    pub static HOME_SWITCHES: Counters<HomeSwitch> =
        "quictrack_home_switches_total", "Homes that this leaf has no more, by reason.";
    /// How long homes were missing.
    pub static FAILOVER: Histograms<()> = "quictrack_failover_seconds",
        "Time from the loss of a home until as many as before had this leaf's list.", SECONDS;
    /// Hashed bytes.
    pub static HASHED_BYTES: Counters<()> = "quictrack_hashed_bytes_total", "Bytes of shared files that were hashed.";
    /// What lists cost.
    pub static CATALOG_SENT_BYTES: Counters<()> =
        "quictrack_catalog_sent_bytes_total", "Bytes of the file list sent to homes, compressed.";
    /// How long scans take.
    pub static SCAN_DURATION: Histograms<()> =
        "quictrack_scan_duration_seconds", "Time of a whole pass over shared files, hashing included.", SCAN_SECONDS;
    /// When a scan last succeeded.
    pub static SCAN_LAST_SUCCESS: Gauges<()> =
        "quictrack_scan_last_success_timestamp_seconds", "When a scan last succeeded, in seconds since 1970; 0 is never.";
    /// Downloads by their end.
    pub static DOWNLOADS_FINISHED: Counters<DownloadResult> =
        "quictrack_downloads_finished_total", "Downloads that ended, by result.";
    /// Uploads by their end.
    pub static UPLOADS_FINISHED: Counters<UploadResult> =
        "quictrack_uploads_finished_total", "Uploads that ended, by result.";
    /// Bytes of contents.
    pub static TRANSFER_BYTES: Counters<(Direction, TransferVia)> =
        "quictrack_transfer_bytes_total", "Bytes of contents received and sent, by how the other leaf is connected.";
    /// Attempts to reach leaves.
    pub static TRANSFER_ATTEMPTS: Counters<(TransferVia, AttemptResult)> =
        "quictrack_transfer_attempts_total", "Attempts to reach another leaf for a transfer, by way and result.";
    /// How long it takes to reach a leaf.
    pub static TRANSFER_CONNECT: Histograms<TransferVia> =
        "quictrack_transfer_connect_seconds", "Time until another leaf was connected for a transfer, by way.", SECONDS;
    /// Pieces that were verified.
    pub static VERIFIED_PIECES: Counters<PieceResult> =
        "quictrack_verified_pieces_total", "Received pieces and piece values, by what verification found.";
    /// Sources of finished downloads.
    pub static DOWNLOAD_SOURCES: Histograms<()> =
        "quictrack_download_sources", "Sources that sent something of a finished download.", COUNTS;
    /// How long uploads wait.
    pub static UPLOAD_QUEUE: Histograms<()> =
        "quictrack_upload_queue_seconds", "Time for which an upload waited for its first slot.", WAIT_SECONDS;
    /// Free space.
    pub static DISK_FREE: Gauges<DiskFolder> =
        "quictrack_disk_free_bytes", "Bytes that this leaf may still write to the disk of a folder.";
}

pub(crate) fn search_ended(end: &End) {
    use overlay::wire::search::StopReason;
    let result = match (end.no_ultrapeer, end.summary.stopped, end.hits) {
        (true, ..) => SearchResult::NoUltrapeer,
        (_, StopReason::Timeout, 0) => SearchResult::Timeout,
        (_, _, 0) => SearchResult::Empty,
        _ => SearchResult::Hits,
    };
    SEARCHES.increment(result);
    if let Some(first) = end.first_hit {
        SEARCH_FIRST_HIT.record_span((), first);
    }
    SEARCH_DURATION.record_span((), end.elapsed);
    SEARCH_HITS.record((), f64::from(end.hits));
}

/// Counts the end of a download; what is no end does not count.
pub(crate) fn download_ended(event: &Event) {
    let result = match event {
        Event::Done(done) => {
            DOWNLOAD_SOURCES.record((), done.sources.len() as f64);
            DownloadResult::Ok
        }
        Event::Failed(failed) if failed.reason == Reason::Cancelled => DownloadResult::Cancelled,
        Event::Failed(_) => DownloadResult::Failed,
        _ => return,
    };
    DOWNLOADS_FINISHED.increment(result);
}

/// Counts that another leaf was reached, which took `span`.
pub(crate) fn reached(via: Via, span: std::time::Duration) {
    TRANSFER_CONNECT.record_span(via.into(), span);
    TRANSFER_ATTEMPTS.increment((via.into(), AttemptResult::Ok));
}

/// Counts a way to another leaf that failed. Without an introduction no way was tried; what would be is to dial it.
pub(crate) fn attempt_failed(via: Via, error: &ReachError) {
    let result = match error {
        ReachError::Refused | ReachError::Banned => AttemptResult::Refused,
        ReachError::Timeout => AttemptResult::Timeout,
        ReachError::Version(_) => AttemptResult::Version,
        ReachError::Gone | ReachError::NoHome | ReachError::Unreachable(_) => AttemptResult::Unreachable,
    };
    TRANSFER_ATTEMPTS.increment((via.into(), result));
}

/// Searches for own files that found them, and those that did not, in this process.
static CANARIES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Counts a search for an own file that says something.
fn canary(found: bool) {
    CANARY_QUERIES.increment(if found { Canary::Found } else { Canary::Missed });
    CANARIES[usize::from(found)].fetch_add(1, Ordering::Relaxed);
    let [missed, found] = [0, 1].map(|place| CANARIES[place].load(Ordering::Relaxed) as f64);
    CANARY_RECALL.set((), found / (found + missed));
}

/// Counts something of the audits of homes.
pub(crate) fn home_audited(count: Count) {
    match count {
        Count::CanaryFound => canary(true),
        Count::CanaryMissed => canary(false),
        Count::CanaryFailed => CANARY_QUERIES.increment(Canary::Failed),
        Count::Same => COMPARISONS.increment(Comparison::Same),
        Count::Differ => COMPARISONS.increment(Comparison::Differ),
        Count::Minority => COMPARISONS.increment(Comparison::Minority),
        Count::Distrusted => BANS.increment((BanScope::Ultrapeer, BanReason::Audit)),
    }
}

/// Brings the free space up to date. A folder that is not there yet will lie on the disk of the first one above it.
pub(crate) fn collect_disk(downloads: &Path, data: &Path) {
    for (label, folder) in [(DiskFolder::Downloads, downloads), (DiskFolder::State, data)] {
        if let Some(free) = crate::download::free_bytes(folder) {
            DISK_FREE.set(label, free as f64);
        }
    }
}

/// Sets what holds before anything happened and is not 0.
pub(crate) fn begin() {
    CANARY_RECALL.set((), 1.0);
    REACHABILITY.set_only(Reachability::Unknown);
}

/// How others reach this node, in the word of its status.
pub(crate) fn show_reachability(word: &str) {
    let known = Reachability::ALL.iter().find(|state| state.value() == word);
    REACHABILITY.set_only(known.copied().unwrap_or(Reachability::Unknown));
}

/// Ultrapeers that a leaf knows: it believes those alive that serve it.
pub(crate) fn collect_known(homes: usize, others: usize) {
    KNOWN_ULTRAPEERS.set(KnownState::Alive, homes as f64);
    KNOWN_ULTRAPEERS.set(KnownState::Cached, others as f64);
}

/// Brings the gauges up to date.
pub(crate) fn collect(shares: &[Share], homes: usize, downloads: &[Download], uploads: &[Upload]) {
    HOMES.set((), homes as f64);
    SHARED_FILES.set((), shares.iter().map(|share| share.files).sum::<u64>() as f64);
    SHARED_BYTES.set((), shares.iter().map(|share| share.bytes).sum::<u64>() as f64);
    for (label, state) in [
        (DownloadState::Queued, State::Queued),
        (DownloadState::Active, State::Active),
        (DownloadState::Paused, State::Paused),
        (DownloadState::Stalled, State::Stalled),
    ] {
        DOWNLOADS.set(label, downloads.iter().filter(|job| job.state == state).count() as f64);
    }
    for (label, state) in
        [(UploadState::Queued, serve::UploadState::Queued), (UploadState::Active, serve::UploadState::Active)]
    {
        UPLOADS.set(label, uploads.iter().filter(|upload| upload.state == state).count() as f64);
    }
    QUEUE_LENGTH
        .set(Queue::Upload, uploads.iter().filter(|upload| upload.state == serve::UploadState::Queued).count() as f64);
    QUEUE_CAPACITY.set(Queue::Upload, limits::UPLOAD_QUEUE as f64);
}

#[cfg(test)]
mod tests;
