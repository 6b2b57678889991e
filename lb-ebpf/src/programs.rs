//! The programs: the pipeline of `lb-common` on kernel packets and kernel maps.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::error;
use lb_common::layout::{ASIDE, DETOUR};
use lb_common::pipeline::{self, Passage};
use lb_common::verdict::{DropReason, Verdict};

use crate::packet::{XdpPacket, redirect};
use crate::tables::KernelTables;

/// The other programs, by the numbers below. The daemon fills it before it attaches `balance`.
///
/// They are programs of their own because each so has a stack of its own, of 512 bytes like any, and is followed by the
/// verifier by itself. What leaves the usual way leaves it for good, as a tail call does.
#[btf_map]
static WAYS: ProgramArray<2> = ProgramArray::new();

/// The way of nearly every packet.
#[xdp(frags)]
fn balance(context: XdpContext) -> u32 {
    let program_context = XdpContext::new(context.ctx);
    match pipeline::usual(&mut XdpPacket::new(context), &KernelTables) {
        Passage::Decided(Verdict::Drop(DropReason::Inconsistent)) => tell_mistake(),
        Passage::Decided(verdict) => action(verdict),
        Passage::TooBig(room) => tell_size(program_context.ctx, room),
        Passage::Detour | Passage::Aside => go_on(&program_context, DETOUR),
    }
}

/// The way of any packet for a VIP.
#[xdp(frags)]
fn detour(context: XdpContext) -> u32 {
    let program_context = XdpContext::new(context.ctx);
    match pipeline::detour(&mut XdpPacket::new(context), &KernelTables) {
        Passage::Decided(Verdict::Drop(DropReason::Inconsistent)) | Passage::Detour => tell_mistake(),
        Passage::Decided(verdict) => action(verdict),
        Passage::TooBig(room) => tell_size(program_context.ctx, room),
        Passage::Aside => go_on(&program_context, ASIDE),
    }
}

/// The way of what is for no VIP, while there is anything to do for such packets.
#[xdp(frags)]
fn aside(context: XdpContext) -> u32 {
    action(lb_common::aside::aside(&mut XdpPacket::new(context), &KernelTables))
}

/// Goes on in another program; returns only if it is not there, which the daemon sees to.
#[inline(always)]
fn go_on(context: &XdpContext, way: u32) -> u32 {
    // SAFETY: all programs in the array are XDP programs.
    unsafe { WAYS.tail_call(context, way) };
    XDP_PASS
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tell_size(context: *mut xdp_md, room: u16) -> u32 {
    action(pipeline::tell_size(&mut XdpPacket::new(XdpContext::new(context)), &KernelTables, room))
}

/// The one outcome that is our own mistake. Every other is told by its counter, which costs less.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tell_mistake() -> u32 {
    error!(&(), "a table names an entry that does not exist; please report it");
    XDP_DROP
}

#[inline(always)]
fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Drop(_) => XDP_DROP,
        Verdict::Answer(_) | Verdict::Transmit => XDP_TX,
        Verdict::Redirect(interface) => redirect(interface),
    }
}
