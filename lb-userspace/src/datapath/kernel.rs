//! The program and its tables in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::ops::{ControlFlow, Range};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray, RingBuf};
use aya::pin::PinError;
use aya::programs::{ProgramError, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfError, EbpfLoader};
use bytemuck::Zeroable;
use lb_common::flow::{Detail, Entry, FlowLines, WAYS};
use lb_common::hash::HashKey;
use lb_common::layout::{
    ASIDE, DETOUR, Features, FlowCounts, Forwarded, LimiterCounts, OVER_SAMPLES_ROOM, Withheld,
};
use lb_common::limiter::meter::METERS;
use lb_common::limiter::sample::{LANES, OverSample, Sampler};
use lb_common::lists::Side;
use lb_common::verdict::REASON_COUNTERS;
use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, membarrier};
use rustix::time::{ClockId, clock_gettime};

use super::attach::{AttachError, Attachment, attach};
use super::batch::visit_rows;
use super::lists::ListTable;
use super::mapping::{Mapping, Row};
use super::maps::{MAPS, WAYS as WAYS_MAP, kept_maps};
use super::object::{counters, program, row};
use super::pins::{Pins, PinsError, Plan};
use super::program_log::ProgramLog;
use super::smoke::{SmokeError, try_out};
use super::window::Windowed;
use super::{
    BALANCER_OBJECT, Capacity, Counters, Datapath, ListEntry, METER_WORDS, STOPPED_OBJECT, SampleCounts,
    Store, Table, TableError, no_meter, settings, words_of_meter,
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
    /// A table could not be read.
    #[error(transparent)]
    Read(#[from] TableError),
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
    /// It is not known for how many CPUs there are counters.
    #[error("cannot tell how many CPUs there can be: {0}")]
    Cpus(#[source] io::Error),
    /// Something that this very build should contain is not in the object.
    #[error("the embedded program has no {0}: this build is broken, build it again")]
    Incomplete(&'static str),
}

/// A loaded program and its tables.
pub struct KernelDatapath {
    ebpf: Ebpf,
    log: ProgramLog,
    capacity: Capacity,
    hash_key: HashKey,
    rows: Vec<u32>,
    /// By the number of each table.
    tables: [Windowed; Table::ALL.len()],
    lists: [ListTable; 2],
    meters: Mapping,
    flows: Mapping,
    forwarded: PerCpuArray<MapData, Row<Forwarded>>,
    /// The same map.
    forwarded_map: OwnedFd,
    /// As `withheld`.
    withheld_map: OwnedFd,
    /// Values that a row of counters has.
    cpus: usize,
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
    let status = fs::read_to_string("/proc/self/status").map_err(|_| LoadError::UnknownCapabilities)?;
    check_capabilities(&status)
}

pub(crate) fn check_kernel(release: &str) -> Result<(), LoadError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < MINIMUM_KERNEL { Err(LoadError::OldKernel { release: release.to_owned() }) } else { Ok(()) }
}

/// Bits of `CapEff` (`include/uapi/linux/capability.h`).
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// What the newer two were split from, and still implies them.
const CAP_SYS_ADMIN: u64 = 1 << 21;

pub(crate) fn check_capabilities(status: &str) -> Result<(), LoadError> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let effective = effective.ok_or(LoadError::UnknownCapabilities)?;
    let implied = if effective & CAP_SYS_ADMIN == 0 { 0 } else { 1 << 38 | 1 << 39 };
    let missing = |bit: u32| (effective | implied) >> bit & 1 == 0;
    let names: Vec<_> = CAPABILITIES.iter().filter(|(bit, _)| missing(*bit)).map(|(_, name)| *name).collect();
    if names.is_empty() { Ok(()) } else { Err(LoadError::MissingCapabilities { names }) }
}

impl KernelDatapath {
    /// Loads the program with empty tables of its own; it is attached nowhere yet.
    pub fn load(hash_key: HashKey, capacity: Capacity, interfaces: &[u32]) -> Result<Self, LoadError> {
        Self::load_onto(BALANCER_OBJECT, hash_key, capacity, interfaces, None)
    }

    /// The same of the program whose clocks stand until they are set: the words of the table `CLOCKS`, in the order of
    /// [`Clock`](lb_common::pipeline::Clock).
    pub fn load_stopped(
        hash_key: HashKey,
        capacity: Capacity,
        interfaces: &[u32],
    ) -> Result<Self, LoadError> {
        Self::load_onto(STOPPED_OBJECT, hash_key, capacity, interfaces, None)
    }

    /// How many instructions the verifier followed in each program; 0 where the kernel does not tell.
    pub fn verified(&mut self) -> Result<Vec<(&'static str, u32)>, LoadError> {
        let count = |name| {
            let info = program(&mut self.ebpf, name)?.info()?;
            Ok((name, info.verified_instruction_count().unwrap_or(0)))
        };
        PROGRAMS.into_iter().map(count).collect()
    }

    /// A table of the program in this process's memory, by its name: for tests, which put there what no program and no daemon
    /// would. Only arrays have one.
    pub fn mapping(&self, name: &'static str) -> Result<Mapping, LoadError> {
        let Some(Map::Array(data)) = self.ebpf.map(name) else { return Err(LoadError::Incomplete(name)) };
        let info = data.info().map_err(|source| LoadError::Table { name, source })?;
        let words = info.max_entries() as usize * info.value_size() as usize / size_of::<u64>();
        mapping(&self.ebpf, name, |map| Mapping::new(map, words))
    }

    /// Loads the program onto the tables that are pinned in a directory, and pins there those that are missing.
    ///
    /// Those that are there must be the ones of this program and of this capacity.
    pub(crate) fn load_onto(
        object: &[u8],
        hash_key: HashKey,
        capacity: Capacity,
        interfaces: &[u32],
        pins: Option<&Path>,
    ) -> Result<Self, LoadError> {
        let settings = settings(hash_key, &capacity, interfaces);
        let mut loader = EbpfLoader::new();
        loader.override_global("SETTINGS", bytemuck::bytes_of(&settings), true);
        for map in MAPS {
            map.entries
                .into_iter()
                .for_each(|entries| _ = loader.map_max_entries(map.name, entries(&capacity)));
        }
        for (directory, map) in pins.iter().flat_map(|pins| kept_maps().map(move |map| (pins, map))) {
            loader.map_pin_path(map.name, directory.join(map.name));
        }
        let mut ebpf = loader.load(object)?;
        for name in PROGRAMS {
            program(&mut ebpf, name)?.load()?;
        }
        fill_ways(&mut ebpf)?;
        let log = ProgramLog::of(&mut ebpf)?;
        let mut tables = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let words = capacity.entries(table) as usize * table.entry_words();
            tables.push(mapping(&ebpf, table.name(), |map| Windowed::new(map, words))?);
        }
        // There are as many as tables.
        let tables = tables.try_into().map_err(|_| LoadError::Incomplete("tables"))?;
        let meters = mapping(&ebpf, "METERS", |map| Mapping::new(map, METERS as usize * METER_WORDS))?;
        let flow_words = capacity.flow_sets as usize * FLOW_SET_WORDS;
        let flows = mapping(&ebpf, "FLOWS", |map| Mapping::new(map, flow_words))?;
        Ok(Self {
            forwarded_map: counters_map(&ebpf, "FORWARDED")?,
            withheld_map: counters_map(&ebpf, "WITHHELD")?,
            cpus: nr_cpus().map_err(|(_, source)| LoadError::Cpus(source))?,
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
            hash_key,
            rows: interfaces.to_vec(),
            tables,
            meters,
            flows,
        })
    }

    /// Loads the program onto the tables that a plan names; it is attached nowhere yet.
    pub(crate) fn load_planned(hash_key: HashKey, plan: &Plan) -> Result<Self, LoadError> {
        let mut loaded =
            Self::load_onto(BALANCER_OBJECT, hash_key, plan.capacity, &plan.rows, Some(&plan.directory))?;
        plan.new_rows.iter().try_for_each(|row| loaded.clear_reasons(*row))?;
        Ok(loaded)
    }

    /// Tries the program on packets of our own, see [`SmokeError`].
    pub(crate) fn try_out(&mut self, vips: &BTreeSet<IpAddr>) -> Result<(), SmokeError> {
        let words = self.contents(Table::Features).map_err(LoadError::from)?;
        let denying = words.first().is_some_and(|word| Features(*word).lists().is_some());
        // One of each family takes both ways; more would be answered for no more reason.
        let first = |is_ipv4: bool| vips.iter().copied().find(move |vip| vip.is_ipv4() == is_ipv4);
        let some: Vec<IpAddr> = [first(true), first(false)].into_iter().flatten().collect();
        try_out(self.program()?, some.into_iter(), denying)
    }

    /// Pins the program and brings it to all interfaces, where it takes the place of the one before it.
    pub(crate) fn attach_pinned(
        &mut self,
        pins: &Pins,
        plan: &Plan,
        interfaces: &[(String, u32)],
    ) -> Result<Vec<Attachment>, AttachError> {
        let id = self.program_id()?;
        let directory = plan.program(id);
        let failed =
            |error: PinError| PinsError::system("pin a program in", &directory, io::Error::other(error));
        fs::create_dir_all(&directory).map_err(|error| PinsError::system("make", &directory, error))?;
        self.pin_programs(&directory).map_err(failed)?;
        let attachments = pins.attach(self.program()?, interfaces)?;
        pins.tidy(plan, id, interfaces)?;
        Ok(attachments)
    }

    /// Pins the program beside the tables, by which others find it.
    fn pin_programs(&mut self, directory: &Path) -> Result<(), PinError> {
        for name in PROGRAMS {
            if let Ok(program) = program(&mut self.ebpf, name) {
                program.pin(directory.join(name))?;
            }
        }
        self.ebpf.map(WAYS_MAP).map_or(Ok(()), |ways| ways.pin(directory.join(WAYS_MAP)))
    }

    /// The number that the kernel gave the program.
    fn program_id(&mut self) -> Result<u32, LoadError> {
        Ok(self.program()?.info()?.id())
    }

    /// Sets the counters of an interface's row to zero, in which nobody counts.
    fn clear_reasons(&mut self, row: u32) -> Result<(), TableError> {
        (0..REASON_COUNTERS).try_for_each(|at| zero(&mut self.reasons, "REASONS", row * REASON_COUNTERS + at))
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

/// The programs of the object.
const PROGRAMS: [&str; 3] = ["balance", "detour", "aside"];

/// Sets a row of counters to zero on every CPU.
fn zero<T>(rows: &mut PerCpuArray<MapData, T>, table: &'static str, row: u32) -> Result<(), TableError>
where
    T: aya::Pod + Zeroable,
{
    let failed = |reason: String| TableError { table, entry: row as usize, reason };
    let cpus = nr_cpus().map_err(|(what, error)| failed(format!("{what}: {error}")))?;
    let zeros = PerCpuValues::try_from(vec![T::zeroed(); cpus]).map_err(|error| failed(error.to_string()))?;
    rows.set(row, zeros, 0).map_err(|error| failed(error.to_string()))
}

/// Tells `balance` where the other programs are. The kernel empties the map when nobody holds it open, or has it pinned.
fn fill_ways(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    let wrong = |source| LoadError::Table { name: WAYS_MAP, source };
    for (place, name) in [(DETOUR, "detour"), (ASIDE, "aside")] {
        let way = program(ebpf, name)?.fd()?.try_clone().map_err(|error| wrong(error.into()))?;
        let map = ebpf.map_mut(WAYS_MAP).ok_or(LoadError::Incomplete(WAYS_MAP))?;
        ProgramArray::try_from(map).and_then(|mut ways| ways.set(place, &way, 0)).map_err(wrong)?;
    }
    Ok(())
}

fn together(a: Forwarded, b: Forwarded) -> Forwarded {
    Forwarded {
        packets: a.packets + b.packets,
        bytes: a.bytes + b.bytes,
        new_flows: a.new_flows + b.new_flows,
    }
}

fn withheld_together(a: Withheld, b: Withheld) -> Withheld {
    Withheld { limited: a.limited + b.limited, dropped: a.dropped + b.dropped }
}

/// Rows of counters, those of all CPUs together: a system call for some thousand rows instead of one for each.
fn rows_in<T: bytemuck::Pod + Default>(
    map: &OwnedFd,
    table: &'static str,
    cpus: usize,
    rows: Range<u32>,
    together: fn(T, T) -> T,
) -> Result<Vec<T>, TableError> {
    let mut all = Vec::with_capacity(rows.len());
    visit_rows(map, table, rows, cpus, |_, row: &[T]| {
        all.push(row.iter().copied().fold(T::default(), together));
        ControlFlow::Continue(())
    })?;
    Ok(all)
}

/// A map of counters, for other calls than aya's.
fn counters_map(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    let Some(Map::PerCpuArray(data)) = ebpf.map(name) else { return Err(LoadError::Incomplete(name)) };
    let copied = rustix::io::fcntl_dupfd_cloexec(data.fd().as_fd(), 0);
    copied.map_err(|source| LoadError::Mapping { name, source })
}

fn mapping<M>(
    ebpf: &Ebpf,
    name: &'static str,
    map: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<M>,
) -> Result<M, LoadError> {
    let Some(Map::Array(data)) = ebpf.map(name) else { return Err(LoadError::Incomplete(name)) };
    map(data.fd().as_fd()).map_err(|source| LoadError::Mapping { name, source })
}

fn list(ebpf: &mut Ebpf, name: &'static str) -> Result<ListTable, LoadError> {
    match ebpf.take_map(name) {
        Some(Map::LpmTrie(map)) => Ok(ListTable::new(name, map)?),
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
    fn hash_key(&self) -> &HashKey {
        &self.hash_key
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn interfaces(&self) -> &[u32] {
        &self.rows
    }

    fn store(&mut self, store: Store) -> Result<(), TableError> {
        let Store { table, word, value } = store;
        self.tables[table as usize].store(word, value).map_err(|error| TableError {
            table: table.name(),
            entry: word / table.entry_words(),
            reason: error.to_string(),
        })
    }

    fn contents(&self, table: Table) -> Result<Vec<u64>, TableError> {
        let words = self.tables[table as usize].load_all();
        words.map_err(|error| TableError { table: table.name(), entry: 0, reason: error.to_string() })
    }

    fn list_contents(&self, side: Side) -> Result<Vec<ListEntry>, TableError> {
        self.lists[side as usize].entries()
    }

    fn clear(&mut self, counters: Counters, row: u32) -> Result<(), TableError> {
        match counters {
            Counters::Forwarded => zero(&mut self.forwarded, "FORWARDED", row),
            Counters::Withheld => zero(&mut self.withheld, "WITHHELD", row),
            Counters::Limiter => zero(&mut self.limiter_counts, "LIMITER_COUNTS", row),
        }
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
        let rows = row(&self.forwarded, "FORWARDED", index)?.into_iter();
        Ok(rows.fold(Forwarded::default(), |sum, Row(row)| together(sum, row)))
    }

    fn forwarded_in(&self, rows: Range<u32>) -> Result<Vec<Forwarded>, TableError> {
        rows_in(&self.forwarded_map, "FORWARDED", self.cpus, rows, together)
    }

    fn withheld(&self, index: u32) -> Result<Withheld, TableError> {
        let rows = row(&self.withheld, "WITHHELD", index)?.into_iter();
        Ok(rows.fold(Withheld::default(), |sum, Row(row)| withheld_together(sum, row)))
    }

    fn withheld_in(&self, rows: Range<u32>) -> Result<Vec<Withheld>, TableError> {
        rows_in(&self.withheld_map, "WITHHELD", self.cpus, rows, withheld_together)
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
