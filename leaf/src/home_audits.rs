//! Core: whether the homes of this leaf answer searches truly, and as fast as others.
//!
//! What it decides: when a home is asked for a file of this leaf's own, which searches of the user are asked of a second
//! home as well, what differences mean, and which home is to be left.
//!
//! ```text
//!   canary       a home has the list ─> now and then: a search for a random file of it ─> not found, and the list is still
//!                the same a while later ─> points
//!   comparison   some searches of the user ─> a second home ─> both complete, and they differ ─> a while later: both, and
//!                a third, once more ─> who is alone with a content, or lacks what the others have, both times ─> points
//!   points       enough of them ─> the home is left
//! ```
//!
//! Invariants:
//! - for a home these are searches like any other of a user;
//! - **an honest home gets no points for changes**: an own file counts only if the home says before and after that it has
//!   the very list, and a difference only if it is there twice, with [`limits::COMPARED_AGAIN`] between;
//! - at most [`limits::COMPARED_SHARE`] more searches are made for comparisons, and a few an hour for own files;
//! - this very node, if it is a home, is not audited.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use overlay::{
    file::{file_name, is_unlisted},
    id::{ContentId, PeerId},
    limits,
    machine::{Context, Outbox},
    query::Query,
    text::Tokenizer,
    time::Time,
    wire::{
        bounded::Text,
        leaf::LeafMessage,
        search::{Incomplete, StopReason, Summary, Target},
    },
};
use rand::RngExt;

use crate::search::{Request, Ticket};

/// Tickets of its own searches begin here.
const FIRST_TICKET: Ticket = 1 << 63;
/// Words of a name that a canary is made of, the longest. Chosen: enough to match little else.
const CANARY_WORDS: usize = 4;
/// Letters of such a word, at least.
const CANARY_LETTERS: usize = 3;
/// One canary in so many is a look-up by content.
const BY_CONTENT: u32 = 4;
/// Contents that are remembered of a difference.
const DIFFERENCES: usize = 16;

/// What must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Choose a file of the list by that random number; answer with [`HomeAudits::picked`].
    Pick(PeerId, u64),
    /// Search at one home.
    Ask(Ticket, PeerId, Request),
    /// The companion of a search of the user has ended.
    CompanionEnded(Ticket),
    /// A home lies, or is far slower than others: it must be left.
    Distrust(PeerId),
    /// Something to be counted.
    Count(Count),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// An own file was found.
    CanaryFound,
    /// An own file was not found, although the home has it.
    CanaryMissed,
    /// A search for an own file says nothing.
    CanaryFailed,
    /// Two homes found the same.
    Same,
    /// They did not.
    Differ,
    /// A home was in the minority twice.
    Minority,
    /// A home is distrusted from now on.
    Distrusted,
}

/// A file of this leaf's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Its content.
    pub content: ContentId,
    /// Its path.
    pub path: String,
    /// The sequence of the list that it is in.
    pub sequence: u64,
}

/// The audits. See the module text.
#[derive(Debug)]
pub struct HomeAudits {
    me: PeerId,
    homes: BTreeMap<PeerId, Home>,
    /// Points of homes, also of former ones: when, and how many.
    points: BTreeMap<PeerId, Vec<(Time, u8)>>,
    canaries: BTreeMap<Ticket, Canary>,
    /// Own files that were not found: when that counts.
    missed: BTreeSet<(Time, PeerId, u64)>,
    comparisons: BTreeMap<u64, Comparison>,
    /// Which comparison a search belongs to.
    compared: BTreeMap<Ticket, u64>,
    credit: f64,
    numbers: u64,
}

/// A home.
#[derive(Debug)]
struct Home {
    /// The list that it has, whole.
    listed: Option<u64>,
    /// When it is next asked for an own file; `None` while it is, and before it has the list.
    next: Option<Time>,
    follow_ups: u8,
    /// Searches of the user that are compared with it in any case.
    to_compare: u8,
    /// Of the last eight comparisons one bit each: whether it was far slower; and how many there were.
    slow: (u8, u32),
}

#[derive(Debug)]
struct Canary {
    home: PeerId,
    content: ContentId,
    sequence: u64,
    found: bool,
    contents: u32,
    limit: u32,
    summary: Option<Summary>,
}

/// The same search at several homes.
#[derive(Debug)]
struct Comparison {
    request: Request,
    /// The search of the user, until it has ended.
    user: Option<Ticket>,
    answers: BTreeMap<PeerId, Answer>,
    /// Searches of its own that have not ended.
    open: BTreeSet<Ticket>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Two are asked.
    First,
    /// They differed in these contents; all are asked again at that time.
    Waiting(Time, BTreeSet<ContentId>),
    /// They are being asked.
    Again(BTreeSet<ContentId>),
}

/// What a home says.
#[derive(Debug, Default)]
struct Answer {
    asked: Option<Time>,
    contents: BTreeSet<ContentId>,
    ended: Option<(Time, Summary)>,
}

impl Answer {
    fn take(&mut self, now: Time, message: &LeafMessage) {
        match message {
            LeafMessage::Hits(hits) => self.contents.extend(hits.hits.iter().map(|hit| hit.content)),
            LeafMessage::Summary(summary) => self.ended = Some((now, summary.clone())),
            _ => {}
        }
    }

    /// True if it says that it has told all that there is, and was allowed to.
    fn is_whole(&self) -> bool {
        self.ended.as_ref().is_some_and(|(_, summary)| {
            summary.stopped == StopReason::Exhausted && summary.incomplete.is_empty() && summary.withheld == 0
        })
    }
}

/// True if a search is one of these.
pub fn is_own(ticket: Ticket) -> bool {
    ticket >= FIRST_TICKET
}

impl HomeAudits {
    /// No home yet.
    pub fn new(me: PeerId) -> Self {
        Self {
            me,
            homes: BTreeMap::new(),
            points: BTreeMap::new(),
            canaries: BTreeMap::new(),
            missed: BTreeSet::new(),
            comparisons: BTreeMap::new(),
            compared: BTreeMap::new(),
            credit: limits::COMPARED_BURST,
            numbers: 0,
        }
    }

    /// A connection to a home is new.
    pub fn attached(&mut self, home: PeerId) {
        if home != self.me {
            let to_compare = limits::COMPARED_AT_FIRST;
            let home_state = Home { listed: None, next: None, follow_ups: 0, to_compare, slow: (0, 0) };
            self.homes.insert(home, home_state);
        }
    }

    /// A home is gone.
    pub fn lost(&mut self, home: &PeerId) {
        self.homes.remove(home);
        self.missed.retain(|(_, at, _)| at != home);
    }

    /// A home has the list with that sequence; `whole` says whether it took all of it.
    pub fn listed(&mut self, cx: &mut Context<'_>, home: PeerId, sequence: u64, whole: bool) {
        let Some(state) = self.homes.get_mut(&home) else { return };
        let is_first = state.listed.is_none();
        state.listed = whole.then_some(sequence);
        if is_first && whole && state.next.is_none() {
            state.next = Some(cx.now + cx.rng.random_range(limits::CANARY_FIRST..limits::CANARY_FIRST_MAX));
        }
    }

    /// The file that was to be chosen; `None` if there is none.
    pub fn picked(&mut self, cx: &mut Context<'_>, home: PeerId, picked: Option<Picked>, out: &mut Outbox<Output>) {
        let Some(state) = self.homes.get(&home) else { return };
        let Some(Picked { content, path, sequence }) = picked.filter(|picked| state.listed == Some(picked.sequence))
        else {
            // Its list is on its way there, or empty.
            return self.next(cx, home, limits::CANARY_FOLLOW_UP);
        };
        let by_content = is_unlisted(&path) || cx.rng.random_range(0..BY_CONTENT) == 0;
        let words = if by_content { None } else { words_of(&path) };
        let target = words.map_or(Target::Content(content), |words| Target::Query(Text::new(&words)));
        // As users and downloads ask.
        let request = match target {
            Target::Query(_) => {
                Request { target, limit: limits::SEARCH_LIMIT, timeout: limits::SEARCH_TIMEOUT, all: false }
            }
            Target::Content(_) => Request { target, limit: 1, timeout: limits::LOOKUP_TIMEOUT, all: true },
        };
        let limit = request.limit;
        let ticket = self.ticket();
        let canary = Canary { home, content, sequence, found: false, contents: 0, limit, summary: None };
        self.canaries.insert(ticket, canary);
        out.push(Output::Ask(ticket, home, request));
    }

    /// The user searches, and `first` is the home that is asked. Now and then another is asked as well: true if so.
    pub fn user_searches(
        &mut self,
        cx: &mut Context<'_>,
        ticket: Ticket,
        request: &Request,
        first: Option<PeerId>,
        out: &mut Outbox<Output>,
    ) -> bool {
        self.credit = (self.credit + limits::COMPARED_SHARE).min(limits::COMPARED_BURST);
        // Who has a content is only known as well as may be, and to each home otherwise.
        let is_comparable = matches!(request.target, Target::Query(_));
        let first = first.filter(|first| is_comparable && self.homes.contains_key(first));
        let Some(first) = first else { return false };
        let others: Vec<PeerId> = self.homes.keys().copied().filter(|home| *home != first).collect();
        if others.is_empty() || self.comparisons.len() >= limits::COMPARISONS || self.credit < 1.0 {
            return false;
        }
        // Who is new is compared first.
        let is_new = |home: &&PeerId| self.homes[*home].to_compare > 0;
        let new: Vec<PeerId> = others.iter().filter(is_new).copied().collect();
        let drawn = cx.rng.random_range(0..limits::COMPARED_ONE_IN) == 0;
        let pool = if new.is_empty() { &others } else { &new };
        if new.is_empty() && !is_new(&&first) && !drawn {
            return false;
        }
        let second = pool[cx.rng.random_range(0..pool.len())];
        for home in [first, second] {
            if let Some(state) = self.homes.get_mut(&home) {
                state.to_compare = state.to_compare.saturating_sub(1);
            }
        }
        self.numbers += 1;
        let number = self.numbers;
        let comparison = Comparison {
            request: request.clone(),
            user: Some(ticket),
            answers: BTreeMap::new(),
            open: BTreeSet::new(),
            stage: Stage::First,
        };
        self.comparisons.insert(number, comparison);
        self.compared.insert(ticket, number);
        self.ask(number, second, out);
        true
    }

    /// The search of the user whose companion that is.
    pub fn user_of(&self, ticket: Ticket) -> Option<Ticket> {
        self.comparisons.get(self.compared.get(&ticket)?)?.user
    }

    /// A search was sent to a home.
    pub fn asked(&mut self, now: Time, ticket: Ticket, home: PeerId) {
        let comparison = self.compared.get(&ticket).and_then(|number| self.comparisons.get_mut(number));
        if let Some(comparison) = comparison {
            comparison.answers.entry(home).or_default().asked.get_or_insert(now);
        }
    }

    /// A home answers a search, of the user or of its own.
    pub fn heard(&mut self, now: Time, ticket: Ticket, from: PeerId, message: &LeafMessage) {
        if let Some(canary) = self.canaries.get_mut(&ticket) {
            match message {
                LeafMessage::Hits(hits) => {
                    canary.contents += hits.hits.len() as u32;
                    canary.found |= hits.hits.iter().any(|hit| hit.content == canary.content);
                }
                LeafMessage::Summary(summary) => canary.summary = Some(summary.clone()),
                _ => {}
            }
        }
        let comparison = self.compared.get(&ticket).and_then(|number| self.comparisons.get_mut(number));
        if let Some(comparison) = comparison {
            comparison.answers.entry(from).or_default().take(now, message);
        }
    }

    /// A search has ended, of the user or of its own; `complete` if all homes agree on who the ultrapeers are, and nothing
    /// is missing.
    pub fn ended(&mut self, cx: &mut Context<'_>, ticket: Ticket, complete: bool, out: &mut Outbox<Output>) {
        if let Some(canary) = self.canaries.remove(&ticket) {
            return self.canary_ended(cx, &canary, out);
        }
        let Some(number) = self.compared.remove(&ticket) else { return };
        let Some(comparison) = self.comparisons.get_mut(&number) else { return };
        if comparison.user == Some(ticket) {
            comparison.user = None;
            if !complete {
                comparison.answers.clear();
            }
        } else {
            comparison.open.remove(&ticket);
            out.extend(comparison.user.map(Output::CompanionEnded));
        }
        if comparison.user.is_none() && comparison.open.is_empty() {
            self.judge(cx, number, out);
        }
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let canaries = self.homes.values().filter_map(|home| home.next);
        let missed = self.missed.first().map(|(at, ..)| *at);
        let again = self.comparisons.values().filter_map(|comparison| match comparison.stage {
            Stage::Waiting(at, _) => Some(at),
            Stage::First | Stage::Again(_) => None,
        });
        canaries.chain(missed).chain(again).min()
    }

    /// Asks for own files, counts what was not found, and asks again what homes differed in.
    pub fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        for (home, state) in &mut self.homes {
            if state.next.is_some_and(|at| at <= now) {
                // It is planned anew when a file was chosen, or the search has ended.
                state.next = None;
                out.push(Output::Pick(*home, cx.rng.random()));
            }
        }
        while let Some(&(at, home, sequence)) = self.missed.first()
            && at <= now
        {
            self.missed.pop_first();
            if self.homes.get(&home).is_some_and(|state| state.listed == Some(sequence)) {
                out.push(Output::Count(Count::CanaryMissed));
                self.blame(now, home, limits::POINTS_MISSED, out);
            } else {
                out.push(Output::Count(Count::CanaryFailed));
            }
        }
        let is_due = |comparison: &Comparison| matches!(comparison.stage, Stage::Waiting(at, _) if at <= now);
        let due: Vec<u64> =
            self.comparisons.iter().filter(|(_, comparison)| is_due(comparison)).map(|(number, _)| *number).collect();
        for number in due {
            self.ask_again(number, out);
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.numbers += 1;
        FIRST_TICKET | self.numbers
    }

    /// Plans the next canary at a home.
    fn next(&mut self, cx: &mut Context<'_>, home: PeerId, pause: Duration) {
        if let Some(state) = self.homes.get_mut(&home) {
            state.next = Some(cx.now + pause.mul_f64(cx.rng.random_range(0.5..1.5)));
        }
    }

    fn canary_ended(&mut self, cx: &mut Context<'_>, canary: &Canary, out: &mut Outbox<Output>) {
        let Canary { home, sequence, .. } = *canary;
        let Some(state) = self.homes.get_mut(&home) else { return };
        let says_all = canary.summary.as_ref().is_some_and(|summary| match summary.stopped {
            // Of what is in its own index it need not ask anybody.
            StopReason::Exhausted => summary.withheld == 0 && !summary.incomplete.contains(Incomplete::WorkCap),
            StopReason::Limit => canary.contents < canary.limit,
            StopReason::Timeout | StopReason::Cancelled => false,
        });
        if canary.found {
            out.push(Output::Count(Count::CanaryFound));
            state.follow_ups = state.follow_ups.saturating_sub(1);
        } else if says_all && state.listed == Some(sequence) {
            self.missed.insert((cx.now + limits::CANARY_SETTLE, home, sequence));
            state.follow_ups = limits::CANARY_FOLLOW_UPS;
        } else {
            out.push(Output::Count(Count::CanaryFailed));
        }
        let pause = if state.follow_ups > 0 { limits::CANARY_FOLLOW_UP } else { limits::CANARY_EACH };
        self.next(cx, home, pause);
    }

    /// Asks one home for a comparison.
    fn ask(&mut self, number: u64, home: PeerId, out: &mut Outbox<Output>) {
        let ticket = self.ticket();
        let Some(comparison) = self.comparisons.get_mut(&number) else { return };
        self.credit -= 1.0;
        comparison.open.insert(ticket);
        self.compared.insert(ticket, number);
        out.push(Output::Ask(ticket, home, comparison.request.clone()));
    }

    fn forget(&mut self, number: u64) {
        self.comparisons.remove(&number);
        self.compared.retain(|_, of| *of != number);
    }

    /// All who were asked have answered, or will not.
    fn judge(&mut self, cx: &mut Context<'_>, number: u64, out: &mut Outbox<Output>) {
        let Some(comparison) = self.comparisons.get_mut(&number) else { return };
        let whole: BTreeMap<PeerId, &Answer> = comparison
            .answers
            .iter()
            .filter(|(home, answer)| answer.is_whole() && self.homes.contains_key(*home))
            .map(|(home, answer)| (*home, answer))
            .collect();
        match &comparison.stage {
            Stage::First => {
                let [(one, a), (other, b)] = whole.iter().collect::<Vec<_>>()[..] else { return self.forget(number) };
                let span = |answer: &Answer| Some(answer.ended.as_ref()?.0.since(answer.asked?));
                let spans = [(*one, span(a)), (*other, span(b))];
                let differ: BTreeSet<_> =
                    a.contents.symmetric_difference(&b.contents).copied().take(DIFFERENCES).collect();
                let is_same = differ.is_empty();
                out.push(Output::Count(if is_same { Count::Same } else { Count::Differ }));
                // Without a third nobody can tell who is right.
                if is_same || self.homes.len() < 3 || self.credit < 3.0 {
                    self.forget(number);
                } else {
                    let pause = cx.rng.random_range(limits::COMPARED_AGAIN..limits::COMPARED_AGAIN_MAX);
                    comparison.stage = Stage::Waiting(cx.now + pause, differ);
                }
                if let [(one, Some(a)), (other, Some(b))] = spans {
                    self.compare_spans([(one, a), (other, b)], out);
                }
            }
            Stage::Again(differ) => {
                let mut alone = BTreeSet::new();
                if whole.len() >= 3 {
                    for content in differ {
                        let (has, lacks): (Vec<_>, Vec<_>) =
                            whole.iter().partition(|(_, answer)| answer.contents.contains(content));
                        alone.extend([has, lacks].iter().filter(|side| side.len() == 1).map(|side| *side[0].0));
                    }
                }
                self.forget(number);
                for home in alone {
                    out.push(Output::Count(Count::Minority));
                    if let Some(state) = self.homes.get_mut(&home) {
                        state.to_compare = limits::COMPARED_AT_FIRST;
                    }
                    self.blame(cx.now, home, limits::POINTS_MINORITY, out);
                }
            }
            Stage::Waiting(..) => {}
        }
    }

    fn ask_again(&mut self, number: u64, out: &mut Outbox<Output>) {
        let Some(comparison) = self.comparisons.get_mut(&number) else { return };
        let before: Vec<PeerId> =
            comparison.answers.keys().copied().filter(|home| self.homes.contains_key(home)).collect();
        let third = self.homes.keys().copied().find(|home| !before.contains(home));
        let (Some(third), 2, Stage::Waiting(_, differ)) = (third, before.len(), &mut comparison.stage) else {
            return self.forget(number);
        };
        comparison.stage = Stage::Again(std::mem::take(differ));
        comparison.answers.clear();
        for home in before.into_iter().chain([third]) {
            self.ask(number, home, out);
        }
    }

    /// Two homes were asked at the same moment, and took so long.
    fn compare_spans(&mut self, spans: [(PeerId, Duration); 2], out: &mut Outbox<Output>) {
        for ((home, span), (_, other)) in [(spans[0], spans[1]), (spans[1], spans[0])] {
            let Some(state) = self.homes.get_mut(&home) else { continue };
            let is_slow = span > other * 3 + limits::SLOW_SEARCH;
            state.slow = (state.slow.0 << 1 | u8::from(is_slow), (state.slow.1 + 1).min(u8::BITS));
            let (slow, all) = (state.slow.0.count_ones(), state.slow.1);
            if all >= limits::SLOW_COMPARISONS && slow * 2 > all {
                state.slow = (0, 0);
                out.push(Output::Distrust(home));
            }
        }
    }

    fn blame(&mut self, now: Time, home: PeerId, points: u8, out: &mut Outbox<Output>) {
        self.points.retain(|_, points| {
            points.retain(|(at, _)| now.since(*at) < limits::POINTS_WINDOW);
            !points.is_empty()
        });
        if self.points.len() >= limits::HOMES_DISTRUSTED && !self.points.contains_key(&home) {
            self.points.pop_first();
        }
        let record = self.points.entry(home).or_default();
        record.push((now, points));
        if record.iter().map(|(_, points)| u32::from(*points)).sum::<u32>() >= limits::POINTS_DISTRUST.into() {
            self.points.remove(&home);
            out.push(Output::Distrust(home));
        }
    }
}

/// A query that the name of a file must match, and little else: its longest words. `None` if there are too few.
fn words_of(path: &str) -> Option<String> {
    let mut words = Vec::new();
    Tokenizer::new().name_tokens(file_name(path), |token, _| {
        if token.len() >= CANARY_LETTERS && token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            words.push(token.to_owned());
        }
    });
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    words.dedup();
    words.truncate(CANARY_WORDS);
    let query = words.join(" ");
    (words.len() >= 2 && Query::parse(&query).is_ok()).then_some(query)
}
