//! What Prometheus sees of a leaf.

use overlay::metrics::{Counters, Gauges, Histograms};

use crate::{
    download::record::{Download, State},
    search::End,
    store::Share,
    transfer::serve::{self, Upload},
};

/// Buckets of a search as its user sees it.
const SEARCH_SECONDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Buckets of small counts.
const COUNTS: &[f64] = &[0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 200.0, 1_000.0, 10_000.0];

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
}
