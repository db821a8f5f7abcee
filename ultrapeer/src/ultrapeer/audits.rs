//! Audits: what other homes must prove, and what this one proves to others.

use overlay::{
    id::PeerId,
    machine::{Context, Outbox},
    time::Time,
    wire::mesh::{DigestName, Proof, ProofAnswer, ProofAsk},
};

use super::{Output, Ultrapeer};
use crate::{
    audits::{
        self, Audits, Environment,
        proofs::{self, Proofs},
    },
    digests::Unpacked,
};

impl Ultrapeer {
    /// Runs `act` with what audits need to know, and carries out what they want.
    pub(super) fn with_audits(
        &mut self,
        now: Time,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Audits, Environment<'_>, &mut Outbox<audits::Output>),
    ) {
        let environment =
            Environment { now, attachments: &self.attachments, digests: &self.digests, neighbours: &self.neighbours };
        let mut inner = Outbox::new();
        act(&mut self.audits, environment, &mut inner);
        for output in inner.drain() {
            match output {
                audits::Output::Ask(home, ask) => out.push(Output::ToMesh(home, ask.into())),
                audits::Output::Check(case) => out.push(Output::CheckProof(case)),
                audits::Output::Failed(failure) => {
                    self.with_digests(now, out, |digests, attachments, inner| {
                        digests.wrong(now, failure.home, failure.handle, attachments, inner);
                    });
                    out.push(Output::AuditFailed(failure));
                }
                audits::Output::Distrust(home) => {
                    let handles = self.attachments.set_distrusted(home, true);
                    self.with_digests(now, out, |digests, attachments, inner| {
                        digests.distrust(now, home, attachments, inner);
                    });
                    self.attachments_changed(now, &handles, out);
                    out.push(Output::Distrusted(home));
                }
                audits::Output::Trust(home) => {
                    let handles = self.attachments.set_distrusted(home, false);
                    self.attachments_changed(now, &handles, out);
                }
            }
        }
    }

    /// A digest was unpacked; it may be audited.
    pub(super) fn digest_built(
        &mut self,
        cx: &mut Context<'_>,
        name: DigestName,
        unpacked: Option<Unpacked>,
        out: &mut Outbox<Output>,
    ) {
        let now = cx.now;
        self.with_digests(now, out, |digests, attachments, inner| {
            digests.built(now, name, unpacked, attachments, inner);
        });
        if let Some((home, _)) = self.digests.held(name) {
            self.audits.held(cx, home, name);
        }
    }

    /// Another ultrapeer wants it proven that a leaf is here.
    pub(super) fn proof_asked(&mut self, now: Time, peer: PeerId, ask: ProofAsk, out: &mut Outbox<Output>) {
        if self.neighbours.get(&peer).is_none() || !self.proofs.may_ask(now, peer) {
            return out.push(Output::ToMesh(peer, Proof { ask, answer: ProofAnswer::NotNow }.into()));
        }
        let ProofAsk { handle, sequence, chunk } = ask;
        let leaf = self.leaves.with_handle(handle).filter(|leaf| leaf.sequence() == Some(sequence));
        let proof = leaf.and_then(|leaf| {
            let kept = match chunk {
                Some(chunk) => Some((DigestName { handle, chunk }, leaf.kept_chunk(chunk)?.clone())),
                None => None,
            };
            Some((leaf.proof()?, kept))
        });
        let Some((proof, kept)) = proof else {
            // Who is told that a list is gone must not hear of it in the log any more.
            self.tell_all(now, out);
            return out.push(Output::ToMesh(peer, Proof { ask, answer: ProofAnswer::Gone }.into()));
        };
        out.push(Output::ToMesh(peer, Proof { ask, answer: ProofAnswer::Proven(proof) }.into()));
        if let Some((name, kept)) = kept {
            self.with_proofs(out, |proofs, inner| proofs.want(peer, name, kept, inner));
        }
    }

    /// Runs `act` on the proofs that are owed and carries out what they want.
    pub(super) fn with_proofs(
        &mut self,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Proofs, &mut Outbox<proofs::Output>),
    ) {
        let mut inner = Outbox::new();
        act(&mut self.proofs, &mut inner);
        out.append_mapped(&mut inner, |output| match output {
            proofs::Output::Pack(peer, name, kept) => Output::PackFiles { peer, name, kept },
            proofs::Output::Part(peer, part) => Output::ToMesh(peer, part.into()),
        });
    }
}
