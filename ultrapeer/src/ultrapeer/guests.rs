//! What leaves are told of ultrapeers, and which of them are sent on.
//!
//! A leaf must not pay for the size of the network: with its attachment it learns how many ultrapeers there are and no
//! more, and asks for descriptors when it needs some. Up to [`limits::MEMBERS_PUSHED`] ultrapeers it is told of each
//! change; in a larger network only of the end of another home of its own, so that it needs no timeout to notice.
//!
//! A home that has clearly more than its share sends newcomers on, and asks some of those that have other homes to move:
//! its share is its part of all capacity, and how many leaves others have is in their logs. So ultrapeers that come into
//! being in a crowd soon carry their part of it. A leaf whose place it does not cover is sent on, too. Nobody is sent on from a network in which every leaf needs every ultrapeer.

use std::cmp::Reverse;

use overlay::{
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    shards::leaf_hash,
    time::Time,
    wire::{
        bounded::{Blob, List},
        descriptor::{Descriptor, SignedDescriptor},
        hello::Goodbye,
        leaf::{View, ViewAsk},
    },
};
use rand::{Rng, RngExt};

use super::{Output, Phase, Ultrapeer};
use crate::leaves::Session;

/// What becomes of a leaf that knocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may stay.
    Stays,
    /// There is no place, or no ultrapeer here.
    Full,
    /// It lists what it does not have.
    Refused,
    /// There is a place, but these have more; least loaded first.
    Elsewhere(Vec<SignedDescriptor>),
}

impl Ultrapeer {
    /// Whether a leaf can attach now. One that `insists` was sent on often enough; one that is `homeless` has no home at
    /// all, and takes the place of one that has others if no place is left.
    pub fn judge(&self, leaf: &PeerId, insists: bool, homeless: bool) -> Verdict {
        if self.possessions.is_refused(leaf) {
            return Verdict::Refused;
        }
        if !matches!(self.phase, Phase::Admitted | Phase::Founder) {
            return Verdict::Full;
        }
        if !self.leaves.has_room_for(leaf) {
            let may_stay = insists && homeless && self.has_place_for(leaf);
            return if may_stay { Verdict::Stays } else { Verdict::Full };
        }
        let small = self.membership.total() as usize <= limits::HOMES;
        if insists || small || self.leaves.knows(leaf) {
            return Verdict::Stays;
        }
        let mut others = self.alternatives(leaf, None);
        if self.membership.shard().covers(leaf_hash(leaf)) {
            if !self.is_busy(leaf) {
                return Verdict::Stays;
            }
            let own = load(self.leaves.len(), self.leaves.capacity());
            others.retain(|(load, _)| *load < own);
        }
        if others.is_empty() { Verdict::Stays } else { Verdict::Elsewhere(named(others)) }
    }

    /// True if a leaf that was told to stay has a place: its own, or that of one which has others.
    pub(super) fn has_place_for(&self, leaf: &PeerId) -> bool {
        self.leaves.has_room_for(leaf) || (self.leaves.has_reserve() && self.spare_leaf().is_some())
    }

    /// The leaves that can do without this home, as they have two others or more, with the number of those. Of these the
    /// youngest go first, here and below: how long a leaf is there counts when it wants to serve, and each home counts for
    /// itself.
    fn spare_leaves(&self) -> impl Iterator<Item = (usize, Session)> + '_ {
        let others = |handle| self.attachments.homes(handle).iter().filter(|(home, _)| *home != self.me).count();
        let may_go = |(session, peer): (Session, &PeerId)| !self.asked_to_leave.contains(&session) && *peer != self.me;
        let leaves = self.leaves.iter().filter(move |(session, leaf)| may_go((*session, &leaf.peer)));
        let spare = leaves.map(move |(session, leaf)| (others(leaf.handle), session));
        spare.filter(|(others, _)| *others + 1 >= limits::HOMES)
    }

    /// The leaf that can best do without this home.
    fn spare_leaf(&self) -> Option<Session> {
        self.spare_leaves().max().map(|(_, session)| session)
    }

    fn ask_to_leave(&mut self, session: Session, alternatives: Vec<(f64, SignedDescriptor)>, out: &mut Outbox<Output>) {
        self.asked_to_leave.insert(session);
        let alternatives = List::new(named(alternatives));
        out.push(Output::ToLeaf(session, Goodbye { alternatives }.into()));
    }

    /// There are more leaves than places, as one that had no home came: another that has enough is asked to leave.
    pub(super) fn make_room(&mut self, out: &mut Outbox<Output>) {
        self.asked_to_leave.retain(|session| self.leaves.get(*session).is_some());
        let surplus = self.leaves.len().saturating_sub(self.leaves.capacity() as usize);
        if surplus <= self.asked_to_leave.len() {
            return;
        }
        let Some(session) = self.spare_leaf() else { return };
        let Some(leaf) = self.leaves.get(session) else { return };
        let alternatives = self.alternatives(&leaf.peer, Some(leaf.handle));
        self.ask_to_leave(session, alternatives, out);
    }

    /// Asks some leaves to move that can, if this home has clearly more than its share: few at a time, as each brings its
    /// list to another home, and only to homes that carry clearly less.
    pub(super) fn share_out(&mut self, now: Time, out: &mut Outbox<Output>) {
        if now < self.share_out_at {
            return;
        }
        self.share_out_at = now + limits::SHARE_OUT_EACH;
        self.asked_to_leave.retain(|session| self.leaves.get(*session).is_some());
        let stay = self.leaves.len() - self.asked_to_leave.len();
        let surplus = stay.saturating_sub(self.fair_share(self.membership.shard().bits) as usize);
        if surplus == 0 || self.membership.total() as usize <= limits::HOMES {
            return;
        }
        let most = (stay as f64 * limits::SHARE_OUT_PART).ceil() as usize;
        let mut spare: Vec<_> = self.spare_leaves().map(|(_, session)| session).collect();
        spare.sort_unstable_by_key(|session| Reverse(*session));
        let own = load(stay, self.leaves.capacity());
        for session in spare.into_iter().take(most.min(surplus)) {
            let Some(leaf) = self.leaves.get(session) else { continue };
            let mut others = self.alternatives(&leaf.peer, Some(leaf.handle));
            others.retain(|(load, _)| load * limits::BUSY_RATIO < own);
            if !others.is_empty() {
                self.ask_to_leave(session, others, out);
            }
        }
    }

    /// Whom else a node that cannot stay may try: least loaded first.
    pub fn others_for(&self, peer: &PeerId) -> Vec<SignedDescriptor> {
        named(self.alternatives(peer, None))
    }

    /// True if this home has clearly more leaves than its part of the capacity for that leaf's place is worth.
    fn is_busy(&self, leaf: &PeerId) -> bool {
        self.leaves.len() as f64 > self.fair_share(leaf_hash(leaf))
    }

    /// Leaves that this home may have before it has clearly more than its part of the capacity for a place is worth.
    fn fair_share(&self, place: u32) -> f64 {
        let own = self.leaves.capacity().min(limits::CAPACITY_COUNTED);
        let (mut leaves, mut capacity) = (self.leaves.len(), u64::from(own));
        for (member, _) in self.membership.iter().filter(|(member, _)| member.shard.covers(place)) {
            leaves += self.attachments.leaves_of(&member.peer);
            capacity += u64::from(member.capacity.min(limits::CAPACITY_COUNTED));
        }
        let share = leaves as f64 * f64::from(own) / capacity.max(1) as f64;
        share * limits::BUSY_RATIO + limits::BUSY_SLACK
    }

    /// Where a leaf can go instead, with their loads: those that carry less than the mean first, in another order for each
    /// leaf, so that those who are sent on together do not arrive together. Homes of `handle` are no use to it.
    fn alternatives(&self, leaf: &PeerId, handle: Option<u64>) -> Vec<(f64, SignedDescriptor)> {
        let is_home = |member: &Descriptor| handle.is_some_and(|leaf| self.attachments.is_home(&member.peer, leaf));
        let place = leaf_hash(leaf);
        let linked = self.membership.linked().filter_map(|peer| self.membership.get(&peer));
        let mut others: Vec<_> = linked
            .filter(|member| member.shard.covers(place) && !is_home(member))
            .map(|member| (load(self.attachments.leaves_of(&member.peer), member.capacity), member))
            .collect();
        let mean = others.iter().map(|(load, _)| load).sum::<f64>() / others.len().max(1) as f64;
        // A tenth of the mean is no difference, and up to the mean all are alike: whom its leaves leave because it lies has
        // the fewest, and must not be named to everybody first.
        let step = |load: f64| if mean > 0.0 { ((load / mean * 10.0) as u64).max(10) } else { 0 };
        others.sort_by_key(|(load, member)| (step(*load), mixed(leaf, &member.peer), member.peer));
        others.truncate(limits::ALTERNATIVES);
        let signed =
            |(load, member): (f64, &Descriptor)| Some((load, self.membership.descriptor_of(&member.peer)?.clone()));
        others.into_iter().filter_map(signed).collect()
    }

    /// Says good-bye to all leaves; each is named others to go to.
    pub(super) fn dismiss_leaves(&self, out: &mut Outbox<Output>) {
        for (session, leaf) in self.leaves.iter() {
            let alternatives = List::new(named(self.alternatives(&leaf.peer, Some(leaf.handle))));
            out.push(Output::ToLeaf(session, Goodbye { alternatives }.into()));
        }
    }

    /// A member joined, or says something else of itself.
    pub(super) fn tell_of_member(&mut self, peer: &PeerId, out: &mut Outbox<Output>) {
        if self.membership.total() > limits::MEMBERS_PUSHED {
            return self.told.clear();
        }
        let Some(signed) = self.membership.descriptor_of(peer) else { return };
        let Some(descriptor) = self.membership.get(peer) else { return };
        // A descriptor that was only renewed is no news.
        let news = (descriptor.address, descriptor.shard);
        if self.told.insert(*peer, news) == Some(news) {
            return;
        }
        let frame = self.membership.frame([signed.clone()], []);
        out.extend(self.leaves.iter().map(|(session, _)| Output::ToLeaf(session, frame.clone().into())));
    }

    /// This ultrapeer covers another part of the leaf space now: leaves outside of it must move.
    pub(super) fn tell_of_own(&self, out: &mut Outbox<Output>) {
        let frame = self.membership.frame(self.membership.own().cloned(), []);
        out.extend(self.leaves.iter().map(|(session, _)| Output::ToLeaf(session, frame.clone().into())));
    }

    /// A member is gone. To be called while its log is still there.
    pub(super) fn tell_of_end(&mut self, peer: &PeerId, out: &mut Outbox<Output>) {
        self.told.remove(peer);
        let all = self.membership.total() <= limits::MEMBERS_PUSHED;
        let frame = self.membership.frame([], [*peer]);
        for (session, leaf) in self.leaves.iter() {
            if all || self.attachments.is_home(peer, leaf.handle) {
                out.push(Output::ToLeaf(session, frame.clone().into()));
            }
        }
    }

    /// A leaf asks for descriptors: all, or as many as it wants, at random; those that cover its place before others.
    pub(super) fn members_asked(
        &mut self,
        cx: &mut Context<'_>,
        session: Session,
        most: u16,
        out: &mut Outbox<Output>,
    ) {
        if !self.leaves.may_ask_members(cx.now, session) {
            return;
        }
        let most = usize::from(most).min(limits::MEMBERS_TOLD);
        let own = self.membership.own().cloned();
        let place = self.leaves.get(session).map_or(0, |leaf| leaf_hash(&leaf.peer));
        let sample = self.sample(place, most.saturating_sub(own.iter().len()), cx.rng);
        let signed: Vec<_> = own.into_iter().chain(sample).collect();
        for part in signed.chunks(limits::MEMBERS_PER_FRAME) {
            let frame = self.membership.frame(part.iter().cloned(), []);
            out.push(Output::ToLeaf(session, frame.into()));
        }
    }

    fn sample(&self, place: u32, most: usize, rng: &mut dyn Rng) -> Vec<SignedDescriptor> {
        let members =
            self.membership.iter().map(|(member, _)| (!member.shard.covers(place), rng.random(), member.peer));
        let mut members: Vec<(bool, u64, PeerId)> = members.collect();
        members.sort_unstable();
        members.truncate(most);
        members.iter().filter_map(|(.., peer)| self.membership.descriptor_of(peer)).cloned().collect()
    }

    /// Leaves learn which others would be ultrapeers.
    pub(super) fn tell_volunteers(&mut self, now: Time, out: &mut Outbox<Output>) {
        let told = self.volunteers.tell(now);
        out.extend(told.into_iter().map(|(session, told)| Output::ToLeaf(session, told.into())));
    }

    /// A leaf asks whom this home takes for an ultrapeer.
    pub(super) fn view_asked(&mut self, now: Time, session: Session, ask: ViewAsk, out: &mut Outbox<Output>) {
        let view = self.membership.view();
        let wants_sketch = ask.known != Some(view) && self.leaves.may_take_sketch(now, session);
        let sketch = wants_sketch.then(|| self.membership.sketch().to_bytes().to_vec()).and_then(Blob::new);
        let view = View { token: ask.token, total: self.membership.total(), view, sketch };
        out.push(Output::ToLeaf(session, view.into()));
    }
}

/// Leaves for each that it takes.
fn load(leaves: usize, capacity: u32) -> f64 {
    leaves as f64 / f64::from(capacity.clamp(1, limits::CAPACITY_COUNTED))
}

fn named(alternatives: Vec<(f64, SignedDescriptor)>) -> Vec<SignedDescriptor> {
    alternatives.into_iter().map(|(_, signed)| signed).collect()
}

/// A number for each pair, as good as random: keys are.
fn mixed(leaf: &PeerId, member: &PeerId) -> u64 {
    let part = |peer: &PeerId| u64::from_le_bytes(*peer.0.first_chunk().expect("a key has 32 bytes"));
    (part(leaf) ^ part(member)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
