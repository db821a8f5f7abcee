//! The fuzzer's corpus as an ordinary test: every seed, and every input that once failed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../fuzz/check.rs"]
mod check;

use std::{fs, path::Path};

use overlay::wire::{Conversation, leaf::LeafMessage, mesh::MeshMessage, transfer::TransferMessage};

fn run<M: Conversation + PartialEq + std::fmt::Debug>() {
    let inputs = each(M::PROTOCOL.name(), check::frames::<M>);
    assert!(inputs >= M::PROTOCOL.messages().len(), "one seed for each message");
}

/// Checks every input of a target. Returns how many there are.
fn each(target: &str, check: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let inputs = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    inputs.map(|input| check(&fs::read(input).unwrap())).count()
}

#[test]
fn leaf() {
    run::<LeafMessage>();
}

#[test]
fn mesh() {
    run::<MeshMessage>();
}

#[test]
fn transfer() {
    run::<TransferMessage>();
}

#[test]
fn chunks() {
    assert!(each("chunk", check::chunk) > 0);
}

#[test]
fn queries() {
    assert!(each("query", check::query) > 0);
}

#[test]
fn descriptors() {
    assert!(each("descriptor", check::descriptor) > 0);
}
