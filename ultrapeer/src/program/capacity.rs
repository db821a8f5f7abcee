//! Advice on what an operator offers: whether this machine can keep it. Nothing is refused; who knows better is not kept
//! from it.

use std::{fs, path::Path};

use overlay::{limits, report::Problem, units};

use crate::leaves::Settings;

/// Memory of a leaf that is attached, beside its list: 38.5 kB were measured with 10,000 (the load generator `leaves`).
const LEAF_BYTES: u64 = 40_000;
/// Memory of a file in the index: 41 bytes were measured with a million real names (the benchmark `index`), and its content
/// id.
const FILE_BYTES: u64 = 41 + 32;
/// Files of each leaf for which there should be room when all places are taken. Chosen: a folder of music.
const FILES_WANTED: u64 = 100;
/// Memory that the program takes besides. Chosen: some 30 MB were seen, and the system wants some, too.
const REST_BYTES: u64 = 128 << 20;
/// File descriptors that may be needed at once: local HTTP and probes, sockets that dial back, and what is open always.
const DESCRIPTORS: u64 = (2 * limits::HTTP_CONNECTIONS + limits::LEAF_DIAL_BACKS + limits::DIAL_BACKS + 64) as u64;

/// What this machine has; `None` is unknown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machine {
    /// Bytes of memory that this process may have.
    memory: Option<u64>,
    /// Files that it may have open.
    descriptors: Option<u64>,
    /// Mbit/s of the device of the default route.
    line_mbit: Option<u64>,
}

impl Machine {
    /// Looks at it. Reads some files of the system, which takes no time.
    pub(super) fn look() -> Self {
        Self { memory: memory(), descriptors: descriptors(), line_mbit: line_mbit() }
    }
}

/// What is offered and cannot be kept.
pub(super) fn advice(settings: &Settings, machine: Machine) -> Vec<Problem> {
    let problem = |message, hint| Problem { code: "capacity".to_owned(), message, hint: Some(hint) };
    let mut problems = Vec::new();
    let (leaves, index) = (u64::from(settings.max_leaves.max(1)), settings.memory);
    let needed = (leaves * LEAF_BYTES).saturating_add(index).saturating_add(REST_BYTES);
    if let Some(memory) = machine.memory.filter(|memory| needed > *memory) {
        let room = memory.saturating_sub(REST_BYTES);
        // Half for each, if not even the index finds room.
        let fitting = if index < room { index } else { room / 2 };
        let wanted = if index == u64::MAX {
            "an index without a limit takes all memory".to_owned()
        } else {
            format!("{leaves} leaves and {} of index may take {}", units::size(index), units::size(needed))
        };
        problems.push(problem(
            format!("{wanted}; this program may have {}", units::size(memory)),
            format!(
                "set `max_leaves` to {} at most, and `memory` to {}",
                ((room - fitting) / LEAF_BYTES).max(1),
                units::size(fitting),
            ),
        ));
    }
    let files = index / 2 / FILE_BYTES / leaves;
    if files < FILES_WANTED {
        problems.push(problem(
            format!("with {leaves} leaves the index has room for {files} files of each"),
            format!(
                "set `memory` to {} at least, or `max_leaves` lower",
                units::size(FILES_WANTED * leaves * 2 * FILE_BYTES),
            ),
        ));
    }
    if let Some(descriptors) = machine.descriptors.filter(|have| *have < DESCRIPTORS) {
        problems.push(problem(
            format!("this program may have {descriptors} files open, and may need {DESCRIPTORS}"),
            "raise the limit: `ulimit -n 1024`, or `LimitNOFILE` in the unit".to_owned(),
        ));
    }
    let relayed = settings.relay.rate.map(|rate| rate.saturating_mul(settings.relay.circuits.into()));
    let share = machine.line_mbit.map(|mbit| mbit.saturating_mul(1_000_000 / 8) * limits::RELAY_SHARE / 100);
    if let (Some(relayed), Some(share)) = (relayed, share)
        && relayed > share
    {
        let line = machine.line_mbit.unwrap_or_default();
        problems.push(problem(
            format!(
                "{} relayed connections may take {}, more than {} % of the line of {line} Mbit/s",
                settings.relay.circuits,
                units::rate(relayed as f64),
                limits::RELAY_SHARE,
            ),
            "lower `relay_circuits` or `relay_rate`, so that searches do not wait".to_owned(),
        ));
    }
    problems
}

/// Says it in the log.
pub(super) fn warn(problems: &[Problem]) {
    for Problem { message, hint, .. } in problems {
        tracing::warn!(hint = hint.as_deref().unwrap_or_default(), "{message}");
    }
}

/// The machine's memory, or less if this process is in a group that may have less.
#[cfg(target_os = "linux")]
fn memory() -> Option<u64> {
    let system = rustix::system::sysinfo();
    let all = (system.totalram as u64).saturating_mul(system.mem_unit.into());
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(group_limit(&groups, Path::new("/sys/fs/cgroup")).map_or(all, |limit| limit.min(all)))
}

#[cfg(not(target_os = "linux"))]
const fn memory() -> Option<u64> {
    None
}

/// The least limit of the group of this process and of those above it, as Linux lists and mounts them.
fn group_limit(groups: &str, mount: &Path) -> Option<u64> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let read = |folder: &Path| fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok();
    mount.join(own).ancestors().take_while(|folder| folder.starts_with(mount)).filter_map(read).min()
}

#[cfg(unix)]
fn descriptors() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
const fn descriptors() -> Option<u64> {
    None
}

/// The speed of the device of the default route, where the system tells.
fn line_mbit() -> Option<u64> {
    let routes = fs::read_to_string("/proc/net/route").ok()?;
    let default = routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (device, destination) = (fields.next()?, fields.next()?);
        (destination == "00000000").then_some(device)
    })?;
    let speed = fs::read_to_string(Path::new("/sys/class/net").join(default).join("speed")).ok()?;
    // A device that does not know says -1.
    speed.trim().parse().ok().filter(|mbit| *mbit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relays;

    const GIB: u64 = 1 << 30;
    const SERVER: Machine = Machine { memory: Some(24 * GIB), descriptors: Some(1_024), line_mbit: Some(1_000) };

    fn advised(settings: &Settings, machine: Machine) -> Vec<String> {
        let said = advice(settings, machine).into_iter().map(|problem| {
            assert_eq!(problem.code, "capacity");
            format!("{}; {}", problem.message, problem.hint.unwrap())
        });
        said.collect()
    }

    #[test]
    fn what_a_usual_server_offers_needs_no_advice() {
        assert!(advised(&Settings::default(), SERVER).is_empty());
        assert!(advised(&Settings { max_leaves: 1, ..Settings::default() }, SERVER).is_empty());
        assert!(advised(&Settings::default(), Machine::default()).is_empty(), "what is unknown is not doubted");
    }

    #[test]
    fn more_leaves_than_memory_are_doubted_and_what_fits_is_named() {
        let many = Settings { max_leaves: 10_000_000, ..Settings::default() };
        let said = advised(&many, SERVER);
        assert_eq!(
            said[0],
            "10000000 leaves and 537 MB of index may take 401 GB; this program may have 25.8 GB; \
             set `max_leaves` to 627467 at most, and `memory` to 537 MB",
        );
        assert_eq!(
            said[1],
            "with 10000000 leaves the index has room for 0 files of each; \
             set `memory` to 146 GB at least, or `max_leaves` lower",
        );
        let fits = Settings { max_leaves: 627_467, memory: 92 * GIB, ..Settings::default() };
        let machine = Machine { memory: Some(24 * GIB + fits.memory), ..SERVER };
        assert!(advised(&fits, machine).is_empty());
        let endless = Settings { memory: u64::MAX, ..Settings::default() };
        let said = advised(&endless, SERVER);
        assert!(said.len() == 1 && said[0].starts_with("an index without a limit"), "{said:?}");
        let small = Machine { memory: Some(256 << 20), ..SERVER };
        let said = advised(&Settings::default(), small);
        assert!(
            said.len() == 1 && said[0].ends_with("set `max_leaves` to 1677 at most, and `memory` to 67.1 MB"),
            "{said:?}"
        );
        let tiny = Machine { memory: Some(1), ..SERVER };
        assert!(advised(&Settings::default(), tiny)[0].contains("`max_leaves` to 1 at most"));
    }

    #[test]
    fn few_open_files_and_a_thin_line_are_told() {
        let said = advised(&Settings::default(), Machine { descriptors: Some(256), ..SERVER });
        assert!(said.len() == 1 && said[0].contains("256 files open"), "{said:?}");
        let thin = Machine { line_mbit: Some(10), ..SERVER };
        let said = advised(&Settings::default(), thin);
        assert_eq!(
            said,
            ["8 relayed connections may take 2.05 MB/s, more than 20 % of the line of 10 Mbit/s; \
              lower `relay_circuits` or `relay_rate`, so that searches do not wait"],
        );
        let relay = relays::Settings { circuits: 0, ..relays::Settings::default() };
        assert!(advised(&Settings { relay, ..Settings::default() }, thin).is_empty());
    }

    #[test]
    fn the_least_limit_of_the_groups_above_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, limit: &str| {
            fs::create_dir_all(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("memory.max"), limit).unwrap();
        };
        write("system.slice/node.service", "max\n");
        let limit = || group_limit("1:name=x:/y\n0::/system.slice/node.service\n", folder.path());
        assert_eq!(limit(), None);
        write("system.slice", "9000\n");
        assert_eq!(limit(), Some(9_000));
        write("system.slice/node.service", "7000\n");
        assert_eq!(limit(), Some(7_000));
        assert_eq!(group_limit("", folder.path()), None);
    }
}
