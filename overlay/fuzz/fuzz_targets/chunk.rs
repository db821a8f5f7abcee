//! Chunks of file lists, and batches of them: `cargo +nightly fuzz run chunk` in `overlay/`.

#![no_main]

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::chunk(bytes));
