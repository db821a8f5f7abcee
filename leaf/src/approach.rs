//! Core: how this leaf comes to another, and what it does when another wants to come to it.
//!
//! ```text
//!   asks     Introduced ──> a course: the first way; if it fails the next, with an introduction of its own; relay last
//!   is asked Introduction ──> agrees or not; dials (push), sends single bytes (punch), or waits to be dialled
//! ```
//!
//! Invariants:
//! - an address that others named gets at most [`limits::NAMED_FLIGHTS`] flights of first packets and
//!   [`limits::NAMED_PROBES`] single bytes in [`limits::NAMED_LIFETIME`], whoever names it and how often, unless the
//!   leaf that was looked for answers there;
//! - nothing is sent to what cannot be the other leaf's: not further inside of this machine or site than where a home
//!   sees this leaf ([`may_try`]);
//! - one that asks too often is refused.

use std::{collections::BTreeMap, net::SocketAddr};

use overlay::{
    address::Reach,
    credit::TokenBucket,
    id::PeerId,
    introduction::{Nature, Way, is_near, may_try, may_try_local, sorted, ways},
    limits,
    time::Time,
    wire::leaf::{Introduction, Whereabouts},
};

/// See the module text.
#[derive(Debug, Default)]
pub struct Approaches {
    named: BTreeMap<SocketAddr, Spent>,
    credit: BTreeMap<PeerId, TokenBucket>,
    agreed: BTreeMap<(PeerId, u64), Agreed>,
}

/// What was sent to an address that did not answer.
#[derive(Clone, Copy, Debug)]
struct Spent {
    flights: u8,
    probes: u8,
    since: Time,
}

#[derive(Clone, Copy, Debug)]
struct Agreed {
    way: Way,
    until: Time,
}

/// What to do for one that wants to reach this leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Help {
    /// Decline.
    Refuse,
    /// Agree; there is nothing to do.
    Wait,
    /// Agree, and dial it at any of these.
    Dial(Vec<SocketAddr>),
    /// Agree, and send single bytes to these.
    Probe(Vec<SocketAddr>),
}

/// How to come to another leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Course {
    /// Ways that were not tried yet, the most promising first.
    ways: Vec<Way>,
    /// Whether nothing lies between the two.
    pub near: bool,
    /// Addresses that are worth a try.
    pub addresses: Vec<SocketAddr>,
}

impl Course {
    /// What follows from an introduction. `tried` are ways that failed before.
    pub fn new(own: Nature, found: &Whereabouts, tried: &[Way]) -> Self {
        let near = found.addresses.iter().any(|address| is_near(*address, found.observed));
        let seen = found.addresses.iter().copied().filter(|address| may_try(*address, found.observed));
        let beside = |address: &SocketAddr| near && may_try_local(*address);
        let addresses = sorted(seen.chain(found.local.iter().copied().filter(beside)));
        let ways = ways(own, found.nature, near).into_iter().filter(|way| !tried.contains(way)).collect();
        Self { ways, near, addresses }
    }

    /// The way to try now.
    pub fn way(&self) -> Option<Way> {
        self.ways.first().copied()
    }
}

impl Approaches {
    /// Another leaf wants to reach this one, which is of nature `own`.
    pub fn introduced(&mut self, now: Time, introduction: &Introduction, own: Nature) -> Help {
        let Introduction { peer, way, token, side, observed, .. } = introduction;
        self.agreed.retain(|_, agreed| now < agreed.until);
        if self.agreed.contains_key(&(*peer, *token)) {
            // Another home asks for the same.
            return Help::Wait;
        }
        if !self.may_ask(now, peer) || self.agreed.len() >= limits::INTRODUCED_PEERS {
            return Help::Refuse;
        }
        let near = is_near(side.address, *observed);
        let way = way.or_else(|| ways(side.nature, own, near).first().copied()).unwrap_or(Way::Direct);
        let shown = if near && way == Way::Punch { Way::Direct } else { way };
        self.agreed.insert((*peer, *token), Agreed { way: shown, until: now + limits::INTRODUCTION_LIFETIME });
        let seen = Some(side.address).filter(|address| may_try(*address, *observed));
        let beside = |address: &SocketAddr| {
            side.address.ip().to_canonical() == observed.ip().to_canonical() && may_try_local(*address)
        };
        let addresses = sorted(seen.into_iter().chain(side.local.iter().copied().filter(beside)));
        match way {
            Way::Push => match self.may_dial(now, addresses) {
                granted if granted.is_empty() => Help::Wait,
                granted => Help::Dial(granted),
            },
            // Between neighbours a firewall may stand where there is no NAT.
            Way::Punch | Way::Direct if way == Way::Punch || !own.is_open() => match self.may_probe(now, addresses) {
                granted if granted.is_empty() => Help::Wait,
                granted => Help::Probe(granted),
            },
            _ => Help::Wait,
        }
    }

    /// The way by which one comes that was agreed to under that token; `None` if nothing was.
    pub fn agreed(&self, now: Time, peer: &PeerId, token: u64) -> Option<Way> {
        self.agreed.get(&(*peer, token)).filter(|agreed| now < agreed.until).map(|agreed| agreed.way)
    }

    /// Those of `addresses` that may be dialled now: each gets [`limits::NAMED_FLIGHTS`] flights.
    pub fn may_dial(&mut self, now: Time, addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        self.spend(now, addresses, |spent| {
            let fits = spent.flights == 0;
            spent.flights = limits::NAMED_FLIGHTS;
            fits
        })
    }

    /// Those of `addresses` that may get single bytes now: each gets [`limits::NAMED_PROBES`].
    pub fn may_probe(&mut self, now: Time, addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        self.spend(now, addresses, |spent| {
            let fits = spent.probes == 0;
            spent.probes = limits::NAMED_PROBES;
            fits
        })
    }

    /// This machine's own addresses are nobody else's, so nobody is harmed there.
    fn spend(&mut self, now: Time, addresses: Vec<SocketAddr>, take: impl Fn(&mut Spent) -> bool) -> Vec<SocketAddr> {
        self.named.retain(|_, spent| now.since(spent.since) < limits::NAMED_LIFETIME);
        let mut granted = addresses;
        granted.retain(|address| {
            if Reach::of(address.ip()) == Reach::Host {
                return true;
            }
            if self.named.len() >= limits::NAMED_ADDRESSES && !self.named.contains_key(address) {
                return false;
            }
            take(self.named.entry(*address).or_insert(Spent { flights: 0, probes: 0, since: now }))
        });
        granted
    }

    /// The leaf that was looked for answered there.
    pub fn answered(&mut self, address: &SocketAddr) {
        self.named.remove(address);
    }

    fn may_ask(&mut self, now: Time, peer: &PeerId) -> bool {
        if self.credit.len() >= limits::INTRODUCED_PEERS && !self.credit.contains_key(peer) {
            self.credit.retain(|_, bucket| !bucket.is_full(now));
            if self.credit.len() >= limits::INTRODUCED_PEERS {
                return false;
            }
        }
        let (rate, burst) = (limits::INTRODUCTION_RATE, limits::INTRODUCTION_BURST);
        self.credit.entry(*peer).or_insert_with(|| TokenBucket::new(now, rate, burst)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use overlay::{
        introduction::Mapping,
        wire::{bounded::List, leaf::Side, search::Reachability},
    };
    use proptest::prelude::*;

    use super::*;

    const OPEN: Nature = Nature { reachability: Reachability::Public, mapping: Mapping::Steady };
    const EASY: Nature = Nature { reachability: Reachability::Natted, mapping: Mapping::Steady };

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn introduction(from: u8, token: u64, address: &str, nature: Nature) -> Introduction {
        let side = Side { address: at(address), nature, local: List::new([at("10.0.0.9:7780")]) };
        Introduction { session: 1, peer: peer(from), way: None, token, side, observed: at("198.51.100.1:7780") }
    }

    #[test]
    fn a_target_helps_by_what_is_in_front_of_the_two() {
        let mut core = Approaches::default();
        let mut help = |token, asker, own| {
            core.introduced(Time(0), &introduction(1, token, &format!("203.0.113.{token}:9"), asker), own)
        };
        assert_eq!(help(1, EASY, OPEN), Help::Wait);
        assert_eq!(help(2, OPEN, EASY), Help::Wait, "port 9 is nobody's");
        let mut help = |token: u64, asker, own| {
            core.introduced(Time(0), &introduction(1, token, &format!("203.0.113.{token}:7780"), asker), own)
        };
        assert_eq!(help(3, OPEN, EASY), Help::Dial(vec![at("203.0.113.3:7780")]));
        assert_eq!(help(4, EASY, EASY), Help::Probe(vec![at("203.0.113.4:7780")]));
        assert_eq!(help(4, EASY, EASY), Help::Wait, "another home told of the same");
        assert_eq!(core.agreed(Time(0), &peer(1), 3), Some(Way::Push));
        assert_eq!(core.agreed(Time(0), &peer(1), 4), Some(Way::Punch));
        assert_eq!(core.agreed(Time(0), &peer(2), 4), None);
        assert_eq!(core.agreed(Time(0) + limits::INTRODUCTION_LIFETIME, &peer(1), 4), None);
    }

    #[test]
    fn neighbours_try_where_they_are_in_their_own_network() {
        let mut core = Approaches::default();
        let beside = introduction(1, 1, "198.51.100.1:1234", EASY);
        let expected = vec![at("10.0.0.9:7780"), at("198.51.100.1:1234")];
        assert_eq!(core.introduced(Time(0), &beside, EASY), Help::Probe(expected.clone()));
        let found = Whereabouts {
            addresses: List::new([at("198.51.100.1:1234")]),
            nature: EASY,
            local: List::new([at("10.0.0.9:7780"), at("203.0.113.1:7780")]),
            observed: at("198.51.100.1:7780"),
            relays: List::default(),
        };
        let course = Course::new(EASY, &found, &[]);
        assert_eq!((course.way(), course.near, course.addresses), (Some(Way::Direct), true, expected));
        assert_eq!(Course::new(EASY, &found, &[Way::Direct]).way(), Some(Way::Punch));
        let all = [Way::Direct, Way::Punch, Way::Relay];
        assert_eq!(Course::new(EASY, &found, &all).way(), None);
    }

    #[test]
    fn a_victims_address_gets_so_little_whoever_names_it() {
        let mut core = Approaches::default();
        let (mut dialled, mut probed) = (0, 0);
        for minute in 0..59 {
            for asker in 0..20 {
                let now = Time(0) + Duration::from_mins(minute);
                let nature = if asker % 2 == 0 { OPEN } else { EASY };
                let named = introduction(asker, minute * 100 + u64::from(asker), "203.0.113.7:7780", nature);
                match core.introduced(now, &named, EASY) {
                    Help::Dial(to) => dialled += to.len(),
                    Help::Probe(to) => probed += to.len(),
                    Help::Wait | Help::Refuse => {}
                }
                dialled += core.may_dial(now, vec![at("203.0.113.7:7780")]).len();
            }
        }
        assert_eq!((dialled, probed), (1, 1), "one dial of three flights, and one round of twelve bytes");
        let later = Time(0) + limits::NAMED_LIFETIME;
        assert_eq!(core.may_dial(later, vec![at("203.0.113.7:7780")]).len(), 1);
    }

    #[test]
    fn what_answers_may_be_dialled_again() {
        let (mut core, there) = (Approaches::default(), at("203.0.113.7:7780"));
        assert_eq!(core.may_dial(Time(0), vec![there]), [there]);
        assert!(core.may_dial(Time(1), vec![there]).is_empty());
        core.answered(&there);
        assert_eq!(core.may_dial(Time(2), vec![there]), [there]);
        let here = at("127.0.0.1:7780");
        assert_eq!([core.may_dial(Time(0), vec![here]), core.may_dial(Time(0), vec![here])], [[here], [here]]);
    }

    #[test]
    fn one_that_asks_all_the_time_is_refused_and_others_are_not() {
        let mut core = Approaches::default();
        let refused = |core: &mut Approaches, from, tokens: std::ops::Range<u64>| {
            let help = |token| core.introduced(Time(0), &introduction(from, token, "203.0.113.7:7780", OPEN), OPEN);
            tokens.map(help).filter(|help| *help == Help::Refuse).count()
        };
        assert_eq!(refused(&mut core, 1, 0..100), 100 - limits::INTRODUCTION_BURST as usize);
        assert_eq!(refused(&mut core, 2, 0..5), 0);
    }

    proptest! {
        #[test]
        fn whatever_is_named_memory_is_bounded_and_nothing_leaves_for_this_site(
            octets in proptest::collection::vec((any::<[u8; 4]>(), any::<u16>()), 0..200),
        ) {
            let mut core = Approaches::default();
            for (token, (octets, port)) in octets.into_iter().enumerate() {
                let address = SocketAddr::from((octets, port)).to_string();
                let named = introduction((token % 200) as u8, token as u64, &address, EASY);
                if let Help::Probe(to) | Help::Dial(to) = core.introduced(Time(0), &named, EASY) {
                    let near = named.side.address.ip() == named.observed.ip();
                    prop_assert!(near || to.iter().all(|to| Reach::of(to.ip()) == Reach::World));
                }
            }
            prop_assert!(core.named.len() <= limits::NAMED_ADDRESSES);
        }
    }
}
