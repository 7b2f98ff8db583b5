//! ICMP echo requests of probes.
//!
//! The kernel's ping sockets are taken where this process may have them
//! (`net.ipv4.ping_group_range`), and raw sockets else.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, Ipv4Slice};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::{Deadline, Evidence, Phase, ProbeFailure, Subject};

/// What stands behind the header.
const PAYLOAD: &[u8] = b"evenkeel health check";

/// Sends an echo request and waits for the answer.
pub(super) async fn ask(subject: &Subject, deadline: Deadline) -> Result<Evidence, ProbeFailure> {
    let local =
        |error: io::Error| ProbeFailure::Local(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let (socket, kind) = open(subject.address).map_err(local)?;
    let answered = |error: io::Error| ProbeFailure::of_io(&error, Phase::Waiting);
    if let Some(source) = subject.check.source
        && source.is_ipv4() == subject.address.is_ipv4()
    {
        let from = SocketAddr::new(source, 0).into();
        SockRef::from(&socket).bind(&from).map_err(local)?;
    }
    let to = SocketAddr::new(subject.address, 0).into();
    SockRef::from(&socket).connect(&to).map_err(answered)?;
    let echo = IcmpEchoHeader {
        id: rand::random(),
        seq: rand::random(),
    };
    let exchange = async {
        socket
            .send(&request(subject.address, echo))
            .await
            .map_err(answered)?;
        let mut answer = [0; 512];
        loop {
            let length = socket.recv(&mut answer).await.map_err(answered)?;
            if is_answer(&answer[..length], subject.address, kind, echo) {
                return Ok(Evidence::Answered);
            }
        }
    };
    deadline.bound(Phase::Waiting, exchange).await
}

/// Which kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The kernel puts its own identifier in, and tells answers to others apart.
    Ping,
    /// All messages from the address come, of IPv4 with their IP headers.
    Raw,
}

/// A socket of tokio's: for what is sent and received, it is like one of UDP.
fn open(address: IpAddr) -> io::Result<(UdpSocket, Kind)> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let (socket, kind) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, Kind::Ping),
        Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, Kind::Raw),
    };
    socket.set_nonblocking(true)?;
    Ok((UdpSocket::from_std(socket.into())?, kind))
}

fn request(to: IpAddr, echo: IcmpEchoHeader) -> Vec<u8> {
    let header = match to {
        IpAddr::V4(_) => Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), PAYLOAD)
            .to_bytes()
            .to_vec(),
        // The kernel writes the checksum, which covers addresses that it chooses.
        IpAddr::V6(_) => Icmpv6Header::new(Icmpv6Type::EchoRequest(echo))
            .to_bytes()
            .to_vec(),
    };
    [&header[..], PAYLOAD].concat()
}

/// Whether a message answers the request.
fn is_answer(message: &[u8], from: IpAddr, kind: Kind, echo: IcmpEchoHeader) -> bool {
    let same = |found: IcmpEchoHeader| {
        found.seq == echo.seq && (kind == Kind::Ping || found.id == echo.id)
    };
    match from {
        IpAddr::V4(_) => {
            let message = match kind {
                Kind::Ping => message,
                Kind::Raw => match Ipv4Slice::from_slice(message) {
                    Ok(packet) => packet.payload().payload,
                    Err(_) => return false,
                },
            };
            matches!(
                Icmpv4Header::from_slice(message),
                Ok((Icmpv4Header { icmp_type: Icmpv4Type::EchoReply(found), .. }, _)) if same(found)
            )
        }
        IpAddr::V6(_) => matches!(
            Icmpv6Header::from_slice(message),
            Ok((Icmpv6Header { icmp_type: Icmpv6Type::EchoReply(found), .. }, _)) if same(found)
        ),
    }
}
