//! Packets through the pipeline: each fixture on the host and in the kernel, byte by byte, and what holds for any packet.
//!
//! The kernel's half needs root and is skipped without, and says so.

mod fixtures;
mod limits;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::fixtures::counts::{Counter, ROW};
use crate::fixtures::frames::{Draft, tcp, udp};
use crate::fixtures::sides::{Action, Host, Kernel, SHORTEST_IN_KERNEL, Seen, Side};
use crate::fixtures::world::World;
use crate::fixtures::{Fixture, hex};
use anyhow::{Result, anyhow, ensure};
use lb_common::verdict::DropReason;
use lb_userspace::datapath::apply;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

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
    trials.extend(laws());
    trials.extend(limits::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        let passed = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        println!("fixtures: {} host, {} kernel", passed(&HOST_PASSED), passed(&KERNEL_PASSED));
    }
    conclusion.exit_code()
}

fn on_host(fixture: Fixture) -> Trial {
    host_trial(format!("host::{}", fixture.sentence), move |host| {
        fixture.check_host(host)?;
        HOST_PASSED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    })
}

fn in_kernel(fixture: Fixture) -> Trial {
    kernel_trial(format!("kernel::{}", fixture.sentence), move |kernel| {
        fixture.check(kernel)?;
        KERNEL_PASSED.fetch_add(1, Ordering::Relaxed);
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
    Trial::ignorable_test(name, move || {
        if !rustix::process::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root"));
        }
        // A trial that panicked has said so itself; the program goes on.
        let mut kernel = KERNEL.lock().unwrap_or_else(PoisonError::into_inner);
        let kernel = kernel.as_mut().map_err(|error| Failed::from(format!("{error:#}")))?;
        test(kernel).map_err(failed)?;
        Ok(Completion::Completed)
    })
}

#[expect(clippy::needless_pass_by_value, reason = "handed to map_err")]
fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}

/// What holds for more packets than a table can list.
fn laws() -> Vec<Trial> {
    let bystanders = [tcp("192.0.2.11:80"), udp("[2001:db8::11]:53")];
    let ours = ["192.0.2.10:80", "192.0.2.30:80", "[2001:db8::10]:80", "[2001:db8::30]:81"].map(tcp);
    let ours = ours.into_iter().chain(["192.0.2.10:53", "192.0.2.30:54", "[2001:db8::30]:53"].map(udp));
    let (ours, others): (Vec<_>, Vec<_>) = (ours.collect(), bystanders.into());
    vec![
        host_trial("law::packets for others pass wherever they are cut off", {
            let others = others.clone();
            move |host| cut_everywhere(&others, 0, |frame| passes(host, frame))
        }),
        kernel_trial("law::packets for others pass in the kernel wherever they are cut off", move |kernel| {
            cut_everywhere(&others, SHORTEST_IN_KERNEL, |frame| passes(kernel, frame))
        }),
        kernel_trial("law::host and kernel agree wherever a packet is cut off", move |kernel| {
            let mut host = Host::new(&WORLD)?;
            cut_everywhere(&ours, SHORTEST_IN_KERNEL, |frame| agree(&mut host, kernel, frame))
        }),
        host_trial("law::random bytes are handled lawfully", |host| {
            check(20_000, &prop::collection::vec(any::<u8>(), 0..200), |frame| lawful(host, frame))
        }),
        host_trial("law::mutated packets are handled lawfully", |host| {
            check(20_000, &mutated(), |frame| lawful(host, frame))
        }),
        kernel_trial("law::host and kernel agree on mutated packets", |kernel| {
            let mut host = Host::new(&WORLD)?;
            let frames = mutated().prop_filter("too short for a test run", |f| f.len() >= SHORTEST_IN_KERNEL);
            check(4_000, &frames, |frame| agree(&mut host, kernel, frame))
        }),
        kernel_trial("law::a damaged table is counted and told", damaged_table),
        spread("law::TCP flows over IPv4 spread alike", tcp("192.0.2.50:80")),
        spread("law::UDP flows over IPv4 spread alike", udp("192.0.2.50:80")),
        spread("law::TCP flows over IPv6 spread alike", tcp("[2001:db8::50]:80")),
        spread("law::UDP flows over IPv6 spread alike", udp("[2001:db8::50]:80")),
    ]
}

/// Every service's backends are moved beyond the end of their table, then back.
fn damaged_table(kernel: &mut Kernel<'static>) -> Result<()> {
    let mut damaged = WORLD.image.clone();
    damaged.services.values_mut().for_each(|service| service.backend_base = u32::MAX / 2);
    apply(kernel.datapath(), &WORLD.image, &damaged)?;
    let seen = kernel.observe(&tcp("192.0.2.50:80").frame());
    apply(kernel.datapath(), &damaged, &WORLD.image)?;
    let seen = seen?;
    let counted = seen.counts.get(&Counter::Reason(ROW, DropReason::Inconsistent.label()));
    ensure!(seen.action == Action::Drop && counted == Some(&1), "{seen}");
    let said = kernel.datapath().take_log();
    let expected = "a table names an entry that does not exist; please report it".to_owned();
    ensure!(said == [(expected, 1)].into(), "the program said {said:?}");
    Ok(())
}

fn cut_everywhere(
    packets: &[Draft],
    shortest: usize,
    mut test: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for packet in packets {
        let frame = packet.clone().frame();
        for length in shortest..=frame.len() {
            test(&frame[..length]).map_err(|error| anyhow!("cut to {length} bytes: {error:#}"))?;
        }
    }
    Ok(())
}

fn passes(side: &mut impl Side, frame: &[u8]) -> Result<()> {
    let seen = side.observe(frame)?;
    ensure!(seen.action == Action::Pass && seen.frame == frame, "{:?}, {:?}", seen.action, seen.counts);
    check_counts(&seen)
}

/// Both sides do the same to a frame, and something lawful.
fn agree(host: &mut Host<'_>, kernel: &mut Kernel<'_>, frame: &[u8]) -> Result<()> {
    let (on_host, in_kernel) = (host.observe(frame)?, kernel.observe(frame)?);
    ensure!(on_host == in_kernel, "they differ\nframe  {}\nhost   {on_host}\nkernel {in_kernel}", hex(frame));
    check_lawful(frame, &in_kernel)
}

fn lawful(host: &mut Host<'_>, frame: &[u8]) -> Result<()> {
    let seen = host.observe(frame)?;
    check_lawful(frame, &seen).map_err(|error| anyhow!("{error:#}\nframe {}", hex(frame)))
}

/// A frame that is not forwarded is unchanged; one that is gets an outer header or none, and is the same behind it. An answer
/// is a frame of its own.
fn check_lawful(frame: &[u8], seen: &Seen) -> Result<()> {
    let answered = seen.counts.keys().any(|counter| matches!(counter, Counter::Answer(..)));
    match seen.action {
        Action::Aborted => return Err(anyhow!("the program aborted")),
        Action::Pass | Action::Drop => ensure!(seen.frame == frame, "the frame was changed"),
        Action::Transmit if answered => {}
        Action::Transmit | Action::Redirect => {
            let outer = seen.frame.len().checked_sub(frame.len());
            ensure!(matches!(outer, Some(0 | 20 | 40)), "the frame is now {} bytes long", seen.frame.len());
            let tags = frame[12..]
                .chunks(4)
                .take(2)
                .take_while(|tag| matches!(tag[..2], [0x81, 0x00] | [0x88, 0xa8]));
            let link = 14 + 4 * tags.count();
            ensure!(seen.frame.ends_with(&frame[link..]), "the IP packet was changed");
        }
    }
    check_counts(seen)
}

/// A packet is counted once: under its reason if it was not forwarded, else under its backend.
fn check_counts(seen: &Seen) -> Result<()> {
    let sum = |of: fn(&Counter) -> bool| -> u64 {
        seen.counts.iter().filter(|(counter, _)| of(counter)).map(|(_, count)| count).sum()
    };
    let reasons = sum(|counter| matches!(counter, Counter::Reason(..) | Counter::Answer(..)));
    let forwarded = sum(|counter| matches!(counter, Counter::Forwarded(_, "packets")));
    let expected = match seen.action {
        Action::Transmit | Action::Redirect if reasons == 0 => (0, 1),
        _ => (1, 0),
    };
    ensure!((reasons, forwarded) == expected, "{:?} was counted as {:?}", seen.action, seen.counts);
    Ok(())
}

/// 1000 flows go to the same backends on both sides, and about as many to each of the five.
fn spread(name: &str, packet: Draft) -> Trial {
    kernel_trial(name, move |kernel| {
        let mut host = Host::new(&WORLD)?;
        let mut shares = std::collections::BTreeMap::<Vec<u8>, usize>::new();
        for port in 20_000..21_000 {
            let frame = packet.clone().source_port(port).frame();
            let (on_host, in_kernel) = (host.run(&frame)?, kernel.run(&frame)?);
            ensure!(
                on_host == in_kernel,
                "port {port}: {on_host:?} on the host, {in_kernel:?} in the kernel"
            );
            *shares.entry(in_kernel.1[..6].to_vec()).or_default() += 1;
        }
        // Five standard deviations of a fair draw around 200.
        let fair = shares.values().all(|share| (137..=263).contains(share));
        ensure!(shares.len() == 5 && fair, "the flows spread as {shares:?}");
        Ok(())
    })
}

/// A stateless fixture's packet (the two sides' clocks differ) with some bytes replaced, then cut or padded.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let frames: Vec<Vec<u8>> = fixtures::stateless().into_iter().map(|fixture| fixture.frame).collect();
    // Where the headers are, changes tell more.
    let offset = prop_oneof![3 => 12usize..60, 1 => 0usize..120];
    let edits = prop::collection::vec((offset, any::<u8>()), 0..4);
    let length = prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (prop::sample::select(frames), edits, length).prop_map(|(mut frame, edits, length)| {
        for (offset, byte) in edits {
            frame.iter_mut().skip(offset).take(1).for_each(|place| *place = byte);
        }
        if let Some(length) = length {
            frame.resize(length.index(frame.len() + 16), 0xaa);
        }
        frame
    })
}

/// Tries `cases` values of `strategy`, the same in every run, and reports the smallest that fails.
fn check(
    cases: u32,
    strategy: &impl Strategy<Value = Vec<u8>>,
    mut test: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let test = std::cell::RefCell::new(&mut test);
    let result = runner.run(strategy, |frame| {
        (test.borrow_mut())(&frame).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    match result {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, frame)) => Err(anyhow!("{reason}\nsmallest frame: {}", hex(&frame))),
        Err(error) => Err(error.into()),
    }
}
