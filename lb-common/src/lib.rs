//! The load balancer's core: everything that decides what happens to a packet, and nothing that touches a kernel.
//!
//! The crate is `no_std` and free of `unsafe`. `lb-ebpf` runs it on kernel pointers and maps, the daemon and the tests run
//! the same code on byte slices and ordinary memory. Read it in the order of a packet's way: [`packet`], [`ip`],
//! [`transport`], [`hash`], [`limiter`], [`slot`], [`deliver`], tied together in [`pipeline`]. [`layout`] is the shape of
//! the tables that the daemon writes and the program reads.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod answer;
pub mod aside;
pub mod bench;
pub mod checksum;
pub mod decap;
pub mod deliver;
pub mod ecn;
pub mod flow;
pub mod fragment;
pub mod frame;
pub mod hash;
pub mod icmp;
pub mod ip;
pub mod layout;
pub mod limiter;
pub mod link;
pub mod lists;
#[cfg(feature = "alloc")]
pub mod maglev;
pub mod owner;
pub mod packet;
pub mod pipeline;
pub mod slot;
pub mod traffic;
pub mod translate;
pub mod transport;
pub mod verdict;
pub mod wire;
