//! Rules about the host.

use super::super::{
    facts::{Facts, PinsPlace},
    finding::{Finding, Level, Remedy},
};
use crate::dataplane::requirements::{self, LEAST, Release};

const PLACE: &str = "host";

/// Who may not load programs is not shown what others have loaded either.
pub(super) fn privilege(facts: &Facts) -> Option<Finding> {
    (!facts.host.privileged).then(|| {
        Finding::new(
            Level::Warning,
            "privilege",
            PLACE,
            "not run as root",
            "the kernel does not tell everything, and 'evenkeel run' could not attach",
            Remedy::words("run it with sudo"),
        )
    })
}

/// The kernel's version decides what it can do for XDP.
pub(super) fn kernel(facts: &Facts) -> Option<Finding> {
    let release = &facts.host.release;
    Release::parse(release)?;
    let what = format!("kernel {release}");
    Some(match requirements::judge(release) {
        Err(too_old) => Finding::new(
            Level::Error,
            "kernel",
            PLACE,
            what,
            too_old.lacks(),
            Remedy::words(format!("boot Linux {LEAST} or later")),
        ),
        Ok(()) => Finding::ok("kernel", PLACE, what),
    })
}

/// An interpreted program costs several times as much.
pub(super) fn jit(facts: &Facts) -> Option<Finding> {
    Some(match facts.host.jit? {
        0 => Finding::new(
            Level::Warning,
            "jit",
            PLACE,
            "BPF programs are interpreted",
            "each packet costs several times as much as by compiled code",
            Remedy::command(
                "switch the compiler on, in /etc/sysctl.d too",
                ["sysctl", "-w", "net.core.bpf_jit_enable=1"],
            ),
        ),
        _ => Finding::ok("jit", PLACE, "BPF programs are compiled"),
    })
}

/// Pins live in a BPF file system alone.
#[expect(
    clippy::unnecessary_wraps,
    reason = "rules have one form, and most are silent at times"
)]
pub(super) fn bpffs(facts: &Facts) -> Option<Finding> {
    let pins = facts.plan.pins.display();
    Some(match facts.host.pins {
        PinsPlace::Bpffs => Finding::ok("bpffs", PLACE, format!("{pins} is in a BPF file system")),
        PinsPlace::Mountable => Finding::new(
            Level::Info,
            "bpffs",
            PLACE,
            format!("no BPF file system is mounted for {pins}"),
            "'evenkeel run' mounts one",
            Remedy::default(),
        ),
        PinsPlace::Elsewhere => Finding::new(
            Level::Error,
            "bpffs",
            PLACE,
            format!("{pins} is not in a BPF file system"),
            "the data plane outlives the controller by what is pinned there",
            Remedy::command(
                "mount one, or set data_plane.pins to a folder in one",
                ["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"],
            ),
        ),
    })
}
