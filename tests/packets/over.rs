//! Who is over a limit is told of in samples: few of them, whose weights add up, and none of packets within the limit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::bench::{HEAD_WORDS, LOOKS, Script};
use lb_common::layout::VipKey;
use lb_common::limiter::sample::{OverSample, PERIOD_BITS, most_told};
use lb_common::wire::Ipv4Address;
use lb_userspace::datapath::{BENCH_OBJECT, Datapath, KernelDatapath};
use lb_userspace::model::LimiterKey;
use libtest_mimic::Trial;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::fixtures::frames::tcp;
use crate::fixtures::sides::{Host, Kernel, Side};
use crate::fixtures::world::{World, limit, limited};
use crate::{host_trial, root_trial};

const VIP: &str = "203.0.113.99:80";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        host_trial("limits tell of every packet over them while these are few", |_| few_are_all_told()),
        root_trial("limits tell of a flood in few samples that add up", a_flood_is_told_in_few_samples),
        root_trial("limits tell of nothing that is within them", what_is_within_is_not_told),
        root_trial("limits tell of one heavy source among spoofed ones by its share", a_heavy_source_is_told),
    ]
}

fn world(keys: &str) -> Result<World> {
    World::of(&limited(VIP, vec![limit(&format!("name=each scope=source action=drop {keys}"))?])?)
}

fn key() -> LimiterKey {
    LimiterKey { service: Some("law".to_owned()), name: "each".to_owned() }
}

fn few_are_all_told() -> Result<()> {
    let world = world("packets=1/s burst=3")?;
    let mut host = Host::new(&world)?;
    let frame = tcp(VIP).from("198.51.100.7").frame();
    (0..13).try_for_each(|_| host.run(&frame).map(drop))?;
    let salt = world.placement.limiter_salt(&key()).context("the limiter has no salt")?;
    let told = OverSample { source: VipKey::v4(Ipv4Address::new([198, 51, 100, 7])), salt, weight: 1 };
    let samples = host.tables.take_over_samples();
    ensure!(samples == [told; 10], "{samples:?}");
    Ok(())
}

/// A program of its own on one CPU, for what was told is to be known to a packet.
struct Loaded<'w> {
    world: &'w World,
    kernel: Kernel<'w>,
}

impl<'w> Loaded<'w> {
    fn new(world: &'w World) -> Result<Self> {
        let mut here = CpuSet::new();
        here.set(0);
        sched_setaffinity(None, &here).context("there is no CPU 0")?;
        Ok(Self { world, kernel: Kernel::load(world)? })
    }

    fn datapath(&mut self) -> &mut KernelDatapath {
        self.kernel.datapath()
    }

    /// Packets over the limit so far.
    fn over(&mut self) -> Result<u64> {
        let row = self.world.placement.limiter(&key()).context("the limiter has no place")?;
        Ok(self.datapath().limiter_counts(row)?.over)
    }

    fn repeat(&mut self, frame: &[u8], repeat: u32) -> Result<()> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        self.datapath().program()?.test_run(options)?;
        Ok(())
    }
}

/// The packets that samples stand for, and the standard deviation of that.
fn weigh<'s>(samples: impl IntoIterator<Item = &'s OverSample>) -> (f64, f64) {
    let weights = samples.into_iter().map(|sample| f64::from(sample.weight));
    let (sum, variance) = weights
        .fold((0.0, 0.0), |(sum, variance), weight| (sum + weight, weight.mul_add(weight - 1.0, variance)));
    (sum, variance.sqrt())
}

fn near(told: (f64, f64), truth: u64) -> bool {
    let truth = u32::try_from(truth).map_or(f64::INFINITY, f64::from);
    (told.0 - truth).abs() <= 5.0 * told.1 + 1.0
}

const PACKETS: u32 = 3_000_000;

fn a_flood_is_told_in_few_samples() -> Result<()> {
    let world = world("packets=1/s burst=3")?;
    let mut loaded = Loaded::new(&world)?;
    let begun = Instant::now();
    for _ in 0..3 {
        loaded.repeat(&tcp(VIP).from("198.51.100.7").frame(), PACKETS / 3)?;
    }
    // The first and the last one may be partly outside.
    let periods = (begun.elapsed().as_nanos() >> PERIOD_BITS) as u32 + 2;
    let over = loaded.over()?;
    ensure!(over > u64::from(PACKETS) * 99 / 100, "only {over} were over");
    let samples = loaded.datapath().take_over_samples();
    let counts = loaded.datapath().sample_counts()?;
    ensure!((counts.told, counts.lost) == (samples.len() as u64, 0), "{counts:?}, {}", samples.len());
    let most = periods * most_told(PACKETS / periods);
    ensure!(samples.len() as u32 <= most, "{} samples, and {most} are allowed", samples.len());
    let told = weigh(&samples);
    ensure!(near(told, over), "{told:?} told, {over} over");
    Ok(())
}

fn what_is_within_is_not_told() -> Result<()> {
    let world = world("packets=100k/s burst=10000")?;
    let mut loaded = Loaded::new(&world)?;
    loaded.repeat(&tcp(VIP).from("198.51.100.7").frame(), 9_000)?;
    let (over, counts) = (loaded.over()?, loaded.datapath().sample_counts()?);
    ensure!(over == 0 && counts.told == 0 && counts.lost == 0, "{over} over, {counts:?}");
    ensure!(loaded.datapath().take_over_samples().is_empty(), "something was told");
    Ok(())
}

/// Invented sources: four thousand, each of which uses up its burst first.
const SPOOFED: u64 = 1 << 12;

fn a_heavy_source_is_told() -> Result<()> {
    let world = world("packets=1/s burst=3")?;
    let mut loaded = Loaded::new(&world)?;
    let mut wrapper = Wrapper::load(loaded.datapath().program()?)?;
    let (heavy, spoofed) = ([198, 51, 100, 7], [10, 0, 0, 0]);
    let mut truth = 0;
    let mut samples = Vec::new();
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        // A share this large stays far from the samples' own noise on a machine that runs only now and then, too.
        wrapper.run(spoofed, SPOOFED, 2 * SPOOFED)?;
        let before = loaded.over()?;
        wrapper.run(heavy, 1, SPOOFED)?;
        truth += loaded.over()? - before;
        samples.extend(loaded.datapath().take_over_samples());
    }
    let over = loaded.over()?;
    ensure!(loaded.datapath().sample_counts()?.lost == 0, "samples were lost");
    let told = weigh(&samples);
    ensure!(near(told, over), "{told:?} told, {over} over");
    let mut by_source = BTreeMap::<VipKey, Vec<OverSample>>::new();
    for sample in samples {
        by_source.entry(sample.source).or_default().push(sample);
    }
    let told = weigh(&by_source.remove(&VipKey::v4(Ipv4Address::new(heavy))).unwrap_or_default());
    ensure!(near(told, truth) && told.0 > 5.0 * told.1, "{told:?} of the heavy source, {truth} in truth");
    ensure!(by_source.len() > 500, "only {} others were told of", by_source.len());
    let most = by_source.values().map(|samples| weigh(samples).0).fold(0.0, f64::max);
    ensure!(most < told.0 / 10.0, "a spoofed source is told to have sent {most}, the heavy one {told:?}");
    Ok(())
}

/// The measuring harness's wrapper, which gives each packet of a test run a source of its own.
struct Wrapper {
    ebpf: Ebpf,
    script: Array<MapData, [u64; SCRIPT_WORDS]>,
    _programs: ProgramArray<MapData>,
}

const SCRIPT_WORDS: usize = size_of::<Script>() / size_of::<u64>();

impl Wrapper {
    fn load(program: &Xdp) -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(BENCH_OBJECT)?;
        let wrapper: &mut Xdp = ebpf.program_mut("wrapper").context("no wrapper")?.try_into()?;
        wrapper.load()?;
        let script = ebpf.take_map("SCRIPT").context("no SCRIPT")?.try_into()?;
        let mut programs: ProgramArray<MapData> =
            ebpf.take_map("PROGRAMS").context("no PROGRAMS")?.try_into()?;
        programs.set(0, program.fd()?, 0)?;
        Ok(Self { ebpf, script, _programs: programs })
    }

    /// Sends `packets` packets from `sources` sources, a power of two, the first of which is `first`.
    fn run(&mut self, first: [u8; 4], sources: u64, packets: u64) -> Result<()> {
        let frame = tcp(VIP).of_length(70).frame();
        let script = Script {
            head: bytemuck::pod_read_unaligned(frame.get(..HEAD_WORDS * 8).context("the frame is short")?),
            length: frame.len() as u64,
            flows_mask: sources - 1,
            flow_at: 26,
            flow_base: u32::from_be_bytes(first).into(),
            moves_head: 0,
            runs: 0,
            clock: [0; LOOKS],
        };
        self.script.set(0, bytemuck::cast::<Script, [u64; SCRIPT_WORDS]>(script), 0)?;
        let wrapper: &Xdp = self.ebpf.program("wrapper").context("no wrapper")?.try_into()?;
        let repeat = u32::try_from(packets)?;
        wrapper.test_run(TestRunOptions { data_in: Some(&frame), repeat, ..TestRunOptions::default() })?;
        Ok(())
    }
}
