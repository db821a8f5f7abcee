//! Audits against homes by script: honest ones, whatever happens to leaves and links, and liars of each kind.

use std::{collections::VecDeque, time::Duration};

use overlay::{
    batch,
    file::{FileEntry, Tags},
    id::{ContentId, HandleSalt},
    identity::Identity,
    shards::leaf_hash,
    wire::{
        bounded::List,
        descriptor::ShardPrefix,
        leaf::{RootStatement, SignedRoot, catalog_root},
        mesh::{Attachments as Frame, DigestPart},
    },
};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_pcg::Pcg32;

use super::*;
use crate::{
    digests::{self, owed::Packed},
    index::Segment,
    search::neighbours::Neighbour,
};

const ME: PeerId = PeerId([0; 32]);
const HOMES: u8 = 3;

fn home(number: u8) -> PeerId {
    PeerId([number; 32])
}

/// A leaf, whose list has one file for each word.
#[derive(Clone)]
struct Leaf {
    seed: u8,
    sequence: u64,
    words: Vec<String>,
}

impl Leaf {
    fn new(seed: u8) -> Self {
        Self { seed, sequence: 1, words: vec![format!("word{seed}"), format!("other{seed}")] }
    }

    fn identity(&self) -> Identity {
        Identity::from_seed([100 + self.seed; 32])
    }

    fn salt(&self) -> HandleSalt {
        HandleSalt([self.seed; 16])
    }

    fn handle(&self) -> u64 {
        self.salt().handle(&self.identity().peer_id())
    }

    fn place(&self) -> u32 {
        leaf_hash(&self.identity().peer_id())
    }

    /// Each file is a chunk.
    fn chunks(&self) -> Vec<Vec<FileEntry>> {
        let file = |word: &String| FileEntry {
            path: format!("share/{word}.txt"),
            content: ContentId([1; 32]),
            size: 1,
            modified_s: 0,
            tags: Tags::default(),
        };
        self.words.iter().map(|word| vec![file(word)]).collect()
    }

    fn hashes(&self) -> Vec<[u8; 32]> {
        self.chunks().iter().map(|files| batch::chunk_hash(&batch::encode_chunk(files))).collect()
    }

    fn list(&self) -> LeafList {
        let mut chunks: Vec<_> = self.hashes().iter().map(ChunkName::of).collect();
        chunks.sort_unstable();
        LeafList { sequence: self.sequence, place: (self.place() >> 24) as u8, chunks: chunks.into() }
    }

    fn chunk(&self, name: ChunkName) -> Option<Vec<FileEntry>> {
        let at = self.hashes().iter().position(|hash| ChunkName::of(hash) == name)?;
        self.chunks().get(at).cloned()
    }

    fn proof(&self, home: PeerId) -> ListProof {
        let hashes = self.hashes();
        let statement = RootStatement {
            root: catalog_root(&hashes),
            files: hashes.len() as u64,
            sequence: self.sequence,
            lifetime_s: 86_400,
            home,
        };
        let signed = SignedRoot::sign(&self.identity(), &statement);
        ListProof { leaf: self.identity().peer_id(), salt: self.salt(), signed, chunks: List::new(hashes) }
    }
}

/// What a home does instead of what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// It says that what it must prove is not there.
    Denies,
    /// It does not answer.
    IsSilent,
    /// It sends what the leaf signed for the first home.
    Borrows,
    /// It can never answer now.
    PutsOff,
    /// It sends no files.
    KeepsFiles,
    /// Its digests leave out what there is.
    LeavesOut,
}

/// A home: its log, and the leaves that are attached.
struct Home {
    peer: PeerId,
    log: Attachments,
    leaves: BTreeMap<u64, Leaf>,
    lie: Option<Lie>,
    /// What it sends to the auditor arrives in order, at these times.
    mail: VecDeque<(Time, Mail)>,
}

enum Mail {
    Log(Frame),
    Proof(Proof),
    Part(ProofPart),
}

/// An ultrapeer that audits others.
struct Bed {
    now: Time,
    rng: Pcg32,
    homes: Vec<Home>,
    attachments: Attachments,
    digests: Digests,
    neighbours: Neighbours,
    audits: Audits,
    index: crate::index::Index,
    /// Questions on their way.
    asked: Vec<(Time, PeerId, ProofAsk)>,
    checked: Vec<(Time, PeerId, u64, Result<(), Fault>)>,
    failures: Vec<(PeerId, Fault)>,
    trust: Vec<(PeerId, bool)>,
    /// Everything that a home tells is audited.
    all: bool,
}

impl Bed {
    fn new(seed: u64) -> Self {
        let mut bed = Self {
            now: Time(1),
            rng: Pcg32::seed_from_u64(seed),
            homes: Vec::new(),
            attachments: Attachments::new(ME),
            digests: Digests::new(ME, 1 << 20),
            neighbours: Neighbours::new(ShardPrefix::ALL),
            audits: Audits::default(),
            index: crate::index::Index::new(),
            asked: Vec::new(),
            checked: Vec::new(),
            failures: Vec::new(),
            trust: Vec::new(),
            all: true,
        };
        for number in 1..=HOMES {
            let peer = home(number);
            let (log, leaves, mail) = (Attachments::new(peer), BTreeMap::new(), VecDeque::new());
            bed.homes.push(Home { peer, log, leaves, lie: None, mail });
            bed.link(number);
        }
        bed
    }

    fn home(&mut self, number: u8) -> &mut Home {
        &mut self.homes[usize::from(number) - 1]
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(1..300))
    }

    fn post(&mut self, number: u8, mail: impl IntoIterator<Item = Mail>) {
        for mail in mail {
            let at = self.now + self.delay();
            let home = self.home(number);
            let at = home.mail.back().map_or(at, |(last, _)| at.max(*last));
            home.mail.push_back((at, mail));
        }
    }

    fn post_log(&mut self, number: u8, told: Vec<(PeerId, Frame)>) {
        self.post(number, told.into_iter().map(|(_, frame)| Mail::Log(frame)));
    }

    fn link(&mut self, number: u8) {
        let now = self.now;
        self.neighbours.set(home(number), Some(Neighbour { prefix: ShardPrefix::ALL, is_usable: true }));
        self.attachments.following(now, home(number));
        let told = self.home(number).log.follow(now, ME, ShardPrefix::ALL);
        self.post_log(number, told);
    }

    /// The link ends, and with it what is on its way. A home that is `forgotten` was taken for dead.
    fn unlink(&mut self, number: u8, forgotten: bool) {
        let (peer, now) = (home(number), self.now);
        self.home(number).mail.clear();
        self.home(number).log.unlinked(now, &ME);
        self.asked.retain(|(_, home, _)| *home != peer);
        self.attachments.unlinked(now, &peer);
        let neighbour = Neighbour { prefix: ShardPrefix::ALL, is_usable: false };
        self.neighbours.set(peer, (!forgotten).then_some(neighbour));
        self.act(|audits, _, out| audits.lost(now, peer, out));
        if forgotten {
            let changed = self.attachments.forget(&peer);
            self.update(&changed);
        }
        let mut out = Outbox::new();
        self.digests.lost(now, &peer, &self.attachments, &mut out);
        self.carry_out_digests(out);
    }

    /// A leaf comes to a home, or changes its list there; `None`: it leaves.
    fn change(&mut self, number: u8, handle: u64, leaf: Option<Leaf>) {
        let now = self.now;
        let home = self.home(number);
        home.log.own_change(now, handle, leaf.as_ref().map(|leaf| (leaf.place(), leaf.list())));
        match leaf {
            Some(leaf) => drop(home.leaves.insert(handle, leaf)),
            None => drop(home.leaves.remove(&handle)),
        }
        if home.log.next_deadline().is_some_and(|at| at <= now) {
            let told = home.log.flush(now);
            self.post_log(number, told);
        }
    }

    fn attach(&mut self, number: u8, leaf: &Leaf) {
        self.change(number, leaf.handle(), Some(leaf.clone()));
    }

    fn act(&mut self, act: impl FnOnce(&mut Audits, Environment<'_>, &mut Outbox<Output>)) {
        let Self { now, attachments, digests, neighbours, audits, .. } = self;
        let mut out = Outbox::new();
        act(audits, Environment { now: *now, attachments, digests, neighbours }, &mut out);
        for output in out.drain() {
            match output {
                Output::Ask(home, ask) => {
                    let at = self.now + self.delay();
                    self.asked.push((at, home, ask));
                }
                Output::Check(case) => {
                    let at = self.now + self.delay();
                    self.checked.push((at, case.home, case.number, check(&case)));
                }
                Output::Failed(Failure { home, handle, fault }) => {
                    self.failures.push((home, fault));
                    let mut out = Outbox::new();
                    self.digests.wrong(self.now, home, handle, &self.attachments, &mut out);
                    self.carry_out_digests(out);
                }
                Output::Distrust(home) => self.set_distrusted(home, true),
                Output::Trust(home) => self.set_distrusted(home, false),
            }
        }
    }

    fn set_distrusted(&mut self, home: PeerId, is_distrusted: bool) {
        self.trust.push((home, !is_distrusted));
        let changed = self.attachments.set_distrusted(home, is_distrusted);
        if is_distrusted {
            let mut out = Outbox::new();
            self.digests.distrust(self.now, home, &self.attachments, &mut out);
            self.carry_out_digests(out);
        }
        self.update(&changed);
    }

    fn update(&mut self, handles: &[u64]) {
        let mut out = Outbox::new();
        for handle in handles {
            self.digests.update(self.now, *handle, &self.attachments, &mut out);
        }
        self.carry_out_digests(out);
    }

    /// Digests come and are unpacked at once.
    fn carry_out_digests(&mut self, mut out: Outbox<digests::Output>) {
        while !out.is_empty() {
            for output in out.drain().collect::<Vec<_>>() {
                match output {
                    digests::Output::Want(from, want) => {
                        for name in want.digests {
                            let part = self.digest(from, name);
                            self.digests.part(self.now, from, part, &self.attachments, &mut out);
                        }
                    }
                    digests::Output::Build(name, bytes, parts) => {
                        let digest = batch::join(parts.iter().map(|part| &part[..]), bytes as usize, usize::MAX);
                        let segment = Segment::from_digest(&digest.expect("a digest")).expect("a digest");
                        let unpacked = (Arc::new(segment.clone()), DigestSum::of(&segment));
                        self.digests.built(self.now, name, Some(unpacked), &self.attachments, &mut out);
                        if let (true, Some((from, _))) = (self.all, self.digests.held(name)) {
                            let DigestName { handle, chunk } = name;
                            self.audit(from, handle, Some(chunk));
                        }
                    }
                    digests::Output::Insert(name, slot, segment) => {
                        let place = self.index.add(slot, segment);
                        self.digests.placed(name, place);
                    }
                    digests::Output::Remove(place) | digests::Output::Expire(place) => self.index.remove(place),
                }
            }
        }
        self.index.publish();
        self.digests.published();
    }

    fn digest(&mut self, from: PeerId, name: DigestName) -> DigestPart {
        let home = self.home(from.0[0]);
        let files = home.leaves.get(&name.handle).and_then(|leaf| leaf.chunk(name.chunk));
        let files =
            if home.lie == Some(Lie::LeavesOut) { files.map(|_| Leaf::new(99).chunks().remove(0)) } else { files };
        let digest = files.map(|files| Segment::build(&files).expect("a good chunk").digest()).unwrap_or_default();
        let Packed { bytes, mut parts } = Packed::of(&digest).expect("it fits");
        DigestPart { name, bytes, last: true, data: parts.pop().unwrap_or_default() }
    }

    fn audit(&mut self, home: PeerId, handle: u64, chunk: Option<ChunkName>) {
        let until = self.now + limits::AUDIT_DELAY;
        self.audits.wait(until, Subject { home, handle, chunk });
    }

    /// A home is asked for a proof.
    fn answer(&mut self, peer: PeerId, ask: ProofAsk) {
        let (number, now) = (peer.0[0], self.now);
        let first = self.homes[0].peer;
        let home = self.home(number);
        let leaf = home.leaves.get(&ask.handle).filter(|leaf| leaf.sequence == ask.sequence).cloned();
        let answer = match home.lie {
            Some(Lie::PutsOff) => ProofAnswer::NotNow,
            Some(Lie::IsSilent) => return,
            Some(Lie::Denies) => ProofAnswer::Gone,
            lie => leaf.as_ref().map_or(ProofAnswer::Gone, |leaf| {
                ProofAnswer::Proven(leaf.proof(if lie == Some(Lie::Borrows) { first } else { peer }))
            }),
        };
        let keeps = home.lie == Some(Lie::KeepsFiles);
        if answer == ProofAnswer::Gone {
            let told = home.log.flush(now);
            self.post_log(number, told);
        }
        let files = leaf.zip(ask.chunk).filter(|_| matches!(answer, ProofAnswer::Proven(_)) && !keeps);
        self.post(number, [Mail::Proof(Proof { ask, answer })]);
        if let Some((leaf, chunk)) = files {
            let files = leaf.chunk(chunk).expect("a chunk of the list");
            let Packed { bytes, mut parts } = Packed::of(&batch::encode_chunk(&files)).expect("it fits");
            let data = parts.pop().expect("one part");
            let name = DigestName { handle: ask.handle, chunk };
            self.post(number, [Mail::Part(ProofPart { name, bytes, last: true, data })]);
        }
    }

    fn arrives(&mut self, from: PeerId, mail: Mail) {
        match mail {
            Mail::Log(frame) => {
                let heard = self.attachments.heard(from, frame);
                assert!(!heard.differs);
                self.update(&heard.changed);
                for handle in heard.changed.iter().filter(|_| self.all).copied().collect::<Vec<_>>() {
                    self.audit(from, handle, None);
                }
            }
            Mail::Proof(proof) => self.act(|audits, environment, out| audits.answered(environment, from, proof, out)),
            Mail::Part(part) => self.act(|audits, _, out| audits.part(from, part, out)),
        }
    }

    /// Lets time pass.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let mail = self.homes.iter().filter_map(|home| home.mail.front().map(|(at, _)| *at));
            let logs = self.homes.iter().filter_map(|home| home.log.next_deadline());
            let asked = self.asked.iter().map(|(at, ..)| *at);
            let checked = self.checked.iter().map(|(at, ..)| *at);
            let cores = [self.audits.next_deadline(), self.digests.next_deadline()];
            let next = mail.chain(logs).chain(asked).chain(checked).chain(cores.into_iter().flatten()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        let now = self.now;
        for number in 1..=HOMES {
            if self.home(number).log.next_deadline().is_some_and(|at| at <= now) {
                let told = self.home(number).log.flush(now);
                self.post_log(number, told);
            }
            while let Some((_, mail)) = self.home(number).mail.pop_front_if(|(at, _)| *at <= now) {
                self.arrives(home(number), mail);
            }
        }
        for (_, peer, ask) in self.asked.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            self.answer(peer, ask);
        }
        for (_, home, number, result) in self.checked.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            self.act(|audits, environment, out| audits.checked(environment, home, number, result, out));
        }
        if self.digests.next_deadline().is_some_and(|at| at <= now) {
            let mut out = Outbox::new();
            self.digests.on_deadline(now, &self.attachments, &mut out);
            self.carry_out_digests(out);
        }
        if self.audits.next_deadline().is_some_and(|at| at <= now) {
            let mut rng = self.rng.clone();
            self.act(|audits, environment, out| audits.on_deadline(&mut rng, environment, out));
            self.rng = rng;
            assert!(self.audits.next_deadline().is_none_or(|at| at > now), "a busy loop");
        }
    }

    /// A home with `lie`, and leaves that it shares with an honest one.
    fn with_liar(lie: Lie) -> Self {
        let mut bed = Self::new(1);
        bed.home(2).lie = Some(lie);
        for seed in 1..=6 {
            bed.attach(1, &Leaf::new(seed));
            bed.attach(2, &Leaf::new(seed));
        }
        bed
    }

    fn faults(&self) -> Vec<Fault> {
        assert!(self.failures.iter().all(|(peer, _)| *peer == home(2)), "{:?}", self.failures);
        self.failures.iter().map(|(_, fault)| *fault).collect()
    }
}

#[test]
fn honest_homes_prove_what_they_told() {
    let mut bed = Bed::new(1);
    for seed in 1..=4 {
        for number in 1..=HOMES {
            bed.attach(number, &Leaf::new(seed));
        }
    }
    bed.run(Duration::from_mins(2));
    let lists = 4 * u64::from(HOMES);
    assert_eq!(bed.audits.stats(), Stats { proven: lists + 8, ..Stats::default() }, "and each chunk once");
    assert!(bed.audits.records.is_empty() && bed.audits.under_way.is_empty() && bed.audits.waiting.is_empty());
}

#[test]
fn liars_of_each_kind_fail_and_are_distrusted() {
    for (lie, fault) in [
        (Lie::Denies, Fault::Denied),
        (Lie::IsSilent, Fault::Silent),
        (Lie::Borrows, Fault::Signature),
        (Lie::PutsOff, Fault::Evading),
        (Lie::KeepsFiles, Fault::Silent),
        (Lie::LeavesOut, Fault::Digest),
    ] {
        let mut bed = Bed::with_liar(lie);
        bed.run(Duration::from_mins(20));
        assert_eq!(bed.faults(), [fault; limits::AUDIT_STRIKES], "{lie:?}");
        assert_eq!(bed.trust, [(home(2), false)]);
        assert_eq!((bed.audits.stats().distrusted, bed.digests.stats().uncovered), (1, 0), "{lie:?}");
        for leaf in (1..=6).map(Leaf::new) {
            assert_eq!(bed.digests.chunk_from(leaf.handle(), &home(2)), None, "nothing is held of a liar");
            let believed: Vec<_> =
                bed.attachments.unsearched(leaf.handle(), None, &[]).map(|(home, _)| *home).collect();
            assert_eq!(believed, [home(1)], "nothing counts as searched there");
        }
    }
}

#[test]
fn who_has_a_leaf_that_nobody_else_has_leaves_it_uncovered_once_it_is_distrusted() {
    let mut bed = Bed::with_liar(Lie::LeavesOut);
    bed.attach(2, &Leaf::new(7));
    bed.run(Duration::from_mins(20));
    assert_eq!(bed.digests.uncovered().collect::<Vec<_>>(), [Leaf::new(7).handle()]);
    assert_eq!(bed.attachments.unsearched(Leaf::new(7).handle(), None, &[]).count(), 1, "it is all that there is");
    // One that repents is believed again after a while.
    bed.home(2).lie = None;
    bed.run(limits::AUDIT_DISTRUST);
    bed.run(Duration::from_mins(1));
    assert_eq!(bed.trust, [(home(2), false), (home(2), true)]);
    assert!(bed.digests.chunk_from(Leaf::new(7).handle(), &home(2)).is_some());
    assert_eq!(bed.digests.uncovered().count(), 0);
    // And one more lie within a day of the others is enough.
    let failed = bed.failures.len();
    bed.home(2).lie = Some(Lie::Denies);
    bed.attach(2, &Leaf::new(9));
    bed.run(Duration::from_mins(1));
    assert_eq!((bed.failures.len() - failed, bed.trust.last()), (1, Some(&(home(2), false))));
}

#[test]
fn a_home_that_failed_once_is_audited_until_it_is_cleared() {
    let mut bed = Bed::with_liar(Lie::LeavesOut);
    bed.all = false;
    bed.run(Duration::from_secs(5));
    bed.home(2).lie = None;
    assert!(bed.audits.records.is_empty());
    let of_liar = (1..=6)
        .map(|seed| Leaf::new(seed).handle())
        .find_map(|handle| bed.digests.chunk_from(handle, &home(2)).map(|chunk| (handle, chunk)));
    let (handle, chunk) = of_liar.expect("half of the digests came from it");
    // All but that one were right.
    for leaf in (1..=6).map(Leaf::new).filter(|leaf| leaf.handle() != handle) {
        bed.change(2, leaf.handle(), None);
    }
    bed.run(Duration::from_secs(5));
    for seed in 20..30 {
        bed.attach(2, &Leaf::new(seed));
    }
    bed.audit(home(2), handle, Some(chunk));
    bed.run(Duration::from_mins(10));
    assert_eq!(bed.faults(), [Fault::Digest]);
    let stats = bed.audits.stats();
    assert!(stats.proven >= u64::from(limits::AUDIT_FOLLOW_UPS), "{stats:?}");
    bed.run(Duration::from_mins(10));
    assert_eq!(bed.audits.stats(), stats, "then it is left alone");
}

#[test]
fn what_goes_whenever_it_must_be_proven_counts_in_the_end() {
    let mut bed = Bed::new(1);
    bed.all = false;
    let leaf = Leaf::new(1);
    bed.attach(2, &leaf);
    bed.run(Duration::from_secs(1));
    for evasion in 1..=u64::from(limits::AUDIT_EVASIONS) {
        assert!(bed.failures.is_empty());
        bed.audit(home(2), leaf.handle(), None);
        while bed.asked.is_empty() {
            bed.run(Duration::from_millis(10));
        }
        bed.unlink(2, false);
        bed.link(2);
        assert_eq!(bed.audits.stats().evaded, evasion);
    }
    assert_eq!(bed.faults(), [Fault::Evading]);
}

#[test]
fn a_list_that_goes_before_it_is_asked_for_is_no_evasion() {
    let mut bed = Bed::new(1);
    bed.attach(1, &Leaf::new(1));
    bed.run(Duration::from_secs(1));
    bed.change(1, Leaf::new(1).handle(), None);
    bed.run(Duration::from_mins(1));
    assert_eq!(bed.audits.stats(), Stats::default());
}

#[test]
fn a_leaf_that_leaves_and_returns_while_it_is_asked_for_harms_nobody() {
    let mut bed = Bed::new(1);
    bed.all = false;
    let leaf = Leaf::new(1);
    bed.attach(1, &leaf);
    bed.run(Duration::from_secs(1));
    bed.audit(home(1), leaf.handle(), None);
    while bed.asked.is_empty() {
        bed.run(Duration::from_millis(10));
    }
    // All of it in a moment in which changes are gathered: without the question nobody would ever hear of it.
    bed.attach(1, &Leaf::new(2));
    bed.asked[0].0 = bed.now + limits::LOG_PAUSE / 4;
    bed.change(1, leaf.handle(), None);
    bed.run(limits::LOG_PAUSE / 2);
    bed.attach(1, &leaf);
    bed.run(Duration::from_mins(1));
    assert_eq!((bed.failures.len(), bed.audits.stats().evaded), (0, 1));
    assert!(bed.attachments.is_home(&home(1), leaf.handle()));
}

#[test]
fn a_part_of_all_is_drawn_and_a_larger_one_of_what_suspects_tell() {
    let mut bed = Bed::new(1);
    let mut drawn = |audits: &mut Audits, digest: bool| {
        let mut count = 0;
        for handle in 0..20_000 {
            let mut cx = Context::new(Time(1), &mut bed.rng);
            if digest {
                audits.held(&mut cx, home(1), DigestName { handle, chunk: ChunkName(1) });
            } else {
                audits.listed(&mut cx, home(1), handle);
            }
            count += std::mem::take(&mut audits.waiting).len();
        }
        count
    };
    let mut audits = Audits::default();
    assert!((60..140).contains(&drawn(&mut audits, false)), "one in 200");
    assert!((20..65).contains(&drawn(&mut audits, true)), "one in 500");
    audits.records.insert(home(1), Record { failed: vec![Time(1)], ..Record::default() });
    assert!((4_000..6_000).contains(&drawn(&mut audits, true)), "one in 4");
    audits.records.insert(home(1), Record { distrusted_until: Some(Time(2)), ..Record::default() });
    assert_eq!(drawn(&mut audits, false), 0, "nothing is asked of who is not believed");
}

#[test]
fn what_waits_and_what_is_remembered_is_bounded() {
    let mut audits = Audits::default();
    for home in 0..100 {
        for handle in 0..100 {
            audits.wait(Time(1), Subject { home: PeerId([home; 32]), handle, chunk: None });
        }
    }
    assert_eq!(audits.waiting.len(), limits::AUDITS_WAITING);
    assert_eq!(
        audits.waiting.iter().filter(|(_, subject)| subject.home == home(0)).count(),
        limits::AUDITS_WAITING_OF_HOME
    );

    let peer = |number: usize| {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        PeerId(key)
    };
    let mut out = Outbox::new();
    for number in 0..limits::AUDIT_RECORDS + 10 {
        let subject = Subject { home: peer(number), handle: 1, chunk: None };
        audits.failed(Time(number as u64), subject, Fault::Silent, &mut out);
    }
    assert_eq!(audits.records.len(), limits::AUDIT_RECORDS);
    assert!(!audits.records.contains_key(&peer(9)) && audits.records.contains_key(&peer(10)), "the oldest go first");
}

#[test]
fn a_proof_is_wrong_in_each_way_that_it_can_be() {
    let (leaf, other) = (Leaf::new(1), Leaf::new(2));
    let chunks = leaf.chunks();
    let digest = |files: &[FileEntry]| DigestSum::of(&Segment::build(files).unwrap());
    let encoded = |files: &[FileEntry]| Packed::of(&batch::encode_chunk(files)).unwrap();
    let name = ChunkName::of(&leaf.hashes()[0]);
    let Packed { bytes, parts } = encoded(&chunks[0]);
    let case = Case {
        number: 1,
        home: home(1),
        handle: leaf.handle(),
        list: Arc::new(leaf.list()),
        chunk: Some((name, digest(&chunks[0]))),
        proof: leaf.proof(home(1)),
        bytes,
        parts,
    };
    let list = |list: LeafList| Case { list: Arc::new(list), ..case.clone() };
    let proof = |change: &dyn Fn(&mut ListProof)| {
        let mut wrong = case.clone();
        change(&mut wrong.proof);
        wrong
    };
    assert_eq!(check(&case), Ok(()));
    assert_eq!(check(&Case { chunk: None, bytes: 0, parts: Parts::new(), ..case.clone() }), Ok(()));
    let fewer = LeafList { chunks: [name].into(), ..leaf.list() };
    assert_eq!(check(&list(fewer)), Ok(()), "a home may take fewer chunks of a leaf than it has");

    // Another leaf's key does not make the handle, even if that leaf signs the same list.
    let stolen = ListProof { salt: leaf.salt(), chunks: leaf.proof(home(1)).chunks, ..other.proof(home(1)) };
    assert_eq!(check(&proof(&|proof| *proof = stolen.clone())), Err(Fault::Handle));
    assert_eq!(check(&Case { handle: 7, ..case.clone() }), Err(Fault::Handle));
    assert_eq!(check(&list(LeafList { place: leaf.list().place ^ 1, ..leaf.list() })), Err(Fault::Place));
    assert_eq!(check(&Case { home: home(2), ..case.clone() }), Err(Fault::Signature), "signed for another home");
    assert_eq!(check(&proof(&|proof| proof.signed = other.proof(home(1)).signed)), Err(Fault::Signature));
    assert_eq!(check(&list(LeafList { sequence: 2, ..leaf.list() })), Err(Fault::List));
    assert_eq!(check(&proof(&|proof| proof.chunks = List::new(other.hashes()))), Err(Fault::List));
    assert_eq!(check(&list(LeafList { chunks: other.list().chunks, ..leaf.list() })), Err(Fault::List));
    let Packed { bytes, parts } = encoded(&chunks[1]);
    assert_eq!(check(&Case { bytes, parts, ..case.clone() }), Err(Fault::Files), "another chunk of the list");
    assert_eq!(check(&Case { bytes: 0, parts: Parts::new(), ..case.clone() }), Err(Fault::Files));
    assert_eq!(check(&Case { bytes: bytes + 1, ..case.clone() }), Err(Fault::Files));
    let words = Some((name, digest(&other.chunks()[0])));
    assert_eq!(check(&Case { chunk: words, ..case.clone() }), Err(Fault::Digest));
}

/// What can happen to honest homes.
#[derive(Clone, Debug)]
enum Op {
    /// A leaf comes to a home with its newest list.
    Attach(u8, u8),
    /// It leaves.
    Leave(u8, u8),
    /// It leaves and returns at once, before anybody is told.
    Flap(u8, u8),
    /// It has another list, which its homes get one after the other.
    Change(u8),
    /// The link to a home ends and comes back.
    Bounce(u8),
    /// A home restarts: its leaves have left.
    Restart(u8),
    /// Time passes, in milliseconds.
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let (home, leaf) = (1..=HOMES, 1_u8..8);
    prop_oneof![
        4 => (home.clone(), leaf.clone()).prop_map(|(home, leaf)| Op::Attach(home, leaf)),
        2 => (home.clone(), leaf.clone()).prop_map(|(home, leaf)| Op::Leave(home, leaf)),
        2 => (home.clone(), leaf.clone()).prop_map(|(home, leaf)| Op::Flap(home, leaf)),
        4 => leaf.prop_map(Op::Change),
        1 => home.clone().prop_map(Op::Bounce),
        1 => home.prop_map(Op::Restart),
        8 => (1_u64..4_000).prop_map(Op::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Everything is audited, always while something changes: no honest home ever fails.
    #[test]
    fn honest_homes_never_fail(seed: u64, ops in prop::collection::vec(op(), 1..200)) {
        let mut bed = Bed::new(seed);
        let mut leaves: Vec<_> = (0..8).map(Leaf::new).collect();
        for op in ops {
            match op {
                Op::Attach(number, leaf) => bed.attach(number, &leaves[usize::from(leaf)]),
                Op::Leave(number, leaf) => bed.change(number, leaves[usize::from(leaf)].handle(), None),
                Op::Flap(number, leaf) => {
                    let handle = leaves[usize::from(leaf)].handle();
                    if let Some(leaf) = bed.home(number).leaves.get(&handle).cloned() {
                        bed.change(number, handle, None);
                        let after = bed.delay() / 4;
                        bed.run(after);
                        bed.change(number, handle, Some(leaf));
                    }
                }
                Op::Change(leaf) => {
                    let leaf = &mut leaves[usize::from(leaf)];
                    leaf.sequence += 1;
                    leaf.words[0] = format!("word{}of{}", leaf.sequence, leaf.seed);
                    for number in 1..=HOMES {
                        if bed.home(number).leaves.contains_key(&leaf.handle()) {
                            bed.attach(number, leaf);
                        }
                    }
                }
                Op::Bounce(number) => {
                    bed.unlink(number, false);
                    bed.run(Duration::from_millis(500));
                    bed.link(number);
                }
                Op::Restart(number) => {
                    bed.unlink(number, true);
                    let home = bed.home(number);
                    (home.log, home.leaves) = (Attachments::new(home.peer), BTreeMap::new());
                    bed.run(Duration::from_secs(1));
                    bed.link(number);
                }
                Op::Pass(span) => bed.run(Duration::from_millis(span)),
            }
            prop_assert!(bed.failures.is_empty(), "{:?}", bed.failures);
        }
        // When nothing changes any more, all that is asked for is proven.
        bed.run(Duration::from_mins(3));
        let evaded = bed.audits.stats().evaded;
        for (number, leaf) in (1..=HOMES).flat_map(|number| (0..8).map(move |leaf| (number, leaf))) {
            bed.audit(home(number), leaves[leaf].handle(), None);
        }
        bed.run(Duration::from_mins(3));
        prop_assert_eq!((bed.audits.stats().evaded, bed.failures.len()), (evaded, 0));
        prop_assert!(bed.audits.under_way.is_empty() && bed.audits.waiting.is_empty());
    }
}
