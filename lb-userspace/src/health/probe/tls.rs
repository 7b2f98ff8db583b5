//! TLS handshakes of probes.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self,
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{Deadline, Phase, ProbeFailure};
use crate::{model::TlsProbe, trust};

/// What is asked for by name in the handshake, for HTTP/2.
const HTTP2: &[u8] = b"h2";

/// What is known of a backend's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// How long it is valid yet.
    pub left: Duration,
    /// Whether that is so short that it is to be told.
    pub is_told: bool,
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
    pub fn new(probe: &TlsProbe, http2: bool) -> Result<Self, trust::Error> {
        let mut config = trust::client(probe.verify, probe.ca.as_deref())?;
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

    /// Makes a handshake, and looks at the certificate.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        address: IpAddr,
        now: UnixTime,
        deadline: Deadline,
    ) -> Result<(TlsStream<TcpStream>, Option<Certificate>), ProbeFailure> {
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
        let certificate = left.map(|left| Certificate {
            left,
            is_told: left < self.warn_before,
        });
        Ok((stream, certificate))
    }
}

/// How long a certificate is valid yet; nothing where it is not any more.
fn expires_in(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<Duration> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let end = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(Duration::from_secs(end.saturating_sub(now.as_secs())))
}
