//! What an operator may set of how many leaves there are, and what each may do.

use overlay::{credit::TokenBucket, limits, time::Time};

/// What an operator may set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Leaves to take.
    pub max_leaves: u32,
    /// Files of one leaf to index.
    pub max_files_per_leaf: u64,
    /// Bytes that index and digests may take: half of them is the budget of the digests.
    pub memory: u64,
    /// Queries a second that each leaf may make.
    pub query_rate: f64,
    /// Queries that each leaf may make at once.
    pub query_burst: f64,
    /// Whether the limit holds for loopback addresses too.
    pub limit_loopback: bool,
    /// What is relayed between leaves.
    pub relay: crate::relays::Settings,
}

impl Settings {
    /// The credit of a leaf for its searches. It holds one more than the leaf is told: what was sent at the right times may
    /// arrive closer together.
    pub(super) fn queries(&self, now: Time) -> TokenBucket {
        TokenBucket::new(now, self.query_rate, self.query_burst + 1.0)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_leaves: limits::LEAVES_OF_ULTRAPEER,
            max_files_per_leaf: limits::FILES_PER_LEAF,
            memory: limits::INDEX_MEMORY,
            query_rate: limits::QUERY_RATE,
            query_burst: limits::QUERY_BURST,
            limit_loopback: false,
            relay: crate::relays::Settings::default(),
        }
    }
}
