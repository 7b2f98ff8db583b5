//! The published tables of each mode.

use std::net::IpAddr;

use evenkeel_tests::packet_cost::Mode;
use lb_common::{
    flow::V4,
    hash,
    layout::{
        ENDPOINT_PLACES, Endpoint, SNAT_ADDRESSES, Slot, Tables, Vip, VipKey, flag, mode, state,
    },
};
use lb_userspace::{
    balance::image::{Common, Image, Numbers, address, vips},
    model::{Protocol, RingSize, Service},
};

use crate::homes;

/// Which services the packets are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Tcp4,
    Udp4,
    Tcp6,
}

/// The VIP of a service: the programs that make the frames count through them.
pub(crate) fn vip(kind: Kind, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match kind {
        Kind::Tcp4 | Kind::Udp4 => [198, 18, high, low].into(),
        Kind::Tcp6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, number].into(),
    }
}

/// The port of every service.
pub(crate) const PORT: u16 = 443;

/// So many equal services, in mode `dsr`.
pub(crate) fn base(kind: Kind, services: u16, backends: u16) -> Image {
    let protocol = match kind {
        Kind::Udp4 => Protocol::Udp,
        Kind::Tcp4 | Kind::Tcp6 => Protocol::Tcp,
    };
    let services: Vec<Service> = (0..services)
        .map(|number| {
            let vip = vip(kind, number).to_string();
            let mut service = homes::service(number, &vip, PORT, protocol, backends);
            service.ring_slots = RingSize::Auto;
            service
        })
        .collect();
    let mut numbers = Numbers::default();
    numbers.assign(&services).expect("there is room");
    let plans: Vec<_> = services
        .iter()
        .map(|service| homes::plan(service, &numbers))
        .collect();
    Image::build(&plans, &numbers, Common::seeded(7), None)
}

/// The same services in another mode.
pub(crate) fn in_mode(base: &Image, how: Mode) -> Image {
    let mut image = base.clone();
    let tables = &mut *image.tables;
    for (endpoint, far) in tables.endpoints.iter_mut().zip(&mut tables.fars) {
        if endpoint.family == 0 {
            continue;
        }
        endpoint.mtu = 9000;
        endpoint.mode = match how {
            Mode::Dsr => mode::DSR,
            Mode::Ipip => mode::IPIP,
            Mode::Gue => mode::GUE,
            Mode::Nat => mode::NAT,
            Mode::Snat => mode::SNAT,
        };
        if matches!(how, Mode::Nat | Mode::Snat) {
            endpoint.port = 8443u16.to_be();
        }
        let source: IpAddr = if endpoint.family == V4 {
            [10, 32, 0, 0].into()
        } else {
            [0xfd01, 0, 0, 0, 0, 0, 0, 0].into()
        };
        far.source = address(source).0;
        // The last two bytes.
        endpoint.entropy = 0xffff_0000;
    }
    let places: Vec<Vip> = vips(tables).copied().collect();
    for vip in places {
        let service = &mut tables.services[usize::from(vip.service)];
        service.address = vip.key.address;
        service.port = vip.key.port;
        service.protocol = vip.key.protocol;
        service.family = vip.key.family;
    }
    match how {
        Mode::Dsr | Mode::Ipip => {}
        Mode::Gue => tables.header.gue_port = 6080u16.to_be(),
        Mode::Nat => recognise_replies(tables),
        Mode::Snat => pool(tables),
    }
    image
}

/// Puts the endpoints into the table of their addresses, as far as one of a key's two places is
/// free: no reply is measured, but packets that are for no VIP look there.
fn recognise_replies(tables: &mut Tables) {
    tables.header.endpoint_keys = hash::keys(11);
    let protocol = vips(tables)
        .next()
        .expect("there is a service")
        .key
        .protocol;
    for number in 0..tables.endpoints.len() {
        let Endpoint {
            family,
            port,
            service,
            ..
        } = tables.endpoints[number];
        if family == 0 {
            continue;
        }
        tables.header.nat_endpoints += 1;
        let key = VipKey {
            address: tables.fars[number].address,
            port,
            protocol,
            family,
        };
        let places = tables.header.endpoint_places(&key);
        if let Some(place) = places
            .into_iter()
            .find(|&place| tables.by_address[place & (ENDPOINT_PLACES - 1)].key.family == 0)
        {
            tables.by_address[place] = Vip {
                key,
                ring: number as u32,
                slot_mask: 0,
                service,
                state: state::ENDPOINT,
                spread: 0,
                flags: 0,
            };
        }
    }
}

/// Gives mode `snat` all addresses and ports that it can send from, of the services' family: two
/// million for each processor, so that a million flows to few backends leave most of them free.
fn pool(tables: &mut Tables) {
    let family = vips(tables).next().expect("there is a service").key.family;
    for (nth, place) in (0u8..).zip(&mut tables.snat) {
        let from: IpAddr = if family == V4 {
            [10, 33, 0, nth].into()
        } else {
            [0xfd02, 0, 0, 0, 0, 0, 0, nth.into()].into()
        };
        *place = address(from).0;
    }
    let header = &mut tables.header;
    let count = SNAT_ADDRESSES as u16;
    (header.snat_v4, header.snat_v6) = if family == V4 { (count, 0) } else { (0, count) };
    (header.snat_first_port, header.snat_port_mask) = (0, 0xffff);
    // Packets that are for no VIP are looked up twice: they may be replies to the pool.
    header.any_port_services += u32::from(count);
    for vip in tables.vips.iter_mut().filter(|vip| vip.key.family != 0) {
        vip.flags |= flag::REMEMBER;
    }
}

/// The same with every slot in transition from one endpoint to another.
pub(crate) fn in_transition(mut image: Image) -> Image {
    for ring in image.rings.values_mut() {
        let mut owners: Vec<u16> = ring.iter().map(|slot| slot.owner()).collect();
        owners.sort_unstable();
        owners.dedup();
        let before = |owner: u16| {
            let at = owners.binary_search(&owner).expect("it is one of them");
            owners[(at + 1) % owners.len()]
        };
        *ring = ring
            .iter()
            .map(|slot| Slot::new(slot.owner(), before(slot.owner())))
            .collect();
    }
    image
}

/// The same with no flow whose latency is measured.
pub(crate) fn unmeasured(mut image: Image) -> Image {
    let endpoints = image.tables.endpoints.iter_mut();
    endpoints.for_each(|endpoint| endpoint.sampled = 0);
    image
}
