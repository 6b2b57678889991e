//! The decapsulator on the host and in the kernel, at the same backend.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use lb_common::decap::{Outcome, Tunnels, decapsulate};
use lb_common::frame::Frame;
use lb_common::layout::VipKey;
use lb_common::wire::Be16;
use lb_userspace::decap::{Counters, Decapsulator};
use lb_userspace::model::{GUE_PORT, Prefix};

use crate::fixtures::counts::{Counter, ROW, See};
use crate::fixtures::sides::{Action, HEADROOM, Side, run_in_kernel};
use crate::fixtures::world::INGRESS;

/// Addresses of the backend.
pub(super) const ENDPOINTS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1))];

/// Who may send tunnel packets. The last one is all of IPv6 beyond what looks like one: it must not list IPv4.
const SENDERS: [&str; 4] = ["10.8.0.0/24", "10.8.4.5", "fd00:8::/64", "::/8"];

fn senders() -> Vec<Prefix> {
    SENDERS.iter().map(|text| text.parse().expect("a fixture's sender is a prefix")).collect()
}

/// The address that a key was made of.
fn address(key: VipKey) -> IpAddr {
    let bytes = [key.high.to_le_bytes(), key.low.to_le_bytes()].concat();
    let bytes: [u8; 16] = bytes.try_into().expect("twice eight bytes");
    Ipv6Addr::from(bytes).to_canonical()
}

/// The pure function on lists in memory.
#[derive(Default)]
pub(super) struct Host {
    /// Packets by the numbers of outcomes.
    counts: RefCell<BTreeMap<u32, u64>>,
    /// The last packet's outcome.
    pub(super) outcome: Option<Outcome>,
}

impl Tunnels for Host {
    fn gue_port(&self) -> Be16 {
        Be16::new(GUE_PORT.get())
    }

    fn is_endpoint(&self, key: VipKey) -> bool {
        ENDPOINTS.contains(&address(key))
    }

    fn is_listed(&self, key: VipKey) -> bool {
        senders().into_iter().any(|sender| sender.contains(address(key)))
    }

    fn count(&self, ingress: u32, counter: u32) {
        assert_eq!(ingress, INGRESS);
        assert!(Outcome::all().any(|outcome| outcome.counter() == counter), "only outcomes are counted");
        *self.counts.borrow_mut().entry(counter).or_default() += 1;
    }
}

fn action(outcome: Outcome) -> Action {
    match outcome {
        Outcome::Unwrapped(_) | Outcome::Pass(_) => Action::Pass,
        Outcome::Drop(_) => Action::Drop,
    }
}

impl Side for Host {
    fn run(&mut self, frame: &[u8]) -> Result<(Action, Vec<u8>)> {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(frame);
        let mut frame = Frame::new(&mut buffer, HEADROOM, INGRESS);
        let outcome = decapsulate(&mut frame, self);
        self.outcome = Some(outcome);
        Ok((action(outcome), frame.bytes().to_vec()))
    }

    fn visit_counters(&self, see: See<'_>) -> Result<()> {
        for outcome in Outcome::all() {
            let count = self.counts.borrow().get(&outcome.counter()).copied().unwrap_or(0);
            see(count, &|| Counter::Reason(ROW, outcome.label()));
        }
        Ok(())
    }
}

/// The loaded program, run by `BPF_PROG_TEST_RUN` and attached to nothing.
pub(super) struct Kernel {
    program: Decapsulator,
    counters: Counters,
}

impl Kernel {
    pub(super) fn load() -> Result<Self> {
        let (mut program, counters) = Decapsulator::load(GUE_PORT, &senders(), &[INGRESS])?;
        program.set_endpoints(&ENDPOINTS.into())?;
        Ok(Self { program, counters })
    }
}

impl Side for Kernel {
    fn run(&mut self, frame: &[u8]) -> Result<(Action, Vec<u8>)> {
        run_in_kernel(self.program.program()?, frame)
    }

    fn visit_counters(&self, see: See<'_>) -> Result<()> {
        for outcome in Outcome::all() {
            for row in [0, ROW] {
                see(self.counters.read(row, outcome)?, &|| Counter::Reason(row, outcome.label()));
            }
        }
        Ok(())
    }
}
