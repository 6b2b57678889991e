//! The XDP program of the balancer: the pipeline of `lb-common` on kernel packets and kernel maps.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "the BPF target has compare-and-swap as an intrinsic only")]

mod packet;
mod panic;
mod tables;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::error;
use lb_common::pipeline;
use lb_common::verdict::{DropReason, Verdict};

use crate::packet::XdpPacket;
use crate::tables::KernelTables;

#[xdp]
fn balance(context: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(context);
    match pipeline::balance(&mut packet, &KernelTables) {
        Verdict::Pass(_) => XDP_PASS,
        // The one outcome that is our own mistake. Every other is told by its counter, which costs less.
        Verdict::Drop(DropReason::Inconsistent) => {
            error!(&packet, "a table names an entry that does not exist; please report it");
            XDP_DROP
        }
        Verdict::Drop(_) => XDP_DROP,
        Verdict::Transmit => XDP_TX,
        Verdict::Redirect(interface) => packet::redirect(interface),
    }
}
