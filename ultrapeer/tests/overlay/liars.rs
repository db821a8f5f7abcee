//! Homes that lie about leaves: what they hide is found once they were caught, and no search says that it is complete
//! and misses something from then on.

use std::time::Duration;

use overlay::{
    file::FileEntry,
    id::PeerId,
    wire::search::{Incomplete, StopReason},
};

use super::net::{Net, file};

/// Rounds after which a liar must have been caught: the chance that it was not is one in millions.
const ROUNDS: usize = 100;
/// Leaves that share much: no home is asked once more for digests of a leaf of which it sent a wrong one, so a liar must
/// lie about several to be distrusted.
const LEAVES: usize = 4;
/// Chunks of each of their lists.
const CHUNKS: usize = 300;

/// How many of these words are found through a home, and how many searches say that they are complete.
fn search(net: &mut Net, leaf: usize, through: PeerId, words: &[String]) -> (usize, usize) {
    let (mut found, mut complete) = (0, 0);
    for word in words {
        let result = net.search(leaf, through, word);
        found += usize::from(!result.hits.is_empty());
        complete +=
            usize::from(result.summary.stopped == StopReason::Exhausted && result.summary.incomplete.is_empty());
    }
    (found, complete)
}

fn is_distrusted(net: &Net, at: PeerId, liar: &PeerId) -> bool {
    !net.machine(&at).attachments().is_trusted(liar)
}

/// The list of a leaf in so many chunks, each with words that no other has.
fn list(leaf: usize, version: usize) -> Vec<FileEntry> {
    let name = |number: usize| format!("Share/{number:04} {}.txt", word(leaf, number, version));
    (0..3 * CHUNKS).map(|number| file(&name(number), &format!("{leaf} {number} {version}"))).collect()
}

fn word(leaf: usize, number: usize, version: usize) -> String {
    format!("w{leaf}n{number}v{version}")
}

#[test]
fn a_home_that_leaves_out_words_is_caught_and_what_it_hid_is_found() {
    let mut net = Net::new(1, 4);
    let [asked, liar, honest, _] = net.ultrapeers()[..] else { panic!("four ultrapeers") };
    let asker = net.add_leaf(vec![file("Own/asker.txt", "asker")]);
    net.attach(asker, asked);
    net.omit(liar);
    let sharers: Vec<_> = (0..LEAVES).map(|leaf| net.add_leaf(list(leaf, 0))).collect();
    for sharer in &sharers {
        net.attach(*sharer, liar);
    }
    net.run(Duration::from_secs(5));
    assert_eq!(search(&mut net, asker, asked, &[word(0, 0, 0)]), (0, 1), "it says that it is complete");
    for sharer in &sharers {
        net.attach(*sharer, honest);
    }
    net.run(Duration::from_secs(5));

    // New lists, until one of the digests that the liar sends is audited.
    let caught = (0..ROUNDS).find(|version| {
        for (leaf, sharer) in sharers.iter().enumerate() {
            net.share_instead(*sharer, list(leaf, *version));
        }
        net.run(Duration::from_secs(40));
        is_distrusted(&net, asked, &liar)
    });
    let version = caught.expect("it is caught");
    let of_leaf = |leaf| (0..3 * CHUNKS).step_by(149).map(move |number| word(leaf, number, version));
    let words: Vec<_> = (0..LEAVES).flat_map(of_leaf).collect();
    assert_eq!(search(&mut net, asker, asked, &words), (words.len(), words.len()));
    let stats = net.machine(&asked).audits().stats();
    assert_eq!((stats.failed, stats.distrusted), (3, 1), "{stats:?}");
    assert_eq!(net.machine(&asked).digests().stats().uncovered, 0);

    // A leaf that is attached to the liar alone: it is said that it was not searched.
    let lost = net.add_leaf(vec![file("Share/treasure.txt", "treasure")]);
    net.attach(lost, liar);
    net.run(Duration::from_secs(5));
    let result = net.search(asker, asked, "nothing here");
    assert_eq!(result.summary.incomplete.iter().collect::<Vec<_>>(), [Incomplete::HomeSilent]);
    assert_eq!(net.search(asker, asked, "treasure").hits.len(), 1, "what a liar finds is shown");
}

#[test]
fn a_home_that_copies_the_lists_of_others_is_caught_and_hides_nothing_any_more() {
    let mut net = Net::new(1, 4);
    // Of homes that are as good, the first is asked.
    let [liar, asked, honest, other] = net.ultrapeers()[..] else { panic!("four ultrapeers") };
    let asker = net.add_leaf(vec![file("Own/asker.txt", "asker")]);
    net.attach(asker, asked);
    let words: Vec<_> = (0..20).map(|number| format!("w{number}")).collect();
    for word in &words {
        let leaf = net.add_leaf(vec![file(&format!("Share/{word}.txt"), word)]);
        net.attach(leaf, honest);
        net.attach(leaf, other);
    }
    net.run(Duration::from_secs(10));
    assert_eq!(search(&mut net, asker, asked, &words), (words.len(), words.len()));
    net.copy_lists(liar);
    net.run(Duration::from_secs(1));
    assert_eq!(search(&mut net, asker, asked, &words), (0, words.len()), "it hides all of them");

    let caught = (0..ROUNDS).find(|_| {
        net.copy_lists(liar);
        net.run(Duration::from_secs(30));
        is_distrusted(&net, asked, &liar)
    });
    assert!(caught.is_some(), "it is not caught");
    assert_eq!(search(&mut net, asker, asked, &words), (words.len(), words.len()));
    let stats = net.machine(&asked).audits().stats();
    assert_eq!((stats.failed, stats.distrusted), (3, 1), "{stats:?}");
}
