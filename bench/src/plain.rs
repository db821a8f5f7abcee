//! What downloads are compared with: a file over TCP, and over one stream of plain quinn with a BLAKE3 of the
//! whole. Nothing of Quictrack takes part.
//!
//! Each end is a process of its own with one thread, which is the fastest layout of quinn on few cores. The
//! sender tells its address on stdout and serves until it is killed; the receiver ends with its copy complete.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use overlay::limits;
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::AlwaysResolvesServerRawPublicKeys,
    sign::CertifiedKey,
    version::TLS13,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::any_key::AnyKey;

/// Bytes that are read, hashed and written at once.
const BLOCK: usize = 256 << 10;
/// An Ed25519 key in PKCS#8 (RFC 8410), of zeros: nothing here is secret.
const KEY: [u8; 48] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// How plain quinn is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tuning {
    /// As it comes.
    Stock,
    /// Windows, socket buffers and packet sizes as a download of Quictrack has them.
    Ours,
}

/// Serves `file` over TCP.
pub async fn send_tcp(file: &Path) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    announce(listener.local_addr()?)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut file = File::open(file)?;
        while let Some(block) = next_block(&mut file)? {
            stream.write_all(&block).await?;
        }
        stream.shutdown().await?;
    }
}

/// Fetches a file over TCP.
pub async fn receive_tcp(address: SocketAddr, copy: &Path) -> Result<()> {
    let (mut stream, mut file) = (TcpStream::connect(address).await?, File::create(copy)?);
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block).await? {
            0 => return Ok(file.sync_all()?),
            read => file.write_all(&block[..read])?,
        }
    }
}

/// Serves `file` over quinn.
pub async fn send_quic(file: &Path, tuning: Tuning) -> Result<()> {
    let provider = provider();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(KEY.as_slice())).clone_key();
    let key = provider.key_provider.load_private_key(key)?;
    let public = key.public_key().context("a key has a public half")?;
    let certified = CertifiedKey::new(vec![public.as_ref().to_vec().into()], key);
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport(tuning)));
    let endpoint = endpoint(tuning, Some(config))?;
    announce(endpoint.local_addr()?)?;
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        let (mut sender, mut receiver) = connection.accept_bi().await?;
        receiver.read_to_end(BLOCK).await?;
        let mut file = File::open(file)?;
        while let Some(block) = next_block(&mut file)? {
            sender.write_chunk(block).await?;
        }
        sender.finish()?;
        connection.closed().await;
    }
    Ok(())
}

/// Fetches a file over quinn; prints its BLAKE3.
pub async fn receive_quic(address: SocketAddr, copy: &Path, tuning: Tuning) -> Result<()> {
    let provider = provider();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey(provider)))
        .with_no_client_auth();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport(tuning)));
    let endpoint = endpoint(tuning, None)?;
    let connection = endpoint.connect_with(config, address, "localhost")?.await?;
    let (mut sender, mut receiver) = connection.open_bi().await?;
    sender.finish()?;
    let (mut file, mut hasher) = (File::create(copy)?, blake3::Hasher::new());
    let mut block = Vec::with_capacity(2 * BLOCK);
    loop {
        let chunk = receiver.read_chunk(BLOCK, true).await?;
        block.extend_from_slice(chunk.as_ref().map_or(&[], |chunk| &chunk.bytes));
        if block.len() >= BLOCK || chunk.is_none() {
            hasher.update(&block);
            file.write_all(&block)?;
            block.clear();
        }
        if chunk.is_none() {
            break;
        }
    }
    file.sync_all()?;
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    writeln!(io::stdout(), "{}", hasher.finalize())?;
    Ok(())
}

fn endpoint(tuning: Tuning, server: Option<ServerConfig>) -> Result<Endpoint> {
    let mut config = EndpointConfig::default();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    if tuning == Tuning::Ours {
        config.max_udp_payload_size(limits::UDP_PAYLOAD)?;
        socket.set_recv_buffer_size(limits::SOCKET_BUFFER)?;
        socket.set_send_buffer_size(limits::SOCKET_BUFFER)?;
    }
    Ok(Endpoint::new(config, server, socket.into(), Arc::new(TokioRuntime))?)
}

fn transport(tuning: Tuning) -> TransportConfig {
    let mut config = TransportConfig::default();
    if tuning == Tuning::Ours {
        let mut probing = MtuDiscoveryConfig::default();
        probing.upper_bound(limits::UDP_PAYLOAD);
        config
            .mtu_discovery_config(Some(probing))
            .stream_receive_window(limits::RECEIVE_WINDOW_STREAM.into())
            .receive_window(limits::RECEIVE_WINDOW_BULK.into())
            .send_window(limits::SEND_WINDOW_BULK);
    }
    config
}

/// AES-128 first, as Quictrack has it.
fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

fn announce(address: SocketAddr) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{address}")?;
    out.flush().context("nobody listens")
}

/// The next block of a file; `None` at its end.
fn next_block(file: &mut File) -> io::Result<Option<Bytes>> {
    let mut block = Vec::with_capacity(BLOCK);
    file.take(BLOCK as u64).read_to_end(&mut block)?;
    Ok((!block.is_empty()).then(|| block.into()))
}
