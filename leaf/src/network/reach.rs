//! Reaching other leaves, and finding who has a content: the network's side of transfers.
//!
//! A leaf never dials an address that only a third party claimed. It asks a home, the target's homes ask
//! the target, and the addresses that come back are those at which these homes see it. Which way is tried, and what an
//! address gets that does not answer, is decided by [`crate::approach`].
//!
//! ```text
//!   introduced ──> direct, push or punch ──fails──> introduced again for the next way ──fails──> relay
//! ```

use std::{net::SocketAddr, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use overlay::{
    drive::random_token,
    id::{ContentId, PeerId},
    introduction::{Way, may_try_local},
    limits,
    transport::{Attempt, Connection, DialError, Greeting},
    wire::{
        bounded::List,
        leaf::{Introduce, Introduced, IntroductionFailure, LeafMessage, Whereabouts},
        possession::Complaint,
        search::{Reachability, Target},
        transfer::TransferMessage,
    },
};
use tokio::time::{sleep, timeout};

use super::{
    driver::{Network, SearchNews, Shared, lock},
    meet::{self, Awaited},
    relayed,
};
use crate::{
    approach::Course,
    metrics,
    search::Request,
    transfer::{FoundSource, Reach, ReachError, SourceFinder, Via},
};

impl Reach for Network {
    fn connect(&self, peer: PeerId, homes: Vec<PeerId>) -> BoxFuture<'_, Result<(Connection, Via), ReachError>> {
        connect(self.shared.clone(), peer, homes).boxed()
    }

    fn improve(&self, peer: PeerId, homes: Vec<PeerId>) -> BoxFuture<'_, Result<(Connection, Via), ReachError>> {
        improve(self.shared.clone(), peer, homes).boxed()
    }
}

impl SourceFinder for Network {
    fn find(&self, content: ContentId) -> BoxFuture<'_, Vec<FoundSource>> {
        find(self.clone(), content).boxed()
    }

    fn homes(&self) -> Vec<PeerId> {
        self.shared.homes().keys().copied().collect()
    }

    fn complain(&self, source: FoundSource, content: ContentId) {
        let FoundSource { peer, homes } = source;
        let shared = &self.shared;
        let own: Vec<_> = shared.homes().values().map(|home| home.connection.clone()).collect();
        // A home of both need not ask another.
        let home = own.iter().min_by_key(|home| (!homes.contains(&home.peer()), home.rtt()));
        if let Some(home) = home
            && lock(&shared.complaints).take(shared.clock.now())
        {
            shared.say(&home.peer(), Complaint { source: peer, content, homes: List::new(homes) });
        }
    }
}

/// What an introduction gave.
pub(super) struct Meeting {
    pub(super) found: Box<Whereabouts>,
    pub(super) token: u64,
    /// The target may dial this leaf.
    pushed: Awaited,
}

async fn connect(shared: Arc<Shared>, peer: PeerId, homes: Vec<PeerId>) -> Result<(Connection, Via), ReachError> {
    let failed = |error: &ReachError| metrics::attempt_failed(Via::Direct, error);
    check(&shared, peer).inspect_err(failed)?;
    let mut meeting = introduce(&shared, peer, &homes, None).await.inspect_err(failed)?;
    let (mut tried, mut asked) = (Vec::new(), None);
    loop {
        let course = Course::new(*shared.nature.borrow(), &meeting.found, &tried);
        let Some(way) = asked.or_else(|| course.way()) else {
            return Err(ReachError::Unreachable("every way was tried".to_owned()));
        };
        let result = match way {
            Way::Relay => relayed::reach(&shared, peer, &meeting).await.map(|connection| (connection, Via::Relay)),
            way => attempt(&shared, peer, &mut meeting, &course, way).await,
        };
        let error = match result {
            Ok(reached) => return Ok(reached),
            Err(error) => error,
        };
        tracing::debug!(?peer, ?way, %error, "a way to a leaf failed");
        metrics::attempt_failed(via(way, course.near), &error);
        tried.push(way);
        let next = Course::new(*shared.nature.borrow(), &meeting.found, &tried).way();
        let is_final = matches!(error, ReachError::Refused | ReachError::Banned | ReachError::Version(_));
        asked = match next.filter(|_| !is_final) {
            None => return Err(error),
            Some(Way::Relay) => Some(Way::Relay),
            Some(next) => match introduce(&shared, peer, &homes, Some(next)).await {
                Ok(again) => {
                    meeting = again;
                    Some(next)
                }
                // What was agreed to before still holds at the relay.
                Err(_) => Some(Way::Relay),
            },
        };
    }
}

/// Tries once more to do without the relay; last with the sides changed: the target dials, and this leaf opens its NAT.
async fn improve(shared: Arc<Shared>, peer: PeerId, homes: Vec<PeerId>) -> Result<(Connection, Via), ReachError> {
    check(&shared, peer)?;
    let mut meeting = introduce(&shared, peer, &homes, None).await?;
    let course = Course::new(*shared.nature.borrow(), &meeting.found, &[]);
    if let Some(way) = course.way().filter(|way| *way != Way::Relay)
        && let Ok(reached) = attempt(&shared, peer, &mut meeting, &course, way).await
    {
        return Ok(reached);
    }
    let mut meeting = introduce(&shared, peer, &homes, Some(Way::Push)).await?;
    let open = shared.nature.borrow().is_open();
    let addresses =
        if open { Vec::new() } else { lock(&shared.approaches).may_probe(shared.clock.now(), course.addresses) };
    tokio::select! {
        pushed = meeting.pushed.arrived(limits::PUSH_TIMEOUT) => {
            pushed.map(|connection| (connection, if open { Via::Push } else { Via::Punch }))
        }
        never = async { meet::probe(&shared, addresses).await; std::future::pending().await } => never,
    }
}

fn check(shared: &Shared, peer: PeerId) -> Result<(), ReachError> {
    if peer == shared.endpoint.peer() {
        return Err(ReachError::Unreachable("it is this node itself".to_owned()));
    }
    if shared.endpoint.bans().bans_peer(&peer) {
        return Err(ReachError::Banned);
    }
    Ok(())
}

/// Asks one home after the other, those that the target has too first.
async fn introduce(
    shared: &Arc<Shared>,
    target: PeerId,
    homes: &[PeerId],
    way: Option<Way>,
) -> Result<Meeting, ReachError> {
    let mut own: Vec<_> = shared.homes().values().map(|home| (home.connection.clone(), home.address())).collect();
    own.sort_by_key(|(connection, _)| (!homes.contains(&connection.peer()), connection.rtt()));
    let token = random_token().map_err(|error| ReachError::Unreachable(error.to_string()))?;
    let pushed = meet::expect(shared, target, token)?;
    let mut last = ReachError::NoHome;
    for (connection, address) in own {
        let local = shared.endpoint.local_towards(address).filter(|address| may_try_local(*address));
        let homes = List::new(homes.iter().copied());
        let nature = *shared.nature.borrow();
        let ask = Introduce { target, homes, way, token, nature, local: List::new(local) };
        let asked = timeout(limits::INTRODUCTION_TIMEOUT * 2, ask_home(&connection, ask)).await;
        match asked.ok().flatten() {
            Some(Introduced::At(found)) => return Ok(Meeting { found, token, pushed }),
            Some(Introduced::Failed(IntroductionFailure::TargetGone)) => return Err(ReachError::Gone),
            Some(Introduced::Failed(IntroductionFailure::Refused)) => return Err(ReachError::Refused),
            Some(Introduced::Failed(failure)) => last = ReachError::Unreachable(failure.text().to_owned()),
            None => last = ReachError::Unreachable("a home did not answer".to_owned()),
        }
    }
    Err(last)
}

async fn ask_home(connection: &Connection, ask: Introduce) -> Option<Introduced> {
    let (mut sender, mut receiver) = connection.open::<LeafMessage>().await.ok()?;
    sender.send(&ask.into()).await.ok()?;
    match receiver.next().await {
        Ok(Some(LeafMessage::Introduced(introduced))) => Some(introduced),
        _ => None,
    }
}

/// How a way is shown that led to the other leaf.
const fn via(way: Way, near: bool) -> Via {
    match way {
        Way::Push => Via::Push,
        Way::Punch if !near => Via::Punch,
        Way::Relay => Via::Relay,
        _ => Via::Direct,
    }
}

async fn attempt(
    shared: &Shared,
    peer: PeerId,
    meeting: &mut Meeting,
    course: &Course,
    way: Way,
) -> Result<(Connection, Via), ReachError> {
    let attempt = if way == Way::Punch { Attempt::Punch } else { Attempt::Named };
    // Whether others can dial it is found out soon after a leaf has begun; until then it may be.
    let dials = way != Way::Push || meeting.found.nature.reachability == Reachability::Unknown;
    let granted = if dials {
        lock(&shared.approaches).may_dial(shared.clock.now(), course.addresses.clone())
    } else {
        Vec::new()
    };
    let shown = if way == Way::Push { Via::Direct } else { via(way, course.near) };
    let dialling = dial_any(shared, peer, meeting.token, granted, attempt);
    if way != Way::Push {
        return dialling.await.map(|connection| (connection, shown));
    }
    tokio::select! {
        Ok(connection) = meeting.pushed.arrived(limits::PUSH_TIMEOUT) => Ok((connection, Via::Push)),
        Ok(connection) = dialling => Ok((connection, shown)),
        else => Err(ReachError::Timeout),
    }
}

/// Dials all addresses, each a little later than the one before; the first that answers wins.
pub(super) async fn dial_any(
    shared: &Shared,
    peer: PeerId,
    token: u64,
    addresses: Vec<SocketAddr>,
    attempt: Attempt,
) -> Result<Connection, ReachError> {
    let greeting = Greeting { introduction: token, ..Greeting::default() };
    let mut dials: FuturesUnordered<_> = addresses
        .into_iter()
        .enumerate()
        .map(|(place, address)| async move {
            sleep(limits::DIAL_STAGGER * place as u32).await;
            let dialled = shared.endpoint.dial_as::<TransferMessage>(attempt, address, Some(peer), greeting).await;
            (address, dialled)
        })
        .collect();
    let mut last = None;
    while let Some((address, dialled)) = dials.next().await {
        let silent = matches!(
            dialled,
            Err(DialError::Timeout { .. } | DialError::Unreachable { .. } | DialError::WrongPeer { .. })
        );
        if !silent {
            lock(&shared.approaches).answered(&address);
        }
        match dialled {
            Ok(dialled) => return Ok(dialled.link.connection),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        None => ReachError::Unreachable("no address is known that may be tried now".to_owned()),
        Some(error) => why(error),
    })
}

/// Why a leaf was not reached, of why a dial failed.
pub(super) fn why(error: DialError) -> ReachError {
    match error {
        DialError::Timeout { .. } => ReachError::Timeout,
        error @ (DialError::PeerOlder { .. } | DialError::PeerNewer { .. }) => ReachError::Version(error.to_string()),
        error => ReachError::Unreachable(error.to_string()),
    }
}

/// Asks the network for all holders of a content.
async fn find(network: Network, content: ContentId) -> Vec<FoundSource> {
    let request = Request { target: Target::Content(content), limit: 1, timeout: limits::LOOKUP_TIMEOUT, all: true };
    let Ok((_, mut news)) = network.search(request).await else { return Vec::new() };
    let mut sources = Vec::new();
    // The end is told, and nothing comes after it.
    while let Some(SearchNews::Hit(mut hit)) = news.recv().await {
        if network.bans().withholds(&mut hit) {
            continue;
        }
        let own = network.shared.endpoint.peer();
        let others = hit.peers.iter().filter(|source| source.peer != own);
        sources = others.map(|source| FoundSource { peer: source.peer, homes: source.homes.to_vec() }).collect();
    }
    sources
}
