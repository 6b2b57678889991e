//! The host's own addresses, at which tunnels may end, followed as they change.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket};
use rustix::io::Errno;
use tokio::task::JoinSet;

use crate::neighbors::own;

/// The index that `lo` has in every network namespace (`LOOPBACK_IFINDEX`, `net/core/dev.c`).
const LOOPBACK: u32 = 1;

/// More than the kernel puts into one datagram of events (`NLMSG_GOODSIZE`).
const DATAGRAM: usize = 32 * 1024;

/// The addresses of all interfaces but `lo`: those that are there are VIPs, at which services listen and no tunnel ends.
pub(super) struct Addresses {
    events: TokioSocket,
    handle: rtnetlink::Handle,
    _connection: JoinSet<()>,
}

impl Addresses {
    /// Subscribes in the calling thread's network namespace. Needs a tokio runtime with I/O.
    pub(super) fn watch() -> io::Result<Self> {
        let mut events = TokioSocket::new(NETLINK_ROUTE)?;
        events.socket_mut().bind_auto()?;
        for group in [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr] {
            events.socket_mut().add_membership(group as u32)?;
        }
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self { events, handle, _connection: task })
    }

    /// The addresses as they are now.
    pub(super) async fn list(&self) -> Result<BTreeSet<IpAddr>, rtnetlink::Error> {
        let messages: Vec<AddressMessage> = self.handle.address().get().execute().try_collect().await?;
        Ok(messages.iter().filter_map(address_of).collect())
    }

    /// Waits until they may have changed. Cancel safe.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        // What happened is not read: everything is listed anew.
        let mut datagram = Vec::with_capacity(DATAGRAM);
        match self.events.recv(&mut datagram).await {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::NOBUFS) => Err(error),
            _ => Ok(()),
        }
    }
}

/// The address of a message, if a tunnel can end there.
fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    own(message).filter(|_| message.header.index != LOOPBACK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::address::AddressAttribute;

    fn message(index: u32, attributes: Vec<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        (message.header.index, message.attributes) = (index, attributes);
        message
    }

    #[test]
    fn the_local_end_of_a_link_is_the_hosts() {
        let (peer, local) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let both = vec![AddressAttribute::Address(peer), AddressAttribute::Local(local)];
        assert_eq!(address_of(&message(2, both)), Some(local));
        assert_eq!(address_of(&message(2, vec![AddressAttribute::Address(peer)])), Some(peer));
        assert_eq!(address_of(&message(2, Vec::new())), None);
    }

    #[test]
    fn no_tunnel_ends_at_a_vip_on_lo() {
        assert_eq!(
            address_of(&message(LOOPBACK, vec![AddressAttribute::Address([10, 0, 0, 1].into())])),
            None
        );
    }
}
