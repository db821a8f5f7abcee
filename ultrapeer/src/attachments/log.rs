//! The log of the own leaves, and what its followers were told of it.
//!
//! Changes are told at once, and those that follow shortly after are gathered for [`limits::LOG_PAUSE`].
//!
//! Invariant: whoever puts the frames for a follower together, in order, has the leaves of its prefix and their sum.

use std::{collections::BTreeMap, sync::Arc};

use overlay::{
    id::PeerId,
    limits,
    time::Time,
    wire::{
        bounded::List,
        descriptor::ShardPrefix,
        mesh::{AttachedList, AttachmentChange, AttachmentSum, Attachments as Frame},
    },
};

use super::LeafList;

/// The own leaves. See the module text.
#[derive(Debug, Default)]
pub(super) struct Log {
    leaves: BTreeMap<u64, Entry>,
    /// What followers were not told yet: the leaf's place, and the sum of the list that they know.
    pending: BTreeMap<u64, (u32, Option<u64>)>,
    followers: BTreeMap<PeerId, Follower>,
    /// Before that time changes are gathered.
    quiet_until: Time,
}

#[derive(Debug)]
struct Entry {
    place: u32,
    list: Arc<LeafList>,
}

#[derive(Debug)]
struct Follower {
    prefix: ShardPrefix,
    told: AttachmentSum,
}

impl Log {
    /// Leaves in it.
    pub(super) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Notes a leaf's place and list, or that it left. False if that is known.
    pub(super) fn change(&mut self, now: Time, handle: u64, entry: Option<(u32, Arc<LeafList>)>) -> bool {
        let list = entry.as_ref().map(|(_, list)| list.clone());
        let before = match entry {
            Some((place, list)) => self.leaves.insert(handle, Entry { place, list }),
            None => self.leaves.remove(&handle),
        };
        let Some(place) = self.leaves.get(&handle).or(before.as_ref()).map(|entry| entry.place) else { return false };
        let before = before.map(|entry| entry.list);
        if before == list {
            return false;
        }
        self.quiet_until = self.quiet_until.max(now);
        self.pending.entry(handle).or_insert_with(|| (place, before.map(|list| list.sum(handle))));
        true
    }

    /// Takes a follower on: what all must be told now, the new one of every leaf under its prefix.
    pub(super) fn follow(&mut self, now: Time, follower: PeerId, prefix: ShardPrefix) -> Vec<(PeerId, Frame)> {
        self.unfollow(&follower);
        let mut told = self.flush(now);
        let leaves = || self.leaves.iter().filter(|(_, entry)| prefix.covers(entry.place));
        let changes = leaves().map(|(handle, entry)| change(*handle, Some(&entry.list))).collect();
        let sum = leaves().fold(AttachmentSum::default(), |sum, (handle, entry)| AttachmentSum {
            leaves: sum.leaves + 1,
            sum: sum.sum ^ entry.list.sum(*handle),
        });
        told.extend(frames(changes, true, sum).into_iter().map(|frame| (follower, frame)));
        self.followers.insert(follower, Follower { prefix, told: sum });
        told
    }

    pub(super) fn unfollow(&mut self, follower: &PeerId) {
        self.followers.remove(follower);
    }

    /// When [`Self::flush`] is due.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        (!self.pending.is_empty()).then_some(self.quiet_until)
    }

    /// What followers must be told now of the changes since the last time.
    pub(super) fn flush(&mut self, now: Time) -> Vec<(PeerId, Frame)> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        self.quiet_until = now + limits::LOG_PAUSE;
        let pending = std::mem::take(&mut self.pending);
        let mut told = Vec::new();
        for (follower, Follower { prefix, told: sum }) in &mut self.followers {
            let mut changes = Vec::new();
            for (handle, (_, before)) in pending.iter().filter(|(_, (place, _))| prefix.covers(*place)) {
                let list = self.leaves.get(handle).map(|entry| &entry.list);
                if before.is_none() && list.is_none() {
                    continue; // it came and left meanwhile
                }
                sum.sum ^= before.unwrap_or(0) ^ list.map_or(0, |list| list.sum(*handle));
                sum.leaves = sum.leaves + u32::from(list.is_some()) - u32::from(before.is_some());
                changes.push(change(*handle, list));
            }
            if !changes.is_empty() {
                told.extend(frames(changes, false, *sum).into_iter().map(|frame| (*follower, frame)));
            }
        }
        told
    }
}

fn change(handle: u64, list: Option<&Arc<LeafList>>) -> AttachmentChange {
    let list = list.map(|list| AttachedList {
        sequence: list.sequence,
        place: list.place,
        chunks: List::new(list.chunks.iter().copied()),
    });
    AttachmentChange { handle, list }
}

/// Cuts changes into frames, the last of which says that they are all.
fn frames(changes: Vec<AttachmentChange>, reset: bool, sum: AttachmentSum) -> Vec<Frame> {
    let frame = |reset, changes: &mut Vec<_>| Frame { reset, caught_up: None, changes: List::new(changes.drain(..)) };
    let mut frames: Vec<Frame> = Vec::new();
    let (mut open, mut bytes) = (Vec::new(), 0);
    for change in changes {
        // An upper bound: ten bytes for a number.
        let size = 24 + 10 * change.list.as_ref().map_or(0, |list| list.chunks.len());
        let is_full = open.len() == limits::ATTACHMENTS_PER_FRAME || bytes + size > limits::ATTACHMENTS_FRAME_BYTES;
        if is_full && !open.is_empty() {
            frames.push(frame(reset && frames.is_empty(), &mut open));
            bytes = 0;
        }
        bytes += size;
        open.push(change);
    }
    frames.push(Frame { caught_up: Some(sum), ..frame(reset && frames.is_empty(), &mut open) });
    frames
}
