//! Walking a share: which files count, and why others do not.
//!
//! Shared are regular, non-empty files that are not hidden, below folders that are not hidden, unless a
//! pattern excludes them: those of the configuration, and those of `.quictrackignore` files, nearest folder
//! first, in gitignore syntax. A symbolic link counts as what it leads to, if that lies in the same share and is
//! not hidden there; a linked folder is entered once, and never from inside itself.
//!
//! The walk holds one slab of names per level, so its memory does not grow with the share.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, ReadDir},
    io,
    path::{Path, PathBuf},
    vec,
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use overlay::limits;
use rustc_hash::FxHashSet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{path, record::Stamp, watch::Follower};

/// Name of the files that hold a folder's own patterns.
const IGNORE_FILE: &str = ".quictrackignore";

/// Why a file is not shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SkipReason {
    /// It cannot be opened or read.
    Unreadable,
    /// It was written while it was hashed; it is tried again.
    Changed,
    /// A link that leads out of the share, nowhere, to something hidden, or in a circle.
    Symlink,
    /// It has no bytes.
    Empty,
    /// A pattern excludes it, or the whole folder.
    Excluded,
    /// Its path is too long, or shows like that of another file.
    Name,
}

/// A file to be shared.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Below the root, as the file system spells it.
    pub(super) below: PathBuf,
    /// Its version.
    pub(super) stamp: Stamp,
}

/// A step of a walk.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A file that counts.
    File(Found),
    /// Something that does not: its path below the root, and why.
    Skipped(PathBuf, SkipReason),
}

/// The patterns of the configuration, as they apply below a root. Unreadable patterns are left out and
/// returned.
pub(super) fn exclude(root: &Path, patterns: &[String]) -> (Gitignore, Vec<String>) {
    let mut builder = GitignoreBuilder::new(root);
    let mut bad = Vec::new();
    for pattern in patterns {
        if let Err(error) = builder.add_line(None, pattern) {
            bad.push(error.to_string());
        }
    }
    (builder.build().unwrap_or_else(|_| Gitignore::empty()), bad)
}

/// A walk below one root.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    root: &'a Path,
    /// The name that stands in front of every path on show.
    share: &'a str,
    exclude: &'a Gitignore,
    /// Is told of each folder before it is read.
    follower: Option<&'a Follower<'a>>,
    stack: Vec<Folder>,
    /// Components that lead to the part that is walked; empty once it is reached.
    descent: VecDeque<OsString>,
    /// Targets of links to folders that were entered.
    followed: FxHashSet<PathBuf>,
    /// Shown paths of names that are no UTF-8: only these can show alike.
    repaired: FxHashSet<String>,
    /// Folders below which nothing is known, because they could not be read.
    unknown: Vec<PathBuf>,
}

#[derive(Debug)]
struct Folder {
    below: PathBuf,
    patterns: Option<Gitignore>,
    names: vec::IntoIter<OsString>,
    /// What did not fit into the slab.
    rest: Option<ReadDir>,
}

impl<'a> Walk<'a> {
    /// A walk of the file or folder at `below`; the empty path is the whole share. `root` must be free of
    /// links. Fails if the root cannot be read.
    pub(super) fn new(
        root: &'a Path,
        share: &'a str,
        exclude: &'a Gitignore,
        follower: Option<&'a Follower<'a>>,
        below: &Path,
    ) -> io::Result<Self> {
        let mut walk = Self {
            root,
            share,
            exclude,
            follower,
            stack: Vec::new(),
            descent: below.components().map(|part| part.as_os_str().to_owned()).collect(),
            followed: FxHashSet::default(),
            repaired: FxHashSet::default(),
            unknown: Vec::new(),
        };
        let folder = walk.open(PathBuf::new())?;
        walk.stack.push(folder);
        Ok(walk)
    }

    /// Folders below which nothing is known, because they could not be read.
    pub(super) fn unknown(&self) -> &[PathBuf] {
        &self.unknown
    }

    fn open(&mut self, below: PathBuf) -> io::Result<Folder> {
        let path = self.root.join(&below);
        if let Some(follower) = self.follower {
            follower.enter(&path);
        }
        let mut rest = Some(fs::read_dir(&path)?);
        let names = match self.descent.pop_front() {
            Some(only) => {
                rest = None;
                vec![only]
            }
            None => slab(&mut rest),
        };
        Ok(Folder { patterns: own_patterns(&path), below, names: names.into_iter(), rest })
    }

    /// Judges one name of the folder on top.
    fn judge(&mut self, folder: &Path, name: OsString) -> Option<Step> {
        if is_hidden(&name) {
            return None;
        }
        let below = folder.join(name);
        let path = self.root.join(&below);
        let skipped = |reason| Some(Step::Skipped(below.clone(), reason));
        let mut metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => return skipped(SkipReason::Unreadable),
        };
        if metadata.is_symlink() {
            match self.target(&path) {
                Some(target) => metadata = target,
                None => return skipped(SkipReason::Symlink),
            }
        }
        if !metadata.is_dir() && !metadata.is_file() {
            return None;
        }
        if self.is_excluded(&path, metadata.is_dir()) {
            return skipped(SkipReason::Excluded);
        }
        let shown = format!("{}/{}", self.share, path::shown(&below));
        if shown.len() > limits::PATH_BYTES {
            return skipped(SkipReason::Name);
        }
        if metadata.is_dir() {
            return match self.open(below.clone()) {
                Ok(folder) => {
                    self.stack.push(folder);
                    None
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(_) => {
                    self.unknown.push(below.clone());
                    skipped(SkipReason::Unreadable)
                }
            };
        }
        if metadata.len() == 0 {
            return skipped(SkipReason::Empty);
        }
        if shown.contains('\u{fffd}') && !self.repaired.insert(shown) {
            return skipped(SkipReason::Name);
        }
        Some(Step::File(Found { stamp: Stamp::of(&metadata), below }))
    }

    /// What a link leads to, if it may count.
    fn target(&mut self, link: &Path) -> Option<fs::Metadata> {
        let target = fs::canonicalize(link).ok()?;
        let inside = target.strip_prefix(self.root).ok()?;
        if inside.components().any(|part| is_hidden(part.as_os_str())) {
            return None;
        }
        let metadata = fs::metadata(&target).ok()?;
        if metadata.is_dir() {
            let from = fs::canonicalize(link.parent()?).ok()?;
            if from.starts_with(&target) || !self.followed.insert(target) {
                return None;
            }
        }
        Some(metadata)
    }

    /// The nearest folder's patterns decide; those of the configuration last.
    fn is_excluded(&self, path: &Path, is_folder: bool) -> bool {
        let nearest_first = self.stack.iter().rev().filter_map(|folder| folder.patterns.as_ref());
        for patterns in nearest_first.chain([self.exclude]) {
            match patterns.matched(path, is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            let folder = self.stack.last_mut()?;
            let Some(name) = folder.names.next() else {
                let more = slab(&mut folder.rest);
                if more.is_empty() {
                    self.stack.pop();
                } else {
                    folder.names = more.into_iter();
                }
                continue;
            };
            let below = folder.below.clone();
            if let Some(step) = self.judge(&below, name) {
                return Some(step);
            }
        }
    }
}

/// The next names of a folder, sorted; the folder is closed as soon as all are read.
fn slab(rest: &mut Option<ReadDir>) -> Vec<OsString> {
    let Some(entries) = rest else { return Vec::new() };
    // An entry that cannot be read is not there: the next scan asks again.
    let mut names: Vec<_> = entries.take(limits::WALK_NAMES).flatten().map(|entry| entry.file_name()).collect();
    if names.len() < limits::WALK_NAMES {
        *rest = None;
    }
    names.sort_unstable();
    names
}

fn own_patterns(folder: &Path) -> Option<Gitignore> {
    let file = folder.join(IGNORE_FILE);
    // One that is no plain file could block the walk for ever.
    if !fs::metadata(&file).is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    let mut builder = GitignoreBuilder::new(folder);
    // Lines that are no patterns are left out, as git does.
    let _ = builder.add(file);
    builder.build().ok().filter(|patterns| !patterns.is_empty())
}

/// True if something with this name changes what is shared around it.
pub(super) fn is_ignore_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == IGNORE_FILE)
}

/// True for names that start with a dot.
pub(super) fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Share {
        folder: tempfile::TempDir,
        exclude: Vec<String>,
    }

    impl Share {
        fn new(files: &[&str]) -> Self {
            let share = Self { folder: tempfile::tempdir().unwrap(), exclude: Vec::new() };
            for file in files {
                share.write(file, "x");
            }
            share
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn walk(&self, below: &str) -> (Vec<String>, Vec<(String, SkipReason)>) {
            let root = fs::canonicalize(self.folder.path()).unwrap();
            let (exclude, bad) = exclude(&root, &self.exclude);
            assert_eq!(bad, Vec::<String>::new());
            let (mut files, mut skipped) = (Vec::new(), Vec::new());
            for step in Walk::new(&root, "share", &exclude, None, Path::new(below)).unwrap() {
                match step {
                    Step::File(found) => files.push(path::shown(&found.below)),
                    Step::Skipped(below, reason) => skipped.push((path::shown(&below), reason)),
                }
            }
            (files, skipped)
        }
    }

    #[test]
    fn hidden_and_empty_files_do_not_count() {
        let share = Share::new(&["b", "a/c", ".hidden", ".folder/x", "a/.y"]);
        share.write("empty", "");
        assert_eq!(share.walk(""), (vec!["a/c".into(), "b".into()], vec![("empty".into(), SkipReason::Empty)]));
    }

    #[test]
    fn patterns_exclude_and_nearer_ones_win() {
        let mut share = Share::new(&["a.part", "keep/a.part", "b.tmp", "c", "build/x", "d/build", "d/e.log", "f.log"]);
        share.exclude = vec!["*.part".into(), "*.tmp".into(), "build/".into()];
        share.write("keep/.quictrackignore", "!*.part\n");
        share.write(".quictrackignore", "*.log\n");
        share.write(".gitignore", "c\n");
        share.write("d/.quictrackignore", "!e.log\n");
        let (files, skipped) = share.walk("");
        assert_eq!(files, ["c", "d/build", "d/e.log", "keep/a.part"]);
        let excluded = ["a.part", "b.tmp", "build", "f.log"].map(|path| (path.to_owned(), SkipReason::Excluded));
        assert_eq!(skipped, excluded);
    }

    #[test]
    fn a_part_is_walked_by_the_rules_of_the_whole() {
        let share = Share::new(&["a/b/c", "a/b/d", "a/e", "x/.y/z"]);
        share.write("a/.quictrackignore", "d\n");
        assert_eq!(share.walk("a/b").0, ["a/b/c"]);
        assert_eq!(share.walk("a/b/c").0, ["a/b/c"]);
        assert_eq!(share.walk("a/b/d").0, [""; 0]);
        assert_eq!(share.walk("a/e").0, ["a/e"]);
        assert_eq!(share.walk("a/none").0, [""; 0]);
        assert_eq!(share.walk("x/.y/z").0, [""; 0]);
    }

    #[cfg(unix)]
    #[test]
    fn links_count_only_inside_the_share() {
        use std::os::unix::fs::symlink;
        let share = Share::new(&["a/real", "b/.secret/x"]);
        let outside = Share::new(&["theirs"]);
        let at = |name: &str| share.folder.path().join(name);
        symlink(at("a/real"), at("inside")).unwrap();
        symlink("../a", at("b/folder")).unwrap();
        symlink(outside.folder.path().join("theirs"), at("outside")).unwrap();
        symlink(outside.folder.path(), at("outside folder")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        symlink(at("b/.secret/x"), at("secret")).unwrap();
        symlink("..", at("a/up")).unwrap();
        symlink("folder", at("b/again")).unwrap();
        let (files, skipped) = share.walk("");
        assert_eq!(files, ["a/real", "b/again/real", "inside"]);
        let links = ["a/up", "b/again/up", "b/folder", "dangling", "outside", "outside folder", "secret"];
        assert_eq!(skipped, links.map(|path| (path.to_owned(), SkipReason::Symlink)));
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_utf8_show_repaired_and_once() {
        use std::os::unix::ffi::OsStringExt;
        let share = Share::new(&[]);
        for name in [b"a\xff".to_vec(), b"a\xfe".to_vec(), b"b\xff".to_vec()] {
            fs::write(share.folder.path().join(OsString::from_vec(name)), "x").unwrap();
        }
        let (files, skipped) = share.walk("");
        assert_eq!(files, ["a\u{fffd}", "b\u{fffd}"]);
        assert_eq!(skipped, [("a\u{fffd}".into(), SkipReason::Name)]);
    }

    #[cfg(unix)]
    #[test]
    fn sockets_and_pipes_are_passed_over() {
        let share = Share::new(&["a"]);
        let _socket = std::os::unix::net::UnixListener::bind(share.folder.path().join("socket")).unwrap();
        assert_eq!(share.walk(""), (vec!["a".into()], vec![]));
    }
}
