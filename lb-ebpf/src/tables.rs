//! The tables of `lb_common::layout` as kernel maps.
//!
//! The daemon changes arrays through a mapping while the program reads them, word by word with aligned 64-bit stores. The
//! pipeline reads each word that publishes something once, so it acts on the old value or the new one, never on a mixture.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, LpmTrie, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use lb_common::answer;
use lb_common::flow::{self, FlowEvent, FlowLines, FlowSet, Passenger, PassengerKind, set_of};
use lb_common::fragment;
use lb_common::hash::HashKey;
use lb_common::layout::{
    BackendEntry, BucketWords, Features, FlowCounts, Forwarded, InterfaceEntry, LimiterCounts, LimiterEntry,
    MAX_INTERFACES, OVER_SAMPLES_BYTES, SLOTS_PER_LINE, ServiceEntry, Settings, SlotLine, VIP_SETS, VipKey,
    VipSet, Withheld,
};
use lb_common::limiter::meter::{METERS as METER_COUNT, REGISTER_SETS, measure as count_source};
use lb_common::limiter::sample::{self, LANES, OverSample, Sampler};
use lb_common::limiter::{self, Asker, BucketSet, LimiterEvent, Ruling, WAYS};
use lb_common::lists::{ListKey, Listed, Side};
use lb_common::owner::{BackendOwner, LimiterOwner, ServiceOwner};
use lb_common::pipeline::{self, Clock, ServiceEvent, Tables};
use lb_common::slot::{BackendId, Slot};

use crate::clock;
use crate::settings::{count_reason, loaded, row_of};

/// `BPF_F_MMAPABLE` of `include/uapi/linux/bpf.h`.
pub(crate) const MMAPABLE: usize = 1 << 10;

// Sizes of 1 are placeholders: the daemon sets each when it loads the program.
#[btf_map]
static VIPS: Array<VipSet, { VIP_SETS as usize }, MMAPABLE> = Array::new();
#[btf_map]
static SERVICES: Array<ServiceEntry, 1, MMAPABLE> = Array::new();
#[btf_map]
static SLOTS: Array<SlotLine, 1, MMAPABLE> = Array::new();
#[btf_map]
static BACKENDS: Array<BackendEntry, 1, MMAPABLE> = Array::new();
#[btf_map]
static FEATURES: Array<Features, 1, MMAPABLE> = Array::new();
#[btf_map]
static INTERFACES: Array<InterfaceEntry, MAX_INTERFACES, MMAPABLE> = Array::new();
#[btf_map]
static BACKEND_OWNERS: Array<BackendOwner, 1, MMAPABLE> = Array::new();
#[btf_map]
static SERVICE_OWNERS: Array<ServiceOwner, 1, MMAPABLE> = Array::new();
#[btf_map]
static LIMITER_OWNERS: Array<LimiterOwner, 1, MMAPABLE> = Array::new();
#[btf_map]
static LISTS_A: LpmTrie<[u32; 4], u32, 1> = LpmTrie::new();
#[btf_map]
static LISTS_B: LpmTrie<[u32; 4], u32, 1> = LpmTrie::new();
#[btf_map]
static LIMITERS: Array<LimiterEntry, 1, MMAPABLE> = Array::new();
#[btf_map]
static BUCKETS: Array<BucketWords, 1, MMAPABLE> = Array::new();
#[btf_map]
static METERS: Array<BucketWords, { (METER_COUNT * REGISTER_SETS) as usize }, MMAPABLE> = Array::new();
#[btf_map]
static FLOWS: Array<FlowLines, 1, MMAPABLE> = Array::new();
#[btf_map]
static FRAGMENTS: Array<FlowLines, 1, MMAPABLE> = Array::new();
#[btf_map]
static FORWARDED: PerCpuArray<Forwarded, 1> = PerCpuArray::new();
#[btf_map]
static WITHHELD: PerCpuArray<Withheld, 1> = PerCpuArray::new();
#[btf_map]
static LIMITER_COUNTS: PerCpuArray<LimiterCounts, 1> = PerCpuArray::new();
#[btf_map]
static FLOW_COUNTS: PerCpuArray<FlowCounts, 1> = PerCpuArray::new();
#[btf_map]
static SAMPLERS: PerCpuArray<Sampler, { LANES as usize }> = PerCpuArray::new();
#[btf_map]
static OVER_SAMPLES: RingBuf<OverSample, OVER_SAMPLES_BYTES> = RingBuf::new();

/// Replaced by the daemon at load.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings {
    hash_key: HashKey::ZERO,
    bucket_sets: 0,
    flow_sets: 0,
    fragment_sets: 0,
    tick_ns: 0,
    interfaces: [0; MAX_INTERFACES],
};

pub(crate) struct KernelTables;

impl Tables for KernelTables {
    type Buckets<'a> = Buckets;
    type Flows<'a> = Flows;

    #[inline(always)]
    fn hash_key(&self) -> &HashKey {
        &settings().hash_key
    }

    #[inline(always)]
    fn features(&self) -> Features {
        FEATURES.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn interface(&self, ingress: u32) -> Option<InterfaceEntry> {
        INTERFACES.get(row_of(&settings().interfaces, ingress)).copied()
    }

    #[inline(always)]
    fn vip_set(&self, index: u32) -> Option<&VipSet> {
        VIPS.get(index)
    }

    #[inline(always)]
    fn service(&self, index: u32) -> Option<&ServiceEntry> {
        SERVICES.get(index)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        let line = SLOTS.get(index / SLOTS_PER_LINE)?;
        Some(line[(index % SLOTS_PER_LINE) as usize])
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&BackendEntry> {
        BACKENDS.get(index)
    }

    #[inline(always)]
    fn listed(&self, source: VipKey) -> Listed {
        Listed::from_word(listed(source.high, source.low))
    }

    #[inline(always)]
    fn limiter(&self, row: u32) -> Option<&LimiterEntry> {
        LIMITERS.get(row)
    }

    #[inline(always)]
    fn bucket_sets(&self) -> u32 {
        settings().bucket_sets
    }

    #[inline(always)]
    fn buckets(&self, set: u32) -> Option<Buckets> {
        BUCKETS.get_ptr_mut(set).map(|words| Buckets(words.cast()))
    }

    #[inline(always)]
    fn registers(&self, set: u32) -> Option<Buckets> {
        METERS.get_ptr_mut(set).map(|words| Buckets(words.cast()))
    }

    #[inline(always)]
    fn flows(&self, hash: u64) -> Option<Flows> {
        FLOWS.get_ptr_mut(set_of(hash, settings().flow_sets)).map(|lines| Flows(lines.cast()))
    }

    #[inline(always)]
    fn fragments(&self, hash: u64) -> Option<Flows> {
        FRAGMENTS.get_ptr_mut(set_of(hash, settings().fragment_sets)).map(|lines| Flows(lines.cast()))
    }

    #[inline(always)]
    fn now(&self, clock: Clock) -> u64 {
        clock::now(clock, settings().tick_ns)
    }

    #[inline(always)]
    fn ask(&self, row: u32, asker: &Asker) -> Ruling {
        let Asker { source: VipKey { high, low }, bytes, traits } = *asker;
        match ask(row, high, low, bytes, traits) {
            0 => Ruling::Pass,
            1 => Ruling::Mark,
            2 => Ruling::Drop,
            _ => Ruling::Inconsistent,
        }
    }

    #[inline(always)]
    fn measure(&self, meter: u32, hash: u64, now: u64, units: u64) {
        measure(meter, hash, now, units);
    }

    fn over(&self, salt: u32, source: VipKey) {
        over(salt, source.high, source.low);
    }

    #[inline(always)]
    fn in_motion(&self, passenger: &Passenger, slot: Slot, backend_base: u32) -> Option<BackendId> {
        let Passenger { hash, slot: index, kind } = *passenger;
        BackendId::try_new(in_motion(hash, slot.word(), index, kind as u32, backend_base))
    }

    #[inline(always)]
    fn remember_fragment(&self, hash: u64, piece: u32) {
        remember_fragment(hash, piece);
    }

    #[inline(always)]
    fn recall_fragment(&self, hash: u64) -> Option<u32> {
        u32::try_from(recall_fragment(hash)).ok()
    }

    #[inline(always)]
    fn affords(&self, source: u64) -> bool {
        affords(source) != 0
    }

    #[inline(always)]
    fn count_forwarded(&self, backend: u32, bytes: u64, opens: bool) {
        if let Some(row) = FORWARDED.get_ptr_mut(backend) {
            // SAFETY: the row is this CPU's own, and a program is not interrupted by itself on its CPU.
            let row = unsafe { &mut *row };
            row.packets += 1;
            row.bytes += bytes;
            row.new_flows += u64::from(opens);
        }
    }

    #[inline(always)]
    fn count_service(&self, service: u32, event: ServiceEvent) {
        if let Some(row) = WITHHELD.get_ptr_mut(service) {
            // SAFETY: as in `count_forwarded`.
            let row = unsafe { &mut *row };
            match event {
                ServiceEvent::Limited => row.limited += 1,
                ServiceEvent::Dropped => row.dropped += 1,
            }
        }
    }

    #[inline(always)]
    fn count_limiter(&self, row: u32, event: LimiterEvent) {
        if let Some(counts) = LIMITER_COUNTS.get_ptr_mut(row) {
            // SAFETY: as in `count_forwarded`.
            unsafe { &mut *counts }.count(event);
        }
    }

    #[inline(always)]
    fn meet_over(&self, lane: u32, period: u32) -> u32 {
        match SAMPLERS.get_ptr_mut(lane) {
            // SAFETY: as in `count_forwarded`.
            Some(sampler) => unsafe { &mut *sampler }.meet(period, self.hash_key()),
            None => 0,
        }
    }

    #[inline(always)]
    fn tell_over(&self, lane: u32, sample: &OverSample) {
        // The daemon looks for samples by itself: a flood wakes nobody.
        let told = OVER_SAMPLES.output(sample, u64::from(BPF_RB_NO_WAKEUP)).is_ok();
        if let Some(sampler) = SAMPLERS.get_ptr_mut(lane) {
            // SAFETY: as in `count_forwarded`.
            unsafe { &mut *sampler }.count(told);
        }
    }

    #[inline(always)]
    fn count_flow(&self, event: FlowEvent) {
        if let Some(counts) = FLOW_COUNTS.get_ptr_mut(0) {
            // SAFETY: as in `count_forwarded`.
            unsafe { &mut *counts }.count(event);
        }
    }

    #[inline(always)]
    fn count_reason(&self, ingress: u32, counter: u32) {
        count_reason(&settings().interfaces, ingress, counter);
    }
}

/// The word of what the lists say of a source.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn listed(high: u64, low: u64) -> u32 {
    let Some(side) = KernelTables.features().lists() else { return Listed::No.word() };
    let ListKey { length, address } = ListKey::of(VipKey { high, low });
    let key = Key::new(length, address);
    let found = match side {
        Side::A => LISTS_A.get(&key),
        Side::B => LISTS_B.get(&key),
    };
    found.copied().unwrap_or(Listed::No.word())
}

/// What the limiter in a row rules.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn ask(row: u32, high: u64, low: u64, bytes: u32, traits: u32) -> u32 {
    limiter::ask(&KernelTables, row, &Asker { source: VipKey { high, low }, bytes, traits }) as u32
}

/// Counts what a source sent, by a meter.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn measure(meter: u32, hash: u64, now: u64, units: u64) -> u32 {
    count_source(&KernelTables, meter, hash, now, units);
    0
}

/// Takes note of a packet over a limit. Only such packets come here: what is within its limit pays nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn over(salt: u32, high: u64, low: u64) -> u32 {
    sample::over(&KernelTables, salt, VipKey { high, low });
    0
}

/// The backend of a packet in a moving slot; no backend's number if a table has no such entry.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn in_motion(hash: u64, slot: u32, index: u32, kind: u32, backend_base: u32) -> u16 {
    let kind = match kind {
        0 => PassengerKind::Goes,
        1 => PassengerKind::Opens,
        _ => PassengerKind::Speaks,
    };
    let passenger = Passenger { hash, slot: index, kind };
    let owner = pipeline::in_motion(&KernelTables, &passenger, Slot::from_word(slot), backend_base);
    owner.map_or(u16::MAX, BackendId::number)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn remember_fragment(hash: u64, piece: u32) -> u32 {
    fragment::remember(&KernelTables, hash, piece);
    0
}

/// What was remembered, or a number that is no word.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn recall_fragment(hash: u64) -> u64 {
    fragment::recall(&KernelTables, hash).map_or(u64::MAX, u64::from)
}

/// Whether the program answers a source once more.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn affords(source: u64) -> u32 {
    u32::from(answer::affords(&KernelTables, source))
}

#[inline(always)]
fn settings() -> &'static Settings {
    loaded(&SETTINGS)
}

/// The words of one set of buckets, or of registers of a meter, changed by all CPUs.
pub(crate) struct Buckets(*mut u64);

impl BucketSet for Buckets {
    #[inline(always)]
    fn load(&self, way: usize) -> u64 {
        // SAFETY: the set has `WAYS` words.
        unsafe { load(self.0.wrapping_add(way % WAYS)) }
    }

    #[inline(always)]
    fn exchange(&self, way: usize, old: u64, new: u64) -> bool {
        // SAFETY: as above.
        unsafe { exchange(self.0.wrapping_add(way % WAYS), old, new) }
    }
}

/// The words of one set of flows, changed by all CPUs and by the daemon.
pub(crate) struct Flows(*mut u64);

impl Flows {
    #[inline(always)]
    fn detail_of(&self, way: usize) -> *mut u64 {
        self.0.wrapping_add(flow::WAYS + way % flow::WAYS)
    }
}

impl FlowSet for Flows {
    #[inline(always)]
    fn entry(&self, way: usize) -> u64 {
        // SAFETY: the set has twice `WAYS` words.
        unsafe { load(self.0.wrapping_add(way % flow::WAYS)) }
    }

    #[inline(always)]
    fn detail(&self, way: usize) -> u64 {
        // SAFETY: as above.
        unsafe { load(self.detail_of(way)) }
    }

    #[inline(always)]
    fn exchange(&self, way: usize, old: u64, new: u64) -> bool {
        // SAFETY: as above.
        unsafe { exchange(self.0.wrapping_add(way % flow::WAYS), old, new) }
    }

    #[inline(always)]
    fn set_detail(&self, way: usize, detail: u64) {
        // SAFETY: as above. The store is aligned and of one machine word, so nobody sees half of it.
        unsafe { write_volatile(self.detail_of(way), detail) };
    }
}

/// A word that other CPUs change.
///
/// # Safety
///
/// `word` is inside a map's value, which lives as long as the map and so as the program.
#[inline(always)]
unsafe fn load(word: *mut u64) -> u64 {
    // SAFETY: the caller's promise. The load is aligned and of one machine word, so it sees no half of another CPU's store.
    unsafe { read_volatile(word) }
}

/// Replaces a word if it is still `old`.
///
/// # Safety
///
/// As of [`load`].
#[inline(always)]
unsafe fn exchange(word: *mut u64, old: u64, new: u64) -> bool {
    const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;
    // SAFETY: the caller's promise; every other writer uses compare-and-swap too.
    let (_, same) = unsafe { atomic_cxchg::<u64, ORDER, ORDER>(word, old, new) };
    same
}
