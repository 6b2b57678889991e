//! Packets as the kernel hands them over: the only owner of packet pointers.

use core::arch::asm;
use core::mem::size_of;

use aya_ebpf::helpers::{bpf_redirect, bpf_xdp_adjust_head};
use aya_ebpf::programs::XdpContext;
use bytemuck::{AnyBitPattern, NoUninit};
use lb_common::packet::Packet;

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
        length <= REACH && self.start + length <= self.end
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
}

/// Asks the kernel to send the frame out of another interface; the program returns what this returns.
#[allow(dead_code, reason = "only the balancer redirects")]
#[inline(always)]
pub(crate) fn redirect(interface: u32) -> u32 {
    // SAFETY: the helper takes any interface index and reports a bad one as XDP_ABORTED.
    let action = unsafe { bpf_redirect(interface, 0) };
    action.cast_unsigned() as u32
}
