//! Queries made from real names, and what they find by definition.
//!
//! Words of one file each, so most queries find something; files are chosen with a frequency that falls as
//! 1 / rank^0.8 over a random order; seven of ten words come from the file's name, the others from
//! anywhere in the path.

use overlay::text::{Tokenizer, is_cjk};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rustc_hash::FxHashMap;

use crate::packages::{Leaf, Packages};

/// Words that are drawn from for hard queries.
const FREQUENT: usize = 200;

/// A query in a form that every engine understands.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Words that all must be there.
    pub words: Vec<String>,
    /// The beginning of a word that must be there.
    pub prefix: Option<String>,
    /// A word that must not be there.
    pub without: Option<String>,
}

impl Asked {
    /// As a person would type it.
    pub fn source(&self) -> String {
        let words = self.words.iter().cloned();
        let prefix = self.prefix.iter().map(|prefix| format!("{prefix}*"));
        let without = self.without.iter().map(|word| format!("-{word}"));
        words.chain(prefix).chain(without).collect::<Vec<_>>().join(" ")
    }

    fn holds(&self, tokens: &[String]) -> bool {
        let has = |word: &String| tokens.contains(word);
        self.words.iter().all(has)
            && self.prefix.as_ref().is_none_or(|prefix| tokens.iter().any(|token| token.starts_with(prefix)))
            && !self.without.as_ref().is_some_and(has)
    }
}

/// The tokens of a path.
pub fn tokens(tokenizer: &mut Tokenizer, path: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    tokenizer.name_tokens(path, |token, _| tokens.push(token.to_owned()));
    tokens
}

/// Makes queries over a corpus; the same seed makes the same ones.
#[derive(Debug)]
pub struct Mix<'a> {
    corpus: &'a Packages,
    /// Files before each leaf.
    starts: Vec<usize>,
    files: usize,
    tokenizer: Tokenizer,
    rng: Pcg64Mcg,
}

impl<'a> Mix<'a> {
    /// Over a corpus with at least one file.
    pub fn new(corpus: &'a Packages, seed: u64) -> Self {
        let mut files = 0;
        let starts = corpus.leaves().iter().map(|leaf| {
            let start = files;
            files += leaf.len();
            start
        });
        let starts = starts.collect();
        Self { corpus, starts, files, tokenizer: Tokenizer::new(), rng: Pcg64Mcg::seed_from_u64(seed) }
    }

    /// One to three words: 70 % plain, 13 % with a prefix, 17 % with an exclusion.
    pub fn ordinary(&mut self) -> Asked {
        loop {
            let mut asked = Asked { words: self.words(), ..Asked::default() };
            match self.rng.random_range(0..100) {
                0..13 => {
                    let at = self.rng.random_range(0..asked.words.len());
                    let word = asked.words.swap_remove(at);
                    let letters = word.chars().count();
                    if letters < 4 || !word.is_ascii() {
                        continue;
                    }
                    asked.prefix = Some(word[..self.rng.random_range(3..letters)].to_owned());
                }
                13..30 => {
                    asked.without = self.words().pop().filter(|word| !asked.words.contains(word));
                    if asked.without.is_none() {
                        continue;
                    }
                }
                _ => {}
            }
            return asked;
        }
    }

    /// Two or three of the 200 most frequent words of all files.
    pub fn hard(&mut self, count: usize) -> Vec<Asked> {
        let frequent = self.frequent();
        let pick = |rng: &mut Pcg64Mcg| frequent[rng.random_range(0..frequent.len())].clone();
        let query = |_| {
            let mut words: Vec<String> = (0..self.rng.random_range(2..=3)).map(|_| pick(&mut self.rng)).collect();
            words.sort();
            words.dedup();
            Asked { words, ..Asked::default() }
        };
        (0..count).map(query).collect()
    }

    fn frequent(&mut self) -> Vec<String> {
        let mut counts: FxHashMap<String, u32> = FxHashMap::default();
        let corpus = self.corpus;
        // A thirtieth of the files tells the frequent words well enough.
        for path in corpus.leaves().iter().flat_map(Leaf::paths).step_by(31) {
            let mut tokens = tokens(&mut self.tokenizer, path);
            tokens.sort_unstable();
            tokens.dedup();
            for token in tokens {
                *counts.entry(token).or_default() += 1;
            }
        }
        let mut counts: Vec<(u32, String)> = counts.into_iter().map(|(token, count)| (count, token)).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts.into_iter().take(FREQUENT).map(|(_, token)| token).collect()
    }

    fn words(&mut self) -> Vec<String> {
        loop {
            let path = self.path();
            let all = tokens(&mut self.tokenizer, path);
            let name = tokens(&mut self.tokenizer, path.rsplit('/').next().unwrap_or(path));
            // A lone CJK character would be a prefix.
            if name.is_empty() || path.contains(is_cjk) {
                continue;
            }
            let mut words: Vec<String> = (0..self.rng.random_range(1..=3))
                .map(|_| {
                    let from = if self.rng.random_bool(0.7) { &name } else { &all };
                    from[self.rng.random_range(0..from.len())].clone()
                })
                .collect();
            words.sort();
            words.dedup();
            return words;
        }
    }

    fn path(&mut self) -> &'a str {
        // The inverse of the distribution of ranks: below N u^5 with 1 / (1 - 0.8) = 5.
        let uniform: f64 = self.rng.random();
        let rank = (self.files as f64 * uniform.powi(5)) as u64;
        // A fixed shuffle of the ranks: any odd factor would do for powers of two, a prime does for all.
        let file = (rank.wrapping_mul(0x9e37_79b9_7f4a_7c55) % self.files as u64) as usize;
        let leaf = self.starts.partition_point(|start| *start <= file) - 1;
        self.corpus.leaves()[leaf].path(file - self.starts[leaf])
    }
}

/// How many files each query finds, by a scan of all of them.
pub fn scan(corpus: &Packages, queries: &[Asked]) -> Vec<usize> {
    let mut by_word: FxHashMap<&str, Vec<usize>> = FxHashMap::default();
    let mut others = Vec::new();
    for (at, query) in queries.iter().enumerate() {
        match query.words.first() {
            Some(word) => by_word.entry(word).or_default().push(at),
            None => others.push(at),
        }
    }
    let (mut counts, mut tokenizer) = (vec![0; queries.len()], Tokenizer::new());
    for path in corpus.leaves().iter().flat_map(Leaf::paths) {
        let mut tokens = tokens(&mut tokenizer, path);
        tokens.sort_unstable();
        tokens.dedup();
        let with_word = tokens.iter().filter_map(|token| by_word.get(token.as_str())).flatten();
        for &at in with_word.chain(&others) {
            counts[at] += usize::from(queries[at].holds(&tokens));
        }
    }
    counts
}
