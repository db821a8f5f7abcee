//! What every driver needs: a clock, random numbers, the loop that runs a core, and tasks that are counted.
//!
//! A driver stands between a core ([`crate::machine`]) and the world:
//!
//! ```text
//!   world ──> Handle::input ──(bounded)──> Driver::run ──> machine ──> outputs ──> carry_out
//!                                              ^── Clock, random numbers
//! ```
//!
//! The clocks of the process are read here and nowhere else.

use std::{
    any::Any,
    fmt,
    future::Future,
    io,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::FutureExt;
use rand::Rng;
use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    limits,
    machine::{Context, Machine, Outbox},
    metrics::{self, TASK_PANICS},
    time::Time,
};

/// The monotonic clock that cores are told the time of. Its origin is its creation; all drivers of a
/// process share one, so that their times can be compared. Follows the runtime's clock, which tests can
/// pause.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }

    /// The current time.
    pub fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// The runtime's name for `time`.
    fn instant(&self, time: Time) -> Instant {
        // A deadline beyond the range of the system's clock is as good as a century away.
        let span = time.since(Time::ZERO);
        self.origin.checked_add(span).unwrap_or_else(|| self.origin + Duration::from_hours(100 * 365 * 24))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Time since 1970 UTC, as this machine believes; zero before. For showing, for file times, and for numbers
/// that must grow over restarts: cores use [`Clock`].
#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// [`wall_clock`] in whole seconds.
pub fn wall_clock_s() -> u64 {
    wall_clock().as_secs()
}

/// Random numbers for a core, seeded by the system. Good for choices; keys and tokens that must not be
/// guessed come from the system directly ([`random_token`]). Fails only where the system has no randomness.
pub fn system_rng() -> io::Result<Pcg64Mcg> {
    let mut seed = [0; 16];
    getrandom::fill(&mut seed)?;
    Ok(Pcg64Mcg::from_seed(seed))
}

/// A number that nobody can guess, never 0: the token of an introduction.
pub fn random_token() -> io::Result<u64> {
    Ok(getrandom::u64()?.max(1))
}

/// A name that is never used again: 60 random bits in 12 characters of `[a-z2-7]`.
pub fn random_name() -> io::Result<String> {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = random_token()?;
    Ok((0..12).map(|place| char::from(DIGITS[(bits >> (5 * place) & 31) as usize])).collect())
}

/// The core is not driven any more: its driver was shut down, or a panic ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the core is not driven any more")]
pub struct Stopped;

/// Why an input was not taken. The core does not know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// [`limits::MACHINE_INPUTS`] others wait already.
    #[error("too many inputs wait")]
    Full,
    /// The core is not driven any more.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

enum Command<M: Machine> {
    Input(M::Input),
    Inspect(Box<dyn FnOnce(&M) + Send>),
}

/// The way to a core that a [`Driver`] runs. Cheap to clone.
pub struct Handle<M: Machine> {
    commands: mpsc::Sender<Command<M>>,
}

impl<M: Machine> Handle<M> {
    /// Gives the core an input; waits while [`limits::MACHINE_INPUTS`] others wait. If cancelled, the input is
    /// not given.
    pub async fn input(&self, input: M::Input) -> Result<(), Stopped> {
        self.commands.send(Command::Input(input)).await.map_err(|_| Stopped)
    }

    /// Gives the core an input if there is room.
    pub fn try_input(&self, input: M::Input) -> Result<(), InputError> {
        self.commands.try_send(Command::Input(input)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => InputError::Full,
            mpsc::error::TrySendError::Closed(_) => InputError::Stopped(Stopped),
        })
    }

    /// Looks at the core between two inputs: for status and statistics. `look` must be quick, it holds the
    /// core up.
    pub async fn inspect<R: Send + 'static>(&self, look: impl FnOnce(&M) -> R + Send + 'static) -> Result<R, Stopped> {
        let (answer, result) = oneshot::channel();
        let look = Box::new(move |machine: &M| {
            // Whoever asked may have gone.
            let _ = answer.send(look(machine));
        });
        self.commands.send(Command::Inspect(look)).await.map_err(|_| Stopped)?;
        result.await.map_err(|_| Stopped)
    }
}

impl<M: Machine> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone() }
    }
}

impl<M: Machine> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("waiting", &(limits::MACHINE_INPUTS - self.commands.capacity())).finish()
    }
}

/// Runs one core.
pub struct Driver<M: Machine> {
    machine: M,
    commands: mpsc::Receiver<Command<M>>,
}

impl<M: Machine> Driver<M> {
    /// A driver for `machine`, and the way to it.
    pub fn new(machine: M) -> (Handle<M>, Self) {
        let (sender, commands) = mpsc::channel(limits::MACHINE_INPUTS);
        (Handle { commands: sender }, Self { machine, commands })
    }

    /// Runs until `shutdown`, or until all handles are gone, and gives the core back. `carry_out` does what
    /// the core asks for; it must not block, and what takes time belongs in tasks of its own.
    pub async fn run(
        self,
        clock: Clock,
        mut rng: impl Rng,
        shutdown: CancellationToken,
        mut carry_out: impl FnMut(Time, M::Output),
    ) -> M {
        let Self { mut machine, mut commands } = self;
        let (mut out, mut batch) = (Outbox::new(), Vec::new());
        let sleep = sleep_until(Instant::now());
        tokio::pin!(sleep);
        loop {
            let deadline = machine.next_deadline();
            if let Some(deadline) = deadline {
                sleep.as_mut().reset(clock.instant(deadline));
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return machine,
                () = sleep.as_mut(), if deadline.is_some() => {
                    let now = clock.now();
                    machine.on_deadline(&mut Context::new(now, &mut rng), &mut out);
                    debug_assert!(machine.next_deadline().is_none_or(|next| next > now), "a core must not spin");
                    out.drain().for_each(|output| carry_out(now, output));
                }
                taken = commands.recv_many(&mut batch, limits::MACHINE_BATCH) => {
                    if taken == 0 {
                        return machine;
                    }
                    for command in batch.drain(..) {
                        let now = clock.now();
                        match command {
                            Command::Input(input) => machine.handle(&mut Context::new(now, &mut rng), input, &mut out),
                            Command::Inspect(look) => look(&machine),
                        }
                        out.drain().for_each(|output| carry_out(now, output));
                    }
                }
            }
        }
    }
}

impl<M: Machine> fmt::Debug for Driver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// A group of tasks that end together and are counted. A panic ends the task in which it happens, not the
/// process. Cheap to clone; clones are the same group.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    panics: Arc<AtomicU64>,
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self { tracker: TaskTracker::new(), token: CancellationToken::new(), panics: Arc::default() }
    }

    /// A group that ends with this one, or earlier by itself. Its tasks and panics count here too.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), ..self.clone() }
    }

    /// Cancelled when the group ends.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Spawns a task that is dropped, at its next `await`, when the group ends.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.spawn_guarded(name, task, || {})
    }

    /// [`Self::spawn`], with something to do should the task panic: close its peer's connection.
    pub fn spawn_guarded(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
        on_panic: impl FnOnce() + Send + 'static,
    ) -> AbortHandle {
        let token = self.token.clone();
        // Each wrapper of a future would hold it twice, as what it captured and as what it polls: a box is one.
        let mut task = Box::pin(task);
        let task = async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                () = &mut task => {}
            }
        };
        self.track(name, task, on_panic)
    }

    /// Spawns a task that runs to its end even when the group ends; it must bound its own time.
    pub fn spawn_to_end(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.track(name, Box::pin(task), || {})
    }

    /// Tells all tasks to end. None can be lost: those spawned later end at once.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Waits until no task is left. Only ends after [`Self::cancel`], or when all tasks have ended by
    /// themselves.
    pub async fn wait(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Tells all tasks to end and waits for them, at most `limit`. Returns how many are left: 0 is good.
    pub async fn shutdown(&self, limit: Duration) -> usize {
        self.cancel();
        // What is left is counted below.
        let _ = timeout(limit, self.wait()).await;
        self.len()
    }

    /// Tasks that have not ended.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// True if every task has ended.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Tasks that ended by a panic: defects, each of which is logged.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    fn track(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
        on_panic: impl FnOnce() + Send + 'static,
    ) -> AbortHandle {
        let panics = Arc::clone(&self.panics);
        let guarded = async move {
            // Whatever the task held is dropped with it; what it shared is behind locks that forgive.
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                panics.fetch_add(1, Ordering::Relaxed);
                TASK_PANICS.increment(kind_of(name));
                tracing::error!(task = name, message = panic_text(panic.as_ref()), "a task panicked");
                on_panic();
            }
        };
        self.tracker.spawn(guarded).abort_handle()
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

/// Does something on the caller's thread that must not take more with it than itself if it panics: that is counted and
/// logged, and gives `None`.
pub fn guarded<T>(task: metrics::Task, work: impl FnOnce() -> T) -> Option<T> {
    // What the work held is dropped with it; what it shared is behind locks that forgive.
    let done = std::panic::catch_unwind(AssertUnwindSafe(work));
    let told = |panic: Box<dyn Any + Send>| {
        TASK_PANICS.increment(task);
        tracing::error!(task = metrics::Label::value(task), message = panic_text(panic.as_ref()), "a task panicked");
    };
    done.map_err(told).ok()
}

/// What the metrics call a task.
fn kind_of(name: &str) -> metrics::Task {
    match name {
        "api" | "probes" => metrics::Task::Api,
        _ if name.contains("stream") => metrics::Task::Stream,
        _ if ["home", "leaf", "mesh", "connection"].iter().any(|kind| name.starts_with(kind)) => {
            metrics::Task::Connection
        }
        _ => metrics::Task::Other,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(5);

    /// Doubles what it is given, and says 0 every [`BEAT`].
    #[derive(Debug)]
    struct Doubler {
        next: Time,
        seen: u32,
    }

    impl Machine for Doubler {
        type Input = u32;
        type Output = u32;

        fn handle(&mut self, _: &mut Context<'_>, input: u32, out: &mut Outbox<u32>) {
            self.seen += 1;
            out.push(2 * input);
        }

        fn next_deadline(&self) -> Option<Time> {
            Some(self.next)
        }

        fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<u32>) {
            self.next = cx.now + BEAT;
            out.push(0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_core_gets_inputs_and_deadlines_in_order_until_shutdown() {
        let (clock, tasks) = (Clock::new(), Tasks::new());
        let (handle, driver) = Driver::new(Doubler { next: clock.now() + BEAT, seen: 0 });
        let (outputs, mut told) = mpsc::channel(16);
        let (result, core) = oneshot::channel();
        let token = tasks.token();
        tasks.spawn_to_end("core", async move {
            let carry_out = |_, output| outputs.try_send(output).unwrap();
            result.send(driver.run(clock, system_rng().unwrap(), token, carry_out).await).unwrap();
        });
        handle.input(21).await.unwrap();
        handle.try_input(4).unwrap();
        assert_eq!(handle.inspect(|core| core.seen).await, Ok(2));
        let heard = [told.recv().await, told.recv().await, told.recv().await, told.recv().await];
        assert_eq!(heard, [Some(42), Some(8), Some(0), Some(0)]);
        assert_eq!(tasks.shutdown(Duration::from_secs(1)).await, 0);
        assert_eq!(core.await.unwrap().seen, 2);
        assert_eq!(handle.input(1).await, Err(Stopped));
        assert_eq!(handle.try_input(1), Err(InputError::Stopped(Stopped)));
    }

    #[tokio::test]
    async fn inputs_beyond_the_queue_are_refused() {
        let (handle, _driver) = Driver::new(Doubler { next: Time::ZERO, seen: 0 });
        for _ in 0..limits::MACHINE_INPUTS {
            handle.try_input(1).unwrap();
        }
        assert_eq!(handle.try_input(1), Err(InputError::Full));
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_only() {
        let build = metrics::Build { version: "0.1.0", revision: "unknown", role: metrics::Role::Leaf };
        let counted = metrics::install(build, &[]).unwrap();
        let tasks = Tasks::new();
        let (told, consequence) = oneshot::channel();
        tasks.spawn_guarded("home", async { panic!("on purpose") }, move || told.send(()).unwrap());
        let bystander = tasks.child();
        bystander.spawn("bystander", std::future::pending());
        consequence.await.unwrap();
        assert_eq!(tasks.panics(), 1);
        assert!(counted.render().contains(r#"quictrack_task_panics_total{task="connection"} 1"#));
        assert_eq!(tasks.shutdown(Duration::from_secs(5)).await, 0);
        assert!(bystander.token().is_cancelled() && bystander.is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_counted_by_what_its_task_does() {
        use crate::metrics::watching::value;
        for (name, kind) in
            [("mesh streams", "stream"), ("leaf", "connection"), ("probes", "api"), ("configuration", "other")]
        {
            let series = format!("quictrack_task_panics_total{{task=\"{kind}\"}}");
            let (tasks, before) = (Tasks::new(), value(&series));
            tasks.spawn(name, async { panic!("on purpose") });
            tasks.wait().await;
            assert!(value(&series) > before, "{name}");
        }
        for (task, kind) in [(metrics::Task::Scan, "scan"), (metrics::Task::Hash, "hash")] {
            let series = format!("quictrack_task_panics_total{{task=\"{kind}\"}}");
            let before = value(&series);
            assert_eq!(guarded(task, || 7), Some(7));
            assert_eq!(guarded::<u8>(task, || panic!("on purpose")), None);
            assert!(value(&series) > before, "{kind}");
        }
    }

    #[tokio::test]
    async fn a_child_group_ends_alone() {
        let tasks = Tasks::new();
        let child = tasks.child();
        child.cancel();
        child.spawn("late", std::future::pending());
        tasks.wait().await;
        assert!(!tasks.token().is_cancelled());
    }
}
