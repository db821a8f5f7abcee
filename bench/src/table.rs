//! Percentiles, and how results are printed: one aligned line each, to stdout.

use std::{fmt::Write, time::Duration};

/// Times of one kind, sorted.
#[derive(Clone, Debug)]
pub struct Times(Vec<Duration>);

impl Times {
    /// From measured times in any order, at least one.
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that this many of a hundred do not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * percent / 100).copied().unwrap_or_default()
    }

    /// p50, p90 and p99 in milliseconds, and the p50 as a multiple of that of `unit`.
    pub fn line(&self, unit: &Self) -> String {
        let mut line = String::new();
        for percent in [50, 90, 99] {
            // Writing to a string cannot fail.
            let _ = write!(line, "{:>9.3}", milliseconds(self.percentile(percent)));
        }
        let ratio = milliseconds(self.percentile(50)) / milliseconds(unit.percentile(50));
        let _ = write!(line, "{ratio:>9.1}");
        line
    }
}

/// A time in milliseconds.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The middle of an odd number of values, the upper middle of an even number; 0 without any.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_hundred() {
        let times = Times::new((0..=100).rev().map(Duration::from_millis).collect());
        assert_eq!([50, 90, 99].map(|percent| times.percentile(percent).as_millis()), [50, 90, 99]);
        assert_eq!(times.line(&times), "   50.000   90.000   99.000      1.0");
    }

    #[test]
    fn the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut []), 0.0);
    }
}
