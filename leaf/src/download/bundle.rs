//! Bundles: many small files that one source has are asked for at once, and become durable together.
//!
//! ```text
//!   look: is it here already? ─> ask ─> verify, write all ─> force all to the disk ─> name all ─> force the folders
//!                                                                   ─> enter all in the library ─> record all as done
//! ```
//!
//! Each file is a job of its own, which a bundle only carries to its end. A file that cannot be had like this (the source
//! has it no more, it is larger than was told, something lies in its place) is left to a download of its own, which looks
//! for other sources.
//!
//! Order of writing: nothing gets its name before its bytes are on the disk, and no job is done before the name is. So
//! after a crash there is a file under its name, which the job finds there, or none; what lies in the folder of partial
//! files has no values beside it and counts for nothing.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use overlay::{id::ContentId, limits, metrics::Direction, time::Time, transport::CloseCode};
use tokio::{task::spawn_blocking, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    durable::force_all,
    lock,
    partial::Partial,
    record::Record,
    target::{FinishError, Target},
    task::Outcome,
};
use crate::{
    beneath::Folder,
    metrics::{PieceResult, TRANSFER_BYTES, VERIFIED_PIECES},
    steps::written,
    transfer::{Finished, FoundSource, Via, pool::Lease, session},
};

/// What a bundle does with a file.
#[derive(Debug)]
pub(super) enum End {
    /// As if it had run alone.
    Outcome(Outcome),
    /// It must run alone.
    Alone,
}

/// One file of a bundle.
#[derive(Debug)]
pub(super) struct Item {
    /// Its job.
    pub(super) record: Record,
    /// Told when the job is to stop.
    pub(super) stop: CancellationToken,
}

/// Small files that one peer has.
#[derive(Debug)]
pub(super) struct Bundle {
    pub(super) source: FoundSource,
    pub(super) items: Vec<Item>,
}

/// Fetches a bundle. Every job of it is told its end.
pub(super) async fn run(shared: Arc<Shared>, Bundle { source, items }: Bundle, stop: CancellationToken) {
    let started = shared.clock.now();
    let (mut wanted, here) = look(&shared, items).await;
    end(&shared, started, here.into_iter().map(|item| (item, End::Alone)).collect()).await;
    let fetched = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        fetched = fetch(&shared, &source, &wanted) => fetched,
    };
    let stopped = stop.is_cancelled();
    let missing = || if stopped { End::Outcome(Outcome::Stopped) } else { End::Alone };
    // The connection stays for the next bundle.
    let Some((lease, files)) = fetched else {
        let ends = wanted.into_iter().map(|item| (item, missing())).collect();
        return end(&shared, started, ends).await;
    };
    let (mut kept, mut ends) = (Vec::new(), Vec::new());
    for (item, data) in wanted.drain(..).zip(files.into_iter().chain(std::iter::repeat(None))) {
        match data {
            Some(data) if !item.stop.is_cancelled() => kept.push((item, data)),
            _ if item.stop.is_cancelled() => ends.push((item, End::Outcome(Outcome::Stopped))),
            _ => ends.push((item, missing())),
        }
    }
    ends.extend(keep(&shared, &source, lease.via(), kept).await);
    end(&shared, started, ends).await;
}

/// Sorts out what may be here already.
async fn look(shared: &Arc<Shared>, items: Vec<Item>) -> (Vec<Item>, Vec<Item>) {
    let contents = items.iter().map(|item| item.record.content).collect();
    let known = shared.library.knows(contents).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the library cannot be asked for contents");
        Vec::new()
    });
    let downloads = lock(&shared.folders).current.clone();
    let targets: Vec<Target> = items.iter().map(|item| Target::of(&item.record, &downloads)).collect();
    let taken = spawn_blocking(move || targets.iter().map(Target::is_taken).collect::<Vec<_>>()).await;
    let taken = taken.unwrap_or_default();
    let (mut wanted, mut here) = (Vec::new(), Vec::new());
    for (at, item) in items.into_iter().enumerate() {
        let is = |answers: &[bool]| answers.get(at).copied().unwrap_or(true);
        if is(&known) || is(&taken) { here.push(item) } else { wanted.push(item) }
    }
    (wanted, here)
}

/// What the source sends for each; fewer if it ends early. `None` if nothing comes.
async fn fetch(shared: &Shared, source: &FoundSource, items: &[Item]) -> Option<(Arc<Lease>, Vec<Option<Vec<u8>>>)> {
    if items.is_empty() {
        return None;
    }
    let lease = match shared.pool.connect(source.peer, source.homes.clone()).await {
        Ok(lease) => {
            shared.pool.keep(&lease);
            lease
        }
        Err(error) => {
            tracing::debug!(peer = ?source.peer, %error, "a source cannot be reached");
            return None;
        }
    };
    let contents = items.iter().map(|item| item.record.content);
    let mut files = Vec::with_capacity(items.len());
    let mut queued = false;
    let mut answers = session::files(lease.connection(), contents).await?;
    while files.len() < items.len() {
        let place = |position| shared.show_place(items.iter().map(|item| item.record.id.clone()), position);
        match timeout(limits::SOURCE_STALL, answers.next()).await {
            Ok(session::Answer::Files(some)) => {
                if std::mem::take(&mut queued) {
                    place(None);
                }
                let bytes: usize = some.iter().flatten().map(Vec::len).sum();
                files.extend(some);
                TRANSFER_BYTES.add((Direction::In, lease.via().into()), bytes as u64);
                let mut left = bytes;
                while left > 0 {
                    left -= shared.throttle.release(left).await;
                }
            }
            Ok(session::Answer::Queued(position)) => {
                queued = true;
                place(Some(position));
            }
            Ok(session::Answer::End) => break,
            // Waiting for a slot is no stall, and the connection notices when the source is gone.
            Err(_) if queued => {}
            Err(_) => break,
        }
    }
    if files.len() > items.len() {
        VERIFIED_PIECES.increment(PieceResult::Corrupt);
        tracing::warn!(peer = ?source.peer, "a source sent more than it was asked for");
        lease.connection().close(CloseCode::Violation);
        files.truncate(items.len());
    }
    Some((lease, files))
}

/// Verifies and writes what came, gives it its names, and enters it in the library.
async fn keep(shared: &Arc<Shared>, source: &FoundSource, via: Via, files: Vec<(Item, Vec<u8>)>) -> Vec<(Item, End)> {
    let downloads = lock(&shared.folders).current.clone();
    let (items, writes): (Vec<Item>, Vec<FileToWrite>) = files
        .into_iter()
        .map(|(item, data)| {
            let (content, target) = (item.record.content, Target::of(&item.record, &downloads));
            let file = FileToWrite { content, partial: shared.partial(content), target, data };
            (item, file)
        })
        .unzip();
    let sizes: Vec<u64> = writes.iter().map(|write| write.data.len() as u64).collect();
    let results = spawn_blocking(move || write_all(&writes)).await.unwrap_or_default();
    let mut finished = Vec::new();
    let mut ends = Vec::with_capacity(items.len());
    let results = results.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    for ((item, size), result) in items.into_iter().zip(sizes).zip(results) {
        let content = item.record.content;
        let end = match result {
            Some(Ok(path)) => {
                VERIFIED_PIECES.increment(PieceResult::Ok);
                finished.push(Finished { path: path.clone(), content, pieces: vec![content.0] });
                End::Outcome(Outcome::Done { path, size, sources: vec![(source.peer, size, via)] })
            }
            Some(Err(WriteError::Wrong)) => {
                VERIFIED_PIECES.increment(PieceResult::Corrupt);
                tracing::warn!(peer = ?source.peer, content = %content.short(), "a source sent wrong data");
                shared.finder.complain(source.clone(), content);
                End::Alone
            }
            Some(Err(WriteError::Io(error))) => End::Outcome(error.into()),
            // A panic there is a defect here.
            Some(Err(WriteError::Taken)) | None => End::Alone,
        };
        ends.push((item, end));
    }
    if !finished.is_empty()
        && let Err(error) = shared.library.add_downloads(finished).await
    {
        tracing::warn!(%error, "finished downloads could not be entered in the library");
    }
    ends
}

async fn end(shared: &Arc<Shared>, started: Time, ends: Vec<(Item, End)>) {
    if !ends.is_empty() {
        shared.bundle_ended(started, ends.into_iter().map(|(item, end)| (item.record.id, end)).collect()).await;
    }
}

/// A file that came.
struct FileToWrite {
    content: ContentId,
    partial: Partial,
    target: Target,
    data: Vec<u8>,
}

/// Why a file did not get its name. Nothing of it stays.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("it is not what was asked for")]
    Wrong,
    #[error("the name is taken")]
    Taken,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<FinishError> for WriteError {
    fn from(error: FinishError) -> Self {
        match error {
            FinishError::Taken => Self::Taken,
            FinishError::Io(error) => Self::Io(error),
        }
    }
}

/// Writes files as the module text says. Blocks on the disk.
fn write_all(files: &[FileToWrite]) -> Vec<Result<PathBuf, WriteError>> {
    let mut folders = Folders::default();
    let mut open: Vec<Result<File, WriteError>> = files.iter().map(|file| write(&mut folders, file)).collect();
    let written_files: Vec<&File> = open.iter().filter_map(|file| file.as_ref().ok()).collect();
    if let Err(error) = force_all(&written_files) {
        // Which of them is not on the disk is not known: none counts.
        for file in open.iter_mut().filter(|file| file.is_ok()) {
            *file = Err(io::Error::new(error.kind(), error.to_string()).into());
        }
    }
    written();
    let placed: Vec<Result<PathBuf, WriteError>> = files
        .iter()
        .zip(open)
        .map(|(file, open)| {
            let name = |_| Ok(file.partial.name_data(folders.of(&file.partial)?, &file.target)?);
            let result = open.and_then(name);
            if result.is_err() {
                // The first error is the one that counts.
                let _ = file.partial.remove();
            }
            result
        })
        .collect();
    let mut parents: Vec<_> = placed.iter().flatten().filter_map(|path| path.parent()).collect();
    parents.sort_unstable();
    parents.dedup();
    for parent in parents {
        // Where folders cannot be opened the system sees to it.
        if let Ok(folder) = Folder::root(parent) {
            folder.force();
        }
    }
    written();
    placed
}

/// The folders of partial files, opened once.
#[derive(Default)]
struct Folders(BTreeMap<PathBuf, Folder>);

impl Folders {
    fn of(&mut self, partial: &Partial) -> io::Result<&Folder> {
        match self.0.entry(partial.downloads().to_owned()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => Ok(new.insert(partial.make_folder()?)),
        }
    }
}

/// Writes one file under the name that it has while it is no finished one.
fn write(folders: &mut Folders, file: &FileToWrite) -> Result<File, WriteError> {
    if blake3::hash(&file.data) != blake3::Hash::from(file.content.0) {
        return Err(WriteError::Wrong);
    }
    let mut open = file.partial.create_data(folders.of(&file.partial)?)?;
    open.write_all(&file.data)?;
    written();
    Ok(open)
}
