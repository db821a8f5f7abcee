//! Frames of the leaf protocol: `cargo +nightly fuzz run leaf` in `overlay/`.

#![no_main]

#[path = "../check.rs"]
#[allow(dead_code, reason = "each target has its own")]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::frames::<overlay::wire::leaf::LeafMessage>(bytes));
