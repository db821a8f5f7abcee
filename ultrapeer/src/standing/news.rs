//! What is new: chunks elsewhere whose digests are awaited, and the files by which own leaves' chunks differ from those
//! that they replaced.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{limits, time::Time, wire::mesh::DigestName};

#[derive(Debug, Default)]
pub(super) struct News {
    /// New chunks elsewhere, with when they are not awaited any more.
    awaited: BTreeMap<DigestName, Time>,
    by_time: BTreeSet<(Time, DigestName)>,
    /// Places of new files in own leaves' chunks, and when that is forgotten.
    files: BTreeMap<DigestName, (Time, Box<[u16]>)>,
    files_by_time: BTreeSet<(Time, DigestName)>,
    /// How many places there are.
    places: usize,
}

impl News {
    /// A chunk elsewhere is new. Beyond [`limits::NEW_CHUNKS`] the oldest are not awaited any more.
    pub(super) fn await_digest(&mut self, now: Time, chunk: DigestName) {
        let until = now + limits::NEW_CHUNKS_AWAITED;
        if let Some(before) = self.awaited.insert(chunk, until) {
            self.by_time.remove(&(before, chunk));
        }
        self.by_time.insert((until, chunk));
        if self.awaited.len() > limits::NEW_CHUNKS
            && let Some((_, oldest)) = self.by_time.pop_first()
        {
            self.awaited.remove(&oldest);
        }
    }

    /// The chunk is here. True if it was awaited.
    pub(super) fn arrived(&mut self, chunk: &DigestName) -> bool {
        let until = self.awaited.remove(chunk);
        until.is_some_and(|until| self.by_time.remove(&(until, *chunk)))
    }

    /// Only some files of an own leaf's chunk are new.
    pub(super) fn note_files(&mut self, now: Time, chunk: DigestName, places: Vec<u16>) {
        self.drop_files(&chunk);
        let until = now + limits::NEW_FILES_KEPT;
        self.places += places.len();
        self.files.insert(chunk, (until, places.into()));
        self.files_by_time.insert((until, chunk));
        while self.places > limits::NEW_FILES || self.files.len() > limits::NEW_CHUNKS {
            let Some((_, oldest)) = self.files_by_time.first().copied() else { break };
            self.drop_files(&oldest);
        }
    }

    /// The new files of an own leaf's chunk; `None`: all, as far as is known.
    pub(super) fn files(&self, chunk: &DigestName) -> Option<&[u16]> {
        self.files.get(chunk).map(|(_, places)| &**places)
    }

    fn drop_files(&mut self, chunk: &DigestName) {
        if let Some((until, places)) = self.files.remove(chunk) {
            self.places -= places.len();
            self.files_by_time.remove(&(until, *chunk));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        [self.by_time.first(), self.files_by_time.first()].into_iter().flatten().map(|(at, _)| *at).min()
    }

    pub(super) fn expire(&mut self, now: Time) {
        while let Some((_, chunk)) = self.by_time.first().copied().filter(|(at, _)| *at <= now) {
            self.arrived(&chunk);
        }
        while let Some((_, chunk)) = self.files_by_time.first().copied().filter(|(at, _)| *at <= now) {
            self.drop_files(&chunk);
        }
    }
}
