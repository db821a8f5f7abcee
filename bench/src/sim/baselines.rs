//! What others would have done: models of other systems on the same leaves, files and searches.
//!
//! A baseline is its own simple code, not the program's; it counts queries and the steps of walks as messages, and
//! knows neither loss nor latency. Everything is given to it that its design allows: graphs are random and whole, filters
//! never err, nobody is slow.
//!
//! | system | model |
//! |---|---|
//! | Gnutella 0.4 | all leaves are peers, 3.4 neighbours each, a flood of 7 hops |
//! | Gnutella 0.6 | an ultrapeer for 30 leaves, 30 neighbours each; a leaf keeps its words at three of them; the query goes to one neighbour after the other, up to 3 hops, as far as earlier answers suggest, and its last hop only where words match |
//! | FastTrack-like | a supernode for 33 leaves, 50 neighbours each; a leaf has one; a flood of 1, 2 or 3 hops |
//! | 32 random walks | on the peers of Gnutella 0.4, at most 1,024 steps each, until enough is found |
//! | Gia-like | capacities from 1 to 10,000; neighbours by capacity; each knows its neighbours' files; one walk of at most 1,024 steps to the most capable neighbour that was not asked |
//! | central index | one server |

pub mod graph;
pub mod systems;

use std::fmt::Write as _;

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use self::systems::{Central, FastTrack, Flooded, Gia, Gnutella, System, Walks};
use super::{
    draw,
    report::{Report, mean},
    scenario::Scenario,
    workload::{Class, Library},
};

/// Times that 30 % of each system is killed.
const KILLS: u64 = 20;
/// The part that is killed.
pub const KILLED: f64 = 0.3;

/// A search and where its answers are.
#[derive(Debug)]
pub struct Asked {
    /// Who asks.
    pub asker: u32,
    /// How it was made.
    pub class: Class,
    /// Matching contents by leaf.
    pub held: FxHashMap<u32, Vec<u32>>,
    /// Distinct contents wanted.
    pub limit: usize,
}

/// What a system did for a search.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Queries, forwards and steps.
    pub messages: u64,
    /// Contents found.
    pub found: FxHashSet<u32>,
}

/// One line of the comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Which system.
    pub system: String,
    /// The part of contents found of those that could be, over all searches.
    pub recall: f64,
    /// The same of searches of which one leaf holds all that matches.
    pub recall_one: f64,
    /// Messages of popular searches.
    pub popular: f64,
    /// Of those for any distinct content.
    pub tail: f64,
    /// Of those without an answer.
    pub none: f64,
    /// Of those of which one leaf holds all that matches.
    pub one: f64,
    /// Recall right after 30 % of ultrapeers (of peers, of servers) died: what survivors' leaves find of what the leaves
    /// that are still online hold.
    pub after_kill: f64,
}

/// The searches of a scenario, as many as asked for.
pub fn searches(scenario: &Scenario, library: &mut Library, count: usize) -> Vec<Asked> {
    let mut rng = Pcg64Mcg::seed_from_u64(draw::mix(scenario.seed, 0xba5e, 1));
    let limit = scenario.workload.limit as usize;
    let workload = scenario.workload;
    let ask = |_| {
        let part: f64 = rng.random();
        let class = match part {
            part if part < workload.popular => Class::Popular,
            part if part < workload.popular + workload.tail => Class::Tail,
            _ => Class::None,
        };
        let query = library.query(&mut rng, class);
        let mut held: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for content in query.contents {
            for leaf in library.holders(content).iter().filter(|leaf| **leaf < scenario.leaves) {
                held.entry(*leaf).or_default().push(content);
            }
        }
        Asked { asker: rng.random_range(0..scenario.leaves), class, held, limit }
    };
    (0..count).map(ask).collect()
}

/// All systems on the same searches.
pub fn compare(scenario: &Scenario, asked: &[Asked]) -> Vec<Line> {
    let leaves = scenario.leaves;
    let make: Vec<(&str, Box<Make>)> = vec![
        ("Gnutella 0.4, flood", Box::new(move |rng| Box::new(Flooded::new(rng, leaves)))),
        ("Gnutella 0.6, dynamic, QRP", Box::new(move |rng| Box::new(Gnutella::new(rng, leaves)))),
        ("FastTrack-like, 1 hop", Box::new(move |rng| Box::new(FastTrack::new(rng, leaves, 1)))),
        ("FastTrack-like, 2 hops", Box::new(move |rng| Box::new(FastTrack::new(rng, leaves, 2)))),
        ("FastTrack-like, 3 hops", Box::new(move |rng| Box::new(FastTrack::new(rng, leaves, 3)))),
        ("32 random walks", Box::new(move |rng| Box::new(Walks::new(rng, leaves)))),
        ("Gia-like", Box::new(move |rng| Box::new(Gia::new(rng, leaves)))),
        ("central index", Box::new(move |_| Box::new(Central::default()))),
    ];
    make.iter().map(|(name, make)| line(name, scenario.seed, asked, make)).collect()
}

/// Makes a system.
type Make = dyn Fn(&mut Pcg64Mcg) -> Box<dyn System>;

fn line(name: &str, seed: u64, asked: &[Asked], make: &Make) -> Line {
    let mut rng = Pcg64Mcg::seed_from_u64(draw::mix(seed, 0x51de, 2));
    let mut system = make(&mut rng);
    let outcomes: Vec<_> = asked.iter().map(|asked| (asked, system.search(&mut rng, asked))).collect();
    let of = |wanted: Class| {
        let of_class = outcomes.iter().filter(move |(asked, _)| asked.class == wanted);
        mean(of_class.map(|(_, outcome)| outcome.messages as f64))
    };
    let one = outcomes.iter().filter(|(asked, _)| asked.held.len() == 1);
    let recall = |outcomes: Vec<(&Asked, &Outcome)>| {
        mean(outcomes.into_iter().filter_map(|(asked, outcome)| found(asked, outcome, |_| true)))
    };
    let mut after = Vec::new();
    for kill in 0..KILLS {
        let mut rng = Pcg64Mcg::seed_from_u64(draw::mix(seed, 0xdead, kill));
        let mut system = make(&mut rng);
        system.kill(&mut rng, KILLED);
        let mut some: Vec<&Asked> = asked.iter().filter(|asked| system.lives(asked.asker)).collect();
        some.shuffle(&mut rng);
        for asked in some.into_iter().take(50) {
            let outcome = system.search(&mut rng, asked);
            after.extend(found(asked, &outcome, |leaf| system.lives(leaf)));
        }
    }
    Line {
        system: name.to_owned(),
        recall: recall(outcomes.iter().map(|(asked, outcome)| (*asked, outcome)).collect()),
        recall_one: recall(one.clone().map(|(asked, outcome)| (*asked, outcome)).collect()),
        popular: of(Class::Popular),
        tail: of(Class::Tail),
        none: of(Class::None),
        one: mean(one.map(|(_, outcome)| outcome.messages as f64)),
        after_kill: mean(after.into_iter()),
    }
}

/// The part of what leaves online hold that was found, of as much as was wanted; `None` if there is nothing.
fn found(asked: &Asked, outcome: &Outcome, lives: impl Fn(u32) -> bool) -> Option<f64> {
    let all = asked.held.iter().filter(|(leaf, _)| lives(**leaf)).flat_map(|(_, contents)| contents);
    let all: FxHashSet<u32> = all.copied().collect();
    let possible = all.len().min(asked.limit);
    let found = outcome.found.intersection(&all).count().min(possible);
    (possible > 0).then(|| found as f64 / possible as f64)
}

/// The program's own line: from a quiet run, and from runs in which 30 % were killed.
pub fn own_line(quiet: &Report, killed: &[Report]) -> Line {
    let of = |name: &str| quiet.searches.iter().find(|row| row.class == name);
    let messages = |name: &str| of(name).map_or(0.0, |row| row.messages[0]);
    let first = |report: &Report| report.bursts.first().map(|burst| burst.recall);
    Line {
        system: "Quictrack, its own cores".to_owned(),
        recall: of("all").map_or(0.0, |row| row.recall),
        recall_one: of("one holder").map_or(0.0, |row| row.recall),
        popular: messages("popular"),
        tail: messages("tail"),
        none: messages("no answer"),
        one: messages("one holder"),
        after_kill: mean(killed.iter().filter_map(first)),
    }
}

/// The comparison as aligned text.
pub fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    let head = ["all", "one holder", "popular", "tail", "no answer", "one holder", "after kill"];
    let [recall, one, popular, tail, none, messages, after] = head;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:<28}{:>20}{:>42}{:>12}", "", "recall", "messages", "recall");
    let _ = writeln!(
        text,
        "{:<28}{:>9}{one:>11}{popular:>11}{tail:>9}{none:>11}{messages:>11}{after:>12}",
        "system", recall
    );
    for line in lines {
        let _ = writeln!(
            text,
            "{:<28}{:>8.2}%{:>10.2}%{:>11.1}{:>9.1}{:>11.1}{:>11.1}{:>11.2}%",
            line.system,
            line.recall * 100.0,
            line.recall_one * 100.0,
            line.popular,
            line.tail,
            line.none,
            line.one,
            line.after_kill * 100.0
        );
    }
    text
}
