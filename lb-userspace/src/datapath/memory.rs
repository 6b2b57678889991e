//! The tables in ordinary memory: what the daemon's stores write, the pipeline reads, without a kernel.

use std::cell::{Cell, RefCell};

use bytemuck::{Zeroable, cast_slice, cast_slice_mut};
use lb_common::flow::{self, Detail, Entry, FlowEvent, FlowSet as _};
use lb_common::hash::HashKey;
use lb_common::layout::{
    BackendEntry, Features, FlowCounts, Forwarded, InterfaceEntry, LimiterCounts, LimiterEntry,
    MAX_INTERFACES, OVER_SAMPLES_ROOM, SLOTS_PER_LINE, ServiceEntry, Settings, SlotLine, VipKey, VipSet,
    Withheld,
};
use lb_common::limiter::meter::{METERS, REGISTER_SETS};
use lb_common::limiter::sample::{LANES, OverSample, Sampler};
use lb_common::limiter::{LimiterEvent, WAYS};
use lb_common::lists::{ListKey, Listed, Side};
use lb_common::owner::{BackendOwner, LimiterOwner, ServiceOwner};
use lb_common::pipeline::{Clock, ServiceEvent, Tables};
use lb_common::slot::Slot;
use lb_common::verdict::REASON_COUNTERS;

use super::lists::MemoryList;
use super::{
    Capacity, Counters, Datapath, ListEntry, SampleCounts, Store, Table, TableError, no_meter, settings,
    words_of_meter,
};

/// Tables, counters and a clock that stands still until it is set.
#[derive(Clone)]
pub struct MemoryDatapath {
    capacity: Capacity,
    settings: Settings,
    vips: Vec<VipSet>,
    services: Vec<ServiceEntry>,
    slots: Vec<SlotLine>,
    backends: Vec<BackendEntry>,
    features: [Features; 1],
    interfaces: [InterfaceEntry; MAX_INTERFACES],
    backend_owners: Vec<BackendOwner>,
    service_owners: Vec<ServiceOwner>,
    limiter_owners: Vec<LimiterOwner>,
    lists: [MemoryList; 2],
    limiters: Vec<LimiterEntry>,
    buckets: Vec<[Cell<u64>; WAYS]>,
    meters: Vec<[Cell<u64>; WAYS]>,
    flows: Vec<[Cell<u64>; 2 * flow::WAYS]>,
    fragments: Vec<[Cell<u64>; 2 * flow::WAYS]>,
    flow_counts: Cell<FlowCounts>,
    forwarded: RefCell<Vec<Forwarded>>,
    withheld: RefCell<Vec<Withheld>>,
    limiter_counts: RefCell<Vec<LimiterCounts>>,
    samplers: [Cell<Sampler>; LANES as usize],
    over_samples: RefCell<Vec<OverSample>>,
    reasons: RefCell<Vec<u64>>,
    /// In the order of [`Clock`].
    now: Cell<[u64; 3]>,
}

fn zeros<T: Zeroable + Clone>(count: u32) -> Vec<T> {
    vec![T::zeroed(); count as usize]
}

impl MemoryDatapath {
    /// Empty tables.
    pub fn new(hash_key: HashKey, capacity: Capacity, interfaces: &[u32]) -> Self {
        Self {
            capacity,
            settings: settings(hash_key, &capacity, interfaces),
            vips: zeros(capacity.entries(Table::Vips)),
            services: zeros(capacity.entries(Table::Services)),
            slots: zeros(capacity.entries(Table::Slots)),
            backends: zeros(capacity.entries(Table::Backends)),
            features: [Features::default()],
            interfaces: [InterfaceEntry::zeroed(); MAX_INTERFACES],
            backend_owners: zeros(capacity.entries(Table::BackendOwners)),
            service_owners: zeros(capacity.entries(Table::ServiceOwners)),
            limiter_owners: zeros(capacity.entries(Table::LimiterOwners)),
            lists: <[MemoryList; 2]>::default(),
            limiters: zeros(capacity.entries(Table::Limiters)),
            buckets: vec![[const { Cell::new(0) }; WAYS]; capacity.bucket_sets as usize],
            meters: vec![[const { Cell::new(0) }; WAYS]; (METERS * REGISTER_SETS) as usize],
            flows: vec![[const { Cell::new(0) }; 2 * flow::WAYS]; capacity.flow_sets as usize],
            fragments: vec![[const { Cell::new(0) }; 2 * flow::WAYS]; capacity.fragment_sets as usize],
            flow_counts: Cell::default(),
            forwarded: RefCell::new(zeros(capacity.backends)),
            withheld: RefCell::new(zeros(capacity.services)),
            limiter_counts: RefCell::new(zeros(capacity.limiter_counters())),
            samplers: <[Cell<Sampler>; LANES as usize]>::default(),
            over_samples: RefCell::default(),
            reasons: RefCell::new(zeros(MAX_INTERFACES as u32 * REASON_COUNTERS)),
            now: Cell::new([1; 3]),
        }
    }

    /// Sets all clocks alike, in nanoseconds.
    pub fn set_now(&self, now: u64) {
        self.set_clocks([now; 3]);
    }

    /// Sets each clock, in nanoseconds, in the order of [`Clock`].
    pub fn set_clocks(&self, now: [u64; 3]) {
        self.now.set(now);
    }

    /// The words that packets leave behind, as they stand in the kernel's table of this name; nothing if there is none.
    pub fn left_behind(&self, name: &str) -> &[Cell<u64>] {
        match name {
            "BUCKETS" => self.buckets.as_flattened(),
            "METERS" => self.meters.as_flattened(),
            "FLOWS" => self.flows.as_flattened(),
            "FRAGMENTS" => self.fragments.as_flattened(),
            _ => &[],
        }
    }

    /// As if no packet had come: nothing is left behind, and nothing counted. The clocks stay as they are.
    pub fn forget_packets(&mut self) {
        for words in [&mut self.flows, &mut self.fragments] {
            words.fill(<[Cell<u64>; 2 * flow::WAYS]>::default());
        }
        for words in [&mut self.buckets, &mut self.meters] {
            words.fill(<[Cell<u64>; WAYS]>::default());
        }
        self.forwarded.get_mut().fill(Forwarded::zeroed());
        self.withheld.get_mut().fill(Withheld::zeroed());
        self.limiter_counts.get_mut().fill(LimiterCounts::zeroed());
        self.reasons.get_mut().fill(0);
        self.over_samples.get_mut().clear();
        self.samplers = <[Cell<Sampler>; LANES as usize]>::default();
        self.flow_counts = Cell::default();
    }

    /// The place of an interface; unknown ones share the first.
    fn row_of(&self, ingress: u32) -> usize {
        let mut rows = self.settings.interfaces.iter().skip(1);
        rows.position(|interface| *interface == ingress && ingress != 0).map_or(0, |at| at + 1)
    }

    /// The flags of every service.
    #[cfg(test)]
    pub(crate) fn service_flags(&self) -> impl Iterator<Item = u32> {
        self.services.iter().filter(|entry| **entry != ServiceEntry::zeroed()).map(|entry| entry.flags)
    }

    /// Every word of the tables, for comparison.
    pub fn words(&self) -> Vec<u64> {
        Table::ALL.map(|table| self.table(table)).concat()
    }

    fn table(&self, table: Table) -> &[u64] {
        match table {
            Table::Vips => cast_slice(&self.vips),
            Table::Services => cast_slice(&self.services),
            Table::Limiters => cast_slice(&self.limiters),
            Table::Slots => cast_slice(&self.slots),
            Table::Backends => cast_slice(&self.backends),
            Table::Features => cast_slice(&self.features),
            Table::Interfaces => cast_slice(&self.interfaces),
            Table::BackendOwners => cast_slice(&self.backend_owners),
            Table::ServiceOwners => cast_slice(&self.service_owners),
            Table::LimiterOwners => cast_slice(&self.limiter_owners),
        }
    }
}

fn missing(table: &'static str, entry: usize) -> TableError {
    TableError { table, entry, reason: "there is no such entry".to_owned() }
}

impl Datapath for MemoryDatapath {
    fn hash_key(&self) -> &HashKey {
        &self.settings.hash_key
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn store(&mut self, store: Store) -> Result<(), TableError> {
        let words: &mut [u64] = match store.table {
            Table::Vips => cast_slice_mut(&mut self.vips),
            Table::Services => cast_slice_mut(&mut self.services),
            Table::Limiters => cast_slice_mut(&mut self.limiters),
            Table::Slots => cast_slice_mut(&mut self.slots),
            Table::Backends => cast_slice_mut(&mut self.backends),
            Table::Features => cast_slice_mut(&mut self.features),
            Table::Interfaces => cast_slice_mut(&mut self.interfaces),
            Table::BackendOwners => cast_slice_mut(&mut self.backend_owners),
            Table::ServiceOwners => cast_slice_mut(&mut self.service_owners),
            Table::LimiterOwners => cast_slice_mut(&mut self.limiter_owners),
        };
        let word = words.get_mut(store.word).ok_or_else(|| missing("memory", store.word))?;
        *word = store.value;
        Ok(())
    }

    fn contents(&self, table: Table) -> Result<Vec<u64>, TableError> {
        Ok(self.table(table).to_vec())
    }

    fn list_contents(&self, side: Side) -> Result<Vec<ListEntry>, TableError> {
        Ok(self.lists[side as usize].entries().collect())
    }

    fn clear(&mut self, counters: Counters, row: u32) -> Result<(), TableError> {
        fn zero<T: Zeroable>(rows: &mut [T], row: u32) -> Result<(), TableError> {
            let row = rows.get_mut(row as usize).ok_or_else(|| missing("counters", row as usize))?;
            *row = T::zeroed();
            Ok(())
        }
        match counters {
            Counters::Forwarded => zero(self.forwarded.get_mut(), row),
            Counters::Withheld => zero(self.withheld.get_mut(), row),
            Counters::Limiter => zero(self.limiter_counts.get_mut(), row),
        }
    }

    fn fill_list(&mut self, side: Side, entries: &[ListEntry]) -> Result<(), TableError> {
        let capacity = self.capacity.lists as usize;
        if entries.len() > capacity {
            return Err(missing("lists", capacity));
        }
        self.lists[side as usize].fill(entries);
        Ok(())
    }

    fn settle(&mut self) {
        // Nothing runs beside us.
    }

    fn clock(&self) -> u64 {
        self.now(Clock::Coarse)
    }

    fn flow(&self, place: usize) -> Option<(Entry, Detail)> {
        let (set, way) = (self.flows.get(place / flow::WAYS)?, place % flow::WAYS);
        let entry = Entry::from_word(set.entry(way));
        (entry != Entry::VACANT).then(|| (entry, Detail::from_word(set.detail(way))))
    }

    fn forget(&mut self, place: usize, entry: Entry) -> bool {
        let set = self.flows.get(place / flow::WAYS);
        set.is_some_and(|set| set.exchange(place % flow::WAYS, entry.word(), Entry::VACANT.word()))
    }

    fn relay_log(&mut self) {
        // There is no program.
    }

    fn forwarded(&self, row: u32) -> Result<Forwarded, TableError> {
        self.forwarded.borrow().get(row as usize).copied().ok_or_else(|| missing("forwarded", row as usize))
    }

    fn withheld(&self, row: u32) -> Result<Withheld, TableError> {
        self.withheld.borrow().get(row as usize).copied().ok_or_else(|| missing("withheld", row as usize))
    }

    fn limiter_counts(&self, row: u32) -> Result<LimiterCounts, TableError> {
        let counts = self.limiter_counts.borrow().get(row as usize).copied();
        counts.ok_or_else(|| missing("limiter counts", row as usize))
    }

    fn meter(&self, meter: u32) -> Result<Vec<u64>, TableError> {
        let words = self.meters.as_flattened().get(words_of_meter(meter));
        Ok(words.ok_or_else(|| no_meter(meter))?.iter().map(Cell::get).collect())
    }

    fn clear_meter(&mut self, meter: u32) -> Result<(), TableError> {
        let words = self.meters.as_flattened().get(words_of_meter(meter));
        words.ok_or_else(|| no_meter(meter))?.iter().for_each(|word| word.set(0));
        Ok(())
    }

    fn take_over_samples(&mut self) -> Vec<OverSample> {
        self.over_samples.take()
    }

    fn sample_counts(&self) -> Result<SampleCounts, TableError> {
        let counts = self.samplers.iter().map(Cell::get);
        Ok(counts.fold(SampleCounts::default(), SampleCounts::and))
    }

    fn flow_counts(&self) -> Result<FlowCounts, TableError> {
        Ok(self.flow_counts.get())
    }

    fn reason(&self, interface_row: u32, counter: u32) -> Result<u64, TableError> {
        let index = (interface_row * REASON_COUNTERS + counter) as usize;
        self.reasons.borrow().get(index).copied().ok_or_else(|| missing("reasons", index))
    }
}

impl Tables for MemoryDatapath {
    type Buckets<'a> = &'a [Cell<u64>; WAYS];
    type Flows<'a> = &'a [Cell<u64>; 2 * flow::WAYS];

    fn hash_key(&self) -> &HashKey {
        &self.settings.hash_key
    }

    fn features(&self) -> Features {
        self.features[0]
    }

    fn interface(&self, ingress: u32) -> Option<InterfaceEntry> {
        self.interfaces.get(self.row_of(ingress)).copied()
    }

    fn vip_set(&self, index: u32) -> Option<&VipSet> {
        self.vips.get(index as usize)
    }

    fn service(&self, index: u32) -> Option<&ServiceEntry> {
        self.services.get(index as usize)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        let line = self.slots.get((index / SLOTS_PER_LINE) as usize)?;
        Some(line[(index % SLOTS_PER_LINE) as usize])
    }

    fn backend(&self, index: u32) -> Option<&BackendEntry> {
        self.backends.get(index as usize)
    }

    fn listed(&self, source: VipKey) -> Listed {
        let side = self.features().lists();
        side.map_or(Listed::No, |side| self.lists[side as usize].find(ListKey::of(source)))
    }

    fn limiter(&self, row: u32) -> Option<&LimiterEntry> {
        self.limiters.get(row as usize)
    }

    fn bucket_sets(&self) -> u32 {
        self.settings.bucket_sets
    }

    fn buckets(&self, set: u32) -> Option<&[Cell<u64>; WAYS]> {
        self.buckets.get(set as usize)
    }

    fn registers(&self, set: u32) -> Option<&[Cell<u64>; WAYS]> {
        self.meters.get(set as usize)
    }

    fn flows(&self, hash: u64) -> Option<Self::Flows<'_>> {
        self.flows.get(flow::set_of(hash, self.settings.flow_sets) as usize)
    }

    fn fragments(&self, hash: u64) -> Option<Self::Flows<'_>> {
        self.fragments.get(flow::set_of(hash, self.settings.fragment_sets) as usize)
    }

    fn now(&self, clock: Clock) -> u64 {
        self.now.get()[clock as usize]
    }

    fn count_forwarded(&self, backend: u32, bytes: u64, opens: bool) {
        if let Some(row) = self.forwarded.borrow_mut().get_mut(backend as usize) {
            row.packets += 1;
            row.bytes += bytes;
            row.new_flows += u64::from(opens);
        }
    }

    fn count_service(&self, service: u32, event: ServiceEvent) {
        if let Some(row) = self.withheld.borrow_mut().get_mut(service as usize) {
            match event {
                ServiceEvent::Limited => row.limited += 1,
                ServiceEvent::Dropped => row.dropped += 1,
            }
        }
    }

    fn count_limiter(&self, row: u32, event: LimiterEvent) {
        if let Some(counts) = self.limiter_counts.borrow_mut().get_mut(row as usize) {
            counts.count(event);
        }
    }

    fn meet_over(&self, lane: u32, period: u32) -> u32 {
        let Some(sampler) = self.samplers.get(lane as usize) else { return 0 };
        let mut changed = sampler.get();
        let weight = changed.meet(period, &self.settings.hash_key);
        sampler.set(changed);
        weight
    }

    fn tell_over(&self, lane: u32, sample: &OverSample) {
        let mut samples = self.over_samples.borrow_mut();
        let told = samples.len() < OVER_SAMPLES_ROOM;
        if told {
            samples.push(*sample);
        }
        if let Some(sampler) = self.samplers.get(lane as usize) {
            let mut counted = sampler.get();
            counted.count(told);
            sampler.set(counted);
        }
    }

    fn count_flow(&self, event: FlowEvent) {
        let mut counts = self.flow_counts.get();
        counts.count(event);
        self.flow_counts.set(counts);
    }

    fn count_reason(&self, ingress: u32, counter: u32) {
        let row = self.row_of(ingress) as u32;
        if let Some(count) = self.reasons.borrow_mut().get_mut((row * REASON_COUNTERS + counter) as usize) {
            *count += 1;
        }
    }
}
