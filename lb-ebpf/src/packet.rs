//! Packets as the kernel hands them over: the only owner of packet pointers.

use core::arch::asm;
use core::mem::{offset_of, size_of};

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    bpf_fib_lookup as bpf_fib_lookup_params, xdp_md,
};
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_fib_lookup, bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
    bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use bytemuck::{AnyBitPattern, NoUninit};
use lb_common::checksum::Sum;
use lb_common::ip::Extensions;
use lb_common::link::Link;
use lb_common::packet::{Hop, Onward, Packet, Routed, RoutedAddresses};
use lb_common::wire::{Be16, MacPair};

/// The furthest byte that is ever read or written: `MAX_PACKET_OFF` of the verifier, which loses track beyond it.
const REACH: usize = 0xffff;

/// A frame between two kernel pointers.
pub(crate) struct XdpPacket {
    context: XdpContext,
    start: usize,
    end: usize,
}

impl XdpPacket {
    #[inline(always)]
    pub(crate) fn new(context: XdpContext) -> Self {
        let mut packet = Self { context, start: 0, end: 0 };
        packet.reload();
        packet
    }

    /// Fetches the pointers, at first and whenever the kernel has moved the head.
    ///
    /// LLVM takes `data` and `data_end` for the 32-bit integers that `xdp_md` declares and would spill them as such, which
    /// the verifier refuses: it has pointers there. Assembly gives them to LLVM as 64-bit values.
    #[inline(always)]
    fn reload(&mut self) {
        // SAFETY: `context` is the program's own context, whose words at 0 and 4 the verifier turns into the packet's
        // start and end. Nothing else is read, and nothing is written.
        unsafe {
            asm!(
                "{start} = *(u32 *)({context} + 0)",
                "{end} = *(u32 *)({context} + 4)",
                context = in(reg) self.context.ctx,
                start = out(reg) self.start,
                end = out(reg) self.end,
                options(nostack, preserves_flags, readonly),
            );
        }
    }

    /// A pointer to a `T` at `offset`, if the frame holds all of it.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        if offset > REACH - size_of::<T>() {
            return None;
        }
        let address = self.start + offset;
        if address + size_of::<T>() > self.end { None } else { Some(address as *mut T) }
    }

    /// The frame's length, all buffers together.
    #[inline(always)]
    fn whole_length(&self) -> usize {
        // SAFETY: `context` is the program's own.
        unsafe { bpf_xdp_get_buff_len(self.context.ctx) as usize }
    }

    #[inline(always)]
    fn move_head(&mut self, delta: isize) -> Option<()> {
        // SAFETY: `context` is the program's own. The old pointers are dead after the call and replaced below.
        let failed = unsafe { bpf_xdp_adjust_head(self.context.ctx, delta as i32) };
        self.reload();
        if failed == 0 { Some(()) } else { None }
    }
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn read<T: AnyBitPattern>(&self, offset: usize) -> Option<T> {
        let pointer = self.at::<T>(offset)?;
        // SAFETY: `at` proved the bytes inside the frame, and every pattern of them is a `T`.
        Some(unsafe { pointer.read_unaligned() })
    }

    #[inline(always)]
    fn write<T: NoUninit>(&mut self, offset: usize, value: T) -> Option<()> {
        let pointer = self.at::<T>(offset)?;
        // SAFETY: `at` proved the bytes inside the frame, which this program owns while it runs.
        unsafe { pointer.write_unaligned(value) };
        Some(())
    }

    #[inline(always)]
    fn holds(&self, length: usize) -> bool {
        // Verifiers before Linux 6.18 do not know that a number whose bytes were swapped has 16 bits, and LLVM, which does, compares
        // half of the register.
        length <= REACH && self.start + seen_within::<{ REACH as u64 }>(length as u64) as usize <= self.end
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.whole_length()
    }

    #[inline(always)]
    fn sum(&self, offset: usize, length: usize) -> Option<Sum> {
        let sum = sum(self.context.ctx, offset as u32, length as u32);
        u32::try_from(sum).ok().map(Sum::from_raw)
    }

    #[inline(always)]
    fn link(&self) -> Option<(usize, Be16)> {
        let extent = link(self.context.ctx);
        let length = (extent & 31) as usize;
        (length != 0).then_some((length, Be16::from_raw((extent >> 16) as u16)))
    }

    #[inline(always)]
    fn extensions(&self, start: usize, next: u8) -> Option<Extensions> {
        let word = extensions(self.context.ctx, start as u32, u32::from(next));
        (word != u64::MAX).then_some(Extensions::from_word(word))
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) -> Option<()> {
        let surplus = self.whole_length().checked_sub(length)?;
        // SAFETY: `context` is the program's own. The old pointers are dead after the call and replaced below.
        let failed =
            unsafe { bpf_xdp_adjust_tail(self.context.ctx, (surplus as u32).wrapping_neg().cast_signed()) };
        self.reload();
        if failed == 0 { Some(()) } else { None }
    }

    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> Option<()> {
        self.move_head(0isize.wrapping_sub_unsigned(bytes))
    }

    #[inline(always)]
    fn shrink(&mut self, bytes: usize) -> Option<()> {
        self.move_head(0isize.wrapping_add_unsigned(bytes))
    }

    #[inline(always)]
    fn ingress(&self) -> u32 {
        // SAFETY: `context` is the program's own, readable for as long as it runs.
        unsafe { (*self.context.ctx).ingress_ifindex }
    }

    #[inline(always)]
    fn route(&self, packet: &Routed) -> Onward {
        let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return Onward::Nowhere };
        let words = scratch.cast::<Query>();
        // SAFETY: the scratch has room for a query, and nobody else uses it now.
        unsafe { words.write(query(packet, self.ingress())) };
        // SAFETY: `context` is the program's own, and the query is as large as the helper is told.
        let found = unsafe { bpf_fib_lookup(self.context.ctx.cast(), words.cast(), QUERY_LENGTH, 0) };
        // SAFETY: as above; the helper has put its answer there.
        let words = unsafe { words.read() };
        match u32::try_from(found) {
            // Source and destination stand in the other order there.
            Ok(BPF_FIB_LKUP_RET_SUCCESS) => Onward::Hop(Hop {
                interface: words[2],
                macs: MacPair::from_words([words[13], words[14], words[15]]).reversed(),
            }),
            Ok(BPF_FIB_LKUP_RET_NO_NEIGH) => Onward::Host,
            Ok(BPF_FIB_LKUP_RET_FRAG_NEEDED) => Onward::TooBig,
            _ => Onward::Nowhere,
        }
    }
}

/// [`Link::extent`]: the length in bits 0-4, 0 for none, and the `EtherType` in bits 16-31.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn link(context: *mut xdp_md) -> u32 {
    let extent = Link::extent(&XdpPacket::new(XdpContext::new(context)));
    extent.map_or(0, |(length, ethertype)| length as u32 | u32::from(ethertype.raw()) << 16)
}

/// [`Extensions::walk`]: the word, all ones for none.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn extensions(context: *mut xdp_md, start: u32, next: u32) -> u64 {
    let walked = Extensions::walk(&XdpPacket::new(XdpContext::new(context)), start as usize, next as u8);
    walked.map_or(u64::MAX, Extensions::word)
}

/// `struct bpf_fib_lookup` of `include/uapi/linux/bpf.h` in words, since the stack wants aligned accesses and its fields do
/// not lie like that. Its addresses begin at words 4 and 8, its MAC addresses, the source's first, at word 13.
type Query = [u32; 16];

/// Its bytes.
const QUERY_LENGTH: i32 = 64;

const _: () = assert!(size_of::<bpf_fib_lookup_params>() == 64 && size_of::<Query>() == 64);
const _: () =
    assert!(offset_of!(bpf_fib_lookup_params, ifindex) == 8 && offset_of!(bpf_fib_lookup_params, smac) == 52);

/// `AF_INET` and `AF_INET6` of `include/linux/socket.h`.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

#[inline(always)]
fn query(packet: &Routed, ingress: u32) -> Query {
    let family = if matches!(packet.addresses, RoutedAddresses::V4(..)) { AF_INET } else { AF_INET6 };
    let [s0, s1, s2, s3, d0, d1, d2, d3]: [u32; 8] = match packet.addresses {
        RoutedAddresses::V4(source, destination) => [source.raw(), 0, 0, 0, destination.raw(), 0, 0, 0],
        RoutedAddresses::V6(source, destination) => bytemuck::cast([source.raw(), destination.raw()]),
    };
    // Bytes of family and protocol, source port; destination port, length.
    let (first, second) = (family | u32::from(packet.protocol) << 8, u32::from(packet.length) << 16);
    // IPv6 has its flow label in this place, which routes do not look at.
    let tos = if family == AF_INET { u32::from(packet.tos) } else { 0 };
    [first, second, ingress, tos, s0, s1, s2, s3, d0, d1, d2, d3, 0, 0, 0, 0]
}

/// Words of [`SCRATCH`].
const WORDS: usize = 128;

/// Room for what the 512 bytes of stack have no room for, used within one function call only: a program is not interrupted by
/// another one on its CPU.
#[btf_map]
static SCRATCH: PerCpuArray<[u32; WORDS], 1> = PerCpuArray::new();

/// Bytes that are summed up at once, a power of two: the most that `bpf_csum_diff` takes on older kernels.
const CHUNK: u32 = (WORDS * size_of::<u32>()) as u32;
/// Chunks that are summed up at most: as many as the longest packet has. The verifier follows each.
const CHUNKS: usize = (1 << 16) / CHUNK as usize;

/// The same number, which has no bit that `MASK` lacks: written down for verifiers that do not see it. In assembly, since LLVM
/// does see it, and would leave it out.
#[inline(always)]
fn seen_within<const MASK: u64>(mut number: u64) -> u64 {
    // SAFETY: changes nothing but this register, and nothing in it.
    unsafe { asm!("{0} &= {1}", inout(reg) number, const MASK, options(pure, nomem, nostack)) };
    number
}

/// The sum of a frame's bytes, folded once; negative beyond its end. Rare and long: a function of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn sum(context: *mut xdp_md, offset: u32, length: u32) -> i64 {
    let Some(chunk) = SCRATCH.get_ptr_mut(0) else { return -1 };
    let (mut sum, mut at, mut left) = (0, offset, length);
    for _ in 0..CHUNKS {
        if left < CHUNK {
            break;
        }
        sum = add_chunk(context, at, CHUNK, chunk, sum);
        if sum < 0 {
            return sum;
        }
        at += CHUNK;
        left -= CHUNK;
    }
    if left >= CHUNK {
        return -1;
    }
    if left > 0 {
        // The helper takes no length of zero, and Linux 6.1 sees only from what is computed that this is none.
        let rest = (seen_within::<{ CHUNK as u64 - 1 }>(u64::from(left) - 1) + 1) as u32;
        for word in 0..WORDS {
            let word = chunk.cast::<u32>().wrapping_add(word);
            // SAFETY: inside the chunk. Volatile, or LLVM makes a call of it.
            unsafe { word.write_volatile(0) };
        }
        sum = add_chunk(context, at, rest, chunk, sum);
    }
    sum
}

/// Adds `size` bytes, a whole chunk or what is left, to a folded sum.
#[inline(always)]
fn add_chunk(context: *mut xdp_md, at: u32, size: u32, chunk: *mut [u32; WORDS], sum: i64) -> i64 {
    // SAFETY: `context` is the program's own, and the chunk holds `size` bytes.
    if unsafe { bpf_xdp_load_bytes(context, at, chunk.cast(), size) } != 0 {
        return -1;
    }
    // SAFETY: the helper reads the chunk, and nothing in place of another one.
    let sum =
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, chunk.cast(), CHUNK, sum.cast_unsigned() as u32) };
    // Folded, so that more can be added to it without overflow.
    let sum = sum.cast_unsigned() as u32;
    i64::from((sum & 0xffff) + (sum >> 16))
}

/// Asks the kernel to send the frame out of another interface; the program returns what this returns.
#[allow(dead_code, reason = "only the balancer redirects")]
#[inline(always)]
pub(crate) fn redirect(interface: u32) -> u32 {
    // SAFETY: the helper takes any interface index and reports a bad one as XDP_ABORTED.
    let action = unsafe { bpf_redirect(interface, 0) };
    action.cast_unsigned() as u32
}
