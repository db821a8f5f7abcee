//! What the node moved in the last hours, for charts.
//!
//! Rates are looked at about once a second and averaged over steps of [`limits::HISTORY_STEP`], of which the last
//! [`limits::HISTORY_STEPS`] are kept. Time in which nobody looked counts as rest.

use std::collections::VecDeque;

use overlay::{limits, time::Time};

/// Bytes a second in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// To others.
    pub upload: u64,
    /// From others.
    pub download: u64,
}

/// The last steps, oldest first, and the one that is not over.
#[derive(Clone, Debug, Default)]
pub struct History {
    steps: VecDeque<Rates>,
    /// Number of the step that is not over, counted from the clock's start.
    current: u64,
    sum: Rates,
    looks: u64,
}

/// Some steps put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    /// Seconds of a step.
    pub step_s: u64,
    /// When the first step began, in seconds before now.
    pub began_s: u64,
    /// The steps, oldest first.
    pub steps: Vec<Rates>,
}

impl History {
    /// Takes a look.
    pub fn record(&mut self, now: Time, rates: Rates) {
        self.advance(now);
        self.sum.upload = self.sum.upload.saturating_add(rates.upload);
        self.sum.download = self.sum.download.saturating_add(rates.download);
        self.looks += 1;
    }

    /// The steps of the last `hours`, each as many kept ones as there are hours, so that a chart of any span has at
    /// most as many points as one hour has steps. The step that is not over is left out.
    pub fn chart(&mut self, now: Time, hours: u64) -> Chart {
        self.advance(now);
        let step_s = limits::HISTORY_STEP.as_secs();
        let group = hours.max(1) as usize;
        let wanted = (group * 3600 / step_s as usize).min(self.steps.len());
        // Groups end with the newest step; what is left over in front is not shown.
        let first = self.steps.len() - wanted / group * group;
        let kept: Vec<Rates> = self.steps.range(first..).copied().collect();
        let mean = |values: u64| values / group as u64;
        let steps: Vec<Rates> = kept
            .chunks_exact(group)
            .map(|chunk| Rates {
                upload: mean(chunk.iter().map(|rates| rates.upload).sum()),
                download: mean(chunk.iter().map(|rates| rates.download).sum()),
            })
            .collect();
        let since_step = (now.0 / 1_000_000).saturating_sub(self.current * step_s);
        Chart { step_s: step_s * group as u64, began_s: kept.len() as u64 * step_s + since_step, steps }
    }

    /// Ends the steps that are over at `now`.
    fn advance(&mut self, now: Time) {
        let current = now.0 / 1_000_000 / limits::HISTORY_STEP.as_secs();
        if current <= self.current {
            return;
        }
        if self.looks > 0 || !self.steps.is_empty() {
            let looks = self.looks.max(1);
            self.push(Rates { upload: self.sum.upload / looks, download: self.sum.download / looks });
            let unseen = (current - self.current - 1).min(limits::HISTORY_STEPS as u64);
            (0..unseen).for_each(|_| self.push(Rates::default()));
        }
        (self.current, self.sum, self.looks) = (current, Rates::default(), 0);
    }

    fn push(&mut self, rates: Rates) {
        if self.steps.len() == limits::HISTORY_STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(rates);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Time {
        Time(second * 1_000_000)
    }

    fn uploads(chart: &Chart) -> Vec<u64> {
        chart.steps.iter().map(|rates| rates.upload).collect()
    }

    #[test]
    fn looks_are_averaged_over_steps_and_time_without_looks_is_rest() {
        let mut history = History::default();
        assert_eq!(history.chart(at(25), 1), Chart { step_s: 10, began_s: 5, steps: Vec::new() });
        for second in 30..40 {
            history.record(at(second), Rates { upload: second, download: 7 });
        }
        history.record(at(65), Rates { upload: 100, download: 0 });
        let chart = history.chart(at(71), 1);
        assert_eq!((uploads(&chart), chart.began_s), (vec![34, 0, 0, 100], 41), "from second 30 on");
        assert_eq!(chart.steps[0].download, 7);
        let wide = history.chart(at(71), 2);
        assert_eq!((uploads(&wide), wide.step_s, wide.began_s), (vec![17, 50], 20, 41));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let mut history = History::default();
        for day in 0..3 {
            for step in 0..8640 {
                history.record(at(day * 86_400 + step * 10), Rates { upload: day, download: step });
            }
        }
        assert_eq!(history.steps.len(), limits::HISTORY_STEPS);
        let day = history.chart(at(3 * 86_400), 24);
        assert_eq!((day.steps.len(), day.step_s, day.began_s), (360, 240, 86_400));
        assert!(uploads(&day).iter().all(|upload| *upload == 2));
        history.record(at(100 * 86_400), Rates::default());
        assert_eq!(history.steps.len(), limits::HISTORY_STEPS);
        assert!(uploads(&history.chart(at(100 * 86_400), 24)).iter().all(|upload| *upload == 0));
    }
}
