//! Debian's packages.

use std::{collections::BTreeMap, path::Path, process::Command};

use evenkeel_tests::tools;

use super::Package;
use crate::steps::Step;

/// Whether this is Debian or one of its kin.
pub(super) fn is_here() -> bool {
    Path::new("/etc/debian_version").exists() && tools::find("apt-get").is_some()
}

/// The commands that install packages; none for none.
pub(super) fn install(packages: &[Package]) -> Vec<Step> {
    if packages.is_empty() {
        return Vec::new();
    }
    let why: Vec<_> = packages
        .iter()
        .map(|p| format!("{} ({})", p.name, p.why))
        .collect();
    let command = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "--yes",
    ];
    let names = packages.iter().map(|package| package.name.as_str());
    let words = command
        .into_iter()
        .chain(["--no-install-recommends"])
        .chain(names);
    vec![
        update(),
        Step::new(why.join(", "), REMEDY, words).privileged(),
    ]
}

const REMEDY: &str = "see apt's message above; it needs the network and root";

/// The command that brings today's lists of packages.
pub(super) fn update() -> Step {
    let words = ["apt-get", "update"];
    Step::new("today's lists of packages", REMEDY, words).privileged()
}

/// The versions that apt would install of these packages; absent ones are left out.
pub(super) fn candidates(packages: &[String]) -> BTreeMap<String, Version> {
    let mut policy = Command::new("apt-cache");
    policy.arg("policy").args(packages).env("LC_ALL", "C");
    parse_policy(&tools::output(&mut policy).unwrap_or_default())
}

fn parse_policy(text: &str) -> BTreeMap<String, Version> {
    let mut versions = BTreeMap::new();
    let mut package = "";
    for line in text.lines() {
        if let Some(candidate) = line.trim().strip_prefix("Candidate: ") {
            versions.extend(Version::parse(candidate).map(|v| (package.to_owned(), v)));
        } else if let Some(name) = line.strip_suffix(':')
            && !line.starts_with(' ')
        {
            package = name;
        }
    }
    versions
}

/// The libraries that a package asks for and that are not installed, as far as apt's lists tell.
pub(super) fn missing_libraries(package: &str) -> Vec<String> {
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", "--important", package]);
    depends.env("LC_ALL", "C");
    let text = tools::output(&mut depends).unwrap_or_default();
    let mut libraries = parse_libraries(&text);
    libraries.retain(|library| {
        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat=${db:Status-Status}", library]);
        // It fails for a package that was never there.
        tools::output(&mut query).unwrap_or_default() != "installed"
    });
    libraries
}

fn parse_libraries(text: &str) -> Vec<String> {
    let lines = text.lines();
    let names = lines.filter_map(|line| line.trim().strip_prefix("Depends: "));
    names
        .filter(|name| name.starts_with("lib"))
        .map(str::to_owned)
        .collect()
}

/// An upstream version: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl Version {
    /// Takes the numbers at the front: `1:22.1.8-1~deb12u1` is 22.1.8, and `1.95` is 1.95.0.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let upstream = text.split_once(':').map_or(text, |(_epoch, rest)| rest);
        let end = upstream.find(|c: char| !c.is_ascii_digit() && c != '.');
        let mut numbers = upstream[..end.unwrap_or(upstream.len())]
            .split('.')
            .map(str::parse);
        let first = numbers.next()?.ok()?;
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        Some(Self(first, next(), next()))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_from_their_front() {
        for (text, version) in [
            ("1:22.1.8-1~deb12u1", Some(Version(22, 1, 8))),
            ("1.96.0+dfsg1-1~deb12u2", Some(Version(1, 96, 0))),
            ("1.95", Some(Version(1, 95, 0))),
            ("1.97.0-nightly", Some(Version(1, 97, 0))),
            ("(none)", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(text), version, "{text}");
        }
        assert!(Version(22, 1, 8) > Version(22, 1, 2) && Version(22, 0, 0) > Version(21, 9, 9));
    }

    #[test]
    fn libraries_are_told_from_other_dependencies() {
        let text = "haproxy\n  PreDepends: libpre\n  Depends: libc6\n  Depends: libsystemd0\n\
                    \x20   libelogind0\n  Depends: adduser\n  Suggests: libsuggested\n";
        assert_eq!(parse_libraries(text), ["libc6", "libsystemd0"]);
    }

    #[test]
    fn apts_policy_is_read() {
        let text = "rustc:\n  Installed: (none)\n  Candidate: 1.63.0+dfsg1-2\n  Version table:\n\
                    \x20    1.63.0+dfsg1-2 500\n        500 http://deb.debian.org/debian x\n\
                    gone:\n  Installed: (none)\n  Candidate: (none)\n";
        let expected = BTreeMap::from([("rustc".to_owned(), Version(1, 63, 0))]);
        assert_eq!(parse_policy(text), expected);
    }
}
