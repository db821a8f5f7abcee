//! Clocks of measurements.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time that the calling thread has spent on a core: what other programs do in between does not count.
pub fn thread_time() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Time that all threads of this process together have spent on cores.
pub fn process_time() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Time of one reading of [`thread_time`], the fastest of many.
pub fn overhead() -> Duration {
    let once = |_| {
        let start = thread_time();
        thread_time().saturating_sub(start)
    };
    (0..10_000).map(once).min().unwrap_or_default()
}
