//! What is asked of each home, and how much of the memory its digests take.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{
    id::PeerId,
    limits,
    time::Time,
    wire::mesh::{DigestName, DigestPart},
};

use super::Parts;

/// The homes that digests come from.
#[derive(Debug)]
pub(super) struct Homes {
    homes: BTreeMap<PeerId, Home>,
    /// Bytes that all digests may take.
    budget: u64,
}

#[derive(Debug, Default)]
struct Home {
    /// In no order that matters: handles are random. Any of them can be taken out at once.
    waiting: BTreeSet<DigestName>,
    asked: BTreeMap<DigestName, Parts>,
    /// When it must have sent something.
    due: Option<Time>,
    /// Bytes of digests that came from it.
    bytes: u64,
}

/// What has come of a digest with its last part.
#[derive(Debug, PartialEq)]
pub(super) enum Arrived {
    /// All of it: its length, and its parts.
    Whole(u32, Parts),
    /// The home does not have it, or sent what cannot be it.
    NotThere,
}

impl Homes {
    pub(super) fn new(budget: u64) -> Self {
        Self { homes: BTreeMap::new(), budget }
    }

    pub(super) const fn budget(&self) -> u64 {
        self.budget
    }

    pub(super) fn set_budget(&mut self, budget: u64) {
        self.budget = budget;
    }

    /// False if digests of that home fill more than their share already.
    pub(super) fn may_fill(&self, home: &PeerId) -> bool {
        let bytes = self.homes.get(home).map_or(0, |home| home.bytes);
        bytes <= self.budget / limits::DIGEST_SHARE || bytes <= 4 * self.median()
    }

    fn median(&self) -> u64 {
        let mut bytes: Vec<_> = self.homes.values().map(|home| home.bytes).collect();
        let middle = bytes.len() / 2;
        if bytes.is_empty() { 0 } else { *bytes.select_nth_unstable(middle).1 }
    }

    /// Digests that the home has to send.
    pub(super) fn queued(&self, home: &PeerId) -> usize {
        self.homes.get(home).map_or(0, |home| home.waiting.len() + home.asked.len())
    }

    /// Digests of that home fill so many bytes more.
    pub(super) fn holds(&mut self, home: PeerId, bytes: i64) {
        let entry = self.homes.entry(home).or_default();
        entry.bytes = entry.bytes.saturating_add_signed(bytes);
        self.tidy(&home);
    }

    /// The home shall be asked when it has sent what it was asked for before.
    pub(super) fn queue(&mut self, home: PeerId, name: DigestName) {
        self.homes.entry(home).or_default().waiting.insert(name);
    }

    /// What the home must be asked for now.
    pub(super) fn ask(&mut self, now: Time, home: &PeerId) -> Vec<DigestName> {
        let Some(home) = self.homes.get_mut(home) else { return Vec::new() };
        let room = limits::DIGESTS_ASKED.saturating_sub(home.asked.len()).min(home.waiting.len());
        let names: Vec<_> = (0..room).filter_map(|_| home.waiting.pop_first()).collect();
        home.asked.extend(names.iter().map(|name| (*name, Parts::new())));
        if !names.is_empty() {
            home.due.get_or_insert(now + limits::DIGEST_PATIENCE);
        }
        names
    }

    /// Takes a part. `Some` if nothing more comes of that digest.
    pub(super) fn part(&mut self, now: Time, from: &PeerId, part: DigestPart) -> Option<Arrived> {
        let home = self.homes.get_mut(from)?;
        let parts = home.asked.get_mut(&part.name)?;
        let bytes = part.bytes as usize;
        let is_absurd =
            bytes == 0 || bytes > limits::DIGEST_WIRE_BYTES || parts.len() == bytes.div_ceil(limits::BATCH_RAW_BYTES);
        if !is_absurd {
            parts.push(part.data);
        }
        let arrived = if is_absurd {
            home.asked.remove(&part.name);
            Some(Arrived::NotThere)
        } else if part.last {
            home.asked.remove(&part.name).map(|parts| Arrived::Whole(part.bytes, parts))
        } else {
            None
        };
        home.due = (!home.asked.is_empty()).then(|| now + limits::DIGEST_PATIENCE);
        arrived
    }

    /// A digest is not needed any more.
    pub(super) fn drop_digest(&mut self, home: &PeerId, name: DigestName) {
        let Some(entry) = self.homes.get_mut(home) else { return };
        if entry.asked.remove(&name).is_none() {
            entry.waiting.remove(&name);
        }
        if entry.asked.is_empty() {
            entry.due = None;
        }
        self.tidy(home);
    }

    /// Forgets what a home was to send, and returns it.
    pub(super) fn forget(&mut self, home: &PeerId) -> Vec<DigestName> {
        let Some(entry) = self.homes.get_mut(home) else { return Vec::new() };
        entry.due = None;
        let asked = std::mem::take(&mut entry.asked).into_keys();
        let names = asked.chain(std::mem::take(&mut entry.waiting)).collect();
        self.tidy(home);
        names
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.homes.values().filter_map(|home| home.due).min()
    }

    /// What homes that have been silent for too long were to send.
    pub(super) fn overdue(&mut self, now: Time) -> Vec<DigestName> {
        let silent = |home: &Home| home.due.is_some_and(|due| due <= now);
        let homes: Vec<_> = self.homes.iter().filter(|(_, home)| silent(home)).map(|(peer, _)| *peer).collect();
        homes.iter().flat_map(|home| self.forget(home)).collect()
    }

    /// Keeps no entry of a home that means nothing.
    fn tidy(&mut self, home: &PeerId) {
        let means_nothing = |home: &Home| home.bytes == 0 && home.asked.is_empty() && home.waiting.is_empty();
        if self.homes.get(home).is_some_and(means_nothing) {
            self.homes.remove(home);
        }
    }
}
