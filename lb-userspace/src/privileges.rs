//! What the running controller and the running decapsulator may do, and what the programs that they
//! start may.
//!
//! Who is started as root could do anything; they need little of that. What they give up cannot be had
//! again by them, by their threads or by programs that they start.

use std::io;

use log::warn;
use rustix::{
    io::Errno,
    thread::{
        CapabilitiesSecureBits as SecureBits, CapabilitySet, CapabilitySets, capabilities,
        clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_capabilities_secure_bits, set_no_new_privs,
    },
};

/// What a controller at work needs.
///
/// - `SYS_ADMIN`: rings and tables are maps within maps, and the kernel opens an inner map by its
///   number for nobody else. A start that adopts and the comparison each ten seconds do that. The
///   packaged unit forbids the system calls of its other powers.
/// - `BPF`, `PERFMON`: to load programs and maps, also when a change asks for new ones.
/// - `NET_ADMIN`: to attach programs, to mark probes, to follow routes and neighbours.
/// - `NET_RAW`: probes by ICMP echo where the kernel's ping sockets are closed to it.
/// - `DAC_READ_SEARCH`: its file may lie in a home, and secrets may be another user's. The packaged
///   unit does without.
pub const CONTROLLER: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// What a decapsulator at work needs: its maps are opened by their pins, it probes nobody, and it reads
/// no file.
///
/// - `BPF`, `PERFMON`: to change its rules, and to load the program of an upgrade.
/// - `NET_ADMIN`: to attach it, and to follow the interfaces' addresses.
pub const DECAPSULATOR: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN);

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("give up privileges: {action}: {source}")]
pub struct Error {
    action: &'static str,
    #[source]
    source: io::Error,
}

fn failed(action: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error {
        action,
        source: errno.into(),
    }
}

/// Gives up all but what is named, for good. Programs started from then on get none at all, also where
/// they are root's or have the set-user-ID bit.
///
/// Of threads that are there already nothing is taken: call it before there is another.
///
/// # Errors
/// Where the kernel refuses, which it does to nobody for having too little.
pub fn give_up_all_but(needed: CapabilitySet) -> Result<(), Error> {
    set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    clear_ambient_capability_set().map_err(failed("clear the ambient set"))?;
    let had = capabilities(None).map_err(failed("look at capabilities"))?;
    if had.permitted.contains(CapabilitySet::SETPCAP) {
        seal()?;
    } else {
        warn!(
            "programs of probes and notifications keep capabilities of the controller's: it was \
             started without CAP_SETPCAP"
        );
    }
    let kept = had.permitted & needed;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(failed("drop capabilities"))
}

/// Takes everything from what is started later: being root's gives a program nothing any more.
fn seal() -> Result<(), Error> {
    let bits = SecureBits::NO_ROOT
        | SecureBits::NO_ROOT_LOCKED
        | SecureBits::NO_CAP_AMBIENT_RAISE
        | SecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).map_err(failed("set the secure bits"))?;
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match remove_capability_from_bounding_set(one) {
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            done => done.map_err(failed("empty the bounding set"))?,
        }
    }
    Ok(())
}
