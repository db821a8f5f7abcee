//! The tasks of one home's connection: who is told what, and the upload of the file list.
//!
//! ```text
//!   announce   root of the list, whenever it changes ──> CatalogRoot
//!   wishes     the wishes that it shall have, whenever they change
//!   upload     CatalogWant ──> parts of the chunks that the home lacks
//!   watch      CatalogAck ──> acknowledged; Members ──> machine; Introduction ──> we agree; Ping ──> Pong
//! ```

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use overlay::{
    batch,
    discovery::Hint,
    id::PeerId,
    limits,
    metrics::{BOOTSTRAP_ATTEMPTS, BootstrapResult},
    time::Time,
    transport::{Attempt, CloseCode, CloseReason, Connection, DialError, Dialled, Link, Receiver, Sender},
    wire::{
        bounded::{Blob, List},
        hello::{Contact, Goodbye, RefuseReason},
        leaf::{
            CatalogPart, CatalogRoot, CatalogWant, ChunkRef, LeafMessage, Ping, Pong, RootStatement, Volunteer, Wishes,
        },
    },
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};

use super::{
    Input,
    driver::{HomeStatus, Shared},
    meet,
};
use crate::{
    catalog::Catalog,
    founding::is_local,
    metrics::{CATALOG_SENT_BYTES, HOME_SWITCHES, HomeSwitch},
};

/// A home that this leaf is attached to.
#[derive(Debug, Clone)]
pub(super) struct HomePort {
    pub(super) connection: Connection,
    address: SocketAddr,
    observed: SocketAddr,
    since: Time,
    queue: mpsc::Sender<LeafMessage>,
    acknowledged: watch::Sender<Option<(u64, u64)>>,
    suspected: Arc<Notify>,
    /// True once this leaf said good-bye: whichever side closes then, it was this leaf that left.
    left: Arc<AtomicBool>,
    /// The wishes that it shall have; `None` until it shall have some.
    wishes: watch::Sender<Option<Wishes>>,
}

impl HomePort {
    /// Where it was dialled.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn status(&self, now: Time) -> HomeStatus {
        let acknowledged = *self.acknowledged.borrow();
        HomeStatus {
            peer: self.connection.peer(),
            address: self.address,
            rtt: self.connection.rtt(),
            age: now.since(self.since),
            sequence: acknowledged.map(|(sequence, _)| sequence),
            acknowledged: acknowledged.map_or(0, |(_, files)| files),
            observed: self.observed,
        }
    }

    /// The home must answer a ping, or it is given up.
    pub(super) fn suspect(&self) {
        self.suspected.notify_one();
    }

    /// Says something on the control stream; a home that is that far behind with reading gets no more.
    pub(super) fn say(&self, message: LeafMessage) {
        if self.queue.try_send(message).is_err() {
            self.suspect();
        }
    }

    /// Says something that is owed to the home. False if its connection is gone.
    pub(super) async fn answer(&self, message: LeafMessage) -> bool {
        self.queue.send(message).await.is_ok()
    }

    /// The home shall have these wishes.
    pub(super) fn wish(&self, wishes: Wishes) {
        self.wishes.send_replace(Some(wishes));
    }

    /// Says good-bye and waits until the home has closed in answer.
    pub(super) async fn leave(self) {
        self.left.store(true, Ordering::Relaxed);
        let goodbye = Goodbye { alternatives: List::default() };
        if self.queue.send(goodbye.into()).await.is_ok() {
            // The writer closes the connection once the good-bye is out.
            self.connection.closed().await;
        }
    }
}

/// Dials an ultrapeer and stays attached to it until the connection ends.
pub(super) async fn attach(shared: Arc<Shared>, address: SocketAddr, peer: Option<PeerId>, insists: bool) {
    let greeting = shared.greeting(insists).await;
    let dialled = shared.endpoint.dial::<LeafMessage>(address, peer, greeting).await;
    let result = dialled.as_ref().map_or_else(BootstrapResult::from, |_| BootstrapResult::Ok);
    BOOTSTRAP_ATTEMPTS.increment((shared.source_of(address), result));
    match dialled {
        Ok(dialled) => stay(&shared, dialled, address).await,
        Err(error) => {
            let ended = match &error {
                DialError::Refused { alternatives, .. } => Input::Refused(address, alternatives.clone()),
                _ => Input::DialFailed(address),
            };
            answered(&shared, &error).await;
            shared.join_failed(address, error);
            // A machine that stopped dials nobody.
            let _ = shared.machine.input(ended).await;
        }
    }
}

/// Dials an address where somebody says that a node of the network is, with care for whoever else may be there, and stays
/// attached to it in a task of its own if it is an ultrapeer.
pub(super) async fn try_hint(shared: &Arc<Shared>, hint: Hint) -> BootstrapResult {
    let Hint { address, peer } = hint;
    let is_home = |(known, port): (&PeerId, &HomePort)| Some(*known) == peer || port.address == address;
    if shared.homes().iter().any(is_home) {
        return BootstrapResult::Ok;
    }
    let greeting = shared.greeting(false).await;
    match shared.endpoint.dial_as::<LeafMessage>(Attempt::Named, address, peer, greeting).await {
        Ok(dialled) => {
            let staying = shared.clone();
            shared.tasks.spawn("home", async move { stay(&staying, dialled, address).await });
            BootstrapResult::Ok
        }
        Err(error) => {
            answered(shared, &error).await;
            let result = (&error).into();
            if let DialError::Refused { alternatives, .. } = error {
                // A machine that stopped dials nobody.
                let _ = shared.machine.input(Input::Named(alternatives)).await;
            }
            result
        }
    }
}

/// Dials a leaf that may be an ultrapeer by now, and stays attached to it if it is one. Somebody else may have named it,
/// so not much is sent there before it answers.
pub(super) async fn contact(shared: Arc<Shared>, contact: Contact) {
    let greeting = shared.greeting(false).await;
    let dialling = shared.endpoint.dial::<LeafMessage>(contact.address, Some(contact.peer), greeting);
    match timeout(limits::CONTACT_TIMEOUT, dialling).await {
        Ok(Ok(dialled)) => stay(&shared, dialled, contact.address).await,
        Ok(Err(DialError::Refused { alternatives, situation, contacts, .. })) => {
            let answered = Input::Answered { contact, situation, named: contacts };
            // A machine that stopped dials nobody.
            if shared.machine.input(answered).await.is_ok() && !alternatives.is_empty() {
                let _ = shared.machine.input(Input::Named(alternatives)).await;
            }
        }
        failed => {
            let why = failed.map_or_else(
                |_| "no answer".to_owned(),
                |dialled| dialled.err().map(|error| error.to_string()).unwrap_or_default(),
            );
            tracing::debug!(address = %contact.address, why, "a leaf without a home could not be reached");
            // As above.
            let _ = shared.machine.input(Input::DialFailed(contact.address)).await;
        }
    }
}

/// What a leaf that refused says of itself and of others.
async fn answered(shared: &Shared, error: &DialError) {
    if let DialError::Refused { address, reason: RefuseReason::NotUltrapeer, peer, situation, contacts, .. } = error {
        let contact = Contact { peer: *peer, address: *address };
        let answered = Input::Answered { contact, situation: *situation, named: contacts.clone() };
        // A machine that stopped waits for nobody.
        let _ = shared.machine.input(answered).await;
    }
}

async fn stay(shared: &Arc<Shared>, dialled: Dialled<LeafMessage>, address: SocketAddr) {
    shared.forget_problems();
    run(shared, dialled.link, address, dialled.welcome).await;
}

async fn run(
    shared: &Arc<Shared>,
    link: Link<LeafMessage>,
    address: SocketAddr,
    welcome: overlay::wire::hello::Welcome,
) {
    let Link { connection, sender, receiver } = link;
    let peer = connection.peer();
    let (queue, outgoing) = mpsc::channel(limits::LEAF_QUEUE);
    let port = HomePort {
        connection: connection.clone(),
        address,
        observed: welcome.observed,
        since: shared.clock.now(),
        queue: queue.clone(),
        acknowledged: watch::Sender::new(None),
        suspected: Arc::new(Notify::new()),
        left: Arc::default(),
        wishes: watch::Sender::new(None),
    };
    if let Some(old) = shared.homes().insert(peer, port.clone()) {
        old.connection.close(CloseCode::Replaced);
    }
    let tasks = shared.tasks.child();
    let (wants, wanted) = mpsc::channel(limits::UPLOADS);
    let guard = |connection: &Connection| {
        let connection = connection.clone();
        move || connection.close(CloseCode::Failure)
    };
    let announced = watch::Sender::new(shared.list.catalog());
    let (catalogs, acknowledged) = (announced.subscribe(), port.acknowledged.subscribe());
    tasks.spawn_guarded("home writer", write(outgoing, sender), guard(&connection));
    tasks.spawn_guarded(
        "home list",
        announce(shared.clone(), peer, queue.clone(), announced, acknowledged),
        guard(&connection),
    );
    tasks.spawn_guarded("home wishes", wish(port.wishes.subscribe(), queue.clone()), guard(&connection));
    tasks.spawn_guarded("home upload", upload(wanted, catalogs, queue.clone()), guard(&connection));
    let pongs = Arc::new(Notify::new());
    let watched = watch_over(port.clone(), pongs.clone());
    tasks.spawn_guarded("home watch", watched, guard(&connection));
    tasks.spawn("home round trip", measure(shared.clone(), port.clone()));
    let (descriptor, observed) = (welcome.descriptor, welcome.observed);
    let attached = Input::Attached { peer, address, descriptor, rtt: connection.rtt(), observed };
    let mut drained = false;
    if shared.machine.input(attached).await.is_ok() {
        let mut reader = Reader { shared, port: &port, wants, pongs, drained: false };
        reader.run(receiver).await;
        drained = reader.drained;
    }
    let reason = connection.close_reason();
    tasks.cancel();
    connection.close(CloseCode::Done);
    let is_current = shared.forget_home(&connection);
    shared.signal();
    if is_current {
        if !port.left.load(Ordering::Relaxed)
            && let Some(switch) = switch(drained, reason.as_ref())
        {
            HOME_SWITCHES.increment(switch);
        }
        // A machine that stopped has no homes.
        let _ = shared.machine.input(Input::Lost(peer)).await;
    }
}

/// Why a home is one no more; `None` if this leaf left it.
fn switch(drained: bool, reason: Option<&CloseReason>) -> Option<HomeSwitch> {
    match reason {
        Some(CloseReason::Local(CloseCode::Shutdown)) => None,
        _ if drained => Some(HomeSwitch::Drained),
        Some(CloseReason::Remote(CloseCode::Refused | CloseCode::Banned)) => Some(HomeSwitch::Refused),
        _ => Some(HomeSwitch::Lost),
    }
}

/// Takes what a home says on the control stream.
struct Reader<'a> {
    shared: &'a Arc<Shared>,
    port: &'a HomePort,
    wants: mpsc::Sender<CatalogWant>,
    pongs: Arc<Notify>,
    /// True once the home said good-bye.
    drained: bool,
}

impl Reader<'_> {
    async fn run(&mut self, mut receiver: Receiver<LeafMessage>) {
        loop {
            match receiver.next().await {
                Ok(Some(message)) => {
                    if !self.take(message).await {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::debug!(peer = ?self.port.connection.peer(), %error, "a home is lost"),
            }
        }
    }

    /// False if the link has nothing more to say.
    async fn take(&mut self, message: LeafMessage) -> bool {
        let (machine, peer) = (&self.shared.machine, self.port.connection.peer());
        match message {
            LeafMessage::Members(members) => machine.input(Input::Members(peer, members)).await.is_ok(),
            LeafMessage::Allowance(allowance) => machine.input(Input::Allowance(peer, allowance)).await.is_ok(),
            LeafMessage::CatalogWant(want) => self.wants.send(want).await.is_ok(),
            LeafMessage::CatalogAck(ack) => {
                // Homes count all that they look after; people count what they share.
                let shown = ack.files.saturating_sub(self.shared.list.catalog().unlisted_files());
                self.port.acknowledged.send_replace(Some((ack.sequence, shown)));
                self.shared.signal();
                let catalog = self.shared.list.catalog();
                let whole = catalog.sequence() != ack.sequence || ack.files >= catalog.files();
                let acknowledged = Input::Acknowledged { home: peer, sequence: ack.sequence, whole };
                machine.input(acknowledged).await.is_ok()
            }
            LeafMessage::Introduction(introduction) => meet::introduced(self.shared, self.port, introduction).await,
            LeafMessage::RelayOffer(offer) => {
                meet::offered(self.shared, self.port, offer);
                true
            }
            LeafMessage::DialledBack(told) => machine.input(Input::DialledBack(peer, told.reached)).await.is_ok(),
            LeafMessage::PossessionAsk(ask) => {
                let (shared, queue) = (self.shared.clone(), self.port.queue.clone());
                self.shared.tasks.spawn("possession", async move {
                    let answer = shared.answers.answer(shared.clock.now(), &*shared.list, peer, ask).await;
                    // A home that is gone needs no answer.
                    let _ = queue.send(answer.into()).await;
                });
                true
            }
            LeafMessage::Ping(ping) => self.port.queue.send(Pong { token: ping.token }.into()).await.is_ok(),
            LeafMessage::Pong(_) => {
                self.pongs.notify_one();
                machine.input(Input::Alive(peer)).await.is_ok()
            }
            LeafMessage::Goodbye(goodbye) => {
                self.drained = true;
                machine.input(Input::Draining(peer, goodbye.alternatives.into_vec())).await.is_ok()
            }
            LeafMessage::WishHits(hits) => machine.input(Input::WishHits(peer, hits)).await.is_ok(),
            LeafMessage::Appraisal(appraisal) => machine.input(Input::Appraised(peer, appraisal)).await.is_ok(),
            LeafMessage::Volunteers(told) => {
                let local = is_local(self.port.address);
                let usable = told.leaves.into_iter().filter(|contact| local || !is_local(contact.address));
                machine.input(Input::Volunteers(usable.collect())).await.is_ok()
            }
            LeafMessage::View(view) => machine.input(Input::View(peer, view)).await.is_ok(),
            _ => {
                tracing::debug!(?peer, "a home sent what homes do not send");
                self.port.connection.reject();
                false
            }
        }
    }
}

async fn write(mut queue: mpsc::Receiver<LeafMessage>, mut sender: Sender<LeafMessage>) {
    while let Some(message) = queue.recv().await {
        let last = matches!(message, LeafMessage::Goodbye(_));
        if sender.send(&message).await.is_err() {
            return sender.connection().close(CloseCode::Overload);
        }
        if last {
            // What waits for the other side to read is lost with the connection, so see it delivered first.
            let finished = sender.finish().is_ok() && sender.delivered().await.is_ok();
            tracing::trace!(finished, "said good-bye");
            return sender.connection().close(CloseCode::Shutdown);
        }
    }
}

/// Announces the list now and whenever it changes, how busy this leaf is, and whether it would be an ultrapeer.
///
/// A list that is still being uploaded is not replaced by one with more files: over a slow line none would ever be
/// whole, and only whole lists are searchable. One that lost files is announced at once.
async fn announce(
    shared: Arc<Shared>,
    home: PeerId,
    queue: mpsc::Sender<LeafMessage>,
    announced: watch::Sender<Arc<Catalog>>,
    mut acknowledged: watch::Receiver<Option<(u64, u64)>>,
) {
    let mut published = shared.list.watch_catalog();
    let (mut load, mut willing) = (shared.load.subscribe(), shared.willing.subscribe());
    let state = *load.borrow_and_update();
    if queue.send(state.into()).await.is_err() {
        return;
    }
    // Who says nothing is not willing.
    let offer = Volunteer { willing: *willing.borrow_and_update() };
    // It wants to know then how fast this leaf sends.
    shared.endpoint.expect_measure(home);
    if offer.willing && queue.send(offer.into()).await.is_err() {
        return;
    }
    let (mut last, mut under_way) = (None, None);
    loop {
        let next = shared.list.catalog();
        if is_due(&next, last.as_ref(), under_way.is_some()) {
            let root = sign(&shared, home, &next);
            under_way = Some(next.sequence());
            last = Some((next.sequence(), next.files()));
            announced.send_replace(next);
            if queue.send(root.into()).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = published.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            changed = acknowledged.changed() => {
                let known = acknowledged.borrow_and_update().map(|(sequence, _)| sequence);
                if changed.is_err() {
                    return;
                }
                if known >= under_way {
                    under_way = None;
                }
            }
            changed = load.changed() => {
                let state = *load.borrow_and_update();
                if changed.is_err() || queue.send(state.into()).await.is_err() {
                    return;
                }
            }
            changed = willing.changed() => {
                let offer = Volunteer { willing: *willing.borrow_and_update() };
                if changed.is_err() || queue.send(offer.into()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// True if a list is to be announced after the last one, of which sequence and files are given.
fn is_due(next: &Catalog, last: Option<&(u64, u64)>, is_under_way: bool) -> bool {
    last.is_none_or(|(sequence, files)| next.sequence() != *sequence && (!is_under_way || next.files() < *files))
}

fn sign(shared: &Shared, home: PeerId, catalog: &Catalog) -> CatalogRoot {
    let chunks: Vec<_> = catalog
        .chunks()
        .take(limits::CHUNKS_PER_LEAF)
        .map(|chunk| ChunkRef { hash: chunk.hash, bytes: chunk.bytes, files: chunk.files as u16 })
        .collect();
    let statement = RootStatement {
        root: overlay::wire::leaf::catalog_root(chunks.iter().map(|chunk| &chunk.hash)),
        files: chunks.iter().map(|chunk| u64::from(chunk.files)).sum(),
        sequence: catalog.sequence(),
        lifetime_s: limits::CATALOG_LIFETIME_S,
        home,
    };
    CatalogRoot::sign(&shared.identity, &statement, chunks)
}

/// Tells the home which wishes it shall have: the latest, if it is slow to listen.
async fn wish(mut wishes: watch::Receiver<Option<Wishes>>, queue: mpsc::Sender<LeafMessage>) {
    while wishes.changed().await.is_ok() {
        let latest = wishes.borrow_and_update().clone();
        if let Some(wishes) = latest
            && queue.send(wishes.into()).await.is_err()
        {
            return;
        }
    }
}

/// Sends the chunks that the home asks for, of the list that was announced last.
async fn upload(
    mut wanted: mpsc::Receiver<CatalogWant>,
    catalogs: watch::Receiver<Arc<Catalog>>,
    queue: mpsc::Sender<LeafMessage>,
) {
    while let Some(want) = wanted.recv().await {
        let catalog = catalogs.borrow().clone();
        if catalog.sequence() != want.sequence {
            continue; // of an older list: the home has been told of the newer one
        }
        for index in want.chunks {
            let Some(info) = catalog.chunks().nth(index as usize) else { continue };
            let Some(bytes) = catalog.chunk_bytes(&info.hash) else { continue };
            if !send_chunk(&queue, want.sequence, index, bytes).await {
                return;
            }
        }
    }
}

async fn send_chunk(queue: &mpsc::Sender<LeafMessage>, sequence: u64, chunk: u32, bytes: &[u8]) -> bool {
    let mut parts = batch::cut(bytes).peekable();
    while let Some(part) = parts.next() {
        let data = match part {
            Ok(part) => Blob::new(part),
            Err(error) => {
                tracing::error!(%error, "a part of the file list could not be compressed");
                return false;
            }
        };
        let Some(data) = data else { return false };
        CATALOG_SENT_BYTES.add((), data.len() as u64);
        let part = CatalogPart { sequence, chunk, last: parts.peek().is_none(), data };
        if queue.send(part.into()).await.is_err() {
            return false;
        }
    }
    true
}

/// Pings the home when it is suspected, and gives it up if it stays silent.
async fn watch_over(port: HomePort, pongs: Arc<Notify>) {
    loop {
        port.suspected.notified().await;
        let ping = Ping { token: port.connection.id() };
        let answered = async {
            port.queue.send(ping.into()).await.is_ok() && {
                pongs.notified().await;
                true
            }
        };
        if timeout(limits::LEAF_PATIENCE, answered).await != Ok(true) {
            return port.connection.close(CloseCode::Silent);
        }
    }
}

/// Looks at the connection now and then: tells the machine the round trip (the nearest home is asked first), and
/// suspects a home that left packets unanswered.
async fn measure(shared: Arc<Shared>, port: HomePort) {
    let mut ticks = tokio::time::interval(limits::PULSE_INTERVAL);
    let mut pulse = Pulse::default();
    loop {
        ticks.tick().await;
        let stats = port.connection.stats();
        if pulse.is_missing(stats.sent_packets, stats.received_bytes) {
            port.suspect();
        }
        let input = Input::RoundTrip(port.connection.peer(), stats.rtt);
        if shared.machine.input(input).await.is_err() {
            return;
        }
    }
}

/// What a connection had sent and received at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Pulse {
    sent: u64,
    received: u64,
}

impl Pulse {
    /// True if something was sent since the last look and nothing came. An answer may just be on its way, so this
    /// is a reason to ask, not to give up.
    fn is_missing(&mut self, sent: u64, received: u64) -> bool {
        let before = std::mem::replace(self, Self { sent, received });
        sent > before.sent && received == before.received
    }
}

#[cfg(test)]
mod tests {
    use overlay::{
        file::{FileEntry, Tags},
        id::ContentId,
    };

    use super::*;
    use crate::catalog::Change;

    #[test]
    fn a_list_under_way_gives_way_only_to_one_that_lost_files() {
        let file = |name: &str| FileEntry {
            path: format!("share/{name}"),
            content: ContentId([1; 32]),
            size: 1,
            modified_s: 0,
            tags: Tags::default(),
        };
        let mut catalog = Catalog::new(7);
        assert!(is_due(&catalog, None, false), "an empty list is a list, too");
        catalog.apply(vec![Change::Upsert(file("a"))]);
        let last = (catalog.sequence(), catalog.files());
        assert!(!is_due(&catalog, Some(&last), false));
        catalog.apply(vec![Change::Upsert(file("b"))]);
        assert!(is_due(&catalog, Some(&last), false));
        assert!(!is_due(&catalog, Some(&last), true));
        let last = (catalog.sequence(), catalog.files());
        catalog.apply(vec![Change::Remove("share/a".into())]);
        assert!(is_due(&catalog, Some(&last), true));
    }

    #[test]
    fn a_connection_that_sends_and_hears_nothing_is_suspicious_and_a_quiet_one_is_not() {
        let mut pulse = Pulse::default();
        assert!(!pulse.is_missing(10, 4_000));
        assert!(!pulse.is_missing(10, 4_000), "nothing was to be answered");
        assert!(!pulse.is_missing(11, 4_030));
        assert!(pulse.is_missing(12, 4_030));
        assert!(pulse.is_missing(15, 4_030), "probes go on");
        assert!(!pulse.is_missing(16, 4_060));
    }

    #[test]
    fn a_home_that_sends_the_leaf_away_is_told_from_one_that_is_gone() {
        for (drained, reason, expected) in [
            (false, Some(CloseReason::Local(CloseCode::Shutdown)), None),
            (true, Some(CloseReason::Remote(CloseCode::Shutdown)), Some(HomeSwitch::Drained)),
            (false, Some(CloseReason::Remote(CloseCode::Refused)), Some(HomeSwitch::Refused)),
            (false, Some(CloseReason::Remote(CloseCode::Banned)), Some(HomeSwitch::Refused)),
            (false, Some(CloseReason::Idle), Some(HomeSwitch::Lost)),
            (false, None, Some(HomeSwitch::Lost)),
        ] {
            assert_eq!(switch(drained, reason.as_ref()), expected, "{reason:?}");
        }
    }
}
