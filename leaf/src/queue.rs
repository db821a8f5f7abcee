//! Who may download from us, and who waits. A core.
//!
//! ```text
//!   join ─> waiting (position n .. 1) ─> granted ─> leave
//!              ^                            │
//!              └──────── revoked <──────────┘  its turn is over and others wait
//! ```
//!
//! What it decides:
//! - Slots go round over *peers*, not sessions: whoever queues a hundred files waits no less than whoever
//!   queues one, and their sessions take turns among themselves.
//! - One slot more than configured is *optimistic*: it prefers peers that had no turn yet and its turns are
//!   short, so newcomers see bytes soon even when all slots are held by long downloads.
//! - Of one peer's sessions, and of newcomers, those come first whose content the fewest others are known to have.
//! - A turn ends after some bytes or time, or when the session asks for nothing for a while, but only if
//!   somebody waits.
//! - A peer that leaves while it waits finds its place kept for [`limits::PLACE_KEPT`]; others pass it meanwhile.
//! - A peer that had its quota of the day is refused until the day is over. A day begins with its first byte; the driver
//!   may keep what was had over restarts.
//!
//! Invariants: no slot is free while somebody waits; every waiting session has a different position, and
//! the one at position 1 is the next in an ordinary slot; all tables are bounded.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use overlay::{
    id::PeerId,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
};

/// One content that one peer downloads over one connection. Chosen by the driver, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What can happen to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A peer wants a slot.
    Join {
        /// For this session.
        session: SessionId,
        /// Whose it is.
        peer: PeerId,
        /// Others who are known to have something of its content.
        copies: u32,
    },
    /// The session ended or wants nothing for now, waiting or not.
    Leave(SessionId),
    /// So many bytes were sent in the session.
    Sent {
        /// In which.
        session: SessionId,
        /// How many.
        bytes: u64,
    },
    /// The number of ordinary slots changed.
    SetSlots(usize),
    /// The bytes that one peer may have in [`limits::QUOTA_PERIOD`] changed; `None` is no limit.
    SetQuota(Option<u64>),
}

/// What the driver must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The session may ask for pieces.
    Grant {
        /// Which.
        session: SessionId,
        /// Bytes after which its turn ends if others wait then.
        turn_bytes: u64,
    },
    /// The session's turn is over; it waits at this position.
    Revoke {
        /// Which.
        session: SessionId,
        /// From 1.
        position: u32,
    },
    /// The session's place changed.
    Position {
        /// Which.
        session: SessionId,
        /// From 1.
        position: u32,
    },
    /// The session is not in the queue (any more), nor has it a slot.
    Refuse {
        /// Which.
        session: SessionId,
        /// Why.
        why: Refusal,
    },
}

/// Why a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no place for it.
    Full,
    /// Its peer had its quota.
    Quota,
}

#[derive(Debug)]
struct Waiting {
    peer: PeerId,
    copies: u32,
    /// The position that was told last; 0 if none was.
    told: u32,
}

#[derive(Debug)]
struct Holder {
    peer: PeerId,
    copies: u32,
    optimistic: bool,
    since: Time,
    active_at: Time,
    bytes: u64,
}

impl Holder {
    fn turn_bytes(&self) -> u64 {
        if self.optimistic { limits::OPTIMISTIC_TURN_BYTES } else { limits::TURN_BYTES }
    }

    /// When the turn is over if somebody waits.
    fn ends_at(&self) -> Time {
        if self.bytes >= self.turn_bytes() {
            return self.since;
        }
        let span = if self.optimistic { limits::OPTIMISTIC_TURN } else { limits::TURN };
        (self.since + span).min(self.active_at + limits::TURN_IDLE)
    }
}

/// What a peer had of its quota.
#[derive(Clone, Copy, Debug)]
struct Usage {
    /// When its day is over.
    until: Time,
    bytes: u64,
}

/// What a peer had of its quota, for who keeps that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Who.
    pub peer: PeerId,
    /// Bytes that it had today.
    pub bytes: u64,
    /// Time until its day is over.
    pub left: Duration,
}

/// Upload slots and the queue before them. See the module text.
#[derive(Debug)]
pub struct Queue {
    slots: usize,
    quota: Option<u64>,
    usage: BTreeMap<PeerId, Usage>,
    holders: BTreeMap<SessionId, Holder>,
    waiting: BTreeMap<SessionId, Waiting>,
    /// The waiting sessions of each peer: the rarest content first, then first come first.
    lines: BTreeMap<PeerId, VecDeque<SessionId>>,
    /// The peers with a line or a kept place, the next one to be served first.
    ring: VecDeque<PeerId>,
    /// Peers without a line whose places are kept, and until when.
    kept: BTreeMap<PeerId, Time>,
    /// Waiting peers that had no turn since they came.
    unserved: BTreeSet<PeerId>,
    /// When changed positions are told, if they may have changed.
    tell_at: Option<Time>,
}

impl Queue {
    /// An empty queue before `slots` ordinary slots, in `1..=`[`limits::UPLOAD_SLOTS_MAX`], and an
    /// optimistic one, where one peer may have `quota` bytes a day.
    pub fn new(slots: usize, quota: Option<u64>) -> Self {
        Self {
            slots: slots.clamp(1, limits::UPLOAD_SLOTS_MAX),
            quota,
            usage: BTreeMap::new(),
            holders: BTreeMap::new(),
            waiting: BTreeMap::new(),
            lines: BTreeMap::new(),
            ring: VecDeque::new(),
            kept: BTreeMap::new(),
            unserved: BTreeSet::new(),
            tell_at: None,
        }
    }

    /// What peers had of their quotas today, by peer; at most [`limits::QUOTA_PEERS`].
    pub fn used(&self, now: Time) -> Vec<Used> {
        let today = self.usage.iter().filter(|(_, usage)| now < usage.until);
        today.map(|(peer, usage)| Used { peer: *peer, bytes: usage.bytes, left: usage.until.since(now) }).collect()
    }

    /// Goes on with what peers had before. Of too many, those that come last are left out.
    pub fn restore(&mut self, now: Time, used: &[Used]) {
        let usage = |used: &Used| (used.peer, Usage { until: now + used.left, bytes: used.bytes });
        self.usage = used.iter().take(limits::QUOTA_PEERS).map(usage).collect();
    }

    /// Slots that are free, the optimistic one included.
    pub fn free_slots(&self) -> usize {
        (self.slots + 1).saturating_sub(self.holders.len())
    }

    /// Sessions that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True if nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True if the session has a slot.
    pub fn is_granted(&self, session: SessionId) -> bool {
        self.holders.contains_key(&session)
    }

    /// The place of a waiting session, from 1: how many grants of ordinary slots until it has one.
    pub fn position(&self, session: SessionId) -> Option<u32> {
        self.order().position(|other| other == session).map(|place| place as u32 + 1)
    }

    /// The waiting sessions in the order of their grants: round after round over the ring.
    fn order(&self) -> impl Iterator<Item = SessionId> + '_ {
        let rounds = self.lines.values().map(VecDeque::len).max().unwrap_or(0);
        (0..rounds)
            .flat_map(move |round| self.ring.iter().filter_map(move |peer| self.lines.get(peer)?.get(round).copied()))
    }

    fn on_join(&mut self, now: Time, session: SessionId, peer: PeerId, copies: u32, out: &mut Outbox<Output>) {
        if self.waiting.contains_key(&session) || self.holders.contains_key(&session) {
            return;
        }
        if self.quota_left(now, &peer) == 0 {
            return out.push(Output::Refuse { session, why: Refusal::Quota });
        }
        let of_peer = self.lines.get(&peer).map_or(0, VecDeque::len);
        if self.waiting.len() >= limits::UPLOAD_QUEUE || of_peer >= limits::UPLOAD_QUEUE_PER_PEER {
            return out.push(Output::Refuse { session, why: Refusal::Full });
        }
        self.forget_places(now);
        let is_new = of_peer == 0 && !self.kept.contains_key(&peer);
        if is_new && !self.holders.values().any(|holder| holder.peer == peer) {
            self.unserved.insert(peer);
        }
        self.line_up(now, session, peer, copies);
        self.fill(now, out);
        if let Some(position) = self.position(session) {
            self.tell(session, position, out);
        }
    }

    fn line_up(&mut self, now: Time, session: SessionId, peer: PeerId, copies: u32) {
        let waiting = &self.waiting;
        let line = self.lines.entry(peer).or_default();
        if line.is_empty() && self.kept.remove(&peer).is_none() {
            self.ring.push_back(peer);
        }
        let behind = |other: &SessionId| waiting.get(other).is_some_and(|other| other.copies > copies);
        let place = line.iter().position(behind).unwrap_or(line.len());
        line.insert(place, session);
        self.waiting.insert(session, Waiting { peer, copies, told: 0 });
        self.positions_changed(now);
    }

    fn on_leave(&mut self, now: Time, session: SessionId, out: &mut Outbox<Output>) {
        if let Some(waiting) = self.waiting.remove(&session) {
            let keep = (self.kept.len() < limits::UPLOAD_QUEUE).then(|| now + limits::PLACE_KEPT);
            self.step_out(session, waiting.peer, keep);
            self.positions_changed(now);
        } else if self.holders.remove(&session).is_some() {
            self.fill(now, out);
        }
    }

    /// Takes a session out of its peer's line. With the last one the peer goes out of the ring, unless its place is kept.
    fn step_out(&mut self, session: SessionId, peer: PeerId, keep: Option<Time>) {
        let Some(line) = self.lines.get_mut(&peer) else { return };
        line.retain(|other| *other != session);
        if !line.is_empty() {
            return;
        }
        self.lines.remove(&peer);
        match keep {
            Some(until) => drop(self.kept.insert(peer, until)),
            None => self.forget(&peer),
        }
    }

    /// Takes a peer without a line out of the ring.
    fn forget(&mut self, peer: &PeerId) {
        self.ring.retain(|other| other != peer);
        self.unserved.remove(peer);
    }

    /// Forgets places that were kept for long enough.
    fn forget_places(&mut self, now: Time) {
        let late: Vec<PeerId> = self.kept.extract_if(.., |_, until| *until <= now).map(|(peer, _)| peer).collect();
        for peer in late {
            self.forget(&peer);
        }
    }

    /// Bytes that a peer may still have today.
    fn quota_left(&self, now: Time, peer: &PeerId) -> u64 {
        let Some(quota) = self.quota else { return u64::MAX };
        let used = self.usage.get(peer).filter(|usage| now < usage.until);
        quota.saturating_sub(used.map_or(0, |usage| usage.bytes))
    }

    fn on_sent(&mut self, now: Time, session: SessionId, bytes: u64, out: &mut Outbox<Output>) {
        let Some(holder) = self.holders.get_mut(&session) else { return };
        holder.bytes = holder.bytes.saturating_add(bytes);
        holder.active_at = now;
        let peer = holder.peer;
        let day = Usage { until: now + limits::QUOTA_PERIOD, bytes: 0 };
        let usage = self.usage.entry(peer).or_insert(day);
        if usage.until <= now {
            *usage = day;
        }
        usage.bytes = usage.bytes.saturating_add(bytes);
        if self.usage.len() > limits::QUOTA_PEERS {
            self.forget_usage(now);
        }
        self.enforce_quota(now, &peer, out);
    }

    /// Makes room: days that are over go, then at least the half that had less.
    fn forget_usage(&mut self, now: Time) {
        self.usage.retain(|_, usage| now < usage.until);
        if self.usage.len() > limits::QUOTA_PEERS {
            let mut bytes: Vec<u64> = self.usage.values().map(|usage| usage.bytes).collect();
            let middle = bytes.len() / 2;
            let median = *bytes.select_nth_unstable(middle).1;
            self.usage.retain(|_, usage| usage.bytes > median);
        }
    }

    /// Refuses all sessions of a peer that had its quota.
    fn enforce_quota(&mut self, now: Time, peer: &PeerId, out: &mut Outbox<Output>) {
        if self.quota_left(now, peer) > 0 {
            return;
        }
        let held = self.holders.extract_if(.., |_, holder| holder.peer == *peer).map(|(session, _)| session);
        let mut refused: Vec<SessionId> = held.collect();
        for session in self.lines.remove(peer).into_iter().flatten() {
            self.waiting.remove(&session);
            refused.push(session);
        }
        self.forget(peer);
        for session in refused {
            out.push(Output::Refuse { session, why: Refusal::Quota });
        }
        self.positions_changed(now);
        self.fill(now, out);
    }

    fn on_quota(&mut self, now: Time, quota: Option<u64>, out: &mut Outbox<Output>) {
        self.quota = quota;
        let holders = self.holders.values().map(|holder| holder.peer);
        let peers: BTreeSet<PeerId> = holders.chain(self.lines.keys().copied()).collect();
        for peer in peers {
            self.enforce_quota(now, &peer, out);
        }
    }

    /// Grants free slots while somebody waits.
    fn fill(&mut self, now: Time, out: &mut Outbox<Output>) {
        loop {
            let optimistic_held = self.holders.values().filter(|holder| holder.optimistic).count();
            let ordinary_held = self.holders.len() - optimistic_held;
            let optimistic = if ordinary_held < self.slots {
                false
            } else if optimistic_held == 0 {
                true
            } else {
                return;
            };
            let Some(peer) = self.next_peer(optimistic) else { return };
            self.grant(now, peer, optimistic, out);
        }
    }

    fn next_peer(&self, optimistic: bool) -> Option<PeerId> {
        let mut here = self.ring.iter().filter(|peer| self.lines.contains_key(peer));
        let first = here.clone().next();
        if !optimistic {
            return first.copied();
        }
        // Of equals the first in the ring.
        let copies = |peer: &PeerId| {
            let first = self.lines.get(peer).and_then(VecDeque::front);
            first.and_then(|session| self.waiting.get(session)).map_or(u32::MAX, |waiting| waiting.copies)
        };
        let newcomer = here.by_ref().filter(|peer| self.unserved.contains(peer)).min_by_key(|peer| copies(peer));
        newcomer.or(first).copied()
    }

    /// Gives the peer's first session a slot; with more of them, the peer goes to the end of the ring.
    fn grant(&mut self, now: Time, peer: PeerId, optimistic: bool, out: &mut Outbox<Output>) {
        let Some(session) = self.lines.get(&peer).and_then(|line| line.front()).copied() else { return };
        let copies = self.waiting.remove(&session).map_or(0, |waiting| waiting.copies);
        self.step_out(session, peer, None);
        self.unserved.remove(&peer);
        if self.lines.contains_key(&peer) {
            self.ring.retain(|other| *other != peer);
            self.ring.push_back(peer);
        }
        let holder = Holder { peer, copies, optimistic, since: now, active_at: now, bytes: 0 };
        let turn_bytes = holder.turn_bytes();
        self.holders.insert(session, holder);
        self.positions_changed(now);
        out.push(Output::Grant { session, turn_bytes });
    }

    /// Ends turns that are over, as many as others wait for, the longest ones first.
    fn end_turns(&mut self, now: Time, out: &mut Outbox<Output>) {
        let mut over: Vec<(Time, SessionId)> = self
            .holders
            .iter()
            .map(|(session, holder)| (holder.ends_at(), *session))
            .filter(|(ends_at, _)| *ends_at <= now)
            .collect();
        over.sort_unstable();
        // Those that nobody waits for begin another turn.
        for (_, session) in over.split_off(over.len().min(self.waiting.len())) {
            if let Some(holder) = self.holders.get_mut(&session) {
                (holder.since, holder.active_at, holder.bytes) = (now, now, 0);
            }
        }
        let mut revoked = Vec::new();
        for (_, session) in over {
            if let Some(holder) = self.holders.remove(&session) {
                revoked.push((session, holder.peer, holder.copies));
            }
        }
        // The slots go to those who waited before the revoked ones line up again.
        self.fill(now, out);
        for (session, peer, copies) in &revoked {
            self.line_up(now, *session, *peer, *copies);
        }
        for (session, _, _) in revoked {
            if let Some(position) = self.position(session) {
                self.waiting.entry(session).and_modify(|waiting| waiting.told = position);
                out.push(Output::Revoke { session, position });
            }
        }
        self.fill(now, out);
    }

    /// More slots than configured are taken back at once, whoever waits.
    fn on_slots(&mut self, now: Time, slots: usize, out: &mut Outbox<Output>) {
        self.slots = slots.clamp(1, limits::UPLOAD_SLOTS_MAX);
        let mut ordinary: Vec<(Time, SessionId)> = self
            .holders
            .iter()
            .filter(|(_, holder)| !holder.optimistic)
            .map(|(session, holder)| (holder.since, *session))
            .collect();
        ordinary.sort_unstable();
        for (_, session) in ordinary.split_off(ordinary.len().min(self.slots)) {
            let Some(holder) = self.holders.remove(&session) else { continue };
            self.line_up(now, session, holder.peer, holder.copies);
            if let Some(position) = self.position(session) {
                self.waiting.entry(session).and_modify(|waiting| waiting.told = position);
                out.push(Output::Revoke { session, position });
            }
        }
        self.fill(now, out);
    }

    fn positions_changed(&mut self, now: Time) {
        if !self.waiting.is_empty() && self.tell_at.is_none() {
            self.tell_at = Some(now + limits::QUEUE_NEWS_INTERVAL);
        }
    }

    fn tell_positions(&mut self, out: &mut Outbox<Output>) {
        let order: Vec<SessionId> = self.order().collect();
        for (session, position) in order.into_iter().zip(1u32..) {
            self.tell(session, position, out);
        }
    }

    fn tell(&mut self, session: SessionId, position: u32, out: &mut Outbox<Output>) {
        if let Some(waiting) = self.waiting.get_mut(&session).filter(|waiting| waiting.told != position) {
            waiting.told = position;
            out.push(Output::Position { session, position });
        }
    }
}

impl Machine for Queue {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Join { session, peer, copies } => self.on_join(cx.now, session, peer, copies, out),
            Input::Leave(session) => self.on_leave(cx.now, session, out),
            Input::Sent { session, bytes } => self.on_sent(cx.now, session, bytes, out),
            Input::SetSlots(slots) => self.on_slots(cx.now, slots, out),
            Input::SetQuota(quota) => self.on_quota(cx.now, quota, out),
        }
        if !self.waiting.is_empty() {
            self.end_turns(cx.now, out);
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        if self.waiting.is_empty() {
            return None;
        }
        self.holders.values().map(Holder::ends_at).chain(self.tell_at).min()
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        if self.waiting.is_empty() {
            self.tell_at = None;
            return;
        }
        self.end_turns(cx.now, out);
        if self.tell_at.is_some_and(|at| at <= cx.now) {
            self.tell_at = None;
            self.tell_positions(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_pcg::Pcg32;

    use super::*;

    struct World {
        queue: Queue,
        now: Time,
        rng: Pcg32,
        out: Outbox<Output>,
        granted: BTreeSet<SessionId>,
        waiting: BTreeSet<SessionId>,
        grants: BTreeMap<SessionId, u32>,
        told: BTreeMap<SessionId, u32>,
    }

    impl World {
        fn new(slots: usize) -> Self {
            Self {
                queue: Queue::new(slots, None),
                now: Time::ZERO,
                rng: Pcg32::seed_from_u64(1),
                out: Outbox::new(),
                granted: BTreeSet::new(),
                waiting: BTreeSet::new(),
                grants: BTreeMap::new(),
                told: BTreeMap::new(),
            }
        }

        fn input(&mut self, input: Input) {
            let cx = &mut Context::new(self.now, &mut self.rng);
            match input {
                Input::Join { session, .. } => drop(self.waiting.insert(session)),
                Input::Leave(session) => {
                    self.waiting.remove(&session);
                    self.granted.remove(&session);
                }
                _ => {}
            }
            self.queue.handle(cx, input, &mut self.out);
            self.carry_out();
        }

        fn pass(&mut self, span: Duration) {
            let end = self.now + span;
            while let Some(at) = self.queue.next_deadline().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                self.queue.on_deadline(&mut Context::new(self.now, &mut self.rng), &mut self.out);
                assert!(self.queue.next_deadline().is_none_or(|at| at > self.now), "busy loop");
                self.carry_out();
            }
            self.now = end;
        }

        fn carry_out(&mut self) {
            for output in self.out.drain() {
                match output {
                    Output::Grant { session, .. } => {
                        assert!(self.waiting.remove(&session) && self.granted.insert(session));
                        *self.grants.entry(session).or_default() += 1;
                    }
                    Output::Revoke { session, position } => {
                        assert!(self.granted.remove(&session) && self.waiting.insert(session));
                        self.told.insert(session, position);
                    }
                    Output::Position { session, position } => {
                        self.told.insert(session, position);
                    }
                    Output::Refuse { session, why } => {
                        assert!(self.waiting.remove(&session) || self.granted.remove(&session));
                        assert!(why == Refusal::Full || self.queue.quota.is_some());
                    }
                }
            }
            assert_eq!(self.queue.len(), self.waiting.len());
            assert!(self.waiting.is_empty() || self.queue.free_slots() == 0, "a slot is idle while somebody waits");
            let positions: BTreeSet<u32> = self.waiting.iter().map(|s| self.queue.position(*s).unwrap()).collect();
            assert_eq!(positions, (1..=self.waiting.len() as u32).collect());
        }
    }

    fn join(session: u64, peer: u8) -> Input {
        Input::Join { session: SessionId(session), peer: PeerId([peer; 32]), copies: 0 }
    }

    #[test]
    fn peers_take_turns_whatever_they_queue() {
        let mut world = World::new(1);
        for session in 0..10 {
            world.input(join(session, 1));
        }
        world.input(join(100, 2));
        // Peer 1 has both slots; peer 2 is second although nine sessions came before it.
        assert_eq!(world.queue.position(SessionId(100)), Some(2));
        world.input(Input::Leave(SessionId(0)));
        world.input(Input::Leave(SessionId(1)));
        assert!(world.queue.is_granted(SessionId(100)));
    }

    #[test]
    fn a_turn_ends_only_if_somebody_waits() {
        let mut world = World::new(1);
        world.input(join(1, 1));
        world.input(join(2, 2));
        world.input(Input::Sent { session: SessionId(1), bytes: limits::TURN_BYTES });
        world.pass(Duration::from_hours(1));
        assert!(world.queue.is_granted(SessionId(1)) && world.queue.is_granted(SessionId(2)));
        world.input(join(3, 3));
        assert!(world.queue.is_granted(SessionId(3)));
        assert_eq!(world.queue.len(), 1);
    }

    #[test]
    fn the_optimistic_slot_prefers_newcomers() {
        let mut world = World::new(1);
        for peer in 1..=3 {
            world.input(join(u64::from(peer), peer));
        }
        assert!(world.queue.is_granted(SessionId(1)) && world.queue.is_granted(SessionId(2)));
        // The optimistic turn of 2 ends first; 3 follows, then the newcomer 4 before 2.
        world.input(Input::Sent { session: SessionId(2), bytes: limits::OPTIMISTIC_TURN_BYTES });
        assert!(world.queue.is_granted(SessionId(3)));
        world.input(join(4, 4));
        world.input(Input::Sent { session: SessionId(3), bytes: limits::OPTIMISTIC_TURN_BYTES });
        assert!(world.queue.is_granted(SessionId(4)));
    }

    fn join_rare(session: u64, peer: u8, copies: u32) -> Input {
        Input::Join { session: SessionId(session), peer: PeerId([peer; 32]), copies }
    }

    #[test]
    fn of_a_peers_own_and_of_newcomers_the_rarest_comes_first() {
        let mut world = World::new(1);
        (1..=2).for_each(|peer| world.input(join(u64::from(peer), peer)));
        for (session, peer, copies) in [(10, 3, 9), (11, 3, 2), (12, 3, 9), (13, 4, 0)] {
            world.input(join_rare(session, peer, copies));
        }
        let positions = [11, 13, 10, 12].map(|session| world.queue.position(SessionId(session)).unwrap());
        assert_eq!(positions, [1, 2, 3, 4]);
        // The optimistic turn of 2 ends: of the newcomers 3 and 4 the latter wants what nobody has.
        world.input(Input::Sent { session: SessionId(2), bytes: limits::OPTIMISTIC_TURN_BYTES });
        assert!(world.queue.is_granted(SessionId(13)));
    }

    #[test]
    fn a_peer_that_comes_back_soon_has_its_place_again() {
        let mut world = World::new(1);
        (1..=5).for_each(|peer| world.input(join(u64::from(peer), peer)));
        assert_eq!(world.queue.position(SessionId(3)), Some(1));
        world.input(Input::Leave(SessionId(3)));
        assert_eq!(world.queue.position(SessionId(4)), Some(1));
        world.pass(Duration::from_secs(3));
        world.input(join(30, 3));
        assert_eq!(world.queue.position(SessionId(30)), Some(1));
        assert_eq!(world.told.get(&SessionId(30)), Some(&1));
        // While it is away nobody waits for it; after too long it is at the end.
        world.input(Input::Leave(SessionId(30)));
        world.input(Input::Leave(SessionId(1)));
        assert!(world.queue.is_granted(SessionId(4)));
        (6..=7).for_each(|peer| world.input(join(u64::from(peer), peer)));
        world.pass(limits::PLACE_KEPT);
        let behind = world.queue.len() as u32;
        world.input(join(31, 3));
        assert_eq!(world.queue.position(SessionId(31)), Some(behind + 1));
    }

    #[test]
    fn a_peer_that_had_its_quota_is_refused_until_the_day_is_over() {
        let mut world = World::new(1);
        world.input(Input::SetQuota(Some(1000)));
        for (session, peer) in [(1, 1), (2, 1), (3, 1), (4, 2)] {
            world.input(join(session, peer));
        }
        world.input(Input::Sent { session: SessionId(1), bytes: 999 });
        assert!(world.queue.is_granted(SessionId(1)));
        world.input(Input::Sent { session: SessionId(1), bytes: 1 });
        assert!(world.queue.is_granted(SessionId(4)) && world.queue.is_empty());
        world.input(join(5, 1));
        assert!(world.granted == BTreeSet::from([SessionId(4)]), "{:?}", world.granted);
        world.input(Input::SetQuota(Some(2000)));
        world.input(join(6, 1));
        assert!(world.queue.is_granted(SessionId(6)));
        world.input(Input::SetQuota(Some(500)));
        assert!(!world.queue.is_granted(SessionId(6)));
        world.pass(limits::QUOTA_PERIOD);
        world.input(join(7, 1));
        assert!(world.queue.is_granted(SessionId(7)));
    }

    #[test]
    fn what_a_peer_had_of_its_quota_counts_in_the_next_run() {
        let mut world = World::new(1);
        world.input(join(1, 1));
        world.input(Input::Sent { session: SessionId(1), bytes: 600 });
        world.pass(Duration::from_hours(4));
        let used = world.queue.used(world.now);
        assert_eq!(used, [Used { peer: PeerId([1; 32]), bytes: 600, left: Duration::from_hours(20) }]);

        let mut world = World::new(1);
        world.queue.restore(world.now, &used);
        world.input(Input::SetQuota(Some(1000)));
        world.input(join(2, 1));
        world.input(Input::Sent { session: SessionId(2), bytes: 400 });
        assert!(world.granted.is_empty(), "600 of the last run and 400 of this one");
        world.pass(Duration::from_hours(20));
        assert_eq!(world.queue.used(world.now), []);
        world.input(join(3, 1));
        assert!(world.queue.is_granted(SessionId(3)));
    }

    #[test]
    fn quotas_are_counted_for_a_bounded_number_of_peers_and_those_that_had_most_stay() {
        let mut world = World::new(1);
        world.input(Input::SetQuota(Some(1000)));
        for number in 0..limits::QUOTA_PEERS as u64 + 10 {
            let mut peer = [0; 32];
            peer[..8].copy_from_slice(&number.to_le_bytes());
            let session = SessionId(number);
            world.input(Input::Join { session, peer: PeerId(peer), copies: 0 });
            world.input(Input::Sent { session, bytes: if number == 5 { 900 } else { 1 } });
            world.input(Input::Leave(session));
        }
        assert!(world.queue.usage.len() <= limits::QUOTA_PEERS);
        assert!(world.queue.usage.values().any(|usage| usage.bytes == 900));
    }

    #[test]
    fn the_queue_is_bounded_for_all_and_for_each() {
        let mut world = World::new(1);
        for session in 0..2000 {
            world.input(join(session, 1));
        }
        assert_eq!(world.queue.len(), limits::UPLOAD_QUEUE_PER_PEER);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn slots_are_never_idle_and_positions_are_a_row(
            steps in prop::collection::vec((0u8..7, 0u64..20, 0u8..5, 0u64..90), 1..100),
        ) {
            let mut world = World::new(2);
            for (what, session, peer, number) in steps {
                match what {
                    0 | 1 if !world.granted.contains(&SessionId(session)) && !world.waiting.contains(&SessionId(session)) => {
                        world.input(join_rare(session, peer, number as u32 % 3));
                    }
                    2 => world.input(Input::Leave(SessionId(session))),
                    3 => world.input(Input::Sent { session: SessionId(session), bytes: number << 20 }),
                    4 => world.input(Input::SetSlots(number as usize % 6)),
                    5 => world.input(Input::SetQuota((number > 20).then_some(number << 22))),
                    _ => world.pass(Duration::from_secs(number)),
                }
            }
            // Positions that were told become right without further inputs.
            while !world.waiting.is_empty() && world.queue.tell_at.is_some() {
                world.pass(limits::QUEUE_NEWS_INTERVAL);
            }
            for session in &world.waiting {
                prop_assert_eq!(world.told.get(session).copied(), world.queue.position(*session));
            }
        }

        #[test]
        fn nobody_starves(peers in prop::collection::vec(0u8..4, 1..30)) {
            let mut world = World::new(1);
            for (session, peer) in (0u64..).zip(&peers) {
                world.input(join(session, *peer));
            }
            world.pass(limits::TURN * 40);
            prop_assert_eq!(world.grants.len(), peers.len());
        }
    }
}
