//! Fuzzing.

use anyhow::{Context as _, Result, ensure};

use crate::{
    cargo,
    setup::{self, Purpose},
    test,
};

/// Runs the differential fuzzer, optimised; see `tests/packets/differential`.
pub(crate) fn differential(packets: u64, seed: u64) -> Result<()> {
    setup::ensure(Purpose::Run)?;
    let mut command = cargo::command(&[
        "test",
        "--release",
        "--package",
        "lb-tests",
        "--test",
        "packets",
        "--",
        "differential",
        "--nocapture",
    ])?;
    command.env("LB_FUZZ_PACKETS", packets.to_string()).env("LB_FUZZ_SEED", seed.to_string());
    let tally = test::counted(command)?.context("the fuzzer could not be built or has died, see above")?;
    ensure!(tally.failed == 0, "host and kernel differ, see above");
    ensure!(tally.passed == 1, "nothing was compared: that needs root");
    Ok(())
}
