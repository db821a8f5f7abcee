//! The task of one download: drives its swarm, keeps its partial file, and counts who sent what.
//!
//! Everything that happens comes through one bounded channel and is handled in order, so nothing here needs a
//! lock: sessions and requests are tasks that only report. What blocks on the disk runs on other threads.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use overlay::{
    drive::system_rng,
    id::PeerId,
    limits,
    machine::{Context, Machine, Outbox},
    metrics::{BANS, BanReason, BanScope, Direction},
    time::Time,
    verify::{Layout, Value},
};
use rand_pcg::Pcg64Mcg;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    here::already_here,
    job::News,
    lock,
    partial::Partial,
    record::{Bits, Record, Source, SourceState, State},
    target::{FinishError, Target},
};
use crate::{
    bitmap::Bitmap,
    metrics::{PieceResult, TRANSFER_BYTES, VERIFIED_PIECES},
    rate::Rate,
    swarm::{self, CloseReason, Input, Output, RequestId, Swarm, Work},
    transfer::{
        FoundSource, Via,
        holding::Holding,
        pool::Lease,
        session::{self, Buffers, Corruption, Event, Request, RequestNews, SessionNews, Telling},
    },
};

/// How a run ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The file is there.
    Done {
        /// Where.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// Who sent them; one entry, this node, if it was here already.
        sources: Vec<(PeerId, u64, Via)>,
    },
    /// The output names another file.
    Conflict,
    /// It was told to stop. What is verified is recorded.
    Stopped,
    /// The disk is full.
    DiskFull,
    /// The disk failed otherwise.
    Disk(io::Error),
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Disk(error),
        }
    }
}

/// What others may see of a running download.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) state: Option<State>,
    pub(super) size: Option<u64>,
    pub(super) bytes: u64,
    pub(super) rate: u64,
    pub(super) queue_position: Option<u32>,
    pub(super) sources: Vec<Source>,
    pub(super) holding: Option<Arc<Holding>>,
}

struct Session {
    number: u64,
    task: tokio::task::AbortHandle,
    lease: Option<Arc<Lease>>,
    position: Option<u32>,
    appetite: watch::Sender<bool>,
}

struct Runner {
    shared: Arc<Shared>,
    record: Record,
    view: Arc<Mutex<View>>,
    partial: Partial,
    swarm: Swarm,
    out: Outbox<Output>,
    rng: Pcg64Mcg,
    holding: Option<Arc<Holding>>,
    /// Segment values by the size that they were claimed with.
    tops: BTreeMap<u64, Vec<Value>>,
    homes: BTreeMap<PeerId, Vec<PeerId>>,
    sessions: BTreeMap<PeerId, Session>,
    requests: BTreeMap<RequestId, (PeerId, tokio::task::AbortHandle)>,
    events: mpsc::Sender<Event>,
    teller: mpsc::Sender<News>,
    next_session: u64,
    /// Verified bytes and the way, by source.
    sources: BTreeMap<PeerId, (u64, Via)>,
    rate: Rate,
    rates: BTreeMap<PeerId, Rate>,
    unflushed: u64,
    flushing: Option<JoinHandle<io::Result<()>>>,
    finished: bool,
    /// A piece that came wrong just now, with what came, and from whom.
    spoiled: Option<(u64, Vec<u8>, PeerId)>,
    /// True once others may fetch what is verified.
    serving: bool,
    buffers: Arc<Buffers>,
}

/// Runs a download until it is complete, impossible, or told to stop.
pub(super) async fn run(
    shared: Arc<Shared>,
    record: Record,
    view: Arc<Mutex<View>>,
    (teller, mut news): (mpsc::Sender<News>, mpsc::Receiver<News>),
    stop: CancellationToken,
) -> Outcome {
    let downloads = lock(&shared.folders).current.clone();
    let target = Target::of(&record, &downloads);
    match already_here(&shared, &record, &target).await {
        Ok(Some(outcome)) => {
            if matches!(outcome, Outcome::Done { .. }) {
                shared.remove_leftovers(record.content).await;
            }
            return outcome;
        }
        Ok(None) => {}
        Err(error) => return error.into(),
    }
    let rng = match system_rng() {
        Ok(rng) => rng,
        Err(error) => return error.into(),
    };
    let partial = shared.partial(record.content);
    let (events, mut inbox) = mpsc::channel(limits::JOB_EVENTS);
    let sources = record.sources.iter().map(|(peer, bytes, via)| (*peer, (*bytes, *via))).collect();
    let mut runner = Runner {
        partial,
        swarm: Swarm::new(),
        out: Outbox::new(),
        rng,
        holding: None,
        tops: BTreeMap::new(),
        homes: record.hints.iter().cloned().collect(),
        sessions: BTreeMap::new(),
        requests: BTreeMap::new(),
        events,
        teller,
        next_session: 0,
        sources,
        rate: Rate::default(),
        rates: BTreeMap::new(),
        unflushed: 0,
        flushing: None,
        finished: false,
        spoiled: None,
        serving: false,
        buffers: Arc::default(),
        shared,
        record,
        view,
    };
    let outcome = match runner.resume(&stop).await {
        Ok(()) => runner.work(&mut inbox, &mut news, &stop).await,
        Err(error) => error.into(),
    };
    runner.end_tasks();
    match (outcome, runner.finished) {
        (Outcome::Stopped, true) => match runner.finish(&target).await {
            Ok(outcome) => outcome,
            Err(error) => error.into(),
        },
        (outcome, _) => {
            // What fails here is verified again next time.
            if let Err(error) = runner.flush_now().await {
                tracing::warn!(%error, "a partial download could not be saved");
            }
            outcome
        }
    }
}

impl Runner {
    /// Takes up what an earlier run left: every piece that counted is read and verified again, and so is what was
    /// written after the last record, when that run had no time to end.
    async fn resume(&mut self, stop: &CancellationToken) -> io::Result<()> {
        let bits = self.shared.bits(&self.record.id);
        let (partial, name) = (self.partial.clone(), self.record.name.clone());
        let Some(holding) = blocking(move || partial.open(name)).await?.map(Arc::new) else { return Ok(()) };
        let layout = holding.layout();
        if bits.as_ref().is_some_and(|bits| bits.size != layout.size()) {
            return Ok(());
        }
        let counted = Bitmap::from_bytes(layout.pieces(), &bits.unwrap_or_default().have);
        let (checked, stop) = (Arc::clone(&holding), stop.clone());
        self.holding = Some(Arc::clone(&holding));
        self.show(Time::ZERO);
        blocking(move || {
            for piece in 0..layout.pieces() {
                if stop.is_cancelled() {
                    break;
                }
                if (counted.contains(piece) || checked.is_begun(piece)?) && checked.verify(piece)? {
                    checked.add_piece(piece);
                }
            }
            Ok(())
        })
        .await?;
        self.keep_sum(&holding);
        self.tops.insert(layout.size(), holding.tops().to_vec());
        self.swarm = Swarm::resume(layout.size(), holding.have(), holding.known_segments());
        Ok(())
    }

    /// Pieces that were lost are no longer anybody's: the sum of the sources stays that of the pieces.
    fn keep_sum(&mut self, holding: &Holding) {
        let have = bytes_of(holding);
        let mut sum: u64 = self.sources.values().map(|(bytes, _)| *bytes).sum();
        for (bytes, _) in self.sources.values_mut() {
            let excess = sum.saturating_sub(have).min(*bytes);
            *bytes -= excess;
            sum -= excess;
        }
        if sum < have {
            // Recorded later than written: whoever sent it, it lay here when this run began.
            let own = self.sources.entry(self.shared.own).or_insert((0, Via::Local));
            own.0 += have - sum;
        }
    }

    async fn work(
        &mut self,
        inbox: &mut mpsc::Receiver<Event>,
        told: &mut mpsc::Receiver<News>,
        stop: &CancellationToken,
    ) -> Outcome {
        let hints: Vec<PeerId> = self.homes.keys().copied().collect();
        if let Err(outcome) = self.input(Input::SourcesFound(hints)).await {
            return outcome;
        }
        if let Err(outcome) = self.wake().await {
            return outcome;
        }
        let mut flush = interval(limits::FLUSH_INTERVAL);
        let mut report = interval(limits::PROGRESS_INTERVAL);
        while !self.finished {
            let now = self.shared.clock.now();
            let deadline = self.swarm.next_deadline();
            let result = tokio::select! {
                biased;
                // What comes by the clock goes before what may come without end.
                () = stop.cancelled() => return Outcome::Stopped,
                _ = flush.tick() => self.flush().await,
                _ = report.tick() => { self.report(); Ok(()) }
                () = sleep(deadline.map_or(limits::SOURCE_STALL, |at| at.since(now))) => self.wake().await,
                Some(news) = told.recv() => match news {
                    News::Found(found) => self.found(found).await,
                    News::Read(offset) => self.input(Input::Read(offset)).await,
                },
                Some(event) = inbox.recv() => self.event(event).await,
            };
            if let Err(outcome) = result {
                return outcome;
            }
            if self.unflushed >= limits::FLUSH_BYTES
                && let Err(outcome) = self.flush().await
            {
                return outcome;
            }
        }
        self.report();
        Outcome::Stopped
    }

    async fn found(&mut self, found: Vec<FoundSource>) -> Result<(), Outcome> {
        let mut peers = Vec::with_capacity(found.len());
        for source in found.into_iter().filter(|source| source.peer != self.shared.own) {
            if self.homes.len() < limits::SOURCES_PER_JOB || self.homes.contains_key(&source.peer) {
                self.homes.insert(source.peer, source.homes);
                peers.push(source.peer);
            }
        }
        self.input(Input::SourcesFound(peers)).await
    }

    async fn event(&mut self, event: Event) -> Result<(), Outcome> {
        match event {
            Event::Session { session, peer, news } => {
                if self.sessions.get(&peer).is_some_and(|current| current.number == session) {
                    self.session_news(peer, news).await?;
                }
                Ok(())
            }
            Event::Request { id, news } => match self.requests.get(&id) {
                Some((peer, _)) => self.request_news(id, *peer, news).await,
                None => Ok(()),
            },
        }
    }

    async fn session_news(&mut self, peer: PeerId, news: SessionNews) -> Result<(), Outcome> {
        let input = match news {
            SessionNews::Opened { lease, size, complete, tops } => {
                if let Some(session) = self.sessions.get_mut(&peer) {
                    session.lease = Some(lease);
                }
                if self.tops.len() < limits::SESSIONS_PER_JOB || self.tops.contains_key(&size) {
                    self.tops.insert(size, tops);
                }
                Input::Opened { peer, size, complete }
            }
            // No content has that size: the swarm drops the source.
            SessionNews::Lied => {
                self.complain(peer);
                Input::Opened { peer, size: 0, complete: true }
            }
            SessionNews::Have { first, bits } => {
                self.heard(peer);
                Input::Have { peer, first, bits }
            }
            SessionNews::Others(others) => return self.found(others).await,
            SessionNews::Suggested(run) => Input::Suggested { peer, run },
            SessionNews::Queued(position) => {
                self.set_position(peer, Some(position));
                Input::Queued { peer, position }
            }
            SessionNews::Granted => {
                self.set_position(peer, None);
                Input::Granted(peer)
            }
            SessionNews::Revoked => Input::Revoked(peer),
            SessionNews::Closed(reason) => {
                if reason == CloseReason::NotHeld {
                    self.complain(peer);
                }
                self.sessions.remove(&peer);
                Input::Closed { peer, reason }
            }
        };
        self.input(input).await
    }

    async fn request_news(&mut self, id: RequestId, peer: PeerId, news: RequestNews) -> Result<(), Outcome> {
        let now = self.shared.clock.now();
        match news {
            RequestNews::Progress(bytes) => {
                self.rate.add(now, bytes);
                TRANSFER_BYTES.add((Direction::In, self.via_of(peer).unwrap_or(Via::Direct).into()), bytes);
                self.rates.entry(peer).or_default().add(now, bytes);
                self.input(Input::Progress { peer, bytes }).await
            }
            RequestNews::Segment(segment) => {
                if let Some(holding) = self.holding.clone() {
                    let partial = self.partial.clone();
                    blocking(move || partial.save_segment(&holding, segment)).await?;
                }
                self.requests.remove(&id);
                self.input(Input::SegmentArrived(id)).await
            }
            RequestNews::Piece { piece, last } => {
                if last {
                    self.requests.remove(&id);
                }
                self.count(peer, piece);
                self.input(Input::PieceArrived { request: id, piece }).await
            }
            RequestNews::Failed => {
                self.requests.remove(&id);
                self.input(Input::RequestFailed(id)).await
            }
            RequestNews::Corrupt(corruption) => {
                self.requests.remove(&id);
                self.shared.holdings.lost(&self.record.content, &peer);
                VERIFIED_PIECES.increment(PieceResult::Corrupt);
                BANS.increment((BanScope::Leaf, BanReason::Corrupt));
                tracing::warn!(?peer, content = %self.record.content.short(), "a source sent wrong data and is dropped");
                self.complain(peer);
                let piece = match corruption {
                    Corruption::Answer => None,
                    Corruption::Piece { piece, data } => {
                        self.accuse(peer, piece);
                        self.spoiled = Some((piece, data, peer));
                        Some(piece)
                    }
                };
                let result = self.input(Input::Corrupt { request: id, piece }).await;
                // If nobody can repair it, it is fetched whole.
                self.spoiled = None;
                result
            }
            RequestNews::Disk(error) => Err(error.into()),
        }
    }

    fn count(&mut self, peer: PeerId, piece: u64) {
        let Some(holding) = &self.holding else { return };
        if !holding.add_piece(piece) {
            return;
        }
        let bytes = holding.layout().piece_range(piece).map_or(0, |range| range.end - range.start);
        VERIFIED_PIECES.increment(PieceResult::Ok);
        if !self.serving {
            self.serve_part();
        }
        self.heard(peer);
        let via = self.via_of(peer);
        let source = self.sources.entry(peer).or_insert_with(|| (0, via.unwrap_or(Via::Direct)));
        source.0 += bytes;
        source.1 = via.unwrap_or(source.1);
        self.unflushed += bytes;
    }

    /// A source has something of the content: the peers that fetch it from here are told.
    fn heard(&self, peer: PeerId) {
        if let Some(homes) = self.homes.get(&peer) {
            self.shared.holdings.heard(self.shared.clock.now(), self.record.content, peer, homes);
        }
    }

    /// How a source is connected, while its session is open.
    fn via_of(&self, peer: PeerId) -> Option<Via> {
        self.sessions.get(&peer)?.lease.as_ref().map(|lease| lease.via())
    }

    /// Tells the homes of a source that it does not have what it lists.
    fn complain(&self, peer: PeerId) {
        let homes = self.homes.get(&peer).cloned().unwrap_or_default();
        self.shared.finder.complain(FoundSource { peer, homes }, self.record.content);
    }

    /// Tells a source that a piece of it was wrong.
    fn accuse(&self, peer: PeerId, piece: u64) {
        if let Some(lease) = self.sessions.get(&peer).and_then(|session| session.lease.clone()) {
            self.shared.tasks.spawn("accuse", session::accuse(lease, self.record.content, piece));
        }
    }

    fn set_position(&mut self, peer: PeerId, position: Option<u32>) {
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.position = position;
        }
    }

    async fn input(&mut self, input: Input) -> Result<(), Outcome> {
        let now = self.shared.clock.now();
        self.swarm.handle(&mut Context::new(now, &mut self.rng), input, &mut self.out);
        self.carry_out().await
    }

    async fn wake(&mut self) -> Result<(), Outcome> {
        let now = self.shared.clock.now();
        self.swarm.on_deadline(&mut Context::new(now, &mut self.rng), &mut self.out);
        self.carry_out().await
    }

    async fn carry_out(&mut self) -> Result<(), Outcome> {
        for output in self.out.drain().collect::<Vec<_>>() {
            match output {
                Output::Open(peer) => self.open(peer),
                Output::Close(peer) => {
                    if let Some(session) = self.sessions.remove(&peer) {
                        session.task.abort();
                    }
                }
                Output::Sized(size) => self.begin(size).await?,
                Output::Request { id, peer, work } => self.request(id, peer, work),
                Output::Cancel(id) => {
                    if let Some((_, task)) = self.requests.remove(&id) {
                        task.abort();
                    }
                }
                Output::Appetite { peer, wants } => {
                    if let Some(session) = self.sessions.get(&peer) {
                        session.appetite.send_replace(wants);
                    }
                }
                Output::FindSources => self.find(),
                Output::Finished => self.finished = true,
            }
        }
        Ok(())
    }

    fn open(&mut self, peer: PeerId) {
        let number = self.next_session;
        self.next_session += 1;
        let homes = self.homes.get(&peer).cloned().unwrap_or_default();
        let pool = Arc::clone(&self.shared.pool);
        let (appetite, appetites) = watch::channel(true);
        let telling = Telling { homes: self.shared.finder.homes(), appetite: appetites };
        let work = session::session(pool, self.record.content, (peer, homes), number, telling, self.events.clone());
        let task = self.shared.tasks.spawn("download session", work);
        self.sessions.insert(peer, Session { number, task, lease: None, position: None, appetite });
    }

    /// Begins to work with a size: an empty partial file of that size.
    async fn begin(&mut self, size: u64) -> Result<(), Outcome> {
        (self.holding, self.serving) = (None, false);
        self.sources.clear();
        let (Ok(layout), Some(tops)) = (Layout::new(size), self.tops.get(&size).cloned()) else { return Ok(()) };
        let (partial, name) = (self.partial.clone(), self.record.name.clone());
        let holding = blocking(move || partial.create(name, layout, tops)).await?;
        self.holding = Some(Arc::new(holding));
        Ok(())
    }

    fn request(&mut self, id: RequestId, peer: PeerId, work: Work) {
        let lease = self.sessions.get(&peer).and_then(|session| session.lease.clone());
        let (Some(lease), Some(holding)) = (lease, self.holding.clone()) else { return };
        let (throttle, buffers) = (Arc::clone(&self.shared.throttle), Arc::clone(&self.buffers));
        let request = Request { id, lease, holding, throttle, buffers, events: self.events.clone() };
        let task = match work {
            Work::Segment(segment) => self.shared.tasks.spawn("download values", request.segment(segment)),
            Work::Pieces(run) => self.shared.tasks.spawn("download pieces", request.pieces(run)),
            Work::Repair(piece) => {
                let Some((_, data, accused)) = self.spoiled.take_if(|(spoiled, ..)| *spoiled == piece) else { return };
                self.shared.tasks.spawn("download repair", request.repair(piece, data, accused))
            }
        };
        self.requests.insert(id, (peer, task));
    }

    fn find(&self) {
        let (shared, teller, content) = (Arc::clone(&self.shared), self.teller.clone(), self.record.content);
        self.shared.tasks.spawn("download sources", async move {
            let sources = shared.finder.find(content).await;
            // Without a listener the download has ended.
            let _ = teller.send(News::Found(sources)).await;
        });
    }

    /// Makes durable what was written, then records it: in the background, one after the other.
    async fn flush(&mut self) -> Result<(), Outcome> {
        if let Some(flushing) = self.flushing.take_if(|flushing| flushing.is_finished()) {
            flushing.await.map_err(io::Error::other)??;
        }
        if self.unflushed == 0 || self.flushing.is_some() {
            return Ok(());
        }
        self.unflushed = 0;
        self.serve_part();
        self.flushing = self.start_flush();
        Ok(())
    }

    fn start_flush(&mut self) -> Option<JoinHandle<io::Result<()>>> {
        let holding = self.holding.clone()?;
        let bits = Bits { size: holding.layout().size(), have: holding.have().as_bytes().to_vec() };
        self.record.size = Some(bits.size);
        self.record.sources = self.source_list();
        let (shared, partial, id) = (Arc::clone(&self.shared), self.partial.clone(), self.record.id.clone());
        let (size, sources) = (self.record.size, self.record.sources.clone());
        Some(spawn_blocking(move || {
            partial.flush(&holding)?;
            Ok(shared.save_pieces(&id, &bits, size, sources)?)
        }))
    }

    /// Flushes everything and waits for it.
    async fn flush_now(&mut self) -> io::Result<()> {
        if let Some(flushing) = self.flushing.take() {
            flushing.await.map_err(io::Error::other)??;
        }
        match self.start_flush() {
            Some(flushing) => flushing.await.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }

    /// Once the size is proven, others may fetch what is verified.
    fn serve_part(&mut self) {
        if let Some(holding) = self.holding.as_ref().filter(|_| self.swarm.is_proven()) {
            self.shared.holdings.add(holding);
            self.serving = true;
        }
    }

    async fn finish(&mut self, target: &Target) -> io::Result<Outcome> {
        self.flush_now().await?;
        let Some(holding) = self.holding.take() else { return Ok(Outcome::Stopped) };
        let Some(values) = holding.all_values() else { return Ok(Outcome::Stopped) };
        let size = holding.layout().size();
        self.shared.holdings.remove(&self.record.content);
        let (partial, target, file) = (self.partial.clone(), target.clone(), Arc::clone(&holding));
        let placed = spawn_blocking(move || {
            file.file().sync_all()?;
            partial.finish(&target)
        });
        let path = match placed.await.map_err(io::Error::other)? {
            Ok(path) => path,
            Err(FinishError::Taken) => return Ok(Outcome::Conflict),
            Err(FinishError::Io(error)) => return Err(error),
        };
        self.shared.enter(path.clone(), self.record.content, values).await;
        Ok(Outcome::Done { path, size, sources: self.source_list() })
    }

    fn end_tasks(&mut self) {
        for (_, task) in std::mem::take(&mut self.requests).into_values() {
            task.abort();
        }
        for session in std::mem::take(&mut self.sessions).into_values() {
            session.task.abort();
        }
    }

    fn source_list(&self) -> Vec<(PeerId, u64, Via)> {
        self.sources.iter().map(|(peer, (bytes, via))| (*peer, *bytes, *via)).collect()
    }

    fn report(&self) {
        self.show(self.shared.clock.now());
        self.shared.report(&self.record.id);
    }

    fn show(&self, now: Time) {
        let sources: Vec<Source> = self.swarm.sources().map(|source| self.show_source(now, &source)).collect();
        let is = |state| sources.iter().any(|source| source.state == state);
        let state = if is(SourceState::Active) || is(SourceState::Connecting) {
            State::Active
        } else if is(SourceState::Queued) {
            State::Queued
        } else if sources.is_empty() {
            State::Active
        } else {
            State::Stalled
        };
        let granted = is(SourceState::Active);
        let position = sources.iter().filter_map(|source| source.queue_position).min().filter(|_| !granted);
        let view = View {
            state: Some(state),
            size: self.holding.as_ref().map(|holding| holding.layout().size()).or(self.record.size),
            bytes: self.holding.as_ref().map_or(0, |holding| bytes_of(holding)),
            rate: self.rate.shown(now),
            queue_position: position,
            sources,
            holding: self.holding.clone(),
        };
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    fn show_source(&self, now: Time, source: &swarm::SourceView) -> Source {
        let session = self.sessions.get(&source.peer);
        let state = match source.state {
            swarm::SourceState::Idle { .. } => SourceState::Waiting,
            swarm::SourceState::Opening => SourceState::Connecting,
            swarm::SourceState::Waiting { .. } => SourceState::Queued,
            swarm::SourceState::Granted => SourceState::Active,
            swarm::SourceState::Dropped => SourceState::Dropped,
        };
        let counted = self.sources.get(&source.peer);
        let via = session.and_then(|session| session.lease.as_ref()).map(|lease| lease.via());
        Source {
            peer: source.peer,
            state,
            bytes: counted.map_or(0, |(bytes, _)| *bytes),
            rate: self.rates.get(&source.peer).map_or(0, |rate| rate.shown(now)),
            via: via.or_else(|| counted.map(|(_, via)| *via)),
            queue_position: session.and_then(|session| session.position),
        }
    }
}

/// Verified bytes of a holding.
pub(super) fn bytes_of(holding: &Holding) -> u64 {
    bytes_in(holding.layout(), &holding.have())
}

/// Bytes of a set of pieces: all are full but perhaps the last.
pub(super) fn bytes_in(layout: Layout, have: &Bitmap) -> u64 {
    let full = have.count() * u64::from(layout.piece_bytes());
    let last = layout.pieces() - 1;
    let short = layout.pieces() * u64::from(layout.piece_bytes()) - layout.size();
    if have.contains(last) { full - short } else { full }
}

/// Runs something that blocks on the disk elsewhere.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
