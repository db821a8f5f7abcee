//! Searches by script: what homes say, when, and what the asker gets.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{
    bans::Target as Banned,
    wire::{
        bounded::{List, Text},
        descriptor::ShardPrefix,
        leaf::LeafMessage,
        mesh::{AttachedList, AttachmentChange, Attachments as Frame, Query, Scope, ToldHolder},
        search::{HitPeer, Hits, Holder, Incomplete, Reachability},
    },
};

use super::{merged::Merged, neighbours::Neighbour, *};
use crate::{attachments::LeafList, index::rank::availability};

fn peer(byte: u8) -> PeerId {
    PeerId([byte; 32])
}

fn hit(content: u8, leaves: &[u64], home: u8) -> Hit {
    let peers = leaves.iter().map(|leaf| HitPeer {
        peer: peer(100 + *leaf as u8),
        homes: List::new([peer(home)]),
        reachability: Reachability::Unknown,
        free_slots: 1,
        queue: 0,
    });
    Hit {
        content: ContentId([content; 32]),
        size: 1,
        score: 1,
        names: List::new([Text::new("name")]),
        path: Text::new("share/name"),
        modified_s: 0,
        tags: overlay::file::Tags::default(),
        sources: leaves.len() as u32,
        networks: leaves.len() as u32,
        peers: List::new(peers),
        holders: List::new(leaves.iter().map(|leaf| Holder { handle: *leaf, name: Some(0) })),
    }
}

/// A leaf of whose contents nothing is known.
fn candidate(handle: u64) -> Candidate {
    listed(handle, &[])
}

/// A leaf with these contents.
fn listed(handle: u64, contents: &[u8]) -> Candidate {
    Candidate { handle, contents: contents.iter().map(|content| ContentKey([*content; 8])).collect() }
}

fn log(homes: &[(u8, &[u64])]) -> Attachments {
    let mut log = Attachments::new(peer(0));
    for (home, leaves) in homes {
        if *home == 0 {
            for handle in *leaves {
                let list = LeafList { sequence: 1, place: 0, chunks: Box::default() };
                log.own_change(Time::ZERO, *handle, Some((0, list)));
            }
            continue;
        }
        let list = AttachedList { sequence: 1, place: 0, chunks: List::default() };
        let changes = leaves.iter().map(|handle| AttachmentChange { handle: *handle, list: Some(list.clone()) });
        log.following(Time::ZERO, peer(*home));
        log.heard(peer(*home), Frame { reset: true, caught_up: None, changes: List::new(changes) });
    }
    log
}

struct Bed {
    log: Attachments,
    neighbours: Neighbours,
    bans: Rules,
    searches: Searches,
    now: Time,
    hits: BTreeMap<ContentId, Hit>,
    /// What another ultrapeer that asked was told of what it knew.
    known: Vec<(ContentKey, u32)>,
    /// Queries, oldest first, with whom they went to.
    queries: Vec<(PeerId, Query)>,
    called_off: Vec<PeerId>,
    summary: Option<Summary>,
    /// What another ultrapeer that asked was told.
    report: Option<QueryDone>,
}

impl Bed {
    /// Homes 1 to 9 have these leaves; all cover everything.
    fn new(homes: &[(u8, &[u64])]) -> Self {
        let mut neighbours = Neighbours::new(ShardPrefix::ALL);
        for (home, _) in homes.iter().filter(|(home, _)| *home != 0) {
            neighbours.set(peer(*home), Some(Neighbour { prefix: ShardPrefix::ALL, is_usable: true }));
        }
        Self {
            log: log(homes),
            neighbours,
            bans: Rules::default(),
            searches: Searches::default(),
            now: Time(1),
            hits: BTreeMap::new(),
            known: Vec::new(),
            queries: Vec::new(),
            called_off: Vec::new(),
            summary: None,
            report: None,
        }
    }

    /// Covers `own` in a network of members of other parts.
    fn sharded(own: &str, members: &[(u8, &str)]) -> Self {
        let mut bed = Self::new(&[]);
        bed.neighbours.set_own(own.parse().expect("a prefix"));
        for (member, prefix) in members {
            let prefix = prefix.parse().expect("a prefix");
            bed.neighbours.set(peer(*member), Some(Neighbour { prefix, is_usable: true }));
        }
        bed
    }

    fn step(&mut self, act: impl FnOnce(&mut Searches, Environment<'_>, &mut Outbox<Output>)) {
        let mut out = Outbox::new();
        let environment = Environment {
            now: self.now,
            attachments: &self.log,
            neighbours: &self.neighbours,
            ultrapeers: 4,
            bans: &self.bans,
        };
        act(&mut self.searches, environment, &mut out);
        for output in out.drain() {
            match output {
                Output::ToMesh(peer, MeshMessage::Query(query)) => self.queries.push((peer, query)),
                Output::ToMesh(peer, MeshMessage::QueryCancel(_)) => self.called_off.push(peer),
                Output::ToMesh(_, MeshMessage::QueryDone(done)) => {
                    assert!(self.report.replace(done).is_none(), "one report");
                }
                Output::ToMesh(_, MeshMessage::QueryHits(frame)) => {
                    self.known.extend(frame.known.iter().map(|known| (known.key, known.sources)));
                    self.hits.extend(frame.hits.into_iter().map(|hit| (hit.content, hit)));
                }
                Output::ToAsker(_, LeafMessage::Hits(Hits { hits })) => {
                    self.hits.extend(hits.into_iter().map(|hit| (hit.content, hit)));
                }
                Output::ToAsker(_, LeafMessage::Summary(summary)) => {
                    assert!(self.summary.replace(summary).is_none(), "one summary");
                }
                Output::ToAsker(..) | Output::ToMesh(..) => {}
            }
        }
    }

    /// Begins a search of which the own index says so much. All leaves that are attached elsewhere alone are
    /// candidates.
    fn start(&mut self, search: Search, answer: Answer) {
        let elsewhere = |handle: &u64| self.log.homes(*handle).iter().all(|(home, _)| *home != peer(0));
        let mut candidates: Vec<_> = self.log.handles().filter(elsewhere).collect();
        candidates.sort_unstable();
        let candidates = candidates.into_iter().map(candidate).collect();
        self.begin(search, Answer { candidates, ..answer });
    }

    /// Begins a search of which the own index says so much.
    fn begin(&mut self, search: Search, answer: Answer) {
        let answer = Answer { matches: answer.candidates.len() + answer.hits.len(), ..answer };
        let wanted = Wanted::of(search, self.neighbours.own(), self.now);
        self.step(|searches, environment, out| {
            searches.start(environment, Asker::Leaf(1), 9, wanted, answer, out);
        });
    }

    fn asked(&self) -> Vec<PeerId> {
        self.queries.iter().map(|(peer, _)| *peer).collect()
    }

    /// The name under which that ultrapeer was asked last.
    fn id(&self, from: u8) -> QueryId {
        let query = self.queries.iter().rfind(|(asked, _)| *asked == peer(from));
        query.expect("it was asked").1.id
    }

    fn answer(&mut self, from: u8, hits: Vec<Hit>) {
        self.end(from, hits, QueryDone::default());
    }

    fn end(&mut self, from: u8, hits: Vec<Hit>, done: QueryDone) {
        let id = self.id(from);
        self.step(|searches, environment, out| {
            let told = QueryHits { id, hits: List::new(hits), known: List::default() };
            searches.hits(environment, peer(from), told, out);
            searches.done(environment, peer(from), QueryDone { id, ..done }, out);
        });
    }

    fn lose(&mut self, lost: u8) {
        let prefix = self.neighbours.get(&peer(lost)).expect("a member").prefix;
        self.neighbours.set(peer(lost), Some(Neighbour { prefix, is_usable: false }));
        self.step(|searches, environment, out| searches.unlinked(environment, peer(lost), out));
    }

    fn wait(&mut self, span: std::time::Duration) {
        self.now += span;
        self.step(Searches::on_deadline);
    }

    fn summary(&self) -> &Summary {
        self.summary.as_ref().expect("the search has ended")
    }

    fn reasons(&self) -> Vec<Incomplete> {
        // Copies that were never completed are behind in all of these networks.
        self.summary().incomplete.iter().filter(|reason| *reason != Incomplete::DigestLag).collect()
    }
}

fn search(limit: u32, all: bool) -> Search {
    Search { id: QueryId(1), target: Target::Query(Text::new("x")), limit, timeout_ms: 10_000, all }
}

fn with(hits: Vec<Hit>) -> Answer {
    Answer { hits, ..Answer::default() }
}

#[test]
fn when_all_leaves_are_here_nobody_else_is_asked() {
    let mut bed = Bed::new(&[(0, &[1, 2]), (1, &[1]), (2, &[2])]);
    bed.start(search(60, false), with(vec![hit(7, &[1, 2], 0)]));
    let summary = bed.summary();
    assert_eq!(summary.stopped, StopReason::Exhausted);
    assert!(bed.reasons().is_empty());
    assert_eq!((summary.ultrapeers_asked, summary.messages, summary.leaves_covered), (1, 0, 2));
}

#[test]
fn homes_are_asked_for_the_leaves_that_may_match_and_no_others() {
    let mut bed = Bed::new(&[(0, &[1]), (1, &[1, 2, 3]), (2, &[3, 4]), (3, &[5])]);
    bed.start(search(60, false), with(vec![]));
    let scopes: Vec<_> = bed.queries.iter().map(|(peer, query)| (*peer, query.scope.clone())).collect();
    let leaves = |handles: &[u64]| Scope::Leaves(List::new(handles.iter().copied()));
    assert_eq!(scopes, [(peer(1), leaves(&[2, 3])), (peer(2), leaves(&[4])), (peer(3), leaves(&[5]))]);
    for home in 1..=3 {
        bed.answer(home, vec![]);
    }
    assert_eq!((bed.summary().messages, bed.summary().leaves_covered, bed.reasons().len()), (3, 5, 0));
}

#[test]
fn a_leaf_known_to_two_homes_counts_once() {
    let mut bed = Bed::new(&[(0, &[1]), (1, &[1, 2])]);
    bed.start(search(60, false), with(vec![hit(7, &[1], 0)]));
    bed.answer(1, vec![hit(7, &[1, 2], 1)]);
    let hit = &bed.hits[&ContentId([7; 32])];
    assert_eq!(hit.sources, 2);
    assert!(hit.holders.is_empty(), "handles stay among ultrapeers");
    assert_eq!(hit.peers.iter().find(|peer| peer.peer == self::peer(101)).map(|peer| peer.homes.len()), Some(2));
}

#[test]
fn a_silent_home_is_replaced_by_the_next() {
    let mut bed = Bed::new(&[(1, &[1]), (2, &[1])]);
    bed.start(search(60, false), with(vec![]));
    assert_eq!(bed.asked(), [peer(1)]);
    bed.wait(limits::FORWARD_PATIENCE);
    assert_eq!(bed.asked(), [peer(1), peer(2)]);
    bed.answer(2, vec![hit(7, &[1], 2)]);
    assert_eq!((bed.summary().stopped, bed.reasons().len()), (StopReason::Exhausted, 0));
    assert_eq!(bed.called_off, [peer(1)], "who is still at it need not be");
}

#[test]
fn homes_that_have_another_list_of_a_leaf_are_asked_as_well() {
    let mut bed = Bed::new(&[(1, &[1]), (2, &[1]), (3, &[1])]);
    // One home claims to have a newer list, and finds nothing in it.
    let list = AttachedList { sequence: u64::MAX, place: 0, chunks: List::default() };
    let changes = List::new([AttachmentChange { handle: 1, list: Some(list) }]);
    bed.log.heard(peer(3), Frame { reset: false, caught_up: None, changes });
    bed.start(search(60, false), with(vec![]));
    assert_eq!(bed.asked(), [peer(3)]);
    bed.answer(3, vec![]);
    assert_eq!(bed.asked(), [peer(3), peer(1)]);
    bed.answer(1, vec![hit(7, &[1], 1)]);
    assert_eq!((bed.hits.len(), bed.summary().stopped, bed.reasons().len()), (1, StopReason::Exhausted, 0));
    assert_eq!(bed.asked().len(), 2, "the third has the same list as the second");
}

#[test]
fn what_is_blocked_here_is_not_given_but_counted_once() {
    let mut bed = Bed::new(&[(1, &[1]), (2, &[2]), (3, &[3])]);
    let blocked = [7, 8].map(|byte| ContentId([byte; 32]));
    bed.bans = Rules::new(blocked.map(Banned::Content));
    let answer = Answer { withheld: BTreeSet::from([blocked[0]]), ..with(vec![hit(6, &[4], 0)]) };
    bed.start(search(60, false), answer);
    bed.answer(1, vec![hit(7, &[1], 1), hit(9, &[1], 1)]);
    bed.answer(2, vec![hit(8, &[2], 2)]);
    // Another holds back something as well.
    bed.end(3, vec![hit(8, &[3], 3)], QueryDone { withheld: 2, ..QueryDone::default() });
    assert_eq!(bed.hits.keys().map(|content| content.0[0]).collect::<Vec<_>>(), [6, 9]);
    assert_eq!(bed.summary().withheld, 4);
    assert_eq!((bed.summary().stopped, bed.reasons().len()), (StopReason::Exhausted, 0), "it is complete");
}

#[test]
fn nobody_is_sent_to_a_banned_leaf() {
    let mut bed = Bed::new(&[(1, &[1]), (2, &[2]), (3, &[3])]);
    bed.bans = Rules::new([Banned::Peer(peer(101))]);
    bed.start(search(60, false), with(vec![]));
    bed.answer(1, vec![hit(7, &[1], 1), hit(8, &[1], 1)]);
    bed.answer(2, vec![hit(8, &[2], 2)]);
    bed.answer(3, vec![]);
    let sources = |hit: &Hit| hit.peers.iter().map(|source| source.peer).collect::<Vec<_>>();
    let given: Vec<_> = bed.hits.values().map(|hit| (hit.content.0[0], sources(hit))).collect();
    assert_eq!(given, [(8, vec![peer(102)])], "one has another source, which is found later");
    assert_eq!((bed.summary().withheld, bed.reasons().len()), (1, 0));
}

#[test]
fn what_a_distrusted_home_finds_is_shown_and_proves_nothing() {
    let mut bed = Bed::new(&[(1, &[1, 2]), (2, &[1]), (3, &[3])]);
    bed.log.set_distrusted(peer(1), true);
    bed.start(search(60, false), with(vec![]));
    assert_eq!(bed.asked(), [peer(1), peer(2), peer(3)]);
    let leaves = |from: usize| bed.queries[from].1.scope.clone();
    assert_eq!((leaves(0), leaves(1)), (Scope::Leaves(List::new([2])), Scope::Leaves(List::new([1]))));
    bed.answer(2, vec![]);
    bed.answer(3, vec![]);
    bed.answer(1, vec![hit(7, &[2], 1)]);
    assert_eq!(
        (bed.hits.len(), bed.summary().stopped, bed.reasons()),
        (1, StopReason::Exhausted, vec![Incomplete::HomeSilent])
    );
    assert_eq!((bed.summary().leaves_covered, bed.summary().leaves_total), (2, 3));
}

#[test]
fn what_a_distrusted_home_tells_is_not_known_yet() {
    for (is_distrusted, reasons) in [(false, 0), (true, 1)] {
        let mut bed = Bed::new(&[(1, &[101]), (2, &[102]), (3, &[101])]);
        let candidates = vec![candidate(101), listed(102, &[1])];
        bed.begin(search(60, false), Answer { candidates, ..with(vec![]) });
        bed.log.set_distrusted(peer(1), is_distrusted);
        bed.answer(1, vec![hit(1, &[101], 1)]);
        if is_distrusted {
            bed.answer(3, vec![]);
        }
        // The home of the other is silent.
        for _ in 0..2 {
            if bed.summary.is_none() {
                bed.wait(limits::FORWARD_PATIENCE_MAX.max(limits::ANSWER_PATIENCE));
            }
        }
        assert_eq!((bed.reasons().len(), bed.hits.len()), (reasons, 1));
    }
}

#[test]
fn a_home_that_comes_to_be_distrusted_during_a_search_is_followed_by_the_next() {
    let mut bed = Bed::new(&[(1, &[1]), (2, &[1])]);
    bed.start(search(60, false), with(vec![]));
    assert_eq!(bed.asked(), [peer(1)]);
    bed.log.set_distrusted(peer(1), true);
    bed.answer(1, vec![]);
    assert_eq!(bed.asked(), [peer(1), peer(2)]);
    bed.answer(2, vec![hit(7, &[1], 2)]);
    assert_eq!((bed.hits.len(), bed.summary().stopped, bed.reasons().len()), (1, StopReason::Exhausted, 0));
}

#[test]
fn a_home_that_was_asked_before_is_asked_again_for_the_leaves_of_a_silent_one() {
    let mut bed = Bed::new(&[(1, &[1, 2]), (2, &[2, 3])]);
    bed.start(search(60, false), with(vec![]));
    assert_eq!(bed.asked(), [peer(1), peer(2)]);
    bed.answer(2, vec![]);
    bed.wait(limits::FORWARD_PATIENCE);
    assert_eq!(bed.asked(), [peer(1), peer(2), peer(2)]);
    assert_eq!(bed.queries[2].1.scope, Scope::Leaves(List::new([2])));
    bed.answer(2, vec![]);
    assert!(bed.summary.is_none(), "leaf 1 has only the silent home");
    bed.answer(1, vec![hit(7, &[1], 1)]);
    assert_eq!((bed.hits.len(), bed.reasons().len()), (1, 0), "late is not too late");
}

#[test]
fn a_home_that_stays_silent_is_given_up_soon() {
    let mut bed = Bed::new(&[(1, &[1])]);
    bed.start(search(60, false), with(vec![]));
    bed.wait(limits::FORWARD_PATIENCE);
    assert!(bed.summary.is_none());
    bed.wait(limits::ANSWER_PATIENCE);
    assert_eq!((bed.summary().stopped, bed.reasons()), (StopReason::Exhausted, vec![Incomplete::HomeSilent]));
    assert_eq!((bed.summary().leaves_covered, bed.summary().leaves_total), (0, 1));
}

#[test]
fn time_runs_out_while_hits_still_come() {
    let mut bed = Bed::new(&[(1, &[1])]);
    bed.start(Search { timeout_ms: 1_000, ..search(60, false) }, with(vec![]));
    let id = bed.id(1);
    for content in 0..20 {
        bed.step(|searches, environment, out| {
            let hits = List::new([hit(content, &[1], 1)]);
            searches.hits(environment, peer(1), QueryHits { id, hits, known: List::default() }, out);
        });
        bed.wait(limits::FORWARD_PATIENCE / 2);
    }
    assert_eq!((bed.summary().stopped, bed.summary().leaves_covered), (StopReason::Timeout, 0));
    assert_eq!((bed.hits.len() > 10, &bed.called_off[..]), (true, &[peer(1)][..]));
}

#[test]
fn a_leaf_that_comes_here_during_the_search_is_still_searched_elsewhere_or_missed() {
    for others_stay in [true, false] {
        let mut bed = Bed::new(&[(1, &[1]), (2, &[1])]);
        bed.start(search(60, false), with(vec![]));
        assert_eq!(bed.asked(), [peer(1)]);
        let list = LeafList { sequence: 1, place: 0, chunks: Box::default() };
        bed.log.own_change(bed.now, 1, Some((0, list)));
        if !others_stay {
            bed.log.forget(&peer(2));
        }
        bed.lose(1);
        if others_stay {
            assert_eq!(bed.asked(), [peer(1), peer(2)]);
            bed.answer(2, vec![hit(7, &[1], 2)]);
        } else {
            bed.log.forget(&peer(1));
            bed.neighbours.set(peer(1), None);
            bed.step(|searches, environment, out| searches.unlinked(environment, peer(1), out));
            bed.wait(limits::ANSWER_PATIENCE);
        }
        assert_eq!((bed.hits.len(), bed.reasons().is_empty()), (usize::from(others_stay), others_stay));
    }
}

#[test]
fn a_lost_home_without_replacement_makes_it_incomplete() {
    let mut bed = Bed::new(&[(1, &[1]), (2, &[2])]);
    bed.start(search(60, false), with(vec![]));
    bed.answer(1, vec![]);
    bed.lose(2);
    assert_eq!((bed.summary().stopped, bed.reasons()), (StopReason::Exhausted, vec![Incomplete::HomeSilent]));
    assert_eq!((bed.summary().leaves_covered, bed.summary().leaves_total), (1, 2));
}

#[test]
fn the_limit_stops_before_others_are_asked_and_is_never_exceeded() {
    let mut bed = Bed::new(&[(0, &[1]), (1, &[2])]);
    bed.start(search(2, false), with(vec![hit(1, &[1], 0), hit(2, &[1], 0), hit(3, &[1], 0)]));
    assert_eq!(bed.summary().stopped, StopReason::Limit);
    assert_eq!((bed.hits.len(), bed.asked().len()), (2, 0));
}

#[test]
fn exactly_as_many_as_the_limit_is_still_exhaustion() {
    let mut bed = Bed::new(&[(0, &[1])]);
    bed.start(search(2, false), with(vec![hit(1, &[1], 0), hit(2, &[1], 0)]));
    assert_eq!(bed.summary().stopped, StopReason::Exhausted);
}

#[test]
fn a_search_for_everything_asks_all_homes_although_the_limit_is_reached() {
    let mut bed = Bed::new(&[(0, &[1]), (1, &[2])]);
    bed.start(search(1, true), with(vec![hit(1, &[1], 0)]));
    assert_eq!(bed.asked(), [peer(1)]);
    bed.answer(1, vec![hit(1, &[2], 1), hit(2, &[2], 1)]);
    assert_eq!(bed.summary().stopped, StopReason::Limit);
    assert_eq!(bed.hits[&ContentId([1; 32])].sources, 2);
}

#[test]
fn a_look_up_that_was_cut_is_said_so_and_what_it_found_is_given() {
    for all in [false, true] {
        let mut bed = Bed::new(&[(0, &[1]), (1, &[2])]);
        let mut answer = with(vec![hit(7, &[1], 0)]);
        answer.incomplete.insert(Incomplete::WorkCap);
        bed.start(search(60, all), answer);
        bed.answer(1, vec![hit(8, &[2], 1)]);
        assert_eq!((bed.summary().stopped, bed.hits.len()), (StopReason::Exhausted, 2));
        assert_eq!(bed.reasons(), [Incomplete::WorkCap]);
    }
}

#[test]
fn a_search_that_is_withdrawn_is_called_off_everywhere() {
    let mut bed = Bed::new(&[(1, &[1]), (2, &[2])]);
    bed.start(search(60, false), with(vec![]));
    bed.answer(1, vec![]);
    bed.step(|searches, environment, out| searches.cancel(environment.now, Asker::Leaf(1), out));
    assert_eq!((&bed.called_off[..], bed.summary.is_none()), (&[peer(2)][..], true));
    let ended = bed.searches.take_ended();
    assert_eq!(ended.iter().map(|ended| ended.summary.stopped).collect::<Vec<_>>(), [StopReason::Cancelled]);
    bed.step(|searches, environment, out| {
        let told = QueryHits { id: QueryId(1), hits: List::new([hit(1, &[2], 2)]), known: List::default() };
        searches.hits(environment, peer(2), told, out);
    });
    assert!(bed.hits.is_empty());
}

const SHARDS: [(u8, &str); 8] =
    [(1, "00"), (2, "01"), (3, "01"), (4, "10"), (5, "10"), (6, "11"), (7, "11"), (8, "00")];

/// What a gateway says at the end.
fn gateway(leaves: u64, asked: u32) -> QueryDone {
    QueryDone {
        ultrapeers_asked: asked,
        messages: asked,
        leaves_covered: leaves,
        leaves_total: leaves,
        ..QueryDone::default()
    }
}

#[test]
fn a_rare_query_goes_to_one_member_of_each_shard_at_once() {
    let mut bed = Bed::sharded("00", &SHARDS);
    bed.start(search(60, false), with(vec![hit(1, &[1], 0)]));
    let scopes: BTreeSet<_> = bed.queries.iter().map(|(_, query)| format!("{:?}", query.scope)).collect();
    assert_eq!((bed.queries.len(), scopes.len()), (3, 3));
    for (peer, _) in bed.queries.clone() {
        bed.end(peer.0[0], vec![], gateway(10, 2));
    }
    let summary = bed.summary();
    assert_eq!((summary.shards_asked, summary.shards_total, bed.reasons().len()), (4, 4, 0));
    assert_eq!((summary.messages, summary.ultrapeers_asked, summary.leaves_covered), (9, 10, 30));
}

#[test]
fn shards_are_asked_in_waves_until_there_is_enough() {
    let many = |from: u8| (0..30).map(|content| hit(from + content, &[1], 0)).collect::<Vec<_>>();
    let mut bed = Bed::sharded("00", &SHARDS);
    bed.start(search(60, false), with(many(0)));
    assert_eq!(bed.queries.len(), 1, "the first wave");
    let first = bed.asked()[0].0[0];
    bed.end(first, vec![], gateway(10, 0));
    assert_eq!(bed.queries.len(), 3, "the second wave");
    let second = bed.asked()[1].0[0];
    bed.end(second, many(100), gateway(10, 0));
    assert_eq!((bed.summary().stopped, bed.hits.len()), (StopReason::Limit, 60));
    assert_eq!((bed.called_off.len(), bed.summary().shards_asked), (1, 4));
}

#[test]
fn a_silent_gateway_is_replaced_and_a_shard_without_members_is_told() {
    let mut bed = Bed::sharded("0", &[(1, "10"), (2, "10")]);
    bed.start(search(60, false), with(vec![]));
    assert_eq!(bed.queries.len(), 1);
    bed.wait(limits::FORWARD_PATIENCE);
    assert_eq!(bed.asked().iter().collect::<BTreeSet<_>>().len(), 2, "the other member");
    let second = bed.asked()[1].0[0];
    bed.end(second, vec![], gateway(5, 0));
    assert_eq!((bed.summary().stopped, bed.reasons()), (StopReason::Exhausted, vec![Incomplete::ShardUncovered]));
    assert_eq!((bed.summary().shards_asked, bed.summary().shards_total), (2, 3));
}

#[test]
fn who_covers_less_meanwhile_asks_others_for_the_rest() {
    let mut bed = Bed::new(&[(1, &[101])]);
    bed.neighbours.set(peer(2), Some(Neighbour { prefix: "1".parse().expect("a prefix"), is_usable: true }));
    bed.start(search(60, false), with(vec![]));
    assert_eq!(bed.asked(), [peer(1)]);
    bed.neighbours.set_own("0".parse().expect("a prefix"));
    bed.answer(1, vec![hit(1, &[101], 1)]);
    // Both cover it now.
    let second = bed.asked()[1].0[0];
    assert_eq!(bed.queries[1].1.scope, Scope::Shard("1".parse().expect("a prefix")));
    bed.end(second, vec![hit(2, &[102], 2)], gateway(10, 0));
    assert_eq!((bed.summary().stopped, bed.reasons(), bed.hits.len()), (StopReason::Exhausted, vec![], 2));
    assert_eq!((bed.summary().shards_asked, bed.summary().shards_total), (2, 2));
}

#[test]
fn a_member_that_covers_its_part_no_more_is_replaced() {
    let mut bed = Bed::sharded("0", &[(1, "1"), (2, "1")]);
    bed.start(search(60, false), with(vec![]));
    let mut done = gateway(5, 1);
    done.incomplete.insert(Incomplete::ShardUncovered);
    let first = bed.asked()[0].0[0];
    bed.end(first, vec![hit(1, &[101], 1)], done);
    let second = bed.asked()[1].0[0];
    assert_ne!(second, first);
    bed.end(second, vec![], gateway(9, 1));
    assert_eq!((bed.summary().stopped, bed.reasons(), bed.hits.len()), (StopReason::Exhausted, vec![], 1));
    assert_eq!((bed.summary().leaves_covered, bed.summary().messages), (9, 4));
}

#[test]
fn a_gateway_that_covers_less_meanwhile_says_so() {
    let mut bed = Bed::new(&[(1, &[101])]);
    let wanted = Wanted::of(search(60, false), ShardPrefix::ALL, bed.now);
    let answer = Answer { candidates: vec![candidate(101)], ..Answer::default() };
    let asker = Asker::Mesh(peer(9), QueryId(77));
    bed.step(|searches, environment, out| searches.start(environment, asker, 5, wanted, answer, out));
    bed.neighbours.set_own("0".parse().expect("a prefix"));
    bed.answer(1, vec![]);
    let report = bed.report.expect("it has ended");
    assert!(report.incomplete.iter().any(|reason| reason == Incomplete::ShardUncovered));
}

#[test]
fn a_gateway_searches_its_shard_and_reports() {
    let mut bed = Bed::new(&[(0, &[1]), (1, &[2])]);
    let wanted = Wanted::of(search(60, false), ShardPrefix::ALL, bed.now);
    let answer =
        Answer { hits: vec![hit(1, &[1], 0)], candidates: vec![candidate(2)], matches: 2, ..Answer::default() };
    let asker = Asker::Mesh(peer(9), QueryId(77));
    bed.step(|searches, environment, out| searches.start(environment, asker, 5, wanted, answer, out));
    assert_eq!(bed.hits[&ContentId([1; 32])].holders.len(), 1, "the coordinator must know whom it counted");
    bed.answer(1, vec![hit(2, &[2], 1)]);
    let report = bed.report.expect("it has ended");
    assert_eq!((report.id, report.messages, report.ultrapeers_asked), (QueryId(77), 1, 1));
    assert_eq!((report.leaves_covered, report.leaves_total, bed.hits.len()), (2, 2, 2));
    assert!(bed.searches.is_empty());
}

/// Leaf 100 + n at home n alone, for homes 1 to 20.
const SCATTERED: [(u8, [u64; 1]); 20] = {
    let mut homes = [(0, [0]); 20];
    let mut at = 0;
    while at < 20 {
        homes[at] = (at as u8 + 1, [at as u64 + 101]);
        at += 1;
    }
    homes
};

#[test]
fn after_the_first_homes_only_what_is_not_known_is_asked_for() {
    let homes: Vec<(u8, &[u64])> = SCATTERED.iter().map(|(home, leaves)| (*home, &leaves[..])).collect();
    let mut bed = Bed::new(&homes);
    // All have content 1; leaf 115 another one, and of leaf 116 it is not known.
    let contents = |handle| match handle {
        115 => listed(handle, &[1, 2]),
        116 => candidate(handle),
        _ => listed(handle, &[1]),
    };
    let candidates = (101..=120).map(contents).collect();
    bed.begin(search(60, false), Answer { candidates, ..with(vec![]) });
    let first: BTreeSet<_> = bed.asked().into_iter().collect();
    assert_eq!(first.len(), limits::FORWARDS_PER_ROUND);
    assert!(first.contains(&peer(15)) && first.contains(&peer(16)), "what is new comes first");
    assert!(bed.queries.iter().all(|(_, query)| query.known.is_empty()), "they tell all");
    for home in first {
        let leaf = u64::from(home.0[0]) + 100;
        bed.answer(home.0[0], vec![hit(1, &[leaf], home.0[0])]);
    }
    // The one that was said to have content 2 had it no more, and another still might.
    assert_eq!((bed.asked().len(), bed.reasons()), (limits::FORWARDS_PER_ROUND, vec![]));
    assert_eq!((bed.summary().stopped, bed.summary().leaves_covered), (StopReason::Exhausted, 20));
    assert_eq!(bed.hits[&ContentId([1; 32])].sources, 20, "by the digests all of them have it");
}

#[test]
fn what_nobody_has_told_yet_is_asked_for_until_somebody_does() {
    let homes: Vec<(u8, &[u64])> = SCATTERED.iter().map(|(home, leaves)| (*home, &leaves[..])).collect();
    let mut bed = Bed::new(&homes);
    let candidates = (101..=120).map(|handle| listed(handle, &[1])).collect();
    bed.begin(search(60, false), Answer { candidates, ..with(vec![]) });
    let first = bed.asked();
    for home in &first {
        bed.answer(home.0[0], vec![]);
    }
    // Each further home is the only one that is asked at the time: it may tell of the content.
    assert_eq!(bed.asked().len(), first.len() + 1);
    let ninth = bed.asked()[8].0[0];
    bed.answer(ninth, vec![]);
    let tenth = bed.asked()[9].0[0];
    bed.answer(tenth, vec![hit(1, &[u64::from(tenth) + 100], tenth)]);
    assert_eq!((bed.asked().len(), bed.summary().stopped, bed.reasons()), (10, StopReason::Exhausted, vec![]));
}

#[test]
fn a_home_that_is_silent_matters_only_for_what_others_do_not_tell() {
    let mut bed = Bed::new(&[(1, &[101]), (2, &[102])]);
    let candidates = vec![listed(101, &[1]), listed(102, &[1])];
    bed.begin(search(60, false), Answer { candidates, ..with(vec![]) });
    assert_eq!(bed.asked().len(), 2);
    bed.answer(1, vec![hit(1, &[101], 1)]);
    bed.wait(limits::FORWARD_PATIENCE_MAX);
    assert_eq!((bed.summary().stopped, bed.reasons()), (StopReason::Exhausted, vec![]));
}

#[test]
fn a_gateway_asks_and_tells_nothing_that_is_known_but_counts_it() {
    let mut bed = Bed::new(&[(1, &[101]), (2, &[102])]);
    let key = ContentKey([1; 8]);
    let wanted =
        Wanted { known: FxHashSet::from_iter([key]), ..Wanted::of(search(60, false), ShardPrefix::ALL, bed.now) };
    let candidates = vec![listed(101, &[1]), listed(102, &[1, 2])];
    let answer = Answer { candidates, known: vec![KnownContent { key, sources: 2 }], ..Answer::default() };
    let asker = Asker::Mesh(peer(9), QueryId(77));
    bed.step(|searches, environment, out| searches.start(environment, asker, 5, wanted, answer, out));
    assert_eq!((bed.asked(), &bed.known[..]), (vec![peer(2)], &[(key, 2)][..]));
    assert_eq!(bed.queries[0].1.known[..], [key]);
    bed.answer(2, vec![hit(1, &[102], 2), hit(2, &[102], 2)]);
    assert_eq!(bed.hits.keys().collect::<Vec<_>>(), [&ContentId([2; 32])]);
    assert_eq!(bed.report.map(|report| (report.messages, report.leaves_covered)), Some((1, 2)));
}

#[test]
fn other_shards_are_told_what_is_known_and_their_sources_count() {
    let many: Vec<_> = (0..30).map(|content| hit(content, &[1], 0)).collect();
    let mut bed = Bed::sharded("0", &[(1, "1")]);
    bed.start(search(60, false), with(many));
    assert_eq!((bed.asked(), bed.queries[0].1.known.len()), (vec![peer(1)], 30));
    let id = bed.id(1);
    let known = List::new([KnownContent { key: ContentKey([3; 8]), sources: 7 }]);
    bed.step(|searches, environment, out| {
        searches.hits(environment, peer(1), QueryHits { id, hits: List::default(), known }, out);
    });
    bed.end(1, vec![], gateway(10, 0));
    assert_eq!(bed.summary().stopped, StopReason::Exhausted);
    assert_eq!((bed.hits[&ContentId([3; 32])].sources, bed.hits[&ContentId([4; 32])].sources), (8, 1));
}

#[test]
fn a_gateway_gives_up_when_who_asked_is_gone() {
    let mut bed = Bed::new(&[(1, &[2]), (9, &[])]);
    let wanted = Wanted::of(search(60, false), ShardPrefix::ALL, bed.now);
    let answer = Answer { candidates: vec![candidate(2)], ..Answer::default() };
    let asker = Asker::Mesh(peer(9), QueryId(77));
    bed.step(|searches, environment, out| searches.start(environment, asker, 5, wanted, answer, out));
    bed.lose(9);
    assert_eq!((bed.searches.len(), &bed.called_off[..], bed.report), (0, &[peer(1)][..], None));
}

/// A hit as a home tells it: its holders with the names they use, and the best of them.
fn told(home: u8, holders: &[(u64, &str)], best: (u64, u16)) -> Hit {
    let handles: Vec<u64> = holders.iter().map(|(handle, _)| *handle).collect();
    let mut names: Vec<_> = holders.iter().map(|(_, name)| Text::new(name)).collect();
    names.sort();
    names.dedup();
    let place = |name: &str| names.iter().position(|known| **known == *name).map(|place| place as u8);
    let mut told = hit(7, &handles, home);
    told.holders = List::new(holders.iter().map(|(handle, name)| Holder { handle: *handle, name: place(name) }));
    told.peers = List::new(
        told.peers
            .iter()
            .filter(|peer| peer.peer == self::peer(100 + best.0 as u8))
            .cloned()
            .map(|peer| HitPeer { free_slots: best.1, ..peer }),
    );
    told.path = Text::new(&format!("share/{}", best.0));
    told.names = List::new(names);
    told.score = 400_000 + availability(told.networks, best.1 > 0);
    told
}

#[test]
fn what_homes_tell_of_a_content_is_one_hit_in_any_order() {
    let parts = [
        told(1, &[(1, "a"), (2, "a")], (1, 0)),
        told(2, &[(2, "a"), (3, "b"), (4, "b")], (3, 2)),
        told(3, &[(4, "b"), (5, "c"), (6, "b")], (5, 1)),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
        let mut merged = Merged::new(parts[order[0]].clone(), &[]);
        assert!(merged.merge(parts[order[1]].clone()) && merged.merge(parts[order[2]].clone()));
        let hit = merged.for_asker();
        assert_eq!(hit.names.iter().map(|name| &**name).collect::<Vec<_>>(), ["b", "a", "c"], "{order:?}");
        assert_eq!((hit.sources, &*hit.path), (6, "share/3"), "{order:?}");
        assert_eq!(hit.peers.iter().map(|peer| peer.peer).collect::<Vec<_>>(), [peer(103), peer(105), peer(101)]);
        assert_eq!(hit.score, 400_000 + availability(hit.networks, true));
        assert!(hit.score > parts[1].score, "more sources, a higher score");
        assert!(!merged.merge(parts[order[2]].clone()), "nothing new");
    }
}

#[test]
fn frames_stay_below_their_cap_with_the_longest_names() {
    let mut big = hit(1, &(0..256).collect::<Vec<_>>(), 0);
    big.path = Text::new(&"p".repeat(limits::PATH_BYTES));
    big.names = List::new((0..limits::HIT_NAMES).map(|_| Text::new(&"n".repeat(limits::NAME_BYTES))));
    for hits in frames(std::iter::repeat_n(big, 200)) {
        let mut buffer = Vec::new();
        overlay::wire::frame::encode(&LeafMessage::from(Hits { hits }), &mut buffer).expect("below its cap");
    }
}

/// Looks a content up of which the own index knows nothing, with these owners.
fn look_up(bed: &mut Bed, owners: &[u8], holders: &[(u64, u8)]) {
    let told = |(handle, home): &(u64, u8)| ToldHolder { handle: *handle, home: peer(*home) };
    let owners = Some(owners.iter().map(|owner| peer(*owner)).collect());
    let answer = Answer { owners, holders: holders.iter().map(told).collect(), ..Answer::default() };
    let search = Search { target: Target::Content(ContentId([5; 32])), ..search(1, true) };
    let wanted = Wanted::of(search, bed.neighbours.own(), bed.now);
    bed.step(|searches, environment, out| searches.start(environment, Asker::Leaf(1), 9, wanted, answer, out));
}

fn name(bed: &mut Bed, from: u8, is_settled: bool, holders: &[(u64, u8)]) {
    let holders = List::new(holders.iter().map(|(handle, home)| ToldHolder { handle: *handle, home: peer(*home) }));
    let id = bed.id(from);
    let told = QueryHolders { id, is_settled, holders };
    bed.step(|searches, environment, _| searches.holders(environment, peer(from), told));
    bed.answer(from, vec![]);
}

#[test]
fn a_content_is_asked_of_one_owner_and_then_of_a_cover_of_its_holders_homes() {
    let mut bed = Bed::new(&[(0, &[5]), (1, &[]), (2, &[1, 2]), (3, &[2, 3]), (4, &[1, 2, 3]), (6, &[])]);
    look_up(&mut bed, &[1, 6], &[]);
    assert_eq!(bed.asked(), [peer(1)]);
    assert_eq!(bed.queries[0].1.scope, Scope::Holders);
    name(&mut bed, 1, true, &[(1, 2), (3, 3), (5, 9), (7, 2)]);
    assert_eq!(
        bed.asked(),
        [peer(1), peer(4)],
        "one home has both; own leaves, and those that left, are not asked for"
    );
    assert_eq!(bed.queries[1].1.scope, Scope::Leaves(List::new([1, 3])));
    bed.answer(4, vec![hit(5, &[1, 3], 4)]);
    assert_eq!(bed.hits[&ContentId([5; 32])].sources, 2);
    assert_eq!((bed.summary().stopped, bed.summary().messages), (StopReason::Exhausted, 2));
    assert_eq!(bed.reasons(), [Incomplete::WorkCap], "it is best effort, and says so");
    assert_eq!((bed.summary().leaves_covered, bed.summary().leaves_total), (3, 4), "the own one and two others");
}

#[test]
fn an_owner_that_is_silent_young_or_lost_is_followed_by_the_next() {
    let mut bed = Bed::new(&[(1, &[1]), (2, &[]), (3, &[]), (4, &[])]);
    look_up(&mut bed, &[9, 2, 3, 4], &[]);
    assert_eq!(bed.asked(), [peer(2)], "who cannot be asked is not");
    bed.wait(limits::FORWARD_PATIENCE);
    assert_eq!(bed.asked(), [peer(2), peer(3)]);
    name(&mut bed, 3, false, &[]);
    assert_eq!(bed.asked(), [peer(2), peer(3), peer(4)], "it has not served for long enough to know");
    bed.lose(4);
    assert!(bed.summary.is_none(), "the first may still answer");
    name(&mut bed, 2, true, &[(1, 1)]);
    assert_eq!(bed.asked()[3..], [peer(1)]);
    bed.answer(1, vec![hit(5, &[1], 1)]);
    assert_eq!((bed.hits.len(), bed.summary().messages), (1, 4));
}

#[test]
fn an_owner_itself_asks_only_the_homes_of_the_holders() {
    let mut bed = Bed::new(&[(0, &[5]), (1, &[1]), (2, &[])]);
    look_up(&mut bed, &[], &[(1, 1)]);
    assert_eq!(bed.asked(), [peer(1)]);
    bed.answer(1, vec![hit(5, &[1], 1)]);
    assert_eq!((bed.hits.len(), bed.summary().messages), (1, 1));

    let mut bed = Bed::new(&[(0, &[5]), (1, &[1])]);
    look_up(&mut bed, &[], &[]);
    assert_eq!((bed.summary().messages, bed.reasons()), (0, vec![Incomplete::WorkCap]));
}

#[test]
fn holders_of_other_parts_of_the_leaf_space_are_asked_through_the_home_that_told() {
    let mut bed = Bed::sharded("0", &[(1, "0"), (2, "1"), (3, "1")]);
    look_up(&mut bed, &[1], &[]);
    assert_eq!(bed.asked(), [peer(1)], "no part is asked for what owners know of all");
    name(&mut bed, 1, true, &[(100, 2), (101, 2), (102, 9)]);
    assert_eq!(bed.asked(), [peer(1), peer(2)], "a home that is not there is not asked");
    assert_eq!(bed.queries[1].1.scope, Scope::Leaves(List::new([100, 101])));
    bed.answer(2, vec![hit(5, &[100, 101], 2)]);
    assert_eq!((bed.hits.len(), bed.summary().messages), (1, 2));
}

#[test]
fn holders_that_nobody_asked_for_count_for_nothing() {
    let mut bed = Bed::new(&[(1, &[1]), (2, &[2])]);
    bed.start(search(10, true), Answer::default());
    name(&mut bed, 1, true, &[(2, 2)]);
    bed.answer(2, vec![]);
    assert_eq!((bed.summary().messages, bed.reasons()), (2, vec![]));
    bed.step(|searches, environment, _| {
        let told = QueryHolders { id: QueryId(77), is_settled: true, holders: List::default() };
        searches.holders(environment, peer(1), told);
    });
}
