//! Where an ultrapeer stands: what its machine knows of itself at one moment, for status and metrics.

use std::{net::SocketAddr, time::Duration};

use overlay::{
    election::ballots,
    id::PeerId,
    membership::{Refused, State},
    wire::{
        descriptor::{Descriptor, ShardPrefix},
        election::Hurdle,
    },
};

use crate::{
    audits, digests, holders, index, possession,
    ultrapeer::{IndexChanges, Phase, Ultrapeer},
};

/// Where an ultrapeer stands, for status and metrics.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whether it serves.
    pub phase: Phase,
    /// Attached leaves.
    pub leaves: u32,
    /// Leaves it takes.
    pub max_leaves: u32,
    /// Bytes that index and digests may take.
    pub memory: u64,
    /// What its index holds.
    pub index: index::Stats,
    /// Chunks that were added to its index and removed from it since the start.
    pub index_changes: IndexChanges,
    /// Leaves attached anywhere.
    pub known_leaves: u64,
    /// The part of the leaf space that it covers.
    pub shard: ShardPrefix,
    /// Parts of the leaf space that a search asks for, its own included.
    pub shards: u32,
    /// Members that cover a part of what it covers, itself included.
    pub mates: u32,
    /// The digests of leaves that are attached elsewhere.
    pub digests: digests::Stats,
    /// The audits of other homes.
    pub audits: audits::Stats,
    /// Whether its leaves have what they list.
    pub possessions: possession::Stats,
    /// What others told of the ultrapeers and was not believed.
    pub refused: Refused,
    /// What it was told of who has which content.
    pub holders: holders::Stats,
    /// Ultrapeers in its view, itself included once it serves.
    pub ultrapeers: u32,
    /// The view's members, by key.
    pub members: Vec<Member>,
    /// Its own leaves, by session.
    pub attached: Vec<Attached>,
    /// Searches under way.
    pub searches: usize,
    /// Queries that were answered since the start: own leaves' and other ultrapeers'.
    pub queries: u64,
    /// Where others reach this node, as far as is known.
    pub address: Option<SocketAddr>,
    /// What keeps it from serving, as others say.
    pub hurdle: Option<Hurdle>,
    /// Its votes on others.
    pub ballots: ballots::Stats,
    /// Times that more ultrapeers were wanted, and no own leaf could serve.
    pub without_candidate: u64,
}

/// Another ultrapeer, for `peers`.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its key.
    pub peer: PeerId,
    /// Where it is reached.
    pub address: SocketAddr,
    /// The part of the leaf space that it covers.
    pub shard: ShardPrefix,
    /// How it stands.
    pub state: State,
    /// The round trip, if it is linked.
    pub rtt: Option<Duration>,
}

/// An own leaf, for `peers`.
#[derive(Clone, Copy, Debug)]
pub struct Attached {
    /// Its key.
    pub peer: PeerId,
    /// Where its packets come from.
    pub address: SocketAddr,
    /// Its searchable files.
    pub files: u64,
    /// The round trip.
    pub rtt: Option<Duration>,
}

impl Snapshot {
    pub(crate) fn of(machine: &Ultrapeer) -> Self {
        let leaves = machine.leaves();
        let member = |(descriptor, state): (&Descriptor, State)| Member {
            peer: descriptor.peer,
            address: descriptor.address,
            shard: descriptor.shard,
            state,
            rtt: None,
        };
        Self {
            phase: machine.phase(),
            leaves: leaves.len() as u32,
            max_leaves: leaves.capacity(),
            memory: leaves.memory(),
            index: machine.index().stats(),
            index_changes: machine.index_changes(),
            known_leaves: machine.attachments().leaves() as u64,
            shard: machine.neighbours().own(),
            shards: 1 + machine.neighbours().others().len() as u32,
            mates: 1 + machine.neighbours().mates().count() as u32,
            digests: machine.digests().stats(),
            audits: machine.audits().stats(),
            possessions: machine.possessions().stats(),
            refused: machine.membership().stats().refused,
            holders: machine.holders().stats(),
            ultrapeers: machine.membership().total(),
            members: machine.membership().iter().map(member).collect(),
            attached: leaves
                .iter()
                .map(|(_, leaf)| Attached { peer: leaf.peer, address: leaf.address, files: leaf.files, rtt: None })
                .collect(),
            searches: machine.searches(),
            queries: 0,
            address: None,
            hurdle: machine.hurdle(),
            ballots: machine.ballots().stats(),
            without_candidate: machine.appraisals().without_candidate(),
        }
    }
}
