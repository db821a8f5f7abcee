//! The wire format: golden bytes of every message, and what must hold for any bytes at all.
//!
//! `golden/PROTOCOL.txt` has one line for each message: its name and its frame in hex. A line never
//! changes: a message that must change gets a successor. After adding a message to `samples`, run the
//! tests once with `GOLDEN=write`; it adds the line and a seed for the fuzzer.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod samples;

use std::{collections::BTreeMap, fs, path::PathBuf};

use data_encoding::HEXLOWER;
use overlay::{
    limits,
    metrics::{self, Build, Direction, MESSAGES, Role},
    wire::{
        Conversation, Message, Opening, Protocol, frame, leaf::LeafMessage, mesh::MeshMessage,
        transfer::TransferMessage,
    },
};
use proptest::{prelude::*, sample::Index};

#[path = "../../fuzz/check.rs"]
#[expect(dead_code, reason = "the rest is for the corpus")]
mod check;

fn folder(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), path].iter().collect()
}

fn encoded<M: Message>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(message, &mut bytes).unwrap();
    bytes
}

fn golden<M: Conversation + PartialEq + std::fmt::Debug>(samples: &[M]) {
    let protocol = M::PROTOCOL.name();
    let path = folder("tests/golden").join(format!("{protocol}.txt"));
    if std::env::var_os("GOLDEN").is_some_and(|wish| wish == "write") {
        write(&path, samples);
    }
    let text = fs::read_to_string(&path).unwrap();
    let lines: BTreeMap<_, _> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    for sample in samples {
        let line = lines.get(sample.name()).unwrap_or_else(|| panic!("no golden bytes of {}", sample.name()));
        let bytes = HEXLOWER.decode(line.as_bytes()).unwrap();
        assert_eq!(HEXLOWER.encode(&encoded(sample)), *line, "{} is encoded otherwise", sample.name());
        let decoded = frame::decode::<M>(&bytes).unwrap();
        let (message, used) = decoded.unwrap();
        assert_eq!((message.as_ref(), used), (Some(sample), bytes.len()));
    }
    let names = |table: &[(u16, &'static str, usize)]| table.iter().map(|(_, name, _)| *name).collect::<Vec<_>>();
    let sampled: Vec<_> = samples.iter().map(Message::name).collect();
    assert_eq!(sampled, names(M::PROTOCOL.messages()), "every message has one sample, in the order of their numbers");
}

/// Adds the lines that are missing. Those that exist stay, whatever the samples are encoded as now.
fn write<M: Conversation>(path: &PathBuf, samples: &[M]) {
    let before = fs::read_to_string(path).unwrap_or_default();
    let known = |sample: &M| before.lines().find(|line| line.split(' ').next() == Some(sample.name()));
    let line = |sample: &M| match known(sample) {
        Some(line) => format!("{line}\n"),
        None => format!("{} {}\n", sample.name(), HEXLOWER.encode(&encoded(sample))),
    };
    fs::write(path, samples.iter().map(line).collect::<String>()).unwrap();
    let corpus = folder("fuzz/corpus").join(M::PROTOCOL.name());
    fs::create_dir_all(&corpus).unwrap();
    for sample in samples {
        fs::write(corpus.join(sample.name()), encoded(sample)).unwrap();
    }
}

#[test]
fn leaf_messages_keep_their_bytes() {
    golden::<LeafMessage>(&samples::leaf());
}

#[test]
fn mesh_messages_keep_their_bytes() {
    golden::<MeshMessage>(&samples::mesh());
}

#[test]
fn transfer_messages_keep_their_bytes() {
    golden::<TransferMessage>(&samples::transfer());
}

/// Seeds of the fuzz targets that take no frames.
#[test]
fn seeds_are_what_is_sent_today() {
    for (name, bytes) in samples::seeds() {
        let path = folder("fuzz/corpus").join(name);
        if std::env::var_os("GOLDEN").is_some_and(|wish| wish == "write") {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{name} is encoded otherwise");
    }
}

#[test]
fn all_protocols_begin_with_the_same_numbers() {
    for protocol in Protocol::ALL {
        let first: Vec<_> = protocol.messages().iter().map(|(number, name, _)| (*number, *name)).take(4).collect();
        assert_eq!(first, [(1, "Hello"), (2, "Welcome"), (3, "Refuse"), (4, "Goodbye")]);
        assert_eq!(Opening::LAST_NUMBER, 3);
    }
}

/// Every frame of every protocol.
fn frames() -> Vec<Vec<u8>> {
    let leaf = samples::leaf().iter().map(encoded).collect::<Vec<_>>();
    let mesh = samples::mesh().iter().map(encoded).collect::<Vec<_>>();
    let transfer = samples::transfer().iter().map(encoded).collect::<Vec<_>>();
    [leaf, mesh, transfer].concat()
}

fn check_all(bytes: &[u8]) {
    check::frames::<LeafMessage>(bytes);
    check::frames::<MeshMessage>(bytes);
    check::frames::<TransferMessage>(bytes);
}

#[test]
fn a_frame_cut_anywhere_is_not_whole() {
    for frame in samples::leaf().iter().map(encoded) {
        for end in 0..frame.len() {
            assert_eq!(frame::decode::<LeafMessage>(&frame[..end]), Ok(None));
        }
    }
}

#[test]
fn a_leaf_cannot_even_say_that_it_has_more_wishes_than_it_may() {
    let wishes = |count: u32| (0..count).map(|number| (number, "rose")).collect::<Vec<_>>();
    let framed = |count: u32| {
        let body = postcard::to_stdvec(&wishes(count)).unwrap();
        [&(body.len() as u32).to_le_bytes()[..], &27_u16.to_le_bytes(), &body].concat()
    };
    let most = limits::WISHES_OF_LEAF as u32;
    assert!(frame::decode::<LeafMessage>(&framed(most)).is_ok_and(|read| read.is_some()));
    for count in [most + 1, 1_000, 10_000] {
        assert!(frame::decode::<LeafMessage>(&framed(count)).is_err(), "{count}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        check_all(&bytes);
    }

    #[test]
    fn any_body_is_a_message_or_an_error(number in 0_u16..40, body in proptest::collection::vec(any::<u8>(), 0..256)) {
        let header = [(body.len() as u32).to_le_bytes().as_slice(), &number.to_le_bytes()].concat();
        check_all(&[header, body].concat());
    }

    #[test]
    fn changed_messages_are_messages_or_errors(
        pick: Index,
        changes in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let frames = frames();
        let mut bytes = pick.get(&frames).clone();
        for (place, value) in changes {
            // The length stays, so that the change reaches the body.
            let place = 4 + place.index(bytes.len() - 4);
            bytes[place] = value;
        }
        check_all(&bytes);
    }
}

#[test]
fn every_message_is_counted_by_its_type_and_direction() {
    let build = Build { version: "0.1.0", revision: "unknown", role: Role::Leaf };
    let metrics = metrics::install(build, &[]).unwrap();
    for direction in [Direction::In, Direction::Out] {
        for message in &samples::leaf() {
            MESSAGES.count(message, 1, direction);
        }
        for message in &samples::mesh() {
            MESSAGES.count(message, 1, direction);
        }
        for message in &samples::transfer() {
            MESSAGES.count(message, 1, direction);
        }
    }
    let text = metrics.render();
    for family in ["quictrack_messages_total{", "quictrack_protocol_bytes_total{"] {
        let series: Vec<_> = text.lines().filter(|line| line.starts_with(family)).collect();
        let still = series.iter().find(|line| line.ends_with(" 0"));
        assert!(series.len() > 10 && still.is_none(), "{still:?}");
    }
}
