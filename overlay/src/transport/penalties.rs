//! Core: who broke the protocol, or asked for far more than it may, and is not let in again at once.
//!
//! A node that is sent away costs the handshake with which it comes back, and its limits begin anew with each
//! connection. So it waits outside for [`limits::PENALTY`]. Loopback is exempt. Invariant: at most [`limits::PENALTIES`]
//! wait; when that many do, others come back at once.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{id::PeerId, limits, time::Time};

/// Those that wait outside, and until when.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    until: BTreeMap<PeerId, Time>,
}

impl Penalties {
    /// A node at `address` was sent away for what it did. True if it waits from now on and did not before.
    pub(super) fn note(&mut self, now: Time, peer: PeerId, address: IpAddr) -> bool {
        if address.to_canonical().is_loopback() {
            return false;
        }
        self.until.retain(|_, until| now < *until);
        let is_known = self.until.contains_key(&peer);
        if is_known || self.until.len() < limits::PENALTIES {
            self.until.insert(peer, now + limits::PENALTY);
            return !is_known;
        }
        false
    }

    /// True if a node must wait now.
    pub(super) fn holds(&self, now: Time, peer: &PeerId) -> bool {
        self.until.get(peer).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn peer(number: usize) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        PeerId(bytes)
    }

    #[test]
    fn who_was_sent_away_waits_for_as_long_as_it_must() {
        let (mut penalties, now) = (Penalties::default(), Time::ZERO);
        assert!(penalties.note(now, peer(1), THERE));
        assert!(penalties.holds(now, &peer(1)) && !penalties.holds(now, &peer(2)));
        // What it does while it waits makes that longer, and is the same penalty.
        let later = now + limits::PENALTY / 2;
        assert!(!penalties.note(later, peer(1), THERE));
        assert!(penalties.holds(now + limits::PENALTY, &peer(1)));
        assert!(!penalties.holds(later + limits::PENALTY, &peer(1)));
        assert!(penalties.note(later + limits::PENALTY, peer(1), THERE), "it begins anew");
    }

    #[test]
    fn loopback_is_exempt_and_not_more_wait_than_there_is_room_for() {
        let (mut penalties, now) = (Penalties::default(), Time::ZERO);
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.9"] {
            assert!(!penalties.note(now, peer(0), address.parse().unwrap()), "{address}");
        }
        for number in 0..limits::PENALTIES {
            assert!(penalties.note(now, peer(number), THERE));
        }
        assert!(!penalties.note(now, peer(limits::PENALTIES), THERE));
        assert!(!penalties.holds(now, &peer(limits::PENALTIES)));
        let over = now + limits::PENALTY + Duration::from_secs(1);
        assert!(penalties.note(over, peer(limits::PENALTIES), THERE), "there is room again");
    }
}
