//! Jobs in the database and their copies beside it: how they get there, and back.

use std::{io, sync::Arc};

use overlay::id::PeerId;
use tokio::task::spawn_blocking;

use super::{
    DownloadError, Event, Shared,
    copies::Copies,
    job::Job,
    lock,
    record::{Bits, Record},
};
use crate::{
    store::{Database, DatabaseError, Table},
    transfer::Via,
};

pub(super) const JOBS: Table<Record> = Table::new("jobs");
pub(super) const BITS: Table<Bits> = Table::new("job bits");
/// Download folders that partial files may lie in, by their path.
pub(super) const FOLDERS: Table<String> = Table::new("download folders");

impl Shared {
    /// Records verified pieces, which must be durable. Blocks on the database.
    pub(super) fn save_pieces(
        &self,
        id: &str,
        bits: &Bits,
        size: Option<u64>,
        sources: Vec<(PeerId, u64, Via)>,
    ) -> Result<(), DatabaseError> {
        let mut batch = self.database.write()?;
        let record = {
            let mut jobs = self.jobs();
            let Some(job) = jobs.by_id.get_mut(id) else { return Ok(()) };
            (job.record.size, job.record.sources) = (size, sources);
            job.bits = Some(bits.clone());
            job.record.clone()
        };
        batch.put(&JOBS, id.as_bytes(), &record)?;
        batch.put(&BITS, id.as_bytes(), bits)?;
        batch.commit()
    }

    /// Makes the job in the database that of the table in memory.
    pub(super) async fn save(self: &Arc<Self>, id: &str) -> Result<(), DownloadError> {
        self.save_all(vec![id.to_owned()]).await
    }

    /// Makes jobs in the database those of the table in memory, all or none.
    pub(super) async fn save_all(self: &Arc<Self>, ids: Vec<String>) -> Result<(), DownloadError> {
        let (shared, ids) = (Arc::clone(self), Arc::new(ids));
        let keys = Arc::clone(&ids);
        let save = move || -> Result<(), DatabaseError> {
            // Transactions follow one another, so the last one writes the last state.
            let mut batch = shared.database.write()?;
            let states: Vec<_> = {
                let jobs = shared.jobs();
                let state = |id| jobs.by_id.get(id).map(|job: &Job| (job.record.clone(), job.bits.is_some()));
                ids.iter().filter_map(state).collect()
            };
            batch.put_all(&JOBS, states.iter().map(|(record, _)| (record.id.as_bytes(), record)))?;
            batch.remove_all(
                &BITS,
                states.iter().filter(|(_, has_bits)| !has_bits).map(|(record, _)| record.id.as_bytes()),
            )?;
            batch.commit()?;
            for (record, _) in &states {
                shared.keep_copy(&record.id);
            }
            Ok(())
        };
        let saved = spawn_blocking(save).await.map_err(|error| DownloadError::System(error.to_string()));
        let saved = saved.and_then(|saved| Ok(saved?));
        let mut jobs = self.jobs();
        for id in &*keys {
            if let Some(job) = jobs.by_id.get_mut(id) {
                job.unsaved = saved.is_err();
            }
        }
        drop(jobs);
        saved
    }

    /// Makes the copy of a job that of the table in memory. Blocking.
    fn keep_copy(&self, id: &str) {
        let copies = lock(&self.copies);
        let Some(record) = self.jobs().by_id.get(id).map(|job| job.record.clone()) else { return };
        if let Err(error) = copies.keep(&record, || self.partial(record.content).downloads().to_owned()) {
            tracing::debug!(%error, id, "a download has no copy beside the database");
        }
    }

    /// Removes jobs, which the table in memory has no more, from the database.
    pub(super) async fn forget(self: &Arc<Self>, ids: Vec<String>) -> Result<(), DownloadError> {
        let (shared, gone) = (Arc::clone(self), ids.clone());
        let remove = move || -> io::Result<()> {
            let copies = lock(&shared.copies);
            for id in &gone {
                copies.remove(id)?;
            }
            drop(copies);
            let mut batch = shared.database.write()?;
            batch.remove_all(&JOBS, gone.iter().map(String::as_bytes))?;
            batch.remove_all(&BITS, gone.iter().map(String::as_bytes))?;
            Ok(batch.commit()?)
        };
        let removed = spawn_blocking(remove).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        removed.map_err(|error| DownloadError::System(error.to_string()))?;
        for id in ids {
            self.tell(Event::Removed(id));
        }
        Ok(())
    }
}

/// Enters the jobs in the database that only have a copy: they were lost with an earlier one. Blocking.
pub(super) fn take_back(database: &Database, copies: &Copies) -> Result<(), DatabaseError> {
    let all = copies.all().unwrap_or_else(|error| {
        tracing::warn!(%error, "the copies of downloads cannot be read");
        Vec::new()
    });
    let mut lost = Vec::new();
    for copy in all {
        match database.get(&JOBS, copy.record.id.as_bytes())? {
            None => lost.push(copy),
            // The program ended between the two.
            Some(known) if known.state.is_ended() => {
                if let Err(error) = copies.remove(&known.id) {
                    tracing::warn!(%error, id = known.id, "the copy of an ended download could not be removed");
                }
            }
            Some(_) => {}
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    let mut batch = database.write()?;
    for copy in &lost {
        let folder = copy.downloads.to_string_lossy().into_owned();
        batch.put(&JOBS, copy.record.id.as_bytes(), &copy.record)?;
        batch.put(&FOLDERS, folder.as_bytes(), &folder)?;
    }
    batch.commit()?;
    tracing::warn!(downloads = lost.len(), "downloads that the database had lost go on from their copies");
    Ok(())
}

/// Gives a job a copy that has none yet. Blocking.
pub(super) fn keep_if_missing(copies: &Copies, record: &Record, downloads: &std::path::Path) {
    if !record.state.is_ended()
        && !copies.has(&record.id)
        && let Err(error) = copies.keep(record, || downloads.to_owned())
    {
        tracing::debug!(%error, id = record.id, "a download has no copy beside the database");
    }
}

pub(super) fn record_folder(database: &Database, folder: &std::path::Path) -> Result<(), DatabaseError> {
    // A folder whose name is no text cannot come from the configuration.
    let text = folder.to_string_lossy().into_owned();
    if database.get(&FOLDERS, text.as_bytes())?.is_some() {
        return Ok(());
    }
    let mut batch = database.write()?;
    batch.put(&FOLDERS, text.as_bytes(), &text)?;
    batch.commit()
}
