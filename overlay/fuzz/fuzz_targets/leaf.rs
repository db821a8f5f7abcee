//! Frames of the leaf protocol: `cargo +nightly fuzz run leaf` in `overlay/`.

#![no_main]

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::frames::<overlay::wire::leaf::LeafMessage>(bytes));
