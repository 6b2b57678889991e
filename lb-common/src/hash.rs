//! The keyed flow hash: NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: "UMAC", CRYPTO 1999) and a keyed finaliser.
//!
//! NH multiplies pairs of 32-bit words after adding key words: two different inputs of one length collide with a chance of
//! 2^-32 over the keys, at one multiplication for eight bytes. BPF has no rotate instruction and no wide multiplication,
//! which makes the usual short-input hashes several times as long. The finaliser spreads the sum over all bits and hides
//! NH's linear structure. All balancers of one VIP must use the same key; what enters is the same numbers on hosts of either
//! byte order.

use bytemuck::{Pod, Zeroable};

use crate::wire::{Ipv4Address, Ipv6Address, Ports};

/// The secret of the flow hash, expanded: as the program's read-only data holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct HashKey {
    nh: [u32; NH_WORDS],
    multiplier: u64,
}

const NH_WORDS: usize = 14;
const PORTS: usize = 8;
const SOURCE: usize = 10;
const LIMITER: usize = 12;

const _: () = assert!(size_of::<HashKey>() == 64);

impl HashKey {
    /// A key of zeros, under which everything collides: a placeholder.
    pub const ZERO: Self = Self { nh: [0; NH_WORDS], multiplier: 0 };

    /// The key made of 64 random bits each.
    pub fn from_random(random: [u64; 8]) -> Self {
        let mut nh = [0; NH_WORDS];
        for (word, bits) in nh.chunks_exact_mut(2).zip(random) {
            word[0] = bits as u32;
            word[1] = (bits >> 32) as u32;
        }
        // Odd, so that multiplying loses nothing.
        Self { nh, multiplier: random[7] | 1 }
    }

    #[inline(always)]
    fn pair(&self, at: usize, a: u32, b: u32) -> u64 {
        u64::from(a.wrapping_add(self.nh[at])).wrapping_mul(u64::from(b.wrapping_add(self.nh[at + 1])))
    }

    #[inline(always)]
    fn finish(&self, sum: u64) -> u64 {
        let spread = (sum ^ sum >> 32).wrapping_mul(self.multiplier);
        spread ^ spread >> 32
    }

    /// The part of a flow's hash that two IPv4 addresses give.
    #[inline(always)]
    pub fn ipv4(&self, source: Ipv4Address, destination: Ipv4Address) -> u64 {
        self.pair(0, source.word(), destination.word())
    }

    /// The part of a flow's hash that two IPv6 addresses give.
    #[inline(always)]
    pub fn ipv6(&self, source: Ipv6Address, destination: Ipv6Address) -> u64 {
        let ([s0, s1], [d0, d1]) = (source.words(), destination.words());
        self.pair(0, s0 as u32, d0 as u32)
            .wrapping_add(self.pair(2, (s0 >> 32) as u32, (d0 >> 32) as u32))
            .wrapping_add(self.pair(4, s1 as u32, d1 as u32))
            .wrapping_add(self.pair(6, (s1 >> 32) as u32, (d1 >> 32) as u32))
    }

    /// The hash of a flow. `addresses` is what [`Self::ipv4`] or [`Self::ipv6`] gave.
    #[inline(always)]
    pub fn flow(&self, addresses: u64, ports: Ports, protocol: u8) -> u64 {
        let ports = self.pair(PORTS, ports.word(), u32::from(protocol));
        self.finish(addresses.wrapping_add(ports))
    }

    /// The hash of a flow as far as its source address goes, for services that keep a client's flows together.
    #[inline(always)]
    pub fn affinity(&self, addresses: u64) -> u64 {
        self.finish(addresses)
    }

    /// The hash that all fragments of a packet have in common. Protocol numbers end at 255: no flow hashes like that.
    #[inline(always)]
    pub fn fragments(&self, addresses: u64, identification: usize, protocol: u8) -> u64 {
        let number = self.pair(PORTS, identification as u32, u32::from(protocol) | 1 << 16);
        self.finish(addresses.wrapping_add(number))
    }

    /// The hash of a limited source: 16 bytes of it, and the limiter's salt. Only buckets are found by it, so it may use the
    /// words of the key that hash ports elsewhere.
    #[inline(always)]
    pub fn source(&self, [high, low]: [u64; 2], salt: u32) -> u64 {
        let halves = self.pair(PORTS, low as u32, (low >> 32) as u32).wrapping_add(self.pair(
            SOURCE,
            high as u32,
            (high >> 32) as u32,
        ));
        self.finish(halves.wrapping_add(self.pair(LIMITER, salt, 0)))
    }
}

/// Maps a hash to `0..count` without division: the upper 32 bits decide (Lemire, "Fast random integer generation in an
/// interval", 2019).
#[inline(always)]
pub const fn scale(hash: u64, count: u32) -> u32 {
    (((hash >> 32) * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn key() -> HashKey {
        let mut state = 7u64;
        HashKey::from_random(core::array::from_fn(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state ^ state >> 29
        }))
    }

    /// Chi-squared over 1024 cells of 64 expected each; a fair hash stays below this with a chance of 0.9999.
    fn assert_even(hashes: impl Iterator<Item = u64>) {
        let mut cells = vec![0u32; 1024];
        let mut count = 0u32;
        for hash in hashes {
            cells[scale(hash, 1024) as usize] += 1;
            count += 1;
        }
        let expected = f64::from(count) / 1024.0;
        let chi: f64 = cells.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
        assert!(chi < 1200.0, "chi-squared {chi} for 1023 degrees of freedom");
    }

    #[test]
    fn neighbouring_ports_spread() {
        let key = key();
        let addresses = key.ipv4(Ipv4Address::new([10, 0, 0, 1]), Ipv4Address::new([192, 0, 2, 10]));
        assert_even((0..=u16::MAX).map(|port| key.flow(addresses, Ports::new(port, 80), 6)));
    }

    #[test]
    fn neighbouring_sources_spread() {
        let key = key();
        assert_even((0..=u16::MAX).map(|n| {
            let [high, low] = n.to_be_bytes();
            let source = Ipv4Address::new([10, 9, high, low]);
            key.flow(key.ipv4(source, Ipv4Address::new([192, 0, 2, 10])), Ports::new(1024, 80), 17)
        }));
        assert_even((0..=u16::MAX).map(|n| {
            let mut source = [0x20; 16];
            source[14..].copy_from_slice(&n.to_be_bytes());
            let addresses = key.ipv6(Ipv6Address::new(source), Ipv6Address::new([0xfd; 16]));
            key.flow(addresses, Ports::new(1024, 80), 17)
        }));
        assert_even((0..=u16::MAX).map(|n| key.source([u64::from(n), 0], 3)));
    }

    #[test]
    fn scale_stays_below_its_count() {
        assert_eq!(scale(u64::MAX, 65_537), 65_536);
        assert_eq!(scale(0, 65_537), 0);
    }
}
