//! Who is at the other end: TLS 1.3 with raw public keys (RFC 7250) on both sides.
//!
//! There are no certificates, so no authority, no parser of them and no names: the key in the handshake
//! *is* the node's name. All of rustls that this project uses is in this file.
//!
//! - Key exchange is X25519MLKEM768 where the other side has it, so that what is recorded today stays
//!   closed to a quantum computer; X25519 otherwise.
//! - No session tickets: resuming would save one signature (0.1 ms) and would let whoever steals the ticket
//!   key speak as every node that ever connected. Without tickets there is no 0-RTT data either.
//! - The server name is not sent (the dialler checks the key, and a name would only tell observers more).

use std::{fmt, sync::Arc, sync::OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{id::PeerId, identity::Identity};

/// What comes before the 32 secret bytes in PKCS#8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// What comes before the 32 public bytes in a SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
/// The name that rustls wants to be dialled. It is never sent.
pub(super) const SERVER_NAME: &str = "node.invalid";

/// What this node proves its identity with.
pub(super) struct Credentials {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
}

impl Credentials {
    /// Of `identity`.
    pub(super) fn new(identity: &Identity) -> Self {
        let provider = Arc::new(CryptoProvider {
            // AES first: with its processor instructions it is half again as fast as ChaCha20.
            cipher_suites: vec![
                aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
                aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
                aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        });
        let pkcs8 = zeroize::Zeroizing::new([PKCS8_PREFIX.as_slice(), identity.seed().as_slice()].concat());
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pkcs8.as_slice())).clone_key();
        let secret = provider.key_provider.load_private_key(secret).expect("32 bytes are an Ed25519 key");
        let public = CertificateDer::from([SPKI_PREFIX.as_slice(), &identity.peer_id().0].concat());
        Self { provider, key: Arc::new(CertifiedKey::new(vec![public], secret)) }
    }

    /// For being dialled, with these protocols on offer.
    pub(super) fn server(&self, protocols: Vec<Vec<u8>>) -> Arc<QuicServerConfig> {
        let verifier = Verifier { algorithms: self.provider.signature_verification_algorithms, expect: None };
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3 suites")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.key))));
        config.alpn_protocols = protocols;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config.try_into().expect("the provider has QUIC's initial suite"))
    }

    /// For dialling with one protocol, and where the key of the node that answered will be found, whether
    /// or not it is the expected one.
    pub(super) fn client(
        &self,
        protocol: &[u8],
        expect: Option<PeerId>,
    ) -> (Arc<QuicClientConfig>, Arc<OnceLock<PeerId>>) {
        let seen = Arc::new(OnceLock::new());
        let expect = Some(Expectation { peer: expect, seen: Arc::clone(&seen) });
        let verifier = Verifier { algorithms: self.provider.signature_verification_algorithms, expect };
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3 suites")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key))));
        config.alpn_protocols = vec![protocol.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        (Arc::new(config.try_into().expect("the provider has QUIC's initial suite")), seen)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// The proven key of the other side; `None` before its part of the handshake is complete.
pub(super) fn peer_of(connection: &quinn::Connection) -> Option<PeerId> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.first().and_then(peer_in)
}

/// The protocol that both sides agreed on.
pub(super) fn protocol_of(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?.protocol
}

fn peer_in(key: &CertificateDer<'_>) -> Option<PeerId> {
    key.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(PeerId)
}

/// Accepts any Ed25519 key, or exactly one; rustls then demands the signature that proves it.
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    expect: Option<Expectation>,
}

#[derive(Debug)]
struct Expectation {
    peer: Option<PeerId>,
    seen: Arc<OnceLock<PeerId>>,
}

impl Verifier {
    fn judge(&self, key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let peer = peer_in(key).filter(|_| others.is_empty());
        let peer = peer.ok_or(Error::InvalidCertificate(rustls::CertificateError::BadEncoding))?;
        let Some(expect) = &self.expect else { return Ok(()) };
        expect.seen.get_or_init(|| peer);
        if expect.peer.is_some_and(|expected| expected != peer) {
            return Err(Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure));
        }
        Ok(())
    }

    fn check(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

/// TLS 1.2 is not compiled in; this only satisfies the traits.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(key, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(key, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
