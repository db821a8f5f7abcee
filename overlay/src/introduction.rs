//! Pure: by which ways two leaves come together, and which addresses may be tried.
//!
//! Both sides, and the homes that count it, come to the same conclusion from the same facts, so no message has to say
//! it: what is in front of the two, and where homes see them.
//!
//! ```text
//! direct   the asker dials, because others can dial the target, or nothing lies between the two
//! push     the target dials, because others can dial the asker
//! punch    the asker dials while the target sends single bytes through its NAT
//! relay    both dial a home of the target
//! ```

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{address::Reach, limits, wire::search::Reachability};

/// What is in front of a leaf, as it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Nature {
    /// Whether others can dial it.
    pub reachability: Reachability,
    /// How its NAT chooses ports.
    pub mapping: Mapping,
}

/// How the NAT in front of a leaf chooses ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mapping {
    /// Not known: fewer than two homes have seen the leaf.
    #[default]
    Unknown,
    /// The same port towards everybody, or there is no NAT.
    Steady,
    /// Another port towards each.
    Changing,
}

/// How one leaf comes to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Way {
    /// The asker dials.
    Direct,
    /// The target dials.
    Push,
    /// The asker dials, and the target opens its NAT.
    Punch,
    /// Over a home of the target.
    Relay,
}

/// The ways that may lead to a target, the most promising first. `near` says that nothing lies between the two
/// ([`is_near`]).
///
/// A punch through a NAT that chooses another port for each is not tried at first: the other side would have to let in
/// any port, and then it is open or as good as that, or the two wait for nothing (Halkes and Pouwelse, "UDP NAT and
/// Firewall Puncturing in the Wild", 2011: such pairs are one in eight).
pub fn ways(asker: Nature, target: Nature, near: bool) -> Vec<Way> {
    let changing = |nature: Nature| nature.mapping == Mapping::Changing;
    let mut ways = Vec::with_capacity(4);
    if near || target.is_open() {
        ways.push(Way::Direct);
    }
    if asker.is_open() {
        ways.push(Way::Push);
    }
    if !changing(asker) && !changing(target) {
        ways.push(Way::Punch);
    }
    ways.push(Way::Relay);
    ways
}

/// True if nothing lies between two leaves that homes see at these addresses: they are seen at the same one, or the
/// homes see them inside of a machine or a site.
pub fn is_near(one: SocketAddr, other: SocketAddr) -> bool {
    let (one, other) = (one.ip().to_canonical(), other.ip().to_canonical());
    one == other || (Reach::of(one) == Reach::of(other) && Reach::of(one) != Reach::World)
}

/// True if a leaf that is seen at `observed` may send something to an address that others named: of a host, and not
/// further inside of somebody's network than `observed`.
pub fn may_try(address: SocketAddr, observed: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    is_of_host(ip) && Reach::of(ip) >= Reach::of(observed.ip()) && is_of_user(address.port())
}

/// True if a leaf may send something to an address that another one has in its own network, as that one says. To be
/// asked only if both are seen at the same address.
pub fn may_try_local(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    is_of_host(ip) && Reach::of(ip) == Reach::Site && is_of_user(address.port())
}

/// Those of `addresses` that are worth a try, the best first: IPv6 before IPv4, because there is seldom a NAT.
pub fn sorted(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut distinct: Vec<_> =
        addresses.into_iter().map(|address| SocketAddr::new(address.ip().to_canonical(), address.port())).collect();
    distinct.sort_unstable_by_key(|address| (address.is_ipv4(), *address));
    distinct.dedup();
    distinct.truncate(limits::CANDIDATES + limits::LOCAL_ADDRESSES);
    distinct
}

fn is_of_host(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || is_broadcast)
}

/// Services that answer whoever asks, such as name servers, have ports below 1024; a node is there only at the one that
/// every firewall lets through.
const fn is_of_user(port: u16) -> bool {
    port >= 1024 || port == 443
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPEN: Nature = Nature { reachability: Reachability::Public, mapping: Mapping::Steady };
    const EASY: Nature = Nature { reachability: Reachability::Natted, mapping: Mapping::Steady };
    const HARD: Nature = Nature { reachability: Reachability::Natted, mapping: Mapping::Changing };
    const UNKNOWN: Nature = Nature { reachability: Reachability::Unknown, mapping: Mapping::Unknown };

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ways_follow_from_what_is_in_front_of_the_two() {
        use Way::{Direct, Punch, Push, Relay};
        for (asker, target, near, expected) in [
            (EASY, OPEN, false, &[Direct, Punch, Relay][..]),
            (OPEN, OPEN, false, &[Direct, Push, Punch, Relay]),
            (OPEN, EASY, false, &[Push, Punch, Relay]),
            (OPEN, HARD, false, &[Push, Relay]),
            (EASY, EASY, false, &[Punch, Relay]),
            (UNKNOWN, UNKNOWN, false, &[Punch, Relay]),
            (HARD, EASY, false, &[Relay]),
            (HARD, HARD, true, &[Direct, Relay]),
        ] {
            assert_eq!(ways(asker, target, near), expected, "{asker:?} {target:?} {near}");
        }
    }

    #[test]
    fn those_inside_of_one_site_or_behind_one_address_are_near() {
        assert!(is_near(at("127.0.0.1:1"), at("127.0.0.1:2")));
        assert!(is_near(at("10.0.0.1:1"), at("192.168.0.1:2")), "one home sees both without a NAT");
        assert!(is_near(at("203.0.113.1:1"), at("[::ffff:203.0.113.1]:2")));
        assert!(!is_near(at("203.0.113.1:1"), at("203.0.113.2:1")));
        assert!(!is_near(at("203.0.113.1:1"), at("10.0.0.1:1")));
    }

    #[test]
    fn addresses_that_cannot_be_the_targets_are_not_tried() {
        let outside = at("203.0.113.9:7780");
        for (address, observed, fits) in [
            ("203.0.113.1:7780", outside, true),
            ("203.0.113.1:443", outside, true),
            ("203.0.113.1:53", outside, false),
            ("10.0.0.1:7780", outside, false),
            ("127.0.0.1:7780", outside, false),
            ("10.0.0.1:7780", at("10.0.0.2:7780"), true),
            ("127.0.0.1:7780", at("10.0.0.2:7780"), false),
            ("127.0.0.1:7780", at("127.0.0.1:1"), true),
            ("203.0.113.1:7780", at("127.0.0.1:1"), true),
            ("224.0.0.1:7780", outside, false),
            ("255.255.255.255:7780", outside, false),
            ("[ff02::1]:7780", outside, false),
            ("[::]:7780", outside, false),
        ] {
            assert_eq!(may_try(at(address), observed), fits, "{address} seen at {observed}");
        }
        assert!(may_try_local(at("192.168.0.2:7780")));
        for elsewhere in ["203.0.113.1:7780", "127.0.0.1:7780", "192.168.0.1:53"] {
            assert!(!may_try_local(at(elsewhere)), "{elsewhere}");
        }
    }

    #[test]
    fn ipv6_is_tried_first() {
        let mixed = [at("203.0.113.1:1"), at("[2001:db8::1]:1"), at("[::ffff:203.0.113.1]:1")];
        assert_eq!(sorted(mixed), [at("[2001:db8::1]:1"), at("203.0.113.1:1")]);
    }

    proptest! {
        #[test]
        fn there_is_always_a_way_and_never_the_same_twice(asker in 0..4usize, target in 0..4usize, near: bool) {
            let natures = [OPEN, EASY, HARD, UNKNOWN];
            let ways = ways(natures[asker], natures[target], near);
            prop_assert_eq!(ways.last(), Some(&Way::Relay));
            prop_assert!(ways.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
