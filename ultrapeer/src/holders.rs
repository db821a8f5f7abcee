//! Core: which leaves have a content, known by three ultrapeers, so that looking it up costs a message or two.
//!
//! What it decides: who must know the holders of a content, what this home tells of its leaves, and what is answered of
//! what others told.
//!
//! ```text
//!   homes ── contents of their leaves ──> three ultrapeers for each content, by rank
//!   look-up ── who has it? ──> one of the three ── handles, and the home that told ──> a minimum cover of their homes
//! ```
//!
//! Words are found by everyone of a shard; a content has no words, and asking every home for it would cost a message
//! each. So this is the one thing that is spread by rank over all ultrapeers, whatever part of the leaf space they
//! cover. Contents of files that are in no search are told like all others. One home of each leaf tells, the same for
//! all who know its homes ([`teller`]).
//!
//! It is best effort: what is told is a moment late, and moves when ultrapeers come and go. So a look-up of this kind
//! never says that it is complete. Up to [`limits::HOLDERS_ASKED_ABOVE`] ultrapeers there is none: all homes are asked.
//!
//! | module | what it is |
//! |---|---|
//! | `ranking` | rendezvous hashing over the networks of the ultrapeers |
//! | `telling` | what this home tells, and whom |
//! | `store` | what others told this ultrapeer |
//!
//! Invariants:
//! - once nothing has changed for a while, the owners of a content know all its holders, and nobody knows others;
//! - what is told is a key of eight bytes and a handle, and is confirmed by asking a home of the leaf: a forged holding
//!   costs a question, a withheld one is with two others;
//! - one home fills at most its share of the memory for it; the rest is counted and not kept.

mod ranking;
mod store;
mod telling;

use std::{sync::OnceLock, time::Duration};

use overlay::{
    id::{ContentId, PeerId},
    limits,
    machine::Outbox,
    time::Time,
    wire::mesh::{ContentKey, Holdings, ToldHolder},
};

use self::{ranking::Ranking, store::Store, telling::Telling};
pub use self::{
    ranking::{mix, teller},
    telling::Chunks,
};

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Contents of leaves that others told of.
    pub holdings: usize,
    /// Those that were not kept, because their home told more than its share.
    pub refused: u64,
}

/// Who has which content. See the module text.
#[derive(Debug)]
pub struct Holders {
    me: PeerId,
    telling: Telling,
    store: Store,
    /// Of the ultrapeers as they are now; made when it is needed.
    ranking: OnceLock<Ranking>,
    /// When this ultrapeer began to serve.
    since: Option<Time>,
}

impl Holders {
    /// Nothing is known, and there are `memory` bytes for what is.
    pub fn new(me: PeerId, memory: u64) -> Self {
        Self { me, telling: Telling::new(me), store: Store::new(room(memory)), ranking: OnceLock::new(), since: None }
    }

    /// There are that many bytes from now on.
    pub fn set_memory(&mut self, memory: u64) {
        self.store.set_room(room(memory));
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> Stats {
        let (holdings, refused) = self.store.counts();
        Stats { holdings, refused }
    }

    /// An ultrapeer, perhaps this one, is in the view, in that network, or is not.
    pub fn set_member(&mut self, now: Time, peer: PeerId, network: Option<u64>) {
        if !self.telling.set_member(now, peer, network) {
            return;
        }
        self.ranking = OnceLock::new();
        self.store.set_member(now, &peer, network.is_some());
        if peer == self.me {
            self.since = network.map(|_| self.since.unwrap_or(now));
        }
    }

    /// A link to another node is up, or is not.
    pub fn set_linked(&mut self, now: Time, peer: PeerId, is_linked: bool, out: &mut Outbox<(PeerId, Holdings)>) {
        self.telling.set_linked(now, peer, is_linked, out);
        if !is_linked && !self.telling.members().contains_key(&peer) {
            self.store.set_member(now, &peer, false);
        }
    }

    /// The list of an own leaf, or its homes, changed.
    pub fn mark(&mut self, now: Time, handle: u64) {
        self.telling.mark(now, handle);
    }

    /// True if others were told of that leaf by this home.
    pub fn has_told(&self, handle: u64) -> bool {
        self.telling.has_told(handle)
    }

    /// A home tells of its leaves. True if it shall be asked to tell all of it once more.
    pub fn heard(&mut self, now: Time, home: PeerId, frame: Holdings) -> bool {
        self.store.heard(now, home, frame)
    }

    /// Another ultrapeer misses something of what it was told.
    pub fn again(&mut self, now: Time, peer: PeerId) {
        self.telling.again(now, peer);
    }

    /// Whom to ask for the holders of a content, first the first; `None` if the network is so small that all homes are
    /// asked.
    pub fn owners(&self, content: &ContentId) -> Option<Vec<PeerId>> {
        let members = self.telling.members();
        if members.len() <= limits::HOLDERS_ASKED_ABOVE {
            return None;
        }
        let members = members.iter().map(|(peer, network)| (*peer, *network));
        let ranking = self.ranking.get_or_init(|| Ranking::new(members));
        Some(ranking.owners(ContentKey::of(content)).into_iter().flatten().collect())
    }

    /// True if this ultrapeer has served for so long that it was told all that it must know.
    pub fn is_settled(&self, now: Time) -> bool {
        let round = limits::HOLDERS_SETTLE_EACH * self.telling.members().len() as u32;
        self.since.is_some_and(|since| now.since(since) > SETTLED + 2 * round)
    }

    /// Leaves that others said to have a content: all, or some at random if there are many.
    pub fn holders(&self, content: &ContentId, seed: u64) -> Vec<ToldHolder> {
        self.store.holders(ContentKey::of(content), seed, limits::HOLDERS_TOLD)
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.telling.next_deadline().into_iter().chain(self.store.next_deadline()).min()
    }

    /// Tells what is to be told and forgets what is to be forgotten. `list` gives the list of an own leaf, if this home
    /// is the one to tell of it.
    pub fn on_deadline(
        &mut self,
        now: Time,
        list: impl Fn(u64) -> Option<Chunks>,
        out: &mut Outbox<(PeerId, Holdings)>,
    ) {
        self.store.on_deadline(now);
        self.telling.on_deadline(now, list, out);
    }
}

/// Time in which the others notice a newcomer, link to it, and tell it what it must know, beside their rounds.
const SETTLED: Duration = Duration::from_secs(5);

fn room(memory: u64) -> usize {
    (memory / limits::HOLDINGS_MEMORY_SHARE / limits::HOLDING_BYTES) as usize
}

#[cfg(test)]
mod tests;
