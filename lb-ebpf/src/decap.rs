//! The XDP program of a backend without tunnel devices: takes the outer header off what the balancer sends.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod packet;
mod panic;

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::decap::decapsulate;

use crate::packet::XdpPacket;

#[xdp(frags)]
fn decap(context: XdpContext) -> u32 {
    decapsulate(&mut XdpPacket::new(context));
    XDP_PASS
}
