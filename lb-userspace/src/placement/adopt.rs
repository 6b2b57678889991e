//! From tables that were found filled to the placement that filled them.
//!
//! What packets find counts: a VIP leads to its services, an entry to its slots and backends. The tables of owners only say
//! whose they are. Whatever cannot be made sense of is treated as absent, for nothing leads to it: a daemon may have been
//! killed between any two stores.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use lb_common::layout::{REPLIES, Region, SLOTS_PER_LINE, ServiceEntry, VIP_WAYS, VipKey};
use lb_common::owner::{BackendOwner, ServiceOwner};
use lb_common::slot::{BackendId, Slot};
use siphasher::sip::SipHasher24;

use super::limiters::Limiters;
use super::ranges::Range;
use super::slots::Slots;
use super::{Placed, PlacedVip, Placement, Services, render, vip_key};
use crate::datapath::{Capacity, Image};
use crate::model::{Endpoint, Port, Protocol};

/// Digest of a name, as tables hold it; never zero.
pub(super) fn name_digest(name: &str) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(0x6f77_6e65_7273, 0);
    hasher.write(name.as_bytes());
    hasher.finish().max(1)
}

/// Who owns the row of a backend whose service has its backend 0 at `base`.
pub(super) fn backend_owner(service: &str, endpoint: Endpoint, base: u32) -> BackendOwner {
    let VipKey { high, low } = vip_key(endpoint.address);
    BackendOwner {
        service: name_digest(service),
        address: [low, high],
        port: endpoint.port.number().unwrap_or(0),
        any_port: u16::from(endpoint.port == Port::Any),
        base,
        carried: bytemuck::Zeroable::zeroed(),
    }
}

fn endpoint_of(owner: &BackendOwner) -> Option<Endpoint> {
    let [low, high] = owner.address;
    let port = match (NonZeroU16::new(owner.port), owner.any_port) {
        (Some(number), 0) => Port::Number(number),
        (None, 1) => Port::Any,
        _ => return None,
    };
    Some(Endpoint { address: address_of(VipKey { high, low }), port })
}

fn address_of(key: VipKey) -> IpAddr {
    let bytes: [u8; 16] = bytemuck::cast([key.high, key.low]);
    let address = Ipv6Addr::from(bytes);
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

/// The names behind digests.
struct Names<'s>(BTreeMap<u64, &'s str>);

impl Names<'_> {
    /// The name of a wanted service, else one that no service can have.
    fn of(&self, digest: u64) -> String {
        self.0.get(&digest).map_or_else(|| format!("#{digest:016x}"), |name| (*name).to_owned())
    }
}

impl Placement {
    /// The placement that stands in tables with this content. `services` are those wanted now: the others keep their places
    /// until the [next](Self::next) placement, under names of no service.
    ///
    /// `salt` is one that no limiter can have had in the last minutes.
    pub fn adopt(image: &Image, capacity: &Capacity, services: &Services, salt: u32) -> Self {
        let mut adopted = Self::new(capacity);
        let names = Names(services.keys().map(|name| (name_digest(name), name.as_str())).collect());
        let entries = adopted.adopt_vips(image);
        for entry in &entries {
            let owner = image.service_owners.get(&entry.id).copied().filter(|owner| owner.name != 0);
            if let Some(owner) = owner {
                let name = names.of(owner.name);
                let timeout = services.get(&name).map(super::Service::idle_timeout);
                adopted.adopt_service(
                    image,
                    entry,
                    &owner,
                    name,
                    timeout.unwrap_or(Protocol::Tcp.idle_timeout()),
                );
            }
        }
        // What is certain is taken; what was only reserved comes after it.
        for (name, placed) in &mut adopted.services {
            let owner =
                image.service_owners.get(&placed.id.start).filter(|owner| owner.name == name_or_digest(name));
            if let Some(owner) = owner {
                let reserved = owner.backends.saturating_sub(placed.backends.length);
                let more = Range { start: placed.backends.start + placed.backends.length, length: reserved };
                placed.backends.length += if adopted.free_backends.claim(more) { reserved } else { 0 };
                let slots = Range { start: placed.range.start, length: owner.slots };
                if placed.range.length == 0 && adopted.free_slots.claim(slots) {
                    placed.range = slots;
                }
            }
        }
        let rows = entries.iter().filter_map(|entry| {
            let name = adopted.services.iter().find(|(_, placed)| placed.id.start == entry.id)?.0;
            Some((name.as_str(), entry.limiters))
        });
        adopted.limiters = Limiters::adopt(image, capacity, services, rows, salt);
        adopted
    }

    /// The image of tables in which this placement [was found](Self::adopt), with the slots of each service by themselves.
    pub fn found_in(&self, mut image: Image) -> Image {
        let found = std::mem::take(&mut image.slots);
        let tables = render::slots(self);
        for (base, run) in found {
            // What belongs to no service is cut out between those that do.
            let end = base + run.len() as u32;
            let mut from = base;
            for (first, table) in tables.range(..end).filter(|(_, table)| !table.is_empty()) {
                let last = first + (table.len() as u32).next_multiple_of(2);
                keep(&mut image.slots, base, &run, from, (*first).min(end));
                from = from.max(last);
            }
            keep(&mut image.slots, base, &run, from, end);
        }
        image.slots.extend(tables.into_iter().filter(|(_, table)| !table.is_empty()));
        image
    }

    /// Places the VIPs, and says which services they lead to.
    fn adopt_vips(&mut self, image: &Image) -> Vec<ServiceEntry> {
        let mut found = Vec::new();
        for (set, vips) in &image.vips {
            for way in 0..VIP_WAYS {
                let (key, region) =
                    (VipKey { high: vips.high[way], low: vips.low[way] }, vips.region[way].plain());
                let entries = Range { start: region.base(), length: region.entries() };
                let address = address_of(key);
                let is_known = self.vips.contains_key(&address) || key.set() != *set;
                if region == Region::NONE || is_known || !self.free_entries.claim(entries) {
                    continue;
                }
                let inside = image.services.range(entries.start..entries.start + entries.length);
                let reached = |(at, entry): &(&u32, &ServiceEntry)| render::index(region, entry.key) == **at;
                let reached: Vec<ServiceEntry> = inside.filter(reached).map(|(_, entry)| *entry).collect();
                let keys = reached.iter().map(|entry| entry.key).collect();
                self.vips.insert(address, PlacedVip { set: *set, way, entries, region, keys });
                found.extend(reached.into_iter().filter(|entry| entry.flags & REPLIES == 0));
            }
        }
        found
    }

    fn adopt_service(
        &mut self,
        image: &Image,
        entry: &ServiceEntry,
        owner: &ServiceOwner,
        name: String,
        idle_timeout: std::time::Duration,
    ) {
        let id = Range { start: entry.id, length: 1 };
        if self.services.contains_key(&name) || !self.free_ids.claim(id) {
            return;
        }
        let mut range = Range {
            start: entry.slot_base,
            length: entry.slot_count.checked_next_multiple_of(SLOTS_PER_LINE).unwrap_or(u32::MAX),
        };
        let words: Arc<[Slot]> =
            if range.length > 0 && range.start.is_multiple_of(SLOTS_PER_LINE) && self.free_slots.claim(range)
            {
                image.slots_at(entry.slot_base, entry.slot_count)
            } else {
                range.length = 0;
                Arc::default()
            };
        let base = entry.backend_base;
        let ids = adopted_ids(image, base, owner.name);
        let length = ids.values().map(|id| u32::from(id.number()) + 1).max().unwrap_or(0);
        let backends = Range { start: base, length };
        let (ids, backends) = if self.free_backends.claim(backends) {
            (ids, backends)
        } else {
            (BTreeMap::new(), Range { start: base, length: 0 })
        };
        let slots = Slots::adopted(&words);
        self.services.insert(name, Placed { id, range, backends, ids: ids.into(), slots, idle_timeout });
    }
}

/// Keeps the slots from one index to another, out of a run that begins at `base`.
fn keep(slots: &mut BTreeMap<u32, Arc<[Slot]>>, base: u32, run: &[Slot], from: u32, to: u32) {
    if from < to {
        slots.insert(from, run[(from - base) as usize..(to - base) as usize].into());
    }
}

/// The ids that a service's backends have, whose rows begin at `base`.
fn adopted_ids(image: &Image, base: u32, service: u64) -> BTreeMap<Endpoint, BackendId> {
    let rows = image.backend_owners.range(base..base.saturating_add(BackendId::LIMIT as u32));
    let own = rows.filter(|(_, owner)| owner.service == service && owner.base == base);
    own.filter_map(|(row, owner)| {
        let id = BackendId::try_new(u16::try_from(row - base).ok()?)?;
        Some((endpoint_of(owner)?, id))
    })
    .collect()
}

fn name_or_digest(name: &str) -> u64 {
    let digest = name.strip_prefix('#').and_then(|digits| u64::from_str_radix(digits, 16).ok());
    digest.unwrap_or_else(|| name_digest(name))
}
