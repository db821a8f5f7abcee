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
