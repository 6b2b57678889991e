//! Who is over a limit, as a sample: so small that a flood costs no more to tell of than to drop.
//!
//! Each CPU counts the packets over limits in periods of [`PERIOD_BITS`]. Of a period's first 16 it tells of every one; of
//! the next 16 of one in two, of the next 32 of one in four, and so on: eight for each doubling. Which one of 2^n packets in
//! a row is told of is drawn at random, for traffic that comes in a pattern must not fall in step with the sample. So each
//! packet has the chance of one in 2^n, and what is told stands for 2^n packets: a source's weights add up to its packets,
//! on average exactly.

use bytemuck::{Pod, Zeroable};

use crate::answer;
use crate::hash::HashKey;
use crate::layout::VipKey;
use crate::pipeline::{Clock, Tables};

/// A period is 2^27 ns, 0.13 s: short beside what a rate is a mean of, long beside how long a burst takes.
pub const PERIOD_BITS: u32 = 27;

/// Samplers of one CPU. Limiters that share one share what is told of them.
pub const LANES: u32 = 8;

/// Packets that are told of before only some are: a power of two.
const FIRST: u32 = 16;

/// The most that one sampler tells of `packets` packets of one period.
pub const fn most_told(packets: u32) -> u32 {
    let halvings = match packets.checked_ilog2() {
        Some(log) => log.saturating_sub(FIRST.ilog2()) + 1,
        None => 0,
    };
    FIRST + FIRST / 2 * halvings
}

/// A packet over a limit, and how many such packets it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct OverSample {
    /// Its source, as far as the limiter looks at it.
    pub source: VipKey,
    /// The limiter's [`crate::layout::LimiterEntry::salt`], which no other has or ever had.
    pub salt: u32,
    /// Packets that it stands for.
    pub weight: u32,
}

/// Chooses which packets are told of: one for each CPU and lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sampler {
    /// The present period.
    period: u32,
    /// Packets of it.
    seen: u32,
    /// Number of the packet that is told of next, from 0.
    next: u32,
    /// It stands for 2 to the power of this.
    shift: u32,
    /// Samples told, ever.
    pub told: u64,
    /// Samples that nobody fetched in time, ever.
    pub lost: u64,
}

impl Sampler {
    /// Counts a packet; says how many it stands for if it is to be told of, else 0.
    ///
    /// Not an `Option`: see [`super`]'s search for a way.
    #[inline(always)]
    pub fn meet(&mut self, period: u32, key: &HashKey) -> u32 {
        if self.period != period {
            *self = Self { period, told: self.told, lost: self.lost, ..Self::default() };
        }
        let number = self.seen;
        self.seen = number.wrapping_add(1);
        if number != self.next {
            return 0;
        }
        let weight = 1_u32.wrapping_shl(self.shift);
        // The next packets in a row, of which one is told of.
        let row = (number & weight.wrapping_neg()).wrapping_add(weight);
        if row == FIRST.wrapping_shl(self.shift) {
            self.shift += 1;
        }
        let random = key.source([u64::from(period) << 32 | u64::from(row), 0], answer::SALT) as u32;
        self.next = row.wrapping_add(random & 1_u32.wrapping_shl(self.shift).wrapping_sub(1));
        weight
    }

    /// Counts a sample: whether there was room for it.
    #[inline(always)]
    pub fn count(&mut self, told: bool) {
        self.told += u64::from(told);
        self.lost += u64::from(!told);
    }
}

/// Takes note of a packet over a limit.
#[inline(always)]
pub fn over<T: Tables>(tables: &T, salt: u32, source: VipKey) {
    let lane = salt % LANES;
    let period = (tables.now(Clock::Jiffies) >> PERIOD_BITS) as u32;
    let weight = tables.meet_over(lane, period);
    if weight != 0 {
        tables.tell_over(lane, &OverSample { source, salt, weight });
    }
}

const _: () = assert!(LANES.is_power_of_two() && FIRST.is_power_of_two() && FIRST > 1);
const _: () = assert!(size_of::<OverSample>() == 24 && size_of::<Sampler>() == 32);

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn key() -> HashKey {
        HashKey::from_random(core::array::from_fn(|n| (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// The weights of a period's packets.
    fn weights(sampler: &mut Sampler, period: u32, packets: u32) -> Vec<u32> {
        (0..packets).map(|_| sampler.meet(period, &key())).collect()
    }

    #[test]
    fn the_first_packets_of_a_period_are_all_told_of() {
        let mut sampler = Sampler::default();
        for period in [0, 1, 7] {
            let weights = weights(&mut sampler, period, 1000);
            assert!(weights[..16].iter().all(|weight| *weight == 1), "{weights:?}");
            assert!(weights[16..32].iter().all(|weight| [0, 2].contains(weight)), "{weights:?}");
        }
    }

    #[test]
    fn of_each_row_one_is_told_of_and_stands_for_all() {
        let weights = weights(&mut Sampler::default(), 3, 1 << 16);
        let mut start = FIRST as usize;
        let mut length = 2;
        while start < weights.len() {
            for row in weights[start..2 * start].chunks(length) {
                assert_eq!(row.iter().filter(|weight| **weight != 0).count(), 1, "{row:?}");
                assert_eq!(row.iter().sum::<u32>() as usize, length);
            }
            (start, length) = (2 * start, 2 * length);
        }
        assert_eq!(weights.iter().map(|weight| u64::from(*weight)).sum::<u64>(), 1 << 16);
    }

    #[test]
    fn a_flood_is_told_of_in_few_samples() {
        for packets in [0, 1, 15, 16, 17, 31, 32, 33, 1000, 1 << 20, (1 << 20) + 12_345] {
            let told =
                weights(&mut Sampler::default(), 9, packets).iter().filter(|w| **w != 0).count() as u32;
            assert!(told <= most_told(packets), "{told} of {packets}");
            assert!(told + 8 >= most_told(packets).min(packets), "{told} of {packets}");
        }
        assert_eq!(most_told(10_000_000), 176);
    }

    /// Sources by turns, in step with any sample that were not drawn at random.
    #[test]
    fn sources_that_take_turns_get_their_shares() {
        for sources in [2_u32, 3, 8, 64] {
            let mut sampler = Sampler::default();
            let mut packets = vec![0_u32; sources as usize];
            let periods = 1000;
            for period in 0..periods {
                for (number, weight) in weights(&mut sampler, period, 4096).into_iter().enumerate() {
                    packets[number % sources as usize] += weight;
                }
            }
            let share = f64::from(periods) * 4096.0 / f64::from(sources);
            for told in packets {
                // No more than the greatest weight for each packet: five standard deviations of so many draws.
                let error = 5.0 * (share * 256.0).sqrt();
                assert!((f64::from(told) - share).abs() < error, "{told} of {share} for one of {sources}");
            }
        }
    }
}
