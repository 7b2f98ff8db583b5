//! Whose certificates are trusted.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{
        CertificateDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
};

use crate::model::Verify;

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of certificates cannot be read.
    #[error(
        "read the certificates in {}: {source}; name a PEM file in ca, or remove it to trust the \
         system's",
        path.display()
    )]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// The file has no certificate that can be trusted.
    #[error("{} has no certificate to trust: name a PEM file of CA certificates in ca", .0.display())]
    NoCertificate(PathBuf),
    /// The system has no certificates to trust.
    #[error(
        "the system has no certificates to trust: install them (package ca-certificates), or name \
         a PEM file in ca"
    )]
    NoSystemCertificates,
    /// The library refused.
    #[error("set TLS up: {0}")]
    Library(#[source] rustls::Error),
}

/// What a client needs that trusts the certificates in a PEM file, or those that the system trusts;
/// or anybody, where nothing is to be verified.
///
/// # Errors
/// Where the certificates cannot be read.
pub fn client(verify: Verify, ca: Option<&Path>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(Error::Library)?;
    Ok(match verify {
        Verify::Yes => builder
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth(),
        Verify::No => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth(),
    })
}

/// The certificates in a PEM file; without one, those that the system trusts.
///
/// # Errors
/// Where they cannot be read, or there is none.
pub fn roots(ca: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(Error::NoSystemCertificates);
        }
        return Ok(roots);
    };
    let read = |source| Error::Ca {
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?;
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(Error::NoCertificate(path.to_owned()));
    }
    Ok(roots)
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

#[cfg(test)]
pub(crate) mod testing;
