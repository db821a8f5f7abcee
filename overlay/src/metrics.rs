//! What Prometheus sees: one registry a process, declared families, closed labels.
//!
//! A family is a `static` made by [`families!`](crate::families): name, help, label enums, buckets. Its
//! declaration is everything: [`install`] gives the exporter its buckets and help text and creates every
//! series at 0, so a dashboard never waits for a first event, and a label value that is no enum variant
//! cannot be written. Before [`install`] counting does nothing, so libraries may count without asking.
//!
//! ```text
//!   drivers ─┬─ counters ──> a number for each thread ── collect ─┐
//!            └─ gauges, histograms ──> handle, fetched once ──────┴─> registry ── render ──> GET /metrics
//! ```
//!
//! Rules: prefix `quictrack_`; base units (seconds, bytes); counters end in `_total`; full final names
//! here; never a peer, address, content, file name or query in a label.

pub mod family;
mod http;
mod shared;
mod tally;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tokio::{runtime::Handle, time};
use tokio_util::sync::CancellationToken;

pub use family::{Counters, Family, Gauges, Histograms, Label, Labels};
pub use http::{HttpRequests, RouteCounters};
pub use shared::*;

use crate::limits;

/// Buckets from a round trip on loopback to half a minute.
pub const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What the process is.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// The package's version.
    pub version: &'static str,
    /// The commit it was built from, or `unknown`.
    pub revision: &'static str,
    /// What it was started as.
    pub role: Role,
}

/// The installed registry. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: Collector,
    families: Arc<[&'static dyn Family]>,
}

/// Why metrics cannot be had. A mistake in the program; nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// An earlier [`install`] did not name this family, so its buckets are unknown to the exporter.
    #[error("metric family {0} comes after the registry was installed")]
    Late(&'static str),
    /// Another library installed a registry of its own, or a family has no buckets.
    #[error(transparent)]
    Exporter(#[from] BuildError),
}

struct Installed {
    metrics: Metrics,
    names: BTreeSet<&'static str>,
}

static INSTALLED: Mutex<Option<Installed>> = Mutex::new(None);

/// Installs the registry with this crate's families and `more`, all series at 0.
///
/// Further calls return the same registry (tests and `demo` run several nodes in one process); they must
/// not bring families that the first did not.
pub fn install(build: Build, more: &[&'static [&'static dyn Family]]) -> Result<Metrics, InstallError> {
    let families = || std::iter::once(&FAMILIES).chain(more).flat_map(|table| table.iter().copied());
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(installed) = installed.as_ref() {
        return match families().find(|family| !installed.names.contains(family.name())) {
            Some(late) => Err(InstallError::Late(late.name())),
            None => Ok(installed.metrics.clone()),
        };
    }
    let mut builder = PrometheusBuilder::new();
    for family in families() {
        if let Some(buckets) = family.buckets() {
            builder = builder.set_buckets_for_metric(Matcher::Full(family.name().to_owned()), buckets)?;
        }
    }
    let (handle, process) = (builder.install_recorder()?, Collector::default());
    let metrics = Metrics { handle, process, families: families().collect() };
    for family in families() {
        family.declare();
    }
    http::describe();
    metrics.process.describe();
    declare_build(build);
    *installed = Some(Installed { metrics: metrics.clone(), names: families().map(Family::name).collect() });
    Ok(metrics)
}

/// The one family whose label values are no enum: they are fixed when the program is built.
fn declare_build(build: Build) {
    const NAME: &str = "quictrack_build_info";
    metrics::describe_gauge!(NAME, "Always 1; the labels tell what runs.");
    let labels = [("version", build.version), ("revision", build.revision), ("role", build.role.value())];
    metrics::gauge!(NAME, &labels).set(1.0);
}

impl Metrics {
    /// The exposition in text format 0.0.4. Reads `/proc`, the current runtime and the counts of all threads first.
    pub fn render(&self) -> String {
        self.process.collect();
        collect_runtime();
        self.families.iter().for_each(|family| family.collect());
        self.handle.render()
    }

    /// Folds raw samples into buckets until `stop`; without it memory grows while nobody scrapes.
    pub async fn upkeep(self, stop: CancellationToken) {
        let mut ticks = time::interval(limits::METRICS_UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.handle.run_upkeep(),
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn collect_runtime() {
    let Ok(runtime) = Handle::try_current() else { return };
    let runtime = runtime.metrics();
    let workers = runtime.num_workers();
    let busy: Duration = (0..workers).map(|worker| runtime.worker_total_busy_duration(worker)).sum();
    let parks = (0..workers).map(|worker| runtime.worker_park_count(worker)).sum();
    RUNTIME_WORKERS.set((), workers as f64);
    RUNTIME_TASKS.set((), runtime.num_alive_tasks() as f64);
    RUNTIME_QUEUE.set((), runtime.global_queue_depth() as f64);
    RUNTIME_BUSY.absolute((), busy.as_secs());
    RUNTIME_PARKS.absolute((), parks);
}

/// For tests: what the registry of this process says.
#[cfg(test)]
pub(crate) mod watching {
    use super::{Build, Role, install};

    /// What a series stands at, by its name and labels as they are exposed.
    pub(crate) fn value(series: &str) -> f64 {
        let build = Build { version: "0.1.0", revision: "unknown", role: Role::Leaf };
        let text = install(build, &[]).unwrap().render();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {series}: {text}"))
    }

    /// Does something that must make a series rise. Other tests of this process may raise it as well.
    pub(crate) fn raises(series: &str, act: impl FnOnce()) {
        let before = value(series);
        act();
        assert!(value(series) > before, "{series} stays at {before}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILD: Build = Build { version: "0.1.0", revision: "unknown", role: Role::Leaf };

    crate::families! {
        /// Comes too late.
        static LATE: Counters<()> = "quictrack_test_late_total", "Never installed.";
    }

    #[test]
    fn every_series_exists_from_the_start() {
        let text = install(BUILD, &[]).unwrap().render();
        for family in super::FAMILIES {
            assert!(text.contains(&format!("# HELP {} ", family.name())), "{}", family.name());
        }
        for line in [
            r#"quictrack_build_info{version="0.1.0",revision="unknown",role="leaf"} 1"#,
            r#"quictrack_connections_closed_total{kind="mesh",reason="shutdown"} 0"#,
            r#"quictrack_handshake_duration_seconds_bucket{direction="in",le="0.001"} 0"#,
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        assert!(!text.contains("quantile="), "a histogram without buckets");
        for name in ["process_cpu_seconds_total", "process_open_fds", "quictrack_messages_total"] {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }

    #[test]
    fn installing_again_is_harmless_and_a_late_family_is_refused() {
        install(BUILD, &[]).unwrap();
        install(BUILD, &[]).unwrap();
        assert!(matches!(install(BUILD, &[FAMILIES]), Err(InstallError::Late(_))));
        LATE.increment(());
        assert!(!install(BUILD, &[]).unwrap().render().contains("quictrack_test_late"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_runtime_does_shows() {
        let metrics = install(BUILD, &[]).unwrap();
        let value = move |name: &str| {
            let text = metrics.render();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
            line.unwrap_or_else(|| panic!("no {name}: {text}"))
        };
        let stop = CancellationToken::new();
        let sleepers: Vec<_> = (0..3).map(|_| tokio::spawn(stop.clone().cancelled_owned())).collect();
        // Whole seconds are told: the workers are busy with this until the first one is over.
        let worker = tokio::spawn(async move {
            while value("quictrack_runtime_busy_seconds_total") < 1.0 {
                tokio::task::yield_now().await;
            }
            ["workers", "alive_tasks", "parks_total"].map(|name| value(&format!("quictrack_runtime_{name}")))
        });
        let [workers, tasks, parks] = worker.await.unwrap();
        assert!(workers >= 1.0 && tasks >= sleepers.len() as f64 && parks >= 1.0, "{workers} {tasks} {parks}");
        stop.cancel();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_waits_for_a_worker_shows() {
        let metrics = install(BUILD, &[]).unwrap();
        // Other tests of this process have runtimes of their own, which may be looked at just then.
        let shows = |depth: u64| {
            let line = format!("quictrack_runtime_global_queue_depth {depth}");
            (0..1_000).any(|_| metrics.render().lines().any(|have| have == line))
        };
        // The test runs beside the only worker, which stands still until it is let go.
        let (started, stands) = std::sync::mpsc::channel();
        let (go, stopped) = std::sync::mpsc::channel::<()>();
        let blocked = tokio::spawn(async move {
            started.send(()).unwrap();
            stopped.recv().unwrap();
        });
        stands.recv().unwrap();
        let tasks: Vec<_> = (0..7).map(|_| tokio::spawn(async {})).collect();
        assert!(shows(7), "{}", metrics.render());
        go.send(()).unwrap();
        blocked.await.unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(shows(0), "{}", metrics.render());
    }

    #[test]
    fn names_follow_the_rules() {
        for family in super::FAMILIES {
            let name = family.name();
            assert!(name.starts_with("quictrack_"), "{name}");
            assert!(family.series() <= 200, "{name} has {} series", family.series());
        }
        let names: BTreeSet<_> = super::FAMILIES.iter().map(|family| family.name()).collect();
        assert_eq!(names.len(), super::FAMILIES.len());
    }
}
