//! How a network gets the ultrapeers that it needs out of its leaves: what is measured of that, and how it is reported.

use std::{collections::BTreeMap, fmt::Write, net::SocketAddr, time::Duration};

use overlay::{election::floor, limits, time::Time, wire::election::Hurdle};
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{
    measure::Done,
    report::{gini, mean},
    scenario::{FaultKind, Scenario},
};

/// The address of somebody outside of the network, which liars name as theirs.
pub const VICTIM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(5, 5, 5, 5)), 7_780);
/// Packets of a dialler's flight, and their bytes: a hello with its key does not fit in one.
const FLIGHT_PACKETS: u64 = 2;
/// See [`FLIGHT_PACKETS`].
const PACKET_BYTES: u64 = 1_200;
/// Seconds after the first flight at which QUIC sends it again.
const FLIGHTS_S: [u64; 4] = [0, 1, 3, 7];
/// Rows of a report over the time of a run.
const ROWS: usize = 12;
/// Seconds of a day.
const DAY_S: f64 = 86_400.0;

/// All measurements of a run.
#[derive(Debug, Default)]
pub struct Elections {
    /// Candidates that began.
    pub candidates: u64,
    /// Ultrapeers whose leaf went.
    pub hosts_stopped: u64,
    /// When the first leaf came.
    begin: Option<Time>,
    first: Option<Duration>,
    attached: Option<Duration>,
    looks: Vec<Look>,
    /// When a leaf, in one session, became an ultrapeer, or a leaf again.
    changes: Vec<(Time, (u32, u32), bool)>,
    gave_up: BTreeMap<&'static str, u64>,
    /// Dials of the victim, by their reasons.
    dials: BTreeMap<&'static str, u64>,
    flights: u64,
    crowd: usize,
}

/// Who was there at a moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Time,
    leaves: usize,
    attached: usize,
    ultrapeers: usize,
    gini: f64,
}

impl Elections {
    /// Somebody dials an address for that reason and waits for so long: counted if it is the victim's.
    pub fn sent_to(&mut self, address: SocketAddr, patience: Duration, why: &'static str) {
        if address == VICTIM {
            *self.dials.entry(why).or_default() += 1;
            self.flights += FLIGHTS_S.iter().filter(|after| **after < patience.as_secs().max(1)).count() as u64;
        }
    }

    /// A leaf comes.
    pub fn leaf_came(&mut self, now: Time) {
        self.begin.get_or_insert(now);
    }

    /// An ultrapeer serves from now on.
    pub fn serves(&mut self, now: Time) {
        let passed = self.passed(now);
        self.first.get_or_insert(passed);
    }

    /// Time since the first leaf came.
    fn passed(&self, now: Time) -> Duration {
        self.begin.map_or(Duration::ZERO, |begin| now.since(begin))
    }

    /// A leaf became an ultrapeer, or one a leaf again, while its program runs on.
    pub fn role_changed(&mut self, now: Time, session: (u32, u32), serves: bool) {
        self.changes.push((now, session, serves));
    }

    /// A candidate gave up, because of that.
    pub fn gave_up(&mut self, why: Option<Hurdle>) {
        *self.gave_up.entry(why.map_or("nobody answered", Hurdle::text)).or_default() += 1;
    }

    /// A look at all: leaves online and those attached, ultrapeers, what each carries of what it takes, places of the
    /// crowd. `all` is the leaves online if all have come.
    pub fn look(
        &mut self,
        now: Time,
        (leaves, attached): (usize, usize),
        ultrapeers: usize,
        loads: Vec<f64>,
        crowd: usize,
        all: Option<usize>,
    ) {
        if all == Some(attached) {
            let passed = self.passed(now);
            self.attached.get_or_insert(passed);
        }
        self.crowd = self.crowd.max(crowd);
        self.looks.push(Look { at: now, leaves, attached, ultrapeers, gini: gini(loads) });
    }

    /// Takes over what was measured in another run.
    pub fn extend(&mut self, other: Self) {
        self.candidates += other.candidates;
        self.hosts_stopped += other.hosts_stopped;
        // The slowest of all.
        self.first = self.first.max(other.first);
        self.attached = self.attached.max(other.attached);
        self.flights += other.flights;
        self.crowd = self.crowd.max(other.crowd);
        for (why, times) in other.dials {
            *self.dials.entry(why).or_default() += times;
        }
        for (why, times) in other.gave_up {
            *self.gave_up.entry(why).or_default() += times;
        }
    }

    /// Changes of role of each session, the most in a day, and all.
    fn role_changes(&self) -> (usize, Vec<usize>) {
        let mut by_session: FxHashMap<(u32, u32), Vec<Time>> = FxHashMap::default();
        for (at, session, _) in &self.changes {
            by_session.entry(*session).or_default().push(*at);
        }
        let day = Duration::from_secs_f64(DAY_S);
        let in_a_day = |times: &Vec<Time>| {
            let within = |first: &Time| times.iter().filter(|at| *at >= first && at.since(*first) < day).count();
            times.iter().map(within).max().unwrap_or(0)
        };
        let most = by_session.values().map(in_a_day).max().unwrap_or(0);
        (most, by_session.values().map(Vec::len).collect())
    }
}

/// Ultrapeers that so many leaves ask for: as many as carry them without being busy, and not under the floor.
fn asked_for(leaves: usize, ultrapeers: usize, capacity: u32) -> usize {
    let attachments = leaves * limits::HOMES.min(ultrapeers.max(1));
    let carry = attachments as f64 / (limits::DEMAND_LOAD * f64::from(capacity));
    (carry.ceil() as usize).max(floor((leaves + ultrapeers) as u64) as usize)
}

/// How elections went.
#[derive(Clone, Debug, Serialize)]
pub struct ElectionReport {
    /// Seconds from the first leaf's coming until somebody served.
    pub first_s: Option<f64>,
    /// Seconds from the first leaf's coming until all were there and attached.
    pub attached_s: Option<f64>,
    /// Over time.
    pub rows: Vec<TimeRow>,
    /// The mean of ultrapeers, as a part of those that leaves asked for, since measuring began.
    pub of_asked_for: f64,
    /// The mean part of leaves that were attached, since measuring began.
    pub attached: f64,
    /// Candidates, those that were let in, and those that stepped down while their program ran on, an hour.
    pub an_hour: [f64; 3],
    /// Ultrapeers whose program ended, an hour.
    pub stopped_an_hour: f64,
    /// Why candidates gave up, and how many did.
    pub gave_up: BTreeMap<&'static str, u64>,
    /// Changes of role of one node within a day: the most, and the mean over all leaves.
    pub role_changes_a_day: (usize, f64),
    /// Gini coefficient of what ultrapeers carry of what they take: the mean since measuring began.
    pub load_gini: f64,
    /// Of faults that kill: the part of ultrapeers that died, and seconds until searches found all that was alive.
    pub recovered_s: Vec<(f64, Option<f64>)>,
    /// Dials, packets and bytes an hour that reached somebody outside whose address liars named.
    pub victim_an_hour: Option<[f64; 3]>,
    /// Why it was dialled, and how often.
    pub victim_dials: BTreeMap<&'static str, u64>,
    /// The most keys of one owner that an ultrapeer took for members.
    pub crowd_places: Option<usize>,
}

/// A moment of a run.
#[derive(Clone, Debug, Serialize)]
pub struct TimeRow {
    /// Seconds from the start.
    pub at_s: f64,
    /// Leaves online.
    pub leaves: usize,
    /// Those with a home that has their list.
    pub attached: usize,
    /// Ultrapeers that serve.
    pub ultrapeers: usize,
    /// Those that so many leaves ask for.
    pub asked_for: usize,
}

impl ElectionReport {
    /// Of a run; `None` of one without elections.
    pub fn new(scenario: &Scenario, elections: &Elections, done: &[Done], simulated_s: f64) -> Option<Self> {
        let election = scenario.election?;
        let hours = simulated_s / 3_600.0;
        let asked = |look: &Look| asked_for(look.leaves, look.ultrapeers, election.capacity);
        let row = |look: &Look| TimeRow {
            at_s: seconds(look.at),
            leaves: look.leaves,
            attached: look.attached,
            ultrapeers: look.ultrapeers,
            asked_for: asked(look),
        };
        let looks = &elections.looks;
        let step = looks.len().div_ceil(ROWS).max(1);
        let settled = || looks.iter().filter(|look| seconds(look.at) >= scenario.settle_s);
        let (most, changes) = elections.role_changes();
        let leaf_days = mean(looks.iter().map(|look| look.leaves as f64)) * simulated_s / DAY_S;
        let kinds = |serves: bool| elections.changes.iter().filter(|(.., change)| *change == serves).count() as f64;
        let packets = elections.flights * FLIGHT_PACKETS;
        let sent = [elections.dials.values().sum(), packets, packets * PACKET_BYTES];
        Some(Self {
            first_s: elections.first.map(|span| span.as_secs_f64()),
            attached_s: elections.attached.map(|span| span.as_secs_f64()),
            rows: looks.iter().step_by(step).chain(looks.last()).map(row).collect(),
            of_asked_for: mean(settled().map(|look| look.ultrapeers as f64 / asked(look) as f64)),
            attached: mean(settled().map(|look| look.attached as f64 / look.leaves.max(1) as f64)),
            an_hour: [elections.candidates as f64, kinds(true), kinds(false)].map(|count| count / hours),
            stopped_an_hour: elections.hosts_stopped as f64 / hours,
            gave_up: elections.gave_up.clone(),
            role_changes_a_day: (most, changes.iter().sum::<usize>() as f64 / leaf_days.max(f64::MIN_POSITIVE)),
            load_gini: mean(settled().map(|look| look.gini)),
            recovered_s: recoveries(scenario, done),
            victim_an_hour: (election.liars > 0.0).then(|| sent.map(|count| count as f64 / hours)),
            victim_dials: elections.dials.clone(),
            crowd_places: (election.crowd > 0).then_some(elections.crowd),
        })
    }

    /// As text.
    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        let seconds = |span: Option<f64>| span.map_or_else(|| "never".to_owned(), |span| format!("{span:.1} s"));
        writeln!(
            out,
            "\nelections: first ultrapeer after {}, all leaves attached after {}",
            seconds(self.first_s),
            seconds(self.attached_s)
        )?;
        writeln!(out, "{:>10}{:>9}{:>10}{:>12}{:>11}", "s", "leaves", "attached", "ultrapeers", "asked for")?;
        for TimeRow { at_s, leaves, attached, ultrapeers, asked_for } in &self.rows {
            writeln!(out, "{at_s:>10.0}{leaves:>9}{attached:>10}{ultrapeers:>12}{asked_for:>11}")?;
        }
        writeln!(
            out,
            "since measuring began: {:.2} of the ultrapeers asked for, {:.2} % of leaves attached, load Gini {:.3}",
            self.of_asked_for,
            self.attached * 100.0,
            self.load_gini
        )?;
        let [candidates, promoted, demoted] = self.an_hour;
        writeln!(
            out,
            "an hour: {candidates:.2} candidates, {promoted:.2} promotions, {demoted:.2} demotions, {:.2} ultrapeers whose program ended",
            self.stopped_an_hour
        )?;
        for (why, times) in &self.gave_up {
            writeln!(out, "gave up {times} times: {why}")?;
        }
        let (most, mean) = self.role_changes_a_day;
        writeln!(out, "role changes of a node that stays, a day: most {most}, mean {mean:.3}")?;
        for (share, recovered) in &self.recovered_s {
            writeln!(
                out,
                "{:.0} % of ultrapeers killed: all found again after {}",
                share * 100.0,
                seconds(*recovered)
            )?;
        }
        if let Some([dials, packets, bytes]) = self.victim_an_hour {
            writeln!(
                out,
                "the address that liars name, an hour: {dials:.1} dials, {packets:.1} packets, {bytes:.0} bytes"
            )?;
        }
        for (why, dials) in &self.victim_dials {
            writeln!(out, "dialled {dials} times as {why}")?;
        }
        if let Some(places) = self.crowd_places {
            writeln!(out, "places of one owner's keys: {places}")?;
        }
        Ok(())
    }
}

/// Seconds from the start.
fn seconds(at: Time) -> f64 {
    at.since(Time::ZERO).as_secs_f64()
}

/// For each fault that kills: from when on all bursts of searches after it found all.
fn recoveries(scenario: &Scenario, done: &[Done]) -> Vec<(f64, Option<f64>)> {
    let mut recoveries = Vec::new();
    for (number, fault) in (0..).zip(&scenario.faults) {
        if !matches!(fault.kind, FaultKind::Kill | FaultKind::Targeted) {
            continue;
        }
        let mut bursts: BTreeMap<u32, bool> = BTreeMap::new();
        for done in done {
            if let Some((of, after_ms)) = done.burst.filter(|(of, _)| *of == number) {
                debug_assert_eq!(of, number);
                *bursts.entry(after_ms).or_insert(true) &= done.found == done.possible;
            }
        }
        let good = bursts.iter().rev().take_while(|(_, all)| **all).last();
        recoveries.push((fault.share, good.map(|(after_ms, _)| f64::from(*after_ms) / 1e3)));
    }
    recoveries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn changes_of_role_are_counted_for_each_session_and_within_a_day() {
        let mut elections = Elections::default();
        for (hour, session) in [(0, (1, 1)), (1, (1, 1)), (30, (1, 1)), (31, (1, 2)), (2, (2, 1))] {
            elections.role_changed(at(hour * 3_600), session, true);
        }
        let (most, mut all) = elections.role_changes();
        all.sort_unstable();
        assert_eq!((most, all), (2, vec![1, 1, 3]));
    }

    #[test]
    fn a_victim_gets_more_the_longer_one_waits_for_it() {
        let mut elections = Elections::default();
        elections.sent_to(VICTIM, limits::CONTACT_TIMEOUT, "a contact");
        assert_eq!((elections.dials["a contact"], elections.flights), (1, 3));
        elections.sent_to(VICTIM, Duration::from_secs(10), "a home");
        assert_eq!((elections.dials["a home"], elections.flights), (1, 7));
        elections.sent_to("5.5.5.6:7780".parse().expect("an address"), limits::CONTACT_TIMEOUT, "a contact");
        assert_eq!(elections.dials.values().sum::<u64>(), 2);
    }

    #[test]
    fn leaves_ask_for_as_many_as_carry_them() {
        assert_eq!(asked_for(10, 1, 100), 2, "the floor of a small network");
        assert_eq!(asked_for(200, 5, 1_000), 5, "that of a large one");
        assert_eq!(asked_for(160, 5, 40), 15, "three homes each, four fifths full");
    }
}
