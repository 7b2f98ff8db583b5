//! The server's own certificate.

use std::{path::PathBuf, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
    },
};

use crate::model::Certificate;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A file is not what it should be.
    #[error("read {}, which http.{key} names: {source}", path.display())]
    File {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// Certificate and key do not go together, or are of no known kind.
    #[error("use http.certificate and http.key: {0}")]
    Pair(#[from] rustls::Error),
}

/// What makes handshakes, by the certificate as it is now.
pub(super) fn acceptor(certificate: &Certificate) -> Result<TlsAcceptor, Error> {
    let unreadable = |key, path: &PathBuf| {
        let path = path.clone();
        move |source| Error::File { key, path, source }
    };
    let refused = |path| unreadable("certificate", path);
    let chain = CertificateDer::pem_file_iter(&certificate.chain)
        .map_err(refused(&certificate.chain))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused(&certificate.chain))?;
    let key = PrivateKeyDer::from_pem_file(&certificate.key)
        .map_err(unreadable("key", &certificate.key))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
