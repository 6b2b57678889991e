//! A machine that is not on the balancer's link: a client becomes its router.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use super::{Group, Lab, Namespace, Node};

/// The machine's name, and that of the router's device towards it.
const FAR: &str = "far";
/// Its addresses; its router has 1 where they have 2.
const ADDRESS4: Ipv4Addr = Ipv4Addr::new(10, 0, 90, 2);
const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0x90, 0, 0, 0, 2);

/// A machine beyond a client. Dropping it removes it.
///
/// ```text
///   far eth0 ── far client2 eth0 ── client2 balancer
/// ```
#[derive(Debug)]
pub struct Beyond(Group);

impl Beyond {
    /// A machine whose link carries `mtu` bytes of IP, less than its connections say: their other ends have to be told.
    pub fn new(lab: &Lab, router: Node, mtu: u32) -> Result<Self> {
        let group = Group::unique(&[FAR])?;
        group.set_up_like(FAR, Node::Client(0))?;
        lab.namespace(router).run(|| {
            ["ipv4/ip_forward", "ipv6/conf/all/forwarding"]
                .into_iter()
                .try_for_each(|key| fs::write(format!("/proc/sys/net/{key}"), "1"))
                .context("cannot make a router of a client")
        })??;
        let name = group.full_name(FAR);
        lab.ip(
            router,
            &[
                format!("link add {FAR} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}"),
                format!("address add 10.0.90.1/24 dev {FAR}"),
                format!("address add fd00:0:0:90::1/64 dev {FAR} nodad"),
                format!("link set {FAR} up"),
            ],
        )?;
        group.ip(
            FAR,
            &[
                "link set lo up".to_owned(),
                format!("address add {ADDRESS4}/24 dev eth0"),
                format!("address add {ADDRESS6}/64 dev eth0 nodad"),
                "link set eth0 up".to_owned(),
                "route add default via 10.0.90.1 advmss 1460".to_owned(),
                "route add default via fd00:0:0:90::1 dev eth0 advmss 1440".to_owned(),
            ],
        )?;
        let ways =
            [("10.0.90.0/24", router.ipv4().to_string()), ("fd00:0:0:90::/64", router.ipv6().to_string())];
        lab.ip(
            Node::Balancer,
            &ways.map(|(network, gateway)| format!("route add {network} via {gateway} dev {router}")),
        )?;
        Ok(Self(group))
    }

    /// Its address of the same family as `other`.
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { ADDRESS4.into() } else { ADDRESS6.into() }
    }

    /// Where it is.
    pub fn namespace(&self) -> Namespace {
        self.0.namespace(FAR)
    }
}
