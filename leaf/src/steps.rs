//! Marks the moments between two changes of what lies on the disk, for the test that ends the program at each of them.
//! Outside of tests there is nothing.

/// Something was written that a later start will see.
#[cfg(not(test))]
#[inline]
pub(crate) const fn written() {}

#[cfg(test)]
pub(crate) use self::counted::{LAST_WORDS, end_at, written};

#[cfg(test)]
mod counted {
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Steps until the end; 0 is never.
    static LEFT: AtomicU64 = AtomicU64::new(0);

    /// What a process says when it ends at a step.
    pub(crate) const LAST_WORDS: &str = "this process ends at a step";

    /// From now on the process ends itself at the step of that number, from 1, as if it were killed.
    pub(crate) fn end_at(step: u64) {
        LEFT.store(step, Ordering::SeqCst);
    }

    /// Something was written that a later start will see.
    pub(crate) fn written() {
        let left = LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left == Ok(1) {
            eprintln!("{LAST_WORDS}");
            std::process::abort();
        }
    }
}
