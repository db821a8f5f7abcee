//! What the shares' task and its readers share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use overlay::{
    config::Origin,
    file::{FileEntry, unlisted_path},
    id::ContentId,
    limits,
    verify::{self, LARGE_FILE_BYTES, Value},
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    task,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Served, Share, ShareState, run::Lanes};
use crate::{
    beneath::open_through_links,
    catalog::{Catalog, Change},
    file_io::read_at,
    store::{
        Database, Outboards, SkipReason, StoreError, hash,
        pass::{Pass, PassRoot, Progress, Report},
        path,
        record::{Place, Record, Stamp},
        tags,
        watch::{Coverage, Watch},
    },
    transfer::{Finished, SmallFile},
};

/// The root of finished downloads, wherever they were put: paths below it are absolute. Roots of shares count from 0.
pub(super) const DOWNLOADS: u32 = u32::MAX;

/// Something below a root: its id and the path.
pub(super) type Below = (u32, PathBuf);

/// Behind every handle. Locks are held for moments only, and never over an await.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) database: Arc<Database>,
    pub(super) outboards: Outboards,
    pub(super) catalog: ArcSwap<Catalog>,
    /// Ahead of the published one.
    pub(super) working: Mutex<Catalog>,
    pub(super) changed: Notify,
    /// Held by whoever brings the unlisted files in line with the records, so that the last one sees all.
    pub(super) downloads: Mutex<()>,
    pub(super) states: Mutex<BTreeMap<u32, State>>,
    pub(super) watch: Watch,
    pub(super) lanes: Lanes,
    /// Limits how many contents are read at a time only for their piece values.
    pub(super) readers: Semaphore,
    pub(super) published: watch::Sender<u64>,
    pub(super) activity: watch::Sender<()>,
}

/// A share whose folder cannot be listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    pub(super) since: Instant,
    /// Its files are not in the catalog any more.
    pub(super) withdrawn: bool,
}

/// One folder on record.
#[derive(Debug)]
pub(super) struct State {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// The path without links, once it was seen.
    pub(super) real: Option<PathBuf>,
    pub(super) device: Option<u64>,
    /// `None` for the download folder when it is not a share.
    pub(super) origin: Option<Origin>,
    pub(super) missing: Option<Missing>,
    /// Its pass stands still.
    pub(super) stuck: bool,
    /// What is to be looked at; the empty path is everything.
    pub(super) dirty: BTreeSet<PathBuf>,
    pub(super) running: bool,
    pub(super) progress: Arc<Progress>,
    pub(super) rate: u64,
    pub(super) measured: u64,
    pub(super) skipped: BTreeMap<PathBuf, SkipReason>,
    pub(super) more_skipped: u64,
    /// How much of it is watched.
    pub(super) coverage: Coverage,
}

impl State {
    pub(super) fn mark(&mut self, below: PathBuf) {
        self.dirty.insert(below);
        if self.dirty.len() > limits::DIRTY_PATHS {
            self.dirty = BTreeSet::from([PathBuf::new()]);
        }
    }

    /// Takes what is to be looked at, without paths below others.
    pub(super) fn take_dirty(&mut self) -> Vec<PathBuf> {
        let mut parts: Vec<PathBuf> = Vec::new();
        // A path is sorted after all it lies below, and nothing else comes between.
        for path in std::mem::take(&mut self.dirty) {
            if !parts.last().is_some_and(|part| path.starts_with(part)) {
                parts.push(path);
            }
        }
        parts
    }

    pub(super) fn is_share_named(&self, name: &str) -> bool {
        self.origin.is_some() && self.name == name
    }

    pub(super) fn is_busy(&self) -> bool {
        self.running || !self.dirty.is_empty()
    }

    pub(super) fn shown(&self) -> ShareState {
        match (self.missing.is_some(), self.is_busy()) {
            (true, _) => ShareState::Missing,
            (_, false) => ShareState::Watching,
            _ if self.progress.is_hashing() => ShareState::Hashing,
            _ => ShareState::Scanning,
        }
    }

    /// All but [`Share::count`].
    pub(super) fn share(&self) -> Share {
        let (pending_files, pending_bytes) = self.progress.pending();
        Share {
            name: self.name.clone(),
            path: self.path.to_string_lossy().into_owned(),
            state: self.shown(),
            origin: self.origin.unwrap_or(Origin::Default),
            files: 0,
            bytes: 0,
            pending_files,
            pending_bytes,
            rate: self.rate,
            skipped: self.skipped.len() as u64 + self.more_skipped,
            watching: self.coverage == Coverage::Whole,
        }
    }

    pub(super) fn take_report(&mut self, parts: &[PathBuf], report: Report) {
        self.skipped.retain(|path, _| !parts.iter().any(|part| path.starts_with(part)));
        let is_whole = parts.iter().any(|part| part.as_os_str().is_empty());
        if is_whole {
            self.more_skipped = 0;
        }
        self.coverage =
            if is_whole && !report.cancelled { report.coverage } else { self.coverage.max(report.coverage) };
        self.more_skipped += report.more_skipped;
        for (below, reason) in report.skipped {
            if self.skipped.len() < limits::SKIPPED_LISTED {
                self.skipped.insert(below, reason);
            } else {
                self.more_skipped += 1;
            }
        }
    }
}

impl Shared {
    pub(super) fn states(&self) -> MutexGuard<'_, BTreeMap<u32, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn working(&self) -> MutexGuard<'_, Catalog> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn apply(&self, changes: Vec<Change>) {
        if self.working().apply(changes) {
            self.changed.notify_one();
        }
    }

    /// Tells whoever follows that something of the shares has changed.
    pub(super) fn tell(&self) {
        self.activity.send_replace(());
    }

    /// Takes the files of a missing share out of the catalog. Their records stay.
    pub(super) fn withdraw(&self, state: &mut State) {
        if let Some(missing) = &mut state.missing
            && !std::mem::replace(&mut missing.withdrawn, true)
        {
            tracing::warn!(share = state.name, "a share is missing; its files are withdrawn until it is back");
            self.apply(vec![Change::RemoveFolder(state.name.clone())]);
        }
    }

    /// Forgets all records of a root, and the root, unless it is looked after again.
    pub(super) fn drop_records(&self, root: &PassRoot) -> Result<(), StoreError> {
        if self.states().contains_key(&root.id) {
            return Ok(());
        }
        let (progress, cancel) = (Progress::default(), CancellationToken::new());
        self.pass(root, 1, &progress, &cancel, &|_| {}).remove_where(&[], |_, _| true)?;
        if !self.states().contains_key(&root.id) {
            self.database.remove_root(&path::to_bytes(&root.path))?;
        }
        Ok(())
    }

    pub(super) fn is_busy(&self, share: Option<&str>) -> bool {
        // In this order: a pass applies its last change before it ends.
        let is_chosen = |state: &&State| share.is_none_or(|name| state.name == name);
        let works = self.states().values().filter(is_chosen).any(State::is_busy);
        works || self.working().sequence() != self.catalog.load().sequence()
    }

    pub(super) fn list(&self) -> Vec<Share> {
        // In this order: a pass applies its last change before it ends, so nothing of a share that is seen idle
        // is missing from a list that is all published.
        let mut list: Vec<_> =
            self.states().values().filter(|state| state.origin.is_some()).map(State::share).collect();
        let catalog = self.catalog.load();
        let published = self.working().sequence() == catalog.sequence();
        for share in &mut list {
            share.count(&catalog);
            if !published && share.state == ShareState::Watching {
                share.state = ShareState::Hashing;
            }
        }
        list.sort_by(|one, other| one.name.cmp(&other.name));
        list
    }

    /// The files on record with a content: below folders that are shared now, and finished downloads.
    pub(super) fn located(&self, content: ContentId) -> Result<Vec<(Place, PathBuf, Record)>, StoreError> {
        let mut located = Vec::new();
        for place in self.database.places(&content, limits::PLACES_TRIED)? {
            let Some(record) = self.database.record(&place)? else { continue };
            let below = path::from_bytes(&place.below);
            let root = self.states().get(&place.root).map(|state| state.path.clone());
            let path = if place.root == DOWNLOADS { Some(below) } else { root.map(|root| root.join(below)) };
            if let Some(path) = path {
                located.push((place, path, record));
            }
        }
        Ok(located)
    }

    /// Opens a file on record: never what lies outside of its share, wherever links lead by now.
    fn open_located(&self, place: &Place, path: &Path) -> std::io::Result<File> {
        let root = self.states().get(&place.root).map(|state| state.path.clone());
        // A finished download lies in no folder but its own.
        let root = root.as_deref().or_else(|| path.parent()).unwrap_or(path);
        open_through_links(root, path.strip_prefix(root).unwrap_or(path))
    }

    pub(super) fn open(&self, content: ContentId) -> Result<(Option<Served>, Vec<Below>), StoreError> {
        let (mut stale, mut gone) = (Vec::new(), Vec::new());
        let served = self.open_noting(content, &mut stale, &mut gone)?;
        if !gone.is_empty() {
            self.forget_downloads(&gone)?;
        }
        Ok((served, stale))
    }

    /// Which contents can be opened.
    pub(super) fn knows(&self, contents: &[ContentId]) -> Result<(Vec<bool>, Vec<Below>), StoreError> {
        let (mut known, mut stale, mut gone) = (Vec::with_capacity(contents.len()), Vec::new(), Vec::new());
        for content in contents {
            known.push(self.open_noting(*content, &mut stale, &mut gone)?.is_some());
        }
        if !gone.is_empty() {
            self.forget_downloads(&gone)?;
        }
        Ok((known, stale))
    }

    /// Opens a content that is as it was hashed, and notes what is not: what must be looked at, and downloads that are gone.
    fn open_noting(
        &self,
        content: ContentId,
        stale: &mut Vec<Below>,
        gone: &mut Vec<Vec<u8>>,
    ) -> Result<Option<Served>, StoreError> {
        for (place, path, record) in self.located(content)? {
            let file = self.open_located(&place, &path).ok();
            let fresh = file.filter(|file| file.metadata().is_ok_and(|now| Stamp::of(&now) == record.stamp));
            if let Some(file) = fresh {
                return Ok(Some(Served { file, path, size: record.stamp.size }));
            }
            if place.root == DOWNLOADS && is_gone(&path, &record.stamp) {
                gone.push(place.below);
            } else {
                stale.push((place.root, path::from_bytes(&place.below)));
            }
        }
        Ok(None)
    }

    /// Makes the unlisted files those finished downloads that lie in no share, and forgets what was removed or changed
    /// since. Blocks for as long as looking at each takes.
    pub(super) fn settle_downloads(&self) -> Result<(), StoreError> {
        self.prune_downloads()?;
        let _turn = self.downloads_turn();
        let folders = self.share_folders();
        let mut unlisted = BTreeMap::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.database.paths_below(DOWNLOADS, &[], after.as_deref(), limits::CHUNK_FILES, |_, _| true)?;
            for below in page.0 {
                let path = path::from_bytes(&below);
                if folders.iter().any(|folder| path.starts_with(folder)) {
                    continue;
                }
                if let Some(record) = self.database.record(&Place { root: DOWNLOADS, below })? {
                    let file = FileEntry::unlisted(record.content, record.stamp.size);
                    unlisted.insert(file.path.clone(), file);
                }
            }
            after = page.1;
            if after.is_none() || unlisted.len() as u64 >= limits::FILES_PER_LEAF {
                break;
            }
        }
        let known: Vec<_> = self.working().unlisted().map(|file| file.path).collect();
        let gone = known.into_iter().filter(|path| !unlisted.contains_key(path)).map(Change::Remove).collect();
        self.apply(gone);
        self.apply(unlisted.into_values().map(Change::Upsert).collect());
        Ok(())
    }

    fn downloads_turn(&self) -> MutexGuard<'_, ()> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folders that are shared.
    fn share_folders(&self) -> Vec<PathBuf> {
        self.states().values().filter(|state| state.origin.is_some()).map(|state| state.path.clone()).collect()
    }

    fn prune_downloads(&self) -> Result<(), StoreError> {
        let gone = |below: &[u8], record: &Record| is_gone(&path::from_bytes(below), &record.stamp);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let limit = limits::CHUNK_FILES;
            let (gone, next) = self.database.paths_below(DOWNLOADS, &[], after.as_deref(), limit, gone)?;
            if !gone.is_empty() {
                self.forget_downloads(&gone)?;
            }
            let Some(next) = next else { return Ok(()) };
            after = Some(next);
        }
    }

    fn forget_downloads(&self, files: &[Vec<u8>]) -> Result<(), StoreError> {
        let orphans = self.database.update_files(DOWNLOADS, &[], files)?;
        self.apply(orphans.iter().map(|orphan| Change::Remove(unlisted_path(orphan))).collect());
        for orphan in orphans {
            self.outboards.remove(orphan)?;
        }
        Ok(())
    }

    pub(super) fn pieces(&self, content: ContentId, size: u64) -> Result<(Option<Vec<Value>>, Vec<Below>), StoreError> {
        let located = self.located(content)?;
        if located.first().is_none_or(|(_, _, record)| record.stamp.size != size) {
            return Ok((None, Vec::new()));
        }
        if let Some(pieces) = self.outboards.load(content, size)? {
            return Ok((Some(pieces), Vec::new()));
        }
        let mut stale = Vec::new();
        if size < LARGE_FILE_BYTES {
            for (place, path, record) in located {
                let fresh = |file: &File| file.metadata().is_ok_and(|now| Stamp::of(&now) == record.stamp);
                let read = |file: File| hash::pieces_of(&file, size).ok().filter(|_| fresh(&file));
                let pieces = self.open_located(&place, &path).ok().filter(fresh).and_then(read);
                let fits = |pieces: &Vec<Value>| verify::content_of_pieces(size, pieces) == Ok(content);
                if let Some(pieces) = &pieces
                    && !fits(pieces)
                {
                    // The disk gives other bytes than it did, or somebody hid a change: it must be hashed again.
                    self.forget_damaged(&place)?;
                } else if pieces.is_some() {
                    return Ok((pieces, stale));
                }
                stale.push((place.root, path::from_bytes(&place.below)));
            }
            return Ok((None, stale));
        }
        stale.extend(self.damaged(content)?);
        Ok((None, stale))
    }

    /// Forgets all files with a content: without their records they are found as new, and hashed.
    pub(super) fn damaged(&self, content: ContentId) -> Result<Vec<Below>, StoreError> {
        let mut stale = Vec::new();
        self.outboards.remove(content)?;
        for (place, _, _) in self.located(content)? {
            self.forget_damaged(&place)?;
            stale.push((place.root, path::from_bytes(&place.below)));
        }
        Ok(stale)
    }

    /// Forgets a file that is not what its record says: in a share it is found as new, and hashed.
    fn forget_damaged(&self, place: &Place) -> Result<(), StoreError> {
        let files = std::slice::from_ref(&place.below);
        if place.root == DOWNLOADS {
            return self.forget_downloads(files);
        }
        self.database.update_files(place.root, &[], files)?;
        Ok(())
    }

    /// Reads small files, all at once.
    pub(super) fn small_files(
        &self,
        contents: &[ContentId],
    ) -> Result<(Vec<Option<SmallFile>>, Vec<Below>), StoreError> {
        let (mut files, mut stale, mut left) = (Vec::with_capacity(contents.len()), Vec::new(), limits::RUN_BYTES);
        for content in contents {
            let (served, changed) = self.open(*content)?;
            stale.extend(changed);
            let small = served.filter(|served| served.size <= left.min(limits::SMALL_FILE_BYTES as u64));
            let file = small.and_then(|served| {
                left -= served.size;
                let data = read_at(&served.file, served.size as usize, 0).ok()?;
                let name = served.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                Some(SmallFile { name, data })
            });
            files.push(file);
        }
        Ok((files, stale))
    }

    /// Records finished downloads together. Returns the places of those that lie in a share.
    pub(super) fn add_downloads(&self, files: &[Finished]) -> Result<Vec<Below>, StoreError> {
        let mut records = Vec::with_capacity(files.len());
        for Finished { path, content, pieces } in files {
            let looked = || {
                let open = File::open(path)?;
                let stamp = Stamp::of(&open.metadata()?);
                let tags = tags::read(&path.file_name().unwrap_or_default().to_string_lossy(), &open);
                self.outboards.store(*content, stamp.size, pieces)?;
                Ok::<_, std::io::Error>(Record { stamp, content: *content, tags })
            };
            match looked() {
                Ok(record) => records.push((path, record)),
                Err(error) if files.len() == 1 => return Err(error.into()),
                Err(error) => tracing::warn!(%error, "a finished download cannot be read"),
            }
        }
        let _turn = self.downloads_turn();
        let puts: Vec<_> = records.iter().map(|(path, record)| (path::to_bytes(path), record)).collect();
        self.database.update_files(DOWNLOADS, &puts, &[])?;
        let (mut below, mut unlisted) = (Vec::new(), Vec::new());
        {
            let states = self.states();
            for (path, record) in &records {
                let mut shares = states.iter().filter(|(_, state)| state.origin.is_some());
                let in_share =
                    shares.find_map(|(id, state)| Some((*id, path.strip_prefix(&state.path).ok()?.to_owned())));
                match in_share {
                    Some(place) => below.push(place),
                    None => unlisted.push(Change::Upsert(FileEntry::unlisted(record.content, record.stamp.size))),
                }
            }
        }
        self.apply(unlisted);
        Ok(below)
    }

    pub(super) fn pass<'a>(
        &'a self,
        root: &'a PassRoot,
        threads: usize,
        progress: &'a Progress,
        cancel: &'a CancellationToken,
        publish: &'a (dyn Fn(Vec<Change>) + Sync),
    ) -> Pass<'a> {
        let (database, outboards) = (&*self.database, &self.outboards);
        let list = &self.working;
        Pass { root, database, outboards, threads, progress, cancel, follower: None, list, publish }
    }
}

/// True if the file is not what it was, and not merely out of reach, as on a disk that is not mounted now.
fn is_gone(path: &Path, stamp: &Stamp) -> bool {
    match path.metadata() {
        Ok(now) => Stamp::of(&now) != *stamp,
        Err(error) => error.kind() == ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    task::spawn_blocking(work).await.unwrap_or(Err(StoreError::Panicked))
}
