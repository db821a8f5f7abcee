//! Occupancy for connections that others dialled: so many in all, and so many for each address prefix.
//!
//! A connection that is open and says nothing costs memory for as long as its owner likes. So whoever has one address
//! prefix gets a part of the places, not all. Loopback is exempt from the part, because all its nodes are one
//! operator's. A place is free again when its [`Occupant`] is dropped.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustc_hash::FxHashMap;

use super::admission::Prefix;

/// The places of one node. Clones are the same places.
#[derive(Clone, Debug)]
pub struct Occupancy {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    total: usize,
    of_prefix: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// By prefix; never 0.
    by_prefix: FxHashMap<Prefix, usize>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Occupant {
    inner: Arc<Inner>,
    /// `None` for an address that is exempt.
    prefix: Option<Prefix>,
}

impl Occupancy {
    /// `total` places, of which one address prefix (/24, /48) gets at most `of_prefix`.
    pub fn new(total: usize, of_prefix: usize) -> Self {
        Self { inner: Arc::new(Inner { total, of_prefix, taken: Mutex::default() }) }
    }

    /// Takes a place for a connection from `address`; `None` if none is left for it.
    pub fn take(&self, address: IpAddr) -> Option<Occupant> {
        let prefix = (!address.to_canonical().is_loopback()).then(|| Prefix::of(address));
        let mut taken = self.inner.taken();
        if taken.all >= self.inner.total {
            return None;
        }
        if let Some(prefix) = prefix {
            let of_prefix = taken.by_prefix.entry(prefix).or_default();
            if *of_prefix >= self.inner.of_prefix {
                return None;
            }
            *of_prefix += 1;
        }
        taken.all += 1;
        Some(Occupant { inner: Arc::clone(&self.inner), prefix })
    }

    /// Occupancy that are taken.
    pub fn taken(&self) -> usize {
        self.inner.taken().all
    }
}

impl Inner {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Counting cannot fail half-way.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Occupant {
    fn drop(&mut self) {
        let mut taken = self.inner.taken();
        taken.all -= 1;
        if let Some(prefix) = self.prefix
            && let Some(of_prefix) = taken.by_prefix.get_mut(&prefix)
        {
            *of_prefix -= 1;
            if *of_prefix == 0 {
                taken.by_prefix.remove(&prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_has_its_part_and_all_have_the_rest() {
        let places = Occupancy::new(7, 3);
        let take = |from: &str| places.take(address(from));
        let mut held: Vec<Occupant> =
            ["192.0.2.1", "192.0.2.1", "::ffff:192.0.2.200"].into_iter().filter_map(take).collect();
        assert_eq!(held.len(), 3);
        assert!(take("192.0.2.7").is_none(), "the prefix has its part");
        held.extend(["192.0.3.7", "2001:db8::1", "2001:db8:0:ffff::1"].into_iter().filter_map(take));
        assert_eq!((held.len(), places.taken()), (6, 6));
        held.extend(take("203.0.113.1"));
        assert!(take("198.51.100.1").is_none() && take("127.0.0.1").is_none(), "all are taken");
        held.remove(0);
        assert!(take("192.0.2.9").is_some(), "what is dropped is free again");
        held.clear();
        assert_eq!((places.taken(), places.inner.taken().by_prefix.len()), (0, 0));
    }

    #[test]
    fn loopback_has_no_part() {
        let places = Occupancy::new(100, 3);
        let held: Vec<_> = (0..100).filter_map(|_| places.take(address("::1"))).collect();
        assert_eq!(held.len(), 100);
        assert!(places.take(address("127.0.0.1")).is_none(), "memory is bounded for all");
    }
}
