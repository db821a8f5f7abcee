//! Names of places: addresses to join, address prefixes, network names.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::{id::PeerId, limits};

/// A node to contact first, as people write it: `[PEER@]HOST[:PORT]`, IPv6 in brackets.
///
/// Displaying it gives a text that parses to the same value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JoinAddress {
    /// Who must answer there; `None` takes anyone.
    pub peer: Option<PeerId>,
    /// A DNS name in ASCII, or a literal address without brackets.
    pub host: String,
    /// UDP port, never 0.
    pub port: u16,
}

impl JoinAddress {
    /// The port of an address that names none.
    pub const DEFAULT_PORT: u16 = 7780;

    /// The literal address, if the host is one; otherwise it is a name to resolve.
    pub fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for JoinAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (peer, place) = match text.split_once('@') {
            Some((peer, place)) => (Some(peer.parse::<PeerId>()?), place),
            None => (None, text),
        };
        let (host, port) = split_port(place)?;
        let port = match port {
            None => Self::DEFAULT_PORT,
            Some(port) => parse_port(port)?,
        };
        Ok(Self { peer, host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for JoinAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(peer) = self.peer {
            write!(f, "{peer}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A range of addresses, as in `192.0.2.0/24`; an address alone is a range of one. Bits behind the
/// prefix are cleared, so equal ranges are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// The range of all addresses that share the first `bits` bits with `address`.
    ///
    /// # Errors
    /// [`AddressError::PrefixLength`] if the address has fewer bits.
    pub fn new(address: IpAddr, bits: u8) -> Result<Self, AddressError> {
        let (address, bits) = match address.to_canonical() {
            IpAddr::V4(v4) if address.is_ipv6() && bits < 96 => {
                // A range wider than the mapped IPv4 addresses is a range of IPv6.
                (IpAddr::V6(v4.to_ipv6_mapped()), bits)
            }
            canonical if canonical.is_ipv4() && address.is_ipv6() => (canonical, bits - 96),
            canonical => (canonical, bits),
        };
        let address = match address {
            IpAddr::V4(v4) if bits <= 32 => IpAddr::V4((v4.to_bits() & high_bits_32(bits)).into()),
            IpAddr::V6(v6) if bits <= 128 => IpAddr::V6((v6.to_bits() & high_bits_128(bits)).into()),
            _ => return Err(AddressError::PrefixLength(bits)),
        };
        Ok(Self { address, bits })
    }

    /// The lowest address of the range.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that all its addresses share: 0 to 32, or to 128 for IPv6.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// True if the range holds the address; IPv4 addresses mapped into IPv6 count as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => other.to_bits() & high_bits_32(self.bits) == own.to_bits(),
            (IpAddr::V6(own), IpAddr::V6(other)) => other.to_bits() & high_bits_128(self.bits) == own.to_bits(),
            _ => false,
        }
    }
}

impl FromStr for Prefix {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| AddressError::Prefix(text.into()))?;
        let bits = match bits {
            None => {
                if address.is_ipv4() {
                    32
                } else {
                    128
                }
            }
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| AddressError::Prefix(text.into()))?
            }
            Some(_) => return Err(AddressError::Prefix(text.into())),
        };
        Self::new(address, bits)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The name of a network: 1 to 64 of `a-z 0-9 . _ -`. Nodes of different names refuse each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(Box<str>);

impl NetworkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for the network that everyone joins who names none; others are private to those who know the name.
    pub fn is_public(&self) -> bool {
        &*self.0 == "public"
    }
}

impl FromStr for NetworkName {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > limits::NETWORK_NAME_BYTES || !text.bytes().all(plain) {
            return Err(AddressError::Network);
        }
        Ok(Self(text.into()))
    }
}

impl Default for NetworkName {
    fn default() -> Self {
        Self("public".into())
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text names no place. The fault is the writer's; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Neither a literal address nor a DNS name.
    #[error("`{0}` is neither an address nor a host name")]
    Host(String),
    /// An IPv6 address without brackets, so that its port cannot be told apart.
    #[error("the IPv6 address `{0}` must stand in brackets, as in `[{0}]:7780`")]
    Brackets(String),
    /// The port is not 1 to 65535.
    #[error("`{0}` is no port: it must be 1 to 65535")]
    Port(String),
    /// The part before `@` is no peer id.
    #[error(transparent)]
    Peer(#[from] crate::id::IdError),
    /// Neither an address nor a range in CIDR notation.
    #[error("`{0}` is no address prefix such as 192.0.2.0/24")]
    Prefix(String),
    /// More bits than the address has.
    #[error("a prefix of {0} bits is longer than the address")]
    PrefixLength(u8),
    /// Not 1 to 64 of the allowed characters.
    #[error("a network name is 1 to 64 of a-z, 0-9, `.`, `_` and `-`")]
    Network,
}

fn high_bits_32(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn high_bits_128(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// Splits `HOST[:PORT]` and checks the host.
fn split_port(place: &str) -> Result<(&str, Option<&str>), AddressError> {
    if let Some(inner) = place.strip_prefix('[') {
        let (host, rest) = inner.split_once(']').ok_or_else(|| AddressError::Host(place.into()))?;
        if !matches!(host.parse(), Ok(IpAddr::V6(_))) {
            return Err(AddressError::Host(host.into()));
        }
        return match rest {
            "" => Ok((host, None)),
            _ => match rest.strip_prefix(':') {
                Some(port) => Ok((host, Some(port))),
                None => Err(AddressError::Host(place.into())),
            },
        };
    }
    if matches!(place.parse(), Ok(IpAddr::V6(_))) {
        return Err(AddressError::Brackets(place.into()));
    }
    let (host, port) = match place.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    };
    if !is_host(host) {
        return Err(AddressError::Host(host.into()));
    }
    Ok((host, port))
}

/// An IPv4 address or a DNS name; a name of digits and dots alone is a mistyped address.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let numeric = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric {
        return matches!(host.parse(), Ok(IpAddr::V4(_)));
    }
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

fn parse_port(port: &str) -> Result<u16, AddressError> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(AddressError::Port(port.into())),
    }
}

/// How much of the world can use an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// This machine.
    Host,
    /// This site.
    Site,
    /// Everyone.
    World,
}

impl Reach {
    /// That of an address, by the range that it is in.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            ip if ip.is_loopback() || ip.is_unspecified() => Self::Host,
            IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() => Self::Site,
            IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => Self::Site,
            _ => Self::World,
        }
    }
}

/// The network of an address, as a number: so many leading bits of an IPv4 or IPv6 address, at most 32 and 63, at least 1. In
/// private and loopback ranges, where a network says nothing of who runs a node, the whole address with its port.
pub fn network_prefix(address: SocketAddr, v4_bits: u32, v6_bits: u32) -> u64 {
    let own = |bytes: &[u8]| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes).update(&address.port().to_le_bytes());
        u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
    };
    match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() || ip.is_private() => own(&ip.octets()),
        IpAddr::V4(ip) => u64::from(u32::from(ip)) >> (32 - v4_bits.min(32)),
        IpAddr::V6(ip) if ip.is_loopback() || ip.is_unique_local() => own(&ip.octets()),
        IpAddr::V6(ip) => (u128::from(ip) >> (128 - v6_bits.clamp(1, 63))) as u64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_are_told_apart_by_their_first_bits_and_private_addresses_by_all() {
        let network = |text: &str| network_prefix(text.parse().expect("an address"), 16, 32);
        assert_eq!(network("192.0.2.1:1"), network("192.0.99.2:2"));
        assert_ne!(network("192.0.2.1:1"), network("192.1.2.1:1"));
        assert_eq!(network("[::ffff:192.0.2.1]:1"), network("192.0.2.1:1"));
        assert_eq!(network("[2001:db8:1::1]:1"), network("[2001:db8:2::1]:2"));
        assert_ne!(network("[2001:db8::1]:1"), network("[2001:db9::1]:1"));
        for private in ["127.0.0.1", "10.1.2.3", "[::1]", "[fd00::1]"] {
            let at = |port: &str| network(&format!("{private}:{port}"));
            assert_eq!(at("1"), at("1"));
            assert_ne!(at("1"), at("2"));
        }
    }

    fn join(text: &str) -> Result<JoinAddress, AddressError> {
        text.parse()
    }

    #[test]
    fn join_addresses_default_their_port() {
        let peer = PeerId([7; 32]);
        for (text, want) in [
            ("node.example", (None, "node.example", 7780)),
            ("Node.Example:99", (None, "node.example", 99)),
            ("192.0.2.1", (None, "192.0.2.1", 7780)),
            ("[2001:db8::1]", (None, "2001:db8::1", 7780)),
            ("[2001:db8::1]:5", (None, "2001:db8::1", 5)),
            ("ultra_1", (None, "ultra_1", 7780)),
        ] {
            let address = join(text).unwrap();
            assert_eq!((address.peer, address.host.as_str(), address.port), want, "{text}");
        }
        let address = join(&format!("{peer}@localhost:1")).unwrap();
        assert_eq!((address.peer, address.port), (Some(peer), 1));
    }

    #[test]
    fn malformed_join_addresses_say_why() {
        assert!(matches!(join("2001:db8::1"), Err(AddressError::Brackets(_))));
        assert!(matches!(join("host:0"), Err(AddressError::Port(_))));
        assert!(matches!(join("host:+1"), Err(AddressError::Port(_))));
        assert!(matches!(join("host:99999"), Err(AddressError::Port(_))));
        assert!(matches!(join("short@host"), Err(AddressError::Peer(_))));
        for text in ["", ":1", "a b", "-a", "1.2.3", "1.2.3.4.5", "[1.2.3.4]", "[::1", "[::1]x"] {
            assert!(matches!(join(text), Err(AddressError::Host(_))), "{text}");
        }
    }

    #[test]
    fn prefixes_clear_the_bits_behind_them() {
        let prefix: Prefix = "192.0.2.77/24".parse().unwrap();
        assert_eq!(prefix.to_string(), "192.0.2.0/24");
        assert!(prefix.contains("192.0.2.1".parse().unwrap()));
        assert!(prefix.contains("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!prefix.contains("192.0.3.1".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Prefix>().unwrap().contains("255.1.1.1".parse().unwrap()));
        assert!(!"::/0".parse::<Prefix>().unwrap().contains("255.1.1.1".parse().unwrap()));
        assert_eq!("::ffff:10.0.0.0/104".parse::<Prefix>(), "10.0.0.0/8".parse());
        assert_eq!("1.2.3.4".parse::<Prefix>().unwrap().bits(), 32);
        for text in ["1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/+8", "1.2.3/8", "x", ""] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn network_names_are_short_and_plain() {
        assert!("public".parse::<NetworkName>().unwrap().is_public());
        assert!("a.b_c-9".parse::<NetworkName>().is_ok());
        for text in ["", "Upper", "sp ace", "é", &"x".repeat(65)] {
            assert_eq!(text.parse::<NetworkName>(), Err(AddressError::Network), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered_and_what_parses_round_trips(text in "[a-z0-9.:@/\\[\\]_-]{0,40}") {
            if let Ok(address) = text.parse::<JoinAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
            if let Ok(prefix) = text.parse::<Prefix>() {
                prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            }
        }

        #[test]
        fn a_prefix_holds_exactly_the_addresses_that_share_its_bits(own: u128, other: u128, bits in 0u8..=128, v4: bool) {
            let (own, other, bits): (IpAddr, IpAddr, u8) = if v4 {
                (IpAddr::V4((own as u32).into()), IpAddr::V4((other as u32).into()), bits / 4)
            } else {
                (IpAddr::V6(own.into()), IpAddr::V6(other.into()), bits)
            };
            let text = |address: IpAddr| match address.to_canonical() {
                IpAddr::V4(v4) => format!("4{:032b}", v4.to_bits()),
                IpAddr::V6(v6) => format!("6{:0128b}", v6.to_bits()),
            };
            let shared = text(own).bytes().zip(text(other).bytes()).take_while(|(a, b)| a == b).count();
            let prefix = Prefix::new(own, bits).unwrap();
            prop_assert!(prefix.contains(own));
            prop_assert_eq!(prefix.contains(other), shared > usize::from(prefix.bits()));
        }

        #[test]
        fn join_addresses_round_trip(peer: Option<[u8; 32]>, host in "[a-z][a-z0-9]{0,8}(\\.[a-z]{1,5}){0,3}", port in 1u16..) {
            let address = JoinAddress { peer: peer.map(PeerId), host, port };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}
