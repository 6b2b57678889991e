//! The load balancer end to end: real packets between network namespaces, real servers, the real program.
//!
//! Each test builds a network of its own, so tests run side by side. Without root they are skipped, and say so.

mod api;
mod bench;
mod cases;
mod changes;
mod chaos;
mod config;
mod decap;
mod delivery;
mod demo;
mod devices;
mod doctor;
mod events;
mod failures;
mod flat;
mod flows;
mod ipvs;
mod lifecycle;
mod limits;
mod lists;
mod options;
mod pages;
mod plumbing;
mod refusals;
mod service;
mod sizes;
mod states;
mod survive;
mod ways;
mod zero_loss;

use std::num::NonZero;
use std::process::ExitCode;

use anyhow::Result;
use lb_tests::interrupt;
use lb_tests::tools::Tools;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use cases::Case;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They wait for answers, checks and links as long as they compute.
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    arguments.test_threads.get_or_insert(2 * processors);
    if let Err(error) = interrupt::watch() {
        eprintln!("cannot watch for signals: {error}");
        return ExitCode::FAILURE;
    }
    let cases = [
        plumbing::cases(),
        api::cases(),
        decap::cases(),
        delivery::cases(),
        devices::cases(),
        ipvs::cases(),
        sizes::cases(),
        flat::cases(),
        options::cases(),
        failures::cases(),
        flows::cases(),
        changes::cases(),
        states::cases(),
        config::cases(),
        pages::cases(),
        limits::cases(),
        lists::cases(),
        lifecycle::cases(),
        survive::cases(),
        service::cases(),
        doctor::cases(),
        events::cases(),
        refusals::cases(),
        demo::cases(),
        zero_loss::cases(),
        chaos::cases(),
        bench::cases(),
    ];
    let trials = cases.into_iter().flatten().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(case: Case) -> Trial {
    let missing = case.missing();
    Trial::ignorable_test(case.name, move || {
        if !rustix::process::geteuid().is_root() {
            return Ok(Completion::ignored_with("network namespaces need root"));
        }
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Ok(Completion::ignored_with(format!(
                "this kernel has not loaded {missing}: cargo xtask vm"
            )));
        }
        // With all causes: the outermost alone says too little.
        run(case.test).map_err(|error| Failed::from(format!("{error:#}")))?;
        Ok(Completion::Completed)
    })
}

fn run(test: cases::Test) -> Result<()> {
    interrupt::check()?;
    test(Tools::with_lab(env!("CARGO_BIN_EXE_lb-lab").into())?)
}
