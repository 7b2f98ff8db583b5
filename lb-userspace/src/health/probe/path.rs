//! Which way a backend's probes take.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use super::Subject;
use crate::model::Via;

/// How the kernel takes a backend's probes along the way of its service's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steered {
    /// What the socket connects to; the kernel puts the VIP in its place.
    pub to: IpAddr,
    /// The socket's mark.
    pub mark: u32,
    /// The same for a first packet as large as a client's; `None` asks for none.
    pub large: Option<Large>,
    /// The largest TCP segment that fits into the tunnel; `None` where there is no tunnel.
    pub segment: Option<u16>,
}

/// A probe whose first packet is as large as a client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Large {
    /// The socket's mark.
    pub mark: u32,
    /// The IP packet's length in bytes.
    pub bytes: u16,
}

/// The way that a backend's probes take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// To the backend's own address, as configured.
    Direct,
    /// Along the way of traffic.
    Steered(Steered),
    /// To the backend's own address, because the way of traffic cannot be had.
    Instead(Arc<str>),
}

/// The ways of all backends that are to be probed along the way of traffic, by the names of
/// service and backend.
pub type Paths = BTreeMap<(Arc<str>, Arc<str>), Path>;

/// How long a probe waits for a way that is not known yet, as a part of its time-out.
const WAIT: u32 = 2;

/// The way of a backend's probes now.
///
/// One that is not known yet, because the kernel is still asked for the next hop, is waited for a
/// moment.
pub async fn of(subject: &Subject, paths: &mut watch::Receiver<Arc<Paths>>) -> Path {
    if subject.check.via == Via::Direct {
        return Path::Direct;
    }
    let key = (subject.service.clone(), subject.backend.clone());
    let known = paths.wait_for(|paths| paths.contains_key(&key));
    match timeout(subject.check.timeout / WAIT, known).await {
        Ok(Ok(paths)) => paths[&key].clone(),
        Ok(Err(_)) | Err(_) => Path::Instead("the way to the backend is not known yet".into()),
    }
}

/// A receiver of paths that never change, for probes that are not steered.
pub fn none() -> watch::Receiver<Arc<Paths>> {
    watch::channel(Arc::default()).1
}

/// The part of a time-out after which a probe whose large packet was not answered asks with a
/// small one as well.
pub(super) fn doubt(timeout: Duration) -> Duration {
    timeout / 2
}
