//! The leaf's side of the network as one machine: composes [`crate::homes`], [`crate::search`], [`crate::wishes`] and
//! [`crate::founding`].
//!
//! [`crate::home_audits`] makes searches of its own, and sees those of the user.
//! Searches and wishes need the homes, a home that leaves a search unaccepted must show that it lives, and who has no home
//! looks for others that have none: that is all that the cores have to do with each other, and it is said here. The driver (feature `net`) runs
//! this machine and carries out what it asks for.

#[cfg(feature = "net")]
mod driver;
#[cfg(feature = "net")]
mod home_link;
#[cfg(feature = "net")]
mod joining;
#[cfg(feature = "net")]
mod meet;
#[cfg(feature = "net")]
mod reach;
#[cfg(feature = "net")]
mod relayed;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    num::NonZeroU16,
    time::Duration,
};

use overlay::{
    election::Regime,
    id::{ContentId, PeerId},
    introduction::Nature,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
    wire::{
        descriptor::SignedDescriptor,
        election::Hurdle,
        hello::{Contact, Situation},
        leaf::{Allowance, Appraisal, LeafMessage, Members, View, ViewAsk, WishHits},
        search::{Hit, StopReason},
    },
};

#[cfg(feature = "net")]
pub use self::driver::{FileList, HomeStatus, JoinProblem, Network as Service, SearchNews, Start, WishNews};
use crate::{
    candidacy::{Candidacy, Machinery},
    founding::{self, Begin, Founding, Role, Willing},
    home_audits::{self, Count, HomeAudits, Picked},
    homes::{self, Homes, Own, Why},
    outlook::Outlook,
    search::{self, End, HomeFacts, Request, Searches, Ticket},
    views::Views,
    wishes::{self, Wishes},
};

/// What can happen.
#[derive(Debug)]
pub enum Input {
    /// Addresses that the leaf is told to join, as they resolve now.
    Targets(Vec<SocketAddr>),
    /// Descriptors from earlier sessions, its homes first.
    Remembered(Vec<SignedDescriptor>),
    /// A dial ended in a welcome.
    Attached {
        /// The ultrapeer.
        peer: PeerId,
        /// Where it was dialled.
        address: SocketAddr,
        /// Its descriptor, if it knows its own address already.
        descriptor: Option<SignedDescriptor>,
        /// The round trip to it.
        rtt: Duration,
        /// Where it sees this leaf.
        observed: SocketAddr,
    },
    /// A home dialled this leaf back; `None` if it did not try.
    DialledBack(PeerId, Option<bool>),
    /// A router says that it forwards packets to this leaf from there; `None` if none does any more.
    Mapped(Option<SocketAddr>),
    /// A dial ended in a refusal that names others, the best first.
    Refused(SocketAddr, Vec<SignedDescriptor>),
    /// A dial ended otherwise.
    DialFailed(SocketAddr),
    /// How far away an ultrapeer is that was to be measured; `None` if it does not answer.
    Measured(PeerId, Option<Duration>),
    /// A home tells which ultrapeers there are.
    Members(PeerId, Members),
    /// A home tells how often this leaf may search there.
    Allowance(PeerId, Allowance),
    /// The round trip to a home, measured again.
    RoundTrip(PeerId, Duration),
    /// A home has this leaf's list.
    Acknowledged {
        /// The home.
        home: PeerId,
        /// The sequence of the list.
        sequence: u64,
        /// True if it took all of it.
        whole: bool,
    },
    /// A file of the list that was to be chosen; `None` if there is none.
    Picked(PeerId, Option<Picked>),
    /// A home answers.
    Alive(PeerId),
    /// A home is about to end, and names others, the best first.
    Draining(PeerId, Vec<SignedDescriptor>),
    /// A home says whom it takes for an ultrapeer.
    View(PeerId, View),
    /// A home is gone.
    Lost(PeerId),
    /// When this node serves as an ultrapeer.
    Willing(Willing),
    /// What this node runs on.
    Conditions(Machinery),
    /// A home says what it found out about this leaf.
    Appraised(PeerId, Appraisal),
    /// What those who vote said against this node.
    Hurdle(Option<Hurdle>),
    /// What this node is; an ultrapeer with where it is dialled and what it covers.
    Role(Role, Option<Own>),
    /// Whether the leaf is told to join anything. The addresses follow as `Targets`.
    Sources(bool),
    /// Leaves that would be ultrapeers, as a home told or an earlier session did.
    Volunteers(Vec<Contact>),
    /// A leaf that was dialled says how it stands, and whom it knows.
    Answered {
        /// Who, and where.
        contact: Contact,
        /// How it stands.
        situation: Situation,
        /// Others that it knows.
        named: Vec<Contact>,
    },
    /// Ultrapeers that such a leaf knows, the best first.
    Named(Vec<SignedDescriptor>),
    /// Another leaf dialled this one, which is no ultrapeer.
    Knocked(Contact, Situation),
    /// The leaf says good-bye: nobody is dialled from now on.
    Leave,
    /// The user searches.
    Search(Ticket, Request),
    /// A home answers a search.
    Answer(Ticket, PeerId, LeafMessage),
    /// The stream of a search to a home ended without a summary.
    AnswerLost(Ticket, PeerId),
    /// The user does not want a search any more.
    Cancel(Ticket),
    /// The user wishes for something; these contents of it were found before, the oldest first.
    Wish(wishes::Number, wishes::Source, Vec<ContentId>),
    /// The user wishes for it no more.
    Unwish(wishes::Number),
    /// A home tells what a wish found.
    WishHits(PeerId, WishHits),
    /// A search for a wish found something.
    WishFound(wishes::Number, Box<Hit>),
}

/// What the driver must do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Dial an ultrapeer.
    Dial {
        /// Where.
        address: SocketAddr,
        /// Who must be there; `None` takes whoever is there.
        peer: Option<PeerId>,
        /// Whether to say that there is nowhere else to go.
        insists: bool,
    },
    /// Dial a leaf that may be an ultrapeer by now, for [`limits::CONTACT_TIMEOUT`] at most.
    Contact(Contact),
    /// Choose a file of the list that is published now by that random number; answer with `Picked`.
    Pick(PeerId, u64),
    /// Something of the audits of homes is to be counted.
    Count(Count),
    /// Begin to be an ultrapeer; answer with `Role`.
    Begin(Begin),
    /// Measure how far away an ultrapeer is.
    Measure(PeerId, SocketAddr),
    /// Ask a home for that many descriptors.
    AskMembers(PeerId, u16),
    /// Ask a home whom it takes for an ultrapeer.
    AskView(PeerId, ViewAsk),
    /// Ask a home to dial this leaf back, at a port if that is not the one that it sees.
    AskDialBack(PeerId, Option<NonZeroU16>),
    /// What is in front of this leaf, as is known now; and where it is reached, if no home sees it there.
    Nature(Nature, Option<SocketAddr>),
    /// Say good-bye to a home.
    Release(PeerId, Why),
    /// There are as many homes as there should be again, so long after one was lost.
    Restored(Duration),
    /// The set of homes changed.
    HomesChanged,
    /// A home must show that it lives, or be given up.
    Suspect(PeerId),
    /// Send a search to a home, on a stream of its own.
    Ask(Ticket, PeerId, overlay::wire::search::Search),
    /// Drop the stream of a search to a home.
    Drop(Ticket, PeerId),
    /// Show a hit to the user.
    Show(Ticket, Box<Hit>),
    /// A search has ended.
    End(Ticket, End),
    /// A home shall have these wishes, in place of those that it was told before.
    TellWishes(PeerId, overlay::wire::leaf::Wishes),
    /// Search for what is there already of a wish; answer with `WishFound`.
    SearchWish(wishes::Number, wishes::Source),
    /// A content that is new to a wish.
    ShowWish(wishes::Number, Box<Hit>),
}

/// Homes, searches, wishes and founding. See the module text.
#[derive(Debug)]
pub struct Network {
    homes: Homes,
    founding: Founding,
    candidacy: Candidacy,
    searches: Searches,
    audits: HomeAudits,
    /// Searches that ended in this step, and whether nothing is missing.
    ended: Vec<(Ticket, bool)>,
    wishes: Wishes,
    views: Views,
    outlook: Outlook,
    nature: (Nature, Option<SocketAddr>),
    round_trips: BTreeMap<PeerId, Duration>,
    allowances: BTreeMap<PeerId, Allowance>,
}

impl Network {
    /// No home, no search, no wish.
    pub fn new(me: PeerId, network: &str, regime: Regime) -> Self {
        Self {
            homes: Homes::new(me, network),
            founding: Founding::new(me),
            candidacy: Candidacy::new(regime),
            searches: Searches::default(),
            audits: HomeAudits::new(me),
            ended: Vec::new(),
            wishes: Wishes::new(me),
            views: Views::default(),
            outlook: Outlook::default(),
            nature: Default::default(),
            round_trips: BTreeMap::new(),
            allowances: BTreeMap::new(),
        }
    }

    /// The homes.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    /// Who has no home either, and whether this leaf waits for them.
    pub fn founding(&self) -> &Founding {
        &self.founding
    }

    /// Whether this leaf asks to be let in as an ultrapeer, and what stands in its way.
    pub fn candidacy(&self) -> &Candidacy {
        &self.candidacy
    }

    fn with_founding(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>, input: Option<founding::Input>) {
        let mut inner = Outbox::new();
        match input {
            Some(input) => self.founding.handle(cx, input, &mut inner),
            None => self.founding.on_deadline(cx, &mut inner),
        }
        for output in inner.drain() {
            match output {
                // Somebody is dialled there already, and answers for both.
                founding::Output::Dial(contact) if self.homes.is_dialling(contact.address) => {}
                founding::Output::Dial(contact) => out.push(Output::Contact(contact)),
                founding::Output::Begin(begin) => out.push(Output::Begin(begin)),
                founding::Output::Doubt => out.extend(self.homes.iter().map(|(peer, ..)| Output::Suspect(peer))),
            }
        }
    }

    /// What searches need to know of the homes. One that ends, or is gone as others say, counts as far away.
    fn facts(&self, now: Time) -> Vec<HomeFacts> {
        let near = |peer: &PeerId| self.round_trips.get(peer).copied().filter(|_| self.homes.serves(now, peer));
        let fact = |(peer, address, _): (PeerId, SocketAddr, Time)| HomeFacts {
            peer,
            rtt_us: near(&peer).map_or(u64::MAX, |rtt| rtt.as_micros() as u64),
            allowance: self.allowances.get(&peer).copied().unwrap_or_else(|| usual_allowance(address)),
        };
        self.homes.iter().map(fact).collect()
    }

    fn with_homes(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Homes, &mut Context<'_>, &mut Outbox<homes::Output>),
    ) {
        let mut inner = Outbox::new();
        act(&mut self.homes, cx, &mut inner);
        let mut changed = false;
        for output in inner.drain() {
            match output {
                homes::Output::Dial { address, peer, insists } => out.push(Output::Dial { address, peer, insists }),
                homes::Output::Measure(peer, address) => out.push(Output::Measure(peer, address)),
                homes::Output::AskMembers(peer, most) => out.push(Output::AskMembers(peer, most)),
                homes::Output::Release(peer, why) => out.push(Output::Release(peer, why)),
                homes::Output::Restored(span) => out.push(Output::Restored(span)),
                homes::Output::Changed => changed = true,
            }
        }
        if changed {
            out.push(Output::HomesChanged);
            let facts = self.facts(cx.now);
            let now = cx.now;
            self.with_searches(now, out, |searches, inner| searches.homes_changed(now, &facts, inner));
            let has_home = !self.homes.is_empty();
            self.with_founding(cx, out, Some(founding::Input::Homes(has_home)));
        }
        // Also one that is only about to end.
        let facts = self.facts(cx.now);
        self.with_wishes(out, |wishes, inner| wishes.homes_changed(cx.now, &facts, inner));
    }

    fn with_wishes(&mut self, out: &mut Outbox<Output>, act: impl FnOnce(&mut Wishes, &mut Outbox<wishes::Output>)) {
        let mut inner = Outbox::new();
        act(&mut self.wishes, &mut inner);
        out.append_mapped(&mut inner, |output| match output {
            wishes::Output::Tell(peer, wishes) => Output::TellWishes(peer, wishes),
            wishes::Output::Search(number, query) => Output::SearchWish(number, query),
            wishes::Output::Found(number, hit) => Output::ShowWish(number, hit),
        });
    }

    fn with_searches(
        &mut self,
        now: Time,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Searches, &mut Outbox<search::Output>),
    ) {
        let mut inner = Outbox::new();
        act(&mut self.searches, &mut inner);
        let known = self.views.known();
        let mut all: VecDeque<_> = inner.drain().collect();
        while let Some(output) = all.pop_front() {
            match output {
                search::Output::AskView(ticket, peer) => {
                    let token = self.searches.token(ticket).unwrap_or_default();
                    out.push(Output::AskView(peer, ViewAsk { token, known }));
                }
                search::Output::Ask(ticket, peer, search) => {
                    self.audits.asked(now, ticket, peer);
                    out.push(Output::Ask(ticket, peer, search));
                }
                search::Output::Drop(ticket, peer) => out.push(Output::Drop(ticket, peer)),
                search::Output::Suspect(peer) => out.push(Output::Suspect(peer)),
                search::Output::Show(ticket, hit) if home_audits::is_own(ticket) => {
                    // What a second home finds is the user's, too.
                    if let Some(user) = self.audits.user_of(ticket) {
                        self.searches.companion_found(now, user, *hit, &mut inner);
                        all.extend(inner.drain());
                    }
                }
                search::Output::Show(ticket, hit) => out.push(Output::Show(ticket, hit)),
                search::Output::End(ticket, end) => {
                    let complete = end.summary.stopped == StopReason::Exhausted && end.summary.incomplete.is_empty();
                    self.ended.push((ticket, complete));
                    if !home_audits::is_own(ticket) {
                        out.push(Output::End(ticket, end));
                    }
                }
            }
        }
    }

    /// Searches that ended, and what that means for the audits of homes.
    fn attend_audits(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        while !self.ended.is_empty() {
            let mut inner = Outbox::new();
            for (ticket, complete) in std::mem::take(&mut self.ended) {
                self.audits.ended(cx, ticket, complete, &mut inner);
            }
            self.carry_out_audits(cx, inner, out);
        }
    }

    fn carry_out_audits(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Outbox<home_audits::Output>,
        out: &mut Outbox<Output>,
    ) {
        let now = cx.now;
        for output in inner.drain() {
            match output {
                home_audits::Output::Pick(home, random) => out.push(Output::Pick(home, random)),
                home_audits::Output::Ask(ticket, home, request) => {
                    let facts = self.facts(now);
                    self.with_searches(now, out, |searches, inner| {
                        searches.start_at(now, cx.rng, &facts, ticket, (request, home), inner);
                    });
                }
                home_audits::Output::CompanionEnded(user) => {
                    self.with_searches(now, out, |searches, inner| searches.companion_ended(now, user, inner));
                }
                home_audits::Output::Distrust(home) => {
                    out.push(Output::Count(Count::Distrusted));
                    self.with_homes(cx, out, |homes, cx, inner| {
                        homes.handle(cx, homes::Input::Distrust(home), inner);
                    });
                }
                home_audits::Output::Count(count) => out.push(Output::Count(count)),
            }
        }
    }

    /// Looks whether others can dial this leaf, and tells if that is news.
    fn look_out(&mut self, now: Time, out: &mut Outbox<Output>) {
        out.extend(self.outlook.on_deadline(now).map(|(home, port)| Output::AskDialBack(home, port)));
        let known = (self.outlook.nature(), self.outlook.elsewhere());
        if std::mem::replace(&mut self.nature, known) != known {
            out.push(Output::Nature(known.0, known.1));
        }
    }

    fn members(&mut self, cx: &mut Context<'_>, from: PeerId, members: Members, out: &mut Outbox<Output>) {
        // A home that others found gone is asked itself: they may be wrong, or our link is dead.
        for peer in members.gone.iter().filter(|peer| self.round_trips.contains_key(*peer)) {
            out.push(Output::Suspect(*peer));
        }
        self.with_homes(cx, out, |homes, cx, inner| homes.handle(cx, homes::Input::Members { from, members }, inner));
    }
}

/// What a home allows until it says so itself: the default, which does not count loopback.
fn usual_allowance(address: SocketAddr) -> Allowance {
    if address.ip().to_canonical().is_loopback() {
        return Allowance { interval_us: 0, burst: 0 };
    }
    Allowance { interval_us: (1e6 / limits::QUERY_RATE) as u64, burst: limits::QUERY_BURST as u32 }
}

impl Network {
    fn take(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        let now = cx.now;
        let input = match input {
            Input::Targets(addresses) => homes::Input::Targets(addresses),
            Input::Remembered(descriptors) => {
                if !descriptors.is_empty() {
                    self.with_founding(cx, out, Some(founding::Input::WasHome));
                }
                homes::Input::Remembered(descriptors)
            }
            Input::Willing(willing) => {
                self.candidacy.set_willing(willing);
                return self.with_founding(cx, out, Some(founding::Input::Willing(willing)));
            }
            Input::Conditions(machinery) => return self.candidacy.set_machinery(machinery),
            Input::Appraised(home, appraisal) => {
                // Of a home only: what a connection that has ended said last may come late.
                if self.round_trips.contains_key(&home) {
                    self.candidacy.appraised(home, appraisal);
                }
                out.extend(self.candidacy.begins(now).then_some(Output::Begin(Begin::Invited)));
                return;
            }
            Input::Hurdle(hurdle) => return self.candidacy.refused(hurdle),
            Input::Sources(some) => return self.with_founding(cx, out, Some(founding::Input::Sources(some))),
            Input::Volunteers(told) => return self.with_founding(cx, out, Some(founding::Input::Volunteers(told))),
            Input::Answered { contact, situation, named } => {
                return self.with_founding(cx, out, Some(founding::Input::Answered { contact, situation, named }));
            }
            Input::Named(alternatives) => homes::Input::Named(alternatives),
            Input::Knocked(contact, situation) => {
                return self.with_founding(cx, out, Some(founding::Input::Knocked(contact, situation)));
            }
            Input::Role(role, own) => {
                self.candidacy.set_role(now, role);
                self.with_founding(cx, out, Some(founding::Input::Role(role)));
                homes::Input::Own(own.filter(|_| role == Role::Ultrapeer))
            }
            Input::Refused(address, alternatives) => {
                // Whoever it was that refused: if it was a leaf, it has answered before.
                self.with_founding(cx, out, Some(founding::Input::DialFailed(address)));
                homes::Input::Refused { address, alternatives }
            }
            Input::DialFailed(address) => {
                // What one of them learned is worth as much to the other.
                if self.homes.is_only_named(address) || self.founding.is_trying(address) {
                    self.homes.note_vain(cx.now, address);
                    self.founding.note_vain(cx.now, address);
                }
                self.with_founding(cx, out, Some(founding::Input::DialFailed(address)));
                homes::Input::DialFailed(address)
            }
            Input::Measured(peer, distance) => homes::Input::Measured(peer, distance),
            Input::Acknowledged { home, sequence, whole } => {
                self.audits.listed(cx, home, sequence, whole);
                homes::Input::Acknowledged(home)
            }
            Input::Picked(home, picked) => {
                let mut inner = Outbox::new();
                self.audits.picked(cx, home, picked, &mut inner);
                return self.carry_out_audits(cx, inner, out);
            }
            Input::Alive(peer) => homes::Input::Alive(peer),
            Input::Draining(peer, alternatives) => {
                self.wishes.draining(&peer);
                homes::Input::Draining { peer, alternatives }
            }
            Input::View(from, view) => {
                let seen = self.views.take(&view);
                let Some(ticket) = self.searches.ticket(view.token) else { return };
                return self.with_searches(now, out, |searches, inner| searches.viewed(now, ticket, from, seen, inner));
            }
            Input::Attached { peer, address, descriptor, rtt, observed } => {
                self.outlook.attached(now, peer, address, observed);
                self.round_trips.insert(peer, rtt);
                self.audits.attached(peer);
                self.wishes.attached(now, &peer);
                homes::Input::Attached { peer, address, descriptor }
            }
            Input::Mapped(address) => return self.outlook.mapped(now, address),
            Input::DialledBack(peer, reached) => return self.outlook.told(now, &peer, reached),
            Input::Lost(peer) => {
                self.outlook.lost(now, &peer);
                self.candidacy.lost(&peer);
                self.round_trips.remove(&peer);
                self.audits.lost(&peer);
                self.allowances.remove(&peer);
                homes::Input::Lost(peer)
            }
            Input::Leave => {
                self.with_founding(cx, out, Some(founding::Input::Leave));
                homes::Input::Leave
            }
            Input::Members(from, members) => return self.members(cx, from, members, out),
            Input::Allowance(peer, allowance) => {
                // Of a home only: what a connection that has ended said last may come late.
                if self.round_trips.contains_key(&peer) {
                    self.allowances.insert(peer, allowance);
                }
                return;
            }
            Input::RoundTrip(peer, rtt) => {
                let Some(known) = self.round_trips.get_mut(&peer) else { return };
                *known = rtt;
                homes::Input::RoundTrip(peer, rtt)
            }
            Input::Search(ticket, request) => {
                let facts = self.facts(now);
                let first = facts.iter().min_by_key(|home| (home.rtt_us, home.peer)).map(|home| home.peer);
                let mut inner = Outbox::new();
                let accompanied = self.audits.user_searches(cx, ticket, &request, first, &mut inner);
                self.with_searches(now, out, |searches, inner| {
                    searches.start(now, cx.rng, &facts, ticket, request, inner);
                    if accompanied {
                        searches.accompany(ticket);
                    }
                });
                return self.carry_out_audits(cx, inner, out);
            }
            Input::Answer(ticket, from, message) => {
                self.audits.heard(now, ticket, from, &message);
                return self.with_searches(now, out, |searches, inner| {
                    searches.message(now, ticket, from, message, inner);
                });
            }
            Input::AnswerLost(ticket, from) => {
                let facts = self.facts(now);
                return self
                    .with_searches(now, out, |searches, inner| searches.failed(now, &facts, ticket, from, inner));
            }
            Input::Cancel(ticket) => {
                return self.with_searches(now, out, |searches, inner| searches.cancel(now, ticket, inner));
            }
            Input::Wish(number, query, found) => return self.wishes.add(now, number, query, found),
            Input::Unwish(number) => return self.wishes.remove(now, number),
            Input::WishHits(from, told) => {
                // Of a home only: what a connection that has ended said last may come late.
                if self.round_trips.contains_key(&from) {
                    self.with_wishes(out, |wishes, inner| {
                        told.hits.into_iter().for_each(|hit| wishes.hit(told.number, hit, inner));
                    });
                }
                return;
            }
            Input::WishFound(number, hit) => {
                return self.with_wishes(out, |wishes, inner| wishes.hit(number, *hit, inner));
            }
        };
        self.with_homes(cx, out, |homes, cx, inner| homes.handle(cx, input, inner));
    }
}

impl Machine for Network {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        self.take(cx, input, out);
        self.attend_audits(cx, out);
        self.look_out(cx.now, out);
    }

    fn next_deadline(&self) -> Option<Time> {
        let cores = [
            self.homes.next_deadline(),
            self.searches.next_deadline(),
            self.wishes.next_deadline(),
            self.founding.next_deadline(),
            self.audits.next_deadline(),
            self.outlook.next_deadline(),
        ];
        cores.into_iter().flatten().min()
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        self.with_homes(cx, out, Machine::on_deadline);
        let facts = self.facts(now);
        self.with_searches(now, out, |searches, inner| searches.on_deadline(now, &facts, inner));
        self.with_wishes(out, |wishes, inner| wishes.on_deadline(now, inner));
        self.with_founding(cx, out, None);
        let mut inner = Outbox::new();
        self.audits.on_deadline(cx, &mut inner);
        self.carry_out_audits(cx, inner, out);
        self.attend_audits(cx, out);
        self.look_out(now, out);
    }
}
