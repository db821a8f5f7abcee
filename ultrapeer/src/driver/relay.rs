//! Guests that are relayed to each other: their streams wait here until the machine joins them.
//!
//! Each side comes on a connection of its own, so that what waits to be relayed never holds back what a leaf says to its
//! home. Whoever sends faster than the operator allows is not read from: QUIC's windows tell him, and the connection
//! that is carried inside slows down.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use overlay::{
    limits,
    transport::{CloseCode, Occupancy, Occupant, Offer, Receiver, Sender, Windows},
    wire::{
        hello::RefuseReason,
        leaf::{LeafMessage, RelayReady, RelayRefusal},
    },
};
use rustc_hash::FxHashMap;
use tokio::time::{sleep, timeout};

use super::Shared;
use crate::{
    metrics::{RELAY_BYTES, RELAY_CIRCUITS},
    relays::{Guest, Pace, Settings},
    ultrapeer::Input,
};

/// The guests that wait, and how fast those are that do not.
#[derive(Debug)]
pub(crate) struct Relaying {
    waiting: Mutex<FxHashMap<Guest, End>>,
    places: Occupancy,
    /// Bytes a second of each; 0 is no limit.
    rate: AtomicU64,
}

/// A guest's stream.
#[derive(Debug)]
struct End {
    sender: Sender<LeafMessage>,
    receiver: Receiver<LeafMessage>,
    _place: Occupant,
}

impl Relaying {
    pub(crate) fn new(settings: Settings) -> Self {
        let relaying = Self {
            waiting: Mutex::default(),
            places: Occupancy::new(limits::RELAY_GUESTS, limits::RELAY_GUESTS / 4),
            rate: AtomicU64::new(0),
        };
        relaying.reconfigure(settings);
        relaying
    }

    pub(crate) fn reconfigure(&self, settings: Settings) {
        self.rate.store(settings.rate.unwrap_or(0), Ordering::Relaxed);
    }

    fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    fn waiting(&self) -> MutexGuard<'_, FxHashMap<Guest, End>> {
        // Every operation leaves the map whole, so a panic elsewhere does not spoil it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a guest in and hears to whom it wants to be relayed.
pub(super) async fn receive(shared: &Arc<Shared>, offer: Offer<LeafMessage>) {
    let Some(place) = shared.relay.places.take(offer.address().ip()) else {
        return offer.refuse(RefuseReason::Full, Vec::new());
    };
    let peer = offer.peer();
    let Ok(link) = offer.welcome(None).await else { return };
    let connection = link.connection.clone();
    let asked = timeout(limits::REQUEST_TIMEOUT, async {
        let (sender, mut receiver) = connection.accept::<LeafMessage>().await.ok()?;
        match receiver.next().await {
            Ok(Some(LeafMessage::RelayOpen(open))) => Some((sender, receiver, open)),
            _ => None,
        }
    });
    let Ok(asked) = asked.await else { return connection.close(CloseCode::Silent) };
    let Some((sender, receiver, open)) = asked else { return connection.close(CloseCode::Violation) };
    connection.set_windows(Windows::Active);
    let guest = shared.number();
    shared.relay.waiting().insert(guest, End { sender, receiver, _place: place });
    if shared.machine.input(Input::RelayOpen(guest, peer, open)).await.is_err() {
        shared.relay.waiting().remove(&guest);
    }
}

/// Tells a guest that nothing comes of it.
pub(super) fn turn_away(shared: &Arc<Shared>, guest: Guest, why: RelayRefusal) {
    let Some(mut end) = shared.relay.waiting().remove(&guest) else { return };
    shared.tasks.spawn("guest refused", async move {
        // If this fails, the guest is gone.
        let _ = end.sender.send(&RelayReady { refused: Some(why) }.into()).await;
        farewell(end).await;
    });
}

/// Sees delivered what is under way to a guest, and lets it go.
async fn farewell(mut end: End) {
    let told = async {
        end.sender.finish()?;
        end.sender.delivered().await
    };
    // Whether it was heard or not, the connection ends now.
    let _ = timeout(limits::FAREWELL_TIMEOUT, told).await;
    end.sender.connection().close(CloseCode::Done);
}

/// Carries between two guests until one of them goes.
pub(super) fn join(shared: &Arc<Shared>, one: Guest, other: Guest) {
    let (first, second) = {
        let mut waiting = shared.relay.waiting();
        (waiting.remove(&one), waiting.remove(&other))
    };
    let carrier = shared.clone();
    shared.tasks.spawn("relay", async move {
        if let (Some(mut first), Some(mut second)) = (first, second) {
            RELAY_CIRCUITS.increment(());
            carry(&carrier, &mut first, &mut second).await;
            RELAY_CIRCUITS.decrement(());
            tokio::join!(farewell(first), farewell(second));
        }
        // A machine that stopped relays nothing.
        let _ = carrier.machine.input(Input::RelayLeft(one)).await;
    });
}

async fn carry(shared: &Shared, first: &mut End, second: &mut End) {
    for end in [&mut *first, &mut *second] {
        if end.sender.send(&RelayReady { refused: None }.into()).await.is_err() {
            return;
        }
    }
    let (pace, left) = (Mutex::new(Pace::new(shared.clock.now())), AtomicU64::new(limits::RELAY_BYTES));
    tokio::select! {
        () = pass(shared, &mut first.receiver, &mut second.sender, &pace, &left) => {}
        () = pass(shared, &mut second.receiver, &mut first.sender, &pace, &left) => {}
        () = shared.tasks.token().cancelled_owned() => {}
    }
}

/// Passes on what one says to the other.
async fn pass(
    shared: &Shared,
    from: &mut Receiver<LeafMessage>,
    to: &mut Sender<LeafMessage>,
    pace: &Mutex<Pace>,
    left: &AtomicU64,
) {
    while let Ok(Some(message)) = from.next().await {
        let LeafMessage::Carried(carried) = &message else { return };
        let bytes = carried.packet.len();
        let enough = |left: u64| left.checked_sub(bytes as u64);
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_err() {
            return;
        }
        let pause = {
            let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.wait(shared.clock.now(), bytes, shared.relay.rate())
        };
        if !pause.is_zero() {
            sleep(pause).await;
        }
        RELAY_BYTES.add((), bytes as u64);
        if to.send(&message).await.is_err() {
            return;
        }
    }
}
