//! Complaints about a source find their way to a home of it, which then asks it for just that.

use std::time::Duration;

use overlay::{
    id::{ContentId, PeerId},
    wire::{bounded::List, possession::Complaint},
};
use ultrapeer::possession::Stats;

use super::net::{Net, file};

fn stats(net: &Net, home: &PeerId) -> Stats {
    net.machine(home).possessions().stats()
}

#[test]
fn a_complaint_is_passed_to_a_home_of_the_source_and_it_must_prove_what_it_was_about() {
    let mut net = Net::new(1, 3);
    let ups = net.ultrapeers();
    let list = vec![file("Share/tune.flac", "tune"), file("Share/other.flac", "other")];
    let content = list[0].content;
    let (source, other) = (net.add_leaf(list), net.add_leaf(vec![file("Share/x", "x")]));
    net.attach(source, ups[0]);
    net.attach(source, ups[1]);
    net.attach(other, ups[2]);
    net.run(Duration::from_mins(10));
    let before: Vec<_> = ups.iter().map(|up| stats(&net, up)).collect();
    assert!(before.iter().all(|stats| stats.proven >= 1 && stats.complaints == 0), "{before:?}");

    let complaint =
        |net: &Net, content| Complaint { source: net.peer_of(source), content, homes: List::new([ups[0], ups[1]]) };
    let unlisted = complaint(&net, ContentId([7; 32]));
    net.say(other, ups[2], unlisted);
    let listed = complaint(&net, content);
    net.say(other, ups[2], listed);
    net.run(Duration::from_mins(1));
    let after: Vec<_> = ups.iter().map(|up| stats(&net, up)).collect();
    assert_eq!(after.iter().map(|stats| stats.complaints).collect::<Vec<_>>(), [1, 0, 0], "one home is enough");
    assert_eq!(after[0].proven, before[0].proven + 1);
    // One that is attached to the same home is asked by that.
    net.attach(other, ups[1]);
    net.run(Duration::from_mins(10));
    let before = stats(&net, &ups[1]);
    let listed = complaint(&net, content);
    net.say(other, ups[1], listed);
    net.run(Duration::from_mins(1));
    let after = stats(&net, &ups[1]);
    assert_eq!((after.complaints, after.proven), (before.complaints + 1, before.proven + 1));
    assert_eq!((after.failed, after.dropped), (0, 0));
}
