//! What this leaf knows of ultrapeers, and from whom: what a home told of is believed to be there; what anybody else named
//! is dialled once in [`limits::HINT_AGAIN`], as it may be the address of a victim under any number of keys.

use std::net::SocketAddr;

use overlay::{
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    time::Time,
    wire::{
        descriptor::{Descriptor, SignedDescriptor},
        leaf::Members,
    },
};

use super::{
    Homes, Output,
    records::{Attempts, Distance, Known},
};

impl Homes {
    /// `vouched` if a home told of it.
    pub(super) fn learn(&mut self, cx: &mut Context<'_>, signed: SignedDescriptor, vouched: bool) -> Option<PeerId> {
        let descriptor = signed.open().ok()?;
        if descriptor.network != self.network || descriptor.peer == self.me {
            return None;
        }
        let peer = descriptor.peer;
        if descriptor.lifetime_s == 0 {
            self.forget(&peer);
            return None;
        }
        if !vouched && !self.may_try(cx.now, &descriptor) {
            return None;
        }
        match self.known.get_mut(&peer) {
            Some(known) if known.descriptor.sequence >= descriptor.sequence => {
                known.vouched |= vouched && known.descriptor.address == descriptor.address;
            }
            Some(known) => {
                // It moved: whatever became of the old address says nothing of the new one.
                if known.descriptor.address != descriptor.address {
                    known.attempts = Attempts::new(cx.now);
                    known.distance = Distance::Unknown;
                    known.vouched = false;
                }
                known.vouched |= vouched;
                (known.signed, known.descriptor) = (signed, descriptor);
            }
            None => {
                if self.known.len() >= limits::KNOWN_ULTRAPEERS && !self.make_room() {
                    return None;
                }
                let attempts = Attempts::new(cx.now);
                self.known.insert(peer, Known { signed, descriptor, attempts, distance: Distance::Unknown, vouched });
            }
        }
        self.place_home(cx, &peer);
        Some(peer)
    }

    /// True if the address of one that no home told of may be dialled: not in vain lately, and not for another one already.
    pub(super) fn may_try(&mut self, now: Time, named: &Descriptor) -> bool {
        self.known.get(&named.peer).is_some_and(|known| known.descriptor.address == named.address)
            || (self.vain.allows(now, &named.address)
                && self.known.values().all(|known| known.vouched || known.descriptor.address != named.address))
    }

    /// True if somebody is known at an address of whom no home told.
    pub fn is_only_named(&self, address: SocketAddr) -> bool {
        let mut there = self.known.values().filter(|known| known.descriptor.address == address).peekable();
        there.peek().is_some() && there.all(|known| !known.vouched)
    }

    /// Nobody answers at an address that somebody only named: it is not dialled for another for
    /// [`limits::HINT_AGAIN`].
    pub fn note_vain(&mut self, now: Time, address: SocketAddr) {
        self.vain.note(now, address);
    }

    /// Nobody answered at an address: those that only others named there are forgotten.
    pub(super) fn forget_named(&mut self, now: Time, address: SocketAddr) {
        let homes = &self.homes;
        let is_named = |peer: &PeerId, known: &mut Known| {
            !known.vouched && known.descriptor.address == address && !homes.contains_key(peer)
        };
        if self.known.extract_if(.., is_named).count() > 0 {
            self.vain.note(now, address);
        }
    }

    /// Forgets one that cannot be reached. False if there is none.
    pub(super) fn make_room(&mut self) -> bool {
        let failing = self.known.iter().find(|(peer, known)| {
            known.attempts.failures > 0 && known.attempts.dialling.is_none() && !self.homes.contains_key(*peer)
        });
        let peer = failing.map(|(peer, _)| *peer);
        peer.is_some_and(|peer| self.known.remove(&peer).is_some())
    }

    pub(super) fn forget(&mut self, peer: &PeerId) {
        if !self.homes.contains_key(peer) {
            self.known.remove(peer);
        }
    }

    /// Learns of others that are to be dialled first.
    pub(super) fn prefer(&mut self, cx: &mut Context<'_>, alternatives: Vec<SignedDescriptor>, vouched: bool) {
        let named = alternatives.into_iter().take(limits::ALTERNATIVES);
        let learned: Vec<_> = named.filter_map(|signed| self.learn(cx, signed, vouched)).collect();
        self.preferred.retain(|peer| !learned.contains(peer));
        for peer in learned.into_iter().rev() {
            self.preferred.push_front(peer);
        }
        self.preferred.truncate(limits::ALTERNATIVES);
    }

    pub(super) fn remembered(&mut self, cx: &mut Context<'_>, descriptors: Vec<SignedDescriptor>) {
        let learned: Vec<_> = descriptors.into_iter().filter_map(|signed| self.learn(cx, signed, true)).collect();
        self.cold = learned.is_empty();
        self.preferred.extend(learned.into_iter().take(limits::HOMES));
        self.preferred.truncate(limits::ALTERNATIVES);
    }

    pub(super) fn members(&mut self, cx: &mut Context<'_>, from: PeerId, members: Members, out: &mut Outbox<Output>) {
        let now = cx.now;
        for peer in &*members.gone {
            self.forget(peer);
            if *peer != from && self.homes.contains_key(peer) {
                self.falls_short(cx, peer, |home| home.suspected = true);
            }
        }
        let told = members.descriptors.len();
        for signed in members.descriptors {
            self.learn(cx, signed, true);
        }
        let Some(home) = self.homes.get_mut(&from) else { return };
        home.total = members.total;
        // What is known is either enough, or a second home is asked for what the first may have kept from us.
        let enough = self.known.len() >= members.total.min(limits::MEMBERS_PUSHED) as usize;
        let asked = self.homes.values().filter(|home| home.asked.is_some()).count();
        if told == 0 && (!enough || (self.cold && asked < 2)) {
            self.ask_members(now, from, out);
        }
    }

    pub(super) fn ask_members(&mut self, now: Time, from: PeerId, out: &mut Outbox<Output>) {
        let Some(home) = self.homes.get_mut(&from).filter(|home| !home.released) else { return };
        if home.asked.is_none_or(|asked| now.since(asked) >= limits::MEMBERS_ASK_PAUSE) {
            home.asked = Some(now);
            out.push(Output::AskMembers(from, limits::MEMBERS_ASKED));
        }
    }
}
