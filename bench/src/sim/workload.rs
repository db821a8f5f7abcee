//! What leaves share and look for, and what a search must find.
//!
//! Names are real paths ([`crate::packages`]), so words have their real frequencies and neighbours share words. Files
//! are dealt out in *albums*, runs of neighbouring paths that are shared together: an album has a replication, drawn
//! from a distribution fitted to the published one (a quarter singletons, median 3, 76 % up to 10, mean 27 where the
//! network is large enough), and goes to as many leaves. Leaves have as many files as was measured: a quarter shares
//! nothing, the others' counts are lognormal.
//!
//! The truth is kept beside: an inverted index over all distinct contents, which knows nothing of ultrapeers.
//!
//! Not modelled: downloads. Nobody gets a file by searching for it.

use std::fmt::Write as _;

use overlay::{
    file::{FileEntry, Tags},
    id::ContentId,
    text::Tokenizer,
};
use rand::{Rng, RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{draw, scenario::Workload};
use crate::{mix::tokens, packages::Packages};

/// Replication: the part of contents on more than `x` leaves is (1 + x / SCALE)^-SHAPE.
const SHAPE: f64 = 0.92;
/// See [`SHAPE`].
const SCALE: f64 = 2.72;
/// The most leaves that share one content. Chosen: with it the mean is 27.
const REPLICATION_MAX: f64 = 4_000.0;
/// The largest part of the sharers that shares one content.
const REPLICATION_PART: f64 = 0.4;
/// Files of the corpus from which on a word is one that is everywhere.
const COMMON_FILES: usize = 100;
/// Files of an album on average.
const ALBUM: u32 = 8;
/// 2026-01-01, in seconds since 1970 UTC.
pub const EPOCH_S: i64 = 1_767_225_600;

/// How a search's words were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Of a file chosen by its popularity.
    Popular,
    /// Of any distinct content.
    Tail,
    /// Of nothing that is shared.
    None,
    /// Of a file that was just added, which has this age in seconds.
    Fresh(u8),
    /// The same, for a file whose leaf has just gone: of an orderly leaf or not.
    Gone(bool, u8),
}

/// A search, and what it must find.
#[derive(Clone, Debug)]
pub struct Query {
    /// As its user types it.
    pub text: String,
    /// How it was made.
    pub class: Class,
    /// All contents that match, whoever holds them, ascending.
    pub contents: Vec<u32>,
}

/// Some neighbouring contents, and the leaves that share them.
#[derive(Clone, Copy, Debug)]
struct Album {
    first: u32,
    files: u32,
    /// Where its holders begin; they end where the next album's begin.
    holders: u32,
}

/// How the contents came out.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Shape {
    /// Distinct contents.
    pub contents: u32,
    /// Copies of them on all leaves.
    pub copies: u64,
    /// Copies a content.
    pub mean_replication: f64,
    /// Median of the copies of a content.
    pub median_replication: u32,
    /// The part of contents that one leaf has.
    pub singletons: f64,
    /// The part of contents that at most ten leaves have.
    pub up_to_ten: f64,
    /// Copies a leaf, over all leaves.
    pub files_per_leaf: f64,
}

/// All that is shared. See the module text.
#[derive(Debug)]
pub struct Library {
    corpus: Packages,
    /// Files before each package of the corpus.
    starts: Vec<u32>,
    corpus_files: u32,
    albums: Vec<Album>,
    holders: Vec<u32>,
    /// Albums by leaf.
    leaves: Vec<Vec<u32>>,
    /// Contents that were added later, one album each, by name.
    fresh: Vec<String>,
    /// The first of them.
    first_fresh: u32,
    words: FxHashMap<Box<str>, Vec<u32>>,
    /// Words of many files of the corpus.
    common: FxHashSet<Box<str>>,
    tokenizer: Tokenizer,
}

impl Library {
    /// Deals files out to `leaves` leaves.
    pub fn new(seed: u64, leaves: u32, workload: &Workload, corpus: Packages) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(draw::mix(seed, 0x11b, 1));
        let mut files = 0;
        let starts = corpus.leaves().iter().map(|package| {
            let start = files;
            files += package.len() as u32;
            start
        });
        let mut library = Self {
            starts: starts.collect(),
            corpus_files: corpus.files() as u32,
            corpus,
            albums: Vec::new(),
            holders: Vec::new(),
            leaves: vec![Vec::new(); leaves as usize],
            fresh: Vec::new(),
            first_fresh: 0,
            words: FxHashMap::default(),
            common: FxHashSet::default(),
            tokenizer: Tokenizer::new(),
        };
        library.deal(&mut rng, workload);
        for content in 0..library.first_fresh {
            if content == library.corpus_files {
                let common = library.words.iter().filter(|(_, contents)| contents.len() >= COMMON_FILES);
                library.common = common.map(|(word, _)| word.clone()).collect();
            }
            library.learn(content);
        }
        library
    }

    fn deal(&mut self, rng: &mut Pcg64Mcg, workload: &Workload) {
        let mut slots = Vec::new();
        let mut sharers = 0;
        for leaf in 0..self.leaves.len() as u32 {
            if rng.random_bool(workload.sharers) {
                let files = draw::lognormal(rng, workload.median_files, workload.files_sigma);
                let files = (files as u32).clamp(1, workload.max_files);
                slots.extend(std::iter::repeat_n(leaf, files.div_ceil(ALBUM) as usize));
                sharers += 1;
            }
        }
        slots.shuffle(rng);
        let most = REPLICATION_MAX.min(f64::from(sharers) * REPLICATION_PART).max(1.0);
        let mut next = 0;
        while !slots.is_empty() {
            let files = (1.0 + draw::exponential(rng, f64::from(ALBUM - 1))).min(40.0).round() as u32;
            let wanted = replication(rng, most);
            let holders = self.holders.len() as u32;
            let mut put_back = Vec::new();
            while self.holders.len() - (holders as usize) < wanted as usize {
                let Some(leaf) = slots.pop() else { break };
                if self.leaves[leaf as usize].last() == Some(&(self.albums.len() as u32)) {
                    put_back.push(leaf);
                    if put_back.len() > 64 {
                        break;
                    }
                    continue;
                }
                self.leaves[leaf as usize].push(self.albums.len() as u32);
                self.holders.push(leaf);
            }
            for leaf in put_back {
                let at = rng.random_range(0..=slots.len());
                slots.push(leaf);
                let last = slots.len() - 1;
                slots.swap(at, last);
            }
            self.albums.push(Album { first: next, files, holders });
            next += files;
        }
        self.first_fresh = next;
    }

    /// Takes a content's words into the truth.
    fn learn(&mut self, content: u32) {
        let path = self.path(content);
        let mut words = tokens(&mut self.tokenizer, &path);
        words.sort_unstable();
        words.dedup();
        for word in words {
            match self.words.get_mut(&*word) {
                Some(contents) => contents.push(content),
                None => drop(self.words.insert(word.into(), vec![content])),
            }
        }
    }

    /// How the contents came out.
    pub fn shape(&self) -> Shape {
        let mut counts: Vec<(u32, u32)> =
            (0..self.albums.len()).map(|at| (self.album_holders(at).len() as u32, self.albums[at].files)).collect();
        counts.sort_unstable();
        let contents = self.first_fresh;
        let copies: u64 = counts.iter().map(|(copies, files)| u64::from(*copies) * u64::from(*files)).sum();
        let up_to = |most: u32| {
            let below = counts.iter().take_while(|(copies, _)| *copies <= most);
            below.map(|(_, files)| f64::from(*files)).sum::<f64>() / f64::from(contents.max(1))
        };
        let median = (1..=self.leaves()).find(|copies| up_to(*copies) >= 0.5).unwrap_or(0);
        Shape {
            contents,
            copies,
            mean_replication: copies as f64 / f64::from(contents.max(1)),
            median_replication: median,
            singletons: up_to(1),
            up_to_ten: up_to(10),
            files_per_leaf: copies as f64 / self.leaves.len() as f64,
        }
    }

    fn album_holders(&self, album: usize) -> &[u32] {
        let end = self.albums.get(album + 1).map_or(self.holders.len(), |next| next.holders as usize);
        &self.holders[self.albums[album].holders as usize..end]
    }

    /// The leaves that share a content while they are online.
    pub fn holders(&self, content: u32) -> &[u32] {
        let album = self.albums.partition_point(|album| album.first <= content) - 1;
        self.album_holders(album)
    }

    /// All distinct contents.
    pub fn contents(&self) -> u32 {
        self.first_fresh + self.fresh.len() as u32
    }

    /// Leaves, online or not.
    pub fn leaves(&self) -> u32 {
        self.leaves.len() as u32
    }

    /// The files of a leaf.
    pub fn files(&self, leaf: u32) -> Vec<FileEntry> {
        let albums = self.leaves[leaf as usize].iter().map(|album| self.albums[*album as usize]);
        albums.flat_map(|album| album.first..album.first + album.files).map(|content| self.entry(content)).collect()
    }

    /// The contents of a leaf.
    pub fn contents_of(&self, leaf: u32) -> impl Iterator<Item = u32> + '_ {
        let albums = self.leaves[leaf as usize].iter().map(|album| self.albums[*album as usize]);
        albums.flat_map(|album| album.first..album.first + album.files)
    }

    /// One more content, on one leaf. Returns its number.
    pub fn add_fresh(&mut self, rng: &mut impl Rng, leaf: u32) -> u32 {
        let content = self.contents();
        // Two words that nothing else has: whoever looks for it finds it alone.
        let name = format!("fresh/new{:08x} arrival{content}.txt", rng.random::<u32>());
        self.fresh.push(name);
        let album = self.albums.len() as u32;
        self.albums.push(Album { first: content, files: 1, holders: self.holders.len() as u32 });
        self.holders.push(leaf);
        self.leaves[leaf as usize].push(album);
        self.learn(content);
        content
    }

    /// Where a content lies below each of its holders' shares.
    pub fn path(&self, content: u32) -> String {
        if let Some(name) = content.checked_sub(self.first_fresh).and_then(|at| self.fresh.get(at as usize)) {
            return name.clone();
        }
        let files = self.corpus_files;
        let (round, at) = (content / files, content % files);
        let package = self.starts.partition_point(|start| *start <= at) - 1;
        let leaf = &self.corpus.leaves()[package];
        let (name, path) = (leaf.name(), leaf.path((at - self.starts[package]) as usize));
        // Packages share paths, and no leaf has two contents of one path: the package is the share.
        if round == 0 {
            return format!("{name}/{path}");
        }
        // Beyond the corpus its names come again with other words, but for those that are everywhere.
        format!("{name}x{round}/{}", self.edition(path, round))
    }

    fn edition(&self, path: &str, round: u32) -> String {
        let mut edition = String::with_capacity(path.len() + 32);
        for part in path.split_inclusive(|letter: char| !letter.is_alphanumeric()) {
            let word = part.trim_end_matches(|letter: char| !letter.is_alphanumeric());
            edition.push_str(word);
            if !word.is_empty() && !self.common.contains(&*word.to_lowercase()) {
                // Writing to a string cannot fail.
                let _ = write!(edition, "x{round}");
            }
            edition.push_str(&part[word.len()..]);
        }
        edition
    }

    /// A content as its holders list it.
    pub fn entry(&self, content: u32) -> FileEntry {
        let mut id = *blake3::hash(&content.to_le_bytes()).as_bytes();
        id[..4].copy_from_slice(&content.to_le_bytes());
        let random = u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|at| id[at]));
        FileEntry {
            path: self.path(content),
            content: ContentId(id),
            size: (1 << (8 + random % 24)) | (random >> 32) & 0xff,
            modified_s: EPOCH_S - (random >> 8) as i64 % 150_000_000,
            tags: Tags::default(),
        }
    }

    /// The number of a content.
    pub fn content(id: &ContentId) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|at| id.0[at]))
    }

    /// All contents that have all of these words.
    pub fn matching(&self, words: &[String]) -> Vec<u32> {
        let mut lists: Vec<&[u32]> =
            words.iter().map(|word| self.words.get(&**word).map_or(&[][..], |list| list)).collect();
        lists.sort_unstable_by_key(|list| list.len());
        let Some((first, others)) = lists.split_first() else { return Vec::new() };
        let everywhere = |content: &u32| others.iter().all(|list| list.binary_search(content).is_ok());
        first.iter().copied().filter(everywhere).collect()
    }

    /// A search of a class.
    pub fn query(&mut self, rng: &mut impl Rng, class: Class) -> Query {
        loop {
            let content = match class {
                Class::Popular => self.holders_weighted(rng),
                _ => rng.random_range(0..self.first_fresh),
            };
            let mut words = self.words_of(rng, content);
            if class == Class::None {
                let other = rng.random_range(0..self.first_fresh);
                words.extend(self.words_of(rng, other));
                words.sort();
                words.dedup();
            }
            let contents = self.matching(&words);
            if !words.is_empty() && contents.is_empty() == (class == Class::None) {
                return Query { text: words.join(" "), class, contents };
            }
        }
    }

    /// The search for one content by all words of its name.
    pub fn query_for(&mut self, content: u32, class: Class) -> Query {
        let path = self.path(content);
        let words = tokens(&mut self.tokenizer, path.rsplit('/').next().unwrap_or(&path));
        let contents = self.matching(&words);
        Query { text: words.join(" "), class, contents }
    }

    /// A content, the likelier the more leaves share it.
    fn holders_weighted(&self, rng: &mut impl Rng) -> u32 {
        loop {
            let copy = rng.random_range(0..self.holders.len()) as u32;
            let album = self.albums[self.albums.partition_point(|album| album.holders <= copy) - 1];
            // Longer albums hold more copies.
            if rng.random_range(0..40) < album.files {
                return album.first + rng.random_range(0..album.files);
            }
        }
    }

    /// Two or three words of a content: the rarest of its path, which tells it from others as people's words do, and
    /// one or two more, seven of ten from its name.
    fn words_of(&mut self, rng: &mut impl Rng, content: u32) -> Vec<String> {
        let path = self.path(content);
        if !path.is_ascii() {
            return Vec::new();
        }
        let all = tokens(&mut self.tokenizer, &path);
        let name = tokens(&mut self.tokenizer, path.rsplit('/').next().unwrap_or(&path));
        let frequency = |word: &&String| self.words.get(&***word).map_or(0, Vec::len);
        let Some(rarest) = all.iter().min_by_key(frequency) else { return Vec::new() };
        let mut words = vec![rarest.clone()];
        for _ in 0..rng.random_range(1..=2) {
            let from = if rng.random_bool(0.7) && !name.is_empty() { &name } else { &all };
            words.push(from[rng.random_range(0..from.len())].clone());
        }
        words.sort();
        words.dedup();
        words
    }
}

/// The number of leaves that share a content.
fn replication(rng: &mut impl Rng, most: f64) -> u32 {
    let above: f64 = 1.0 - rng.random::<f64>();
    let copies = SCALE * (above.powf(-1.0 / SHAPE) - 1.0);
    copies.ceil().clamp(1.0, most) as u32
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn library(leaves: u32) -> Library {
        let corpus = Packages::load(Path::new("/nonexistent"), true).expect("the sample");
        Library::new(1, leaves, &Workload::default(), corpus)
    }

    #[test]
    fn what_is_shared_has_the_published_shape() {
        let shape = library(3_000).shape();
        assert!((0.20..0.30).contains(&shape.singletons), "{shape:?}");
        assert!((2..=4).contains(&shape.median_replication), "{shape:?}");
        assert!((0.72..0.80).contains(&shape.up_to_ten), "{shape:?}");
        // The mean needs contents with thousands of copies, so it grows with the network.
        assert!((10.0..27.0).contains(&shape.mean_replication), "{shape:?}");
        assert!((120.0..220.0).contains(&shape.files_per_leaf), "{shape:?}");
    }

    #[test]
    fn the_truth_is_what_a_scan_finds() {
        let mut library = library(100);
        let mut rng = Pcg64Mcg::seed_from_u64(3);
        let fresh = library.add_fresh(&mut rng, 7);
        assert_eq!(library.query_for(fresh, Class::Fresh(1)).contents, [fresh]);
        assert_eq!(library.holders(fresh), [7]);
        for class in [Class::Popular, Class::Tail, Class::None].into_iter().cycle().take(9) {
            let query = library.query(&mut rng, class);
            let words: Vec<&str> = query.text.split(' ').collect();
            let holds = |path: &str| {
                let tokens = tokens(&mut Tokenizer::new(), path);
                words.iter().all(|word| tokens.iter().any(|token| token == word))
            };
            let scanned: Vec<u32> = (0..library.contents()).filter(|content| holds(&library.path(*content))).collect();
            assert_eq!(query.contents, scanned, "{}", query.text);
            assert_eq!(query.contents.is_empty(), class == Class::None);
        }
    }

    #[test]
    fn holders_and_leaves_tell_the_same() {
        let library = library(9_000);
        assert!(library.contents() > 60_000, "more than the corpus has names");
        for leaf in 0..200 {
            assert!(library.contents_of(leaf).all(|content| library.holders(content).contains(&leaf)));
        }
        let copies: usize = (0..library.contents()).map(|content| library.holders(content).len()).sum();
        assert_eq!(copies as u64, library.shape().copies);
        let paths: FxHashSet<String> = (0..library.contents()).map(|content| library.path(content)).collect();
        assert_eq!(paths.len() as u32, library.contents(), "a list has each path once");
    }
}
