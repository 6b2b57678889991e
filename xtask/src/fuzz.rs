//! Tests that go on for as long as one likes, and are the same again with the same seed.

use std::{env::consts::ARCH, fs, num::NonZeroU64, process::Command};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};

use crate::{
    cargo::{self, HOST, words},
    setup::{self, Purpose},
    test,
};

/// Runs the differential fuzzer, optimised; see `tests/packets/differential`.
pub(crate) fn differential(packets: NonZeroU64, seed: u64) -> Result<()> {
    setup::ensure(Purpose::Run)?;
    let line = "test --release --package lb-tests --test packets -- differential --nocapture";
    let mut command = cargo::command(&words(line))?;
    command.env("LB_FUZZ_PACKETS", packets.to_string()).env("LB_FUZZ_SEED", seed.to_string());
    one(command, "host and kernel differ")
}

/// Lets everything happen to a balancer; see `tests/e2e/chaos`.
pub(crate) fn chaos(seconds: NonZeroU64, seed: u64) -> Result<()> {
    setup::ensure(Purpose::Test)?;
    cargo::run(&words(&format!("build {HOST} --bin lb --test e2e")))?;
    let line = format!("test {HOST} --test e2e -- chaos::nobody_notices --nocapture");
    let mut command = test::cargo(&words(&line))?;
    command.env("LB_CHAOS_SECONDS", seconds.to_string()).env("LB_CHAOS_SEED", seed.to_string());
    one(command, "somebody noticed")
}

/// A coverage-guided fuzzer; see `tests/fuzz`.
#[derive(Subcommand)]
pub(crate) enum Target {
    /// Sequences of packets through the pipeline
    Pipeline(Run),
    /// Sequences of packets through the decapsulator
    Decap(Run),
    /// Configurations
    Config(Run),
    /// Bodies of requests
    Api(Run),
    /// Files of the state directory
    State(Run),
    /// What `ipvsadm-save` wrote
    Ipvsadm(Run),
}

/// How long, and what for.
#[derive(Args)]
pub(crate) struct Run {
    /// For how long
    #[arg(long, default_value = "60")]
    seconds: NonZeroU64,
    /// Keep in the corpus what reaches more of the code than what is there
    #[arg(long)]
    keep: bool,
}

/// What the compiler is told so that libFuzzer sees what is reached: the flags of cargo-fuzz, without those of nightly compilers.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Runs a fuzzer until its time is over or it finds something, which it leaves below `target/fuzz`.
pub(crate) fn guided(target: &Target) -> Result<()> {
    setup::ensure(Purpose::Run)?;
    let (name, run) = match target {
        Target::Pipeline(run) => ("pipeline", run),
        Target::Decap(run) => ("decap", run),
        Target::Config(run) => ("config", run),
        Target::Api(run) => ("api", run),
        Target::State(run) => ("state", run),
        Target::Ipvsadm(run) => ("ipvsadm", run),
    };
    ensure!(
        setup::find_program("c++").is_some(),
        "libFuzzer is written in C++: install a compiler, such as Debian's g++"
    );
    let triple = format!("{ARCH}-unknown-linux-gnu");
    // Only what is fuzzed is built so: build scripts and the program for the kernel are not.
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace('-', "_"));
    let folder = cargo::root().join("target/fuzz");
    let (found, corpus) =
        (folder.join("found").join(name), cargo::root().join("tests/fuzz/corpus").join(name));
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let fuzz = |arguments: &[&str]| {
        let words = [
            "run",
            "--quiet",
            "--manifest-path",
            "tests/fuzz/Cargo.toml",
            "--target",
            &triple,
            "--bin",
            name,
            "--",
        ];
        let mut command = cargo::command(&words)?;
        command.env("CARGO_TARGET_DIR", &folder).env(&flags, COVERAGE).args(arguments);
        let status = command.status().context("cannot start cargo")?;
        ensure!(
            status.success(),
            "{name} found something, see above: make it a file of {}",
            corpus.display()
        );
        Ok(())
    };
    let (time, finds) =
        (format!("-max_total_time={}", run.seconds), format!("-artifact_prefix={}/", folder.display()));
    let [found, corpus] = [&found, &corpus].map(|folder| folder.to_string_lossy().into_owned());
    fuzz(&[&time, &finds, "-print_final_stats=1", &found, &corpus])?;
    // What reaches a place that nothing else reaches; how often it does makes ten times as many files.
    let merge = ["-set_cover_merge=1", "-use_counters=0", "-use_cmp=0", &corpus, &found];
    if run.keep { fuzz(&merge) } else { Ok(()) }
}

/// Runs what is one test, and must be one that passes.
fn one(command: Command, failure: &str) -> Result<()> {
    let tally = test::counted(command)?.context("it could not be built or has died, see above")?;
    ensure!(tally.failed == 0, "{failure}, see above");
    ensure!(tally.passed == 1, "nothing was tried: that needs root");
    Ok(())
}
