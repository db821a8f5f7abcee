//! How fast the network may grow: what one admits in a minute and in an hour, so that thousands of new keys cannot take
//! it over before anybody notices.

use std::collections::VecDeque;

use crate::{id::PeerId, limits, time::Time};

/// What kind of growth it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nodes that want to serve: a tenth of all an hour.
    Newcomers,
    /// Ultrapeers of another network that met this one: a tenth of all a minute.
    Meeting,
}

/// Who joined of late, and when.
#[derive(Debug, Default)]
pub struct Growth {
    joined: VecDeque<(Time, PeerId)>,
}

impl Growth {
    /// An ultrapeer joined, or is about to. Whoever did in the last hour is not counted again. To be called in the
    /// order of time.
    pub fn note(&mut self, now: Time, peer: PeerId) {
        self.forget(now);
        if self.joined.iter().any(|(_, known)| *known == peer) {
            return;
        }
        if self.joined.len() == limits::GROWTH_NOTED {
            self.joined.pop_front();
        }
        self.joined.push_back((now, peer));
    }

    /// True if one more may join a network of `total` now: up to [`limits::GROWTH_A_MINUTE`] a minute always, beyond
    /// that a tenth of all.
    pub fn allows(&self, now: Time, total: u32, pace: Pace) -> bool {
        let within = |span| self.joined.iter().rev().take_while(|(joined, _)| now.since(*joined) < span).count();
        let minute = within(limits::GROWTH_MINUTE);
        let share = total as usize / limits::GROWTH_SHARE;
        minute < limits::GROWTH_A_MINUTE
            || match pace {
                Pace::Newcomers => within(limits::GROWTH_HOUR) < share,
                Pace::Meeting => minute < share,
            }
    }

    fn forget(&mut self, now: Time) {
        while self.joined.front().is_some_and(|(joined, _)| now.since(*joined) >= limits::GROWTH_HOUR) {
            self.joined.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn two_a_minute_are_always_allowed_and_a_tenth_an_hour() {
        let at = |s: u64| Time::ZERO + Duration::from_secs(s);
        let node = |number: u64| PeerId([number as u8; 32]);
        let mut growth = Growth::default();
        for second in [0, 1] {
            assert!(growth.allows(at(second), 5, Pace::Newcomers));
            growth.note(at(second), node(second));
            growth.note(at(second), node(second));
        }
        assert!(!growth.allows(at(2), 5, Pace::Newcomers) && !growth.allows(at(2), 5, Pace::Meeting));
        assert!(growth.allows(at(60), 5, Pace::Newcomers), "the first is a minute ago");
        assert!(growth.allows(at(2), 30, Pace::Newcomers) && growth.allows(at(2), 30, Pace::Meeting));
        growth.note(at(2), node(2));
        assert!(!growth.allows(at(3), 30, Pace::Newcomers), "three of thirty");
        let mut growth = Growth::default();
        (0..50).for_each(|second| growth.note(at(second), node(second)));
        assert!(!growth.allows(at(50), 500, Pace::Newcomers));
        assert!(growth.allows(at(3_700), 500, Pace::Newcomers), "an hour ago");
    }
}
