//! What the data plane needs of the kernel that runs.

use std::fmt;

/// The least kernel: the oldest that the tests are run on.
pub const LEAST: Release = Release(6, 1);

/// What the data plane uses, and the kernel that brought it.
const NEEDS: [(Release, &str); 5] = [
    (Release(5, 9), "links for XDP programs"),
    (Release(5, 11), "the coarse clock (bpf_ktime_get_coarse_ns)"),
    (Release(5, 12), "pointers as arguments of global functions"),
    (
        Release(5, 18),
        "XDP on frames in several buffers (xdp.frags)",
    ),
    (Release(5, 19), "batched updates of maps of maps"),
];

/// A kernel's release: its first two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

impl Release {
    /// Takes the numbers at the front of what `uname -r` says.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The running kernel is older than [`LEAST`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this machine runs Linux {running}, and evenkeel needs {LEAST} or later: {}; boot a newer \
     kernel",
    self.lacks()
)]
pub struct TooOld {
    /// What `uname -r` says.
    running: String,
    /// The same as numbers.
    release: Release,
}

impl TooOld {
    /// What the data plane misses there.
    pub(crate) fn lacks(&self) -> String {
        let lacks: Vec<_> = NEEDS
            .iter()
            .filter(|(since, _)| *since > self.release)
            .map(|(since, what)| format!("{what}, since {since}"))
            .collect();
        if lacks.is_empty() {
            format!("nothing is known to be missing, but nothing older than {LEAST} is tested")
        } else {
            format!("missing are {}", lacks.join("; "))
        }
    }
}

/// Asks for the running kernel.
///
/// # Errors
/// Where it is older than [`LEAST`].
pub fn check() -> Result<(), TooOld> {
    judge(&rustix::system::uname().release().to_string_lossy())
}

/// A release without two numbers at its front is given the benefit of the doubt: what the kernel
/// lacks it will refuse itself.
pub(crate) fn judge(running: &str) -> Result<(), TooOld> {
    match Release::parse(running) {
        Some(release) if release < LEAST => Err(TooOld {
            running: running.to_owned(),
            release,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_kernel_and_later_ones_are_taken() {
        for running in [
            "6.1.0-56-amd64",
            "6.1",
            "6.12.117+deb13-amd64",
            "7.0-rc1",
            "10.0",
        ] {
            assert_eq!(judge(running), Ok(()), "{running}");
        }
    }

    #[test]
    fn an_older_kernel_is_refused_with_what_it_lacks() {
        let refused = |running: &str| judge(running).unwrap_err().to_string();
        assert_eq!(
            refused("5.15.0-91-generic"),
            "this machine runs Linux 5.15.0-91-generic, and evenkeel needs 6.1 or later: missing \
             are XDP on frames in several buffers (xdp.frags), since 5.18; batched updates of maps \
             of maps, since 5.19; boot a newer kernel"
        );
        assert!(refused("4.19.0-27-amd64").contains("links for XDP programs, since 5.9"));
        assert!(refused("6.0.12").contains("nothing older than 6.1 is tested"));
    }

    #[test]
    fn a_name_that_is_no_release_is_left_to_the_kernel() {
        for running in ["", "custom", "6", "99999999999.1"] {
            assert_eq!(judge(running), Ok(()), "{running}");
        }
    }
}
