//! The records of backends.

use std::net::IpAddr;

use bytemuck::Zeroable as _;
use lb_common::{
    flow::{self, Address},
    layout::{Endpoint, Far, mode},
};

use super::{Way, address};
use crate::model::{Backend, Mode, Service, Tunnel};

/// Where packets in a tunnel come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    address: Address,
    /// Which bits of the last word the flow fills in, as they lie in memory.
    entropy: u32,
}

/// Whether packets in a tunnel to a backend have an address to come from: a configured one, or the
/// host's own on this way.
#[must_use]
pub fn has_source(backend: IpAddr, way: &Way, tunnel: &Tunnel) -> bool {
    source(backend, way, tunnel).is_some()
}

fn source(backend: IpAddr, way: &Way, tunnel: &Tunnel) -> Option<Source> {
    let prefix = match backend {
        IpAddr::V4(_) => tunnel
            .source_ipv4
            .map(|prefix| (prefix.network().into(), prefix.hostmask().to_bits())),
        // Of at least 96 bits, so what is open lies in the last 32.
        IpAddr::V6(_) => tunnel
            .source_ipv6
            .map(|prefix| (prefix.network().into(), prefix.hostmask().to_bits() as u32)),
    };
    let (from, open) = match (prefix, way.address) {
        (Some(prefix), _) => prefix,
        (None, own) => (own.filter(|own| own.is_ipv4() == backend.is_ipv4())?, 0),
    };
    Some(Source {
        address: address(from).0,
        entropy: open.to_be(),
    })
}

/// A backend's records; without a way to it, or an address to send from, it stays unresolved.
#[must_use]
pub fn records(
    number: u16,
    service: &Service,
    backend: &Backend,
    way: Option<Way>,
    tunnel: &Tunnel,
) -> (Endpoint, Far) {
    let (far, family) = address(backend.address);
    let far = Far {
        address: far,
        source: Address::zeroed(),
    };
    let bare = Endpoint {
        service: number,
        port: backend.port.map_or(0, |port| port.get().to_be()),
        family,
        mode: mode::UNRESOLVED,
        serves: 1,
        sampled: service.options.measured.of_65536(),
        ..Endpoint::zeroed()
    };
    let Some(way) = way else {
        return (bare, far);
    };
    let mut macs = [0u8; 12];
    macs[..6].copy_from_slice(&way.destination);
    macs[6..].copy_from_slice(&way.source);
    let resolved = Endpoint {
        macs: bytemuck::cast(macs),
        interface: way.interface,
        mtu: way.mtu,
        mode: mode_number(service.mode),
        ..bare
    };
    if !service.mode.tunnels() {
        return (resolved, far);
    }
    let Some(source) = source(backend.address, &way, tunnel) else {
        return (bare, far);
    };
    (
        Endpoint {
            entropy: source.entropy,
            ..resolved
        },
        Far {
            source: source.address,
            ..far
        },
    )
}

/// The way that an endpoint's records hold; `None` where it is not resolved.
#[must_use]
pub fn way(endpoint: &Endpoint, far: &Far) -> Option<Way> {
    if endpoint.mode == mode::UNRESOLVED {
        return None;
    }
    let macs: [u8; 12] = bytemuck::cast(endpoint.macs);
    let mut way = Way {
        interface: endpoint.interface,
        source: [0; 6],
        destination: [0; 6],
        mtu: endpoint.mtu,
        address: (far.source != Address::zeroed()).then(|| ip(endpoint.family, far.source)),
    };
    way.destination.copy_from_slice(&macs[..6]);
    way.source.copy_from_slice(&macs[6..]);
    Some(way)
}

/// An address as the tables hold it, for people.
#[must_use]
pub fn ip(family: u8, address: Address) -> IpAddr {
    if family == flow::V4 {
        IpAddr::from(address[3].to_ne_bytes())
    } else {
        IpAddr::from(bytemuck::cast::<_, [u8; 16]>(address))
    }
}

const fn mode_number(how: Mode) -> u8 {
    match how {
        Mode::Dsr => mode::DSR,
        Mode::Ipip => mode::IPIP,
        Mode::Gue => mode::GUE,
        Mode::Nat => mode::NAT,
        Mode::Snat => mode::SNAT,
    }
}
