//! TLS handshakes of probes.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{Deadline, Phase, ProbeFailure};
use crate::{
    model::{TlsProbe, Verify},
    trust,
};

/// What is asked for by name in the handshake, for HTTP/2.
const HTTP2: &[u8] = b"h2";

/// Why a check's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody can be trusted.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    /// The library refused.
    #[error("set TLS up: {0}")]
    Library(#[source] rustls::Error),
}

/// What all handshakes of a check have in common.
#[derive(Clone)]
pub struct Client {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
    warn_before: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Reads the certificates to trust.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn new(probe: &TlsProbe, http2: bool) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(Error::Library)?;
        let mut config = match probe.verify {
            Verify::Yes => builder
                .with_root_certificates(trust::roots(probe.ca.as_deref())?)
                .with_no_client_auth(),
            Verify::No => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
                .with_no_client_auth(),
        };
        // Each probe is to see the server's certificate anew.
        config.resumption = rustls::client::Resumption::disabled();
        if http2 {
            config.alpn_protocols = vec![HTTP2.to_vec()];
        }
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name: probe
                .server_name
                .clone()
                .and_then(|name| ServerName::try_from(name).ok()),
            warn_before: probe.warn_before_expiry,
        })
    }

    /// Makes a handshake. Answers when the certificate expires, in seconds since the epoch, where
    /// that is soon.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        address: IpAddr,
        now: UnixTime,
        deadline: Deadline,
    ) -> Result<(TlsStream<TcpStream>, Option<Duration>), ProbeFailure> {
        let name = self.server_name.clone();
        let name = name.unwrap_or_else(|| ServerName::from(address));
        let handshake = async {
            self.connector
                .connect(name, stream)
                .await
                .map_err(|error| ProbeFailure::of_tls(&error, now))
        };
        let stream = deadline.bound(Phase::Handshaking, handshake).await?;
        let left = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first)
            .and_then(|certificate| expires_in(certificate, now));
        Ok((stream, left.filter(|left| *left < self.warn_before)))
    }
}

/// How long a certificate is valid yet; nothing where it is not any more.
fn expires_in(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<Duration> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let end = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(Duration::from_secs(end.saturating_sub(now.as_secs())))
}

/// Takes any certificate, and checks only that the server has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
