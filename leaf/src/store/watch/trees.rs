//! Systems that watch a whole tree at once.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use notify::{
    Error, ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};

use super::{Gathered, Refusal};

/// The watched trees.
#[derive(Debug)]
pub(super) struct System {
    trees: Mutex<Trees>,
}

#[derive(Debug)]
struct Trees {
    watcher: RecommendedWatcher,
    roots: BTreeSet<PathBuf>,
}

impl System {
    /// Watches nothing yet.
    pub(super) fn start(gathered: Arc<Gathered>) -> notify::Result<Self> {
        let config = notify::Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(move |event| take(&gathered, event), config)?;
        Ok(Self { trees: Mutex::new(Trees { watcher, roots: BTreeSet::new() }) })
    }

    /// A walk of this folder begins: it is watched from now on, with all that lies below it.
    pub(super) fn begin(&self, root: &Path) -> Result<(), Refusal> {
        let mut trees = self.trees();
        if trees.roots.contains(root) {
            return Ok(());
        }
        trees.watcher.watch(root, RecursiveMode::Recursive).map_err(|error| match error.kind {
            ErrorKind::MaxFilesWatch => Refusal::Limit,
            _ => Refusal::Other(error.to_string()),
        })?;
        trees.roots.insert(root.to_owned());
        Ok(())
    }

    /// A walk enters a folder, which is watched already.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "Linux watches folder by folder")]
    pub(super) fn enter(&self, _folder: &Path) -> Result<(), Refusal> {
        Ok(())
    }

    /// Watches a tree no more.
    pub(super) fn leave(&self, root: &Path, _others: &[PathBuf]) {
        let mut trees = self.trees();
        if trees.roots.remove(root) {
            // It may be gone already.
            let _ = trees.watcher.unwatch(root);
        }
    }

    fn trees(&self) -> MutexGuard<'_, Trees> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(gathered: &Gathered, event: Result<Event, Error>) {
    match event {
        Ok(event) if event.need_rescan() => gathered.add_everything(),
        // Reading changes nothing; the end of writing may be the last event of a new file.
        Ok(event)
            if event.kind.is_access() && event.kind != EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        Ok(event) => gathered.add_paths(event.paths),
        // A new folder is not watched. That it came is told by an event of its own.
        Err(Error { kind: ErrorKind::MaxFilesWatch, .. }) => gathered.tell_limit(),
        Err(_) => gathered.add_everything(),
    }
}
