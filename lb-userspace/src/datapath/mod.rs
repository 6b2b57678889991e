//! The tables and the program in the kernel, behind one trait with two implementations: the kernel's and one in memory.
//!
//! What the tables should hold is an [`Image`]. [`Image::changes`] says which words have to be stored, in which order, and
//! [`apply`] stores them. Nothing else writes.

pub(crate) mod attach;
mod batch;
#[cfg(test)]
pub(crate) mod double;
pub(crate) mod dump;
#[cfg(test)]
pub(crate) mod faulty;
mod image;
mod kernel;
mod lists;
mod mapping;
mod maps;
mod memory;
pub(crate) mod object;
pub(crate) mod pinned;
pub(crate) mod pins;
mod program_log;
mod runs;
mod smoke;
mod sys;
mod window;

pub use attach::{AttachError, AttachMode, Attachment};
pub use image::{Changes, Image, Store};
pub use kernel::{KernelDatapath, LoadError, MINIMUM_KERNEL, check_host};
pub(crate) use kernel::{check_capabilities, check_kernel};
pub use mapping::Mapping;
pub use memory::MemoryDatapath;
pub use pins::{DEFAULT_PINS, Pins, PinsError};
pub use runs::Runs;
pub use smoke::SmokeError;

use std::ops::Range;

use lb_common::flow::{Detail, Entry, WAYS};
use lb_common::hash::HashKey;
use lb_common::layout::{
    BackendEntry, Features, FlowCounts, Forwarded, InterfaceEntry, LimiterCounts, LimiterEntry,
    MAX_INTERFACES, SLOTS_PER_LINE, ServiceEntry, Settings, SlotLine, VIP_SETS, VipSet, Withheld,
};
use lb_common::limiter::meter::{METERS, REGISTERS};
use lb_common::limiter::sample::{OverSample, Sampler};
use lb_common::lists::{ListKey, Listed, Side};
use lb_common::owner::{BackendOwner, LimiterOwner, ServiceOwner};
use rustix::time::{ClockId, clock_getres};

/// The compiled balancer program.
pub static BALANCER_OBJECT: &[u8] = include_bytes_aligned!("balancer.o");
/// The same with clocks that stand until they are set: what it does can be held against the pipeline on the host at any moment.
pub static STOPPED_OBJECT: &[u8] = include_bytes_aligned!("stopped.o");
/// The compiled decapsulator program, `decap`.
pub static DECAP_OBJECT: &[u8] = include_bytes_aligned!("decap.o");
/// The compiled programs of the measuring harness: `wrapper` and the floors.
pub static BENCH_OBJECT: &[u8] = include_bytes_aligned!("bench.o");

/// An object of the build script, aligned as the ELF parser wants it.
macro_rules! include_bytes_aligned {
    ($name:literal) => {
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/", $name))
    };
}
use include_bytes_aligned;

/// The index of no interface: stands where a row of interfaces is vacant before one that is not.
pub const NO_INTERFACE: u32 = u32::MAX;

/// Prefixes that a daemon's deny and allow list together have room for.
pub const MAX_PREFIXES: u32 = 250_000;

/// A table that the daemon fills: an array of entries made of 64-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Backends: [`BackendEntry`].
    Backends,
    /// Slots: [`SlotLine`].
    Slots,
    /// Limiters: [`LimiterEntry`].
    Limiters,
    /// Services: [`ServiceEntry`].
    Services,
    /// The VIP directory: [`VipSet`].
    Vips,
    /// One word: [`Features`].
    Features,
    /// Attached interfaces: [`InterfaceEntry`].
    Interfaces,
    /// Whose rows of backends they are: [`BackendOwner`].
    BackendOwners,
    /// Whose rows of services' counters they are: [`ServiceOwner`].
    ServiceOwners,
    /// Whose rows of limiters' counters they are: [`LimiterOwner`].
    LimiterOwners,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 10] = [
        Self::Backends,
        Self::Slots,
        Self::Limiters,
        Self::Services,
        Self::Vips,
        Self::Features,
        Self::Interfaces,
        Self::BackendOwners,
        Self::ServiceOwners,
        Self::LimiterOwners,
    ];

    /// Its map's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backends => "BACKENDS",
            Self::Slots => "SLOTS",
            Self::Limiters => "LIMITERS",
            Self::Services => "SERVICES",
            Self::Vips => "VIPS",
            Self::Features => "FEATURES",
            Self::Interfaces => "INTERFACES",
            Self::BackendOwners => "BACKEND_OWNERS",
            Self::ServiceOwners => "SERVICE_OWNERS",
            Self::LimiterOwners => "LIMITER_OWNERS",
        }
    }

    /// 64-bit words of one entry.
    pub const fn entry_words(self) -> usize {
        let bytes = match self {
            Self::Backends => size_of::<BackendEntry>(),
            Self::Slots => size_of::<SlotLine>(),
            Self::Limiters => size_of::<LimiterEntry>(),
            Self::Services => size_of::<ServiceEntry>(),
            Self::Vips => size_of::<VipSet>(),
            Self::Features => size_of::<Features>(),
            Self::Interfaces => size_of::<InterfaceEntry>(),
            Self::BackendOwners => size_of::<BackendOwner>(),
            Self::ServiceOwners => size_of::<ServiceOwner>(),
            Self::LimiterOwners => size_of::<LimiterOwner>(),
        };
        bytes / size_of::<u64>()
    }
}

/// How much the tables hold; fixed when the program is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Rows of counters of services: services at one time.
    pub services: u32,
    /// Entries of the service table: each VIP takes its ports rounded up for hashing, and two.
    pub service_entries: u32,
    /// Slots of all services.
    pub slots: u32,
    /// Backends of all services, each service's number rounded up.
    pub backends: u32,
    /// Rows of limiters, of which a service has one for each limiter that its packets meet; and rows of their counters.
    pub limiters: u32,
    /// Sets of four buckets, see [`lb_common::limiter::Sets`].
    pub bucket_sets: u32,
    /// Entries of each of the two tables of deny and allow lists, which take memory only while they are used.
    pub lists: u32,
    /// Sets of eight remembered flows.
    pub flow_sets: u32,
    /// Sets of eight remembered fragmented datagrams.
    pub fragment_sets: u32,
}

impl Default for Capacity {
    /// Room for a few dozen services of the default table size, in 50 MB and 100 kB for each CPU.
    fn default() -> Self {
        Self {
            services: 1024,
            service_entries: 1 << 16,
            slots: 1 << 22,
            backends: 1 << 12,
            limiters: 1 << 12,
            bucket_sets: 1 << 18,
            lists: MAX_PREFIXES + 1,
            flow_sets: 1 << 17,
            fragment_sets: 1 << 10,
        }
    }
}

/// How much new tables should hold, and how much those that are there must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What new tables hold.
    pub wanted: Capacity,
    /// What is needed.
    pub least: Capacity,
}

impl From<Capacity> for Room {
    fn from(capacity: Capacity) -> Self {
        Self { wanted: capacity, least: capacity }
    }
}

impl Capacity {
    /// Entries of a table.
    pub const fn entries(&self, table: Table) -> u32 {
        match table {
            Table::Backends | Table::BackendOwners => self.backends,
            Table::Slots => self.slots.div_ceil(SLOTS_PER_LINE),
            Table::Limiters | Table::LimiterOwners => self.limiters,
            Table::ServiceOwners => self.services,
            Table::Services => self.service_entries,
            Table::Vips => VIP_SETS,
            Table::Features => 1,
            Table::Interfaces => MAX_INTERFACES as u32,
        }
    }

    /// Prefixes that both lists together have room for: one entry may say that those of IPv6 say nothing about IPv4.
    pub const fn prefixes(&self) -> u32 {
        self.lists.saturating_sub(1)
    }

    /// Whether tables of this capacity do where another one is wanted: only of flows more is not as good.
    pub fn covers(&self, wanted: &Self) -> bool {
        self.services >= wanted.services
            && self.service_entries >= wanted.service_entries
            && self.slots >= wanted.slots
            && self.backends >= wanted.backends
            && self.limiters >= wanted.limiters
            && self.lists >= wanted.lists
            && self.bucket_sets == wanted.bucket_sets
            && self.flow_sets == wanted.flow_sets
            && self.fragment_sets == wanted.fragment_sets
    }

    /// Rows of limiters' counters: those of the meters, then one for each limiter.
    pub const fn limiter_counters(&self) -> u32 {
        METERS + self.limiters
    }

    /// Flows that can be remembered.
    pub const fn flows(&self) -> usize {
        self.flow_sets as usize * WAYS
    }
}

/// One entry of a table of deny and allow lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListEntry {
    /// Which sources.
    pub key: ListKey,
    /// What is said of them, unless a longer prefix says something else.
    pub listed: Listed,
}

/// Counters that come in rows, each of which has an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counters {
    /// [`Forwarded`], of a backend.
    Forwarded,
    /// [`Withheld`], of a service.
    Withheld,
    /// [`LimiterCounts`], of a limiter.
    Limiter,
}

/// What became of the samples of packets over limits, all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleCounts {
    /// Samples that were there to be fetched.
    pub told: u64,
    /// Samples for which there was no room, since nobody fetched those before.
    pub lost: u64,
}

impl SampleCounts {
    /// With those of one CPU and lane.
    #[must_use]
    fn and(self, Sampler { told, lost, .. }: Sampler) -> Self {
        Self { told: self.told + told, lost: self.lost + lost }
    }
}

/// What went wrong while reading or writing a table.
#[derive(Debug, thiserror::Error)]
#[error("table {table}, entry {entry}: {reason}")]
pub struct TableError {
    /// Name of the table.
    pub table: &'static str,
    /// Entry that was read or written.
    pub entry: usize,
    /// What happened.
    pub reason: String,
}

/// The tables of a loaded program.
pub trait Datapath: Send {
    /// How much the tables hold.
    fn capacity(&self) -> Capacity;

    /// The key that the program hashes flows with.
    fn hash_key(&self) -> &HashKey;

    /// Indices of the interfaces that have rows of their own, the first of which is row 1; [`NO_INTERFACE`] where a row is
    /// nobody's.
    fn interfaces(&self) -> &[u32] {
        &[]
    }

    /// Stores one word; packets see either the old one or the new one.
    fn store(&mut self, store: Store) -> Result<(), TableError>;

    /// Every word of a table, as it is now.
    fn contents(&self, table: Table) -> Result<Vec<u64>, TableError>;

    /// What a table of deny and allow lists holds, in any order.
    fn list_contents(&self, side: Side) -> Result<Vec<ListEntry>, TableError>;

    /// Sets a row of counters to zero, in which nobody counts.
    fn clear(&mut self, counters: Counters, row: u32) -> Result<(), TableError>;

    /// Waits until no packet is under way that may have seen a word replaced before this call.
    fn settle(&mut self);

    /// Makes a table of deny and allow lists, which no packet asks, hold `entries` and nothing else. After a failure it
    /// holds anything, and can be filled again.
    fn fill_list(&mut self, side: Side, entries: &[ListEntry]) -> Result<(), TableError>;

    /// Nanoseconds of the clock that flows are stamped by.
    fn clock(&self) -> u64;

    /// What is remembered at a place of the flow table, below [`Capacity::flows`], while packets change it; `None` if
    /// nothing is.
    fn flow(&self, place: usize) -> Option<(Entry, Detail)>;

    /// Forgets what is remembered at a place if it is still `entry`; says whether it was.
    fn forget(&mut self, place: usize, entry: Entry) -> bool;

    /// Writes into the daemon's log what the program has to say, which is nothing while all is well.
    fn relay_log(&mut self);

    /// What was forwarded to the backend in a row, all CPUs together.
    fn forwarded(&self, row: u32) -> Result<Forwarded, TableError>;

    /// [`Self::forwarded`] of many rows.
    fn forwarded_in(&self, rows: Range<u32>) -> Result<Vec<Forwarded>, TableError> {
        rows.map(|row| self.forwarded(row)).collect()
    }

    /// What the service in a row did not forward, all CPUs together.
    fn withheld(&self, row: u32) -> Result<Withheld, TableError>;

    /// [`Self::withheld`] of many rows.
    fn withheld_in(&self, rows: Range<u32>) -> Result<Vec<Withheld>, TableError> {
        rows.map(|row| self.withheld(row)).collect()
    }

    /// What a limiter said that counts in a row, all CPUs together.
    fn limiter_counts(&self, row: u32) -> Result<LimiterCounts, TableError>;

    /// The registers of a meter, eight in a word, while packets raise them.
    fn meter(&self, meter: u32) -> Result<Vec<u64>, TableError>;

    /// Lowers all registers of a meter, which no packet asks.
    fn clear_meter(&mut self, meter: u32) -> Result<(), TableError>;
    /// Fetches what the program has told of packets over limits since the last call.
    fn take_over_samples(&mut self) -> Vec<OverSample>;

    /// What became of all such samples so far.
    fn sample_counts(&self) -> Result<SampleCounts, TableError>;

    /// What the flow table had to say to packets, all CPUs together.
    fn flow_counts(&self) -> Result<FlowCounts, TableError>;

    /// Packets that came in by the interface in a row and met with the reason of a counter, all CPUs together.
    fn reason(&self, interface_row: u32, counter: u32) -> Result<u64, TableError>;
}

/// Words of one meter's registers.
const METER_WORDS: usize = REGISTERS as usize / size_of::<u64>();

/// Where a meter's registers are among those of all meters.
fn words_of_meter(meter: u32) -> Range<usize> {
    let first = meter as usize * METER_WORDS;
    first..first + METER_WORDS
}

fn no_meter(meter: u32) -> TableError {
    TableError { table: "METERS", entry: meter as usize, reason: format!("there are {METERS} meters") }
}

/// Brings the tables from `old` to `new`: whole, or, if a store fails, back to `old`.
pub fn apply<D: Datapath + ?Sized>(datapath: &mut D, old: &Image, new: &Image) -> Result<(), TableError> {
    let changes = old.changes(new);
    store_all(datapath, &changes).inspect_err(|error| take_back(datapath, error, old, new))
}

/// [`apply`] without its end: from here on packets see `new`. Returns the stores that remain: they clear what nothing leads to
/// any more, and have to wait until no packet is under way that has seen `old`.
pub fn publish<D: Datapath + ?Sized>(
    datapath: &mut D,
    old: &Image,
    new: &Image,
) -> Result<Vec<Store>, TableError> {
    let Changes { publish, retire } = old.changes(new);
    let stored = publish.iter().try_for_each(|store| datapath.store(*store));
    stored.inspect_err(|error| take_back(datapath, error, old, new))?;
    Ok(retire)
}

fn store_all<D: Datapath + ?Sized>(datapath: &mut D, changes: &Changes) -> Result<(), TableError> {
    changes.publish.iter().try_for_each(|store| datapath.store(*store))?;
    if !changes.retire.is_empty() {
        datapath.settle();
    }
    changes.retire.iter().try_for_each(|store| datapath.store(*store))
}

/// The way back stores words that stood there before. If even that fails, the next change repairs it, since it starts from
/// `old` and each store is complete in itself.
fn take_back<D: Datapath + ?Sized>(datapath: &mut D, error: &TableError, old: &Image, new: &Image) {
    tracing::error!("{error}; the change is taken back");
    if let Err(again) = store_all(datapath, &new.changes(old)) {
        tracing::error!("{again}; the tables may hold a part of a refused change until the next one");
    }
}

/// The program's read-only settings.
pub fn settings(hash_key: HashKey, capacity: &Capacity, interfaces: &[u32]) -> Settings {
    let Capacity { bucket_sets, flow_sets, fragment_sets, .. } = *capacity;
    // What the kernel says of its coarse clock is the length of its tick, and below a second.
    let tick_ns = clock_getres(ClockId::MonotonicCoarse).tv_nsec.unsigned_abs() as u32;
    let interfaces = rows(interfaces);
    Settings { hash_key, bucket_sets, flow_sets, fragment_sets, tick_ns, interfaces }
}

/// The rows of counters that a program has for its interfaces.
pub(crate) fn rows(interfaces: &[u32]) -> [u32; MAX_INTERFACES] {
    let mut rows = [0; MAX_INTERFACES];
    // Row 0 is for interfaces that are not listed, so that a count is never lost.
    for (row, interface) in rows.iter_mut().skip(1).zip(interfaces) {
        *row = *interface;
    }
    rows
}

#[cfg(test)]
mod tests {
    use lb_common::layout::MAX_ATTACHED;

    use super::*;

    #[test]
    fn as_many_interfaces_as_may_be_attached_have_rows() {
        let interfaces: Vec<u32> = (1..).take(MAX_ATTACHED).collect();
        assert!(interfaces.iter().all(|index| rows(&interfaces)[*index as usize] == *index));
    }
}
