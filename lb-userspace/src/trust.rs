//! Whose certificates are trusted.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};

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

#[cfg(test)]
pub(crate) mod testing;
