use proptest::prelude::*;
use rand_pcg::Pcg32;

use super::*;

/// The core on a clock, with everything that it asked for.
struct Bench {
    core: Discovery,
    rng: Pcg32,
    now: Time,
    looks: Vec<(Source, Duration)>,
    dials: Vec<(SocketAddr, Time)>,
}

impl Bench {
    fn new(sources: &[Source]) -> Self {
        let rng = Pcg32::new(1, 1);
        let mut bench = Self { core: Discovery::default(), rng, now: Time::ZERO, looks: Vec::new(), dials: Vec::new() };
        bench.give(Input::Sources(sources.iter().copied().collect()));
        bench
    }

    fn give(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.core.handle(&mut Context::new(self.now, &mut self.rng), input, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, mut out: Outbox<Output>) {
        for output in out.drain() {
            match output {
                Output::Look(source) => self.looks.push((source, self.now.since(Time::ZERO))),
                Output::Dial(_, hint) => self.dials.push((hint.address, self.now)),
            }
        }
    }

    fn stand(&mut self, good: usize) {
        self.give(Input::Standing(Standing { good, wanted: limits::GOOD_ULTRAPEERS }));
    }

    /// Lets time pass, and all deadlines in it.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Outbox::new();
            self.core.on_deadline(&mut Context::new(self.now, &mut self.rng), &mut out);
            assert!(self.core.next_deadline().is_none_or(|next| next > self.now), "it spins");
            self.carry_out(out);
        }
        self.now = end;
    }

    fn find(&mut self, source: Source, numbers: std::ops::Range<u16>) {
        self.give(Input::Found(source, numbers.map(hint).collect()));
    }
}

fn hint(number: u16) -> Hint {
    let [high, low] = number.to_be_bytes();
    Hint { address: SocketAddr::from(([203, 0, high, low], 7780)), peer: None }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn sources_are_asked_one_after_the_other_and_again_with_growing_pauses() {
    let mut bench = Bench::new(&Source::ALL);
    bench.pass(SECOND * 100);
    assert!(bench.looks.is_empty(), "nobody said that anything is missing");
    let began = bench.now.since(Time::ZERO);
    bench.stand(0);
    bench.pass(SECOND * 3);
    let first = Source::ALL.map(|source| (source, began + source.delay()));
    assert_eq!(bench.looks, first);
    bench.looks.clear();
    bench.pass(Duration::from_hours(24));
    let of = |source| bench.looks.iter().filter(move |look| look.0 == source).map(|look| look.1);
    let times: Vec<_> = of(Source::Dht).collect();
    assert_eq!(times[0], began + limits::DHT_DELAY + limits::LOOK_AROUND_MIN);
    assert_eq!(times[1], times[0] + limits::LOOK_AROUND_MIN * 2);
    assert_eq!(times[times.len() - 1], times[times.len() - 2] + limits::LOOK_AROUND_MAX);
}

#[test]
fn who_finds_enough_in_time_asks_nobody_and_who_loses_them_begins_anew() {
    let mut bench = Bench::new(&Source::ALL);
    bench.stand(0);
    bench.pass(Duration::from_millis(900));
    bench.stand(limits::GOOD_ULTRAPEERS);
    bench.pass(Duration::from_hours(24));
    assert!(bench.looks.is_empty());
    bench.find(Source::Dht, 0..9);
    assert!(bench.dials.is_empty(), "enough are known");
    bench.stand(0);
    bench.pass(limits::DHT_DELAY);
    assert_eq!(bench.looks.len(), 3);
    bench.looks.clear();
    bench.stand(1);
    bench.pass(Duration::from_hours(3));
    assert!(bench.looks.len() <= 12, "with one there is time: {:?}", bench.looks);
    bench.looks.clear();
    bench.stand(0);
    bench.pass(limits::DHT_DELAY);
    assert_eq!(bench.looks.len(), 3, "without it there is none");
}

#[test]
fn a_source_that_is_off_is_not_asked_and_not_heard() {
    let mut bench = Bench::new(&[Source::Lan]);
    bench.stand(0);
    bench.find(Source::Lan, 0..1);
    assert!(bench.dials.is_empty(), "it is not its turn");
    bench.pass(SECOND * 4);
    assert_eq!(bench.looks, [(Source::Lan, limits::LAN_DELAY)]);
    bench.find(Source::Dht, 0..1);
    assert!(bench.dials.is_empty());
    bench.find(Source::Lan, 0..9);
    assert_eq!(bench.dials.len(), limits::GOOD_ULTRAPEERS, "no more at a time than are missing");
    bench.give(Input::Sources(BTreeSet::new()));
    for (address, _) in bench.dials.clone() {
        bench.give(Input::Dialled(address));
    }
    bench.pass(Duration::from_hours(1));
    assert_eq!((bench.looks.len(), bench.dials.len()), (1, limits::GOOD_ULTRAPEERS), "switched off");
    bench.give(Input::Sources([Source::Dht].into()));
    bench.pass(limits::DHT_DELAY);
    assert_eq!(bench.looks.last().map(|look| look.0), Some(Source::Dht), "switched on");
}

#[test]
fn with_one_ultrapeer_hints_are_dialled_one_a_minute() {
    let mut bench = Bench::new(&[Source::Lan]);
    bench.stand(1);
    bench.pass(limits::LAN_DELAY);
    bench.find(Source::Lan, 0..5);
    for expected in 1..=5 {
        assert_eq!(bench.dials.len(), expected);
        bench.give(Input::Dialled(bench.dials[expected - 1].0));
        bench.pass(limits::UNPROVEN_PAUSE);
    }
}

proptest! {
    #[test]
    fn whatever_is_named_dials_are_few_and_memory_is_bounded(
        steps in proptest::collection::vec((0..4u8, 0..600u16, 0..4usize, 0..90u64), 1..120),
    ) {
        let mut bench = Bench::new(&Source::ALL);
        bench.stand(0);
        for (what, number, good, seconds) in steps {
            match what {
                0 => bench.stand(good),
                1 => bench.find(Source::ALL[good % 3], number..number + 300),
                2 => {
                    for (address, _) in bench.dials.clone() {
                        bench.give(Input::Dialled(address));
                    }
                }
                _ => bench.pass(Duration::from_secs(seconds)),
            }
            prop_assert!(bench.core.waiting.len() <= limits::UNPROVEN_WAITING);
            prop_assert!(bench.core.tried.len() <= limits::UNPROVEN_TRIED);
            prop_assert!(bench.core.dialling.len() <= limits::GOOD_ULTRAPEERS);
        }
        for (place, (address, at)) in bench.dials.iter().enumerate() {
            let earlier = &bench.dials[..place];
            let in_minute = earlier.iter().filter(|(_, then)| at.since(*then) < Duration::from_mins(1)).count();
            prop_assert!(in_minute < limits::UNPROVEN_PER_MINUTE as usize);
            let again = earlier.iter().rfind(|(other, _)| other == address);
            prop_assert!(again.is_none_or(|(_, then)| at.since(*then) >= limits::HINT_AGAIN));
        }
    }
}
