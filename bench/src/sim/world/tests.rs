use std::path::Path;

use super::*;
use crate::{packages::Packages, sim::report::Report};

/// A world of a few nodes that has run to its end.
fn run(seed: u64, changes: &str) -> (World, f64) {
    let text =
        format!("name = 'test'\nseed = {seed}\nleaves = 24\nultrapeers = 5\nsettle_s = 40\nmeasure_s = 60\n{changes}");
    let mut scenario = Scenario::parse(&text).expect("a scenario");
    scenario.workload.median_files = 20.0;
    scenario.workload.queries_per_hour = 120.0;
    run_scenario(scenario)
}

/// A world that has run to its end.
fn run_scenario(scenario: Scenario) -> (World, f64) {
    let seed = scenario.seed;
    let corpus = Packages::load(Path::new("/nonexistent"), true).expect("the sample");
    let library = Library::new(seed, scenario.population(), &scenario.workload, corpus);
    let end = scenario.settle_s + scenario.measure_s;
    let mut world = World::new(scenario, library);
    world.run(Time((end * 1e6) as u64));
    (world, end)
}

const FAULTS: &str = "
[workload]
fresh_per_hour = 600
[churn]
leaves = 'harsh'
[[faults]]
at_s = 5
kind = 'kill'
share = 0.4
";

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let traces = [1, 1, 2].map(|seed| run(seed, FAULTS).0.trace());
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
}

#[test]
fn a_quiet_network_finds_everything_and_says_so() {
    let (world, end) = run(3, "");
    let report = Report::new(&world, end);
    let all = &report.searches[0];
    assert!(all.searches > 20, "{}", all.searches);
    assert_eq!((all.recall, report.falsely_complete, report.short_sources), (1.0, 0, 0));
    assert!(all.complete > 0.9, "{}", report.text());
    assert_eq!(world.defects(), [""; 0]);
    let (leaves, homes) = world.attached();
    assert_eq!((leaves, report.ultrapeers), (24, 5));
    assert!(homes >= leaves * overlay::limits::HOMES, "{homes} homes");
}

#[test]
fn nobody_lies_while_nodes_die_and_all_is_found_again() {
    let (world, end) = run(4, FAULTS);
    let report = Report::new(&world, end);
    assert_eq!((report.falsely_complete, report.short_sources), (0, 0), "{}", report.text());
    let last = report.bursts.last().expect("bursts");
    assert_eq!((last.after_ms, last.recall), (30_000, 1.0), "{}", report.text());
    assert!(report.detected_s.is_some() && report.restored_s.is_some() && report.unrestored == 0, "{}", report.text());
    assert!(!report.fresh.is_empty(), "{}", report.text());
    assert_eq!(world.defects(), [""; 0]);
}

#[test]
fn a_network_that_fell_apart_grows_together() {
    let parted = "[[faults]]\nat_s = 5\nkind = 'partition'\nshare = 0.5\nlasts_s = 12\n";
    let (world, end) = run(5, parted);
    let report = Report::new(&world, end);
    assert_eq!(report.falsely_complete, 0, "{}", report.text());
    assert_eq!(world.defects(), [""; 0]);
}

/// The report of a network out of whose leaves ultrapeers come.
fn elect(seed: u64, changes: &str) -> (World, Report) {
    let text =
        format!("name = 'test'\nseed = {seed}\n{changes}\n[workload]\nmedian_files = 5\nqueries_per_hour = 20\n");
    let (world, end) = run_scenario(Scenario::parse(&text).expect("a scenario"));
    let report = Report::new(&world, end);
    (world, report)
}

#[test]
fn a_network_elects_ultrapeers_out_of_nothing() {
    let scenario = "leaves = 12\nultrapeers = 0\nsettle_s = 40\nmeasure_s = 260\n[election]\nunreachable = 0.2";
    let (world, report) = elect(1, scenario);
    let elections = report.elections.clone().expect("elections");
    assert_eq!(world.defects(), [""; 0]);
    assert!(elections.first_s.is_some_and(|first| first <= 60.0), "{}", report.text());
    assert!(elections.attached_s.is_some_and(|attached| attached <= 70.0), "{}", report.text());
    let last = elections.rows.last().expect("looks");
    assert_eq!((last.attached, last.ultrapeers), (12, last.asked_for), "{}", report.text());
    assert_eq!(elections.role_changes_a_day.0, 1, "{}", report.text());
}

#[test]
fn an_elected_network_comes_back_when_all_its_ultrapeers_die_and_nobody_changes_its_role_twice() {
    let scenario = "leaves = 16\nultrapeers = 2\nsettle_s = 120\nmeasure_s = 3600\n[election]\n\n[[faults]]\nat_s = 10\nkind = 'kill'\nshare = 1.0\n";
    let (world, report) = elect(2, scenario);
    let elections = report.elections.clone().expect("elections");
    assert_eq!(world.defects(), [""; 0]);
    let [(share, recovered)] = elections.recovered_s[..] else { panic!("one fault") };
    assert!(share == 1.0 && recovered.is_some_and(|after| after <= 60.0), "{}", report.text());
    let last = elections.rows.last().expect("looks");
    assert_eq!((last.attached, last.ultrapeers), (16, last.asked_for), "{}", report.text());
    assert_eq!(elections.role_changes_a_day.0, 1, "{}", report.text());
}
