//! Networks of namespaces, made through the `ip` command and removed by their owner.
//!
//! One veth pair joins each client and each backend to the balancer:
//!
//! ```text
//!   client1 eth0 ── client1 ┐          ┌ backend1 ── eth0 backend1   VIPs on lo
//!                           │ balancer ├ backend2 ── eth0 backend2   VIPs on lo
//!   client2 eth0 ── client2 ┘          └ backend3 ── eth0 backend3   VIPs on lo
//! ```
//!
//! The balancer's kernel routes whatever the XDP program passes: health checks and the backends' direct replies.

mod beyond;
mod features;
mod group;
mod ip;
mod namespace;
mod plan;
mod xdp_counts;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, process};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

pub use beyond::Beyond;
pub use group::Group;
pub use namespace::Namespace;
pub use plan::{BACKENDS, CLIENTS, Node, VIP4, VIP6};
pub use xdp_counts::XdpCounts;

use crate::{interrupt, wait};

/// How long the kernel may take to bring all links and addresses up.
const LINKS_UP: Duration = Duration::from_secs(10);

/// The names that `lb-lab up` gives its namespaces, so that a person can type them.
pub const FIXED_PREFIX: &str = "lb-";

/// A network of namespaces. Dropping it removes every one of them.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    kept: bool,
}

impl Lab {
    /// A network with names that no other process uses.
    pub fn unique() -> Result<Self> {
        Self::build(unique_prefix())
    }

    /// The network with the fixed names of `lb-lab up`.
    pub fn fixed() -> Result<Self> {
        Self::build(FIXED_PREFIX.to_owned())
    }

    fn build(prefix: String) -> Result<Self> {
        interrupt::check()?;
        // The value exists before the first namespace does: whatever fails from here on is cleaned up by `drop`.
        let lab = Self { prefix, kept: false };
        ensure!(lab.leftovers().is_empty(), "there are namespaces named {}* already", lab.prefix);
        lab.create().context("cannot build the network")?;
        wait::until(LINKS_UP, "all links and addresses are up", || lab.check_ready())?;
        Ok(lab)
    }

    fn create(&self) -> Result<()> {
        ip::host(&Node::all().map(|node| format!("netns add {}", self.name(node))).collect::<Vec<_>>())?;
        for node in Node::all() {
            self.namespace(node).run(move || plan::write_settings(node))??;
        }
        ip::inside(&self.name(Node::Balancer), &plan::balancer_lines(|node| self.name(node)))?;
        for node in Node::edges() {
            ip::inside(&self.name(node), &plan::edge_lines(node))?;
            self.namespace(node).run(|| features::set("eth0", plan::EDGE_FEATURES))??;
        }
        Ok(())
    }

    fn check_ready(&self) -> Result<()> {
        for node in Node::all() {
            let name = self.name(node);
            for link in ip::query(&name, &["address", "show"])?.as_array().into_iter().flatten() {
                ensure!(is_ready(link), "in {name} this is not up yet: {link}");
            }
        }
        Ok(())
    }

    /// The namespace of `node`.
    pub fn namespace(&self, node: Node) -> Namespace {
        Namespace::named(self.name(node))
    }

    fn name(&self, node: Node) -> String {
        format!("{}{node}", self.prefix)
    }

    /// What `ip` tells about an interface, with details.
    pub fn link(&self, node: Node, interface: &str) -> Result<Value> {
        let links = ip::query(&self.name(node), &["-details", "link", "show", "dev", interface])?;
        links.get(0).cloned().with_context(|| format!("{node} has no {interface}"))
    }

    /// The index of an interface.
    pub fn ifindex(&self, node: Node, interface: &str) -> Result<u32> {
        let index = self.link(node, interface)?["ifindex"].as_u64().context("no number")?;
        Ok(u32::try_from(index)?)
    }

    /// The MAC address of an interface.
    pub fn mac(&self, node: Node, interface: &str) -> Result<[u8; 6]> {
        let link = self.link(node, interface)?;
        let text = link["address"].as_str().context("no MAC address")?;
        let bytes: Vec<u8> =
            text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
        bytes.try_into().map_err(|_| anyhow!("{text} is not a MAC address"))
    }

    /// Whether an XDP program sits on an interface.
    pub fn has_xdp(&self, node: Node, interface: &str) -> Result<bool> {
        Ok(self.link(node, interface)?.get("xdp").is_some())
    }

    /// Lets the clients' links carry `mtu` bytes of IP, the backends' 100 more for outer headers, and the routes say so.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        Node::edges().try_for_each(|node| {
            let of_link = if matches!(node, Node::Backend(_)) { mtu + 100 } else { mtu };
            self.set_link_mtu(node, of_link)?;
            self.ip(node, &plan::default_routes(node, mtu, mtu))
        })
    }

    /// Lets the link of a client or backend carry only `mtu` bytes of IP, of which nobody who sends to it is told beforehand.
    pub fn narrow(&self, node: Node, mtu: u32) -> Result<()> {
        self.ip(node, &plan::default_routes(node, mtu, plan::CLIENT_MTU))?;
        self.set_link_mtu(node, mtu)
    }

    /// What the balancer's device towards each client and backend itself counts of the XDP program on it.
    pub fn xdp_counts(&self) -> Result<Vec<(Node, XdpCounts)>> {
        let counts = || Node::edges().map(|node| Ok((node, xdp_counts::read(&node.to_string())?))).collect();
        self.namespace(Node::Balancer).run(counts)?
    }

    /// Lets the links of the balancer fail and recover without a loss of its addresses.
    pub fn keep_addresses(&self) -> Result<()> {
        let keep = || fs::write("/proc/sys/net/ipv6/conf/all/keep_addr_on_down", "1");
        self.namespace(Node::Balancer).run(keep)?.context("cannot keep addresses")
    }

    /// Lets the balancer's link to a client or backend fail, or recover, and waits until both ends know: until then, which
    /// may be a second (`net/core/link_watch.c`), they send nothing.
    pub fn set_link(&self, node: Node, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        self.ip(Node::Balancer, &[format!("link set {node} {state}")])?;
        wait::until(LINKS_UP, "both ends know the state of the link", || {
            for (end, device) in [(node, "eth0".to_owned()), (Node::Balancer, node.to_string())] {
                let link = self.link(end, &device)?;
                ensure!((link["operstate"] == "UP") == up, "{end}: {link}");
            }
            Ok(())
        })
    }

    /// Lets the link of a client or backend carry `mtu` bytes of IP.
    pub fn set_link_mtu(&self, node: Node, mtu: u32) -> Result<()> {
        self.ip(Node::Balancer, &[format!("link set {node} mtu {mtu}")])?;
        self.ip(node, &[format!("link set eth0 mtu {mtu}")])
    }

    /// Makes the balancer's device towards a client a port of a new bridge, which has its addresses from now on.
    pub fn put_behind_bridge(&self, node: Node, bridge: &str) -> Result<()> {
        let lines = [format!("link add {bridge} type bridge"), format!("link set {node} master {bridge}")];
        self.put_behind(node, bridge, &lines)
    }

    /// Gives the addresses of the balancer's device towards a client to another device, which these lines make.
    pub fn put_behind(&self, node: Node, device: &str, make: &[String]) -> Result<()> {
        let (v4, v6) = (node.gateway4(), node.gateway6());
        let mut lines = vec![format!("address flush dev {node}")];
        lines.extend_from_slice(make);
        lines.extend([
            format!("address add {v4}/24 dev {device}"),
            format!("address add {v6}/64 dev {device} nodad"),
            format!("link set {device} up"),
        ]);
        self.ip(Node::Balancer, &lines)
    }

    /// How many bytes of IP `node` believes to fit the way to an address, if somebody or something told it.
    pub fn path_mtu(&self, node: Node, to: IpAddr) -> Result<Option<u64>> {
        let routes = ip::query(&self.name(node), &["route", "get", &to.to_string()])?;
        Ok(routes[0]["metrics"][0]["mtu"].as_u64())
    }

    /// Runs lines of `ip -batch` in the namespace of `node`.
    pub fn ip(&self, node: Node, lines: &[String]) -> Result<()> {
        ip::inside(&self.name(node), lines)
    }

    /// Lets the network outlive its owner.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// The namespaces of this network that exist now.
    pub fn leftovers(&self) -> Vec<String> {
        existing(&names(&self.prefix))
    }

    /// What names this network's namespaces begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = remove(&names(&self.prefix)) {
            eprintln!("could not remove the namespaces {}*: {error:#}", self.prefix);
        }
    }
}

/// Removes the network with the fixed names, if it is there.
pub fn remove_fixed() -> Result<()> {
    remove(&names(FIXED_PREFIX))
}

/// A namespace of the network with the fixed names.
pub fn fixed_namespace(node: Node) -> Namespace {
    Namespace::named(format!("{FIXED_PREFIX}{node}"))
}

/// Whether a part of the network with the fixed names is there.
pub fn fixed_exists() -> bool {
    !existing(&names(FIXED_PREFIX)).is_empty()
}

/// A prefix that no other process uses, nor this one again.
fn unique_prefix() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("lb{}-{}-", process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// Removes those of the namespaces that exist.
///
/// Deletes the links first: the kernel frees a namespace some time after its name, and its links only then.
fn remove(names: &[String]) -> Result<()> {
    let mut failures = Vec::new();
    for name in existing(names) {
        failures.extend(ip::delete_links(&name).err());
        failures.extend(ip::host(&[format!("netns delete {name}")]).err());
    }
    match failures.pop() {
        None => Ok(()),
        Some(_) if existing(names).is_empty() => Ok(()),
        Some(error) => bail!(error),
    }
}

/// The names that this module gives a lab's namespaces: a stranger's `lb-something` is left alone.
fn names(prefix: &str) -> Vec<String> {
    Node::all().map(|node| format!("{prefix}{node}")).collect()
}

fn existing(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| fs::exists(namespace::path(name)).unwrap_or(false)).cloned().collect()
}

/// A link works when it has its carrier and none of its addresses is still being checked for a duplicate.
fn is_ready(link: &Value) -> bool {
    let state = link["operstate"].as_str();
    let settled = |address: &Value| address.get("tentative").is_none();
    let up = state == Some("UP") || link["ifname"] == "lo";
    up && link["addr_info"].as_array().is_some_and(|addresses| {
        addresses.iter().all(settled) && addresses.iter().any(|address| address["family"] == "inet6")
    })
}
