//! The token side of a segment: which token is held by which files. It is also most of the segment's digest.
//!
//! Tokens are sorted by their bytes and front-coded, each followed by its files' positions in the chunk, coded as
//! runs. Filters that are lists have tokens too, `:ext:mp3` and `:kind:audio`: a colon is in no word, so they never
//! meet one, and no prefix begins with it.
//!
//! ```text
//!   files | tokens | entry…    entry: shared with the previous | rest of the token | its positions
//! ```
//!
//! What comes from another ultrapeer is checked once, in [`Words::decode`]; from then on every entry is
//! known to be readable.

use overlay::limits;

use super::postings::{Coder, List, read_counted, read_varint, shared_bytes, write_counted, write_varint};

/// Sorted tokens with their file positions.
#[derive(Clone, Debug)]
pub(super) struct Words {
    files: u16,
    tokens: u32,
    /// Spans of positions of all tokens.
    spans: u32,
    coded: Box<[u8]>,
}

/// Why bytes are no token side of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Words {
    /// From tokens in ascending order, each with ascending, disjoint spans of positions below `files`.
    pub(super) fn build<'a, S>(files: u16, tokens: impl Iterator<Item = (&'a [u8], S)>) -> Self
    where
        S: Iterator<Item = (u32, u32)>,
    {
        let (mut coded, mut coder) = (Vec::with_capacity(tokens.size_hint().0 * 16), Coder::default());
        let (mut previous, mut count, mut all) = (&[][..], 0, 0);
        for (token, spans) in tokens {
            let shared = shared_bytes(token, previous);
            write_varint(&mut coded, shared as u64);
            write_counted(&mut coded, &token[shared..]);
            for (start, end) in spans {
                coder.push(start, end);
                all += 1;
            }
            write_counted(&mut coded, coder.finish().0);
            coder.clear();
            (previous, count) = (token, count + 1);
        }
        Self { files, tokens: count, spans: all, coded: coded.into() }
    }

    /// Files of the segment.
    pub(super) fn files(&self) -> usize {
        usize::from(self.files)
    }

    /// Distinct tokens.
    pub(super) const fn len(&self) -> usize {
        self.tokens as usize
    }

    /// Spans of positions of all tokens.
    pub(super) const fn spans(&self) -> usize {
        self.spans as usize
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> usize {
        self.coded.len()
    }

    /// Its wire form.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.coded.len() + 8);
        write_varint(&mut out, u64::from(self.files));
        write_varint(&mut out, u64::from(self.tokens));
        out.extend_from_slice(&self.coded);
        out
    }

    /// Reads and checks a wire form, and returns it with the bytes that follow it: order of the tokens, their text, that every position is a file's, and that the
    /// tokens written out are no more than the words of a chunk: each may begin with all of the one before it, so a
    /// few bytes could stand for gigabytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut rest = bytes;
        let files = read_varint(&mut rest).filter(|files| *files <= limits::CHUNK_FILES as u64).ok_or(Malformed)?;
        let tokens = read_varint(&mut rest).and_then(|tokens| u32::try_from(tokens).ok()).ok_or(Malformed)?;
        let coded = rest;
        let (mut previous, mut token, mut spans, mut written) = (Vec::new(), Vec::new(), 0, 0);
        for ordinal in 0..tokens {
            let mut positions = read_entry(&mut rest, &mut token).ok_or(Malformed)?;
            written += token.len();
            if written > limits::DIGEST_BYTES {
                return Err(Malformed);
            }
            let (last, count) = positions.by_ref().fold((0, 0), |(_, count), (_, end)| (end, count + 1));
            let ordered = ordinal == 0 || previous < token;
            let within = (1..=files).contains(&last.into());
            if !within || !positions.is_read() || !ordered || std::str::from_utf8(&token).is_err() {
                return Err(Malformed);
            }
            previous.clone_from(&token);
            spans += count;
        }
        let coded = &coded[..coded.len() - rest.len()];
        if coded.len() > limits::DIGEST_BYTES {
            return Err(Malformed);
        }
        Ok((Self { files: files as u16, tokens, spans, coded: coded.into() }, rest))
    }

    /// Calls `each` for every token, ascending, with its positions.
    pub(super) fn each_token<'a>(&'a self, mut each: impl FnMut(&[u8], List<'a>)) {
        let (mut rest, mut token) = (&*self.coded, Vec::new());
        while let Some(positions) = read_entry(&mut rest, &mut token) {
            each(&token, positions);
        }
    }
}

/// Takes an entry off the front, turns the previous token into its token, and returns its positions.
fn read_entry<'a>(rest: &mut &'a [u8], token: &mut Vec<u8>) -> Option<List<'a>> {
    let shared = usize::try_from(read_varint(rest)?).ok().filter(|shared| *shared <= token.len())?;
    token.truncate(shared);
    token.extend_from_slice(read_counted(rest)?);
    Some(List::new(read_counted(rest)?, &[]))
}

/// The token of a list filter's item, which no word is and no prefix begins.
pub(super) fn filter_token(filter: &str, item: &str) -> String {
    format!(":{filter}:{item}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words that all begin with `shared` bytes of the first, each with one byte more.
    fn repeated(shared: usize, words: u8) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, 1);
        write_varint(&mut out, u64::from(words));
        let mut coder = Coder::default();
        for word in 0..words {
            coder.push(0, 1);
            let (kept, rest) = if word == 0 { (0, vec![b'a'; shared]) } else { (shared, vec![b'a' + word]) };
            write_varint(&mut out, kept as u64);
            write_counted(&mut out, &rest);
            write_counted(&mut out, coder.finish().0);
            coder.clear();
        }
        out
    }

    #[test]
    fn words_that_are_more_than_a_chunk_when_written_out_are_refused() {
        let most = limits::DIGEST_BYTES / 4;
        assert_eq!(Words::decode(&repeated(most - 4, 4)).map(|(words, _)| words.len()), Ok(4));
        assert_eq!(Words::decode(&repeated(most, 5)).map(|(words, _)| words.len()), Err(Malformed));
    }
}
