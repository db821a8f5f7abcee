//! Tests that need a system of their own: a small disk, or addresses that are not loopback.

use std::{fs, os::unix::fs::MetadataExt, process::Command};

/// Set in the process that runs inside.
const INSIDE: &str = "QUICTRACK_TEST_INSIDE";

/// True inside of namespaces of its own, as `unshare` names them. Outside it runs the test `name` again inside, waits
/// for its end, fails if it failed, and returns false.
pub(crate) fn inside(name: &str, spaces: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let as_root: &[&str] = if is_root { &[] } else { &["--user", "--map-root-user"] };
    let program = std::env::current_exe().expect("a running program has a path");
    let output = Command::new("unshare")
        .args(as_root)
        .args(spaces)
        .arg(program)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("`unshare` is needed: it comes with util-linux");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let hint = "if it says that an operation is not permitted: run the tests as root, or allow user namespaces";
    assert!(output.status.success() && said.contains("1 passed"), "inside of a namespace: {said}\n{hint}");
    false
}

/// Runs a command of the system, which must succeed.
pub(crate) fn system(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{} is needed: {error}", command[0]));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
