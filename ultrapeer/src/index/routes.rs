//! The routing level: which chunks hold a token, and where in their segments it stands.
//!
//! A token is known here by a 64-bit keyed hash alone: its text stands in the segments that hold it, so
//! nothing must be freed or compacted when a token dies with its last chunk. The key is the node's own
//! secret, so nobody can make two tokens meet; by chance two of ten million do once in 400,000 networks,
//! and then one shows files of the other.
//!
//! Most tokens live in one chunk: that entry is stored in place.

use std::{
    collections::hash_map,
    hash::{DefaultHasher, Hasher},
    slice,
};

use rustc_hash::FxHashMap;

/// Where a chunk holds a token: its slot, and the token's ordinal in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) chunk: u32,
    pub(super) ordinal: u32,
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

#[derive(Clone, Debug)]
enum Route {
    One(Entry),
    /// At least two, ascending by chunk.
    #[expect(clippy::box_collection, reason = "keeps the common case, one entry, at 16 bytes")]
    Many(Box<Vec<Entry>>),
}

/// All routes.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    by_key: FxHashMap<Key, Route>,
    /// Bytes of all lists.
    list_bytes: usize,
}

impl Routes {
    /// Where the token is held, ascending by chunk.
    pub(super) fn get(&self, key: Key) -> &[Entry] {
        match self.by_key.get(&key) {
            None => &[],
            Some(Route::One(entry)) => slice::from_ref(entry),
            Some(Route::Many(list)) => list,
        }
    }

    /// Adds an entry; its chunk must not be in the list yet.
    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        match self.by_key.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Route::One(entry));
            }
            hash_map::Entry::Occupied(mut occupied) => match occupied.get_mut() {
                Route::One(first) => {
                    let mut list = Vec::with_capacity(2);
                    list.extend([*first, entry]);
                    list.sort_unstable();
                    self.list_bytes += list_bytes(&list);
                    occupied.insert(Route::Many(Box::new(list)));
                }
                Route::Many(list) => {
                    self.list_bytes -= list_bytes(list);
                    let at = list.partition_point(|other| other.chunk < entry.chunk);
                    list.insert(at, entry);
                    self.list_bytes += list_bytes(list);
                }
            },
        }
    }

    /// Drops the entry of a chunk, if there is one.
    pub(super) fn remove(&mut self, key: Key, chunk: u32) {
        let hash_map::Entry::Occupied(mut occupied) = self.by_key.entry(key) else { return };
        match occupied.get_mut() {
            Route::One(entry) if entry.chunk == chunk => {
                occupied.remove();
            }
            Route::One(_) => {}
            Route::Many(list) => {
                self.list_bytes -= list_bytes(list);
                if let Ok(at) = list.binary_search_by_key(&chunk, |entry| entry.chunk) {
                    list.remove(at);
                }
                if let [last] = list[..] {
                    *occupied.get_mut() = Route::One(last);
                } else {
                    if list.len() * 4 < list.capacity() {
                        list.shrink_to(list.len() * 2);
                    }
                    self.list_bytes += list_bytes(list);
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
        buckets * (size_of::<(Key, Route)>() + 1) + self.list_bytes
    }
}

/// Bytes of a list that is not in place.
fn list_bytes(list: &Vec<Entry>) -> usize {
    size_of::<Vec<Entry>>() + list.capacity() * size_of::<Entry>()
}
