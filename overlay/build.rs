//! Sets `QUICTRACK_REVISION` for `--version` and the metrics: as the environment says, or in release builds as Git says.
//! Debug builds do not ask, so that a commit compiles nothing anew.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=QUICTRACK_REVISION");
    let is_given = env::var("QUICTRACK_REVISION").is_ok_and(|revision| !revision.is_empty());
    if is_given || env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    // Grows with every commit and change of branch. Without it, as in an archive of the sources, there is no Git.
    let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) else {
        return;
    };
    println!("cargo::rerun-if-changed={log}");
    if let Some(revision) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=QUICTRACK_REVISION={revision}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
