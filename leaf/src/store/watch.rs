//! Being told what changes in the shares, instead of looking.
//!
//! Events of the file system are gathered until 300 ms pass without one, or 2 s since the first: a copied folder
//! arrives as one batch. What cannot be gathered (the system's queue overflowed, too many paths) becomes
//! "look at everything". Where the system cannot watch, the periodic rescan still finds every change, and the share says
//! so: the system's watches are used up, or the share lies on a network drive, where others change files unseen and a
//! drive that does not answer would hold all watching.
//!
//! | module | system |
//! |---|---|
//! | `folders` | Linux: each folder is watched by itself, from when a walk enters it |
//! | `trees` | others: a folder is watched with all that lies below it |

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use overlay::limits;
use tokio::{sync::Notify, time};

#[cfg(target_os = "linux")]
use self::folders::System;
#[cfg(not(target_os = "linux"))]
use self::trees::System;

#[cfg(target_os = "linux")]
mod folders;
#[cfg(not(target_os = "linux"))]
mod trees;

/// Silence that ends a batch. Chosen: longer than the pauses of a running copy, shorter than a user's patience.
const QUIET: Duration = Duration::from_millis(300);
/// Time that a batch may gather while events keep coming.
const LONGEST: Duration = Duration::from_secs(2);
/// What helps where the system watches no more folders.
pub const LIMIT_HINT: &str = "on Linux, raise fs.inotify.max_user_watches";

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
    /// Something is not as it was at these paths, or below them.
    fn add_paths(&self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut changes = self.changes();
        paths.into_iter().for_each(|path| changes.add(path));
        self.arrived.notify_one();
    }

    /// Something is not as it was, wherever that is.
    fn add_everything(&self) {
        *self.changes() = Changes::Everything;
        self.arrived.notify_one();
    }

    /// Says once that the system has no more watches.
    fn tell_limit(&self) {
        if !self.limit_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the system watches no more folders: changes in some are found only by rescans; {LIMIT_HINT}"
            );
        }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        *self.changes() == Changes::None
    }

    fn take(&self) -> Changes {
        std::mem::take(&mut self.changes())
    }
}

/// Why the system watches a folder not.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    /// It watches as many as it is set to.
    Limit,
    /// What it says.
    Other(String),
}

/// How much of a share is watched. The worse is the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Coverage {
    /// Every folder.
    #[default]
    Whole,
    /// Nothing: a network drive, or a system that cannot watch.
    Nothing,
    /// Not every folder, because the system watches no more of them.
    Limited,
}

/// Watches folders.
#[derive(Debug)]
pub(super) struct Watch {
    system: Option<System>,
    gathered: Arc<Gathered>,
}

impl Watch {
    /// A watch of nothing yet. Without the system's help it stays silent.
    pub(super) fn new() -> Self {
        let gathered = Arc::new(Gathered::default());
        let system = System::start(gathered.clone());
        if let Err(error) = &system {
            tracing::warn!(%error, "changes in shares are found only by rescans");
        }
        Self { system: system.ok(), gathered }
    }

    /// What a walk of the share at `root` tells which folders it enters: they are watched from then on. Blocks for as
    /// long as the drive pleases.
    pub(super) fn follow(&self, root: &Path) -> Follower<'_> {
        let follower = Follower {
            system: self.system.as_ref().filter(|_| !is_remote(root)),
            gathered: &self.gathered,
            coverage: Mutex::default(),
        };
        match follower.system {
            Some(system) => follower.judge(system.begin(root)),
            None => follower.note(Coverage::Nothing),
        }
        follower
    }

    /// Watches a share no more, but for the shares that it lies in or that lie in it.
    pub(super) fn leave(&self, root: &Path, others: &[PathBuf]) {
        if let Some(system) = &self.system
            && !others.iter().any(|other| root.starts_with(other))
        {
            system.leave(root, others);
        }
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

/// The watch of one walk.
#[derive(Debug)]
pub(super) struct Follower<'a> {
    system: Option<&'a System>,
    gathered: &'a Gathered,
    coverage: Mutex<Coverage>,
}

impl Follower<'_> {
    /// Watches a folder. To be called before it is read: then nothing that comes into it is missed.
    pub(super) fn enter(&self, folder: &Path) {
        // Where the system refused once it refuses again.
        if let Some(system) = self.system.filter(|_| self.coverage() == Coverage::Whole) {
            self.judge(system.enter(folder));
        }
    }

    /// How much of what was entered is watched.
    pub(super) fn coverage(&self) -> Coverage {
        *self.coverage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, answer: Result<(), Refusal>) {
        match answer {
            Ok(()) => {}
            Err(Refusal::Limit) => {
                self.gathered.tell_limit();
                self.note(Coverage::Limited);
            }
            Err(Refusal::Other(error)) => {
                tracing::warn!(%error, "changes in a share are found only by rescans");
                self.note(Coverage::Nothing);
            }
        }
    }

    fn note(&self, coverage: Coverage) {
        *self.coverage.lock().unwrap_or_else(PoisonError::into_inner) = coverage;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_paths_and_lost_events_mean_everything() {
        let gathered = Gathered::default();
        gathered.add_paths(["a".into()]);
        gathered.add_paths(["a".into()]);
        assert_eq!(gathered.take(), Changes::Paths(BTreeSet::from(["a".into()])));
        assert_eq!(gathered.take(), Changes::None);
        (0..=limits::DIRTY_PATHS).for_each(|at| gathered.add_paths([at.to_string().into()]));
        assert_eq!(gathered.take(), Changes::Everything);
        gathered.add_everything();
        gathered.add_paths(["a".into()]);
        assert_eq!(gathered.take(), Changes::Everything);
    }

    #[tokio::test]
    async fn a_walk_that_meets_the_limit_is_not_watched_whole() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch::new();
        let follower = watch.follow(folder.path());
        follower.judge(Err(Refusal::Limit));
        std::fs::create_dir(folder.path().join("a")).unwrap();
        follower.enter(folder.path());
        assert_eq!(follower.coverage(), Coverage::Limited);
        std::fs::write(folder.path().join("b"), "x").unwrap();
        assert_eq!(watch.gathered.take(), Changes::None, "it does not ask for more");
        assert!(watch.gathered.limit_told.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn a_new_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        let watch = Watch::new();
        let follower = watch.follow(&root);
        follower.enter(&root);
        assert_eq!(follower.coverage(), Coverage::Whole);
        std::fs::write(root.join("new"), "x").unwrap();
        assert_eq!(watch.next().await, Changes::Paths(BTreeSet::from([root.join("new")])));
    }
}
