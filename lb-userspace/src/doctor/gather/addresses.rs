//! The addresses of this host.

use std::io;

use ipnet::IpNet;
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

/// The addresses of this host, with their subnets.
///
/// # Errors
/// Where the kernel does not list them.
pub fn addresses() -> io::Result<Vec<IpNet>> {
    let address = |address: Option<SockaddrStorage>| {
        let address = address?;
        let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    };
    Ok(getifaddrs()?
        .filter_map(|of| IpNet::with_netmask(address(of.address)?, address(of.netmask)?).ok())
        .collect())
}
