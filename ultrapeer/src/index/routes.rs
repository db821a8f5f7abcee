//! The routing level: which chunks hold a token, and where in their segments it stands.
//!
//! A token is known here by a 64-bit keyed hash alone: its text stands in the segments that hold it, so
//! nothing must be freed or compacted when a token dies with its last chunk. The key is the node's own
//! secret, so nobody can make two tokens meet; by chance two of ten million do once in 400,000 networks,
//! and then one shows files of the other.
//!
//! Most tokens live in one chunk: that entry is stored in place of a list.

use std::{
    collections::hash_map,
    hash::{DefaultHasher, Hasher},
    slice,
};

use overlay::limits;
use rustc_hash::FxHashMap;

/// Bits of an entry that hold the ordinal: more than a segment's tokens, each of which takes five of
/// [`limits::DIGEST_BYTES`] at least.
const ORDINAL_BITS: u32 = 20;
const _: () = assert!(limits::DIGEST_BYTES / 5 < 1 << ORDINAL_BITS);

/// Where a chunk holds a token: its slot, and the token's ordinal in its segment. Packed in 48 bits, which
/// leaves 28 for the slot: 268 million chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry([u16; 3]);

impl Entry {
    pub(super) const fn new(chunk: u32, ordinal: u32) -> Self {
        let packed = (chunk as u64) << ORDINAL_BITS | ordinal as u64;
        Self([(packed >> 32) as u16, (packed >> 16) as u16, packed as u16])
    }

    const fn packed(self) -> u64 {
        let Self([high, middle, low]) = self;
        (high as u64) << 32 | (middle as u64) << 16 | low as u64
    }

    pub(super) const fn chunk(self) -> u32 {
        (self.packed() >> ORDINAL_BITS) as u32
    }

    pub(super) const fn ordinal(self) -> u32 {
        self.packed() as u32 & ((1 << ORDINAL_BITS) - 1)
    }
}

/// A token, or the stem of prefixes, as the routing level knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(u64);

/// Makes keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    secret: u64,
}

impl Keys {
    pub(super) const fn new(secret: u64) -> Self {
        Self { secret }
    }

    /// The key of a token.
    pub(super) fn token(self, token: &[u8]) -> Key {
        self.key(0, token)
    }

    /// The key of a stem.
    pub(super) fn stem(self, stem: &str) -> Key {
        self.key(1, stem.as_bytes())
    }

    fn key(self, sort: u8, text: &[u8]) -> Key {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.secret);
        hasher.write_u8(sort);
        hasher.write(text);
        Key(hasher.finish())
    }
}

#[derive(Clone, Copy, Debug)]
enum Route {
    One(Entry),
    /// A list of at least two, by its place in `Routes::lists`.
    Many(u32),
}

/// All routes.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    by_key: FxHashMap<Key, Route>,
    /// Entries ascending by chunk; empty if the place is free.
    lists: Vec<Vec<Entry>>,
    free: Vec<u32>,
    /// Bytes that the lists reserve.
    list_bytes: usize,
}

impl Routes {
    /// Where the token is held, ascending by chunk.
    pub(super) fn get(&self, key: Key) -> &[Entry] {
        match self.by_key.get(&key) {
            None => &[],
            Some(Route::One(entry)) => slice::from_ref(entry),
            Some(Route::Many(place)) => &self.lists[*place as usize],
        }
    }

    /// Adds an entry; its chunk must not be in the list yet.
    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        let place = match self.by_key.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Route::One(entry));
                return;
            }
            hash_map::Entry::Occupied(mut occupied) => match *occupied.get() {
                Route::Many(place) => place,
                Route::One(first) => {
                    let place = self.free.pop().unwrap_or(self.lists.len() as u32);
                    if place as usize == self.lists.len() {
                        self.lists.push(Vec::new());
                    }
                    occupied.insert(Route::Many(place));
                    insert_sorted(&mut self.lists[place as usize], first, &mut self.list_bytes);
                    place
                }
            },
        };
        insert_sorted(&mut self.lists[place as usize], entry, &mut self.list_bytes);
    }

    /// Drops the entry of a chunk, if there is one.
    pub(super) fn remove(&mut self, key: Key, chunk: u32) {
        let hash_map::Entry::Occupied(mut occupied) = self.by_key.entry(key) else { return };
        match *occupied.get() {
            Route::One(entry) if entry.chunk() == chunk => {
                occupied.remove();
            }
            Route::One(_) => {}
            Route::Many(place) => {
                let list = &mut self.lists[place as usize];
                remove_sorted(list, chunk, &mut self.list_bytes);
                if let [last] = list[..] {
                    occupied.insert(Route::One(last));
                    self.list_bytes -= reserved(list);
                    *list = Vec::new();
                    self.free.push(place);
                }
            }
        }
    }

    /// Distinct tokens and stems.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        // The table has a power of two of buckets, of which 7 in 8 may be used, and a control byte for each.
        let buckets = (self.by_key.capacity() * 8 / 7).next_power_of_two();
        let places = self.lists.capacity() * size_of::<Vec<Entry>>() + self.free.capacity() * size_of::<u32>();
        buckets * (size_of::<(Key, Route)>() + 1) + places + self.list_bytes
    }
}

fn insert_sorted(list: &mut Vec<Entry>, entry: Entry, bytes: &mut usize) {
    if list.len() == list.capacity() {
        // An eighth of slack instead of the usual double: lists are most of what a copy of the routes takes.
        *bytes -= reserved(list);
        list.reserve_exact((list.len() / 8).max(2));
        *bytes += reserved(list);
    }
    let at = list.partition_point(|other| other.chunk() < entry.chunk());
    list.insert(at, entry);
}

fn remove_sorted(list: &mut Vec<Entry>, chunk: u32, bytes: &mut usize) {
    if let Ok(at) = list.binary_search_by_key(&chunk, |entry| entry.chunk()) {
        list.remove(at);
    }
    if list.len() * 2 < list.capacity() {
        *bytes -= reserved(list);
        list.shrink_to(list.len() + list.len() / 8);
        *bytes += reserved(list);
    }
}

/// Bytes that a list takes beside its place.
fn reserved(list: &Vec<Entry>) -> usize {
    list.capacity() * size_of::<Entry>()
}
