//! How long other ultrapeers take to answer, and so when to ask another.

use std::time::Duration;

use overlay::limits;

/// The times of the last answers.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// In a ring.
    took: Vec<Duration>,
    next: usize,
}

/// Answers that are remembered. Chosen: the tenth of them that counts are six.
const ANSWERS: usize = 64;

impl Pace {
    /// The first word of an answer came after that time.
    pub(super) fn note(&mut self, took: Duration) {
        if self.took.len() < ANSWERS {
            self.took.push(took);
        } else {
            self.took[self.next] = took;
        }
        self.next = (self.next + 1) % ANSWERS;
    }

    /// Silence after which another is asked as well: half as long again as nine of ten answers took, within
    /// [`limits::FORWARD_PATIENCE`] and [`limits::FORWARD_PATIENCE_MAX`].
    pub(super) fn patience(&self) -> Duration {
        let mut took = self.took.clone();
        let usual = match took.len() * 9 / 10 {
            0 => Duration::ZERO,
            place => *took.select_nth_unstable(place).1,
        };
        (usual * 3 / 2).clamp(limits::FORWARD_PATIENCE, limits::FORWARD_PATIENCE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_the_slower_answers_within_bounds() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience(), limits::FORWARD_PATIENCE);
        for _ in 0..80 {
            pace.note(Duration::from_millis(10));
        }
        assert_eq!(pace.patience(), limits::FORWARD_PATIENCE);
        for _ in 0..20 {
            pace.note(Duration::from_millis(300));
        }
        assert_eq!(pace.patience(), Duration::from_millis(450));
        for _ in 0..20 {
            pace.note(Duration::from_mins(1));
        }
        assert_eq!(pace.patience(), limits::FORWARD_PATIENCE_MAX);
    }
}
