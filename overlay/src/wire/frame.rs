//! Frames: `length (u32 LE) | number (u16 LE) | body`. The length counts the body alone.
//!
//! The header is judged before a byte of the body is read: a known number against its cap, an unknown
//! one against [`limits::UNKNOWN_FRAME_BYTES`] so that it can be skipped. Nothing here reads a socket.

use crate::{
    limits,
    wire::{DecodeError, Message},
};

/// Bytes before the body.
pub const HEADER_BYTES: usize = 6;

/// What the header of a frame says, once it was found acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A message of the protocol follows.
    Known {
        /// Its number.
        number: u16,
        /// Bytes of its body.
        length: usize,
    },
    /// A message of a later release follows: read that many bytes and forget them.
    Skip {
        /// Bytes to skip.
        length: usize,
    },
}

impl Header {
    /// Reads and judges a header.
    pub fn parse<M: Message>(bytes: [u8; HEADER_BYTES]) -> Result<Self, DecodeError> {
        let [l0, l1, l2, l3, n0, n1] = bytes;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let number = u16::from_le_bytes([n0, n1]);
        match M::cap(number) {
            Some(cap) if length <= cap => Ok(Self::Known { number, length }),
            None if length <= limits::UNKNOWN_FRAME_BYTES => Ok(Self::Skip { length }),
            _ => Err(DecodeError::Oversized { number, length }),
        }
    }
}

/// Appends `message` as a frame to `buffer`.
///
/// A body over its cap is a program error: the receiver would close the connection. It is refused here,
/// and `buffer` is as before.
pub fn encode<M: Message>(message: &M, buffer: &mut Vec<u8>) -> Result<(), DecodeError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    message.encode_body(buffer);
    let length = buffer.len() - start - HEADER_BYTES;
    let number = message.number();
    if M::cap(number).is_none_or(|cap| length > cap) {
        buffer.truncate(start);
        return Err(DecodeError::Oversized { number, length });
    }
    buffer[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    buffer[start + 4..start + HEADER_BYTES].copy_from_slice(&number.to_le_bytes());
    Ok(())
}

/// Takes the first frame off `bytes`: the message (`None` if it is unknown and skipped) and the bytes used.
/// `Ok(None)` if the frame is not whole yet.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<Option<(Option<M>, usize)>, DecodeError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    match Header::parse::<M>(*header)? {
        Header::Known { length, .. } | Header::Skip { length } if rest.len() < length => Ok(None),
        Header::Known { number, length } => {
            Ok(Some((Some(M::decode(number, &rest[..length])?), HEADER_BYTES + length)))
        }
        Header::Skip { length } => Ok(Some((None, HEADER_BYTES + length))),
    }
}
