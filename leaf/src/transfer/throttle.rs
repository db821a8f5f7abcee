//! Holds a direction of traffic to a rate that can change at any time.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use overlay::{drive::Clock, time::Time};

/// Bytes that are released at once under a limit: small, so that a low rate flows instead of coming in
/// gulps that the other side takes for a stall.
const QUANTUM: usize = 16 << 10;
/// Bytes that are released at once without a limit.
const QUANTUM_UNLIMITED: usize = 256 << 10;

/// A shared limit in bytes a second. Everybody who moves bytes asks first and waits for their turn.
#[derive(Debug)]
pub struct Throttle {
    clock: Clock,
    /// Bytes a second; 0 is no limit.
    rate: AtomicU64,
    /// When everything that was released so far will have flowed.
    free_at: Mutex<Time>,
}

impl Throttle {
    /// A throttle at `rate` bytes a second, or none.
    pub fn new(clock: Clock, rate: Option<u64>) -> Self {
        Self { clock, rate: AtomicU64::new(rate.unwrap_or(0)), free_at: Mutex::new(Time::ZERO) }
    }

    /// Changes the rate.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    /// How many of `bytes` to move next, after the wait for them. At least 1 if `bytes` is.
    pub async fn release(&self, bytes: usize) -> usize {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return bytes.min(QUANTUM_UNLIMITED);
        }
        let bytes = bytes.min(QUANTUM);
        let now = self.clock.now();
        let span = std::time::Duration::from_secs_f64(bytes as f64 / rate as f64);
        let begins = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let begins = now.max(*free_at);
            *free_at = begins + span;
            begins
        };
        tokio::time::sleep(begins.since(now)).await;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_flow_at_the_rate() {
        let clock = Clock::new();
        let throttle = Throttle::new(clock, Some(100_000));
        let mut moved = 0;
        while clock.now().since(Time::ZERO) < Duration::from_secs(10) {
            moved += throttle.release(1 << 20).await;
        }
        assert!((1_000_000..1_050_000).contains(&moved), "{moved}");
        throttle.set_rate(None);
        assert_eq!(throttle.release(1 << 20).await, QUANTUM_UNLIMITED);
    }
}
