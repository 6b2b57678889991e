//! What holds for more frames than a table can list.

use anyhow::{Result, anyhow, ensure};
use lb_common::decap::Outcome;
use libtest_mimic::Trial;
use proptest::prelude::*;

use super::sides::{Host, Kernel};
use super::unwrapping::inners;
use super::{fixtures, kernel_trial, tunnels, with_tags};
use crate::failed;
use crate::fixtures::counts::Counter;
use crate::fixtures::sides::{Action, SHORTEST_IN_KERNEL, Seen, Side};
use crate::fixtures::{self as balancer, hex};
use crate::lawful::link_length;
use crate::laws::{check, mutations};

/// The longest frame that is mutated: longer ones only take longer.
const SHORT: usize = 256;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        host_trial("cut off anywhere, a tunnel packet is handled lawfully", |host| {
            cut_everywhere(0, |frame| lawful(host, frame))
        }),
        kernel_trial("law::host and kernel agree wherever a tunnel packet is cut off", |kernel| {
            let mut host = Host::default();
            cut_everywhere(SHORTEST_IN_KERNEL, |frame| agree(&mut host, kernel, frame))
        }),
        host_trial("random bytes are handled lawfully", |host| {
            check(20_000, &prop::collection::vec(any::<u8>(), 0..200), |frame| lawful(host, frame))
        }),
        host_trial("mutated packets are handled lawfully", |host| {
            check(20_000, &mutated(0), |frame| lawful(host, frame))
        }),
        kernel_trial("law::host and kernel agree on mutated packets", |kernel| {
            let mut host = Host::default();
            check(4_000, &mutated(SHORTEST_IN_KERNEL), |frame| agree(&mut host, kernel, frame))
        }),
        host_trial("what clients send to the balancer is left alone", |host| {
            let frames = balancer::all().into_iter().map(|fixture| fixture.frame);
            frames.into_iter().try_for_each(|frame| passes(host, &frame))
        }),
    ]
}

fn host_trial(name: &str, test: impl FnOnce(&mut Host) -> Result<()> + Send + 'static) -> Trial {
    Trial::test(format!("decap::law::{name}"), move || test(&mut Host::default()).map_err(failed))
}

fn cut_everywhere(shortest: usize, mut test: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    for (tunnel, way, wrap) in tunnels() {
        for (name, inner) in inners() {
            let tagged = with_tags(wrap(way, inner).frame(), &[super::unwrapping::CUSTOMER]);
            for length in shortest..=tagged.len() {
                let cut = test(&tagged[..length]);
                cut.map_err(|error| anyhow!("{name} in {tunnel} cut to {length} bytes: {error:#}"))?;
            }
        }
    }
    Ok(())
}

fn mutated(shortest: usize) -> impl Strategy<Value = Vec<u8>> {
    let frames = fixtures().into_iter().map(|fixture| fixture.frame).filter(|frame| frame.len() < SHORT);
    mutations(frames.collect()).prop_filter("too short for a test run", move |frame| frame.len() >= shortest)
}

fn agree(host: &mut Host, kernel: &mut Kernel, frame: &[u8]) -> Result<()> {
    let (on_host, in_kernel) = (host.observe(frame)?, kernel.observe(frame)?);
    ensure!(on_host == in_kernel, "they differ\nframe  {}\nhost   {on_host}\nkernel {in_kernel}", hex(frame));
    check_lawful(frame, &in_kernel)
}

pub(super) fn lawful(host: &mut Host, frame: &[u8]) -> Result<()> {
    let seen = host.observe(frame)?;
    check_lawful(frame, &seen).map_err(|error| anyhow!("{error:#}\nframe {}", hex(frame)))
}

fn passes(host: &mut Host, frame: &[u8]) -> Result<()> {
    let seen = host.observe(frame)?;
    ensure!(seen.action == Action::Pass && seen.frame == frame, "{seen}\nframe {}", hex(frame));
    Ok(())
}

/// Each frame is counted once, under what became of it, and is unchanged unless it was unwrapped: then it is one of the same MAC
/// addresses that holds a part of the frame, but for the class of the inner packet and the checksum that covers it.
fn check_lawful(frame: &[u8], seen: &Seen) -> Result<()> {
    let [(Counter::Reason(_, label), 1)] =
        &seen.counts.iter().map(|(c, n)| (c.clone(), *n)).collect::<Vec<_>>()[..]
    else {
        return Err(anyhow!("counted as {:?}", seen.counts));
    };
    let outcome = Outcome::all().find(|outcome| outcome.label() == *label);
    let Some(Outcome::Unwrapped(_)) = outcome else {
        let dropped = matches!(outcome, Some(Outcome::Drop(_)));
        let expected = if dropped { Action::Drop } else { Action::Pass };
        ensure!(seen.action == expected && seen.frame == frame, "{label}, but {seen}");
        return Ok(());
    };
    ensure!(seen.action == Action::Pass && seen.frame[..12] == frame[..12], "{seen}");
    ensure!(seen.frame.len() + 20 <= frame.len(), "less than an IP header was taken off: {seen}");
    // Behind the class and the checksum of an IPv4 header, which both families have in the first twelve bytes.
    let rest = &seen.frame[link_length(frame) + 12..];
    ensure!(frame.windows(rest.len()).any(|window| window == rest), "the inner packet was changed: {seen}");
    Ok(())
}
