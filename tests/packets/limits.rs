//! What holds for limiters whatever they are asked: on random limiters and packets, while they change, and with two CPUs at
//! one bucket.

use std::collections::HashMap;
use std::iter::{repeat, repeat_n};
use std::net::{IpAddr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use lb_common::layout::LimiterCounts;
use lb_userspace::datapath::{Datapath, apply};
use lb_userspace::model::{Action, Limit, LimiterKey, Policy, Scope, Services, Shape, Unit};
use lb_userspace::suggestion::{Tally, propose};
use libtest_mimic::Trial;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::fixtures::frames::{Draft, syn, tcp};
use crate::fixtures::limits::ecn;
use crate::fixtures::sides::{self, Host, Kernel, Side};
use crate::fixtures::world::{World, limit, limited};
use crate::{WORLD, host_trial, kernel_trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        host_trial("law::limits rule as each of them alone would, the strictest last", |_| strictest_rules()),
        host_trial("law::limits that change leave buckets as full as they were", |_| changes_reset_nothing()),
        host_trial("law::limits mint nothing when time jumps or runs backwards", time_is_no_mint),
        kernel_trial("law::limits hold one source to its rate on one CPU", |kernel| {
            held_to_rate(kernel, "198.51.100.91", &[0])
        }),
        kernel_trial("law::limits hold one source to its rate on two CPUs", |kernel| {
            held_to_rate(kernel, "198.51.100.92", &[0, 1])
        }),
        kernel_trial("law::limits are suggested from what sources sent in real seconds", suggested),
    ]
}

/// A packet, and how long after the one before it comes.
#[derive(Clone, Debug)]
struct Arrival {
    gap: Duration,
    source: usize,
    opens: bool,
    ecn: u8,
    length: usize,
}

fn policy() -> impl Strategy<Value = Policy> {
    let scope = prop_oneof![
        Just(Scope::Source),
        Just(Scope::Service),
        (20u8..=32, 40u8..=128).prop_map(|(v4, v6)| Scope::Prefix { v4, v6 }),
    ];
    let unit = prop::sample::select(vec![Unit::Packets, Unit::Bits, Unit::NewConnections]);
    let action = prop::sample::select(vec![Action::Drop, Action::Mark, Action::Shadow]);
    let shape = prop_oneof![
        3 => (1u64..6).prop_map(|burst| Shape::Bucket { burst, leaks: false }),
        1 => (any::<bool>(), 100u64..2000)
            .prop_map(|(slides, length)| Shape::Window { slides, length: Duration::from_millis(length) }),
    ];
    (unit, 10u64..50, scope, shape, action).prop_map(|(unit, rate, scope, shape, action)| {
        let size = if unit == Unit::Bits { 8 * 1514 } else { 1 };
        let shape = match shape {
            Shape::Bucket { burst, leaks } => Shape::Bucket { burst: burst * size, leaks },
            Shape::Window { .. } => shape,
        };
        Policy { unit, rate: rate * size, scope, shape, action }
    })
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0u64..150, 0usize..6, any::<bool>(), 0u8..4, 60usize..1500);
    let arrival = arrival.prop_map(|(gap, source, opens, ecn, length)| Arrival {
        gap: Duration::from_millis(gap),
        source,
        opens,
        ecn,
        length,
    });
    prop::collection::vec(arrival, 1..60)
}

/// Addresses that prefixes of many lengths tell apart.
const SOURCES4: [&str; 6] =
    ["198.51.96.1", "198.51.96.2", "198.51.97.1", "198.51.100.1", "198.51.112.1", "198.52.96.1"];
const SOURCES6: [&str; 6] = [
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:1:0:1::1",
    "2001:db8:1:1::1",
    "2001:db8:1:100::1",
    "2001:db8:2::1",
];

fn run<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(&S::Value) -> Result<()>) -> Result<()> {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result =
        runner.run(strategy, |value| test(&value).map_err(|error| TestCaseError::fail(format!("{error:#}"))));
    result.map_err(|error| anyhow!("{error}"))
}

fn strictest_rules() -> Result<()> {
    let policies = prop::collection::vec(policy(), 1..5);
    run(300, &(policies, any::<bool>(), arrivals()), |(policies, is_ipv6, arrivals)| {
        let named = policies.iter().enumerate().map(|(n, policy)| Limit::try_new(format!("n{n}"), *policy));
        // Some windows admit nothing: no limiter.
        let limits: Vec<Limit> = named.flatten().collect();
        let (vip, sources) =
            if *is_ipv6 { ("[2001:db8:ffff::99]:80", SOURCES6) } else { ("203.0.113.99:80", SOURCES4) };
        let services = limited(vip, limits.clone())?;
        let world = World::of(&services)?;
        let mut host = Host::new(&world)?;
        let mut model = Model::default();
        let mut now = 1_000_000_000_000;
        for arrival in arrivals {
            now += arrival.gap.as_nanos() as u64;
            host.tables.set_now(now);
            let source = sources[arrival.source];
            let packet = if arrival.opens { syn(vip) } else { tcp(vip) };
            let packet = ecn(packet.from(source).of_length(arrival.length), arrival.ecn);
            let (action, frame) = host.run(&packet.clone().frame())?;
            let ruling = model.ask(&limits, source.parse()?, arrival, now);
            let expected = match ruling {
                Action::Drop => None,
                Action::Mark => Some(ecn(packet, 0b11)),
                Action::Shadow => Some(packet),
            };
            let passed = expected.map(Draft::frame);
            ensure!(passed.is_some() == (action == sides::Action::Transmit), "{arrival:?}: {action:?}");
            ensure!(passed.is_none_or(|passed| passed[12..] == frame[12..]), "{arrival:?}: not as expected");
        }
        Ok(())
    })
}

/// Every source of every limiter by itself, without sets, tags and masks.
#[derive(Default)]
struct Model(HashMap<(usize, u128), u64>);

impl Model {
    /// What is to be done: [`Action::Shadow`] stands for nothing.
    fn ask(&mut self, limits: &[Limit], source: IpAddr, arrival: &Arrival, now: u64) -> Action {
        let mut strictest = Action::Shadow;
        for (number, limit) in limits.iter().enumerate() {
            let policy = limit.policy();
            let units = match policy.unit {
                Unit::NewConnections if !arrival.opens => continue,
                Unit::Bits => arrival.length as u64 + 14,
                _ => 1,
            };
            let word = self.0.entry((number, prefix(policy.scope, source)));
            let word = word.or_insert_with(|| limit.rule().idle_state(now));
            match (limit.rule().admit(*word, now, units), policy.action) {
                (Some(next), _) => *word = next,
                (None, Action::Drop) => strictest = Action::Drop,
                (None, Action::Mark) if arrival.ecn != 0 && strictest != Action::Drop => {
                    strictest = Action::Mark;
                }
                (None, _) => {}
            }
        }
        strictest
    }
}

/// The part of an address that a scope counts together, as a number.
fn prefix(scope: Scope, source: IpAddr) -> u128 {
    let (number, width, length): (u128, u8, u8) = match (source, scope) {
        (IpAddr::V4(v4), Scope::Prefix { v4: length, .. }) => (u32::from(v4).into(), 32, length),
        (IpAddr::V4(v4), Scope::Source) => (u32::from(v4).into(), 32, 32),
        (IpAddr::V6(v6), Scope::Prefix { v6: length, .. }) => (bits(v6), 128, length),
        (IpAddr::V6(v6), Scope::Source) => (bits(v6), 128, 64),
        (_, Scope::Service) => return 0,
    };
    number >> (width - length)
}

fn bits(address: Ipv6Addr) -> u128 {
    u128::from_be_bytes(address.octets())
}

fn changes_reset_nothing() -> Result<()> {
    let vip = "203.0.113.99:80";
    let services = |keys: &str| -> Result<Services> {
        limited(vip, vec![limit(&format!("name=a scope=source action=drop {keys}"))?])
    };
    let first = World::of(&services("packets=1/s burst=3")?)?;
    let mut host = Host::new(&first)?;
    host.tables.set_now(1_000_000_000_000);
    let frame = tcp(vip).frame();
    let admitted = |host: &mut Host<'_>| -> Result<usize> {
        let mut count = 0;
        while host.run(&frame)?.0 == sides::Action::Transmit {
            count += 1;
        }
        Ok(count)
    };
    ensure!(admitted(&mut host)? == 3, "the burst is 3");
    // What a larger burst adds may be sent at once, and nothing else; a smaller one takes away what is too much. What is owed
    // are seconds: five of them, of sixty that the third rule allows.
    let mut world = first.clone();
    for (keys, expected) in [
        ("packets=1/s burst=5", 2),
        ("packets=1/s burst=2", 0),
        ("packets=100/s burst=6000", 5500),
        ("packets=1/s burst=5", 0),
    ] {
        let next = world.followed_by(&services(keys)?)?;
        apply(&mut host.tables, &world.image, &next.image)?;
        world = next;
        let count = admitted(&mut host)?;
        ensure!(count == expected, "{keys}: {count} admitted at once");
    }
    Ok(())
}

fn time_is_no_mint(host: &mut Host<'_>) -> Result<()> {
    let frame = tcp("203.0.113.40:80").from("198.51.100.95").frame();
    let mut send = |seconds: u64| -> Result<bool> {
        host.tables.set_now(seconds * 1_000_000_000);
        Ok(host.run(&frame)?.0 == sides::Action::Transmit)
    };
    let burst = (0..4).map(|_| send(5_000)).collect::<Result<Vec<_>>>()?;
    ensure!(burst == [true, true, true, false], "{burst:?}");
    // Back by up to the horizon: the bucket is as empty as before.
    for back in [4_999, 4_990, 4_940] {
        ensure!(!send(back)?, "a step back to {back} s minted something");
    }
    // However far forward: one burst, no more.
    for forward in [6_000, 1_000_000, 281_474 + 5_000] {
        let burst = (0..4).map(|_| send(forward)).collect::<Result<Vec<_>>>()?;
        ensure!(burst == [true, true, true, false], "at {forward} s: {burst:?}");
    }
    Ok(())
}

/// How much of sources sends how much in its busiest second. The rest sends one packet.
const BUSY: [(usize, u32); 3] = [(2, 150), (8, 20), (20, 5)];
const SOURCES: usize = 60;

/// Each source sends as much at once as it ever sends in a second, twice: one of these moments is within a second.
fn suggested(kernel: &mut Kernel<'static>) -> Result<()> {
    let key = LimiterKey { service: Some("measured4".to_owned()), name: "probe".to_owned() };
    let (_, meter) = WORLD.placement.meters().find(|(of, _)| **of == key).context("there is no meter")?;
    kernel.datapath().clear_meter(meter)?;
    let busy = BUSY.into_iter().flat_map(|(count, packets)| repeat_n(packets, count));
    let packets: Vec<u32> = busy.chain(repeat(1)).take(SOURCES).collect();
    for round in 0..2 {
        if round > 0 {
            // Seconds have to pass, and nothing else happens meanwhile.
            thread::sleep(Duration::from_millis(1_100));
        }
        let program: &Xdp = kernel.datapath().program()?;
        for (last, repeat) in packets.iter().enumerate() {
            let frame = tcp("203.0.113.52:80").from(&format!("198.51.101.{last}")).frame();
            let options =
                TestRunOptions { data_in: Some(&frame), repeat: *repeat, ..TestRunOptions::default() };
            program.test_run(options).context("test run")?;
        }
    }
    let tally = Tally::of(&kernel.datapath().meter(meter)?);
    ensure!(tally.sources() == SOURCES as u64, "{} sources", tally.sources());
    let limit = limit("name=probe scope=source packets=1M/s burst=1000000 action=shadow")?;
    // The quantile, the end of the level of the busiest that it leaves alone, in two digits, and how many are above.
    for (quantile, rate, hits) in [("50", 1, 30), ("60", 5, 10), ("95", 23, 2), ("99.9", 160, 0)] {
        let proposal = propose(&limit, &tally, quantile.parse()?).context("no proposal")?;
        let proposed = (proposal.limit.policy().rate, proposal.hits);
        ensure!(proposed == (rate, hits), "{quantile} %: {proposed:?}, {rate} and {hits} expected");
    }
    let contended = kernel.datapath().limiter_counts(meter)?.contended;
    ensure!(contended == 0, "{contended} packets found no room");
    Ok(())
}

const RATE: u64 = 100_000;
/// Half a second's worth: as long as a busy host may keep both CPUs from sending.
const CROWD_BURST: u64 = 50_000;
const LENGTH: Duration = Duration::from_secs(10);

/// Ten times the rate from all CPUs together, for ten seconds.
fn held_to_rate(kernel: &mut Kernel<'static>, source: &str, cpus: &[usize]) -> Result<()> {
    let frame = tcp("203.0.113.51:80").from(source).frame();
    let key = LimiterKey { service: Some("crowd4".to_owned()), name: "crowd".to_owned() };
    let row = WORLD.placement.limiter(&key).context("the limiter has no place")?;
    let before = kernel.datapath().limiter_counts(row)?;
    let program: &Xdp = kernel.datapath().program()?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let hammers: Vec<_> = cpus
            .iter()
            .map(|cpu| scope.spawn(|| hammer(program, &frame, *cpu, 10 * RATE / cpus.len() as u64, begun)))
            .collect();
        hammers.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    let took = begun.elapsed();
    let LimiterCounts { admitted, over, contended, .. } = kernel.datapath().limiter_counts(row)?;
    let (passed, over) = (admitted + contended - before.admitted - before.contended, over - before.over);
    let allowed = RATE * took.as_millis() as u64 / 1000 + CROWD_BURST;
    let offered = passed + over;
    ensure!(offered > 5 * allowed, "only {offered} were offered, {allowed} allowed");
    ensure!(passed.abs_diff(allowed) * 100 <= allowed, "{passed} of {offered} passed, {allowed} allowed");
    Ok(())
}

fn hammer(program: &Xdp, frame: &[u8], cpu: usize, rate: u64, begun: Instant) -> Result<()> {
    let mut here = CpuSet::new();
    here.set(cpu);
    sched_setaffinity(None, &here).with_context(|| format!("there is no CPU {cpu}"))?;
    let mut sent = 0;
    while begun.elapsed() < LENGTH {
        let due = rate * begun.elapsed().as_micros() as u64 / 1_000_000;
        // Delivery on the link is the same again: the frame need not be restored.
        let repeat = u32::try_from(due - sent)?.min(50_000);
        if repeat > 0 {
            program.test_run(TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() })?;
            sent += u64::from(repeat);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
