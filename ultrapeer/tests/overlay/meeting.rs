//! Networks of one name that were founded apart, and meet.

use std::{collections::BTreeSet, time::Duration};

use overlay::id::PeerId;

use super::{HOMES, Net, all_is_found_from_everywhere, files};

/// Two networks whose leaves have the homes that there are on their side.
fn populated(seed: u64, one: u8, other: u8, leaves: usize) -> (Net, [Vec<PeerId>; 2]) {
    let (mut net, networks) = Net::apart(seed, one, other);
    for number in 0..leaves {
        let side = &networks[number % 2];
        let leaf = net.add_leaf(files(number));
        for home in side.iter().cycle().skip(number).take(HOMES.min(side.len())) {
            net.attach(leaf, *home);
        }
    }
    net.run(Duration::from_secs(5));
    (net, networks)
}

fn views(net: &Net) -> BTreeSet<BTreeSet<PeerId>> {
    let view = |peer: &PeerId| {
        let members = net.machine(peer).membership();
        members.iter().map(|(member, _)| member.peer).chain([*peer]).collect()
    };
    net.ultrapeers().iter().map(view).collect()
}

/// Links one of each, waits until all views are the same, and searches from everywhere. Meanwhile each leaf finds what
/// its own side has.
fn become_one(one: u8, other: u8) {
    for seed in 1..=3 {
        let leaves = 6;
        let (mut net, [first, second]) = populated(seed, one, other, leaves);
        assert_eq!(views(&net).len(), 2);
        net.link(first[first.len() - 1], second[second.len() - 1]);
        let all: BTreeSet<PeerId> = net.ultrapeers().into_iter().collect();
        let mut seconds = 0;
        while views(&net) != BTreeSet::from([all.clone()]) {
            net.run(Duration::from_secs(1));
            seconds += 1;
            assert!(seconds < 600, "{one} and {other} with seed {seed} are {:?}", views(&net));
            for leaf in 0..2 {
                let home = net.homes_of(leaf)[0];
                let found = net.search(leaf, home, "tune");
                let own = (leaf..leaves).step_by(2).collect::<Vec<_>>();
                for file in own.iter().flat_map(|leaf| files(*leaf)).filter(|file| file.name().contains("tune")) {
                    assert!(found.hits.contains_key(&file.content), "{} is lost", file.name());
                }
            }
        }
        net.run(Duration::from_secs(5));
        all_is_found_from_everywhere(&mut net, &(0..leaves).collect::<Vec<_>>());
    }
}

#[test]
fn two_that_were_founded_alone_become_one() {
    become_one(1, 1);
}

#[test]
fn a_small_network_gives_itself_up_for_a_larger_one() {
    become_one(2, 5);
    become_one(6, 1);
}

#[test]
fn of_small_equals_one_gives_itself_up() {
    become_one(3, 3);
    become_one(2, 2);
}

#[test]
fn large_networks_let_each_other_in() {
    become_one(5, 6);
    become_one(4, 9);
}
