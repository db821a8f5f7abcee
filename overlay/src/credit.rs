//! Token buckets: how often something may happen.

use std::time::Duration;

use crate::time::Time;

/// Credit that grows with time up to a burst, and is spent one by one.
///
/// Invariant: between any two times, at most `burst + rate x seconds` are spent.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Time,
}

impl TokenBucket {
    /// A full bucket. `per_second` and `burst` are in tokens; a burst below one is taken as one.
    pub fn new(now: Time, per_second: f64, burst: f64) -> Self {
        let burst = burst.max(1.0);
        Self { per_second: per_second.max(0.0), burst, tokens: burst, at: now }
    }

    /// Spends one token. False, and nothing changed, if there is none.
    pub fn take(&mut self, now: Time) -> bool {
        self.refill(now);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }

    /// Time until one token is there: zero if it is there now, `None` if it will never be.
    pub fn wait(&mut self, now: Time) -> Option<Duration> {
        self.refill(now);
        if self.tokens >= 1.0 {
            Some(Duration::ZERO)
        } else if self.per_second > 0.0 {
            // Rounded up, so that whoever waits that long finds the token there.
            Some(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second) + Duration::from_micros(1))
        } else {
            None
        }
    }

    /// True if nothing is missing that was spent.
    pub fn is_full(&mut self, now: Time) -> bool {
        self.refill(now);
        self.tokens >= self.burst
    }

    fn refill(&mut self, now: Time) {
        let earned = now.since(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + earned).min(self.burst);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waiting_as_long_as_told_is_enough() {
        let mut bucket = TokenBucket::new(Time::ZERO, 0.5, 1.0);
        assert!(bucket.take(Time::ZERO));
        let wait = bucket.wait(Time::ZERO).expect("it refills");
        assert!(bucket.take(Time::ZERO + wait));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(steps in proptest::collection::vec(0_u64..400_000, 1..200)) {
            let mut bucket = TokenBucket::new(Time::ZERO, 5.0, 10.0);
            let (mut now, mut spent) = (Time::ZERO, 0_u32);
            for step in steps {
                now += Duration::from_micros(step);
                spent += u32::from(bucket.take(now));
                let allowed = 10.0 + 5.0 * now.since(Time::ZERO).as_secs_f64();
                prop_assert!(f64::from(spent) <= allowed + 1e-6);
            }
        }
    }
}
