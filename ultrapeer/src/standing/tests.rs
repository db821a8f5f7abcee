use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use overlay::{
    bans::Rules,
    file::{FileEntry, Tags},
    id::ContentId,
    wire::{
        bounded::Text,
        descriptor::ShardPrefix,
        leaf::Wish,
        mesh::{AttachedList, AttachmentChange, Attachments as Frame, ChunkName, Scope as Where, WishChange},
    },
};
use proptest::{collection::vec, prelude::*};
use rand_pcg::Pcg32;

use super::*;
use crate::{
    attachments::Attachments,
    search::neighbours::{Neighbour, Neighbours},
};

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn file(path: &str) -> FileEntry {
    let content = ContentId(*blake3::hash(path.as_bytes()).as_bytes());
    FileEntry { path: path.into(), content, size: 1, modified_s: 0, tags: Tags::default() }
}

fn segment(paths: &[String]) -> Arc<Segment> {
    let mut files: Vec<_> = paths.iter().map(|path| file(path)).collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files.dedup_by(|one, other| one.path == other.path);
    Arc::new(Segment::build(&files).expect("a segment"))
}

fn hits(count: usize) -> Vec<Hit> {
    let hit = |number: usize| Hit {
        content: ContentId(*blake3::hash(&number.to_le_bytes()).as_bytes()),
        size: 1,
        score: 1,
        names: List::default(),
        path: Text::default(),
        modified_s: 0,
        tags: Tags::default(),
        sources: 1,
        networks: 1,
        peers: List::default(),
        holders: List::new([overlay::wire::search::Holder { handle: 1, name: None }]),
    };
    (0..count).map(hit).collect()
}

fn frame(reset: bool, whole: bool, wishes: &[(u64, Option<&str>)]) -> MeshWishes {
    let change = |(name, query): &(u64, Option<&str>)| WishChange { name: *name, query: query.map(Text::new) };
    MeshWishes { reset, whole, lifetime_s: 600, changes: List::new(wishes.iter().map(change)) }
}

/// What queries are filed under where nothing is known of how rare words are.
fn keys(query: &Query) -> Vec<Key> {
    Snapshot::default().keys(query)
}

/// What is kept, by home and its name.
fn known(kept: &Kept) -> BTreeMap<(PeerId, u64), String> {
    let wish = |number| Some((kept.owner(number)?, kept.query(number)?.to_owned()));
    (0..10_000).filter_map(wish).collect()
}

/// The others of a small network, one of which has leaf 7 with chunk 9, and another too.
struct Bed {
    attachments: Attachments,
    neighbours: Neighbours,
    bans: Rules,
}

impl Bed {
    fn new() -> Self {
        let mut bed = Self {
            attachments: Attachments::new(peer(1)),
            neighbours: Neighbours::new(ShardPrefix::ALL),
            bans: Rules::default(),
        };
        for number in 2..=4 {
            let neighbour = Neighbour { prefix: ShardPrefix::ALL, is_usable: true };
            bed.neighbours.set(peer(number), Some(neighbour));
            bed.attachments.following(Time::ZERO, peer(number));
        }
        for number in [2, 3] {
            let list = AttachedList { sequence: 1, place: 0, chunks: List::new([ChunkName(9)]) };
            let changes = List::new([AttachmentChange { handle: 7, list: Some(list) }]);
            bed.attachments.heard(peer(number), Frame { reset: true, caught_up: None, changes });
        }
        bed
    }

    fn environment(&self, now: Time) -> Environment<'_> {
        let Self { attachments, neighbours, bans } = self;
        Environment { now, attachments, neighbours, ultrapeers: 4, bans }
    }
}

const CHUNK: DigestName = DigestName { handle: 7, chunk: ChunkName(9) };

/// A core with one wish, of the leaf in session 5, that keeps it itself, together with ultrapeer 4.
fn with_wish(query: &str) -> (Standing, Bed) {
    let (mut standing, bed) = (Standing::new(peer(1), 1), Bed::new());
    let wishes = Wishes { wishes: List::new([Wish { number: 3, query: Text::new(query) }]) };
    standing.told_by_leaf(Time(1), &mut Pcg32::new(1, 1), 5, wishes).expect("the first");
    standing.choose(Time(1), [vec![peer(1), peer(4)]]);
    run(&mut standing, &bed, Time(1) + limits::WISHES_PAUSE);
    (standing, bed)
}

fn run(standing: &mut Standing, bed: &Bed, now: Time) -> Vec<Output> {
    let mut out = Outbox::new();
    standing.on_deadline(bed.environment(now), keys, &mut out);
    assert!(standing.next_deadline().is_none_or(|at| at > now), "busy loop");
    out.drain().collect()
}

/// The questions among what must be done.
fn asks(outputs: &[Output]) -> Vec<(PeerId, QueryId)> {
    let ask = |output: &Output| match output {
        Output::ToMesh(home, MeshMessage::Query(query)) => {
            assert_eq!(query.scope, Where::News(List::new([CHUNK])));
            Some((*home, query.id))
        }
        _ => None,
    };
    outputs.iter().filter_map(ask).collect()
}

/// What the leaf is told.
fn told(out: &mut Outbox<Output>) -> usize {
    let count = |output| match output {
        Output::ToLeaf(5, WishHits { number: 3, hits }) => {
            assert!(hits.iter().all(|hit| hit.holders.is_empty()), "handles are for ultrapeers only");
            hits.len()
        }
        other => panic!("not for the leaf: {other:?}"),
    };
    out.drain().map(count).sum()
}

#[test]
fn a_new_digest_is_compared_and_a_home_asked_and_another_if_it_is_silent() {
    let (mut standing, bed) = with_wish("red rose");
    let now = Time(1_000_000);
    let digest = |paths: &[&str]| {
        let whole = segment(&paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>());
        Arc::new(Segment::from_digest(&whole.digest()).expect("a digest"))
    };
    let rose = digest(&["a/red rose", "a/tulip"]);
    standing.digest(now, 0, CHUNK, LeafSlot(1), &rose);
    assert_eq!(asks(&run(&mut standing, &bed, now + limits::WISH_ASK_PAUSE)), [], "nobody said that it is new");
    standing.is_new(now, CHUNK);
    standing.digest(now, 0, CHUNK, LeafSlot(1), &digest(&["a/rose", "a/red"]));
    assert_eq!(asks(&run(&mut standing, &bed, now + limits::WISH_ASK_PAUSE)), [], "no file has both words");

    standing.is_new(now, CHUNK);
    standing.digest(now, 0, CHUNK, LeafSlot(1), &rose);
    let now = now + limits::WISH_ASK_PAUSE;
    let [(first, one)] = asks(&run(&mut standing, &bed, now))[..] else { panic!("one question") };
    assert!(standing.has_asked(one));
    let later = now + limits::WISH_ANSWER;
    let [(second, two)] = asks(&run(&mut standing, &bed, later))[..] else { panic!("another") };
    assert_eq!(BTreeSet::from([first, second]), BTreeSet::from([peer(2), peer(3)]));

    let mut out = Outbox::new();
    standing.answered(later, first, two, hits(1), &mut out);
    standing.answered(later, second, one, hits(1), &mut out);
    assert!(out.is_empty(), "only who was asked is heard");
    standing.answered(later, second, two, hits(2), &mut out);
    assert_eq!(told(&mut out), 2);
    standing.done(bed.environment(later), second, &QueryDone { id: two, ..QueryDone::default() }, &mut out);
    // The same chunk again, as when its leaf comes back.
    standing.is_new(later, CHUNK);
    standing.digest(later, 0, CHUNK, LeafSlot(1), &rose);
    assert_eq!(asks(&run(&mut standing, &bed, later + limits::WISH_ASK_PAUSE)), []);
    assert_eq!((standing.stats().asked, standing.stats().unanswered), (2, 0));
}

#[test]
fn who_is_lost_is_replaced_and_when_nobody_is_left_that_is_counted() {
    let (mut standing, mut bed) = with_wish("rose");
    let now = Time(1_000_000);
    standing.is_new(now, CHUNK);
    let words = Arc::new(Segment::from_digest(&segment(&["rose".into()]).digest()).expect("a digest"));
    standing.digest(now, 0, CHUNK, LeafSlot(1), &words);
    let now = now + limits::WISH_ASK_PAUSE;
    let [(mut home, _)] = asks(&run(&mut standing, &bed, now))[..] else { panic!("one question") };
    for _ in 0..2 {
        bed.neighbours.set(home, None);
        let mut out = Outbox::new();
        standing.unlinked(bed.environment(now), &home, &mut out);
        let outputs: Vec<_> = out.drain().collect();
        home = asks(&outputs).first().map_or(home, |(home, _)| *home);
    }
    assert_eq!((standing.stats().asked, standing.stats().unanswered), (2, 1));
}

#[test]
fn hits_that_nobody_wished_for_or_that_come_from_elsewhere_are_not_passed_on() {
    let (mut standing, bed) = with_wish("rose");
    // What keepers were told has its name.
    standing.unlinked(bed.environment(Time(2)), &peer(4), &mut Outbox::new());
    let outputs = run(&mut standing, &bed, Time(2) + limits::WISHES_PAUSE);
    let name = outputs.iter().find_map(|output| match output {
        Output::ToMesh(home, MeshMessage::Wishes(frame)) if *home == peer(4) => frame.changes.first().map(|it| it.name),
        _ => None,
    });
    let name = name.expect("a keeper that lost its link is told again");
    let mut out = Outbox::new();
    for (from, name) in [(peer(4), name.wrapping_add(1)), (peer(2), name)] {
        standing.hits(Time(3), from, MeshWishHits { name, hits: List::new(hits(1)) }, &mut out);
    }
    assert!(out.is_empty());
    standing.hits(Time(3), peer(4), MeshWishHits { name, hits: List::new(hits(1)) }, &mut out);
    assert_eq!(told(&mut out), 1);
    standing.leaf_left(Time(4), 5);
    standing.hits(Time(4), peer(4), MeshWishHits { name, hits: List::new(hits(1)) }, &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_wish_for_what_everybody_has_is_told_of_a_bounded_part() {
    let (mut standing, bed) = with_wish("kind:other");
    let now = Time(1_000_000);
    let mut all = 0;
    let mut out = Outbox::new();
    for number in 0..1_000 {
        let name = DigestName { handle: number, chunk: ChunkName(number) };
        for (wish, query) in standing.own_chunk(now, name, &segment(&["a".into()])) {
            assert_eq!(query, "kind:other");
            standing.own_hits(now, wish, name, hits(30), &mut out);
        }
        all += told(&mut out);
    }
    assert_eq!(all, limits::WISH_HITS_BURST as usize);
    // Elsewhere no more homes are asked than a wish may be compared with.
    let words = Arc::new(Segment::from_digest(&segment(&["a".into()]).digest()).expect("a digest"));
    for number in 2_000..3_000 {
        let name = DigestName { handle: number, chunk: ChunkName(number) };
        standing.is_new(now, name);
        standing.digest(now, 0, name, LeafSlot(1), &words);
    }
    run(&mut standing, &bed, now + limits::WISH_ASK_PAUSE);
    let stats = standing.stats();
    assert_eq!(stats.asked + stats.unanswered, 0, "all of its comparisons are used up");
    assert_eq!(stats.dropped, 2 * (1_000 - 100) + (100 * 30 - 200) + 100, "{stats:?}");
}

#[test]
fn a_leaf_that_tells_its_wishes_without_end_is_sent_away() {
    let (mut standing, mut rng) = (Standing::new(peer(1), 1), Pcg32::new(1, 1));
    let told = (0..100).take_while(|number| {
        let wishes = Wishes { wishes: List::new([Wish { number: *number, query: Text::new("rose") }]) };
        standing.told_by_leaf(Time(1), &mut rng, 5, wishes).is_ok()
    });
    assert_eq!(told.count(), limits::WISHES_BURST as usize);
    assert_eq!(standing.stats().own, 1, "the last set counts");
}

#[test]
fn a_home_has_no_more_wishes_than_it_may_and_none_that_cannot_be_read() {
    let mut kept = Kept::default();
    kept.take(Time(1), peer(2), frame(true, true, &[(1, Some("\"open")), (2, Some("-not")), (3, Some("ab*"))]), keys);
    assert_eq!((kept.len(), kept.refused(), kept.next_deadline()), (0, 3, None));
    for number in 0..=(limits::WISHES_OF_HOME as u64 / 500) {
        let queries: Vec<_> = (0..500).map(|at| (number * 500 + at, Some("rose"))).collect();
        kept.take(Time(1), peer(2), frame(number == 0, false, &queries), keys);
    }
    assert_eq!((kept.len(), kept.refused()), (limits::WISHES_OF_HOME, 503));
    // A word that all of them wish for costs no more than it may, and another home has its share of that.
    kept.take(Time(1), peer(3), frame(true, true, &[(1, Some("rose")), (2, Some("tulip"))]), keys);
    let (candidates, dropped) = kept.candidates(&segment(&["rose".into()]), ChunkName(1));
    let of_other = |number: &&WishNumber| kept.owner(**number) == Some((peer(3), 1));
    assert_eq!(candidates.iter().filter(of_other).count(), 1);
    assert_eq!((candidates.len(), dropped as usize), (501, limits::WISHES_OF_HOME - 500));
}

#[test]
fn a_home_that_vanishes_takes_its_wishes_along() {
    let mut kept = Kept::default();
    let forever = MeshWishes { lifetime_s: u32::MAX, ..frame(true, true, &[(1, Some("rose")), (2, Some("tul*"))]) };
    kept.take(Time(1), peer(2), forever, keys);
    kept.take(Time(1), peer(3), frame(true, true, &[(1, Some("rose"))]), keys);
    let end = Time(1) + limits::WISHES_LIFETIME;
    assert_eq!(kept.next_deadline(), Some(end));
    kept.forget(&peer(3));
    assert_eq!(kept.len(), 2);
    kept.expire(end);
    assert_eq!((kept.len(), kept.next_deadline()), (0, None));
    assert_eq!(kept.candidates(&segment(&["rose".into(), "tulip".into()]), ChunkName(1)), (Vec::new(), 0));
}

/// What happens to the wishes of a home.
#[derive(Clone, Debug)]
enum Step {
    /// A leaf has these wishes.
    Set(Session, Vec<(u32, u8)>),
    Left(Session),
    /// These others can keep wishes.
    Able(Vec<u8>),
    /// The link to one is lost, and what it was told may be.
    Lost(u8),
    Wait(u16),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_u64, vec((0..4_u32, 0..6_u8), 0..4)).prop_map(|(session, wishes)| Step::Set(session, wishes)),
        (0..3_u64).prop_map(Step::Left),
        vec(2..8_u8, 0..6).prop_map(Step::Able),
        (2..8_u8).prop_map(Step::Lost),
        (0..400_u16).prop_map(Step::Wait),
    ]
}

const WORDS: [&str; 6] = ["ash", "birch", "cedar", "ash cedar", "kind:other", "bir*"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// However leaves and keepers change, in the end the keepers know all wishes of the home, and nobody knows others.
    #[test]
    fn keepers_know_what_leaves_wish_for(steps in vec(any_step(), 1..40)) {
        let me = peer(1);
        let (mut own, mut rng, mut now) = (Own::new(me), Pcg32::new(7, 7), Time(1));
        let mut cores: BTreeMap<PeerId, Kept> = (1..8).map(|number| (peer(number), Kept::default())).collect();
        let mut wished: BTreeMap<Session, BTreeMap<u32, &str>> = BTreeMap::new();
        let mut able: BTreeSet<PeerId> = [me].into();
        own.choose(now, [able.iter().copied().collect()]);
        for step in steps.into_iter().chain([Step::Wait(200), Step::Wait(60_000), Step::Wait(200)]) {
            match step {
                Step::Set(session, wishes) => {
                    let wishes: BTreeMap<u32, &str> =
                        wishes.into_iter().map(|(number, word)| (number, WORDS[usize::from(word)])).collect();
                    let told = wishes.iter().map(|(number, query)| Wish { number: *number, query: Text::new(query) });
                    if own.set(now, &mut rng, session, told.collect()).is_ok() {
                        wished.insert(session, wishes);
                    }
                }
                Step::Left(session) => {
                    own.left(now, session);
                    wished.remove(&session);
                }
                Step::Able(others) => {
                    able = [me].into_iter().chain(others.into_iter().map(peer)).collect();
                    own.members_changed(now);
                }
                Step::Lost(number) => {
                    cores.insert(peer(number), Kept::default());
                    own.unlinked(now, &peer(number));
                }
                Step::Wait(milliseconds) => {
                    let end = now + Duration::from_millis(u64::from(milliseconds) * 10);
                    while let Some(at) = own.next_deadline().filter(|at| *at <= end) {
                        now = now.max(at);
                        if own.must_choose(now) {
                            own.choose(now, [able.iter().copied().collect()]);
                        }
                        for (keeper, frame) in own.flush(now) {
                            cores.entry(keeper).or_default().take(now, me, frame, keys);
                        }
                        prop_assert!(own.next_deadline().is_none_or(|at| at > now), "busy loop");
                    }
                    now = end;
                    for core in cores.values_mut() {
                        core.expire(now);
                    }
                }
            }
        }
        let mut expected: Vec<&str> = wished.values().flat_map(BTreeMap::values).copied().collect();
        expected.sort_unstable();
        let keepers = limits::WISH_KEEPERS.min(able.len());
        for (keeper, core) in &cores {
            let known = known(core);
            let mut queries: Vec<&str> = known.values().map(String::as_str).collect();
            queries.sort_unstable();
            prop_assert!(queries.is_empty() || queries == expected, "{keeper:?} knows {queries:?} of {expected:?}");
        }
        let filled = cores.values().filter(|core| core.len() > 0).count();
        prop_assert_eq!(filled, if expected.is_empty() { 0 } else { keepers });
        prop_assert!(expected.is_empty() || cores[&me].len() == expected.len(), "this home is one of them");
    }

    /// Every wish that matches a file of a chunk is a candidate, whatever it was filed under.
    #[test]
    fn no_wish_that_matches_is_overlooked(
        queries in vec(vec(prop_oneof![
            Just("ash"), Just("birch"), Just("cedar"), Just("bir*"), Just("kind:audio"), Just("ext:txt,mp3"),
            Just("-cedar"), Just("\"ash birch\""), Just("size:<9"),
        ], 1..4), 1..20),
        before in vec("(ash|birch|cedar)( (ash|birch|cedar)){0,3}\\.(txt|mp3|jpg)", 0..20),
        chunk in vec("(ash|birch|cedar)( (ash|birch|cedar)){0,3}\\.(txt|mp3|jpg)", 1..6),
    ) {
        let known = Snapshot::of(LeafSlot(1), segment(&before));
        let mut kept = Kept::default();
        let queries: Vec<String> = queries.iter().map(|terms| terms.join(" ")).collect();
        let told: Vec<_> = (0..).zip(&queries).map(|(name, query)| (name, Some(query.as_str()))).collect();
        kept.take(Time(1), peer(2), frame(true, true, &told), |query| known.keys(query));
        let chunk = segment(&chunk);
        let (candidates, _) = kept.candidates(&chunk, ChunkName(1));
        let named: BTreeSet<u64> =
            candidates.iter().filter_map(|number| kept.owner(*number)).map(|(_, name)| name).collect();
        let alone = Snapshot::of(LeafSlot(2), Arc::clone(&chunk));
        for (name, query) in (0..).zip(&queries) {
            let Ok(query) = Query::parse(query) else { continue };
            let matches = !alone.lookup(&query, 0, 10, limits::LOOKUP_WORK).matches.is_empty();
            prop_assert!(!matches || named.contains(&name), "{query}");
        }
        // What was told of it is not again.
        for number in candidates {
            kept.note_told(number, &[ChunkName(1)]);
        }
        prop_assert_eq!(kept.candidates(&chunk, ChunkName(1)), (Vec::new(), 0));
    }
}
