//! What becomes of a packet, and why.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::flows;

/// The most packets that are explained at once.
pub const MOST: usize = 10_000;
/// The longest packet that is explained, in bytes.
pub const LONGEST: u16 = 16_384;

/// `POST /v1/explain`: what would become of these packets?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The packets, at most [`MOST`].
    pub packets: Vec<Packet>,
    /// The interface that they come in by; the first configured one where none is named.
    pub interface: Option<String>,
}

/// A packet, as far as its way depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// What it carries.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it is addressed to.
    pub destination: IpAddr,
    /// The ports it comes from and is addressed to; absent from `icmp`.
    pub ports: Option<[u16; 2]>,
    /// The flags of a TCP segment.
    #[serde(default)]
    pub flags: Vec<Flag>,
    /// The length of the IP packet in bytes, at most [`LONGEST`]; as short as can be where it is not
    /// given.
    #[serde(default)]
    pub length: Option<u16>,
    /// VLAN tags, at most two, the outer one first.
    #[serde(default)]
    pub vlans: Vec<u16>,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An ICMP echo request, of the addresses' family.
    Icmp,
}

/// A flag of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flag {
    /// It opens the connection.
    Syn,
    /// It acknowledges.
    Ack,
    /// It ends its direction.
    Fin,
    /// It breaks the connection off.
    Rst,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syn => "SYN",
            Self::Ack => "ACK",
            Self::Fin => "FIN",
            Self::Rst => "RST",
        })
    }
}

impl Packet {
    /// Whether it opens a TCP connection.
    #[must_use]
    pub fn opens(&self) -> bool {
        self.flags.contains(&Flag::Syn) && !self.flags.contains(&Flag::Ack)
    }
}

impl FromStr for Packet {
    type Err = String;

    /// Reads `tcp 203.0.113.9:51000 -> 198.51.100.10:80`, with IPv6 addresses in brackets, or
    /// `icmp 203.0.113.9 -> 198.51.100.10`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("'{text}': {what}, as in 'tcp 203.0.113.9:51000 -> 198.51.100.10:80'")
        };
        let (protocol, ends) = text
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(|| wrong("a protocol and two ends are needed"))?;
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" | "icmpv6" | "ping" => Protocol::Icmp,
            _ => return Err(wrong("the protocol is tcp, udp or icmp")),
        };
        let (source, destination) = ends
            .split_once("->")
            .ok_or_else(|| wrong("'->' stands between the two ends"))?;
        let (source, destination) = (source.trim(), destination.trim());
        let (ends, ports) = if protocol == Protocol::Icmp {
            let end = |text: &str| {
                text.trim_matches(['[', ']'])
                    .parse::<IpAddr>()
                    .map_err(|_| wrong(&format!("'{text}' is no address (icmp has no ports)")))
            };
            ([end(source)?, end(destination)?], None)
        } else {
            let end = |text: &str| {
                text.parse::<SocketAddr>().map_err(|_| {
                    wrong(&format!(
                        "'{text}' is no address with a port (IPv6 addresses stand in brackets)"
                    ))
                })
            };
            let (source, destination) = (end(source)?, end(destination)?);
            (
                [source.ip(), destination.ip()],
                Some([source.port(), destination.port()]),
            )
        };
        let [source, destination] = ends;
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(wrong("both ends are of one family"));
        }
        Ok(Self {
            protocol,
            source,
            destination,
            ports,
            flags: Vec::new(),
            length: None,
            vlans: Vec::new(),
        })
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            source,
            destination,
            ..
        } = self;
        match self.ports {
            Some([from, to]) => {
                let (from, to) = (
                    SocketAddr::new(*source, from),
                    SocketAddr::new(*destination, to),
                );
                write!(f, "{protocol} {from} -> {to}")?;
            }
            None => write!(f, "{protocol} {source} -> {destination}")?,
        }
        for (n, flag) in self.flags.iter().enumerate() {
            let before = if n == 0 { " " } else { "+" };
            write!(f, "{before}{flag}")?;
        }
        for vlan in &self.vlans {
            write!(f, " vlan {vlan}")?;
        }
        Ok(())
    }
}

/// What would become of packets, in the order in which they were asked about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanations {
    /// One for each.
    pub explanations: Vec<Explanation>,
}

/// What would become of a packet now, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet.
    pub packet: Packet,
    /// The interface that it would come in by.
    pub interface: String,
    /// Whether it would get what it is for: sent to a backend or a client, or answered.
    pub forwarded: bool,
    /// `transmit` (out by the interface it came in by), `redirect` (by another), `pass` (to the
    /// host's own stack) or `drop`.
    pub verdict: String,
    /// The reason that would be counted: why it would not be sent, or who would answer.
    pub reason: Option<String>,
    /// The generation of the tables.
    pub generation: u64,
    /// The service that it belongs to; absent where that is none.
    pub service: Option<String>,
    /// How that service's packets reach its backends.
    pub mode: Option<String>,
    /// The part of its hash that picks its slot, in hexadecimal digits; absent where no slot was
    /// looked up.
    pub hash: Option<String>,
    /// Its slot; absent where none was looked up.
    pub slot: Option<Slot>,
    /// What is remembered of its flow; absent where nothing is.
    pub flow: Option<flows::Flow>,
    /// The backend that it would be sent to, or that it comes from.
    pub backend: Option<Backend>,
    /// The packet that would leave; absent where none would.
    pub sent: Option<Sent>,
    /// Why, step by step, in words.
    pub why: Vec<String>,
    /// Whether the kernel's program and this process, by the tables that it read back, come to the
    /// same. Everything else here is the kernel's answer.
    pub agree: bool,
    /// Where they differ.
    pub differences: Vec<String>,
}

/// A slot of a service's ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Which, from zero on.
    pub number: u32,
    /// How many the ring has.
    pub of: u32,
    /// The backend that new flows go to; a number where it is not configured any more.
    pub owner: String,
    /// `steady`, `transition` (flows that are not remembered are still `prior`'s) or `pinned` (they
    /// are the owner's, and remembered ones stay where they are).
    pub state: String,
    /// See `state`.
    pub prior: Option<String>,
}

/// A backend of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name; a number where it is not configured any more.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// As in the status: `up`, `down`, `unknown` or `unchecked`; absent where it is not configured
    /// any more.
    pub health: Option<String>,
    /// Why it is not in the ring; absent where it is.
    pub out_of_ring: Option<String>,
}

/// A packet that leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// By which interface.
    pub interface: String,
    /// The MAC address that it goes to.
    pub mac: String,
    /// The MAC address that it comes from.
    pub from_mac: String,
    /// Its source, with the port where there is one.
    pub source: String,
    /// Its destination, likewise.
    pub destination: String,
    /// The packet that it travels in, in a tunnel.
    pub outer: Option<Outer>,
    /// The length of the IP packet that leaves, in bytes.
    pub length: u32,
    /// How long one may be that leaves there for a backend; absent where that is not asked.
    pub mtu: Option<u16>,
}

/// The packet that another one travels in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outer {
    /// Where it comes from, with the UDP port in mode `gue`.
    pub source: String,
    /// Where it is addressed to, likewise.
    pub destination: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_are_written() {
        for text in [
            "tcp 203.0.113.9:51000 -> 198.51.100.10:80",
            "udp [2001:db8::9]:51000 -> [2001:db8::10]:53",
            "icmp 203.0.113.9 -> 198.51.100.10",
            "icmp 2001:db8::9 -> 2001:db8::10",
        ] {
            let packet: Packet = text.parse().unwrap();
            assert_eq!(packet.to_string(), text);
        }
        let written = "TCP  203.0.113.9:1->198.51.100.10:2 ";
        let packet: Packet = written.parse().unwrap();
        assert_eq!(packet.to_string(), "tcp 203.0.113.9:1 -> 198.51.100.10:2");
    }

    #[test]
    fn what_is_no_packet_is_told_with_an_example() {
        for (text, told) in [
            ("tcp", "a protocol and two ends"),
            ("sctp 1.2.3.4:5 -> 1.2.3.4:6", "tcp, udp or icmp"),
            ("tcp 1.2.3.4:5 1.2.3.4:6", "'->'"),
            ("tcp 1.2.3.4 -> 1.2.3.4:6", "no address with a port"),
            ("tcp 2001:db8::1:5 -> [2001:db8::1]:6", "brackets"),
            ("icmp 1.2.3.4:5 -> 1.2.3.4", "no ports"),
            ("udp 1.2.3.4:5 -> [2001:db8::1]:6", "one family"),
        ] {
            let error = text.parse::<Packet>().unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
            assert!(error.contains("as in 'tcp "), "{error}");
        }
    }
}
