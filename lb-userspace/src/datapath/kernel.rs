//! The program and its tables in the kernel.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use aya::maps::{Map, MapData, MapError, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use lb_common::flow::{Detail, Entry, FlowLines, WAYS};
use lb_common::hash::HashKey;
use lb_common::layout::{ASIDE, DETOUR, FlowCounts, Forwarded, LimiterCounts, OVER_SAMPLES_ROOM, Withheld};
use lb_common::limiter::meter::METERS;
use lb_common::limiter::sample::{LANES, OverSample, Sampler};
use lb_common::lists::Side;
use lb_common::verdict::REASON_COUNTERS;
use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, membarrier};
use rustix::time::{ClockId, clock_gettime};

use super::attach::{AttachError, Attachment, attach};
use super::lists::ListTable;
use super::mapping::{Mapping, Row};
use super::object::{counters, program, row};
use super::program_log::ProgramLog;
use super::{
    BALANCER_OBJECT, Capacity, Datapath, ListEntry, METER_WORDS, SampleCounts, Store, Table, TableError,
    no_meter, settings, words_of_meter,
};

/// The oldest kernel that runs the program: compare-and-swap in BPF came with 5.12, and 6.1 is the oldest we test.
pub const MINIMUM_KERNEL: (u32, u32) = (6, 1);

/// Why the program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel is older than [`MINIMUM_KERNEL`].
    #[error("this kernel is Linux {release}; lb needs Linux {}.{} or newer", MINIMUM_KERNEL.0, MINIMUM_KERNEL.1)]
    OldKernel {
        /// What `uname -r` says.
        release: String,
    },
    /// The process lacks capabilities.
    #[error("missing {}: run lb as root, or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", names.join(" and "))]
    MissingCapabilities {
        /// Their names.
        names: Vec<&'static str>,
    },
    /// The process's status could not be read.
    #[error("cannot read this process's capabilities from /proc/self/status; is /proc mounted?")]
    UnknownCapabilities,
    /// The object was refused before it reached the verifier.
    #[error("the kernel refused the program's tables: {0}")]
    Object(#[from] EbpfError),
    /// The verifier refused the program.
    #[error("the kernel refused the program: {0}")]
    Program(#[from] ProgramError),
    /// What the program has to say cannot be read.
    #[error("the program's log: {0}")]
    Log(#[from] aya_log::Error),
    /// A table is not as expected.
    #[error("table {name}: {source}")]
    Table {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        source: MapError,
    },
    /// A table could not be mapped into this process.
    #[error("cannot map table {name} into memory: {source}")]
    Mapping {
        /// Its name.
        name: &'static str,
        /// The system's reason.
        source: Errno,
    },
    /// Something that this very build should contain is not in the object.
    #[error("the embedded program has no {0}: this build is broken, build it again")]
    Incomplete(&'static str),
}

/// A loaded program and its tables.
pub struct KernelDatapath {
    ebpf: Ebpf,
    log: ProgramLog,
    capacity: Capacity,
    indices: Vec<u32>,
    backends: Mapping,
    slots: Mapping,
    limiters: Mapping,
    services: Mapping,
    vips: Mapping,
    features: Mapping,
    interfaces: Mapping,
    /// The kernel empties it when nobody holds it open.
    _ways: ProgramArray<MapData>,
    lists: [ListTable; 2],
    meters: Mapping,
    flows: Mapping,
    forwarded: PerCpuArray<MapData, Row<Forwarded>>,
    withheld: PerCpuArray<MapData, Row<Withheld>>,
    limiter_counts: PerCpuArray<MapData, Row<LimiterCounts>>,
    flow_counts: PerCpuArray<MapData, Row<FlowCounts>>,
    samplers: PerCpuArray<MapData, Row<Sampler>>,
    over_samples: RingBuf<MapData>,
    reasons: PerCpuArray<MapData, u64>,
}

/// Whether this host can run the program: its kernel and this process's capabilities.
pub fn check_host() -> Result<(), LoadError> {
    check_kernel(&rustix::system::uname().release().to_string_lossy())?;
    let status = std::fs::read_to_string("/proc/self/status").map_err(|_| LoadError::UnknownCapabilities)?;
    check_capabilities(&status)
}

fn check_kernel(release: &str) -> Result<(), LoadError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < MINIMUM_KERNEL { Err(LoadError::OldKernel { release: release.to_owned() }) } else { Ok(()) }
}

/// Bits of `CapEff` (`include/uapi/linux/capability.h`).
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// What the newer two were split from, and still implies them.
const CAP_SYS_ADMIN: u64 = 1 << 21;

fn check_capabilities(status: &str) -> Result<(), LoadError> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let effective = effective.ok_or(LoadError::UnknownCapabilities)?;
    let implied = if effective & CAP_SYS_ADMIN == 0 { 0 } else { 1 << 38 | 1 << 39 };
    let missing = |bit: u32| (effective | implied) >> bit & 1 == 0;
    let names: Vec<_> = CAPABILITIES.iter().filter(|(bit, _)| missing(*bit)).map(|(_, name)| *name).collect();
    if names.is_empty() { Ok(()) } else { Err(LoadError::MissingCapabilities { names }) }
}

impl KernelDatapath {
    /// Loads the program with empty tables; it is attached nowhere yet.
    pub fn load(hash_key: HashKey, capacity: Capacity, interfaces: &[u32]) -> Result<Self, LoadError> {
        let settings = settings(hash_key, &capacity, interfaces);
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", bytemuck::bytes_of(&settings), true)
            .map_max_entries("SERVICES", capacity.entries(Table::Services))
            .map_max_entries("SLOTS", capacity.entries(Table::Slots))
            .map_max_entries("BACKENDS", capacity.entries(Table::Backends))
            .map_max_entries("LISTS_A", capacity.lists)
            .map_max_entries("LISTS_B", capacity.lists)
            .map_max_entries("LIMITERS", capacity.entries(Table::Limiters))
            .map_max_entries("LIMITER_COUNTS", capacity.limiter_counters())
            .map_max_entries("BUCKETS", capacity.bucket_sets)
            .map_max_entries("FLOWS", capacity.flow_sets)
            .map_max_entries("FRAGMENTS", capacity.fragment_sets)
            .map_max_entries("FORWARDED", capacity.backends)
            .map_max_entries("WITHHELD", capacity.services)
            .load(BALANCER_OBJECT)?;
        for name in ["balance", "detour", "aside"] {
            program(&mut ebpf, name)?.load()?;
        }
        let ways = ways(&mut ebpf)?;
        let log = ProgramLog::of(&mut ebpf)?;
        let map =
            |name, table: Table| mapping(&ebpf, name, capacity.entries(table) as usize * table.entry_words());
        let (vips, services) = (map("VIPS", Table::Vips)?, map("SERVICES", Table::Services)?);
        let limiters = map("LIMITERS", Table::Limiters)?;
        let (slots, backends) = (map("SLOTS", Table::Slots)?, map("BACKENDS", Table::Backends)?);
        let indices = interfaces.to_vec();
        let (features, interfaces) =
            (map("FEATURES", Table::Features)?, map("INTERFACES", Table::Interfaces)?);
        let meters = mapping(&ebpf, "METERS", METERS as usize * METER_WORDS)?;
        let flows = mapping(&ebpf, "FLOWS", capacity.flow_sets as usize * FLOW_SET_WORDS)?;
        Ok(Self {
            limiter_counts: counters(&mut ebpf, "LIMITER_COUNTS")?,
            flow_counts: counters(&mut ebpf, "FLOW_COUNTS")?,
            samplers: counters(&mut ebpf, "SAMPLERS")?,
            over_samples: ring(&mut ebpf, "OVER_SAMPLES")?,
            forwarded: counters(&mut ebpf, "FORWARDED")?,
            withheld: counters(&mut ebpf, "WITHHELD")?,
            reasons: counters(&mut ebpf, "REASONS")?,
            lists: [list(&mut ebpf, "LISTS_A")?, list(&mut ebpf, "LISTS_B")?],
            ebpf,
            log,
            capacity,
            indices,
            backends,
            slots,
            limiters,
            services,
            vips,
            features,
            interfaces,
            _ways: ways,
            meters,
            flows,
        })
    }

    /// The loaded program, to run it on test packets.
    pub fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, "balance")
    }

    /// What the program has said since the last call: each message and how often.
    pub fn take_log(&mut self) -> BTreeMap<String, u64> {
        self.log.take()
    }

    /// Attaches the program natively, else generically with a warning that says why.
    pub fn attach(&mut self, interface: &str, index: u32) -> Result<Attachment, AttachError> {
        attach(self.program()?, interface, index)
    }
}

/// Tells `balance` where the other programs are.
fn ways(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, LoadError> {
    let wrong = |source| LoadError::Table { name: "WAYS", source };
    let map = ebpf.take_map("WAYS").ok_or(LoadError::Incomplete("WAYS"))?;
    let mut ways = ProgramArray::try_from(map).map_err(wrong)?;
    for (place, name) in [(DETOUR, "detour"), (ASIDE, "aside")] {
        ways.set(place, program(ebpf, name)?.fd()?, 0).map_err(wrong)?;
    }
    Ok(ways)
}

fn mapping(ebpf: &Ebpf, name: &'static str, words: usize) -> Result<Mapping, LoadError> {
    let Some(Map::Array(data)) = ebpf.map(name) else { return Err(LoadError::Incomplete(name)) };
    Mapping::new(data.fd().as_fd(), words).map_err(|source| LoadError::Mapping { name, source })
}

fn list(ebpf: &mut Ebpf, name: &'static str) -> Result<ListTable, LoadError> {
    match ebpf.take_map(name) {
        Some(Map::LpmTrie(map)) => Ok(ListTable::new(name, map)),
        _ => Err(LoadError::Incomplete(name)),
    }
}

fn ring(ebpf: &mut Ebpf, name: &'static str) -> Result<RingBuf<MapData>, LoadError> {
    let map = ebpf.take_map(name).ok_or(LoadError::Incomplete(name))?;
    RingBuf::try_from(map).map_err(|source| LoadError::Table { name, source })
}

/// Words of one set of the flow table.
const FLOW_SET_WORDS: usize = size_of::<FlowLines>() / size_of::<u64>();

/// The word of a place's entry. Its detail is [`WAYS`] words further on.
fn entry_word(place: usize) -> usize {
    place / WAYS * FLOW_SET_WORDS + place % WAYS
}

impl Datapath for KernelDatapath {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn interfaces(&self) -> &[u32] {
        &self.indices
    }

    fn store(&mut self, store: Store) -> Result<(), TableError> {
        let (mapping, table) = match store.table {
            Table::Backends => (&self.backends, "BACKENDS"),
            Table::Slots => (&self.slots, "SLOTS"),
            Table::Limiters => (&self.limiters, "LIMITERS"),
            Table::Services => (&self.services, "SERVICES"),
            Table::Vips => (&self.vips, "VIPS"),
            Table::Features => (&self.features, "FEATURES"),
            Table::Interfaces => (&self.interfaces, "INTERFACES"),
        };
        mapping.store(store.word, store.value).ok_or_else(|| TableError {
            table,
            entry: store.word / store.table.entry_words(),
            reason: "the table ends before it".to_owned(),
        })
    }

    fn fill_list(&mut self, side: Side, entries: &[ListEntry]) -> Result<(), TableError> {
        self.lists[side as usize].fill(entries)
    }

    fn settle(&mut self) {
        // The kernel answers this with synchronize_rcu() (kernel/sched/membarrier.c), and XDP programs run under RCU.
        if let Err(error) = membarrier(MembarrierCommand::Global) {
            tracing::warn!(
                "membarrier: {error}; waiting 100 ms instead, many times as long as a program runs"
            );
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// `bpf_ktime_get_coarse_ns` reads this very clock.
    fn clock(&self) -> u64 {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        // The clock counts from the boot: neither part is negative.
        now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
    }

    fn flow(&self, place: usize) -> Option<(Entry, Detail)> {
        let word = entry_word(place);
        let entry = self.flows.load(word).filter(|word| *word != Entry::VACANT.word())?;
        Some((Entry::from_word(entry), Detail::from_word(self.flows.load(word + WAYS)?)))
    }

    fn forget(&mut self, place: usize, entry: Entry) -> bool {
        self.flows.exchange(entry_word(place), entry.word(), Entry::VACANT.word())
    }

    fn relay_log(&mut self) {
        for (message, times) in self.take_log() {
            tracing::error!("the program says, {times} times: {message}");
        }
    }

    fn forwarded(&self, index: u32) -> Result<Forwarded, TableError> {
        let add = |a: Forwarded, Row(b): Row<Forwarded>| Forwarded {
            packets: a.packets + b.packets,
            bytes: a.bytes + b.bytes,
            new_flows: a.new_flows + b.new_flows,
        };
        Ok(row(&self.forwarded, "FORWARDED", index)?.into_iter().fold(Forwarded::default(), add))
    }

    fn withheld(&self, index: u32) -> Result<Withheld, TableError> {
        let add = |a: Withheld, Row(b): Row<Withheld>| Withheld {
            limited: a.limited + b.limited,
            dropped: a.dropped + b.dropped,
        };
        Ok(row(&self.withheld, "WITHHELD", index)?.into_iter().fold(Withheld::default(), add))
    }

    fn limiter_counts(&self, index: u32) -> Result<LimiterCounts, TableError> {
        let add = |a: LimiterCounts, Row(b): Row<LimiterCounts>| LimiterCounts {
            admitted: a.admitted + b.admitted,
            over: a.over + b.over,
            unmarked: a.unmarked + b.unmarked,
            contended: a.contended + b.contended,
        };
        Ok(row(&self.limiter_counts, "LIMITER_COUNTS", index)?
            .into_iter()
            .fold(LimiterCounts::default(), add))
    }

    fn meter(&self, meter: u32) -> Result<Vec<u64>, TableError> {
        let word = |word| self.meters.load(word).ok_or_else(|| no_meter(meter));
        words_of_meter(meter).map(word).collect()
    }

    fn clear_meter(&mut self, meter: u32) -> Result<(), TableError> {
        words_of_meter(meter).try_for_each(|word| self.meters.store(word, 0)).ok_or_else(|| no_meter(meter))
    }

    fn take_over_samples(&mut self) -> Vec<OverSample> {
        let mut samples = Vec::new();
        // No more than there is room for: the program may go on telling as fast as they are fetched.
        while samples.len() < OVER_SAMPLES_ROOM
            && let Some(bytes) = self.over_samples.next()
        {
            samples.extend(bytemuck::try_pod_read_unaligned::<OverSample>(&bytes).ok());
        }
        samples
    }

    fn sample_counts(&self) -> Result<SampleCounts, TableError> {
        (0..LANES).try_fold(SampleCounts::default(), |sum, lane| {
            let cpus = row(&self.samplers, "SAMPLERS", lane)?.into_iter();
            Ok(cpus.fold(sum, |sum, Row(sampler)| sum.and(sampler)))
        })
    }

    fn flow_counts(&self) -> Result<FlowCounts, TableError> {
        let add = |a: FlowCounts, Row(b): Row<FlowCounts>| FlowCounts {
            known: a.known + b.known,
            added: a.added + b.added,
            evicted: a.evicted + b.evicted,
            contended: a.contended + b.contended,
        };
        Ok(row(&self.flow_counts, "FLOW_COUNTS", 0)?.into_iter().fold(FlowCounts::default(), add))
    }

    fn reason(&self, interface_row: u32, counter: u32) -> Result<u64, TableError> {
        Ok(row(&self.reasons, "REASONS", interface_row * REASON_COUNTERS + counter)?.into_iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_6_1_are_refused() {
        for old in ["5.10.0-28-amd64", "6.0.19", "2.6.78-fc", "4.19"] {
            assert!(matches!(check_kernel(old), Err(LoadError::OldKernel { .. })), "{old}");
        }
        for new in ["6.1.0-18-amd64", "6.12.3", "7.0-rc1", "10.2.1"] {
            assert!(check_kernel(new).is_ok(), "{new}");
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let error = |hex: &str| {
            check_capabilities(&format!("Name:\tlb\nCapEff:\t{hex}\n")).map_err(|e| e.to_string())
        };
        let advice = ": run lb as root, or give it CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
        assert_eq!(error("000001ffffffffff"), Ok(()));
        assert_eq!(error("000000c000001000"), Ok(()));
        assert_eq!(error("0000000000201000"), Ok(()));
        assert_eq!(error("0000008000001000"), Err(format!("missing CAP_PERFMON{advice}")));
        assert_eq!(
            error("0000000000000000"),
            Err(format!("missing CAP_NET_ADMIN and CAP_PERFMON and CAP_BPF{advice}"))
        );
        assert!(matches!(check_capabilities("Name:\tlb\n"), Err(LoadError::UnknownCapabilities)));
    }
}
