//! Who is at the other end of a connection, and who may be.
//!
//! The socket's file mode already keeps everybody else out. This is the second lock: it holds
//! when the file's mode is widened by hand, and it judges the process that connected.

use std::{io, os::fd::AsRawFd};

use nix::unistd::{Gid, Uid};
use tokio::net::UnixStream;

/// The credentials of a peer at the time when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) supplementary: Vec<Gid>,
}

impl Peer {
    /// Asks the kernel, which knows the process and not what it claims.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self {
            uid: Uid::from_raw(credentials.uid()),
            gid: Gid::from_raw(credentials.gid()),
            supplementary: supplementary_groups(stream)?,
        })
    }

    /// Whether it is its primary group or a supplementary one.
    fn is_member(&self, group: Gid) -> bool {
        self.gid == group || self.supplementary.contains(&group)
    }
}

/// Who may talk to the controller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    /// The controller's own user.
    pub(super) owner: Uid,
    /// Whose members may ask.
    pub(super) group: Option<Gid>,
    /// Whose members may change as well.
    pub(super) change_group: Option<Gid>,
}

impl Admission {
    /// Whoever may change, and members of the group for looking, as of a monitoring system.
    pub(super) fn admits(&self, peer: &Peer) -> bool {
        self.lets_change(peer) || self.group.is_some_and(|group| peer.is_member(group))
    }

    /// Root and the controller's own user, who could do it without being asked, and members of the
    /// group for changing.
    pub(super) fn lets_change(&self, peer: &Peer) -> bool {
        peer.uid.is_root()
            || peer.uid == self.owner
            || self.change_group.is_some_and(|group| peer.is_member(group))
    }

    /// The socket's group, which lets its members connect at all. There is one: where both are
    /// configured, members of the other need be members of this one too.
    pub(super) fn of_socket(&self) -> Option<Gid> {
        self.group.or(self.change_group)
    }
}

/// The peer's supplementary groups.
///
/// `SO_PEERCRED` has only the primary group, and the group database tells what a user's next login
/// would get, not what this process was started with. `SO_PEERGROUPS` (Linux 4.13) tells what the
/// kernel itself judged the file's mode by.
fn supplementary_groups(stream: &UnixStream) -> io::Result<Vec<Gid>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut size = libc::socklen_t::try_from(size_of_val(groups.as_slice()))
            .map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the descriptor is open while `stream` is borrowed; the kernel writes at most
        // `size` bytes to `groups`, which has as many, any bit pattern is a valid `gid_t`, and
        // `size` is valid for reading and writing.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        let count = size as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups.into_iter().map(Gid::from_raw).collect());
        }
        let error = io::Error::last_os_error();
        // A process can have up to 65,536; the kernel says how many there are.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, supplementary: &[u32]) -> Peer {
        Peer {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            supplementary: supplementary.iter().copied().map(Gid::from_raw).collect(),
        }
    }

    #[test]
    fn admits_root_the_owner_and_the_group_alone() {
        let group = Admission {
            owner: Uid::from_raw(500),
            group: Some(Gid::from_raw(70)),
            change_group: None,
        };
        let none = Admission {
            group: None,
            ..group
        };
        for (peer, by_group, without_group) in [
            (peer(0, 0, &[]), true, true),
            (peer(500, 500, &[]), true, true),
            (peer(1000, 70, &[]), true, false),
            (peer(1000, 1000, &[4, 70]), true, false),
            (peer(1000, 1000, &[4]), false, false),
            // A user id that equals the group's number, and root's group, mean nothing.
            (peer(70, 1000, &[]), false, false),
            (peer(1000, 0, &[0]), false, false),
        ] {
            assert_eq!(group.admits(&peer), by_group, "{peer:?}");
            assert_eq!(none.admits(&peer), without_group, "{peer:?}");
            assert_eq!(group.lets_change(&peer), without_group, "{peer:?}");
        }
    }

    #[test]
    fn the_second_group_may_change_and_the_first_may_not() {
        let both = Admission {
            owner: Uid::from_raw(500),
            group: Some(Gid::from_raw(70)),
            change_group: Some(Gid::from_raw(80)),
        };
        for (peer, admitted, changes) in [
            (peer(1000, 70, &[]), true, false),
            (peer(1000, 80, &[]), true, true),
            (peer(1000, 70, &[80]), true, true),
            (peer(1000, 1000, &[80]), true, true),
            (peer(80, 1000, &[]), false, false),
        ] {
            assert_eq!(both.admits(&peer), admitted, "{peer:?}");
            assert_eq!(both.lets_change(&peer), changes, "{peer:?}");
        }
        assert_eq!(both.of_socket(), Some(Gid::from_raw(70)));
        let only = Admission {
            group: None,
            ..both
        };
        assert_eq!(only.of_socket(), Some(Gid::from_raw(80)));
        assert!(!only.admits(&peer(1000, 70, &[])));
    }

    #[tokio::test]
    async fn the_kernel_names_this_very_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let found = Peer::of(&one).unwrap();
        assert_eq!((found.uid, found.gid), (Uid::effective(), Gid::effective()));
        let mut expected: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .iter()
            .map(|group| group.as_raw())
            .collect();
        let mut groups: Vec<u32> = found
            .supplementary
            .iter()
            .map(|group| group.as_raw())
            .collect();
        expected.sort_unstable();
        groups.sort_unstable();
        assert_eq!(groups, expected);
    }
}
