//! The kernel's side of a measurement: the wrapper, the program under test, and the clock.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::bench::Script;
use lb_userspace::datapath::BENCH_OBJECT;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

/// Runs of a program that one figure is the mean of.
const REPEAT: u32 = 100_000;

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

    /// Runs `program` as the script says, again and again; the last run must return `action`. Nanoseconds per run.
    pub(super) fn figure(
        &mut self,
        program: Option<&ProgramFd>,
        script: &Script,
        action: u32,
    ) -> Result<f64> {
        if let Some(program) = program {
            self.programs.set(0, program, 0)?;
        }
        self.script.set(0, bytemuck::cast::<Script, [u64; SCRIPT_WORDS]>(*script), 0)?;
        let frame = vec![0; usize::try_from(script.length)?];
        let options = TestRunOptions { data_in: Some(&frame), repeat: REPEAT, ..TestRunOptions::default() };
        let wrapper: &mut Xdp =
            self.ebpf.program_mut("wrapper").context("the harness has no wrapper")?.try_into()?;
        let ran = wrapper.test_run(options).context("cannot run the harness")?;
        ensure!(ran.return_value == action, "the program returned {}, not {action}", ran.return_value);
        // The kernel's own figure, in whole nanoseconds. From outside, one would also measure that it waits for all CPUs
        // after each test run, which takes some milliseconds.
        Ok(f64::from(u32::try_from(ran.duration.as_nanos())?))
    }
}

/// What the machine calls its processor.
pub(super) fn processor() -> String {
    let info = File::open("/proc/cpuinfo").and_then(std::io::read_to_string).unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}
