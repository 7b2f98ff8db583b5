use std::{boxed::Box, net::IpAddr, net::SocketAddr, string::String, vec, vec::Vec};

use bytemuck::Zeroable as _;
use proptest::prelude::*;

use super::{host::Host, *};
use crate::{
    decide,
    host::{self, Frame},
    layout::{self, Endpoint, Far, Slot, Vip, VipKey, mode, state},
    testing::{Plan, Tunnel, ipv4_checksum},
    wire::tcp,
};

const PORT: u16 = 6080;

fn address(text: &str) -> (Address, u8) {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => (flow::v4(u32::from_ne_bytes(v4.octets())), flow::V4),
        IpAddr::V6(v6) => (bytemuck::cast(v6.octets()), flow::V6),
    }
}

/// `10.0.0.2` and `fd00::2`, whose load balancers are in `10.0.9.0/24`, `172.16.0.0/12` and
/// `fd00:9::/32`.
fn backend() -> Host {
    let mut host = Host::default();
    host.settings.as_mut().unwrap().gue_port = PORT.to_be();
    for own in ["10.0.0.2", "fd00::2"] {
        let (address, family) = address(own);
        let key = AddressKey::new(address, family, role::TUNNEL);
        host.addresses.insert(key);
    }
    for (prefix, bits) in [("10.0.9.0", 24), ("172.16.0.0", 12), ("fd00:9::", 32)] {
        let (address, family) = address(prefix);
        host.senders.insert(SenderKey::new(address, family, bits));
    }
    host
}

fn run(host: &Host, bytes: &[u8]) -> (Verdict, Vec<u8>) {
    let mut frame = Frame::new(bytes, 1);
    let verdict = process(&mut frame, host);
    (verdict, frame.bytes)
}

/// `10.0.9.1` or `fd00:9::1` to the backend.
fn tunnel(v6: bool) -> Tunnel {
    if v6 {
        Tunnel::ipip("fd00:9::1", "fd00::2")
    } else {
        Tunnel::ipip("10.0.9.1", "10.0.0.2")
    }
}

/// A segment of a client to a VIP: its IP packet.
fn inner(v6: bool) -> Vec<u8> {
    let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let plan = if v6 {
        Plan::tcp(at("[2001:db8::9]:51000"), at("[2001:db8::10]:80"))
    } else {
        Plan::tcp(at("203.0.113.9:51000"), at("198.51.100.10:80"))
    };
    let mut packet = plan.bytes().split_off(14);
    if !v6 {
        ipv4_checksum(&mut packet, 0);
    }
    packet
}

/// 20 bytes of IPv4 around 21 of another one's, with a VLAN tag.
const IPIP: &[u8] = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x81\x00\x00\x07\x08\x00\
    \x45\x00\x00\x29\0\0\x40\x00\x40\x04\x1d\xcf\x0a\x00\x09\x01\x0a\x00\x00\x02\
    \x45\xb8\x00\x15\x12\x34\x40\x00\x3f\xfd\x00\x00\xcb\x00\x71\x09\xc6\x33\x64\x0a\x55";

#[test]
fn a_frame_loses_its_outer_header_and_nothing_else() {
    let host = backend();
    let (verdict, bytes) = run(&host, IPIP);
    assert_eq!(verdict, Verdict::Unwrapped);
    assert_eq!(bytes, [&IPIP[..18], &IPIP[38..]].concat());
    assert_eq!(*host.bytes.borrow(), IPIP.len() as u64);
}

/// 40 bytes of IPv6 and 8 of UDP around 41 of IPv6's, with two VLAN tags.
const GUE: &[u8] = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\xa8\x00\x07\x81\x00\x00\x08\x86\xdd\
    \x60\x01\x23\x45\x00\x31\x11\x40\
    \xfd\x00\x00\x09\0\0\0\0\0\0\0\0\0\0\0\x01\xfd\x00\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\
    \xc0\x01\x17\xc0\x00\x31\x00\x00\
    \x60\x00\x00\x00\x00\x01\xfd\x3f\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x10\x55";

#[test]
fn gue_loses_its_udp_header_too_and_keeps_both_tags() {
    let (verdict, bytes) = run(&backend(), GUE);
    assert_eq!(verdict, Verdict::Unwrapped);
    assert_eq!(bytes, [&GUE[..22], &GUE[70..]].concat());
}

#[test]
fn the_ethertype_follows_what_is_inside() {
    for (outer_v6, inner_v6) in [(false, true), (true, false)] {
        for gue in [false, true] {
            let outer = tunnel(outer_v6);
            let outer = if gue { outer.gue(PORT) } else { outer };
            let (verdict, bytes) = run(&backend(), &outer.frame(&inner(inner_v6)));
            assert_eq!(verdict, Verdict::Unwrapped);
            let ethertype = if inner_v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
            assert_eq!(bytes[12..14], ethertype, "{outer_v6} {inner_v6} {gue}");
            assert_eq!(bytes[14..], inner(inner_v6));
        }
    }
}

#[test]
fn a_frame_cut_anywhere_is_never_unwrapped() {
    for whole in [IPIP, GUE] {
        for length in 0..whole.len() {
            let (verdict, bytes) = run(&backend(), &whole[..length]);
            assert!(
                matches!(
                    verdict,
                    Verdict::Pass(Reason::NotTunnel) | Verdict::Drop(Reason::Truncated)
                ),
                "{length} bytes: {verdict:?}"
            );
            assert_eq!(bytes, whole[..length]);
        }
        // What is behind its end is no part of it: Ethernet fills short frames up.
        let filled = [whole, &[0; 9]].concat();
        assert_eq!(run(&backend(), &filled).0, Verdict::Unwrapped);
    }
}

/// RFC 6040, figure 4: the outer codepoint across (Not-ECT, ECT(0), ECT(1), CE), the inner one
/// down in the same order.
const TABLE: [[Option<u8>; 4]; 4] = {
    const NOT: Option<u8> = Some(0b00);
    const ECT_0: Option<u8> = Some(0b10);
    const ECT_1: Option<u8> = Some(0b01);
    const CE: Option<u8> = Some(0b11);
    [
        [NOT, NOT, NOT, None],
        [ECT_0, ECT_0, ECT_1, CE],
        [ECT_1, ECT_1, ECT_1, CE],
        [CE, CE, CE, CE],
    ]
};
const ORDER: [u8; 4] = [0b00, 0b10, 0b01, 0b11];

#[test]
fn congestion_on_the_way_is_told_as_rfc_6040_has_it() {
    for (row, inner_ecn) in TABLE.iter().zip(ORDER) {
        for (expected, outer_ecn) in row.iter().zip(ORDER) {
            for (outer_v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)]
            {
                let case =
                    std::format!("{inner_ecn:02b} in {outer_ecn:02b}, {outer_v6} {inner_v6}");
                check_congestion(outer_ecn, inner_ecn, *expected, outer_v6, inner_v6, &case);
            }
        }
    }
}

fn check_congestion(
    outer_ecn: u8,
    inner_ecn: u8,
    expected: Option<u8>,
    outer_v6: bool,
    inner_v6: bool,
    case: &str,
) {
    // The DSCP outside, 46, means nothing inside, where it is 10.
    let outer = Tunnel {
        class: 46 << 2 | outer_ecn,
        ..tunnel(outer_v6)
    };
    let with = |ecn: u8| {
        let mut packet = inner(inner_v6);
        let class = 10 << 2 | ecn;
        if inner_v6 {
            packet[0] = 0x60 | class >> 4;
            packet[1] = class << 4 | 0x5;
        } else {
            packet[1] = class;
            ipv4_checksum(&mut packet, 0);
        }
        packet
    };
    let frame = outer.frame(&with(inner_ecn));
    let (verdict, bytes) = run(&backend(), &frame);
    if let Some(ecn) = expected {
        assert_eq!(verdict, Verdict::Unwrapped, "{case}");
        assert_eq!(bytes[14..], with(ecn), "{case}");
    } else {
        assert_eq!(verdict, Verdict::Drop(Reason::Congestion), "{case}");
        assert_eq!(bytes, frame, "{case}");
    }
}

/// A frame, changed at an offset from its outer IP header on; an IPv4 header's checksum is put
/// right again.
fn changed(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[14 + at..14 + at + bytes.len()].copy_from_slice(bytes);
    if frame[12..14] == [8, 0] && frame.len() >= 34 {
        ipv4_checksum(&mut frame, 14);
    }
    frame
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_odd_is_dropped_with_its_reason() {
    use Reason::{Checksum, Fragment, Length, NotIpInside, Options, Truncated};
    let (v4, v6) = (
        tunnel(false).frame(&inner(false)),
        tunnel(true).frame(&inner(true)),
    );
    let gue = tunnel(false).gue(PORT).frame(&inner(false));
    let bad_sum = {
        let mut frame = v4.clone();
        frame[14 + 10] ^= 1;
        frame
    };
    let options = {
        let mut frame = v4.clone();
        frame.splice(34..34, [1, 1, 1, 1]);
        changed(&changed(&frame, 0, &[0x46]), 2, &(50u16 + 24).to_be_bytes())
    };
    let gue_options = {
        let mut frame = gue.clone();
        frame.splice(34..34, [1, 1, 1, 1]);
        changed(&changed(&frame, 0, &[0x46]), 2, &(58u16 + 24).to_be_bytes())
    };
    for (name, frame, reason) in [
        ("first fragment", changed(&v4, 6, &[0x20, 0]), Fragment),
        ("later fragment", changed(&v4, 6, &[0, 1]), Fragment),
        (
            "first fragment of GUE",
            changed(&gue, 6, &[0x20, 0]),
            Fragment,
        ),
        ("options", options, Options),
        ("options before GUE", gue_options, Options),
        ("wrong checksum", bad_sum, Checksum),
        (
            "one byte more announced",
            changed(&v4, 2, &71u16.to_be_bytes()),
            Truncated,
        ),
        (
            "one byte less announced",
            changed(&v4, 2, &69u16.to_be_bytes()),
            Length,
        ),
        (
            "no room for the header",
            changed(&v4, 2, &19u16.to_be_bytes()),
            Length,
        ),
        (
            "IPv6 announces more",
            changed(&v6, 4, &71u16.to_be_bytes()),
            Truncated,
        ),
        (
            "IPv6 announces less",
            changed(&v6, 4, &69u16.to_be_bytes()),
            Length,
        ),
        (
            "UDP announces more",
            changed(&gue, 24, &59u16.to_be_bytes()),
            Length,
        ),
        (
            "UDP announces less",
            changed(&gue, 24, &57u16.to_be_bytes()),
            Length,
        ),
        (
            "inner IPv4 longer",
            changed(&v4, 22, &51u16.to_be_bytes()),
            Length,
        ),
        (
            "inner IPv4 shorter",
            changed(&v4, 22, &49u16.to_be_bytes()),
            Length,
        ),
        (
            "inner IPv6 longer",
            changed(&v6, 44, &31u16.to_be_bytes()),
            Length,
        ),
        (
            "inner IPv4 below its header",
            changed(&v4, 22, &19u16.to_be_bytes()),
            NotIpInside,
        ),
        (
            "inner header of 16 bytes",
            changed(&v4, 20, &[0x44]),
            NotIpInside,
        ),
        ("inner version 5", changed(&v4, 20, &[0x55]), NotIpInside),
        ("IPv6 announced as IPv4", changed(&v6, 6, &[4]), NotIpInside),
        (
            "IPv4 announced as IPv6",
            changed(&v4, 9, &[41]),
            NotIpInside,
        ),
        (
            "GUE variant 0",
            changed(&gue, 28, &[0, 4, 0, 0]),
            NotIpInside,
        ),
        (
            "GUE variant 0, control",
            changed(&gue, 28, &[0x20, 4, 0, 0]),
            NotIpInside,
        ),
    ] {
        let (verdict, bytes) = run(&backend(), &frame);
        assert_eq!(verdict, Verdict::Drop(reason), "{name}");
        assert_eq!(bytes, frame, "{name}");
    }
}

#[test]
fn what_is_no_tunnels_packet_for_this_host_is_left_alone() {
    let (v4, v6) = (
        tunnel(false).frame(&inner(false)),
        tunnel(true).frame(&inner(true)),
    );
    let gue = tunnel(false).gue(PORT).frame(&inner(false));
    let thrice = Tunnel {
        tags: vec![0x88a8, 0x8100, 0x8100],
        ..tunnel(false)
    };
    let plain = |v6: bool| -> Vec<u8> {
        let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
        [&v4[..12], &ethertype, &inner(v6)].concat()
    };
    for (name, frame) in [
        ("TCP", plain(false)),
        ("TCP over IPv6", plain(true)),
        ("ARP", [&v4[..12], &[8, 6], &[0; 28][..]].concat()),
        ("three tags", thrice.frame(&inner(false))),
        ("for another host", changed(&v4, 19, &[3])),
        ("for another host, IPv6", changed(&v6, 39, &[3])),
        ("GUE for another host", changed(&gue, 19, &[3])),
        ("another port", changed(&gue, 22, &[0x17, 0xc1])),
        (
            "from that port",
            changed(&gue, 20, &[0x17, 0xc0, 0x17, 0xc1]),
        ),
        ("a later fragment of UDP", changed(&gue, 6, &[0, 1])),
        ("another protocol", changed(&v4, 9, &[47])),
        ("an extension header", changed(&v6, 6, &[60])),
        ("version 5", changed(&v4, 0, &[0x55])),
        ("version 5 as IPv6", changed(&v6, 0, &[0x50])),
    ] {
        let host = backend();
        let (verdict, bytes) = run(&host, &frame);
        assert_eq!(verdict, Verdict::Pass(Reason::NotTunnel), "{name}");
        assert_eq!(bytes, frame, "{name}");
    }
}

#[test]
fn only_those_who_may_send_are_listened_to() {
    for (source, allowed) in [
        ("10.0.9.0", true),
        ("10.0.9.255", true),
        ("10.0.8.255", false),
        ("10.0.10.0", false),
        ("172.31.255.255", true),
        ("172.32.0.0", false),
        ("0.0.0.0", false),
        ("fd00:9:ffff::", true),
        ("fd00:a::", false),
        // The words of 10.0.9.0, as an address of the other family.
        ("a00:900::", false),
    ] {
        let v6 = source.contains(':');
        let frame = Tunnel {
            source: source.parse().unwrap(),
            ..tunnel(v6)
        }
        .frame(&inner(false));
        let mut host = backend();
        let verdict = |host: &Host| run(host, &frame).0;
        let refused = |verdict| if allowed { Verdict::Unwrapped } else { verdict };
        assert_eq!(
            verdict(&host),
            refused(Verdict::Drop(Reason::Sender)),
            "{source}"
        );
        host.settings.as_mut().unwrap().flags = flag::PASS_OTHERS;
        assert_eq!(
            verdict(&host),
            refused(Verdict::Pass(Reason::Sender)),
            "{source}"
        );
        host.settings.as_mut().unwrap().flags = flag::ANY_SENDER;
        assert_eq!(verdict(&host), Verdict::Unwrapped, "{source}");
    }
}

#[test]
fn with_vips_only_what_is_for_them_is_taken_out() {
    let mut host = backend();
    host.settings.as_mut().unwrap().flags = flag::VIPS;
    let (v4, v6) = (
        tunnel(false).frame(&inner(false)),
        tunnel(true).frame(&inner(true)),
    );
    // Where a tunnel ends is no VIP.
    let (own, family) = address("198.51.100.10");
    host.addresses
        .insert(AddressKey::new(own, family, role::TUNNEL));
    assert_eq!(run(&host, &v4).0, Verdict::Drop(Reason::NotVip));
    host.addresses
        .insert(AddressKey::new(own, family, role::VIP));
    assert_eq!(run(&host, &v4).0, Verdict::Unwrapped);
    assert_eq!(run(&host, &v6).0, Verdict::Drop(Reason::NotVip));
    let (own, family) = address("2001:db8::10");
    host.addresses
        .insert(AddressKey::new(own, family, role::VIP));
    assert_eq!(run(&host, &v6).0, Verdict::Unwrapped);
}

#[test]
fn settings_that_are_missing_or_of_another_version_let_all_pass() {
    let frame = tunnel(false).frame(&inner(false));
    let mut host = backend();
    host.settings.as_mut().unwrap().version = VERSION + 1;
    assert_eq!(
        run(&host, &frame),
        (Verdict::Pass(Reason::NoSettings), frame.clone())
    );
    host.settings = None;
    assert_eq!(
        run(&host, &frame),
        (Verdict::Pass(Reason::NoSettings), frame)
    );
}

#[test]
fn without_a_port_udp_is_left_alone() {
    let mut host = backend();
    host.settings.as_mut().unwrap().gue_port = 0;
    let frame = tunnel(false).gue(0).frame(&inner(false));
    assert_eq!(run(&host, &frame).0, Verdict::Pass(Reason::NotTunnel));
}

#[test]
fn reasons_are_numbered_in_order_and_named_apart() {
    for (number, reason) in (1..).zip(Reason::ALL) {
        assert_eq!(Verdict::Pass(reason).counter(), number);
        assert_eq!(Verdict::Drop(reason).counter(), number);
    }
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
}

/// A load balancer whose one backend, by a tunnel, is [`backend`].
fn balancer(plan: &Plan, outer_v6: bool, tunnel_mode: u8) -> host::Host {
    let mut tables: Box<layout::Tables> = bytemuck::zeroed_box();
    tables.header.gue_port = PORT.to_be();
    let (address_of_vip, family) = address(&std::format!("{}", plan.destination.ip()));
    let key = VipKey {
        address: address_of_vip,
        port: plan.destination.port().to_be(),
        protocol: tcp::PROTOCOL,
        family,
    };
    let place = tables.header.places(&key)[0];
    tables.vips[place] = Vip {
        key,
        slot_mask: 255,
        state: state::SERVING,
        ..Vip::zeroed()
    };
    let (from, to) = if outer_v6 {
        ("fd00:9::1", "fd00::2")
    } else {
        ("172.16.0.1", "10.0.0.2")
    };
    let ((source, family), (to, _)) = (address(from), address(to));
    tables.endpoints[1] = Endpoint {
        interface: 1,
        // Entropy within the allowed prefixes: the last sixteen bits.
        entropy: 0xffff_0000,
        mtu: 9000,
        mode: tunnel_mode,
        family,
        serves: 1,
        ..Endpoint::zeroed()
    };
    tables.fars[1] = Far {
        address: to,
        source,
    };
    let mut host = host::Host::default();
    host.tables = Some(tables);
    host.small_rings = [(0, vec![Slot::steady(1); 256])].into();
    host
}

proptest! {
    #[test]
    fn what_the_balancer_wraps_comes_out_as_it_went_in(
        inner_v6: bool,
        outer_v6: bool,
        gue: bool,
        tags in 0usize..3,
        class: u8,
        ttl in 2u8..,
        port: u16,
        payload in 0usize..1400,
    ) {
        let (from, to) = if inner_v6 {
            ("[2001:db8::9]:", "[2001:db8::10]:80")
        } else {
            ("203.0.113.9:", "198.51.100.10:80")
        };
        let from: SocketAddr = (String::from(from) + &std::format!("{port}")).parse().unwrap();
        let tags: Vec<u16> = [0x88a8, 0x8100][2 - tags..].to_vec();
        let mut plan = Plan::tcp(from, to.parse().unwrap()).tagged(&tags);
        plan.payload = payload;
        let with = |ttl: u8| {
            let (mut frame, at) = (plan.bytes(), plan.network());
            if inner_v6 {
                frame[at] |= class >> 4;
                frame[at + 1] |= class << 4;
                frame[at + 7] = ttl;
            } else {
                frame[at + 1] = class;
                frame[at + 8] = ttl;
                ipv4_checksum(&mut frame, at);
            }
            frame
        };
        let way = if gue { mode::GUE } else { mode::IPIP };
        let balancer = balancer(&plan, outer_v6, way);
        let mut frame = Frame::new(&with(ttl), 1);
        prop_assert_eq!(
            decide::process(&mut frame, &balancer),
            crate::verdict::Verdict::Transmit
        );
        prop_assert!(frame.bytes.len() > with(ttl).len());
        let backend = backend();
        prop_assert_eq!(process(&mut frame, &backend), Verdict::Unwrapped);
        prop_assert_eq!(&frame.bytes[12..], &with(ttl - 1)[12..]);
    }
}
