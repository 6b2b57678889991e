//! Where everything stands in the tables: ids, rows and ranges that stay the same as long as what they name does.
//!
//! [`Placement::next`] is pure: it makes the next placement from the present one and what is wanted, or says what there is
//! no room for. What is given up is free only in the placement after, when no packet can still be looking at it.

mod adopt;
mod limiters;
mod lists;
mod ranges;
mod render;
mod slots;
mod touched;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_common::hash::HashKey;
use lb_common::layout::{Region, SLOTS_PER_LINE, ServiceKey, VIP_WAYS, VipKey};
use lb_common::maglev::{Candidate, Disruption, TableSize};
use lb_common::slot::{BackendId, Slot};
use lb_common::wire::{Ipv4Address, Ipv6Address, protocol};
use siphasher::sip::SipHasher24;

use crate::datapath::Capacity;
use crate::model::{Backend, Endpoint, ForwardMode, LimiterKey, Protocol, Service, Weight};
use limiters::Limiters;
use ranges::{Range, Ranges};
pub(crate) use slots::Ids;
use slots::Slots;

pub use crate::model::Services;
pub use limiters::needs_exact_clock;
pub use lists::{Replaced, ask_lists, empty_list, fill_lists, list_entries, replace_lists, retire_lists};
pub use render::{deliverable, render, render_from, slots};
pub use touched::Touched;

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

/// What can be expected of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is down or cannot be reached: its flows are lost.
    Dead,
    /// It keeps the flows it has and takes no new ones.
    Draining,
    /// It takes new flows, according to this weight.
    Serving(Weight),
}

/// One service's place.
#[derive(Clone, Debug)]
pub struct Placed {
    id: Range,
    range: Range,
    backends: Range,
    ids: Arc<BTreeMap<Endpoint, BackendId>>,
    slots: Slots,
    idle_timeout: Duration,
}

impl Placed {
    /// Row of the service's counters.
    pub fn row(&self) -> u32 {
        self.id.start
    }

    /// The first of the rows that are its backends'.
    pub fn first_backend(&self) -> u32 {
        self.backends.start
    }

    /// Row of each backend.
    pub fn backend_rows(&self) -> impl Iterator<Item = (&Endpoint, u32)> {
        self.ids.iter().map(|(endpoint, id)| (endpoint, self.row_of(*id)))
    }

    /// Id of each backend.
    pub fn backend_ids(&self) -> impl Iterator<Item = (&Endpoint, BackendId)> {
        self.ids.iter().map(|(endpoint, id)| (endpoint, *id))
    }

    /// Id of one backend.
    pub fn backend_id(&self, endpoint: &Endpoint) -> Option<BackendId> {
        self.ids.get(endpoint).copied()
    }

    /// Row of one backend.
    pub fn backend_row(&self, endpoint: &Endpoint) -> Option<u32> {
        self.ids.get(endpoint).map(|id| self.row_of(*id))
    }

    /// Row of the backend that has an id.
    pub fn row_of(&self, id: BackendId) -> u32 {
        self.backends.start + u32::from(id.number())
    }

    /// The backend that should own each slot; empty while none takes new flows.
    pub fn table(&self) -> Vec<BackendId> {
        self.slots.table()
    }

    /// Whether any backend takes new flows.
    pub fn is_open(&self) -> bool {
        self.slots.is_open()
    }

    /// Slots that each backend should own.
    pub fn owned_slots(&self) -> impl Iterator<Item = (&Endpoint, u32)> {
        self.ids.iter().map(|(endpoint, id)| (endpoint, self.slots.owned_by(*id)))
    }

    /// The slots as they stand in the tables, which may still be on the way to what [`Self::table`] says; empty while no
    /// backend is alive.
    pub fn slots(&self) -> &[Slot] {
        self.slots.words()
    }

    /// [`Self::slots`], for whoever keeps them for a while.
    pub(crate) fn shared_slots(&self) -> Arc<[Slot]> {
        Arc::clone(self.slots.words())
    }

    /// Index of its first slot in the table of all slots.
    pub fn first_slot(&self) -> u32 {
        self.range.start
    }

    /// How many of its slots move.
    pub fn moving(&self) -> usize {
        self.slots.moving()
    }

    /// Whether it keeps the flows it has and takes no new ones.
    pub fn is_closed(&self) -> bool {
        self.slots.is_closed()
    }

    /// After how long without a packet a flow counts as gone.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    /// The ids that its backends have.
    pub(crate) fn ids(&self) -> Ids {
        self.ids.values().copied().collect()
    }

    /// Whether flows can be remembered that have no place in `next`: their slots are others, or their backends gone.
    fn leaves_flows(&self, next: &Self) -> bool {
        let gone = |(endpoint, id): (&Endpoint, &BackendId)| next.ids.get(endpoint) != Some(id);
        self.range != next.range || self.slots().len() != next.slots().len() || self.ids.iter().any(gone)
    }
}

/// What a step from one placement to the next does to the slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Slots that get another owner.
    pub moved: usize,
    /// The least that must.
    pub least: usize,
    /// Tables in which any does.
    pub tables: usize,
    /// Slots of these tables.
    pub slots: usize,
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
    limiters: Limiters,
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
            limiters: Limiters::new(capacity),
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

    /// The row in which a limiter counts.
    pub fn limiter(&self, key: &LimiterKey) -> Option<u32> {
        self.limiters.counters(key)
    }

    /// The row in which each limiter counts.
    pub fn limiters(&self) -> impl Iterator<Item = (&LimiterKey, u32)> {
        self.limiters.all_counters()
    }

    /// The meters in use, and of which limiters they are.
    pub fn meters(&self) -> impl Iterator<Item = (&LimiterKey, u32)> {
        self.limiters.meters()
    }

    /// What the sources of a limiter are hashed with.
    pub fn limiter_salt(&self, key: &LimiterKey) -> Option<u32> {
        self.limiters.salt(key)
    }

    /// The placement of `services`, whose backends take part according to their `standing`.
    ///
    /// It names no id that no backend has. Once the tables hold it, it is to be told so by [`Self::publish`]; and if the
    /// one before [leaves flows](Self::leaves_flows), they are to be forgotten before the next placement, which may give
    /// their places to others.
    pub fn next(
        &self,
        services: &Services,
        standing: impl Fn(&Service, &Backend) -> Standing,
    ) -> Result<Self, PlacementError> {
        self.next_with(services, &Touched::All, standing)
    }

    /// The same, for which only services need to be looked at that something has touched since this placement was made.
    pub fn next_with(
        &self,
        services: &Services,
        touched: &Touched,
        standing: impl Fn(&Service, &Backend) -> Standing,
    ) -> Result<Self, PlacementError> {
        let mut next = self.clone();
        let mut given_up = GivenUp::default();
        next.remove_missing(services, &mut given_up);
        let placed = |name: &str| self.services.contains_key(name);
        for (name, service) in services.iter().filter(|(name, _)| touched.has(name) || !placed(name)) {
            let placed = next.place_service(service, &mut given_up)?;
            let slots = next_slots(&placed, service, &standing);
            let placed = Placed { slots, ..placed };
            next.services.insert(name.clone(), placed);
        }
        next.place_vips(services, &mut given_up)?;
        next.limiters = self.limiters.next(services)?;
        next.free(given_up);
        Ok(next)
    }

    /// Tells that the tables hold this placement since `now` at the latest, in nanoseconds of the flows' clock.
    pub fn publish(&mut self, now: u64) {
        self.services.values_mut().filter(|placed| placed.moving() > 0).for_each(|p| p.slots.publish(now));
    }

    /// Whether any slot moves.
    pub fn is_moving(&self) -> bool {
        self.services.values().any(|placed| placed.moving() > 0)
    }

    /// Whether flows can be remembered for which `next` has no use.
    pub fn leaves_flows(&self, next: &Self) -> bool {
        let leaves = |(name, placed): (&String, &Placed)| {
            next.service(name).is_none_or(|next| placed.leaves_flows(next))
        };
        self.services.iter().filter(|(_, placed)| placed.moving() > 0).any(leaves)
    }

    /// The same placement as if no flow had ever been: every slot is settled.
    #[must_use]
    pub fn settled(&self) -> Self {
        let settle = |(name, placed): (&String, &Placed)| {
            (name.clone(), Placed { slots: placed.slots.settled(), ..placed.clone() })
        };
        Self { services: self.services.iter().map(settle).collect(), ..self.clone() }
    }

    /// The placement after a look at all flows at `now`, every packet before which had seen this placement; `None` if it
    /// stays as it is.
    ///
    /// `dissents` says of a slot, by its index in the table of all slots, whether a live flow in it is remembered to
    /// belong to another backend than its owner. A slot ages after the idle time-out of its service and `margin`.
    #[must_use]
    pub fn calmed(&self, dissents: impl Fn(u32) -> bool, margin: Duration, now: u64) -> Option<Self> {
        let mut calmed = None;
        for (name, placed) in self.services.iter().filter(|(_, placed)| placed.moving() > 0) {
            let dissents = |at: usize| dissents(placed.range.start + at as u32);
            if let Some(slots) = placed.slots.calmed(dissents, placed.idle_timeout + margin, now) {
                let next: &mut Self = calmed.get_or_insert_with(|| self.clone());
                next.services.insert(name.clone(), Placed { slots, ..placed.clone() });
            }
        }
        calmed
    }

    /// What became of the slots since the placement was `old`, over all services.
    pub fn moves_since(&self, old: &Self) -> Moves {
        let none = Slots::default();
        let mut moves = Moves::default();
        for (name, placed) in &self.services {
            let before = old.service(name).map_or(&none, |placed| &placed.slots);
            let Disruption { moved, least } = placed.slots.disruption_since(before);
            moves.moved += moved;
            moves.least += least;
            if moved > 0 {
                moves.tables += 1;
                moves.slots += placed.slots().len();
            }
        }
        moves
    }

    /// The slots, by their index in the table of all slots, of each service that has moving ones and that is another in
    /// `next`: those whose remembered flows a step there concerns.
    pub fn concerned_slots(&self, next: &Self) -> Vec<std::ops::Range<u32>> {
        let stays = |name: &str, placed: &Placed| {
            next.service(name).is_some_and(|next| Arc::ptr_eq(next.slots.words(), placed.slots.words()))
        };
        let concerned =
            self.services.iter().filter(|(name, placed)| placed.moving() > 0 && !stays(name, placed));
        concerned
            .map(|(_, placed)| placed.range.start..placed.range.start + placed.slots().len() as u32)
            .collect()
    }

    fn remove_missing(&mut self, services: &Services, given_up: &mut GivenUp) {
        let missing = self.services.extract_if(.., |name, _| !services.contains_key(name));
        for (_, placed) in missing {
            given_up.ids.push(placed.id);
            given_up.slots.push(placed.range);
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
        let range = match &old {
            Some(old) if old.range.length == length => old.range,
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
            if old.range != range {
                given_up.slots.push(old.range);
            }
            if old.backends != backends {
                given_up.backends.push(old.backends);
            }
        }
        let slots = old.map(|old| old.slots).unwrap_or_default();
        Ok(Placed { id, range, backends, ids: ids.into(), slots, idle_timeout: service.idle_timeout() })
    }

    fn place_vips(&mut self, services: &Services, given_up: &mut GivenUp) -> Result<(), PlacementError> {
        let mut wanted: BTreeMap<IpAddr, BTreeSet<ServiceKey>> = BTreeMap::new();
        for service in services.values() {
            wanted.entry(service.vip.address).or_default().insert(service_key(service));
            // Where replies come from, they are looked for like services.
            for backend in replying(service) {
                wanted.entry(backend.address).or_default().insert(endpoint_key(service.protocol, *backend));
            }
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
    let had = old.map_or(&none, |old| &*old.ids);
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

/// A service's slots, as its backends stand now.
fn next_slots(
    placed: &Placed,
    service: &Service,
    standing: impl Fn(&Service, &Backend) -> Standing,
) -> Slots {
    let mut candidates = Vec::with_capacity(service.backends.len());
    let mut alive = Vec::with_capacity(service.backends.len());
    for backend in &service.backends {
        let Some(id) = placed.ids.get(&backend.endpoint).copied() else { continue };
        let standing = standing(service, backend);
        let weight = if let Standing::Serving(weight) = standing { weight.0 } else { 0 };
        candidates.push(Candidate { id, weight, identity: identity(backend.endpoint) });
        alive.extend((standing != Standing::Dead).then_some(id));
    }
    let size = TableSize::try_new(service.table_size).unwrap_or(TableSize::DEFAULT);
    placed.slots.next(candidates, alive.into_iter().collect(), size)
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

/// An address as the tables hold it.
pub(crate) fn vip_key(address: IpAddr) -> VipKey {
    match address {
        IpAddr::V4(address) => VipKey::v4(Ipv4Address::new(address.octets())),
        IpAddr::V6(address) => VipKey::v6(Ipv6Address::new(address.octets())),
    }
}

/// A protocol's number in IP headers.
pub(crate) fn transport(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    }
}

fn service_key(service: &Service) -> ServiceKey {
    endpoint_key(service.protocol, service.vip)
}

fn endpoint_key(protocol: Protocol, endpoint: Endpoint) -> ServiceKey {
    ServiceKey::new(transport(protocol), endpoint.port.number().unwrap_or(0))
}

/// The backends whose replies come back through the balancer and have to be translated.
fn replying(service: &Service) -> impl Iterator<Item = &Endpoint> {
    let translated = service.mode == ForwardMode::Nat;
    service.backends.iter().filter(move |_| translated).map(|backend| &backend.endpoint)
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
