//! Traffic for the measuring harness: a program that makes it, one that reflects it, one that counts it.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::{addr_of, addr_of_mut, read_volatile};

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use lb_common::checksum::Sum;
use lb_common::packet::Packet;
use lb_common::traffic::{BUNDLE, LOOK_EVERY, LOOKS, Receipt, Stream};
use lb_common::wire::{
    Be16, ETHERNET_LENGTH, ETHERTYPE_IPV4, EthernetHeader, IPV4_LENGTH, Ipv4Address, Ipv4Header, MacPair,
    Ports, UdpHeader,
};

use crate::packet::XdpPacket;

#[btf_map]
static STREAM: Array<Stream, 1> = Array::new();
#[btf_map]
static RECEIPT: Array<Receipt, 1> = Array::new();

/// Makes the next packet of the stream, or, while as many as may be are under way, drops the frame: then it was not sent.
///
/// For test runs with live frames, which transmit what this returns `XDP_TX` for. The kernel gives each frame its length back
/// but not its bytes, so every header is written anew.
#[xdp]
fn generate(context: XdpContext) -> u32 {
    let Some(stream) = STREAM.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: the harness makes one test run at a time and waits for it before it touches the map.
    let stream = unsafe { &mut *stream };
    if stream.credit == 0 {
        stream.credit = credit(stream);
    }
    if stream.credit == 0 {
        return XDP_DROP;
    }
    if write(&mut XdpPacket::new(context), stream).is_none() {
        return XDP_ABORTED;
    }
    stream.credit -= 1;
    stream.sent += 1;
    XDP_TX
}

/// How many packets may follow. Whole bundles: what does not fill one waits until the kernel is through with its batch.
#[inline(always)]
fn credit(stream: &Stream) -> u64 {
    let Some(receipt) = RECEIPT.get(0) else { return 0 };
    // SAFETY: an aligned load of one machine word that `count` stores: it sees the old one or the new one.
    let received = unsafe { read_volatile(addr_of!(receipt.received)) };
    let under_way = stream.sent.wrapping_sub(received);
    let room = stream.window.saturating_sub(under_way);
    room.min(due(stream)) / BUNDLE * BUNDLE
}

/// How many packets should have been sent by now, and were not.
#[inline(always)]
fn due(stream: &Stream) -> u64 {
    if stream.interval_ns == 0 {
        return u64::MAX;
    }
    // SAFETY: the helper takes nothing and cannot fail.
    let passed = unsafe { bpf_ktime_get_ns() }.saturating_sub(stream.begun);
    (passed / stream.interval_ns).saturating_sub(stream.before + stream.sent)
}

#[inline(always)]
fn write(packet: &mut XdpPacket, stream: &Stream) -> Option<()> {
    let flow = (stream.sent & stream.flows_mask) as u32;
    let [high, low] = [flow >> 16, flow].map(|half| Be16::new(half as u16));
    let source = u32::from_be_bytes(stream.ip.source.word().to_le_bytes()) | flow;
    let ip = Ipv4Header {
        source: Ipv4Address::new(source.to_be_bytes()),
        checksum: Sum::from_raw(stream.ip_sum).add(high).add(low).finish(),
        ..stream.ip
    };
    let base = (stream.udp.ports.word() >> 16) as u16;
    let ports = Ports::new(base.wrapping_add(flow as u16), stream.udp.ports.destination());
    packet.write(0, stream.ethernet)?;
    packet.write(ETHERNET_LENGTH, ip)?;
    packet.write(ETHERNET_LENGTH + IPV4_LENGTH, UdpHeader { ports, ..stream.udp })
}

/// Sends every packet back where it came from, which is the least that a balancer can do.
#[xdp]
fn reflect(context: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(context);
    let swapped = packet.read::<MacPair>(0).and_then(|macs| packet.write(0, macs.reversed()));
    if swapped.is_some() { XDP_TX } else { XDP_ABORTED }
}

/// Counts expected packets and ends them here.
#[xdp]
fn count(context: XdpContext) -> u32 {
    let Some(receipt) = RECEIPT.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: a stream arrives by one queue, which one CPU at a time empties; the harness writes only between streams.
    let receipt = unsafe { &mut *receipt };
    if !is_expected(&XdpPacket::new(context), receipt) {
        return XDP_PASS;
    }
    if receipt.received.is_multiple_of(LOOK_EVERY) {
        // SAFETY: the helper takes nothing and cannot fail.
        receipt.clock[(receipt.received / LOOK_EVERY) as usize % LOOKS] = unsafe { bpf_ktime_get_ns() };
    }
    receipt.received += 1;
    XDP_DROP
}

/// The same, wherever packets arrive: by several interfaces, which several CPUs empty.
#[xdp]
fn tally(context: XdpContext) -> u32 {
    let Some(receipt) = RECEIPT.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: what is expected changes only between streams, and of the rest only `received`, which is reached by its address.
    if !is_expected(&XdpPacket::new(context), unsafe { &*receipt }) {
        return XDP_PASS;
    }
    // SAFETY: the map's value is there and stays.
    let received = unsafe { addr_of_mut!((*receipt).received) };
    // SAFETY: it is aligned, and everybody who adds to it at this time does so in one step.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(received, 1) };
    XDP_DROP
}

#[inline(always)]
fn is_expected(packet: &XdpPacket, receipt: &Receipt) -> bool {
    let ethernet = packet.read::<EthernetHeader>(0);
    let ip = packet.read::<Ipv4Header>(ETHERNET_LENGTH);
    let (Some(ethernet), Some(ip)) = (ethernet, ip) else { return false };
    let [source, destination] =
        [ip.source, ip.destination].map(|address| u32::from_be_bytes(address.word().to_le_bytes()));
    ethernet.ethertype == ETHERTYPE_IPV4
        && (destination ^ receipt.destination) & receipt.mask == 0
        && (source ^ receipt.source) & receipt.source_mask == 0
}
