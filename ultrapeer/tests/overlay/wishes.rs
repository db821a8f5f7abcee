//! Standing queries: who wishes for something is told when somebody shares it, wherever both are, and while keepers come
//! and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use overlay::{file::FileEntry, id::PeerId, limits, wire::descriptor::ShardPrefix};
use rand::{RngExt, seq::IndexedRandom};
use rand_pcg::Pcg32;

use super::{
    net::{Net, file},
    populated,
    shards::{SCARCE, crowded, move_leaves},
};

/// Time in which a new file is told of to everybody who wishes for it.
const SOON: Duration = Duration::from_secs(5);

fn new_file(name: &str) -> FileEntry {
    file(&format!("New/{name}"), name)
}

fn paths(hits: &[(u32, &str)]) -> BTreeSet<(u32, String)> {
    hits.iter().map(|(number, name)| (*number, format!("New/{name}"))).collect()
}

/// Ultrapeers that keep wishes.
fn keepers(net: &Net) -> Vec<PeerId> {
    net.ultrapeers().into_iter().filter(|peer| net.machine(peer).standing().stats().kept > 0).collect()
}

fn asked(net: &Net) -> u64 {
    net.ultrapeers().iter().map(|peer| net.machine(peer).standing().stats().asked).sum()
}

#[test]
fn who_wishes_is_told_of_what_is_new_and_of_nothing_else() {
    let mut net = populated(1, 6, 6);
    let home = net.homes_of(0)[0];
    net.wish(0, home, &["red rose", "\"exact words\" ext:txt", "tune", "lil*"]);
    net.run(SOON);
    assert_eq!(keepers(&net).len(), limits::WISH_KEEPERS);
    assert!(keepers(&net).contains(&home));
    assert_eq!(net.wished(0).0, BTreeSet::new(), "tunes were there before");

    // Every leaf shares something, wherever its homes are.
    net.share(1, [new_file("red rose 1.mp3"), new_file("red tulip 1.mp3")]);
    net.share(2, [new_file("rose, red 2.mp3"), new_file("the exact words.txt"), new_file("words exact.txt")]);
    net.share(5, [new_file("a lilac.ogg"), new_file("silent.ogg")]);
    net.run(SOON);
    let expected =
        paths(&[(0, "red rose 1.mp3"), (0, "rose, red 2.mp3"), (1, "the exact words.txt"), (3, "a lilac.ogg")]);
    let (told, again) = net.wished(0);
    assert_eq!(told, expected);
    assert!(again <= expected.len(), "at most two keepers tell of each: {again} more");

    // A list that changes otherwise is not told of again.
    net.share(1, [new_file("something else.mp3")]);
    net.share(2, [new_file("red.mp3")]);
    net.run(SOON);
    assert_eq!(net.wished(0), (BTreeSet::new(), 0));

    // What is not wished for any more is forgotten.
    net.wish(0, home, &["red rose"]);
    net.run(SOON);
    net.share(3, [new_file("lilies.ogg"), new_file("red rose 3.mp3")]);
    net.run(SOON);
    assert_eq!(net.wished(0).0, paths(&[(0, "red rose 3.mp3")]));
    net.leave(0, home);
    net.run(SOON);
    assert_eq!(keepers(&net), []);
}

#[test]
fn a_leaf_that_was_away_is_told_of_when_it_comes() {
    let mut net = populated(2, 5, 4);
    let homes = net.ultrapeers();
    let wisher = net.homes_of(0)[0];
    net.wish(0, wisher, &["rose"]);
    net.run(SOON);
    let late = net.add_leaf(vec![new_file("rose.mp3"), new_file("tulip.mp3")]);
    for home in &homes[2..] {
        net.attach(late, *home);
    }
    net.run(SOON);
    assert_eq!(net.wished(0).0, paths(&[(0, "rose.mp3")]));
    // It moves among homes: that is nothing new.
    let before = asked(&net);
    net.attach(late, homes[0]);
    net.run(SOON);
    net.leave(late, homes[2]);
    net.run(SOON);
    assert_eq!((net.wished(0), asked(&net)), ((BTreeSet::new(), 0), before));
}

#[test]
fn one_of_two_keepers_may_die_and_another_takes_its_place() {
    for seed in 0..4 {
        let mut net = populated(seed, 8, 8);
        let home = net.homes_of(0)[0];
        net.wish(0, home, &["rose"]);
        net.run(SOON);
        for round in 0..3 {
            let victim = keepers(&net).into_iter().find(|keeper| *keeper != home).expect("another keeper");
            net.kill_ultrapeer(victim);
            let sharer = (1..8).find(|leaf| !net.homes_of(*leaf).is_empty()).expect("a leaf");
            let name = format!("rose {round}.mp3");
            net.share(sharer, [new_file(&name)]);
            net.run(SOON);
            assert_eq!(net.wished(0).0, paths(&[(0, &name)]), "seed {seed}, round {round}");
            net.run(Duration::from_secs(10));
            assert_eq!(keepers(&net).len(), limits::WISH_KEEPERS, "seed {seed}, round {round}");
        }
    }
}

#[test]
fn wishes_reach_every_part_of_the_leaf_space() {
    let mut net = crowded(3);
    net.set_memory(SCARCE);
    net.run(Duration::from_secs(36));
    move_leaves(&mut net);
    let shards: BTreeSet<ShardPrefix> =
        net.ultrapeers().iter().map(|peer| net.machine(peer).membership().shard()).collect();
    assert!(shards.len() > 1, "{shards:?}");
    let home = net.homes_of(0)[0];
    net.wish(0, home, &["rose"]);
    net.run(SOON);
    let kept = keepers(&net);
    let mut expected = BTreeSet::new();
    for leaf in 1..8 {
        let name = format!("rose {leaf}.mp3");
        net.share(leaf, [new_file(&name)]);
        expected.extend(paths(&[(0, &name)]));
    }
    net.run(SOON);
    assert_eq!(net.wished(0).0, expected);

    // One of the two of each part dies, but not the leaf's home, and at the same time the other half shares. One that covers
    // everything yet is one of the two of every part.
    let covers =
        |net: &Net, keeper: &PeerId, part: ShardPrefix| net.machine(keeper).membership().shard().overlaps(part);
    let (mut living, before) = (kept.clone(), kept.len());
    for keeper in kept.into_iter().filter(|keeper| *keeper != home) {
        let others = || living.iter().filter(|other| **other != keeper);
        let is_needed = shards
            .iter()
            .filter(|part| covers(&net, &keeper, **part))
            .any(|part| !others().any(|other| covers(&net, other, *part)));
        if !is_needed {
            living.retain(|other| *other != keeper);
            net.kill_ultrapeer(keeper);
        }
    }
    assert!((1..before).contains(&living.len()), "one dies, and who covers the rest lives: {living:?}");
    let mut expected = BTreeSet::new();
    for leaf in 8..16 {
        let name = format!("rose {leaf}.mp3");
        net.share(leaf, [new_file(&name)]);
        if !net.homes_of(leaf).is_empty() {
            expected.extend(paths(&[(0, &name)]));
        }
    }
    net.run(SOON);
    assert_eq!(net.wished(0).0, expected);
}

#[test]
fn who_has_just_come_asks_nothing_of_what_was_there() {
    let mut net = populated(4, 4, 8);
    for leaf in 0..8 {
        let home = net.homes_of(leaf)[leaf % 3];
        net.wish(leaf, home, &["tune", "music", "kind:audio"]);
    }
    net.run(SOON);
    let came: Vec<_> = (50..58).map(|number| net.join(4, number)).collect();
    net.run(Duration::from_mins(2));
    assert!(came.iter().all(|peer| net.machine(peer).attachments().leaves() == 8));
    assert!(keepers(&net).iter().any(|keeper| came.contains(keeper)), "wishes moved to those who came");
    assert_eq!(asked(&net), 0);
    assert!((0..8).all(|leaf| net.wished(leaf) == (BTreeSet::new(), 0)));
    // And they tell of what is new.
    net.share(3, [new_file("tune.ogg")]);
    net.run(SOON);
    for leaf in 0..8 {
        assert_eq!(net.wished(leaf).0, paths(&[(0, "tune.ogg"), (2, "tune.ogg")]));
    }
}

#[test]
fn wishes_outlast_their_lifetime_while_their_home_lives() {
    let mut net = populated(5, 5, 4);
    let home = net.homes_of(0)[0];
    net.wish(0, home, &["rose"]);
    net.run(limits::WISHES_LIFETIME * 3);
    assert_eq!(keepers(&net).len(), limits::WISH_KEEPERS);
    net.share(2, [new_file("rose.mp3")]);
    net.run(SOON);
    assert_eq!(net.wished(0).0, paths(&[(0, "rose.mp3")]));
    // A home that vanishes takes its wishes along.
    net.kill_ultrapeer(home);
    net.run(Duration::from_mins(1));
    assert_eq!(keepers(&net), []);
}

/// Random wishes, lists and ends of ultrapeers, against what plainly must be told: each file that is shared after a wish
/// was made, if its name holds the words.
#[test]
fn each_new_file_is_told_of_to_all_who_wish_for_it() {
    const WORDS: [&str; 8] = ["ash", "birch", "cedar", "date", "elm", "fir", "gum", "holly"];
    for seed in 0..6 {
        let mut rng = Pcg32::new(seed, 99);
        let mut net = populated(seed, 7, 10);
        let mut wishes: BTreeMap<usize, Vec<Vec<&str>>> = BTreeMap::new();
        for round in 0..12 {
            let leaf = rng.random_range(0..10);
            if rng.random_bool(0.5) && !net.homes_of(leaf).is_empty() {
                let words = rng.random_range(1..=3);
                let of_leaf = wishes.entry(leaf).or_default();
                of_leaf.push((0..words).filter_map(|_| WORDS.choose(&mut rng).copied()).collect());
                let queries: Vec<String> = of_leaf.iter().map(|words| words.join(" ")).collect();
                let home = net.homes_of(leaf)[0];
                net.wish(leaf, home, &queries.iter().map(String::as_str).collect::<Vec<_>>());
                net.run(SOON);
            }
            let mut expected: BTreeMap<usize, BTreeSet<(u32, String)>> = BTreeMap::new();
            for sharer in 0..10 {
                if !rng.random_bool(0.4) || net.homes_of(sharer).is_empty() {
                    continue;
                }
                let words: Vec<&str> = WORDS.iter().filter(|_| rng.random_bool(0.4)).copied().collect();
                let name = format!("{} {sharer} {round}.txt", words.join(" "));
                net.share(sharer, [new_file(&name)]);
                for (leaf, of_leaf) in &wishes {
                    let matching = (0..).zip(of_leaf).filter(|(_, wish)| wish.iter().all(|word| words.contains(word)));
                    let told = expected.entry(*leaf).or_default();
                    told.extend(matching.map(|(number, _)| (number, format!("New/{name}"))));
                }
            }
            net.run(SOON);
            for leaf in wishes.keys() {
                let (told, _) = net.wished(*leaf);
                assert_eq!(told, expected.remove(leaf).unwrap_or_default(), "seed {seed}, round {round}, leaf {leaf}");
            }
            if round == 6 {
                // Not a home of those who wish: they would have to move.
                let homes: BTreeSet<PeerId> = wishes.keys().map(|leaf| net.homes_of(*leaf)[0]).collect();
                if let Some(victim) = net.ultrapeers().into_iter().find(|peer| !homes.contains(peer)) {
                    net.kill_ultrapeer(victim);
                }
            }
        }
    }
}
