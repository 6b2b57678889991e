//! Next hops, learned from the kernel's own routes and neighbours and never configured by hand.
//!
//! The kernel answers three questions by rtnetlink: which route a packet to a backend takes, what the link it leaves by
//! looks like, and which MAC address answers there. `resolve` turns the answers into a [`NextHop`] or into the reason
//! why there is none. Where the neighbour is missing or doubtful the kernel is asked to find it: the packets that this
//! program forwards never pass through the kernel's stack, so nothing else would keep its neighbour entries fresh.

mod kernel;
mod local;
mod memory;
mod monitor;
mod probes;
mod resolve;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use kernel::{Kernel, Link, Neighbor, NeighborKey, Route};
pub(crate) use local::own;
pub use local::{local_addresses, xdp_programs};
use memory::Memory;
use monitor::Monitor;
use probes::Probes;

/// Some sysctls change routing without an event, so looked-up routes are looked up again when no event arrives, too: in every
/// round a twelfth of them, which takes a minute, and never more than so many, or whoever waits would wait for long.
const ROUTES_A_ROUND: usize = 250;
const ROUNDS_FOR_ALL: usize = 12;

/// A MAC address.
pub type Mac = [u8; 6];

/// The way to each address, or why there is none.
pub type NextHops = BTreeMap<IpAddr, Result<NextHop, Unreachable>>;

/// How a frame for one backend leaves this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The egress interface's name.
    pub interface: Arc<str>,
    /// The egress interface's index.
    pub ifindex: u32,
    /// The router the frame goes to; `None` if the backend is on the link. It may be of the other family (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The address the kernel would send from towards the backend, of the backend's family.
    pub source: IpAddr,
    /// The egress interface's MAC address.
    pub source_mac: Mac,
    /// The MAC address of the gateway or, on the link, of the backend.
    pub mac: Mac,
    /// The largest IP packet in bytes that the link and the route carry.
    pub mtu: u32,
}

/// `eth0 via 10.0.0.1 (02:00:00:00:00:01)`, or `eth0 (02:00:00:00:00:01)` on the link.
impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.interface)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " ({})", self.mac.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

/// Why there is no next hop, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// No route covers the address.
    #[error("no route to {address}: add one with `ip route add`, or bring up the interface that leads there")]
    NoRoute {
        /// The backend's address.
        address: IpAddr,
    },
    /// A route covers the address only to refuse it.
    #[error("the route to {address} is a {kind} route: replace it, see `ip route get {address}`")]
    Refused {
        /// The backend's address.
        address: IpAddr,
        /// `blackhole`, `unreachable` or `prohibit`.
        kind: &'static str,
    },
    /// The address is the balancer's own.
    #[error("{address} is an address of this host: a backend has to be another machine")]
    Local {
        /// The backend's address.
        address: IpAddr,
    },
    /// The address is not that of one machine.
    #[error("{address} is a {kind} address: give the backend's unicast address")]
    NotUnicast {
        /// The backend's address.
        address: IpAddr,
        /// `broadcast`, `multicast` or `anycast`.
        kind: &'static str,
    },
    /// The egress interface is down or has no carrier.
    #[error(
        "interface {interface} is down: bring it up with `ip link set {interface} up`, or check its cable and peer"
    )]
    LinkDown {
        /// The egress interface's name.
        interface: Arc<str>,
    },
    /// The egress interface has no MAC addresses.
    #[error("interface {interface} does not carry Ethernet frames: route the backend over one that does")]
    NotEthernet {
        /// The egress interface's name.
        interface: Arc<str>,
    },
    /// The balancer has no address of the backend's family to send from.
    #[error(
        "there is no address to reach {address} from: add one of its family with `ip address add ... dev {interface}`"
    )]
    NoSource {
        /// The backend's address.
        address: IpAddr,
        /// The egress interface's name.
        interface: Arc<str>,
    },
    /// Nobody answered for the next hop's address, or nobody has yet.
    #[error(
        "{address} has not answered {} on {interface}: check that it is up and on that link",
        if address.is_ipv4() { "ARP" } else { "neighbor solicitations" }
    )]
    NoNeighbor {
        /// The egress interface's name.
        interface: Arc<str>,
        /// The address that was asked for: the gateway's or the backend's.
        address: IpAddr,
    },
}

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum NeighborsError {
    /// There is no netlink socket to be had.
    #[error("cannot open a netlink socket: {source}; does this sandbox allow AF_NETLINK?")]
    Connect {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a request that never fails in normal operation.
    #[error("the kernel refused to {action}: {source}")]
    Request {
        /// What was asked, such as `list the neighbors`.
        action: &'static str,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// Neighbour resolution needs a capability that the daemon lacks.
    #[error("not allowed to resolve neighbors: run with CAP_NET_ADMIN")]
    NotPermitted,
    /// An answer did not come.
    #[error(
        "the kernel gave no answer to the request to {action}: restart lb; if that does not help, please report it"
    )]
    Timeout {
        /// What was asked.
        action: &'static str,
    },
    /// The netlink connection ended.
    #[error("the netlink connection ended: restart lb")]
    Closed,
}

/// The kernel's view of the way to each backend; owns the netlink connections and ends them when dropped.
#[derive(Debug)]
pub struct Neighbors {
    kernel: Kernel,
    monitor: Monitor,
    routes: BTreeMap<IpAddr, Route>,
    /// The neighbours that routes lead to.
    in_use: BTreeSet<NeighborKey>,
    /// The last address whose route was looked up again.
    refreshed: Option<IpAddr>,
    own_macs: BTreeMap<u32, Mac>,
    probes: Probes,
    memory: Memory,
    /// The connections at work; none of them ends of its own accord.
    tasks: JoinSet<()>,
}

impl Neighbors {
    /// Connects to the kernel in the calling thread's network namespace; needs a tokio runtime with I/O and time.
    #[expect(clippy::unused_async, reason = "spawns its tasks, so it has to be called inside of a runtime")]
    pub async fn connect() -> Result<Self, NeighborsError> {
        let mut tasks = JoinSet::new();
        let monitor = Monitor::start(&mut tasks).map_err(|source| NeighborsError::Connect { source })?;
        let kernel = Kernel::connect(&mut tasks).map_err(|source| NeighborsError::Connect { source })?;
        let (probes, memory) = (Probes::default(), Memory::default());
        let (routes, in_use, own_macs) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Ok(Self { kernel, monitor, routes, in_use, refreshed: None, own_macs, probes, memory, tasks })
    }

    /// Resolves every address, and asks the kernel to find neighbours that are missing, failed or stale.
    ///
    /// It does not wait for the neighbours that it asks for: [`Neighbors::changed`] completes when they answer. To be
    /// called again then, and every few seconds so that silent neighbours are asked again.
    pub async fn resolve(&mut self, targets: &BTreeSet<IpAddr>) -> Result<NextHops, NeighborsError> {
        if self.monitor.take_topology_change() {
            self.routes.clear();
        }
        self.routes.retain(|address, _| targets.contains(address));
        self.in_use.clear();
        self.look_up_routes(targets).await?;
        let links = self.kernel.links().await?;
        // From here on a change of these neighbours wakes `changed`, so none is missed between the listing and its use.
        self.monitor.watch(self.routes.iter().filter_map(|(address, route)| route.neighbor(*address)));
        let next_hops = self.next_hops(targets, &links).await?;
        self.memory.keep(&self.in_use);
        self.own_macs = links.iter().filter_map(|(index, link)| Some((*index, link.mac?))).collect();
        Ok(next_hops)
    }

    /// Resolves more addresses, and looks at no other.
    pub async fn resolve_more(&mut self, targets: &BTreeSet<IpAddr>) -> Result<NextHops, NeighborsError> {
        self.look_up_routes(targets).await?;
        let links = self.kernel.links().await?;
        let key = |target: &IpAddr| self.routes.get(target)?.neighbor(*target);
        self.monitor.watch_more(targets.iter().filter_map(key));
        self.next_hops(targets, &links).await
    }

    /// The next hops of addresses whose routes are known.
    async fn next_hops(
        &mut self,
        targets: &BTreeSet<IpAddr>,
        links: &HashMap<u32, Link>,
    ) -> Result<NextHops, NeighborsError> {
        let neighbors = self.kernel.neighbors().await?;
        self.monitor.settle(&neighbors);
        if self.monitor.is_closed() || self.tasks.try_join_next().is_some() {
            // The lists may be cut short.
            return Err(NeighborsError::Closed);
        }
        let (routes, memory, now) = (&self.routes, &mut self.memory, Instant::now());
        let lookup = |target: &IpAddr| Some((*target, *routes.get(target)?));
        let mut mac_of = |key| {
            let told = neighbors.get(&key).and_then(|neighbor| neighbor.mac());
            memory.recall(key, told, now)
        };
        let resolved: Vec<_> = targets
            .iter()
            .filter_map(lookup)
            .map(|(target, route)| (target, resolve::next_hop(target, route, links, &mut mac_of)))
            .collect();
        self.note_use(&resolved);
        self.probe(&neighbors).await?;
        Ok(resolved.into_iter().collect())
    }

    /// The MAC addresses of the host's own interfaces, by index, as the last [`Self::resolve`] found them; of Ethernet only.
    pub fn own_macs(&self) -> &BTreeMap<u32, Mac> {
        &self.own_macs
    }

    /// Completes when routes, rules, links or addresses changed, or the MAC address of a neighbour in use, since the
    /// last call. Changes are coalesced: bursts complete it a few times a second. A lost event counts as a change, and so
    /// does a neighbour that the kernel forgot and has not found again for so long that it is believed to be gone.
    ///
    /// Cancel safe: a change that was not reported is reported by the next call.
    pub async fn changed(&mut self) -> Result<(), NeighborsError> {
        let Some(end) = self.memory.next_end() else { return self.monitor.changed().await };
        if let Ok(changed) = timeout_at(end, self.monitor.changed()).await {
            return changed;
        }
        // It is told once, also if the kernel then cannot be asked: whoever tries again must not do so at once.
        self.memory.expire(Instant::now());
        Ok(())
    }

    /// Has the kernel confirm what it knows of neighbours in use, and looks some routes up again; says whether any is another
    /// one now. To be called every few seconds.
    pub async fn keep_fresh(&mut self) -> Result<bool, NeighborsError> {
        let neighbors = self.kernel.neighbors().await?;
        self.probe(&neighbors).await?;
        let count = self.routes.len().div_ceil(ROUNDS_FOR_ALL).min(ROUTES_A_ROUND);
        let first = self.refreshed.map_or(Bound::Unbounded, Bound::Excluded);
        let aged: Vec<IpAddr> =
            self.routes.range((first, Bound::Unbounded)).map(|(target, _)| *target).take(count).collect();
        // At the end it begins anew.
        self.refreshed = aged.last().copied();
        let mut any = false;
        for target in aged {
            let route = self.kernel.route(target).await?;
            any |= self.routes.insert(target, route) != Some(route);
        }
        Ok(any)
    }

    /// Looks up the routes that are not known.
    async fn look_up_routes(&mut self, targets: &BTreeSet<IpAddr>) -> Result<(), NeighborsError> {
        for target in targets {
            if !self.routes.contains_key(target) {
                let route = self.kernel.route(*target).await?;
                self.routes.insert(*target, route);
            }
        }
        Ok(())
    }

    /// Takes note of the neighbours that `resolved` uses or lacks.
    fn note_use(&mut self, resolved: &[(IpAddr, Result<NextHop, Unreachable>)]) {
        let keys = resolved
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Ok(_) | Err(Unreachable::NoNeighbor { .. })))
            .filter_map(|(target, _)| self.routes.get(target)?.neighbor(*target));
        self.in_use.extend(keys);
    }

    /// Asks the kernel to find neighbours in use that are missing or doubtful, each at most as often as [`Probes`] says.
    async fn probe(&mut self, neighbors: &HashMap<NeighborKey, Neighbor>) -> Result<(), NeighborsError> {
        let now = Instant::now();
        self.probes.forget_before(now);
        for key in &self.in_use {
            if self.probes.due(*key, neighbors.get(key), now) {
                self.kernel.probe(*key).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_reads_like_a_route() {
        let on_link = NextHop {
            interface: "eth0".into(),
            ifindex: 2,
            gateway: None,
            source: [10, 0, 0, 2].into(),
            source_mac: [2, 0, 0, 0, 0, 2],
            mac: [2, 0, 0, 0, 0, 0xab],
            mtu: 1500,
        };
        assert_eq!(on_link.to_string(), "eth0 (02:00:00:00:00:ab)");
        let routed = NextHop { gateway: Some([10, 0, 0, 1].into()), ..on_link };
        assert_eq!(routed.to_string(), "eth0 via 10.0.0.1 (02:00:00:00:00:ab)");
    }
}
