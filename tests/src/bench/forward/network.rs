//! The network of `bench forward`: veth pairs around a balancer's namespace, and who polls them.
//!
//! ```text
//!   generator ══ reflected ══╗          the program `reflect`
//!   generator ══ balanced ═══╬ balancer the balancer's program
//!   generator ══ routed ═════╣          no program: the kernel's stack
//!   backends  ══ onward ═════╝
//! ```
//!
//! A packet enters by one of the first three and leaves by the same link or by the last. Where it leaves, at the far end, the
//! program `count` ends it.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, setpriority_process};

use super::cpus;
use crate::net::{Group, Namespace};

/// The bytes of a MAC address.
pub(super) type Mac = [u8; 6];

const GENERATOR: &str = "generator";
const BALANCER: &str = "balancer";
const BACKENDS: &str = "backends";

/// Room for an outer header above the generator's 1500.
const MTU: u32 = 1600;

/// Hosts at the far end of each link: all addresses of one interface.
const HOSTS: RangeInclusive<u8> = 2..=5;

/// The balancer's host number on each link.
const NEAR: u8 = 1;

/// Settings of every namespace.
const SETTINGS: [(&str, &str); 4] = [
    // Packets come from addresses to which no route leads.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    // Nobody else is to send anything, such as neighbour discovery.
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];
/// A setting of the balancer's, for nftables.
const FORWARDING: (&str, &str) = ("ipv4/ip_forward", "1");

/// A veth pair. The near end is the balancer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Reflected,
    Balanced,
    Routed,
    Onward,
}

impl Link {
    const ALL: [Self; 4] = [Self::Reflected, Self::Balanced, Self::Routed, Self::Onward];
    /// Those by which packets come in.
    const INWARD: [Self; 3] = [Self::Reflected, Self::Balanced, Self::Routed];

    /// The third byte of its addresses, and the fifth of its MAC addresses.
    const fn number(self) -> u8 {
        self as u8 + 1
    }

    const fn far_namespace(self) -> &'static str {
        match self {
            Self::Onward => BACKENDS,
            _ => GENERATOR,
        }
    }

    /// The subnet of its addresses: address and bits.
    pub(super) const fn subnet(self) -> (Ipv4Addr, u32) {
        (Ipv4Addr::new(10, 0, self.number(), 0), 24)
    }

    /// The addresses of its far end.
    pub(super) fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        HOSTS.map(move |host| Ipv4Addr::new(10, 0, self.number(), host))
    }

    /// The address of its near end.
    pub(super) const fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.number(), NEAR)
    }

    /// The MAC address of its near end, which is the balancer's.
    pub(super) const fn near_mac(self) -> Mac {
        [2, 0, 0, 0, self.number(), NEAR]
    }

    /// The MAC address of its far end.
    pub(super) const fn far_mac(self) -> Mac {
        [2, 0, 0, 0, self.number(), NEAR + 1]
    }

    /// The name of both ends, which tells the thread that polls it from those of other networks.
    pub(super) fn device(self) -> String {
        format!("lb{}n{}", std::process::id(), self.number())
    }
}

/// The network. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Network(Group);

impl Network {
    /// Makes the network, without any program and with no thread that polls.
    pub(super) fn new() -> Result<Self> {
        let network = Self(Group::unique(&[GENERATOR, BALANCER, BACKENDS])?);
        for name in [GENERATOR, BALANCER, BACKENDS] {
            network.0.namespace(name).run(|| SETTINGS.into_iter().try_for_each(write_setting))??;
        }
        network.balancer().run(|| write_setting(FORWARDING))??;
        for link in Link::ALL {
            network.make(link).with_context(|| format!("cannot make the link {link:?}"))?;
        }
        Ok(network)
    }

    fn make(&self, link: Link) -> Result<()> {
        let (device, near, far) = (link.device(), text(link.near_mac()), text(link.far_mac()));
        let far_namespace = link.far_namespace();
        let far_name = self.0.full_name(far_namespace);
        let end = |mac| format!("{device} address {mac} mtu {MTU} numrxqueues 1 numtxqueues 1");
        let mut lines = vec![
            format!("link add {} type veth peer name {} netns {far_name}", end(&near), end(&far)),
            format!("address add {}/{} dev {device}", link.gateway(), link.subnet().1),
            format!("link set {device} up"),
        ];
        // Nobody at the far end answers ARP.
        lines.extend(
            link.hosts().map(|host| format!("neighbor add {host} lladdr {far} nud permanent dev {device}")),
        );
        self.0.ip(BALANCER, &lines)?;
        self.0.ip(far_namespace, &[format!("link set {device} up")])?;
        // A veth takes frames of XDP only if its other end polls (NAPI), which either GRO or a program there turns on. With
        // GRO it polls before and after a program is attached, by the same thread.
        self.0.set_features(BALANCER, &device, &[("rx-gro", true)])
    }

    /// The namespace in which all near ends are.
    pub(super) fn balancer(&self) -> Namespace {
        self.0.namespace(BALANCER)
    }

    /// The namespace in which a link's far end is.
    pub(super) fn far(&self, link: Link) -> Namespace {
        self.0.namespace(link.far_namespace())
    }

    /// The number of a link's near end.
    pub(super) fn near_index(&self, link: Link) -> Result<u32> {
        self.0.index(BALANCER, &link.device())
    }

    /// The number of a link's far end.
    pub(super) fn far_index(&self, link: Link) -> Result<u32> {
        self.0.index(link.far_namespace(), &link.device())
    }

    /// Lets threads of the kernel poll the links by which packets come in, on one CPU.
    ///
    /// Otherwise the generator's CPU would do it: whoever sends to a veth also polls its other end.
    pub(super) fn poll_on(&self, cpu: usize) -> Result<()> {
        for link in Link::INWARD {
            self.0.set_threaded(BALANCER, &link.device())?;
            let thread = polling_thread(&link.device())?;
            cpus::pin(Some(thread), cpu)?;
            // Like the interrupts that it stands for, it does not wait for other tasks.
            setpriority_process(Some(thread), -20).context("cannot hurry a polling thread")?;
        }
        Ok(())
    }
}

/// The kernel's thread that polls a device; its name ends with a number of the kernel's choice.
fn polling_thread(device: &str) -> Result<Pid> {
    let beginning = format!("napi/{device}-");
    let polls = |process: &fs::DirEntry| {
        fs::read_to_string(process.path().join("comm")).is_ok_and(|name| name.starts_with(&beginning))
    };
    let processes = fs::read_dir("/proc").context("cannot read /proc")?.flatten();
    let threads: Vec<_> =
        processes.filter(polls).filter_map(|process| process.file_name().into_string().ok()).collect();
    ensure!(threads.len() == 1, "{device} is polled by {} threads, not by one", threads.len());
    let id = threads.first().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
    id.context("a process without a number")
}

fn write_setting((key, value): (&str, &str)) -> Result<()> {
    fs::write(format!("/proc/sys/net/{key}"), value).with_context(|| format!("cannot set {key} to {value}"))
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
