//! What ultrapeers block is withheld, whoever of them searches, and the asker is told how much that was.

use std::{collections::BTreeSet, time::Duration};

use overlay::{
    bans::Target::{Content, Peer},
    id::PeerId,
    wire::search::{StopReason, Target},
};

use super::net::{Found, Net, file};

/// Three ultrapeers; a leaf with two files at the first, one without at the second.
fn network(seed: u64) -> (Net, [PeerId; 2]) {
    let mut net = Net::new(seed, 3);
    let homes = net.ultrapeers();
    let sharer = net.add_leaf(vec![file("Music/red tune.ogg", "red"), file("Music/white tune.ogg", "white")]);
    let asker = net.add_leaf(Vec::new());
    net.attach(sharer, homes[0]);
    net.attach(asker, homes[1]);
    net.run(Duration::from_secs(5));
    (net, [homes[0], homes[1]])
}

/// Searches from the second leaf; the search is complete.
fn search(net: &mut Net, home: PeerId, target: Target) -> (BTreeSet<String>, u32) {
    let Found { hits, summary } = net.find(1, home, target);
    assert_eq!((summary.stopped, summary.incomplete.is_empty()), (StopReason::Exhausted, true), "{summary:?}");
    (hits.values().map(|hit| hit.path.to_string()).collect(), summary.withheld)
}

#[test]
fn a_blocked_content_is_withheld_by_a_home_and_by_whoever_coordinates() {
    let (mut net, [home, coordinator]) = network(1);
    let red = file("", "red").content;
    let tune = || Target::Query(overlay::wire::bounded::Text::new("tune"));
    let both = BTreeSet::from(["Music/red tune.ogg".to_owned(), "Music/white tune.ogg".to_owned()]);
    let white = BTreeSet::from(["Music/white tune.ogg".to_owned()]);
    assert_eq!(search(&mut net, coordinator, tune()), (both.clone(), 0));
    for (at_home, at_coordinator) in [(true, false), (false, true), (true, true)] {
        net.ban(home, at_home.then_some(Content(red)));
        net.ban(coordinator, at_coordinator.then_some(Content(red)));
        assert_eq!(search(&mut net, coordinator, tune()), (white.clone(), 1));
        assert_eq!(search(&mut net, coordinator, Target::Content(red)), (BTreeSet::new(), 1));
    }
    // The coordinator sends nobody to a leaf that it does not deal with.
    let sharer = net.peer_of(0);
    net.ban(home, []);
    net.ban(coordinator, [Peer(sharer)]);
    assert_eq!(search(&mut net, coordinator, tune()), (BTreeSet::new(), 2));
    net.ban(coordinator, []);
    assert_eq!(search(&mut net, coordinator, tune()), (both, 0));
}

#[test]
fn nobody_is_told_that_a_wish_found_something_blocked() {
    let (mut net, [home, keeper]) = network(2);
    let told = |net: &mut Net| net.wished(1).0.into_iter().map(|(_, path)| path).collect::<Vec<_>>();
    net.wish(1, keeper, &["rose"]);
    net.run(Duration::from_secs(5));
    for at_home in [true, false] {
        let name = |color: &str| format!("{color} rose {at_home}");
        let blocked = file("", &name("red")).content;
        net.ban(home, at_home.then_some(Content(blocked)));
        net.ban(keeper, (!at_home).then_some(Content(blocked)));
        net.share(0, ["red", "white"].map(|color| file(&format!("Music/{}", name(color)), &name(color))));
        net.run(Duration::from_secs(5));
        assert_eq!(told(&mut net), [format!("Music/{}", name("white"))], "{at_home}");
    }
}
