//! Programs for the measuring harness: a wrapper that sets up each run, floors, which do the least a case can do, and traffic.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "the BPF target has atomic additions as an intrinsic only")]

mod packet;
mod panic;
mod traffic;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_xdp_get_buff_len};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use lb_common::bench::{LOOKS, STRETCH, STRIDE, Script};
use lb_common::checksum::replace;
use lb_common::packet::Packet;
use lb_common::wire::{
    Be16, Be32, ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_LENGTH, Ipv4Address, Ipv4Header,
    Ipv6Address, Ipv6Header, MACS_LENGTH, MacPair, Ports, UdpHeader,
};

use crate::packet::XdpPacket;

#[btf_map]
static SCRIPT: Array<Script, 1> = Array::new();
#[btf_map]
static PROGRAMS: ProgramArray<1> = ProgramArray::new();

/// Makes the frame what it was before the last run, but of the next flow, and runs the program under test on it.
///
/// The kernel's own repetition of test runs shows a program its own output from the second run on.
#[xdp(frags)]
fn wrapper(context: XdpContext) -> u32 {
    let Some(script) = SCRIPT.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: the harness runs one program at a time and waits for it before it touches the map.
    let script = unsafe { &mut *script };
    let program_context = XdpContext::new(context.ctx);
    let mut packet = XdpPacket::new(context);
    if restore(&mut packet, script, &program_context).is_none() {
        return XDP_ABORTED;
    }
    if script.moves_head != 0 && packet.grow(20).and_then(|()| packet.shrink(20)).is_none() {
        return XDP_ABORTED;
    }
    // SAFETY: does not return if there is a program; all programs in the array are XDP programs.
    unsafe { PROGRAMS.tail_call(&program_context, 0) };
    XDP_ABORTED
}

#[inline(always)]
fn restore(packet: &mut XdpPacket, script: &mut Script, context: &XdpContext) -> Option<()> {
    // SAFETY: takes the program's own context.
    let length = unsafe { bpf_xdp_get_buff_len(context.ctx) };
    let grown = length.wrapping_sub(script.length);
    if grown != 0 {
        packet.shrink(grown as usize)?;
    }
    // Word by word: LLVM makes a call of a copy that might overlap.
    for (at, word) in script.head.iter().enumerate() {
        packet.write(at * size_of::<u64>(), *word)?;
    }
    if script.runs.is_multiple_of(STRETCH) {
        // SAFETY: the helper takes nothing and cannot fail.
        script.clock[(script.runs / STRETCH) as usize % LOOKS] = unsafe { bpf_ktime_get_ns() };
    }
    let flow = script.runs.wrapping_mul(STRIDE) & script.flows_mask;
    script.runs += 1;
    packet.write(script.flow_at as usize, Be32::new(script.flow_base.wrapping_add(flow) as u32))
}

/// Nothing: what every XDP program costs.
#[xdp(frags)]
fn pass_floor(_context: XdpContext) -> u32 {
    XDP_PASS
}

/// New MAC addresses, no logic.
#[xdp(frags)]
fn macs_floor(context: XdpContext) -> u32 {
    sent(XdpPacket::new(context).write(0, MacPair::new([2; 6], [4; 6])))
}

/// New MAC addresses, another IPv4 destination and port, and both checksums amended, no logic.
#[xdp(frags)]
fn nat_floor(context: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(context);
    let ip = ETHERNET_LENGTH;
    sent((|| {
        for checksum_at in [ip + 10, ip + IPV4_LENGTH + 16] {
            let checksum: Be16 = packet.read(checksum_at)?;
            packet.write(checksum_at, replace(checksum, Be16::new(0xc000), Be16::new(0x0a00)))?;
        }
        packet.write(ip + 16, Ipv4Address::new([10, 0, 0, 2]))?;
        packet.write(ip + IPV4_LENGTH, Ports::new(40_000, 8080))?;
        packet.write(0, MacPair::new([2; 6], [4; 6]))
    })())
}

/// An IPv4 header of a packet of 100 bytes.
const OUTER4: Ipv4Header = Ipv4Header {
    version_ihl: 0x45,
    tos: 0,
    total_length: Be16::new(100),
    identification: Be16::new(0),
    fragment: Be16::new(0),
    ttl: 64,
    protocol: 4,
    checksum: Be16::new(0),
    source: Ipv4Address::new([10, 0, 0, 1]),
    destination: Ipv4Address::new([10, 0, 0, 2]),
};

/// An IPv4 header and MAC addresses in front, no logic.
#[xdp(frags)]
fn encap20_floor(context: XdpContext) -> u32 {
    sent(encapsulate(&mut XdpPacket::new(context), ETHERTYPE_IPV4, OUTER4))
}

/// IPv4 and UDP headers and MAC addresses in front, no logic.
#[xdp(frags)]
fn encap28_floor(context: XdpContext) -> u32 {
    let ports = Ports::new(50_000, 6080);
    let udp = UdpHeader { ports, length: Be16::new(80), checksum: Be16::new(0) };
    sent(encapsulate(&mut XdpPacket::new(context), ETHERTYPE_IPV4, OuterGue { ip: OUTER4, udp }))
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct OuterGue {
    ip: Ipv4Header,
    udp: UdpHeader,
}

/// An IPv6 header and MAC addresses in front, no logic.
#[xdp(frags)]
fn encap40_floor(context: XdpContext) -> u32 {
    let header = Ipv6Header {
        version_class_flow: Be32::new(6 << 28),
        payload_length: Be16::new(100),
        next_header: 41,
        hop_limit: 64,
        // No two bytes alike: LLVM makes a call of setting bytes that are.
        source: Ipv6Address::new([0x20, 1, 0xd, 0xb8, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
        destination: Ipv6Address::new([0x21, 1, 0xd, 0xb8, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17]),
    };
    sent(encapsulate(&mut XdpPacket::new(context), ETHERTYPE_IPV6, header))
}

#[inline(always)]
fn encapsulate<H: bytemuck::NoUninit>(packet: &mut XdpPacket, ethertype: Be16, header: H) -> Option<()> {
    packet.grow(size_of::<H>())?;
    packet.write(ETHERNET_LENGTH, header)?;
    packet.write(0, MacPair::new([2; 6], [4; 6]))?;
    packet.write(MACS_LENGTH, ethertype)
}

#[inline(always)]
fn sent(done: Option<()>) -> u32 {
    if done.is_some() { XDP_TX } else { XDP_ABORTED }
}
