//! Who forwards: each contender's program or rules, and the route of the stream that is for it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_userspace::datapath::{AttachMode, Attachment, Capacity, Image, KernelDatapath, apply};
use lb_userspace::model::{AdminState, Backend, ForwardMode, Protocol, Service, Weight};
use lb_userspace::neighbors::NextHop;
use lb_userspace::placement::Services;

use super::super::{cases, image, key};
use super::network::{Link, Network};
use crate::process;
use crate::traffic::{FULL_WINDOW, Route, Sources, Traffic};

/// How long the `nft` command may take.
const PATIENCE: Duration = Duration::from_secs(10);

const REFLECTED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const DSR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const IPIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
const ONWARD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 13);
const ROUTED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 14);

/// One line of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// `XDP_TX` with the MAC addresses swapped.
    Reflector,
    /// The balancer, `dsr-l2`, back by the same link.
    Dsr,
    /// The balancer, `ipip`, back by the same link.
    Ipip,
    /// The balancer, `dsr-l2`, onward by another link.
    Onward,
    /// Destination NAT by the kernel's own nftables, onward by another link, the usual way.
    Nftables,
}

impl Contender {
    pub(super) const ALL: [Self; 5] = [Self::Reflector, Self::Dsr, Self::Ipip, Self::Onward, Self::Nftables];

    /// Its name in the report and the JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Reflector => "reflector",
            Self::Dsr => "lb_tx",
            Self::Ipip => "lb_ipip_tx",
            Self::Onward => "lb_redirect",
            Self::Nftables => "nftables",
        }
    }

    /// What it does with packets.
    pub(super) const fn deed(self) -> &'static str {
        match self {
            Self::Reflector => "back by the same link",
            Self::Dsr => "dsr-l2, back by the same link",
            Self::Ipip => "ipip, back by the same link",
            Self::Onward => "dsr-l2, onward by another link",
            Self::Nftables => "DNAT, onward by another link",
        }
    }

    /// By which link packets come in, for which address, and as what they arrive where.
    pub(super) fn route(self, network: &Network) -> Result<Route> {
        let (link, vip, arrives_at) = match self {
            Self::Reflector => (Link::Reflected, REFLECTED, (REFLECTED, 32)),
            Self::Dsr => (Link::Balanced, DSR, (DSR, 32)),
            Self::Ipip => (Link::Balanced, IPIP, Link::Balanced.subnet()),
            Self::Onward => (Link::Balanced, ONWARD, (ONWARD, 32)),
            Self::Nftables => (Link::Routed, ROUTED, Link::Onward.subnet()),
        };
        // A tunnel's packets come from the balancer itself.
        let sources = Sources::BUSY;
        let arrives_from = if self == Self::Ipip { (link.gateway(), 32) } else { sources.prefix() };
        let macs = [link.far_mac(), link.near_mac()];
        let ifindex = network.far_index(link)?;
        Ok(Route { ifindex, macs, sources, vip, window: FULL_WINDOW, arrives_from, arrives_at })
    }
}

/// The balancer at work. Dropping it detaches it.
pub(super) struct Balancer {
    _attachment: Attachment,
    _datapath: KernelDatapath,
}

/// Puts every contender to work.
pub(super) fn start(network: &Network, traffic: &mut Traffic) -> Result<Balancer> {
    for link in [Link::Reflected, Link::Balanced, Link::Onward] {
        let index = network.far_index(link)?;
        network.far(link).run(|| traffic.attach("count", index))??;
    }
    // Nothing arrives there, but the generator can only send from a veth that itself has a program.
    let (far, near) = (network.far_index(Link::Routed)?, network.near_index(Link::Reflected)?);
    network.far(Link::Routed).run(|| traffic.attach("count", far))??;
    network.balancer().run(|| traffic.attach("reflect", near))??;
    let mut nft = network.balancer().command("nft");
    nft.arg(rules());
    process::succeed(nft, PATIENCE).context("is nftables installed?")?;
    balancer(network)
}

/// Each new flow's backend is chosen by hash, which is then remembered.
fn rules() -> String {
    let backends: Vec<_> =
        Link::Onward.hosts().enumerate().map(|(n, host)| format!("{n} : {host}")).collect();
    let (count, backends) = (backends.len(), backends.join(", "));
    format!(
        "table ip lb {{ chain prerouting {{ type nat hook prerouting priority dstnat; \
         ip daddr {ROUTED} udp dport 80 dnat to jhash ip saddr . udp sport mod {count} map {{ {backends} }}; }}; }};"
    )
}

fn balancer(network: &Network) -> Result<Balancer> {
    let index = network.near_index(Link::Balanced)?;
    let services = services()?;
    let hops = next_hops([(Link::Balanced, index), (Link::Onward, network.near_index(Link::Onward)?)]);
    let mut datapath = KernelDatapath::load(key(), Capacity::default(), &[index])?;
    let image = image(&datapath, &services, &hops)?;
    apply(&mut datapath, &Image::default(), &image)?;
    let device = Link::Balanced.device();
    let attachment = network.balancer().run(|| datapath.attach(&device, index))??;
    ensure!(attachment.mode == AttachMode::Native, "a veth takes programs in its driver");
    Ok(Balancer { _attachment: attachment, _datapath: datapath })
}

fn services() -> Result<Services> {
    let some = [
        service(DSR, ForwardMode::DsrL2, Link::Balanced)?,
        service(IPIP, ForwardMode::Ipip, Link::Balanced)?,
        service(ONWARD, ForwardMode::DsrL2, Link::Onward)?,
    ];
    Ok(some.into_iter().map(|service| (service.name.clone(), service)).collect())
}

fn service(vip: Ipv4Addr, mode: ForwardMode, link: Link) -> Result<Service> {
    let backend = |host| {
        let endpoint = format!("{host}:80").parse()?;
        Ok(Backend { endpoint, weight: Weight::default(), admin: AdminState::Ready })
    };
    let backends = link.hosts().map(backend).collect::<Result<_>>()?;
    Ok(Service { protocol: Protocol::Udp, backends, ..cases::service(vip.into(), mode, Vec::new())? })
}

/// The ways to the hosts of links, whose near ends have these numbers.
fn next_hops(links: [(Link, u32); 2]) -> BTreeMap<IpAddr, NextHop> {
    let hops = links.into_iter().flat_map(|(link, ifindex)| {
        link.hosts().map(move |host| {
            let hop = NextHop {
                interface: link.device().into(),
                ifindex,
                gateway: None,
                source: link.gateway().into(),
                source_mac: link.near_mac(),
                mac: link.far_mac(),
                mtu: 1500,
            };
            (host.into(), hop)
        })
    });
    hops.collect()
}
