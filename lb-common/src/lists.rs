//! Deny and allow lists: what is said of a packet's source, by the longest listed prefix that it is in.
//!
//! Both lists are one table, so that one look-up decides. There are two such tables, and packets ask the one that
//! [`Features`] names: the daemon fills the other one, then changes that word. So no packet ever meets a list that is empty
//! or half filled. A list is asked about packets for a VIP only.

use bytemuck::{Pod, Zeroable};

use crate::layout::{Features, VipKey};
use crate::packet::Packet;
use crate::pipeline::{Tables, source_of};

/// What the lists say of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Listed {
    /// Nothing.
    #[default]
    No = 0,
    /// Its packets are dropped.
    Denied = 1,
    /// Its packets are not limited.
    Allowed = 2,
}

impl Listed {
    /// As a table holds it.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self as u32
    }

    /// From what a table held.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        match word {
            1 => Self::Denied,
            2 => Self::Allowed,
            _ => Self::No,
        }
    }
}

/// A listed prefix as the kernel has it: `struct bpf_lpm_trie_key` of include/uapi/linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct ListKey {
    /// Bits that count.
    pub length: u32,
    /// An IPv6 address in network order, or an IPv4 address mapped into IPv6: what of a [`VipKey`] was known at first.
    pub address: [u32; 4],
}

impl ListKey {
    /// Bits of an address.
    pub const BITS: u32 = 128;
    /// Bits before the address of one that is mapped into IPv6 (RFC 4291, section 2.5.5.2).
    pub const MAPPED: u32 = 96;

    /// The key by which an address is looked up.
    #[inline(always)]
    pub fn of(source: VipKey) -> Self {
        Self { length: Self::BITS, address: bytemuck::cast([source.high, source.low]) }
    }
}

/// One of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

impl Side {
    /// The other table.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The features that make packets ask this table.
    pub const fn features(self) -> u64 {
        match self {
            Self::A => Features::LISTS,
            Self::B => Features::LISTS | Features::SIDE_B,
        }
    }
}

/// What the lists say of the sender of a packet whose IP header begins at `start` and was read before.
#[inline(always)]
pub fn listed<P: Packet, T: Tables>(packet: &P, tables: &T, start: usize, is_ipv6: bool) -> Listed {
    let Some(source) = source_of(packet, start, is_ipv6) else { return Listed::No };
    tables.listed(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Ipv4Address;

    #[test]
    fn a_key_has_its_bytes_in_network_order() {
        let key = ListKey::of(VipKey::v4(Ipv4Address::new([192, 0, 2, 1])));
        let bytes = bytemuck::bytes_of(&key);
        assert_eq!(bytes[..4], 128u32.to_ne_bytes());
        assert_eq!(bytes[4..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
    }

    #[test]
    fn words_survive_a_round_trip() {
        for listed in [Listed::No, Listed::Denied, Listed::Allowed] {
            assert_eq!(Listed::from_word(listed.word()), listed);
        }
        for side in [Side::A, Side::B] {
            assert_eq!(Features(side.features()).lists(), Some(side));
            assert_eq!(Features(side.features() | Features::REPLIES).lists(), Some(side));
            assert_ne!(side.other(), side);
        }
        assert_eq!(Features(!Features::LISTS).lists(), None);
    }
}
