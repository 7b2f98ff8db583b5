//! The programs that tests and demonstration start.

use std::fs;

use evenkeel_tests::tools;

use super::{Missing, debian};
use crate::steps::Step;

/// Program, Debian package, purpose.
const PROGRAMS: [(&str, &str, &str); 12] = [
    ("ip", "iproute2", "network namespaces and veth pairs"),
    ("ethtool", "ethtool", "checksum offload of veth pairs"),
    (
        "nsenter",
        "util-linux",
        "commands inside network namespaces",
    ),
    ("curl", "curl", "single requests"),
    ("python3", "python3", "the traffic client"),
    ("wrk", "wrk", "floods of requests"),
    ("iperf3", "iperf3", "bulk data"),
    (
        "ping",
        "iputils-ping",
        "fragments and echoes for the host itself",
    ),
    ("openssl", "openssl", "a server with certificates"),
    ("tshark", "tshark", "another reader of captures"),
    ("cc", "gcc", "a linker for host programs"),
    ("dpkg-deb", "dpkg", "unpacking a private nginx"),
];

/// The same for the tests on other kernels.
const FOR_KERNELS: [(&str, &str, &str); 6] = [
    (
        "qemu-system-x86_64",
        "qemu-system-x86",
        "emulation of machines with other kernels",
    ),
    ("busybox", "busybox-static", "the first programs of a guest"),
    ("cpio", "cpio", "a guest's first file system"),
    ("modprobe", "kmod", "the order of a kernel's modules"),
    ("xz", "xz-utils", "modules that are compressed"),
    ("tar", "tar", "unpacking kernels"),
];

/// Notes the programs that are not there and that tests on other kernels take.
pub(super) fn look_for_kernels(missing: &mut Missing) {
    for (program, package, why) in FOR_KERNELS {
        if tools::find(program).is_none() {
            missing.needs(package, why);
        }
    }
    // Kin of Debian do not have them.
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if fs::metadata(keys).is_err() {
        missing.needs(
            "debian-archive-keyring",
            "the keys that the kernels' packages are signed with",
        );
    }
}

/// Notes the programs that are not there.
pub(super) fn look(missing: &mut Missing) {
    for (program, package, why) in PROGRAMS {
        let elsewhere = program == "dpkg-deb" && !debian::is_here();
        if tools::find(program).is_none() && !elsewhere {
            missing.needs(package, why);
        }
    }
    // Without recommended packages, the compiler comes without it.
    if fs::metadata("/usr/include/stdio.h").is_err() {
        missing.needs(
            "libc6-dev",
            "the C library that host programs are linked to",
        );
    }
    if tools::find("nginx").is_none() {
        if debian::is_here() {
            missing.afterwards.push(unpack_nginx());
        } else {
            missing.needs(
                "nginx",
                "the backends' web server; its service need not run",
            );
        }
    }
    // Not unpacked like nginx: Debian's looks for its templates under /usr/share, wherever it is.
    if tools::find("prometheus-alertmanager").is_none() {
        missing.needs(
            "prometheus-alertmanager",
            "a receiver of notifications; its service need not run",
        );
    }
    for (program, package) in [
        ("chromium", "chromium"),
        ("chromedriver", "chromium-driver"),
    ] {
        if tools::find(program).is_none() {
            missing.needs(package, "a browser that looks at the controller's page");
        }
    }
    for program in ["prometheus", "promtool"] {
        if tools::find(program).is_none() {
            let why = "what collects metrics, and checks its rules; its service need not run";
            missing.needs("prometheus", why);
        }
    }
}

/// Unpacks Debian's nginx into `target/tools/nginx` without installing it.
///
/// Its libraries (PCRE2, OpenSSL, zlib) come with curl and the base system.
fn unpack_nginx() -> Step {
    // The program is in `nginx` on Debian 12 and later, in `nginx-core` before.
    unpack("nginx", "the backends", "nginx nginx-core", "nginx -v")
}

/// Unpacks the first of some packages that has a program, without installing it.
///
/// Installing it would start the host's own service now and at every boot.
fn unpack(folder: &str, purpose: &str, packages: &str, check: &str) -> Step {
    let place = tools::workspace_tools().join(folder);
    let program = check.split_whitespace().next().unwrap_or_default();
    let script = format!(
        "mkdir -p {place} && cd {place} && \
         for package in {packages}; do \
         apt-get download -q $package && dpkg-deb -x ${{package}}_*.deb . && rm ${{package}}_*.deb; \
         if [ -x usr/sbin/{program} ] || [ -x usr/bin/{program} ]; then break; fi; done && \
         PATH=\"$PWD/usr/sbin:$PWD/usr/bin:$PATH\" {check}",
        place = place.display()
    );
    Step::new(
        format!("{program} for {purpose}, unpacked and not installed, so that no service starts"),
        format!("install a package that has `{program}` on the PATH yourself"),
        ["sh", "-c", &script],
    )
}
