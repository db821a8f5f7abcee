//! What differs between the knowledge of two members, found by comparing a few numbers.
//!
//! All members fall into buckets by the first byte of their keys, and each bucket has a number that stands for the
//! keys and sequences in it. One side sends all numbers mixed into one; if that differs, the other sends its
//! buckets, and both send what they know in those that differ: members, and who is gone.

use rand::RngExt;

use super::{Alarm, Membership, Output, State};
use crate::{
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    time::Time,
    wire::{
        bounded::List,
        mesh::{Aged, Claim, News, Sync, SyncBuckets, SyncWant},
    },
};

/// One number for each part of the key space.
#[derive(Debug)]
pub(super) struct Buckets {
    numbers: [u64; limits::SYNC_BUCKETS],
}

impl Default for Buckets {
    fn default() -> Self {
        Self { numbers: [0; limits::SYNC_BUCKETS] }
    }
}

impl Buckets {
    /// Adds a member as it is with that sequence, or takes it out again.
    pub(super) fn toggle(&mut self, peer: &PeerId, sequence: u64) {
        let mut hasher = blake3::Hasher::new_derive_key("quictrack 2026-11-27 bucket of members");
        hasher.update(&peer.0).update(&sequence.to_le_bytes());
        let number = u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"));
        self.numbers[usize::from(peer.0[0])] ^= number;
    }

    /// All buckets in one number.
    pub(super) fn digest(&self) -> u64 {
        self.numbers.iter().fold(0, |digest, number| digest ^ number)
    }

    /// True for each bucket that differs. Buckets that the other side does not name are empty.
    fn differing(&self, theirs: &SyncBuckets) -> [bool; limits::SYNC_BUCKETS] {
        std::array::from_fn(|bucket| theirs.buckets.get(bucket).copied().unwrap_or(0) != self.numbers[bucket])
    }
}

impl Membership {
    /// Asks a random member whether it knows the same.
    pub(super) fn compare_with_one(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        self.tombstones.retain(|_, tombstone| now < tombstone.until);
        let linked: Vec<_> = self.links.keys().filter(|peer| self.state_of(peer) == Some(State::Linked)).collect();
        if !linked.is_empty() {
            let to = *linked[cx.rng.random_range(0..linked.len())];
            Self::send(to, Sync { digest: self.buckets.digest() }, out);
        }
        self.set_alarm(now + limits::SYNC_INTERVAL.mul_f64(cx.rng.random_range(0.75..1.25)), Alarm::Compare);
    }

    pub(super) fn compare(&mut self, now: Time, from: PeerId, sync: Sync, out: &mut Outbox<Output>) {
        if sync.digest != self.buckets.digest() && self.may_ask(now, &from) {
            Self::send(from, SyncBuckets { buckets: List::new(self.buckets.numbers) }, out);
        }
    }

    pub(super) fn compare_buckets(&mut self, now: Time, from: PeerId, theirs: &SyncBuckets, out: &mut Outbox<Output>) {
        let differing = self.buckets.differing(theirs);
        if !differing.contains(&true) || !self.may_ask(now, &from) {
            return;
        }
        let bits = |byte: usize| (0..8).fold(0, |bits, bit| bits | u8::from(differing[8 * byte + bit]) << bit);
        Self::send(from, SyncWant { buckets: std::array::from_fn(bits) }, out);
        self.tell_buckets(now, from, &differing, out);
    }

    pub(super) fn answer_want(&mut self, now: Time, from: PeerId, want: SyncWant, out: &mut Outbox<Output>) {
        if self.may_ask(now, &from) {
            let wanted = std::array::from_fn(|bucket| want.buckets[bucket / 8] >> (bucket % 8) & 1 == 1);
            self.tell_buckets(now, from, &wanted, out);
        }
    }

    /// True unless that link asked for too much lately.
    fn may_ask(&mut self, now: Time, from: &PeerId) -> bool {
        self.links.get_mut(from).is_some_and(|link| link.comparisons.take(now))
    }

    /// Sends all that is known in some buckets.
    fn tell_buckets(&self, now: Time, to: PeerId, wanted: &[bool; limits::SYNC_BUCKETS], out: &mut Outbox<Output>) {
        let is_wanted = |peer: &PeerId| *peer != to && wanted[usize::from(peer.0[0])];
        let members = self.members.iter().filter(|(peer, _)| is_wanted(peer)).map(|(_, member)| member.aged(now));
        let own = self.own_aged().filter(|_| is_wanted(&self.me));
        let (farewells, gone): (Vec<_>, Vec<_>) =
            self.tombstones.iter().filter(|(peer, _)| is_wanted(peer)).partition(|(_, tombstone)| tombstone.farewell);
        let farewells = farewells.into_iter().map(|(_, tombstone)| Aged::ageless(&tombstone.signed));
        let members = own.into_iter().chain(members).chain(farewells).collect();
        let gone = gone.into_iter().map(|(peer, tombstone)| Claim { peer: *peer, sequence: tombstone.sequence });
        send_news(to, members, gone.collect(), out);
    }
}

/// Sends news in as many frames as it takes; none if there is none.
pub(super) fn send_news(to: PeerId, members: Vec<Aged>, gone: Vec<Claim>, out: &mut Outbox<Output>) {
    let (mut members, mut gone) = (members.into_iter().peekable(), gone.into_iter().peekable());
    while members.peek().is_some() || gone.peek().is_some() {
        let news = News {
            members: List::new(members.by_ref().take(limits::MEMBERS_PER_FRAME)),
            gone: List::new(gone.by_ref().take(limits::MEMBERS_PER_FRAME)),
        };
        Membership::send(to, news, out);
    }
}
