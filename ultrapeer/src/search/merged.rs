//! What several homes tell of one content, as one hit.

use std::cmp::Reverse;

use overlay::{
    limits,
    wire::{
        bounded::List,
        search::{HITS_CAP, Hit, HitPeer, Holder},
    },
};
use rustc_hash::FxHashMap;

use crate::index::rank::availability;

/// A content, as far as it is known.
#[derive(Debug)]
pub(super) struct Merged {
    hit: Hit,
    /// The part of its score that is not availability; the best that any ultrapeer says.
    fit: u32,
    /// Sources of whoever told its size.
    sized_by: u32,
    /// By handle: the place in the hit's names of the holder's own.
    holders: FxHashMap<u64, Option<u8>>,
    /// Handles of leaves that have it by their digests.
    named: Box<[u64]>,
    /// Sources of other parts of the leaf space that were counted and not named.
    counted: u32,
}

impl Merged {
    /// From the first that tells of it; `named` are leaves that have it by their digests.
    pub(super) fn new(mut hit: Hit, named: &[u64]) -> Self {
        let listed = |name: &u8| usize::from(*name) < hit.names.len();
        let holders = hit.holders.iter().map(|holder| (holder.handle, holder.name.filter(listed))).collect();
        hit.holders = List::default();
        let sized_by = hit.sources;
        let mut merged = Self { fit: fit(&hit), hit, sized_by, holders, named: named.into(), counted: 0 };
        merged.hit.sources = merged.hit.sources.max(merged.sources());
        merged
    }

    /// So many more leaves have it, in a part of the leaf space of which nobody else tells.
    pub(super) fn add_counted(&mut self, sources: u32) {
        self.counted = self.counted.saturating_add(sources);
        self.hit.sources = self.hit.sources.saturating_add(sources);
    }

    /// Takes over what another home knows. True if the asker should learn of it.
    pub(super) fn merge(&mut self, other: Hit) -> bool {
        let known = self.hit.clone();
        let best_before = known.peers.first().map(|peer| peer.peer);
        self.merge_sources(&other);
        self.merge_names(&other);
        self.fit = self.fit.max(fit(&other));
        if other.tags.known() > self.hit.tags.known() {
            self.hit.tags = other.tags;
        }
        // A content has one size; when two are claimed, the one of more sources is the likelier.
        if other.sources > self.sized_by {
            (self.hit.size, self.sized_by) = (other.size, other.sources);
        }
        let best = self.hit.peers.first().map(|peer| peer.peer);
        if best != best_before && best == other.peers.first().map(|peer| peer.peer) {
            (self.hit.path, self.hit.modified_s) = (other.path, other.modified_s);
        }
        self.hit.score = self.fit + availability(self.hit.networks, has_free_slot(&self.hit));
        self.hit != known
    }

    /// Counts each holder once. Networks are not told one by one: two ultrapeers' are taken to overlap as much as
    /// their holders do.
    fn merge_sources(&mut self, other: &Hit) {
        let apart = self.holders.len() + other.holders.len();
        for holder in &*other.holders {
            self.holders.entry(holder.handle).or_default();
        }
        let together = self.holders.len();
        let sources = self.sources().max(other.sources.saturating_add(self.counted));
        let hit = &mut self.hit;
        hit.sources = hit.sources.max(sources);
        let networks = u64::from(hit.networks.saturating_add(other.networks)) * together as u64 / apart.max(1) as u64;
        hit.networks = hit.networks.max(other.networks).max(networks as u32).min(hit.sources);
        hit.peers = merge_peers(&hit.peers, &other.peers);
    }

    /// Leaves that are known to have it.
    fn sources(&self) -> u32 {
        let named = self.named.iter().filter(|handle| !self.holders.contains_key(handle)).count();
        ((self.holders.len() + named) as u32).saturating_add(self.counted)
    }

    /// Orders the names of both by how many holders have them.
    fn merge_names(&mut self, other: &Hit) {
        let names = union(&self.hit.names, &other.names);
        let place = |name: &_| names.iter().position(|known| known == name).map(|place| place as u8);
        for holder in &*other.holders {
            let name = holder.name.and_then(|name| other.names.get(usize::from(name)));
            let known = self.holders.entry(holder.handle).or_default();
            *known = known.or_else(|| name.and_then(place));
        }
        let mut counts = vec![0u32; names.len()];
        for name in self.holders.values().flatten() {
            counts[usize::from(*name)] += 1;
        }
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|place| (Reverse(counts[*place]), &names[*place]));
        let mut moved = vec![None; names.len()];
        for (new, old) in order.iter().take(limits::HIT_NAMES).enumerate() {
            moved[*old] = Some(new as u8);
        }
        for name in self.holders.values_mut() {
            *name = name.and_then(|old| moved[usize::from(old)]);
        }
        self.hit.names = List::new(order.into_iter().map(|place| names[place].clone()));
    }

    /// The hit without the handles, which are for ultrapeers only.
    pub(super) fn for_asker(&self) -> Hit {
        self.hit.clone()
    }

    /// The hit with as many handles as it may carry.
    pub(super) fn for_mesh(&self) -> Hit {
        let mut holders: Vec<_> =
            self.holders.iter().map(|(handle, name)| Holder { handle: *handle, name: *name }).collect();
        let named = self.named.iter().filter(|handle| !self.holders.contains_key(handle));
        holders.extend(named.map(|handle| Holder { handle: *handle, name: None }));
        holders.sort_unstable_by_key(|holder| holder.handle);
        Hit { holders: List::new(holders), ..self.hit.clone() }
    }
}

fn fit(hit: &Hit) -> u32 {
    hit.score.saturating_sub(availability(hit.networks, has_free_slot(hit)))
}

/// The sources with free slots are listed first, so the first tells of all.
fn has_free_slot(hit: &Hit) -> bool {
    hit.peers.first().is_some_and(|peer| peer.free_slots > 0)
}

fn union<T: Clone + PartialEq>(first: &[T], second: &[T]) -> Vec<T> {
    let new = second.iter().filter(|item| !first.contains(item));
    first.iter().chain(new).cloned().collect()
}

/// Sources by both, each with all homes that know it, in the order of [`crate::index::rank`].
fn merge_peers(first: &[HitPeer], second: &[HitPeer]) -> List<HitPeer, { limits::HIT_PEERS }> {
    let mut peers = first.to_vec();
    for peer in second {
        match peers.iter_mut().find(|known| known.peer == peer.peer) {
            Some(known) => known.homes = List::new(union(&known.homes, &peer.homes)),
            None => peers.push(peer.clone()),
        }
    }
    peers.sort_by_key(|peer| (peer.free_slots == 0, !peer.reachability.is_open(), peer.queue, peer.peer));
    List::new(peers)
}

/// Cuts hits into frames that stay below half of the frame's cap.
pub fn frames(hits: impl IntoIterator<Item = Hit>) -> Vec<List<Hit, { limits::HITS_PER_FRAME }>> {
    let mut frames = Vec::new();
    let mut frame = Vec::new();
    let mut bytes = 0;
    for hit in hits {
        let size = encoded_bytes(&hit);
        if frame.len() == limits::HITS_PER_FRAME || (bytes + size > HITS_CAP / 2 && !frame.is_empty()) {
            frames.push(List::new(std::mem::take(&mut frame)));
            bytes = 0;
        }
        bytes += size;
        frame.push(hit);
    }
    if !frame.is_empty() {
        frames.push(List::new(frame));
    }
    frames
}

/// An upper bound of a hit's encoded size, without encoding it.
fn encoded_bytes(hit: &Hit) -> usize {
    let names: usize = hit.names.iter().map(|name| name.len() + 2).sum();
    let tags = [&hit.tags.artist, &hit.tags.album, &hit.tags.title, &hit.tags.genre];
    let tags: usize = tags.into_iter().flatten().map(|tag| tag.len() + 3).sum();
    160 + names + hit.path.len() + tags + hit.peers.len() * (48 + 32 * limits::HOMES) + hit.holders.len() * 12
}
