//! The rest of the shard: whom this ultrapeer follows, what it is told, and the digests that it holds and owes.

use overlay::{
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    membership::{self, State},
    shards::leaf_hash,
    time::Time,
    wire::{
        descriptor::ShardPrefix,
        mesh::{Attachments as Frame, DigestPart, DigestWant, Follow},
    },
};

use super::{Output, Ultrapeer};
use crate::{
    attachments::{Attachments, LeafList},
    digests::{
        self, Digests,
        owed::{self, Owed},
    },
    extent::{Facts, Step},
    search::neighbours::Neighbour,
};

impl Ultrapeer {
    /// Something changed of another ultrapeer, or of the link to it: it is followed or not, asked or not.
    pub(super) fn refresh(&mut self, now: Time, peer: PeerId, out: &mut Outbox<Output>) {
        let linked = self.membership.is_linked(&peer);
        let member = self.membership.get(&peer);
        let is_usable = self.membership.state_of(&peer) == Some(State::Linked);
        let neighbour = member.map(|member| Neighbour { prefix: member.shard, is_usable });
        let before = self.neighbours.set(peer, neighbour);
        self.rank(now, peer, out);
        if before != neighbour {
            self.standing.members_changed(now);
        }
        if neighbour.is_none() {
            self.standing.forget(&peer);
            self.followed.remove(&peer);
            let changed = self.attachments.forget(&peer);
            self.attachments_changed(now, &changed, out);
            self.with_digests(now, out, |digests, attachments, inner| digests.lost(now, &peer, attachments, inner));
        } else if linked && !self.followed.contains(&peer) {
            // Whatever it covers: it may still have leaves of ours, from before it covered less.
            self.follow(now, peer, out);
        }
        let was_usable = before.is_some_and(|known| known.is_usable);
        if was_usable && !neighbour.is_some_and(|known| known.is_usable) {
            self.with_audits(now, out, |audits, _, inner| audits.lost(now, peer, inner));
            self.with_searches(now, out, |searches, environment, inner| searches.unlinked(environment, peer, inner));
        }
        // It may have asked to be told of leaves before it was known to be one of us.
        if neighbour.is_some()
            && linked
            && let Some(prefix) = self.wishes.remove(&peer)
        {
            self.tell(now, peer, prefix, out);
        }
    }

    /// The link to another ultrapeer is gone, and with it what it was about to tell.
    pub(super) fn unfollow(&mut self, now: Time, peer: PeerId, out: &mut Outbox<Output>) {
        self.followed.remove(&peer);
        self.wishes.remove(&peer);
        self.proofs.unlinked(&peer);
        self.with_audits(now, out, |audits, _, inner| audits.lost(now, peer, inner));
        self.attachments.unlinked(now, &peer);
        self.with_digests(now, out, |digests, attachments, inner| digests.lost(now, &peer, attachments, inner));
    }

    /// Asks another ultrapeer for its log, from the beginning.
    fn follow(&mut self, now: Time, peer: PeerId, out: &mut Outbox<Output>) {
        self.followed.insert(peer);
        self.attachments.following(now, peer);
        out.push(Output::ToMesh(peer, Follow { prefix: self.extent.followed() }.into()));
    }

    /// Another ultrapeer wants to be told of leaves. Only those that serve are told.
    pub(super) fn followed_by(&mut self, now: Time, peer: PeerId, follow: Follow, out: &mut Outbox<Output>) {
        if self.neighbours.get(&peer).is_some() {
            self.tell(now, peer, follow.prefix, out);
        } else {
            self.wishes.insert(peer, follow.prefix);
        }
    }

    fn tell(&mut self, now: Time, peer: PeerId, prefix: ShardPrefix, out: &mut Outbox<Output>) {
        let told = self.attachments.follow(now, peer, prefix);
        out.extend(told.into_iter().map(|(follower, frame)| Output::ToMesh(follower, frame.into())));
    }

    /// Tells followers what changed, and asks homes anew whose copies differ, if it is time to.
    pub(super) fn flush_log(&mut self, now: Time, out: &mut Outbox<Output>) {
        for home in self.attachments.due_anew(now) {
            self.follow(now, home, out);
        }
        if self.attachments.next_deadline().is_some_and(|at| at <= now) {
            self.tell_all(now, out);
        }
    }

    /// Tells followers what changed, and gathers no more.
    pub(super) fn tell_all(&mut self, now: Time, out: &mut Outbox<Output>) {
        let told = self.attachments.flush(now);
        out.extend(told.into_iter().map(|(follower, frame)| Output::ToMesh(follower, frame.into())));
    }

    /// Another home tells of its leaves.
    pub(super) fn attachments_heard(
        &mut self,
        cx: &mut Context<'_>,
        home: PeerId,
        frame: Frame,
        out: &mut Outbox<Output>,
    ) {
        let now = cx.now;
        let heard = self.noting_news(now, &home, frame, |this, frame| this.attachments.heard(home, frame));
        for handle in heard.changed.iter().filter(|handle| self.attachments.is_home(&home, **handle)) {
            self.audits.listed(cx, home, *handle);
        }
        self.attachments_changed(now, &heard.changed, out);
        if heard.differs && self.attachments.may_ask_anew(now, &home) {
            self.follow(now, home, out);
        }
    }

    /// The list of an own leaf is searchable here, or not any more.
    pub(super) fn logged(&mut self, now: Time, handle: u64, sequence: Option<u64>, out: &mut Outbox<Output>) {
        let list = sequence.zip(self.leaves.with_handle(handle)).map(|(sequence, leaf)| {
            let place = leaf_hash(&leaf.peer);
            (place, LeafList { sequence, place: (place >> 24) as u8, chunks: leaf.chunk_names() })
        });
        self.attachments.own_change(now, handle, list);
        self.attachments_changed(now, &[handle], out);
        self.flush_log(now, out);
    }

    pub(super) fn attachments_changed(&mut self, now: Time, handles: &[u64], out: &mut Outbox<Output>) {
        if handles.is_empty() {
            return;
        }
        self.mark_holdings(now, handles);
        self.with_digests(now, out, |digests, attachments, inner| {
            for handle in handles {
                digests.update(now, *handle, attachments, inner);
            }
        });
    }

    /// Runs `act` on the digests and carries out what they want.
    pub(super) fn with_digests(
        &mut self,
        now: Time,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Digests, &Attachments, &mut Outbox<digests::Output>),
    ) {
        let mut inner = Outbox::new();
        act(&mut self.digests, &self.attachments, &mut inner);
        for output in inner.drain() {
            match output {
                digests::Output::Want(home, want) => out.push(Output::ToMesh(home, want.into())),
                digests::Output::Build(name, bytes, parts) => out.push(Output::BuildDigest { name, bytes, parts }),
                digests::Output::Insert(name, slot, segment) => {
                    self.compare_digest(now, name, slot, &segment);
                    let place = self.index.add(slot, segment);
                    self.digests.placed(name, place);
                }
                digests::Output::Remove(place) => {
                    self.index.remove(place);
                    self.digests.changed(now);
                }
                digests::Output::Expire(place) => {
                    self.index.remove(place);
                    self.expired += 1;
                    self.digests.changed(now);
                }
            }
        }
    }

    /// Looks whether to cover less or more of the leaf space.
    pub(super) fn look_at_extent(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        if self.extent.next_deadline() > now {
            return;
        }
        if self.aftermath.is_some_and(|at| at <= now) {
            self.aftermath = None;
            self.with_digests(now, out, |digests, _, inner| digests.forget_idle(inner));
        }
        let facts = self.extent_facts(now);
        match self.extent.look(now, cx.rng, facts) {
            Some(Step::Narrow(part)) => {
                self.aftermath = Some(now + limits::EXTENT_AFTERMATH);
                self.declare(cx, part, out);
                self.follow_all(now, out);
            }
            Some(Step::Prepare(_)) => self.follow_all(now, out),
            Some(Step::Widen(part)) => self.declare(cx, part, out),
            None => {}
        }
        // Those whose logs are needed are linked; membership keeps the links once this node declares the part.
        let part = self.extent.followed();
        if part != self.extent.declared() {
            let missing = self
                .membership
                .iter()
                .filter(|(member, state)| *state == State::Unlinked && member.shard.overlaps(part));
            out.extend(missing.map(|(member, _)| Output::Dial(member.peer, member.address)));
        }
    }

    fn extent_facts(&self, now: Time) -> Facts {
        let count = |part: ShardPrefix| self.neighbours.covering(part).count();
        let part = self.extent.followed();
        let needed = || self.neighbours.overlapping(part);
        let stats = self.digests.stats();
        Facts {
            bytes: stats.bytes,
            budget: self.digests.budget(),
            halves: self.extent.halves().map_or([0; 2], |halves| halves.map(count)),
            sibling: self.extent.declared().sibling().map_or(usize::MAX, count),
            is_ready: needed().all(|(peer, _)| self.attachments.is_current(now, &peer))
                && stats.uncovered * limits::EXTENT_UNCOVERED <= stats.leaves,
        }
    }

    /// Covers another part of the leaf space from now on. Own leaves that it does not cover learn of it, and move.
    fn declare(&mut self, cx: &mut Context<'_>, part: ShardPrefix, out: &mut Outbox<Output>) {
        self.neighbours.set_own(part);
        self.standing.members_changed(cx.now);
        self.with_membership(cx, membership::Input::Shard(part), out);
        let Some(own) = self.membership.own() else { return };
        let frame = self.membership.frame([own.clone()], []);
        let outside = self.leaves.iter().filter(|(_, leaf)| !part.covers(leaf_hash(&leaf.peer)));
        out.extend(outside.map(|(session, _)| Output::ToLeaf(session, frame.clone().into())));
    }

    fn follow_all(&mut self, now: Time, out: &mut Outbox<Output>) {
        for peer in self.followed.clone() {
            self.follow(now, peer, out);
        }
    }

    /// Makes what changed in the index visible to searches.
    pub(super) fn publish(&mut self) {
        self.index.publish();
        self.digests.published();
        self.index.settle();
    }

    /// A part of a digest came.
    pub(super) fn digest_part(&mut self, now: Time, from: PeerId, part: DigestPart, out: &mut Outbox<Output>) {
        self.with_digests(now, out, |digests, attachments, inner| digests.part(now, from, part, attachments, inner));
    }

    /// Another ultrapeer asks for digests of own leaves.
    pub(super) fn digests_wanted(&mut self, peer: PeerId, want: DigestWant, out: &mut Outbox<Output>) {
        if self.neighbours.get(&peer).is_none() {
            return;
        }
        let leaves = &self.leaves;
        let mut inner = Outbox::new();
        let kept = |name: overlay::wire::mesh::DigestName| {
            leaves.with_handle(name.handle).and_then(|leaf| leaf.kept_chunk(name.chunk)).cloned()
        };
        self.owed.want(peer, want, kept, &mut inner);
        carry_out_owed(&mut inner, out);
    }

    /// A digest of an own leaf was made.
    pub(super) fn with_owed(
        &mut self,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Owed, &mut Outbox<owed::Output>),
    ) {
        let mut inner = Outbox::new();
        act(&mut self.owed, &mut inner);
        carry_out_owed(&mut inner, out);
    }
}

fn carry_out_owed(inner: &mut Outbox<owed::Output>, out: &mut Outbox<Output>) {
    out.append_mapped(inner, |output| match output {
        owed::Output::Pack(name, kept) => Output::PackDigest { name, kept },
        owed::Output::Part(peer, part) => Output::ToMesh(peer, part.into()),
    });
}
