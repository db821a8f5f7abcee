//! Which leaves of this home would be ultrapeers, and who is told of them.
//!
//! If all ultrapeers vanish, leaves must find each other without one. So each leaf is told of a few that would serve:
//! those that begin a network first, by the hash of their keys, which all leaves of this home learn alike, and those whose
//! keys come after its own, which are others for each leaf. What was told is told again only when it changed, and
//! seldom: a leaf must not pay for the size of the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use overlay::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    time::Time,
    wire::{
        bounded::List,
        hello::Contact,
        leaf::{Volunteer, Volunteers as Told},
    },
};

use crate::leaves::Session;

/// See the module text.
#[derive(Debug, Default)]
pub(super) struct Volunteers {
    willing: BTreeMap<PeerId, (Session, SocketAddr)>,
    /// The same by the hashes of their keys.
    ranked: BTreeSet<([u8; 32], PeerId)>,
    leaves: BTreeMap<Session, Leaf>,
    /// When leaves are looked at that may have to be told.
    due: Option<Time>,
}

#[derive(Debug)]
struct Leaf {
    contact: Contact,
    credit: TokenBucket,
    /// A hash of what it was told last.
    told: Option<u64>,
}

/// True if only this machine can use an address.
fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

impl Volunteers {
    /// A leaf attached: what it is told at once.
    pub(super) fn attached(&mut self, now: Time, session: Session, contact: Contact) -> Option<Told> {
        let mut credit = TokenBucket::new(now, limits::VOLUNTEERS_RATE, limits::VOLUNTEERS_BURST);
        let chosen = self.chosen(&contact);
        let told = (!chosen.is_empty() && credit.take(now)).then(|| name(&chosen));
        self.leaves.insert(session, Leaf { contact, credit, told });
        told.map(|_| Told { leaves: List::new(chosen) })
    }

    /// A leaf says whether it would be an ultrapeer.
    pub(super) fn offered(&mut self, now: Time, session: Session, offer: Volunteer) {
        let Some(leaf) = self.leaves.get(&session) else { return };
        let Contact { peer, address } = leaf.contact;
        let before = self.willing.get(&peer).map(|(_, address)| *address);
        if offer.willing {
            self.willing.insert(peer, (session, address));
            self.ranked.insert((rank(&peer), peer));
        } else {
            self.withdraw(&peer);
        }
        if before != offer.willing.then_some(address) {
            // In a large home everybody is looked at less often.
            let due = now + limits::VOLUNTEERS_GATHER + limits::VOLUNTEERS_GATHER_EACH * self.leaves.len() as u32;
            self.due = Some(self.due.map_or(due, |at| at.min(due)));
        }
    }

    /// A leaf is gone. Those who were told of it find out when they need it.
    pub(super) fn left(&mut self, session: Session) {
        let Some(Leaf { contact, .. }) = self.leaves.remove(&session) else { return };
        // It may have offered itself in another session already.
        if self.willing.get(&contact.peer).is_some_and(|(of, _)| *of == session) {
            self.withdraw(&contact.peer);
        }
    }

    fn withdraw(&mut self, peer: &PeerId) {
        self.willing.remove(peer);
        self.ranked.remove(&(rank(peer), *peer));
    }

    /// When [`Self::tell`] is due.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.due
    }

    /// What leaves must be told now.
    pub(super) fn tell(&mut self, now: Time) -> Vec<(Session, Told)> {
        if self.due.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.due = None;
        let (mut told, mut next) = (Vec::new(), None::<Time>);
        let mut leaves = std::mem::take(&mut self.leaves);
        for (session, leaf) in &mut leaves {
            let chosen = self.chosen(&leaf.contact);
            let name = name(&chosen);
            if chosen.is_empty() || leaf.told == Some(name) {
                continue;
            }
            if leaf.credit.take(now) {
                leaf.told = Some(name);
                told.push((*session, Told { leaves: List::new(chosen) }));
            } else if let Some(wait) = leaf.credit.wait(now) {
                next = Some(next.map_or(now + wait, |at| at.min(now + wait)));
            }
        }
        self.leaves = leaves;
        self.due = next;
        told
    }

    /// Of whom a leaf is told.
    fn chosen(&self, leaf: &Contact) -> Vec<Contact> {
        let local = is_local(leaf.address);
        let usable = |peer: &PeerId| {
            let (_, address) = self.willing.get(peer).filter(|(_, address)| local || !is_local(*address))?;
            (*peer != leaf.peer).then_some(Contact { peer: *peer, address: *address })
        };
        let half = limits::CONTACTS_NAMED / 2;
        let first = self.ranked.iter().take(half).map(|(_, peer)| peer);
        let (before, after) = (self.willing.range(..leaf.peer), self.willing.range(leaf.peer..));
        // One of them is the leaf itself.
        let next = after.chain(before).map(|(peer, _)| peer).take(half + 1);
        let chosen: BTreeSet<_> = first.chain(next).filter_map(usable).collect();
        chosen.into_iter().take(limits::CONTACTS_NAMED).collect()
    }
}

/// The order in which leaves begin a network.
fn rank(peer: &PeerId) -> [u8; 32] {
    *blake3::hash(&peer.0).as_bytes()
}

fn name(chosen: &[Contact]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for Contact { peer, address } in chosen {
        hasher.update(&peer.0).update(address.to_string().as_bytes()).update(&[0]);
    }
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WILLING: Volunteer = Volunteer { willing: true };

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 7780))
    }

    fn seconds(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    /// A home, and what its leaves were told last.
    #[derive(Default)]
    struct Home {
        volunteers: Volunteers,
        told: BTreeMap<Session, Vec<Contact>>,
        tellings: BTreeMap<Session, u32>,
    }

    impl Home {
        fn full(count: u8) -> Self {
            let mut home = Self::default();
            for number in 1..=count {
                home.attach(seconds(0), number.into(), number, address(number));
            }
            home.tell(seconds(10));
            home
        }

        fn hears(&mut self, session: Session, told: Told) {
            *self.tellings.entry(session).or_default() += 1;
            self.told.insert(session, told.leaves.into_vec());
        }

        fn attach(&mut self, now: Time, session: Session, number: u8, address: SocketAddr) {
            let told = self.volunteers.attached(now, session, Contact { peer: peer(number), address });
            if let Some(told) = told {
                self.hears(session, told);
            }
            self.volunteers.offered(now, session, WILLING);
        }

        fn tell(&mut self, now: Time) {
            for (session, told) in self.volunteers.tell(now) {
                self.hears(session, told);
            }
        }

        fn named_to(&self, session: Session) -> Vec<PeerId> {
            self.told.get(&session).into_iter().flatten().map(|contact| contact.peer).collect()
        }
    }

    #[test]
    fn a_leaf_is_told_of_the_others_that_are_willing_and_not_of_itself() {
        let mut home = Home::full(3);
        assert_eq!(home.named_to(1), [peer(2), peer(3)]);
        home.volunteers.offered(seconds(11), 3, Volunteer { willing: false });
        home.tell(seconds(20));
        assert_eq!((home.named_to(1), home.named_to(2)), (vec![peer(2)], vec![peer(1)]));
        assert_eq!(home.named_to(3), [peer(1), peer(2)]);
        assert_eq!(home.volunteers.next_deadline(), None, "nothing changes any more");
    }

    #[test]
    fn what_changes_is_told_and_seldom() {
        let mut home = Home::full(2);
        for number in 20..120_u8 {
            let now = seconds(u64::from(number));
            home.attach(now, number.into(), number, address(number));
            home.tell(now);
        }
        let tellings = home.tellings[&1];
        assert!((2..=5).contains(&tellings), "{tellings} in 100 s");
        while let Some(due) = home.volunteers.next_deadline() {
            home.tell(due);
        }
        let expected = home.volunteers.chosen(&Contact { peer: peer(1), address: address(1) });
        assert_eq!(home.told[&1], expected, "in the end it knows what is so");
    }

    #[test]
    fn in_a_large_home_all_know_those_who_go_first_and_each_others_besides() {
        let mut home = Home::full(200);
        let first: Vec<_> =
            home.volunteers.ranked.iter().take(limits::CONTACTS_NAMED / 2).map(|(_, peer)| *peer).collect();
        while let Some(due) = home.volunteers.next_deadline() {
            home.tell(due);
        }
        let mut named = BTreeSet::new();
        for session in 1..=200 {
            let (told, own) = (home.named_to(session), peer(session as u8));
            assert!(first.iter().all(|first| *first == own || told.contains(first)));
            assert!(told.len() >= limits::CONTACTS_NAMED / 2 && !told.contains(&own));
            named.extend(told);
        }
        assert_eq!(named.len(), 200, "everybody is known to somebody");
    }

    #[test]
    fn what_only_this_machine_can_use_is_told_to_this_machine_only() {
        let mut home = Home::full(1);
        for number in [2, 3] {
            home.attach(seconds(10), number.into(), number, SocketAddr::from(([127, 0, 0, 1], 9)));
        }
        home.tell(seconds(20));
        assert_eq!(home.named_to(1), []);
        assert_eq!(home.named_to(2), [peer(1), peer(3)]);
    }

    #[test]
    fn who_left_is_not_told_of_and_who_came_back_before_is() {
        let mut home = Home::full(2);
        home.attach(seconds(11), 12, 2, address(12));
        home.volunteers.left(2);
        home.tell(seconds(20));
        assert_eq!(home.told[&1], [Contact { peer: peer(2), address: address(12) }]);
        home.volunteers.left(12);
        assert!(home.volunteers.willing.len() == 1 && home.volunteers.ranked.len() == 1);
    }
}
