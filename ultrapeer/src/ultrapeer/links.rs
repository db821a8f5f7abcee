//! Links to other ultrapeers: what they say, and that they come and go.

use std::net::SocketAddr;

use overlay::{
    id::PeerId,
    machine::{Context, Outbox},
    membership,
    time::Time,
    wire::{
        descriptor::SignedDescriptor,
        mesh::{MeshMessage, QueryCancel},
    },
};

use super::{Output, Ultrapeer};
use crate::search::Asker;

impl Ultrapeer {
    pub(super) fn mesh_message(
        &mut self,
        cx: &mut Context<'_>,
        peer: PeerId,
        message: MeshMessage,
        out: &mut Outbox<Output>,
    ) {
        let now = cx.now;
        match message {
            message if membership::is_message(&message) => {
                self.with_membership(cx, membership::Input::Message { from: peer, message }, out);
            }
            MeshMessage::Apply(apply) => self.applied(now, peer, &apply, out),
            MeshMessage::Verdict(verdict) => self.decided(cx, peer, verdict, out),
            MeshMessage::Meeting(meeting) => self.met(cx, peer, meeting, out),
            MeshMessage::Follow(follow) => self.followed_by(now, peer, follow, out),
            MeshMessage::Attachments(frame) => self.attachments_heard(cx, peer, frame, out),
            MeshMessage::DigestWant(want) => self.digests_wanted(peer, want, out),
            MeshMessage::DigestPart(part) => self.digest_part(now, peer, part, out),
            MeshMessage::ProofAsk(ask) => self.proof_asked(now, peer, ask, out),
            MeshMessage::Proof(proof) => {
                self.with_audits(now, out, |audits, environment, inner| {
                    audits.answered(environment, peer, proof, inner);
                });
            }
            MeshMessage::ProofPart(part) => {
                self.with_audits(now, out, |audits, _, inner| audits.part(peer, part, inner));
            }
            MeshMessage::Holdings(frame) => self.holdings_heard(now, peer, frame, out),
            MeshMessage::HoldingsAsk(_) => self.holders.again(now, peer),
            MeshMessage::Query(query) => self.answer_mesh(cx, peer, query, out),
            MeshMessage::QueryCancel(QueryCancel { id }) => {
                self.with_searches(now, out, |searches, environment, inner| {
                    searches.cancel(environment.now, Asker::Mesh(peer, id), inner);
                });
            }
            MeshMessage::Wishes(frame) => self.wishes_heard(now, peer, frame),
            MeshMessage::WishHits(told) => self.wish_hits_heard(now, peer, told, out),
            MeshMessage::QueryHits(told) => self.query_hits(now, peer, told, out),
            MeshMessage::QueryHolders(told) => {
                self.with_searches(now, out, |searches, environment, _| searches.holders(environment, peer, told));
            }
            MeshMessage::QueryDone(done) => self.query_done(now, peer, done, out),
            MeshMessage::Introduce(ask) => {
                let own = self.leaf_address(&ask.target);
                self.with_introductions(now, out, |introductions, inner| {
                    introductions.asked(now, peer, ask, own, inner);
                });
            }
            MeshMessage::Introduced(answer) => {
                self.with_introductions(now, out, |introductions, inner| {
                    introductions.answered(now, peer, answer, inner);
                });
            }
            MeshMessage::SourceComplaint(complaint) => self.home_complains(cx, peer, complaint),
            MeshMessage::Goodbye(_) => {
                self.with_membership(cx, membership::Input::LinkDown { peer, in_order: true }, out);
            }
            _ => {}
        }
    }

    pub(super) fn mesh_up(
        &mut self,
        cx: &mut Context<'_>,
        peer: PeerId,
        address: SocketAddr,
        descriptor: Option<SignedDescriptor>,
        out: &mut Outbox<Output>,
    ) {
        if !self.has_room_for_stranger(&peer) {
            return out.push(Output::CloseMesh(peer));
        }
        self.linked_from.insert(peer, (address, cx.now));
        // A link in place of another: what was on its way over the old one is lost, and it may be another life.
        self.unfollow(cx.now, peer, out);
        self.wishes_unlinked(cx.now, peer, out);
        self.candidacy.linked(cx.now, &peer);
        let descriptors = descriptor.into_iter().collect();
        self.with_membership(cx, membership::Input::Heard { from: peer, descriptors }, out);
        self.with_membership(cx, membership::Input::LinkUp(peer), out);
        self.refresh(cx.now, peer, out);
        self.look_for_votes(cx, out);
    }

    pub(super) fn mesh_down(&mut self, cx: &mut Context<'_>, peer: PeerId, in_order: bool, out: &mut Outbox<Output>) {
        self.with_membership(cx, membership::Input::LinkDown { peer, in_order }, out);
        self.unlinked(cx.now, peer, out);
    }

    /// No link leads to another ultrapeer any more.
    pub(super) fn unlinked(&mut self, now: Time, peer: PeerId, out: &mut Outbox<Output>) {
        self.linked_from.remove(&peer);
        self.ballots.gone(&peer);
        self.unfollow(now, peer, out);
        self.refresh(now, peer, out);
        self.wishes_unlinked(now, peer, out);
        self.with_introductions(now, out, |introductions, inner| introductions.unlinked(now, &peer, inner));
    }
}
