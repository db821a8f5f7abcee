//! The fuzzer's corpus as an ordinary test: every seed, and every input that once failed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../fuzz/check.rs"]
mod check;

use std::{fs, path::Path};

use overlay::wire::{Conversation, leaf::LeafMessage, mesh::MeshMessage, transfer::TransferMessage};

fn run<M: Conversation + PartialEq + std::fmt::Debug>() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(M::PROTOCOL.name());
    let inputs: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(inputs.len() >= M::PROTOCOL.messages().len(), "one seed for each message");
    for input in inputs {
        check::frames::<M>(&fs::read(input).unwrap());
    }
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
