//! The database after a crash: whatever part of its writes reached the file, what was committed is there, and of what
//! was not, all or nothing.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use super::{files::tests::record, *};
use crate::store::record::Place;

/// What is done to a file.
#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Length(u64),
    /// All before it is on the disk.
    Sync,
}

/// A file in memory that remembers what was done to it.
#[derive(Clone, Debug, Default)]
struct Recorded {
    state: Arc<Mutex<(Vec<u8>, Vec<Step>)>>,
}

impl Recorded {
    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, Vec<Step>)> {
        self.state.lock().unwrap()
    }

    fn steps(&self) -> usize {
        self.lock().1.len()
    }

    fn take(&self, step: Step) {
        let mut state = self.lock();
        apply(&mut state.0, &step);
        state.1.push(step);
    }
}

fn apply(bytes: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Length(length) => bytes.resize(*length as usize, 0),
        Step::Write(offset, data) => {
            let (from, to) = (*offset as usize, *offset as usize + data.len());
            bytes.resize(bytes.len().max(to), 0);
            bytes[from..to].copy_from_slice(data);
        }
        Step::Sync => {}
    }
}

impl redb::StorageBackend for Recorded {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = offset as usize;
        let state = self.lock();
        let bytes = state.0.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.take(Step::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.take(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.take(Step::Write(offset, data.to_vec()));
        Ok(())
    }
}

/// Files of a transaction.
const FILES: u8 = 5;

fn names(transaction: u8) -> impl Iterator<Item = Vec<u8>> {
    (0..FILES).map(move |file| format!("folder {transaction}/file {file}").into_bytes())
}

/// The steps of several transactions, and after how many of them each was committed.
fn recorded() -> (Vec<Step>, Vec<usize>) {
    let file = Recorded::default();
    let inner = redb::Builder::new().create_with_backend(file.clone()).unwrap();
    let inner = RwLock::new(Some(with_tables(inner).unwrap()));
    let database = Database { path: "nowhere".into(), inner, full: AtomicBool::new(false) };
    let mut committed = vec![file.steps()];
    for transaction in 1..=4 {
        let record = record(u64::from(transaction), transaction);
        let puts: Vec<_> = names(transaction).map(|name| (name, &record)).collect();
        database.update_files(1, &puts, &[]).unwrap();
        committed.push(file.steps());
    }
    let gone: Vec<_> = names(1).collect();
    database.update_files(1, &[], &gone).unwrap();
    committed.push(file.steps());
    let steps = file.lock().1.clone();
    (steps, committed)
}

/// Opens what a crash left in the file, and checks what is there. `done` transactions were committed.
fn check(folder: &Path, image: &[u8], done: usize, what: &str) {
    let path = folder.join("state.redb");
    fs::write(&path, image).unwrap();
    let (database, aside) = Database::open(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(aside, None, "{what}: it counts as damaged");
    for transaction in 1..=4_u8 {
        let found = names(transaction).filter(|name| {
            let place = Place { root: 1, below: name.clone() };
            database.record(&place).unwrap_or_else(|error| panic!("{what}: {error}")).is_some()
        });
        let found = found.count();
        let (whole, removed) = (usize::from(FILES), transaction == 1 && done >= 5);
        let may_go = transaction == 1 && done == 4;
        assert!(found == 0 || found == whole, "{what}: {found} files of transaction {transaction}");
        assert!(
            found == whole || usize::from(transaction) > done || removed || may_go,
            "{what}: {transaction} is lost"
        );
        assert!(found == 0 || !removed, "{what}: what was removed is back");
    }
}

#[test]
fn a_kill_between_any_two_writes_loses_nothing_that_was_committed() {
    let (steps, committed) = recorded();
    let folder = tempfile::tempdir().unwrap();
    let mut image = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        apply(&mut image, step);
        let done = committed.iter().filter(|end| at + 1 >= **end).count();
        if let Some(done) = done.checked_sub(1) {
            check(folder.path(), &image, done, &format!("killed after write {at}"));
        }
    }
    assert!(steps.len() > committed[0] + 10, "{} steps", steps.len());
}

#[test]
fn a_power_failure_that_keeps_any_part_of_what_was_not_forced_to_the_disk_loses_nothing_that_was_committed() {
    let (steps, committed) = recorded();
    let folder = tempfile::tempdir().unwrap();
    let mut seed = 1_u64;
    let mut coin = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 63 == 1
    };
    for at in committed[0]..=steps.len() {
        let forced = steps[..at].iter().rposition(|step| matches!(step, Step::Sync)).map_or(0, |last| last + 1);
        for _ in 0..3 {
            let mut image = Vec::new();
            steps[..forced].iter().for_each(|step| apply(&mut image, step));
            for step in &steps[forced..at] {
                // The length of a file is its system's own business, and comes with what is written.
                if matches!(step, Step::Length(_)) || coin() {
                    apply(&mut image, step);
                }
            }
            let done = committed.iter().filter(|end| at >= **end).count() - 1;
            check(folder.path(), &image, done, &format!("power failed after write {at}"));
        }
    }
}
