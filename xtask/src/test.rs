//! `cargo xtask test`: checks and tests in steps, all of which run even if one fails, and one count at the end.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    cargo::{self, HOST, words},
    libtest::Tally,
    setup::{self, Purpose},
    vm,
};

/// Runs what `filter` selects: one step by its name, else the tests whose names contain it. All without a filter.
pub(crate) fn run(filter: Option<&str>) -> Result<ExitCode> {
    setup::ensure(Purpose::Test)?;
    let selection = Selection::of(filter, steps()?);
    let mut total = Tally::default();
    cargo::beside_programs(|| {
        selection.steps.iter().try_for_each(|step| {
            println!("== {}", step.name);
            total.add(step.run(selection.test_name.as_deref())?.named(&step.name));
            anyhow::Ok(())
        })
    })?;
    if total.total() == 0 {
        bail!("no test matches `{}`", filter.unwrap_or_default());
    }
    report(&total);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(total: &Tally) {
    for (title, names) in [("Skipped", &total.skips), ("Failed", &total.failures)] {
        if !names.is_empty() {
            print!("\n{title}:\n{}", Tally::list(names));
        }
    }
    println!("\n{}", total.closing_line());
}

/// The steps to run, and what the names of their tests must contain.
struct Selection {
    steps: Vec<Step>,
    test_name: Option<String>,
}

impl Selection {
    fn of(filter: Option<&str>, mut steps: Vec<Step>) -> Self {
        let Some(filter) = filter else { return Self { steps, test_name: None } };
        if let Some(named) = steps.iter().position(|step| step.name == filter) {
            return Self { steps: vec![steps.swap_remove(named)], test_name: None };
        }
        steps.retain(|step| step.kind == Kind::Tests);
        Self { steps, test_name: Some(filter.to_owned()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Counts as one, passed or failed.
    Check,
    /// Counts as many as the test binaries report.
    Tests,
    /// The same on other kernels, which no command of cargo's is for.
    Machines,
}

/// Cargo commands under one name.
struct Step {
    name: String,
    kind: Kind,
    /// Must succeed before the commands make sense, and counts only if it fails.
    build: Option<Vec<String>>,
    commands: Vec<Vec<String>>,
}

impl Step {
    fn new(name: &str, kind: Kind, commands: &[&str]) -> Self {
        let commands = commands.iter().map(|line| words(line)).collect();
        Self { name: name.to_owned(), kind, build: None, commands }
    }

    /// A test target of lb-tests, which starts the `lb` that `LB_BIN` names.
    fn test_target(target: &str) -> Self {
        let command = format!("test {HOST} --test {target}");
        // With the test itself, whose dependencies for development ask for features, too.
        let build = Some(words(&format!("build {HOST} --bin lb --test {target}")));
        Self { build, ..Self::new(target, Kind::Tests, &[&command]) }
    }

    fn run(&self, test_name: Option<&str>) -> Result<Tally> {
        if self.kind == Kind::Machines {
            return vm::test();
        }
        if let Some(build) = &self.build
            && check(build)?.failed > 0
        {
            return Ok(Tally::failure(title(build)));
        }
        let mut tally = Tally::default();
        for args in &self.commands {
            tally.add(if self.kind == Kind::Check { check(args)? } else { tests(args, test_name)? });
        }
        Ok(tally)
    }
}

/// The eBPF programs are linted as if they were for this machine, because the toolchain that compiles them may have no
/// clippy: a bare-metal program with unstable features, in a directory of its own so that nothing else is rebuilt.
const EBPF_LINTS: &str = "clippy --package lb-ebpf --target-dir target/ebpf \
    --config env.RUSTC_BOOTSTRAP=\"1\" --config profile.dev.panic=\"abort\" -- -D warnings";

/// Every step, in the order of how soon it tells something.
fn steps() -> Result<Vec<Step>> {
    let unit_tests = format!("test {HOST} --no-fail-fast --lib --bins {}", daemon_tests()?);
    let mut steps = vec![
        Step::new("format", Kind::Check, &["fmt --all --check"]),
        Step::new(
            "lints",
            Kind::Check,
            &[&format!("clippy {HOST} --all-targets -- -D warnings"), EBPF_LINTS],
        ),
        Step::new("docs", Kind::Check, &[&format!("doc {HOST} --no-deps")]),
        Step::new("host", Kind::Tests, &[&unit_tests, &format!("test {HOST} --doc")]),
    ];
    let manifest = cargo::root().join("tests/Cargo.toml");
    let manifest =
        fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    steps.extend(test_targets(&manifest).map(Step::test_target));
    steps.push(Step::new("kernels", Kind::Machines, &[]));
    Ok(steps)
}

/// The test targets of the daemon: each file of its folder is one.
fn daemon_tests() -> Result<String> {
    let folder = cargo::root().join("lb-userspace/tests");
    let files = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut targets = Vec::new();
    for file in files {
        let path = file?.path();
        if let (Some("rs"), Some(name)) = (path.extension().and_then(OsStr::to_str), path.file_stem()) {
            targets.push(format!("--test {}", name.display()));
        }
    }
    Ok(targets.join(" "))
}

/// The names of the `[[test]]` sections, which lb-tests spells out because its targets bring their own harness.
fn test_targets(manifest: &str) -> impl Iterator<Item = &str> {
    let sections = manifest.split("[[test]]").skip(1);
    sections.filter_map(|section| {
        let name = section.lines().find_map(|line| line.trim().strip_prefix("name"))?;
        name.split('"').nth(1)
    })
}

fn check(args: &[String]) -> Result<Tally> {
    let status = cargo(args)?.status().context("cannot start cargo")?;
    Ok(if status.success() { Tally::pass() } else { Tally::failure(title(args)) })
}

fn tests(args: &[String], test_name: Option<&str>) -> Result<Tally> {
    let mut cargo = cargo(args)?;
    cargo.arg("--").args(test_name);
    let tally = counted(cargo)?;
    // It did not compile, or a test binary died before it could count.
    Ok(tally.unwrap_or_else(|| Tally::failure(title(args))))
}

/// Runs tests with their output shown as it comes, and counted; `None` if something failed that is no test.
pub(crate) fn counted(mut cargo: Command) -> Result<Option<Tally>> {
    let mut tally = Tally::default();
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no standard output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read cargo's output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    let succeeded = child.wait().context("cannot wait for cargo")?.success();
    Ok((succeeded || tally.failed > 0).then_some(tally))
}

/// Cargo with the environment that the checks and tests expect.
pub(crate) fn cargo(args: &[String]) -> Result<Command> {
    let mut cargo = cargo::command(args)?;
    cargo.env("RUSTDOCFLAGS", "-D warnings").env("LB_BIN", cargo::binary("debug", "lb")?);
    Ok(cargo)
}

fn title(args: &[String]) -> String {
    format!("cargo {}", args.join(" "))
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"lb-tests\"\n\n[[test]]\nname = \"packets\"\nharness = false\n\n\
        [[test]]\npath = \"e2e/main.rs\"\nname = \"e2e\"\n\n[dependencies]\n";

    fn some_steps() -> Vec<Step> {
        vec![Step::new("format", Kind::Check, &["fmt"]), Step::new("e2e", Kind::Tests, &["test"])]
    }

    fn names(selection: &Selection) -> Vec<&str> {
        selection.steps.iter().map(|step| step.name.as_str()).collect()
    }

    #[test]
    fn each_test_target_is_a_step() {
        assert_eq!(test_targets(MANIFEST).collect::<Vec<_>>(), ["packets", "e2e"]);
    }

    #[test]
    fn no_filter_selects_everything() {
        assert_eq!(names(&Selection::of(None, some_steps())), ["format", "e2e"]);
    }

    #[test]
    fn a_step_is_selected_by_its_name() {
        let selection = Selection::of(Some("format"), some_steps());
        assert_eq!((names(&selection), selection.test_name.as_deref()), (vec!["format"], None));
    }

    #[test]
    fn any_other_filter_is_a_part_of_a_test_name() {
        let selection = Selection::of(Some("maglev"), some_steps());
        assert_eq!((names(&selection), selection.test_name.as_deref()), (vec!["e2e"], Some("maglev")));
    }
}
