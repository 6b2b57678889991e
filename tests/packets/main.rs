//! Packets through the pipeline: each fixture on the host and in the kernel, byte by byte, and what holds for any packet.
//!
//! The kernel's half needs root and is skipped without, and says so.

mod decap;
mod decoder;
mod differential;
mod fixtures;
mod lawful;
mod laws;
mod limits;
mod lists;
mod over;
#[allow(unreachable_pub, reason = "fuzzers call it: for them this is a library")]
pub mod targets;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::fixtures::Fixture;
use crate::fixtures::routes::Routes;
use crate::fixtures::sides::{Host, Kernel};
use crate::fixtures::world::World;
use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};

static WORLD: LazyLock<World> =
    LazyLock::new(|| World::build().expect("the fixtures' services can be placed"));
/// One loaded program for all trials, one at a time: its counters are watched.
static KERNEL: LazyLock<Mutex<Result<Kernel<'static>>>> = LazyLock::new(|| Mutex::new(Kernel::load(&WORLD)));

static HOST_PASSED: AtomicUsize = AtomicUsize::new(0);
static KERNEL_PASSED: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let fixtures = fixtures::all();
    let mut trials: Vec<Trial> = fixtures.iter().cloned().map(on_host).collect();
    trials.extend(fixtures.into_iter().filter(Fixture::runs_in_kernel).map(in_kernel));
    trials.extend(laws::all());
    trials.extend(lists::trials());
    trials.extend(decap::trials());
    trials.push(decoder::trial());
    trials.extend(limits::trials());
    trials.extend(over::trials());
    trials.push(differential::trial());
    trials.extend(targets::trials());
    let conclusion = match run(&arguments, trials) {
        Ok(conclusion) => conclusion,
        Err(error) => {
            eprintln!("cannot start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    if !arguments.list {
        let [host, kernel] = [&HOST_PASSED, &KERNEL_PASSED].map(|count| count.load(Ordering::Relaxed));
        println!("fixtures: {host} host, {kernel} kernel");
        // Where none of them met the kernel, no program was loaded.
        if kernel > 0 {
            tell_verified();
        }
    }
    conclusion.exit_code()
}

/// One more fixture has passed.
fn passed(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Runs the trials on a host with routes of its own, as far as the kernel's side runs at all.
fn run(arguments: &Arguments, trials: Vec<Trial>) -> Result<Conclusion> {
    if arguments.list || !rustix::process::geteuid().is_root() {
        return Ok(libtest_mimic::run(arguments, trials));
    }
    let routes = Routes::new()?;
    routes.namespace().run(|| libtest_mimic::run(arguments, trials))
}

fn on_host(fixture: Fixture) -> Trial {
    host_trial(format!("host::{}", fixture.sentence), move |host| {
        fixture.check_host(host)?;
        passed(&HOST_PASSED);
        Ok(())
    })
}

fn in_kernel(fixture: Fixture) -> Trial {
    kernel_trial(format!("kernel::{}", fixture.sentence), move |kernel| {
        fixture.check(kernel)?;
        passed(&KERNEL_PASSED);
        Ok(())
    })
}

fn host_trial(
    name: impl Into<String>,
    test: impl FnOnce(&mut Host<'_>) -> Result<()> + Send + 'static,
) -> Trial {
    Trial::test(name, move || Host::new(&WORLD).and_then(|mut host| test(&mut host)).map_err(failed))
}

fn kernel_trial(
    name: impl Into<String>,
    test: impl FnOnce(&mut Kernel<'static>) -> Result<()> + Send + 'static,
) -> Trial {
    root_trial(name, || play(&KERNEL, test))
}

/// A trial that needs the kernel, and so root.
fn root_trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || {
        if !rustix::process::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root"));
        }
        test().map_err(failed)?;
        Ok(Completion::Completed)
    })
}

/// Says how much of the program the verifier followed.
fn tell_verified() {
    let told = play(&KERNEL, |kernel| {
        let counts = kernel.datapath().verified()?;
        let counts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!("verified instructions: {}", counts.join(", "));
        Ok(())
    });
    if let Err(error) = told {
        eprintln!("cannot tell what the verifier followed: {error:#}");
    }
}

/// Plays a test on a loaded program that trials share.
fn play<K>(kernel: &Mutex<Result<K>>, test: impl FnOnce(&mut K) -> Result<()>) -> Result<()> {
    // A trial that panicked has said so itself; the program goes on.
    let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    test(kernel.as_mut().map_err(|error| anyhow!("{error:#}"))?)
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}
