//! Which sources are known, with whom there are sessions, which sources there is something to ask of, and who is told that
//! we want nothing of it now.

use overlay::{
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    time::Time,
};

use super::{
    Swarm,
    interface::Output,
    source::{Source, SourceState},
};

impl Swarm {
    /// Sources are known before one of them is opened, so that it may be any of them. Of more than
    /// [`limits::SOURCES_PER_JOB`] any may be among those that are known: if all knew those that came first, the others would
    /// never send.
    pub(super) fn on_found(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        if self.sources.contains_key(&peer) {
            return;
        }
        self.found += 1;
        if self.sources.len() >= limits::SOURCES_PER_JOB {
            // The one that failed most makes room, else any without a session, else one that sent something wrong.
            let worst = self.failed.last().map(|(_, peer)| *peer);
            let any = || {
                let is_kept = cx.rng.next_u64() % self.found < limits::SOURCES_PER_JOB as u64;
                let number = cx.rng.next_u64() % self.idle.len().max(1) as u64;
                self.idle.iter().nth(number as usize).filter(|_| is_kept).map(|(_, peer)| *peer)
            };
            let dropped = || {
                let mut all = self.sources.iter().filter(|(_, source)| source.state == SourceState::Dropped);
                all.next().filter(|_| self.idle.is_empty()).map(|(peer, _)| *peer)
            };
            let Some(leaves) = worst.or_else(any).or_else(dropped) else { return };
            self.set_state(leaves, SourceState::Dropped);
            self.sources.remove(&leaves);
        }
        self.sources.insert(peer, Source::new(cx.now));
        self.idle.insert((cx.now, peer));
    }

    pub(super) fn on_lost(&mut self, peer: PeerId, out: &mut Outbox<Output>) {
        self.take_back(peer, out);
        // One that was dropped stays known, so that it does not come back as a new one.
        if self.sources.get(&peer).is_none_or(|source| source.state == SourceState::Dropped) {
            return;
        }
        if self.engaged.contains(&peer) {
            out.push(Output::Close(peer));
        }
        self.forget_part(peer);
        self.set_state(peer, SourceState::Dropped);
        self.sources.remove(&peer);
    }

    /// Opens sessions that are due, as many as are allowed: with any of them, so that the sources of a large swarm are not
    /// the same few for all.
    pub(super) fn open_sessions(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let room = limits::SESSIONS_PER_JOB.saturating_sub(self.engaged.len());
        if room == 0 {
            return;
        }
        let mut due: Vec<PeerId> =
            self.idle.iter().take_while(|(at, _)| *at <= cx.now).map(|(_, peer)| *peer).collect();
        for _ in 0..room.min(due.len()) {
            let peer = due.swap_remove((cx.rng.next_u64() % due.len() as u64) as usize);
            self.set_state(peer, SourceState::Opening);
            out.push(Output::Open(peer));
        }
    }

    /// While all sessions that may be are open and a source was never tried, the session with the longest queue before it
    /// makes room: so a crowd spreads over all who can send, instead of waiting for those that it met first.
    pub(super) fn rotate_sessions(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.rotation_due().is_none_or(|at| now < at) {
            return;
        }
        // Who has told no place has just opened, or was told that nothing is wanted of it.
        let due =
            self.engaged().filter(|(_, source)| source.makes_room_at(self.rotated_at).is_some_and(|at| at <= now));
        let waits = due.map(|(peer, source)| match source.state {
            SourceState::Waiting { position } if source.wanted => (position.unwrap_or(0), peer),
            _ => (u32::MAX, peer),
        });
        let Some((_, peer)) = waits.max() else { return };
        self.rotated_at = Some(now);
        self.take_back(peer, out);
        self.set_state(peer, SourceState::Idle { retry_at: now + limits::SESSION_PAUSE });
        self.forget_part(peer);
        out.push(Output::Close(peer));
    }

    /// When a session will have waited for long enough to make room, if there is somebody to make room for.
    pub(super) fn rotation_due(&self) -> Option<Time> {
        if self.engaged.len() < limits::SESSIONS_PER_JOB {
            return None;
        }
        let (tried_at, _) = self.idle.first()?;
        let first = self.engaged().filter_map(|(_, source)| source.makes_room_at(self.rotated_at)).min()?;
        Some(first.max(*tried_at))
    }

    /// Tells all sources whether there is something in them for us: what is missing has changed.
    pub(super) fn tell_appetites(&mut self, out: &mut Outbox<Output>) {
        for peer in self.engaged.clone() {
            self.tell_appetite(peer, out);
        }
    }

    /// Tells a source that holds a part whether there is something in it for us, if it does not know.
    pub(super) fn tell_appetite(&mut self, peer: PeerId, out: &mut Outbox<Output>) {
        let Some(plan) = &self.plan else { return };
        let size = plan.layout().size();
        let Some(source) = self.sources.get_mut(&peer).filter(|source| source.is_open()) else { return };
        // Under another size nobody knows.
        let part = source.partial.as_ref().filter(|_| source.size == Some(size));
        let wants = part.is_none_or(|part| !source.requests.is_empty() || plan.would_ask(part));
        if wants != source.wanted {
            source.wanted = wants;
            out.push(Output::Appetite { peer, wants });
        }
    }

    /// Changes the state of a source, which alone decides whether it is engaged or idle.
    pub(super) fn set_state(&mut self, peer: PeerId, state: SourceState) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        if let SourceState::Idle { retry_at } = std::mem::replace(&mut source.state, state) {
            self.idle.remove(&(retry_at, peer));
            self.failed.remove(&(source.failures, peer));
        }
        if source.is_engaged() {
            self.engaged.insert(peer);
        } else {
            self.engaged.remove(&peer);
        }
        if let SourceState::Idle { retry_at } = state {
            self.idle.insert((retry_at, peer));
            if source.failures > 0 {
                self.failed.insert((source.failures, peer));
            }
        }
    }

    /// The sources with a session, or one that is being opened.
    pub(super) fn engaged(&self) -> impl Iterator<Item = (PeerId, &Source)> + '_ {
        self.engaged.iter().filter_map(|peer| Some((*peer, self.sources.get(peer)?)))
    }

    /// There is nothing to ask of `peer`. Until something changes nobody looks again, unless time alone may change it.
    pub(super) fn rest(&mut self, peer: PeerId) {
        let by_time = self.reading.is_some()
            || self.plan.as_ref().is_none_or(|plan| {
                !plan.is_proven()
                    || plan.is_end_game()
                    || plan.layout().segments() > 1 && plan.values_deadline().is_some()
            });
        if let Some(source) = self.sources.get_mut(&peer) {
            source.is_fed = !by_time;
        }
    }

    /// Something is missing again, or its values have come: whoever has it may be asked.
    pub(super) fn hunger(&mut self) {
        for peer in &self.engaged {
            if let Some(source) = self.sources.get_mut(peer) {
                source.is_fed = false;
            }
        }
    }
}
