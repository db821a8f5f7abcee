//! Lists of file positions inside one segment: coded as runs, worked on as bit sets.
//!
//! Files of a segment are sorted by path, so the files that share a token mostly stand side by side and a
//! folder's name becomes one run. A run is its gap from the end of the previous one and its length, as
//! variable-length integers; the gap's lowest bit says whether a length follows (it is 1 otherwise).
//!
//! A segment holds at most [`limits::CHUNK_FILES`] files, so a set of positions is 64 words on the stack,
//! and intersection, union and difference are loops that the compiler vectorises.

use overlay::limits;

const WORDS: usize = limits::CHUNK_FILES.div_ceil(64);

/// A set of file positions of one segment.
#[derive(Clone, Debug)]
pub(super) struct Positions {
    words: [u64; WORDS],
    /// Words that the segment needs; the rest stays zero.
    used: usize,
}

impl Positions {
    /// No position of a segment with `files` files (at most [`limits::CHUNK_FILES`]).
    pub(super) fn none(files: usize) -> Self {
        Self { words: [0; WORDS], used: files.div_ceil(64).min(WORDS) }
    }

    /// Empties the set for a segment with `files` files.
    pub(super) fn reset(&mut self, files: usize) {
        self.words[..self.used].fill(0);
        self.used = files.div_ceil(64).min(WORDS);
    }

    /// Adds the positions from `start` on, up to and without `end`.
    fn insert(&mut self, start: usize, end: usize) {
        let end = end.min(self.used * 64);
        if start >= end {
            return;
        }
        let (first, last) = (start / 64, (end - 1) / 64);
        let head = u64::MAX << (start % 64);
        let tail = u64::MAX >> (63 - (end - 1) % 64);
        if first == last {
            self.words[first] |= head & tail;
        } else {
            self.words[first] |= head;
            self.words[first + 1..last].fill(u64::MAX);
            self.words[last] |= tail;
        }
    }

    /// Adds a coded list.
    pub(super) fn insert_coded(&mut self, coded: &[u8]) {
        let mut runs = Runs::new(coded);
        loop {
            while let Some(single) = runs.next_single() {
                if let Some(word) = self.words[..self.used].get_mut(single / 64) {
                    *word |= 1 << (single % 64);
                }
            }
            let Some((start, end)) = runs.next() else { return };
            self.insert(start, end);
        }
    }

    /// Keeps what is in both.
    pub(super) fn intersect(&mut self, other: &Self) {
        for (word, other) in self.words[..self.used].iter_mut().zip(&other.words[..self.used]) {
            *word &= other;
        }
    }

    /// Drops what is in the other.
    pub(super) fn subtract(&mut self, other: &Self) {
        for (word, other) in self.words[..self.used].iter_mut().zip(&other.words[..self.used]) {
            *word &= !other;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words[..self.used].iter().all(|word| *word == 0)
    }

    /// Its members, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.words[..self.used].iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                (bit < 64).then(|| (index * 64) as u16 + bit as u16)
            })
        })
    }
}

/// Reads a coded list as half-open ranges. Ends at the first byte that cannot be meant.
#[derive(Debug)]
pub(super) struct Runs<'a> {
    rest: &'a [u8],
    end: usize,
}

impl<'a> Runs<'a> {
    pub(super) const fn new(coded: &'a [u8]) -> Self {
        Self { rest: coded, end: 0 }
    }

    /// The next run if it is a single position not far from the last one: the most frequent sort.
    #[inline]
    fn next_single(&mut self) -> Option<usize> {
        let (&head, rest) = self.rest.split_first()?;
        if head & 0x81 != 0 {
            return None;
        }
        let start = self.end.checked_add(usize::from(head >> 1))?;
        self.end = start.checked_add(1)?;
        self.rest = rest;
        Some(start)
    }

    /// True if the whole list was read.
    pub(super) const fn at_end(&self) -> bool {
        self.rest.is_empty()
    }
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let head = read_varint(&mut self.rest)?;
        let extra = if head & 1 == 1 { read_varint(&mut self.rest)?.checked_add(1)? } else { 0 };
        let start = self.end.checked_add(usize::try_from(head >> 1).ok()?)?;
        self.end = start.checked_add(1)?.checked_add(usize::try_from(extra).ok()?)?;
        Some((start, self.end))
    }
}

/// Appends ascending, disjoint, half-open ranges in coded form.
pub(super) fn write_runs(out: &mut Vec<u8>, runs: impl IntoIterator<Item = (usize, usize)>) {
    let mut previous = 0;
    for (start, end) in runs {
        let (gap, length) = ((start - previous) as u64, (end - start) as u64);
        write_varint(out, gap << 1 | u64::from(length > 1));
        if length > 1 {
            write_varint(out, length - 2);
        }
        previous = end;
    }
}

/// Appends an integer, seven bits a byte, low bits first.
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes an integer off the front. `None` if it does not end within 64 bits.
#[inline]
pub(super) fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&byte, rest) = bytes.split_first()?;
    if byte < 0x80 {
        *bytes = rest;
        return Some(u64::from(byte));
    }
    read_long_varint(bytes)
}

fn read_long_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Takes that many bytes off the front. `None`, with `bytes` as it was, if there are fewer.
pub(super) fn read_bytes<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

/// Takes a counted stretch of bytes off the front.
pub(super) fn read_counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = usize::try_from(read_varint(bytes)?).ok()?;
    read_bytes(bytes, count)
}

/// Bytes of the longest common start.
pub(super) fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    let eights = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    eights + a[eights..].iter().zip(&b[eights..]).take_while(|(a, b)| a == b).count()
}

/// Appends bytes with their count.
pub(super) fn write_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn coded(set: &BTreeSet<u16>) -> Vec<u8> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for position in set.iter().map(|p| usize::from(*p)) {
            match runs.last_mut() {
                Some(run) if run.1 == position => run.1 += 1,
                _ => runs.push((position, position + 1)),
            }
        }
        let mut out = Vec::new();
        write_runs(&mut out, runs);
        out
    }

    fn positions(set: &BTreeSet<u16>) -> Positions {
        let mut positions = Positions::none(limits::CHUNK_FILES);
        positions.insert_coded(&coded(set));
        positions
    }

    fn any_set() -> impl Strategy<Value = BTreeSet<u16>> {
        prop::collection::vec((0u16..4096, 1u16..200), 0..20).prop_map(|runs| {
            runs.into_iter().flat_map(|(start, len)| start..start.saturating_add(len).min(4096)).collect()
        })
    }

    proptest! {
        #[test]
        fn sets_behave_like_sets(a in any_set(), b in any_set()) {
            let (mut both, mut rest) = (positions(&a), positions(&a));
            prop_assert!(both.iter().eq(a.iter().copied()));
            both.intersect(&positions(&b));
            rest.subtract(&positions(&b));
            prop_assert!(both.iter().eq(a.intersection(&b).copied()));
            prop_assert!(rest.iter().eq(a.difference(&b).copied()));
            prop_assert_eq!(both.is_empty(), a.is_disjoint(&b));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, files in 0usize..5000) {
            let mut positions = Positions::none(files);
            positions.insert_coded(&bytes);
            prop_assert!(positions.iter().all(|p| usize::from(p) < files.div_ceil(64) * 64));
        }

        #[test]
        fn integers_round_trip(value: u64) {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            let mut rest = out.as_slice();
            prop_assert_eq!(read_varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }
}
