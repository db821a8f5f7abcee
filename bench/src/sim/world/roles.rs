//! Leaves that become ultrapeers and leaves again: the world as the driver of roles, of contacts between leaves, and of
//! dial-backs.
//!
//! Whether and when is decided by the leaf's core and the ultrapeer's, as in the program; the world starts the one for the
//! other, under the same key and at the same address.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use leaf::{
    candidacy::{Machinery, Power},
    founding::{Begin, Role, Willing},
    homes::Own,
    network,
};
use overlay::{
    election::{Finding, Missed},
    id::PeerId,
    limits,
    time::Time,
    wire::{
        descriptor::{Descriptor, ShardPrefix, SignedDescriptor, network_tag},
        hello::{Contact, Situation},
    },
};
use rand::RngExt;
use ultrapeer::ultrapeer::{Input, Phase};

use super::{
    super::{draw, elections::VICTIM, scenario::Election},
    Event, FIRST_LEAF, Plan, World,
    plan::identity,
};

/// The rate at which an ultrapeer that was none before sends, in kbit/s.
const UPSTREAM_KBIT: u32 = 50_000;
/// Time between two looks while the whole run is short, and while it is long.
const CENSUS: Duration = Duration::from_secs(1);
/// See [`CENSUS`].
const CENSUS_LONG: Duration = Duration::from_secs(30);
/// Seconds from which on a run is long.
const LONG_S: f64 = 7_200.0;

/// What a leaf is like, whatever it says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nature {
    /// It would serve.
    willing: bool,
    /// It can be dialled.
    reachable: bool,
    /// Kilobits a second that it sends.
    kbit: u32,
    /// It names another's address as its own.
    lies: bool,
}

/// An ultrapeer that is a leaf, too.
#[derive(Debug)]
pub(super) struct Elected {
    /// Which leaf.
    pub(super) leaf: u32,
    life: u32,
    begin: Begin,
    /// From when it was let in until it hands over its leaves.
    serves: bool,
    /// What the leaf side was told that it covers.
    told: Option<ShardPrefix>,
    /// The join target that is tried next.
    turn: usize,
}

/// A leaf dials another that is no ultrapeer.
#[derive(Debug)]
pub(super) struct Knock {
    from: (u32, u32),
    to: u32,
    expect: Option<PeerId>,
    situation: Situation,
    until: Time,
}

impl Default for Nature {
    fn default() -> Self {
        Self { willing: false, reachable: true, kbit: UPSTREAM_KBIT, lies: false }
    }
}

impl Nature {
    /// That of a leaf of a run.
    pub(super) fn of(election: &Election, seed: u64, leaf: u32) -> Self {
        let draw = |kind: u64| draw::unit(draw::mix(seed ^ kind, 8, u64::from(leaf)));
        let upstream = election.upstream_mbit * (election.upstream_sigma * draw::normal(draw(1), draw(2))).exp();
        Self {
            willing: draw(3) < election.volunteers,
            reachable: draw(4) >= election.unreachable,
            kbit: (upstream * 1e3) as u32,
            lies: draw(5) < election.liars,
        }
    }
}

impl Knock {
    pub(super) fn whom(&self) -> u64 {
        u64::from(self.from.0) << 32 | u64::from(self.to)
    }
}

impl World {
    /// Tells a leaf that came online what it runs on, what its user wants, and what it remembers.
    pub(super) fn tell_conditions(&mut self, leaf: u32) {
        let memory = self.scenario.memory();
        let node = &mut self.leaves[leaf as usize];
        let (life, volunteers) = (node.life, std::mem::take(&mut node.volunteers));
        let willing = if node.nature.willing { Willing::Auto } else { Willing::Never };
        let machinery = Machinery { memory, power: Power::Mains, is_metered: false };
        for input in [
            network::Input::Willing(willing),
            network::Input::Conditions(machinery),
            network::Input::Volunteers(volunteers),
            network::Input::Sources(true),
        ] {
            self.leaf_input(leaf, life, input);
        }
    }

    // --- who is at an address ---------------------------------------------------------------------

    /// The ultrapeer that answers at an address.
    pub(super) fn up_at(&self, address: SocketAddr) -> Option<u32> {
        let up = self.by_address.get(&address).copied()?;
        let node = &self.ultrapeers[up as usize];
        let dialled = node.elected.as_ref().is_none_or(|elected| self.leaves[elected.leaf as usize].nature.reachable);
        (node.alive && dialled).then_some(up)
    }

    /// The ultrapeer to which the hello of a leaf goes at an address. A candidate has no place for leaves, so the leaf
    /// that it is answers them.
    pub(super) fn up_for_leaves(&self, address: SocketAddr) -> Option<u32> {
        let up = self.by_address.get(&address).copied()?;
        let node = &self.ultrapeers[up as usize];
        let serves = self.up_at(address).is_some() && node.machine.phase() != Phase::Candidate;
        (node.elected.is_none() || serves).then_some(up)
    }

    /// The leaf that answers at an address.
    fn leaf_at(&self, address: SocketAddr) -> Option<u32> {
        let leaf = self.leaf_at.get(&address).copied()?;
        let node = &self.leaves[leaf as usize];
        (node.core.is_some() && node.nature.reachable).then_some(leaf)
    }

    // --- leaves that dial leaves ------------------------------------------------------------------

    /// A leaf dials one that may be an ultrapeer by now.
    pub(super) fn dial_contact(&mut self, leaf: u32, Contact { peer, address }: Contact) {
        let Some(up) = self.up_for_leaves(address) else {
            return self.dial_leaf(leaf, address, Some(peer), limits::CONTACT_TIMEOUT);
        };
        let life = self.leaves[leaf as usize].life;
        let at = self.hello_arrives(FIRST_LEAF + leaf, up);
        self.plan(at, Event::LeafHello { leaf, life, up, expect: Some(peer), insists: false, contact: true });
    }

    /// A leaf dials an address where no ultrapeer is.
    pub(super) fn dial_leaf(&mut self, leaf: u32, address: SocketAddr, expect: Option<PeerId>, patience: Duration) {
        let (life, node) = (self.leaves[leaf as usize].life, FIRST_LEAF + leaf);
        let why = if patience == limits::CONTACT_TIMEOUT { "a contact" } else { "a home" };
        self.measures.elections.sent_to(address, patience, why);
        let until = self.now + patience;
        let there = self.leaf_at(address).filter(|to| *to != leaf && self.reachable(node, FIRST_LEAF + to));
        let core = self.leaves[leaf as usize].core.as_ref();
        let (Some(to), Some(core)) = (there, core) else {
            let failed = Box::new(network::Input::DialFailed(address));
            return self.plan(until, Event::Leaf(leaf, life, failed));
        };
        let situation = core.founding().situation();
        let at = self.hello_arrives(node, FIRST_LEAF + to);
        let knock = Knock { from: (leaf, life), to, expect, situation, until };
        self.plan(at.min(until), Event::Knock(Box::new(knock)));
    }

    /// A leaf hears another: it says how it stands, and whom it knows.
    pub(super) fn knocked(&mut self, knock: Knock) {
        let Knock { from: (leaf, life), to, expect, situation, until } = knock;
        let target = &self.leaves[to as usize];
        let (peer, address, to_life) = (target.identity.peer_id(), target.address, target.life);
        let is_there = target.core.is_some() && expect.is_none_or(|expect| expect == peer) && self.now < until;
        if !is_there || self.leaves[leaf as usize].life != life {
            let failed = Box::new(network::Input::DialFailed(address));
            return self.plan(until.max(self.now), Event::Leaf(leaf, life, failed));
        }
        let from = &self.leaves[leaf as usize];
        let asker = Contact { peer: from.identity.peer_id(), address: from.address };
        self.leaf_input(to, to_life, network::Input::Knocked(asker, situation));
        let named_ups = self.named_by_leaf(to);
        let Some(core) = self.leaves[to as usize].core.as_ref() else { return };
        let (situation, mut named) = (core.founding().situation(), core.founding().named_to(self.now, &asker));
        if self.leaves[to as usize].nature.lies {
            named.insert(0, Contact { peer: PeerId(self.rng.random()), address: VICTIM });
            named.truncate(limits::CONTACTS_NAMED);
        }
        let contact = Contact { peer, address };
        let at = self.now + self.round_trip(FIRST_LEAF + leaf, FIRST_LEAF + to) / 2;
        let answered = network::Input::Answered { contact, situation, named };
        self.plan(at, Event::Leaf(leaf, life, Box::new(answered)));
        self.plan(at, Event::Leaf(leaf, life, Box::new(network::Input::Refused(address, named_ups))));
    }

    /// Ultrapeers that a leaf names to those who take it for one.
    fn named_by_leaf(&self, leaf: u32) -> Vec<SignedDescriptor> {
        let node = &self.leaves[leaf as usize];
        let mut named = node.core.as_ref().map(|core| core.homes().remember()).unwrap_or_default();
        if node.nature.lies {
            let descriptor = Descriptor {
                peer: node.identity.peer_id(),
                network: network_tag(self.scenario.asks().network()),
                address: VICTIM,
                shard: ShardPrefix::ALL,
                capacity: limits::LEAVES_OF_ULTRAPEER,
                sequence: self.now.as_micros(),
                lifetime_s: limits::DESCRIPTOR_LIFETIME_S,
                admission: 1,
                volunteer: false,
            };
            named.insert(0, descriptor.sign_endorsed(&node.identity, []));
        }
        named.truncate(limits::ALTERNATIVES);
        named
    }

    // --- ultrapeers that dial addresses -----------------------------------------------------------

    /// An ultrapeer dials an address. `joining` asks to be let in; whoever is there will do then.
    pub(super) fn dial_address(&mut self, up: u32, address: SocketAddr, expect: Option<PeerId>, joining: bool) {
        let to = self.by_address.get(&address).copied();
        let is_leaf = to.is_none_or(|to| self.ultrapeers[to as usize].elected.is_some());
        let to = if is_leaf { self.up_at(address) } else { to };
        match (to, self.leaf_at(address)) {
            (None, Some(leaf)) if self.reachable(up, FIRST_LEAF + leaf) => {
                let answered = self.now + self.round_trip(up, FIRST_LEAF + leaf) * 2;
                let named = self.named_by_leaf(leaf);
                self.plan(answered, Event::Up(up, Box::new(Input::Named(named))));
                if let Some(peer) = expect {
                    self.dial_failed(up, peer, answered);
                }
            }
            (to, _) => {
                if to.is_none() {
                    self.measures.elections.sent_to(address, limits::DIAL_TIMEOUT, "another ultrapeer");
                }
                self.dial_mesh(up, to, expect, joining);
            }
        }
    }

    /// An ultrapeer dials a candidate or a leaf of its own back: it finds what is so.
    pub(super) fn dial_back(&mut self, up: u32, peer: PeerId, address: SocketAddr, measured: bool) {
        self.measures.elections.sent_to(address, limits::DIAL_BACK_TIMEOUT, "a candidate");
        let leaf = self.leaf_at.get(&address).copied();
        let leaf = leaf.filter(|leaf| self.leaves[*leaf as usize].identity.peer_id() == peer);
        let (there, kbit) = match leaf {
            Some(leaf) => (self.leaf_at(address).map(|leaf| FIRST_LEAF + leaf), self.leaves[leaf as usize].nature.kbit),
            None => {
                let to = self.up_at(address).filter(|to| self.ultrapeers[*to as usize].peer == peer);
                (to, UPSTREAM_KBIT)
            }
        };
        let there = there.filter(|to| self.reachable(up, *to));
        let sending = Duration::from_secs_f64(f64::from(limits::MEASURE_BYTES) * 8.0 / 1e3 / f64::from(kbit.max(1)));
        let sending = if measured { sending.min(limits::MEASURE_TIMEOUT) } else { Duration::ZERO };
        let after = there.map_or(limits::DIAL_BACK_TIMEOUT, |to| self.round_trip(up, to) * 2 + sending);
        let found =
            there.map(|_| Finding { rate_kbit: measured.then_some(kbit), loss_ppm: None }).ok_or(Missed::Silent);
        self.plan(self.now + after, Event::Up(up, Box::new(Input::DialledBack(peer, address, found))));
    }

    // --- roles --------------------------------------------------------------------------------------

    /// The leaf's core wants it to be an ultrapeer.
    pub(super) fn begins(&mut self, leaf: u32, life: u32, begin: Begin) {
        let node = &self.leaves[leaf as usize];
        if node.life != life || node.core.is_none() {
            return;
        }
        if let Some(own) = node.own {
            match self.ultrapeers[own as usize].machine.phase() {
                // One that ends must have ended before another begins.
                Phase::Draining { .. } => {
                    return self.plan(self.now + CENSUS, Event::Plan(Plan::Begins(leaf, life, begin)));
                }
                Phase::Candidate => self.end_role(own),
                Phase::Admitted | Phase::Founder => return,
            }
        }
        let Some(core) = self.leaves[leaf as usize].core.as_ref() else { return };
        let (invitations, known) = (core.candidacy().invitations(), core.homes().remember());
        let contacts = core.founding().contacts();
        let (address, nature) = (self.leaves[leaf as usize].address, self.leaves[leaf as usize].nature);
        let identity = Arc::new(identity(self.scenario.seed, 7, leaf));
        let up = self.add_up(identity, address, true, invitations);
        let node = &mut self.ultrapeers[up as usize];
        (node.alive, node.place) = (true, FIRST_LEAF + leaf);
        node.elected = Some(Elected { leaf, life, begin, serves: false, told: None, turn: 0 });
        self.leaves[leaf as usize].own = Some(up);
        self.measures.elections.candidates += 1;
        self.leaf_input(leaf, life, network::Input::Role(Role::Candidate, None));
        self.up_input(up, Input::Address(if nature.lies { VICTIM } else { address }));
        self.up_input(up, Input::Contacts(contacts));
        self.up_input(up, Input::Remembered(known));
        if begin.founds() {
            return self.up_input(up, Input::Found);
        }
        self.join_targets(up, limits::REDIAL_MIN);
        if let Some(patience) = begin.patience() {
            self.plan(self.now + patience, Event::Plan(Plan::GivesUp(up)));
        }
    }

    /// An ultrapeer was let in, or began the network.
    pub(super) fn admitted(&mut self, up: u32) {
        self.measures.elections.serves(self.now);
        let node = &mut self.ultrapeers[up as usize];
        let Some(elected) = node.elected.as_mut() else { return };
        elected.serves = true;
        let (leaf, life, begin) = (elected.leaf, elected.life, elected.begin);
        self.measures.elections.role_changed(self.now, (leaf, life), true);
        self.tell_own(up);
        if begin.founds() {
            self.join_targets(up, limits::REDIAL_MIN);
        }
    }

    /// Tells the leaf side what its own ultrapeer covers, if that is news.
    pub(super) fn tell_own(&mut self, up: u32) {
        let node = &mut self.ultrapeers[up as usize];
        let Some(elected) = node.elected.as_mut().filter(|elected| elected.serves) else { return };
        let (shard, address) = (node.machine.membership().shard(), node.address);
        if elected.told.replace(shard) != Some(shard) {
            let (leaf, life) = (elected.leaf, elected.life);
            self.leaf_input(leaf, life, network::Input::Role(Role::Ultrapeer, Some(Own { address, shard })));
        }
    }

    /// A candidate that was not let in for so long is a leaf again.
    pub(super) fn gives_up(&mut self, up: u32) {
        let node = &self.ultrapeers[up as usize];
        let Some(elected) = node.elected.as_ref().filter(|_| node.alive) else { return };
        if node.machine.phase() != Phase::Candidate {
            return;
        }
        let (leaf, life, hurdle) = (elected.leaf, elected.life, node.machine.hurdle());
        self.measures.elections.gave_up(hurdle);
        self.leaf_input(leaf, life, network::Input::Hurdle(hurdle));
        self.end_role(up);
    }

    /// An ultrapeer need not serve any more.
    pub(super) fn retire(&mut self, up: u32) {
        if self.ultrapeers[up as usize].elected.is_some() { self.end_role(up) } else { self.up_input(up, Input::Drain) }
    }

    /// A leaf's ultrapeer hands over its leaves, or is given up if it had none.
    fn end_role(&mut self, up: u32) {
        let node = &mut self.ultrapeers[up as usize];
        let Some(elected) = node.elected.as_mut().filter(|_| node.alive) else { return };
        let (leaf, life, served) = (elected.leaf, elected.life, std::mem::take(&mut elected.serves));
        self.leaf_input(leaf, life, network::Input::Role(Role::Leaf, None));
        if served {
            self.measures.elections.role_changed(self.now, (leaf, life), false);
            self.up_input(up, Input::Drain);
        } else {
            self.stop_up(up, true);
        }
    }

    /// The program of a leaf ends, and with it its ultrapeer.
    pub(super) fn host_stops(&mut self, leaf: u32, orderly: bool) {
        let Some(up) = self.leaves[leaf as usize].own else { return };
        let serves = self.ultrapeers[up as usize].elected.as_mut().is_some_and(|node| std::mem::take(&mut node.serves));
        self.measures.elections.hosts_stopped += u64::from(serves);
        if orderly && serves {
            self.up_input(up, Input::Drain);
        } else {
            self.stop_up(up, orderly);
        }
    }

    /// An ultrapeer runs no more.
    pub(super) fn role_ends(&mut self, up: u32) {
        let Some(elected) = self.ultrapeers[up as usize].elected.as_mut() else { return };
        elected.serves = false;
        let own = &mut self.leaves[elected.leaf as usize].own;
        if *own == Some(up) {
            *own = None;
        }
    }

    /// Tries the join targets of a leaf that is an ultrapeer, or wants to be: all until it serves and while there are few
    /// others, then one at a time.
    pub(super) fn join_targets(&mut self, up: u32, pause: Duration) {
        let node = &mut self.ultrapeers[up as usize];
        let phase = node.machine.phase();
        let small = node.machine.membership().total() <= limits::SMALL_NETWORK;
        let Some(elected) = node.elected.as_mut().filter(|_| node.alive) else { return };
        if matches!(phase, Phase::Draining { .. }) {
            return;
        }
        let targets = self.leaves[elected.leaf as usize].targets.clone();
        let turn = elected.turn.checked_rem(targets.len()).unwrap_or(0);
        elected.turn += 1;
        let own = node.address;
        for (number, target) in targets.into_iter().enumerate() {
            if target != own && (phase == Phase::Candidate || small || number == turn) {
                self.dial_address(up, target, None, true);
            }
        }
        let most = if phase == Phase::Candidate { limits::REDIAL_MAX } else { limits::GONE_REDIAL };
        let next = (pause * 2).min(most);
        self.plan(self.now + next, Event::Plan(Plan::UpJoins(up, next)));
    }

    // --- abuse --------------------------------------------------------------------------------------

    /// One owner of a few networks asks to be let in with many keys.
    pub(super) fn crowd_comes(&mut self) {
        let Some(election) = self.scenario.election else { return };
        for number in 0..election.crowd {
            let address = crowd_address(number, election.crowd_prefixes);
            let up = self.add_up(Arc::new(identity(self.scenario.seed, 9, number)), address, false, Vec::new());
            self.ultrapeers[up as usize].of_crowd = true;
            let at = self.now + limits::REDIAL_MAX.mul_f64(self.rng.random_range(0.0..1.0));
            self.plan(at, Event::Plan(Plan::UpStarts(up)));
        }
    }

    // --- looks --------------------------------------------------------------------------------------

    /// Counts who serves and who is attached.
    pub(super) fn census(&mut self) {
        let Some(election) = self.scenario.election else { return };
        let serves = |up: &&super::Up| up.alive && matches!(up.machine.phase(), Phase::Admitted | Phase::Founder);
        let listed = |leaf: &&u32| {
            let homes = &self.leaves[**leaf as usize].homes;
            homes.iter().any(|(up, session)| {
                self.ultrapeers[*up as usize].alive && self.sessions[*session as usize].acknowledged > 0
            })
        };
        let serving: Vec<_> = self.ultrapeers.iter().filter(serves).collect();
        let attached = self.online.iter().filter(listed).count();
        let crowd = if election.crowd == 0 { 0 } else { self.crowd_places(&serving) };
        let loads = serving.iter().map(|up| up.machine.leaves().len() as f64 / f64::from(election.capacity)).collect();
        let serving = serving.len();
        let all = Some(self.online.len()).filter(|online| *online >= self.scenario.leaves as usize);
        self.measures.elections.look(self.now, (self.online.len(), attached), serving, loads, crowd, all);
        let pause = if self.scenario.end() < LONG_S { CENSUS } else { CENSUS_LONG };
        self.plan(self.now + pause, Event::Plan(Plan::Census));
    }

    /// Keys of the crowd that one of the others takes for members: the most.
    fn crowd_places(&self, serving: &[&super::Up]) -> usize {
        let is_of_crowd =
            |peer: &PeerId| self.by_peer.get(peer).is_some_and(|up| self.ultrapeers[*up as usize].of_crowd);
        let others = serving.iter().filter(|up| !up.of_crowd);
        let taken =
            |up: &&super::Up| up.machine.membership().iter().filter(|(member, _)| is_of_crowd(&member.peer)).count();
        others.map(taken).max().unwrap_or(0)
    }
}

/// Where a leaf's packets come from: each in a /24 of its own, or all in so many.
pub(super) fn leaf_address(leaf: u32, prefixes: u32) -> SocketAddr {
    let place = if prefixes == 0 { leaf } else { leaf % prefixes };
    let [low, middle, high] = [place % 40, place / 40 % 256, place / 10_240 % 256].map(|part| part as u8);
    let within = leaf.checked_div(prefixes).unwrap_or(0);
    let port = 7_780 + (within / 200) as u16;
    SocketAddr::from(([128 + low, middle, high, 9 + (within % 200) as u8], port))
}

/// Where a key of the crowd is.
fn crowd_address(number: u32, prefixes: u32) -> SocketAddr {
    let (place, within) = (number % prefixes, number / prefixes);
    let [low, middle, host] = [place % 20, place / 20, within % 250].map(|part| part as u8);
    SocketAddr::from(([200 + low, middle, 1, 1 + host], 7_780 + (within / 250) as u16))
}
