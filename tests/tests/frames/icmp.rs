//! Messages of ICMP and `ICMPv6`.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type};

use super::{Body, Packet};

/// A packet with a message between two addresses, of which one form or the other applies.
pub(crate) fn packet(
    from: IpAddr,
    to: IpAddr,
    v4: Icmpv4Type,
    v6: Icmpv6Type,
    payload: &[u8],
) -> Packet {
    let (protocol, header) = match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let header = Icmpv4Header::with_checksum(v4, payload);
            (1, header.to_bytes().to_vec())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Icmpv6Header::with_checksum(v6, from.octets(), to.octets(), payload);
            (58, header.expect("a length").to_bytes().to_vec())
        }
        _ => panic!("no packet goes from {from} to {to}"),
    };
    Packet::tcp(SocketAddr::new(from, 0), SocketAddr::new(to, 0))
        .body(Body::Other(protocol))
        .payload(&[&header, payload].concat())
}

/// An echo request, or its reply.
pub(crate) fn echo(request: bool, from: IpAddr, to: IpAddr, payload: &[u8]) -> Packet {
    let header = IcmpEchoHeader { id: 0x1234, seq: 7 };
    let (v4, v6) = if request {
        (
            Icmpv4Type::EchoRequest(header),
            Icmpv6Type::EchoRequest(header),
        )
    } else {
        (Icmpv4Type::EchoReply(header), Icmpv6Type::EchoReply(header))
    };
    packet(from, to, v4, v6, payload)
}
