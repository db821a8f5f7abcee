//! Homes by script: honest ones, while leaves come and go, and liars of each kind.

use overlay::{
    file::Tags,
    wire::{
        bounded::List,
        search::{Hit, Hits},
    },
};
use proptest::prelude::*;
use rand::SeedableRng;
use rand_pcg::Pcg32;

use super::*;

const ME: PeerId = PeerId([0; 32]);
/// Own files, which are contents 0 to 9; others follow.
const OWN: u8 = 10;
/// Contents that all searches of the user match.
const ALL: u8 = 40;

fn home(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn content(number: u8) -> ContentId {
    ContentId([number; 32])
}

fn hit(number: u8) -> Hit {
    Hit {
        content: content(number),
        size: 1,
        score: 1,
        names: List::default(),
        path: Text::default(),
        modified_s: 0,
        tags: Tags::default(),
        sources: 1,
        networks: 1,
        peers: List::default(),
        holders: List::default(),
    }
}

/// How a home answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conduct {
    Honest,
    /// It finds nothing.
    DropsAll,
    /// It hides the contents whose number modulo 4 is that.
    DropsQuarter(u8),
    /// It finds what nobody has.
    Invents,
    /// It says that a block list holds something back.
    Withholds,
    /// It is honest, and takes so many milliseconds.
    Slow(u64),
}

struct Bed {
    core: HomeAudits,
    rng: Pcg32,
    now: Time,
    conduct: BTreeMap<PeerId, Conduct>,
    /// What there is, since when and until when: homes notice within three seconds.
    changes: Vec<(Time, u8, bool)>,
    /// The list, and since when.
    sequence: u64,
    coming: BTreeMap<(Time, u64), Coming>,
    numbers: u64,
    /// Searches of the user that were made, and of its own.
    made: (u64, u64),
    canaries: u64,
    distrusted: Vec<(Time, PeerId)>,
    counts: Vec<Count>,
    next_home: u8,
}

#[derive(Clone, Debug)]
enum Coming {
    Answer(Ticket, PeerId, Request),
    Picked(PeerId),
    Listed(PeerId, u64),
}

impl Bed {
    fn new(seed: u64, conduct: &[Conduct]) -> Self {
        let mut bed = Self {
            core: HomeAudits::new(ME),
            rng: Pcg32::seed_from_u64(seed),
            now: Time(1),
            conduct: BTreeMap::new(),
            changes: Vec::new(),
            sequence: 1,
            coming: BTreeMap::new(),
            numbers: 0,
            made: (0, 0),
            canaries: 0,
            distrusted: Vec::new(),
            counts: Vec::new(),
            next_home: 1,
        };
        for conduct in conduct {
            bed.attach(*conduct);
        }
        bed
    }

    fn attach(&mut self, conduct: Conduct) -> PeerId {
        let peer = home(self.next_home);
        self.next_home += 1;
        self.conduct.insert(peer, conduct);
        self.core.attached(peer);
        self.plan(Duration::from_millis(500), Coming::Listed(peer, self.sequence));
        peer
    }

    fn plan(&mut self, after: Duration, coming: Coming) {
        self.numbers += 1;
        self.coming.insert((self.now + after, self.numbers), coming);
    }

    /// The list changes; each home has the new one a moment later.
    fn list_changes(&mut self) {
        self.sequence += 1;
        for peer in self.conduct.keys().copied().collect::<Vec<_>>() {
            let after = Duration::from_millis(self.rng.random_range(10..8_000));
            self.plan(after, Coming::Listed(peer, self.sequence));
        }
    }

    fn toggle(&mut self, number: u8) {
        let there = self.is_there(self.now, number);
        self.changes.push((self.now, number, !there));
    }

    fn is_there(&self, at: Time, number: u8) -> bool {
        let last = self.changes.iter().rev().find(|(since, changed, _)| *changed == number && *since <= at);
        last.is_none_or(|(.., there)| *there)
    }

    fn own_searches(&self) -> u64 {
        self.made.1 - self.canaries
    }

    fn user_searches(&mut self) {
        self.made.0 += 1;
        let ticket = self.made.0;
        let target = Target::Query(Text::new("all"));
        let request = Request { target, limit: limits::SEARCH_LIMIT, timeout: limits::SEARCH_TIMEOUT, all: false };
        let first = self.conduct.keys().next().copied();
        let mut out = Outbox::new();
        let cx = &mut Context::new(self.now, &mut self.rng);
        self.core.user_searches(cx, ticket, &request, first, &mut out);
        if let Some(first) = first {
            self.core.asked(self.now, ticket, first);
            let after = self.delay(first);
            self.plan(after, Coming::Answer(ticket, first, request));
        }
        self.carry_out(out);
    }

    fn delay(&mut self, peer: PeerId) -> Duration {
        let base = if let Some(Conduct::Slow(milliseconds)) = self.conduct.get(&peer) { *milliseconds } else { 0 };
        Duration::from_millis(base + self.rng.random_range(20..300))
    }

    fn carry_out(&mut self, mut out: Outbox<Output>) {
        for output in out.drain().collect::<Vec<_>>() {
            match output {
                Output::Pick(peer, _) => self.plan(Duration::from_millis(1), Coming::Picked(peer)),
                Output::Ask(ticket, peer, request) => {
                    self.made.1 += 1;
                    self.core.asked(self.now, ticket, peer);
                    let after = self.delay(peer);
                    self.plan(after, Coming::Answer(ticket, peer, request));
                }
                Output::Distrust(peer) => {
                    self.distrusted.push((self.now, peer));
                    self.conduct.remove(&peer);
                    self.core.lost(&peer);
                }
                Output::Count(count) => self.counts.push(count),
                Output::CompanionEnded(_) => {}
            }
        }
    }

    /// What a home says. News of others reach each home within 3 s, another time for each.
    fn answer(&mut self, peer: PeerId, request: &Request) -> (Vec<u8>, Summary) {
        let conduct = self.conduct[&peer];
        let lag = Duration::from_micros(u64::from(peer.0[0]) * 290_000 % 3_000_000);
        let seen = Time(self.now.as_micros().saturating_sub(lag.as_micros() as u64).max(1));
        let mut found: Vec<u8> = match &request.target {
            Target::Content(content) => vec![content.0[0]],
            Target::Query(query) if &**query == "all" => (OWN..ALL).filter(|all| self.is_there(seen, *all)).collect(),
            Target::Query(query) => {
                query.split(' ').filter_map(|word| word.strip_prefix("own")?.parse().ok()).collect()
            }
        };
        let mut summary = Summary::default();
        match conduct {
            Conduct::DropsAll => found.clear(),
            Conduct::DropsQuarter(rest) => found.retain(|number| number % 4 != rest),
            Conduct::Invents => found.push(200),
            Conduct::Withholds => {
                found.clear();
                summary.withheld = 1;
            }
            Conduct::Honest | Conduct::Slow(_) => {}
        }
        (found, summary)
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let due = self.core.next_deadline().filter(|due| *due <= end);
            let coming = self.coming.keys().next().copied().filter(|(at, _)| *at <= end);
            match (due, coming) {
                (None, None) => break,
                (Some(due), coming) if coming.is_none_or(|(at, _)| due < at) => {
                    assert!(due >= self.now);
                    self.now = due;
                    let mut out = Outbox::new();
                    self.core.on_deadline(&mut Context::new(self.now, &mut self.rng), &mut out);
                    assert!(self.core.next_deadline().is_none_or(|next| next > due), "a busy loop");
                    self.carry_out(out);
                }
                (_, Some(key)) => {
                    self.now = key.0;
                    let coming = self.coming.remove(&key).expect("it was there");
                    self.arrives(coming);
                }
                (Some(_), None) => {}
            }
        }
        self.now = end;
        assert!(
            self.core.comparisons.len() <= limits::COMPARISONS && self.core.compared.len() <= 4 * limits::COMPARISONS
        );
    }

    fn arrives(&mut self, coming: Coming) {
        let mut out = Outbox::new();
        match coming {
            Coming::Listed(peer, sequence) => {
                self.core.listed(&mut Context::new(self.now, &mut self.rng), peer, sequence, true);
            }
            Coming::Picked(peer) => {
                self.canaries += 1;
                let number = self.rng.random_range(0..OWN);
                let path = format!("share/own{number} file{number}.txt");
                let picked = Some(Picked { content: content(number), path, sequence: self.sequence });
                let cx = &mut Context::new(self.now, &mut self.rng);
                let before = self.made.1;
                self.core.picked(cx, peer, picked, &mut out);
                self.carry_out(out);
                self.canaries -= u64::from(self.made.1 == before);
                return;
            }
            Coming::Answer(ticket, peer, request) => {
                if self.conduct.contains_key(&peer) {
                    let (found, summary) = self.answer(peer, &request);
                    let hits = Hits { hits: List::new(found.into_iter().map(hit)) };
                    self.core.heard(self.now, ticket, peer, &hits.into());
                    self.core.heard(self.now, ticket, peer, &summary.into());
                }
                let complete = self.conduct.contains_key(&peer);
                self.core.ended(&mut Context::new(self.now, &mut self.rng), ticket, complete, &mut out);
            }
        }
        self.carry_out(out);
    }

    /// The user searches so often, so many seconds apart.
    fn searches(&mut self, count: u32, seconds: u64) {
        for _ in 0..count {
            self.user_searches();
            self.run(Duration::from_secs(seconds));
        }
    }
}

#[test]
fn names_make_queries_of_their_longest_words() {
    assert_eq!(words_of("Music/Ada/01 the lovely notes of ada.flac").as_deref(), Some("lovely notes flac the"));
    assert_eq!(words_of("Music/01.ab"), None, "too little");
    assert_eq!(words_of("Music/東京タワー 大阪城.flac"), None);
}

#[test]
fn a_home_that_finds_nothing_is_left_within_minutes_without_any_search_of_the_user() {
    for seed in 0..20 {
        let mut bed = Bed::new(seed, &[Conduct::Honest, Conduct::DropsAll, Conduct::Honest]);
        bed.run(Duration::from_mins(5));
        assert_eq!(bed.distrusted.iter().map(|(_, peer)| *peer).collect::<Vec<_>>(), [home(2)], "{seed}");
        assert!(bed.made.1 <= 12, "{} searches", bed.made.1);
    }
}

#[test]
fn a_home_that_holds_back_what_it_says_that_it_holds_back_is_not_blamed() {
    let mut bed = Bed::new(1, &[Conduct::Honest, Conduct::Withholds, Conduct::Honest]);
    bed.searches(500, 60);
    assert_eq!(bed.distrusted, []);
    assert!(bed.counts.contains(&Count::CanaryFailed));
}

#[test]
fn one_home_or_two_are_asked_for_own_files_and_the_own_node_is_not() {
    let mut bed = Bed::new(1, &[Conduct::Honest]);
    bed.core.attached(ME);
    bed.core.listed(&mut Context::new(bed.now, &mut bed.rng), ME, 1, true);
    bed.searches(200, 60);
    assert!(bed.own_searches() == 0 && (2..=8).contains(&bed.canaries), "{} in 200 minutes", bed.canaries);

    let mut bed = Bed::new(1, &[Conduct::Honest, Conduct::Invents]);
    bed.searches(200, 60);
    assert!(bed.counts.contains(&Count::Differ) && bed.distrusted.is_empty(), "nobody can tell who is right");
}

#[test]
fn who_is_far_slower_again_and_again_is_left_and_who_is_a_little_slower_is_not() {
    let mut bed = Bed::new(3, &[Conduct::Honest, Conduct::Slow(4_000), Conduct::Slow(300)]);
    bed.searches(500, 60);
    assert_eq!(bed.distrusted.iter().map(|(_, peer)| *peer).collect::<Vec<_>>(), [home(2)]);
}

#[test]
fn a_search_of_the_user_that_is_compared_has_a_companion_until_it_ends() {
    let mut bed = Bed::new(1, &[Conduct::Honest, Conduct::Honest, Conduct::Honest]);
    bed.user_searches();
    let own: Vec<_> = bed.core.compared.keys().copied().filter(|ticket| is_own(*ticket)).collect();
    let [companion] = own[..] else { panic!("new homes are compared at once") };
    assert_eq!(bed.core.user_of(companion), Some(1));
    bed.run(Duration::from_secs(2));
    assert_eq!((bed.core.user_of(companion), bed.core.comparisons.len()), (None, 0));
    assert_eq!(bed.counts, [Count::Same]);
}

/// What may happen while all are honest.
#[derive(Clone, Debug)]
enum Step {
    Search,
    Toggle(u8),
    ListChanges,
    Come,
    Go(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Search),
        6 => (OWN..ALL).prop_map(Step::Toggle),
        2 => Just(Step::ListChanges),
        1 => Just(Step::Come),
        1 => any::<usize>().prop_map(Step::Go),
        4 => (1..20u64).prop_map(Step::Pass),
        2 => (20..3_000u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Files come and go and are known to each home at another time, lists change, homes come and go.
    #[test]
    fn honest_homes_are_never_blamed(seed: u64, steps in prop::collection::vec(step(), 1..150)) {
        let mut bed = Bed::new(seed, &[Conduct::Honest; 3]);
        let mut last: BTreeMap<u8, Time> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Search => bed.user_searches(),
                // What flickers faster than news travel is not what this is about.
                Step::Toggle(number) => {
                    let still = last.get(&number).is_none_or(|at| bed.now.since(*at) > Duration::from_secs(20));
                    if still {
                        last.insert(number, bed.now);
                        bed.toggle(number);
                    }
                }
                Step::ListChanges => bed.list_changes(),
                Step::Come => {
                    if bed.conduct.len() < 3 {
                        bed.attach(Conduct::Honest);
                    }
                }
                Step::Go(index) => {
                    let homes: Vec<_> = bed.conduct.keys().copied().collect();
                    if let Some(peer) = homes.get(index % homes.len().max(1)) {
                        bed.conduct.remove(peer);
                        bed.core.lost(peer);
                    }
                }
                Step::Pass(seconds) => bed.run(Duration::from_secs(seconds)),
            }
        }
        prop_assert_eq!(&bed.distrusted, &[]);
        prop_assert!(bed.core.points.is_empty(), "{:?}", bed.core.points);
        prop_assert!(!bed.counts.contains(&Count::CanaryMissed) && !bed.counts.contains(&Count::Minority));
    }

    /// Whoever drops a quarter, or invents, is found within 1,000 searches of the user, in 8 hours; honest homes stay.
    #[test]
    fn liars_are_found_and_nobody_else_and_searches_stay_few(
        seed: u64, rest in 0..4u8, invents: bool, place in 0..3usize,
    ) {
        let mut conduct = [Conduct::Honest; 3];
        conduct[place] = if invents { Conduct::Invents } else { Conduct::DropsQuarter(rest) };
        let mut bed = Bed::new(seed, &conduct);
        while bed.distrusted.is_empty() && bed.made.0 < 1_000 {
            bed.searches(1, 30);
        }
        let found: Vec<_> = bed.distrusted.iter().map(|(_, peer)| *peer).collect();
        prop_assert_eq!(found, vec![home(place as u8 + 1)]);
        let allowed = limits::COMPARED_BURST + bed.made.0 as f64 * limits::COMPARED_SHARE;
        prop_assert!(bed.own_searches() as f64 <= allowed + 3.0, "{} of {}", bed.own_searches(), bed.made.0);
    }
}
