//! The other end of tunnels: fixtures for `lb_common::decap` on the host and for the program of `lb decap` in the kernel.
//!
//! As for the balancer's fixtures: a sentence, a frame, and what must come out, to the byte. Both the tunnel packets and what
//! is expected of them are written by `etherparse`.

mod laws;
mod marks;
mod passes;
mod refusals;
mod sides;
mod unwrapping;

use std::sync::{LazyLock, Mutex};

use anyhow::{Result, ensure};
use etherparse::IpNumber;
use lb_common::decap::{DecapDrop, DecapPass, Outcome, Unwrapped};
use libtest_mimic::Trial;

use self::sides::{Host, Kernel};
use crate::fixtures::counts::{Counter, Counts, ROW};
use crate::fixtures::frames::{Draft, IP, other, udp};
use crate::fixtures::hex;
use crate::fixtures::sides::{Action, SHORTEST_IN_KERNEL, Seen, Side};
use crate::{HOST_PASSED, KERNEL_PASSED, failed, passed, play, root_trial};

/// One loaded program for all trials, one at a time: its counters are watched.
static KERNEL: LazyLock<Mutex<Result<Kernel>>> = LazyLock::new(|| Mutex::new(Kernel::load()));

/// All trials of the decapsulator.
pub(crate) fn trials() -> Vec<Trial> {
    let fixtures = fixtures();
    let mut trials: Vec<Trial> = fixtures.iter().cloned().map(on_host).collect();
    trials.extend(fixtures.into_iter().filter(|one| one.frame.len() >= SHORTEST_IN_KERNEL).map(in_kernel));
    trials.extend(laws::trials());
    trials
}

/// Frames that fixtures are about.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    fixtures().into_iter().map(|fixture| fixture.frame).collect()
}

/// Frames through one decapsulator: each is handled lawfully.
pub(crate) fn check<'f>(frames: impl IntoIterator<Item = &'f [u8]>) -> Result<()> {
    let mut host = Host::default();
    frames.into_iter().try_for_each(|frame| laws::lawful(&mut host, frame))
}

fn fixtures() -> Vec<Fixture> {
    let parts = [unwrapping::fixtures(), marks::fixtures(), passes::fixtures(), refusals::fixtures()];
    parts.into_iter().flatten().collect()
}

fn on_host(fixture: Fixture) -> Trial {
    Trial::test(format!("decap::host::{}", fixture.sentence), move || {
        fixture.check_host().map_err(failed)?;
        passed(&HOST_PASSED);
        Ok(())
    })
}

fn in_kernel(fixture: Fixture) -> Trial {
    kernel_trial(&format!("kernel::{}", fixture.sentence), move |kernel| {
        fixture.compare(&kernel.observe(&fixture.frame)?)?;
        passed(&KERNEL_PASSED);
        Ok(())
    })
}

fn kernel_trial(name: &str, test: impl FnOnce(&mut Kernel) -> Result<()> + Send + 'static) -> Trial {
    root_trial(format!("decap::{name}"), || play(&KERNEL, test))
}

/// A frame and what is to become of it.
#[derive(Clone, Debug)]
struct Fixture {
    sentence: String,
    frame: Vec<u8>,
    outcome: Outcome,
    output: Vec<u8>,
}

impl Fixture {
    fn check_host(&self) -> Result<()> {
        let mut host = Host::default();
        let seen = host.observe(&self.frame)?;
        ensure!(host.outcome == Some(self.outcome), "expected {:?}, got {:?}", self.outcome, host.outcome);
        self.compare(&seen)
    }

    fn compare(&self, seen: &Seen) -> Result<()> {
        let expected = Seen {
            action: if matches!(self.outcome, Outcome::Drop(_)) { Action::Drop } else { Action::Pass },
            frame: self.output.clone(),
            counts: Counts::from([(Counter::Reason(ROW, self.outcome.label()), 1)]),
        };
        ensure!(*seen == expected, "expected {expected}\n     got {seen}\n    from {}", hex(&self.frame));
        Ok(())
    }
}

/// The first half of a fixture.
struct Given {
    sentence: String,
    frame: Vec<u8>,
    tags: Vec<[u8; 4]>,
}

fn given(sentence: impl Into<String>, frame: impl Into<Vec<u8>>) -> Given {
    Given { sentence: sentence.into(), frame: frame.into(), tags: Vec::new() }
}

impl Given {
    /// With VLAN tags.
    fn tagged(self, tags: &[[u8; 4]]) -> Self {
        Self { frame: with_tags(self.frame, tags), tags: tags.to_vec(), ..self }
    }

    /// With bytes behind the outer packet.
    fn padded(mut self, padding: usize) -> Self {
        self.frame.resize(self.frame.len() + padding, 0xee);
        self
    }

    /// What goes up the stack is `inner`, in a frame of the same MAC addresses and tags.
    fn unwraps(self, unwrapped: Unwrapped, inner: impl Into<Vec<u8>>) -> Fixture {
        let Self { sentence, frame, tags } = self;
        Fixture {
            sentence,
            frame,
            outcome: Outcome::Unwrapped(unwrapped),
            output: with_tags(inner.into(), &tags),
        }
    }

    fn passes(self, reason: DecapPass) -> Fixture {
        self.unchanged(reason.into())
    }

    fn drops(self, reason: DecapDrop) -> Fixture {
        self.unchanged(reason.into())
    }

    fn unchanged(self, outcome: Outcome) -> Fixture {
        let Self { sentence, frame, .. } = self;
        Fixture { sentence, output: frame.clone(), frame, outcome }
    }
}

fn with_tags(mut frame: Vec<u8>, tags: &[[u8; 4]]) -> Vec<u8> {
    drop(frame.splice(12..12, tags.concat()));
    frame
}

/// An inner packet's bytes without the Ethernet header.
fn bytes(inner: Draft) -> Vec<u8> {
    inner.frame()[IP..].to_vec()
}

/// The backend, as the destination of outer headers: each family's address, and the balancer's.
const BACKEND4: &str = "10.9.0.1";
const BACKEND6: &str = "[fd00:9::1]";
const BALANCER4: &str = "10.8.0.7";
const BALANCER6: &str = "fd00:8::7";

/// A tunnel as the balancer builds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// IP in IP.
    Ipip,
    /// GUE variant 1.
    Gue,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Ipip, Self::Gue];

    const fn unwrapped(self) -> Unwrapped {
        match self {
            Self::Ipip => Unwrapped::Ipip,
            Self::Gue => Unwrapped::Gue,
        }
    }
}

/// `inner` in an IPv4 packet from the balancer to the backend.
fn in4(way: Way, inner: Draft) -> Draft {
    wrapped(way, BACKEND4, &bytes(inner)).from(BALANCER4)
}

/// `inner` in an IPv6 packet from the balancer to the backend.
fn in6(way: Way, inner: Draft) -> Draft {
    wrapped(way, BACKEND6, &bytes(inner)).from(BALANCER6)
}

/// Bytes in a tunnel to an address.
fn wrapped(way: Way, destination: &str, payload: &[u8]) -> Draft {
    let version = payload.first().map(|first| first >> 4);
    let number = if version == Some(6) { IpNumber::IPV6 } else { IpNumber::IPV4 };
    let outer = match way {
        Way::Ipip => other(&format!("{destination}:0"), number),
        Way::Gue => udp(&format!("{destination}:6080")),
    };
    outer.payload(payload)
}

/// Puts a packet into an outer one of its family.
type Wrap = fn(Way, Draft) -> Draft;

/// Every outer family with every way, each with a name and a function that wraps.
fn tunnels() -> impl Iterator<Item = (String, Way, Wrap)> {
    let outers: [(&str, Wrap); 2] = [("IPv4", in4), ("IPv6", in6)];
    let ways = Way::BOTH.into_iter();
    ways.flat_map(move |way| outers.map(|(family, wrap)| (format!("{way:?} over {family}"), way, wrap)))
}
