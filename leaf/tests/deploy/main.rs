//! What lies in `deploy/`, judged by the tools that will use it and by the programs that it is for.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the tests of the program use the rest")]
mod support;

mod metrics;

use std::path::{Path, PathBuf};

/// A path below `deploy/`.
fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy").join(path)
}
