//! Getting into the network: join targets, names, founding, and the own address.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use overlay::{
    address::{JoinAddress, Reach},
    discovery::Hint,
    id::PeerId,
    limits,
    metrics::{BOOTSTRAP_ATTEMPTS, BootstrapResult, BootstrapSource},
    transport::{Attempt, DialError},
    wire::{descriptor::SignedDescriptor, hello::Contact, mesh::MeshMessage},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use super::{Shared, greeting, mesh_link};
use crate::ultrapeer::Input;

/// How the last attempt at a join target went, for `status`.
#[derive(Clone, Debug)]
pub struct JoinStatus {
    /// The target, as its operator wrote it.
    pub target: String,
    /// What went wrong; `None` if it led into the network.
    pub error: Option<JoinError>,
}

/// Why a join target did not lead into the network.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JoinError {
    /// Its name does not resolve.
    #[error("its name has no address: {0}")]
    Name(String),
    /// It could not be dialled, or refused.
    #[error(transparent)]
    Dial(DialError),
}

/// The join targets and how they went.
#[derive(Debug)]
pub(crate) struct Joining {
    targets: Mutex<Vec<Target>>,
    changed: Notify,
}

#[derive(Debug)]
struct Target {
    address: JoinAddress,
    source: BootstrapSource,
    error: Option<JoinError>,
}

impl Target {
    fn new(address: JoinAddress, source: BootstrapSource) -> Self {
        Self { address, source, error: None }
    }
}

impl Joining {
    pub(crate) fn new(targets: Vec<JoinAddress>) -> Self {
        let targets = targets.into_iter().take(limits::JOIN_TARGETS);
        let targets = targets.map(|address| Target::new(address, BootstrapSource::Config)).collect();
        Self { targets: Mutex::new(targets), changed: Notify::new() }
    }

    /// These are the targets from that source from now on. They are tried at once, unless they were known.
    pub(crate) fn set(&self, source: BootstrapSource, targets: Vec<JoinAddress>) {
        let mut known = self.lock();
        if known.iter().filter(|target| target.source == source).map(|target| &target.address).eq(&targets) {
            return;
        }
        known.retain(|target| target.source != source);
        let room = limits::JOIN_TARGETS.saturating_sub(known.len());
        known.extend(targets.into_iter().map(|address| Target::new(address, source)).take(room));
        self.changed.notify_one();
    }

    pub(crate) fn status(&self) -> Vec<JoinStatus> {
        let status = |target: &Target| JoinStatus { target: target.address.to_string(), error: target.error.clone() };
        self.lock().iter().map(status).collect()
    }

    fn targets(&self) -> Vec<(JoinAddress, BootstrapSource)> {
        self.lock().iter().map(|target| (target.address.clone(), target.source)).collect()
    }

    fn note(&self, address: &JoinAddress, error: Option<JoinError>) {
        let mut targets = self.lock();
        let Some(target) = targets.iter_mut().find(|known| known.address == *address) else { return };
        let said = |error: &Option<JoinError>| error.as_ref().map(ToString::to_string);
        if let Some(why) = said(&error).filter(|why| said(&target.error).as_ref() != Some(why)) {
            tracing::warn!(join = %address, "this join target does not lead into the network, and is tried again: {why}");
        }
        target.error = error;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Target>> {
        // Every operation leaves the value whole, so a panic elsewhere does not spoil it.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries the join targets: at once and with growing pauses until the node serves, then now and then, so that
/// networks which were founded apart find each other. A founder that finds
/// nobody in its patience begins the network.
pub(super) async fn run(
    shared: Arc<Shared>,
    patience: Option<Duration>,
    remembered: Vec<SignedDescriptor>,
    contacts: Vec<Contact>,
) {
    if let Some(address) = shared.address.first() {
        // A machine that stopped needs no address.
        let _ = shared.machine.input(Input::Address(address)).await;
    }
    if !contacts.is_empty() {
        let _ = shared.machine.input(Input::Contacts(contacts)).await;
    }
    if !remembered.is_empty() {
        let _ = shared.machine.input(Input::Remembered(remembered)).await;
    }
    let mut admitted = shared.admitted.subscribe();
    let mut pause = limits::REDIAL_MIN;
    let mut founding = patience.map(|patience| Instant::now() + patience);
    let mut looks: usize = 0;
    loop {
        let serves = *admitted.borrow_and_update();
        if serves {
            // Whoever was let in founds nothing, whenever its patience ends.
            founding = None;
        } else if founding.is_some_and(|at| at <= Instant::now()) {
            founding = None;
            let _ = shared.machine.input(Input::Found).await;
            continue;
        }
        // Who serves looks for others of the same name: in a small network everywhere, else at one place at a time.
        let targets = shared.join.targets();
        let all = !serves || small(&shared).await;
        let turn = looks.checked_rem(targets.len()).unwrap_or(0);
        looks += 1;
        for (number, (target, source)) in targets.into_iter().enumerate() {
            if all || number == turn {
                let error = attempt(&shared, &target).await.err();
                BOOTSTRAP_ATTEMPTS.increment((source, outcome(error.as_ref())));
                shared.join.note(&target, error);
            }
        }
        // Also one that has just begun a network looks often at first: another may have begun at the same time.
        pause = (pause * 2).min(if *admitted.borrow() { limits::GONE_REDIAL } else { limits::REDIAL_MAX });
        let until = Instant::now() + pause;
        let until = founding.map_or(until, |at| at.min(until));
        tokio::select! {
            () = shared.join.changed.notified() => pause = limits::REDIAL_MIN,
            // Ends early when the node is let in, or later when that changes.
            _ = timeout_at(until, admitted.changed()) => {}
        }
    }
}

/// What an attempt counts as.
fn outcome(error: Option<&JoinError>) -> BootstrapResult {
    match error {
        None => BootstrapResult::Ok,
        Some(JoinError::Name(_)) => BootstrapResult::Empty,
        Some(JoinError::Dial(error)) => error.into(),
    }
}

/// True while so few ultrapeers are known that others may have founded the same network elsewhere.
async fn small(shared: &Shared) -> bool {
    let total = shared.machine.inspect(|machine| machine.membership().total()).await;
    total.is_ok_and(|total| total <= limits::SMALL_NETWORK)
}

/// Tries every address of a target until one leads into the network or names others that may.
async fn attempt(shared: &Arc<Shared>, target: &JoinAddress) -> Result<(), JoinError> {
    let addresses: Vec<_> = tokio::net::lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(|error| JoinError::Name(error.to_string()))?
        .take(limits::JOIN_TARGETS)
        .collect();
    let mut last = JoinError::Name("the name has no address".to_owned());
    for address in addresses {
        if shared.ports.is_linked_at(address) {
            return Ok(());
        }
        match dial(shared, Attempt::Usual, target.peer, address).await {
            Ok(()) => return Ok(()),
            Err(error) => last = JoinError::Dial(error),
        }
    }
    Err(last)
}

/// Dials an address where somebody says that a node of the network is.
pub(super) async fn try_hint(shared: &Arc<Shared>, hint: Hint) -> BootstrapResult {
    let is_known = hint.peer.is_some_and(|peer| shared.ports.is_linked(&peer));
    if is_known || shared.ports.is_linked_at(hint.address) {
        return BootstrapResult::Ok;
    }
    match dial(shared, Attempt::Named, hint.peer, hint.address).await {
        Ok(()) => BootstrapResult::Ok,
        Err(error) => (&error).into(),
    }
}

async fn dial(
    shared: &Arc<Shared>,
    attempt: Attempt,
    peer: Option<PeerId>,
    address: SocketAddr,
) -> Result<(), DialError> {
    let dialled = match shared.endpoint.dial_as::<MeshMessage>(attempt, address, peer, greeting()).await {
        Ok(dialled) => dialled,
        Err(DialError::Refused { alternatives, .. }) if !alternatives.is_empty() => {
            // A leaf, or one that is full: those it names are dialled by the machine.
            let _ = shared.machine.input(Input::Named(alternatives)).await;
            // They get a moment before the next target is tried.
            sleep(limits::REDIAL_MIN).await;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    // If it is linked already, this link takes the place of that one on both sides.
    shared.observed(dialled.welcome.observed).await;
    let run = mesh_link::run(shared.clone(), dialled.link, true, dialled.welcome.descriptor);
    shared.tasks.spawn("mesh", run);
    Ok(())
}

/// Where this node is reached: as its operator says, as it is bound, or as others see it. Of what others
/// say, an address that more of the world can use is better; the first of equals stays.
#[derive(Debug)]
pub(crate) struct OwnAddress {
    inner: Mutex<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    fixed: Option<SocketAddr>,
    bound: SocketAddr,
    best: Option<SocketAddr>,
}

impl Known {
    fn current(&self) -> Option<SocketAddr> {
        self.fixed.or(self.best)
    }
}

impl OwnAddress {
    pub(crate) fn new(advertise: Option<SocketAddr>, bound: SocketAddr) -> Self {
        Self { inner: Mutex::new(Known { fixed: fixed(advertise, bound), bound, best: None }) }
    }

    fn first(&self) -> Option<SocketAddr> {
        self.lock().fixed
    }

    /// What is announced.
    pub(crate) fn current(&self) -> Option<SocketAddr> {
        self.lock().current()
    }

    /// The operator's word or the bound address changed, or neither did. The address to announce from now on, if that
    /// changes it. What others said of another bound address counts no more: what they say next does.
    pub(crate) fn fix(&self, advertise: Option<SocketAddr>, bound: SocketAddr) -> Option<SocketAddr> {
        let mut known = self.lock();
        let before = known.current();
        let best = known.best.filter(|_| known.bound == bound);
        *known = Known { fixed: fixed(advertise, bound), bound, best };
        known.current().filter(|now| Some(*now) != before)
    }

    /// The address to announce from now on, if `address` changes that.
    pub(crate) fn observed(&self, address: SocketAddr) -> Option<SocketAddr> {
        let mut known = self.lock();
        if known.fixed.is_some() || address.port() == 0 {
            return None;
        }
        let better = known.best.is_none_or(|best| Reach::of(address.ip()) > Reach::of(best.ip()));
        better.then(|| *known.best.insert(address))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Both fields are whole after every statement, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the operator says, or the bound address unless it is all of them.
fn fixed(advertise: Option<SocketAddr>, bound: SocketAddr) -> Option<SocketAddr> {
    advertise.or_else(|| (!bound.ip().is_unspecified()).then_some(bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_the_operator_says_is_not_overruled() {
        let own = OwnAddress::new(Some(address("198.51.100.1:1")), address("0.0.0.0:7780"));
        assert_eq!(own.first(), Some(address("198.51.100.1:1")));
        assert_eq!(own.observed(address("203.0.113.1:1")), None);
    }

    #[test]
    fn what_others_said_counts_until_the_node_moves() {
        let (bound, seen) = (address("0.0.0.0:7780"), address("203.0.113.1:7780"));
        let own = OwnAddress::new(None, bound);
        assert_eq!(own.observed(seen), Some(seen));
        assert_eq!((own.fix(None, bound), own.current()), (None, Some(seen)), "nothing changed");
        let forwarded = address("203.0.113.1:1024");
        assert_eq!(own.fix(Some(forwarded), bound), Some(forwarded));
        assert_eq!(own.fix(Some(forwarded), bound), None);
        assert_eq!(own.fix(None, bound), Some(seen), "the router forwards it no more");
        assert_eq!((own.fix(None, address("0.0.0.0:7781")), own.current()), (None, None));
        assert_eq!(own.observed(seen), Some(seen));
        assert_eq!(own.fix(None, address("192.0.2.1:7781")), Some(address("192.0.2.1:7781")));
    }

    #[test]
    fn a_wider_reach_wins_and_equals_do_not_flap() {
        let own = OwnAddress::new(None, address("[::]:7780"));
        assert_eq!(own.first(), None);
        assert_eq!(own.observed(address("127.0.0.1:7780")), Some(address("127.0.0.1:7780")));
        assert_eq!(own.observed(address("192.168.1.2:7780")), Some(address("192.168.1.2:7780")));
        assert_eq!(own.observed(address("127.0.0.1:7780")), None);
        assert_eq!(own.observed(address("203.0.113.1:9")), Some(address("203.0.113.1:9")));
        assert_eq!(own.observed(address("203.0.113.2:9")), None);
    }
}
