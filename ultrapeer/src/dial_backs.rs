//! Core: leaves that want to know whether they can be dialled.
//!
//! Unlike those that would serve ([`crate::appraisals`]), every leaf may ask. Invariants: a leaf is dialled at the address
//! that its connection has proven, at the port that is seen there or at one that it names; each at most once in
//! [`limits::LEAF_DIAL_BACK_PAUSE`], and [`limits::LEAF_DIAL_BACKS`] at a time. Who must wait is told so at once and asks
//! again. A named port is remembered while the leaf is attached and was reached there at its last asking.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU16};

use overlay::{id::PeerId, limits, time::Time};

use crate::leaves::Session;

/// The dial-backs of plain leaves. See the module text.
#[derive(Debug, Default)]
pub struct DialBacks {
    under_way: BTreeMap<PeerId, Asked>,
    /// When those were dialled that must not be again yet.
    dialled: BTreeMap<PeerId, Time>,
    /// Ports that leaves named and were reached at.
    ports: BTreeMap<Session, NonZeroU16>,
}

/// A leaf that is dialled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who asked.
    pub session: Session,
    /// Where it is dialled.
    pub address: SocketAddr,
    /// The port of it, if the leaf named it.
    pub port: Option<NonZeroU16>,
    /// True if it is attached no more.
    left: bool,
}

impl DialBacks {
    /// A leaf that is seen at an address asks, and may name a port. Where it is to be dialled now, if it is.
    pub fn ask(
        &mut self,
        now: Time,
        session: Session,
        leaf: (PeerId, SocketAddr),
        port: Option<NonZeroU16>,
    ) -> Option<SocketAddr> {
        let (peer, mut address) = leaf;
        self.dialled.retain(|_, at| now.since(*at) < limits::LEAF_DIAL_BACK_PAUSE);
        let has_room = self.under_way.len() < limits::LEAF_DIAL_BACKS && !self.under_way.contains_key(&peer);
        let is_allowed = port.is_none_or(|port| port.get() >= limits::NAMED_PORT_MIN);
        if !has_room || !is_allowed || self.dialled.contains_key(&peer) {
            return None;
        }
        address.set_port(port.map_or_else(|| address.port(), NonZeroU16::get));
        self.dialled.insert(peer, now);
        self.under_way.insert(peer, Asked { session, address, port, left: false });
        Some(address)
    }

    /// A node was dialled back. What the leaf had asked for, if this was for one.
    pub fn dialled(&mut self, peer: &PeerId, address: SocketAddr, reached: bool) -> Option<Asked> {
        let asked = *self.under_way.get(peer).filter(|asked| asked.address == address)?;
        self.under_way.remove(peer);
        match asked.port.filter(|_| reached && !asked.left) {
            Some(port) => self.ports.insert(asked.session, port),
            None => self.ports.remove(&asked.session),
        };
        Some(asked)
    }

    /// The port at which an attached leaf was reached, if it named it.
    pub fn port(&self, session: Session) -> Option<NonZeroU16> {
        self.ports.get(&session).copied()
    }

    /// A leaf is attached no more.
    pub fn left(&mut self, session: Session) {
        self.ports.remove(&session);
        self.under_way.values_mut().filter(|asked| asked.session == session).for_each(|asked| asked.left = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], port))
    }

    #[test]
    fn each_leaf_is_dialled_now_and_then_and_not_too_many_at_once() {
        let mut core = DialBacks::default();
        let ask = |core: &mut DialBacks, now, session, number| {
            core.ask(now, session, (peer(number), at(9)), None).inspect(|address| assert_eq!(*address, at(9))).is_some()
        };
        assert!(ask(&mut core, Time(0), 1, 1));
        assert!(!ask(&mut core, Time(0), 2, 1), "it is under way");
        assert_eq!(core.dialled(&peer(2), at(9), true), None);
        assert_eq!(core.dialled(&peer(1), at(9), true).map(|asked| asked.session), Some(1));
        assert!(!ask(&mut core, Time(1), 2, 1), "it was just dialled");
        let later = Time(0) + limits::LEAF_DIAL_BACK_PAUSE;
        assert!(ask(&mut core, later, 2, 1));
        let taken = (2..=200).filter(|number| ask(&mut core, later, u64::from(*number), *number)).count();
        assert_eq!(taken, limits::LEAF_DIAL_BACKS - 1);
        let much_later = later + limits::LEAF_DIAL_BACK_PAUSE;
        assert!(!ask(&mut core, much_later, 9, 250), "whatever does not end stays");
        assert!(core.dialled.is_empty(), "and what is long ago is forgotten");
    }

    #[test]
    fn a_port_that_a_leaf_names_counts_while_it_is_reached_there() {
        let mut core = DialBacks::default();
        let mut now = Time(0);
        let mut dial = |core: &mut DialBacks, port, reached| {
            now += limits::LEAF_DIAL_BACK_PAUSE;
            let address = core.ask(now, 1, (peer(1), at(9)), NonZeroU16::new(port)).unwrap();
            assert_eq!(core.dialled(&peer(1), at(1), reached), None, "another dial of the same node");
            assert_eq!(core.dialled(&peer(1), address, reached).unwrap().port, NonZeroU16::new(port));
            (address, core.port(1).map(NonZeroU16::get))
        };
        assert_eq!(dial(&mut core, 50_000, false), (at(50_000), None));
        assert_eq!(dial(&mut core, 50_000, true), (at(50_000), Some(50_000)));
        assert_eq!(dial(&mut core, 0, true), (at(9), None), "it names none any more");
        assert_eq!(dial(&mut core, 50_001, true), (at(50_001), Some(50_001)));
        assert_eq!(dial(&mut core, 50_001, false), (at(50_001), None));
        assert_eq!(dial(&mut core, 50_002, true), (at(50_002), Some(50_002)));
        core.left(1);
        assert_eq!(core.port(1), None);
        let much_later = Time(u64::MAX / 2);
        let address = core.ask(much_later, 2, (peer(1), at(9)), NonZeroU16::new(50_000)).unwrap();
        core.left(2);
        assert_eq!(core.dialled(&peer(1), address, true).map(|asked| asked.session), Some(2));
        assert!(core.ports.is_empty() && core.under_way.is_empty(), "it left while it was dialled");
        let service = NonZeroU16::new(53);
        assert_eq!(core.ask(Time(u64::MAX), 1, (peer(1), at(9)), service), None, "nobody's services are bothered");
    }
}
