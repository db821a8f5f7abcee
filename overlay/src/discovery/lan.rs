//! Nodes in the local network, by multicast DNS: this one shows itself, and hears of others.
//!
//! A network with a secret shows a tag that only its nodes can tell from chance, and not who they are.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mdns_sd::{IfKind, Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::time::{sleep, timeout};

use super::{Discovery, Hint, Input, Rendezvous, Source};
use crate::{
    drive::{Handle, random_name},
    id::PeerId,
    introduction::may_try,
    limits,
};

/// The kind of service, as all nodes of all networks name it.
const SERVICE: &str = "_quictrack._udp.local.";
/// The property that names the network.
const NETWORK: &str = "network";
/// The property that names the node.
const PEER: &str = "peer";
/// Somebody in this site: what is announced must be at least as far away.
const SITE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1)), 7780);

/// What a node shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) rendezvous: Rendezvous,
    pub(super) peer: PeerId,
    /// Where it listens; all addresses if none is said.
    pub(super) listen: SocketAddr,
}

/// A node that shows itself, and those that it has heard of. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lan {
    daemon: ServiceDaemon,
    name: String,
    tag: String,
    own: PeerId,
    heard: Arc<Mutex<BTreeMap<String, Vec<Hint>>>>,
}

impl Lan {
    /// Shows a node. Fails if the system does not let it.
    pub(super) fn start(shown: &Shown) -> io::Result<Self> {
        let failed = |error: mdns_sd::Error| io::Error::other(error.to_string());
        let (tag, instance) = (shown.rendezvous.local_tag(), random_name()?);
        let mut properties = vec![(NETWORK, tag.clone())];
        if !shown.rendezvous.is_private() {
            properties.push((PEER, shown.peer.to_string()));
        }
        let (host, ip) = (format!("{instance}.local."), shown.listen.ip());
        let info = |addresses: &str| {
            ServiceInfo::new(SERVICE, &instance, &host, addresses, shown.listen.port(), &properties[..])
        };
        let daemon = ServiceDaemon::new().map_err(failed)?;
        let mut service = if ip.is_unspecified() {
            info("").map_err(failed)?.enable_addr_auto()
        } else {
            info(&ip.to_string()).map_err(failed)?
        };
        if ip.is_ipv4() {
            service.set_interfaces(vec![IfKind::IPv4]);
            daemon.disable_interface(IfKind::IPv6).map_err(failed)?;
        }
        let name = service.get_fullname().to_lowercase();
        daemon.register(service).map_err(failed)?;
        Ok(Self { daemon, name, tag, own: shown.peer, heard: Arc::default() })
    }

    /// Hears of others for ever, and tells the core what is new.
    pub(super) async fn hear(self, machine: Handle<Discovery>) {
        loop {
            match self.daemon.browse(SERVICE) {
                Ok(events) => self.follow(&events, &machine).await,
                Err(error) => tracing::debug!(%error, "the local network cannot be listened to"),
            }
            // Whoever is overrun is not told of it, only not told anything any more.
            sleep(limits::STANDING_LOOK).await;
        }
    }

    async fn follow(&self, events: &Receiver<ServiceEvent>, machine: &Handle<Discovery>) {
        while let Ok(event) = events.recv_async().await {
            match event {
                ServiceEvent::ServiceResolved(service) => {
                    let hints = self.hints(&service);
                    if !hints.is_empty() && self.note(service.fullname.to_lowercase(), hints.clone()) {
                        // A core that stopped needs nobody.
                        let _ = machine.input(Input::Found(Source::Lan, hints)).await;
                    }
                }
                ServiceEvent::ServiceRemoved(_, name) => {
                    self.heard().remove(&name.to_lowercase());
                }
                _ => {}
            }
        }
    }

    /// Where a node of this network is, by what it shows.
    fn hints(&self, service: &ResolvedService) -> Vec<Hint> {
        let is_ours = service.get_property_val_str(NETWORK) == Some(&self.tag);
        let peer = service.get_property_val_str(PEER).and_then(|peer| peer.parse().ok());
        if !is_ours || service.fullname.to_lowercase() == self.name || peer == Some(self.own) {
            return Vec::new();
        }
        let addresses = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
        // Which of the interfaces an IPv6 address of a link belongs to is not known when it is dialled.
        let fits = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let addresses = addresses.filter(fits).map(|ip| SocketAddr::new(ip, service.port));
        let mut addresses: Vec<_> = addresses.filter(|address| may_try(*address, SITE)).collect();
        addresses.sort_unstable();
        addresses.truncate(limits::LAN_ADDRESSES);
        addresses.into_iter().map(|address| Hint { address, peer }).collect()
    }

    /// False if there is no room for another node.
    fn note(&self, name: String, hints: Vec<Hint>) -> bool {
        let mut heard = self.heard();
        let fits = heard.len() < limits::LAN_NODES || heard.contains_key(&name);
        if fits {
            heard.insert(name, hints);
        }
        fits
    }

    /// All that is heard of now.
    pub(super) fn all(&self) -> Vec<Hint> {
        self.heard().values().flatten().copied().collect()
    }

    /// Shows the node no longer, and says so.
    pub(super) async fn end(self) {
        let farewell = async {
            if let Ok(done) = self.daemon.unregister(&self.name) {
                // Others forget it by themselves, too.
                let _ = done.recv_async().await;
            }
            if let Ok(done) = self.daemon.shutdown() {
                let _ = done.recv_async().await;
            }
        };
        if timeout(limits::LAN_FAREWELL, farewell).await.is_err() {
            tracing::debug!("the farewell to the local network took too long");
        }
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Hint>>> {
        // Every operation leaves the value whole, so a panic elsewhere does not spoil it.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
