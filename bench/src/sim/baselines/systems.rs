//! The systems. Their models are described in [`super`].

use rand::{Rng, RngExt};
use rand_pcg::Pcg64Mcg;
use rustc_hash::FxHashSet;

use super::{Asked, Outcome, graph::Graph};

/// Neighbours of a peer of Gnutella 0.4.
const PEER_DEGREE: f64 = 3.4;
/// Hops of its floods.
const PEER_HOPS: u32 = 7;
/// Leaves for each ultrapeer of Gnutella 0.6.
const LEAVES_OF_ULTRAPEER: u32 = 30;
/// Neighbours of an ultrapeer.
const ULTRAPEER_DEGREE: f64 = 30.0;
/// Ultrapeers of a leaf.
const ULTRAPEERS_OF_LEAF: usize = 3;
/// The most hops of a dynamic query.
const ULTRAPEER_HOPS: u32 = 3;
/// Leaves for each supernode of FastTrack.
const LEAVES_OF_SUPERNODE: u32 = 33;
/// Neighbours of a supernode.
const SUPERNODE_DEGREE: f64 = 50.0;
/// Walks at a time.
const WALKERS: usize = 32;
/// Steps of a walk.
const STEPS: usize = 1_024;
/// Capacities of Gia's peers, and the parts of peers that have them.
const CAPACITIES: [(u32, f64); 5] = [(1, 0.2), (10, 0.45), (100, 0.3), (1_000, 0.049), (10_000, 0.001)];
/// The fewest and the most neighbours in Gia.
const GIA_DEGREES: (u32, u32) = (3, 128);

/// A way of finding files.
pub trait System {
    /// Kills each node that others depend on with that probability.
    fn kill(&mut self, rng: &mut Pcg64Mcg, share: f64);

    /// True if that leaf is still online: it is no node that was killed.
    fn lives(&self, leaf: u32) -> bool;

    /// Searches.
    fn search(&mut self, rng: &mut Pcg64Mcg, asked: &Asked) -> Outcome;
}

/// Adds what leaves hold.
fn take(outcome: &mut Outcome, asked: &Asked, leaves: impl IntoIterator<Item = u32>) {
    for leaf in leaves {
        if let Some(contents) = asked.held.get(&leaf) {
            outcome.found.extend(contents);
        }
    }
}

/// Gnutella 0.4.
#[derive(Debug)]
pub struct Flooded {
    graph: Graph,
}

impl Flooded {
    /// All leaves are peers.
    pub fn new(rng: &mut impl Rng, leaves: u32) -> Self {
        Self { graph: Graph::random(rng, leaves, PEER_DEGREE) }
    }
}

impl System for Flooded {
    fn kill(&mut self, rng: &mut Pcg64Mcg, share: f64) {
        self.graph.kill(rng, share);
    }

    fn lives(&self, leaf: u32) -> bool {
        self.graph.lives(leaf)
    }

    fn search(&mut self, _rng: &mut Pcg64Mcg, asked: &Asked) -> Outcome {
        let flood = self.graph.flood(asked.asker, PEER_HOPS);
        let mut outcome = Outcome { messages: flood.messages, ..Outcome::default() };
        take(&mut outcome, asked, flood.reached);
        outcome
    }
}

/// Leaves below nodes that form a graph.
#[derive(Debug)]
struct Tiers {
    graph: Graph,
    /// By leaf.
    homes: Vec<Vec<u32>>,
    /// By node.
    leaves: Vec<Vec<u32>>,
}

impl Tiers {
    fn new(rng: &mut impl Rng, leaves: u32, leaves_of_node: u32, degree: f64, homes: usize) -> Self {
        let nodes = leaves.div_ceil(leaves_of_node).max(1);
        let homes = homes.min(nodes as usize);
        let mut tiers = Self {
            graph: Graph::random(rng, nodes, degree),
            homes: Vec::new(),
            leaves: vec![Vec::new(); nodes as usize],
        };
        for leaf in 0..leaves {
            let mut own = Vec::new();
            while own.len() < homes {
                let node = rng.random_range(0..nodes);
                if !own.contains(&node) {
                    own.push(node);
                    tiers.leaves[node as usize].push(leaf);
                }
            }
            tiers.homes.push(own);
        }
        tiers
    }

    fn first_home(&self, leaf: u32) -> Option<u32> {
        self.homes[leaf as usize].iter().copied().find(|home| self.graph.lives(*home))
    }
}

/// Gnutella 0.6 with dynamic queries and query routing.
#[derive(Debug)]
pub struct Gnutella {
    tiers: Tiers,
}

impl Gnutella {
    /// A network of so many leaves.
    pub fn new(rng: &mut impl Rng, leaves: u32) -> Self {
        Self { tiers: Tiers::new(rng, leaves, LEAVES_OF_ULTRAPEER, ULTRAPEER_DEGREE, ULTRAPEERS_OF_LEAF) }
    }

    /// Asks the leaves of a node that match.
    fn ask_leaves(&self, node: u32, asked: &Asked, outcome: &mut Outcome) {
        for leaf in &self.tiers.leaves[node as usize] {
            if asked.held.contains_key(leaf) {
                outcome.messages += 1;
                take(outcome, asked, [*leaf]);
            }
        }
    }

    /// Sends the query to one neighbour with that many hops left; the last hop goes only where words match.
    fn forward(&self, from: u32, to: u32, hops: u32, asked: &Asked, seen: &mut FxHashSet<u32>, outcome: &mut Outcome) {
        let mut ring = vec![(from, to)];
        for hop in (1..=hops).rev() {
            let mut next = Vec::new();
            for (from, to) in ring {
                let matches = self.tiers.leaves[to as usize].iter().any(|leaf| asked.held.contains_key(leaf));
                if hop == 1 && hops > 1 && !matches {
                    continue;
                }
                outcome.messages += 1;
                if !seen.insert(to) {
                    continue;
                }
                self.ask_leaves(to, asked, outcome);
                if hop > 1 {
                    next.extend(self.tiers.graph.living(to).filter(|next| *next != from).map(|next| (to, next)));
                }
            }
            ring = next;
        }
    }
}

impl System for Gnutella {
    fn kill(&mut self, rng: &mut Pcg64Mcg, share: f64) {
        self.tiers.graph.kill(rng, share);
    }

    fn lives(&self, _leaf: u32) -> bool {
        true
    }

    fn search(&mut self, rng: &mut Pcg64Mcg, asked: &Asked) -> Outcome {
        use rand::seq::SliceRandom;
        let mut outcome = Outcome::default();
        let Some(home) = self.tiers.first_home(asked.asker) else { return outcome };
        outcome.messages += 1;
        let mut seen = FxHashSet::from_iter([home]);
        self.ask_leaves(home, asked, &mut outcome);
        let mut neighbours: Vec<u32> = self.tiers.graph.living(home).collect();
        neighbours.shuffle(rng);
        let degree = neighbours.len().max(2) as f64;
        for neighbour in neighbours {
            let wanted = asked.limit.saturating_sub(outcome.found.len());
            if wanted == 0 {
                break;
            }
            // As many hops as it takes at the rate of answers so far.
            let rate = outcome.found.len() as f64 / seen.len() as f64;
            let nodes = wanted as f64 / rate.max(1e-9);
            let hops = (1..ULTRAPEER_HOPS).find(|hops| (degree - 1.0).powi(*hops as i32 - 1) >= nodes);
            let hops = hops.unwrap_or(ULTRAPEER_HOPS);
            self.forward(home, neighbour, hops, asked, &mut seen, &mut outcome);
        }
        outcome
    }
}

/// FastTrack-like supernodes.
#[derive(Debug)]
pub struct FastTrack {
    tiers: Tiers,
    hops: u32,
}

impl FastTrack {
    /// A network of so many leaves whose queries are flooded that far.
    pub fn new(rng: &mut impl Rng, leaves: u32, hops: u32) -> Self {
        Self { tiers: Tiers::new(rng, leaves, LEAVES_OF_SUPERNODE, SUPERNODE_DEGREE, 1), hops }
    }
}

impl System for FastTrack {
    fn kill(&mut self, rng: &mut Pcg64Mcg, share: f64) {
        self.tiers.graph.kill(rng, share);
    }

    fn lives(&self, _leaf: u32) -> bool {
        true
    }

    fn search(&mut self, _rng: &mut Pcg64Mcg, asked: &Asked) -> Outcome {
        let Some(home) = self.tiers.first_home(asked.asker) else { return Outcome::default() };
        let flood = self.tiers.graph.flood(home, self.hops);
        let mut outcome = Outcome { messages: 1 + flood.messages, ..Outcome::default() };
        for node in flood.reached {
            take(&mut outcome, asked, self.tiers.leaves[node as usize].iter().copied());
        }
        outcome
    }
}

/// Random walks on Gnutella's peers.
#[derive(Debug)]
pub struct Walks {
    graph: Graph,
}

impl Walks {
    /// All leaves are peers.
    pub fn new(rng: &mut impl Rng, leaves: u32) -> Self {
        Self { graph: Graph::random(rng, leaves, PEER_DEGREE) }
    }
}

impl System for Walks {
    fn kill(&mut self, rng: &mut Pcg64Mcg, share: f64) {
        self.graph.kill(rng, share);
    }

    fn lives(&self, leaf: u32) -> bool {
        self.graph.lives(leaf)
    }

    fn search(&mut self, rng: &mut Pcg64Mcg, asked: &Asked) -> Outcome {
        let mut outcome = Outcome::default();
        take(&mut outcome, asked, [asked.asker]);
        let mut walkers = [asked.asker; WALKERS];
        for _ in 0..STEPS {
            for at in &mut walkers {
                if outcome.found.len() >= asked.limit {
                    return outcome;
                }
                let living: Vec<u32> = self.graph.living(*at).collect();
                if living.is_empty() {
                    continue;
                }
                *at = living[rng.random_range(0..living.len())];
                outcome.messages += 1;
                take(&mut outcome, asked, [*at]);
            }
        }
        outcome
    }
}

/// Gia: capable peers have many neighbours, know their files, and are asked first.
#[derive(Debug)]
pub struct Gia {
    graph: Graph,
    capacities: Vec<u32>,
}

impl Gia {
    /// All leaves are peers.
    pub fn new(rng: &mut impl Rng, leaves: u32) -> Self {
        let capacity = |rng: &mut dyn Rng| {
            let mut place: f64 = rng.random();
            for (capacity, part) in CAPACITIES {
                if place < part {
                    return capacity;
                }
                place -= part;
            }
            CAPACITIES[0].0
        };
        let capacities: Vec<u32> = (0..leaves).map(|_| capacity(rng)).collect();
        let degrees: Vec<u32> =
            capacities.iter().map(|capacity| (*capacity).clamp(GIA_DEGREES.0, GIA_DEGREES.1)).collect();
        Self { graph: Graph::with_degrees(rng, &degrees), capacities }
    }
}

impl System for Gia {
    fn kill(&mut self, rng: &mut Pcg64Mcg, share: f64) {
        self.graph.kill(rng, share);
    }

    fn lives(&self, leaf: u32) -> bool {
        self.graph.lives(leaf)
    }

    fn search(&mut self, rng: &mut Pcg64Mcg, asked: &Asked) -> Outcome {
        let mut outcome = Outcome::default();
        let mut at = asked.asker;
        let mut told: FxHashSet<(u32, u32)> = FxHashSet::default();
        for _ in 0..=STEPS {
            take(&mut outcome, asked, std::iter::once(at).chain(self.graph.living(at)));
            if outcome.found.len() >= asked.limit {
                break;
            }
            // The most capable neighbour that was not sent this query from here; if all were, they may be again.
            let fresh = |next: &u32| !told.contains(&(at, *next));
            let next = self.graph.living(at).filter(fresh).max_by_key(|next| (self.capacities[*next as usize], *next));
            let next = next.or_else(|| {
                let living: Vec<u32> = self.graph.living(at).collect();
                (!living.is_empty()).then(|| living[rng.random_range(0..living.len())])
            });
            let Some(next) = next else { break };
            told.insert((at, next));
            outcome.messages += 1;
            at = next;
        }
        outcome
    }
}

/// One server that knows everything, while it lives.
#[derive(Debug, Default)]
pub struct Central {
    dead: bool,
}

impl System for Central {
    fn kill(&mut self, rng: &mut Pcg64Mcg, share: f64) {
        self.dead |= rng.random_bool(share);
    }

    fn lives(&self, _leaf: u32) -> bool {
        true
    }

    fn search(&mut self, _rng: &mut Pcg64Mcg, asked: &Asked) -> Outcome {
        let mut outcome = Outcome { messages: 1, ..Outcome::default() };
        if !self.dead {
            take(&mut outcome, asked, asked.held.keys().copied());
        }
        outcome
    }
}
