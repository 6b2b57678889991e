//! The demonstration itself: it succeeds, and it leaves nothing behind, also when it is interrupted.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use lb_tests::process::Process;
use lb_tests::tools::Tools;
use lb_tests::wait;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cases::{Case, cases};

/// What the demo promises to take at most.
const WHOLE: Duration = Duration::from_mins(1);

pub(crate) fn cases() -> Vec<Case> {
    cases!["demo": everything_is_as_expected, nothing_is_left_after_an_interrupt]
}

/// A demo that keeps all its files in a directory of the test's, by whose name its processes can be recognised.
struct Demo {
    process: Process,
    directory: TempDir,
}

impl Demo {
    fn start(tools: Tools) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new(tools.lab);
        command.arg("demo").env("LB_BIN", tools.lb).env("TMPDIR", directory.path());
        let process = Process::spawn_logged("the demo", command, &directory.path().join("output"))?;
        Ok(Self { process, directory })
    }

    fn code(&mut self, limit: Duration) -> Result<Option<i32>> {
        let process = &mut self.process;
        let status =
            wait::until(limit, "the demo ends", || process.ended()?.ok_or_else(|| anyhow!("it still runs")))?;
        Ok(status.code())
    }

    /// No namespace, no process and no file but the output.
    fn ensure_nothing_left(&self) -> Result<()> {
        let namespaces = names("/run/netns", |name| name.starts_with(&format!("lb{}-", self.process.id())));
        ensure!(namespaces.is_empty(), "namespaces are left: {namespaces:?}");
        let files = names(self.directory.path(), |name| name != "output");
        ensure!(files.is_empty(), "files are left: {files:?}");
        let directory = self.directory.path().to_string_lossy().into_owned();
        let ours = |id: &str| {
            fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.contains(&directory))
        };
        let processes = names("/proc", ours);
        ensure!(processes.is_empty(), "processes are left: {processes:?}");
        Ok(())
    }
}

fn names(directory: impl AsRef<Path>, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| wanted(name))
        .collect()
}

fn everything_is_as_expected(tools: Tools) -> Result<()> {
    let mut demo = Demo::start(tools)?;
    let code = demo.code(WHOLE)?;
    ensure!(code == Some(0), "exit code {code:?} after:\n{}", demo.process.log());
    demo.ensure_nothing_left()
}

fn nothing_is_left_after_an_interrupt(tools: Tools) -> Result<()> {
    let mut demo = Demo::start(tools)?;
    wait::until(WHOLE, "the demo reaches its fourth chapter", || {
        let output = demo.process.log();
        ensure!(output.contains("\n4. "), "it has come so far:\n{output}");
        Ok(())
    })?;
    let id = i32::try_from(demo.process.id()).ok().and_then(Pid::from_raw).context("no process")?;
    kill_process(id, Signal::INT)?;
    let code = demo.code(Duration::from_secs(10))?;
    ensure!(code == Some(130), "exit code {code:?} after:\n{}", demo.process.log());
    demo.ensure_nothing_left()
}
