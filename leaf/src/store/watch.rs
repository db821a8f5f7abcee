//! Being told what changes in the shares, instead of looking.
//!
//! Events of the file system are gathered until 300 ms pass without one, or 2 s since the first: a copied folder
//! arrives as one batch. What cannot be gathered (the system's queue overflowed, too many paths) becomes
//! "look at everything". Where the system cannot watch, the periodic rescan still finds every change, and the log
//! says so: its watches are used up, or the share lies on a network drive, where others change files unseen and a drive
//! that does not answer would hold all watching.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use notify::{
    Error, ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use overlay::limits;
use tokio::{sync::Notify, time};

/// Silence that ends a batch. Chosen: longer than the pauses of a running copy, shorter than a user's patience.
const QUIET: Duration = Duration::from_millis(300);
/// Time that a batch may gather while events keep coming.
const LONGEST: Duration = Duration::from_secs(2);

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Changes {
    /// Nothing.
    #[default]
    None,
    /// These paths, or what lies below them.
    Paths(BTreeSet<PathBuf>),
    /// Anything.
    Everything,
}

impl Changes {
    fn add(&mut self, path: PathBuf) {
        match self {
            Self::None => *self = Self::Paths(BTreeSet::from([path])),
            Self::Paths(paths) => {
                paths.insert(path);
                if paths.len() > limits::DIRTY_PATHS {
                    *self = Self::Everything;
                }
            }
            Self::Everything => {}
        }
    }
}

#[derive(Debug, Default)]
struct Gathered {
    changes: Mutex<Changes>,
    arrived: Notify,
    limit_told: AtomicBool,
}

impl Gathered {
    fn add(&self, event: notify::Result<notify::Event>) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(event) if event.need_rescan() => *changes = Changes::Everything,
            // Reading changes nothing; the end of writing may be the last event of a new file.
            Ok(event)
                if event.kind.is_access() && event.kind != EventKind::Access(AccessKind::Close(AccessMode::Write)) =>
            {
                return;
            }
            Ok(event) => event.paths.into_iter().for_each(|path| changes.add(path)),
            // A new folder is not watched. That it came is told by an event of its own.
            Err(Error { kind: ErrorKind::MaxFilesWatch, .. }) => {
                drop(changes);
                return self.tell_limit();
            }
            Err(_) => *changes = Changes::Everything,
        }
        self.arrived.notify_one();
    }

    /// Says once that the system has no more watches.
    fn tell_limit(&self) {
        if !self.limit_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the system watches no more folders: changes in some are found only by rescans \
                 (on Linux, raise fs.inotify.max_user_watches)"
            );
        }
    }

    fn is_empty(&self) -> bool {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) == Changes::None
    }

    fn take(&self) -> Changes {
        std::mem::take(&mut self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Watches folders; each with all that lies below it.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    inner: Arc<Mutex<Option<RecommendedWatcher>>>,
    gathered: Arc<Gathered>,
}

impl Watch {
    /// A watch of nothing yet. Without the system's help it stays silent.
    pub(super) fn new() -> Self {
        let gathered = Arc::new(Gathered::default());
        let sink = gathered.clone();
        let config = notify::Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(move |event| sink.add(event), config);
        if let Err(error) = &watcher {
            tracing::warn!(%error, "changes in shares are found only by rescans");
        }
        Self { inner: Arc::new(Mutex::new(watcher.ok())), gathered }
    }

    /// Adds a folder. Blocks: a large one takes the system a while.
    pub(super) fn add(&self, folder: &Path) {
        if is_remote(folder) {
            let folder = folder.display();
            return tracing::info!(%folder, "on a network drive, changes are found only by rescans");
        }
        let Some(watcher) = &mut *self.watcher() else { return };
        match watcher.watch(folder, RecursiveMode::Recursive) {
            Ok(()) => {}
            Err(Error { kind: ErrorKind::MaxFilesWatch, .. }) => self.gathered.tell_limit(),
            Err(error) => tracing::warn!(%error, "changes in a share are found only by rescans"),
        }
    }

    /// Removes a folder. Blocks, as adding does.
    pub(super) fn remove(&self, folder: &Path) {
        if let Some(watcher) = &mut *self.watcher() {
            // It may be gone already.
            let _ = watcher.unwatch(folder);
        }
    }

    fn watcher(&self) -> MutexGuard<'_, Option<RecommendedWatcher>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next batch. May be dropped at any await without losing events.
    pub(super) async fn next(&self) -> Changes {
        loop {
            // What an abandoned wait had gathered is still there, but its notification is spent.
            if self.gathered.is_empty() {
                self.gathered.arrived.notified().await;
            }
            let last = time::Instant::now() + LONGEST;
            while time::Instant::now() < last {
                if time::timeout(QUIET, self.gathered.arrived.notified()).await.is_err() {
                    break;
                }
            }
            let changes = self.gathered.take();
            if changes != Changes::None {
                return changes;
            }
        }
    }
}

/// True for folders of another machine.
#[cfg(target_os = "linux")]
fn is_remote(folder: &Path) -> bool {
    /// From Linux' `magic.h`: NFS, SMB, CIFS, SMB 2, Ceph, AFS, Coda, 9P.
    const REMOTE: [u32; 8] =
        [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400, 0x5346_414f, 0x7375_7245, 0x0102_1997];
    rustix::fs::statfs(folder).is_ok_and(|about| REMOTE.contains(&(about.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn is_remote(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use notify::{Event, event::Flag};

    use super::*;

    #[test]
    fn too_many_paths_and_lost_events_mean_everything() {
        let gathered = Gathered::default();
        let modified = |path: &str| Ok(Event::new(EventKind::Any).add_path(path.into()));
        gathered.add(modified("a"));
        gathered.add(modified("a"));
        gathered.add(Ok(Event::new(EventKind::Access(AccessKind::Read)).add_path("b".into())));
        assert_eq!(gathered.take(), Changes::Paths(BTreeSet::from(["a".into()])));
        assert_eq!(gathered.take(), Changes::None);
        (0..=limits::DIRTY_PATHS).for_each(|at| gathered.add(modified(&at.to_string())));
        assert_eq!(gathered.take(), Changes::Everything);
        gathered.add(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        gathered.add(modified("a"));
        assert_eq!(gathered.take(), Changes::Everything);
        gathered.add(Err(Error::generic("lost")));
        assert_eq!(gathered.take(), Changes::Everything);
    }

    #[test]
    fn a_folder_that_cannot_be_watched_costs_no_look_at_everything() {
        let gathered = Gathered::default();
        gathered.add(Ok(Event::new(EventKind::Any).add_path("new".into())));
        gathered.add(Err(Error::new(ErrorKind::MaxFilesWatch)));
        assert_eq!(gathered.take(), Changes::Paths(BTreeSet::from(["new".into()])));
    }

    #[tokio::test]
    async fn a_new_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        let watch = Watch::new();
        watch.add(&root);
        std::fs::write(root.join("new"), "x").unwrap();
        assert_eq!(watch.next().await, Changes::Paths(BTreeSet::from([root.join("new")])));
    }
}
