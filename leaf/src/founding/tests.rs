use std::collections::BTreeSet;

use proptest::prelude::*;
use rand_pcg::Pcg32;

use super::*;

/// Leaves, and what passes between them, in virtual time. Addresses are those of the numbers of the leaves.
struct World {
    leaves: BTreeMap<u8, Leaf>,
    rng: Pcg32,
    now: Time,
    coming: BTreeMap<(Time, u64), (u8, Input)>,
    numbers: u64,
    /// Who began a network, when and how.
    begun: Vec<(u8, Time, Begin)>,
    /// How often each address was dialled.
    dialled: BTreeMap<SocketAddr, u32>,
    doubts: Vec<u8>,
}

struct Leaf {
    core: Founding,
    alive: bool,
    /// Nobody can dial it.
    hidden: bool,
    /// It serves, and whoever dials it has a home.
    serves: bool,
}

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 7780))
}

fn contact(number: u8) -> Contact {
    Contact { peer: peer(number), address: address(number) }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// These leaves in the order in which they begin a network.
fn ordered(numbers: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let mut ordered: Vec<_> = numbers.into_iter().collect();
    ordered.sort_by_key(|number| rank(&peer(*number)));
    ordered
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            leaves: BTreeMap::new(),
            rng: Pcg32::new(seed, 1),
            now: Time(1),
            coming: BTreeMap::new(),
            numbers: 0,
            begun: Vec::new(),
            dialled: BTreeMap::new(),
            doubts: Vec::new(),
        }
    }

    /// Leaves that serve when needed and know nothing.
    fn of(seed: u64, count: u8) -> Self {
        let mut world = Self::new(seed);
        (1..=count).for_each(|number| world.start(number, Willing::Auto, false));
        world
    }

    fn start(&mut self, number: u8, willing: Willing, sources: bool) {
        let core = Founding::new(peer(number));
        self.leaves.insert(number, Leaf { core, alive: true, hidden: false, serves: false });
        self.input(number, Input::Willing(willing));
        self.input(number, Input::Sources(sources));
    }

    /// Leaf `from` dialled `to`, which is no ultrapeer.
    fn meets(&mut self, from: u8, to: u8) {
        self.dial(from, contact(to));
    }

    fn after(&mut self, span: Duration, leaf: u8, input: Input) {
        self.numbers += 1;
        self.coming.insert((self.now + span, self.numbers), (leaf, input));
    }

    fn input(&mut self, number: u8, input: Input) {
        let mut out = Outbox::new();
        let leaf = self.leaves.get_mut(&number).expect("one of the leaves");
        leaf.core.handle(&mut Context::new(self.now, &mut self.rng), input, &mut out);
        self.carry_out(number, &mut out);
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let arrival = self.coming.keys().next().copied();
            let alive = self.leaves.iter().filter(|(_, leaf)| leaf.alive);
            let due = alive.filter_map(|(number, leaf)| Some((leaf.core.next_deadline()?, *number))).min();
            match (arrival, due) {
                (Some(key), _) if key.0 <= end && due.is_none_or(|(at, _)| key.0 <= at) => {
                    self.now = self.now.max(key.0);
                    let (number, input) = self.coming.remove(&key).expect("it was there");
                    if self.leaves[&number].alive {
                        self.input(number, input);
                    }
                }
                (_, Some((at, number))) if at <= end => {
                    self.now = self.now.max(at);
                    let mut out = Outbox::new();
                    let leaf = self.leaves.get_mut(&number).expect("one of the leaves");
                    leaf.core.on_deadline(&mut Context::new(self.now, &mut self.rng), &mut out);
                    assert!(leaf.core.next_deadline().is_none_or(|next| next > self.now), "busy loop");
                    self.carry_out(number, &mut out);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn carry_out(&mut self, number: u8, out: &mut Outbox<Output>) {
        for output in out.drain() {
            match output {
                Output::Dial(contact) => self.dial(number, contact),
                Output::Begin(begin) => {
                    assert!(begin == Begin::Offered || !self.leaves[&number].core.has_home, "it has a home");
                    self.begun.push((number, self.now, begin));
                    let leaf = self.leaves.get_mut(&number).expect("one of the leaves");
                    leaf.serves = true;
                    self.after(Duration::from_millis(5), number, Input::Role(Role::Ultrapeer));
                }
                Output::Doubt => self.doubts.push(number),
            }
        }
        let core = &self.leaves[&number].core;
        assert!(core.contacts.len() <= limits::CONTACTS && core.hints.len() <= limits::HINTS);
        assert!(core.failed.len() <= limits::HINTS_FAILED && core.dialling() <= limits::CONTACT_DIALS);
        assert!(core.volunteers.len() <= limits::VOLUNTEERS_KEPT);
    }

    fn dial(&mut self, from: u8, to: Contact) {
        *self.dialled.entry(to.address).or_default() += 1;
        let found = self.leaves.iter().find(|(number, leaf)| leaf.alive && !leaf.hidden && contact(**number) == to);
        let Some((number, serves)) = found.map(|(number, leaf)| (*number, leaf.serves)) else {
            return self.after(limits::CONTACT_TIMEOUT, from, Input::DialFailed(to.address));
        };
        let rtt = Duration::from_millis(20);
        if serves {
            return self.after(rtt, from, Input::Homes(true));
        }
        let situation = self.leaves[&from].core.situation();
        self.after(rtt / 2, number, Input::Knocked(contact(from), situation));
        let core = &self.leaves[&number].core;
        let (situation, named) = (core.situation(), core.named_to(self.now, &contact(from)));
        self.after(rtt, from, Input::Answered { contact: to, situation, named });
    }

    fn beginners(&self) -> Vec<u8> {
        self.begun.iter().map(|(number, ..)| *number).collect()
    }

    fn settled(&self) -> bool {
        let mut alive = self.leaves.values().filter(|leaf| leaf.alive);
        alive.all(|leaf| leaf.serves || leaf.core.has_home)
    }
}

#[test]
fn of_five_that_know_one_of_them_the_first_begins_a_network_and_the_others_have_it_within_seconds() {
    for seed in 0..20 {
        let mut world = World::of(seed, 5);
        let join = 1 + (seed % 5) as u8;
        (1..=5).filter(|number| *number != join).for_each(|number| world.meets(number, join));
        world.run(limits::FOUNDING_PATIENCE_NEW.mul_f64(0.999));
        assert!(world.begun.is_empty(), "first all is tried");
        world.run(seconds(8));
        assert_eq!(world.beginners(), [ordered(1..=5)[0]], "seed {seed}");
        assert!(world.settled());
        assert_eq!(world.begun[0].2, Begin::First(4));
    }
}

#[test]
fn who_reaches_nobody_begins_nothing() {
    let mut world = World::of(1, 1);
    world.input(1, Input::WasHome);
    world.input(1, Input::Volunteers((2..30).map(contact).collect()));
    world.run(Duration::from_hours(3));
    assert!(world.begun.is_empty());
}

#[test]
fn who_is_reached_by_nobody_leaves_it_to_the_next() {
    for seed in 0..10 {
        let mut world = World::of(seed, 4);
        let order = ordered(1..=4);
        world.leaves.get_mut(&order[0]).expect("it is there").hidden = true;
        (1..=4).filter(|number| *number != order[3]).for_each(|number| world.meets(number, order[3]));
        world.run(seconds(45));
        assert_eq!(world.beginners(), [order[1]], "seed {seed}");
        assert!(world.settled());
    }
}

#[test]
fn who_would_never_serve_counts_as_company_and_never_begins() {
    let mut world = World::new(1);
    world.start(1, Willing::Auto, false);
    world.start(2, Willing::Never, true);
    world.meets(2, 1);
    world.run(seconds(40));
    assert_eq!(world.beginners(), [1]);
    assert!(world.settled());
    let mut world = World::new(1);
    (1..=3).for_each(|number| world.start(number, Willing::Never, true));
    world.meets(2, 1);
    world.meets(3, 1);
    world.run(Duration::from_hours(1));
    assert!(world.begun.is_empty());
}

#[test]
fn who_always_serves_begins_at_once_if_it_knows_nobody_and_after_its_patience_otherwise() {
    let mut world = World::new(1);
    world.start(1, Willing::Always, false);
    assert_eq!(world.begun, [(1, world.now, Begin::Alone)]);
    let mut world = World::new(1);
    world.start(1, Willing::Always, true);
    let began = world.now;
    world.run(seconds(15));
    assert_eq!(world.begun, [(1, began + limits::FOUNDING_PATIENCE, Begin::Alone)]);
}

#[test]
fn two_that_always_serve_and_know_each_other_begin_one_network() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        (1..=2).for_each(|number| world.start(number, Willing::Always, true));
        world.meets(1, 2);
        world.run(seconds(15));
        assert_eq!(world.beginners()[0], ordered(1..=2)[0]);
        let offers = world.begun.iter().skip(1).all(|(.., begin)| *begin == Begin::Offered);
        assert!(offers && world.settled(), "{:?}", world.begun);
    }
}

#[test]
fn who_always_serves_offers_itself_to_a_network_that_is_there_and_rests_after_it_stepped_down() {
    let mut world = World::new(1);
    world.start(1, Willing::Always, true);
    world.run(seconds(2));
    world.input(1, Input::Homes(true));
    assert_eq!(world.begun, [(1, world.now, Begin::Offered)]);
    world.run(seconds(60));
    world.input(1, Input::Role(Role::Leaf));
    let stepped_down = world.now;
    world.run(Duration::from_mins(14));
    assert_eq!(world.begun.len(), 1);
    world.run(Duration::from_mins(2));
    assert_eq!(world.begun[1..], [(1, stepped_down + limits::ROLE_REST, Begin::Offered)]);
}

#[test]
fn a_home_that_appears_ends_it_all() {
    let mut world = World::of(1, 2);
    world.meets(1, 2);
    world.run(seconds(29));
    (1..=2).for_each(|number| world.input(number, Input::Homes(true)));
    let dialled: u32 = world.dialled.values().sum();
    world.run(Duration::from_mins(10));
    assert_eq!((world.beginners(), world.dialled.values().sum::<u32>()), (vec![], dialled));
    assert_eq!(world.leaves[&1].core.situation(), Situation::Settled);
}

/// All lose their only home, and notice it at different times: each was told of the others by it.
#[test]
fn five_that_lost_their_ultrapeer_have_another_soon_after_the_first_noticed() {
    for seed in 0..20 {
        let mut world = World::of(seed, 5);
        for number in 1..=5 {
            world.input(number, Input::Homes(true));
            world.input(number, Input::Volunteers((1..=5).map(contact).collect()));
        }
        let first = 1 + (seed % 5) as u8;
        world.input(first, Input::Homes(false));
        world.run(seconds(1));
        assert_eq!(world.doubts.len(), 4, "those whom it asks look after their homes");
        world.run(seconds(3));
        (1..=5).filter(|number| *number != first).for_each(|number| world.input(number, Input::Homes(false)));
        world.run(limits::FOUNDING_PATIENCE + seconds(5));
        assert_eq!(world.beginners(), [ordered(1..=5)[0]], "seed {seed}");
        assert!(world.settled());
    }
}

#[test]
fn who_goes_first_and_dies_or_does_nothing_is_passed_over() {
    for dies in [true, false] {
        let mut world = World::of(3, 4);
        let order = ordered(1..=4);
        (1..=4).filter(|number| *number != order[2]).for_each(|number| world.meets(number, order[2]));
        world.run(seconds(20));
        let first = world.leaves.get_mut(&order[0]).expect("it is there");
        if dies {
            first.alive = false;
        } else {
            // It says that it would, and does not.
            first.core.begun = Some(Begin::Alone);
        }
        world.run(limits::FOUNDING_YIELD + seconds(20));
        assert_eq!(world.beginners(), [order[1]], "dies: {dies}: {:?}, {order:?}", world.begun);
    }
}

/// A liar is at many places with keys that come before any other, and never begins.
#[test]
fn nobody_keeps_a_network_from_beginning_for_long() {
    let mut world = World::of(1, 40);
    let order = ordered(1..=40);
    for liar in &order[..20] {
        world.leaves.get_mut(liar).expect("it is there").core.begun = Some(Begin::Alone);
    }
    (1..=40).filter(|number| *number != order[39]).for_each(|number| world.meets(number, order[39]));
    world.run(limits::FOUNDING_PATIENCE_NEW + limits::FOUNDING_YIELD * limits::FOUNDING_YIELDS as u32 + seconds(10));
    assert!(!world.begun.is_empty());
}

#[test]
fn addresses_that_a_liar_names_are_dialled_once_and_not_too_many_of_them() {
    let mut world = World::of(1, 2);
    world.meets(1, 2);
    world.run(seconds(1));
    let victim = |number: u32| SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + number), 53));
    let mut key = 0_u32;
    for second in 10..3_510 {
        let mut name = |address| {
            key += 1;
            let mut bytes = [9; 32];
            bytes[..4].copy_from_slice(&key.to_le_bytes());
            Contact { peer: PeerId(bytes), address }
        };
        let named = vec![name(victim(1)), name(victim(second)), name(SocketAddr::from(([127, 0, 0, 1], 53)))];
        let answered = Input::Answered { contact: contact(2), situation: Situation::Homeless, named };
        world.leaves.get_mut(&1).expect("it is there").core.begun = Some(Begin::Alone);
        world.input(1, answered);
        world.run(seconds(1));
    }
    let strangers = world.dialled.iter().filter(|(address, _)| address.port() == 53);
    let strangers: Vec<_> = strangers.map(|(address, dials)| (*address, *dials)).collect();
    assert!(strangers.iter().all(|(_, dials)| *dials == 1), "each once in an hour");
    assert!(strangers.iter().all(|(address, _)| !is_local(*address)), "what is local to a stranger is not ours");
    let most = limits::HINTS_BURST + limits::HINTS_PER_HOUR;
    assert!(strangers.len() > 60 && strangers.len() as f64 <= most + 1.0, "{}", strangers.len());
}

#[test]
fn what_is_named_are_volunteers_that_are_there_and_what_the_asker_can_use() {
    let mut world = World::of(1, 1);
    let local = SocketAddr::from(([127, 0, 0, 1], 9));
    for (number, situation) in [(2, Situation::Volunteer), (3, Situation::Homeless), (4, Situation::Volunteer)] {
        world.input(1, Input::Knocked(contact(number), situation));
    }
    world.input(1, Input::Knocked(Contact { peer: peer(5), address: local }, Situation::Volunteer));
    let named = |world: &World, asker: Contact| -> BTreeSet<PeerId> {
        let named = world.leaves[&1].core.named_to(world.now, &asker);
        named.into_iter().map(|contact| contact.peer).collect()
    };
    assert_eq!(named(&world, contact(2)), BTreeSet::from([peer(4)]));
    let here = Contact { peer: peer(9), address: local };
    assert_eq!(named(&world, here), BTreeSet::from([peer(2), peer(4), peer(5)]));
    world.run(limits::CONTACT_FRESH);
    assert_eq!(named(&world, here), BTreeSet::new());
}

#[test]
fn whoever_leaves_begins_nothing_and_dials_nobody() {
    let mut world = World::of(1, 2);
    world.meets(1, 2);
    world.run(seconds(5));
    (1..=2).for_each(|number| world.input(number, Input::Leave));
    let dialled = world.dialled.clone();
    world.run(Duration::from_hours(1));
    assert_eq!((world.beginners(), &world.dialled), (vec![], &dialled));
}

proptest! {
    /// Whoever starts when, and whoever joins whom: as long as all are in touch through somebody, there is a network in
    /// the end, everybody has it, and it is only one unless somebody started long after the others.
    #[test]
    fn leaves_in_touch_have_one_network(
        seed in 0_u64..1_000,
        starts in prop::collection::vec(0_u64..10, 2..12),
        joins in prop::collection::vec(any::<prop::sample::Index>(), 12),
    ) {
        let mut world = World::new(seed);
        let mut order: Vec<_> = starts.iter().copied().zip(1_u8..).collect();
        order.sort_unstable();
        for (place, (at, number)) in order.iter().enumerate() {
            let waits = (Time(1) + seconds(*at)).since(world.now);
            world.run(waits);
            world.start(*number, Willing::Auto, place > 0);
            if place > 0 {
                let join = order[joins[place].index(place)].1;
                world.meets(*number, join);
            }
        }
        world.run(seconds(60));
        prop_assert!(world.settled(), "{:?}", world.begun);
        prop_assert_eq!(world.begun.len(), 1, "{:?}", world.begun);
    }

    /// Whatever happens in whatever order, nothing is begun with a home, all is bounded, and time goes on.
    #[test]
    fn anything_may_happen(seed in 0_u64..1_000, happenings in prop::collection::vec((0_u8..10, 1_u8..40, 0_u64..20_000), 1..200)) {
        let mut world = World::of(seed, 1);
        for (what, number, pause) in happenings {
            let situation = [Situation::Settled, Situation::Homeless, Situation::Volunteer][usize::from(number % 3)];
            let named = (number..number + 20).map(contact).collect();
            let input = match what {
                0 => Input::Willing([Willing::Never, Willing::Auto, Willing::Always][usize::from(number % 3)]),
                1 => Input::Role([Role::Leaf, Role::Candidate, Role::Ultrapeer][usize::from(number % 3)]),
                2 => Input::Homes(number % 2 == 0),
                3 => Input::Sources(number % 2 == 0),
                4 => Input::Volunteers(named),
                5 | 6 => Input::Answered { contact: contact(number), situation, named },
                7 => Input::Knocked(contact(number), situation),
                _ => Input::DialFailed(address(number)),
            };
            world.input(1, input);
            world.run(Duration::from_millis(pause));
        }
    }
}
