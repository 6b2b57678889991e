//! A host in a namespace of its own, with a service for each way to a backend and a route to the client.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use anyhow::{Context, Result, ensure};
use aya::programs::{TestRun, TestRunOptions};
use lb_common::layout::InterfaceEntry;
use lb_common::wire::Mac;
use lb_tests::net::{Group, Node};
use lb_userspace::datapath::{Image, KernelDatapath, apply};
use lb_userspace::model::{
    AdminState, Backend, Endpoint, ForwardMode, Port, Protocol, Service, ServiceOptions, Weight,
};
use lb_userspace::neighbors::NextHop;
use lb_userspace::placement::{Placement, Services, Standing, render};

use crate::fixtures::counts::ROW;
use crate::fixtures::frames::{CLIENT4, CLIENT6};
use crate::fixtures::sides::HEADROOM;
use crate::fixtures::world::{CAPACITY, CLIENT_MAC, INGRESS, INGRESS_MAC, key};

const HOST: &str = "decoder";

pub(super) const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(super) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);

/// What links carry.
pub(super) const MTU: u32 = 1500;

/// How to a backend, and whether over IPv6; `None` if in the packet's own family.
pub(super) const WAYS: [(ForwardMode, Option<bool>); 6] = [
    (ForwardMode::DsrL2, None),
    (ForwardMode::Ipip, Some(false)),
    (ForwardMode::Ipip, Some(true)),
    (ForwardMode::Gue, Some(false)),
    (ForwardMode::Gue, Some(true)),
    (ForwardMode::Nat, None),
];

/// Where both protocols of the first way are served on both VIPs; the others follow. No protocol of this port is known to the
/// decoder.
pub(super) const FIRST_PORT: u16 = 61_000;
/// Where backends of mode `nat` listen.
pub(super) const NAT_PORT: u16 = 61_100;

/// The backend of a way.
pub(super) fn backend(way: u8, is_ipv6: bool) -> IpAddr {
    if is_ipv6 {
        Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, u16::from(way) + 1).into()
    } else {
        Ipv4Addr::new(10, 0, 3, way + 1).into()
    }
}

fn services() -> Services {
    let mut services = Services::new();
    for (way, (mode, outer)) in (0u8..).zip(WAYS) {
        for vip in [IpAddr::from(VIP4), VIP6.into()] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let name = format!("{mode}-{outer:?}-{vip}-{protocol}");
                services.insert(name.clone(), service(name, way, vip, protocol));
            }
        }
    }
    services
}

fn number(port: u16) -> Port {
    Port::Number(NonZeroU16::new(port).expect("ports here are not zero"))
}

fn service(name: String, way: u8, vip: IpAddr, protocol: Protocol) -> Service {
    let (mode, outer) = WAYS[usize::from(way)];
    let port = number(FIRST_PORT + u16::from(way));
    let address = backend(way, outer.unwrap_or(vip.is_ipv6()));
    let listens = if mode == ForwardMode::Nat { number(NAT_PORT) } else { port };
    let endpoint = Endpoint { address, port: listens };
    let backends = vec![Backend { endpoint, weight: Weight::default(), admin: AdminState::Ready }];
    let options = ServiceOptions { announce: true, ..ServiceOptions::default() };
    let vip = Endpoint { address: vip, port };
    Service {
        name,
        vip,
        protocol,
        mode,
        table_size: 251,
        limits: Vec::new(),
        health: None,
        options,
        backends,
    }
}

fn next_hop(address: IpAddr) -> NextHop {
    let source = backend(253, address.is_ipv6());
    let (source_mac, mac) = (INGRESS_MAC, [2, 0xbe, 0, 0, 0, 1]);
    NextHop { interface: "lo".into(), ifindex: INGRESS, gateway: None, source, source_mac, mac, mtu: MTU }
}

/// The host.
pub(super) struct Host(Group);

impl Host {
    /// A router with the client on a link.
    pub(super) fn new() -> Result<Self> {
        let group = Group::unique(&[HOST])?;
        group.set_up_like(HOST, Node::Balancer)?;
        let mac = CLIENT_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let (v4, v6) = (Ipv4Addr::from(CLIENT4), Ipv6Addr::from(CLIENT6));
        group.ip(
            HOST,
            &[
                "link set lo up".to_owned(),
                "link add out type veth peer name far".to_owned(),
                "link set far up".to_owned(),
                "link set out up".to_owned(),
                format!("route add {v4} dev out"),
                format!("route add {v6} dev out"),
                format!("neighbor add {v4} lladdr {mac} dev out nud permanent"),
                format!("neighbor add {v6} lladdr {mac} dev out nud permanent"),
            ],
        )?;
        Ok(Self(group))
    }

    /// What the program, loaded on the host, makes of frames that come by `lo`; each must be sent somewhere.
    pub(super) fn send(&self, frames: &[(String, Vec<u8>)]) -> Result<Vec<Vec<u8>>> {
        self.0.namespace(HOST).run(|| {
            let mut datapath = load()?;
            frames
                .iter()
                .map(|(what, frame)| run(&mut datapath, frame).with_context(|| what.clone()))
                .collect()
        })?
    }
}

fn load() -> Result<KernelDatapath> {
    let services = services();
    let placement =
        Placement::new(&CAPACITY).next(&services, |_, backend| Standing::Serving(backend.weight))?;
    let hops: BTreeMap<IpAddr, NextHop> = services
        .values()
        .flat_map(|service| &service.backends)
        .map(|backend| (backend.endpoint.address, next_hop(backend.endpoint.address)))
        .collect();
    let mut image = render(&placement, &services, |address| hops.get(&address));
    image
        .interfaces
        .insert(ROW, InterfaceEntry { mac: Mac::new(INGRESS_MAC), known: 1, index: INGRESS, reserved: 0 });
    let mut datapath = KernelDatapath::load(key(), CAPACITY, &[INGRESS])?;
    apply(&mut datapath, &Image::default(), &image)?;
    Ok(datapath)
}

/// `XDP_TX` and `XDP_REDIRECT`.
const SENT: [u32; 2] = [3, 4];

fn run(datapath: &mut KernelDatapath, frame: &[u8]) -> Result<Vec<u8>> {
    let mut output = vec![0; frame.len() + HEADROOM];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut output), ..TestRunOptions::default() };
    let ran = datapath.program()?.test_run(options)?;
    ensure!(SENT.contains(&ran.return_value), "the program returned {}", ran.return_value);
    output.truncate(ran.data_size_out as usize);
    Ok(output)
}
