//! What a core is: a state machine without a socket, clock, task, lock or global random number.
//!
//! A driver feeds inputs with the current time and takes outputs from a buffer that it owns; between
//! inputs it sleeps until [`Machine::next_deadline`]. The simulator is just another driver, so what it
//! measures is the program.
//!
//! ```text
//!   input ──> handle(cx, input, out) ──┐
//!                                      ├──> out: what the driver must now do
//!   time  ──> on_deadline(cx, out) ────┘
//! ```
//!
//! Invariants that every core keeps:
//! - the same inputs at the same times with the same random numbers give the same outputs;
//! - every collection has a cap in [`crate::limits`];
//! - after `on_deadline` at `now`, `next_deadline` is later than `now` (no busy loop).

use rand::Rng;

use crate::time::Time;

/// A protocol decision maker. See the module text for the contract.
pub trait Machine {
    /// What can happen to it.
    type Input;
    /// What it can ask its driver to do.
    type Output;

    /// Something happened at `cx.now`. Pushes what must be done in consequence.
    fn handle(&mut self, cx: &mut Context<'_>, input: Self::Input, out: &mut Outbox<Self::Output>);

    /// When it next wants [`Self::on_deadline`] to be called; `None` if only an input can change it.
    fn next_deadline(&self) -> Option<Time>;

    /// The deadline passed (calling it early is harmless). Pushes what must be done in consequence.
    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Self::Output>);
}

/// What a core may know of the outside world: the time and a source of random numbers.
pub struct Context<'a> {
    /// The current time.
    pub now: Time,
    /// The node's random numbers: seeded from the system in programs, from the scenario in simulations.
    pub rng: &'a mut dyn Rng,
}

impl<'a> Context<'a> {
    /// A context at `now` that draws from `rng`.
    pub fn new(now: Time, rng: &'a mut dyn Rng) -> Self {
        Self { now, rng }
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Outputs of a core, in the order in which they must be carried out. Owned and reused by the driver.
#[derive(Debug)]
pub struct Outbox<T> {
    items: Vec<T>,
}

impl<T> Outbox<T> {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { items: Vec::new() }
    }

    /// Appends an output.
    pub fn push(&mut self, item: T) {
        self.items.push(item);
    }

    /// Takes all outputs, oldest first, and keeps the memory.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.items.drain(..)
    }

    /// True if nothing waits to be carried out.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Outputs that wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The outputs of an inner core, each turned into one of the outer core.
    pub fn append_mapped<U>(&mut self, inner: &mut Outbox<U>, map: impl FnMut(U) -> T) {
        self.items.extend(inner.items.drain(..).map(map));
    }
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> FromIterator<T> for Outbox<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self { items: items.into_iter().collect() }
    }
}

impl<T> Extend<T> for Outbox<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        self.items.extend(items);
    }
}
