//! Digests by script: what homes log and send, and what is searchable.

use std::{collections::BTreeMap, time::Duration};

use overlay::{
    batch,
    file::{FileEntry, Tags},
    id::ContentId,
    query::Query,
    wire::{
        bounded::List,
        mesh::{AttachedList, AttachmentChange, Attachments as Frame},
    },
};

use super::*;
use crate::{
    attachments::LeafList,
    index::{Index, Segment},
};

fn peer(byte: u8) -> PeerId {
    PeerId([byte; 32])
}

/// A chunk of one file, named by the number of its word.
fn segment(word: u64) -> Segment {
    let file = FileEntry {
        path: format!("share/word{word}.txt"),
        content: ContentId([1; 32]),
        size: 1,
        modified_s: 0,
        tags: Tags::default(),
    };
    Segment::build(&[file]).expect("a good chunk")
}

struct Bed {
    attachments: Attachments,
    digests: Digests,
    index: Index,
    now: Time,
    /// What each home was asked for and has not sent.
    wanted: BTreeMap<PeerId, Vec<DigestName>>,
}

impl Bed {
    fn new() -> Self {
        Self::with_budget(1 << 20)
    }

    fn with_budget(budget: u64) -> Self {
        Self {
            attachments: Attachments::new(peer(0)),
            digests: Digests::new(peer(0), budget),
            index: Index::new(),
            now: Time(1),
            wanted: BTreeMap::new(),
        }
    }

    fn step(&mut self, act: impl FnOnce(&mut Digests, &Attachments, &mut Outbox<Output>)) {
        let mut out = Outbox::new();
        act(&mut self.digests, &self.attachments, &mut out);
        for output in out.drain() {
            match output {
                Output::Want(home, want) => self.wanted.entry(home).or_default().extend(want.digests),
                Output::Build(name, bytes, parts) => {
                    let digest = batch::join(parts.iter().map(|part| &part[..]), bytes as usize, usize::MAX);
                    let segment = digest.ok().and_then(|digest| Segment::from_digest(&digest).ok()).map(Arc::new);
                    let now = self.now;
                    let mut out = Outbox::new();
                    let unpacked = segment.map(|segment| {
                        let sum = DigestSum::of(&segment);
                        (segment, sum)
                    });
                    self.digests.built(now, name, unpacked, &self.attachments, &mut out);
                    self.carry_out(&mut out);
                }
                other => self.carry_out(&mut Outbox::from_iter([other])),
            }
        }
    }

    fn carry_out(&mut self, out: &mut Outbox<Output>) {
        for output in out.drain() {
            match output {
                Output::Insert(name, slot, segment) => {
                    let place = self.index.add(slot, segment);
                    self.digests.placed(name, place);
                }
                Output::Remove(place) | Output::Expire(place) => self.index.remove(place),
                Output::Want(home, want) => self.wanted.entry(home).or_default().extend(want.digests),
                Output::Build(..) => panic!("built before"),
            }
        }
    }

    /// A home logs the list of a leaf; none: the leaf left it.
    fn log(&mut self, home: u8, handle: u64, list: Option<(u64, &[u64])>) {
        let names = |chunks: &[u64]| chunks.iter().copied().map(ChunkName).collect::<Vec<_>>();
        if home == 0 {
            let list =
                list.map(|(sequence, chunks)| (0, LeafList { sequence, place: 0, chunks: names(chunks).into() }));
            self.attachments.own_change(self.now, handle, list);
        } else {
            let list =
                list.map(|(sequence, chunks)| AttachedList { sequence, place: 0, chunks: List::new(names(chunks)) });
            self.attachments.following(self.now, peer(home));
            let changes = List::new([AttachmentChange { handle, list }]);
            self.attachments.heard(peer(home), Frame { reset: false, caught_up: None, changes });
        }
        let now = self.now;
        self.step(|digests, attachments, out| digests.update(now, handle, attachments, out));
    }

    /// A home sends what it was asked for.
    fn send(&mut self, home: u8) {
        while let Some(name) = self.wanted.get_mut(&peer(home)).and_then(Vec::pop) {
            let digest = segment(name.chunk.0).digest();
            self.send_bytes(home, name, &digest, digest.len() as u32);
        }
    }

    fn send_bytes(&mut self, home: u8, name: DigestName, digest: &[u8], bytes: u32) {
        let data = batch::cut(digest).next().and_then(Result::ok).and_then(Blob::new).expect("one part");
        let (now, part) = (self.now, DigestPart { name, bytes, last: true, data });
        self.step(|digests, attachments, out| digests.part(now, peer(home), part, attachments, out));
    }

    fn publish(&mut self) {
        self.index.publish();
        self.digests.published();
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
        let now = self.now;
        self.step(|digests, attachments, out| digests.on_deadline(now, attachments, out));
    }

    fn uncovered(&self) -> Vec<u64> {
        self.digests.uncovered().collect()
    }

    fn wanted_of(&self, home: u8) -> usize {
        self.wanted.get(&peer(home)).map_or(0, Vec::len)
    }

    /// Handles of the leaves whose digests have that word.
    fn with_word(&self, word: u64) -> Vec<u64> {
        let query = Query::parse(&format!("word{word}")).expect("a good query");
        let lookup = self.index.reader().snapshot().lookup(&query, 0, 100, u64::MAX);
        lookup.candidates.iter().filter_map(|slot| self.digests.handle(*slot)).collect()
    }
}

#[test]
fn a_leaf_is_uncovered_until_all_of_its_list_is_searchable() {
    let mut bed = Bed::new();
    bed.log(1, 7, Some((1, &[10, 11])));
    assert_eq!((bed.uncovered(), bed.wanted_of(1)), (vec![7], 2));
    bed.send(1);
    assert_eq!(bed.uncovered(), [7], "searches do not see it yet");
    bed.publish();
    assert_eq!((bed.uncovered(), bed.with_word(10), bed.with_word(11)), (vec![], vec![7], vec![7]));
    // A second home with the same list changes nothing.
    bed.log(2, 7, Some((1, &[10, 11])));
    assert_eq!((bed.uncovered(), bed.wanted_of(2)), (vec![], 0));
    // A new list: only what it has more is fetched.
    bed.log(2, 7, Some((2, &[11, 12])));
    assert_eq!((bed.uncovered(), bed.wanted_of(2)), (vec![7], 1));
    bed.send(2);
    bed.publish();
    assert_eq!((bed.uncovered(), bed.with_word(10), bed.with_word(12)), (vec![], vec![7], vec![7]));
    // Until all homes have it, the old list counts as well: the new one may be a lie.
    bed.log(1, 7, Some((2, &[11, 12])));
    bed.publish();
    assert_eq!((bed.uncovered(), bed.with_word(10), bed.with_word(12)), (vec![], vec![], vec![7]));
}

#[test]
fn leaves_whose_newest_list_is_here_need_no_digest() {
    let mut bed = Bed::new();
    bed.log(0, 7, Some((2, &[10])));
    bed.log(1, 7, Some((1, &[9])));
    assert_eq!((bed.uncovered(), bed.wanted_of(1)), (vec![], 0));
    bed.log(1, 7, Some((3, &[10, 11])));
    assert_eq!((bed.uncovered(), bed.wanted_of(1)), (vec![7], 2));
    bed.send(1);
    bed.log(0, 7, Some((3, &[10, 11])));
    bed.publish();
    assert_eq!((bed.uncovered(), bed.with_word(10), bed.digests.stats().leaves), (vec![], vec![], 0));
}

#[test]
fn leaves_that_left_before_their_digests_came_leave_nothing_behind() {
    let mut bed = Bed::new();
    for handle in 0..100 {
        bed.log(1, handle, Some((1, &[10, 11])));
        assert_eq!(bed.digests.stats().leaves, 1);
        bed.log(1, handle, None);
    }
    assert_eq!((bed.digests.stats().leaves, bed.uncovered(), bed.digests.next_deadline()), (0, vec![], None));
}

#[test]
fn what_one_home_does_not_send_the_next_does() {
    let mut bed = Bed::new();
    bed.log(1, 7, Some((1, &[10])));
    bed.log(2, 7, Some((1, &[10])));
    bed.wait(limits::DIGEST_PATIENCE);
    assert_eq!(bed.wanted_of(2), 1, "the first is silent");
    let name = DigestName { handle: 7, chunk: ChunkName(10) };
    bed.send_bytes(2, name, b"no digest", 9);
    assert_eq!((bed.uncovered(), bed.digests.stats().failed), (vec![7], 2));
    bed.wanted.clear();
    bed.wait(limits::DIGEST_RETRY);
    assert_eq!(bed.wanted_of(1) + bed.wanted_of(2), 1, "both are tried again");
    bed.send(1);
    bed.send(2);
    bed.publish();
    assert_eq!(bed.uncovered(), [0; 0]);
}

#[test]
fn a_lost_home_leaves_its_digests_and_others_send_the_rest() {
    let mut bed = Bed::new();
    bed.log(1, 7, Some((1, &[10])));
    bed.log(2, 7, Some((1, &[10])));
    bed.log(1, 8, Some((1, &[11])));
    assert_eq!(bed.wanted_of(1), 2);
    let now = bed.now;
    bed.step(|digests, attachments, out| digests.lost(now, &peer(1), attachments, out));
    assert_eq!((bed.wanted_of(2), bed.uncovered()), (1, vec![7, 8]), "of 8 only the lost home has it");
    bed.send(1);
    bed.publish();
    assert_eq!(bed.uncovered(), [7, 8], "what it sends now was not asked for any more");
    bed.send(2);
    bed.publish();
    assert_eq!((bed.uncovered(), bed.with_word(10)), (vec![8], vec![7]));
}

#[test]
fn a_leaf_that_is_nowhere_is_kept_for_a_while_and_found_no_more() {
    let mut bed = Bed::new();
    bed.log(1, 7, Some((1, &[10, 11])));
    bed.send(1);
    bed.publish();
    bed.log(1, 7, None);
    assert_eq!((bed.uncovered(), bed.attachments.leaves()), (vec![], 0));
    bed.log(2, 7, Some((1, &[10, 11])));
    assert_eq!((bed.uncovered(), bed.wanted_of(2)), (vec![], 0), "nothing is sent again");
    bed.log(2, 7, None);
    bed.wait(limits::DIGEST_KEPT);
    bed.publish();
    assert_eq!((bed.with_word(10), bed.digests.stats(), bed.index.stats().segments), (vec![], Stats::default(), 0));
}

#[test]
fn one_home_does_not_fill_the_memory() {
    let size = segment(1).digest().len() as u64;
    let mut bed = Bed::with_budget(limits::DIGEST_SHARE * size * 3);
    for home in 1..=3 {
        bed.log(home, u64::from(home), Some((1, &[1])));
        bed.send(home);
    }
    for handle in 100..200 {
        bed.log(3, handle, Some((1, &[2])));
        bed.send(3);
    }
    bed.publish();
    let stats = bed.digests.stats();
    assert!((3..=16).contains(&stats.leaves.abs_diff(stats.uncovered)), "{stats:?}");
    assert_eq!(bed.uncovered().len(), stats.uncovered, "the others are asked for in any case");
}

#[test]
fn a_home_is_asked_for_a_few_at_a_time() {
    let mut bed = Bed::new();
    for handle in 0..100 {
        bed.log(1, handle, Some((1, &[handle])));
    }
    assert_eq!(bed.wanted_of(1), limits::DIGESTS_ASKED);
    bed.send(1);
    bed.publish();
    assert_eq!((bed.uncovered().len(), bed.digests.stats().leaves), (0, 100));
}
