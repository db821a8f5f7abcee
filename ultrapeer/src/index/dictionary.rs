//! Tokens of a run, each with the files that hold it.
//!
//! Tokens are sorted by their bytes and stand in blocks of [`BLOCK`], front-coded; a block is found by the first
//! eight bytes of its first token, and prefixes are ranges. Most tokens are held by few files: their list follows
//! them at once. A longer one stands elsewhere, with skips, so that blocks stay short.
//!
//! ```text
//!   firsts ─> block: record{16}    record: shared | rest of the token | list
//!                                                                       └─> or the place of a long list
//! ```
//!
//! These bytes are only ever written by a [`Builder`], from tokens that ascend.

use std::cmp::Ordering;

use super::postings::{Coder, List, Skip, read_bytes, read_varint, shared_bytes, write_varint};

/// Tokens of a block. Chosen: 12 bytes to find it are less than one a token, and half of it is read in a tenth of a
/// microsecond.
const BLOCK: usize = 16;
/// Bytes of a list that stands beside its token, at most.
const INLINE: usize = 40;
/// In half a byte: the rest of a number follows.
const MORE: u8 = 15;

/// Sorted tokens with their lists.
#[derive(Clone, Debug)]
pub(super) struct Dictionary {
    coded: Box<[u8]>,
    /// The first eight bytes of the first token of each block.
    firsts: Box<[u64]>,
    /// Start of each block in `coded`.
    blocks: Box<[u32]>,
    longs: Box<[Long]>,
    /// Bytes and skips of all long lists, one after the other.
    lists: Box<[u8]>,
    skips: Box<[Skip]>,
    tokens: usize,
}

/// A long list.
#[derive(Clone, Copy, Debug)]
struct Long {
    /// Where it begins in `lists` and `skips`; it ends where the next one begins.
    bytes: u32,
    skips: u32,
    /// Files that it names.
    files: u32,
}

/// Where a list is.
#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Inline(&'a [u8]),
    Long(usize),
}

/// A token as it stands in its block.
struct Record<'a> {
    /// Bytes that it shares with the previous token of the block.
    shared: usize,
    rest: &'a [u8],
    place: Place<'a>,
}

impl<'a> Record<'a> {
    /// Takes a record off the front.
    #[inline]
    fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let (&head, rest) = bytes.split_first()?;
        *bytes = rest;
        let (mut shared, mut length) = (usize::from(head >> 4), usize::from(head & MORE));
        if shared == usize::from(MORE) {
            shared += usize::try_from(read_varint(bytes)?).ok()?;
        }
        if length == usize::from(MORE) {
            length += usize::try_from(read_varint(bytes)?).ok()?;
        }
        let rest = read_bytes(bytes, length)?;
        let list = usize::try_from(read_varint(bytes)?).ok()?;
        let place = if list & 1 == 1 { Place::Long(list >> 1) } else { Place::Inline(read_bytes(bytes, list >> 1)?) };
        Some(Self { shared, rest, place })
    }
}

impl Dictionary {
    /// The files that hold a token; `None` if none does.
    pub(super) fn get(&self, token: &[u8]) -> Option<List<'_>> {
        self.find(token).map(|place| self.list(place))
    }

    /// How many files hold a token.
    pub(super) fn holding(&self, token: &[u8]) -> u64 {
        self.find(token).map_or(0, |place| self.files(place))
    }

    /// How many files hold words that begin so, a file once for each of its words; of the first `most` of them.
    pub(super) fn holding_prefixed(&self, prefix: &[u8], most: usize) -> u64 {
        self.prefixed(prefix).take(most).map(|place| self.files(place)).sum()
    }

    /// The list of every token that begins with `prefix`.
    pub(super) fn lists_prefixed<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = List<'a>> {
        self.prefixed(prefix).map(|place| self.list(place))
    }

    /// Distinct tokens.
    pub(super) const fn len(&self) -> usize {
        self.tokens
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        let blocks = size_of_val(&*self.firsts) + size_of_val(&*self.blocks);
        let longs = size_of_val(&*self.longs) + size_of_val(&*self.lists) + size_of_val(&*self.skips);
        self.coded.len() + blocks + longs
    }

    fn list<'a>(&'a self, place: Place<'a>) -> List<'a> {
        match place {
            Place::Inline(bytes) => List::new(bytes, &[]),
            Place::Long(number) => {
                let (from, to) = (self.longs[number], self.longs[number + 1]);
                let bytes = &self.lists[from.bytes as usize..to.bytes as usize];
                List::new(bytes, &self.skips[from.skips as usize..to.skips as usize])
            }
        }
    }

    fn files(&self, place: Place<'_>) -> u64 {
        match place {
            Place::Long(number) => self.longs[number].files.into(),
            Place::Inline(_) => self.list(place).map(|(start, end)| u64::from(end - start)).sum(),
        }
    }

    fn find(&self, token: &[u8]) -> Option<Place<'_>> {
        let mut bytes = self.block(self.block_of(token)?)?;
        // Bytes of `token` that the last record's token, which is less, begins with.
        let mut common = 0;
        for _ in 0..BLOCK {
            let record = Record::read(&mut bytes)?;
            match record.shared.cmp(&common) {
                Ordering::Greater => {}
                Ordering::Less => return None,
                Ordering::Equal => {
                    let wanted = &token[common..];
                    let more = shared_bytes(record.rest, wanted);
                    match (record.rest.get(more), wanted.get(more)) {
                        (None, None) => return Some(record.place),
                        (Some(_), None) => return None,
                        (Some(held), Some(wanted)) if held > wanted => return None,
                        _ => common += more,
                    }
                }
            }
        }
        None
    }

    /// Places of all tokens that begin with `prefix`, ascending.
    fn prefixed<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = Place<'a>> {
        // The block before may end with the first of them.
        let block = self.block_of(prefix).unwrap_or_default();
        let mut bytes = self.block(block).unwrap_or_default();
        let (mut ordinal, mut common) = (0_usize, 0);
        std::iter::from_fn(move || {
            loop {
                if ordinal.is_multiple_of(BLOCK) {
                    common = 0;
                }
                ordinal += 1;
                let record = Record::read(&mut bytes)?;
                if record.shared > common || common == prefix.len() && record.shared == common {
                    // In the place of the last one: before the range, or in it.
                } else if record.shared < common {
                    return None;
                } else {
                    let wanted = &prefix[common..];
                    let more = shared_bytes(record.rest, wanted);
                    common += more;
                    if common < prefix.len() && record.rest.get(more) > wanted.get(more) {
                        return None;
                    }
                }
                if common == prefix.len() {
                    return Some(record.place);
                }
            }
        })
    }

    /// The last block whose first token is not above `token`.
    fn block_of(&self, token: &[u8]) -> Option<usize> {
        let first = first_bytes(token);
        let below = self.firsts.partition_point(|held| *held < first);
        let alike = self.firsts[below..].iter().take_while(|held| **held == first).count();
        let (mut low, mut high) = (below, below + alike);
        while low < high {
            let middle = usize::midpoint(low, high);
            let above = self.block(middle).and_then(|mut bytes| Record::read(&mut bytes));
            if above.is_some_and(|record| record.rest <= token) { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1)
    }

    fn block(&self, block: usize) -> Option<&[u8]> {
        self.blocks.get(block).map(|start| &self.coded[*start as usize..])
    }
}

/// The first eight bytes as a number, so that its order is that of the tokens.
#[inline]
pub(super) fn first_bytes(token: &[u8]) -> u64 {
    if let Some(eight) = token.first_chunk::<8>() {
        return u64::from_be_bytes(*eight);
    }
    // A shorter one from two halves that overlap.
    let unused = 8 * (8 - token.len());
    if let (Some(head), Some(tail)) = (token.first_chunk::<4>(), token.last_chunk::<4>()) {
        u64::from(u32::from_be_bytes(*head)) << 32 | u64::from(u32::from_be_bytes(*tail)) << unused
    } else if let (Some(head), Some(tail)) = (token.first_chunk::<2>(), token.last_chunk::<2>()) {
        u64::from(u16::from_be_bytes(*head)) << 48 | u64::from(u16::from_be_bytes(*tail)) << unused
    } else {
        token.first().map_or(0, |byte| u64::from(*byte) << 56)
    }
}

/// Writes a dictionary, token by token.
#[derive(Debug, Default)]
pub(super) struct Builder {
    coded: Vec<u8>,
    firsts: Vec<u64>,
    blocks: Vec<u32>,
    longs: Vec<Long>,
    lists: Vec<u8>,
    skips: Vec<Skip>,
    tokens: usize,
    last: Vec<u8>,
    coder: Coder,
}

impl Builder {
    /// Appends files that hold the next token; spans ascend.
    #[inline]
    pub(super) fn push(&mut self, start: u32, end: u32) {
        self.coder.push(start, end);
    }

    /// Ends the list of the next token, which must be above the last one; without files it is left out.
    pub(super) fn end_token(&mut self, token: &[u8]) {
        if self.coder.is_empty() {
            return;
        }
        self.write_token(token);
        let (bytes, skips, files) = self.coder.finish();
        if bytes.len() <= INLINE {
            write_varint(&mut self.coded, (bytes.len() << 1) as u64);
            self.coded.extend_from_slice(bytes);
        } else {
            write_varint(&mut self.coded, (self.longs.len() << 1 | 1) as u64);
            self.longs.push(Long { bytes: self.lists.len() as u32, skips: self.skips.len() as u32, files });
            self.lists.extend_from_slice(bytes);
            self.skips.extend_from_slice(skips);
        }
        self.coder.clear();
    }

    /// Appends a token, which must be above the last one, with a list as it is; without files it is left out.
    pub(super) fn copy_token(&mut self, token: &[u8], list: List<'_>) {
        let bytes = list.coded();
        if bytes.len() > INLINE {
            list.for_each(|(start, end)| self.push(start, end));
            self.end_token(token);
        } else if !bytes.is_empty() {
            self.write_token(token);
            write_varint(&mut self.coded, (bytes.len() << 1) as u64);
            self.coded.extend_from_slice(bytes);
        }
    }

    fn write_token(&mut self, token: &[u8]) {
        if self.tokens.is_multiple_of(BLOCK) {
            self.firsts.push(first_bytes(token));
            self.blocks.push(self.coded.len() as u32);
            self.last.clear();
        }
        let shared = shared_bytes(&self.last, token);
        let rest = &token[shared..];
        let half = |number: usize| number.min(usize::from(MORE)) as u8;
        self.coded.push(half(shared) << 4 | half(rest.len()));
        for number in [shared, rest.len()] {
            if let Some(more) = number.checked_sub(usize::from(MORE)) {
                write_varint(&mut self.coded, more as u64);
            }
        }
        self.coded.extend_from_slice(rest);
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        self.tokens += 1;
    }

    pub(super) fn finish(mut self) -> Dictionary {
        self.longs.push(Long { bytes: self.lists.len() as u32, skips: self.skips.len() as u32, files: 0 });
        Dictionary {
            coded: self.coded.into(),
            firsts: self.firsts.into(),
            blocks: self.blocks.into(),
            longs: self.longs.into(),
            lists: self.lists.into(),
            skips: self.skips.into(),
            tokens: self.tokens,
        }
    }
}

/// Where somebody is who reads a dictionary from its first token to the last.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The token, if there is one, and its first bytes.
    pub(super) token: Vec<u8>,
    pub(super) first: u64,
    at: usize,
    /// Of the list: bytes of `coded`, or the number of a long one.
    place: (usize, usize),
    is_long: bool,
    ended: bool,
}

impl Walk {
    /// At the first token.
    pub(super) fn new(dictionary: &Dictionary) -> Self {
        let mut walk = Self::default();
        walk.advance(dictionary);
        walk
    }

    /// True if all tokens were passed.
    pub(super) const fn is_done(&self) -> bool {
        self.ended
    }

    /// Goes to the next token of that same dictionary.
    pub(super) fn advance(&mut self, dictionary: &Dictionary) {
        let mut bytes = &dictionary.coded[self.at..];
        let Some(record) = Record::read(&mut bytes) else {
            self.ended = true;
            return;
        };
        self.token.truncate(record.shared);
        self.token.extend_from_slice(record.rest);
        if record.shared < 8 {
            self.first = first_bytes(&self.token);
        }
        self.at = dictionary.coded.len() - bytes.len();
        (self.is_long, self.place) = match record.place {
            Place::Inline(list) => (false, (self.at - list.len(), self.at)),
            Place::Long(number) => (true, (number, 0)),
        };
    }

    /// The files that hold the token.
    pub(super) fn list<'a>(&self, dictionary: &'a Dictionary) -> List<'a> {
        let (start, end) = self.place;
        dictionary.list(if self.is_long { Place::Long(start) } else { Place::Inline(&dictionary.coded[start..end]) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<String, BTreeSet<u32>>;

    fn any_model() -> impl Strategy<Value = Model> {
        let token = prop_oneof![
            4 => "[ab]{1,5}",
            1 => "aaaaaaaa[abc]{0,24}",
            1 => "[a-z0-9é東]{1,9}",
        ];
        let few = prop::collection::btree_set(0u32..5000, 1..5);
        let many = prop::collection::btree_set(0u32..5000, 100..200);
        prop::collection::btree_map(token, prop_oneof![20 => few, 1 => many], 0..100)
    }

    fn build(model: &Model) -> Dictionary {
        let mut builder = Builder::default();
        for (token, files) in model {
            for file in files {
                builder.push(*file, file + 1);
            }
            builder.end_token(token.as_bytes());
        }
        builder.finish()
    }

    fn files(list: List<'_>) -> BTreeSet<u32> {
        list.flat_map(|(start, end)| start..end).collect()
    }

    #[test]
    fn first_bytes_have_the_order_of_the_tokens() {
        for (token, want) in [
            ("", *b"\0\0\0\0\0\0\0\0"),
            ("a", *b"a\0\0\0\0\0\0\0"),
            ("ab", *b"ab\0\0\0\0\0\0"),
            ("abc", *b"abc\0\0\0\0\0"),
            ("abcd", *b"abcd\0\0\0\0"),
            ("abcde", *b"abcde\0\0\0"),
            ("abcdef", *b"abcdef\0\0"),
            ("abcdefg", *b"abcdefg\0"),
            ("abcdefgh", *b"abcdefgh"),
            ("abcdefghi", *b"abcdefgh"),
        ] {
            assert_eq!(first_bytes(token.as_bytes()), u64::from_be_bytes(want), "{token}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_copied_dictionary_is_the_same(model in any_model()) {
            let dictionary = build(&model);
            let mut builder = Builder::default();
            let mut walk = Walk::new(&dictionary);
            while !walk.is_done() {
                let mut coder = Coder::default();
                walk.list(&dictionary).for_each(|(start, end)| coder.push(start, end));
                builder.copy_token(&walk.token, List::new(coder.finish().0, &[]));
                walk.advance(&dictionary);
            }
            let copy = builder.finish();
            prop_assert_eq!((copy.coded, copy.firsts, copy.blocks), (dictionary.coded, dictionary.firsts, dictionary.blocks));
            prop_assert_eq!((copy.lists, copy.skips, copy.tokens), (dictionary.lists, dictionary.skips, dictionary.tokens));
        }

        #[test]
        fn tokens_and_prefixes_are_found(model in any_model(), others in prop::collection::vec("[abc]{1,10}", 20)) {
            let dictionary = build(&model);
            prop_assert_eq!(dictionary.len(), model.len());
            let cut = |token: &String| token.chars().take(3).collect::<String>();
            for token in model.keys().cloned().chain(model.keys().map(cut)).chain(others) {
                let bytes = token.as_bytes();
                let held = model.get(&token);
                let found = dictionary.get(bytes).map(files);
                prop_assert_eq!(found.as_ref(), held, "{}", token);
                prop_assert_eq!(dictionary.holding(bytes), held.map_or(0, |files| files.len() as u64));
                let lists: Vec<_> = dictionary.lists_prefixed(bytes).map(files).collect();
                let want: Vec<_> = model.range(token.clone()..).take_while(|(held, _)| held.starts_with(&token)).collect();
                prop_assert_eq!(lists, want.iter().map(|(_, files)| (*files).clone()).collect::<Vec<_>>(), "{}*", token);
                let sum = want.iter().map(|(_, files)| files.len() as u64).sum::<u64>();
                prop_assert_eq!(dictionary.holding_prefixed(bytes, usize::MAX), sum);
            }
        }

        #[test]
        fn a_walk_passes_everything_in_order(model in any_model()) {
            let dictionary = build(&model);
            let mut walk = Walk::new(&dictionary);
            for (token, held) in &model {
                prop_assert!(!walk.is_done());
                prop_assert_eq!(std::str::from_utf8(&walk.token), Ok(&**token));
                prop_assert_eq!(walk.first, first_bytes(token.as_bytes()));
                prop_assert_eq!(&files(walk.list(&dictionary)), held);
                walk.advance(&dictionary);
            }
            prop_assert!(walk.is_done());
        }
    }
}
