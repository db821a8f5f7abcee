//! Where the files of one term come from, as a set that is read in ascending order.
//!
//! A word's files are one list. Those of a prefix or a list filter are the union of several: a few long lists are
//! read side by side; all others, of which a prefix may have thousands, are gathered first, in a small vector or in
//! a bit for each file of the run.

use super::{
    dictionary::Dictionary,
    postings::{END, List},
};

/// Long lists of a union that are read side by side. Chosen: each costs a comparison a step.
const SIDE_BY_SIDE: usize = 8;
/// Bytes of a list above which it is worth not being gathered.
const LONG: usize = 256;
/// Spans that are gathered in a vector, at most: sorting them takes as long as clearing the bits of a million files.
const SORTED: usize = 1_000;
/// Lists or spans gathered that cost one unit of work.
const GATHERED_PER_WORK: u64 = 4;

/// The files of a term in one run.
pub(super) enum Source<'a> {
    List(List<'a>),
    Union(Union<'a>),
}

impl Source<'_> {
    /// The first span that ends above `from`, which is not below that of the last call; ([`END`], [`END`]) if there
    /// is none.
    #[inline]
    pub(super) fn seek(&mut self, from: u32) -> (u32, u32) {
        match self {
            Self::List(list) => list.seek(from),
            Self::Union(union) => union.seek(from),
        }
    }
}

/// Several lists as one.
#[derive(Default)]
pub(super) struct Union<'a> {
    lists: Vec<List<'a>>,
    gathered: Gathered,
}

impl<'a> Union<'a> {
    /// Of the tokens that begin with `prefix`, in a run of `files` files. Adds to `work` what that costs, and gives
    /// up, with `None`, at `work_cap`.
    pub(super) fn of_prefix(
        words: &'a Dictionary,
        prefix: &'a [u8],
        files: u32,
        work: &mut u64,
        work_cap: u64,
    ) -> Option<Self> {
        let mut union = Self::default();
        let mut count = 0;
        for list in words.lists_prefixed(prefix) {
            count += 1;
            if list.bytes() >= LONG {
                union.lists.push(list);
            } else {
                count += list.bytes() as u64 / 2;
                list.for_each(|span| union.gathered.add(span, files));
            }
            if *work + count / GATHERED_PER_WORK > work_cap {
                return None;
            }
        }
        union.lists.sort_unstable_by_key(|list| std::cmp::Reverse(list.bytes()));
        for list in union.lists.drain(SIDE_BY_SIDE.min(union.lists.len())..) {
            count += list.bytes() as u64 / 2;
            list.for_each(|span| union.gathered.add(span, files));
        }
        union.gathered.close();
        *work += count / GATHERED_PER_WORK;
        Some(union)
    }

    /// Of some tokens.
    pub(super) fn of_tokens(words: &'a Dictionary, tokens: &[String]) -> Self {
        let lists = tokens.iter().filter_map(|token| words.get(token.as_bytes())).collect();
        Self { lists, gathered: Gathered::default() }
    }

    /// True if it is certainly empty.
    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.gathered.is_empty()
    }

    /// Bytes of its lists.
    pub(super) fn bytes(&self) -> usize {
        self.lists.iter().map(List::bytes).sum()
    }

    fn seek(&mut self, from: u32) -> (u32, u32) {
        let mut best = self.gathered.seek(from);
        for list in &mut self.lists {
            let (start, end) = list.seek(from);
            // Of those that hold `from`, the one that reaches farthest.
            let (held, known) = (start.max(from), best.0.max(from));
            if held < known || held == known && end > best.1 && start != END {
                best = (start, end);
            }
        }
        best
    }
}

/// Spans that were put together, in any order at first.
enum Gathered {
    /// Few spans, ascending once closed, and how many were passed.
    Spans(Vec<(u32, u32)>, usize),
    /// A bit for each file.
    Bits(Vec<u64>),
}

impl Default for Gathered {
    fn default() -> Self {
        Self::Spans(Vec::new(), 0)
    }
}

impl Gathered {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Spans(spans, _) if spans.is_empty())
    }

    fn add(&mut self, span: (u32, u32), files: u32) {
        match self {
            Self::Spans(spans, _) if spans.len() < SORTED => spans.push(span),
            Self::Spans(spans, _) => {
                let mut bits = vec![0; files.div_ceil(64) as usize + 1];
                for span in spans.iter() {
                    set(&mut bits, *span);
                }
                set(&mut bits, span);
                *self = Self::Bits(bits);
            }
            Self::Bits(bits) => set(bits, span),
        }
    }

    /// Makes it ready to be read.
    fn close(&mut self) {
        if let Self::Spans(spans, _) = self {
            spans.sort_unstable();
            spans.dedup_by(|next, last| {
                let joined = next.0 <= last.1;
                if joined {
                    last.1 = last.1.max(next.1);
                }
                joined
            });
        }
    }

    fn seek(&mut self, from: u32) -> (u32, u32) {
        match self {
            Self::Spans(spans, passed) => {
                while spans.get(*passed).is_some_and(|span| span.1 <= from) {
                    *passed += 1;
                }
                spans.get(*passed).copied().unwrap_or((END, END))
            }
            Self::Bits(bits) => seek_bit(bits, from),
        }
    }
}

/// Sets the bits of a span.
fn set(bits: &mut [u64], (start, end): (u32, u32)) {
    let (start, end) = (start as usize, end as usize);
    let Some(words) = bits.get_mut(start / 64..=(end - 1) / 64) else { return };
    let (head, tail) = (u64::MAX << (start % 64), u64::MAX >> (63 - (end - 1) % 64));
    match words {
        [only] => *only |= head & tail,
        [first, between @ .., last] => {
            *first |= head;
            between.fill(u64::MAX);
            *last |= tail;
        }
        [] => {}
    }
}

/// The first set bits from `from` on, as far as they go without a gap within one word.
fn seek_bit(bits: &[u64], from: u32) -> (u32, u32) {
    let mut index = from as usize / 64;
    let Some(first) = bits.get(index) else { return (END, END) };
    let mut word = first & u64::MAX << (from % 64);
    while word == 0 {
        index += 1;
        match bits.get(index) {
            Some(next) => word = *next,
            None => return (END, END),
        }
    }
    let (base, low) = (index as u32 * 64, word.trailing_zeros());
    (base + low, base + low + (!(word >> low)).trailing_zeros())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const FILES: u32 = 5_000;

    proptest! {
        #[test]
        fn gathered_spans_are_found_in_order(
            spans in prop::collection::vec((0..FILES - 200, 1u32..200), 0..30),
            singles in prop_oneof![Just(0u32), 900u32..1100],
            mut places in prop::collection::vec(0..FILES, 1..40),
        ) {
            let mut gathered = Gathered::default();
            let mut model = BTreeSet::new();
            let singles = (0..singles).map(|n| (n * 7919 % FILES, 1));
            for (start, length) in spans.into_iter().chain(singles) {
                gathered.add((start, start + length), FILES);
                model.extend(start..start + length);
            }
            gathered.close();
            places.sort_unstable();
            for from in places {
                let (start, end) = gathered.seek(from);
                prop_assert_eq!(Some(start.max(from)).filter(|_| start != END), model.range(from..).next().copied());
                prop_assert!(start == END || (start.max(from)..end).all(|file| model.contains(&file)));
            }
        }
    }
}
