//! What a run was like: as a table for people, as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    elections::ElectionReport,
    links::BARE_PACKET,
    measure::Done,
    traffic::Line,
    workload::{Class, Shape},
    world::World,
};

/// All numbers of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// Leaves online at the end, and homes that they have.
    pub leaves: (usize, usize),
    /// Ultrapeers that serve at the end.
    pub ultrapeers: usize,
    /// Seconds that were simulated.
    pub simulated_s: f64,
    /// Seconds of them that were measured.
    pub measured_s: f64,
    /// Events.
    pub events: u64,
    /// All that happened, in one number.
    pub trace: String,
    /// How the contents came out.
    pub shape: Shape,
    /// Searches by class.
    pub searches: Vec<Row>,
    /// Said to be complete and not so, although a home in the view had the match: must be 0.
    pub falsely_complete: usize,
    /// Said to be complete, and counted fewer sources than homes in the view had: must be 0.
    pub short_sources: usize,
    /// Said to be complete, and missed a leaf whose homes were not in the view (any more).
    pub missed_homeless: usize,
    /// Contents shown that do not match: must be 0.
    pub strange: u64,
    /// Searches that homes refused, and whose leaf went.
    pub refused: (u64, u64),
    /// Bursts of searches after faults, by milliseconds after them.
    pub bursts: Vec<BurstRow>,
    /// The part of fresh files that searches found, by seconds after they were hashed.
    pub fresh: Vec<AgeRow>,
    /// The part of files that searches still found whose leaf said good-bye, by seconds after that.
    pub gone: Vec<AgeRow>,
    /// The same, for leaves that vanished.
    pub vanished: Vec<AgeRow>,
    /// Seconds until a death was known at an ultrapeer: p50, p95, most.
    pub detected_s: Option<[f64; 3]>,
    /// Seconds until a leaf had all its homes again: p50, p95, p99.
    pub restored_s: Option<[f64; 3]>,
    /// Leaves that had not.
    pub unrestored: u64,
    /// Kilobytes an hour on the line of a leaf that was online all the time and did nothing, keep-alives included.
    pub idle_leaf_kb_h: f64,
    /// The same of leaves that searched or changed their list.
    pub active_leaf_kb_h: f64,
    /// Kilobits a second on the line of an ultrapeer, both ways, keep-alives included: mean, most.
    pub ultrapeer_kbit_s: [f64; 2],
    /// The part of that which is keep-alives of links between ultrapeers.
    pub mesh_keep_alive_kbit_s: f64,
    /// Gini coefficient of leaves over ultrapeers, and of bytes.
    pub gini: [f64; 2],
    /// Megabytes of an ultrapeer's index by its own account.
    pub index_mb: f64,
    /// How ultrapeers were elected, if leaves may be.
    pub elections: Option<ElectionReport>,
    /// Messages and bytes of frames by kind, whole network, an hour.
    pub kinds: Vec<KindRow>,
    /// Searches that said what is not so, explained.
    pub lies: Vec<String>,
    /// What must not happen.
    pub defects: Vec<String>,
}

/// Searches of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub class: String,
    /// How many.
    pub searches: usize,
    /// The part of contents that each found of what it could, on average.
    pub recall: f64,
    /// The part of copies.
    pub copies: f64,
    /// The part that said that nothing is missing.
    pub complete: f64,
    /// Queries and forwards: mean, p50, p99.
    pub messages: [f64; 3],
    /// Milliseconds to the first hit: p50, p95.
    pub first_hit_ms: [f64; 2],
    /// Milliseconds to the end: p50, p95.
    pub end_ms: [f64; 2],
    /// Contents shown that nobody online holds, of all that were shown.
    pub stale: f64,
}

/// Searches of a burst.
#[derive(Clone, Debug, Serialize)]
pub struct BurstRow {
    /// Milliseconds after the fault.
    pub after_ms: u32,
    /// How many.
    pub searches: usize,
    /// As in [`Row`].
    pub recall: f64,
    /// As in [`Row`].
    pub copies: f64,
    /// As in [`Row`].
    pub complete: f64,
    /// Said to be complete and not so.
    pub falsely_complete: usize,
}

/// Searches for what is new, or gone.
#[derive(Clone, Debug, Serialize)]
pub struct AgeRow {
    /// Seconds.
    pub age_s: u8,
    /// How many.
    pub searches: usize,
    /// The part that found it.
    pub found: f64,
}

/// Messages of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct KindRow {
    /// The protocol and the name.
    pub kind: String,
    /// Messages an hour.
    pub messages_h: f64,
    /// Megabytes of frames an hour.
    pub mb_h: f64,
}

impl Report {
    /// Of a world that has run.
    pub fn new(world: &World, simulated_s: f64) -> Self {
        let scenario = world.scenario();
        let measured_s = simulated_s - scenario.settle_s;
        let hours = measured_s / 3_600.0;
        let measures = world.measures();
        let plain: Vec<&Done> =
            measures.done.iter().filter(|done| done.burst.is_none() && done.class.is_ordinary()).collect();
        let all = &measures.done;
        let loads = world.loads();
        let ups = loads.len().max(1) as f64;
        // Each link is kept alive by a ping and its acknowledgement, which is more than it costs while something is said.
        let keep_alive = (ups - 1.0) * 2.0 * BARE_PACKET as f64 / overlay::limits::KEEP_ALIVE.as_secs_f64();
        let lines: Vec<f64> =
            loads.iter().map(|load| total(&load.line) / measured_s + keep_alive).map(kilobits).collect();
        let leaf_lines = world.leaf_lines();
        let homes = overlay::limits::HOMES.min(loads.len()) as f64;
        let pings = 3_600.0 / overlay::limits::KEEP_ALIVE.as_secs_f64() * homes * 2.0 * BARE_PACKET as f64 / 1e3;
        let leaf_kb = |active: bool| {
            let of = leaf_lines.iter().filter(|(_, searched)| *searched == active);
            mean(of.map(|(line, _)| total(line) / 1e3 / hours)) + pings
        };
        Self {
            name: scenario.name.clone(),
            seed: scenario.seed,
            leaves: world.attached(),
            ultrapeers: loads.len(),
            simulated_s,
            measured_s,
            events: world.events(),
            trace: format!("{:016x}", world.trace()),
            shape: world.library().shape(),
            searches: rows(&plain),
            falsely_complete: all.iter().filter(|done| done.falsely_complete).count(),
            short_sources: all.iter().filter(|done| done.short_sources).count(),
            missed_homeless: all.iter().filter(|done| done.missed_homeless).count(),
            strange: measures.strange,
            refused: (measures.refused, measures.abandoned),
            bursts: bursts(all),
            fresh: ages(all, |class| if let Class::Fresh(age) = class { Some(age) } else { None }),
            gone: ages(all, |class| if let Class::Gone(true, age) = class { Some(age) } else { None }),
            vanished: ages(all, |class| if let Class::Gone(false, age) = class { Some(age) } else { None }),
            detected_s: percentiles(&measures.detected_s, [50, 95, 100]),
            restored_s: percentiles(&measures.restored_s, [50, 95, 99]),
            unrestored: measures.unrestored,
            idle_leaf_kb_h: leaf_kb(false),
            active_leaf_kb_h: leaf_kb(true),
            ultrapeer_kbit_s: [mean(lines.iter().copied()), lines.iter().copied().fold(0.0, f64::max)],
            mesh_keep_alive_kbit_s: kilobits(keep_alive),
            gini: [
                gini(loads.iter().map(|load| f64::from(load.leaves)).collect()),
                gini(loads.iter().map(|load| total(&load.line)).collect()),
            ],
            index_mb: mean(loads.iter().map(|load| load.index_bytes as f64 / 1e6)),
            elections: ElectionReport::new(scenario, &measures.elections, all, simulated_s),
            kinds: world
                .traffic()
                .kinds()
                .into_iter()
                .map(|(protocol, name, count)| KindRow {
                    kind: format!("{protocol} {name}"),
                    messages_h: count.messages as f64 / hours,
                    mb_h: count.bytes as f64 / 1e6 / hours,
                })
                .collect(),
            lies: world.lies().to_vec(),
            defects: world.defects().to_vec(),
        }
    }

    /// As aligned text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string does not fail");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let shape = &self.shape;
        writeln!(
            out,
            "{}: {} leaves with {} homes, {} ultrapeers, {:.0} s measured of {:.0}, seed {}",
            self.name, self.leaves.0, self.leaves.1, self.ultrapeers, self.measured_s, self.simulated_s, self.seed
        )?;
        writeln!(
            out,
            "{} contents, {} copies, replication mean {:.1} median {}, singletons {:.0} %, up to ten {:.0} %, {:.0} files a leaf",
            shape.contents,
            shape.copies,
            shape.mean_replication,
            shape.median_replication,
            shape.singletons * 100.0,
            shape.up_to_ten * 100.0,
            shape.files_per_leaf
        )?;
        writeln!(out, "{} events, trace {}\n", self.events, self.trace)?;
        writeln!(
            out,
            "{:<12}{:>9}{:>9}{:>9}{:>10}{:>9}{:>7}{:>7}{:>15}{:>15}{:>8}",
            "searches",
            "number",
            "recall",
            "copies",
            "complete",
            "messages",
            "p50",
            "p99",
            "first hit, ms",
            "end, ms",
            "stale"
        )?;
        for row in &self.searches {
            writeln!(
                out,
                "{:<12}{:>9}{:>8.2}%{:>8.2}%{:>9.1}%{:>9.1}{:>7.0}{:>7.0}{:>8.0}{:>7.0}{:>8.0}{:>7.0}{:>7.2}%",
                row.class,
                row.searches,
                row.recall * 100.0,
                row.copies * 100.0,
                row.complete * 100.0,
                row.messages[0],
                row.messages[1],
                row.messages[2],
                row.first_hit_ms[0],
                row.first_hit_ms[1],
                row.end_ms[0],
                row.end_ms[1],
                row.stale * 100.0
            )?;
        }
        writeln!(
            out,
            "\nfalsely complete {}, with too few sources {}, complete without leaves outside of the view {}; refused {}, abandoned {}",
            self.falsely_complete, self.short_sources, self.missed_homeless, self.refused.0, self.refused.1
        )?;
        if !self.bursts.is_empty() {
            writeln!(
                out,
                "\n{:<16}{:>9}{:>9}{:>9}{:>10}{:>8}",
                "after a fault", "searches", "recall", "copies", "complete", "falsely"
            )?;
            for row in &self.bursts {
                writeln!(
                    out,
                    "{:<16}{:>9}{:>8.2}%{:>8.2}%{:>9.1}%{:>8}",
                    format!("{:.2} s", f64::from(row.after_ms) / 1e3),
                    row.searches,
                    row.recall * 100.0,
                    row.copies * 100.0,
                    row.complete * 100.0,
                    row.falsely_complete
                )?;
            }
        }
        for (name, rows) in [
            ("fresh, found", &self.fresh),
            ("gone, still found", &self.gone),
            ("vanished, still found", &self.vanished),
        ] {
            if !rows.is_empty() {
                let cells: Vec<_> =
                    rows.iter().map(|row| format!("{} s {:.1} %", row.age_s, row.found * 100.0)).collect();
                writeln!(out, "{name}: {} ({} each)", cells.join(", "), rows[0].searches)?;
            }
        }
        if let Some([p50, p95, most]) = self.detected_s {
            writeln!(out, "\ndeaths known after: p50 {p50:.2} s, p95 {p95:.2} s, last {most:.2} s")?;
        }
        if let Some([p50, p95, p99]) = self.restored_s {
            writeln!(
                out,
                "homes restored after: p50 {p50:.2} s, p95 {p95:.2} s, p99 {p99:.2} s; never {}",
                self.unrestored
            )?;
        }
        writeln!(
            out,
            "\nleaf: {:.1} kB/h idle, {:.1} kB/h active; ultrapeer: {:.1} kbit/s mean, {:.1} most, of it keep-alives {:.1}; index {:.1} MB",
            self.idle_leaf_kb_h,
            self.active_leaf_kb_h,
            self.ultrapeer_kbit_s[0],
            self.ultrapeer_kbit_s[1],
            self.mesh_keep_alive_kbit_s,
            self.index_mb
        )?;
        writeln!(out, "Gini: leaves {:.3}, bytes {:.3}\n", self.gini[0], self.gini[1])?;
        if let Some(elections) = &self.elections {
            elections.write(out)?;
            writeln!(out)?;
        }
        writeln!(out, "{:<28}{:>14}{:>12}", "frames, whole network", "messages/h", "MB/h")?;
        for row in &self.kinds {
            writeln!(out, "{:<28}{:>14.0}{:>12.3}", row.kind, row.messages_h, row.mb_h)?;
        }
        for lie in &self.lies {
            writeln!(out, "LIE {lie}")?;
        }
        for defect in &self.defects {
            writeln!(out, "DEFECT {defect}")?;
        }
        Ok(())
    }

    /// The messages of searches of which one leaf held all that matched.
    pub fn one_holder(&self) -> Option<&Row> {
        self.searches.iter().find(|row| row.class == "one holder")
    }
}

impl Class {
    /// True for what people search for in the scenario, as opposed to what is searched to measure something.
    pub fn is_ordinary(self) -> bool {
        matches!(self, Self::Popular | Self::Tail | Self::None)
    }
}

fn rows(done: &[&Done]) -> Vec<Row> {
    let class = |class: Class| done.iter().copied().filter(|done| done.class == class).collect::<Vec<_>>();
    let one = done.iter().copied().filter(|done| done.holders == 1).collect();
    let named = [
        ("all", done.to_vec()),
        ("popular", class(Class::Popular)),
        ("tail", class(Class::Tail)),
        ("no answer", class(Class::None)),
        ("one holder", one),
    ];
    named.into_iter().filter(|(_, done)| !done.is_empty()).map(|(name, done)| row(name, &done)).collect()
}

fn row(name: &str, done: &[&Done]) -> Row {
    let messages: Vec<f64> = done.iter().map(|done| f64::from(done.messages)).collect();
    let [p50, p99] = percentiles(&messages, [50, 99]).unwrap_or_default();
    let first: Vec<f64> = done.iter().filter_map(|done| done.first_hit).map(|span| span.as_secs_f64() * 1e3).collect();
    let ends: Vec<f64> = done.iter().map(|done| done.elapsed.as_secs_f64() * 1e3).collect();
    let shown: u32 = done.iter().map(|done| done.found + done.stale).sum();
    Row {
        class: name.to_owned(),
        searches: done.len(),
        recall: recall(done),
        copies: copies(done),
        complete: mean(done.iter().map(|done| f64::from(u8::from(done.complete)))),
        messages: [mean(messages.iter().copied()), p50, p99],
        first_hit_ms: percentiles(&first, [50, 95]).unwrap_or_default(),
        end_ms: percentiles(&ends, [50, 95]).unwrap_or_default(),
        stale: f64::from(done.iter().map(|done| done.stale).sum::<u32>()) / f64::from(shown.max(1)),
    }
}

/// The part of what they could find that searches found, each counted alike; 1 if there was nothing to find.
fn recall(done: &[&Done]) -> f64 {
    let any = done.iter().filter(|done| done.possible > 0);
    if any.clone().next().is_none() {
        1.0
    } else {
        mean(any.map(|done| f64::from(done.found) / f64::from(done.possible)))
    }
}

fn copies(done: &[&Done]) -> f64 {
    let any = done.iter().filter(|done| done.expected_copies > 0);
    if any.clone().next().is_none() {
        return 1.0;
    }
    mean(any.map(|done| done.found_copies as f64 / done.expected_copies as f64))
}

fn bursts(done: &[Done]) -> Vec<BurstRow> {
    let mut times: Vec<u32> = done.iter().filter_map(|done| done.burst).map(|(_, after)| after).collect();
    times.sort_unstable();
    times.dedup();
    let of = |after: u32| done.iter().filter(|done| done.burst.is_some_and(|(_, at)| at == after)).collect::<Vec<_>>();
    let row = |after_ms| {
        let done = of(after_ms);
        BurstRow {
            after_ms,
            searches: done.len(),
            recall: recall(&done),
            copies: copies(&done),
            complete: mean(done.iter().map(|done| f64::from(u8::from(done.complete)))),
            falsely_complete: done.iter().filter(|done| done.falsely_complete).count(),
        }
    };
    times.into_iter().map(row).collect()
}

fn ages(done: &[Done], age_of: impl Fn(Class) -> Option<u8>) -> Vec<AgeRow> {
    let mut by_age: std::collections::BTreeMap<u8, (usize, usize)> = std::collections::BTreeMap::new();
    for done in done {
        if let Some(age) = age_of(done.class) {
            let (searches, found) = by_age.entry(age).or_default();
            *searches += 1;
            *found += usize::from(done.first_hit.is_some());
        }
    }
    let row = |(age_s, (searches, found)): (u8, (usize, usize))| AgeRow {
        age_s,
        searches,
        found: found as f64 / searches as f64,
    };
    by_age.into_iter().map(row).collect()
}

fn total(line: &Line) -> f64 {
    (line.received + line.sent) as f64
}

fn kilobits(bytes: f64) -> f64 {
    bytes * 8.0 / 1e3
}

/// The arithmetic mean; 0 of nothing.
pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// The values that so many of a hundred do not exceed; `None` of nothing.
pub fn percentiles<const N: usize>(values: &[f64], percents: [usize; N]) -> Option<[f64; N]> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some(percents.map(|percent| sorted[last * percent / 100]))
}

/// How unevenly something is spread: 0 evenly, near 1 all in one place.
pub fn gini(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let (count, sum) = (values.len() as f64, values.iter().sum::<f64>());
    if sum == 0.0 {
        return 0.0;
    }
    let weighted: f64 = (1..).zip(&values).map(|(rank, value)| f64::from(rank) * value).sum();
    2.0 * weighted / (count * sum) - (count + 1.0) / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gini_of_even_and_uneven_loads() {
        assert!(gini(vec![5.0; 10]).abs() < 1e-9);
        assert!((gini(vec![0.0, 0.0, 0.0, 1.0]) - 0.75).abs() < 1e-9);
    }

    #[test]
    fn percentiles_of_a_hundred() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(percentiles(&values, [50, 99, 100]), Some([50.0, 99.0, 100.0]));
        assert_eq!(percentiles(&[], [50]), None);
    }
}
