//! Progress bars.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{console::harmless, units};

/// Bars on stderr, one below the other. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Progress {
    bars: MultiProgress,
    shown: bool,
}

impl Progress {
    pub(super) fn new(shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), shown }
    }

    /// True if a person sees the bars.
    pub fn is_shown(&self) -> bool {
        self.shown
    }

    /// A bar for a transfer of `size` bytes. The name may come from others.
    pub fn transfer(&self, name: &str, size: u64) -> Bar {
        let bar = self.bars.add(ProgressBar::new(size));
        bar.set_style(style("{prefix:30!} {bar:24} {percent:>3}% {msg}"));
        bar.set_prefix(harmless(name).into_owned());
        Bar { bar }
    }

    /// A line that turns while something of unknown length is done. The text may come from others.
    pub fn spinner(&self, text: &str) -> Bar {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(style("{spinner} {msg}"));
        bar.set_message(harmless(text).into_owned());
        if self.shown {
            bar.enable_steady_tick(SPINNER_TICK);
        }
        Bar { bar }
    }

    /// Runs something that prints while no bar is on the screen.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bars.suspend(print)
    }
}

/// One bar; it disappears when it is dropped.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// How far a transfer is: verified bytes, bytes a second, and what is left if that is known.
    pub fn advance(&self, bytes: u64, size: u64, rate: f64, left: Option<Duration>) {
        self.bar.set_length(size);
        self.bar.set_position(bytes);
        let left = left.map(|left| format!(", {} left", units::duration(left))).unwrap_or_default();
        self.bar.set_message(format!("{} of {}, {}{left}", units::size(bytes), units::size(size), units::rate(rate)));
    }

    /// What is being done. The text may come from others.
    pub fn say(&self, text: &str) {
        self.bar.set_message(harmless(text).into_owned());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Ten frames a second look smooth and cost nothing.
const SPINNER_TICK: Duration = Duration::from_millis(100);

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
