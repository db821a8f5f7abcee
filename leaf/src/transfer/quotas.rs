//! What each peer had of its quota, over restarts.
//!
//! The queue counts, and this keeps it in the database: every [`limits::QUOTA_SAVED`] what has changed since, and the rest
//! at the end. A crash gives each peer back what it had since the last time, which is less than half a minute of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use overlay::{
    drive::{Clock, Handle, wall_clock_s},
    id::PeerId,
    limits,
    time::Time,
};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    queue::{Queue, Used},
    store::{Database, DatabaseError, Table},
};

/// By peer: when its day is over, in seconds since 1970 UTC, and the bytes that it had.
const QUOTAS: Table<Kept> = Table::new("quotas");
/// Seconds by which two readings of one end may differ: the clocks that it is computed from are read one after the other.
const BLUR_S: u64 = 2;

type Kept = (u64, u64);

/// See the module text. Its calls block on the disk.
#[derive(Debug)]
pub(super) struct Quotas {
    database: Arc<Database>,
    kept: BTreeMap<PeerId, Kept>,
}

/// Shared by who keeps it now and then and who does at the end; `None` if what was kept cannot be read.
pub(super) type Shared = Option<Arc<Mutex<Quotas>>>;

/// Keeps what is used now and then, as long as there is a queue.
pub(super) async fn keep(quotas: Shared, queue: Handle<Queue>, clock: Clock) {
    loop {
        sleep(limits::QUOTA_SAVED).await;
        let Ok(used) = queue.inspect(move |queue| queue.used(clock.now())).await else { return };
        save(quotas.clone(), used).await;
    }
}

/// Keeps what is used now.
pub(super) async fn save(quotas: Shared, used: Vec<Used>) {
    let Some(quotas) = quotas else { return };
    let save = move || quotas.lock().unwrap_or_else(PoisonError::into_inner).save(&used);
    match spawn_blocking(save).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what peers had of their quotas was not recorded"),
        Err(error) => tracing::warn!(%error, "what peers had of their quotas was not recorded"),
    }
}

impl Quotas {
    /// Gives a queue what an earlier run left.
    pub(super) fn restore(database: Arc<Database>, now: Time, queue: &mut Queue) -> Shared {
        match Self::load(database) {
            Ok((quotas, used)) => {
                queue.restore(now, &used);
                Some(Arc::new(Mutex::new(quotas)))
            }
            Err(error) => {
                tracing::warn!(%error, "what peers had of their quotas is not known, and is not kept");
                None
            }
        }
    }

    /// What an earlier run left. A day that would be longer than one, because the clock was set back, is one.
    fn load(database: Arc<Database>) -> Result<(Self, Vec<Used>), DatabaseError> {
        let now = wall_clock_s();
        let (mut kept, mut used) = (BTreeMap::new(), Vec::new());
        for (key, (until_s, bytes)) in database.all(&QUOTAS, limits::QUOTA_PEERS)? {
            let Ok(peer) = <[u8; 32]>::try_from(&key[..]).map(PeerId) else { continue };
            kept.insert(peer, (until_s, bytes));
            let left = Duration::from_secs(until_s.saturating_sub(now)).min(limits::QUOTA_PERIOD);
            if !left.is_zero() {
                used.push(Used { peer, bytes, left });
            }
        }
        Ok((Self { database, kept }, used))
    }

    /// Keeps what is used now, in one transaction, and none if nothing has changed.
    fn save(&mut self, used: &[Used]) -> Result<(), DatabaseError> {
        let now = wall_clock_s();
        let mut next: BTreeMap<PeerId, Kept> = BTreeMap::new();
        for Used { peer, bytes, left } in used {
            let until_s = now + left.as_secs();
            let before = self.kept.get(peer).filter(|(before, _)| before.abs_diff(until_s) <= BLUR_S);
            next.insert(*peer, (before.map_or(until_s, |(before, _)| *before), *bytes));
        }
        let gone: Vec<&PeerId> = self.kept.keys().filter(|peer| !next.contains_key(peer)).collect();
        let changed = next.iter().filter(|(peer, kept)| self.kept.get(peer) != Some(kept));
        let changed: Vec<(&PeerId, &Kept)> = changed.collect();
        if gone.is_empty() && changed.is_empty() {
            return Ok(());
        }
        let mut batch = self.database.write()?;
        batch.put_all(&QUOTAS, changed.into_iter().map(|(peer, kept)| (&peer.0[..], kept)))?;
        batch.remove_all(&QUOTAS, gone.into_iter().map(|peer| &peer.0[..]))?;
        batch.commit()?;
        self.kept = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_is_over_goes() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Arc::new(Database::open(&folder.path().join("state.redb")).unwrap().0);
        let used = |peer: u8, bytes, left| Used { peer: PeerId([peer; 32]), bytes, left };
        let (long, over) = (Duration::from_hours(48), Duration::ZERO);
        {
            let (mut quotas, found) = Quotas::load(open()).unwrap();
            assert_eq!(found, []);
            quotas.save(&[used(1, 10, long), used(2, 20, limits::QUOTA_PERIOD), used(3, 30, over)]).unwrap();
            quotas.save(&[used(1, 11, long), used(3, 30, over), used(4, 40, long)]).unwrap();
        }
        let (_, found) = Quotas::load(open()).unwrap();
        assert_eq!(found, [used(1, 11, limits::QUOTA_PERIOD), used(4, 40, limits::QUOTA_PERIOD)]);
    }
}
