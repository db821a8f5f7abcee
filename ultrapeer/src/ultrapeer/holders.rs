//! Who has which content: what others are told of own leaves, and what look-ups are told of others'.

use std::net::SocketAddr;

use overlay::{
    address::network_prefix,
    id::{ContentId, PeerId, QueryId},
    machine::Outbox,
    time::Time,
    wire::{
        bounded::List,
        mesh::{Holdings, HoldingsAsk, QueryHolders, ToldHolder},
        search::Target,
    },
};

use super::{Output, Ultrapeer};
use crate::{
    attachments::Attachments,
    holders::{self, Chunks},
    index::Segment,
    leaves::Leaves,
};

impl Ultrapeer {
    /// This ultrapeer began or ended to serve, or moved.
    pub(super) fn rank_self(&mut self, now: Time) {
        let network = self.address.filter(|_| self.membership.is_serving()).map(network);
        self.holders.set_member(now, self.me, network);
    }

    /// Something changed of another ultrapeer, or of the link to it.
    pub(super) fn rank(&mut self, now: Time, peer: PeerId, out: &mut Outbox<Output>) {
        let network = self.membership.get(&peer).map(|member| network(member.address));
        self.holders.set_member(now, peer, network);
        let is_linked = self.membership.is_linked(&peer);
        let mut inner = Outbox::new();
        self.holders.set_linked(now, peer, is_linked, &mut inner);
        out.append_mapped(&mut inner, tell);
    }

    /// The lists or homes of leaves changed.
    pub(super) fn mark_holdings(&mut self, now: Time, handles: &[u64]) {
        for handle in handles {
            if self.attachments.is_own(*handle) || self.holders.has_told(*handle) {
                self.holders.mark(now, *handle);
            }
        }
    }

    /// Tells and forgets what it is time for.
    pub(super) fn tell_holdings(&mut self, now: Time, out: &mut Outbox<Output>) {
        let (me, attachments, leaves) = (self.me, &self.attachments, &self.leaves);
        let mut inner = Outbox::new();
        self.holders.on_deadline(now, |handle| list(me, attachments, leaves, handle), &mut inner);
        out.append_mapped(&mut inner, tell);
    }

    /// Another ultrapeer tells of its leaves.
    pub(super) fn holdings_heard(&mut self, now: Time, from: PeerId, frame: Holdings, out: &mut Outbox<Output>) {
        if self.holders.heard(now, from, frame) {
            out.push(Output::ToMesh(from, HoldingsAsk.into()));
        }
    }

    /// What a look-up of a content begins with: whom to ask, and leaves that are known to have it. `None` if it is done
    /// as every other search.
    pub(super) fn holders_of(&self, now: Time, target: &Target, seed: u64) -> Option<(Vec<PeerId>, Vec<ToldHolder>)> {
        let Target::Content(content) = target else { return None };
        let mut owners = self.holders.owners(content)?;
        let mut holders = Vec::new();
        if owners.contains(&self.me) {
            holders = self.holders.holders(content, seed);
            owners.retain(|owner| *owner != self.me);
            if self.holders.is_settled(now) {
                owners.clear();
            }
        }
        Some((owners, holders))
    }

    /// Another ultrapeer asks for the holders of a content: names those that are attached elsewhere.
    pub(super) fn name_holders(
        &self,
        now: Time,
        from: PeerId,
        id: QueryId,
        content: &ContentId,
        out: &mut Outbox<Output>,
    ) {
        // Of a blocked content another owner may tell more.
        let is_blocked = self.bans.blocks(content);
        let is_owner = !is_blocked && self.holders.owners(content).is_some_and(|owners| owners.contains(&self.me));
        let told = if is_blocked { Vec::new() } else { self.holders.holders(content, id.0) };
        let holders = List::new(told.into_iter().filter(|holder| !self.attachments.is_own(holder.handle)));
        let is_settled = is_owner && self.holders.is_settled(now);
        out.push(Output::ToMesh(from, QueryHolders { id, is_settled, holders }.into()));
    }
}

/// Nodes in one network count once.
fn network(address: SocketAddr) -> u64 {
    network_prefix(address, 24, 48)
}

fn tell((peer, frame): (PeerId, Holdings)) -> Output {
    Output::ToMesh(peer, frame.into())
}

/// The list of an own leaf, if it is searchable here and of its homes this one is to tell of it.
fn list(me: PeerId, attachments: &Attachments, leaves: &Leaves<Segment>, handle: u64) -> Option<Chunks> {
    let homes = attachments.homes(handle).iter().map(|(home, _)| *home);
    if !attachments.is_own(handle) || holders::teller(handle, homes) != Some(me) {
        return None;
    }
    let leaf = leaves.with_handle(handle)?;
    Some(leaf.kept_chunks().map(|(name, kept)| (name, kept.clone())).collect())
}
