//! Showing homes that this leaf has what it lists, and telling them of sources that have not.
//!
//! A home asks for one group of 16 KiB of a file, with the proof that it belongs to the content: what any downloader gets.
//! So that no home reads files in this way, each is answered a few times an hour only, and so that nobody else waits, one
//! question is answered at a time. What is sent was checked before: a file that is not as it was hashed is said to be gone,
//! and the list soon leaves it out.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use overlay::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    time::Time,
    verify::Layout,
    wire::possession::{GroupProof, Possession, PossessionAnswer, PossessionAsk},
};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{file_io::read_at, network::FileList, transfer::Library};

/// Answers homes, and keeps count of what each asked.
#[derive(Debug)]
pub(crate) struct Answers {
    credit: Mutex<BTreeMap<PeerId, TokenBucket>>,
    turn: Semaphore,
}

impl Answers {
    pub(crate) fn new() -> Self {
        Self { credit: Mutex::default(), turn: Semaphore::new(1) }
    }

    /// What to answer `home`.
    pub(crate) async fn answer(&self, now: Time, list: &dyn FileList, home: PeerId, ask: PossessionAsk) -> Possession {
        let answer = match self.turn.acquire().await {
            Ok(_turn) if self.spend(now, home) => list.prove(ask).await,
            _ => PossessionAnswer::NotNow,
        };
        Possession { ask, answer }
    }

    fn spend(&self, now: Time, home: PeerId) -> bool {
        // Every operation leaves the map whole, so a panic elsewhere does not spoil it.
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        if credit.len() >= limits::POSSESSION_ASKERS && !credit.contains_key(&home) {
            credit.retain(|_, bucket| !bucket.is_full(now));
            if credit.len() >= limits::POSSESSION_ASKERS {
                return false;
            }
        }
        let full = || TokenBucket::new(now, limits::POSSESSION_ANSWER_RATE, limits::POSSESSION_ANSWER_BURST);
        credit.entry(home).or_insert_with(full).take(now)
    }
}

/// The proof, if the library has the content as it was hashed.
pub(crate) async fn prove(library: &dyn Library, ask: PossessionAsk) -> PossessionAnswer {
    let local = match library.open(ask.content).await {
        Ok(Some(local)) => local,
        Ok(None) => return PossessionAnswer::Gone,
        Err(_) => return PossessionAnswer::NotNow,
    };
    let Ok(size) = local.file.metadata().map(|metadata| metadata.len()) else { return PossessionAnswer::Gone };
    // Values that are lost are made anew now.
    let Ok(Some(pieces)) = library.pieces(ask.content, size).await else { return PossessionAnswer::NotNow };
    let made = spawn_blocking(move || {
        let range = Layout::new(size).and_then(|layout| layout.piece_range(ask.piece)).ok()?;
        let piece = read_at(&local.file, (range.end - range.start) as usize, range.start).ok()?;
        GroupProof::new(&ask, size, &pieces, &piece).ok()
    });
    match made.await {
        Ok(Some(proof)) => PossessionAnswer::Proven(Box::new(proof)),
        Ok(None) => {
            if let Err(error) = library.damaged(ask.content).await {
                tracing::warn!(%error, content = %ask.content.short(), "a damaged file cannot be hashed again");
            }
            PossessionAnswer::Gone
        }
        Err(_) => PossessionAnswer::NotNow,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_home_is_answered_a_few_times_an_hour_and_other_homes_besides() {
        let (answers, home) = (Answers::new(), |byte| PeerId([byte; 32]));
        let mut count = 0;
        for minute in 0..60 {
            count += usize::from(answers.spend(Time::ZERO + Duration::from_mins(minute), home(1)));
        }
        assert!((5..=13).contains(&count), "{count}");
        let late = Time::ZERO + Duration::from_hours(1);
        let others = (2..=u8::MAX).filter(|byte| answers.spend(late, home(*byte))).count();
        assert_eq!(others, limits::POSSESSION_ASKERS - 1);
        assert!(answers.spend(late + Duration::from_hours(1), home(255)), "those before it are forgotten");
    }
}
