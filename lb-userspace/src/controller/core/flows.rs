//! What is remembered of flows, where a flow's packets go, and who owns the slots.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use lb_common::flow::{
    Detail, Entry, Found, Passenger, PassengerKind, Stage, Tick, WAYS, owner, recall, set_of,
};
use lb_common::hash::scale;
use lb_common::layout::USABLE;
use lb_common::slot::BackendId;
use lb_common::wire::{Ipv4Address, Ipv6Address, Ports};

use super::super::{ChangeError, edits, janitor};
use super::Core;
use crate::datapath::Datapath;
use crate::model::{Affinity, Endpoint, Service};
use crate::placement::{Placed, transport};
use crate::view::{
    BackendSlots, FlowCount, FlowLookup, FlowName, FlowPage, FlowStage, FlowView, ServiceSlots,
};

/// Places of the flow table that one request looks at: some milliseconds, in which the tables follow nothing else.
const PLACES_AT_ONCE: u64 = 1 << 20;

/// Which part of the remembered flows is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowsQuery {
    /// Those of one service; all of them if absent.
    pub service: Option<String>,
    /// The place in the flow table to begin at.
    pub from: u64,
    /// How many at most.
    pub most: usize,
}

/// A service, and what its slots and backends are called.
struct Named<'c> {
    name: &'c str,
    placed: &'c Placed,
    endpoints: HashMap<BackendId, Endpoint>,
}

impl<'c> Named<'c> {
    fn new(name: &'c str, placed: &'c Placed) -> Self {
        Self { name, placed, endpoints: placed.backend_ids().map(|(endpoint, id)| (id, *endpoint)).collect() }
    }

    fn address(&self, id: BackendId) -> Option<String> {
        self.endpoints.get(&id).map(ToString::to_string)
    }

    /// The number of a slot among the service's, if it is one of them.
    fn slot(&self, index: u32) -> Option<u32> {
        index.checked_sub(self.placed.first_slot()).filter(|at| (*at as usize) < self.placed.slots().len())
    }

    fn view(&self, entry: Entry, detail: Detail, slot: u32, now: Tick) -> FlowView {
        FlowView {
            hash: digits(detail.hash(entry)),
            service: self.name.to_owned(),
            slot,
            backend: self.address(entry.backend()),
            stage: stage(entry),
            idle_seconds: janitor::idle_time(entry, now).as_secs(),
        }
    }
}

/// Services by the first of their slots.
struct Directory<'c>(BTreeMap<u32, Named<'c>>);

impl Directory<'_> {
    /// Whose slot this is, and its number.
    fn find(&self, index: u32) -> Option<(&Named<'_>, u32)> {
        let (_, named) = self.0.range(..=index).next_back()?;
        Some((named, named.slot(index)?))
    }
}

impl<D: Datapath> Core<D> {
    /// A part of the flows that are remembered.
    pub(in crate::controller) fn flows(&self, query: &FlowsQuery) -> Result<FlowPage, ChangeError> {
        let directory = self.directory(query.service.as_deref())?;
        let now = Tick::from_ns(self.datapath.clock());
        let places = self.datapath.capacity().flows() as u64;
        let end = query.from.saturating_add(PLACES_AT_ONCE).min(places);
        let mut flows = Vec::new();
        for place in query.from..end {
            let remembered = self.remembered(place as usize);
            let Some((entry, detail)) = remembered else { continue };
            let Some((named, slot)) = directory.find(detail.index()) else { continue };
            if flows.len() == query.most {
                return Ok(FlowPage { flows, next: Some(place) });
            }
            flows.push(named.view(entry, detail, slot, now));
        }
        Ok(FlowPage { flows, next: Some(end).filter(|end| *end < places) })
    }

    /// How many flows are remembered of each backend that has any.
    pub(in crate::controller) fn count_flows(
        &self,
        service: Option<&str>,
    ) -> Result<Vec<FlowCount>, ChangeError> {
        let directory = self.directory(service)?;
        let mut counts: BTreeMap<(&str, Option<Endpoint>), FlowCount> = BTreeMap::new();
        for place in 0..self.datapath.capacity().flows() {
            let Some((entry, detail)) = self.remembered(place) else { continue };
            let Some((named, _)) = directory.find(detail.index()) else { continue };
            let endpoint = named.endpoints.get(&entry.backend()).copied();
            let count = counts.entry((named.name, endpoint)).or_insert_with(|| FlowCount {
                service: named.name.to_owned(),
                backend: endpoint.map(|endpoint| endpoint.to_string()),
                fresh: 0,
                confirmed: 0,
            });
            match stage(entry) {
                FlowStage::Fresh => count.fresh += 1,
                FlowStage::Confirmed => count.confirmed += 1,
            }
        }
        Ok(counts.into_values().collect())
    }

    /// Where a flow's packets go: the program's own rule, asked with the program's own tables.
    pub(in crate::controller) fn lookup(&self, flow: &FlowName) -> Result<FlowLookup, ChangeError> {
        let service = self.service_of(flow).ok_or_else(|| {
            let FlowName { protocol, vip, .. } = flow;
            ChangeError::NotFound(format!(
                "no service takes packets of {protocol} for {vip} (lb service list)"
            ))
        })?;
        let key = self.datapath.hash_key();
        let addresses = match (flow.source.ip(), flow.vip.ip()) {
            (IpAddr::V4(source), IpAddr::V4(vip)) => {
                key.ipv4(Ipv4Address::new(source.octets()), Ipv4Address::new(vip.octets()))
            }
            (IpAddr::V6(source), IpAddr::V6(vip)) => {
                key.ipv6(Ipv6Address::new(source.octets()), Ipv6Address::new(vip.octets()))
            }
            _ => return Err(ChangeError::Refused(flow.contradiction())),
        };
        let ports = Ports::new(flow.source.port(), flow.vip.port());
        let hash = key.flow(addresses, ports, transport(flow.protocol));
        let by_source = service.options.affinity == Affinity::Source;
        let chooser = if by_source { key.affinity(addresses) } else { hash };
        let placed = self.placement.service(&service.name).filter(|placed| !placed.slots().is_empty());
        if let Some(placed) = placed {
            return Ok(self.lookup_in(&Named::new(&service.name, placed), hash, chooser));
        }
        Ok(FlowLookup {
            service: service.name.clone(),
            hash: digits(hash),
            slot: None,
            moving: false,
            backend: None,
            opens_at: None,
            remembered: None,
            reason: "no backend takes traffic: its packets are dropped".to_owned(),
        })
    }

    fn lookup_in(&self, named: &Named<'_>, hash: u64, chooser: u64) -> FlowLookup {
        let slots = named.placed.slots();
        let at = scale(chooser, slots.len() as u32);
        let slot = slots[at as usize];
        let now = Tick::from_ns(self.datapath.clock());
        let set = self.copy_of_set(set_of(hash, self.datapath.capacity().flow_sets));
        let found = recall(&set, hash).filter(|_| slot.is_moving());
        let usable = |id: BackendId| {
            let entry = self.image.backends.get(named.placed.row_of(id));
            entry.is_some_and(|entry| entry.flags & USABLE != 0)
        };
        let backend = if slot.is_moving() {
            // A packet that only speaks of the flow goes where its packets go, and leaves no trace.
            let index = named.placed.first_slot() + at;
            let passenger = Passenger { hash, slot: index, kind: PassengerKind::Speaks };
            owner(&set, slot, &passenger, now, usable).0
        } else {
            slot.current()
        };
        let reason = match found {
            _ if !slot.is_moving() => "its slot is settled: all flows in it go to its owner",
            Some(Found { entry, .. }) if entry.backend() == backend => {
                "its slot moves, and the flow is remembered"
            }
            Some(_) => "its slot moves, and the backend that is remembered for the flow cannot be used",
            None if slot.fallback() == slot.current() => {
                "its slot moves, and flows that are not remembered go to its owner by now"
            }
            None if backend == slot.fallback() => {
                "its slot moves, and the flow is not remembered: it counts as older than the move, and stays where it was"
            }
            None => "its slot moves, and the backend that it leaves cannot be used",
        };
        FlowLookup {
            service: named.name.to_owned(),
            hash: digits(hash),
            slot: Some(at),
            moving: slot.is_moving(),
            backend: named.address(backend),
            opens_at: named.address(slot.current()).filter(|_| !named.placed.is_closed()),
            remembered: found.map(|Found { entry, detail, .. }| named.view(entry, detail, at, now)),
            reason: reason.to_owned(),
        }
    }

    /// Who owns the slots of a service, and who is to.
    pub(in crate::controller) fn slots_of(&self, name: &str) -> Result<ServiceSlots, ChangeError> {
        let service = self.services.get(name).ok_or_else(|| edits::no_service(&self.services, name))?;
        let placed = self.placement.service(name);
        let slots = placed.map_or(&[][..], Placed::slots);
        let (mut owned, mut arriving, mut leaving) = (HashMap::new(), HashMap::new(), HashMap::new());
        for slot in slots {
            *owned.entry(slot.current()).or_insert(0) += 1;
            if slot.is_moving() {
                *arriving.entry(slot.current()).or_insert(0) += 1;
            }
            if slot.is_moving() && slot.fallback() != slot.current() {
                *leaving.entry(slot.fallback()).or_insert(0) += 1;
            }
        }
        let weight = |backend| f64::from(self.effective_weight(service, backend).0);
        let weights: f64 = service.backends.iter().map(weight).sum();
        let all = f64::from(slots.len().max(1) as u32);
        let backends = service.backends.iter().map(|backend| {
            let id = placed.and_then(|placed| placed.backend_id(&backend.endpoint));
            let number = |of: &HashMap<BackendId, u32>| id.and_then(|id| of.get(&id)).copied().unwrap_or(0);
            BackendSlots {
                address: backend.endpoint.to_string(),
                owned: number(&owned),
                share: f64::from(number(&owned)) / all,
                wanted_share: if weights > 0.0 { weight(backend) / weights } else { 0.0 },
                arriving: number(&arriving),
                leaving: number(&leaving),
            }
        });
        let moving = placed.map_or(0, Placed::moving) as u64;
        Ok(ServiceSlots {
            table_size: service.table_size,
            settled: slots.len() as u64 - moving,
            moving,
            backends: backends.collect(),
        })
    }

    fn directory(&self, service: Option<&str>) -> Result<Directory<'_>, ChangeError> {
        if let Some(name) = service.filter(|name| !self.services.contains_key(name)) {
            return Err(edits::no_service(&self.services, name));
        }
        let asked = |name: &str| service.is_none_or(|service| service == name);
        // A service without moving slots has nothing to remember: what is still there of it is as good as forgotten.
        let services = self.placement.services().filter(|(name, placed)| asked(name) && placed.moving() > 0);
        Ok(Directory(
            services.map(|(name, placed)| (placed.first_slot(), Named::new(name, placed))).collect(),
        ))
    }

    /// What is remembered at a place and can be recalled.
    fn remembered(&self, place: usize) -> Option<(Entry, Detail)> {
        self.datapath.flow(place).filter(|(entry, _)| entry.is_whole())
    }

    fn copy_of_set(&self, set: u32) -> [Cell<u64>; 2 * WAYS] {
        let copy = [const { Cell::new(0) }; 2 * WAYS];
        for way in 0..WAYS {
            if let Some((entry, detail)) = self.datapath.flow(set as usize * WAYS + way) {
                copy[way].set(entry.word());
                copy[WAYS + way].set(detail.word());
            }
        }
        copy
    }

    /// The service that takes a flow's packets: that of the port before that of every port.
    fn service_of(&self, flow: &FlowName) -> Option<&Service> {
        let takes = |port: Option<u16>| {
            self.services.values().find(|service| {
                service.protocol == flow.protocol
                    && service.vip.address == flow.vip.ip()
                    && service.vip.port.number() == port
            })
        };
        takes(Some(flow.vip.port())).or_else(|| takes(None))
    }
}

fn stage(entry: Entry) -> FlowStage {
    if entry.stage() == Stage::Confirmed { FlowStage::Confirmed } else { FlowStage::Fresh }
}

fn digits(hash: u64) -> String {
    format!("{hash:016x}")
}
