//! `lb-bench`: what the loaded program costs, how fast the attached one forwards, and how fast the daemon changes what it does.

mod cases;
mod control;
mod forward;
mod kernel;
mod packets;
mod tables;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fmt, fs};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use lb_common::hash::HashKey;
use lb_userspace::datapath::{Capacity, Datapath, Image, KernelDatapath, check_host};
use lb_userspace::neighbors::NextHop;
use lb_userspace::placement::{Placement, Services, Standing, hash_key, render};
use serde::Serialize;

use crate::interrupt::Interrupted;

/// Measure what packets and tables cost, on this machine
#[derive(Debug, Parser)]
#[command(
    name = "lb-bench",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Example: lb-bench established_hot syn_flood --json bench.json"
)]
struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// Cases to measure, with their floors; all if none is named
    cases: Vec<String>,
    /// Write the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Other {
    Control(control::Arguments),
    Forward(forward::Arguments),
}

/// Where it was measured.
#[derive(Debug, Serialize)]
struct Machine {
    kernel: String,
    processor: String,
}

/// Everything that was measured without a network.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    machine: Machine,
    program: packets::ProgramSize,
    cases: Vec<packets::Figure>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    maglev: tables::Figures,
}

/// Runs the command line. Exit codes: 0 measured, 1 an error, 2 usage, 130 interrupted.
pub fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("lb-bench: interrupted; everything that was set up is removed again");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("lb-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    check_host()?;
    match &arguments.other {
        Some(Other::Control(arguments)) => control::run(arguments),
        Some(Other::Forward(arguments)) => forward::run(arguments),
        None => costs(arguments),
    }
}

fn costs(arguments: &Arguments) -> Result<()> {
    let cases = packets::selected(&arguments.cases)?;
    // A million flows must find room: a table that is as full as it can be would be measured otherwise.
    let capacity = Capacity { flow_sets: 1 << 19, ..Capacity::default() };
    let mut datapath = KernelDatapath::load(key(), capacity, &[1])?;
    let machine = Machine::this();
    println!("{machine}; nanoseconds per packet");
    let program = packets::program_size(&mut datapath)?;
    let cases = packets::measure(&mut datapath, &cases)?;
    let maglev =
        if arguments.cases.is_empty() { tables::measure_all(&mut datapath)? } else { BTreeMap::new() };
    let report = Report { machine, program, cases, maglev };
    arguments.json.as_ref().map_or(Ok(()), |file| write_json(file, &report))
}

impl Machine {
    fn this() -> Self {
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Self { kernel, processor: kernel::processor() }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, Linux {}", self.processor, self.kernel)
    }
}

fn write_json(file: &Path, report: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The same in every run, so that the same flows go to the same slots.
fn key() -> HashKey {
    hash_key([7; 16])
}

/// Where everything stands.
fn place(datapath: &KernelDatapath, services: &Services) -> Result<Placement> {
    Ok(Placement::new(&datapath.capacity()).next(services, |_, backend| Standing::Serving(backend.weight))?)
}

/// What the tables hold for services whose backends are reached by these hops.
fn image(datapath: &KernelDatapath, services: &Services, hops: &BTreeMap<IpAddr, NextHop>) -> Result<Image> {
    Ok(render(&place(datapath, services)?, services, |address| hops.get(&address)))
}

pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
