//! Counts that many threads raise at once, without waiting for each other.
//!
//! A count that all threads write to travels between their caches with each write. So every thread has numbers of its own, and
//! whoever asks adds them up. Two threads that were given the same place only share its speed: nothing is ever lost.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use metrics::Counter;

/// Places for threads. Chosen: as many as workers are common; further ones share.
const PLACES: usize = 8;
/// Counts that lie together.
const LINE: usize = 16;

/// As much as processors move between their caches at once, with the neighbour that some fetch along.
#[derive(Default)]
#[repr(align(128))]
struct Line([AtomicU64; LINE]);

thread_local! {
    static PLACE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % PLACES
    };
}

/// A fixed number of counts, which only rise and wrap around at the end of 64 bits.
pub(super) struct Tally {
    /// The lines of the first place, then those of the next ones.
    lines: Box<[Line]>,
    lines_of_place: usize,
}

impl Tally {
    /// `counts` counts at 0.
    pub(super) fn new(counts: usize) -> Self {
        let lines_of_place = counts.div_ceil(LINE);
        let lines = (0..lines_of_place * PLACES).map(|_| Line::default()).collect();
        Self { lines, lines_of_place }
    }

    /// Raises the count with that number, which is below how many there are.
    pub(super) fn add(&self, number: usize, more: u64) {
        // A thread that ends may count while its own values are gone.
        let place = PLACE.try_with(|place| *place).unwrap_or(0);
        let line = &self.lines[place * self.lines_of_place + number / LINE];
        line.0[number % LINE].fetch_add(more, Ordering::Relaxed);
    }

    /// Tells each counter of the registry, in the order of the numbers, what its count stands at.
    pub(super) fn tell(&self, counters: &[Counter]) {
        for (number, counter) in counters.iter().enumerate() {
            counter.absolute(self.total(number));
        }
    }

    /// What the count with that number stands at: everything that happened before, and perhaps some of what happens just now.
    fn total(&self, number: usize) -> u64 {
        let lines = self.lines.iter().skip(number / LINE).step_by(self.lines_of_place.max(1));
        lines.fold(0, |total, line| total.wrapping_add(line.0[number % LINE].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_lost_and_no_count_is_anothers() {
        let tally = Tally::new(LINE + 3);
        thread::scope(|scope| {
            for thread in 0..PLACES as u64 + 3 {
                let tally = &tally;
                scope.spawn(move || {
                    for round in 0..1_000 {
                        (0..LINE + 3).for_each(|number| tally.add(number, number as u64 * (thread + round % 2)));
                    }
                });
            }
        });
        let of_one: u64 = (0..PLACES as u64 + 3).map(|thread| 1_000 * thread + 500).sum();
        for number in 0..LINE + 3 {
            assert_eq!(tally.total(number), number as u64 * of_one, "{number}");
        }
    }

    #[test]
    fn threads_count_in_different_lines() {
        let places = thread::scope(|scope| {
            let spawned: Vec<_> = (0..PLACES).map(|_| scope.spawn(|| PLACE.with(|place| *place))).collect();
            spawned.into_iter().map(|thread| thread.join().unwrap()).collect::<std::collections::BTreeSet<_>>()
        });
        // Other tests of this process may have taken numbers in between.
        assert!(places.len() > 1, "{places:?}");
        assert_eq!(size_of::<Line>(), align_of::<Line>());
    }
}
