//! Who may serve as an ultrapeer: the rules that voters, candidates and all who read descriptors share.
//!
//! What it decides: who votes on whom, what a node is worth, whether a part of the Internet has enough ultrapeers,
//! whether the network grows too fast, and whether it wants more of them.
//!
//! Nobody believes what a node says of itself. Of each candidate, the [`limits::VOTERS`] members vote that are lowest in
//! an order which follows from its own place and theirs: neither can choose that order, because a place is a part of
//! the Internet. They reach it by connections of their own, measure how fast it sends, and sign. A descriptor counts
//! with the signatures of [`needed`] members.
//!
//! What is asked of a node depends on where it is ([`Regime`]): networks with a secret trust their members, and between
//! private addresses nothing but being reachable is asked.
//!
//! No proof of work: it burns power, and stops nobody who has hardware. A botnet with an address in each of thousands
//! of networks is only slowed down by all this.
//!
//! | module | what it decides |
//! |---|---|
//! | [`ballots`] | a voter: whom to dial back, whom to endorse |
//! | [`candidacy`] | a candidate: whom to ask, and when again |
//! | [`demand`] | whether more are wanted |
//! | [`growth`] | whether the network grows too fast |

pub mod ballots;
pub mod candidacy;
mod demand;
mod growth;

use std::net::{IpAddr, SocketAddr};

pub use self::{
    ballots::{Ballots, Finding, Measurement, Missed, worst_volunteer},
    candidacy::Candidacy,
    demand::{Demand, Shard, floor},
    growth::{Growth, Pace},
};
use crate::{
    address::{Reach, network_prefix},
    id::PeerId,
    limits,
    wire::{
        descriptor::Descriptor,
        election::{Hurdle, Measured},
    },
};

/// What a network asks of its ultrapeers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// It has a secret: whoever knows it may serve, if it can be reached.
    Secret,
    /// It has a name of its own: whoever can be reached may serve, if others say so.
    Named,
    /// It is the public one: what a node can do is measured, and a part of the Internet has a limited number of places.
    Public,
}

impl Regime {
    /// That of the network of this name.
    pub fn of(network: &str, has_secret: bool) -> Self {
        match network {
            _ if has_secret => Self::Secret,
            "public" => Self::Public,
            _ => Self::Named,
        }
    }

    /// True if descriptors count by the signatures of members.
    pub fn has_votes(self) -> bool {
        self != Self::Secret
    }

    /// Endorsements with which a node may serve in a network of so many.
    pub const fn needed(self, total: u32) -> usize {
        match self {
            Self::Secret => 1,
            Self::Named | Self::Public => needed(total),
        }
    }

    /// True if a node at that address is measured, and its part of the Internet counts.
    pub fn is_strict(self, address: IpAddr) -> bool {
        self == Self::Public && Reach::of(address) == Reach::World
    }
}

/// Endorsements of members with which a descriptor counts in a network of so many.
pub const fn needed(total: u32) -> usize {
    if total < limits::VOTES_FROM { 1 } else { limits::VOTES }
}

/// Where a member or candidate stands among the voters of a candidate: the lowest vote. It follows from both their
/// parts of the Internet, /24 or /48; where those say nothing, from their keys.
pub fn rank(candidate: &Descriptor, voter: &Descriptor) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("quictrack 2026-11-28 voters of a candidate");
    hasher.update(&candidate.network);
    for node in [candidate, voter] {
        hasher.update(&place(&node.peer, node.address).to_le_bytes());
    }
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// The `most` members that vote on a candidate, the first first. It does not vote on itself.
pub fn voters<'a>(
    candidate: &Descriptor,
    members: impl Iterator<Item = &'a Descriptor>,
    most: usize,
) -> Vec<&'a Descriptor> {
    let mut ranked: Vec<_> = members
        .filter(|member| member.peer != candidate.peer)
        .map(|member| (rank(candidate, member), member.peer, member))
        .collect();
    ranked.sort_unstable_by_key(|(rank, peer, _)| (*rank, *peer));
    ranked.truncate(most);
    ranked.into_iter().map(|(.., member)| member).collect()
}

/// A node's place: its part of the Internet, or its key in ranges that anybody may use.
fn place(peer: &PeerId, address: SocketAddr) -> u64 {
    match Reach::of(address.ip()) {
        Reach::World => network_prefix(address, 24, 48),
        Reach::Host | Reach::Site => u64::from_le_bytes(peer.first_bytes()),
    }
}

/// Places in a network of `total`: how many in each part of the Internet of so many bits, IPv4 and IPv6.
pub const fn places(total: u32) -> [(u32, u32, u32); 2] {
    let share = total / limits::ULTRAPEERS_WIDE_SHARE;
    let least = limits::ULTRAPEERS_PER_WIDE_PREFIX;
    [(limits::ULTRAPEERS_PER_PREFIX, 24, 48), (if share > least { share } else { least }, 16, 32)]
}

/// True if there is a place for one more at `address`, whose peer is `peer`, among these members: one in each /24 (IPv6
/// /48), and in each /16 (/32) two, or one of a hundred of all. Addresses that are not of the whole Internet do not count.
pub fn has_place<'a>(
    peer: &PeerId,
    address: SocketAddr,
    members: impl Iterator<Item = &'a Descriptor>,
    total: u32,
) -> bool {
    if Reach::of(address.ip()) != Reach::World {
        return true;
    }
    let places = places(total);
    let mut taken = places.map(|_| 0);
    for other in members.filter(|other| other.peer != *peer && Reach::of(other.address.ip()) == Reach::World) {
        for (taken, (_, v4_bits, v6_bits)) in taken.iter_mut().zip(places) {
            *taken +=
                u32::from(network_prefix(other.address, v4_bits, v6_bits) == network_prefix(address, v4_bits, v6_bits));
        }
    }
    taken.iter().zip(places).all(|(taken, (most, ..))| *taken < most)
}

/// What a node is worth, in tenths: min(Mbit/s / 10, 8) x log2(1 + hours) x (1 - 10 x loss) x stability.
///
/// Capacity counts up to what a home can use, time by how much it tells of the time to come (who has stayed for long
/// stays), and a node that loses a tenth of its packets is worth nothing.
pub fn score(measured: &Measured) -> u16 {
    let bandwidth = (f64::from(measured.bandwidth_kbit) / f64::from(limits::ELECTION_BANDWIDTH_KBIT)).min(8.0);
    let hours = f64::from(measured.uptime_s) / 3600.0;
    let loss = (1.0 - 10.0 * f64::from(measured.loss_ppm) / 1e6).max(0.0);
    let stability = f64::from(measured.stability.min(1000)) / 1000.0;
    (10.0 * bandwidth * (1.0 + hours).log2() * loss * stability).min(f64::from(u16::MAX)) as u16
}

/// What keeps a node with these measurements from serving where they count. `needs_uptime` is false of one that its operator offers,
/// and while there are too few ultrapeers.
pub fn falls_short(measured: &Measured, needs_uptime: bool) -> Option<Hurdle> {
    if measured.bandwidth_kbit < limits::ELECTION_BANDWIDTH_KBIT {
        Some(Hurdle::Bandwidth)
    } else if measured.loss_ppm >= limits::ELECTION_LOSS_PPM {
        Some(Hurdle::Loss)
    } else if needs_uptime && u64::from(measured.uptime_s) < limits::ELECTION_UPTIME.as_secs() {
        Some(Hurdle::Uptime)
    } else {
        None
    }
}

impl Hurdle {
    /// What a person calls it: the name of the criterion in `status` that it belongs to.
    pub const fn criterion(self) -> &'static str {
        match self {
            Self::Reachable | Self::Protocol | Self::Silent | Self::Untrue => "reachable",
            Self::Uptime => "uptime",
            Self::Bandwidth => "bandwidth",
            Self::Loss => "loss",
            Self::Prefix => "prefix",
            Self::Demand | Self::Growth | Self::Busy => "demand",
        }
    }

    /// In words, for logs and messages.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Reachable => "it was not reached from outside",
            Self::Uptime => "it has not been seen for long enough",
            Self::Bandwidth => "it sends too slowly",
            Self::Loss => "it loses too many packets",
            Self::Prefix => "its part of the Internet has as many ultrapeers as it may have",
            Self::Demand => "there are enough ultrapeers",
            Self::Growth => "the network grows as fast as it may",
            Self::Busy => "others are being measured",
            Self::Protocol => "it does not keep to the protocol",
            Self::Silent => "it was let in before, and fell silent soon after",
            Self::Untrue => "what it told of its leaves is not so",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{identity::Identity, wire::descriptor::network_tag};

    fn node(number: u8, address: &str) -> Descriptor {
        Descriptor {
            peer: Identity::from_seed([number; 32]).peer_id(),
            network: network_tag("public"),
            address: address.parse().expect("an address"),
            shard: crate::wire::descriptor::ShardPrefix::ALL,
            capacity: 1000,
            sequence: 1,
            lifetime_s: 7200,
            admission: 1,
            volunteer: true,
        }
    }

    #[test]
    fn a_network_with_a_secret_trusts_and_only_the_public_one_measures() {
        assert_eq!(Regime::of("public", true), Regime::Secret);
        assert_eq!(Regime::of("home", false), Regime::Named);
        let public = Regime::of("public", false);
        assert!(public.is_strict("203.0.113.7".parse().unwrap()));
        assert!(public.has_votes() && !Regime::Secret.has_votes());
        for private in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "169.254.1.1", "fe80::1"] {
            assert!(!public.is_strict(private.parse().unwrap()), "{private}");
        }
        assert!(!Regime::Named.is_strict("203.0.113.7".parse().unwrap()));
    }

    #[test]
    fn a_key_does_not_choose_its_voters_where_places_are_scarce() {
        let members: Vec<_> = (1..=20).map(|n| node(n, &format!("203.0.{n}.1:7780"))).collect();
        let of = |candidate: &Descriptor| {
            voters(candidate, members.iter(), 3).iter().map(|member| member.peer).collect::<Vec<_>>()
        };
        let candidate = node(77, "198.51.100.9:7780");
        let same_place = node(78, "198.51.100.200:1");
        assert_eq!(of(&candidate), of(&same_place));
        let elsewhere: std::collections::BTreeSet<_> =
            (0..50).map(|n| of(&node(77, &format!("198.51.{n}.9:7780")))).collect();
        assert!(elsewhere.len() > 40, "{} sets of voters for 50 places", elsewhere.len());
        assert!(voters(&members[3], members.iter(), 20).iter().all(|voter| voter.peer != members[3].peer));
        let [one, other] = [node(77, "10.0.0.1:1"), node(78, "10.0.0.1:2")];
        assert_ne!(of(&one), of(&other), "private addresses say nothing");
    }

    #[test]
    fn a_prefix_has_few_places() {
        let members =
            [node(1, "203.0.113.1:1"), node(2, "203.0.114.1:1"), node(3, "10.0.0.1:1"), node(4, "10.0.0.1:2")];
        let place = |number, address: &str, total| {
            let node = node(number, address);
            has_place(&node.peer, node.address, members.iter(), total)
        };
        assert!(!place(9, "203.0.113.200:7", 4), "its /24 is taken");
        assert!(place(1, "203.0.113.1:1", 4), "by itself");
        assert!(!place(9, "203.0.200.1:7", 4), "its /16 has two");
        assert!(place(9, "203.0.200.1:7", 300), "of three hundred it may have three");
        assert!(place(9, "203.1.1.1:7", 4));
        assert!(place(9, "10.0.0.1:3", 4));
        assert!(place(9, "[2001:db8::1]:3", 4));
    }

    #[test]
    fn a_score_grows_with_what_is_good_and_not_without_end() {
        let good = Measured { uptime_s: 3 * 3600, bandwidth_kbit: 40_000, loss_ppm: 0, stability: 1000 };
        assert_eq!(score(&good), 80);
        assert_eq!(score(&Measured { bandwidth_kbit: 80_000, ..good }), 160);
        assert_eq!(score(&Measured { bandwidth_kbit: 4_000_000, ..good }), 160);
        assert_eq!(score(&Measured { loss_ppm: 50_000, ..good }), 40);
        assert_eq!(score(&Measured { loss_ppm: 200_000, ..good }), 0);
        assert_eq!(score(&Measured { stability: 500, ..good }), 40);
        assert_eq!(score(&Measured { uptime_s: 0, ..good }), 0);
    }

    #[test]
    fn each_measurement_can_fall_short() {
        let good = Measured { uptime_s: 7200, bandwidth_kbit: 10_000, loss_ppm: 9_999, stability: 1000 };
        assert_eq!(falls_short(&good, true), None);
        assert_eq!(falls_short(&Measured { uptime_s: 7199, ..good }, true), Some(Hurdle::Uptime));
        assert_eq!(falls_short(&Measured { uptime_s: 0, ..good }, false), None);
        assert_eq!(falls_short(&Measured { bandwidth_kbit: 9_999, ..good }, false), Some(Hurdle::Bandwidth));
        assert_eq!(falls_short(&Measured { loss_ppm: 10_000, ..good }, false), Some(Hurdle::Loss));
    }

    proptest! {
        #[test]
        fn a_score_is_defined_for_whatever_is_told(
            uptime_s: u32, bandwidth_kbit: u32, loss_ppm: u32, stability: u16,
        ) {
            let told = Measured { uptime_s, bandwidth_kbit, loss_ppm, stability };
            let better = Measured { uptime_s: uptime_s.saturating_add(3600), ..told };
            prop_assert!(score(&told) <= score(&better));
        }
    }
}
