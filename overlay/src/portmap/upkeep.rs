//! Core: when the router is asked to forward the port, asked again, and told that it need not any more.
//!
//! Invariants: a port that is not needed any more is given back before another one is asked for; what was granted is asked
//! for again at half of its time; a router that refused is left alone for [`limits::MAPPING_RETRY`], unless the node moved.

use std::{net::SocketAddrV4, time::Duration};

use crate::{limits, time::Time};

/// What must be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// Ask for a port that leads to this address.
    Ask(SocketAddrV4),
    /// Ask for another lease of what is held.
    Renew,
    /// Give back what is held.
    GiveBack,
}

/// What is held, and what comes next. See the module text.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    wanted: Option<SocketAddrV4>,
    /// True while a router forwards a port to `wanted`, as it says.
    held: bool,
    ask_at: Time,
}

impl Upkeep {
    /// Looks at what is due; `wanted` is the address that should be forwarded to. Each step but [`Step::Rest`] and
    /// [`Step::GiveBack`] is answered by [`Self::granted`] or [`Self::failed`].
    pub(super) fn look(&mut self, now: Time, wanted: Option<SocketAddrV4>) -> Step {
        if self.wanted != wanted {
            (self.wanted, self.ask_at) = (wanted, now);
            if std::mem::take(&mut self.held) {
                return Step::GiveBack;
            }
        }
        match wanted {
            Some(_) if now < self.ask_at => Step::Rest,
            Some(_) if self.held => Step::Renew,
            Some(local) => Step::Ask(local),
            None => Step::Rest,
        }
    }

    /// The router forwards a port for `lease` from now on.
    pub(super) fn granted(&mut self, now: Time, lease: Duration) {
        (self.held, self.ask_at) = (true, now + lease / 2);
    }

    /// It does not, or to no use. One that did until now may have forgotten it: it is asked anew at the next look.
    pub(super) fn failed(&mut self, now: Time) {
        let did = std::mem::take(&mut self.held);
        self.ask_at = if did { now } else { now + limits::MAPPING_RETRY };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOME: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(192, 168, 1, 2), 7780);
    const AWAY: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 2), 7780);
    const LEASE: Duration = Duration::from_mins(2);

    #[test]
    fn what_was_granted_is_asked_for_again_at_half_of_its_time() {
        let (mut upkeep, start) = (Upkeep::default(), Time(7));
        assert_eq!(upkeep.look(start, Some(HOME)), Step::Ask(HOME));
        upkeep.granted(start, LEASE);
        let half = start + LEASE / 2;
        assert_eq!(upkeep.look(half - Duration::from_millis(1), Some(HOME)), Step::Rest);
        assert_eq!(upkeep.look(half, Some(HOME)), Step::Renew);
        upkeep.granted(half, LEASE);
        assert_eq!(upkeep.look(start + LEASE, Some(HOME)), Step::Renew);
    }

    #[test]
    fn a_router_that_refuses_is_left_alone_and_one_that_forgot_is_asked_at_once() {
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.look(Time(0), Some(HOME)), Step::Ask(HOME));
        upkeep.failed(Time(0));
        let again = Time(0) + limits::MAPPING_RETRY;
        assert_eq!(upkeep.look(again - limits::MAPPING_LOOK, Some(HOME)), Step::Rest);
        assert_eq!(upkeep.look(again, Some(HOME)), Step::Ask(HOME));
        upkeep.granted(again, LEASE);
        let half = again + LEASE / 2;
        assert_eq!(upkeep.look(half, Some(HOME)), Step::Renew);
        upkeep.failed(half);
        assert_eq!(upkeep.look(half, Some(HOME)), Step::Ask(HOME), "there is half a lease left");
        upkeep.failed(half);
        assert_eq!(upkeep.look(half + limits::MAPPING_LOOK, Some(HOME)), Step::Rest);
    }

    #[test]
    fn a_node_that_moves_or_wants_no_port_gives_it_back_first() {
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.look(Time(0), None), Step::Rest);
        assert_eq!(upkeep.look(Time(1), Some(HOME)), Step::Ask(HOME));
        upkeep.failed(Time(1));
        assert_eq!(upkeep.look(Time(2), Some(AWAY)), Step::Ask(AWAY), "that is another network");
        upkeep.granted(Time(2), LEASE);
        assert_eq!(upkeep.look(Time(3), Some(HOME)), Step::GiveBack);
        assert_eq!(upkeep.look(Time(3), Some(HOME)), Step::Ask(HOME));
        upkeep.granted(Time(3), LEASE);
        assert_eq!(upkeep.look(Time(4), None), Step::GiveBack);
        assert_eq!(upkeep.look(Time(5), None), Step::Rest);
    }

    proptest! {
        #[test]
        fn nothing_runs_out_while_the_router_grants(leases in prop::collection::vec(10_u64..7_200, 1..50)) {
            let (mut upkeep, mut now, mut until) = (Upkeep::default(), Time(0), None);
            for lease in leases.into_iter().map(Duration::from_secs) {
                while upkeep.look(now, Some(HOME)) == Step::Rest {
                    now += limits::MAPPING_LOOK;
                }
                prop_assert!(until.is_none_or(|until| now <= until), "it ran out");
                upkeep.granted(now, lease);
                until = Some(now + lease);
            }
        }
    }
}
