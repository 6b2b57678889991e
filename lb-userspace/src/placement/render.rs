//! From a placement to the contents of the tables.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use lb_common::deliver::outer_sum;
use lb_common::layout::{
    BY_SOURCE, BackendEntry, CLOSED, Features, Forwarded, GUE, LimiterRows, NAT, OUTER_IPV4, OUTER_IPV6,
    OuterAddresses, QUIC, REPLIES, Region, ServiceEntry, ServiceKey, USABLE, VipSet,
};
use lb_common::owner::ServiceOwner;
use lb_common::slot::{BackendId, Slot};
use lb_common::wire::{Be16, Be32, Ipv4Address, Ipv6Address, MacPair};

use super::adopt::{backend_owner, name_digest};
use super::{Placed, Placement, Services, Touched, endpoint_key, replying, service_key, vip_key};
use crate::datapath::Image;
use crate::model::{Affinity, Endpoint, ForwardMode, GUE_PORT, Service, ServiceOptions};
use crate::neighbors::NextHop;

/// The tables for `services` placed as `placement` says, with the next hops that are known.
///
/// A backend that is dead gets an entry that is not usable, so that its packets are counted and not misdelivered.
pub fn render<'h>(
    placement: &Placement,
    services: &Services,
    next_hop: impl Fn(IpAddr) -> Option<&'h NextHop>,
) -> Image {
    render_from(&Image::default(), placement, services, &Touched::All, next_hop)
}

/// The same after `old`, with which it shares what belongs to services that nothing has touched since.
pub fn render_from<'h>(
    old: &Image,
    placement: &Placement,
    services: &Services,
    touched: &Touched,
    next_hop: impl Fn(IpAddr) -> Option<&'h NextHop>,
) -> Image {
    let mut image = Image::default();
    let announced = announced_vips(services);
    for (address, vip) in &placement.vips {
        let set = image.vips.entry(vip.set).or_insert_with(VipSet::zeroed);
        let key = vip_key(*address);
        let region = region(announced.get(address), vip.region);
        (set.low[vip.way], set.high[vip.way], set.region[vip.way]) = (key.low, key.high, region);
    }
    for (service, placed) in services.values().filter_map(|s| Some((s, placement.services.get(&s.name)?))) {
        if let Some(vip) = placement.vips.get(&service.vip.address) {
            let entry = service_entry(service, placed, placement.limiters.rows(&service.name));
            image.services.insert(index(vip.region, service_key(service)), entry);
        }
        image.limiters.extend(placement.limiters.render(services, service));
        for backend in replying(service) {
            let Some(vip) = placement.vips.get(&backend.address) else { continue };
            let key = endpoint_key(service.protocol, *backend);
            image.services.insert(index(vip.region, key), reply_entry(service, key));
        }
        let first = placed.backends.start;
        let shared = old.backends.run(first).filter(|_| !touched.has(&service.name)).map(Arc::clone);
        let entry = |endpoint: Endpoint, id| {
            let hop = next_hop(endpoint.address).filter(|hop| deliverable(service.mode, hop).is_ok());
            let hop = hop.filter(|_| placed.slots.is_alive(id));
            hop.map_or_else(BackendEntry::zeroed, |hop| backend_entry(service, endpoint, hop))
        };
        let made = || run(placed, entry);
        image.backends.insert(first, shared.unwrap_or_else(made));
    }
    for (name, placed) in &placement.services {
        image.service_owners.insert(placed.id.start, service_owner(name, placed));
        let first = placed.backends.start;
        let shared = old.backend_owners.run(first).filter(|_| !touched.has(name)).map(Arc::clone);
        let made = || run(placed, |endpoint, _| backend_owner(name, endpoint, first));
        image.backend_owners.insert(first, shared.unwrap_or_else(made));
    }
    image.limiter_owners.extend(placement.limiters.owners());
    image.features.extend(features(services).map(|features| (0, features)));
    Image { slots: slots(placement), ..image }
}

/// A service's rows of a table: one for each backend, zero where there is none.
fn run<T: Pod>(placed: &Placed, entry: impl Fn(Endpoint, BackendId) -> T) -> Arc<[T]> {
    let used = placed.ids.values().map(|id| usize::from(id.number()) + 1).max().unwrap_or(0);
    let mut run = vec![T::zeroed(); used];
    for (endpoint, id) in &*placed.ids {
        run[usize::from(id.number())] = entry(*endpoint, *id);
    }
    run.into()
}

/// Every VIP, and whether one of its services announces it.
fn announced_vips(services: &Services) -> BTreeMap<IpAddr, bool> {
    let mut vips = BTreeMap::new();
    for service in services.values() {
        *vips.entry(service.vip.address).or_insert(false) |= service.options.announce;
    }
    vips
}

/// The region of an address that says what the address is: a VIP, perhaps announced, or else one that replies come from.
fn region(announced_vip: Option<&bool>, region: Region) -> Region {
    match announced_vip {
        None => region.of_replies(),
        Some(true) => region.announced(),
        Some(false) => region,
    }
}

/// Where a service stands in its VIP's region.
pub(super) fn index(region: Region, key: ServiceKey) -> u32 {
    if key == key.any_port() { region.wildcard(key) } else { region.index(key) }
}

/// What packets that are for no VIP may be about, if anything.
fn features(services: &Services) -> Option<Features> {
    let any = |test: fn(&Service) -> bool, feature| if services.values().any(test) { feature } else { 0 };
    let replies = any(|service| service.mode == ForwardMode::Nat, Features::REPLIES);
    let announced = any(|service| service.options.announce, Features::ANNOUNCED);
    Some(Features(replies | announced)).filter(|features| features.0 != 0)
}

/// The way back from a backend: no service, but where its replies get their VIP from.
fn reply_entry(service: &Service, key: ServiceKey) -> ServiceEntry {
    let vip = match service.vip.address {
        IpAddr::V4(address) => [bytemuck::cast(ipv4(address)), 0, 0, 0],
        IpAddr::V6(address) => bytemuck::cast(ipv6(address.into())),
    };
    let vip_port = service.vip.port.number().unwrap_or(0);
    ServiceEntry { key, flags: REPLIES, vip, vip_port, ..ServiceEntry::zeroed() }
}

/// The slots of all services, by the index of their first.
pub fn slots(placement: &Placement) -> BTreeMap<u32, Arc<[Slot]>> {
    let of_service = |placed: &Placed| (placed.range.start, Arc::clone(placed.slots.words()));
    placement.services.values().map(of_service).collect()
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

fn service_owner(name: &str, placed: &Placed) -> ServiceOwner {
    ServiceOwner {
        name: name_digest(name),
        backends: placed.backends.length,
        slots: placed.range.length,
        retired: Forwarded::zeroed(),
    }
}

fn service_entry(service: &Service, placed: &Placed, limiters: LimiterRows) -> ServiceEntry {
    let flag = |is: bool, flag| if is { flag } else { 0 };
    let closed = flag(placed.is_closed(), CLOSED);
    let by_source = flag(service.options.affinity == Affinity::Source, BY_SOURCE);
    let quic = flag(service.options.quic, QUIC);
    ServiceEntry {
        key: service_key(service),
        id: placed.id.start,
        slot_base: placed.range.start,
        slot_count: placed.slots().len() as u32,
        backend_base: placed.backends.start,
        flags: closed | by_source | quic,
        limiters,
        spare: 0,
        vip: [0; 4],
        vip_port: 0,
        reserved: [0; 3],
    }
}

fn backend_entry(service: &Service, backend: Endpoint, hop: &NextHop) -> BackendEntry {
    let header = match service.mode {
        ForwardMode::DsrL2 => Header::none(),
        ForwardMode::Ipip => Header::tunnel(&service.options, hop.source, backend.address),
        ForwardMode::Gue => {
            let tunnel = Header::tunnel(&service.options, hop.source, backend.address);
            let port = service.options.gue_port.unwrap_or(GUE_PORT).get();
            Header { flags: tunnel.flags | GUE, port, ..tunnel }
        }
        ForwardMode::Nat => Header {
            flags: NAT,
            outer: own_address(backend.address),
            port: backend.port.number().unwrap_or(0),
            ..Header::none()
        },
    };
    BackendEntry {
        macs: MacPair::new(hop.mac, hop.source_mac),
        flags: USABLE | header.flags,
        mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
        ifindex: hop.ifindex,
        outer_sum: header.sum,
        outer: header.outer,
        entropy: Be32::new(header.entropy),
        port: Be16::new(header.port),
        reserved: 0,
    }
}

/// What of a [`BackendEntry`] depends on the mode.
struct Header {
    flags: u16,
    outer: OuterAddresses,
    sum: u32,
    entropy: u32,
    port: u16,
}

impl Header {
    fn none() -> Self {
        Self { flags: 0, outer: OuterAddresses::zeroed(), sum: 0, entropy: 0, port: 0 }
    }

    /// An outer header towards `destination`. Both `preferred`, the kernel's choice, and a configured source are of its
    /// family.
    fn tunnel(options: &ServiceOptions, preferred: IpAddr, destination: IpAddr) -> Self {
        let chosen = options.outer_source.filter(|source| source.address.is_ipv4() == destination.is_ipv4());
        let source = chosen.map_or(preferred, |source| source.address);
        let bits = if destination.is_ipv4() { 32 } else { 128 };
        let free = chosen.map_or(0, |source| bits - u32::from(source.prefix));
        let entropy = u32::MAX.checked_shr(32 - free.min(32)).unwrap_or(0);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self {
                flags: OUTER_IPV4,
                outer: OuterAddresses::v4(ipv4(source), ipv4(destination)),
                sum: outer_sum(source.octets(), destination.octets()),
                entropy,
                port: 0,
            },
            (source, destination) => {
                let outer = OuterAddresses::v6(ipv6(source), ipv6(destination));
                Self { flags: OUTER_IPV6, outer, entropy, ..Self::none() }
            }
        }
    }
}

/// The backend's address as the destination of an [`OuterAddresses`], which is all that [`NAT`] needs.
fn own_address(backend: IpAddr) -> OuterAddresses {
    match backend {
        IpAddr::V4(address) => OuterAddresses::v4(Ipv4Address::new([0; 4]), ipv4(address)),
        IpAddr::V6(address) => OuterAddresses::v6(Ipv6Address::new([0; 16]), ipv6(address.into())),
    }
}

fn ipv4(address: Ipv4Addr) -> Ipv4Address {
    Ipv4Address::new(address.octets())
}

fn ipv6(address: IpAddr) -> Ipv6Address {
    Ipv6Address::new(match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    })
}
