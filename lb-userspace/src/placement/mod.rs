//! Where everything stands in the tables: ids, rows and ranges that stay the same as long as what they name does.
//!
//! [`Placement::next`] is pure: it makes the next placement from the present one and what is wanted, or says what there is
//! no room for. What is given up is free only in the placement after, when no packet can still be looking at it.

mod ranges;
mod render;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::hash::HashKey;
use lb_common::layout::{Region, SLOTS_PER_LINE, ServiceKey, VIP_WAYS, VipKey};
use lb_common::maglev::{self, Candidate, TableSize};
use lb_common::slot::{BackendId, Slot};
use lb_common::wire::{Ipv4Address, Ipv6Address, protocol};
use siphasher::sip::SipHasher24;

use crate::datapath::Capacity;
use crate::model::{Backend, Endpoint, Protocol, Service};
use ranges::{Range, Ranges};

pub use render::{deliverable, render};

/// Services by name.
pub type Services = BTreeMap<String, Service>;

/// What there is no room for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A table is full.
    #[error("service {service}: the table of {what} is full ({capacity} in all); remove something first")]
    Full {
        /// The service that found no room.
        service: String,
        /// What the table holds.
        what: &'static str,
        /// How many it holds.
        capacity: u32,
    },
    /// A service has more backends than ids.
    #[error("service {service}: more than {} backends", BackendId::LIMIT)]
    TooManyBackends {
        /// The service.
        service: String,
    },
    /// Too many VIPs whose addresses hash alike.
    #[error("VIP {address}: its set of the VIP directory is full; choose another address")]
    VipSetFull {
        /// The address.
        address: IpAddr,
    },
    /// Too many ports on one VIP.
    #[error(
        "VIP {address}: its {ports} services cannot be hashed without collision; spread them over several VIPs"
    )]
    TooManyPorts {
        /// The address.
        address: IpAddr,
        /// Services on it.
        ports: usize,
    },
}

/// One service's place.
#[derive(Clone, Debug)]
pub struct Placed {
    id: Range,
    slots: Range,
    backends: Range,
    ids: BTreeMap<Endpoint, BackendId>,
    candidates: Vec<Candidate>,
    table: Arc<[BackendId]>,
    words: Arc<[Slot]>,
}

impl Placed {
    /// Row of the service's counters.
    pub fn row(&self) -> u32 {
        self.id.start
    }

    /// Row of each backend.
    pub fn backend_rows(&self) -> impl Iterator<Item = (&Endpoint, u32)> {
        self.ids.iter().map(|(endpoint, id)| (endpoint, self.backends.start + u32::from(id.number())))
    }

    /// Row of one backend.
    pub fn backend_row(&self, endpoint: &Endpoint) -> Option<u32> {
        self.ids.get(endpoint).map(|id| self.backends.start + u32::from(id.number()))
    }

    /// The owner of each slot; empty while no backend takes traffic.
    pub fn table(&self) -> &[BackendId] {
        &self.table
    }

    /// Slots that each backend owns.
    pub fn owned_slots(&self) -> BTreeMap<Endpoint, u32> {
        let mut counts = vec![0u32; self.backends.length as usize];
        self.table.iter().for_each(|id| counts[usize::from(id.number())] += 1);
        self.ids.iter().map(|(endpoint, id)| (*endpoint, counts[usize::from(id.number())])).collect()
    }
}

/// One VIP's place in the directory, and its region of the service table.
#[derive(Clone, Debug)]
struct PlacedVip {
    set: u32,
    way: usize,
    entries: Range,
    region: Region,
    keys: BTreeSet<ServiceKey>,
}

/// The place of every service and VIP.
#[derive(Clone, Debug)]
pub struct Placement {
    services: BTreeMap<String, Placed>,
    vips: BTreeMap<IpAddr, PlacedVip>,
    free_ids: Ranges,
    free_slots: Ranges,
    free_backends: Ranges,
    free_entries: Ranges,
}

/// What the next placement gives up, to be freed once it is whole.
#[derive(Default)]
struct GivenUp {
    ids: Vec<Range>,
    slots: Vec<Range>,
    backends: Vec<Range>,
    entries: Vec<Range>,
}

impl Placement {
    /// Nothing is placed.
    pub fn new(capacity: &Capacity) -> Self {
        Self {
            services: BTreeMap::new(),
            vips: BTreeMap::new(),
            free_ids: Ranges::new(capacity.services),
            free_slots: Ranges::new(capacity.slots / SLOTS_PER_LINE * SLOTS_PER_LINE),
            free_backends: Ranges::new(capacity.backends),
            free_entries: Ranges::new(capacity.service_entries),
        }
    }

    /// The place of a service.
    pub fn service(&self, name: &str) -> Option<&Placed> {
        self.services.get(name)
    }

    /// Every placed service.
    pub fn services(&self) -> impl Iterator<Item = (&String, &Placed)> {
        self.services.iter()
    }

    /// The placement of `services`, whose backends take part as `takes_traffic` says.
    pub fn next(
        &self,
        services: &Services,
        takes_traffic: impl Fn(&Service, &Backend) -> bool,
    ) -> Result<Self, PlacementError> {
        let mut next = self.clone();
        let mut given_up = GivenUp::default();
        next.remove_missing(services, &mut given_up);
        for (name, service) in services {
            let placed = next.place_service(service, &mut given_up)?;
            let placed = with_table(placed, service, &takes_traffic);
            next.services.insert(name.clone(), placed);
        }
        next.place_vips(services, &mut given_up)?;
        next.free(given_up);
        Ok(next)
    }

    fn remove_missing(&mut self, services: &Services, given_up: &mut GivenUp) {
        let missing = self.services.extract_if(.., |name, _| !services.contains_key(name));
        for (_, placed) in missing {
            given_up.ids.push(placed.id);
            given_up.slots.push(placed.slots);
            given_up.backends.push(placed.backends);
        }
    }

    fn place_service(&mut self, service: &Service, given_up: &mut GivenUp) -> Result<Placed, PlacementError> {
        let full = |what: &'static str, ranges: &Ranges| PlacementError::Full {
            service: service.name.clone(),
            what,
            capacity: ranges.capacity(),
        };
        let old = self.services.get(&service.name).cloned();
        let id = match &old {
            Some(old) => old.id,
            None => self.free_ids.take(1).ok_or_else(|| full("services", &self.free_ids))?,
        };
        let length = service.table_size.next_multiple_of(SLOTS_PER_LINE);
        let slots = match &old {
            Some(old) if old.slots.length == length => old.slots,
            _ => self.free_slots.take(length).ok_or_else(|| full("slots", &self.free_slots))?,
        };
        let ids = backend_ids(service, old.as_ref())?;
        let needed = ids.values().map(|id| u32::from(id.number()) + 1).max().unwrap_or(0);
        let backends = match &old {
            Some(old) if old.backends.length >= needed => old.backends,
            _ => {
                self.free_backends.take(room(needed)).ok_or_else(|| full("backends", &self.free_backends))?
            }
        };
        if let Some(old) = &old {
            if old.slots != slots {
                given_up.slots.push(old.slots);
            }
            if old.backends != backends {
                given_up.backends.push(old.backends);
            }
        }
        let (candidates, table, words) =
            old.map(|old| (old.candidates, old.table, old.words)).unwrap_or_default();
        Ok(Placed { id, slots, backends, ids, candidates, table, words })
    }

    fn place_vips(&mut self, services: &Services, given_up: &mut GivenUp) -> Result<(), PlacementError> {
        let mut wanted: BTreeMap<IpAddr, BTreeSet<ServiceKey>> = BTreeMap::new();
        for service in services.values() {
            wanted.entry(service.vip.address).or_default().insert(service_key(service));
        }
        let missing = self.vips.extract_if(.., |address, _| !wanted.contains_key(address));
        given_up.entries.extend(missing.map(|(_, vip)| vip.entries));
        for (address, keys) in wanted {
            if self.vips.get(&address).is_some_and(|vip| vip.keys == keys) {
                continue;
            }
            let placed = self.place_vip(address, keys)?;
            if let Some(old) = self.vips.insert(address, placed) {
                given_up.entries.push(old.entries);
            }
        }
        Ok(())
    }

    fn place_vip(
        &mut self,
        address: IpAddr,
        keys: BTreeSet<ServiceKey>,
    ) -> Result<PlacedVip, PlacementError> {
        let (set, way) = match self.vips.get(&address) {
            Some(old) => (old.set, old.way),
            None => self.free_way(address)?,
        };
        let ports = keys.len();
        let (bits, seed) = perfect_hash(&keys).ok_or(PlacementError::TooManyPorts { address, ports })?;
        let capacity = self.free_entries.capacity();
        let entries = self.free_entries.take(Region::new(0, bits, seed).entries());
        let entries = entries.ok_or_else(|| PlacementError::Full {
            service: address.to_string(),
            what: "service entries",
            capacity,
        })?;
        Ok(PlacedVip { set, way, entries, region: Region::new(entries.start, bits, seed), keys })
    }

    fn free_way(&self, address: IpAddr) -> Result<(u32, usize), PlacementError> {
        let set = vip_key(address).set();
        let taken: Vec<usize> = self.vips.values().filter(|vip| vip.set == set).map(|vip| vip.way).collect();
        let way =
            (0..VIP_WAYS).find(|way| !taken.contains(way)).ok_or(PlacementError::VipSetFull { address })?;
        Ok((set, way))
    }

    fn free(&mut self, given_up: GivenUp) {
        let back =
            |ranges: &mut Ranges, given: Vec<Range>| given.into_iter().for_each(|range| ranges.give(range));
        back(&mut self.free_ids, given_up.ids);
        back(&mut self.free_slots, given_up.slots);
        back(&mut self.free_backends, given_up.backends);
        back(&mut self.free_entries, given_up.entries);
    }
}

/// Rows to reserve, so that a service can double before it has to move.
fn room(backends: u32) -> u32 {
    (backends * 2).next_power_of_two().clamp(8, BackendId::LIMIT as u32)
}

/// Ids for all backends: those they had, and for new ones the lowest that no backend had or has.
fn backend_ids(
    service: &Service,
    old: Option<&Placed>,
) -> Result<BTreeMap<Endpoint, BackendId>, PlacementError> {
    let none = BTreeMap::new();
    let had = old.map_or(&none, |old| &old.ids);
    let taken: BTreeSet<BackendId> = had.values().copied().collect();
    let mut unused =
        (0..BackendId::LIMIT as u16).filter_map(BackendId::try_new).filter(|id| !taken.contains(id));
    let id_of = |backend: &Backend| {
        let id = had.get(&backend.endpoint).copied().or_else(|| unused.next());
        id.map(|id| (backend.endpoint, id))
    };
    let ids: Option<BTreeMap<_, _>> = service.backends.iter().map(id_of).collect();
    ids.ok_or_else(|| PlacementError::TooManyBackends { service: service.name.clone() })
}

/// Builds the Maglev table, unless the same backends share it in the same way as before.
fn with_table(
    placed: Placed,
    service: &Service,
    takes_traffic: impl Fn(&Service, &Backend) -> bool,
) -> Placed {
    let weight = |backend: &Backend| if takes_traffic(service, backend) { backend.weight.0 } else { 0 };
    let candidates: Vec<Candidate> = service
        .backends
        .iter()
        .filter_map(|backend| {
            let id = *placed.ids.get(&backend.endpoint)?;
            Some(Candidate { id, weight: weight(backend), identity: identity(backend.endpoint) })
        })
        .collect();
    let size = TableSize::try_new(service.table_size).unwrap_or(TableSize::DEFAULT);
    let same_size = placed.table.is_empty() || placed.table.len() == size.slots() as usize;
    if candidates == placed.candidates && same_size {
        return placed;
    }
    let table = maglev::build(&candidates, size);
    let words = table.iter().map(|id| Slot::settled(*id)).collect();
    Placed { candidates, table: table.into(), words, ..placed }
}

/// Two hashes of what a backend is. They never change between versions: balancers of one VIP must agree on them.
fn identity(endpoint: Endpoint) -> [u64; 2] {
    let address = match endpoint.address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    [0, 1].map(|half| {
        let mut hasher = SipHasher24::new_with_keys(half, 0);
        hasher.write(&address.octets());
        hasher.write(&endpoint.port.number().unwrap_or(0).to_be_bytes());
        hasher.finish()
    })
}

/// The key of the flow hash, from the secret that all balancers of one VIP share.
pub fn hash_key(secret: [u8; 16]) -> HashKey {
    let words: [u64; 2] = bytemuck::cast(secret);
    let [low, high] = words.map(u64::from_le);
    HashKey::from_random(std::array::from_fn(|counter| {
        let mut hasher = SipHasher24::new_with_keys(low, high);
        hasher.write(&(counter as u64).to_le_bytes());
        hasher.finish()
    }))
}

fn vip_key(address: IpAddr) -> VipKey {
    match address {
        IpAddr::V4(address) => VipKey::v4(Ipv4Address::new(address.octets())),
        IpAddr::V6(address) => VipKey::v6(Ipv6Address::new(address.octets())),
    }
}

fn service_key(service: &Service) -> ServiceKey {
    let protocol = match service.protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    };
    ServiceKey::new(protocol, service.vip.port.number().unwrap_or(0))
}

/// The smallest region and a seed under which no two ports share an entry: its bits and the seed.
fn perfect_hash(keys: &BTreeSet<ServiceKey>) -> Option<(u32, u16)> {
    let exact: Vec<ServiceKey> = keys.iter().copied().filter(|key| *key != key.any_port()).collect();
    let smallest = exact.len().next_power_of_two().trailing_zeros();
    (smallest..=Region::MAX_BITS).find_map(|bits| {
        let fits = |seed: &u16| is_injective(&exact, Region::new(0, bits, *seed));
        (0..=u16::MAX).find(fits).map(|seed| (bits, seed))
    })
}

fn is_injective(keys: &[ServiceKey], region: Region) -> bool {
    let mut seen = BTreeSet::new();
    keys.iter().all(|key| seen.insert(region.index(*key)))
}

#[cfg(test)]
mod tests;
