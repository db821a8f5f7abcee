//! Leaves by script: honest ones, whose files come and go, and those that list what they do not have.

use std::time::Duration;

use overlay::wire::bounded::{Blob, List};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_pcg::Pcg32;

use super::*;

fn leaf(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn content(number: u32) -> ContentId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_le_bytes());
    ContentId(id)
}

fn proof() -> PossessionAnswer {
    let (tops, pieces, groups) = (List::default(), List::default(), List::default());
    PossessionAnswer::Proven(Box::new(GroupProof { tops, pieces, groups, data: Blob::default() }))
}

/// What leaves list at the home.
#[derive(Default)]
struct Model(BTreeMap<PeerId, Vec<ContentId>>);

impl Lists for Model {
    fn draw(&self, leaf: &PeerId, random: u64) -> Option<(ContentId, u64)> {
        let files = self.0.get(leaf)?;
        let place = random.checked_rem(files.len() as u64)?;
        Some((files[place as usize], 5 << 20))
    }

    fn size(&self, leaf: &PeerId, content: &ContentId) -> Option<u64> {
        self.0.get(leaf)?.contains(content).then_some(5 << 20)
    }
}

struct Bed {
    core: Possessions,
    lists: Model,
    rng: Pcg32,
    now: Time,
    /// Questions that were asked.
    asked: Vec<(Time, PeerId, PossessionAsk)>,
    failed: Vec<(PeerId, Fault)>,
    dropped: Vec<PeerId>,
}

impl Bed {
    fn new(seed: u64) -> Self {
        Self {
            core: Possessions::default(),
            lists: Model::default(),
            rng: Pcg32::seed_from_u64(seed),
            now: Time(1),
            asked: Vec::new(),
            failed: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// A leaf's list is in place; its root is made of its contents.
    fn list(&mut self, leaf: PeerId, files: Vec<ContentId>) {
        let mut hasher = blake3::Hasher::new();
        for file in &files {
            hasher.update(&file.0);
        }
        let (root, count) = (*hasher.finalize().as_bytes(), files.len() as u64);
        self.lists.0.insert(leaf, files);
        self.core.listed(&mut Context::new(self.now, &mut self.rng), &self.lists, leaf, root, count);
    }

    fn leave(&mut self, leaf: PeerId) {
        self.lists.0.remove(&leaf);
        self.core.left(self.now, leaf);
    }

    /// Lets time pass until `end`; each question is answered by `answer`: `None` is silence, and a proof is good or not.
    fn run(&mut self, end: Time, mut answer: impl FnMut(PeerId, ContentId) -> Option<(PossessionAnswer, bool)>) {
        while let Some(due) = self.core.next_deadline().filter(|due| *due <= end) {
            assert!(due >= self.now);
            self.now = due;
            let mut out = Outbox::new();
            self.core.on_deadline(&mut Context::new(self.now, &mut self.rng), &self.lists, &mut out);
            assert!(self.core.next_deadline().is_none_or(|next| next > due), "a busy loop");
            self.carry_out(&mut out, &mut answer);
            assert!(self.core.under_way.len() <= limits::POSSESSION_UNDER_WAY);
        }
        self.now = end;
    }

    fn carry_out(
        &mut self,
        out: &mut Outbox<Output>,
        answer: &mut impl FnMut(PeerId, ContentId) -> Option<(PossessionAnswer, bool)>,
    ) {
        let mut good = BTreeMap::new();
        let mut outputs: Vec<_> = out.drain().collect();
        while !outputs.is_empty() {
            let mut more = Outbox::new();
            for output in std::mem::take(&mut outputs) {
                let cx = &mut Context::new(self.now, &mut self.rng);
                match output {
                    Output::Ask(leaf, ask) => {
                        self.asked.push((self.now, leaf, ask));
                        if let Some((said, is_good)) = answer(leaf, ask.content) {
                            good.insert(leaf, is_good);
                            self.core.answered(cx, &self.lists, leaf, Possession { ask, answer: said }, &mut more);
                        }
                    }
                    Output::Check(case) => {
                        let result = if good[&case.leaf] { Ok(()) } else { Err(VerifyError::Mismatch) };
                        self.core.checked(cx, &self.lists, case.leaf, case.number, result, &mut more);
                    }
                    Output::Failed(leaf, fault) => self.failed.push((leaf, fault)),
                    Output::Drop(leaf) => {
                        self.dropped.push(leaf);
                        self.leave(leaf);
                    }
                }
            }
            outputs.extend(more.drain());
        }
    }

    fn days(&self, days: u64) -> Time {
        self.now + Duration::from_hours(24 * days)
    }

    fn asked_of(&self, peer: u8) -> usize {
        self.asked.iter().filter(|(_, asked, _)| *asked == leaf(peer)).count()
    }

    fn complain(&mut self, by: u8, of_home: bool, about: u8, file: u32) -> bool {
        let cx = &mut Context::new(self.now, &mut self.rng);
        self.core.complained(cx, &self.lists, (leaf(by), of_home), leaf(about), content(file))
    }
}

#[test]
fn an_honest_leaf_proves_three_files_of_a_new_list_and_then_one_a_day() {
    let mut bed = Bed::new(1);
    bed.list(leaf(1), (0..100).map(content).collect());
    bed.run(bed.now + Duration::from_mins(10), |_, _| Some((proof(), true)));
    assert_eq!(bed.asked_of(1), usize::from(limits::POSSESSION_SAMPLES));
    let end = bed.days(30);
    bed.run(end, |_, _| Some((proof(), true)));
    assert!((20..=63).contains(&bed.asked_of(1)), "{} in 30 days", bed.asked_of(1));
    let places: BTreeSet<_> = bed.asked.iter().map(|(_, _, ask)| (ask.content, ask.piece, ask.group)).collect();
    assert!(places.len() + 2 >= bed.asked.len(), "random places");
    let times: BTreeSet<_> = bed.asked.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
    assert_eq!(times.len() + 1, bed.asked.len(), "at random times");

    // It comes back with the same list: nothing new is to be proven. With another one it is.
    let before = bed.asked_of(1);
    for files in [100, 101] {
        bed.leave(leaf(1));
        bed.list(leaf(1), (0..files).map(content).collect());
        bed.run(bed.now + Duration::from_mins(10), |_, _| Some((proof(), true)));
        let more = bed.asked_of(1) - before;
        assert!(if files == 100 { more <= 1 } else { more >= 3 }, "{files}: {more}");
    }
    // A list that grows by a file is not sampled anew, and one that doubles is.
    let before = bed.asked_of(1);
    bed.list(leaf(1), (0..150).map(content).collect());
    bed.run(bed.now + Duration::from_mins(10), |_, _| Some((proof(), true)));
    assert!(bed.asked_of(1) - before <= 1);
    bed.list(leaf(1), (0..300).map(content).collect());
    bed.run(bed.now + Duration::from_hours(1), |_, _| Some((proof(), true)));
    assert!(bed.asked_of(1) - before >= 3);
    assert_eq!((bed.failed.len(), bed.core.stats().failed, bed.core.is_doubted(&leaf(1))), (0, 0, false));
}

#[test]
fn a_leaf_without_its_files_is_dropped_at_once_turned_away_and_dropped_again() {
    let mut bed = Bed::new(2);
    bed.list(leaf(1), (0..100).map(content).collect());
    bed.run(bed.now + Duration::from_mins(2), |_, _| Some((proof(), false)));
    assert_eq!((&bed.dropped[..], bed.asked_of(1)), (&[leaf(1)][..], limits::POSSESSION_STRIKES));
    assert!(bed.core.is_refused(&leaf(1)));
    bed.run(bed.now + limits::POSSESSION_REFUSAL, |_, _| None);
    assert!(!bed.core.is_refused(&leaf(1)), "not for ever");
    bed.list(leaf(1), (0..100).map(content).collect());
    bed.run(bed.now + Duration::from_mins(2), |_, _| Some((proof(), false)));
    assert_eq!((bed.dropped.len(), bed.asked_of(1)), (2, limits::POSSESSION_STRIKES + 1), "one more is enough");
    assert_eq!(bed.core.stats().dropped, 2);
}

#[test]
fn a_file_that_failed_is_not_asked_for_again_while_there_are_others() {
    for seed in 0..100 {
        let mut bed = Bed::new(seed);
        bed.list(leaf(1), (0..20).map(content).collect());
        bed.run(bed.now + Duration::from_mins(2), |_, _| Some((proof(), false)));
        assert_eq!(bed.dropped, [leaf(1)], "seed {seed}: {:?}", bed.asked);
        assert_eq!(bed.asked.len(), limits::POSSESSION_STRIKES);
    }
}

#[test]
fn what_stays_in_the_list_although_it_is_gone_fails_and_what_goes_does_not() {
    let mut bed = Bed::new(3);
    bed.list(leaf(1), (0..100).map(content).collect());
    bed.list(leaf(2), (0..100).map(content).collect());
    let end = bed.now + Duration::from_mins(1);
    bed.run(end, |_, _| Some((PossessionAnswer::Gone, true)));
    let gone = bed.asked.iter().find(|(_, peer, _)| *peer == leaf(2)).map(|(.., ask)| ask.content);
    bed.list(leaf(2), (0..100).map(content).filter(|file| Some(*file) != gone).collect());
    bed.run(bed.now + limits::POSSESSION_GRACE, |_, _| Some((proof(), true)));
    assert_eq!(bed.failed, [(leaf(1), Fault::Listed)]);
    assert!(bed.core.is_doubted(&leaf(1)) && !bed.core.is_doubted(&leaf(2)));
    // Once its list leaves it out as well, it is not doubted any more.
    let gone = bed.asked.iter().find(|(_, peer, _)| *peer == leaf(1)).map(|(.., ask)| ask.content);
    bed.list(leaf(1), (0..100).map(content).filter(|file| Some(*file) != gone).collect());
    assert!(!bed.core.is_doubted(&leaf(1)));
}

#[test]
fn who_is_silent_is_asked_again_for_hours_and_dropped_in_the_end() {
    let mut bed = Bed::new(4);
    bed.list(leaf(1), (0..100).map(content).collect());
    let begun = bed.now;
    bed.run(begun + Duration::from_hours(1), |_, _| None);
    assert!(bed.failed.is_empty() && bed.asked_of(1) >= 3);
    let end = bed.days(1);
    bed.run(end, |_, _| Some((PossessionAnswer::NotNow, true)));
    assert_eq!(bed.dropped, [leaf(1)]);
    assert!(bed.failed.iter().all(|(_, fault)| *fault == Fault::Silent));
}

#[test]
fn who_goes_whenever_it_is_asked_is_asked_again() {
    let mut bed = Bed::new(5);
    for _ in 0..limits::POSSESSION_EVASIONS {
        bed.list(leaf(1), (0..100).map(content).collect());
        let before = bed.asked_of(1);
        while bed.asked_of(1) == before {
            let due = bed.core.next_deadline().expect("it is asked again");
            bed.run(due, |_, _| None);
        }
        bed.leave(leaf(1));
    }
    bed.list(leaf(1), (0..100).map(content).collect());
    bed.run(bed.now + Duration::from_hours(2), |_, _| None);
    assert_eq!(bed.failed.first(), Some(&(leaf(1), Fault::Silent)));
}

#[test]
fn complaints_lead_to_a_question_soon_but_cost_credit_and_only_so_many_count() {
    let mut bed = Bed::new(6);
    let accused: Vec<u8> = (1..=20).collect();
    for number in &accused {
        bed.list(leaf(*number), (0..100).map(content).collect());
    }
    bed.run(bed.now + Duration::from_mins(30), |_, _| Some((proof(), true)));
    let before = bed.asked.len();
    assert!(!bed.complain(99, false, 1, 1_000), "it does not list that");
    assert!(!bed.complain(98, false, 77, 1), "it is not here");
    assert!(!bed.complain(1, false, 1, 1), "about itself");
    assert!(bed.complain(97, false, 1, 42));
    assert!(!bed.complain(96, false, 1, 43), "a moment ago somebody did");
    bed.run(bed.now + Duration::from_mins(1), |_, _| Some((proof(), true)));
    let asked: Vec<_> = bed.asked[before..].iter().map(|(_, leaf, ask)| (*leaf, ask.content)).collect();
    assert_eq!(asked, [(leaf(1), content(42))]);

    let count = |bed: &mut Bed, by: u8, of_home: bool| {
        accused.iter().filter(|number| bed.complain(by, of_home, **number, 7)).count()
    };
    assert_eq!(
        count(&mut bed, 95, false),
        limits::COMPLAINT_BURST as usize - 1,
        "the first was about one who was asked"
    );
    bed.run(bed.now + Duration::from_hours(2), |_, _| Some((proof(), true)));
    assert_eq!(count(&mut bed, 94, true), limits::COMPLAINT_BURST_OF_HOME as usize);

    // Whoever complains all day, and however many: nobody is asked all day.
    let (begun, before) = (bed.now, bed.asked_of(5));
    for step in 0..24 * 60 {
        bed.complain(100 + (step % 100) as u8, false, 5, step % 100);
        bed.run(begun + Duration::from_mins(1) * (step + 1), |_, _| Some((proof(), true)));
    }
    let asked = bed.asked_of(5) - before;
    assert!(asked <= 24 + 3, "{asked} in a day");
    assert!(asked >= 12, "{asked} in a day");
}

#[test]
fn no_more_leaves_are_remembered_than_there_is_room_for_and_none_is_forgotten_that_is_here() {
    let mut bed = Bed::new(7);
    let key = |number: u32| PeerId(content(number).0);
    for number in 0..limits::POSSESSION_RECORDS as u32 + 10 {
        bed.core.listed(&mut Context::new(bed.now, &mut bed.rng), &bed.lists, key(number), [1; 32], 1);
        if number != 3 {
            bed.now += Duration::from_micros(1);
            bed.core.left(bed.now, key(number));
        }
    }
    assert_eq!(bed.core.records.len(), limits::POSSESSION_RECORDS);
    assert!(bed.core.records.contains_key(&key(3)) && !bed.core.records.contains_key(&key(4)));
    assert_eq!(bed.core.absent.len() + 1, bed.core.records.len());
    for number in 0..limits::COMPLAINERS as u32 + 10 {
        let counts = bed.core.spend(bed.now, key(number), false);
        assert_eq!(counts, number < limits::COMPLAINERS as u32);
    }
    assert!(bed.core.spend(bed.now + Duration::from_hours(1), key(1 << 20), false), "credit comes back");
}

/// What may happen to an honest leaf.
#[derive(Clone, Debug)]
enum Step {
    Join(u8, u32),
    Leave(u8),
    /// A file vanishes, and its list leaves it out so many seconds later.
    Vanish(u8, u32, u64),
    Add(u8, u32),
    Complain(u8, u8, u32),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..4u8, 1..30u32).prop_map(|(leaf, files)| Step::Join(leaf, files)),
        1 => (1..4u8).prop_map(Step::Leave),
        2 => (1..4u8, 0..40u32, 0..599u64).prop_map(|(leaf, file, later)| Step::Vanish(leaf, file, later)),
        1 => (1..4u8, 0..40u32).prop_map(|(leaf, file)| Step::Add(leaf, file)),
        2 => (10..14u8, 1..4u8, 0..40u32).prop_map(|(by, about, file)| Step::Complain(by, about, file)),
        4 => (1..7_200u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Files come and go, lists lag behind by up to the grace, answers are late now and then, and anybody complains.
    #[test]
    fn an_honest_leaf_fails_nothing_and_is_not_asked_too_often(
        seed: u64, steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut bed = Bed::new(seed);
        let mut has: BTreeMap<PeerId, BTreeSet<ContentId>> = BTreeMap::new();
        let mut pending: BTreeSet<(Time, PeerId)> = BTreeSet::new();
        let mut luck = Pcg32::seed_from_u64(seed ^ 1);
        for step in steps {
            match step {
                Step::Join(number, files) => {
                    bed.leave(leaf(number));
                    let files: Vec<_> = (0..files).map(content).collect();
                    has.insert(leaf(number), files.iter().copied().collect());
                    bed.list(leaf(number), files);
                }
                Step::Leave(number) => bed.leave(leaf(number)),
                Step::Vanish(number, file, later) => {
                    if has.get_mut(&leaf(number)).is_some_and(|has| has.remove(&content(file))) {
                        pending.insert((bed.now + Duration::from_secs(later), leaf(number)));
                    }
                }
                Step::Add(number, file) if bed.lists.0.contains_key(&leaf(number)) => {
                    let has = has.entry(leaf(number)).or_default();
                    has.insert(content(file));
                    let files = has.iter().copied().collect();
                    bed.list(leaf(number), files);
                }
                Step::Add(..) => {}
                Step::Complain(by, about, file) => drop(bed.complain(by, false, about, file)),
                Step::Pass(seconds) => {
                    let end = bed.now + Duration::from_secs(seconds);
                    while bed.now < end {
                        let next = pending.first().map_or(end, |(at, _)| end.min(*at));
                        bed.run(next.max(bed.now), |peer, file| {
                            let late = luck.random_range(0..20) == 0;
                            let answer = if has[&peer].contains(&file) { proof() } else { PossessionAnswer::Gone };
                            (!late).then_some((answer, true))
                        });
                        while let Some((_, peer)) = pending.first().copied().filter(|(at, _)| *at <= bed.now) {
                            pending.pop_first();
                            if bed.lists.0.contains_key(&peer) {
                                let files = has[&peer].iter().copied().collect();
                                bed.list(peer, files);
                            }
                        }
                    }
                }
            }
        }
        prop_assert_eq!(&bed.failed, &[]);
        prop_assert_eq!(&bed.dropped, &[]);
        for number in 1..4 {
            let allowed = limits::POSSESSION_BURST + limits::POSSESSION_RATE * bed.now.as_micros() as f64 / 1e6;
            prop_assert!(bed.asked_of(number) as f64 <= allowed + 1e-6);
        }
    }

    /// Lists of which a part is made up.
    #[test]
    fn a_leaf_whose_list_is_half_made_up_or_more_is_dropped_within_days(
        seed: u64, made_up in 50..=100u32, denies: bool,
    ) {
        let mut bed = Bed::new(seed);
        let files: Vec<_> = (0..1_000).map(content).collect();
        bed.list(leaf(1), files);
        let end = bed.days(14);
        while bed.dropped.is_empty() && bed.now < end {
            let next = bed.now + Duration::from_hours(1);
            bed.run(next, |_, file| {
                let number = u32::from_le_bytes(*file.0.first_chunk().expect("32 bytes"));
                let has = number % 100 >= made_up;
                Some(if has || !denies { (proof(), has) } else { (PossessionAnswer::Gone, false) })
            });
        }
        prop_assert_eq!(&bed.dropped, &[leaf(1)]);
        prop_assert!(bed.asked.len() <= 60, "{} questions", bed.asked.len());
    }
}
