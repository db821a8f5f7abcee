//! Core: the leaves attached to this ultrapeer, and their lists.
//!
//! What it decides: which chunks of a list are still needed, who may upload now, when a list replaces the
//! one before it, and when a leaf is gone.
//!
//! ```text
//! CatalogRoot ─> chunks that are here already stay; the rest is wanted, a few at a time
//! CatalogPart ─> parts of a chunk are gathered; the whole chunk is built off the hot path
//! Built       ─> when no chunk is missing: new chunks in, old chunks out, publish, acknowledge
//! ```
//!
//! Invariants:
//! - what is searchable of a leaf is always one whole list that it signed, never a mixture;
//! - at most [`limits::UPLOADS`] leaves upload at a time, each with [`limits::WANTED_CHUNKS`] chunks under
//!   way, so memory for uploads is bounded whatever leaves send;
//! - what a leaf signed of that list is kept, so that this home can prove to others that it has it;
//! - a leaf has one session: a new connection under its key replaces the old one at once;
//! - nobody keeps others from uploading: a chunk that was asked for comes within [`limits::UPLOAD_PATIENCE`], or
//!   the session ends; and who has uploaded for [`limits::UPLOAD_TURN`] lets those that wait go first.

mod kept;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use overlay::{
    credit::TokenBucket,
    id::{HandleSalt, PeerId},
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::{Blob, List},
        leaf::{
            Allowance, CatalogAck, CatalogPart, CatalogRoot, CatalogWant, ChunkRef, LeafMessage, LeafState, Ping,
            SignedRoot, catalog_root,
        },
        mesh::{ChunkName, ListProof},
    },
};

use rustc_hash::FxHashMap;

use self::kept::{Chunks, KeptLists};
pub use self::settings::Settings;

/// A connection of a leaf, numbered by the driver. Never reused.
pub type Session = u64;

/// A leaf's place in the index. Reused after the leaf left.
pub type Slot = u32;

/// The built form of a chunk.
pub trait Built {
    /// What of it is kept while the index has it, and afterwards: enough to build it again. Cheap to clone.
    type Kept: Clone;

    /// That part.
    fn kept(&self) -> Self::Kept;
}

/// What must be done. `S` is the built form of a chunk.
#[derive(Debug)]
pub enum Output<S: Built> {
    /// Send a message on the control stream.
    Send(Session, LeafMessage),
    /// Close the connection.
    Close(Session, Closing),
    /// Decode and build a chunk, then call [`Leaves::built`].
    Build {
        /// Whose it is.
        session: Session,
        /// What it must turn out to be.
        chunk: ChunkRef,
        /// Its compressed parts.
        parts: Vec<Blob<{ limits::BATCH_BYTES }>>,
    },
    /// Build a chunk of a list that was kept, then call [`Leaves::built`].
    Rebuild {
        /// Whose it is.
        session: Session,
        /// Its name.
        hash: [u8; 32],
        /// What was kept of it.
        kept: S::Kept,
    },
    /// Put a chunk into the index; it becomes searchable with the next `Publish`.
    Insert(Slot, [u8; 32], Arc<S>),
    /// Take a chunk out of the index.
    Remove(Slot, [u8; 32]),
    /// Make all changes so far visible to searches at once.
    Publish,
    /// The leaf's list is searchable (`Some`: its sequence), or not any more.
    Logged(u64, Option<u64>),
    /// The leaf is not attached any more.
    Left(PeerId),
}

/// Why a leaf's connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// It broke the protocol.
    Protocol(&'static str),
    /// It announced lists more often than anybody changes one.
    TooManyLists,
    /// It opened a newer connection.
    Replaced,
    /// It does not answer.
    Silent,
    /// It does not send what it announced.
    Stalled,
    /// There is no room for it any more.
    Full,
    /// It lists what it does not have.
    Untrue,
}

/// The attached leaves. See the module text.
#[derive(Debug)]
pub struct Leaves<S: Built> {
    me: PeerId,
    settings: Settings,
    /// Boxed, because the map keeps its nodes half empty.
    sessions: BTreeMap<Session, Box<Leaf<S>>>,
    by_peer: BTreeMap<PeerId, Session>,
    by_handle: FxHashMap<u64, Session>,
    by_slot: Vec<Option<Session>>,
    free_slots: Vec<Slot>,
    /// Who uploads, and until when it may while others wait.
    uploading: BTreeMap<Session, Time>,
    waiting: VecDeque<Session>,
    kept: KeptLists<S::Kept>,
    suspects: BTreeMap<Session, Time>,
}

/// One attached leaf.
#[derive(Debug)]
pub struct Leaf<S: Built> {
    /// Its key.
    pub peer: PeerId,
    /// Its handle, known to ultrapeers only.
    pub handle: u64,
    /// What its handle is made of.
    salt: HandleSalt,
    /// Where its packets come from.
    pub address: SocketAddr,
    /// Its place in the index.
    pub slot: Slot,
    /// How busy it is.
    pub state: LeafState,
    /// When it attached.
    pub since: Time,
    /// Files of it that are searchable.
    pub files: u64,
    /// Chunks that are in the index.
    chunks: Chunks<S::Kept>,
    sequence: Option<u64>,
    /// What it signed of its list that is searchable: proves to others that it is here.
    given: Option<Box<Given>>,
    upload: Option<Upload<S>>,
    /// Chunks of `upload` that were kept from its last session, until the list is in place.
    returned: Chunks<S::Kept>,
    /// Chunks that are being built now, of whichever list.
    building: BTreeSet<[u8; 32]>,
    queries: TokenBucket,
    lists: TokenBucket,
    members: TokenBucket,
    sketches: TokenBucket,
    introductions: TokenBucket,
}

/// What a leaf signed of a list, for this home. With the salt some 220 bytes for each leaf.
#[derive(Debug)]
struct Given {
    signed: SignedRoot,
    /// Hashes of chunks beyond what this home takes of one leaf.
    beyond: Box<[[u8; 32]]>,
}

/// A list that is not whole yet.
#[derive(Debug)]
struct Upload<S> {
    sequence: u64,
    given: Box<Given>,
    chunks: Vec<ChunkRef>,
    /// Chunks that are built and not in the index.
    ready: BTreeMap<[u8; 32], Arc<S>>,
    missing: VecDeque<u32>,
    under_way: BTreeMap<u32, Vec<Blob<{ limits::BATCH_BYTES }>>>,
    /// When the next of the chunks under way must be whole.
    due: Time,
}

impl<S: Built> Leaves<S> {
    /// No leaf yet, at the home with that key.
    pub fn new(me: PeerId, settings: Settings) -> Self {
        Self {
            me,
            settings,
            sessions: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            by_handle: FxHashMap::default(),
            by_slot: Vec::new(),
            free_slots: Vec::new(),
            uploading: BTreeMap::new(),
            waiting: VecDeque::new(),
            kept: KeptLists::new(),
            suspects: BTreeMap::new(),
        }
    }

    /// Attached leaves.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True if no leaf is attached.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// True if one more leaf fits; a leaf that is here already always does.
    pub fn has_room_for(&self, peer: &PeerId) -> bool {
        self.by_peer.contains_key(peer) || self.sessions.len() < self.settings.max_leaves as usize
    }

    /// True if one more leaf fits, that has no home at all, until another has left in its place.
    pub fn has_reserve(&self) -> bool {
        let most = self.settings.max_leaves as usize;
        self.sessions.len() < most + most / limits::RESERVE_SHARE + 1
    }

    /// True if that leaf is here, or was and its list is kept.
    pub fn knows(&self, peer: &PeerId) -> bool {
        self.by_peer.contains_key(peer) || self.kept.has(peer)
    }

    /// The bytes that index and digests may take.
    pub fn memory(&self) -> u64 {
        self.settings.memory
    }

    /// The most leaves that fit.
    pub fn capacity(&self) -> u32 {
        self.settings.max_leaves
    }

    /// The leaf of a session.
    pub fn get(&self, session: Session) -> Option<&Leaf<S>> {
        self.sessions.get(&session).map(Box::as_ref)
    }

    /// The session of a leaf.
    pub fn session_of(&self, peer: &PeerId) -> Option<Session> {
        self.by_peer.get(peer).copied()
    }

    /// The leaf with that handle.
    pub fn with_handle(&self, handle: u64) -> Option<&Leaf<S>> {
        self.by_handle.get(&handle).and_then(|session| self.get(*session))
    }

    /// The leaf at a place of the index.
    pub fn at(&self, slot: Slot) -> Option<&Leaf<S>> {
        self.by_slot.get(slot as usize).copied().flatten().and_then(|session| self.get(session))
    }

    /// All leaves, by session.
    pub fn iter(&self) -> impl Iterator<Item = (Session, &Leaf<S>)> {
        self.sessions.iter().map(|(session, leaf)| (*session, leaf.as_ref()))
    }

    /// Replaces what an operator may set. Leaves that are here stay.
    pub fn reconfigure(&mut self, now: Time, settings: Settings) {
        self.settings = settings;
        for leaf in self.sessions.values_mut() {
            leaf.queries = settings.queries(now);
        }
    }

    /// A leaf was welcomed. Beyond the reserve it is turned away.
    pub fn attach(
        &mut self,
        now: Time,
        session: Session,
        peer: PeerId,
        salt: HandleSalt,
        address: SocketAddr,
        out: &mut Outbox<Output<S>>,
    ) {
        let handle = salt.handle(&peer);
        if !self.has_room_for(&peer) && !self.has_reserve() {
            return out.push(Output::Close(session, Closing::Full));
        }
        if let Some(old) = self.by_peer.get(&peer).copied() {
            self.detach(now, old, out);
            out.push(Output::Close(old, Closing::Replaced));
        }
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.by_slot.push(None);
            (self.by_slot.len() - 1) as Slot
        });
        self.by_slot[slot as usize] = Some(session);
        self.by_peer.insert(peer, session);
        self.by_handle.insert(handle, session);
        let leaf = Leaf {
            peer,
            handle,
            salt,
            address,
            slot,
            state: LeafState::default(),
            since: now,
            files: 0,
            chunks: Chunks::default(),
            sequence: None,
            given: None,
            upload: None,
            returned: Chunks::default(),
            building: BTreeSet::new(),
            queries: self.settings.queries(now),
            lists: TokenBucket::new(now, limits::LIST_RATE, limits::LIST_BURST),
            members: TokenBucket::new(now, limits::MEMBERS_ASK_RATE, limits::MEMBERS_ASK_BURST),
            sketches: TokenBucket::new(now, limits::SKETCH_RATE, limits::SKETCH_BURST),
            introductions: TokenBucket::new(now, limits::INTRODUCE_RATE, limits::INTRODUCE_BURST),
        };
        self.sessions.insert(session, Box::new(leaf));
    }

    /// The leaf's connection is gone, or it said good-bye. Its list is kept for when it returns, and not
    /// searchable; of one that is not in place, what was kept before. Does nothing for a session that is gone already.
    pub fn detach(&mut self, now: Time, session: Session, out: &mut Outbox<Output<S>>) {
        let Some(leaf) = self.sessions.remove(&session) else { return };
        self.suspects.remove(&session);
        if self.by_peer.get(&leaf.peer) == Some(&session) {
            self.by_peer.remove(&leaf.peer);
            out.push(Output::Left(leaf.peer));
        }
        if self.by_handle.get(&leaf.handle) == Some(&session) {
            self.by_handle.remove(&leaf.handle);
        }
        self.by_slot[leaf.slot as usize] = None;
        self.free_slots.push(leaf.slot);
        for (hash, _) in &leaf.chunks {
            out.push(Output::Remove(leaf.slot, *hash));
        }
        out.push(Output::Publish);
        if leaf.sequence.is_some() {
            out.push(Output::Logged(leaf.handle, None));
            self.kept.put(now, leaf.peer, leaf.chunks, leaf.files);
        } else if !leaf.returned.is_empty() {
            let files = leaf.returned_files();
            self.kept.put(now, leaf.peer, leaf.returned, files);
        }
        self.end_upload(now, session, out);
    }

    /// The leaf is sent away: nothing of its list is kept for when it returns.
    pub fn expel(&mut self, now: Time, session: Session, why: Closing, out: &mut Outbox<Output<S>>) {
        let Some(peer) = self.get(session).map(|leaf| leaf.peer) else { return };
        self.detach(now, session, out);
        self.kept.take(&peer);
        out.push(Output::Close(session, why));
    }

    /// How busy a leaf is.
    pub fn state(&mut self, session: Session, state: LeafState) {
        if let Some(leaf) = self.sessions.get_mut(&session) {
            leaf.state = state;
        }
    }

    /// True if the leaf may search now; spends its credit.
    pub fn may_query(&mut self, now: Time, session: Session) -> bool {
        let limit_loopback = self.settings.limit_loopback;
        self.sessions
            .get_mut(&session)
            .is_some_and(|leaf| (is_loopback(leaf.address.ip()) && !limit_loopback) || leaf.queries.take(now))
    }

    /// True if the leaf may ask for members now; spends its credit.
    pub fn may_ask_members(&mut self, now: Time, session: Session) -> bool {
        self.sessions.get_mut(&session).is_some_and(|leaf| leaf.members.take(now))
    }

    /// True if the leaf may have the sketch of a view now; spends its credit.
    pub fn may_take_sketch(&mut self, now: Time, session: Session) -> bool {
        self.sessions.get_mut(&session).is_some_and(|leaf| leaf.sketches.take(now))
    }

    /// True if the leaf may ask to be introduced now; spends its credit.
    pub fn may_introduce(&mut self, now: Time, session: Session) -> bool {
        self.sessions
            .get_mut(&session)
            .is_some_and(|leaf| is_loopback(leaf.address.ip()) || leaf.introductions.take(now))
    }

    /// How often a leaf may search here.
    pub fn allowance(&self, session: Session) -> Option<Allowance> {
        let leaf = self.sessions.get(&session)?;
        if is_loopback(leaf.address.ip()) && !self.settings.limit_loopback {
            return Some(Allowance { interval_us: 0, burst: 0 });
        }
        let interval_us = (1e6 / self.settings.query_rate).clamp(1.0, u64::MAX as f64) as u64;
        Some(Allowance { interval_us, burst: self.settings.query_burst.max(1.0) as u32 })
    }

    /// A leaf announces its list.
    pub fn root(&mut self, now: Time, session: Session, root: &CatalogRoot, out: &mut Outbox<Output<S>>) {
        let limit_loopback = self.settings.limit_loopback;
        let Some(leaf) = self.sessions.get_mut(&session) else { return };
        if (limit_loopback || !is_loopback(leaf.address.ip())) && !leaf.lists.take(now) {
            return out.push(Output::Close(session, Closing::TooManyLists));
        }
        let Ok(statement) = root.open(&leaf.peer, &self.me) else {
            return out.push(Output::Close(session, Closing::Protocol("unacceptable catalog")));
        };
        let newest = leaf.upload.as_ref().map(|upload| upload.sequence).max(leaf.sequence);
        if newest.is_some_and(|newest| statement.sequence <= newest) {
            // A replay, or the answer crossed with ours: what is searchable says more than a refusal.
            if let Some(sequence) = leaf.sequence {
                let ack = CatalogAck { sequence, files: leaf.files };
                out.push(Output::Send(session, ack.into()));
            }
            return;
        }
        let mut files = 0;
        let chunks: Vec<_> = root
            .chunks
            .iter()
            .copied()
            .take_while(|chunk| {
                files += u64::from(chunk.files);
                files <= self.settings.max_files_per_leaf
            })
            .collect();
        let beyond = root.chunks.iter().skip(chunks.len()).map(|chunk| chunk.hash).collect();
        let given = Box::new(Given { signed: root.signed.clone(), beyond });
        let mut ready = leaf.upload.take().map(|upload| upload.ready).unwrap_or_default();
        let wanted: BTreeSet<_> = chunks.iter().map(|chunk| chunk.hash).collect();
        ready.retain(|hash, _| wanted.contains(hash));
        let mut returned = std::mem::take(&mut leaf.returned).into_vec();
        for (hash, kept) in self.kept.take(&leaf.peer).into_iter().flatten() {
            let needed = wanted.contains(&hash) && !ready.contains_key(&hash) && !leaf.has_in_place(&hash);
            if needed && leaf.building.insert(hash) {
                returned.push((hash, kept.clone()));
                out.push(Output::Rebuild { session, hash, kept });
            }
        }
        returned.retain(|(hash, _)| wanted.contains(hash));
        leaf.returned = returned.into();
        let is_missing = |chunk: &ChunkRef| {
            let hash = &chunk.hash;
            !ready.contains_key(hash) && !leaf.building.contains(hash) && !leaf.has_in_place(hash)
        };
        let missing = (0..).zip(&chunks).filter(|(_, chunk)| is_missing(chunk)).map(|(index, _)| index).collect();
        leaf.upload = Some(Upload {
            sequence: statement.sequence,
            given,
            chunks,
            ready,
            missing,
            under_way: BTreeMap::new(),
            due: now,
        });
        self.go_on(now, session, out);
    }

    /// A part of a chunk arrived.
    pub fn part(&mut self, now: Time, session: Session, part: CatalogPart, out: &mut Outbox<Output<S>>) {
        let Some(leaf) = self.sessions.get_mut(&session) else { return };
        let Some(upload) = leaf.upload.as_mut().filter(|upload| upload.sequence == part.sequence) else {
            return; // of a list that was replaced meanwhile
        };
        let Some(parts) = upload.under_way.get_mut(&part.chunk) else {
            return out.push(Output::Close(session, Closing::Protocol("a part that was not asked for")));
        };
        if parts.len() == limits::CHUNK_BYTES.div_ceil(limits::BATCH_RAW_BYTES) {
            return out.push(Output::Close(session, Closing::Protocol("too many parts")));
        }
        parts.push(part.data);
        if part.last {
            let parts = upload.under_way.remove(&part.chunk).unwrap_or_default();
            let chunk = upload.chunks[part.chunk as usize];
            upload.due = now + limits::UPLOAD_PATIENCE;
            leaf.building.insert(chunk.hash);
            out.push(Output::Build { session, chunk, parts });
        }
    }

    /// A chunk was built; `None` if its parts were not what they had to be.
    pub fn built(
        &mut self,
        now: Time,
        session: Session,
        hash: [u8; 32],
        segment: Option<Arc<S>>,
        out: &mut Outbox<Output<S>>,
    ) {
        let Some(leaf) = self.sessions.get_mut(&session) else { return };
        leaf.building.remove(&hash);
        if leaf.building.is_empty() {
            leaf.building = BTreeSet::new(); // an emptied one keeps a node
        }
        let Some(segment) = segment else {
            return out.push(Output::Close(session, Closing::Protocol("unacceptable chunk")));
        };
        let Some(upload) = leaf.upload.as_mut() else { return };
        let in_place = leaf.chunks.binary_search_by_key(&hash, |(own, _)| *own).is_ok();
        if !in_place && upload.chunks.iter().any(|chunk| chunk.hash == hash) {
            upload.ready.insert(hash, segment);
        }
        self.go_on(now, session, out);
    }

    /// Someone failed to reach this leaf: it must show that it lives.
    pub fn suspect(&mut self, now: Time, session: Session, out: &mut Outbox<Output<S>>) {
        if self.sessions.contains_key(&session) && !self.suspects.contains_key(&session) {
            self.suspects.insert(session, now + limits::LEAF_PATIENCE);
            out.push(Output::Send(session, Ping { token: session }.into()));
        }
    }

    /// The leaf sent something: it lives.
    pub fn alive(&mut self, session: Session) {
        self.suspects.remove(&session);
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let uploads = self.uploading.keys().filter_map(|session| self.sessions.get(session)?.upload_due());
        self.suspects.values().copied().chain(self.kept.next_deadline()).chain(uploads).min()
    }

    /// Gives up on leaves that stayed silent or do not upload what they announced, and forgets lists that
    /// nobody came back for.
    pub fn on_deadline(&mut self, now: Time, out: &mut Outbox<Output<S>>) {
        let is_stalled = |session: &Session| {
            let due = self.get(*session).and_then(Leaf::upload_due);
            due.is_some_and(|due| due <= now)
        };
        let stalled = self.uploading.keys().copied().filter(is_stalled).map(|session| (session, Closing::Stalled));
        let silent = self.suspects.iter().filter(|(_, until)| **until <= now);
        let silent = silent.map(|(session, _)| (*session, Closing::Silent));
        for (session, why) in stalled.chain(silent).collect::<Vec<_>>() {
            self.detach(now, session, out);
            out.push(Output::Close(session, why));
        }
        self.kept.on_deadline(now);
    }

    /// Asks for more of a list, or puts it in place when it is whole.
    fn go_on(&mut self, now: Time, session: Session, out: &mut Outbox<Output<S>>) {
        let others_wait = self.waiting.iter().any(|waiting| *waiting != session);
        let Some(leaf) = self.sessions.get_mut(&session) else { return };
        let pending = leaf.pending();
        let Some(upload) = leaf.upload.as_mut() else { return };
        if upload.missing.is_empty() && pending == 0 {
            leaf.put_in_place(session, out);
            self.end_upload(now, session, out);
            return;
        }
        match self.uploading.get(&session) {
            // Its turn is over: what it was asked for still counts, then it waits again.
            Some(turn) if others_wait && *turn <= now => {
                if pending == 0 {
                    self.end_upload(now, session, out);
                    self.waiting.push_back(session);
                }
                return;
            }
            Some(_) => {}
            None if self.uploading.len() >= limits::UPLOADS => {
                if !self.waiting.contains(&session) {
                    self.waiting.push_back(session);
                }
                return;
            }
            None => {
                self.uploading.insert(session, now + limits::UPLOAD_TURN);
            }
        }
        let room = limits::WANTED_CHUNKS.saturating_sub(pending).min(upload.missing.len());
        let chunks: Vec<_> = upload.missing.drain(..room).collect();
        if !chunks.is_empty() {
            if upload.under_way.is_empty() {
                upload.due = now + limits::UPLOAD_PATIENCE;
            }
            upload.under_way.extend(chunks.iter().map(|chunk| (*chunk, Vec::new())));
            let want = CatalogWant { sequence: upload.sequence, chunks: List::new(chunks) };
            out.push(Output::Send(session, want.into()));
        }
    }

    /// Gives the session's place among the uploaders to the next that waits.
    fn end_upload(&mut self, now: Time, session: Session, out: &mut Outbox<Output<S>>) {
        self.waiting.retain(|waiting| *waiting != session);
        if self.uploading.remove(&session).is_none() {
            return;
        }
        if let Some(next) = self.waiting.pop_front() {
            self.go_on(now, next, out);
        }
    }
}

impl<S: Built> Leaf<S> {
    /// Chunks that it was asked for and that are not built yet.
    fn pending(&self) -> usize {
        self.upload.as_ref().map_or(0, |upload| upload.under_way.len()) + self.building.len()
    }

    /// True if a chunk of that name is in the index.
    fn has_in_place(&self, hash: &[u8; 32]) -> bool {
        self.chunks.binary_search_by_key(&hash, |(own, _)| own).is_ok()
    }

    /// Files of what was kept from its last session.
    fn returned_files(&self) -> u64 {
        let is_returned = |chunk: &&ChunkRef| self.returned.binary_search_by_key(&&chunk.hash, |(own, _)| own).is_ok();
        let chunks = self.upload.iter().flat_map(|upload| &upload.chunks);
        chunks.filter(is_returned).map(|chunk| u64::from(chunk.files)).sum()
    }

    /// When it must have sent the next chunk that it was asked for.
    fn upload_due(&self) -> Option<Time> {
        self.upload.as_ref().filter(|upload| !upload.under_way.is_empty()).map(|upload| upload.due)
    }

    /// The chunks of its list that are searchable, by name.
    pub fn chunk_names(&self) -> Box<[ChunkName]> {
        self.chunks.iter().map(|(hash, _)| ChunkName::of(hash)).collect()
    }

    /// The root of its list that is searchable.
    pub fn root(&self) -> [u8; 32] {
        catalog_root(self.chunks.iter().map(|(hash, _)| hash))
    }

    /// What is kept of the chunks of its list that are searchable.
    pub fn kept(&self) -> impl Iterator<Item = &S::Kept> {
        self.chunks.iter().map(|(_, kept)| kept)
    }

    /// The chunks of its list that are searchable, by name, with what is kept of them.
    pub fn kept_chunks(&self) -> impl Iterator<Item = (ChunkName, &S::Kept)> {
        self.chunks.iter().map(|(hash, kept)| (ChunkName::of(hash), kept))
    }

    /// What is kept of one of its chunks that are searchable.
    pub fn kept_chunk(&self, name: ChunkName) -> Option<&S::Kept> {
        self.chunk(name).map(|(_, kept)| kept)
    }

    /// The hash of one of its chunks that are searchable.
    pub fn chunk_hash(&self, name: ChunkName) -> Option<&[u8; 32]> {
        self.chunk(name).map(|(hash, _)| hash)
    }

    fn chunk(&self, name: ChunkName) -> Option<&([u8; 32], S::Kept)> {
        let at = self.chunks.partition_point(|(hash, _)| ChunkName::of(hash) < name);
        self.chunks.get(at).filter(|(hash, _)| ChunkName::of(hash) == name)
    }

    /// Proves to others that it gave this home its list that is searchable.
    pub fn proof(&self) -> Option<ListProof> {
        let given = self.given.as_ref()?;
        let hashes = self.chunks.iter().map(|(hash, _)| *hash).chain(given.beyond.iter().copied());
        let (leaf, salt) = (self.peer, self.salt);
        Some(ListProof { leaf, salt, signed: given.signed.clone(), chunks: List::new(hashes) })
    }

    /// The sequence of its list that is searchable.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// The whole list is here: new chunks in, old chunks out, in one step that searches see at once.
    fn put_in_place(&mut self, session: Session, out: &mut Outbox<Output<S>>) {
        let Some(upload) = self.upload.take() else { return };
        let wanted: BTreeSet<_> = upload.chunks.iter().map(|chunk| chunk.hash).collect();
        let mut chunks = Vec::with_capacity(wanted.len());
        for (hash, segment) in upload.ready {
            chunks.push((hash, segment.kept()));
            out.push(Output::Insert(self.slot, hash, segment));
        }
        for (hash, kept) in std::mem::take(&mut self.chunks) {
            if wanted.contains(&hash) {
                chunks.push((hash, kept));
            } else {
                out.push(Output::Remove(self.slot, hash));
            }
        }
        out.push(Output::Publish);
        chunks.sort_unstable_by_key(|(hash, _)| *hash);
        self.chunks = chunks.into();
        self.returned = Chunks::default();
        self.files = upload.chunks.iter().map(|chunk| u64::from(chunk.files)).sum();
        self.sequence = Some(upload.sequence);
        self.given = Some(upload.given);
        out.push(Output::Logged(self.handle, Some(upload.sequence)));
        out.push(Output::Send(session, CatalogAck { sequence: upload.sequence, files: self.files }.into()));
    }
}

/// True for loopback addresses, also when they are written as IPv6.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests;
