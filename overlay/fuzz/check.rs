//! What must hold for any bytes that arrive: the body of the fuzz targets, run by ordinary tests too.

use overlay::wire::{Message, frame};

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
