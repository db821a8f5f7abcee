//! How long nodes stay and stay away.

use std::time::Duration;

use overlay::time::Time;
use rand::{Rng, RngExt};

use super::{
    draw,
    scenario::{Churn, Sessions},
};

/// Sessions that are drawn to find one that is under way at a given moment.
const RESIDUAL_DRAWS: usize = 64;
/// Seconds of a day.
const DAY_S: f64 = 86_400.0;

impl Sessions {
    /// The length of a session; `None` if it never ends.
    pub fn draw(self, rng: &mut impl Rng) -> Option<Duration> {
        let minutes = match self {
            Self::Endless => return None,
            Self::Harsh => draw::weibull(rng, 0.38, 42.4),
            Self::Gnutella => draw::weibull(rng, 0.59, 41.9),
            Self::Ipfs => draw::lognormal(rng, 120.0, 1.647),
        };
        // A second is what it takes to join; a month is as good as endless.
        Some(Duration::from_secs_f64((minutes * 60.0).clamp(1.0, 30.0 * DAY_S)))
    }

    /// What is left of a session that is under way: long ones are met more often.
    pub fn draw_rest(self, rng: &mut impl Rng) -> Option<Duration> {
        let sessions: Vec<f64> =
            (0..RESIDUAL_DRAWS).map_while(|_| self.draw(rng)).map(|span| span.as_secs_f64()).collect();
        let mut place = rng.random_range(0.0..sessions.iter().sum::<f64>().max(f64::MIN_POSITIVE));
        for session in sessions {
            if place < session {
                return Some(Duration::from_secs_f64(session - place));
            }
            place -= session;
        }
        None
    }
}

/// How long a leaf stays away that leaves at `now`; `None` where nobody leaves.
pub fn away(churn: &Churn, rng: &mut impl Rng, now: Time) -> Option<Duration> {
    let span = churn.leaves.draw(rng)?;
    let hour = now.as_micros() as f64 / 1e6 / DAY_S * std::f64::consts::TAU;
    Some(span.mul_f64(1.0 + churn.diurnal * hour.sin()))
}

#[cfg(test)]
mod tests {
    use rand_pcg::Pcg32;

    use super::*;

    fn part_within(sessions: Sessions, hours: f64) -> f64 {
        let mut rng = Pcg32::new(5, 5);
        let within = |_: &u32| sessions.draw(&mut rng).is_some_and(|span| span.as_secs_f64() <= hours * 3_600.0);
        (0..20_000).filter(within).count() as f64 / 20_000.0
    }

    #[test]
    fn sessions_have_the_published_lengths() {
        assert!((0.48..0.52).contains(&part_within(Sessions::Ipfs, 2.0)));
        assert!((0.78..0.82).contains(&part_within(Sessions::Ipfs, 8.0)));
        // The scale of a Weibull distribution is reached by 1 - 1/e.
        assert!((0.61..0.65).contains(&part_within(Sessions::Harsh, 42.4 / 60.0)));
        assert!((0.61..0.65).contains(&part_within(Sessions::Gnutella, 41.9 / 60.0)));
        assert_eq!(part_within(Sessions::Endless, 1e9), 0.0);
    }

    #[test]
    fn sessions_under_way_are_longer_than_others() {
        let mut rng = Pcg32::new(5, 5);
        let mut median = |draw: fn(Sessions, &mut Pcg32) -> Option<Duration>| {
            let mut all: Vec<_> = (0..2_000).filter_map(|_| draw(Sessions::Harsh, &mut rng)).collect();
            all.sort_unstable();
            all[1_000]
        };
        let (session, rest) = (median(Sessions::draw), median(Sessions::draw_rest));
        assert!(rest > session * 5, "{rest:?} of {session:?}");
        assert_eq!(Sessions::Endless.draw_rest(&mut rng), None);
    }
}
