//! What is banned at this moment, for those who must ask fast: whoever accepts connections, looks up and serves.
//!
//! A question is a look-up in a hash set; of an address one for each length of prefix that there is, at most 33 or 129.

use std::{collections::BTreeSet, net::IpAddr};

use rustc_hash::FxHashSet;

use super::Target;
use crate::{
    address::Prefix,
    id::{ContentId, PeerId},
    wire::{bounded::List, search::Hit},
};

/// What is banned. See the module text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    peers: FxHashSet<PeerId>,
    prefixes: FxHashSet<Prefix>,
    /// Lengths of the IPv4 prefixes.
    lengths_v4: BTreeSet<u8>,
    /// Lengths of the IPv6 prefixes.
    lengths_v6: BTreeSet<u8>,
    contents: FxHashSet<ContentId>,
}

impl Rules {
    /// Of these targets.
    pub fn new(targets: impl IntoIterator<Item = Target>) -> Self {
        let mut rules = Self::default();
        for target in targets {
            match target {
                Target::Peer(peer) => drop(rules.peers.insert(peer)),
                Target::Content(content) => drop(rules.contents.insert(content)),
                Target::Prefix(prefix) => {
                    rules.prefixes.insert(prefix);
                    let is_v4 = prefix.address().is_ipv4();
                    let lengths = if is_v4 { &mut rules.lengths_v4 } else { &mut rules.lengths_v6 };
                    lengths.insert(prefix.bits());
                }
            }
        }
        rules
    }

    /// True if nobody is dealt with who has this key.
    pub fn bans_peer(&self, peer: &PeerId) -> bool {
        self.peers.contains(peer)
    }

    /// True if nobody is dealt with who is at this address; IPv4 addresses mapped into IPv6 count as IPv4.
    pub fn bans_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let lengths = if address.is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        lengths.iter().any(|bits| Prefix::new(address, *bits).is_ok_and(|prefix| self.prefixes.contains(&prefix)))
    }

    /// True if this content is neither given, fetched nor shown.
    pub fn blocks(&self, content: &ContentId) -> bool {
        self.contents.contains(content)
    }

    /// True if any content is blocked.
    pub fn blocks_any(&self) -> bool {
        !self.contents.is_empty()
    }

    /// The blocked contents, in no order.
    pub fn blocked(&self) -> impl Iterator<Item = &ContentId> {
        self.contents.iter()
    }

    /// Peers and prefixes that are banned by these and not by others, in no order.
    pub fn banned_beside<'a>(&'a self, others: &'a Self) -> impl Iterator<Item = Target> + 'a {
        let peers = self.peers.difference(&others.peers).copied().map(Target::Peer);
        peers.chain(self.prefixes.difference(&others.prefixes).copied().map(Target::Prefix))
    }

    /// Takes banned sources out of a hit. True if it must not be shown: it is blocked, or no other source is known of.
    pub fn withholds(&self, hit: &mut Hit) -> bool {
        if self.blocks(&hit.content) {
            return true;
        }
        if self.peers.is_empty() || !hit.peers.iter().any(|source| self.bans_peer(&source.peer)) {
            return false;
        }
        let before = hit.peers.len();
        hit.peers = List::new(hit.peers.iter().filter(|source| !self.bans_peer(&source.peer)).cloned());
        hit.sources = hit.sources.saturating_sub((before - hit.peers.len()) as u32);
        hit.networks = hit.networks.min(hit.sources);
        hit.sources == 0 && hit.peers.is_empty()
    }
}
