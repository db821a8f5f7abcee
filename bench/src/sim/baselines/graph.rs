//! Random graphs, and what floods and walks on them reach.

use rand::{Rng, RngExt};

/// An undirected graph without loops; nodes may have died.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Where each node's neighbours begin.
    starts: Vec<u32>,
    neighbours: Vec<u32>,
    dead: Vec<bool>,
    /// The flood that visited each node last.
    visited: Vec<u32>,
    flood: u32,
}

/// What a flood did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flood {
    /// Nodes that received it, the first one included, in the order of their distance.
    pub reached: Vec<u32>,
    /// Messages sent, duplicates included.
    pub messages: u64,
    /// Those of them that were sent with the last hop.
    pub last_hop: u64,
}

impl Graph {
    /// A graph of so many nodes in which each pair is linked with the same probability, so that nodes have `degree`
    /// neighbours on average. All are linked with all where that is not enough.
    pub fn random(rng: &mut impl Rng, nodes: u32, degree: f64) -> Self {
        if degree >= f64::from(nodes.saturating_sub(1)) {
            let pairs = (0..nodes).flat_map(|one| (one + 1..nodes).map(move |other| (one, other)));
            return Self::of(nodes, &pairs.collect::<Vec<_>>());
        }
        let links = (f64::from(nodes) * degree / 2.0).round() as usize;
        let pairs = std::iter::repeat_with(|| (rng.random_range(0..nodes), rng.random_range(0..nodes)));
        let pairs: Vec<_> = pairs.filter(|(one, other)| one != other).take(links).collect();
        Self::of(nodes, &pairs)
    }

    /// A graph with the given degrees, as far as they can be met: neighbours are chosen at random.
    pub fn with_degrees(rng: &mut impl Rng, degrees: &[u32]) -> Self {
        use rand::seq::SliceRandom;
        let mut ends: Vec<u32> =
            (0..).zip(degrees).flat_map(|(node, degree)| std::iter::repeat_n(node, *degree as usize)).collect();
        ends.shuffle(rng);
        let pairs: Vec<_> =
            ends.chunks_exact(2).map(|pair| (pair[0], pair[1])).filter(|(one, other)| one != other).collect();
        Self::of(degrees.len() as u32, &pairs)
    }

    fn of(nodes: u32, pairs: &[(u32, u32)]) -> Self {
        let mut starts = vec![0_u32; nodes as usize + 1];
        for (one, other) in pairs {
            starts[*one as usize + 1] += 1;
            starts[*other as usize + 1] += 1;
        }
        for node in 0..nodes as usize {
            starts[node + 1] += starts[node];
        }
        let mut next = starts.clone();
        let mut neighbours = vec![0; pairs.len() * 2];
        for (one, other) in pairs {
            for (from, to) in [(*one, *other), (*other, *one)] {
                neighbours[next[from as usize] as usize] = to;
                next[from as usize] += 1;
            }
        }
        Self { starts, neighbours, dead: vec![false; nodes as usize], visited: vec![0; nodes as usize], flood: 0 }
    }

    /// Nodes, dead ones included.
    pub fn len(&self) -> u32 {
        self.dead.len() as u32
    }

    /// True without nodes.
    pub fn is_empty(&self) -> bool {
        self.dead.is_empty()
    }

    /// Kills each node with that probability. Returns how many live.
    pub fn kill(&mut self, rng: &mut impl Rng, share: f64) -> u32 {
        self.dead.iter_mut().for_each(|dead| *dead |= rng.random_bool(share));
        self.dead.iter().filter(|dead| !**dead).count() as u32
    }

    /// True if a node has not died.
    pub fn lives(&self, node: u32) -> bool {
        !self.dead[node as usize]
    }

    /// The neighbours of a node, dead ones included.
    pub fn neighbours(&self, node: u32) -> &[u32] {
        &self.neighbours[self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize]
    }

    /// The living neighbours of a node.
    pub fn living(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.neighbours(node).iter().copied().filter(|node| self.lives(*node))
    }

    /// Floods from `source` over at most `hops` hops: who receives it for the first time sends it to all neighbours but
    /// the one it came from. Messages to the dead are not counted, their links are closed.
    pub fn flood(&mut self, source: u32, hops: u32) -> Flood {
        self.flood += 1;
        self.visited[source as usize] = self.flood;
        let mut flood = Flood { reached: vec![source], ..Flood::default() };
        let mut ring = vec![(source, source)];
        for hop in 1..=hops {
            let mut next = Vec::new();
            for (node, from) in std::mem::take(&mut ring) {
                for at in self.starts[node as usize]..self.starts[node as usize + 1] {
                    let neighbour = self.neighbours[at as usize];
                    if self.dead[neighbour as usize] || (neighbour == from && hop > 1) {
                        continue;
                    }
                    flood.messages += 1;
                    flood.last_hop += u64::from(hop == hops);
                    if self.visited[neighbour as usize] != self.flood {
                        self.visited[neighbour as usize] = self.flood;
                        flood.reached.push(neighbour);
                        next.push((neighbour, node));
                    }
                }
            }
            ring = next;
        }
        flood
    }
}

#[cfg(test)]
mod tests {
    use rand_pcg::Pcg32;

    use super::*;

    #[test]
    fn a_flood_on_a_ring_goes_both_ways() {
        let pairs: Vec<_> = (0..10).map(|node| (node, (node + 1) % 10)).collect();
        let mut ring = Graph::of(10, &pairs);
        let flood = ring.flood(0, 3);
        assert_eq!((flood.reached.len(), flood.messages, flood.last_hop), (7, 6, 2));
        // All around: the two that meet tell each other once more.
        assert_eq!(ring.flood(0, 9).reached.len(), 10);
        ring.dead[1] = true;
        assert_eq!(ring.flood(0, 3).reached, [0, 9, 8, 7]);
    }

    #[test]
    fn a_small_network_is_a_full_mesh() {
        let mut graph = Graph::random(&mut Pcg32::new(1, 1), 5, 30.0);
        assert_eq!(graph.flood(2, 1).messages, 4);
    }

    #[test]
    fn degrees_are_met() {
        let graph = Graph::with_degrees(&mut Pcg32::new(1, 1), &[100; 1_000]);
        let ends: usize = (0..1_000).map(|node| graph.neighbours(node).len()).sum();
        assert!((99_000..=100_000).contains(&ends), "{ends}");
    }
}
