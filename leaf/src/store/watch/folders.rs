//! Linux: one watch for each folder, set by the walk as it enters the folder.
//!
//! The system watches folders one by one. Who wants to watch a tree must walk it, and the pass does that anyway: it
//! enters a folder here before it reads it, so what comes into the folder is either read or told. A new folder is
//! told by the one it lies in; the pass over it enters it. A folder that goes or moves takes the watches below it along.
//!
//! A folder that a link inside the share leads to has two paths and one watch: each event counts for both.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    ops::Bound,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use super::{Gathered, Refusal};
use rustc_hash::FxHashMap;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

/// Bytes of events read at once. Chosen: some 1,000 events with usual names.
const BUFFER_BYTES: usize = 64 << 10;
/// What is asked of each folder. Not that files are opened: hashing does that.
const EVENTS: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// The watched folders. Its thread ends with it.
#[derive(Debug)]
pub(super) struct System {
    watches: Arc<Watches>,
}

impl System {
    /// Watches nothing yet.
    pub(super) fn start(gathered: Arc<Gathered>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let end = eventfd(0, EventfdFlags::CLOEXEC)?;
        let watches = Arc::new(Watches { inotify, end, gathered, folders: Mutex::default() });
        let reading = watches.clone();
        thread::Builder::new().name("share watch".to_owned()).spawn(move || reading.read())?;
        Ok(Self { watches })
    }

    /// A walk of this folder begins.
    #[expect(clippy::unused_self, reason = "other systems watch the whole tree at once")]
    pub(super) fn begin(&self, _root: &Path) -> Result<(), Refusal> {
        Ok(())
    }

    /// Watches a folder that a walk enters.
    pub(super) fn enter(&self, folder: &Path) -> Result<(), Refusal> {
        self.watches.enter(folder)
    }

    /// Watches a folder, and what lies below it, no more, but for what lies at or below `others`.
    pub(super) fn leave(&self, folder: &Path, others: &[PathBuf]) {
        self.watches.leave(&mut self.watches.folders(), folder, others);
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Its counter is 0, which leaves room.
        let _ = rustix::io::write(&self.watches.end, &1u64.to_ne_bytes());
    }
}

#[derive(Debug)]
struct Watches {
    inotify: OwnedFd,
    /// Can be read once nobody wants to be told any more.
    end: OwnedFd,
    gathered: Arc<Gathered>,
    folders: Mutex<Folders>,
}

/// Which watch is for which folder.
#[derive(Debug, Default)]
struct Folders {
    paths: FxHashMap<i32, Vec<Arc<Path>>>,
    watches: BTreeMap<Arc<Path>, i32>,
    /// Rises when a watch goes: one that was set meanwhile may be the same.
    gone: u64,
}

impl Watches {
    fn folders(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, folder: &Path) -> Result<(), Refusal> {
        loop {
            let gone = self.folders().gone;
            // Without the lock: a drive may take as long as it pleases.
            let watch = match inotify::add_watch(&self.inotify, folder, EVENTS) {
                Ok(watch) => watch,
                // What cannot be read is not shared either, and what is gone needs no watch.
                Err(Errno::ACCESS | Errno::NOENT | Errno::NOTDIR) => return Ok(()),
                Err(Errno::NOSPC) => return Err(Refusal::Limit),
                Err(error) => return Err(Refusal::Other(error.to_string())),
            };
            let mut folders = self.folders();
            if folders.gone == gone {
                let before = folders.add(watch, folder);
                self.release(&mut folders, before);
                return Ok(());
            }
        }
    }

    fn leave(&self, folders: &mut Folders, folder: &Path, others: &[PathBuf]) {
        let from = (Bound::Included(folder), Bound::Unbounded);
        let below = folders.watches.range::<Path, _>(from).map(|(path, _)| path.clone());
        let below = below.take_while(|path| path.starts_with(folder));
        let leaving: Vec<_> = below.filter(|path| !others.iter().any(|other| path.starts_with(other))).collect();
        for path in leaving {
            let unused = folders.remove(&path);
            self.release(folders, unused);
        }
    }

    /// Gives a watch back that no path needs any more.
    fn release(&self, folders: &mut Folders, unused: Option<i32>) {
        if let Some(watch) = unused {
            folders.gone += 1;
            // The system has removed it already if the folder is gone.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
    }

    /// Takes events until the end.
    fn read(&self) {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => self.take(&event),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => {
                    let mut either = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.end, PollFlags::IN)];
                    // Interrupted, it is asked again.
                    let _ = poll(&mut either, None);
                    if !either[1].revents().is_empty() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "changes in shares are found only by rescans");
                    return self.gathered.add_everything();
                }
            }
        }
    }

    fn take(&self, event: &Event<'_>) {
        let kind = event.events();
        let mut folders = self.folders();
        if kind.contains(ReadFlags::QUEUE_OVERFLOW) {
            // Which folders moved is not known: the walks that follow enter all of them anew.
            self.leave(&mut folders, Path::new("/"), &[]);
            drop(folders);
            return self.gathered.add_everything();
        }
        let Some(of_watch) = folders.paths.get(&event.wd()) else { return };
        let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
        let paths: Vec<_> =
            of_watch.iter().map(|path| name.map_or_else(|| path.to_path_buf(), |name| path.join(name))).collect();
        let gone = kind.contains(ReadFlags::ISDIR) && kind.intersects(ReadFlags::MOVED_FROM | ReadFlags::DELETE);
        let ended = kind.intersects(ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED);
        for path in &paths {
            // Where the folder above is watched, that one tells of a move, and the new path may be entered already.
            let moved = kind.contains(ReadFlags::MOVE_SELF) && !folders.is_watched_from_above(path);
            if gone || ended || moved {
                self.leave(&mut folders, path, &[]);
            }
        }
        drop(folders);
        self.gathered.add_paths(paths);
    }
}

impl Folders {
    fn is_watched_from_above(&self, path: &Path) -> bool {
        path.parent().is_some_and(|above| self.watches.contains_key(above))
    }

    /// Notes which watch a path has. Returns the one that it had, if nothing needs it any more.
    fn add(&mut self, watch: i32, path: &Path) -> Option<i32> {
        if self.watches.get(path) == Some(&watch) {
            return None;
        }
        let unused = self.remove(path);
        let path: Arc<Path> = path.into();
        self.watches.insert(path.clone(), watch);
        self.paths.entry(watch).or_default().push(path);
        unused
    }

    /// Forgets a path. Returns its watch, if nothing needs it any more.
    fn remove(&mut self, path: &Path) -> Option<i32> {
        let watch = self.watches.remove(path)?;
        let paths = self.paths.get_mut(&watch)?;
        paths.retain(|other| **other != *path);
        if !paths.is_empty() {
            return None;
        }
        self.paths.remove(&watch);
        Some(watch)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::{super::Changes, *};

    struct Bed {
        folder: tempfile::TempDir,
        system: System,
        gathered: Arc<Gathered>,
    }

    impl Bed {
        fn new(folders: &[&str]) -> Self {
            let (folder, gathered) = (tempfile::tempdir().unwrap(), Arc::<Gathered>::default());
            let system = System::start(gathered.clone()).unwrap();
            let bed = Self { folder, system, gathered };
            for name in folders {
                fs::create_dir_all(bed.at(name)).unwrap();
                bed.enter(name);
            }
            bed
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn enter(&self, name: &str) {
            self.system.enter(&self.at(name)).unwrap();
        }

        fn watched(&self) -> Vec<PathBuf> {
            let folders = self.system.watches.folders();
            let paths: usize = folders.paths.values().map(Vec::len).sum();
            assert_eq!(paths, folders.watches.len());
            folders.watches.keys().map(|path| path.strip_prefix(self.folder.path()).unwrap().to_owned()).collect()
        }

        /// Waits until all these paths were told, whatever else was.
        async fn told(&self, wanted: &[&str]) {
            let mut missing: BTreeSet<_> = wanted.iter().map(|name| self.at(name)).collect();
            while !missing.is_empty() {
                self.gathered.arrived.notified().await;
                let Changes::Paths(told) = self.gathered.take() else { continue };
                missing.retain(|path| !told.contains(path));
            }
        }
    }

    #[tokio::test]
    async fn what_comes_changes_and_goes_is_told() {
        let bed = Bed::new(&["a"]);
        fs::write(bed.at("a/file"), "1").unwrap();
        bed.told(&["a/file"]).await;
        fs::create_dir(bed.at("a/new")).unwrap();
        bed.told(&["a/new"]).await;
        fs::remove_file(bed.at("a/file")).unwrap();
        bed.told(&["a/file"]).await;
        // Opening tells nothing, so what follows is all that is told.
        drop(fs::read_dir(bed.at("a")).unwrap());
        fs::write(bed.at("a/last"), "1").unwrap();
        bed.told(&["a/last"]).await;
        assert_eq!(bed.watched(), [Path::new("a")]);
    }

    #[tokio::test]
    async fn a_moved_folder_is_told_at_both_places_and_watched_where_it_is_entered() {
        let bed = Bed::new(&["a", "a/b", "a/b/c", "d"]);
        fs::rename(bed.at("a/b"), bed.at("d/b")).unwrap();
        bed.told(&["a/b", "d/b"]).await;
        assert_eq!(bed.watched(), [Path::new("a"), Path::new("d")]);
        bed.enter("d/b");
        bed.enter("d/b/c");
        fs::write(bed.at("d/b/c/file"), "1").unwrap();
        bed.told(&["d/b/c/file"]).await;
    }

    #[tokio::test]
    async fn a_moved_folder_that_was_entered_before_its_move_was_told_stays_watched() {
        let bed = Bed::new(&["a", "a/b", "d"]);
        fs::rename(bed.at("a/b"), bed.at("d/b")).unwrap();
        bed.enter("d/b");
        bed.told(&["a/b", "d/b"]).await;
        fs::write(bed.at("d/b/file"), "1").unwrap();
        bed.told(&["d/b/file"]).await;
        assert_eq!(bed.watched(), [Path::new("a"), Path::new("d"), Path::new("d/b")]);
    }

    #[tokio::test]
    async fn a_folder_with_two_paths_is_told_by_both() {
        let bed = Bed::new(&["a", "b"]);
        std::os::unix::fs::symlink(bed.at("a"), bed.at("b/link")).unwrap();
        bed.enter("b/link");
        fs::write(bed.at("a/file"), "1").unwrap();
        bed.told(&["a/file", "b/link/file"]).await;
        bed.system.leave(&bed.at("b"), &[]);
        fs::write(bed.at("a/other"), "1").unwrap();
        bed.told(&["a/other"]).await;
    }

    #[tokio::test]
    async fn a_share_inside_another_stays_watched() {
        let bed = Bed::new(&["a", "a/b", "a/b/c", "a b"]);
        bed.system.leave(&bed.at("a"), &[bed.at("a/b")]);
        assert_eq!(bed.watched(), [Path::new("a/b"), Path::new("a/b/c"), Path::new("a b")]);
        bed.system.leave(&bed.at("a/b"), &[]);
        assert_eq!(bed.watched(), [Path::new("a b")]);
    }

    #[tokio::test]
    async fn a_root_that_goes_is_told_and_forgotten() {
        let bed = Bed::new(&["a", "a/b", "c"]);
        fs::rename(bed.at("a"), bed.at("elsewhere")).unwrap();
        bed.told(&["a"]).await;
        fs::remove_dir_all(bed.at("c")).unwrap();
        bed.told(&["c"]).await;
        assert_eq!(bed.watched(), Vec::<PathBuf>::new());
    }
}
