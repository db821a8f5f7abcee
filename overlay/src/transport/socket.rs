//! The one UDP socket of a process.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;

/// Where the address to bind comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// The user gave it: it binds, or the program ends.
    Given,
    /// It is the default: if its port is taken, any free port does.
    Default,
}

/// Why no socket was bound. Nothing was changed; a socket bound before is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program has the port.
    #[error("UDP port {} is in use", .address.port())]
    AddressInUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// No interface of this machine has the address.
    #[error("no interface has the address {}", .address.ip())]
    AddressNotHere {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The system said no for another reason.
    #[error("could not bind UDP {address}: {source}")]
    System {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl From<BindError> for io::Error {
    fn from(error: BindError) -> Self {
        match error {
            BindError::AddressInUse { .. } => io::ErrorKind::AddrInUse.into(),
            BindError::AddressNotHere { .. } => io::ErrorKind::AddrNotAvailable.into(),
            BindError::System { source, .. } => source,
        }
    }
}

/// Binds `address`. `[::]` takes both families; where there is no IPv6, `0.0.0.0` is taken instead.
pub(super) fn bind(address: SocketAddr, mode: BindMode) -> Result<UdpSocket, BindError> {
    let result = match open(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && mode == BindMode::Default => {
            open(SocketAddr::new(address.ip(), 0))
        }
        result => result,
    };
    result.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::AddressInUse { address },
        io::ErrorKind::AddrNotAvailable => BindError::AddressNotHere { address },
        _ => BindError::System { address, source },
    })
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    match open_exactly(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            open_exactly(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        result => result,
    }
}

fn open_exactly(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    socket.bind(&address.into())?;
    // The system may grant less; losing bursts is slower, not wrong.
    let _ = socket.set_recv_buffer_size(limits::SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(limits::SOCKET_BUFFER);
    Ok(socket.into())
}

/// The address of this machine from which packets to `address` go out. None is sent.
pub fn source_towards(address: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip().to_canonical())
}

/// Bytes of receive buffer that the system grants a node's socket, of [`limits::SOCKET_BUFFER`] wanted.
///
/// # Errors
/// No socket can be had.
pub fn socket_buffer() -> io::Result<usize> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // As above: the system may grant less.
    let _ = socket.set_recv_buffer_size(limits::SOCKET_BUFFER);
    socket.recv_buffer_size()
}

/// The address as people write it: IPv4 seen through a socket of both families is IPv4.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address as a socket of `family` must be given it.
pub(super) fn for_family(address: SocketAddr, family: &SocketAddr) -> SocketAddr {
    match (address.ip(), family) {
        (IpAddr::V4(ip), SocketAddr::V6(_)) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_port_that_is_taken_is_an_error_and_a_default_one_moves() {
        let taken = bind("127.0.0.1:0".parse().unwrap(), BindMode::Given).unwrap();
        let address = taken.local_addr().unwrap();
        assert!(matches!(bind(address, BindMode::Given), Err(BindError::AddressInUse { .. })));
        let moved = bind(address, BindMode::Default).unwrap();
        assert_ne!(moved.local_addr().unwrap().port(), address.port());
    }

    #[test]
    fn what_goes_to_loopback_comes_from_there() {
        assert_eq!(source_towards("127.0.0.1:9".parse().unwrap()), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn an_address_of_another_machine_is_told_apart() {
        let result = bind("192.0.2.1:0".parse().unwrap(), BindMode::Given);
        assert!(matches!(result, Err(BindError::AddressNotHere { .. })));
    }
}
