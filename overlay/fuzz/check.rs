//! What must hold for any bytes that arrive: the body of the fuzz targets, run by ordinary tests too.

use overlay::{
    batch::{self, Assembler},
    identity::Identity,
    limits,
    query::Query,
    wire::{
        Message,
        descriptor::{Descriptor, SignedDescriptor},
        frame,
    },
};

/// Takes frames off `bytes` until an error or the end. What was understood must survive being sent on, in
/// no more bytes than it came in.
pub(crate) fn frames<M: Message + PartialEq + std::fmt::Debug>(mut bytes: &[u8]) {
    while let Ok(Some((message, used))) = frame::decode::<M>(bytes) {
        assert!((frame::HEADER_BYTES..=bytes.len()).contains(&used));
        if let Some(message) = message {
            let mut again = Vec::new();
            frame::encode(&message, &mut again).expect("what was within its cap stays within it");
            assert!(again.len() <= used);
            assert_eq!(frame::decode::<M>(&again), Ok(Some((Some(message), again.len()))));
        }
        bytes = &bytes[used..];
    }
}

/// Takes `bytes` as a chunk of a file list, and as a batch of one.
pub(crate) fn chunk(bytes: &[u8]) {
    if let Ok(files) = batch::decode_chunk(bytes) {
        assert!(files.len() <= limits::CHUNK_FILES && files.iter().all(|file| file.check().is_ok()));
        let again = batch::encode_chunk(&files);
        assert!(again.len() <= bytes.len());
        assert_eq!(batch::decode_chunk(&again), Ok(files));
    }
    for length in [1, bytes.len(), limits::BATCH_RAW_BYTES, limits::CHUNK_BYTES] {
        if let Ok(mut assembler) = Assembler::new(batch::chunk_hash(bytes), length) {
            let _ = assembler.push(bytes);
            let _ = assembler.push(bytes);
            if let Ok(whole) = assembler.finish() {
                assert_eq!(whole, bytes, "the name is that of these bytes");
            }
        }
    }
}

/// Takes `bytes` as the text of a query.
pub(crate) fn query(bytes: &[u8]) {
    let source = String::from_utf8_lossy(bytes);
    match Query::parse(&source) {
        Ok(query) => {
            assert!((1..=limits::QUERY_TERMS).contains(&query.terms().len()));
            let normal = query.to_string();
            if normal.chars().count() <= limits::QUERY_CHARS {
                assert_eq!(Query::parse(&normal), Ok(query));
            }
        }
        Err(error) => {
            assert!((1..=source.chars().count() + 1).contains(&error.position));
            assert!(!error.to_string().is_empty() && !error.hint().is_empty());
        }
    }
}

/// Takes `bytes` as a signed descriptor, and as one whose signature is right.
pub(crate) fn descriptor(bytes: &[u8]) {
    if let Ok(signed) = postcard::from_bytes::<SignedDescriptor>(bytes) {
        // Nobody finds a signature by chance, but those of the seeds are right.
        if let Ok(descriptor) = signed.open() {
            assert!(descriptor.lifetime_s <= limits::DESCRIPTOR_LIFETIME_MAX_S && descriptor.shard.length <= 32);
        }
    }
    if let Ok(mut descriptor) = postcard::from_bytes::<Descriptor>(bytes) {
        let identity = Identity::from_seed([7; 32]);
        descriptor.peer = identity.peer_id();
        if let Ok(opened) = descriptor.sign(&identity).open() {
            assert_eq!(opened, descriptor);
        }
    }
}
