//! Core: whether other homes tell the truth about leaves.
//!
//! What it decides: what is audited, what an answer or none means, and which homes are distrusted.
//!
//! ```text
//!   a home tells of a list, or sends a digest ─> drawn now and then ─> a while later: asked to prove it
//!   ─> what its leaf signed for it (and the files of the chunk) ─> checked on a worker ─> proven, or failed
//!   failed ─> its digests of that leaf are dropped; it is audited again and again, until it is cleared or distrusted
//!   distrusted ─> no digest is asked of it, and no list counts as searched there, for a while
//! ```
//!
//! Two lies are found: a digest with other words or contents than the leaf's files have, and a list of a leaf that is not attached
//! there, as others told of it. A home that has the leaf and finds nothing in its list when it is asked is not found.
//!
//! Invariants:
//! - nobody can know what will be audited when he tells of it;
//! - **an honest home fails no audit, whatever leaves and links do.** What a leaf signed is kept while its list is in the
//!   log, the log is told before it is said that a list is gone, and both go over one stream: a list that is still in the
//!   log when its home denies it is a lie. An audit that ends because list or link are gone, or because the home cannot
//!   answer now, proves nothing, and counts only if that happens [`limits::AUDIT_EVASIONS`] times in a row;
//! - at most [`limits::AUDITS`] are under way, one for each home.
//!
//! Words are taken from names in the same way by all releases of a major version: else their digests would differ.

mod check;
pub mod proofs;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use overlay::{
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    time::Time,
    wire::mesh::{ChunkName, DigestName, ListProof, Proof, ProofAnswer, ProofAsk, ProofPart},
};
use rand::{Rng, RngExt};

pub use self::check::{Case, Fault, check};
use crate::{
    attachments::{Attachments, LeafList},
    digests::{DigestSum, Digests, Parts},
    search::neighbours::Neighbours,
};

/// What must be done.
#[derive(Debug)]
pub enum Output {
    /// Ask a home.
    Ask(PeerId, ProofAsk),
    /// Look at what it sent on a worker, with [`check()`]; answer with [`Audits::checked`].
    Check(Box<Case>),
    /// A home failed an audit.
    Failed(Failure),
    /// It is distrusted from now on.
    Distrust(PeerId),
    /// It is not distrusted any more.
    Trust(PeerId),
}

/// A failed audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose.
    pub home: PeerId,
    /// Of which leaf.
    pub handle: u64,
    /// What was wrong.
    pub fault: Fault,
}

/// What the rest of the ultrapeer knows and an audit needs.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// The current time.
    pub now: Time,
    /// What homes told of their leaves.
    pub attachments: &'a Attachments,
    /// What they sent.
    pub digests: &'a Digests,
    /// Whom to ask.
    pub neighbours: &'a Neighbours,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Audits that proved what they had to.
    pub proven: u64,
    /// Audits that a home failed.
    pub failed: u64,
    /// Audits that proved nothing, because list or link were gone.
    pub evaded: u64,
    /// Homes that are distrusted now.
    pub distrusted: u64,
}

/// The audits. See the module text.
#[derive(Debug, Default)]
pub struct Audits {
    waiting: BTreeSet<(Time, Subject)>,
    under_way: BTreeMap<PeerId, Audit>,
    records: BTreeMap<PeerId, Record>,
    numbers: u64,
    stats: Stats,
}

/// What is to be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    home: PeerId,
    handle: u64,
    /// The chunk whose digest came from the home; `None`: only that the leaf is there.
    chunk: Option<ChunkName>,
}

#[derive(Debug)]
struct Audit {
    number: u64,
    subject: Subject,
    /// As the home told of it.
    list: Arc<LeafList>,
    /// The digest as it came.
    sum: Option<DigestSum>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The answer is due at that time.
    Asked(Time),
    /// So are the files.
    Sending { due: Time, proof: ListProof, parts: Parts },
    /// A worker looks at it.
    Checking,
    /// The home denies what its log tells of, which is looked at again at that time.
    Denied(Time),
    /// It is over; the next one of that home may begin at that time.
    Over(Time),
}

/// What is remembered of a home that did not pass each audit.
#[derive(Debug, Default)]
struct Record {
    /// Failed audits, the oldest first.
    failed: Vec<Time>,
    /// Audits evaded since the last that it passed.
    evaded: u8,
    /// Audits passed since the last failed one.
    passed: u32,
    /// When the next of them is due, while there must be more.
    follow_up: Option<Time>,
    distrusted_until: Option<Time>,
}

impl Record {
    fn is_suspect(&self, now: Time) -> bool {
        self.failed.last().is_some_and(|last| now.since(*last) < limits::AUDIT_WINDOW)
    }
}

impl Environment<'_> {
    /// The list in which the log of a home tells of what is to be proven.
    fn listed(&self, subject: &Subject) -> Option<Arc<LeafList>> {
        let homes = self.attachments.homes(subject.handle);
        let (_, list) = homes.iter().find(|(home, _)| *home == subject.home)?;
        let has_chunk = subject.chunk.is_none_or(|chunk| list.chunks.binary_search(&chunk).is_ok());
        has_chunk.then(|| list.clone())
    }

    fn is_reachable(&self, home: &PeerId) -> bool {
        self.neighbours.is_usable(home) && self.attachments.is_current(self.now, home)
    }
}

impl Audits {
    /// Numbers for metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            distrusted: self.records.values().filter(|record| record.distrusted_until.is_some()).count() as u64,
            ..self.stats
        }
    }

    /// True if that home failed too many audits, and is not believed for a while.
    pub fn is_distrusted(&self, home: &PeerId) -> bool {
        self.records.get(home).is_some_and(|record| record.distrusted_until.is_some())
    }

    /// A home told of a list of a leaf.
    pub fn listed(&mut self, cx: &mut Context<'_>, home: PeerId, handle: u64) {
        self.draw(cx, limits::AUDIT_LISTS, Subject { home, handle, chunk: None });
    }

    /// A digest came from a home and is held.
    pub fn held(&mut self, cx: &mut Context<'_>, home: PeerId, name: DigestName) {
        let DigestName { handle, chunk } = name;
        self.draw(cx, limits::AUDIT_DIGESTS, Subject { home, handle, chunk: Some(chunk) });
    }

    /// A home answers.
    pub fn answered(&mut self, environment: Environment<'_>, from: PeerId, answer: Proof, out: &mut Outbox<Output>) {
        let Some(audit) = self.under_way.get_mut(&from).filter(|audit| answer.ask == audit.ask()) else { return };
        let Stage::Asked(_) = audit.stage else { return };
        match answer.answer {
            ProofAnswer::Proven(proof) if audit.subject.chunk.is_some() => {
                let due = environment.now + limits::AUDIT_PARTS_PATIENCE;
                audit.stage = Stage::Sending { due, proof, parts: Parts::new() };
            }
            ProofAnswer::Proven(proof) => out.push(Output::Check(audit.case(proof, 0, Parts::new()))),
            ProofAnswer::Gone => audit.stage = Stage::Denied(environment.now + limits::AUDIT_GRACE),
            ProofAnswer::NotNow => return self.put_off(environment.now, from, out),
        }
        self.look_at(environment, from, out);
    }

    /// A part of the files came.
    pub fn part(&mut self, from: PeerId, part: ProofPart, out: &mut Outbox<Output>) {
        let Some(audit) = self.under_way.get_mut(&from) else { return };
        let DigestName { handle, chunk } = part.name;
        let Stage::Sending { proof, parts, .. } = &mut audit.stage else { return };
        if audit.subject.handle != handle || audit.subject.chunk != Some(chunk) {
            return;
        }
        let bytes = part.bytes as usize;
        let is_absurd = bytes > limits::CHUNK_BYTES || parts.len() >= bytes.div_ceil(limits::BATCH_RAW_BYTES);
        if !is_absurd {
            parts.push(part.data);
        }
        // What cannot be the files is not awaited any further: the check says that it is not them.
        if is_absurd || part.last {
            let (proof, parts) = (proof.clone(), std::mem::take(parts));
            out.push(Output::Check(audit.case(proof, part.bytes, parts)));
        }
    }

    /// A worker has looked at a case.
    pub fn checked(
        &mut self,
        environment: Environment<'_>,
        home: PeerId,
        number: u64,
        result: Result<(), Fault>,
        out: &mut Outbox<Output>,
    ) {
        let is_it = |audit: &&Audit| audit.number == number && matches!(audit.stage, Stage::Checking);
        let Some(subject) = self.under_way.get(&home).filter(is_it).map(|audit| audit.subject) else { return };
        match result {
            Ok(()) => self.passed(environment.now, home),
            Err(fault) => self.failed(environment.now, subject, fault, out),
        }
    }

    /// A home can be asked no more, for now: what it was to prove proves nothing. It is asked again later.
    pub fn lost(&mut self, now: Time, home: PeerId, out: &mut Outbox<Output>) {
        let Some(audit) = self.under_way.get(&home) else { return };
        if matches!(audit.stage, Stage::Asked(_) | Stage::Sending { .. } | Stage::Denied(_)) {
            self.put_off(now, home, out);
        }
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let waiting = self.waiting.first().map(|(at, _)| *at);
        let under_way = self.under_way.values().filter_map(|audit| audit.stage.due());
        let records = self.records.values().flat_map(|record| [record.follow_up, record.distrusted_until]);
        waiting.into_iter().chain(under_way).chain(records.flatten()).min()
    }

    /// Begins audits that are due, and judges those that were not answered.
    pub fn on_deadline(&mut self, rng: &mut dyn Rng, environment: Environment<'_>, out: &mut Outbox<Output>) {
        let now = environment.now;
        let is_due = |audit: &Audit| audit.stage.due().is_some_and(|due| due <= now);
        let due: Vec<_> = self.under_way.iter().filter(|(_, audit)| is_due(audit)).map(|(home, _)| *home).collect();
        for home in due {
            self.look_at(environment, home, out);
        }
        self.end_distrust(now, out);
        let is_due = |record: &Record| record.follow_up.is_some_and(|at| at <= now);
        let due: Vec<_> = self.records.iter().filter(|(_, record)| is_due(record)).map(|(home, _)| *home).collect();
        for home in due {
            self.follow_up(rng, environment, home);
        }
        while let Some(&(at, subject)) = self.waiting.first()
            && at <= now
        {
            self.waiting.pop_first();
            self.begin(environment, subject, out);
        }
    }

    /// Audits a part of all that homes tell, at random, and a larger one of what suspects tell.
    fn draw(&mut self, cx: &mut Context<'_>, one_in: u32, subject: Subject) {
        let record = self.records.get(&subject.home);
        if record.is_some_and(|record| record.distrusted_until.is_some()) {
            return;
        }
        let is_suspect = record.is_some_and(|record| record.is_suspect(cx.now));
        if cx.rng.random_range(0..if is_suspect { limits::AUDIT_SUSPECTS } else { one_in }) == 0 {
            let delay = cx.rng.random_range(limits::AUDIT_DELAY..limits::AUDIT_DELAY_MAX);
            self.wait(cx.now + delay, subject);
        }
    }

    fn wait(&mut self, until: Time, subject: Subject) {
        let of_home = self.waiting.iter().filter(|(_, waiting)| waiting.home == subject.home).count();
        if self.waiting.len() < limits::AUDITS_WAITING && of_home < limits::AUDITS_WAITING_OF_HOME {
            self.waiting.insert((until, subject));
        }
    }

    /// Asks a home, unless there is nothing to prove any more; later if that cannot be now.
    fn begin(&mut self, environment: Environment<'_>, subject: Subject, out: &mut Outbox<Output>) {
        let Subject { home, handle, chunk } = subject;
        if environment.neighbours.get(&home).is_none() {
            return;
        }
        let open = self.under_way.values().filter(|audit| !matches!(audit.stage, Stage::Over(_))).count();
        if self.under_way.contains_key(&home) || open >= limits::AUDITS || !environment.is_reachable(&home) {
            return self.wait(environment.now + limits::AUDIT_PAUSE, subject);
        }
        let Some(list) = environment.listed(&subject) else { return };
        let sum = chunk.map(|chunk| environment.digests.held(DigestName { handle, chunk }));
        // Another home may have sent the digest meanwhile.
        let sum = match sum {
            Some(Some((from, sum))) if from == home => Some(sum),
            None => None,
            Some(_) => return,
        };
        self.numbers += 1;
        let stage = Stage::Asked(environment.now + limits::AUDIT_PATIENCE);
        let audit = Audit { number: self.numbers, subject, list, sum, stage };
        out.push(Output::Ask(home, audit.ask()));
        self.under_way.insert(home, audit);
    }

    /// The next of the audits of a suspect: any of its leaves.
    fn follow_up(&mut self, rng: &mut dyn Rng, environment: Environment<'_>, home: PeerId) {
        let Some(record) = self.records.get_mut(&home) else { return };
        record.follow_up = Some(environment.now + limits::AUDIT_PAUSE);
        if self.under_way.contains_key(&home) || !environment.is_reachable(&home) {
            return;
        }
        if let Some(handle) = environment.attachments.leaf_of(&home, rng.random()) {
            let chunk = environment.digests.chunk_from(handle, &home);
            self.wait(environment.now, Subject { home, handle, chunk });
        }
    }

    /// Judges what is due, or was denied, by what the log of its home tells.
    fn look_at(&mut self, environment: Environment<'_>, home: PeerId, out: &mut Outbox<Output>) {
        let Some(audit) = self.under_way.get(&home) else { return };
        let (subject, is_due) = (audit.subject, audit.stage.due().is_some_and(|due| due <= environment.now));
        let stays = environment.listed(&subject).is_some_and(|list| list == audit.list);
        match audit.stage {
            Stage::Over(_) if is_due => drop(self.under_way.remove(&home)),
            Stage::Asked(_) | Stage::Sending { .. } if is_due && stays => {
                self.failed(environment.now, subject, Fault::Silent, out);
            }
            Stage::Denied(_) if is_due && stays => self.failed(environment.now, subject, Fault::Denied, out),
            Stage::Asked(_) | Stage::Sending { .. } if is_due => self.evaded(environment.now, subject, out),
            Stage::Denied(_) if !stays => self.evaded(environment.now, subject, out),
            _ => {}
        }
    }

    /// What cannot be proven now is asked for again.
    fn put_off(&mut self, now: Time, home: PeerId, out: &mut Outbox<Output>) {
        if let Some(subject) = self.under_way.get(&home).map(|audit| audit.subject) {
            self.wait(now + limits::AUDIT_DELAY, subject);
            self.evaded(now, subject, out);
        }
    }

    fn over(&mut self, now: Time, home: &PeerId) {
        if let Some(audit) = self.under_way.get_mut(home) {
            audit.stage = Stage::Over(now + limits::AUDIT_PAUSE);
        }
    }

    fn passed(&mut self, now: Time, home: PeerId) {
        self.over(now, &home);
        self.stats.proven += 1;
        let Some(record) = self.records.get_mut(&home) else { return };
        record.failed.retain(|at| now.since(*at) < limits::AUDIT_WINDOW);
        (record.evaded, record.passed) = (0, record.passed + 1);
        if record.passed >= limits::AUDIT_FOLLOW_UPS {
            record.follow_up = None;
        }
        if record.failed.is_empty() {
            self.records.remove(&home);
        }
    }

    fn evaded(&mut self, now: Time, subject: Subject, out: &mut Outbox<Output>) {
        self.over(now, &subject.home);
        self.stats.evaded += 1;
        let record = self.record(subject.home, out);
        record.evaded += 1;
        if record.evaded >= limits::AUDIT_EVASIONS {
            self.failed(now, subject, Fault::Evading, out);
        }
    }

    fn failed(&mut self, now: Time, subject: Subject, fault: Fault, out: &mut Outbox<Output>) {
        let Subject { home, handle, .. } = subject;
        self.over(now, &home);
        self.stats.failed += 1;
        let record = self.record(home, out);
        record.failed.retain(|at| now.since(*at) < limits::AUDIT_WINDOW);
        record.failed.push(now);
        (record.evaded, record.passed, record.follow_up) = (0, 0, Some(now + limits::AUDIT_PAUSE));
        out.push(Output::Failed(Failure { home, handle, fault }));
        if record.failed.len() >= limits::AUDIT_STRIKES {
            record.failed.drain(..record.failed.len() - limits::AUDIT_STRIKES);
            (record.follow_up, record.distrusted_until) = (None, Some(now + limits::AUDIT_DISTRUST));
            self.waiting.retain(|(_, waiting)| waiting.home != home);
            out.push(Output::Distrust(home));
        }
    }

    /// The record of a home. If there are too many, that of the home is given up that failed longest ago.
    fn record(&mut self, home: PeerId, out: &mut Outbox<Output>) -> &mut Record {
        if !self.records.contains_key(&home) && self.records.len() >= limits::AUDIT_RECORDS {
            let age = |record: &Record| (record.distrusted_until, record.failed.last().copied());
            let oldest = self.records.iter().min_by_key(|(_, record)| age(record)).map(|(home, _)| *home);
            let record = oldest.and_then(|oldest| self.records.remove(&oldest));
            if record.is_some_and(|record| record.distrusted_until.is_some()) {
                out.extend(oldest.map(Output::Trust));
            }
        }
        self.records.entry(home).or_default()
    }

    fn end_distrust(&mut self, now: Time, out: &mut Outbox<Output>) {
        for (home, record) in &mut self.records {
            if record.distrusted_until.is_some_and(|until| until <= now) {
                record.distrusted_until = None;
                out.push(Output::Trust(*home));
            }
        }
    }
}

impl Audit {
    fn ask(&self) -> ProofAsk {
        ProofAsk { handle: self.subject.handle, sequence: self.list.sequence, chunk: self.subject.chunk }
    }

    /// What a worker must look at, which it does from now on.
    fn case(&mut self, proof: ListProof, bytes: u32, parts: Parts) -> Box<Case> {
        let Subject { home, handle, chunk } = self.subject;
        let (number, list, chunk) = (self.number, self.list.clone(), chunk.zip(self.sum));
        self.stage = Stage::Checking;
        Box::new(Case { number, home, handle, list, chunk, proof, bytes, parts })
    }
}

impl Stage {
    fn due(&self) -> Option<Time> {
        match self {
            Self::Asked(due) | Self::Sending { due, .. } | Self::Denied(due) | Self::Over(due) => Some(*due),
            Self::Checking => None,
        }
    }
}
