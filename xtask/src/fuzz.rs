//! Tests that go on for as long as one likes, and are the same again with the same seed.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{
    cargo,
    setup::{self, Purpose},
    test,
};

/// Runs the differential fuzzer, optimised; see `tests/packets/differential`.
pub(crate) fn differential(packets: u64, seed: u64) -> Result<()> {
    setup::ensure(Purpose::Run)?;
    let words = "test --release --package lb-tests --test packets -- differential --nocapture";
    let mut command = cargo::command(&words.split(' ').collect::<Vec<_>>())?;
    command.env("LB_FUZZ_PACKETS", packets.to_string()).env("LB_FUZZ_SEED", seed.to_string());
    one(command, "host and kernel differ")
}

/// Lets everything happen to a balancer; see `tests/e2e/chaos`.
pub(crate) fn chaos(seconds: u64, seed: u64) -> Result<()> {
    setup::ensure(Purpose::Test)?;
    let words = "build --package lb-userspace --bin lb";
    cargo::run(&words.split(' ').collect::<Vec<_>>())?;
    let words = "test --package lb-tests --test e2e -- chaos::nobody_notices --nocapture";
    let mut command = test::cargo(&words.split(' ').map(str::to_owned).collect::<Vec<_>>())?;
    command.env("LB_CHAOS_SECONDS", seconds.to_string()).env("LB_CHAOS_SEED", seed.to_string());
    one(command, "somebody noticed")
}

/// Runs what is one test, and must be one that passes.
fn one(command: Command, failure: &str) -> Result<()> {
    let tally = test::counted(command)?.context("it could not be built or has died, see above")?;
    ensure!(tally.failed == 0, "{failure}, see above");
    ensure!(tally.passed == 1, "nothing was tried: that needs root");
    Ok(())
}
