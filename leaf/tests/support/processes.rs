//! Processes in real time: looking until they have done something, and sending them signals.

#![expect(clippy::unwrap_used, reason = "whoever watches processes fails where something is not as it must be")]

use std::{
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until something is there; `None` when it is not for `patience`.
#[expect(clippy::disallowed_methods, reason = "real processes live in real time")]
pub(crate) fn looked_for<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let seen = look();
        if seen.is_some() || Instant::now() >= deadline {
            return seen;
        }
        thread::sleep(LOOK);
    }
}

/// Sends a signal to a process, by the name that `kill` knows.
pub(crate) fn send_signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}
