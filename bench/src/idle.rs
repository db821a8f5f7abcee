//! Bare QUIC connections that do nothing: quinn as it comes, with the same provider of cryptography and the
//! same timers, and nothing around it. The server is a process of its own, as an ultrapeer is.
//!
//! It is what an ultrapeer cannot be cheaper than without tuning QUIC: no frames, no lists, no searches, and
//! only the server proves a key.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use overlay::{identity::Identity, limits};
use quinn::{
    ClientConfig, Connection, Endpoint, IdleTimeout, ServerConfig, TransportConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::AlwaysResolvesServerRawPublicKeys,
    sign::CertifiedKey,
    version::TLS13,
};
use tokio::{
    process::{Child, Command},
    task::JoinSet,
};

use crate::{any_key::AnyKey, bare::now, process};

/// Dials that one socket has under way. More, from a hundred sockets, overrun the usual buffer of the server's
/// socket, and lost handshakes would be measured.
const DIALS: usize = 1;

/// A bare server with connections to it.
#[derive(Debug)]
pub struct Idle {
    server: Child,
    connections: Vec<Connection>,
    /// They end with the last handle.
    _sockets: Vec<Endpoint>,
}

impl Idle {
    /// Starts a server: `program` with the argument `argument` must call [`serve`]. Then dials it `connections`
    /// times from `sockets` sockets. Returns the memory that the server had before the first dial, and how long
    /// they took.
    ///
    /// # Errors
    /// The server does not start, or a dial fails.
    pub async fn start(
        program: &Path,
        argument: &str,
        connections: u32,
        sockets: u32,
    ) -> Result<(Self, u64, Duration)> {
        let mut command = Command::new(program);
        command.arg(argument).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut server = command.spawn()?;
        let stdout = server.stdout.take().context("its stdout was asked for")?;
        let address: SocketAddr = process::first_line(stdout).await?.parse()?;
        let before = process::Usage::of(server.id().context("it runs")?)?.resident;
        let begun = now();
        let config = client()?;
        let (mut dialling, mut endpoints) = (JoinSet::new(), Vec::new());
        for socket in 0..sockets {
            let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
            let count = (connections + sockets - 1 - socket) / sockets;
            dialling.spawn(dial(endpoint.clone(), config.clone(), address, count));
            endpoints.push(endpoint);
        }
        let mut all = Vec::new();
        while let Some(dialled) = dialling.join_next().await {
            all.extend(dialled??);
        }
        let elapsed: Duration = Instant::elapsed(&begun);
        Ok((Self { server, connections: all, _sockets: endpoints }, before, elapsed))
    }

    /// Connections that are open.
    pub fn alive(&self) -> usize {
        self.connections.iter().filter(|connection| connection.close_reason().is_none()).count()
    }

    /// Memory and CPU of the server.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&self) -> Result<process::Usage> {
        process::Usage::of(self.server.id().context("the bare server has ended")?)
    }
}

/// The server: prints its address, takes every connection, answers one byte on one stream, holds it.
///
/// # Errors
/// It cannot bind.
pub async fn serve(announce: impl FnOnce(SocketAddr)) -> Result<()> {
    let provider = provider();
    let identity = Identity::generate()?;
    // What comes before the keys in PKCS#8 and in a SubjectPublicKeyInfo (RFC 8410).
    let pkcs8 =
        [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20], &identity.seed()[..]].concat();
    let spki = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0], &identity.peer_id().0[..]].concat();
    let secret = provider.key_provider.load_private_key(PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pkcs8)))?;
    let key = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], secret));
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IdleTimeout::try_from(limits::IDLE_TIMEOUT)?));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    announce(endpoint.local_addr()?);
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            let (mut send, mut receive) = connection.accept_bi().await?;
            let mut byte = [0];
            receive.read_exact(&mut byte).await?;
            send.write_all(&byte).await?;
            connection.closed().await;
            Ok::<(), anyhow::Error>(())
        });
    }
    Ok(())
}

async fn dial(endpoint: Endpoint, config: ClientConfig, address: SocketAddr, count: u32) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    let mut dialling: JoinSet<Result<Connection>> = JoinSet::new();
    for number in 0..count as usize {
        if number >= DIALS {
            connections.push(dialling.join_next().await.context("dials are under way")???);
        }
        let (endpoint, config) = (endpoint.clone(), config.clone());
        dialling.spawn(async move {
            let connection = endpoint.connect_with(config, address, "node.invalid")?.await?;
            let (mut send, mut receive) = connection.open_bi().await?;
            send.write_all(&[7]).await?;
            let mut byte = [0];
            receive.read_exact(&mut byte).await?;
            ensure!(byte == [7], "another answer came");
            Ok(connection)
        });
    }
    while let Some(dialled) = dialling.join_next().await {
        connections.push(dialled??);
    }
    Ok(connections)
}

fn client() -> Result<ClientConfig> {
    let provider = provider();
    let verifier = Arc::new(AnyKey(provider.clone()));
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    tls.enable_sni = false;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IdleTimeout::try_from(limits::IDLE_TIMEOUT)?));
    transport.keep_alive_interval(Some(limits::KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
