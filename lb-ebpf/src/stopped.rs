//! The XDP program of the balancer with clocks that stand until they are set, and nothing else that differs: so the kernel can be
//! shown any moment, and the pipeline on the host the same.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "the BPF target has compare-and-swap as an intrinsic only")]

#[path = "stopped/clock.rs"]
mod clock;
mod packet;
mod panic;
mod programs;
mod settings;
mod tables;
