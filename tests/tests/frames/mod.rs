//! Frames from etherparse's headers: none of the code under test has a part in them.

#![allow(
    dead_code,
    reason = "each test that includes this module uses a part of it"
)]

pub(crate) mod icmp;

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header,
    TcpHeader, UdpHeader,
};

/// `EtherType` of a customer's VLAN tag.
pub(crate) const VLAN: u16 = 0x8100;
/// `EtherType` of a service's VLAN tag.
pub(crate) const SERVICE_VLAN: u16 = 0x88a8;
/// TCP's flags.
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// What an IP packet carries.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// TCP with these flags.
    Tcp(u8),
    /// UDP, with a checksum.
    Udp,
    /// UDP without.
    UdpUnchecked,
    /// Another protocol: the payload is all there is.
    Other(u8),
}

/// A frame, part by part: public, to be changed by whoever wants another one.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// The destination's MAC address, then the source's.
    pub(crate) macs: [u8; 12],
    /// `EtherType` and identifier of each VLAN tag, the outer first.
    pub(crate) tags: Vec<(u16, u16)>,
    /// Where it comes from.
    pub(crate) source: SocketAddr,
    /// Where it goes.
    pub(crate) destination: SocketAddr,
    /// `DSCP` and ECN.
    pub(crate) class: u8,
    /// Time to live, or hop limit.
    pub(crate) hops: u8,
    /// IPv4's identification.
    pub(crate) id: u16,
    /// IPv4's 'do not fragment'.
    pub(crate) whole: bool,
    /// IPv4's options, in whole words.
    pub(crate) options: Vec<u8>,
    /// IPv6's flow label.
    pub(crate) label: u32,
    /// Behind IPv6's header, each with its number; its first byte is made the next one's.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// TCP's sequence number.
    pub(crate) sequence: u32,
    /// What it carries.
    pub(crate) body: Body,
    /// What that carries.
    pub(crate) payload: Vec<u8>,
    /// The Ethernet frame's padding.
    pub(crate) padding: usize,
}

/// An address with a port.
pub(crate) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

impl Packet {
    /// A segment of an established connection.
    pub(crate) fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            macs: *b"\x02\0\0\0\0\xfe\x02\0\0\0\0\xfd",
            tags: Vec::new(),
            source,
            destination,
            class: 0,
            hops: 64,
            id: 0x1234,
            whole: true,
            options: Vec::new(),
            label: 0x54321,
            extensions: Vec::new(),
            sequence: 0x0102_0304,
            body: Body::Tcp(ACK),
            payload: b"Nothing is lost on the way.".to_vec(),
            padding: 0,
        }
    }

    /// A datagram.
    pub(crate) fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::tcp(source, destination).body(Body::Udp)
    }

    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub(crate) fn flags(self, flags: u8) -> Self {
        self.body(Body::Tcp(flags))
    }

    pub(crate) fn macs(mut self, destination: [u8; 6], source: [u8; 6]) -> Self {
        self.macs[..6].copy_from_slice(&destination);
        self.macs[6..].copy_from_slice(&source);
        self
    }

    pub(crate) fn tagged(mut self, tags: &[(u16, u16)]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    pub(crate) fn from(mut self, source: SocketAddr) -> Self {
        self.source = source;
        self
    }

    pub(crate) fn to(mut self, destination: SocketAddr) -> Self {
        self.destination = destination;
        self
    }

    pub(crate) fn class(mut self, class: u8) -> Self {
        self.class = class;
        self
    }

    pub(crate) fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    pub(crate) fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// A payload of so many bytes.
    pub(crate) fn filled(self, bytes: usize) -> Self {
        let payload: Vec<u8> = (0..bytes).map(|at| at as u8 ^ 0xa5).collect();
        self.payload(&payload)
    }

    pub(crate) fn padded(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }

    /// The same after one more hop.
    pub(crate) fn hop(self) -> Self {
        let hops = self.hops - 1;
        self.hops(hops)
    }

    fn protocol(&self) -> u8 {
        match self.body {
            Body::Tcp(_) => 6,
            Body::Udp | Body::UdpUnchecked => 17,
            Body::Other(protocol) => protocol,
        }
    }

    /// The transport header and what it carries.
    pub(crate) fn segment(&self) -> Vec<u8> {
        let (ports, payload) = (
            (self.source.port(), self.destination.port()),
            &self.payload[..],
        );
        let mut bytes = match (&self.body, self.source.ip(), self.destination.ip()) {
            (Body::Other(_), ..) => Vec::new(),
            (Body::Tcp(flags), from, to) => {
                let mut header = TcpHeader::new(ports.0, ports.1, self.sequence, 0xffff);
                header.acknowledgment_number = 0x0506_0708;
                (header.fin, header.syn) = (flags & 1 != 0, flags & 2 != 0);
                (header.rst, header.psh) = (flags & 4 != 0, flags & 8 != 0);
                (header.ack, header.urg) = (flags & 16 != 0, flags & 32 != 0);
                (header.ece, header.cwr) = (flags & 64 != 0, flags & 128 != 0);
                header.checksum = match (from, to) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
                    }
                    (IpAddr::V6(from), IpAddr::V6(to)) => {
                        header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
                    }
                    _ => panic!("no packet goes from {from} to {to}"),
                }
                .expect("a length");
                header.to_bytes().to_vec()
            }
            (Body::Udp | Body::UdpUnchecked, from, to) => {
                let mut header = UdpHeader {
                    source_port: ports.0,
                    destination_port: ports.1,
                    length: 8 + payload.len() as u16,
                    checksum: 0,
                };
                if matches!(self.body, Body::Udp) {
                    header.checksum = match (from, to) {
                        (IpAddr::V4(from), IpAddr::V4(to)) => {
                            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
                        }
                        (IpAddr::V6(from), IpAddr::V6(to)) => {
                            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
                        }
                        _ => panic!("no packet goes from {from} to {to}"),
                    }
                    .expect("a length");
                }
                header.to_bytes().to_vec()
            }
        };
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The IP packet.
    pub(crate) fn ip(&self) -> Vec<u8> {
        self.ip_with(&self.segment(), 0, false)
    }

    /// The IP header around a part of what the packet carries: so many bytes from its beginning
    /// (of IPv4: the fragment's offset), with more to follow or not.
    fn ip_with(&self, body: &[u8], offset: u16, more: bool) -> Vec<u8> {
        let mut bytes = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let options: Ipv4Options = self.options[..].try_into().expect("whole words");
                let mut header = Ipv4Header {
                    dscp: IpDscp::try_new(self.class >> 2).expect("six bits"),
                    ecn: IpEcn::try_new(self.class & 3).expect("two bits"),
                    total_len: (20 + self.options.len() + body.len()) as u16,
                    identification: self.id,
                    dont_fragment: self.whole,
                    more_fragments: more,
                    fragment_offset: IpFragOffset::try_new(offset / 8).expect("an offset"),
                    time_to_live: self.hops,
                    protocol: IpNumber(self.protocol()),
                    header_checksum: 0,
                    source: source.octets(),
                    destination: destination.octets(),
                    options,
                };
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut extensions = Vec::new();
                for (nth, (_, extension)) in self.extensions.iter().enumerate() {
                    let next = self.extensions.get(nth + 1).map(|(number, _)| *number);
                    extensions.push(next.unwrap_or_else(|| self.protocol()));
                    extensions.extend_from_slice(&extension[1..]);
                }
                let first = self.extensions.first().map(|(number, _)| *number);
                let header = Ipv6Header {
                    traffic_class: self.class,
                    flow_label: Ipv6FlowLabel::try_new(self.label).expect("twenty bits"),
                    payload_length: (extensions.len() + body.len()) as u16,
                    next_header: IpNumber(first.unwrap_or_else(|| self.protocol())),
                    hop_limit: self.hops,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                [&header.to_bytes()[..], &extensions].concat()
            }
            (source, destination) => panic!("no packet goes from {source} to {destination}"),
        };
        bytes.extend_from_slice(body);
        bytes
    }

    /// The frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.frame(&self.ip())
    }

    /// A fragment's frame: bytes `range` of what the packet carries, of which `range` begins at a
    /// multiple of eight. Over IPv6, with the fragment header (RFC 8200, section 4.5).
    pub(crate) fn fragment(&self, range: std::ops::Range<usize>, id: u32) -> Vec<u8> {
        let segment = self.segment();
        let (offset, more) = (range.start as u16, range.end < segment.len());
        let part = &segment[range];
        if self.source.is_ipv4() {
            let mut this = self.clone();
            (this.id, this.whole) = (id as u16, false);
            return this.frame(&this.ip_with(part, offset, more));
        }
        let mut this = self.clone();
        let mut header = vec![0, 0];
        header.extend((offset | u16::from(more)).to_be_bytes());
        header.extend(id.to_be_bytes());
        this.extensions.push((44, header));
        this.frame(&this.ip_with(part, 0, false))
    }

    /// An Ethernet frame around an IP packet.
    pub(crate) fn frame(&self, ip: &[u8]) -> Vec<u8> {
        let mut frame = self.macs.to_vec();
        for (ethertype, id) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        let ethertype: u16 = if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        frame.extend(ethertype.to_be_bytes());
        frame.extend_from_slice(ip);
        frame.resize(frame.len() + self.padding, 0);
        frame
    }
}
