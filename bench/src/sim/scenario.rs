//! What is simulated: a TOML file, with the published parameters as defaults.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use overlay::{election::Regime, limits};
use serde::Deserialize;

/// One run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// The same seed gives the same run.
    #[serde(default = "one")]
    pub seed: u64,
    /// Leaves that are online at the start.
    pub leaves: u32,
    /// Ultrapeers at the start.
    pub ultrapeers: u32,
    /// Millions of bytes that each ultrapeer has for its index and digests: with less of it parts of the leaf space get
    /// smaller. As much as the program takes unless it is told otherwise, if left out.
    #[serde(default = "Scenario::memory_mb")]
    pub memory_mb: f64,
    /// Seconds in which ultrapeers and leaves join, and then settle. Nothing is measured yet.
    #[serde(default = "Scenario::settle_s")]
    pub settle_s: f64,
    /// Seconds that are measured.
    pub measure_s: f64,
    /// What leaves share and look for.
    #[serde(default)]
    pub workload: Workload,
    /// The network below.
    #[serde(default)]
    pub paths: Paths,
    /// How leaves and ultrapeers come and go.
    #[serde(default)]
    pub churn: Churn,
    /// Leaves that become ultrapeers when the network wants some; nobody does if left out.
    #[serde(default)]
    pub election: Option<Election>,
    /// What goes wrong, at times counted from the begin of the measurement.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// Leaves that become ultrapeers, and those who abuse that.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Election {
    /// What the network asks of its ultrapeers.
    pub regime: Asks,
    /// The part of leaves that would be ultrapeers.
    pub volunteers: f64,
    /// The part of leaves that nobody can dial.
    pub unreachable: f64,
    /// Mbit/s that a leaf sends: median of a lognormal distribution.
    pub upstream_mbit: f64,
    /// Its sigma.
    pub upstream_sigma: f64,
    /// Leaves that an ultrapeer takes.
    pub capacity: u32,
    /// The /24 networks that all leaves are in; 0: each has one of its own.
    pub prefixes: u32,
    /// The part of leaves that name another's address as theirs, and as that of others.
    pub liars: f64,
    /// Keys of one owner that ask to be let in from the begin of the measurement on, as if operators wanted them.
    pub crowd: u32,
    /// The /24 networks that these are in, each in a /16 of its own.
    pub crowd_prefixes: u32,
}

/// What a network asks of its ultrapeers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asks {
    /// That they are reached.
    Named,
    /// That they are measured, too, and few in each part of the Internet.
    #[default]
    Public,
}

/// What leaves share and look for.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    /// The part of leaves that shares something.
    pub sharers: f64,
    /// Files of a sharer: median of a lognormal distribution.
    pub median_files: f64,
    /// Its sigma.
    pub files_sigma: f64,
    /// The most files of a leaf.
    pub max_files: u32,
    /// Searches of a leaf an hour.
    pub queries_per_hour: f64,
    /// The part of searches whose file is chosen by its popularity.
    pub popular: f64,
    /// The part whose file is any distinct content with the same probability.
    pub tail: f64,
    /// Distinct contents that a search asks for. What remains of the searches matches nothing.
    pub limit: u32,
    /// Whether searches ask every home that holds a match.
    pub all: bool,
    /// Files that the whole network adds in an hour, each followed by searches for it.
    pub fresh_per_hour: f64,
}

/// The network below.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// Median round trip, in milliseconds.
    pub median_rtt_ms: f64,
    /// Sigma of its lognormal distribution.
    pub rtt_sigma: f64,
    /// The part of packets that is lost.
    pub loss: f64,
}

/// How leaves and ultrapeers come and go.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Churn {
    /// Sessions of leaves.
    pub leaves: Sessions,
    /// The part of leaves that say good-bye when they go; the others vanish.
    pub orderly: f64,
    /// The part by which the time that leaves stay away swings over a day, up and down.
    pub diurnal: f64,
    /// Mean hours that an ultrapeer lives, exponentially distributed; 0: for ever.
    pub ultrapeer_hours: f64,
    /// Seconds after which a new ultrapeer takes the place of one that died by churn.
    pub replaced_after_s: f64,
}

/// Distributions of session lengths. Leaves stay away as long, on average, as they stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sessions {
    /// Nobody goes.
    #[default]
    Endless,
    /// Weibull of shape 0.38 and scale 42.4 min: half are over after a quarter of an hour.
    Harsh,
    /// Weibull of shape 0.59 and scale 41.9 min.
    Gnutella,
    /// Half within 2 h, four of five within 8 h.
    Ipfs,
}

/// Something goes wrong.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Seconds after the begin of the measurement.
    pub at_s: f64,
    /// What.
    pub kind: FaultKind,
    /// The part of ultrapeers (kill, targeted, drain, lying), of all nodes (partition), or of leaves online that
    /// join besides (flash).
    #[serde(default)]
    pub share: f64,
    /// Seconds until it is over (partition: healed; flash: all have come).
    #[serde(default)]
    pub lasts_s: f64,
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Ultrapeers die at once, chosen at random.
    Kill,
    /// Those with the most leaves die at once.
    Targeted,
    /// Ultrapeers hand over their leaves and stop.
    Drain,
    /// The network falls into two parts.
    Partition,
    /// Leaves come in masses.
    Flash,
    /// Ultrapeers answer every search with nothing from the start on, say that this is all, and are honest in all else. Its
    /// time is that of the first searches that show what it does.
    Lying,
}

fn one() -> u64 {
    1
}

impl Asks {
    /// The name of such a network.
    pub const fn network(self) -> &'static str {
        match self {
            Self::Named => "simulation",
            Self::Public => "public",
        }
    }

    /// As the cores call it.
    pub fn regime(self) -> Regime {
        Regime::of(self.network(), false)
    }
}

impl Default for Election {
    fn default() -> Self {
        Self {
            regime: Asks::Public,
            volunteers: 1.0,
            unreachable: 0.0,
            upstream_mbit: 20.0,
            upstream_sigma: 0.5,
            capacity: limits::LEAVES_OF_VOLUNTEER,
            prefixes: 0,
            liars: 0.0,
            crowd: 0,
            crowd_prefixes: 32,
        }
    }
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            sharers: 0.75,
            median_files: 100.0,
            files_sigma: 1.25,
            max_files: 20_000,
            queries_per_hour: 10.0,
            popular: 0.7,
            tail: 0.2,
            limit: 60,
            all: false,
            fresh_per_hour: 0.0,
        }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self { median_rtt_ms: 156.0, rtt_sigma: 0.55, loss: 0.005 }
    }
}

impl Default for Churn {
    fn default() -> Self {
        Self { leaves: Sessions::Endless, orderly: 0.5, diurnal: 0.3, ultrapeer_hours: 0.0, replaced_after_s: 30.0 }
    }
}

impl Scenario {
    fn memory_mb() -> f64 {
        limits::INDEX_MEMORY as f64 / 1e6
    }

    fn settle_s() -> f64 {
        120.0
    }

    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// It is no TOML, names what does not exist, or asks for something impossible.
    pub fn parse(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text).context("not a scenario")?;
        let part = |number: f64| (0.0..=1.0).contains(&number);
        let Workload { sharers, popular, tail, .. } = scenario.workload;
        let elects = scenario.election.is_some();
        ensure!((scenario.ultrapeers > 0 || elects) && scenario.leaves > 0, "a network has leaves and ultrapeers");
        if let Some(Election { volunteers, unreachable, liars, capacity, crowd_prefixes, .. }) = scenario.election {
            ensure!(part(volunteers) && part(unreachable) && part(liars), "parts lie between 0 and 1");
            ensure!(capacity > 0, "an ultrapeer takes leaves");
            ensure!((1..=200).contains(&crowd_prefixes), "a crowd has up to 200 networks");
        }
        ensure!(part(sharers) && part(popular) && part(tail) && part(popular + tail), "parts lie between 0 and 1");
        ensure!(scenario.memory_mb >= 1.0, "an ultrapeer needs a megabyte");
        ensure!((0.0..0.5).contains(&scenario.paths.loss), "too much is lost");
        ensure!(scenario.measure_s > 0.0 && scenario.settle_s > 0.0, "times are positive");
        for fault in &scenario.faults {
            ensure!(fault.at_s >= 0.0 && fault.lasts_s >= 0.0, "faults are in the past");
            ensure!(fault.kind == FaultKind::Flash || part(fault.share), "a share lies between 0 and 1");
        }
        Ok(scenario)
    }

    /// All leaves, those included that are away or come later. As many are away as are there, while leaves come and go.
    pub fn population(&self) -> u32 {
        let flash: f64 =
            self.faults.iter().filter(|fault| fault.kind == FaultKind::Flash).map(|fault| fault.share).sum();
        let away = if self.churn.leaves == Sessions::Endless { 0.0 } else { 1.0 };
        (f64::from(self.leaves) * (1.0 + away + flash)).ceil() as u32
    }

    /// Bytes that each ultrapeer has for its index and digests.
    pub fn memory(&self) -> u64 {
        (self.memory_mb * 1e6).round() as u64
    }

    /// What the network asks of its ultrapeers.
    pub fn asks(&self) -> Asks {
        self.election.map_or(Asks::Named, |election| election.regime)
    }

    /// Seconds from the start to the end.
    pub fn end(&self) -> f64 {
        self.settle_s + self.measure_s
    }

    /// True if some ultrapeers say what is not so.
    pub fn has_liars(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind == FaultKind::Lying)
    }

    /// When the measurement begins, after the start.
    pub fn settled(&self) -> Duration {
        Duration::from_secs_f64(self.settle_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_that_come_with_the_program_are_readable() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut read = 0;
        for entry in folder.read_dir().expect("the scenarios' folder") {
            let path = entry.expect("a readable folder").path();
            let text = std::fs::read_to_string(&path).expect("a readable file");
            Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
            read += 1;
        }
        assert!(read > 3, "{read} scenarios");
    }

    #[test]
    fn misspelt_and_impossible_ones_are_refused() {
        let good = "name = 'x'\nleaves = 1\nultrapeers = 1\nmeasure_s = 1\n";
        assert!(Scenario::parse(good).is_ok());
        assert!(Scenario::parse(&format!("{good}leafs = 1\n")).is_err());
        assert!(Scenario::parse(&format!("{good}[workload]\npopular = 0.9\ntail = 0.2\n")).is_err());
    }
}
