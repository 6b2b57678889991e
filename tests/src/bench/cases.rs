//! The cases: what is sent, to which service, and which floor does the least that must be done with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use lb_common::bench::{HEAD_WORDS, LOOKS, RUNS, Script};
use lb_common::layout;
use lb_common::lists::Side;
use lb_common::slot::{BackendId, Slot};
use lb_common::wire::{
    Be16, Be32, ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, IPV4_LENGTH, IPV6_LENGTH,
    Ipv4Address, Ipv4Header, Ipv6Address, Ipv6Header, Mac, Ports, TCP_ACK, TCP_LENGTH, TCP_SYN, TcpStart,
    protocol,
};
use lb_userspace::config::packets_per_source;
use lb_userspace::datapath::{Image, KernelDatapath, ListEntry};
use lb_userspace::model::{
    AdminState, Backend, ForwardMode, Limit, ListName, Lists, Protocol, Service, ServiceOptions, Weight,
};
use lb_userspace::neighbors::NextHop;
use lb_userspace::placement::{Services, ask_lists, list_entries, render};

use super::place;

/// `XDP_PASS` and `XDP_TX` of `include/uapi/linux/bpf.h`.
pub(super) const PASS: u32 = 2;
pub(super) const TRANSMIT: u32 = 3;
/// `XDP_DROP` of the same file.
const DROP: u32 = 1;

/// Length of every frame: the headers of both families fit, and little else, for small packets are the hard ones.
const LENGTH: usize = HEAD_WORDS * 8 + 4;

/// One thing to measure.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// The floor it is compared with; none for a floor itself.
    pub(super) floor: Option<&'static str>,
    destination: IpAddr,
    /// Number of flows, a power of two.
    pub(super) flows: u64,
    tcp_flags: u8,
    pub(super) action: u32,
    /// Whether the frame gets an outer header.
    pub(super) grows: bool,
    /// Packets to send before anything is measured: enough that every flow is remembered that is to be.
    pub(super) warm_up: u64,
    /// Whether nearly every packet is of a remembered flow.
    pub(super) is_known: bool,
}

const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const DSR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const IPIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11));
const LIMITED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 12));
const LIMITED_EXACTLY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 13));
const MOVING: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 14));
const GUE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 15));
const NAT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 16));
const LISTED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 17));
const OVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 18));
const IPIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11));

const HOT: u64 = 1;
const MILLION: u64 = 1 << 20;
const FLOOD: u64 = 1 << 26;

/// Every case, floors first.
pub(super) fn all() -> Vec<Case> {
    let floor = |name, action, grows| case(name, None, IPIP, HOT, TCP_ACK, action, grows);
    let tunnelled =
        |name, to, flows, flags| case(name, Some("encap20_floor"), to, flows, flags, TRANSMIT, true);
    vec![
        floor("pass_floor", PASS, false),
        floor("macs_floor", TRANSMIT, false),
        floor("nat_floor", TRANSMIT, false),
        floor("encap20_floor", TRANSMIT, true),
        floor("encap28_floor", TRANSMIT, true),
        floor("encap40_floor", TRANSMIT, true),
        case("not_a_service", Some("pass_floor"), FAR, HOT, TCP_ACK, PASS, false),
        tunnelled("established_hot", IPIP, HOT, TCP_ACK),
        tunnelled("established_1m", IPIP, MILLION, TCP_ACK),
        tunnelled("syn_flood", IPIP, FLOOD, TCP_SYN),
        Case {
            // Each flow comes twice: the second packet confirms it.
            warm_up: 2 * MILLION,
            is_known: true,
            ..tunnelled("moving_hit_1m", MOVING, MILLION, TCP_ACK)
        },
        tunnelled("moving_syn_flood", MOVING, FLOOD, TCP_SYN),
        tunnelled("limiter_hot", LIMITED, HOT, TCP_ACK),
        tunnelled("limiter_exact_hot", LIMITED_EXACTLY, HOT, TCP_ACK),
        tunnelled("limiter_spoofed_flood", LIMITED, FLOOD, TCP_ACK),
        case("limited_hot", Some("pass_floor"), OVER, HOT, TCP_ACK, DROP, false),
        case("denied_hot", Some("pass_floor"), LISTED, HOT, TCP_ACK, DROP, false),
        case("denied_flood", Some("pass_floor"), LISTED, FLOOD, TCP_ACK, DROP, false),
        case("v6_established_hot", Some("encap40_floor"), IPIP6, HOT, TCP_ACK, TRANSMIT, true),
        case("gue_established_hot", Some("encap28_floor"), GUE, HOT, TCP_ACK, TRANSMIT, true),
        case("nat_established_hot", Some("nat_floor"), NAT, HOT, TCP_ACK, TRANSMIT, false),
        case("dsr_l2_established_hot", Some("macs_floor"), DSR, HOT, TCP_ACK, TRANSMIT, false),
    ]
}

fn case(
    name: &'static str,
    floor: Option<&'static str>,
    destination: IpAddr,
    flows: u64,
    tcp_flags: u8,
    action: u32,
    grows: bool,
) -> Case {
    Case { name, floor, destination, flows, tcp_flags, action, grows, warm_up: RUNS, is_known: false }
}

impl Case {
    /// What the wrapper does for this case.
    pub(super) fn script(&self) -> Result<Script> {
        let (mut frame, flow_at) = match self.destination {
            IpAddr::V4(destination) => (ipv4(destination), ETHERNET_LENGTH + 12),
            IpAddr::V6(destination) => (ipv6(destination), ETHERNET_LENGTH + 20),
        };
        frame.extend_from_slice(bytemuck::bytes_of(&TcpStart {
            ports: Ports::new(40_000, 80),
            sequence: Be32::new(1),
            acknowledgement: Be32::new(1),
            data_offset: 5 << 4,
            flags: self.tcp_flags,
            window: Be16::new(1000),
        }));
        frame.resize(LENGTH, 0);
        let head = frame.get(..HEAD_WORDS * 8).context("the frame is shorter than its head")?;
        Ok(Script {
            head: bytemuck::pod_read_unaligned(head),
            length: LENGTH as u64,
            flows_mask: self.flows - 1,
            flow_at: flow_at as u64,
            flow_base: u64::from(u32::from(Ipv4Addr::new(10, 0, 0, 0))),
            moves_head: 0,
            runs: 0,
            clock: [0; LOOKS],
        })
    }
}

fn ethernet(ethertype: Be16) -> Vec<u8> {
    let header = EthernetHeader { destination: Mac::new([2; 6]), source: Mac::new([4; 6]), ethertype };
    bytemuck::bytes_of(&header).to_vec()
}

fn ipv4(destination: Ipv4Addr) -> Vec<u8> {
    let header = Ipv4Header {
        version_ihl: 0x45,
        tos: 0,
        total_length: Be16::new((IPV4_LENGTH + TCP_LENGTH) as u16),
        identification: Be16::new(1),
        fragment: Be16::new(0x4000),
        ttl: 64,
        protocol: protocol::TCP,
        checksum: Be16::new(0),
        source: Ipv4Address::new([0; 4]),
        destination: Ipv4Address::new(destination.octets()),
    };
    [ethernet(ETHERTYPE_IPV4), bytemuck::bytes_of(&header).to_vec()].concat()
}

fn ipv6(destination: Ipv6Addr) -> Vec<u8> {
    let header = Ipv6Header {
        version_class_flow: Be32::new(6 << 28),
        payload_length: Be16::new(TCP_LENGTH as u16),
        next_header: protocol::TCP,
        hop_limit: 64,
        source: Ipv6Address::new([0x20; 16]),
        destination: Ipv6Address::new(destination.octets()),
    };
    debug_assert_eq!(size_of_val(&header), IPV6_LENGTH, "no options");
    [ethernet(ETHERTYPE_IPV6), bytemuck::bytes_of(&header).to_vec()].concat()
}

/// The services that the cases are for: ten backends each.
fn services() -> Result<Services> {
    // 100 million a second is never reached. The burst decides on the clock: 0.1 s, and 1 µs.
    let limit = |burst| Limit::try_new("source", packets_per_source(100_000_000, burst));
    let some = [
        service(DSR, ForwardMode::DsrL2, Vec::new())?,
        service(IPIP, ForwardMode::Ipip, Vec::new())?,
        service(IPIP6, ForwardMode::Ipip, Vec::new())?,
        service(MOVING, ForwardMode::Ipip, Vec::new())?,
        service(GUE, ForwardMode::Gue, Vec::new())?,
        service(NAT, ForwardMode::Nat, Vec::new())?,
        service(LISTED, ForwardMode::Ipip, Vec::new())?,
        service(LIMITED, ForwardMode::Ipip, vec![limit(10_000_000)?])?,
        service(LIMITED_EXACTLY, ForwardMode::Ipip, vec![limit(100)?])?,
        // One packet a second, and so next to none.
        service(OVER, ForwardMode::Ipip, vec![Limit::try_new("source", packets_per_source(1, 1))?])?,
    ];
    Ok(some.into_iter().map(|service| (service.name.clone(), service)).collect())
}

/// Backends of each service.
const BACKENDS: u16 = 10;

/// Services are named after their VIPs.
fn name(vip: IpAddr) -> String {
    SocketAddr::new(vip, 80).to_string()
}

pub(super) fn service(vip: IpAddr, mode: ForwardMode, limits: Vec<Limit>) -> Result<Service> {
    let backend: fn(u16) -> String = match vip {
        IpAddr::V4(_) => |n| format!("10.0.1.{n}:80"),
        IpAddr::V6(_) => |n| format!("[fd00::{n}]:80"),
    };
    let backend = |n| {
        let endpoint = backend(n).parse()?;
        Ok(Backend { endpoint, weight: Weight::default(), admin: AdminState::Ready })
    };
    Ok(Service {
        name: name(vip),
        vip: name(vip).parse()?,
        protocol: Protocol::Tcp,
        mode,
        table_size: 65_537,
        limits,
        health: None,
        options: ServiceOptions::default(),
        backends: (1..=BACKENDS).map(backend).collect::<Result<_>>()?,
    })
}

/// What the tables hold while the cases run: all slots of one service move.
pub(super) fn image(datapath: &KernelDatapath) -> Result<Image> {
    let services = services()?;
    let hops = next_hops(&services);
    let placement = place(datapath, &services)?;
    let mut image = render(&placement, &services, |address| hops.get(&address));
    let moving = placement.service(&name(MOVING)).context("the moving service has no place")?;
    let slots = image.slots.get_mut(&moving.first_slot()).context("the moving service has no slots")?;
    *slots = slots.iter().map(|slot| move_slot(*slot)).collect::<Option<_>>().context("too many backends")?;
    // One service alone asks the lists, as if there were none for the others.
    ask_lists(&mut image, Some(SIDE));
    let listed = placement.service(&name(LISTED)).context("the listed service has no place")?.row();
    for entry in image.services.values_mut().filter(|entry| entry.id != listed) {
        entry.flags &= !layout::LISTED;
    }
    Ok(image)
}

/// The table of lists that is asked.
pub(super) const SIDE: Side = Side::A;

/// Prefixes on the deny list.
const DENIED: u32 = 10_000;

/// All sources of a flood are denied, and among them networks of all lengths once more.
pub(super) fn lists() -> Result<Vec<ListEntry>> {
    let mut lists = Lists::default();
    lists.add(ListName::Deny, "8.0.0.0/5".parse()?)?;
    for number in 0..DENIED {
        let bits = 8 << 24 | number.wrapping_mul(0x9e37_79b1) >> 5;
        let length = 16 + number % 17;
        let network = Ipv4Addr::from_bits(bits & u32::MAX << (32 - length));
        lists.add(ListName::Deny, format!("{network}/{length}").parse()?)?;
    }
    Ok(list_entries(&lists))
}

/// As if the slot had been its owner's neighbour's until now.
fn move_slot(slot: Slot) -> Option<Slot> {
    let owner = slot.current();
    Some(Slot::moving(owner, BackendId::try_new((owner.number() + 1) % BACKENDS)?))
}

/// A way to every backend: back out of the interface that test runs pretend to come from.
fn next_hops(services: &Services) -> BTreeMap<IpAddr, NextHop> {
    let hop = |address: IpAddr| NextHop {
        interface: "lo".into(),
        ifindex: 1,
        gateway: None,
        source: if address.is_ipv4() {
            Ipv4Addr::new(10, 0, 1, 254).into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        },
        source_mac: [2; 6],
        mac: [4; 6],
        mtu: 1500,
    };
    let addresses =
        services.values().flat_map(|service| &service.backends).map(|backend| backend.endpoint.address);
    addresses.map(|address| (address, hop(address))).collect()
}
