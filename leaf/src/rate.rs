//! How many bytes a second something moves, for decisions and for the user's eyes.

use std::time::Duration;

use overlay::time::Time;

/// Time over which a rate is sampled. Chosen: long against round trips, short against a user's patience.
const SAMPLE: Duration = Duration::from_millis(500);
/// Share of the newest sample in a rate. Chosen: three samples make up two thirds.
const SAMPLE_WEIGHT: f64 = 0.3;
/// Silence after which nothing is said to move.
const QUIET: Duration = Duration::from_secs(3);

/// A rate as an exponentially weighted mean of samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    mean: Option<f64>,
    bytes: u64,
    since: Time,
    last: Time,
}

impl Rate {
    /// Begins a sample; called when something moves again after a rest, so that the rest does not count.
    pub fn start(&mut self, now: Time) {
        self.bytes = 0;
        self.since = now;
    }

    /// `bytes` moved.
    pub fn add(&mut self, now: Time, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.last = now;
        let span = now.since(self.since);
        if span >= SAMPLE {
            let sample = self.bytes as f64 / span.as_secs_f64();
            self.mean = Some(self.mean.map_or(sample, |mean| mean + SAMPLE_WEIGHT * (sample - mean)));
            self.start(now);
        }
    }

    /// Bytes a second, once there is a sample.
    pub fn bytes_per_second(self) -> Option<f64> {
        self.mean
    }

    /// Bytes a second as shown at `now`: 0 when nothing moves any more.
    pub fn shown(self, now: Time) -> u64 {
        if now.since(self.last) > QUIET { 0 } else { self.mean.unwrap_or(0.0) as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_moved_over_time() {
        let mut rate = Rate::default();
        for step in 1..=100 {
            rate.add(Time(step * 100_000), 50_000);
        }
        let mean = rate.bytes_per_second().unwrap();
        assert!((mean - 500_000.0).abs() < 1.0, "{mean}");
        assert_eq!(rate.shown(Time(10_000_000)) / 1000, 500);
        assert_eq!(rate.shown(Time(20_000_000)), 0);
    }
}
