//! Core: introductions. A leaf that wants to reach another asks a home; the target's homes ask the target.
//!
//! What it decides: whom to ask, when to answer, and which addresses an asker may learn. Invariants:
//! - an address is given out only after its owner agreed, and only the one that a home itself sees on a
//!   validated path, at a port that it sees there or at which it came through: nobody can be made to dial a stranger. The
//!   target learns that of the asker, so that it can help;
//! - where a leaf is in its own network is told only to who is seen at the same address;
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
    introduction::{Way, is_near, ways},
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::List,
        descriptor::SignedDescriptor,
        leaf::{Introduce, Introduced, Introduction, IntroductionFailure, IntroductionReply, Side, Whereabouts},
        mesh::{Agreed, MeshIntroduce, MeshIntroduced},
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
    /// An own leaf agreed to be reached by that one, under that token.
    Agreed(Session, PeerId, u64),
    /// A leaf did not answer: it must show that it lives.
    Suspect(Session),
}

/// An own leaf wants to reach another.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where the answer goes.
    pub ticket: Ticket,
    /// The leaf that asks.
    pub asker: PeerId,
    /// Where it is seen.
    pub address: SocketAddr,
    /// What it asks.
    pub ask: Introduce,
}

impl Request {
    fn side(&self) -> Side {
        Side { address: self.address, nature: self.ask.nature, local: self.ask.local.clone() }
    }
}

/// Introductions under way. See the module text.
#[derive(Debug, Default)]
pub struct Introductions {
    next: u64,
    asking: BTreeMap<u64, Asking>,
    offered: BTreeMap<u64, Offered>,
    by_ticket: BTreeMap<Ticket, u64>,
    results: Vec<(Way, Result<(), IntroductionFailure>)>,
}

/// An own leaf asks; these homes have not answered yet.
#[derive(Debug)]
struct Asking {
    request: Request,
    waiting: BTreeSet<PeerId>,
    /// This ultrapeer's own question to the target, if it is attached here too.
    own: Option<u64>,
    found: Option<Box<Whereabouts>>,
    failure: IntroductionFailure,
    deadline: Time,
}

/// An own leaf was asked.
#[derive(Debug)]
struct Offered {
    session: Session,
    address: SocketAddr,
    asker: PeerId,
    token: u64,
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

    /// How introductions ended since this was last called, and by which way the two were to come together first.
    pub fn take_results(&mut self) -> Vec<(Way, Result<(), IntroductionFailure>)> {
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
        let session = self.number();
        let asked = MeshIntroduce {
            session,
            asker: request.asker,
            target: request.ask.target,
            way: request.ask.way,
            token: request.ask.token,
            side: request.side(),
        };
        let waiting: BTreeSet<_> = homes.into_iter().collect();
        for home in &waiting {
            out.push(Output::ToMesh(*home, asked.clone()));
        }
        let own = own.map(|leaf| self.offer(now, leaf, asked, AnswerTo::Own(session), out));
        self.by_ticket.insert(request.ticket, session);
        self.asking.insert(
            session,
            Asking {
                request,
                waiting,
                own,
                found: None,
                failure: IntroductionFailure::TargetGone,
                deadline: now + limits::INTRODUCTION_TIMEOUT + limits::INTRODUCTION_TIMEOUT / 2,
            },
        );
        self.settle(now, session, out);
    }

    /// Another ultrapeer asks for a leaf; `own` is its session and address if it is attached here.
    pub fn asked(
        &mut self,
        now: Time,
        from: PeerId,
        ask: MeshIntroduce,
        own: Option<(Session, SocketAddr)>,
        out: &mut Outbox<Output>,
    ) {
        let session = ask.session;
        let failure = match own {
            Some(leaf) if self.has_room() => {
                self.offer(now, leaf, ask, AnswerTo::Mesh { peer: from, session }, out);
                return;
            }
            Some(_) => IntroductionFailure::Limited,
            None => IntroductionFailure::TargetGone,
        };
        out.push(Output::Reply(from, MeshIntroduced { session, answer: Err(failure) }));
    }

    /// The leaf that an own leaf's reply is for; `None` if the reply is to nothing that it was asked.
    pub fn asker_of(&self, from: Session, reply: &IntroductionReply) -> Option<PeerId> {
        self.offered.get(&reply.session).filter(|offered| offered.session == from).map(|offered| offered.asker)
    }

    /// An own leaf answers. `relay` is this ultrapeer's descriptor, if it would relay for the two.
    pub fn replied(
        &mut self,
        now: Time,
        from: Session,
        reply: IntroductionReply,
        relay: Option<SignedDescriptor>,
        out: &mut Outbox<Output>,
    ) {
        if self.asker_of(from, &reply).is_none() {
            return;
        }
        let Some(offered) = self.offered.remove(&reply.session) else { return };
        let answer = if reply.accept {
            out.push(Output::Agreed(from, offered.asker, offered.token));
            let side = Side { address: offered.address, nature: reply.nature, local: reply.local };
            Ok(Box::new(Agreed { side, relay }))
        } else {
            Err(IntroductionFailure::Refused)
        };
        self.answer(now, offered.answer_to, answer, out);
    }

    /// Another ultrapeer answers.
    pub fn answered(&mut self, now: Time, from: PeerId, introduced: MeshIntroduced, out: &mut Outbox<Output>) {
        let Some(asking) = self.asking.get_mut(&introduced.session) else { return };
        if !asking.waiting.remove(&from) {
            return;
        }
        asking.take(now, introduced.answer);
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
        leaf: (Session, SocketAddr),
        ask: MeshIntroduce,
        answer_to: AnswerTo,
        out: &mut Outbox<Output>,
    ) -> u64 {
        let id = self.number();
        let (session, address) = leaf;
        let MeshIntroduce { asker, way, token, mut side, .. } = ask;
        if !is_same_host(side.address, address) {
            side.local = List::default();
        }
        out.push(Output::ToLeaf(
            session,
            Introduction { session: id, peer: asker, way, token, side, observed: address },
        ));
        let deadline = now + limits::INTRODUCTION_TIMEOUT;
        self.offered.insert(id, Offered { session, address, asker, token, answer_to, deadline });
        id
    }

    fn answer(
        &mut self,
        now: Time,
        answer_to: AnswerTo,
        answer: Result<Box<Agreed>, IntroductionFailure>,
        out: &mut Outbox<Output>,
    ) {
        match answer_to {
            AnswerTo::Mesh { peer, session } => out.push(Output::Reply(peer, MeshIntroduced { session, answer })),
            AnswerTo::Own(session) => {
                let Some(asking) = self.asking.get_mut(&session) else { return };
                asking.own = None;
                asking.take(now, answer);
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
        let Asking { request, waiting, found, failure, .. } = asking;
        self.by_ticket.remove(&request.ticket);
        let failure = if waiting.is_empty() { failure } else { IntroductionFailure::Timeout };
        let way = request.ask.way.or_else(|| first_way(&request, found.as_deref()?)).unwrap_or(Way::Direct);
        let introduced = match found {
            None => Introduced::Failed(failure),
            Some(found) => Introduced::At(found),
        };
        self.results.push((way, if let Introduced::Failed(failure) = introduced { Err(failure) } else { Ok(()) }));
        out.push(Output::ToAsker(request.ticket, introduced));
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// By which way the two come together if it works out at once.
fn first_way(request: &Request, found: &Whereabouts) -> Option<Way> {
    let near = found.addresses.iter().any(|address| is_near(*address, request.address));
    ways(request.ask.nature, found.nature, near).first().copied()
}

fn is_same_host(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip().to_canonical() == other.ip().to_canonical()
}

impl Asking {
    /// A good answer came: others are awaited for a moment only.
    fn take(&mut self, now: Time, answer: Result<Box<Agreed>, IntroductionFailure>) {
        let Agreed { side, relay } = match answer {
            Ok(agreed) => *agreed,
            Err(failure) => {
                self.failure = failure;
                return;
            }
        };
        let observed = self.request.address;
        let found = self.found.get_or_insert_with(|| {
            let (addresses, local, relays) = (List::default(), List::default(), List::default());
            Box::new(Whereabouts { addresses, nature: side.nature, local, observed, relays })
        });
        if !found.addresses.contains(&side.address) {
            found.addresses.push(side.address);
        }
        if is_same_host(side.address, observed) {
            found.local = side.local;
        }
        if let Some(relay) = relay {
            found.relays.push(relay);
        }
        self.deadline = self.deadline.min(now + limits::INTRODUCTION_GATHER);
    }
}

#[cfg(test)]
mod tests {
    use overlay::introduction::{Mapping, Nature};
    use overlay::wire::search::Reachability;

    use super::*;

    const NATTED: Nature = Nature { reachability: Reachability::Natted, mapping: Mapping::Steady };

    fn peer(byte: u8) -> PeerId {
        PeerId([byte; 32])
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 7780))
    }

    fn local(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7780))
    }

    fn request(way: Option<Way>) -> Request {
        let (homes, local) = (List::default(), List::new([local(1)]));
        let ask = Introduce { target: peer(2), homes, way, token: 50, nature: NATTED, local };
        Request { ticket: 5, asker: peer(1), address: address(1), ask }
    }

    fn reply(session: u64, accept: bool) -> IntroductionReply {
        IntroductionReply { session, accept, nature: NATTED, local: List::new([local(2)]) }
    }

    fn agreed(last: u8) -> Result<Box<Agreed>, IntroductionFailure> {
        let side = Side { address: address(last), nature: NATTED, local: List::new([local(2)]) };
        Ok(Box::new(Agreed { side, relay: None }))
    }

    fn at(addresses: &[u8], locals: &[u8]) -> Introduced {
        Introduced::At(Box::new(Whereabouts {
            addresses: List::new(addresses.iter().map(|last| address(*last))),
            nature: NATTED,
            local: List::new(locals.iter().map(|last| local(*last))),
            observed: address(1),
            relays: List::default(),
        }))
    }

    fn outputs(out: &mut Outbox<Output>) -> Vec<Output> {
        out.drain().collect()
    }

    #[test]
    fn a_target_at_the_same_home_is_asked_and_its_address_given_after_it_agreed() {
        let (mut core, mut out) = (Introductions::default(), Outbox::new());
        core.start(Time(0), request(None), Some((7, address(2))), [], &mut out);
        let [Output::ToLeaf(7, introduction)] = &outputs(&mut out)[..] else { panic!("the target is asked") };
        let session = introduction.session;
        assert_eq!((introduction.side.address, introduction.observed), (address(1), address(2)));
        assert!(introduction.side.local.is_empty(), "the two are seen at different addresses");
        core.replied(Time(1), 8, reply(session, true), None, &mut out);
        assert!(out.is_empty(), "another leaf cannot answer for it");
        core.replied(Time(1), 7, reply(session, true), None, &mut out);
        assert_eq!(outputs(&mut out), [Output::Agreed(7, peer(1), 50), Output::ToAsker(5, at(&[2], &[]))]);
        assert_eq!(core.next_deadline(), None);
        assert_eq!(core.take_results(), [(Way::Punch, Ok(()))]);
    }

    #[test]
    fn one_that_declines_is_not_found_and_gives_no_address() {
        let (mut core, mut out) = (Introductions::default(), Outbox::new());
        core.start(Time(0), request(Some(Way::Push)), Some((7, address(2))), [], &mut out);
        let [Output::ToLeaf(7, introduction)] = &outputs(&mut out)[..] else { panic!("the target is asked") };
        core.replied(Time(1), 7, reply(introduction.session, false), None, &mut out);
        let refused = IntroductionFailure::Refused;
        assert_eq!(outputs(&mut out), [Output::ToAsker(5, Introduced::Failed(refused))]);
        assert_eq!(core.take_results(), [(Way::Push, Err(refused))]);
    }

    #[test]
    fn two_behind_one_address_learn_where_they_are_behind_it() {
        let (mut core, mut out) = (Introductions::default(), Outbox::new());
        let beside = SocketAddr::new(address(1).ip(), 9);
        core.start(Time(0), request(None), Some((7, beside)), [], &mut out);
        let [Output::ToLeaf(7, introduction)] = &outputs(&mut out)[..] else { panic!("the target is asked") };
        assert_eq!(introduction.side.local[..], [local(1)]);
        core.replied(Time(1), 7, reply(introduction.session, true), None, &mut out);
        let [.., Output::ToAsker(5, Introduced::At(found))] = &outputs(&mut out)[..] else { panic!("it agreed") };
        assert_eq!((&found.addresses[..], &found.local[..]), (&[beside][..], &[local(2)][..]));
        assert_eq!(core.take_results(), [(Way::Direct, Ok(()))]);
    }

    #[test]
    fn addresses_seen_by_several_homes_are_gathered() {
        let (mut core, mut out) = (Introductions::default(), Outbox::new());
        core.start(Time(0), request(None), None, [peer(10), peer(11), peer(12)], &mut out);
        let Output::ToMesh(_, ask) = &outputs(&mut out)[0] else { panic!("homes are asked") };
        let session = ask.session;
        let answer = |last| MeshIntroduced { session, answer: agreed(last) };
        core.answered(Time(1), peer(10), answer(3), &mut out);
        core.answered(Time(1), peer(10), answer(9), &mut out);
        core.answered(Time(2), peer(11), answer(2), &mut out);
        core.answered(Time(2), peer(13), answer(9), &mut out);
        assert!(out.is_empty(), "one that was not asked, or has answered, does not count");
        core.on_deadline(Time(1) + limits::INTRODUCTION_GATHER, &mut out);
        assert_eq!(outputs(&mut out), [Output::ToAsker(5, at(&[3, 2], &[]))]);
    }

    #[test]
    fn a_silent_target_is_suspected_and_the_asker_told() {
        let (mut core, mut out) = (Introductions::default(), Outbox::new());
        let side = request(None).side();
        let ask = MeshIntroduce { session: 3, asker: peer(1), target: peer(2), way: None, token: 50, side };
        core.asked(Time(0), peer(9), ask, Some((7, address(2))), &mut out);
        outputs(&mut out);
        core.on_deadline(Time(0) + limits::INTRODUCTION_TIMEOUT, &mut out);
        let reply = MeshIntroduced { session: 3, answer: Err(IntroductionFailure::Timeout) };
        assert_eq!(outputs(&mut out), [Output::Suspect(7), Output::Reply(peer(9), reply)]);
    }

    #[test]
    fn an_unknown_target_fails_as_soon_as_all_said_so() {
        let (mut core, mut out) = (Introductions::default(), Outbox::new());
        core.start(Time(0), request(None), None, [peer(10), peer(11)], &mut out);
        let Output::ToMesh(_, ask) = &outputs(&mut out)[0] else { panic!("homes are asked") };
        let gone = MeshIntroduced { session: ask.session, answer: Err(IntroductionFailure::TargetGone) };
        core.answered(Time(1), peer(10), gone, &mut out);
        core.unlinked(Time(2), &peer(11), &mut out);
        let expected = Introduced::Failed(IntroductionFailure::TargetGone);
        assert_eq!(outputs(&mut out), [Output::ToAsker(5, expected)]);
    }
}
