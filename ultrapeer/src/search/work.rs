//! What a search is at: leaves, parts of the leaf space, holders of its content, and queries to others about them.

use std::sync::Arc;

use overlay::{
    id::{PeerId, QueryId},
    time::Time,
    wire::{descriptor::ShardPrefix, mesh::ContentKey},
};

use super::Environment;
use crate::attachments::LeafList;

/// Those who know the holders of a content. One of them is enough.
#[derive(Debug)]
pub(super) struct Owners {
    /// In the order in which they are asked; taken out when they are.
    pub(super) order: std::vec::IntoIter<PeerId>,
    /// Those that are at it.
    pub(super) pending: u32,
    pub(super) is_done: bool,
}

/// A leaf that must be searched.
#[derive(Debug, Default)]
pub(super) struct Candidate {
    /// Homes that are at it.
    pub(super) pending: u32,
    /// Homes that did not answer (in time).
    pub(super) tried: Vec<PeerId>,
    /// Contents that may match; none if they are not known.
    pub(super) contents: Box<[ContentKey]>,
    /// The home that told of it, should no log name another.
    pub(super) teller: Option<PeerId>,
    /// The sequence of its list that was searched here, at the beginning.
    pub(super) own: Option<u64>,
    /// Its lists that homes have searched.
    pub(super) searched: Vec<Arc<LeafList>>,
}

impl Candidate {
    /// True if another home in the view has a list of it that was not searched.
    pub(super) fn is_open(&self, environment: Environment<'_>, handle: u64) -> bool {
        let mut homes = environment.attachments.unsearched(handle, self.own, &self.searched);
        homes.any(|(home, _)| environment.neighbours.get(home).is_some())
    }

    /// True if it came here, with a list that was not here at the beginning.
    pub(super) fn has_come(&self, environment: Environment<'_>, handle: u64) -> bool {
        environment.attachments.own_sequence(handle).is_some_and(|now| self.own.is_none_or(|own| own < now))
    }
}

/// A part of the leaf space that others cover.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) prefix: ShardPrefix,
    /// Members that are at it.
    pub(super) pending: u32,
    pub(super) tried: Vec<PeerId>,
    pub(super) is_done: bool,
}

impl Part {
    pub(super) const fn new(prefix: ShardPrefix) -> Self {
        Self { prefix, pending: 0, tried: Vec::new(), is_done: false }
    }
}

/// A query to another ultrapeer.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) id: QueryId,
    pub(super) peer: PeerId,
    pub(super) about: About,
    pub(super) state: State,
    /// When it was sent, until something comes.
    pub(super) since: Option<Time>,
    /// Contents that came.
    pub(super) hits: usize,
}

#[derive(Debug)]
pub(super) enum About {
    /// Leaves of it.
    Leaves(Vec<u64>),
    /// A part of the leaf space, by its place among `parts`.
    Part(usize),
    /// The holders of the content.
    Holders,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its next word is due at that time.
    Waiting(Time),
    /// It was not there then; its answer still counts until that time.
    Late(Time),
    Done,
    Failed,
}
