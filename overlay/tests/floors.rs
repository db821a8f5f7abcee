//! The house stands as it was drawn: arrows between the packages point down only, no package holds unsafe
//! code, the shipped programs hold one cryptography, and the top level of the repository stays small.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value as Json;

/// The packages from the ground up. Each may depend on those before it.
const FLOORS: [&str; 4] = ["quictrack-overlay", "quictrack-ultrapeer", "quictrack-leaf", "quictrack-bench"];

/// What may lie at the top of the repository.
const TOP_LEVEL: [&str; 20] = [
    ".cargo",
    ".ci",
    ".gitattributes",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "bench",
    "clippy.toml",
    "deny.toml",
    "deploy",
    "leaf",
    "overlay",
    "rustfmt.toml",
    "ultrapeer",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The packages of the workspace, as cargo knows them.
fn packages() -> Vec<Json> {
    let text = output(env!("CARGO"), &["metadata", "--format-version", "1", "--locked", "--offline", "--no-deps"]);
    let mut metadata: Json = serde_json::from_str(&text).unwrap();
    std::mem::take(metadata["packages"].as_array_mut().unwrap())
}

fn text<'a>(of: &'a Json, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_else(|| panic!("`{key}` should be text"))
}

fn floor(package: &str) -> Option<usize> {
    FLOORS.iter().position(|name| *name == package)
}

#[test]
fn arrows_point_down_only_in_tests_too() {
    let packages = packages();
    assert_eq!(packages.len(), FLOORS.len(), "a package that is not on the drawing");
    for package in &packages {
        let name = text(package, "name");
        let own = floor(name).unwrap_or_else(|| panic!("{name} is not on the drawing"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let kind = dependency["kind"].as_str().unwrap_or("normal");
            let below = floor(text(dependency, "name"));
            assert!(below.is_none_or(|below| below < own), "{name} has an upward {kind} dependency: {dependency}");
        }
    }
}

#[test]
fn no_package_holds_unsafe_code() {
    let manifest = |path: &Path| fs::read_to_string(path).unwrap().parse::<toml::Table>().unwrap();
    let workspace = manifest(&root().join("Cargo.toml"));
    assert_eq!(workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for package in packages() {
        let path = text(&package, "manifest_path");
        let lints = manifest(Path::new(path))["lints"]["workspace"].as_bool();
        assert_eq!(lints, Some(true), "{path} does not take over the lints of the workspace");
    }
}

#[test]
fn the_programs_hold_one_cryptography() {
    let programs = ["-p", "quictrack-leaf", "-p", "quictrack-ultrapeer"];
    let tree = ["tree", "--locked", "--offline", "-e", "normal,build", "--prefix", "none", "-f", "{p}"];
    let tree = output(env!("CARGO"), &[&tree[..], &programs].concat());
    let parts: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(parts.contains("quinn") && parts.contains("aws-lc-rs"), "the tree says too little: {parts:?}");
    for banned in ["ring", "openssl", "openssl-sys", "native-tls", "bincode", "sled"] {
        assert!(!parts.contains(banned), "{banned} is part of a shipped program");
    }
}

#[test]
fn the_top_level_is_the_agreed_one() {
    // What git tracks, so that a developer's own files do not count; without git, what is not hidden.
    let tracked = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-tree", "--name-only", "HEAD"])
        .current_dir(root())
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>());
    let entries = tracked.unwrap_or_else(|| {
        let entries = fs::read_dir(root()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.') && name != "target").collect()
    });
    let strangers: Vec<_> = entries.iter().filter(|entry| !TOP_LEVEL.contains(&entry.as_str())).collect();
    assert!(strangers.is_empty(), "not agreed at the top level: {strangers:?}");
}
