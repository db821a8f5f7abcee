//! Whether own leaves have what they list, and complaints about leaves here and elsewhere.

use overlay::{
    id::{ContentId, PeerId},
    machine::{Context, Outbox},
    time::Time,
    wire::possession::{Complaint, Possession, SourceComplaint},
};

use super::{Output, Ultrapeer};
use crate::{
    index::Segment,
    leaves::{Closing, Leaf, Leaves, Session},
    possession::{self, Lists, Possessions},
};

impl Lists for Leaves<Segment> {
    fn draw(&self, leaf: &PeerId, random: u64) -> Option<(ContentId, u64)> {
        let leaf = attached(self, leaf)?;
        let files: usize = leaf.kept().map(|kept| kept.contents().len()).sum();
        let mut place = usize::try_from(random.checked_rem(files as u64)?).ok()?;
        for kept in leaf.kept() {
            match place.checked_sub(kept.contents().len()) {
                Some(rest) => place = rest,
                None => return kept.file(place),
            }
        }
        None
    }

    fn size(&self, leaf: &PeerId, content: &ContentId) -> Option<u64> {
        attached(self, leaf)?.kept().find_map(|kept| {
            let place = kept.contents().iter().position(|listed| listed == content)?;
            kept.file(place).map(|(_, size)| size)
        })
    }
}

fn attached<'a>(leaves: &'a Leaves<Segment>, leaf: &PeerId) -> Option<&'a Leaf<Segment>> {
    leaves.session_of(leaf).and_then(|session| leaves.get(session))
}

impl Ultrapeer {
    /// Runs `act` with what leaves list, and carries out what it wants.
    pub(super) fn with_possessions(
        &mut self,
        now: Time,
        out: &mut Outbox<Output>,
        act: impl FnOnce(&mut Possessions, &Leaves<Segment>, &mut Outbox<possession::Output>),
    ) {
        let mut inner = Outbox::new();
        act(&mut self.possessions, &self.leaves, &mut inner);
        for output in inner.drain() {
            match output {
                possession::Output::Ask(leaf, ask) => {
                    out.extend(self.leaves.session_of(&leaf).map(|session| Output::ToLeaf(session, ask.into())));
                }
                possession::Output::Check(case) => out.push(Output::CheckPossession(case)),
                possession::Output::Failed(leaf, fault) => out.push(Output::PossessionFailed(leaf, fault)),
                possession::Output::Drop(leaf) => {
                    out.push(Output::LeafDropped(leaf));
                    if let Some(session) = self.leaves.session_of(&leaf) {
                        self.leaf_gone_with(now, session, out, |leaves, inner| {
                            leaves.expel(now, session, Closing::Untrue, inner);
                        });
                    }
                }
            }
        }
    }

    /// Other lists than before are in place: some of their files are asked for.
    pub(super) fn look_at_lists(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        for handle in std::mem::take(&mut self.lists_changed) {
            let Some(leaf) = self.leaves.with_handle(handle) else { continue };
            let (peer, root, files) = (leaf.peer, leaf.root(), leaf.files);
            self.with_possessions(now, out, |possessions, leaves, _| possessions.listed(cx, leaves, peer, root, files));
        }
    }

    /// A leaf says whether it has what it was asked for.
    pub(super) fn possession_told(
        &mut self,
        cx: &mut Context<'_>,
        session: Session,
        answer: Possession,
        out: &mut Outbox<Output>,
    ) {
        let Some(leaf) = self.leaves.get(session).map(|leaf| leaf.peer) else { return };
        self.with_possessions(cx.now, out, |possessions, leaves, inner| {
            possessions.answered(cx, leaves, leaf, answer, inner);
        });
    }

    /// A leaf complains about a source, here or elsewhere.
    pub(super) fn leaf_complains(
        &mut self,
        cx: &mut Context<'_>,
        session: Session,
        complaint: &Complaint,
        out: &mut Outbox<Output>,
    ) {
        let Some(by) = self.leaves.get(session).map(|leaf| leaf.peer) else { return };
        let Complaint { source, content, ref homes } = *complaint;
        if self.leaves.session_of(&source).is_some() {
            self.possessions.complained(cx, &self.leaves, (by, false), source, content);
            return;
        }
        if homes.is_empty() || !self.possessions.spend(cx.now, by, false) {
            return;
        }
        // One of them is enough: each of its homes would ask the same.
        if let Some(home) = homes.iter().find(|home| self.neighbours.is_usable(home)) {
            out.push(Output::ToMesh(*home, SourceComplaint { source, content }.into()));
        }
    }

    /// A leaf of another home complains about one of this one's.
    pub(super) fn home_complains(&mut self, cx: &mut Context<'_>, from: PeerId, complaint: SourceComplaint) {
        let SourceComplaint { source, content } = complaint;
        self.possessions.complained(cx, &self.leaves, (from, true), source, content);
    }
}
