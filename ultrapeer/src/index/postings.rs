//! Lists of file numbers: coded as runs, and read from anywhere.
//!
//! Files of a chunk are sorted by path and chunks are numbered one after the other, so the files that share a
//! token mostly stand side by side and a folder's name becomes one *span*, a half-open range. A span is its
//! gap from the end of the previous one and its length, as variable-length integers; the gap's lowest bit says
//! whether a length follows (it is 1 otherwise).
//!
//! A long list has a [`Skip`] every [`SKIP_SPANS`] spans: where the next one begins, so that a reader who looks
//! for one file decodes that many at most.

/// Spans between two skips. Chosen: 8 bytes of skip on some 80 bytes of spans, which are decoded in less time than
/// another cache miss takes.
const SKIP_SPANS: u32 = 32;

/// The end of every list, above all file numbers.
pub(super) const END: u32 = u32::MAX;

/// A place in a list where reading can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skip {
    /// End of the span before.
    end: u32,
    /// Byte of the list at which the next one starts.
    at: u32,
}

/// Writes a list.
#[derive(Debug, Default)]
pub(super) struct Coder {
    bytes: Vec<u8>,
    skips: Vec<Skip>,
    /// The last span, which may still grow; empty at first.
    open: (u32, u32),
    /// End of the last span that was written.
    end: u32,
    spans: u32,
    files: u32,
}

impl Coder {
    /// Appends a span that is not empty and begins where the last one ended or later; neighbours become one.
    #[inline]
    pub(super) fn push(&mut self, start: u32, end: u32) {
        debug_assert!(self.open.1 <= start && start < end, "spans ascend");
        if self.open.1 == start && self.open.0 < start {
            self.open.1 = end;
        } else {
            self.close();
            self.open = (start, end);
        }
    }

    fn close(&mut self) {
        let (start, end) = self.open;
        if start == end {
            return;
        }
        if self.spans > 0 && self.spans.is_multiple_of(SKIP_SPANS) {
            self.skips.push(Skip { end: self.end, at: self.bytes.len() as u32 });
        }
        let (gap, length) = (u64::from(start - self.end), u64::from(end - start));
        write_varint(&mut self.bytes, gap << 1 | u64::from(length > 1));
        if length > 1 {
            write_varint(&mut self.bytes, length - 2);
        }
        (self.end, self.spans, self.files) = (end, self.spans + 1, self.files + (end - start));
    }

    /// True if nothing was appended since the last list.
    pub(super) const fn is_empty(&self) -> bool {
        self.open.0 == self.open.1 && self.spans == 0
    }

    /// Ends the list: its bytes, its skips and how many files it names. [`Self::clear`] begins the next one.
    pub(super) fn finish(&mut self) -> (&[u8], &[Skip], u32) {
        self.close();
        self.open = (END, END);
        (&self.bytes, &self.skips, self.files)
    }

    /// Forgets the list.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.skips.clear();
        (self.open, self.end, self.spans, self.files) = ((0, 0), 0, 0, 0);
    }
}

/// Reads a list, span by span. Ends at the first byte that cannot be meant.
#[derive(Clone, Debug)]
pub(super) struct List<'a> {
    coded: &'a [u8],
    /// Skips that were not passed yet, some that were perhaps among them.
    skips: &'a [Skip],
    rest: &'a [u8],
    /// The last span that was read; empty before the first, at [`END`] behind the last.
    span: (u32, u32),
}

impl<'a> List<'a> {
    pub(super) const fn new(coded: &'a [u8], skips: &'a [Skip]) -> Self {
        Self { coded, skips, rest: coded, span: (0, 0) }
    }

    /// Bytes of the whole list: about two for each span.
    pub(super) const fn bytes(&self) -> usize {
        self.coded.len()
    }

    /// The whole list as it was written, without its skips.
    pub(super) const fn coded(&self) -> &'a [u8] {
        self.coded
    }

    /// The first span that ends above `from`, which is not below that of the last call; ([`END`], [`END`]) if
    /// there is none. It may begin below `from`.
    #[inline]
    pub(super) fn seek(&mut self, from: u32) -> (u32, u32) {
        if self.span.1 <= from {
            if self.skips.first().is_some_and(|skip| skip.end <= from) {
                self.skip(from);
            }
            while self.span.1 <= from {
                self.read();
            }
        }
        self.span
    }

    /// Goes to the last skip at or below `from`, unless that is behind.
    fn skip(&mut self, from: u32) {
        let mut reach = 1;
        while self.skips.get(reach).is_some_and(|skip| skip.end <= from) {
            reach *= 2;
        }
        let (sure, limit) = (reach / 2, reach.min(self.skips.len()));
        let passed = sure + self.skips[sure..limit].partition_point(|skip| skip.end <= from);
        let Some(skip) = self.skips[..passed].last() else { return };
        if skip.end > self.span.1 {
            self.rest = self.coded.get(skip.at as usize..).unwrap_or_default();
            self.span = (skip.end, skip.end);
        }
        self.skips = &self.skips[passed..];
    }

    #[inline]
    fn read(&mut self) {
        // A single file not far from the last one is the most frequent sort.
        match self.rest.split_first() {
            Some((&head, rest)) if head & 0x81 == 0 => {
                let start = self.span.1.wrapping_add(u32::from(head >> 1));
                self.span = (start, start.wrapping_add(1));
                self.rest = rest;
            }
            _ => self.read_long(),
        }
    }

    fn read_long(&mut self) {
        self.span = self.decode().unwrap_or((END, END));
    }

    fn decode(&mut self) -> Option<(u32, u32)> {
        let head = read_varint(&mut self.rest)?;
        let more = if head & 1 == 1 { read_varint(&mut self.rest)?.checked_add(1)? } else { 0 };
        let start = self.span.1.checked_add(u32::try_from(head >> 1).ok()?)?;
        let end = start.checked_add(1)?.checked_add(u32::try_from(more).ok()?)?;
        Some((start, end)).filter(|(_, end)| *end < END)
    }

    /// True if every byte was read and meant something.
    pub(super) const fn is_read(&self) -> bool {
        self.rest.is_empty() && self.span.0 != END
    }
}

impl Iterator for List<'_> {
    type Item = (u32, u32);

    #[inline]
    fn next(&mut self) -> Option<(u32, u32)> {
        if self.rest.is_empty() {
            return None;
        }
        self.read();
        Some(self.span).filter(|(start, _)| *start != END)
    }
}

/// Appends an integer, seven bits a byte, low bits first.
#[inline]
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
#[inline]
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
#[inline]
pub(super) fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    let mut shared = 0;
    while let (Some(eight), Some(others)) = (a[shared..].first_chunk::<8>(), b[shared..].first_chunk::<8>()) {
        let differing = u64::from_le_bytes(*eight) ^ u64::from_le_bytes(*others);
        if differing != 0 {
            return shared + differing.trailing_zeros() as usize / 8;
        }
        shared += 8;
    }
    shared + a[shared..].iter().zip(&b[shared..]).take_while(|(a, b)| a == b).count()
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

    fn coder(set: &BTreeSet<u32>) -> Coder {
        let mut coder = Coder::default();
        for file in set {
            coder.push(*file, file + 1);
        }
        coder
    }

    fn any_set() -> impl Strategy<Value = BTreeSet<u32>> {
        let span = (prop_oneof![3 => 0u32..2000, 1 => 0u32..2_000_000], 1u32..5);
        prop::collection::vec(span, 0..400)
            .prop_map(|spans| spans.into_iter().flat_map(|(start, n)| start..start + n).collect())
    }

    proptest! {
        #[test]
        fn lists_hold_what_was_written(set in any_set()) {
            let mut coder = coder(&set);
            let (bytes, skips, files) = coder.finish();
            prop_assert_eq!(files as usize, set.len());
            let read: Vec<u32> = List::new(bytes, skips).flat_map(|(start, end)| start..end).collect();
            prop_assert!(read.iter().eq(&set));
        }

        #[test]
        fn seeking_gives_the_first_span_above(set in any_set(), mut places in prop::collection::vec(0u32..2_100_000, 1..40)) {
            let mut coder = coder(&set);
            let (bytes, skips, _) = coder.finish();
            let mut list = List::new(bytes, skips);
            places.sort_unstable();
            for from in places {
                let (start, end) = list.seek(from);
                let want = set.range(from..).next().copied();
                prop_assert_eq!(Some(start.max(from)).filter(|_| start != END), want);
                if want.is_some() {
                    prop_assert!(set.contains(&(end - 1)) && !set.contains(&end) && (start == 0 || !set.contains(&(start - 1))));
                }
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, from: u32) {
            prop_assert!(List::new(&bytes, &[]).count() <= bytes.len());
            let _ = List::new(&bytes, &[]).seek(from.min(END - 1));
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
