//! What the tables should hold, and the order of stores that gets them there without a moment at which a packet is lost.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable, cast_slice};
use lb_common::layout::{
    BackendEntry, Features, InterfaceEntry, LimiterEntry, Region, ServiceEntry, USABLE, VIP_WAYS, VipSet,
};
use lb_common::owner::{BackendOwner, LimiterOwner, ServiceOwner};
use lb_common::slot::Slot;

use super::runs::Runs;
use super::{Datapath, Table, TableError};

/// The contents of all tables: entry by entry, slots by their first; what is absent is zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// Sets of the VIP directory.
    pub vips: BTreeMap<u32, VipSet>,
    /// Entries of the service table.
    pub services: BTreeMap<u32, ServiceEntry>,
    /// Limiters.
    pub limiters: BTreeMap<u32, LimiterEntry>,
    /// Slot tables, by the index of their first slot, which is a multiple of a line.
    pub slots: BTreeMap<u32, Arc<[Slot]>>,
    /// Backends, in a run for each service.
    pub backends: Runs<BackendEntry>,
    /// What holds for all packets: entry 0, or nothing.
    pub features: BTreeMap<u32, Features>,
    /// Attached interfaces by their row.
    pub interfaces: BTreeMap<u32, InterfaceEntry>,
    /// Whose rows of backends they are.
    pub backend_owners: Runs<BackendOwner>,
    /// Whose rows of services' counters they are.
    pub service_owners: BTreeMap<u32, ServiceOwner>,
    /// Whose rows of limiters' counters they are.
    pub limiter_owners: BTreeMap<u32, LimiterOwner>,
}

/// One aligned 64-bit store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    /// Where.
    pub table: Table,
    /// Index of the word in the whole table.
    pub word: usize,
    /// What.
    pub value: u64,
}

/// Stores in two steps, between which every packet that is under way has to finish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// From the backends up to the VIPs that lead to them: nothing is reachable before it is whole.
    pub publish: Vec<Store>,
    /// What nothing leads to any more.
    pub retire: Vec<Store>,
}

impl Image {
    /// What the tables hold. The slots are not those of services but runs of lines that are not zero.
    pub fn read<D: Datapath + ?Sized>(tables: &D) -> Result<Self, TableError> {
        Ok(Self {
            vips: read(tables, Table::Vips)?,
            services: read(tables, Table::Services)?,
            limiters: read(tables, Table::Limiters)?,
            slots: read_slots(&tables.contents(Table::Slots)?),
            backends: read(tables, Table::Backends)?.into_iter().collect(),
            features: read(tables, Table::Features)?,
            interfaces: read(tables, Table::Interfaces)?,
            backend_owners: read(tables, Table::BackendOwners)?.into_iter().collect(),
            service_owners: read(tables, Table::ServiceOwners)?,
            limiter_owners: read(tables, Table::LimiterOwners)?,
        })
    }

    /// Whether the tables hold nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The slots that begin at an index: those that no table of the image covers are zero.
    pub fn slots_at(&self, base: u32, count: u32) -> Arc<[Slot]> {
        match self.slots.get(&base) {
            Some(table) if table.len() == count as usize => Arc::clone(table),
            _ => slots_at(&self.slots, base, count as usize).into(),
        }
    }

    /// The stores that turn tables with this content into tables with the content of `new`.
    pub fn changes(&self, new: &Self) -> Changes {
        let mut changes = Changes::default();
        let backends_before = self.backends.unshared(&new.backends);
        let backends_after = new.backends.unshared(&self.backends);
        let owners_before = self.backend_owners.unshared(&new.backend_owners);
        let owners_after = new.backend_owners.unshared(&self.backend_owners);
        owners(&owners_before, &owners_after, Table::BackendOwners, &mut changes.publish);
        owners(&self.service_owners, &new.service_owners, Table::ServiceOwners, &mut changes.publish);
        owners(&self.limiter_owners, &new.limiter_owners, Table::LimiterOwners, &mut changes.publish);
        backends(&backends_before, &backends_after, &mut changes);
        slots(&self.slots, &new.slots, &mut changes);
        entries(&self.limiters, &new.limiters, Table::Limiters, &mut changes);
        entries(&self.services, &new.services, Table::Services, &mut changes);
        vips(&self.vips, &new.vips, &mut changes.publish);
        entries(&self.interfaces, &new.interfaces, Table::Interfaces, &mut changes);
        entries(&self.features, &new.features, Table::Features, &mut changes);
        disown(&owners_before, &owners_after, Table::BackendOwners, &mut changes.retire);
        disown(&self.service_owners, &new.service_owners, Table::ServiceOwners, &mut changes.retire);
        disown(&self.limiter_owners, &new.limiter_owners, Table::LimiterOwners, &mut changes.retire);
        changes
    }
}

/// Stores what differs between two runs of words.
fn words(table: Table, first: usize, old: &[u64], new: &[u64], stores: &mut Vec<Store>) {
    let differing = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
    stores.extend(differing.map(|(at, (_, new))| Store { table, word: first + at, value: *new }));
}

/// The word of a backend that says whether it is usable.
const USABLE_WORD: usize = offset_of!(BackendEntry, flags) / size_of::<u64>();

/// Remembered flows may lead to a backend at any time, so whether it is usable is stored last if it is and first if not.
fn backends(old: &BTreeMap<u32, BackendEntry>, new: &BTreeMap<u32, BackendEntry>, changes: &mut Changes) {
    let words = Table::Backends.entry_words();
    let usable = |row: usize| new.get(&(row as u32)).is_some_and(|entry| entry.flags & USABLE != 0);
    let (published, retired) = (changes.publish.len(), changes.retire.len());
    entries(old, new, Table::Backends, changes);
    for stores in [&mut changes.publish[published..], &mut changes.retire[retired..]] {
        stores.sort_by_key(|store| {
            let (row, decides) = (store.word / words, store.word % words == USABLE_WORD);
            (row, decides == usable(row))
        });
    }
}

/// A row has an owner before it comes into use. The first word of an owner says that there is one, and is stored last.
fn owners<T: Pod>(old: &BTreeMap<u32, T>, new: &BTreeMap<u32, T>, table: Table, stores: &mut Vec<Store>) {
    let mut changes = Changes::default();
    entries(old, new, table, &mut changes);
    let (words, row_of) = (table.entry_words(), |store: &Store| store.word / table.entry_words());
    changes.publish.sort_by_key(|store| (row_of(store), store.word % words == 0));
    stores.append(&mut changes.publish);
}

/// A row has its owner for as long as anything of it is in use.
fn disown<T: Pod>(old: &BTreeMap<u32, T>, new: &BTreeMap<u32, T>, table: Table, stores: &mut Vec<Store>) {
    let mut changes = Changes::default();
    entries(old, new, table, &mut changes);
    stores.append(&mut changes.retire);
}

/// The entries of a table that are not zero.
fn read<D: Datapath + ?Sized, T: Pod>(tables: &D, table: Table) -> Result<BTreeMap<u32, T>, TableError> {
    let words = tables.contents(table)?;
    let entries = words.chunks_exact(table.entry_words()).zip(0..);
    let used = entries.filter(|(entry, _)| entry.iter().any(|word| *word != 0));
    Ok(used.map(|(entry, index)| (index, bytemuck::pod_read_unaligned(cast_slice(entry)))).collect())
}

/// Runs of lines that are not zero.
fn read_slots(words: &[u64]) -> BTreeMap<u32, Arc<[Slot]>> {
    let line_words = Table::Slots.entry_words();
    let mut runs = BTreeMap::new();
    let mut run: Vec<u64> = Vec::new();
    // A line of zeros behind the last ends the last run.
    let end = vec![0; line_words];
    for (line, index) in words.chunks_exact(line_words).chain([&end[..]]).zip(0..) {
        if line.iter().any(|word| *word != 0) {
            run.extend_from_slice(line);
        } else if !run.is_empty() {
            let first = index - (run.len() / line_words) as u32;
            let slots: &[Slot] = cast_slice(&run);
            runs.insert(first * lb_common::layout::SLOTS_PER_LINE, slots.into());
            run.clear();
        }
    }
    runs
}

/// New and changed entries are published, missing ones retired.
fn entries<T: Pod>(old: &BTreeMap<u32, T>, new: &BTreeMap<u32, T>, table: Table, changes: &mut Changes) {
    let zero = T::zeroed();
    let change = |index: &u32, from: &T, to: &T, stores: &mut Vec<Store>| {
        let first = *index as usize * table.entry_words();
        words(table, first, cast_slice(&[*from]), cast_slice(&[*to]), stores);
    };
    for (index, entry) in new {
        change(index, old.get(index).unwrap_or(&zero), entry, &mut changes.publish);
    }
    for (index, entry) in old.iter().filter(|(index, _)| !new.contains_key(index)) {
        change(index, entry, &zero, &mut changes.retire);
    }
}

/// A slot table's words, the last one filled up with a settled slot of backend 0, which is a word of zeros.
fn slot_words(slots: &[Slot]) -> Vec<u64> {
    let pair = |pair: &[Slot]| {
        let [first, second] = [pair[0], pair.get(1).copied().unwrap_or(Slot::zeroed())];
        bytemuck::cast::<[Slot; 2], u64>([first, second])
    };
    slots.chunks(2).map(pair).collect()
}

/// The slots in a range of indices; what no table covers is zero. Tables begin at even indices.
fn slots_at(tables: &BTreeMap<u32, Arc<[Slot]>>, base: u32, count: usize) -> Vec<Slot> {
    let mut slots = vec![Slot::zeroed(); count];
    let end = base.saturating_add(count as u32);
    for (first, table) in tables.range(..end) {
        let skipped = base.saturating_sub(*first) as usize;
        let place = first.saturating_sub(base) as usize;
        let from = table.get(skipped..).unwrap_or_default();
        slots[place.min(count)..].iter_mut().zip(from).for_each(|(slot, from)| *slot = *from);
    }
    slots
}

/// The words that slots take up.
fn span(base: u32, table: &[Slot]) -> Range<usize> {
    let first = base as usize / 2;
    first..first + table.len().div_ceil(2)
}

/// Where a new table stands, its slots are published; where an old one stood and no new one does, they are retired.
fn slots(old: &BTreeMap<u32, Arc<[Slot]>>, new: &BTreeMap<u32, Arc<[Slot]>>, changes: &mut Changes) {
    let stays = |base: &u32, table: &Arc<[Slot]>, others: &BTreeMap<u32, Arc<[Slot]>>| {
        others.get(base).is_some_and(|other| Arc::ptr_eq(other, table))
    };
    for (base, table) in new.iter().filter(|(base, table)| !stays(base, table, old)) {
        let after = slot_words(table);
        let before = match old.get(base) {
            Some(before) if before.len() == table.len() => slot_words(before),
            _ => slot_words(&slots_at(old, *base, 2 * after.len())),
        };
        words(Table::Slots, span(*base, table).start, &before, &after, &mut changes.publish);
    }
    for (base, table) in old.iter().filter(|(base, table)| !stays(base, table, new)) {
        let span = span(*base, table);
        let mut left = slot_words(table);
        // Tables do not overlap, so the one that begins before the span is the only one that may reach into it.
        let before = new.range(..*base).next_back();
        let inside = new.range(*base..*base + 2 * span.len() as u32);
        for (other, table) in before.into_iter().chain(inside) {
            let covered = self::span(*other, table);
            let covered = covered.start.max(span.start)..covered.end.min(span.end);
            covered.for_each(|word| left[word - span.start] = 0);
        }
        let zero = vec![0; left.len()];
        words(Table::Slots, span.start, &left, &zero, &mut changes.retire);
    }
}

/// A way is found by its address and its region, so: clear the region, change the address, set the region.
fn vips(old: &BTreeMap<u32, VipSet>, new: &BTreeMap<u32, VipSet>, stores: &mut Vec<Store>) {
    let zero = VipSet::zeroed();
    let mut indices: Vec<u32> = old.keys().chain(new.keys()).copied().collect();
    indices.sort_unstable();
    indices.dedup();
    for index in indices {
        let (from, to) = (old.get(&index).unwrap_or(&zero), new.get(&index).unwrap_or(&zero));
        let closed = close_moved_ways(from, to);
        let renamed = VipSet { region: closed.region, ..*to };
        let first = index as usize * Table::Vips.entry_words();
        for (from, to) in [(from, &closed), (&closed, &renamed), (&renamed, to)] {
            words(Table::Vips, first, cast_slice(&[*from]), cast_slice(&[*to]), stores);
        }
    }
}

/// `from` without the ways whose address changes.
fn close_moved_ways(from: &VipSet, to: &VipSet) -> VipSet {
    let mut closed = *from;
    for way in 0..VIP_WAYS {
        if (from.low[way], from.high[way]) != (to.low[way], to.high[way]) {
            closed.region[way] = Region::NONE;
        }
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::super::faulty::Faulty;
    use super::super::{Capacity, Datapath as _, MemoryDatapath, apply};
    use super::*;
    use lb_common::hash::HashKey;
    use lb_common::pipeline::Tables as _;
    use lb_common::slot::BackendId;
    use proptest::prelude::*;

    fn vip_set() -> impl Strategy<Value = VipSet> {
        (any::<[u64; 4]>(), any::<[u64; 4]>(), any::<[u16; 4]>()).prop_map(|(low, high, base)| VipSet {
            low: low.map(|n| n % 3),
            high: high.map(|n| n % 2),
            region: base
                .map(|base| if base % 3 == 0 { Region::NONE } else { Region::new(base.into(), 0, 0) }),
        })
    }

    fn table() -> impl Strategy<Value = Arc<[Slot]>> {
        let slot = (0..4u16).prop_map(|id| Slot::settled(BackendId::try_new(id).unwrap()));
        prop::collection::vec(slot, 0..40).prop_map(Into::into)
    }

    fn words_of<T: Pod + std::fmt::Debug>(count: usize) -> impl Strategy<Value = T> {
        prop::collection::vec(0..3u64, count..=count)
            .prop_map(|words| *bytemuck::from_bytes(cast_slice(&words)))
    }

    fn image() -> impl Strategy<Value = Image> {
        let slots = prop::collection::btree_map((0..4u32).prop_map(|n| n * 48), table(), 0..4);
        (
            prop::collection::btree_map(0..4u32, vip_set(), 0..3),
            prop::collection::btree_map(0..8u32, words_of(8), 0..5),
            slots,
            prop::collection::btree_map(0..8u32, words_of(8), 0..5),
            prop::collection::btree_map(0..8u32, words_of(8), 0..5),
        )
            .prop_map(|(vips, services, slots, backends, limiters)| Image {
                vips,
                services,
                limiters,
                slots,
                backends: backends.into_iter().collect(),
                ..Image::default()
            })
    }

    fn memory() -> MemoryDatapath {
        let capacity = Capacity {
            services: 4,
            service_entries: 8,
            slots: 256,
            backends: 8,
            limiters: 8,
            bucket_sets: 1,
            lists: 16,
            flow_sets: 16,
            fragment_sets: 16,
        };
        MemoryDatapath::new(HashKey::ZERO, capacity, &[])
    }

    proptest! {
        #[test]
        fn changes_lead_from_one_image_to_the_other(a in image(), b in image()) {
            let mut stepwise = memory();
            apply(&mut stepwise, &Image::default(), &a).unwrap();
            apply(&mut stepwise, &a, &b).unwrap();
            let mut direct = memory();
            apply(&mut direct, &Image::default(), &b).unwrap();
            prop_assert_eq!(stepwise.words(), direct.words());
        }

        /// What is found in tables says as much as what was known to be stored there.
        #[test]
        fn changes_lead_from_what_is_read(a in image(), b in image()) {
            let (mut found, mut direct) = (memory(), memory());
            apply(&mut found, &Image::default(), &a).unwrap();
            let read = Image::read(&found).unwrap();
            apply(&mut found, &read, &b).unwrap();
            apply(&mut direct, &Image::default(), &b).unwrap();
            prop_assert_eq!(found.words(), direct.words());
        }

        #[test]
        fn a_failed_store_leaves_the_old_image(a in image(), b in image(), at in any::<prop::sample::Index>()) {
            let mut before = memory();
            apply(&mut before, &Image::default(), &a).unwrap();
            let changes = a.changes(&b);
            let count = changes.publish.len() + changes.retire.len();
            prop_assume!(count > 0);
            let mut faulty = Faulty::new(before.clone(), at.index(count) + 1);
            prop_assert!(apply(&mut faulty, &a, &b).is_err());
            prop_assert_eq!(faulty.tables().words(), before.words());
        }

        /// At no point is a backend usable whose other words have not arrived yet.
        #[test]
        fn a_backend_is_usable_when_it_is_whole(a in words_of::<BackendEntry>(8), b in words_of::<BackendEntry>(8)) {
            let with = |entry: BackendEntry, flags| BackendEntry { flags, ..entry };
            let of = |entry| Image { backends: [(3, entry)].into_iter().collect(), ..Image::default() };
            let (idle, usable) = (with(a, 0), with(b, USABLE));
            for (from, to) in [(of(idle), of(usable)), (of(usable), of(idle)), (of(usable), Image::default())] {
                let (mut now, mut whole) = (memory(), memory());
                for (tables, image) in [(&mut now, &from), (&mut whole, &to)] {
                    apply(tables, &Image::default(), image).unwrap();
                }
                let changes = from.changes(&to);
                for store in [changes.publish, changes.retire].concat() {
                    now.store(store).unwrap();
                    let is_usable = now.backend(3).unwrap().flags & USABLE != 0;
                    prop_assert!(!is_usable || now.words() == whole.words());
                }
                prop_assert_eq!(now.words(), whole.words());
            }
        }

        /// At no point can an address lead to another address's region.
        #[test]
        fn a_way_is_closed_while_its_address_changes(a in vip_set(), b in vip_set()) {
            let of = |set: VipSet| Image { vips: BTreeMap::from([(0, set)]), ..Image::default() };
            let allowed = |low, high, region| {
                let has = |s: &VipSet| (0..4).any(|w| (s.low[w], s.high[w], s.region[w]) == (low, high, region));
                region == Region::NONE || has(&a) || has(&b)
            };
            let mut now = a;
            for store in of(a).changes(&of(b)).publish {
                bytemuck::cast_slice_mut::<VipSet, u64>(std::slice::from_mut(&mut now))[store.word] = store.value;
                for way in 0..4 {
                    prop_assert!(allowed(now.low[way], now.high[way], now.region[way]));
                }
            }
        }
    }
}
