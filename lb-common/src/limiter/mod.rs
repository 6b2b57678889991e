//! Token buckets in one word each: the generic cell rate algorithm (ITU-T I.371, annex A) in a set-associative array.
//!
//! A bucket is a 16-bit tag and a 48-bit time, the theoretical arrival time (TAT): the moment at which the bucket will be
//! full again. A time in the past therefore says nothing, and its word can be taken over by another source without losing
//! anything. That is what makes a fixed array enough: no allocation, no eviction, and a flood of spoofed sources costs
//! what any packet costs.
//!
//! Times are nanoseconds modulo 2^48 (78 hours). A time counts as future only if it is less than [`HORIZON_NS`] ahead, so a
//! word that was left alone for days can look busy for 68 seconds in 78 hours. A word of zero was never used: it is vacant
//! at any time.

pub mod rule;

use core::cell::Cell;

use bytemuck::{Pod, Zeroable};

use crate::hash::scale;
use crate::pipeline::Clock;

/// Buckets of one set.
pub const WAYS: usize = 4;

/// The furthest a TAT can be ahead: 68 seconds. `burst / rate` must stay below it.
pub const HORIZON_NS: u64 = 1 << 36;

const TIME_BITS: u32 = 48;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Attempts at changing a set that other CPUs change too, before the packet is let through.
const ATTEMPTS: usize = 4;

/// The set of a hash, among `sets`: the lower half of them holds the times of [`Clock::Jiffies`], the upper half those of
/// [`Clock::Exact`]. Times of both in one set could not be told from each other.
#[inline(always)]
pub const fn set_of(hash: u64, sets: u32, clock: Clock) -> u32 {
    let half = sets / 2;
    let first = if matches!(clock, Clock::Exact) { half } else { 0 };
    first + scale(hash, half)
}

/// A rate and a burst as GCRA has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Gcra {
    /// Nanoseconds that one packet costs: 10^9 / rate.
    pub interval: u64,
    /// How far the TAT may be ahead of a packet that is still admitted: (burst - 1) x interval.
    pub tolerance: u64,
}

impl Gcra {
    /// The parameters of `rate` packets a second and `burst` at once, or `None` if the bucket takes longer than
    /// [`HORIZON_NS`] to fill or a value is zero.
    ///
    /// The interval is rounded down, so that the rate is never less than asked; it is exact to `rate / 10^9`.
    pub const fn try_new(rate: u64, burst: u32) -> Option<Self> {
        if rate == 0 || rate > 1_000_000_000 || burst == 0 {
            return None;
        }
        let interval = 1_000_000_000 / rate;
        let tolerance = interval * (burst as u64 - 1);
        if tolerance + interval < HORIZON_NS { Some(Self { interval, tolerance }) } else { None }
    }

    /// Whether a clock with this tick, in nanoseconds, is fine enough: packets of one tick must fit the burst.
    pub const fn covers(&self, tick: u64) -> bool {
        self.tolerance + self.interval >= 2 * tick
    }

    /// What a packet at `now` does to the bucket `word`: the new word, or `None` if it is over the limit.
    ///
    /// The word's tag is the caller's; `word` may be anything, for times beyond what these parameters can produce count as
    /// the emptiest bucket they can.
    #[inline(always)]
    pub fn admit(&self, word: u64, now: u64) -> Option<u64> {
        let debt = ahead(word, now).min(self.tolerance + self.interval);
        if debt > self.tolerance {
            return None;
        }
        Some(word & !TIME_MASK | now.wrapping_add(debt).wrapping_add(self.interval) & TIME_MASK)
    }
}

/// Nanoseconds by which the word's time is ahead of `now`; 0 if it is past.
#[inline(always)]
fn ahead(word: u64, now: u64) -> u64 {
    let difference = word.wrapping_sub(now) & TIME_MASK;
    if difference < HORIZON_NS { difference } else { 0 }
}

/// One set of buckets that several CPUs change at once.
pub trait BucketSet {
    /// The word of a way below [`WAYS`].
    fn load(&self, way: usize) -> u64;

    /// Replaces the word of a way if it is still `old`; says whether it was.
    fn exchange(&self, way: usize, old: u64, new: u64) -> bool;
}

/// A set in ordinary memory, for one thread.
impl BucketSet for [Cell<u64>; WAYS] {
    fn load(&self, way: usize) -> u64 {
        self[way].get()
    }

    fn exchange(&self, way: usize, old: u64, new: u64) -> bool {
        let same = self[way].get() == old;
        if same {
            self[way].set(new);
        }
        same
    }
}

impl<S: BucketSet + ?Sized> BucketSet for &S {
    fn load(&self, way: usize) -> u64 {
        (**self).load(way)
    }

    fn exchange(&self, way: usize, old: u64, new: u64) -> bool {
        (**self).exchange(way, old, new)
    }
}

/// What the limiter says to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Within its rate.
    Admitted,
    /// Over its rate.
    Limited,
    /// No bucket could be had; let through.
    Contended,
}

/// Charges one packet of the source that hashes to `hash` to its bucket in `set`.
///
/// The tag is the lower 16 bits of the hash; the caller chose the set by the upper ones.
#[inline(always)]
pub fn charge<S: BucketSet>(set: &S, hash: u64, now: u64, limit: &Gcra) -> Admission {
    for _ in 0..ATTEMPTS {
        if let Some(admission) = charge_once(set, hash, now, limit) {
            return admission;
        }
    }
    Admission::Contended
}

/// [`charge`] with one attempt: `None` if another CPU changed the bucket in the meantime.
#[inline(always)]
pub fn charge_once<S: BucketSet>(set: &S, hash: u64, now: u64, limit: &Gcra) -> Option<Admission> {
    let (way, old, start) = find(set, hash << TIME_BITS, now);
    if way == WAYS {
        return Some(Admission::Contended);
    }
    let Some(new) = limit.admit(start, now) else { return Some(Admission::Limited) };
    set.exchange(way, old, new).then_some(Admission::Admitted)
}

/// The way of the tag's bucket, or else the first that has nothing to say, or else [`WAYS`]; its word, and the word to go on
/// from. Not an `Option` inside the loop: LLVM would carry its absent half along as an undefined value, and the verifier
/// refuses to see one stored.
#[inline(always)]
fn find<S: BucketSet>(set: &S, tag: u64, now: u64) -> (usize, u64, u64) {
    let (mut vacant, mut old) = (WAYS, 0);
    for way in 0..WAYS {
        let word = set.load(way);
        if word & !TIME_MASK == tag {
            return (way, word, word);
        }
        if vacant == WAYS && (word == 0 || ahead(word, now) == 0) {
            (vacant, old) = (way, word);
        }
    }
    (vacant, old, tag | now & TIME_MASK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    type Set = [Cell<u64>; WAYS];

    /// A bucket that counts tokens in 1/10^9, the slow and obvious way.
    struct Reference {
        rate: u64,
        burst: u64,
        tokens: u128,
        last: u64,
    }

    impl Reference {
        fn new(rate: u64, burst: u32, now: u64) -> Self {
            let burst = u64::from(burst);
            Self { rate, burst, tokens: u128::from(burst) * 1_000_000_000, last: now }
        }

        fn admit(&mut self, now: u64) -> bool {
            self.tokens += u128::from(now - self.last) * u128::from(self.rate);
            self.tokens = self.tokens.min(u128::from(self.burst) * 1_000_000_000);
            self.last = now;
            let admitted = self.tokens >= 1_000_000_000;
            if admitted {
                self.tokens -= 1_000_000_000;
            }
            admitted
        }
    }

    proptest! {
        /// With a rate that divides 10^9 the two agree packet by packet.
        #[test]
        fn gcra_is_the_token_bucket(
            rate in prop::sample::select(std::vec![1u64, 10, 125, 1000, 50_000, 1_000_000]),
            burst in 1u32..50,
            start in any::<u64>().prop_map(|n| n >> 8),
            gaps in prop::collection::vec(0u64..4, 1..300),
        ) {
            let limit = Gcra::try_new(rate, burst).unwrap();
            let mut reference = Reference::new(rate, burst, start);
            let set = Set::default();
            let mut now = start;
            for gap in gaps {
                now += gap * limit.interval / 2;
                let admitted = charge(&set, 0xabcd, now, &limit) == Admission::Admitted;
                prop_assert_eq!(admitted, reference.admit(now), "at {}", now - start);
            }
        }

        /// Whatever the word and the clock, a source never gets more than one burst at once.
        #[test]
        fn no_word_mints_tokens(word: u64, now: u64, rate in 1u64..1_000_000, burst in 1u32..1000) {
            let limit = Gcra::try_new(rate, burst).unwrap();
            let mut word = word;
            let mut admitted = 0;
            while let Some(next) = limit.admit(word, now) {
                word = next;
                admitted += 1;
                prop_assert!(admitted <= burst);
            }
        }
    }

    #[test]
    fn a_clock_that_runs_backwards_mints_nothing() {
        let limit = Gcra::try_new(1000, 5).unwrap();
        let set = Set::default();
        let now = 1_000_000_000;
        let burst: Vec<_> = (0..6).map(|_| charge(&set, 9, now, &limit)).collect();
        assert_eq!(burst[4..], [Admission::Admitted, Admission::Limited]);
        assert_eq!(charge(&set, 9, now - 500_000_000, &limit), Admission::Limited);
    }

    #[test]
    fn a_set_full_of_busy_sources_lets_strangers_through() {
        let limit = Gcra::try_new(1, 1).unwrap();
        let set = Set::default();
        let now = 5_000_000_000;
        for tag in 1..=4 {
            assert_eq!(charge(&set, tag, now, &limit), Admission::Admitted);
        }
        assert_eq!(charge(&set, 5, now, &limit), Admission::Contended);
        assert_eq!(charge(&set, 4, now, &limit), Admission::Limited);
        assert_eq!(charge(&set, 5, now + 1_000_000_000, &limit), Admission::Admitted);
    }

    #[test]
    fn an_unused_array_is_vacant_at_any_time() {
        let limit = Gcra::try_new(1, 1).unwrap();
        // Just before the 48 bits wrap, a time of zero would lie in the near future.
        assert_eq!(charge(&Set::default(), 7, (1 << TIME_BITS) - 5, &limit), Admission::Admitted);
    }

    #[test]
    fn a_full_bucket_may_be_taken_over() {
        let limit = Gcra::try_new(1000, 10).unwrap();
        let set = Set::default();
        charge(&set, 1, 0x1000_0000, &limit);
        assert_eq!(charge(&set, 2, 0x1000_0000 + 2_000_000, &limit), Admission::Admitted);
        assert_eq!(set.load(0) >> TIME_BITS, 2, "the first way was free again");
        assert_eq!(set.load(1), 0);
    }

    #[test]
    fn clocks_do_not_share_sets() {
        for (hash, jiffies, exact) in [(0, 0, 8), (u64::MAX, 7, 15), (1 << 63, 4, 12)] {
            assert_eq!(set_of(hash, 16, Clock::Jiffies), jiffies);
            assert_eq!(set_of(hash, 16, Clock::Exact), exact);
        }
    }

    #[test]
    fn parameters_beyond_the_horizon_are_refused() {
        assert!(Gcra::try_new(1, 68).is_some());
        assert!(Gcra::try_new(1, 69).is_none());
        assert!(Gcra::try_new(0, 1).is_none());
        assert!(Gcra::try_new(1, 0).is_none());
    }
}
