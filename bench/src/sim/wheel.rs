//! The order of events: a timing wheel of buckets.
//!
//! What is due within the next four seconds lies in one of 4,096 buckets of a millisecond, the rest in coarse
//! buckets of four seconds each. Only the bucket that is being worked through is sorted, so an event costs
//! about as much as two pushes onto a vector, however many wait. Events of one microsecond come in the order in
//! which they were planned: the same run plans them in the same order.

use std::{cmp::Reverse, collections::BTreeMap, collections::BinaryHeap};

use overlay::time::Time;

/// Microseconds of a fine bucket, as a power of two.
const FINE: u32 = 10;
/// Fine buckets, as a power of two.
const SLOTS: u32 = 12;
/// Microseconds of a coarse bucket, as a power of two.
const COARSE: u32 = FINE + SLOTS;

/// Events by their time. See the module text.
#[derive(Debug)]
pub struct Wheel<T> {
    /// The bucket that is being worked through.
    current: BinaryHeap<Reverse<Entry<T>>>,
    /// The number of that bucket: a time shifted by `FINE`.
    at: u64,
    buckets: Vec<Vec<Entry<T>>>,
    /// One bit for each bucket that is not empty.
    occupied: [u64; (1 << SLOTS) / 64],
    far: BTreeMap<u64, Vec<Entry<T>>>,
    planned: u64,
    waiting: usize,
}

#[derive(Debug)]
struct Entry<T> {
    time: u64,
    order: u64,
    event: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.order).cmp(&(other.time, other.order))
    }
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Wheel<T> {
    /// No event.
    pub fn new() -> Self {
        Self {
            current: BinaryHeap::new(),
            at: 0,
            buckets: (0..1 << SLOTS).map(|_| Vec::new()).collect(),
            occupied: [0; (1 << SLOTS) / 64],
            far: BTreeMap::new(),
            planned: 0,
            waiting: 0,
        }
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Plans an event. One for a time that has passed comes next.
    pub fn plan(&mut self, at: Time, event: T) {
        self.planned += 1;
        self.waiting += 1;
        let entry = Entry { time: at.as_micros(), order: self.planned, event };
        self.place(entry);
    }

    fn place(&mut self, entry: Entry<T>) {
        let bucket = entry.time >> FINE;
        if bucket <= self.at {
            self.current.push(Reverse(entry));
        } else if bucket >> SLOTS == self.at >> SLOTS {
            let slot = (bucket & ((1 << SLOTS) - 1)) as usize;
            self.occupied[slot / 64] |= 1 << (slot % 64);
            self.buckets[slot].push(entry);
        } else {
            self.far.entry(entry.time >> COARSE).or_default().push(entry);
        }
    }

    /// Takes the next event that is due by `until`, with its time.
    pub fn next(&mut self, until: Time) -> Option<(Time, T)> {
        while self.current.is_empty() {
            if !self.advance() {
                return None;
            }
        }
        let due = self.current.peek().is_some_and(|Reverse(entry)| entry.time <= until.as_micros());
        if !due {
            return None;
        }
        self.waiting -= 1;
        self.current.pop().map(|Reverse(entry)| (Time(entry.time), entry.event))
    }

    /// Turns to the next bucket that is not empty; false if there is none.
    fn advance(&mut self) -> bool {
        let first = (self.at & ((1 << SLOTS) - 1)) as usize + 1;
        if let Some(slot) = self.occupied_from(first) {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            self.at = (self.at >> SLOTS << SLOTS) | slot as u64;
            self.current.extend(self.buckets[slot].drain(..).map(Reverse));
            return true;
        }
        let Some((coarse, entries)) = self.far.pop_first() else { return false };
        self.at = coarse << SLOTS;
        for entry in entries {
            self.place(entry);
        }
        true
    }

    fn occupied_from(&self, slot: usize) -> Option<usize> {
        if slot >= 1 << SLOTS {
            return None;
        }
        let rest = self.occupied[slot / 64] & (u64::MAX << (slot % 64));
        let later = self.occupied.iter().enumerate().skip(slot / 64 + 1).map(|(word, bits)| (word, *bits));
        let (word, bits) = std::iter::once((slot / 64, rest)).chain(later).find(|(_, bits)| *bits != 0)?;
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use rand_pcg::Pcg32;

    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_planning() {
        let mut rng = Pcg32::new(1, 1);
        let mut wheel = Wheel::new();
        let mut model: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let (mut now, mut number) = (0_u64, 0_u64);
        for _ in 0..20_000 {
            if rng.random_bool(0.55) {
                number += 1;
                // From at once to far beyond the fine buckets, and often at the same moment.
                let span = 1_u64 << rng.random_range(0..26);
                let at = now + rng.random_range(0..span) / 7 * 7;
                wheel.plan(Time(at), number);
                model.insert((at.max(now), number), number);
            } else {
                let expected = model.pop_first();
                let got = wheel.next(Time(u64::MAX));
                assert_eq!(
                    got.map(|(at, event)| (at.as_micros(), event)),
                    expected.map(|((at, _), event)| (at, event))
                );
                now = got.map_or(now, |(at, _)| at.as_micros());
            }
            assert_eq!(wheel.len(), model.len());
        }
    }

    #[test]
    fn nothing_comes_before_it_is_due() {
        let mut wheel = Wheel::new();
        wheel.plan(Time(10_000_000), 'b');
        assert_eq!(wheel.next(Time(9_999_999)), None);
        wheel.plan(Time(5), 'a');
        assert_eq!(wheel.next(Time(9_999_999)), Some((Time(5), 'a')));
        assert_eq!(wheel.next(Time(10_000_000)), Some((Time(10_000_000), 'b')));
        assert!(wheel.is_empty());
    }
}
