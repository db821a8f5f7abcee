//! Bringing leaves together: introductions, relays, dial-backs of those that want to know.

use std::{collections::BTreeSet, net::SocketAddr, num::NonZeroU16};

use overlay::{
    id::PeerId,
    introduction::Way,
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        leaf::{
            DialBackAsk, DialledBack, Introduce, Introduced, IntroductionFailure, IntroductionReply, RelayOpen,
            RelayRefusal,
        },
        search::Reachability,
    },
};

use super::{Denial, LimitedKind, Output, Phase, Ultrapeer};
use crate::{
    introduce::{self, Introductions, Request},
    leaves::Session,
    relays::{self, Guest, Relays},
    search::Ticket,
};

impl Ultrapeer {
    /// Connections that are relayed here.
    pub fn relays(&self) -> &Relays {
        &self.relays
    }

    pub(super) fn with_introductions(
        &mut self,
        now: Time,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Introductions, &mut Outbox<introduce::Output>),
    ) {
        let mut inner = Outbox::new();
        act(&mut self.introductions, &mut inner);
        for output in inner.drain() {
            match output {
                introduce::Output::ToAsker(ticket, introduced) => {
                    self.askers.remove(&ticket);
                    out.push(Output::ToAsker(ticket, introduced.into(), true));
                }
                introduce::Output::ToLeaf(session, introduction) => {
                    out.push(Output::ToLeaf(session, introduction.into()));
                }
                introduce::Output::ToMesh(peer, ask) => out.push(Output::ToMesh(peer, ask.into())),
                introduce::Output::Reply(peer, answer) => out.push(Output::ToMesh(peer, answer.into())),
                introduce::Output::Agreed(session, asker, token) => {
                    if let Some(target) = self.leaves.get(session).map(|leaf| leaf.peer) {
                        self.relays.agreed(now, asker, token, (target, session));
                    }
                }
                introduce::Output::Suspect(session) => {
                    self.with_leaves(now, out, |leaves, inner| leaves.suspect(now, session, inner));
                }
            }
        }
        let results = self.introductions.take_results().into_iter();
        out.extend(results.map(|(way, result)| Output::Introduction(way, result)));
    }

    pub(super) fn introduce(
        &mut self,
        now: Time,
        ticket: Ticket,
        session: Session,
        ask: Introduce,
        out: &mut Outbox<Output>,
    ) {
        let asker = self.leaves.get(session).map(|leaf| leaf.peer);
        let Some((asker, (_, address))) = asker.and_then(|peer| Some((peer, self.leaf_address(&peer)?))) else {
            return out.push(Output::RefuseAsker(ticket, Denial::Gone));
        };
        if !self.introductions.has_room() || !self.leaves.may_introduce(now, session) {
            out.push(Output::Limited(LimitedKind::Introduction));
            return out.push(Output::ToAsker(ticket, Introduced::Failed(IntroductionFailure::Limited).into(), true));
        }
        let own = self.leaf_address(&ask.target);
        let linked: BTreeSet<_> = self.membership.linked().collect();
        let mut homes: BTreeSet<_> = ask.homes.iter().copied().filter(|home| linked.contains(home)).collect();
        if homes.is_empty() && own.is_none() {
            // Nobody said where the target is: ask all.
            homes = linked;
        }
        self.askers.insert(ticket, session);
        let request = Request { ticket, asker, address, ask };
        self.with_introductions(now, out, |introductions, inner| {
            introductions.start(now, request, own, homes, inner);
        });
    }

    pub(super) fn introduction_replied(
        &mut self,
        now: Time,
        session: Session,
        reply: IntroductionReply,
        out: &mut Outbox<Output>,
    ) {
        let pair = self.leaves.get(session).map(|leaf| leaf.peer).zip(self.introductions.asker_of(session, &reply));
        let would = |(target, asker): &(PeerId, PeerId)| self.relays.would_join(asker, target, self.is_loaded());
        let relay = pair.filter(would).and_then(|_| self.membership.own().cloned());
        self.with_introductions(now, out, |introductions, inner| {
            introductions.replied(now, session, reply, relay, inner);
        });
    }

    pub(super) fn leaf_address(&self, peer: &PeerId) -> Option<(Session, SocketAddr)> {
        let session = self.leaves.session_of(peer)?;
        let leaf = self.leaves.get(session)?;
        // The leaf side of this very node dialled over loopback; others reach it where they reach this ultrapeer.
        if let Some(own) = self.address.filter(|_| *peer == self.me) {
            return Some((session, own));
        }
        let port = self.dial_backs.port(session).filter(|_| leaf.state.reachability == Reachability::Mapped);
        let port = port.map_or_else(|| leaf.address.port(), NonZeroU16::get);
        Some((session, SocketAddr::new(leaf.address.ip(), port)))
    }

    pub(super) fn dial_back_asked(&mut self, now: Time, session: Session, ask: DialBackAsk, out: &mut Outbox<Output>) {
        let Some(leaf) = self.leaves.get(session) else { return };
        let peer = leaf.peer;
        if let Some(address) = self.dial_backs.ask(now, session, (peer, leaf.address), ask.port) {
            out.push(Output::DialBack { peer, address, measured: false });
        } else {
            out.push(Output::Limited(LimitedKind::DialBack));
            out.push(Output::ToLeaf(session, DialledBack { reached: None }.into()));
        }
    }

    /// True if this node has too much to do to relay: it is about to end, or its places are almost all taken.
    fn is_loaded(&self) -> bool {
        let places = u64::from(self.leaves.capacity()) * limits::RELAY_LOAD / 100;
        !matches!(self.phase, Phase::Admitted | Phase::Founder) || self.leaves.len() as u64 > places
    }

    pub(super) fn relay_asked(
        &mut self,
        now: Time,
        guest: Guest,
        peer: PeerId,
        open: RelayOpen,
        out: &mut Outbox<Output>,
    ) {
        let busy = self.is_loaded();
        self.with_relays(out, |relays, inner| relays.open(now, guest, peer, open, busy, inner));
    }

    pub(super) fn with_relays(
        &mut self,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Relays, &mut Outbox<relays::Output>),
    ) {
        let mut inner = Outbox::new();
        act(&mut self.relays, &mut inner);
        for output in inner.drain() {
            match output {
                relays::Output::Offer(session, offer) => out.push(Output::ToLeaf(session, offer.into())),
                relays::Output::Join(one, other) => {
                    out.push(Output::Introduction(Way::Relay, Ok(())));
                    out.push(Output::RelayJoin(one, other));
                }
                relays::Output::Refuse(guest, why) => {
                    let failure = match why {
                        RelayRefusal::Full | RelayRefusal::Quota => IntroductionFailure::Limited,
                        RelayRefusal::Absent => IntroductionFailure::Timeout,
                        _ => IntroductionFailure::Refused,
                    };
                    if failure == IntroductionFailure::Limited {
                        out.push(Output::Limited(LimitedKind::Relay));
                    }
                    out.push(Output::Introduction(Way::Relay, Err(failure)));
                    out.push(Output::RelayRefuse(guest, why));
                }
            }
        }
    }
}
