//! A stream of packets: made by the kernel's test run with live frames, counted where it arrives.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::maps::{Array, MapData};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use bytemuck::Zeroable;
use lb_common::checksum::Sum;
use lb_common::traffic::{BUNDLE, FRAME_LENGTH, LOOK_EVERY, LOOKS, Receipt, Stream};
use lb_common::wire::{
    Be16, ETHERNET_LENGTH, ETHERTYPE_IPV4, EthernetHeader, IPV4_LENGTH, Ipv4Address, Ipv4Header, Mac, Ports,
    UdpHeader, protocol,
};
use lb_userspace::datapath::BENCH_OBJECT;

use crate::bench::median;
use crate::interrupt;

/// Packets that may be under way at one time where nobody else is. A veth's queue has 256 places (`VETH_RING_SIZE` of `drivers/net/veth.c`), of which its
/// reader frees 16 at a time (`ptr_ring.h`): with so many nobody on the way can lose one for want of a place.
pub const FULL_WINDOW: u64 = 240;
const _: () = assert!(FULL_WINDOW.is_multiple_of(BUNDLE));

/// Frames that the kernel prepares at once, and keeps for use again: as many as it allows (`TEST_XDP_MAX_BATCH` of
/// `net/bpf/test_run.c`).
const BATCH: u32 = 256;

/// The source port of flow 0.
const FIRST_PORT: u16 = 1024;
/// The port that all packets are for.
pub const PORT: u16 = 80;

/// How long packets may still be under way when the last one was sent.
const ARRIVAL: Duration = Duration::from_millis(200);
/// Between two looks at whether they have arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

const STREAM_WORDS: usize = size_of::<Stream>() / size_of::<u64>();
const RECEIPT_WORDS: usize = size_of::<Receipt>() / size_of::<u64>();

/// Who sends a stream: as many sources as the lower bits of an address have values, each with one flow.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// The first address; its lower bits are zero.
    pub first: Ipv4Addr,
    /// How many bits are another source's: 24 at most.
    pub bits: u32,
}

impl Sources {
    /// The flows of a busy server, and few enough for a table of connections of any size.
    pub const BUSY: Self = Self { first: Ipv4Addr::new(10, 200, 0, 0), bits: 12 };

    /// The addresses: one of them, and how many of its bits all of them share.
    pub const fn prefix(self) -> (Ipv4Addr, u32) {
        (self.first, u32::BITS - self.bits)
    }
}

/// Where a stream enters the network, and as what it is to arrive.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Interface of the generator that sends it.
    pub ifindex: u32,
    /// MAC addresses of that interface and of the balancer's end of the link.
    pub macs: [[u8; 6]; 2],
    /// Who sends it.
    pub sources: Sources,
    /// The address it is for.
    pub vip: Ipv4Addr,
    /// Packets under way at one time: a multiple of [`BUNDLE`], [`FULL_WINDOW`] at most.
    pub window: u64,
    /// The source in the outermost header when it arrives, and how many of its bits matter.
    pub arrives_from: (Ipv4Addr, u32),
    /// The same of the destination.
    pub arrives_at: (Ipv4Addr, u32),
}

/// When packets are due.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Nanoseconds from packet to packet; 0 if they are sent as fast as they arrive.
    pub interval_ns: u64,
    /// When the first was due, in nanoseconds of `CLOCK_MONOTONIC`.
    pub begun_ns: u64,
    /// Packets that were sent since.
    pub sent: u64,
}

/// What became of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// Packets that left.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// Nanoseconds from packet to packet: the median over stretches of [`LOOK_EVERY`]. None if too few arrived.
    pub interval_ns: Option<f64>,
    /// How long it took, all in all.
    pub took: Duration,
}

/// The programs that make, reflect and count traffic, loaded.
pub struct Traffic {
    ebpf: Ebpf,
    stream: Array<MapData, [u64; STREAM_WORDS]>,
    receipt: Array<MapData, [u64; RECEIPT_WORDS]>,
}

impl Traffic {
    /// Loads the programs; they are attached nowhere yet.
    pub fn load() -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(BENCH_OBJECT).context("the kernel refused the harness")?;
        for name in ["generate", "reflect", "count", "tally"] {
            program(&mut ebpf, name)?.load().with_context(|| format!("the kernel refused {name}"))?;
        }
        let stream = ebpf.take_map("STREAM").context("no STREAM")?.try_into()?;
        let receipt = ebpf.take_map("RECEIPT").context("no RECEIPT")?.try_into()?;
        let mut traffic = Self { ebpf, stream, receipt };
        // Zeros would take everybody's packets for those of a stream.
        traffic.expect(&Receipt {
            destination: Ipv4Addr::BROADCAST.into(),
            mask: u32::MAX,
            ..Receipt::zeroed()
        })?;
        Ok(traffic)
    }

    /// Attaches one of the programs to an interface of the calling thread's namespace, for as long as this value lives.
    pub fn attach(&mut self, name: &str, ifindex: u32) -> Result<()> {
        let attached = program(&mut self.ebpf, name)?.attach_to_if_index(ifindex, XdpMode::Driver);
        attached.with_context(|| format!("cannot attach {name}"))?;
        Ok(())
    }

    /// Sends a stream from the calling thread, on its CPU and in its namespace. In each of `turns` turns the generator sends
    /// a packet, or waits for others to arrive or to be due.
    pub fn pass(&mut self, route: &Route, pace: Pace, turns: u32) -> Result<Passage> {
        self.stream.set(0, bytemuck::cast::<Stream, [u64; STREAM_WORDS]>(route.stream(pace)), 0)?;
        self.expect(&route.receipt())?;
        let begun = Instant::now();
        // An `xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context: [u32; 6] = [0, FRAME_LENGTH as u32, 0, route.ifindex, 0, 0];
        let options = TestRunOptions {
            data_in: Some(&[0; FRAME_LENGTH]),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            repeat: turns,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        let ran = program(&mut self.ebpf, "generate")?.test_run(options);
        // A signal ends the test run too, with an error that says less.
        interrupt::check()?;
        ran.context("cannot send packets")?;
        let Stream { sent, .. } = bytemuck::cast(self.stream.get(&0, 0)?);
        let receipt = self.arrived(sent)?;
        let interval_ns = interval(&receipt);
        Ok(Passage { sent, received: receipt.received, interval_ns, took: begun.elapsed() })
    }

    fn expect(&mut self, receipt: &Receipt) -> Result<()> {
        Ok(self.receipt.set(0, bytemuck::cast::<Receipt, [u64; RECEIPT_WORDS]>(*receipt), 0)?)
    }

    /// Waits until all have arrived, or no more will.
    fn arrived(&self, sent: u64) -> Result<Receipt> {
        let end = Instant::now() + ARRIVAL;
        loop {
            let receipt: Receipt = bytemuck::cast(self.receipt.get(&0, 0)?);
            if receipt.received >= sent || Instant::now() >= end {
                return Ok(receipt);
            }
            interrupt::pause(LOOK_AGAIN)?;
        }
    }
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("the harness has no {name}"))?;
    Ok(program.try_into()?)
}

/// The median: pauses in which other tasks had the CPU do not count.
fn interval(receipt: &Receipt) -> Option<f64> {
    let looks = usize::try_from(receipt.received.div_ceil(LOOK_EVERY)).ok()?;
    let oldest = looks.saturating_sub(LOOKS);
    let clock: Vec<u64> = (oldest..looks).map(|look| receipt.clock[look % LOOKS]).collect();
    let stretches = clock.windows(2).map(|looks| Duration::from_nanos(looks[1] - looks[0]).as_secs_f64());
    let packets = f64::from(u32::try_from(LOOK_EVERY).ok()?);
    (clock.len() > 1).then(|| median(stretches) * 1e9 / packets)
}

impl Route {
    fn stream(&self, pace: Pace) -> Stream {
        let Pace { interval_ns, begun_ns: begun, sent: before } = pace;
        let length = FRAME_LENGTH - ETHERNET_LENGTH;
        let [source, destination] = self.macs.map(Mac::new);
        let ip = Ipv4Header {
            version_ihl: 0x45,
            tos: 0,
            total_length: Be16::new(length as u16),
            identification: Be16::new(0),
            fragment: Be16::new(0x4000),
            ttl: 64,
            protocol: protocol::UDP,
            checksum: Be16::new(0),
            source: Ipv4Address::new(self.sources.first.octets()),
            destination: Ipv4Address::new(self.vip.octets()),
        };
        let datagram = Be16::new((length - IPV4_LENGTH) as u16);
        Stream {
            sent: 0,
            credit: 0,
            window: self.window,
            interval_ns,
            begun,
            before,
            flows_mask: (1 << self.sources.bits) - 1,
            ethernet: EthernetHeader { destination, source, ethertype: ETHERTYPE_IPV4 },
            reserved: 0,
            ip,
            udp: UdpHeader { ports: Ports::new(FIRST_PORT, PORT), length: datagram, checksum: Be16::new(0) },
            ip_sum: Sum::default().add_bytes(bytemuck::bytes_of(&ip)).raw(),
        }
    }

    fn receipt(&self) -> Receipt {
        let mask = |bits: u32| u32::MAX.checked_shl(u32::BITS - bits).unwrap_or(0);
        let [(source, source_bits), (destination, bits)] = [self.arrives_from, self.arrives_at];
        Receipt {
            destination: destination.into(),
            mask: mask(bits),
            source: source.into(),
            source_mask: mask(source_bits),
            ..Receipt::zeroed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock of a receiver that got a packet each nanosecond, and one pause.
    fn receipt(received: u64) -> Receipt {
        let mut receipt = Receipt { received, ..Receipt::zeroed() };
        for number in (0..received).step_by(LOOK_EVERY as usize) {
            let pause = if number > LOOK_EVERY { 1_000_000 } else { 0 };
            receipt.clock[(number / LOOK_EVERY) as usize % LOOKS] = number + pause;
        }
        receipt
    }

    #[test]
    fn pauses_and_forgotten_looks_do_not_count() {
        for stretches in [4, LOOKS as u64 + 3] {
            assert_eq!(interval(&receipt(stretches * LOOK_EVERY + 1)), Some(1.0));
        }
        assert_eq!(interval(&receipt(LOOK_EVERY)), None);
        assert_eq!(interval(&receipt(0)), None);
    }

    #[test]
    fn all_bits_or_some_of_the_addresses_matter() {
        let route = |bits| Route {
            ifindex: 1,
            macs: [[2; 6]; 2],
            sources: Sources::BUSY,
            vip: Ipv4Addr::LOCALHOST,
            window: FULL_WINDOW,
            arrives_from: Sources::BUSY.prefix(),
            arrives_at: (Ipv4Addr::new(10, 0, 1, 0), bits),
        };
        assert_eq!(route(32).receipt().mask, 0xffff_ffff);
        assert_eq!(route(24).receipt().mask, 0xffff_ff00);
        assert_eq!(route(24).receipt().destination, 0x0a00_0100);
        assert_eq!((route(24).receipt().source, route(24).receipt().source_mask), (0x0ac8_0000, 0xffff_f000));
    }
}
