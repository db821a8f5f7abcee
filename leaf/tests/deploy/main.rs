//! What lies in `deploy/`, judged by the tools that will use it and by the programs that it is for.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the tests of the program use the rest")]
mod support;

mod containers;
mod dashboards;
mod kubernetes;
mod metrics;
mod package;
mod prometheus;
mod scrape;
mod units;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// A path below `deploy/`.
fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy").join(path)
}

/// The text of a file below `deploy/`.
fn text_of(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

/// A file of JSON below `deploy/`.
fn json_of(path: &str) -> Value {
    serde_json::from_str(&text_of(path)).unwrap_or_else(|error| panic!("deploy/{path}: {error}"))
}

/// A tool: of the system, or where `.ci/test` puts those that the system does not have.
fn command(name: &str) -> Command {
    let tools = deploy("../target/tools");
    let mut path = env::var_os("PATH").unwrap_or_default();
    for folder in ["usr/bin", "venv/bin"] {
        path.push(":");
        path.push(tools.join(folder));
    }
    let mut command = Command::new(name);
    command.env("PATH", path);
    command
}

/// What a tool says on both streams; it must succeed.
fn tool(name: &str, arguments: &[&str]) -> String {
    let output = command(name).args(arguments).current_dir(deploy("")).output();
    let output = output.unwrap_or_else(|error| panic!("`{name}` cannot be run ({error}): `.ci/test` fetches it"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {said}");
    said
}

/// The documents of a file of YAML.
fn yaml(path: &Path) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let python = deploy("../target/tools/venv/bin/python");
    assert!(python.exists(), "{} is missing: `.ci/test` makes it", python.display());
    let said = tool(python.to_str().unwrap(), &["-c", script, path.to_str().unwrap()]);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{}: {error}: {said}", path.display()))
}
