//! Who is in the network, and with which addresses and settings.
//!
//! | node | IPv4 | IPv6 | its gateway, the balancer |
//! |---|---|---|---|
//! | client N | 10.0.N.2 | `fd00:0:0:N::2` | 10.0.N.1, `fd00:0:0:N::1` |
//! | backend N | 10.0.1N.2 | `fd00:0:0:1N::2` | 10.0.1N.1, `fd00:0:0:1N::1` |
//!
//! Every backend has both VIPs on `lo`.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// The IPv4 address of the services.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The IPv6 address of the services.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

/// Every client.
pub const CLIENTS: [Node; 2] = [Node::Client(1), Node::Client(2)];
/// Every backend.
pub const BACKENDS: [Node; 3] = [Node::Backend(1), Node::Backend(2), Node::Backend(3)];

/// What the clients' links carry.
pub(super) const CLIENT_MTU: u32 = 1500;
/// Room for the outer headers of a tunnel (48 bytes of IPv6 and UDP) above that.
const BACKEND_MTU: u32 = CLIENT_MTU + 100;

/// Device features of the clients' and backends' ends.
///
/// XDP redirects into a veth only if the other end polls (NAPI), which GRO turns on; a checksum that the sender left
/// to the hardware is not computed by anybody on the way through XDP, so the senders compute their own.
pub(super) const EDGE_FEATURES: &[(&str, bool)] = &[("tx-checksum-ip-generic", false), ("rx-gro", true)];

/// A machine of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// Asks for services.
    Client(u8),
    /// Runs the load balancer.
    Balancer,
    /// Offers services.
    Backend(u8),
}

impl Node {
    /// Every machine.
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Balancer).chain(Self::edges())
    }

    /// Every machine but the balancer.
    pub fn edges() -> impl Iterator<Item = Self> {
        CLIENTS.into_iter().chain(BACKENDS)
    }

    /// The number of its link: the third byte of its IPv4 addresses. The balancer, being on all of them, has none.
    const fn link(self) -> u8 {
        match self {
            Self::Client(number) => number,
            Self::Balancer => 0,
            Self::Backend(number) => 10 + number,
        }
    }

    /// Its IPv4 address.
    pub const fn ipv4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.link(), 2)
    }

    /// Its IPv6 address. The link's number is written in decimal digits, so that it looks like IPv4's.
    pub const fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, self.hextet(), 0, 0, 0, 2)
    }

    /// The balancer's IPv4 address on its link.
    pub const fn gateway4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.link(), 1)
    }

    /// The balancer's IPv6 address on its link.
    pub const fn gateway6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, self.hextet(), 0, 0, 0, 1)
    }

    /// Its address of the same family as `other`.
    pub const fn address_like(self, other: IpAddr) -> IpAddr {
        match other {
            IpAddr::V4(_) => IpAddr::V4(self.ipv4()),
            IpAddr::V6(_) => IpAddr::V6(self.ipv6()),
        }
    }

    const fn hextet(self) -> u16 {
        let link = self.link() as u16;
        link / 10 * 16 + link % 10
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(number) => write!(f, "client{number}"),
            Self::Balancer => f.write_str("balancer"),
            Self::Backend(number) => write!(f, "backend{number}"),
        }
    }
}

impl FromStr for Node {
    type Err = anyhow::Error;

    /// `client` and `backend` without a number mean the first.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "client" => return Ok(Self::Client(1)),
            "backend" => return Ok(Self::Backend(1)),
            _ => {}
        }
        if let Some(node) = Self::all().find(|node| node.to_string() == text) {
            return Ok(node);
        }
        let names: Vec<String> = Self::all().map(|node| node.to_string()).collect();
        bail!("there is no {text:?} in the lab; it has {}", names.join(", "))
    }
}

/// `ip -batch` lines for the balancer's namespace, which makes every link. `name` maps a node to its namespace.
pub(super) fn balancer_lines(name: impl Fn(Node) -> String) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned()];
    for node in Node::edges() {
        let (v4, v6, mtu) = (node.gateway4(), node.gateway6(), mtu(node));
        let peer = name(node);
        lines.push(format!("link add {node} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {peer}"));
        lines.push(format!("address add {v4}/24 dev {node}"));
        lines.push(format!("address add {v6}/64 dev {node} nodad"));
        lines.push(format!("link set {node} up"));
    }
    lines
}

/// `ip -batch` lines for the namespace of a client or backend.
pub(super) fn edge_lines(node: Node) -> Vec<String> {
    let (v4, v6) = (node.ipv4(), node.ipv6());
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("address add {v4}/24 dev eth0"),
        format!("address add {v6}/64 dev eth0 nodad"),
        "link set eth0 up".to_owned(),
    ];
    lines.extend(default_routes(node, CLIENT_MTU, CLIENT_MTU));
    if matches!(node, Node::Backend(_)) {
        lines.push(format!("address add {VIP4}/32 dev lo"));
        lines.push(format!("address add {VIP6}/128 dev lo nodad"));
    }
    lines
}

/// The ways to the others, which carry `mtu` bytes of IP, while the other ends of connections are told of `told`.
pub(super) fn default_routes(node: Node, mtu: u32, told: u32) -> [String; 2] {
    let (v4, v6, tcp4, tcp6) = (node.gateway4(), node.gateway6(), told - 40, told - 60);
    [
        format!("route replace default via {v4} dev eth0 mtu {mtu} advmss {tcp4}"),
        format!("route replace default via {v6} dev eth0 mtu {mtu} advmss {tcp6}"),
    ]
}

const fn mtu(node: Node) -> u32 {
    match node {
        Node::Backend(_) => BACKEND_MTU,
        _ => CLIENT_MTU,
    }
}

/// Writes the kernel settings of the namespace that the calling thread is in.
pub(super) fn write_settings(node: Node) -> Result<()> {
    for (key, value) in settings(node) {
        fs::write(format!("/proc/sys/net/{key}"), value)
            .with_context(|| format!("cannot set {key} to {value}"))?;
    }
    Ok(())
}

fn settings(node: Node) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        // Replies come from the VIP, to which no route leads: reverse-path filtering would drop them.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // Nobody else is on these links: do not wait for a duplicate, nor for a router.
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
    ];
    match node {
        Node::Balancer => {
            settings.extend([("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
        }
        Node::Backend(_) => {
            // A backend must not answer ARP for the VIP on its lo, nor ask with it as the sender.
            settings.extend([("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")]);
        }
        // Whoever is root may ping.
        Node::Client(_) => settings.push(("ipv4/ping_group_range", "0 0")),
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_show_the_number_of_the_node() {
        assert_eq!(Node::Backend(3).ipv4().to_string(), "10.0.13.2");
        assert_eq!(Node::Backend(3).ipv6().to_string(), "fd00:0:0:13::2");
        assert_eq!(Node::Client(2).gateway6().to_string(), "fd00:0:0:2::1");
    }

    #[test]
    fn names_are_read_back() {
        for node in Node::all() {
            assert_eq!(node.to_string().parse::<Node>().unwrap(), node);
        }
        assert_eq!("client".parse::<Node>().unwrap(), Node::Client(1));
        assert!("client9".parse::<Node>().unwrap_err().to_string().contains("client1, client2"));
    }
}
