//! Finding an interface, and saying why an attachment failed.

use std::io;

use aya::programs::ProgramError;

use super::error::Error;
use crate::{causes::with_causes, model::XdpMode};

/// The index of an interface.
pub(super) fn interface_index(name: &str) -> Result<u32, Error> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::DGRAM,
        None,
    )
    .map_err(|e| Error::Io {
        action: "open a socket to look up an interface",
        source: e.into(),
    })?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .map_err(|_| Error::NoInterface(name.to_owned()))
}

/// The system's error number at the root of aya's error.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        next = error.source();
    }
    None
}

/// Why the program was not attached, and what to do.
pub(super) fn remedy(error: &ProgramError, mode: XdpMode) -> String {
    match os_error(error) {
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program is attached ('ip link show' tells \
             its id): detach it ('ip link set dev … xdp off'), or unload the software it belongs to"
                .to_owned()
        }
        Some(libc::EOPNOTSUPP) if mode == XdpMode::Native => "the driver has no native XDP: use \
             another interface, or set data_plane.xdp_mode = \"generic\", which is several times \
             slower"
            .to_owned(),
        Some(libc::EINVAL | libc::ERANGE) if mode == XdpMode::Native => format!(
            "{}; the driver refuses native XDP in its present setting: try a smaller MTU, fewer \
             queues, or LRO off",
            with_causes(error)
        ),
        Some(libc::EPERM | libc::EACCES) => "not permitted: run as root".to_owned(),
        _ => with_causes(error),
    }
}
