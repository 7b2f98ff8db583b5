//! Frames: made to be explained, and read once they were.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, IpHeaders, IpNumber, LaxNetSlice, LaxSlicedPacket, PacketBuilder, PacketBuilderStep,
    TransportSlice,
};

use crate::admin::proto::explain::{Flag, LONGEST, Outer, Packet, Protocol};

/// The hops that a packet may still take.
const HOPS: u8 = 64;
/// The source and destination of frames that nobody sends: no way depends on them.
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
/// Types of tags (IEEE 802.1Q): one alone or the inner one, and the outer of two.
const TAG: u16 = EtherType::VLAN_TAGGED_FRAME.0;
const OUTER_TAG: u16 = EtherType::PROVIDER_BRIDGING.0;

/// Makes a packet's frame.
///
/// # Errors
/// Where there is no such packet.
pub fn craft(packet: &Packet) -> Result<Vec<u8>, String> {
    let mut frame = MACS.to_vec();
    match packet.vlans[..] {
        [] => {}
        [tag] => put_tag(&mut frame, TAG, tag)?,
        [outer, inner] => {
            put_tag(&mut frame, OUTER_TAG, outer)?;
            put_tag(&mut frame, TAG, inner)?;
        }
        _ => return Err("a frame has at most two VLAN tags".to_owned()),
    }
    let (builder, ethertype) = match (packet.source, packet.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (
            PacketBuilder::ipv4(from.octets(), to.octets(), HOPS),
            EtherType::IPV4,
        ),
        (IpAddr::V6(from), IpAddr::V6(to)) => (
            PacketBuilder::ipv6(from.octets(), to.octets(), HOPS),
            EtherType::IPV6,
        ),
        _ => return Err("both ends of a packet are of one family".to_owned()),
    };
    frame.extend(ethertype.0.to_be_bytes());
    put_packet(&mut frame, builder, packet)?;
    Ok(frame)
}

fn put_tag(frame: &mut Vec<u8>, ethertype: u16, tag: u16) -> Result<(), String> {
    if tag > 4094 {
        return Err(format!(
            "{tag} is no VLAN: they are numbered from 0 to 4094"
        ));
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(tag.to_be_bytes());
    Ok(())
}

fn put_packet(
    frame: &mut Vec<u8>,
    builder: PacketBuilderStep<IpHeaders>,
    packet: &Packet,
) -> Result<(), String> {
    /// What follows the transport header.
    fn payload(length: Option<u16>, headers: usize) -> Result<Vec<u8>, String> {
        let length = length.map_or(headers, usize::from);
        if length > LONGEST.into() {
            return Err(format!("packets of up to {LONGEST} bytes are explained"));
        }
        let rest = length.checked_sub(headers);
        let rest = rest.ok_or_else(|| format!("its headers alone take {headers} bytes"))?;
        Ok(vec![0; rest])
    }
    let ports = || packet.ports.ok_or("it has no ports");
    let has = |flag| packet.flags.contains(&flag);
    let length = packet.length;
    let written = match packet.protocol {
        Protocol::Tcp => {
            let [from, to] = ports()?;
            let mut tcp = builder.tcp(from, to, 1, u16::MAX);
            if has(Flag::Syn) {
                tcp = tcp.syn();
            }
            if has(Flag::Ack) {
                tcp = tcp.ack(1);
            }
            if has(Flag::Fin) {
                tcp = tcp.fin();
            }
            if has(Flag::Rst) {
                tcp = tcp.rst();
            }
            let payload = payload(length, tcp.size(0))?;
            tcp.write(frame, &payload)
        }
        Protocol::Udp => {
            let [from, to] = ports()?;
            let udp = builder.udp(from, to);
            let payload = payload(length, udp.size(0))?;
            udp.write(frame, &payload)
        }
        Protocol::Icmp if packet.source.is_ipv4() => {
            let icmp = builder.icmpv4_echo_request(1, 1);
            let payload = payload(length, icmp.size(0))?;
            icmp.write(frame, &payload)
        }
        Protocol::Icmp => {
            let icmp = builder.icmpv6_echo_request(1, 1);
            let payload = payload(length, icmp.size(0))?;
            icmp.write(frame, &payload)
        }
    };
    written.map_err(|e| e.to_string())
}

/// What a frame says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The MAC address that it goes to.
    pub mac: [u8; 6],
    /// The MAC address that it comes from.
    pub from_mac: [u8; 6],
    /// The packet's source, with the port where there is one.
    pub source: String,
    /// Its destination, likewise.
    pub destination: String,
    /// The packet that it travels in.
    pub outer: Option<Outer>,
    /// The length of the outermost IP packet in bytes.
    pub length: u32,
}

/// Reads a frame; `None` where it is no IP packet. `gue` is the port by which tunnels in UDP are
/// recognised.
#[must_use]
pub fn read(frame: &[u8], gue: u16) -> Option<Read> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let length = frame.len() - before_network(frame, &packet)?;
    let ends = Ends::of(&packet)?;
    let inner = inner(&packet, gue).and_then(|inner| Ends::of(&inner));
    let (carried, outer) = match inner {
        Some(inner) => (
            inner,
            Some(Outer {
                source: ends.source,
                destination: ends.destination,
            }),
        ),
        None => (ends, None),
    };
    Some(Read {
        mac: frame.get(..6)?.try_into().ok()?,
        from_mac: frame.get(6..12)?.try_into().ok()?,
        source: carried.source,
        destination: carried.destination,
        outer,
        length: length as u32,
    })
}

/// Where the IP header begins.
fn before_network(frame: &[u8], packet: &LaxSlicedPacket<'_>) -> Option<usize> {
    let at = 14 + 4 * packet.vlan_ids().len();
    (frame.len() >= at).then_some(at)
}

struct Ends {
    source: String,
    destination: String,
}

impl Ends {
    fn of(packet: &LaxSlicedPacket<'_>) -> Option<Self> {
        let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref()? {
            LaxNetSlice::Ipv4(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            LaxNetSlice::Ipv6(ip) => (
                ip.header().source_addr().into(),
                ip.header().destination_addr().into(),
            ),
            LaxNetSlice::Arp(_) => return None,
        };
        let ports = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
            Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
            _ => None,
        };
        Some(match ports {
            Some((from, to)) => Self {
                source: SocketAddr::new(source, from).to_string(),
                destination: SocketAddr::new(destination, to).to_string(),
            },
            None => Self {
                source: source.to_string(),
                destination: destination.to_string(),
            },
        })
    }
}

/// The packet within a packet.
fn inner<'a>(packet: &LaxSlicedPacket<'a>, gue: u16) -> Option<LaxSlicedPacket<'a>> {
    let payload = match (&packet.net, &packet.transport) {
        (_, Some(TransportSlice::Udp(udp))) if udp.destination_port() == gue => udp.payload(),
        (Some(LaxNetSlice::Ipv4(ip)), None) if carries_ip(ip.payload().ip_number) => {
            ip.payload().payload
        }
        (Some(LaxNetSlice::Ipv6(ip)), None) if carries_ip(ip.payload().ip_number) => {
            ip.payload().payload
        }
        _ => return None,
    };
    LaxSlicedPacket::from_ip(payload).ok()
}

const fn carries_ip(number: IpNumber) -> bool {
    matches!(number, IpNumber::IPV4 | IpNumber::IPV6)
}

#[cfg(test)]
mod tests {
    use lb_common::{flow, host::Frame, wire::ethernet};

    use super::*;

    fn packet(text: &str) -> Packet {
        text.parse().unwrap()
    }

    #[test]
    fn a_frame_is_what_was_asked_for() {
        for text in [
            "tcp 203.0.113.9:51000 -> 198.51.100.10:80",
            "udp [2001:db8::9]:51000 -> [2001:db8::10]:53",
        ] {
            for vlans in [vec![], vec![7], vec![100, 7]] {
                let asked = Packet {
                    vlans,
                    length: Some(1000),
                    ..packet(text)
                };
                let frame = craft(&asked).unwrap();
                let frame = Frame::new(&frame, 1);
                let payload = ethernet::payload(&frame).unwrap();
                assert_eq!(payload.at, 14 + 4 * asked.vlans.len());
                let parsed = if payload.ethertype == ethernet::IPV4 {
                    flow::ipv4(&frame, payload.at)
                } else {
                    flow::ipv6(&frame, payload.at)
                }
                .unwrap_or_else(|reason| panic!("{reason:?}"));
                assert_eq!(parsed.flow.source_port(), 51000_u16.to_be());
                assert_eq!(parsed.end, frame.bytes.len());
                assert_eq!(parsed.end - payload.at, 1000);
                let read = read(&frame.bytes, 6080).unwrap();
                assert_eq!(read.source, text.split_whitespace().nth(1).unwrap());
                assert_eq!((read.length, read.outer), (1000, None));
            }
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        let tcp = packet("tcp 203.0.113.9:51000 -> 198.51.100.10:80");
        let wrong = [
            Packet {
                length: Some(39),
                ..tcp.clone()
            },
            Packet {
                length: Some(LONGEST + 1),
                ..tcp.clone()
            },
            Packet {
                vlans: vec![4095],
                ..tcp.clone()
            },
            Packet {
                vlans: vec![1, 2, 3],
                ..tcp.clone()
            },
            Packet { ports: None, ..tcp },
        ];
        for packet in wrong {
            assert!(craft(&packet).is_err(), "{packet:?}");
        }
    }

    #[test]
    fn packets_within_packets_are_read() {
        let inner = craft(&packet("tcp 203.0.113.9:51000 -> 198.51.100.10:80")).unwrap();
        let inner = &inner[14..];
        let mut ipip = MACS.to_vec();
        ipip.extend(EtherType::IPV6.0.to_be_bytes());
        let outer = PacketBuilder::ipv6([1; 16], [2; 16], HOPS);
        outer.write(&mut ipip, IpNumber::IPV4, inner).unwrap();
        let found = read(&ipip, 6080).unwrap();
        assert_eq!(found.destination, "198.51.100.10:80");
        assert_eq!(
            found.outer.unwrap().destination,
            "202:202:202:202:202:202:202:202"
        );
        let mut gue = MACS.to_vec();
        gue.extend(EtherType::IPV4.0.to_be_bytes());
        let outer = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], HOPS).udp(50000, 6080);
        outer.write(&mut gue, inner).unwrap();
        let found = read(&gue, 6080).unwrap();
        assert_eq!(found.source, "203.0.113.9:51000");
        assert_eq!(found.outer.unwrap().destination, "10.0.0.2:6080");
        assert_eq!(found.length as usize, 28 + inner.len());
        // On another port it is just a datagram.
        assert_eq!(read(&gue, 6081).unwrap().outer, None);
    }
}
