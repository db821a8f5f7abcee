//! What Prometheus' own tool says of an exposition: for the tests of every program that has one.

use std::{
    io::Write,
    process::{Command, Stdio},
};

/// Fails if `promtool check metrics` has anything to say.
pub(crate) fn promtool(text: &str) {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.expect("promtool must be installed: it comes with the Debian package `prometheus`");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(text.as_bytes()).expect("promtool reads what it is given");
    drop(input);
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "promtool: {}", String::from_utf8_lossy(&said));
}
