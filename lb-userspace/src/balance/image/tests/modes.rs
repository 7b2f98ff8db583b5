//! Records of every mode and option, and that each is found.

use std::num::NonZeroU32;

use bytemuck::Zeroable as _;
use lb_common::{
    flow::{V4, V6},
    host::Host,
    layout::{Endpoint, Far, family, flag, mode, spread},
    tables::Memory as _,
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::model::{
    ConnectionLimit, Fate, Fragments, PortRange, Quic, ServerId, ServerIdLength, Spread, UdpFlows,
};

const OWN: [u8; 4] = [10, 0, 0, 254];

fn of(mode: Mode) -> Service {
    Service {
        mode,
        ..service(80, &[1, 2])
    }
}

fn tunnel(v4: Option<&str>, v6: Option<&str>) -> Tunnel {
    Tunnel {
        source_ipv4: v4.map(|prefix| prefix.parse().unwrap()),
        source_ipv6: v6.map(|prefix| prefix.parse().unwrap()),
        ..Tunnel::default()
    }
}

fn build(services: &[Service], common: Common<'_>, live: Option<&Image>) -> Image {
    let plans: Vec<_> = services.iter().map(|service| plan(service, 0)).collect();
    Image::build(&plans, &assigned(services), common, live)
}

/// The records of the first backend of the first service.
fn records(service: Service, tunnel: Tunnel) -> (Endpoint, Far) {
    let common = Common {
        tunnel,
        ..Common::seeded(7)
    };
    let image = build(&[service], common, None);
    (image.tables.endpoints[0], image.tables.fars[0])
}

/// The place of a key in the table of VIPs.
fn vip_at(tables: &Tables, key: &VipKey) -> Option<Vip> {
    let places = tables.header.places(key);
    places
        .map(|place| tables.vips[place])
        .into_iter()
        .find(|place| place.key == *key)
}

/// The place of a key in the table of endpoints.
fn endpoint_at(tables: &Tables, key: &VipKey) -> Option<Vip> {
    let places = tables.header.endpoint_places(key);
    places
        .map(|place| tables.by_address[place])
        .into_iter()
        .find(|place| place.key == *key)
}

fn v4(octets: [u8; 4]) -> Address {
    address(octets.into()).0
}

#[test]
fn each_mode_has_its_records() {
    for (mode, number) in [
        (Mode::Dsr, mode::DSR),
        (Mode::Ipip, mode::IPIP),
        (Mode::Gue, mode::GUE),
        (Mode::Nat, mode::NAT),
        (Mode::Snat, mode::SNAT),
    ] {
        let (endpoint, far) = records(of(mode), Tunnel::default());
        assert_eq!(
            (endpoint.mode, endpoint.mtu, endpoint.family),
            (number, 1500, V4),
            "{mode}"
        );
        assert_eq!((endpoint.serves, endpoint.port), (1, 0), "{mode}");
        assert_eq!(far.address, v4([10, 0, 0, 1]));
        let source = if mode.tunnels() { v4(OWN) } else { [0; 4] };
        assert_eq!((far.source, endpoint.entropy), (source, 0), "{mode}");
    }
}

#[test]
fn a_tunnels_source_is_its_prefix_with_the_rest_open() {
    for (prefix, base, open) in [
        ("10.127.0.0/16", [10, 127, 0, 0], 0x0000_ffff_u32),
        ("10.127.4.0/22", [10, 127, 4, 0], 0x0000_03ff),
        ("10.127.0.1/32", [10, 127, 0, 1], 0),
    ] {
        let (endpoint, far) = records(of(Mode::Ipip), tunnel(Some(prefix), None));
        assert_eq!(
            (far.source, endpoint.entropy),
            (v4(base), open.to_be()),
            "{prefix}"
        );
    }
    let mut service = of(Mode::Gue);
    service.backends[0].address = "fd00::1".parse().unwrap();
    for (prefix, open) in [
        ("2001:db8::/96", u32::MAX),
        ("2001:db8::/120", 0xff),
        ("2001:db8::/128", 0),
    ] {
        let (endpoint, far) = records(service.clone(), tunnel(Some("10.127.0.0/16"), Some(prefix)));
        let base = address("2001:db8::".parse().unwrap()).0;
        assert_eq!(
            (far.source, endpoint.entropy),
            (base, open.to_be()),
            "{prefix}"
        );
        assert_eq!(endpoint.family, V6);
    }
    // The host's address on this way is of the other family.
    let (endpoint, far) = records(service, tunnel(Some("10.127.0.0/16"), None));
    assert_eq!((endpoint.mode, far.source), (mode::UNRESOLVED, [0; 4]));
}

#[test]
fn a_way_is_read_back_from_its_records() {
    let services = [of(Mode::Ipip)];
    let image = build(&services, Common::seeded(7), None);
    let read = way(&image.tables.endpoints[0], &image.tables.fars[0]);
    assert_eq!(read, plan(&services[0], 0).ways[0]);
    assert_eq!(way(&Endpoint::zeroed(), &Far::zeroed()), None);
}

#[test]
fn nat_backends_are_found_by_what_they_reply_from() {
    let mut services = [of(Mode::Nat), service(0, &[3]), of(Mode::Dsr)];
    services[0].backends[1].port = NonZeroU16::new(8080);
    services[1].mode = Mode::Nat;
    services[2].key.port = ServicePort::Exact(NonZeroU16::new(81).unwrap());
    let image = build(&services, Common::seeded(7), None);
    let key = |last, port: u16| VipKey {
        address: v4([10, 0, 0, last]),
        port: port.to_be(),
        protocol: 6,
        family: V4,
    };
    for (last, port, service, number) in [(1, 80, 0, 0), (2, 8080, 0, 1), (3, 0, 1, 2)] {
        let place = endpoint_at(&image.tables, &key(last, port)).unwrap();
        assert_eq!(
            (place.state, place.service, place.ring),
            (state::ENDPOINT, service, number)
        );
    }
    assert_eq!(endpoint_at(&image.tables, &key(2, 80)), None);
    assert_eq!(image.tables.endpoints[1].port, 8080u16.to_be());
    let header = &image.tables.header;
    assert_eq!((header.nat_endpoints, header.any_port_endpoints), (3, 1));
    assert_eq!(occupied(&image.tables.by_address).count(), 3);
}

#[test]
fn quic_backends_are_found_by_their_server_ids() {
    let mut services = [of(Mode::Dsr)];
    services[0].options.quic = Some(Quic {
        server_id_length: ServerIdLength::new(5).unwrap(),
    });
    services[0].backends[1].server_id = ServerId::new(&[1, 2, 3, 4, 5]);
    let image = build(&services, Common::seeded(7), None);
    let key = VipKey {
        address: [0x0403_0201, 5, 0, 0],
        port: 0,
        protocol: 5,
        family: family::QUIC,
    };
    let place = endpoint_at(&image.tables, &key).unwrap();
    assert_eq!((place.ring, place.state), (1, state::ENDPOINT));
    assert_eq!(image.tables.services[0].server_id, 5);
    assert_eq!(image.tables.header.nat_endpoints, 0);
    let vip = vip_at(&image.tables, &vip_key(&services[0].key)).unwrap();
    assert_eq!(vip.flags, flag::QUIC);
}

#[test]
fn the_pool_is_found_and_counted() {
    let snat = Snat {
        addresses: ["2001:db8::9", "192.0.2.9", "192.0.2.8"]
            .map(|a| a.parse().unwrap())
            .into(),
        ports: PortRange::new(NonZeroU16::new(2048).unwrap(), 512).unwrap(),
    };
    let common = Common {
        snat: Some(&snat),
        ..Common::seeded(7)
    };
    let image = build(&[of(Mode::Snat)], common, None);
    let header = &image.tables.header;
    assert_eq!(
        (header.snat_v4, header.snat_v6, header.any_port_services),
        (2, 1, 3)
    );
    assert_eq!((header.snat_first_port, header.snat_port_mask), (2048, 511));
    let v6 = address("2001:db8::9".parse().unwrap()).0;
    assert_eq!(
        image.tables.snat[..4],
        [v4([192, 0, 2, 9]), v4([192, 0, 2, 8]), v6, [0; 4]]
    );
    for (address, family) in [(v4([192, 0, 2, 9]), V4), (v4([192, 0, 2, 8]), V4), (v6, V6)] {
        for protocol in [6, 17] {
            let key = VipKey {
                address,
                port: 0,
                protocol,
                family,
            };
            assert_eq!(vip_at(&image.tables, &key).unwrap().state, state::POOL);
        }
    }
    // They are no services.
    assert_eq!(vips(&image.tables).count(), 1);
}

/// A change of a service.
type Change = fn(&mut Service);

#[test]
fn options_are_flags_and_records() {
    let flags = |change: Change| {
        let mut service = of(Mode::Dsr);
        change(&mut service);
        let image = build(std::slice::from_ref(&service), Common::seeded(7), None);
        vip_at(&image.tables, &vip_key(&service.key)).unwrap()
    };
    let sticky = |service: &mut Service| service.options.udp = UdpFlows::Sticky;
    let udp = |service: &mut Service| service.key.protocol = Protocol::Udp;
    let cases: [(u16, Change); 9] = [
        (0, |_| ()),
        (0, |s| s.key.protocol = Protocol::Udp),
        (flag::REMEMBER, |s| s.mode = Mode::Snat),
        (flag::SOURCES, |s| {
            s.options.sources = Some(sources(&[], &["10.0.0.0/8"]));
        }),
        (flag::SOURCES | flag::DENY_OTHERS, |s| {
            s.options.sources = Some(sources(&["10.0.0.0/8"], &[]));
        }),
        (flag::LIMIT, |s| s.options.limit = Some(limit())),
        (flag::PASS_REORDERED, |s| {
            s.options.fragments = Fragments::Follow(Fate::Pass);
        }),
        (flag::NO_FRAGMENTS, |s| {
            s.options.fragments = Fragments::Refuse(Fate::Drop);
        }),
        (flag::NO_FRAGMENTS | flag::PASS_REORDERED, |s| {
            s.options.fragments = Fragments::Refuse(Fate::Pass);
        }),
    ];
    for (expected, change) in cases {
        assert_eq!(flags(change).flags, expected);
    }
    let mut both = of(Mode::Dsr);
    udp(&mut both);
    sticky(&mut both);
    let image = build(std::slice::from_ref(&both), Common::seeded(7), None);
    assert_eq!(
        vip_at(&image.tables, &vip_key(&both.key)).unwrap().flags,
        flag::REMEMBER
    );
    assert_eq!(
        flags(|s| s.options.spread = Spread::Source).spread,
        spread::SOURCE
    );
    assert_eq!(
        flags(|s| s.options.spread = Spread::Port).spread,
        spread::PORT
    );

    let mut limited = of(Mode::Dsr);
    limited.options.limit = Some(limit());
    let record = build(&[limited], Common::seeded(7), None).tables.services[0];
    assert_eq!((record.rate, record.burst, record.sources), (3, 9, 0));
    assert_eq!(
        (record.port, record.protocol, record.family),
        (80u16.to_be(), 6, V4)
    );
    assert_eq!(record.address, v4([198, 51, 100, 10]));
}

fn limit() -> ConnectionLimit {
    ConnectionLimit {
        per_second: NonZeroU32::new(3).unwrap(),
        burst: NonZeroU32::new(9).unwrap(),
    }
}

fn sources(allow: &[&str], deny: &[&str]) -> Sources {
    let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Sources {
        allow: list(allow),
        deny: list(deny),
    }
}

#[test]
fn services_of_an_address_share_its_place() {
    let mut services = [service(81, &[1]), service(80, &[1]), service(82, &[1])];
    let (refuse, pass) = (flag::NO_FRAGMENTS, flag::PASS_REORDERED);
    let key = VipKey {
        port: 0,
        protocol: 0,
        ..vip_key(&services[0].key)
    };
    let follow = |fate| Fragments::Follow(fate);
    for (fragments, flags) in [
        ([Fragments::default(); 3], 0),
        ([Fragments::Refuse(Fate::Drop); 3], refuse),
        ([Fragments::Refuse(Fate::Pass); 3], refuse | pass),
        (
            [follow(Fate::Drop), follow(Fate::Drop), follow(Fate::Pass)],
            pass,
        ),
        (
            [
                follow(Fate::Drop),
                Fragments::Refuse(Fate::Pass),
                follow(Fate::Drop),
            ],
            pass,
        ),
    ] {
        for (service, fragments) in services.iter_mut().zip(fragments) {
            service.options.fragments = fragments;
        }
        let image = build(&services, Common::seeded(7), None);
        let place = vip_at(&image.tables, &key).unwrap();
        assert_eq!(
            (place.state, place.service, place.flags),
            (state::ADDRESS, 0, flags)
        );
    }
}

#[test]
fn only_a_list_that_changes_moves_to_its_other_number() {
    let with = |first: &str, second: &str| {
        let mut services = [service(80, &[1]), service(81, &[1])];
        services[0].options.sources = Some(sources(&[first], &[]));
        services[1].options.sources = Some(sources(&[], &[second]));
        services
    };
    let common = Common::seeded(7);
    let first = build(&with("10.0.0.0/8", "10.0.0.0/9"), common, None);
    assert_eq!(first.lists.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(first.tables.services[1].sources, 3);
    let same = build(&with("10.0.0.0/8", "10.0.0.0/9"), common, Some(&first));
    assert!(same.forwards_like(&first));
    let second = build(&with("10.0.0.0/8", "10.0.0.0/10"), common, Some(&first));
    assert_eq!(second.lists.keys().copied().collect::<Vec<_>>(), [1, 4]);
    assert!(Arc::ptr_eq(&first.lists[&1], &second.lists[&1]));
    assert!(!second.forwards_like(&first));
    let third = build(&with("10.0.0.0/8", "10.0.0.0/9"), common, Some(&second));
    assert_eq!(third.lists.keys().copied().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn the_longest_prefix_of_a_list_decides() {
    let mut services = [service(80, &[1])];
    services[0].options.sources = Some(sources(
        &["10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32"],
        &["10.1.0.0/16", "2001:db8:0:1::/64"],
    ));
    let image = build(&services, Common::seeded(7), None);
    let number = image.tables.services[0].sources;
    let mut host = Host::default();
    host.sources = (*image.lists[&number]).clone();
    for (source, listed) in [
        ("10.9.9.9", Some(1)),
        ("10.1.9.9", Some(0)),
        ("10.1.2.3", Some(1)),
        ("192.0.2.1", None),
        ("2001:db8::1", Some(1)),
        ("2001:db8:0:1::1", Some(0)),
        ("fd00::1", None),
    ] {
        let (words, family) = address(source.parse().unwrap());
        let (words, bits) = match family {
            V4 => ([words[3], 0, 0, 0], 32),
            _ => (words, 128),
        };
        let key = SourceKey {
            prefix: 64 + bits,
            list: number,
            family: family.into(),
            address: words,
        };
        assert_eq!(host.listed(&key), listed, "{source}");
    }
}

#[test]
fn more_named_endpoints_than_places_are_refused() {
    let mut numbers = Numbers::default();
    let mut many = service(80, &[]);
    many.mode = Mode::Nat;
    let backend = service(80, &[1]).backends.remove(0);
    many.backends = (0..=NAMED as u32)
        .map(|n| Backend {
            address: std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(),
            ..backend.clone()
        })
        .collect();
    assert_eq!(
        numbers.assign(std::slice::from_ref(&many)),
        Err(Full::Named)
    );
    many.backends.pop();
    assert!(numbers.assign(&[many]).is_ok());
}

/// Services of random modes, ports and protocols, of which no two have the same key, with backends
/// that no two of mode `nat` share.
fn any_services() -> impl Strategy<Value = Vec<Service>> {
    let one = (
        select(vec![
            Mode::Dsr,
            Mode::Ipip,
            Mode::Gue,
            Mode::Nat,
            Mode::Snat,
        ]),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        0..6u16,
    );
    vec(one, 1..60).prop_map(|ones| {
        let mut services = Vec::new();
        for ((mode, v6, any_port, quic, count), n) in ones.into_iter().zip(0u16..) {
            let vip: IpAddr = if v6 {
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, n / 3].into()
            } else {
                [198, 51, 100, (n / 3) as u8].into()
            };
            let mut service = service(if any_port && n % 3 == 0 { 0 } else { 1000 + n }, &[]);
            service.key.vip = vip;
            service.mode = mode;
            service.key.protocol = if quic { Protocol::Udp } else { Protocol::Tcp };
            let quic = quic && mode != Mode::Snat;
            service.options.quic = quic.then(|| Quic {
                server_id_length: ServerIdLength::new(2).unwrap(),
            });
            service.backends = (0..count)
                .map(|b| Backend {
                    name: format!("backend-{b}").into(),
                    address: if v6 {
                        [0xfd00, 0, 0, 0, 0, 0, n, b].into()
                    } else {
                        [10, 0, n as u8, b as u8].into()
                    },
                    weight: Weight::DEFAULT,
                    capacity: None,
                    port: None,
                    server_id: quic.then(|| ServerId::new(&b.to_be_bytes()).unwrap()),
                })
                .collect();
            services.push(service);
        }
        services
    })
}

proptest! {
    #[test]
    fn whatever_is_configured_is_found(services in any_services()) {
        let snat = Snat {
            addresses: vec![[192, 0, 2, 1].into()],
            ports: PortRange::DEFAULT,
        };
        let common = Common { snat: Some(&snat), ..Common::seeded(7) };
        let numbers = assigned(&services);
        let plans: Vec<_> = services
            .iter()
            .map(|service| ServicePlan {
                slots: None,
                ..plan(service, 0)
            })
            .collect();
        let image = Image::build(&plans, &numbers, common, None);
        let tables = &image.tables;
        let mut named = 0;
        for service in &services {
            let number = numbers.service(&service.key).unwrap();
            let key = vip_key(&service.key);
            prop_assert_eq!(vip_at(tables, &key).unwrap().service, number);
            let bare = VipKey { port: 0, protocol: 0, ..key };
            prop_assert_eq!(vip_at(tables, &bare).unwrap().state, state::ADDRESS);
            for backend in &service.backends {
                let end = numbers.endpoint(&service.key, backend.address).unwrap();
                for place in places::endpoint(number, service, backend, end) {
                    named += 1;
                    prop_assert_eq!(endpoint_at(tables, &place.key), Some(place));
                    let record = tables.endpoints[place.ring as usize];
                    prop_assert_eq!(record.service, number);
                    prop_assert_eq!(tables.fars[place.ring as usize].address, address(backend.address).0);
                }
            }
        }
        prop_assert_eq!(occupied(&tables.by_address).count(), named);
        prop_assert_eq!(vips(tables).count(), services.len());
        prop_assert_eq!(Numbers::adopt(tables), numbers);
    }
}
