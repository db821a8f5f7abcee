//! The token side of a segment: which token is held by which files. It is also the segment's digest.
//!
//! Tokens are sorted by their bytes and stand in blocks of [`BLOCK`], front-coded, each followed by its
//! run-coded file positions. A token is named by its *ordinal*, its place in the order. Filters that are
//! lists have tokens too, `ext:mp3` and `kind:audio`: a colon is in no word, so they never meet one.
//!
//! ```text
//!   block: entry{8}    entry: shared with the previous | rest of the token | its positions
//! ```
//!
//! What comes from another ultrapeer is checked once, in [`Words::decode`]; from then on every entry is
//! known to be readable.

use overlay::{limits, text::is_cjk};

use super::postings::{
    Positions, Runs, read_bytes, read_counted, read_varint, shared_bytes, write_counted, write_runs, write_varint,
};

/// Tokens of a block. Fewer cost an offset of 4 bytes more often, more cost decoding: 8 puts the offsets
/// at half a byte a token.
const BLOCK: usize = 8;

/// Characters of a word's stem: the shortest prefix that can be asked for on its own.
const STEM_CHARS: usize = limits::PREFIX_CHARS;

/// Sorted tokens with their file positions.
#[derive(Clone, Debug)]
pub(super) struct Words {
    files: u16,
    tokens: u32,
    coded: Box<[u8]>,
    /// Start of each block in `coded`.
    blocks: Box<[u32]>,
}

/// Why bytes are no token side of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Words {
    /// From tokens in ascending order, each with ascending, disjoint runs of positions below `files`.
    pub(super) fn build<'a, R>(files: u16, tokens: impl IntoIterator<Item = (&'a str, R)>) -> Self
    where
        R: IntoIterator<Item = (usize, usize)>,
    {
        let (mut coded, mut blocks, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut previous, mut count) = ("", 0);
        for (token, runs) in tokens {
            if (count as usize).is_multiple_of(BLOCK) {
                blocks.push(coded.len() as u32);
                previous = "";
            }
            let shared = shared_bytes(token.as_bytes(), previous.as_bytes());
            write_varint(&mut coded, shared as u64);
            write_counted(&mut coded, &token.as_bytes()[shared..]);
            positions.clear();
            write_runs(&mut positions, runs);
            write_counted(&mut coded, &positions);
            (previous, count) = (token, count + 1);
        }
        Self { files, tokens: count, coded: coded.into(), blocks: blocks.into() }
    }

    /// Files of the segment.
    pub(super) fn files(&self) -> usize {
        usize::from(self.files)
    }

    /// Distinct tokens.
    pub(super) const fn len(&self) -> usize {
        self.tokens as usize
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.coded.len() + size_of_val(&*self.blocks)
    }

    /// Its wire form.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.coded.len() + 8);
        write_varint(&mut out, u64::from(self.files));
        write_varint(&mut out, u64::from(self.tokens));
        out.extend_from_slice(&self.coded);
        out
    }

    /// Reads and checks a wire form: order of the tokens, their text, and that every position is a file's.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = bytes;
        let files = read_varint(&mut rest).filter(|files| *files <= limits::CHUNK_FILES as u64).ok_or(Malformed)?;
        let tokens = read_varint(&mut rest).and_then(|tokens| u32::try_from(tokens).ok()).ok_or(Malformed)?;
        if rest.len() > limits::DIGEST_BYTES {
            return Err(Malformed);
        }
        let coded: Box<[u8]> = rest.into();
        let mut blocks = Vec::new();
        let (mut previous, mut token) = (Vec::new(), Vec::new());
        for ordinal in 0..tokens as usize {
            if ordinal.is_multiple_of(BLOCK) {
                blocks.push((coded.len() - rest.len()) as u32);
                token.clear();
            }
            let positions = read_entry(&mut rest, &mut token).ok_or(Malformed)?;
            let mut runs = Runs::new(positions);
            let within = runs.by_ref().fold(0, |_, (_, end)| end) <= files as usize;
            let ordered = ordinal == 0 || previous < token;
            if !within || !runs.at_end() || positions.is_empty() || !ordered || std::str::from_utf8(&token).is_err() {
                return Err(Malformed);
            }
            previous.clone_from(&token);
        }
        if !rest.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { files: files as u16, tokens, coded, blocks: blocks.into() })
    }

    /// Adds the positions of the token with that ordinal; nothing if there is none.
    pub(super) fn insert_positions(&self, ordinal: u32, out: &mut Positions) {
        let Some(mut rest) = self.block(ordinal as usize / BLOCK) else { return };
        for _ in 0..ordinal as usize % BLOCK {
            let _ = skip_entry(&mut rest);
        }
        if let Some(positions) = skip_entry(&mut rest) {
            out.insert_coded(positions);
        }
    }

    /// Adds the positions of a token; nothing if it is not there.
    pub(super) fn insert_token(&self, token: &[u8], out: &mut Positions) {
        let mut walk = self.walk_from(self.block_before(token));
        while let Some((_, held, positions)) = walk.next() {
            if held == token {
                out.insert_coded(positions);
            }
            if held >= token {
                return;
            }
        }
    }

    /// Adds the positions of all words that begin with `prefix`. `from` is an ordinal at or before the
    /// first of them, if one is known. Returns how many tokens it looked at.
    pub(super) fn insert_prefixed(&self, prefix: &str, from: Option<u32>, out: &mut Positions) -> usize {
        let prefix = prefix.as_bytes();
        let block = from.map_or_else(|| self.block_before(prefix), |ordinal| ordinal as usize / BLOCK);
        let mut walk = self.walk_from(block);
        let mut walked = 0;
        while let Some((_, token, positions)) = walk.next() {
            walked += 1;
            if token.starts_with(prefix) {
                if !is_filter(token) {
                    out.insert_coded(positions);
                }
            } else if token > prefix {
                break;
            }
        }
        walked
    }

    /// Calls `each` for every token with its ordinal.
    pub(super) fn each_token(&self, mut each: impl FnMut(u32, &[u8])) {
        let mut walk = self.walk_from(0);
        while let Some((ordinal, token, _)) = walk.next() {
            each(ordinal, token);
        }
    }

    /// The last block whose first token is not above `token`.
    fn block_before(&self, token: &[u8]) -> usize {
        let mut first = Vec::new();
        let above = self.blocks.partition_point(|start| {
            first.clear();
            let mut rest = &self.coded[*start as usize..];
            read_entry(&mut rest, &mut first).is_some() && first.as_slice() <= token
        });
        above.saturating_sub(1)
    }

    fn block(&self, block: usize) -> Option<&[u8]> {
        self.blocks.get(block).map(|start| &self.coded[*start as usize..])
    }

    fn walk_from(&self, block: usize) -> Walk<'_> {
        let rest = self.block(block).unwrap_or(&[]);
        Walk { rest, ordinal: (block * BLOCK) as u32, token: Vec::new() }
    }
}

/// Goes through entries in order.
struct Walk<'a> {
    rest: &'a [u8],
    ordinal: u32,
    token: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn next(&mut self) -> Option<(u32, &[u8], &'a [u8])> {
        if (self.ordinal as usize).is_multiple_of(BLOCK) {
            self.token.clear();
        }
        let positions = read_entry(&mut self.rest, &mut self.token)?;
        let ordinal = self.ordinal;
        self.ordinal += 1;
        Some((ordinal, &self.token, positions))
    }
}

/// Takes an entry off the front, turns the previous token into its token, and returns its positions.
fn read_entry<'a>(rest: &mut &'a [u8], token: &mut Vec<u8>) -> Option<&'a [u8]> {
    let shared = usize::try_from(read_varint(rest)?).ok().filter(|shared| *shared <= token.len())?;
    token.truncate(shared);
    token.extend_from_slice(read_counted(rest)?);
    read_counted(rest)
}

/// Takes an entry off the front and returns its positions.
fn skip_entry<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    read_varint(rest)?;
    let suffix = usize::try_from(read_varint(rest)?).ok()?;
    read_bytes(rest, suffix)?;
    read_counted(rest)
}

/// True for tokens of filters, which no word or prefix may meet.
pub(super) fn is_filter(token: &[u8]) -> bool {
    token.contains(&b':')
}

/// The token of a list filter's item.
pub(super) fn filter_token(filter: &str, item: &str) -> String {
    format!("{filter}:{item}")
}

/// What routes a prefix: a word's first [`STEM_CHARS`] characters, or the first one if it is CJK. `None`
/// for shorter words. Tokens with one stem follow each other in the order of tokens.
pub(super) fn stem(token: &str) -> Option<&str> {
    let chars = if token.starts_with(is_cjk) { 1 } else { STEM_CHARS };
    let (last, c) = token.char_indices().nth(chars - 1)?;
    Some(&token[..last + c.len_utf8()])
}
