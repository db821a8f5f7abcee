//! What of a download is here already, and what becomes of a finished one: the file in its place, in the library.

use std::{fs::File, io, path::PathBuf, sync::Arc};

use overlay::{id::ContentId, verify::Value};
use tokio::task::spawn_blocking;

use super::{
    Shared,
    record::Record,
    target::{FinishError, Target, pieces_if},
    task::{Outcome, blocking},
};
use crate::transfer::{Finished, Via};

/// Done at once if the content lies here: in a share, among the downloads, or where it should go.
pub(super) async fn already_here(
    shared: &Arc<Shared>,
    record: &Record,
    target: &Target,
) -> io::Result<Option<Outcome>> {
    let (content, named) = (record.content, record.output.is_some());
    let done = |path, size| Outcome::Done { path, size, sources: vec![(shared.own, size, Via::Local)] };
    if let Some(existing) = target.existing().map(std::path::Path::to_owned) {
        let (path, size) = (existing.clone(), existing.metadata()?.len());
        let Some(pieces) = blocking(move || pieces_if(File::open(path)?, size, content)).await? else {
            return Ok(Some(Outcome::Conflict));
        };
        shared.enter(existing.clone(), content, pieces).await;
        return Ok(Some(done(existing, size)));
    }
    let local = match shared.library.open(content).await {
        Ok(Some(local)) => local,
        Ok(None) => return placed(shared, record, target).await,
        Err(error) => {
            tracing::warn!(%error, "the library cannot be asked for a content");
            return Ok(None);
        }
    };
    let size = local.file.metadata()?.len();
    if !named {
        return Ok(Some(done(local.path, size)));
    }
    let target = target.clone();
    match spawn_blocking(move || target.place_copy(local.file)).await.map_err(io::Error::other)? {
        Ok(path) => {
            if let Ok(Some(pieces)) = shared.library.pieces(content, size).await {
                shared.enter(path.clone(), content, pieces).await;
            }
            Ok(Some(done(path, size)))
        }
        Err(FinishError::Taken) => Ok(Some(Outcome::Conflict)),
        Err(FinishError::Io(error)) => Err(error),
    }
}

/// Done if the file has its name already: an earlier run did not live to record that, or the record was lost.
async fn placed(shared: &Arc<Shared>, record: &Record, target: &Target) -> io::Result<Option<Outcome>> {
    // Without a size nothing was ever written.
    let Some(size) = record.size else { return Ok(None) };
    let (target, content) = (target.clone(), record.content);
    let Some((path, pieces)) = blocking(move || target.placed(size, content)).await? else { return Ok(None) };
    shared.enter(path.clone(), content, pieces).await;
    let sum: u64 = record.sources.iter().map(|(_, bytes, _)| bytes).sum();
    let sources = if sum == size { record.sources.clone() } else { vec![(shared.own, size, Via::Local)] };
    Ok(Some(Outcome::Done { path, size, sources }))
}

impl Shared {
    /// Removes what an earlier run left of a content that is here now.
    pub(super) async fn remove_leftovers(&self, content: ContentId) {
        let partial = self.partial(content);
        if let Err(error) = blocking(move || partial.remove()).await {
            tracing::warn!(%error, "what is left of a partial file could not be removed");
        }
    }

    /// Lets others fetch a finished file from here.
    pub(super) async fn enter(&self, path: PathBuf, content: ContentId, pieces: Vec<Value>) {
        if let Err(error) = self.library.add_downloads(vec![Finished { path, content, pieces }]).await {
            tracing::warn!(%error, "a finished download could not be entered in the library");
        }
    }
}
