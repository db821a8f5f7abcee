//! What Prometheus sees of an ultrapeer: queries by rate, errors and duration; slots and index by use.

use std::time::Duration;

use overlay::{
    introduction::Way,
    membership::Refused,
    metrics::{
        BANS, BanReason, BanScope, Counters, Gauges, Histograms, Labels, LimitedAction, MESSAGE_ERRORS, MessageError,
        QUEUE_CAPACITY, QUEUE_DROPPED, QUEUE_LENGTH, RATE_LIMITED,
    },
    time::Time,
    wire::{
        hello::RefuseReason,
        leaf::IntroductionFailure,
        search::{Incomplete, StopReason},
    },
};

pub(crate) use overlay::metrics::Queue;

use crate::{
    driver::Snapshot,
    search::{Asker, Ended},
    ultrapeer::{Denial, LimitedKind, Retirement},
};

/// Buckets of a leaf's stay: 10 s to a day.
const STAY_SECONDS: &[f64] = &[10.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];
/// Buckets of small counts.
const COUNTS: &[f64] = &[0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 200.0, 1_000.0, 10_000.0];
/// Buckets of a query: from what an index takes to what a user gives up after.
const QUERY_SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Buckets of what a list waits for: a second by design, minutes where all leaves of a large home come at once.
const STAY_IN_QUEUE: &[f64] = &[0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];
/// Buckets of a look-up.
const LOOKUP_SECONDS: &[f64] = &[0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];

overlay::labels! {
    /// What became of a leaf that knocked.
    pub enum Admission as "result" {
        /// It is attached.
        Accepted = "accepted",
        /// No slot was free.
        Full = "full",
        /// Too many come from its address.
        RateLimited = "rate_limited",
        /// It is banned.
        Banned = "banned",
        /// It speaks no version that is spoken here. What it would be is not known then.
        Version = "version",
        /// It was turned away for another reason.
        Refused = "refused",
    }

    /// Where a query came from.
    pub enum Origin as "origin" {
        /// An own leaf.
        Leaf = "leaf",
        /// Another ultrapeer.
        Mesh = "mesh",
    }

    /// What became of a query.
    pub enum Outcome as "outcome" {
        /// Hits were given.
        Answered = "answered",
        /// Nothing matched.
        Empty = "empty",
        /// Its leaf asks more often than it may.
        RateLimited = "rate_limited",
        /// Too many searches are under way.
        Overload = "overload",
        /// It could not be understood.
        Invalid = "invalid",
        /// Its asker did not wait.
        Cancelled = "cancelled",
    }

    /// What changes the index.
    pub enum IndexChange as "op" {
        /// A chunk of an own leaf's list, or its words from another home.
        Add = "add",
        /// A chunk that its leaf shares no more, or that nobody here needs any more.
        Remove = "remove",
        /// A chunk of a leaf that is gone.
        Expire = "expire",
    }

    /// Why a search ended.
    pub enum Stop as "reason" {
        /// Enough was found.
        Limit = "limit",
        /// Everyone who could know was asked.
        Exhausted = "exhausted",
        /// Time was over.
        Timeout = "timeout",
        /// The asker withdrew it.
        Cancelled = "cancelled",
    }

    /// Why an exhausted search may have missed something.
    pub enum Missing as "reason" {
        /// Nobody covers a part of the leaf space.
        ShardUncovered = "shard_uncovered",
        /// A list of leaves was behind.
        DigestLag = "digest_lag",
        /// No home of some leaf answered.
        HomeSilent = "home_silent",
        /// A look-up was cut.
        WorkCap = "work_cap",
        /// Homes disagree on who the ultrapeers are.
        ViewsDiffer = "views_differ",
    }

    /// Why something that another ultrapeer told of the ultrapeers was not believed.
    pub enum Disbelief as "reason" {
        /// A descriptor that cannot be read or names something impossible.
        Malformed = "malformed",
        /// A descriptor that its peer did not sign.
        Forged = "forged",
        /// A descriptor of another network.
        OtherNetwork = "other_network",
        /// A descriptor whose time is over.
        Expired = "expired",
        /// A descriptor older than a known one, or than its peer's end.
        Outdated = "outdated",
        /// A descriptor for which there was no room.
        Full = "full",
        /// A claim that others are gone, by one that claims too much.
        Claims = "claims",
        /// Too few members endorse who it is of.
        Unendorsed = "unendorsed",
    }

    /// What became of a vote on one that wants to serve.
    pub enum Election as "result" {
        /// It was endorsed.
        Elected = "elected",
        /// More are wanted, and no leaf here could serve.
        NoCandidate = "no_candidate",
        /// It was refused.
        Refused = "refused",
        /// It left before it was looked at.
        Expired = "expired",
    }

    /// What became of a dial-back.
    pub enum DialBack as "result" {
        /// The node was reached.
        Ok = "ok",
        /// Nobody answered.
        Timeout = "timeout",
        /// Something else answered there.
        Refused = "refused",
        /// It was not tried: there were too many, or one was made nearby.
        Limited = "limited",
    }

    /// Who is audited.
    pub enum Audited as "of" {
        /// Another home: what it told of its leaves.
        Home = "home",
        /// A leaf: the files that it lists.
        Leaf = "leaf",
    }

    /// What became of an audit.
    pub enum Audit as "result" {
        /// It proved what it had told.
        Ok = "ok",
        /// It did not.
        Failed = "failed",
        /// It could not, or list or link were gone before it did.
        Timeout = "timeout",
    }

    /// What a node became.
    pub enum NewRole as "to" {
        /// It shares, searches and transfers only.
        Leaf = "leaf",
        /// It serves leaves, too.
        Ultrapeer = "ultrapeer",
    }

    /// Why a node changed its role.
    pub enum RoleReason as "reason" {
        /// The network needed one more.
        Demand = "demand",
        /// The network needed one less.
        Surplus = "surplus",
        /// Whoever runs it wanted it.
        Operator = "operator",
        /// Others did not reach it.
        Unreachable = "unreachable",
        /// It failed audits.
        Audit = "audit",
        /// No ultrapeer was left, or none was ever there.
        Founding = "founding",
    }

    /// How leaves are brought together.
    pub enum IntroductionKind as "kind" {
        /// The asker dials.
        Direct = "direct",
        /// The target dials.
        Push = "push",
        /// The asker dials, and the target opens its NAT.
        Punch = "punch",
        /// Over this node.
        Relay = "relay",
    }

    /// What became of an introduction.
    pub enum IntroductionResult as "result" {
        /// Both sides know where to meet.
        Ok = "ok",
        /// The target is attached nowhere.
        TargetGone = "target_gone",
        /// The target declined.
        Refused = "refused",
        /// The target did not answer.
        Timeout = "timeout",
        /// Too many at a time.
        Limited = "limited",
    }
}

impl From<Retirement> for RoleReason {
    fn from(why: Retirement) -> Self {
        match why {
            Retirement::Surplus | Retirement::Replaced => Self::Surplus,
            Retirement::Unreachable => Self::Unreachable,
            Retirement::Distrusted => Self::Audit,
        }
    }
}

overlay::families! {
    /// Attached leaves.
    pub static LEAVES: Gauges<()> = "quictrack_leaves", "Leaves attached to this ultrapeer.";
    /// Leaves that fit.
    pub static LEAF_SLOTS: Gauges<()> = "quictrack_leaf_slots", "Leaves that this ultrapeer takes.";
    /// Leaves that knocked.
    pub static LEAF_ADMISSIONS: Counters<Admission> =
        "quictrack_leaf_admissions_total", "Leaves that asked to attach, by outcome.";
    /// How long leaves stay.
    pub static LEAF_SESSION: Histograms<()> =
        "quictrack_leaf_session_seconds", "Time for which a leaf stayed attached.", STAY_SECONDS;
    /// Ultrapeers in the view.
    pub static ULTRAPEERS: Gauges<()> = "quictrack_ultrapeers", "Ultrapeers in this one's view, itself included.";
    /// How long a list takes to be searchable.
    pub static FRESHNESS: Histograms<()> =
        "quictrack_freshness_seconds", "Time from the word of a leaf's new list until it can be searched here.", STAY_IN_QUEUE;
    /// Changes of the index.
    pub static INDEX_UPDATES: Counters<IndexChange> =
        "quictrack_index_updates_total", "Chunks of lists that came into the index, or left it.";
    /// How long an addition takes.
    pub static INDEX_UPDATE_DURATION: Histograms<()> =
        "quictrack_index_update_duration_seconds", "Time to build a chunk of a list for the index, on a thread of its own.", QUERY_SECONDS;
    /// How long a look-up takes.
    pub static INDEX_LOOKUP_DURATION: Histograms<()> =
        "quictrack_index_lookup_duration_seconds", "Time to look up a query of another ultrapeer, its answer included.", LOOKUP_SECONDS;
    /// Indexed files.
    pub static INDEX_FILES: Gauges<()> = "quictrack_index_files", "Files in the index.";
    /// Indexed terms.
    pub static INDEX_TERMS: Gauges<()> = "quictrack_index_terms", "Distinct terms in the index.";
    /// Memory of the index.
    pub static INDEX_MEMORY: Gauges<()> = "quictrack_index_memory_bytes", "Memory of the index, by its own account.";
    /// What that may become.
    pub static INDEX_BUDGET: Gauges<()> =
        "quictrack_index_budget_bytes", "Memory that index and digests may take, by the setting `memory`.";
    /// Parts of the leaf space.
    pub static SHARDS: Gauges<()> = "quictrack_shards", "Parts of the leaf space that a search asks for.";
    /// How small the part is that is covered.
    pub static SHARD_PREFIX_LENGTH: Gauges<()> =
        "quictrack_shard_prefix_length", "Bits of the prefix that this ultrapeer covers; 0 is the whole leaf space.";
    /// Members of the part.
    pub static SHARD_MEMBERS: Gauges<()> =
        "quictrack_shard_members", "Ultrapeers that cover a part of what this one covers, itself included.";
    /// Leaves with digests.
    pub static DIGEST_LEAVES: Gauges<()> =
        "quictrack_digest_leaves", "Leaves attached elsewhere whose words are in the index.";
    /// Memory of the digests.
    pub static DIGEST_MEMORY: Gauges<()> = "quictrack_digest_memory_bytes", "Memory of the digests, by their own account.";
    /// Digests that homes owe.
    pub static DIGESTS_FAILED: Counters<()> =
        "quictrack_digests_failed_total", "Digests that another ultrapeer did not send, or that were none.";
    /// Audits of other homes and of leaves.
    pub static AUDITS: Counters<(Audited, Audit)> =
        "quictrack_audits_total", "Audits of what other ultrapeers told of their leaves, and of files that leaves list.";
    /// Complaints.
    pub static COMPLAINTS: Counters<()> =
        "quictrack_complaints_total", "Complaints about leaves for which these must show that they have a file.";
    /// What was not believed of the ultrapeers.
    pub static GOSSIP_REFUSED: Counters<Disbelief> =
        "quictrack_gossip_refused_total", "What others told of the ultrapeers and was not believed, by reason.";
    /// What homes told of the contents of their leaves.
    pub static HOLDINGS: Gauges<()> =
        "quictrack_holdings", "Contents of leaves that other homes told of, for look-ups by content.";
    /// What was not kept of it.
    pub static HOLDINGS_REFUSED: Counters<()> =
        "quictrack_holdings_refused_total", "Contents of leaves that homes told of beyond their share.";
    /// Homes asked in vain.
    pub static DIGEST_FALSE_HITS: Counters<()> =
        "quictrack_digest_false_hits_total", "Homes that were asked because of a digest and had no match.";
    /// Queries by outcome.
    pub static QUERIES: Counters<(Origin, Outcome)> = "quictrack_queries_total", "Queries, by origin and outcome.";
    /// How long searches take.
    pub static QUERY_DURATION: Histograms<Origin> =
        "quictrack_query_duration_seconds", "Time of a search for a leaf, or for a part of the leaf space, to its summary.", QUERY_SECONDS;
    /// How long the first hit takes.
    pub static QUERY_FIRST_HIT: Histograms<Origin> =
        "quictrack_query_first_hit_seconds", "Time of such a search to its first hit.", QUERY_SECONDS;
    /// Forwards of a search.
    pub static QUERY_MESSAGES: Histograms<()> =
        "quictrack_query_messages", "Copies of a query that a coordinated search sent.", COUNTS;
    /// Ultrapeers that a search asked.
    pub static QUERY_ULTRAPEERS: Histograms<()> =
        "quictrack_query_ultrapeers_asked", "Ultrapeers that received the query of a coordinated search.", COUNTS;
    /// Contents that a search gave.
    pub static QUERY_HITS: Histograms<()> = "quictrack_query_hits", "Contents that a coordinated search gave.", COUNTS;
    /// Why searches ended.
    pub static QUERY_STOPS: Counters<Stop> = "quictrack_query_stops_total", "Coordinated searches, by why they ended.";
    /// Why searches may have missed something.
    pub static QUERY_INCOMPLETE: Counters<Missing> =
        "quictrack_query_incomplete_total", "Exhausted searches that may have missed something, by reason.";
    /// Votes.
    pub static ELECTIONS: Counters<Election> =
        "quictrack_elections_total", "Votes of this ultrapeer on nodes that want to serve, by outcome.";
    /// Dial-backs.
    pub static DIALBACKS: Counters<DialBack> =
        "quictrack_dialbacks_total", "Candidates that were dialled back, by outcome.";
    /// Changes of the role.
    pub static ROLE_CHANGES: Counters<(NewRole, RoleReason)> =
        "quictrack_role_changes_total", "Times that this node became an ultrapeer, or was one no more, by reason.";
    /// Introductions.
    pub static INTRODUCTIONS: Counters<(IntroductionKind, IntroductionResult)> =
        "quictrack_introductions_total", "Introductions of leaves to each other, by outcome.";
    /// Relayed connections.
    pub static RELAY_CIRCUITS: Gauges<()> = "quictrack_relay_circuits", "Connections between leaves that are relayed.";
    /// What they carried.
    pub static RELAY_BYTES: Counters<()> = "quictrack_relay_bytes_total", "Bytes that were relayed between leaves.";
}

/// Totals of an ultrapeer as far as they are in the metrics. A process may have several, one after the other or at once:
/// what is new of each is added.
#[derive(Debug, Default)]
pub struct Told(Vec<u64>);

/// Adds what is new of the totals of an ultrapeer, which come in the same order each time.
struct Telling<'a> {
    told: &'a mut Vec<u64>,
    place: usize,
}

impl Telling<'_> {
    fn total<L: Labels>(&mut self, family: &Counters<L>, labels: L, total: u64) {
        if self.place == self.told.len() {
            self.told.push(0);
        }
        let before = std::mem::replace(&mut self.told[self.place], total);
        family.add(labels, total.saturating_sub(before));
        self.place += 1;
    }
}

/// Brings the metrics up to date.
pub(crate) fn collect(snapshot: &Snapshot, Told(told): &mut Told) {
    let mut telling = Telling { told, place: 0 };
    LEAVES.set((), f64::from(snapshot.leaves));
    LEAF_SLOTS.set((), f64::from(snapshot.max_leaves));
    ULTRAPEERS.set((), f64::from(snapshot.ultrapeers));
    INDEX_FILES.set((), snapshot.index.files as f64);
    INDEX_TERMS.set((), snapshot.index.terms as f64);
    INDEX_MEMORY.set((), snapshot.index.memory as f64);
    INDEX_BUDGET.set((), snapshot.memory as f64);
    SHARDS.set((), f64::from(snapshot.shards));
    SHARD_PREFIX_LENGTH.set((), f64::from(snapshot.shard.length));
    SHARD_MEMBERS.set((), f64::from(snapshot.mates));
    DIGEST_LEAVES.set((), snapshot.digests.leaves as f64);
    DIGEST_MEMORY.set((), snapshot.digests.bytes as f64);
    HOLDINGS.set((), snapshot.holders.holdings as f64);
    let changes = snapshot.index_changes;
    for (op, total) in [
        (IndexChange::Add, changes.added),
        (IndexChange::Remove, changes.removed),
        (IndexChange::Expire, changes.expired),
    ] {
        telling.total(&INDEX_UPDATES, op, total);
    }
    telling.total(&DIGESTS_FAILED, (), snapshot.digests.failed);
    let (homes, leaves) = (snapshot.audits, snapshot.possessions);
    for (audited, proven, failed, evaded) in [
        (Audited::Home, homes.proven, homes.failed, homes.evaded),
        (Audited::Leaf, leaves.proven, leaves.failed, leaves.evaded),
    ] {
        telling.total(&AUDITS, (audited, Audit::Ok), proven);
        telling.total(&AUDITS, (audited, Audit::Failed), failed);
        telling.total(&AUDITS, (audited, Audit::Timeout), evaded);
    }
    telling.total(&COMPLAINTS, (), leaves.complaints);
    let votes = snapshot.ballots;
    for (result, total) in [
        (Election::Elected, votes.endorsed),
        (Election::NoCandidate, snapshot.without_candidate),
        (Election::Refused, votes.refused),
        (Election::Expired, votes.expired),
    ] {
        telling.total(&ELECTIONS, result, total);
    }
    for (result, total) in [
        (DialBack::Ok, votes.reached),
        (DialBack::Timeout, votes.unreached),
        (DialBack::Refused, votes.turned_away),
        (DialBack::Limited, votes.limited),
    ] {
        telling.total(&DIALBACKS, result, total);
    }
    telling.total(&RATE_LIMITED, LimitedAction::Dialback, votes.limited);
    let Refused { malformed, forged, other_network, expired, outdated, full, claims, unendorsed } = snapshot.refused;
    for (reason, total) in [
        (Disbelief::Malformed, malformed),
        (Disbelief::Forged, forged),
        (Disbelief::OtherNetwork, other_network),
        (Disbelief::Expired, expired),
        (Disbelief::Outdated, outdated),
        (Disbelief::Full, full),
        (Disbelief::Claims, claims),
        (Disbelief::Unendorsed, unendorsed),
    ] {
        telling.total(&GOSSIP_REFUSED, reason, total);
    }
    telling.total(&MESSAGE_ERRORS, MessageError::Signature, forged);
    telling.total(&HOLDINGS_REFUSED, (), snapshot.holders.refused);
}

/// Leaves that were refused because of a ban since the start, and nodes of other versions: their hellos do not come as
/// far as this.
pub(crate) fn collect_refused(banned: u64, versions: u64) {
    LEAF_ADMISSIONS.absolute(Admission::Banned, banned);
    LEAF_ADMISSIONS.absolute(Admission::Version, versions);
}

/// A leaf was turned away because too many come from its address.
pub(crate) fn leaf_limited() {
    LEAF_ADMISSIONS.increment(Admission::RateLimited);
    RATE_LIMITED.increment(LimitedAction::Connect);
}

/// Brings the gauges to nothing: there is no ultrapeer here any more.
pub fn collect_nothing() {
    let gauges = [
        &LEAVES,
        &LEAF_SLOTS,
        &ULTRAPEERS,
        &INDEX_FILES,
        &INDEX_TERMS,
        &INDEX_MEMORY,
        &INDEX_BUDGET,
        &SHARDS,
        &SHARD_PREFIX_LENGTH,
        &SHARD_MEMBERS,
        &DIGEST_LEAVES,
        &DIGEST_MEMORY,
        &HOLDINGS,
    ];
    for gauge in gauges {
        gauge.set((), 0.0);
    }
}

pub(crate) fn leaf_accepted() {
    LEAF_ADMISSIONS.increment(Admission::Accepted);
}

pub(crate) fn leaf_refused(reason: RefuseReason) {
    let full = reason == RefuseReason::Full;
    LEAF_ADMISSIONS.increment(if full { Admission::Full } else { Admission::Refused });
}

pub(crate) fn leaf_dropped() {
    BANS.increment((BanScope::Leaf, BanReason::Audit));
}

pub(crate) fn ultrapeer_distrusted() {
    BANS.increment((BanScope::Ultrapeer, BanReason::Audit));
}

pub(crate) fn list_refused() {
    RATE_LIMITED.increment(LimitedAction::Catalog);
}

pub(crate) fn leaf_session(stay: Duration) {
    LEAF_SESSION.record_span((), stay);
}

pub(crate) fn queue_dropped(queue: Queue) {
    QUEUE_DROPPED.increment(queue);
}

/// A queue's length and room; of several of one kind, those of the fullest.
pub(crate) fn queue_filled(queue: Queue, length: usize, capacity: usize) {
    QUEUE_LENGTH.set(queue, length as f64);
    QUEUE_CAPACITY.set(queue, capacity as f64);
}

/// A chunk was built for the index.
pub(crate) fn index_built(span: Duration) {
    INDEX_UPDATE_DURATION.record_span((), span);
}

/// Something was refused to a leaf.
pub(crate) fn asker_refused(why: Denial) {
    let outcome = match why {
        Denial::TooOften => Outcome::RateLimited,
        Denial::Overload => Outcome::Overload,
        Denial::Invalid => Outcome::Invalid,
        Denial::Gone => return,
    };
    QUERIES.increment((Origin::Leaf, outcome));
    if outcome == Outcome::RateLimited {
        RATE_LIMITED.increment(LimitedAction::Query);
    }
}

/// Another ultrapeer's query was looked up in `span`.
pub(crate) fn query_looked_up(hits: usize, invalid: bool, span: Duration) {
    INDEX_LOOKUP_DURATION.record_span((), span);
    query_answered(hits, invalid);
}

fn query_answered(hits: usize, invalid: bool) {
    let outcome = match (invalid, hits) {
        (true, _) => Outcome::Invalid,
        (false, 0) => Outcome::Empty,
        (false, _) => Outcome::Answered,
    };
    QUERIES.increment((Origin::Mesh, outcome));
}

pub(crate) fn search_ended(ended: &Ended, now: Time) {
    DIGEST_FALSE_HITS.add((), ended.false_hits.into());
    let is_mesh = matches!(ended.asker, Asker::Mesh(..));
    let origin = if is_mesh { Origin::Mesh } else { Origin::Leaf };
    QUERY_DURATION.record_span(origin, now.since(ended.began));
    if let Some(first) = ended.first_hit {
        QUERY_FIRST_HIT.record_span(origin, first.since(ended.began));
    }
    if is_mesh {
        return query_answered(ended.hits as usize, false);
    }
    let stop = match ended.summary.stopped {
        StopReason::Limit => Stop::Limit,
        StopReason::Exhausted => Stop::Exhausted,
        StopReason::Timeout => Stop::Timeout,
        StopReason::Cancelled => Stop::Cancelled,
    };
    let outcome = match (stop, ended.hits) {
        (Stop::Cancelled, _) => Outcome::Cancelled,
        (_, 0) => Outcome::Empty,
        _ => Outcome::Answered,
    };
    QUERIES.increment((Origin::Leaf, outcome));
    QUERY_STOPS.increment(stop);
    for reason in ended.summary.incomplete.iter() {
        QUERY_INCOMPLETE.increment(match reason {
            Incomplete::ShardUncovered => Missing::ShardUncovered,
            Incomplete::DigestLag => Missing::DigestLag,
            Incomplete::HomeSilent => Missing::HomeSilent,
            Incomplete::WorkCap => Missing::WorkCap,
            Incomplete::ViewsDiffer => Missing::ViewsDiffer,
        });
    }
    QUERY_MESSAGES.record((), f64::from(ended.summary.messages));
    QUERY_ULTRAPEERS.record((), f64::from(ended.summary.ultrapeers_asked));
    QUERY_HITS.record((), f64::from(ended.hits));
}

pub(crate) fn introduction(way: Way, result: Result<(), IntroductionFailure>) {
    let kind = match way {
        Way::Push => IntroductionKind::Push,
        Way::Punch => IntroductionKind::Punch,
        Way::Relay => IntroductionKind::Relay,
        _ => IntroductionKind::Direct,
    };
    let result = match result {
        Ok(()) => IntroductionResult::Ok,
        Err(IntroductionFailure::Refused) => IntroductionResult::Refused,
        Err(IntroductionFailure::Timeout) => IntroductionResult::Timeout,
        Err(IntroductionFailure::Limited) => IntroductionResult::Limited,
        Err(_) => IntroductionResult::TargetGone,
    };
    INTRODUCTIONS.increment((kind, result));
}

pub(crate) fn limited(kind: LimitedKind) {
    RATE_LIMITED.increment(match kind {
        LimitedKind::Introduction => LimitedAction::Introduction,
        LimitedKind::DialBack => LimitedAction::Dialback,
        LimitedKind::Relay => LimitedAction::Relay,
    });
}

#[cfg(test)]
mod tests;
