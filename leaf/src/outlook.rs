//! Core: what is in front of this leaf: can others dial it, and how does a NAT choose its ports?
//!
//! ```text
//!   homes see the leaf ──> the same port everywhere, or another for each
//!   a home dials back from a socket that the leaf never sent anything to ──> reached, or not: then another is asked
//!   a router forwards another port to the leaf ──> every home dials back there, and tells others of it once it came through
//! ```
//!
//! Invariants: one home at a time is asked; a leaf counts as not reached only if two homes said so, or there is but one;
//! what was found is looked at again now and then, and at once when a home sees the leaf elsewhere.
//!
//! A NAT that lets in whoever has the address of somebody the leaf sent to, from any port, looks like none from a home.
//! Others find out when they dial; they have further ways then.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU16,
};

use overlay::{
    address::Reach,
    id::PeerId,
    introduction::{Mapping, Nature},
    limits,
    time::Time,
    wire::search::Reachability,
};

/// What is in front of the leaf. See the module text.
#[derive(Debug, Default)]
pub struct Outlook {
    homes: BTreeMap<PeerId, Seen>,
    reached: Option<bool>,
    /// Where it was reached last.
    reached_at: Option<SocketAddr>,
    /// Where a router says that it forwards packets to it. Nobody believes that until it was reached there.
    mapped: Option<SocketAddr>,
    /// True once a home did not reach it there, at a port that is not the one that homes see.
    disproved: bool,
    /// Homes that reached it there, at such a port.
    informed: BTreeSet<PeerId>,
    /// Homes that did not reach it, or did not try, since it was last asked anew.
    tried: BTreeSet<PeerId>,
    /// Who is asked.
    asked: Option<Asked>,
    /// Who was asked last: it dials again only after a while, so others are asked before it.
    last: Option<PeerId>,
    due: Option<Time>,
}

/// A home that is asked to dial back.
#[derive(Clone, Copy, Debug)]
struct Asked {
    home: PeerId,
    /// The port, if it is not the one that the home sees.
    port: Option<NonZeroU16>,
    /// Until when it may answer.
    until: Time,
}

/// Where a home is, and where it sees the leaf.
#[derive(Clone, Copy, Debug)]
struct Seen {
    home: SocketAddr,
    observed: SocketAddr,
}

impl Outlook {
    /// A home at `home` sees the leaf at `observed`.
    pub fn attached(&mut self, now: Time, peer: PeerId, home: SocketAddr, observed: SocketAddr) {
        let is_elsewhere = self.homes.values().all(|seen| seen.observed.ip() != observed.ip());
        if self.homes.len() < limits::CANDIDATES || self.homes.contains_key(&peer) {
            self.homes.insert(peer, Seen { home, observed });
        }
        // It begins anew, and knows nothing of a port.
        self.informed.remove(&peer);
        if is_elsewhere || self.reached != Some(true) || self.port_for(&peer).is_some() {
            self.tried.remove(&peer);
            self.due = Some(now);
        }
    }

    /// A router forwards packets to the leaf from there, as it says; `None` if none does any more.
    pub fn mapped(&mut self, now: Time, address: Option<SocketAddr>) {
        let before = std::mem::replace(&mut self.mapped, address);
        if before == address {
            return;
        }
        if before.is_some() && self.reached_at == before {
            self.reached = None;
        }
        self.tried.clear();
        self.informed.clear();
        self.disproved = false;
        if self.asked.is_none() {
            self.due = Some(now);
        }
    }

    /// Where the leaf is reached although no home sees it there: a router forwards that port to it, and somebody came
    /// through.
    pub fn elsewhere(&self) -> Option<SocketAddr> {
        let mapped = self.mapped.filter(|mapped| self.reached == Some(true) && self.reached_at == Some(*mapped))?;
        self.homes.values().all(|seen| seen.observed != mapped).then_some(mapped)
    }

    /// The port at which a home should dial, if a router forwards another one than the home sees.
    fn port_for(&self, home: &PeerId) -> Option<NonZeroU16> {
        let (seen, mapped) = (self.homes.get(home)?, self.mapped.filter(|_| !self.disproved)?);
        let is_other = seen.observed.ip() == mapped.ip() && seen.observed.port() != mapped.port();
        NonZeroU16::new(mapped.port()).filter(|_| is_other)
    }

    /// True of a home that does not know yet at which port the leaf is reached.
    fn is_uninformed(&self, home: &PeerId) -> bool {
        !self.informed.contains(home) && self.port_for(home).is_some()
    }

    /// Who is to be asked next: who does not know of a port, who may know of one, who has not missed the leaf, and who was
    /// not asked last.
    fn choice(&self) -> Option<PeerId> {
        let rank = |home: &&PeerId| {
            let has_port = self.port_for(home).is_some();
            (!self.is_uninformed(home), !has_port, self.tried.contains(home), self.last == Some(**home))
        };
        self.homes.keys().min_by_key(rank).copied()
    }

    /// A home is one no more.
    pub fn lost(&mut self, now: Time, peer: &PeerId) {
        self.homes.remove(peer);
        self.tried.remove(peer);
        self.informed.remove(peer);
        if self.asked.is_some_and(|asked| asked.home == *peer) {
            (self.asked, self.due) = (None, Some(now));
        }
    }

    /// A home dialled back; `None` if it did not try.
    pub fn told(&mut self, now: Time, peer: &PeerId, reached: Option<bool>) {
        let Some(asked) = self.asked.take_if(|asked| asked.home == *peer) else { return };
        if asked.port.is_some() && asked.port != self.port_for(peer) {
            self.due = Some(now); // that is forwarded no more
            return;
        }
        match (reached, asked.port) {
            (Some(true), port) => {
                let at = |seen: &Seen| {
                    SocketAddr::new(seen.observed.ip(), port.map_or_else(|| seen.observed.port(), NonZeroU16::get))
                };
                self.reached_at = self.homes.get(peer).map(at);
                self.informed.extend(port.map(|_| *peer));
                self.conclude(true, now);
            }
            // That says nothing of where homes see the leaf: they are asked without a port.
            (Some(false), Some(_)) => {
                self.disproved = true;
                self.informed.clear();
                if self.reached_at == self.mapped {
                    self.reached = None;
                }
                self.due = Some(now);
            }
            (Some(false), None) => {
                self.tried.insert(*peer);
                let all_tried = self.homes.keys().all(|home| self.tried.contains(home));
                if self.tried.len() >= 2 || all_tried { self.conclude(false, now) } else { self.due = Some(now) }
            }
            (None, _) => self.due = Some(now + limits::LEAF_DIAL_BACK_PAUSE),
        }
    }

    fn conclude(&mut self, reached: bool, now: Time) {
        self.reached = Some(reached);
        self.tried.clear();
        let lifetime = if reached { limits::REACHED_LIFETIME } else { limits::UNREACHED_LIFETIME };
        let is_known = !self.homes.keys().any(|home| self.is_uninformed(home));
        self.due = Some(if is_known { now + lifetime } else { now });
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        match self.asked {
            Some(asked) => Some(asked.until),
            None => self.due.filter(|_| !self.homes.is_empty()),
        }
    }

    /// The home to be asked now, and the port at which it shall dial, if that is not the one that it sees.
    pub fn on_deadline(&mut self, now: Time) -> Option<(PeerId, Option<NonZeroU16>)> {
        if let Some(asked) = self.asked {
            if now < asked.until {
                return None;
            }
            (self.asked, self.due) = (None, Some(now + limits::LEAF_DIAL_BACK_PAUSE));
        }
        if self.due.is_none_or(|due| now < due) {
            return None;
        }
        let home = self.choice()?;
        self.last = Some(home);
        let port = self.port_for(&home);
        (self.asked, self.due) = (Some(Asked { home, port, until: now + limits::DIAL_BACK_PATIENCE }), None);
        Some((home, port))
    }

    /// What is in front of the leaf, as far as is known.
    pub fn nature(&self) -> Nature {
        let reachability = match self.reached {
            Some(true) if self.mapped.is_some() && self.reached_at == self.mapped => {
                // A home that does not know the port yet would send others to where it sees the leaf.
                let all_know = !self.homes.keys().any(|home| self.is_uninformed(home));
                if all_know { Reachability::Mapped } else { Reachability::Natted }
            }
            Some(true) => Reachability::Public,
            Some(false) => Reachability::Natted,
            None => Reachability::Unknown,
        };
        Nature { reachability, mapping: self.mapping() }
    }

    /// Homes inside of the site see the leaf before it has passed a NAT, so only those of one kind are compared.
    fn mapping(&self) -> Mapping {
        let kind = |address: SocketAddr| (address.is_ipv6(), Reach::of(address.ip()));
        let mut known = Mapping::Unknown;
        let all: Vec<_> = self.homes.values().collect();
        for (place, one) in all.iter().enumerate() {
            for other in &all[place + 1..] {
                if kind(one.observed) != kind(other.observed) || one.home == other.home {
                    continue;
                }
                if one.observed != other.observed {
                    return Mapping::Changing;
                }
                known = Mapping::Steady;
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn home(number: u8) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, number], 7780))
    }

    fn seen(port: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 1], port))
    }

    #[test]
    fn one_that_is_reached_is_public_and_looks_again_after_an_hour() {
        let mut outlook = Outlook::default();
        assert_eq!((outlook.next_deadline(), outlook.nature()), (None, Nature::default()));
        outlook.attached(Time(5), peer(1), home(1), seen(9));
        assert_eq!(outlook.next_deadline(), Some(Time(5)));
        assert_eq!(outlook.on_deadline(Time(5)), Some((peer(1), None)));
        assert_eq!(outlook.on_deadline(Time(6)), None, "one at a time");
        outlook.told(Time(7), &peer(2), Some(true));
        assert_eq!(outlook.nature().reachability, Reachability::Unknown, "of one that was not asked");
        outlook.told(Time(7), &peer(1), Some(true));
        assert_eq!(outlook.nature().reachability, Reachability::Public);
        outlook.attached(Time(8), peer(2), home(2), seen(9));
        let due = Time(7) + limits::REACHED_LIFETIME;
        assert_eq!(outlook.next_deadline(), Some(due), "another home changes nothing");
        assert!(outlook.on_deadline(due).is_some());
    }

    #[test]
    fn two_homes_must_miss_it_if_there_are_two() {
        let mut outlook = Outlook::default();
        outlook.attached(Time(0), peer(1), home(1), seen(9));
        outlook.attached(Time(0), peer(2), home(2), seen(9));
        assert_eq!(outlook.on_deadline(Time(0)), Some((peer(1), None)));
        outlook.told(Time(1), &peer(1), Some(false));
        assert_eq!(outlook.nature().reachability, Reachability::Unknown);
        assert_eq!(outlook.on_deadline(Time(1)), Some((peer(2), None)));
        outlook.told(Time(2), &peer(2), Some(false));
        assert_eq!(outlook.nature(), Nature { reachability: Reachability::Natted, mapping: Mapping::Steady });
        assert_eq!(outlook.next_deadline(), Some(Time(2) + limits::UNREACHED_LIFETIME));
        outlook.attached(Time(3), peer(3), home(3), seen(9));
        assert_eq!(outlook.on_deadline(Time(3)), Some((peer(1), None)), "a new home is a reason to look again");
    }

    #[test]
    fn one_that_is_silent_or_busy_or_gone_is_no_answer() {
        let mut outlook = Outlook::default();
        outlook.attached(Time(0), peer(1), home(1), seen(9));
        outlook.on_deadline(Time(0));
        outlook.told(Time(1), &peer(1), None);
        assert_eq!(outlook.next_deadline(), Some(Time(1) + limits::LEAF_DIAL_BACK_PAUSE));
        let again = Time(1) + limits::LEAF_DIAL_BACK_PAUSE;
        assert_eq!(outlook.on_deadline(again), Some((peer(1), None)));
        let late = again + limits::DIAL_BACK_PATIENCE;
        assert_eq!(outlook.on_deadline(late), None);
        let much_later = late + limits::LEAF_DIAL_BACK_PAUSE;
        assert_eq!(outlook.on_deadline(much_later), Some((peer(1), None)));
        outlook.lost(much_later, &peer(1));
        assert_eq!((outlook.next_deadline(), outlook.nature().reachability), (None, Reachability::Unknown));
    }

    #[test]
    fn a_mapping_counts_once_somebody_came_through_it() {
        let mut outlook = Outlook::default();
        let (mapped, pause) = (Some(seen(9)), limits::LEAF_DIAL_BACK_PAUSE);
        outlook.attached(Time(0), peer(1), home(1), seen(9));
        assert_eq!(outlook.on_deadline(Time(0)), Some((peer(1), None)));
        outlook.told(Time(1), &peer(1), Some(false));
        assert_eq!(outlook.nature().reachability, Reachability::Natted);
        outlook.mapped(Time(2), mapped);
        assert_eq!(outlook.nature().reachability, Reachability::Natted, "the router only says so");
        assert_eq!(outlook.on_deadline(Time(2)), Some((peer(1), None)), "it is looked at again");
        outlook.told(Time(3), &peer(1), None);
        assert_eq!(outlook.on_deadline(Time(3) + pause), Some((peer(1), None)));
        outlook.told(Time(3) + pause, &peer(1), Some(true));
        assert_eq!(outlook.nature().reachability, Reachability::Mapped);
        outlook.mapped(Time(4) + pause, mapped);
        assert_eq!(outlook.next_deadline(), Some(Time(3) + pause + limits::REACHED_LIFETIME), "that is no news");
        outlook.mapped(Time(5) + pause, None);
        assert_eq!(outlook.nature().reachability, Reachability::Unknown);
        assert_eq!(outlook.on_deadline(Time(5) + pause), Some((peer(1), None)));
        outlook.told(Time(6) + pause, &peer(1), Some(true));
        assert_eq!(outlook.nature().reachability, Reachability::Public, "it never needed one");
        outlook.mapped(Time(7) + pause, Some(seen(10)));
        assert_eq!(outlook.nature().reachability, Reachability::Public, "nobody came through that one");
    }

    #[test]
    fn every_home_comes_through_a_port_that_none_sees_before_it_tells_of_it() {
        let mut outlook = Outlook::default();
        let (elsewhere, port) = (Some(seen(50_000)), NonZeroU16::new(50_000));
        outlook.attached(Time(0), peer(1), home(1), seen(9));
        outlook.attached(Time(0), peer(2), home(2), seen(9));
        outlook.mapped(Time(0), elsewhere);
        assert_eq!(outlook.on_deadline(Time(0)), Some((peer(1), port)));
        assert_eq!(outlook.elsewhere(), None, "the router only says so");
        outlook.told(Time(1), &peer(1), Some(true));
        assert_eq!(outlook.nature().reachability, Reachability::Natted, "one home still sends others elsewhere");
        assert_eq!(outlook.elsewhere(), elsewhere);
        assert_eq!(outlook.on_deadline(Time(1)), Some((peer(2), port)), "each finds out for itself");
        outlook.told(Time(2), &peer(2), Some(true));
        assert_eq!(outlook.nature().reachability, Reachability::Mapped);
        assert_eq!(outlook.next_deadline(), Some(Time(2) + limits::REACHED_LIFETIME));
        outlook.attached(Time(3), peer(3), home(3), seen(9));
        assert_eq!(outlook.on_deadline(Time(3)), Some((peer(3), port)), "a new home does not know");
        outlook.told(Time(4), &peer(3), Some(true));
        // From then on one of them looks now and then. One that misses it ends it for all; then it is looked at without.
        let (again, late) = (Time(4) + limits::REACHED_LIFETIME, Time(4) + limits::REACHED_LIFETIME * 2);
        assert_eq!(outlook.on_deadline(again), Some((peer(1), port)));
        outlook.told(again, &peer(1), Some(true));
        assert_eq!(outlook.nature().reachability, Reachability::Mapped);
        assert_eq!(outlook.on_deadline(late), Some((peer(2), port)));
        outlook.told(late, &peer(2), Some(false));
        assert_eq!((outlook.nature().reachability, outlook.elsewhere()), (Reachability::Unknown, None));
        assert_eq!(outlook.on_deadline(late), Some((peer(1), None)));
    }

    #[test]
    fn what_a_lying_router_says_is_told_to_nobody() {
        let mut outlook = Outlook::default();
        outlook.attached(Time(0), peer(1), home(1), seen(9));
        outlook.mapped(Time(0), Some(seen(50_000)));
        assert_eq!(outlook.on_deadline(Time(0)), Some((peer(1), NonZeroU16::new(50_000))));
        outlook.told(Time(1), &peer(1), Some(false));
        assert_eq!((outlook.nature().reachability, outlook.elsewhere()), (Reachability::Unknown, None));
        assert_eq!(outlook.on_deadline(Time(1)), Some((peer(1), None)), "there is no other home");
        outlook.told(Time(1), &peer(1), None);
        let again = Time(1) + limits::LEAF_DIAL_BACK_PAUSE;
        assert_eq!(outlook.on_deadline(again), Some((peer(1), None)));
        outlook.told(again, &peer(1), Some(false));
        assert_eq!((outlook.nature().reachability, outlook.elsewhere()), (Reachability::Natted, None));
        // What is forwarded no more while a home tries it counts for nothing.
        outlook.mapped(again, Some(seen(50_001)));
        assert_eq!(outlook.on_deadline(again), Some((peer(1), NonZeroU16::new(50_001))));
        outlook.mapped(again, None);
        outlook.told(again, &peer(1), Some(true));
        assert_eq!((outlook.nature().reachability, outlook.elsewhere()), (Reachability::Natted, None));
        assert_eq!(outlook.on_deadline(again), Some((peer(1), None)));
        outlook.told(again, &peer(1), Some(false));
        // One that names an address of somebody else is not even tried.
        outlook.mapped(again, Some(SocketAddr::from(([203, 0, 113, 99], 9))));
        assert_eq!(outlook.on_deadline(again), Some((peer(1), None)));
        outlook.told(again, &peer(1), Some(true));
        assert_eq!((outlook.nature().reachability, outlook.elsewhere()), (Reachability::Public, None));
    }

    #[test]
    fn ports_tell_how_a_nat_maps() {
        let mut outlook = Outlook::default();
        outlook.attached(Time(0), peer(1), home(1), seen(9));
        assert_eq!(outlook.nature().mapping, Mapping::Unknown);
        outlook.attached(Time(0), peer(2), home(2), SocketAddr::from(([10, 0, 0, 1], 7780)));
        assert_eq!(outlook.nature().mapping, Mapping::Unknown, "a home in the same site says nothing of the NAT");
        outlook.attached(Time(0), peer(3), home(3), seen(9));
        assert_eq!(outlook.nature().mapping, Mapping::Steady);
        outlook.attached(Time(0), peer(4), home(4), seen(10));
        assert_eq!(outlook.nature().mapping, Mapping::Changing);
    }
}
