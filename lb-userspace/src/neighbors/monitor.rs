//! The kernel's events, reduced to the question whether next hops have to be resolved again.
//!
//! Neighbours change state all the time without consequence, not least because of our own probes. Only a change of the
//! MAC address of a neighbour in use counts, so probing cannot feed itself.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkBuffer, Parseable};
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use rustix::io::Errno;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::kernel::{Neighbor, NeighborKey, neighbor_of};
use super::{Mac, NeighborsError};

/// The shortest time from one report to the next: a routing daemon that converges makes thousands of events.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// Everything that can change the way to a backend.
const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// A neighbour appeared or changed: linux/rtnetlink.h.
const RTM_NEWNEIGH: u16 = 28;
/// A neighbour was removed: linux/rtnetlink.h.
const RTM_DELNEIGH: u16 = 29;

/// More than the kernel puts into one datagram of events (`NLMSG_GOODSIZE`).
const DATAGRAM: usize = 32 * 1024;

/// Collects the events in a task of its own, so that they never pile up while nobody asks.
///
/// It reads the socket itself: the library's connection loses the events that it cannot decode, among them all next hop
/// objects, while here only the neighbours need decoding.
#[derive(Debug)]
pub(super) struct Monitor {
    shared: Arc<Shared>,
    last_report: Option<Instant>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    news: Notify,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // No operation on `Seen` can leave it half-done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the events amount to.
#[derive(Debug, Default)]
struct Seen {
    /// Something changed since the last report.
    changed: bool,
    /// Looked-up routes are out of date.
    topology: bool,
    /// The connection ended.
    closed: bool,
    /// The neighbours in use.
    watched: HashMap<NeighborKey, Watched>,
}

/// What is known of a neighbour in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    /// It is about to be read: any event may be later than what will be read.
    Unread,
    /// Its MAC address when it was read, if it had one.
    Read(Option<Mac>),
}

impl Monitor {
    /// Subscribes to the kernel's events and collects them among `tasks`.
    pub(super) fn start(tasks: &mut JoinSet<()>) -> io::Result<Self> {
        let socket = subscribe()?;
        let shared = Arc::new(Shared::default());
        tasks.spawn(collect(socket, Arc::clone(&shared)));
        Ok(Self { shared, last_report: None })
    }

    /// See [`super::Neighbors::changed`].
    pub(super) async fn changed(&mut self) -> Result<(), NeighborsError> {
        loop {
            if self.is_closed() {
                return Err(NeighborsError::Closed);
            }
            if self.shared.seen().changed {
                break;
            }
            self.shared.news.notified().await;
        }
        if let Some(last) = self.last_report {
            tokio::time::sleep_until(last + REPORT_INTERVAL).await;
        }
        // Nothing waits from here on: a cancelled call has not taken the change.
        self.shared.seen().changed = false;
        self.last_report = Some(Instant::now());
        Ok(())
    }

    /// Whether looked-up routes are out of date; "yes" is said once.
    pub(super) fn take_topology_change(&self) -> bool {
        std::mem::take(&mut self.shared.seen().topology)
    }

    /// Whether the connection ended.
    pub(super) fn is_closed(&self) -> bool {
        self.shared.seen().closed
    }

    /// Names the neighbours in use, just before they are read.
    pub(super) fn watch(&self, keys: impl Iterator<Item = NeighborKey>) {
        self.shared.seen().watched = keys.map(|key| (key, Watched::Unread)).collect();
    }

    /// Names more of them.
    pub(super) fn watch_more(&self, keys: impl Iterator<Item = NeighborKey>) {
        let mut seen = self.shared.seen();
        keys.for_each(|key| {
            seen.watched.entry(key).or_insert(Watched::Unread);
        });
    }

    /// Says what was read of those that were named last.
    pub(super) fn settle(&self, neighbors: &HashMap<NeighborKey, Neighbor>) {
        let mut seen = self.shared.seen();
        for (key, watched) in
            seen.watched.iter_mut().filter(|(_, watched)| matches!(watched, Watched::Unread))
        {
            *watched = Watched::Read(neighbors.get(key).and_then(|neighbor| neighbor.mac()));
        }
    }
}

fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    for group in GROUPS {
        socket.socket_mut().add_membership(group as u32)?;
    }
    Ok(socket)
}

/// Takes in events until the socket fails.
async fn collect(socket: TokioSocket, shared: Arc<Shared>) {
    let mut datagram = Vec::with_capacity(DATAGRAM);
    loop {
        datagram.clear();
        let received = socket.recv(&mut datagram).await;
        let news = match &received {
            Ok(()) => shared.seen().note_all(&datagram),
            Err(error) => shared.seen().note_error(error),
        };
        if news {
            shared.news.notify_one();
        }
        if shared.seen().closed {
            return;
        }
    }
}

impl Seen {
    /// Takes in a datagram of events; whether there is news among them.
    fn note_all(&mut self, mut datagram: &[u8]) -> bool {
        let mut news = false;
        while !datagram.is_empty() {
            let Ok(event) = NetlinkBuffer::new_checked(datagram) else {
                return self.note_topology();
            };
            news |= self.note(&event);
            // Events are padded to four bytes (NLMSG_ALIGN).
            let length = (event.length() as usize).next_multiple_of(4);
            datagram = datagram.get(length..).unwrap_or_default();
        }
        news
    }

    /// Takes in one event; whether it is news.
    fn note(&mut self, event: &NetlinkBuffer<&[u8]>) -> bool {
        let kind = event.message_type();
        if !matches!(kind, RTM_NEWNEIGH | RTM_DELNEIGH) {
            return self.note_topology();
        }
        let Ok(message) = NeighbourMessage::parse(event.payload()) else {
            return self.note_topology();
        };
        let news = self.differs(&message, kind == RTM_DELNEIGH);
        self.changed |= news;
        news
    }

    /// Takes in a change of links, addresses, routes, rules or next hop objects, or of who knows what.
    fn note_topology(&mut self) -> bool {
        self.topology = true;
        self.changed = true;
        true
    }

    /// Takes in a failure of the socket. `ENOBUFS` says that events were lost.
    fn note_error(&mut self, error: &io::Error) -> bool {
        if Errno::from_io_error(error) == Some(Errno::NOBUFS) {
            tracing::debug!("the kernel lost events: looking everything up again");
            for watched in self.watched.values_mut() {
                *watched = Watched::Unread;
            }
        } else {
            tracing::error!(%error, "no more events from the kernel");
            self.closed = true;
        }
        self.note_topology()
    }

    /// Whether the event gives a neighbour in use another MAC address than the one that was read.
    fn differs(&self, message: &NeighbourMessage, removed: bool) -> bool {
        let Some((key, neighbor)) = neighbor_of(message) else {
            return false;
        };
        let mac = if removed { None } else { neighbor.mac() };
        match self.watched.get(&key) {
            None => false,
            Some(Watched::Unread) => true,
            Some(Watched::Read(known)) => *known != mac,
        }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{Emitable, NetlinkMessage};
    use rtnetlink::packet_route::AddressFamily;
    use rtnetlink::packet_route::RouteNetlinkMessage;
    use rtnetlink::packet_route::link::LinkMessage;
    use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};

    use super::*;

    const KEY: NeighborKey = (2, std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));
    const MAC: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 9];

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn neighbor(state: NeighbourState, mac: Mac) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = KEY.0;
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(KEY.1)));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        message
    }

    fn news(state: NeighbourState, mac: Mac) -> Vec<u8> {
        bytes(RouteNetlinkMessage::NewNeighbour(neighbor(state, mac)))
    }

    fn watching(watched: Watched) -> Seen {
        Seen { watched: HashMap::from([(KEY, watched)]), ..Seen::default() }
    }

    #[test]
    fn a_neighbor_that_keeps_its_mac_is_no_news() {
        use NeighbourState::{Delay, Probe, Reachable, Stale};
        let mut seen = watching(Watched::Read(Some(MAC)));
        for state in [Stale, Delay, Probe, Reachable] {
            assert!(!seen.note_all(&news(state, MAC)), "{state}");
        }
        assert!(!seen.changed);
    }

    #[test]
    fn a_neighbor_that_gets_changes_or_loses_its_mac_is_news() {
        let failed = news(NeighbourState::Failed, MAC);
        let removed = bytes(RouteNetlinkMessage::DelNeighbour(neighbor(NeighbourState::Stale, MAC)));
        let reachable = news(NeighbourState::Reachable, MAC);
        for (known, event) in
            [(Some(MAC), &failed), (Some(MAC), &removed), (Some(OTHER), &reachable), (None, &reachable)]
        {
            let mut seen = watching(Watched::Read(known));
            assert!(seen.note_all(event));
            assert!(seen.changed && !seen.topology);
        }
    }

    #[test]
    fn an_unanswered_probe_is_no_news() {
        let mut seen = watching(Watched::Read(None));
        assert!(!seen.note_all(&news(NeighbourState::Incomplete, MAC)));
        assert!(!seen.note_all(&news(NeighbourState::Failed, MAC)));
    }

    #[test]
    fn an_event_before_the_reading_is_news_and_one_of_a_stranger_is_not() {
        let event = news(NeighbourState::Reachable, MAC);
        assert!(watching(Watched::Unread).note_all(&event));
        assert!(!Seen::default().note_all(&event));
    }

    #[test]
    fn other_events_lost_events_and_nonsense_are_a_change_of_topology() {
        let link = bytes(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        for datagram in [link.as_slice(), &link[..10], &[0xff; 64]] {
            let mut seen = Seen::default();
            assert!(seen.note_all(datagram));
            assert!(seen.topology && seen.changed && !seen.closed);
        }
        let mut seen = Seen::default();
        assert!(seen.note_error(&Errno::NOBUFS.into()));
        assert!(seen.topology && seen.changed && !seen.closed);
        assert!(seen.note_error(&Errno::BADF.into()));
        assert!(seen.closed);
    }

    #[test]
    fn every_event_of_a_datagram_is_seen() {
        let mut seen = watching(Watched::Read(Some(MAC)));
        let datagram = [news(NeighbourState::Stale, MAC), news(NeighbourState::Reachable, OTHER)].concat();
        assert!(seen.note_all(&datagram));
    }
}
