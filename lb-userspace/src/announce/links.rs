//! The state of interfaces: all of them at first, then each change, in the order in which it happened.
//!
//! Listings and events come by one socket, so neither can overtake the other. Of a message only what is needed is read:
//! an attribute that the library does not know must not hide a link that came back.

use std::io;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{
    Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NlasIterator,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use rustix::io::Errno;

use crate::neighbors::Mac;

/// An interface appeared, or changed, or is listed: linux/rtnetlink.h.
const RTM_NEWLINK: u16 = 16;
/// An interface is gone: linux/rtnetlink.h.
const RTM_DELLINK: u16 = 17;
/// `struct ifinfomsg`.
const HEADER: usize = 16;
/// `ARPHRD_ETHER` (`linux/if_arp.h`).
const ETHERNET: u16 = 1;
/// `IFF_UP | IFF_RUNNING` (linux/if.h): administratively up, with a carrier.
const RUNNING: u32 = 1 << 0 | 1 << 6;
/// The attribute that holds the MAC address (`linux/if_link.h`).
const IFLA_ADDRESS: u16 = 1;

/// More than the kernel puts into one datagram.
const DATAGRAM: usize = 32 * 1024;

/// What an interface can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    pub(super) ifindex: u32,
    /// Its MAC address while frames can leave by it; `None` while it is down or not Ethernet.
    pub(super) mac: Option<Mac>,
}

/// What the kernel said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Interfaces, in the order of the messages; one may be told more than once.
    States(Vec<LinkState>),
    /// Events were lost. All interfaces will be told anew.
    Lost,
}

/// The kernel's messages about interfaces.
pub(super) struct Links {
    socket: TokioSocket,
    datagram: Vec<u8>,
}

impl Links {
    /// Subscribes in the calling thread's network namespace, and asks for all interfaces. Needs a tokio runtime with I/O.
    pub(super) async fn connect() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().add_membership(MulticastGroup::Link as u32)?;
        let links = Self { socket, datagram: Vec::with_capacity(DATAGRAM) };
        links.list().await?;
        Ok(links)
    }

    async fn list(&self) -> io::Result<()> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(LinkMessage::default()));
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        self.socket.send(&bytes(request)).await.map(drop)
    }

    /// Waits for news. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<News> {
        self.datagram.clear();
        match self.socket.recv(&mut self.datagram).await {
            Ok(()) => Ok(News::States(states(&self.datagram))),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {
                self.list().await?;
                Ok(News::Lost)
            }
            Err(error) => Err(error),
        }
    }
}

fn bytes(mut message: NetlinkMessage<RouteNetlinkMessage>) -> Vec<u8> {
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

/// The interfaces of which the messages of a datagram tell.
fn states(mut datagram: &[u8]) -> Vec<LinkState> {
    let mut states = Vec::new();
    while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
        states.extend(state(message.message_type(), message.payload()));
        // Messages are padded to four bytes (NLMSG_ALIGN).
        let length = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    states
}

fn state(kind: u16, payload: &[u8]) -> Option<LinkState> {
    let (header, attributes) = payload.split_first_chunk::<HEADER>()?;
    let [family, _, type_low, type_high, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
    // A bridge tells of its ports in messages of its own family, also that one has left it.
    if family != 0 || !matches!(kind, RTM_NEWLINK | RTM_DELLINK) {
        return None;
    }
    let ifindex = u32::from_ne_bytes([i0, i1, i2, i3]);
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    let ethernet = u16::from_ne_bytes([type_low, type_high]) == ETHERNET;
    let usable = kind == RTM_NEWLINK && ethernet && flags & RUNNING == RUNNING;
    Some(LinkState { ifindex, mac: usable.then(|| address(attributes)).flatten() })
}

fn address(attributes: &[u8]) -> Option<Mac> {
    let mut attributes = NlasIterator::new(attributes).flatten();
    attributes.find(|attribute| attribute.kind() == IFLA_ADDRESS)?.value().try_into().ok()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::AddressFamily;
    use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};

    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    fn link(flags: LinkFlags, layer: LinkLayerType) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 2;
        message.header.flags = flags;
        message.header.link_layer_type = layer;
        message.attributes.push(LinkAttribute::IfName("eth0".to_owned()));
        message.attributes.push(LinkAttribute::Address(MAC.to_vec()));
        message
    }

    fn up() -> LinkMessage {
        link(LinkFlags::Up | LinkFlags::Running, LinkLayerType::Ether)
    }

    fn told(message: RouteNetlinkMessage) -> Vec<LinkState> {
        states(&bytes(message.into()))
    }

    #[test]
    fn only_running_ethernet_has_a_mac() {
        let state = |mac| vec![LinkState { ifindex: 2, mac }];
        assert_eq!(told(RouteNetlinkMessage::NewLink(up())), state(Some(MAC)));
        assert_eq!(told(RouteNetlinkMessage::DelLink(up())), state(None));
        for flags in [LinkFlags::Up, LinkFlags::Running, LinkFlags::empty()] {
            assert_eq!(told(RouteNetlinkMessage::NewLink(link(flags, LinkLayerType::Ether))), state(None));
        }
        let tunnel = link(LinkFlags::Up | LinkFlags::Running, LinkLayerType::Ipgre);
        assert_eq!(told(RouteNetlinkMessage::NewLink(tunnel)), state(None));
    }

    #[test]
    fn what_a_bridge_says_of_its_ports_is_not_about_the_link() {
        let mut message = up();
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(told(RouteNetlinkMessage::DelLink(message)), []);
    }

    #[test]
    fn every_message_of_a_datagram_is_read_and_nonsense_is_not() {
        let mut datagram = bytes(RouteNetlinkMessage::DelLink(up()).into());
        datagram.extend(bytes(RouteNetlinkMessage::NewLink(up()).into()));
        let macs: Vec<_> = states(&datagram).into_iter().map(|state| state.mac).collect();
        assert_eq!(macs, [None, Some(MAC)]);
        assert_eq!(states(&datagram[..20]), []);
        assert_eq!(states(&[0xff; 64]), []);
    }
}
