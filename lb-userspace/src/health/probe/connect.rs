//! The connections of probes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    pin::pin,
};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::sleep_until,
};

use super::{
    Deadline, Phase, ProbeFailure, Subject,
    path::{self, Large, Path, Steered},
};

/// Connects, with a socket that resets its connection when it is dropped. The last ACK of the
/// handshake goes with what follows: the request, or the reset.
///
/// On the way of traffic, the first packet is as large as a client's; see [`in_doubt`].
pub(super) async fn connect(
    subject: &Subject,
    path: &Path,
    deadline: Deadline,
) -> Result<TcpStream, ProbeFailure> {
    let Path::Steered(steered) = path else {
        let dial = dial(subject, None, None);
        return deadline.bound(Phase::Connecting, dial).await;
    };
    let Some(large) = steered.large else {
        let dial = dial(subject, Some(steered), None);
        return deadline.bound(Phase::Connecting, dial).await;
    };
    let first = dial(subject, Some(steered), Some(large));
    let second = dial(subject, Some(steered), None);
    in_doubt(first, second, large, Phase::Connecting, deadline).await
}

/// Asks with a large packet, and beside it with a small one where no answer comes for half of the
/// time-out. If the small one alone is answered, it is the size that does not get through.
pub(super) async fn in_doubt<T>(
    with_large: impl Future<Output = Result<T, ProbeFailure>>,
    with_small: impl Future<Output = Result<T, ProbeFailure>>,
    large: Large,
    phase: Phase,
    deadline: Deadline,
) -> Result<T, ProbeFailure> {
    let mut with_large = pin!(with_large);
    let doubt = deadline.at - deadline.limit + path::doubt(deadline.limit);
    tokio::select! {
        biased;
        answer = &mut with_large => return answer,
        () = sleep_until(doubt) => {}
    }
    let mut with_small = pin!(with_small);
    let mut small = None;
    loop {
        tokio::select! {
            biased;
            answer = &mut with_large => return answer,
            answer = &mut with_small, if small.is_none() => small = Some(answer.map(drop)),
            () = sleep_until(deadline.at) => break,
        }
    }
    Err(match small {
        Some(Ok(())) => ProbeFailure::TooLarge {
            bytes: large.bytes,
            limit: deadline.limit,
        },
        Some(Err(failure)) => failure,
        None => ProbeFailure::NoAnswer {
            limit: deadline.limit,
            phase,
        },
    })
}

async fn dial(
    subject: &Subject,
    steered: Option<&Steered>,
    large: Option<Large>,
) -> Result<TcpStream, ProbeFailure> {
    let to = steered.map_or(subject.address, |steered| steered.to);
    let socket = socket(subject, to, steered, large).map_err(|error| {
        // Nothing of the backend's has been asked yet.
        ProbeFailure::Local(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })?;
    socket
        .connect(SocketAddr::new(
            to,
            subject.check.port.map_or(0, NonZeroU16::get),
        ))
        .await
        .map_err(|error| ProbeFailure::of_io(&error, Phase::Connecting))
}

fn socket(
    subject: &Subject,
    to: IpAddr,
    steered: Option<&Steered>,
    large: Option<Large>,
) -> io::Result<TcpSocket> {
    let socket = match to {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_zero_linger()?;
    // One packet less, for which the server would have made a connection a moment before it can do
    // anything with it. Held back for 40 ms at most.
    rustix::net::sockopt::set_tcp_quickack(&socket, false)?;
    if let Some(steered) = steered {
        steer(&SockRef::from(&socket), steered, large)?;
        if let Some(segment) = steered.segment {
            SockRef::from(&socket).set_tcp_mss(u32::from(segment))?;
        }
    }
    if let Some(from) = from(subject, to, steered) {
        socket.bind(from)?;
    }
    Ok(socket)
}

/// Marks a socket for its way.
pub(super) fn steer(
    socket: &SockRef<'_>,
    steered: &Steered,
    large: Option<Large>,
) -> io::Result<()> {
    socket.set_mark(large.map_or(steered.mark, |large| large.mark))
}

/// What a socket is bound to, where it is.
///
/// A steered one has a port that no other socket has, bound or not: towards the VIP all backends
/// of a service are one, and the kernel, which sees their own addresses, would let two have the
/// same.
pub(super) fn from(subject: &Subject, to: IpAddr, steered: Option<&Steered>) -> Option<SocketAddr> {
    let configured = subject
        .check
        .source
        .filter(|source| source.is_ipv4() == to.is_ipv4());
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    match (configured, steered) {
        (Some(source), _) => Some(SocketAddr::new(source, 0)),
        (None, Some(_)) => Some(SocketAddr::new(any, 0)),
        (None, None) => None,
    }
}
