//! What the controller shows over HTTP: `[http]`.

use std::{collections::BTreeSet, net::SocketAddr, ops::Range};

use super::{
    absolute,
    field::{Fields, place},
    notify::optional_secret,
};
use crate::{
    config::{
        findings::Report,
        raw::{self, Leaf, Table},
    },
    model::{Certificate, HttpServer},
};

/// Most addresses to listen at.
const ADDRESSES: usize = 8;

/// Checks `[http]`, or takes its defaults.
pub(super) fn server(
    table: Option<(&Table<raw::Http>, Range<usize>)>,
    report: &mut Report<'_>,
) -> Option<HttpServer> {
    let default = HttpServer::default();
    let Some((table, at)) = table else {
        return Some(default);
    };
    let raw = &table.0;
    let mut fields = Fields::new("http", at, report);
    let remedy = format!(
        "give at most {ADDRESSES} addresses with ports, as in [\"127.0.0.1:{}\"], or [] for none",
        HttpServer::PORT
    );
    let listen = fields.optional("listen", &raw.listen, &remedy, |texts| addresses(texts));
    let certificate = certificate(raw, &mut fields);
    let token = optional_secret("token", &raw.token, &mut fields);
    let server = HttpServer {
        listen: listen?.unwrap_or(default.listen),
        certificate: certificate?,
        token: token?,
    };
    let open = server.listen.iter().find(|at| !at.ip().is_loopback());
    if let (Some(open), Some(_), None) = (open, &server.token, &server.certificate) {
        fields.report(
            place(&raw.token).unwrap_or_default(),
            "token",
            format!("would travel in plain text to {open}"),
            "give certificate and key as well, or listen on loopback only",
        );
        return None;
    }
    Some(server)
}

fn addresses(texts: &[String]) -> Result<Vec<SocketAddr>, String> {
    if texts.len() > ADDRESSES {
        return Err(format!("there are {}", texts.len()));
    }
    let mut seen = BTreeSet::new();
    let one = |text: &String| {
        let address: SocketAddr = text
            .parse()
            .map_err(|_| format!("\"{text}\" is not an IP address with a port"))?;
        if address.port() == 0 {
            return Err(format!("\"{text}\" has no port"));
        }
        if !seen.insert(address) {
            return Err(format!("names {address} twice"));
        }
        Ok(address)
    };
    texts.iter().map(one).collect()
}

#[expect(
    clippy::option_option,
    reason = "wrong, missing and there are three things"
)]
fn certificate(raw: &raw::Http, fields: &mut Fields<'_, '_>) -> Option<Option<Certificate>> {
    let mut file = |key, leaf: &Leaf<String>| {
        let remedy = "give the absolute path of a PEM file";
        fields.optional(key, leaf, remedy, |text| absolute(text, usize::MAX))
    };
    let (chain, key) = (file("certificate", &raw.certificate), file("key", &raw.key));
    match (chain?, key?) {
        (Some(chain), Some(key)) => Some(Some(Certificate { chain, key })),
        (None, None) => Some(None),
        (Some(_), None) => {
            fields.missing("key", "give the absolute path of the certificate's key");
            None
        }
        (None, Some(_)) => {
            fields.missing(
                "certificate",
                "give the absolute path of the key's certificate",
            );
            None
        }
    }
}
