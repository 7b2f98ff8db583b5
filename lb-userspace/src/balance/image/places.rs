//! The records of services and of what else is found by a key.

use std::collections::BTreeMap;

use bytemuck::Zeroable as _;
use lb_common::{
    flow::{self, Address},
    layout::{self, ENDPOINT_PLACES, SourceKey, Vip, VipKey, family, flag, spread, state},
};

use super::{address, vip_key};
use crate::model::{
    Backend, Fate, Fragments, Mode, OnEmpty, Protocol, ServerId, Service, ServicePort, Snat,
    Sources, Spread, UdpFlows,
};

/// Most records that the table of endpoints takes: three eighths of its places, so that they
/// surely fit.
pub const NAMED: usize = ENDPOINT_PLACES / 8 * 3;

/// How many records of a service's backends stand in the table of endpoints.
pub(in crate::balance) fn named(service: &Service) -> usize {
    let of = |backend: &Backend| {
        usize::from(service.mode == Mode::Nat) + usize::from(backend.server_id.is_some())
    };
    service.backends.iter().map(of).sum()
}

/// A service's place in the table of VIPs, before it has a ring.
pub(super) fn vip(number: u16, service: &Service) -> Vip {
    Vip {
        key: vip_key(&service.key),
        ring: 0,
        slot_mask: 0,
        service: number,
        state: match service.on_empty {
            OnEmpty::Drop => state::EMPTY_DROP,
            OnEmpty::Pass => state::EMPTY_PASS,
        },
        spread: match service.options.spread {
            Spread::Flow => spread::FLOW,
            Spread::Source => spread::SOURCE,
            Spread::Port => spread::PORT,
        },
        flags: flags(service),
    }
}

fn flags(service: &Service) -> u16 {
    let options = &service.options;
    let sticky = service.key.protocol == Protocol::Udp && options.udp == UdpFlows::Sticky;
    let only_some = |sources: &Sources| !sources.allow.is_empty();
    let mut flags = match options.fragments {
        Fragments::Follow(Fate::Drop) => 0,
        Fragments::Follow(Fate::Pass) => flag::PASS_REORDERED,
        Fragments::Refuse(Fate::Drop) => flag::NO_FRAGMENTS,
        Fragments::Refuse(Fate::Pass) => flag::NO_FRAGMENTS | flag::PASS_REORDERED,
    };
    for (bit, set) in [
        (flag::REMEMBER, service.mode == Mode::Snat || sticky),
        (flag::SOURCES, options.sources.is_some()),
        (
            flag::DENY_OTHERS,
            options.sources.as_ref().is_some_and(only_some),
        ),
        (flag::LIMIT, options.limit.is_some()),
        (flag::QUIC, options.quic.is_some()),
    ] {
        if set {
            flags |= bit;
        }
    }
    flags
}

/// A service's record; `list` is the number of its sources.
pub(super) fn service(service: &Service, list: u32) -> layout::Service {
    let key = vip_key(&service.key);
    let limit = service.options.limit;
    layout::Service {
        address: key.address,
        changed: 0,
        sources: list,
        burst: limit.map_or(0, |limit| limit.burst.get()),
        rate: limit.map_or(0, |limit| limit.per_second.get()),
        port: key.port,
        protocol: key.protocol,
        family: key.family,
        server_id: service
            .options
            .quic
            .map_or(0, |quic| quic.server_id_length.bytes()),
        reserved: [0; 7],
    }
}

/// The places of the VIPs' bare addresses, for what has no ports.
///
/// Services that share an address share the place: it counts for the one with the lowest number.
/// Its later fragments do not tell whose they are, so they are dropped only where every service of
/// the address drops them.
pub(super) fn addresses(services: &[Vip]) -> impl Iterator<Item = Vip> {
    let mut places: BTreeMap<VipKey, Vip> = BTreeMap::new();
    for vip in services {
        let key = VipKey {
            port: 0,
            protocol: 0,
            ..vip.key
        };
        let (refuse, pass) = (flag::NO_FRAGMENTS, flag::PASS_REORDERED);
        let place = places.entry(key).or_insert(Vip {
            key,
            service: vip.service,
            state: state::ADDRESS,
            flags: vip.flags & (refuse | pass),
            ..Vip::zeroed()
        });
        place.service = place.service.min(vip.service);
        place.flags = (place.flags & vip.flags & refuse) | ((place.flags | vip.flags) & pass);
    }
    places.into_values()
}

/// The places of the addresses that `snat` sends from.
pub(super) fn pool(snat: Option<&Snat>) -> impl Iterator<Item = Vip> {
    let addresses = snat.into_iter().flat_map(|snat| &snat.addresses);
    addresses.flat_map(|&own| {
        let (address, family) = address(own);
        [Protocol::Tcp, Protocol::Udp].map(|protocol| Vip {
            key: VipKey {
                address,
                port: 0,
                protocol: protocol.number(),
                family,
            },
            state: state::POOL,
            ..Vip::zeroed()
        })
    })
}

/// The records of a backend in the table of endpoints: by its own address and port (mode `nat`),
/// and by its QUIC server ID.
pub(super) fn endpoint(
    number: u16,
    service: &Service,
    backend: &Backend,
    endpoint: u16,
) -> impl Iterator<Item = Vip> {
    let place = |key| Vip {
        key,
        ring: endpoint.into(),
        service: number,
        state: state::ENDPOINT,
        ..Vip::zeroed()
    };
    let (address, family) = address(backend.address);
    let port = match (backend.port, service.key.port) {
        (Some(port), _) | (None, ServicePort::Exact(port)) => port.get().to_be(),
        (None, ServicePort::Any) => 0,
    };
    let by_address = (service.mode == Mode::Nat).then(|| {
        place(VipKey {
            address,
            port,
            protocol: service.key.protocol.number(),
            family,
        })
    });
    let by_server_id = backend.server_id.as_ref().map(|id| {
        place(VipKey {
            address: server_id(id),
            port: number,
            protocol: id.bytes().len() as u8,
            family: family::QUIC,
        })
    });
    by_address.into_iter().chain(by_server_id)
}

/// A server ID as the data plane reads it: in the first bytes of four words.
fn server_id(id: &ServerId) -> Address {
    let mut bytes = [0; 16];
    bytes[..id.bytes().len()].copy_from_slice(id.bytes());
    bytemuck::cast::<_, Address>(bytes).map(u32::from_le)
}

/// A list of sources under a number, in the order of its keys: 1 where they are allowed.
pub(super) fn list(number: u32, sources: &Sources) -> BTreeMap<SourceKey, u8> {
    let allow = sources.allow.iter().map(|prefix| (prefix, 1));
    let deny = sources.deny.iter().map(|prefix| (prefix, 0));
    allow
        .chain(deny)
        .map(|(prefix, allowed)| {
            let (words, family) = address(prefix.network());
            let words = if family == flow::V4 {
                [words[3], 0, 0, 0]
            } else {
                words
            };
            let key = SourceKey {
                prefix: 64 + u32::from(prefix.prefix_len()),
                list: number,
                family: family.into(),
                address: words,
            };
            (key, allowed)
        })
        .collect()
}
