use overlay::{
    id::HandleSalt,
    identity::Identity,
    wire::leaf::{CatalogError, RootStatement, catalog_root},
};

use super::*;

/// The home's key.
const HOME: PeerId = PeerId([0; 32]);

/// A built chunk, of which nothing is kept.
#[derive(Debug)]
struct Chunk;

impl Built for Chunk {
    type Kept = ();

    fn kept(&self) {}
}

/// Leaves with the unit as built chunk, and their outputs since they were last looked at.
struct Home {
    leaves: Leaves<Chunk>,
    out: Outbox<Output<Chunk>>,
    now: Time,
    /// Handles as they are written here.
    handles: BTreeMap<u64, u64>,
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

fn salt(session: Session) -> HandleSalt {
    HandleSalt([session as u8; 16])
}

fn chunk(name: u8) -> ChunkRef {
    ChunkRef { hash: [name; 32], bytes: 100, files: 10 }
}

fn root(of: u8, sequence: u64, chunks: &[u8]) -> CatalogRoot {
    let chunks: Vec<_> = chunks.iter().copied().map(chunk).collect();
    let statement = RootStatement {
        root: catalog_root(chunks.iter().map(|chunk| &chunk.hash)),
        files: chunks.iter().map(|chunk| u64::from(chunk.files)).sum(),
        sequence,
        lifetime_s: 86_400,
        home: HOME,
    };
    CatalogRoot::sign(&identity(of), &statement, chunks)
}

fn part(sequence: u64, chunk: u32, last: bool) -> CatalogPart {
    CatalogPart { sequence, chunk, last, data: Blob::default() }
}

fn want(session: Session, sequence: u64, chunks: &[u32]) -> String {
    format!("{session} <- want {sequence} {chunks:?}")
}

fn ack(session: Session, sequence: u64, files: u64) -> String {
    format!("{session} <- ack {sequence} {files}")
}

impl Home {
    fn new(settings: Settings) -> Self {
        Self { leaves: Leaves::new(HOME, settings), out: Outbox::new(), now: Time::ZERO, handles: BTreeMap::new() }
    }

    /// A home with one leaf: key 1, session 1, handle 100.
    fn with_leaf() -> Self {
        let mut home = Self::new(Settings::default());
        home.attach(1, 1);
        home
    }

    fn attach(&mut self, session: Session, seed: u8) {
        self.attach_at(session, seed, SocketAddr::from(([192, 0, 2, seed], 7780)));
    }

    fn attach_at(&mut self, session: Session, seed: u8, address: SocketAddr) {
        let salt = salt(session);
        self.handles.insert(salt.handle(&identity(seed).peer_id()), 99 + session);
        self.leaves.attach(self.now, session, identity(seed).peer_id(), salt, address, &mut self.out);
    }

    fn root(&mut self, session: Session, root: &CatalogRoot) -> Vec<String> {
        self.leaves.root(self.now, session, root, &mut self.out);
        self.said()
    }

    fn part(&mut self, session: Session, part: CatalogPart) -> Vec<String> {
        self.leaves.part(self.now, session, part, &mut self.out);
        self.said()
    }

    fn built(&mut self, session: Session, name: u8) -> Vec<String> {
        self.leaves.built(self.now, session, [name; 32], Some(Arc::new(Chunk)), &mut self.out);
        self.said()
    }

    /// Uploads whatever is wanted of a list until it is in place.
    fn upload(&mut self, session: Session, root: &CatalogRoot, sequence: u64) {
        self.leaves.root(self.now, session, root, &mut self.out);
        loop {
            let outputs: Vec<_> = self.out.drain().collect();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Send(_, LeafMessage::CatalogWant(want)) => {
                        for index in want.chunks {
                            self.leaves.part(self.now, session, part(sequence, index, true), &mut self.out);
                        }
                    }
                    Output::Build { session, chunk: ChunkRef { hash, .. }, .. }
                    | Output::Rebuild { session, hash, .. } => {
                        self.leaves.built(self.now, session, hash, Some(Arc::new(Chunk)), &mut self.out);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The outputs in short, but that leaves are gone.
    fn said(&mut self) -> Vec<String> {
        let short = |output| match output {
            Output::Send(session, LeafMessage::CatalogWant(asked)) => want(session, asked.sequence, &asked.chunks),
            Output::Send(session, LeafMessage::CatalogAck(given)) => ack(session, given.sequence, given.files),
            Output::Send(session, LeafMessage::Ping(_)) => format!("{session} <- ping"),
            Output::Send(session, other) => format!("{session} <- {other:?}"),
            Output::Close(session, why) => format!("close {session} {why:?}"),
            Output::Build { session, chunk, parts } => format!("build {session} {} of {}", chunk.hash[0], parts.len()),
            Output::Rebuild { session, hash, .. } => format!("rebuild {session} {}", hash[0]),
            Output::Insert(slot, hash, _) => format!("insert {slot} {}", hash[0]),
            Output::Remove(slot, hash) => format!("remove {slot} {}", hash[0]),
            Output::Publish => "publish".to_owned(),
            Output::Left(_) => String::new(),
            Output::Logged(handle, sequence) => format!("log {} {sequence:?}", self.handles[&handle]),
        };
        self.out.drain().map(short).filter(|said| !said.is_empty()).collect()
    }
}

#[test]
fn a_list_is_wanted_built_published_logged_and_acknowledged_in_that_order() {
    let mut home = Home::with_leaf();
    assert_eq!(home.root(1, &root(1, 5, &[7, 8])), [want(1, 5, &[0, 1])]);
    assert!(home.part(1, part(5, 0, false)).is_empty());
    assert_eq!(home.part(1, part(5, 0, true)), ["build 1 7 of 2"]);
    assert!(home.built(1, 7).is_empty(), "half a list is not searchable");
    assert_eq!(home.part(1, part(5, 1, true)), ["build 1 8 of 1"]);
    let ack = ack(1, 5, 20);
    assert_eq!(home.built(1, 8), ["insert 0 7", "insert 0 8", "publish", "log 100 Some(5)", &ack]);
    let leaf = home.leaves.get(1).unwrap();
    assert_eq!((leaf.files, leaf.sequence()), (20, Some(5)));
}

#[test]
fn a_list_is_asked_for_a_few_chunks_at_a_time() {
    let mut home = Home::with_leaf();
    let names: Vec<u8> = (1..=6).collect();
    assert_eq!(home.root(1, &root(1, 1, &names)), [want(1, 1, &[0, 1, 2, 3])]);
    assert_eq!(home.part(1, part(1, 2, true)), ["build 1 3 of 1"]);
    assert_eq!(home.built(1, 3), [want(1, 1, &[4])]);
}

#[test]
fn an_empty_list_is_in_place_at_once() {
    let mut home = Home::with_leaf();
    assert_eq!(home.root(1, &root(1, 1, &[])), ["publish", "log 100 Some(1)", &ack(1, 1, 0)]);
}

#[test]
fn nothing_is_wanted_of_an_unchanged_list_and_one_chunk_of_a_list_with_one_change() {
    let mut home = Home::with_leaf();
    home.upload(1, &root(1, 1, &[7, 8, 9]), 1);
    assert_eq!(home.root(1, &root(1, 2, &[7, 8, 9])), ["publish", "log 100 Some(2)", &ack(1, 2, 30)]);
    assert_eq!(home.root(1, &root(1, 3, &[7, 6, 9])), [want(1, 3, &[1])]);
    home.part(1, part(3, 1, true));
    let ack = ack(1, 3, 30);
    assert_eq!(home.built(1, 6), ["insert 0 6", "remove 0 8", "publish", "log 100 Some(3)", &ack]);
}

#[test]
fn an_old_list_is_answered_with_what_is_searchable() {
    let mut home = Home::with_leaf();
    home.upload(1, &root(1, 3, &[7]), 3);
    assert_eq!(home.root(1, &root(1, 3, &[7])), [ack(1, 3, 10)]);
    assert_eq!(home.root(1, &root(1, 2, &[8])), [ack(1, 3, 10)]);
    assert_eq!(home.leaves.get(1).unwrap().sequence(), Some(3));
}

#[test]
fn a_newer_list_takes_over_what_was_built_of_the_one_it_replaces() {
    let mut home = Home::with_leaf();
    home.root(1, &root(1, 1, &[6, 7, 8]));
    home.part(1, part(1, 0, true));
    home.built(1, 6);
    home.part(1, part(1, 1, true));
    assert_eq!(home.root(1, &root(1, 2, &[6, 7, 9])), [want(1, 2, &[2])], "7 is being built");
    assert!(home.part(1, part(1, 2, true)).is_empty(), "a part of the replaced list is ignored");
    assert!(home.built(1, 7).is_empty(), "what was being built counts, the list is not whole");
    home.part(1, part(2, 2, true));
    let ack = ack(1, 2, 30);
    assert_eq!(
        home.built(1, 9),
        ["insert 0 6", "insert 0 7", "insert 0 9", "publish", "log 100 Some(2)", &ack],
        "nothing of the replaced list is searchable"
    );
}

#[test]
fn so_many_leaves_upload_at_a_time_and_the_next_gets_its_turn() {
    let mut home = Home::new(Settings::default());
    let last = limits::UPLOADS as u64 + 2;
    for session in 1..=last {
        home.attach(session, session as u8);
        let said = home.root(session, &root(session as u8, 1, &[7]));
        let expected = if session <= limits::UPLOADS as u64 { vec![want(session, 1, &[0])] } else { Vec::new() };
        assert_eq!(said, expected);
    }
    home.part(3, part(1, 0, true));
    assert_eq!(home.built(3, 7).last(), Some(&want(last - 1, 1, &[0])), "one is done");
    home.leaves.detach(home.now, 4, &mut home.out);
    assert_eq!(home.said().last(), Some(&want(last, 1, &[0])), "one left");
}

#[test]
fn a_list_that_is_announced_and_not_sent_ends_the_session_and_makes_room() {
    let mut home = Home::new(Settings::default());
    for session in 1..=limits::UPLOADS as u64 + 1 {
        home.attach(session, session as u8);
        home.root(session, &root(session as u8, 1, &[7, 8]));
    }
    // All but one send a chunk in time; a part alone is no chunk.
    home.now += limits::UPLOAD_PATIENCE / 2;
    for session in 2..=limits::UPLOADS as u64 {
        home.part(session, part(1, 0, true));
    }
    home.part(1, part(1, 0, false));
    home.now = home.leaves.next_deadline().unwrap();
    assert_eq!(home.now, Time::ZERO + limits::UPLOAD_PATIENCE);
    home.leaves.on_deadline(home.now, &mut home.out);
    let last = limits::UPLOADS as u64 + 1;
    assert_eq!(home.said(), ["publish", &want(last, 1, &[0, 1]), "close 1 Stalled"]);
    // Who has sent a chunk has as long for the next one.
    assert_eq!(home.leaves.next_deadline().unwrap(), home.now + limits::UPLOAD_PATIENCE / 2);
}

#[test]
fn a_long_upload_lets_those_that_wait_go_first_and_goes_on_after_them() {
    let mut home = Home::new(Settings::default());
    let long: Vec<u8> = (10..30).collect();
    for session in 1..=limits::UPLOADS as u64 {
        home.attach(session, session as u8);
        home.root(session, &root(session as u8, 1, &long));
    }
    let late = limits::UPLOADS as u64 + 1;
    home.attach(late, late as u8);
    assert!(home.root(late, &root(late as u8, 1, &[7])).is_empty(), "no place is free");
    home.part(1, part(1, 0, true));
    assert_eq!(home.built(1, 10), [want(1, 1, &[4])], "its turn is not over");
    home.now += limits::UPLOAD_TURN;
    for (chunk, name) in [(1, 11), (2, 12), (3, 13)] {
        home.part(1, part(1, chunk, true));
        assert!(home.built(1, name).is_empty(), "what was asked for is finished first");
    }
    home.part(1, part(1, 4, true));
    assert_eq!(home.built(1, 14), [want(late, 1, &[0])]);
    home.part(late, part(1, 0, true));
    let said = home.built(late, 7);
    assert_eq!(said[said.len() - 2..], [ack(late, 1, 10), want(1, 1, &[5, 6, 7, 8])]);
}

#[test]
fn who_announces_lists_without_end_is_turned_away_but_not_on_loopback() {
    let mut home = Home::with_leaf();
    let burst = limits::LIST_BURST as u64;
    let mut refused = None;
    for sequence in 1..=2 * burst {
        if home.root(1, &root(1, sequence, &[])).iter().any(|said| said.starts_with("close 1")) {
            refused.get_or_insert(sequence);
        }
    }
    assert_eq!(refused, Some(burst + 1));
    // One a second is never too many.
    let mut home = Home::with_leaf();
    for sequence in 1..=4 * burst {
        home.now += std::time::Duration::from_secs(1);
        assert_eq!(home.root(1, &root(1, sequence, &[])).last(), Some(&ack(1, sequence, 0)));
    }
    let loopback = SocketAddr::from(([127, 0, 0, 1], 7780));
    home.attach_at(2, 2, loopback);
    home.said();
    for sequence in 1..=2 * burst {
        assert_eq!(home.root(2, &root(2, sequence, &[])).last(), Some(&ack(2, sequence, 0)));
    }
}

#[test]
fn chunks_of_replaced_lists_that_are_still_built_count_as_under_way() {
    let mut home = Home::with_leaf();
    let mut building = 0;
    for sequence in 1..=10 {
        let names: Vec<u8> = (0..8).map(|name| sequence as u8 * 10 + name).collect();
        for said in home.root(1, &root(1, sequence, &names)) {
            assert!(said.contains("want"), "{said}");
        }
        for chunk in 0..limits::WANTED_CHUNKS - building {
            building += home.part(1, part(sequence, chunk as u32, true)).len();
        }
        assert_eq!(building, limits::WANTED_CHUNKS, "whatever it announces, no more are built at once");
    }
}

#[test]
fn the_last_place_of_the_reserve_is_given_once() {
    let mut home = Home::new(Settings { max_leaves: 1, ..Settings::default() });
    home.attach(1, 1);
    assert!(home.leaves.has_reserve());
    home.attach(2, 2);
    assert!(home.said().is_empty() && !home.leaves.has_reserve());
    home.attach(4, 3);
    assert_eq!(home.said(), ["close 4 Full"]);
    assert_eq!(home.leaves.len(), 2);
    home.attach(3, 1);
    assert_eq!(home.said(), ["publish", "close 1 Replaced"], "the same leaf again");
}

#[test]
fn a_leaf_that_returns_uploads_nothing_again() {
    let mut home = Home::with_leaf();
    home.upload(1, &root(1, 1, &[7, 8]), 1);
    home.leaves.detach(home.now, 1, &mut home.out);
    assert_eq!(home.said(), ["remove 0 7", "remove 0 8", "publish", "log 100 None"]);
    home.attach(2, 1);
    // One of its chunks is not of the list any more, one is new.
    assert_eq!(home.root(2, &root(1, 2, &[8, 9])), ["rebuild 2 8", &want(2, 2, &[1])]);
    assert!(home.built(2, 8).is_empty());
    assert_eq!(home.part(2, part(2, 1, true)), ["build 2 9 of 1"]);
    assert_eq!(home.built(2, 9), ["insert 0 8", "insert 0 9", "publish", "log 101 Some(2)", &ack(2, 2, 20)]);
}

#[test]
fn a_leaf_that_leaves_while_its_kept_list_is_built_uploads_nothing_again() {
    let mut home = Home::with_leaf();
    home.upload(1, &root(1, 1, &[6, 7, 8]), 1);
    home.leaves.detach(home.now, 1, &mut home.out);
    home.attach(2, 1);
    home.said();
    // Chunk 6 is of the list no more; 7 is ready and 8 still built when it leaves.
    assert_eq!(home.root(2, &root(1, 2, &[8, 7, 9])), ["rebuild 2 7", "rebuild 2 8", &want(2, 2, &[2])]);
    assert!(home.built(2, 7).is_empty());
    home.leaves.detach(home.now, 2, &mut home.out);
    assert_eq!(home.said(), ["publish"]);
    assert!(home.built(2, 8).is_empty(), "too late");
    home.attach(3, 1);
    assert_eq!(home.root(3, &root(1, 3, &[7, 8])), ["rebuild 3 7", "rebuild 3 8"]);
    // Another list before the first is in place: 8 is of it no more.
    assert_eq!(home.root(3, &root(1, 4, &[7])), Vec::<String>::new());
    assert_eq!(home.leaves.get(3).unwrap().returned_files(), 10);
    home.built(3, 8);
    assert_eq!(home.built(3, 7), ["insert 0 7", "publish", "log 102 Some(4)", &ack(3, 4, 10)]);
    // What is in place counts from now on, and once.
    assert!(home.leaves.get(3).unwrap().returned.is_empty());
    home.leaves.detach(home.now, 3, &mut home.out);
    home.attach(4, 1);
    home.said();
    assert_eq!(home.root(4, &root(1, 5, &[7, 8])), ["rebuild 4 7", &want(4, 5, &[1])]);
}

#[test]
fn a_list_that_nobody_comes_back_for_is_forgotten() {
    let mut home = Home::with_leaf();
    home.upload(1, &root(1, 1, &[7]), 1);
    home.leaves.detach(home.now, 1, &mut home.out);
    home.now = home.leaves.next_deadline().unwrap();
    assert_eq!(home.now, Time::ZERO + limits::KEPT_LIST_LIFETIME);
    home.leaves.on_deadline(home.now, &mut home.out);
    assert_eq!(home.leaves.next_deadline(), None);
    home.said();
    home.attach(2, 1);
    assert_eq!(home.root(2, &root(1, 2, &[7])), [want(2, 2, &[0])]);
}

#[test]
fn the_oldest_kept_lists_make_room() {
    let mut home = Home::new(Settings::default());
    let chunks: Vec<_> = (0..1_800_u32)
        .map(|number| {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&number.to_le_bytes());
            ChunkRef { hash, bytes: 100, files: 300 }
        })
        .collect();
    for seed in [1, 2] {
        let session = u64::from(seed);
        home.attach(session, seed);
        let statement = RootStatement {
            root: catalog_root(chunks.iter().map(|chunk| &chunk.hash)),
            files: 540_000,
            sequence: 1,
            lifetime_s: 86_400,
            home: HOME,
        };
        home.upload(session, &CatalogRoot::sign(&identity(seed), &statement, chunks.clone()), 1);
        home.now += std::time::Duration::from_secs(1);
        home.leaves.detach(home.now, session, &mut home.out);
    }
    let mut is_kept = |seed| home.leaves.kept.take(&identity(seed).peer_id()).is_some();
    assert_eq!((is_kept(1), is_kept(2)), (false, true));
}

#[test]
fn what_a_leaf_may_not_send_closes_its_session_and_changes_nothing() {
    let protocol = |why: &'static str| vec![format!("close 1 {:?}", Closing::Protocol(why))];
    let mut home = Home::with_leaf();
    assert_eq!(home.root(1, &root(2, 1, &[7])), protocol("unacceptable catalog"), "signed by another");
    assert_eq!(home.leaves.get(1).unwrap().sequence(), None);

    let mut home = Home::with_leaf();
    assert_eq!(home.root(1, &root(1, 1, &[7, 8, 7])), protocol("unacceptable catalog"), "one chunk twice");

    let mut home = Home::with_leaf();
    home.root(1, &root(1, 1, &[7]));
    assert_eq!(home.part(1, part(1, 1, true)), protocol("a part that was not asked for"));
    home.part(1, part(1, 0, true));
    assert_eq!(home.part(1, part(1, 0, true)), protocol("a part that was not asked for"), "sent twice");

    let mut home = Home::with_leaf();
    home.root(1, &root(1, 1, &[7]));
    for _ in 0..limits::CHUNK_BYTES.div_ceil(limits::BATCH_RAW_BYTES) {
        assert!(home.part(1, part(1, 0, false)).is_empty());
    }
    assert_eq!(home.part(1, part(1, 0, true)), protocol("too many parts"));

    let mut home = Home::with_leaf();
    home.root(1, &root(1, 1, &[7]));
    home.part(1, part(1, 0, true));
    home.leaves.built(home.now, 1, [7; 32], None, &mut home.out);
    assert_eq!(home.said(), protocol("unacceptable chunk"));
}

#[test]
fn what_exceeds_the_files_of_a_leaf_is_left_out() {
    let mut home = Home::new(Settings { max_files_per_leaf: 25, ..Settings::default() });
    home.attach(1, 1);
    assert_eq!(home.root(1, &root(1, 1, &[7, 8, 9])), [want(1, 1, &[0, 1])]);
    home.part(1, part(1, 0, true));
    home.built(1, 7);
    home.part(1, part(1, 1, true));
    assert_eq!(home.built(1, 8).last(), Some(&ack(1, 1, 20)));
}

#[test]
fn a_new_connection_replaces_the_old_one_of_the_same_leaf() {
    let mut home = Home::with_leaf();
    home.upload(1, &root(1, 1, &[7]), 1);
    home.attach(2, 1);
    assert_eq!(home.said(), ["remove 0 7", "publish", "log 100 None", "close 1 Replaced"]);
    assert_eq!(home.leaves.session_of(&identity(1).peer_id()), Some(2));
    assert_eq!(home.handles[&home.leaves.at(0).unwrap().handle], 101, "the place is used again");
    home.leaves.detach(home.now, 1, &mut home.out);
    assert!(home.said().is_empty(), "the end of the old connection means nothing");
    assert_eq!(home.leaves.len(), 1);
}

#[test]
fn a_suspect_that_stays_silent_is_gone_and_one_that_answers_stays() {
    let mut home = Home::with_leaf();
    home.attach(2, 2);
    for session in [1, 2] {
        home.leaves.suspect(home.now, session, &mut home.out);
        home.leaves.suspect(home.now, session, &mut home.out);
    }
    assert_eq!(home.said(), ["1 <- ping", "2 <- ping"], "a suspect is asked once");
    home.leaves.alive(2);
    home.now = home.leaves.next_deadline().unwrap();
    assert_eq!(home.now, Time::ZERO + limits::LEAF_PATIENCE);
    home.leaves.on_deadline(home.now, &mut home.out);
    assert_eq!(home.said(), ["publish", "close 1 Silent"]);
    assert!(home.leaves.get(1).is_none() && home.leaves.get(2).is_some());
    assert_eq!(home.leaves.next_deadline(), None);
}

#[test]
fn a_full_home_takes_only_those_it_has() {
    let mut home = Home::new(Settings { max_leaves: 1, ..Settings::default() });
    assert!(home.leaves.has_room_for(&identity(1).peer_id()));
    home.attach(1, 1);
    assert!(home.leaves.has_room_for(&identity(1).peer_id()));
    assert!(!home.leaves.has_room_for(&identity(2).peer_id()));
}

#[test]
fn queries_are_limited_for_each_leaf_but_not_on_loopback() {
    let mut home = Home::with_leaf();
    let burst = (0..20).filter(|_| home.leaves.may_query(home.now, 1)).count();
    assert_eq!(burst, 11, "one more than is told");
    assert_eq!(home.leaves.allowance(1).map(|told| told.burst), Some(10));
    home.now += std::time::Duration::from_secs(2);
    assert!(home.leaves.may_query(home.now, 1) && !home.leaves.may_query(home.now, 1));
    let address = SocketAddr::from(([127, 0, 0, 1], 7780));
    home.attach_at(2, 2, address);
    assert!((0..20).all(|_| home.leaves.may_query(home.now, 2)));
    home.leaves.reconfigure(home.now, Settings { limit_loopback: true, ..Settings::default() });
    assert_eq!((0..20).filter(|_| home.leaves.may_query(home.now, 2)).count(), 11);
}

#[test]
fn what_a_leaf_signed_proves_that_it_is_here_and_nowhere_else() {
    // This home takes three chunks of ten files, and knows that there is a fourth.
    let mut home = Home::new(Settings { max_files_per_leaf: 30, ..Settings::default() });
    home.attach(1, 1);
    assert!(home.leaves.get(1).unwrap().proof().is_none(), "no list, no proof");
    home.upload(1, &root(1, 5, &[9, 8, 7, 6]), 5);
    let leaf = home.leaves.get(1).unwrap();
    let proof = leaf.proof().unwrap();
    assert_eq!((proof.leaf, proof.salt.handle(&proof.leaf)), (identity(1).peer_id(), leaf.handle));
    let statement = proof.signed.open(&proof.leaf, &HOME).unwrap();
    assert_eq!((statement.sequence, statement.root), (5, catalog_root(proof.chunks.iter())));
    assert_eq!((leaf.chunk_names().len(), proof.chunks.len()), (3, 4));
    assert_eq!(proof.signed.open(&proof.leaf, &PeerId([1; 32])), Err(CatalogError::OtherHome));

    // The next list counts once it is in place.
    home.root(1, &root(1, 6, &[9, 5]));
    assert_eq!(home.leaves.get(1).unwrap().proof(), Some(proof));
    home.part(1, part(6, 1, true));
    home.built(1, 5);
    let proof = home.leaves.get(1).unwrap().proof().unwrap();
    assert_eq!(proof.signed.open(&proof.leaf, &HOME).unwrap().sequence, 6);
}

#[test]
fn a_list_that_was_signed_for_another_home_is_refused() {
    let mut home = Home::with_leaf();
    home.leaves.me = PeerId([1; 32]);
    let refused = format!("close 1 {:?}", Closing::Protocol("unacceptable catalog"));
    assert_eq!(home.root(1, &root(1, 1, &[7])), [refused]);
}
