//! Chunks of file lists, and batches of them: `cargo +nightly fuzz run chunk` in `overlay/`.

#![no_main]

#[path = "../check.rs"]
#[allow(dead_code, reason = "each target has its own")]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::chunk(bytes));
