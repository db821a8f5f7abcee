//! Frames of the mesh protocol: `cargo +nightly fuzz run mesh` in `overlay/`.

#![no_main]

#[path = "../check.rs"]
#[allow(dead_code, reason = "each target has its own")]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::frames::<overlay::wire::mesh::MeshMessage>(bytes));
