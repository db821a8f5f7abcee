//! Which pieces of one content to ask of whom, and when. A core.
//!
//! ```text
//!   SourcesFound ─> Open ─> Opened ─> Queued.. ─> Granted ─> Request ─> SegmentArrived | PieceArrived ─> Finished
//!                    └──────────────── Closed (back-off, again) <────┴─ RequestFailed, stall
//!                                                                    └─ Corrupt: dropped for good
//! ```
//!
//! What it decides:
//! - *All holders at once.* Every source with a slot is kept busy with as many bytes as it sends in a second.
//! - *Which piece*: the last one first, because it alone proves the claimed size; while somebody reads, those in
//!   front of the reader in their order; then what the source suggests ([`spread`]); then four at random; then the
//!   rarest. A piece is asked once. When every piece is here or on its way (the end game), a source with
//!   nothing to do doubles the requests of those that would take more than twice as long; so it may at any time with
//!   the piece that proves the size, and with those that a reader waits for.
//! - *Who need not give us a slot*: a source that holds a part and nothing that is still to be asked of somebody is told so.
//! - *Whom to ask for a slot*: any of those known; while all sessions are open, those that wait longest make room for
//!   sources that were never tried.
//! - *Whom to leave*: who sends one wrong byte is dropped for this content, and another source is asked for those groups
//!   of the piece that are wrong; who fails or falls silent is
//!   tried again, later and later; its pieces go to the others at once.
//! - *Which size to believe*: the first that is claimed by a source with a slot, until its last piece is
//!   verified. While that does not happen and another size is claimed, the claims take turns.
//!
//! Invariants: those of [`plan`]; at most [`limits::SOURCE_IN_FLIGHT_BYTES`] of a source and
//! [`limits::JOB_IN_FLIGHT_BYTES`] in all are outstanding, so the driver's memory is bounded; as long as one
//! honest source with all pieces stays reachable, the content becomes complete.

mod interface;
mod plan;
mod sessions;
mod source;
pub mod spread;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use overlay::{
    id::PeerId,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
    verify::Layout,
};

pub use self::{
    interface::{CloseReason, Input, Output, RequestId, Run, SourceView, Work},
    source::SourceState,
};
use self::{
    plan::{Plan, transferable},
    source::Source,
};
use crate::bitmap::Bitmap;

/// Time for which a claimed size is worked with before another claim gets its turn.
const CLAIM_TURN: Duration = limits::SOURCE_STALL;
/// Time between two looks for slow sources in the end game.
const END_GAME_TICK: Duration = Duration::from_millis(250);
const NEVER: Time = Time(u64::MAX);
/// How many times longer a slow source must take before its requests are doubled. Chosen: at less, noise in
/// the rates would double requests between equals.
const STEAL_FACTOR: f64 = 2.0;

#[derive(Debug)]
struct Request {
    peer: PeerId,
    work: Work,
    /// Pieces that it has not brought yet.
    pending: Vec<u64>,
}

/// The download of one content. See the module text.
#[derive(Debug)]
pub struct Swarm {
    plan: Option<Plan>,
    adopted_at: Time,
    sources: BTreeMap<PeerId, Source>,
    /// The sources with a session, or one that is being opened: at most [`limits::SESSIONS_PER_JOB`], so that no event looks at
    /// all sources.
    engaged: BTreeSet<PeerId>,
    /// The sources without, by the time of the next attempt.
    idle: BTreeSet<(Time, PeerId)>,
    /// Those of them that failed since they last sent something, by how often.
    failed: BTreeSet<(u32, PeerId)>,
    /// How many sources were new when they were found.
    found: u64,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    outstanding: u64,
    next_search: Time,
    /// When a session last made room for another.
    rotated_at: Option<Time>,
    /// No source has been silent for too long before.
    next_stall: Time,
    end_game_tick: Option<Time>,
    values_deadline: Option<Time>,
    /// The byte that somebody reads at, and until when that counts.
    reading: Option<(u64, Time)>,
    /// True if what is missing has changed.
    appetites_due: bool,
    finished: bool,
}

impl Swarm {
    /// A download of which nothing is here, not even the size.
    pub fn new() -> Self {
        Self {
            plan: None,
            adopted_at: Time::ZERO,
            sources: BTreeMap::new(),
            engaged: BTreeSet::new(),
            idle: BTreeSet::new(),
            failed: BTreeSet::new(),
            found: 0,
            requests: BTreeMap::new(),
            next_request: 0,
            outstanding: 0,
            next_search: Time::ZERO,
            rotated_at: None,
            next_stall: NEVER,
            end_game_tick: None,
            values_deadline: None,
            reading: None,
            appetites_due: false,
            finished: false,
        }
    }

    /// A download of which `have` is here already, as [`Output::Sized`] and the arrivals told before, and the
    /// values of the segments `known`. A size that is not transferable is forgotten.
    pub fn resume(size: u64, have: Bitmap, known: impl IntoIterator<Item = u64>) -> Self {
        let layout = transferable(size).filter(|layout| layout.pieces() == have.len());
        let mut plan = layout.map(|layout| Plan::new(layout, have));
        if let Some(plan) = &mut plan {
            let segments = plan.layout().segments();
            known.into_iter().filter(|segment| *segment < segments).for_each(|segment| plan.segment_known(segment));
        }
        Self { plan, ..Self::new() }
    }

    /// The cut of the content under the size that is believed now.
    pub fn layout(&self) -> Option<Layout> {
        self.plan.as_ref().map(Plan::layout)
    }

    /// The pieces that are here.
    pub fn have(&self) -> Option<&Bitmap> {
        self.plan.as_ref().map(Plan::have)
    }

    /// True once the last piece was verified, and with it the size.
    pub fn is_proven(&self) -> bool {
        self.plan.as_ref().is_some_and(Plan::is_proven)
    }

    /// True once [`Output::Finished`] was given.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Bytes asked for and not here yet: what the driver may have to hold.
    pub fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// The sources, by peer id.
    pub fn sources(&self) -> impl Iterator<Item = SourceView> + '_ {
        self.sources.iter().map(|(peer, source)| SourceView {
            peer: *peer,
            state: source.state,
            rate: if source.requests.is_empty() { 0 } else { source.rate.bytes_per_second().unwrap_or(0.0) as u64 },
        })
    }

    fn on_opened(&mut self, now: Time, peer: PeerId, size: u64, complete: bool, out: &mut Outbox<Output>) {
        let Some(source) = self.sources.get_mut(&peer) else { return out.push(Output::Close(peer)) };
        if source.state != SourceState::Opening {
            return;
        }
        let Some(layout) = transferable(size) else { return self.drop_source(peer, out) };
        source.waits_since = now;
        source.size = Some(size);
        source.partial = (!complete).then(|| Bitmap::new(layout.pieces()));
        source.suggested.clear();
        source.wanted = true;
        source.is_fed = false;
        self.set_state(peer, SourceState::Waiting { position: None });
    }

    fn on_have(&mut self, peer: PeerId, first: u64, bits: &[u8], out: &mut Outbox<Output>) {
        let Some(source) = self.sources.get_mut(&peer).filter(|source| source.is_open()) else { return };
        let Some(part) = &mut source.partial else { return };
        source.is_fed = false;
        let counted = self.plan.as_mut().filter(|plan| source.size == Some(plan.layout().size()));
        let Some(plan) = counted else { return part.replace(first / 8, bits) };
        let range = first..first.saturating_add(8 * bits.len() as u64);
        plan.count_copies(part, range.clone(), false);
        part.replace(first / 8, bits);
        plan.count_copies(part, range, true);
        self.tell_appetite(peer, out);
    }

    fn on_closed(&mut self, cx: &mut Context<'_>, peer: PeerId, reason: CloseReason, out: &mut Outbox<Output>) {
        self.take_back(peer, out);
        let Some(source) = self.sources.get_mut(&peer).filter(|source| source.is_engaged()) else { return };
        let pause = match reason {
            CloseReason::NotHeld => source.back_off(limits::SOURCE_RETRY_NOT_HELD, cx.rng.next_u64()),
            CloseReason::Lost | CloseReason::Busy => source.back_off(limits::SOURCE_RETRY, cx.rng.next_u64()),
        };
        source.failures = source.failures.saturating_add(1);
        self.set_state(peer, SourceState::Idle { retry_at: cx.now + pause });
        self.forget_part(peer);
    }

    /// The session ended: what it held no longer counts.
    fn forget_part(&mut self, peer: PeerId) {
        let Some(source) = self.sources.get_mut(&peer) else { return };
        let part = source.partial.take();
        let size = source.size.take();
        if let (Some(plan), Some(part)) = (&mut self.plan, part)
            && size == Some(plan.layout().size())
        {
            plan.count_copies(&part, 0..part.len(), false);
        }
    }

    fn on_progress(&mut self, now: Time, peer: PeerId, bytes: u64) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.received(now, bytes);
        }
    }

    fn on_segment(&mut self, id: RequestId) {
        let Some(request) = self.end_request(id) else { return };
        if let (Work::Segment(segment), Some(plan)) = (request.work, &mut self.plan) {
            plan.segment_known(segment);
            self.hunger();
        }
    }

    fn on_piece(&mut self, id: RequestId, piece: u64, out: &mut Outbox<Output>) {
        // What an ended request still brings belongs to a size or source that may have been given up.
        let Some(request) = self.requests.get(&id) else { return };
        if let Some(source) = self.sources.get_mut(&request.peer) {
            source.failures = 0;
        }
        let Some(carriers) = self.plan.as_mut().and_then(|plan| plan.arrive(piece)) else { return };
        self.appetites_due = true;
        for carrier in carriers.into_iter().flatten() {
            self.brought(carrier, piece);
            if carrier != id && self.requests.get(&carrier).is_some_and(|request| request.pending.is_empty()) {
                out.push(Output::Cancel(carrier));
            }
            if self.requests.get(&carrier).is_some_and(|request| request.pending.is_empty()) {
                self.end_request(carrier);
            }
        }
    }

    /// `piece` is not awaited from `carrier` any more.
    fn brought(&mut self, carrier: RequestId, piece: u64) {
        let bytes = self.plan.as_ref().map_or(0, |plan| plan.bytes_of(piece));
        let Some(request) = self.requests.get_mut(&carrier) else { return };
        let before = request.pending.len();
        request.pending.retain(|pending| *pending != piece);
        if request.pending.len() < before {
            self.outstanding -= bytes;
            if let Some(source) = self.sources.get_mut(&request.peer) {
                source.outstanding -= bytes;
            }
        }
    }

    /// Forgets a request; the pieces that it did not bring are missing again.
    fn end_request(&mut self, id: RequestId) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        let mut bytes = 0;
        if let Some(plan) = &mut self.plan {
            for piece in &request.pending {
                bytes += plan.bytes_of(*piece);
                plan.abandon(*piece, id);
            }
            if let Work::Segment(segment) = request.work {
                plan.segment_lost(segment);
            }
        }
        self.outstanding -= bytes;
        if let Some(source) = self.sources.get_mut(&request.peer) {
            source.outstanding -= bytes;
            source.requests.remove(&id);
        }
        if !request.pending.is_empty() || matches!(request.work, Work::Segment(_)) {
            self.appetites_due = true;
            self.hunger();
        }
        Some(request)
    }

    /// Ends every request to `peer`.
    fn take_back(&mut self, peer: PeerId, out: &mut Outbox<Output>) {
        let Some(source) = self.sources.get(&peer) else { return };
        for id in source.requests.clone() {
            self.end_request(id);
            out.push(Output::Cancel(id));
        }
    }

    /// `peer` sent something wrong: it is not used for this content again.
    fn drop_source(&mut self, peer: PeerId, out: &mut Outbox<Output>) {
        self.take_back(peer, out);
        if !self.sources.contains_key(&peer) {
            return;
        }
        self.set_state(peer, SourceState::Dropped);
        self.forget_part(peer);
        out.push(Output::Close(peer));
    }

    /// Has the source that is through with its requests first send what is wrong of a piece, if any can; otherwise the
    /// piece is missing as any other.
    fn repair(&mut self, now: Time, piece: u64, out: &mut Outbox<Output>) {
        let Some(plan) = self.plan.as_ref().filter(|plan| plan.is_missing(piece)) else { return };
        let size = plan.layout().size();
        // It is little that is asked for: a source that has enough to do can send it, too.
        if self.outstanding + plan.bytes_of(piece) > limits::JOB_IN_FLIGHT_BYTES {
            return;
        }
        let can = |(_, source): &(PeerId, &Source)| {
            source.state == SourceState::Granted && source.size == Some(size) && source.holds(piece)
        };
        let able = self.engaged().filter(can);
        let soonest = able.min_by(|(_, one), (_, other)| one.backlog_s(now).total_cmp(&other.backlog_s(now)));
        if let Some((peer, _)) = soonest {
            self.send(now, peer, Work::Repair(piece), out);
        }
    }

    fn on_failed(&mut self, cx: &mut Context<'_>, id: RequestId, out: &mut Outbox<Output>) {
        let Some(request) = self.end_request(id) else { return };
        let peer = request.peer;
        let granted = self.sources.get(&peer).is_some_and(|source| source.state == SourceState::Granted);
        // After a revocation a denial is no failure. With a slot it is: leave, or the same request would be
        // sent again at once.
        if granted {
            out.push(Output::Close(peer));
            self.on_closed(cx, peer, CloseReason::Lost, out);
        }
    }

    /// Leaves sources that owe something and have been silent for too long.
    fn leave_stalled(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        if cx.now < self.next_stall {
            return;
        }
        let stalled: Vec<PeerId> = self
            .engaged()
            .filter(|(_, source)| !source.requests.is_empty() && source.last_progress + limits::SOURCE_STALL <= cx.now)
            .map(|(peer, _)| peer)
            .collect();
        for peer in stalled {
            out.push(Output::Close(peer));
            self.on_closed(cx, peer, CloseReason::Lost, out);
        }
        let owing = self.engaged().filter(|(_, source)| !source.requests.is_empty());
        self.next_stall = owing.map(|(_, source)| source.last_progress + limits::SOURCE_STALL).min().unwrap_or(NEVER);
    }

    /// Adopts a size, if none is believed yet or the one that is cannot be proven while others are claimed.
    fn settle_size(&mut self, now: Time, out: &mut Outbox<Output>) {
        let current = self.plan.as_ref().map(|plan| plan.layout().size());
        if self.is_proven() {
            return;
        }
        let claims = || {
            let granted = |source: &Source| source.state == SourceState::Granted;
            self.engaged().filter_map(move |(_, source)| source.size.filter(|_| granted(source)))
        };
        let supported = claims().any(|size| Some(size) == current);
        if current.is_some() && supported && now < self.adopted_at + CLAIM_TURN {
            return;
        }
        // The next larger claim, else the smallest: each gets its turn.
        let next = claims().filter(|size| Some(*size) > current).min().or_else(|| claims().min());
        self.adopted_at = now;
        let Some(size) = next else { return };
        if Some(size) != current {
            self.adopt(size, out);
        }
    }

    fn adopt(&mut self, size: u64, out: &mut Outbox<Output>) {
        let Some(layout) = transferable(size) else { return };
        for id in self.requests.keys().copied().collect::<Vec<_>>() {
            self.end_request(id);
            out.push(Output::Cancel(id));
        }
        let mut plan = Plan::new(layout, Bitmap::new(layout.pieces()));
        for source in self.sources.values_mut() {
            source.is_fed = false;
        }
        for (_, source) in self.engaged().filter(|(_, source)| source.size == Some(size)) {
            if let Some(part) = &source.partial {
                plan.count_copies(part, 0..part.len(), true);
            }
        }
        plan.read(self.reading.map(|(offset, _)| offset));
        self.plan = Some(plan);
        self.appetites_due = true;
        out.push(Output::Sized(size));
    }

    fn on_read(&mut self, now: Time, offset: u64) {
        self.reading = Some((offset, now + limits::READ_LAPSE));
        if let Some(plan) = &mut self.plan {
            plan.read(Some(offset));
        }
    }

    /// Forgets a reader that is gone.
    fn end_reading(&mut self, now: Time) {
        if self.reading.take_if(|(_, until)| *until <= now).is_some()
            && let Some(plan) = &mut self.plan
        {
            plan.read(None);
        }
    }

    /// Gives every source with a slot as much to do as it can take, or only this one.
    fn assign(&mut self, cx: &mut Context<'_>, only: Option<PeerId>, out: &mut Outbox<Output>) {
        let Some(plan) = &self.plan else { return };
        let (size, piece_bytes) = (plan.layout().size(), u64::from(plan.layout().piece_bytes()));
        let is_ready = |source: &Source| {
            source.state == SourceState::Granted
                && source.size == Some(size)
                && !source.is_fed
                && source.room(piece_bytes) > 0
        };
        let ready: Vec<PeerId> = match only {
            Some(peer) => self.sources.get(&peer).filter(|source| is_ready(source)).map(|_| peer).into_iter().collect(),
            None => self.engaged().filter(|(_, source)| is_ready(source)).map(|(peer, _)| peer).collect(),
        };
        if only.is_some() && ready.is_empty() {
            return;
        }
        for peer in ready {
            while self.has_room(peer, piece_bytes) {
                if !self.assign_one(cx, peer, piece_bytes, out) {
                    self.rest(peer);
                    break;
                }
            }
        }
        let end_game = self.plan.as_ref().is_some_and(|plan| plan.is_end_game() && !plan.have().is_full());
        let waits = !self.is_proven() || self.reading.is_some();
        self.end_game_tick = (end_game || waits).then(|| cx.now + END_GAME_TICK);
        // A deadline that passed without anybody to ask comes up again with the next change.
        self.values_deadline = self.plan.as_ref().and_then(Plan::values_deadline).filter(|at| *at > cx.now);
    }

    /// True if another piece of `peer` stays within the bounds of memory.
    fn has_room(&self, peer: PeerId, piece_bytes: u64) -> bool {
        self.outstanding + piece_bytes <= limits::JOB_IN_FLIGHT_BYTES
            && self.sources.get(&peer).is_some_and(|source| source.room(piece_bytes) > 0)
    }

    fn assign_one(&mut self, cx: &mut Context<'_>, peer: PeerId, piece_bytes: u64, out: &mut Outbox<Output>) -> bool {
        let (Some(plan), Some(source)) = (&self.plan, self.sources.get(&peer)) else { return false };
        let room = source
            .room(piece_bytes)
            .min(limits::JOB_IN_FLIGHT_BYTES - self.outstanding)
            .min(source.run_bytes(piece_bytes));
        let max_pieces = (room / piece_bytes).clamp(1, limits::RUN_PIECES.into());
        let work = if let Some(piece) = self.slow_piece(cx.now, peer, &plan.urgent()) {
            Work::Pieces(Run { first: piece, count: 1 })
        } else if let Some(run) = plan.next_run(source, max_pieces, cx.rng) {
            Work::Pieces(run)
        } else if let Some(segment) = plan.next_segment(source, cx.now).filter(|_| !self.owes_values(source)) {
            Work::Segment(segment)
        } else if let Some(piece) = self.slow_piece(cx.now, peer, &self.may_be_doubled()) {
            Work::Pieces(Run { first: piece, count: 1 })
        } else {
            return false;
        };
        self.send(cx.now, peer, work, out);
        true
    }

    /// True if values were asked of `source` already: one list at a time.
    fn owes_values(&self, source: &Source) -> bool {
        let values = |id| self.requests.get(id).is_some_and(|request| matches!(request.work, Work::Segment(_)));
        source.requests.iter().any(values)
    }

    /// The pieces whose requests a source with nothing else to do may double: all in the end game, before it the one that
    /// proves the size.
    fn may_be_doubled(&self) -> Range<u64> {
        let Some(plan) = &self.plan else { return 0..0 };
        let all = 0..plan.layout().pieces();
        if plan.is_end_game() {
            all
        } else if plan.is_proven() {
            0..0
        } else {
            plan.last_piece()..all.end
        }
    }

    /// Of the pieces in `range`, the one that would come much sooner from `peer` than from the source it was asked of, the
    /// latest of them first.
    fn slow_piece(&self, now: Time, peer: PeerId, range: &Range<u64>) -> Option<u64> {
        let plan = self.plan.as_ref().filter(|_| !range.is_empty())?;
        let source = self.sources.get(&peer)?;
        let rate = source.rate.bytes_per_second().unwrap_or(limits::RUN_BYTES as f64).max(1.0);
        let mut best: Option<(f64, u64)> = None;
        for (piece, flight) in plan.flights() {
            let Some(request) = self.requests.get(&flight.first) else { continue };
            if flight.second.is_some() || !range.contains(&piece) || request.peer == peer || !source.holds(piece) {
                continue;
            }
            let holder = self.sources.get(&request.peer)?;
            let theirs = holder.backlog_s(now);
            let ours = (source.outstanding + plan.bytes_of(piece)) as f64 / rate;
            if theirs > STEAL_FACTOR * ours && best.is_none_or(|(longest, _)| theirs >= longest) {
                best = Some((theirs, piece));
            }
        }
        best.map(|(_, piece)| piece)
    }

    fn send(&mut self, now: Time, peer: PeerId, work: Work, out: &mut Outbox<Output>) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        let (Some(plan), Some(source)) = (&mut self.plan, self.sources.get_mut(&peer)) else { return };
        if source.requests.is_empty() {
            source.last_progress = now;
            source.rate.start(now);
            self.next_stall = self.next_stall.min(now + limits::SOURCE_STALL);
        }
        let mut pending = Vec::new();
        match work {
            Work::Segment(segment) => plan.segment_asked(segment, now),
            Work::Repair(piece) => pending.extend(Some(piece).filter(|piece| plan.depart(*piece, id))),
            Work::Pieces(run) => {
                pending.extend((run.first..run.first + u64::from(run.count)).filter(|piece| plan.depart(*piece, id)));
            }
        }
        let bytes: u64 = pending.iter().map(|piece| plan.bytes_of(*piece)).sum();
        source.outstanding += bytes;
        self.outstanding += bytes;
        source.requests.insert(id);
        self.requests.insert(id, Request { peer, work, pending });
        out.push(Output::Request { id, peer, work });
    }

    fn finish_if_complete(&mut self, out: &mut Outbox<Output>) -> bool {
        if !self.plan.as_ref().is_some_and(|plan| plan.have().is_full()) {
            return false;
        }
        self.finished = true;
        for id in std::mem::take(&mut self.requests).into_keys() {
            out.push(Output::Cancel(id));
        }
        for peer in self.engaged.clone() {
            self.set_state(peer, SourceState::Idle { retry_at: NEVER });
            out.push(Output::Close(peer));
        }
        self.sources.values_mut().for_each(|source| source.requests.clear());
        self.outstanding = 0;
        out.push(Output::Finished);
        true
    }

    /// What follows from any change.
    fn advance(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        if self.finish_if_complete(out) {
            return;
        }
        if self.next_search <= cx.now {
            self.next_search = cx.now + limits::SOURCE_SEARCH_INTERVAL;
            out.push(Output::FindSources);
        }
        self.end_reading(cx.now);
        self.rotate_sessions(cx.now, out);
        self.open_sessions(cx, out);
        self.settle_size(cx.now, out);
        if std::mem::take(&mut self.appetites_due) {
            self.tell_appetites(out);
        }
        self.assign(cx, None, out);
    }

    fn on_state(&mut self, peer: PeerId, state: SourceState) {
        if self.sources.get(&peer).is_some_and(Source::is_open) {
            self.set_state(peer, state);
        }
    }
}

impl Default for Swarm {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine for Swarm {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        if self.finished {
            return;
        }
        match input {
            Input::SourcesFound(peers) => peers.into_iter().for_each(|peer| self.on_found(cx, peer)),
            Input::SourceLost(peer) => self.on_lost(peer, out),
            Input::Opened { peer, size, complete } => self.on_opened(cx.now, peer, size, complete, out),
            Input::Have { peer, first, bits } => {
                self.on_have(peer, first, &bits, out);
                // Nothing but this source has changed; a large swarm says little else.
                return self.assign(cx, Some(peer), out);
            }
            Input::Queued { peer, position } => {
                if self.sources.get(&peer).is_some_and(|source| source.state != SourceState::Granted) {
                    self.on_state(peer, SourceState::Waiting { position: Some(position) });
                }
            }
            Input::Suggested { peer, run } => {
                if let Some(source) = self.sources.get_mut(&peer).filter(|source| source.is_open()) {
                    source.suggest(run);
                }
            }
            Input::Read(offset) => self.on_read(cx.now, offset),
            Input::Granted(peer) => self.on_state(peer, SourceState::Granted),
            Input::Revoked(peer) => {
                self.on_state(peer, SourceState::Waiting { position: None });
                if let Some(source) = self.sources.get_mut(&peer) {
                    source.waits_since = cx.now;
                    // They go to others now.
                    source.suggested.clear();
                }
            }
            Input::Closed { peer, reason } => self.on_closed(cx, peer, reason, out),
            Input::Progress { peer, bytes } => {
                self.on_progress(cx.now, peer, bytes);
                return self.assign(cx, Some(peer), out);
            }
            Input::SegmentArrived(id) => self.on_segment(id),
            Input::PieceArrived { request, piece } => self.on_piece(request, piece, out),
            Input::RequestFailed(id) => self.on_failed(cx, id, out),
            Input::Corrupt { request, piece } => {
                if let Some(peer) = self.requests.get(&request).map(|request| request.peer) {
                    self.drop_source(peer, out);
                    if let Some(piece) = piece {
                        self.repair(cx.now, piece, out);
                    }
                }
            }
        }
        self.advance(cx, out);
    }

    fn next_deadline(&self) -> Option<Time> {
        if self.finished {
            return None;
        }
        let may_open = self.engaged.len() < limits::SESSIONS_PER_JOB;
        let unproven = self.plan.is_some() && !self.is_proven();
        let stall = (self.next_stall < NEVER).then_some(self.next_stall);
        let retry = self.idle.first().filter(|_| may_open).map(|(at, _)| *at);
        let claim = unproven.then(|| self.adopted_at + CLAIM_TURN);
        let reading = self.reading.map(|(_, until)| until);
        stall
            .into_iter()
            .chain(retry)
            .chain([self.next_search])
            .chain(reading)
            .chain(self.end_game_tick)
            .chain(self.values_deadline)
            .chain(claim)
            .chain(self.rotation_due())
            .min()
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        if self.finished {
            return;
        }
        self.leave_stalled(cx, out);
        self.advance(cx, out);
    }
}

#[cfg(test)]
mod tests;
