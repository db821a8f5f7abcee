//! How jobs ended, in the order in which they did: for whoever waits for thousands of them.
//!
//! Nothing is kept but a number for each ended job, so a follower may be as slow as it likes and misses nothing but what
//! was forgotten meanwhile.

use std::ops::Bound;

use tokio::sync::watch;

use super::{Downloads, Event, Shared};

/// Ends that a follower takes at once.
const PART: usize = 256;

/// Follows the ends of jobs.
#[derive(Debug)]
pub struct Ends {
    downloads: Downloads,
    after: u64,
    changed: watch::Receiver<()>,
}

impl Downloads {
    /// Follows the ends of jobs that are still to come.
    pub fn ends(&self) -> Ends {
        let changed = self.shared.ends.subscribe();
        Ends { downloads: self.clone(), after: self.shared.jobs().last_end, changed }
    }
}

impl Ends {
    /// The next ends, at least one; `None` when there will be none any more. Cancelling loses nothing.
    pub async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            self.changed.borrow_and_update();
            let part = self.take();
            if !part.is_empty() {
                return Some(part);
            }
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = self.downloads.shared.tasks.token().cancelled_owned() => return None,
            }
        }
    }

    fn take(&mut self) -> Vec<Event> {
        let jobs = self.downloads.shared.jobs();
        let mut part = Vec::new();
        for (number, id) in jobs.ends.range((Bound::Excluded(self.after), Bound::Unbounded)).take(PART) {
            self.after = *number;
            part.extend(jobs.by_id.get(id).and_then(|job| job.record.outcome()));
        }
        part
    }
}

impl Shared {
    /// Gives the end of a job its number, if it has ended.
    pub(super) fn note_end(&self, id: &str) -> Option<Event> {
        let mut jobs = self.jobs();
        let outcome = jobs.by_id.get(id)?.record.outcome()?;
        jobs.last_end += 1;
        let number = jobs.last_end;
        let before = jobs.by_id.get_mut(id).and_then(|job| job.ended_as.replace(number));
        before.and_then(|before| jobs.ends.remove(&before));
        jobs.ends.insert(number, id.to_owned());
        drop(jobs);
        self.ends.send_replace(());
        Some(outcome)
    }
}
