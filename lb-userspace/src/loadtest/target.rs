//! What is asked, and whether it may be.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
};

use hyper::Uri;

/// Why something cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no URL.
    #[error(
        "{text}: {why}; give it as in http://192.0.2.1/path, tcp://192.0.2.1:25 or udp://[2001:db8::1]:53"
    )]
    Syntax {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Its name stands for nothing.
    #[error("look up {host}: {source}")]
    Lookup {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its name stands for nothing.
    #[error("{0} has no address")]
    NoAddress(String),
    /// It is elsewhere.
    #[error(
        "{0} is not on this host: a load test can take down what it is pointed at; if it is yours, \
         and may be loaded now, say so with '--i-own-this-target'"
    )]
    Elsewhere(IpAddr),
}

/// How a target is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1.
    Http,
    /// The same over TLS.
    Https,
    /// A connection, and what is sent over it.
    Tcp,
    /// A datagram and the one that answers it.
    Udp,
}

impl Scheme {
    fn named(name: &str) -> Option<(Self, Option<u16>)> {
        match name {
            "http" => Some((Self::Http, Some(80))),
            "https" => Some((Self::Https, Some(443))),
            "tcp" => Some((Self::Tcp, None)),
            "udp" => Some((Self::Udp, None)),
            _ => None,
        }
    }

    /// The transport, in the words of a service.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            _ => "tcp",
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was given.
    pub text: String,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// The host as it was named, without brackets.
    pub host: String,
    /// The host and the port where it is not the scheme's own, as in HTTP's `Host`.
    pub authority: String,
    /// Of HTTP: path and query.
    pub path: String,
    /// Where it is.
    pub address: SocketAddr,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Target {
    /// Reads a URL, and looks its host up.
    ///
    /// # Errors
    /// Where it is none, or its host has no address.
    pub fn new(text: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::Syntax {
            text: text.to_owned(),
            why,
        };
        let uri: Uri = text.parse().map_err(|e| wrong(format!("no URL ({e})")))?;
        let scheme = uri
            .scheme_str()
            .ok_or_else(|| wrong("it has no scheme".into()))?;
        let (scheme, usual) = Scheme::named(scheme)
            .ok_or_else(|| wrong(format!("{scheme} is not http, https, tcp or udp")))?;
        let authority = uri
            .authority()
            .ok_or_else(|| wrong("it names no host".into()))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has a user; send one with --header".into()));
        }
        let port = authority
            .port_u16()
            .or(usual)
            .ok_or_else(|| wrong("it names no port".into()))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if matches!(scheme, Scheme::Tcp | Scheme::Udp) && !matches!(path, "" | "/") {
            return Err(wrong(
                "it has a path; what is sent is given with --send".into(),
            ));
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let mut found = (host, port)
            .to_socket_addrs()
            .map_err(|source| Error::Lookup {
                host: host.to_owned(),
                source,
            })?;
        let address = found
            .next()
            .ok_or_else(|| Error::NoAddress(host.to_owned()))?;
        Ok(Self {
            text: text.to_owned(),
            scheme,
            host: host.to_owned(),
            authority: authority.as_str().to_owned(),
            path: path.to_owned(),
            address,
        })
    }

    /// Refuses what is not on this host.
    ///
    /// # Errors
    /// Where it is elsewhere.
    pub fn require_local(&self) -> Result<(), Error> {
        let address = self.address.ip();
        if address.is_loopback() || own_addresses().any(|own| own == address) {
            Ok(())
        } else {
            Err(Error::Elsewhere(address))
        }
    }
}

/// The addresses of this host's interfaces.
fn own_addresses() -> impl Iterator<Item = IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let read = |text| {
            let target = Target::new(text).unwrap();
            (target.scheme, target.address.to_string(), target.path)
        };
        for (text, scheme, address, path) in [
            ("http://127.0.0.1", Scheme::Http, "127.0.0.1:80", "/"),
            (
                "http://127.0.0.1:8080/a?b=c",
                Scheme::Http,
                "127.0.0.1:8080",
                "/a?b=c",
            ),
            ("https://[::1]/x", Scheme::Https, "[::1]:443", "/x"),
            ("tcp://[::1]:25", Scheme::Tcp, "[::1]:25", "/"),
            ("udp://127.0.0.1:53", Scheme::Udp, "127.0.0.1:53", "/"),
        ] {
            let expected = (scheme, address.to_owned(), path.to_owned());
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_what_is_wrong() {
        for (text, why) in [
            ("127.0.0.1", "it has no scheme"),
            ("127.0.0.1:80", "it has no scheme"),
            ("/x", "it has no scheme"),
            ("ftp://127.0.0.1", "ftp is not http, https, tcp or udp"),
            ("tcp://127.0.0.1", "it names no port"),
            ("udp://127.0.0.1", "it names no port"),
            ("tcp://127.0.0.1:25/x", "it has a path"),
            ("http://me:secret@127.0.0.1/", "it has a user"),
            ("http://", "no URL"),
            ("", "no URL"),
        ] {
            let error = Target::new(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(error.contains("http://192.0.2.1/path"), "{text}: {error}");
        }
    }

    #[test]
    fn only_this_host_is_local() {
        let local = |text: &str| Target::new(text).unwrap().require_local();
        assert!(local("http://127.0.0.1").is_ok());
        assert!(local("http://127.8.9.1").is_ok());
        assert!(local("http://[::1]").is_ok());
        let error = local("http://192.0.2.1").unwrap_err().to_string();
        assert!(error.contains("--i-own-this-target"), "{error}");
        for own in own_addresses() {
            let address = SocketAddr::new(own, 80);
            assert!(local(&format!("http://{address}")).is_ok(), "{own}");
        }
    }
}
