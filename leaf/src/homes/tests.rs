use overlay::{
    identity::Identity,
    wire::{bounded::List, descriptor::ShardPrefix},
};
use proptest::prelude::*;
use rand_pcg::Pcg32;

use super::*;

/// Ultrapeers, one leaf, and what passes between them, in virtual time.
struct World {
    homes: Homes,
    rng: Pcg32,
    now: Time,
    nodes: BTreeMap<PeerId, Node>,
    coming: BTreeMap<(Time, u64), Input>,
    numbers: u64,
    dialled: Vec<(SocketAddr, bool)>,
    measured: Vec<PeerId>,
    asked: Vec<u16>,
    released: Vec<(PeerId, Why)>,
    restored: Vec<Duration>,
    /// The fewest homes that had the list at any time since this was last set.
    fewest: usize,
}

struct Node {
    identity: Identity,
    descriptor: Descriptor,
    alive: bool,
    busy: bool,
    rtt: Duration,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The leaf.
const ME: PeerId = PeerId([0; 32]);

/// Addresses in networks of their own.
fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([20, number, 0, 1], 7780))
}

impl World {
    /// `count` ultrapeers, numbered from 1, each in a network of its own and as many milliseconds away.
    fn new(count: u8) -> Self {
        Self::seeded(3, count)
    }

    fn seeded(seed: u64, count: u8) -> Self {
        let nodes = (1..=count).map(|number| {
            let identity = Identity::from_seed([number; 32]);
            let descriptor = Descriptor {
                peer: identity.peer_id(),
                network: network_tag("test"),
                address: address(number),
                shard: ShardPrefix::ALL,
                capacity: 100,
                sequence: 1,
                lifetime_s: 7_200,
                admission: 0,
                volunteer: false,
            };
            let node = Node { identity, descriptor, alive: true, busy: false, rtt: ms(u64::from(number)) };
            (node.identity.peer_id(), node)
        });
        Self {
            homes: Homes::new(ME, "test"),
            rng: Pcg32::new(seed, 3),
            now: Time(1),
            nodes: nodes.collect(),
            coming: BTreeMap::new(),
            numbers: 0,
            dialled: Vec::new(),
            measured: Vec::new(),
            asked: Vec::new(),
            released: Vec::new(),
            restored: Vec::new(),
            fewest: usize::MAX,
        }
    }

    /// A leaf that joined through the first of them, and has all the homes that it wants.
    fn settled(seed: u64, count: u8) -> Self {
        let mut world = Self::seeded(seed, count);
        world.input(Input::Targets(vec![address(1)]));
        world.run(Duration::from_secs(20));
        assert_eq!(world.homes.holding(world.now), usize::from(count).min(limits::HOMES));
        world.fewest = usize::MAX;
        world
    }

    fn peer(number: u8) -> PeerId {
        Identity::from_seed([number; 32]).peer_id()
    }

    fn node(&mut self, number: u8) -> &mut Node {
        self.nodes.get_mut(&Self::peer(number)).expect("one of the ultrapeers")
    }

    /// The leaf's own node serves, and covers that part of the leaf space.
    fn serve(&mut self, shard: ShardPrefix) {
        let identity = Identity::from_seed([200; 32]);
        let address = SocketAddr::from(([127, 0, 0, 1], 7780));
        let (network, capacity) = (network_tag("test"), 100);
        let peer = identity.peer_id();
        let descriptor = Descriptor {
            peer,
            network,
            address,
            shard,
            capacity,
            sequence: 1,
            lifetime_s: 7_200,
            admission: 0,
            volunteer: false,
        };
        self.nodes.insert(ME, Node { identity, descriptor, alive: true, busy: false, rtt: ms(0) });
        self.input(Input::Own(Some(Own { address, shard })));
    }

    fn signed(&self, peer: &PeerId) -> SignedDescriptor {
        let node = &self.nodes[peer];
        node.descriptor.sign(&node.identity)
    }

    fn homes(&self) -> Vec<PeerId> {
        self.homes.iter().map(|(peer, ..)| peer).collect()
    }

    fn after(&mut self, span: Duration, input: Input) {
        self.numbers += 1;
        self.coming.insert((self.now + span, self.numbers), input);
    }

    fn input(&mut self, input: Input) {
        let mut out = Outbox::new();
        self.homes.handle(&mut Context::new(self.now, &mut self.rng), input, &mut out);
        self.carry_out(&mut out);
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let arrival = self.coming.keys().next().copied();
            let due = self.homes.next_deadline();
            match (arrival, due) {
                (Some(key), _) if key.0 <= end && due.is_none_or(|due| key.0 <= due) => {
                    self.now = self.now.max(key.0);
                    let input = self.coming.remove(&key).expect("it was there");
                    self.input(input);
                }
                (_, Some(due)) if due <= end => {
                    self.now = self.now.max(due);
                    let mut out = Outbox::new();
                    self.homes.on_deadline(&mut Context::new(self.now, &mut self.rng), &mut out);
                    assert!(self.homes.next_deadline().is_none_or(|next| next > self.now), "busy loop");
                    self.carry_out(&mut out);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn carry_out(&mut self, out: &mut Outbox<Output>) {
        for output in out.drain() {
            match output {
                Output::Dial { address, peer, insists } => self.dial(address, peer, insists),
                Output::Measure(peer, at) => {
                    self.measured.push(peer);
                    let node = &self.nodes[&peer];
                    let answer = (node.alive && node.descriptor.address == at).then_some(node.rtt);
                    self.after(answer.unwrap_or(limits::PING_TIMEOUT), Input::Measured(peer, answer));
                }
                Output::AskMembers(home, most) => {
                    self.asked.push(most);
                    self.tell(home, usize::from(most));
                }
                Output::Release(peer, why) => {
                    self.released.push((peer, why));
                    self.after(ms(5), Input::Lost(peer));
                }
                Output::Restored(span) => self.restored.push(span),
                Output::Changed => {}
            }
        }
        self.fewest = self.fewest.min(self.homes.homes.values().filter(|home| home.has_list).count());
        assert!(self.homes.len() <= limits::HOMES + 2);
        assert!(self.homes.known.len() <= limits::KNOWN_ULTRAPEERS);
    }

    fn dial(&mut self, address: SocketAddr, peer: Option<PeerId>, insists: bool) {
        assert!(peer.is_none_or(|peer| !self.homes().contains(&peer)), "a home is dialled");
        self.dialled.push((address, insists));
        let there = self.nodes.iter().find(|(_, node)| node.alive && node.descriptor.address == address);
        let Some((found, node)) = there.filter(|(found, _)| peer.is_none_or(|peer| peer == **found)) else {
            return self.after(Duration::from_secs(3), Input::DialFailed(address));
        };
        let (found, rtt) = (*found, node.rtt);
        if node.busy && !insists {
            let mut others: Vec<_> = self.nodes.iter().filter(|(peer, node)| node.alive && **peer != found).collect();
            others.sort_by_key(|(_, node)| node.busy);
            let others = others.into_iter().map(|(peer, _)| self.signed(peer));
            let alternatives = others.take(limits::ALTERNATIVES).collect();
            return self.after(rtt, Input::Refused { address, alternatives });
        }
        let descriptor = (found != ME).then(|| self.signed(&found));
        self.after(rtt, Input::Attached { peer: found, address, descriptor });
        self.after(rtt + ms(1), Input::RoundTrip(found, rtt));
        let members = self.members([], []);
        self.after(rtt + ms(1), Input::Members { from: found, members });
        self.after(rtt * 2 + ms(50), Input::Acknowledged(found));
    }

    fn members(
        &self,
        descriptors: impl IntoIterator<Item = SignedDescriptor>,
        gone: impl IntoIterator<Item = PeerId>,
    ) -> Members {
        let total = self.nodes.values().filter(|node| node.alive).count() as u32;
        Members { descriptors: List::new(descriptors), gone: List::new(gone), total, view: 7 }
    }

    /// A home answers with up to `most` descriptors.
    fn tell(&mut self, home: PeerId, most: usize) {
        if !self.nodes[&home].alive {
            return;
        }
        let alive = self.nodes.iter().filter(|(peer, node)| node.alive && **peer != ME);
        let all: Vec<_> = alive.map(|(peer, _)| self.signed(peer)).collect();
        for part in all[..most.min(all.len())].chunks(limits::MEMBERS_PER_FRAME) {
            let members = self.members(part.iter().cloned(), []);
            self.after(self.nodes[&home].rtt, Input::Members { from: home, members });
        }
    }

    /// An ultrapeer dies. Its leaf notices nothing by itself; after five seconds the other homes say so, and three later
    /// the connection is given up.
    fn kill(&mut self, peer: PeerId) {
        self.nodes.get_mut(&peer).expect("one of the ultrapeers").alive = false;
        for home in self.homes() {
            if home != peer && self.nodes[&home].alive {
                let members = self.members([], [peer]);
                self.after(Duration::from_secs(5), Input::Members { from: home, members });
            }
        }
        self.after(Duration::from_secs(8), Input::Lost(peer));
    }

    /// An ultrapeer begins to end: its home says good-bye, the others that it is gone.
    fn drain(&mut self, peer: PeerId) {
        self.nodes.get_mut(&peer).expect("one of the ultrapeers").alive = false;
        let others = self.nodes.iter().filter(|(_, node)| node.alive).map(|(other, _)| self.signed(other));
        let alternatives = others.take(limits::ALTERNATIVES).collect();
        for home in self.homes().into_iter().filter(|home| *home != peer) {
            let members = self.members([], [peer]);
            self.after(ms(2), Input::Members { from: home, members });
        }
        self.after(ms(10), Input::Draining { peer, alternatives });
        self.after(ms(20), Input::Alive(peer));
    }
}

#[test]
fn the_own_ultrapeer_is_a_home_in_place_of_one_of_three_and_the_leaf_is_never_short() {
    for seed in 0..20 {
        let mut world = World::settled(seed, 9);
        world.serve(ShardPrefix::ALL);
        world.run(Duration::from_secs(20));
        assert!(world.homes().contains(&ME), "seed {seed}");
        assert_eq!((world.homes.holding(world.now), world.fewest), (3, 3));
        assert!(matches!(world.released[..], [(other, Why::Better)] if other != ME), "{:?}", world.released);
        world.run(Duration::from_hours(5));
        assert!(world.homes().contains(&ME));

        // It steps down: its leaf leaves it when the others have the list.
        world.nodes.get_mut(&ME).expect("it is there").alive = false;
        world.input(Input::Own(None));
        world.run(Duration::from_secs(20));
        assert!(!world.homes().contains(&ME));
        assert_eq!((world.homes.holding(world.now), world.fewest), (3, 3));
        assert_eq!(world.released.last(), Some(&(ME, Why::Drained)));
    }
}

#[test]
fn who_is_alone_is_its_own_home_and_finds_itself_again() {
    let mut world = World::new(0);
    world.serve(ShardPrefix::ALL);
    world.run(Duration::from_secs(2));
    assert_eq!((world.homes(), world.homes.wanted(world.now)), (vec![ME], 1));
    world.input(Input::Lost(ME));
    assert!(world.homes().is_empty());
    world.run(Duration::from_secs(2));
    assert_eq!(world.homes(), [ME]);
    assert_eq!(world.homes.next_deadline().map(|at| at > world.now), Some(true));
}

#[test]
fn an_own_ultrapeer_elsewhere_in_the_leaf_space_is_no_home() {
    let mut world = World::settled(1, 9);
    let here = ShardPrefix::of(leaf_hash(&ME), 1);
    world.serve(here.sibling().expect("half of the space"));
    world.run(Duration::from_secs(20));
    assert!(!world.homes().contains(&ME));
    world.serve(here);
    world.run(Duration::from_secs(20));
    assert!(world.homes().contains(&ME));
    world.serve(here.sibling().expect("half of the space"));
    world.run(Duration::from_mins(40));
    assert!(!world.homes().contains(&ME));
    assert_eq!((world.homes.holding(world.now), world.fewest), (3, 3));
}

#[test]
fn one_target_leads_to_three_homes_and_then_it_is_quiet() {
    let mut world = World::settled(1, 9);
    assert_eq!(world.homes.len(), 3);
    let (dialled, asked) = (world.dialled.len(), world.asked.len());
    world.run(Duration::from_mins(25));
    assert_eq!((world.dialled.len(), world.asked.len()), (dialled, asked));
    assert!(world.restored.is_empty(), "none was lost");
}

#[test]
fn all_ultrapeers_are_homes_where_there_are_few() {
    for count in 1..=3 {
        let world = World::settled(1, count);
        assert_eq!(world.homes.len(), usize::from(count));
        assert_eq!(world.measured, [], "there is no choice");
    }
}

#[test]
fn of_three_homes_one_is_the_target_and_the_others_the_nearest_of_a_sample() {
    for seed in 0..20 {
        let mut world = World::seeded(seed, 60);
        world.input(Input::Targets(vec![address(60)]));
        world.run(Duration::from_secs(20));
        assert_eq!(world.measured.len(), limits::MEASURED);
        let mut sample: Vec<_> = world.measured.iter().map(|peer| (world.nodes[peer].rtt, *peer)).collect();
        sample.sort();
        let mut expected = vec![World::peer(60), sample[0].1, sample[1].1];
        expected.sort();
        assert_eq!(world.homes(), expected, "seed {seed}");
    }
}

#[test]
fn homes_are_in_networks_of_their_own_where_there_are_enough() {
    let mut world = World::new(9);
    // The near ones are all neighbours of the first.
    for number in 1..=7 {
        world.node(number).descriptor.address = SocketAddr::from(([20, 1, number, 1], 7780));
    }
    world.input(Input::Targets(vec![SocketAddr::from(([20, 1, 1, 1], 7780))]));
    world.run(Duration::from_secs(20));
    let mut expected = [1, 8, 9].map(World::peer);
    expected.sort();
    assert_eq!(world.homes(), expected);
    // One of them is lost: there is no further network, and two in one are better than two homes.
    world.kill(World::peer(9));
    world.run(Duration::from_secs(20));
    assert_eq!(world.homes.holding(world.now), 3);
}

#[test]
fn homes_cover_the_place_of_the_leaf() {
    let mut world = World::new(12);
    let place = leaf_hash(&PeerId([0; 32]));
    let here = ShardPrefix::of(place, 1);
    let there = here.sibling().expect("half of the space");
    for number in 1..=12 {
        world.node(number).descriptor.shard = if number > 8 { here } else { there };
    }
    world.input(Input::Targets(vec![address(1)]));
    world.run(Duration::from_secs(20));
    assert_eq!(world.homes.len(), 3);
    assert!(world.homes().iter().all(|peer| world.nodes[peer].descriptor.shard.covers(place)));
    assert_eq!(std::mem::take(&mut world.released), [(World::peer(1), Why::Better)], "it only told of the others");

    // One of them narrows to the other half: the leaf moves within half an hour, and is never short of a home.
    world.fewest = usize::MAX;
    let moved = world.homes()[0];
    let node = world.nodes.get_mut(&moved).expect("a home");
    (node.descriptor.shard, node.descriptor.sequence) = (there, 2);
    let news = world.signed(&moved);
    let members = world.members([news], []);
    world.input(Input::Members { from: moved, members });
    world.run(Duration::from_mins(30));
    assert_eq!((world.homes.len(), world.fewest), (3, 3));
    assert_eq!(world.released, [(moved, Why::Better)]);
}

#[test]
fn former_homes_are_joined_again_and_nothing_is_asked_or_measured() {
    let former = World::settled(1, 30);
    let remembered = former.homes.remember();
    assert!(remembered.len() >= 20, "{}", remembered.len());
    let mut world = World::seeded(2, 30);
    world.input(Input::Remembered(remembered));
    world.input(Input::Targets(vec![address(9)]));
    world.run(Duration::from_secs(20));
    assert_eq!(world.homes(), former.homes());
    assert_eq!((world.dialled.len(), world.measured.len(), world.asked.len()), (3, 0, 0));
}

#[test]
fn what_is_asked_and_known_does_not_grow_with_the_network() {
    let mut world = World::settled(1, 250);
    assert_eq!(world.asked.len(), 2, "two sources");
    assert!(world.homes.known.len() <= 2 * usize::from(limits::MEMBERS_ASKED) + 1);
    world.run(Duration::from_mins(25));
    assert_eq!(world.asked.len(), 2);
}

#[test]
fn a_home_that_dies_is_replaced_when_others_say_so() {
    for seed in 0..50 {
        let mut world = World::settled(seed, 12);
        let victim = world.homes()[usize::from(seed as u8 % 3)];
        world.kill(victim);
        world.run(Duration::from_secs(8));
        assert_eq!(world.homes.holding(world.now), 3, "seed {seed}");
        assert_eq!(world.restored.len(), 1);
        assert!(world.restored[0] < Duration::from_secs(3), "{:?} after the news", world.restored);
        world.run(Duration::from_secs(20));
        assert_eq!(world.homes.len(), 3);
        assert!(!world.homes().contains(&victim));
    }
}

#[test]
fn a_home_that_lives_although_others_call_it_gone_makes_four_and_then_three_again() {
    let mut world = World::settled(4, 9);
    let [teller, accused, _] = world.homes()[..] else { panic!("three homes") };
    let members = world.members([], [accused]);
    world.input(Input::Members { from: teller, members });
    world.after(ms(50), Input::Alive(accused));
    world.run(Duration::from_secs(30));
    assert_eq!((world.homes.len(), world.fewest), (3, 3));
    assert!(world.released.iter().all(|(_, why)| *why == Why::Better) && world.released.len() <= 1);
}

#[test]
fn who_loses_two_of_three_homes_has_three_again() {
    for seed in 0..20 {
        let mut world = World::settled(seed, 9);
        let homes = world.homes();
        world.kill(homes[0]);
        world.kill(homes[2]);
        world.run(Duration::from_secs(25));
        assert_eq!(world.homes.holding(world.now), 3, "seed {seed}");
        assert_eq!(world.restored.len(), 1);
    }
}

#[test]
fn a_draining_home_is_left_only_when_another_has_the_list() {
    for seed in 0..50 {
        let mut world = World::settled(seed, 9);
        let ending = world.homes()[usize::from(seed as u8 % 3)];
        world.drain(ending);
        world.run(Duration::from_secs(15));
        assert_eq!(world.released, [(ending, Why::Drained)], "seed {seed}");
        assert_eq!((world.homes.holding(world.now), world.fewest), (3, 3));
        assert!(!world.homes().contains(&ending));
    }
}

#[test]
fn where_nobody_else_is_left_a_draining_home_is_left_at_once_and_the_last_one_not_at_all() {
    let mut world = World::settled(1, 3);
    world.drain(World::peer(1));
    world.run(Duration::from_secs(2));
    assert_eq!((world.released.len(), world.homes.len()), (1, 2));
    world.drain(World::peer(2));
    world.run(Duration::from_secs(2));
    assert_eq!((world.released.len(), world.homes.len()), (2, 1));
    world.drain(World::peer(3));
    world.run(Duration::from_secs(15));
    assert_eq!((world.released.len(), world.homes.len()), (2, 1), "its list is found there until it ends");
}

#[test]
fn a_far_home_is_exchanged_slowly_and_without_a_gap() {
    let mut world = World::settled(1, 9);
    let target = World::peer(1);
    let far = world.homes().into_iter().find(|peer| *peer != target).expect("three homes");
    world.nodes.get_mut(&far).expect("a home").rtt = ms(900);
    world.input(Input::RoundTrip(far, ms(900)));
    world.run(Duration::from_mins(35));
    assert!(world.released.is_empty(), "it may pass");
    world.run(Duration::from_mins(45));
    assert_eq!(world.released, [(far, Why::Better)]);
    assert_eq!((world.homes.len(), world.fewest), (3, 3));
    world.run(Duration::from_hours(10));
    assert_eq!(world.released.len(), 1, "all is well now");
}

#[test]
fn homes_that_are_all_near_are_not_exchanged_and_nothing_is_measured_for_it() {
    let mut world = World::settled(1, 9);
    let measured = world.measured.len();
    world.run(Duration::from_hours(20));
    assert_eq!((world.released.len(), world.measured.len()), (0, measured));
}

#[test]
fn who_is_sent_on_goes_where_there_is_room_and_insists_there() {
    let mut world = World::new(9);
    for number in 1..=5 {
        world.node(number).busy = true;
    }
    world.input(Input::Targets(vec![address(1)]));
    world.run(Duration::from_secs(20));
    assert_eq!(world.dialled[0], (address(1), false));
    assert!(world.dialled[1].1, "it has nowhere else to go");
    assert_eq!(world.homes.holding(world.now), 3);
    assert!(world.homes().iter().filter(|peer| world.nodes[*peer].busy).count() <= 1);
}

#[test]
fn who_is_sent_on_from_everywhere_is_let_in_at_last() {
    let mut world = World::new(9);
    // Whoever names others names one that has no room by then.
    for number in 1..=8 {
        world.node(number).busy = true;
    }
    world.node(9).alive = false;
    world.input(Input::Targets(vec![address(1)]));
    world.run(Duration::from_secs(20));
    assert!(!world.homes.is_empty());
    world.run(Duration::from_mins(5));
    assert_eq!(world.homes.holding(world.now), 3);
}

#[test]
fn who_leaves_dials_nobody() {
    let mut world = World::settled(1, 5);
    let dialled = world.dialled.len();
    world.input(Input::Leave);
    for home in world.homes() {
        world.input(Input::Lost(home));
    }
    world.input(Input::Targets(vec![address(1), address(9)]));
    assert_eq!((world.homes.next_deadline(), world.dialled.len()), (None, dialled));
}

#[test]
fn targets_are_tried_for_ever_with_bounded_pauses() {
    let mut world = World::new(0);
    world.input(Input::Targets(vec![address(1)]));
    for _ in 0..50 {
        let before = world.dialled.len();
        // Three seconds fail, and the pause.
        world.run(Duration::from_secs(3) + limits::REDIAL_MAX.mul_f64(1.25));
        assert!(world.dialled.len() > before);
    }
    assert!(world.dialled.len() < 200);
}

#[test]
fn leaves_that_lose_their_only_home_together_return_one_after_the_other() {
    let mut returns = BTreeSet::new();
    for seed in 0..100 {
        let mut world = World::settled(seed, 1);
        let dialled = world.dialled.len();
        world.input(Input::Lost(World::peer(1)));
        assert_eq!(world.dialled.len(), dialled, "nobody dials at once");
        let before = world.now;
        while world.dialled.len() == dialled {
            world.run(ms(1));
        }
        returns.insert(world.now.since(before).as_millis());
    }
    assert!(returns.len() > 50, "{returns:?}");
    assert!(returns.iter().all(|pause| *pause <= limits::REDIAL_MIN.as_millis() * 2), "{returns:?}");
}

#[test]
fn leaves_that_lose_a_big_home_together_do_not_dial_in_step() {
    let pauses = |capacity| {
        let pause = |seed| {
            let mut world = World::settled(seed, 9);
            let lost = world.homes()[0];
            let known = world.homes.known.get_mut(&lost).expect("it is known");
            known.descriptor.capacity = capacity;
            world.input(Input::Lost(lost));
            let (before, dialled) = (world.now, world.dialled.len());
            if dialled == 0 { Duration::ZERO } else { world.homes.seek_at.since(before) }
        };
        (0..50).map(pause).collect::<BTreeSet<_>>()
    };
    let (small, big) = (pauses(80), pauses(800_000));
    assert!(small.iter().all(|pause| *pause <= ms(10)), "{small:?}");
    assert!(big.iter().all(|pause| *pause <= limits::RETURN_SPREAD), "{big:?}");
    assert!(big.len() > 40 && big.last() > Some(&Duration::from_secs(2)), "{big:?}");
}

#[test]
fn an_address_is_dialled_once_whether_it_is_a_target_or_that_of_a_known_ultrapeer() {
    let mut world = World::settled(1, 1);
    world.node(1).alive = false;
    world.dialled.clear();
    world.input(Input::Lost(World::peer(1)));
    // Each dial takes three seconds to fail.
    for _ in 0..20 {
        let before = world.dialled.len();
        world.run(ms(2_900));
        assert!(world.dialled.len() <= before + 1);
    }
    assert!(world.dialled.len() > 3);
}

#[test]
fn a_home_that_restarts_is_a_home_again() {
    let mut world = World::settled(1, 3);
    world.input(Input::Lost(World::peer(2)));
    world.run(Duration::from_secs(5));
    assert_eq!(world.homes.holding(world.now), 3);
}

#[test]
fn a_home_that_restarts_just_when_the_others_found_it_gone_is_a_home_again() {
    for moves in [false, true] {
        let mut world = World::settled(1, 3);
        world.kill(World::peer(2));
        world.run(Duration::from_secs(6));
        assert_eq!(world.homes.len(), 3, "the old connection is not given up yet");
        let node = world.node(2);
        (node.alive, node.descriptor.sequence) = (true, 2);
        if moves {
            node.descriptor.address = address(9);
        }
        let news = world.signed(&World::peer(2));
        let members = world.members([news], []);
        world.input(Input::Members { from: World::peer(1), members });
        world.run(Duration::from_secs(10));
        assert_eq!(world.homes.holding(world.now), 3, "moves: {moves}");
    }
}

#[test]
fn an_ultrapeer_that_returns_elsewhere_is_dialled_there_although_the_old_dial_is_under_way() {
    let mut world = World::settled(1, 3);
    world.node(2).alive = false;
    world.input(Input::Lost(World::peer(2)));
    world.dialled.clear();
    while world.dialled.is_empty() {
        world.run(ms(1));
    }
    assert_eq!(world.dialled, [(address(2), false)]);
    let node = world.node(2);
    (node.alive, node.descriptor.address, node.descriptor.sequence) = (true, address(9), 2);
    let news = world.signed(&World::peer(2));
    let members = world.members([news], []);
    world.input(Input::Members { from: World::peer(1), members });
    assert_eq!(world.dialled[1..], [(address(9), false)]);
    world.run(Duration::from_secs(5));
    assert_eq!((world.homes.holding(world.now), world.dialled.len()), (3, 2));
}

#[test]
fn a_lost_home_that_the_others_found_gone_is_not_dialled() {
    let mut world = World::settled(1, 3);
    world.kill(World::peer(2));
    world.run(Duration::from_secs(9));
    world.dialled.clear();
    world.run(Duration::from_mins(5));
    assert_eq!((world.homes.len(), world.dialled.len()), (2, 0), "two homes of two ultrapeers");
}

#[test]
fn a_distrusted_home_is_left_once_there_is_another_and_not_chosen_while_there_are() {
    for seed in 0..10 {
        let mut world = World::settled(seed, 4);
        let liar = world.homes()[0];
        world.input(Input::Distrust(liar));
        assert!(!world.homes.serves(world.now, &liar) && world.homes.is_distrusted(world.now, &liar));
        world.run(Duration::from_secs(30));
        assert_eq!(world.released, [(liar, Why::Distrusted)], "{seed}");
        assert_eq!((world.homes.len(), world.homes().contains(&liar)), (3, false));
        // Of three that are left one more goes: two are better than a liar.
        let next = world.homes()[0];
        world.input(Input::Distrust(next));
        world.run(Duration::from_hours(1));
        assert_eq!(world.homes().len(), 2, "{seed}");
        assert!(!world.homes().contains(&liar) && !world.homes().contains(&next));
        // In the end it is forgiven.
        world.run(limits::HOME_DISTRUST + limits::REFUSED_PAUSE * 2);
        assert_eq!(world.homes().len(), 3);
    }
}

#[test]
fn a_distrusted_home_stays_while_it_is_the_only_one() {
    let mut world = World::settled(1, 1);
    let only = world.homes()[0];
    world.input(Input::Distrust(only));
    world.run(Duration::from_hours(1));
    assert_eq!((&world.homes()[..], world.released.len()), (&[only][..], 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever dies, drains, moves and comes back: with an ultrapeer that lives, and time, the leaf has as many homes
    /// as it can have, and all of them live.
    #[test]
    fn there_are_as_many_homes_as_there_can_be(
        seed: u64,
        count in 2_u8..12,
        steps in proptest::collection::vec((0_u8..4, 1_u8..12, 0_u64..20_000), 0..12),
    ) {
        let mut world = World::settled(seed, count);
        for (what, number, pause) in steps {
            let number = 1 + number % count;
            let peer = World::peer(number);
            let alive = world.nodes.values().filter(|node| node.alive).count();
            match what {
                0 if world.nodes[&peer].alive && alive > 1 => world.kill(peer),
                1 if world.nodes[&peer].alive && alive > 1 => {
                    world.drain(peer);
                    world.after(Duration::from_secs(20), Input::Lost(peer));
                }
                2 => world.node(number).busy = !world.nodes[&peer].busy,
                3 if !world.nodes[&peer].alive && !world.homes().contains(&peer) => {
                    let node = world.node(number);
                    (node.alive, node.descriptor.sequence) = (true, node.descriptor.sequence + 1);
                    let news = world.signed(&peer);
                    for home in world.homes() {
                        let members = world.members([news.clone()], []);
                        world.after(ms(5), Input::Members { from: home, members });
                    }
                }
                _ => {}
            }
            world.run(ms(pause));
        }
        (1..=count).for_each(|number| world.node(number).busy = false);
        // The leaf can always ask where it joined.
        let any = world.nodes.values().find(|node| node.alive).expect("one lives").descriptor.address;
        world.input(Input::Targets(vec![any]));
        world.run(Duration::from_mins(5));
        let alive: BTreeSet<_> = world.nodes.iter().filter(|(_, node)| node.alive).map(|(peer, _)| *peer).collect();
        let homes = world.homes();
        prop_assert!(homes.iter().all(|home| alive.contains(home)), "a dead home is kept");
        prop_assert_eq!(homes.len(), alive.len().min(limits::HOMES));
    }
}

#[test]
fn an_address_that_no_home_told_of_is_dialled_once_an_hour_whatever_keys_it_is_given() {
    let victim = address(200);
    let named = |key: u8, sequence| {
        let identity = Identity::from_seed([key; 32]);
        let descriptor = Descriptor {
            peer: identity.peer_id(),
            network: network_tag("test"),
            address: victim,
            shard: ShardPrefix::ALL,
            capacity: 100,
            sequence,
            lifetime_s: 7_200,
            admission: 0,
            volunteer: false,
        };
        descriptor.sign_endorsed(&identity, [])
    };
    let (mut homes, mut rng) = (Homes::new(ME, "test"), Pcg32::new(1, 1));
    let (mut now, mut dials) = (Time(1), Vec::new());
    let second = Duration::from_secs(1);
    for round in 0..2 * 3_600_u64 {
        let mut out = Outbox::new();
        let mut cx = Context::new(now, &mut rng);
        let key = (round % 100) as u8 + 1;
        homes.handle(&mut cx, Input::Named(vec![named(key, round)]), &mut out);
        if homes.next_deadline().is_some_and(|due| due <= now) {
            homes.on_deadline(&mut cx, &mut out);
        }
        let dialled =
            out.drain().filter(|output| matches!(output, Output::Dial { address, .. } if *address == victim)).count();
        for _ in 0..dialled {
            dials.push(now);
            homes.handle(&mut Context::new(now + second, &mut rng), Input::DialFailed(victim), &mut Outbox::new());
        }
        assert!(homes.remember().is_empty(), "nothing that may be made up is named to others");
        now += second;
    }
    assert_eq!(dials.len(), 2, "{dials:?}");
    assert!(dials[1].since(dials[0]) >= limits::HINT_AGAIN);
}
