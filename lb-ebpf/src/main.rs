//! The XDP program of the balancer.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "the BPF target has compare-and-swap as an intrinsic only")]

mod clock;
mod packet;
mod panic;
mod programs;
mod settings;
mod tables;
