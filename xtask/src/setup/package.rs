//! What the Debian package is made and tested with.

use evenkeel_tests::tools;
use serde_json::Value;

use super::{Missing, debian, installed_crates};
use crate::steps::Step;

/// The version of cargo-deb.
const CARGO_DEB: &str = "3.8.0";

/// Program, Debian package, purpose.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("strip", "binutils", "a package without debugging symbols"),
    (
        "dpkg-shlibdeps",
        "dpkg-dev",
        "the libraries that the package needs",
    ),
    (
        "systemd-analyze",
        "systemd",
        "the packaged service, in a machine of its own",
    ),
    ("kill", "procps", "the packaged service's reload"),
];

/// Notes what is not there.
pub(super) fn look(missing: &mut Missing) {
    for (program, package, why) in PROGRAMS {
        let elsewhere = program == "dpkg-shlibdeps" && !debian::is_here();
        if tools::find(program).is_none() && !elsewhere {
            missing.needs(package, why);
        }
    }
    let installed = tools::workspace_tools().join("bin/cargo-deb").is_file();
    if !installed || !records_cargo_deb(&installed_crates()) {
        missing.afterwards.push(install_cargo_deb());
    }
}

/// Whether cargo's records of what it has installed name the right version.
fn records_cargo_deb(records: &Value) -> bool {
    let installs = records["installs"].as_object();
    let mut names = installs.into_iter().flatten().map(|(name, _)| name);
    names.any(|name| name.starts_with(&format!("cargo-deb {CARGO_DEB} ")))
}

/// Builds it into `target/tools`, beside the BPF linker.
fn install_cargo_deb() -> Step {
    let mut step = Step::new(
        "a maker of Debian packages, kept in target/tools",
        "see cargo's message above; it needs the crates' registry",
        [
            "cargo",
            "install",
            "cargo-deb",
            "--version",
            CARGO_DEB,
            "--locked",
            "--force",
            "--root",
        ],
    );
    step.words
        .push(tools::workspace_tools().display().to_string());
    step
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cargo_deb_counts_with_its_version() {
        let records = |name: &str| json!({ "installs": { name: {} } });
        assert!(records_cargo_deb(&records("cargo-deb 3.8.0 (registry)")));
        assert!(!records_cargo_deb(&records("cargo-deb 3.7.0 (registry)")));
        assert!(!records_cargo_deb(&records("bpf-linker 3.8.0 (registry)")));
        assert!(!records_cargo_deb(&Value::Null));
    }
}
