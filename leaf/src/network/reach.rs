//! Reaching other leaves, and finding who has a content: the network's side of transfers.
//!
//! A leaf never dials an address that only a third party claimed. It asks a home, the target's homes ask
//! the target, and the addresses that come back are those at which these homes see it.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use overlay::{
    id::{ContentId, PeerId},
    limits,
    transport::{Connection, DialError, Greeting},
    wire::{
        bounded::List,
        leaf::{Introduce, Introduced, IntroductionFailure, LeafMessage},
        possession::Complaint,
        search::Target,
        transfer::TransferMessage,
    },
};
use tokio::time::{sleep, timeout};

use super::driver::{Network, SearchNews, Shared, lock};
use crate::{
    search::Request,
    transfer::{FoundSource, Reach, ReachError, SourceFinder, Via},
};

impl Reach for Network {
    fn connect(&self, peer: PeerId, homes: Vec<PeerId>) -> BoxFuture<'_, Result<(Connection, Via), ReachError>> {
        connect(self.shared.clone(), peer, homes).boxed()
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

async fn connect(shared: Arc<Shared>, peer: PeerId, homes: Vec<PeerId>) -> Result<(Connection, Via), ReachError> {
    if peer == shared.endpoint.peer() {
        return Err(ReachError::Unreachable("it is this node itself".to_owned()));
    }
    if shared.endpoint.bans().bans_peer(&peer) {
        return Err(ReachError::Banned);
    }
    let addresses = introduce(&shared, peer, &homes).await?;
    dial_any(&shared, peer, addresses).await
}

/// Asks one home after the other, those that the target has too first.
async fn introduce(shared: &Shared, target: PeerId, homes: &[PeerId]) -> Result<Vec<SocketAddr>, ReachError> {
    let mut own: Vec<_> = shared.homes().values().map(|home| home.connection.clone()).collect();
    own.sort_by_key(|connection| (!homes.contains(&connection.peer()), connection.rtt()));
    let mut last = ReachError::NoHome;
    for connection in own {
        let ask = Introduce { target, homes: List::new(homes.iter().copied()) };
        let asked = timeout(limits::INTRODUCTION_TIMEOUT * 2, ask_home(&connection, ask)).await;
        match asked.ok().flatten() {
            Some(Introduced::At(addresses)) => return Ok(addresses.into_vec()),
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

/// Dials all addresses, each a little later than the one before; the first that answers wins.
async fn dial_any(shared: &Shared, peer: PeerId, addresses: Vec<SocketAddr>) -> Result<(Connection, Via), ReachError> {
    let distinct: BTreeSet<_> = addresses.into_iter().collect();
    let mut dials: FuturesUnordered<_> = distinct
        .into_iter()
        .enumerate()
        .map(|(place, address)| async move {
            sleep(limits::DIAL_STAGGER * place as u32).await;
            shared.endpoint.dial::<TransferMessage>(address, Some(peer), Greeting::default()).await
        })
        .collect();
    let mut last = None;
    while let Some(dialled) = dials.next().await {
        match dialled {
            Ok(dialled) => return Ok((dialled.link.connection, Via::Direct)),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        None => ReachError::Unreachable("no home knows its address".to_owned()),
        Some(DialError::Timeout { .. }) => ReachError::Timeout,
        Some(error @ (DialError::PeerOlder { .. } | DialError::PeerNewer { .. })) => {
            ReachError::Version(error.to_string())
        }
        Some(error) => ReachError::Unreachable(error.to_string()),
    })
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
