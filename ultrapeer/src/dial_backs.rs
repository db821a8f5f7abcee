//! Core: leaves that want to know whether they can be dialled.
//!
//! Unlike those that would serve ([`crate::appraisals`]), every leaf may ask. Invariants: a leaf is dialled where its
//! connection has proven that it is; each at most once in [`limits::LEAF_DIAL_BACK_PAUSE`], and
//! [`limits::LEAF_DIAL_BACKS`] at a time. Who must wait is told so at once and asks again.

use std::collections::BTreeMap;

use overlay::{id::PeerId, limits, time::Time};

use crate::leaves::Session;

/// The dial-backs of plain leaves. See the module text.
#[derive(Debug, Default)]
pub struct DialBacks {
    under_way: BTreeMap<PeerId, Session>,
    /// When those were dialled that must not be again yet.
    dialled: BTreeMap<PeerId, Time>,
}

impl DialBacks {
    /// A leaf asks. True if it is to be dialled now.
    pub fn ask(&mut self, now: Time, session: Session, peer: PeerId) -> bool {
        self.dialled.retain(|_, at| now.since(*at) < limits::LEAF_DIAL_BACK_PAUSE);
        let has_room = self.under_way.len() < limits::LEAF_DIAL_BACKS && !self.under_way.contains_key(&peer);
        let may = has_room && !self.dialled.contains_key(&peer);
        if may {
            self.dialled.insert(peer, now);
            self.under_way.insert(peer, session);
        }
        may
    }

    /// A node was dialled back. The session of the leaf that asked for it, if one did.
    pub fn dialled(&mut self, peer: &PeerId) -> Option<Session> {
        self.under_way.remove(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    #[test]
    fn each_leaf_is_dialled_now_and_then_and_not_too_many_at_once() {
        let mut core = DialBacks::default();
        assert!(core.ask(Time(0), 1, peer(1)));
        assert!(!core.ask(Time(0), 2, peer(1)), "it is under way");
        assert_eq!(core.dialled(&peer(2)), None);
        assert_eq!(core.dialled(&peer(1)), Some(1));
        assert!(!core.ask(Time(1), 2, peer(1)), "it was just dialled");
        let later = Time(0) + limits::LEAF_DIAL_BACK_PAUSE;
        assert!(core.ask(later, 2, peer(1)));
        let taken = (2..=200).filter(|number| core.ask(later, u64::from(*number), peer(*number))).count();
        assert_eq!(taken, limits::LEAF_DIAL_BACKS - 1);
        let much_later = later + limits::LEAF_DIAL_BACK_PAUSE;
        assert!(!core.ask(much_later, 9, peer(250)), "whatever does not end stays");
        assert!(core.dialled.is_empty(), "and what is long ago is forgotten");
    }
}
