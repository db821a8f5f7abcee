//! Single answers to what other leaves ask: judged by what is here, and nothing else.

use std::{io, ops::Range, sync::Arc};

use overlay::{
    id::ContentId,
    limits,
    transport::Sender,
    verify,
    wire::{
        bounded::{Blob, List},
        transfer::{
            Denied, DenyReason, Groups, Have, Segment, TransferMessage, Want, WantGroups, WantPart, WantSegment,
        },
    },
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{Client, Session, StreamError, lock};
use crate::{bitmap::Bitmap, transfer::holding::Holding};

/// Bytes of a bitmap between two changed ones up to which they are told together: what a message of its own takes.
const HAVE_GAP: usize = 12;

/// The session of a content on a connection.
pub(super) fn find(client: &Client, content: &ContentId) -> Result<Arc<Session>, DenyReason> {
    lock(&client.sessions).get(content).cloned().ok_or(DenyReason::NotHeld)
}

/// The bytes of a run, if it may be asked for.
pub(super) fn judge(holding: &Holding, want: Want) -> Result<Range<u64>, DenyReason> {
    if want.count == 0 || want.count > limits::RUN_PIECES {
        return Err(DenyReason::Malformed);
    }
    let last = want.first.checked_add(u64::from(want.count) - 1).ok_or(DenyReason::Malformed)?;
    let layout = holding.layout();
    let start = layout.piece_range(want.first).map_err(|_| DenyReason::Malformed)?.start;
    let end = layout.piece_range(last).map_err(|_| DenyReason::Malformed)?.end;
    if end - start > limits::RUN_BYTES.max(u64::from(layout.piece_bytes())) {
        return Err(DenyReason::Malformed);
    }
    if (want.first..=last).any(|piece| !holding.has(piece)) {
        return Err(DenyReason::NotHeld);
    }
    Ok(start..end)
}

/// The bytes of some groups of a piece, if they may be asked for.
pub(super) fn judge_part(holding: &Holding, want: WantPart) -> Result<Range<u64>, DenyReason> {
    let last = want.count.checked_sub(1).and_then(|more| want.first.checked_add(more)).ok_or(DenyReason::Malformed)?;
    let group = |group| holding.layout().group_range(want.piece, group).map_err(|_| DenyReason::Malformed);
    let bytes = group(want.first)?.start..group(last)?.end;
    if holding.has(want.piece) { Ok(bytes) } else { Err(DenyReason::NotHeld) }
}

/// Reads what comes next of a run, on a thread that may block.
pub(super) fn read(holding: &Arc<Holding>, start: u64, end: u64) -> JoinHandle<io::Result<Vec<u8>>> {
    let holding = Arc::clone(holding);
    let length = (end - start).min(limits::READ_BYTES as u64) as usize;
    spawn_blocking(move || holding.read(start, length))
}

pub(super) fn segment(client: &Client, want: WantSegment) -> TransferMessage {
    let values = find(client, &want.content)
        .and_then(|session| session.holding.segment(want.segment).ok_or(DenyReason::NotHeld));
    match values {
        Ok(values) => Segment { pieces: List::new(values.iter().copied()) }.into(),
        Err(reason) => Denied { reason }.into(),
    }
}

/// The group values of a piece, computed: asked for only after a piece was found wrong.
pub(super) async fn groups(client: &Client, want: WantGroups) -> TransferMessage {
    let denied = |reason| TransferMessage::from(Denied { reason });
    let Ok(_permit) = client.runs.acquire().await else { return denied(DenyReason::Busy) };
    let holding = match find(client, &want.content) {
        Ok(session) if session.holding.has(want.piece) => Arc::clone(&session.holding),
        Ok(_) => return denied(DenyReason::NotHeld),
        Err(reason) => return denied(reason),
    };
    let computed = spawn_blocking(move || {
        let range = holding.layout().piece_range(want.piece).ok()?;
        let data = holding.read(range.start, (range.end - range.start) as usize).ok()?;
        verify::group_values(holding.layout().size(), want.piece, &data).ok()
    });
    match computed.await {
        Ok(Some(groups)) => Groups { groups: List::new(groups) }.into(),
        _ => denied(DenyReason::Changed),
    }
}

pub(super) async fn deny(sender: &mut Sender<TransferMessage>, reason: DenyReason) -> Result<(), StreamError> {
    Ok(sender.send(&Denied { reason }.into()).await?)
}

/// Tells the parts of `now` that differ from `told`, or all of them.
pub(super) async fn send_have(
    sender: &mut Sender<TransferMessage>,
    told: &Bitmap,
    now: &Bitmap,
    all: bool,
) -> Result<(), StreamError> {
    let bytes = now.as_bytes();
    let parts = if all { whole(bytes.len()) } else { changed(told.as_bytes(), bytes) };
    for part in parts {
        let first = part.start as u64 * 8;
        let bits = Blob::new(bytes[part].to_vec()).expect("parts are no longer than a part may be");
        sender.send(&Have { first, bits }.into()).await?;
    }
    Ok(())
}

/// A bitmap of so many bytes in parts that fit a message.
fn whole(bytes: usize) -> Vec<Range<usize>> {
    let starts = (0..bytes).step_by(limits::HAVE_PART_BYTES);
    starts.map(|start| start..(start + limits::HAVE_PART_BYTES).min(bytes)).collect()
}

/// Where two bitmaps of one length differ. Differences that are nearer than a message takes are told as one.
fn changed(told: &[u8], now: &[u8]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for at in told.iter().zip(now).enumerate().filter(|(_, (old, new))| old != new).map(|(at, _)| at) {
        match parts.last_mut() {
            Some(part) if at < part.end + HAVE_GAP && at - part.start < limits::HAVE_PART_BYTES => part.end = at + 1,
            _ => parts.push(at..at + 1),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_told_makes_the_one_bitmap_out_of_the_other(
            old in prop::collection::vec(any::<u8>(), 0..300), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..9),
        ) {
            let mut new = old.clone();
            for (at, byte) in changes.iter().filter(|_| !old.is_empty()) {
                new[at.index(old.len())] = *byte;
            }
            let parts = changed(&old, &new);
            let mut told = old;
            for part in &parts {
                told[part.clone()].copy_from_slice(&new[part.clone()]);
            }
            prop_assert_eq!(&told, &new);
            prop_assert!(parts.windows(2).all(|pair| pair[0].end + HAVE_GAP <= pair[1].start));
        }
    }

    #[test]
    fn no_part_is_longer_than_a_message_takes() {
        let bytes = 3 * limits::HAVE_PART_BYTES + 5;
        for parts in [whole(bytes), changed(&vec![0; bytes], &vec![1; bytes])] {
            assert!(parts.iter().all(|part| part.len() <= limits::HAVE_PART_BYTES));
            assert_eq!(parts.iter().map(Range::len).sum::<usize>(), bytes);
        }
    }
}
