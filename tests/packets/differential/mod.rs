//! Differential fuzzing: the same packets, tables, clocks and memories for the pipeline on the host and for the program in the
//! kernel, which have to do the same: verdict, every byte, every counter, and every word that packets leave behind.
//!
//! The program is the balancer's with clocks that stand until they are set. `LB_FUZZ_PACKETS` and `LB_FUZZ_SEED` make a run
//! longer or another one; the same seed makes the same run.

mod grammar;

use std::cell::Cell;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::Xdp;
use fastrand::Rng;
use lb_common::frame::Frame;
use lb_common::layout::FlowCounts;
use lb_common::pipeline;
use lb_common::verdict::{AnswerReason, DropReason, PassReason, REASON_COUNTERS, Verdict};
use lb_userspace::datapath::{Datapath, KernelDatapath, Mapping, MemoryDatapath, Store, Table, apply};
use lb_userspace::model::{AdminState, Weight};
use lb_userspace::placement::Services;
use libtest_mimic::Trial;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::fixtures::counts::ROW;
use crate::fixtures::hex;
use crate::fixtures::routes;
use crate::fixtures::sides::{Action, HEADROOM, run_in_kernel};
use crate::fixtures::world::{CAPACITY, INGRESS, World, key};
use crate::root_trial;
use grammar::Grammar;

/// Tables whose words packets change.
pub(crate) const LEFT_BEHIND: [&str; 4] = ["BUCKETS", "METERS", "FLOWS", "FRAGMENTS"];
/// Packets after which counters and words are compared.
const BATCH: u64 = 4096;
/// Batches with the same tables.
const BATCHES_IN_A_WORLD: u64 = 4;

pub(crate) fn trial() -> Trial {
    root_trial("differential: host and kernel do the same", || {
        let number = |name: &str, usual: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number")),
            Err(_) => Ok(usual),
        };
        let (seed, packets) = (number("LB_FUZZ_SEED", 1)?, number("LB_FUZZ_PACKETS", 300_000)?);
        // The counters of each CPU and what it samples are its own.
        let all = sched_getaffinity(None)?;
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).context("there is no CPU")?);
        sched_setaffinity(None, &one)?;
        let ran = Duel::new(seed).and_then(|mut duel| duel.run(packets));
        sched_setaffinity(None, &all)?;
        ran.with_context(|| {
            format!("to see it again: cargo xtask fuzz differential --seed {seed} --packets {packets}")
        })
    })
}

/// Both sides, and what chooses what they are shown.
struct Duel {
    rng: Rng,
    services: Services,
    world: World,
    /// What stood in the tables before it was damaged, in the order in which it was.
    undamaged: Vec<Store>,
    grammar: Grammar,
    host: MemoryDatapath,
    kernel: KernelDatapath,
    clocks: Mapping,
    left_behind: Vec<(&'static str, Mapping)>,
    /// The exact clock, in nanoseconds.
    now: u64,
    /// The last packet, and how often it still comes again.
    frame: Vec<u8>,
    again: u32,
    seen: [u64; 5],
}

impl Duel {
    fn new(seed: u64) -> Result<Self> {
        let services = World::services()?;
        let world = World::of(&services)?;
        let mut host = MemoryDatapath::new(key(), CAPACITY, &[INGRESS]);
        let mut kernel = KernelDatapath::load_stopped(key(), CAPACITY, &[INGRESS])?;
        world.fill(&mut host)?;
        world.fill(&mut kernel)?;
        let mut rng = Rng::with_seed(seed);
        Ok(Self {
            now: rng.u64(1 << 30..1 << 52),
            rng,
            grammar: Grammar::new(&services),
            services,
            world,
            undamaged: Vec::new(),
            clocks: kernel.mapping("CLOCKS")?,
            left_behind: LEFT_BEHIND
                .into_iter()
                .map(|name| Ok((name, kernel.mapping(name)?)))
                .collect::<Result<_>>()?,
            host,
            kernel,
            frame: Vec::new(),
            again: 0,
            seen: [0; 5],
        })
    }

    fn run(&mut self, packets: u64) -> Result<()> {
        let start = Instant::now();
        for batch in 0..packets.div_ceil(BATCH) {
            if batch % BATCHES_IN_A_WORLD == 0 && batch > 0 {
                self.next_world()?;
            }
            self.implant()?;
            let (rng, host, now) = (self.rng.clone(), self.host.clone(), self.now);
            let agreed = self.batch().and_then(|()| self.compare());
            if let Err(error) = agreed {
                // Once more from the same beginning, with a look at everything after each packet.
                (self.rng, self.host, self.now) = (rng, host, now);
                self.lend_memory()?;
                let first = batch * BATCH;
                self.closely(first)?;
                bail!("packets from {first} on differ, but not one by one: {error:#}");
            }
        }
        let took = start.elapsed();
        // Batches are whole: it may be more than was asked for.
        let packets: u64 = self.seen.iter().sum();
        let [aborted, drops, passes, transmits, redirects] = self.seen;
        ensure!(aborted == 0, "the program aborted");
        println!(
            "{packets} packets in {took:.1?}, {} a second: {drops} dropped, {passes} passed, {transmits} sent back, {redirects} redirected; no difference",
            u128::from(packets) * 1000 / took.as_millis().max(1)
        );
        // What never happens is not compared.
        let missed = self.reasons_missed()?;
        println!("never met: {}", missed.join(", "));
        Ok(())
    }

    fn batch(&mut self) -> Result<()> {
        self.again = 0;
        (0..BATCH).try_for_each(|_| self.packet())
    }

    fn closely(&mut self, first: u64) -> Result<()> {
        self.again = 0;
        for number in first..first + BATCH {
            let before = (counters(&self.host)?, counters(&self.kernel)?);
            let step = self.packet().and_then(|()| {
                let after = (counters(&self.host)?, counters(&self.kernel)?);
                let moved = |before: &[u64], after: &[u64]| -> Vec<(usize, u64)> {
                    let moved = before.iter().zip(after).map(|(before, after)| after.wrapping_sub(*before));
                    moved.enumerate().filter(|(_, count)| *count > 0).collect()
                };
                let (host, kernel) = (moved(&before.0, &after.0), moved(&before.1, &after.1));
                ensure!(host == kernel, "counters moved: {host:?} on the host, {kernel:?} in the kernel");
                self.compare_memory()
            });
            step.with_context(|| format!("packet {number}, at {} ns: {}", self.now, hex(&self.frame)))?;
        }
        Ok(())
    }

    /// One packet on both sides.
    fn packet(&mut self) -> Result<()> {
        if self.again > 0 {
            self.again -= 1;
        } else {
            self.frame = self.grammar.frame(&mut self.rng);
            // More than anybody is answered at once, and more than limits admit.
            self.again = if self.rng.u16(..) < 20 { 200 } else { 0 };
            self.pass_time();
        }
        let frame = &self.frame;
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(frame);
        let mut on_host = Frame::new(&mut buffer, HEADROOM, INGRESS).with_routes(routes::way);
        let verdict = pipeline::balance(&mut on_host, &self.host);
        let program: &mut Xdp = self.kernel.program()?;
        let (action, output) = run_in_kernel(program, frame)?;
        self.seen[action as usize] += 1;
        let expected = Action::from(verdict);
        ensure!(
            action == expected && output == on_host.bytes(),
            "they differ: {}\nhost   {verdict:?} {}\nkernel {action:?} {}",
            hex(frame),
            hex(on_host.bytes()),
            hex(&output)
        );
        ensure!(
            !matches!(verdict, Verdict::Drop(_)) || output == *frame,
            "a packet that is dropped was changed: {}",
            hex(frame)
        );
        Ok(())
    }

    /// Mostly none, sometimes much.
    fn pass_time(&mut self) {
        const MS: u64 = 1_000_000;
        self.now += match self.rng.u16(..1000) {
            0 => self.rng.u64(..36_000_000 * MS),
            1..=9 => self.rng.u64(..3_600_000 * MS),
            10..=39 => self.rng.u64(..60_000 * MS),
            40..=99 => self.rng.u64(..1000 * MS),
            100..=299 => self.rng.u64(..4 * MS),
            _ => self.rng.u64(..2000),
        };
        let tick = 4 * MS;
        let clocks = [(self.now + 17 * MS) / tick * tick, self.now / tick * tick, self.now];
        self.host.set_clocks(clocks);
        for (word, clock) in clocks.into_iter().enumerate() {
            // There are three.
            _ = self.clocks.store(word, clock);
        }
    }

    /// Words that no packet would leave behind, or that one left elsewhere or at another time.
    fn implant(&mut self) -> Result<()> {
        for _ in 0..64 {
            let (name, mapping) = &self.left_behind[self.rng.usize(..self.left_behind.len())];
            let host = self.host.left_behind(name);
            let (at, other) = (self.rng.usize(..host.len()), self.rng.usize(..host.len()));
            let value = match self.rng.u8(..4) {
                0 => self.rng.u64(..),
                1 => host[other].get(),
                2 => host[at].get() ^ 1 << self.rng.u8(..64),
                _ => 0,
            };
            host[at].set(value);
            mapping.store(at, value).with_context(|| format!("{name} has no word {at}"))?;
        }
        Ok(())
    }

    /// Other services: backends come, go and drain, so that slots move; now and then words of tables are damaged.
    fn next_world(&mut self) -> Result<()> {
        while let Some(restored) = self.undamaged.pop() {
            self.store(restored)?;
        }
        let rng = &mut self.rng;
        let home = World::services()?;
        for service in self.services.values_mut() {
            if rng.u8(..3) > 0 {
                continue;
            }
            // As they were, but for some.
            let home = home.get(&service.name).context("services come from home")?;
            service.backends.clone_from(&home.backends);
            let count = service.backends.len();
            for backend in &mut service.backends {
                backend.admin = match rng.u8(..8) {
                    0 => AdminState::Drain { timeout: None },
                    1 => AdminState::Maintenance,
                    _ => backend.admin,
                };
                backend.weight = if rng.bool() { Weight::default() } else { Weight(rng.u16(..300)) };
            }
            if count > 1 && rng.bool() {
                service.backends.swap_remove(rng.usize(..count));
            }
        }
        let next = self.world.followed_by(&self.services)?;
        apply(&mut self.host, &self.world.image, &next.image)?;
        apply(&mut self.kernel, &self.world.image, &next.image)?;
        self.world = next;
        if self.rng.u8(..4) == 0 {
            self.damage_tables()?;
        }
        Ok(())
    }

    fn damage_tables(&mut self) -> Result<()> {
        const TABLES: [Table; 6] =
            [Table::Vips, Table::Services, Table::Slots, Table::Backends, Table::Limiters, Table::Features];
        for _ in 0..16 {
            let table = TABLES[self.rng.usize(..TABLES.len())];
            let words = self.host.contents(table)?;
            let used: Vec<usize> = (0..words.len()).filter(|word| words[*word] != 0).collect();
            if used.is_empty() {
                continue;
            }
            let word = used[self.rng.usize(..used.len())];
            let value = if self.rng.bool() { self.rng.u64(..) } else { words[word] ^ 1 << self.rng.u8(..64) };
            self.undamaged.push(Store { table, word, value: words[word] });
            self.store(Store { table, word, value })?;
        }
        Ok(())
    }

    fn store(&mut self, store: Store) -> Result<()> {
        self.host.store(store)?;
        self.kernel.store(store)?;
        Ok(())
    }

    /// What packets left behind on the host, for the kernel's side.
    fn lend_memory(&mut self) -> Result<()> {
        for (name, mapping) in &self.left_behind {
            for (word, value) in self.host.left_behind(name).iter().map(Cell::get).enumerate() {
                mapping.store(word, value).with_context(|| format!("{name} has no word {word}"))?;
            }
        }
        Ok(())
    }

    fn compare(&mut self) -> Result<()> {
        let (host, kernel) = (counters(&self.host)?, counters(&self.kernel)?);
        let differs = host.iter().zip(&kernel).position(|(host, kernel)| host != kernel);
        ensure!(host == kernel, "counter {differs:?} differs");
        let (host, kernel) = (self.host.take_over_samples(), self.kernel.take_over_samples());
        ensure!(host == kernel, "{} samples on the host, {} in the kernel", host.len(), kernel.len());
        self.kernel.take_log();
        self.compare_memory()
    }

    fn compare_memory(&self) -> Result<()> {
        for (name, mapping) in &self.left_behind {
            for (word, (host, kernel)) in
                self.host.left_behind(name).iter().map(Cell::get).zip(mapping.load_all()).enumerate()
            {
                ensure!(
                    host == kernel,
                    "word {word} of {name}: {host:#018x} on the host, {kernel:#018x} in the kernel"
                );
            }
        }
        Ok(())
    }

    /// Reasons for which nothing happened to any packet.
    fn reasons_missed(&self) -> Result<Vec<&'static str>> {
        let passes = PassReason::ALL.iter().map(|reason| (reason.counter(), reason.label()));
        let drops = DropReason::ALL.iter().map(|reason| (reason.counter(), reason.label()));
        let answers = AnswerReason::ALL.iter().map(|reason| (reason.counter(), reason.label()));
        let mut missed = Vec::new();
        for (counter, label) in passes.chain(drops).chain(answers) {
            if self.host.reason(ROW, counter)? == 0 {
                missed.push(label);
            }
        }
        Ok(missed)
    }
}

/// Every counter.
fn counters(datapath: &impl Datapath) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for row in 0..=ROW {
        for counter in 0..REASON_COUNTERS {
            all.push(datapath.reason(row, counter)?);
        }
    }
    for row in datapath.forwarded_in(0..CAPACITY.backends)? {
        all.extend([row.packets, row.bytes, row.new_flows]);
    }
    for row in datapath.withheld_in(0..CAPACITY.services)? {
        all.extend([row.limited, row.dropped]);
    }
    for row in 0..CAPACITY.limiter_counters() {
        let counts = datapath.limiter_counts(row)?;
        all.extend([counts.admitted, counts.over, counts.unmarked, counts.contended]);
    }
    let FlowCounts { known, added, evicted, contended, .. } = datapath.flow_counts()?;
    all.extend([known, added, evicted, contended]);
    Ok(all)
}
