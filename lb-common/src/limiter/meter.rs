//! Meters: how fast the sources of a limiter send that only counts, from which a rate can be suggested.
//!
//! A meter counts what each source sends in each second, in words of its own that are those of a fixed window. What it keeps
//! is the [`level`] of each source's busiest second: a *register* of one byte, the one of the source's tag, holds the highest
//! level of all sources with that tag. So a source counts once, however long it is watched, and how many sources got above a
//! level follows from how many registers did (linear counting: Whang, Vander-Zanden and Taylor, 1990). Nothing is sampled, and
//! nothing is lost when a word is taken over, for registers are raised while the second lasts.
//!
//! Seconds are those of the limiter's clock, one after the other. A bucket with a rate of `r` a second and a burst of `2 r` never
//! holds up a source that never sends more than `r` in one of them: a stretch of `t` seconds touches `t + 2` at most. (Their
//! ends are known to 65 microseconds.)

use super::rule::{Algorithm, Rule, STATE_BITS};
use super::{ATTEMPTS, BucketSet, LimiterEvent, Sets, WAYS, find};
use crate::pipeline::Tables;

/// How many meters there are.
pub const METERS: u32 = 8;

/// Registers of one meter: one for each tag.
pub const REGISTERS: u32 = 1 << 16;
/// Registers in one word.
const REGISTERS_PER_WORD: u32 = size_of::<u64>() as u32;
/// Sets of [`WAYS`] words with one meter's registers.
pub const REGISTER_SETS: u32 = REGISTERS / REGISTERS_PER_WORD / WAYS as u32;

/// Levels of a count; 0 is that of nothing.
pub const LEVELS: usize = level(u32::MAX) as usize + 1;

/// What a source sends in one second, as far as a word can count it.
const SECOND: Rule = match Rule::window(Algorithm::FixedWindow, u32::MAX as u64, 1_000_000_000) {
    Ok(rule) => rule,
    Err(_) => panic!("a second is within a window's bounds"),
};

/// The level of a count: four to each power of two, and below 8 the count itself.
#[inline(always)]
pub const fn level(count: u32) -> u8 {
    if count < 4 {
        return count as u8;
    }
    let power = count.ilog2();
    (4 * (power - 1) + (count >> (power - 2) & 3)) as u8
}

/// The highest count of a level.
pub const fn highest(level: u8) -> u32 {
    if level < 4 {
        return level as u32;
    }
    let (power, quarter) = (level as u32 / 4 + 1, level as u64 % 4);
    // One less than the lowest of the next level, which for the last one is 2^32.
    (((5 + quarter) << (power - 2)) - 1) as u32
}

/// Counts `units` units of the source that hashes to `hash`, by the clock of the limiter that has the meter.
#[inline(always)]
pub fn measure<T: Tables>(tables: &T, meter: u32, hash: u64, now: u64, units: u64) {
    let set = Sets::of_meter(tables.bucket_sets(), meter).find(hash);
    let Some(words) = tables.buckets(set) else { return };
    let Some(count) = count(&words, hash, now, units) else {
        tables.count_limiter(meter, LimiterEvent::Contended);
        return;
    };
    let tag = hash as u32 % REGISTERS;
    let place = tag / REGISTERS_PER_WORD;
    if let Some(registers) = tables.registers(meter * REGISTER_SETS + place / WAYS as u32) {
        raise(&registers, place as usize % WAYS, tag % REGISTERS_PER_WORD, level(count));
    }
}

/// What the source has sent in this second, the units included; `None` if no word could be had.
#[inline(always)]
fn count<S: BucketSet>(set: &S, hash: u64, now: u64, units: u64) -> Option<u32> {
    for _ in 0..ATTEMPTS {
        let (way, old, start) = find(set, hash << STATE_BITS, now, &SECOND);
        if way == WAYS {
            return None;
        }
        let Some(new) = SECOND.admit(start, now, units) else { return Some(u32::MAX) };
        if set.exchange(way, old, new) {
            return Some(new as u32);
        }
    }
    None
}

/// Raises a register to a level. If other CPUs spoil all attempts, the source's next packet tries again.
#[inline(always)]
fn raise<S: BucketSet>(set: &S, way: usize, register: u32, level: u8) {
    let shift = register * u8::BITS;
    for _ in 0..ATTEMPTS {
        let old = set.load(way);
        if (old >> shift) as u8 >= level {
            return;
        }
        if set.exchange(way, old, old & !(0xff << shift) | u64::from(level) << shift) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    proptest! {
        #[test]
        fn a_level_holds_what_is_between_its_bounds(count: u32, bits in 0u32..32) {
            let count = count >> bits;
            let level = level(count);
            prop_assert!(count <= highest(level));
            prop_assert!(level == 0 || count > highest(level - 1));
            let over = u64::from(highest(level) - count);
            prop_assert!(count == 0 || 4 * over < u64::from(count), "{over} above {count}");
        }

        /// Why a burst of twice the rate is suggested.
        #[test]
        fn twice_the_rate_at_once_holds_nobody_up_who_keeps_to_it_in_each_second(
            rate in 1u64..200,
            start in 0u64..1 << 40,
            gaps in prop::collection::vec(0u64..2_000_000_000, 1..400),
            hurry in 1u64..1000,
        ) {
            let rule = Rule::token_bucket(rate, 2 * rate).unwrap();
            let set = <[Cell<u64>; WAYS]>::default();
            let (mut now, mut word) = (start, rule.idle_state(start));
            for gap in gaps {
                now += gap / hurry;
                // Packets that would be too many in this second are not sent.
                if SECOND.admit(set[0].get(), now, 0).is_some_and(|seen| seen as u32 >= rate as u32) {
                    continue;
                }
                let sent = count(&set, 0, now, 1).unwrap();
                prop_assert!(u64::from(sent) <= rate);
                let admitted = rule.admit(word, now, 1);
                prop_assert!(admitted.is_some(), "held up at {}", now - start);
                word = admitted.unwrap_or(word);
            }
        }
    }

    #[test]
    fn levels_are_as_many_as_there_are() {
        assert_eq!(LEVELS, 124);
        assert_eq!(highest(LEVELS as u8 - 1), u32::MAX);
        assert_eq!([0, 1, 3, 4, 7, 8, 9, 10, 15, 16].map(level), [0, 1, 3, 4, 7, 8, 8, 9, 11, 12]);
    }

    #[test]
    fn seconds_are_counted_by_themselves_and_busy_words_are_kept() {
        let set = <[Cell<u64>; WAYS]>::default();
        let now = 5 * SECOND_NS + SECOND_NS / 2;
        assert_eq!([1, 1, 40].map(|units| count(&set, 1, now, units)), [Some(1), Some(2), Some(42)]);
        assert_eq!(count(&set, 1, now + SECOND_NS, 1), Some(1));
        for tag in 2..=4 {
            assert_eq!(count(&set, tag, now + SECOND_NS, 1), Some(1));
        }
        assert_eq!(count(&set, 5, now + SECOND_NS, 1), None);
        assert_eq!(count(&set, 5, now + 2 * SECOND_NS, 1), Some(1));
        // More than a word can count is the most that it can.
        assert_eq!(count(&set, 5, now + 2 * SECOND_NS, u64::from(u32::MAX)), Some(u32::MAX));
    }

    #[test]
    fn a_register_is_raised_and_never_lowered() {
        let set = <[Cell<u64>; WAYS]>::default();
        for level in [3, 9, 4] {
            raise(&set, 1, 7, level);
        }
        raise(&set, 1, 0, 0x70);
        assert_eq!(set.each_ref().map(Cell::get), [0, 9 << 56 | 0x70, 0, 0]);
    }
}
