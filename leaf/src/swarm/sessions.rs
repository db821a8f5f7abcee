//! With whom there are sessions, and who is told that we want nothing of it now.

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
    /// Opens sessions that are due, as many as are allowed: with any of them, so that the sources of a large swarm are not
    /// the same few for all.
    pub(super) fn open_sessions(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let room = limits::SESSIONS_PER_JOB.saturating_sub(self.engaged());
        if room == 0 {
            return;
        }
        let is_due = |source: &Source| matches!(source.state, SourceState::Idle { retry_at } if retry_at <= cx.now);
        let due = self.sources.iter().filter(|(_, source)| is_due(source)).map(|(peer, _)| *peer);
        let mut due: Vec<PeerId> = due.collect();
        for _ in 0..room.min(due.len()) {
            let peer = due.swap_remove((cx.rng.next_u64() % due.len() as u64) as usize);
            if let Some(source) = self.sources.get_mut(&peer) {
                source.state = SourceState::Opening;
                source.tried = true;
                out.push(Output::Open(peer));
            }
        }
    }

    /// While all sessions that may be are open and a source was never tried, the session with the longest queue before it
    /// makes room: so a crowd spreads over all who can send, instead of waiting for those that it met first.
    pub(super) fn rotate_sessions(&mut self, now: Time, out: &mut Outbox<Output>) {
        if now < self.next_rotation || self.engaged() < limits::SESSIONS_PER_JOB {
            return;
        }
        let is_due = |source: &Source| {
            !source.tried || matches!(source.state, SourceState::Idle { retry_at } if retry_at <= now)
        };
        if !self
            .sources
            .values()
            .any(|source| is_due(source) && !source.is_engaged() && source.state != SourceState::Dropped)
        {
            return;
        }
        // Who has told no place has just opened, or was told that nothing is wanted of it.
        let waits = self.sources.iter().filter_map(|(peer, source)| match source.state {
            SourceState::Waiting { position } if source.waits_since + limits::SESSION_PATIENCE <= now => {
                Some((if source.wanted { position.unwrap_or(0) } else { u32::MAX }, *peer))
            }
            _ => None,
        });
        let Some((_, peer)) = waits.max() else { return };
        self.next_rotation = now + limits::SESSION_ROTATION;
        self.take_back(peer, out);
        if let Some(source) = self.sources.get_mut(&peer) {
            source.state = SourceState::Idle { retry_at: now + limits::SESSION_PAUSE };
            Self::forget_part(self.plan.as_mut(), source);
        }
        out.push(Output::Close(peer));
    }

    /// Tells sources that hold a part whether there is something in it for us.
    pub(super) fn tell_appetite(&mut self, out: &mut Outbox<Output>) {
        let Some(plan) = self.plan.as_ref().filter(|_| std::mem::take(&mut self.appetite_due)) else { return };
        let (size, pieces) = (plan.layout().size(), plan.layout().pieces());
        for (peer, source) in self.sources.iter_mut().filter(|(_, source)| source.is_open()) {
            // Under another size nobody knows.
            let part = source.partial.as_ref().filter(|_| source.size == Some(size));
            let wants = part.is_none_or(|part| part.offers(plan.have(), 0..pieces));
            if wants != source.wanted {
                source.wanted = wants;
                out.push(Output::Appetite { peer: *peer, wants });
            }
        }
    }

    pub(super) fn engaged(&self) -> usize {
        self.sources.values().filter(|source| source.is_engaged()).count()
    }
}
