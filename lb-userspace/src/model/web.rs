//! What the controller shows over HTTP.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::Secret;

/// The server of metrics and of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpServer {
    /// Where it listens; nowhere where there is none.
    pub listen: Vec<SocketAddr>,
    /// Its certificate; without one it speaks plain HTTP.
    pub certificate: Option<Certificate>,
    /// What a request must bring along.
    pub token: Option<Secret>,
}

/// A certificate, which is read anew for each connection so that it can be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The PEM file of the certificate and those that it is signed by.
    pub chain: PathBuf,
    /// The PEM file of its key.
    pub key: PathBuf,
}

impl HttpServer {
    /// The port, unless the configuration says otherwise.
    pub const PORT: u16 = 9660;
}

impl Default for HttpServer {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::LOCALHOST, Self::PORT).into()],
            certificate: None,
            token: None,
        }
    }
}
