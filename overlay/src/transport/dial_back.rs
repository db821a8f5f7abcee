//! Dialling back: is a node reached from outside, and how fast does it send?
//!
//! Whoever wants to know dials from a socket of its own, which the node never sent anything to, and expects the node's
//! key there. No hello is said: the node need not know why it is dialled. Of a node that expects it ([`Askers`]), some
//! megabytes of nothing are asked for, and the last of them are timed: by then QUIC has found out how fast it may send.
//!
//! ```text
//! asker: socket of its own ── handshake ──> node        reached, by its key
//!        how many bytes ──────────────────>
//!        <─────────────────────── so many bytes, or none for one that it does not expect
//! ```

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quinn::ClientConfig;
use tokio::time::{Instant, timeout};

use super::{
    connection::CloseCode,
    socket::canonical,
    tls::{self, Credentials},
    tuning,
};
use crate::{id::PeerId, limits, wire::MEASURE_ALPN};

/// What a dial-back found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The rate at which the node sends, in kbit/s; `None` if it was not asked to, or did not.
    pub rate_kbit: Option<u32>,
}

/// Why a node counts as not reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreached {
    /// Nobody answered in [`limits::DIAL_BACK_TIMEOUT`].
    #[error("no answer")]
    Silent,
    /// This machine could not even try.
    #[error("it cannot be dialled from here: {0}")]
    NotTried(String),
    /// Another node is there, or none of this kind.
    #[error("another answered there: {0}")]
    Another(String),
}

/// Nodes that may ask this one to send.
#[derive(Debug, Default)]
pub(super) struct Askers {
    until: Mutex<BTreeMap<PeerId, Instant>>,
}

impl Askers {
    /// From now on for [`limits::ASKER_LIFETIME`] that node may ask, once in [`limits::MEASURE_PAUSE`].
    pub(super) fn expect(&self, peer: PeerId) {
        let mut known = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        known.retain(|_, from| now.saturating_duration_since(*from) < limits::ASKER_LIFETIME);
        if known.len() < limits::ASKERS {
            known.entry(peer).or_insert(now);
        }
    }

    /// True if that node may ask now. It may not again for a while.
    fn take(&self, peer: PeerId) -> bool {
        let mut known = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match known.get_mut(&peer) {
            Some(from) if *from <= now => {
                *from = now + limits::MEASURE_PAUSE;
                true
            }
            _ => false,
        }
    }
}

/// Dials `peer` at `address` from a new socket, and asks it for `bytes` bytes unless that is 0.
pub(super) async fn dial(
    credentials: &Credentials,
    address: SocketAddr,
    peer: PeerId,
    bytes: u32,
) -> Result<Reached, Unreached> {
    let address = canonical(address);
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let not_tried = |error: &dyn std::fmt::Display| Unreached::NotTried(error.to_string());
    let quic = quinn::Endpoint::client(SocketAddr::new(any, 0)).map_err(|error| not_tried(&error))?;
    let (crypto, _) = credentials.client(MEASURE_ALPN, Some(peer));
    let mut config = ClientConfig::new(crypto);
    config.transport_config(Arc::new(tuning::measuring()));
    let connecting = quic.connect_with(config, address, tls::SERVER_NAME).map_err(|error| not_tried(&error))?;
    let connection = match timeout(limits::DIAL_BACK_TIMEOUT, connecting).await {
        Err(_) | Ok(Err(quinn::ConnectionError::TimedOut)) => return Err(Unreached::Silent),
        Ok(Err(error)) => return Err(Unreached::Another(error.to_string())),
        Ok(Ok(connection)) => connection,
    };
    let rate_kbit = if bytes == 0 { None } else { measure(&connection, bytes).await };
    connection.close(CloseCode::Done.to_wire(), b"");
    // The other side should hear of the end; if it does not, its own timer ends it.
    let _ = timeout(limits::FAREWELL_TIMEOUT, quic.wait_idle()).await;
    Ok(Reached { rate_kbit })
}

/// The rate of the second half of `bytes`; of less if that takes too long. `None` if the node does not send.
async fn measure(connection: &quinn::Connection, bytes: u32) -> Option<u32> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(&bytes.to_le_bytes()).await.ok()?;
    send.finish().ok()?;
    let (mut received, mut warm) = (0_u64, None);
    let begun = Instant::now();
    let reading = async {
        let mut buffer = vec![0; 64 << 10];
        while received < u64::from(bytes) {
            let Ok(Some(read)) = receive.read(&mut buffer).await else { return };
            received += read as u64;
            if warm.is_none() && received >= u64::from(bytes) / 2 {
                warm = Some((received, Instant::now()));
            }
        }
    };
    let whole = timeout(limits::MEASURE_TIMEOUT, reading).await.is_ok();
    let (from, since) = warm.unwrap_or((0, begun));
    if received == 0 || (whole && received < u64::from(bytes)) {
        return None;
    }
    let span = since.elapsed().max(Duration::from_micros(1));
    Some((((received - from) as f64 * 8.0 / span.as_secs_f64()) / 1000.0).min(f64::from(u32::MAX)) as u32)
}

/// Answers [`dial`]. Ends when the dialler closes the connection; the caller bounds the time of the handshake, this
/// function that of the rest.
pub(super) async fn answer(connection: &quinn::Connection, askers: &Askers) {
    let Some(peer) = tls::peer_of(connection) else { return };
    connection.set_send_window(limits::SEND_WINDOW_BULK);
    let work = async {
        let Ok((mut send, mut receive)) = connection.accept_bi().await else { return };
        let Ok(asked) = receive.read_to_end(4).await else { return };
        let bytes = <[u8; 4]>::try_from(asked).map_or(0, u32::from_le_bytes).min(limits::MEASURE_BYTES);
        if askers.take(peer) {
            let nothing = vec![0; 16 << 10];
            let mut left = bytes as usize;
            while left > 0 {
                let Ok(sent) = send.write(&nothing[..left.min(nothing.len())]).await else { return };
                left -= sent;
            }
        }
        // A failure here is the dialler's departure, which `closed` sees too.
        let _ = send.finish();
        connection.closed().await;
    };
    if timeout(limits::MEASURE_TIMEOUT + limits::DIAL_BACK_TIMEOUT, work).await.is_err() {
        connection.close(CloseCode::Done.to_wire(), b"");
    }
}
