//! Datagrams of probes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::UdpSocket;

use super::{
    Deadline, Evidence, Phase, ProbeFailure, Subject, connect,
    path::{Large, Path, Steered},
};
use crate::model::UdpProbe;

/// The longest answer that is looked at.
const LONGEST: usize = 4096;

/// Sends a datagram and waits for the answer.
///
/// One as large as a client's is sent first, where the way of traffic is taken; see
/// [`connect::connect`].
pub(super) async fn ask(
    probe: &UdpProbe,
    subject: &Subject,
    path: &Path,
    deadline: Deadline,
) -> Result<Evidence, ProbeFailure> {
    let Path::Steered(steered) = path else {
        let asked = exchange(probe, subject, None, None);
        return deadline.bound(Phase::Waiting, asked).await;
    };
    let Some(large) = steered.large else {
        let asked = exchange(probe, subject, Some(steered), None);
        return deadline.bound(Phase::Waiting, asked).await;
    };
    let whole = |large| exchange(probe, subject, Some(steered), large);
    connect::in_doubt(
        whole(Some(large)),
        whole(None),
        large,
        Phase::Waiting,
        deadline,
    )
    .await
}

async fn exchange(
    probe: &UdpProbe,
    subject: &Subject,
    steered: Option<&Steered>,
    large: Option<Large>,
) -> Result<Evidence, ProbeFailure> {
    let to = steered.map_or(subject.address, |steered| steered.to);
    let failed =
        |error: io::Error| ProbeFailure::Local(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let from = connect::from(subject, to, steered).unwrap_or(SocketAddr::new(any, 0));
    let socket = UdpSocket::bind(from).await.map_err(failed)?;
    if let Some(steered) = steered {
        connect::steer(&SockRef::from(&socket), steered, large).map_err(failed)?;
    }
    let answered = |error: io::Error| ProbeFailure::of_io(&error, Phase::Waiting);
    let port = subject.check.port.map_or(0, NonZeroU16::get);
    socket.connect((to, port)).await.map_err(answered)?;
    socket.send(&probe.send).await.map_err(answered)?;
    let mut answer = vec![0; LONGEST];
    let length = socket.recv(&mut answer).await.map_err(answered)?;
    let answer = &answer[..length];
    let fits = |wanted: &Vec<u8>| {
        wanted.is_empty()
            || answer
                .windows(wanted.len())
                .any(|part| part == wanted.as_slice())
    };
    if probe.expect.as_ref().is_none_or(fits) {
        Ok(Evidence::Answered)
    } else {
        let shown = &answer[..answer.len().min(40)];
        Err(ProbeFailure::Answer(shown.escape_ascii().to_string()))
    }
}
