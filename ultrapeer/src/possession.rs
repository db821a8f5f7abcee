//! Core: whether leaves have the files that they list.
//!
//! What it decides: which leaf is asked for which part of which file and when, what its answer means, and who is dropped.
//!
//! ```text
//!   a list comes ─> a few of its files are asked for ─> then one a day, and when somebody complains
//!   a proof      ─> checked on a worker ─> passed, or failed
//!   "gone"       ─> failed if the list still has the file a while later
//!   silence      ─> asked again; too often in a row is as good as failed
//!   failed       ─> the leaf's files are ranked down, and more of them are asked for; too many different ones: it is dropped
//! ```
//!
//! Invariants:
//! - which file is asked for, and when, is drawn when the time comes: nobody can know it before;
//! - **an honest leaf whose files change or vanish fails nothing**: it checks what it sends, says of all else that it is
//!   gone, and lists it no more within [`limits::POSSESSION_GRACE`];
//! - a leaf is asked at most as often as [`limits::POSSESSION_RATE`] says, whoever complains, and whoever complains spends
//!   credit;
//! - at most [`limits::POSSESSION_RECORDS`] leaves are remembered; those that are gone the longest are forgotten first.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use overlay::{
    credit::TokenBucket,
    id::{ContentId, PeerId},
    limits,
    machine::{Context, Outbox},
    time::Time,
    verify::{Layout, VerifyError},
    wire::possession::{GroupProof, Possession, PossessionAnswer, PossessionAsk},
};
use rand::RngExt;

/// Times that a file is drawn anew which failed before and would show nothing more. Chosen: of a hundred files of which two
/// failed, one of them is asked for again once in 10^13 times.
const DRAWS: usize = 8;

/// What must be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask a leaf.
    Ask(PeerId, PossessionAsk),
    /// Look at what it sent on a worker, with [`check()`]; answer with [`Possessions::checked`].
    Check(Box<Case>),
    /// A leaf does not have a file that it lists.
    Failed(PeerId, Fault),
    /// Too many: withdraw its list, close its connection, and turn it away for [`limits::POSSESSION_REFUSAL`].
    Drop(PeerId),
}

/// What a leaf sent to show that it has a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The leaf.
    pub leaf: PeerId,
    /// The question's number.
    pub number: u64,
    /// What it was asked.
    pub ask: PossessionAsk,
    /// Bytes of the content, as it lists it.
    pub size: u64,
    /// What it sent.
    pub proof: Box<GroupProof>,
}

/// Looks at a case; takes as long as hashing 16 KiB and the lists of values.
pub fn check(case: &Case) -> Result<(), VerifyError> {
    case.proof.check(&case.ask, case.size)
}

/// What a leaf did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It sent something else.
    Wrong,
    /// It said that the file is gone, and lists it all the same.
    Listed,
    /// It did not answer, again and again.
    Silent,
}

impl Fault {
    /// The fault in words, for the log.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Wrong => "it sent something else",
            Self::Listed => "it does not have it and lists it all the same",
            Self::Silent => "it did not answer, again and again",
        }
    }
}

/// What leaves list now.
pub trait Lists {
    /// A file of a leaf's list that is in place, for a random number: content and bytes. `None` if it has none.
    fn draw(&self, leaf: &PeerId, random: u64) -> Option<(ContentId, u64)>;

    /// Bytes of a content that is in the list of a leaf; `None` if it is not.
    fn size(&self, leaf: &PeerId, content: &ContentId) -> Option<u64>;
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Questions that were answered with a proof.
    pub proven: u64,
    /// Files that leaves list and do not have.
    pub failed: u64,
    /// Questions that were answered otherwise, or not.
    pub evaded: u64,
    /// Leaves that were dropped.
    pub dropped: u64,
    /// Complaints for which somebody was asked.
    pub complaints: u64,
}

/// The questions, and how leaves stand. See the module text.
#[derive(Debug, Default)]
pub struct Possessions {
    records: BTreeMap<PeerId, Record>,
    /// Leaves that are attached and not being asked, by when they are asked next.
    waiting: BTreeSet<(Time, PeerId)>,
    under_way: BTreeMap<PeerId, Question>,
    /// Files that leaves say are gone: when their lists must not have them any more.
    gone: BTreeSet<(Time, PeerId, ContentId)>,
    /// Leaves that are not attached, by when they left.
    absent: BTreeSet<(Time, PeerId)>,
    /// Leaves that are turned away, by when that ends.
    refused: BTreeSet<(Time, PeerId)>,
    credit: BTreeMap<PeerId, TokenBucket>,
    numbers: u64,
    stats: Stats,
}

#[derive(Debug)]
struct Question {
    number: u64,
    ask: PossessionAsk,
    size: u64,
    /// When the answer is due; `None` once it is being checked.
    due: Option<Time>,
}

/// How a leaf stands.
#[derive(Debug)]
struct Record {
    /// The list that was sampled last, and how many files it had.
    root: [u8; 32],
    files: u64,
    /// When it left; `None` while it is attached.
    left: Option<Time>,
    /// When it is asked next.
    next: Time,
    /// Files of its list that it must still prove one after the other, as the list was not sampled before.
    samples: u8,
    /// Files that it must prove before it is asked only now and then again.
    follow_ups: u8,
    /// What somebody complained of, and when somebody did last.
    complaint: Option<ContentId>,
    complained: Option<Time>,
    /// Files that failed, the oldest first.
    failed: Vec<(Time, ContentId)>,
    /// Questions in a row without a proof.
    evaded: u8,
    /// True while its list has a file that failed.
    doubted: bool,
    asks: TokenBucket,
    refused_until: Option<Time>,
}

impl Record {
    fn new(now: Time) -> Self {
        Self {
            root: [0; 32],
            files: 0,
            left: None,
            next: now + limits::POSSESSION_EACH,
            samples: 0,
            follow_ups: 0,
            complaint: None,
            complained: None,
            failed: Vec::new(),
            evaded: 0,
            doubted: false,
            asks: TokenBucket::new(now, limits::POSSESSION_RATE, limits::POSSESSION_BURST),
            refused_until: None,
        }
    }

    /// One of the samples of its list is done. False if none was left.
    fn count_sample(&mut self) -> bool {
        let had = self.samples > 0;
        self.samples = self.samples.saturating_sub(1);
        had
    }

    fn forgive(&mut self, now: Time) {
        self.failed.retain(|(at, _)| now.since(*at) < limits::POSSESSION_WINDOW);
    }

    fn look_at_list(&mut self, now: Time, leaf: &PeerId, lists: &impl Lists) {
        self.forgive(now);
        self.doubted = self.failed.iter().any(|(_, content)| lists.size(leaf, content).is_some());
    }
}

impl Possessions {
    /// Numbers for metrics.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// True if that leaf was dropped lately, and is turned away.
    pub fn is_refused(&self, leaf: &PeerId) -> bool {
        self.records.get(leaf).is_some_and(|record| record.refused_until.is_some())
    }

    /// True if that leaf lists a file that it failed to prove: what it has is ranked down.
    pub fn is_doubted(&self, leaf: &PeerId) -> bool {
        self.records.get(leaf).is_some_and(|record| record.doubted)
    }

    /// A leaf's list, or another one, is in place here: its root and its files.
    pub fn listed(&mut self, cx: &mut Context<'_>, lists: &impl Lists, leaf: PeerId, root: [u8; 32], files: u64) {
        let now = cx.now;
        if !self.make_room(&leaf) {
            return;
        }
        let record = self.records.entry(leaf).or_insert_with(|| Record { left: Some(now), ..Record::new(now) });
        let came = record.left.take();
        if let Some(left) = came {
            self.absent.remove(&(left, leaf));
        }
        let is_new = record.root != root && (came.is_some() || files > record.files.saturating_mul(2));
        if is_new {
            (record.root, record.files) = (root, files);
            record.samples = limits::POSSESSION_SAMPLES;
        }
        if !record.failed.is_empty() {
            record.look_at_list(now, &leaf, lists);
        }
        let soon = now + cx.rng.random_range(limits::POSSESSION_DELAY..limits::POSSESSION_DELAY_MAX);
        if is_new || (came.is_some() && record.next <= soon) {
            self.wait(leaf, soon);
        } else if came.is_some() {
            self.wait(leaf, self.records[&leaf].next);
        }
    }

    /// A leaf is gone. One that goes while it is asked is asked again when it comes back.
    pub fn left(&mut self, now: Time, leaf: PeerId) {
        let asked = self.under_way.remove(&leaf).is_some_and(|question| question.due.is_some());
        let Some(record) = self.records.get_mut(&leaf).filter(|record| record.left.is_none()) else { return };
        record.left = Some(now);
        if asked {
            record.evaded = record.evaded.saturating_add(1).min(limits::POSSESSION_EVASIONS);
            record.next = now;
            self.stats.evaded += 1;
        }
        self.waiting.remove(&(record.next, leaf));
        self.absent.insert((now, leaf));
    }

    /// A leaf answers.
    pub fn answered(
        &mut self,
        cx: &mut Context<'_>,
        lists: &impl Lists,
        leaf: PeerId,
        answer: Possession,
        out: &mut Outbox<Output>,
    ) {
        let Some(question) = self.under_way.get_mut(&leaf) else { return };
        if question.due.is_none() || question.ask != answer.ask {
            return;
        }
        match answer.answer {
            PossessionAnswer::Proven(proof) => {
                question.due = None;
                let Question { number, ask, size, .. } = *question;
                out.push(Output::Check(Box::new(Case { leaf, number, ask, size, proof })));
            }
            PossessionAnswer::Gone => {
                let content = question.ask.content;
                self.gone.insert((cx.now + limits::POSSESSION_GRACE, leaf, content));
                self.evaded(cx, lists, leaf, out);
            }
            PossessionAnswer::NotNow => self.evaded(cx, lists, leaf, out),
        }
    }

    /// A worker has looked at a case.
    pub fn checked(
        &mut self,
        cx: &mut Context<'_>,
        lists: &impl Lists,
        leaf: PeerId,
        number: u64,
        result: Result<(), VerifyError>,
        out: &mut Outbox<Output>,
    ) {
        let is_it = |question: &&Question| question.number == number && question.due.is_none();
        let Some(content) = self.under_way.get(&leaf).filter(is_it).map(|question| question.ask.content) else {
            return;
        };
        self.under_way.remove(&leaf);
        let Some(record) = self.records.get_mut(&leaf) else { return };
        if result.is_err() {
            // An honest leaf checks what it sends.
            return self.failed(cx, lists, leaf, content, Fault::Wrong, out);
        }
        self.stats.proven += 1;
        record.evaded = 0;
        if !record.count_sample() {
            record.follow_ups = record.follow_ups.saturating_sub(1);
        }
        record.look_at_list(cx.now, &leaf, lists);
        self.go_on(cx, leaf);
    }

    /// Somebody complains that a leaf does not have what it lists: `by` is a leaf of this home or another home. True if
    /// that counts.
    pub fn complained(
        &mut self,
        cx: &mut Context<'_>,
        lists: &impl Lists,
        (by, of_home): (PeerId, bool),
        leaf: PeerId,
        content: ContentId,
    ) -> bool {
        let now = cx.now;
        let is_known = self.records.get(&leaf).is_some_and(|record| record.left.is_none());
        if !self.spend(now, by, of_home) || !is_known || by == leaf || lists.size(&leaf, &content).is_none() {
            return false;
        }
        let Some(record) = self.records.get_mut(&leaf) else { return false };
        if record.complained.is_some_and(|last| now.since(last) < limits::COMPLAINT_PAUSE) {
            return false;
        }
        (record.complained, record.complaint) = (Some(now), Some(content));
        self.stats.complaints += 1;
        let soon = now + cx.rng.random_range(limits::POSSESSION_DELAY..limits::POSSESSION_DELAY_MAX);
        if !self.under_way.contains_key(&leaf) && record.next > soon {
            self.wait(leaf, soon);
        }
        true
    }

    /// Spends the credit of whoever complains; also for complaints that are passed on to others. False if there is none.
    pub fn spend(&mut self, now: Time, by: PeerId, of_home: bool) -> bool {
        if self.credit.len() >= limits::COMPLAINERS && !self.credit.contains_key(&by) {
            // Who has his credit back is as good as unknown.
            self.credit.retain(|_, bucket| !bucket.is_full(now));
            if self.credit.len() >= limits::COMPLAINERS {
                return false;
            }
        }
        let (rate, burst) = if of_home {
            (limits::COMPLAINT_RATE_OF_HOME, limits::COMPLAINT_BURST_OF_HOME)
        } else {
            (limits::COMPLAINT_RATE, limits::COMPLAINT_BURST)
        };
        self.credit.entry(by).or_insert_with(|| TokenBucket::new(now, rate, burst)).take(now)
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let asked = self.under_way.values().filter_map(|question| question.due);
        let waiting = self.waiting.first().map(|(at, _)| *at);
        let gone = self.gone.first().map(|(at, ..)| *at);
        let refused = self.refused.first().map(|(at, _)| *at);
        asked.chain(waiting).chain(gone).chain(refused).min()
    }

    /// Asks leaves whose time has come, and judges what was not answered and what lists still have.
    pub fn on_deadline(&mut self, cx: &mut Context<'_>, lists: &impl Lists, out: &mut Outbox<Output>) {
        let now = cx.now;
        while let Some(&(at, leaf, content)) = self.gone.first()
            && at <= now
        {
            self.gone.pop_first();
            if lists.size(&leaf, &content).is_some() {
                self.failed(cx, lists, leaf, content, Fault::Listed, out);
            }
        }
        while let Some(&(at, leaf)) = self.refused.first()
            && at <= now
        {
            self.refused.pop_first();
            if let Some(record) = self.records.get_mut(&leaf).filter(|record| record.refused_until == Some(at)) {
                record.refused_until = None;
            }
        }
        let is_due = |question: &Question| question.due.is_some_and(|due| due <= now);
        let silent: Vec<_> = self.under_way.iter().filter(|(_, asked)| is_due(asked)).map(|(leaf, _)| *leaf).collect();
        for leaf in silent {
            self.evaded(cx, lists, leaf, out);
        }
        while let Some(&(at, leaf)) = self.waiting.first()
            && at <= now
        {
            self.waiting.pop_first();
            self.ask(cx, lists, leaf, out);
        }
    }

    /// Asks a leaf, or plans that for later.
    fn ask(&mut self, cx: &mut Context<'_>, lists: &impl Lists, leaf: PeerId, out: &mut Outbox<Output>) {
        let now = cx.now;
        let Some(record) = self.records.get_mut(&leaf) else { return };
        if self.under_way.len() >= limits::POSSESSION_UNDER_WAY {
            return self.wait(leaf, now + limits::POSSESSION_DELAY);
        }
        if let Some(pause) = record.asks.wait(now).filter(|pause| !pause.is_zero()) {
            return self.wait(leaf, now + pause);
        }
        let complaint = record.complaint.take();
        let complaint = complaint.and_then(|content| Some((content, lists.size(&leaf, &content)?)));
        let failed = |content: &ContentId| record.failed.iter().any(|(_, known)| known == content);
        let mut drawn = (0..DRAWS).map_while(|_| lists.draw(&leaf, cx.rng.random()));
        let file = complaint.or_else(|| {
            let first = drawn.next()?;
            Some(if failed(&first.0) { drawn.find(|(content, _)| !failed(content)).unwrap_or(first) } else { first })
        });
        let question = file.and_then(|(content, size)| {
            let layout = Layout::new(size).ok()?;
            let piece = cx.rng.random_range(0..layout.pieces());
            let group = cx.rng.random_range(0..layout.groups(piece).ok()?);
            Some((PossessionAsk { content, piece, group }, size))
        });
        let Some((ask, size)) = question else {
            // It lists nothing: there is nothing to prove.
            (record.samples, record.follow_ups) = (0, 0);
            return self.go_on(cx, leaf);
        };
        record.asks.take(now);
        self.numbers += 1;
        let due = Some(now + limits::POSSESSION_PATIENCE);
        self.under_way.insert(leaf, Question { number: self.numbers, ask, size, due });
        out.push(Output::Ask(leaf, ask));
    }

    /// A question led to no proof: it is asked again later, unless that happened too often.
    fn evaded(&mut self, cx: &mut Context<'_>, lists: &impl Lists, leaf: PeerId, out: &mut Outbox<Output>) {
        let Some(question) = self.under_way.remove(&leaf) else { return };
        let Some(record) = self.records.get_mut(&leaf) else { return };
        self.stats.evaded += 1;
        record.evaded = record.evaded.saturating_add(1).min(limits::POSSESSION_EVASIONS);
        let content = question.ask.content;
        if record.evaded == limits::POSSESSION_EVASIONS && lists.size(&leaf, &content).is_some() {
            record.evaded = 0;
            return self.failed(cx, lists, leaf, content, Fault::Silent, out);
        }
        let pause = limits::POSSESSION_RETRY.mul_f64(cx.rng.random_range(0.5..1.5));
        self.wait(leaf, cx.now + pause);
    }

    fn failed(
        &mut self,
        cx: &mut Context<'_>,
        lists: &impl Lists,
        leaf: PeerId,
        content: ContentId,
        fault: Fault,
        out: &mut Outbox<Output>,
    ) {
        let now = cx.now;
        let Some(record) = self.records.get_mut(&leaf) else { return };
        record.forgive(now);
        if !record.failed.iter().any(|(_, known)| *known == content) {
            if record.failed.len() >= limits::POSSESSION_STRIKES {
                record.failed.remove(0);
            }
            record.failed.push((now, content));
            self.stats.failed += 1;
            out.push(Output::Failed(leaf, fault));
        }
        record.look_at_list(now, &leaf, lists);
        record.count_sample();
        record.follow_ups = limits::POSSESSION_FOLLOW_UPS;
        if record.failed.len() >= limits::POSSESSION_STRIKES && record.left.is_none() {
            let until = now + limits::POSSESSION_REFUSAL;
            (record.refused_until, record.samples) = (Some(until), limits::POSSESSION_SAMPLES);
            self.refused.insert((until, leaf));
            self.stats.dropped += 1;
            self.under_way.remove(&leaf);
            // When it comes back, it must prove something at once.
            self.wait(leaf, until);
            return out.push(Output::Drop(leaf));
        }
        if record.left.is_none() && !self.under_way.contains_key(&leaf) {
            self.go_on(cx, leaf);
        }
    }

    /// Plans the next question to a leaf.
    fn go_on(&mut self, cx: &mut Context<'_>, leaf: PeerId) {
        let Some(record) = self.records.get(&leaf) else { return };
        let pause = if record.samples > 0 || record.complaint.is_some() {
            limits::POSSESSION_DELAY
        } else if record.follow_ups > 0 {
            limits::POSSESSION_FOLLOW_UP
        } else {
            limits::POSSESSION_EACH
        };
        let pause = pause.mul_f64(cx.rng.random_range(0.5..1.5));
        self.wait(leaf, cx.now + pause);
    }

    /// A leaf that is attached and not being asked is asked at that time.
    fn wait(&mut self, leaf: PeerId, until: Time) {
        let Some(record) = self.records.get_mut(&leaf) else { return };
        self.waiting.remove(&(record.next, leaf));
        record.next = until;
        if record.left.is_none() && !self.under_way.contains_key(&leaf) {
            self.waiting.insert((until, leaf));
        }
    }

    /// Room for one more record. False if all that are remembered are attached.
    fn make_room(&mut self, leaf: &PeerId) -> bool {
        if self.records.len() < limits::POSSESSION_RECORDS || self.records.contains_key(leaf) {
            return true;
        }
        let Some((_, oldest)) = self.absent.pop_first() else { return false };
        self.records.remove(&oldest);
        true
    }
}
