//! Asks the router to forward the node's port, so that others can dial it: by PCP, NAT-PMP or UPnP.
//!
//! ```text
//!   private address? ── no ──> nothing
//!      └─ yes ──> PCP ──> NAT-PMP ──> UPnP ──> mapped for an hour, renewed at half, given back at the end
//! ```
//!
//! Invariants:
//! - what a router says is a hope and no more: a node counts as mapped only when somebody dialled it back there;
//! - a mapping at an address that is itself private, or a provider's shared one (RFC 6598), is given back at once: there is
//!   another router behind;
//! - no mapping lasts for longer than [`limits::MAPPING_LEASE`] after this node, however it ends.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use crab_nat::{
    GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp,
};
use igd_next::{
    PortMappingProtocol, SearchOptions,
    aio::{Gateway, tokio::Tokio},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use self::upkeep::{Step, Upkeep};
use crate::{address::Reach, config::Settings, drive::Clock, limits, transport::Endpoint};

mod upkeep;

/// What a router's page calls the mapping.
const DESCRIPTION: &str = "Quictrack";
/// Somewhere in the world: packets to it go out by the default route. None is sent.
const WORLD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// Keeps the port of `endpoint` mapped until `shutdown`, as the latest settings say, and tells where others should reach
/// it then; `None` while it is not mapped.
pub async fn run(
    endpoint: Endpoint,
    clock: Clock,
    mut settings: watch::Receiver<Arc<Settings>>,
    told: watch::Sender<Option<SocketAddr>>,
    shutdown: CancellationToken,
) {
    let mut ticks = interval(limits::MAPPING_LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut upkeep, mut mapping): (_, Option<Mapping>) = (Upkeep::default(), None);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
            changed = settings.changed() => if changed.is_err() {
                break; // the node is about to end
            }
        }
        let wanted = wanted(&settings.borrow_and_update(), &endpoint);
        if upkeep.look(clock.now(), wanted) == Step::GiveBack
            && let Some(old) = mapping.take()
        {
            told.send_replace(None);
            old.give_back().await;
        }
        let asked = async {
            match (upkeep.look(clock.now(), wanted), mapping.take()) {
                (Step::Ask(local), _) => Some(Mapping::ask(local).await),
                (Step::Renew, Some(held)) => Some(held.renew().await),
                (_, held) => {
                    mapping = held;
                    None
                }
            }
        };
        let answer = tokio::select! {
            () = shutdown.cancelled() => break,
            answer = asked => answer,
        };
        match answer {
            None => {}
            Some(Ok(granted)) => {
                upkeep.granted(clock.now(), granted.lease);
                let external = SocketAddr::V4(granted.external);
                if told.send_replace(Some(external)) != Some(external) {
                    tracing::info!(%external, "the router forwards the port, as it says");
                }
                mapping = Some(granted);
            }
            Some(Err(why)) => {
                upkeep.failed(clock.now());
                tracing::debug!(why, "no router forwards the port");
                told.send_replace(None);
            }
        }
    }
    if let Some(old) = mapping {
        old.give_back().await;
    }
}

/// The address of this node in its own network, if it should be forwarded to.
fn wanted(settings: &Settings, endpoint: &Endpoint) -> Option<SocketAddrV4> {
    if !settings.portmap || settings.advertise.is_some() {
        return None;
    }
    let listen = endpoint.local_address();
    let ip = match listen.ip().to_canonical() {
        ip if ip.is_unspecified() => endpoint.local_towards(WORLD)?.ip(),
        ip => ip,
    };
    match ip {
        IpAddr::V4(ip) if Reach::of(ip.into()) == Reach::Site || is_shared(ip) => {
            Some(SocketAddrV4::new(ip, listen.port()))
        }
        _ => None,
    }
}

/// True of addresses that a provider shares among its customers (RFC 6598).
fn is_shared(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && second & 0xc0 == 64
}

/// Why there is no mapping, if what a router says is of no use.
fn judge(ip: Ipv4Addr) -> Result<(), String> {
    if Reach::of(ip.into()) != Reach::World || is_shared(ip) || ip.is_broadcast() || ip.is_multicast() {
        Err(format!("the router is at {ip}, behind another one"))
    } else {
        Ok(())
    }
}

/// A port that is forwarded.
struct Mapping {
    local: SocketAddrV4,
    external: SocketAddrV4,
    lease: Duration,
    by: By,
}

/// Who forwards it.
enum By {
    /// PCP or NAT-PMP.
    Nat(PortMapping),
    Upnp(Gateway<Tokio>),
}

impl Mapping {
    /// Asks by one protocol after the other.
    async fn ask(local: SocketAddrV4) -> Result<Self, String> {
        let mut whys = Vec::new();
        let asked = match default_gateway() {
            Some(gateway) => Self::ask_gateway(gateway.into(), local).await,
            None => Err("the system does not tell the default gateway".to_owned()),
        };
        match asked {
            Ok(mapping) => match mapping.judged().await {
                Ok(mapping) => return Ok(mapping),
                Err(why) => whys.push(why),
            },
            Err(why) => whys.push(why),
        }
        match Self::ask_upnp(local).await {
            Ok(mapping) => return mapping.judged().await,
            Err(why) => whys.push(why),
        }
        Err(whys.join("; "))
    }

    /// Gives it back if it is of no use.
    async fn judged(self) -> Result<Self, String> {
        match judge(*self.external.ip()) {
            Ok(()) => Ok(self),
            Err(why) => {
                self.give_back().await;
                Err(why)
            }
        }
    }

    async fn ask_gateway(gateway: GatewayAddress, local: SocketAddrV4) -> Result<Self, String> {
        let port = NonZeroU16::new(local.port()).ok_or("the node has no port")?;
        let patience =
            TimeoutConfig { initial_timeout: limits::MAPPING_TIMEOUT, max_retries: 2, max_retry_timeout: None };
        let options = PortMappingOptions {
            external_port: Some(port),
            lifetime_seconds: Some(limits::MAPPING_LEASE.as_secs() as u32),
            timeout_config: Some(patience),
        };
        let udp = InternetProtocol::Udp;
        let request = pcp::BaseMapRequest::new(gateway, (*local.ip()).into(), udp, port);
        let mapping = match pcp::port_mapping(request, None, None, options).await {
            Ok(mapping) => mapping,
            Err(error) => natpmp::port_mapping(gateway, udp, port, options)
                .await
                .map_err(|other| format!("PCP: {error}; NAT-PMP: {other}"))?,
        };
        let external = match mapping.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
            PortMappingType::NatPmp => match natpmp::external_address(gateway, Some(patience)).await {
                Ok(external) => external.into(),
                // Then it is useless, and goes by itself.
                Err(error) => return Err(format!("NAT-PMP: {error}")),
            },
        };
        let IpAddr::V4(external) = external else { return Err(format!("PCP: {external} is no IPv4 address")) };
        Ok(Self {
            local,
            external: SocketAddrV4::new(external, mapping.external_port().get()),
            lease: lease(mapping.lifetime()),
            by: By::Nat(mapping),
        })
    }

    async fn ask_upnp(local: SocketAddrV4) -> Result<Self, String> {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new((*local.ip()).into(), 0);
        options.timeout = Some(limits::MAPPING_SEARCH);
        options.single_search_timeout = Some(limits::MAPPING_SEARCH);
        let said = |error: &dyn std::fmt::Display| format!("UPnP: {error}");
        let gateway = igd_next::aio::tokio::search_gateway(options).await.map_err(|error| said(&error))?;
        let IpAddr::V4(external) = gateway.get_external_ip().await.map_err(|error| said(&error))? else {
            return Err("UPnP: the router has no IPv4 address".to_owned());
        };
        judge(external)?;
        let own = SocketAddrV4::new(external, local.port());
        let mapping = |external| Self { local, external, lease: limits::MAPPING_LEASE, by: By::Upnp(gateway.clone()) };
        match mapping(own).renew().await {
            Ok(mapping) => Ok(mapping),
            // Another machine behind this router has it.
            Err(why) => {
                let seconds = limits::MAPPING_LEASE.as_secs() as u32;
                let any = gateway.add_any_port(PortMappingProtocol::UDP, local.into(), seconds, DESCRIPTION);
                let port = any.await.map_err(|error| format!("{why}; UPnP, any port: {error}"))?;
                Ok(mapping(SocketAddrV4::new(external, port)))
            }
        }
    }

    /// Asks for another lease.
    async fn renew(mut self) -> Result<Self, String> {
        match &mut self.by {
            By::Nat(mapping) => {
                mapping.renew().await.map_err(|error| error.to_string())?;
                self.lease = lease(mapping.lifetime());
                self.external.set_port(mapping.external_port().get());
            }
            By::Upnp(gateway) => {
                let seconds = limits::MAPPING_LEASE.as_secs() as u32;
                let asked = gateway.add_port(
                    PortMappingProtocol::UDP,
                    self.external.port(),
                    self.local.into(),
                    seconds,
                    DESCRIPTION,
                );
                asked.await.map_err(|error| format!("UPnP: {error}"))?;
            }
        }
        self.judged().await
    }

    /// The port is forwarded no longer. A router that does not answer forgets it by itself.
    async fn give_back(self) {
        let given = async {
            match self.by {
                By::Nat(mapping) => mapping.try_drop().await.map_err(|(error, _)| error.to_string()),
                By::Upnp(gateway) => {
                    let removed = gateway.remove_port(PortMappingProtocol::UDP, self.external.port());
                    removed.await.map_err(|error| error.to_string())
                }
            }
        };
        match timeout(limits::LAN_FAREWELL, given).await {
            Ok(Ok(())) => tracing::debug!("the router forwards the port no longer"),
            Ok(Err(error)) => tracing::debug!(%error, "the port was not given back"),
            Err(_) => tracing::debug!("the router does not answer"),
        }
    }
}

/// A lease that a router granted, in seconds: not longer than was asked for, nor so short that it would be asked all the time.
fn lease(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()).clamp(limits::MAPPING_LOOK * 2, limits::MAPPING_LEASE)
}

/// The router through which packets leave this machine, where the system tells.
fn default_gateway() -> Option<Ipv4Addr> {
    gateway_in(&std::fs::read_to_string("/proc/net/route").ok()?)
}

/// The gateway of the default route with the least metric in a table as Linux writes it: device, destination, gateway,
/// flags, three counters of which the last is the metric, and mask, numbers of addresses in the order of the machine.
fn gateway_in(routes: &str) -> Option<Ipv4Addr> {
    let routes = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let number = |place: usize| u32::from_str_radix(fields.get(place)?, 16).ok();
        let (destination, gateway, mask) = (number(1)?, number(2)?, number(7)?);
        let metric: u32 = fields.get(6)?.parse().ok()?;
        (destination == 0 && mask == 0 && gateway != 0).then_some((metric, gateway))
    });
    let (_, gateway) = routes.min()?;
    Some(Ipv4Addr::from(gateway.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_of_the_best_default_route_is_asked() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth1\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth1\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        if cfg!(target_endian = "little") {
            assert_eq!(gateway_in(table), Some(Ipv4Addr::new(192, 168, 2, 1)));
        }
        for broken in ["", "x", "x\n", "x\neth0\t00000000\n", "x\neth0 0 zz 0 0 0 0 0\n"] {
            assert_eq!(gateway_in(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_router_behind_another_one_is_of_no_use() {
        assert_eq!(judge(Ipv4Addr::new(198, 51, 100, 1)), Ok(()));
        for useless in ["10.0.0.1", "100.64.0.1", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
            assert!(judge(useless.parse().expect("an address")).is_err(), "{useless}");
        }
        assert!(is_shared(Ipv4Addr::new(100, 127, 0, 1)) && !is_shared(Ipv4Addr::new(100, 128, 0, 1)));
    }

    #[test]
    fn leases_are_neither_endless_nor_spent_at_once() {
        assert_eq!(lease(u32::MAX), limits::MAPPING_LEASE);
        assert_eq!(lease(0), limits::MAPPING_LOOK * 2);
        assert_eq!(lease(120), Duration::from_mins(2));
    }
}
