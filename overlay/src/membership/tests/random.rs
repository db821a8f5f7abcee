//! Whatever happens, in the end those that can reach each other have equal views of exactly themselves.

use std::time::Duration;

use proptest::prelude::*;

use super::net::Net;
use crate::{
    id::PeerId,
    membership::{Input, tests::SECOND},
    wire::descriptor::ShardPrefix,
};

/// Nodes that may exist.
const NODES: u8 = 9;

#[derive(Clone, Debug)]
enum Step {
    /// A node starts or starts again, its clock that many seconds ahead, and joins through another.
    Start {
        number: u8,
        clock: u64,
        through: u8,
    },
    Kill(u8),
    /// Nothing passes between those whose bits are set and the others.
    Cut(u16),
    /// Nothing passes from those whose bits are set to the others.
    HalfCut(u16),
    Heal,
    DropLink(u8, u8),
    /// A node covers another part of the leaf space, by place and length.
    Shard(u8, u32, u8),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES;
    let step = prop_oneof![
        4 => (node(), 0_u64..20_000, node()).prop_map(|(number, clock, through)| Step::Start { number, clock, through }),
        2 => node().prop_map(Step::Kill),
        1 => any::<u16>().prop_map(Step::Cut),
        1 => any::<u16>().prop_map(Step::HalfCut),
        2 => Just(Step::Heal),
        2 => (node(), node()).prop_map(|(one, other)| Step::DropLink(one, other)),
        1 => (node(), any::<u32>(), 0_u8..3).prop_map(|(number, place, length)| Step::Shard(number, place, length)),
        6 => (1_u64..20_000).prop_map(Step::Wait),
        1 => (100_000_u64..1_000_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..40)
}

struct Run {
    net: Net,
    peers: Vec<PeerId>,
    cut: u16,
}

impl Run {
    fn new(seed: u64) -> Self {
        let net = Net::new(seed, NODES);
        let peer = |number: u8| crate::identity::Identity::from_seed([number; 32]).peer_id();
        Self { net, peers: (1..=NODES).map(peer).collect(), cut: 0 }
    }

    fn is_apart(cut: u16, one: usize, other: usize) -> bool {
        (cut >> one ^ cut >> other) & 1 == 1
    }

    fn step(&mut self, step: &Step) {
        let Self { net, peers, cut } = self;
        let index = |peer: PeerId| peers.iter().position(|known| *known == peer).expect("one of them");
        match *step {
            Step::Start { number, clock, through } => {
                net.kill(peers[usize::from(number)]);
                net.start(number + 1, clock);
                net.dial(peers[usize::from(number)], peers[usize::from(through)]);
            }
            Step::Kill(number) => net.kill(peers[usize::from(number)]),
            Step::Cut(bits) => {
                net.heal();
                *cut = bits;
                net.cut(|from, to| Self::is_apart(bits, index(from), index(to)));
            }
            Step::HalfCut(bits) => {
                net.heal();
                *cut = bits;
                net.cut(|from, to| Self::is_apart(bits, index(from), index(to)) && bits >> index(from) & 1 == 1);
            }
            Step::Heal => {
                *cut = 0;
                net.heal();
            }
            Step::DropLink(one, other) if one != other => {
                net.drop_link(peers[usize::from(one)], peers[usize::from(other)]);
            }
            Step::DropLink(..) => {}
            Step::Shard(number, place, length) => {
                net.input(peers[usize::from(number)], Input::Shard(ShardPrefix::of(place, length)));
            }
            Step::Wait(milliseconds) => net.run(Duration::from_millis(milliseconds)),
        }
    }

    /// Those that live and can reach each other.
    fn parts(&self) -> [Vec<PeerId>; 2] {
        let (one, other) = (0..usize::from(NODES))
            .filter(|number| self.net.nodes[&self.peers[*number]].alive)
            .partition::<Vec<_>, _>(|number| self.cut >> number & 1 == 1);
        [one, other].map(|part| part.into_iter().map(|number| self.peers[number]).collect())
    }

    /// Who is alone tries its join targets again, as its driver does.
    fn join(&mut self) {
        for part in self.parts() {
            for at in &part {
                if self.net.machine(*at).total() > 3 {
                    continue;
                }
                for other in part.iter().filter(|other| *other != at) {
                    self.net.dial(*at, *other);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn views_are_equal_after_quiet_time(seed: u64, steps in steps()) {
        let mut run = Run::new(seed);
        run.join();
        run.net.run(5 * SECOND);
        for step in &steps {
            run.step(step);
        }
        let parts = run.parts();
        for _ in 0..30 {
            run.join();
            if run.net.run_until(Duration::from_mins(1), |net| parts.iter().all(|part| net.agree(part))).is_some() {
                break;
            }
        }
        // And they stay so.
        run.net.run(Duration::from_mins(4));
        for part in parts.iter().filter(|part| !part.is_empty()) {
            run.net.assert_agreed(part);
        }
    }
}
