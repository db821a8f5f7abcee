//! What the transport counts: for one endpoint in plain atomics, and for the process in its metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    connection::{CloseCode, CloseReason},
    dial_error::DialError,
};
use crate::{
    metrics::{self, BootstrapResult, ConnectionKind, Direction, HANDSHAKES, HandshakeResult},
    wire::Protocol,
};

/// How something that the transport tried ended, or a fault that it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A handshake of a dialler was begun.
    HandshakeBegun,
    /// A dialler was asked to prove its address.
    HandshakeRetried,
    /// A dialler got no answer: too many handshakes under way, or from its prefix.
    HandshakeIgnored,
    /// A handshake ended with a hello that the program was asked to answer.
    HandshakeOffered,
    /// A handshake failed or took too long.
    HandshakeFailed,
    /// A hello was refused: other network or secret, or a ban.
    HelloRefused,
    /// Of those, a leaf that is banned.
    LeafBanned,
    /// A dialler got no handshake: its address is banned.
    AddressBanned,
    /// A dialler asked for the versions that are spoken here: it speaks none of them.
    VersionAsked,
    /// A dial was welcomed.
    DialWelcomed,
    /// A dial failed, for whatever reason.
    DialFailed,
    /// A frame was no message of its protocol, or over its cap.
    MalformedFrame,
    /// A frame was begun and not finished in time.
    StalledFrame,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 13] = [
        Self::HandshakeBegun,
        Self::HandshakeRetried,
        Self::HandshakeIgnored,
        Self::HandshakeOffered,
        Self::HandshakeFailed,
        Self::HelloRefused,
        Self::LeafBanned,
        Self::AddressBanned,
        Self::VersionAsked,
        Self::DialWelcomed,
        Self::DialFailed,
        Self::MalformedFrame,
        Self::StalledFrame,
    ];
}

/// An endpoint's counters since it was bound. They only grow.
#[derive(Debug, Default)]
pub struct Stats {
    events: [AtomicU64; Event::ALL.len()],
}

impl Stats {
    /// How often something happened.
    pub fn count(&self, event: Event) -> u64 {
        self.events[event as usize].load(Ordering::Relaxed)
    }

    pub(super) fn event(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts how the handshake of a dialler ended.
pub(super) fn handshake_in(result: HandshakeResult) {
    HANDSHAKES.increment((Direction::In, result));
}

/// Counts how a dial ended.
pub(super) fn handshake_out(error: Option<&DialError>) {
    let result = match error {
        None => HandshakeResult::Ok,
        Some(DialError::Timeout { .. }) => HandshakeResult::Timeout,
        Some(DialError::PeerOlder { .. } | DialError::PeerNewer { .. } | DialError::OtherProtocol { .. }) => {
            HandshakeResult::Version
        }
        Some(DialError::Closed { reason: CloseReason::Overload, .. }) => HandshakeResult::Limit,
        Some(DialError::WrongPeer { .. } | DialError::Closed { reason: CloseReason::Auth(_), .. }) => {
            HandshakeResult::Tls
        }
        Some(_) => HandshakeResult::Refused,
    };
    HANDSHAKES.increment((Direction::Out, result));
}

impl From<&DialError> for BootstrapResult {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::Timeout { .. } | DialError::Unreachable { .. } => Self::Timeout,
            DialError::WrongNetwork { .. } => Self::WrongNetwork,
            DialError::WrongSecret { .. } => Self::WrongSecret,
            DialError::PeerOlder { .. } | DialError::PeerNewer { .. } | DialError::OtherProtocol { .. } => {
                Self::Version
            }
            _ => Self::Refused,
        }
    }
}

/// The handshake result that a lost connection stands for.
pub(super) fn handshake_result(reason: &CloseReason) -> HandshakeResult {
    match reason {
        CloseReason::Idle => HandshakeResult::Timeout,
        CloseReason::Version => HandshakeResult::Version,
        CloseReason::Auth(_) => HandshakeResult::Tls,
        CloseReason::Overload => HandshakeResult::Limit,
        _ => HandshakeResult::Refused,
    }
}

/// The metrics' kind of a protocol.
pub(super) fn kind(protocol: Protocol) -> ConnectionKind {
    match protocol {
        Protocol::Leaf => ConnectionKind::Leaf,
        Protocol::Mesh => ConnectionKind::Mesh,
        Protocol::Transfer => ConnectionKind::Transfer,
    }
}

/// The metrics' word for the end of a connection.
pub(super) fn closed(reason: &CloseReason) -> metrics::CloseReason {
    match reason {
        CloseReason::Local(CloseCode::Shutdown) | CloseReason::Remote(CloseCode::Shutdown) => {
            metrics::CloseReason::Shutdown
        }
        CloseReason::Local(CloseCode::Overload) | CloseReason::Remote(CloseCode::Overload) | CloseReason::Overload => {
            metrics::CloseReason::Overload
        }
        CloseReason::Local(_) => metrics::CloseReason::Local,
        CloseReason::Remote(CloseCode::Refused | CloseCode::Banned) | CloseReason::Auth(_) => {
            metrics::CloseReason::Auth
        }
        CloseReason::Remote(_) | CloseReason::Transport(_) => metrics::CloseReason::Remote,
        CloseReason::Idle => metrics::CloseReason::Idle,
        CloseReason::Reset => metrics::CloseReason::Reset,
        CloseReason::Version => metrics::CloseReason::Version,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::metrics::{Label, watching::raises};

    const THERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    fn closed_by(reason: CloseReason) -> DialError {
        DialError::Closed { address: THERE, reason }
    }

    #[test]
    fn every_end_of_a_handshake_has_its_result() {
        let auth = || CloseReason::Auth(String::new());
        for (reason, result) in [
            (CloseReason::Idle, "timeout"),
            (CloseReason::Version, "version"),
            (auth(), "tls"),
            (CloseReason::Overload, "limit"),
            (CloseReason::Reset, "refused"),
            (CloseReason::Remote(CloseCode::Done), "refused"),
        ] {
            let series = format!("quictrack_handshakes_total{{direction=\"in\",result=\"{result}\"}}");
            raises(&series, || handshake_in(handshake_result(&reason)));
        }
        for (error, result) in [
            (None, "ok"),
            (Some(DialError::Timeout { address: THERE }), "timeout"),
            (Some(DialError::OtherProtocol { address: THERE }), "version"),
            (Some(closed_by(auth())), "tls"),
            (Some(closed_by(CloseReason::Overload)), "limit"),
            (Some(DialError::Banned { address: THERE }), "refused"),
        ] {
            let series = format!("quictrack_handshakes_total{{direction=\"out\",result=\"{result}\"}}");
            raises(&series, || handshake_out(error.as_ref()));
        }
    }

    #[test]
    fn every_end_of_a_connection_has_its_reason() {
        use crate::metrics::CloseReason as Shown;
        let ends = [
            (CloseReason::Idle, Shown::Idle),
            (CloseReason::Local(CloseCode::Replaced), Shown::Local),
            (CloseReason::Remote(CloseCode::Done), Shown::Remote),
            (CloseReason::Transport(String::new()), Shown::Remote),
            (CloseReason::Reset, Shown::Reset),
            (CloseReason::Version, Shown::Version),
            (CloseReason::Remote(CloseCode::Banned), Shown::Auth),
            (CloseReason::Auth(String::new()), Shown::Auth),
            (CloseReason::Local(CloseCode::Overload), Shown::Overload),
            (CloseReason::Remote(CloseCode::Shutdown), Shown::Shutdown),
        ];
        for (reason, shown) in &ends {
            assert_eq!(closed(reason), *shown, "{reason}");
        }
        for shown in Shown::ALL {
            assert!(ends.iter().any(|(_, known)| known == shown), "nothing ends as {}", shown.value());
        }
    }

    #[test]
    fn every_failed_dial_has_its_result_for_who_looks_for_the_network() {
        for (error, result) in [
            (DialError::Timeout { address: THERE }, BootstrapResult::Timeout),
            (DialError::WrongNetwork { address: THERE }, BootstrapResult::WrongNetwork),
            (DialError::WrongSecret { address: THERE }, BootstrapResult::WrongSecret),
            (DialError::OtherProtocol { address: THERE }, BootstrapResult::Version),
            (closed_by(CloseReason::Reset), BootstrapResult::Refused),
        ] {
            assert_eq!(BootstrapResult::from(&error), result, "{error}");
        }
    }
}
