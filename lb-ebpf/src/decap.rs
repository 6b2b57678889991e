//! The XDP program of backends: takes the outer headers off what balancers send, by `lb_common::decap`.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod packet;
mod panic;
mod settings;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::btf_maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use lb_common::decap::{Outcome, Tunnels, decapsulate};
use lb_common::layout::{
    AddressWords, DecapSettings, MAX_ENDPOINTS, MAX_INTERFACES, MAX_SENDERS, TRIE_OFFSET, TrieWords, VipKey,
};
use lb_common::wire::Be16;

use crate::packet::XdpPacket;
use crate::settings::{count_reason, loaded};

/// Addresses at which tunnels end, kept true by `lb decap`.
#[btf_map]
static ENDPOINTS: HashMap<AddressWords, u32, MAX_ENDPOINTS> = HashMap::new();
/// Prefixes that tunnel packets are taken from.
#[btf_map]
static SENDERS: LpmTrie<TrieWords, u32, MAX_SENDERS> = LpmTrie::new();

/// Replaced by `lb decap` at load.
#[unsafe(no_mangle)]
static SETTINGS: DecapSettings =
    DecapSettings { gue_port: Be16::new(0), reserved: 0, interfaces: [0; MAX_INTERFACES] };

#[xdp(frags)]
fn decap(context: XdpContext) -> u32 {
    match decapsulate(&mut XdpPacket::new(context), &KernelTunnels) {
        Outcome::Unwrapped(_) | Outcome::Pass(_) => XDP_PASS,
        Outcome::Drop(_) => XDP_DROP,
    }
}

struct KernelTunnels;

impl Tunnels for KernelTunnels {
    #[inline(always)]
    fn gue_port(&self) -> Be16 {
        loaded(&SETTINGS).gue_port
    }

    #[inline(always)]
    fn is_endpoint(&self, address: VipKey) -> bool {
        ENDPOINTS.get_ptr(address.words()).is_some()
    }

    #[inline(always)]
    fn is_listed(&self, sender: VipKey) -> bool {
        // What no prefix covers is not listed, and what the one of value 0 covers neither.
        SENDERS.get(&Key::new(TRIE_OFFSET + 128, sender.trie_words())).is_some_and(|listed| *listed != 0)
    }

    #[inline(always)]
    fn count(&self, ingress: u32, counter: u32) {
        count_reason(&loaded(&SETTINGS).interfaces, ingress, counter);
    }
}
