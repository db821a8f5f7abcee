//! Signed descriptors: `cargo +nightly fuzz run descriptor` in `overlay/`.

#![no_main]

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::descriptor(bytes));
