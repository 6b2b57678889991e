//! The demo, the lab and the measuring harness: built and started.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context, Result};

use crate::{
    cargo,
    setup::{self, Purpose},
};

/// Builds the load balancer, optimised.
pub(crate) fn build() -> Result<()> {
    setup::ensure(Purpose::Run)?;
    cargo::beside_programs(|| cargo::run(&["build", "--release", "--package", "lb-userspace"]))
}

const QUIET_BUILD: &[&str] = &[
    "--quiet",
    "build",
    "--package",
    "lb-userspace",
    "--package",
    "lb-tests",
    "--bin",
    "lb",
    "--bin",
    "lb-lab",
];
const BUILD: &[&str] = QUIET_BUILD.split_at(1).1;

/// Becomes `lb-lab`: its exit status and the signals sent to it need no passing on. Returns only on failure.
///
/// The tests' profile is good enough, for the eBPF programs are optimised in any case: so the demo's build serves the tests.
pub(crate) fn exec(args: Vec<OsString>) -> Result<()> {
    setup::ensure(Purpose::Run)?;
    // What begins a session may take minutes to build and shows its progress; what happens within one has been built.
    let begins = args.first().is_some_and(|verb| verb == "demo" || verb == "up");
    let build = if begins { BUILD } else { QUIET_BUILD };
    cargo::beside_programs(|| cargo::run(build))?;
    become_program(
        Command::new(cargo::binary("debug", "lb-lab")?)
            .args(args)
            .env("LB_BIN", cargo::binary("debug", "lb")?),
    )
}

/// Becomes `lb-bench`, optimised.
pub(crate) fn exec_bench(args: &[OsString]) -> Result<()> {
    setup::ensure(Purpose::Measure)?;
    cargo::run(&[
        "build",
        "--release",
        "--package",
        "lb-tests",
        "--package",
        "lb-userspace",
        "--bin",
        "lb-bench",
        "--bin",
        "lb",
    ])?;
    become_program(Command::new(cargo::binary("release", "lb-bench")?).args(args))
}

/// Returns only on failure.
fn become_program(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().display()))
}
