//! Real file lists: the packages of Debian with their paths, one package a leaf.
//!
//! The paths come from the `Contents` indexes that `apt-file update` puts into apt's lists folder. Leaves
//! stand in the order of a hash of their name, so any prefix of them is a random sample. Where there are no
//! indexes, a sample of them that comes with the program is used ([`SAMPLE`]). Sizes, times and content ids
//! are made up from the path: sizes from 256 bytes to 4 GiB, times in five years, contents all different.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use overlay::{
    file::{FileEntry, Tags},
    id::ContentId,
};
use rustc_hash::FxHashMap;

/// Where apt keeps its indexes.
pub const LISTS: &str = "/var/lib/apt/lists";
/// 60,000 files of Debian 12, as `--write-sample` wrote them: `leaf` and its name, then its paths, each
/// without what it shares with the one before, whose length stands in front; zstd.
const SAMPLE: &[u8] = include_bytes!("../data/paths.zst");

/// File lists, one for each leaf.
#[derive(Debug)]
pub struct Packages {
    leaves: Vec<Leaf>,
    /// Where they come from, in words.
    pub origin: String,
}

/// The paths of one leaf, ascending.
#[derive(Clone, Debug)]
pub struct Leaf {
    name: String,
    text: String,
    ends: Vec<u32>,
}

impl Packages {
    /// The indexes in apt's lists folder; the sample if there are none, or if `sample`.
    pub fn load(lists: &Path, sample: bool) -> Result<Self> {
        let indexes = if sample { Vec::new() } else { indexes(lists) };
        if indexes.is_empty() {
            let leaves = read_sample()?;
            return Ok(Self { leaves, origin: "the sample that comes with the program".to_owned() });
        }
        let mut packages: FxHashMap<String, Vec<String>> = FxHashMap::default();
        for index in &indexes {
            read_index(index, &mut packages).with_context(|| format!("cannot read {}", index.display()))?;
        }
        let mut leaves: Vec<(u64, Leaf)> =
            packages.into_iter().map(|(name, paths)| (hash(name.as_bytes()), Leaf::new(name, paths))).collect();
        leaves.sort_unstable_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
        let leaves = leaves.into_iter().map(|(_, leaf)| leaf).collect();
        Ok(Self { leaves, origin: format!("{} indexes of {}", indexes.len(), lists.display()) })
    }

    /// All leaves in their order.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Takes out up to `count` leaves with about a thousand files, the last ones first, and returns them.
    pub fn hold_out(&mut self, count: usize) -> Vec<Leaf> {
        let fits = |leaf: &Leaf| (700..=1400).contains(&leaf.len());
        let chosen: Vec<usize> =
            (0..self.leaves.len()).rev().filter(|at| fits(&self.leaves[*at])).take(count).collect();
        chosen.into_iter().map(|at| self.leaves.remove(at)).collect()
    }

    /// Keeps the first leaves: as many as are needed for that many files.
    pub fn truncate(&mut self, files: usize) {
        let mut sum = 0;
        let enough = self.leaves.iter().position(|leaf| {
            sum += leaf.len();
            sum >= files
        });
        self.leaves.truncate(enough.map_or(usize::MAX, |last| last + 1));
    }

    /// Files of all leaves.
    pub fn files(&self) -> usize {
        self.leaves.iter().map(Leaf::len).sum()
    }

    /// The form of the sample.
    pub fn write_sample(&self) -> Result<Vec<u8>> {
        let mut text = String::new();
        for leaf in &self.leaves {
            text.push_str("leaf ");
            text.push_str(&leaf.name);
            text.push('\n');
            let mut previous = "";
            for path in leaf.paths() {
                let mut shared = previous.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
                while !path.is_char_boundary(shared) {
                    shared -= 1;
                }
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{shared} {}", &path[shared..]);
                previous = path;
            }
        }
        Ok(zstd::bulk::compress(text.as_bytes(), 19)?)
    }
}

impl Leaf {
    fn new(name: String, mut paths: Vec<String>) -> Self {
        paths.sort_unstable();
        paths.dedup();
        let mut leaf =
            Self { name, text: String::with_capacity(paths.iter().map(String::len).sum()), ends: Vec::new() };
        for path in &paths {
            leaf.text.push_str(path);
            leaf.ends.push(leaf.text.len() as u32);
        }
        leaf.ends.shrink_to_fit();
        leaf
    }

    /// The package.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Files of it.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True without files.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One path.
    pub fn path(&self, at: usize) -> &str {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.text[start..self.ends[at] as usize]
    }

    /// Its paths, ascending.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|at| self.path(at))
    }

    /// Its catalog, sorted by path.
    pub fn entries(&self) -> Vec<FileEntry> {
        self.paths().map(|path| entry(&self.name, path)).collect()
    }
}

fn entry(leaf: &str, path: &str) -> FileEntry {
    let mut hasher = blake3::Hasher::new();
    hasher.update(leaf.as_bytes()).update(b"/").update(path.as_bytes());
    let content: [u8; 32] = hasher.finalize().into();
    let random = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|at| content[at]));
    FileEntry {
        path: path.to_owned(),
        content: ContentId(content),
        size: (1 << (8 + random % 24)) | (random >> 32) & 0xff,
        modified_s: 1_600_000_000 + (random >> 8) as i64 % 150_000_000,
        tags: Tags::default(),
    }
}

/// A hash that is the same everywhere.
fn hash(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|at| hash.as_bytes()[at]))
}

/// The `Contents` indexes of packages, without those of sources and installers.
fn indexes(lists: &Path) -> Vec<PathBuf> {
    let Ok(folder) = lists.read_dir() else { return Vec::new() };
    let is_index = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.split_once("_Contents-").is_some_and(|(_, rest)| !rest.starts_with("source") && !rest.starts_with("udeb"))
    };
    let mut found: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).filter(is_index).collect();
    found.sort();
    found
}

/// Adds the lines of an index, `path   section/package,section/package`, whatever it is compressed with.
fn read_index(index: &Path, packages: &mut FxHashMap<String, Vec<String>>) -> Result<()> {
    let mut helper =
        Command::new("/usr/lib/apt/apt-helper").arg("cat-file").arg(index).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(helper.stdout.take().context("no output")?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        if let Some((path, owners)) = text.trim_end().rsplit_once(char::is_whitespace) {
            for owner in owners.split(',') {
                let name = owner.rsplit('/').next().unwrap_or(owner);
                match packages.get_mut(name) {
                    Some(paths) => paths.push(path.trim_end().to_owned()),
                    None => drop(packages.insert(name.to_owned(), vec![path.trim_end().to_owned()])),
                }
            }
        }
        line.clear();
    }
    ensure!(helper.wait()?.success(), "apt-helper failed");
    Ok(())
}

fn read_sample() -> Result<Vec<Leaf>> {
    let mut text = String::new();
    zstd::stream::read::Decoder::new(SAMPLE)?.read_to_string(&mut text)?;
    let mut leaves: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        let (head, rest) = line.split_once(' ').context("a malformed sample")?;
        if head == "leaf" {
            leaves.push((rest.to_owned(), Vec::new()));
            continue;
        }
        let (_, paths) = leaves.last_mut().context("a malformed sample")?;
        let shared = paths.last().and_then(|previous: &String| previous.get(..head.parse().ok()?));
        paths.push(format!("{}{rest}", shared.unwrap_or_default()));
    }
    Ok(leaves.into_iter().map(|(name, paths)| Leaf::new(name, paths)).collect())
}

/// Writes the sample's form of a corpus.
pub fn save_sample(corpus: &Packages, path: &Path) -> Result<()> {
    Ok(std::fs::write(path, corpus.write_sample()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_readable_and_sorted() {
        let mut corpus = Packages::load(Path::new("/nonexistent"), true).unwrap();
        assert!(corpus.leaves().len() > 100 && corpus.files() > 20_000);
        for leaf in corpus.leaves() {
            assert!(!leaf.is_empty() && leaf.paths().is_sorted_by(|a, b| a < b));
        }
        let held = corpus.hold_out(3);
        assert!(held.iter().all(|leaf| (700..=1400).contains(&leaf.entries().len())));
        corpus.truncate(10_000);
        assert!((10_000..20_000).contains(&corpus.files()));
        let again = corpus.write_sample().unwrap();
        assert!(!again.is_empty());
    }
}
