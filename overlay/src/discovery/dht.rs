//! Ultrapeers in the BitTorrent mainline DHT (BEP 5), of which this node is a client: it asks and announces, and answers
//! nobody. IPv4 only, as most of that network is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures_util::StreamExt;
use mainline::{Dht, Id, async_dht::AsyncDht};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{Hint, Rendezvous};
use crate::{address::Reach, drive::wall_clock_s, introduction::may_try, limits};

/// The table, by the nodes through which it is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// `HOST:PORT`; the usual ones if there are none.
    pub(super) bootstrap: Vec<String>,
}

impl Table {
    /// How much of the world it is for: that of the widest of its bootstrap nodes. A name may be anywhere.
    fn reach(&self) -> Reach {
        let reach = |node: &String| node.parse::<SocketAddr>().map_or(Reach::World, |node| Reach::of(node.ip()));
        self.bootstrap.iter().map(reach).max().unwrap_or(Reach::World)
    }

    /// True if a node that listens there may use it: what only this machine, or this site, can reach is no business of the
    /// whole world.
    pub(super) fn is_for(&self, listen: IpAddr) -> bool {
        reach_of(listen) >= self.reach()
    }

    /// Ultrapeers of a network, of today and of yesterday.
    pub(super) async fn look(&self, rendezvous: &Rendezvous) -> io::Result<Vec<Hint>> {
        let table = self.enter().await?;
        // Somebody who sees such an address could be anywhere in what the table is for.
        let observed = match self.reach() {
            Reach::Host => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            Reach::Site => SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 0)),
            Reach::World => SocketAddr::from((Ipv4Addr::new(1, 1, 1, 1), 0)),
        };
        let (until, today) = (Instant::now() + limits::DHT_TIMEOUT, day());
        let mut answers = table
            .get_peers(Id::from(rendezvous.info_hash(today)))
            .chain(table.get_peers(Id::from(rendezvous.info_hash(today.saturating_sub(1)))));
        let mut hints = Vec::new();
        while hints.len() < limits::DHT_ADDRESSES
            && let Ok(Some(addresses)) = timeout_at(until, answers.next()).await
        {
            let fit = addresses.into_iter().map(SocketAddr::V4).filter(|address| may_try(*address, observed));
            hints.extend(fit.map(|address| Hint { address, peer: None }));
        }
        hints.sort_unstable();
        hints.dedup();
        hints.truncate(limits::DHT_ADDRESSES);
        Ok(hints)
    }

    /// Lists this node as an ultrapeer of a network for today.
    pub(super) async fn announce(&self, rendezvous: &Rendezvous, port: u16) -> io::Result<()> {
        let table = self.enter().await?;
        let until = Instant::now() + limits::DHT_TIMEOUT;
        let done = table.announce_peer(Id::from(rendezvous.info_hash(day())), Some(port));
        let done = timeout_at(until, done).await.map_err(|_| io::ErrorKind::TimedOut)?;
        done.map(drop).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Names are looked up on the way, so it may take a while.
    async fn enter(&self) -> io::Result<AsyncDht> {
        let (bootstrap, is_local) = (self.bootstrap.clone(), self.reach() == Reach::Host);
        let enter = move || {
            let mut builder = Dht::builder();
            builder.port(0);
            if is_local {
                builder.bind_address(Ipv4Addr::LOCALHOST);
            }
            if !bootstrap.is_empty() {
                builder.bootstrap(&bootstrap);
            }
            builder.build()
        };
        Ok(spawn_blocking(enter).await.map_err(io::Error::other)??.as_async())
    }
}

/// How much of the world a node can be asked by that listens there; one that listens everywhere is in the world.
pub(super) fn reach_of(listen: IpAddr) -> Reach {
    if listen.is_unspecified() { Reach::World } else { Reach::of(listen) }
}

/// The day in UTC, counted from 1970.
fn day() -> u64 {
    wall_clock_s() / Duration::from_hours(24).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_machine_or_site_leave_the_world_alone() {
        let table = |nodes: &[&str]| Table { bootstrap: nodes.iter().map(|node| (*node).to_owned()).collect() };
        let (public, named) = (table(&[]), table(&["127.0.0.1:6881", "router.example:6881"]));
        let (site, own) = (table(&["10.0.0.1:6881", "127.0.0.1:6881"]), table(&["127.0.0.1:6881"]));
        for (listen, fits) in [
            ("127.0.0.1", [false, false, false, true]),
            ("::1", [false, false, false, true]),
            ("::ffff:127.0.0.1", [false, false, false, true]),
            ("192.168.1.2", [false, false, true, true]),
            ("fe80::1", [false, false, true, true]),
            ("203.0.113.1", [true; 4]),
            ("0.0.0.0", [true; 4]),
            ("::", [true; 4]),
        ] {
            let listen = listen.parse().expect("an address");
            assert_eq!([&public, &named, &site, &own].map(|table| table.is_for(listen)), fits, "{listen}");
        }
    }
}
