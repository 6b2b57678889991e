//! Who may change something and who may only look.

use std::ffi::CString;
use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::task::spawn_blocking;

use super::connections::Peer;
use super::credentials::Credentials;
use crate::config::{Role, Token};

/// The group that the API's socket belongs to.
pub(super) const OPERATORS: &str = "lb";

/// The group whose members may only read.
const READERS: &str = "lb-ro";

/// Who asks, as far as it is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    peer: Peer,
    token: Option<Token>,
}

impl Caller {
    /// Who has sent a request with these headers, or why nobody is to be believed to have.
    ///
    /// A process of this host is who the kernel says. Over the network it takes a token (RFC 6750, section 2.1) or the
    /// certificate that the connection began with; a token is what counts if there are both.
    pub(super) fn of(
        peer: Peer,
        headers: &HeaderMap,
        credentials: Option<&Credentials>,
        now: u64,
    ) -> Result<Self, String> {
        let Peer::Remote { certificate, .. } = peer else { return Ok(Self { peer, token: None }) };
        let bearer = headers.get(AUTHORIZATION).map(|value| {
            let (scheme, text) = value.as_bytes().split_at_checked(7).unwrap_or_default();
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| text.trim_ascii())
        });
        let token = match (bearer, credentials) {
            (None, _) if certificate.is_some() => return Ok(Self { peer, token: None }),
            (None, Some(credentials)) if credentials.takes_tokens() => {
                return Err("a token is needed, as `Authorization: Bearer TOKEN`".to_owned());
            }
            (None, _) => return Err("a client's certificate is needed".to_owned()),
            (Some(None), _) => return Err("the authorization header is not `Bearer TOKEN`".to_owned()),
            (Some(Some(text)), credentials) => credentials.and_then(|credentials| credentials.token(text)),
        };
        let token = token.ok_or("this token is not known here")?;
        match &token.expires {
            Some(day) if day.end <= now => {
                Err(format!("token {} has expired: {} was its last day", token.name, day.text))
            }
            _ => Ok(Self { peer, token: Some(token) }),
        }
    }

    /// Why it may not change anything, if it may not.
    pub(super) async fn refusal(&self) -> Option<String> {
        let reason = match (self.peer, &self.token) {
            (_, Some(Token { role: Role::Writer, .. })) => return None,
            (_, Some(_)) => "its role is read",
            (Peer::Remote { certificate, .. }, None) => match certificate.map(|one| one.role) {
                Some(Role::Writer) => return None,
                _ => "its certificate is none of a writer",
            },
            (peer @ Peer::Local { .. }, None) => match role_of(peer).await {
                Role::Writer => return None,
                Role::Reader => "its user is a member of group lb-ro",
            },
        };
        Some(format!("{self} may only read: {reason}"))
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token {
            Some(token) => write!(f, "{} token {}", self.peer, token.name),
            None => self.peer.fmt(f),
        }
    }
}

/// The role of a process of this host.
///
/// Who can connect to the Unix socket belongs to its group, and may change things unless he is a member of [`READERS`] too.
/// Root and the daemon's own user could do without the socket. The host's user database may be asked over a network, so this
/// takes a thread of its own.
async fn role_of(peer: Peer) -> Role {
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
    use crate::api::connections::Certified;

    fn local(uid: u32) -> Peer {
        Peer::Local { uid, gid: uid, pid: None }
    }

    #[tokio::test]
    async fn root_and_the_daemon_may_write() {
        assert_eq!(role_of(local(0)).await, Role::Writer);
        assert_eq!(role_of(local(Uid::effective().as_raw())).await, Role::Writer);
    }

    #[tokio::test]
    async fn what_a_caller_may_do_is_what_he_has_proved() {
        let remote = |role: Option<Role>| Peer::Remote {
            address: "192.0.2.1:5".parse().unwrap(),
            certificate: role.map(|role| Certified { role, mark: 0xab }),
        };
        let token = |role| Token { name: "deploy".to_owned(), role, digest: [0; 32], expires: None };
        let refusal = async |peer, token| Caller { peer, token }.refusal().await;
        assert_eq!(refusal(remote(Some(Role::Writer)), None).await, None);
        assert_eq!(refusal(remote(None), Some(token(Role::Writer))).await, None);
        let reader = refusal(remote(Some(Role::Reader)), None).await.unwrap();
        let expected =
            "192.0.2.1:5 certificate 00000000000000ab may only read: its certificate is none of a writer";
        assert_eq!(reader, expected);
        let reader = refusal(remote(Some(Role::Writer)), Some(token(Role::Reader))).await.unwrap();
        assert!(reader.ends_with("token deploy may only read: its role is read"), "{reader}");
        assert!(refusal(remote(None), None).await.is_some());
    }
}
