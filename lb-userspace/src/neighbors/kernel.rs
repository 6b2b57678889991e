//! The questions put to the kernel, and its answers reduced to what next hops need.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use rustix::io::Errno;
use tokio::task::JoinSet;

use super::{Mac, NeighborsError};

/// How long one answer may take. The kernel answers in microseconds; only an answer that could not be decoded is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The interface and the address of a neighbour: what the kernel's neighbour tables are keyed by.
pub(super) type NeighborKey = (u32, IpAddr);

/// What the kernel would do with a packet to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Send it.
    Path(Path),
    /// Keep it: the address is this host's.
    Local,
    /// Refuse it, by a route of this kind.
    Refused(&'static str),
    /// Treat it as one of this kind.
    NotUnicast(&'static str),
    /// Give up: no route covers the address.
    Missing,
}

impl Route {
    /// The neighbour that packets to `target` are handed to.
    pub(super) fn neighbor(&self, target: IpAddr) -> Option<NeighborKey> {
        match self {
            Self::Path(path) => Some((path.ifindex, path.gateway.unwrap_or(target))),
            _ => None,
        }
    }
}

/// The way of a packet that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) ifindex: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) mtu: Option<u32>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: std::sync::Arc<str>,
    /// `None` if it is not Ethernet.
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    /// Administratively up, with a carrier.
    pub(super) running: bool,
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Neighbor {
    /// The kernel vouches for the address, or is checking it already.
    Fresh(Mac),
    /// The address was right once.
    Stale(Mac),
    /// The kernel is asking.
    Asking,
    /// Nobody answered.
    Failed,
}

impl Neighbor {
    pub(super) fn mac(self) -> Option<Mac> {
        match self {
            Self::Fresh(mac) | Self::Stale(mac) => Some(mac),
            Self::Asking | Self::Failed => None,
        }
    }
}

/// A connection for requests. Events have their own: the kernel stamps them with the number of the request that caused
/// them, whoever sent it, and they would pass for answers.
#[derive(Debug)]
pub(super) struct Kernel {
    handle: rtnetlink::Handle,
}

impl Kernel {
    /// Opens the connection and runs it among `tasks`.
    pub(super) fn connect(tasks: &mut JoinSet<()>) -> io::Result<Self> {
        let (connection, handle, _events) = rtnetlink::new_connection()?;
        tasks.spawn(connection);
        Ok(Self { handle })
    }

    /// Which way a packet to `target` would go (`RTM_GETROUTE`).
    pub(super) async fn route(&self, target: IpAddr) -> Result<Route, NeighborsError> {
        let action = "look up a route";
        let answers = self.handle.route().get(route_query(target)).execute();
        match in_time(action, first(answers)).await? {
            Ok(Some(message)) => Ok(route_of(&message)),
            Ok(None) => Err(NeighborsError::Closed),
            Err(error) => refused_route(&error).ok_or_else(|| request_error(action, error)),
        }
    }

    /// Every interface, by index.
    pub(super) async fn links(&self) -> Result<HashMap<u32, Link>, NeighborsError> {
        let action = "list the interfaces";
        let request = self.handle.link().get();
        let request = request.set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
        let messages: Vec<LinkMessage> = in_time(action, request.execute().try_collect())
            .await?
            .map_err(|error| request_error(action, error))?;
        Ok(messages.iter().map(|message| (message.header.index, link_of(message))).collect())
    }

    /// Every neighbour of both families.
    pub(super) async fn neighbors(&self) -> Result<HashMap<NeighborKey, Neighbor>, NeighborsError> {
        let action = "list the neighbors";
        let messages: Vec<NeighbourMessage> =
            in_time(action, self.handle.neighbours().get().execute().try_collect())
                .await?
                .map_err(|error| request_error(action, error))?;
        Ok(messages.iter().filter_map(neighbor_of).collect())
    }

    /// Has the kernel resolve or confirm a neighbour as if it had a packet to send there (`NTF_USE`, see `neigh_add` in
    /// net/core/neighbour.c). Not for permanent entries: it would make them ordinary ones.
    pub(super) async fn probe(&self, (ifindex, address): NeighborKey) -> Result<(), NeighborsError> {
        let request = self.handle.neighbours().add(ifindex, address).replace();
        let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use);
        match in_time("resolve a neighbor", request.execute()).await? {
            Ok(()) => Ok(()),
            Err(rtnetlink::Error::RequestFailed) => Err(NeighborsError::Closed),
            Err(error) if errno(&error) == Some(Errno::PERM) => Err(NeighborsError::NotPermitted),
            // The interface went away, or the neighbour table is full: the next round sees what has become of it.
            Err(error) => {
                tracing::debug!(ifindex, %address, %error, "the kernel did not resolve a neighbor");
                Ok(())
            }
        }
    }
}

async fn in_time<T>(action: &'static str, answer: impl Future<Output = T>) -> Result<T, NeighborsError> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| NeighborsError::Timeout { action })
}

async fn first<T, E>(answers: impl Stream<Item = Result<T, E>>) -> Result<Option<T>, E> {
    std::pin::pin!(answers).try_next().await
}

pub(super) fn request_error(action: &'static str, source: rtnetlink::Error) -> NeighborsError {
    match source {
        rtnetlink::Error::RequestFailed => NeighborsError::Closed,
        source => NeighborsError::Request { action, source },
    }
}

fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(Errno::from_raw_os_error(message.raw_code().abs())),
        _ => None,
    }
}

/// The route that a failed lookup stands for: IPv4 reports its refusing routes as errors.
fn refused_route(error: &rtnetlink::Error) -> Option<Route> {
    match errno(error)? {
        Errno::NETUNREACH => Some(Route::Missing),
        Errno::HOSTUNREACH => Some(Route::Refused("unreachable")),
        Errno::ACCESS => Some(Route::Refused("prohibit")),
        Errno::INVAL => Some(Route::Refused("blackhole")),
        _ => None,
    }
}

fn route_query(target: IpAddr) -> RouteMessage {
    let mut query = RouteMessage::default();
    let (family, length, address) = match target {
        IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
    };
    query.header.address_family = family;
    query.header.destination_prefix_length = length;
    query.attributes.push(RouteAttribute::Destination(address));
    query
}

fn route_of(message: &RouteMessage) -> Route {
    match message.header.kind {
        RouteType::Unicast => Route::Path(path_of(message)),
        RouteType::Local => Route::Local,
        RouteType::Broadcast => Route::NotUnicast("broadcast"),
        RouteType::Multicast => Route::NotUnicast("multicast"),
        RouteType::Anycast => Route::NotUnicast("anycast"),
        RouteType::BlackHole => Route::Refused("blackhole"),
        RouteType::Unreachable => Route::Refused("unreachable"),
        RouteType::Prohibit => Route::Refused("prohibit"),
        _ => Route::Missing,
    }
}

fn path_of(message: &RouteMessage) -> Path {
    let mut path = Path::default();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => path.ifindex = *index,
            RouteAttribute::Gateway(address) => path.gateway = ip_of(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => path.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => path.gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => path.source = ip_of(address),
            RouteAttribute::Metrics(metrics) => path.mtu = metrics.iter().find_map(mtu_of),
            _ => {}
        }
    }
    path
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn mtu_of(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}

fn link_of(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let running = flags.contains(LinkFlags::Up | LinkFlags::Running);
    let mut link = Link { name: format!("#{}", message.header.index).into(), mac: None, mtu: 0, running };
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name.as_str().into(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) if ethernet => link.mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    link
}

/// The key and state of an IP neighbour; `None` for the forwarding entries of bridges.
pub(super) fn neighbor_of(message: &NeighbourMessage) -> Option<(NeighborKey, Neighbor)> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::from(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::from(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(((message.header.ifindex, address?), neighbor_state(message.header.state, mac)))
}

fn neighbor_state(state: NeighbourState, mac: Option<Mac>) -> Neighbor {
    use NeighbourState::{Delay, Incomplete, Noarp, Permanent, Probe, Reachable, Stale};
    match (state, mac) {
        (Reachable | Delay | Probe | Permanent | Noarp, Some(mac)) => Neighbor::Fresh(mac),
        (Stale, Some(mac)) => Neighbor::Stale(mac),
        (Incomplete, _) => Neighbor::Asking,
        _ => Neighbor::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_with_an_address_are_usable_and_the_others_are_not() {
        use NeighbourState::{
            Delay, Failed, Incomplete, Noarp, None as Nothing, Permanent, Probe, Reachable, Stale,
        };
        let mac = [2, 0, 0, 0, 0, 1];
        for state in [Reachable, Delay, Probe, Permanent, Noarp, Stale] {
            assert_eq!(neighbor_state(state, Some(mac)).mac(), Some(mac), "{state}");
            assert_eq!(neighbor_state(state, None).mac(), None, "{state} without an address");
        }
        for state in [Incomplete, Failed, Nothing] {
            assert_eq!(neighbor_state(state, Some(mac)).mac(), None, "{state}");
        }
    }

    #[test]
    fn a_gateway_of_the_other_family_is_a_gateway() {
        let gateway: std::net::Ipv6Addr = "fe80::1".parse().unwrap();
        let mut message = RouteMessage::default();
        message.attributes.push(RouteAttribute::Oif(3));
        message.attributes.push(RouteAttribute::Via(RouteVia::Inet6(gateway)));
        let route = Route::Path(path_of(&message));
        assert_eq!(route.neighbor([10, 0, 0, 1].into()), Some((3, gateway.into())));
    }
}
