//! Core: introductions. A leaf that wants to reach another asks a home; the target's homes ask the target.
//!
//! What it decides: whom to ask, when to answer, and which addresses an asker may learn. Invariants:
//! - an address is given out only after its owner agreed, and only the one that a home itself sees on a
//!   validated path: nobody can be made to dial a stranger;
//! - every introduction ends within [`limits::INTRODUCTION_TIMEOUT`] and a grace for the answer's way back.
//!
//! ```text
//! asker ──Introduce──> its home ──MeshIntroduce──> target's homes ──Introduction──> target
//!       <─Introduced──          <─MeshIntroduced──               <─IntroductionReply─
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use overlay::{
    id::PeerId,
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::List,
        leaf::{Introduced, Introduction, IntroductionFailure, IntroductionReply},
        mesh::{MeshIntroduce, MeshIntroduced},
    },
};

use crate::{leaves::Session, search::Ticket};

/// What must be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Answer the asker; the ticket is closed.
    ToAsker(Ticket, Introduced),
    /// Ask an own leaf.
    ToLeaf(Session, Introduction),
    /// Ask another ultrapeer.
    ToMesh(PeerId, MeshIntroduce),
    /// Answer another ultrapeer.
    Reply(PeerId, MeshIntroduced),
    /// A leaf did not answer: it must show that it lives.
    Suspect(Session),
}

/// An own leaf wants to reach another.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Where the answer goes.
    pub ticket: Ticket,
    /// The leaf that asks.
    pub asker: PeerId,
    /// The leaf that it wants to reach.
    pub target: PeerId,
}

/// Introductions under way. See the module text.
#[derive(Debug, Default)]
pub struct Introductions {
    next: u64,
    asking: BTreeMap<u64, Asking>,
    offered: BTreeMap<u64, Offered>,
    by_ticket: BTreeMap<Ticket, u64>,
    results: Vec<Result<(), IntroductionFailure>>,
}

/// An own leaf asks; these homes have not answered yet.
#[derive(Debug)]
struct Asking {
    ticket: Ticket,
    waiting: BTreeSet<PeerId>,
    /// This ultrapeer's own question to the target, if it is attached here too.
    own: Option<u64>,
    candidates: Vec<SocketAddr>,
    failure: IntroductionFailure,
    deadline: Time,
}

/// An own leaf was asked.
#[derive(Debug)]
struct Offered {
    session: Session,
    address: SocketAddr,
    answer_to: AnswerTo,
    deadline: Time,
}

#[derive(Debug, Clone, Copy)]
enum AnswerTo {
    Own(u64),
    Mesh { peer: PeerId, session: u64 },
}

impl Introductions {
    /// True if one more is taken.
    pub fn has_room(&self) -> bool {
        self.asking.len() + self.offered.len() < limits::INTRODUCTIONS
    }

    /// How introductions ended since this was last called.
    pub fn take_results(&mut self) -> Vec<Result<(), IntroductionFailure>> {
        std::mem::take(&mut self.results)
    }

    /// An own leaf asks. `own` is the target's session and address if it is attached here; `homes` are the
    /// other ultrapeers to ask.
    pub fn start(
        &mut self,
        now: Time,
        request: Request,
        own: Option<(Session, SocketAddr)>,
        homes: impl IntoIterator<Item = PeerId>,
        out: &mut Outbox<Output>,
    ) {
        let Request { ticket, asker, target } = request;
        let session = self.number();
        let waiting: BTreeSet<_> = homes.into_iter().collect();
        for home in &waiting {
            out.push(Output::ToMesh(*home, MeshIntroduce { session, asker, target }));
        }
        let own = own.map(|(leaf, address)| self.offer(now, leaf, address, asker, AnswerTo::Own(session), out));
        self.asking.insert(
            session,
            Asking {
                ticket,
                waiting,
                own,
                candidates: Vec::new(),
                failure: IntroductionFailure::TargetGone,
                deadline: now + limits::INTRODUCTION_TIMEOUT + limits::INTRODUCTION_TIMEOUT / 2,
            },
        );
        self.by_ticket.insert(ticket, session);
        self.settle(now, session, out);
    }

    /// Another ultrapeer asks for a leaf; `own` is its session and address if it is attached here.
    pub fn asked(
        &mut self,
        now: Time,
        from: PeerId,
        ask: &MeshIntroduce,
        own: Option<(Session, SocketAddr)>,
        out: &mut Outbox<Output>,
    ) {
        let failure = match own {
            Some((leaf, address)) if self.has_room() => {
                let answer_to = AnswerTo::Mesh { peer: from, session: ask.session };
                self.offer(now, leaf, address, ask.asker, answer_to, out);
                return;
            }
            Some(_) => IntroductionFailure::Limited,
            None => IntroductionFailure::TargetGone,
        };
        out.push(Output::Reply(from, MeshIntroduced { session: ask.session, answer: Err(failure) }));
    }

    /// An own leaf answers.
    pub fn replied(&mut self, now: Time, from: Session, reply: IntroductionReply, out: &mut Outbox<Output>) {
        if self.offered.get(&reply.session).is_none_or(|offered| offered.session != from) {
            return;
        }
        let Some(offered) = self.offered.remove(&reply.session) else { return };
        let answer = if reply.accept { Ok(offered.address) } else { Err(IntroductionFailure::Refused) };
        self.answer(now, offered.answer_to, answer, out);
    }

    /// Another ultrapeer answers.
    pub fn answered(&mut self, now: Time, from: PeerId, introduced: MeshIntroduced, out: &mut Outbox<Output>) {
        let Some(asking) = self.asking.get_mut(&introduced.session) else { return };
        if !asking.waiting.remove(&from) {
            return;
        }
        match introduced.answer {
            Ok(candidates) => asking.take(now, candidates),
            Err(failure) => asking.failure = failure,
        }
        self.settle(now, introduced.session, out);
    }

    /// The asker does not wait any more.
    pub fn cancel(&mut self, ticket: Ticket) {
        if let Some(session) = self.by_ticket.remove(&ticket) {
            self.asking.remove(&session);
        }
    }

    /// The link to another ultrapeer is lost: it answers nothing any more.
    pub fn unlinked(&mut self, now: Time, peer: &PeerId, out: &mut Outbox<Output>) {
        let sessions: Vec<_> = self
            .asking
            .iter_mut()
            .filter_map(|(session, asking)| asking.waiting.remove(peer).then_some(*session))
            .collect();
        for session in sessions {
            self.settle(now, session, out);
        }
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let asking = self.asking.values().map(|asking| asking.deadline);
        asking.chain(self.offered.values().map(|offered| offered.deadline)).min()
    }

    /// Gives up on what takes too long.
    pub fn on_deadline(&mut self, now: Time, out: &mut Outbox<Output>) {
        let silent: Vec<_> =
            self.offered.iter().filter(|(_, offered)| offered.deadline <= now).map(|(id, _)| *id).collect();
        for id in silent {
            let Some(offered) = self.offered.remove(&id) else { continue };
            out.push(Output::Suspect(offered.session));
            self.answer(now, offered.answer_to, Err(IntroductionFailure::Timeout), out);
        }
        let due: Vec<_> = self.asking.iter().filter(|(_, asking)| asking.deadline <= now).map(|(id, _)| *id).collect();
        for id in due {
            self.end(id, out);
        }
    }

    fn offer(
        &mut self,
        now: Time,
        session: Session,
        address: SocketAddr,
        asker: PeerId,
        answer_to: AnswerTo,
        out: &mut Outbox<Output>,
    ) -> u64 {
        let id = self.number();
        out.push(Output::ToLeaf(session, Introduction { session: id, peer: asker }));
        let deadline = now + limits::INTRODUCTION_TIMEOUT;
        self.offered.insert(id, Offered { session, address, answer_to, deadline });
        id
    }

    fn answer(
        &mut self,
        now: Time,
        answer_to: AnswerTo,
        answer: Result<SocketAddr, IntroductionFailure>,
        out: &mut Outbox<Output>,
    ) {
        match answer_to {
            AnswerTo::Mesh { peer, session } => {
                let answer = answer.map(|address| List::new([address]));
                out.push(Output::Reply(peer, MeshIntroduced { session, answer }));
            }
            AnswerTo::Own(session) => {
                let Some(asking) = self.asking.get_mut(&session) else { return };
                asking.own = None;
                match answer {
                    Ok(address) => asking.take(now, [address]),
                    Err(failure) => asking.failure = failure,
                }
                self.settle(now, session, out);
            }
        }
    }

    fn settle(&mut self, now: Time, session: u64, out: &mut Outbox<Output>) {
        let Some(asking) = self.asking.get(&session) else { return };
        let all_answered = asking.waiting.is_empty() && asking.own.is_none();
        if all_answered || asking.deadline <= now {
            self.end(session, out);
        }
    }

    fn end(&mut self, session: u64, out: &mut Outbox<Output>) {
        let Some(asking) = self.asking.remove(&session) else { return };
        self.by_ticket.remove(&asking.ticket);
        let failure = if asking.waiting.is_empty() { asking.failure } else { IntroductionFailure::Timeout };
        let introduced = if asking.candidates.is_empty() {
            self.results.push(Err(failure));
            Introduced::Failed(failure)
        } else {
            self.results.push(Ok(()));
            Introduced::At(List::new(asking.candidates))
        };
        out.push(Output::ToAsker(asking.ticket, introduced));
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Asking {
    /// Good addresses came: others are awaited for a moment only.
    fn take(&mut self, now: Time, candidates: impl IntoIterator<Item = SocketAddr>) {
        for candidate in candidates {
            if !self.candidates.contains(&candidate) && self.candidates.len() < limits::CANDIDATES {
                self.candidates.push(candidate);
            }
        }
        self.deadline = self.deadline.min(now + limits::INTRODUCTION_GATHER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request { ticket: 5, asker: PeerId([1; 32]), target: PeerId([2; 32]) };

    fn peer(byte: u8) -> PeerId {
        PeerId([byte; 32])
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 7780))
    }

    fn outputs(out: &mut Outbox<Output>) -> Vec<Output> {
        out.drain().collect()
    }

    #[test]
    fn a_target_at_the_same_home_is_asked_and_its_address_given_after_it_agreed() {
        let (mut core, mut out) = (Introductions::default(), Outbox::new());
        core.start(Time(0), REQUEST, Some((7, address(2))), [], &mut out);
        let [Output::ToLeaf(7, introduction)] = &outputs(&mut out)[..] else { panic!("the target is asked") };
        let session = introduction.session;
        core.replied(Time(1), 8, IntroductionReply { session, accept: true }, &mut out);
        assert!(out.is_empty(), "another leaf cannot answer for it");
        core.replied(Time(1), 7, IntroductionReply { session, accept: true }, &mut out);
        assert_eq!(outputs(&mut out), [Output::ToAsker(5, Introduced::At(List::new([address(2)])))]);
        assert_eq!(core.next_deadline(), None);
    }

    #[test]
    fn addresses_seen_by_several_homes_are_gathered() {
        let (mut core, mut out) = (Introductions::default(), Outbox::new());
        core.start(Time(0), REQUEST, None, [peer(10), peer(11), peer(12)], &mut out);
        let Output::ToMesh(_, ask) = &outputs(&mut out)[0] else { panic!("homes are asked") };
        let session = ask.session;
        let answer = |last| MeshIntroduced { session, answer: Ok(List::new([address(last)])) };
        core.answered(Time(1), peer(10), answer(1), &mut out);
        core.answered(Time(2), peer(11), answer(2), &mut out);
        assert!(out.is_empty());
        core.on_deadline(Time(1) + limits::INTRODUCTION_GATHER, &mut out);
        let expected = Introduced::At(List::new([address(1), address(2)]));
        assert_eq!(outputs(&mut out), [Output::ToAsker(5, expected)]);
    }

    #[test]
    fn a_silent_target_is_suspected_and_the_asker_told() {
        let (mut core, mut out) = (Introductions::default(), Outbox::new());
        let ask = MeshIntroduce { session: 3, asker: peer(1), target: peer(2) };
        core.asked(Time(0), peer(9), &ask, Some((7, address(2))), &mut out);
        outputs(&mut out);
        core.on_deadline(Time(0) + limits::INTRODUCTION_TIMEOUT, &mut out);
        let reply = MeshIntroduced { session: 3, answer: Err(IntroductionFailure::Timeout) };
        assert_eq!(outputs(&mut out), [Output::Suspect(7), Output::Reply(peer(9), reply)]);
    }

    #[test]
    fn an_unknown_target_fails_as_soon_as_all_said_so() {
        let (mut core, mut out) = (Introductions::default(), Outbox::new());
        core.start(Time(0), REQUEST, None, [peer(10), peer(11)], &mut out);
        let Output::ToMesh(_, ask) = &outputs(&mut out)[0] else { panic!("homes are asked") };
        let gone = MeshIntroduced { session: ask.session, answer: Err(IntroductionFailure::TargetGone) };
        core.answered(Time(1), peer(10), gone, &mut out);
        core.unlinked(Time(2), &peer(11), &mut out);
        let expected = Introduced::Failed(IntroductionFailure::TargetGone);
        assert_eq!(outputs(&mut out), [Output::ToAsker(5, expected)]);
    }
}
