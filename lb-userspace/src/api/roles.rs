//! Who may change something and who may only look.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::task::spawn_blocking;

use super::connections::Peer;

/// The group that the API's socket belongs to.
pub(super) const OPERATORS: &str = "lb";

/// The group whose members may only read.
const READERS: &str = "lb-ro";

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Ask what there is.
    Reader,
    /// Change it too.
    Writer,
}

/// The role of who is at the other end of a connection.
///
/// Who can connect to the Unix socket belongs to its group, and may change things unless he is a member of [`READERS`] too.
/// Root and the daemon's own user could do without the socket. The host's user database may be asked over a network, so this
/// takes a thread of its own.
pub(super) async fn role_of(peer: Peer) -> Role {
    let Peer::Local { uid, gid, .. } = peer else { return Role::Reader };
    if uid == 0 || uid == Uid::effective().as_raw() {
        return Role::Writer;
    }
    let is_reader = spawn_blocking(move || is_member(Uid::from_raw(uid), Gid::from_raw(gid)));
    // Whoever cannot be looked up is not trusted.
    if is_reader.await.unwrap_or(true) { Role::Reader } else { Role::Writer }
}

/// Whether the user belongs to [`READERS`], by the group that its process has or by the host's database.
fn is_member(uid: Uid, gid: Gid) -> bool {
    let readers = match Group::from_name(READERS) {
        Ok(Some(group)) => group.gid,
        Ok(None) => return false,
        Err(_) => return true,
    };
    if gid == readers {
        return true;
    }
    let groups = match User::from_uid(uid) {
        Ok(Some(user)) => CString::new(user.name).map(|name| getgrouplist(&name, user.gid)),
        // A user without a name is a member of nothing.
        Ok(None) => return false,
        Err(_) => return true,
    };
    !matches!(groups, Ok(Ok(groups)) if !groups.contains(&readers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32) -> Peer {
        Peer::Local { uid, gid: uid, pid: None }
    }

    #[tokio::test]
    async fn root_and_the_daemon_may_write_and_strangers_read() {
        assert_eq!(role_of(peer(0)).await, Role::Writer);
        assert_eq!(role_of(peer(Uid::effective().as_raw())).await, Role::Writer);
        assert_eq!(role_of(Peer::Remote("192.0.2.1:5".parse().unwrap())).await, Role::Reader);
    }
}
