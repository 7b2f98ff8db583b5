//! The programs that Evenkeel is compared with, and those that only the comparison takes.

use std::process::Command;

use evenkeel_tests::tools;

use super::{Missing, debian};
use crate::steps::Step;

/// Program, Debian package, purpose.
const PROGRAMS: [(&str, &str, &str); 2] = [
    ("nft", "nftables", "a peer in the end-to-end benchmark"),
    ("iperf3", "iperf3", "bulk data in the end-to-end benchmark"),
];

/// Notes the programs that are not there.
pub(super) fn look(missing: &mut Missing) {
    for (program, package, why) in PROGRAMS {
        if tools::find(program).is_none() {
            missing.needs(package, why);
        }
    }
    let haproxy = tools::find("haproxy");
    if !debian::is_here() {
        if haproxy.is_none() {
            let why = "a peer in the end-to-end benchmark; its service need not run";
            missing.needs("haproxy", why);
        }
        return;
    }
    let starts = |path| Command::new(path).arg("-v").output();
    if haproxy
        .as_ref()
        .is_some_and(|path| starts(path).is_ok_and(|o| o.status.success()))
    {
        return;
    }
    for library in debian::missing_libraries("haproxy") {
        missing.needs(library, "a library of HAProxy");
    }
    if haproxy.is_none() {
        missing.afterwards.push(unpack_haproxy());
    }
}

/// Unpacks Debian's `HAProxy` into `target/tools/haproxy` without installing it, which would start
/// its service now and at every boot.
fn unpack_haproxy() -> Step {
    let folder = tools::workspace_tools().join("haproxy");
    let script = format!(
        "mkdir -p {folder} && cd {folder} && apt-get download -q haproxy && \
         dpkg-deb -x haproxy_*.deb . && rm haproxy_*.deb && test -x usr/sbin/haproxy",
        folder = folder.display()
    );
    Step::new(
        "HAProxy to compare with, unpacked and not installed, so that no service starts",
        "install a package that has `haproxy` on the PATH yourself",
        ["sh", "-c", &script],
    )
}
