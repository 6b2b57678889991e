//! `cargo xtask miri`: the tests of `lb-common` by an interpreter that watches every access to memory.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::{cargo, test};

const NO_MIRI: &str = "Miri is missing, which comes with nightly toolchains alone: rustup toolchain install nightly --component miri,rust-src";

/// Whether a nightly toolchain has it.
fn is_there() -> bool {
    let asked = Command::new("cargo")
        .args(["+nightly", "miri", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

/// What tries millions of values, which would take an interpreter days.
const SKIPPED: [&str; 4] = ["slot::model", "hash::tests::neighbouring", "maglev", "limiter"];

/// Runs them all but [`SKIPPED`].
pub(crate) fn run() -> Result<()> {
    ensure!(is_there(), "{NO_MIRI}");
    let mut command = Command::new("cargo");
    command
        .args(["+nightly", "miri", "test", "--package", "lb-common", "--lib"])
        .arg("--")
        .args(SKIPPED.iter().flat_map(|name| ["--skip", name]))
        .current_dir(cargo::root())
        // What it compiles is of no use to others.
        .env("CARGO_TARGET_DIR", cargo::root().join("target/miri"))
        // Properties are tried on so many values; each takes a thousand times as long as else.
        .env("PROPTEST_CASES", "8")
        // For the values that failed before, which stand in files.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation");
    let ran = test::counted(command)?;
    ensure!(ran.is_some_and(|tally| tally.failed == 0 && tally.passed > 0), "see above");
    Ok(())
}
