//! `lb-bench`: what a packet costs in the loaded program, beside programs that do the least such a packet needs.
//!
//! Figures are nanoseconds per packet without the harness: a wrapper program writes each packet anew, chooses its flow and
//! tail-calls the program under test; what the wrapper alone costs is measured in the same run and taken off.

mod cases;
mod kernel;
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use clap::Parser;
use lb_common::bench::{SHRINK, STOP, Script};
use lb_userspace::datapath::{Capacity, Datapath, Image, KernelDatapath, apply, check_host};
use lb_userspace::placement::{Placement, Standing, hash_key, render};
use serde::Serialize;

use cases::{Case, PASS};
use kernel::Bench;
use tables::TableCost;

/// Measure what packets and tables cost, on this machine
#[derive(Debug, Parser)]
#[command(
    name = "lb-bench",
    version,
    after_help = "Example: lb-bench established_hot syn_flood --json bench.json"
)]
struct Arguments {
    /// Cases to measure, with their floors; all if none is named
    cases: Vec<String>,
    /// Write the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One measured case.
#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    ns_min: f64,
    ns_median: f64,
    floor: Option<&'static str>,
    /// Median of the ratios to the floor, round by round; none for a floor.
    ratio: Option<f64>,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
struct Report {
    kernel: String,
    processor: String,
    cases: Vec<Figure>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    maglev: BTreeMap<&'static str, BTreeMap<u16, f64>>,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    check_host()?;
    let cases = selected(&arguments.cases)?;
    let mut bench = Bench::load()?;
    let mut datapath = KernelDatapath::load(hash_key([7; 16]), Capacity::default(), &[1])?;
    let mut report = Report { kernel: release(), processor: kernel::processor(), ..Report::default() };
    println!("{}, Linux {}; nanoseconds per packet\n", report.processor, report.kernel);
    report.cases = packets(&mut bench, &mut datapath, &cases)?;
    if arguments.cases.is_empty() {
        report.maglev = maglev(&mut datapath)?;
    }
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The named cases and the floors they need, in the order of the table.
fn selected(names: &[String]) -> Result<Vec<Case>> {
    let all = cases::all();
    let known: Vec<&str> = all.iter().map(|case| case.name).collect();
    for name in names {
        ensure!(known.contains(&name.as_str()), "there is no case {name}; there are: {}", known.join(", "));
    }
    let asked = |case: &Case| names.is_empty() || names.iter().any(|name| name == case.name);
    let floors: Vec<_> = all.iter().filter(|case| asked(case)).filter_map(|case| case.floor).collect();
    Ok(all.into_iter().filter(|case| asked(case) || floors.contains(&case.name)).collect())
}

/// Rounds in which every case is measured once. The machine's speed changes between rounds, hardly within one.
const ROUNDS: usize = 31;

/// A case ready to run, and what it cost in each round.
struct Lane<'c> {
    case: &'c Case,
    script: Script,
    program: ProgramFd,
    costs: Vec<f64>,
}

fn packets(bench: &mut Bench, datapath: &mut KernelDatapath, cases: &[Case]) -> Result<Vec<Figure>> {
    let image = image(datapath)?;
    apply(datapath, &Image::default(), &image)?;
    let balancer = datapath.program()?.fd()?;
    let mut lanes = Vec::new();
    for case in cases {
        let program = if case.floor.is_none() { bench.floor(case.name)? } else { balancer.try_clone()? };
        lanes.push(Lane { case, script: case.script()?, program, costs: Vec::new() });
    }
    // The first round warms caches up and is not counted.
    for round in 0..=ROUNDS {
        measure_round(bench, &mut lanes, round > 0)?;
    }
    apply(datapath, &image, &Image::default())?;
    println!("{:24} {:>7} {:>7}  {:15} {:>6}", "CASE", "MIN", "MEDIAN", "FLOOR", "RATIO");
    Ok(lanes.iter().map(|lane| figure(lane, &lanes)).inspect(show).collect())
}

/// Measures every case once, and what the harness itself costs: once for every run, and once more for each encapsulation
/// that it undoes.
fn measure_round(bench: &mut Bench, lanes: &mut [Lane<'_>], counts: bool) -> Result<()> {
    let mut idle = |action| {
        let mut script = lanes.first().context("no case")?.script;
        script.action = action;
        bench.figure(None, &script, PASS)
    };
    let (run, there_and_back) = (idle(STOP)?, idle(SHRINK)?);
    let undo = (there_and_back - run) / 2.0;
    for Lane { case, script, program, costs } in lanes {
        let cost = bench.figure(Some(program), script, case.action).with_context(|| case.name)?;
        if counts {
            costs.push(cost - run - if case.grows { undo } else { 0.0 });
        }
    }
    Ok(())
}

/// The median of the rounds, and of the rounds' ratios to the floor.
fn figure(lane: &Lane<'_>, lanes: &[Lane<'_>]) -> Figure {
    let floor = lanes.iter().find(|other| Some(other.case.name) == lane.case.floor);
    let ratio =
        floor.map(|floor| median(lane.costs.iter().zip(&floor.costs).map(|(cost, floor)| cost / floor)));
    Figure {
        name: lane.case.name,
        ns_min: lane.costs.iter().copied().fold(f64::INFINITY, f64::min),
        ns_median: median(lane.costs.iter().copied()),
        floor: lane.case.floor,
        ratio,
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn show(figure: &Figure) {
    let Figure { name, ns_min, ns_median, floor, ratio } = figure;
    let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    println!("{name:24} {ns_min:7.1} {ns_median:7.1}  {:15} {ratio:>6}", floor.unwrap_or_default());
}

fn image(datapath: &KernelDatapath) -> Result<Image> {
    let services = cases::services()?;
    let placement = Placement::new(&datapath.capacity()).next(&services, |_, _| Standing::Serving)?;
    let hops = cases::next_hops(&services);
    Ok(render(&placement, &services, |address| hops.get(&address)))
}

fn maglev(datapath: &mut KernelDatapath) -> Result<BTreeMap<&'static str, BTreeMap<u16, f64>>> {
    println!(
        "\n{:>8} {:>9} {:>11} {:>13}   (tables of 65 537 slots)",
        "BACKENDS", "BUILD ms", "INSTALL ms", "DISRUPTION %"
    );
    let mut figures = BTreeMap::<_, BTreeMap<_, _>>::new();
    for backends in [10, 100, 1000] {
        let TableCost { build_ms, install_ms, disruption_percent } = tables::measure(datapath, backends)?;
        println!("{backends:8} {build_ms:9.2} {install_ms:11.2} {disruption_percent:13.2}");
        let parts =
            [("build_ms", build_ms), ("install_ms", install_ms), ("disruption_percent", disruption_percent)];
        for (name, figure) in parts {
            figures.entry(name).or_default().insert(backends, figure);
        }
    }
    Ok(figures)
}
