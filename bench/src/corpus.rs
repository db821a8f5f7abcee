//! Made-up file lists that resemble real ones, for measurements that must not depend on a download.
//!
//! The shape is that of 7.9 million paths of Debian packages and music data sets, one package a leaf: about
//! ten distinct tokens a path, three in its name, four of five tokens in one leaf only, and a few in nearly every path.

use overlay::{
    file::{FileEntry, Tags},
    id::ContentId,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Words that every leaf may use.
const COMMON_WORDS: u32 = 40_000;
/// Extensions by falling frequency.
const EXTENSIONS: [&str; 12] = ["html", "png", "ogg", "flac", "pdf", "gz", "txt", "mp3", "svg", "jpg", "h", "so"];
/// Outer folders, by falling frequency.
const TOPS: [&str; 6] =
    ["usr/share/doc", "usr/share", "usr/lib/x86_64-linux-gnu", "usr/share/icons/hicolor", "usr/include", "etc"];

/// Makes leaves, one after the other; the same seed makes the same ones.
#[derive(Debug)]
pub struct Corpus {
    rng: Pcg64Mcg,
    leaves: u32,
}

impl Corpus {
    /// A corpus without leaves.
    pub fn new(seed: u64) -> Self {
        Self { rng: Pcg64Mcg::seed_from_u64(seed), leaves: 0 }
    }

    /// The files of the next leaf, sorted by path: about that many (equal paths are dropped).
    pub fn leaf_of(&mut self, files: usize) -> Vec<FileEntry> {
        let leaf = self.leaves;
        self.leaves += 1;
        let own = Own::new(leaf, files, &mut self.rng);
        let mut entries: Vec<FileEntry> = (0..files).map(|_| own.file(&mut self.rng)).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        entries
    }
}

/// What the files of one leaf have in common.
struct Own {
    folders: Vec<String>,
    stems: Vec<String>,
}

impl Own {
    fn new(leaf: u32, files: usize, rng: &mut impl Rng) -> Self {
        let name = format!("{}{leaf}", word(zipf(rng, COMMON_WORDS)));
        let top = TOPS[zipf(rng, TOPS.len() as u32) as usize];
        let own_word = |rng: &mut dyn Rng| word(COMMON_WORDS + rng.random_range(0..u32::MAX / 2));
        let mut folders = vec![format!("{top}/{name}")];
        for _ in 0..files / 12 {
            let parent = &folders[rng.random_range(0..folders.len().min(20))];
            let folder = format!("{parent}/{}", word(zipf(rng, COMMON_WORDS)));
            folders.push(folder);
        }
        let stems = (0..=files / 4)
            .map(|_| if rng.random_bool(0.5) { own_word(rng) } else { word(zipf(rng, COMMON_WORDS)) })
            .collect();
        Self { folders, stems }
    }

    fn file(&self, rng: &mut impl Rng) -> FileEntry {
        let folder = &self.folders[rng.random_range(0..self.folders.len())];
        let stem = &self.stems[rng.random_range(0..self.stems.len())];
        let extension = EXTENSIONS[zipf(rng, EXTENSIONS.len() as u32) as usize];
        let middle = if rng.random_bool(0.5) { rng.random_range(0..100u32).to_string() } else { word(zipf(rng, 2000)) };
        let mut content = [0; 32];
        rng.fill_bytes(&mut content);
        FileEntry {
            path: format!("{folder}/{stem}-{middle}.{extension}"),
            content: ContentId(content),
            size: 1 << rng.random_range(8..32u32) | rng.random_range(0..256u64),
            modified_s: 1_600_000_000 + rng.random_range(0..150_000_000i64),
            tags: Tags::default(),
        }
    }
}

/// A number below `count`, the n-th about as frequent as 1/n.
fn zipf(rng: &mut (impl Rng + ?Sized), count: u32) -> u32 {
    let uniform: f64 = rng.random();
    ((f64::from(count) + 1.0).powf(uniform) as u32).saturating_sub(1).min(count - 1)
}

/// A pronounceable word, one for each number.
fn word(number: u32) -> String {
    const SYLLABLES: [&str; 32] = [
        "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "we", "xi",
        "yo", "za", "bre", "cha", "dro", "fli", "gra", "kno", "pla", "qui", "sta", "tri", "spo", "shu",
    ];
    let mut text = String::new();
    let mut rest = number;
    loop {
        text.push_str(SYLLABLES[(rest % 32) as usize]);
        rest /= 32;
        if rest == 0 {
            return text;
        }
    }
}
