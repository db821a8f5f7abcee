//! Several ultrapeers and their leaves together, without sockets and clocks: lists are uploaded, searches
//! find every live file and say so, leaves are introduced, and an ultrapeer's end is survived.

mod admission;
mod bans;
mod guests;
mod liars;
mod meeting;
mod net;
mod possession;
mod shards;
mod wishes;

use std::{collections::BTreeMap, time::Duration};

use overlay::{
    file::FileEntry,
    id::ContentId,
    limits,
    wire::{
        leaf::{Introduced, IntroductionFailure, LeafMessage, Volunteer},
        search::{Incomplete, StopReason, Target},
    },
};

use self::net::{Found, Net, file};

const HOMES: usize = 3;

/// What leaf `number` shares: seven files of its own, one that every second leaf has too under a name of
/// its own, and one that no search here is for.
fn files(number: usize) -> Vec<FileEntry> {
    let own = (0..7)
        .map(|track| file(&format!("Music/leaf {number}/{track:02} tune.flac"), &format!("own {number} {track}")));
    let common = number.is_multiple_of(2).then(|| file(&format!("Music/common tune {number}.ogg"), "common"));
    own.chain(common).chain([file("Music/silence.wav", "silence")]).collect()
}

/// The contents that a search for `tune` must find, each with the number of its sources.
fn expected(leaves: &[usize]) -> BTreeMap<ContentId, u32> {
    let mut sources = BTreeMap::new();
    for file in leaves.iter().flat_map(|leaf| files(*leaf)).filter(|file| file.name().contains("tune")) {
        *sources.entry(file.content).or_default() += 1;
    }
    sources
}

/// `ultrapeers`, and `leaves` with [`HOMES`] homes each that hold their lists.
fn populated(seed: u64, ultrapeers: u8, leaves: usize) -> Net {
    let mut net = Net::new(seed, ultrapeers);
    let homes = net.ultrapeers();
    for number in 0..leaves {
        let leaf = net.add_leaf(files(number));
        for home in homes.iter().cycle().skip(number).take(HOMES) {
            net.attach(leaf, *home);
        }
    }
    net.run(Duration::from_secs(5));
    net
}

/// Searches through every home of every one of `leaves`, and expects all that they share, once.
fn all_is_found_from_everywhere(net: &mut Net, leaves: &[usize]) {
    let expected = expected(leaves);
    for leaf in leaves {
        for home in net.homes_of(*leaf) {
            let Found { hits, summary } = net.search(*leaf, home, "tune");
            let found: BTreeMap<_, _> = hits.iter().map(|(content, hit)| (*content, hit.sources)).collect();
            assert_eq!(found, expected, "leaf {leaf} through {home:?}");
            assert_eq!(summary.stopped, StopReason::Exhausted);
            assert!(summary.incomplete.is_empty(), "{summary:?}");
            assert_eq!((summary.leaves_covered, summary.leaves_total), (leaves.len() as u64, leaves.len() as u64));
            assert_eq!(summary.ultrapeers_total as usize, net.ultrapeers().len());
            assert_eq!(summary.messages + 1, summary.ultrapeers_asked, "each is asked once");
        }
    }
}

#[test]
fn ultrapeers_that_join_through_one_come_to_one_view() {
    let net = Net::new(1, 6);
    let views: Vec<_> = net.ultrapeers().iter().map(|peer| net.machine(peer).membership().view()).collect();
    assert!(views.windows(2).all(|pair| pair[0] == pair[1]));
    assert!(net.ultrapeers().iter().all(|peer| net.machine(peer).membership().total() == 6));
}

#[test]
fn every_home_acknowledges_a_list_and_logs_it_to_all() {
    let net = populated(2, 5, 6);
    for leaf in 0..6 {
        assert_eq!(net.acknowledged(leaf).len(), HOMES, "leaf {leaf}");
    }
    assert!(net.ultrapeers().iter().all(|peer| net.machine(peer).attachments().leaves() == 6));
}

#[test]
fn a_search_through_any_home_finds_every_file_once() {
    for seed in 0..3 {
        let mut net = populated(seed, 5, 8);
        all_is_found_from_everywhere(&mut net, &[0, 1, 2, 3, 4, 5, 6, 7]);
    }
}

#[test]
fn a_hit_names_every_name_and_homes_that_hold_its_source() {
    let mut net = populated(3, 4, 4);
    let home = net.homes_of(1)[0];
    let Found { hits, .. } = net.search(1, home, "common");
    let hit = &hits[&file("", "common").content];
    assert_eq!((hits.len(), hit.sources), (1, 2));
    let mut names: Vec<_> = hit.names.iter().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(names, ["common tune 0.ogg", "common tune 2.ogg"]);
    for source in hit.peers.iter() {
        let leaf = (0..4).find(|leaf| net.peer_of(*leaf) == source.peer).expect("a leaf of the network");
        assert!(source.homes.iter().all(|home| net.homes_of(leaf).contains(home)));
    }
}

#[test]
fn unlisted_files_are_found_by_their_content_alone() {
    let mut net = populated(3, 4, 4);
    let home = net.ultrapeers()[0];
    let (secret, common) = (file("Secret/tune.flac", "secret").content, file("", "common").content);
    let mut files = vec![FileEntry::unlisted(secret, 1_000), FileEntry::unlisted(common, 1_000)];
    files.push(file("Own/tune.flac", "own"));
    let holder = net.add_leaf(files);
    net.attach(holder, home);
    net.run(Duration::from_secs(5));
    let asker = (0..4).find(|leaf| !net.homes_of(*leaf).contains(&home)).expect("a leaf of other homes");
    let through = net.homes_of(asker)[0];

    let by_words = net.search(asker, through, "tune").hits;
    assert!(!by_words.contains_key(&secret) && by_words.contains_key(&file("", "own").content));
    assert_eq!(by_words[&common].sources, 2, "who lists it not is no source of a search");
    let hex = secret.to_string();
    for query in [hex.as_str(), &format!("{}*", &hex[..8]), "kind:other,audio", "tune -nothing size:1000"] {
        assert!(!net.search(asker, through, query).hits.contains_key(&secret), "{query}");
    }
    let by_content = net.find(asker, through, Target::Content(secret)).hits;
    let hit = &by_content[&secret];
    assert_eq!((hit.sources, hit.size, hit.names.len(), &*hit.path), (1, 1_000, 0, ""));
    assert_eq!(hit.peers.iter().map(|source| source.peer).collect::<Vec<_>>(), [net.peer_of(holder)]);
    let hit = net.find(asker, through, Target::Content(common)).hits.remove(&common).expect("it is held");
    assert_eq!((hit.sources, hit.names.len()), (3, 2), "the names of those who list it");
}

#[test]
fn a_query_that_costs_too_much_is_cut_and_said_so() {
    let mut net = Net::new(6, 2);
    let [home, other] = net.ultrapeers()[..] else { panic!("two ultrapeers") };
    // Every file has both words, and none has them side by side: each must be read to know that it is no match.
    let files = |count: usize| {
        let name = move |at| file(&format!("Share/alpha {at:06} beta.txt"), &format!("{count} {at}"));
        (0..count).map(name).collect::<Vec<_>>()
    };
    let many = usize::try_from(limits::LOOKUP_WORK / limits::LOOKUP_FILE_WORK).expect("a small number") + 1_000;
    let big = net.add_leaf(files(many));
    let small = net.add_leaf([files(3), vec![file("Share/the alpha beta.txt", "the one")]].concat());
    net.attach(big, home);
    net.attach(small, other);
    net.run(Duration::from_mins(1));
    assert_eq!((net.acknowledged(big).len(), net.acknowledged(small).len()), (1, 1));

    // Whether the own index or another ultrapeer's is cut; what the rest finds is given.
    for (leaf, through) in [(small, other), (big, home)] {
        let Found { hits, summary } = net.search(leaf, through, "\"alpha beta\"");
        assert_eq!((hits.len(), summary.stopped), (1, StopReason::Exhausted), "{summary:?}");
        assert_eq!(summary.incomplete.iter().collect::<Vec<_>>(), [Incomplete::WorkCap]);
        // A rare word beside the frequent ones makes it cheap, and complete.
        let Found { hits, summary } = net.search(leaf, through, "\"alpha beta\" the");
        assert_eq!((hits.len(), summary.incomplete.is_empty()), (1, true), "{summary:?}");
    }
}

#[test]
fn the_end_of_an_ultrapeer_hides_no_file() {
    for victim in 0..5 {
        let mut net = populated(4, 5, 6);
        net.kill_ultrapeer(net.ultrapeers()[victim]);
        let home = net.homes_of(0)[0];
        let at_once = net.search(0, home, "tune");
        assert_eq!(at_once.hits.len(), expected(&[0, 1, 2, 3, 4, 5]).len(), "other homes answer for its leaves");
        all_is_found_from_everywhere(&mut net, &[0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn the_files_of_a_leaf_that_is_gone_are_not_found() {
    let mut net = populated(5, 4, 5);
    net.kill_leaf(2);
    net.run(Duration::from_secs(1));
    all_is_found_from_everywhere(&mut net, &[0, 1, 3, 4]);
}

#[test]
fn leaves_of_different_homes_are_introduced() {
    let mut net = Net::new(6, 3);
    let homes = net.ultrapeers();
    let (asker, target) = (net.add_leaf(files(0)), net.add_leaf(files(1)));
    net.attach(asker, homes[0]);
    net.attach(target, homes[2]);
    net.run(Duration::from_secs(2));
    let expected = Some(vec![net.address_of(target)]);
    let key = net.peer_of(target);
    assert_eq!(Net::addresses(net.introduce(asker, homes[0], key, &[homes[2]])), expected);
    assert_eq!(Net::addresses(net.introduce(asker, homes[0], key, &[])), expected, "without a hint all are asked");

    net.kill_leaf(target);
    let gone = Introduced::Failed(IntroductionFailure::TargetGone);
    assert_eq!(net.introduce(asker, homes[0], key, &[homes[2]]), gone);
}

/// It dialled itself over loopback, where nobody else reaches it.
#[test]
fn the_leaf_side_of_an_ultrapeer_is_introduced_where_the_ultrapeer_is_reached() {
    let mut net = Net::new(6, 3);
    let own = net.add_leaf_side(2, files(1));
    let home = net.peer_of(own);
    let other = net.ultrapeers().into_iter().find(|peer| *peer != home).expect("three of them");
    let (near, far) = (net.add_leaf(files(0)), net.add_leaf(files(2)));
    net.attach(own, home);
    net.attach(near, home);
    net.attach(far, other);
    net.run(Duration::from_secs(2));
    let expected = Some(vec!["10.0.0.2:7780".parse().expect("an address")]);
    assert_eq!(Net::addresses(net.introduce(near, home, home, &[home])), expected);
    assert_eq!(Net::addresses(net.introduce(far, other, home, &[home])), expected);
}

#[test]
fn leaves_are_told_of_others_that_would_be_ultrapeers() {
    let mut net = Net::new(6, 2);
    let home = net.ultrapeers()[0];
    let leaves: Vec<_> = (0..3).map(|number| net.add_leaf(files(number))).collect();
    for leaf in &leaves {
        net.attach(*leaf, home);
    }
    net.run(Duration::from_secs(1));
    for leaf in &leaves[1..] {
        net.say(*leaf, home, Volunteer { willing: true });
    }
    net.run(Duration::from_secs(5));
    let mut named = |leaf: usize| {
        let told = net.told(leaf).into_iter().rev();
        let told = told.filter_map(|(_, message)| match message {
            LeafMessage::Volunteers(told) => Some(told.leaves.into_vec()),
            _ => None,
        });
        let mut named: Vec<_> = told.take(1).flatten().map(|contact| (contact.peer, contact.address)).collect();
        named.sort_unstable();
        named
    };
    let told: Vec<_> = leaves.iter().map(|leaf| named(*leaf)).collect();
    let seen = |leaf: usize| (net.peer_of(leaf), net.address_of(leaf));
    let mut both = vec![seen(leaves[1]), seen(leaves[2])];
    both.sort_unstable();
    assert_eq!(told, [both, vec![seen(leaves[2])], vec![seen(leaves[1])]]);
}

/// Looks a file of leaf `holder` up by its content, through a home of `asker`.
fn look_up(net: &mut Net, asker: usize, holder: usize, track: usize) -> Found {
    let through = net.homes_of(asker)[0];
    net.find(asker, through, Target::Content(file("", &format!("own {holder} {track}")).content))
}

#[test]
fn a_content_is_found_among_nine_ultrapeers_with_two_messages() {
    let mut net = populated(8, 9, 9);
    let mut messages = 0;
    for (asker, holder) in (0..9).flat_map(|asker| (0..9).map(move |holder| (asker, holder))) {
        let Found { hits, summary } = look_up(&mut net, asker, holder, (asker + holder) % 7);
        let hit = hits.values().next().expect("it is found");
        assert_eq!((hits.len(), hit.sources, hit.peers[0].peer), (1, 1, net.peer_of(holder)));
        assert!(summary.messages <= 2, "{summary:?}");
        assert_eq!(summary.incomplete.iter().collect::<Vec<_>>(), [Incomplete::WorkCap], "it is best effort");
        assert!(summary.leaves_covered < summary.leaves_total);
        messages += summary.messages;
    }
    assert!(messages <= 81 * 3 / 2, "an owner itself asks one, or nobody: {messages}");
    // A content of many holders: five leaves, found through the homes of all.
    let through = net.homes_of(1)[0];
    let Found { hits, summary } = net.find(1, through, Target::Content(file("", "common").content));
    assert_eq!((hits.values().next().expect("it is found").sources, summary.stopped), (5, StopReason::Exhausted));
    let nobody = net.find(1, through, Target::Content(file("", "nobody has it").content));
    assert!(nobody.hits.is_empty() && nobody.summary.messages <= 1);
}

#[test]
fn what_was_just_shared_is_found_by_its_content() {
    let mut net = populated(9, 9, 4);
    let homes = net.ultrapeers();
    let secret = file("", "secret").content;
    let holder = net.add_leaf(vec![FileEntry::unlisted(secret, 1_000)]);
    for home in &homes[4..7] {
        net.attach(holder, *home);
    }
    net.run(Duration::from_secs(2));
    for asker in 0..4 {
        let through = net.homes_of(asker)[1];
        let Found { hits, .. } = net.find(asker, through, Target::Content(secret));
        assert_eq!(hits[&secret].peers[0].peer, net.peer_of(holder), "through {through:?}");
    }
    net.kill_leaf(holder);
    net.run(Duration::from_secs(2));
    let through = net.homes_of(0)[0];
    let Found { hits, summary } = net.find(0, through, Target::Content(secret));
    assert!(hits.is_empty() && summary.messages <= 1, "nobody says that it is there: {summary:?}");
}

#[test]
fn a_content_is_found_whoever_of_its_owners_dies() {
    let content = file("", "own 2 3").content;
    let owners = {
        let net = populated(10, 9, 6);
        net.machine(&net.ultrapeers()[0]).holders().owners(&content).expect("a network of nine")
    };
    assert_eq!(owners.len(), 3);
    for deaths in 1..=3 {
        let mut net = populated(10, 9, 6);
        for owner in owners.iter().take(deaths) {
            net.kill_ultrapeer(*owner);
        }
        let asker = (0..6).find(|leaf| !net.homes_of(*leaf).is_empty()).expect("not all homes died");
        if deaths < 3 {
            let Found { hits, summary } = look_up(&mut net, asker, 2, 3);
            assert_eq!(hits.len(), 1, "{summary:?}");
        }
        // With fewer than nine left, all homes are asked.
        net.run(Duration::from_secs(10));
        let Found { hits, summary } = look_up(&mut net, asker, 2, 3);
        assert_eq!((hits.len(), summary.incomplete.is_empty()), (usize::from(!net.homes_of(2).is_empty()), true));
    }
}

#[test]
fn what_all_its_owners_knew_is_told_again_when_they_died() {
    let content = file("", "own 2 3").content;
    let mut net = populated(11, 13, 6);
    let all = net.ultrapeers();
    let owners = net.machine(&all[0]).holders().owners(&content).expect("a network of thirteen");
    for owner in &owners {
        net.kill_ultrapeer(*owner);
    }
    net.run(Duration::from_secs(10));
    for asker in (0..6).filter(|leaf| *leaf != 2) {
        let Found { hits, summary } = look_up(&mut net, asker, 2, 3);
        assert_eq!(hits.len(), 1, "{summary:?}");
        assert!(summary.messages <= 2 && !summary.incomplete.is_empty(), "{summary:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut net = populated(7, 4, 5);
        let home = net.homes_of(3)[1];
        let Found { hits, summary } = net.search(3, home, "tune -03");
        (format!("{hits:?}"), summary)
    };
    assert_eq!(run(), run());
}
