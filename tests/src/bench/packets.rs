//! What a packet costs in the loaded program, beside programs that do the least such a packet needs.
//!
//! Figures are nanoseconds per packet as the kernel's own test run would report them if it restored packets: a wrapper
//! program writes each packet anew, chooses its flow and tail-calls the program under test; what the wrapper adds to the
//! least program of all is measured in the same round and taken off.

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use lb_common::bench::{RUNS, Script};
use lb_userspace::datapath::{Datapath as _, Image, KernelDatapath, apply};
use serde::Serialize;

use super::cases::{self, Case, PASS};
use super::kernel::Bench;
use super::median;

/// One measured case.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    name: &'static str,
    ns_min: f64,
    ns_median: f64,
    floor: Option<&'static str>,
    /// Median of the differences from the floor, round by round; none for a floor.
    ns_above_floor: Option<f64>,
    /// Median of the ratios to the floor, round by round; none for a floor.
    ratio: Option<f64>,
}

/// The size of the balancer's program.
#[derive(Debug, Default, Serialize)]
pub(super) struct ProgramSize {
    /// Instructions that the verifier walked, along all paths.
    verified_instructions: u32,
    /// Bytes of BPF instructions after the verifier removed what cannot be reached.
    translated_bytes: u32,
    /// Bytes of machine code.
    jited_bytes: u32,
}

/// Tells the size of the program, and returns it.
pub(super) fn program_size(datapath: &mut KernelDatapath) -> Result<ProgramSize> {
    let info = datapath.program()?.info().context("the kernel says nothing about the program")?;
    // The kernel leaves a figure out only for users who may not see the program's code.
    let size = ProgramSize {
        verified_instructions: info.verified_instruction_count().unwrap_or_default(),
        translated_bytes: info.size_translated().unwrap_or_default(),
        jited_bytes: info.size_jitted(),
    };
    let ProgramSize { verified_instructions, translated_bytes, jited_bytes } = size;
    println!(
        "The balancer: {verified_instructions} instructions verified, {} left, {jited_bytes} bytes of machine code",
        translated_bytes / INSTRUCTION
    );
    Ok(size)
}

/// Bytes of a BPF instruction.
const INSTRUCTION: u32 = 8;

/// The named cases and the floors they need, in the order of the table.
pub(super) fn selected(names: &[String]) -> Result<Vec<Case>> {
    let all = cases::all();
    let known: Vec<&str> = all.iter().map(|case| case.name).collect();
    for name in names {
        ensure!(known.contains(&name.as_str()), "there is no case {name}; there are: {}", known.join(", "));
    }
    let asked = |case: &Case| names.is_empty() || names.iter().any(|name| name == case.name);
    let floors: Vec<_> = all.iter().filter(|case| asked(case)).filter_map(|case| case.floor).collect();
    Ok(all.into_iter().filter(|case| asked(case) || floors.contains(&case.name)).collect())
}

/// The floor that everything is measured against.
const LEAST: &str = "pass_floor";

/// Rounds in which every case is measured once. The machine's speed changes between rounds, hardly within one.
const ROUNDS: usize = 61;

/// A case ready to run, and what it cost in each round.
struct Lane<'c> {
    case: &'c Case,
    script: Script,
    program: ProgramFd,
    costs: Vec<f64>,
}

/// Measures every case in every round.
pub(super) fn measure(datapath: &mut KernelDatapath, cases: &[Case]) -> Result<Vec<Figure>> {
    let mut bench = Bench::load()?;
    let image = cases::image(datapath)?;
    datapath.fill_list(cases::SIDE, &cases::lists()?)?;
    apply(datapath, &Image::default(), &image)?;
    let balancer = datapath.program()?.fd()?;
    let mut lanes = Vec::new();
    for case in cases {
        let program = if case.floor.is_none() { bench.floor(case.name)? } else { balancer.try_clone()? };
        let mut script = case.script()?;
        for _ in 0..case.warm_up / RUNS {
            bench.wrapped(&program, &mut script, case.action).with_context(|| case.name)?;
        }
        lanes.push(Lane { case, script, program, costs: Vec::new() });
    }
    // Otherwise something else would be measured than its name says.
    for lane in lanes.iter_mut().filter(|lane| lane.case.is_known) {
        ensure_known(datapath, &mut bench, lane)?;
    }
    // The first round warms caches up and is not counted.
    for round in 0..=ROUNDS {
        measure_round(&mut bench, &mut lanes, round > 0)?;
    }
    apply(datapath, &image, &Image::default())?;
    datapath.fill_list(cases::SIDE, &[])?;
    println!("\n{:24} {:>7} {:>7}  {:15} {:>6} {:>6}", "CASE", "MIN", "MEDIAN", "FLOOR", "ABOVE", "RATIO");
    Ok(lanes.iter().map(|lane| figure(lane, &lanes)).inspect(show).collect())
}

/// Sends all flows of a case once more, and looks whether they were remembered.
fn ensure_known(datapath: &KernelDatapath, bench: &mut Bench, lane: &mut Lane<'_>) -> Result<()> {
    let before = datapath.flow_counts()?;
    for _ in 0..lane.case.flows / RUNS {
        bench.wrapped(&lane.program, &mut lane.script, lane.case.action)?;
    }
    let known = datapath.flow_counts()?.known - before.known;
    let (name, flows) = (lane.case.name, lane.case.flows);
    ensure!(known * 100 >= flows * 99, "{name}: only {known} of {flows} flows were remembered");
    Ok(())
}

/// Measures every case once.
///
/// What the wrapper costs is what it adds to `pass_floor`, which can be measured without it too. Where the frame grows, the
/// wrapper also moves the head back: half of what moving it there and back adds.
fn measure_round(bench: &mut Bench, lanes: &mut [Lane<'_>], counts: bool) -> Result<()> {
    let pass = bench.floor(LEAST)?;
    let mut least = |moves_head| {
        let script = lanes.first().context("no case")?.script;
        bench.wrapped(&pass, &mut Script { moves_head, ..script }, PASS)
    };
    let (still, moved) = (least(0)?, least(1)?);
    let base = bench.alone()?;
    let (wrapper, undo) = (still - base, (moved - still) / 2.0);
    for Lane { case, script, program, costs } in lanes {
        let cost = if case.name == LEAST {
            base
        } else {
            let total = bench.wrapped(program, script, case.action).with_context(|| case.name)?;
            total - wrapper - if case.grows { undo } else { 0.0 }
        };
        if counts {
            costs.push(cost);
        }
    }
    Ok(())
}

/// The median of the rounds, and of the rounds' ratios to the floor.
fn figure(lane: &Lane<'_>, lanes: &[Lane<'_>]) -> Figure {
    let floor = lanes.iter().find(|other| Some(other.case.name) == lane.case.floor);
    let compared = |by: fn(&f64, &f64) -> f64| {
        floor.map(|floor| median(lane.costs.iter().zip(&floor.costs).map(|(cost, floor)| by(cost, floor))))
    };
    Figure {
        name: lane.case.name,
        ns_min: lane.costs.iter().copied().fold(f64::INFINITY, f64::min),
        ns_median: median(lane.costs.iter().copied()),
        floor: lane.case.floor,
        ns_above_floor: compared(|cost, floor| cost - floor),
        ratio: compared(|cost, floor| cost / floor),
    }
}

fn show(figure: &Figure) {
    let Figure { name, ns_min, ns_median, floor, ns_above_floor, ratio } = figure;
    let above = ns_above_floor.map_or_else(String::new, |above| format!("{above:.1}"));
    let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    let row = format!(
        "{name:24} {ns_min:7.1} {ns_median:7.1}  {:15} {above:>6} {ratio:>6}",
        floor.unwrap_or_default()
    );
    println!("{}", row.trim_end());
}
