//! A machine that boots, runs its tests and is gone.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    mem,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::kernels::Kernel;
use crate::libtest::Tally;

/// With what status QEMU ends when the machine's init says that all tests have passed: twice what it writes to the port of
/// `isa-debug-exit`, and one.
const PASSED: i32 = 33;
/// How init's last line begins; the number of tests stands behind it.
const CLOSING: &str = "lb-init: tests run: ";

/// What came of a machine.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What its tests said.
    pub(crate) tally: Tally,
    /// The same, for each test binary that ran to its end.
    pub(crate) suites: Vec<Tally>,
    /// Lines that begin with `verified`.
    pub(crate) verified: Vec<String>,
    /// Why it is no pass, if it is none.
    pub(crate) failure: Option<String>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// What a machine is to do.
pub(crate) struct Task<'t> {
    pub(crate) archive: &'t Path,
    /// Where all that it says is kept.
    pub(crate) log: &'t Path,
    /// How many tests have to run.
    pub(crate) expected: u64,
    /// For init, on the kernel's command line.
    pub(crate) argument: &'t str,
    pub(crate) within: Duration,
}

/// A running QEMU, which does not outlive whoever waits for it.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It has ended, usually: then there is nothing to end.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Boots a kernel and waits for its end, or ends it.
pub(crate) fn run(kernel: &Kernel, task: &Task<'_>) -> Result<Outcome> {
    let start = Instant::now();
    let mut child = Machine(qemu(kernel, task).spawn().context("cannot start qemu-system-x86_64")?);
    let console = child.0.stdout.take().context("QEMU has no console")?;
    let mut log =
        fs::File::create(task.log).with_context(|| format!("cannot write {}", task.log.display()))?;
    let (said, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if said.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                return;
            }
        }
    });
    let mut outcome = Outcome::default();
    let (mut suite, mut closing) = (Tally::default(), None);
    let ended = loop {
        // Also a machine that never stops talking has to end.
        let Some(left) = task.within.checked_sub(start.elapsed()) else { break false };
        match lines.recv_timeout(left) {
            Ok(line) => {
                writeln!(log, "{line}")?;
                if suite.read(&line) {
                    outcome.suites.push(mem::take(&mut suite));
                }
                if let Some(number) = line.strip_prefix(CLOSING) {
                    closing = number.parse().ok();
                }
                if line.starts_with("verified ") {
                    outcome.verified.push(line);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    if !ended {
        child.0.kill().context("cannot end QEMU")?;
    }
    let code = child.0.wait().context("cannot wait for QEMU")?.code();
    outcome.took = start.elapsed();
    outcome.suites.iter().cloned().chain([suite]).for_each(|suite| outcome.tally.add(suite));
    outcome.failure = if ended {
        verdict(code, closing, task.expected, &outcome.tally)
    } else {
        Some(format!("it still ran after {} s", task.within.as_secs()))
    };
    Ok(outcome)
}

/// Why it is no pass. Only the agreed status, together with the number of tests that had to run, is one.
fn verdict(code: Option<i32>, closing: Option<u64>, expected: u64, tally: &Tally) -> Option<String> {
    if tally.failed > 0 {
        return Some(format!("{} tests failed", tally.failed));
    }
    if code != Some(PASSED) {
        return Some(format!(
            "QEMU ended with {code:?} instead of {PASSED}: the kernel panicked, or init failed"
        ));
    }
    let Some(ran) = closing else { return Some("init did not say how many tests it ran".to_owned()) };
    if ran != tally.total() {
        return Some(format!("init says {ran} tests, its tests say {}", tally.total()));
    }
    if expected != tally.passed {
        return Some(format!("{} tests passed, {expected} had to", tally.passed));
    }
    (expected == 0).then(|| "no test ran".to_owned())
}

fn qemu(kernel: &Kernel, task: &Task<'_>) -> Command {
    // The device may be there and hang: only where one of these is loaded does it work.
    let has = |module: &str| Path::new("/sys/module").join(module).exists();
    let accelerator = if has("kvm_intel") || has("kvm_amd") { "kvm" } else { "tcg,thread=multi" };
    // The kernel ends it when this program ends, however that happens.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-M", "q35", "-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "1536"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"])
        .args(["-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(task.archive)
        .arg("-append")
        .arg(format!("console=ttyS0 panic=-1 quiet lb={}", task.argument))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_pass_is_one() {
        let tally = |passed: u64, failed: u64| {
            let mut tally = Tally::default();
            tally.read(&format!("test result: ok. {passed} passed; {failed} failed"));
            tally
        };
        assert_eq!(verdict(Some(PASSED), Some(7), 7, &tally(7, 0)), None);
        for (code, closing, expected, tally) in [
            (Some(0), Some(7), 7, tally(7, 0)),
            (Some(35), Some(7), 7, tally(7, 0)),
            (Some(PASSED), None, 7, tally(7, 0)),
            (Some(PASSED), Some(6), 7, tally(6, 0)),
            (Some(PASSED), Some(7), 7, tally(6, 1)),
            (Some(PASSED), Some(7), 7, tally(6, 0)),
            (Some(PASSED), Some(0), 0, tally(0, 0)),
        ] {
            assert!(verdict(code, closing, expected, &tally).is_some(), "{code:?} {closing:?} {tally:?}");
        }
    }
}
