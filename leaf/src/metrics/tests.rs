//! Every series of a leaf moves when what it counts happens.

use std::time::Duration;

use overlay::{
    id::{ContentId, PeerId},
    metrics::{Build, Role, install},
    wire::search::{StopReason, Summary},
};

use super::*;
use crate::download::record::{Done, Failed, Priority};

/// What a series stands at, by its name and labels as they are exposed.
fn value(series: &str) -> f64 {
    let build = Build { version: "0.1.0", revision: "unknown", role: Role::Leaf };
    let text = install(build, &[FAMILIES]).unwrap().render();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {series}: {text}"))
}

/// Does something that must make a series rise. Other tests of this process may raise it as well.
fn raises(series: &str, act: impl FnOnce()) {
    let before = value(series);
    act();
    assert!(value(series) > before, "{series} stays at {before}");
}

fn end(stopped: StopReason, hits: u32, no_ultrapeer: bool) -> End {
    let summary = Summary { stopped, ..Summary::default() };
    End { summary, hits, first_hit: (hits > 0).then_some(Duration::ZERO), elapsed: Duration::ZERO, no_ultrapeer }
}

#[test]
fn every_end_of_a_search_is_counted() {
    for (ended, result) in [
        (end(StopReason::Exhausted, 1, false), "hits"),
        (end(StopReason::Exhausted, 0, false), "empty"),
        (end(StopReason::Timeout, 0, false), "timeout"),
        (end(StopReason::Timeout, 0, true), "no_ultrapeer"),
    ] {
        raises(&format!("quictrack_searches_total{{result=\"{result}\"}}"), || search_ended(&ended));
    }
    for histogram in ["search_first_hit_seconds", "search_duration_seconds", "search_hits"] {
        raises(&format!("quictrack_{histogram}_count"), || search_ended(&end(StopReason::Limit, 1, false)));
    }
}

#[test]
fn every_way_to_another_leaf_is_counted_by_what_became_of_it() {
    let unreachable = || ReachError::Unreachable(String::new());
    for via in [Via::Direct, Via::Push, Via::Punch, Via::Relay, Via::Local] {
        let name = TransferVia::from(via).value();
        let attempts =
            |result: &str| format!("quictrack_transfer_attempts_total{{via=\"{name}\",result=\"{result}\"}}");
        raises(&attempts("ok"), || reached(via, Duration::ZERO));
        let seconds = format!("quictrack_transfer_connect_seconds_count{{via=\"{name}\"}}");
        raises(&seconds, || reached(via, Duration::ZERO));
        for (error, result) in [
            (ReachError::Timeout, "timeout"),
            (ReachError::Refused, "refused"),
            (unreachable(), "unreachable"),
            (ReachError::Version(String::new()), "version"),
        ] {
            raises(&attempts(result), || attempt_failed(via, &error));
        }
    }
}

#[test]
fn every_end_of_a_download_is_counted() {
    let content = ContentId([1; 32]);
    let failed = |reason| Event::Failed(Failed { id: "1".into(), content, reason });
    let done = Done { id: "1".into(), content, path: String::new(), bytes: 0, elapsed_ms: 0, sources: Vec::new() };
    for (event, result) in
        [(Event::Done(done), "ok"), (failed(Reason::Cancelled), "cancelled"), (failed(Reason::Conflict), "failed")]
    {
        raises(&format!("quictrack_downloads_finished_total{{result=\"{result}\"}}"), || download_ended(&event));
    }
}

#[test]
fn what_homes_were_found_to_do_is_counted() {
    let canary = |result: &str| format!("quictrack_canary_queries_total{{result=\"{result}\"}}");
    let compared = |result: &str| format!("quictrack_search_comparisons_total{{result=\"{result}\"}}");
    value("quictrack_homes"); // it begins with the first look
    begin();
    assert!(value("quictrack_canary_recall_ratio") > 0.99);
    for (count, series) in [
        (Count::CanaryFound, canary("found")),
        (Count::CanaryMissed, canary("missed")),
        (Count::CanaryFailed, canary("failed")),
        (Count::Same, compared("same")),
        (Count::Differ, compared("differ")),
        (Count::Minority, compared("minority")),
        (Count::Distrusted, "quictrack_bans_total{scope=\"ultrapeer\",reason=\"audit\"}".to_owned()),
    ] {
        raises(&series, || home_audited(count));
    }
    assert!(value("quictrack_canary_recall_ratio") < 0.99);
}

#[test]
fn why_a_home_is_left_has_its_word() {
    for (why, word) in [(Why::Drained, "drained"), (Why::Better, "better"), (Why::Distrusted, "distrusted")] {
        assert_eq!(HomeSwitch::from(why).value(), word);
    }
}

#[test]
fn downloads_and_uploads_are_shown_by_what_they_do() {
    let content = ContentId([1; 32]);
    let download = |state| Download {
        id: "1".into(),
        content,
        name: "a".into(),
        path: None,
        state,
        reason: None,
        size: None,
        bytes: 0,
        rate: 0,
        eta_s: None,
        priority: Priority::Normal,
        queue_position: None,
        created_at: String::new(),
        finished_at: None,
        sources: Vec::new(),
    };
    let upload = |state| Upload {
        id: "1".into(),
        peer: PeerId([1; 32]),
        content,
        name: "a".into(),
        size: 1,
        bytes: 0,
        rate: 0,
        state,
        via: Via::Direct,
        queue_position: None,
    };
    let states = [State::Queued, State::Active, State::Active, State::Paused, State::Stalled, State::Stalled];
    let downloads: Vec<_> = states.into_iter().chain([State::Done, State::Failed]).map(download).collect();
    let uploads = [serve::UploadState::Queued, serve::UploadState::Queued, serve::UploadState::Active].map(upload);
    value("quictrack_homes"); // it begins with the first look
    collect(&[], 3, &downloads, &uploads);
    for (series, expected) in [
        ("homes", 3),
        ("downloads{state=\"queued\"}", 1),
        ("downloads{state=\"active\"}", 2),
        ("downloads{state=\"paused\"}", 1),
        ("downloads{state=\"stalled\"}", 2),
        ("uploads{state=\"queued\"}", 2),
        ("uploads{state=\"active\"}", 1),
        ("queue_length{queue=\"upload\"}", 2),
        ("queue_capacity{queue=\"upload\"}", limits::UPLOAD_QUEUE as u32),
    ] {
        let shown = value(&format!("quictrack_{series}"));
        assert!((shown - f64::from(expected)).abs() < f64::EPSILON, "{series}: {shown}");
    }
}

#[test]
fn states_are_shown_as_they_are() {
    value("quictrack_homes"); // as above
    for state in Reachability::ALL {
        show_reachability(state.value());
        for other in Reachability::ALL {
            let shown = value(&format!("quictrack_reachability{{state=\"{}\"}}", other.value()));
            assert_eq!(shown > 0.0, state == other, "{} while {}", other.value(), state.value());
        }
    }
    collect_known(2, 3);
    assert!(value("quictrack_known_ultrapeers{state=\"alive\"}") > 1.0);
    assert!(value("quictrack_known_ultrapeers{state=\"cached\"}") > 2.0);
    let here = std::env::temp_dir();
    collect_disk(&here, &here.join("not there yet"));
    for folder in ["downloads", "state"] {
        assert!(value(&format!("quictrack_disk_free_bytes{{dir=\"{folder}\"}}")) > 0.0, "{folder}");
    }
}
