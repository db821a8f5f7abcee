//! Frames of the transfer protocol: `cargo +nightly fuzz run transfer` in `overlay/`.

#![no_main]

#[path = "../check.rs"]
#[allow(dead_code, reason = "each target has its own")]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::frames::<overlay::wire::transfer::TransferMessage>(bytes));
