//! Frames of the transfer protocol: `cargo +nightly fuzz run transfer` in `overlay/`.

#![no_main]

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::frames::<overlay::wire::transfer::TransferMessage>(bytes));
