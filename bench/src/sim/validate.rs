//! Whether the models give what was published: expected, got, and how far apart they may be.
//!
//! The numbers of random graphs are those of synthetic runs with eight sources, so they have their noise: a tenth.
//! The effect of redundancy is that of Yang and Garcia-Molina's *Designing a super-peer network* for clusters of a
//! hundred peers whose super-peers are all linked: with two partners for each cluster, each receives 48 % less and all
//! together carry 2.5 % more.

use std::fmt::Write as _;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rustc_hash::FxHashSet;
use serde::Serialize;

use super::{baselines::graph::Graph, draw, report::mean};

/// Sources of which the mean is taken, as in the published runs, and times that a graph is drawn.
const SOURCES: u32 = 8;

/// One comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What is compared.
    pub what: String,
    /// As published.
    pub expected: f64,
    /// Here.
    pub got: f64,
    /// How far apart they may be.
    pub tolerance: f64,
}

impl Check {
    /// True if they agree.
    pub fn agrees(&self) -> bool {
        (self.got - self.expected).abs() <= self.tolerance
    }
}

/// A published flood.
struct Published {
    name: &'static str,
    nodes: u32,
    degree: f64,
    hops: u32,
    reach: f64,
    messages: f64,
    /// Reach of the survivors, in parts of the survivors.
    after: f64,
}

/// All that were published; the last one takes longest.
const FLOODS: [Published; 6] = [
    Published {
        name: "Gnutella 0.4: 50,000 peers, degree 3.4, 7 hops",
        nodes: 50_000,
        degree: 3.4,
        hops: 7,
        reach: 0.138,
        messages: 7_493.0,
        after: 0.024,
    },
    Published {
        name: "FastTrack: 30,000 supernodes, degree 50, 2 hops",
        nodes: 30_000,
        degree: 50.0,
        hops: 2,
        reach: 0.077,
        messages: 2_415.0,
        after: 0.058,
    },
    Published {
        name: "Gnutella 0.6: 33,000 ultrapeers, degree 30, 3 hops",
        nodes: 33_000,
        degree: 30.0,
        hops: 3,
        reach: 0.573,
        messages: 28_926.0,
        after: 0.324,
    },
    Published {
        name: "FastTrack: 30,000 supernodes, degree 50, 3 hops",
        nodes: 30_000,
        degree: 50.0,
        hops: 3,
        reach: 0.978,
        messages: 116_391.0,
        after: 0.858,
    },
    Published {
        name: "Gnutella 0.6: 33,000 ultrapeers, degree 30, 4 hops",
        nodes: 33_000,
        degree: 30.0,
        hops: 4,
        reach: 1.0,
        messages: 568_527.0,
        after: 0.995,
    },
    Published {
        name: "Gnutella 0.6: 333,000 ultrapeers, degree 30, 4 hops",
        nodes: 333_000,
        degree: 30.0,
        hops: 4,
        reach: 0.899,
        messages: 792_393.0,
        after: 0.532,
    },
];

/// Checks the models; only what takes a moment unless `all`.
pub fn checks(seed: u64, all: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    for published in &FLOODS[..if all { FLOODS.len() } else { 3 }] {
        flood(seed, published, &mut checks);
    }
    rendezvous(seed, &mut checks);
    redundancy(&mut checks);
    checks
}

fn flood(seed: u64, published: &Published, checks: &mut Vec<Check>) {
    let Published { name, nodes, degree, hops, reach, messages, after } = *published;
    let mut rng = Pcg64Mcg::seed_from_u64(draw::mix(seed, u64::from(nodes), u64::from(hops)));
    let (mut reached, mut sent, mut last, mut survived) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let draws = if nodes > 100_000 { 1 } else { 8 };
    for _ in 0..draws {
        let mut graph = Graph::random(&mut rng, nodes, degree);
        for _ in 0..SOURCES {
            let flood = graph.flood(rng.random_range(0..nodes), hops);
            reached.push(flood.reached.len() as f64 / f64::from(nodes));
            sent.push(flood.messages as f64);
            last.push(flood.last_hop as f64 / flood.messages.max(1) as f64);
        }
        let living = graph.kill(&mut rng, super::baselines::KILLED);
        for _ in 0..SOURCES {
            let source = std::iter::repeat_with(|| rng.random_range(0..nodes)).find(|node| graph.lives(*node));
            let source = source.expect("most nodes live");
            survived.push(graph.flood(source, hops).reached.len() as f64 / f64::from(living));
        }
    }
    // Eight sources of few neighbours differ much, those of many little.
    let noise = if degree < 10.0 { 0.25 } else { 0.15 };
    let mut add = |what: String, expected: f64, got: Vec<f64>, tolerance: f64| {
        checks.push(Check { what, expected, got: mean(got.into_iter()), tolerance });
    };
    add(format!("{name}: reach"), reach, reached, (reach * noise).min(0.05));
    add(format!("{name}: messages"), messages, sent, messages * noise);
    add(format!("{name}: reach of survivors"), after, survived, (after * noise * 2.0).min(0.05));
    if (degree, hops) == (30.0, 3) {
        add("the part of messages sent with the last of 3 hops, degree 30".to_owned(), 0.965, last, 0.01);
    }
}

/// Where a query is put on `r` random nodes and a file on `g`, they meet with probability 1 - exp(-rg / N).
fn rendezvous(seed: u64, checks: &mut Vec<Check>) {
    let mut rng = Pcg64Mcg::seed_from_u64(draw::mix(seed, 7, 7));
    let nodes = 10_000_u32;
    for (queries, files) in [(100, 100), (200, 100), (200, 200)] {
        let meet = |rng: &mut Pcg64Mcg| {
            let mut draw = |count: u32| (0..count).map(|_| rng.random_range(0..nodes)).collect::<FxHashSet<u32>>();
            let (query, file) = (draw(queries), draw(files));
            !query.is_disjoint(&file)
        };
        let got = (0..4_000).filter(|_| meet(&mut rng)).count() as f64 / 4_000.0;
        let expected = 1.0 - (-f64::from(queries * files) / f64::from(nodes)).exp();
        checks.push(Check {
            what: format!("rendezvous of {queries} and {files} among 10,000"),
            expected,
            got,
            tolerance: 0.03,
        });
    }
}

/// What a super-peer receives, and what all send and receive, in bytes a second; see the module text.
fn redundancy(checks: &mut Vec<Check>) {
    // The paper's costs: a query has 94 bytes, an answer 80 and 76 for each result and 28 for each address, a join 80 and
    // 72 for each file. Its rates: 9.26e-3 queries a second and user, sessions of 18 min, 168 files a user, 0.09
    // results a peer.
    let (peers, cluster) = (10_000.0, 100.0);
    let clusters = peers / cluster;
    let (queries, results) = (9.26e-3, 0.09 * peers);
    let (join_rate, join) = (1.0 / 1_080.0, 80.0 + 72.0 * 168.0);
    let answers = clusters * 80.0 + results * (76.0 + 28.0);
    // All queries of the network pass each cluster; the answers to those of its own peers come back.
    let searching = queries * peers * 94.0 + queries * cluster * answers;
    let joining = cluster * join_rate * join;
    let alone = searching + joining;
    let partner = searching / 2.0 + joining;
    let network = |joins: f64| clusters * (searching * 2.0 + joining * 2.0 * joins);
    let individual = (partner / alone - 1.0) * 100.0;
    let aggregate = (network(2.0) / network(1.0) - 1.0) * 100.0;
    let mut add =
        |what: &str, expected, got, tolerance| checks.push(Check { what: what.to_owned(), expected, got, tolerance });
    add("two partners for a cluster of 100: load of each, %", -48.0, individual, 3.0);
    add("two partners for a cluster of 100: load of all, %", 2.5, aggregate, 2.0);
}

/// The checks as aligned text.
pub fn text(checks: &[Check]) -> String {
    let mut text = format!("{:<72}{:>14}{:>14}{:>12}\n", "", "published", "here", "");
    for check in checks {
        let verdict = if check.agrees() { "agrees" } else { "DIFFERS" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<72}{:>14.3}{:>14.3}{verdict:>12}", check.what, check.expected, check.got);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_give_what_was_published() {
        let checks = checks(1, false);
        assert!(checks.iter().all(Check::agrees), "\n{}", text(&checks));
        assert!(checks.len() >= 14, "{}", checks.len());
    }
}
