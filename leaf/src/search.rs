//! Core: this leaf's own searches, from the moment a user asks to the summary.
//!
//! What it decides: which home coordinates, when the next one is asked instead, and what the user gets.
//!
//! ```text
//! start      wait for a home and for credit there, then ask the nearest home
//! silence    not accepted after 300 ms, or accepted and then quiet for 2 s: the same query id goes to the next
//!            home as well, and the silent one must show that it lives
//! hits       merged by content, from whichever home sends them
//! views      with the search, every home is asked whom it takes for an ultrapeer
//! end        the first home that ends its search ends this one, once the others have said that, or had the time for
//!            it; if all fail, or time is over, we say so
//! ```
//!
//! Invariant: every search gives exactly one summary, last, within its timeout.

use std::{collections::BTreeMap, time::Duration};

use overlay::{
    credit::TokenBucket,
    id::{ContentId, PeerId, QueryId},
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        leaf::{Allowance, LeafMessage},
        search::{Hit, Incomplete, IncompleteSet, Search, StopReason, Summary, Target},
    },
};
use rand::{Rng, RngExt};

use crate::views::{self, Seen};

/// A search, numbered by the driver. Never reused.
pub type Ticket = u64;

/// What a user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is looked for.
    pub target: Target,
    /// Distinct contents wanted.
    pub limit: u32,
    /// Time for all of it, the wait for a home included.
    pub timeout: Duration,
    /// Ask every home that holds a match.
    pub all: bool,
}

/// A home that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeFacts {
    /// Its key.
    pub peer: PeerId,
    /// Microseconds of its round trip; the nearest home is asked first.
    pub rtt_us: u64,
    /// How often it lets this leaf ask.
    pub allowance: Allowance,
}

/// What must be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Open a stream to a home and send the search on it.
    Ask(Ticket, PeerId, Search),
    /// Ask a home whom it takes for an ultrapeer now; the answer comes with the ticket.
    AskView(Ticket, PeerId),
    /// Drop the stream to a home.
    Drop(Ticket, PeerId),
    /// A home did not accept a search in time, or fell silent in it: it must show that it lives.
    Suspect(PeerId),
    /// Show a hit: a new content, or better knowledge of one that was shown.
    Show(Ticket, Box<Hit>),
    /// The search has ended.
    End(Ticket, End),
}

/// How a search ended, for the user.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// What the coordinator, or this leaf in its place, says.
    pub summary: Summary,
    /// Contents shown.
    pub hits: u32,
    /// From the start to the first hit.
    pub first_hit: Option<Duration>,
    /// From the start to the end.
    pub elapsed: Duration,
    /// True if no home was there in time.
    pub no_ultrapeer: bool,
}

/// The searches under way. See the module text.
#[derive(Debug, Default)]
pub struct Searches {
    active: BTreeMap<Ticket, Active>,
    /// What is left of the homes' allowances.
    credit: BTreeMap<PeerId, (Allowance, TokenBucket)>,
}

/// The part of an allowance that is used: a search that is faster on its way than the one before must not come
/// before its credit does.
const CAUTION: f64 = 0.95;

#[derive(Debug)]
struct Active {
    id: QueryId,
    request: Request,
    began: Time,
    sent: Option<Time>,
    first_hit: Option<Time>,
    shown: BTreeMap<ContentId, u32>,
    asked: BTreeMap<PeerId, Asked>,
    messages: u32,
    /// When there is credit again, if that is what it waits for.
    retry: Option<Time>,
    ultrapeers: u32,
    /// Whom each home takes for an ultrapeer; `None` until it has said so.
    views: BTreeMap<PeerId, Option<Seen>>,
    /// The summary that waits for the views and for a companion, and until when.
    held: Option<(Summary, Time)>,
    /// The home that it is for; `None`: any.
    only: Option<PeerId>,
    /// True while the same is asked of another home, whose hits count here as well.
    accompanied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Until when it must accept.
    Waiting(Time),
    /// Until when it must say something more.
    Accepted(Time),
    /// It did not; its answer still counts.
    Late,
    Failed,
}

impl Searches {
    /// Begins a search.
    pub fn start(
        &mut self,
        now: Time,
        rng: &mut dyn Rng,
        homes: &[HomeFacts],
        ticket: Ticket,
        request: Request,
        out: &mut Outbox<Output>,
    ) {
        self.begin(now, rng, homes, ticket, (request, None), out);
    }

    /// Begins a search that is for one home alone.
    pub fn start_at(
        &mut self,
        now: Time,
        rng: &mut dyn Rng,
        homes: &[HomeFacts],
        ticket: Ticket,
        (request, home): (Request, PeerId),
        out: &mut Outbox<Output>,
    ) {
        self.begin(now, rng, homes, ticket, (request, Some(home)), out);
    }

    /// The same is asked of another home by a search of its own: this one waits a moment for what that finds.
    pub fn accompany(&mut self, ticket: Ticket) {
        if let Some(active) = self.active.get_mut(&ticket) {
            active.accompanied = true;
        }
    }

    /// The companion of a search found something.
    pub fn companion_found(&mut self, now: Time, ticket: Ticket, hit: Hit, out: &mut Outbox<Output>) {
        if let Some(active) = self.active.get_mut(&ticket) {
            active.show(now, ticket, hit, out);
        }
    }

    /// The companion of a search has ended.
    pub fn companion_ended(&mut self, now: Time, ticket: Ticket, out: &mut Outbox<Output>) {
        if let Some(active) = self.active.get_mut(&ticket) {
            active.accompanied = false;
            self.end_held(now, ticket, out);
        }
    }

    /// How a search is named in questions that go along with it: as the search itself is named to homes.
    pub fn token(&self, ticket: Ticket) -> Option<u64> {
        self.active.get(&ticket).map(|active| active.id.0)
    }

    /// The search of that name.
    pub fn ticket(&self, token: u64) -> Option<Ticket> {
        self.active.iter().find(|(_, active)| active.id.0 == token).map(|(ticket, _)| *ticket)
    }

    fn begin(
        &mut self,
        now: Time,
        rng: &mut dyn Rng,
        homes: &[HomeFacts],
        ticket: Ticket,
        (request, only): (Request, Option<PeerId>),
        out: &mut Outbox<Output>,
    ) {
        let active = Active {
            id: QueryId(rng.random()),
            request,
            began: now,
            sent: None,
            first_hit: None,
            shown: BTreeMap::new(),
            asked: BTreeMap::new(),
            messages: 0,
            retry: None,
            ultrapeers: 0,
            views: BTreeMap::new(),
            held: None,
            only,
            accompanied: false,
        };
        self.active.insert(ticket, active);
        self.go_on(now, homes, ticket, out);
    }

    /// The homes changed: searches that wait for one may go on.
    pub fn homes_changed(&mut self, now: Time, homes: &[HomeFacts], out: &mut Outbox<Output>) {
        self.credit.retain(|peer, _| homes.iter().any(|home| home.peer == *peer));
        for ticket in self.active.keys().copied().collect::<Vec<_>>() {
            // A home that failed and is no home any more may come back as a new one.
            if let Some(active) = self.active.get_mut(&ticket) {
                let is_home = |peer| homes.iter().any(|home| home.peer == peer);
                active.asked.retain(|peer, asked| *asked != Asked::Failed || is_home(*peer));
                // What a home said before it was lost counts; if it said nothing, it differs from nobody.
                active.views.retain(|peer, seen| seen.is_some() || is_home(*peer));
            }
            self.end_held(now, ticket, out);
            self.go_on(now, homes, ticket, out);
        }
    }

    /// A home says whom it takes for an ultrapeer.
    pub fn viewed(&mut self, now: Time, ticket: Ticket, from: PeerId, seen: Seen, out: &mut Outbox<Output>) {
        let Some(active) = self.active.get_mut(&ticket) else { return };
        let Some(view) = active.views.get_mut(&from) else { return };
        *view = Some(seen);
        self.end_held(now, ticket, out);
    }

    /// A home answers.
    pub fn message(&mut self, now: Time, ticket: Ticket, from: PeerId, message: LeafMessage, out: &mut Outbox<Output>) {
        let Some(active) = self.active.get_mut(&ticket).filter(|active| active.held.is_none()) else { return };
        let Some(asked) = active.asked.get_mut(&from) else { return };
        *asked = Asked::Accepted(now + limits::ANSWER_PATIENCE);
        match message {
            LeafMessage::Accepted(accepted) => active.ultrapeers = active.ultrapeers.max(accepted.ultrapeers),
            LeafMessage::Hits(hits) => {
                for hit in hits.hits {
                    active.show(now, ticket, hit, out);
                }
            }
            LeafMessage::Summary(summary) if summary.stopped == StopReason::Exhausted => {
                active.held = Some((summary, now + limits::VIEW_PATIENCE));
                self.end_held(now, ticket, out);
            }
            LeafMessage::Summary(summary) => self.end(now, ticket, summary, out),
            _ => {}
        }
    }

    /// The stream to a home ended without a summary.
    pub fn failed(&mut self, now: Time, homes: &[HomeFacts], ticket: Ticket, from: PeerId, out: &mut Outbox<Output>) {
        let Some(active) = self.active.get_mut(&ticket) else { return };
        if let Some(asked) = active.asked.get_mut(&from) {
            *asked = Asked::Failed;
        }
        self.go_on(now, homes, ticket, out);
    }

    /// The user does not want it any more; a summary still comes.
    pub fn cancel(&mut self, now: Time, ticket: Ticket, out: &mut Outbox<Output>) {
        if let Some(active) = self.active.get(&ticket) {
            let summary = active.own_summary(StopReason::Cancelled);
            self.end(now, ticket, summary, out);
        }
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.active.values().map(Active::next_deadline).min()
    }

    /// Asks further homes, waits no longer for credit, or gives up.
    pub fn on_deadline(&mut self, now: Time, homes: &[HomeFacts], out: &mut Outbox<Output>) {
        let due = self.active.iter().filter(|(_, active)| active.next_deadline() <= now);
        for ticket in due.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            let Some(active) = self.active.get_mut(&ticket) else { continue };
            if active.held.is_some() {
                // A home that does not even say this must show that it lives.
                let silent = active.views.iter().filter(|(_, seen)| seen.is_none());
                out.extend(silent.map(|(peer, _)| Output::Suspect(*peer)));
                active.views.retain(|_, seen| seen.is_some());
                active.accompanied = false;
                self.end_held(now, ticket, out);
                continue;
            }
            if active.deadline() <= now {
                let summary = active.own_summary(StopReason::Timeout);
                self.end(now, ticket, summary, out);
                continue;
            }
            for (peer, asked) in &mut active.asked {
                if asked.until().is_some_and(|until| until <= now) {
                    *asked = Asked::Late;
                    out.push(Output::Suspect(*peer));
                }
            }
            self.go_on(now, homes, ticket, out);
        }
    }

    /// Ends a search whose summary came, once all homes have said whom they take for an ultrapeer.
    fn end_held(&mut self, now: Time, ticket: Ticket, out: &mut Outbox<Output>) {
        let Some(active) = self.active.get_mut(&ticket) else { return };
        if active.views.values().any(Option::is_none) || active.accompanied {
            return;
        }
        let Some((mut summary, _)) = active.held.take() else { return };
        if views::differ(active.views.values().flatten()) {
            summary.incomplete.insert(Incomplete::ViewsDiffer);
        }
        self.end(now, ticket, summary, out);
    }

    /// Asks the nearest home that was not asked yet, unless one is at work.
    fn go_on(&mut self, now: Time, homes: &[HomeFacts], ticket: Ticket, out: &mut Outbox<Output>) {
        let Some(active) = self.active.get_mut(&ticket) else { return };
        let at_work = active.asked.values().any(|asked| asked.until().is_some());
        if at_work || active.held.is_some() {
            return;
        }
        let only = active.only;
        let may_ask = |home: &&HomeFacts| only.is_none_or(|only| only == home.peer);
        let fresh = homes.iter().filter(may_ask).filter(|home| !active.asked.contains_key(&home.peer));
        let Some(home) = fresh.min_by_key(|home| (home.rtt_us, home.peer)) else {
            // It waits for a home now, not for credit at one that is gone.
            active.retry = None;
            return;
        };
        // Each home counts for itself what it is asked.
        let wait = spend(&mut self.credit, now, home);
        if wait != Some(Duration::ZERO) {
            active.retry = wait.map(|wait| now + wait);
            return;
        }
        active.retry = None;
        if active.sent.is_none() {
            active.sent = Some(now);
            // One home alone differs from nobody.
            for home in homes.iter().filter(may_ask).filter(|_| homes.len() > 1) {
                active.views.insert(home.peer, None);
                out.push(Output::AskView(ticket, home.peer));
            }
        }
        active.messages += 1;
        active.asked.insert(home.peer, Asked::Waiting(now + limits::ACCEPT_PATIENCE));
        let left = active.deadline().since(now);
        let search = Search {
            id: active.id,
            target: active.request.target.clone(),
            limit: active.request.limit,
            timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            all: active.request.all,
        };
        out.push(Output::Ask(ticket, home.peer, search));
    }

    fn end(&mut self, now: Time, ticket: Ticket, mut summary: Summary, out: &mut Outbox<Output>) {
        let Some(active) = self.active.remove(&ticket) else { return };
        for (peer, asked) in &active.asked {
            if *asked != Asked::Failed {
                out.push(Output::Drop(ticket, *peer));
            }
        }
        summary.messages = summary.messages.saturating_add(active.messages);
        let sent = active.sent.unwrap_or(active.began);
        let end = End {
            summary,
            hits: active.shown.len() as u32,
            first_hit: active.first_hit.map(|at| at.since(sent)),
            elapsed: now.since(sent),
            no_ultrapeer: active.messages == 0 && active.retry.is_none(),
        };
        out.push(Output::End(ticket, end));
    }
}

impl Asked {
    /// When a home that is at work counts as silent.
    fn until(&self) -> Option<Time> {
        match self {
            Self::Waiting(until) | Self::Accepted(until) => Some(*until),
            Self::Late | Self::Failed => None,
        }
    }
}

/// Spends one search of what a home allows: zero if there was one, else the time until there is.
fn spend(credit: &mut BTreeMap<PeerId, (Allowance, TokenBucket)>, now: Time, home: &HomeFacts) -> Option<Duration> {
    let allowance = home.allowance;
    if allowance.interval_us == 0 {
        return Some(Duration::ZERO);
    }
    let full = || {
        let per_second = 1e6 / allowance.interval_us as f64 * CAUTION;
        (allowance, TokenBucket::new(now, per_second, f64::from(allowance.burst)))
    };
    let (known, bucket) = credit.entry(home.peer).or_insert_with(full);
    if *known != allowance {
        (*known, *bucket) = full();
    }
    if bucket.take(now) { Some(Duration::ZERO) } else { bucket.wait(now) }
}

impl Active {
    fn deadline(&self) -> Time {
        self.began + self.request.timeout
    }

    fn next_deadline(&self) -> Time {
        if let Some((_, until)) = self.held {
            return until;
        }
        let patience = self.asked.values().filter_map(Asked::until);
        patience.chain(self.retry).fold(self.deadline(), Time::min)
    }

    fn show(&mut self, now: Time, ticket: Ticket, hit: Hit, out: &mut Outbox<Output>) {
        let room = self.shown.len() < self.request.limit as usize;
        let sources = hit.sources;
        match self.shown.get_mut(&hit.content) {
            // Two coordinators may tell of one content: what names more sources is the better knowledge.
            Some(known) if *known > sources => return,
            Some(known) => *known = sources,
            None if room => {
                self.shown.insert(hit.content, sources);
            }
            None => return,
        }
        self.first_hit.get_or_insert(now);
        out.push(Output::Show(ticket, Box::new(hit)));
    }

    /// The summary of a search that no coordinator ended.
    fn own_summary(&self, stopped: StopReason) -> Summary {
        let asked = self.messages;
        let mut incomplete = IncompleteSet::default();
        if asked > 0 && stopped == StopReason::Timeout {
            // Coordinators end in time: those that were asked are dead, or out of reach.
            incomplete.insert(Incomplete::HomeSilent);
        }
        Summary {
            stopped,
            incomplete,
            ultrapeers_asked: asked,
            ultrapeers_total: self.ultrapeers.max(asked),
            shards_total: 1,
            shards_asked: asked.min(1),
            ..Summary::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay::wire::{
        bounded::{List, Text},
        leaf::{Accepted, View},
        search::Hits,
    };
    use rand_pcg::Pcg32;

    use super::*;
    use crate::views::Views;

    fn peer(byte: u8) -> PeerId {
        PeerId([byte; 32])
    }

    fn home(byte: u8) -> HomeFacts {
        let allowance = Allowance { interval_us: 2_000_000, burst: 10 };
        HomeFacts { peer: peer(byte), rtt_us: u64::from(byte), allowance }
    }

    fn request() -> Request {
        let target = Target::Query(Text::new("x"));
        Request { target, limit: 2, timeout: Duration::from_secs(10), all: false }
    }

    fn hit(content: u8, sources: u32) -> Hit {
        Hit {
            content: ContentId([content; 32]),
            size: 1,
            score: 1,
            names: List::default(),
            path: Text::default(),
            modified_s: 0,
            tags: overlay::file::Tags::default(),
            sources,
            networks: 1,
            peers: List::default(),
            holders: List::default(),
        }
    }

    struct Bed {
        core: Searches,
        homes: Vec<HomeFacts>,
        now: Time,
        next: Ticket,
        /// Homes that do not say whom they take for an ultrapeer until the test does.
        silent: Vec<PeerId>,
    }

    impl Bed {
        fn new(homes: &[u8]) -> Self {
            let homes = homes.iter().map(|byte| home(*byte)).collect();
            Self { core: Searches::default(), homes, now: Time(1), next: 0, silent: Vec::new() }
        }

        fn start(&mut self) -> Vec<Output> {
            let (mut rng, mut out) = (Pcg32::new(1, 1), Outbox::new());
            self.next += 1;
            self.core.start(self.now, &mut rng, &self.homes, self.next, request(), &mut out);
            self.answered(out)
        }

        /// Homes say whom they take for an ultrapeer, all the same.
        fn answered(&mut self, mut out: Outbox<Output>) -> Vec<Output> {
            let mut rest = Vec::new();
            for output in out.drain() {
                match output {
                    Output::AskView(ticket, peer) if self.silent.contains(&peer) => {
                        assert_eq!(ticket, self.next);
                    }
                    Output::AskView(_, peer) => assert!(self.viewed(peer, 5, 7).is_empty()),
                    output => rest.push(output),
                }
            }
            rest
        }

        fn viewed(&mut self, from: PeerId, total: u32, number: u64) -> Vec<Output> {
            let view = View { token: self.next, total, view: number, sketch: None };
            let mut out = Outbox::new();
            self.core.viewed(self.now, self.next, from, Views::default().take(&view), &mut out);
            out.drain().collect()
        }

        fn message(&mut self, from: u8, message: impl Into<LeafMessage>) -> Vec<Output> {
            let mut out = Outbox::new();
            self.core.message(self.now, self.next, peer(from), message.into(), &mut out);
            out.drain().collect()
        }

        fn failed(&mut self, from: u8) -> Vec<Output> {
            let mut out = Outbox::new();
            self.core.failed(self.now, &self.homes, self.next, peer(from), &mut out);
            out.drain().collect()
        }

        fn deadline(&mut self) -> Vec<Output> {
            let due = self.core.next_deadline().expect("something is due");
            assert!(due > self.now, "busy loop");
            self.now = due;
            let mut out = Outbox::new();
            self.core.on_deadline(self.now, &self.homes, &mut out);
            self.answered(out)
        }
    }

    fn asks(outputs: &[Output]) -> Vec<PeerId> {
        let asked = outputs.iter().filter_map(|output| match output {
            Output::Ask(_, peer, _) => Some(*peer),
            _ => None,
        });
        asked.collect()
    }

    fn end(outputs: Vec<Output>) -> End {
        match outputs.into_iter().last() {
            Some(Output::End(_, end)) => end,
            other => panic!("not ended: {other:?}"),
        }
    }

    #[test]
    fn the_nearest_home_is_asked_and_its_summary_ends_the_search() {
        let mut bed = Bed::new(&[2, 1]);
        assert_eq!(asks(&bed.start()), [peer(1)]);
        bed.message(1, Accepted { ultrapeers: 2 });
        assert_eq!(bed.message(1, Hits { hits: List::new([hit(1, 1)]) }).len(), 1);
        let end = end(bed.message(1, Summary { messages: 1, ..Summary::default() }));
        assert_eq!((end.hits, end.summary.messages, end.no_ultrapeer), (1, 2, false));
    }

    #[test]
    fn a_home_that_does_not_accept_is_joined_by_the_next_and_may_still_answer() {
        let mut bed = Bed::new(&[1, 2]);
        bed.start();
        assert_eq!(asks(&bed.deadline()), [peer(2)]);
        assert_eq!(bed.message(1, Hits { hits: List::new([hit(1, 1)]) }).len(), 1);
        assert!(!end(bed.message(1, Summary::default())).no_ultrapeer);
    }

    #[test]
    fn a_home_that_accepts_and_falls_silent_is_suspected_and_joined_by_the_next() {
        let mut bed = Bed::new(&[1, 2]);
        bed.start();
        bed.message(1, Accepted { ultrapeers: 2 });
        let outputs = bed.deadline();
        assert_eq!(bed.now, Time(1) + limits::ANSWER_PATIENCE);
        assert_eq!(outputs[0], Output::Suspect(peer(1)));
        assert_eq!(asks(&outputs), [peer(2)]);
        assert!(!end(bed.message(2, Summary::default())).no_ultrapeer);
    }

    #[test]
    fn a_search_that_no_home_answers_says_that_they_were_silent() {
        let mut bed = Bed::new(&[1, 2]);
        bed.start();
        assert_eq!(asks(&bed.deadline()), [peer(2)]);
        assert_eq!(bed.now, Time(1) + limits::ACCEPT_PATIENCE, "the second is asked within 300 ms");
        assert_eq!(bed.deadline(), [Output::Suspect(peer(2))]);
        assert_eq!(bed.failed(1), []);
        let end = end(bed.deadline());
        assert_eq!(end.elapsed, request().timeout);
        assert_eq!(end.summary.stopped, StopReason::Timeout);
        assert_eq!(end.summary.incomplete.iter().collect::<Vec<_>>(), [Incomplete::HomeSilent]);
        assert!(!end.no_ultrapeer);
    }

    #[test]
    fn a_home_that_dies_is_replaced_and_its_hits_are_not_shown_twice() {
        let mut bed = Bed::new(&[1, 2]);
        bed.start();
        bed.message(1, Hits { hits: List::new([hit(1, 2)]) });
        assert_eq!(asks(&bed.failed(1)), [peer(2)]);
        assert!(bed.message(2, Hits { hits: List::new([hit(1, 1)]) }).is_empty(), "it knows less");
        assert_eq!(bed.message(2, Hits { hits: List::new([hit(2, 1), hit(3, 1)]) }).len(), 1, "the limit holds");
    }

    fn reasons(outputs: Vec<Output>) -> Vec<Incomplete> {
        end(outputs).summary.incomplete.iter().collect()
    }

    #[test]
    fn homes_that_know_others_than_each_other_make_a_search_incomplete() {
        let mut bed = Bed::new(&[1, 2, 3]);
        bed.silent = vec![peer(3)];
        bed.start();
        assert_eq!(bed.viewed(peer(3), 9, 8), []);
        assert_eq!(reasons(bed.message(1, Summary::default())), [Incomplete::ViewsDiffer]);
        // One that stopped for another reason is not complete anyway.
        bed.start();
        let stopped = Summary { stopped: StopReason::Limit, ..Summary::default() };
        assert_eq!(reasons(bed.message(1, stopped)), []);
    }

    #[test]
    fn a_summary_waits_for_what_homes_know_but_not_long_and_who_is_silent_is_suspected() {
        let mut bed = Bed::new(&[1, 2, 3]);
        bed.silent = vec![peer(2), peer(3)];
        bed.start();
        assert_eq!(bed.message(1, Summary { messages: 4, ..Summary::default() }), []);
        assert_eq!(bed.message(1, Summary::default()), [], "there is one summary");
        assert_eq!(bed.viewed(peer(2), 5, 7), []);
        let before = bed.now;
        let outputs = bed.deadline();
        assert_eq!((&outputs[0], bed.now), (&Output::Suspect(peer(3)), before + limits::VIEW_PATIENCE));
        let end = end(outputs);
        assert_eq!((end.summary.messages, end.summary.incomplete.is_empty()), (5, true), "views are no messages");

        bed.start();
        assert_eq!(bed.message(1, Summary::default()), []);
        assert_eq!(bed.viewed(peer(3), 5, 7), []);
        assert_eq!(reasons(bed.viewed(peer(2), 9, 8)), [Incomplete::ViewsDiffer], "the last to say it ends it");
    }

    #[test]
    fn a_home_that_is_lost_is_not_waited_for() {
        let mut bed = Bed::new(&[1, 2]);
        bed.silent = vec![peer(2)];
        bed.start();
        assert_eq!(bed.message(1, Summary::default()), []);
        bed.homes.pop();
        let mut out = Outbox::new();
        bed.core.homes_changed(bed.now, &bed.homes, &mut out);
        assert!(reasons(out.drain().collect()).is_empty());
    }

    #[test]
    fn a_search_for_one_home_asks_no_other_and_its_views_are_that_one() {
        let mut bed = Bed::new(&[1, 2, 3]);
        let mut out = Outbox::new();
        let (mut rng, to) = (Pcg32::new(1, 1), peer(2));
        bed.next = 7;
        bed.core.start_at(bed.now, &mut rng, &bed.homes, 7, (request(), to), &mut out);
        let token = bed.core.token(7).expect("it is under way");
        assert_eq!((bed.core.ticket(token), bed.core.ticket(token ^ 1)), (Some(7), None));
        let outputs: Vec<_> = out.drain().collect();
        assert_eq!(outputs[0], Output::AskView(7, to), "as a search of a user");
        assert_eq!(asks(&outputs), [to]);
        assert_eq!(asks(&bed.failed(2)), [], "it is for that one alone");
        assert_eq!(end(bed.deadline()).summary.stopped, StopReason::Timeout);
    }

    #[test]
    fn an_accompanied_search_waits_for_its_companion_but_not_long_and_shows_what_it_finds() {
        let mut bed = Bed::new(&[1, 2]);
        for ends in [true, false] {
            bed.start();
            bed.core.accompany(bed.next);
            bed.message(1, Hits { hits: List::new([hit(1, 1)]) });
            assert_eq!(bed.message(1, Summary::default()), []);
            let (mut out, before) = (Outbox::new(), bed.now);
            bed.core.companion_found(bed.now, bed.next, hit(1, 1), &mut out);
            bed.core.companion_found(bed.now, bed.next, hit(2, 1), &mut out);
            bed.core.companion_found(bed.now, bed.next, hit(3, 1), &mut out);
            let shown: Vec<_> = out.drain().collect();
            assert_eq!(shown.len(), 2, "{shown:?}: what is better known, what is new, and no more than were asked for");
            let outputs = if ends {
                bed.core.companion_ended(bed.now, bed.next, &mut out);
                out.drain().collect()
            } else {
                let outputs = bed.deadline();
                assert_eq!(bed.now, before + limits::VIEW_PATIENCE);
                outputs
            };
            assert_eq!(end(outputs).hits, 2);
        }
    }

    #[test]
    fn without_a_home_it_waits_and_then_says_so() {
        let mut bed = Bed::new(&[]);
        assert_eq!(bed.start(), []);
        let end = end(bed.deadline());
        assert!(end.no_ultrapeer);
        assert_eq!(end.summary.stopped, StopReason::Timeout);
    }

    #[test]
    fn a_home_that_comes_in_time_is_used() {
        let mut bed = Bed::new(&[]);
        bed.start();
        bed.homes.push(home(1));
        let mut out = Outbox::new();
        bed.core.homes_changed(bed.now, &bed.homes, &mut out);
        assert_eq!(asks(&out.drain().collect::<Vec<_>>()), [peer(1)]);
    }

    #[test]
    fn more_searches_than_the_credit_are_held_back_not_refused() {
        let mut bed = Bed::new(&[1]);
        for _ in 0..10 {
            assert_eq!(asks(&bed.start()).len(), 1);
            bed.message(1, Summary::default());
        }
        assert_eq!(bed.start(), []);
        assert_eq!(asks(&bed.deadline()), [peer(1)]);
    }

    #[test]
    fn a_search_that_gets_no_credit_in_time_does_not_say_that_nobody_was_there() {
        let mut bed = Bed::new(&[1]);
        for _ in 0..10 {
            bed.start();
            bed.message(1, Summary::default());
        }
        let mut out = Outbox::new();
        let request = Request { timeout: Duration::from_millis(1), ..request() };
        bed.core.start(bed.now, &mut Pcg32::new(1, 1), &bed.homes, 99, request, &mut out);
        let end = end(bed.deadline());
        assert_eq!((end.summary.stopped, end.no_ultrapeer), (StopReason::Timeout, false));
    }

    #[test]
    fn what_a_home_allows_is_never_exceeded_there_however_searches_are_delayed() {
        let mut bed = Bed::new(&[1]);
        // The home counts when a search arrives: up to 50 ms later.
        let mut theirs = TokenBucket::new(bed.now, 0.5, 10.0);
        let mut delays = [50_u64, 0, 7, 31].into_iter().cycle();
        let mut asked = 0;
        let mut outputs = Vec::new();
        for _ in 0..100 {
            outputs.extend(bed.start());
            while asks(&outputs).is_empty() {
                outputs = bed.deadline();
            }
            outputs.clear();
            asked += 1;
            assert!(theirs.take(bed.now + Duration::from_millis(delays.next().unwrap())), "search {asked}");
            bed.message(1, Summary::default());
        }
        let spent_s = bed.now.as_micros() as f64 / 1e6;
        assert!((180.0..200.0).contains(&spent_s), "90 searches at one in 2 s took {spent_s} s");
    }

    #[test]
    fn another_allowance_counts_at_once_and_none_is_no_limit() {
        let mut bed = Bed::new(&[1]);
        bed.homes[0].allowance = Allowance { interval_us: 60_000_000, burst: 1 };
        assert_eq!(asks(&bed.start()), [peer(1)]);
        bed.message(1, Summary::default());
        assert_eq!(bed.start(), []);
        assert_eq!(end(bed.deadline()).summary.stopped, StopReason::Timeout, "no credit within its time");
        bed.homes[0].allowance = Allowance { interval_us: 0, burst: 0 };
        for _ in 0..50 {
            assert_eq!(asks(&bed.start()), [peer(1)]);
            bed.message(1, Summary::default());
        }
    }

    #[test]
    fn a_cancelled_search_still_has_its_summary() {
        let mut bed = Bed::new(&[1]);
        bed.start();
        let mut out = Outbox::new();
        bed.core.cancel(bed.now, 1, &mut out);
        assert_eq!(end(out.drain().collect()).summary.stopped, StopReason::Cancelled);
    }
}
