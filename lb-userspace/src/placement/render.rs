//! From a placement to the contents of the tables.

use std::net::IpAddr;

use bytemuck::Zeroable;
use lb_common::deliver::outer_sum;
use lb_common::layout::{
    BackendEntry, EXACT_CLOCK, LIMITED, OUTER_IPV4, OUTER_IPV6, OuterAddresses, ServiceEntry, USABLE, VipSet,
};
use lb_common::limiter::Gcra;
use lb_common::wire::{Ipv4Address, Ipv6Address, Mac};

use super::{Placed, Placement, Services, service_key, vip_key};
use crate::datapath::Image;
use crate::model::{ForwardMode, Limit, Service};
use crate::neighbors::NextHop;

/// The longest kernel tick (`CONFIG_HZ=100`): a burst that covers two of them does with the coarse clock.
const LONGEST_TICK_NS: u64 = 10_000_000;

/// The tables for `services` placed as `placement` says, with the next hops that are known.
///
/// A backend without a next hop gets an entry that is not usable, so that its packets are counted and not misdelivered.
pub fn render<'h>(
    placement: &Placement,
    services: &Services,
    next_hop: impl Fn(IpAddr) -> Option<&'h NextHop>,
) -> Image {
    let mut image = Image::default();
    for (address, vip) in &placement.vips {
        let set = image.vips.entry(vip.set).or_insert_with(VipSet::zeroed);
        let key = vip_key(*address);
        (set.low[vip.way], set.high[vip.way], set.region[vip.way]) = (key.low, key.high, vip.region);
    }
    for (service, placed) in services.values().filter_map(|s| Some((s, placement.services.get(&s.name)?))) {
        if let Some(vip) = placement.vips.get(&service.vip.address) {
            let key = service_key(service);
            let index = if key == key.any_port() { vip.region.wildcard(key) } else { vip.region.index(key) };
            image.services.insert(index, service_entry(service, placed));
        }
        image.slots.insert(placed.slots.start, placed.words.clone());
        for (endpoint, row) in placed.backend_rows() {
            let hop = next_hop(endpoint.address).filter(|hop| deliverable(service.mode, hop).is_ok());
            let entry = hop.map(|hop| backend_entry(service.mode, endpoint.address, hop));
            image.backends.insert(row, entry.unwrap_or_else(BackendEntry::zeroed));
        }
    }
    image
}

/// Whether packets of this mode arrive by this way, or why not.
pub fn deliverable(mode: ForwardMode, hop: &NextHop) -> Result<(), String> {
    match hop.gateway {
        Some(gateway) if mode == ForwardMode::DsrL2 => Err(format!(
            "it is behind the router {gateway}, and dsr-l2 reaches only backends on a link of this host: use ipip"
        )),
        _ => Ok(()),
    }
}

fn service_entry(service: &Service, placed: &Placed) -> ServiceEntry {
    let (flags, limit) = service.limit.as_ref().map_or((0, Gcra::zeroed()), limit_entry);
    ServiceEntry {
        key: service_key(service),
        id: placed.id.start,
        slot_base: placed.slots.start,
        slot_count: placed.table.len() as u32,
        backend_base: placed.backends.start,
        flags,
        limit,
        reserved: [0; 3],
    }
}

/// The flags and parameters of a limit. The configuration has refused those that GCRA cannot hold.
fn limit_entry(limit: &Limit) -> (u32, Gcra) {
    match Gcra::try_new(limit.rate, limit.burst) {
        Some(gcra) if gcra.covers(LONGEST_TICK_NS) => (LIMITED, gcra),
        Some(gcra) => (LIMITED | EXACT_CLOCK, gcra),
        None => (0, Gcra::zeroed()),
    }
}

fn backend_entry(mode: ForwardMode, backend: IpAddr, hop: &NextHop) -> BackendEntry {
    let (header, outer, outer_sum) = match mode {
        ForwardMode::DsrL2 => (0, OuterAddresses::zeroed(), 0),
        ForwardMode::Ipip => tunnel(hop.source, backend),
    };
    BackendEntry {
        destination_mac: Mac::new(hop.mac),
        flags: USABLE | header,
        source_mac: Mac::new(hop.source_mac),
        mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
        ifindex: hop.ifindex,
        outer_sum,
        outer,
        reserved: 0,
    }
}

/// The outer header's kind, addresses and partial checksum. The kernel's preferred source is of the backend's family.
fn tunnel(source: IpAddr, destination: IpAddr) -> (u16, OuterAddresses, u32) {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let sum = outer_sum(source.octets(), destination.octets());
            let [source, destination] =
                [source, destination].map(|address| Ipv4Address::new(address.octets()));
            (OUTER_IPV4, OuterAddresses::v4(source, destination), sum)
        }
        (source, destination) => {
            let octets = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            let [source, destination] =
                [source, destination].map(|address| Ipv6Address::new(octets(address)));
            (OUTER_IPV6, OuterAddresses::v6(source, destination), 0)
        }
    }
}
