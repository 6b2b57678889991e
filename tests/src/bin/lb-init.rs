//! The first and only process of a test machine: makes it a system, runs the tests, says how many there were, and switches it off.
//!
//! `cargo xtask vm` puts it in place of `/init`. What it is to do stands in `/tasks`, a test binary and a filter on each line, and
//! `lb=` on the kernel's command line can make it fail in any way that a machine can.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};

/// What is written to the port of `isa-debug-exit`, from which QEMU makes its status: twice that, and one.
const PASSED: u8 = 16;
const FAILED: u8 = 17;
/// The port.
#[cfg(target_arch = "x86_64")]
const PORT: u16 = 0xf4;

fn main() {
    let ended = run();
    if let Err(error) = &ended {
        println!("lb-init: {error:#}");
    }
    let status = if matches!(ended, Ok(0)) { PASSED } else { FAILED };
    // What stands in the console's buffer would be lost with the machine.
    let drained = rustix::termios::tcdrain(std::io::stdout());
    if let Err(error) = drained {
        println!("lb-init: the console cannot be drained: {error}");
    }
    let switched_off = switch_off(status);
    // Whoever waits sees a panic: the kernel has no init any more.
    println!("lb-init: cannot switch the machine off: {switched_off:?}");
}

/// Kernels for the cloud have no `/dev/port`: the port is written to by an instruction.
#[cfg(target_arch = "x86_64")]
fn switch_off(status: u8) -> Result<()> {
    // SAFETY: allows this process the port of QEMU's device, which does nothing but end QEMU.
    let allowed = unsafe { libc::ioperm(PORT.into(), 1, 1) };
    ensure!(allowed == 0, "the port is not allowed: {}", std::io::Error::last_os_error());
    // SAFETY: as above. The machine is off behind it.
    unsafe { std::arch::asm!("out dx, al", in("dx") PORT, in("al") status, options(nomem, nostack)) };
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
fn switch_off(_status: u8) -> Result<()> {
    anyhow::bail!("only machines of x86-64 are switched off")
}

/// How many tests failed.
fn run() -> Result<u64> {
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("bpf", "/sys/fs/bpf"),
        ("devpts", "/dev/pts"),
    ] {
        fs::create_dir_all(at).with_context(|| format!("cannot make {at}"))?;
        let nothing: Option<&std::ffi::CStr> = None;
        mount(kind, at, kind, MountFlags::empty(), nothing).with_context(|| format!("cannot mount {at}"))?;
    }
    let line = fs::read_to_string("/proc/cmdline")?;
    let argument = line.split_whitespace().find_map(|word| word.strip_prefix("lb=")).unwrap_or_default();
    match argument {
        "tests" => tests(),
        "pass" | "few" => Ok(one_test(true)),
        "fail" => Ok(one_test(false)),
        "silent" => Ok(0),
        "panic" => {
            fs::write("/proc/sysrq-trigger", "c").context("cannot make the kernel panic")?;
            Ok(0)
        }
        "hang" => loop {
            thread::park();
        },
        other => anyhow::bail!("lb={other} says nothing to this init"),
    }
}

/// A test that is none: what it says is what one would say.
fn one_test(passes: bool) -> u64 {
    let (word, good, failed) = if passes { ("ok", 1, 0) } else { ("FAILED", 0, 1) };
    println!(
        "test one ... {word}\ntest result: {word}. {good} passed; {failed} failed; 0 ignored; 0 measured"
    );
    println!("lb-init: tests run: 1");
    failed
}

fn tests() -> Result<u64> {
    // Else every namespace has a device of each kind of tunnel, which nobody asked for.
    fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", "1").context("cannot set a sysctl")?;
    load_modules()?;
    let up =
        Command::new("/usr/bin/ip").args(["link", "set", "lo", "up"]).status().context("cannot start ip")?;
    ensure!(up.success(), "loopback cannot be used");
    let (mut all, mut failed) = (0, 0);
    for line in fs::read_to_string("/tasks")?.lines() {
        let (binary, filter) = line.split_once('\t').with_context(|| format!("a task is {line:?}"))?;
        let (ran, bad) = one_binary(binary, filter)?;
        all += ran;
        failed += bad;
    }
    println!("lb-init: tests run: {all}");
    Ok(failed)
}

/// Runs the tests of a binary with `filter` in their names: how many there were, and how many failed.
fn one_binary(binary: &str, filter: &str) -> Result<(u64, u64)> {
    // An emulated processor has no time to spare, whatever the tests wait for.
    let threads = thread::available_parallelism()?.to_string();
    let mut child = Command::new(Path::new("/lb").join(binary))
        .args([filter, "--test-threads", &threads])
        .envs([
            ("PATH", "/usr/bin"),
            ("LB_BIN", "/lb/lb"),
            ("HOME", "/root"),
            ("RUST_BACKTRACE", "0"),
            ("LB_PATIENCE", "10"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {binary}"))?;
    let said = child.stdout.take().context("a test without output")?;
    let (mut ran, mut failed) = (0, 0);
    for line in BufReader::new(said).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |what: &str| -> u64 {
                let mut parts = counts.split([';', '.']);
                parts.find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok()).unwrap_or(0)
            };
            let (passed, bad) = (count("passed"), count("failed"));
            ran += passed + bad + count("ignored");
            failed += bad;
        }
    }
    let ended = child.wait()?;
    // It may have died before it could count.
    if !ended.success() && failed == 0 {
        println!("lb-init: {binary} ended with {ended}");
        failed = 1;
    }
    Ok((ran, failed))
}

/// Loads the modules below `/modules` in the order of their names.
fn load_modules() -> Result<()> {
    let mut paths: Vec<_> =
        fs::read_dir("/modules")?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        let file = File::open(&path)?;
        let loaded = rustix::system::finit_module(&file, &CString::default(), 0);
        if let Err(error) = loaded {
            println!("lb-init: {}: {error}", path.display());
        }
    }
    Ok(())
}
