//! What the scenario does to the world: nodes that come and go, searches, faults, and looks at what became of them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use leaf::{
    founding::Begin,
    search::{End, Request},
};
use overlay::{
    id::HandleSalt,
    identity::Identity,
    limits,
    machine::Context,
    time::Time,
    wire::{bounded::Text, election::Invitation, search::Target},
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg32;
use ultrapeer::{
    leaves::Settings,
    ultrapeer::{Input, Phase, Terms, Ultrapeer},
};

use super::{
    super::{
        churn, draw,
        measure::{Burst, Copy, Lie},
        scenario::{Fault, FaultKind},
        traffic::Line,
        workload::{Class, EPOCH_S, Query},
    },
    Event, FIRST_LEAF, Leaf, Up, World,
    roles::{self, Nature},
};

/// The part of the settling time in which nodes join, ultrapeers before leaves.
const JOINING: f64 = 0.5;
/// Time between two looks at who knows of deaths and who has its homes back.
const LOOK: Duration = Duration::from_millis(250);
/// Looks after a fault; then whoever has no homes is counted as such.
const LOOKS: u32 = 480;
/// Milliseconds after a fault at which a burst of searches begins.
const BURSTS_MS: [u32; 10] = [10, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 30_000, 60_000];
/// The same for ultrapeers that lie, which are found out in minutes: later bursts as well.
const LYING_BURSTS_MS: [u32; 6] = [120_000, 180_000, 300_000, 600_000, 900_000, 1_200_000];
/// More of them, where ultrapeers must be elected first.
const MORE_BURSTS_MS: [u32; 6] = [20_000, 25_000, 40_000, 90_000, 120_000, 300_000];
/// Searches of a burst.
const BURST: u32 = 50;
/// Seconds after a file was added, or its leaf went, at which it is searched for.
const AGES_S: [u8; 5] = [1, 2, 3, 5, 10];
/// The longest that a leaf waits with telling its homes of a change, as its shares do.
const BATCHING: Duration = Duration::from_secs(1);
/// Holders that an explanation names.
const HOLDERS: usize = 8;
/// Searches that said what is not so which are explained.
const LIES: usize = 20;
/// The least time between two departures that are followed by searches for what went.
const GONE_PROBES: Duration = Duration::from_secs(2);

/// What happens by plan.
#[derive(Debug)]
pub enum Plan {
    /// An ultrapeer starts.
    UpStarts(u32),
    /// It asks to be let in, again after that pause.
    UpJoins(u32, Duration),
    /// It dies, and another takes its place.
    UpDies(u32),
    /// A leaf comes online.
    LeafStarts(u32),
    /// It goes, if it is still in that life.
    LeafStops(u32, u32),
    /// Some leaf searches, and so on.
    Searches,
    /// A leaf adds a file, and so on.
    Freshens,
    /// It has hashed the file, at that time, and tells its homes.
    Changed(u32, Time),
    /// Some leaf searches for exactly that, if its leaf is (or is not) online.
    Probe(u32, bool, Box<Query>),
    /// A fault happens.
    Fault(u32),
    /// Searches of a burst after a fault.
    Burst(Burst),
    /// Packets pass again.
    Heals,
    /// A look at what a fault did.
    Look(u32, Box<Aftermath>),
    /// Counting of bytes begins.
    Counts,
    /// A leaf becomes an ultrapeer, if it is still in that life.
    Begins(u32, u32, Begin),
    /// A candidate that was not let in gives up.
    GivesUp(u32),
    /// One owner's many keys ask to be let in.
    CrowdComes,
    /// A look at who serves and who is attached.
    Census,
}

/// Who died, and who has not noticed or not recovered yet.
#[derive(Debug)]
pub struct Aftermath {
    at: Time,
    unaware: Vec<(u32, u32)>,
    unrestored: Vec<(u32, u32)>,
}

/// What an ultrapeer carries.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Attached leaves.
    pub leaves: u32,
    /// Leaves that it takes.
    pub capacity: u32,
    /// Bytes on its line since counting began.
    pub line: Line,
    /// Bytes of its index with all digests, by its own account.
    pub index_bytes: u64,
    /// Leaves elsewhere whose digests it has.
    pub digests: u64,
    /// Bytes of these digests.
    pub digest_bytes: u64,
}

impl Plan {
    pub(super) fn whom(&self) -> u64 {
        match self {
            Self::UpStarts(node) | Self::UpJoins(node, _) | Self::UpDies(node) | Self::GivesUp(node) => {
                u64::from(*node)
            }
            Self::Begins(leaf, ..) => u64::from(*leaf),
            Self::LeafStarts(leaf) | Self::LeafStops(leaf, _) | Self::Changed(leaf, _) | Self::Probe(leaf, ..) => {
                u64::from(*leaf)
            }
            Self::Fault(fault) | Self::Burst((fault, _)) | Self::Look(fault, _) => u64::from(*fault),
            Self::Searches | Self::Freshens | Self::Heals | Self::Counts | Self::CrowdComes | Self::Census => 0,
        }
    }
}

impl World {
    /// Plans the whole run.
    pub(super) fn begin(&mut self) {
        let settle = self.scenario.settled();
        let joining = settle.mul_f64(JOINING);
        for number in 0..self.scenario.ultrapeers {
            let at = if number == 0 { Duration::ZERO } else { joining.mul_f64(self.rng.random_range(0.02..0.3)) };
            let up = self.make_up();
            self.plan(Time::ZERO + at, Event::Plan(Plan::UpStarts(up)));
        }
        let lying: f64 =
            self.scenario.faults.iter().filter(|fault| fault.kind == FaultKind::Lying).map(|fault| fault.share).sum();
        self.ultrapeers_lie(lying);
        for leaf in 0..self.library.leaves() {
            self.make_leaf(leaf);
        }
        if self.scenario.election.is_some() {
            self.plan(Time::ZERO, Event::Plan(Plan::Census));
            self.plan(Time::ZERO + settle, Event::Plan(Plan::CrowdComes));
        }
        // Leaves beyond those that are online at the start are away, and come when they come.
        for leaf in 0..self.library.leaves() {
            let begin = joining.mul_f64(self.rng.random_range(0.4..1.0));
            let at = if leaf < self.scenario.leaves {
                Some(begin)
            } else if self.scenario.churn.leaves == super::super::scenario::Sessions::Endless {
                None // they come with a flash crowd
            } else {
                self.scenario.churn.leaves.draw_rest(&mut self.rng)
            };
            if let Some(at) = at {
                self.plan(Time::ZERO + at, Event::Plan(Plan::LeafStarts(leaf)));
            }
        }
        for (number, fault) in (0..).zip(self.scenario.faults.clone()) {
            self.plan(Time::ZERO + settle + Duration::from_secs_f64(fault.at_s), Event::Plan(Plan::Fault(number)));
        }
        let begin = Time::ZERO + settle;
        self.plan(begin, Event::Plan(Plan::Counts));
        if self.scenario.workload.queries_per_hour > 0.0 {
            self.plan(begin, Event::Plan(Plan::Searches));
        }
        if self.scenario.workload.fresh_per_hour > 0.0 {
            self.plan(begin, Event::Plan(Plan::Freshens));
        }
    }

    fn make_up(&mut self) -> u32 {
        let number = self.ultrapeers.len() as u32;
        let identity = Arc::new(identity(self.scenario.seed, 4, number));
        self.add_up(identity, up_address(number), false, Vec::new())
    }

    /// Adds an ultrapeer that has not started.
    pub(super) fn add_up(
        &mut self,
        identity: Arc<Identity>,
        address: SocketAddr,
        volunteer: bool,
        invitations: Vec<Invitation>,
    ) -> u32 {
        let number = self.ultrapeers.len() as u32;
        let peer = identity.peer_id();
        let mut rng = Pcg32::seed_from_u64(draw::mix(self.scenario.seed, 5, u64::from(number)));
        let mut settings = Settings { memory: self.scenario.memory(), ..Settings::default() };
        if let Some(election) = self.scenario.election {
            settings.max_leaves = election.capacity;
        }
        let asks = self.scenario.asks();
        let terms = Terms { regime: asks.regime(), volunteer, invitations };
        let mut cx = Context::new(self.now, &mut rng);
        let machine = Ultrapeer::new(identity, asks.network(), settings, terms, EPOCH_S, &mut cx);
        self.by_address.insert(address, number);
        let earlier = self.by_peer.insert(peer, number);
        self.ultrapeers.push(Up {
            machine,
            rng,
            peer,
            address,
            alive: false,
            lies: false,
            links: Vec::new(),
            due: u64::MAX,
            line: Line::default(),
            since: self.now,
            place: number,
            elected: None,
            earlier,
            of_crowd: false,
        });
        number
    }

    fn make_leaf(&mut self, number: u32) {
        let seed = self.scenario.seed;
        let address = roles::leaf_address(number, self.scenario.election.map_or(0, |election| election.prefixes));
        self.leaf_at.insert(address, number);
        self.leaves.push(Leaf {
            core: None,
            rng: Pcg32::seed_from_u64(draw::mix(seed, 6, u64::from(number))),
            identity: Box::new(identity(seed, 7, number)),
            life: 0,
            salt: HandleSalt::default(),
            since: Time::ZERO,
            advertised: None,
            place: 0,
            due: u64::MAX,
            homes: Vec::new(),
            asks: Vec::new(),
            list: None,
            sequence: 0,
            remembered: Vec::new(),
            volunteers: Vec::new(),
            targets: Vec::new(),
            address,
            nature: self.scenario.election.map(|election| Nature::of(&election, seed, number)).unwrap_or_default(),
            own: None,
            line: Line::default(),
            active: false,
        });
    }

    pub(super) fn carry_out_plan(&mut self, plan: Plan) {
        match plan {
            Plan::UpStarts(up) => self.up_starts(up),
            Plan::UpJoins(up, pause) => self.join(up, pause),
            Plan::UpDies(up) => {
                self.stop_up(up, false);
                let after = Duration::from_secs_f64(self.scenario.churn.replaced_after_s);
                let next = self.make_up();
                self.plan(self.now + after, Event::Plan(Plan::UpStarts(next)));
            }
            Plan::LeafStarts(leaf) => {
                self.start_leaf(leaf);
                let settling = self.now < Time::ZERO + self.scenario.settled();
                let sessions = self.scenario.churn.leaves;
                let session = if settling { sessions.draw_rest(&mut self.rng) } else { sessions.draw(&mut self.rng) };
                if let Some(session) = session {
                    let life = self.leaves[leaf as usize].life;
                    self.plan(self.now + session, Event::Plan(Plan::LeafStops(leaf, life)));
                }
            }
            Plan::LeafStops(leaf, life) => self.leaf_stops(leaf, life),
            Plan::Searches => {
                let an_hour = self.scenario.workload.queries_per_hour * self.online.len().max(1) as f64;
                let wait = draw::exponential(&mut self.rng, 3_600.0 / an_hour);
                self.plan(self.now + Duration::from_secs_f64(wait), Event::Plan(Plan::Searches));
                self.someone_searches(None);
            }
            Plan::Freshens => {
                let wait = draw::exponential(&mut self.rng, 3_600.0 / self.scenario.workload.fresh_per_hour);
                self.plan(self.now + Duration::from_secs_f64(wait), Event::Plan(Plan::Freshens));
                self.someone_adds();
            }
            Plan::Changed(leaf, hashed) => self.file_hashed(leaf, hashed),
            Plan::Probe(leaf, online, query) => {
                if self.leaves[leaf as usize].core.is_some() == online {
                    self.search_for(*query, None);
                }
            }
            Plan::Fault(number) => self.fault(number),
            Plan::Burst(burst) => (0..BURST).for_each(|_| self.someone_searches(Some(burst))),
            Plan::Heals => self.heal(),
            Plan::Look(left, aftermath) => self.look(left, *aftermath),
            Plan::Begins(leaf, life, begin) => self.begins(leaf, life, begin),
            Plan::GivesUp(up) => self.gives_up(up),
            Plan::CrowdComes => self.crowd_comes(),
            Plan::Census => self.census(),
            Plan::Counts => {
                self.joining = std::mem::take(&mut self.traffic);
                self.ultrapeers.iter_mut().for_each(|up| up.line = Line::default());
                self.leaves.iter_mut().for_each(|leaf| (leaf.line, leaf.active) = (Line::default(), false));
            }
        }
    }

    fn up_starts(&mut self, up: u32) {
        self.wake_up(up);
        if up == 0 {
            self.up_input(up, Input::Found);
        } else {
            self.join(up, limits::REDIAL_MIN * 2);
        }
        let hours = self.scenario.churn.ultrapeer_hours;
        if hours > 0.0 {
            let life = Duration::from_secs_f64(draw::exponential(&mut self.rng, hours * 3_600.0));
            let at = (self.now + life).max(Time::ZERO + self.scenario.settled());
            self.plan(at, Event::Plan(Plan::UpDies(up)));
        }
    }

    /// An ultrapeer begins to run, and knows its address.
    pub(super) fn wake_up(&mut self, up: u32) {
        let node = &mut self.ultrapeers[up as usize];
        (node.alive, node.since) = (true, self.now);
        let address = node.address;
        self.up_input(up, Input::Address(address));
    }

    fn leaf_stops(&mut self, leaf: u32, life: u32) {
        let node = &self.leaves[leaf as usize];
        if node.life != life || node.core.is_none() {
            return;
        }
        let advertised = node.advertised.is_some();
        let orderly = self.rng.random_bool(self.scenario.churn.orderly);
        self.stop_leaf(leaf, orderly);
        if let Some(away) = churn::away(&self.scenario.churn, &mut self.rng, self.now) {
            self.plan(self.now + away, Event::Plan(Plan::LeafStarts(leaf)));
        }
        if advertised && self.now >= self.next_gone {
            self.next_gone = self.now + GONE_PROBES;
            self.probe_gone(leaf, orderly);
        }
    }

    /// Searches for something that only a leaf has which has just gone.
    fn probe_gone(&mut self, leaf: u32, orderly: bool) {
        let alone = self.library.contents_of(leaf).find(|content| self.library.holders(*content).len() == 1);
        let Some(content) = alone else { return };
        for age in AGES_S {
            let query = self.library.query_for(content, Class::Gone(orderly, age));
            if query.contents == [content] {
                let at = self.now + Duration::from_secs(age.into());
                self.plan(at, Event::Plan(Plan::Probe(leaf, false, Box::new(query))));
            }
        }
    }

    fn someone_adds(&mut self) {
        if self.online.is_empty() {
            return;
        }
        let leaf = self.online[self.rng.random_range(0..self.online.len())];
        // A leaf that is still uploading would tell of both lists at once.
        if self.leaves[leaf as usize].advertised.is_none() {
            return;
        }
        let wait = BATCHING.mul_f64(self.rng.random_range(0.0..1.0));
        self.plan(self.now + wait, Event::Plan(Plan::Changed(leaf, self.now)));
    }

    fn file_hashed(&mut self, leaf: u32, hashed: Time) {
        if self.leaves[leaf as usize].core.is_none() {
            return;
        }
        let content = self.library.add_fresh(&mut self.rng, leaf);
        let sequence = self.list_changed(leaf);
        self.fresh.insert(content, sequence);
        for age in AGES_S {
            let query = Box::new(self.library.query_for(content, Class::Fresh(age)));
            let at = hashed + Duration::from_secs(age.into());
            self.plan(at.max(self.now), Event::Plan(Plan::Probe(leaf, true, query)));
        }
    }

    fn someone_searches(&mut self, burst: Option<Burst>) {
        let part: f64 = self.rng.random();
        let workload = &self.scenario.workload;
        let class = match part {
            part if part < workload.popular => Class::Popular,
            part if part < workload.popular + workload.tail => Class::Tail,
            _ => Class::None,
        };
        let query = self.library.query(&mut self.rng, class);
        self.search_for(query, burst);
    }

    fn search_for(&mut self, query: Query, burst: Option<Burst>) {
        if self.online.is_empty() {
            return;
        }
        let leaf = self.online[self.rng.random_range(0..self.online.len())];
        let request = Request {
            target: Target::Query(Text::new(&query.text)),
            limit: self.scenario.workload.limit,
            timeout: limits::SEARCH_TIMEOUT,
            all: self.scenario.workload.all,
        };
        let ticket = self.number();
        let view = self.view_of(leaf);
        self.measures.begin(self.now, leaf, ticket, query, view, burst);
        self.user_asks(leaf, ticket, request);
    }

    /// Judges a search that ended.
    pub(super) fn search_ended(&mut self, leaf: u32, ticket: u64, end: &End) {
        let limit = self.scenario.workload.limit;
        let now = self.view_of(leaf);
        let mut measures = std::mem::replace(&mut self.measures, super::super::measure::Measures::new(Duration::ZERO));
        let lie = measures.end(leaf, ticket, end, limit, &self.library, |holder, content, began, view| {
            self.copy(holder, content, began, view, &now)
        });
        self.measures = measures;
        if let Some(lie) = lie.filter(|_| self.lies.len() < LIES) {
            let explained = self.explain(leaf, &lie, &now);
            self.lies.push(explained);
        }
    }

    /// What there is to know of a search that said what is not so.
    fn explain(&self, asker: u32, lie: &Lie, view: &[u32]) -> String {
        let Lie { began, query, content, counted, listed } = lie;
        let home = |(up, session): &(u32, u64)| {
            let known = &self.sessions[*session as usize];
            let state = |yes: bool, text: &'static str| if yes { text } else { "" };
            let alive = state(!self.ultrapeers[*up as usize].alive, " dead");
            let seen = state(view.binary_search(up).is_err(), " not in view");
            let left = state(!known.at_up, " given up");
            format!("{up}{alive}{seen}{left} since {}", known.acknowledged_at.0)
        };
        let homes = |leaf: u32| self.leaves[leaf as usize].homes.iter().map(home).collect::<Vec<_>>().join(", ");
        let holders =
            self.library.holders(*content).iter().filter(|holder| self.leaves[**holder as usize].core.is_some());
        let holders: Vec<_> =
            holders.take(HOLDERS).map(|holder| format!("leaf {holder} [{}]", homes(*holder))).collect();
        format!(
            "seed {}, {began} to {}: leaf {asker} [{}] asked {query:?}: content {content} counted {counted} of {listed}: {}",
            self.scenario.seed,
            self.now,
            homes(asker),
            holders.join("; ")
        )
    }

    /// The ultrapeers that a leaf's homes know of, and the homes: those that it can reach.
    fn view_of(&self, leaf: u32) -> Vec<u32> {
        let homes = self.leaves[leaf as usize].homes.iter().map(|(up, _)| *up);
        let homes = homes.filter(|up| self.ultrapeers[*up as usize].alive && self.reachable(FIRST_LEAF + leaf, *up));
        let known = |home: u32| {
            let members = self.ultrapeers[home as usize].machine.membership().iter();
            let numbers = members.filter_map(|(member, _)| self.by_peer.get(&member.peer).copied());
            numbers.chain([home]).collect::<Vec<_>>()
        };
        let mut view: Vec<u32> = homes.flat_map(known).collect();
        view.sort_unstable();
        view.dedup();
        view
    }

    /// Where a leaf's copy of a content is for a search that began then, with the views of its asker then and now.
    fn copy(&self, holder: u32, content: u32, began: Time, view: &[u32], now: &[u32]) -> Copy {
        let node = &self.leaves[holder as usize];
        if node.core.is_none() || node.since > began {
            return Copy::Absent;
        }
        let before = |at: Time| at + limits::DIGEST_LAG <= began;
        let fresh = self.fresh.get(&content);
        let has = |session: &super::Session| match fresh {
            Some(sequence) => session.acknowledged >= *sequence && before(session.acknowledged_at.1),
            None => session.acknowledged > 0 && before(session.acknowledged_at.0),
        };
        let sessions = || node.homes.iter().map(|(up, session)| (up, &self.sessions[*session as usize]));
        let advertised = match fresh {
            Some(_) => sessions().any(|(_, session)| has(session)),
            None => node.advertised.is_some_and(before),
        };
        // A leaf whose homes are all dead is attached nowhere, whoever has not noticed yet.
        let known = |up: &u32| {
            self.ultrapeers[*up as usize].alive && view.binary_search(up).is_ok() && now.binary_search(up).is_ok()
        };
        if sessions().any(|(up, session)| known(up) && has(session)) {
            Copy::Listed
        } else if advertised {
            Copy::Advertised
        } else {
            Copy::Absent
        }
    }

    fn fault(&mut self, number: u32) {
        let Fault { kind, share, lasts_s, .. } = self.scenario.faults[number as usize];
        let lasts = Duration::from_secs_f64(lasts_s);
        match kind {
            FaultKind::Kill | FaultKind::Targeted | FaultKind::Drain => {
                let victims = self.victims(share, kind == FaultKind::Targeted);
                if kind == FaultKind::Drain {
                    for up in &victims {
                        self.retire(*up);
                    }
                } else {
                    self.kill(&victims);
                }
            }
            FaultKind::Lying => {
                // They have lied since the start.
                for after in LYING_BURSTS_MS {
                    let at = self.now + Duration::from_millis(after.into());
                    self.plan(at, Event::Plan(Plan::Burst((number, after))));
                }
            }
            FaultKind::Partition => {
                self.parted = Some(share);
                self.part();
                self.plan(self.now + lasts, Event::Plan(Plan::Heals));
            }
            FaultKind::Flash => {
                let away = self.leaves.len() - self.online.len();
                let coming = ((f64::from(self.scenario.leaves) * share) as usize).min(away);
                let offline = (0..self.leaves.len() as u32).filter(|leaf| self.leaves[*leaf as usize].core.is_none());
                for leaf in offline.take(coming).collect::<Vec<_>>() {
                    let at = self.now + lasts.mul_f64(self.rng.random_range(0.0..1.0));
                    self.plan(at, Event::Plan(Plan::LeafStarts(leaf)));
                }
            }
        }
        let more = if self.scenario.election.is_some() { &MORE_BURSTS_MS[..] } else { &[] };
        for after in BURSTS_MS.iter().chain(more).copied() {
            let at = self.now + Duration::from_millis(after.into());
            self.plan(at, Event::Plan(Plan::Burst((number, after))));
        }
    }

    /// That part of the ultrapeers, chosen at random, answers searches with nothing.
    fn ultrapeers_lie(&mut self, share: f64) {
        let count = (self.ultrapeers.len() as f64 * share).round() as usize;
        if count == 0 {
            return; // other scenarios draw the same numbers as ever
        }
        let mut all: Vec<usize> = (0..self.ultrapeers.len()).collect();
        all.shuffle(&mut self.rng);
        for up in all.into_iter().take(count) {
            self.ultrapeers[up].lies = true;
        }
    }

    fn victims(&mut self, share: f64, targeted: bool) -> Vec<u32> {
        let serves = |up: &&u32| {
            let up = &self.ultrapeers[**up as usize];
            up.alive && matches!(up.machine.phase(), Phase::Admitted | Phase::Founder)
        };
        let all: Vec<u32> = (0..self.ultrapeers.len() as u32).collect();
        let mut alive: Vec<u32> = all.iter().filter(serves).copied().collect();
        let count = (alive.len() as f64 * share).round() as usize;
        if targeted {
            alive.sort_by_key(|up| (std::cmp::Reverse(self.ultrapeers[*up as usize].machine.leaves().len()), *up));
        } else {
            alive.shuffle(&mut self.rng);
        }
        alive.truncate(count);
        alive
    }

    fn kill(&mut self, victims: &[u32]) {
        let orphans = |leaf: &u32| self.leaves[*leaf as usize].homes.iter().any(|(up, _)| victims.contains(up));
        let mut unrestored: Vec<_> =
            self.online.iter().copied().filter(orphans).map(|leaf| (leaf, self.leaves[leaf as usize].life)).collect();
        unrestored.sort_unstable();
        for up in victims {
            let host = self.ultrapeers[*up as usize].elected.as_ref().map(|elected| elected.leaf);
            self.stop_up(*up, false);
            if let Some(leaf) = host {
                self.stop_leaf(leaf, false);
                unrestored.retain(|(orphan, _)| *orphan != leaf);
                if let Some(away) = churn::away(&self.scenario.churn, &mut self.rng, self.now) {
                    self.plan(self.now + away, Event::Plan(Plan::LeafStarts(leaf)));
                }
            }
        }
        let living: Vec<u32> =
            (0..self.ultrapeers.len() as u32).filter(|up| self.ultrapeers[*up as usize].alive).collect();
        let unaware = victims.iter().flat_map(|dead| living.iter().map(|living| (*dead, *living))).collect();
        let aftermath = Box::new(Aftermath { at: self.now, unaware, unrestored });
        self.plan(self.now + LOOK, Event::Plan(Plan::Look(LOOKS, aftermath)));
    }

    /// Who has noticed by now, and who has its homes again.
    fn look(&mut self, left: u32, mut aftermath: Aftermath) {
        let passed = self.now.since(aftermath.at).as_secs_f64();
        let before = (aftermath.unaware.len(), aftermath.unrestored.len());
        aftermath.unaware.retain(|(dead, living)| {
            let (dead, living) = (&self.ultrapeers[*dead as usize], &self.ultrapeers[*living as usize]);
            living.alive && living.machine.membership().contains(&dead.peer)
        });
        let serving = self.ultrapeers.iter().filter(|up| up.alive).count();
        aftermath.unrestored.retain(|(leaf, life)| {
            let node = &self.leaves[*leaf as usize];
            let listed = node.homes.iter().filter(|(up, session)| {
                self.ultrapeers[*up as usize].alive && self.sessions[*session as usize].acknowledged > 0
            });
            node.life == *life && node.core.is_some() && listed.count() < limits::HOMES.min(serving)
        });
        let noticed = before.0 - aftermath.unaware.len();
        let restored = before.1 - aftermath.unrestored.len();
        self.measures.detected_s.extend(std::iter::repeat_n(passed, noticed));
        self.measures.restored_s.extend(std::iter::repeat_n(passed, restored));
        if left == 0 {
            self.measures.unrestored += aftermath.unrestored.len() as u64;
        } else if !aftermath.unaware.is_empty() || !aftermath.unrestored.is_empty() {
            self.plan(self.now + LOOK, Event::Plan(Plan::Look(left - 1, Box::new(aftermath))));
        }
    }

    /// The network falls apart: every connection across the cut will be noticed to be silent.
    fn part(&mut self) {
        for one in 0..self.ultrapeers.len() as u32 {
            for other in 0..self.ultrapeers.len() as u32 {
                if one != other && self.ultrapeers[one as usize].alive && !self.reachable(one, other) {
                    self.expire_link(one, other);
                }
            }
        }
        for leaf in 0..self.leaves.len() as u32 {
            for (up, session) in self.leaves[leaf as usize].homes.clone() {
                if !self.reachable(FIRST_LEAF + leaf, up) {
                    self.expire_session(session);
                }
            }
        }
    }

    fn heal(&mut self) {
        self.parted = None;
        for (from, to, event) in std::mem::take(&mut self.held) {
            let at = self.now + self.round_trip(from, to);
            self.plan(at, event);
        }
    }

    /// What each ultrapeer that serves carries.
    pub fn loads(&self) -> Vec<Load> {
        let serves = |up: &&Up| up.alive && matches!(up.machine.phase(), Phase::Admitted | Phase::Founder);
        let load = |up: &Up| {
            let digests = up.machine.digests().stats();
            Load {
                leaves: up.machine.leaves().len() as u32,
                capacity: up.machine.leaves().capacity(),
                line: up.line,
                index_bytes: up.machine.index().stats().memory,
                digests: digests.leaves as u64,
                digest_bytes: digests.bytes,
            }
        };
        self.ultrapeers.iter().filter(serves).map(load).collect()
    }

    /// Bytes on the lines of leaves that were online all the time since counting began, and whether they searched or
    /// changed anything.
    pub fn leaf_lines(&self) -> Vec<(Line, bool)> {
        let begin = Time::ZERO + self.scenario.settled();
        let stayed = self.online.iter().map(|leaf| &self.leaves[*leaf as usize]).filter(|leaf| leaf.since <= begin);
        stayed.map(|leaf| (leaf.line, leaf.active)).collect()
    }

    /// Leaves online, and their homes.
    pub fn attached(&self) -> (usize, usize) {
        (self.online.len(), self.online.iter().map(|leaf| self.leaves[*leaf as usize].homes.len()).sum())
    }
}

/// The identity of a node of this run.
pub(super) fn identity(seed: u64, kind: u64, number: u32) -> Identity {
    let mut bytes = [0; 32];
    for (word, bytes) in (0..).zip(bytes.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&draw::mix(seed ^ word, kind, u64::from(number)).to_le_bytes());
    }
    Identity::from_seed(bytes)
}

/// Where an ultrapeer is reached: each in a /16 of its own, as far as they go.
fn up_address(number: u32) -> SocketAddr {
    let [_, low, middle, high] = [number >> 24, number % 80, number / 80 % 256, number / 20_480].map(|part| part as u8);
    SocketAddr::from(([20 + low, middle, high, 1], 7_780))
}
