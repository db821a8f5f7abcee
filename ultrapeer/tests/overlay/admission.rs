//! Who is let in on the public network.

use std::time::Duration;

use overlay::{id::PeerId, wire::election::Hurdle};
use ultrapeer::ultrapeer::{Phase, Retirement};

use super::Net;

const MINUTE: Duration = Duration::from_mins(1);

fn serves(net: &Net, peer: &PeerId) -> bool {
    net.machine(peer).phase() == Phase::Admitted
}

/// Runs until `holds`, or for `longest`.
fn run_until(net: &mut Net, longest: Duration, holds: impl Fn(&Net) -> bool) -> bool {
    for _ in 0..longest.as_secs() {
        if holds(net) {
            return true;
        }
        net.run(Duration::from_secs(1));
    }
    holds(net)
}

/// The public network of so many ultrapeers, each in a network of its own.
fn public(count: u8) -> (Net, Vec<PeerId>) {
    let (mut net, founder) = Net::public([20, 1, 1, 1]);
    let mut all = vec![founder];
    for number in 2..=count {
        let peer = net.add_public(number, [20 + number, 1, 1, 1]);
        net.link(peer, founder);
        assert!(run_until(&mut net, 2 * MINUTE, |net| serves(net, &peer)), "{number} is not let in");
        all.push(peer);
    }
    (net, all)
}

#[test]
fn who_can_be_reached_and_is_fast_is_let_in_and_the_network_grows_at_a_pace() {
    let (mut net, mut all) = public(5);
    let newcomers: Vec<_> = (6..=12).map(|number| net.add_public(number, [20 + number, 1, 1, 1])).collect();
    for peer in &newcomers {
        net.link(*peer, all[0]);
    }
    net.run(Duration::from_secs(30));
    let early = newcomers.iter().filter(|peer| serves(&net, peer)).count();
    assert!(early <= 4, "{early} of seven in half a minute");
    assert!(run_until(&mut net, 15 * MINUTE, |net| newcomers.iter().all(|peer| serves(net, peer))));
    all.extend(newcomers);
    net.run(MINUTE);
    for peer in &all {
        assert_eq!(net.machine(peer).membership().total() as usize, all.len(), "the view of {peer:?}");
    }
}

#[test]
fn who_cannot_be_reached_or_is_slow_or_comes_from_a_full_prefix_is_told_so() {
    let (mut net, all) = public(4);
    let unreached = net.add_public(50, [50, 1, 1, 1]);
    net.set_reach(unreached, false, 0);
    let slow = net.add_public(51, [51, 1, 1, 1]);
    net.set_reach(slow, true, 9_000);
    let neighbour = net.add_public(52, [22, 1, 1, 77]);
    for peer in [unreached, slow, neighbour] {
        net.link(peer, all[1]);
    }
    net.run(3 * MINUTE);
    for (peer, hurdle) in [(unreached, Hurdle::Reachable), (slow, Hurdle::Bandwidth), (neighbour, Hurdle::Prefix)] {
        assert!(!serves(&net, &peer));
        assert_eq!(net.machine(&peer).hurdle(), Some(hurdle));
    }
    assert!(all.iter().all(|peer| net.machine(peer).membership().total() == 4));
    // What was wrong is mended: it is asked again and found good.
    net.set_reach(slow, true, 20_000);
    assert!(run_until(&mut net, 25 * MINUTE, |net| serves(net, &slow)));
}

#[test]
fn many_keys_of_one_prefix_get_one_place() {
    let (mut net, all) = public(4);
    let crowd: Vec<_> = (60..90).map(|number| net.add_public(number, [60, 1, 1, number])).collect();
    for peer in &crowd {
        net.link(*peer, all[2]);
    }
    net.run(15 * MINUTE);
    let of_crowd = |peer: &PeerId| {
        let members = net.machine(peer).membership();
        crowd.iter().filter(|other| members.contains(other)).copied().collect::<Vec<_>>()
    };
    assert_eq!(of_crowd(&all[0]).len(), 1);
    assert!(all.iter().all(|peer| of_crowd(peer) == of_crowd(&all[0])));
    assert!(all.iter().all(|peer| net.machine(peer).membership().total() == 5));
}

/// Whether a volunteer that one ultrapeer let in stops when the network has grown so that more must confirm it, of which
/// something is so.
fn stops_when_it_needs_votes(so: impl FnOnce(&mut Net, PeerId, &[PeerId])) -> Option<Retirement> {
    let mut net = Net::new(1, 1);
    let founder = net.ultrapeers()[0];
    let volunteer = net.add_volunteer(2, founder);
    let others = [net.join(1, 3), net.join(1, 4), net.join(1, 5)];
    so(&mut net, volunteer, &others);
    assert_eq!(net.retired(&volunteer), None);
    run_until(&mut net, 5 * MINUTE, |net| net.retired(&volunteer).is_some());
    assert!(others.iter().all(|peer| net.retired(peer).is_none()), "operators want them");
    net.retired(&volunteer)
}

#[test]
fn a_volunteer_stops_when_it_needs_votes_of_those_that_do_not_reach_or_believe_it() {
    assert_eq!(stops_when_it_needs_votes(|_, _, _| ()), None);
    let unreached = stops_when_it_needs_votes(|net, volunteer, _| net.set_reach(volunteer, false, 0));
    assert_eq!(unreached, Some(Retirement::Unreachable));
    let liar = stops_when_it_needs_votes(|net, _, others| others.iter().for_each(|other| net.accuse(*other)));
    assert_eq!(liar, Some(Retirement::Distrusted));
}

#[test]
fn a_candidate_whose_link_is_replaced_before_its_voter_answers_asks_again_at_once() {
    let mut net = Net::new(1, 1);
    let founder = net.ultrapeers()[0];
    let candidate = net.join(1, 2);
    // Answers are on their way, and the link is another one each time.
    for _ in 0..5 {
        net.run(Duration::from_millis(30));
        net.relink(candidate, founder);
    }
    assert!(run_until(&mut net, Duration::from_secs(5), |net| serves(net, &candidate)));
}
