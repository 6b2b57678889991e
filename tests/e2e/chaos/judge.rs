//! What the kernel's tables and counters say, read past the daemon, and whether it is what it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytemuck::{AnyBitPattern, pod_read_unaligned};
use lb_common::layout::{
    BackendEntry, NAT, REPLIES, SLOTS_PER_LINE, ServiceEntry, ServiceKey, SlotLine, USABLE,
};
use lb_common::slot::{BackendId, Slot};
use lb_tests::net::{BACKENDS, Node, XdpCounts};
use lb_tests::site::Site;
use lb_tests::wait;
use lb_userspace::model::{ForwardMode, Protocol};
use lb_userspace::view::{BpfEntry, InterfaceView, ReasonCount, Status};

use super::wanted::{Kept, Wanted};
use crate::api::Connection;

/// Maglev's shares are not exact, see lb-common/src/maglev.rs.
const SHARE_TOLERANCE: f64 = 0.01;
/// Between two looks at counters nothing may happen for once.
const STILL: Duration = Duration::from_secs(5);
/// Between an end and the kernel's last work on it (RCU).
const FREED: Duration = Duration::from_secs(5);
/// A daemon may have so many files open more than at first: a connection to its API that is about to end.
const MORE_FILES: usize = 4;
/// And so much more memory.
const MORE_MEMORY: u64 = 48 << 20;

/// How a backend is, whatever the daemon believes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Truth {
    pub(super) node: Node,
    pub(super) serves: bool,
    pub(super) linked: bool,
    pub(super) mtu: u32,
}

/// The entries of a map that are not zero, by their index.
fn entries<T: AnyBitPattern>(site: &Site, pins: &Path, map: &str) -> Result<BTreeMap<u32, T>> {
    let pins = pins.to_string_lossy();
    let dumped: Vec<BpfEntry> =
        site.free_cli().ask(&["bpf", "dump", map, "--pins", &pins, "--count", "1000000"])?;
    let read = |entry: BpfEntry| {
        let words = entry.words.iter().map(|word| u64::from_str_radix(word, 16));
        let words: Vec<u64> = words.collect::<Result<_, _>>()?;
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        let bytes = bytes.get(..size_of::<T>()).with_context(|| format!("{map} has short entries"))?;
        Ok((entry.index, pod_read_unaligned(bytes)))
    };
    dumped.into_iter().map(read).collect()
}

/// What packets meet.
struct Tables {
    services: BTreeMap<u32, ServiceEntry>,
    backends: BTreeMap<u32, BackendEntry>,
    slots: BTreeMap<u32, SlotLine>,
    /// The MAC address of each backend and of the balancer's device towards it, and that device's index.
    ways: BTreeMap<Node, ([u8; 12], u32)>,
}

/// The tables are what was asked for, as the backends are.
pub(super) fn ensure_tables(site: &Site, pins: &Path, wanted: &Wanted, truths: &[Truth]) -> Result<()> {
    let tables = Tables {
        services: entries(site, pins, "SERVICES")?,
        backends: entries(site, pins, "BACKENDS")?,
        slots: entries(site, pins, "SLOTS")?,
        ways: BACKENDS.into_iter().map(|node| Ok((node, way(site, node)?))).collect::<Result<_>>()?,
    };
    let there = tables.services.values().filter(|entry| entry.flags & REPLIES == 0).count();
    ensure!(
        there == wanted.services.len(),
        "there are {there} services instead of {}",
        wanted.services.len()
    );
    for kept in &wanted.services {
        tables.check(kept, truths).with_context(|| format!("the tables of {}", kept.name()))?;
    }
    Ok(())
}

fn way(site: &Site, node: Node) -> Result<([u8; 12], u32)> {
    let (lab, device) = (&site.lab, node.to_string());
    let macs = [lab.mac(node, "eth0")?, lab.mac(Node::Balancer, &device)?];
    Ok((bytemuck::cast(macs), lab.ifindex(Node::Balancer, &device)?))
}

impl Tables {
    fn check(&self, kept: &Kept, truths: &[Truth]) -> Result<()> {
        let protocol = if kept.service.protocol == Protocol::Tcp { 6 } else { 17 };
        let key = ServiceKey::new(protocol, kept.service.vip.port());
        let takes = |entry: &&ServiceEntry| entry.key == key && entry.flags & REPLIES == 0;
        let entry = self.services.values().find(takes).context("there is no such service")?;
        let lives = |node: Node| {
            let truth = truths.iter().find(|truth| truth.node == node);
            truth.is_none_or(|truth| truth.linked && (truth.serves || !kept.is_checked()))
        };
        let mut slots: BTreeMap<Node, u32> = BTreeMap::new();
        for number in entry.slot_base..entry.slot_base + entry.slot_count {
            // Lines of zeros are not told: all of them belong to backend 0.
            let line = self.slots.get(&(number / SLOTS_PER_LINE));
            let slot = line.map_or(Slot::from_word(0), |line| line[(number % SLOTS_PER_LINE) as usize]);
            let row = |id: BackendId| entry.backend_base + u32::from(id.number());
            let owner = self.backend(row(slot.current()), kept, truths)?;
            ensure!(lives(owner), "slot {number} belongs to {owner}, which is not there");
            *slots.entry(owner).or_default() += 1;
            if slot.is_moving() {
                let before = self.backend(row(slot.fallback()), kept, truths)?;
                ensure!(lives(before), "slot {number} falls back on {before}, which is not there");
            }
        }
        let shares = kept.shares(lives);
        let told: BTreeMap<Node, f64> = slots
            .into_iter()
            .map(|(node, count)| (node, f64::from(count) / f64::from(entry.slot_count)))
            .collect();
        let alike = shares.len() == told.len()
            && shares.iter().all(|(node, share)| {
                told.get(node).is_some_and(|told| (told - share).abs() < SHARE_TOLERANCE)
            });
        ensure!(alike, "the shares are {told:?} instead of {shares:?}");
        Ok(())
    }

    /// Which backend a row leads to, if it leads there as it should.
    fn backend(&self, row: u32, kept: &Kept, truths: &[Truth]) -> Result<Node> {
        let entry = self.backends.get(&row).with_context(|| format!("backend row {row} is empty"))?;
        let macs = bytemuck::bytes_of(&entry.macs);
        let found = self.ways.iter().find(|(_, (known, _))| known[..] == *macs);
        let (node, (_, ifindex)) =
            found.with_context(|| format!("nobody has the MAC addresses {macs:x?}"))?;
        ensure!(entry.ifindex == *ifindex, "{node} is behind another interface: {entry:?}");
        ensure!(entry.flags & USABLE != 0, "{node} has slots and cannot be used: {entry:?}");
        let translates = kept.service.mode == ForwardMode::Nat;
        ensure!((entry.flags & NAT != 0) == translates, "{node} is of another mode: {entry:?}");
        let mtu = truths.iter().find(|truth| truth.node == *node).map(|truth| truth.mtu);
        if let Some(mtu) = mtu.filter(|mtu| *mtu != u32::from(entry.mtu)) {
            bail!("the way to {node} carries {} bytes instead of {mtu}", entry.mtu);
        }
        Ok(*node)
    }
}

/// Counters at one moment, those of the kernel and ours.
pub(super) struct Account {
    kernel: Vec<(Node, XdpCounts)>,
    ours: Status,
}

fn packets(counts: &[ReasonCount]) -> u64 {
    counts.iter().map(|count| count.packets).sum()
}

/// What became of packets in a stretch of time, all interfaces together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) received: u64,
    pub(super) forwarded: u64,
    pub(super) passed: u64,
    pub(super) dropped: u64,
    pub(super) answered: u64,
    /// Forwarded, and lost by a link that is down.
    pub(super) lost: u64,
}

impl Fate {
    pub(super) fn add(&mut self, other: Self) {
        self.received += other.received;
        self.forwarded += other.forwarded;
        self.passed += other.passed;
        self.dropped += other.dropped;
        self.answered += other.answered;
        self.lost += other.lost;
    }
}

impl Account {
    /// Of a moment in which no packet comes, since there is nothing that stops health checks.
    pub(super) fn take(site: &Site) -> Result<Self> {
        let mut api = Connection::open(&site.files("lb").socket)?;
        wait::until(STILL, "no packet comes while counters are read", || {
            let before = site.lab.xdp_counts()?;
            let answer = api.ask("GET", "/v1/status", "", "")?;
            let kernel = site.lab.xdp_counts()?;
            ensure!(before == kernel, "packets came");
            Ok(Self { kernel, ours: serde_json::from_slice(&answer.body)? })
        })
    }

    fn interface(&self, node: Node) -> Result<&InterfaceView> {
        let name = node.to_string();
        let found = self.ours.interfaces.iter().find(|interface| interface.name == name);
        found.with_context(|| format!("the program is not on {name}"))
    }

    /// Packets that services sent on.
    fn forwarded(&self) -> u64 {
        self.ours.services.iter().map(|service| service.packets - service.limited).sum()
    }

    /// Of each interface, what the kernel saw is what we say: each packet was forwarded, passed, answered or dropped. Where a
    /// link is broken, the kernel cannot do what we say.
    pub(super) fn ensure_conserved(&self, earlier: &Self, broken: bool) -> Result<Fate> {
        let mut fate = Fate::default();
        for ((node, now), (_, before)) in self.kernel.iter().zip(&earlier.kernel) {
            let kernel = now.since(before);
            let [ours, since] = [self.interface(*node)?, earlier.interface(*node)?];
            let passed = packets(&ours.passes) - packets(&since.passes);
            let dropped = packets(&ours.drops) - packets(&since.drops);
            let answered = packets(&ours.answers) - packets(&since.answers);
            let told =
                format!("{node}: we passed {passed}, dropped {dropped}, answered {answered}: {kernel:?}");
            ensure!(broken || kernel.failures == 0, "the kernel lost packets on {told}");
            ensure!(passed == kernel.passed() && dropped == kernel.drops, "{told}");
            let sent = kernel.redirects + kernel.returns + kernel.failures;
            let forwarded = sent.checked_sub(answered).with_context(|| told.clone())?;
            let (received, lost) = (kernel.packets, kernel.failures);
            fate.add(Fate { received, forwarded, passed, dropped, answered, lost });
        }
        let told = self.forwarded() - earlier.forwarded();
        ensure!(fate.forwarded == told, "services say {told} packets, interfaces {}", fate.forwarded);
        Ok(fate)
    }
}

/// What a daemon holds, and what is kept for the next.
#[derive(Clone, Debug)]
pub(super) struct Holdings {
    files: usize,
    memory: u64,
    pins: usize,
    /// Numbers of maps and of programs.
    objects: BTreeSet<(Kind, u32)>,
}

/// A kind of object of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Map,
    Program,
}

/// The kernel's names of these in fdinfo (`bpf_map_show_fdinfo`, `bpf_prog_show_fdinfo` of kernel/bpf/syscall.c).
const KINDS: [(Kind, &str); 2] = [(Kind::Map, "map_id:"), (Kind::Program, "prog_id:")];

impl Holdings {
    pub(super) fn of(site: &mut Site, pins: &Path) -> Result<Self> {
        let id = site.daemon()?.process.id();
        let mut objects = BTreeSet::new();
        let mut files = 0;
        for file in fs::read_dir(format!("/proc/{id}/fdinfo"))? {
            files += 1;
            // A file may be closed since.
            let Ok(facts) = fs::read_to_string(file?.path()) else { continue };
            for line in facts.lines() {
                let number =
                    |(kind, name): (Kind, &str)| Some((kind, line.strip_prefix(name)?.trim().parse().ok()?));
                objects.extend(KINDS.into_iter().find_map(number));
            }
        }
        Ok(Self { files, memory: crate::api::memory(id)?, pins: count_files(pins)?, objects })
    }

    /// It is no more than at first, as far as it should not be.
    pub(super) fn ensure_no_more_than(&self, first: &Self) -> Result<()> {
        let Self { files, memory, pins, .. } = self;
        ensure!(*files <= first.files + MORE_FILES, "{files} files are open, {} at first", first.files);
        ensure!(*memory <= first.memory + MORE_MEMORY, "{memory} bytes of memory, {} at first", first.memory);
        ensure!(*pins == first.pins, "{pins} pins, {} at first", first.pins);
        Ok(())
    }
}

fn count_files(directory: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

/// Every object that any daemon has held.
#[derive(Default)]
pub(super) struct Seen(BTreeSet<(Kind, u32)>);

impl Seen {
    /// Nothing is left of what others held before, but what this one holds.
    pub(super) fn ensure_freed_but(&mut self, now: &Holdings) -> Result<()> {
        self.ensure_left(&now.objects)?;
        self.0.clone_from(&now.objects);
        Ok(())
    }

    pub(super) fn ensure_all_freed(&self) -> Result<()> {
        self.ensure_left(&BTreeSet::new())
    }

    fn ensure_left(&self, held: &BTreeSet<(Kind, u32)>) -> Result<()> {
        wait::until(FREED, "the kernel has freed what nobody holds", || {
            let maps = aya::maps::loaded_maps().map(|map| Ok((Kind::Map, map?.id())));
            let programs = aya::programs::loaded_programs().map(|program| Ok((Kind::Program, program?.id())));
            let loaded: BTreeSet<(Kind, u32)> = maps.chain(programs).collect::<Result<_>>()?;
            let left: Vec<_> = self.0.difference(held).filter(|object| loaded.contains(object)).collect();
            ensure!(left.is_empty(), "{left:?} are left");
            Ok(())
        })
    }
}

/// The daemon has a row for each service and backend that was asked for, and for no other.
pub(super) fn ensure_rows(site: &Site, pins: &Path, wanted: &Wanted) -> Result<()> {
    for (map, most) in [("SERVICE_OWNERS", wanted.services.len()), ("BACKEND_OWNERS", wanted.members())] {
        let rows = entries::<[u64; 5]>(site, pins, map)?.len();
        ensure!(rows == most, "{map} has {rows} rows for {most} of them");
    }
    Ok(())
}
