//! The smallest XDP program, for the far end of a veth pair.
//!
//! A frame that XDP sends back out of one end of a veth pair (`XDP_TX`) arrives only if the other
//! end has an XDP program too. Two instructions are enough, so they are handed to the kernel as
//! they are, with neither a compiler nor an object file: `bpf(2)` has no friendlier door for that.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// The commands of `bpf(2)` that are used here (`enum bpf_cmd` of `linux/bpf.h`).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
/// `BPF_PROG_TYPE_XDP`.
const PROG_TYPE_XDP: u32 = 6;
/// `BPF_XDP`, an attach type.
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_DRV_MODE`: the driver's own hook, or an error.
const DRIVER_MODE: u32 = 1 << 2;

/// `BPF_F_XDP_HAS_FRAGS`: it does not mind frames in several buffers, as large MTUs make them.
const HAS_FRAGS: u32 = 1 << 5;

/// `r0 = 2 (XDP_PASS); exit`, as `struct bpf_insn` lays them out.
static PROGRAM: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest for zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// An attached program that passes every frame; it detaches on drop.
///
/// Needs Linux 5.18 (XDP on frames in several buffers).
#[derive(Debug)]
pub struct XdpPass {
    _link: OwnedFd,
}

impl XdpPass {
    /// Attaches it to an interface of a namespace, in native mode.
    ///
    /// # Errors
    ///
    /// Where there is no such interface, or its driver or the kernel refuses.
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::attach_with(namespace, interface, HAS_FRAGS)
    }

    /// Attaches one that takes frames in one buffer only.
    ///
    /// # Errors
    ///
    /// As [`XdpPass::attach`], and where the MTU is more than fits into one buffer.
    pub fn attach_for_one_buffer(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::attach_with(namespace, interface, 0)
    }

    fn attach_with(namespace: &Namespace, interface: &str, prog_flags: u32) -> Result<Self> {
        let attach = || -> Result<OwnedFd> {
            let index = rustix::net::netdevice::name_to_index(socket()?, interface)
                .with_context(|| format!("no interface {interface}"))?;
            let load = ProgLoad {
                prog_type: PROG_TYPE_XDP,
                insn_cnt: PROGRAM.len() as u32,
                insns: PROGRAM.as_ptr() as u64,
                license: c"GPL".as_ptr() as u64,
                log_level: 0,
                log_size: 0,
                log_buf: 0,
                kern_version: 0,
                prog_flags,
            };
            let program = bpf(BPF_PROG_LOAD, &load).context("cannot load an XDP program")?;
            let link = LinkCreate {
                prog_fd: program.as_raw_fd() as u32,
                target_ifindex: index,
                attach_type: ATTACH_XDP,
                flags: DRIVER_MODE,
            };
            bpf(BPF_LINK_CREATE, &link)
                .with_context(|| format!("cannot attach native XDP to {interface}"))
        };
        let link = namespace
            .inside(attach)?
            .with_context(|| format!("in {}", namespace.name()))?;
        Ok(Self { _link: link })
    }
}

/// A socket to ask for interfaces with.
fn socket() -> rustix::io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketType};
    rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)
}

/// Calls `bpf(2)` with a command that answers a file descriptor.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is a `repr(C)` prefix of `union bpf_attr` without padding, of the length
    // given; the kernel only reads it. The pointers in it are to statics.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands answer a new file descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
