//! The kernel's side of a measurement: the wrapper, the program under test, and the clock.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::bench::{RUNS, STRETCH, Script};
use lb_userspace::datapath::BENCH_OBJECT;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use super::{cases::PASS, median};

/// Means that the figure of a program without wrapper is the mean of.
const MEANS: u32 = 4;

/// What rounding down takes off on average.
const HALF: f64 = 0.5;

const SCRIPT_WORDS: usize = size_of::<Script>() / size_of::<u64>();

/// The wrapper program, loaded.
pub(super) struct Bench {
    ebpf: Ebpf,
    script: Array<MapData, [u64; SCRIPT_WORDS]>,
    programs: ProgramArray<MapData>,
}

impl Bench {
    /// Loads the wrapper and pins this thread to its CPU.
    pub(super) fn load() -> Result<Self> {
        let mut cpu = CpuSet::new();
        cpu.set(sched_getcpu());
        sched_setaffinity(None, &cpu).context("cannot stay on one CPU")?;
        let mut ebpf = EbpfLoader::new().load(BENCH_OBJECT).context("the kernel refused the harness")?;
        for (_, program) in ebpf.programs_mut() {
            <&mut Xdp>::try_from(program)?.load().context("the kernel refused a program of the harness")?;
        }
        let script = ebpf.take_map("SCRIPT").context("no SCRIPT")?.try_into()?;
        let programs = ebpf.take_map("PROGRAMS").context("no PROGRAMS")?.try_into()?;
        Ok(Self { ebpf, script, programs })
    }

    /// A handle of one of the floors.
    pub(super) fn floor(&self, name: &str) -> Result<ProgramFd> {
        let program = self.ebpf.program(name).with_context(|| format!("the harness has no {name}"))?;
        Ok(program.fd()?.try_clone()?)
    }

    /// Runs `program` behind the wrapper, again and again as the script says; the last run must return `action`.
    ///
    /// Nanoseconds per run, the wrapper's included. The script goes on with the next flow next time.
    pub(super) fn wrapped(&mut self, program: &ProgramFd, script: &mut Script, action: u32) -> Result<f64> {
        self.programs.set(0, program, 0)?;
        self.script.set(0, bytemuck::cast::<Script, [u64; SCRIPT_WORDS]>(*script), 0)?;
        self.repeat("wrapper", &vec![0; usize::try_from(script.length)?], action)?;
        *script = bytemuck::cast(self.script.get(&0, 0)?);
        // The median: the test run lets other tasks have the CPU now and then, which the clock does not know.
        let stretches = script.clock.windows(2).map(|looks| nanoseconds(looks[1] - looks[0]));
        let stretches = stretches.collect::<Result<Vec<_>>>()?;
        Ok(median(stretches.into_iter()) / nanoseconds(STRETCH)?)
    }

    /// Runs `pass_floor` without the wrapper, which it does not need: it leaves the packet as it is.
    ///
    /// Nanoseconds per run. With no wrapper to look at the clock, several means of whole nanoseconds have to do.
    pub(super) fn alone(&self) -> Result<f64> {
        let wholes = (0..MEANS).map(|_| self.repeat("pass_floor", &[0; 64], PASS));
        let sum = wholes.sum::<Result<f64>>()?;
        Ok(sum / f64::from(MEANS) + HALF)
    }

    /// The kernel's own figure: nanoseconds per run, rounded down.
    ///
    /// From outside, one would also measure that it waits for all CPUs after each test run, which takes some milliseconds.
    fn repeat(&self, program: &str, frame: &[u8], action: u32) -> Result<f64> {
        let program: &Xdp = self
            .ebpf
            .program(program)
            .with_context(|| format!("the harness has no {program}"))?
            .try_into()?;
        let repeat = u32::try_from(RUNS)?;
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        let ran = program.test_run(options).context("cannot run the harness")?;
        ensure!(ran.return_value == action, "the program returned {}, not {action}", ran.return_value);
        nanoseconds(u64::try_from(ran.duration.as_nanos())?)
    }
}

fn nanoseconds(count: u64) -> Result<f64> {
    Ok(f64::from(u32::try_from(count).context("a run took longer than four seconds")?))
}

/// What the machine calls its processor.
pub(super) fn processor() -> String {
    let info = File::open("/proc/cpuinfo").and_then(std::io::read_to_string).unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}
