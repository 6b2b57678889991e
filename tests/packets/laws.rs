//! What holds for more packets than a table can list.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use lb_common::verdict::{AnswerReason, DropReason, Verdict};
use lb_userspace::datapath::{Datapath as _, Image, apply};
use libtest_mimic::Trial;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::differential::LEFT_BEHIND;
use crate::fixtures::counts::{Counter, ROW};
use crate::fixtures::frames::{Draft, tcp, udp};
use crate::fixtures::sides::{Action, Host, Kernel, SHORTEST_IN_KERNEL, Side};
use crate::fixtures::{self, hex};
use crate::lawful::{check_checksums, check_counts, check_lawful};
use crate::{WORLD, host_trial, kernel_trial};

/// The laws, each a trial.
pub(crate) fn all() -> Vec<Trial> {
    [of_bystanders(), of_cuts(), of_mutations(), of_checksums(), of_tables(), of_flows()]
        .into_iter()
        .flatten()
        .collect()
}

fn of_bystanders() -> Vec<Trial> {
    let bystanders = || frames([tcp("192.0.2.11:80"), udp("[2001:db8::11]:53")]);
    let in_kernel = move |kernel: &mut Kernel<'static>| {
        cut_everywhere(&bystanders(), SHORTEST_IN_KERNEL, |frame| passes(kernel, frame))
    };
    let plain = |tables: &mut Image| tables.features.clear();
    vec![
        host_trial("law::packets for others pass wherever they are cut off", move |host| {
            cut_everywhere(&bystanders(), 0, |frame| passes(host, frame))
        }),
        kernel_trial("law::packets for others pass in the kernel wherever they are cut off", in_kernel),
        kernel_trial("law::so they do while nothing is announced or translated", move |kernel| {
            with_tables(kernel, plain, in_kernel)
        }),
    ]
}

fn of_cuts() -> Vec<Trial> {
    vec![
        host_trial("law::every fixture's packet is handled lawfully wherever it is cut off", |host| {
            let short = fixtures::all().into_iter().map(|fixture| fixture.frame).filter(|f| f.len() <= 150);
            cut_everywhere(&short.collect::<Vec<_>>(), 0, |frame| lawful(host, frame))
        }),
        kernel_trial("law::host and kernel agree wherever a packet is cut off", |kernel| {
            let mut host = Host::new(&WORLD)?;
            cut_everywhere(&of_each_kind(), SHORTEST_IN_KERNEL, |frame| agree(&mut host, kernel, frame))
        }),
    ]
}

fn of_mutations() -> Vec<Trial> {
    let long = |fixtures| {
        mutated(fixtures).prop_filter("too short for a test run", |frame| frame.len() >= SHORTEST_IN_KERNEL)
    };
    vec![
        host_trial("law::random bytes are handled lawfully", |host| {
            check(20_000, &prop::collection::vec(any::<u8>(), 0..200), |frame| lawful(host, frame))
        }),
        host_trial("law::mutated packets are handled lawfully", |host| {
            check(20_000, &mutated(fixtures::stateless()), |frame| lawful(host, frame))
        }),
        host_trial("law::mutated packets that are answered are handled lawfully", |host| {
            check(5_000, &mutated(fixtures::answered()), |frame| lawful(host, frame))
        }),
        kernel_trial("law::host and kernel agree on mutated packets", move |kernel| {
            let mut host = Host::new(&WORLD)?;
            check(4_000, &long(fixtures::stateless()), |frame| agree(&mut host, kernel, frame))
        }),
        kernel_trial("law::host and kernel agree on mutated packets that are answered", move |kernel| {
            let mut host = Host::new(&WORLD)?;
            // No more than one source may ask for at once, less those that fixtures ask for.
            check(50, &long(fixtures::answered()), |frame| agree(&mut host, kernel, frame))
        }),
    ]
}

fn of_checksums() -> Vec<Trial> {
    vec![
        host_trial("law::every checksum is right that was right", |host| {
            check(2_000, &forwarded(), |frame| keeps_checksums(host, frame))
        }),
        kernel_trial("law::every checksum is right in the kernel that was right", |kernel| {
            check(1_000, &forwarded(), |frame| keeps_checksums(kernel, frame))
        }),
    ]
}

fn of_tables() -> Vec<Trial> {
    vec![
        kernel_trial("law::an interface without a MAC address answers nobody", nameless),
        kernel_trial("law::answers are limited in the kernel", limited_answers),
        kernel_trial("law::a damaged table is counted and told", damaged_table),
        host_trial("law::of forgotten packets nothing is left behind", forgotten),
    ]
}

fn of_flows() -> Vec<Trial> {
    vec![
        spread("law::TCP flows over IPv4 spread alike", tcp("192.0.2.50:80")),
        spread("law::UDP flows over IPv4 spread alike", udp("192.0.2.50:80")),
        spread("law::TCP flows over IPv6 spread alike", tcp("[2001:db8::50]:80")),
        spread("law::UDP flows over IPv6 spread alike", udp("[2001:db8::50]:80")),
    ]
}

fn forgotten(host: &mut Host<'_>) -> Result<()> {
    let left = |host: &Host<'_>| {
        let words = LEFT_BEHIND.map(|table| host.tables.left_behind(table)).concat();
        words.iter().filter(|word| word.get() != 0).count()
    };
    for fixture in fixtures::all() {
        host.run(&fixture.frame)?;
    }
    ensure!(left(host) > 0 && !host.counts_since(&[])?.is_empty(), "the fixtures leave nothing behind");
    host.tables.forget_packets();
    let (counts, words) = (host.counts_since(&[])?, left(host));
    ensure!(counts.is_empty() && words == 0, "{words} words and {counts:?}");
    let other = (host.tables.flow_counts()?, host.tables.sample_counts()?, host.tables.take_over_samples());
    ensure!(other == Default::default(), "{other:?}");
    Ok(())
}

/// Of 1000 packets alike, 100 are answered, and 100 more in each second that it takes.
fn limited_answers(kernel: &mut Kernel<'static>) -> Result<()> {
    // From sources that no fixture asks from in the kernel.
    let limited =
        ["who asks by ARP too often", "who solicits too often", "just before the sender is told again"];
    for frame in frames_of(&limited) {
        let start = Instant::now();
        let mut answered = 0;
        for _ in 0..1000 {
            answered += u32::from(kernel.run(&frame)?.0 == Action::Transmit);
        }
        let most = 101.0 + 100.0 * start.elapsed().as_secs_f64();
        ensure!(
            answered >= 100 && f64::from(answered) <= most,
            "{answered} answers, {most} at most: {}",
            hex(&frame)
        );
    }
    Ok(())
}

/// Every service's backends are moved beyond the end of their table, then back.
fn damaged_table(kernel: &mut Kernel<'static>) -> Result<()> {
    let damage = |tables: &mut Image| {
        tables.services.values_mut().for_each(|service| service.backend_base = u32::MAX / 2);
    };
    let seen = with_tables(kernel, damage, |kernel| kernel.observe(&tcp("192.0.2.50:80").frame()))?;
    let counted = seen.counts.get(&Counter::Reason(ROW, DropReason::Inconsistent.label()));
    ensure!(seen.action == Action::Drop && counted == Some(&1), "{seen}");
    let said = kernel.datapath().take_log();
    let expected = "a table names an entry that does not exist; please report it".to_owned();
    ensure!(said == [(expected, 1)].into(), "the program said {said:?}");
    Ok(())
}

/// Runs a test on changed tables, and changes them back.
fn with_tables<T>(
    kernel: &mut Kernel<'static>,
    change: impl FnOnce(&mut Image),
    test: impl FnOnce(&mut Kernel<'static>) -> Result<T>,
) -> Result<T> {
    let mut changed = WORLD.image.clone();
    change(&mut changed);
    apply(kernel.datapath(), &WORLD.image, &changed)?;
    let result = test(kernel);
    apply(kernel.datapath(), &changed, &WORLD.image)?;
    result
}

/// Who asks on an interface whose MAC address is not known, which the daemon has not told yet, is the stack's.
fn nameless(kernel: &mut Kernel<'static>) -> Result<()> {
    let asks = fixtures::answered().into_iter().filter(|fixture| {
        matches!(fixture.verdict, Verdict::Answer(AnswerReason::Arp | AnswerReason::Neighbor))
    });
    with_tables(
        kernel,
        |tables| tables.interfaces.clear(),
        |kernel| asks.map(|fixture| fixture.frame).try_for_each(|frame| passes(kernel, &frame)),
    )
}

fn frames(drafts: impl IntoIterator<Item = Draft>) -> Vec<Vec<u8>> {
    drafts.into_iter().map(Draft::frame).collect()
}

/// The frames of a fixture of each kind, by a part of its sentence.
fn of_each_kind() -> Vec<Vec<u8>> {
    let kinds = [
        "one port of a VIP with several",
        "802.1ad and 802.1Q tags are kept",
        "TCP over IPv4 in IPv4",
        "UDP over IPv6 in IPv6",
        "GUE: TCP over IPv6 in IPv4",
        "GUE over IPv6: IPv4 options",
        "nat: TCP over IPv4 to another port",
        "nat: UDP over IPv6 to the same port",
        "nat: a TCP reply over IPv4",
        "nat: a UDP reply over IPv6",
        "nat4-udp: an error with 1000 quoted bytes",
        "nat6: an error with 48 quoted bytes",
        "a quoted IPv6 packet with destination options",
        "a quoted header of 15 words and eight bytes",
        "an error through gue-4in6-udp",
        "every kind of extension header in a chain",
        "the first fragment of an echo request is not answered",
        "a QUIC Initial of version 2 opens a flow",
        "an echo request with destination options",
        "an ARP request in two VLANs",
        "a neighbour solicitation with a nonce",
    ];
    frames_of(&kinds)
}

/// The frames of the first fixtures whose sentences begin like that.
fn frames_of(kinds: &[&str]) -> Vec<Vec<u8>> {
    let fixtures = fixtures::all();
    let of_kind = |kind: &&str| {
        let found = fixtures.iter().find(|fixture| fixture.sentence.starts_with(kind));
        found.unwrap_or_else(|| panic!("no fixture begins with {kind:?}")).frame.clone()
    };
    kinds.iter().map(of_kind).collect()
}

/// Packets with right checksums for services of every mode, some of them padded.
fn forwarded() -> impl Strategy<Value = Vec<u8>> {
    let vips = [
        "192.0.2.10:80",
        "[2001:db8::10]:53",
        "192.0.2.30:80",
        "192.0.2.30:54",
        "[2001:db8::30]:80",
        "[2001:db8::30]:54",
        "192.0.2.60:80",
        "192.0.2.60:81",
        "192.0.2.60:53",
        "192.0.2.60:54",
        "[2001:db8::60]:80",
        "[2001:db8::60]:81",
        "[2001:db8::60]:53",
        "[2001:db8::60]:54",
        "192.0.2.61:80",
        "192.0.2.61:53",
        "[2001:db8::61]:80",
        "[2001:db8::61]:81",
        "192.0.2.70:80",
        "192.0.2.70:81",
        "192.0.2.70:53",
        "192.0.2.70:54",
        "[2001:db8::70]:80",
        "[2001:db8::70]:81",
        "[2001:db8::70]:53",
        "[2001:db8::70]:54",
        "192.0.2.71:999",
        "192.0.2.90:54",
        "192.0.2.90:82",
    ];
    // Ports 53 and 54 are those of UDP.
    let make =
        |vip: &str| if [":53", ":54"].iter().any(|port| vip.ends_with(port)) { udp(vip) } else { tcp(vip) };
    let payload = (0..300usize, any::<u8>()).prop_map(|(length, factor)| {
        (0..length).map(|at| (at as u8).wrapping_mul(factor)).collect::<Vec<_>>()
    });
    let shape = (any::<u16>(), any::<[u8; 2]>(), any::<u8>(), 0..20usize);
    (prop::sample::select(vips.to_vec()), payload, shape).prop_map(move |(vip, payload, shape)| {
        let (port, [third, fourth], tos, padding) = shape;
        let source = if vip.starts_with('[') {
            format!("2001:db8:{third:x}:{fourth:x}::1")
        } else {
            format!("198.51.{third}.{fourth}")
        };
        let draft = make(vip).payload(&payload).source_port(port).from(&source);
        let draft = draft.ipv6(|ip, _| ip.traffic_class = tos).ipv4(|ip| {
            ip.ecn = (tos & 3).try_into().expect("two bits");
            (ip.dont_fragment, ip.identification) = (tos & 4 != 0, port);
        });
        let mut frame = draft.frame();
        frame.resize(frame.len() + padding, 0xee);
        frame
    })
}

fn keeps_checksums(side: &mut impl Side, frame: &[u8]) -> Result<()> {
    check_checksums(frame).context("before")?;
    let (action, output) = side.run(frame)?;
    ensure!(action == Action::Transmit, "{action:?}");
    check_checksums(&output).with_context(|| format!("in {}", hex(&output)))
}

fn cut_everywhere(
    frames: &[Vec<u8>],
    shortest: usize,
    mut test: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    for frame in frames {
        for length in shortest..=frame.len() {
            test(&frame[..length])
                .map_err(|error| anyhow!("cut to {length} bytes: {error:#}\nwhole {}", hex(frame)))?;
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
    host.tables.set_now(kernel.datapath().clock());
    let (on_host, in_kernel) = (host.observe(frame)?, kernel.observe(frame)?);
    ensure!(on_host == in_kernel, "they differ\nframe  {}\nhost   {on_host}\nkernel {in_kernel}", hex(frame));
    check_lawful(frame, &in_kernel)
}

fn lawful(host: &mut Host<'_>, frame: &[u8]) -> Result<()> {
    let seen = host.observe(frame)?;
    check_lawful(frame, &seen).map_err(|error| anyhow!("{error:#}\nframe {}", hex(frame)))
}

/// 1000 flows go to the same backends on both sides, and about as many to each of the five.
fn spread(name: &str, packet: Draft) -> Trial {
    kernel_trial(name, move |kernel| {
        let mut host = Host::new(&WORLD)?;
        let mut shares = BTreeMap::<Vec<u8>, usize>::new();
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

/// Of fixtures that do not depend on others: the two sides' clocks differ.
fn mutated(fixtures: Vec<fixtures::Fixture>) -> impl Strategy<Value = Vec<u8>> {
    mutations(fixtures.into_iter().map(|fixture| fixture.frame).collect())
}

/// One of the frames with some bytes replaced, then cut or padded.
pub(crate) fn mutations(frames: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
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
pub(crate) fn check(
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
