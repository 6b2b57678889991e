//! Deny and allow lists in the kernel: replaced while packets flow, longer than the fixtures', and when there is no room.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use lb_common::lists::Side as Table;
use lb_common::verdict::DropReason;
use lb_userspace::datapath::{Datapath as _, Image, apply};
use lb_userspace::model::{ListName, Lists, Prefix};
use lb_userspace::placement::{Replaced, list_entries, replace_lists};
use libtest_mimic::Trial;

use crate::fixtures::counts::{Counter, Counts, ROW};
use crate::fixtures::frames::{Draft, tcp};
use crate::fixtures::sides::{Action, Kernel, Side};
use crate::fixtures::world::{CAPACITY, WORLD_SIDE, lists};
use crate::{WORLD, kernel_trial};

const WEB4: &str = "192.0.2.10:80";
const WEB6: &str = "[2001:db8::10]:80";

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |name: &str, test: fn(&mut Scene<'_>) -> Result<()>| {
        kernel_trial(format!("law::deny: {name}"), move |kernel| Scene::play(kernel, test))
    };
    vec![
        trial("nobody gets through while lists are replaced", replaced_while_packets_flow),
        trial("the kernel finds what a scan finds", what_a_scan_finds),
        trial("all of a family, and bystanders", whole_families),
        trial("no list is asked while both are empty", empty),
        trial("100 000 prefixes, and more than there is room for", long),
    ]
}

/// The loaded program with lists of a test's own.
struct Scene<'k> {
    kernel: &'k mut Kernel<'static>,
    image: Image,
    side: Option<Table>,
}

impl<'k> Scene<'k> {
    /// Plays a test, and leaves the world's lists as they were.
    fn play(kernel: &'k mut Kernel<'static>, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut scene = Self { kernel, image: WORLD.image.clone(), side: Some(WORLD_SIDE) };
        let result = test(&mut scene);
        scene.replace(&Lists::default())?;
        let datapath = scene.kernel.datapath();
        datapath.fill_list(WORLD_SIDE, &WORLD.lists)?;
        apply(datapath, &scene.image, &WORLD.image)?;
        result
    }

    fn replace(&mut self, lists: &Lists) -> Result<()> {
        let Replaced { image, side } = replace_lists(self.kernel.datapath(), &self.image, self.side, lists)?;
        (self.image, self.side) = (image, side);
        Ok(())
    }

    fn action(&mut self, packet: Draft) -> Result<Action> {
        Ok(self.kernel.run(&packet.frame())?.0)
    }

    /// Whether packets of a source are denied, and nothing worse.
    fn is_denied(&mut self, source: IpAddr) -> Result<bool> {
        let to = if source.is_ipv4() { WEB4 } else { WEB6 };
        match self.action(tcp(to).from(&source.to_string()))? {
            Action::Drop => Ok(true),
            Action::Transmit => Ok(false),
            other => Err(anyhow!("{other:?} for {source}")),
        }
    }
}

/// Prefixes of one generation.
const LONG: u32 = 10_000;
/// Generations.
const GENERATIONS: u32 = 30;
/// Packets of one test run, and the least of all together.
const RUN: u32 = 20_000;
const PACKETS: u64 = 500_000;

/// Every generation denies the sender, each by another prefix among other prefixes.
fn generation(number: u32) -> Result<Lists> {
    let (denied, allowed) = match number % 3 {
        0 => ("100.64.0.9/32", "100.0.0.0/8"),
        1 => ("100.64.0.0/10", "2001:db8::/32"),
        _ => ("0.0.0.0/0", "198.51.100.0/24"),
    };
    let mut lists = lists(&[denied], &[allowed])?;
    for other in 0..LONG {
        let network = Ipv4Addr::from_bits(0x3000_0000 + (number * LONG + other) * 64);
        lists.add(ListName::Deny, format!("{network}/26").parse()?)?;
    }
    Ok(lists)
}

/// A packet that runs again and again.
struct Flow {
    program: Xdp,
    frame: Vec<u8>,
    packets: AtomicU64,
    stop: AtomicBool,
}

impl Flow {
    /// Runs it until told to stop.
    fn run(&self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let data_in = Some(self.frame.as_slice());
            self.program.test_run(TestRunOptions { data_in, repeat: RUN, ..TestRunOptions::default() })?;
            self.packets.fetch_add(RUN.into(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Replaces lists until enough packets have run meanwhile, and every list was in force.
    fn disturb(&self, scene: &mut Scene<'_>, generations: &[Lists]) -> Result<()> {
        for (number, lists) in generations.iter().cycle().take(10 * generations.len()).enumerate() {
            scene.replace(lists)?;
            if number >= generations.len() && self.packets.load(Ordering::Relaxed) >= PACKETS {
                return Ok(());
            }
        }
        Err(anyhow!("only {:?} packets ran meanwhile", self.packets))
    }
}

fn replaced_while_packets_flow(scene: &mut Scene<'_>) -> Result<()> {
    let generations = (0..GENERATIONS).map(generation).collect::<Result<Vec<_>>>()?;
    scene.replace(&generations[1])?;
    let flow = Flow {
        program: scene.kernel.handle()?,
        frame: tcp(WEB4).from("100.64.0.9").frame(),
        packets: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let before = scene.kernel.totals()?;
    thread::scope(|scope| {
        let running = scope.spawn(|| flow.run());
        let disturbed = flow.disturb(scene, &generations);
        flow.stop.store(true, Ordering::Relaxed);
        running.join().map_err(|_| anyhow!("the flow panicked"))??;
        disturbed
    })?;
    let counted = scene.kernel.counts_since(&before)?;
    let packets = flow.packets.into_inner();
    let denied = Counter::Reason(ROW, DropReason::Denied.label());
    let expected =
        Counts::from([(denied, packets), (Counter::Service("web4".to_owned(), "dropped"), packets)]);
    ensure!(counted == expected, "of {packets} packets: {counted:?}");
    Ok(())
}

/// Numbers that look random and are the same in every run (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }

    /// An address of a few that share their beginnings. The VIPs are not among them.
    fn address(&mut self) -> IpAddr {
        let bits = u128::from(self.next() & 0x8181) << 112 | u128::from(self.next() & 0x0301) << 40;
        if self.next().is_multiple_of(2) {
            Ipv4Addr::from_bits((bits >> 96) as u32 | self.next() as u32 & 0x0103).into()
        } else {
            Ipv6Addr::from_bits(bits | u128::from(self.next() & 3)).into()
        }
    }

    fn prefix(&mut self) -> Result<Prefix> {
        let (address, length) = (self.address(), self.next());
        Ok(match address {
            IpAddr::V4(address) => {
                let length = (length % 33) as u32;
                let network = address.to_bits() & u32::MAX.checked_shl(32 - length).unwrap_or(0);
                format!("{}/{length}", Ipv4Addr::from_bits(network)).parse()?
            }
            IpAddr::V6(address) => {
                let length = (length % 129) as u32;
                let network = address.to_bits() & u128::MAX.checked_shl(128 - length).unwrap_or(0);
                format!("{}/{length}", Ipv6Addr::from_bits(network)).parse()?
            }
        })
    }
}

/// The slow and obvious way.
fn scanned(lists: &Lists, source: IpAddr) -> bool {
    let longest = |list| {
        let matching = lists.of(list).iter().filter(|prefix| prefix.contains(source));
        matching.map(|prefix| prefix.length()).max()
    };
    longest(ListName::Deny) > longest(ListName::Allow)
}

fn what_a_scan_finds(scene: &mut Scene<'_>) -> Result<()> {
    let mut numbers = Numbers(1);
    let mut denied = 0;
    for _ in 0..20 {
        let mut lists = Lists::default();
        for number in 0..40 {
            let list = if number % 2 == 0 { ListName::Deny } else { ListName::Allow };
            // What is on the other list already stays there.
            let _ = lists.add(list, numbers.prefix()?);
        }
        scene.replace(&lists)?;
        for _ in 0..100 {
            let source = numbers.address();
            let (found, expected) = (scene.is_denied(source)?, scanned(&lists, source));
            ensure!(found == expected, "{source}: denied {found}, expected {expected}: {lists:?}");
            denied += u32::from(found);
        }
    }
    ensure!((400..1600).contains(&denied), "{denied} of 2000 are denied: the lists say too little");
    Ok(())
}

fn whole_families(scene: &mut Scene<'_>) -> Result<()> {
    let (four, six) = ("198.51.100.7".parse()?, "2001:db8:c::7".parse()?);
    for (denied, allowed, expected) in [
        (&["::/0"][..], &[][..], [false, true]),
        (&["0.0.0.0/0"], &[], [true, false]),
        (&["0.0.0.0/0", "::/0"], &[], [true, true]),
        (&["0.0.0.0/0", "::/0"], &["198.51.100.7", "2001:db8:c::/48"], [false, false]),
        (&[], &["::/0", "0.0.0.0/0"], [false, false]),
    ] {
        scene.replace(&lists(denied, allowed)?)?;
        let seen = [scene.is_denied(four)?, scene.is_denied(six)?];
        ensure!(seen == expected, "{denied:?} and {allowed:?}: {seen:?}, expected {expected:?}");
        for bystander in [tcp("192.0.2.11:80"), tcp("[2001:db8::11]:80")] {
            let action = scene.action(bystander)?;
            ensure!(action == Action::Pass, "{denied:?}: {action:?} for a bystander");
        }
    }
    Ok(())
}

/// What is left in a table that is not in force says nothing.
fn empty(scene: &mut Scene<'_>) -> Result<()> {
    let outcast = "100.64.0.9".parse()?;
    ensure!(scene.is_denied(outcast)?, "the world's lists deny it");
    scene.replace(&Lists::default())?;
    ensure!(!scene.is_denied(outcast)?, "nobody denies it");
    for table in [Table::A, Table::B] {
        scene.kernel.datapath().fill_list(table, &WORLD.lists)?;
        ensure!(!scene.is_denied(outcast)?, "{table:?} is asked");
    }
    Ok(())
}

/// So many addresses, the first of which is 48.0.0.0.
fn addresses(count: u32) -> Result<Lists> {
    let mut lists = Lists::default();
    for number in 0..count {
        lists.add(ListName::Deny, Ipv4Addr::from_bits(0x3000_0000 + number).to_string().parse()?)?;
    }
    Ok(lists)
}

fn long(scene: &mut Scene<'_>) -> Result<()> {
    let [first, last, behind] = [0, 99_999, 100_000].map(|n| Ipv4Addr::from_bits(0x3000_0000 + n).into());
    scene.replace(&addresses(100_000)?)?;
    ensure!(scene.is_denied(first)? && scene.is_denied(last)? && !scene.is_denied(behind)?, "not these");
    // The kernel itself runs out of room in the middle of a batch.
    let error = scene.replace(&addresses(CAPACITY.lists + 1)?).map_err(|error| error.to_string());
    ensure!(error.as_ref().is_err_and(|error| error.contains("No space left")), "{error:?}");
    ensure!(
        scene.is_denied(first)? && scene.is_denied(last)? && !scene.is_denied(behind)?,
        "no longer these"
    );
    scene.replace(&addresses(1)?)?;
    ensure!(scene.is_denied(first)? && !scene.is_denied(last)?, "the list of one is not in force");
    // As many as there were not room for, entry by entry: what failed has left nothing behind.
    let most = list_entries(&addresses(CAPACITY.lists - 1)?);
    ensure!(most.len() == CAPACITY.lists as usize, "{} entries", most.len());
    let unused = scene.side.map_or(Table::A, Table::other);
    scene.kernel.datapath().fill_list(unused, &most)?;
    scene.kernel.datapath().fill_list(unused, &[])?;
    Ok(())
}
