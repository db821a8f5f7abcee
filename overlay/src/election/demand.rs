//! Whether the network wants more ultrapeers, or could do with fewer.

use std::time::Duration;

use crate::{limits, time::Time};

/// What demand follows from: how busy the members are that cover what this one covers, itself included.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    /// Leaves of each, as a share of those that it takes.
    pub loads: Vec<f64>,
    /// Ultrapeers in the whole network.
    pub total: u32,
    /// Nodes in the whole network, leaves included, as far as known.
    pub nodes: u64,
    /// True if digests are over their budget, and only more ultrapeers would help.
    pub is_cramped: bool,
}

impl Shard {
    /// The load that half of them are over.
    pub fn median(&self) -> f64 {
        let mut loads = self.loads.clone();
        loads.sort_unstable_by(f64::total_cmp);
        loads.get(loads.len() / 2).copied().unwrap_or(0.0)
    }

    /// True if there are fewer than there should be in any case.
    pub fn is_below_floor(&self) -> bool {
        self.total < floor(self.nodes)
    }
}

/// Ultrapeers that a network of so many nodes wants in any case.
pub const fn floor(nodes: u64) -> u32 {
    if nodes < limits::FLOOR_SMALL_NODES { limits::FLOOR_SMALL } else { limits::FLOOR }
}

/// Whether more are wanted. A reason must last, so that a moment is no reason.
#[derive(Debug, Default)]
pub struct Demand {
    busy_since: Option<Time>,
    few_since: Option<Time>,
    now: Option<Time>,
}

impl Demand {
    /// Looks at the shard. To be called every few seconds.
    pub fn look(&mut self, now: Time, shard: &Shard) {
        let since = |known: Option<Time>, holds: bool| holds.then(|| known.unwrap_or(now));
        self.busy_since = since(self.busy_since, shard.median() > limits::DEMAND_LOAD || shard.is_cramped);
        self.few_since = since(self.few_since, shard.is_below_floor());
        self.now = Some(now);
    }

    /// True if there are too few in any case, and have been for a window: what else is asked of candidates may wait.
    pub fn is_below_floor(&self) -> bool {
        self.lasts(self.few_since, limits::DEMAND_WINDOW)
    }

    /// True if more are wanted.
    pub fn wants_more(&self) -> bool {
        self.is_below_floor() || self.lasts(self.busy_since, 2 * limits::DEMAND_WINDOW)
    }

    /// True if a voter agrees that more are wanted. Voters and those who invite look at different times; a voter asks for half as long.
    pub fn allows_more(&self) -> bool {
        self.lasts(self.few_since, limits::DEMAND_WINDOW / 2) || self.lasts(self.busy_since, limits::DEMAND_WINDOW)
    }

    fn lasts(&self, since: Option<Time>, span: Duration) -> bool {
        since.zip(self.now).is_some_and(|(since, now)| now.since(since) >= span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Time {
        Time::ZERO + Duration::from_secs(s)
    }

    #[test]
    fn more_are_wanted_when_half_of_them_are_busy_for_two_windows() {
        let mut demand = Demand::default();
        let busy = Shard { loads: vec![0.1, 0.9, 0.85], total: 10, nodes: 50, is_cramped: false };
        let calm = Shard { loads: vec![0.1, 0.1, 0.99], ..busy.clone() };
        demand.look(at(0), &busy);
        demand.look(at(119), &busy);
        assert!(!demand.wants_more() && demand.allows_more());
        demand.look(at(120), &busy);
        assert!(demand.wants_more() && !demand.is_below_floor());
        demand.look(at(121), &calm);
        demand.look(at(122), &busy);
        demand.look(at(200), &busy);
        assert!(!demand.wants_more(), "it begins anew");
        demand.look(at(300), &Shard { is_cramped: true, ..calm });
        assert!(demand.wants_more());
    }

    #[test]
    fn a_small_network_wants_two_and_a_large_one_five() {
        let mut demand = Demand::default();
        let alone = Shard { loads: vec![0.0], total: 1, nodes: 6, is_cramped: false };
        demand.look(at(0), &alone);
        demand.look(at(60), &alone);
        assert!(demand.is_below_floor() && demand.wants_more());
        demand.look(at(61), &Shard { total: 2, ..alone.clone() });
        assert!(!demand.wants_more());
        assert!(Shard { total: 4, nodes: 100, ..alone.clone() }.is_below_floor());
        assert!(!Shard { total: 5, nodes: 100, ..alone }.is_below_floor());
    }
}
