//! TLS handshakes of probes.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    },
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{Deadline, Phase, ProbeFailure};
use crate::model::{TlsProbe, Verify};

/// What is asked for by name in the handshake, for HTTP/2.
const HTTP2: &[u8] = b"h2";

/// Why a check's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of certificates cannot be read.
    #[error(
        "read the certificates in {}: {source}; name a PEM file in health.ca, or remove it to \
         trust the system's",
        path.display()
    )]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The file has no certificate that can be trusted.
    #[error("{} has no certificate to trust: name a PEM file of CA certificates in health.ca", .0.display())]
    NoCertificate(PathBuf),
    /// The system has no certificates to trust.
    #[error(
        "the system has no certificates to trust: install them (package ca-certificates), or name \
         a PEM file in health.ca"
    )]
    NoSystemCertificates,
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
                .with_root_certificates(roots(probe)?)
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

fn roots(probe: &TlsProbe) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &probe.ca else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(Error::NoSystemCertificates);
        }
        return Ok(roots);
    };
    let read = |source| Error::Ca {
        path: path.clone(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?;
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(Error::NoCertificate(path.clone()));
    }
    Ok(roots)
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
