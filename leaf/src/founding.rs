//! Core: whether a leaf without a home begins a network itself, and how those that have none find each other.
//!
//! ```text
//! no home ──patience──> over ──first of those in contact──> begins a network
//!    │                    └── others go first: left time, and dialled often until one of them serves
//!    └── contacts: who dialled this leaf, who answered, whom these named, whom homes told of ──> dialled now and then
//! ```
//!
//! Whoever serves in any case (`always`) begins a network when it found none. Whoever serves when needed (`auto`) does so
//! only if another leaf without a home answered it, and it was dialled itself: a machine that lost its connection is no
//! network. The first of them, by the hash of the key, begins; the others wait for it.
//!
//! Invariants:
//! - with a home nothing is begun;
//! - nobody waits for ever: who goes first and does not begin is passed over, whatever keys it makes;
//! - an address that somebody else named is dialled once in [`limits::HINT_AGAIN`], and such dials are few an hour: a liar
//!   cannot have victims flooded;
//! - all that is known is bounded.
//!
//! Two networks that are begun at the same time find each other as ultrapeers: that is not decided here.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use overlay::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
    wire::hello::{Contact, Situation},
};
use rand::RngExt;

/// When this node serves as an ultrapeer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Willing {
    /// Not at all.
    #[default]
    Never,
    /// When the network needs one.
    Auto,
    /// In any case.
    Always,
}

#[cfg(feature = "net")]
impl From<overlay::config::Volunteer> for Willing {
    fn from(volunteer: overlay::config::Volunteer) -> Self {
        use overlay::config::Volunteer;
        match volunteer {
            Volunteer::Never => Self::Never,
            Volunteer::Auto => Self::Auto,
            Volunteer::Always => Self::Always,
        }
    }
}

/// What this node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// A leaf, and nothing else.
    #[default]
    Leaf,
    /// It asked to be an ultrapeer.
    Candidate,
    /// It serves.
    Ultrapeer,
}

/// What can happen.
#[derive(Debug)]
pub enum Input {
    /// When this node serves.
    Willing(Willing),
    /// What it is now.
    Role(Role),
    /// Whether it has a home.
    Homes(bool),
    /// All that it was told to join is known; true if that is anything.
    Sources(bool),
    /// It knows ultrapeers of an earlier session.
    WasHome,
    /// A home told of leaves that would be ultrapeers, or an earlier session did.
    Volunteers(Vec<Contact>),
    /// Another leaf answered a dial, and is no ultrapeer.
    Answered {
        /// Who, and where.
        contact: Contact,
        /// How it stands.
        situation: Situation,
        /// Others that it knows.
        named: Vec<Contact>,
    },
    /// Another leaf dialled this one.
    Knocked(Contact, Situation),
    /// A dial failed.
    DialFailed(SocketAddr),
    /// The leaf says good-bye.
    Leave,
}

/// What must be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial a leaf, for [`limits::CONTACT_TIMEOUT`] at most.
    Dial(Contact),
    /// Begin to be an ultrapeer.
    Begin(Begin),
    /// Another leaf has no home: ask the own ones whether they live.
    Doubt,
}

/// How this node becomes an ultrapeer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It begins a network: no ultrapeer was found.
    Alone,
    /// It begins a network for as many others that were in contact and have no home either.
    First(usize),
    /// It offers itself to the network that it is in.
    Offered,
    /// The network wants more ultrapeers, and a home invited this leaf; see [`crate::candidacy`].
    Invited,
}

impl Begin {
    /// True if it begins a network; false if it asks to be let into one.
    pub const fn founds(self) -> bool {
        matches!(self, Self::Alone | Self::First(_))
    }

    /// Time after which it gives up if it was not let in; `None` if it never does.
    pub const fn patience(self) -> Option<Duration> {
        match self {
            Self::Invited => Some(limits::CANDIDATE_PATIENCE),
            Self::Alone | Self::First(_) | Self::Offered => None,
        }
    }
}

/// See the module text.
#[derive(Debug)]
pub struct Founding {
    me: PeerId,
    willing: Willing,
    role: Role,
    /// What was asked for and is not there yet.
    begun: Option<Begin>,
    /// It does not offer itself before.
    rest_until: Time,
    has_home: bool,
    /// Since when it has no home, once it knows where to look for one.
    since: Option<Time>,
    sources: Option<bool>,
    was_home: bool,
    /// One of those in contact has just found a home: until then this leaf looks for it, too.
    hope: Option<Time>,
    /// When another leaf last dialled this one: it can be reached.
    reached: Option<Time>,
    contacts: BTreeMap<PeerId, Known>,
    /// Addresses that somebody else named, and that are dialled now.
    trying: BTreeMap<PeerId, SocketAddr>,
    hints: VecDeque<Contact>,
    failed: BTreeMap<SocketAddr, Time>,
    /// The latest first.
    volunteers: VecDeque<Contact>,
    credit: TokenBucket,
    doubted: Option<Time>,
    leaving: bool,
    /// The time of the last input.
    seen: Time,
}

/// A leaf that answered or dialled.
#[derive(Debug)]
struct Known {
    address: SocketAddr,
    situation: Situation,
    rank: [u8; 32],
    answered: Option<Time>,
    heard: Time,
    dialling: Option<SocketAddr>,
    /// When it is dialled next.
    at: Time,
    failures: u32,
}

impl Known {
    /// It answered a dial of late and has no home.
    fn counts(&self, now: Time) -> bool {
        self.situation != Situation::Settled && self.answered.is_some_and(|at| now.since(at) < limits::CONTACT_FRESH)
    }
}

/// The order in which leaves begin a network.
fn rank(peer: &PeerId) -> [u8; 32] {
    *blake3::hash(&peer.0).as_bytes()
}

impl Founding {
    /// Of a leaf that has no home and serves never.
    pub fn new(me: PeerId) -> Self {
        Self {
            me,
            willing: Willing::Never,
            role: Role::Leaf,
            begun: None,
            rest_until: Time::ZERO,
            has_home: false,
            since: None,
            sources: None,
            was_home: false,
            hope: None,
            reached: None,
            contacts: BTreeMap::new(),
            trying: BTreeMap::new(),
            hints: VecDeque::new(),
            failed: BTreeMap::new(),
            volunteers: VecDeque::new(),
            credit: TokenBucket::new(Time::ZERO, limits::HINTS_PER_HOUR / 3_600.0, limits::HINTS_BURST),
            doubted: None,
            leaving: false,
            seen: Time::ZERO,
        }
    }

    /// How this leaf stands, as it tells others.
    pub fn situation(&self) -> Situation {
        match (self.is_homeless(), self.willing) {
            (false, _) => Situation::Settled,
            (true, Willing::Never) => Situation::Homeless,
            (true, _) => Situation::Volunteer,
        }
    }

    /// When it serves.
    pub fn willing(&self) -> Willing {
        self.willing
    }

    /// Leaves that would be ultrapeers, as homes told, to keep for the next session: the latest first.
    pub fn volunteers(&self) -> impl Iterator<Item = &Contact> {
        self.volunteers.iter()
    }

    /// All other leaves that this one knows: those it was in touch with, then those that homes told of.
    pub fn contacts(&self) -> Vec<Contact> {
        let touched = self.contacts.iter().map(|(peer, known)| Contact { peer: *peer, address: known.address });
        let told = self.volunteers.iter().copied().filter(|told| !self.contacts.contains_key(&told.peer));
        touched.chain(told).collect()
    }

    /// Leaves without a home that would be ultrapeers, for one that asks from that address: those that go first, first.
    /// What only this machine can use is told to this machine only.
    pub fn named_to(&self, now: Time, asker: &Contact) -> Vec<Contact> {
        let local = is_local(asker.address);
        let is_there = |known: &Known| {
            let last = known.answered.map_or(known.heard, |at| at.max(known.heard));
            known.situation == Situation::Volunteer && now.since(last) < limits::CONTACT_FRESH
        };
        let named = self
            .contacts
            .iter()
            .filter(|(peer, known)| **peer != asker.peer && is_there(known) && (local || !is_local(known.address)));
        let mut named: Vec<_> =
            named.map(|(peer, known)| (known.rank, Contact { peer: *peer, address: known.address })).collect();
        named.sort_unstable();
        named.into_iter().map(|(_, contact)| contact).take(limits::CONTACTS_NAMED).collect()
    }

    /// True if an address is dialled that somebody only named.
    pub fn is_trying(&self, address: SocketAddr) -> bool {
        self.trying.values().any(|tried| *tried == address)
    }

    /// Nobody answers at an address that somebody only named: it is not dialled again for [`limits::HINT_AGAIN`].
    pub fn note_vain(&mut self, now: Time, address: SocketAddr) {
        if self.failed.len() < limits::HINTS_FAILED {
            self.failed.insert(address, now);
        }
        self.hints.retain(|hint| hint.address != address);
    }

    fn is_homeless(&self) -> bool {
        !self.has_home && self.role != Role::Ultrapeer
    }

    /// Begins or ends the search for others, as it has become homeless or is not any more.
    fn settle(&mut self, now: Time) {
        if !self.is_homeless() {
            (self.since, self.hope) = (None, None);
            self.hints.clear();
            // Whatever becomes of the dials under way.
            self.trying.clear();
            self.contacts.values_mut().for_each(|known| known.dialling = None);
        } else if self.since.is_none() && self.sources.is_some() {
            self.since = Some(now);
            let told: Vec<_> = self.volunteers.iter().copied().collect();
            for contact in told {
                self.hint(now, contact);
            }
            // Whoever was in contact before is asked how it stands now.
            for known in self.contacts.values_mut() {
                (known.at, known.failures) = (now, 0);
            }
        }
    }

    /// Somebody named an address. It is dialled when its turn comes, unless it was in vain lately.
    fn hint(&mut self, now: Time, contact: Contact) {
        let Contact { peer, address } = contact;
        self.failed.retain(|_, at| now.since(*at) < limits::HINT_AGAIN);
        let ip = address.ip().to_canonical();
        let is_new = peer != self.me
            && address.port() != 0
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && !self.contacts.contains_key(&peer)
            && self.trying.iter().all(|(tried, dialled)| *tried != peer && *dialled != address)
            && !self.failed.contains_key(&address)
            && self.hints.iter().all(|hint| hint.peer != peer && hint.address != address);
        if is_new && self.hints.len() < limits::HINTS {
            self.hints.push_back(contact);
        }
    }

    /// A leaf showed that it is where it is said to be: by its answer, or by dialling from there.
    fn meet(&mut self, now: Time, contact: Contact, situation: Situation) -> Option<&mut Known> {
        let Contact { peer, address } = contact;
        if peer == self.me {
            return None;
        }
        self.hints.retain(|hint| hint.peer != peer);
        let known = self.contacts.entry(peer).or_insert_with(|| Known {
            address,
            situation,
            rank: rank(&peer),
            answered: None,
            heard: now,
            dialling: None,
            at: now,
            failures: 0,
        });
        (known.address, known.situation, known.heard) = (address, situation, now);
        if self.contacts.len() > limits::CONTACTS {
            let worst = self.contacts.iter().max_by_key(|(_, known)| (!known.counts(now), known.rank));
            let worst = worst.map(|(peer, _)| *peer);
            worst.and_then(|worst| self.contacts.remove(&worst));
        }
        self.contacts.get_mut(&peer)
    }

    fn answered(&mut self, cx: &mut Context<'_>, contact: Contact, situation: Situation, named: Vec<Contact>) {
        let now = cx.now;
        self.trying.remove(&contact.peer);
        let pause = self.pause(cx, &contact.peer);
        let was_homeless = self.contacts.get(&contact.peer).is_some_and(|known| known.counts(now));
        if was_homeless && situation == Situation::Settled {
            self.hope = Some(now + limits::FOUNDING_HOPE);
            // It is one of them, or they know it, too.
            for known in self.contacts.values_mut() {
                let soon = now + limits::CONTACT_PAUSE_FIRST.mul_f64(cx.rng.random_range(0.0..1.0));
                known.at = known.at.min(soon);
            }
        }
        if let Some(known) = self.meet(now, contact, situation) {
            known.answered = Some(now);
            known.dialling = None;
            known.failures = 0;
            known.at = now + pause;
        }
        if self.since.is_some() {
            let local = is_local(contact.address);
            let usable = named.into_iter().filter(|hint| local || !is_local(hint.address));
            usable.take(limits::CONTACTS_NAMED).for_each(|hint| self.hint(now, hint));
        }
    }

    fn dial_failed(&mut self, cx: &mut Context<'_>, address: SocketAddr) {
        let now = cx.now;
        let vain = self.trying.extract_if(.., |_, dialled| *dialled == address).count();
        if vain > 0 {
            self.note_vain(now, address);
        }
        for known in self.contacts.values_mut().filter(|known| known.dialling == Some(address)) {
            known.dialling = None;
            known.failures += 1;
            known.at = now + limits::CONTACT_PAUSE.mul_f64(cx.rng.random_range(0.75..1.25));
        }
        self.contacts.retain(|_, known| known.failures < limits::CONTACT_FAILURES);
    }

    /// Time until a leaf is dialled again. The one that is to begin is asked often, when it may begin soon.
    fn pause(&self, cx: &mut Context<'_>, peer: &PeerId) -> Duration {
        let is_over = self.since.is_some_and(|since| cx.now + limits::CONTACT_PAUSE >= since + self.patience());
        let volunteers = self.contacts.iter().filter(|(_, known)| known.situation == Situation::Volunteer);
        let first = volunteers.min_by_key(|(_, known)| known.rank).map(|(peer, _)| peer);
        let pause = if is_over && first == Some(peer) { limits::CONTACT_PAUSE_FIRST } else { limits::CONTACT_PAUSE };
        pause.mul_f64(cx.rng.random_range(0.75..1.25))
    }

    /// For how long this leaf looks for an ultrapeer before it thinks of beginning a network.
    fn patience(&self) -> Duration {
        let knows_some = self.sources == Some(true) || self.was_home;
        match self.willing {
            Willing::Always if !knows_some => Duration::ZERO,
            Willing::Auto | Willing::Never if !self.was_home => limits::FOUNDING_PATIENCE_NEW,
            _ => limits::FOUNDING_PATIENCE,
        }
    }

    /// Those in contact that would begin a network before this leaf.
    fn before_me(&self, now: Time) -> impl Iterator<Item = &Known> {
        let own = rank(&self.me);
        self.contacts
            .values()
            .filter(move |known| known.situation == Situation::Volunteer && known.counts(now) && known.rank < own)
    }

    /// When this leaf begins a network, as things are now, and how.
    fn begins(&self, now: Time) -> Option<(Time, Begin)> {
        let since = self.since?;
        let before = self.before_me(now).count();
        let begin = match self.willing {
            Willing::Never => return None,
            Willing::Always => {
                (since + self.patience() + limits::FOUNDING_YIELD_ALWAYS * before.min(1) as u32, Begin::Alone)
            }
            Willing::Auto => {
                let others = self.contacts.values().filter(|known| known.counts(now)).count();
                let is_reached = self.reached.is_some_and(|at| now.since(at) < limits::CONTACT_FRESH);
                if others == 0 || !is_reached {
                    return None;
                }
                let last = since + self.patience() + limits::FOUNDING_YIELD * limits::FOUNDING_YIELDS as u32;
                let at = since + self.patience() + limits::FOUNDING_YIELD * before as u32;
                (self.hope.map_or(at, |hope| at.max(hope)).min(last), Begin::First(others))
            }
        };
        (!self.begun.is_some_and(Begin::founds)).then_some(begin)
    }

    /// When it offers itself to the network that it is in.
    fn offers(&self) -> Option<Time> {
        let offers =
            self.willing == Willing::Always && self.role == Role::Leaf && self.has_home && self.begun.is_none();
        offers.then_some(self.rest_until)
    }

    /// Does what is due.
    fn attend(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        if self.leaving {
            return;
        }
        if self.offers().is_some_and(|at| at <= now) {
            self.begun = Some(Begin::Offered);
            out.push(Output::Begin(Begin::Offered));
        }
        if let Some((at, begin)) = self.begins(now)
            && at <= now
        {
            self.begun = Some(begin);
            out.push(Output::Begin(begin));
        }
        if self.since.is_some() {
            self.dial(now, out);
        }
    }

    fn dialling(&self) -> usize {
        self.trying.len() + self.contacts.values().filter(|known| known.dialling.is_some()).count()
    }

    fn dial(&mut self, now: Time, out: &mut Outbox<Output>) {
        let mut room = limits::CONTACT_DIALS.saturating_sub(self.dialling());
        for (peer, known) in &mut self.contacts {
            if room > 0 && known.dialling.is_none() && known.at <= now {
                known.dialling = Some(known.address);
                out.push(Output::Dial(Contact { peer: *peer, address: known.address }));
                room -= 1;
            }
        }
        while room > 0
            && self.failed.len() < limits::HINTS_FAILED
            && !self.hints.is_empty()
            && self.credit.take(now)
            && let Some(hint) = self.hints.pop_front()
        {
            self.trying.insert(hint.peer, hint.address);
            out.push(Output::Dial(hint));
            room -= 1;
        }
    }
}

/// True if only this machine can use an address.
pub fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

impl Machine for Founding {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        let now = cx.now;
        self.seen = now;
        match input {
            Input::Willing(willing) => {
                // Whoever asks for it now does not wait.
                self.rest_until = now;
                self.willing = willing;
            }
            Input::Role(role) => {
                if role == Role::Leaf && self.role == Role::Ultrapeer {
                    self.rest_until = now + limits::ROLE_REST;
                }
                if role != Role::Candidate {
                    self.begun = None;
                }
                self.role = role;
            }
            Input::Homes(has_home) => {
                self.has_home = has_home;
                self.was_home |= has_home;
            }
            Input::Sources(some) => self.sources = Some(some),
            Input::WasHome => self.was_home = true,
            Input::Volunteers(told) => {
                // Only homes tell of them.
                self.was_home |= !told.is_empty();
                let told: Vec<_> = told.into_iter().filter(|contact| contact.peer != self.me).collect();
                self.volunteers.retain(|known| told.iter().all(|contact| contact.peer != known.peer));
                told.into_iter().rev().for_each(|contact| self.volunteers.push_front(contact));
                self.volunteers.truncate(limits::VOLUNTEERS_KEPT);
            }
            Input::Answered { contact, situation, named } => self.answered(cx, contact, situation, named),
            Input::Knocked(contact, situation) => {
                if contact.peer != self.me {
                    self.reached = Some(now);
                }
                if situation != Situation::Settled {
                    self.meet(now, contact, situation);
                    let is_due = self.doubted.is_none_or(|at| now.since(at) >= limits::DOUBT_PAUSE);
                    if self.has_home && is_due {
                        self.doubted = Some(now);
                        out.push(Output::Doubt);
                    }
                }
            }
            Input::DialFailed(address) => self.dial_failed(cx, address),
            Input::Leave => self.leaving = true,
        }
        self.settle(now);
        self.attend(cx, out);
    }

    fn next_deadline(&self) -> Option<Time> {
        if self.leaving {
            return None;
        }
        let offers = self.offers();
        if self.since.is_none() {
            return offers;
        }
        let begins = self.begins(self.seen).map(|(at, _)| at);
        // Who goes first counts for a while only.
        let passed =
            self.before_me(self.seen).filter_map(|known| known.answered).map(|at| at + limits::CONTACT_FRESH).min();
        let passed = passed.filter(|_| begins.is_some());
        let has_room = self.dialling() < limits::CONTACT_DIALS;
        let due = self.contacts.values().filter(|known| known.dialling.is_none()).map(|known| known.at).min();
        let due = due.filter(|_| has_room);
        [offers, begins, passed, due].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        self.seen = cx.now;
        self.attend(cx, out);
    }
}
