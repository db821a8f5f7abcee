//! Every series of an ultrapeer moves when what it counts happens.

use std::sync::Arc;

use overlay::{
    id::{PeerId, QueryId},
    identity::Identity,
    machine::Context,
    metrics::{Build, Label, Role, install},
    wire::search::{IncompleteSet, Summary},
};
use rand::{SeedableRng, rngs::SmallRng};

use super::*;
use crate::{
    leaves,
    ultrapeer::{IndexChanges, Terms, Ultrapeer},
};

/// What the series stand at whose names begin so, by their labels as they are exposed.
fn values(family: &str) -> Vec<(String, f64)> {
    let build = Build { version: "0.1.0", revision: "unknown", role: Role::Ultrapeer };
    let text = install(build, &[FAMILIES]).unwrap().render();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    let parts = series.filter_map(|line| line.rsplit_once(' ')).filter(|(name, _)| {
        let rest = name.strip_prefix(family);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
    });
    parts.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

fn value(series: &str) -> f64 {
    let (name, _) = series.split_once('{').unwrap_or((series, ""));
    let all = values(name);
    all.iter().find(|(known, _)| known == series).unwrap_or_else(|| panic!("no {series} in {all:?}")).1
}

/// Does something that must make a series rise. Other tests of this process may raise it as well.
fn raises(series: &str, act: impl FnOnce()) {
    let before = value(series);
    act();
    assert!(value(series) > before, "{series} stays at {before}");
}

/// Every series of these families rises while something is done.
fn raises_all(families: &[&str], act: impl FnOnce()) {
    let all = |family: &&str| values(family).into_iter();
    let before: Vec<_> = families.iter().flat_map(all).collect();
    assert!(before.len() >= families.len());
    act();
    for (series, before) in before {
        assert!(value(&series) > before, "{series} stays at {before}");
    }
}

fn ended(asker: Asker, stopped: StopReason, hits: u32) -> Ended {
    let mut incomplete = IncompleteSet::default();
    for reason in [
        Incomplete::ShardUncovered,
        Incomplete::DigestLag,
        Incomplete::HomeSilent,
        Incomplete::WorkCap,
        Incomplete::ViewsDiffer,
    ] {
        incomplete.insert(reason);
    }
    let summary = Summary { stopped, incomplete, ..Summary::default() };
    let first_hit = (hits > 0).then_some(Time::ZERO);
    Ended { asker, summary, hits, false_hits: 1, began: Time::ZERO, first_hit }
}

#[test]
fn every_outcome_of_a_search_is_counted() {
    let mesh = || Asker::Mesh(PeerId([1; 32]), QueryId(1));
    let families =
        ["quictrack_query_stops_total", "quictrack_query_incomplete_total", "quictrack_digest_false_hits_total"];
    raises_all(&families, || {
        for stopped in [StopReason::Limit, StopReason::Exhausted, StopReason::Timeout, StopReason::Cancelled] {
            search_ended(&ended(Asker::Leaf(1), stopped, 1), Time::ZERO);
        }
    });
    let histograms = [
        "quictrack_query_messages_count",
        "quictrack_query_ultrapeers_asked_count",
        "quictrack_query_hits_count",
        "quictrack_query_duration_seconds_count",
        "quictrack_query_first_hit_seconds_count",
    ];
    raises_all(&histograms, || {
        search_ended(&ended(Asker::Leaf(1), StopReason::Exhausted, 1), Time::ZERO);
        search_ended(&ended(mesh(), StopReason::Exhausted, 1), Time::ZERO);
    });
    let leaf = |outcome: Outcome| format!("quictrack_queries_total{{origin=\"leaf\",outcome=\"{}\"}}", outcome.value());
    let at_leaf = |stopped, hits| search_ended(&ended(Asker::Leaf(1), stopped, hits), Time::ZERO);
    raises(&leaf(Outcome::Answered), || at_leaf(StopReason::Limit, 1));
    raises(&leaf(Outcome::Empty), || at_leaf(StopReason::Exhausted, 0));
    raises(&leaf(Outcome::Cancelled), || at_leaf(StopReason::Cancelled, 1));
    raises("quictrack_rate_limited_total{action=\"query\"}", || asker_refused(Denial::TooOften));
    for (why, outcome) in [
        (Denial::TooOften, Outcome::RateLimited),
        (Denial::Overload, Outcome::Overload),
        (Denial::Invalid, Outcome::Invalid),
    ] {
        raises(&leaf(outcome), || asker_refused(why));
    }
    let of_mesh = |outcome: &str| format!("quictrack_queries_total{{origin=\"mesh\",outcome=\"{outcome}\"}}");
    raises(&of_mesh("answered"), || query_looked_up(1, false, Duration::ZERO));
    raises(&of_mesh("empty"), || query_looked_up(0, false, Duration::ZERO));
    raises(&of_mesh("invalid"), || query_looked_up(0, true, Duration::ZERO));
    raises("quictrack_index_lookup_duration_seconds_count", || query_looked_up(1, false, Duration::ZERO));
    raises("quictrack_index_update_duration_seconds_count", || index_built(Duration::ZERO));
}

#[test]
fn whoever_knocks_is_counted_by_what_became_of_it() {
    let result = |result: &str| format!("quictrack_leaf_admissions_total{{result=\"{result}\"}}");
    raises(&result("accepted"), leaf_accepted);
    raises(&result("full"), || leaf_refused(RefuseReason::Full));
    raises(&result("refused"), || leaf_refused(RefuseReason::Busy));
    raises(&result("rate_limited"), leaf_limited);
    raises("quictrack_rate_limited_total{action=\"connect\"}", leaf_limited);
    raises(&result("banned"), || collect_refused(1, 0));
    raises(&result("version"), || collect_refused(0, 1));
    raises("quictrack_leaf_session_seconds_count", || leaf_session(Duration::ZERO));
    raises("quictrack_bans_total{scope=\"leaf\",reason=\"audit\"}", leaf_dropped);
    raises("quictrack_bans_total{scope=\"ultrapeer\",reason=\"audit\"}", ultrapeer_distrusted);
}

#[test]
fn whatever_is_refused_for_its_number_is_counted() {
    let limited_of = |action: &str| format!("quictrack_rate_limited_total{{action=\"{action}\"}}");
    raises(&limited_of("catalog"), list_refused);
    raises(&limited_of("introduction"), || limited(LimitedKind::Introduction));
    raises(&limited_of("relay"), || limited(LimitedKind::Relay));
    raises(&limited_of("dialback"), || limited(LimitedKind::DialBack));
    for queue in [Queue::Control, Queue::Hits, Queue::Queries, Queue::Digests, Queue::Catalog] {
        raises(&format!("quictrack_queue_dropped_total{{queue=\"{}\"}}", queue.value()), || queue_dropped(queue));
    }
}

#[test]
fn every_introduction_is_counted_by_its_way_and_result() {
    raises_all(&["quictrack_introductions_total"], || {
        for way in [Way::Direct, Way::Push, Way::Punch, Way::Relay] {
            introduction(way, Ok(()));
            for failure in [
                IntroductionFailure::TargetGone,
                IntroductionFailure::Refused,
                IntroductionFailure::Timeout,
                IntroductionFailure::Limited,
            ] {
                introduction(way, Err(failure));
            }
        }
    });
}

#[test]
fn who_steps_down_says_why() {
    for (why, reason) in [
        (Retirement::Surplus, RoleReason::Surplus),
        (Retirement::Replaced, RoleReason::Surplus),
        (Retirement::Unreachable, RoleReason::Unreachable),
        (Retirement::Distrusted, RoleReason::Audit),
    ] {
        assert_eq!(RoleReason::from(why), reason);
    }
}

/// A snapshot in which nothing is 0.
fn busy() -> Snapshot {
    let identity = Arc::new(Identity::from_seed([1; 32]));
    let mut rng = SmallRng::seed_from_u64(1);
    let cx = &mut Context::new(Time::ZERO, &mut rng);
    let terms = Terms::operated("public", false);
    let machine = Ultrapeer::new(identity, "public", leaves::Settings::default(), terms, 0, cx);
    let mut busy = Snapshot::of(&machine);
    (busy.leaves, busy.ultrapeers, busy.without_candidate) = (1, 2, 3);
    (busy.index.files, busy.index.terms, busy.index.memory) = (4, 5, 6);
    busy.index_changes = IndexChanges { added: 7, removed: 8, expired: 9 };
    busy.shard.length = 1;
    (busy.digests.leaves, busy.digests.bytes, busy.digests.failed) = (10, 11, 12);
    (busy.audits.proven, busy.audits.failed, busy.audits.evaded) = (13, 14, 15);
    (busy.possessions.proven, busy.possessions.failed, busy.possessions.evaded) = (16, 17, 18);
    (busy.possessions.complaints, busy.holders.holdings, busy.holders.refused) = (19, 20, 21);
    let votes = &mut busy.ballots;
    (votes.endorsed, votes.refused, votes.expired) = (22, 23, 24);
    (votes.reached, votes.unreached, votes.turned_away, votes.limited) = (25, 26, 27, 28);
    busy.refused = Refused {
        malformed: 1,
        forged: 2,
        other_network: 3,
        expired: 4,
        outdated: 5,
        full: 6,
        claims: 7,
        unendorsed: 8,
    };
    busy
}

#[test]
fn what_an_ultrapeer_has_counted_so_far_is_told_once() {
    let families = [
        "quictrack_index_updates_total",
        "quictrack_digests_failed_total",
        "quictrack_audits_total",
        "quictrack_complaints_total",
        "quictrack_elections_total",
        "quictrack_dialbacks_total",
        "quictrack_gossip_refused_total",
        "quictrack_holdings_refused_total",
    ];
    let (mut busy, mut told) = (busy(), Told::default());
    raises_all(&families, || collect(&busy, &mut told));
    raises("quictrack_message_errors_total{reason=\"signature\"}", || collect(&busy, &mut Told::default()));
    raises("quictrack_rate_limited_total{action=\"dialback\"}", || collect(&busy, &mut Told::default()));
    // A second ultrapeer of the process adds its own to what the first one told; nothing is told twice.
    let expired = || value("quictrack_index_updates_total{op=\"expire\"}");
    let before = expired();
    collect(&busy, &mut told);
    assert!((expired() - before).abs() < f64::EPSILON);
    busy.index_changes.expired += 2;
    collect(&busy, &mut told);
    assert!((expired() - before - 2.0).abs() < f64::EPSILON);

    let gauges = [
        "leaves",
        "leaf_slots",
        "ultrapeers",
        "shards",
        "shard_prefix_length",
        "shard_members",
        "index_files",
        "index_terms",
        "index_memory_bytes",
        "index_budget_bytes",
        "digest_leaves",
        "digest_memory_bytes",
        "holdings",
    ];
    for gauge in gauges {
        assert!(value(&format!("quictrack_{gauge}")) > 0.0, "{gauge}");
    }
    collect_nothing();
    for gauge in gauges {
        assert!(value(&format!("quictrack_{gauge}")) < 1.0, "{gauge}");
    }
}
